//! `schedule at`, `show` and `lint`: what schedules want, regardless of queue and holds. They read no box.

use gpuctl_control::wire::plan::SubmitDocument;
use gpuctl_core::policy::Pool;
use gpuctl_core::units::PoolId;

use crate::arguments::ScheduleCommand;
use crate::context::Configured;
use crate::documents::schedule::{
    CalendarDocument, ScheduleAtDocument, ScheduleLintDocument, ScheduleShowDocument,
    TimeZonesDocument, WarningDocument,
};
use crate::failure::{Code, Failure};
use crate::render::Output;

/// `gpuctl schedule …`.
pub(crate) fn run(context: &Configured, command: &ScheduleCommand) -> Result<Output, Failure> {
    match command {
        ScheduleCommand::At { pool, time } => {
            let (pool, at) = (context.pool(pool)?, context.time(time)?);
            Ok(Output::ScheduleAt(ScheduleAtDocument::of(&pool.id, &pool.schedule, at)))
        }
        ScheduleCommand::Show { pool, days, from } => {
            let (pool, from) = (context.pool(pool)?, context.time(from)?);
            if pool.schedule.is_empty() {
                return Err(Failure::new(
                    Code::PoolNoSchedule,
                    format!("pool `{}` has no schedule", pool.id),
                )
                .hint(format!("add `[[pool.{}.schedule]]` to the configuration", pool.id)));
            }
            let days = usize::from(*days);
            Ok(Output::ScheduleShow(ScheduleShowDocument::of(&pool.id, &pool.schedule, from, days)))
        }
        ScheduleCommand::Lint { pool } => lint(context, pool.as_ref()),
    }
}

fn lint(context: &Configured, only: Option<&PoolId>) -> Result<Output, Failure> {
    let pools: Vec<&Pool> = match only {
        Some(id) => vec![context.pool(id)?],
        None => context.config.policy.pools.iter().collect(),
    };
    let warnings = pools.iter().flat_map(|pool| {
        let found = pool.schedule.lint(context.now());
        found.into_iter().map(|warning| WarningDocument::of(&pool.id, warning))
    });
    Ok(Output::ScheduleLint(ScheduleLintDocument {
        warnings: warnings.collect(),
        pools: pools.iter().map(|pool| pool.id.to_string()).collect(),
        calendars: pools
            .iter()
            .flat_map(|pool| CalendarDocument::of_pool(pool, context.now()))
            .collect(),
        submits: SubmitDocument::all(&context.config.policy, only, context.now()),
        time_zones: TimeZonesDocument::of(context.now()),
    }))
}
