//! What came of a hold: whether a start or stop is carried out, and if not, which rule keeps it from that and what helps.
//!
//! Read off one reconcile, for the CLI and the function alike. The hold is set in any case; nothing here undoes it.

use gpuctl_core::decide::STALE_AFTER;
use gpuctl_core::observation::{BoxState, HoldWants, SeenBox};
use gpuctl_core::offering::RefusalClass;
use gpuctl_core::plan::{Action, Effect, KeptBox, PoolPlan, Reason, Rule};
use gpuctl_core::units::{PoolId, Timestamp};

use crate::ports::{PortError, PortErrorClass};
use crate::reconciled::Reconciled;
use crate::text::with_causes;

/// What came of a hold on one pool.
#[derive(Debug)]
pub enum HoldOutcome<'r> {
    /// The boxes are as wanted, or were asked to be.
    CarriedOut,
    /// Not now, but without anybody's doing: a sentence, and when, if that is known.
    Later(String, Option<Timestamp>),
    /// Not unless a user does something.
    Not(NotCarriedOut),
    /// The cloud or the ledger failed; the next reconcile tries again.
    Failed(&'r PortError),
}

/// Why a hold is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCarriedOut {
    pub why: Why,
    /// A sentence with pool and rule.
    pub text: String,
    /// What the user can do.
    pub hint: String,
}

/// Kinds of reasons for which a hold is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A newer start or stop outside gpuctl counts.
    Outranked,
    /// No box can start now.
    Impossible,
    /// The budget is spent.
    OverBudget,
    /// The pool has no box here.
    NothingToRun,
    /// The boxes could not be read.
    Unread,
}

impl NotCarriedOut {
    fn new(why: Why, text: String, hint: impl Into<String>) -> Self {
        Self { why, text, hint: hint.into() }
    }
}

/// What came of a hold on this pool, which was set before the reconcile.
#[must_use]
pub fn outcome_of_hold<'r>(
    reconciled: &'r Reconciled,
    pool: &PoolId,
    wants: HoldWants,
) -> HoldOutcome<'r> {
    let plan = reconciled.plan.pools.iter().find(|plan| plan.pool == *pool);
    let at = reconciled.observation.at;
    let seen = reconciled.observation.pools.get(pool);
    let boxes = seen.and_then(|seen| seen.boxes.fresh(at, STALE_AFTER));
    let (Some(plan), Some(boxes)) = (plan, boxes) else {
        return HoldOutcome::Not(unread(reconciled, pool));
    };
    if let Some(error) = failed_action(reconciled, pool) {
        return of_error(pool, error);
    }
    match wants {
        HoldWants::Running => of_start(plan, boxes),
        HoldWants::Stopped => of_stop(plan, boxes),
    }
}

fn unread(reconciled: &Reconciled, pool: &PoolId) -> NotCarriedOut {
    let mut text = format!("pool `{pool}` could not be read, so nothing is started or stopped");
    for error in &reconciled.errors {
        text.push_str(&format!(": {}", with_causes(error)));
    }
    let hint = reconciled.errors.iter().find_map(|error| error.hint.clone());
    NotCarriedOut::new(Why::Unread, text, hint.unwrap_or_else(|| "try again".to_owned()))
}

fn failed_action<'r>(reconciled: &'r Reconciled, pool: &PoolId) -> Option<&'r PortError> {
    let of_pool = reconciled.acted.iter().filter(|acted| acted.pool == *pool);
    of_pool.filter_map(|acted| acted.result.as_ref().err()).next()
}

/// A quota does not grow by waiting (P9), and a box that does not exist does not come back.
fn of_error<'r>(pool: &PoolId, error: &'r PortError) -> HoldOutcome<'r> {
    match error.class {
        PortErrorClass::Refused(RefusalClass::Quota) | PortErrorClass::NotFound => {
            let text = format!("`{pool}` is not started: {}", with_causes(error));
            let hint = error.hint.clone().unwrap_or_else(|| DOCTOR.to_owned());
            HoldOutcome::Not(NotCarriedOut::new(Why::Impossible, text, hint))
        }
        _ => HoldOutcome::Failed(error),
    }
}

fn of_start(plan: &PoolPlan, boxes: &[SeenBox]) -> HoldOutcome<'static> {
    if let Some(reason) = overriding(plan, Effect::Stop) {
        return HoldOutcome::Not(outranked(plan, "started", reason));
    }
    let starts = plan.actions.iter().any(|action| matches!(action, Action::Start { .. }));
    if starts || boxes.iter().any(|one| one.is_up() && !is_stopped_by(plan, one)) {
        return HoldOutcome::CarriedOut;
    }
    if boxes.is_empty() {
        return HoldOutcome::Not(nothing_to_run(&plan.pool));
    }
    match plan.blocked.first() {
        Some(reason) if reason.rule == Rule::Budget => HoldOutcome::Not(over_budget(plan, reason)),
        Some(reason) if reason.rule == Rule::Cooldown => {
            let next = plan.next_change.as_ref().filter(|next| next.reason.rule == Rule::Cooldown);
            let text = format!("`{}` is not started yet: {}", plan.pool, reason.text);
            HoldOutcome::Later(text, next.map(|next| next.at))
        }
        _ if boxes.iter().any(|one| one.state == BoxState::Stopping || one.is_up()) => {
            HoldOutcome::Later(format!("`{}` starts again once it has stopped", plan.pool), None)
        }
        Some(reason) => HoldOutcome::Not(impossible(plan, reason)),
        None => HoldOutcome::CarriedOut,
    }
}

fn of_stop(plan: &PoolPlan, boxes: &[SeenBox]) -> HoldOutcome<'static> {
    let left = boxes.iter().find(|one| one.is_up() && !is_stopped_by(plan, one));
    match (left, overriding(plan, Effect::AtLeast(1))) {
        (None, _) => HoldOutcome::CarriedOut,
        (Some(_), Some(reason)) => HoldOutcome::Not(outranked(plan, "stopped", reason)),
        // P18: it stops by itself; a stop by gpuctl would leave it to EC2 alone.
        (Some(one), None) if one.interruption.is_some() => {
            let text = format!("{} is being interrupted, and stops by itself", one.id);
            HoldOutcome::Later(text, None)
        }
        (Some(one), None) => match plan.kept.iter().find(|kept| kept.box_id == one.id) {
            Some(kept) => HoldOutcome::Not(kept_up(plan, kept)),
            None => HoldOutcome::CarriedOut,
        },
    }
}

/// A user on the box wants it to stay.
fn kept_up(plan: &PoolPlan, kept: &KeptBox) -> NotCarriedOut {
    let text = format!("`{}` is not stopped: {}", plan.pool, kept.text);
    let hint = "delete that file on the box; the hold stops it then, and does so in any case when the time is over";
    NotCarriedOut::new(Why::Outranked, text, hint)
}

/// What another's hold says, where it is newer than this one: e.g. a start or stop outside gpuctl.
fn overriding(plan: &PoolPlan, effect: Effect) -> Option<&Reason> {
    let is_it = |rule: Rule, said: Effect| rule == Rule::Hold && said == effect;
    let mut verdicts = plan.verdicts.iter();
    let found = verdicts.find(|verdict| is_it(verdict.reason.rule, verdict.effect))?;
    Some(&found.reason)
}

fn is_stopped_by(plan: &PoolPlan, one: &SeenBox) -> bool {
    plan.actions
        .iter()
        .any(|action| matches!(action, Action::Stop { box_id, .. } if *box_id == one.id))
}

const DOCTOR: &str = "`gpuctl doctor` checks the boxes";

fn outranked(plan: &PoolPlan, verb: &str, reason: &Reason) -> NotCarriedOut {
    let (pool, rule) = (&plan.pool, reason.rule.as_str());
    let text = format!("`{pool}` is not {verb}: {rule}: {}", reason.text);
    let hint =
        format!("`gpuctl release {pool}` ends that and your hold; then give the command again");
    NotCarriedOut::new(Why::Outranked, text, hint)
}

fn impossible(plan: &PoolPlan, reason: &Reason) -> NotCarriedOut {
    let (pool, rule) = (&plan.pool, reason.rule.as_str());
    let text = format!("`{pool}` is not started: {rule}: {}", reason.text);
    let hint = format!("{DOCTOR}; while the hold lasts, gpuctl starts one as soon as it can");
    NotCarriedOut::new(Why::Impossible, text, hint)
}

fn over_budget(plan: &PoolPlan, reason: &Reason) -> NotCarriedOut {
    let text = format!("`{}` is not started: {}", plan.pool, reason.text);
    let hint = "allow this hold to spend more: `--over-budget USD`";
    NotCarriedOut::new(Why::OverBudget, text, hint)
}

fn nothing_to_run(pool: &PoolId) -> NotCarriedOut {
    let text = format!("pool `{pool}` has nothing to run on this machine");
    let hint = "give it a `queue` or a `command`: a pool with only a schedule starts no box here";
    NotCarriedOut::new(Why::NothingToRun, text, hint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::TimeDelta;
    use gpuctl_core::decide;
    use gpuctl_core::observation::{
        Foreign, Hold, Observation, Run, Seen, SeenPool, SeenWorker, Spent, Witness,
    };
    use gpuctl_core::policy::Policy;
    use gpuctl_core::units::MicroUsd;

    use super::*;
    use crate::act::Acted;

    const POLICY: &str = "[pool.gpu]\nqueue = \"jobs\"\n";

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn one(state: BoxState) -> SeenBox {
        SeenBox::new("gpu-1".parse().unwrap(), state, now() - TimeDelta::minutes(1))
    }

    /// A reconcile right after a hold was set.
    fn reconciled(policy: &str, wants: HoldWants, boxes: Vec<SeenBox>) -> Reconciled {
        let policy = Policy::parse(policy).unwrap();
        let pool: PoolId = "gpu".parse().unwrap();
        let hold = Hold {
            pool: pool.clone(),
            wants,
            since: now(),
            until: now() + TimeDelta::hours(2),
            by: "ada".to_owned(),
            why: None,
            over_budget: None,
            until_empty: false,
        };
        let seen = SeenPool {
            boxes: Seen::now(boxes, now()),
            queue: None,
            urgent: None,
            hold: Some(hold),
            runs: Vec::new(),
            service: None,
            spent: None,
        };
        let pools = BTreeMap::from([(pool, seen)]);
        let observation = Observation { at: now(), witness: Witness::Controller, pools };
        let plan = decide(&policy, &observation);
        Reconciled { observation, errors: Vec::new(), plan, acted: Vec::new() }
    }

    #[test]
    fn a_box_that_a_user_keeps_up_is_not_stopped_and_says_so() {
        let mut kept = one(BoxState::Running);
        kept.worker = Some(SeenWorker {
            heard_at: now(),
            leases: 0,
            idle_since: None,
            jobs_done: 0,
            fault: None,
            keep_until: Some(now() + TimeDelta::hours(1)),
        });
        let done = reconciled(POLICY, HoldWants::Stopped, vec![kept]);
        let (why, text) = not(outcome_of_hold(&done, &pool(), HoldWants::Stopped));
        assert_eq!(why, Why::Outranked);
        assert!(
            text.contains("the file `keep-until` on gpu-1 keeps gpu-1 up for 1h more"),
            "{text}"
        );
    }

    #[track_caller]
    fn not(outcome: HoldOutcome<'_>) -> (Why, String) {
        match outcome {
            HoldOutcome::Not(not) => (not.why, not.text),
            other => panic!("{other:?}"),
        }
    }

    fn pool() -> PoolId {
        "gpu".parse().unwrap()
    }

    #[test]
    fn a_start_or_stop_that_is_ordered_or_needless_is_carried_out() {
        for wants in [HoldWants::Running, HoldWants::Stopped] {
            for state in [BoxState::Stopped, BoxState::Running, BoxState::Pending] {
                let done = reconciled(POLICY, wants, vec![one(state)]);
                let outcome = outcome_of_hold(&done, &pool(), wants);
                assert!(
                    matches!(outcome, HoldOutcome::CarriedOut),
                    "{wants:?} {state:?}: {outcome:?}"
                );
            }
        }
    }

    #[test]
    fn what_a_later_start_or_stop_outside_gpuctl_outranks_says_so() {
        for (wants, other, state) in [
            (HoldWants::Running, HoldWants::Stopped, BoxState::Stopped),
            (HoldWants::Stopped, HoldWants::Running, BoxState::Running),
        ] {
            let at = Some(now() + TimeDelta::milliseconds(8));
            let foreign = Some(Foreign { wants: other, at, by: "eve".to_owned() });
            let done = reconciled(POLICY, wants, vec![SeenBox { foreign, ..one(state) }]);
            let (why, text) = not(outcome_of_hold(&done, &pool(), wants));
            assert_eq!(why, Why::Outranked, "{text}");
            assert!(text.contains("hold: eve") && text.contains("outside gpuctl"), "{text}");
        }
    }

    #[test]
    fn what_cannot_start_says_why() {
        let unstartable = Some("is not known to EC2 in eu-west-1".to_owned());
        let unknown = SeenBox { unstartable, ..one(BoxState::Stopped) };
        for (boxes, expected, words) in [
            (vec![unknown], Why::Impossible, "gpu-1 is not known to EC2"),
            (Vec::new(), Why::NothingToRun, "nothing to run"),
        ] {
            let done = reconciled(POLICY, HoldWants::Running, boxes);
            let (why, text) = not(outcome_of_hold(&done, &pool(), HoldWants::Running));
            assert_eq!(why, expected);
            assert!(text.contains(words), "{text}");
        }
        let poor = format!("{POLICY}budget_usd_month = 1.0\n");
        let mut done = reconciled(&poor, HoldWants::Running, vec![one(BoxState::Stopped)]);
        let spent = Spent { month: MicroUsd(2_000_000), ..Spent::default() };
        done.observation.pools.get_mut(&pool()).unwrap().spent = Some(spent);
        done.plan = decide(&Policy::parse(&poor).unwrap(), &done.observation);
        let (why, text) = not(outcome_of_hold(&done, &pool(), HoldWants::Running));
        assert_eq!(why, Why::OverBudget, "{text}");
    }

    #[test]
    fn a_quota_or_a_missing_box_makes_a_start_impossible_and_other_errors_are_failures() {
        let fails = |class| {
            let mut done = reconciled(POLICY, HoldWants::Running, vec![one(BoxState::Stopped)]);
            let action = done.plan.pools[0].actions[0].clone();
            let error = PortError::new(class, "EC2 says no").hint("do something");
            done.acted = vec![Acted { pool: pool(), action, result: Err(error) }];
            done
        };
        for class in [PortErrorClass::Refused(RefusalClass::Quota), PortErrorClass::NotFound] {
            let done = fails(class);
            let (why, text) = not(outcome_of_hold(&done, &pool(), HoldWants::Running));
            assert_eq!(why, Why::Impossible, "{text}");
            assert!(text.contains("EC2 says no"), "{text}");
        }
        let denied = fails(PortErrorClass::Denied);
        let outcome = outcome_of_hold(&denied, &pool(), HoldWants::Running);
        assert!(matches!(outcome, HoldOutcome::Failed(_)), "{outcome:?}");
    }

    #[test]
    fn what_resolves_itself_is_told_and_no_failure() {
        let wants = HoldWants::Running;
        let done = reconciled(POLICY, wants, vec![one(BoxState::Stopping)]);
        let stopping = outcome_of_hold(&done, &pool(), wants);
        let is_told = |text: &str| text.contains("once it has stopped");
        assert!(
            matches!(&stopping, HoldOutcome::Later(text, None) if is_told(text)),
            "{stopping:?}"
        );

        let mut done = reconciled(POLICY, wants, vec![one(BoxState::Stopped)]);
        let reason = Reason::new(Rule::Hold, "ada wants it running");
        let begun = Run::begin(pool(), "gpu-1".parse().unwrap(), now(), reason);
        let ended = Some(now() + TimeDelta::seconds(1));
        let failed = Run { stopped_at: ended, error: Some("no driver".to_owned()), ..begun };
        done.observation.pools.get_mut(&pool()).unwrap().runs = vec![failed];
        done.observation.at = now() + TimeDelta::seconds(2);
        done.plan = decide(&Policy::parse(POLICY).unwrap(), &done.observation);
        let later = outcome_of_hold(&done, &pool(), wants);
        let is_told = |text: &str| text.contains("no driver") && text.contains("not started yet");
        assert!(matches!(&later, HoldOutcome::Later(text, Some(_)) if is_told(text)), "{later:?}");
    }

    #[test]
    fn a_pool_that_could_not_be_read_is_no_success() {
        let mut done = reconciled(POLICY, HoldWants::Running, vec![one(BoxState::Stopped)]);
        let error = PortError::new(PortErrorClass::Unavailable, "EC2 cannot be reached");
        done.errors = vec![error.hint("look at its status page")];
        done.observation.pools.get_mut(&pool()).unwrap().boxes.value = None;
        let outcome = outcome_of_hold(&done, &pool(), HoldWants::Running);
        let HoldOutcome::Not(not) = outcome else { panic!("{outcome:?}") };
        assert_eq!((not.why, not.hint.as_str()), (Why::Unread, "look at its status page"));
        assert!(not.text.contains("EC2 cannot be reached"), "{}", not.text);
    }
}
