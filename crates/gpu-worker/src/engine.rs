//! Models and the threads that run them: one thread a model, opened when the first job needs it.
//!
//! A batch forms while the one before it runs, so the model never waits for decoding. A batch that fails is halved until
//! the input that fails alone is found: its neighbours must not pay for it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gpu_inference::{
    Device, DevicePreference, InputLimits, ModelError, ModelStore, Output, Pipeline, Preparation,
    Prepared, Resolved, RunError, Runtime, RuntimeOptions, Task, open,
};
use gpuctl_control::log::shown;
use gpuctl_core::batch::{BatchLimits, Candidate, form};
use gpuctl_worker::{BoxFault, Fault, JobTimer};
use tokio::sync::{Semaphore, oneshot};

use crate::cancel::{BatchCancel, ItemCancel};
use crate::failure;

/// The most samples or pixels in one batch: what a batch may hold in memory, before the model's own limit.
const BATCH_COST_MAX: u64 = 32_000_000;

/// Where models are and how they run.
#[derive(Clone, Debug)]
pub struct EngineSetup {
    /// The path of ONNX Runtime's library; `None`: as `Runtime::locate` finds it.
    pub library: Option<PathBuf>,
    /// The folder of model folders.
    pub models: PathBuf,
    /// The device of models without one of their own.
    pub device: DevicePreference,
    /// Devices by model name, from `[model.NAME]`.
    pub device_of: BTreeMap<String, DevicePreference>,
    pub options: RuntimeOptions,
    /// Sizes beyond which an input is rejected.
    pub limits: InputLimits,
}

impl EngineSetup {
    /// The models, on the devices that the user chose.
    ///
    /// # Errors
    /// When the folder or a manifest cannot be read.
    pub fn store(&self) -> Result<ModelStore, ModelError> {
        Ok(ModelStore::open(&self.models)?.with_devices(&self.device_of))
    }
}

/// Opens models and runs them. Cloning shares them.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    setup: EngineSetup,
    /// What jobs mean by their task and the model that they name, if they do.
    resolved: Mutex<HashMap<(Task, Option<String>), Resolved>>,
    threads: Mutex<HashMap<Resolved, ModelLine>>,
    /// One permit for each core.
    decoders: Arc<Semaphore>,
}

/// The way to a model's thread.
struct ModelLine {
    items: Sender<Item>,
    preparation: Published,
}

/// How inputs are prepared for a model, while it is open.
type Published = Arc<Mutex<Option<Preparation>>>;

/// One input that waits for its model.
struct Item {
    prepared: Prepared,
    cancel: ItemCancel,
    timer: Arc<JobTimer>,
    reply: oneshot::Sender<Result<Inferred, Fault>>,
}

impl Item {
    /// Whether no one waits for its outcome.
    fn is_dropped(&self) -> bool {
        self.cancel.is_cancelled() || self.reply.is_closed()
    }
}

/// What a model made of one input.
#[derive(Clone, Debug)]
pub struct Inferred {
    pub output: Output,
    /// The model's name.
    pub model: String,
    /// The device that it ran on.
    pub device: Device,
    /// The batch's time divided by its inputs.
    pub took: Duration,
}

impl Engine {
    /// An engine; nothing is loaded yet.
    #[must_use]
    pub fn new(setup: EngineSetup) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let decoders = Arc::new(Semaphore::new(cores));
        Self {
            shared: Arc::new(Shared {
                setup,
                resolved: Mutex::default(),
                threads: Mutex::default(),
                decoders,
            }),
        }
    }

    /// The right to decode: as many as there are cores.
    pub(crate) fn decoders(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.decoders)
    }

    /// Sizes beyond which an input is rejected.
    #[must_use]
    pub fn limits(&self) -> InputLimits {
        self.shared.setup.limits
    }

    /// Whether the runtime loads, the device works, and there are models. Nothing of an earlier answer is remembered.
    ///
    /// # Errors
    /// What this box lacks.
    pub fn probe(&self) -> Result<(), BoxFault> {
        let found = || {
            self.runtime()?
                .device(self.shared.setup.device)
                .map_err(|error| failure::runtime(&error))?;
            self.shared.setup.store().map_err(|error| failure::model(&error))
        };
        match found() {
            Ok(store) if store.list().next().is_some() => Ok(()),
            Ok(_) => Err(BoxFault {
                code: "models.missing".to_owned(),
                message: format!("there is no model in {}", self.shared.setup.models.display()),
                hint: Some(
                    "fetch one with `gpuctl models pull NAME`, or name its folder with GPUCTL_MODELS"
                        .to_owned(),
                ),
            }),
            Err(Fault::Box(fault)) => Err(fault),
            Err(Fault::Input(failure)) => Err(failure::box_fault(failure)),
            Err(Fault::Cancelled | Fault::HandedOver | Fault::Hung) => Ok(()),
        }
    }

    /// Runs one input through the model, beside others that wait for the same one.
    ///
    /// # Errors
    /// When the model cannot be opened, fails on the input, or the job is cancelled.
    pub async fn run(
        &self,
        (task, model): (Task, Option<&str>),
        prepared: Prepared,
        cancel: ItemCancel,
        timer: Arc<JobTimer>,
    ) -> Result<Inferred, Fault> {
        let wanted = self.resolve(task, model)?;
        let (reply, outcome) = oneshot::channel();
        self.enqueue(&wanted, Item { prepared, cancel, timer, reply });
        outcome.await.unwrap_or_else(|_| {
            Err(Fault::Box(BoxFault {
                code: "model.crashed".to_owned(),
                message: format!("the thread of the model {} ended", shown(wanted.model())),
                hint: None,
            }))
        })
    }

    /// How inputs are prepared for this model before they are run; `None` while it is not open, and for models that want nothing prepared.
    pub(crate) fn preparation(&self, task: Task, model: Option<&str>) -> Option<Preparation> {
        let wanted = self.resolve(task, model).ok()?;
        let threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let published = &threads.get(&wanted)?.preparation;
        published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn resolve(&self, task: Task, model: Option<&str>) -> Result<Resolved, Fault> {
        let key = (task, model.map(str::to_owned));
        let known = || self.shared.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolved) = known().get(&key) {
            return Ok(resolved.clone());
        }
        let store = self.shared.setup.store().map_err(|error| failure::model(&error))?;
        let resolved = store.resolve(task, model).map_err(|error| failure::model(&error))?;
        known().insert(key, resolved.clone());
        Ok(resolved)
    }

    fn enqueue(&self, wanted: &Resolved, item: Item) {
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let line = threads.entry(wanted.clone()).or_insert_with(|| self.spawn(wanted.clone()));
        if let Err(unsent) = line.items.send(item) {
            // Its thread ended: a new one takes over. It is started under this lock, so it is there to receive.
            *line = self.spawn(wanted.clone());
            let _ = line.items.send(unsent.0);
        }
    }

    fn spawn(&self, wanted: Resolved) -> ModelLine {
        let (sender, items) = channel();
        let published = Published::default();
        let line = ModelLine { items: sender, preparation: Arc::clone(&published) };
        let engine = self.clone();
        std::thread::spawn(move || match engine.open(&wanted) {
            Ok(pipeline) => {
                let publish = |preparation| {
                    *published.lock().unwrap_or_else(PoisonError::into_inner) = preparation;
                };
                publish(pipeline.preparation());
                ModelThread { model: wanted.model().to_owned(), pipeline, items }.run();
                publish(None);
            }
            Err(fault) => engine.fail_waiting(&wanted, &items, &fault),
        });
        line
    }

    fn runtime(&self) -> Result<Runtime, Fault> {
        let setup = &self.shared.setup;
        let library = Runtime::locate(setup.library.as_deref());
        library
            .and_then(|library| Runtime::load(&library, setup.options))
            .map_err(|error| failure::runtime(&error))
    }

    fn open(&self, wanted: &Resolved) -> Result<Pipeline, Fault> {
        let setup = &self.shared.setup;
        let began = Instant::now();
        let store = setup.store().map_err(|error| failure::model(&error))?;
        let pipeline = open(&self.runtime()?, &store, wanted, setup.device)
            .map_err(|error| failure::model(&error))?;
        let model = shown(wanted.model());
        tracing::info!(model = %model, device = %pipeline.device(), took_ms = began.elapsed().as_millis(), "opened a model");
        if let Some(error) = pipeline.fallback() {
            tracing::warn!(model = %model, error = %shown(error), "it runs on the processor, as its placement allows: the GPU does not work");
        }
        Ok(pipeline)
    }

    /// Fails every waiting input because the model cannot be opened. The next job tries again: the cause may be fixed by then.
    fn fail_waiting(&self, wanted: &Resolved, items: &Receiver<Item>, fault: &Fault) {
        if let Fault::Box(BoxFault { code, message, .. }) = fault {
            tracing::error!(code, "cannot open a model: {}", shown(message));
        }
        // Under the lock, so that no input is sent to a channel that is no longer read.
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for item in items.try_iter() {
            let _ = item.reply.send(Err(fault.clone()));
        }
        threads.remove(wanted);
    }
}

/// One open model and its inputs; `run` is the whole life of its thread.
struct ModelThread {
    model: String,
    pipeline: Pipeline,
    items: Receiver<Item>,
}

impl ModelThread {
    fn run(mut self) {
        let limits =
            BatchLimits { inputs_max: self.pipeline.batch_max(), cost_max: BATCH_COST_MAX };
        let mut waiting: Vec<Item> = Vec::new();
        loop {
            if waiting.is_empty() {
                let Ok(item) = self.items.recv() else { return };
                waiting.push(item);
            }
            waiting.extend(self.items.try_iter());
            // A job whose lease was lost while it waited costs no time on the model.
            for item in waiting.extract_if(.., |item| item.is_dropped()) {
                let _ = item.reply.send(Err(Fault::Cancelled));
            }
            for item in waiting.extract_if(.., |item| !self.pipeline.takes(&item.prepared)) {
                let _ = item.reply.send(Err(Fault::Box(reopened(&self.model))));
            }
            let batch = take_batch(&mut waiting, limits);
            if self.run_batch(batch) == Health::Failed {
                // Its session may be broken, e.g. after an error of the device: the next job opens a new one.
                return;
            }
        }
    }

    fn run_batch(&mut self, batch: Vec<Item>) -> Health {
        let mut inputs = Vec::with_capacity(batch.len());
        let mut jobs = Vec::with_capacity(batch.len());
        for item in batch {
            inputs.push(item.prepared);
            jobs.push((item.cancel, item.timer, Some(item.reply)));
        }
        if inputs.is_empty() { Health::Good } else { self.run_slice(&inputs, &mut jobs) }
    }

    fn run_slice(&mut self, inputs: &[Prepared], jobs: &mut [Job]) -> Health {
        let began = Instant::now();
        let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        jobs.iter().for_each(|(_, timer, _)| timer.start(count));
        // A cancelled job stops its run only with all others of its batch: they need their results.
        let cancel = BatchCancel::of(jobs.iter().map(|(cancel, ..)| cancel));
        // A panic on one input must not end its neighbours: it counts as a failure of this batch.
        let run = std::panic::AssertUnwindSafe(|| self.pipeline.run(inputs, &cancel));
        let outputs = std::panic::catch_unwind(run).unwrap_or(Err(RunError::Panicked));
        match outputs {
            Ok(outputs) => {
                let took_ms = began.elapsed().as_millis();
                tracing::debug!(model = self.model, inputs = count, took_ms, "ran a batch");
                let took = began.elapsed() / count;
                for ((.., reply), output) in jobs.iter_mut().zip(outputs) {
                    let (model, device) = (self.model.clone(), self.pipeline.device());
                    send(reply, Ok(Inferred { output, model, device, took }));
                }
                Health::Good
            }
            Err(error) if inputs.len() > 1 && !matches!(error, RunError::Cancelled) => {
                tracing::warn!(model = self.model, inputs = count, error = %shown(&error), "a batch failed and is halved");
                let (left, right) = inputs.split_at(inputs.len() / 2);
                let (left_jobs, right_jobs) = jobs.split_at_mut(left.len());
                let left = self.run_slice(left, left_jobs);
                let right = self.run_slice(right, right_jobs);
                if left == Health::Failed { left } else { right }
            }
            Err(error) => {
                let fault = failure::run(&error);
                jobs.iter_mut().for_each(|(.., reply)| send(reply, Err(fault.clone())));
                if matches!(fault, Fault::Box(_)) { Health::Failed } else { Health::Good }
            }
        }
    }
}

/// An input that was prepared before the model had to be opened again is decoded once more: its form may be another one now.
fn reopened(model: &str) -> BoxFault {
    BoxFault {
        code: "model.reopened".to_owned(),
        message: format!("the model {} was opened again meanwhile", shown(model)),
        hint: None,
    }
}

/// Whether a model's session can be used again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    Failed,
}

type Job = (ItemCancel, Arc<JobTimer>, Option<Reply>);
type Reply = oneshot::Sender<Result<Inferred, Fault>>;

/// Where the receiver was dropped, its job has lost its lease and needs no outcome.
fn send(reply: &mut Option<Reply>, outcome: Result<Inferred, Fault>) {
    if let Some(reply) = reply.take() {
        let _ = reply.send(outcome);
    }
}

/// Takes the next batch out of `waiting`, and leaves the rest in its order.
fn take_batch(waiting: &mut Vec<Item>, limits: BatchLimits) -> Vec<Item> {
    let candidates: Vec<Candidate> = waiting.iter().map(candidate).collect();
    // From the back, so that the indices in front still hold.
    let taken = form(&candidates, limits).into_iter().rev().map(|index| waiting.remove(index));
    let mut batch: Vec<Item> = taken.collect();
    batch.reverse();
    batch
}

fn candidate(item: &Item) -> Candidate {
    Candidate { shape_bucket: item.prepared.shape_bucket(), cost: item.prepared.cost() }
}
