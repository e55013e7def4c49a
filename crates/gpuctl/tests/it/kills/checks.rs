//! What must be true once all is over: in the ledger, the queue, the stored files and the workers' logs.

use std::collections::{BTreeMap, BTreeSet};

use gpuctl_control::text::hexadecimal;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::kills::journal::{Journal, Life, Stage, Step};
use crate::kills::load::{Expected, Kind, Poison, Sent};
use crate::kills::place::Place;
use crate::support::workers;

/// The most messages that a worker holds, and so the most receives that a process which was signalled explains without a line in its log.
const HELD_MAX: usize = 128;

pub(super) struct Checked<'a> {
    pub(super) place: &'a dyn Place,
    pub(super) kinds: &'a [Kind],
    pub(super) sent: &'a Sent,
    pub(super) journal: &'a Journal,
}

impl Checked<'_> {
    pub(super) fn check(&self) {
        assert!(workers(self.place.sandbox()).is_empty(), "a worker is left");
        // First what tells the story of the job that is wrong, then the counts.
        let good = self.good_jobs();
        self.poison_is_dead();
        self.no_message_is_left();
        self.each_receive_is_explained(&good);
        self.each_file_is_explained(&good);
    }

    /// No message waits, and the dead letters are the poison. SQS cannot move a message in one step: one whose worker was killed meanwhile may
    /// be there twice.
    fn no_message_is_left(&self) {
        let queue = self.place.sandbox().run(&["queue", "--json"]).expect(0).json();
        let count = |name: &str| queue["queues"][0][name].as_u64().unwrap();
        assert_eq!(["visible", "in_flight", "delayed"].map(count), [0; 3], "{queue}");
        let (dead, poison) = (count("dead"), self.sent.poison.len() as u64);
        let killed = self.journal.lives.iter().filter(|life| life.is_killed()).count() as u64;
        let twice = if self.place.moves_at_once() { 0 } else { killed };
        assert!((poison..=poison + twice).contains(&dead), "{poison} are poison: {queue}");
    }

    fn listed(&self, state: &str) -> BTreeMap<String, Value> {
        let arguments = ["jobs", "--state", state, "--limit", "10000", "--json"];
        let listed = self.place.sandbox().run(&arguments).expect(0).json();
        let jobs = listed["jobs"].as_array().unwrap().clone();
        let count = jobs.len();
        let by_id: BTreeMap<String, Value> =
            jobs.into_iter().map(|job| (job["job_id"].as_str().unwrap().to_owned(), job)).collect();
        assert_eq!(by_id.len(), count, "a job is listed twice");
        by_id
    }

    /// Each good job has one result, its own, and no other job has one.
    fn good_jobs(&self) -> BTreeMap<String, Value> {
        let failed = self.listed("failed");
        assert!(failed.is_empty(), "a kill became a result: {failed:?}");
        let succeeded = self.listed("succeeded");
        for (id, kind) in &self.sent.good {
            let job = succeeded.get(id).unwrap_or_else(|| panic!("no result: {}", self.story(id)));
            assert_eq!((&job["generation"], &job["earlier"]), (&0.into(), &Value::Null), "{job}");
            self.check_output(&self.kinds[*kind].expected, &job["output"]);
        }
        assert_eq!(succeeded.len(), self.sent.good.len(), "a result without a job");
        succeeded
    }

    fn check_output(&self, expected: &Expected, output: &Value) {
        let files: Vec<Vec<u8>> = files(output).map(|file| self.content(file)).collect();
        match expected {
            Expected::Text(text) => {
                assert!(output["text"].as_str().unwrap().starts_with(text), "{output}");
            }
            Expected::Scores(scores) => {
                let listed: Vec<f64> =
                    serde_json::from_value(output["tensors"][0]["data"].clone()).unwrap();
                assert_eq!(listed, scores.map(f64::from), "{output}");
                assert!(files[0].ends_with(&scores.map(f32::to_le_bytes).concat()), "{output}");
            }
            Expected::Mask => assert!(files[0].starts_with(b"\x89PNG"), "{output}"),
        }
    }

    /// The content of a file, which is what the result says of it.
    fn content(&self, file: &Value) -> Vec<u8> {
        let content = self.place.read(file["uri"].as_str().unwrap());
        assert_eq!(file["bytes"], content.len(), "{file}");
        assert_eq!(file["sha256"], hexadecimal(&Sha256::digest(&content)), "{file}");
        content
    }

    /// Each message that is poison is listed as dead with the reason of its kind, and no other is.
    fn poison_is_dead(&self) {
        let dead = self.listed("dead");
        for (id, poison) in &self.sent.poison {
            let job = match poison {
                Poison::NotJson => dead.values().find(|job| has_text(job, id)),
                _ => dead.get(id),
            };
            let job = job.unwrap_or_else(|| panic!("{poison:?} not dead: {}", self.story(id)));
            let (code, text) = poison.reason();
            assert_eq!(job["error"]["code"], code, "{poison:?}: {job}\n{}", self.story(id));
            let message = job["error"]["message"].as_str().unwrap();
            assert!(message.contains(text), "{poison:?}: {job}");
        }
        assert_eq!(dead.len(), self.sent.poison.len(), "{dead:?}");
    }

    /// A job is received again only after the worker that held it was signalled or let go of it, and it does not run again once it has a
    /// result.
    fn each_receive_is_explained(&self, good: &BTreeMap<String, Value>) {
        let leases_lost: usize = self.journal.lives.iter().map(Life::leases_lost).sum();
        let mut without_line = 0;
        for (id, steps) in self.journal.by_job() {
            let lives: BTreeSet<usize> = steps.iter().map(|(life, _)| *life).collect();
            for life in lives.into_iter().map(|life| &self.journal.lives[life]) {
                let is_explained =
                    !life.held().contains(id) || !life.signals.is_empty() || life.has_let_go(id);
                assert!(is_explained, "let go of without a reason: {}", self.story(id));
            }
            let acked = steps.iter().filter(|(_, step)| step.stage == Stage::Acked).count();
            assert!(acked <= 1, "acked twice: {}", self.story(id));
            assert!(!runs_after_commit(&steps), "it ran after its commit: {}", self.story(id));
            let attempts = good.get(id).and_then(|job| job["attempts"].as_u64()).unwrap_or(0);
            let received = steps.iter().filter(|(_, step)| step.stage == Stage::Received).count();
            without_line += usize::try_from(attempts).unwrap().saturating_sub(received);
        }
        let signalled = self.journal.lives.iter().filter(|life| !life.signals.is_empty()).count();
        println!(
            "{leases_lost} leases lost, {without_line} receives by workers signalled before they logged them"
        );
        assert!(without_line <= signalled * HELD_MAX, "{without_line} receives by no one");
    }

    /// The files that are stored are those of the results, and those of attempts that were killed before they could remove them.
    fn each_file_is_explained(&self, good: &BTreeMap<String, Value>) {
        let named: BTreeSet<&str> = good
            .values()
            .flat_map(|job| files(&job["output"]))
            .map(|file| path_of(file["uri"].as_str().unwrap()))
            .collect();
        let stored = self.place.files();
        let left: Vec<&String> =
            stored.iter().filter(|path| !named.contains(path.as_str())).collect();
        println!("{} files stored, {} left by killed attempts", stored.len(), left.len());
        assert_eq!(stored.len() - left.len(), named.len(), "a file of a result is gone");
        for path in left {
            let (job, attempt) = path.split_once('/').unwrap();
            let is_explained = self.journal.lives.iter().any(|life| {
                let is_own = attempt.starts_with(&format!("0-{}-", life.box_name));
                is_own && life.is_killed() && life.held().contains(job)
            });
            assert!(is_explained, "{path} is left: {}", self.story(job));
        }
    }

    fn story(&self, id: &str) -> String {
        let shown = self.place.sandbox().run(&["job", id, "--json"]);
        format!("{}\n{}{}", self.journal.story(id), shown.stdout, shown.stderr)
    }
}

fn files(output: &Value) -> impl Iterator<Item = &Value> {
    output["files"].as_array().into_iter().flatten()
}

/// The end of a file's URI: `JOB/ATTEMPT/NAME`.
fn path_of(uri: &str) -> &str {
    let third = uri.rmatch_indices('/').nth(2);
    third.map_or(uri, |(at, _)| &uri[at + 1..])
}

/// Whether the job that is listed for a message has this text in it.
fn has_text(job: &Value, text: &str) -> bool {
    job["input"].as_str().is_some_and(|input| input.contains(text))
}

/// Whether a worker that received a job after its commit ran it all the same. One that had received it before may not know.
fn runs_after_commit(steps: &[(usize, &Step)]) -> bool {
    let committed = steps.iter().position(|(_, step)| step.stage == Stage::Committed);
    let after = committed.map_or(&[][..], |committed| &steps[committed..]);
    let in_life = |wanted| {
        let of_stage = after.iter().filter(move |(_, step)| step.stage == wanted);
        of_stage.map(|(life, _)| *life).collect::<BTreeSet<usize>>()
    };
    !in_life(Stage::Received).is_disjoint(&in_life(Stage::Inferring))
}
