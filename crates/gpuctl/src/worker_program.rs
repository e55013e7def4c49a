//! Finds the program `gpu-worker`.

use std::path::PathBuf;

/// The worker next to this program, else the one on the PATH.
pub(crate) fn worker_program() -> PathBuf {
    let sibling =
        std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join("gpu-worker")));
    sibling.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from("gpu-worker"))
}
