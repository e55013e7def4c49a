//! What `gpuctl doctor` checks on EC2: permissions by dry run, and boxes that cannot be stopped or started.
//!
//! Nothing is started, stopped or changed: a dry run makes EC2 say what it would have allowed. Quotas and keys are checked in
//! `limits`.

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::Tag;
use chrono::TimeDelta;
use gpuctl_control::ports::{Cloud, PortError, PortErrorClass, StartOrder};
use gpuctl_core::policy::{Boxes, LaunchTemplate};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};

use super::{Ec2Cloud, failed, seen};
use crate::error::code;

/// The error code of a dry run that would have succeeded.
const WOULD_DO: &str = "DryRunOperation";

/// A spot request that ends within this time is a warning: one that is made to last has a date years ahead.
const REQUEST_ENDS_WARN: TimeDelta = TimeDelta::days(365);

/// The outcome of one check.
#[derive(Debug)]
pub struct Finding {
    /// What was checked, e.g. `boxes`, `permission`, `quota`, `key`.
    pub name: &'static str,
    /// One sentence.
    pub detail: String,
    /// What is wrong, with a hint; `None` if nothing is.
    pub problem: Option<PortError>,
    /// Whether gpuctl works in spite of the problem.
    pub is_warning: bool,
}

impl Finding {
    /// Nothing is wrong.
    #[must_use]
    pub fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, detail: detail.into(), problem: None, is_warning: false }
    }

    /// A problem that must be fixed.
    #[must_use]
    pub fn bad(name: &'static str, problem: PortError) -> Self {
        Self { name, detail: problem.to_string(), problem: Some(problem), is_warning: false }
    }

    /// A problem that should be fixed.
    #[must_use]
    pub fn doubtful(name: &'static str, problem: PortError) -> Self {
        Self { is_warning: true, ..Self::bad(name, problem) }
    }
}

impl Ec2Cloud {
    /// Checks the boxes, and the permissions to start, stop, tag and launch them.
    pub async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut example = None;
        match self.boxes(&self.policy).await {
            Ok(listing) => {
                let boxes: usize = listing.pools.values().map(Vec::len).sum();
                let detail = format!("{boxes} boxes of {} pools found", listing.pools.len());
                findings.push(Finding::good("boxes", detail));
                findings
                    .extend(listing.errors.into_iter().map(|error| Finding::bad("boxes", error)));
                let all = listing.pools.into_values().flatten();
                for one in all {
                    if let Ok(known) = self.known(&one.id).await {
                        if known.is_one_time && !known.is_launched {
                            findings.push(Finding::doubtful("boxes", one_time(&known.instance_id)));
                        }
                        let now = self.clock.now();
                        findings.extend(known.request_ends.and_then(|ends| {
                            let ends = request_ends(&known.instance_id, ends, now)?;
                            Some(Finding::doubtful("boxes", ends))
                        }));
                        example = example.or(Some(known.instance_id));
                    }
                    if let Some(why) = one.unstartable {
                        let text = format!("box {} {why}", one.id);
                        let error = PortError::new(PortErrorClass::Conflict, text);
                        findings.push(Finding::doubtful("boxes", error));
                    }
                }
            }
            Err(error) => findings.push(Finding::bad("boxes", error)),
        }
        if let Some(instance) = example {
            findings.extend(self.permissions(&instance).await);
        }
        findings.extend(self.differing().await);
        for pool in &self.policy.pools {
            if let Some(Boxes::Launch(template)) = &pool.boxes {
                findings.push(self.may_launch(&pool.id, template).await);
            }
        }
        findings
    }

    /// Boxes that their launch template would not make any more.
    async fn differing(&self) -> Vec<Finding> {
        let differs = |(id, how): (BoxId, String)| {
            let error = PortError::new(PortErrorClass::Other, format!("box {id} {how}"));
            let hint = "`gpuctl retire --outdated` terminates it once it is stopped, and `gpuctl deploy` makes a new one";
            Finding::doubtful("boxes", error.hint(hint))
        };
        match self.outdated().await {
            Ok(found) => found.into_iter().map(differs).collect(),
            Err(error) => vec![Finding::doubtful("boxes", error)],
        }
    }

    async fn permissions(&self, instance: &str) -> Vec<Finding> {
        let tag = Tag::builder().key(seen::STARTED_TAG).value("dry run").build();
        let start = self.once.start_instances().instance_ids(instance).dry_run(true).send();
        let stop = self.once.stop_instances().instance_ids(instance).dry_run(true).send();
        let mark = self.once.create_tags().resources(instance).tags(tag).dry_run(true).send();
        let (start, stop, mark) = tokio::join!(start, stop, mark);
        vec![
            allowed("ec2:StartInstances", start.err()),
            allowed("ec2:StopInstances", stop.err()),
            allowed("ec2:CreateTags", mark.err()),
        ]
    }

    async fn may_launch(&self, pool: &PoolId, template: &LaunchTemplate) -> Finding {
        let order = StartOrder {
            pool: pool.clone(),
            box_id: format!("{pool}-on-demand-1")
                .parse()
                .expect("a pool's name and a suffix are a name"),
            at: self.clock.now(),
            token: "dry run".to_owned(),
        };
        let error = self.fleet(template, &order).dry_run(true).send().await.err();
        allowed("ec2:CreateFleet", error)
    }
}

/// What a dry run's response means: it always is an error, and one code stands for success.
fn allowed<E>(action: &'static str, error: Option<SdkError<E, HttpResponse>>) -> Finding
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        Some(error) if code(&error) == Some(WOULD_DO) => Finding::good("permission", action),
        // The state is checked after the permission.
        Some(error) if code(&error) == Some("IncorrectInstanceState") => {
            Finding::good("permission", action)
        }
        Some(error) => Finding::bad(
            "permission",
            failed(action, format!("the dry run of {action} failed"), error),
        ),
        None => Finding::good("permission", action),
    }
}

/// P7: a launch template's spot options have a `ValidUntil`, in 7 days unless it is set (EC2 API Reference,
/// `LaunchTemplateSpotMarketOptionsRequest`), and nothing else tells that a box will be lost.
fn request_ends(instance: &str, ends: Timestamp, now: Timestamp) -> Option<PortError> {
    if ends - now > REQUEST_ENDS_WARN {
        return None;
    }
    let day = ends.format("%Y-%m-%d %H:%M UTC");
    let text = if ends > now {
        let days = (ends - now).num_days();
        format!(
            "the spot request of box {instance} ends on {day}, in {days} days: after its next stop EC2 can never start it again"
        )
    } else {
        format!(
            "the spot request of box {instance} ended on {day}: once it has stopped, EC2 can never start it again"
        )
    };
    let hint = "EC2 cannot change that date: make a new box whose spot options have a `ValidUntil` years ahead (a launch template's default is 7 days), \
        copy what only this box's disk has, and `gpuctl retire` this one";
    Some(PortError::new(PortErrorClass::Other, text).hint(hint))
}

fn one_time(instance: &str) -> PortError {
    let text = format!("box {instance} is a one-time spot box: EC2 can only terminate it");
    PortError::new(PortErrorClass::Other, text)
        .hint("make a new one with a persistent request and the interruption behaviour `stop`")
}
