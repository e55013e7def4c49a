//! `status`, `plan` and `explain` as text.

use gpuctl_control::wire::ReasonDocument;
use gpuctl_control::wire::explain::ExplainDocument;
use gpuctl_control::wire::plan::{
    NextChangeDocument, PlanDocument, PoolPlanDocument, RunDocument, SubmitDocument,
    VerdictDocument,
};
use gpuctl_control::wire::status::{
    BoxDocument, PoolDocument, QueueDocument, SpendingDocument, StatusDocument,
};

use super::words::{Lines, jobs_of, short, shown_name, span, until};

pub(super) fn status(document: &StatusDocument) -> Lines {
    let mut lines = Lines::default();
    for pool in &document.pools {
        lines.add(format!("{}: {}", pool.pool, pool.sentence));
        self::pool(&mut lines, pool, &document.at);
    }
    errors(&mut lines, &document.errors);
    if let Some(config) = &document.config {
        let state = document.state.as_ref().map(|state| format!(", state in {state}"));
        let state = state.unwrap_or_default();
        lines.add(format!("observed at {} with {config}{state}", short(&document.at)));
        if let Some(other) = &document.config_not_used {
            lines.add(format!("not used, since that one is nearer: {other}"));
        }
    }
    lines
}

pub(super) fn pool(lines: &mut Lines, pool: &PoolDocument, now: &str) {
    if let Some(age) = pool.observed_seconds_ago {
        lines.label("observed", format!("{} ago: it could not be read again", span(age)));
    }
    boxes(lines, &pool.boxes);
    queue_line(lines, pool.queue.as_ref());
    if let Some(hold) = &pool.hold {
        let why = hold.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let end = if hold.until_empty { "until its queue is empty, at most " } else { "" };
        let words =
            format!("{} {end}until {}, by {}{why}", hold.wants, short(&hold.until), hold.by);
        lines.label("hold", words);
    }
    if let Some(run) = &pool.last_run {
        last_run(lines, run);
    }
    reasons(lines, "blocked", &pool.blocked);
    next(lines, pool.next_change.as_ref(), now);
    if let Some(cost) = &pool.cost {
        lines.label("cost", spending(cost));
    }
}

/// What a pool has cost, and what its month comes to.
pub(super) fn spending(cost: &SpendingDocument) -> String {
    let budget = cost.budget_usd_month.map(|most| format!(", budget ${most:.2}"));
    format!(
        "${:.2} today, ${:.2} this month, about ${:.2} at its end{} (days and months of UTC)",
        cost.usd_today,
        cost.usd_month,
        cost.usd_month_forecast,
        budget.unwrap_or_default()
    )
}

fn errors(lines: &mut Lines, errors: &[String]) {
    for error in errors {
        lines.add(format!("not read: {error}"));
    }
}

fn boxes(lines: &mut Lines, boxes: &[BoxDocument]) {
    for one in boxes {
        let since = match &one.since {
            Some(_) => format!(" for {}", span(one.seconds_in_state.unwrap_or_default())),
            None => ", never ran".to_owned(),
        };
        let held = one
            .jobs_held
            .map(|jobs| format!(", holds {}", jobs_of(u64::from(jobs))))
            .unwrap_or_default();
        lines.label("box", format!("{} {}{since}{held}", one.r#box, one.state));
        if let Some(fault) = &one.fault {
            let (message, since) = (&fault.message, short(&fault.since));
            lines.label("fault", format!("{} takes no jobs: {message} since {since}", one.r#box));
        }
        if let Some(kept) = &one.kept {
            lines.label("kept", &kept.text);
        }
        if !one.boot.is_empty() {
            let phases = one.boot.iter();
            let phases: Vec<String> =
                phases.map(|part| format!("{} {:.1} s", part.phase, part.seconds)).collect();
            lines.label("boot", phases.join(", "));
        }
        if let Some(how) = &one.outdated {
            lines.label("outdated", format!("{} {how}", one.r#box));
        }
        if let Some(at) = &one.rebalance {
            let since = short(at);
            let text = format!(
                "EC2 recommends to replace {} since {since}: it stops when idle",
                one.r#box
            );
            lines.label("rebalance", text);
        }
    }
}

fn queue_line(lines: &mut Lines, queue: Option<&QueueDocument>) {
    if let Some(queue) = queue {
        lines.label("queue", counts(queue));
    }
}

pub(super) fn counts(queue: &QueueDocument) -> String {
    let oldest =
        queue.oldest_age_seconds.map(|age| format!(" (oldest {})", span(age))).unwrap_or_default();
    format!(
        "{} waiting{oldest}, {} in flight, {} delayed, {} dead",
        queue.visible, queue.in_flight, queue.delayed, queue.dead
    )
}

fn last_run(lines: &mut Lines, run: &RunDocument) {
    lines.label("started", format!("{} by {}", short(&run.started_at), reason(&run.started_by)));
    match (&run.stopped_by, &run.stopped_at) {
        (Some(by), at) => {
            let at = at.as_deref().map_or("in progress".to_owned(), short);
            lines.label("stopped", format!("{at} by {}", reason(by)));
        }
        (None, Some(at)) => {
            let not_asked = "not stopped by gpuctl: it was killed or crashed";
            let why = run.error.as_deref().unwrap_or(not_asked);
            lines.label("ended", format!("{}: {why}", short(at)));
        }
        (None, None) => {}
    }
}

fn reason(reason: &ReasonDocument) -> String {
    format!("{}: {}", reason.rule, reason.text)
}

fn next(lines: &mut Lines, next: Option<&NextChangeDocument>, now: &str) {
    if let Some(next) = next {
        lines.label("next", format!("{} {}", until(now, &next.at), reason(&next.reason)));
    }
}

fn reasons(lines: &mut Lines, label: &str, reasons: &[ReasonDocument]) {
    for one in reasons {
        lines.label(label, reason(one));
    }
}

pub(super) fn plan(document: &PlanDocument) -> Lines {
    let mut lines = Lines::default();
    for pool in &document.pools {
        let wanted = match pool.boxes_wanted {
            1 => "1 box".to_owned(),
            boxes => format!("{boxes} boxes"),
        };
        lines.add(format!("{}: wants {wanted} at {}", pool.pool, short(&document.at)));
        pool_plan(&mut lines, pool, &document.at);
        pool.kept.iter().for_each(|kept| lines.label("kept", &kept.text));
        rules(&mut lines, pool);
    }
    document.submits.iter().for_each(|one| lines.add(submit(one)));
    errors(&mut lines, &document.errors);
    lines
}

/// What is submitted next, in a line.
pub(super) fn submit(one: &SubmitDocument) -> String {
    let SubmitDocument { pool, name, task, next_at, .. } = one;
    let next = match next_at {
        Some(at) => format!("next at {}", short(at)),
        None => "never again".to_owned(),
    };
    format!("{pool}: submits `{}` ({}) {next}", shown_name(name), shown_name(task))
}

fn pool_plan(lines: &mut Lines, pool: &PoolPlanDocument, now: &str) {
    for action in &pool.actions {
        lines.label(action.action, format!("{} because {}", action.r#box, reason(&action.reason)));
    }
    if pool.actions.is_empty() {
        lines.label("now", "nothing to do");
    }
    reasons(lines, "blocked", &pool.blocked);
    match &pool.next_change {
        Some(change) => next(lines, Some(change), now),
        None => {
            lines.label("next", "nothing scheduled: a job, a schedule or a command changes it");
        }
    }
}

fn rules(lines: &mut Lines, pool: &PoolPlanDocument) {
    lines.add("  rules, in order:");
    for verdict in &pool.verdicts {
        lines.add(format!("    {:<13}{:<12}{}", verdict.rule, verdict.effect, verdict.text));
    }
}

pub(super) fn explain(document: &ExplainDocument) -> Lines {
    let plan = &document.plan;
    let mut lines =
        Lines::of(format!("{} is {} at {}", plan.pool, document.state, short(&document.at)));
    boxes(&mut lines, &document.boxes);
    queue_line(&mut lines, document.queue.as_ref());
    if let Some(run) = &document.last_run {
        last_run(&mut lines, run);
    }
    if matches!(document.state, "running" | "pending") {
        for verdict in plan.verdicts.iter().filter(|verdict| keeps_up(verdict)) {
            lines.label("stays up", format!("{}: {}", verdict.rule, verdict.text));
        }
    }
    pool_plan(&mut lines, plan, &document.at);
    rules(&mut lines, plan);
    errors(&mut lines, &document.errors);
    lines
}

fn keeps_up(verdict: &VerdictDocument) -> bool {
    verdict.effect.starts_with("at least") || verdict.effect == "keep"
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A start that a terminal acts on, and a line that looks like one of gpuctl.
    const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{9b}2J\nerror: spoofed\u{202e}";

    /// The same value with each text replaced by a hostile one.
    fn hostile(value: &Value) -> Value {
        match value {
            Value::String(_) => HOSTILE.into(),
            Value::Array(all) => all.iter().map(hostile).collect(),
            Value::Object(fields) => Value::Object(
                fields.iter().map(|(key, value)| (key.clone(), hostile(value))).collect(),
            ),
            other => other.clone(),
        }
    }

    #[test]
    fn no_text_of_a_box_a_worker_or_a_hold_acts_on_the_terminal() {
        let reason = json!({ "rule": "hold", "text": "x" });
        let run = json!({
            "pool": "gpu", "box": "gpu-1", "started_at": "x", "ready_at": "x", "stopped_at": "x", "box_seconds": 1.0,
            "started_by": reason, "stopped_by": null, "error": "x",
        });
        let fault = json!({ "code": "models.missing", "message": "x", "since": "x" });
        let kept = json!({ "box": "gpu-1", "keep_until": "x", "usd": 1.0, "text": "x" });
        let one = json!({
            "box": "gpu-1", "state": "running", "since": "x", "seconds_in_state": 1.0, "jobs_held": 1, "fault": fault, "kept": kept,
            "rebalance": "x", "boot": [{ "phase": "kernel", "seconds": 3.2 }],
        });
        let queue = json!({ "visible": 1, "in_flight": 0, "delayed": 0, "dead": 0, "oldest_age_seconds": 1.0 });
        let hold =
            json!({ "pool": "gpu", "wants": "running", "until": "x", "by": "x", "why": "x" });
        let pool = json!({
            "pool": "gpu", "state": "running", "boxes_wanted": 1, "boxes": [one], "queue": queue, "hold": hold,
            "blocked": [reason], "reason": reason, "next_change": { "at": "x", "reason": reason }, "last_run": run,
        });
        let document = json!({ "at": "x", "pools": [pool], "errors": ["x"] });
        let document: StatusDocument = serde_json::from_value(hostile(&document)).unwrap();
        let lines = status(&document);
        let text = lines.text();
        assert!(text.contains("takes no jobs") && text.contains("by \\u{1b}]0"), "{text}");
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.chars().any(acts), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("error: spoofed")), "{text}");
    }
}
