//! The jobs, their inputs and what they must give, and the poison among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuctl_control::clock::SystemClock;
use gpuctl_control::job::{InputUri, Job, JobId, Urgency};
use gpuctl_control::ports::Clock;
use gpuctl_control::wire::job::job_to_json;
use serde_json::{Value, json};

use crate::kills::journal::Stage;
use crate::kills::place::Place;
use crate::support::{Sandbox, pause, sample};

/// Jobs that are sent at a time, once fewer than this wait.
const BATCH: usize = 40;
/// One message in this many is poison, and there is one of each kind at least.
const POISON_EVERY: usize = 100;
/// How often the queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What kind of job, and what it must give.
pub(super) struct Kind {
    task: &'static str,
    model: Option<&'static str>,
    input: PathBuf,
    pub(super) expected: Expected,
}

/// What an output must be.
pub(super) enum Expected {
    /// The scores that a small graph counts, also in its file.
    Scores([f32; 2]),
    /// A text that begins like this.
    Text(&'static str),
    /// Files of pictures.
    Mask,
}

/// Counts of good and bad words, on the small graph that sums them up.
pub(super) fn small_graphs(sandbox: &Sandbox) -> Vec<Kind> {
    let kind = |(good, bad): (usize, usize)| {
        let (length, good_id, bad_id) = (good + bad, 4, 5);
        let ids = [vec![good_id; good], vec![bad_id; bad]].concat();
        let tensor =
            |data: Vec<i32>| json!({ "dtype": "int64", "shape": [1, length], "data": data });
        let tensors =
            json!({ "input_ids": tensor(ids), "attention_mask": tensor(vec![1; length]) });
        let input = sandbox.write(format!("{good}-{bad}.json"), tensors.to_string());
        // Each word counts twice, by the graph's weights.
        let scores = [2 * bad, 2 * good].map(|sum| f32::from(u8::try_from(sum).unwrap()));
        let expected = Expected::Scores(scores);
        Kind { task: "onnx.run", model: Some("classifier-one"), input, expected }
    };
    [(1, 0), (0, 1), (2, 1), (1, 3), (5, 2), (4, 4), (3, 7), (9, 1)].map(kind).into()
}

/// A text read, a recording heard, a picture cut out.
pub(super) fn real_models() -> Vec<Kind> {
    let kind = |task, input, expected| Kind { task, model: None, input: sample(input), expected };
    vec![
        kind("vision.segment", "astronaut.png", Expected::Mask),
        kind("voice.transcribe", "beckett.wav", Expected::Text("Ever tried, ever failed,")),
        kind("vision.segment", "astronaut.png", Expected::Mask),
        kind("vision.ocr", "page.png", Expected::Text("Region-based segmentation\n")),
    ]
}

/// Kinds of poison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Poison {
    NotJson,
    TooNew,
    UnknownScheme,
    MissingFields,
    /// Its worker is killed whenever it has decoded the input.
    CrashesDecoded,
    /// Its worker is killed whenever the model runs on it.
    CrashesInferring,
}

impl Poison {
    pub(super) const ALL: [Self; 6] = [
        Self::NotJson,
        Self::TooNew,
        Self::UnknownScheme,
        Self::MissingFields,
        Self::CrashesDecoded,
        Self::CrashesInferring,
    ];

    /// The code of the reason that it is dead for, and a part of its text.
    pub(super) fn reason(self) -> (&'static str, &'static str) {
        match self {
            Self::NotJson => ("message.unreadable", "the message is not a job: expected"),
            Self::TooNew => ("message.unreadable", "the message has version 99"),
            Self::UnknownScheme => ("message.unreadable", "the message's input cannot be read"),
            Self::MissingFields => ("message.unreadable", "missing field `input`"),
            Self::CrashesDecoded | Self::CrashesInferring => ("job.crashed", "its worker died"),
        }
    }

    fn crashes_at(self) -> Option<Stage> {
        match self {
            Self::CrashesDecoded => Some(Stage::Decoded),
            Self::CrashesInferring => Some(Stage::Inferring),
            _ => None,
        }
    }

    /// The message. A job that crashes its worker reads a page, which takes long enough to be killed at.
    fn message(self, id: &JobId) -> String {
        let job = Job {
            id: id.clone(),
            queue: "jobs".parse().unwrap(),
            task: "vision.ocr".to_owned(),
            model: None,
            input: InputUri::of_path(&sample("page.png")),
            params: serde_json::Map::new(),
            submitted_at: SystemClock.now(),
            generation: 0,
            urgency: Urgency::default(),
        };
        let mut fields: Value = serde_json::from_str(&job_to_json(&job)).unwrap();
        match self {
            Self::NotJson => return format!("not JSON: {id}"),
            Self::TooNew => fields["version"] = json!(99),
            Self::UnknownScheme => fields["input"] = json!("nowhere:a.png"),
            Self::MissingFields => drop(fields.as_object_mut().unwrap().remove("input")),
            Self::CrashesDecoded | Self::CrashesInferring => {}
        }
        fields.to_string()
    }
}

/// The jobs that crash their worker, and where; shared by those who send and those who kill.
#[derive(Clone, Default)]
pub(super) struct Crashers(Arc<Mutex<BTreeMap<String, Stage>>>);

impl Crashers {
    fn add(&self, id: &JobId, stage: Stage) {
        self.with(|all| all.insert(id.to_string(), stage));
    }

    pub(super) fn stage_of(&self, job: &str) -> Option<Stage> {
        self.with(|all| all.get(job).copied())
    }

    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.with(|all| all.keys().cloned().collect())
    }

    fn with<T>(&self, call: impl FnOnce(&mut BTreeMap<String, Stage>) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was sent: each good job with the number of its kind, and the poison. Poison that cannot be parsed is listed under another id than this,
/// which is in its text.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) good: BTreeMap<String, usize>,
    pub(super) poison: BTreeMap<String, Poison>,
}

/// Sends the jobs, some at a time, until the queue is empty again.
pub(super) struct Feeder<'a> {
    pub(super) place: &'a dyn Place,
    pub(super) kinds: &'a [Kind],
    pub(super) crashers: Crashers,
    /// Whether the run has ended without this.
    pub(super) over: &'a AtomicBool,
}

impl Feeder<'_> {
    pub(super) fn feed(&self, jobs: usize) -> Sent {
        let mut sent = Sent::default();
        let poison = (jobs / POISON_EVERY).max(Poison::ALL.len());
        let every = (jobs / poison).max(1);
        let mut next = 0;
        while !self.over.load(Ordering::Relaxed) {
            let waiting = self.waiting();
            if next >= jobs && waiting == 0 {
                break;
            }
            let some: Vec<usize> = (next..jobs).take(BATCH).collect();
            if waiting < BATCH as u64 && !some.is_empty() {
                next += some.len();
                let (bad, good): (Vec<usize>, Vec<usize>) =
                    some.into_iter().partition(|number| number % every == every / 2);
                bad.iter().for_each(|number| self.send_poison(number / every, &mut sent));
                self.submit(&good, &mut sent);
            } else {
                pause(LOOK_EVERY);
            }
        }
        sent
    }

    /// Messages that are not over.
    fn waiting(&self) -> u64 {
        let queue = self.place.sandbox().run(&["queue", "--json"]).expect(0).json();
        let counts = &queue["queues"][0];
        ["visible", "in_flight", "delayed"].iter().filter_map(|name| counts[*name].as_u64()).sum()
    }

    fn send_poison(&self, number: usize, sent: &mut Sent) {
        let poison = Poison::ALL[number % Poison::ALL.len()];
        let id = JobId::new(SystemClock.now());
        if let Some(stage) = poison.crashes_at() {
            self.crashers.add(&id, stage);
        }
        self.place.send(&poison.message(&id));
        sent.poison.insert(id.to_string(), poison);
    }

    /// As a user does, one command for each task.
    fn submit(&self, numbers: &[usize], sent: &mut Sent) {
        let mut by_task: BTreeMap<(&str, Option<&str>), Vec<usize>> = BTreeMap::new();
        for number in numbers {
            let index = number % self.kinds.len();
            let kind = &self.kinds[index];
            by_task.entry((kind.task, kind.model)).or_default().push(index);
        }
        for ((task, model), kinds) in by_task {
            let mut arguments = vec!["submit", task, "--json"];
            arguments.extend(model.iter().flat_map(|model| ["--model", model]));
            arguments.extend(kinds.iter().map(|kind| self.kinds[*kind].input.to_str().unwrap()));
            let said = self.place.sandbox().run(&arguments).expect(0).json();
            let ids = said["job_ids"].as_array().unwrap();
            assert_eq!(ids.len(), kinds.len(), "{said}");
            let ids = ids.iter().map(|id| id.as_str().unwrap().to_owned());
            sent.good.extend(ids.zip(kinds));
        }
    }
}
