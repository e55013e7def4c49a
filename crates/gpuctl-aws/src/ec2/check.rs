//! What a person should mend before they rely on it: permissions by dry run, boxes that cannot be stopped, templates, quotas.
//!
//! Nothing is started, stopped or changed here: EC2 itself says what it would have allowed.

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::Tag;
use gpuctl_control::ports::{Cloud, PortError, StartOrder};
use gpuctl_core::policy::{Boxes, LaunchTemplate};

use super::{Ec2Cloud, failed, seen};
use crate::error::code;

/// What EC2 answers to a dry run that it would have carried out.
const WOULD_DO: &str = "DryRunOperation";

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How it stands, in words.
    pub detail: String,
    /// Why it is no good, if so.
    pub trouble: Option<PortError>,
    /// Whether it works all the same.
    pub is_warning: bool,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, detail: detail.into(), trouble: None, is_warning: false }
    }

    /// Something must be mended.
    #[must_use]
    pub fn bad(name: &'static str, trouble: PortError) -> Self {
        Self { name, detail: trouble.to_string(), trouble: Some(trouble), is_warning: false }
    }

    /// Something should be mended.
    #[must_use]
    pub fn doubtful(name: &'static str, trouble: PortError) -> Self {
        Self { is_warning: true, ..Self::bad(name, trouble) }
    }
}

impl Ec2Cloud {
    /// Looks at boxes and permissions.
    pub async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut example = None;
        match self.boxes(&self.policy).await {
            Ok(listing) => {
                let boxes: usize = listing.pools.values().map(Vec::len).sum();
                let detail = format!("{boxes} boxes of {} pools seen", listing.pools.len());
                findings.push(Finding::good("boxes", detail));
                findings
                    .extend(listing.errors.into_iter().map(|error| Finding::bad("boxes", error)));
                let all = listing.pools.into_values().flatten();
                for one in all {
                    if let Ok(known) = self.known(&one.id) {
                        if known.is_one_time && !known.is_launched {
                            findings.push(Finding::doubtful("boxes", one_time(&known.instance)));
                        }
                        example = example.or(Some(known.instance));
                    }
                    if let Some(why) = one.unstartable {
                        let text = format!("box {} {why}", one.id);
                        let error =
                            PortError::new(gpuctl_control::ports::PortErrorClass::Conflict, text);
                        findings.push(Finding::doubtful("boxes", error));
                    }
                }
            }
            Err(error) => findings.push(Finding::bad("boxes", error)),
        }
        if let Some(instance) = example {
            findings.extend(self.permissions(&instance).await);
        }
        for pool in &self.policy.pools {
            if let Some(Boxes::Launch(template)) = &pool.boxes {
                findings.push(self.may_launch(&pool.id, template).await);
            }
        }
        findings
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

    async fn may_launch(
        &self,
        pool: &gpuctl_core::units::PoolId,
        template: &LaunchTemplate,
    ) -> Finding {
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

/// What a dry run's answer means: it always is an error, and one of them is good.
fn allowed<E>(action: &'static str, error: Option<SdkError<E, HttpResponse>>) -> Finding
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        Some(error) if code(&error) == Some(WOULD_DO) => Finding::good("permission", action),
        // Whoever is told about the state of the box may change it.
        Some(error) if code(&error) == Some("IncorrectInstanceState") => {
            Finding::good("permission", action)
        }
        Some(error) => {
            Finding::bad("permission", failed(action, format!("{action} is not possible"), error))
        }
        None => Finding::good("permission", action),
    }
}

fn one_time(instance: &str) -> PortError {
    let text = format!("box {instance} is a one-time spot box: EC2 can only terminate it");
    PortError::new(gpuctl_control::ports::PortErrorClass::Other, text)
        .hint("launch it anew with a persistent request and the interruption behaviour `stop`")
}
