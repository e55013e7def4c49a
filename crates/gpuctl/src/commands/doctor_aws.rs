//! `doctor`'s part on AWS: who we are, what is allowed, and what of queue, table and boxes should be mended.

use gpuctl_aws::{Account, Finding};
use gpuctl_control::config::Config;
use gpuctl_control::ports::PortError;
use gpuctl_control::wire::reply::CheckDocument;
use gpuctl_core::policy::QueuePolicy;
use gpuctl_core::units::show_span;

use super::doctor::{fail, pass};
use crate::failure::Failure;

pub(super) async fn check(config: &Config, account: &Account, mend: bool) -> Vec<CheckDocument> {
    let mut checks = vec![match account.aws.identity().await {
        Ok(who) => pass(
            "account",
            format!("{} in {}, account {}", who.arn, account.aws.region(), who.account),
        ),
        // Nothing else can be asked then.
        Err(error) => return vec![fail("account", &error.into())],
    }];
    checks.push(table(account, mend).await);
    for (_, queue) in config.policy.queue_pools() {
        checks.extend(self::queue(account, queue).await);
    }
    checks.extend(account.ec2.check().await.into_iter().map(finding));
    checks.push(places(config));
    checks
}

fn finding(found: Finding) -> CheckDocument {
    match found.trouble {
        None => pass(found.name, found.detail),
        Some(error) => {
            let mut check = fail(found.name, &error.into());
            if found.is_warning {
                check.status = "warn";
            }
            check
        }
    }
}

fn warn(name: &'static str, detail: String, fix: &str) -> CheckDocument {
    CheckDocument { name, status: "warn", detail, fix: Some(fix.to_owned()) }
}

async fn table(account: &Account, mend: bool) -> CheckDocument {
    let Some(table) = &account.table else {
        return warn(
            "ledger",
            "no `table` in [cloud]: holds and history are kept on this machine alone".to_owned(),
            "name a DynamoDB table there, so that a Lambda and other machines see the same",
        );
    };
    let found = match table.check_table().await {
        Err(error) if mend => {
            table.create_table().await.map_err(|made| made.because(error.to_string()))
        }
        found => found,
    };
    let fixable = |error: PortError| Failure::from(error).hint("`gpuctl doctor --fix` makes it");
    match found {
        Ok(()) => pass("ledger", "the DynamoDB table answers".to_owned()),
        Err(error) if mend => fail("ledger", &error.into()),
        Err(error) => fail("ledger", &fixable(error)),
    }
}

async fn queue(account: &Account, queue: &QueuePolicy) -> Vec<CheckDocument> {
    let name = &queue.name;
    let facts = match account.sqs.describe(name).await {
        Ok(facts) => facts,
        Err(error) => return vec![fail("queue", &error.into())],
    };
    let mut checks = Vec::new();
    if facts.fifo {
        // Q17
        let detail = format!("queue `{name}` is FIFO: one job in flight holds up all of its group");
        checks.push(warn(
            "queue",
            detail,
            "use a standard queue; results are kept once in any case",
        ));
    }
    match &facts.dead_letters {
        None => {
            let detail = format!("queue `{name}` has no dead-letter queue");
            checks.push(CheckDocument {
                name: "queue",
                status: "fail",
                detail,
                fix: Some("give it a redrive policy: a job that no worker can finish comes back for ever, and so does the box".to_owned()),
            });
        }
        // Q12: a dead message keeps the age that it had.
        Some(dead) if dead.retention < facts.retention => checks.push(warn(
            "queue",
            format!(
                "`{}` keeps messages for {}, `{name}` for {}: dead jobs may vanish early",
                dead.name,
                show_span(dead.retention),
                show_span(facts.retention)
            ),
            "let the dead-letter queue keep them for 14 days",
        )),
        Some(dead) if dead.receives_max != queue.receives_max.get() => checks.push(warn(
            "queue",
            format!(
                "`{name}` gives up after {} receives, receives_max says {}",
                dead.receives_max, queue.receives_max
            ),
            "make them equal: the redrive policy is what SQS goes by",
        )),
        Some(_) => {}
    }
    if facts.visibility > queue.visibility * 20 {
        let detail = format!(
            "queue `{name}` hides a message for {}: a job of a lost box waits as long if another program receives it",
            show_span(facts.visibility)
        );
        checks.push(warn(
            "queue",
            detail,
            "gpu-worker asks for its own lease; other programs get this one",
        ));
    }
    if checks.is_empty() {
        checks.push(pass("queue", format!("`{name}` has dead letters and fitting times")));
    }
    checks
}

/// Where results' files and uploaded inputs go.
fn places(config: &Config) -> CheckDocument {
    let named = config.policy.cloud.aws.as_ref();
    match named.and_then(|aws| aws.results.as_ref()) {
        Some(place) => pass("results", place.clone()),
        None => warn(
            "results",
            "no `results` in [cloud]: inputs must lie in S3 or on a disk that boxes share, and tasks that answer with files fail"
                .to_owned(),
            "set `results = \"s3://bucket/prefix\"`",
        ),
    }
}
