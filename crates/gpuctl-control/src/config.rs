//! Finds and reads `gpuctl.toml`, and applies environment variables and relative paths to it.
//!
//! Order: flag, then `GPUCTL_*`, then the file, then the default. CLI, daemon and worker all read it here.

mod search;

use std::env;
use std::path::{Path, PathBuf};

use gpuctl_core::policy::{DEFAULT_TEXT, FileDates, Files, Policy, Problems};

use crate::ports::PortError;
use crate::text::with_causes;
use crate::{calendar, prices};
pub use search::OtherUser;

/// The file's name.
pub const FILE_NAME: &str = "gpuctl.toml";

/// A policy, where it came from, and the folders that follow from it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file; `None` for the built-in default, and where it is stored elsewhere.
    pub file: Option<PathBuf>,
    /// Where it is stored if not in a file, e.g. `s3://bucket/gpuctl.toml`.
    pub stored_at: Option<String>,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// The folder of the queue file, locks, logs and results (`state_folder`).
    pub state: PathBuf,
    /// The policy in the file.
    pub policy: Policy,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        /// What the system reported.
        #[source]
        source: std::io::Error,
    },
    /// What is stored elsewhere cannot be read.
    #[error("cannot read {uri}")]
    NotFetched {
        uri: String,
        #[source]
        source: Box<PortError>,
    },
    /// What is stored elsewhere is not for AWS: workers on this machine read a file.
    #[error("{uri} is not for AWS: `[cloud] kind` is not \"aws\"")]
    StoredForThisMachine { uri: String },
    /// The file has problems.
    #[error("{} cannot be used", path.display())]
    Invalid {
        path: PathBuf,
        /// All of them, with their lines.
        problems: Problems,
    },
    /// A file that was not named, but found in the working folder or above it, could have been written by another user.
    #[error("{} is not used", path.display())]
    OfOtherUser {
        path: PathBuf,
        #[source]
        source: OtherUser,
    },
}

impl ConfigError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFetched { .. } => {
                "check bucket, key and credentials, and that AWS_REGION is the bucket's"
            }
            Self::StoredForThisMachine { .. } => {
                "copy it to this machine, and name the file with --config"
            }
            Self::Unreadable { .. } => "check the path given with --config or GPUCTL_CONFIG",
            Self::Invalid { .. } => "fix these lines; `gpuctl init` writes an example",
            Self::OfOtherUser { .. } => {
                "if you trust it, name it with --config or GPUCTL_CONFIG; else write one of your own in a folder that is only yours"
            }
        }
    }
}

impl Config {
    /// What `flag` or `$GPUCTL_CONFIG` names.
    #[must_use]
    pub fn named(flag: Option<&Path>) -> Option<PathBuf> {
        flag.map(Path::to_owned).or_else(|| variable("GPUCTL_CONFIG"))
    }

    /// Reads the file that `flag` or `$GPUCTL_CONFIG` names, else the one of this folder or the nearest above it, else the
    /// user's, else the built-in default.
    ///
    /// # Errors
    /// When a file is there but cannot be read or used, or was found and could have been written by another user.
    pub fn load(flag: Option<&Path>) -> Result<Self, ConfigError> {
        match Self::named(flag).map_or_else(find, |file| Ok(Some(file)))? {
            Some(file) => Self::of_file(&file),
            None => Ok(Self::built_in()),
        }
    }

    fn built_in() -> Self {
        let folder = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let state = variable("GPUCTL_STATE").unwrap_or_else(default_state);
        let dates = |path: &str| dates_of(&folder, path);
        let files = Files { dates: &dates, prices: &|_| prices::read(&state) };
        let policy = Policy::parse_with(DEFAULT_TEXT, files)
            .expect("the built-in policy is checked by a test");
        Self { file: None, stored_at: None, folder, state, policy }
    }

    /// The configuration with this text, which is stored at `uri`. Relative paths start from the working folder; the state is the user's
    /// own unless it is named.
    ///
    /// # Errors
    /// When the text has problems, or is not for AWS.
    pub fn of_stored(uri: &str, text: &str) -> Result<Self, ConfigError> {
        let folder = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let state_of = |named: Option<&str>| {
            variable("GPUCTL_STATE")
                .unwrap_or_else(|| named.map_or_else(default_state, |named| folder.join(named)))
        };
        let (policy, state) = parse(Path::new(uri), text, &folder, &state_of)?;
        if policy.cloud.aws.is_none() {
            return Err(ConfigError::StoredForThisMachine { uri: uri.to_owned() });
        }
        Ok(Self { file: None, stored_at: Some(uri.to_owned()), folder, state, policy })
    }

    fn of_file(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: file.to_owned(), source };
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let file = file.canonicalize().map_err(unreadable)?;
        let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
        let state_of = |named: Option<&str>| {
            variable("GPUCTL_STATE").unwrap_or_else(|| folder.join(named.unwrap_or(".gpuctl")))
        };
        let (policy, state) = parse(&file, &text, &folder, &state_of)?;
        Ok(Self { file: Some(file), stored_at: None, folder, state, policy })
    }

    /// The file, or where it is stored, in words.
    #[must_use]
    pub fn source(&self) -> String {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let built_in = || "the built-in default".to_owned();
        file.or_else(|| self.stored_at.clone()).unwrap_or_else(built_in)
    }

    /// A `gpuctl.toml` further up, which is not used since this one is nearer: its jobs and boxes are others. `None` if this one was not found
    /// in the working folder or above it.
    #[must_use]
    pub fn not_used(&self) -> Option<PathBuf> {
        let (here, file) = (env::current_dir().ok()?, self.file.as_ref()?);
        let folder = file.parent().filter(|folder| here.starts_with(folder))?;
        let further = folder.ancestors().skip(1).map(|folder| folder.join(FILE_NAME));
        further.into_iter().find(|file| file.is_file())
    }

    /// The device that models without one of their own use: `$DEVICE`, else the file's.
    #[must_use]
    pub fn device(&self) -> String {
        env::var("DEVICE")
            .ok()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| self.policy.worker.device.clone())
    }

    /// The folder of model folders, if one is named.
    #[must_use]
    pub fn models(&self) -> Option<PathBuf> {
        variable("GPUCTL_MODELS")
            .or_else(|| self.policy.worker.models.as_ref().map(|path| self.folder.join(path)))
    }

    /// ONNX Runtime's library, if one is named.
    #[must_use]
    pub fn onnxruntime(&self) -> Option<PathBuf> {
        variable("GPUCTL_ONNXRUNTIME")
            .or_else(|| self.policy.worker.onnxruntime.as_ref().map(|path| self.folder.join(path)))
    }

    /// The folders that inputs may be in; empty means anywhere.
    #[must_use]
    pub fn input_roots(&self) -> Vec<PathBuf> {
        self.policy.worker.input_roots.iter().map(|root| self.folder.join(root)).collect()
    }
}

/// The policy, and its state folder.
fn parse(
    path: &Path,
    text: &str,
    folder: &Path,
    state_of: &dyn Fn(Option<&str>) -> PathBuf,
) -> Result<(Policy, PathBuf), ConfigError> {
    let dates = |path: &str| dates_of(folder, path);
    let prices = |named: Option<&str>| prices::read(&state_of(named));
    let policy = Policy::parse_with(text, Files { dates: &dates, prices: &prices })
        .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })?;
    let state = state_of(policy.cloud.state.as_deref());
    Ok((policy, state))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The dates of a calendar file, whose path starts from the configuration's folder.
fn dates_of(folder: &Path, path: &str) -> Result<FileDates, String> {
    calendar::dates_of(&folder.join(path)).map_err(|error| with_causes(&error))
}

/// The file of this folder or the nearest above it, else the user's own.
fn find() -> Result<Option<PathBuf>, ConfigError> {
    let Ok(here) = env::current_dir() else { return Ok(None) };
    if let Some(file) = search::nearest(&here, search::by_other_user)? {
        return Ok(Some(file));
    }
    let home = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let file = home.map(|home| home.join("gpuctl").join("config.toml"));
    Ok(file.filter(|file| file.is_file()))
}

fn default_state() -> PathBuf {
    variable("XDG_STATE_HOME")
        .or_else(|| Some(variable("HOME")?.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from(".gpuctl"))
        .join("gpuctl")
}
