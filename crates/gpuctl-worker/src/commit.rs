//! From a finished job to an acked message: files, result, ack, each tried until it works.
//!
//! Finished work is not thrown away: while a store fails the result is held, in memory or on disk, and nothing more is received. A
//! message is acked only under a live lease and after its result is durable.

use std::sync::atomic::Ordering;

use gpuctl_control::job::{Job, JobResult};
use gpuctl_control::log::shown;
use gpuctl_control::ports::{Committed, Ended, PortError, PortErrorClass, ResultFile};
use gpuctl_control::text::with_causes;
use gpuctl_core::without::Fix;

use crate::Worker;
use crate::faults::{self, Part};
use crate::held::{Finished, discard, keys};
use crate::leases::{Lease, within};
use crate::pace::Backoff;
use crate::result::{file_document, with_files};

/// The most bytes of results that are held in memory; what comes beyond is held on disk.
const HELD_BYTES_MAX: u64 = 256 << 20;

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commitment {
    /// The job's generation has a result: this one, or one that came first. Its message is still to be acked.
    Done,
    /// … and its message is acked.
    DoneAndAcked,
    /// The worker ends: the next one on this box commits it.
    PutAway,
}

/// Whether a result's files are stored.
enum Kept {
    All,
    /// They are not needed: the lease is lost, and there is a result.
    Superseded,
}

/// Which result the job's generation has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// This one, which names its files.
    WithFiles,
    /// This one, and it names none.
    WithoutFiles,
    /// Another one.
    Superseded,
}

impl Worker {
    /// Commits what earlier workers of this box have put away.
    pub(crate) async fn commit_put_away(&self) {
        let scratch = &*self.scratch;
        for key in keys(scratch).unwrap_or_default() {
            match Finished::take_back(scratch, &key) {
                Ok(finished) => {
                    tracing::info!(job = %finished.result.job.id, "committing a result of before");
                    if self.commit(None, finished).await == Commitment::PutAway {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(key, error = %shown(error), "a result that was put away cannot be read; its job runs again");
                }
            }
            let _ = discard(scratch, &key);
        }
    }

    /// Commits a result; while a store fails it tries again, until the worker ends.
    pub(crate) async fn commit(&self, lease: Option<&Lease>, mut finished: Finished) -> Commitment {
        let mut backoff = Backoff::new();
        let mut held = None;
        loop {
            let (part, error) = tokio::select! {
                biased;
                () = self.ending.cancelled() => return self.put_away(&finished),
                done = self.commit_once(lease, &mut finished) => match done {
                    Ok(done) => return done,
                    Err(_) if Fix::DropUnkeptResult.is_left_out() => return Commitment::PutAway,
                    Err(failed) => failed,
                },
            };
            self.faults.raise(part, &part.fault(&error), self.now());
            held.get_or_insert_with(|| HeldBytes::new(self, finished.bytes()));
            let wait = backoff.next_wait();
            if self.held_bytes.load(Ordering::Relaxed) > HELD_BYTES_MAX {
                finished = match self.wait_on_disk(finished, wait).await {
                    Ok(finished) => finished,
                    Err(commitment) => return commitment,
                };
            } else {
                tokio::select! {
                    biased;
                    () = self.ending.cancelled() => return self.put_away(&finished),
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }

    /// Waits with the result on disk instead of in memory; where the disk fails, in memory all the same.
    async fn wait_on_disk(
        &self,
        finished: Finished,
        wait: std::time::Duration,
    ) -> Result<Finished, Commitment> {
        let scratch = &*self.scratch;
        let away = finished.put_away(scratch).map(|key| {
            let (result, stored) = (finished.result.clone(), finished.stored.clone());
            (key, Finished { result, stored, files: Vec::new() })
        });
        let (key, kept) = match away {
            Ok((key, light)) => {
                drop(finished);
                (Some(key), light)
            }
            Err(_) => (None, finished),
        };
        tokio::select! {
            biased;
            () = self.ending.cancelled() => {
                return Err(if key.is_some() { Commitment::PutAway } else { self.put_away(&kept) });
            }
            () = tokio::time::sleep(wait) => {}
        }
        let Some(key) = key else { return Ok(kept) };
        match Finished::take_back(scratch, &key) {
            Ok(back) => {
                let _ = discard(scratch, &key);
                Ok(Finished { stored: kept.stored, ..back })
            }
            Err(error) => {
                tracing::error!(error = %shown(error), "a held result cannot be read back; its job runs again");
                Err(Commitment::PutAway)
            }
        }
    }

    fn put_away(&self, finished: &Finished) -> Commitment {
        match finished.put_away(&*self.scratch) {
            Ok(_) => {
                tracing::warn!(job = %finished.result.job.id, "the result is put away on disk: the next worker on this box commits it");
            }
            Err(error) => {
                tracing::error!(job = %finished.result.job.id, error = %shown(error), "the result could not be put away; its job runs again");
            }
        }
        Commitment::PutAway
    }

    /// Stores the files, then the result that names them: who reads the result finds the files.
    async fn commit_once(
        &self,
        lease: Option<&Lease>,
        finished: &mut Finished,
    ) -> Result<Commitment, (Part, PortError)> {
        let job = finished.result.job.id.clone();
        let is_kept = self.keep_files(lease, finished).await?;
        let (committed, is_acked) = match is_kept {
            Kept::All => {
                let committed = self.commit_result(lease, finished).await;
                committed.map_err(|error| (Part::Results, error))?
            }
            Kept::Superseded => (Commit::Superseded, false),
        };
        self.faults.clear(Part::Results);
        tracing::debug!(%job, stage = "committed");
        if committed == Commit::Superseded {
            tracing::info!(%job, "another delivery has a result already");
        }
        if committed != Commit::WithFiles {
            self.remove_files(finished).await;
        }
        Ok(if is_acked { Commitment::DoneAndAcked } else { Commitment::Done })
    }

    async fn keep_files(
        &self,
        lease: Option<&Lease>,
        finished: &mut Finished,
    ) -> Result<Kept, (Part, PortError)> {
        let attempt = finished.attempt();
        let job = &finished.result.job;
        while let Some(file) = finished.files.get(finished.stored.len()) {
            let has_result = self.has_result(job);
            if lease.is_some_and(Lease::is_lost)
                && has_result.await.map_err(|error| (Part::Results, error))?
            {
                return Ok(Kept::Superseded);
            }
            let (name, bytes) = (&*file.name, &*file.bytes);
            let file_of = ResultFile { job: &job.id, attempt: &attempt, name, bytes };
            let uri = self.ports.files.keep(&file_of).await;
            let uri = uri.map_err(|error| (Part::Files, error))?;
            finished.stored.push(file_document(file, Some(uri)));
            self.faults.clear(Part::Files);
            tracing::debug!(job = %job.id, stage = "file_kept");
        }
        Ok(Kept::All)
    }

    /// Whether the result is kept, and whether its message was acked with it.
    async fn commit_result(
        &self,
        lease: Option<&Lease>,
        finished: &Finished,
    ) -> Result<(Commit, bool), PortError> {
        let mut result = finished.result.clone();
        result.outcome = result.outcome.map(|output| with_files(output, &finished.stored));
        let Ended { committed, is_acked } =
            self.commit_or_say_too_large(lease, &mut result).await?;
        if committed == Committed::AlreadyThere && !self.is_own(finished).await? {
            return Ok((Commit::Superseded, is_acked));
        }
        self.jobs_done.fetch_add(1, Ordering::Relaxed);
        let code = result.outcome.as_ref().err().map(|failure| failure.code.as_str());
        tracing::info!(job = %result.job.id, task = %shown(&result.job.task), failed = code, "done");
        let commit = if result.outcome.is_ok() { Commit::WithFiles } else { Commit::WithoutFiles };
        Ok((commit, is_acked))
    }

    /// Whether the result that the ledger has is this one: its first commit may have been written although its reply was lost.
    async fn is_own(&self, finished: &Finished) -> Result<bool, PortError> {
        let own = &finished.result;
        let results = within("the ledger", self.ports.ledger.results(&own.job.id)).await?;
        let same = |one: &JobResult| one.box_id == own.box_id && one.received_at == own.received_at;
        let there = results.iter().find(|one| one.job.generation == own.job.generation);
        Ok(there.is_some_and(same))
    }

    /// Removes the files of an attempt whose result does not count. If that fails they stay, which does no harm.
    async fn remove_files(&self, finished: &Finished) {
        if finished.stored.is_empty() {
            return;
        }
        let attempt = finished.attempt();
        let removed = self.ports.files.remove(&finished.result.job.id, Some(&attempt));
        if let Err(error) = within("the removal of files", removed).await {
            tracing::warn!(error = %shown(with_causes(&error)), "files of an attempt that does not count stay");
        }
    }

    /// Whether the job's generation has a result.
    async fn has_result(&self, job: &Job) -> Result<bool, PortError> {
        self.result(job).await.map(|result| result.is_some())
    }

    /// The result of the job's generation, if it has one.
    pub(crate) async fn result(&self, job: &Job) -> Result<Option<JobResult>, PortError> {
        let results = within("the ledger", self.ports.ledger.results(&job.id)).await?;
        let any = Fix::DuplicateGeneration.is_left_out();
        Ok(results.into_iter().find(|result| any || result.job.generation == job.generation))
    }

    /// Commits the result; where it is too large for the ledger, it becomes a failure that says so. One for which there is no room now
    /// waits.
    async fn commit_or_say_too_large(
        &self,
        lease: Option<&Lease>,
        result: &mut JobResult,
    ) -> Result<Ended, PortError> {
        match self.commit_under(lease, result).await {
            Err(error) if error.class == PortErrorClass::TooLarge && result.outcome.is_ok() => {
                result.outcome = Err(faults::too_large(&error));
                self.commit_under(lease, result).await
            }
            ended => ended,
        }
    }

    /// Commits, with the ack where the ledger can; without it where there is no lease, or none that is live.
    async fn commit_under(
        &self,
        lease: Option<&Lease>,
        result: &JobResult,
    ) -> Result<Ended, PortError> {
        let ledger = &self.ports.ledger;
        match lease.filter(|lease| !lease.is_lost()) {
            Some(lease) => lease.end_by(ledger.commit_and_ack_one(result, &lease.receipt)).await,
            None => {
                let committed = within("the commit", ledger.commit_one(result)).await?;
                Ok(Ended { committed, is_acked: false })
            }
        }
    }
}

/// Bytes of a result that cannot be committed now, counted while this lives.
struct HeldBytes<'a>(&'a Worker, u64);

impl<'a> HeldBytes<'a> {
    fn new(worker: &'a Worker, bytes: u64) -> Self {
        worker.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self(worker, bytes)
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.0.held_bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}
