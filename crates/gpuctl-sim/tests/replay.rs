//! Replays: small traces computed by hand, the bounds, and evaluation on change against evaluation at every step.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chrono::TimeDelta;
use gpuctl_core::policy::IdleStop;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::MicroUsd;
use gpuctl_sim::bounds;
use gpuctl_sim::compare::{Baseline, Score, score};
use gpuctl_sim::policies::{COMPARED_POLICIES, ComparedPolicy, Terms};
use gpuctl_sim::replay::{Evaluation, Outcome, Prices, Setup, replay};
use gpuctl_sim::trace::{Availability, Demand, Job, PriceHistory};
use gpuctl_sim::tune::tune;
use proptest::prelude::*;

const PRICES: Prices = Prices { spot: MicroUsd(270_000), on_demand: MicroUsd(710_000) };
const BOOT: TimeDelta = TimeDelta::seconds(120);

fn terms(max_wait_s: i64) -> Terms {
    Terms {
        max_wait: TimeDelta::seconds(max_wait_s),
        boot: BOOT,
        tick: TimeDelta::seconds(60),
        boxes_max: 1,
        idle_stop: IdleStop::Auto,
        service: TimeDelta::seconds(3),
    }
}

fn demand(jobs: &[(i64, i64)]) -> Demand {
    let job = |&(at_s, service_s): &(i64, i64)| Job {
        at_ms: at_s * 1_000,
        service_ms: service_s * 1_000,
    };
    Demand::new(jobs.iter().map(job).collect()).unwrap()
}

fn run(
    name: &str,
    demand: &Demand,
    spot: Option<&Availability>,
    evaluation: Evaluation,
) -> Outcome {
    let policy = ComparedPolicy::named(name).unwrap().policy(&terms(600)).unwrap();
    replay(&Setup { spot, evaluation, ..setup(&policy) }, demand)
}

fn setup(policy: &Policy) -> Setup<'_> {
    Setup {
        policy,
        boot_ms: BOOT.num_milliseconds(),
        spot: None,
        spot_offset_ms: 0,
        prices: PRICES,
        spot_prices: None,
        evaluation: Evaluation::OnChange,
    }
}

fn scored(name: &str, demand: &Demand) -> Score {
    let baseline = Baseline::new(demand, BOOT, TimeDelta::seconds(600));
    score(&[baseline], &[run(name, demand, None, Evaluation::OnChange)])
}

#[test]
fn each_second_on_spot_costs_what_was_in_force_then() {
    let spot = Availability::read(b"t_s,zone,available\n0,a,1\n4000,a,0\n").unwrap();
    let read = |text: &str| PriceHistory::read(text.as_bytes(), "any").unwrap();
    let policy = ComparedPolicy::named("gpuctl").unwrap().policy(&terms(600)).unwrap();
    let usd = |prices: Option<&PriceHistory>, spot_offset_ms| {
        let setup =
            Setup { spot: Some(&spot), spot_prices: prices, spot_offset_ms, ..setup(&policy) };
        let outcome = replay(&setup, &demand(&[(1_000, 3)]));
        assert_eq!((outcome.box_ms, outcome.spot_ms), (124_000, 124_000));
        outcome.usd
    };
    assert_eq!(usd(None, 0), PRICES.spot.per_hour_for(124));
    // The box is up from 1440 s to 1564 s: 60 s at the first price, 64 s at the second.
    let history = read("t_s,zone,usd_hour\n100,a,0.36\n1500,a,0.72\n1600,b,9\n");
    assert_eq!(usd(Some(&history), 0), MicroUsd(6_000 + 12_800));
    // A thousand seconds further on it is all at the second, and a round of the availability later all is as it was.
    assert_eq!(usd(Some(&history), 1_000_000), MicroUsd(24_800));
    assert_eq!(usd(Some(&history), 4_000_000), MicroUsd(18_800));
    // Of a zone without prices the one of the whole week counts.
    assert_eq!(usd(Some(&read("t_s,zone,usd_hour\n0,b,9\n")), 0), PRICES.spot.per_hour_for(124));
}

#[test]
fn a_lone_job_is_served_as_late_as_its_limit_allows() {
    let outcome = run("gpuctl", &demand(&[(1_000, 3)]), None, Evaluation::OnChange);
    // 600 s less a boot of 120 s, a tick of 60 s and a margin of 12 s: due at 1408 s, seen at the tick of 1440 s.
    assert_eq!(outcome.waits_ms, [Some((1_440 + 120 - 1_000) * 1_000)]);
    assert_eq!((outcome.starts, outcome.interruptions, outcome.refusals), (1, 0, 0));
    // Boot, job, and two checks of the worker with an empty queue.
    assert_eq!(outcome.box_ms, 120_000 + 3_000 + 1_000);
    assert_eq!(outcome.usd, MicroUsd(710_000).per_hour_for(124));
}

#[test]
fn the_depth_rule_starves_a_lone_job_and_an_age_guard_does_not() {
    let lone = demand(&[(1_000, 3), (1_000_000, 3)]);
    assert!(scored("depth-rule", &lone).waits[2] > TimeDelta::days(10));
    assert!(scored("gpuctl", &lone).waits[2] <= TimeDelta::seconds(600));
}

#[test]
fn spot_is_used_where_available_and_an_interruption_loses_no_job() {
    // Spot from the start; gone from 1,500 s, in the middle of the second job; back at 5,000 s.
    let spot = "t_s,zone,available\n0,us-east-1a,1\n1500,us-east-1a,0\n5000,us-east-1a,1\n900000,us-east-1a,0\n";
    let spot = Availability::read(spot.as_bytes()).unwrap();
    let outcome = run(
        "start1-stop0",
        &demand(&[(100, 30), (1_200, 3_000), (8_000, 3)]),
        Some(&spot),
        Evaluation::OnChange,
    );
    assert_eq!(outcome.interruptions, 1);
    assert!(outcome.waits_ms.iter().all(Option::is_some), "{:?}", outcome.waits_ms);
    // The second job begins again on demand; before and after it spot does.
    assert!(outcome.spot_ms > 0 && outcome.box_ms - outcome.spot_ms >= 3_000_000, "{outcome:?}");
}

#[test]
fn tuning_chooses_waiting_where_it_is_cheap_and_speed_where_it_is_expensive() {
    let jobs: Vec<(i64, i64)> = (0..200).map(|n| (n * 1_700 + n % 7 * 90, 5)).collect();
    let wait_usd_hours = [MicroUsd(1_000), MicroUsd(100_000_000)];
    let tuning = tune(&terms(0), PRICES, &demand(&jobs), &wait_usd_hours).unwrap();
    let [cheap, expensive] = tuning.tuned.as_slice() else { panic!("{tuning:?}") };
    assert!(cheap.chosen.start_age > TimeDelta::minutes(30), "{cheap:?}");
    assert_eq!(expensive.chosen.start_age, TimeDelta::zero(), "{expensive:?}");
    assert!(tuning.frontier.is_sorted_by(|a, b| a.usd <= b.usd && a.waited > b.waited));
    assert!(tuning.tuned.iter().all(|tuned| tuned.tested >= tuned.best));
}

fn jobs() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((0_i64..2_000, 0_i64..200), 1..30).prop_map(|gaps| {
        let mut at = 0;
        let arrival = |(gap, service)| {
            at += gap;
            (at, service)
        };
        gaps.into_iter().map(arrival).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// `next_change` announces everything that can change by itself: evaluating more often finds nothing more.
    #[test]
    fn evaluating_at_every_step_changes_nothing(jobs in jobs(), which in 1_usize..COMPARED_POLICIES.len()) {
        let (demand, name) = (demand(&jobs), COMPARED_POLICIES[which].name);
        let changed = run(name, &demand, None, Evaluation::OnChange);
        let every = run(name, &demand, None, Evaluation::Always);
        prop_assert_eq!((changed.box_ms, changed.starts, &changed.waits_ms), (every.box_ms, every.starts, &every.waits_ms), "{}", name);
    }

    /// A policy that keeps the wait limit cannot be below the bound.
    #[test]
    fn no_policy_beats_the_bound(jobs in jobs()) {
        let demand = demand(&jobs);
        let ours = scored("gpuctl", &demand);
        prop_assert_eq!((ours.late_jobs, ours.jobs_lost), (0, 0));
        prop_assert!(ours.ratios_permille[0] >= 1_000, "{:?}", ours);
        let bound = bounds::wait_limit(&demand, 120_000, 600_000);
        for name in ["start1-stop0", "keda", "asg"] {
            prop_assert!(run(name, &demand, None, Evaluation::OnChange).box_ms >= bound, "{}", name);
        }
    }
}
