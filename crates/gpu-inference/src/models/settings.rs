//! `[settings]` of a manifest: what each family lets a model change, read and checked.

use serde::de::DeserializeOwned;

use super::manifest::{Manifest, ManifestError};

/// The settings of a family.
pub(crate) trait Settings: DeserializeOwned {
    /// Says which value is not valid.
    fn check(&self) -> Result<(), &'static str>;

    /// Reads and checks a manifest's table.
    fn read(table: &toml::Table) -> Result<Self, SettingsError> {
        let settings: Self = table.clone().try_into().map_err(SettingsError::Malformed)?;
        settings.check().map_err(SettingsError::Invalid)?;
        Ok(settings)
    }
}

/// Why a family rejects a manifest's `[settings]`.
#[derive(Debug)]
pub(crate) enum SettingsError {
    /// The family has no settings.
    NotEmpty,
    /// A setting is unknown, missing, or of the wrong type.
    Malformed(toml::de::Error),
    /// A value is not valid.
    Invalid(&'static str),
}

impl SettingsError {
    /// The error of the manifest that has these settings.
    pub(crate) fn of(self, manifest: &Manifest) -> ManifestError {
        match self {
            Self::NotEmpty => {
                let family = manifest.family_name();
                manifest.wrong(format!("settings: the family {family} has none"))
            }
            Self::Malformed(source) => {
                ManifestError::Malformed { path: manifest.path().to_owned(), source }
            }
            Self::Invalid(problem) => manifest.wrong(format!("settings: {problem}")),
        }
    }
}

/// Checks the settings of a family that has some.
pub(crate) fn check_settings<S: Settings>(table: &toml::Table) -> Result<(), SettingsError> {
    S::read(table).map(drop)
}

/// Checks the settings of a family that has none.
pub(crate) fn no_settings(table: &toml::Table) -> Result<(), SettingsError> {
    if table.is_empty() { Ok(()) } else { Err(SettingsError::NotEmpty) }
}
