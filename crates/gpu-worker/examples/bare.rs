//! The least that a worker could take: inputs decoded and prepared on all cores, a model on this thread, no queue and no results kept.
//!
//! `scripts/bench-gpu.py` compares the worker with it. usage: bare TASK MODEL DEVICE BATCH JOBS FILE…

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figure and ends at the first error"
)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use gpu_inference::{
    Cancel, InputLimits, ModelStore, Params, Pipeline, Prepared, Runtime, RuntimeOptions, Task,
    cache_folder, decode, open_pipeline, open_raw,
};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [task, model, device, batch, jobs, files @ ..] = words.as_slice() else {
        panic!("usage: bare TASK MODEL DEVICE BATCH JOBS FILE…")
    };
    let (task, batch, jobs): (Task, usize, usize) =
        (task.parse().unwrap(), batch.parse().unwrap(), jobs.parse().unwrap());
    let folder = std::env::var_os("GPUCTL_MODELS");
    let folder = folder.map_or_else(|| cache_folder().join("models"), Into::into);
    let library = Runtime::locate(None).unwrap();
    let runtime = Runtime::load(&library, RuntimeOptions::default()).unwrap();
    let store = ModelStore::open(&folder).unwrap();
    let open = if task == Task::OnnxRun { open_raw } else { open_pipeline };
    let mut pipeline = open(&runtime, &store, model, device.parse().unwrap()).unwrap();
    // The first calls allocate, and on a GPU plan.
    run_all(&mut pipeline, task, files, 2 * batch, batch);
    let took = run_all(&mut pipeline, task, files, jobs, batch);
    let per_second = jobs as f64 / took.as_secs_f64();
    println!("{{\"device\": \"{}\", \"items_per_second\": {per_second:.1}}}", pipeline.device());
}

/// The time for `jobs` inputs, the files in turns.
fn run_all(
    pipeline: &mut Pipeline,
    task: Task,
    files: &[String],
    jobs: usize,
    batch: usize,
) -> Duration {
    let began = Instant::now();
    let preparation = pipeline.preparation();
    let (send, prepared) = sync_channel(2 * batch);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            let (send, next, preparation) = (send.clone(), &next, preparation.clone());
            scope.spawn(move || {
                let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&n| n < jobs);
                while let Some(number) = take() {
                    let path = Path::new(&files[number % files.len()]);
                    let input = decode(task, path, &Params::default(), &InputLimits::default());
                    let input = match &preparation {
                        Some(preparation) => preparation.apply(input.unwrap()).unwrap(),
                        None => input.unwrap(),
                    };
                    send.send(input).unwrap();
                }
            });
        }
        drop(send);
        while let Some(inputs) = next_batch(&prepared, batch) {
            assert_eq!(pipeline.run(&inputs, &Cancel::new()).unwrap().len(), inputs.len());
        }
    });
    began.elapsed()
}

fn next_batch(prepared: &Receiver<Prepared>, batch: usize) -> Option<Vec<Prepared>> {
    let inputs: Vec<Prepared> = prepared.iter().take(batch).collect();
    (!inputs.is_empty()).then_some(inputs)
}
