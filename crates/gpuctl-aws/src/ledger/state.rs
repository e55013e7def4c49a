//! The state of a job without a result. Pure.
//!
//! SQS shows a message only to its receiver, so a state follows from notes, and is a little behind the queue. A job is `running`
//! while its worker reports and holds leases, `dead` once its last attempt is over (its message is moved at the next receive) or its
//! message was buried, and `purged` or queued again after a purge or redrive through gpuctl. After the time for which the queue keeps
//! messages it is `expired`. What is done in the SQS console is not seen.

use chrono::TimeDelta;
use gpuctl_control::job::JobState;
use gpuctl_control::ports::{Attempt, WorkerReport};
use gpuctl_core::units::Timestamp;

use super::items::QueueChanges;
use super::job_items::Noted;
use crate::queue::Retention;

/// How old a worker's report may be while its jobs count as running.
const REPORT_AGE_MAX: TimeDelta = TimeDelta::seconds(60);

/// What else the state of a job depends on.
#[derive(Clone, Copy, Default)]
pub(super) struct Around<'a> {
    /// Of the job's queue.
    pub(super) changes: QueueChanges,
    /// How long the job's queue keeps messages; `None` if that cannot be read.
    pub(super) retention: Option<Retention>,
    /// The latest report of each worker on the attempt's box.
    pub(super) reports: &'a [WorkerReport],
}

/// The state of a job.
pub(super) fn state(job: &Noted, around: Around<'_>, now: Timestamp) -> JobState {
    if let Some(outcome) = job.outcome {
        return outcome;
    }
    let Around { changes, retention, reports } = around;
    let last_over = job.attempt.as_ref().filter(|attempt| attempt.number >= attempt.of);
    let buried_at = job.problem.as_ref().filter(|problem| problem.dead).map(|problem| problem.at);
    let dead_since = buried_at.max(last_over.map(|attempt| attempt.at));
    // A redrive gives a dead message all its attempts again, and counts as its new submission.
    let redriven = changes.redriven_at.filter(|at| dead_since.is_some_and(|dead| dead < *at));
    let dead_since = dead_since.filter(|_| redriven.is_none());
    let buried_at = buried_at.filter(|at| Some(*at) == dead_since);
    let attempt = job.attempt.as_ref();
    let attempt = attempt.filter(|attempt| redriven.is_none_or(|redriven| attempt.at >= redriven));
    if buried_at.is_none() && attempt.is_some_and(|attempt| is_held(attempt, reports, now)) {
        return JobState::Running;
    }
    let after = |change: Option<Timestamp>, then: Timestamp| change.is_some_and(|at| at >= then);
    let is_over =
        |since: Timestamp, kept: Option<TimeDelta>| kept.is_some_and(|kept| now - since > kept);
    // Q12: SQS moves a message to the dead letters with its age; a redriven or buried one was sent anew.
    let was_tried = job.attempt.is_some() || job.problem.is_some();
    let sent_at = job.noted_at.unwrap_or(job.submitted_at);
    let sent_at = changes.redriven_at.filter(|_| was_tried).map_or(sent_at, |at| at.max(sent_at));
    if let Some(dead_since) = dead_since {
        let kept = retention.and_then(|kept| kept.dead);
        return if after(changes.purged_dead_at, dead_since) {
            JobState::Purged
        } else if is_over(buried_at.unwrap_or(sent_at), kept) {
            JobState::Expired
        } else {
            JobState::Dead
        };
    }
    if after(changes.purged_live_at, redriven.unwrap_or(job.submitted_at)) {
        JobState::Purged
    } else if is_over(sent_at, retention.map(|kept| kept.live)) {
        JobState::Expired
    } else {
        JobState::Queued
    }
}

/// Whether a worker still holds the job: by its reports, and never beyond the attempt's end. Of several on the box any may hold it: it is
/// released once none of them can.
fn is_held(attempt: &Attempt, reports: &[WorkerReport], now: Timestamp) -> bool {
    let has_released = |report: &WorkerReport| {
        let silent = now - report.at > REPORT_AGE_MAX && now - attempt.at > REPORT_AGE_MAX;
        silent || (report.at > attempt.at && report.leases == 0)
    };
    now < attempt.until && (reports.is_empty() || !reports.iter().all(has_released))
}

#[cfg(test)]
mod tests {
    use gpuctl_control::job::JobFailure;

    use super::super::job_items::Problem;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_795_000_000 + seconds, 0).unwrap()
    }

    fn attempt(number: u32, began: i64) -> Attempt {
        let box_id = "gpu-1".parse().unwrap();
        Attempt { box_id, number, of: 2, at: at(began), until: at(began + 600) }
    }

    fn report(said: i64, leases: u32) -> WorkerReport {
        let begun = WorkerReport::begin("gpu-1".parse().unwrap(), at(0), at(said), 1);
        WorkerReport { leases, ..begun }
    }

    fn noted(attempt: Option<Attempt>) -> Noted {
        Noted {
            job: None,
            queue: "jobs".parse().unwrap(),
            generation: 0,
            submitted_at: at(0),
            noted_at: Some(at(0)),
            attempt,
            problem: None,
            outcome: None,
            cancelled_at: None,
            is_old: false,
        }
    }

    #[test]
    fn a_state_follows_from_the_notes() {
        use JobState::{Dead, Purged, Queued, Running};
        let none = QueueChanges::default();
        let live = |seconds| QueueChanges { purged_live_at: Some(at(seconds)), ..none };
        let dead = |seconds| QueueChanges { purged_dead_at: Some(at(seconds)), ..none };
        let redriven = |seconds| QueueChanges { redriven_at: Some(at(seconds)), ..none };
        let (first, last) = (Some(attempt(1, 10)), Some(attempt(2, 10)));
        let table = [
            ("new", None, none, None, 20, Queued),
            ("begun", first.clone(), none, None, 20, Running),
            ("… and its worker reports it", first.clone(), none, Some(report(19, 1)), 20, Running),
            ("… or has not yet", first.clone(), none, Some(report(5, 0)), 20, Running),
            ("… or has released it", first.clone(), none, Some(report(19, 0)), 20, Queued),
            ("… or is silent", first.clone(), none, Some(report(30, 1)), 95, Queued),
            ("tried once, over", first.clone(), none, None, 700, Queued),
            ("in its last attempt", last.clone(), none, None, 20, Running),
            ("… and over", last.clone(), none, None, 700, Dead),
            ("… and purged", last.clone(), dead(800), None, 900, Purged),
            ("… and redriven", last.clone(), redriven(800), None, 900, Queued),
            ("a redrive before that does not count", last.clone(), redriven(5), None, 900, Dead),
            ("redriven and begun", Some(attempt(1, 810)), redriven(800), None, 820, Running),
            ("purged", None, live(5), None, 20, Purged),
            ("purged while tried", first.clone(), live(15), None, 700, Purged),
            ("a purge before it was submitted", None, live(-5), None, 20, Queued),
            ("a purge of the queue leaves the dead", last.clone(), live(800), None, 900, Dead),
            (
                "purged, then redriven",
                last,
                QueueChanges { redriven_at: Some(at(850)), ..live(800) },
                None,
                900,
                Queued,
            ),
        ];
        for (name, attempt, changes, report, now, wanted) in table {
            let around = Around { changes, reports: report.as_slice(), retention: None };
            assert_eq!(state(&noted(attempt), around, at(now)), wanted, "{name}");
        }
    }

    #[test]
    fn a_job_of_a_box_with_several_workers_runs_while_any_of_them_may_hold_it() {
        let begun = noted(Some(attempt(1, 10)));
        let of = |reports: &[WorkerReport], now| {
            state(&begun, Around { reports, ..Around::default() }, at(now))
        };
        // The one that has begun it reports next: the other, which is idle, says nothing about it.
        assert_eq!(of(&[report(5, 0), report(19, 0)], 20), JobState::Running);
        assert_eq!(of(&[report(15, 1), report(19, 0)], 20), JobState::Running);
        assert_eq!(of(&[report(19, 0), report(19, 0)], 20), JobState::Queued);
        assert_eq!(of(&[report(5, 1), report(94, 0)], 95), JobState::Queued);
    }

    #[test]
    fn a_buried_job_is_dead_at_once_until_it_is_redriven_or_purged() {
        let failure = JobFailure { code: "x".into(), message: "y".into(), hint: None };
        let problem = Some(Problem { failure, at: at(11), dead: true });
        let buried = Noted { problem, ..noted(Some(attempt(1, 10))) };
        let seen = |changes| state(&buried, Around { changes, ..Around::default() }, at(20));
        let none = QueueChanges::default();
        assert_eq!(seen(none), JobState::Dead);
        assert_eq!(seen(QueueChanges { redriven_at: Some(at(15)), ..none }), JobState::Queued);
        assert_eq!(seen(QueueChanges { purged_dead_at: Some(at(15)), ..none }), JobState::Purged);
        let again = QueueChanges { redriven_at: Some(at(15)), ..none };
        let tried = |attempt| Noted { attempt: Some(attempt), ..buried.clone() };
        let around = Around { changes: again, ..Around::default() };
        assert_eq!(state(&tried(attempt(1, 16)), around, at(20)), JobState::Running);
        assert_eq!(state(&tried(attempt(2, 16)), around, at(900)), JobState::Dead);
        let crashed = Noted {
            problem: buried.problem.clone().map(|problem| Problem { dead: false, ..problem }),
            ..buried
        };
        assert_eq!(state(&crashed, Around::default(), at(20)), JobState::Running);
    }

    #[test]
    fn a_job_that_the_queue_has_dropped_is_expired() {
        let hour = 3_600;
        let retention = Retention { live: TimeDelta::hours(4), dead: Some(TimeDelta::hours(8)) };
        let retention = Some(retention);
        let seen = |job: &Noted, changes: QueueChanges, hours: i64| {
            state(job, Around { retention, changes, reports: &[] }, at(hours * hour + 1))
        };
        let none = QueueChanges::default();
        let redriven = QueueChanges { redriven_at: Some(at(7 * hour)), ..none };
        let (new, over) = (noted(None), noted(Some(attempt(2, 10))));
        assert_eq!(seen(&new, none, 3), JobState::Queued);
        assert_eq!(seen(&new, none, 4), JobState::Expired);
        assert_eq!(state(&new, Around::default(), at(90 * hour)), JobState::Queued);
        // Q12: the age counts from the first queue on, and a redrive begins it anew.
        assert_eq!(seen(&over, none, 7), JobState::Dead);
        assert_eq!(seen(&over, none, 8), JobState::Expired);
        assert_eq!(seen(&over, redriven, 10), JobState::Queued);
        assert_eq!(seen(&over, redriven, 11), JobState::Expired);
        // The sender's time may be anything: the ledger's own counts.
        let absurd = Noted { submitted_at: at(-900 * hour), ..new };
        assert_eq!(seen(&absurd, none, 3), JobState::Queued);
    }
}
