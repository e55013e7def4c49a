//! Why a job that runs a command of the configuration was refused.

/// A command, or a param of one, that the configuration does not have. Its texts are fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The configuration has no command of the name.
    #[error("there is no command `{name}`")]
    Unknown {
        /// What was given.
        name: String,
        /// What to do about it.
        hint: String,
    },
    /// The command has no such param.
    #[error("{task} has no param `{name}`")]
    ParamUnknown {
        /// The job's task.
        task: String,
        /// What was given.
        name: String,
        /// What to do about it.
        hint: String,
    },
    /// The value is of another type, or out of range.
    #[error("`{name}` is {found}")]
    ParamInvalid {
        /// The param.
        name: String,
        /// What was given.
        found: String,
        /// What its values are.
        kind: String,
    },
    /// A job must have it.
    #[error("{task} needs the param `{name}`")]
    ParamMissing {
        /// The job's task.
        task: String,
        /// The param.
        name: String,
        /// What its values are.
        kind: String,
    },
}

impl CommandError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "task.unknown",
            Self::ParamUnknown { .. } => "input.param_unknown",
            Self::ParamInvalid { .. } => "input.param",
            Self::ParamMissing { .. } => "input.param_missing",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { hint, .. } | Self::ParamUnknown { hint, .. } => hint.clone(),
            Self::ParamInvalid { kind, .. } => format!("give {kind}"),
            Self::ParamMissing { name, kind, .. } => format!("add `--param {name}=…`: {kind}"),
        }
    }
}
