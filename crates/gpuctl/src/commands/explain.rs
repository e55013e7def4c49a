//! `explain`: a pool, a job, or a code of an error or warning.

use gpuctl_control::job::JobState;
use gpuctl_control::plan as observe_and_decide;
use gpuctl_control::ports::JobEntry;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_core::observation::Witness;
use gpuctl_core::sentence::{sentence, waits_for};
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::units::PoolId;

use super::{jobs, status};
use crate::context::Context;
use crate::documents::reply::{ExplainedCodeDocument, ExplainedJobDocument};
use crate::failure::{Code, Failure};
use crate::render::{Output, shown};

/// `gpuctl explain POOL|JOB`: a pool of that name first.
pub(super) async fn explain(context: &Context, what: &str) -> Result<Output, Failure> {
    let pools = context.pools();
    if let Some(pool) = pools.iter().find(|pool| pool.as_str() == what) {
        return status::explain_pool(context, pool).await;
    }
    match jobs::find(context, what).await {
        Ok(entry) => Ok(Output::ExplainedJob(Box::new(job(context, &entry).await))),
        Err(failure) if failure.code == Code::JobUnknown => Err(unknown(what, &pools)),
        Err(failure) => Err(failure),
    }
}

fn unknown(what: &str, pools: &[PoolId]) -> Failure {
    let message = format!("there is no pool, job or code `{}`", shown(what));
    let meant = did_you_mean(what, pools.iter().map(PoolId::as_str));
    let lists =
        "`gpuctl status` lists pools, `gpuctl jobs` jobs, and COMMANDS.md and TASKS.md codes";
    Failure::new(Code::PoolUnknown, message).hint(meant.unwrap_or_else(|| lists.to_owned()))
}

/// What a code means, if it is one.
pub(super) fn code(text: &str) -> Option<Output> {
    meaning(text).map(Output::ExplainedCode)
}

/// Codes of jobs come first: where a command fails with one, it means the same.
fn meaning(text: &str) -> Option<ExplainedCodeDocument> {
    // The name of a pool has no dot, so that a code is none.
    let code = Some(text).filter(|text| text.contains('.'))?.to_owned();
    if let Some(found) = gpu_tasks::meaning_of(text) {
        let blamed_on = found.blamed_on.map(str::to_owned);
        return Some(ExplainedCodeDocument { code, meaning: found.meaning, blamed_on, exit: None });
    }
    let found = Code::ALL.iter().find(|one| one.as_str() == text)?;
    let (meaning, exit) = (found.meaning().to_owned(), Some(found.exit() as u8));
    Some(ExplainedCodeDocument { code, meaning, blamed_on: None, exit })
}

async fn job(context: &Context, entry: &JobEntry) -> ExplainedJobDocument {
    let policy = &context.config.policy;
    let document = JobDocument::of(entry);
    let error = document.error.as_ref().and_then(|error| meaning(&error.code));
    let pool = policy.queue_pools().find(|(_, queue)| queue.name == entry.job.queue);
    let mut explained = ExplainedJobDocument {
        job: document,
        pool: pool.map(|(pool, _)| pool.id.to_string()),
        sentence: None,
        waits_for: None,
        error,
    };
    let Some((pool, _)) = pool.filter(|_| !entry.state.is_final()) else { return explained };
    let (observed, plan) = observe_and_decide(&context.ports, policy, Witness::Controller).await;
    let plan = plan.pools.iter().find(|plan| plan.pool == pool.id);
    if let (Some(seen), Some(plan)) = (observed.observation.pools.get(&pool.id), plan) {
        let at = observed.observation.at;
        explained.sentence = Some(sentence(seen, plan, &policy.cost, at));
        let waits = entry.state == JobState::Queued;
        explained.waits_for = waits.then(|| waits_for(pool, seen, plan, at));
    }
    explained
}
