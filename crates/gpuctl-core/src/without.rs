//! Fixes that a simulated week can leave out, to show that it finds what each of them prevents.
//!
//! Code asks `Fix::….is_left_out()` where the fix is. Without the cargo feature `without`, which no shipped program has, the answer is a
//! constant. With it, the answer belongs to the thread: each simulated week runs on one.

use std::fmt;
use std::str::FromStr;

crate::named! {
    /// A fix, by the name of the fault that it prevents. Its sentence says what happens without it.
    Fix {
        StopAfterLease "stop-after-lease" "A controller stops a box although its lease has ended.",
        UnfencedWrites "unfenced-writes" "What a controller writes to the ledger after its lease has ended counts.",
        BootLoopNoGrowth "boot-loop-no-growth" "The wait after failed starts grows no further than five minutes.",
        RestartCountsAsBoot "restart-counts-as-boot" "A worker that is started again after `boot_deadline` counts as a boot that failed.",
        SilenceAfterOutage "silence-after-outage" "After an outage of the ledger workers count as silent that could not report.",
        FinalErrorOnBoxFault "final-error-on-box-fault" "A fault of a box or a service becomes the final result of the job at hand.",
        DropUnkeptResult "drop-unkept-result" "A result that cannot be committed at once is dropped, and its job runs again.",
        AckWithDeadReceipt "ack-with-dead-receipt" "A message is acked although its lease is lost.",
        FullHandsAfterCrash "full-hands-after-crash" "A worker that crashes again and again holds as many messages as ever.",
        SuspectByReceiveCount "suspect-by-receive-count" "A job counts as one that crashes its worker because it was received before.",
        JobClockFromReceipt "job-clock-from-receipt" "The limit of a job counts the time that it waits for the model.",
        PrefetchTen "prefetch-ten" "A worker receives ten messages at once, however long their jobs take.",
        FilesNotFenced "files-not-fenced" "Every attempt at a job writes its files to the same place.",
        DuplicateGeneration "duplicate-generation" "A result of an older generation counts as that of a retried job.",
        ExitWithoutPowerOff "exit-without-power-off" "A worker that gives up leaves its box on.",
        UncorrectedClock "uncorrected-clock" "A worker believes the clock of its box.",
        EndedUnseen "ended-unseen" "A box that was started outside gpuctl, and stopped, before the ledger took a write costs nothing.",
        LifetimeFromReady "lifetime-from-ready" "`lifetime_max` counts anew from each start of the worker.",
    }
}

impl Fix {
    /// Whether the simulated week on this thread runs without the fix.
    #[cfg(not(feature = "without"))]
    #[must_use]
    #[inline]
    pub const fn is_left_out(self) -> bool {
        false
    }

    /// Whether the simulated week on this thread runs without the fix.
    #[cfg(feature = "without")]
    #[must_use]
    pub fn is_left_out(self) -> bool {
        LEFT_OUT.get() & self.bit() != 0
    }

    #[cfg(feature = "without")]
    fn bit(self) -> u64 {
        1 << self as u32
    }
}

#[cfg(feature = "without")]
thread_local! {
    static LEFT_OUT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Leaves these fixes out on this thread, and no others, until the next call.
#[cfg(feature = "without")]
pub fn leave_out<'a>(fixes: impl IntoIterator<Item = &'a Fix>) {
    LEFT_OUT.set(fixes.into_iter().fold(0, |all, fix| all | fix.bit()));
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text does not name a fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a fix that can be left out")]
pub struct FixError(String);

impl FromStr for Fix {
    type Err = FixError;
    fn from_str(text: &str) -> Result<Self, FixError> {
        let found = Self::ALL.iter().find(|fix| fix.name() == text);
        found.copied().ok_or_else(|| FixError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fix_is_found_by_its_name_and_none_is_left_out_unasked() {
        for fix in Fix::ALL {
            assert_eq!(fix.name().parse(), Ok(*fix));
            assert!(!fix.is_left_out(), "{fix}");
        }
        assert!("gremlins".parse::<Fix>().is_err());
    }
}
