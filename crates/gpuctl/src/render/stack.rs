//! Stacks as text: bills, differences, and what is left.

use super::words::{Lines, shown_name};
use crate::documents::stack::{
    ChangeDocument, DeployedDocument, DestroyedDocument, DifferenceDocument, ExportDocument,
    LeftDocument, StackCostDocument,
};

/// A bill: what a month of doing nothing costs, and an hour of each kind of box.
pub(super) fn cost(document: &StackCostDocument) -> Lines {
    let mut lines = Lines::of(format!("in {}, free tiers not counted", document.region));
    add_cost(&mut lines, document);
    lines
}

fn add_cost(lines: &mut Lines, document: &StackCostDocument) {
    lines.add("a month in which nothing runs:");
    for part in document.parts.iter().filter(|part| part.usd_month > 0.0) {
        let usd = format!("${:.2}", part.usd_month);
        let words = format!("{} ({})", part.detail, part.as_of);
        lines.add(format!("  {:<20} {usd:>8}  {words}", shown_name(&part.name)));
    }
    lines.add(format!("  {:<20} {:>8}", "total", format!("${:.2}", document.usd_month)));
    for part in document.parts.iter().filter(|part| part.usd_month <= 0.0) {
        lines.add(format!("  {:<20} {:>8}  {}", shown_name(&part.name), "", part.detail));
    }
    lines.add("an hour:");
    for hour in &document.hours {
        let usd = hour.usd_hour.map_or("?".to_owned(), |usd| format!("${usd:.4}"));
        let words = format!("{} ({})", hour.detail, hour.as_of);
        lines.add(format!("  {:<20} {usd:>8}  {words}", shown_name(&hour.name)));
    }
}

pub(super) fn difference(document: &DifferenceDocument) -> Lines {
    let DifferenceDocument { stack, region, changes, .. } = document;
    let is = if document.is_new { "is new" } else { "changes" };
    let mut lines =
        Lines::of(format!("stack {stack} in {region} {is}: {} resources", changes.len()));
    if changes.is_empty() {
        lines = Lines::of(format!("stack {stack} in {region} is as it should be"));
    }
    // Of a new stack the names alone say little; the bill does.
    for change in changes.iter().filter(|_| !document.is_new) {
        lines.add(format!("  {}", change_line(change)));
    }
    let after = document.after.usd_month;
    match &document.before {
        Some(before) => {
            let (before, more) = (before.usd_month, after - before.usd_month);
            lines
                .add(format!("a month of doing nothing: ${before:.2} -> ${after:.2} ({more:+.2})"));
            hours(&mut lines, document);
        }
        None => add_cost(&mut lines, &document.after),
    }
    lines
}

fn hours(lines: &mut Lines, document: &DifferenceDocument) {
    let before = document.before.iter().flat_map(|cost| &cost.hours);
    let before: Vec<(&str, Option<f64>)> =
        before.map(|hour| (hour.name.as_str(), hour.usd_hour)).collect();
    let text = |usd: Option<f64>| usd.map_or("?".to_owned(), |usd| format!("${usd:.4}"));
    for hour in &document.after.hours {
        let was = before.iter().find(|(name, _)| *name == hour.name);
        let was = was.map(|(_, usd)| text(*usd)).unwrap_or_else(|| "none".to_owned());
        let is = text(hour.usd_hour);
        if was != is {
            lines.add(format!("an hour of {}: {was} -> {is} ({})", hour.name, hour.detail));
        }
    }
}

fn change_line(change: &ChangeDocument) -> String {
    let loss = if change.loses_data { ": what is in it is lost" } else { "" };
    let gate = match change.needs_permission {
        true => format!(" (needs --allow-replace {})", change.name),
        false => String::new(),
    };
    format!("{} {} ({}){loss}{gate}", change.action, change.name, change.kind)
}

pub(super) fn deployed(document: &DeployedDocument) -> Lines {
    let DeployedDocument { stack, region, .. } = document;
    let mut lines = match document.changes {
        0 => Lines::of(format!("stack {stack} in {region} is as it should be")),
        count => Lines::of(format!("stack {stack} in {region}: {count} resources changed")),
    };
    lines.add(format!("  a month of doing nothing costs ${:.2}", document.usd_month));
    for id in &document.boxes {
        lines.label("box", id);
    }
    lines.label("policy", &document.policy);
    if let Some(file) = &document.policy_file {
        lines.add(format!(
            "  it was written to {file}: change it there, and run `gpuctl deploy` again"
        ));
    }
    lines
}

pub(super) fn export(document: &ExportDocument) -> Lines {
    let mut lines = Lines::of(format!("wrote to {}:", document.folder));
    document.files.iter().for_each(|file| lines.add(format!("  {file}")));
    lines
}

pub(super) fn destroyed(document: &DestroyedDocument) -> Lines {
    let DestroyedDocument { stack, boxes, kept, left, .. } = document;
    let what = if document.was_there { "is deleted" } else { "is not there" };
    let mut lines = Lines::of(format!("stack {stack} {what}; {} boxes terminated", boxes.len()));
    let mut list = |heading: &str, these: &[LeftDocument]| {
        if !these.is_empty() {
            lines.add(heading);
        }
        for one in these {
            let cost = format!("${:.2} a month", one.usd_month);
            lines.add(format!("  {:<16} {:<40} {cost}", one.kind, one.id));
        }
    };
    list("kept on purpose (--everything deletes it, too):", kept);
    list("left although nothing should be:", left);
    if left.is_empty() {
        lines.add("nothing else of it costs anything");
    }
    lines
}
