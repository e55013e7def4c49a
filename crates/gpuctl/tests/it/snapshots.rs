//! What people read, kept in `snapshots/`: every class of error, and the output on a used state. Help is in `../snapshots/messages.txt`.
//!
//! `INSTA_UPDATE=always cargo test --workspace --test it -- snapshots` writes them anew; look at the difference before committing.

use std::fmt::Write;

use crate::support::Sandbox;
use crate::used::{self, Texts};

/// What differs from run to run.
const FILTERS: [(&str, &str); 7] = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[JOB]"),
    (r"/[^ `\n]*/\.tmp[A-Za-z0-9]+", "[FOLDER]"),
    (r"/[^ `\n]*/gpu-worker\b", "[PROGRAMS]/gpu-worker"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "[TIME]"),
    (r"(?m)^\d\d:\d\d:\d\d UTC ", "[CLOCK] "),
    (r"time zones \d{4}[a-z]", "time zones [VERSION]"),
    (r"commit [^,]*, with(out)? AWS", "commit [COMMIT], [FEATURES]"),
];

/// Durations and amounts of a state that was made just now.
const SHORT: [(&str, &str); 5] = [
    (r"(for|in|oldest) \d+(ms|[hms])[0-9hms]*", "$1 [DURATION]"),
    (r"\(oldest \d+(ms|s)\)", "(oldest [DURATION])"),
    (r"\b\d+ s in 1 start", "[SECONDS] s in 1 start"),
    (
        r"(saved) +nothing: \$\d+\.\d+ more than the \$\d+\.\d+",
        "$1 nothing: $[USD] more than the $[USD]",
    ),
    (r"(always on) +\$\d+\.\d+ on-demand", "$1 $[USD] on-demand"),
];

fn settings(more: &[(&str, &str)]) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (found, shown) in FILTERS.iter().chain(more) {
        settings.add_filter(found, *shown);
    }
    settings
}

/// A command line and what it prints, as on a terminal.
fn record(text: &mut String, sandbox: &Sandbox, arguments: &[&str]) {
    let said = sandbox.run(arguments);
    let line: Vec<&str> =
        arguments.iter().map(|one| if one.is_empty() { "''" } else { one }).collect();
    let _ = writeln!(text, "$ gpuctl {}", line.join(" "));
    for part in [&said.stdout, &said.stderr] {
        text.push_str(part);
    }
    if said.code != 0 {
        let _ = writeln!(text, "[exit {}]", said.code);
    }
    text.push('\n');
}

#[test]
fn version() {
    let mut text = String::new();
    record(&mut text, &Sandbox::new(""), &["--version"]);
    record(&mut text, &Sandbox::new(""), &["version"]);
    record(&mut text, &Sandbox::new(""), &[]);
    settings(&[]).bind(|| insta::assert_snapshot!(text));
}

const TWO_POOLS: &str = "\
[pool.app]
command = [\"sleep\", \"600\"]
[pool.gpu]
queue = \"jobs\"
max_wait = \"1h\"
[pool.office]
[[pool.office.schedule]]
zone = \"UTC\"
";

/// One command for each class of error.
const ERRORS: &[&[&str]] = &[
    &["--jsn"],
    &["statsu"],
    &["status", "gpuu"],
    &["status", "no such pool"],
    &["start"],
    &["start-gpu", "--for", "soon"],
    &["start-gpu", "--for", "1h", "--until", "18:00"],
    &["start-gpu", "--until", "25:00"],
    &["start-gpu", "--until", "2020-01-01T00:00:00Z"],
    &["start-gpu", "--for", "8d"],
    &["start", "office"],
    &["retire", "gpu-9"],
    &["drain", "gpu-9"],
    &["retry"],
    &["retry", "0000"],
    &["retry", "0000", "--state", "failed"],
    &["jobs", "delete"],
    &["jobs", "delete", "--before", "30d"],
    &["logs", "gpu-9"],
    &["logs", "--limit", "0"],
    &["submit", "vision.orc", "a.png"],
    &["submit", "vision.ocr"],
    &["submit", "vision.ocr", "missing.png"],
    &["submit", "vision.ocr", "."],
    &["submit", "vision.ocr", "a.png", "--pool", "app"],
    &["submit", "vision.ocr", "a.png", "--model", "pp-ocr-v9"],
    &["submit", "vision.ocr", "a.png", "--param", "speed"],
    &["submit", "voice.synthesize", "--text", "Hello", "--param", "sped=2"],
    &["submit", "voice.synthesize", "--text", "Hello", "--param", "speed=fast"],
    &["submit", "voice.synthesize", "--text", "Hello", "--param", "speed=100"],
    &["submit", "voice.convert", "--text", "Hello"],
    &["jobs", "--state", "done"],
    &["job", "0000"],
    &["purge", "gpu"],
    &["plan", "--at", "2026-11-22T09:00:00"],
    &["schedule", "show", "app"],
    &["cost", "report", "--month", "2026-13"],
    &["cost", "report", "--month", "2199-01"],
    &["cost", "estimate", "--instance-type", "p9.huge"],
    &["cost", "estimate", "--hours-per-day", "25"],
    &["cost", "estimate", "--usd-hour", "cheap"],
    &["cost", "estimate", "--with-box", "t3.large"],
    &["cost", "estimate", "--with", "=5"],
    &["cost", "estimate", "--capacity", "sopt"],
    &["cost", "prices", "--region", "mars-1"],
    &["simulate"],
    &["simulate", "--demand", "missing.csv"],
    &["simulate", "--demand", "a.png"],
    &["simulate", "--faults", "--only", "poisson"],
    &["simulate", "--demand", "trace.csv", "--policy", "gpuctI"],
    &["tune", "--wait-usd-hour", "1"],
    &["history", "export", "mine.csv"],
    &["init"],
    &["invoke", "status"],
    &["completions", "tcsh"],
    &["status", "--config", "missing.toml"],
    &["status", "--config", "broken.toml"],
    &["status", "gpuu", "--json"],
    &["statsu", "--json"],
    &["--json"],
];

#[test]
fn errors() {
    let sandbox = Sandbox::new(&format!("{TWO_POOLS}[worker]\nmodels = \"models\"\n"));
    std::fs::create_dir(sandbox.path("models")).unwrap();
    sandbox.write("a.png", "x");
    sandbox.write("trace.csv", "t_s,service_s\n0,10\n");
    sandbox.write(
        "broken.toml",
        "[pool.gpu]\nqueue = \"jobs\"\nmax_wiat = \"1m\"\nboxes_max = \"two\"\nidle_stop = \"soon\"\n",
    );
    sandbox.run(&["submit", "vision.ocr", "a.png"]).expect(0);
    let mut text = String::new();
    ERRORS.iter().for_each(|arguments| record(&mut text, &sandbox, arguments));
    settings(&[]).bind(|| insta::assert_snapshot!("errors", text));
}

#[test]
fn a_used_state() {
    let sandbox = used::sandbox(&Texts {
        reason: "maintenance",
        result: "First line\nSecond line",
        error: "the picture ends in the middle",
    });
    let jobs = sandbox.jobs();
    let of = |state: &str| {
        let job = jobs.iter().find(|job| job["state"] == state).unwrap();
        job["job_id"].as_str().unwrap().to_owned()
    };
    let mut text = String::new();
    for arguments in [
        &["status"][..],
        &["plan"],
        &["explain", "app"],
        &["explain", "gpu"],
        &["jobs"],
        &["job", &of("succeeded")],
        &["job", &of("failed")],
        &["job", &of("dead")],
        &["queue"],
        &["cost", "report"],
        &["doctor"],
        &["redrive"],
        &["release", "app"],
        &["purge", "gpu", "--yes"],
    ] {
        record(&mut text, &sandbox, arguments);
    }
    settings(&SHORT).bind(|| insta::assert_snapshot!("used_state", text));
}
