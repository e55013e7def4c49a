//! What the boxes' states say about the runs in the ledger, and the runs about the boxes. Pure.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, RUNS_REMEMBERED_MAX, Run, SeenBox};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use gpuctl_core::without::Fix;

use crate::ports::LEASE_LASTS;

/// How long a cloud's listing may show a box as it was before its start. EC2 is eventually consistent: mostly seconds, seldom a
/// minute (EC2 API Reference, "Eventual consistency").
const LISTED_WITHIN: TimeDelta = TimeDelta::seconds(60);

/// How long ago a run may have ended that the ledger lacks: what is older concerns no budget of now.
const FOUND_WITHIN: TimeDelta = TimeDelta::days(31);

/// How much later than the cloud's clock that of an order may have been, with the cloud's whole seconds.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::seconds(5);

/// Why a run ended that was found after its end.
const ENDED_BEFORE: &str = "it had ended when gpuctl first saw it";

/// What the ledger says of a run whose end is not known.
const END_NOT_OBSERVED: &str = "its stop was not observed; the time is the latest possible";

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
    older.error = older.error.take().or_else(|| Some(END_NOT_OBSERVED.to_owned()));
}

fn update_latest(run: &mut Run, one: &mut SeenBox, at: Timestamp) {
    if is_in(run, one) {
        stay_ready(run, one);
        note(run, one, at);
    } else if run.stopped_at.is_some() {
        // Over, and known to be.
    } else if run.ready_at.is_some() || has_started_since(run, one) {
        // The box is in another run by now, or gone, and the end of this one was not seen. It is billed up to the latest possible end, also
        // where it was never seen ready: a cost that is too high is noticed, one that is too low is not.
        let next = one.run_started_at.filter(|_| has_started_since(run, one));
        run.stopped_at = run.stopping_at.or(Some(next.unwrap_or(at).min(at)));
        run.error = Some(END_NOT_OBSERVED.to_owned());
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
pub(super) fn close_runs_without_box<'a>(
    runs: &mut [Run],
    listed: impl Iterator<Item = &'a SeenBox>,
    at: Timestamp,
) -> Vec<Run> {
    let listed: BTreeSet<&BoxId> = listed.map(|one| &one.id).collect();
    let is_over = |run: &Run| {
        run.stopped_at.is_none()
            && at - run.started_at > LEASE_LASTS
            && !listed.contains(&run.box_id)
    };
    let mut changed = Vec::new();
    for run in runs.iter_mut().filter(|run| is_over(run)) {
        run.stopped_at = Some(at);
        run.error = run.error.take().or_else(|| Some("its box no longer exists".to_owned()));
        changed.push(run.clone());
    }
    changed
}

/// Brings runs as they were read up to date with what this observation has found out: a budget must not wait for the ledger.
pub(super) fn overlay(runs: &mut Vec<Run>, changed: &[Run]) {
    for newer in changed {
        let is_it =
            |run: &&mut Run| run.box_id == newer.box_id && run.started_at == newer.started_at;
        match runs.iter_mut().find(is_it) {
            Some(run) => run.clone_from(newer),
            None => runs.push(newer.clone()),
        }
    }
}

/// Whether this is the run that the box is in, or was in last.
fn is_in(run: &Run, one: &SeenBox) -> bool {
    match one.run_started_at {
        Some(began) => began == run.started_at,
        // Never started by gpuctl: its run is the one that was opened when it was first seen up.
        None => one.state != BoxState::Stopped || one.since > run.started_at,
    }
}

fn has_started_since(run: &Run, one: &SeenBox) -> bool {
    one.run_started_at.is_some_and(|began| began > run.started_at)
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
    let run = |one: &SeenBox| Run {
        offering: one.offering.clone(),
        ready_at: (one.state == BoxState::Running).then_some(one.since),
        ..Run::begin(pool.clone(), one.id.clone(), began(one), reason_elsewhere(runs, one))
    };
    let up = boxes.iter().filter(|one| one.is_up() && !has_run(runs, one, began(one)));
    up.map(run).collect()
}

/// A new run for each box that is off, or about to be, and whose last start is in no run: it was started outside gpuctl and stopped before
/// the ledger took a write, or the ledger has lost its run. It has cost money all the same (R1, R6).
///
/// EC2 shows the last start alone: of a box that was started several times in between, the earlier ones are not known.
pub(super) fn runs_ended_elsewhere<'a>(
    runs: &[Run],
    boxes: impl IntoIterator<Item = &'a SeenBox>,
    pool: &PoolId,
    at: Timestamp,
    up_max: TimeDelta,
) -> Vec<Run> {
    if Fix::EndedUnseen.is_left_out() {
        return Vec::new();
    }
    let oldest = oldest_remembered(runs);
    let run = |one: &SeenBox| {
        let began = one.run_started_at.filter(|_| !one.is_up() && one.offering.is_some())?;
        let ended = ended(one, began, at, up_max);
        let is_forgotten = oldest.is_some_and(|oldest| began < oldest)
            || ended.is_some_and(|ended| at - ended > FOUND_WITHIN);
        (!is_forgotten && began <= at && !is_covered(runs, one, began)).then(|| Run {
            stopped_at: ended,
            stop: one.interruption.is_none().then(|| Reason::new(Rule::Hold, ENDED_BEFORE)),
            error: one.since_is_bound.then(|| END_NOT_OBSERVED.to_owned()),
            offering: one.offering.clone().filter(|offering| !offering.is_unplaced()),
            interrupted_at: one.interruption,
            ..Run::begin(pool.clone(), one.id.clone(), began, reason_elsewhere(runs, one))
        })
    };
    boxes.into_iter().filter_map(run).collect()
}

/// When the run ended in which the box was last; `None` while it is still on its way off. An end that EC2 does not tell is the latest that
/// is possible for a box that keeps to its limits: neither now, for a box that may have been off for weeks, nor at once. EC2 bills each start.
fn ended(one: &SeenBox, began: Timestamp, at: Timestamp, up_max: TimeDelta) -> Option<Timestamp> {
    let ended = if one.since_is_bound { at.min(began + up_max) } else { one.since.min(at) };
    (one.state == BoxState::Stopped).then(|| ended.max(began + TimeDelta::seconds(1)))
}

/// From when on all runs of the pool are among `runs`, newest first; `None` where there are no others.
fn oldest_remembered(runs: &[Run]) -> Option<Timestamp> {
    runs.get(RUNS_REMEMBERED_MAX as usize - 1).map(|run| run.started_at)
}

/// Whether a run is open for the box, or is the one that began then.
fn has_run(runs: &[Run], one: &SeenBox, began: Timestamp) -> bool {
    let is_its = |run: &Run| run.stopped_at.is_none() || run.started_at == began;
    runs.iter().any(|run| run.box_id == one.id && is_its(run))
}

/// Whether the box was in a run when it began: in one of that time or in one that had begun before, since an order that EC2 refused later
/// leaves a box without the time of its last order.
fn is_covered(runs: &[Run], one: &SeenBox, began: Timestamp) -> bool {
    let lasted = |run: &Run| {
        run.started_at <= began + CLOCKS_DIFFER_MAX
            && run.stopped_at.is_none_or(|stopped| stopped > began)
    };
    let of_box = |run: &&Run| run.box_id == one.id;
    runs.iter().filter(of_box).any(|run| run.started_at == began || lasted(run))
}

fn reason_elsewhere(runs: &[Run], one: &SeenBox) -> Reason {
    let last = runs.iter().find(|run| run.box_id == one.id);
    if last.is_some_and(|run| run.interrupted_at.is_some()) {
        return Reason::new(Rule::Interruption, "EC2 restarted it after an interruption");
    }
    if !one.is_up() {
        let text = "EC2 shows this run, and the ledger had none: it was started outside gpuctl";
        return Reason::new(Rule::Hold, text);
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
