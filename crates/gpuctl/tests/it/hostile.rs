//! Values that would act on a terminal: whatever they come from, they are escaped and cut when they are printed.

use serde_json::Value;

use crate::support::{Said, Sandbox};
use crate::used::{self, Texts};

/// Colour, a line that looks like an error of gpuctl, a bell, the C1 form of an escape, a change of direction.
const HOSTILE: &str = "\u{1b}[31mred\nerror: spoofed\u{7}\u{9b}2J\u{202e}kcab\u{7f}";

/// The most that a command prints as text: some lines of `LINE_CHARS_MAX`, or a result.
const BYTES_MAX: usize = 64 * 1024;

/// Every command with a value of the user's; `H` stands for the hostile one.
const COMMANDS: &[&[&str]] = &[
    &["H"],
    &["--H"],
    &["status", "H"],
    &["status", "--config", "H"],
    &["start-all", "--reason", "H"],
    &["start-app", "--for", "H"],
    &["start-gpu", "--until", "H"],
    &["start", "H"],
    &["stop-all", "--timeout", "H"],
    &["stop-app", "--over-budget", "H"],
    &["stop-gpu", "H"],
    &["stop", "H"],
    &["release", "H"],
    &["logs", "H"],
    &["logs", "--since", "H"],
    &["retire", "H"],
    &["drain", "H"],
    &["retry", "H"],
    &["retry", "--state", "H"],
    &["retry", "--state", "failed", "--code", "H"],
    &["retry", "--state", "failed", "--since", "H"],
    &["jobs", "delete", "--before", "H"],
    &["submit", "H", "a.png"],
    &["submit", "vision.ocr", "H"],
    &["submit", "vision.ocr", "a.png", "--param", "H"],
    &["submit", "vision.ocr", "a.png", "--param", "H=1"],
    &["submit", "voice.synthesize", "--text", "x", "--param", "speed=H"],
    &["submit", "vision.ocr", "a.png", "--model", "H"],
    &["submit", "vision.ocr", "a.png", "--pool", "H"],
    &["jobs", "--state", "H"],
    &["jobs", "--limit", "H"],
    &["job", "H"],
    &["queue", "H"],
    &["redrive", "H"],
    &["purge", "H"],
    &["plan", "H"],
    &["plan", "--at", "H"],
    &["explain", "H"],
    &["schedule", "H"],
    &["schedule", "at", "app", "H"],
    &["schedule", "show", "H"],
    &["schedule", "show", "app", "--from", "H"],
    &["schedule", "lint", "H"],
    &["run", "H"],
    &["cost", "report", "--since", "H"],
    &["cost", "report", "--month", "H"],
    &["cost", "estimate", "--instance-type", "H"],
    &["cost", "estimate", "--region", "H"],
    &["cost", "estimate", "--hours-per-day", "H"],
    &["cost", "estimate", "--with", "H=5"],
    &["cost", "estimate", "--with-box", "H:8@0.1"],
    &["cost", "estimate", "--with-box", "t3.large:H"],
    &["cost", "prices", "--region", "H"],
    &["simulate", "--demand", "H"],
    &["simulate", "--demand", "a.png", "--policy", "H"],
    &["simulate", "--demand", "hostile.csv"],
    &["simulate", "--faults", "--only", "H"],
    &["tune", "--demand", "H", "--wait-usd-hour", "1"],
    &["history", "export", "H/mine.csv"],
    &["models", "verify", "H"],
    &["models", "pull", "--from", "H", "x"],
    &["init", "H/gpuctl.toml"],
    &["doctor", "H"],
    &["invoke", "H"],
    &["completions", "H"],
    &["man", "a.png/H"],
    &["status", "--config", "hostile.toml"],
    &["doctor", "--config", "hostile.toml"],
];

/// Whether a terminal acts on the character, or reorders text by it.
fn acts(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn check_safe(said: &Said, what: &[&str]) {
    for part in [&said.stdout, &said.stderr] {
        assert!(!part.chars().any(acts), "{what:?}: {part:?}");
        assert!(!part.lines().any(|line| line.starts_with("error: spoofed")), "{what:?}: {part}");
    }
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(
        "[pool.app]\ncommand = [\"sleep\", \"600\"]\n[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"1h\"\n[worker]\nmodels = \"models\"\n",
    );
    std::fs::create_dir(sandbox.path("models")).unwrap();
    sandbox.write("a.png", "x");
    sandbox.write("hostile.csv", format!("t_s,service_s\n{HOSTILE},1\n"));
    let text = "\\u001b[31m\\u009b2J\\u202e";
    let toml = format!(
        "[pool.\"{text}\"]\nqueue = \"{text}\"\n\"{text}\" = 1\nidle_stop = \"{text}\"\n[pool.gpu]\nzone = \"{text}\"\n"
    );
    sandbox.write("hostile.toml", toml);
    sandbox
}

fn with(arguments: &[&str], hostile: &str) -> Vec<String> {
    arguments.iter().map(|one| one.replace('H', hostile)).collect()
}

#[test]
fn no_value_of_the_command_line_acts_on_the_terminal_or_fills_it() {
    let sandbox = sandbox();
    let long = format!("{HOSTILE}{}", "x".repeat(100_000));
    for arguments in COMMANDS {
        let said = sandbox.run(&with(arguments, &long));
        check_safe(&said, arguments);
        let bytes = said.stdout.len() + said.stderr.len();
        assert!(bytes <= BYTES_MAX, "{arguments:?}: {bytes} bytes");
    }
}

#[test]
fn under_json_every_error_is_one_document_with_a_code_and_no_control_character() {
    let sandbox = sandbox();
    for arguments in COMMANDS {
        let said = sandbox.run(&[with(arguments, HOSTILE), vec!["--json".to_owned()]].concat());
        check_safe(&said, arguments);
        // `doctor` reports on standard output.
        if said.code == 0 || !said.stdout.is_empty() {
            continue;
        }
        // gpu-worker's log comes before the error.
        let own = said.stderr.lines().skip_while(|line| line.starts_with("gpu-worker: "));
        let error: Value = serde_json::from_str(&own.collect::<String>())
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", said.stderr));
        assert_eq!(error["schema"], "gpuctl.error", "{arguments:?}");
        let code = error["error"]["code"].as_str().unwrap();
        assert!(code.contains('.'), "{arguments:?}: {code}");
        assert_eq!(error["error"]["exit"], said.code, "{arguments:?}");
    }
}

#[test]
fn reasons_results_and_errors_of_jobs_do_not_act_on_the_terminal() {
    let long = format!("{HOSTILE}{}", "x\n".repeat(50_000));
    let sandbox = used::sandbox(&Texts { reason: HOSTILE, result: &long, error: HOSTILE });
    let jobs = sandbox.jobs();
    let ids: Vec<&str> = jobs.iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    let mut commands: Vec<Vec<&str>> = ids.iter().map(|id| vec!["job", *id]).collect();
    commands.extend([
        vec!["status"],
        vec!["plan"],
        vec!["explain", "app"],
        vec!["jobs"],
        vec!["queue"],
    ]);
    for arguments in &commands {
        let said = sandbox.run(arguments).expect(0);
        check_safe(&said, arguments);
        assert!(said.stdout.len() <= BYTES_MAX, "{arguments:?}: {} bytes", said.stdout.len());
        let json = [&arguments[..], &["--json"]].concat();
        check_safe(&sandbox.run(&json).expect(0), &json);
    }
    let done = jobs.iter().find(|job| job["state"] == "succeeded").unwrap();
    assert_eq!(done["output"]["text"], long, "JSON has the whole result, unchanged");
}

#[test]
fn lines_of_logs_do_not_act_on_the_terminal() {
    let sandbox =
        Sandbox::new("[pool.app]\ncommand = [\"sh\", \"-c\", \"cat hostile.txt; sleep 600\"]\n");
    sandbox.write(
        "hostile.txt",
        HOSTILE.replace('\n', " ") + "\n" + &"x".repeat(100_000) + "\nlast\n",
    );
    sandbox.run(&["start-app", "--wait"]).expect(0);
    crate::support::wait_until("it has written all", || {
        sandbox.run(&["logs"]).stdout.ends_with("last\n")
    });
    for arguments in [&["logs"][..], &["logs", "--json"]] {
        check_safe(&sandbox.run(arguments).expect(0), arguments);
    }
    assert!(sandbox.run(&["logs"]).stdout.len() <= BYTES_MAX);
}
