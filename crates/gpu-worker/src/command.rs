//! Jobs that run a command of the configuration, beside those that models do: one at a time, in a folder of its own, stopped with its worker
//! and continued by the next one from its last checkpoint.

mod attempt;
mod fault;
mod folders;
mod journal;
mod keeping;
mod program;
mod restore;
mod secrets;
mod snapshot;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chrono::TimeDelta;
use gpu_inference::TaskError;
use gpuctl_control::commands::{command, is_command, values};
use gpuctl_control::job::{Job, JobFailure};
use gpuctl_control::ports::{Fetched, FileStore};
use gpuctl_core::policy::{Command, Policy};
use gpuctl_core::units::PoolId;
use gpuctl_worker::{
    BoxFault, Cancel, Decoded, Fault, Inference, Inferred, Inputs, JobTimer, Needs,
};
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::failure;
use crate::inference::INPUT_BYTES_MAX;
use attempt::Attempt;

/// What a box without models lacks, and commands do not need.
const ONLY_FOR_MODELS: [&str; 2] = ["models.missing", "runtime.missing"];

/// What runs commands.
pub struct Commands {
    policy: Policy,
    pool: PoolId,
    files: Arc<dyn FileStore>,
    /// The folder of the folders in which they run.
    folder: PathBuf,
    /// This program, whose `exec` starts another so that nothing of it outlives it, or this one.
    launcher: PathBuf,
    /// One at a time: each may use the whole machine.
    alone: Mutex<()>,
    is_running: AtomicBool,
    handed_over: Cancel,
}

impl Commands {
    /// The commands of the policy that boxes of this pool run, in folders below `folder`, with files kept by `files`. The folder is of this worker
    /// alone: what an earlier one has left there is removed.
    #[must_use]
    pub fn new(
        policy: &Policy,
        pool: &PoolId,
        files: Arc<dyn FileStore>,
        folder: PathBuf,
        launcher: PathBuf,
    ) -> Self {
        folders::sweep(&folder);
        Self {
            policy: policy.clone(),
            pool: pool.clone(),
            files,
            folder,
            launcher,
            alone: Mutex::new(()),
            is_running: AtomicBool::new(false),
            handed_over: Cancel::new(),
        }
    }

    /// Refuses a command or params that this box's configuration does not have, and a command of other pools: `lifetime_max` would end it.
    fn check(&self, job: &Job) -> Result<Needs, JobFailure> {
        let refused = |error| failure::task(&TaskError::from(error));
        let command = command(&self.policy, &job.task).map_err(refused)?;
        values(&job.task, command, &job.params).map_err(refused)?;
        if !command.runs_in(&self.pool) {
            return Err(of_other_pools(job, command, &self.pool));
        }
        Ok(Needs { files: Vec::new(), bytes_max: INPUT_BYTES_MAX })
    }

    async fn run(
        &self,
        job: &Job,
        input: Fetched,
        cancel: &Cancel,
        timer: &JobTimer,
    ) -> Result<Inferred, Fault> {
        let refused = |error| Fault::Input(failure::task(&TaskError::from(error)));
        let command = command(&self.policy, &job.task).map_err(refused)?;
        let values = values(&job.task, command, &job.params).map_err(refused)?;
        let _alone = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Fault::Cancelled),
            () = self.handed_over.cancelled() => return Err(Fault::HandedOver),
            alone = self.alone.lock() => alone,
        };
        timer.start(1);
        let _running = Running::new(&self.is_running);
        Attempt { commands: self, job, command, values, input, cancel }.run().await
    }
}

fn of_other_pools(job: &Job, command: &Command, pool: &PoolId) -> JobFailure {
    let pools: Vec<&str> = command.pools.iter().flatten().map(String::as_str).collect();
    let hint = match pools.as_slice() {
        [] => "add a pool to its `pools`".to_owned(),
        pools => format!("submit it to {}, or add the pool to its `pools`", pools.join(" or ")),
    };
    JobFailure {
        code: "command.pool".to_owned(),
        message: format!("{} does not run in the pool {pool}", job.task),
        hint: Some(hint),
    }
}

/// Set while a command runs.
struct Running<'a>(&'a AtomicBool);

impl<'a> Running<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Models and commands.
pub struct Tasks {
    engine: Engine,
    commands: Commands,
}

impl Tasks {
    /// What does the jobs of either kind.
    #[must_use]
    pub fn new(engine: Engine, commands: Commands) -> Self {
        Self { engine, commands }
    }
}

#[async_trait]
impl Inference for Tasks {
    async fn probe(&self) -> Result<(), BoxFault> {
        match Inference::probe(&self.engine).await {
            Err(fault)
                if ONLY_FOR_MODELS.contains(&fault.code.as_str())
                    && !self.commands.policy.commands.is_empty() =>
            {
                Ok(())
            }
            probed => probed,
        }
    }

    fn check(&self, job: &Job) -> Result<Needs, JobFailure> {
        if is_command(&job.task) { self.commands.check(job) } else { self.engine.check(job) }
    }

    fn model(&self, job: &Job) -> Option<String> {
        if is_command(&job.task) { None } else { self.engine.model(job) }
    }

    fn bytes_max(&self, job: &Job, inputs: &Inputs) -> u64 {
        if is_command(&job.task) { 0 } else { self.engine.bytes_max(job, inputs) }
    }

    async fn decode(
        &self,
        job: &Job,
        inputs: Inputs,
        cancel: &Cancel,
        timer: &JobTimer,
    ) -> Result<Decoded, Fault> {
        if !is_command(&job.task) {
            return self.engine.decode(job, inputs, cancel, timer).await;
        }
        // The program reads it by itself.
        timer.start(1);
        Ok(Decoded { bytes: 0, took: TimeDelta::zero(), inner: Box::new(inputs.input) })
    }

    async fn infer(
        &self,
        job: &Job,
        decoded: Decoded,
        cancel: &Cancel,
        timer: &Arc<JobTimer>,
    ) -> Result<Inferred, Fault> {
        if !is_command(&job.task) {
            return self.engine.infer(job, decoded, cancel, timer).await;
        }
        let input = decoded.inner.downcast::<Fetched>().expect("it is what `decode` returned");
        self.commands.run(job, *input, cancel, timer).await
    }

    fn runs_command(&self) -> bool {
        self.commands.is_running.load(Ordering::Relaxed)
    }

    fn hand_over(&self) {
        self.commands.handed_over.cancel();
    }

    async fn forget(&self, job: &Job) {
        if !is_command(&job.task) {
            return;
        }
        if let Err(error) = self.commands.files.remove_working(&job.id, job.generation).await {
            tracing::warn!(job = %job.id, %error, "its checkpoint stays, although it is done");
        }
    }
}
