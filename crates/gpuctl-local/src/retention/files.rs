//! What is kept beside the file: results' files by their age and size, and logs by their size.
//!
//! Which of a job's files count is told by its results: those of attempts that never committed go, once no worker can have them in hand.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use gpuctl_control::log::shown;
use gpuctl_control::ports::PortError;
use gpuctl_core::units::{BoxId, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::Retention;
use crate::boxes::is_alive;
use crate::files::FOLDER_NAME;
use crate::store::Store;
use crate::time::Now;

/// How long files stay that no result names: longer than a worker may hold a message (12 hours).
const UNNAMED_KEPT: TimeDelta = TimeDelta::days(1);
/// The most bytes of a box's log; beyond that it goes on in an empty file, beside the old one.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Files of one job that has ended.
struct Kept {
    folder: PathBuf,
    ended_at: i64,
    bytes: u64,
}

/// Deletes what is too old or too much.
pub(super) fn sweep(store: &Store, now: Now, retention: Retention) -> Result<(), PortError> {
    let mut kept = Vec::new();
    for folder in entries(&store.folder().join(FOLDER_NAME)) {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        match job(store, &name.unwrap_or_default())? {
            None => delete_if_old(&folder, now, UNNAMED_KEPT),
            Some(job) if job.has_ended => {
                for attempt in entries(&folder).iter().filter(|attempt| !job.names(attempt)) {
                    delete_if_old(attempt, now, UNNAMED_KEPT);
                }
                let bytes = bytes_of(&folder);
                kept.push(Kept { folder, ended_at: job.ended_at, bytes });
            }
            Some(_) => {}
        }
    }
    delete_beyond(store, kept, retention.results_bytes_max)?;
    delete_old_logs(store, now, retention.jobs);
    Ok(())
}

/// Oldest first, by when the job ended. One that was sent again meanwhile keeps its files.
fn delete_beyond(store: &Store, mut kept: Vec<Kept>, bytes_max: u64) -> Result<(), PortError> {
    kept.sort_by_key(|kept| kept.ended_at);
    let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
    for oldest in kept {
        if bytes <= bytes_max {
            return Ok(());
        }
        bytes -= oldest.bytes;
        let name = oldest.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if job(store, &name)?.is_none_or(|job| job.has_ended) {
            delete(&oldest.folder);
        }
    }
    Ok(())
}

/// Logs of boxes that have not run for as long as jobs are kept.
fn delete_old_logs(store: &Store, now: Now, kept: TimeDelta) {
    for log in entries(&store.folder().join("boxes")) {
        let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((id, "log" | "log.old")) = name.split_once('.') else { continue };
        if id.parse::<BoxId>().is_ok_and(|id| !is_alive(store, &id)) {
            delete_if_old(&log, now, kept);
        }
    }
}

/// What the ledger says of a job that has files.
struct Job {
    has_ended: bool,
    ended_at: i64,
    /// The job itself and its results, as they are stored.
    documents: Vec<String>,
}

impl Job {
    /// Whether a result has files of this attempt, or the job has an input there that a client sent.
    fn names(&self, attempt: &Path) -> bool {
        let name = attempt.file_name().unwrap_or_default().to_string_lossy();
        self.documents.iter().any(|document| document.contains(&*name))
    }
}

fn job(store: &Store, id: &str) -> Result<Option<Job>, PortError> {
    store.read(|c| {
        let found = c
            .prepare_cached(
                "SELECT state NOT IN ('live', 'dead'), touched_at FROM jobs WHERE job_id = ?1",
            )?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((has_ended, ended_at)) = found else {
            // It was sent, and its submitter ended before it was noted: a worker will want its input.
            let is_sent = c
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM messages WHERE job_id = ?1)")?
                .query_row([id], |row| row.get(0))?;
            let waiting = Job { has_ended: false, ended_at: 0, documents: Vec::new() };
            return Ok(Some(waiting).filter(|_| is_sent));
        };
        let documents = c
            .prepare_cached(
                "SELECT result FROM results WHERE job_id = ?1 UNION ALL SELECT job FROM jobs WHERE job_id = ?1",
            )?
            .query_map(params![id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok(Some(Job { has_ended, ended_at, documents }))
    })
}

fn delete_if_old(path: &Path, now: Now, kept: TimeDelta) {
    let newest = facts(path).into_iter().filter_map(|(_, facts)| facts.modified().ok()).max();
    // By the earlier of both times: a clock that was set ahead makes nothing old.
    let before = now.wall(now.before(kept)).min(now.unstepped(now.before(kept)));
    if newest.is_some_and(|newest| Timestamp::from(newest) < before) {
        delete(path);
    }
}

fn delete(path: &Path) {
    let deleted =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(error) = deleted {
        tracing::warn!(path = %shown(path.display()), error = %shown(error), "old files could not be deleted");
    }
}

fn bytes_of(folder: &Path) -> u64 {
    facts(folder).iter().map(|(_, facts)| facts.len()).sum()
}

/// Of a file or folder, and of all that is in it.
fn facts(path: &Path) -> Vec<(PathBuf, Metadata)> {
    let Ok(own) = path.symlink_metadata() else { return Vec::new() };
    let within = if own.is_dir() { entries(path) } else { Vec::new() };
    let within = within.iter().flat_map(|path| facts(path));
    within.chain([(path.to_owned(), own)]).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Moves the log of a box that writes too much of it: the box goes on at its beginning, and what it has written is its old log.
pub(crate) fn cut_log(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.len() <= LOG_BYTES_MAX {
        return Ok(());
    }
    let mut log = File::options().read(true).write(true).open(path)?;
    let old = path.with_extension("log.old");
    let end = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(end.saturating_sub(LOG_BYTES_MAX)))?;
    let copy = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    io::copy(&mut Read::by_ref(&mut log).take(LOG_BYTES_MAX), &mut copy.as_file())?;
    copy.persist(old).map_err(|error| error.error)?;
    log.set_len(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_grows_is_cut_while_its_box_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu-1.log");
        let mut writer = File::options().append(true).create(true).open(&path).unwrap();
        writer.write_all(b"a line\n").unwrap();
        cut_log(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a line\n");
        let line = [b"x".repeat(1 << 20), b"\n".to_vec()].concat();
        for _ in 0..20 {
            writer.write_all(&line).unwrap();
            cut_log(&path).unwrap();
        }
        writer.write_all(b"the last line\n").unwrap();
        let old = std::fs::metadata(path.with_extension("log.old")).unwrap().len();
        let new = std::fs::read(&path).unwrap();
        assert!(old <= LOG_BYTES_MAX && old > LOG_BYTES_MAX / 2, "{old}");
        assert!(new.len() < 5 << 20 && new.ends_with(b"\nthe last line\n"), "{}", new.len());
    }
}
