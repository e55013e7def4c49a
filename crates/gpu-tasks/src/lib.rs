//! The tasks that jobs can ask for, what each job may say about how its task is done, and what can be doubtful about a result.
//!
//! The submitter checks a job against this before queueing it, the worker checks it again before running it: both
//! use the same list. No model, file or queue is looked at here. `TASKS.md` describes the tasks for users; a test
//! compares it with the list.

mod blame;
mod codes;
mod command;
mod params;
mod spec;
mod task;
mod warning;

pub use blame::Blame;
pub use codes::{CodeMeaning, meaning_of};
pub use command::CommandError;
pub use params::{ParamError, Params};
pub use spec::{AS_PASSAGE, Need, ParamKind, ParamSpec};
pub use task::{Task, UnknownTask};
pub use warning::WarningCode;

use serde_json::{Map, Value};

/// Checks the task and the params of a job.
///
/// ```
/// use serde_json::json;
///
/// let params = json!({"sped": 2});
/// let error = gpu_tasks::check("voice.synthesize", params.as_object().unwrap()).unwrap_err();
/// assert_eq!(error.code(), "input.param_unknown");
/// assert!(error.to_string().contains("did you mean `speed`?"));
/// ```
///
/// # Errors
/// There is no such task, or a param is unknown, invalid or missing.
pub fn check(task: &str, params: &Map<String, Value>) -> Result<Params, TaskError> {
    Ok(Params::read(task.parse()?, params)?)
}

/// Why a job cannot be done by any worker.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TaskError {
    /// There is no such task.
    #[error(transparent)]
    Task(#[from] UnknownTask),
    /// The task cannot be asked to do that.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// The configuration has no such command, or the command cannot be asked to do that.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl TaskError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Task(error) => error.code(),
            Self::Param(error) => error.code(),
            Self::Command(error) => error.code(),
        }
    }

    /// Always the input: a job says both itself.
    #[must_use]
    pub fn blame(&self) -> Blame {
        Blame::Input
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Task(error) => error.hint().to_owned(),
            Self::Param(error) => error.hint(),
            Self::Command(error) => error.hint(),
        }
    }
}

/// The known name that `given` is probably a misspelling of.
fn nearest(given: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    /// Two typing errors.
    const DISTANCE_MAX: usize = 2;
    let distances = known.into_iter().map(|name| (strsim::damerau_levenshtein(given, name), name));
    distances.min().filter(|(distance, _)| *distance <= DISTANCE_MAX).map(|(_, name)| name)
}

/// Longest part of a user's value that an error repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// A user's value for an error: cut, and without control characters.
fn shown(value: &str) -> String {
    let cut = value.chars().take(SHOWN_CHARS_MAX);
    cut.flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
