//! The `Cloud` port on the simulated EC2, as simple as possible: a fixed set of instances, found by their tag.
//!
//! What gpuctl did itself is recorded in tags, so that it can be told from a start or stop outside gpuctl: the run's start beside
//! `LaunchTime`, the time of the stop beside that of the state.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::ports::{Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, Foreign, HoldWants, SeenBox};
use gpuctl_core::offering::{CapacityType, Offering, RefusalClass};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, Timestamp};

use super::Shared;
use super::ec2::{
    Describe, Ec2Error, Ec2StopMode, Instance, InstanceState, RequestState, SpotRequest,
};
use super::ports::{Caller, Client, Reply, Service, unavailable};

/// When the run was ordered, in microseconds since 1970.
const RUN_TAG: &str = "gpuctl:run";
/// The token of the order that started it.
const ORDER_TAG: &str = "gpuctl:order";
/// When gpuctl last ordered its stop, in microseconds since 1970.
const STOP_TAG: &str = "gpuctl:stop";

/// How much later than the tag EC2 may have acted on an order of gpuctl: one or two slow calls.
const OURS_WITHIN: TimeDelta = TimeDelta::seconds(60);

#[async_trait]
impl Cloud for Client {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        if let Some(instance) = self.instance() {
            return self.own_box(instance).await;
        }
        let reply = self.call(Service::Cloud).await?;
        let now = self.now();
        let world = &mut *self.shared.advance_to_now();
        let wanted = Describe {
            filters: vec![("tag:gpuctl:pool".to_owned(), vec![world.pool().id.to_string()])],
            ..Describe::default()
        };
        let instances = world.ec2.describe_instances(now, &wanted).map_err(port_error)?.rows;
        let all = Describe::default();
        let requests =
            world.ec2.describe_spot_instance_requests(now, &all).map_err(port_error)?.rows;
        let pool = world.pool().id.clone();
        let (there, gone): (Vec<&Instance>, Vec<&Instance>) =
            instances.iter().partition(|one| one.is_there() && !has_ended(one, &requests));
        let shown = |some: Vec<&Instance>| {
            some.into_iter().filter_map(|one| seen(one, &requests)).collect::<Vec<_>>()
        };
        if reply == Reply::Arrives {
            world.checks.boxes_read_at = Some(now);
        }
        reply.deliver(Ok(Listing {
            pools: [(pool.clone(), shown(there))].into(),
            gone: [(pool, shown(gone))].into(),
            errors: Vec::new(),
        }))
    }

    async fn start(&self, order: &StartOrder) -> Result<(), PortError> {
        self.shared.advance_to_now().check_actor(self, order);
        self.shared.end_if_broken();
        let id = order.box_id.to_string();
        let ids = [id.clone()];
        let reply = self.call(Service::Cloud).await?;
        let known = {
            let wanted = Describe { ids: ids.to_vec(), ..Describe::default() };
            let world = &mut *self.shared.advance_to_now();
            let found = world.ec2.describe_instances(self.now(), &wanted).map_err(port_error)?;
            found.rows.into_iter().next()
        };
        let up = known.filter(|one| one.state != InstanceState::Stopped);
        if let Some(up) = up {
            let same = up.tags.get(ORDER_TAG) == Some(&order.token);
            let text = format!("{id} is {}", up.state);
            return if same { Ok(()) } else { Err(PortError::new(PortErrorClass::Conflict, text)) };
        }
        let tags = BTreeMap::from([
            (RUN_TAG.to_owned(), order.at.timestamp_micros().to_string()),
            (ORDER_TAG.to_owned(), order.token.clone()),
        ]);
        self.shared
            .advance_to_now()
            .ec2
            .create_tags(self.now(), &ids, &tags)
            .map_err(port_error)?;
        super::sleep(TimeDelta::milliseconds(30)).await;
        let result = {
            let now = self.now();
            let world = &mut *self.shared.advance_to_now();
            let result = world.ec2.start_instances(now, &ids);
            world.mark_changed(now);
            let text = match &result {
                Ok(_) => format!("{} starts {id} ({})", self.name(), order.token),
                Err(error) => format!("{} cannot start {id}: {}", self.name(), error.code),
            };
            world.log_event(now, text);
            if let Ok(changes) = &result {
                world.check_start(now, order, changes[0].previous);
            }
            result.map(drop).map_err(port_error)
        };
        self.shared.ec2_changed.notify_one();
        self.shared.end_if_broken();
        reply.deliver(result)
    }

    async fn stop(&self, box_id: &BoxId, mode: StopMode) -> Result<(), PortError> {
        if let Some(instance) = self.instance() {
            // It hands the shutdown to the system, which signals the worker.
            if let Some(shutdown) = self.shared.advance_to_now().shutdowns.get(instance) {
                shutdown.cancel();
            }
            return Ok(());
        }
        self.shared.advance_to_now().check_stopper(self, box_id);
        self.shared.end_if_broken();
        let reply = self.call(Service::Cloud).await?;
        let ids = [box_id.to_string()];
        let result = {
            let now = self.now();
            let world = &mut *self.shared.advance_to_now();
            let stop = BTreeMap::from([(STOP_TAG.to_owned(), now.timestamp_micros().to_string())]);
            world.ec2.create_tags(now, &ids, &stop).map_err(port_error)?;
            let stop_mode = match mode {
                StopMode::Force => Ec2StopMode::Force,
                StopMode::Drain | StopMode::Retire => Ec2StopMode::Shutdown,
            };
            world.check_stop(self, box_id, mode);
            let result = world.ec2.stop_instances(now, &ids, stop_mode);
            world.mark_changed(now);
            let text = match &result {
                Ok(_) => format!("{} stops {box_id} ({mode:?})", self.name()),
                Err(error) => format!("{} cannot stop {box_id}: {}", self.name(), error.code),
            };
            world.log_event(now, text);
            result.map(drop).map_err(port_error)
        };
        self.shared.ec2_changed.notify_one();
        self.shared.end_if_broken();
        reply.deliver(result)
    }
}

impl Shared {
    /// Ends the week if a guarantee is violated.
    pub(crate) fn end_if_broken(&self) {
        if self.advance_to_now().checks.is_broken() {
            self.broken.notify_one();
        }
    }
}

/// P7: whether it can never be started again, so that it is not a box any more.
fn has_ended(one: &Instance, requests: &[SpotRequest]) -> bool {
    let request = request_of(one, requests);
    let cancelled = request.is_some_and(|request| request.state == RequestState::Cancelled);
    cancelled && one.state == InstanceState::Stopped
}

fn request_of<'r>(one: &Instance, requests: &'r [SpotRequest]) -> Option<&'r SpotRequest> {
    requests.iter().find(|request| one.spot_request_id.as_ref() == Some(&request.id))
}

/// An instance as gpuctl sees it; `None` if a box cannot be called by its id.
fn seen(one: &Instance, requests: &[SpotRequest]) -> Option<SeenBox> {
    let run = run_of(one);
    let request = request_of(one, requests);
    let (state, since) = match one.state {
        InstanceState::Running => (BoxState::Running, one.launch_time),
        InstanceState::Pending => (BoxState::Pending, one.launch_time),
        InstanceState::Stopping | InstanceState::ShuttingDown => {
            (BoxState::Stopping, one.transition_at)
        }
        _ => (BoxState::Stopped, one.transition_at),
    };
    let fell_back =
        one.state_reason.as_ref().filter(|reason| reason.code == "Client.InternalError");
    let interruption = request.and_then(|request| interruption(one, request));
    let taken_back = state == BoxState::Stopped && interruption.is_some();
    Some(SeenBox {
        unstartable: taken_back.then(|| "was stopped by EC2".to_owned()),
        run_started_at: Some(run),
        last_error: fell_back.map(|reason| reason.message.clone()),
        offering: Some(Offering {
            instance_type: one.instance_type.clone(),
            zone: one.zone.clone(),
            capacity: one.market,
        }),
        interruption,
        foreign: foreign(one, run),
        ..SeenBox::new(one.id.parse().ok()?, state, since)
    })
}

/// When EC2 interrupts or has interrupted the box: only EC2 can start it again then (P4).
fn interruption(one: &Instance, request: &SpotRequest) -> Option<Timestamp> {
    let taken = one.state_reason.as_ref().is_some_and(|why| why.code.starts_with("Server.Spot"));
    let up = matches!(one.state, InstanceState::Pending | InstanceState::Running);
    match request.status_code {
        "instance-stopped-no-capacity" => Some(request.status_at),
        "marked-for-stop" | "marked-for-termination" if taken => Some(one.transition_at),
        "marked-for-stop" | "marked-for-termination" if up => {
            Some(request.status_at + TimeDelta::minutes(2))
        }
        _ => None,
    }
}

/// The start of the run that an instance is in: the tag's, unless EC2 or an operator has started it since.
pub(super) fn run_of(one: &Instance) -> Timestamp {
    noted(one, RUN_TAG).filter(|at| is_ours(*at, one.launch_time)).unwrap_or(one.launch_time)
}

fn foreign(one: &Instance, run: Timestamp) -> Option<Foreign> {
    let by = "console".to_owned();
    let up = matches!(one.state, InstanceState::Pending | InstanceState::Running);
    if up {
        // A spot box that starts by itself was usually started by EC2 (P4).
        let strange = run == one.launch_time && one.market == CapacityType::OnDemand;
        return strange.then_some(Foreign { wants: HoldWants::Running, at: Some(run), by });
    }
    let by_user =
        one.state_reason.as_ref().is_some_and(|why| why.code == "Client.UserInitiatedShutdown");
    let ours = noted(one, STOP_TAG).is_some_and(|at| is_ours(at, one.transition_at));
    let at = one.transition_at;
    (by_user && !ours).then_some(Foreign { wants: HoldWants::Stopped, at: Some(at), by })
}

fn is_ours(noted: Timestamp, began: Timestamp) -> bool {
    // There is one clock here; the real EC2 shows whole seconds.
    noted - TimeDelta::seconds(1) <= began && began - noted <= OURS_WITHIN
}

fn noted(one: &Instance, tag: &str) -> Option<Timestamp> {
    Timestamp::from_timestamp_micros(one.tags.get(tag)?.parse().ok()?)
}

/// EC2's codes by meaning (Amazon EC2 API Reference, "Error codes").
fn port_error(error: Ec2Error) -> PortError {
    let class = match error.code {
        "InsufficientInstanceCapacity" | "UnfulfillableCapacity" => {
            PortErrorClass::Refused(RefusalClass::Capacity)
        }
        "MaxSpotInstanceCountExceeded" | "VcpuLimitExceeded" => {
            PortErrorClass::Refused(RefusalClass::Quota)
        }
        "IncorrectInstanceState" | "IncorrectSpotRequestState" => PortErrorClass::Conflict,
        "RequestLimitExceeded" => PortErrorClass::Throttled,
        "InternalError" => PortErrorClass::Unavailable,
        _ => PortErrorClass::Other,
    };
    let what = format!("EC2 rejected the call ({})", error.code);
    PortError::new(class, what).because(error)
}

impl Client {
    /// What a box knows of itself: no call to EC2, and no other box.
    async fn own_box(&self, instance: &str) -> Result<Listing, PortError> {
        super::sleep(TimeDelta::milliseconds(2)).await;
        let run = self.own_run()?;
        let world = self.shared.advance_to_now();
        let launched_at = world.ec2.instance(instance).map(|one| one.launch_time);
        let launched_at = launched_at.ok_or_else(|| unavailable("the box is terminated"))?;
        let id = instance.parse().map_err(|_| unavailable("the box has no name"))?;
        let own = SeenBox {
            run_started_at: Some(run),
            interruption: world.ec2.spot_action(instance).map(|action| action.at),
            ..SeenBox::new(id, BoxState::Running, launched_at)
        };
        Ok(Listing { pools: [(world.pool().id.clone(), vec![own])].into(), ..Listing::default() })
    }

    /// The start of the run that the worker's own box is in.
    pub(super) fn own_run(&self) -> Result<Timestamp, PortError> {
        let instance = self.instance().ok_or_else(|| unavailable("a controller has no box"))?;
        let world = self.shared.advance_to_now();
        world.ec2.instance(instance).map(run_of).ok_or_else(|| unavailable("the box is terminated"))
    }

    /// The worker's instance.
    pub(super) fn instance(&self) -> Option<&str> {
        match &self.caller {
            Caller::Controller(_) => None,
            Caller::Worker(process) => Some(&process.instance),
        }
    }
}
