//! A model family: one record that says what its manifests hold, and how its models are opened.
//!
//! Each record stands beside the family's pipeline; the list of all is in `families`. Nothing is read or opened here.

use super::error::ModelError;
use super::manifest::{Manifest, ManifestError, ModelTask};
use super::opener::Opener;
use super::settings::SettingsError;
use crate::run::Run;

/// Everything that the rest of the crate knows about a family.
#[derive(Debug)]
pub(crate) struct FamilySpec {
    /// The name in manifests.
    pub(crate) name: &'static str,
    pub(crate) task: ModelTask,
    /// Roles of the files, in alphabetical order.
    pub(crate) roles: &'static [&'static str],
    pub(crate) uses: &'static [Use],
    /// Whether a manifest's `[settings]` are the family's.
    pub(crate) check_settings: fn(&toml::Table) -> Result<(), SettingsError>,
    /// `None` for models that only serve other models.
    pub(crate) open: Option<Open>,
}

/// Opens a model of a family. The opener's manifest has passed [`Families::check`].
pub(crate) type Open = fn(&mut Opener<'_>) -> Result<Box<dyn Run>, ModelError>;

/// Another model that a family's models use.
#[derive(Debug)]
pub(crate) struct Use {
    /// The key under `uses` in manifests.
    pub(crate) role: &'static str,
    pub(crate) family: &'static str,
    pub(crate) need: Need,
}

/// Whether a manifest must name a used model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Optional,
    Required,
}

/// The families that a program has code for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Families(pub(crate) &'static [&'static FamilySpec]);

impl Families {
    /// Checks what only the family knows: task, settings, roles of files and of used models.
    ///
    /// # Errors
    /// There is no such family, or the manifest is not one of it.
    pub(crate) fn check(self, manifest: &Manifest) -> Result<&'static FamilySpec, ManifestError> {
        let family = self.find(manifest.family_name()).ok_or_else(|| {
            let mut known: Vec<&str> = self.0.iter().map(|family| family.name).collect();
            known.sort_unstable();
            let given = manifest.family_name();
            manifest.wrong(format!("family: no code for {given:?}, known are {}", known.join(", ")))
        })?;
        (family.check_settings)(manifest.settings()).map_err(|error| error.of(manifest))?;
        if manifest.task() != family.task {
            let (given, name, task) = (manifest.task(), family.name, family.task);
            let problem = format!("task: {given}, but the family {name} does {task}");
            return Err(manifest.wrong(problem));
        }
        family.check_roles(manifest).map_err(|problem| manifest.wrong(problem))?;
        Ok(family)
    }

    fn find(self, name: &str) -> Option<&'static FamilySpec> {
        self.0.iter().find(|family| family.name == name).copied()
    }
}

impl FamilySpec {
    fn check_roles(&self, manifest: &Manifest) -> Result<(), String> {
        let found = manifest.roles_without_weights()?;
        if found != self.roles {
            let (needed, found) = (self.roles.join(", "), found.join(", "));
            return Err(format!("file: the family {} needs {needed}, found {found}", self.name));
        }
        let given = manifest.uses();
        let known = |role: &String| self.uses.iter().any(|used| used.role == role);
        let required = self.uses.iter().filter(|used| used.need == Need::Required);
        let needed: Vec<&str> = required.map(|used| used.role).collect();
        if needed.iter().all(|role| given.contains_key(*role)) && given.keys().all(known) {
            return Ok(());
        }
        let found: Vec<&str> = given.keys().map(String::as_str).collect();
        let (needed, found) = (needed.join(", "), found.join(", "));
        Err(format!("uses: the family {} needs {needed:?}, found {found:?}", self.name))
    }
}
