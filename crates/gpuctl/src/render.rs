//! The only place that prints: output on standard output, everything else on standard error.
//!
//! Under `--json` standard output holds one JSON document and nothing else, and an error is one JSON document on standard error.

#[cfg(feature = "aws")]
mod function;
mod logs;
mod models;
mod progress;
mod schedule;
mod simulate;
mod text;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;

use gpuctl_control::Reconciled;
use gpuctl_control::wire::Versioned;
use gpuctl_control::wire::explain::ExplainDocument;
#[cfg(feature = "aws")]
use gpuctl_control::wire::function::InvokedDocument;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_control::wire::models::{
    BenchDocument, ModelsDocument, PulledDocument, VerifiedDocument,
};
use gpuctl_control::wire::plan::{PlanDocument, verb};
use gpuctl_control::wire::status::StatusDocument;
use serde::Serialize;

use crate::documents::logs::{LogLineDocument, LogsDocument};
use crate::documents::reply::{
    CostReportDocument, DoctorDocument, ErrorBody, ErrorDocument, EstimateDocument, InitDocument,
    JobsDocument, MovedDocument, PricesDocument, QueuesDocument, SubmittedDocument, versioned,
};
use crate::documents::schedule::{ScheduleAtDocument, ScheduleLintDocument, ScheduleShowDocument};
use crate::documents::simulate::{
    ExportedDocument, FaultSimulationDocument, SimulationDocument, TuningDocument,
};
use crate::failure::{Exit, Failure};
pub(crate) use logs::LogOwner;
pub(crate) use progress::{Progress, Weeks};
pub(crate) use simulate::{Page, page};

/// The output of a command.
#[derive(Debug)]
pub(crate) enum Output {
    Status(Versioned<StatusDocument>),
    /// The deployed function's response.
    #[cfg(feature = "aws")]
    Invoked(Box<InvokedDocument>),
    Logs(LogsDocument),
    Plan(Versioned<PlanDocument>),
    Explain(Box<ExplainDocument>),
    Submitted(SubmittedDocument),
    /// Finished jobs with their results.
    Results(JobsDocument),
    /// Jobs, one line each.
    Jobs(JobsDocument),
    Job(Box<JobDocument>),
    Queues(QueuesDocument),
    Moved(MovedDocument),
    ScheduleAt(ScheduleAtDocument),
    ScheduleShow(ScheduleShowDocument),
    ScheduleLint(ScheduleLintDocument),
    CostReport(Box<CostReportDocument>),
    Estimate(EstimateDocument),
    Simulation(Box<SimulationDocument>),
    FaultSimulation(Box<FaultSimulationDocument>),
    Tuning(Box<TuningDocument>),
    Exported {
        path: String,
        jobs: usize,
    },
    Prices(PricesDocument),
    Init(InitDocument),
    Doctor(DoctorDocument),
    Models(ModelsDocument),
    ModelsVerified(VerifiedDocument),
    ModelsPulled(PulledDocument),
    ModelsBench(BenchDocument),
    Nothing,
    /// Output of a command that did not succeed.
    WithExit(Box<Output>, Exit),
}

impl Output {
    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self::WithExit(Box::new(self), exit)
    }

    pub(crate) fn changes_pending(&self) -> bool {
        matches!(self, Self::Plan(plan) if plan.document.pools.iter().any(|pool| !pool.actions.is_empty()))
    }

    fn json(&self) -> Option<String> {
        match self {
            Self::Status(document) => Some(json(document)),
            #[cfg(feature = "aws")]
            Self::Invoked(invoked) => Some(json(&invoked.document)),
            Self::Logs(document) => Some(json(&versioned("gpuctl.logs", document))),
            Self::Plan(document) => Some(json(document)),
            Self::Explain(document) => Some(json(&versioned("gpuctl.explain", document))),
            Self::Submitted(document) => Some(json(&versioned("gpuctl.submitted", document))),
            Self::Results(document) | Self::Jobs(document) => {
                Some(json(&versioned("gpuctl.jobs", document)))
            }
            Self::Job(document) => Some(json(&versioned("gpuctl.job", document))),
            Self::Queues(document) => Some(json(&versioned("gpuctl.queues", document))),
            Self::Moved(document) => Some(json(&versioned("gpuctl.moved", document))),
            Self::ScheduleAt(document) => Some(json(&versioned("gpuctl.schedule-at", document))),
            Self::ScheduleShow(document) => {
                Some(json(&versioned("gpuctl.schedule-show", document)))
            }
            Self::ScheduleLint(document) => {
                Some(json(&versioned("gpuctl.schedule-lint", document)))
            }
            Self::CostReport(document) => Some(json(&versioned("gpuctl.cost-report", document))),
            Self::Simulation(document) => Some(json(&versioned("gpuctl.simulation", document))),
            Self::FaultSimulation(document) => {
                Some(json(&versioned("gpuctl.fault-simulation", document)))
            }
            Self::Tuning(document) => Some(json(&versioned("gpuctl.tuning", document))),
            Self::Exported { path, jobs } => {
                let document = ExportedDocument { path: path.clone(), jobs: *jobs };
                Some(json(&versioned("gpuctl.history-export", &document)))
            }
            Self::Estimate(document) => Some(json(&versioned("gpuctl.cost-estimate", document))),
            Self::Prices(document) => Some(json(&versioned("gpuctl.prices", document))),
            Self::Init(document) => Some(json(&versioned("gpuctl.init", document))),
            Self::Doctor(document) => Some(json(&versioned("gpuctl.doctor", document))),
            Self::Models(document) => Some(json(&versioned("gpuctl.models", document))),
            Self::ModelsVerified(document) => {
                Some(json(&versioned("gpuctl.models-verified", document)))
            }
            Self::ModelsPulled(document) => {
                Some(json(&versioned("gpuctl.models-pulled", document)))
            }
            Self::ModelsBench(document) => Some(json(&versioned("gpuctl.models-bench", document))),
            Self::Nothing => None,
            Self::WithExit(output, _) => output.json(),
        }
    }
}

/// Prints.
pub(crate) struct Printer {
    json: bool,
    last_states: Mutex<Vec<(String, String)>>,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, last_states: Mutex::default() }
    }

    /// Prints the output of a command. A reader that closed the pipe is not an error.
    pub(crate) fn output(&self, output: &Output) -> ExitCode {
        let text = if self.json { output.json() } else { text::output(output) };
        if let Some(text) = text
            && let Err(error) = writeln!(std::io::stdout().lock(), "{}", text.trim_end())
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return self.failure(&Failure::new("cannot write the output").because(&error));
        }
        match output {
            Output::WithExit(_, exit) => ExitCode::from(*exit as u8),
            _ => ExitCode::SUCCESS,
        }
    }

    pub(crate) fn failure(&self, failure: &Failure) -> ExitCode {
        self.report_failure(failure);
        ExitCode::from(failure.exit as u8)
    }

    /// Prints a failure, also one that does not end the command.
    pub(crate) fn report_failure(&self, failure: &Failure) {
        if !self.json {
            return to_stderr(&text::failure(failure));
        }
        let error = ErrorBody {
            message: failure.message.clone(),
            causes: failure.causes.clone(),
            hint: failure.hint.clone(),
            exit: failure.exit as u8,
        };
        to_stderr(&json(&versioned("gpuctl.error", ErrorDocument { error })));
    }

    #[cfg(feature = "aws")]
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints lines of a log that is followed; returns whether standard output still has a reader.
    pub(crate) fn lines(&self, lines: &[LogLineDocument], whose: LogOwner) -> bool {
        let mut out = std::io::stdout().lock();
        lines.iter().all(|line| writeln!(out, "{}", logs::line(line, whose)).is_ok())
    }

    /// A remark on standard error; nothing under `--json`.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            to_stderr(text);
        }
    }

    pub(crate) fn warning(&self, text: &str) {
        to_stderr(&format!("warning: {text}"));
    }

    /// Prints what a reconcile did, one line per action, with the time.
    pub(crate) fn reconciled(&self, reconciled: &Reconciled) {
        for line in action_lines(reconciled) {
            self.note(&format!("{}  {line}", text::clock(reconciled.observation.at)));
        }
    }

    /// Prints a box's state if it differs from the one printed last.
    pub(crate) fn state_change(&self, id: &str, state: &str) {
        let mut last = self.last_states.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = last.iter().position(|(known, _)| known == id);
        if known.is_some_and(|index| last[index].1 == state) {
            return;
        }
        if let Some(index) = known {
            last.swap_remove(index);
        }
        last.push((id.to_owned(), state.to_owned()));
        drop(last);
        self.note(&format!("{id} {state}"));
    }

    pub(crate) fn progress(&self, jobs: usize) -> Progress {
        Progress::new(jobs, self.json)
    }

    /// The progress of a fault simulation, shown on a terminal.
    pub(crate) fn weeks(&self, weeks: u64) -> Weeks {
        Weeks::new(weeks, self.json)
    }

    /// Asks for confirmation; without a terminal it fails and names `--yes`.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), Failure> {
        let declined =
            || Failure::usage("not confirmed").hint("add --yes to skip the confirmation");
        if self.json || !std::io::stdin().is_terminal() {
            return Err(declined());
        }
        let _ = write!(std::io::stderr().lock(), "{question} [y/N] ");
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        if matches!(line.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(declined()) }
    }
}

/// What a reconcile did, one line per action.
fn action_lines(reconciled: &Reconciled) -> Vec<String> {
    reconciled
        .acted
        .iter()
        .map(|acted| {
            let (action, reason) = (&acted.action, acted.action.reason());
            let failed = acted
                .result
                .as_ref()
                .err()
                .map(|error| format!(" (failed: {error})"))
                .unwrap_or_default();
            format!(
                "{} {} because {}: {}{failed}",
                verb(action),
                action.box_id(),
                reason.rule.as_str(),
                reason.text
            )
        })
        .collect()
}

fn json(document: &impl Serialize) -> String {
    serde_json::to_string_pretty(document).expect("a document of texts and numbers is always JSON")
}

fn to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}
