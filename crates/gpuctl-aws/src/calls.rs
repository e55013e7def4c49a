//! For `--show-calls`: the AWS calls that gpuctl makes, as lines of the AWS CLI that would do the same.

use std::fmt::Arguments;

use gpuctl_control::log::shown;

/// The log target of these lines.
pub const TARGET: &str = "gpuctl::calls";

/// Logs one call: `aws ` and these words. The log shows it only where `--show-calls` enables `TARGET`.
pub(crate) fn show(words: Arguments<'_>) {
    tracing::info!(target: TARGET, "aws {}", shown(words));
}
