//! The command line: verbs, messages, exit codes, and one JSON document a command.

use serde_json::Value;

use crate::support::{Said, Sandbox, wait_until};

const TWO_POOLS: &str = "\
[pool.app]
command = [\"sleep\", \"600\"]
[pool.gpu]
queue = \"jobs\"
idle_stop = \"1s\"
";

#[track_caller]
fn check_error(said: &Said, code: i32, stderr: &str) {
    assert_eq!((said.code, said.stderr.trim_end()), (code, stderr.trim_end()), "{}", said.stdout);
    assert!(said.stdout.is_empty(), "{}", said.stdout);
}

#[test]
fn start_and_stop_verbs_start_and_stop_real_boxes() {
    let sandbox = Sandbox::new(TWO_POOLS);
    sandbox.run(&["start-all", "--wait"]).expect(0);
    assert_eq!((sandbox.state("app"), sandbox.state("gpu")), ("running".into(), "running".into()));
    sandbox.run(&["stop-app", "--wait"]).expect(0);
    assert_eq!((sandbox.state("app"), sandbox.state("gpu")), ("stopped".into(), "running".into()));
    sandbox.run(&["start-app", "--wait", "--for", "10m", "--reason", "a test"]).expect(0);
    let status = sandbox.run(&["status", "app", "--json"]).expect(0).json();
    let hold = &status["pools"][0]["hold"];
    assert_eq!(
        (hold["wants"].as_str(), hold["by"].as_str(), hold["why"].as_str()),
        (Some("running"), Some("ada"), Some("a test"))
    );
    sandbox.run(&["stop", "gpu", "--wait"]).expect(0);
    sandbox.run(&["start", "gpu", "--wait"]).expect(0);
    let explained = sandbox.run(&["explain", "gpu", "--json"]).expect(0).json();
    assert_eq!(explained["last_run"]["started_by"]["rule"], "hold");
    sandbox.run(&["stop-all", "--wait"]).expect(0);
    assert_eq!((sandbox.state("app"), sandbox.state("gpu")), ("stopped".into(), "stopped".into()));
    let explained = sandbox.run(&["explain", "app", "--json"]).expect(0).json();
    assert_eq!(explained["last_run"]["stopped_by"]["rule"], "hold");
}

#[test]
fn a_hold_that_ends_hands_back_to_the_queue() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"1s\"");
    sandbox.run(&["start-gpu", "--wait", "--for", "2s"]).expect(0);
    sandbox.wait_for("gpu", "stopped");
    let explained = sandbox.run(&["explain", "gpu", "--json"]).expect(0).json();
    assert_eq!(explained["last_run"]["stopped_by"]["rule"], "idle");
}

#[test]
fn a_daemon_keeps_a_command_up_in_its_window_and_is_alone() {
    let config =
        "[pool.app]\ncommand = [\"sleep\", \"600\"]\n[[pool.app.schedule]]\nzone = \"UTC\"";
    let sandbox = Sandbox::new(config);
    let daemon = sandbox.daemon();
    sandbox.wait_for("app", "running");
    let second = sandbox.run(&["run"]);
    check_error(
        &second,
        1,
        "error: another `gpuctl run` is running on this state folder\n\nhint: one is enough; `gpuctl status` shows its pools",
    );
    drop(daemon);
    assert_eq!(sandbox.state("app"), "running", "a box outlives the daemon");
    let _again = sandbox.daemon();
    // The restarted daemon has adopted it: no second start, and the hold's stop reaches it.
    sandbox.run(&["stop-app"]).expect(0);
    sandbox.wait_for("app", "stopped");
    let explained = sandbox.run(&["explain", "app", "--json"]).expect(0).json();
    assert_eq!(explained["last_run"]["stopped_by"]["rule"], "hold");
}

#[test]
fn a_box_that_cannot_start_says_why_and_is_not_tried_in_a_loop() {
    let sandbox = Sandbox::new("[pool.app]\ncommand = [\"./missing\"]");
    let said = sandbox.run(&["start-app", "--wait"]);
    let error = "error: cannot start box `app-1`\n  caused by: No such file or directory (os error 2)\n\nhint: is `./missing` there and executable?\n";
    assert!(said.code == 1 && said.stderr.ends_with(error), "{}", said.stderr);
    let plan = sandbox.run(&["plan", "--json"]).expect(0).json();
    assert_eq!(plan["pools"][0]["blocked"][0]["rule"], "cooldown");
}

#[test]
fn a_server_that_dies_at_once_is_not_started_in_a_loop() {
    let sandbox = Sandbox::new(
        "[cloud]\ntick = \"100ms\"\n[pool.app]\ncommand = [\"false\"]\n[[pool.app.schedule]]\nzone = \"UTC\"",
    );
    let _daemon = sandbox.daemon();
    wait_until("the daemon backs off", || {
        sandbox.run(&["plan", "app", "--json"]).json()["pools"][0]["blocked"][0]["rule"]
            == "cooldown"
    });
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let sandbox = Sandbox::new(TWO_POOLS);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said =
        crate::support::said(sandbox.command(&["status", "--json"]).stdout(full).output().unwrap());
    assert_eq!(said.code, 1, "{}", said.stderr);
}

#[test]
fn wrong_usage_is_explained_and_exits_with_2() {
    let sandbox = Sandbox::new(TWO_POOLS);
    check_error(
        &sandbox.run(&["start", "GPU"]),
        2,
        "error: there is no pool `GPU`\n\nhint: did you mean `gpu`?",
    );
    check_error(
        &sandbox.run(&["stop-gpu", "--until", "25:00"]),
        2,
        "error: `25:00` is not a valid time\n\nhint: write e.g. `18:00` or `2026-11-21T18:00:00Z`",
    );
    check_error(
        &sandbox.run(&["stop-gpu", "--for", "8d"]),
        2,
        "error: a hold lasts at most 7d\n\nhint: for longer, write a schedule, or take the pool out of the configuration",
    );
    assert_eq!(sandbox.run(&["start-gpu", "--for", "soon"]).code, 2);
    assert_eq!(sandbox.run(&["submit", "vision.orc", "x.png"]).code, 2);
    check_error(
        &sandbox.run(&["submit", "vision.ocr", "gpuctl.toml", "--pool", "app"]),
        2,
        "error: pool `app` has no queue\n\nhint: it runs a command; submit to a pool with a `queue`",
    );
    sandbox.write("a.png", "x");
    // Held down, so that the job is still there when the purge asks.
    sandbox.run(&["stop-gpu"]).expect(0);
    sandbox.run(&["submit", "vision.ocr", "a.png"]).expect(0);
    check_error(
        &sandbox.run(&["purge", "gpu"]),
        2,
        "error: not confirmed\n\nhint: add --yes to skip the confirmation",
    );
    check_error(
        &sandbox.run(&["job", "0000"]),
        1,
        "error: there is no job `0000`\n\nhint: `gpuctl jobs` lists them",
    );
}

#[test]
fn inputs_are_checked_before_any_job_is_sent() {
    let sandbox = Sandbox::new(
        "[worker]\ninput_roots = [\"in\"]\n[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"1h\"",
    );
    std::fs::create_dir(sandbox.path("in")).unwrap();
    sandbox.write("in/good.png", "x");
    sandbox.write("outside.png", "x");
    for (input, message) in [
        ("in/missing.png", "cannot read in/missing.png"),
        ("in", "is a folder"),
        ("outside.png", "outside the folders"),
    ] {
        let said = sandbox.run(&["submit", "vision.ocr", "in/good.png", input]);
        assert!(said.code == 2 && said.stderr.contains(message), "{input}: {}", said.stderr);
        assert!(said.stderr.contains("hint: "), "{}", said.stderr);
    }
    assert!(sandbox.jobs().is_empty());
    let sent = sandbox.run(&["submit", "vision.ocr", "in/good.png"]).expect(0);
    assert!(sent.stderr.contains("no controller is running"), "{}", sent.stderr);
    assert_eq!(sandbox.jobs().len(), 1);
}

#[test]
fn a_text_is_an_input_and_params_go_with_the_job() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"1h\"");
    let voice = sandbox.write("voice.wav", "x").canonicalize().unwrap();
    sandbox
        .run(&[
            "submit",
            "voice.convert",
            "--text",
            "Hello there, 100 %",
            "--param",
            "tau=0.5",
            "--param",
            "reference=@voice.wav",
        ])
        .expect(0);
    let job = &sandbox.jobs()[0];
    assert_eq!(job["input"], "data:,Hello%20there,%20100%20%25");
    assert_eq!(job["params"]["tau"], 0.5);
    let uri = job["params"]["reference"].as_str().unwrap();
    assert_eq!(
        std::path::Path::new(uri.strip_prefix("file://").unwrap()).canonicalize().unwrap(),
        voice
    );
    let listed = sandbox.run(&["jobs"]).expect(0).stdout;
    assert!(listed.contains("\"Hello there, 100 %\""), "{listed}");
    for wrong in [
        &["submit", "vision.ocr", "voice.wav", "--param", "speed"][..],
        &["submit", "vision.ocr", "voice.wav", "--param", "reference=@nowhere.wav"],
        &["submit", "voice.convert", "voice.wav", "--param", "reference=@nowhere.wav"],
        &["submit", "voice.convert", "voice.wav", "--param", "reference=file:///nowhere.wav"],
        &["submit", "voice.convert", "voice.wav", "--param", "reference=s3://bucket/voice.wav"],
        &["submit", "vision.ocr", "voice.wav", "--text", "both"],
        &["submit", "vision.ocr"],
        &["submit", "vision.ocr", "--text", &"x".repeat(65_537)],
    ] {
        assert_eq!(sandbox.run(wrong).code, 2, "{wrong:?}");
    }
    assert_eq!(sandbox.jobs().len(), 1);
}

#[test]
fn a_job_that_no_worker_accepts_is_rejected_before_it_is_queued() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"1h\"");
    sandbox.write("voice.wav", "x");
    let cases = [
        (
            &["voice.synthesize", "--text", "x", "--param", "sped=2"][..],
            "error: voice.synthesize has no param `sped`: did you mean `speed`?\n",
            "hint: voice.synthesize has voice, language, speed, noise, noise_w\n",
        ),
        (
            &["voice.synthesize", "--text", "x", "--param", "speed=9"],
            "error: the param `speed` is 9, not a number from 0.25 to 4\n",
            "hint: speed means: 2 speaks twice as fast\n",
        ),
        (
            &["voice.convert", "voice.wav"],
            "error: voice.convert needs the param `reference`: the URI of a file, e.g. file:///…\n",
            "hint: name a file: `--param reference=@PATH`\n",
        ),
    ];
    for (arguments, error, hint) in cases {
        let said = sandbox.run(&[&["submit"], arguments].concat());
        assert_eq!(said.code, 2, "{arguments:?}");
        assert!(said.stderr.contains(error) && said.stderr.contains(hint), "{}", said.stderr);
    }
    let said = sandbox.run(&["submit", "voice.transcrib", "voice.wav"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("voice.transcribe"), "{}", said.stderr);
    assert!(sandbox.jobs().is_empty());
}

#[test]
fn every_problem_of_the_configuration_is_shown_at_once() {
    let sandbox =
        Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nmax_wiat = \"1m\"\nboxes_max = \"two\"\n");
    let said = sandbox.run(&["status"]);
    assert_eq!(said.code, 2);
    assert!(
        said.stderr.contains(
            "caused by: line 3: pool.gpu.max_wiat: unknown key (did you mean `max_wait`?)"
        ),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr
            .contains("caused by: line 4: pool.gpu.boxes_max: is a text (must be a whole number)"),
        "{}",
        said.stderr
    );
    let error: Value = serde_json::from_str(&sandbox.run(&["status", "--json"]).stderr).unwrap();
    assert_eq!(error["error"]["causes"].as_array().unwrap().len(), 2);
    assert_eq!(error["error"]["exit"], 2);
}

#[test]
fn every_command_answers_with_one_json_document() {
    let sandbox = Sandbox::new(TWO_POOLS);
    sandbox.write("a.png", "not a picture");
    let commands: &[&[&str]] = &[
        &["submit", "vision.ocr", "a.png"],
        &["status"],
        &["status", "gpu"],
        &["jobs"],
        &["queue"],
        &["redrive", "gpu"],
        &["plan"],
        &["explain", "gpu"],
        &["schedule", "at", "app", "now"],
        &["schedule", "lint"],
        &["cost", "report", "--since", "1h"],
        &["cost", "prices"],
        &["purge", "gpu", "--dead", "--yes"],
        &["start-app"],
        &["start-gpu"],
        &["start-all"],
        &["start", "app"],
        &["stop", "app"],
        &["stop-app"],
        &["stop-gpu"],
        &["stop-all"],
        &["init", "other.toml"],
    ];
    for command in commands {
        let said = sandbox.run(&[command, &["--json"][..]].concat()).expect(0);
        let document = said.json();
        assert!(
            document["schema"].as_str().unwrap().starts_with("gpuctl."),
            "{command:?}: {document}"
        );
        assert_eq!(document["version"], 1, "{command:?}");
    }
    let submitted = sandbox.jobs();
    let id = submitted[0]["job_id"].as_str().unwrap();
    assert_eq!(sandbox.run(&["job", id, "--json"]).expect(0).json()["schema"], "gpuctl.job");
    assert_eq!(sandbox.run(&["doctor", "--json"]).expect(0).json()["schema"], "gpuctl.doctor");
    let missing: Value =
        serde_json::from_str(&sandbox.run(&["job", "none", "--json"]).expect(1).stderr).unwrap();
    assert_eq!(missing["schema"], "gpuctl.error");
}

#[test]
fn plan_tells_by_its_exit_code_whether_there_is_something_to_do() {
    let sandbox =
        Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"8s\"\nidle_stop = \"1s\"");
    sandbox.run(&["plan", "--exit-code"]).expect(0);
    sandbox.write("a.png", "x");
    // A boot is thought to take 5 s, a tick is 1 s: for 2 s the job may still wait, then the box is called for.
    sandbox.run(&["submit", "vision.ocr", "a.png"]).expect(0);
    wait_until("the plan wants a start", || sandbox.run(&["plan", "--exit-code"]).code == 3);
    assert_eq!(
        sandbox.run(&["plan", "--json"]).json()["pools"][0]["actions"][0]["action"],
        "start"
    );
}

const OFFICE: &str = "\
[pool.app]
[[pool.app.schedule]]
zone = \"Europe/Berlin\"
weekdays = \"mon-fri\"
begin = \"08:30\"
end = \"18:15\"
[pool.app.calendar]
skip_file = \"holidays.ics\"
extra = [\"2026-11-28\"]
";

const HOLIDAYS: &str = "BEGIN:VCALENDAR\nVERSION:2.0\nBEGIN:VEVENT\nSUMMARY:Thanksgiving\n\
DTSTART;VALUE=DATE:20251127\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH\nEND:VEVENT\nEND:VCALENDAR\n";

#[test]
fn a_schedule_says_what_it_wants_at_any_instant_and_draws_its_days() {
    let sandbox = Sandbox::new(OFFICE);
    sandbox.write("holidays.ics", HOLIDAYS);
    let at = |instant| sandbox.run(&["schedule", "at", "app", instant, "--json"]).expect(0).json();
    let holiday = at("2026-11-26T10:00:00+01:00");
    assert_eq!((&holiday["pool"], &holiday["desired"]), (&"app".into(), &"stopped".into()));
    assert_eq!(holiday["at"], "2026-11-26T09:00:00.000Z");
    assert_eq!(holiday["reason"], "outside its schedule; 2026-11-26 is a date to skip");
    assert_eq!(holiday["next_change"]["at"], "2026-11-27T07:30:00.000Z");
    assert_eq!(holiday["next_change"]["desired"], "running");
    assert_eq!(at("2026-11-28T08:00Z")["desired"], "running");
    check_error(
        &sandbox.run(&["schedule", "at", "app", "2026-11-26T10:00:00"]),
        2,
        "error: `2026-11-26T10:00:00` is not a valid time\n\nhint: write it with its offset, e.g. `2026-11-23T09:00:00+09:00` or `2026-11-23T00:00:00Z`, or `now`",
    );
    let shown = sandbox
        .run(&["schedule", "show", "app", "--from", "2026-11-26T00:00:00Z", "--days", "3"])
        .expect(0);
    assert_eq!(
        shown.stdout,
        "\
app: local time of Europe/Berlin
  entry 1   `mon-fri 08:30-18:15 Europe/Berlin`

                0     3     6     9     12    15    18    21    24
Thu 2026-11-26  ················································       0h  (a date to skip)
Fri 2026-11-27  ·················███████████████████▒···········    9h45m  08:30-18:15
Sat 2026-11-28  ·················███████████████████▒···········    9h45m  08:30-18:15 (an extra date)

19h30m running in 3 days; █ running, ▒ partly, · stopped, - not decided
"
    );
    let days = sandbox.run(&["schedule", "show", "app", "--json"]).expect(0).json();
    assert_eq!(days["days"].as_array().unwrap().len(), 7);
    let lint = sandbox.run(&["schedule", "lint"]).expect(0);
    let lines: Vec<&str> = lint.stdout.lines().collect();
    assert_eq!(lines[0], "no warnings for the schedules of app");
    assert!(lines[1].starts_with("app: skip_file holidays.ics has 35 dates, next 20"), "{lines:?}");
    assert!(lines[2].starts_with("app: extra has 1 date, "), "{lines:?}");
    let json = sandbox.run(&["schedule", "lint", "--json"]).expect(0).json();
    assert_eq!(json["calendars"][0]["file"], "holidays.ics");
    assert_eq!(json["time_zones"]["version"], "2026f");
    // Nothing of this pool can run here, and the plan says so.
    let held = sandbox.run(&["start-app"]).expect(4);
    assert!(
        held.stderr.contains("pool `app` has nothing to run on this machine"),
        "{}",
        held.stderr
    );
    let plan = sandbox.run(&["plan", "--json"]).expect(0).json();
    assert_eq!(plan["pools"][0]["boxes_wanted"], 1);
    assert_eq!(plan["pools"][0]["blocked"][0]["rule"], "schedule");
}

#[test]
fn what_a_schedule_hardly_means_is_a_warning_and_what_it_cannot_mean_an_error() {
    let sandbox = Sandbox::new(
        &OFFICE.replace("skip_file", "skip_file = \"none.ics\" #").replace("08:30", "18:15"),
    );
    let said = sandbox.run(&["schedule", "lint"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    for expected in [
        "line 6: pool.app.schedule.end: begin and end are both 18:15 (leave both out for 00:00 to 24:00",
        "line 8: pool.app.calendar.skip_file: `none.ics` cannot be read: No such file or directory",
    ] {
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
    let twice = OFFICE.split("[pool.app.calendar]").next().unwrap();
    let entry = twice.strip_prefix("[pool.app]\n").unwrap();
    let sandbox = Sandbox::new(&format!("{twice}{entry}"));
    let warned = sandbox.run(&["schedule", "lint", "--json"]).expect(0).json();
    assert_eq!(
        (&warned["warnings"][0]["pool"], &warned["warnings"][0]["entry"]),
        (&"app".into(), &2.into())
    );
    let text = sandbox.run(&["schedule", "lint", "app"]).expect(0).stdout;
    assert!(text.starts_with("app, entry 2: ") && text.ends_with("hint: remove it\n"), "{text}");
}

#[test]
fn without_a_configuration_the_default_serves() {
    let sandbox = Sandbox::new("");
    std::fs::remove_file(sandbox.path("gpuctl.toml")).unwrap();
    let mut command = sandbox.command(&["status", "--json"]);
    let home = sandbox.path("home");
    let said = crate::support::said(
        command
            .env("HOME", &home)
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .unwrap(),
    );
    assert_eq!(said.expect(0).json()["pools"][0]["pool"], "gpu");
    assert!(home.join(".local/state/gpuctl/gpuctl.db").is_file());
    sandbox.run(&["init"]).expect(0);
    assert!(
        sandbox.run(&["init"]).expect(1).stderr.contains("exists already: nothing was changed")
    );
}

#[test]
fn what_needs_no_state_works_beside_the_state_of_a_newer_gpuctl() {
    let sandbox = Sandbox::new(OFFICE);
    sandbox.write("holidays.ics", HOLIDAYS);
    sandbox.run(&["queue"]).expect(0);
    let file = sandbox.path(".gpuctl/gpuctl.db");
    let database = rusqlite::Connection::open(file).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    let refused = sandbox.run(&["status"]).expect(1).stderr;
    assert!(refused.contains("has version 99, this gpuctl knows up to"), "{refused}");
    let commands: [&[&str]; 9] = [
        &["schedule", "at", "app", "2026-11-26T08:00Z"],
        &["schedule", "show", "app"],
        &["schedule", "lint"],
        &["cost", "prices", "--region", "us-east-1"],
        &["cost", "estimate", "--instance-type", "g6.xlarge", "--region", "us-east-1"],
        &["simulate", "--demand", "example", "--policy", "gpuctl"],
        &["simulate", "--faults", "--seeds", "1", "--only", "none", "--hours", "24"],
        &["tune", "--demand", "example", "--wait-usd-hour", "1"],
        &["completions", "bash"],
    ];
    commands.iter().for_each(|command| drop(sandbox.run(command).expect(0)));
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let sandbox = Sandbox::new(TWO_POOLS);
    let mut child =
        sandbox.command(&["cost", "prices"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_box_is_drained_alone_and_its_run_says_who_asked() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"10m\"\n");
    sandbox.run(&["start-gpu", "--wait"]).expect(0);
    sandbox.run(&["release", "gpu"]).expect(0);
    let said = sandbox.run(&["drain", "gpu-1"]).expect(0);
    assert!(said.stderr.contains("gpu-1 receives no more jobs"), "{}", said.stderr);
    sandbox.wait_for("gpu", "stopped");
    let explained = sandbox.run(&["explain", "gpu", "--json"]).expect(0).json();
    let stopped_by = &explained["last_run"]["stopped_by"];
    assert_eq!(stopped_by["text"], "ada drains the box", "{explained}");
    let again = sandbox.run(&["drain", "gpu-1"]).expect(0);
    assert!(again.stderr.contains("gpu-1 is stopped already"), "{}", again.stderr);
    assert_eq!(sandbox.run(&["drain", "gpu-7"]).code, 1);
}
