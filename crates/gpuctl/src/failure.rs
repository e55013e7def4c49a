//! A failed command: the error, its causes, a hint, and the exit code.

use std::error::Error;

use gpu_tasks::TaskError;
use gpuctl_control::config::ConfigError;
use gpuctl_control::hold::HoldLengthError;
use gpuctl_control::input::InputRejected;
use gpuctl_control::pools::UnknownPool;
use gpuctl_control::ports::PortError;
use gpuctl_control::submit::SubmitError;
use gpuctl_control::text::causes;

/// The exit codes; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The operation failed.
    Failed = 1,
    /// The command line or the configuration is invalid.
    Usage = 2,
    /// `plan --exit-code`: there is something to do.
    ChangesPending = 3,
    /// `--wait` timed out; the operation continues.
    TimedOut = 5,
    /// Ctrl-C while waiting; the operation continues.
    Interrupted = 130,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
    pub(crate) exit: Exit,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, exit: Exit::Failed }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds an error and its own causes.
    pub(crate) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(causes(error));
        self
    }

    fn of(error: &dyn Error) -> Self {
        Self { causes: causes(error), ..Self::new(error.to_string()) }
    }
}

impl From<&PortError> for Failure {
    fn from(error: &PortError) -> Self {
        Self { hint: error.hint.clone(), ..Self::of(error) }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self::from(&error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Self { exit: Exit::Usage, ..Self::of(&error) }.hint(error.hint());
        match &error {
            ConfigError::Invalid { problems, .. } => {
                Self { causes: problems.0.iter().map(ToString::to_string).collect(), ..failure }
            }
            ConfigError::Unreadable { .. } | ConfigError::OfOtherUser { .. } => failure,
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Self { exit: Exit::Usage, ..Self::of(&error) }.hint(error.hint())
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(error) => error.into(),
            SubmitError::Port(error) => error.into(),
        }
    }
}

impl From<InputRejected> for Failure {
    fn from(refusal: InputRejected) -> Self {
        Self { exit: Exit::Usage, ..Self::of(&refusal) }.hint(refusal.hint())
    }
}

impl From<UnknownPool> for Failure {
    fn from(error: UnknownPool) -> Self {
        Self::usage(error.to_string()).hint(error.hint())
    }
}

impl From<HoldLengthError> for Failure {
    fn from(error: HoldLengthError) -> Self {
        Self::usage(error.to_string()).hint(error.hint())
    }
}
