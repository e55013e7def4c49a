//! From a finished job to an acked message: files, result, ack, each tried until it works.
//!
//! Finished work is not thrown away: while a store fails the result is held, in memory or on disk, and nothing more is received. A
//! message is acked only under a live lease, and after its result is durable or in the same write.

use std::sync::atomic::Ordering;

use gpuctl_control::job::{Job, JobFailure, JobResult};
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
    /// The job's generation has a result: this one, or one that came first.
    Done {
        /// Whether the result that is kept is a success.
        succeeded: bool,
        /// Whether the message is acked with it. If not, it is still to be.
        is_acked: bool,
    },
    /// The worker ends: the next one on this box commits it.
    PutAway,
}

/// The result that the job's generation has. An earlier try of this worker, whose reply was lost, may have written another form of its
/// result than this one: the form that is kept decides.
struct Kept {
    is_own: bool,
    failure: Option<JobFailure>,
}

impl Kept {
    fn of(kept: JobResult, own: &JobResult) -> Self {
        let is_own = kept.box_id == own.box_id && kept.received_at == own.received_at;
        Self { is_own, failure: kept.outcome.err() }
    }

    fn names_files(&self) -> bool {
        self.is_own && self.failure.is_none()
    }
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
        let (kept, is_acked) = match self.keep_files(lease, finished).await? {
            None => {
                let committed = self.commit_result(lease, finished).await;
                committed.map_err(|error| (Part::Results, error))?
            }
            Some(kept) => (kept, false),
        };
        self.faults.clear(Part::Results);
        tracing::debug!(%job, stage = "committed");
        if !kept.is_own {
            tracing::info!(%job, "another delivery has a result already");
        }
        if !kept.names_files() {
            self.remove_files(finished).await;
        }
        Ok(Commitment::Done { succeeded: kept.failure.is_none(), is_acked })
    }

    /// Stores the files. Where the lease is lost and the job has a result they are not needed: then that one.
    async fn keep_files(
        &self,
        lease: Option<&Lease>,
        finished: &mut Finished,
    ) -> Result<Option<Kept>, (Part, PortError)> {
        let attempt = finished.attempt();
        let job = &finished.result.job;
        while let Some(file) = finished.files.get(finished.stored.len()) {
            if lease.is_some_and(Lease::is_lost)
                && let kept = self.result(job).await.map_err(|error| (Part::Results, error))?
                && let Some(kept) = kept
            {
                return Ok(Some(Kept::of(kept, &finished.result)));
            }
            let (name, bytes) = (&*file.name, &*file.bytes);
            let file_of = ResultFile { job: &job.id, attempt: &attempt, name, bytes };
            let uri = self.ports.files.keep(&file_of).await;
            let uri = uri.map_err(|error| (Part::Files, error))?;
            finished.stored.push(file_document(file, Some(uri)));
            self.faults.clear(Part::Files);
            tracing::debug!(job = %job.id, stage = "file_kept");
        }
        Ok(None)
    }

    /// The result that is kept, and whether the message was acked with it.
    async fn commit_result(
        &self,
        lease: Option<&Lease>,
        finished: &Finished,
    ) -> Result<(Kept, bool), PortError> {
        let mut result = finished.result.clone();
        result.outcome = result.outcome.map(|output| with_files(output, &finished.stored));
        let Ended { committed, is_acked } =
            self.commit_or_say_too_large(lease, &mut result).await?;
        let job = result.job.clone();
        let kept = match committed {
            Committed::Written => Some(result),
            Committed::AlreadyThere => self.result(&job).await?,
        };
        let kept = match kept {
            Some(kept) => Kept::of(kept, &finished.result),
            // A user has deleted it meanwhile: it names no files any more.
            None => Kept { is_own: false, failure: None },
        };
        if kept.is_own {
            self.jobs_done.fetch_add(1, Ordering::Relaxed);
            let code = kept.failure.as_ref().map(|failure| failure.code.as_str());
            tracing::info!(job = %job.id, task = %shown(&job.task), failed = code, "done");
        }
        Ok((kept, is_acked))
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
