//! Chooses `max_wait` and `idle_stop` for a price of waiting, by replaying one's own history.
//!
//! It searches a fixed grid rather than learn timers or schedules from the arrivals: two settings that a user can read are enough
//! to come within 1 % of the best in hindsight (`crates/FIGURES.md`). It chooses on the first half of the trace, tests on the
//! second, and compares with the best choice there.

use chrono::TimeDelta;
use gpuctl_core::policy::Problems;
use gpuctl_core::units::MicroUsd;

use crate::bounds;
use crate::policies::{Terms, exact, pool_policy};
use crate::replay::{Evaluation, Outcome, Prices, Setup, replay};
use crate::trace::Demand;

/// Candidates, in seconds, for the age of the oldest job at which a box is started.
const START_AGES_S: [i64; 10] = [0, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200];
/// Candidates, in seconds, for how long an idle box stays.
const IDLE_STOPS_S: [i64; 8] = [0, 30, 60, 120, 300, 600, 900, 1_800];

/// A combination of settings.
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

/// The cost of a choice on a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    pub choice: Choice,
    /// The price of its box time.
    pub usd: MicroUsd,
    /// The sum of all waits for a box, beyond those on an always-on box.
    pub waited: TimeDelta,
}

impl Price {
    /// Box time plus waiting, at this price of a job waiting for an hour.
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
    /// The cheapest choice on the first half.
    pub chosen: Choice,
    /// Its cost on the second half, waiting included.
    pub tested: MicroUsd,
    /// The cheapest choice on the second half.
    pub hindsight: Choice,
    /// Its cost there.
    pub best: MicroUsd,
}

/// The result of `tune`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// On the whole trace, the choices that no other beats in both dollars and waiting, cheapest first.
    pub frontier: Vec<Price>,
    /// One per price of waiting.
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
    let (learned, held_back) = (costs(terms, prices, &first)?, costs(terms, prices, &second)?);
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
    Ok(Tuning { frontier: frontier(costs(terms, prices, demand)?), tuned })
}

fn costs(terms: &Terms, prices: Prices, demand: &Demand) -> Result<Vec<Price>, Problems> {
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
            evaluation: Evaluation::OnChange,
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

/// The waits beyond those on an always-on box: only those depend on the policy.
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
