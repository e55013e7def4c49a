//! Puts in place what earlier attempts at a job have kept.

use std::path::Path;

use gpuctl_control::job::JobFailure;
use gpuctl_control::ports::{Fetched, WorkingFile};
use gpuctl_worker::Fault;

use super::attempt::Attempt;
use super::fault::{disk, snapshot_fault, unreachable_files};
use super::folders::{CHECKPOINTS, Folders, LOG, METRICS, NOTE};
use super::snapshot::{Note, SnapshotError, unpack};

impl Attempt<'_> {
    /// The log, the metrics and the newest checkpoint that can be read; how far the job has come.
    pub(super) async fn restore(&self, folders: &Folders) -> Result<Note, Fault> {
        for (name, path) in [(LOG, folders.log()), (METRICS, folders.metrics())] {
            if let Some(kept) = self.kept(name).await? {
                std::fs::copy(kept.path(), &path).map_err(|e| disk(&e))?;
            }
        }
        let noted = self.noted().await?;
        let newest = noted.as_ref().and_then(|noted| noted.newest).unwrap_or_default().min(1);
        let checkpoint = self.restore_checkpoint(folders, newest).await?;
        let note = checkpoint.unwrap_or_else(|| self.fresh());
        // It counts what the checkpoint does not.
        let note = noted.map_or(note.clone(), |noted| note.at_least(&noted));
        tracing::info!(job = %self.job.id, ran_ms = note.ran_millis, "goes on from what is kept of it");
        Ok(note)
    }

    fn fresh(&self) -> Note {
        Note {
            job: self.job.id.to_string(),
            generation: self.job.generation,
            ran_millis: 0,
            attempts: 0,
            retries: 0,
            newest: None,
        }
    }

    /// The note beside the checkpoints. What is none is left aside.
    async fn noted(&self) -> Result<Option<Note>, Fault> {
        let kept = self.kept(NOTE).await?;
        let text = kept.and_then(|kept| std::fs::read(kept.path()).ok());
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    async fn restore_checkpoint(
        &self,
        folders: &Folders,
        newest: usize,
    ) -> Result<Option<Note>, Fault> {
        let mut damaged = None;
        for slot in [newest, 1 - newest] {
            match self.put_in_place(folders, slot).await? {
                None => {}
                Some(Ok(note)) => return self.own(Note { newest: Some(slot), ..note }).map(Some),
                Some(Err(error @ SnapshotError::Damaged(_))) => {
                    tracing::warn!(job = %self.job.id, %error, "a checkpoint cannot be used; trying the other one");
                    damaged = Some(error);
                }
                Some(Err(error)) => return Err(snapshot_fault("its checkpoint", &error)),
            }
        }
        damaged.map_or(Ok(None), |error| Err(snapshot_fault("its checkpoint", &error)))
    }

    /// Puts the files of this checkpoint in place of all that there is, if it is kept.
    pub(super) async fn put_in_place(
        &self,
        folders: &Folders,
        slot: usize,
    ) -> Result<Option<Result<Note, SnapshotError>>, Fault> {
        let Some(kept) = self.kept(CHECKPOINTS[slot]).await? else { return Ok(None) };
        let unpacked = tokio::task::block_in_place(|| {
            folders.empty_checkpoint()?;
            unpack(kept.path(), &folders.checkpoint())
        });
        Ok(Some(unpacked))
    }

    fn own(&self, note: Note) -> Result<Note, Fault> {
        let (job, generation) = (self.job.id.as_str(), self.job.generation);
        if (note.job.as_str(), note.generation) == (job, generation) {
            return Ok(note);
        }
        let of = format!("generation {} of job {}", note.generation, note.job);
        Err(Fault::Input(JobFailure {
            code: "command.checkpoint".to_owned(),
            message: format!("its checkpoint is of {of}, and this is generation {generation}"),
            hint: Some("each generation begins anew: `gpuctl retry` sends the next one".to_owned()),
        }))
    }

    async fn kept(&self, name: &str) -> Result<Option<Fetched>, Fault> {
        let (job, generation) = (&self.job.id, self.job.generation);
        let file = WorkingFile { job, generation, name, path: Path::new("") };
        self.commands.files.working(&file).await.map_err(|error| unreachable_files(&error))
    }
}
