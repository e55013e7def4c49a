//! The JSON documents that only this program prints. What two programs exchange or a store keeps is in `gpuctl_control::wire`.
//!
//! The same rules hold: a document names its `schema` and `version`, within a version fields are only ever added, numbers
//! carry their unit in their name, and times are RFC 3339 in UTC.

pub(crate) mod config;
pub(crate) mod logs;
pub(crate) mod reply;
pub(crate) mod schedule;
pub(crate) mod simulate;
#[cfg(feature = "deploy")]
pub(crate) mod stack;
