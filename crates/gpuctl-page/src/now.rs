//! The first screen: what is on, why, until when, and what it costs.

use chrono::TimeDelta;
use gpuctl_control::overview::Overview;
use gpuctl_control::ports::Totals;
use gpuctl_control::snapshot::Snapshot;
use gpuctl_control::spending::Spending;
use gpuctl_core::cost::hour_price;
use gpuctl_core::observation::{BoxState, HoldWants, SeenBox, SeenPool, SeenQueue};
use gpuctl_core::plan::PoolPlan;
use gpuctl_core::policy::{Policy, Pool};
use gpuctl_core::sentence::{busiest, sentence};
use gpuctl_core::units::{MicroUsd, nearest_rank};

use crate::words::{Clock, capital, count, money, span};

/// The first screen.
pub(crate) struct Now {
    /// The name of the pool that the headline is about.
    pub(crate) about: String,
    /// The beginning of its sentence: state, since when, and why.
    pub(crate) headline: String,
    /// The rest of it: what it costs, and what comes next.
    pub(crate) lead: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) pools: Vec<PoolView>,
    /// What keeps the page from being true.
    pub(crate) warnings: Vec<String>,
}

/// A figure, with what it is and what belongs to it.
pub(crate) struct Figure {
    pub(crate) label: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
}

/// A pool.
pub(crate) struct PoolView {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    /// Empty where the headline says it.
    pub(crate) sentence: String,
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) boxes: Vec<BoxView>,
    pub(crate) is_held: bool,
}

/// A box.
pub(crate) struct BoxView {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) detail: String,
}

impl Now {
    pub(crate) fn of(
        policy: &Policy,
        snapshot: &Snapshot,
        overview: &Overview,
        clock: Clock,
    ) -> Self {
        let known: Vec<(&Pool, &SeenPool, &PoolPlan)> = policy
            .pools
            .iter()
            .filter_map(|pool| snapshot.pool(&pool.id).map(|(seen, plan)| (pool, seen, plan)))
            .collect();
        let first = known.iter().min_by_key(|(_, seen, _)| rank(state(seen)));
        let whole = first.map_or_else(
            || "unknown: no pool could be read".to_owned(),
            |(_, seen, plan)| sentence(seen, plan, &policy.cost, clock.now),
        );
        let (headline, lead) = whole.split_once("; ").unwrap_or((&whole, ""));
        let about = first.map_or_else(String::new, |(pool, ..)| pool.id.to_string());
        let view = |(pool, seen, plan): &(&Pool, &SeenPool, &PoolPlan)| {
            let mut view = PoolView::of(pool, seen, plan, clock);
            if view.name != about {
                view.sentence = capital(&sentence(seen, plan, &policy.cost, clock.now));
            }
            view
        };
        Self {
            headline: capital(headline),
            lead: lead.split("; ").map(capital).collect::<Vec<_>>().join(" · "),
            figures: figures(policy, &known, overview, clock),
            pools: known.iter().map(view).collect(),
            warnings: warnings(policy, snapshot, overview, clock),
            about,
        }
    }

    /// The state of the pool that the headline is about.
    pub(crate) fn state(&self) -> &'static str {
        let about = self.pools.iter().find(|pool| pool.name == self.about);
        about.map_or("unknown", |pool| pool.state)
    }
}

fn state(seen: &SeenPool) -> &'static str {
    seen.boxes.value.as_deref().map_or("unknown", |boxes| busiest(boxes).as_str())
}

/// The order in which pools are told of: first those that cost.
fn rank(state: &str) -> usize {
    let order = ["running", "pending", "stopping", "unknown"];
    order.iter().position(|one| *one == state).unwrap_or(order.len())
}

fn warnings(
    policy: &Policy,
    snapshot: &Snapshot,
    overview: &Overview,
    clock: Clock,
) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    let late = policy.cloud.tick * 2 + TimeDelta::minutes(1);
    if let Some(at) = overview.looked_at.filter(|at| clock.now - *at > late) {
        let ago = clock.since(at);
        warnings.push(format!(
            "No controller has looked for {ago}, so nothing starts or stops: see the log of `gpuctl serve`."
        ));
    }
    for error in snapshot.errors.iter().chain(&overview.errors) {
        let warning = format!("Not read: {error}");
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

impl PoolView {
    fn of(pool: &Pool, seen: &SeenPool, plan: &PoolPlan, clock: Clock) -> Self {
        let boxes = seen.boxes.value.as_deref().unwrap_or_default();
        let hold = seen.hold.as_ref().filter(|hold| hold.until > clock.now);
        let mut facts = vec![("Until", until(seen, plan, clock))];
        if let Some(hold) = hold {
            let wants = match hold.wants {
                HoldWants::Running => "running",
                HoldWants::Stopped => "stopped",
            };
            let (end, by) = (clock.time(hold.until).text, &hold.by);
            let why = hold.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            facts.push(("Hold", format!("{wants} until {end}, by {by}{why}")));
        }
        facts.extend(plan.blocked.iter().map(|reason| ("Blocked", reason.text.clone())));
        if let Some(queue) = seen.queue.as_ref().and_then(|queue| queue.value.as_ref()) {
            facts.push(("Queue", counts(queue, clock)));
        }
        if let Some(queue) = pool.queue() {
            facts.push(("Jobs wait", format!("at most {}", span(queue.max_wait))));
        }
        Self {
            name: pool.id.to_string(),
            state: state(seen),
            sentence: String::new(),
            facts,
            boxes: boxes.iter().map(|one| BoxView::of(one, plan, clock)).collect(),
            is_held: hold.is_some(),
        }
    }
}

/// When the plan changes next by itself, and why.
fn until(seen: &SeenPool, plan: &PoolPlan, clock: Clock) -> String {
    if let Some(next) = &plan.next_change {
        let (at, ahead) = (clock.time(next.at).text, span(next.at - clock.now));
        return format!("{at}, in {ahead}: {}", next.reason.text);
    }
    let is_up = seen.boxes.value.iter().flatten().any(SeenBox::is_up);
    match (is_up, &seen.queue) {
        (true, _) => "open: no stop is planned while it has work".to_owned(),
        (false, Some(_)) => "a job waits: no start is planned".to_owned(),
        (false, None) => "someone starts it: no start is planned".to_owned(),
    }
}

fn counts(queue: &SeenQueue, clock: Clock) -> String {
    let oldest = queue.oldest_sent_at.map(|sent| format!(", the oldest for {}", clock.since(sent)));
    let (visible, in_flight) = (queue.visible, queue.in_flight);
    let later = match queue.delayed {
        0 => String::new(),
        delayed => format!(", {delayed} due later"),
    };
    format!("{visible} waiting{}, {in_flight} in work{later}", oldest.unwrap_or_default())
}

impl BoxView {
    fn of(one: &SeenBox, plan: &PoolPlan, clock: Clock) -> Self {
        let is_known = one.since > gpuctl_core::units::Timestamp::UNIX_EPOCH && !one.since_is_bound;
        let mut parts = vec![match is_known {
            true => format!("for {}", clock.since(one.since)),
            false if one.state == BoxState::Stopped => "never ran".to_owned(),
            false => "since an unknown time".to_owned(),
        }];
        if let Some(offering) = &one.offering {
            parts.push(format!("{} {}", offering.capacity.as_str(), offering.instance_type));
        }
        if let Some(worker) = one.worker.as_ref().filter(|_| one.is_up()) {
            parts.push(match worker.leases {
                0 => "idle".to_owned(),
                jobs => format!("works on {}", count(jobs.into(), "job")),
            });
        }
        parts.extend(one.fault_text().filter(|_| one.is_up()));
        let kept = plan.kept.iter().find(|kept| kept.box_id == one.id);
        parts.extend(kept.map(|kept| kept.text.clone()));
        Self { name: one.id.to_string(), state: one.state.as_str(), detail: parts.join(", ") }
    }
}

fn figures(
    policy: &Policy,
    known: &[(&Pool, &SeenPool, &PoolPlan)],
    overview: &Overview,
    clock: Clock,
) -> Vec<Figure> {
    let spending = overview.spending.as_deref();
    let sum = |amount: fn(&Spending) -> MicroUsd| {
        spending.map(|pools| pools.iter().map(amount).sum::<MicroUsd>())
    };
    let budgets: Vec<MicroUsd> =
        spending.into_iter().flatten().filter_map(|one| one.budget).collect();
    let of_budget = match budgets.len() {
        0 => String::new(),
        _ => format!("of {}, ", money(budgets.into_iter().sum())),
    };
    let ahead = |all: MicroUsd| format!("{of_budget}about {} by its end; ", money(all));
    let ahead = sum(|one| one.forecast).map(ahead).unwrap_or_default();
    let has_price = spending.is_none_or(|pools| !pools.is_empty());
    let (today, month) = (overview.today.as_ref(), overview.month.as_ref());
    vec![
        per_hour(policy, known),
        waiting(known, today, clock),
        spent("Today (UTC)", has_price, sum(|one| one.today), today, ""),
        spent("This month", has_price, sum(|one| one.month), month, &ahead),
    ]
}

const NO_PRICE: &str = "no price is known: set `usd_hour` under [cost]";

fn per_hour(policy: &Policy, known: &[(&Pool, &SeenPool, &PoolPlan)]) -> Figure {
    let boxes = known.iter().flat_map(|(_, seen, _)| seen.boxes.value.iter().flatten());
    let prices: Vec<Option<MicroUsd>> = boxes
        .filter(|one| one.is_up())
        .map(|one| match &one.offering {
            Some(offering) => hour_price(&policy.cost, offering).at_most(),
            None => policy.cost.usd_hour,
        })
        .collect();
    let priced: Vec<MicroUsd> = prices.iter().copied().flatten().collect();
    let on = match prices.len() {
        0 => "no box is on".to_owned(),
        boxes => format!("{} on", count(boxes as u64, "box")),
    };
    let is_known = priced.len() == prices.len();
    let note = if is_known { on } else { format!("{on}; {NO_PRICE}") };
    let are_read = known.iter().all(|(_, seen, _)| seen.boxes.value.is_some());
    let value = match (are_read, is_known) {
        (false, _) => "unknown".to_owned(),
        (true, false) if priced.is_empty() => "no price".to_owned(),
        (true, false) => format!("at least {} / h", money(priced.into_iter().sum())),
        (true, true) => format!("{} / h", money(priced.into_iter().sum())),
    };
    Figure { label: "Now", value, note }
}

fn waiting(
    known: &[(&Pool, &SeenPool, &PoolPlan)],
    today: Option<&Totals>,
    clock: Clock,
) -> Figure {
    let queues = known.iter().filter_map(|(_, seen, _)| seen.queue.as_ref());
    let seen: Vec<Option<&SeenQueue>> = queues.map(|queue| queue.value.as_ref()).collect();
    let read: Vec<&SeenQueue> = seen.iter().copied().flatten().collect();
    let waiting: u64 = read.iter().map(|queue| queue.visible + queue.delayed).sum();
    let (running, dead): (u64, u64) =
        read.iter().fold((0, 0), |(a, b), queue| (a + queue.in_flight, b + queue.dead));
    let mut notes = vec![format!("{running} in work")];
    if dead > 0 {
        notes.push(format!("{dead} dead"));
    }
    if let Some(oldest) = read.iter().filter_map(|queue| queue.oldest_sent_at).min() {
        notes.push(format!("the oldest for {}", clock.since(oldest)));
    } else if let Some(wait) = today.and_then(|today| nearest_rank(&today.waits, 95)) {
        notes.push(format!("95 % were received within {} today", span(wait)));
    }
    let value = if read.len() == seen.len() { waiting.to_string() } else { "unknown".to_owned() };
    Figure { label: "Waiting jobs", value, note: notes.join(", ") }
}

fn spent(
    label: &'static str,
    has_price: bool,
    amount: Option<MicroUsd>,
    totals: Option<&Totals>,
    note: &str,
) -> Figure {
    let seconds = |totals: &Totals| totals.runs.iter().map(|total| total.box_seconds).sum();
    let up = totals.map(|totals| span(TimeDelta::seconds(seconds(totals))));
    let starts = |totals: &Totals| totals.runs.iter().map(|total| u64::from(total.starts)).sum();
    let starts = totals.map(|totals| count(starts(totals), "start")).unwrap_or_default();
    let unread = || "unknown".to_owned();
    if !has_price {
        let note = format!("on, in {starts}; {NO_PRICE}");
        return Figure { label, value: up.unwrap_or_else(unread), note };
    }
    let on = up.map(|up| format!("{up} on in {starts}")).unwrap_or_default();
    Figure { label, value: amount.map_or_else(unread, money), note: format!("{note}{on}") }
}
