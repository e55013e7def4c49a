//! EC2 behind `Cloud`: boxes that are stopped and started, and boxes that are launched and terminated.
//!
//! One describe call sees the boxes of all pools, and another the spot requests of those that have one. Nothing is decided and
//! nothing retried here: the next reconcile is the retry. `retire` alone terminates, and cancels the spot request first.

mod check;
mod console;
mod facts;
mod launch;
mod listing;
mod market;
mod refusal;
mod seen;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{Builder, http::HttpResponse};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, Tag};
use gpuctl_control::ports::{Clock, Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::{Boxes, Policy};
use gpuctl_core::units::BoxId;

pub use check::Finding;
pub(crate) use market::spot_prices;

use crate::Aws;
use crate::calls::show;
use crate::error::port_error;

/// EC2 in one region, for one policy.
pub struct Ec2Cloud {
    client: Client,
    /// Without the SDK's own retries: it would ask a sold-out pool again and again (P16).
    once: Client,
    region: String,
    policy: Policy,
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
}

/// What the last listing knew: acting follows it within seconds.
#[derive(Default)]
struct Last {
    boxes: BTreeMap<BoxId, Known>,
    /// Places that no box has filled.
    free: BTreeSet<BoxId>,
    left_behind: Vec<String>,
}

/// An instance behind a box.
#[derive(Clone, Debug)]
struct Known {
    instance: String,
    request: Option<String>,
    is_one_time: bool,
    is_launched: bool,
}

impl Ec2Cloud {
    /// EC2 for the boxes of `policy`; `clock` says what `now` is.
    #[must_use]
    pub fn new(aws: &Aws, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        let settings = || Builder::from(aws.sdk()).interceptor(whole::Whole);
        let once = settings().retry_config(RetryConfig::disabled()).build();
        Self {
            client: Client::from_conf(settings().build()),
            once: Client::from_conf(once),
            region: aws.region().to_owned(),
            policy,
            clock,
            last: Mutex::default(),
        }
    }

    async fn cancel(&self, requests: Vec<String>) -> Result<(), PortError> {
        let shown = requests.join(" ");
        show(format_args!("ec2 cancel-spot-instance-requests --spot-instance-request-ids {shown}"));
        let call = self.client.cancel_spot_instance_requests();
        let call = call.set_spot_instance_request_ids(Some(requests.clone()));
        call.send().await.map(drop).map_err(|error| {
            let what = format!("spot request {} was not cancelled", requests.join(", "));
            failed("ec2:CancelSpotInstanceRequests", what, error)
        })
    }

    /// Whether there is nothing to stop in this place.
    fn is_free(&self, place: &BoxId) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).free.contains(place)
    }

    fn known(&self, box_id: &BoxId) -> Result<Known, PortError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.boxes.get(box_id).cloned().ok_or_else(|| {
            let text = format!("box {box_id} was not in the last listing");
            PortError::new(PortErrorClass::Conflict, text).hint("the next look may show it")
        })
    }

    /// Whether this very order was carried out already. A box that is up by another one is a conflict: EC2 itself would take the
    /// start of a running box for done, and whoever gave it for its starter (R3, R4).
    async fn is_done(&self, order: &StartOrder, filters: Vec<Filter>) -> Result<bool, PortError> {
        let boxes = self.describe(filters).await?;
        let Some(up) = boxes.iter().find(|one| !seen::is_gone(one) && !seen::is_stopped(one))
        else {
            return Ok(false);
        };
        let is_same = seen::tag(up, seen::ORDER_TAG) == Some(&seen::order(&order.token));
        // S4: one that is on its way down has done with its order.
        if is_same && !seen::is_stopping(up) {
            return Ok(true);
        }
        let text = format!("box {} is up or stopping already", order.box_id);
        Err(PortError::new(PortErrorClass::Conflict, text)
            .hint("the next look sees it as it is now"))
    }

    /// Writes on the box what gpuctl orders and when, before it is ordered: by that the next look knows it as ours.
    async fn stamp(&self, instance: &str, marks: &[(&str, String)]) -> Result<(), PortError> {
        let shown: Vec<String> =
            marks.iter().map(|(key, value)| format!("Key={key},Value={value}")).collect();
        let shown = shown.join(" ");
        show(format_args!("ec2 create-tags --resources {instance} --tags {shown}"));
        let tag = |(key, value): &(&str, String)| Tag::builder().key(*key).value(value).build();
        let tags = marks.iter().map(tag).collect();
        let call = self.client.create_tags().resources(instance).set_tags(Some(tags));
        call.send().await.map(drop).map_err(|error| {
            failed("ec2:CreateTags", format!("box {instance} was not tagged"), error)
        })
    }

    async fn start_stopped(&self, order: &StartOrder) -> Result<(), PortError> {
        let instance = order.box_id.as_str();
        let this = listing::filter("instance-id", vec![instance.to_owned()]);
        if self.is_done(order, vec![this]).await? {
            return Ok(());
        }
        let marks = [
            (seen::STARTED_TAG, seen::stamp(order.at)),
            (seen::ORDER_TAG, seen::order(&order.token)),
        ];
        self.stamp(instance, &marks).await?;
        show(format_args!("ec2 start-instances --instance-ids {instance}"));
        let call = self.once.start_instances().instance_ids(instance);
        call.send().await.map(drop).map_err(|error| {
            failed("ec2:StartInstances", format!("box {instance} was not started"), error)
        })
    }

    async fn stop_running(&self, box_id: &BoxId, mode: StopMode) -> Result<(), PortError> {
        if self.is_free(box_id) {
            return Ok(());
        }
        let known = self.known(box_id)?;
        if known.is_launched {
            return self.retire(box_id).await;
        }
        if known.is_one_time {
            let text = format!("box {box_id} is a one-time spot box: EC2 cannot stop it");
            return Err(PortError::new(PortErrorClass::Other, text)
                .hint("`gpuctl retire` it and launch it anew with a persistent request and the interruption behaviour `stop`"));
        }
        let marks = [(seen::STOPPED_TAG, seen::stamp(self.clock.now()))];
        self.stamp(&known.instance, &marks).await?;
        let force = if mode == StopMode::Force { " --force" } else { "" };
        show(format_args!("ec2 stop-instances --instance-ids {}{force}", known.instance));
        let call = self.client.stop_instances().instance_ids(&known.instance);
        let call = if mode == StopMode::Force { call.force(true) } else { call };
        call.send().await.map(drop).map_err(|error| {
            failed("ec2:StopInstances", format!("box {box_id} was not stopped"), error)
        })
    }
}

#[async_trait]
impl Cloud for Ec2Cloud {
    async fn boxes(&self, policy: &Policy) -> Result<Listing, PortError> {
        let (listing, last) = self.list(policy).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(listing)
    }

    async fn start(&self, order: &StartOrder) -> Result<(), PortError> {
        match self.policy.pool(&order.pool).and_then(|pool| pool.boxes.as_ref()) {
            Some(Boxes::Launch(template)) => self.launch(template, order).await,
            _ => self.start_stopped(order).await,
        }
    }

    async fn stop(&self, box_id: &BoxId, mode: StopMode) -> Result<(), PortError> {
        self.stop_running(box_id, mode).await
    }

    async fn retire(&self, box_id: &BoxId) -> Result<(), PortError> {
        let known = self.known(box_id)?;
        if let Some(request) = &known.request {
            self.cancel(vec![request.clone()]).await?;
        }
        show(format_args!("ec2 terminate-instances --instance-ids {}", known.instance));
        let call = self.client.terminate_instances().instance_ids(&known.instance);
        call.send().await.map(drop).map_err(|error| {
            failed("ec2:TerminateInstances", format!("box {box_id} was not terminated"), error)
        })
    }

    async fn cancel_orphans(&self) -> Result<Vec<String>, PortError> {
        let requests = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut last.left_behind)
        };
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.cancel(requests.clone()).await?;
        let said = |id: &String| format!("cancelled spot request {id}, whose box is gone");
        Ok(requests.iter().map(said).collect())
    }
}

/// An EC2 error by what it means for a start, else by what it means for any call.
fn failed<E>(action: &str, what: String, error: SdkError<E, HttpResponse>) -> PortError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let spoken = error.as_service_error().and_then(|said| Some((said.code()?, said.message())));
    match spoken {
        Some((code, words)) if refusal::class(code).is_some() => {
            refusal::refusal(what, code, words.unwrap_or_default())
        }
        _ => port_error(action, what, error),
    }
}
