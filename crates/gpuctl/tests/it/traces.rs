//! Traces on the command line: simulate, tune, and one's own history.

use crate::support::{Sandbox, sample};

/// Eight jobs a day for six days, some close together.
fn trace() -> String {
    let mut text = "t_s,service_s\n".to_owned();
    for day in 0..6 {
        for job in 0..8 {
            text +=
                &format!("{},{}\n", day * 86_400 + 30_000 + job * 431 + job % 3 * 55, 20 + job * 7);
        }
    }
    text
}

const POOL: &str = "[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"10m\"\nboot_default = \"2m\"";

#[test]
fn a_trace_is_compared_under_every_policy_and_gpuctl_keeps_the_limit_for_less() {
    let sandbox = Sandbox::new(POOL);
    sandbox.write("trace.csv", trace());
    let document = sandbox.run(&["simulate", "--demand", "trace.csv", "--json"]).expect(0).json();
    let policies = document["policies"].as_array().unwrap();
    let names: Vec<&str> = policies.iter().map(|one| one["policy"].as_str().unwrap()).collect();
    let all = [
        "always-on",
        "office-hours",
        "depth-rule",
        "keda",
        "skypilot",
        "asg",
        "start1-stop0",
        "gpuctl",
    ];
    assert_eq!(names, all);
    let of = |name: &str, key: &str| {
        policies.iter().find(|one| one["policy"] == name).unwrap()[key].as_f64().unwrap()
    };
    assert_eq!((of("gpuctl", "late_jobs"), of("gpuctl", "jobs_lost")), (0.0, 0.0));
    assert!((1.0..1.1).contains(&of("gpuctl", "ratio_to_bound")), "{document}");
    for peer in ["always-on", "keda", "skypilot", "asg", "start1-stop0"] {
        assert!(of(peer, "usd") > of("gpuctl", "usd"), "{peer}: {document}");
    }
    assert!(of("depth-rule", "wait_seconds_max") > 3_600.0, "{document}");
    let bound = |key: &str| document[key].as_f64().unwrap();
    let (service, limit) = (bound("service_seconds"), bound("bound_box_seconds"));
    let (same_start, prewarm) =
        (bound("bound_same_start_box_seconds"), bound("bound_prewarm_box_seconds"));
    assert!(service < limit && limit <= same_start && limit <= prewarm, "{document}");
    let again = sandbox.run(&["simulate", "--demand", "trace.csv", "--json"]).expect(0).json();
    assert_eq!(document, again);
}

#[test]
fn spot_costs_less_where_it_can_be_had_and_the_page_shows_it() {
    let sandbox = Sandbox::new(POOL);
    sandbox.write("trace.csv", trace());
    sandbox.write("spot.csv", "t_s,zone,available\n0,us-east-1a,1\n200000,us-east-1a,0\n300000,us-east-1a,1\n900000,us-east-1a,0\n");
    let usd = |more: &[&str]| {
        let base = ["simulate", "--demand", "trace.csv", "--policy", "gpuctl", "--json"];
        let document = sandbox.run(&[&base[..], more].concat()).expect(0).json();
        document["policies"][0]["usd"].as_f64().unwrap()
    };
    let at_one_price = usd(&["--availability", "spot.csv", "--spot-usd-hour", "0.2"]);
    assert!(at_one_price < 0.7 * usd(&[]));
    let prices = |hour: &str| {
        sandbox.write("prices.csv", format!("t_s,zone,usd_hour\n0,us-east-1a,{hour}\n"));
        usd(&["--availability", "spot.csv", "--prices", "prices.csv"])
    };
    assert!((prices("0.2") - at_one_price).abs() < 1e-3);
    assert!(prices("0.2\n100000,us-east-1a,0.4") > 1.2 * at_one_price);
    sandbox.run(&["simulate", "--demand", "trace.csv", "--html", "page.html"]).expect(0);
    let page = std::fs::read_to_string(sandbox.path("page.html")).unwrap();
    assert!(page.matches("<svg").count() >= 10 && page.contains("</html>"), "{} bytes", page.len());
    assert!(
        !page.contains("NaN") && !page.contains("http"),
        "a page of its own, with numbers in it"
    );
}

#[test]
fn the_pool_of_the_file_is_simulated_unless_options_say_otherwise() {
    // A job each three minutes for a day.
    let jobs: String = (0..480).map(|job| format!("{},5\n", job * 180)).collect();
    let simulate = |pool: &str, more: &[&str]| {
        let sandbox = Sandbox::new(&format!(
            "[pool.app]\ncommand = [\"x\"]\n[pool.gpu]\nqueue = \"jobs\"\nboot_default = \"150s\"\n{pool}"
        ));
        sandbox.write("trace.csv", format!("t_s,service_s\n{jobs}"));
        let base = ["simulate", "--demand", "trace.csv", "--policy", "gpuctl"];
        let text = sandbox.run(&[&base[..], more].concat()).expect(0).stdout;
        let json = sandbox.run(&[&base[..], more, &["--json"]].concat()).expect(0).json();
        (text, json)
    };
    let starts = |json: &serde_json::Value| json["policies"][0]["starts"].as_f64().unwrap();
    let (text, at_once) = simulate("idle_stop = \"0s\"", &[]);
    assert!(text.contains("max_wait 0s, idle_stop 0s, boot 2m30s,"), "{text}");
    assert!(text.contains("settings of pool `gpu`"), "{text}");
    let (text, stays) = simulate("max_wait = \"1m\"\nidle_stop = \"10m\"", &[]);
    assert!(text.contains("max_wait 1m, idle_stop 10m, boot 2m30s,"), "{text}");
    assert!(starts(&stays) < 3.0 && starts(&at_once) > 100.0, "{at_once} {stays}");
    let options = ["--idle-stop", "10m", "--max-wait", "1m", "--boot", "150s", "--pool", "gpu"];
    let (_, by_options) = simulate("idle_stop = \"0s\"", &options);
    assert_eq!(by_options["policies"], stays["policies"]);
}

#[test]
fn a_month_is_only_said_of_a_day_at_least_and_never_costs_more_than_all_of_it() {
    let sandbox = Sandbox::new(POOL);
    sandbox.write("short.csv", "t_s,service_s\n0,30\n600,30\n");
    let said = sandbox.run(&["simulate", "--demand", "short.csv"]).expect(0);
    assert!(said.stdout.contains("USD/MONTH needs a trace of a day at least"), "{}", said.stdout);
    let short = sandbox.run(&["simulate", "--demand", "short.csv", "--json"]).expect(0).json();
    let months = short["policies"].as_array().unwrap().iter().map(|one| &one["usd_month"]);
    assert!(months.into_iter().all(serde_json::Value::is_null), "{short}");
    let example = sandbox.run(&["simulate", "--demand", "example", "--json"]).expect(0).json();
    assert!(example["jobs"].as_u64().unwrap() > 200 && example["days"].as_f64().unwrap() > 13.0);
    let most = example["on_demand_usd_hour"].as_f64().unwrap() * 24.0 * 30.0;
    for one in example["policies"].as_array().unwrap() {
        assert!(one["usd_month"].as_f64().unwrap() <= most + 1e-6, "{one}");
    }
}

#[test]
fn tuning_prints_lines_for_the_configuration() {
    let sandbox = Sandbox::new(POOL);
    sandbox.write("trace.csv", trace());
    let tuned = ["tune", "--demand", "trace.csv", "--wait-usd-hour", "0.01", "10", "--json"];
    let document = sandbox.run(&tuned).expect(0).json();
    let tuned = document["tuned"].as_array().unwrap();
    assert_eq!(tuned.len(), 2);
    for one in tuned {
        let pool = format!(
            "[pool.gpu]\nqueue = \"jobs\"\nmax_wait = {}\nidle_stop = {}",
            one["max_wait"], one["idle_stop"]
        );
        Sandbox::new(&pool).run(&["plan"]).expect(0);
        assert!(one["ratio_to_hindsight"].as_f64().unwrap() >= 1.0, "{one}");
    }
}

#[test]
fn job_history_can_be_replayed() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"1s\"");
    let none = sandbox.run(&["history", "export", "mine.csv"]).expect(1);
    assert!(none.stderr.contains("no job in that time has a result"), "{}", none.stderr);
    let recording = sample("beckett.wav");
    sandbox.run(&["submit", "voice.transcribe", "--wait", recording.to_str().unwrap()]).expect(0);
    sandbox.run(&["history", "export", "mine.csv"]).expect(0);
    let document = sandbox.run(&["simulate", "--demand", "mine.csv", "--json"]).expect(0).json();
    assert_eq!(document["jobs"].as_u64(), Some(1));
}

#[test]
fn a_bad_trace_is_refused_with_its_line() {
    let sandbox = Sandbox::new(POOL);
    for (text, words) in [
        ("", "empty"),
        ("t_s,service_s\n", "no"),
        ("a,b\n1,2\n", "line 1"),
        ("t_s,service_s\n5,1\n4,1\n", "line 3"),
        ("t_s,service_s\n-5,1\n", "line 2"),
        ("t_s,service_s\n5,x\n", "line 2"),
        ("t_s,service_s\n5,1,9\n", "line 2"),
    ] {
        sandbox.write("bad.csv", text);
        let said = sandbox.run(&["simulate", "--demand", "bad.csv"]).expect(2);
        assert!(
            said.stderr.contains(words) && said.stderr.contains("hint:"),
            "{text:?}\n{}",
            said.stderr
        );
    }
    let said = sandbox.run(&["simulate", "--demand", "absent.csv"]).expect(1);
    assert!(said.stderr.contains("cannot read absent.csv"), "{}", said.stderr);
    sandbox.write("trace.csv", trace());
    let said = sandbox.run(&["simulate", "--demand", "trace.csv", "--policy", "gpuctI"]).expect(2);
    assert!(said.stderr.contains("did you mean `gpuctl`?"), "{}", said.stderr);
}

#[test]
fn prices_that_cannot_be_used_are_refused_with_their_line_and_a_hint() {
    let sandbox = Sandbox::new(POOL);
    sandbox.write("trace.csv", trace());
    sandbox.write("spot.csv", "t_s,zone,available\n0,us-east-1a,1\n900000,us-east-1a,0\n");
    let with = ["simulate", "--demand", "trace.csv", "--prices", "prices.csv"];
    let both = [&with[..], &["--availability", "spot.csv"]].concat();
    let aws = "timestamp_utc,az,instance_type,usd_per_hour\n2026-01-05T00:00:00Z,us-east-1a,p3.2xlarge,1\n";
    for (text, words) in [
        ("t_s,zone,usd_hour\n0,us-east-1a,0.2\n5,us-east-1a,cheap\n", "line 3"),
        ("t_s,zone,usd_hour\n0,us-east-1b,0.2\n", "in us-east-1a"),
        (aws, "--instance-type"),
    ] {
        sandbox.write("prices.csv", text);
        let said = sandbox.run(&both).expect(2);
        let told = said.stderr.contains(words) && said.stderr.contains("hint:");
        assert!(told, "{text:?}\n{}", said.stderr);
    }
    let typed = [&both[..], &["--instance-type", "p3.2xlarge", "--region", "us-east-1"]].concat();
    let typed = [&typed[..], &["--on-demand-usd-hour", "3.06"]].concat();
    let said = sandbox.run(&typed).expect(0);
    assert!(said.stdout.contains("the price in force (prices.csv)"), "{}", said.stdout);
    let said = sandbox.run(&with).expect(2);
    assert!(said.stderr.contains("--availability"), "{}", said.stderr);
}

#[test]
fn weeks_with_faults_keep_every_guarantee_and_are_the_same_each_time() {
    let sandbox = Sandbox::new(POOL);
    let command = ["simulate", "--faults", "--seeds", "2", "--hours", "24", "--json"];
    let document = sandbox.run(&command).expect(0).json();
    assert_eq!((document["weeks"].as_u64(), document["failure"].is_null()), (Some(2), true));
    assert!(document["checks"].as_u64() > document["jobs"].as_u64(), "{document}");
    let again = sandbox.run(&command).expect(0).json();
    for key in ["faults", "jobs", "jobs_committed", "starts", "usd", "reconciles", "checks"] {
        assert_eq!(document[key], again[key], "{key}");
    }
    let one = ["simulate", "--faults", "--seed", "1", "--only", "none", "--hours", "24"];
    let said = sandbox.run(&one).expect(0);
    assert!(said.stdout.contains("no guarantee was violated"), "{}", said.stdout);
    let said = sandbox.run(&["simulate", "--faults", "--only", "poisson"]).expect(2);
    assert!(said.stderr.contains("did you mean `poison`?"), "{}", said.stderr);
    let said = sandbox.run(&["simulate"]).expect(2);
    assert!(said.stderr.contains("no trace was given"), "{}", said.stderr);
}

#[test]
fn what_simulated_workers_log_is_shown_only_to_those_who_ask() {
    let only = ["--only", "broken-image", "--only", "ledger-down", "--only", "store-down"];
    let week = [&["simulate", "--faults", "--seed", "11", "--hours", "48"], &only[..]].concat();
    let said = Sandbox::new(POOL).run(&week).expect(0);
    assert!(!said.stderr.contains("ERROR"), "{}", said.stderr);
    let said = Sandbox::new(POOL).with("GPUCTL_LOG", "error").run(&week).expect(0);
    assert!(said.stderr.contains("ERROR gpuctl_worker"), "{}", said.stderr);
}
