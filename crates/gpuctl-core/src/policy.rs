//! What the user wants: `gpuctl.toml`, parsed once into types that need no further checks.
//!
//! All problems of a file are reported at once, each with its line and a hint. Callers read files and the environment; this
//! module sees only text.

mod aws;
mod command;
mod effective;
mod http;
mod problems;
#[cfg(test)]
mod reference;
mod schedule;
mod section;
mod sections;
pub mod settings;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use chrono::{NaiveDate, TimeDelta};

pub use command::{COMMAND_MARGIN, COMMAND_TASK, Command, CommandParam, CommandParamKind, PLACES};
pub use effective::{EffectiveSection, EffectiveSetting, effective};
pub use http::Http;
pub use problems::{Problem, Problems};

use crate::cost::{CostSettings, PriceTable};
use crate::offering::CapacityType;
use crate::priority::Priority;
use crate::schedule::Schedule;
use crate::units::{MicroUsd, PoolId, QueueName};

/// The policy that applies without a `gpuctl.toml`, and what `gpuctl init` writes.
pub const DEFAULT_TEXT: &str = include_str!("policy/default.toml");

/// The whole configuration, valid by construction. `CONFIGURATION.md` in this crate is the reference of its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub cloud: Cloud,
    pub worker: Worker,
    /// Settings of single models, by name.
    pub models: BTreeMap<String, Model>,
    /// Programs that jobs may run, by name.
    pub commands: BTreeMap<String, Command>,
    pub cost: CostSettings,
    pub http: Http,
    /// In the order of the file.
    pub pools: Vec<Pool>,
}

impl Policy {
    /// Parses a policy from TOML without access to files: a calendar file that it names is an error.
    ///
    /// # Errors
    /// All problems of the text, each with its line, and with a hint where there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use chrono::TimeDelta;
    /// use gpuctl_core::policy::Policy;
    ///
    /// let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"10m\"").unwrap();
    /// let queue = policy.pools[0].queue().expect("this pool has a queue");
    /// assert_eq!(queue.max_wait, TimeDelta::minutes(10));
    ///
    /// let problems = Policy::parse("[pool.gpu]\nqueue = \"jobs\"\nmax_wiat = \"10m\"").unwrap_err();
    /// assert_eq!(
    ///     problems.to_string(),
    ///     "line 3: pool.gpu.max_wiat: unknown key (did you mean `max_wait`?)"
    /// );
    /// ```
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let dates = |_: &str| Err("cannot be read: files are not accessible here".to_owned());
        Self::parse_with(text, Files { dates: &dates, prices: &|_| PriceTable::default() })
    }

    /// Parses a policy from TOML, and reads the files that it names through `files`.
    ///
    /// # Errors
    /// As for `parse`.
    pub fn parse_with(text: &str, files: Files<'_>) -> Result<Self, Problems> {
        sections::read(text, files)
    }

    #[must_use]
    pub fn pool(&self, id: &PoolId) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.id == *id)
    }

    /// How long a job of this model may take.
    #[must_use]
    pub fn job_max(&self, model: Option<&str>) -> TimeDelta {
        model.and_then(|name| self.job_max_of(name)).unwrap_or(self.worker.job_max)
    }

    /// The limit of this model's jobs, if it has one of its own.
    #[must_use]
    pub fn job_max_of(&self, model: &str) -> Option<TimeDelta> {
        self.models.get(model)?.job_max
    }

    /// The command that jobs of this task run, if it is one of a command that there is.
    #[must_use]
    pub fn command(&self, task: &str) -> Option<&Command> {
        self.commands.get(task.strip_prefix(COMMAND_TASK)?)
    }

    /// The pools that drain a queue.
    pub fn queue_pools(&self) -> impl Iterator<Item = (&Pool, &QueuePolicy)> {
        self.pools.iter().filter_map(|pool| Some((pool, pool.queue()?)))
    }
}

/// How to read the files that a policy needs.
#[derive(Clone, Copy)]
pub struct Files<'r> {
    pub dates: ReadDates<'r>,
    pub prices: ReadPrices<'r>,
}

/// Reads the fetched prices in the state folder. Its argument is `[cloud] state`, if that is set.
pub type ReadPrices<'r> = &'r dyn Fn(Option<&str>) -> PriceTable;

/// Reads the dates of a calendar file. Its argument is the path in the policy; an error is the end of a sentence, e.g. `is too
/// large`.
pub type ReadDates<'r> = &'r dyn Fn(&str) -> Result<FileDates, String>;

/// The dates of a calendar file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileDates {
    /// In order.
    pub dates: Vec<NaiveDate>,
    /// How many of its events do not count, since they have a time of day.
    pub left_out: usize,
}

/// `[cloud]`: one machine and one file, or an AWS account.
#[derive(Clone, Debug, PartialEq)]
pub struct Cloud {
    /// `None` if boxes and queue are on this machine.
    pub aws: Option<Aws>,
    /// The folder of queue file, logs and locks, relative to `gpuctl.toml`.
    pub state: Option<String>,
    /// The largest size of the queue file, in MiB.
    pub file_mib_max: u32,
    /// How long a job is kept after it has ended, with its results.
    pub jobs_kept: TimeDelta,
    /// How long a message stays in the dead letters of the queue file.
    pub dead_letters_kept: TimeDelta,
    /// The largest size of all results' files on this machine, in MiB.
    pub results_mib_max: u32,
    /// The time between two reconciles if nothing changes.
    pub tick: TimeDelta,
}

/// `[cloud] kind = "aws"`: what gpuctl uses of the account. The AWS SDK finds the credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aws {
    /// `None`: the region of the environment or profile.
    pub region: Option<String>,
    /// `None`: the profile of the environment.
    pub profile: Option<String>,
    /// The DynamoDB table of the ledger; `None`: the ledger is on this machine.
    pub table: Option<String>,
    /// Where inputs are uploaded to and result files are kept, e.g. `s3://bucket/prefix`.
    pub results: Option<String>,
    /// The ARN of the SNS topic that gets notices.
    pub notify: Option<String>,
    /// The Lambda function that runs the controller: `gpuctl invoke` calls it.
    pub function: Option<String>,
    /// Whether the function prints metrics for CloudWatch, which bills each.
    pub metrics: bool,
}

/// How a worker on EC2 powers its box off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerOff {
    /// By its exit code alone: a hook of the service manager, which has the rights to, powers the box off.
    ExitCode,
    /// By this command.
    Command(Vec<String>),
}

/// Which EC2 instances are a pool's boxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boxes {
    /// The instances with these ids; they are started and stopped.
    Instances(Vec<String>),
    /// The instances with all of these tags; they are started and stopped.
    Select(BTreeMap<String, String>),
    /// Instances that are launched from a template when needed, and terminated when idle.
    Launch(LaunchTemplate),
}

/// An EC2 launch template, and what may replace its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchTemplate {
    /// The name, or the id (`lt-…`).
    pub name: String,
    /// `None`: the default version.
    pub version: Option<String>,
    /// In order of preference.
    pub instance_types: Vec<String>,
    /// The subnets, and with them the zones, to launch in; if empty, that of the template.
    pub subnets: Vec<String>,
}

/// `[worker]`: settings of `gpu-worker`.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// `auto`, `cpu` or `cuda`, for models without a device of their own.
    pub device: String,
    /// The folder with a folder for each model.
    pub models: Option<String>,
    /// The path of ONNX Runtime's library.
    pub onnxruntime: Option<String>,
    /// The folders in which inputs may be; empty: anywhere on the user's own machine, nowhere on AWS.
    pub input_roots: Vec<String>,
    /// On AWS: the buckets in which inputs may be, beside that of `results`; each may be preceded by its owner's account and `/`.
    pub input_buckets: Vec<String>,
    /// Threads of one inference session; `None`: the number of cores.
    pub threads: Option<NonZeroU32>,
    /// The longest accepted recording, in seconds.
    pub audio_seconds_max: u32,
    /// The largest accepted picture, in pixels.
    pub image_pixels_max: u64,
    /// How long a job may take, if its model has no limit of its own.
    pub job_max: TimeDelta,
    /// How long a stopping worker may continue with the jobs it holds.
    pub drain: TimeDelta,
    /// The command with which a worker shuts down its EC2 box.
    pub power_off: PowerOff,
}

/// `[model.NAME]`: settings of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Replaces `[worker] device` for this model.
    pub device: Option<String>,
    /// Replaces `[worker] job_max` for its jobs.
    pub job_max: Option<TimeDelta>,
}

/// `[pool.NAME]`: a named group of boxes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub id: PoolId,
    pub work: Work,
    /// `None`: the boxes are processes on this machine.
    pub boxes: Option<Boxes>,
    /// The most boxes that may be up at once.
    pub boxes_max: NonZeroU32,
    pub schedule: Schedule,
    /// While one of its windows lasts, the queue starts no box.
    pub quiet: Schedule,
    /// Jobs that are submitted at certain times.
    pub submits: Vec<ScheduledSubmit>,
    /// The accepted capacity types, in order of preference.
    pub capacity: Vec<CapacityType>,
    /// How long only the preferred capacity type is tried before the others. It ends when `max_wait` needs a box.
    pub capacity_deadline: TimeDelta,
    /// What the boxes may cost before the queue starts no more.
    pub budget: Budget,
    /// How long a start or stop outside gpuctl counts as a hold; zero: not at all.
    pub foreign_hold: TimeDelta,
    /// How long a boot is expected to take before one was seen.
    pub boot_default: TimeDelta,
    /// The least time that a box is up before it stops because it is idle.
    pub run_min: TimeDelta,
    /// How long a job that runs may keep a box up beyond `lifetime_max`: the longest limit of a command that its boxes run; zero without any.
    pub command_max: TimeDelta,
    /// How long a box may take to become ready.
    pub boot_deadline: TimeDelta,
    /// How long a box may be up before it is drained, also while it has work.
    pub lifetime_max: TimeDelta,
    /// How long a box may stay stopped before it is terminated; `None`: for ever.
    pub retire_stopped_after: Option<TimeDelta>,
    /// How long a stopping box may take before it is forced off.
    pub stop_deadline: TimeDelta,
    /// The most starts within an hour.
    pub starts_per_hour_max: NonZeroU32,
    /// How many boxes in a row may be started for the queue and end without a result before the next start has to wait.
    pub starts_without_result_max: NonZeroU32,
}

impl Pool {
    /// `None` if its boxes do not work on a queue.
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
    /// From the first of the month on.
    pub month: Option<MicroUsd>,
    /// From midnight on.
    pub day: Option<MicroUsd>,
}

impl Budget {
    #[must_use]
    pub fn is_set(self) -> bool {
        self.month.is_some() || self.day.is_some()
    }
}

/// What a pool's boxes do.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// The jobs of a queue.
    Queue(QueuePolicy),
    /// A command, e.g. an app server, that runs while schedule or hold want it.
    Command(Vec<String>),
    /// Nothing that gpuctl knows of: only the box itself is wanted, by schedule or hold. Only EC2 has such boxes.
    BoxOnly,
}

/// A queue and how long its jobs may wait.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuePolicy {
    pub name: QueueName,
    /// On AWS: the queue of its jobs with this priority; `None` where they are refused.
    pub high: Option<QueueName>,
    /// Likewise.
    pub low: Option<QueueName>,
    /// How long a job may wait for a box.
    pub max_wait: TimeDelta,
    /// A box starts at this number of waiting jobs, however long they have waited.
    pub start_depth: Option<NonZeroU32>,
    /// One box for each this many jobs.
    pub jobs_per_box: Option<NonZeroU32>,
    pub idle_stop: IdleStop,
    /// How long a lease lasts unless its worker extends it.
    pub visibility: TimeDelta,
    /// After this number of receives without an ack, a message is moved to the dead-letter queue.
    pub receives_max: NonZeroU32,
    /// Whether its boxes run `gpu-worker`, which reports when it is ready and idle.
    pub reports: bool,
}

/// A job that is submitted at certain times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledSubmit {
    /// Names it among all of the policy: with a time, it is what its job's id is made of.
    pub name: String,
    /// Its starts are the times.
    pub when: Schedule,
    pub task: String,
    /// The task's default if `None`.
    pub model: Option<String>,
    /// A URI, or the absolute path of a file.
    pub input: String,
    /// As on the command line: JSON, or a text.
    pub params: BTreeMap<String, String>,
    pub priority: Priority,
}

impl QueuePolicy {
    /// The queues on AWS that hold its jobs, by priority.
    pub fn lanes(&self) -> impl Iterator<Item = (Priority, &QueueName)> {
        let lanes = [
            (Priority::High, self.high.as_ref()),
            (Priority::Normal, Some(&self.name)),
            (Priority::Low, self.low.as_ref()),
        ];
        lanes.into_iter().filter_map(|(priority, name)| Some((priority, name?)))
    }
}

/// Receives that a queue on AWS should give a message beyond `receives_max`. At the first of them a worker moves the message to the dead
/// letters, and notes why. SQS, which tells no one that it moves a message, comes after the last.
pub const RECEIVES_SPARE: u32 = 2;

/// When an idle box stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleStop {
    /// At once if `max_wait` leaves room for another boot, else after the time that a boot takes.
    Auto,
    After(TimeDelta),
}

impl IdleStop {
    /// The idle time after which a box stops. `room` is how long a job may wait for the next box, `boot` how long that one takes.
    ///
    /// Where a job can wait for a boot, stopping at once was cheapest on all recorded traces (`gpuctl simulate`). Where it cannot, a
    /// box stays up for as long as a boot takes: then waiting has cost as much as the restart that it saves, which is at most twice
    /// the optimum (the ski rental problem).
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
    fn an_instance_type_needs_a_price_that_was_fetched_or_is_given() {
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
    fn the_default_policy_is_valid_with_each_setting_that_it_mentions() {
        let policy = Policy::parse(DEFAULT_TEXT).unwrap();
        assert_eq!(policy.pools.len(), 1);
        // Settings that are commented out show their defaults: without the `# ` they must parse too.
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
            (&all.cloud.tick, all.cloud.file_mib_max, all.cloud.results_mib_max),
            (&policy.cloud.tick, policy.cloud.file_mib_max, policy.cloud.results_mib_max)
        );
        assert_eq!(
            (all.worker.drain, all.worker.image_pixels_max),
            (policy.worker.drain, policy.worker.image_pixels_max)
        );
        assert_eq!(CostSettings { usd_hour: None, ..all.cost }, policy.cost);
    }

    #[test]
    fn all_problems_are_reported_each_with_its_line_and_a_hint() {
        let text = "\
[cloud]
kind = \"aws2\"
jobs_kpet = \"1d\"
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
                "line 2: cloud.kind: `aws2` is not a valid value (one of: local, aws)",
                "line 3: cloud.jobs_kpet: unknown key (did you mean `jobs_kept`?)",
                "line 5: pool.gpu.queue: `a b` is not a valid queue name: use 1 to 80 of a-z A-Z 0-9 - _",
                "line 6: pool.gpu.max_wait: is a whole number (must be a duration in quotes, e.g. `\"10m\"`)",
                "line 7: pool.gpu.idle_stop: `soon` is not a valid duration: write it as `45s`, `10m`, `2h30m` or `7d` (or `auto`)",
                "line 8: pool.gpu.boxes_max: 0 is out of range (from 1 to 1000)",
                "line 9: pool.app: has neither `queue`, `command` nor a schedule (give it `queue = \"jobs\"` or `command = [\"./server\"]`)",
                "line 11: worker.device: `tpu` is not a valid value (one of: auto, cpu, cuda)",
                "line 12: worker.input_roots: is a text (must be a list of texts, e.g. `[\"a\", \"b\"]`)",
            ]
        );
    }

    #[test]
    fn messages_of_calendars_say_what_to_write() {
        let pool = "[pool.x]\nqueue = \"q\"\n[[pool.x.schedule]]\nzone = \"UTC\"\n";
        let calendar = |line: &str| problems(&format!("{pool}[pool.x.calendar]\n{line}"));
        let entry = |line: &str| problems(&format!("{pool}{line}"));
        for (told, expected) in [
            (
                calendar("skip = [\"2026-12-24\", 2026-12-25]"),
                "line 6: pool.x.calendar.skip: has a date without quotes in its list (write it in quotes: `\"2026-12-25\"`)",
            ),
            (
                calendar("skip = [\"2026-11-25\"]\nextra = [\"2026-11-25\"]"),
                "line 5: pool.x.calendar: 2026-11-25 is in both `skip` and `extra` (remove it from one of the two)",
            ),
            (
                calendar("skip = [\"+262142-12-31\"]"),
                "line 6: pool.x.calendar.skip: `+262142-12-31` is not a valid date, nor a range of dates (write `2026-12-25` or `2026-12-24..2026-12-31`)",
            ),
            (
                entry("begin = 09:00:00\nend = \"10:00\""),
                "line 5: pool.x.schedule.begin: is a time without quotes (write it in quotes: `\"09:00\"`)",
            ),
            (
                entry("weekdays = \"tues\""),
                "line 5: pool.x.schedule.weekdays: `tues` is not a valid weekday, nor a list or range of weekdays (did you mean `tue`?)",
            ),
            (
                entry("monthdays = \"20-5\""),
                "line 5: pool.x.schedule.monthdays: `20-5` is not a valid day of the month, nor a list or range of days (write `20-31,1-5`)",
            ),
            (
                entry("months = \"sept\""),
                "line 5: pool.x.schedule.months: `sept` is not a valid month, nor a list or range of months (did you mean `sep`?)",
            ),
        ] {
            assert_eq!(told, [expected]);
        }
        for text in ["-0001-01-01", "1969-12-31", "2200-01-01", "2026-1-1"] {
            let told = calendar(&format!("skip = [\"{text}\"]"));
            assert!(told[0].contains("not a valid date"), "{text}");
        }
        let named = problems("[pool.\"gpü\"]\nqueue = \"q\"");
        assert!(named[0].starts_with("line 1: pool.gpü: "), "{named:?}");
        for name in ["all", "ALL"] {
            let told = problems(&format!("[pool.{name}]\nqueue = \"q\""));
            assert!(told[0].contains("cannot be the name of a pool"), "{told:?}");
        }
    }

    #[test]
    fn files_of_dates_may_be_several_and_their_sources_are_known() {
        let dates = |path: &str| match path {
            "a.ics" => Ok(FileDates { dates: vec!["2026-12-25".parse().unwrap()], left_out: 2 }),
            "b.ics" => Ok(FileDates { dates: vec!["2027-01-01".parse().unwrap()], left_out: 0 }),
            _ => Err("is not there".to_owned()),
        };
        let files = Files { dates: &dates, prices: &|_| PriceTable::default() };
        let text = |files: &str| {
            format!(
                "[pool.x]\nqueue = \"q\"\n[[pool.x.schedule]]\nzone = \"UTC\"\n[pool.x.calendar]\nskip = [\"2026-12-24\"]\nskip_file = {files}"
            )
        };
        let policy = Policy::parse_with(&text("[\"a.ics\", \"b.ics\"]"), files).unwrap();
        let calendar = &policy.pools[0].schedule.calendar;
        assert_eq!(calendar.skip.len(), 3);
        let sources: Vec<_> = calendar
            .sources
            .iter()
            .map(|source| (source.key, source.file.as_deref(), source.dates.len(), source.left_out))
            .collect();
        let expected = [
            ("skip", None, 1, 0),
            ("skip_file", Some("a.ics"), 1, 2),
            ("skip_file", Some("b.ics"), 1, 0),
        ];
        assert_eq!(sources, expected);
        assert!(Policy::parse_with(&text("\"a.ics\""), files).is_ok());
        let told = Policy::parse_with(&text("[\"a.ics\", \"c.ics\"]"), files).unwrap_err();
        assert!(told.to_string().contains("`c.ics` is not there"), "{told}");
    }

    #[test]
    fn a_hostile_text_is_answered_in_short() {
        let pool = "[pool.x]\nqueue = \"q\"\n";
        let entry = "[[pool.x.schedule]]\nzone = \"Mars\"\nbegin = \"x\"\nweekdays = \"z\"\n";
        let told = problems(&format!("{pool}{}", entry.repeat(4_000)));
        // Three of each of a hundred entries, and that there are too many.
        assert_eq!(told.len(), 301);
        assert!(
            told[300].starts_with("line 403: pool.x.schedule: has more than 100 entries"),
            "{}",
            told[300]
        );
        let keys: String = (0..5_000).map(|index| format!("key{index} = 1\n")).collect();
        assert_eq!(problems(&format!("{pool}{keys}")).len(), 1_001);
        let texts =
            ["A".repeat(100_000), "mon,".repeat(100_000), r"\u001b[31mUTC\u0007".to_owned()];
        for text in texts {
            for key in ["zone", "weekdays", "months", "begin", "start"] {
                let told = problems(&format!("{pool}[[pool.x.schedule]]\n{key} = \"{text}\""));
                assert!(told.iter().all(|one| one.len() < 600), "{key}: {}", told[0].len());
                assert!(!told.iter().any(|one| one.contains(['\u{1b}', '\u{7}'])), "{told:?}");
            }
        }
        let told = problems(&format!("{pool}{}", r#""\u001b[2Jevil" = 1"#));
        assert!(told[0].contains(r"\u{1b}[2Jevil"), "{told:?}");
    }

    #[test]
    fn quiet_hours_are_windows_of_a_pool_with_a_queue() {
        let quiet = |lines: &str| {
            format!("[pool.x]\nqueue = \"q\"\n[[pool.x.quiet]]\nzone = \"UTC\"\n{lines}")
        };
        let policy = Policy::parse(&quiet("begin = \"22:00\"\nend = \"06:00\"")).unwrap();
        assert_eq!(policy.pools[0].quiet.entries.len(), 1);
        let of_command = quiet("").replace("queue = \"q\"", "command = [\"x\"]");
        for (text, expected) in [
            (quiet("begin = \"22:00\""), "needs both `begin` and `end`"),
            (quiet("start = \"rate(1 hour)\""), "pool.x.quiet.start: unknown key"),
            (of_command, "has no queue to keep quiet"),
        ] {
            let told = problems(&text);
            assert!(told[0].contains(expected), "{told:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_the_only_problem_that_it_causes() {
        // Without the typo, these pools would have a queue, and boxes.
        assert_eq!(
            problems("[pool.gpu]\nqueu = \"jobs\""),
            ["line 2: pool.gpu.queu: unknown key (did you mean `queue`?)"]
        );
        assert_eq!(
            problems("[cloud]\nkind = \"aws\"\n[pool.gpu]\ninstnaces = [\"i-0123456789abcdef0\"]"),
            ["line 4: pool.gpu.instnaces: unknown key (did you mean `instances`?)"]
        );
    }

    #[test]
    fn settings_that_are_not_valid_are_rejected() {
        for (text, expected) in [
            ("", "there is no pool"),
            ("[pool.gpu]\nqueue = ", "line 2"),
            ("[pool.gpu]\nqueue = \"q\"\nqueue = \"r\"", "line 3"),
            // R8
            ("[pool.a]\nqueue = \"q\"\n[pool.b]\nqueue = \"q\"", "already belongs to pool `a`"),
            ("[pool.a]\nqueue = \"q\"\ncommand = [\"x\"]", "cannot be used together with `queue`"),
            ("[pool.a]\ncommand = []", "is empty"),
            (
                "[pool.a]\nqueue = \"q\"\ncapacity = [\"sopt\"]",
                "`sopt` is not a valid capacity type",
            ),
            ("[pool.a]\nqueue = \"q\"\ncapacity = [\"spot\", \"spot\"]", "has `spot` twice"),
            (
                "[pool.a]\nqueue = \"q\"\nbudget_usd_month = 0",
                "is not a valid amount of US dollars",
            ),
            (
                "[pool.a]\nqueue = \"q\"\nbudget_usd_day = -1.5",
                "is not a valid amount of US dollars",
            ),
            (
                "[pool.a]\nqueue = \"q\"\nbudget_usd_day = 1e3",
                "is not a valid amount of US dollars",
            ),
            ("[pool.a]\nqueue = \"q\"\nbudget_usd_day = \"1\"", "is a text"),
            ("[pool.a]\nqueue = \"q\"\n[cost]\npublic_ipv4 = 1", "must be true or false"),
            ("[pool.\"a b\"]\nqueue = \"q\"", "is not a valid pool name"),
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
            (
                "[pool.all]\nqueue = \"q\"",
                "line 1: pool.all: `all` cannot be the name of a pool (in",
            ),
            ("pool = 3", "is a whole number"),
            ("[pool]\ngpu = 3", "not a table"),
        ] {
            let found = problems(text);
            assert!(found.iter().any(|problem| problem.contains(expected)), "{text}\n{found:?}");
        }
    }
}
