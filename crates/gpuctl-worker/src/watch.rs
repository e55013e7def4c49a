//! What a worker watches beside its jobs: its reports, its box, hanging jobs, and whether the plan stops the box.
//!
//! Whether to stop is decided by the same `decide` as everywhere; here it knows the worker's leases first-hand, and it is
//! called a second time while nothing can be received, so that no message slips in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gpuctl_control::act::act;
use gpuctl_control::log::shown;
use gpuctl_control::plan;
use gpuctl_control::ports::{LEASE_LASTS, PortError, WorkerReport};
use gpuctl_control::text::with_causes;
use gpuctl_control::worker_timing::REPORT_FAILURE_MAX;
use gpuctl_core::observation::{BoxState, Observation, SeenBox, Witness};
use gpuctl_core::plan::{Action, Plan, StopMode};
use gpuctl_core::units::Timestamp;
use tokio::time::Instant;

use crate::worker::std_time;
use crate::{Worker, WorkerExit};

impl Worker {
    /// Reports and reconciles at the worker's pace, until its task is dropped.
    pub(crate) async fn watch_loop(self: Arc<Self>) {
        let mut reported_at = Instant::now();
        loop {
            tokio::time::sleep(std_time(self.pace.reconcile_every)).await;
            if let Err(error) = self.report().await {
                tracing::warn!(%error, "cannot report; trying again");
                self.drain_if_unreported(reported_at.elapsed());
                continue;
            }
            reported_at = Instant::now();
            self.drain_if_hanging();
            self.reconcile().await;
        }
    }

    /// Drains where no controller can know that this box is idle.
    fn drain_if_unreported(&self, since_report: Duration) {
        if since_report > std_time(REPORT_FAILURE_MAX) && self.leases.count().0 == 0 {
            let minutes = REPORT_FAILURE_MAX.num_minutes();
            tracing::error!("no report reached the ledger for {minutes}m: shutting down");
            self.drain(WorkerExit::ReportFailed);
        }
    }

    /// Cancels jobs that take longer than the policy's `job_max`; drains if one goes on all the same, since only a new process
    /// gets rid of it.
    fn drain_if_hanging(&self) {
        if self.leases.cancel_overdue(self.policy.worker.job_max) {
            tracing::error!(
                "a job was cancelled and did not stop: draining, and then this worker exits"
            );
            self.drain(WorkerExit::Hung);
        }
    }

    /// Observes, and stops the box if the plan says so.
    async fn reconcile(&self) {
        let (seen, plan) = self.observe_and_store().await;
        self.drain_if_interrupted(&seen);
        if self.is_told_to_stop(&seen) && !self.is_draining() {
            tracing::info!("a controller told this box to drain");
            self.drain(WorkerExit::Idle);
            if let Err(error) = self.ports.cloud.stop(self.box_id(), StopMode::Drain).await {
                tracing::error!(error = %shown(with_causes(&error)), "the box could not be stopped");
            }
            return;
        }
        if self.stop_wanted(plan).is_none() || self.is_draining() {
            return;
        }
        // A message may have arrived meanwhile: decide again while nothing can be received.
        let _receive_lock = self.receiving.lock().await;
        if self.report().await.is_err() {
            return;
        }
        let (seen, plan) = self.observe_and_store().await;
        self.drain_if_interrupted(&seen);
        let Some(stop) = self.stop_wanted(plan) else { return };
        self.drain(WorkerExit::Idle);
        self.stop_box(&seen, &stop).await;
    }

    /// Observes what the plan needs, stores it in the ledger as every controller does, and plans.
    async fn observe_and_store(&self) -> (Observation, Plan) {
        let witness = Witness::Worker(self.box_id().clone());
        let (observed, plan) = plan(&self.ports, &self.policy, witness).await;
        for error in observed.remember(&self.ports, None).await {
            tracing::warn!(%error, "cannot store what was observed");
        }
        (observed.observation, plan)
    }

    /// Drains once the cloud has announced that it interrupts this box, but does not stop it: after a stop of our own during
    /// an interruption neither EC2 nor we could start it again (P18).
    fn drain_if_interrupted(&self, seen: &Observation) {
        if let Some(at) = self.interruption(seen) {
            tracing::warn!(%at, "EC2 interrupts this box");
            self.drain(WorkerExit::Interrupted);
        }
    }

    /// The part of the plan that stops this box, if the plan does.
    fn stop_wanted(&self, mut plan: Plan) -> Option<Plan> {
        for pool in &mut plan.pools {
            pool.actions.retain(
                |action| matches!(action, Action::Stop { box_id, .. } if box_id == self.box_id()),
            );
        }
        plan.pools.retain(|pool| pool.pool == self.setup.pool && !pool.actions.is_empty());
        (!plan.pools.is_empty()).then_some(plan)
    }

    /// When the cloud interrupts this box, if it has given notice.
    fn interruption(&self, seen: &Observation) -> Option<Timestamp> {
        self.own_box(seen)?.interruption
    }

    /// Whether a controller has told a launched EC2 box to drain, and then to end itself. On this machine a signal says so.
    fn is_told_to_stop(&self, seen: &Observation) -> bool {
        let is_stopping = |one: &SeenBox| one.state == BoxState::Stopping;
        self.policy.cloud.aws.is_some() && self.own_box(seen).is_some_and(is_stopping)
    }

    fn own_box<'a>(&self, seen: &'a Observation) -> Option<&'a SeenBox> {
        let boxes = seen.pools.get(&self.setup.pool)?.boxes.value.as_ref()?;
        boxes.iter().find(|one| one.id == *self.box_id())
    }

    /// Stops the box as any controller would: on the local backend a signal comes back to this very process.
    async fn stop_box(&self, seen: &Observation, stop: &Plan) {
        for done in act(&self.ports, seen, stop, seen.at + LEASE_LASTS).await {
            let reason = done.action.reason();
            tracing::info!(rule = reason.rule.as_str(), "stopping: {}", shown(&reason.text));
            if let Err(error) = done.result {
                tracing::error!(error = %shown(with_causes(&error)), "the box could not be stopped");
            }
        }
    }

    pub(crate) async fn report(&self) -> Result<(), PortError> {
        let (leases, idle_since) = self.leases.count();
        let report = WorkerReport {
            box_id: self.box_id().clone(),
            device: None,
            run_started_at: self.setup.run_started_at,
            at: self.ports.clock.now(),
            pid: self.setup.pid,
            ready_at: Some(self.ready_at),
            leases,
            idle_since,
            jobs_done: self.jobs_done.load(Ordering::Relaxed),
            last_error: None,
            fault: None,
            keep_until: None,
        };
        self.ports.ledger.report(&report).await
    }
}
