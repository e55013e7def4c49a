//! The life of a worker, top-down: it serves until something ends it, drains, and returns why it ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gpuctl_control::worker_timing::heartbeat_every;
use tokio::task::JoinSet;
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
    // Neither ends before it is told to: what panics in one round is tried again in the next, also during the drain.
    tasks.spawn(heartbeats(Arc::clone(&worker)));
    tasks.spawn(Arc::clone(&worker).watch_loop());
    let receiver = Arc::clone(&worker);
    receiving.spawn(async move {
        receiver.survive("receiving", Arc::clone(&receiver).receive_loop()).await;
    });
    tokio::select! {
        biased;
        () = signals.stop_wanted() => worker.drain(WorkerExit::ToldToStop),
        () = worker.draining.cancelled() => {}
    }
    drain(&worker, signals, &mut receiving).await;
    // A stop of the box that is under way is never cut off.
    let _ = timeout(CALL_TIME_MAX * 2, worker.stopping.lock()).await;
    tasks.shutdown().await;
    let exit = worker.exit().unwrap_or(WorkerExit::ToldToStop);
    tracing::info!("stopped: {exit}");
    let end = async {
        worker.last_report(exit).await;
        linger(&worker, signals, exit).await
    };
    worker.survive("the end", end).await.unwrap_or(exit)
}

/// Extends every lease at each heartbeat, and asks which jobs were cancelled, for ever.
async fn heartbeats(worker: Arc<Worker>) {
    let visibility = worker.queue.visibility;
    loop {
        tokio::time::sleep(std_time(heartbeat_every(visibility))).await;
        let heartbeat = worker.leases.extend_all(&worker.ports, visibility);
        worker.survive("a heartbeat", heartbeat).await;
        let cancelled = worker.leases.cancel_ended(&worker.ports);
        worker.survive("a check for cancelled jobs", cancelled).await;
    }
}

async fn drain(worker: &Arc<Worker>, signals: &Signals, receiving: &mut JoinSet<()>) {
    let exit = worker.exit().unwrap_or(WorkerExit::ToldToStop);
    tracing::info!("draining: {exit}");
    let release = async |which| {
        let released = worker.leases.release_all(&worker.ports, which, worker.now());
        worker.survive("a release", released).await;
    };
    let finished = async {
        // What has not begun is released at once, for another worker; meanwhile the rest goes on.
        release(Which::NotBegun).await;
        while receiving.join_next().await.is_some() {}
        worker.leases.none_held().await;
    };
    // A command that outlives the box's lifetime does not outlive an order to stop.
    let handed_over = async {
        signals.stop_wanted().await;
        worker.inference.hand_over();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = handed_over => {}
        () = signals.end_wanted() => tracing::warn!("told to stop a second time: ending at once"),
        done = timeout(drain_time(worker), finished) => if done.is_err() {
            tracing::warn!("the drain deadline is over: the rest is released to the queue");
        },
    }
    worker.ending.cancel();
    let _ = timeout(ENDING_MAX, async { while receiving.join_next().await.is_some() {} }).await;
    release(Which::All).await;
    receiving.shutdown().await;
    worker.suspects.clear();
}

/// How long a drain may take: as the policy says, or until the cloud takes the box.
fn drain_time(worker: &Worker) -> Duration {
    std_time(match worker.interrupted_at() {
        Some(at) => at - worker.now() - DRAIN_MARGIN,
        None if worker.exit() == Some(WorkerExit::Lifetime) && worker.inference.runs_command() => {
            let longest = worker.policy.pool(&worker.setup.pool).map(|pool| pool.command_max);
            longest.unwrap_or_default() + worker.policy.worker.drain
        }
        None => worker.policy.worker.drain,
    })
}

/// Waits with the power-off while something keeps the box on, and goes on reporting.
async fn linger(worker: &Worker, signals: &Signals, mut exit: WorkerExit) -> WorkerExit {
    let mut told = None;
    while exit.powers_off() {
        if worker.is_lifetime_over() {
            exit = WorkerExit::Lifetime;
        }
        let keeps = keeps_on(worker, exit).await;
        let Some(why) = keeps.as_ref() else { return exit };
        if told != keeps {
            tracing::warn!("{why}: this box is not powered off yet");
        }
        told = keeps;
        worker.last_report(exit).await;
        tokio::select! {
            biased;
            () = signals.stop_wanted() => return WorkerExit::ToldToStop,
            () = tokio::time::sleep(std_time(worker.pace.reconcile_every)) => {}
        }
    }
    exit
}

/// What keeps the box on after this worker's end.
async fn keeps_on(worker: &Worker, exit: WorkerExit) -> Option<String> {
    if worker.has_stopped_box.load(Ordering::Relaxed) {
        return None;
    }
    if exit != WorkerExit::Lifetime
        && let Some(until) = worker.kept_until().await
    {
        return Some(format!("a user keeps it until {until}"));
    }
    let is_last = worker.neighbours.is_last();
    (!is_last).then(|| "another worker of it serves, or powers it off".to_owned())
}
