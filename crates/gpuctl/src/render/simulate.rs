//! Simulations as text, and as an HTML page with charts: plain SVG in one file, without scripts or network access.

use std::fmt::Write;

use gpuctl_sim::replay::Outcome;

use super::words::Lines;
use crate::documents::simulate::{
    FaultSimulationDocument, PolicyScoreDocument, SimulationDocument, TuningDocument,
    ViolationDocument,
};

/// The size of a chart, in SVG user units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 220.0;
/// The most points of a curve: more than its pixels cannot be seen.
const POINTS_MAX: usize = 960;

pub(super) fn simulation(document: &SimulationDocument) -> Lines {
    let mut lines = terms(document);
    lines.add(format!(
        "{:<13}{:>10}{:>8}{:>10}{:>11}{:>8}{:>10}{:>10}{:>10}{:>7}{:>6}",
        "POLICY",
        "BOX HOURS",
        "BOUND",
        "USD",
        "USD/MONTH",
        "STARTS",
        "WAIT P50",
        "P95",
        "MAX",
        "LATE",
        "LOST"
    ));
    document.policies.iter().for_each(|one| lines.add(policy_row(one)));
    let fixed = document.spot_usd_hour.map(|spot| format!("${spot:.4} an hour"));
    let changing = || Some(format!("the price in force ({})", document.spot_prices.as_ref()?));
    if let Some(spot) = fixed.or_else(changing) {
        let interrupted: f64 = document.policies.iter().map(|one| one.interruptions).sum();
        lines.add(format!(
            "spot at {spot} where available; {interrupted:.0} boxes were interrupted"
        ));
    }
    lines.add("LATE: jobs over the limit beyond those on an always-on box.");
    if document.policies.iter().any(|one| one.usd_month.is_none()) {
        lines.add("USD/MONTH needs a trace of a day at least.");
    }
    lines
}

fn policy_row(one: &PolicyScoreDocument) -> String {
    format!(
        "{:<13}{:>10.1}{:>7.2}x{:>10}{:>11}{:>8.0}{:>10}{:>10}{:>10}{:>7.0}{:>6.0}",
        one.policy,
        one.box_seconds / 3_600.0,
        one.ratio_to_bound,
        format!("${:.2}", one.usd),
        one.usd_month.map_or("-".to_owned(), |usd| format!("${usd:.2}")),
        one.starts,
        wait(one.wait_seconds_p50),
        wait(one.wait_seconds_p95),
        wait(one.wait_seconds_max),
        one.late_jobs,
        one.jobs_lost
    )
}

fn terms(document: &SimulationDocument) -> Lines {
    let hours = |seconds: f64| seconds / 3_600.0;
    let mut lines = Lines::of(format!(
        "{} jobs in {:.1} days; max_wait {}, idle_stop {}, boot {}, a reconcile every {}; on-demand ${:.4} an hour ({})",
        document.jobs,
        document.days,
        exact(document.max_wait_seconds),
        document.idle_stop,
        exact(document.boot_seconds),
        exact(document.tick_seconds),
        document.on_demand_usd_hour,
        document.on_demand_usd_hour_from
    ));
    if let Some(pool) = &document.pool {
        lines.add(format!("settings of pool `{pool}` where no option was given"));
    }
    lines.add(format!(
        "BOUND: box time divided by {:.1} h, the minimum with which every job keeps the limit",
        hours(document.bound_box_seconds)
    ));
    lines.add(format!(
        "with knowledge of the future: {:.1} h if boxes start when a job arrives, {:.1} h if no job waits for a boot; the jobs alone take {:.1} h",
        hours(document.bound_same_start_box_seconds),
        hours(document.bound_prewarm_box_seconds),
        hours(document.service_seconds)
    ));
    lines
}

pub(super) fn tuning(document: &TuningDocument) -> Lines {
    let mut lines = Lines::of(format!(
        "{:<12}{:<12}{:>10}{:>14}",
        "MAX_WAIT", "IDLE_STOP", "USD", "WAITED HOURS"
    ));
    for one in &document.frontier {
        let usd = format!("${:.2}", one.usd);
        let (max_wait, idle_stop) = (&one.max_wait, &one.idle_stop);
        lines.add(format!("{max_wait:<12}{idle_stop:<12}{usd:>10}{:>14.2}", one.wait_hours));
    }
    lines.add("each line costs less than those below it and waits longer");
    for one in &document.tuned {
        lines.blank();
        lines.add(format!(
            "waiting at ${} per job-hour: chosen on the first half of the trace; on the second half ${:.2} including waiting, {:.2} times the best choice in hindsight",
            one.wait_usd_hour, one.tested_usd, one.ratio_to_hindsight
        ));
        lines.add(format!("  max_wait = \"{}\"", one.max_wait));
        lines.add(format!("  idle_stop = \"{}\"", one.idle_stop));
    }
    lines
}

pub(super) fn faults(document: &FaultSimulationDocument) -> Lines {
    let mut lines = Lines::of(format!(
        "{} weeks, {} jobs ({} with a result), {} starts, {} interruptions, {} refusals, ${:.2}",
        document.weeks,
        document.jobs,
        document.jobs_committed,
        document.starts,
        document.interruptions,
        document.refusals,
        document.usd
    ));
    lines.add(format!(
        "{} reconciles, {} checks; the slowest week, seed {}, took {:.2} s",
        document.reconciles, document.checks, document.slowest_seed, document.slowest_seconds
    ));
    for (fault, times) in &document.faults {
        lines.add(format!("  {fault:<18}{times:>9}"));
    }
    match &document.failure {
        None => lines.add("no guarantee was violated"),
        Some(broken) => violation(&mut lines, broken),
    }
    lines
}

fn violation(lines: &mut Lines, broken: &ViolationDocument) {
    lines.blank();
    lines.add(format!(
        "VIOLATED in the week of seed {}: {} ({})",
        broken.seed, broken.sentence, broken.guarantee
    ));
    lines.add(format!("  {}: {}", broken.at, broken.what));
    lines.blank();
    lines.add("events before it, in the smallest week that shows it:");
    broken.events.iter().for_each(|event| lines.add(format!("  {event}")));
    lines.blank();
    lines.add(format!("repeat:   {}", broken.replay));
    lines.add(format!("smallest: {}", broken.smallest));
}

/// What the page shows besides the document: each policy's first trace.
#[derive(Debug, Default)]
pub(crate) struct Page {
    policies: Vec<(&'static str, Outcome)>,
}

impl Page {
    pub(crate) fn add(&mut self, name: &'static str, outcomes: &[Outcome]) {
        self.policies.extend(outcomes.first().map(|first| (name, first.clone())));
    }
}

/// The page.
pub(crate) fn page(document: &SimulationDocument, page: &Page) -> String {
    let mut html = String::from(HEAD);
    let title = document.demand.join(", ");
    let _ = write!(
        html,
        "<h1>{}</h1><p>{}</p>",
        escape(&title),
        escape(terms(document).text()).replace('\n', "<br>")
    );
    let _ = write!(html, "<pre>{}</pre>", escape(simulation(document).text()));
    html.push_str("<h2>Dollars</h2>");
    html.push_str(&bars(&document.policies));
    html.push_str("<h2>How long jobs wait</h2><p>The share of jobs (vertical) that waited at most this long (horizontal, logarithmic).</p>");
    html.push_str(&waits(page));
    html.push_str("<h2>Queue and boxes</h2><p>Waiting jobs (filled) and running boxes (bars below), over the first trace.</p>");
    for (name, outcome) in &page.policies {
        let _ = write!(html, "<h3>{name}</h3>{}", timeline(outcome));
    }
    html.push_str("</body></html>\n");
    html
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>gpuctl simulate</title><style>\
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#1b1f24;background:#fff}\
pre{background:#f4f5f7;padding:1em;overflow-x:auto;font-size:12px}svg{width:100%;height:auto;display:block}\
text{font:12px system-ui,sans-serif;fill:#1b1f24}h3{margin:1em 0 0}</style></head><body>";

/// A palette for all kinds of colour vision (Okabe and Ito, 2008).
const COLOURS: [&str; 8] =
    ["#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#999999", "#d55e00"];

fn bars(policies: &[PolicyScoreDocument]) -> String {
    let most = policies.iter().map(|one| one.usd).fold(1e-9, f64::max);
    let (row, left) = (26.0, 120.0);
    let mut svg = open(row * policies.len() as f64 + 4.0);
    for (index, one) in policies.iter().enumerate() {
        let y = row * index as f64;
        let long = one.usd / most * (WIDTH - left - 110.0);
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{:.0}\">{}</text><rect x=\"{left}\" y=\"{:.0}\" width=\"{long:.1}\" height=\"18\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.0}\">${:.2}</text>",
            y + 16.0,
            one.policy,
            y + 3.0,
            COLOURS[index % COLOURS.len()],
            left + long + 6.0,
            y + 16.0,
            one.usd
        );
    }
    svg + "</svg>"
}

fn waits(page: &Page) -> String {
    let decades = 6.0;
    let mut svg = open(HEIGHT + 40.0);
    for power in 0..6 {
        let x = f64::from(power) / decades * WIDTH;
        let _ = write!(
            svg,
            "<line x1=\"{x:.0}\" y1=\"0\" x2=\"{x:.0}\" y2=\"{HEIGHT}\" stroke=\"#ddd\"/><text x=\"{x:.0}\" y=\"{}\">{}</text>",
            HEIGHT + 14.0,
            wait(10.0_f64.powi(power))
        );
    }
    for (index, (name, outcome)) in page.policies.iter().enumerate() {
        let mut sorted: Vec<i64> = outcome.waits_ms.iter().flatten().copied().collect();
        sorted.sort_unstable();
        let step = sorted.len().div_ceil(POINTS_MAX).max(1);
        let points = sorted.iter().enumerate().step_by(step).map(|(rank, wait_ms)| {
            let x = ((*wait_ms as f64 / 1e3).max(1.0).log10() / decades * WIDTH).min(WIDTH);
            let y = HEIGHT * (1.0 - (rank + 1) as f64 / sorted.len() as f64);
            format!("{x:.1},{y:.1}")
        });
        let points: Vec<String> = points.collect();
        let colour = COLOURS[index % COLOURS.len()];
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/><text x=\"{}\" y=\"{}\" style=\"fill:{colour}\">{name}</text>",
            points.join(" "),
            index * 118,
            HEIGHT + 34.0
        );
    }
    svg + "</svg>"
}

fn timeline(outcome: &Outcome) -> String {
    let end_ms = outcome.timeline.last().map_or(1, |(at_ms, ..)| (*at_ms).max(1)) as f64;
    let most = f64::from(outcome.timeline.iter().map(|(.., jobs)| *jobs).max().unwrap_or(0).max(1));
    // The longest queue in each column, so that no peak is lost between the points.
    let (mut columns, mut up) = (vec![0_u32; POINTS_MAX], vec![false; POINTS_MAX]);
    let mut last = (0_i64, 0_u32, 0_u32);
    for (at_ms, boxes, jobs) in &outcome.timeline {
        // Between two events the state does not change.
        let (from, to) = (column(last.0 as f64 / end_ms), column(*at_ms as f64 / end_ms));
        columns[from..=to].iter_mut().for_each(|most| *most = (*most).max(last.2));
        columns[to] = columns[to].max(*jobs);
        if last.1 > 0 {
            up[from..=to].fill(true);
        }
        last = (*at_ms, *boxes, *jobs);
    }
    let height = 90.0;
    let mut svg = open(height + 30.0);
    let points: Vec<String> = (columns.iter().enumerate())
        .map(|(x, jobs)| format!("{x},{:.1}", height * (1.0 - f64::from(*jobs) / most)))
        .collect();
    let _ = write!(
        svg,
        "<polygon fill=\"#56b4e9\" points=\"0,{height} {} {WIDTH},{height}\"/>",
        points.join(" ")
    );
    for (x, _) in up.iter().enumerate().filter(|(_, up)| **up) {
        let y = height + 4.0;
        let _ =
            write!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"1\" height=\"10\" fill=\"#d55e00\"/>");
    }
    let _ = write!(svg, "<text x=\"0\" y=\"{}\">{most} jobs at most</text></svg>", height + 28.0);
    svg
}

fn open(height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the width")]
fn column(share: f64) -> usize {
    ((share * POINTS_MAX as f64) as usize).min(POINTS_MAX - 1)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A measured span, rounded up to what is shown: a wait of 150 s is not one of 2 minutes.
fn wait(seconds: f64) -> String {
    let unit = match seconds {
        s if s < 100.0 => return format!("{:.0} s", s.ceil()),
        s if s < 6_000.0 => 6.0,
        s if s < 172_800.0 => 360.0,
        _ => 8_640.0,
    };
    let tenths = (seconds / unit).ceil() / 10.0;
    match unit {
        6.0 => format!("{tenths:.1} min"),
        360.0 => format!("{tenths:.1} h"),
        _ => format!("{tenths:.1} d"),
    }
}

/// A setting, to the millisecond: `2m30s`.
fn exact(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs_f64(seconds.max(0.0));
    let (s, ms) = (whole.as_secs(), whole.subsec_millis());
    let parts = [
        (s / 86_400, "d"),
        (s / 3_600 % 24, "h"),
        (s / 60 % 60, "m"),
        (s % 60, "s"),
        (ms.into(), "ms"),
    ];
    let shown = parts.iter().filter(|(count, _)| *count > 0);
    let shown: String = shown.map(|(count, unit)| format!("{count}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown }
}
