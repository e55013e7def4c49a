//! What the commands on stacks print.

use serde::Serialize;

/// `gpuctl.stack-cost`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StackCostDocument {
    pub(crate) region: String,
    /// A month in which nothing runs, without free tiers.
    pub(crate) usd_month: f64,
    pub(crate) parts: Vec<PartCostDocument>,
    /// What costs only while it runs.
    pub(crate) hours: Vec<HourCostDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PartCostDocument {
    /// The resource in the template.
    pub(crate) name: String,
    /// How it comes about.
    pub(crate) detail: String,
    pub(crate) usd_month: f64,
    /// When the price was taken.
    pub(crate) as_of: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct HourCostDocument {
    pub(crate) name: String,
    pub(crate) detail: String,
    pub(crate) usd_hour: Option<f64>,
    pub(crate) as_of: String,
}

/// `gpuctl.stack-difference`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DifferenceDocument {
    pub(crate) stack: String,
    pub(crate) region: String,
    pub(crate) is_new: bool,
    pub(crate) changes: Vec<ChangeDocument>,
    /// The stack's cost as it is.
    pub(crate) before: Option<StackCostDocument>,
    pub(crate) after: StackCostDocument,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChangeDocument {
    pub(crate) name: String,
    /// E.g. `AWS::SQS::Queue`.
    pub(crate) kind: String,
    /// `add`, `change`, `may replace`, `replace` or `remove`.
    pub(crate) action: &'static str,
    /// What is in it is lost.
    pub(crate) loses_data: bool,
    /// `deploy` needs `--allow-replace` for it.
    pub(crate) needs_permission: bool,
}

/// `gpuctl.deployed`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeployedDocument {
    pub(crate) stack: String,
    pub(crate) region: String,
    /// Resources that were added, changed or removed.
    pub(crate) changes: usize,
    pub(crate) usd_month: f64,
    pub(crate) outputs: std::collections::BTreeMap<String, String>,
    /// Where the stack's configuration lies.
    pub(crate) policy: String,
    /// The file that was written, if it was.
    pub(crate) policy_file: Option<String>,
    /// Kept boxes that were made.
    pub(crate) boxes: Vec<String>,
}

/// `gpuctl.stack-export`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ExportDocument {
    pub(crate) folder: String,
    pub(crate) files: Vec<String>,
}

/// `gpuctl.destroyed`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DestroyedDocument {
    pub(crate) stack: String,
    /// Whether there was a stack.
    pub(crate) was_there: bool,
    /// Boxes that were terminated.
    pub(crate) boxes: Vec<String>,
    /// Kept on purpose.
    pub(crate) kept: Vec<LeftDocument>,
    /// There although nothing should be.
    pub(crate) left: Vec<LeftDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LeftDocument {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    /// What it costs a month.
    pub(crate) usd_month: f64,
}
