//! The sections of `gpuctl.toml`, one function each: names, ranges and defaults of every setting are here and nowhere else.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use chrono::TimeDelta;
use toml::de::DeTable;

use super::problems::{Problems, Sink};
use super::section::Section;
use super::{
    Budget, Cloud, Files, IdleStop, Model, Policy, Pool, QueuePolicy, ReadDates, Work, Worker, aws,
    schedule,
};
use crate::cost::{CostSettings, GP3_USD_GIB_MONTH, PriceTable};
use crate::observation::RUNS_REMEMBERED_MAX;
use crate::offering::CapacityType;
use crate::units::{PoolId, QueueName, parse_span};

/// Pools in one policy: the reconcile is linear in them, and one file should stay readable.
pub(super) const POOLS_MAX: usize = 100;
/// Boxes in one pool.
pub(super) const BOXES_MAX: u32 = 1_000;
/// What a boot takes where nobody says otherwise: a local worker loads its models in seconds.
const BOOT_DEFAULT: TimeDelta = TimeDelta::seconds(5);
/// A g4dn with its drivers and a model on a cold disk, until the ledger knows better.
const BOOT_DEFAULT_AWS: TimeDelta = TimeDelta::minutes(2);
/// SQS's limit on a visibility timeout.
const VISIBILITY_MAX: TimeDelta = TimeDelta::hours(12);
/// SQS's limit on receives before a dead-letter queue takes a message.
const RECEIVES_MAX: u32 = 1_000;
/// The largest gp3 volume.
const DISK_GIB_MAX: u32 = 65_536;
/// Not `halt`, which leaves an EC2 box on and billed (W1).
const POWER_OFF: [&str; 2] = ["systemctl", "poweroff"];
const DEVICES: [&str; 3] = ["auto", "cpu", "cuda"];

pub(super) fn read(text: &str, files: Files<'_>) -> Result<Policy, Problems> {
    let mut sink = Sink::new(text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        let span = error.span().unwrap_or(0..0);
        sink.add(span, "", error.message().to_owned(), None);
    }
    if !sink.is_empty() {
        return Err(sink.into_problems());
    }
    let mut root = Section::new(String::new(), 0..0, document.get_ref(), &mut sink);
    let cloud = cloud(root.section("cloud"));
    let worker = worker(root.section("worker"));
    let prices = (files.prices)(cloud.state.as_deref());
    let cost = cost(root.section("cost"), prices);
    let models: BTreeMap<_, _> = root
        .named("model", |name, section| Some((name.to_owned(), model(section))))
        .into_iter()
        .collect();
    let backend = Backend::of(&cloud, &worker);
    let pools = root.named("pool", |name, section| pool(name, section, &backend, files.dates));
    check_pools(&mut root, &pools);
    aws::check(&mut root, cloud.aws.as_ref(), &pools);
    root.finish();
    if sink.is_empty() {
        Ok(Policy { cloud, worker, models, cost, pools })
    } else {
        Err(sink.into_problems())
    }
}

/// What follows for every pool from where its boxes are.
struct Backend {
    is_aws: bool,
    boot_default: TimeDelta,
    stop_deadline: TimeDelta,
}

impl Backend {
    fn of(cloud: &Cloud, worker: &Worker) -> Self {
        let is_aws = cloud.aws.is_some();
        Self {
            is_aws,
            boot_default: if is_aws { BOOT_DEFAULT_AWS } else { BOOT_DEFAULT },
            stop_deadline: worker.drain + if is_aws { STOP_MARGIN_AWS } else { STOP_MARGIN },
        }
    }
}

/// What a worker needs after its drain deadline to write its last words.
const STOP_MARGIN: TimeDelta = TimeDelta::seconds(15);
/// What EC2 may take to stop a box beyond that: a stop by force before ten minutes seldom helps (`aws.md` 9.1).
const STOP_MARGIN_AWS: TimeDelta = TimeDelta::minutes(10);

fn check_pools(root: &mut Section<'_, '_, '_>, pools: &[Pool]) {
    if !root.has("pool") {
        let hint = "write `[pool.gpu]` with a `queue`, or run `gpuctl init`".to_owned();
        root.problem("pool", 0..0, "there is no pool".to_owned(), Some(hint));
    }
    if pools.len() > POOLS_MAX {
        root.problem("pool", 0..0, format!("more than {POOLS_MAX} pools"), None);
    }
    let mut owners: BTreeMap<&QueueName, &PoolId> = BTreeMap::new();
    for pool in pools {
        // R8: two pools on one queue would each start a box for the same job.
        if let Some(queue) = pool.queue()
            && let Some(first) = owners.insert(&queue.name, &pool.id)
        {
            let message = format!("queue `{}` already belongs to pool `{first}`", queue.name);
            root.problem(
                &format!("pool.{}", pool.id),
                0..0,
                message,
                Some("one queue, one pool".to_owned()),
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
        let message = "names AWS settings, but `kind` is not \"aws\"".to_owned();
        section.problem("", at, message, Some("set `kind = \"aws\"`".to_owned()));
    }
    let tick = if is_aws { TimeDelta::minutes(1) } else { TimeDelta::seconds(1) };
    let cloud = Cloud {
        aws: is_aws.then_some(account),
        state: section.text("state").map(|(_, text)| text),
        file_mib_max: section.whole("file_mib_max", 1..=1_048_576).unwrap_or(4_096),
        tick: section
            .span_of_time("tick", TimeDelta::milliseconds(100)..=TimeDelta::hours(1))
            .unwrap_or(tick),
    };
    section.finish();
    cloud
}

fn worker(mut section: Section<'_, '_, '_>) -> Worker {
    let worker = Worker {
        device: section.word("device", &DEVICES).unwrap_or_else(|| "auto".to_owned()),
        models: section.text("models").map(|(_, text)| text),
        onnxruntime: section.text("onnxruntime").map(|(_, text)| text),
        input_roots: section.texts("input_roots").map(|(_, texts)| texts).unwrap_or_default(),
        threads: section.whole("threads", 1..=1_024).and_then(NonZeroU32::new),
        audio_seconds_max: section.whole("audio_seconds_max", 1..=86_400).unwrap_or(4 * 3_600),
        image_pixels_max: section
            .whole("image_pixels_max", 1..=1_000_000_000)
            .unwrap_or(100_000_000),
        job_max: section
            .span_of_time("job_max", TimeDelta::seconds(1)..=VISIBILITY_MAX)
            .unwrap_or(TimeDelta::hours(1)),
        drain: section
            .span_of_time("drain", TimeDelta::zero()..=TimeDelta::hours(1))
            .unwrap_or(TimeDelta::seconds(30)),
        power_off: section
            .texts("power_off")
            .map_or_else(|| POWER_OFF.map(str::to_owned).to_vec(), |(_, words)| words),
    };
    section.finish();
    worker
}

fn cost(mut section: Section<'_, '_, '_>, prices: PriceTable) -> CostSettings {
    // Who states a price needs no listed one: a Lambda or a box has none of those that were fetched here.
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
            let hint = match key {
                "region" => "`gpuctl cost prices` lists what is known".to_owned(),
                _ => fetch(&text, "REGION"),
            };
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
    // Each may be known and the pair not; a price that is missing must not count as nothing.
    let listed = cost.prices.price(&cost.instance_type, &cost.region);
    if cost.usd_hour.is_none() && listed.is_none() {
        let at = section.span.clone();
        let message = format!("no price is known for {} in {}", cost.instance_type, cost.region);
        let hint = fetch(&cost.instance_type, &cost.region);
        section.problem("", at, message, Some(hint));
    }
    section.finish();
    cost
}

/// A type must have a price before it is named: what is refused here cannot be fetched by a command that reads it here.
fn fetch(instance_type: &str, region: &str) -> String {
    format!(
        "set `usd_hour`; or before it is named here, `gpuctl cost prices --refresh --instance-type {instance_type} --region {region}` fetches its price; `gpuctl cost prices` lists the known ones"
    )
}

fn model(mut section: Section<'_, '_, '_>) -> Model {
    let model = Model { device: section.word("device", &DEVICES) };
    section.finish();
    model
}

fn pool(
    name: &str,
    mut section: Section<'_, '_, '_>,
    backend: &Backend,
    dates: ReadDates<'_>,
) -> Option<Pool> {
    let at = section.span.clone();
    let id = name
        .parse::<PoolId>()
        .map_err(|error| section.problem("", at, error.to_string(), None))
        .ok();
    let minute = TimeDelta::minutes(1);
    let boxes_max = section
        .whole("boxes_max", 1..=BOXES_MAX)
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::MIN);
    let work = work(&mut section, backend);
    let boxes = aws::boxes(&mut section);
    let schedule = schedule::read(&mut section, dates);
    let capacity = capacity(&mut section);
    let capacity_deadline = section
        .span_of_time("capacity_deadline", TimeDelta::zero()..=TimeDelta::days(1))
        .unwrap_or_default();
    let budget =
        Budget { month: section.money("budget_usd_month"), day: section.money("budget_usd_day") };
    let foreign_hold = section
        .span_of_time("foreign_hold", TimeDelta::zero()..=TimeDelta::days(7))
        .unwrap_or(TimeDelta::hours(2));
    let boot_default = section
        .span_of_time("boot_default", TimeDelta::zero()..=TimeDelta::hours(1))
        .unwrap_or(backend.boot_default);
    let run_min =
        section.span_of_time("run_min", TimeDelta::zero()..=TimeDelta::days(1)).unwrap_or_default();
    let boot_deadline = section
        .span_of_time("boot_deadline", TimeDelta::seconds(1)..=TimeDelta::hours(1))
        .unwrap_or(minute * 5);
    let lifetime_max = section
        .span_of_time("lifetime_max", minute..=TimeDelta::days(3_650))
        .unwrap_or(TimeDelta::hours(24));
    // No more starts can be counted than an observation remembers.
    let starts_per_hour_max = section
        .whole("starts_per_hour_max", 1..=RUNS_REMEMBERED_MAX)
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::new(60).expect("sixty is not zero"));
    let starts_without_result_max = section
        .whole("starts_without_result_max", 1..=RUNS_REMEMBERED_MAX)
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::new(3).expect("three is not zero"));
    section.finish();
    Some(Pool {
        id: id?,
        work: work?,
        boxes,
        boxes_max,
        schedule,
        capacity,
        capacity_deadline,
        budget,
        foreign_hold,
        boot_default,
        run_min,
        boot_deadline,
        lifetime_max,
        stop_deadline: backend.stop_deadline,
        starts_per_hour_max,
        starts_without_result_max,
    })
}

fn capacity(section: &mut Section<'_, '_, '_>) -> Vec<CapacityType> {
    let both = vec![CapacityType::Spot, CapacityType::OnDemand];
    let Some((span, names)) = section.texts("capacity") else { return both };
    let mut order: Vec<CapacityType> = Vec::new();
    for name in &names {
        match name.parse::<CapacityType>() {
            Ok(one) if order.contains(&one) => {
                section.problem("capacity", span.clone(), format!("names `{one}` twice"), None);
            }
            Ok(one) => order.push(one),
            Err(error) => section.problem("capacity", span.clone(), error.to_string(), None),
        }
    }
    if names.is_empty() {
        let hint = "leave it out for `[\"spot\", \"on-demand\"]`".to_owned();
        section.problem("capacity", span, "is empty".to_owned(), Some(hint));
    }
    order
}

/// Keys that give a pool without queue and command a sense.
const BOX_ONLY: [&str; 4] = ["schedule", "instances", "select", "launch_template"];

fn work(section: &mut Section<'_, '_, '_>, backend: &Backend) -> Option<Work> {
    let command = section.texts("command");
    let queue = section.parsed::<QueueName>("queue");
    let settings = queue_settings(section);
    let at = section.span.clone();
    match (command, section.has("queue")) {
        (Some((span, _)), true) => {
            let hint = "a pool either drains a queue or runs a command".to_owned();
            section.problem("command", span, "stands beside `queue`".to_owned(), Some(hint));
            None
        }
        (Some((span, command)), false) if command.is_empty() || command[0].is_empty() => {
            section.problem("command", span, "is empty".to_owned(), None);
            None
        }
        (Some((_, command)), false) => Some(Work::Command(command)),
        (None, true) => queue.map(|name| Work::Queue(QueuePolicy { name, ..settings })),
        (None, false) if section.has("command") => None,
        (None, false) if backend.is_aws || BOX_ONLY.iter().any(|key| section.has(key)) => {
            Some(Work::BoxOnly)
        }
        (None, false) => {
            let hint = "give it `queue = \"jobs\"` or `command = [\"./server\"]`".to_owned();
            section.problem(
                "",
                at,
                "has neither `queue`, `command` nor a schedule".to_owned(),
                Some(hint),
            );
            None
        }
    }
}

fn queue_settings(section: &mut Section<'_, '_, '_>) -> QueuePolicy {
    let day = TimeDelta::days(1);
    let second = TimeDelta::seconds(1);
    let depth = |section: &mut Section<'_, '_, '_>, key| {
        section.whole(key, 1..=1_000_000).and_then(NonZeroU32::new)
    };
    QueuePolicy {
        // Replaced by the caller, who knows whether there is a queue at all.
        name: "unnamed".parse().expect("a plain word is a name"),
        max_wait: section
            .span_of_time("max_wait", TimeDelta::zero()..=day * 14)
            .unwrap_or_default(),
        start_depth: depth(section, "start_depth"),
        jobs_per_box: depth(section, "jobs_per_box"),
        idle_stop: idle_stop(section),
        visibility: section
            .span_of_time("visibility", second..=VISIBILITY_MAX)
            .unwrap_or(second * 60),
        receives_max: section
            .whole("receives_max", 1..=RECEIVES_MAX)
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::new(5).expect("five is not zero")),
        reports: section.word("worker", &["gpu-worker", "own"]).as_deref() != Some("own"),
    }
}

fn idle_stop(section: &mut Section<'_, '_, '_>) -> IdleStop {
    let Some((span, text)) = section.text("idle_stop") else { return IdleStop::Auto };
    if text == "auto" {
        return IdleStop::Auto;
    }
    match parse_span(&text) {
        Ok(after) => IdleStop::After(after),
        Err(error) => {
            section.problem("idle_stop", span, error.to_string(), Some("or `auto`".to_owned()));
            IdleStop::Auto
        }
    }
}
