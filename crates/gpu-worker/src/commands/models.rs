//! `gpu-worker models`: lists, verifies, pulls and measures models; the work is done in `gpu_worker::models`.

use std::error::Error;
use std::time::Duration;

use gpu_inference::{DevicePreference, OpenSides};
use gpu_worker::EngineSetup;
use gpu_worker::models::pull::{Mirror, PullRequest, pull};
use gpu_worker::models::{self, BenchRequest};
use gpuctl_control::text::with_causes;

use super::print;
use crate::arguments::{BenchArguments, ModelsCommand};

pub(crate) fn models(setup: &EngineSetup, command: ModelsCommand) -> Result<(), Box<dyn Error>> {
    match command {
        ModelsCommand::List => print(&models::list(setup)?),
        ModelsCommand::Verify { names } => print(&models::verify_models(setup, &names)?),
        ModelsCommand::Pull { names, manifest, from } => {
            let mirror = from.as_deref().map(Mirror::new).transpose()?;
            let request = PullRequest { names, manifest, mirror };
            let pulled = pull(&setup.models, &request);
            print(&pulled.map_err(|error| format!("{} ({})", with_causes(&error), error.hint()))?)
        }
        ModelsCommand::Bench(wanted) => print(&models::bench(setup, &bench_request(wanted)?)?),
    }
}

fn bench_request(wanted: BenchArguments) -> Result<BenchRequest, Box<dyn Error>> {
    let devices: Result<Vec<DevicePreference>, _> =
        wanted.device.iter().map(|device| device.parse()).collect();
    Ok(BenchRequest {
        graphs: wanted.graphs,
        devices: devices?,
        batches: wanted.batch.into_iter().map(|batch| batch.max(1)).collect(),
        duration: Duration::try_from_secs_f64(wanted.seconds)?,
        sides: OpenSides { picture: wanted.side, length: wanted.length },
        threads: wanted.threads,
    })
}
