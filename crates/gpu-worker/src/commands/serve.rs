//! `gpu-worker serve`: drains a pool's queue until told to stop or idle, and waits for the box to shut down where it should.

use std::error::Error;
use std::sync::Arc;

use gpu_worker::scratch::FolderScratch;
use gpu_worker::{Engine, EngineSetup};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::Config;
use gpuctl_control::ports::{Clock, WorkerReport};
use gpuctl_control::text::with_causes;
use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_worker::{Parts, Signals, Worker, WorkerSetup, serve as serve_worker};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::runtime;
use crate::arguments::ServeArguments;
use crate::backend::{Backend, NamedBox};

pub(crate) fn serve(
    config: &Config,
    setup: EngineSetup,
    wanted: ServeArguments,
) -> Result<(), Box<dyn Error>> {
    let named =
        NamedBox { pool: wanted.pool.parse()?, box_id: wanted.r#box, run_micros: wanted.run };
    let runtime = runtime()?;
    runtime.block_on(serve_box(config, Engine::new(setup), named))?;
    // Threads in the middle of a model's run would delay the exit; their messages are released by now.
    runtime.shutdown_background();
    Ok(())
}

async fn serve_box(config: &Config, engine: Engine, named: NamedBox) -> Result<(), Box<dyn Error>> {
    let backend = Backend::open(config, named).await?;
    let (ports, setup) = (backend.ports.clone(), backend.setup.clone());
    let ledger = Arc::clone(&ports.ledger);
    // From here on, since a shutdown's signal may come while the worker drains.
    let mut terminated = signal(SignalKind::terminate())?;
    let scratch = FolderScratch::open(&config.state.join("scratch").join(setup.box_id.as_str()))?;
    let pace = if config.policy.cloud.aws.is_some() { WorkerPace::AWS } else { WorkerPace::LOCAL };
    let parts = Parts { ports, inference: Arc::new(engine), scratch: Arc::new(scratch), pace };
    let outcome = match Worker::new(parts, &config.policy, setup.clone()) {
        Ok(worker) => serve_worker(Arc::new(worker), &signals()?).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        ledger.report(&final_report(&setup, with_causes(error))).await?;
    }
    tokio::select! {
        () = backend.wait_for_shutdown() => {}
        _ = terminated.recv() => {}
    }
    outcome?;
    Ok(())
}

/// The first signal drains; the second kills the process. Killed, since an orderly exit would unload ONNX Runtime while models run,
/// and their failures would be committed as results.
fn signals() -> Result<Signals, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signals = Signals::new();
    let told = signals.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        told.stop();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        let _ = kill_process(getpid(), Signal::KILL);
    });
    Ok(signals)
}

/// The report of a worker that cannot serve, so that controllers can show why.
fn final_report(setup: &WorkerSetup, error: String) -> WorkerReport {
    WorkerReport {
        box_id: setup.box_id.clone(),
        device: None,
        run_started_at: setup.run_started_at,
        at: SystemClock.now(),
        pid: setup.pid,
        ready_at: None,
        leases: 0,
        idle_since: None,
        jobs_done: 0,
        last_error: Some(error),
        fault: None,
        keep_until: None,
    }
}
