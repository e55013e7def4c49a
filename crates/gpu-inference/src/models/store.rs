//! The models on this machine, by their manifests. Their files are read when a model is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gpu_tasks::Task;
use tracing::warn;

use super::error::ModelError;
use super::family::{Families, FamilySpec};
use super::manifest::{Manifest, ManifestError, ModelTask};
use super::runtime::DevicePreference;
use crate::text;

/// The manifest's file name.
const MANIFEST_NAME: &str = "model.toml";

/// The models in one folder.
#[derive(Debug, Clone)]
pub struct ModelStore {
    folder: PathBuf,
    families: Families,
    models: BTreeMap<String, Model>,
    /// Devices that the user chose for single models.
    devices: BTreeMap<String, DevicePreference>,
}

#[derive(Debug, Clone)]
struct Model {
    manifest: Manifest,
    family: &'static FamilySpec,
}

impl ModelStore {
    pub(crate) fn read(folder: &Path, families: Families) -> Result<Self, ModelError> {
        let unreadable = |source| ModelError::Folder { folder: folder.to_owned(), source };
        let mut models = BTreeMap::new();
        for entry in folder.read_dir().map_err(unreadable)? {
            let model_folder = entry.map_err(unreadable)?.path();
            if !model_folder.join(MANIFEST_NAME).is_file() {
                continue;
            }
            // A bad manifest must not keep the other models from their jobs.
            match read_model(&model_folder, families) {
                Ok(model) => drop(models.insert(model.manifest.name().to_owned(), model)),
                Err(error) => warn!(%error, "a model is left out"),
            }
        }
        Ok(Self { folder: folder.to_owned(), families, models, devices: BTreeMap::new() })
    }

    /// Sets the devices of single models, whatever their manifests say.
    #[must_use]
    pub fn with_devices(mut self, devices: &BTreeMap<String, DevicePreference>) -> Self {
        self.devices.clone_from(devices);
        self
    }

    /// The manifest of one model; `None` also if its manifest cannot be used.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Manifest> {
        self.models.get(name).map(|model| &model.manifest)
    }

    /// The model for jobs of `task` that name none: the one marked `default`, else the first by name.
    #[must_use]
    pub fn default_for(&self, task: Task) -> Option<&Manifest> {
        let fitting = || self.list().filter(|manifest| manifest.task() == ModelTask::Job(task));
        fitting().find(|manifest| manifest.is_default()).or_else(|| fitting().next())
    }

    /// All models, by name.
    pub fn list(&self) -> impl Iterator<Item = &Manifest> {
        self.models.values().map(|model| &model.manifest)
    }

    /// A model's manifest and family, or why it cannot be used.
    pub(crate) fn require(
        &self,
        name: &str,
    ) -> Result<(&Manifest, &'static FamilySpec), ModelError> {
        if let Some(model) = self.models.get(name) {
            return Ok((&model.manifest, model.family));
        }
        let folder = self.folder.join(name);
        match read_model(&folder, self.families) {
            Err(error) if folder.join(MANIFEST_NAME).is_file() => Err(error.into()),
            _ => Err(ModelError::Unknown {
                model: text::cut(name.to_owned()),
                folder: self.folder.clone(),
                known: text::cut(
                    self.models.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
                ),
            }),
        }
    }

    pub(crate) fn folder_of(&self, manifest: &Manifest) -> PathBuf {
        self.folder.join(manifest.name())
    }

    /// The device of a model: the user's choice for it, else its manifest's; `None` is the worker's. The worker's `cpu` overrides
    /// manifests, so that nothing uses the GPU that was not put there by name.
    pub(crate) fn own_device(
        &self,
        manifest: &Manifest,
        workers: DevicePreference,
    ) -> Option<DevicePreference> {
        let chosen = self.devices.get(manifest.name()).copied();
        chosen.or_else(|| manifest.device().filter(|_| workers != DevicePreference::Cpu))
    }

    /// The model that a job means: the one that it names, else its task's. Jobs with equal answers share one [`crate::Pipeline`].
    ///
    /// # Errors
    /// No model here has the name or does the task, or the named one does something else: [`ModelError::blame`] tells them apart.
    pub fn resolve(&self, task: Task, named: Option<&str>) -> Result<Resolved, ModelError> {
        let name = match named {
            Some(name) => name,
            None => self
                .default_for(task)
                .map(Manifest::name)
                .ok_or_else(|| ModelError::NoneForTask { task, folder: self.folder.clone() })?,
        };
        if task == Task::OnnxRun {
            // Any model's graph can be run on tensors, whatever its own task.
            let (manifest, role) = self.graph(name)?;
            let several = manifest.graphs().nth(1).is_some();
            let own = manifest.name().to_owned();
            let model = if several { format!("{own}/{role}") } else { own };
            return Ok(Resolved { model, work: Work::Graph });
        }
        let model = name.to_owned();
        match self.require(name)?.0.task() {
            ModelTask::Job(does) if does == task => Ok(Resolved { model, work: Work::Task }),
            does @ ModelTask::Job(_) => Err(ModelError::WrongTask { model, does, wanted: task }),
            part => Err(ModelError::NotForJobs { model, task: part }),
        }
    }

    /// The graph that is named as `MODEL`, or as `MODEL/ROLE` where the model has several: the model, and the graph's role.
    pub(crate) fn graph<'a>(
        &'a self,
        name: &'a str,
    ) -> Result<(&'a Manifest, &'a str), ModelError> {
        let (model, role) = match name.split_once('/') {
            Some((model, role)) => (model, Some(role)),
            None => (name, None),
        };
        let (manifest, _) = self.require(model)?;
        let graphs: Vec<&str> = manifest.graphs().map(|file| file.role.as_str()).collect();
        match (role, graphs.as_slice()) {
            (Some(role), roles) if roles.contains(&role) => Ok((manifest, role)),
            (None, [only]) => Ok((manifest, only)),
            _ => {
                let known = graphs.iter().map(|role| format!("{model}/{role}"));
                let known = known.collect::<Vec<_>>().join(", ");
                Err(ModelError::WhichGraph { graph: text::cut(name.to_owned()), known })
            }
        }
    }
}

/// A model as jobs ask for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resolved {
    model: String,
    work: Work,
}

/// What a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    /// Its own task.
    Task,
    /// One of its graphs, on tensors.
    Graph,
}

impl Resolved {
    /// The model's name, with the graph's where `onnx.run` needs it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn work(&self) -> Work {
        self.work
    }
}

fn read_model(folder: &Path, families: Families) -> Result<Model, ManifestError> {
    let path = folder.join(MANIFEST_NAME);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| ManifestError::Read { path: path.clone(), source })?;
    let manifest = Manifest::from_toml(&text, &path)?;
    let family = families.check(&manifest)?;
    if folder.file_name() == Some(manifest.name().as_ref()) {
        return Ok(Model { manifest, family });
    }
    Err(manifest.wrong(format!("name: {:?} is not the folder's name", manifest.name())))
}
