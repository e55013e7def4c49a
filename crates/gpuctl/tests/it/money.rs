//! Money on the command line: what hours would cost, what was spent, and budgets that hold.

use serde_json::Value;

use crate::support::Sandbox;

/// A month of 22 weekdays with an app server for 8 hours a day, storage and an address.
const MONTH: [&str; 10] = [
    "--days-per-month",
    "22",
    "--with-box",
    "t3.large:8@0.10",
    "--with",
    "efs=5",
    "--with",
    "address=4",
    "--with",
    "s3=3",
];

fn estimate(sandbox: &Sandbox, more: &[&str]) -> Value {
    let mut arguments = vec!["cost", "estimate", "--json", "--instance-type", "g4dn.xlarge"];
    arguments.extend(["--region", "ap-northeast-1"]);
    arguments.extend(more);
    sandbox.run(&arguments).expect(0).json()
}

#[track_caller]
fn check_rounded(document: &Value, usd: f64) {
    let found = document["usd_month"].as_f64().unwrap();
    assert!((found - usd).abs() <= 0.5, "{found} is not {usd} when rounded");
}

#[test]
fn estimates_of_one_box_are_right() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"");
    let hours = |hours: &'static str, days| ["--hours-per-day", hours, "--days-per-month", days];
    let always = estimate(&sandbox, &[]);
    check_rounded(&always, 511.0);
    assert_eq!(always["usd_hour"].as_f64(), Some(0.71));
    check_rounded(&estimate(&sandbox, &hours("8", "22")), 125.0);
    check_rounded(&estimate(&sandbox, &hours("4", "22")), 62.0);
    // Ten hours a week: 10 × 52 ÷ 12 = 43.3 hours a month.
    check_rounded(&estimate(&sandbox, &hours("1.97", "22")), 31.0);
    let spot = [
        "--capacity",
        "spot",
        "--usd-hour",
        "0.21",
        "--hours-per-day",
        "8",
        "--days-per-month",
        "22",
    ];
    check_rounded(&estimate(&sandbox, &spot), 37.0);
}

#[test]
fn estimates_of_a_month_with_other_costs_are_right() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"");
    let month =
        |more: &[&str]| estimate(&sandbox, &[&MONTH[..], &["--hours-per-day", "2"], more].concat());
    let on_demand = month(&[]);
    check_rounded(&on_demand, 61.0);
    assert_eq!(on_demand["components"].as_array().unwrap().len(), 5);
    check_rounded(&month(&["--capacity", "spot", "--usd-hour", "0.21"]), 39.0);
}

#[test]
fn a_bad_estimate_says_what_is_wrong_with_it() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"");
    for (arguments, words) in [
        (
            &["--instance-type", "p9.huge"][..],
            "no on-demand price is known for p9.huge in us-east-1",
        ),
        (&["--instance-type", "c6g.large", "--capacity", "spot"], "no spot price is known"),
        (&["--hours-per-day", "25"], "`25` is not a number of hours from 0 to 24"),
        (&["--days-per-month", "32"], "32 is not in 0..=31"),
        (&["--usd-hour", "-1"], "`-1` is not a valid amount of US dollars"),
        (&["--usd-hour", "cheap"], "`cheap` is not a valid amount of US dollars"),
        (&["--with-box", "t3.large"], "is not of the form TYPE:HOURS"),
        (&["--with", "=5"], "is not of the form NAME=USD"),
        (&["--capacity", "sopt"], "is not a valid capacity type"),
    ] {
        let said = sandbox.run(&[&["cost", "estimate"][..], arguments].concat()).expect(2);
        assert!(said.stderr.contains(words), "{arguments:?}\n{}", said.stderr);
    }
    let said = sandbox.run(&["cost", "report", "--month", "2026-13"]).expect(2);
    assert!(said.stderr.contains("is not a valid month"), "{}", said.stderr);
    let said = sandbox.run(&["cost", "report", "--month", "2199-01"]).expect(2);
    assert!(said.stderr.contains("in the future"), "{}", said.stderr);
}

/// A budget that the first start exceeds: a minute is billed at least, and costs $0.0088 in us-east-1.
const POOR: &str = "[pool.app]\ncommand = [\"sleep\", \"600\"]\nbudget_usd_month = 0.008\n";

#[test]
fn a_budget_forbids_a_hold_until_it_states_an_amount() {
    let sandbox = Sandbox::new(POOR);
    sandbox.run(&["start-app", "--wait"]).expect(0);
    sandbox.run(&["stop-app", "--wait"]).expect(0);
    let said = sandbox.run(&["start-app"]).expect(6);
    assert!(
        said.stderr.contains("`app` is not started: $0.0088 of $0.0080 spent"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("hint: allow this hold to spend more"), "{}", said.stderr);
    assert_eq!(sandbox.state("app"), "stopped");
    let explained = sandbox.run(&["explain", "app", "--json"]).expect(0).json();
    assert_eq!(explained["blocked"][0]["rule"], "budget", "{explained}");
    let text = explained["blocked"][0]["text"].as_str().unwrap();
    assert!(text.contains("of $0.0080 spent this month"), "{text}");
    sandbox.run(&["start-app", "--over-budget", "1", "--wait"]).expect(0);
    assert_eq!(sandbox.state("app"), "running");
    let report = sandbox.run(&["cost", "report", "--json"]).expect(0).json();
    assert!(report["usd"].as_f64().unwrap() >= 0.017, "{report}");
}

#[test]
fn a_released_pool_follows_its_schedule_again() {
    let sandbox = Sandbox::new("[pool.app]\ncommand = [\"sleep\", \"600\"]");
    sandbox.run(&["start-app", "--wait"]).expect(0);
    sandbox.run(&["release", "app"]).expect(0);
    sandbox.wait_for("app", "stopped");
    let explained = sandbox.run(&["explain", "app", "--json"]).expect(0).json();
    assert_eq!(explained["last_run"]["stopped_by"]["rule"], "schedule");
    let said = sandbox.run(&["release", "ap"]);
    assert!(said.stderr.contains("app"), "{}", said.stderr);
}

#[test]
fn a_plan_for_another_instant_shows_what_the_schedule_wants_then() {
    let window = "[[pool.app.schedule]]\nzone = \"Asia/Tokyo\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"19:00\"";
    let sandbox = Sandbox::new(&format!("[pool.app]\ncommand = [\"sleep\", \"600\"]\n{window}"));
    let at = |instant: &str| sandbox.run(&["plan", "--at", instant, "--json"]).expect(0).json();
    let monday = at("2026-11-23T09:00:00+09:00");
    assert_eq!(monday["at"], "2026-11-23T00:00:00.000Z");
    assert_eq!(monday["pools"][0]["actions"][0]["action"], "start");
    let sunday = at("2026-11-22T09:00:00+09:00");
    assert_eq!(sunday["pools"][0]["actions"].as_array().unwrap().len(), 0);
    let said = sandbox.run(&["plan", "--at", "2026-11-22T09:00:00"]).expect(2);
    assert!(said.stderr.contains("hint: write it with its offset"), "{}", said.stderr);
}
