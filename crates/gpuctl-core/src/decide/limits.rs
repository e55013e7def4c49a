//! Time limits on boxes: on booting, on stopping, on a worker without reports, and on the whole run.

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput};
use crate::observation::{BoxState, SeenBox};
use crate::plan::{Effect, Reason, Rule, StopMode};
use crate::units::{Timestamp, show_duration};

/// How long a worker may not report before its box is drained: a GPU call that hangs cannot be cancelled from inside.
const SILENCE_MAX: TimeDelta = TimeDelta::minutes(2);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let mut worst = None;
    for one in input.boxes() {
        if let Some((mode, text)) = verdict(input, one) {
            let reason = Reason::new(Rule::Limits, text);
            worst = Some(reason.text.clone());
            decision.must_stop.push((one.id.clone(), mode, reason));
        }
    }
    let deadlines = input.boxes().iter().filter_map(|one| deadline(input, one));
    if let Some((at, text)) = deadlines.min() {
        decision.change(at, Rule::Limits, text);
    }
    match worst {
        Some(text) => {
            decision.record(Effect::Stop, Rule::Limits, text);
        }
        None => decision.abstain(
            Rule::Limits,
            format!("{} of at most {} boxes up", input.up().count(), input.pool.boxes_max),
        ),
    }
}

/// When a box will have taken too long for the state that it is in.
fn deadline(input: &PoolInput<'_>, one: &SeenBox) -> Option<(Timestamp, String)> {
    let (most, name) = match one.state {
        BoxState::Pending => (input.pool.boot_deadline, "boot_deadline"),
        BoxState::Running => (input.pool.lifetime_max, "lifetime_max"),
        BoxState::Stopping => (input.pool.stop_deadline, "stop_deadline"),
        BoxState::Stopped => return None,
    };
    // At the deadline itself the box is still in time.
    let at = one.since.checked_add_signed(most + TimeDelta::milliseconds(1))?;
    (at > input.now).then(|| (at, format!("{name} of {} is over", one.id)))
}

fn verdict(input: &PoolInput<'_>, one: &SeenBox) -> Option<(StopMode, String)> {
    let pool = input.pool;
    let lasted = input.now - one.since;
    let shown = show_duration(lasted);
    match one.state {
        BoxState::Pending if lasted > pool.boot_deadline => Some((
            StopMode::Drain,
            format!(
                "not ready after {shown}, boot_deadline is {}",
                show_duration(pool.boot_deadline)
            ),
        )),
        BoxState::Stopping if lasted > pool.stop_deadline => {
            Some((StopMode::Force, format!("still stopping after {shown}: forced off")))
        }
        BoxState::Running => {
            let silent = one
                .worker
                .as_ref()
                .map(|worker| input.now - worker.heard_at)
                .filter(|span| *span > SILENCE_MAX);
            let old = lasted > pool.lifetime_max;
            let text = match silent {
                Some(span) => {
                    Some(format!("its worker has not reported for {}", show_duration(span)))
                }
                None => old.then(|| {
                    format!("up for {shown}, lifetime_max is {}", show_duration(pool.lifetime_max))
                }),
            };
            text.map(|text| (StopMode::Drain, text))
        }
        _ => None,
    }
}
