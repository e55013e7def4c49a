//! Who waits for the jobs of calls that name none: OpenAI's clients, which share a job if their calls are equal, and hang up without a word.
//!
//! A job is cancelled a while after the last client that waited for it has hung up, since no one would read its result. It goes on if one of
//! them was told so, or asked for that by `Prefer: respond-async`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpuctl_control::cancel::cancel;
use gpuctl_control::job::JobId;
use gpuctl_control::ports::PortError;
use tokio::time::{Instant, sleep};

use crate::{Api, Shared};

/// The jobs for which calls wait, or whose clients have just hung up.
#[derive(Default)]
pub(crate) struct Callers(Mutex<HashMap<JobId, Wanted>>);

/// Who wants a job.
struct Wanted {
    /// How many calls wait for it now.
    waiting: usize,
    /// Whether it goes on even if all of them hang up.
    is_kept: bool,
    /// When the last client has come, or has hung up.
    since: Instant,
}

impl Callers {
    fn all(&self) -> MutexGuard<'_, HashMap<JobId, Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls wait for the job now.
    pub(crate) fn waiting(&self, id: &JobId) -> usize {
        self.all().get(id).map_or(0, |one| one.waiting)
    }

    fn come(&self, id: &JobId, is_kept: bool) {
        let new = Wanted { waiting: 0, is_kept: false, since: Instant::now() };
        let mut all = self.all();
        let one = all.entry(id.clone()).or_insert(new);
        one.waiting += 1;
        one.is_kept |= is_kept;
    }

    /// Notes that a client leaves; whether it was the last, and the job is of no use to any.
    fn leave(&self, id: &JobId, how: Left) -> bool {
        let mut all = self.all();
        let Some(one) = all.get_mut(id) else { return false };
        one.waiting -= 1;
        one.is_kept |= how == Left::ComesBack;
        one.since = Instant::now();
        let is_abandoned = one.waiting == 0 && !one.is_kept && how == Left::HungUp;
        if one.waiting == 0 && !is_abandoned {
            all.remove(id);
        }
        is_abandoned
    }

    /// Forgets the job if no client has come for it since its last client hung up.
    fn forget_abandoned(&self, id: &JobId, after: std::time::Duration) -> bool {
        let mut all = self.all();
        let is_abandoned =
            all.get(id).is_some_and(|one| one.waiting == 0 && one.since.elapsed() >= after);
        if is_abandoned {
            all.remove(id);
        }
        is_abandoned
    }
}

/// How a client leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It has what it came for, or the reason why it gets nothing.
    Answered,
    /// It was told that the job goes on.
    ComesBack,
    HungUp,
}

/// A call that waits for its jobs. Dropped without an answer, its client has hung up.
pub(crate) struct Waiter {
    api: Shared,
    ids: BTreeSet<JobId>,
    left: Left,
}

impl Waiter {
    pub(crate) fn new(api: &Shared, ids: BTreeSet<JobId>, is_kept: bool) -> Self {
        for id in &ids {
            api.callers.come(id, is_kept);
        }
        Self { api: Arc::clone(api), ids, left: Left::HungUp }
    }

    /// The client gets an answer, perhaps that the jobs go on.
    pub(crate) fn answered(mut self, goes_on: bool) {
        self.left = if goes_on { Left::ComesBack } else { Left::Answered };
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut abandoned = std::mem::take(&mut self.ids);
        abandoned.retain(|id| self.api.callers.leave(id, self.left));
        if !abandoned.is_empty() && !self.api.is_closing() {
            tokio::spawn(Arc::clone(&self.api).abandon(abandoned));
        }
    }
}

impl Api {
    /// Cancels jobs for which no client comes back within a while: clients try again after a proxy has cut them off.
    async fn abandon(self: Shared, ids: BTreeSet<JobId>) {
        sleep(self.abandoned_after).await;
        for id in ids {
            // Who comes meanwhile looks at the job once it has its lock, and sends it again.
            let _alone = self.requests.alone(&id).await;
            if self.is_closing() || !self.callers.forget_abandoned(&id, self.abandoned_after) {
                continue;
            }
            if let Err(error) = self.cancel_abandoned(&id).await {
                let error = gpuctl_control::log::shown(&error);
                tracing::warn!(job = %id, %error, "a job that no client waits for goes on");
            }
        }
    }

    async fn cancel_abandoned(&self, id: &JobId) -> Result<(), PortError> {
        let Some(entry) = self.ports.ledger.job(id).await? else { return Ok(()) };
        if !entry.state.is_final() {
            let by = "the HTTP API, since its clients hung up,";
            cancel(&self.ports, &entry, by, self.ports.clock.now()).await?;
        }
        Ok(())
    }
}
