//! Jobs that run a command: a training in NumPy that is interrupted again and again, and whatever can be wrong about one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Sandbox, cache, wait_until, workers};

const TRAIN: &str = include_str!("commands/train.py");

/// One box; leases are short, so that a box that was killed is soon missed.
const POOL: &str = "[cloud]\ntick = \"200ms\"\n[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"2s\"\nvisibility = \"3s\"\n\
    starts_without_result_max = 100\nstarts_per_hour_max = 100\n[worker]\ndrain = \"25s\"\n";

/// A place whose configuration has these commands, and no models.
fn sandbox(commands: &str) -> Sandbox {
    let sandbox = Sandbox::new(&format!("{POOL}{commands}"));
    let models = sandbox.path("models");
    std::fs::create_dir(&models).unwrap();
    sandbox.with("GPUCTL_MODELS", models)
}

/// The folder with the NumPy that the test graphs are made with.
fn numpy() -> PathBuf {
    let pythons = cache().read_dir().unwrap().flatten().map(|entry| entry.path());
    let folders = pythons.filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    let found = folders.map(|folder| folder.path()).find(|folder| folder.join("numpy").is_dir());
    found.expect("NumPy is missing: run scripts/fetch-models.py")
}

/// The result of the only job of a place, once it is over.
fn ended(sandbox: &Sandbox, id: &str) -> Value {
    wait_until("the job is over", || {
        let job = sandbox.run(&["job", id, "--json"]).expect(0).json();
        !["queued", "running"].contains(&job["state"].as_str().unwrap())
    });
    sandbox.run(&["job", id, "--json"]).expect(0).json()
}

fn submit(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let sent = sandbox.run(&[&["submit"], arguments, &["--json"]].concat()).expect(0).json();
    sent["job_ids"][0].as_str().unwrap().to_owned()
}

/// A file of a result.
fn file(job: &Value, name: &str) -> Vec<u8> {
    let files = job["output"]["files"].as_array().unwrap_or_else(|| panic!("{job:#}"));
    let found = files.iter().find(|file| file["name"] == name);
    let uri = found.unwrap_or_else(|| panic!("no {name} in {files:#?}"))["uri"].as_str().unwrap();
    std::fs::read(uri.strip_prefix("file://").unwrap()).unwrap()
}

fn text(job: &Value, name: &str) -> String {
    String::from_utf8(file(job, name)).unwrap()
}

/// Where the training waits, which is told by the last line of what is kept of its metrics.
fn is_at(sandbox: &Sandbox, id: &str, epoch: u32) -> bool {
    let wanted = format!("{{\"epoch\": {epoch},");
    folders(sandbox, id).iter().any(|folder| {
        let lines = std::fs::read_to_string(folder.join("command-metrics.jsonl"));
        lines.unwrap_or_default().lines().last().is_some_and(|line| line.starts_with(&wanted))
    })
}

/// The folders of a job's attempts on the box of this place.
fn folders(sandbox: &Sandbox, id: &str) -> Vec<PathBuf> {
    let all = sandbox.path(".gpuctl/commands/gpu-1").read_dir().into_iter().flatten().flatten();
    let of_job = |path: &PathBuf| path.to_str().unwrap().contains(id);
    all.map(|entry| entry.path()).filter(of_job).collect()
}

/// The processes that run in folders of attempts, also in those that are deleted.
fn processes(sandbox: &Sandbox) -> Vec<Pid> {
    let all = sandbox.path(".gpuctl/commands").canonicalize().unwrap_or_default();
    let is_there = |pid: &Pid| {
        let place = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_pid()));
        place.is_ok_and(|place| place.starts_with(&all))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(is_there).collect()
}

fn signal_workers(sandbox: &Sandbox, signal: Signal) {
    for worker in workers(sandbox) {
        // It may end by itself this very moment.
        let _ = kill_process(worker, signal);
    }
}

fn runs_here(sandbox: &Sandbox) -> bool {
    let script = sandbox.path("train.py");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines =
        processes.filter_map(|one| std::fs::read_to_string(one.path().join("cmdline")).ok());
    lines.into_iter().any(|line| line.split('\0').any(|word| Path::new(word) == script))
}

#[test]
fn a_training_that_is_interrupted_three_times_ends_bit_for_bit_as_one_that_is_not() {
    let commands = |sandbox: &Sandbox| {
        let path = |name| sandbox.path(name).display().to_string();
        format!(
            "{POOL}[command.train]\nargv = [\"python3\", \"{}\", \"--epochs={{epochs}}\", \"--rate={{rate}}\", \"--holds={{holds}}\"]\n\
             env = {{ PYTHONPATH = \"{}\", OMP_NUM_THREADS = \"1\", OPENBLAS_NUM_THREADS = \"1\" }}\n\
             secrets = {{ API_KEY = \"{}\" }}\ncheckpoint_every = \"1s\"\n[command.train.params]\n\
             epochs = {{ type = \"integer\", min = 1, max = 100 }}\nrate = {{ type = \"number\", min = 0.0, max = 1.0, default = 0.05 }}\n\
             holds = {{ type = \"text\", default = \"\" }}\n",
            path("train.py"),
            numpy().display(),
            path("key"),
        )
    };
    let sandbox = sandbox("");
    sandbox.write("gpuctl.toml", commands(&sandbox));
    sandbox.write("train.py", TRAIN);
    secret(&sandbox, 0o600);
    let holds = sandbox.path("holds");
    std::fs::create_dir(&holds).unwrap();
    for epoch in [3, 6, 9] {
        std::fs::write(holds.join(format!("hold-{epoch}")), "").unwrap();
    }
    let _daemon = sandbox.daemon();
    let whole = submit(&sandbox, &["command.train", "--no-input", "--param", "epochs=12"]);
    let whole = ended(&sandbox, &whole);
    assert_eq!(whole["state"], "succeeded", "{whole:#}");

    let holds_param = format!("holds={}", holds.display());
    let wanted = ["command.train", "--no-input", "--param", "epochs=12", "--param", &holds_param];
    let id = submit(&sandbox, &wanted);
    for (epoch, signal) in [(3, Signal::TERM), (6, Signal::KILL), (9, Signal::TERM)] {
        wait_until("the training holds", || is_at(&sandbox, &id, epoch));
        signal_workers(&sandbox, signal);
        wait_until("no program is left without its worker", || !runs_here(&sandbox));
        std::fs::remove_file(holds.join(format!("hold-{epoch}"))).unwrap();
    }
    let job = ended(&sandbox, &id);
    assert_eq!(job["state"], "succeeded", "{job:#}");
    for name in ["first.npy", "weights.zip"] {
        assert!(file(&whole, name) == file(&job, name), "{name} differs");
    }
    let last = |job: &Value| text(job, "command-metrics.jsonl").lines().last().unwrap().to_owned();
    assert_eq!(last(&whole), last(&job));
    assert_eq!(job["output"]["metrics"]["epoch"], 12);
    // What was saved was gone on with: after a stop exactly there, after a kill from the last checkpoint that was kept.
    let log = text(&job, "command-log.txt");
    let begins = |epoch: u32| log.contains(&format!("begins at epoch {epoch} "));
    assert!(begins(0) && begins(3) && begins(9), "{log}");
    no_secret(&sandbox, &log);
}

/// Writes the secret, with these permissions.
fn secret(sandbox: &Sandbox, mode: u32) {
    let path = sandbox.write("key", "correct-horse\n");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The program printed it; nothing that is kept has it.
#[track_caller]
fn no_secret(sandbox: &Sandbox, log: &str) {
    assert!(log.contains("with the key ***"), "{log}");
    let mut folders = vec![sandbox.path(".gpuctl")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let found = bytes.windows(13).any(|part| part == b"correct-horse");
                assert!(!found, "{} has the secret", path.display());
            }
        }
    }
}

#[test]
fn a_command_that_the_policy_does_not_have_is_not_submitted() {
    let sandbox = sandbox(
        "[command.train]\nargv = [\"true\", \"{epochs}\"]\n[command.train.params]\nepochs = { type = \"integer\", min = 1, max = 9 }\n",
    );
    let error = |arguments: &[&str]| {
        let said = sandbox.run(&[&["submit"], arguments, &["--json"]].concat());
        let said = said.expect(2);
        let error: Value = serde_json::from_str(&said.stderr).unwrap();
        let part = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
        [part("code"), part("message"), part("hint")].join(" | ")
    };
    for (arguments, wanted) in [
        (
            &["command.trian", "--no-input"][..],
            "task.unknown | there is no command `trian` | did you mean `train`?",
        ),
        (
            &["command.train", "--no-input"],
            "input.param_missing | command.train needs the param `epochs`",
        ),
        (
            &["command.train", "--no-input", "--param", "epoch=3"],
            "input.param_unknown | command.train has no param `epoch`",
        ),
        (
            &["command.train", "--no-input", "--param", "epochs=soon"],
            "input.param | `epochs` is \"soon\" | give a whole number from 1 to 9",
        ),
        (&["vision.ocr", "--no-input"], "usage.missing_argument | vision.ocr needs an input"),
    ] {
        let said = error(arguments);
        assert!(said.contains(wanted), "{said}");
    }
    assert!(sandbox.jobs().is_empty(), "nothing was sent");
}

/// Runs a script of the shell as a command with these settings, and returns its job.
fn run(settings: &str, script: &str) -> (Sandbox, Value) {
    let argv = format!("argv = [\"sh\", \"-c\", {}]\n", Value::from(script));
    let sandbox = sandbox(&format!("[command.it]\n{settings}{argv}"));
    let id = submit(&sandbox, &["command.it", "--no-input"]);
    let job = ended(&sandbox, &id);
    (sandbox, job)
}

fn error(job: &Value) -> String {
    let part = |name: &str| job["error"][name].as_str().unwrap_or_default().to_owned();
    [part("code"), part("message")].join(": ")
}

#[test]
fn a_program_that_fails_or_takes_too_long_says_so_and_its_log_stays() {
    let (_sandbox, job) = run("", "echo before >&2; echo oops >&2; exit 3");
    assert_eq!(error(&job), "command.failed: it ended with exit code 3: oops", "{job:#}");
    let hint = job["error"]["hint"].as_str().unwrap();
    let log = hint.split_once("the log: file://").unwrap_or_else(|| panic!("{hint}")).1;
    assert_eq!(std::fs::read_to_string(log).unwrap(), "before\noops\n");
    let (_sandbox, job) = run("soft_max = \"1s\"\nhard_max = \"2s\"\n", "trap '' TERM; sleep 60");
    assert_eq!(error(&job), "command.timeout: it ran for longer than 2s", "{job:#}");
}

#[test]
fn a_command_of_other_pools_is_not_run() {
    let (_sandbox, job) = run("pools = []\n", "echo ran");
    assert_eq!(error(&job), "command.pool: command.it does not run in the pool gpu", "{job:#}");
}

#[test]
fn a_program_that_ends_well_when_its_time_is_over_has_a_result() {
    let script = "trap 'echo saved > \"$GPUCTL_OUTPUT_DIR/a.txt\"; exit 0' TERM; while :; do sleep 0.05; done";
    let (_sandbox, job) = run("soft_max = \"1s\"\nhard_max = \"50s\"\n", script);
    assert_eq!(job["output"]["stopped_at_soft_max"], true, "{job:#}");
    assert_eq!(text(&job, "a.txt"), "saved\n");
}

#[test]
fn an_exit_code_that_is_listed_has_a_program_run_again_from_its_checkpoint() {
    let script = "cd \"$GPUCTL_CHECKPOINT_DIR\"; touch $(ls | wc -l); [ -e 2 ] || exit 75; echo \"token:$HF_TOKEN.\"";
    let (_sandbox, job) = run("retry_exit_codes = [75]\n", script);
    assert_eq!(job["output"]["attempts"], 3, "{job:#}");
    assert!(
        text(&job, "command-log.txt").ends_with("token:.\n"),
        "it gets nothing of the worker's environment"
    );
    let (_sandbox, job) = run("retry_exit_codes = [75]\nretries_max = 1\n", script);
    assert!(error(&job).starts_with("command.failed: it ended with exit code 75"), "{job:#}");
}

#[test]
fn a_checkpoint_or_output_beyond_its_limit_is_told_by_name() {
    let fill = |place: &str| format!("head -c 3000000 /dev/zero > \"${place}/x\"; ");
    let settings = "checkpoint_every = \"1s\"\ncheckpoint_mib_max = 1\noutput_mib_max = 2\n";
    let (_sandbox, job) = run(settings, &(fill("GPUCTL_CHECKPOINT_DIR") + "sleep 60"));
    let wanted =
        "command.full: its checkpoint cannot be kept: its files take 3 MiB, at most 1 are allowed";
    assert_eq!(error(&job), wanted, "{job:#}");
    let (_sandbox, job) = run(settings, &fill("GPUCTL_OUTPUT_DIR"));
    let wanted =
        "command.full: its output cannot be kept: its files take 3 MiB, at most 2 are allowed";
    assert_eq!(error(&job), wanted, "{job:#}");
}

#[test]
fn an_output_that_cannot_be_packed_is_the_jobs_error_and_the_program_is_not_run_again() {
    for (script, wanted) in [
        ("rmdir \"$GPUCTL_OUTPUT_DIR\"", "No such file or directory"),
        (
            "mkdir \"$GPUCTL_OUTPUT_DIR/d\"; : > \"$GPUCTL_OUTPUT_DIR/d/$(printf 'a\\377')\"",
            "is not UTF-8",
        ),
    ] {
        let (_sandbox, job) = run("", &format!("echo ran; {script}"));
        let said = error(&job);
        assert!(said.starts_with("command.output: it ended well, but"), "{job:#}");
        assert!(said.contains(wanted), "{said}");
        let hint = job["error"]["hint"].as_str().unwrap();
        let log = hint.split_once("the log: file://").unwrap_or_else(|| panic!("{hint}")).1;
        assert_eq!(std::fs::read_to_string(log).unwrap(), "ran\n");
    }
}

/// Stops the only box of a place in the middle of this script, once its first checkpoint is kept, and returns its job's end.
fn stopped_once(settings: &str, script: &str) -> (Sandbox, Value) {
    let argv = format!("argv = [\"sh\", \"-c\", {}]\n", Value::from(script));
    let sandbox = sandbox(&format!("[command.it]\ncheckpoint_every = \"1s\"\n{settings}{argv}"));
    let _daemon = sandbox.daemon();
    let id = submit(&sandbox, &["command.it", "--no-input"]);
    let kept = sandbox.path(".gpuctl/results").join(&id).join("working-0/command-checkpoint.zip");
    wait_until("a checkpoint is kept", || kept.is_file());
    signal_workers(&sandbox, Signal::TERM);
    let job = ended(&sandbox, &id);
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(text(&job, "a.txt"), "good\n");
    (sandbox, job)
}

#[test]
fn a_job_that_cannot_go_on_from_its_checkpoint_goes_on_from_the_one_before() {
    let script = "cd \"$GPUCTL_CHECKPOINT_DIR\"; case \"$(cat x)\" in torn) exit 1;; good) cp x \"$GPUCTL_OUTPUT_DIR/a.txt\"; exit 0;; esac; \
        echo good > x; trap 'echo torn > x; exit 0' TERM; while :; do sleep 0.05; done";
    let (_sandbox, job) = stopped_once("", script);
    assert_eq!(job["output"]["attempts"], 3, "{job:#}");
    let log = text(&job, "command-log.txt");
    assert!(log.contains("gpuctl: failed at once with its checkpoint"), "{log}");
}

#[test]
fn what_was_written_when_a_program_was_killed_is_not_its_checkpoint() {
    let script = "cd \"$GPUCTL_CHECKPOINT_DIR\"; [ ! -e x ] || { cp x \"$GPUCTL_OUTPUT_DIR/a.txt\"; exit 0; }; \
        echo good > x; trap 'while :; do echo torn > x; sleep 0.05; done' TERM; while :; do sleep 0.05; done";
    let (_sandbox, job) = stopped_once("grace = \"1s\"\n", script);
    assert_eq!(job["output"]["attempts"], 2, "{job:#}");
}

#[test]
fn attempts_count_also_where_a_program_saves_nothing() {
    let sandbox = sandbox(
        "[command.it]\ncheckpoint_every = \"1s\"\n\
         argv = [\"sh\", \"-c\", \"[ $GPUCTL_ATTEMPT -gt 1 ] || exec sleep 600\"]\n",
    );
    let _daemon = sandbox.daemon();
    let id = submit(&sandbox, &["command.it", "--no-input"]);
    let kept = sandbox.path(".gpuctl/results").join(&id).join("working-0/command-note.json");
    wait_until("its time is kept", || kept.is_file());
    signal_workers(&sandbox, Signal::KILL);
    let job = ended(&sandbox, &id);
    assert_eq!(job["output"]["attempts"], 2, "{job:#}");
}

#[test]
fn a_checkpoint_of_another_generation_is_refused() {
    let script = ": > \"$GPUCTL_CHECKPOINT_DIR/x\"; exit 75";
    let (sandbox, job) = run("retry_exit_codes = [75]\nretries_max = 1\n", script);
    let id = job["job_id"].as_str().unwrap();
    let kept = sandbox.path(".gpuctl/results").join(id);
    let [before, next] = ["working-0", "working-1"].map(|name| kept.join(name));
    std::fs::create_dir(&next).unwrap();
    let name = "command-checkpoint.zip";
    std::fs::copy(before.join(name), next.join(name)).unwrap();
    sandbox.run(&["retry", id]).expect(0);
    let job = ended(&sandbox, id);
    let wanted = format!(
        "command.checkpoint: its checkpoint is of generation 0 of job {id}, and this is generation 1"
    );
    assert_eq!(error(&job), wanted, "{job:#}");
}

#[test]
fn a_program_or_secret_that_a_box_lacks_is_a_fault_of_the_box_and_fails_no_job() {
    for (settings, code) in [
        ("argv = [\"/nowhere/train\"]\n", "command.program"),
        ("argv = [\"true\"]\nsecrets = { API_KEY = \"KEY\" }\n", "command.secret"),
    ] {
        let sandbox = sandbox("");
        secret(&sandbox, 0o644);
        let settings =
            settings.replace("KEY\" }", &format!("{}\" }}", sandbox.path("key").display()));
        sandbox.write("gpuctl.toml", format!("{POOL}[command.it]\n{settings}"));
        submit(&sandbox, &["command.it", "--no-input"]);
        wait_until("the fault is told", || {
            sandbox.run(&["status", "--json"]).expect(0).stdout.contains(code)
        });
        assert_eq!(sandbox.jobs()[0]["error"], Value::Null);
    }
}

/// A shell, one that it waits for, one beside it, and one in a session of its own, as a training's ranks are.
const FAMILY: &str = "setsid sleep 600 & sleep 600 & sleep 600";
/// Those, and the launcher.
const FAMILY_COUNT: usize = 5;

#[test]
fn a_command_that_a_user_cancels_ends_with_what_it_has_started() {
    let sandbox = sandbox(&format!("[command.it]\nargv = [\"sh\", \"-c\", \"{FAMILY}\"]\n"));
    let id = submit(&sandbox, &["command.it", "--no-input"]);
    wait_until("all run", || processes(&sandbox).len() == FAMILY_COUNT);
    sandbox.run(&["cancel", &id, "--yes"]).expect(0);
    assert_eq!(ended(&sandbox, &id)["state"], "cancelled");
    wait_until("nothing of it is left", || processes(&sandbox).is_empty());
    wait_until("nor its folder", || folders(&sandbox, &id).is_empty());
}

#[test]
fn a_program_that_ends_leaves_nothing_running() {
    let (sandbox, job) = run("", "setsid sleep 600 & sleep 600 & echo ran");
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(processes(&sandbox), [], "by the time that it has its result");
}

/// A script that does this the first time, and nothing the second time.
fn once(sandbox: &Sandbox, script: &str) -> String {
    let mark = sandbox.path("began");
    let script = format!("[ ! -e {0} ] || exit 0; : > {0}; {script}", mark.display());
    format!("{POOL}[command.it]\nargv = [\"sh\", \"-c\", {}]\n", Value::from(script))
}

#[test]
fn what_a_command_has_started_does_not_outlive_its_worker() {
    let sandbox = sandbox("");
    sandbox.write("gpuctl.toml", once(&sandbox, FAMILY));
    let _daemon = sandbox.daemon();
    let id = submit(&sandbox, &["command.it", "--no-input"]);
    wait_until("all run", || processes(&sandbox).len() == FAMILY_COUNT);
    let before = processes(&sandbox);
    signal_workers(&sandbox, Signal::KILL);
    wait_until("they end with it", || processes(&sandbox).iter().all(|one| !before.contains(one)));
    assert_eq!(ended(&sandbox, &id)["state"], "succeeded");
    wait_until("what it has left is removed", || folders(&sandbox, &id).is_empty());
}

#[test]
fn a_worker_whose_launcher_was_killed_ends_since_something_may_be_left() {
    let sandbox = sandbox("");
    sandbox.write("gpuctl.toml", once(&sandbox, "sleep 600"));
    let _daemon = sandbox.daemon();
    let id = submit(&sandbox, &["command.it", "--no-input"]);
    wait_until("it runs", || processes(&sandbox).len() == 3);
    let before = workers(&sandbox);
    let parents = processes(&sandbox).into_iter().filter(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_pid()));
        line.unwrap_or_default().contains("gpu-worker")
    });
    parents.for_each(|launcher| kill_process(launcher, Signal::KILL).unwrap());
    wait_until("its worker ends", || workers(&sandbox).iter().all(|one| !before.contains(one)));
    assert_eq!(ended(&sandbox, &id)["state"], "succeeded");
}

#[test]
fn a_program_that_a_shell_waits_for_is_told_to_end_too() {
    let save = "trap 'echo saved > \"$GPUCTL_CHECKPOINT_DIR/x\"; exit 0' TERM; : > ready; while :; do sleep 0.05; done";
    let script = format!("[ -e \"$GPUCTL_CHECKPOINT_DIR/x\" ] || sh -c {save:?}; exit $?");
    let sandbox =
        sandbox(&format!("[command.it]\nargv = [\"sh\", \"-c\", {}]\n", Value::from(script)));
    let _daemon = sandbox.daemon();
    let id = submit(&sandbox, &["command.it", "--no-input"]);
    wait_until("it runs", || folders(&sandbox, &id).iter().any(|one| one.join("ready").exists()));
    signal_workers(&sandbox, Signal::TERM);
    let job = ended(&sandbox, &id);
    assert_eq!(job["output"]["attempts"], 2, "{job:#}");
}
