//! The commands, one file each, and what they share: the engine's settings, and printing a document.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;

use gpu_inference::{DevicePreference, Gpu, InputLimits, RuntimeOptions, cache_folder};
use gpu_worker::EngineSetup;
use gpu_worker::trial::Trials;
use gpuctl_control::config::Config;

pub(crate) mod exec;
pub(crate) mod gpus;
pub(crate) mod models;
pub(crate) mod own_box;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod supervise;

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
        options: RuntimeOptions {
            intra_threads: threads.unwrap_or(RuntimeOptions::default().intra_threads),
            gpu: if config.policy.cloud.aws.is_some() && has_gpu(Path::new(PCI_DEVICES)) {
                Gpu::Expected
            } else {
                Gpu::Unknown
            },
            gpu_index: 0,
        },
        limits: InputLimits {
            audio_seconds_max: worker.audio_seconds_max,
            image_pixels_max: worker.image_pixels_max,
            ..InputLimits::default()
        },
    })
}

/// Where the kernel lists what is plugged in, with or without a driver.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// Whether the machine has a GPU of NVIDIA's. On EC2 it is paid for: then a driver that does not work is a fault of the box.
fn has_gpu(devices: &Path) -> bool {
    let read = |device: &Path, name: &str| std::fs::read_to_string(device.join(name));
    let is_gpu = |device: &Path| {
        // Display controllers, with or without a display.
        read(device, "vendor").is_ok_and(|vendor| vendor.trim() == "0x10de")
            && read(device, "class").is_ok_and(|class| class.starts_with("0x03"))
    };
    devices.read_dir().into_iter().flatten().flatten().any(|entry| is_gpu(&entry.path()))
}

/// `gpu-worker check`: the table, and an error if a model did not run.
pub(crate) fn check_models(setup: &EngineSetup) -> Result<(), Box<dyn Error>> {
    let trials = Trials::run(setup)?;
    write!(std::io::stdout(), "{trials}")?;
    if trials.all_ran() { Ok(()) } else { Err("not every model runs on this machine".into()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_found_by_its_vendor_and_class_also_without_a_driver() {
        let folder = tempfile::tempdir().unwrap();
        let plug = |name: &str, vendor: &str, class: &str| {
            let device = folder.path().join(name);
            std::fs::create_dir(&device).unwrap();
            std::fs::write(device.join("vendor"), vendor).unwrap();
            std::fs::write(device.join("class"), class).unwrap();
        };
        assert!(!has_gpu(&folder.path().join("none")));
        plug("0000:00:01.0", "0x1d0f\n", "0x030000\n");
        plug("0000:00:02.0", "0x10de\n", "0x040300\n");
        assert!(!has_gpu(folder.path()));
        plug("0000:00:1e.0", "0x10de\n", "0x030200\n");
        assert!(has_gpu(folder.path()));
    }
}
