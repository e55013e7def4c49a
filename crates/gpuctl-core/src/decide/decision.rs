//! What the rules of one pool have said, and what comes of it. Rules add to it; only `into_plan` weighs.

use std::collections::BTreeSet;

use super::{PoolInput, capacity};
use crate::observation::{BoxState, SeenBox};
use crate::plan::{Action, Effect, NextChange, PoolPlan, Reason, Rule, StopMode, Verdict};
use crate::units::{BoxId, Timestamp};

/// What the rules have said so far.
#[derive(Default)]
pub(super) struct PoolDecision {
    verdicts: Vec<Verdict>,
    /// How many boxes rules ask for at least.
    floors: Vec<(u32, Reason)>,
    /// Rules whose wish gets no new box, with what stands against it.
    refused: Vec<(Rule, Reason)>,
    /// Until when only the preferred capacity type will do for demand's wish.
    pub(super) patience: Option<Timestamp>,
    /// One box more, of the preferred capacity type, whatever the floor.
    pub(super) extra: Option<Reason>,
    /// Every box is to stop, whatever the floor.
    pub(super) all_off: Option<Reason>,
    /// Boxes that may go, as long as the floor is kept.
    pub(super) released: Vec<(BoxId, Reason)>,
    /// Boxes that must go, whatever the floor.
    pub(super) condemned: Vec<(BoxId, StopMode, Reason)>,
    /// No starts now, except those that a person asked for after the cause.
    pub(super) no_starts: Option<Reason>,
    /// How many boxes may be started at once before it is too many for this hour.
    pub(super) starts_left: Option<usize>,
    /// Instants at which a rule will change its mind.
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

    pub(super) fn refuse(&mut self, rule: Rule, refused: &[Rule], text: impl Into<String>) {
        let reason = self.record(Effect::Forbid, rule, text);
        self.refused.extend(refused.iter().map(|wish| (*wish, reason.clone())));
    }

    /// The most that any rule asks for, the first of equals.
    fn floor(&self, counts: impl Fn(&Reason) -> bool) -> Option<(u32, &Reason)> {
        let wishes = self.floors.iter().rev().filter(|(_, reason)| counts(reason));
        wishes.max_by_key(|(boxes, _)| *boxes).map(|(boxes, reason)| (*boxes, reason))
    }

    fn refusal(&self, wish: &Reason) -> Option<&Reason> {
        self.refused.iter().find(|(rule, _)| *rule == wish.rule).map(|(_, reason)| reason)
    }

    pub(super) fn change(&mut self, at: Timestamp, rule: Rule, text: impl Into<String>) {
        self.changes.push(NextChange { at, reason: Reason::new(rule, text) });
    }

    pub(super) fn into_plan(self, input: &PoolInput<'_>) -> PoolPlan {
        let mut answer = Answer::default();
        if let Some(boxes) = input.boxes {
            self.stop(input, boxes, &mut answer);
            if self.all_off.is_none() {
                self.start(input, &mut answer);
            }
        } else {
            let seen = input.ago(input.seen.boxes.at);
            let text =
                format!("the boxes were last seen {seen} ago: nothing is started or stopped");
            answer.blocked.push(Reason::new(Rule::Limits, text));
        }
        let staying = input.staying().filter(|one| !answer.stopping.contains(&one.id)).count();
        let wanted =
            u32::try_from(staying + answer.starting).unwrap_or(u32::MAX).max(self.kept(input));
        let next_change = self.next_change(input);
        PoolPlan {
            pool: input.pool.id.clone(),
            boxes_wanted: wanted,
            verdicts: self.verdicts,
            actions: answer.actions,
            blocked: answer.blocked,
            next_change,
        }
    }

    /// How many boxes are kept up. A hold that may start no more does not keep an idle worker on either; demand's box and a
    /// command stay, since nothing that is at work is stopped for money.
    fn kept(&self, input: &PoolInput<'_>) -> u32 {
        let idles = input.pool.queue().is_some();
        let counts =
            |wish: &Reason| wish.rule != Rule::Hold || !idles || self.refusal(wish).is_none();
        match self.all_off {
            Some(_) => 0,
            None => self.floor(counts).map_or(0, |(boxes, _)| boxes),
        }
    }

    /// The first announced change that still means something.
    fn next_change(&self, input: &PoolInput<'_>) -> Option<NextChange> {
        let up = u32::try_from(input.staying().count()).unwrap_or(u32::MAX);
        let spare = up > self.kept(input);
        let matters = |next: &&NextChange| match next.reason.rule {
            // A hold has the word until it ends, and an idle box that is wanted stays.
            Rule::Schedule | Rule::Demand | Rule::Capacity => self.all_off.is_none(),
            Rule::Idle => self.all_off.is_none() && spare,
            _ => true,
        };
        let ahead = self.changes.iter().filter(|next| next.at > input.now).filter(matters);
        ahead.min_by_key(|next| next.at).cloned()
    }

    fn stop(&self, input: &PoolInput<'_>, boxes: &[SeenBox], answer: &mut Answer) {
        // P18: a box that is being taken back drains by itself; a stop of ours would leave it where nobody can start it.
        let leaving: BTreeSet<&BoxId> =
            boxes.iter().filter(|one| one.interruption.is_some()).map(|one| &one.id).collect();
        for (box_id, mode, reason) in &self.condemned {
            if *mode == StopMode::Force || !leaving.contains(box_id) {
                answer.stop(box_id, *mode, reason);
            }
        }
        let left: BTreeSet<&BoxId> =
            input.staying().map(|one| &one.id).filter(|id| !answer.stopping.contains(id)).collect();
        if let Some(reason) = &self.all_off {
            left.iter().for_each(|box_id| answer.stop(box_id, StopMode::Drain, reason));
            return;
        }
        let mut spare = left.len().saturating_sub(self.kept(input) as usize);
        // The dearer box goes first.
        let dear: BTreeSet<&BoxId> = input
            .staying()
            .filter(|one| capacity::is_preferred(input, one) == Some(false))
            .map(|one| &one.id)
            .collect();
        let (first, then): (Vec<_>, Vec<_>) =
            self.released.iter().partition(|(box_id, _)| dear.contains(box_id));
        for (box_id, reason) in first.into_iter().chain(then) {
            if spare > 0 && left.contains(box_id) && !answer.stopping.contains(box_id) {
                answer.stop(box_id, StopMode::Drain, reason);
                spare -= 1;
            }
        }
    }

    fn start(&self, input: &PoolInput<'_>, answer: &mut Answer) {
        let wishes = self.wishes(input, answer);
        if wishes.is_empty() {
            return;
        }
        if let Some(cause) = &self.no_starts {
            answer.blocked.push(cause.clone());
            return;
        }
        let takes_room =
            |one: &&SeenBox| one.state != BoxState::Stopped && one.interruption.is_none();
        let taken = input.boxes().iter().filter(takes_room).count();
        let mut room = (input.pool.boxes_max.get() as usize).saturating_sub(taken);
        let mut left = self.starts_left.unwrap_or(usize::MAX);
        let mut started: BTreeSet<&BoxId> = BTreeSet::new();
        for wish in wishes {
            let fits = |one: &&SeenBox| {
                !started.contains(&one.id)
                    && (wish.kind == Kind::Any || capacity::is_preferred(input, one) == Some(true))
            };
            let choice = capacity::startable(input, wish.patience).into_iter();
            let many = wish.boxes.min(room);
            let chosen: Vec<&SeenBox> = choice.filter(fits).take(many.min(left)).collect();
            chosen.iter().for_each(|one| answer.start(one, wish.reason));
            started.extend(chosen.iter().map(|one| &one.id));
            (room, left) = (room - chosen.len(), left - chosen.len());
            if left == 0 && chosen.len() < many {
                let most = input.pool.starts_per_hour_max;
                let text = format!("no more boxes at once: starts_per_hour_max is {most}");
                answer.blocked.push(Reason::new(Rule::Cooldown, text));
                return;
            }
            if chosen.len() < wish.boxes {
                answer.blocked.push(capacity::nothing_to_start(input, wish.patience, room));
                return;
            }
        }
    }

    /// The starts that are wanted and may be; what a refusal takes away is noted as blocked.
    fn wishes(&self, input: &PoolInput<'_>, answer: &mut Answer) -> Vec<Wish<'_>> {
        let up = input.staying().filter(|one| !answer.stopping.contains(&one.id)).count();
        let missing = |floor: Option<(u32, &Reason)>| {
            floor.map_or(0, |(boxes, _)| (boxes as usize).saturating_sub(up))
        };
        let most = self.floor(|_| true);
        let granted = self.floor(|wish| self.refusal(wish).is_none());
        if missing(granted) < missing(most) {
            answer.blocked.extend(most.and_then(|(_, wish)| self.refusal(wish)).cloned());
        }
        // Only demand can wait for a cheaper box: whoever holds or schedules one wants it now.
        let now = self.floor(|wish| wish.rule != Rule::Demand && self.refusal(wish).is_none());
        let at_once = missing(now).min(missing(granted));
        let wish = |boxes, reason, patience| Wish { boxes, reason, patience, kind: Kind::Any };
        let mut wishes = Vec::new();
        wishes.extend(now.map(|(_, reason)| wish(at_once, reason, None)));
        wishes.extend(
            granted.map(|(_, reason)| wish(missing(granted) - at_once, reason, self.patience)),
        );
        // Whoever starts boxes anyway needs no other one to take over.
        let extra = self.extra.as_ref().filter(|_| missing(granted) == 0);
        wishes.extend(extra.map(|reason| Wish {
            boxes: 1,
            reason,
            patience: None,
            kind: Kind::Preferred,
        }));
        wishes.retain(|wish| wish.boxes > 0);
        wishes
    }
}

/// Boxes that are wanted for one reason.
struct Wish<'a> {
    boxes: usize,
    reason: &'a Reason,
    patience: Option<Timestamp>,
    kind: Kind,
}

/// Which boxes will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Preferred,
}

/// What comes of the decisions.
#[derive(Default)]
struct Answer {
    actions: Vec<Action>,
    stopping: BTreeSet<BoxId>,
    starting: usize,
    blocked: Vec<Reason>,
}

impl Answer {
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
