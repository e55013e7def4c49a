//! What the guarantees say of jobs: one result each, whose fault a failure is, and that no work is lost.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use gpuctl_control::job::{CANCELLED, Job, JobFailure, JobResult};
use gpuctl_control::ports::{Committed, Receipt, Received};
use gpuctl_control::wire::job::job_from_json;
use gpuctl_core::units::Timestamp;
use gpuctl_worker::{OutputFile, WorkerExit, file_document};

use super::{Checks, Guarantee};
use crate::faults::Fault;
use crate::world::ec2::InstanceState;
use crate::world::scenario::{JobKind, JobOutcome};
use crate::world::{Ended, ProcessEnd, World};

/// The longest outage in which no inference may be lost.
const OUTAGE_SURVIVED: TimeDelta = TimeDelta::minutes(30);
/// Of one service each, and of the calls to all of them.
const QUEUE: &[Fault] = &[Fault::QueueErrors, Fault::QueueDown, Fault::QueueThrottled];
const LEDGER: &[Fault] = &[Fault::LedgerErrors, Fault::LedgerDown, Fault::LedgerThrottled];
const STORE: &[Fault] = &[Fault::StoreDown, Fault::StoreThrottled];
const CALLS: &[Fault] = &[Fault::SlowCalls, Fault::LostReplies];
/// Faults that keep results from being committed: with them, an inference may be lost if they last longer than that.
const OUTAGES: &[&[Fault]] = &[QUEUE, LEDGER, STORE, &[Fault::LostReplies]];
/// The strength from which errors count as an outage.
const OUTAGE_STRENGTH: i64 = 1_000;

/// How much work a worker may hold that it has not begun …
const HOARD_MAX: TimeDelta = TimeDelta::minutes(5);
/// … for this long while another has none.
const HOARDING_MAX: TimeDelta = TimeDelta::minutes(2);
/// Faults under which a worker without jobs may be unable to take any.
const TROUBLE: &[&[Fault]] = &[
    QUEUE,
    LEDGER,
    CALLS,
    &[Fault::Duplicates, Fault::BrokenBox, Fault::WorkerHang, Fault::WorkerSilent],
];

/// How much earlier than its lifetime's end a worker may end for it.
const EARLY_MAX: TimeDelta = TimeDelta::minutes(15);
/// Faults for which a worker may give up.
const NO_START: &[&[Fault]] = &[
    QUEUE,
    LEDGER,
    STORE,
    CALLS,
    &[Fault::BrokenBox, Fault::BrokenImage, Fault::BootLoop],
    &[Fault::StuckPending, Fault::SlowBoot, Fault::WorkerSilent],
];

/// Faults that keep leases from being extended.
const NO_EXTENSION: &[&[Fault]] = &[QUEUE, CALLS];
/// How long a message is held at most before that shows.
const LEASE_TROUBLE: TimeDelta = TimeDelta::minutes(30);

fn each(parts: &'static [&'static [Fault]]) -> impl Iterator<Item = Fault> {
    parts.iter().copied().flatten().copied()
}

/// A job and its generation.
type Name = (String, u32);

/// What happened to jobs.
#[derive(Default)]
pub(super) struct Jobs {
    receives: BTreeMap<Name, Vec<Receive>>,
    /// The process that has last finished the job's inference, and when.
    inferred: BTreeMap<Name, (u64, Timestamp)>,
    /// Jobs whose inference hung.
    hung: BTreeSet<Name>,
    /// Jobs that the queue delivered twice at once.
    doubled: BTreeSet<Name>,
    /// Jobs that a user has cancelled.
    cancelled: BTreeSet<Name>,
    /// Receipts of which a worker was told that their lease is lost.
    lost: BTreeSet<String>,
    /// Processes that a poison job has crashed.
    poisoned: BTreeSet<u64>,
    /// Jobs that a worker has moved to the dead letters, with the reason.
    buried: BTreeSet<String>,
    /// Since when a worker has held what another could do.
    hoarding_since: Option<Timestamp>,
}

/// A receive of a job's message.
struct Receive {
    process: u64,
    at: Timestamp,
    /// Whether the worker died while it held the message.
    killed: bool,
    /// Whether the worker could not help it that it came to nothing.
    excused: bool,
    /// Whether the worker buried the message without running its job.
    buried: bool,
}

impl Receive {
    /// By which process, when, and what became of it.
    fn told(&self, queue_failed: bool) -> String {
        let end = match (self.excused, self.killed) {
            _ if self.buried => "buried",
            _ if queue_failed => "the queue failed",
            (true, _) => "excused",
            (false, true) => "crashed by poison",
            (false, false) => "let go of",
        };
        format!("{} by process {} ({end})", self.at.format("%a %H:%M:%S"), self.process)
    }
}

impl Checks {
    /// Inference of the job hangs.
    pub(crate) fn job_hangs(&mut self, job: &Job) {
        self.jobs.hung.insert((job.id.to_string(), job.generation));
    }

    /// A user has cancelled the job.
    pub(crate) fn job_is_cancelled(&mut self, job: &Job) {
        self.jobs.cancelled.insert((job.id.to_string(), job.generation));
    }

    /// Whether a user has cancelled any job.
    pub(crate) fn is_any_cancelled(&self) -> bool {
        !self.jobs.cancelled.is_empty()
    }

    /// A poison job has crashed this process.
    pub(crate) fn poisoned(&mut self, process: u64) {
        self.jobs.poisoned.insert(process);
    }

    /// The message is delivered twice, or its receive's response is lost.
    pub(crate) fn excuse_receive(&mut self, message: &Received) {
        if let Some(last) =
            self.jobs.receives.get_mut(&name(message)).and_then(|all| all.last_mut())
        {
            last.excused = true;
        }
        self.jobs.doubled.insert(name(message));
    }

    /// A worker is told that this lease is lost.
    pub(crate) fn lease_is_lost(&mut self, receipt: &Receipt) {
        self.jobs.lost.insert(receipt.0.clone());
    }
}

fn name(message: &Received) -> Name {
    let of = |name: &str| {
        let found = message.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    (of("job_id"), of("generation").parse().unwrap_or(0))
}

impl World {
    /// A process has received these messages.
    pub(crate) fn note_receives(&mut self, now: Timestamp, taken: &[Received], process: u64) {
        for message in taken {
            let receives = self.checks.jobs.receives.entry(name(message)).or_default();
            receives.push(Receive {
                process,
                at: now,
                killed: false,
                excused: false,
                buried: false,
            });
        }
    }

    /// Whether the queue failed while a message was held: then its lease may run out.
    fn queue_failed(&self, receive: &Receive) -> bool {
        let until = receive.at + LEASE_TROUBLE;
        let windows = each(NO_EXTENSION).flat_map(|fault| self.faults.windows(fault));
        windows.into_iter().any(|window| window.from < until && window.to > receive.at)
    }

    /// A worker moves a message to the dead letters.
    pub(crate) fn note_burial(
        &mut self,
        now: Timestamp,
        message: &Received,
        reason: &str,
        process: u64,
    ) {
        let receives = self.checks.jobs.receives.get(&name(message));
        let crashed = receives.is_some_and(|all| all.iter().any(|one| one.killed));
        let fair = crashed || !reason.starts_with("job.crashed");
        self.checks.check(fair, Guarantee::Poison, now, || {
            format!("job {} is buried ({reason}), and crashed no worker", name(message).0)
        });
        if !reason.is_empty() {
            self.checks.jobs.buried.insert(name(message).0);
        }
        let receives = self.checks.jobs.receives.get_mut(&name(message));
        // Not simply the last: of a message that was delivered twice that may be another worker's.
        let mine = receives.and_then(|all| all.iter_mut().rfind(|one| one.process == process));
        if let Some(mine) = mine {
            mine.buried = true;
        }
    }

    /// At a worker's report: whether one holds much that it cannot begin while another has nothing to do.
    pub(crate) fn check_hoarding(&mut self, now: Timestamp) {
        let workers: Vec<String> = self
            .boxes()
            .filter(|one| one.state == InstanceState::Running)
            .filter(|one| !self.processes(&one.id).is_empty())
            .map(|one| one.id.clone())
            .collect();
        let troubled = each(TROUBLE).any(|fault| self.faults.strength(fault, now) > 0);
        let hoards = workers.len() > 1
            && !troubled
            && workers.iter().any(|one| self.is_idle(now, one))
            && workers.iter().any(|one| self.unbegun(now, one) > HOARD_MAX);
        let since = self.checks.jobs.hoarding_since.take().filter(|_| hoards);
        self.checks.jobs.hoarding_since = hoards.then(|| since.unwrap_or(now));
        let long = since.is_some_and(|since| now - since > HOARDING_MAX);
        self.checks.check(!long, Guarantee::Hoarding, now, || {
            format!("a worker of {} holds what another could do", workers.join(", "))
        });
    }

    fn is_idle(&self, now: Timestamp, id: &str) -> bool {
        let report = self.ledger.report_of(id);
        report.is_some_and(|report| {
            report.fault.is_none() && now - report.at < HOARDING_MAX && report.leases == 0
        })
    }

    /// How long the jobs take that a worker holds, without the longest two: one runs, one is decoded.
    fn unbegun(&self, now: Timestamp, id: &str) -> TimeDelta {
        let held = self.queue.held_by(now, self.processes(id));
        let service =
            |(job, generation): (String, u32)| Some(self.job_kind(&job, generation)?.service);
        let mut services: Vec<TimeDelta> = held.filter_map(service).collect();
        services.sort_unstable();
        services.iter().rev().skip(2).sum()
    }

    pub(crate) fn check_ack(&mut self, now: Timestamp, receipt: &Receipt) {
        let lost = self.checks.jobs.lost.contains(&receipt.0);
        self.checks.check(!lost, Guarantee::LiveAck, now, || {
            format!("a message is acked although its lease {} is lost", receipt.0)
        });
        let Some(body) = self.queue.body(receipt) else { return };
        let job = job_from_json(body).ok();
        let durable =
            job.as_ref().is_some_and(|job| self.ledger.result(&job.id, job.generation).is_some());
        let id = job.map_or_else(|| "of no job".to_owned(), |job| job.id.to_string());
        self.checks.check(durable, Guarantee::DurableFirst, now, || {
            format!("the message {id} is deleted and has no result")
        });
    }

    pub(crate) fn check_commit(&mut self, now: Timestamp, result: &JobResult, done: Committed) {
        let id = result.job.id.to_string();
        let name = (id.clone(), result.job.generation);
        if done == Committed::Written {
            *self.checks.committed.entry(name.clone()).or_default() += 1;
        }
        let once = self.checks.committed.get(&name).is_none_or(|times| *times == 1);
        let kind = self.job_kind(&id, result.job.generation);
        self.checks.check(once && kind.is_some(), Guarantee::ExactlyOnce, now, || {
            format!("job {id} was committed twice, or was never submitted")
        });
        if let (Err(failure), Some(kind), Committed::Written) = (&result.outcome, kind, done) {
            self.check_failure(now, &name, kind, failure);
        }
    }

    /// A job may fail by its own fault, or because it takes longer than a job may.
    fn check_failure(&mut self, now: Timestamp, name: &Name, kind: JobKind, failure: &JobFailure) {
        let limit = self.scenario.policy.worker.job_max;
        let late = kind.service > limit || self.checks.jobs.hung.contains(name);
        let fair = match failure.code.as_str() {
            "job.timeout" => late,
            CANCELLED => self.checks.jobs.cancelled.contains(name),
            _ => kind.outcome == JobOutcome::Fails,
        };
        self.checks.check(fair, Guarantee::WhoseFault, now, || {
            format!("job {} ({:?}) failed: {}: {}", name.0, kind, failure.code, failure.message)
        });
    }

    /// A process has finished the inference of a job.
    pub(crate) fn check_inference(&mut self, now: Timestamp, job: &Job, process: u64) {
        let name = (job.id.to_string(), job.generation);
        let before = self.checks.jobs.inferred.insert(name.clone(), (process, now));
        let Some((by, at)) = before else { return };
        let doubled = self.checks.jobs.doubled.contains(&name);
        let again = by == process && !doubled && !self.outlasts(at, now);
        self.checks.check(!again, Guarantee::KeepsWork, now, || {
            format!("the worker that has run job {} at {at} runs it again", job.id)
        });
    }

    /// A worker that ends by itself has committed what it has inferred, and what it held comes back.
    pub(crate) fn check_process_end(
        &mut self,
        now: Timestamp,
        (instance, process): (&str, u64),
        ended: &Ended,
    ) {
        let poisoned = self.checks.jobs.poisoned.contains(&process);
        for receives in self.checks.jobs.receives.values_mut() {
            if let Some(last) = receives.last_mut().filter(|last| last.process == process) {
                last.excused |= !poisoned;
                last.killed |= ended.end == ProcessEnd::Killed;
            }
        }
        let ProcessEnd::Exited(exit) = ended.end else { return };
        self.check_exit(now, instance, exit);
        if matches!(exit, WorkerExit::ToldToStop | WorkerExit::Interrupted) {
            // Its drain has a deadline.
            return;
        }
        let mine = |(_, (by, _)): &(&Name, &(u64, Timestamp))| *by == process;
        let lost = self.checks.jobs.inferred.iter().filter(mine).find(|(name, (_, at))| {
            let kept = ended.disk.iter().any(|blob| blob.contains(name.0.as_str()));
            !kept && !self.checks.committed.contains_key(*name) && !self.outlasts(*at, now)
        });
        let lost = lost.map(|(name, (_, at))| format!("{exit}: job {} of {at}", name.0));
        let what = lost.clone().unwrap_or_default();
        self.checks.check(lost.is_none(), Guarantee::KeepsWork, now, || what);
    }

    /// A worker does not end early: neither for a lifetime that is not over, nor as one that cannot start without a fault.
    fn check_exit(&mut self, now: Timestamp, instance: &str, exit: WorkerExit) {
        let launched_at = self.ec2.instance(instance).map_or(now, |one| one.launch_time);
        let young = now - launched_at < self.pool().lifetime_max - EARLY_MAX;
        self.checks.check(exit != WorkerExit::Lifetime || !young, Guarantee::Lifetime, now, || {
            format!("the worker on {instance} ends for its lifetime, launched at {launched_at}")
        });
        // A user may keep the box of a worker on that has given up: what counts is what was wrong when its fault began, or in the hour before.
        let report = self.ledger.report_of(instance).filter(|report| report.at >= launched_at);
        let fault = report.and_then(|report| report.fault.as_ref());
        let began = fault.map_or(now, |fault| fault.since.min(now));
        let since = began - TimeDelta::hours(1);
        let troubled = each(NO_START).any(|fault| {
            let windows = self.faults.windows(fault).iter();
            windows.clone().any(|window| window.from <= began && window.to > since)
        });
        let fair = exit != WorkerExit::CannotStart || troubled;
        self.checks.check(fair, Guarantee::WhoseFault, now, || {
            format!("the worker on {instance} ends as one that cannot start, and nothing is wrong")
        });
    }

    /// Whether services failed for longer than a worker has to outlast.
    fn outlasts(&self, since: Timestamp, now: Timestamp) -> bool {
        let windows = each(OUTAGES).flat_map(|fault| {
            let down = matches!(fault, Fault::LedgerDown | Fault::QueueDown | Fault::StoreDown);
            let windows = self.faults.windows(fault).iter();
            windows.filter(move |window| {
                down || self.faults.strength(fault, window.from) >= OUTAGE_STRENGTH
            })
        });
        let touched = windows.filter(|window| window.from < now && window.to > since);
        touched.map(|window| window.to - window.from).sum::<TimeDelta>() > OUTAGE_SURVIVED
    }

    /// A message is in the dead letters at the end.
    pub(super) fn check_death(&mut self, now: Timestamp, id: &str, kind: JobKind, generation: u32) {
        let receives = self.checks.jobs.receives.get(&(id.to_owned(), generation));
        let receives = receives.map_or(&[][..], Vec::as_slice);
        let is_excused = |one: &&Receive| one.excused || self.queue_failed(one);
        // The receive that buries it does not count as a try: where the queue itself moves it to the dead letters there is none.
        let tries = receives.iter().filter(|one| !one.buried);
        let (excused, all) = (tries.clone().filter(is_excused).count(), tries.count());
        let innocent = matches!(kind.outcome, JobOutcome::Succeeds | JobOutcome::Fails);
        let hung = self.checks.jobs.hung.contains(&(id.to_owned(), generation));
        let unfair = innocent && !hung && excused * 2 < all;
        let count = receives.len();
        let told: Vec<String> =
            receives.iter().map(|one| one.told(self.queue_failed(one))).collect();
        let told = told.join(", ");
        self.checks.check(!unfair, Guarantee::WhoseFault, now, || {
            format!("job {id}, generation {generation} ({kind:?}) is dead after {count} receives: {told}")
        });
        if kind.outcome == JobOutcome::Poison && excused == 0 {
            let named = self.ledger.has_problem(id) || self.checks.jobs.buried.contains(id);
            self.checks.check(named, Guarantee::Poison, now, || {
                format!("job {id} crashed {count} workers and is dead without a reason")
            });
        }
    }

    /// A result's files are there, with the bytes that the result names.
    pub(super) fn check_files(&mut self, now: Timestamp, id: &str, generation: u32) {
        let Ok(job) = id.parse() else { return };
        let result = self.ledger.result(&job, generation);
        let output = result.and_then(|result| result.outcome.as_ref().ok());
        let listed = output.and_then(|output| output.get("files")?.as_array().cloned());
        for file in listed.unwrap_or_default() {
            let text = |field: &str| file.get(field)?.as_str().map(str::to_owned);
            let uri = text("uri").unwrap_or_default();
            let kept = self.files.get(&uri).map(|bytes| {
                let (name, media_type) = (String::new(), String::new());
                file_document(&OutputFile { name, bytes: bytes.clone(), media_type }, None).sha256
            });
            let same = kept.is_some() && kept == text("sha256");
            self.checks.check(same, Guarantee::OwnFiles, now, || {
                format!("{uri} is missing, or of another attempt")
            });
        }
    }
}
