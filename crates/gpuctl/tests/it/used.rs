//! A state as after some use: a box that ran, jobs that are done, failed, dead and waiting, and a hold. No model is run: the
//! results are committed here, as a worker does.

use std::path::PathBuf;

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobFailure, JobId, JobResult, Urgency};
use gpuctl_control::ports::{Clock, JobProblem, Ledger, ReceiveRequest, Received};
use gpuctl_control::wire::job::job_from_json;
use gpuctl_core::policy::Policy;
use gpuctl_local::{Store, StoreOptions, SystemClock};
use serde_json::{Value, json};

use crate::support::Sandbox;

const CONFIG: &str = "\
[pool.app]
command = [\"sleep\", \"600\"]
[pool.gpu]
queue = \"jobs\"
max_wait = \"1h\"
receives_max = 1
[worker]
models = \"models\"
onnxruntime = \"nowhere.so\"
";

/// The texts that come from users and workers.
pub(crate) struct Texts<'a> {
    pub(crate) reason: &'a str,
    pub(crate) result: &'a str,
    pub(crate) error: &'a str,
}

/// A folder with such a state.
pub(crate) fn sandbox(texts: &Texts<'_>) -> Sandbox {
    let sandbox = Sandbox::new(CONFIG);
    std::fs::create_dir(sandbox.path("models")).unwrap();
    sandbox.run(&["start-app", "--wait"]).expect(0);
    sandbox.run(&["stop-app", "--wait", "--for", "1h", "--reason", texts.reason]).expect(0);
    let submit = |name: &str| {
        sandbox.write(name, "x");
        sandbox.run(&["submit", "vision.ocr", name]).expect(0);
    };
    ["done.png", "failed.png", "dead.png"].into_iter().for_each(submit);
    let store = store(&sandbox);
    let output = json!({ "text": texts.result, "files": [file(&sandbox)] });
    commit(&store, &receive(&store).remove(0), Ok(output));
    let failure = JobFailure {
        code: "input.truncated".to_owned(),
        message: texts.error.to_owned(),
        hint: Some("submit the whole file".to_owned()),
    };
    commit(&store, &receive(&store).remove(0), Err(failure));
    // A receive that ends without an ack; the next one finds the message received too often.
    let last = receive(&store).remove(0);
    note_problem(&store, &last, texts.error);
    store.change_visibility_now(&last.receipt, TimeDelta::zero()).unwrap();
    assert!(receive(&store).is_empty());
    submit("waiting.png");
    sandbox
}

/// The queue and ledger of such a folder.
pub(crate) fn store(sandbox: &Sandbox) -> Store {
    let options = StoreOptions { folder: sandbox.path(".gpuctl"), file_mib_max: 64 };
    let store = Store::open(&options).unwrap();
    store.configure(&Policy::parse(CONFIG).unwrap()).unwrap();
    store
}

/// Keeps a file of the job's result; returns the job's folder.
pub(crate) fn keep_file(sandbox: &Sandbox, job: &str) -> PathBuf {
    let folder = sandbox.path(".gpuctl/results").join(job);
    let attempt = folder.join("0-gpu-1-1");
    std::fs::create_dir_all(&attempt).unwrap();
    std::fs::write(attempt.join("page.txt"), "page").unwrap();
    folder
}

/// Submits another job, and commits the one that waits with a file that is kept; returns its id.
pub(crate) fn commit_with_kept_file(sandbox: &Sandbox) -> String {
    sandbox.write("more.png", "x");
    sandbox.run(&["submit", "vision.ocr", "more.png"]).expect(0);
    let store = store(sandbox);
    let received = receive(&store).remove(0);
    let id = job_from_json(&received.body).unwrap().id.to_string();
    let path = keep_file(sandbox, &id).join("0-gpu-1-1/page.txt").canonicalize().unwrap();
    let uri = InputUri::of_path(&path).as_str().to_owned();
    let file = json!({ "name": "page.txt", "uri": uri, "media_type": "text/plain", "bytes": 4 });
    commit(&store, &received, Ok(json!({ "text": "page", "files": [file] })));
    id
}

fn file(sandbox: &Sandbox) -> Value {
    let uri = format!("file://{}", sandbox.path("page.txt").display());
    json!({ "name": "page.txt", "uri": uri, "media_type": "text/plain", "bytes": 5 })
}

fn receive(store: &Store) -> Vec<Received> {
    receive_many(store, 1)
}

/// Receives every message that waits.
pub(crate) fn receive_all(store: &Store) -> Vec<Received> {
    receive_many(store, 10)
}

fn receive_many(store: &Store, max: u32) -> Vec<Received> {
    let (visibility, wait) = (TimeDelta::minutes(1), TimeDelta::zero());
    let request = ReceiveRequest { max, visibility, wait };
    store.receive_now(&"jobs".parse().unwrap(), request).unwrap()
}

/// Notes that the job crashed its worker, as the next worker of the box does.
fn note_problem(store: &Store, received: &Received, message: &str) {
    let job: Job = job_from_json(&received.body).unwrap();
    let failure = JobFailure {
        code: "job.crashed".to_owned(),
        message: message.to_owned(),
        hint: Some("look at its input".to_owned()),
    };
    let at = job.submitted_at;
    let box_id = "gpu-1".parse().unwrap();
    let problem = JobProblem { job, failure, box_id, at, dead: false };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.note_problem(&problem)).unwrap();
}

/// Notes failed jobs of a queue, newer than all others; returns their ids.
pub(crate) fn commit_failed(sandbox: &Sandbox, queue: &str, jobs: usize) -> Vec<String> {
    let at = SystemClock.now();
    let failed = |_| {
        let job = Job {
            id: JobId::new(at),
            queue: queue.parse().unwrap(),
            task: "vision.ocr".to_owned(),
            model: None,
            input: InputUri::of_text("x").unwrap(),
            params: serde_json::Map::new(),
            submitted_at: at,
            generation: 0,
            urgency: Urgency::default(),
        };
        let failure =
            JobFailure { code: "model.failed".into(), message: "it failed".into(), hint: None };
        result(job, Err(failure))
    };
    let results: Vec<JobResult> = (0..jobs).map(failed).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let committed = runtime.block_on(store(sandbox).commit(&results));
    assert!(committed.iter().all(Result::is_ok));
    results.iter().map(|result| result.job.id.to_string()).collect()
}

/// Commits and acks a job as its worker does.
pub(crate) fn commit(store: &Store, received: &Received, outcome: Result<Value, JobFailure>) {
    let job: Job = job_from_json(&received.body).unwrap();
    store.commit_now(&result(job, outcome)).unwrap();
    store.ack_now(&received.receipt).unwrap();
}

fn result(job: Job, outcome: Result<Value, JobFailure>) -> JobResult {
    JobResult {
        received_at: job.submitted_at + TimeDelta::milliseconds(1_500),
        finished_at: job.submitted_at + TimeDelta::milliseconds(2_000),
        job,
        outcome,
        model: Some("pp-ocr-v6-small".to_owned()),
        device: Some("cpu".to_owned()),
        box_id: "gpu-1".parse().unwrap(),
        attempt: 1,
        inference: TimeDelta::milliseconds(250),
        worked: None,
    }
}
