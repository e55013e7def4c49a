//! Results and acks of this process, written together: those that wait while a transaction is written share the next one.
//!
//! A worker finishes a batch of jobs at once. Each result must be on the disk before its worker goes on, so alone each would wait for the
//! disk by itself. A result and the ack of its message are one write: a power failure keeps both or neither. No timer is involved: a write
//! that comes alone is written at once.

use std::sync::{Mutex, PoisonError};

use gpuctl_control::ports::{Committed, PortError, PortErrorClass, Receipt};
use rusqlite::Transaction;
use tokio::sync::oneshot;

use crate::jobs::{Document, commit};
use crate::queue::{ack, again};
use crate::retention::Writer;
use crate::store::Store;
use crate::time::Now;

/// The most writes in one transaction: others, such as a receive, wait for it.
const GROUP_MAX: usize = 256;

/// What can be written together.
pub(crate) enum Write {
    Commit(Box<Document>, Option<Receipt>),
    Ack(Receipt),
}

/// Of each whether its result was written, and whether the message of its lease was deleted.
type Outcomes = Vec<Result<Outcome, PortError>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) is_written: bool,
    pub(crate) is_acked: bool,
}

/// The writes that wait.
#[derive(Default)]
pub(crate) struct Group(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    calls: Vec<Call>,
    /// A thread writes them, and looks for more before it ends.
    is_led: bool,
}

struct Call {
    writes: Vec<Write>,
    reply: oneshot::Sender<Outcomes>,
}

impl Store {
    /// Writes all of these, together with what others of this process write at the same time; one that fails keeps none of the others.
    pub(crate) async fn write_together(&self, writes: Vec<Write>) -> Outcomes {
        let count = writes.len();
        let (reply, outcomes) = oneshot::channel();
        if self.group.join(Call { writes, reply }) {
            let store = self.clone();
            tokio::task::spawn_blocking(move || store.lead());
        }
        outcomes.await.unwrap_or_else(|_| {
            let what = "a write to the queue file panicked";
            (0..count).map(|_| Err(PortError::new(PortErrorClass::Other, what))).collect()
        })
    }

    /// Writes what waits, until nothing does.
    fn lead(&self) {
        let mut lead = Lead { group: &self.group, is_over: false };
        while let Some(calls) = lead.next() {
            let writes: Vec<&Write> = calls.iter().flat_map(|call| &call.writes).collect();
            let mut outcomes = self.write_all(&writes).into_iter();
            for Call { writes, reply } in calls {
                // Where the caller has gone meanwhile no one wants to know.
                let _ = reply.send(outcomes.by_ref().take(writes.len()).collect());
            }
        }
    }

    /// Writes all of these, and waits until the results are on the disk. A wait that fails undoes no transaction, so nothing is written
    /// again: those whose result may not be on the disk are told.
    fn write_all(&self, writes: &[&Write]) -> Outcomes {
        let mut outcomes = self.transact_all(writes);
        // An ack that a power failure undoes is done again: the next receive finds the result.
        let results = writes.iter().zip(&mut outcomes).filter(|(write, _)| write.is_result());
        let written: Vec<&mut Result<Outcome, PortError>> =
            results.map(|(_, outcome)| outcome).filter(|outcome| outcome.is_ok()).collect();
        if !written.is_empty()
            && let Err(error) = self.wait_for_disk()
        {
            written.into_iter().for_each(|outcome| *outcome = Err(again(&error)));
        }
        outcomes
    }

    /// All in one transaction; where that fails each in its own, so that one that cannot be written does not keep the others. From where
    /// another process has the file none is tried: each would wait as long as the first.
    fn transact_all(&self, writes: &[&Write]) -> Outcomes {
        let now = self.now();
        let all = |tx: &Transaction<'_>| {
            writes.iter().map(|write| write.apply(tx, now)).collect::<rusqlite::Result<Vec<_>>>()
        };
        let together = match writes.iter().any(|write| write.is_result()) {
            true => self.write_where_room(Writer::Commit, all),
            false => self.write(all),
        };
        match together {
            Ok(written) => written.into_iter().map(Ok).collect(),
            Err(error) if writes.len() == 1 => vec![Err(self.or_too_large(error, writes[0]))],
            Err(error) => self.transact_each(error, writes),
        }
    }

    fn transact_each(&self, error: PortError, writes: &[&Write]) -> Outcomes {
        let mut outcomes: Outcomes = vec![Err(error)];
        for write in writes {
            match outcomes.last() {
                Some(Err(error)) if error.class == PortErrorClass::Unavailable => {
                    outcomes.push(Err(again(error)));
                }
                _ => outcomes.extend(self.transact_all(&[write])),
            }
        }
        // The first is that of all together.
        outcomes.split_off(1)
    }

    /// The error, where no room will ever be enough as one that says so.
    fn or_too_large(&self, error: PortError, write: &Write) -> PortError {
        match write {
            Write::Commit(result, _)
                if error.class == PortErrorClass::Full && self.is_too_large(result.bytes()) =>
            {
                PortError { class: PortErrorClass::TooLarge, ..error }
            }
            _ => error,
        }
    }
}

impl Write {
    fn is_result(&self) -> bool {
        matches!(self, Self::Commit(..))
    }

    fn apply(&self, tx: &Transaction<'_>, now: Now) -> rusqlite::Result<Outcome> {
        let (is_written, receipt) = match self {
            Self::Commit(result, receipt) => {
                let is_written = commit(tx, now, result)? == Committed::Written;
                (is_written, receipt.as_ref().filter(|_| is_written))
            }
            Self::Ack(receipt) => (false, Some(receipt)),
        };
        let is_acked = receipt.map(|receipt| ack(tx, receipt)).transpose()?;
        Ok(Outcome { is_written, is_acked: is_acked.unwrap_or_default() })
    }
}

impl Group {
    /// Whether the caller has to have it led.
    fn join(&self, call: Call) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.calls.push(call);
        !std::mem::replace(&mut waiting.is_led, true)
    }
}

/// The one thread that writes. Where it panics, those that wait are told, and the next call starts another.
struct Lead<'a> {
    group: &'a Group,
    is_over: bool,
}

impl Lead<'_> {
    fn next(&mut self) -> Option<Vec<Call>> {
        let mut waiting = self.group.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has given up asks again, with the same write.
        waiting.calls.retain(|call| !call.reply.is_closed());
        let mut count = 0;
        let fits = waiting.calls.iter().take_while(|call| {
            count += call.writes.len();
            count <= GROUP_MAX
        });
        let taken = fits.count().max(1).min(waiting.calls.len());
        if taken == 0 {
            waiting.is_led = false;
            self.is_over = true;
            return None;
        }
        Some(waiting.calls.drain(..taken).collect())
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.group.0.lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = Waiting::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use gpuctl_control::job::{Job, JobResult};
    use gpuctl_control::ports::{Ended, JobQueue, Ledger, NewMessage, ReceiveRequest, Received};
    use gpuctl_control::wire::job::{job_from_json, job_to_json};
    use gpuctl_core::policy::Policy;
    use gpuctl_core::units::QueueName;

    use super::*;
    use crate::store::tests::{JOB, result_of};
    use crate::{FILE_NAME, StoreOptions};

    const JOBS: usize = 40;

    fn store(folder: &std::path::Path) -> Store {
        store_of(folder, 64)
    }

    fn store_of(folder: &std::path::Path, file_mib_max: u32) -> Store {
        let options = StoreOptions { folder: folder.to_owned(), file_mib_max };
        let store = Store::open(&options).unwrap();
        store.configure(&Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap()).unwrap();
        store
    }

    fn queue() -> QueueName {
        "jobs".parse().unwrap()
    }

    fn job(number: usize) -> Job {
        job_from_json(&JOB.replace("1913f00238c3", &format!("{number:012}"))).unwrap()
    }

    async fn received(store: &Store, jobs: u32) -> Vec<Received> {
        let zero = chrono::TimeDelta::zero();
        for number in 0..jobs as usize {
            let body = job_to_json(&job(number));
            let message = NewMessage { body, attributes: vec![], delay: zero };
            store.send(&queue(), &[message]).await.unwrap();
        }
        let visibility = chrono::TimeDelta::minutes(1);
        store.receive(&queue(), ReceiveRequest { max: jobs, visibility, wait: zero }).await.unwrap()
    }

    fn commits(store: &Store) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        store.with_connection(|connection| {
            let hook = move || {
                counted.fetch_add(1, Ordering::Relaxed);
                false
            };
            connection.commit_hook(Some(hook)).unwrap();
        });
        count
    }

    #[tokio::test]
    async fn results_that_come_at_once_share_a_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        // What is too old is looked for by transactions of their own.
        store.sweep_at.store(i64::MAX, Ordering::Relaxed);
        let count = commits(&store);
        let held = store.hold_back();
        let mut calls = Vec::new();
        for number in 0..JOBS {
            let store = store.clone();
            calls
                .push(tokio::spawn(async move { store.commit_one(&result_of(job(number))).await }));
        }
        // All of them wait before the file is free; how many the writing thread has taken by then differs.
        for _ in 0..JOBS {
            tokio::task::yield_now().await;
        }
        drop(held);
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), Committed::Written);
        }
        assert!(count.load(Ordering::Relaxed) <= 3, "{count:?} transactions");
    }

    #[tokio::test]
    async fn a_result_and_the_ack_of_its_message_are_one_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.sweep_at.store(i64::MAX, Ordering::Relaxed);
        let held = received(&store, 1).await;
        let count = commits(&store);
        let ended = store.commit_and_ack_one(&result_of(job(0)), &held[0].receipt).await.unwrap();
        assert_eq!(ended, Ended { committed: Committed::Written, is_acked: true });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_job_and_a_result_wait_for_the_disk_and_a_receive_and_an_ack_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.sweep_at.store(i64::MAX, Ordering::Relaxed);
        let before = store.waits();
        let held = received(&store, 1).await;
        assert_eq!(store.waits() - before, 1);
        store.commit_one(&result_of(job(0))).await.unwrap();
        assert_eq!(store.waits() - before, 2);
        store.ack_one(&held[0].receipt).await.unwrap();
        assert_eq!(store.waits() - before, 2);
        let held = received(&store, 2).await;
        assert_eq!(store.waits() - before, 4);
        store.commit_and_ack_one(&result_of(job(1)), &held[0].receipt).await.unwrap();
        assert_eq!(store.waits() - before, 5);
    }

    #[tokio::test]
    async fn after_a_failed_wait_nothing_is_durable_until_a_checkpoint_has_written_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.sweep_at.store(i64::MAX, Ordering::Relaxed);
        let held = received(&store, 3).await;
        let end = async |numbers: std::ops::Range<usize>| {
            let of = |n: usize| (result_of(job(n)), held[n].receipt.clone());
            store.commit_and_ack(&numbers.map(of).collect::<Vec<_>>()).await
        };
        let log = folder.path().join("gpuctl.db-wal");
        let log_bytes = || std::fs::metadata(&log).unwrap().len();
        // Who still reads what was there before keeps a checkpoint from emptying the log.
        let mut reader = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
        let read = reader.transaction().unwrap();
        read.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).unwrap();
        store
            .with_connection(|connection| connection.busy_timeout(std::time::Duration::ZERO))
            .unwrap();
        let count = commits(&store);
        store.fail_next_wait();
        // What is written again now is on the disk no more than what was written before.
        for (numbers, transactions) in [(0..2, 1), (0..2, 2), (2..3, 3)] {
            for ended in end(numbers.clone()).await {
                let error = ended.unwrap_err();
                assert!(error.what.contains("was written, but"), "{error}");
            }
            assert_eq!(count.load(Ordering::Relaxed), transactions, "{numbers:?}");
        }
        assert!(store.send_now(&queue(), &[]).is_err());
        drop(read);
        for ended in end(0..3).await {
            assert_eq!(ended.unwrap().committed, Committed::AlreadyThere);
        }
        assert_eq!(log_bytes(), 0, "all is in the file itself");
        assert!(store.counts(&queue()).await.unwrap().is_empty(), "each message was acked");
        // Where a checkpoint is possible at once no one is told.
        store.fail_next_wait();
        store.commit_one(&result_of(job(7))).await.unwrap();
        assert_eq!(log_bytes(), 0);
    }

    #[tokio::test]
    async fn an_ack_does_not_fail_with_the_wait_for_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.sweep_at.store(i64::MAX, Ordering::Relaxed);
        let held = received(&store, 1).await;
        let mut reader = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
        let read = reader.transaction().unwrap();
        read.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).unwrap();
        store
            .with_connection(|connection| connection.busy_timeout(std::time::Duration::ZERO))
            .unwrap();
        store.fail_next_wait();
        let result = Box::new(Document::of(&result_of(job(1))));
        let writes = vec![Write::Commit(result, None), Write::Ack(held[0].receipt.clone())];
        let outcomes = store.write_together(writes).await;
        assert!(outcomes[0].is_err() && outcomes[1].as_ref().is_ok_and(|ack| ack.is_acked));
    }

    /// What a power failure leaves is a beginning of the log: of each, also of one that ends within a page.
    #[tokio::test]
    async fn wherever_the_log_ends_each_job_has_its_result_or_its_message() {
        const FRAME_BYTES: usize = 4_096 + 24;
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.sweep_at.store(i64::MAX, Ordering::Relaxed);
        let jobs = 6;
        let held = received(&store, jobs).await;
        let emptied: bool = store
            .read(|c| c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)))
            .map(|is_busy: bool| !is_busy)
            .unwrap();
        assert!(emptied);
        for held in &held {
            let job = job_from_json(&held.body).unwrap();
            store.commit_and_ack_one(&result_of(job), &held.receipt).await.unwrap();
        }
        let file = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
        let log = std::fs::read(folder.path().join("gpuctl.db-wal")).unwrap();
        let cut = tempfile::tempdir().unwrap();
        let results = |end: usize| {
            let at = cut.path().join(end.to_string());
            std::fs::write(&at, &file).unwrap();
            std::fs::write(cut.path().join(format!("{end}-wal")), &log[..end]).unwrap();
            let of_each =
                "SELECT EXISTS (SELECT 1 FROM results WHERE results.job_id = jobs.job_id),
                EXISTS (SELECT 1 FROM messages WHERE messages.job_id = jobs.job_id) FROM jobs";
            let connection = rusqlite::Connection::open(&at).unwrap();
            let mut rows = connection.prepare(of_each).unwrap();
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let rows: Vec<(bool, bool)> = rows.collect::<Result<_, _>>().unwrap();
            assert_eq!(rows.len(), jobs as usize);
            assert!(rows.iter().all(|(result, message)| result != message), "{end}: {rows:?}");
            rows.iter().filter(|(result, _)| *result).count()
        };
        let mut seen = vec![results(0)];
        for frame in (32..log.len()).step_by(FRAME_BYTES) {
            seen.push(results(frame + FRAME_BYTES / 2));
            seen.push(results(frame + FRAME_BYTES));
        }
        assert!(seen.is_sorted(), "{seen:?}");
        seen.dedup();
        assert_eq!(seen, Vec::from_iter(0..=jobs as usize), "one after the other");
    }

    #[tokio::test]
    async fn a_result_that_cannot_be_written_keeps_none_of_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_of(folder.path(), 1);
        store.sweep_at.store(i64::MAX, Ordering::Relaxed);
        let held = received(&store, 3).await;
        let waits = store.waits();
        let write = |number: usize, text_bytes: usize| {
            let text = serde_json::json!({ "text": "x".repeat(text_bytes) });
            let result = JobResult { outcome: Ok(text), ..result_of(job(number)) };
            Write::Commit(Box::new(Document::of(&result)), Some(held[number].receipt.clone()))
        };
        let ack = Write::Ack(held[1].receipt.clone());
        let void = Write::Ack(Receipt("gone".to_owned()));
        let large = 2 << 20;
        let writes = vec![write(0, large), write(0, 10), ack, void, write(1, large), write(2, 10)];
        let outcomes = store.write_together(writes).await;
        let told = |one: Result<Outcome, PortError>| match one {
            Ok(Outcome { is_written, is_acked }) => Ok((is_written, is_acked)),
            Err(error) => Err(error.class),
        };
        let outcomes: Vec<_> = outcomes.into_iter().map(told).collect();
        let (done, too_large) = (Ok((true, true)), Err(PortErrorClass::TooLarge));
        let wanted = [too_large, done, Ok((false, true)), Ok((false, false)), too_large, done];
        assert_eq!(outcomes, wanted);
        assert_eq!(store.waits() - waits, 1, "for all of them");
        assert!(store.counts(&queue()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn while_another_process_has_the_file_a_group_waits_once() {
        static LOOKS: AtomicUsize = AtomicUsize::new(0);
        fn give_up(_: i32) -> bool {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            false
        }
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let other = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        store.with_connection(|connection| connection.busy_handler(Some(give_up))).unwrap();
        let results: Vec<_> = (0..3).map(|number| result_of(job(number))).collect();
        for written in store.commit(&results).await {
            assert_eq!(written.unwrap_err().class, PortErrorClass::Unavailable);
        }
        assert_eq!(LOOKS.load(Ordering::Relaxed), 1);
        other.execute_batch("ROLLBACK").unwrap();
        assert!(store.commit(&results).await.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn what_no_one_waits_for_any_more_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let commit = |number: usize| {
            let store = store.clone();
            tokio::spawn(async move { store.commit_one(&result_of(job(number))).await })
        };
        let wait_until = async |waiting: usize, is_led: bool| {
            let is = |group: &Waiting| group.calls.len() == waiting && group.is_led == is_led;
            let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while !is(&store.group.0.lock().unwrap()) {
                assert!(std::time::Instant::now() < until, "{waiting} calls do not wait");
                tokio::task::yield_now().await;
            }
        };
        let held = store.hold_back();
        let first = commit(0);
        wait_until(0, true).await;
        let gone: Vec<_> = (1..4).map(commit).collect();
        wait_until(3, true).await;
        gone.iter().for_each(tokio::task::JoinHandle::abort);
        for call in gone {
            assert!(call.await.unwrap_err().is_cancelled());
        }
        let last = commit(4);
        wait_until(4, true).await;
        drop(held);
        assert!(first.await.unwrap().is_ok() && last.await.unwrap().is_ok());
        let count = "SELECT count(*) FROM results";
        let results = store.read(|c| c.query_row(count, [], |row| row.get::<_, i64>(0))).unwrap();
        assert_eq!(results, 2);
    }

    #[tokio::test]
    async fn each_ack_is_told_by_itself_whether_its_lease_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let held = received(&store, 2).await;
        let receipts =
            [held[0].receipt.clone(), Receipt("gone".to_owned()), held[1].receipt.clone()];
        let acked: Vec<bool> = store.ack(&receipts).await.iter().map(Result::is_ok).collect();
        assert_eq!(acked, [true, false, true]);
    }
}
