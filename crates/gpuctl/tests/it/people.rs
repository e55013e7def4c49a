//! What the command line says to users beside the answer: hints, waits, and what was not necessary.

use crate::support::Sandbox;

#[test]
fn a_file_that_is_not_there_is_told_with_one_that_is_nearly_called_so() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n");
    sandbox.write("meeting-notes.wav", "x");
    let said = sandbox.run(&["submit", "voice.transcribe", "meeting-nots.wav"]);
    assert!(said.stderr.contains("did you mean `meeting-notes.wav`?"), "{}", said.stderr);
    let said = sandbox.run(&["submit", "voice.transcribe", "/nowhere/meeting-notes.wav"]);
    assert!(said.stderr.contains("it is read here, before the job is sent"), "{}", said.stderr);
}

#[test]
fn a_release_without_a_hold_says_so() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n");
    let said = sandbox.run(&["release", "gpu"]).expect(0);
    assert!(said.stderr.contains("pool `gpu` had no hold"), "{}", said.stderr);
    sandbox.run(&["stop", "gpu"]).expect(0);
    let said = sandbox.run(&["release", "gpu"]).expect(0);
    assert!(!said.stderr.contains("had no hold"), "{}", said.stderr);
}

#[test]
fn a_wait_elsewhere_than_on_a_terminal_says_for_what_and_gives_results_once() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n");
    let said =
        sandbox.run(&["submit", "text.embed", "--text", "hello", "--wait", "--timeout", "110s"]);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("gpu-1 boots, about "), "{all}");
    assert!(said.stderr.contains("1 of 1 job done"), "{all}");
    assert_eq!(all.matches("(text.embed").count(), 1, "{all}");
}

/// A command on this machine whose hour has a price.
const PRICED: &str = "[pool.app]\ncommand = [\"sleep\", \"600\"]\n[cost]\nusd_hour = 0.5\n";

#[test]
fn status_says_what_a_pool_has_cost_and_what_it_follows_from() {
    let sandbox = Sandbox::new(PRICED);
    sandbox.run(&["start-app", "--wait"]).expect(0);
    let status = sandbox.run(&["status"]).expect(0).stdout;
    // A start is billed for a minute at least: 60 s at $0.50 an hour.
    assert!(status.contains("$0.01 today, $0.01 this month, about $"), "{status}");
    let config = sandbox.config();
    let footer = format!(" UTC with {}, state in ", config.display());
    assert!(status.contains(&footer), "{status}");
    let json = sandbox.run(&["status", "--json"]).expect(0).json();
    assert!(json["pools"][0]["cost"]["usd_month_forecast"].as_f64().unwrap() > 0.0, "{json}");
    assert_eq!(json["config"], config.display().to_string());
}

#[test]
fn a_configuration_further_up_is_told_since_it_is_not_used() {
    let sandbox = Sandbox::new(PRICED);
    std::fs::create_dir(sandbox.path("inner")).unwrap();
    sandbox.write("inner/gpuctl.toml", PRICED);
    let mut command = sandbox.command(&["status"]);
    let status = crate::support::said(command.current_dir(sandbox.path("inner")).output().unwrap());
    assert!(status.stdout.contains("not used, since that one is nearer: "), "{}", status.stdout);
    let status = sandbox.run(&["status"]).expect(0).stdout;
    assert!(!status.contains("not used"), "{status}");
}

#[test]
fn the_cost_of_a_month_is_checked_against_a_limit() {
    let sandbox = Sandbox::new(PRICED);
    sandbox.run(&["start-app", "--wait"]).expect(0);
    let forecast = sandbox.run(&["cost", "forecast", "--json"]).expect(0).json();
    let usd = forecast["usd_month_forecast"].as_f64().unwrap();
    assert!(usd > 0.0 && forecast["pools"][0]["pool"] == "app", "{forecast}");
    sandbox.run(&["cost", "check", "--max-usd-month", "100000"]).expect(0);
    let over = sandbox.run(&["cost", "check", "--max-usd-month", "0.000001"]).expect(6);
    assert!(over.stdout.contains("that is more than the limit of $0.00"), "{}", over.stdout);
    let none = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n").run(&["cost", "forecast"]).expect(0);
    assert!(none.stdout.starts_with("no boxes that cost"), "{}", none.stdout);
}

#[test]
fn a_job_a_pool_and_a_code_are_explained() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"1h\"\n");
    let sent = sandbox.run(&["submit", "text.embed", "--text", "hello", "--json"]).expect(0).json();
    let id = sent["job_ids"][0].as_str().unwrap();
    let said = sandbox.run(&["explain", id]).expect(0).stdout;
    assert!(said.contains("waits for 1 job waits, the oldest for "), "{said}");
    assert!(said.contains("pool      gpu: stopped: 1 job waits"), "{said}");
    let pool = sandbox.run(&["explain", "gpu"]).expect(0).stdout;
    assert!(pool.starts_with("gpu is stopped at "), "{pool}");
    let code = sandbox.run(&["explain", "input.memory", "--json"]).expect(0).json();
    assert_eq!(code["blamed_on"], "the input", "{code}");
    let none = sandbox.run(&["explain", "nothing"]).expect(2);
    assert!(none.stderr.contains("no pool, job or code `nothing`"), "{}", none.stderr);
    // Also where the configuration is what is wrong.
    let broken = Sandbox::new("[pool.gpu]\nqeue = 1\n");
    let code = broken.run(&["explain", "config.invalid"]).expect(0).stdout;
    assert!(code.ends_with("Exit code 2.\n"), "{code}");
}

#[test]
fn a_configuration_is_shown_with_origins_and_checked() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n").with("DEVICE", "cpu");
    let shown = sandbox.run(&["config", "show", "--origin"]).expect(0).stdout;
    for line in [
        "queue = \"jobs\"  # line 2",
        "max_wait = \"0s\"  # default",
        "# start_depth: none  # default",
        "device = \"cpu\"  # DEVICE",
    ] {
        assert!(shown.lines().any(|one| one == line), "{line} in {shown}");
    }
    // What is shown can be used as it is.
    let plain = sandbox.run(&["config", "show"]).expect(0).stdout;
    let whole = sandbox.write("whole.toml", plain);
    sandbox.run(&["config", "validate", whole.to_str().unwrap()]).expect(0);
    let path = sandbox.run(&["config", "path", "--json"]).expect(0).json();
    assert_eq!(path["config"], sandbox.config().display().to_string());
    let schema = sandbox.run(&["config", "schema"]).expect(0).json();
    let pool = &schema["properties"]["pool"]["additionalProperties"]["properties"];
    assert_eq!(pool["idle_stop"]["default"], "auto", "{schema}");
    assert_eq!(pool["schedule"]["type"], "array", "{schema}");
    sandbox.write("bad.toml", "[pool.gpu]\nqeue = \"jobs\"\nmax_wait = 3\n");
    let bad = sandbox.run(&["config", "validate", "bad.toml"]).expect(2);
    assert!(bad.stderr.contains("qeue") && bad.stderr.contains("max_wait"), "{}", bad.stderr);
}
