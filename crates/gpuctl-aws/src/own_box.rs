//! The box that a worker lives in: who it is and whether it is taken back, by IMDSv2, and how it ends itself.
//!
//! It sees itself alone and needs no permission of EC2's: it is stopped from inside, which EC2 counts as a stop by the user.

use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use aws_config::imds::Client;
use aws_config::imds::client::error::ImdsError;
use chrono::{DateTime, TimeDelta};
use gpuctl_control::ports::{Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::plan::Manner;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use serde::Deserialize;
use tokio::process::Command;

/// How long a shutdown may take to be accepted: it is handed to the system, not waited for.
const POWER_OFF_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(20);
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
    /// Asks the metadata service who this box is.
    ///
    /// # Errors
    /// When there is none: this is no EC2 instance, or a container that may not reach it.
    pub async fn find(pool: PoolId, power_off: Vec<String>) -> Result<Self, PortError> {
        let metadata = Client::builder().build();
        let identity = identity(&metadata).await?;
        let run_started_at = Mutex::new(identity.launched_at);
        Ok(Self { metadata, identity, pool, power_off, run_started_at })
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

async fn identity(metadata: &Client) -> Result<Identity, PortError> {
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
    let place = read(metadata, "/latest/meta-data/tags/instance/gpuctl:box").await?;
    let name = place.unwrap_or_else(|| document.instance_id.clone());
    let box_id = name.parse().map_err(|_| missing("usable name"))?;
    Ok(Identity { instance: document.instance_id, box_id, launched_at })
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

    async fn stop(&self, box_id: &BoxId, _: Manner) -> Result<(), PortError> {
        if *box_id != self.identity.box_id {
            let text = format!("a worker stops its own box alone, not {box_id}");
            return Err(PortError::new(PortErrorClass::Conflict, text));
        }
        power_off(&self.power_off).await
    }
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
        Ok(Ok(output)) => Err(failed(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        // It may be waiting for this very process to end.
        Err(_) => Ok(()),
    }
}
