//! The file never fills up by itself: what has ended goes by age and where there is no room, and what waits or runs stays.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobFailure, JobId, JobResult, JobState, Urgency};
use gpuctl_control::ports::{
    AttemptName, Fence, FileStore, JobProblem, JobQueue, Ledger, NewMessage, PortError,
    PortErrorClass, Purge, ReceiveRequest, Received, ResultFile, Upload,
};
use gpuctl_control::wire::job::{job_from_json, job_to_json};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::Run;
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{QueueName, Timestamp};
use gpuctl_local::{FILE_NAME, KernelClocks, LocalFiles, MachineClocks, Store, StoreOptions};
use tempfile::TempDir;

/// The kernel's clocks, some time later.
#[derive(Default)]
struct Later(Mutex<TimeDelta>);

impl MachineClocks for Later {
    fn wall(&self) -> Timestamp {
        KernelClocks.wall() + *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> TimeDelta {
        KernelClocks.monotonic() + *self.0.lock().unwrap()
    }

    fn boot_id(&self) -> String {
        "the same".to_owned()
    }
}

struct Fixture {
    store: Store,
    clocks: Arc<Later>,
    folder: TempDir,
}

impl Fixture {
    fn new(cloud: &str, file_mib_max: u32) -> Self {
        let folder = TempDir::new().unwrap();
        let clocks = Arc::new(Later::default());
        let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max };
        let store = Store::open_with(&options, clocks.clone()).unwrap();
        let policy = format!("[cloud]\n{cloud}\n[pool.gpu]\nqueue = \"jobs\"\nreceives_max = 1");
        store.configure(&Policy::parse(&policy).unwrap()).unwrap();
        Self { store, clocks, folder }
    }

    fn pass(&self, span: TimeDelta) {
        *self.clocks.0.lock().unwrap() += span;
    }

    fn job(&self) -> Job {
        let at = self.clocks.wall();
        Job {
            id: JobId::new(at),
            queue: queue(),
            task: "text.classify".to_owned(),
            model: None,
            input: InputUri::of_text("some text").unwrap(),
            params: serde_json::Map::new(),
            submitted_at: at,
            generation: 0,
            urgency: Urgency::default(),
        }
    }

    fn send(&self, job: &Job) -> Result<(), PortError> {
        let delay = TimeDelta::zero();
        let message = NewMessage { body: job_to_json(job), attributes: Vec::new(), delay };
        self.store.send_now(&queue(), &[message])
    }

    async fn submit(&self, job: &Job) -> Result<(), PortError> {
        self.send(job)?;
        self.store.submitted(std::slice::from_ref(job)).await
    }

    /// Submits until the file takes no more; how many it took, and the refusal.
    async fn fill(&self) -> (u64, PortError) {
        let mut sent = 0;
        loop {
            match self.submit(&self.job()).await {
                Ok(()) => sent += 1,
                Err(error) => return (sent, error),
            }
        }
    }

    fn receive(&self) -> Vec<Received> {
        let request =
            ReceiveRequest { max: 10, visibility: TimeDelta::days(90), wait: TimeDelta::zero() };
        self.store.receive_now(&queue(), request).unwrap()
    }

    fn result(&self, job: &Job, text_bytes: usize) -> JobResult {
        let at = self.clocks.wall();
        JobResult {
            job: job.clone(),
            outcome: Ok(serde_json::json!({ "text": "x".repeat(text_bytes) })),
            model: None,
            device: None,
            box_id: "gpu-1".parse().unwrap(),
            attempt: 1,
            received_at: at,
            finished_at: at,
            inference: TimeDelta::zero(),
            worked: None,
        }
    }

    async fn note_dead(&self, job: &Job) {
        let failure = JobFailure { code: "x".into(), message: "y".into(), hint: None };
        let (box_id, at) = ("gpu-1".parse().unwrap(), self.clocks.wall());
        let problem = JobProblem { job: job.clone(), failure, box_id, at, dead: true };
        self.store.note_problem(&problem).await.unwrap();
    }

    async fn state(&self, job: &Job) -> Option<JobState> {
        self.store.job(&job.id).await.unwrap().map(|entry| entry.state)
    }

    /// Lets a reconcile be recorded, and deletes what is too old: also where a thread of an earlier call has only just done so.
    async fn record(&self, error: &str) {
        self.only_record(error).await;
        self.pass(TimeDelta::minutes(11));
        self.store.sweep().unwrap();
    }

    async fn only_record(&self, error: &str) {
        let record = Record {
            at: "2026-11-21T12:00:00.000Z".to_owned(),
            trigger: "tick".to_owned(),
            by: "test".to_owned(),
            pools: Vec::new(),
            errors: vec![error.to_owned()],
        };
        let fence = Fence { owner: "test".to_owned(), number: 1, until: self.clocks.wall() };
        self.store.record(&record, &fence).await.unwrap();
    }

    fn rows(&self, sql: &str) -> i64 {
        let file = rusqlite::Connection::open(self.folder.path().join(FILE_NAME)).unwrap();
        file.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn queue() -> QueueName {
    "jobs".parse().unwrap()
}

/// How old a result is before it may be deleted for room.
const KEPT_MIN: TimeDelta = TimeDelta::minutes(61);

#[tokio::test]
async fn a_small_file_takes_thousands_of_jobs_one_after_another() {
    for text_bytes in [20, 1_500, 6_000, 60_000] {
        let at = Fixture::new("", 1);
        let waiting = at.job();
        at.submit(&waiting).await.unwrap();
        assert_eq!(at.receive().len(), 1, "it is held throughout");
        let jobs = if text_bytes == 20 { 2_000 } else { 300 };
        let mut last = waiting.clone();
        for _ in 0..jobs / 10 {
            for _ in 0..10 {
                at.submit(&at.job()).await.unwrap();
            }
            for held in at.receive() {
                last = job_from_json(&held.body).unwrap();
                at.store.commit_one(&at.result(&last, text_bytes)).await.unwrap();
                at.store.ack_now(&held.receipt).unwrap();
            }
            at.pass(KEPT_MIN);
        }
        assert_eq!(at.state(&waiting).await, Some(JobState::Running), "{text_bytes}");
        assert_eq!(at.state(&last).await, Some(JobState::Succeeded), "{text_bytes}");
        let kept = at.rows("SELECT count(*) FROM results");
        assert!((2..jobs).contains(&kept), "{kept} results of {text_bytes} bytes are kept");
        assert_eq!(at.rows("SELECT count(*) FROM jobs"), kept + 1);
    }
}

#[tokio::test]
async fn a_file_full_of_waiting_jobs_takes_no_more_and_still_takes_their_results() {
    let at = Fixture::new("", 1);
    let (sent, error) = at.fill().await;
    assert_eq!(error.class, PortErrorClass::Full);
    assert!(error.what.contains(&format!("% full: {sent} jobs wait or run")), "{}", error.what);
    let hint = error.hint.unwrap();
    assert!(hint.contains("jobs delete --before") && hint.contains("purge POOL"), "{hint}");
    assert!(sent > 200, "{sent}");
    let counts = at.store.counts(&queue()).await.unwrap();
    assert_eq!(counts.visible, sent, "what was taken is there");
    let mut done = 0;
    loop {
        let held = at.receive();
        if held.is_empty() {
            break;
        }
        for held in held {
            let job = job_from_json(&held.body).unwrap();
            at.store.commit_one(&at.result(&job, 300)).await.unwrap();
            at.store.ack_now(&held.receipt).unwrap();
            done += 1;
        }
        at.pass(TimeDelta::minutes(5));
    }
    assert_eq!(done, sent);
    at.pass(KEPT_MIN);
    at.submit(&at.job()).await.unwrap();
}

#[tokio::test]
async fn a_new_result_is_not_deleted_for_room() {
    let at = Fixture::new("", 1);
    let done = at.job();
    at.submit(&done).await.unwrap();
    at.store.commit_one(&at.result(&done, 2_000)).await.unwrap();
    at.store.ack_now(&at.receive()[0].receipt).unwrap();
    let (sent, _) = at.fill().await;
    assert_eq!(at.state(&done).await, Some(JobState::Succeeded), "{sent} jobs came after it");
    // Results go on until little is left for runs and records; none of them replaces another.
    let mut kept = 1;
    let error = loop {
        match at.store.commit_one(&at.result(&at.job(), 2_000)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.class, PortErrorClass::Full);
    assert_eq!(at.rows("SELECT count(*) FROM results"), kept);
    at.record("what else is written has its share").await;
    at.pass(KEPT_MIN);
    at.store.commit_one(&at.result(&at.job(), 2_000)).await.unwrap();
    assert_eq!(at.state(&done).await, None, "the oldest goes first");
}

#[tokio::test]
async fn a_result_that_does_not_fit_now_is_told_from_one_that_never_will() {
    let at = Fixture::new("", 1);
    at.fill().await;
    at.store.commit_one(&at.result(&at.job(), 200_000)).await.unwrap();
    for (bytes, class) in [
        (200_000, PortErrorClass::Full),
        (300_000, PortErrorClass::TooLarge),
        (3_000_000, PortErrorClass::TooLarge),
    ] {
        let error = at.store.commit_one(&at.result(&at.job(), bytes)).await.unwrap_err();
        assert_eq!(error.class, class, "{bytes}: {error}");
    }
    at.store.commit_one(&at.result(&at.job(), 300)).await.unwrap();
}

#[tokio::test]
async fn purged_jobs_make_room_at_once() {
    let at = Fixture::new("", 1);
    let (sent, _) = at.fill().await;
    at.store.purge(&queue(), Purge::Live).await.unwrap();
    let (again, _) = at.fill().await;
    assert!(again > sent / 10 * 9, "{again} of {sent}");
}

#[tokio::test]
async fn dead_and_purged_jobs_do_not_fill_the_file_either() {
    let at = Fixture::new("", 1);
    for round in 0..150 {
        let mut job = at.job();
        job.input = InputUri::of_text(&"y".repeat(20_000)).unwrap();
        at.submit(&job).await.unwrap();
        at.pass(TimeDelta::minutes(3));
        if round % 2 == 0 {
            at.store.purge(&queue(), Purge::Live).await.unwrap();
        } else {
            let held = at.receive().remove(0);
            at.store.bury(&queue(), &held, "it cannot be read").await.unwrap();
        }
    }
    assert!(at.store.counts(&queue()).await.unwrap().dead > 0);
}

#[tokio::test]
async fn a_record_has_what_is_too_old_deleted_in_the_background() {
    let at = Fixture::new("jobs_kept = \"1d\"", 64);
    let done = at.job();
    at.store.commit_one(&at.result(&done, 10)).await.unwrap();
    at.store.sweep().unwrap();
    at.pass(TimeDelta::days(2));
    at.only_record("one").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while at.state(&done).await.is_some() {
        assert!(Instant::now() < deadline, "nothing was deleted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_has_ended_goes_by_its_age_and_what_waits_stays() {
    let at = Fixture::new("jobs_kept = \"10d\"\ndead_letters_kept = \"4d\"", 64);
    let (done, buried, noted) = (at.job(), at.job(), at.job());
    at.submit(&done).await.unwrap();
    at.store.ack_now(&at.receive()[0].receipt).unwrap();
    at.store.commit_one(&at.result(&done, 10)).await.unwrap();
    at.submit(&buried).await.unwrap();
    let held = at.receive().remove(0);
    at.store.bury(&queue(), &held, "it cannot be read").await.unwrap();
    at.note_dead(&noted).await;
    let waiting = at.job();
    at.submit(&waiting).await.unwrap();
    let reason = Reason::new(Rule::Demand, "1 job waits");
    let begun =
        Run::begin("gpu".parse().unwrap(), "gpu-1".parse().unwrap(), at.clocks.wall(), reason);
    let open = Run { box_id: "gpu-2".parse().unwrap(), ..begun.clone() };
    let ended = Run { stopped_at: Some(begun.started_at), ..begun };
    for run in [&open, &ended] {
        at.store.save_run(run, None).await.unwrap();
    }
    at.record("first").await;
    let states = async || {
        [
            at.state(&done).await,
            at.state(&buried).await,
            at.state(&noted).await,
            at.state(&waiting).await,
        ]
    };
    use JobState::{Dead, Expired, Queued, Succeeded};
    assert_eq!(states().await, [Some(Succeeded), Some(Dead), Some(Dead), Some(Queued)]);
    at.pass(TimeDelta::days(5));
    at.record("second").await;
    assert_eq!(states().await, [Some(Succeeded), Some(Expired), Some(Expired), Some(Queued)]);
    assert_eq!(at.store.counts(&queue()).await.unwrap().dead, 0);
    at.pass(TimeDelta::days(6));
    at.record("third").await;
    assert_eq!(states().await, [None, Some(Expired), Some(Expired), Some(Queued)]);
    assert_eq!(
        (at.rows("SELECT count(*) FROM results"), at.rows("SELECT count(*) FROM records")),
        (0, 3)
    );
    at.pass(TimeDelta::days(29));
    at.record("fourth").await;
    assert_eq!(states().await, [None, None, None, Some(Queued)]);
    assert_eq!(at.rows("SELECT count(*) FROM records"), 2, "the third and the fourth");
    assert_eq!(at.store.memory(&"gpu".parse().unwrap()).await.unwrap().runs.len(), 2);
    at.pass(TimeDelta::days(400));
    at.record("fifth").await;
    let runs = at.store.memory(&open.pool).await.unwrap().runs;
    assert_eq!(runs.iter().map(|run| &run.box_id).collect::<Vec<_>>(), [&open.box_id]);
    assert_eq!(at.state(&waiting).await, Some(Queued));
}

#[tokio::test]
async fn a_job_that_expires_or_is_purged_is_kept_from_then_on() {
    let at = Fixture::new("jobs_kept = \"2d\"\ndead_letters_kept = \"4d\"", 64);
    let (buried, noted, purged) = (at.job(), at.job(), at.job());
    at.submit(&buried).await.unwrap();
    let held = at.receive().remove(0);
    at.submit(&noted).await.unwrap();
    at.store.ack_now(&at.receive()[0].receipt).unwrap();
    at.submit(&purged).await.unwrap();
    at.pass(TimeDelta::days(3));
    at.store.bury(&queue(), &held, "it cannot be read").await.unwrap();
    at.note_dead(&noted).await;
    at.store.purge(&queue(), Purge::Live).await.unwrap();
    at.pass(TimeDelta::days(1));
    at.record("first").await;
    let states =
        async || [at.state(&buried).await, at.state(&noted).await, at.state(&purged).await];
    use JobState::{Dead, Expired, Purged};
    assert_eq!(states().await, [Some(Dead), Some(Dead), Some(Purged)]);
    at.pass(TimeDelta::days(3) + KEPT_MIN);
    at.record("second").await;
    assert_eq!(states().await, [Some(Expired), Some(Expired), None]);
    at.pass(TimeDelta::days(1));
    at.record("third").await;
    assert_eq!(states().await, [Some(Expired), Some(Expired), None]);
    at.pass(TimeDelta::days(1) + KEPT_MIN);
    at.record("fourth").await;
    assert_eq!(states().await, [None, None, None]);
}

#[tokio::test]
async fn results_files_go_oldest_first_and_those_that_no_result_names_after_a_day() {
    let at = Fixture::new("results_mib_max = 1", 64);
    let files = LocalFiles::new(at.folder.path(), Vec::new());
    let folder = |job: &Job| at.folder.path().join("results").join(job.id.as_str());
    let attempt = |second: i64| {
        AttemptName::new(
            0,
            &"gpu-1".parse().unwrap(),
            Timestamp::from_timestamp(second, 0).unwrap(),
        )
    };
    let keep = async |job: &Job, attempt: &AttemptName| {
        let bytes = &vec![0; 450_000];
        let file = ResultFile { job: &job.id, attempt, name: "speech.wav", bytes };
        files.keep(&file).await.unwrap()
    };
    let done = async |job: &Job| {
        let uri = keep(job, &attempt(2)).await;
        let output = serde_json::json!({ "files": [{ "uri": uri }] });
        at.store.commit_one(&JobResult { outcome: Ok(output), ..at.result(job, 0) }).await.unwrap();
    };
    // The job with the latest id ends first: what counts is when a job ended.
    let (second, first, running) = (at.job(), at.job(), at.job());
    at.send(&running).unwrap();
    keep(&running, &attempt(1)).await;
    keep(&first, &attempt(1)).await;
    done(&first).await;
    at.pass(TimeDelta::minutes(11));
    done(&second).await;
    at.record("one").await;
    let attempts = |folder: &Path| folder.read_dir().map_or(0, Iterator::count);
    let found = |job: &Job| attempts(&folder(job));
    // The file system's times are the kernel's, so that the folders are as old as the moved clocks say.
    assert_eq!((found(&first), found(&second), found(&running)), (0, 1, 1));
    keep(&second, &attempt(1)).await;
    let stray = at.job();
    keep(&stray, &attempt(1)).await;
    at.pass(TimeDelta::hours(20));
    at.record("two").await;
    assert_eq!((found(&second), found(&stray)), (2, 1), "a worker may still have them in hand");
    at.pass(TimeDelta::hours(5));
    at.record("three").await;
    assert_eq!((found(&second), found(&stray), found(&running)), (1, 0, 1));
    assert_eq!(at.state(&first).await, Some(JobState::Succeeded), "its result stays");
}

#[tokio::test]
async fn an_input_that_a_client_sent_stays_as_long_as_its_job_and_without_one_for_a_day() {
    let at = Fixture::new("", 64);
    let files = LocalFiles::new(at.folder.path(), Vec::new());
    let take = async |job: &Job| {
        let file = files.incoming().await.unwrap();
        let upload = Upload { job: &job.id, name: "a.txt", digest: "ab12", file };
        files.take_in(upload).await.unwrap()
    };
    let (sent, stray) = (at.job(), at.job());
    // Its submitter ended after it had sent it: the ledger does not know it yet.
    take(&sent).await;
    let attributes = vec![("job_id".to_owned(), sent.id.to_string())];
    let body = job_to_json(&sent);
    let message = NewMessage { body, attributes, delay: TimeDelta::zero() };
    at.store.send(&queue(), &[message]).await.unwrap();
    take(&stray).await;
    // Of a job that has ended: it may be sent again.
    let mut done = at.job();
    done.input = take(&done).await;
    at.store.commit_one(&at.result(&done, 0)).await.unwrap();
    at.pass(TimeDelta::hours(25));
    at.record("one").await;
    let found = |job: &Job| at.folder.path().join("results").join(job.id.as_str()).exists();
    assert_eq!((found(&sent), found(&stray), found(&done)), (true, false, true));
}

#[tokio::test]
async fn a_wall_clock_that_is_set_ahead_deletes_nothing() {
    struct Ahead(Mutex<TimeDelta>);
    impl MachineClocks for Ahead {
        fn wall(&self) -> Timestamp {
            KernelClocks.wall() + *self.0.lock().unwrap()
        }
        fn monotonic(&self) -> TimeDelta {
            KernelClocks.monotonic()
        }
        fn boot_id(&self) -> String {
            "the same".to_owned()
        }
    }
    let at = Fixture::new("", 64);
    let job = at.job();
    at.store.commit_one(&at.result(&job, 10)).await.unwrap();
    let ahead = Arc::new(Ahead(Mutex::new(TimeDelta::days(3_000))));
    let options = StoreOptions { folder: at.folder.path().to_owned(), file_mib_max: 64 };
    let store = Store::open_with(&options, ahead).unwrap();
    store.sweep().unwrap();
    assert_eq!(at.state(&job).await, Some(JobState::Succeeded));
}

#[tokio::test]
async fn a_file_that_is_mostly_free_gives_room_back_to_the_disk() {
    let at = Fixture::new("jobs_kept = \"1d\"", 64);
    for _ in 0..200 {
        at.store.commit_one(&at.result(&at.job(), 20_000)).await.unwrap();
    }
    let before = at.rows("PRAGMA page_count");
    at.pass(TimeDelta::days(2));
    at.record("one").await;
    let after = at.rows("PRAGMA page_count");
    assert!(after < before / 2, "{before} pages became {after}");
}
