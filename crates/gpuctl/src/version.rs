//! The version that `gpuctl --version` prints.

use std::sync::LazyLock;

/// E.g. `0.1.0 (commit 0123456789ab, with AWS, time zones 2026f)`.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{} (commit {}, {}, time zones {})",
            env!("CARGO_PKG_VERSION"),
            env!("GPUCTL_COMMIT"),
            if cfg!(feature = "aws") { "with AWS" } else { "without AWS" },
            gpuctl_core::zone::VERSION
        )
    });
    &VERSION
}
