//! What a call costs in a file with many jobs and runs, in steps of SQLite's machine: a step is a row visited or a comparison, and does
//! not depend on how fast this machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gpuctl_control::job::{JobId, JobState};
use gpuctl_control::ports::{JobFilter, JobPage, JobQueue, Ledger, Totals};
use gpuctl_core::period::Period;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use tempfile::TempDir;

use crate::store::{Store, StoreOptions};

/// How many times as many rows the second file has.
const TIMES: i64 = 8;

const JOB: &str = r#"{"version":1,"job_id":"01a200ab-52ac-72da-a503-1913f00238c3","queue":"jobs","task":"vision.ocr","input":"file:///a.png","submitted_at":"2026-11-22T00:00:00+00:00"}"#;

/// A file with this number of jobs of each state, and of runs.
fn filled(rows: i64) -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 256 };
    let store = Store::open(&options).unwrap();
    store.configure(&Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap()).unwrap();
    let result = format!(
        r#"{{"job":{JOB},"output":{{}},"model":null,"device":null,"box":"gpu-1","attempt":1,"received_at":"2026-11-22T00:00:00+00:00","finished_at":"2026-11-22T00:00:00+00:00","inference_microseconds":1}}"#
    );
    let fill = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
         INSERT INTO runs (box, started_at, pool, stopped_at, start_rule, start_text)
           SELECT 'gpu-' || (n % 9), n * 1000000, 'gpu', n * 1000000 + 5, 'demand', 'a job waits' FROM n;
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
         INSERT INTO messages (queue, dead, sent_at, visible_at, receipt, job_id, attributes, body)
           SELECT 'jobs', n % 2, n, iif(n = 3, 1 << 60, n), iif(n = 3, 'r', NULL), printf('00000000-0000-7000-8000-%012d', n), '[]', 'x' FROM n;
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows} * 2)
         INSERT INTO results SELECT printf('00000000-0000-7000-8000-%012d', n), 0, n % 4 > 1, '{result}' FROM n WHERE n > {rows} AND n % 4 > 0;
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows} * 2)
         INSERT INTO jobs (job_id, submitted_at, generation, touched_at, job)
           SELECT printf('00000000-0000-7000-8000-%012d', n), n, 0, n, '{JOB}' FROM n;"
    );
    store.read(|c| c.execute_batch(&fill)).unwrap();
    (store, folder)
}

/// The steps of a call, of which the machine tells every tenth.
async fn steps(store: &Store, call: impl AsyncFnOnce(&Store)) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let counting = count.clone();
    let count_step = move || {
        counting.fetch_add(10, Ordering::Relaxed);
        false
    };
    store.with_connection(|c| c.progress_handler(10, Some(count_step))).unwrap();
    call(store).await;
    store.with_connection(|c| c.progress_handler(0, None::<fn() -> bool>)).unwrap();
    count.load(Ordering::Relaxed)
}

/// What a worker and a controller ask twice a second, and what a user lists.
async fn costs(rows: i64) -> Vec<(&'static str, u64)> {
    let (store, _folder) = filled(rows);
    let pool = "gpu".parse().unwrap();
    let queue = "jobs".parse().unwrap();
    // The month began shortly before the newest run.
    let since = Timestamp::from_timestamp_micros((rows - 20) * 1_000_000).unwrap();
    let memory = async |store: &Store| {
        store.memory(&pool).await.unwrap();
    };
    let runs = async |store: &Store| {
        store.runs_since(since).await.unwrap();
    };
    let counts = async |store: &Store| {
        store.counts(&queue).await.unwrap();
    };
    let id: JobId = "00000000-0000-7000-8000-000000000007".parse().unwrap();
    let job = async |store: &Store| {
        store.job(&id).await.unwrap();
    };
    let mut costs = vec![
        ("memory", steps(&store, memory).await),
        ("runs_since", steps(&store, runs).await),
        ("counts", steps(&store, counts).await),
        ("job", steps(&store, job).await),
    ];
    for state in [None].into_iter().chain(JobState::ALL.map(Some)) {
        let filter = JobFilter { state, limit: 20, since: None };
        let list = async |store: &Store| {
            store.jobs(filter).await.unwrap();
        };
        costs.push((state.map_or("jobs", JobState::as_str), steps(&store, list).await));
        let task = Some("no.such".to_owned());
        let page = JobPage { filter, task, text: None, after: None };
        let list = async |store: &Store| {
            assert!(store.jobs_page(&page).await.unwrap().is_empty());
        };
        costs.push(("jobs of a task", steps(&store, list).await));
    }
    costs
}

/// The indexes alone are read: a step or two for each job and run, and nothing of what they are.
#[tokio::test]
async fn a_report_reads_no_job_and_no_run() {
    let rows = 2_000;
    let (store, _folder) = filled(rows);
    store
        .read(|c| c.execute_batch("UPDATE jobs SET waited = 5 WHERE state = 'succeeded'"))
        .unwrap();
    let [begin, end] =
        [0, rows * 3_000_000].map(|at| Timestamp::from_timestamp_micros(at).unwrap());
    let mut seen = Totals::default();
    let cost = steps(&store, async |store: &Store| {
        seen = store.totals(Period { begin, end }).await.unwrap();
    });
    let cost = cost.await;
    assert_eq!(seen.states.values().sum::<u32>(), 4_000);
    assert_eq!(
        (seen.runs[0].starts, seen.waits.len()),
        (2_000, seen.states[&JobState::Succeeded] as usize)
    );
    assert!(cost < 100_000, "{cost} steps");
    let plans = [
        "jobs INDEXED BY jobs_by_state WHERE state = 'dead'",
        "jobs INDEXED BY jobs_by_wait WHERE waited IS NOT NULL",
    ];
    for from in plans {
        let plan = format!("EXPLAIN QUERY PLAN SELECT count(*) FROM {from} AND submitted_at >= 1");
        let plan: String = store.read(|c| c.query_row(&plan, [], |row| row.get(3))).unwrap();
        assert!(plan.contains("COVERING INDEX"), "{plan}");
    }
}

#[tokio::test]
async fn no_call_costs_more_where_there_are_more_jobs_and_runs() {
    let few = 2_000;
    let (small, large) = (costs(few).await, costs(few * TIMES).await);
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        // Less than one step for each row that was added.
        assert!(large < small + 200, "{name}: {small} steps became {large}");
    }
}
