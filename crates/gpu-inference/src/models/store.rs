//! The models on this machine, by their manifests. Their files are read when a model is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gpu_tasks::Task;
use tracing::warn;

use super::error::ModelError;
use super::family::{Families, FamilySpec};
use super::manifest::{Manifest, ManifestError, ModelTask};
use super::runtime::DevicePreference;

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
                model: name.to_owned(),
                folder: self.folder.clone(),
                known: self.models.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    pub(crate) fn folder_of(&self, manifest: &Manifest) -> PathBuf {
        self.folder.join(manifest.name())
    }

    /// The device of a model: the user's choice for it, else its manifest's, else `asked`. `DEVICE=cpu` overrides
    /// manifests, so that nothing uses the GPU that was not put there by name.
    pub(crate) fn device_preference(
        &self,
        manifest: &Manifest,
        asked: DevicePreference,
    ) -> DevicePreference {
        match (self.devices.get(manifest.name()), manifest.device()) {
            (Some(chosen), _) => *chosen,
            (None, Some(own)) if asked != DevicePreference::Cpu => own,
            (None, _) => asked,
        }
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
