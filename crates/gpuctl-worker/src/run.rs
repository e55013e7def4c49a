//! One try at a job: fetch, decode, infer, each within its limit.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobFailure};
use gpuctl_control::ports::{Fetched, PortErrorClass};
use gpuctl_core::policy::COMMAND_MARGIN;
use gpuctl_core::without::Fix;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};

use crate::faults::{Faults, Part, Place, input_failure};
use crate::job::Message;
use crate::leases::Lease;
use crate::line::Turn;
use crate::pace::{Backoff, HANG_GRACE_MAX, OPENING_MAX, std_time};
use crate::running::Runner;
use crate::worker::{DECODED_MIB_MAX, RUNS_MAX};
use crate::{BoxFault, Cancel, Fault, Inferred, Inputs, JobTimer, Needs, Worker, WorkerExit};

/// How often a job is tried before it is set aside, if others succeed meanwhile. It waits a minute and a half in between.
const TRIES_MAX: u32 = 8;
/// The same for an input that may not be read: that seldom heals by itself.
const TRIES_DENIED_MAX: u32 = 4;
/// The code of the result of a job that took too long.
const TIMEOUT: &str = "job.timeout";

/// Why a try has no output.
pub(crate) enum Stop {
    /// The job failed, and would fail again; with how long it was worked on.
    Failed(JobFailure, TimeDelta),
    /// The box or a service failed; the job may succeed later, or elsewhere.
    Fault(Part, BoxFault),
    /// It could not begin soon enough.
    Late,
    /// Its lease was lost, or the worker drains.
    Cancelled,
    /// Another worker goes on with it.
    HandedOver,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Input(failure) => Self::Failed(failure, TimeDelta::zero()),
            Fault::Box(fault) => Self::Fault(Part::Box, fault),
            Fault::Cancelled | Fault::Hung => Self::Cancelled,
            Fault::HandedOver => Self::HandedOver,
        }
    }
}

impl Stop {
    /// The same, after the job was worked on for so long.
    fn after(self, worked: TimeDelta) -> Self {
        match self {
            Self::Failed(failure, before) => Self::Failed(failure, before + worked),
            other => other,
        }
    }
}

/// What a failed try means.
pub(crate) enum Trial {
    /// The box or a service does not work: fewer jobs are received.
    Fault,
    /// The service works for others, and will for this job.
    Unlucky,
    /// This job has failed often enough while others succeeded: it holds up nothing any longer.
    SetAside,
}

/// A job's failed tries.
pub(crate) struct Trials {
    tries: u32,
    /// How often the part had succeeded at the first of them.
    successes: Option<u64>,
    pub(crate) backoff: Backoff,
}

impl Trials {
    pub(crate) fn new() -> Self {
        Self { tries: 0, successes: None, backoff: Backoff::new() }
    }

    /// What a failure means, by whether others succeeded since this job's first one.
    pub(crate) fn judge(&mut self, faults: &Faults, part: Part, fault: &BoxFault) -> Trial {
        self.tries += 1;
        let now = faults.successes(part);
        let others_succeed = now > *self.successes.get_or_insert(now);
        let most = if fault.code == DENIED { TRIES_DENIED_MAX } else { TRIES_MAX };
        match others_succeed {
            // A service that throttles lets some calls through and others not: that says nothing of the job, nor of the box.
            true if fault.code == THROTTLED => Trial::Unlucky,
            true if self.tries >= most => Trial::SetAside,
            _ => Trial::Fault,
        }
    }
}

/// The code of an input that may not be read.
const DENIED: &str = "inputs.denied";
/// The code of one that its service has no capacity for now.
const THROTTLED: &str = "inputs.throttled";

/// What ends a job's wait for its beginning.
#[derive(Clone, Copy)]
struct Wait<'a> {
    lease: &'a Lease,
    late_at: Option<Instant>,
    limit: Limit<'a>,
}

/// What a job takes of the worker's room.
struct Room<'a> {
    /// For its inputs, until they are decoded; `None` for a suspect.
    disk: Option<SemaphorePermit<'a>>,
    /// For what was decoded.
    memory: SemaphorePermit<'a>,
}

/// How long a job may take.
#[derive(Clone, Copy)]
struct Limit<'a> {
    most: Duration,
    /// The model whose limit it is; `None`: that of all models.
    model: Option<&'a str>,
}

impl Limit<'_> {
    fn is_over(self) -> JobFailure {
        let section = self.model.map_or("[worker]".to_owned(), |name| format!("[model.{name}]"));
        JobFailure {
            code: TIMEOUT.to_owned(),
            message: format!("the job took longer than {} s", self.most.as_secs()),
            hint: Some(format!("raise `job_max` in {section}, or submit a smaller input")),
        }
    }
}

impl Wait<'_> {
    async fn late(self) {
        match self.late_at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Worker {
    pub(crate) async fn try_once(
        &self,
        job: &Job,
        message: &Message,
        alone: Option<u32>,
    ) -> Result<Inferred, Stop> {
        let cancel = &message.lease.cancel;
        let needs = self.inference.check(job).map_err(Fault::Input)?;
        let model = self.inference.model(job);
        let limit = self.limit(job, model.as_deref(), message);
        let wait = || Wait { lease: &message.lease, late_at: self.late_at(message), limit };
        let disk = self.in_time(wait(), async { self.fetches.acquire().await.ok() }).await?;
        let began = Instant::now();
        let inputs = unless(cancel, self.fetch_all(job, needs)).await?;
        let fetching = TimeDelta::from_std(began.elapsed()).unwrap_or_default();
        tracing::debug!(job = %job.id, stage = "fetched");
        let wait = wait();
        // A suspect waits until no other job is held: it must not keep their inputs from being fetched meanwhile.
        let disk = alone.is_none().then_some(disk);
        let _turn = match alone {
            Some(crashes) => Some(self.in_line(crashes, wait).await?),
            None => None,
        };
        let runs = if alone.is_some() { RUNS_MAX } else { 1 };
        let _run = self.in_time(wait, async { self.runs.acquire_many(runs).await.ok() }).await?;
        let most = mib(self.inference.bytes_max(job, &inputs)).min(DECODED_MIB_MAX);
        // A job that needs more memory than there is gets all.
        let permit = async { self.memory.acquire_many(most).await.ok() };
        let room = Room { disk, memory: self.in_time(wait, permit).await? };
        self.suspects.begin(job);
        message.lease.note_try();
        let inferred = self.decode_and_infer(job, inputs, wait, room).await;
        self.suspects.end(job);
        if let Ok(inferred) = &inferred {
            self.service.note(inferred.took, inferred.worked + fetching);
            self.faults.clear(Part::Box);
        }
        inferred
    }

    async fn decode_and_infer(
        &self,
        job: &Job,
        inputs: Inputs,
        wait: Wait<'_>,
        mut room: Room<'_>,
    ) -> Result<Inferred, Stop> {
        let timer = Arc::new(JobTimer::new());
        let decode = self.inference.decode(job, inputs, &wait.lease.cancel, &timer);
        let decoded = self.limited(decode, wait, &timer, Runner::Decoding).await;
        let decoded = decoded.map_err(|stop| stop.after(timer.spent()))?;
        drop(room.disk.take());
        let decoding = decoded.took;
        tracing::debug!(job = %job.id, stage = "decoded");
        let spare = room.memory.num_permits().saturating_sub(mib(decoded.bytes) as usize);
        drop(room.memory.split(spare));
        let timer = Arc::new(JobTimer::new());
        let infer = async {
            tracing::debug!(job = %job.id, stage = "inferring");
            self.inference.infer(job, decoded, &wait.lease.cancel, &timer).await
        };
        let on = Runner::Model(self.inference.model(job));
        // From here on a drain lets it finish. Until then it is released to the queue: another worker begins sooner.
        let begun = async {
            timer.begun().await;
            wait.lease.begin();
            std::future::pending().await
        };
        tokio::select! {
            biased;
            never = begun => never,
            done = self.limited(infer, wait, &timer, on) => match done {
                Ok(inferred) => Ok(Inferred { worked: inferred.worked + decoding, ..inferred }),
                Err(stop) => Err(stop.after(decoding + timer.spent())),
            },
        }
    }

    async fn fetch_all(&self, job: &Job, needs: Needs) -> Result<Inputs, Stop> {
        let input = self.fetch(&job.input, needs.bytes_max).await?;
        let mut files = Vec::with_capacity(needs.files.len());
        for (name, uri) in needs.files {
            files.push((name, self.fetch(&uri, needs.bytes_max).await?));
        }
        Ok(Inputs { input, files })
    }

    async fn fetch(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, Stop> {
        let part = Part::Inputs(Place::of(uri));
        match self.ports.files.fetch(uri, bytes_max).await {
            Ok(fetched) => {
                self.faults.clear(part);
                Ok(fetched)
            }
            Err(error) => Err(match input_failure(&error) {
                Some(failure) => Fault::Input(failure).into(),
                None => {
                    let mut fault = part.fault(&error);
                    match error.class {
                        PortErrorClass::Denied => DENIED.clone_into(&mut fault.code),
                        PortErrorClass::Throttled => THROTTLED.clone_into(&mut fault.code),
                        _ => {}
                    }
                    Stop::Fault(part, fault)
                }
            }),
        }
    }

    /// A suspect's turn, once it has come.
    async fn in_line(&self, crashes: u32, wait: Wait<'_>) -> Result<Turn<'_>, Stop> {
        let turn = self.line.enter(crashes);
        let comes = async {
            self.comes(&turn).await;
            Some(())
        };
        self.in_time(wait, comes).await?;
        Ok(turn)
    }

    /// Completes once it is the suspect's turn: it is the first, and only suspects that wait behind it are held.
    async fn comes(&self, turn: &Turn<'_>) {
        loop {
            let (gone, moved) = (self.leases.changed.notified(), self.line.changed.notified());
            tokio::pin!(gone, moved);
            // Registered before anything is looked at, so that no change after that is missed.
            gone.as_mut().enable();
            moved.as_mut().enable();
            let none_else = self.leases.count().0 as usize <= self.line.len();
            if turn.is_first() && (none_else || Fix::FullHandsAfterCrash.is_left_out()) {
                return;
            }
            tokio::select! {
                biased;
                () = gone => {}
                () = moved => {}
            }
        }
    }

    /// Waits for what a job needs to begin, unless it is cancelled or is to begin elsewhere.
    async fn in_time<T>(
        &self,
        wait: Wait<'_>,
        need: impl Future<Output = Option<T>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = wait.lease.cancel.cancelled() => Err(Stop::Cancelled),
            need = need => need.ok_or(Stop::Cancelled),
            () = wait.late() => Err(self.late()),
        }
    }

    /// By when a job must have begun. Never where a release would bring its message near the dead letters.
    fn late_at(&self, message: &Message) -> Option<Instant> {
        let can_release = message.received.receive_count + 1 < self.queue.receives_max.get();
        can_release.then(|| Instant::now() + std_time(self.queue.visibility))
    }

    fn limit<'a>(&self, job: &Job, model: Option<&'a str>, message: &Message) -> Limit<'a> {
        let most = std_time(self.job_max_with(job, model));
        let most = match Fix::JobClockFromReceipt.is_left_out() {
            true => most.saturating_sub(std_time(self.now() - message.received_at)),
            false => most,
        };
        Limit { most, model: model.filter(|name| self.policy.job_max_of(name).is_some()) }
    }

    /// How long the job may take.
    pub(crate) fn job_max(&self, job: &Job) -> TimeDelta {
        self.job_max_with(job, self.inference.model(job).as_deref())
    }

    /// A command has limits of its own, and keeps to them by itself: this one ends what does not.
    fn job_max_with(&self, job: &Job, model: Option<&str>) -> TimeDelta {
        let of_command = self.policy.command(&job.task);
        of_command
            .map_or_else(|| self.policy.job_max(model), |command| command.hard_max + COMMAND_MARGIN)
    }

    fn late(&self) -> Stop {
        self.service.be_cautious();
        Stop::Late
    }

    /// The outcome of `work`, which is told to stop once it has taken its limit. What then goes on all the same hangs: the worker ends.
    async fn limited<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
        wait: Wait<'_>,
        timer: &JobTimer,
        on: Runner,
    ) -> Result<T, Stop> {
        let Wait { lease, limit, .. } = wait;
        let cancel = &lease.cancel;
        tokio::pin!(work);
        let waits_since = Instant::now();
        let begun_late = async {
            tokio::select! {
                biased;
                () = timer.begun() => {
                    let _run = self.running.begin(on.clone());
                    std::future::pending().await
                }
                () = wait.late() => false,
                // Where it may not be released for being late. Behind other jobs it may wait for as long as they run.
                () = self.running.nothing_runs_for(OPENING_MAX, &on), if wait.late_at.is_none() => true,
            }
        };
        let is_over = tokio::select! {
            biased;
            done = &mut work => {
                if matches!(done, Err(Fault::Hung)) {
                    self.end_hung();
                }
                return done.map_err(Stop::from);
            }
            () = cancel.cancelled() => false,
            () = timer.over(limit.most) => true,
            hangs = begun_late => {
                cancel.cancel();
                if hangs {
                    tracing::error!(?on, "nothing has run although a job waits: this worker ends");
                    self.drain(WorkerExit::Hung);
                } else if self.running.has_run_since(waits_since, &on) {
                    lease.note_mere_wait();
                }
                return Err(self.late());
            }
        };
        if !is_over && !timer.has_begun() {
            // It waits behind another job, which it must not be blamed for.
            return Err(Stop::Cancelled);
        }
        cancel.cancel();
        let stopped = timeout(HANG_GRACE_MAX, work).await;
        if matches!(stopped, Err(_) | Ok(Err(Fault::Hung))) {
            self.end_hung();
        }
        match stopped {
            // It was done in the last moment.
            Ok(Ok(done)) if is_over => Ok(done),
            _ if is_over => Err(Fault::Input(limit.is_over()).into()),
            _ => Err(Stop::Cancelled),
        }
    }

    fn end_hung(&self) {
        tracing::error!("a job was cancelled and did not stop: this worker ends");
        self.drain(WorkerExit::Hung);
    }
}

/// The outcome of `work`, unless the job is cancelled.
async fn unless<T>(
    cancel: &Cancel,
    work: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Stop::Cancelled),
        done = work => done,
    }
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}
