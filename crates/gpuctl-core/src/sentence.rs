//! One sentence on a pool: its state, since when and why, what an hour of it costs, and what comes next.

use chrono::TimeDelta;

use crate::cost::{CostSettings, HourPrice, hour_price};
use crate::observation::{BoxState, Run, SeenBox, SeenPool, boot_estimate};
use crate::plan::{Action, Effect, PoolPlan, Rule, StopMode, Verdict};
use crate::policy::Pool;
use crate::units::{BoxId, MicroUsd, Timestamp, show_age, show_time_left};

/// The sentence, e.g. `running for 12m: 3 jobs wait; $0.5260 an hour; in 48m: …`. It begins with the state of the busiest boxes.
#[must_use]
pub fn sentence(seen: &SeenPool, plan: &PoolPlan, cost: &CostSettings, now: Timestamp) -> String {
    let Some(boxes) = &seen.boxes.value else {
        return "unknown: its boxes or its ledger could not be read".to_owned();
    };
    let told = Told { seen, plan, boxes, now };
    let mut parts = vec![told.state_and_why()];
    for more in told.more() {
        if !parts.iter().any(|part| part.contains(&more)) {
            parts.push(more);
        }
    }
    parts.extend(told.faults(&parts.join("; ")));
    parts.extend(hour(boxes, cost));
    if let Some(next) = &plan.next_change {
        parts.push(format!("in {}: {}", show_time_left(next.at - now), next.reason.text));
    }
    parts.join("; ")
}

/// What the jobs of a pool wait for, e.g. `gpu-1 boots, about 40s`.
#[must_use]
pub fn waits_for(pool: &Pool, seen: &SeenPool, plan: &PoolPlan, now: Timestamp) -> String {
    let boot = boot_estimate(&seen.runs, pool);
    let boxes = seen.boxes.value.as_deref().unwrap_or_default();
    let is = |state| move |one: &&SeenBox| one.state == state && one.fault().is_none();
    if let Some(one) = boxes.iter().find(is(BoxState::Running)) {
        return format!("{} is up", one.id);
    }
    let booting = boxes.iter().filter(is(BoxState::Pending));
    let booting = booting.map(|one| (&one.id, one.since)).next();
    let starts = |action: &&Action| matches!(action, Action::Start { .. });
    let starting = plan.actions.iter().find(starts).map(|action| (action.box_id(), now));
    if let Some((id, since)) = booting.or(starting) {
        let took = now - since;
        return if took < boot {
            format!("{id} boots, about {}", show_time_left(boot - took))
        } else {
            format!("{id} boots, longer than usual: {}", show_age(took))
        };
    }
    let fault = boxes.iter().filter(|one| one.is_up()).find_map(SeenBox::fault_text);
    let told = Told { seen, plan, boxes, now };
    let blocked = plan.blocked.first().map(|reason| reason.text.clone());
    blocked.or(fault).or_else(|| told.why_down()).unwrap_or_else(|| "a box".to_owned())
}

/// The state of the busiest of some boxes: of those that cost, else of those that end.
#[must_use]
pub fn busiest(boxes: &[SeenBox]) -> BoxState {
    [BoxState::Running, BoxState::Pending, BoxState::Stopping]
        .into_iter()
        .find(|state| boxes.iter().any(|one| one.state == *state))
        .unwrap_or(BoxState::Stopped)
}

/// What the sentence is about.
struct Told<'a> {
    seen: &'a SeenPool,
    plan: &'a PoolPlan,
    boxes: &'a [SeenBox],
    now: Timestamp,
}

impl<'a> Told<'a> {
    fn state_and_why(&self) -> String {
        let (state, due) = (self.state(), self.due());
        match (busiest(self.boxes), due) {
            (BoxState::Running | BoxState::Pending, Some(why)) => {
                format!("{state}, a stop is due: {why}")
            }
            (BoxState::Running | BoxState::Pending, None) => with_why(state, self.why_up()),
            (BoxState::Stopping, _) => with_why(state, Some(self.why_stopping())),
            (BoxState::Stopped, Some(why)) => format!("{state}, a start is due: {why}"),
            (BoxState::Stopped, None) => with_why(state, self.why_down()),
        }
    }

    /// The state, of how many boxes, and for how long if that is known. Of boxes that are down, some may never have existed: they have no
    /// number.
    fn state(&self) -> String {
        let groups: Vec<Vec<&SeenBox>> = [BoxState::Running, BoxState::Pending, BoxState::Stopping]
            .map(|state| self.boxes.iter().filter(|one| one.state == state).collect())
            .into_iter()
            .filter(|alike: &Vec<_>| !alike.is_empty())
            .collect();
        match groups.as_slice() {
            [] => format!("stopped{}", self.lasting(self.down_since())),
            [alike] if alike.len() == 1 => self.group(alike, ""),
            [first, rest @ ..] => {
                let boxes = if first.len() == 1 { " box" } else { " boxes" };
                let first = self.group(first, &format!("{}{boxes} ", first.len()));
                let rest = rest.iter().map(|alike| self.group(alike, &format!("{} ", alike.len())));
                [first].into_iter().chain(rest).collect::<Vec<_>>().join(", and ")
            }
        }
    }

    /// Boxes of one state, which have been in it for at most as long as the first of them.
    fn group(&self, alike: &[&SeenBox], many: &str) -> String {
        let is_known =
            alike.iter().all(|one| one.since > Timestamp::UNIX_EPOCH && !one.since_is_bound);
        let since = alike.iter().map(|one| one.since).min().filter(|_| is_known);
        let first = if alike.len() > 1 && is_known { ", the first" } else { "" };
        let state = alike.first().map_or("", |one| one.state.as_str());
        format!("{many}{state}{first}{}", self.lasting(since))
    }

    fn lasting(&self, since: Option<Timestamp>) -> String {
        since.map(|since| format!(" for {}", show_age(self.now - since))).unwrap_or_default()
    }

    /// Since when no box has been up: since the last of them stopped. EC2 forgets a box that was terminated; its run is still known.
    fn down_since(&self) -> Option<Timestamp> {
        if self.boxes.iter().any(|one| one.since_is_bound) {
            return None;
        }
        let known = self.boxes.iter().map(|one| one.since);
        let last = known.filter(|since| *since > Timestamp::UNIX_EPOCH).max();
        let was_up = |run: &&Run| run.refusal.is_none() && run.lasted(self.now) > TimeDelta::zero();
        let runs = self.seen.runs.iter().filter(was_up);
        last.or_else(|| runs.filter_map(|run| run.stopped_at).max())
    }

    /// Why all boxes that are up are about to stop, or why the first of a pool that is down is about to start: what the next reconcile does.
    fn due(&self) -> Option<&'a str> {
        let up: Vec<&BoxId> =
            self.boxes.iter().filter(|one| one.is_up()).map(|one| &one.id).collect();
        let stops = |id: &BoxId| self.stops().any(|action| action.box_id() == id);
        let first = if up.is_empty() {
            self.starts().next()
        } else {
            self.stops().next().filter(|_| up.iter().all(|id| stops(id)))
        };
        first.map(|action| action.reason().text.as_str())
    }

    /// The starts that were not carried out yet.
    fn starts(&self) -> impl Iterator<Item = &'a Action> {
        let is_start = |action: &&Action| matches!(action, Action::Start { .. });
        let down = |action: &&Action| self.state_of(action.box_id()) == Some(BoxState::Stopped);
        self.plan.actions.iter().filter(is_start).filter(down)
    }

    /// The stops of boxes that are up and were not carried out yet.
    fn stops(&self) -> impl Iterator<Item = &'a Action> {
        let is_stop = |action: &&Action| matches!(action, Action::Stop { .. });
        let up = |action: &&Action| self.find(action.box_id()).is_some_and(SeenBox::is_up);
        self.plan.actions.iter().filter(is_stop).filter(up)
    }

    fn find(&self, id: &BoxId) -> Option<&'a SeenBox> {
        self.boxes.iter().find(|one| one.id == *id)
    }

    fn state_of(&self, id: &BoxId) -> Option<BoxState> {
        Some(self.find(id)?.state)
    }

    /// What keeps a pool up.
    fn why_up(&self) -> Option<String> {
        let kept = || self.kept().next().map(str::to_owned);
        let interrupted = || self.text(Rule::Interruption, Effect::Keep);
        if let Some(stop) = self.stop_all() {
            return kept().or_else(interrupted).or(Some(stop));
        }
        let would_stop = |verdict: &Verdict| {
            verdict.effect == Effect::Stop
                && matches!(verdict.reason.rule, Rule::Schedule | Rule::Idle)
        };
        let kept = || kept().filter(|_| self.plan.verdicts.iter().any(would_stop));
        self.wanted()
            .or_else(kept)
            .or_else(|| self.keep())
            .or_else(interrupted)
            .or_else(|| self.started())
            .or_else(|| self.nothing())
    }

    /// Why boxes stay as they are, also where one of several does not. What is said of one box only is said elsewhere.
    fn keep(&self) -> Option<String> {
        let of_pool = |verdict: &&Verdict| match verdict.effect {
            Effect::Keep => !matches!(verdict.reason.rule, Rule::Interruption | Rule::Limits),
            Effect::Stop => verdict.reason.rule == Rule::Idle,
            _ => false,
        };
        let verdict = self.plan.verdicts.iter().find(of_pool);
        verdict.map(|verdict| verdict.reason.text.clone())
    }

    /// What stopped the boxes that are stopping.
    fn why_stopping(&self) -> String {
        let mut whys: Vec<String> = Vec::new();
        for one in self.boxes.iter().filter(|one| one.state == BoxState::Stopping) {
            let why = self.why_stops(one);
            if !whys.contains(&why) {
                whys.push(why);
            }
        }
        whys.join("; ")
    }

    /// What stopped a box: an order, which its run has, else EC2 or someone outside gpuctl, else what its worker ended with.
    fn why_stops(&self, one: &SeenBox) -> String {
        let run = self.open_run(one);
        let interrupted = one.interruption.or(run.and_then(|run| run.interrupted_at));
        if let Some(stop) = run.and_then(|run| run.stop.as_ref()) {
            stop.text.clone()
        } else if interrupted.is_some() {
            "EC2 interrupts it".to_owned()
        } else if let Some(stop) = self.stop_all() {
            stop
        } else if let Some(error) = run.and_then(|run| run.error.as_ref()) {
            format!("its worker ended: {error}")
        } else {
            "by itself".to_owned()
        }
    }

    /// Why a pool is down: what forbids the start that is wanted, or why none is.
    fn why_down(&self) -> Option<String> {
        self.blocked()
            .or_else(|| self.stop_all())
            .or_else(|| self.wanted())
            .or_else(|| self.nothing())
    }

    /// What else is to be known, most of it of some boxes among several.
    fn more(&self) -> Vec<String> {
        let is_up = self.boxes.iter().any(SeenBox::is_up);
        let mut more: Vec<String> = Vec::new();
        if is_up {
            let stopping = self.boxes.iter().filter(|one| one.state == BoxState::Stopping);
            more.extend(stopping.map(|one| format!("{} stops: {}", one.id, self.why_stops(one))));
            let some = self.stops().filter(|_| self.due().is_none());
            more.extend(some.map(|action| due("stop", action)));
        }
        if busiest(self.boxes) != BoxState::Stopped {
            more.extend(self.starts().map(|action| due("start", action)));
            let blocked = self.plan.blocked.first();
            more.extend(blocked.map(|reason| format!("no other box starts: {}", reason.text)));
        }
        more.extend(self.forced());
        more.extend(self.kept().map(str::to_owned));
        let of_boxes = [Rule::Interruption, Rule::Limits].map(|rule| self.text(rule, Effect::Keep));
        more.extend(of_boxes.into_iter().flatten().filter(|_| is_up));
        more
    }

    /// Why boxes that are up take no jobs, if the rest does not say so.
    fn faults(&self, rest: &str) -> Vec<String> {
        let up = self.boxes.iter().filter(|one| one.is_up());
        let untold =
            up.filter(|one| one.fault().is_some_and(|fault| !rest.contains(&fault.message)));
        untold.filter_map(SeenBox::fault_text).collect()
    }

    /// That boxes take too long to stop.
    fn forced(&self) -> impl Iterator<Item = String> {
        let forced = |action: &'a Action| match action {
            Action::Stop { mode: StopMode::Force, box_id, reason } => {
                Some(format!("{box_id} is {}", reason.text))
            }
            _ => None,
        };
        self.plan.actions.iter().filter_map(forced)
    }

    /// What stops every box, whatever else is wanted: a user's hold, or a stop outside gpuctl.
    fn stop_all(&self) -> Option<String> {
        self.text(Rule::Hold, Effect::Stop)
    }

    /// What asks for the most boxes; of equal ones the first.
    fn wanted(&self) -> Option<String> {
        let floor = |verdict: &'a Verdict| match verdict.effect {
            Effect::AtLeast(boxes) if boxes > 0 => Some((boxes, verdict)),
            _ => None,
        };
        let floors = self.plan.verdicts.iter().rev().filter_map(floor);
        let most = floors.max_by_key(|(boxes, _)| *boxes);
        most.map(|(_, verdict)| verdict.reason.text.clone())
    }

    /// What forbids a start that is wanted.
    fn blocked(&self) -> Option<String> {
        let blocked = &self.plan.blocked.first()?.text;
        let although = self.wanted().map(|wanted| format!(" although {wanted}"));
        Some(format!("{blocked}{}", although.unwrap_or_default()))
    }

    /// The boxes that a file on them keeps up.
    fn kept(&self) -> impl Iterator<Item = &'a str> {
        self.plan.kept.iter().filter(|kept| kept.by_file).map(|kept| kept.text.as_str())
    }

    /// Why a box that is up was started.
    fn started(&self) -> Option<String> {
        let one = self.boxes.iter().find(|one| one.is_up())?;
        let start = &self.open_run(one)?.start;
        Some(format!("started by {}: {}", start.rule.as_str(), start.text))
    }

    /// Why no box is wanted: what the queue says, or the schedule where there is none.
    fn nothing(&self) -> Option<String> {
        let rule = if self.seen.queue.is_some() { Rule::Demand } else { Rule::Schedule };
        let verdict = self.plan.verdicts.iter().find(|verdict| verdict.reason.rule == rule);
        verdict.map(|verdict| verdict.reason.text.clone())
    }

    fn text(&self, rule: Rule, effect: Effect) -> Option<String> {
        let is = |verdict: &&Verdict| verdict.reason.rule == rule && verdict.effect == effect;
        self.plan.verdicts.iter().find(is).map(|verdict| verdict.reason.text.clone())
    }

    /// The run of a box that is not down.
    fn open_run(&self, one: &SeenBox) -> Option<&'a Run> {
        let latest =
            self.seen.runs.iter().find(|run| run.box_id == one.id && run.refusal.is_none());
        latest.filter(|run| run.stopped_at.is_none())
    }
}

fn due(what: &str, action: &Action) -> String {
    format!("a {what} of {} is due: {}", action.box_id(), action.reason().text)
}

fn with_why(state: String, why: Option<String>) -> String {
    state + &why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// What an hour of the boxes that are up costs, if they are EC2's. A price that is not known is not made up: the figure is then a bound, and
/// says of which boxes it is.
fn hour(boxes: &[SeenBox], cost: &CostSettings) -> Option<String> {
    let up = boxes.iter().filter(|one| one.is_up());
    let prices: Vec<(&str, HourPrice)> = up
        .filter_map(|one| Some((one.id.as_str(), hour_price(cost, one.offering.as_ref()?))))
        .collect();
    let unknown = prices.iter().filter(|(_, price)| price.known().is_none());
    let ids = unknown.map(|(id, _)| *id).collect::<Vec<_>>().join(" and ");
    let exact: Vec<MicroUsd> = prices.iter().filter_map(|(_, price)| price.known()).collect();
    let sum: MicroUsd = exact.iter().copied().sum();
    if prices.is_empty() {
        None
    } else if exact.len() == prices.len() {
        Some(format!("{sum} an hour"))
    } else if prices.iter().all(|(_, price)| price.at_most().is_some()) {
        let most: MicroUsd = prices.iter().filter_map(|(_, price)| price.at_most()).sum();
        Some(format!("at most {most} an hour, the spot price of {ids} is not known"))
    } else {
        let least =
            if exact.is_empty() { String::new() } else { format!("at least {sum} an hour, ") };
        Some(format!("{least}the price of {ids} is not known"))
    }
}
