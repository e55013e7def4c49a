//! `doctor` on AWS: account, permissions, whether a controller is running, and problems of queue, table, boxes, quotas and prices.

use chrono::TimeDelta;
use gpuctl_aws::{Account, Finding, QueueFacts, check_limits};
use gpuctl_control::config::Config;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::policy::{Pool, QueuePolicy, RECEIVES_SPARE};
use gpuctl_core::units::show_duration;

use super::doctor::Repair;
use super::finding::{fail, pass, warn};
use super::prices::types;
use crate::context::Context;
use crate::documents::reply::CheckDocument;
use crate::failure::Failure;

/// How far the clocks may differ before a warning: leases and reasons name times.
const CLOCK_WARN: TimeDelta = TimeDelta::seconds(60);
/// From here on AWS rejects requests by their date, and the controller's lease is unreliable.
const CLOCK_MAX: TimeDelta = TimeDelta::minutes(5);
/// What a daily budget may add to a job's wait.
const DAY: TimeDelta = TimeDelta::days(1);
/// What a monthly budget may add to it.
const MONTH_MAX: TimeDelta = TimeDelta::days(31);
/// The longest that SQS keeps a message (SQS Developer Guide, "Amazon SQS message quotas").
const RETENTION_MAX: TimeDelta = TimeDelta::days(14);
/// Missed ticks after which no controller seems to be running.
const TICKS_MISSED_MAX: i32 = 3;
/// EventBridge calls a Lambda function once a minute at most, whatever the policy says.
const TICK_MIN: TimeDelta = TimeDelta::minutes(1);
/// What a parameter of SSM holds in bytes, of the standard and the advanced tier (Systems Manager User Guide, "Managing parameter tiers").
const PARAMETER_BYTES_MAX: u64 = 4_096;
const ADVANCED_BYTES_MAX: u64 = 8_192;
/// On-demand prices change seldom and spot prices all the time; half a year is too old for either.
const PRICES_AGE_MAX: TimeDelta = TimeDelta::days(180);

pub(super) async fn check(
    context: &Context,
    account: &Account,
    repair: Repair,
) -> Vec<CheckDocument> {
    let config = &context.config;
    let (identity, ahead) = account.aws.identity_and_clock().await;
    let mut checks = vec![match identity {
        Ok(who) => pass(
            "account",
            format!("{} in {}, account {}", who.arn, account.aws.region(), who.account),
        ),
        // Without an identity nothing else can be checked; a wrong clock may be the cause.
        Err(error) => {
            let clock = ahead.map(clock).filter(|check| check.status != "pass");
            return std::iter::once(fail("account", &error.into())).chain(clock).collect();
        }
    }];
    checks.extend(ahead.map(clock));
    checks.push(table(account, repair).await);
    checks.push(last_reconcile(context).await);
    for (pool, queue) in config.policy.queue_pools() {
        for (_, name) in queue.lanes() {
            let lane = QueuePolicy { name: name.clone(), ..queue.clone() };
            checks.extend(self::queue(account, pool, &lane).await);
        }
    }
    checks.extend(account.ec2.check().await.into_iter().map(finding));
    let limits = check_limits(&account.aws, &account.ec2, &config.policy).await;
    checks.extend(limits.into_iter().map(finding));
    checks.extend(results(account, config).await);
    checks.extend(policy_size(config));
    checks.push(prices(context, account.aws.region()).await);
    checks
}

/// T14: each response of AWS has the time at which it was sent.
fn clock(ahead: TimeDelta) -> CheckDocument {
    let (off, way) = (ahead.abs(), if ahead < TimeDelta::zero() { "behind" } else { "ahead of" });
    let detail =
        format!("this machine's clock is {} {way} AWS's", show_duration(whole_seconds(off)));
    let fix = "synchronise it with chrony or systemd-timesyncd; on EC2 from 169.254.169.123";
    if off >= CLOCK_MAX {
        let detail =
            format!("{detail}: AWS rejects requests, and the controller's lease is unreliable");
        return CheckDocument { status: "fail", ..warn("clock", detail, fix) };
    }
    if off >= CLOCK_WARN {
        return warn("clock", detail, fix);
    }
    // AWS sends whole seconds.
    pass("clock", "agrees with AWS's to within a minute".to_owned())
}

fn whole_seconds(span: TimeDelta) -> TimeDelta {
    TimeDelta::seconds(span.num_seconds())
}

/// Whether a controller is running: without one holds never end, and no box starts or stops.
async fn last_reconcile(context: &Context) -> CheckDocument {
    let fix = "keep `gpuctl run` running, or let EventBridge call the Lambda function each minute (`rate(1 minute)`)";
    let look = match context.ports.ledger.last_reconcile().await {
        Ok(look) => look,
        Err(error) => return fail("last reconcile", &error.into()),
    };
    let Some(at) = look else {
        return warn("last reconcile", "no controller has reconciled yet".to_owned(), fix);
    };
    let ago = context.now() - at;
    let detail = format!("a controller reconciled {} ago", show_duration(whole_seconds(ago)));
    let tick = context.config.policy.cloud.tick.max(TICK_MIN);
    if ago > tick * TICKS_MISSED_MAX {
        let detail = format!("{detail}, and should every {}", show_duration(tick));
        return warn("last reconcile", detail, fix);
    }
    pass("last reconcile", detail)
}

/// Whether each instance type of the policy has a price, and how old the oldest is.
async fn prices(context: &Context, region: &str) -> CheckDocument {
    let cost = &context.config.policy.cost;
    if cost.usd_hour.is_some() {
        return pass("prices", "the price per hour is set by [cost] usd_hour".to_owned());
    }
    let types = match types(context, region).await {
        Ok(types) => types,
        Err(failure) => return CheckDocument { status: "warn", ..fail("prices", &failure) },
    };
    let pairs = types.iter().flat_map(|(region, of)| of.iter().map(move |kind| (kind, region)));
    let fix = "`gpuctl cost prices --refresh` fetches them from AWS";
    let mut known = Vec::new();
    for (kind, region) in pairs {
        let Some(price) = cost.prices.price(kind, region) else {
            let other = format!("{} in {}", cost.instance_type, cost.region);
            let detail =
                format!("no price is known for {kind} in {region}: it is priced as {other}");
            return warn("prices", detail, fix);
        };
        known.extend(price.taken_on().map(|day| (day, price)));
    }
    let Some((day, oldest)) = known.into_iter().min_by_key(|(day, _)| *day) else {
        return pass("prices", "no instance type to price".to_owned());
    };
    let age = context.now().date_naive() - day;
    let detail = format!(
        "{} in {}: {}, {} days old",
        oldest.instance_type,
        oldest.region,
        oldest.origin(),
        age.num_days()
    );
    if age > PRICES_AGE_MAX { warn("prices", detail, fix) } else { pass("prices", detail) }
}

/// Whether the policy fits into a parameter of SSM, where the function may read it from.
fn policy_size(config: &Config) -> Option<CheckDocument> {
    config.policy.cloud.aws.as_ref()?.function.as_ref()?;
    let bytes = std::fs::metadata(config.file.as_ref()?).ok()?.len();
    let fits = if bytes <= PARAMETER_BYTES_MAX {
        format!("it fits into a standard SSM parameter ({PARAMETER_BYTES_MAX})")
    } else if bytes <= ADVANCED_BYTES_MAX {
        format!(
            "more than a standard SSM parameter holds ({PARAMETER_BYTES_MAX}): put it into S3, or an advanced parameter"
        )
    } else {
        format!("more than an SSM parameter holds ({ADVANCED_BYTES_MAX}): put it into S3")
    };
    Some(pass("policy", format!("{bytes} bytes, {fits}")))
}

fn finding(found: Finding) -> CheckDocument {
    match found.problem {
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

async fn table(account: &Account, repair: Repair) -> CheckDocument {
    let Some(table) = &account.table else {
        return warn(
            "ledger",
            "no `table` under [cloud]: holds and history are kept on this machine only".to_owned(),
            "set a DynamoDB table there, so that the Lambda function and other machines share them",
        );
    };
    let found = match table.check_table().await {
        Err(error) if repair == Repair::Yes => {
            table.create_table().await.map_err(|made| made.because(error.to_string()))
        }
        found => found,
    };
    // To describe the table is one permission; to use it takes six others.
    let found = match found {
        Ok(()) => table.probe().await,
        Err(error) => Err(error),
    };
    let fixable = |error: PortError| Failure::from(error).hint("`gpuctl doctor --fix` creates it");
    match found {
        Ok(()) => pass("ledger", "the DynamoDB table can be read and written".to_owned()),
        Err(error) if repair == Repair::Yes || error.class != PortErrorClass::NotFound => {
            fail("ledger", &error.into())
        }
        Err(error) => fail("ledger", &fixable(error)),
    }
}

async fn queue(account: &Account, pool: &Pool, queue: &QueuePolicy) -> Vec<CheckDocument> {
    let facts = match account.sqs.describe(&queue.name).await {
        Ok(facts) => facts,
        Err(error) => return vec![fail("queue", &error.into())],
    };
    let name = &queue.name;
    let mut checks = Vec::new();
    if facts.fifo {
        // Q17
        checks.push(warn(
            "queue",
            format!("queue `{name}` is FIFO: one job in flight blocks all others of its group"),
            "use a standard queue; each result is kept once in any case",
        ));
    }
    checks.extend(dead_letter_queue(queue, &facts));
    checks.extend(retention(pool, queue, facts.retention));
    if facts.visibility > queue.visibility * 20 {
        checks.push(warn(
            "queue",
            format!(
                "queue `{name}` has a visibility timeout of {}: a job that another program received and lost waits that long",
                show_duration(facts.visibility)
            ),
            "gpu-worker sets its own timeout; other programs get this one",
        ));
    }
    if checks.is_empty() {
        let detail = format!("`{name}` has a dead-letter queue and suitable timeouts");
        checks.push(pass("queue", detail));
    }
    checks
}

/// Whether the queue keeps a message for as long as the policy lets a job wait: `max_wait`, and a day or a month longer if a budget is
/// exhausted. SQS deletes what is older, without a trace.
fn retention(pool: &Pool, queue: &QueuePolicy, kept: TimeDelta) -> Option<CheckDocument> {
    let (day, month) = (pool.budget.day.map(|_| DAY), pool.budget.month.map(|_| MONTH_MAX));
    let waits = queue.max_wait + month.or(day).unwrap_or_default();
    if kept >= waits {
        return None;
    }
    let (name, kept_for, waits_for) = (&queue.name, show_duration(kept), show_duration(waits));
    let detail =
        format!("queue `{name}` keeps messages for {kept_for}, and a job may wait for {waits_for}");
    if kept >= RETENTION_MAX {
        let fix = "SQS keeps no message for longer: a job that waits for the budget's next month may be lost, and is shown as expired";
        return Some(warn("queue", detail, fix));
    }
    let wanted = show_duration(waits.min(RETENTION_MAX));
    let fix = format!(
        "set its message retention period to {wanted} or more: SQS deletes what is older, and the job is lost"
    );
    Some(CheckDocument { status: "fail", ..warn("queue", detail, fix) })
}

/// What is wrong with the dead-letter queue, if something is.
fn dead_letter_queue(queue: &QueuePolicy, facts: &QueueFacts) -> Option<CheckDocument> {
    let name = &queue.name;
    let Some(dead) = &facts.dead_letters else {
        let fix = "give it a redrive policy: otherwise a job that no worker can finish is retried forever, and keeps starting a box";
        let detail = format!("queue `{name}` has no dead-letter queue");
        return Some(CheckDocument { status: "fail", ..warn("queue", detail, fix) });
    };
    // Q12: a dead message keeps the age that it had.
    if dead.retention < facts.retention {
        let (kept, kept_here) = (show_duration(dead.retention), show_duration(facts.retention));
        return Some(warn(
            "queue",
            format!(
                "`{}` keeps messages for {kept}, `{name}` for {kept_here}: dead jobs may expire early",
                dead.name
            ),
            "set the dead-letter queue's retention to 14 days",
        ));
    }
    let wanted = (queue.receives_max.get() + RECEIVES_SPARE).min(SQS_RECEIVES_MAX);
    (dead.receives_max < wanted).then(|| {
        warn(
            "queue",
            format!(
                "SQS moves a message of `{name}` to the dead letters after {} receives, receives_max is {}: why a job is dead may be unknown",
                dead.receives_max, queue.receives_max
            ),
            format!(
                "set `maxReceiveCount` in its redrive policy to {wanted}: then a worker moves such a message, and notes why"
            ),
        )
    })
}

/// The greatest `maxReceiveCount`.
const SQS_RECEIVES_MAX: u32 = 1_000;

/// Where results' files and uploaded inputs are stored, whether that can be written, and whether it is ever emptied.
async fn results(account: &Account, config: &Config) -> Vec<CheckDocument> {
    let named = config.policy.cloud.aws.as_ref().and_then(|aws| aws.results.as_ref());
    let (Some(location), Some(files)) = (named, &account.results) else {
        return vec![warn(
            "results",
            "no `results` under [cloud]: inputs must be in S3 or on a disk that boxes share, and tasks that produce files fail"
                .to_owned(),
            "set `results = \"s3://bucket/prefix\"`",
        )];
    };
    let mut checks = vec![match files.probe().await {
        Ok(()) => pass("results", location.clone()),
        Err(error) => fail("results", &error.into()),
    }];
    if files.has_lifecycle().await == Some(false) {
        checks.push(warn(
            "results",
            format!("no lifecycle rule of the bucket `{}` deletes old files", files.bucket()),
            "add one (crates/gpuctl-aws/README.md has it), or run `gpuctl jobs delete --before` now and then",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use gpuctl_core::policy::Policy;

    use super::*;

    #[test]
    fn q18_a_queue_that_drops_a_job_before_its_box_may_start_fails() {
        let status = |settings: &str, days: i64| {
            let text = format!(
                "[cloud]\nkind = \"aws\"\ntable = \"t\"\n[pool.gpu]\nqueue = \"jobs\"\ninstances = [\"i-0123456789abcdef0\"]\n{settings}"
            );
            let policy = Policy::parse(&text).unwrap();
            let (pool, queue) = policy.queue_pools().next().unwrap();
            retention(pool, queue, TimeDelta::days(days)).map(|check| check.status)
        };
        assert_eq!(status("max_wait = \"10m\"", 4), None);
        assert_eq!(status("max_wait = \"7d\"", 4), Some("fail"));
        assert_eq!(status("max_wait = \"7d\"", 7), None);
        assert_eq!(status("max_wait = \"3d12h\"\nbudget_usd_day = 1.0", 4), Some("fail"));
        assert_eq!(status("max_wait = \"1d\"\nbudget_usd_day = 1.0", 4), None);
        assert_eq!(status("budget_usd_month = 1.0", 13), Some("fail"));
        assert_eq!(status("budget_usd_month = 1.0", 14), Some("warn"));
    }

    #[test]
    fn t14_a_clock_that_is_off_is_a_warning_after_a_minute_and_a_failure_after_five() {
        for (seconds, status, words) in [
            (0, "pass", "agrees"),
            (-59, "pass", "agrees"),
            (61, "warn", "1m1s ahead of"),
            (-299, "warn", "behind"),
            (300, "fail", "AWS rejects requests"),
            (-86_400, "fail", "behind"),
        ] {
            let check = clock(TimeDelta::seconds(seconds));
            assert_eq!(check.status, status, "{seconds}: {}", check.detail);
            assert!(check.detail.contains(words), "{}", check.detail);
        }
    }
}
