//! `gpu-worker models`: which models there are, whether their files are complete, where to get them, and how fast they are.
//!
//! `gpuctl models` runs it and shows its documents, since `gpuctl` does not link ONNX Runtime.

pub mod pull;

use std::time::Duration;

use gpu_inference::{
    Bench, Device, DevicePreference, Manifest, ModelError, ModelStore, OpenSides, Runtime,
    RuntimeError, RuntimeOptions, catalogue, verify,
};
use gpuctl_control::wire::models::{
    BenchDocument, BenchRowDocument, BenchSkippedDocument, ModelDocument, ModelsDocument,
    VerifiedDocument, VerifiedModelDocument,
};

use crate::engine::EngineSetup;
use crate::failure::with_causes;

/// The models in the folder, and those that can be pulled.
///
/// # Errors
/// The folder exists and cannot be read.
pub fn list(setup: &EngineSetup) -> Result<ModelsDocument, ModelError> {
    let store = if setup.models.is_dir() { Some(setup.store()?) } else { None };
    let mut models = Vec::new();
    for manifest in store.iter().flat_map(ModelStore::list) {
        let folder = setup.models.join(manifest.name());
        let here = |file: &gpu_inference::ModelFile| {
            let found = std::fs::metadata(folder.join(&file.path));
            found.is_ok_and(|found| found.len() == file.size_bytes)
        };
        let whole = manifest.files().iter().all(here);
        models.push(model(manifest, if whole { "here" } else { "incomplete" }));
    }
    for (name, text) in catalogue() {
        if models.iter().any(|model| model.name == name) {
            continue;
        }
        // A built-in manifest is valid: a test parses each.
        if let Ok(manifest) = Manifest::parse(text, name.as_ref()) {
            models.push(model(&manifest, "known"));
        }
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ModelsDocument { folder: setup.models.display().to_string(), models })
}

fn model(manifest: &Manifest, state: &str) -> ModelDocument {
    ModelDocument {
        name: manifest.name().to_owned(),
        task: manifest.task().to_string(),
        default: manifest.is_default(),
        family: manifest.family_name().to_owned(),
        precision: manifest.precision().to_string(),
        device: manifest.device().map(|device| device.to_string()),
        licence: manifest.licence().to_owned(),
        bytes: manifest.files().iter().map(|file| file.size_bytes).sum(),
        state: state.to_owned(),
    }
}

/// Reads every file of the named models, or of all that are here, and compares it with its manifest.
///
/// # Errors
/// The folder cannot be read.
pub fn verify_models(
    setup: &EngineSetup,
    names: &[String],
) -> Result<VerifiedDocument, ModelError> {
    let store = setup.store()?;
    let all = || store.list().map(|manifest| manifest.name().to_owned()).collect();
    let names: Vec<String> = if names.is_empty() { all() } else { names.to_vec() };
    let verified = |name: String| match verify(&store, &name) {
        Ok(()) => VerifiedModelDocument { name, ok: true, problem: None, fix: None },
        Err(error) => {
            let fix = match error {
                ModelError::FileMissing { .. }
                | ModelError::FileSize { .. }
                | ModelError::FileHash { .. } => format!("gpuctl models pull {name}"),
                _ => error.hint().to_owned(),
            };
            let problem = Some(with_causes(&error));
            VerifiedModelDocument { name, ok: false, problem, fix: Some(fix) }
        }
    };
    Ok(VerifiedDocument { models: names.into_iter().map(verified).collect() })
}

/// What `models bench` measures.
#[derive(Debug, Clone)]
pub struct BenchRequest {
    /// `MODEL`, or `MODEL/ROLE`; empty: every graph that is here.
    pub graphs: Vec<String>,
    /// Empty: the processor, and the GPU where it works.
    pub devices: Vec<DevicePreference>,
    /// Batch sizes, each at least 1.
    pub batches: Vec<usize>,
    /// How long each case is measured.
    pub duration: Duration,
    /// Sizes of the dimensions that a graph leaves open.
    pub sides: OpenSides,
    /// Threads of a session on the processor; `None`: the configuration's.
    pub threads: Option<std::num::NonZeroUsize>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("ONNX Runtime cannot be used")]
    Runtime(#[from] RuntimeError),
    #[error("the models cannot be read")]
    Models(#[from] ModelError),
}

/// Measures graphs over batch sizes and devices; what cannot be measured is listed with the reason.
///
/// # Errors
/// ONNX Runtime cannot be loaded, or the folder of models cannot be read.
pub fn bench(setup: &EngineSetup, request: &BenchRequest) -> Result<BenchDocument, BenchError> {
    let options = request
        .threads
        .map_or(setup.options, |intra_threads| RuntimeOptions { intra_threads, ..setup.options });
    let runtime = Runtime::load(&Runtime::locate(setup.library.as_deref())?, options)?;
    // Each model is placed on the measured device below: its manifest's own device would win otherwise.
    let store = ModelStore::open(&setup.models)?;
    let graphs =
        if request.graphs.is_empty() { all_graphs(&store) } else { request.graphs.clone() };
    let devices = match (request.devices.as_slice(), runtime.device(DevicePreference::Auto)) {
        ([], Ok(Device::Cuda)) => vec![DevicePreference::Cpu, DevicePreference::Cuda],
        ([], _) => vec![DevicePreference::Cpu],
        (asked, _) => asked.to_vec(),
    };
    let threads = options.intra_threads.get();
    let mut document = BenchDocument { threads, rows: Vec::new(), skipped: Vec::new() };
    for graph in &graphs {
        for &device in &devices {
            let name = graph.split('/').next().unwrap_or(graph);
            let store = store.clone().with_devices(&[(name.to_owned(), device)].into());
            let mut case = Case { graph, device, store: &store, document: &mut document };
            case.measure(&runtime, request);
        }
    }
    Ok(document)
}

fn all_graphs(store: &ModelStore) -> Vec<String> {
    let of_model = |manifest: &Manifest| {
        let roles: Vec<&str> = manifest.graphs().map(|file| file.role.as_str()).collect();
        match roles.as_slice() {
            [_] => vec![manifest.name().to_owned()],
            roles => roles.iter().map(|role| format!("{}/{role}", manifest.name())).collect(),
        }
    };
    store.list().flat_map(of_model).collect()
}

/// One graph on one device.
struct Case<'a> {
    graph: &'a str,
    device: DevicePreference,
    store: &'a ModelStore,
    document: &'a mut BenchDocument,
}

impl Case<'_> {
    fn measure(&mut self, runtime: &Runtime, request: &BenchRequest) {
        let opened = Bench::open(runtime, self.store, self.graph, self.device);
        let mut bench = match opened {
            Ok(bench) => bench,
            Err(error) => return self.skip(with_causes(&error)),
        };
        let model = self.graph.split('/').next().unwrap_or(self.graph);
        let precision = self.store.get(model).map(|manifest| manifest.precision().to_string());
        for &batch in &request.batches {
            if !bench.takes(batch) {
                self.skip(format!("the graph fixes a batch that is not {batch}"));
                continue;
            }
            match bench.measure(batch, request.sides, request.duration) {
                Ok(speed) => {
                    let items = (speed.batch * speed.calls) as f64;
                    self.document.rows.push(BenchRowDocument {
                        graph: self.graph.to_owned(),
                        precision: precision.clone().unwrap_or_default(),
                        device: self.device.to_string(),
                        batch,
                        calls: speed.calls,
                        call_ms_p50: speed.call_p50.as_secs_f64() * 1e3,
                        items_per_second: items / speed.total.as_secs_f64(),
                        load_seconds: bench.load.as_secs_f64(),
                    });
                }
                // A larger batch would fail as well.
                Err(error) => return self.skip(format!("batch {batch}: {}", with_causes(&error))),
            }
        }
    }

    fn skip(&mut self, why: String) {
        let (graph, device) = (self.graph.to_owned(), self.device.to_string());
        self.document.skipped.push(BenchSkippedDocument { graph, device, why });
    }
}
