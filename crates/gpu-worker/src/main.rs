//! The program on the box: `serve` drains a pool's queue until told to stop or idle, `run` does one file and prints the answer.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gpu_inference::{
    Cancel, DevicePreference, InputLimits, OpenSides, OutputFile, Params, RuntimeOptions, Task,
    cache_folder, decode,
};
use gpu_worker::result::{FileDocument, file_document, output_document, with_files};
use gpu_worker::engine::EngineError;
use gpu_worker::failure::with_causes;
use gpu_worker::models::pull::{Mirror, PullRequest, pull};
use gpu_worker::models::{self, BenchRequest};
use gpu_worker::{Engine, EngineSetup, Worker, WorkerSetup, serve};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::Config;
use gpuctl_control::job::{InputLocation, InputUri};
use gpuctl_control::params::{Param, params_of, parse_param};
use gpuctl_control::ports::{Clock, Fetched, WorkerReport};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

mod backend;

use backend::{Backend, Named};

/// Drains a queue on a GPU box; normally started by gpuctl.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration's file; default: found as by gpuctl
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drain a pool's queue until told to stop, or idle
    Serve {
        /// The pool, as in gpuctl.toml
        #[arg(long)]
        pool: String,
        /// The box's name; on EC2 the instance's metadata says it
        #[arg(long)]
        r#box: Option<String>,
        /// When the box was asked to start, in microseconds since 1970; default: now
        #[arg(long)]
        run: Option<i64>,
    },
    /// Check ONNX Runtime, the device and the models, and print what was found as JSON
    Check,
    /// Run one file through a task's model and print the answer as JSON
    Run(RunArguments),
    /// List, verify, fetch and measure models, and print what was found as JSON
    #[command(subcommand)]
    Models(ModelsCommand),
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// What models are here, and which others are known
    List,
    /// Compare every file with its manifest
    Verify {
        /// The models; default: all that are here
        names: Vec<String>,
    },
    /// Fetch models from where their manifests say
    Pull {
        /// The models
        #[arg(required_unless_present = "manifest")]
        names: Vec<String>,
        /// The manifest of a model that is not known here
        #[arg(long, value_name = "PATH")]
        manifest: Option<PathBuf>,
        /// A folder or address that has the files as MODEL/PATH
        #[arg(long, value_name = "PLACE")]
        from: Option<String>,
    },
    /// Measure graphs with made-up inputs
    Bench(BenchArguments),
}

#[derive(clap::Args)]
struct BenchArguments {
    /// MODEL or MODEL/ROLE; default: every graph that is here
    graphs: Vec<String>,
    /// Items a call
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    batch: Vec<usize>,
    /// cpu, cuda or both; default: both, where there is CUDA
    #[arg(long, value_delimiter = ',')]
    device: Vec<String>,
    /// How long each case is measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Threads of a session on the processor; default: the configuration's
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Height and width of pictures where a graph leaves them open
    #[arg(long, default_value_t = OpenSides::default().picture)]
    side: usize,
    /// Length of texts and the like where a graph leaves it open
    #[arg(long, default_value_t = OpenSides::default().length)]
    length: usize,
}

#[derive(clap::Args)]
struct RunArguments {
    /// The task, as voice.transcribe or vision.ocr
    task: String,
    /// The file
    #[arg(required_unless_present = "text")]
    file: Option<PathBuf>,
    /// A text in place of a file
    #[arg(long, conflicts_with = "file")]
    text: Option<String>,
    /// What the task shall do differently, as speed=1.2; a file as reference=@voice.wav
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_param)]
    param: Vec<Param>,
    /// The model; default: the task's
    #[arg(long)]
    model: Option<String>,
    /// The folder for files that belong to the answer
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // ONNX Runtime logs hundreds of lines a session at `info`.
    let filter =
        EnvFilter::try_from_env("GPUCTL_LOG").unwrap_or_else(|_| EnvFilter::new("info,ort=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = Config::load(arguments.config.as_deref())?;
    let setup = engine_setup(&config)?;
    let engine = Engine::new(setup.clone());
    match arguments.command {
        Command::Check => print(&gpu_worker::check::check(&setup)),
        Command::Serve { pool, r#box, run } => {
            let named = Named { pool: pool.parse()?, box_id: r#box, run };
            runtime.block_on(serve_box(&config, engine, named))?;
            // Threads in the middle of a model's run would hold the exit up; what they had is given back by now.
            runtime.shutdown_background();
            Ok(())
        }
        Command::Models(command) => run_models(&setup, command),
        Command::Run(wanted) => runtime.block_on(run_file(&engine, &wanted)),
    }
}

async fn serve_box(config: &Config, engine: Engine, named: Named) -> Result<(), Box<dyn Error>> {
    let backend = Backend::open(config, named).await?;
    let (ports, setup) = (backend.ports.clone(), backend.setup.clone());
    let ledger = Arc::clone(&ports.ledger);
    // Listened to from here on: a shutdown's signal may come while the worker drains.
    let mut terminated = signal(SignalKind::terminate())?;
    let outcome = match Worker::new(ports, engine, config, setup.clone()) {
        Ok(worker) => serve(Arc::new(worker), stop_signal()?).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        ledger.report(&last_words(&setup, with_causes(error))).await?;
    }
    tokio::select! {
        () = backend.see_off() => {}
        _ = terminated.recv() => {}
    }
    Ok(outcome?)
}

/// The first signal drains, the second ends the process at once: killed, since an orderly exit would take ONNX Runtime apart
/// under the models that run, and what they fail with then would be kept as their jobs' results.
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

fn last_words(setup: &WorkerSetup, error: String) -> WorkerReport {
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
    }
}

fn engine_setup(config: &Config) -> Result<EngineSetup, Box<dyn Error>> {
    let worker = &config.policy.worker;
    let mut device_of = BTreeMap::new();
    for (name, model) in &config.policy.models {
        if let Some(device) = &model.device {
            device_of.insert(name.clone(), device.parse::<DevicePreference>()?);
        }
    }
    let threads = worker.threads.and_then(|threads| NonZeroUsize::try_from(threads).ok());
    Ok(EngineSetup {
        library: config.onnxruntime(),
        models: config.models().unwrap_or_else(|| cache_folder().join("models")),
        device: config.device().parse()?,
        device_of,
        options: threads
            .map_or_else(RuntimeOptions::default, |intra_threads| RuntimeOptions { intra_threads }),
        limits: InputLimits {
            audio_seconds_max: worker.audio_seconds_max,
            image_pixels_max: worker.image_pixels_max,
            ..InputLimits::default()
        },
    })
}

async fn run_file(engine: &Engine, wanted: &RunArguments) -> Result<(), Box<dyn Error>> {
    let task: Task = wanted.task.parse()?;
    let here = std::env::current_dir()?;
    let mut params = Params::read(task, &params_of(&wanted.param, &here))?;
    for (name, uri) in params.clone().uris() {
        let InputLocation::File(path) = uri.parse::<InputUri>()?.location() else {
            return Err(format!("{name}: only files of this machine are read here").into());
        };
        params.set_file(name, path);
    }
    let text = match &wanted.text {
        Some(text) => Some(Fetched::of_text(text)?),
        None => None,
    };
    let file = text.as_ref().map(Fetched::path).or(wanted.file.as_deref());
    let file = file.expect("clap asks for a file or a text");
    let prepared = decode(task, file, &params, &engine.limits())?;
    let inferred = engine.infer(task, wanted.model.as_deref(), prepared, Cancel::new()).await;
    let inferred = inferred.map_err(|error| match error {
        EngineError::Failed(failure) => {
            format!("{} ({})", failure.message, failure.hint.unwrap_or_default())
        }
        EngineError::Cancelled => "cancelled".to_owned(),
    })?;
    let files = write_files(&inferred.output.files, wanted.output.as_deref())?;
    print(&with_files(output_document(&inferred.output.result), &files))
}

fn run_models(setup: &EngineSetup, command: ModelsCommand) -> Result<(), Box<dyn Error>> {
    match command {
        ModelsCommand::List => print(&models::list(setup)?),
        ModelsCommand::Verify { names } => print(&models::verify_models(setup, &names)?),
        ModelsCommand::Pull { names, manifest, from } => {
            let mirror = from.as_deref().map(Mirror::new).transpose()?;
            let request = PullRequest { names, manifest, mirror };
            let pulled = pull(&setup.models, &request);
            print(&pulled.map_err(|error| hinted(&error, error.hint()))?)
        }
        ModelsCommand::Bench(wanted) => {
            let asked: Result<Vec<DevicePreference>, _> =
                wanted.device.iter().map(|device| device.parse()).collect();
            let request = BenchRequest {
                graphs: wanted.graphs,
                devices: asked?,
                batches: wanted.batch.into_iter().map(|batch| batch.max(1)).collect(),
                duration: Duration::try_from_secs_f64(wanted.seconds)?,
                sides: OpenSides { picture: wanted.side, length: wanted.length },
                threads: wanted.threads,
            };
            print(&models::bench(setup, &request)?)
        }
    }
}

/// An error with what to do about it, as one message.
fn hinted(error: &dyn Error, hint: &str) -> String {
    format!("{} ({hint})", with_causes(error))
}

/// Without a folder the files are only described: nobody expects a command that prints to write.
fn write_files(
    files: &[OutputFile],
    folder: Option<&Path>,
) -> Result<Vec<FileDocument>, Box<dyn Error>> {
    let Some(folder) = folder else {
        if !files.is_empty() {
            tracing::warn!("{} files are not written: name a folder with --output", files.len());
        }
        return Ok(files.iter().map(|file| file_document(file, None)).collect());
    };
    std::fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let mut written = Vec::with_capacity(files.len());
    for file in files {
        let path = folder.join(&file.name);
        std::fs::write(&path, &file.bytes)?;
        written.push(file_document(file, Some(InputUri::of_path(&path).as_str().to_owned())));
    }
    Ok(written)
}

fn print(answer: &impl serde::Serialize) -> Result<(), Box<dyn Error>> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(answer)?)?;
    Ok(())
}
