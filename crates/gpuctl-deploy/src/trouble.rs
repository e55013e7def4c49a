//! Why a command on a stack did not succeed.

use std::fmt;

use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_control::text::causes;

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A parameter, file or name cannot be used.
    Invalid,
    /// It would fail in this account or region: nothing was changed.
    Blocked,
    /// A change replaces or deletes something, and was not allowed to.
    Gated,
    /// CloudFormation did not do it, or undid it.
    Failed,
    /// It takes longer than gpuctl waits; it continues.
    TimedOut,
    /// Ctrl-C while waiting; it continues.
    Interrupted,
    /// Jobs are waiting or running.
    Busy,
    /// The user said no.
    Declined,
    /// A call failed.
    Port(PortErrorClass),
}

/// A failure: what, why, and what to do.
#[derive(Debug)]
pub struct Trouble {
    pub kind: Kind,
    pub what: String,
    /// From the nearest cause to the first.
    pub causes: Vec<String>,
    pub hint: Option<String>,
}

impl Trouble {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), causes: Vec::new(), hint: None }
    }

    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<PortError> for Trouble {
    fn from(error: PortError) -> Self {
        Self {
            kind: Kind::Port(error.class),
            what: error.what.clone(),
            causes: causes(&error),
            hint: error.hint,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Trouble {}
