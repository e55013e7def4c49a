//! The AWS calls that gpuctl makes, as the lines of the AWS CLI that would do the same: for `--show-calls`.

use std::fmt::Arguments;

/// The target of these lines in the log.
pub const TARGET: &str = "gpuctl::calls";

/// Shows one: `aws ` and these words.
pub(crate) fn show(words: Arguments<'_>) {
    tracing::info!(target: TARGET, "aws {words}");
}
