//! What the controller would see and decide now, kept for a moment: many requests ask for it, and it is read from the whole backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpuctl_control::ports::PortError;
use gpuctl_control::snapshot::Snapshot;
use gpuctl_core::units::QueueName;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Api;

/// How long an observation is kept for those who only read; requests that have just submitted share one that is newer.
const APART_MIN: Duration = Duration::from_millis(250);

/// How long the bytes of clients' files are not added up again: that looks at each folder.
const UPLOADED_KEPT: Duration = Duration::from_secs(5);

/// The latest snapshot, and how many jobs each queue held when it was last counted.
pub(crate) struct Snapshots {
    latest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    counted: Mutex<BTreeMap<QueueName, (Instant, u64)>>,
    uploaded: Mutex<Option<(Instant, u64)>>,
    kept: Duration,
}

impl Snapshots {
    /// On AWS an observation is calls that cost money: it is kept for longer, as waiting requests poll more seldom.
    pub(crate) fn new(poll_every: Duration) -> Self {
        let kept = poll_every.max(APART_MIN);
        Self {
            latest: Mutex::new(None),
            counted: Mutex::new(BTreeMap::new()),
            uploaded: Mutex::new(None),
            kept,
        }
    }
}

impl Api {
    /// A snapshot that is a moment old at most; requests that ask meanwhile wait for the same.
    pub(crate) async fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot_since(None).await
    }

    /// A snapshot that has seen what was done until now, where an observation is a few reads of a file. On AWS it may be a moment older.
    pub(crate) async fn new_snapshot(&self) -> Arc<Snapshot> {
        let is_cheap = self.snapshots.kept <= APART_MIN;
        self.snapshot_since(is_cheap.then(Instant::now)).await
    }

    async fn snapshot_since(&self, since: Option<Instant>) -> Arc<Snapshot> {
        let mut latest = self.snapshots.latest.lock().await;
        if let Some((at, snapshot)) = &*latest
            && at.elapsed() < self.snapshots.kept
            && since.is_none_or(|since| *at >= since)
        {
            return Arc::clone(snapshot);
        }
        let begun = Instant::now();
        let snapshot = Arc::new(Snapshot::take(&self.ports, &self.policy).await);
        *latest = Some((begun, Arc::clone(&snapshot)));
        snapshot
    }

    /// How many bytes the files take that clients sent, as of some seconds ago at most.
    pub(crate) async fn uploaded(&self) -> Result<u64, PortError> {
        let mut uploaded = self.snapshots.uploaded.lock().await;
        if let Some((at, bytes)) = *uploaded
            && at.elapsed() < UPLOADED_KEPT
        {
            return Ok(bytes);
        }
        let bytes = self.ports.files.uploaded_bytes().await?;
        *uploaded = Some((Instant::now(), bytes));
        Ok(bytes)
    }

    /// How many jobs wait in the queue, as of a moment ago at most.
    pub(crate) async fn queued(&self, queue: &QueueName) -> Result<u64, PortError> {
        let mut counted = self.snapshots.counted.lock().await;
        if let Some((at, count)) = counted.get(queue)
            && at.elapsed() < self.snapshots.kept
        {
            return Ok(*count);
        }
        let counts = self.ports.queue.counts(queue).await?;
        let count = counts.visible + counts.delayed;
        counted.insert(queue.clone(), (Instant::now(), count));
        Ok(count)
    }
}
