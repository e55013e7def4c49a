//! `cost report`, `estimate` and `prices` as text.

use super::status::spending;
use super::words::{Lines, short, shown_name};
use crate::documents::reply::{
    CostForecastDocument, CostReportDocument, EstimateDocument, PricesDocument,
};

pub(super) fn report(document: &CostReportDocument) -> Lines {
    let mut lines =
        Lines::of(format!("from {} until {}", short(&document.since), short(&document.until)));
    jobs(&mut lines, document);
    box_time(&mut lines, document);
    compared(&mut lines, document);
    lines
}

fn jobs(lines: &mut Lines, document: &CostReportDocument) {
    let jobs = document.jobs;
    let words = format!(
        "{} submitted: {} succeeded, {} failed, {} cancelled, {} dead, {} purged, {} expired, {} open",
        jobs.submitted,
        jobs.succeeded,
        jobs.failed,
        jobs.cancelled,
        jobs.dead,
        jobs.purged,
        jobs.expired,
        jobs.open
    );
    lines.label("jobs", words);
    if let (Some(p50), Some(p95), Some(max)) =
        (document.wait_seconds_p50, document.wait_seconds_p95, document.wait_seconds_max)
    {
        lines.label("waits", format!("p50 {p50:.1} s, p95 {p95:.1} s, longest {max:.1} s"));
    }
}

fn box_time(lines: &mut Lines, document: &CostReportDocument) {
    let starts = match document.starts {
        1 => "1 start".to_owned(),
        starts => format!("{starts} starts"),
    };
    let words = format!(
        "{} s in {starts}; EC2 bills at least 60 s per start: {} s",
        document.box_seconds, document.billed_seconds
    );
    lines.label("box time", words);
    let words = format!(
        "${:.4} for boxes, by purchase option (on this machine: as on-demand)",
        document.box_usd
    );
    lines.label("cost", words);
    if document.standing_usd > 0.0 {
        let words = format!(
            "${:.4} for disks and addresses, which also cost while boxes are stopped",
            document.standing_usd
        );
        lines.label("standing", words);
    }
}

/// The same box time on one instance type: spot, on-demand, and always on.
fn compared(lines: &mut Lines, document: &CostReportDocument) {
    let price = &document.priced_as;
    lines.add(format!(
        "the same on {} in {} ({}):",
        price.instance_type, price.region, price.origin
    ));
    let row = |usd: f64, hour: f64, month: Option<f64>| {
        let month = month.map(|month| format!("; ${month:.2} per month of such days"));
        format!("${usd:.4} at ${hour:.4}/h{}", month.unwrap_or_default())
    };
    if let (Some(usd), Some(hour)) = (document.spot_usd, price.spot_usd_hour) {
        lines.label("spot", row(usd, hour, document.spot_usd_month));
    }
    let (usd, hour) = (document.on_demand_usd, price.on_demand_usd_hour);
    lines.label("on-demand", row(usd, hour, document.on_demand_usd_month));
    let (usd, month) = (document.always_on_usd, document.always_on_usd_month);
    lines.label("always on", format!("${usd:.4} on-demand; ${month:.2} per month"));
    saved(lines, document);
}

/// What stopping has saved in the period, and nothing about times that were not seen.
fn saved(lines: &mut Lines, document: &CostReportDocument) {
    let (saved, always_on) = (document.saved_usd, document.always_on_usd);
    let mut words = if saved >= 0.0 {
        format!("${saved:.4} of the ${always_on:.4} that a box always on would have cost")
    } else {
        format!("nothing: ${:.4} more than the ${always_on:.4} of a box always on", -saved)
    };
    if document.on_demand_usd_month.is_none() {
        words.push_str("; less than a day says nothing about a month");
    }
    lines.label("saved", words);
}

pub(super) fn forecast(document: &CostForecastDocument) -> Lines {
    let mut lines = Lines::default();
    if document.pools.is_empty() {
        return Lines::of(
            "no boxes that cost: they run on this machine, without a budget or [cost] usd_hour",
        );
    }
    for pool in &document.pools {
        lines.add(format!("{}: {}", pool.pool, spending(&pool.cost)));
    }
    let (month, forecast) = (document.usd_month, document.usd_month_forecast);
    lines.add(format!("together: ${month:.2} this month, about ${forecast:.2} at its end"));
    if let Some(most) = document.max_usd_month {
        let verdict = if forecast > most { "more than" } else { "within" };
        lines.add(format!("that is {verdict} the limit of ${most:.2}"));
    }
    lines
}

pub(super) fn estimate(document: &EstimateDocument) -> Lines {
    let mut lines = Lines::of(format!(
        "{} {} in {}, ${:.4} an hour ({})",
        document.capacity,
        document.instance_type,
        document.region,
        document.usd_hour,
        document.usd_hour_from
    ));
    let names: Vec<String> =
        document.components.iter().map(|part| shown_name(&part.name)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let width = longest.max("always on".len());
    let mut row = |name: &str, usd: f64, words: &str| {
        lines.add(format!("  {name:<width$} {:>9}  {words}", format!("${usd:.2}")));
    };
    for (name, part) in names.iter().zip(&document.components) {
        row(name, part.usd_month, &part.detail);
    }
    row("total", document.usd_month, "per month");
    let always = "the same box running for 30 days, nothing else";
    row("always on", document.always_on_usd_month, always);
    lines
}

pub(super) fn prices(document: &PricesDocument) -> Lines {
    let mut lines = Lines::of(format!(
        "{:<14}{:<18}{:>12}{:>10}  {:<12}TABLE",
        "TYPE", "REGION", "ON-DEMAND/H", "SPOT/H", "AS OF"
    ));
    for price in &document.prices {
        let spot = price.spot_usd_hour.map_or("n/a".to_owned(), |spot| format!("${spot:.4}"));
        lines.add(format!(
            "{:<14}{:<18}{:>12}{spot:>10}  {:<12}{}",
            price.instance_type,
            price.region,
            format!("${:.4}", price.on_demand_usd_hour),
            price.as_of,
            price.table
        ));
    }
    if let Some(path) = &document.kept_in {
        lines.add(format!("saved to {path}; they replace the shipped prices"));
    }
    lines
}
