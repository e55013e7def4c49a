//! The layout of the table: keys, and each item's attributes. No other file builds or reads an item's attributes, except for
//! update expressions.
//!
//! | `pk` | `sk` | what |
//! |---|---|---|
//! | `loop` | `lease` | the lease of the reconcile: `owner`, `number`, `until`, `nonce`; without it the next number is that of the time |
//! | `pool#POOL` | `hold` | the latest hold |
//! | `pool#POOL` | `mean#BOX` | the mean time of this box's jobs |
//! | `pool#POOL` | `queue` | the queue as last read |
//! | `pool#POOL` | `run#START#BOX` | a run |
//! | `open` | `POOL#START#BOX` | the same run while it is open |
//! | `ended#YYYY-MM` | `END#POOL#BOX#START` | the same run once it is over, in the month of its end |
//! | `box#BOX` | `report`, `report#DEVICE` | its worker's latest report, or one for each device |
//! | `records` | `TIME#ID` | a record, with `repeats` |
//! | `told` | `KEY` | when this notice was last published |
//! | `request#ID` | `seen` | when this request to the function was delivered first |
//! | `urgent#QUEUE` | `BEGIN_BY#JOB#GENERATION` | a job that waits and has a `max_wait` of its own |
//! | `keys` | `NAME` | a key of the HTTP API: its digest, scopes, and when it was revoked and last used |
//! | `queue#QUEUE` | `changes` | when it was last purged or redriven through gpuctl |
//!
//! Jobs and their results are in `job_items`.
//!
//! `fence` is the number of the reconcile lease under which an item was last written. Times are microseconds since 1970; in keys they have 17 digits, so that they sort. `v` is the layout's version, `expires` the
//! second after which DynamoDB may delete the item.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{Datelike, TimeDelta};
use gpuctl_control::job::JobId;
use gpuctl_control::ports::{
    PortError, PortErrorClass, Purge, QueueChange, QueueMemory, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{BootPhase, Hold, HoldWants, Run, SeenQueue, WorkerFault};
use gpuctl_core::offering::{Offering, Refusal, RefusalClass};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::{BoxId, MicroUsd, PoolId, QueueName, Timestamp};

/// The layout's version. An item with a higher one was written by a newer gpuctl, and is not read.
pub(super) const VERSION: i64 = 1;

/// How long runs are kept after their end: a year's bills, and a month more.
pub(super) const RUNS_KEPT: TimeDelta = TimeDelta::days(400);

/// An item as DynamoDB has it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// An item's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) pk: String,
    pub(super) sk: String,
}

impl Key {
    /// The partition of records.
    pub(super) const RECORDS: &str = "records";
    /// The partition of open runs.
    pub(super) const OPEN: &str = "open";

    pub(super) fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    pub(super) fn of(item: &Item) -> Result<Self, PortError> {
        let reader = Reader(item);
        Ok(Self::new(reader.text("pk")?, reader.text("sk")?))
    }

    pub(super) fn lease() -> Self {
        Self::new("loop", "lease")
    }

    pub(super) fn notice(key: &str) -> Self {
        Self::new("told", key)
    }

    pub(super) fn request(id: &str) -> Self {
        Self::new(format!("request#{id}"), "seen")
    }

    pub(super) fn pool(pool: &PoolId) -> String {
        format!("pool#{pool}")
    }

    pub(super) fn run(run: &Run) -> Self {
        let sk = format!("run#{}#{}", digits(run.started_at), run.box_id);
        Self::new(Self::pool(&run.pool), sk)
    }

    pub(super) fn open(run: &Run) -> Self {
        let sk = format!("{}#{}#{}", run.pool, digits(run.started_at), run.box_id);
        Self::new(Self::OPEN, sk)
    }

    pub(super) fn ended(run: &Run, at: Timestamp) -> Self {
        let (end, begin) = (digits(at), digits(run.started_at));
        Self::new(Self::ended_in(at), format!("{end}#{}#{}#{begin}", run.pool, run.box_id))
    }

    pub(super) fn ended_in(month: Timestamp) -> String {
        format!("ended#{}", month_name(month))
    }

    /// A worker's report; of a box whose devices have a worker each, one for each device.
    fn report(box_id: &BoxId, device: Option<&str>) -> Self {
        let device = device.map(|device| format!("#{device}")).unwrap_or_default();
        Self::new(Self::of_box(box_id), format!("{}{device}", Self::REPORT))
    }

    /// The beginning of the sort keys of a box's reports.
    pub(super) const REPORT: &str = "report";

    pub(super) fn of_box(box_id: &BoxId) -> String {
        format!("box#{box_id}")
    }

    /// Sorts between the pool's hold and its queue.
    pub(super) fn mean(pool: &PoolId, box_id: &BoxId) -> Self {
        Self::new(Self::pool(pool), format!("mean#{box_id}"))
    }

    pub(super) fn record(at: &str, unique: &str) -> Self {
        Self::new(Self::RECORDS, format!("{at}#{unique}"))
    }

    pub(super) fn queue_changes(queue: &QueueName) -> Self {
        Self::new(format!("queue#{queue}"), "changes")
    }
}

/// A time in a key: seventeen digits, which last until the year 5138.
pub(super) fn digits(at: Timestamp) -> String {
    format!("{:017}", at.timestamp_micros().max(0))
}

pub(super) fn month_name(at: Timestamp) -> String {
    format!("{:04}-{:02}", at.year(), at.month())
}

/// The time of a UUID of version 7, its first 48 bits (RFC 9562, section 5.7); `None` for other ids.
pub(super) fn id_time(id: &JobId) -> Option<Timestamp> {
    let id = uuid::Uuid::parse_str(id.as_str()).ok()?;
    let (seconds, nanos) = id.get_timestamp().filter(|_| id.get_version_num() == 7)?.to_unix();
    Timestamp::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// The beginning of the smallest UUID of version 7 of this time, for ranges.
pub(super) fn first_id(at: Timestamp) -> String {
    let millis = format!("{:012x}", at.timestamp_millis().max(0));
    format!("{}-{}", &millis[..8], &millis[8..])
}

/// Builds an item.
pub(super) struct Writer(Item);

impl Writer {
    pub(super) fn new(key: &Key) -> Self {
        Self(HashMap::new()).text("pk", &key.pk).text("sk", &key.sk).number("v", VERSION)
    }

    pub(super) fn value(mut self, name: &str, value: AttributeValue) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    pub(super) fn text(self, name: &str, value: impl Into<String>) -> Self {
        self.value(name, AttributeValue::S(value.into()))
    }

    pub(super) fn text_if(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    pub(super) fn number(self, name: &str, value: i64) -> Self {
        self.value(name, number(value))
    }

    fn number_if(self, name: &str, value: Option<i64>) -> Self {
        match value {
            Some(value) => self.number(name, value),
            None => self,
        }
    }

    pub(super) fn time(self, name: &str, at: Timestamp) -> Self {
        self.value(name, time(at))
    }

    pub(super) fn time_if(self, name: &str, at: Option<Timestamp>) -> Self {
        self.number_if(name, at.map(|at| at.timestamp_micros()))
    }

    /// A count, at most `i64::MAX`.
    fn count(self, name: &str, count: u64) -> Self {
        self.number(name, i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn done(self) -> Item {
        self.0
    }
}

/// Reads an item.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a Item);

impl<'a> Reader<'a> {
    pub(super) fn text_if(self, name: &str) -> Option<&'a String> {
        self.0.get(name)?.as_s().ok()
    }

    pub(super) fn text(self, name: &str) -> Result<&'a String, PortError> {
        self.text_if(name).ok_or_else(|| self.unreadable(name))
    }

    /// A text in the form that `T` parses.
    pub(super) fn parsed<T: std::str::FromStr>(self, name: &str) -> Result<T, PortError> {
        self.text(name)?.parse().map_err(|_| self.unreadable(name))
    }

    pub(super) fn number_if(self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_n().ok()?.parse().ok()
    }

    pub(super) fn number(self, name: &str) -> Result<i64, PortError> {
        self.number_if(name).ok_or_else(|| self.unreadable(name))
    }

    fn count(self, name: &str) -> Result<u64, PortError> {
        u64::try_from(self.number(name)?).map_err(|_| self.unreadable(name))
    }

    pub(super) fn small(self, name: &str) -> Result<u32, PortError> {
        u32::try_from(self.number(name)?).map_err(|_| self.unreadable(name))
    }

    pub(super) fn bool_if(self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool().ok().copied()
    }

    pub(super) fn time_if(self, name: &str) -> Option<Timestamp> {
        self.number_if(name).map(from_micros)
    }

    pub(super) fn time(self, name: &str) -> Result<Timestamp, PortError> {
        self.number(name).map(from_micros)
    }

    /// Rejects an item that a newer gpuctl wrote.
    pub(super) fn known(self) -> Result<Self, PortError> {
        let version = self.number_if("v").unwrap_or(VERSION);
        if version <= VERSION {
            return Ok(self);
        }
        let what = format!(
            "{} has version {version}, but this gpuctl knows only up to {VERSION}",
            self.named()
        );
        Err(PortError::new(PortErrorClass::TooNew, what)
            .hint("update gpuctl, or use another table"))
    }

    pub(super) fn unreadable(self, name: &str) -> PortError {
        let what = format!("{} cannot be read: its `{name}` is missing or unknown", self.named());
        PortError::new(PortErrorClass::Corrupt, what)
            .hint("delete that item; nothing else is affected")
    }

    fn named(self) -> String {
        let part = |name| self.text_if(name).map_or("?", String::as_str);
        format!("the ledger's item {} / {}", part("pk"), part("sk"))
    }
}

pub(super) fn number(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn time(at: Timestamp) -> AttributeValue {
    number(at.timestamp_micros())
}

/// When DynamoDB may delete an item: whole seconds.
pub(super) fn expires(at: Timestamp) -> AttributeValue {
    number(at.timestamp())
}

pub(super) fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(micros).unwrap_or_default()
}

pub(super) fn hold(hold: &Hold) -> Item {
    let key = Key::new(Key::pool(&hold.pool), "hold");
    let wants = match hold.wants {
        HoldWants::Running => "running",
        HoldWants::Stopped => "stopped",
    };
    Writer::new(&key)
        .text("pool", hold.pool.as_str())
        .text("wants", wants)
        .time("since", hold.since)
        .time("until", hold.until)
        .text("by", &hold.by)
        .text_if("why", hold.why.as_ref())
        .number_if("over_budget", hold.over_budget.map(|most| most.0))
        .value("until_empty", AttributeValue::Bool(hold.until_empty))
        .done()
}

pub(super) fn hold_of(item: &Item) -> Result<Hold, PortError> {
    let item = Reader(item).known()?;
    let wants = match item.text("wants")?.as_str() {
        "running" => HoldWants::Running,
        "stopped" => HoldWants::Stopped,
        _ => return Err(item.unreadable("wants")),
    };
    Ok(Hold {
        pool: item.parsed("pool")?,
        wants,
        since: item.time("since")?,
        until: item.time("until")?,
        by: item.text("by")?.clone(),
        why: item.text_if("why").cloned(),
        over_budget: item.number_if("over_budget").map(MicroUsd),
        until_empty: item.bool_if("until_empty").unwrap_or_default(),
    })
}

pub(super) fn queue_memory(pool: &PoolId, memory: &QueueMemory) -> Item {
    let seen = &memory.seen;
    Writer::new(&Key::new(Key::pool(pool), "queue"))
        .time("at", memory.at)
        .count("visible", seen.visible)
        .count("in_flight", seen.in_flight)
        .count("delayed", seen.delayed)
        .count("dead", seen.dead)
        .time_if("oldest_sent_at", seen.oldest_sent_at)
        .time_if("empty_since", seen.empty_since)
        .done()
}

pub(super) fn queue_memory_of(item: &Item) -> Result<QueueMemory, PortError> {
    let item = Reader(item).known()?;
    let seen = SeenQueue {
        visible: item.count("visible")?,
        in_flight: item.count("in_flight")?,
        delayed: item.count("delayed")?,
        dead: item.count("dead")?,
        oldest_sent_at: item.time_if("oldest_sent_at"),
        empty_since: item.time_if("empty_since"),
    };
    Ok(QueueMemory { seen, at: item.time("at")? })
}

/// What is stored of a run beside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Grows with each change, and is what a change is conditional on.
    pub(super) revision: i64,
    /// The newest fence under which it was written.
    pub(super) fence: Option<i64>,
}

impl Written {
    pub(super) fn of(item: &Item) -> Result<Self, PortError> {
        let item = Reader(item);
        Ok(Self { revision: item.number("revision")?, fence: item.number_if("fence") })
    }
}

/// A run under one of its keys.
pub(super) fn run(key: &Key, run: &Run, written: Written) -> Item {
    let offering = run.offering.as_ref();
    let refusal = run.refusal.as_ref();
    let written = Writer::new(key)
        .number("revision", written.revision)
        .number_if("fence", written.fence)
        .text("pool", run.pool.as_str())
        .text("box", run.box_id.as_str())
        .time("started_at", run.started_at)
        .time_if("ready_at", run.ready_at)
        .time_if("stopping_at", run.stopping_at)
        .time_if("stopped_at", run.stopped_at)
        .text("start_rule", run.start.rule.as_str())
        .text("start_text", &run.start.text)
        .text_if("stop_rule", run.stop.as_ref().map(|reason| reason.rule.as_str()))
        .text_if("stop_text", run.stop.as_ref().map(|reason| &reason.text))
        .text_if("error", run.error.as_ref())
        .number_if("jobs", run.jobs.map(i64::from))
        .text_if("instance_type", offering.map(|one| &one.instance_type))
        .text_if("zone", offering.map(|one| &one.zone))
        .text_if("capacity", offering.map(|one| one.capacity.as_str()))
        .text_if("refusal_class", refusal.map(|one| one.class.as_str()))
        .text_if("refusal_text", refusal.map(|one| &one.text))
        .time_if("interrupted_at", run.interrupted_at);
    match run.stopped_at {
        // An open run does not expire: its box costs money.
        Some(ended) => written.value("expires", expires(ended + RUNS_KEPT)).done(),
        None => written.done(),
    }
}

pub(super) fn run_of(item: &Item) -> Result<Run, PortError> {
    let item = Reader(item).known()?;
    Ok(Run {
        pool: item.parsed("pool")?,
        box_id: item.parsed("box")?,
        started_at: item.time("started_at")?,
        ready_at: item.time_if("ready_at"),
        stopping_at: item.time_if("stopping_at"),
        stopped_at: item.time_if("stopped_at"),
        start: reason(item, "start_rule", "start_text")?,
        stop: match item.text_if("stop_rule") {
            Some(_) => Some(reason(item, "stop_rule", "stop_text")?),
            None => None,
        },
        error: item.text_if("error").cloned(),
        jobs: item.number_if("jobs").and_then(|jobs| u32::try_from(jobs).ok()),
        offering: offering(item)?,
        refusal: refusal(item)?,
        interrupted_at: item.time_if("interrupted_at"),
    })
}

fn reason(item: Reader<'_>, rule: &str, text: &str) -> Result<Reason, PortError> {
    let named = Rule::from_name(item.text(rule)?).ok_or_else(|| item.unreadable(rule))?;
    Ok(Reason::new(named, item.text(text)?))
}

fn offering(item: Reader<'_>) -> Result<Option<Offering>, PortError> {
    let Some(instance_type) = item.text_if("instance_type").cloned() else { return Ok(None) };
    let (zone, capacity) = (item.text("zone")?.clone(), item.parsed("capacity")?);
    Ok(Some(Offering { instance_type, zone, capacity }))
}

fn refusal(item: Reader<'_>) -> Result<Option<Refusal>, PortError> {
    let Some(name) = item.text_if("refusal_class") else { return Ok(None) };
    let class = RefusalClass::from_name(name).ok_or_else(|| item.unreadable("refusal_class"))?;
    Ok(Some(Refusal { class, text: item.text("refusal_text")?.clone() }))
}

pub(super) fn report(report: &WorkerReport) -> Item {
    let fault = report.fault.as_ref();
    let phases = BootPhase::write_all(&report.boot_phases);
    Writer::new(&Key::report(&report.box_id, report.device.as_deref()))
        .text_if("device", report.device.as_ref())
        .text("box", report.box_id.as_str())
        .time("run_started_at", report.run_started_at)
        .time("at", report.at)
        .number("pid", i64::from(report.pid))
        .time_if("ready_at", report.ready_at)
        .number("leases", i64::from(report.leases))
        .time_if("idle_since", report.idle_since)
        .number("jobs_done", i64::from(report.jobs_done))
        .text_if("last_error", report.last_error.as_ref())
        .text_if("fault_code", fault.map(|fault| &fault.code))
        .text_if("fault_message", fault.map(|fault| &fault.message))
        .time_if("fault_since", fault.map(|fault| fault.since))
        .time_if("keep_until", report.keep_until)
        .time_if("rebalance", report.rebalance)
        .text_if("boot_phases", (!phases.is_empty()).then_some(phases))
        .value("expires", expires(report.at + RUNS_KEPT))
        .done()
}

pub(super) fn report_of(item: &Item) -> Result<WorkerReport, PortError> {
    let item = Reader(item).known()?;
    Ok(WorkerReport {
        box_id: item.parsed("box")?,
        device: item.text_if("device").cloned(),
        run_started_at: item.time("run_started_at")?,
        at: item.time("at")?,
        pid: item.small("pid")?,
        ready_at: item.time_if("ready_at"),
        leases: item.small("leases")?,
        idle_since: item.time_if("idle_since"),
        jobs_done: item.small("jobs_done")?,
        last_error: item.text_if("last_error").cloned(),
        fault: fault(item)?,
        keep_until: item.time_if("keep_until"),
        rebalance: item.time_if("rebalance"),
        boot_phases: item
            .text_if("boot_phases")
            .map(|text| BootPhase::read_all(text))
            .unwrap_or_default(),
    })
}

fn fault(item: Reader<'_>) -> Result<Option<WorkerFault>, PortError> {
    let Some(code) = item.text_if("fault_code").cloned() else { return Ok(None) };
    let (message, since) = (item.text("fault_message")?.clone(), item.time("fault_since")?);
    Ok(Some(WorkerFault { code, message, since }))
}

/// Whether a stored record says the same as this one; one that cannot be read does not.
pub(super) fn is_same_record(item: &Item, record: &Record) -> bool {
    let last = Reader(item).text_if("record").and_then(|text| serde_json::from_str(text).ok());
    last.is_some_and(|last: Record| last.says_the_same(record))
}

/// The last purges and redrives of a queue, with their times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueChanges {
    pub(super) purged_live_at: Option<Timestamp>,
    pub(super) purged_dead_at: Option<Timestamp>,
    pub(super) redriven_at: Option<Timestamp>,
}

impl QueueChanges {
    pub(super) fn of(item: &Item) -> Self {
        let item = Reader(item);
        Self {
            purged_live_at: item.time_if(change_name(QueueChange::Purged(Purge::Live))),
            purged_dead_at: item.time_if(change_name(QueueChange::Purged(Purge::Dead))),
            redriven_at: item.time_if(change_name(QueueChange::Redriven)),
        }
    }
}

/// The attribute that notes it.
pub(super) fn change_name(change: QueueChange) -> &'static str {
    match change {
        QueueChange::Purged(Purge::Live) => "purged_live_at",
        QueueChange::Purged(Purge::Dead) => "purged_dead_at",
        QueueChange::Redriven => "redriven_at",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_795_000_000 + seconds, 123_456_000).unwrap()
    }

    fn full_run() -> Run {
        let begun = Run::begin(
            "gpu".parse().unwrap(),
            "i-0123".parse().unwrap(),
            at(0),
            Reason::new(Rule::Demand, "1 job waits"),
        );
        Run {
            ready_at: Some(at(1)),
            stopping_at: Some(at(2)),
            stopped_at: Some(at(3)),
            stop: Some(Reason::new(Rule::Idle, "idle")),
            error: Some("e".to_owned()),
            jobs: Some(4),
            offering: Some(Offering {
                instance_type: "g4dn.xlarge".to_owned(),
                zone: "a".to_owned(),
                capacity: gpuctl_core::offering::CapacityType::OnDemand,
            }),
            refusal: Some(Refusal { class: RefusalClass::Quota, text: "no".to_owned() }),
            interrupted_at: Some(at(5)),
            ..begun
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let full = full_run();
        let bare = Run::begin(full.pool.clone(), full.box_id.clone(), at(0), full.start.clone());
        for one in [full, bare] {
            assert_eq!(run_of(&run(&Key::run(&one), &one, Written::default())).unwrap(), one);
        }
        let a_hold = Hold {
            pool: "gpu".parse().unwrap(),
            wants: HoldWants::Stopped,
            since: at(0),
            until: at(1),
            by: "ada".to_owned(),
            why: Some(String::new()),
            over_budget: Some(MicroUsd(-1)),
            until_empty: false,
        };
        assert_eq!(hold_of(&hold(&a_hold)).unwrap(), a_hold);
        let a_report = WorkerReport {
            box_id: "i-0123".parse().unwrap(),
            device: Some("cuda:1".to_owned()),
            run_started_at: at(0),
            at: at(1),
            pid: u32::MAX,
            ready_at: Some(at(1)),
            leases: 3,
            idle_since: None,
            jobs_done: 7,
            last_error: Some("e".to_owned()),
            fault: Some(WorkerFault {
                code: "models.missing".to_owned(),
                message: "models are missing".to_owned(),
                since: at(2),
            }),
            keep_until: Some(at(9)),
            rebalance: Some(at(7)),
            boot_phases: BootPhase::read_all("kernel 3200\nmodels 6300\n"),
        };
        assert_eq!(report_of(&report(&a_report)).unwrap(), a_report);
    }

    #[test]
    fn an_item_of_a_newer_gpuctl_is_rejected_and_a_damaged_one_is_named() {
        let run_item = || run(&Key::run(&full_run()), &full_run(), Written::default());
        let mut newer = run_item();
        newer.insert("v".to_owned(), number(VERSION + 1));
        assert_eq!(run_of(&newer).unwrap_err().class, PortErrorClass::TooNew);
        for name in ["pool", "box", "started_at", "start_rule", "zone", "capacity", "refusal_text"]
        {
            let mut damaged = run_item();
            damaged.remove(name);
            let error = run_of(&damaged).unwrap_err();
            assert_eq!(error.class, PortErrorClass::Corrupt);
            assert!(error.what.contains(name) && error.what.contains("pool#gpu"), "{error}");
        }
    }

    #[test]
    fn keys_sort_by_time() {
        assert!(digits(at(0)) < digits(at(1)));
        let now = at(86_400);
        let (first, id) = (first_id(now), JobId::new(now));
        assert!(first.as_str() <= id.as_str() && id_time(&id).is_some_and(|time| time >= at(0)));
    }
}
