//! The version that `gpuctl --version` and `gpuctl version` print.

use std::sync::LazyLock;

use crate::documents::reply::VersionDocument;

/// E.g. `0.1.0 (commit 0123456789ab, with AWS, time zones 2026f)`.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let VersionDocument { gpuctl, commit, aws, time_zones } = document();
        let aws = if aws { "with AWS" } else { "without AWS" };
        format!("{gpuctl} (commit {commit}, {aws}, time zones {time_zones})")
    });
    &VERSION
}

/// The same as a document.
pub(crate) fn document() -> VersionDocument {
    VersionDocument {
        gpuctl: env!("CARGO_PKG_VERSION"),
        commit: env!("GPUCTL_COMMIT"),
        aws: cfg!(feature = "aws"),
        time_zones: gpuctl_core::zone::VERSION,
    }
}
