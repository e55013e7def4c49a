//! What the boxes' states say about the runs in the ledger, and the runs about the boxes. Pure.

use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, Run, SeenBox};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::{PoolId, Timestamp};
use gpuctl_core::without::Fix;

use crate::ports::LEASE_LASTS;

/// How long a cloud's listing may show a box as it was before its start. EC2 is eventually consistent: mostly seconds, seldom a
/// minute (EC2 API Reference, "Eventual consistency").
const LISTED_WITHIN: TimeDelta = TimeDelta::seconds(60);

/// Fills in what the boxes' states say about their latest runs; returns the runs that changed.
///
/// A box whose start the listing does not show yet becomes pending (R5).
pub(super) fn update_runs(runs: &mut [Run], boxes: &mut [SeenBox], at: Timestamp) -> Vec<Run> {
    let mut changed = Vec::new();
    for one in boxes.iter_mut() {
        let mut of_box = runs.iter_mut().filter(|run| run.box_id == one.id);
        let Some(latest) = of_box.next() else { continue };
        let mut next_started_at = latest.started_at;
        for older in of_box {
            if older.stopped_at.is_none() {
                close_older(older, next_started_at);
                changed.push(older.clone());
            }
            next_started_at = older.started_at;
        }
        let before = latest.clone();
        update_latest(latest, one, at);
        if *latest != before {
            changed.push(latest.clone());
        }
    }
    changed
}

/// Ends a run whose box has started again since, without the end having reached the ledger: it may have run until then, also where it
/// was never seen ready. A cost that is too high is noticed, one that is too low is not.
fn close_older(older: &mut Run, next_started_at: Timestamp) {
    older.stopped_at = Some(older.stopping_at.unwrap_or(next_started_at));
    older.error = older
        .error
        .take()
        .or_else(|| Some("its stop was not observed; the time is the latest possible".to_owned()));
}

fn update_latest(run: &mut Run, one: &mut SeenBox, at: Timestamp) {
    if is_in(run, one) {
        stay_ready(run, one);
        note(run, one, at);
    } else if run.stopped_at.is_some() {
        // Over, and known to be.
    } else if run.ready_at.is_some() {
        // The box is in another run by now, and the end of this one was not seen. It is billed up to the latest possible end: a cost
        // that is too high is noticed, one that is too low is not.
        run.stopped_at = run.stopping_at.or(Some(began(one).min(at)));
        run.error = Some("its stop was not observed; the time is the latest possible".to_owned());
    } else if at - run.started_at > begins_within(one) {
        // The controller that noted this start ended before it asked for the box.
        run.stopped_at = Some(run.started_at);
        run.error = Some("its start was noted but never carried out".to_owned());
    } else if one.state == BoxState::Stopped {
        // R5: asked for, and the listing does not show it yet. It must not be started again.
        (one.state, one.since) = (BoxState::Pending, run.started_at);
    }
}

/// Ends the runs whose boxes no longer exist; returns them. Left open they would cost money for ever.
pub(super) fn close_runs_without_box(
    runs: &mut [Run],
    boxes: &[SeenBox],
    at: Timestamp,
) -> Vec<Run> {
    let is_over = |run: &Run| {
        run.stopped_at.is_none()
            && at - run.started_at > LEASE_LASTS
            && !boxes.iter().any(|one| one.id == run.box_id)
    };
    let mut changed = Vec::new();
    for run in runs.iter_mut().filter(|run| is_over(run)) {
        run.stopped_at = Some(at);
        run.error = run.error.take().or_else(|| Some("its box no longer exists".to_owned()));
        changed.push(run.clone());
    }
    changed
}

/// Whether this is the run that the box is in, or was in last.
fn is_in(run: &Run, one: &SeenBox) -> bool {
    match one.run_started_at {
        Some(began) => began == run.started_at,
        // Never started by gpuctl: its run is the one that was opened when it was first seen up.
        None => one.state != BoxState::Stopped || one.since > run.started_at,
    }
}

/// How long a box may take to show its start. One on this machine shows it at once; only the controller that noted the start may be
/// late.
fn begins_within(one: &SeenBox) -> TimeDelta {
    if one.offering.is_some() { LISTED_WITHIN } else { LEASE_LASTS }
}

/// When the run that the box is in began, as far as the box says.
fn began(one: &SeenBox) -> Timestamp {
    one.run_started_at.unwrap_or(one.since)
}

/// A worker that is started again in the same run is not ready at first; that does not count as a boot, which has a deadline.
fn stay_ready(run: &Run, one: &mut SeenBox) {
    if let (BoxState::Pending, Some(ready_at)) = (one.state, run.ready_at)
        && !Fix::RestartCountsAsBoot.is_left_out()
    {
        (one.state, one.since) = (BoxState::Running, ready_at);
    }
}

fn note(run: &mut Run, one: &SeenBox, at: Timestamp) {
    run.interrupted_at = run.interrupted_at.or(one.interruption);
    // Also of a box that has stopped since: its own worker, which does not know the offering, may have begun the run.
    let bought = one.offering.as_ref().filter(|offering| !offering.is_unplaced());
    run.offering = run.offering.take().or_else(|| bought.cloned());
    match one.state {
        BoxState::Running => run.ready_at = run.ready_at.or(Some(one.since)),
        BoxState::Stopped => {
            // An end at an unknown time is billed up to when it was first seen: a cost that is too high is noticed.
            let ended_at = if one.since_is_bound { at } else { one.since };
            run.stopped_at = run.stopped_at.or(Some(ended_at.max(run.started_at)));
            run.error = run.error.take().or_else(|| one.last_error.clone());
            run.jobs = run.jobs.or(one.worker.as_ref().map(|worker| worker.jobs_done));
        }
        BoxState::Pending | BoxState::Stopping => {}
    }
}

/// A new run for each box that is up without one: it was started outside gpuctl, and costs money all the same (R1, P4).
pub(super) fn runs_started_elsewhere(
    runs: &[Run],
    boxes: &[SeenBox],
    pool: &PoolId,
    at: Timestamp,
) -> Vec<Run> {
    let began = |one: &SeenBox| began(one).min(at);
    let has_run = |one: &SeenBox| {
        let is_its = |run: &Run| run.stopped_at.is_none() || run.started_at == began(one);
        runs.iter().any(|run| run.box_id == one.id && is_its(run))
    };
    let run = |one: &SeenBox| Run {
        offering: one.offering.clone(),
        ready_at: (one.state == BoxState::Running).then_some(one.since),
        ..Run::begin(pool.clone(), one.id.clone(), began(one), reason_elsewhere(runs, one))
    };
    boxes.iter().filter(|one| one.is_up() && !has_run(one)).map(run).collect()
}

fn reason_elsewhere(runs: &[Run], one: &SeenBox) -> Reason {
    let last = runs.iter().find(|run| run.box_id == one.id);
    if last.is_some_and(|run| run.interrupted_at.is_some()) {
        return Reason::new(Rule::Interruption, "EC2 restarted it after an interruption");
    }
    let by = one.foreign.as_ref().map_or("an unknown user", |foreign| foreign.by.as_str());
    Reason::new(Rule::Hold, format!("{by} started it outside gpuctl"))
}

/// A box that EC2 itself restarted after an interruption was not started by a user, so it counts as no hold (P4): schedule and queue
/// decide about it.
pub(super) fn clear_foreign_after_interruption(runs: &[Run], boxes: &mut [SeenBox]) {
    let by_ec2 = |run: &Run| run.start.rule == Rule::Interruption || run.interrupted_at.is_some();
    for one in boxes.iter_mut().filter(|one| one.foreign.is_some()) {
        if runs.iter().find(|run| run.box_id == one.id).is_some_and(by_ec2) {
            one.foreign = None;
        }
    }
}
