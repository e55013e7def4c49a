//! What keeps a job's checkpoint, log and time, beside its run.
//!
//! Two checkpoints are kept, in turns, and the note says which is the newer one: what was torn, although nothing showed that, never replaces the only
//! one that is good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gpuctl_control::job::Job;
use gpuctl_control::ports::{FileStore, PortError, WorkingFile};
use gpuctl_control::text::with_causes;
use gpuctl_worker::Fault;
use tokio::task::JoinHandle;

use super::fault::snapshot_fault;
use super::folders::{CHECKPOINTS, LOG, METRICS, NOTE};
use super::journal::Journal;
use super::snapshot::{Entry, Note, SnapshotError, entries, pack};

/// What was changed so shortly before its program was killed may be half-written.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// Keeps it, one thing after the other.
pub(super) struct Keeping {
    pub(super) keeper: Arc<Keeper>,
    pub(super) note: Note,
    /// How long earlier attempts have run, in milliseconds.
    pub(super) ran_before: i64,
    /// What the last kept checkpoint had.
    kept: Vec<Entry>,
    /// What was put in place when this attempt began, if a checkpoint was.
    restored: Option<Vec<Entry>>,
    log_bytes: u64,
    under_way: Option<JoinHandle<Kept>>,
}

/// What is to be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Log,
    /// The checkpoint, too, if its files have changed.
    Changed,
    /// The same once the program has ended; it may have been killed, at this time, while it wrote.
    All {
        killed_at: Option<SystemTime>,
    },
}

/// What was kept, or why not.
struct Kept {
    /// The slot, and what is in it.
    checkpoint: Result<Option<(usize, Vec<Entry>)>, SnapshotError>,
    log_bytes: u64,
}

impl Keeping {
    pub(super) fn new(keeper: Arc<Keeper>, note: Note) -> Self {
        // What was restored need not be kept again.
        let kept = entries(&keeper.checkpoint).unwrap_or_default();
        let restored = note.newest.is_some().then(|| kept.clone());
        let ran_before = note.ran_millis;
        Self { keeper, note, ran_before, kept, restored, log_bytes: 0, under_way: None }
    }

    /// Begins to keep it, unless something is being kept.
    pub(super) fn begin(&mut self, what: What, ran_millis: i64) {
        if self.under_way.is_some() {
            return;
        }
        self.note.ran_millis = ran_millis;
        let (keeper, mut note) = (Arc::clone(&self.keeper), self.note.clone());
        let (log_bytes, before) = (self.log_bytes, self.kept.clone());
        self.under_way = Some(tokio::spawn(async move {
            let checkpoint = keeper.keep_checkpoint(&mut note, what, before).await;
            keeper.keep_note(&note).await;
            Kept { checkpoint, log_bytes: keeper.keep_log(log_bytes).await }
        }));
    }

    /// Completes once what is under way is done; never if there is nothing.
    pub(super) async fn done(&mut self) -> Result<(), Fault> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let kept = under_way.await;
        self.under_way = None;
        let Ok(kept) = kept else { return Ok(()) };
        self.log_bytes = kept.log_bytes;
        match kept.checkpoint {
            Ok(Some((slot, entries))) => (self.note.newest, self.kept) = (Some(slot), entries),
            Ok(None) => {}
            Err(error @ (SnapshotError::TooLarge { .. } | SnapshotError::TooMany)) => {
                return Err(snapshot_fault("its checkpoint", &error));
            }
            Err(error) => {
                let text =
                    format!("its checkpoint is not stored, and the one before stays: {error}");
                tracing::warn!(job = %self.keeper.job.id, "{text}");
                self.keeper.journal.say(&text);
            }
        }
        Ok(())
    }

    pub(super) async fn finish(&mut self) -> Result<(), Fault> {
        if self.under_way.is_some() { self.done().await } else { Ok(()) }
    }

    /// Keeps the log, and returns its URI if that works.
    pub(super) async fn keep_log(&mut self) -> Option<String> {
        let _ = self.finish().await;
        self.keeper.keep(LOG, &self.keeper.journal.files()[0].0).await.ok()
    }

    /// The slot of the checkpoint before the one that this attempt began with, if nothing was saved since. Once: there is none before that.
    pub(super) fn before(&mut self) -> Option<usize> {
        // What is under way must not store the folder while its files are replaced.
        self.give_up();
        let restored = self.restored.take()?;
        let is_as_it_was = entries(&self.keeper.checkpoint).is_ok_and(|now| now == restored);
        self.note.newest.filter(|_| is_as_it_was).map(|newest| 1 - newest)
    }

    fn give_up(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            under_way.abort();
        }
    }

    /// The folder has the files of this checkpoint: what is saved next replaces the other one.
    pub(super) fn went_back(&mut self, slot: usize) {
        self.note.newest = Some(slot);
        self.kept = entries(&self.keeper.checkpoint).unwrap_or_default();
    }
}

impl Drop for Keeping {
    /// What is packed from here on may be of a folder that is being deleted.
    fn drop(&mut self) {
        self.give_up();
    }
}

pub(super) struct Keeper {
    pub(super) files: Arc<dyn FileStore>,
    pub(super) job: Job,
    pub(super) checkpoint: PathBuf,
    pub(super) archive: PathBuf,
    pub(super) note: PathBuf,
    pub(super) mib_max: u32,
    pub(super) journal: Arc<Journal>,
}

impl Keeper {
    /// Keeps the checkpoint, where that is wanted and its files are not those of `before`, in the slot of the older one.
    async fn keep_checkpoint(
        self: &Arc<Self>,
        note: &mut Note,
        what: What,
        before: Vec<Entry>,
    ) -> Result<Option<(usize, Vec<Entry>)>, SnapshotError> {
        let slot = note.newest.map_or(0, |newest| 1 - newest);
        let (keeper, packed_note) = (Arc::clone(self), note.clone());
        let packing = tokio::task::spawn_blocking(move || keeper.pack(&packed_note, what, &before));
        let Some(packed) = packing.await.map_err(std::io::Error::other)?? else { return Ok(None) };
        self.keep(CHECKPOINTS[slot], &self.archive).await.map_err(SnapshotError::Store)?;
        note.newest = Some(slot);
        tracing::debug!(job = %self.job.id, stage = "checkpoint_kept");
        Ok(Some((slot, packed)))
    }

    fn pack(
        &self,
        note: &Note,
        what: What,
        before: &[Entry],
    ) -> Result<Option<Vec<Entry>>, SnapshotError> {
        if what == What::Log {
            return Ok(None);
        }
        let now = entries(&self.checkpoint)?;
        if now == before {
            return Ok(None);
        }
        if let What::All { killed_at: Some(killed_at) } = what
            && now.iter().any(|entry| entry.is_changed_since(killed_at - SETTLED_AFTER))
        {
            return Err(SnapshotError::Unfinished);
        }
        pack(&self.checkpoint, Some(note), &self.archive, self.mib_max).map(Some)
    }

    /// Keeps how long the job has run, also where its program has saved nothing: its limits count that.
    async fn keep_note(&self, note: &Note) {
        let written = serde_json::to_vec(note).map_err(std::io::Error::from);
        let written = written.and_then(|text| std::fs::write(&self.note, text));
        let kept = match written {
            Ok(()) => self.keep(NOTE, &self.note).await.map(drop).map_err(|e| with_causes(&e)),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = kept {
            tracing::warn!(job = %self.job.id, error, "its time could not be kept; the next time is the retry");
        }
    }

    /// Keeps log and metrics if they have grown from this many bytes, and returns how many there are.
    async fn keep_log(&self, before: u64) -> u64 {
        let [(log, log_bytes), (metrics, metric_bytes)] = self.journal.files();
        let bytes = log_bytes + metric_bytes;
        if bytes == before {
            return before;
        }
        for (name, path) in [(LOG, log), (METRICS, metrics)] {
            if let Err(error) = self.keep(name, &path).await {
                tracing::warn!(job = %self.job.id, %error, "its log could not be kept; the next time is the retry");
                return before;
            }
        }
        bytes
    }

    async fn keep(&self, name: &str, path: &Path) -> Result<String, PortError> {
        let (job, generation) = (&self.job.id, self.job.generation);
        self.files.keep_working(&WorkingFile { job, generation, name, path }).await
    }
}
