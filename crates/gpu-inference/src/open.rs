//! Opens models: verified files, sessions on the chosen device, and the pipeline that runs them.

use ort::session::Session;

use crate::models::{
    DevicePreference, Manifest, ModelError, ModelStore, Opener, Runtime, verified_bytes,
};
use crate::pipelines::Pipeline;
use crate::pipelines::raw::RawPipeline;

/// Verifies the model's files, makes its sessions, and returns the pipeline that runs it.
///
/// A device chosen with [`ModelStore::with_devices`] goes before the manifest's, and that before `device`, except that
/// `DEVICE=cpu` keeps every model off the GPU that was not put there by name.
///
/// ```
/// use gpu_inference::{
///     Cancel, Content, DevicePreference, ModelStore, Runtime, RuntimeOptions, TaskResult,
///     cache_folder, open_pipeline,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (model, models) = ("minilm-l6-v2-int8", cache_folder().join("models"));
/// # // Without models or ONNX Runtime on this machine there is nothing to show.
/// # if Runtime::locate(None).is_err() || !models.join(model).is_dir() {
/// #     return Ok(());
/// # }
/// let runtime = Runtime::load(&Runtime::locate(None)?, RuntimeOptions::default())?;
/// let store = ModelStore::open(&models)?;
/// let mut pipeline = open_pipeline(&runtime, &store, model, DevicePreference::Cpu)?;
/// let input = Content::Text("Hello, world.".to_owned()).into();
/// let outputs = pipeline.run(&[input], &Cancel::new())?;
/// let TaskResult::Embedding(embedding) = &outputs[0].result else { panic!("not a vector") };
/// assert_eq!(embedding.values.len(), 384);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The model is unknown, a file is missing, damaged or of another model, or the device does not work.
pub fn open_pipeline(
    runtime: &Runtime,
    store: &ModelStore,
    model: &str,
    device: DevicePreference,
) -> Result<Pipeline, ModelError> {
    let (manifest, family) = store.require(model)?;
    let mut opener = opener(runtime, store, manifest, device)?;
    let Some(open) = family.open else {
        return Err(ModelError::NotForJobs { model: model.to_owned(), task: manifest.task() });
    };
    for used in family.uses {
        let Some(name) = manifest.uses().get(used.role) else { continue };
        let (used_manifest, used_family) = store.require(name)?;
        if used_family.name != used.family {
            let (model, family) = (model.to_owned(), used_family.name);
            return Err(ModelError::WrongUse {
                model,
                used: name.clone(),
                role: used.role,
                family,
            });
        }
        opener.add_used(used.role, self::opener(runtime, store, used_manifest, device)?);
    }
    let run = open(&mut opener)?;
    Ok(Pipeline::new(opener.device(), opener.batch_max(), run))
}

fn opener<'a>(
    runtime: &'a Runtime,
    store: &ModelStore,
    manifest: &'a Manifest,
    device: DevicePreference,
) -> Result<Opener<'a>, ModelError> {
    let preference = store.device_preference(manifest, device);
    Opener::new(runtime, store.folder_of(manifest), manifest, preference)
}

/// Checks that every file of a model exists and is the one that its manifest means.
///
/// # Errors
/// The model is unknown, or a file is missing or another one.
pub fn verify(store: &ModelStore, model: &str) -> Result<(), ModelError> {
    let (manifest, _) = store.require(model)?;
    for file in manifest.files() {
        verified_bytes(&store.folder_of(manifest), manifest.name(), file)?;
    }
    Ok(())
}

/// Opens one graph of any model for `onnx.run`: `MODEL`, or `MODEL/ROLE` where the model has several.
///
/// # Errors
/// As [`open_pipeline`], and where the role is unknown or missing.
pub fn open_raw(
    runtime: &Runtime,
    store: &ModelStore,
    graph: &str,
    device: DevicePreference,
) -> Result<Pipeline, ModelError> {
    let (mut opener, role) = raw_opener(runtime, store, graph, device)?;
    let run = RawPipeline::open(&mut opener, role)?;
    Ok(Pipeline::new(opener.device(), opener.batch_max(), Box::new(run)))
}

/// The session of a graph that is named as for [`open_raw`].
pub(crate) fn open_session(
    runtime: &Runtime,
    store: &ModelStore,
    graph: &str,
    device: DevicePreference,
) -> Result<Session, ModelError> {
    let (mut opener, role) = raw_opener(runtime, store, graph, device)?;
    opener.raw_session(role)
}

fn raw_opener<'a>(
    runtime: &'a Runtime,
    store: &'a ModelStore,
    graph: &'a str,
    device: DevicePreference,
) -> Result<(Opener<'a>, &'a str), ModelError> {
    let (model, role) = match graph.split_once('/') {
        Some((model, role)) => (model, Some(role)),
        None => (graph, None),
    };
    let (manifest, _) = store.require(model)?;
    let graphs: Vec<&str> = manifest.graphs().map(|file| file.role.as_str()).collect();
    let role = match (role, graphs.as_slice()) {
        (Some(role), roles) if roles.contains(&role) => role,
        (None, [only]) => only,
        _ => {
            let known = graphs.iter().map(|role| format!("{model}/{role}"));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(ModelError::WhichGraph { graph: graph.to_owned(), known });
        }
    };
    Ok((opener(runtime, store, manifest, device)?, role))
}
