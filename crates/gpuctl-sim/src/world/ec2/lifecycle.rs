//! The life cycle of an instance: start, boot, stop, interruption, termination, and their faults.

use chrono::TimeDelta;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;

use super::throttle::Bucket;
use super::types::{
    ChangeKind, Ec2Error, Ec2StopMode, Instance, InstanceState, RequestState, Shutdown,
    ShutdownBehaviour, SpotKind, StateChange, StateReason,
};
use super::{Change, Ec2, Event, LINGERS, Metered, STUCK, offering_of, reason_time};

/// How long a start that falls back stays in `pending`, and a forced stop in `stopping`.
const SOON: TimeDelta = TimeDelta::seconds(4);
/// How long `shutting-down` takes.
const TERMINATES_IN: TimeDelta = TimeDelta::seconds(20);

impl Ec2 {
    /// `StartInstances`: all or none (S5). An instance that is up already is a success without change.
    ///
    /// # Errors
    /// As EC2.
    pub fn start_instances(
        &mut self,
        now: Timestamp,
        ids: &[String],
    ) -> Result<Vec<StateChange>, Ec2Error> {
        self.call(now, Bucket::Start)?;
        for id in ids {
            self.check_start(id)?;
        }
        let start = |ec2: &mut Self, id: &String| {
            let previous = ec2.state(id);
            if previous == InstanceState::Stopped {
                ec2.start(now, id);
            }
            StateChange { id: id.clone(), previous, current: ec2.state(id) }
        };
        Ok(ids.iter().map(|id| start(self, id)).collect())
    }

    fn check_start(&mut self, id: &str) -> Result<(), Ec2Error> {
        let one = self.existing(id)?;
        match one.state {
            InstanceState::Pending | InstanceState::Running => return Ok(()),
            InstanceState::Stopped => {}
            // S4: also while it is still stopping.
            InstanceState::Stopping | InstanceState::ShuttingDown | InstanceState::Terminated => {
                let text =
                    format!("The instance '{id}' is not in a state from which it can be started.");
                return Err(Ec2Error::client("IncorrectInstanceState", text));
            }
        }
        let offering = offering_of(one);
        if let Some(request) = one.spot_request_id.as_ref().and_then(|id| self.requests.get(id)) {
            // P2, P4, P7: only after a user's stop, and only once the request has noticed it.
            let ready = request.state == RequestState::Disabled
                && request.status_code == "instance-stopped-by-user";
            if !ready {
                let text = format!(
                    "You can't start the Spot Instance '{id}' because the associated Spot Instance request is not in an appropriate state to support start."
                );
                return Err(Ec2Error::client("IncorrectSpotRequestState", text));
            }
        }
        self.admit(&offering, 1)
    }

    pub(super) fn start(&mut self, now: Timestamp, id: &str) {
        self.counts.starts += 1;
        self.change(now, id, |one| {
            one.state = InstanceState::Pending;
            one.launch_time = now;
            one.state_reason = None;
            one.state_transition_reason.clear();
            one.transition_at = now;
        });
        self.set_request_of(now, id, RequestState::Open, "pending-evaluation");
        self.begin_boot(now, id);
    }

    /// From `pending` to `running`, or not.
    pub(super) fn begin_boot(&mut self, now: Timestamp, id: &str) {
        let generation = self.generation(id);
        if self.faults.fall_back > 0 && self.chance.permille(self.faults.fall_back) {
            self.counts.fell_back += 1;
            self.schedule(now + SOON, Event::FallsBack(id.to_owned(), generation));
            return;
        }
        let mut takes = self.delay(self.settings.pending);
        if self.faults.stuck_pending > 0 && self.chance.permille(self.faults.stuck_pending) {
            self.counts.stuck += 1;
            takes += STUCK;
        }
        self.schedule(now + takes, Event::Boots(id.to_owned(), generation));
    }

    pub(super) fn finish_boot(&mut self, at: Timestamp, id: &str) {
        self.change(at, id, |one| one.state = InstanceState::Running);
        self.set_request_of(at, id, RequestState::Active, "fulfilled");
        let Some(one) = self.instance(id) else { return };
        let metered = Metered {
            id: id.to_owned(),
            offering: offering_of(one),
            asked_at: one.launch_time,
            from: at,
            to: None,
        };
        self.meter.push(metered);
        // Its zone may have run out of spot while it booted.
        if let Some(offering) = self.instance(id).map(offering_of)
            && offering.capacity == CapacityType::Spot
            && !self.has_capacity(&offering)
        {
            self.notify(at, id);
        }
    }

    /// S1: the start succeeded, and the instance is stopped again.
    pub(super) fn fail_boot(&mut self, at: Timestamp, id: &str) {
        let reason = StateReason {
            code: "Client.InternalError",
            message: "Client.InternalError: Client error on launch".to_owned(),
        };
        self.change(at, id, |one| {
            one.state = InstanceState::Stopped;
            one.state_reason = Some(reason);
            one.state_transition_reason = format!("Server.InternalError {}", reason_time(at));
            one.transition_at = at;
        });
        self.set_request_of(at, id, RequestState::Disabled, "instance-stopped-by-user");
    }

    /// `StopInstances`: all or none. A stopped instance is a success without change.
    ///
    /// # Errors
    /// As EC2.
    pub fn stop_instances(
        &mut self,
        now: Timestamp,
        ids: &[String],
        mode: Ec2StopMode,
    ) -> Result<Vec<StateChange>, Ec2Error> {
        self.call(now, Bucket::Mutate)?;
        for id in ids {
            self.check_stop(id)?;
        }
        let reason = StateReason {
            code: "Client.UserInitiatedShutdown",
            message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
        };
        let stop = |ec2: &mut Self, id: &String| {
            let previous = ec2.state(id);
            match (previous, mode) {
                (InstanceState::Running, _) => ec2.stop(now, id, &reason, mode),
                (InstanceState::Stopping, Ec2StopMode::Force) => {
                    let off = Event::Off(id.clone(), ec2.generation(id));
                    ec2.schedule(now + SOON, off);
                }
                _ => {}
            }
            StateChange { id: id.clone(), previous, current: ec2.state(id) }
        };
        Ok(ids.iter().map(|id| stop(self, id)).collect())
    }

    fn check_stop(&self, id: &str) -> Result<(), Ec2Error> {
        let one = self.existing(id)?;
        match one.state {
            InstanceState::Running | InstanceState::Stopping | InstanceState::Stopped => {}
            InstanceState::Pending | InstanceState::ShuttingDown | InstanceState::Terminated => {
                let text =
                    format!("The instance '{id}' is not in a state from which it can be stopped.");
                return Err(Ec2Error::client("IncorrectInstanceState", text));
            }
        }
        let request = one.spot_request_id.as_ref().and_then(|id| self.requests.get(id));
        let why = request.and_then(|request| match (request.kind, request.state) {
            // P1.
            (SpotKind::OneTime, _) => Some("one-time"),
            (SpotKind::Persistent, RequestState::Cancelled) => Some("cancelled"),
            (SpotKind::Persistent, _) => None,
        });
        match why.filter(|_| one.state == InstanceState::Running) {
            None => Ok(()),
            Some(kind) => {
                let text = format!(
                    "You can't stop the Spot Instance '{id}' because it is associated with a {kind} Spot Instance request. You can only stop Spot Instances associated with persistent Spot Instance requests."
                );
                Err(Ec2Error::client("UnsupportedOperation", text))
            }
        }
    }

    /// From `running` to `stopping`: billing ends here.
    pub(super) fn stop(
        &mut self,
        at: Timestamp,
        id: &str,
        reason: &StateReason,
        mode: Ec2StopMode,
    ) {
        let by = if reason.code.starts_with("Client.User") {
            format!("User initiated {}", reason_time(at))
        } else {
            format!("{} {}", reason.code, reason_time(at))
        };
        let reason = reason.clone();
        self.change(at, id, |one| {
            one.state = InstanceState::Stopping;
            one.state_reason = Some(reason);
            one.state_transition_reason = by;
            one.transition_at = at;
        });
        self.bill_until(at, id);
        // P18: after an interruption notice, the notice determines the request's status.
        if self.spot_action(id).is_none() {
            self.set_request_of(at, id, RequestState::Active, "marked-for-stop");
        }
        let generation = self.generation(id);
        let mut takes = match (mode, self.settings.shutdown) {
            (Ec2StopMode::Force, _) => SOON,
            (Ec2StopMode::Shutdown, Shutdown::After(takes)) => {
                takes + self.delay(self.settings.stopping)
            }
            (Ec2StopMode::Shutdown, Shutdown::FromInside) => self.settings.shutdown_max,
        };
        if self.faults.stuck_stopping > 0 && self.chance.permille(self.faults.stuck_stopping) {
            self.counts.stuck += 1;
            takes += STUCK;
        }
        self.schedule(at + takes, Event::Off(id.to_owned(), generation));
    }

    /// The operating system has shut down: a running instance stops or terminates, a stopping one is done.
    pub fn power_off(&mut self, now: Timestamp, id: &str) {
        self.advance(now);
        match self.instance(id).map(|one| (one.state, one.shutdown)) {
            Some((InstanceState::Running, ShutdownBehaviour::Stop)) => {
                let reason = StateReason {
                    code: "Client.InstanceInitiatedShutdown",
                    message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
                        .to_owned(),
                };
                self.stop(now, id, &reason, Ec2StopMode::Shutdown);
            }
            Some((InstanceState::Running, ShutdownBehaviour::Terminate)) => {
                self.terminate(now, id, "Client.InstanceInitiatedShutdown");
                return;
            }
            Some((InstanceState::Stopping, _)) => {}
            _ => return,
        }
        let takes = self.delay(self.settings.stopping);
        let off = Event::Off(id.to_owned(), self.generation(id));
        self.schedule(now + takes, off);
    }

    pub(super) fn finish_stop(&mut self, at: Timestamp, id: &str) {
        self.change(at, id, |one| one.state = InstanceState::Stopped);
        self.request_sees_stop(at, id);
        if let Some(record) = self.instances.get_mut(id) {
            record.notice = None;
            record.rebalance = None;
        }
    }

    /// `TerminateInstances`. A persistent request that is not cancelled first opens again (P5).
    ///
    /// # Errors
    /// As EC2.
    pub fn terminate_instances(
        &mut self,
        now: Timestamp,
        ids: &[String],
    ) -> Result<Vec<StateChange>, Ec2Error> {
        self.call(now, Bucket::Terminate)?;
        for id in ids {
            self.existing(id)?;
        }
        let terminate = |ec2: &mut Self, id: &String| {
            let previous = ec2.state(id);
            ec2.terminate(now, id, "Client.UserInitiatedShutdown");
            StateChange { id: id.clone(), previous, current: ec2.state(id) }
        };
        Ok(ids.iter().map(|id| terminate(self, id)).collect())
    }

    pub(super) fn terminate(&mut self, at: Timestamp, id: &str, code: &'static str) {
        if self.instance(id).is_none_or(|one| !one.is_there()) {
            return;
        }
        self.bill_until(at, id);
        let message = format!("{code}: terminated");
        self.change(at, id, |one| {
            one.state = InstanceState::ShuttingDown;
            one.state_reason = Some(StateReason { code, message });
            one.state_transition_reason = format!("User initiated {}", reason_time(at));
            one.transition_at = at;
        });
        let terminated = Event::Terminated(id.to_owned(), self.generation(id));
        self.schedule(at + TERMINATES_IN, terminated);
    }

    pub(super) fn finish_termination(&mut self, at: Timestamp, id: &str) {
        self.change(at, id, |one| one.state = InstanceState::Terminated);
        self.schedule(at + LINGERS, Event::Forgotten(id.to_owned()));
        self.request_sees_termination(at, id);
    }

    /// Gives a spot instance its interruption notice.
    pub(super) fn notify(&mut self, at: Timestamp, id: &str) {
        let Some(record) = self.instances.get_mut(id) else { return };
        if record.notice.is_some() {
            return;
        }
        let generation = record.generation;
        if self.faults.no_notice > 0 && self.chance.permille(self.faults.no_notice) {
            self.counts.unannounced += 1;
            self.schedule(at, Event::Interrupted(id.to_owned(), generation));
            return;
        }
        let persistent = self.request_of(id).is_none_or(|one| one.kind == SpotKind::Persistent);
        let due = at + super::NOTICE;
        let action = if persistent { "stop" } else { "terminate" };
        if let Some(record) = self.instances.get_mut(id) {
            record.notice = Some(super::SpotAction { action, at: due });
        }
        self.changes.push(Change { at, id: id.to_owned(), kind: ChangeKind::Notice });
        let marked = if persistent { "marked-for-stop" } else { "marked-for-termination" };
        self.set_request_of(at, id, RequestState::Active, marked);
        self.schedule(due, Event::Interrupted(id.to_owned(), generation));
    }

    pub(super) fn interrupt(&mut self, at: Timestamp, id: &str) {
        self.counts.interruptions += 1;
        let persistent = self.request_of(id).is_none_or(|one| one.kind == SpotKind::Persistent);
        if !persistent {
            self.terminate(at, id, "Server.SpotInstanceTermination");
            return;
        }
        if let Some(record) = self.instances.get_mut(id) {
            // Without a notice, too, the request ends as after one.
            record.notice = Some(super::SpotAction { action: "stop", at });
        }
        let reason = StateReason {
            code: "Server.SpotInstanceShutdown",
            message: "Server.SpotInstanceShutdown: Instance shut down by Amazon EC2".to_owned(),
        };
        self.stop(at, id, &reason, Ec2StopMode::Shutdown);
    }

    fn bill_until(&mut self, at: Timestamp, id: &str) {
        let open = self.meter.iter_mut().rev().find(|one| one.id == id);
        if let Some(open) = open.filter(|one| one.to.is_none()) {
            open.to = Some(at);
        }
    }

    pub(super) fn state(&self, id: &str) -> InstanceState {
        self.instance(id).map_or(InstanceState::Terminated, |one: &Instance| one.state)
    }
}
