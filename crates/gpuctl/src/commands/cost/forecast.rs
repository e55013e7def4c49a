//! `cost forecast` and `cost check`: what pools cost this month, and what the month comes to at this pace.

use gpuctl_control::observe::observe;
use gpuctl_control::spending::{Spending, of_pools};
use gpuctl_control::wire::status::SpendingDocument;
use gpuctl_control::wire::time;
use gpuctl_core::observation::Witness;
use gpuctl_core::period::month_of;
use gpuctl_core::units::MicroUsd;

use crate::context::Context;
use crate::documents::reply::{CostForecastDocument, PoolForecastDocument};
use crate::failure::{Exit, Failure};
use crate::render::Output;

/// `gpuctl cost forecast`.
pub(super) async fn forecast(context: &Context) -> Result<Output, Failure> {
    Ok(Output::CostForecast(document(context, None).await?))
}

/// `gpuctl cost check`: the same, and whether it stays within a limit.
pub(super) async fn check(context: &Context, most: MicroUsd) -> Result<Output, Failure> {
    let document = document(context, Some(most)).await?;
    let is_over = document.usd_month_forecast > most.as_usd();
    let output = Output::CostForecast(document);
    Ok(if is_over { output.exit(Exit::OverBudget) } else { output })
}

async fn document(
    context: &Context,
    most: Option<MicroUsd>,
) -> Result<CostForecastDocument, Failure> {
    let policy = &context.config.policy;
    // A box that stopped by itself is in the ledger's runs only after an observation.
    let mut observed = observe(&context.ports, policy, Witness::Controller).await;
    // Of boxes that could not be read nothing is known, also not that they cost nothing.
    let unread = observed.observation.pools.values().any(|pool| pool.boxes.value.is_none());
    if unread && !observed.errors.is_empty() {
        return Err(observed.errors.swap_remove(0).into());
    }
    if let Some(error) = observed.remember(&context.ports, None).await.into_iter().next() {
        return Err(error.into());
    }
    let seen = &observed.observation;
    let pools = of_pools(&*context.ports.ledger, policy, seen).await?;
    let sum = |of: fn(&Spending) -> MicroUsd| pools.iter().map(of).sum::<MicroUsd>().as_usd();
    let pool = |spending: &Spending| PoolForecastDocument {
        pool: spending.pool.to_string(),
        cost: SpendingDocument::of(spending),
    };
    Ok(CostForecastDocument {
        at: time(seen.at),
        month_ends_at: time(month_of(seen.at).end),
        usd_month: sum(|one| one.month),
        usd_month_forecast: sum(|one| one.forecast),
        max_usd_month: most.map(MicroUsd::as_usd),
        pools: pools.iter().map(pool).collect(),
    })
}
