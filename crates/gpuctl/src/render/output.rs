//! What commands return: one document each.

use gpuctl_control::wire::Versioned;
use gpuctl_control::wire::explain::ExplainDocument;
#[cfg(feature = "aws")]
use gpuctl_control::wire::function::InvokedDocument;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_control::wire::models::{
    BenchDocument, ModelsDocument, PulledDocument, VerifiedDocument,
};
use gpuctl_control::wire::plan::PlanDocument;
use gpuctl_control::wire::status::StatusDocument;
use serde::Serialize;

use super::json;
use crate::documents::config::{ConfigPathDocument, ConfigShowDocument, ConfigValidDocument};
use crate::documents::logs::LogsDocument;
use crate::documents::reply::{
    CancelledDocument, CopiedDocument, CostForecastDocument, CostReportDocument, DeletedDocument,
    DoctorDocument, EstimateDocument, ExplainedCodeDocument, ExplainedJobDocument, InitDocument,
    JobsDocument, KeyCreatedDocument, KeysDocument, ManPagesDocument, MovedDocument,
    PricesDocument, QueuesDocument, RetriedDocument, ScriptDocument, SubmittedDocument,
    VersionDocument, versioned,
};
use crate::documents::schedule::{ScheduleAtDocument, ScheduleLintDocument, ScheduleShowDocument};
use crate::documents::simulate::{
    ExportedDocument, FaultSimulationDocument, SimulationDocument, TuningDocument,
};
#[cfg(feature = "deploy")]
use crate::documents::stack::{
    DeployedDocument, DestroyedDocument, DifferenceDocument, ExportDocument, StackCostDocument,
};
use crate::failure::Exit;

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
    Retried(RetriedDocument),
    Cancelled(CancelledDocument),
    Deleted(DeletedDocument),
    Queues(QueuesDocument),
    KeyCreated(KeyCreatedDocument),
    Keys(KeysDocument),
    Moved(MovedDocument),
    Copied(CopiedDocument),
    ScheduleAt(ScheduleAtDocument),
    ScheduleShow(ScheduleShowDocument),
    ScheduleLint(ScheduleLintDocument),
    CostReport(Box<CostReportDocument>),
    CostForecast(CostForecastDocument),
    Estimate(EstimateDocument),
    Simulation(Box<SimulationDocument>),
    FaultSimulation(Box<FaultSimulationDocument>),
    Tuning(Box<TuningDocument>),
    Exported(ExportedDocument),
    Prices(PricesDocument),
    #[cfg(feature = "deploy")]
    StackCost(StackCostDocument),
    #[cfg(feature = "deploy")]
    Difference(Box<DifferenceDocument>),
    #[cfg(feature = "deploy")]
    Deployed(Box<DeployedDocument>),
    #[cfg(feature = "deploy")]
    StackExport(ExportDocument),
    #[cfg(feature = "deploy")]
    Destroyed(DestroyedDocument),
    ConfigPath(ConfigPathDocument),
    ConfigShow(ConfigShowDocument),
    ConfigValid(ConfigValidDocument),
    /// A JSON Schema, also as text.
    ConfigSchema(serde_json::Value),
    ExplainedJob(Box<ExplainedJobDocument>),
    ExplainedCode(ExplainedCodeDocument),
    Init(InitDocument),
    Doctor(DoctorDocument),
    Models(ModelsDocument),
    ModelsVerified(VerifiedDocument),
    ModelsPulled(PulledDocument),
    ModelsBench(BenchDocument),
    Script(ScriptDocument),
    ManPages(ManPagesDocument),
    Version(VersionDocument),
    /// What `gpuctl` alone prints.
    Overview,
    Nothing,
    /// Output of a command that did not succeed.
    WithExit(Box<Output>, Exit),
}

impl Output {
    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self::WithExit(Box::new(self), exit)
    }

    /// The JSON of the document, if there is one.
    pub(super) fn json(&self) -> Option<String> {
        Some(match self {
            Self::Status(document) => json(document),
            #[cfg(feature = "aws")]
            Self::Invoked(invoked) => json(&invoked.document),
            Self::Logs(document) => named("gpuctl.logs", document),
            Self::Plan(document) => json(document),
            Self::Explain(document) => named("gpuctl.explain", document),
            Self::Submitted(document) => named("gpuctl.submitted", document),
            Self::Results(document) | Self::Jobs(document) => named("gpuctl.jobs", document),
            Self::Job(document) => named("gpuctl.job", document),
            Self::Retried(document) => named("gpuctl.retried", document),
            Self::Cancelled(document) => named("gpuctl.cancelled", document),
            Self::Deleted(document) => named("gpuctl.deleted", document),
            Self::Queues(document) => named("gpuctl.queues", document),
            Self::KeyCreated(document) => named("gpuctl.key-created", document),
            Self::Keys(document) => named("gpuctl.keys", document),
            Self::Moved(document) => named("gpuctl.moved", document),
            Self::Copied(document) => named("gpuctl.copied", document),
            Self::ScheduleAt(document) => named("gpuctl.schedule-at", document),
            Self::ScheduleShow(document) => named("gpuctl.schedule-show", document),
            Self::ScheduleLint(document) => named("gpuctl.schedule-lint", document),
            Self::CostReport(document) => named("gpuctl.cost-report", document),
            Self::CostForecast(document) => named("gpuctl.cost-forecast", document),
            Self::Simulation(document) => named("gpuctl.simulation", document),
            Self::FaultSimulation(document) => named("gpuctl.fault-simulation", document),
            Self::Tuning(document) => named("gpuctl.tuning", document),
            Self::Exported(document) => named("gpuctl.history-export", document),
            Self::Estimate(document) => named("gpuctl.cost-estimate", document),
            Self::Prices(document) => named("gpuctl.prices", document),
            #[cfg(feature = "deploy")]
            Self::StackCost(document) => named("gpuctl.stack-cost", document),
            #[cfg(feature = "deploy")]
            Self::Difference(document) => named("gpuctl.stack-difference", document),
            #[cfg(feature = "deploy")]
            Self::Deployed(document) => named("gpuctl.deployed", document),
            #[cfg(feature = "deploy")]
            Self::StackExport(document) => named("gpuctl.stack-export", document),
            #[cfg(feature = "deploy")]
            Self::Destroyed(document) => named("gpuctl.destroyed", document),
            Self::ConfigPath(document) => named("gpuctl.config-path", document),
            Self::ConfigShow(document) => named("gpuctl.config", document),
            Self::ConfigValid(document) => named("gpuctl.config-valid", document),
            Self::ConfigSchema(schema) => json(schema),
            Self::ExplainedJob(document) => named("gpuctl.explain-job", document),
            Self::ExplainedCode(document) => named("gpuctl.explain-code", document),
            Self::Init(document) => named("gpuctl.init", document),
            Self::Doctor(document) => named("gpuctl.doctor", document),
            Self::Models(document) => named("gpuctl.models", document),
            Self::ModelsVerified(document) => named("gpuctl.models-verified", document),
            Self::ModelsPulled(document) => named("gpuctl.models-pulled", document),
            Self::ModelsBench(document) => named("gpuctl.models-bench", document),
            Self::Script(document) => named("gpuctl.completions", document),
            Self::ManPages(document) => named("gpuctl.man", document),
            Self::Version(document) => named("gpuctl.version", document),
            Self::Overview | Self::Nothing => return None,
            Self::WithExit(output, _) => return output.json(),
        })
    }
}

fn named(schema: &'static str, document: impl Serialize) -> String {
    json(&versioned(schema, document))
}
