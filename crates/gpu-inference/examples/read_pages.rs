//! How fast `vision.ocr` reads pages: rounds over the same files, in batches as a worker forms them, without a queue.
//!
//! `cargo run --release -p gpu-inference --example read_pages MODEL ROUNDS FILE…` prints the first round, in which sessions are opened and a GPU
//! plans, apart from the others. With `TEXTS=FILE` it writes what was read there, to compare with another build's. `print_pages` makes the files.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpu_inference::{
    Cancel, DevicePreference, InputLimits, ModelStore, Output, Params, Pipeline, Prepared, Runtime,
    RuntimeOptions, Task, TaskResult, cache_folder, decode, open_pipeline,
};

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: read_pages MODEL ROUNDS FILE…";
    let model = arguments.next().ok_or(usage)?;
    let rounds: usize = arguments.next().ok_or(usage)?.parse()?;
    let files: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let models = std::env::var_os("GPUCTL_MODELS");
    let models = models.map_or_else(|| cache_folder().join("models"), PathBuf::from);
    let runtime = Runtime::load(&Runtime::locate(None)?, RuntimeOptions::default())?;
    let store = ModelStore::open(&models)?;
    let mut pipeline = open_pipeline(&runtime, &store, &model, DevicePreference::Auto)?;
    let pages = files.iter().map(|file| page(file)).collect::<Result<Vec<Prepared>, _>>()?;
    let batches = batches(&pages, pipeline.batch_max());
    let mut took = Vec::new();
    let mut texts = String::new();
    for _ in 0..=rounds {
        let began = Instant::now();
        texts = read(&mut pipeline, &batches)?;
        took.push(began.elapsed());
    }
    let (first, others) = (took.remove(0), took);
    println!(
        "{model} on {}: {} pages in {} batches; first round {}, then {}",
        pipeline.device(),
        pages.len(),
        batches.len(),
        pace(pages.len(), &[first]),
        pace(pages.len(), &others)
    );
    if let Some(file) = std::env::var_os("TEXTS") {
        std::fs::write(file, texts)?;
    }
    Ok(())
}

fn page(file: &Path) -> Result<Prepared, Box<dyn Error>> {
    Ok(decode(Task::VisionOcr, file, &Params::default(), &InputLimits::default())?)
}

/// Pages of one bucket together, as a worker has them where many wait.
fn batches(pages: &[Prepared], batch_max: usize) -> Vec<Vec<Prepared>> {
    let mut buckets: BTreeMap<u64, Vec<Prepared>> = BTreeMap::new();
    for page in pages {
        buckets.entry(page.shape_bucket()).or_default().push(page.clone());
    }
    let batches = buckets.values().flat_map(|pages| pages.chunks(batch_max));
    batches.map(<[Prepared]>::to_vec).collect()
}

fn read(pipeline: &mut Pipeline, batches: &[Vec<Prepared>]) -> Result<String, Box<dyn Error>> {
    let mut texts = String::new();
    for batch in batches {
        for output in pipeline.run(batch, &Cancel::new())? {
            texts.push_str(&text(&output));
        }
    }
    Ok(texts)
}

fn text(output: &Output) -> String {
    let TaskResult::Page(page) = &output.result else { return "no page\n".to_owned() };
    page.lines.iter().map(|line| format!("{:?} {}\n", line.corners, line.text)).collect()
}

/// Pages a second of the median round.
fn pace(pages: usize, rounds: &[Duration]) -> String {
    let mut rounds = rounds.to_vec();
    rounds.sort_unstable();
    let Some(median) = rounds.get(rounds.len() / 2) else { return "nothing".to_owned() };
    format!("{:.2} pages/s", pages as f64 / median.as_secs_f64())
}
