//! Spot requests: which stopped instances can start again, on whose order, and what EC2 starts or launches again by itself.

use chrono::TimeDelta;
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::units::Timestamp;

use super::throttle::Bucket;
use super::types::{Ec2Error, Instance, InstanceState, RequestState, SpotKind, SpotRequest};
use super::{Ec2, Event, offering_of};

/// How long after a stop the request changes its status.
const SETTLES_IN: TimeDelta = TimeDelta::seconds(5);
/// The least and the most time until EC2 restarts what it has stopped, once there is capacity.
const RESTARTS_IN: (TimeDelta, TimeDelta) = (TimeDelta::seconds(30), TimeDelta::minutes(10));

impl Ec2 {
    /// `CancelSpotInstanceRequests`. It terminates the instance of a disabled request (P6).
    ///
    /// # Errors
    /// As EC2.
    pub fn cancel_spot_instance_requests(
        &mut self,
        now: Timestamp,
        ids: &[String],
    ) -> Result<Vec<SpotRequest>, Ec2Error> {
        self.call(now, Bucket::Spot)?;
        for id in ids {
            self.request(id)?;
        }
        for id in ids {
            let Some(request) = self.requests.get(id) else { continue };
            let (state, instance) = (request.state, request.instance_id.clone());
            match state {
                RequestState::Open => {
                    self.set_request(
                        now,
                        id,
                        RequestState::Cancelled,
                        "canceled-before-fulfillment",
                    );
                }
                RequestState::Active => {
                    let status = "request-canceled-and-instance-running";
                    self.set_request(now, id, RequestState::Cancelled, status);
                }
                RequestState::Disabled => {
                    self.set_request(
                        now,
                        id,
                        RequestState::Cancelled,
                        "instance-terminated-by-user",
                    );
                    if let Some(instance) = instance {
                        self.terminate(now, &instance, "Client.UserInitiatedShutdown");
                    }
                }
                RequestState::Closed | RequestState::Cancelled => {}
            }
        }
        Ok(ids.iter().filter_map(|id| self.requests.get(id)).cloned().collect())
    }

    pub(super) fn request_of(&self, instance: &str) -> Option<&SpotRequest> {
        self.requests.get(self.instance(instance)?.spot_request_id.as_ref()?)
    }

    pub(super) fn set_request_of(
        &mut self,
        at: Timestamp,
        instance: &str,
        state: RequestState,
        status: &'static str,
    ) {
        let id = self.request_of(instance).map(|request| (request.id.clone(), request.state));
        // A cancelled request stays cancelled.
        if let Some((id, _)) = id.filter(|(_, now)| *now != RequestState::Cancelled) {
            self.set_request(at, &id, state, status);
        }
    }

    fn set_request(&mut self, at: Timestamp, id: &str, state: RequestState, status: &'static str) {
        if let Some(request) = self.requests.get_mut(id) {
            (request.state, request.status_code, request.status_at) = (state, status, at);
        }
    }

    /// The instance has stopped: by a user, or by EC2, which alone can start it again then (P4).
    pub(super) fn request_sees_stop(&mut self, at: Timestamp, instance: &str) {
        // P18: after an interruption notice a user's stop counts as EC2's.
        let by_ec2 = self.spot_action(instance).is_some();
        if by_ec2 {
            self.set_request_of(
                at,
                instance,
                RequestState::Disabled,
                "instance-stopped-no-capacity",
            );
            let due = self.delay(RESTARTS_IN);
            self.try_later(at + due, instance);
        } else if let Some(request) = self.request_of(instance) {
            let event = Event::RequestSettles(request.id.clone());
            self.schedule(at + SETTLES_IN, event);
        }
    }

    /// The request records a user's stop (P2), unless a notice came in between (P18).
    pub(super) fn request_settles(&mut self, at: Timestamp, id: &str) {
        let Some(request) = self.requests.get(id) else { return };
        let Some(instance) = request.instance_id.clone() else { return };
        if request.status_code != "marked-for-stop"
            || self.state(&instance) != InstanceState::Stopped
        {
            return;
        }
        let over = request.valid_until.is_some_and(|until| until <= at);
        let (state, status) = if over {
            (RequestState::Cancelled, "schedule-expired")
        } else {
            (RequestState::Disabled, "instance-stopped-by-user")
        };
        self.set_request(at, id, state, status);
    }

    fn try_later(&mut self, at: Timestamp, instance: &str) {
        if let Some(id) = self.request_of(instance).map(|request| request.id.clone()) {
            self.schedule(at, Event::RequestTries(id));
        }
    }

    /// EC2 starts what it has stopped, or launches what an open request asks for.
    pub(super) fn request_tries(&mut self, at: Timestamp, id: &str) {
        let Some(request) = self.requests.get(id).cloned() else { return };
        let offering = Offering {
            instance_type: request.instance_type.clone(),
            zone: request.zone.clone(),
            capacity: CapacityType::Spot,
        };
        let can = self.has_capacity(&offering) && self.within_quota(&offering, 1).is_ok();
        // Without capacity it waits until there is some.
        match (request.state, request.status_code, request.instance_id) {
            (RequestState::Disabled, "instance-stopped-no-capacity", Some(instance)) if can => {
                self.start(at, &instance);
            }
            (RequestState::Open, "pending-fulfillment" | "capacity-not-available", last) if can => {
                self.launch_again(at, id, last.as_deref());
            }
            (RequestState::Open, "pending-fulfillment", _) => {
                self.set_request(at, id, RequestState::Open, "capacity-not-available");
            }
            _ => {}
        }
    }

    /// P5: the request has lost its instance and launches a new one of the same kind.
    fn launch_again(&mut self, at: Timestamp, request: &str, last: Option<&str>) {
        let Some(last) = last.and_then(|id| self.instance(id)).cloned() else { return };
        let id = format!("i-{:017x}", self.names.bits());
        let fresh = Instance {
            id: id.clone(),
            state: InstanceState::Pending,
            launch_time: at,
            state_reason: None,
            state_transition_reason: String::new(),
            transition_at: at,
            ..last
        };
        self.set_request(at, request, RequestState::Active, "fulfilled");
        if let Some(request) = self.requests.get_mut(request) {
            request.instance_id = Some(id);
        }
        self.add_instance(at, fresh);
    }

    pub(super) fn request_sees_termination(&mut self, at: Timestamp, instance: &str) {
        let Some(request) = self.request_of(instance).cloned() else { return };
        if request.instance_id.as_deref() != Some(instance)
            || request.state == RequestState::Cancelled
        {
            return;
        }
        match request.kind {
            SpotKind::OneTime => {
                self.set_request(
                    at,
                    &request.id,
                    RequestState::Closed,
                    "instance-terminated-by-user",
                );
            }
            SpotKind::Persistent => {
                self.set_request(at, &request.id, RequestState::Open, "pending-fulfillment");
                self.schedule(at + SETTLES_IN, Event::RequestTries(request.id));
            }
        }
    }

    /// P7: a stopped instance can't be started any more; a running one runs until it stops.
    pub(super) fn request_ends(&mut self, at: Timestamp, id: &str) {
        let Some(request) = self.requests.get(id) else { return };
        match request.state {
            RequestState::Open | RequestState::Disabled => {
                self.set_request(at, id, RequestState::Cancelled, "schedule-expired");
            }
            RequestState::Active | RequestState::Closed | RequestState::Cancelled => {}
        }
    }

    /// An offering gains or loses capacity; losing it interrupts its spot instances.
    pub(super) fn capacity_changes(&mut self, at: Timestamp, offering: &Offering, available: bool) {
        if available {
            self.without_capacity.retain(|out| out != offering);
            let waiting = self.requests.values().filter(|request| {
                request.zone == offering.zone
                    && request.instance_type == offering.instance_type
                    && matches!(request.state, RequestState::Disabled | RequestState::Open)
            });
            let waiting: Vec<String> = waiting.map(|request| request.id.clone()).collect();
            for id in waiting.into_iter().filter(|_| offering.capacity == CapacityType::Spot) {
                let due = self.delay(RESTARTS_IN);
                self.schedule(at + due, Event::RequestTries(id));
            }
            return;
        }
        if self.has_capacity(offering) {
            self.without_capacity.push(offering.clone());
        }
        let here = self.instances().filter(|one| {
            one.market == CapacityType::Spot
                && one.state == InstanceState::Running
                && offering_of(one) == *offering
        });
        let here: Vec<String> = here.map(|one| one.id.clone()).collect();
        here.iter().for_each(|id| self.notify(at, id));
    }
}
