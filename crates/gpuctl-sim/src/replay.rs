//! Replays a trace of jobs under a policy: the same `decide` as in production, with simulated boxes that boot, work and are
//! interrupted.
//!
//! One pool; jobs are served in order of arrival, one at a time per box. As in production the controller reconciles at each tick,
//! and a worker without a job checks whether its own box should stop. Evaluations at which nothing can have changed are skipped:
//! `Plan::next_change` announces the next one that can. A test replays with every evaluation and compares. There is no queue lag
//! and no fault here; those are in `world`.

mod boxes;
mod events;
mod outcome;
mod reconcile;
mod spot;

use std::collections::{BTreeMap, VecDeque};

use gpuctl_core::observation::{Observation, Seen, SeenBox, SeenPool, SeenQueue, Witness};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{MicroUsd, PoolId, Timestamp};

pub use self::outcome::Outcome;

use self::boxes::{BoxWork, stopped_boxes};
use self::events::EventQueue;
use crate::trace::{Availability, Demand, PriceHistory};

/// When a trace begins: 2026-01-05T00:00:00Z, a Monday, so that office hours mean the same in each.
pub const EPOCH_MS: i64 = 1_767_571_200_000;

/// What is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The policy; its first pool drains the queue.
    pub policy: &'a Policy,
    /// How long a box takes from start to ready.
    pub boot_ms: i64,
    /// Where and when spot capacity is available. `None`: every box is on demand.
    pub spot: Option<&'a Availability>,
    /// The instant of the availability at which the demand begins. After its end the availability starts over.
    pub spot_offset_ms: i64,
    /// Prices per hour.
    pub prices: Prices,
    /// The spot price as it changes, in place of `prices.spot`; on the clock of the availability.
    pub spot_prices: Option<&'a PriceHistory>,
    /// When controller and workers evaluate the policy.
    pub evaluation: Evaluation,
}

/// Prices per hour of one box.
#[derive(Clone, Copy, Debug)]
pub struct Prices {
    pub spot: MicroUsd,
    pub on_demand: MicroUsd,
}

impl Prices {
    /// The most that an hour of a box costs.
    #[must_use]
    pub fn dearest(self) -> MicroUsd {
        self.on_demand.max(self.spot)
    }
}

/// When controller and workers evaluate the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Only when something can have changed.
    OnChange,
    /// At every tick and every worker check, as production does: slow, for the test that compares the two.
    Always,
}

/// Replays `demand`.
///
/// # Panics
/// If the policy has no pool.
///
/// # Examples
/// What gpuctl costs on a trace of two jobs, and what starting at the first job costs:
///
/// ```
/// use chrono::TimeDelta;
/// use gpuctl_core::units::MicroUsd;
/// use gpuctl_core::policy::IdleStop;
/// use gpuctl_sim::policies::{ComparedPolicy, Terms};
/// use gpuctl_sim::replay::{Evaluation, Prices, Setup, replay};
/// use gpuctl_sim::trace::Demand;
///
/// // Two jobs of 30 seconds, five minutes apart.
/// let demand = Demand::read(b"t_s,service_s\n0,30\n300,30\n")?;
/// let terms = Terms {
///     max_wait: TimeDelta::minutes(10),
///     boot: TimeDelta::minutes(2),
///     tick: TimeDelta::minutes(1),
///     boxes_max: 1,
///     idle_stop: IdleStop::Auto,
///     service: TimeDelta::milliseconds(demand.mean_service_ms()),
/// };
/// let outcome = |name: &str| -> Result<_, Box<dyn std::error::Error>> {
///     let policy = ComparedPolicy::named(name).ok_or("unknown policy")?.policy(&terms)?;
///     let setup = Setup {
///         policy: &policy,
///         boot_ms: terms.boot.num_milliseconds(),
///         spot: None,
///         spot_offset_ms: 0,
///         prices: Prices { spot: MicroUsd(0), on_demand: MicroUsd(526_000) },
///         spot_prices: None,
///         evaluation: Evaluation::OnChange,
///     };
///     Ok(replay(&setup, &demand))
/// };
/// // gpuctl waits for the second job and serves both with one boot.
/// let (late, eager) = (outcome("gpuctl")?, outcome("start1-stop0")?);
/// assert_eq!((late.starts, eager.starts), (1, 2));
/// assert!(late.usd < eager.usd);
/// assert!(late.waits_ms.iter().flatten().all(|wait_ms| *wait_ms <= 600_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn replay(setup: &Setup<'_>, demand: &Demand) -> Outcome {
    let mut replay = Replay::new(setup, demand);
    replay.schedule_first_events();
    while let Some((at_ms, event)) = replay.events.pop() {
        if replay.is_over(at_ms) {
            break;
        }
        replay.now_ms = at_ms;
        replay.handle(event);
    }
    replay.finish()
}

/// The state of one replay.
struct Replay<'a> {
    setup: &'a Setup<'a>,
    demand: &'a Demand,
    now_ms: i64,
    /// What controller and workers see, kept up to date as it changes.
    seen: Observation,
    pool: PoolId,
    /// By the index of the box in the observation.
    work: Vec<BoxWork>,
    /// Indices of the jobs that wait, oldest first.
    waiting: VecDeque<usize>,
    zones: Vec<String>,
    open_jobs: usize,
    /// When the last job was done.
    done_ms: Option<i64>,
    events: EventQueue,
    /// Something has changed since the controller's last reconcile.
    changed: bool,
    /// When the controller's plan changes by itself.
    next_change_ms: Option<i64>,
    outcome: Outcome,
}

impl<'a> Replay<'a> {
    fn new(setup: &'a Setup<'a>, demand: &'a Demand) -> Self {
        let pool: PoolId = setup.policy.pools[0].id.clone();
        let zones: Vec<String> =
            setup.spot.map(|spot| spot.zones().map(str::to_owned).collect()).unwrap_or_default();
        let boxes = stopped_boxes(&pool, setup, &zones);
        let work = boxes.iter().map(|_| BoxWork::default()).collect();
        let at = instant(0);
        let seen = SeenPool {
            boxes: Seen::now(boxes, at),
            queue: Some(Seen::now(SeenQueue::default(), at)),
            urgent: None,
            hold: None,
            runs: Vec::new(),
            service: None,
            spent: None,
        };
        let pools = BTreeMap::from([(pool.clone(), seen)]);
        Self {
            setup,
            demand,
            now_ms: 0,
            seen: Observation { at, witness: Witness::Controller, pools },
            pool,
            work,
            waiting: VecDeque::new(),
            zones,
            open_jobs: demand.jobs().len(),
            done_ms: None,
            events: EventQueue::default(),
            changed: true,
            next_change_ms: None,
            outcome: Outcome { waits_ms: vec![None; demand.jobs().len()], ..Outcome::default() },
        }
    }

    fn seen_pool(&mut self) -> &mut SeenPool {
        self.seen.pools.get_mut(&self.pool).expect("the one pool was put in at the start")
    }

    fn boxes(&self) -> &[SeenBox] {
        self.seen.pools[&self.pool].boxes.value.as_deref().unwrap_or_default()
    }

    fn boxes_mut(&mut self) -> &mut [SeenBox] {
        self.seen_pool().boxes.value.as_deref_mut().unwrap_or_default()
    }
}

/// The instant that is `at_ms` after the start of the trace.
#[must_use]
pub fn instant(at_ms: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(EPOCH_MS.saturating_add(at_ms)).unwrap_or(Timestamp::MAX_UTC)
}
