//! The schema of the file, and the steps from each version to the next.
//!
//! Times that age (leases, reports, what is kept for how long) are in the file's time (`time`); when a job was submitted, a run began or a
//! hold ends is by the wall clock.

use rusqlite::Transaction;

/// The version of the schema; a file with a higher one was written by a newer gpuctl.
pub(crate) const SCHEMA_VERSION: i64 = 14;

/// From each version to the next; a file of an older gpuctl is brought up to date when it is opened.
pub(crate) const MIGRATIONS: [&str; 14] = [
    FIRST,
    CAPACITY_AND_COST,
    NOTICES,
    GENERATIONS,
    DEVICES,
    TOTALS,
    CANCELLED,
    REQUESTS,
    PRIORITIES,
    URGENT,
    UNTIL_EMPTY,
    TASKS,
    KEYS,
    GIVE_BACKS,
];

/// Brings a file up to date, from the version that it has.
pub(crate) fn migrate(tx: &Transaction<'_>, found: i64) -> rusqlite::Result<()> {
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        tx.execute_batch(&sql(step))?;
    }
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// A step of `MIGRATIONS` as it is run.
pub(crate) fn sql(step: &str) -> String {
    let state = if step == CANCELLED { STATE } else { STATE_BEFORE_CANCELLED };
    step.replace("{TRIGGERS}", TRIGGERS).replace("{STATE}", state).replace("{ENDED}", ENDED)
}

const FIRST: &str = "
CREATE TABLE queues (name TEXT PRIMARY KEY, receives_max INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, dead INTEGER NOT NULL DEFAULT 0,
  sent_at INTEGER NOT NULL, visible_at INTEGER NOT NULL, receipt TEXT, receive_count INTEGER NOT NULL DEFAULT 0,
  job_id TEXT, attributes TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX messages_by_turn ON messages (queue, dead, visible_at, sent_at);
CREATE INDEX messages_by_receipt ON messages (receipt) WHERE receipt IS NOT NULL;
CREATE INDEX messages_by_job ON messages (job_id) WHERE job_id IS NOT NULL;
CREATE TABLE jobs (
  job_id TEXT PRIMARY KEY, submitted_at INTEGER NOT NULL, job TEXT NOT NULL, result TEXT, succeeded INTEGER) WITHOUT ROWID;
CREATE INDEX jobs_by_time ON jobs (submitted_at);
CREATE TABLE holds (
  pool TEXT PRIMARY KEY, wants_running INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
  by TEXT NOT NULL, why TEXT) WITHOUT ROWID;
CREATE TABLE queue_memory (
  pool TEXT PRIMARY KEY, at INTEGER NOT NULL, visible INTEGER NOT NULL, in_flight INTEGER NOT NULL, delayed INTEGER NOT NULL,
  dead INTEGER NOT NULL, oldest_sent_at INTEGER, empty_since INTEGER) WITHOUT ROWID;
CREATE TABLE runs (
  box TEXT NOT NULL, started_at INTEGER NOT NULL, pool TEXT NOT NULL, ready_at INTEGER, stopping_at INTEGER, stopped_at INTEGER,
  start_rule TEXT NOT NULL, start_text TEXT NOT NULL, stop_rule TEXT, stop_text TEXT, error TEXT,
  PRIMARY KEY (box, started_at)) WITHOUT ROWID;
CREATE INDEX runs_by_pool ON runs (pool, started_at);
CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, repeats INTEGER NOT NULL DEFAULT 0, last_at TEXT, record TEXT NOT NULL);
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1), owner TEXT, number INTEGER NOT NULL, until INTEGER NOT NULL);
INSERT INTO lease VALUES (1, NULL, 0, 0);
CREATE TABLE boxes (
  box TEXT PRIMARY KEY, pool TEXT NOT NULL, token TEXT NOT NULL, started_at INTEGER NOT NULL, stopping_at INTEGER,
  alive_at INTEGER NOT NULL, pid INTEGER) WITHOUT ROWID;
CREATE TABLE reports (
  box TEXT PRIMARY KEY, run_started_at INTEGER NOT NULL, at INTEGER NOT NULL, pid INTEGER, ready_at INTEGER,
  leases INTEGER NOT NULL, idle_since INTEGER, last_error TEXT) WITHOUT ROWID;
";

/// What runs were bought as and were refused, how long jobs take, and how far a hold may go beyond its budget.
const CAPACITY_AND_COST: &str = "
ALTER TABLE runs ADD COLUMN jobs INTEGER;
ALTER TABLE runs ADD COLUMN instance_type TEXT;
ALTER TABLE runs ADD COLUMN zone TEXT;
ALTER TABLE runs ADD COLUMN capacity TEXT;
ALTER TABLE runs ADD COLUMN refusal_class TEXT;
ALTER TABLE runs ADD COLUMN refusal_text TEXT;
ALTER TABLE runs ADD COLUMN interrupted_at INTEGER;
ALTER TABLE reports ADD COLUMN jobs_done INTEGER NOT NULL DEFAULT 0;
ALTER TABLE holds ADD COLUMN over_budget INTEGER;
CREATE TABLE service (box TEXT PRIMARY KEY, mean INTEGER NOT NULL) WITHOUT ROWID;
";

/// Which notices were sent, and when.
const NOTICES: &str = "
CREATE TABLE notices (key TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
";

/// What a job's state is in once it has ended, and goes by its age.
pub(crate) const ENDED: &str = "('succeeded', 'failed', 'cancelled', 'purged', 'expired')";

/// A job's state without the time: `live` is `running` while its lease lasts, else `queued`. Triggers write it in the transaction that
/// changes the job, its message or its result, so it cannot disagree with them.
const STATE: &str = "coalesce(
  (SELECT CASE WHEN succeeded THEN 'succeeded' WHEN json_extract(result, '$.error.code') = 'job.cancelled' THEN 'cancelled' ELSE 'failed' END
   FROM results WHERE results.job_id = jobs.job_id AND results.generation = jobs.generation),
  (SELECT CASE min(messages.dead) WHEN 0 THEN 'live' WHEN 1 THEN 'dead' END FROM messages
   WHERE messages.job_id = jobs.job_id AND messages.generation = jobs.generation),
  CASE WHEN noted_dead THEN 'dead' WHEN expired THEN 'expired' ELSE 'purged' END)";

/// The same before users could cancel jobs.
const STATE_BEFORE_CANCELLED: &str = "coalesce(
  (SELECT CASE succeeded WHEN 0 THEN 'failed' ELSE 'succeeded' END FROM results
   WHERE results.job_id = jobs.job_id AND results.generation = jobs.generation),
  (SELECT CASE min(messages.dead) WHEN 0 THEN 'live' WHEN 1 THEN 'dead' END FROM messages
   WHERE messages.job_id = jobs.job_id AND messages.generation = jobs.generation),
  CASE WHEN noted_dead THEN 'dead' WHEN expired THEN 'expired' ELSE 'purged' END)";

/// What writes a job's state.
const TRIGGERS: &str = "
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
  INSERT INTO message_counts VALUES (new.queue, new.dead = 0, new.dead = 1)
    ON CONFLICT (queue) DO UPDATE SET live = live + excluded.live, dead = dead + excluded.dead;
  UPDATE jobs SET state = {STATE} WHERE job_id = new.job_id;
END;
CREATE TRIGGER message_deleted AFTER DELETE ON messages BEGIN
  UPDATE message_counts SET live = live - (old.dead = 0), dead = dead - (old.dead = 1) WHERE queue = old.queue;
  UPDATE jobs SET state = {STATE} WHERE job_id = old.job_id AND state IN ('live', 'dead');
END;
CREATE TRIGGER message_moved AFTER UPDATE OF dead ON messages WHEN old.dead <> new.dead BEGIN
  UPDATE message_counts SET live = live + (new.dead = 0) - (old.dead = 0), dead = dead + (new.dead = 1) - (old.dead = 1)
    WHERE queue = new.queue;
  UPDATE jobs SET state = {STATE} WHERE job_id = new.job_id;
END;
CREATE TRIGGER job_added AFTER INSERT ON jobs BEGIN
  UPDATE jobs SET state = {STATE} WHERE job_id = new.job_id;
END;
CREATE TRIGGER job_changed AFTER UPDATE OF generation, noted_dead, expired ON jobs BEGIN
  UPDATE jobs SET state = {STATE} WHERE job_id = new.job_id;
END;
CREATE TRIGGER result_added AFTER INSERT ON results BEGIN
  UPDATE jobs SET state = {STATE} WHERE job_id = new.job_id;
END;
";

/// Generations of jobs, reasons of dead ones, fences, the file's time, and indexes for hundreds of thousands of jobs.
const GENERATIONS: &str = "
CREATE TABLE clock (
  one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, base INTEGER NOT NULL, skew INTEGER NOT NULL, seen_at INTEGER NOT NULL,
  swept_at INTEGER NOT NULL DEFAULT 0);
INSERT INTO clock (one, boot, base, skew, seen_at) VALUES (1, '', 0, 0, 0);

ALTER TABLE messages ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN dead_at INTEGER;
ALTER TABLE messages ADD COLUMN reason TEXT;
UPDATE messages SET dead_at = visible_at WHERE dead = 1;
DROP INDEX messages_by_job;
CREATE INDEX messages_by_job ON messages (job_id, generation) WHERE job_id IS NOT NULL;
CREATE INDEX messages_by_age ON messages (queue, dead, sent_at, visible_at);
CREATE INDEX messages_dead ON messages (dead_at) WHERE dead = 1;
CREATE TABLE message_counts (queue TEXT PRIMARY KEY, live INTEGER NOT NULL, dead INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO message_counts SELECT queue, sum(dead = 0), sum(dead = 1) FROM messages GROUP BY queue;

DROP INDEX jobs_by_time;
ALTER TABLE jobs RENAME TO jobs_before;
CREATE TABLE results (
  job_id TEXT NOT NULL, generation INTEGER NOT NULL, succeeded INTEGER NOT NULL, result TEXT NOT NULL, PRIMARY KEY (job_id, generation));
INSERT INTO results SELECT job_id, 0, coalesce(succeeded, 1), result FROM jobs_before WHERE result IS NOT NULL ORDER BY submitted_at;
CREATE TABLE jobs (
  job_id TEXT PRIMARY KEY, submitted_at INTEGER NOT NULL, generation INTEGER NOT NULL, touched_at INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'purged', noted_dead INTEGER NOT NULL DEFAULT 0, expired INTEGER NOT NULL DEFAULT 0, problem TEXT,
  job TEXT NOT NULL);
INSERT INTO jobs (job_id, submitted_at, generation, touched_at, job)
  SELECT job_id, submitted_at, 0, 1000000 * CAST(coalesce(
    CASE WHEN json_valid(result) THEN strftime('%s', json_extract(result, '$.finished_at')) END, strftime('%s')) AS INTEGER), job
  FROM jobs_before ORDER BY submitted_at;
DROP TABLE jobs_before;
UPDATE jobs SET state = {STATE};
CREATE INDEX jobs_by_time ON jobs (submitted_at, job_id);
CREATE INDEX jobs_by_state ON jobs (state, submitted_at, job_id);
CREATE INDEX jobs_noted_dead ON jobs (job_id) WHERE noted_dead;
CREATE INDEX jobs_ended ON jobs (touched_at) WHERE state IN ('succeeded', 'failed', 'purged', 'expired');

{TRIGGERS}
CREATE TRIGGER job_deleted AFTER DELETE ON jobs BEGIN
  DELETE FROM results WHERE job_id = old.job_id;
END;

ALTER TABLE runs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_by_end ON runs (stopped_at);
CREATE INDEX runs_open ON runs (pool, started_at) WHERE stopped_at IS NULL;
ALTER TABLE queue_memory ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
UPDATE records SET at = CAST(strftime('%s', last_at) AS INTEGER) * 1000000 WHERE last_at IS NOT NULL;
ALTER TABLE reports ADD COLUMN fault_code TEXT;
ALTER TABLE reports ADD COLUMN fault_message TEXT;
ALTER TABLE reports ADD COLUMN fault_since INTEGER;
ALTER TABLE reports ADD COLUMN keep_until INTEGER;
ALTER TABLE boxes ADD COLUMN began_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE boxes ADD COLUMN pid_started INTEGER;
ALTER TABLE boxes ADD COLUMN is_command INTEGER NOT NULL DEFAULT 0;
UPDATE boxes SET began_at = started_at;
";

/// How long each job waited for its worker, and indexes that hold all that a report adds up.
const TOTALS: &str = "
ALTER TABLE jobs ADD COLUMN waited INTEGER;
UPDATE jobs SET waited = (SELECT 1000 * CAST(1000 * unixepoch(json_extract(result, '$.received_at'), 'subsec') AS INTEGER) - submitted_at
  FROM results WHERE results.job_id = jobs.job_id AND results.generation = jobs.generation AND json_valid(result));
CREATE INDEX jobs_by_wait ON jobs (submitted_at, waited) WHERE waited IS NOT NULL;
DROP INDEX runs_by_end;
CREATE INDEX runs_by_end ON runs (stopped_at, started_at, ready_at, refusal_class, instance_type, zone, capacity);
";

/// A report for each worker of a box: `device` is empty for the only worker of one.
const DEVICES: &str = "
ALTER TABLE reports RENAME TO reports_before;
CREATE TABLE reports (
  box TEXT NOT NULL, device TEXT NOT NULL, run_started_at INTEGER NOT NULL, at INTEGER NOT NULL, pid INTEGER, ready_at INTEGER,
  leases INTEGER NOT NULL, idle_since INTEGER, last_error TEXT, jobs_done INTEGER NOT NULL, fault_code TEXT, fault_message TEXT,
  fault_since INTEGER, keep_until INTEGER, PRIMARY KEY (box, device)) WITHOUT ROWID;
INSERT INTO reports SELECT box, '', run_started_at, at, pid, ready_at, leases, idle_since, last_error, jobs_done, fault_code, fault_message,
  fault_since, keep_until FROM reports_before;
DROP TABLE reports_before;
";

/// The state of jobs that a user has cancelled. Processes of an older gpuctl that are still up name the index `jobs_ended`, so it stays.
const CANCELLED: &str = "
DROP TRIGGER message_added;
DROP TRIGGER message_deleted;
DROP TRIGGER message_moved;
DROP TRIGGER job_added;
DROP TRIGGER job_changed;
DROP TRIGGER result_added;
{TRIGGERS}
CREATE INDEX jobs_over ON jobs (touched_at) WHERE state IN {ENDED};
";

/// Requests that clients may send again: when each came first, by the wall clock and in the file's time.
const REQUESTS: &str = "
CREATE TABLE requests (request TEXT PRIMARY KEY, first_at INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX requests_by_age ON requests (at);
";

/// Each message's priority (0 is the highest), and how many messages a queue gave out while several priorities waited.
const PRIORITIES: &str = "
ALTER TABLE messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 1;
ALTER TABLE queues ADD COLUMN given_out INTEGER NOT NULL DEFAULT 0;
DROP INDEX messages_by_turn;
CREATE INDEX messages_by_turn ON messages (queue, dead, priority, visible_at, sent_at);
";

/// By when a job is to begin that has a patience of its own, by the wall clock.
const URGENT: &str = "
ALTER TABLE messages ADD COLUMN begin_by INTEGER;
CREATE INDEX messages_urgent ON messages (queue, dead, begin_by) WHERE begin_by IS NOT NULL;
";

/// Whether a hold ends with its queue.
const UNTIL_EMPTY: &str = "
ALTER TABLE holds ADD COLUMN until_empty INTEGER NOT NULL DEFAULT 0;
";

/// An index of jobs by their task, for listings of one task.
const TASKS: &str = "
CREATE INDEX jobs_by_task ON jobs (CASE WHEN json_valid(job) THEN json_extract(job, '$.task') END, submitted_at, job_id);
";

/// Keys of the HTTP API.
const KEYS: &str = "
CREATE TABLE keys (
  name TEXT PRIMARY KEY, digest TEXT NOT NULL, scopes TEXT NOT NULL, created_at INTEGER NOT NULL, revoked_at INTEGER,
  used_at INTEGER) WITHOUT ROWID;
";

/// How often a message was released as if it had not been received.
const GIVE_BACKS: &str = "
ALTER TABLE messages ADD COLUMN give_backs INTEGER NOT NULL DEFAULT 0;
";
