//! The life of a worker, top-down: it reports ready, serves until something ends it, drains, and returns why it ended.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::worker::{SLOTS, std_time};
use crate::{Signals, Worker, WorkerError, WorkerExit};

/// Serves until `signals` ask for a stop or the plan stops the box, then drains: finishes what it holds until the policy's deadline
/// and releases the rest to the queue.
///
/// # Errors
/// When the ledger cannot be reached at the start; later failures are logged and retried.
pub async fn serve(worker: Arc<Worker>, signals: &Signals) -> Result<WorkerExit, WorkerError> {
    worker.report().await?;
    tracing::info!(r#box = %worker.box_id(), queue = %worker.queue.name, "ready");
    // Dropped with this future: what it has spawned ends with it.
    let mut tasks = JoinSet::new();
    let heart = Arc::clone(&worker);
    tasks.spawn(async move { heart.leases.keep_alive(&heart.ports, heart.queue.visibility).await });
    tasks.spawn(Arc::clone(&worker).watch_loop());
    let mut receiving = JoinSet::new();
    receiving.spawn(Arc::clone(&worker).receive_loop());
    tokio::select! {
        biased;
        () = signals.drain_wanted() => worker.drain(WorkerExit::ToldToStop),
        () = worker.draining.cancelled() => {}
    }
    let exit = worker.exit().unwrap_or(WorkerExit::ToldToStop);
    tracing::info!("draining: {exit}");
    tokio::select! {
        biased;
        () = signals.end_wanted() => tracing::warn!("told to stop a second time: ending at once"),
        () = finish(&worker, &mut receiving) => {}
    }
    // Also what was received and never started.
    worker.leases.release_all(&worker.ports).await;
    tasks.shutdown().await;
    tracing::info!("stopped");
    if let Err(error) = worker.report().await {
        tracing::warn!(%error, "the last report failed");
    }
    Ok(exit)
}

/// Waits until no job is held, at most until the drain's deadline.
async fn finish(worker: &Worker, receiving: &mut JoinSet<()>) {
    let finished = async {
        while receiving.join_next().await.is_some() {}
        let _ = worker.slots.acquire_many(SLOTS).await;
    };
    if tokio::time::timeout(std_time(worker.policy.worker.drain), finished).await.is_err() {
        tracing::warn!("the drain deadline is over: the rest is released to the queue");
    }
}
