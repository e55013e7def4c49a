//! The model of a simulated box: how long a job takes and how it ends, instead of ONNX Runtime.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobFailure};
use gpuctl_worker::{
    BoxFault, Cancel, Decoded, Fault as Failure, Inference, Inferred, Inputs, JobTimer, Needs,
    OutputFile,
};
use tokio::sync::Mutex;

use super::ports::{Client, Stage};
use super::scenario::JobOutcome;
use crate::faults::Fault;

/// How long decoding takes.
const DECODE: TimeDelta = TimeDelta::milliseconds(300);
/// The memory that a decoded input takes.
const DECODED_BYTES: u64 = 1 << 20;
/// How long it takes to find out whether models can be opened.
const PROBE: TimeDelta = TimeDelta::seconds(2);
/// Each n-th job has a file in its result.
const WITH_FILE: u64 = 3;

/// Runs one job at a time, in the order in which they come.
pub(super) struct Model {
    client: Client,
    shutdown: Cancel,
    turn: Mutex<()>,
}

impl Model {
    pub(super) fn new(client: &Client, shutdown: Cancel) -> Self {
        Self { client: client.clone(), shutdown, turn: Mutex::new(()) }
    }

    fn broken(&self) -> Result<(), BoxFault> {
        let (now, mut world) = self.client.shared.time_and_world();
        let first = world.initial_instance(0).map(str::to_owned);
        let mine = first.as_deref() == self.client.instance();
        if world.faults.strength(Fault::BrokenImage, now) > 0 {
            world.faults.count(Fault::BrokenImage, 1);
            return Err(fault("runtime.cuda", "CUDA does not work"));
        }
        if mine && world.faults.strength(Fault::BrokenBox, now) > 0 {
            world.faults.count(Fault::BrokenBox, 1);
            return Err(fault("models.missing", "the folder of models is empty"));
        }
        Ok(())
    }

    /// Completes once the signal that asks the worker to stop kills the job's child process.
    async fn child_killed(&self) {
        self.shutdown.cancelled().await;
        let killed = {
            let (now, mut world) = self.client.shared.time_and_world();
            world.faults.inject(Fault::ChildKilled, now, 500)
        };
        if !killed {
            std::future::pending::<()>().await;
        }
    }
}

fn fault(code: &str, message: &str) -> BoxFault {
    BoxFault { code: code.to_owned(), message: message.to_owned(), hint: None }
}

#[async_trait]
impl Inference for Model {
    async fn probe(&self) -> Result<(), BoxFault> {
        super::sleep(PROBE).await;
        self.broken()
    }

    fn check(&self, _: &Job) -> Result<Needs, JobFailure> {
        Ok(Needs { files: Vec::new(), bytes_max: 1 << 30 })
    }

    async fn decode(
        &self,
        _: &Job,
        _: Inputs,
        cancel: &Cancel,
        timer: &JobTimer,
    ) -> Result<Decoded, Failure> {
        timer.start(1);
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Failure::Cancelled),
            () = super::sleep(DECODE) => {}
        }
        self.client.pass(Stage::Decoded).await;
        Ok(Decoded { bytes: DECODED_BYTES, took: DECODE, inner: Box::new(()) })
    }

    async fn infer(
        &self,
        job: &Job,
        _: Decoded,
        cancel: &Cancel,
        timer: &Arc<JobTimer>,
    ) -> Result<Inferred, Failure> {
        let _turn = self.turn.lock().await;
        timer.start(1);
        self.broken().map_err(Failure::Box)?;
        let (kind, hangs) = {
            let (now, mut world) = self.client.shared.time_and_world();
            let kind = world.job_kind(job.id.as_str(), job.generation);
            let hangs = world.faults.inject(Fault::WorkerHang, now, 100);
            if hangs {
                world.checks.job_hangs(job);
            }
            (kind.ok_or_else(|| Failure::Box(fault("job.unknown", "no such job")))?, hangs)
        };
        if hangs {
            // It cannot be cancelled.
            std::future::pending::<()>().await;
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Failure::Cancelled),
            () = self.child_killed() => {
                return Err(Failure::Box(fault("child.killed", "its child process was killed")));
            }
            () = super::sleep(kind.service) => {}
        }
        self.client.pass(Stage::Inferring).await;
        match kind.outcome {
            JobOutcome::Poison => {
                {
                    let world = &mut *self.client.shared.advance_to_now();
                    world.faults.count(Fault::Poison, 1);
                    world.checks.poisoned(self.client.process());
                }
                self.client.crash().await;
                Err(Failure::Cancelled)
            }
            JobOutcome::Fails => Err(Failure::Input(JobFailure {
                code: "input.truncated".to_owned(),
                message: "the input ends too early".to_owned(),
                hint: None,
            })),
            JobOutcome::Succeeds | JobOutcome::Garbage => Ok(self.output(job, kind.service)),
        }
    }
}

impl Model {
    /// What the job has as its result. Files differ from attempt to attempt, as a model's that draws its own noise.
    fn output(&self, job: &Job, took: TimeDelta) -> Inferred {
        let (now, mut world) = self.client.shared.time_and_world();
        world.check_inference(now, job, self.client.process());
        let has_file = world.latency.bits() % WITH_FILE == 0;
        let text = format!("{} by {} at {now}", job.id, self.client.name());
        let file = OutputFile {
            name: "speech.wav".to_owned(),
            bytes: text.into_bytes(),
            media_type: "audio/wav".to_owned(),
        };
        Inferred {
            output: serde_json::json!({}),
            files: if has_file { vec![file] } else { Vec::new() },
            model: "simulated".to_owned(),
            device: "cpu".to_owned(),
            took,
            worked: took,
        }
    }
}
