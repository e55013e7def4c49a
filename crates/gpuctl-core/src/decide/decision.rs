//! What the rules of one pool ask for, and the plan that follows. Rules only add to it; `into_plan` alone weighs them.

use std::collections::BTreeSet;

use super::{PoolInput, capacity, keep};
use crate::observation::{BoxState, SeenBox};
use crate::plan::{Action, Effect, NextChange, PoolPlan, Reason, Rule, StopMode, Verdict};
use crate::units::{BoxId, Timestamp};

/// What the rules have asked for so far.
#[derive(Default)]
pub(super) struct PoolDecision {
    verdicts: Vec<Verdict>,
    /// How many boxes rules ask for at least.
    floors: Vec<(u32, Reason)>,
    /// Rules that get no new box, and what forbids it.
    starts_forbidden: Vec<(Rule, Reason)>,
    /// Until when demand accepts only a box of the preferred capacity type.
    pub(super) preferred_only_until: Option<Timestamp>,
    /// One more box, of the preferred capacity type, in addition to the floor.
    pub(super) extra_box: Option<Reason>,
    /// Every box is to stop, whatever the floor.
    pub(super) stop_all: Option<Reason>,
    /// Boxes that may stop, as long as the floor is kept.
    pub(super) may_stop: Vec<(BoxId, Reason)>,
    /// Boxes that must stop, whatever the floor.
    pub(super) must_stop: Vec<(BoxId, StopMode, Reason)>,
    /// Boxes that were stopped for so long that they are terminated, unless a start is asked for.
    pub(super) may_retire: Vec<(BoxId, Reason)>,
    /// Why nothing may start now, whichever rule asks.
    pub(super) no_starts: Option<Reason>,
    /// How many more boxes may start before `starts_per_hour_max` is reached.
    pub(super) starts_left: Option<usize>,
    /// Instants at which a rule's verdict changes by itself.
    changes: Vec<NextChange>,
}

impl PoolDecision {
    pub(super) fn record(&mut self, effect: Effect, rule: Rule, text: impl Into<String>) -> Reason {
        let reason = Reason::new(rule, text);
        self.verdicts.push(Verdict { effect, reason: reason.clone() });
        reason
    }

    pub(super) fn abstain(&mut self, rule: Rule, text: impl Into<String>) {
        self.record(Effect::Abstain, rule, text);
    }

    pub(super) fn at_least(&mut self, boxes: u32, rule: Rule, text: impl Into<String>) {
        let reason = self.record(Effect::AtLeast(boxes), rule, text);
        self.floors.push((boxes, reason));
    }

    /// Forbids the starts that `rules` ask for.
    pub(super) fn forbid_starts(&mut self, rule: Rule, rules: &[Rule], text: impl Into<String>) {
        let reason = self.record(Effect::Forbid, rule, text);
        self.starts_forbidden.extend(rules.iter().map(|asking| (*asking, reason.clone())));
    }

    pub(super) fn change(&mut self, at: Timestamp, rule: Rule, text: impl Into<String>) {
        self.changes.push(NextChange { at, reason: Reason::new(rule, text) });
    }

    /// How many boxes are missing for the floors that count, and for which: the first of those that need the most.
    ///
    /// Demand needs boxes that take jobs. For the other rules a box that takes none is up all the same: another would fail likewise,
    /// or a user is looking at it.
    fn missing(&self, up: Up, counts: impl Fn(&Reason) -> bool) -> (usize, Option<&Reason>) {
        let missing = |boxes: u32, reason: &Reason| {
            let there = if reason.rule == Rule::Demand { up.able } else { up.all };
            (boxes as usize).saturating_sub(there)
        };
        let floors = self.floors.iter().rev().filter(|(_, reason)| counts(reason));
        let most = floors
            .map(|(boxes, reason)| (missing(*boxes, reason), reason))
            .max_by_key(|(missing, _)| *missing);
        most.map_or((0, None), |(missing, reason)| (missing, Some(reason)))
    }

    /// The largest floor among those that count; the first of equal ones.
    fn floor(&self, counts: impl Fn(&Reason) -> bool) -> Option<(u32, &Reason)> {
        let floors = self.floors.iter().rev().filter(|(_, reason)| counts(reason));
        floors.max_by_key(|(boxes, _)| *boxes).map(|(boxes, reason)| (*boxes, reason))
    }

    /// What forbids the start that `asking` wants.
    fn forbidden(&self, asking: &Reason) -> Option<&Reason> {
        self.starts_forbidden
            .iter()
            .find(|(rule, _)| *rule == asking.rule)
            .map(|(_, reason)| reason)
    }

    pub(super) fn into_plan(self, input: &PoolInput<'_>) -> PoolPlan {
        let mut planned = PlannedActions::default();
        if let Some(boxes) = input.boxes {
            self.stop(input, boxes, &mut planned);
            if self.stop_all.is_none() {
                self.start(input, &mut planned);
            }
            // A box that a rule asks for, and cannot have now, is needed later.
            if planned.starting == 0 && planned.blocked.is_empty() {
                for (box_id, reason) in &self.may_retire {
                    planned.stop(box_id, StopMode::Retire, reason);
                }
            }
        } else {
            let seen = input.ago(input.seen.boxes.at);
            let text =
                format!("the boxes were last seen {seen} ago: nothing is started or stopped");
            planned.blocked.push(Reason::new(Rule::Limits, text));
        }
        let staying = input.staying().filter(|one| !planned.stopping.contains(&one.id)).count();
        let wanted = u32::try_from(staying + planned.starting)
            .unwrap_or(u32::MAX)
            .max(self.boxes_required(input));
        let next_change = self.next_change(input);
        let mut kept = keep::kept_boxes(input);
        kept.retain(|kept| !planned.stopping.contains(&kept.box_id));
        PoolPlan {
            pool: input.pool.id.clone(),
            boxes_wanted: wanted,
            verdicts: self.verdicts,
            actions: planned.actions,
            blocked: planned.blocked,
            next_change,
            kept,
        }
    }

    /// How many boxes stay up even if they are idle.
    ///
    /// A hold that may start no more boxes does not keep an idle worker up either. Demand's box and a command stay: a budget
    /// stops nothing that has work.
    fn boxes_required(&self, input: &PoolInput<'_>) -> u32 {
        let can_idle = input.pool.queue().is_some();
        let counts = |asking: &Reason| {
            asking.rule != Rule::Hold || !can_idle || self.forbidden(asking).is_none()
        };
        match self.stop_all {
            Some(_) => 0,
            None => self.floor(counts).map_or(0, |(boxes, _)| boxes),
        }
    }

    /// The earliest announced change that can still have an effect.
    fn next_change(&self, input: &PoolInput<'_>) -> Option<NextChange> {
        let up = u32::try_from(input.staying().count()).unwrap_or(u32::MAX);
        let spare = up > self.boxes_required(input);
        let matters = |next: &&NextChange| match next.reason.rule {
            // A hold that stops every box overrides these until it ends, and an idle box that is required stays.
            Rule::Schedule | Rule::Demand | Rule::Capacity => self.stop_all.is_none(),
            Rule::Idle => self.stop_all.is_none() && spare,
            _ => true,
        };
        let ahead = self.changes.iter().filter(|next| next.at > input.now).filter(matters);
        ahead.min_by_key(|next| next.at).cloned()
    }

    fn stop(&self, input: &PoolInput<'_>, boxes: &[SeenBox], planned: &mut PlannedActions) {
        // P18: an interrupted box drains by itself; if we stopped it too, only EC2 could start it again.
        let interrupted: BTreeSet<&BoxId> =
            boxes.iter().filter(|one| one.interruption.is_some()).map(|one| &one.id).collect();
        for (box_id, mode, reason) in &self.must_stop {
            if *mode == StopMode::Force || !interrupted.contains(box_id) {
                planned.stop(box_id, *mode, reason);
            }
        }
        let staying = input.staying().filter(|one| !planned.stopping.contains(&one.id));
        let (kept, left): (Vec<&SeenBox>, Vec<&SeenBox>) =
            staying.partition(|one| keep::by_file(input, one).is_some());
        let all = kept.len() + left.len();
        let left: BTreeSet<&BoxId> = left.into_iter().map(|one| &one.id).collect();
        if let Some(reason) = &self.stop_all {
            left.iter().for_each(|box_id| planned.stop(box_id, StopMode::Drain, reason));
            return;
        }
        let mut spare = all.saturating_sub(self.boxes_required(input) as usize);
        // The most expensive boxes stop first.
        let expensive: BTreeSet<&BoxId> = input
            .staying()
            .filter(|one| capacity::is_preferred(input, one) == Some(false))
            .map(|one| &one.id)
            .collect();
        let (first, then): (Vec<_>, Vec<_>) =
            self.may_stop.iter().partition(|(box_id, _)| expensive.contains(box_id));
        for (box_id, reason) in first.into_iter().chain(then) {
            if spare > 0 && left.contains(box_id) && !planned.stopping.contains(box_id) {
                planned.stop(box_id, StopMode::Drain, reason);
                spare -= 1;
            }
        }
    }

    fn start(&self, input: &PoolInput<'_>, planned: &mut PlannedActions) {
        let requests = self.start_requests(input, planned);
        if requests.is_empty() {
            return;
        }
        if let Some(cause) = &self.no_starts {
            planned.blocked.push(cause.clone());
            return;
        }
        let takes_room =
            |one: &&SeenBox| one.state != BoxState::Stopped && one.interruption.is_none();
        let taken = input.boxes().iter().filter(takes_room).count();
        let mut room = (input.pool.boxes_max.get() as usize).saturating_sub(taken);
        let mut left = self.starts_left.unwrap_or(usize::MAX);
        let mut started: BTreeSet<&BoxId> = BTreeSet::new();
        for request in requests {
            let fits = |one: &&SeenBox| {
                !started.contains(&one.id)
                    && (request.choice == BoxChoice::Any
                        || capacity::is_preferred(input, one) == Some(true))
            };
            let startable = capacity::startable(input, request.preferred_only_until).into_iter();
            let many = request.boxes.min(room);
            let chosen: Vec<&SeenBox> = startable.filter(fits).take(many.min(left)).collect();
            chosen.iter().for_each(|one| planned.start(one, request.reason));
            started.extend(chosen.iter().map(|one| &one.id));
            (room, left) = (room - chosen.len(), left - chosen.len());
            if left == 0 && chosen.len() < many {
                let most = input.pool.starts_per_hour_max;
                let text = format!("no further box now: starts_per_hour_max is {most}");
                planned.blocked.push(Reason::new(Rule::Cooldown, text));
                return;
            }
            if chosen.len() < request.boxes {
                let until = request.preferred_only_until;
                planned.blocked.push(capacity::nothing_to_start(input, until, room));
                return;
            }
        }
    }

    /// The starts that are asked for and allowed; what forbids the others is noted in `planned.blocked`.
    fn start_requests(
        &self,
        input: &PoolInput<'_>,
        planned: &mut PlannedActions,
    ) -> Vec<StartRequest<'_>> {
        let stays = |one: &&SeenBox| !planned.stopping.contains(&one.id);
        let up = Up {
            all: input.staying().filter(stays).count(),
            able: input.able().filter(stays).count(),
        };
        let (most, asking) = self.missing(up, |_| true);
        let (allowed, reason) = self.missing(up, |asking| self.forbidden(asking).is_none());
        if allowed < most {
            planned.blocked.extend(asking.and_then(|asking| self.forbidden(asking)).cloned());
        }
        // Only demand can wait for a cheaper box: a hold or a schedule needs one now.
        let (at_once, now) = self
            .missing(up, |asking| asking.rule != Rule::Demand && self.forbidden(asking).is_none());
        let request = |boxes, reason, preferred_only_until| StartRequest {
            boxes,
            reason,
            preferred_only_until,
            choice: BoxChoice::Any,
        };
        let mut requests = Vec::new();
        requests.extend(now.map(|reason| request(at_once, reason, None)));
        requests.extend(
            reason.map(|reason| request(allowed - at_once, reason, self.preferred_only_until)),
        );
        // No extra box to take over while other boxes start anyway.
        let extra = self.extra_box.as_ref().filter(|_| allowed == 0);
        requests.extend(extra.map(|reason| StartRequest {
            choice: BoxChoice::PreferredOnly,
            ..request(1, reason, None)
        }));
        requests.retain(|request| request.boxes > 0);
        requests
    }
}

/// How many boxes stay up, and how many of them take jobs.
#[derive(Clone, Copy)]
struct Up {
    all: usize,
    able: usize,
}

/// Boxes that are to start, all for the same reason.
struct StartRequest<'a> {
    boxes: usize,
    reason: &'a Reason,
    preferred_only_until: Option<Timestamp>,
    choice: BoxChoice,
}

/// Which capacity types a request accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BoxChoice {
    Any,
    PreferredOnly,
}

/// The actions of a plan while it is made, each box at most once.
#[derive(Default)]
struct PlannedActions {
    actions: Vec<Action>,
    stopping: BTreeSet<BoxId>,
    starting: usize,
    blocked: Vec<Reason>,
}

impl PlannedActions {
    fn stop(&mut self, box_id: &BoxId, mode: StopMode, reason: &Reason) {
        if !self.stopping.insert(box_id.clone()) {
            return;
        }
        let (box_id, reason) = (box_id.clone(), reason.clone());
        self.actions.push(Action::Stop { box_id, mode, reason });
    }

    fn start(&mut self, one: &SeenBox, reason: &Reason) {
        let mut reason = reason.clone();
        if let Some(offering) = &one.offering {
            reason.text = format!("{}; takes {offering}", reason.text);
        }
        self.starting += 1;
        self.actions.push(Action::Start { box_id: one.id.clone(), reason });
    }
}
