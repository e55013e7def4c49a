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
    Cancel, Device, DevicePreference, InputLimits, ModelError, ModelStore, Output, Pipeline,
    Prepared, RunError, Runtime, RuntimeOptions, Task, open,
};
use gpuctl_control::job::JobFailure;
use gpuctl_control::log::shown;
use gpuctl_core::batch::{BatchLimits, Candidate, form};
use tokio::sync::{Semaphore, oneshot};

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
    threads: Mutex<HashMap<Wanted, Sender<Item>>>,
    /// One permit for each core.
    decoders: Arc<Semaphore>,
}

/// A task and the model that the job names, if it does.
type Wanted = (Task, Option<String>);

/// One input that waits for its model.
struct Item {
    prepared: Prepared,
    cancel: Cancel,
    reply: oneshot::Sender<Result<Inferred, EngineError>>,
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

/// Why there is no output.
#[derive(Clone, Debug)]
pub enum EngineError {
    /// The job was cancelled.
    Cancelled,
    /// The job has failed, and would fail again.
    Failed(JobFailure),
}

impl Engine {
    /// An engine; nothing is loaded yet.
    #[must_use]
    pub fn new(setup: EngineSetup) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let decoders = Arc::new(Semaphore::new(cores));
        Self { shared: Arc::new(Shared { setup, threads: Mutex::default(), decoders }) }
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

    /// Runs one input through the model, beside others that wait for the same one.
    ///
    /// # Errors
    /// When the model cannot be opened, fails on the input, or the job is cancelled.
    pub async fn run(
        &self,
        task: Task,
        model: Option<&str>,
        prepared: Prepared,
        cancel: Cancel,
    ) -> Result<Inferred, EngineError> {
        let (reply, outcome) = oneshot::channel();
        self.enqueue((task, model.map(str::to_owned)), Item { prepared, cancel, reply });
        outcome.await.unwrap_or_else(|_| {
            let message = "the model's thread crashed".to_owned();
            Err(EngineError::Failed(JobFailure {
                code: "model.crashed".to_owned(),
                message,
                hint: None,
            }))
        })
    }

    fn enqueue(&self, wanted: Wanted, item: Item) {
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = threads.entry(wanted.clone()).or_insert_with(|| self.spawn(wanted.clone()));
        if let Err(unsent) = sender.send(item) {
            // Its thread crashed: a new one takes over. It is started under this lock, so it is there to receive.
            *sender = self.spawn(wanted);
            let _ = sender.send(unsent.0);
        }
    }

    fn spawn(&self, wanted: Wanted) -> Sender<Item> {
        let (sender, items) = channel();
        let engine = self.clone();
        std::thread::spawn(move || match engine.open(&wanted) {
            Ok((model, pipeline)) => ModelThread { model, pipeline, items }.run(),
            Err(failure) => engine.fail_waiting(&wanted, &items, &failure),
        });
        sender
    }

    fn open(&self, (task, model): &Wanted) -> Result<(String, Pipeline), JobFailure> {
        let setup = &self.shared.setup;
        let began = Instant::now();
        let store = setup.store().map_err(|error| failure::model(&error))?;
        let wanted =
            store.resolve(*task, model.as_deref()).map_err(|error| failure::model(&error))?;
        let library =
            Runtime::locate(setup.library.as_deref()).map_err(|error| failure::runtime(&error))?;
        let runtime =
            Runtime::load(&library, setup.options).map_err(|error| failure::runtime(&error))?;
        let pipeline = open(&runtime, &store, &wanted, setup.device)
            .map_err(|error| failure::model(&error))?;
        let model = wanted.model().to_owned();
        tracing::info!(model = %shown(&model), device = %pipeline.device(), took_ms = began.elapsed().as_millis(), "opened a model");
        Ok((model, pipeline))
    }

    /// Fails every waiting input because the model cannot be opened. The next job tries again: the cause may be fixed by then.
    fn fail_waiting(&self, wanted: &Wanted, items: &Receiver<Item>, failure: &JobFailure) {
        tracing::error!(code = failure.code, "cannot open a model: {}", shown(&failure.message));
        // Under the lock, so that no input is sent to a channel that is no longer read.
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for item in items.try_iter() {
            let _ = item.reply.send(Err(EngineError::Failed(failure.clone())));
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
            for item in waiting.extract_if(.., |item| item.cancel.is_cancelled()) {
                let _ = item.reply.send(Err(EngineError::Cancelled));
            }
            let batch = take_batch(&mut waiting, limits);
            self.run_batch(batch);
        }
    }

    fn run_batch(&mut self, batch: Vec<Item>) {
        if batch.is_empty() {
            return;
        }
        let mut inputs = Vec::with_capacity(batch.len());
        let mut replies = Vec::with_capacity(batch.len());
        // A cancelled job stops its run only where it runs alone: the others of a batch need their results.
        let cancel = if batch.len() == 1 { batch[0].cancel.clone() } else { Cancel::new() };
        for item in batch {
            inputs.push(item.prepared);
            replies.push(Some(item.reply));
        }
        self.run_slice(&inputs, &mut replies, &cancel);
    }

    fn run_slice(&mut self, inputs: &[Prepared], replies: &mut [Option<Reply>], cancel: &Cancel) {
        let began = Instant::now();
        // A panic on one input must not end its neighbours: it counts as a failure of this batch.
        let run = std::panic::AssertUnwindSafe(|| self.pipeline.run(inputs, cancel));
        let outputs = std::panic::catch_unwind(run).unwrap_or(Err(RunError::Panicked));
        let took = began.elapsed() / u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        match outputs {
            Ok(outputs) => {
                tracing::debug!(
                    model = self.model,
                    inputs = inputs.len(),
                    took_ms = began.elapsed().as_millis(),
                    "ran a batch"
                );
                for (reply, output) in replies.iter_mut().zip(outputs) {
                    let (model, device) = (self.model.clone(), self.pipeline.device());
                    send(reply, Ok(Inferred { output, model, device, took }));
                }
            }
            Err(RunError::Cancelled) => {
                replies.iter_mut().for_each(|reply| send(reply, Err(EngineError::Cancelled)));
            }
            Err(error) if inputs.len() > 1 => {
                tracing::warn!(model = self.model, inputs = inputs.len(), error = %shown(&error), "a batch failed and is halved");
                let (left, right) = inputs.split_at(inputs.len() / 2);
                let (left_replies, right_replies) = replies.split_at_mut(left.len());
                self.run_slice(left, left_replies, cancel);
                self.run_slice(right, right_replies, cancel);
            }
            Err(error) => {
                let failure = failure::run(&error);
                replies
                    .iter_mut()
                    .for_each(|reply| send(reply, Err(EngineError::Failed(failure.clone()))));
            }
        }
    }
}

type Reply = oneshot::Sender<Result<Inferred, EngineError>>;

/// Where the receiver was dropped, its job has lost its lease and needs no outcome.
fn send(reply: &mut Option<Reply>, outcome: Result<Inferred, EngineError>) {
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
