//! Jobs through queue and worker: right answers on real input, and for everything that can be wrong with a job an error
//! result with its code and hint, while the worker and the other jobs go on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Sandbox, cache, sample};

const ONE_POOL: &str = "[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"2s\"\n";

/// Submits the files and answers what became of each, by file name: the text, or the error's code.
fn outcomes(sandbox: &Sandbox, task: &str, files: &[PathBuf]) -> BTreeMap<String, String> {
    let mut arguments: Vec<&OsStr> =
        ["submit", task, "--wait", "--timeout", "110s", "--json"].map(OsStr::new).to_vec();
    arguments.extend(files.iter().map(|file| file.as_os_str()));
    let said = sandbox.run(&arguments);
    let jobs = said.json()["jobs"].as_array().unwrap().clone();
    assert_eq!(jobs.len(), files.len());
    jobs.iter().map(|job| (file_name(job), outcome(job))).collect()
}

fn outcome(job: &Value) -> String {
    match job["state"].as_str().unwrap() {
        "succeeded" => job["output"]["text"].as_str().unwrap().to_owned(),
        "failed" => {
            assert!(job["error"]["hint"].is_string(), "an error without a hint: {job}");
            job["error"]["code"].as_str().unwrap().to_owned()
        }
        state => state.to_owned(),
    }
}

fn file_name(job: &Value) -> String {
    Path::new(job["input"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn recordings_and_pages_come_back_right_and_the_box_stops() {
    let sandbox = Sandbox::new(ONE_POOL);
    let heard =
        outcomes(&sandbox, "voice.transcribe", &[sample("beckett.wav"), sample("two_cities.wav")]);
    assert_eq!(
        heard["beckett.wav"],
        "Ever tried, ever failed, no matter, try again, fail again, fail better."
    );
    assert!(
        heard["two_cities.wav"].starts_with("It was the best of times. It was the worst of times."),
        "{heard:?}"
    );
    assert!(
        heard["two_cities.wav"].ends_with("in the superlative degree of comparison only."),
        "{heard:?}"
    );
    let read = outcomes(&sandbox, "vision.ocr", &[sample("page.png")]);
    assert!(
        read["page.png"].starts_with("Region-based segmentation\nLet us first determine"),
        "{read:?}"
    );
    sandbox.wait_for("gpu", "stopped");
    let explained = sandbox.run(&["explain", "gpu", "--json"]).expect(0).json();
    let run = &explained["last_run"];
    assert_eq!(
        (run["started_by"]["rule"].as_str(), run["stopped_by"]["rule"].as_str()),
        (Some("demand"), Some("idle"))
    );
    let cost = sandbox.run(&["cost", "report", "--json"]).expect(0).json();
    assert_eq!((cost["jobs"]["succeeded"].as_u64(), cost["starts"].as_u64()), (Some(3), Some(1)));
}

#[test]
fn bad_recordings_fail_each_in_its_own_way_and_the_good_one_is_heard() {
    let sandbox = Sandbox::new(ONE_POOL);
    let good = fs::read(sample("beckett.wav")).unwrap();
    let odd_name = OsStr::from_bytes(b"odd \xff\xfe name.wav");
    let ten_hours = sandbox.write("ten_hours.wav", wav_header(16_000, 36_000));
    // A file with a hole: as long as its header says, and it takes no room.
    let file = fs::OpenOptions::new().write(true).open(&ten_hours).unwrap();
    file.set_len(44 + 36_000 * 16_000 * 2).unwrap();
    let files = [
        sandbox.write("empty.wav", ""),
        sandbox.write("text.wav", "this is no recording, whatever its name says\n".repeat(50)),
        sandbox.write("truncated.wav", &good[..good.len() / 2]),
        ten_hours,
        sandbox.write(odd_name, &good),
    ];
    let mut seen = outcomes(&sandbox, "voice.transcribe", &files);
    assert!(seen.remove("odd%20%FF%FE%20name.wav").unwrap().starts_with("Ever tried"));
    let expected = [
        ("empty.wav", "input.empty"),
        ("ten_hours.wav", "input.too_long"),
        ("text.wav", "input.wrong_kind"),
        ("truncated.wav", "input.truncated"),
    ];
    assert_eq!(seen, expected.map(|(file, code)| (file.to_owned(), code.to_owned())).into());
}

#[test]
fn bad_pictures_fail_each_in_its_own_way_and_the_good_one_is_read() {
    let sandbox = Sandbox::new(ONE_POOL);
    let vanishing = sandbox.write("vanishing.png", "x");
    let inbox = sandbox.path("inbox");
    fs::create_dir(&inbox).unwrap();
    let files = [
        sandbox.write("empty.png", ""),
        sandbox.write("text.png", "this is no picture\n".repeat(50)),
        sandbox.write("bomb.png", png_header(30_000, 30_000)),
        sandbox.write("cut.png", &fs::read(sample("page.png")).unwrap()[..20_000]),
        sample("page.png"),
    ];
    let mut seen = outcomes(&sandbox, "vision.ocr", &files);
    assert!(seen.remove("page.png").unwrap().contains("Region-based segmentation"));
    assert_eq!(seen["empty.png"], "input.empty");
    assert_eq!(seen["text.png"], "input.wrong_kind");
    assert_eq!(seen["bomb.png"], "input.too_large");
    assert!(seen["cut.png"].starts_with("input."), "{seen:?}");
    // Gone, or swapped for a folder, between submission and work: the worker's own check.
    sandbox.run(&["stop-gpu", "--wait"]).expect(0);
    sandbox.run(&["submit", "vision.ocr", "vanishing.png"]).expect(0);
    fs::remove_file(&vanishing).unwrap();
    sandbox.run(&["submit", "vision.ocr", "empty.png"]).expect(0);
    fs::remove_file(sandbox.path("empty.png")).unwrap();
    fs::create_dir(sandbox.path("empty.png")).unwrap();
    sandbox.run(&["start-gpu", "--wait"]).expect(0);
    crate::support::wait_until("both have failed", || {
        sandbox.jobs()[..2].iter().all(|job| job["state"] == "failed")
    });
    let last: Vec<String> = sandbox.jobs()[..2].iter().map(outcome).collect();
    assert_eq!(last, ["input.folder", "input.missing"]);
}

#[test]
fn a_text_becomes_a_recording_that_is_kept_and_says_that_text() {
    let sandbox = Sandbox::new(ONE_POOL);
    let said = sandbox
        .run(&[
            "submit",
            "voice.synthesize",
            "--text",
            "Hello world, this is a test.",
            "--param",
            "noise=0",
            "--param",
            "noise_w=0",
            "--wait",
            "--json",
        ])
        .expect(0);
    let job = &said.json()["jobs"][0];
    let file = &job["output"]["files"][0];
    assert_eq!((&file["name"], &file["media_type"]), (&"speech.wav".into(), &"audio/wav".into()));
    let path = PathBuf::from(file["uri"].as_str().unwrap().strip_prefix("file://").unwrap());
    let folder = format!(".gpuctl/results/{}/0-gpu-1-", job["job_id"].as_str().unwrap());
    let shown = path.display().to_string();
    assert!(shown.contains(&folder) && path.ends_with("speech.wav"), "under its attempt: {shown}");
    assert_eq!(fs::metadata(&path).unwrap().len(), file["bytes"].as_u64().unwrap());
    let shown = sandbox.run(&["job", job["job_id"].as_str().unwrap()]).expect(0).stdout;
    assert!(shown.contains("speech.wav (audio/wav, "), "{shown}");
    let heard = outcomes(&sandbox, "voice.transcribe", &[path]);
    assert_eq!(heard["speech.wav"], "Hello world, this is a test.");
}

/// More than a wait reads one by one.
#[test]
fn a_wait_for_many_jobs_ends_with_a_result_of_each() {
    let sandbox = Sandbox::new(ONE_POOL);
    let names: Vec<String> = (0..30).map(|n| format!("{n}.py")).collect();
    for name in &names {
        sandbox.write(name, "import os\n\nprint(os.name)\n");
    }
    let mut arguments = vec!["submit", "text.classify"];
    arguments.extend(names.iter().map(String::as_str));
    arguments.extend(["--wait", "--timeout", "110s", "--json"]);
    let jobs = sandbox.run(&arguments).expect(0).json()["jobs"].clone();
    assert_eq!(jobs.as_array().unwrap().len(), names.len());
}

#[test]
fn a_text_where_a_picture_is_needed_fails_the_job() {
    let sandbox = Sandbox::new(ONE_POOL);
    sandbox.run(&["submit", "vision.ocr", "--text", "not a picture"]).expect(0);
    crate::support::wait_until("it has failed", || sandbox.jobs()[0]["state"] == "failed");
    assert_eq!(outcome(&sandbox.jobs()[0]), "input.wrong_kind");
}

/// A damaged model is told and fails no job, and its job is done once the model is whole.
fn fault_ends_with_its_cause(sandbox: &Sandbox, model: &Path, page: &Path) {
    let detector = model.join("PP-OCRv6_det_small.onnx");
    let good = fs::read(&detector).unwrap();

    fs::write(&detector, [&good[..good.len() - 1], b"x"].concat()).unwrap();
    sandbox.run(&["submit", "vision.ocr", page.to_str().unwrap()]).expect(0);
    let told = |code: &str| {
        let status = sandbox.run(&["status", "--json"]).expect(0).stdout;
        status.contains(code)
    };
    crate::support::wait_until("the worker tells its fault", || told("model.hash"));
    assert!(sandbox.jobs().iter().all(|job| job["state"] != "failed"));
    fs::remove_file(&detector).unwrap();
    crate::support::wait_until("the fault of now is told", || told("model.missing"));
    fs::write(&detector, &good).unwrap();
    crate::support::wait_until("it is done once the model is whole", || {
        sandbox.jobs()[0]["state"] == "succeeded"
    });
    assert_eq!(sandbox.jobs()[0]["attempts"], 1);
}

#[test]
fn a_model_that_cannot_be_used_fails_no_job_and_holds_up_no_other() {
    let models = tempfile::tempdir().unwrap();
    for name in [
        "pp-ocr-v4-mobile",
        "pp-ocr-v6-small",
        "moonshine-tiny-en",
        "silero-vad-v6",
        "dvector-voicefilter",
    ] {
        copy_model(name, models.path());
    }
    let sandbox = Sandbox::new(ONE_POOL).with("GPUCTL_MODELS", models.path());
    let page = [sample("page.png")];
    fault_ends_with_its_cause(&sandbox, &models.path().join("pp-ocr-v6-small"), &page[0]);
    // The same worker, another model, and it needs no code: a manifest was enough.
    let said = sandbox.run(&[
        "submit",
        "vision.ocr",
        page[0].to_str().unwrap(),
        "--model",
        "pp-ocr-v4-mobile",
        "--wait",
        "--json",
    ]);
    assert!(outcome(&said.expect(0).json()["jobs"][0]).contains("segmentation"));
    let unknown = sandbox.run(&[
        "submit",
        "vision.ocr",
        page[0].to_str().unwrap(),
        "--model",
        "no-such-model",
        "--wait",
        "--json",
    ]);
    let error: Value = serde_json::from_str(&unknown.expect(2).stderr).unwrap();
    assert_eq!(error["error"]["message"], "there is no model `no-such-model`");
    assert_eq!(error["error"]["code"], "model.unknown");
    // A manifest of it comes with gpu-worker: that it is not installed is this machine's state.
    let absent = ["submit", "vision.segment", page[0].to_str().unwrap(), "--model", "u2netp"];
    let absent = sandbox.run(&absent).expect(0);
    assert!(
        absent.stderr.contains("`gpuctl models pull u2netp` downloads it"),
        "{}",
        absent.stderr
    );
    // Only the boxes have it: the configuration says so.
    let config = format!("[model.no-such-model]\n{ONE_POOL}");
    let named = Sandbox::new(&config.replace("idle_stop", "max_wait = \"1h\"\nidle_stop"));
    let own = ["submit", "vision.ocr", page[0].to_str().unwrap(), "--model", "no-such-model"];
    named.run(&own).expect(0);
    let wrong_task = sandbox.run(&[
        "submit",
        "vision.ocr",
        page[0].to_str().unwrap(),
        "--model",
        "moonshine-tiny-en",
        "--wait",
        "--json",
    ]);
    let error: Value = serde_json::from_str(&wrong_task.expect(2).stderr).unwrap();
    assert_eq!(error["error"]["code"], "model.task");
}

#[test]
fn without_a_usable_onnx_runtime_no_job_fails_and_status_says_why() {
    let missing = Sandbox::new(ONE_POOL).with("GPUCTL_ONNXRUNTIME", "/nowhere/libonnxruntime.so");
    assert_fault(&missing, "runtime.missing");
    let doctor = missing.run(&["doctor", "--json"]).expect(1).json();
    assert!(
        doctor["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["status"] == "fail" && check["fix"].is_string())
    );
    let no_library = Sandbox::new(ONE_POOL).with("GPUCTL_ONNXRUNTIME", sample("page.png"));
    assert_fault(&no_library, "runtime.no_library");
    let no_gpu = Sandbox::new(&format!("[model.pp-ocr-v6-small]\ndevice = \"cuda\"\n{ONE_POOL}"));
    if !Path::new("/dev/nvidia0").exists() {
        assert_fault(&no_gpu, "model.device");
    }
}

/// A fault of the box fails no job, and the box's status names it; returns what is told.
#[track_caller]
fn assert_fault(sandbox: &Sandbox, code: &str) -> String {
    let page = sample("page.png").display().to_string();
    sandbox.run(&["submit", "vision.ocr", &page]).expect(0);
    sandbox.run(&["start-gpu"]).expect(0);
    let mut fault = Value::Null;
    crate::support::wait_until(&format!("the fault {code} is told"), || {
        let status = sandbox.run(&["status", "gpu", "--json"]).json();
        fault = status["pools"][0]["boxes"][0]["fault"].clone();
        fault["code"] == code
    });
    let job = &sandbox.jobs()[0];
    assert!(["queued", "running"].contains(&job["state"].as_str().unwrap()), "{job}");
    fault["message"].as_str().unwrap().to_owned()
}

#[test]
fn an_onnx_runtime_that_is_too_old_is_named_with_its_version() {
    let sandbox = Sandbox::new(ONE_POOL);
    // All that a program asks of the library before it decides: the version behind OrtGetApiBase.
    let source = sandbox.write(
        "old.c",
        "struct base { void *(*api)(unsigned); const char *(*version)(void); };
         static void *api(unsigned v) { (void)v; return 0; }
         static const char *version(void) { return \"1.20.1\"; }
         static struct base b = { api, version };
         struct base *OrtGetApiBase(void) { return &b; }",
    );
    let library = sandbox.path("libonnxruntime.so");
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    assert!(built.unwrap().success(), "cc is needed: apt-get install gcc");
    let sandbox = sandbox.with("GPUCTL_ONNXRUNTIME", library);
    let told = assert_fault(&sandbox, "runtime.too_old");
    assert!(told.contains("1.20.1"), "{told}");
}

#[test]
fn a_link_that_leads_out_of_the_roots_after_submission_is_refused_by_the_worker() {
    let sandbox =
        Sandbox::new(&format!("[worker]\ninput_roots = [\"in\"]\n{ONE_POOL}max_wait = \"1h\"\n"));
    fs::create_dir(sandbox.path("in")).unwrap();
    let input = sandbox.write("in/a.png", fs::read(sample("page.png")).unwrap());
    sandbox.run(&["submit", "vision.ocr", "in/a.png"]).expect(0);
    fs::remove_file(&input).unwrap();
    std::os::unix::fs::symlink(sample("page.png"), &input).unwrap();
    sandbox.run(&["start-gpu", "--wait"]).expect(0);
    crate::support::wait_until("the job has failed", || sandbox.jobs()[0]["state"] == "failed");
    assert_eq!(outcome(&sandbox.jobs()[0]), "input.outside");
}

#[test]
fn a_worker_that_is_asked_to_stop_gives_back_what_it_cannot_finish_in_time() {
    let sandbox =
        Sandbox::new(&format!("[worker]\ndrain = \"0s\"\n{ONE_POOL}visibility = \"1h\"\n"));
    let long = sample("two_cities.wav");
    let inputs = [long.to_str().unwrap(); 12];
    sandbox.run(&[&["submit", "voice.transcribe"], &inputs[..]].concat()).expect(0);
    crate::support::wait_until("jobs are running", || {
        sandbox.jobs().iter().any(|job| job["state"] == "running")
    });
    sandbox.run(&["stop-gpu", "--wait"]).expect(0);
    // With leases of an hour, only what was released to the queue can be waiting again.
    let queue = sandbox.run(&["queue", "--json"]).expect(0).json();
    assert_eq!(queue["queues"][0]["in_flight"], 0, "{queue}");
    assert!(queue["queues"][0]["visible"].as_u64() > Some(0), "{queue}");
}

#[test]
fn a_full_disk_is_told_as_a_fault_and_the_finished_result_waits_for_room() {
    let config =
        format!("[cloud]\nfile_mib_max = 1\n{ONE_POOL}receives_max = 2\nvisibility = \"1s\"\n");
    let sandbox = Sandbox::new(&config);
    sandbox.run(&["submit", "vision.ocr", sample("page.png").to_str().unwrap()]).expect(0);
    fill(&sandbox.path(".gpuctl/gpuctl.db"));
    sandbox.run(&["start-gpu", "--wait"]);
    crate::support::wait_until("the fault is told", || {
        let status = sandbox.run(&["status"]).expect(0).stdout;
        status.contains("gpu-1 takes no jobs: results cannot be committed: the queue file is")
    });
    // It has ended here already: the next worker finds its result on the disk.
    sandbox.run(&["stop-gpu", "--wait"]).expect(0);
    let roomy = fs::read_to_string(sandbox.path("gpuctl.toml"))
        .unwrap()
        .replace("file_mib_max = 1", "file_mib_max = 64");
    sandbox.write("gpuctl.toml", roomy);
    sandbox.run(&["start-gpu", "--wait"]).expect(0);
    crate::support::wait_until("the job has its answer", || {
        sandbox.jobs()[0]["state"] == "succeeded"
    });
}

/// Fills the queue file up to its limit of 1 MiB, down to the last small row.
fn fill(file: &Path) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection
        .execute_batch("PRAGMA max_page_count = 256; CREATE TABLE ballast (bytes BLOB)")
        .unwrap();
    for bytes in [100_000, 4_000, 100] {
        while connection.execute("INSERT INTO ballast VALUES (zeroblob(?1))", [bytes]).is_ok() {}
    }
}

fn copy_model(name: &str, to: &Path) {
    let (from, to) = (cache().join("models").join(name), to.join(name));
    fs::create_dir_all(&to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A wav header that promises `seconds` of silence and holds none.
fn wav_header(rate: u32, seconds: u32) -> Vec<u8> {
    let data = rate * 2 * seconds;
    let mut wav = b"RIFF".to_vec();
    wav.extend((data + 36).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1, 0, 1, 0]);
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * 2).to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend(data.to_le_bytes());
    wav.extend([0; 64]);
    wav
}

/// The header of a picture of that size, and no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend(width.to_be_bytes());
    png.extend(height.to_be_bytes());
    png.extend([8, 2, 0, 0, 0]);
    let sum = png[12..].iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 }
        })
    });
    png.extend((!sum).to_be_bytes());
    png.extend(b"\0\0\x10\0IDAT\x78\x9c");
    png
}
