//! The sections of `gpuctl.toml`, one function each: the keys, ranges and defaults of all settings.
//!
//! `reference.rs` describes each of them, and its test fails for a setting without a description or with another default.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use chrono::TimeDelta;
use toml::de::DeTable;

use super::problems::{Problems, Sink};
use super::section::{Keys, Section};
use super::{
    Boxes, Budget, Cloud, Files, IdleStop, Model, Policy, Pool, PowerOff, QueuePolicy, ReadDates,
    Work, Worker, aws, command, http, schedule,
};
use crate::cost::{CostSettings, GP3_USD_GIB_MONTH, PriceTable};
use crate::observation::RUNS_REMEMBERED_MAX;
use crate::offering::CapacityType;
use crate::suggest::did_you_mean;
use crate::text::excerpt;
use crate::units::{NameError, PoolId, QueueName, parse_duration};

/// What commands call all pools together, e.g. `gpuctl invoke stop all`.
const ALL_POOLS: &str = "all";
/// The most pools of one policy: a reconcile is linear in them, and the file should stay readable.
pub(super) const POOLS_MAX: usize = 100;
/// The most boxes of one pool.
pub(super) const BOXES_MAX: u32 = 1_000;
/// How long a boot is expected to take on this machine: a worker loads its models in seconds.
const BOOT_DEFAULT: TimeDelta = TimeDelta::seconds(5);
/// How long a boot is expected to take on AWS: a g4dn with its drivers, and a model that is not in the disk cache yet.
const BOOT_DEFAULT_AWS: TimeDelta = TimeDelta::minutes(2);
/// SQS's limit for a visibility timeout.
const VISIBILITY_MAX: TimeDelta = TimeDelta::hours(12);
/// What a job's limit may be. SQS ends a lease after twelve hours, however often it was extended.
const JOB_MAX_RANGE: RangeInclusive<TimeDelta> = TimeDelta::seconds(1)..=VISIBILITY_MAX;
/// SQS's limit for the receives before a message is moved to the dead-letter queue.
const RECEIVES_MAX: u32 = 1_000;
/// Jobs are kept for an hour at least, so that a waiting command sees what became of its own.
const KEPT_MIN: TimeDelta = TimeDelta::hours(1);
const KEPT_MAX: TimeDelta = TimeDelta::days(3_650);
const JOBS_KEPT: TimeDelta = TimeDelta::days(90);
const DEAD_LETTERS_KEPT: TimeDelta = TimeDelta::days(30);
/// The largest gp3 volume.
const DISK_GIB_MAX: u32 = 65_536;
/// Not `halt`, after which an EC2 box stays on and is billed (W1).
/// As `power_off`: by the worker's exit code.
const EXIT_CODE: &str = "exit-code";
const POWER_OFF: [&str; 2] = ["systemctl", "poweroff"];
const DEVICES: [&str; 3] = ["auto", "cpu", "cuda"];

pub(super) fn read(text: &str, files: Files<'_>) -> Result<Policy, Problems> {
    let mut sink = Sink::new(text);
    match read_into(text, files, &mut sink) {
        Some(policy) if sink.is_empty() => Ok(policy),
        _ => Err(sink.into_problems()),
    }
}

/// Reads as much as is valid, and reports the rest to `sink`. `None` if the text is not TOML.
pub(super) fn read_into(text: &str, files: Files<'_>, sink: &mut Sink<'_>) -> Option<Policy> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        let span = error.span().unwrap_or(0..0);
        sink.add(span, "", error.message().to_owned(), None);
    }
    if !sink.is_empty() {
        return None;
    }
    let mut root = Section::new(String::new(), 0..0, document.get_ref(), sink);
    let cloud = cloud(root.section("cloud"));
    let worker = worker(root.section("worker"));
    let prices = (files.prices)(cloud.state.as_deref());
    let cost = cost(root.section("cost"), prices);
    let http = http::read(root.section("http"));
    let models: BTreeMap<_, _> = root
        .named("model", |name, section| Some((name.to_owned(), model(section))))
        .into_iter()
        .collect();
    let backend = BackendDefaults::of(&cloud, &worker);
    let commands = command::all(&mut root, backend.is_aws);
    command::check_graces(&mut root, &commands, worker.drain);
    let mut pools = root.named("pool", |name, section| pool(name, section, &backend, files.dates));
    check_pools(&mut root, &pools);
    command::check_pools(&mut root, &commands, &pools);
    aws::check(&mut root, cloud.aws.as_ref(), &pools);
    root.report_unknown_keys();
    for pool in pools.iter_mut().filter(|pool| pool.queue().is_some()) {
        pool.command_max = command::longest(&commands, &pool.id);
    }
    Some(Policy { cloud, worker, models, commands, cost, http, pools })
}

/// Defaults of pools that depend on the backend.
struct BackendDefaults {
    is_aws: bool,
    boot_default: TimeDelta,
    stop_deadline: TimeDelta,
}

impl BackendDefaults {
    fn of(cloud: &Cloud, worker: &Worker) -> Self {
        let is_aws = cloud.aws.is_some();
        Self {
            is_aws,
            boot_default: if is_aws { BOOT_DEFAULT_AWS } else { BOOT_DEFAULT },
            stop_deadline: worker.drain + if is_aws { STOP_MARGIN_AWS } else { STOP_MARGIN },
        }
    }
}

/// How long a worker needs after its drain to write its final report.
const STOP_MARGIN: TimeDelta = TimeDelta::seconds(15);
/// How much longer EC2 may take to stop a box: the EC2 User Guide ("Troubleshoot instance stop issues") advises to wait ten minutes
/// before forcing it.
const STOP_MARGIN_AWS: TimeDelta = TimeDelta::minutes(10);

fn check_pools(root: &mut Section<'_, '_, '_>, pools: &[Pool]) {
    if !root.has("pool") {
        let hint = "write `[pool.gpu]` with a `queue`, or run `gpuctl init`".to_owned();
        root.problem("pool", 0..0, "there is no pool".to_owned(), Some(hint));
    }
    if pools.len() > POOLS_MAX {
        root.problem("pool", 0..0, format!("has more than {POOLS_MAX} pools"), None);
    }
    let mut names: BTreeMap<&str, &PoolId> = BTreeMap::new();
    for (pool, submit) in
        pools.iter().flat_map(|pool| pool.submits.iter().map(move |one| (pool, one)))
    {
        if let Some(first) = names.insert(&submit.name, &pool.id) {
            let message = format!("a submit of pool `{first}` has the name `{}`, too", submit.name);
            let hint = "give each a name of its own: a job's id is made of it".to_owned();
            root.problem(&format!("pool.{}.submit", pool.id), 0..0, message, Some(hint));
        }
    }
    let mut owners: BTreeMap<&QueueName, &PoolId> = BTreeMap::new();
    for pool in pools {
        // R8: two pools on one queue would each start a box for the same job.
        for (_, name) in pool.queue().into_iter().flat_map(QueuePolicy::lanes) {
            let Some(first) = owners.insert(name, &pool.id) else { continue };
            let message = format!("queue `{name}` already belongs to pool `{first}`");
            root.problem(
                &format!("pool.{}", pool.id),
                0..0,
                message,
                Some(
                    "a queue can belong to only one pool, and to one of its priorities".to_owned(),
                ),
            );
        }
    }
}

fn cloud(mut section: Section<'_, '_, '_>) -> Cloud {
    let kind = section.word("kind", &["local", "aws"]);
    let account = aws::aws(&mut section);
    let is_aws = kind.as_deref() == Some("aws");
    if !is_aws && account != super::Aws::default() {
        let at = section.span.clone();
        let message = "has settings for AWS, but `kind` is not \"aws\"".to_owned();
        section.problem("", at, message, Some("set `kind = \"aws\"`".to_owned()));
    }
    let tick = if is_aws { TimeDelta::minutes(1) } else { TimeDelta::seconds(1) };
    let ticks = TimeDelta::milliseconds(100)..=TimeDelta::hours(1);
    let cloud = Cloud {
        aws: is_aws.then_some(account),
        state: section.text("state").map(|(_, text)| text),
        file_mib_max: section.whole("file_mib_max", 1..=1_048_576).unwrap_or(4_096),
        jobs_kept: section.duration_or("jobs_kept", KEPT_MIN..=KEPT_MAX, JOBS_KEPT),
        dead_letters_kept: section.duration_or(
            "dead_letters_kept",
            KEPT_MIN..=KEPT_MAX,
            DEAD_LETTERS_KEPT,
        ),
        results_mib_max: section.whole("results_mib_max", 1..=1_073_741_824).unwrap_or(10_240),
        tick: section.duration_or("tick", ticks, tick),
    };
    section.report_unknown_keys();
    cloud
}

fn worker(mut section: Section<'_, '_, '_>) -> Worker {
    let (zero, second, hour) = (TimeDelta::zero(), TimeDelta::seconds(1), TimeDelta::hours(1));
    let worker = Worker {
        device: section.word("device", &DEVICES).unwrap_or_else(|| "auto".to_owned()),
        models: section.text("models").map(|(_, text)| text),
        onnxruntime: section.text("onnxruntime").map(|(_, text)| text),
        input_roots: section.texts("input_roots").map(|(_, texts)| texts).unwrap_or_default(),
        input_buckets: section.texts("input_buckets").map(|(_, texts)| texts).unwrap_or_default(),
        threads: section.whole("threads", 1..=1_024).and_then(NonZeroU32::new),
        audio_seconds_max: section.whole("audio_seconds_max", 1..=86_400).unwrap_or(4 * 3_600),
        image_pixels_max: section
            .whole("image_pixels_max", 1..=1_000_000_000)
            .unwrap_or(100_000_000),
        job_max: section.duration_or("job_max", JOB_MAX_RANGE, hour),
        drain: section.duration_or("drain", zero..=hour, second * 30),
        power_off: match section.texts_or_word("power_off", EXIT_CODE) {
            None => PowerOff::Command(POWER_OFF.map(str::to_owned).to_vec()),
            Some(None) => PowerOff::ExitCode,
            Some(Some(words)) => PowerOff::Command(words),
        },
    };
    section.report_unknown_keys();
    worker
}

fn cost(mut section: Section<'_, '_, '_>, prices: PriceTable) -> CostSettings {
    // With `usd_hour`, no price from a table is needed: the Lambda and the boxes do not have the prices that were fetched here.
    let usd_hour = section.money("usd_hour");
    let known = |key, value: &str| {
        usd_hour.is_some()
            || prices.prices().any(|price| match key {
                "region" => price.region == value,
                _ => price.instance_type == value,
            })
    };
    let mut text = |key, default: &str| match section.text(key) {
        Some((_, text)) if known(key, &text) => text,
        Some((span, text)) => {
            let meant = match key {
                "region" => prices.did_you_mean("", &text),
                _ => did_you_mean(&text, prices.prices().map(|price| price.instance_type.as_str())),
            };
            let hint = meant.unwrap_or_else(|| match key {
                "region" => "`gpuctl cost prices` lists the known regions".to_owned(),
                _ => fetch(&excerpt(&text), "REGION"),
            });
            let text = excerpt(&text);
            section.problem(key, span, format!("no price is known for `{text}`"), Some(hint));
            default.to_owned()
        }
        None => default.to_owned(),
    };
    let cost = CostSettings {
        instance_type: text("instance_type", "g4dn.xlarge"),
        region: text("region", "us-east-1"),
        usd_hour,
        disk_gib: section.whole("disk_gib", 0..=DISK_GIB_MAX).unwrap_or(0),
        disk_usd_gib_month: section.money("disk_usd_gib_month").unwrap_or(GP3_USD_GIB_MONTH),
        public_ipv4: section.flag("public_ipv4").unwrap_or(false),
        prices,
    };
    // Type and region may both be known without a price for the pair, and no price must not count as zero.
    let listed = cost.prices.price(&cost.instance_type, &cost.region);
    if cost.usd_hour.is_none() && listed.is_none() {
        let at = section.span.clone();
        let message = format!("no price is known for {} in {}", cost.instance_type, cost.region);
        let hint = fetch(&cost.instance_type, &cost.region);
        section.problem("", at, message, Some(hint));
    }
    section.report_unknown_keys();
    cost
}

/// How to get a price. A command that reads a policy with the unknown type fails: the price must be fetched first.
fn fetch(instance_type: &str, region: &str) -> String {
    format!(
        "set `usd_hour`, or fetch its price before you set it here: `gpuctl cost prices --refresh --instance-type {instance_type} --region {region}`; `gpuctl cost prices` lists the known ones"
    )
}

fn model(mut section: Section<'_, '_, '_>) -> Model {
    let model = Model {
        device: section.word("device", &DEVICES),
        job_max: section.duration("job_max", JOB_MAX_RANGE),
    };
    section.report_unknown_keys();
    model
}

fn pool(
    name: &str,
    mut section: Section<'_, '_, '_>,
    backend: &BackendDefaults,
    dates: ReadDates<'_>,
) -> Option<Pool> {
    let (zero, second, minute) = (TimeDelta::zero(), TimeDelta::seconds(1), TimeDelta::minutes(1));
    let (hour, day) = (TimeDelta::hours(1), TimeDelta::days(1));
    let id = pool_id(name, &mut section);
    let boxes_max = section.count("boxes_max", BOXES_MAX, 1);
    let work = work(&mut section, backend);
    let boxes = aws::boxes(&mut section);
    let schedule = schedule::read(&mut section, dates);
    let quiet = schedule::quiet(&mut section);
    let submits = schedule::submits(&mut section, &schedule.calendar);
    let capacity = capacity(&mut section);
    let capacity_deadline = section.duration_or("capacity_deadline", zero..=day, zero);
    let budget =
        Budget { month: section.money("budget_usd_month"), day: section.money("budget_usd_day") };
    let foreign_hold = section.duration_or("foreign_hold", zero..=day * 7, hour * 2);
    let boot_default = section.duration_or("boot_default", zero..=hour, backend.boot_default);
    let run_min = section.duration_or("run_min", zero..=day, zero);
    let boot_deadline = section.duration_or("boot_deadline", second..=hour, minute * 5);
    let lifetime_max = section.duration_or("lifetime_max", minute..=day * 3_650, day);
    let retire_stopped_after = retire_stopped_after(&mut section, boxes.as_ref());
    // Starts are counted in the runs of an observation, which has no more than this.
    let starts_per_hour_max = section.count("starts_per_hour_max", RUNS_REMEMBERED_MAX, 60);
    let starts_without_result_max =
        section.count("starts_without_result_max", RUNS_REMEMBERED_MAX, 3);
    if section.report_unknown_keys() == Keys::SomeUnknown {
        // What seems to be missing may be what an unknown key was meant to be.
        return None;
    }
    if work == Err(NoWork::Missing) {
        let hint = "give it `queue = \"jobs\"` or `command = [\"./server\"]`".to_owned();
        let message = "has neither `queue`, `command` nor a schedule".to_owned();
        section.problem("", section.span.clone(), message, Some(hint));
    }
    Some(Pool {
        id: id?,
        work: work.ok()?,
        boxes,
        boxes_max,
        schedule,
        quiet,
        submits,
        capacity,
        capacity_deadline,
        budget,
        foreign_hold,
        boot_default,
        run_min,
        command_max: zero,
        boot_deadline,
        lifetime_max,
        retire_stopped_after,
        stop_deadline: backend.stop_deadline,
        starts_per_hour_max,
        starts_without_result_max,
    })
}

/// Only EC2 keeps a box that is stopped, and bills its disk; what is launched for a run ends with it.
fn retire_stopped_after(
    section: &mut Section<'_, '_, '_>,
    boxes: Option<&Boxes>,
) -> Option<TimeDelta> {
    let key = "retire_stopped_after";
    let after = section.duration(key, TimeDelta::hours(1)..=TimeDelta::days(3_650))?;
    let stays = matches!(boxes, Some(Boxes::Instances(_) | Boxes::Select(_)));
    if !stays {
        let at = section.span.clone();
        let hint = "it is for pools with `instances` or `select`: remove it".to_owned();
        section.problem(
            key,
            at,
            "is for boxes that stay while they are stopped".to_owned(),
            Some(hint),
        );
    }
    Some(after)
}

fn pool_id(name: &str, section: &mut Section<'_, '_, '_>) -> Option<PoolId> {
    let at = section.span.clone();
    if name.eq_ignore_ascii_case(ALL_POOLS) {
        let message = format!("`{name}` cannot be the name of a pool");
        let hint =
            "in commands it means every pool: choose another name, e.g. `[pool.gpu]`".to_owned();
        section.problem("", at, message, Some(hint));
        return None;
    }
    name.parse().map_err(|error: NameError| section.problem("", at, error.to_string(), None)).ok()
}

fn capacity(section: &mut Section<'_, '_, '_>) -> Vec<CapacityType> {
    let both = vec![CapacityType::Spot, CapacityType::OnDemand];
    let Some((span, names)) = section.texts("capacity") else { return both };
    let mut order: Vec<CapacityType> = Vec::new();
    for name in &names {
        match name.parse::<CapacityType>() {
            Ok(one) if order.contains(&one) => {
                section.problem("capacity", span.clone(), format!("has `{one}` twice"), None);
            }
            Ok(one) => order.push(one),
            Err(error) => section.problem("capacity", span.clone(), error.to_string(), None),
        }
    }
    if names.is_empty() {
        let hint = "remove it for `[\"spot\", \"on-demand\"]`".to_owned();
        section.problem("capacity", span, "is empty".to_owned(), Some(hint));
    }
    order
}

/// The keys of which one is enough for a pool without queue and command.
const BOX_ONLY: [&str; 4] = ["schedule", "instances", "select", "launch_template"];

/// Why a pool has no valid `work`.
#[derive(PartialEq)]
enum NoWork {
    /// A problem was reported.
    Reported,
    /// None of the keys is there.
    Missing,
}

fn work(section: &mut Section<'_, '_, '_>, backend: &BackendDefaults) -> Result<Work, NoWork> {
    let command = section.texts("command");
    let queue = section.parsed::<QueueName>("queue");
    let settings = queue_settings(section);
    match (command, section.has("queue")) {
        (Some((span, _)), true) => {
            let hint = "a pool has either a queue or a command".to_owned();
            let message = "cannot be used together with `queue`".to_owned();
            section.problem("command", span, message, Some(hint));
            Err(NoWork::Reported)
        }
        (Some((span, command)), false) if command.is_empty() || command[0].is_empty() => {
            section.problem("command", span, "is empty".to_owned(), None);
            Err(NoWork::Reported)
        }
        (Some((_, command)), false) => Ok(Work::Command(command)),
        (None, true) => {
            queue.map(|name| Work::Queue(QueuePolicy { name, ..settings })).ok_or(NoWork::Reported)
        }
        (None, false) if section.has("command") => Err(NoWork::Reported),
        (None, false) if backend.is_aws || BOX_ONLY.iter().any(|key| section.has(key)) => {
            Ok(Work::BoxOnly)
        }
        (None, false) => Err(NoWork::Missing),
    }
}

fn queue_settings(section: &mut Section<'_, '_, '_>) -> QueuePolicy {
    let (zero, second, day) = (TimeDelta::zero(), TimeDelta::seconds(1), TimeDelta::days(1));
    let depth = |section: &mut Section<'_, '_, '_>, key| {
        section.whole(key, 1..=1_000_000).and_then(NonZeroU32::new)
    };
    QueuePolicy {
        // The caller, which knows whether there is a queue, replaces it.
        name: "unnamed".parse().expect("a plain word is a name"),
        high: section.parsed::<QueueName>("queue_high"),
        low: section.parsed::<QueueName>("queue_low"),
        max_wait: section.duration_or("max_wait", zero..=day * 14, zero),
        start_depth: depth(section, "start_depth"),
        jobs_per_box: depth(section, "jobs_per_box"),
        idle_stop: idle_stop(section),
        visibility: section.duration_or("visibility", second..=VISIBILITY_MAX, second * 60),
        receives_max: section.count("receives_max", RECEIVES_MAX, 5),
        reports: section.word("worker", &["gpu-worker", "own"]).as_deref() != Some("own"),
    }
}

fn idle_stop(section: &mut Section<'_, '_, '_>) -> IdleStop {
    let Some((span, text)) = section.text("idle_stop") else { return IdleStop::Auto };
    if text == "auto" {
        return IdleStop::Auto;
    }
    match parse_duration(&text) {
        Ok(after) => IdleStop::After(after),
        Err(error) => {
            section.problem("idle_stop", span, error.to_string(), Some("or `auto`".to_owned()));
            IdleStop::Auto
        }
    }
}
