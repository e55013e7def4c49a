//! Which boxes are ready, where the cloud itself does not show workers: by their reports, or by a boot's time where none reports.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, SeenBox, SeenWorker};
use gpuctl_core::policy::{Policy, Pool};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use gpuctl_core::without::Fix;
use tokio::time::Instant;

use super::by;
use crate::ports::{Listing, PortError, Ports, WorkerReport};

/// How much older than the newest report of a box another worker's may be to count: workers report every few seconds.
const REPORTS_APART_MAX: TimeDelta = TimeDelta::minutes(2);

/// How old the report of a worker that is excused counts as, at least.
const EXCUSED_FOR: TimeDelta = TimeDelta::minutes(1);

/// Whether the workers of this pool report.
pub(super) fn report(policy: &Policy, pool: &PoolId) -> bool {
    policy.pool(pool).and_then(Pool::queue).is_some_and(|queue| queue.reports)
}

/// The latest reports of some boxes' workers.
pub(super) struct Reports {
    of: BTreeSet<BoxId>,
    read: Result<Vec<WorkerReport>, PortError>,
}

impl Reports {
    pub(super) async fn read(ports: &Ports, of: BTreeSet<BoxId>, deadline: Instant) -> Self {
        let boxes: Vec<BoxId> = of.iter().cloned().collect();
        let read = match boxes.is_empty() {
            true => Ok(Vec::new()),
            false => by(deadline, "the workers' reports", ports.ledger.reports(&boxes)).await,
        };
        Self { of, read }
    }

    /// These, and `newer` for its boxes.
    fn with(self, newer: Self) -> Result<Vec<WorkerReport>, PortError> {
        let mut all = self.read?;
        all.retain(|report| !newer.of.contains(&report.box_id));
        all.extend(newer.read?);
        Ok(all)
    }
}

/// Merges the latest reports into the boxes that run without a known worker, and into those with an open run that do not run any more:
/// what their workers last reported is the end of their runs. `reports` were read beside the listing, for the boxes with an open run.
/// Others are read here: of a box that was just started outside gpuctl, and the last words of one that has ended.
///
/// # Errors
/// When the reports cannot be read. Whether those boxes are ready is not known then, so their pools are dropped from the listing: they
/// count as not read.
pub(super) async fn merge_worker_reports(
    ports: &Ports,
    policy: &Policy,
    listing: &mut Listing,
    reports: Reports,
    deadline: Instant,
) -> Result<(), PortError> {
    let pools: Vec<PoolId> =
        listing.pools.keys().filter(|pool| report(policy, pool)).cloned().collect();
    // A cloud that shows workers shows them for all boxes that are ready.
    let is_asked = |one: &&mut SeenBox| {
        let has_ended = !one.is_up() && reports.of.contains(&one.id);
        one.worker.is_none() && (one.state == BoxState::Running || has_ended)
    };
    let of_pools = listing.pools.iter_mut().filter(|(id, _)| pools.contains(id));
    let mut boxes: Vec<&mut SeenBox> =
        of_pools.flat_map(|(_, boxes)| boxes).filter(is_asked).collect();
    if boxes.is_empty() {
        return Ok(());
    }
    let is_read = |one: &SeenBox| one.state == BoxState::Running && reports.of.contains(&one.id);
    let others = boxes.iter().filter(|one| !is_read(one)).map(|one| one.id.clone()).collect();
    let others = Reports::read(ports, others, deadline).await;
    match reports.with(others) {
        Ok(reports) => {
            boxes.iter_mut().for_each(|one| apply_report(&reports, one));
            Ok(())
        }
        Err(error) => {
            listing.pools.retain(|id, _| !pools.contains(id));
            Err(error)
        }
    }
}

/// After an outage of the ledger every worker's last report is from before it. That the ledger takes writes is known up to the last one of
/// a controller, `unwritten` ago: a worker has been silent until then. What follows is known at the next reconcile.
pub(super) fn excuse_silence(one: &mut SeenBox, now: Timestamp, unwritten: TimeDelta) {
    if let Some(worker) = one.worker.as_mut().filter(|_| !Fix::SilenceAfterOutage.is_left_out()) {
        // Too old to say that the box is idle.
        let excused = (worker.heard_at + unwritten).min(now - EXCUSED_FOR);
        worker.heard_at = worker.heard_at.max(excused);
    }
}

/// In a pool whose queue another program drains (`worker = "own"`) no worker reports: a running box counts as ready `boot_default`
/// after its start. Boxes whose cloud shows their worker stay as they are.
pub(super) fn assume_ready_after_boot(policy: &Policy, listing: &mut Listing, now: Timestamp) {
    let is_silent = |pool: &&Pool| pool.queue().is_some_and(|queue| !queue.reports);
    for (id, boxes) in &mut listing.pools {
        let Some(pool) = policy.pool(id).filter(is_silent) else { continue };
        let running = |one: &&mut SeenBox| one.worker.is_none() && one.state == BoxState::Running;
        for one in boxes.iter_mut().filter(running) {
            let ready_at = one.since + pool.boot_default;
            if ready_at > now {
                one.state = BoxState::Pending;
            } else {
                one.since = ready_at;
            }
        }
    }
}

/// A fault that a worker named last is the error that its run ends with, unless it named another.
pub(super) fn end_with_faults(listing: &mut Listing) {
    for one in listing.pools.values_mut().flatten().filter(|one| one.last_error.is_none()) {
        one.last_error = one.fault().map(|fault| fault.message.clone());
    }
}

/// A box that runs is ready when a worker on it reports so (S10), not before. A report of an earlier run of the box does not count.
pub(super) fn apply_report(reports: &[WorkerReport], one: &mut SeenBox) {
    let began = one.run_started_at.unwrap_or(one.since);
    let is_its = |report: &&WorkerReport| {
        report.box_id == one.id && (report.run_started_at == began || report.at >= began)
    };
    let reports: Vec<&WorkerReport> = reports.iter().filter(is_its).collect();
    one.worker = merge(reports.iter().copied().map(seen));
    one.rebalance = one.rebalance.or(reports.iter().filter_map(|report| report.rebalance).max());
    let phases = reports.iter().map(|report| &report.boot_phases).find(|phases| !phases.is_empty());
    one.boot_phases = phases.cloned().unwrap_or_default();
    let newest = reports.iter().max_by_key(|report| report.at);
    if let Some(error) = newest.and_then(|report| report.last_error.clone()) {
        one.last_error = Some(error);
    }
    if one.state != BoxState::Running {
        return;
    }
    match reports.iter().filter_map(|report| report.ready_at).min() {
        Some(ready_at) => one.since = ready_at,
        None => (one.state, one.since) = (BoxState::Pending, began),
    }
}

fn seen(report: &WorkerReport) -> SeenWorker {
    SeenWorker {
        heard_at: report.at,
        leases: report.leases,
        idle_since: report.idle_since,
        jobs_done: report.jobs_done,
        fault: report.fault.clone(),
        keep_until: report.keep_until,
    }
}

/// What the reports of one box's workers say together: it is idle when all of them are, and takes no jobs when none of them does.
/// A worker that has not reported for as long as it takes to count as silent is left out, as long as another has.
pub fn merge(workers: impl Iterator<Item = SeenWorker>) -> Option<SeenWorker> {
    let workers: Vec<SeenWorker> = workers.collect();
    let heard_at = workers.iter().map(|one| one.heard_at).max()?;
    let is_recent = |one: &&SeenWorker| heard_at - one.heard_at <= REPORTS_APART_MAX;
    let recent: Vec<&SeenWorker> = workers.iter().filter(is_recent).collect();
    let idle: Option<Vec<Timestamp>> = recent.iter().map(|one| one.idle_since).collect();
    let faults: Option<Vec<_>> = recent.iter().map(|one| one.fault.as_ref()).collect();
    Some(SeenWorker {
        heard_at,
        leases: recent.iter().map(|one| one.leases).sum(),
        idle_since: idle.and_then(|idle| idle.into_iter().max()),
        jobs_done: workers.iter().map(|one| one.jobs_done).sum(),
        fault: faults
            .and_then(|faults| faults.into_iter().min_by_key(|fault| fault.since))
            .cloned(),
        keep_until: recent.iter().filter_map(|one| one.keep_until).max(),
    })
}
