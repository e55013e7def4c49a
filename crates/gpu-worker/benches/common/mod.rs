//! A worker in this process on a queue in a folder of its own, and jobs for it.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first error")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpu_inference::{DevicePreference, InputLimits, RuntimeOptions, cache_folder};
use gpu_worker::{Engine, EngineSetup};
use gpuctl_control::job::{InputUri, Job, JobId, JobResult, Urgency};
use gpuctl_control::ports::{Clock, Ledger, Ports};
use gpuctl_control::submit::submit;
use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_core::policy::Policy;
use gpuctl_local::{Store, StoreOptions, SystemClock, ports};
use gpuctl_worker::{Alone, MemoryScratch, Parts, Signals, Worker, WorkerSetup, serve};
use tempfile::TempDir;

/// The time between two polls for a result.
const POLL_EVERY: Duration = Duration::from_micros(200);

/// What models and threads the benchmarks use: the defaults.
pub(crate) fn engine_setup() -> EngineSetup {
    EngineSetup {
        library: None,
        models: cache_folder().join("models"),
        device: DevicePreference::Auto,
        device_of: std::collections::BTreeMap::new(),
        options: RuntimeOptions::default(),
        limits: InputLimits::default(),
    }
}

/// A recording or picture of the samples.
pub(crate) fn sample(name: &str) -> PathBuf {
    let path = cache_folder().join("samples").join(name);
    assert!(path.is_file(), "{} is missing: run scripts/fetch-models.py", path.display());
    path
}

/// A queue with a worker on it.
pub(crate) struct Bench {
    ports: Ports,
    store: Store,
    signals: Signals,
    _folder: TempDir,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"1d\"").unwrap();
        let open = || {
            let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 1_024 };
            Store::open(&options).unwrap()
        };
        // One for each side, as in two processes: a store does not see its own writes as changes.
        let (store, workers) = (open(), open());
        store.configure(&policy).unwrap();
        let (workers_ports, ports) =
            (ports(&workers, None, Vec::new()), ports(&store, None, Vec::new()));
        let setup = WorkerSetup {
            pool: "gpu".parse().unwrap(),
            box_id: "gpu-1".parse().unwrap(),
            device: None,
            run_started_at: SystemClock.now(),
            pid: std::process::id(),
            boot_phases: Vec::new(),
        };
        let parts = Parts {
            ports: workers_ports,
            inference: Arc::new(Engine::new(engine_setup())),
            scratch: Arc::new(MemoryScratch::default()),
            neighbours: Arc::new(Alone),
            pace: WorkerPace::LOCAL,
        };
        let worker = Arc::new(Worker::new(parts, &policy, setup).unwrap());
        let signals = Signals::new();
        let told = signals.clone();
        tokio::spawn(async move { serve(worker, &told).await });
        Self { ports, store, signals, _folder: folder }
    }

    /// Submits a job for each input and waits for all results; returns each with the time since the submission.
    pub(crate) async fn run(&self, task: &str, inputs: &[&Path]) -> Vec<(JobResult, Duration)> {
        let jobs: Vec<Job> = inputs.iter().map(|input| job(task, input)).collect();
        let began = Instant::now();
        submit(&self.ports, &jobs).await.unwrap();
        // Polling must cost next to nothing: one job is timed to 0.2 ms, many to 20 ms.
        let pause = if jobs.len() == 1 { POLL_EVERY } else { POLL_EVERY * 100 };
        let mut results = Vec::new();
        for job in &jobs {
            let result = loop {
                let entry = self.store.job(&job.id).await.unwrap().unwrap();
                if let Some(result) = entry.result {
                    break result;
                }
                tokio::time::sleep(pause).await;
            };
            results.push((result, began.elapsed()));
        }
        results
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.signals.stop();
    }
}

fn job(task: &str, input: &Path) -> Job {
    let submitted_at = SystemClock.now();
    Job {
        id: JobId::new(submitted_at),
        queue: "jobs".parse().unwrap(),
        task: task.to_owned(),
        model: None,
        input: InputUri::of_path(&input.canonicalize().unwrap()),
        params: serde_json::Map::new(),
        submitted_at,
        generation: 0,
        urgency: Urgency::default(),
    }
}
