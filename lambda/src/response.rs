//! The function's response, and the metrics that it prints: both from the same reconcile.

use gpuctl_control::Reconciled;
use gpuctl_control::wire::function::ActedDocument;
use gpuctl_control::wire::plan::verb;
use gpuctl_control::wire::status::StatusDocument;
use gpuctl_core::observation::{SeenBox, SeenPool};
use gpuctl_core::plan::PoolPlan;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use serde_json::{Value, json};

use crate::event::Event;

/// The namespace of the metrics in CloudWatch.
const NAMESPACE: &str = "gpuctl";
/// Each metric and its unit, in CloudWatch's embedded metric format.
const METRICS: [(&str, &str); 7] = [
    ("BoxesUp", "Count"),
    ("BoxesWanted", "Count"),
    ("QueueVisible", "Count"),
    ("QueueInFlight", "Count"),
    ("QueueDead", "Count"),
    ("OldestJobAge", "Seconds"),
    ("FailedActions", "Count"),
];

/// What came of the reconcile.
pub(crate) enum Outcome {
    /// It was made.
    Done(Box<Reconciled>),
    /// Another controller is reconciling, and sees the same.
    Busy,
    /// The ledger could not be reached: nothing was done.
    Failed,
}

/// What went wrong.
pub(crate) struct Response {
    pub(crate) errors: Vec<String>,
    /// The ids of messages whose command could not be stored.
    pub(crate) failed_messages: Vec<String>,
}

/// The response: each pool as in `gpuctl status --json`, what was done, and what went wrong.
pub(crate) fn document(event: &Event, policy: &Policy, outcome: Outcome, wrong: Response) -> Value {
    let (errors, failed) = (wrong.errors, matches!(outcome, Outcome::Failed));
    let mut response = match outcome {
        Outcome::Done(reconciled) => of_reconcile(policy, &reconciled, errors),
        Outcome::Busy => {
            json!({ "skipped": "another controller is reconciling", "errors": errors })
        }
        Outcome::Failed => json!({ "errors": errors }),
    };
    response["statusCode"] = json!(if failed { 503 } else { 200 });
    if event.messages.iter().any(|message| !message.id.is_empty()) {
        // L2, L5: a message whose reconcile or command failed comes again; its queue limits how often.
        let again = |id: &&String| failed || wrong.failed_messages.contains(id);
        let ids = event.messages.iter().map(|message| &message.id).filter(again);
        let ids: Vec<Value> = ids.map(|id| json!({ "itemIdentifier": id })).collect();
        response["batchItemFailures"] = json!(ids);
    }
    response
}

fn of_reconcile(policy: &Policy, reconciled: &Reconciled, mut errors: Vec<String>) -> Value {
    errors.extend(reconciled.errors.iter().map(ToString::to_string));
    let document =
        StatusDocument::of(&reconciled.observation, &reconciled.plan, &policy.cost, errors);
    let acted: Vec<ActedDocument> = reconciled
        .acted
        .iter()
        .map(|done| ActedDocument {
            pool: done.pool.to_string(),
            r#box: done.action.box_id().to_string(),
            action: verb(&done.action).to_owned(),
            reason: done.action.reason().text.clone(),
            error: done.result.as_ref().err().map(ToString::to_string),
        })
        .collect();
    let mut response = serde_json::to_value(document).unwrap_or_else(|_| json!({}));
    response["acted"] = json!(acted);
    response
}

/// Prints one line of metrics for each pool, which CloudWatch reads from the log.
#[expect(clippy::print_stdout, reason = "the embedded metric format is what is printed")]
pub(crate) fn print_metrics(policy: &Policy, outcome: &Outcome, at: Timestamp) {
    let Outcome::Done(reconciled) = outcome else { return };
    for plan in &reconciled.plan.pools {
        let known = policy.pool(&plan.pool).is_some();
        if let Some(seen) = reconciled.observation.pools.get(&plan.pool).filter(|_| known) {
            println!("{}", line(reconciled, plan, seen, at));
        }
    }
}

/// What could not be read has no value: a zero would be wrong.
fn line(reconciled: &Reconciled, plan: &PoolPlan, seen: &SeenPool, at: Timestamp) -> Value {
    let queue = seen.queue.as_ref().filter(|queue| queue.at == reconciled.observation.at);
    let queue = queue.and_then(|queue| queue.value.as_ref());
    let up = seen
        .boxes
        .value
        .as_ref()
        .map(|boxes| boxes.iter().filter(|one| SeenBox::is_up(one)).count());
    let failed = reconciled
        .acted
        .iter()
        .filter(|done| done.pool == plan.pool && done.result.is_err())
        .count();
    let oldest =
        queue.map(|queue| queue.oldest_sent_at.map_or(0, |sent| (at - sent).num_seconds().max(0)));
    let values = [
        up.map(|up| json!(up)),
        Some(json!(plan.boxes_wanted)),
        queue.map(|queue| json!(queue.visible)),
        queue.map(|queue| json!(queue.in_flight)),
        queue.map(|queue| json!(queue.dead)),
        oldest.map(|age| json!(age)),
        Some(json!(failed)),
    ];
    let present = METRICS.iter().zip(values).filter_map(|(metric, value)| Some((metric, value?)));
    let mut line = json!({ "Pool": plan.pool.as_str() });
    let mut definitions = Vec::new();
    for ((name, unit), value) in present {
        line[*name] = value;
        definitions.push(json!({ "Name": name, "Unit": unit }));
    }
    line["_aws"] = json!({
        "Timestamp": at.timestamp_millis(),
        "CloudWatchMetrics": [{ "Namespace": NAMESPACE, "Dimensions": [["Pool"]], "Metrics": definitions }],
    });
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CommandSources;

    #[test]
    fn l2_l5_each_message_comes_again_if_the_reconcile_failed_and_only_then() {
        let records = [json!({"messageId": "a", "body": "{}"}), json!({"messageId": "b"})];
        let event = json!({ "Records": records });
        let event = Event::read(&event, "r-1", &CommandSources::default()).unwrap();
        let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap();
        let of = |outcome, failed: &[&str]| {
            let failed_messages = failed.iter().map(ToString::to_string).collect();
            document(&event, &policy, outcome, Response { errors: Vec::new(), failed_messages })
        };
        let failed = of(Outcome::Failed, &[]);
        assert_eq!(failed["statusCode"], 503);
        let both = json!([{"itemIdentifier": "a"}, {"itemIdentifier": "b"}]);
        assert_eq!(failed["batchItemFailures"], both);
        assert_eq!(of(Outcome::Busy, &[])["batchItemFailures"], json!([]));
        let one = of(Outcome::Busy, &["b"]);
        assert_eq!(one["batchItemFailures"], json!([{"itemIdentifier": "b"}]), "its command");
    }
}
