//! A wall clock that steps changes no age: messages stay visible, leases held, workers heard. A boot ends the leases of the one before.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobId, JobState, Urgency};
use gpuctl_control::ports::{
    Cloud, JobQueue, Ledger, NewMessage, ReceiveRequest, Received, WorkerReport,
};
use gpuctl_control::wire::job::job_to_json;
use gpuctl_core::observation::{Hold, HoldWants, WorkerFault};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{QueueName, Timestamp};
use gpuctl_local::{FILE_NAME, LocalCloud, MachineClocks, Store, StoreOptions};
use tempfile::TempDir;

const MINUTE: TimeDelta = TimeDelta::minutes(1);
const POLICY: &str = "[pool.gpu]\nqueue = \"jobs\"\nreceives_max = 9";

/// Clocks that a test moves.
struct Moved(Mutex<(Timestamp, TimeDelta, u32)>);

impl MachineClocks for Moved {
    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    fn monotonic(&self) -> TimeDelta {
        self.0.lock().unwrap().1
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.0.lock().unwrap().2)
    }
}

impl Moved {
    fn pass(&self, span: TimeDelta) {
        let mut clocks = self.0.lock().unwrap();
        clocks.0 += span;
        clocks.1 += span;
    }

    fn step_wall(&self, span: TimeDelta) {
        self.0.lock().unwrap().0 += span;
    }

    /// The machine is off for so long, as its wall clock has it.
    fn boot(&self, off: TimeDelta) {
        let mut clocks = self.0.lock().unwrap();
        clocks.0 += off;
        clocks.1 = TimeDelta::seconds(5);
        clocks.2 += 1;
    }
}

struct Fixture {
    clocks: Arc<Moved>,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let wall = "2026-11-25T12:00:00Z".parse().unwrap();
        let clocks = Arc::new(Moved(Mutex::new((wall, TimeDelta::hours(70), 1))));
        Self { clocks, folder: TempDir::new().unwrap() }
    }

    fn open(&self) -> Store {
        let options = StoreOptions { folder: self.folder.path().to_owned(), file_mib_max: 64 };
        let store = Store::open_with(&options, self.clocks.clone()).unwrap();
        store.configure(&Policy::parse(POLICY).unwrap()).unwrap();
        store
    }
}

fn queue() -> QueueName {
    "jobs".parse().unwrap()
}

fn job(at: Timestamp) -> Job {
    Job {
        id: JobId::new(at),
        queue: queue(),
        task: "vision.ocr".to_owned(),
        model: None,
        input: InputUri::of_text("x").unwrap(),
        params: serde_json::Map::new(),
        submitted_at: at,
        generation: 0,
        urgency: Urgency::default(),
    }
}

fn send(store: &Store, clocks: &Moved, delay: TimeDelta) -> Job {
    let job = job(clocks.wall());
    let message = NewMessage { body: job_to_json(&job), attributes: Vec::new(), delay };
    store.send_now(&queue(), &[message]).unwrap();
    job
}

fn receive(store: &Store) -> Vec<Received> {
    let request = ReceiveRequest { max: 1, visibility: MINUTE, wait: TimeDelta::zero() };
    store.receive_now(&queue(), request).unwrap()
}

async fn state(store: &Store, job: &Job) -> JobState {
    store.job(&job.id).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_step_of_the_wall_clock_neither_hides_a_message_nor_ends_a_lease() {
    for step in [TimeDelta::days(-3), TimeDelta::days(3)] {
        let at = Fixture::new();
        let (store, other) = (at.open(), at.open());
        let held = send(&store, &at.clocks, TimeDelta::zero());
        assert_eq!(receive(&store).len(), 1);
        let waiting = send(&store, &at.clocks, TimeDelta::zero());
        send(&store, &at.clocks, MINUTE * 2);
        at.clocks.step_wall(step);
        let counts = other.counts(&queue()).await.unwrap();
        assert_eq!((counts.visible, counts.in_flight, counts.delayed), (1, 1, 1), "{step}");
        assert_eq!(counts.oldest_sent_at, Some(at.clocks.wall()), "it was sent just now: {step}");
        assert_eq!(state(&other, &held).await, JobState::Running);
        assert_eq!(state(&other, &waiting).await, JobState::Queued);
        assert_eq!(receive(&other).len(), 1);
        assert!(receive(&other).is_empty(), "a lease or a delay has ended: {step}");
        at.clocks.pass(MINUTE * 3);
        let counts = other.counts(&queue()).await.unwrap();
        assert_eq!((counts.visible, counts.in_flight, counts.delayed), (3, 0, 0), "{step}");
    }
}

#[tokio::test]
async fn a_step_of_the_wall_clock_does_not_make_a_busy_worker_look_silent() {
    for step in [TimeDelta::hours(-5), TimeDelta::hours(5)] {
        let at = Fixture::new();
        let store = at.open();
        let started = at.clocks.wall();
        let file = rusqlite::Connection::open(at.folder.path().join(FILE_NAME)).unwrap();
        let began = started.timestamp_micros();
        let sql = "INSERT INTO boxes (box, pool, token, started_at, began_at, alive_at) VALUES ('gpu-1', 'gpu', 't', ?1, ?1, ?1)";
        file.execute(sql, [began]).unwrap();
        at.clocks.pass(MINUTE);
        let now = at.clocks.wall();
        let report = WorkerReport {
            ready_at: Some(now - TimeDelta::seconds(50)),
            leases: 1,
            idle_since: Some(now - TimeDelta::seconds(20)),
            fault: Some(WorkerFault {
                code: "models.missing".to_owned(),
                message: "models are missing".to_owned(),
                since: now - TimeDelta::seconds(30),
            }),
            keep_until: Some(now + MINUTE),
            ..WorkerReport::begin("gpu-1".parse().unwrap(), started, now, 1)
        };
        store.report(&report).await.unwrap();
        at.clocks.pass(TimeDelta::seconds(2));
        at.clocks.step_wall(step);
        let cloud = LocalCloud::new(store.clone(), None);
        let policy = Policy::parse(POLICY).unwrap();
        let mut listing = cloud.boxes(&policy).await.unwrap();
        let seen = listing.pools.pop_first().unwrap().1.remove(0);
        let up_since = seen.up_since();
        let worker = seen.worker.unwrap();
        let (now, seconds) = (at.clocks.wall(), TimeDelta::seconds);
        assert_eq!(seen.run_started_at, Some(started), "the run's key does not change");
        let up = at.clocks.wall() - up_since;
        assert_eq!(up, TimeDelta::seconds(62), "`lifetime_max` counts from its start: {step}");
        assert_eq!(now - worker.heard_at, seconds(2), "{step}");
        assert_eq!(now - worker.idle_since.unwrap(), seconds(22), "{step}");
        let fault = worker.fault.unwrap();
        assert_eq!((fault.code.as_str(), now - fault.since), ("models.missing", seconds(32)));
        assert_eq!(worker.keep_until, report.keep_until, "an instant that a user wrote");
    }
}

#[tokio::test]
async fn a_step_of_the_wall_clock_does_not_end_the_right_to_reconcile() {
    for step in [TimeDelta::hours(-5), TimeDelta::hours(5)] {
        let at = Fixture::new();
        let (store, other) = (at.open(), at.open());
        store.lease("one", MINUTE).await.unwrap().unwrap();
        at.clocks.step_wall(step);
        assert!(other.lease("other", MINUTE).await.unwrap().is_none(), "{step}");
        at.clocks.pass(MINUTE);
        let next = other.lease("other", MINUTE).await.unwrap().unwrap();
        assert_eq!(next.until, at.clocks.wall() + MINUTE, "{step}");
    }
}

#[tokio::test]
async fn a_boot_is_told_by_the_monotonic_clock_where_the_kernel_gives_it_no_name() {
    let at = Fixture::new();
    let store = at.open();
    send(&store, &at.clocks, TimeDelta::zero());
    store.lease("one", MINUTE).await.unwrap().unwrap();
    assert_eq!(receive(&store).len(), 1);
    drop(store);
    at.clocks.boot(MINUTE);
    at.clocks.0.lock().unwrap().2 = 1;
    let counts = at.open().counts(&queue()).await.unwrap();
    assert_eq!((counts.visible, counts.in_flight, counts.delayed), (1, 0, 0));
}

#[tokio::test]
async fn a_boot_ends_leases_and_keeps_ages_and_delays() {
    // Also with a wall clock that was set back meanwhile: then no time has passed.
    for (off, passed) in [(MINUTE, MINUTE), (TimeDelta::days(-400), TimeDelta::zero())] {
        let at = Fixture::new();
        let store = at.open();
        let held = send(&store, &at.clocks, TimeDelta::zero());
        let receipt = receive(&store).remove(0).receipt;
        store.lease("one", TimeDelta::hours(1)).await.unwrap().unwrap();
        send(&store, &at.clocks, MINUTE * 10);
        drop(store);
        at.clocks.boot(off);
        let store = at.open();
        let counts = store.counts(&queue()).await.unwrap();
        assert_eq!((counts.visible, counts.in_flight, counts.delayed), (1, 0, 1), "{off}");
        assert_eq!(counts.oldest_sent_at, Some(at.clocks.wall() - passed), "{off}");
        assert!(store.lease("other", MINUTE).await.unwrap().is_some(), "{off}");
        assert_eq!(state(&store, &held).await, JobState::Queued);
        assert!(store.ack_now(&receipt).is_err(), "a receipt of the boot before");
        at.clocks.pass(MINUTE * 10);
        assert_eq!(store.counts(&queue()).await.unwrap().delayed, 0);
        // The same boot again changes nothing.
        assert_eq!(receive(&store).len(), 1);
        assert_eq!(at.open().counts(&queue()).await.unwrap().in_flight, 1);
    }
}

#[tokio::test]
async fn a_boot_with_a_clock_that_is_far_ahead_makes_nothing_old() {
    let at = Fixture::new();
    let store = at.open();
    let done = job(at.clocks.wall());
    store.submitted(std::slice::from_ref(&done)).await.unwrap();
    send(&store, &at.clocks, MINUTE * 10);
    // Only a worker goes on: what it writes tells how far the file's time had come.
    at.clocks.pass(TimeDelta::days(3));
    let delayed = send(&store, &at.clocks, MINUTE * 10);
    drop(store);
    at.clocks.boot(TimeDelta::days(400));
    let store = at.open();
    store.sweep().unwrap();
    assert_eq!(state(&store, &done).await, JobState::Purged, "it is kept");
    assert_eq!(state(&store, &delayed).await, JobState::Queued);
    assert_eq!(store.counts(&queue()).await.unwrap().delayed, 0, "a day is more than its delay");
    at.clocks.step_wall(TimeDelta::days(-400));
    let oldest = store.counts(&queue()).await.unwrap().oldest_sent_at.unwrap();
    assert_eq!(at.clocks.wall() - oldest, TimeDelta::days(4));
}

#[tokio::test]
async fn a_hold_from_before_the_wall_clock_was_set_back_gives_way_to_a_newer_one() {
    let at = Fixture::new();
    let store = at.open();
    let hold = |wants: HoldWants| Hold {
        pool: "gpu".parse().unwrap(),
        wants,
        since: at.clocks.wall(),
        until: at.clocks.wall() + TimeDelta::hours(2),
        by: "ada".to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    };
    let stop = hold(HoldWants::Stopped);
    store.set_hold(&stop).await.unwrap();
    at.clocks.step_wall(TimeDelta::days(-3));
    let seen = store.memory(&stop.pool).await.unwrap().hold.unwrap();
    assert_eq!((seen.since, seen.until), (at.clocks.wall(), stop.until));
    let start = hold(HoldWants::Running);
    at.clocks.pass(MINUTE);
    let newer = hold(HoldWants::Stopped);
    store.set_hold(&newer).await.unwrap();
    assert_eq!(store.memory(&stop.pool).await.unwrap().hold, Some(newer));
    store.set_hold(&start).await.unwrap_err();
}
