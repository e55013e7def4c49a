//! The life of a worker, top-down: it serves until something ends it, drains, and returns why it ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::leases::Which;
use crate::pace::{CALL_TIME_MAX, DRAIN_MARGIN, ENDING_MAX, std_time};
use crate::{Signals, Worker, WorkerExit};

/// Serves until `signals` ask for a stop, the plan stops the box, or the worker or its box is at an end; then drains: it finishes what has
/// begun until the deadline, puts away results that it cannot commit, and releases the rest to the queue. The caller powers the box off
/// if the exit says so.
pub async fn serve(worker: Arc<Worker>, signals: &Signals) -> WorkerExit {
    // Dropped with this future: what it has spawned ends with it.
    let (mut tasks, mut receiving) = (JoinSet::new(), JoinSet::new());
    let heart = Arc::clone(&worker);
    tasks.spawn(async move { heart.leases.keep_alive(&heart.ports, heart.queue.visibility).await });
    tasks.spawn(Arc::clone(&worker).watch_loop());
    receiving.spawn(Arc::clone(&worker).receive_loop());
    tokio::select! {
        biased;
        () = signals.stop_wanted() => worker.drain(WorkerExit::ToldToStop),
        () = worker.draining.cancelled() => {}
        ended = tasks.join_next() => crash(&worker, ended),
        ended = receiving.join_next() => crash(&worker, ended),
    }
    drain(&worker, signals, &mut receiving).await;
    // A stop of the box that is under way is never cut off.
    let _ = timeout(CALL_TIME_MAX * 2, worker.stopping.lock()).await;
    tasks.shutdown().await;
    let exit = worker.exit().unwrap_or(WorkerExit::ToldToStop);
    tracing::info!("stopped: {exit}");
    worker.last_report(exit).await;
    linger(&worker, signals, exit).await
}

/// A task that should never end has ended: a new process must take over.
fn crash(worker: &Worker, ended: Option<Result<(), JoinError>>) {
    let error = ended.and_then(Result::err).map(|error| error.to_string()).unwrap_or_default();
    tracing::error!(error = %gpuctl_control::log::shown(&error), "a part of the worker has crashed: this worker ends");
    worker.drain(WorkerExit::Hung);
}

async fn drain(worker: &Arc<Worker>, signals: &Signals, receiving: &mut JoinSet<()>) {
    let exit = worker.exit().unwrap_or(WorkerExit::ToldToStop);
    tracing::info!("draining: {exit}");
    let finished = async {
        // What has not begun is released at once, for another worker; meanwhile the rest goes on.
        worker.leases.release_all(&worker.ports, Which::NotBegun, worker.now()).await;
        while receiving.join_next().await.is_some() {}
        worker.leases.none_held().await;
    };
    tokio::select! {
        biased;
        () = signals.end_wanted() => tracing::warn!("told to stop a second time: ending at once"),
        done = timeout(drain_time(worker), finished) => if done.is_err() {
            tracing::warn!("the drain deadline is over: the rest is released to the queue");
        },
    }
    worker.ending.cancel();
    let _ = timeout(ENDING_MAX, async { while receiving.join_next().await.is_some() {} }).await;
    worker.leases.release_all(&worker.ports, Which::All, worker.now()).await;
    receiving.shutdown().await;
    worker.suspects.clear();
}

/// How long a drain may take: as the policy says, or until the cloud takes the box.
fn drain_time(worker: &Worker) -> Duration {
    std_time(match worker.interrupted_at() {
        Some(at) => at - worker.now() - DRAIN_MARGIN,
        None => worker.policy.worker.drain,
    })
}

/// While a user keeps the box, waits with the power-off, and goes on reporting.
async fn linger(worker: &Worker, signals: &Signals, exit: WorkerExit) -> WorkerExit {
    let mut is_told = false;
    loop {
        if !exit.powers_off() || exit == WorkerExit::Lifetime {
            return exit;
        }
        if worker.is_lifetime_over() {
            return WorkerExit::Lifetime;
        }
        let Some(until) = worker.kept_until().await else { return exit };
        if !is_told {
            tracing::warn!(%until, "a user keeps this box: it is not powered off before");
            is_told = true;
        }
        worker.last_report(exit).await;
        tokio::select! {
            biased;
            () = signals.stop_wanted() => return WorkerExit::ToldToStop,
            () = tokio::time::sleep(std_time(worker.pace.reconcile_every)) => {}
        }
    }
}
