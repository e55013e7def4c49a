//! The commands, one file each, and what they share: the engine's settings, and printing a document.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::num::NonZeroUsize;

use gpu_inference::{DevicePreference, InputLimits, RuntimeOptions, cache_folder};
use gpu_worker::EngineSetup;
use gpuctl_control::config::Config;

pub(crate) mod models;
pub(crate) mod run;
pub(crate) mod serve;

/// The engine's settings as the configuration has them.
pub(crate) fn engine_setup(config: &Config) -> Result<EngineSetup, Box<dyn Error>> {
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
        options: threads.map_or_else(RuntimeOptions::default, |intra_threads| RuntimeOptions {
            intra_threads,
            ..RuntimeOptions::default()
        }),
        limits: InputLimits {
            audio_seconds_max: worker.audio_seconds_max,
            image_pixels_max: worker.image_pixels_max,
            ..InputLimits::default()
        },
    })
}

/// For the commands that need one: most of `serve` waits, and `run` fetches nothing but a file.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, std::io::Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Prints a document as JSON.
pub(crate) fn print(document: &impl serde::Serialize) -> Result<(), Box<dyn Error>> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(document)?)?;
    Ok(())
}
