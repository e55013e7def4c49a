//! What the user wants: `gpuctl.toml`, parsed once into types that need no further checks.
//!
//! All problems of a file are reported at once, each with its line and a hint. Reading files and the environment is for
//! the callers; this module only sees text.

mod aws;
mod problems;
mod schedule;
mod section;
mod sections;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use chrono::{NaiveDate, TimeDelta};

pub use problems::{Problem, Problems};

use crate::cost::{CostSettings, PriceTable};
use crate::offering::CapacityType;
use crate::schedule::Schedule;
use crate::units::{MicroUsd, PoolId, QueueName};

/// The policy that holds where there is no `gpuctl.toml`, and what `gpuctl init` writes.
pub const DEFAULT_TEXT: &str = include_str!("policy/default.toml");

/// The whole configuration, valid by construction.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Where boxes, queue and ledger live.
    pub cloud: Cloud,
    /// How workers run.
    pub worker: Worker,
    /// Settings of single models, by name.
    pub models: BTreeMap<String, Model>,
    /// What box time is priced as.
    pub cost: CostSettings,
    /// The pools, in the file's order.
    pub pools: Vec<Pool>,
}

impl Policy {
    /// Reads a policy from TOML, where no files are at hand: one that names a calendar's file is refused.
    ///
    /// # Errors
    /// Every problem of the text, each with line, reason and hint.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let dates = |_: &str| Err("cannot be read here".to_owned());
        Self::parse_with(text, Files { dates: &dates, prices: &|_| PriceTable::default() })
    }

    /// Reads a policy from TOML, and what it needs of files through `files`.
    ///
    /// # Errors
    /// Every problem of the text, each with line, reason and hint.
    pub fn parse_with(text: &str, files: Files<'_>) -> Result<Self, Problems> {
        sections::read(text, files)
    }

    /// The pool of that name.
    #[must_use]
    pub fn pool(&self, id: &PoolId) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.id == *id)
    }

    /// The pools that drain a queue.
    pub fn queue_pools(&self) -> impl Iterator<Item = (&Pool, &QueuePolicy)> {
        self.pools.iter().filter_map(|pool| Some((pool, pool.queue()?)))
    }
}

/// What a policy needs of files.
#[derive(Clone, Copy)]
pub struct Files<'r> {
    /// The dates of calendars.
    pub dates: ReadDates<'r>,
    /// The prices.
    pub prices: ReadPrices<'r>,
}

/// Reads the prices that were fetched into the state folder, of which the policy says where it is, if it does.
pub type ReadPrices<'r> = &'r dyn Fn(Option<&str>) -> PriceTable;

/// Reads the dates of a calendar's file, by the path that stands in the policy; an error is a sentence's end: `is too large`.
pub type ReadDates<'r> = &'r dyn Fn(&str) -> Result<Vec<NaiveDate>, String>;

/// `[cloud]`: one machine and one file, or an AWS account.
#[derive(Clone, Debug, PartialEq)]
pub struct Cloud {
    /// The account's side, if boxes and queue are on AWS.
    pub aws: Option<Aws>,
    /// The folder of the queue file, boxes' logs and locks; relative to `gpuctl.toml`.
    pub state: Option<String>,
    /// The size that the queue file may grow to, in MiB.
    pub file_mib_max: u32,
    /// How often to reconcile when nothing changes.
    pub tick: TimeDelta,
}

/// `[cloud] kind = "aws"`: what gpuctl uses of the account; credentials are the SDK's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aws {
    /// The region; that of environment and profile if unset.
    pub region: Option<String>,
    /// The profile; the environment's if unset.
    pub profile: Option<String>,
    /// The DynamoDB table that keeps the ledger; without one it is kept on this machine.
    pub table: Option<String>,
    /// Where inputs are uploaded to and results' files kept, as `s3://bucket/prefix`.
    pub results: Option<String>,
    /// The SNS topic that hears of trouble.
    pub notify: Option<String>,
    /// The Lambda function that does the same without a machine: `gpuctl invoke` asks it.
    pub function: Option<String>,
}

/// Where a pool's EC2 boxes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boxes {
    /// These instances, stopped and started.
    Instances(Vec<String>),
    /// The instances with all of these tags, stopped and started.
    Select(BTreeMap<String, String>),
    /// Launched from a template when needed, and terminated when idle.
    Launch(LaunchTemplate),
}

/// What to launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchTemplate {
    /// Its name, or its id (`lt-…`).
    pub name: String,
    /// Its version; the default one if unset.
    pub version: Option<String>,
    /// The instance types that will do.
    pub instance_types: Vec<String>,
    /// The subnets, and with them the zones, that will do; the template's if empty.
    pub subnets: Vec<String>,
}

/// `[worker]`: how workers run.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// `auto`, `cpu` or `cuda`; models without a device of their own inherit it.
    pub device: String,
    /// The folder of model folders.
    pub models: Option<String>,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<String>,
    /// Folders that inputs may lie in; empty means anywhere.
    pub input_roots: Vec<String>,
    /// Threads of one inference session; the number of cores if unset.
    pub threads: Option<NonZeroU32>,
    /// The longest recording, in seconds.
    pub audio_seconds_max: u32,
    /// The largest picture, in pixels.
    pub image_pixels_max: u64,
    /// How long one job may take before it counts as hung.
    pub job_max: TimeDelta,
    /// How long a stopping worker may finish what it holds.
    pub drain: TimeDelta,
    /// How a worker shuts its EC2 box down.
    pub power_off: Vec<String>,
}

/// `[model.NAME]`: settings of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Overrides `[worker] device` for this model.
    pub device: Option<String>,
}

/// `[pool.NAME]`: a named group of boxes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub id: PoolId,
    /// What its boxes do.
    pub work: Work,
    /// Where its boxes come from on AWS; on this machine they are processes.
    pub boxes: Option<Boxes>,
    /// The most boxes that may be up at once.
    pub boxes_max: NonZeroU32,
    /// When at least one box is up.
    pub schedule: Schedule,
    /// The ways to buy a box, in order of preference.
    pub capacity: Vec<CapacityType>,
    /// How long before the last moment the preferred way is tried alone; `max_wait` is never missed for its sake.
    pub capacity_deadline: TimeDelta,
    /// What its boxes may cost before queue starts are refused.
    pub budget: Budget,
    /// How long a start or stop made past gpuctl counts as a person's hold; zero: not at all.
    pub foreign_hold: TimeDelta,
    /// How long a box is thought to take to boot while the ledger has no run of it.
    pub boot_default: TimeDelta,
    /// How long an idle box stays at least.
    pub run_min: TimeDelta,
    /// How long a box may take to become ready.
    pub boot_deadline: TimeDelta,
    /// How long a box may run before it is drained, whatever happens.
    pub lifetime_max: TimeDelta,
    /// How long a stopping box may take before it is ended by force.
    pub stop_deadline: TimeDelta,
    /// How many starts an hour demand may cause.
    pub starts_per_hour_max: NonZeroU32,
    /// How many boxes in a row may come for the queue and go without a result before the next one has to wait.
    pub starts_without_result_max: NonZeroU32,
}

impl Pool {
    /// The queue that its boxes drain, if any.
    #[must_use]
    pub fn queue(&self) -> Option<&QueuePolicy> {
        match &self.work {
            Work::Queue(queue) => Some(queue),
            Work::Command(_) | Work::BoxOnly => None,
        }
    }
}

/// What a pool may spend, in UTC months and days as AWS bills them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// From the first of the month.
    pub month: Option<MicroUsd>,
    /// From midnight.
    pub day: Option<MicroUsd>,
}

impl Budget {
    /// Whether there is any.
    #[must_use]
    pub fn is_set(self) -> bool {
        self.month.is_some() || self.day.is_some()
    }
}

/// What a pool's boxes do.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Run `gpu-worker` on a queue.
    Queue(QueuePolicy),
    /// Run a command, such as an app server, for as long as schedule or hold want it.
    Command(Vec<String>),
    /// Nothing of ours: the box itself is wanted, on schedule or by hand. This machine has no such boxes.
    BoxOnly,
}

/// A queue and how long its jobs may wait.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuePolicy {
    /// Its name.
    pub name: QueueName,
    /// How long a job may wait for a box.
    pub max_wait: TimeDelta,
    /// Start at so many waiting jobs, however young.
    pub start_depth: Option<NonZeroU32>,
    /// One box for each so many jobs.
    pub jobs_per_box: Option<NonZeroU32>,
    /// When an idle box stops.
    pub idle_stop: IdleStop,
    /// How long a lease lasts unless its worker extends it.
    pub visibility: TimeDelta,
    /// After so many receives without an ack a message goes to the dead-letter queue.
    pub receives_max: NonZeroU32,
    /// Whether its boxes run `gpu-worker`, which says when it is ready and idle; another program says nothing.
    pub reports: bool,
}

/// When an idle box stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleStop {
    /// At once if `max_wait` leaves room for another boot, else after the break-even time.
    Auto,
    /// After a fixed time.
    After(TimeDelta),
}

impl IdleStop {
    /// The idle time after which a box stops, given how long a job may wait for the next one, and how long that takes to boot.
    ///
    /// Where a job can wait for a boot, stopping at once was cheapest on every trace (`policies.md` 3.1). Where it cannot, the
    /// boot itself is the break-even: staying up that long costs what a restart costs (ski rental, 1.1 there).
    #[must_use]
    pub fn after(self, room: TimeDelta, boot: TimeDelta) -> TimeDelta {
        match self {
            Self::After(span) => span,
            Self::Auto if room >= boot => TimeDelta::zero(),
            Self::Auto => boot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_was_fetched_may_be_named_and_another_is_told_how() {
        let text = "[cloud]\nstate = \"there\"\n[pool.a]\nqueue = \"q\"\n[cost]\ninstance_type = \"c7i.large\"";
        let dates = |_: &str| Err(String::new());
        let prices = |state: Option<&str>| {
            assert_eq!(state, Some("there"));
            PriceTable::parse("c7i.large,us-east-1,0.09,,2026-11-22").unwrap()
        };
        let policy = Policy::parse_with(text, Files { dates: &dates, prices: &prices }).unwrap();
        assert_eq!(policy.cost.instance_type, "c7i.large");
        let told = problems(text);
        assert!(told[0].contains("cost prices --refresh --instance-type c7i.large"), "{told:?}");
        let elsewhere = Policy::parse(&format!("{text}\nusd_hour = 0.09")).unwrap();
        assert_eq!(elsewhere.cost.instance_type, "c7i.large");
    }

    fn problems(text: &str) -> Vec<String> {
        Policy::parse(text).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_policy_is_valid_and_so_is_each_setting_that_it_mentions() {
        let policy = Policy::parse(DEFAULT_TEXT).unwrap();
        assert_eq!(policy.pools.len(), 1);
        // What is commented out in it is shown with its default: switched on, it must parse too.
        let all: String = DEFAULT_TEXT
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| rest.contains(" = ") || rest.starts_with('['))
                    .unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let all = Policy::parse(&all).unwrap();
        assert_eq!(all.pools.len(), 2);
        assert_eq!(all.pools[0].schedule.entries.len(), 2);
        let (shown, default) = (&all.pools[0], &policy.pools[0]);
        assert_eq!(
            (shown.boot_deadline, shown.lifetime_max),
            (default.boot_deadline, default.lifetime_max)
        );
        assert_eq!(
            (&all.cloud.tick, all.cloud.file_mib_max),
            (&policy.cloud.tick, policy.cloud.file_mib_max)
        );
        assert_eq!(
            (all.worker.drain, all.worker.image_pixels_max),
            (policy.worker.drain, policy.worker.image_pixels_max)
        );
        assert_eq!(CostSettings { usd_hour: None, ..all.cost }, policy.cost);
    }

    #[test]
    fn all_problems_come_at_once_each_with_its_line_and_a_hint() {
        let text = "\
[cloud]
kind = \"aws2\"
tikc = \"1s\"
[pool.gpu]
queue = \"a b\"
max_wait = 10
idle_stop = \"soon\"
boxes_max = 0
[pool.app]
[worker]
device = \"tpu\"
input_roots = \"/data\"
";
        assert_eq!(
            problems(text),
            [
                "line 2: cloud.kind: `aws2` is not known (one of: local, aws)",
                "line 3: cloud.tikc: unknown key (did you mean `tick`?)",
                "line 5: pool.gpu.queue: `a b` is no queue name: use 1 to 80 of a-z A-Z 0-9 - _",
                "line 6: pool.gpu.max_wait: is a whole number (must be a text in quotes)",
                "line 7: pool.gpu.idle_stop: `soon` is no span of time: write it as `45s`, `10m`, `2h30m` or `7d` (or `auto`)",
                "line 8: pool.gpu.boxes_max: 0 is out of range (from 1 to 1000)",
                "line 9: pool.app.: has neither `queue`, `command` nor a schedule (give it `queue = \"jobs\"` or `command = [\"./server\"]`)",
                "line 11: worker.device: `tpu` is not known (one of: auto, cpu, cuda)",
                "line 12: worker.input_roots: is a text (must be a list of texts, as `[\"a\", \"b\"]`)",
            ]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, expected) in [
            ("", "there is no pool"),
            ("[pool.gpu]\nqueue = ", "line 2"),
            ("[pool.gpu]\nqueue = \"q\"\nqueue = \"r\"", "line 3"),
            // R8
            ("[pool.a]\nqueue = \"q\"\n[pool.b]\nqueue = \"q\"", "already belongs to pool `a`"),
            ("[pool.a]\nqueue = \"q\"\ncommand = [\"x\"]", "stands beside `queue`"),
            ("[pool.a]\ncommand = []", "is empty"),
            ("[pool.a]\nqueue = \"q\"\ncapacity = [\"sopt\"]", "`sopt` is no capacity type"),
            ("[pool.a]\nqueue = \"q\"\ncapacity = [\"spot\", \"spot\"]", "names `spot` twice"),
            ("[pool.a]\nqueue = \"q\"\nbudget_usd_month = 0", "no amount of US dollars"),
            ("[pool.a]\nqueue = \"q\"\nbudget_usd_day = -1.5", "no amount of US dollars"),
            ("[pool.a]\nqueue = \"q\"\nbudget_usd_day = 1e3", "no amount of US dollars"),
            ("[pool.a]\nqueue = \"q\"\nbudget_usd_day = \"1\"", "is a text"),
            ("[pool.a]\nqueue = \"q\"\n[cost]\npublic_ipv4 = 1", "must be true or false"),
            ("[pool.\"a b\"]\nqueue = \"q\"", "is no pool name"),
            ("[pool.a]\nqueue = \"q\"\nmax_wait = \"15d\"", "out of range"),
            ("[pool.a]\nqueue = \"q\"\nvisibility = \"13h\"", "out of range"),
            ("[pool.a]\nqueue = \"q\"\n[[pool.a.schedule]]\nbegin = \"09:00\"", "zone: is missing"),
            (
                "[pool.a]\nqueue = \"q\"\n[[pool.a.schedule]]\nzone = \"UTC\"\nweekdays = \"1-5\"",
                "write `mon-fri`",
            ),
            ("[pool.a]\nqueue = \"q\"\n[cost]\nregion = \"mars-1\"", "no price is known"),
            (
                "[pool.a]\nqueue = \"q\"\n[cost]\ninstance_type = \"t3.large\"\nregion = \"ap-northeast-1\"",
                "no price is known for t3.large in ap-northeast-1",
            ),
            ("pool = 3", "is a whole number"),
            ("[pool]\ngpu = 3", "not a table"),
        ] {
            let found = problems(text);
            assert!(found.iter().any(|problem| problem.contains(expected)), "{text}\n{found:?}");
        }
    }
}
