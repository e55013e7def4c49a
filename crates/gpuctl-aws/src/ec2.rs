//! EC2 behind `Cloud`: boxes that are stopped and started, and boxes that are launched and terminated.
//!
//! One describe call lists the boxes of all pools, and another the spot requests of those that have one. Nothing is decided and
//! nothing retried here: the next reconcile is the retry. Only `retire` terminates, and it cancels the spot request first (P5).

mod check;
mod console;
mod facts;
mod launch;
mod listing;
mod market;
mod outdated;
mod refusal;
mod seen;
mod truncated;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{Builder, http::HttpResponse};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, Tag};
use gpuctl_control::ports::{Clock, Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::{Boxes, Policy};
use gpuctl_core::units::{BoxId, Timestamp};

pub use check::Finding;
#[cfg(feature = "deploy")]
pub(crate) use facts::vcpus;
pub(crate) use market::spot_prices;
#[cfg(feature = "deploy")]
pub(crate) use seen::order_hash;

use crate::Aws;
use crate::calls::show;
use crate::error::{is_refused, port_error};

/// EC2 in one region, for one policy: a new policy needs a new `Ec2Cloud`.
///
/// What a call on a box needs to know about it is taken from the last listing, which `boxes` replaces. Where there has been
/// none, the call lists first, so no call depends on another one before it.
pub struct Ec2Cloud {
    client: Client,
    /// Without the SDK's retries, which would ask for capacity again and again where there is none (P16).
    once: Client,
    region: String,
    policy: Policy,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<LastListing>>,
}

/// What the last listing knew; a reconcile acts on it within seconds.
#[derive(Default)]
struct LastListing {
    boxes: BTreeMap<BoxId, Known>,
    /// Slots without a box.
    free_slots: BTreeSet<BoxId>,
    /// Ids of open spot requests whose boxes were terminated.
    orphaned_requests: Vec<String>,
}

/// An instance behind a box.
#[derive(Clone, Debug)]
struct Known {
    instance_id: String,
    /// The id of its spot request.
    request_id: Option<String>,
    /// Whether that request is a one-time request.
    is_one_time: bool,
    /// When that request ends, if it is a persistent one that does.
    request_ends: Option<Timestamp>,
    is_launched: bool,
    /// From what it was launched; `None` if that was no launch template.
    origin: Option<outdated::Origin>,
    /// Whether its worker drains and ends the box when it is told to.
    drains_itself: bool,
    /// Whether it was told so already.
    told_to_drain: bool,
}

impl Ec2Cloud {
    /// EC2 for the boxes of `policy`. `clock` gives the times of orders, which are compared with EC2's.
    #[must_use]
    pub fn new(aws: &Aws, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        let settings = || {
            Builder::from(aws.sdk())
                .interceptor(truncated::RejectTruncatedResponse)
                .interceptor(aws.follow())
        };
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

    /// Reads the last listing, or lists if there has been none.
    async fn with_listing<T>(
        &self,
        read: impl FnOnce(&mut LastListing) -> T,
    ) -> Result<T, PortError> {
        if self.last().is_none() {
            let (_, listed) = self.list().await?;
            *self.last() = Some(listed);
        }
        Ok(read(self.last().get_or_insert_default()))
    }

    fn last(&self) -> MutexGuard<'_, Option<LastListing>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn known(&self, box_id: &BoxId) -> Result<Known, PortError> {
        let known = self.with_listing(|last| last.boxes.get(box_id).cloned()).await?;
        known.ok_or_else(|| {
            let text = format!("box {box_id} was not in the last listing");
            PortError::new(PortErrorClass::Conflict, text).hint("the next reconcile may see it")
        })
    }

    /// Whether this very order was carried out already. A box that is up by another order is a conflict: EC2 reports success
    /// for the start of a running box, and the order would then count as the one that started it (R3, R4).
    async fn is_done(&self, order: &StartOrder, filters: Vec<Filter>) -> Result<bool, PortError> {
        let boxes = listing::describe(self.client.clone(), filters).await?;
        if boxes.is_empty() && order.box_id.as_str().starts_with("i-") {
            return Err(listing::no_box(order.box_id.as_str(), &self.region));
        }
        let Some(up) = boxes.iter().find(|one| !seen::is_terminated(one) && !seen::is_stopped(one))
        else {
            return Ok(false);
        };
        let is_same = seen::tag(up, seen::ORDER_TAG) == Some(&seen::order_hash(&order.token));
        // S4: a box that is stopping must be started again by a new order.
        if is_same && !seen::is_stopping(up) {
            return Ok(true);
        }
        let text = format!("box {} is already up or stopping", order.box_id);
        Err(PortError::new(PortErrorClass::Conflict, text)
            .hint("the next reconcile sees its new state"))
    }

    /// Tags the box with the order and its time before the order is given, so that later listings know it as ours.
    async fn tag(&self, instance: &str, marks: &[(&str, String)]) -> Result<(), PortError> {
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
            (seen::STARTED_TAG, seen::tag_time(order.at)),
            (seen::ORDER_TAG, seen::order_hash(&order.token)),
            (seen::ANSWERED_TAG, seen::PENDING.to_owned()),
        ];
        self.tag(instance, &marks).await?;
        show(format_args!("ec2 start-instances --instance-ids {instance}"));
        let started = self.once.start_instances().instance_ids(instance).send().await;
        let started = started.map(drop).map_err(|error| {
            failed("ec2:StartInstances", format!("box {instance} was not started"), error)
        });
        let answer = match &started {
            Ok(()) => seen::tag_time(self.clock.now()),
            // EC2 may have carried out the order all the same.
            Err(error) if error.class == PortErrorClass::Unavailable => return started,
            Err(_) => seen::REFUSED.to_owned(),
        };
        if let Err(error) = self.tag(instance, &[(seen::ANSWERED_TAG, answer)]).await {
            // A start by another user within a minute of ours may then count as ours.
            tracing::warn!(%error, "EC2's answer to a start was not noted on the box");
        }
        started
    }

    /// Tells the worker of a launched box to drain, by a tag, which it reads in the instance's metadata; it ends the box afterwards. What
    /// has no such worker, or does not end in time (`stop_deadline`), is terminated.
    async fn end_launched(
        &self,
        box_id: &BoxId,
        known: &Known,
        mode: StopMode,
    ) -> Result<(), PortError> {
        if mode == StopMode::Force || !known.drains_itself {
            return self.retire(box_id).await;
        }
        if known.told_to_drain {
            return Ok(());
        }
        let marks = [(seen::STOPPED_TAG, seen::tag_time(self.clock.now()))];
        self.tag(&known.instance_id, &marks).await
    }

    async fn stop_running(&self, box_id: &BoxId, mode: StopMode) -> Result<(), PortError> {
        if self.with_listing(|last| last.free_slots.contains(box_id)).await? {
            return Ok(());
        }
        let known = self.known(box_id).await?;
        if known.is_launched {
            return self.end_launched(box_id, &known, mode).await;
        }
        if known.is_one_time {
            let text = format!("box {box_id} is a one-time spot box: EC2 cannot stop it");
            return Err(PortError::new(PortErrorClass::Other, text)
                .hint("`gpuctl retire` it, and make a new one with a persistent request and the interruption behaviour `stop`"));
        }
        let marks = [(seen::STOPPED_TAG, seen::tag_time(self.clock.now()))];
        self.tag(&known.instance_id, &marks).await?;
        let force = if mode == StopMode::Force { " --force" } else { "" };
        show(format_args!("ec2 stop-instances --instance-ids {}{force}", known.instance_id));
        let call = self.client.stop_instances().instance_ids(&known.instance_id);
        let call = if mode == StopMode::Force { call.force(true) } else { call };
        call.send().await.map(drop).map_err(|error| {
            failed("ec2:StopInstances", format!("box {box_id} was not stopped"), error)
        })
    }
}

#[async_trait]
impl Cloud for Ec2Cloud {
    /// Of the policy that this client was made for, which launches need as well.
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        let (listing, listed) = self.list().await?;
        *self.last() = Some(listed);
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
        let known = self.known(box_id).await?;
        if let Some(request) = &known.request_id {
            self.cancel(vec![request.clone()]).await?;
        }
        show(format_args!("ec2 terminate-instances --instance-ids {}", known.instance_id));
        let call = self.client.terminate_instances().instance_ids(&known.instance_id);
        call.send().await.map(drop).map_err(|error| {
            failed("ec2:TerminateInstances", format!("box {box_id} was not terminated"), error)
        })
    }

    async fn cancel_orphans(&self) -> Result<Vec<String>, PortError> {
        let requests =
            self.with_listing(|last| std::mem::take(&mut last.orphaned_requests)).await?;
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.cancel(requests.clone()).await?;
        let sentence =
            |id: &String| format!("cancelled spot request {id}, whose box was terminated");
        Ok(requests.iter().map(sentence).collect())
    }
}

/// Classifies an EC2 error: by what its code means for a start, else by what it means for any call.
pub(crate) fn failed<E>(action: &str, what: String, error: SdkError<E, HttpResponse>) -> PortError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let service = error.as_service_error().and_then(|error| Some((error.code()?, error.message())));
    match service {
        Some((code, message)) if refusal::class(code).is_some() => {
            refusal::refusal(what, code, message.unwrap_or_default())
        }
        _ => {
            let is_refused = is_refused(&error);
            let failed = port_error(action, what, error);
            // `Unavailable` would mean that the box may be starting all the same, and its run would stay open for it.
            if is_refused { PortError { class: PortErrorClass::Other, ..failed } } else { failed }
        }
    }
}
