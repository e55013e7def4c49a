//! Cancelling jobs that share a batch: the run ends once all of them are cancelled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpu_inference::Cancel;

/// Cancels one job. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ItemCancel(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_cancelled: bool,
    batch: Option<Arc<BatchCancel>>,
}

impl ItemCancel {
    /// Cancels the job, and its run if no other job needs that.
    pub fn cancel(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.is_cancelled, true)
            && let Some(batch) = &state.batch
        {
            batch.one_less();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cancels a batch.
#[derive(Debug)]
pub(crate) struct BatchCancel {
    /// How many of its jobs are not cancelled.
    left: AtomicUsize,
    cancel: Cancel,
}

impl BatchCancel {
    /// The flag for a run of these jobs.
    pub(crate) fn of<'a>(jobs: impl ExactSizeIterator<Item = &'a ItemCancel>) -> Cancel {
        let cancel = Cancel::new();
        let left = AtomicUsize::new(jobs.len());
        let batch = Arc::new(Self { left, cancel: cancel.clone() });
        for job in jobs {
            let mut state = job.lock();
            if state.is_cancelled {
                batch.one_less();
            }
            state.batch = Some(Arc::clone(&batch));
        }
        cancel
    }

    fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cancelled_with_the_last_of_its_jobs_also_if_one_was_before() {
        let jobs = [ItemCancel::default(), ItemCancel::default()];
        jobs[0].cancel();
        let batch = BatchCancel::of(jobs.iter());
        jobs[0].cancel();
        assert!(!batch.is_cancelled());
        jobs[1].cancel();
        assert!(batch.is_cancelled());
        // A half of it that runs again is another batch.
        assert!(BatchCancel::of(jobs[1..].iter()).is_cancelled());
    }
}
