//! A failed command: its code, the error, its causes and a hint.

mod code;
mod usage;

use std::error::Error;

use gpu_tasks::{CommandError, ParamError, TaskError};
use gpuctl_control::config::ConfigError;
use gpuctl_control::hold::HoldLengthError;
use gpuctl_control::input::InputRejected;
use gpuctl_control::models::ModelError;
use gpuctl_control::pools::{NoQueue, UnknownPool};
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_control::submit::SubmitError;
use gpuctl_control::text::causes;

pub(crate) use code::{Code, Exit};

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// From the nearest cause to the first.
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.code.exit()
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

    fn of(code: Code, error: &dyn Error) -> Self {
        Self { causes: causes(error), ..Self::new(code, error.to_string()) }
    }
}

fn of_class(class: PortErrorClass) -> Code {
    match class {
        PortErrorClass::Refused(_) => Code::BackendRefused,
        PortErrorClass::Conflict => Code::BackendConflict,
        PortErrorClass::LeaseLost => Code::BackendLeaseLost,
        PortErrorClass::Full => Code::BackendFull,
        PortErrorClass::Unavailable => Code::BackendUnavailable,
        PortErrorClass::Throttled => Code::BackendThrottled,
        PortErrorClass::Denied => Code::BackendDenied,
        PortErrorClass::NotFound => Code::BackendNotFound,
        PortErrorClass::Corrupt => Code::BackendCorrupt,
        PortErrorClass::TooNew => Code::BackendTooNew,
        // No command stores what a worker does.
        PortErrorClass::TooLarge | PortErrorClass::Other => Code::BackendOther,
    }
}

impl From<&PortError> for Failure {
    fn from(error: &PortError) -> Self {
        let code = of_class(error.class);
        Self { hint: error.hint.clone(), ..Self::of(code, error) }
    }
}

#[cfg(feature = "deploy")]
impl From<gpuctl_deploy::Trouble> for Failure {
    fn from(trouble: gpuctl_deploy::Trouble) -> Self {
        use gpuctl_deploy::Kind;
        let code = match trouble.kind {
            Kind::Invalid => Code::StackInvalid,
            Kind::Blocked => Code::StackBlocked,
            Kind::Gated => Code::StackGated,
            Kind::Failed => Code::StackFailed,
            Kind::TimedOut => Code::WaitTimedOut,
            Kind::Interrupted => Code::WaitInterrupted,
            Kind::Busy => Code::StackBusy,
            Kind::Declined => Code::UsageNotConfirmed,
            Kind::Port(class) => of_class(class),
        };
        Self { code, message: trouble.what, causes: trouble.causes, hint: trouble.hint }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self::from(&error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let code = match &error {
            ConfigError::Invalid { .. } | ConfigError::StoredForThisMachine { .. } => {
                Code::ConfigInvalid
            }
            ConfigError::Unreadable { .. } | ConfigError::NotFetched { .. } => {
                Code::ConfigUnreadable
            }
            ConfigError::OfOtherUser { .. } => Code::ConfigOfOtherUser,
        };
        let failure = Self::of(code, &error).hint(error.hint());
        match &error {
            ConfigError::Invalid { problems, .. } => {
                Self { causes: problems.0.iter().map(ToString::to_string).collect(), ..failure }
            }
            _ => failure,
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let code = match &error {
            TaskError::Task(_) => Code::TaskUnknown,
            TaskError::Param(ParamError::Unknown { .. }) => Code::ParamUnknown,
            TaskError::Param(ParamError::Invalid { .. }) => Code::ParamInvalid,
            TaskError::Param(ParamError::Missing { .. }) => Code::ParamMissing,
            TaskError::Command(CommandError::Unknown { .. }) => Code::TaskUnknown,
            TaskError::Command(CommandError::ParamUnknown { .. }) => Code::ParamUnknown,
            TaskError::Command(CommandError::ParamInvalid { .. }) => Code::ParamInvalid,
            TaskError::Command(CommandError::ParamMissing { .. }) => Code::ParamMissing,
        };
        Self::of(code, &error).hint(error.hint())
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
    fn from(error: InputRejected) -> Self {
        let code = match &error {
            InputRejected::Unreadable { .. } | InputRejected::Missing { .. } => Code::InputMissing,
            InputRejected::Archived { .. } => Code::InputArchived,
            InputRejected::KeyTooLong { .. } => Code::InputKeyTooLong,
            InputRejected::Folder { .. } => Code::InputFolder,
            InputRejected::Outside { .. }
            | InputRejected::Bucket { .. }
            | InputRejected::Policy { .. } => Code::InputOutside,
            InputRejected::TooLarge { .. } => Code::InputTooLarge,
            InputRejected::Elsewhere { .. } => Code::InputElsewhere,
        };
        Self::of(code, &error).hint(error.hint())
    }
}

impl From<UnknownPool> for Failure {
    fn from(error: UnknownPool) -> Self {
        Self::new(Code::PoolUnknown, error.to_string()).hint(error.hint())
    }
}

impl From<NoQueue> for Failure {
    fn from(error: NoQueue) -> Self {
        let code = match &error {
            NoQueue::Unknown(_) => Code::PoolUnknown,
            NoQueue::OfPool(_) | NoQueue::Anywhere => Code::PoolNoQueue,
            NoQueue::Ambiguous => Code::PoolAmbiguous,
        };
        let hint = match error {
            NoQueue::Ambiguous => "name one with --pool",
            _ => error.hint(),
        };
        Self::new(code, error.to_string()).hint(hint)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let code = match &error {
            ModelError::Unknown { .. } => Code::ModelUnknown,
            ModelError::OtherTask { .. } => Code::ModelTask,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<HoldLengthError> for Failure {
    fn from(error: HoldLengthError) -> Self {
        Self::new(Code::HoldInvalid, error.to_string()).hint(error.hint())
    }
}
