//! A week drawn from a seed: policy, boxes, jobs and operators' actions. `faults` draws the faults.
//!
//! Each part has a random stream of its own, so that fewer jobs or boxes leave the rest as it was. Shrinking depends on that.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_core::observation::HoldWants;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::policy::{Policy, Problems};
use gpuctl_core::units::{MicroUsd, Timestamp};
use gpuctl_core::without::Fix;

use crate::chance::Chance;
use crate::faults::{Fault, Faults, Window};
use crate::replay::instant;

/// The hours of a whole week.
pub const WEEK_HOURS: u32 = 168;
/// The shortest week that leaves room for an end without faults.
pub const HOURS_MIN: u32 = 24;
/// How long before the end the last fault and the last hold end: a quota refusal is in force for six hours, and a poison job may
/// delay its neighbours for an hour each time.
pub(crate) const FAULTLESS_END_HOURS: u32 = 16;
/// How long before the end the last job arrives.
const JOBLESS_END_HOURS: u32 = 10;
/// Maximum number of jobs in a week.
const JOBS_MAX: i64 = 160;

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// A subset of a week, to shrink a failure. `None` leaves a part whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Only these kinds of faults.
    pub faults: Option<BTreeSet<Fault>>,
    /// The length of the week, within `HOURS_MIN..=WEEK_HOURS`.
    pub hours: Option<u32>,
    /// Number of boxes, from the first.
    pub boxes: Option<usize>,
    /// Number of jobs, from the first.
    pub jobs: Option<usize>,
    /// The fixes that are left out, where the feature `without` is on.
    pub without: BTreeSet<Fix>,
}

/// A week as it was drawn.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// The policy as a user would write it.
    pub policy_text: String,
    pub(crate) policy: Arc<Policy>,
    pub(crate) begin: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) boxes: Vec<BoxKind>,
    pub(crate) jobs: Vec<JobKind>,
    pub(crate) operator_actions: Vec<(Timestamp, OperatorAction)>,
    pub(crate) faults: Faults,
}

/// An instance that the week begins with.
#[derive(Clone, Debug)]
pub(crate) struct BoxKind {
    pub(crate) zone: &'static str,
    pub(crate) market: CapacityType,
    /// When its spot request ends (P7).
    pub(crate) valid_until: Option<Timestamp>,
}

/// A job that will be submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobKind {
    pub(crate) at: Timestamp,
    pub(crate) service: TimeDelta,
    pub(crate) outcome: JobOutcome,
}

/// How a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobOutcome {
    /// With a result.
    Succeeds,
    /// With an error as its result.
    Fails,
    /// It crashes its worker, each time.
    Poison,
    /// Its message is not a job, and ends in the dead letters.
    Garbage,
}

/// What an operator does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OperatorAction {
    /// `gpuctl start` or `stop`.
    Hold { wants: HoldWants, lasts: TimeDelta, over_budget: Option<MicroUsd> },
    /// `gpuctl release`.
    Release,
    /// A start in the console of the initial instance of this index.
    ConsoleStart(usize),
    /// A stop in the console of the initial instance of this index.
    ConsoleStop(usize),
}

impl Scenario {
    /// Draws a week.
    ///
    /// # Errors
    /// When the drawn policy is invalid, which is a bug in `policy_text`.
    pub fn draw(seed: u64, only: &Only) -> Result<Self, Problems> {
        let hours = only.hours.unwrap_or(WEEK_HOURS).clamp(HOURS_MIN, WEEK_HOURS);
        let begin = instant(0);
        let end = begin + TimeDelta::hours(i64::from(hours));
        let faults_end = end - TimeDelta::hours(i64::from(FAULTLESS_END_HOURS));
        // Windows are drawn in the whole week and cut off with it, so that fewer hours leave the rest as it was.
        let week_faults_end = begin + TimeDelta::hours(i64::from(WEEK_HOURS - FAULTLESS_END_HOURS));
        let faults =
            Faults::draw(seed, Window { from: begin, to: week_faults_end }, only.faults.as_ref())
                .cut_at(faults_end);
        let policy_text = policy_text(seed);
        let policy = Arc::new(Policy::parse(&policy_text)?);
        let mut boxes = boxes(seed, &faults);
        boxes.truncate(only.boxes.unwrap_or(usize::MAX).max(1));
        let quiet = end - TimeDelta::hours(i64::from(JOBLESS_END_HOURS));
        let mut jobs = jobs(seed, &faults, begin);
        jobs.retain(|job| job.at < quiet);
        jobs.truncate(only.jobs.unwrap_or(usize::MAX));
        let mut operator_actions = operator_actions(seed, &faults, begin);
        operator_actions.retain(|(at, _)| *at < faults_end);
        for (at, action) in &mut operator_actions {
            if let OperatorAction::Hold { lasts, .. } = action {
                *lasts = (*lasts).min(faults_end - *at);
            }
        }
        Ok(Self { seed, policy_text, policy, begin, end, boxes, jobs, operator_actions, faults })
    }
}

/// Without `kind = "aws"`: then a box that does not stop is forced off 15 s after its drain rather than after EC2's ten minutes, so
/// forced stops are frequent. The boot settings that `aws` would change are set explicitly.
fn policy_text(seed: u64) -> String {
    let mut chance = Chance::stream(seed, "policy");
    let mut text = "[cloud]\ntick = \"60s\"\n[worker]\n".to_owned();
    let _ = writeln!(text, "drain = \"{}s\"\njob_max = \"20m\"", chance.pick(&[10, 30, 60]));
    text += "[cost]\nregion = \"us-east-1\"\n[pool.gpu]\nqueue = \"jobs\"\nboot_default = \"2m\"\nboot_deadline = \"10m\"\n";
    let mut set = |name: &str, values: &[&str]| {
        let _ = writeln!(text, "{name} = {}", chance.pick(values));
    };
    set("max_wait", &["\"0s\"", "\"2m\"", "\"10m\"", "\"1h\""]);
    set("boxes_max", &["1", "1", "2", "3"]);
    set("idle_stop", &["\"auto\"", "\"auto\"", "\"0s\"", "\"1m\"", "\"5m\""]);
    set("run_min", &["\"0s\"", "\"0s\"", "\"5m\""]);
    set("visibility", &["\"60s\"", "\"120s\"", "\"5m\""]);
    set("receives_max", &["3", "5", "8"]);
    set("lifetime_max", &["\"1h\"", "\"4h\"", "\"24h\""]);
    set("starts_per_hour_max", &["4", "6", "12"]);
    set("capacity_deadline", &["\"0s\"", "\"0s\"", "\"3m\""]);
    set("foreign_hold", &["\"0s\"", "\"30m\"", "\"2h\""]);
    let both = "[\"spot\", \"on-demand\"]";
    set("capacity", &[both, both, both, "[\"on-demand\", \"spot\"]"]);
    if chance.permille(300) {
        let _ = writeln!(text, "start_depth = {}", chance.pick(&[3, 10]));
    }
    if chance.permille(250) {
        let budget = ["budget_usd_day = 0.2", "budget_usd_day = 1", "budget_usd_month = 3"];
        let _ = writeln!(text, "{}", chance.pick(&budget));
    }
    if chance.permille(300) {
        let window = ["begin = \"09:00\"\nend = \"11:00\"", "begin = \"22:00\"\nend = \"01:30\""];
        let _ = writeln!(
            text,
            "[[pool.gpu.schedule]]\nzone = \"Asia/Tokyo\"\nweekdays = \"mon-thu\"\n{}",
            chance.pick(&window)
        );
    }
    text
}

/// One to four boxes; the first is on demand, so that there is always one that can start.
fn boxes(seed: u64, faults: &Faults) -> Vec<BoxKind> {
    let mut chance = Chance::stream(seed, "boxes");
    let count = chance.between(1, 4);
    let mut ends = Chance::stream(seed, "request ends");
    (0..count)
        .map(|index| {
            let spot = index > 0 && chance.permille(700);
            let zone = chance.pick(&ZONES);
            let window = faults.windows(Fault::RequestEnds).first();
            let within = |window: &Window| {
                let minutes = (window.to - window.from).num_minutes();
                window.from + TimeDelta::minutes(ends.between(0, minutes))
            };
            let valid_until = window.map(within).filter(|_| spot);
            let market = if spot { CapacityType::Spot } else { CapacityType::OnDemand };
            BoxKind { zone, market, valid_until }
        })
        .collect()
}

/// Single jobs or bursts.
fn jobs(seed: u64, faults: &Faults, begin: Timestamp) -> Vec<JobKind> {
    let mut chance = Chance::stream(seed, "jobs");
    let mut outcomes = Chance::stream(seed, "job natures");
    let count = chance.between(4, JOBS_MAX);
    let burst = chance.pick(&[1, 1, 8, 40]);
    let service_mean_ms = chance.pick(&[3_000, 20_000, 60_000, 180_000]);
    let week_ms = i64::from(WEEK_HOURS - JOBLESS_END_HOURS) * 3_600_000;
    let quiet_mean_ms = week_ms / (count / burst).max(1);
    let mut at = begin;
    let one = |index| {
        let gap_ms = if index % burst == 0 { quiet_mean_ms } else { 2_000 };
        at += TimeDelta::milliseconds(chance.exponential_ms(gap_ms));
        // One job in 160,000 would be longer, and would only slow the week down.
        let service_ms = chance.exponential_ms(service_mean_ms).min(12 * service_mean_ms);
        let mut happens = |fault| {
            let drawn = outcomes.permille(200);
            faults.strength(fault, at) > 0 && drawn
        };
        let outcome = match (happens(Fault::Poison), happens(Fault::Garbage)) {
            (true, _) => JobOutcome::Poison,
            (_, true) => JobOutcome::Garbage,
            _ if index % 23 == 7 => JobOutcome::Fails,
            _ => JobOutcome::Succeeds,
        };
        JobKind { at, service: TimeDelta::milliseconds(service_ms), outcome }
    };
    (0..count).map(one).collect()
}

fn operator_actions(
    seed: u64,
    faults: &Faults,
    begin: Timestamp,
) -> Vec<(Timestamp, OperatorAction)> {
    let mut chance = Chance::stream(seed, "people");
    let minutes = i64::from(WEEK_HOURS) * 60;
    let mut operator_actions = Vec::new();
    for _ in 0..chance.between(0, 6) {
        let at = begin + TimeDelta::minutes(chance.between(0, minutes));
        let wants = if chance.permille(500) { HoldWants::Running } else { HoldWants::Stopped };
        let lasts = TimeDelta::minutes(chance.pick(&[10, 60, 300]));
        let over_budget = chance.permille(300).then_some(MicroUsd(200_000));
        operator_actions.push((at, OperatorAction::Hold { wants, lasts, over_budget }));
        if chance.permille(300) {
            operator_actions.push((at + lasts / 2, OperatorAction::Release));
        }
    }
    let mut hands = Chance::stream(seed, "hands");
    for window in faults.windows(Fault::ForeignHands) {
        for _ in 0..hands.between(1, 6) {
            let seconds = (window.to - window.from).num_seconds();
            let at = window.from + TimeDelta::seconds(hands.between(0, seconds));
            let index = usize::try_from(hands.between(0, 3)).unwrap_or(0);
            let start = hands.permille(500);
            let action = if start {
                OperatorAction::ConsoleStart(index)
            } else {
                OperatorAction::ConsoleStop(index)
            };
            operator_actions.push((at, action));
        }
    }
    operator_actions.sort_by_key(|(at, _)| *at);
    operator_actions
}
