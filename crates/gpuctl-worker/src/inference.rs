//! The models, as a worker sees them: what a job needs, decoding, inference, and whose fault a failure is.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobFailure};
use gpuctl_control::ports::Fetched;
use serde_json::Value;

use crate::{Cancel, JobTimer};

/// Runs jobs with models: ONNX Runtime in `gpu-worker`, a table of durations in the fault simulation.
#[async_trait]
pub trait Inference: Send + Sync {
    /// Whether this box can run jobs: its models and its device are there. Asked at the start, and again while a fault lasts.
    async fn probe(&self) -> Result<(), BoxFault>;

    /// What the job needs, before anything is fetched. Refuses a task, params or URIs that no worker accepts.
    fn check(&self, job: &Job) -> Result<Needs, JobFailure>;

    /// The name of the model that would run the job, where it is known: the policy may limit its jobs.
    fn model(&self, job: &Job) -> Option<String> {
        job.model.clone()
    }

    /// The most memory that decoding these inputs takes, as far as it can be told before: so much is kept free for it.
    fn bytes_max(&self, _job: &Job, _inputs: &Inputs) -> u64 {
        0
    }

    /// Decodes the job's inputs, which needs no model, and starts the timer when it begins: it may wait for other jobs' inputs first. A job
    /// that was cancelled before that is left out.
    async fn decode(
        &self,
        job: &Job,
        inputs: Inputs,
        cancel: &Cancel,
        timer: &JobTimer,
    ) -> Result<Decoded, Fault>;

    /// Runs the model on what was decoded, beside others that wait for the same one, and starts the timer when the model begins with it.
    /// A job that was cancelled, or whose future was dropped, before that is left out.
    async fn infer(
        &self,
        job: &Job,
        decoded: Decoded,
        cancel: &Cancel,
        timer: &Arc<JobTimer>,
    ) -> Result<Inferred, Fault>;

    /// Whether a command runs: nothing else is received meanwhile, and the box's lifetime does not end it.
    fn runs_command(&self) -> bool {
        false
    }

    /// Has commands stop soon, each with [`Fault::HandedOver`]: this worker ends, and another one goes on with them.
    fn hand_over(&self) {}

    /// The job's generation has its result: what was kept for further attempts is not needed any more.
    async fn forget(&self, _job: &Job) {}
}

/// What a job needs.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The files among its params, by the param's name.
    pub files: Vec<(&'static str, InputUri)>,
    /// The largest size of each of its inputs, in bytes.
    pub bytes_max: u64,
}

/// A job's inputs on this machine.
#[derive(Debug)]
pub struct Inputs {
    pub input: Fetched,
    /// The files among its params, by the param's name.
    pub files: Vec<(&'static str, Fetched)>,
}

/// Decoded inputs.
pub struct Decoded {
    /// The memory that they take.
    pub bytes: u64,
    /// How long decoding took, without waiting for other jobs'.
    pub took: TimeDelta,
    /// What only the implementation of [`Inference`] knows.
    pub inner: Box<dyn Any + Send>,
}

/// What a model made of one job's inputs.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// One JSON object.
    pub output: Value,
    pub files: Vec<OutputFile>,
    /// The model's name.
    pub model: String,
    /// The device that it ran on.
    pub device: String,
    /// The job's share of its batch's time.
    pub took: TimeDelta,
    /// That with what went before it; the worker adds the decoding.
    pub worked: TimeDelta,
}

/// A file of a job's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// A plain file name.
    pub name: String,
    pub bytes: Vec<u8>,
    /// E.g. `audio/wav`.
    pub media_type: String,
}

/// Why a job has no output.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The job's own: it would fail on any box.
    Input(JobFailure),
    /// The box's or a service's: the job may run elsewhere, or later.
    Box(BoxFault),
    /// The job was cancelled.
    Cancelled,
    /// It stopped for another worker to go on with it: this attempt does not count.
    HandedOver,
    /// It was killed, and is not gone: this worker is to end.
    Hung,
}

/// What keeps a box from running jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxFault {
    /// A short, stable code such as `models.missing`.
    pub code: String,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
