//! What a worker watches beside its jobs: its box, its lifetime, its faults and reports, and whether the plan stops the box.
//!
//! Interruption, lifetime and faults are checked whether or not the ledger can be reached. Whether to stop is decided by the same `decide`
//! as everywhere; here it knows the worker's leases first-hand, and it is called a second time while nothing can be received, so that no
//! message slips in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gpuctl_control::act::act;
use gpuctl_control::log::shown;
use gpuctl_control::plan;
use gpuctl_control::ports::{LEASE_LASTS, PortError, WorkerReport};
use gpuctl_control::text::with_causes;
use gpuctl_control::worker_timing::REPORT_FAILURE_MAX;
use gpuctl_core::observation::{BoxState, HoldWants, Observation, SeenBox, Witness};
use gpuctl_core::plan::{Action, Plan, Rule};
use gpuctl_core::units::Timestamp;
use tokio::time::{Instant, timeout};

use crate::faults::Part;
use crate::leases::within;
use crate::pace::{CALL_TIME_MAX, KEEP_UNTIL_MAX, std_time};
use crate::{Worker, WorkerExit};

/// The blob in which a user writes until when the box is to stay on.
pub const KEEP_UNTIL: &str = "keep-until";

impl Worker {
    /// Watches at the worker's pace, until its task is dropped.
    pub(crate) async fn watch_loop(self: Arc<Self>) {
        let mut reported_at = Instant::now();
        loop {
            self.survive("the watch", self.watch_once(&mut reported_at)).await;
            tokio::time::sleep(std_time(self.pace.reconcile_every)).await;
        }
    }

    async fn watch_once(&self, reported_at: &mut Instant) {
        self.check_limits();
        self.check_own_box().await;
        match self.report(None).await {
            Ok(()) => {
                *reported_at = Instant::now();
                self.faults.clear(Part::Ledger);
                self.reconcile().await;
            }
            Err(error) => {
                self.faults.raise(Part::Ledger, &Part::Ledger.fault(&error), self.now());
                self.drain_if_unreported(*reported_at);
            }
        }
    }

    /// Drains where no controller can know that this box is idle. A worker that holds something goes on.
    fn drain_if_unreported(&self, reported_at: Instant) {
        if reported_at.elapsed() > std_time(REPORT_FAILURE_MAX) && self.leases.count().0 == 0 {
            let minutes = REPORT_FAILURE_MAX.num_minutes();
            tracing::error!("no report reached the ledger for {minutes}m: this worker ends");
            self.drain(WorkerExit::ReportFailed);
        }
    }

    fn check_limits(&self) {
        if self.is_draining() {
            return;
        }
        if self.is_lifetime_over() {
            tracing::info!("this box has been up for its lifetime_max");
            self.drain(WorkerExit::Lifetime);
        } else if let Some(fault) = self.faults.over_limit() {
            tracing::error!(code = fault.code, "a fault lasts too long: this worker ends");
            self.drain(WorkerExit::CannotStart);
        }
    }

    pub(crate) fn is_lifetime_over(&self) -> bool {
        self.lifetime_end.is_some_and(|end| Instant::now() >= end)
    }

    /// Drains once the cloud has announced that it interrupts this box, or a controller has told it to.
    async fn check_own_box(&self) {
        if self.exit() == Some(WorkerExit::Interrupted) {
            return;
        }
        match within("the own box", self.ports.cloud.boxes(&self.policy)).await {
            Ok(listing) => {
                let mut boxes = listing.pools.get(&self.setup.pool).into_iter().flatten();
                self.heed(boxes.find(|one| one.id == *self.box_id()));
            }
            Err(error) => {
                tracing::warn!(error = %shown(with_causes(&error)), "cannot see whether this box is interrupted");
            }
        }
    }

    /// Drains if the cloud or a controller says so. On this machine a controller says it by a signal.
    fn heed(&self, own: Option<&SeenBox>) {
        let Some(own) = own else { return };
        self.set_rebalance(own.rebalance);
        if let Some(at) = own.interruption {
            tracing::warn!(%at, "EC2 interrupts this box");
            self.drain_before(at);
        } else if own.state == BoxState::Stopping && self.policy.cloud.aws.is_some() {
            // A command that outlives the box's lifetime does not outlive an order to stop.
            self.inference.hand_over();
            if !self.is_draining() {
                tracing::info!("a controller told this box to drain");
                self.drain(WorkerExit::Idle);
            }
        }
    }

    /// Observes, and stops the box if the plan says so.
    async fn reconcile(&self) {
        let (_, plan) = self.observe_and_store().await;
        if self.stop_wanted(plan).is_none() || self.is_draining() {
            return;
        }
        // A message may have arrived meanwhile: decide again while nothing can be received.
        let _receive_lock = self.receiving.lock().await;
        if self.report(None).await.is_err() {
            return;
        }
        let (seen, plan) = self.observe_and_store().await;
        let Some((stop, rule)) = self.stop_wanted(plan) else { return };
        let exit = match rule {
            Rule::Limits if self.is_lifetime_over() => WorkerExit::Lifetime,
            // It did not get ready in time, or takes no jobs for too long.
            Rule::Limits => WorkerExit::CannotStart,
            _ => WorkerExit::Idle,
        };
        if self.is_draining() || (exit != WorkerExit::Lifetime && self.keep_until().is_some()) {
            return;
        }
        // Not twice: where several workers share the box, each of them decides the same.
        if !self.neighbours.may_stop_box() {
            return;
        }
        self.has_stopped_box.store(true, Ordering::Relaxed);
        // On the local backend the stop is a signal to this very process, and must not count as the reason.
        self.will_end(exit);
        let _stopping = self.stopping.lock().await;
        self.stop_box(&seen, &stop).await;
        self.drain(exit);
    }

    /// Observes what the plan needs, stores it in the ledger as every controller does, and plans.
    async fn observe_and_store(&self) -> (Observation, Plan) {
        let witness = Witness::Worker(self.box_id().clone());
        let (observed, plan) = plan(&self.ports, &self.policy, witness).await;
        let Ok(errors) = timeout(CALL_TIME_MAX, observed.remember(&self.ports, None)).await else {
            tracing::warn!("what was observed could not be stored in time");
            return (observed.observation, plan);
        };
        for error in errors {
            tracing::warn!(%error, "cannot store what was observed");
        }
        (observed.observation, plan)
    }

    /// The part of the plan that stops this box, and the rule that does, if the plan does.
    fn stop_wanted(&self, mut plan: Plan) -> Option<(Plan, Rule)> {
        for pool in &mut plan.pools {
            pool.actions.retain(
                |action| matches!(action, Action::Stop { box_id, .. } if box_id == self.box_id()),
            );
        }
        plan.pools.retain(|pool| pool.pool == self.setup.pool && !pool.actions.is_empty());
        let rule = plan.pools.first()?.actions.first()?.reason().rule;
        Some((plan, rule))
    }

    /// Stops the box as any controller would.
    async fn stop_box(&self, seen: &Observation, stop: &Plan) {
        for done in act(&self.ports, seen, stop, seen.at + LEASE_LASTS).await {
            let reason = done.action.reason();
            tracing::info!(rule = reason.rule.as_str(), "stopping: {}", shown(&reason.text));
            if let Err(error) = done.result {
                tracing::error!(error = %shown(with_causes(&error)), "the box could not be stopped");
            }
        }
    }

    /// Reports why the worker ends, where that is an error.
    pub(crate) async fn last_report(&self, exit: WorkerExit) {
        let error = match exit {
            WorkerExit::CannotStart | WorkerExit::ReportFailed => {
                Some(self.faults.oldest().map_or_else(|| exit.to_string(), |fault| fault.message))
            }
            WorkerExit::Hung => Some("a job or a part of the worker hung".to_owned()),
            _ => None,
        };
        if let Err(error) = self.report(error).await {
            tracing::warn!(%error, "the last report failed");
        }
    }

    async fn report(&self, last_error: Option<String>) -> Result<(), PortError> {
        let (leases, idle_since) = self.leases.count();
        let report = WorkerReport {
            box_id: self.box_id().clone(),
            device: self.setup.device.clone(),
            run_started_at: self.setup.run_started_at,
            at: self.now(),
            pid: self.setup.pid,
            ready_at: self.ready_at(),
            leases,
            idle_since,
            jobs_done: self.jobs_done.load(Ordering::Relaxed),
            last_error,
            fault: self.faults.oldest(),
            keep_until: self.keep_until(),
            rebalance: self.rebalance(),
            boot_phases: self.setup.boot_phases.clone(),
        };
        within("the report", self.ports.ledger.report(&report)).await
    }

    /// Until when a user keeps this box on, by the file or by a hold.
    pub(crate) async fn kept_until(&self) -> Option<Timestamp> {
        let memory = within("the ledger", self.ports.ledger.memory(&self.setup.pool)).await;
        let hold = memory.ok().and_then(|memory| memory.hold);
        let hold = hold.filter(|hold| hold.wants == HoldWants::Running && hold.until > self.now());
        self.keep_until().max(hold.map(|hold| hold.until))
    }

    /// Until when a user keeps this box on, by the file. An instant too far ahead does not count, since it may be a slip.
    fn keep_until(&self) -> Option<Timestamp> {
        let text = self.scratch.get(KEEP_UNTIL).ok().flatten()?;
        let until: Timestamp = String::from_utf8_lossy(&text).trim().parse().ok()?;
        let now = self.now();
        (until > now && until <= now + KEEP_UNTIL_MAX).then_some(until)
    }
}
