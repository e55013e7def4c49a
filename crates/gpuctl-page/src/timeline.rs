//! When boxes were on, and how many jobs waited meanwhile: both on one axis, as shapes whose coordinates are whole numbers.

use std::collections::BTreeMap;

use gpuctl_control::overview::{Overview, SPANS_MAX};
use gpuctl_control::ports::JobSpan;
use gpuctl_core::cost::spent_since;
use gpuctl_core::observation::Run;
use gpuctl_core::policy::Policy;
use gpuctl_core::schedule::Desired;
use gpuctl_core::units::{PoolId, Timestamp};

use crate::query::{Query, Window};
use crate::words::{Clock, Time, count, money, span};

/// The width of the axis in its own units, of which several are a pixel.
pub(crate) const WIDTH: i64 = 4_000;

/// The height of the queue's line in its own units.
const HEIGHT: u64 = 100;

/// Shapes closer than this are one: at most a thousand of each kind fit into a lane.
const APART_MIN: i64 = 4;

/// The most boxes that have a lane.
const LANES_MAX: usize = 16;

/// The most stretches of a schedule in a lane.
const STRETCHES_MAX: usize = 200;

/// Runs in the table, and those of them that are seen without opening it.
const ROWS_MAX: usize = 40;
const ROWS_SEEN: usize = 4;

/// Lanes over the queue.
pub(crate) struct Timeline {
    /// Name, address, and whether it is the one that is shown.
    pub(crate) windows: Vec<(&'static str, String, bool)>,
    pub(crate) words: &'static str,
    pub(crate) ticks: Vec<String>,
    /// Where the present is.
    pub(crate) now: i64,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) queue: Option<QueueLine>,
    pub(crate) rows: Vec<RunRow>,
    pub(crate) more: Vec<RunRow>,
    /// What the figure leaves out.
    pub(crate) notes: Vec<String>,
}

/// A box.
pub(crate) struct Lane {
    pub(crate) name: String,
    /// In the order in which they are drawn.
    pub(crate) bars: Vec<Bar>,
}

/// A shape on a lane.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) class: &'static str,
    pub(crate) x: i64,
    pub(crate) width: i64,
    pub(crate) title: String,
}

/// How many jobs waited.
pub(crate) struct QueueLine {
    pub(crate) path: String,
    pub(crate) most: u64,
}

/// A run in the table.
pub(crate) struct RunRow {
    pub(crate) r#box: String,
    pub(crate) started: Time,
    pub(crate) start: String,
    pub(crate) end: Option<Time>,
    pub(crate) stop: String,
    pub(crate) lasted: String,
    pub(crate) jobs: String,
    pub(crate) cost: String,
}

/// The axis: what is shown of time, in whole units of it.
#[derive(Clone, Copy)]
struct Axis {
    begin: Timestamp,
    end: Timestamp,
}

impl Axis {
    /// Of a day it ends with the hour, of longer ones with the local day.
    fn of(window: Window, clock: Clock) -> Self {
        let end = match window {
            Window::Day => {
                let seconds = 3_600 - clock.now.timestamp().rem_euclid(3_600);
                let whole = Timestamp::from_timestamp(clock.now.timestamp() + seconds, 0);
                whole.unwrap_or(clock.now)
            }
            Window::Week | Window::Month => clock.midnight(),
        };
        Self { begin: end - window.lasts(), end }
    }

    fn x(self, at: Timestamp) -> i64 {
        let whole = (self.end - self.begin).num_milliseconds().max(1);
        let part = (at - self.begin).num_milliseconds().clamp(0, whole);
        part * WIDTH / whole
    }

    /// The part of a stretch that is shown.
    fn bar(self, class: &'static str, from: Timestamp, to: Timestamp, title: &str) -> Option<Bar> {
        if to < self.begin || from > self.end || to < from {
            return None;
        }
        let x = self.x(from);
        let width = (self.x(to) - x).max(1);
        Some(Bar { class, x, width, title: title.to_owned() })
    }

    fn ticks(self, window: Window, clock: Clock) -> Vec<String> {
        let (count, form) = match window {
            Window::Day => (8, "%H:%M"),
            Window::Week => (7, "%a %-d"),
            Window::Month => (6, "%-d %b"),
        };
        let step = (self.end - self.begin) / count;
        (0..count).map(|tick| clock.shown(self.begin + step * tick, form)).collect()
    }
}

impl Timeline {
    pub(crate) fn of(policy: &Policy, overview: &Overview, query: &Query, clock: Clock) -> Self {
        let window = query.window();
        let axis = Axis::of(window, clock);
        let runs: Vec<&Run> = overview
            .runs
            .iter()
            .flatten()
            .filter(|run| run.stopped_at.is_none_or(|stopped| stopped >= axis.begin))
            .collect();
        let spans = overview.spans.as_deref().unwrap_or_default();
        let mut notes = Vec::new();
        if spans.len() >= SPANS_MAX as usize {
            notes.push(format!("Waits and work are those of the newest {SPANS_MAX} jobs."));
        }
        let mut lanes = lanes(policy, axis, &runs, spans, clock);
        if lanes.len() > LANES_MAX {
            notes.push(format!("{} more boxes are only in the table.", lanes.len() - LANES_MAX));
            lanes.truncate(LANES_MAX);
        }
        let mut newest = runs.clone();
        newest.sort_by_key(|run| std::cmp::Reverse(run.started_at));
        if newest.len() > ROWS_MAX {
            notes.push(format!("The table has the newest {ROWS_MAX} of {} runs.", newest.len()));
        }
        let mut rows: Vec<RunRow> =
            newest.iter().take(ROWS_MAX).map(|run| row(policy, run, clock)).collect();
        let more = rows.split_off(rows.len().min(ROWS_SEEN));
        let link = |one: Window| (one.words(), query.with_window(one).link(), one == window);
        Self {
            windows: Window::ALL.into_iter().map(link).collect(),
            words: window.words(),
            ticks: axis.ticks(window, clock),
            now: axis.x(clock.now),
            queue: overview.spans.as_ref().map(|spans| queue(axis, spans, clock.now)),
            lanes,
            rows,
            more,
            notes,
        }
    }
}

/// A lane for each box that ran, by its pool and name.
fn lanes(policy: &Policy, axis: Axis, runs: &[&Run], spans: &[JobSpan], clock: Clock) -> Vec<Lane> {
    let mut by_box: BTreeMap<(&PoolId, &str), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        by_box.entry((&run.pool, run.box_id.as_str())).or_default().push(run);
    }
    let lane = |((pool, name), runs): ((&PoolId, &str), Vec<&Run>)| {
        let mut bars = windows(policy, axis, pool, clock);
        let shown = runs.iter().flat_map(|run| of_run(axis, run, clock));
        let (mut on, mut marks): (Vec<Bar>, Vec<Bar>) =
            shown.partition(|bar| matches!(bar.class, "idle"));
        on.extend(busy(axis, name, &runs, spans));
        on.append(&mut marks);
        for class in ["idle", "busy", "starting", "stopping", "refused"] {
            bars.extend(merged(on.iter().filter(|bar| bar.class == class).cloned().collect()));
        }
        Lane { name: name.to_owned(), bars }
    };
    by_box.into_iter().map(lane).collect()
}

/// When the schedule wanted the pool on.
fn windows(policy: &Policy, axis: Axis, pool: &PoolId, clock: Clock) -> Vec<Bar> {
    let Some(schedule) = policy.pool(pool).map(|pool| &pool.schedule) else { return Vec::new() };
    if schedule.is_empty() {
        return Vec::new();
    }
    let mut bars = Vec::new();
    let (mut from, mut desired) = (axis.begin, schedule.at(axis.begin).desired);
    for _ in 0..STRETCHES_MAX {
        let next = schedule.next_change(from).filter(|edge| edge.at < axis.end);
        let to = next.as_ref().map_or(axis.end, |edge| edge.at);
        if desired == Desired::Running {
            let (begin, end) = (clock.time(from).text, clock.time(to).text);
            let title = format!("scheduled from {begin} to {end}");
            bars.extend(axis.bar("window", from, to, &title));
        }
        let Some(edge) = next else { break };
        (from, desired) = (edge.at, edge.desired);
    }
    bars
}

/// What a run was: starting, on, stopping; or refused.
fn of_run(axis: Axis, run: &Run, clock: Clock) -> Vec<Bar> {
    let title = title(run, clock);
    let end = run.stopped_at.unwrap_or(clock.now);
    if run.refusal.is_some() {
        return axis.bar("refused", run.started_at, run.started_at, &title).into_iter().collect();
    }
    let ready = run.ready_at.unwrap_or(end).min(end);
    let stopping = run.stopping_at.unwrap_or(end).clamp(ready, end.max(ready));
    [
        axis.bar("starting", run.started_at, ready, &title),
        axis.bar("idle", ready, stopping, &title).filter(|_| run.ready_at.is_some()),
        axis.bar("stopping", stopping, end, &title).filter(|_| run.stopping_at.is_some()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn title(run: &Run, clock: Clock) -> String {
    let started = clock.time(run.started_at).text;
    let mut title = format!("started {started}: {}", run.start.text);
    if let Some(refusal) = &run.refusal {
        return format!("{title}; refused: {}", refusal.text);
    }
    if let Some(stopped) = run.stopped_at {
        title.push_str(&format!("; stopped {}: {}", clock.time(stopped).text, why_ended(run)));
    }
    title
}

fn why_ended(run: &Run) -> String {
    match (&run.stop, &run.error) {
        (Some(reason), _) => reason.text.clone(),
        (None, Some(error)) => error.clone(),
        (None, None) if run.interrupted_at.is_some() => "EC2 took the box".to_owned(),
        (None, None) if run.stopped_at.is_some() => "it ended by itself".to_owned(),
        (None, None) => String::new(),
    }
}

/// When jobs ran on the box. A result's time is the worker's: only what is within a run is shown.
fn busy(axis: Axis, name: &str, runs: &[&Run], spans: &[JobSpan]) -> Vec<Bar> {
    let within = |at: Timestamp| {
        runs.iter().any(|run| run.started_at <= at && run.stopped_at.is_none_or(|end| at <= end))
    };
    let ran = spans.iter().filter_map(|span| span.ran.as_ref());
    ran.filter(|ran| ran.box_id.as_str() == name && within(ran.received_at))
        .filter_map(|ran| axis.bar("busy", ran.received_at, ran.finished_at, "1 job"))
        .collect()
}

/// The same shapes, with those as one that a pixel could not tell apart.
fn merged(mut bars: Vec<Bar>) -> Vec<Bar> {
    bars.sort_by_key(|bar| bar.x);
    let mut merged: Vec<(Bar, usize)> = Vec::new();
    for bar in bars {
        match merged.last_mut() {
            Some((last, of)) if bar.x <= last.x + last.width + APART_MIN => {
                last.width = last.width.max(bar.x + bar.width - last.x);
                *of += 1;
            }
            _ => merged.push((bar, 1)),
        }
    }
    let told = |(bar, of): (Bar, usize)| match (of, bar.class) {
        (1, _) => bar,
        (_, "busy") => Bar { title: count(of as u64, "job"), ..bar },
        (_, class) => Bar { title: format!("{} {class}", count(of as u64, "run")), ..bar },
    };
    merged.into_iter().map(told).collect()
}

/// The most jobs that waited in each part of the axis, as a line of steps.
fn queue(axis: Axis, spans: &[JobSpan], now: Timestamp) -> QueueLine {
    let mut changes: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    let mut waiting = 0_u64;
    for span in spans {
        let until = match (&span.ran, span.is_open) {
            (Some(ran), _) => ran.received_at,
            (None, true) => now,
            // Cancelled, purged or dead: until when it waited is not told.
            (None, false) => continue,
        };
        if until <= axis.begin || until <= span.submitted_at {
            continue;
        }
        if span.submitted_at <= axis.begin {
            waiting += 1;
        } else {
            changes.entry(axis.x(span.submitted_at) / APART_MIN).or_default().0 += 1;
        }
        changes.entry(axis.x(until) / APART_MIN).or_default().1 += 1;
    }
    let mut most = waiting;
    let mut steps: Vec<(i64, u64)> = vec![(0, waiting)];
    for (column, (came, left)) in changes {
        let peak = waiting + came;
        waiting = peak.saturating_sub(left);
        most = most.max(peak);
        steps.push((column * APART_MIN, peak));
        steps.push(((column + 1) * APART_MIN, waiting));
    }
    let height = |jobs: u64| HEIGHT - jobs * HEIGHT / most.max(1);
    let mut path = format!("M0 {HEIGHT}");
    for (x, jobs) in steps {
        path.push_str(&format!("H{}V{}", x.min(WIDTH), height(jobs)));
    }
    path.push_str(&format!("H{}V{HEIGHT}Z", axis.x(now)));
    QueueLine { path, most }
}

fn row(policy: &Policy, run: &Run, clock: Clock) -> RunRow {
    let end = run.stopped_at.unwrap_or(clock.now);
    let has_price = run.offering.is_some() || policy.cost.usd_hour.is_some();
    let spent = || spent_since(std::slice::from_ref(run), &policy.cost, run.started_at, end);
    let stop = match &run.refusal {
        Some(refusal) => format!("refused: {}", refusal.text),
        None => why_ended(run),
    };
    RunRow {
        r#box: run.box_id.to_string(),
        started: clock.time(run.started_at),
        start: format!("{}: {}", run.start.rule.as_str(), run.start.text),
        end: run.stopped_at.map(|at| clock.time(at)),
        stop,
        lasted: span(run.lasted(clock.now)),
        jobs: run.jobs.map(|jobs| jobs.to_string()).unwrap_or_default(),
        cost: if has_price { money(spent()) } else { String::new() },
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn axis() -> Axis {
        Axis { begin: at("2026-11-30T00:00:00Z"), end: at("2026-12-01T00:00:00Z") }
    }

    #[test]
    fn the_queue_is_a_line_of_what_waited_and_ends_with_the_present() {
        let span = |from: &str, until: Option<&str>| JobSpan {
            submitted_at: at(from),
            ran: until.map(|until| gpuctl_control::ports::JobRan {
                box_id: "gpu-1".parse().unwrap(),
                received_at: at(until),
                finished_at: at(until) + TimeDelta::seconds(1),
            }),
            is_open: until.is_none(),
        };
        let spans = [
            span("2026-11-30T11:00:00Z", None),
            span("2026-11-30T06:00:00Z", Some("2026-11-30T07:00:00Z")),
            span("2026-11-29T23:00:00Z", Some("2026-11-30T06:30:00Z")),
        ];
        let line = queue(axis(), &spans, at("2026-11-30T12:00:00Z"));
        assert_eq!(line.most, 2);
        assert!(line.path.starts_with("M0 100H0V50H1000V0"), "{}", line.path);
        assert!(line.path.ends_with("H2000V100Z"), "{}", line.path);
    }

    #[test]
    fn shapes_that_a_pixel_cannot_tell_apart_are_one_and_ten_thousand_are_few() {
        let bar = |x| Bar { class: "busy", x, width: 1, title: "1 job".to_owned() };
        let two = merged(vec![bar(100), bar(0), bar(4)]);
        let seen: Vec<_> = two.iter().map(|bar| (bar.x, bar.width, bar.title.as_str())).collect();
        assert_eq!(seen, [(0, 5, "2 jobs"), (100, 1, "1 job")]);
        let many = merged((0..10_000).map(|n| bar(n * 7 % WIDTH)).collect());
        assert!(many.len() <= 1_000, "{}", many.len());
    }

    #[test]
    fn a_stretch_outside_the_axis_has_no_shape() {
        let bar = |from, to| axis().bar("idle", at(from), at(to), "");
        assert_eq!(bar("2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"), None);
        let over = bar("2026-11-29T00:00:00Z", "2026-11-30T12:00:00Z").unwrap();
        assert_eq!((over.x, over.width), (0, WIDTH / 2));
    }
}
