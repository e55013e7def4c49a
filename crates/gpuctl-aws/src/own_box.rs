//! The box that a worker lives in: who it is and whether it is taken back, by IMDSv2, and how it ends itself.
//!
//! It sees itself alone. It is shut down from inside, which needs no permission of EC2's; where that fails, EC2 is asked to stop
//! it. A box that was launched is not to be stopped but terminated, and of that only its shutdown counts, with the template's
//! `InstanceInitiatedShutdownBehavior`; a one-time spot box cannot be stopped, and EC2 refuses.

mod query;

use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use aws_config::imds::Client;
use aws_config::imds::client::error::ImdsError;
use chrono::{DateTime, TimeDelta};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{Clock, Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::{Boxes, Policy};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::Instant;

use self::query::{Call, Query};
use crate::Aws;
use crate::calls::show;
use crate::tags::{BOX_TAG, STOPPED_TAG, stamp};

/// How long a shutdown may take to be accepted: it is handed to the system, not waited for.
const POWER_OFF_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(20);
/// How long a box may live on after its shutdown was accepted: services get their signal within a second, and this process is one.
const SHUTDOWN_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);
/// The oldest run that a start of this box may belong to: our order, and what EC2 takes to begin it.
const ORDER_AGE_MAX: TimeDelta = TimeDelta::minutes(5);

/// Who this box is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The instance's id.
    pub instance: String,
    /// The name under which the controller knows it: its place in the pool, or its id.
    pub box_id: BoxId,
    /// When it was last started.
    pub launched_at: Timestamp,
}

/// The box that this process runs in.
pub struct OwnBox {
    metadata: Client,
    identity: Identity,
    pool: PoolId,
    power_off: Vec<String>,
    run_started_at: Mutex<Timestamp>,
    ec2: Query,
    /// Whether it ends by being terminated.
    is_launched: bool,
    /// When the system took the order to shut down.
    ordered_at: Mutex<Option<Instant>>,
    shutdown_max: std::time::Duration,
}

/// What the instance identity document says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance_id: String,
    pending_time: String,
}

/// A notice of interruption.
#[derive(Deserialize)]
struct Action {
    time: String,
}

impl OwnBox {
    /// Asks the metadata service who this box is, which works for this pool.
    ///
    /// # Errors
    /// When there is none: this is no EC2 instance, or a container that may not reach it.
    pub async fn find(aws: &Aws, policy: &Policy, pool: PoolId) -> Result<Self, PortError> {
        Self::find_by(Client::builder().build(), aws, policy, pool).await
    }

    /// As `find`, by this client of a metadata service.
    ///
    /// # Errors
    /// As there.
    pub async fn find_by(
        metadata: Client,
        aws: &Aws,
        policy: &Policy,
        pool: PoolId,
    ) -> Result<Self, PortError> {
        let (identity, has_place) = identity(&metadata).await?;
        let boxes = policy.pool(&pool).and_then(|pool| pool.boxes.as_ref());
        Ok(Self {
            run_started_at: Mutex::new(identity.launched_at),
            is_launched: has_place || matches!(boxes, Some(Boxes::Launch(_))),
            power_off: policy.worker.power_off.clone(),
            ec2: Query::new(aws),
            ordered_at: Mutex::default(),
            shutdown_max: SHUTDOWN_TIME_MAX,
            metadata,
            identity,
            pool,
        })
    }

    /// With another time that a shutdown may take.
    #[must_use]
    pub fn with_shutdown_max(self, shutdown_max: std::time::Duration) -> Self {
        Self { shutdown_max, ..self }
    }

    /// Who this box is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes over the key of the run that the controller has noted for this start, among the latest starts of this box; answers the
    /// key, which is the start itself if nobody has noted any.
    pub fn adopt(&self, starts: impl Iterator<Item = Timestamp>) -> Timestamp {
        let launched_at = self.identity.launched_at;
        let ours = |at: &Timestamp| {
            *at <= launched_at + TimeDelta::minutes(1) && launched_at - *at <= ORDER_AGE_MAX
        };
        let key = starts.filter(ours).max().unwrap_or(launched_at);
        *self.run_started_at.lock().unwrap_or_else(PoisonError::into_inner) = key;
        key
    }

    /// Waits for the end, if the system has taken the order to shut down: this process must not outlive it. Where it does, EC2
    /// is asked. Returns at once if there is no such order.
    ///
    /// # Errors
    /// When EC2 does not stop the box either.
    pub async fn see_off(&self) -> Result<(), PortError> {
        let ordered_at = *self.ordered_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ordered_at) = ordered_at else { return Ok(()) };
        tokio::time::sleep_until(ordered_at + self.shutdown_max).await;
        let after = self.shutdown_max.as_secs();
        tracing::warn!("`{}` is {after} s ago, and this box lives", self.power_off.join(" "));
        self.stop_by_ec2().await
    }

    /// Has EC2 stop this box.
    async fn stop_by_ec2(&self) -> Result<(), PortError> {
        let (id, now) = (self.identity.instance.as_str(), SystemClock.now());
        if self.is_launched {
            let text = format!("box {id} was launched: EC2 is not asked to stop it");
            return Err(PortError::new(PortErrorClass::Conflict, text).hint(
                "only its own shutdown ends it (InstanceInitiatedShutdownBehavior = terminate), or the controller",
            ));
        }
        // Without it the stop would count as somebody's in the console, and keep the box off for hours (R1).
        show(format_args!(
            "ec2 create-tags --resources {id} --tags Key={STOPPED_TAG},Value={}",
            stamp(now)
        ));
        let words =
            [("ResourceId.1", id), ("Tag.1.Key", STOPPED_TAG), ("Tag.1.Value", &stamp(now))];
        let what = format!("box {id} was not tagged");
        let tagged = self.ec2.call(Call { action: "CreateTags", words: &words, what, now }).await;
        if let Err(error) = tagged {
            tracing::warn!(%error, "this stop will count as somebody's");
        }
        show(format_args!("ec2 stop-instances --instance-ids {id}"));
        let words = [("InstanceId.1", id)];
        let what = format!("box {id} was not stopped");
        self.ec2.call(Call { action: "StopInstances", words: &words, what, now }).await
    }

    /// When EC2 takes this box back, if it has said so.
    async fn notice(&self) -> Result<Option<Timestamp>, PortError> {
        let Some(text) = read(&self.metadata, "/latest/meta-data/spot/instance-action").await?
        else {
            return Ok(None);
        };
        let at = serde_json::from_str::<Action>(&text).ok();
        let at = at.and_then(|action| DateTime::parse_from_rfc3339(&action.time).ok());
        // A notice that cannot be read is one all the same.
        Ok(Some(at.map_or(self.identity.launched_at, |at| at.to_utc())))
    }
}

/// Who the box is, and whether its name is that of a place, which a launch gives.
async fn identity(metadata: &Client) -> Result<(Identity, bool), PortError> {
    let missing = |what: &str| {
        PortError::new(PortErrorClass::NotFound, format!("the instance's metadata has no {what}"))
    };
    let text = read(metadata, "/latest/dynamic/instance-identity/document").await?;
    let document: Document = text
        .and_then(|text| serde_json::from_str(&text).ok())
        .ok_or_else(|| missing("identity document"))?;
    let launched_at = DateTime::parse_from_rfc3339(&document.pending_time)
        .map_err(|_| missing("time of the last start"))?
        .to_utc();
    // Tags are in the metadata only where the launch template says so; a box that is not launched by us needs none.
    let place = read(metadata, &format!("/latest/meta-data/tags/instance/{BOX_TAG}")).await?;
    let has_place = place.is_some();
    let name = place.unwrap_or_else(|| document.instance_id.clone());
    let box_id = name.parse().map_err(|_| missing("usable name"))?;
    Ok((Identity { instance: document.instance_id, box_id, launched_at }, has_place))
}

/// Reads a path; `None` where there is nothing.
async fn read(metadata: &Client, path: &str) -> Result<Option<String>, PortError> {
    match metadata.get(path).await {
        Ok(text) => Ok(Some(text.as_ref().to_owned())),
        Err(ImdsError::ErrorResponse(answer)) if answer.response().status().as_u16() == 404 => {
            Ok(None)
        }
        Err(error) => {
            let what = "the instance's metadata cannot be read";
            Err(PortError::new(PortErrorClass::Unavailable, what).because(error).hint(
                "on EC2, allow IMDSv2; in a container the hop limit (HttpPutResponseHopLimit) must be 2",
            ))
        }
    }
}

#[async_trait]
impl Cloud for OwnBox {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        let interruption = self.notice().await?;
        let started_at = *self.run_started_at.lock().unwrap_or_else(PoisonError::into_inner);
        let own = SeenBox {
            run_started_at: Some(started_at),
            interruption,
            ..SeenBox::new(
                self.identity.box_id.clone(),
                BoxState::Running,
                self.identity.launched_at,
            )
        };
        Ok(Listing { pools: [(self.pool.clone(), vec![own])].into(), errors: Vec::new() })
    }

    async fn start(&self, _: &StartOrder) -> Result<(), PortError> {
        Err(PortError::new(PortErrorClass::Conflict, "a worker starts no boxes"))
    }

    async fn stop(&self, box_id: &BoxId, _: StopMode) -> Result<(), PortError> {
        if *box_id != self.identity.box_id {
            let text = format!("a worker stops its own box alone, not {box_id}");
            return Err(PortError::new(PortErrorClass::Conflict, text));
        }
        match power_off(&self.power_off).await {
            Ok(()) => {
                let mut ordered_at = self.ordered_at.lock().unwrap_or_else(PoisonError::into_inner);
                *ordered_at = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                let cause = error.cause.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "EC2 is asked to stop this box");
                self.stop_by_ec2().await.map_err(|asked| both(&error, &asked))
            }
        }
    }
}

/// The shutdown's failure, with that of the way around it.
fn both(shutdown: &PortError, asked: &PortError) -> PortError {
    let hint = [shutdown.hint.as_deref(), asked.hint.as_deref()].into_iter().flatten();
    let hint = hint.collect::<Vec<_>>().join("; ");
    let cause = |error: &PortError| {
        error.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default()
    };
    let causes = format!("{}; {asked}{}", cause(shutdown).trim_start_matches(": "), cause(asked));
    PortError::new(asked.class, shutdown.to_string()).because(causes).hint(hint)
}

/// Shuts the system down. `halt` would leave the box on, and billed (W1).
async fn power_off(words: &[String]) -> Result<(), PortError> {
    let failed = |because: String| {
        let what = format!("`{}` did not shut this box down", words.join(" "));
        PortError::new(PortErrorClass::Other, what)
            .because(because)
            .hint("set `power_off` in [worker] to a command that does; the controller stops the box meanwhile")
    };
    let Some((program, rest)) = words.split_first() else {
        return Err(failed("it is empty".to_owned()));
    };
    let run = Command::new(program).args(rest).kill_on_drop(true).output();
    match tokio::time::timeout(POWER_OFF_TIME_MAX, run).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let text = format!("{}: {}", output.status, words.trim());
            Err(failed(text.trim_end_matches([':', ' ']).to_owned()))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        // It may be waiting for this very process to end.
        Err(_) => Ok(()),
    }
}
