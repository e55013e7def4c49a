//! What queue and worker cost a busy box: jobs through both, against the same models called in a bare loop, in turns.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends at the first error"
)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Bench, engine_setup, sample};
use gpu_inference::{
    Cancel, InputLimits, ModelStore, Params, Pipeline, Runtime, Task, decode, open_pipeline,
};

/// The unit of CPU time in proc(5): `sysconf(_SC_CLK_TCK)`, 100 on every architecture that Linux runs GPUs on.
const TICKS_A_SECOND: f64 = 100.0;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() {
    println!("worker over a bare loop of decode and run, median of {ROUNDS} rounds in turns");
    compare(Task::VoiceTranscribe, &sample("beckett.wav"), 30).await;
    compare(Task::VisionOcr, &sample("page.png"), 8).await;
    // Milliseconds of inference: what is around it shows most.
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "Every job costs its queue a receive, a commit and an ack.")
        .unwrap();
    compare(Task::TextEmbed, text.path(), 300).await;
}

async fn compare(task: Task, input: &Path, jobs: usize) {
    let bench = Bench::start().await;
    let mut pipeline = pipeline(task);
    let inputs = vec![input; jobs];
    // Both sides warm: models open, memory allocated.
    bench.run(task.name(), &inputs[..2]).await;
    bare(&mut pipeline, task, &inputs[..2]);
    let (mut times, mut works, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = cpu_seconds();
        let loop_took = bare(&mut pipeline, task, &inputs);
        let between = cpu_seconds();
        let worker_took =
            bench.run(task.name(), &inputs).await.iter().map(|(_, took)| *took).max().unwrap();
        times.push(worker_took.as_secs_f64() / loop_took.as_secs_f64());
        // Other load on the machine stretches the time of either side, but hardly its CPU seconds.
        works.push((cpu_seconds() - between) / (between - before));
        rates.push(jobs as f64 / worker_took.as_secs_f64());
    }
    println!(
        "{task}: {:.3} of its time, {:.3} of its CPU seconds, {:.2} jobs a second ({jobs} jobs a round)",
        median(times),
        median(works),
        median(rates)
    );
}

fn pipeline(task: Task) -> Pipeline {
    let setup = engine_setup();
    let library = Runtime::locate(None).unwrap();
    let runtime = Runtime::load(&library, setup.options).unwrap();
    let store = ModelStore::open(&setup.models).unwrap();
    let model = store.default_for(task).unwrap().name().to_owned();
    open_pipeline(&runtime, &store, &model, setup.device).unwrap()
}

fn bare(pipeline: &mut Pipeline, task: Task, inputs: &[&Path]) -> Duration {
    let began = Instant::now();
    for input in inputs {
        let prepared = decode(task, input, &Params::default(), &InputLimits::default()).unwrap();
        let outputs = pipeline.run(std::slice::from_ref(&prepared), &Cancel::new()).unwrap();
        assert_eq!(outputs.len(), 1);
    }
    began.elapsed()
}

/// CPU seconds of this process so far, all threads, user and system: fields 14 and 15 of proc(5)'s stat.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS_A_SECOND
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
