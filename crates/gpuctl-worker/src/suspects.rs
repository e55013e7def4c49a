//! Which jobs may have crashed their worker: told by a marker on disk from before a job begins until it ends.
//!
//! A marker that is found at the start is that of a job which ran when the last worker on this box died. Such a suspect runs alone from
//! then on, and is buried before it crashes the box once too often. How often a message was received says nothing about it.

use std::io;
use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::job::Job;
use gpuctl_control::log::shown;
use gpuctl_control::wire::job::{job_from_json, job_to_json};
use gpuctl_core::units::Timestamp;

use crate::Scratch;

/// The code of a job's problem: its worker crashed while it ran.
pub(crate) const CRASHED: &str = "job.crashed";
/// The most jobs whose crashes are remembered: the newest.
const SUSPECTS_MAX: usize = 1_000;
const STARTED: &str = "started-";
const CRASHES: &str = "crashes-";
const LAST_CRASH: &str = "last-crash";
/// Crashes that come sooner one after the other are not chance: another job may crash the worker next.
const CRASHES_APART_MIN: TimeDelta = TimeDelta::minutes(10);

/// The suspects of this box.
pub(crate) struct Suspects {
    scratch: Arc<dyn Scratch>,
    crashes_max: u32,
}

impl Suspects {
    pub(crate) fn new(scratch: Arc<dyn Scratch>, receives_max: u32) -> Self {
        // The queue moves a message to the dead letters after `receives_max` receives, without a reason: it is buried before that.
        Self { scratch, crashes_max: receives_max.saturating_sub(1).max(1) }
    }

    /// Counts the crash whose markers are still there; returns its jobs, and how often each has crashed its worker.
    pub(crate) fn after_crash(&self) -> Vec<(Job, u32)> {
        let names = log(self.scratch.list(), "markers could not be listed").unwrap_or_default();
        let started: Vec<&String> = names.iter().filter(|name| name.starts_with(STARTED)).collect();
        let mut suspects = Vec::new();
        for &name in &started {
            let text = self.scratch.get(name).ok().flatten().unwrap_or_default();
            if let Ok(job) = job_from_json(&String::from_utf8_lossy(&text)) {
                let before = self.crashes(&job);
                // One of several that ran together is a suspect, but no more than that.
                let crashes = if started.len() == 1 { before + 1 } else { before.max(1) };
                let noted = self.scratch.put(&key(CRASHES, &job), crashes.to_string().as_bytes());
                log(noted, "a crash could not be noted");
                suspects.push((job, crashes));
            }
            log(self.scratch.remove(name), "a marker could not be removed");
        }
        // Names sort by the jobs' ids, which sort by time.
        let old: Vec<&String> = names.iter().filter(|name| name.starts_with(CRASHES)).collect();
        for name in old.iter().take(old.len().saturating_sub(SUSPECTS_MAX)) {
            log(self.scratch.remove(name), "an old suspect could not be forgotten");
        }
        suspects
    }

    /// Notes a crash; whether it is the second within `CRASHES_APART_MIN`.
    pub(crate) fn crashes_again(&self, now: Timestamp) -> bool {
        let before = self.scratch.get(LAST_CRASH).ok().flatten().unwrap_or_default();
        let before: Option<Timestamp> = String::from_utf8_lossy(&before).parse().ok();
        let noted = self.scratch.put(LAST_CRASH, now.to_rfc3339().as_bytes());
        log(noted, "a crash could not be noted");
        before.is_some_and(|before| now - before < CRASHES_APART_MIN)
    }

    /// Notes that a job begins. Nothing removes the note but [`Suspects::end`] and [`Suspects::clear`]: a crash does neither.
    pub(crate) fn begin(&self, job: &Job) {
        let noted = self.scratch.put(&key(STARTED, job), job_to_json(job).as_bytes());
        log(noted, "a marker could not be written");
    }

    /// Notes that a job is over.
    pub(crate) fn end(&self, job: &Job) {
        log(self.scratch.remove(&key(STARTED, job)), "a marker could not be removed");
    }

    /// Notes that no job runs any longer, at the end of a worker that ends in order.
    pub(crate) fn clear(&self) {
        let names = log(self.scratch.list(), "markers could not be listed").unwrap_or_default();
        for name in names.iter().filter(|name| name.starts_with(STARTED)) {
            log(self.scratch.remove(name), "a marker could not be removed");
        }
    }

    /// How often the job has crashed a worker of this box.
    pub(crate) fn crashes(&self, job: &Job) -> u32 {
        let text = self.scratch.get(&key(CRASHES, job)).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&text).parse().unwrap_or_default()
    }

    /// Whether a job that has crashed this often is not to run again.
    pub(crate) fn is_too_often(&self, crashes: u32) -> bool {
        crashes >= self.crashes_max
    }

    /// Forgets the job's crashes: it has ended, or was buried, and a user who brings it back wants it to be tried.
    pub(crate) fn forget(&self, job: &Job) {
        log(self.scratch.remove(&key(CRASHES, job)), "a suspect could not be forgotten");
    }
}

fn key(prefix: &str, job: &Job) -> String {
    format!("{prefix}{}-{}", job.id, job.generation)
}

/// Without the disk a worker goes on, and knows less about its suspects.
fn log<T>(done: io::Result<T>, what: &str) -> Option<T> {
    done.map_err(|error| tracing::warn!(error = %shown(error), "{what}")).ok()
}
