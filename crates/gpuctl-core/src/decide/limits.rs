//! Time limits on boxes: on booting, on stopping, on a worker without reports or with a fault, and on the whole run.
//!
//! A box that a user keeps up to look at it is not stopped for a limit, except for `lifetime_max`.

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput, keep};
use crate::observation::{BoxState, SeenBox};
use crate::plan::{Effect, Reason, Rule, StopMode};
use crate::units::{BoxId, Timestamp, show_duration};
use crate::without::Fix;

/// How long a worker may not report before its box is drained: a GPU call that hangs cannot be cancelled from inside.
const SILENCE_MAX: TimeDelta = TimeDelta::minutes(2);

/// How long a worker may take no jobs for a fault before its box is drained: longer than a worker itself waits for a service. A service
/// that is down for an hour costs no box, and no result that a worker holds for it.
pub const FAULT_MAX: TimeDelta = TimeDelta::minutes(75);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let (mut stopped, mut left) = (None, None);
    for one in input.boxes() {
        let Some(due) = due(input, one) else {
            left = left.or_else(|| one.fault_text().filter(|_| one.is_up()));
            continue;
        };
        let kept = keep::failing(input, one).filter(|_| due.delay == Delay::ByUser);
        if let Some((until, by)) = kept {
            left = Some(format!("{}; {by} keeps it up for {} more", due.text, input.until(until)));
            continue;
        }
        let reason = Reason::new(Rule::Limits, due.text);
        stopped = Some(reason.text.clone());
        decision.must_stop.push((one.id.clone(), due.mode, reason));
    }
    for (id, text) in forgotten(input) {
        stopped = stopped.or_else(|| Some(text.clone()));
        decision.may_retire.push((id, Reason::new(Rule::Limits, text)));
    }
    for one in input.boxes() {
        if let Some(until) = keep::by_file(input, one) {
            decision.change(until, Rule::Limits, format!("{} may be stopped", one.id));
        }
    }
    let deadlines = input.boxes().iter().flat_map(|one| deadlines(input, one));
    if let Some((at, text)) = deadlines.min() {
        decision.change(at, Rule::Limits, text);
    }
    match (stopped, left) {
        (Some(text), _) => {
            decision.record(Effect::Stop, Rule::Limits, text);
        }
        (None, Some(text)) => {
            decision.record(Effect::Keep, Rule::Limits, text);
        }
        (None, None) => decision.abstain(
            Rule::Limits,
            format!("{} of at most {} boxes up", input.up().count(), input.pool.boxes_max),
        ),
    }
}

/// When a box will have taken too long for what it does.
fn deadlines(input: &PoolInput<'_>, one: &SeenBox) -> Vec<(Timestamp, String)> {
    let pool = input.pool;
    let id = &one.id;
    let mut limits = Vec::new();
    match one.state {
        BoxState::Pending => {
            let text = format!("{id} is stopped if it is not ready: boot_deadline");
            limits.push((one.since, pool.boot_deadline, text));
        }
        BoxState::Stopping if !one.since_is_bound => {
            let text = format!("{id} is forced off if it is still stopping: stop_deadline");
            limits.push((one.since, pool.stop_deadline, text));
        }
        BoxState::Stopped if !one.since_is_bound => {
            let retired =
                |most| (one.since, most, format!("{id} is terminated: retire_stopped_after"));
            limits.extend(pool.retire_stopped_after.map(retired));
        }
        BoxState::Stopping | BoxState::Running | BoxState::Stopped => {}
    }
    if one.is_up() {
        let text = format!("{id} is stopped: lifetime_max");
        limits.push((up_since(one), lifetime(input, one), text));
        let text = || format!("{id} is stopped if it still takes no jobs");
        limits.extend(one.fault().map(|fault| (fault.since, FAULT_MAX, text())));
    }
    let ahead = |(since, most, text): (Timestamp, TimeDelta, String)| {
        // At the deadline itself the box is still in time.
        let at = since.checked_add_signed(most + TimeDelta::milliseconds(1))?;
        (at > input.now).then_some((at, text))
    };
    limits.into_iter().filter_map(ahead).collect()
}

/// The boxes that were stopped for longer than the policy keeps one, and a sentence for each. Where EC2 does not say since when, none is.
fn forgotten(input: &PoolInput<'_>) -> Vec<(BoxId, String)> {
    let Some(most) = input.pool.retire_stopped_after else { return Vec::new() };
    let stopped = input.boxes().iter().filter(|one| one.state == BoxState::Stopped);
    let old = stopped.filter(|one| !one.since_is_bound && input.now - one.since > most);
    let text = |one: &SeenBox| {
        let (lasted, most) = (input.ago(one.since), show_duration(most));
        format!("{} is stopped for {lasted}, retire_stopped_after is {most}", one.id)
    };
    old.map(|one| (one.id.clone(), text(one))).collect()
}

/// Whether a box has taken too long for what it does, also where a user keeps it up.
pub(super) fn is_overdue(input: &PoolInput<'_>, one: &SeenBox) -> bool {
    due(input, one).is_some()
}

/// That a box has taken too long.
struct Due {
    mode: StopMode,
    delay: Delay,
    text: String,
}

/// Whether a user who looks at the box can delay its stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delay {
    ByUser,
    Not,
}

fn due(input: &PoolInput<'_>, one: &SeenBox) -> Option<Due> {
    let pool = input.pool;
    let drain = |delay, text| Some(Due { mode: StopMode::Drain, delay, text });
    let up = input.now - up_since(one);
    if one.is_up() && up > lifetime(input, one) {
        let most = show_duration(pool.lifetime_max);
        let text = format!("up for {}, lifetime_max is {most}", show_duration(up));
        return drain(Delay::Not, text);
    }
    let lasted = input.now - one.since;
    let shown = show_duration(lasted);
    match one.state {
        BoxState::Pending if lasted > pool.boot_deadline => {
            let most = show_duration(pool.boot_deadline);
            let fault = one.fault().map(|fault| format!(": {}", fault.message)).unwrap_or_default();
            drain(Delay::ByUser, format!("not ready after {shown}, boot_deadline is {most}{fault}"))
        }
        BoxState::Stopping if lasted > pool.stop_deadline && !one.since_is_bound => Some(Due {
            mode: StopMode::Force,
            delay: Delay::Not,
            text: format!("still stopping after {shown}: forced off"),
        }),
        BoxState::Running => {
            drain(Delay::ByUser, silence(input, one).or_else(|| fault(input, one))?)
        }
        _ => None,
    }
}

/// How long the box may be up. A command that runs is not ended for `lifetime_max`, but has a limit of its own: its worker receives nothing
/// more meanwhile.
fn lifetime(input: &PoolInput<'_>, one: &SeenBox) -> TimeDelta {
    let holds_job = one.worker.as_ref().is_some_and(|worker| worker.leases > 0);
    let beyond = if holds_job { input.pool.command_max } else { TimeDelta::zero() };
    input.pool.lifetime_max + beyond
}

fn silence(input: &PoolInput<'_>, one: &SeenBox) -> Option<String> {
    let silent = input.now - one.worker.as_ref()?.heard_at;
    (silent > SILENCE_MAX)
        .then(|| format!("its worker has not reported for {}", show_duration(silent)))
}

fn fault(input: &PoolInput<'_>, one: &SeenBox) -> Option<String> {
    let lasts = input.now - one.fault()?.since;
    (lasts > FAULT_MAX).then(|| one.fault_text()).flatten()
}

fn up_since(one: &SeenBox) -> Timestamp {
    if Fix::LifetimeFromReady.is_left_out() { one.since } else { one.up_since() }
}
