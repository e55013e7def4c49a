//! `gpu-worker serve`: drains a pool's queue until told to stop or idle, and waits for the box to shut down where it should.

use std::error::Error;
use std::sync::Arc;

use gpu_worker::{Engine, EngineSetup, Worker, WorkerSetup, serve as serve_worker};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::Config;
use gpuctl_control::ports::{Clock, WorkerReport};
use gpuctl_control::text::with_causes;
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
    let outcome = match Worker::new(ports, engine, config, setup.clone()) {
        Ok(worker) => serve_worker(Arc::new(worker), stop_signal()?).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        ledger.report(&final_report(&setup, with_causes(error))).await?;
    }
    tokio::select! {
        () = backend.wait_for_shutdown() => {}
        _ = terminated.recv() => {}
    }
    Ok(outcome?)
}

/// Completes at the first signal, which drains; the second signal kills the process. Killed, since an orderly exit would unload
/// ONNX Runtime while models run, and their failures would be committed as results.
fn stop_signal() -> Result<impl Future<Output = ()>, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            let _ = kill_process(getpid(), Signal::KILL);
        });
    })
}

/// The report of a worker that cannot serve, so that controllers can show why.
fn final_report(setup: &WorkerSetup, error: String) -> WorkerReport {
    WorkerReport {
        box_id: setup.box_id.clone(),
        run_started_at: setup.run_started_at,
        at: SystemClock.now(),
        pid: std::process::id(),
        ready_at: None,
        leases: 0,
        idle_since: None,
        jobs_done: 0,
        last_error: Some(error),
        fault: None,
        keep_until: None,
    }
}
