//! `doctor`'s part on AWS: who we are, what is allowed, whether anybody watches, and what of queue, table, boxes, quotas and prices
//! should be mended.

use chrono::TimeDelta;
use gpuctl_aws::{Account, Finding, check_limits};
use gpuctl_control::config::Config;
use gpuctl_control::ports::PortError;
use gpuctl_core::policy::QueuePolicy;
use gpuctl_core::units::show_span;

use super::doctor::{fail, pass};
use super::prices::types;
use crate::context::Context;
use crate::documents::reply::CheckDocument;
use crate::failure::Failure;

/// How far the clocks may differ: leases and reasons name instants.
const CLOCK_DOUBT: TimeDelta = TimeDelta::seconds(60);
/// From here on AWS refuses requests by their date, and the loop's lease means nothing.
const CLOCK_MAX: TimeDelta = TimeDelta::minutes(5);
/// Ticks without a look after which nobody seems to watch.
const TICKS_MISSED_MAX: i32 = 3;
/// EventBridge calls a Lambda each minute at most, whatever the policy says.
const TICK_MIN: TimeDelta = TimeDelta::minutes(1);
/// AWS changes on-demand prices seldom and spot prices all the time; half a year is too old for either.
const PRICES_AGE_MAX: TimeDelta = TimeDelta::days(180);

pub(super) async fn check(context: &Context, account: &Account, mend: bool) -> Vec<CheckDocument> {
    let config = &context.config;
    let (identity, ahead) = account.aws.identity_and_clock().await;
    let mut checks = vec![match identity {
        Ok(who) => pass(
            "account",
            format!("{} in {}, account {}", who.arn, account.aws.region(), who.account),
        ),
        // Nothing else can be asked then; a wrong clock may be why.
        Err(error) => {
            let clock = ahead.map(clock).filter(|check| check.status != "pass");
            return std::iter::once(fail("account", &error.into())).chain(clock).collect();
        }
    }];
    checks.extend(ahead.map(clock));
    checks.push(table(account, mend).await);
    checks.push(last_look(context).await);
    for (_, queue) in config.policy.queue_pools() {
        checks.extend(self::queue(account, queue).await);
    }
    checks.extend(account.ec2.check().await.into_iter().map(finding));
    let limits = check_limits(&account.aws, &account.ec2, &config.policy).await;
    checks.extend(limits.into_iter().map(finding));
    checks.push(places(config));
    checks.push(prices(context, account.aws.region()).await);
    checks
}

/// T14: AWS says in each answer when it gave it.
fn clock(ahead: TimeDelta) -> CheckDocument {
    let (off, way) = (ahead.abs(), if ahead < TimeDelta::zero() { "behind" } else { "ahead of" });
    let detail = format!("this machine's clock is {} {way} AWS's", show_span(whole_seconds(off)));
    let fix = "let chrony or systemd-timesyncd set it; on EC2 from 169.254.169.123";
    if off >= CLOCK_MAX {
        let detail = format!("{detail}: AWS refuses requests, and the loop's lease means nothing");
        return CheckDocument { status: "fail", ..warn("clock", detail, fix) };
    }
    if off >= CLOCK_DOUBT {
        return warn("clock", detail, fix);
    }
    // AWS says whole seconds.
    pass("clock", "agrees with AWS's within a minute".to_owned())
}

fn whole_seconds(span: TimeDelta) -> TimeDelta {
    TimeDelta::seconds(span.num_seconds())
}

/// Whether anybody watches: without it holds never end, and no box starts or stops.
async fn last_look(context: &Context) -> CheckDocument {
    let fix = "keep `gpuctl run` at work, or let EventBridge call the Lambda each minute (`rate(1 minute)`)";
    let look = match context.ports.ledger.last_look().await {
        Ok(look) => look,
        Err(error) => return fail("last look", &error.into()),
    };
    let Some(at) = look else {
        return warn("last look", "no controller has looked yet".to_owned(), fix);
    };
    let ago = context.now() - at;
    let detail = format!("a controller looked {} ago", show_span(whole_seconds(ago)));
    let tick = context.config.policy.cloud.tick.max(TICK_MIN);
    if ago > tick * TICKS_MISSED_MAX {
        let detail = format!("{detail}, and should each {}", show_span(tick));
        return warn("last look", detail, fix);
    }
    pass("last look", detail)
}

/// How old the prices of the policy's types are, and whether all have one.
async fn prices(context: &Context, region: &str) -> CheckDocument {
    let cost = &context.config.policy.cost;
    if cost.usd_hour.is_some() {
        return pass("prices", "every hour costs what [cost] usd_hour says".to_owned());
    }
    let types = match types(context, region).await {
        Ok(types) => types,
        Err(failure) => return CheckDocument { status: "warn", ..fail("prices", &failure) },
    };
    let pairs = types.iter().flat_map(|(region, of)| of.iter().map(move |kind| (kind, region)));
    let fix = "`gpuctl cost prices --refresh` asks AWS";
    let mut known = Vec::new();
    for (kind, region) in pairs {
        let Some(price) = cost.prices.price(kind, region) else {
            let other = format!("{} in {}", cost.instance_type, cost.region);
            let detail =
                format!("no price is known for {kind} in {region}: it is counted as {other}");
            return warn("prices", detail, fix);
        };
        known.extend(price.taken_on().map(|day| (day, price)));
    }
    let Some((day, oldest)) = known.into_iter().min_by_key(|(day, _)| *day) else {
        return pass("prices", "there is nothing to price".to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t14_a_clock_that_is_off_is_doubtful_after_a_minute_and_wrong_after_five() {
        for (seconds, status, words) in [
            (0, "pass", "agrees"),
            (-59, "pass", "agrees"),
            (61, "warn", "1m1s ahead of"),
            (-299, "warn", "behind"),
            (300, "fail", "AWS refuses requests"),
            (-86_400, "fail", "behind"),
        ] {
            let check = clock(TimeDelta::seconds(seconds));
            assert_eq!(check.status, status, "{seconds}: {}", check.detail);
            assert!(check.detail.contains(words), "{}", check.detail);
        }
    }
}
