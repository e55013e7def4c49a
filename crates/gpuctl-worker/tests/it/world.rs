//! A queue, a ledger, files, a box and a model in memory, each of which can be told to fail, in tokio's paused time.

mod commands;
mod files;
mod model;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobFailure, JobId, JobResult, JobState, Urgency};
use gpuctl_control::ports::{
    Attempt, Began, Clock, Cloud, Committed, Ended, Fence, JobEntry, JobFilter, JobProblem, Ledger,
    Listing, PoolMemory, PortError, PortErrorClass, Ports, QueueMemory, Receipt, StartOrder,
    WorkerReport,
};
use gpuctl_control::wire::job::{job_from_json, job_to_json};
use gpuctl_control::wire::record::Record;
use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_core::observation::{BoxState, Hold, Run, SeenBox};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::{Policy, RECEIVES_SPARE};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use gpuctl_worker::{
    Alone, Cancel, MemoryScratch, Parts, Scratch, Signals, Worker, WorkerExit, WorkerSetup, serve,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::devices::OfDevice;

/// A call that can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Receive,
    Change,
    Ack,
    Report,
    Memory,
    Commit,
    /// It is written, and its reply is lost.
    CommitReply,
    Results,
    Keep,
    Fetch,
    Probe,
    Infer,
}

/// How long decoding is said to take.
pub(crate) const DECODING: TimeDelta = TimeDelta::milliseconds(7);
/// No worker here serves for longer.
const ENDS_WITHIN: Duration = Duration::from_secs(4 * 3_600);
/// The size of the file of a `large` job's result: three of them are more than a worker holds in memory.
pub(crate) const LARGE_BYTES: usize = 90 << 20;

pub(crate) struct Message {
    pub(crate) body: String,
    visible_at: Instant,
    pub(crate) receives: u32,
    receipt: Option<Receipt>,
    pub(crate) dead: Option<String>,
    sent_at: Timestamp,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) messages: Vec<Message>,
    pub(crate) results: Vec<JobResult>,
    pub(crate) commits: u32,
    /// Whether the ledger is the queue, too, and acks with a commit.
    pub(crate) acks_with_commit: bool,
    pub(crate) problems: Vec<JobProblem>,
    pub(crate) reports: Vec<WorkerReport>,
    /// The newest generation of each job that a user has had sent again.
    pub(crate) newest: BTreeMap<JobId, u32>,
    /// Jobs that a user has cancelled, which no lease shows.
    pub(crate) cancelled: BTreeSet<JobId>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) failing: BTreeMap<Call, PortErrorClass>,
    pub(crate) panicking: Option<Call>,
    /// Each receipt that was to be acked, also those that were void.
    pub(crate) acks: Vec<Receipt>,
    /// Each receipt whose message was to be released, also those that were void.
    pub(crate) releases: Vec<Receipt>,
    /// How long the ledger takes to say what results a job has.
    pub(crate) results_take: Duration,
    /// How long a change of a lease takes, and how much longer an extension.
    pub(crate) change_takes: Duration,
    pub(crate) extension_takes: Duration,
    /// Whether an extension is under way.
    pub(crate) is_extending: bool,
    pub(crate) inferences: u32,
    /// Jobs whose model opens now, and has not begun.
    pub(crate) opening: u32,
    pub(crate) commands_running: u32,
    /// How many jobs' checkpoints were forgotten.
    pub(crate) forgotten: u32,
    /// Set once commands are to be handed over.
    pub(crate) handed_over: Cancel,
    pub(crate) running: BTreeSet<String>,
    pub(crate) running_max: usize,
    pub(crate) held_max: usize,
    pub(crate) interruption: Option<Timestamp>,
    /// Whether a controller has told the box to stop.
    pub(crate) is_stopping: bool,
    pub(crate) hold: Option<Hold>,
    pub(crate) service: Option<TimeDelta>,
    queue: Option<QueueMemory>,
    pub(crate) stops: u32,
    /// How long a stop of the box takes, which counts once it is over.
    pub(crate) stop_takes: Duration,
    /// The devices whose workers serve, where the box has several, and the one whose worker ends the box.
    pub(crate) serving: BTreeSet<String>,
    pub(crate) ending: Option<String>,
    pub(crate) decoded_bytes: u64,
    receipts: u64,
}

#[derive(Clone)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    began: Instant,
    pub(crate) scratch: MemoryScratch,
    pub(crate) policy: Policy,
    receives_max: u32,
}

/// A worker that serves.
pub(crate) struct Serving {
    pub(crate) signals: Signals,
    task: JoinHandle<WorkerExit>,
}

impl Serving {
    pub(crate) async fn exit(self) -> WorkerExit {
        let ended = tokio::time::timeout(ENDS_WITHIN, self.task).await;
        assert!(ended.is_ok(), "the worker does not end");
        ended.unwrap().unwrap()
    }

    /// As a kill: nothing of it goes on.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// The same, without waiting for what is dropped.
    pub(crate) fn kill_now(&self) {
        self.task.abort();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    pub(crate) fn new(settings: &str) -> Self {
        let text = format!(
            "[worker]\njob_max = \"1h\"\n[pool.gpu]\nqueue = \"jobs\"\nvisibility = \"60s\"\nidle_stop = \"1d\"\nreceives_max = 5\n{settings}"
        );
        let policy = Policy::parse(&text).unwrap();
        let state = State { service: Some(TimeDelta::milliseconds(100)), ..State::default() };
        Self {
            state: Arc::new(Mutex::new(state)),
            began: Instant::now(),
            scratch: MemoryScratch::default(),
            receives_max: policy.pools[0].queue().unwrap().receives_max.get(),
            policy,
        }
    }

    pub(crate) fn with_idle_stop(mut self, idle_stop: &str) -> Self {
        let text = format!(
            "[pool.gpu]\nqueue = \"jobs\"\nvisibility = \"60s\"\nidle_stop = \"{idle_stop}\""
        );
        self.policy = Policy::parse(&text).unwrap();
        self
    }

    /// With a queue that gives more receives than the policy says, as on AWS.
    pub(crate) fn with_spare_receives(mut self) -> Self {
        self.receives_max += RECEIVES_SPARE;
        self
    }

    pub(crate) fn with_receives_max(mut self, receives_max: u32) -> Self {
        let text = format!(
            "[pool.gpu]\nqueue = \"jobs\"\nvisibility = \"60s\"\nidle_stop = \"1d\"\nreceives_max = {receives_max}"
        );
        self.policy = Policy::parse(&text).unwrap();
        self.receives_max = receives_max;
        self
    }

    pub(crate) fn with_drain(mut self, drain: &str) -> Self {
        let text = format!(
            "[worker]\ndrain = \"{drain}\"\n[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"1d\""
        );
        self.policy = Policy::parse(&text).unwrap();
        self
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Several values at once: a second guard in one expression would wait for the first.
    pub(crate) fn see<T>(&self, see: impl FnOnce(&State) -> T) -> T {
        see(&self.state())
    }

    /// A worker whose box was started now.
    pub(crate) fn serve(&self) -> Serving {
        self.serve_since(self.now())
    }

    pub(crate) fn serve_since(&self, run_started_at: Timestamp) -> Serving {
        self.serve_as(None, run_started_at)
    }

    /// One of several workers of the box.
    pub(crate) fn serve_device(&self, device: &str) -> Serving {
        self.state().serving.insert(device.to_owned());
        self.serve_as(Some(device.to_owned()), self.began_at())
    }

    fn serve_as(&self, device: Option<String>, run_started_at: Timestamp) -> Serving {
        let ports = Ports {
            cloud: Arc::new(self.clone()),
            queue: Arc::new(self.clone()),
            ledger: Arc::new(self.clone()),
            clock: Arc::new(self.clone()),
            files: Arc::new(self.clone()),
        };
        let parts = Parts {
            ports,
            inference: Arc::new(self.clone()),
            scratch: Arc::new(self.scratch.clone()),
            neighbours: match device.clone() {
                Some(device) => Arc::new(OfDevice { world: self.clone(), device }),
                None => Arc::new(Alone),
            },
            pace: WorkerPace::LOCAL,
        };
        let (pool, box_id) = ("gpu".parse().unwrap(), "gpu-1".parse().unwrap());
        let setup =
            WorkerSetup { pool, box_id, device, run_started_at, pid: 1, boot_phases: Vec::new() };
        let worker = Worker::new(parts, &self.policy, setup).unwrap();
        let signals = Signals::new();
        let told = signals.clone();
        let task = tokio::spawn(async move { serve(Arc::new(worker), &told).await });
        Serving { signals, task }
    }

    /// Submits a job whose task says how it goes: `ok`, `file`, `large`, `slow:SECONDS`, `hang`, `deaf:SECONDS`, `fails`, `waits`
    /// for a model that is busy, or `opens` one for ever.
    pub(crate) fn submit(&self, task: &str) -> JobId {
        self.submit_input(task, "data:,x")
    }

    pub(crate) fn submit_input(&self, task: &str, input: &str) -> JobId {
        let submitted_at = self.now();
        let job = Job {
            id: JobId::new(submitted_at),
            queue: "jobs".parse().unwrap(),
            task: task.to_owned(),
            model: None,
            input: input.parse().unwrap(),
            params: serde_json::Map::new(),
            submitted_at,
            generation: 0,
            urgency: Urgency::default(),
        };
        self.send(&job_to_json(&job));
        job.id
    }

    fn began_at(&self) -> Timestamp {
        "2026-11-25T00:00:00Z".parse().unwrap()
    }

    pub(crate) fn send(&self, body: &str) {
        let sent_at = self.now();
        let message = Message {
            body: body.to_owned(),
            visible_at: Instant::now(),
            receives: 0,
            receipt: None,
            dead: None,
            sent_at,
        };
        self.state().messages.push(message);
    }

    pub(crate) fn fail(&self, call: Call, class: PortErrorClass) {
        self.state().failing.insert(call, class);
    }

    pub(crate) fn mend(&self, call: Call) {
        self.state().failing.remove(&call);
    }

    fn check(&self, call: Call) -> Result<(), PortError> {
        let panics = self.see(|state| state.panicking == Some(call));
        assert!(!panics, "{call:?} panics");
        match self.state().failing.get(&call) {
            Some(class) => Err(PortError::new(*class, format!("{call:?} fails"))),
            None => Ok(()),
        }
    }

    /// Waits until this is so, at most for so long.
    pub(crate) async fn wait(&self, most: Duration, so: impl Fn(&State) -> bool) {
        let end = Instant::now() + most;
        while !so(&self.state()) {
            assert!(Instant::now() < end, "it did not come to that within {most:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The outcome of each job: `ok`, or the code of its failure.
    pub(crate) fn outcomes(&self) -> Vec<String> {
        let outcome = |result: &JobResult| match &result.outcome {
            Ok(_) => "ok".to_owned(),
            Err(failure) => failure.code.clone(),
        };
        self.state().results.iter().map(outcome).collect()
    }

    /// The blobs of results that are put away.
    pub(crate) fn put_away(&self) -> Vec<String> {
        let mut names = self.scratch.list().unwrap();
        names.retain(|name| name.starts_with("result-"));
        names
    }

    pub(crate) fn receives(&self) -> Vec<u32> {
        self.state().messages.iter().map(|message| message.receives).collect()
    }

    /// How many messages can be received now.
    pub(crate) fn visible(&self) -> usize {
        let now = Instant::now();
        let is_visible = |one: &&Message| one.dead.is_none() && one.visible_at <= now;
        self.state().messages.iter().filter(is_visible).count()
    }

    pub(crate) fn dead(&self) -> Vec<String> {
        self.state().messages.iter().filter_map(|message| message.dead.clone()).collect()
    }

    /// As `gpuctl cancel` on a ledger that cannot delete the message.
    pub(crate) fn cancel(&self, id: &JobId) {
        let mut state = self.state();
        let of_it = |message: &&Message| message.body.contains(id.as_str());
        let body = state.messages.iter().find(of_it).unwrap().body.clone();
        let result = JobResult::cancelled(job_from_json(&body).unwrap(), "ada", self.began_at());
        state.results.push(result);
        state.cancelled.insert(id.clone());
    }

    /// Notes a problem of the first message's job, as another box does.
    pub(crate) fn note_problem_of_first(&self, code: &str) {
        let mut state = self.state();
        let job = job_from_json(&state.messages[0].body).unwrap();
        let (box_id, at) = ("gpu-2".parse().unwrap(), job.submitted_at);
        let (code, message) = (code.to_owned(), "noted before".to_owned());
        let failure = JobFailure { code, message, hint: None };
        state.problems.push(JobProblem { job, failure, box_id, at, dead: false });
    }

    /// Takes all leases away, as another worker that receives these messages does.
    pub(crate) fn take_leases(&self) {
        for message in &mut self.state().messages {
            message.receipt = None;
        }
    }
}

impl State {
    /// The held message of this receipt.
    fn held(&mut self, receipt: &Receipt) -> Result<&mut Message, PortError> {
        let lost = || PortError::new(PortErrorClass::LeaseLost, "the lease is lost");
        let found = self.messages.iter_mut().find(|one| one.receipt.as_ref() == Some(receipt));
        found.filter(|one| one.visible_at > Instant::now()).ok_or_else(lost)
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.began_at() + TimeDelta::from_std(self.began.elapsed()).unwrap()
    }
}

#[async_trait]
impl Cloud for World {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        let now = self.now();
        let state = if self.state().is_stopping { BoxState::Stopping } else { BoxState::Running };
        let mut own = SeenBox::new("gpu-1".parse().unwrap(), state, now);
        own.interruption = self.state().interruption;
        Ok(Listing { pools: [("gpu".parse().unwrap(), vec![own])].into(), ..Listing::default() })
    }

    async fn start(&self, _: &StartOrder) -> Result<(), PortError> {
        unreachable!("a worker starts no box")
    }

    async fn stop(&self, _: &BoxId, _: StopMode) -> Result<(), PortError> {
        let takes = self.state().stop_takes;
        tokio::time::sleep(takes).await;
        self.state().stops += 1;
        Ok(())
    }
}

#[async_trait]
impl Ledger for World {
    async fn lease(&self, _: &str, _: TimeDelta) -> Result<Option<Fence>, PortError> {
        unreachable!("a worker takes no lease")
    }

    async fn release(&self, _: &Fence) -> Result<(), PortError> {
        Ok(())
    }

    async fn memory(&self, _: &PoolId) -> Result<PoolMemory, PortError> {
        self.check(Call::Memory)?;
        Ok(self.see(|state| PoolMemory {
            hold: state.hold.clone(),
            service: state.service,
            queue: state.queue.clone(),
            ..PoolMemory::default()
        }))
    }

    async fn remember_queue(
        &self,
        _: &PoolId,
        queue: &QueueMemory,
        _: Option<&Fence>,
    ) -> Result<(), PortError> {
        self.state().queue = Some(queue.clone());
        Ok(())
    }

    async fn set_hold(&self, _: &Hold) -> Result<(), PortError> {
        Ok(())
    }

    async fn save_run(&self, _: &Run, _: Option<&Fence>) -> Result<(), PortError> {
        Ok(())
    }

    async fn runs_since(&self, _: Timestamp) -> Result<Vec<Run>, PortError> {
        Ok(Vec::new())
    }

    async fn record(&self, _: &Record, _: &Fence) -> Result<(), PortError> {
        Ok(())
    }

    async fn last_reconcile(&self) -> Result<Option<Timestamp>, PortError> {
        Ok(None)
    }

    async fn claim_notice(&self, _: &str, _: TimeDelta) -> Result<bool, PortError> {
        Ok(false)
    }

    async fn report(&self, report: &WorkerReport) -> Result<(), PortError> {
        self.check(Call::Report)?;
        self.state().reports.push(report.clone());
        Ok(())
    }

    async fn reports(&self, _: &[BoxId]) -> Result<Vec<WorkerReport>, PortError> {
        self.check(Call::Report)?;
        // Each worker reports as often: the last few have one of each.
        let last =
            self.see(|state| state.reports[state.reports.len().saturating_sub(9)..].to_vec());
        let newest: BTreeMap<_, _> =
            last.into_iter().map(|report| (report.device.clone(), report)).collect();
        Ok(newest.into_values().collect())
    }

    async fn submitted(&self, _: &[Job]) -> Result<(), PortError> {
        Ok(())
    }

    async fn began(&self, job: &Job, _: &Attempt) -> Result<Began, PortError> {
        let newest = self.see(|state| state.newest.get(&job.id).copied());
        let is_newest = newest.is_none_or(|newest| newest <= job.generation);
        Ok(match is_newest {
            true if self.see(|state| state.cancelled.contains(&job.id)) => Began::Ended,
            true => Began::Newest,
            false => Began::Superseded,
        })
    }

    async fn have_ended(&self, held: &[(JobId, u32)]) -> Result<Vec<bool>, PortError> {
        let state = self.state();
        Ok(held.iter().map(|(id, _)| state.cancelled.contains(id)).collect())
    }

    async fn commit(&self, results: &[JobResult]) -> Vec<Result<Committed, PortError>> {
        let commit = |result: &JobResult| {
            // What is too large, or for which there is no room, is small as a failure.
            self.check(Call::Commit).or_else(|error| match error.class {
                PortErrorClass::TooLarge | PortErrorClass::Full if result.outcome.is_err() => {
                    Ok(())
                }
                _ => Err(error),
            })?;
            let mut state = self.state();
            state.commits += 1;
            let same = |one: &JobResult| {
                one.job.id == result.job.id && one.job.generation == result.job.generation
            };
            if state.results.iter().any(same) {
                return Ok(Committed::AlreadyThere);
            }
            state.results.push(result.clone());
            drop(state);
            self.check(Call::CommitReply)?;
            Ok(Committed::Written)
        };
        results.iter().map(commit).collect()
    }

    async fn commit_and_ack(
        &self,
        ended: &[(JobResult, Receipt)],
    ) -> Vec<Result<Ended, PortError>> {
        let mut outcomes = Vec::new();
        for (result, receipt) in ended {
            outcomes.push(self.commit_one(result).await.map(|committed| {
                let mut state = self.state();
                let is_acked = state.acks_with_commit
                    && committed == Committed::Written
                    && state.held(receipt).is_ok();
                if is_acked {
                    state.messages.retain(|one| one.receipt.as_ref() != Some(receipt));
                }
                Ended { committed, is_acked }
            }));
        }
        outcomes
    }

    async fn note_problem(&self, problem: &JobProblem) -> Result<(), PortError> {
        self.state().problems.push(problem.clone());
        Ok(())
    }

    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        let result = self.results(id).await?.into_iter().next();
        if let Some(result) = result {
            let (job, state) = (result.job.clone(), JobState::Succeeded);
            return Ok(Some(JobEntry { job, state, result: Some(result), problem: None }));
        }
        let state = self.state();
        let noted = state.problems.iter().rfind(|problem| problem.job.id == *id);
        Ok(noted.map(|JobProblem { job, failure, .. }| {
            let problem = Some(failure.clone());
            JobEntry { job: job.clone(), state: JobState::Queued, result: None, problem }
        }))
    }

    async fn results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError> {
        let takes = self.state().results_take;
        tokio::time::sleep(takes).await;
        self.check(Call::Results)?;
        Ok(self.state().results.iter().filter(|result| result.job.id == *id).cloned().collect())
    }

    async fn delete_jobs(&self, _: Timestamp) -> Result<Vec<JobId>, PortError> {
        Ok(Vec::new())
    }

    async fn jobs(&self, _: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        Ok(Vec::new())
    }
}
