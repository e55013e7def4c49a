//! `gpu-worker exec`: how a command of a job is started, so that it ends with its worker, however that ends.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::arguments::ExecArguments;

/// As shells have it for a program that cannot be started.
pub(crate) const NOT_STARTED: u8 = 127;

/// Becomes the program; returns only if that fails.
pub(crate) fn exec(wanted: &ExecArguments) -> Box<dyn Error> {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have ended before the kernel was told.
    if getppid().is_none_or(|parent| parent.as_raw_pid() != wanted.parent) {
        return "the worker of this command has ended".into();
    }
    let Some((program, words)) = wanted.words.split_first() else {
        return "there is no program to start".into();
    };
    Command::new(program).args(words).exec().into()
}
