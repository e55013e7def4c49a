//! Opens models: verified files, sessions on the chosen device, and the pipeline that runs them.

use ort::session::Session;

use crate::models::{
    Device, DevicePreference, Gpu, Manifest, ModelError, ModelStore, Opener, Place, Resolved,
    Runtime, Work, verified_bytes,
};
use crate::onnx_error::OnnxError;
use crate::pipelines::Pipeline;
use crate::pipelines::raw::RawPipeline;

/// Opens what a job was resolved to.
///
/// # Errors
/// As [`open_pipeline`].
pub fn open(
    runtime: &Runtime,
    store: &ModelStore,
    wanted: &Resolved,
    device: DevicePreference,
) -> Result<Pipeline, ModelError> {
    match wanted.work() {
        Work::Task => open_pipeline(runtime, store, wanted.model(), device),
        Work::Graph => open_raw(runtime, store, wanted.model(), device),
    }
}

/// Verifies the model's files, makes its sessions, and returns the pipeline that runs it.
///
/// A device chosen with [`ModelStore::with_devices`] goes before the manifest's, and that before `device`, except that
/// [`DevicePreference::Cpu`] keeps every model off the GPU that was not put there by name. A model whose own device is `auto` runs on
/// the processor where CUDA does not work; [`Pipeline::fallback`] tells why.
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
/// let input = Content::Text("Hello, world.".into()).into();
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
    OpenAttempt::new(runtime, store, device).with_fallback(|attempt| attempt.pipeline(model))
}

/// One attempt to open a model, on the devices that work.
struct OpenAttempt<'a> {
    runtime: &'a Runtime,
    store: &'a ModelStore,
    /// The device of models without one of their own.
    device: DevicePreference,
    /// Why the last attempt failed on the GPU.
    cuda_failure: Option<OnnxError>,
}

impl<'a> OpenAttempt<'a> {
    fn new(runtime: &'a Runtime, store: &'a ModelStore, device: DevicePreference) -> Self {
        Self { runtime, store, device, cuda_failure: None }
    }

    /// Opens a model, and once more if the GPU failed: what may run on the processor does so then.
    fn with_fallback<T>(
        &mut self,
        open: impl Fn(&Self) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        match open(self) {
            Err(ModelError::Session { model, source }) if self.may_fall_back(&model) => {
                self.cuda_failure = Some(source);
                open(self)
            }
            outcome => outcome,
        }
    }

    fn may_fall_back(&self, model: &str) -> bool {
        let manifest = self.store.get(model);
        let own = manifest.and_then(|manifest| self.store.own_device(manifest, self.device));
        own == Some(DevicePreference::Auto)
    }

    fn place(&self, manifest: &Manifest) -> Result<Place, ModelError> {
        let own = self.store.own_device(manifest, self.device);
        if own == Some(DevicePreference::Auto) {
            let failure = self.cuda_failure.clone().map_or_else(|| self.runtime.cuda(), Err);
            let meant =
                self.runtime.gpu() == Gpu::Expected || self.device == DevicePreference::Cuda;
            return Ok(match failure {
                Ok(()) => Device::Cuda.into(),
                Err(reason) => Place { device: Device::Cpu, fallback: meant.then_some(reason) },
            });
        }
        let device = self.runtime.device(own.unwrap_or(self.device));
        let model = || manifest.name().to_owned();
        Ok(device.map_err(|source| ModelError::Device { model: model(), source })?.into())
    }

    fn opener(&self, manifest: &'a Manifest) -> Result<Opener<'a>, ModelError> {
        let folder = self.store.folder_of(manifest);
        Ok(Opener::new(self.runtime, folder, manifest, self.place(manifest)?))
    }

    fn pipeline(&self, model: &str) -> Result<Pipeline, ModelError> {
        let (manifest, family) = self.store.require(model)?;
        let Some(open) = family.open else {
            return Err(ModelError::NotForJobs { model: model.to_owned(), task: manifest.task() });
        };
        let mut opener = self.opener(manifest)?;
        for used in family.uses {
            let Some(name) = manifest.uses().get(used.role) else { continue };
            let (used_manifest, used_family) = self.store.require(name)?;
            if used_family.name != used.family {
                let (model, family) = (model.to_owned(), used_family.name);
                return Err(ModelError::WrongUse {
                    model,
                    used: name.clone(),
                    role: used.role,
                    family,
                });
            }
            opener.add_used(used.role, self.opener(used_manifest)?);
        }
        let run = open(&mut opener)?;
        Ok(Pipeline::new(&opener, run))
    }

    fn graph(&self, graph: &'a str) -> Result<(Opener<'a>, &'a str), ModelError> {
        let (manifest, role) = self.store.graph(graph)?;
        Ok((self.opener(manifest)?, role))
    }
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
    OpenAttempt::new(runtime, store, device).with_fallback(|attempt| {
        let (mut opener, role) = attempt.graph(graph)?;
        let run = RawPipeline::open(&mut opener, role)?;
        Ok(Pipeline::new(&opener, Box::new(run)))
    })
}

/// The session of a graph that is named as for [`open_raw`].
pub(crate) fn open_session(
    runtime: &Runtime,
    store: &ModelStore,
    graph: &str,
    device: DevicePreference,
) -> Result<Session, ModelError> {
    OpenAttempt::new(runtime, store, device).with_fallback(|attempt| {
        let (mut opener, role) = attempt.graph(graph)?;
        opener.raw_session(role)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gpu_tasks::Blame;

    use super::*;
    use crate::models::{RuntimeOptions, cache_folder};

    const OCR: &str = "pp-ocr-v4-mobile";

    /// One test, since a process has one runtime with one memory of CUDA.
    #[test]
    fn cuda_is_believed_until_it_fails_and_a_failure_is_not_remembered() {
        if Path::new("/dev/nvidia0").exists() {
            return;
        }
        let options = RuntimeOptions { gpu: Gpu::Expected, ..RuntimeOptions::default() };
        let library = Runtime::locate(None).expect("run scripts/fetch-models.py");
        let runtime = Runtime::load(&library, options).unwrap();
        let store = ModelStore::open(&cache_folder().join("models")).unwrap();
        let passing = OnnxError::of_text("the card was full");
        *runtime.last_probe() = Some(Err(passing.clone()));
        assert_ne!(runtime.cuda(), Err(passing), "it is tried again");
        // CUDA worked, and then a session fails on it.
        *runtime.last_probe() = Some(Ok(()));
        assert_eq!(runtime.device(DevicePreference::Auto).unwrap(), Device::Cuda);
        let error = open_pipeline(&runtime, &store, OCR, DevicePreference::Auto).err().unwrap();
        assert_eq!((error.code(), error.blame()), ("device.failed", Blame::Box), "{error:?}");
        assert!(runtime.last_probe().is_none(), "it is not believed any longer");
        // A model whose own device is `auto` runs on the processor then, and says why.
        *runtime.last_probe() = Some(Ok(()));
        let store = store.with_devices(&[(OCR.to_owned(), DevicePreference::Auto)].into());
        let pipeline = open_pipeline(&runtime, &store, OCR, DevicePreference::Auto).unwrap();
        assert_eq!(pipeline.device(), Device::Cpu);
        assert!(pipeline.fallback().is_some());
    }
}
