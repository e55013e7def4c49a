//! What the command line accepts. Defaults that depend on the configuration are filled in by the commands.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gpu_inference::OpenSides;
use gpuctl_control::params::{Param, parse_param};

use crate::commands::gpus::Gpus;

/// Processes the jobs of a queue on a GPU box; normally started by gpuctl or by the box's service manager.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// The configuration file [default: found as by gpuctl]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Process the jobs of a pool's queue until told to stop, or idle
    Serve(ServeArguments),
    /// Run each model that is here once, and print a table with timings; fails if one does not run
    Check {
        /// Open the default model of each task only, and print the findings as JSON, as `gpuctl doctor` reads them
        #[arg(long)]
        json: bool,
    },
    /// Run one file through a task's model and print the output as JSON
    Run(RunArguments),
    /// List, verify, fetch and measure models, and print the outcome as JSON
    #[command(subcommand)]
    Models(ModelsCommand),
    /// What a box's boot scripts ask and tell
    #[command(subcommand)]
    Box(BoxCommand),
    /// Run a job's command; nothing that it has started outlives it, or the end of standard input
    #[command(hide = true)]
    Exec(ExecArguments),
}

#[derive(Args)]
pub(crate) struct ExecArguments {
    /// Become the program, which does not outlive this process, its launcher
    #[arg(long, value_name = "PID")]
    pub(crate) parent: Option<i32>,
    /// The program and its words
    #[arg(last = true, required = true)]
    pub(crate) words: Vec<std::ffi::OsString>,
}

#[derive(Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) of: WhichBox,
    /// A worker for each of these GPUs, from 0: all, or numbers as in 0,1 [default: one worker, on the first GPU]
    #[arg(long, value_name = "GPUS", conflicts_with = "device_index")]
    pub(crate) gpus: Option<Gpus>,
    /// The process that this one does not outlive
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) supervisor: Option<i32>,
}

/// Which box this is; on EC2 the instance's metadata says it.
#[derive(Args)]
pub(crate) struct WhichBox {
    /// The pool, as in gpuctl.toml
    #[arg(long)]
    pub(crate) pool: String,
    /// The box's name [default on EC2: from the instance's metadata]
    #[arg(long)]
    pub(crate) r#box: Option<String>,
    /// The GPU, from 0, of a box that has a worker for each [default: the box has one worker, on its first GPU]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) device_index: Option<u32>,
    /// When the box was asked to start, in microseconds since 1970 [default: now]
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) run: Option<i64>,
}

#[derive(Subcommand)]
pub(crate) enum BoxCommand {
    /// Print how many seconds a box of a pool may be up at most, also if its worker does not end: its lifetime, the drain, ten minutes
    Lifetime {
        /// The pool, as in gpuctl.toml
        #[arg(long)]
        pool: String,
    },
    /// Fail unless the worker is alive: for the health check of a container
    Health {
        /// The box's name [default, and where there is no such box: any of this state folder]
        #[arg(long)]
        r#box: Option<String>,
    },
    /// Report to the ledger why this box cannot run jobs
    Fault {
        #[command(flatten)]
        of: WhichBox,
        /// A short code, e.g. boot.no-gpu
        code: String,
        /// The reason
        message: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum ModelsCommand {
    /// Show the models that are here, and those that can be pulled
    List,
    /// Compare every file with its manifest
    Verify {
        /// The models [default: all that are here]
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
        /// A folder, https:// or s3:// address that has the files as MODEL/PATH
        #[arg(long, value_name = "LOCATION")]
        from: Option<String>,
    },
    /// Measure graphs with synthetic inputs
    Bench(BenchArguments),
}

#[derive(Args)]
pub(crate) struct BenchArguments {
    /// MODEL, or MODEL/ROLE where it has several graphs [default: every graph that is here]
    pub(crate) graphs: Vec<String>,
    /// Batch sizes
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_values_t = [1, 8, 32])]
    pub(crate) batch: Vec<usize>,
    /// cpu, cuda or cpu,cuda [default: both, where there is CUDA]
    #[arg(long, value_name = "DEVICES", value_delimiter = ',')]
    pub(crate) device: Vec<String>,
    /// How long each case is measured
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Threads of a session on the processor [default: the configuration's]
    #[arg(long)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Height and width of pictures, in pixels, where a graph leaves them open
    #[arg(long, default_value_t = OpenSides::default().picture)]
    pub(crate) side: usize,
    /// Length of texts and of other sequences where a graph leaves it open
    #[arg(long, default_value_t = OpenSides::default().length)]
    pub(crate) length: usize,
}

#[derive(Args)]
pub(crate) struct RunArguments {
    /// The task, e.g. voice.transcribe
    pub(crate) task: String,
    /// The input file
    #[arg(required_unless_present = "text")]
    pub(crate) file: Option<PathBuf>,
    /// A text as input, in place of a file
    #[arg(long, conflicts_with = "file")]
    pub(crate) text: Option<String>,
    /// A param of the task, e.g. speed=1.2; a file as reference=@voice.wav
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_param)]
    pub(crate) param: Vec<Param>,
    /// The model [default: the task's]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The folder for the files that belong to the output
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}
