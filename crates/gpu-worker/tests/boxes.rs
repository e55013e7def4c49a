//! What a box's boot scripts call: how long it may be up, why it cannot run jobs, whether its models run.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::process::{Command, Output};

use gpu_inference::cache_folder;

const POLICY: &str =
    "[pool.gpu]\nqueue = \"jobs\"\nlifetime_max = \"3h\"\n[worker]\ndrain = \"90s\"\n";

fn desk() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gpuctl.toml"), POLICY).unwrap();
    folder
}

fn worker(desk: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-worker"));
    command.args(arguments).current_dir(desk).env("GPUCTL_MODELS", desk.join("models"));
    for name in ["GPUCTL_CONFIG", "GPUCTL_STATE", "DEVICE"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_box_is_powered_off_after_lifetime_drain_and_ten_minutes() {
    let desk = desk();
    let said = worker(desk.path(), &["box", "lifetime", "--pool", "gpu"]);
    assert_eq!((said.status.code(), text(&said.stdout).as_str()), (Some(0), "11490\n"));
    // A command that runs may go on until its own limit, and half an hour is for what it has saved.
    let with_command = format!("{POLICY}[command.train]\nargv = [\"t\"]\nhard_max = \"10h\"\n");
    std::fs::write(desk.path().join("gpuctl.toml"), with_command).unwrap();
    let said = worker(desk.path(), &["box", "lifetime", "--pool", "gpu"]);
    assert_eq!(text(&said.stdout), format!("{}\n", 11_490 + 10 * 3_600 + 1_800));
    let said = worker(desk.path(), &["box", "lifetime", "--pool", "gpx"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(text(&said.stderr).contains("there is no [pool.gpx]"), "{}", text(&said.stderr));
}

#[test]
fn a_policy_that_is_not_valid_is_told_with_each_of_its_problems() {
    let desk = desk();
    std::fs::write(desk.path().join("gpuctl.toml"), "[pool.gpu]\nqueue = 1\nidle = 2\n").unwrap();
    let said = worker(desk.path(), &["box", "lifetime", "--pool", "gpu"]);
    let told = text(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{told}");
    assert!(told.contains("line 2: ") && told.contains("line 3: "), "{told}");
}

#[test]
fn a_failed_boot_is_a_report_in_the_ledger() {
    let desk = desk();
    let fault = ["box", "fault", "--pool", "gpu", "--box", "gpu-1", "boot.no-gpu", "no GPU here"];
    let said = worker(desk.path(), &fault);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
    // A box that never ran is in no listing of this machine's ledger; on AWS `status` shows it.
    let kept = desk.path().join(".gpuctl").read_dir().unwrap().flatten();
    let kept: Vec<u8> = kept.filter_map(|file| std::fs::read(file.path()).ok()).flatten().collect();
    for word in [&b"boot.no-gpu"[..], b"no GPU here"] {
        assert!(kept.windows(word.len()).any(|here| here == word), "not in the ledger");
    }
}

#[test]
fn check_runs_each_model_and_fails_with_the_first_that_does_not() {
    let desk = desk();
    let said = worker(desk.path(), &["check"]);
    assert_eq!(said.status.code(), Some(1), "no model at all");
    for model in ["silero-vad-v6", "magika-v3-3", "dtln"] {
        let (from, to) = (cache_folder().join("models").join(model), desk.path().join("models"));
        let folder = to.join(model);
        std::fs::create_dir_all(&folder).unwrap();
        for file in from.read_dir().unwrap().flatten() {
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
    let said = worker(desk.path(), &["check"]);
    let table = text(&said.stdout);
    assert_eq!(said.status.code(), Some(0), "{table}{}", text(&said.stderr));
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.lines().skip(1).all(|line| line.contains(" cpu ")), "{table}");

    let dtln = desk.path().join("models/dtln");
    let graph = dtln.read_dir().unwrap().flatten().map(|file| file.path());
    let graph = graph.filter(|path| path.extension().is_some_and(|it| it == "onnx")).min().unwrap();
    std::fs::write(graph, b"cut short").unwrap();
    let said = worker(desk.path(), &["check"]);
    let table = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{table}");
    assert_eq!(table.matches("FAILED").count(), 1, "{table}");
}
