//! What pools have cost today and this month, in UTC as AWS bills it, and what the month comes to at this pace.

use gpuctl_core::cost::{CostSettings, spent_since, standing};
use gpuctl_core::observation::{Observation, Run, SeenPool};
use gpuctl_core::period::{Period, day_of, month_of};
use gpuctl_core::policy::{Policy, Pool};
use gpuctl_core::units::{MicroUsd, PoolId, Timestamp};

use crate::ports::{Ledger, PortError};

/// What a pool costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    pub pool: PoolId,
    /// Since midnight.
    pub today: MicroUsd,
    /// Since the first of the month.
    pub month: MicroUsd,
    /// The whole month at the pace of what has passed of it.
    pub forecast: MicroUsd,
    /// `budget_usd_month`.
    pub budget: Option<MicroUsd>,
}

impl Spending {
    fn of(pool: &Pool, runs: &[Run], cost: &CostSettings, now: Timestamp) -> Self {
        let of_pool: Vec<Run> = runs.iter().filter(|run| run.pool == pool.id).cloned().collect();
        let since = |period: Period| {
            let standing = standing(cost, pool.boxes_max.get(), now - period.begin);
            spent_since(&of_pool, cost, period.begin, now) + standing
        };
        let month = since(month_of(now));
        Self {
            pool: pool.id.clone(),
            today: since(day_of(now)),
            month,
            forecast: month_of(now).forecast(month, now),
            budget: pool.budget.month,
        }
    }
}

/// What each pool of the policy costs whose boxes have a price: they are EC2's, or the pool has a budget, or `[cost] usd_hour` is
/// set.
///
/// # Errors
/// When the ledger's runs cannot be read.
pub async fn of_pools(
    ledger: &dyn Ledger,
    policy: &Policy,
    seen: &Observation,
) -> Result<Vec<Spending>, PortError> {
    let is_priced = |pool: &&Pool| {
        policy.cost.usd_hour.is_some()
            || pool.budget.is_set()
            || seen.pools.get(&pool.id).is_some_and(is_on_ec2)
    };
    let priced: Vec<&Pool> = policy.pools.iter().filter(is_priced).collect();
    if priced.is_empty() {
        return Ok(Vec::new());
    }
    let runs = ledger.runs_since(month_of(seen.at).begin).await?;
    Ok(priced.into_iter().map(|pool| Spending::of(pool, &runs, &policy.cost, seen.at)).collect())
}

fn is_on_ec2(seen: &SeenPool) -> bool {
    seen.boxes.value.iter().flatten().any(|one| one.offering.is_some())
}
