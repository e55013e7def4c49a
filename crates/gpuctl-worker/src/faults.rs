//! What keeps a worker from its jobs now: faults of its box and of the services that it needs. While one lasts it receives less, or nothing.
//!
//! A fault is never a job's result. It is over at the next success of the same kind; one that lasts too long ends the worker.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gpuctl_control::input::InputRejected;
use gpuctl_control::job::{InputLocation, InputUri, JobFailure};
use gpuctl_control::ports::PortError;
use gpuctl_control::text::with_causes;
use gpuctl_core::observation::WorkerFault;
use gpuctl_core::units::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::BoxFault;
use crate::pace::{BOX_FAULT_MAX, SERVICE_FAULT_MAX};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Models, device or memory of this box.
    Box,
    /// Where inputs are fetched from.
    Inputs(Place),
    /// Where results' files are stored.
    Files,
    /// Where results are committed.
    Results,
    /// Where reports are written.
    Ledger,
    Queue,
}

/// Where an input is: one place may work while another does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    File,
    S3,
    Text,
}

impl Place {
    pub(crate) fn of(uri: &InputUri) -> Self {
        match uri.location() {
            InputLocation::File(_) => Self::File,
            InputLocation::S3 { .. } => Self::S3,
            InputLocation::Text(_) => Self::Text,
        }
    }
}

impl Part {
    fn code(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Inputs(_) => "inputs.unreachable",
            Self::Files => "files.unreachable",
            Self::Results => "results.unreachable",
            Self::Ledger => "ledger.unreachable",
            Self::Queue => "queue.unreachable",
        }
    }

    /// How a fault of it is told: the end of "gpu-1 takes no jobs: …".
    fn told(self) -> &'static str {
        match self {
            Self::Box => "this box cannot run jobs",
            Self::Inputs(_) => "inputs cannot be fetched",
            Self::Files => "files of results cannot be stored",
            Self::Results => "results cannot be committed",
            Self::Ledger => "the ledger cannot be reached",
            Self::Queue => "the queue cannot be reached",
        }
    }

    /// A fault of this part as a port reports it.
    pub(crate) fn fault(self, error: &PortError) -> BoxFault {
        let message = format!("{}: {}", self.told(), with_causes(error));
        BoxFault { code: self.code().to_owned(), message, hint: error.hint.clone() }
    }

    fn lasts_max(self) -> Duration {
        match self {
            Self::Box => BOX_FAULT_MAX,
            _ => SERVICE_FAULT_MAX,
        }
    }

    /// Whether only another job shows that it works again.
    fn is_seen_by_jobs(self) -> bool {
        matches!(self, Self::Box | Self::Inputs(_) | Self::Queue)
    }
}

/// How much may be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    Open,
    /// One message now and then, to see whether jobs work again.
    Trickle,
    Closed,
}

/// The faults of now.
#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct State {
    active: BTreeMap<Part, Active>,
    successes: BTreeMap<Part, u64>,
}

struct Active {
    fault: BoxFault,
    since: Timestamp,
    began: Instant,
}

impl Faults {
    /// Notes a failure.
    pub(crate) fn raise(&self, part: Part, fault: &BoxFault, now: Timestamp) {
        let is_new = self.with(|state| {
            let is_new = !state.active.contains_key(&part);
            let active = Active { fault: fault.clone(), since: now, began: Instant::now() };
            state.active.entry(part).or_insert(active).fault = fault.clone();
            is_new
        });
        if is_new {
            let message = gpuctl_control::log::shown(&fault.message).to_string();
            tracing::error!(code = fault.code, hint = fault.hint, "takes no jobs: {message}");
            self.changed.notify_waiters();
        }
    }

    /// Notes a success, which ends the fault of this part.
    pub(crate) fn clear(&self, part: Part) {
        let was = self.with(|state| {
            *state.successes.entry(part).or_default() += 1;
            state.active.remove(&part)
        });
        if let Some(was) = was {
            tracing::info!(code = was.fault.code, "works again");
            self.changed.notify_waiters();
        }
    }

    /// How often this part has succeeded.
    pub(crate) fn successes(&self, part: Part) -> u64 {
        self.with(|state| state.successes.get(&part).copied().unwrap_or_default())
    }

    pub(crate) fn intake(&self) -> Intake {
        self.with(|state| match state.active.keys() {
            mut parts if parts.len() > 0 => {
                if parts.all(|part| part.is_seen_by_jobs()) {
                    Intake::Trickle
                } else {
                    Intake::Closed
                }
            }
            _ => Intake::Open,
        })
    }

    /// The fault that has lasted longest, for reports.
    pub(crate) fn oldest(&self) -> Option<WorkerFault> {
        self.with(|state| {
            let oldest = state.active.values().min_by_key(|active| active.began)?;
            let BoxFault { code, message, .. } = oldest.fault.clone();
            Some(WorkerFault { code, message, since: oldest.since })
        })
    }

    /// The fault that has lasted for too long, if one has.
    pub(crate) fn over_limit(&self) -> Option<BoxFault> {
        self.with(|state| {
            let mut active = state.active.iter();
            let over = active.find(|(part, active)| active.began.elapsed() > part.lasts_max());
            over.map(|(_, active)| active.fault.clone())
        })
    }

    fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The failure of a job whose input cannot be fetched, if that is the input's own fault: it is not there, or is refused. `None` if the
/// service cannot be reached, does not let us in, or answers in a way that is not known.
pub(crate) fn input_failure(error: &PortError) -> Option<JobFailure> {
    let refusal = error.source()?.downcast_ref::<InputRejected>()?;
    Some(failure(refusal.code(), refusal, refusal.hint()))
}

/// The failure of a job whose result is too large for the ledger.
pub(crate) fn too_large(error: &PortError) -> JobFailure {
    failure(
        "result.full",
        error,
        error.hint.as_deref().unwrap_or("have the job give a shorter result"),
    )
}

fn failure(code: &str, error: &dyn Error, hint: &str) -> JobFailure {
    JobFailure { code: code.to_owned(), message: with_causes(error), hint: Some(hint.to_owned()) }
}
