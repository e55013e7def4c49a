//! Which boxes are ready, where the cloud itself does not show workers: by their reports, or by a boot's time where none reports.

use gpuctl_core::observation::{BoxState, SeenBox, SeenWorker};
use gpuctl_core::policy::{Policy, Pool};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use tokio::time::Instant;

use super::by;
use crate::ports::{Listing, PortError, Ports, WorkerReport};

/// Merges the latest reports into the boxes that run without a known worker.
///
/// # Errors
/// When the reports cannot be read. Whether those boxes are ready is not known then, so their pools are dropped from the listing: they
/// count as not read.
pub(super) async fn merge_worker_reports(
    ports: &Ports,
    policy: &Policy,
    listing: &mut Listing,
    deadline: Instant,
) -> Result<(), PortError> {
    let has_workers =
        |id: &PoolId| policy.pool(id).and_then(Pool::queue).is_some_and(|queue| queue.reports);
    let pools: Vec<PoolId> = listing.pools.keys().filter(|id| has_workers(id)).cloned().collect();
    // A cloud that shows workers shows them for all boxes that are ready.
    let without_worker =
        |one: &&mut SeenBox| one.worker.is_none() && one.state == BoxState::Running;
    let of_pools = listing.pools.iter_mut().filter(|(id, _)| pools.contains(id));
    let mut boxes: Vec<&mut SeenBox> =
        of_pools.flat_map(|(_, boxes)| boxes).filter(without_worker).collect();
    if boxes.is_empty() {
        return Ok(());
    }
    let ids: Vec<BoxId> = boxes.iter().map(|one| one.id.clone()).collect();
    match by(deadline, "the workers' reports", ports.ledger.reports(&ids)).await {
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

/// A box that runs is ready when its worker reports so (S10), not before. A report of an earlier run of the box does not count.
pub(super) fn apply_report(reports: &[WorkerReport], one: &mut SeenBox) {
    let began = one.run_started_at.unwrap_or(one.since);
    let report = reports.iter().find(|report| report.box_id == one.id && report.at >= began);
    one.worker = report.map(|report| SeenWorker {
        heard_at: report.at,
        leases: report.leases,
        idle_since: report.idle_since,
        jobs_done: report.jobs_done,
        fault: report.fault.clone(),
        keep_until: report.keep_until,
    });
    if let Some(error) = report.and_then(|report| report.last_error.clone()) {
        one.last_error = Some(error);
    }
    match report.and_then(|report| report.ready_at) {
        Some(ready_at) => one.since = ready_at,
        None => (one.state, one.since) = (BoxState::Pending, began),
    }
}
