//! What the rules of one pool have said, and what comes of it. Rules add to it; only `into_plan` weighs.

use std::collections::BTreeSet;

use super::{Case, capacity};
use crate::observation::{BoxState, SeenBox};
use crate::plan::{Action, Manner, NextChange, PoolPlan, Reason, Rule, Says, Verdict};
use crate::units::{BoxId, Timestamp};

/// What the rules have said so far.
#[derive(Default)]
pub(super) struct Opinion {
    verdicts: Vec<Verdict>,
    /// How many boxes rules ask for at least.
    floors: Vec<(u32, Reason)>,
    /// Rules whose wish gets no new box, with what stands against it.
    refused: Vec<(Rule, Reason)>,
    /// Until when only the preferred capacity type will do for demand's wish.
    pub(super) patience: Option<Timestamp>,
    /// One box more, of the preferred capacity type, whatever the floor.
    pub(super) extra: Option<Reason>,
    /// Boxes that still run and no longer count.
    pub(super) leaving: Vec<BoxId>,
    /// Every box is to stop, whatever the floor.
    pub(super) all_off: Option<Reason>,
    /// Boxes that may go, as long as the floor is kept.
    pub(super) released: Vec<(BoxId, Reason)>,
    /// Boxes that must go, whatever the floor.
    pub(super) condemned: Vec<(BoxId, Manner, Reason)>,
    /// No starts now, except those that a person asked for after the cause.
    pub(super) no_starts: Option<Reason>,
    /// Instants at which a rule will change its mind.
    changes: Vec<NextChange>,
}

impl Opinion {
    pub(super) fn says(&mut self, says: Says, rule: Rule, text: impl Into<String>) -> Reason {
        let reason = Reason::new(rule, text);
        self.verdicts.push(Verdict { says, reason: reason.clone() });
        reason
    }

    pub(super) fn pass(&mut self, rule: Rule, text: impl Into<String>) {
        self.says(Says::Pass, rule, text);
    }

    pub(super) fn at_least(&mut self, boxes: u32, rule: Rule, text: impl Into<String>) {
        let reason = self.says(Says::AtLeast(boxes), rule, text);
        self.floors.push((boxes, reason));
    }

    pub(super) fn refuse(&mut self, rule: Rule, refused: &[Rule], text: impl Into<String>) {
        let reason = self.says(Says::Forbid, rule, text);
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

    pub(super) fn into_plan(self, case: &Case<'_>) -> PoolPlan {
        let mut answer = Answer::default();
        let floor = match &self.all_off {
            Some(_) => 0,
            None => self.floor(|_| true).map_or(0, |(boxes, _)| boxes),
        };
        if let Some(boxes) = case.boxes {
            self.stop(boxes, floor, &mut answer);
            if self.all_off.is_none() {
                self.start(case, &mut answer);
            }
        } else {
            let seen = case.ago(case.seen.boxes.at);
            let text =
                format!("the boxes were last seen {seen} ago: nothing is started or stopped");
            answer.blocked.push(Reason::new(Rule::Limits, text));
        }
        let staying = case.up().filter(|one| !answer.stopping.contains(&one.id)).count();
        let changes = self.changes.into_iter().filter(|next| next.at > case.now);
        PoolPlan {
            pool: case.pool.id.clone(),
            boxes_wanted: floor.max(u32::try_from(staying).unwrap_or(u32::MAX)),
            verdicts: self.verdicts,
            actions: answer.actions,
            blocked: answer.blocked,
            next_change: changes.min_by_key(|next| next.at),
        }
    }

    fn stop(&self, boxes: &[SeenBox], floor: u32, answer: &mut Answer) {
        for (box_id, manner, reason) in &self.condemned {
            answer.stop(box_id, *manner, reason);
        }
        let up = boxes.iter().filter(|one| one.is_up());
        let left: BTreeSet<&BoxId> =
            up.map(|one| &one.id).filter(|id| !answer.stopping.contains(id)).collect();
        if let Some(reason) = &self.all_off {
            left.iter().for_each(|box_id| answer.stop(box_id, Manner::Drain, reason));
            return;
        }
        let mut spare = left.len().saturating_sub(floor as usize);
        for (box_id, reason) in &self.released {
            if spare > 0 && left.contains(box_id) && !answer.stopping.contains(box_id) {
                answer.stop(box_id, Manner::Drain, reason);
                spare -= 1;
            }
        }
    }

    fn start(&self, case: &Case<'_>, answer: &mut Answer) {
        let wishes = self.wishes(case, answer);
        if wishes.is_empty() {
            return;
        }
        if let Some(cause) = &self.no_starts {
            answer.blocked.push(cause.clone());
            return;
        }
        let takes_room =
            |one: &&SeenBox| one.state != BoxState::Stopped && !self.leaving.contains(&one.id);
        let taken = case.boxes().iter().filter(takes_room).count();
        let mut room = (case.pool.boxes_max.get() as usize).saturating_sub(taken);
        let mut started: BTreeSet<&BoxId> = BTreeSet::new();
        for wish in wishes {
            let choice = capacity::startable(case, wish.patience);
            let fresh = choice.into_iter().filter(|one| !started.contains(&one.id));
            let chosen: Vec<&SeenBox> = fresh.take(wish.boxes.min(room)).collect();
            for one in &chosen {
                answer.start(one, wish.reason);
            }
            started.extend(chosen.iter().map(|one| &one.id));
            room -= chosen.len();
            if chosen.len() < wish.boxes {
                answer.blocked.push(capacity::nothing_to_start(case, wish.patience));
                return;
            }
        }
    }

    /// The starts that are wanted and may be; what a refusal takes away is noted as blocked.
    fn wishes(&self, case: &Case<'_>, answer: &mut Answer) -> Vec<Wish<'_>> {
        let counts =
            |one: &&SeenBox| !answer.stopping.contains(&one.id) && !self.leaving.contains(&one.id);
        let up = case.up().filter(counts).count();
        let missing = |floor: Option<(u32, &Reason)>| {
            floor.map_or(0, |(boxes, _)| (boxes as usize).saturating_sub(up))
        };
        let most = self.floor(|_| true);
        let granted = self.floor(|wish| self.refusal(wish).is_none());
        if missing(granted) < missing(most) {
            answer.blocked.extend(most.and_then(|(_, wish)| self.refusal(wish)).cloned());
        }
        let of_floor = granted.map(|(_, reason)| {
            // Only demand can wait for a cheaper box: whoever holds or schedules a box wants it now.
            let patience = self.patience.filter(|_| reason.rule == Rule::Demand);
            Wish { boxes: missing(granted), reason, patience }
        });
        let extra = self.extra.iter().map(|reason| Wish { boxes: 1, reason, patience: None });
        of_floor.into_iter().filter(|wish| wish.boxes > 0).chain(extra).collect()
    }
}

/// Boxes that are wanted for one reason.
struct Wish<'a> {
    boxes: usize,
    reason: &'a Reason,
    patience: Option<Timestamp>,
}

/// What comes of the opinions.
#[derive(Default)]
struct Answer {
    actions: Vec<Action>,
    stopping: BTreeSet<BoxId>,
    blocked: Vec<Reason>,
}

impl Answer {
    fn stop(&mut self, box_id: &BoxId, manner: Manner, reason: &Reason) {
        self.stopping.insert(box_id.clone());
        let (box_id, reason) = (box_id.clone(), reason.clone());
        self.actions.push(Action::Stop { box_id, manner, reason });
    }

    fn start(&mut self, one: &SeenBox, reason: &Reason) {
        let mut reason = reason.clone();
        if let Some(offering) = &one.offering {
            reason.text = format!("{}; takes {offering}", reason.text);
        }
        self.actions.push(Action::Start { box_id: one.id.clone(), reason });
    }
}
