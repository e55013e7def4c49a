//! `gpu-worker serve`: drains a pool's queue until something ends it, powers the box off where that is due, and exits with the reason.

use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gpu_inference::DevicePreference;
use gpu_worker::locks::BoxLocks;
use gpu_worker::scratch::{ALIVE_EVERY, FolderScratch};
use gpu_worker::{Commands, Engine, EngineSetup, Tasks};
use gpuctl_control::config::Config;
use gpuctl_control::log::shown;
use gpuctl_control::ports::PortError;
use gpuctl_control::text::with_causes;
use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_worker::{Parts, Signals, Worker, WorkerExit, WorkerSetup, serve as serve_worker};
use rustix::process::{Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::gpus::{self, Gpus};
use super::runtime;
use super::supervise::supervise;
use crate::arguments::{ServeArguments, WhichBox};
use crate::backend::{Backend, NamedBox};

/// How long the connection to AWS is tried at the start: credentials and network may come later than this process.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// The wait between two tries.
const CONNECT_EVERY: Duration = Duration::from_secs(10);
/// How long the process may take to end after its work: threads of a hanging model may keep it.
const EXIT_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) fn serve(
    config: &Config,
    mut setup: EngineSetup,
    wanted: ServeArguments,
) -> Result<Infallible, Box<dyn Error>> {
    if let Some(gpus) = &wanted.gpus {
        let gpus = gpus::find(gpus, setup.device != DevicePreference::Cpu)?;
        // A single one of a machine needs no supervisor, nor a report of its own.
        if wanted.gpus != Some(Gpus::All) || gpus.len() > 1 {
            let code = supervise(&gpus, || worker_of(config, &wanted.of))?;
            signal_hook::low_level::exit(code.into());
        }
    }
    match wanted.supervisor {
        // CUDA sees a single one.
        Some(supervisor) => end_with(supervisor)?,
        None => setup.options.gpu_index = wanted.of.device_index.unwrap_or_default(),
    }
    let named = NamedBox::try_from(wanted.of)?;
    let runtime = runtime()?;
    let exit = runtime.block_on(serve_box(config, Engine::new(setup), &named))?;
    std::thread::spawn(|| {
        std::thread::park_timeout(EXIT_TIME_MAX);
        let _ = kill_process(getpid(), Signal::KILL);
    });
    // Threads in the middle of a model's run would delay the exit; their messages are released by now.
    runtime.shutdown_background();
    // Without the library's own cleaning up: under a model that still runs it crashes, and the exit code would be lost.
    signal_hook::low_level::exit(exit.code().into())
}

/// The command of a worker on one of a box's GPUs.
fn worker_of(config: &Config, of: &WhichBox) -> Result<Command, std::io::Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--pool", &of.pool, "--supervisor", &getpid().to_string()]);
    if let Some(file) = &config.file {
        command.arg("--config").arg(file);
    }
    if let Some(name) = &of.r#box {
        command.args(["--box", name]);
    }
    if let Some(run) = of.run {
        command.args(["--run", &run.to_string()]);
    }
    Ok(command)
}

/// Has the kernel tell this process to stop when its supervisor ends.
fn end_with(supervisor: i32) -> Result<(), Box<dyn Error>> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let is_there = getppid().is_some_and(|parent| parent.as_raw_pid() == supervisor);
    if is_there { Ok(()) } else { Err("the supervisor of this worker has ended".into()) }
}

async fn serve_box(
    config: &Config,
    engine: Engine,
    named: &NamedBox,
) -> Result<WorkerExit, Box<dyn Error>> {
    let signals = signals()?;
    // Also while the box shuts down, when the worker has ended already.
    let mut terminated = signal(SignalKind::terminate())?;
    let connected = tokio::select! {
        biased;
        () = signals.stop_wanted() => return Ok(WorkerExit::ToldToStop),
        connected = connect(config, named) => connected?,
    };
    let Some(backend) = connected else {
        Backend::power_off_unconnected(config).await;
        return Ok(WorkerExit::CannotStart);
    };
    let setup = backend.setup.clone();
    let device = setup.device.as_deref();
    let Some(locks) = BoxLocks::take(&config.state, &setup.box_id, device)? else {
        let id = &setup.box_id;
        let text = "a box has one worker, or one for each GPU (`--gpus`)";
        return Err(format!("another gpu-worker serves box {id} on this machine: {text}").into());
    };
    let scratch = FolderScratch::open(&config.state, &setup.box_id, device)?;
    tokio::spawn(say_alive(scratch.clone()));
    let pace = if config.policy.cloud.aws.is_some() { WorkerPace::AWS } else { WorkerPace::LOCAL };
    let launcher = std::env::current_exe()?;
    let files = Arc::clone(&backend.ports.files);
    let folder = command_folder(&config.state, &setup);
    let commands = Commands::new(&config.policy, &setup.pool, files, folder, launcher);
    let parts = Parts {
        ports: backend.ports.clone(),
        inference: Arc::new(Tasks::new(engine, commands)),
        scratch: Arc::new(scratch),
        neighbours: Arc::new(locks),
        pace,
    };
    let worker = Worker::new(parts, &config.policy, setup)?;
    let exit = serve_worker(Arc::new(worker), &signals).await;
    if exit.powers_off() {
        tokio::select! {
            () = backend.power_off() => {}
            _ = terminated.recv() => {}
        }
    }
    Ok(exit)
}

/// Where this worker's commands run: by the locks no other worker has its name.
fn command_folder(state: &Path, setup: &WorkerSetup) -> PathBuf {
    let folder = state.join("commands").join(setup.box_id.as_str());
    setup.device.as_ref().map_or(folder.clone(), |device| folder.join(format!("device-{device}")))
}

/// Says that this worker is alive, for as long as its runtime is.
async fn say_alive(scratch: FolderScratch) {
    loop {
        scratch.say_alive();
        tokio::time::sleep(ALIVE_EVERY).await;
    }
}

/// The backend; `None` if AWS cannot be reached for `CONNECT_TIME_MAX`. An error of the configuration is returned at once.
async fn connect(config: &Config, named: &NamedBox) -> Result<Option<Backend>, Box<dyn Error>> {
    let end = Instant::now() + CONNECT_TIME_MAX;
    loop {
        let error = match Backend::open(config, named).await {
            Ok(backend) => return Ok(Some(backend)),
            Err(error) => error,
        };
        let is_elsewhere = config.policy.cloud.aws.is_some() && error.is::<PortError>();
        if !is_elsewhere {
            return Err(error);
        }
        tracing::error!(error = %shown(with_causes(&*error)), "cannot connect; trying again");
        if Instant::now() >= end {
            return Ok(None);
        }
        tokio::time::sleep(CONNECT_EVERY).await;
    }
}

/// The first signal drains, the second ends at once, the third kills the process. Killed, since an orderly exit would wait for models.
fn signals() -> Result<Signals, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signals = Signals::new();
    let told = signals.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            told.stop();
        }
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        let _ = kill_process(getpid(), Signal::KILL);
    });
    Ok(signals)
}
