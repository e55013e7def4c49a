//! The instance that a worker runs on: its identity and its interruption notice, by IMDSv2, and how it shuts itself down.
//!
//! As a `Cloud` it lists this one box and no other. The box is shut down from inside, which needs no IAM permission; where that
//! fails, EC2 is asked to stop it. Two kinds of boxes EC2 is not asked to stop, or refuses to: a launched box is terminated by
//! its own shutdown (`InstanceInitiatedShutdownBehavior = terminate` in its launch template), and a stop would leave it behind
//! with its disk; a one-time spot box cannot be stopped at all (P1).

mod query;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::imds::Client;
use aws_config::imds::client::error::ImdsError;
use chrono::{DateTime, TimeDelta};
use gpuctl_control::clock::CorrectedClock;
use gpuctl_control::log::shown;
use gpuctl_control::ports::{Clock, Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::{Boxes, Policy, PowerOff};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::Instant;

use self::query::{Call, Query};
use crate::Aws;
use crate::calls::show;
use crate::tags::{BOX_TAG, STOPPED_TAG, tag_time};

/// How long the `power_off` command may run: it only hands the shutdown to the system.
const POWER_OFF_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a box may be up after it accepted its shutdown: services, and this process is one, get their signal within a second.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(60);
/// How far a start of this box may lie after the run's start in the ledger: the time between our order and EC2's start, as in `ec2/seen`.
const ORDER_AGE_MAX: TimeDelta = TimeDelta::minutes(1);

/// Which box this instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceIdentity {
    pub instance_id: String,
    /// The name under which the controllers know it: a slot of its pool for a launched box, else the instance id.
    pub box_id: BoxId,
    /// When it was last started, by the instance identity document.
    pub launched_at: Timestamp,
}

/// The instance that this process runs on.
pub struct SelfInstance {
    metadata: Client,
    identity: InstanceIdentity,
    pool: PoolId,
    power_off: PowerOff,
    run_started_at: Mutex<Timestamp>,
    ec2: Query,
    /// The time in AWS's responses.
    clock: Arc<CorrectedClock>,
    /// Whether a rebalance recommendation was logged.
    is_rebalance_told: AtomicBool,
    /// Whether its shutdown terminates it.
    is_launched: bool,
    /// When the system accepted the shutdown.
    shutdown_at: Mutex<Option<Instant>>,
    shutdown_max: Duration,
}

/// The parts of the instance identity document that are read here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance_id: String,
    pending_time: String,
}

/// A rebalance recommendation: `events/recommendations/rebalance` of the instance metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recommendation {
    notice_time: String,
}

/// An interruption notice: the `spot/instance-action` of the instance metadata.
#[derive(Deserialize)]
struct InstanceAction {
    time: String,
}

impl SelfInstance {
    /// Asks the metadata service which instance this is; its worker drains the queue of `pool`.
    ///
    /// # Errors
    /// When there is no metadata service: this is not EC2, or a container that cannot reach it.
    pub async fn find(aws: &Aws, policy: &Policy, pool: PoolId) -> Result<Self, PortError> {
        Self::find_by(Client::builder().build(), aws, policy, pool).await
    }

    /// As `find`, with a client of another metadata service.
    ///
    /// # Errors
    /// As `find`.
    pub async fn find_by(
        metadata: Client,
        aws: &Aws,
        policy: &Policy,
        pool: PoolId,
    ) -> Result<Self, PortError> {
        let Named { identity, has_slot } = identity(&metadata).await?;
        let boxes = policy.pool(&pool).and_then(|pool| pool.boxes.as_ref());
        Ok(Self {
            run_started_at: Mutex::new(identity.launched_at),
            is_launched: has_slot || matches!(boxes, Some(Boxes::Launch(_))),
            power_off: policy.worker.power_off.clone(),
            ec2: Query::new(aws),
            clock: aws.clock(),
            is_rebalance_told: AtomicBool::new(false),
            shutdown_at: Mutex::default(),
            shutdown_max: SHUTDOWN_TIME_MAX,
            metadata,
            identity,
            pool,
        })
    }

    /// Sets how long a shutdown may take, from its acceptance until the box is off.
    #[must_use]
    pub fn with_shutdown_max(self, shutdown_max: Duration) -> Self {
        Self { shutdown_max, ..self }
    }

    /// Which box this is.
    #[must_use]
    pub fn identity(&self) -> &InstanceIdentity {
        &self.identity
    }

    /// Finds, among the starts of this box in the ledger, the one that led to this boot, and lists the box under it from now on.
    /// Without one, for a box that was started outside gpuctl, the boot itself is the key. Returns the key.
    pub fn adopt_run(&self, starts: impl Iterator<Item = Timestamp>) -> Timestamp {
        let launched_at = self.identity.launched_at;
        let ours = |at: &Timestamp| {
            *at <= launched_at + TimeDelta::minutes(1) && launched_at - *at <= ORDER_AGE_MAX
        };
        let key = starts.filter(ours).max().unwrap_or(launched_at);
        *self.run_started_at.lock().unwrap_or_else(PoisonError::into_inner) = key;
        key
    }

    /// Waits for the shutdown that this box has accepted, which ends this process. If the process is still there after the time
    /// that a shutdown may take, asks EC2 to stop the box. Returns at once if no shutdown was accepted.
    ///
    /// # Errors
    /// When EC2 does not stop the box either.
    pub async fn wait_for_shutdown(&self) -> Result<(), PortError> {
        let shutdown_at = *self.shutdown_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shutdown_at) = shutdown_at else { return Ok(()) };
        tokio::time::sleep_until(shutdown_at + self.shutdown_max).await;
        let after = self.shutdown_max.as_secs();
        tracing::warn!("a shutdown was accepted {after}s ago, and this box is still running");
        self.stop_by_ec2().await
    }

    /// Whether the system has accepted the shutdown.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown_at.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Asks EC2 to stop this box.
    async fn stop_by_ec2(&self) -> Result<(), PortError> {
        let (id, now) = (self.identity.instance_id.as_str(), self.clock.now());
        if self.is_launched {
            let text = format!("box {id} was launched, and EC2 must not be asked to stop it");
            return Err(PortError::new(PortErrorClass::Conflict, text).hint(
                "its own shutdown terminates it (InstanceInitiatedShutdownBehavior = terminate), or the controller does",
            ));
        }
        // Without the tag the stop would be taken for a manual one, a hold that keeps the box off for hours (R1).
        show(format_args!(
            "ec2 create-tags --resources {id} --tags Key={STOPPED_TAG},Value={}",
            tag_time(now)
        ));
        let params =
            [("ResourceId.1", id), ("Tag.1.Key", STOPPED_TAG), ("Tag.1.Value", &tag_time(now))];
        let what = format!("box {id} was not tagged");
        let tagged = self.ec2.call(Call { action: "CreateTags", params: &params, what, now }).await;
        if let Err(error) = tagged {
            tracing::warn!(%error, "this stop will be taken for a manual stop");
        }
        show(format_args!("ec2 stop-instances --instance-ids {id}"));
        let params = [("InstanceId.1", id)];
        let what = format!("box {id} was not stopped");
        self.ec2.call(Call { action: "StopInstances", params: &params, what, now }).await
    }

    /// When EC2 interrupts this box, if it has given notice.
    async fn interruption(&self) -> Result<Option<Timestamp>, PortError> {
        let Some(text) = read(&self.metadata, "/latest/meta-data/spot/instance-action").await?
        else {
            return Ok(None);
        };
        let at = serde_json::from_str::<InstanceAction>(&text).ok();
        let at = at.and_then(|action| DateTime::parse_from_rfc3339(&action.time).ok());
        // A notice that cannot be parsed is still a notice.
        Ok(Some(at.map_or(self.identity.launched_at, |at| at.to_utc())))
    }
}

impl SelfInstance {
    /// When EC2 recommended to replace this box, since it may interrupt it: often earlier than the notice, with no deadline, and also for a
    /// box that stays after all. So it is told, and nothing is done about it here.
    async fn rebalance(&self) -> Result<Option<Timestamp>, PortError> {
        let path = "/latest/meta-data/events/recommendations/rebalance";
        let Some(text) = read(&self.metadata, path).await? else { return Ok(None) };
        let at = serde_json::from_str::<Recommendation>(&text).ok();
        let at = at.and_then(|one| DateTime::parse_from_rfc3339(&one.notice_time).ok());
        let at = at.map_or(self.identity.launched_at, |at| at.to_utc());
        if !self.is_rebalance_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%at, "EC2 recommends to replace this box: it may interrupt it soon");
        }
        Ok(Some(at))
    }

    /// When a controller told this launched box to drain, if it has since its launch.
    async fn told_to_drain(&self) -> Result<Option<Timestamp>, PortError> {
        if !self.is_launched {
            return Ok(None);
        }
        let path = format!("/latest/meta-data/tags/instance/{STOPPED_TAG}");
        let told_at = read(&self.metadata, &path).await?;
        let told_at = told_at.and_then(|text| DateTime::parse_from_rfc3339(text.trim()).ok());
        Ok(told_at.map(|at| at.to_utc()).filter(|at| *at >= self.identity.launched_at))
    }
}

/// An identity, and where its name comes from.
struct Named {
    identity: InstanceIdentity,
    /// Whether the box is named after a slot of its pool, as gpuctl's launches name their boxes.
    has_slot: bool,
}

async fn identity(metadata: &Client) -> Result<Named, PortError> {
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
    // Tags are in the metadata only where the launch template allows it (`InstanceMetadataTags`); boxes that are stopped and
    // started need none.
    let slot = read(metadata, &format!("/latest/meta-data/tags/instance/{BOX_TAG}")).await?;
    let has_slot = slot.is_some();
    let name = slot.unwrap_or_else(|| document.instance_id.clone());
    let box_id = name.parse().map_err(|_| missing("usable name"))?;
    let identity = InstanceIdentity { instance_id: document.instance_id, box_id, launched_at };
    Ok(Named { identity, has_slot })
}

/// Reads a path of the metadata; `None` where it does not exist.
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
impl Cloud for SelfInstance {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        let (interruption, rebalance, told_at) =
            tokio::try_join!(self.interruption(), self.rebalance(), self.told_to_drain())?;
        let started_at = *self.run_started_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, since) = match told_at {
            Some(told_at) => (BoxState::Stopping, told_at),
            None => (BoxState::Running, self.identity.launched_at),
        };
        let own = SeenBox {
            run_started_at: Some(started_at),
            interruption,
            rebalance,
            ..SeenBox::new(self.identity.box_id.clone(), state, since)
        };
        Ok(Listing { pools: [(self.pool.clone(), vec![own])].into(), ..Listing::default() })
    }

    async fn start(&self, _: &StartOrder) -> Result<(), PortError> {
        Err(PortError::new(PortErrorClass::Conflict, "a worker does not start boxes"))
    }

    async fn stop(&self, box_id: &BoxId, _: StopMode) -> Result<(), PortError> {
        if *box_id != self.identity.box_id {
            let text = format!("a worker stops only its own box, not {box_id}");
            return Err(PortError::new(PortErrorClass::Conflict, text));
        }
        let PowerOff::Command(command) = &self.power_off else {
            // The process's end says the rest.
            return Ok(());
        };
        match power_off(command).await {
            Ok(()) => {
                let mut shutdown_at =
                    self.shutdown_at.lock().unwrap_or_else(PoisonError::into_inner);
                *shutdown_at = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                let cause = error.cause.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause = %shown(cause), "asking EC2 to stop this box");
                self.stop_by_ec2().await.map_err(|asked| both(&error, &asked))
            }
        }
    }
}

/// The failure of the shutdown, with that of EC2's stop among its causes.
fn both(shutdown: &PortError, asked: &PortError) -> PortError {
    let hint = [shutdown.hint.as_deref(), asked.hint.as_deref()].into_iter().flatten();
    let hint = hint.collect::<Vec<_>>().join("; ");
    let cause = |error: &PortError| {
        error.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default()
    };
    let causes = format!("{}; {asked}{}", cause(shutdown).trim_start_matches(": "), cause(asked));
    PortError::new(asked.class, shutdown.to_string()).because(causes).hint(hint)
}

/// Runs the command that shuts the system down. `halt` would leave the box running, and billed (W1).
async fn power_off(command: &[String]) -> Result<(), PortError> {
    let failed = |because: String| {
        let what = format!("`{}` did not shut this box down", command.join(" "));
        PortError::new(PortErrorClass::Other, what)
            .because(because)
            .hint("set `power_off` in [worker] to a command that does; until then a controller stops the box")
    };
    let Some((program, rest)) = command.split_first() else {
        return Err(failed("the command is empty".to_owned()));
    };
    let run = Command::new(program).args(rest).kill_on_drop(true).output();
    match tokio::time::timeout(POWER_OFF_TIME_MAX, run).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let text = format!("{}: {}", output.status, stderr.trim());
            Err(failed(text.trim_end_matches([':', ' ']).to_owned()))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        // Accepted: the command may be waiting for this very process to end.
        Err(_) => Ok(()),
    }
}
