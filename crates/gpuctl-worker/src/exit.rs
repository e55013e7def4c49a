//! Why a worker ended: each reason has an exit code of its own, by which a box's service manager knows whether to power off.

use std::fmt;

use gpuctl_core::without::Fix;

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerExit {
    /// By a signal: the box stays.
    ToldToStop,
    /// The plan stopped the box: it has nothing to do.
    Idle,
    /// The box was up for as long as the policy allows.
    Lifetime,
    /// The cloud takes the box back.
    Interrupted,
    /// A job goes on although it was cancelled, or a part of the worker crashed: only a new process gets rid of it.
    Hung,
    /// No report reached the ledger for too long.
    ReportFailed,
    /// The box cannot run jobs.
    CannotStart,
}

impl WorkerExit {
    const ALL: [Self; 7] = [
        Self::ToldToStop,
        Self::Idle,
        Self::Lifetime,
        Self::Interrupted,
        Self::Hung,
        Self::ReportFailed,
        Self::CannotStart,
    ];

    /// The reason with this exit code; a process that crashed has another code, or none.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.code() == code)
    }

    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::ToldToStop => 0,
            Self::Idle => 10,
            Self::Lifetime => 11,
            Self::Interrupted => 12,
            Self::Hung => 13,
            Self::ReportFailed => 14,
            Self::CannotStart => 15,
        }
    }

    /// Whether the box is to be powered off. Not when EC2 interrupts it: after a stop of our own during an interruption neither EC2
    /// nor we could start it again (P18).
    #[must_use]
    pub fn powers_off(self) -> bool {
        if Fix::ExitWithoutPowerOff.is_left_out() {
            return matches!(self, Self::Idle | Self::Lifetime);
        }
        !matches!(self, Self::ToldToStop | Self::Interrupted)
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToldToStop => "told to stop",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime over",
            Self::Interrupted => "interrupted",
            Self::Hung => "hung",
            Self::ReportFailed => "no report reached the ledger",
            Self::CannotStart => "cannot run jobs",
        })
    }
}
