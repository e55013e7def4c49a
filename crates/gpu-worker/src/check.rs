//! `gpu-worker check --json`: does ONNX Runtime load, which device is used, do the models open. `gpuctl doctor` runs it and shows its
//! findings. Nothing is downloaded or changed.

use gpu_inference::{
    Card, Device, ModelStore, Runtime, Task, VISIBLE, card, ffmpeg_version, open_pipeline,
    picture_programs,
};
use serde_json::{Value, json};

use crate::engine::EngineSetup;
use crate::failure::with_causes;

/// The findings, each with `name`, `ok`, `detail` and `fix`. A failure does not end the check, except that nothing can be opened
/// without ONNX Runtime.
#[must_use]
pub fn check(setup: &EngineSetup) -> Vec<Value> {
    let loaded = Runtime::locate(setup.library.as_deref()).and_then(|library| {
        Runtime::load(&library, setup.options).map(|runtime| (library, runtime))
    });
    let (library, runtime) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![failed("runtime", &error, error.hint())],
    };
    let mut checks = vec![passed("runtime", library.display().to_string())];
    checks.push(match runtime.device(setup.device) {
        Ok(device) => {
            let card = if device == Device::Cuda { told(setup.options.gpu_index) } else { None };
            let card = card.map_or_else(String::new, |card| format!(": {card}"));
            passed("device", format!("{device} (configured: {}){card}", setup.device))
        }
        Err(error) => failed("device", &error, error.hint()),
    });
    match setup.store() {
        Ok(store) => checks.extend(check_models(setup, &runtime, &store)),
        Err(error) => checks.push(failed("model", &error, error.hint())),
    }
    checks.push(passed("formats", formats()));
    checks.extend(picture_formats());
    checks
}

/// The card that CUDA uses, where the driver shows it.
fn told(number: u32) -> Option<String> {
    let Card { name, memory, .. } = card(number, std::env::var(VISIBLE).ok().as_deref()).ok()?;
    let (total, used) = (memory.total >> 20, memory.used.saturating_sub(memory.ours.unwrap_or(0)));
    Some(format!("{name} with {total} MiB, of which others use {} MiB", used >> 20))
}

/// What the optional programs read beside what gpu-worker reads itself.
fn formats() -> String {
    const OTHERS: &str = "WMA, AMR, AC-3, Speex and other rare recordings";
    match ffmpeg_version() {
        Some(version) => format!("ffmpeg {version} converts {OTHERS}"),
        None => format!("without ffmpeg, {OTHERS} cannot be read; `apt-get install ffmpeg`"),
    }
}

/// The same of pictures and documents. None is a failure: few users need them.
fn picture_formats() -> impl Iterator<Item = Value> {
    picture_programs().into_iter().map(|(program, format, package, installed)| {
        let detail = if installed {
            format!("{program} reads {format}")
        } else {
            format!("without {program}, {format} cannot be read; `apt-get install {package}`")
        };
        passed("formats", detail)
    })
}

/// Opens the default model of every task. Tasks without one are named in a finding that is not a failure, since few users need all.
fn check_models(setup: &EngineSetup, runtime: &Runtime, store: &ModelStore) -> Vec<Value> {
    let (mut checks, mut without) = (Vec::new(), Vec::new());
    for task in Task::ALL {
        let Some(manifest) = store.default_for(task) else {
            without.push(task.name());
            continue;
        };
        checks.push(match open_pipeline(runtime, store, manifest.name(), setup.device) {
            Ok(pipeline) => {
                passed("model", format!("{} does {task} on {}", manifest.name(), pipeline.device()))
            }
            Err(error) => failed("model", &error, error.hint()),
        });
    }
    let without = format!("no model does {}", without.join(", "));
    if checks.is_empty() {
        checks.push(json!({"name": "model", "ok": false, "detail": without, "fix": "`gpuctl models pull NAME` fetches one, scripts/fetch-models.py all"}));
    } else if without.len() > "no model does ".len() {
        checks.push(passed("model", without));
    }
    checks
}

fn passed(name: &str, detail: impl serde::Serialize) -> Value {
    json!({"name": name, "ok": true, "detail": detail, "fix": null})
}

fn failed(name: &str, error: &dyn std::error::Error, fix: &str) -> Value {
    json!({"name": name, "ok": false, "detail": with_causes(error), "fix": fix})
}
