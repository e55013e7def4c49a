//! Chooses `max_wait` and `idle_stop` for a price of waiting, by replaying one's own history.
//!
//! Learned timers and schedules did not pay on any trace; replaying last week's arrivals did (`facts/policies.md` 0.5). Chosen
//! on the first half, tested on the second, and held against what hindsight would have chosen there.

use chrono::TimeDelta;
use gpuctl_core::policy::Problems;
use gpuctl_core::units::MicroUsd;

use crate::bounds;
use crate::policies::{Terms, exact, pool_policy};
use crate::replay::{Looks, Outcome, Prices, Setup, replay};
use crate::trace::Demand;

/// How old the oldest job is when a box is started.
const START_AGES_S: [i64; 10] = [0, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200];
/// How long an idle box stays.
const IDLE_STOPS_S: [i64; 8] = [0, 30, 60, 120, 300, 600, 900, 1_800];

/// One choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How old the oldest job is when a box is started.
    pub start_age: TimeDelta,
    /// How long an idle box stays.
    pub idle_stop: TimeDelta,
}

impl Choice {
    /// The `max_wait` that makes gpuctl start at this age: with the boot, its margin and a tick on top.
    #[must_use]
    pub fn max_wait(self, terms: &Terms) -> TimeDelta {
        if self.start_age.is_zero() {
            return TimeDelta::zero();
        }
        self.start_age + terms.boot + terms.boot / 10 + terms.tick
    }

    /// The lines for `gpuctl.toml`.
    #[must_use]
    pub fn settings(self, terms: &Terms) -> String {
        format!(
            "max_wait = \"{}\"\nidle_stop = \"{}\"",
            exact(self.max_wait(terms)),
            exact(self.idle_stop)
        )
    }
}

/// What a choice costs on a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// The choice.
    pub choice: Choice,
    /// What its boxes cost.
    pub usd: MicroUsd,
    /// How long all jobs together waited for want of a box.
    pub waited: TimeDelta,
}

impl Price {
    /// Dollars and waiting together.
    #[must_use]
    pub fn total(&self, wait_usd_hour: MicroUsd) -> MicroUsd {
        self.usd + wait_usd_hour.per_hour_for(self.waited.num_seconds())
    }
}

/// What was chosen for one price of waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// The price of a job waiting for an hour.
    pub wait_usd_hour: MicroUsd,
    /// What the first half chose.
    pub chosen: Choice,
    /// What that costs on the second half, waiting included.
    pub tested: MicroUsd,
    /// The best on the second half, known only afterwards.
    pub hindsight: Choice,
    /// What that costs there.
    pub best: MicroUsd,
}

/// Every choice on the whole trace, and what was chosen for each price of waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Choices that no other beats in both dollars and waiting, by dollars.
    pub frontier: Vec<Price>,
    /// One for each price of waiting.
    pub tuned: Vec<Tuned>,
}

/// Replays `demand` under every choice.
///
/// # Errors
/// When the terms are beyond what a policy may say.
pub fn tune(
    terms: &Terms,
    prices: Prices,
    demand: &Demand,
    wait_usd_hours: &[MicroUsd],
) -> Result<Tuning, Problems> {
    let (first, second) = demand.split_half();
    let (learned, held_back) = (all(terms, prices, &first)?, all(terms, prices, &second)?);
    let tuned = wait_usd_hours
        .iter()
        .filter_map(|&wait_usd_hour| {
            let total = |price: &&Price| price.total(wait_usd_hour);
            let chosen = learned.iter().min_by_key(total)?.choice;
            let best = held_back.iter().min_by_key(total)?;
            let tested = held_back.iter().find(|price| price.choice == chosen)?;
            Some(Tuned {
                wait_usd_hour,
                chosen,
                tested: tested.total(wait_usd_hour),
                hindsight: best.choice,
                best: best.total(wait_usd_hour),
            })
        })
        .collect();
    Ok(Tuning { frontier: frontier(all(terms, prices, demand)?), tuned })
}

fn all(terms: &Terms, prices: Prices, demand: &Demand) -> Result<Vec<Price>, Problems> {
    let always_on = bounds::always_on(demand);
    let mut all = Vec::new();
    for (age, idle) in
        START_AGES_S.iter().flat_map(|age| IDLE_STOPS_S.iter().map(move |idle| (age, idle)))
    {
        let choice =
            Choice { start_age: TimeDelta::seconds(*age), idle_stop: TimeDelta::seconds(*idle) };
        let policy = pool_policy(terms, &choice.settings(terms))?;
        let setup = Setup {
            policy: &policy,
            boot_ms: terms.boot.num_milliseconds(),
            spot: None,
            spot_offset_ms: 0,
            prices,
            spot_prices: None,
            looks: Looks::Changed,
        };
        let outcome = replay(&setup, demand);
        all.push(Price {
            choice,
            usd: outcome.usd,
            waited: waited(&outcome, &always_on.starts_ms, demand),
        });
    }
    Ok(all)
}

/// The waits beyond those with a box that is always on: only those are the policy's doing.
fn waited(outcome: &Outcome, always_on_ms: &[i64], demand: &Demand) -> TimeDelta {
    let jobs = outcome.waits_ms.iter().zip(always_on_ms).zip(demand.jobs());
    let delay = |((wait, on), job): ((&Option<i64>, &i64), &crate::trace::Job)| {
        wait.map_or(0, |wait| (wait - (on - job.at_ms)).max(0))
    };
    TimeDelta::milliseconds(jobs.map(delay).sum())
}

fn frontier(mut all: Vec<Price>) -> Vec<Price> {
    all.sort_by_key(|price| (price.usd, price.waited));
    let mut best: Option<TimeDelta> = None;
    all.retain(|price| {
        let better = best.is_none_or(|best| price.waited < best);
        best = if better { Some(price.waited) } else { best };
        better
    });
    all
}
