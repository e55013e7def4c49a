//! Finding pools by the name that a user wrote, for the CLI and the function alike.

use gpuctl_core::policy::{Policy, Pool, QueuePolicy};
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::units::PoolId;

use crate::ports::{PortError, PortErrorClass};

/// The target that means every pool.
pub const ALL: &str = "all";

/// A name that no pool of the policy has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no pool `{name}`")]
pub struct UnknownPool {
    name: String,
    hint: String,
}

impl UnknownPool {
    fn new(policy: &Policy, name: &str) -> Self {
        let known: Vec<&str> = policy.pools.iter().map(|pool| pool.id.as_str()).collect();
        let hint = did_you_mean(name, known.iter().copied())
            .unwrap_or_else(|| format!("the configuration has these pools: {}", known.join(", ")));
        Self { name: name.to_owned(), hint }
    }

    /// The pool that was probably meant, or the list of those there are.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl From<UnknownPool> for PortError {
    fn from(error: UnknownPool) -> Self {
        Self::new(PortErrorClass::NotFound, error.to_string()).hint(error.hint)
    }
}

/// The pool of this name.
///
/// # Errors
/// When the policy has no such pool.
pub fn named<'p>(policy: &'p Policy, name: &str) -> Result<&'p Pool, UnknownPool> {
    let found = policy.pools.iter().find(|pool| pool.id.as_str() == name);
    found.ok_or_else(|| UnknownPool::new(policy, name))
}

/// The pools that a target names: one pool, or each one for [`ALL`].
///
/// # Errors
/// When the policy has no such pool.
pub fn targeted(policy: &Policy, target: &str) -> Result<Vec<PoolId>, UnknownPool> {
    if target == ALL {
        return Ok(policy.pools.iter().map(|pool| pool.id.clone()).collect());
    }
    named(policy, target).map(|pool| vec![pool.id.clone()])
}

/// Why there is no queue for a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoQueue {
    #[error(transparent)]
    Unknown(#[from] UnknownPool),
    /// The pool that was named has none.
    #[error("pool `{0}` has no queue")]
    OfPool(PoolId),
    /// No pool has one.
    #[error("no pool has a queue")]
    Anywhere,
    /// Several pools have one, and none was named.
    #[error("several pools have a queue")]
    Ambiguous,
}

impl NoQueue {
    /// A short, stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "pool.unknown",
            Self::OfPool(_) | Self::Anywhere => "pool.no_queue",
            Self::Ambiguous => "pool.ambiguous",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Unknown(error) => error.hint(),
            Self::OfPool(_) => "it runs a command; submit to a pool with a `queue`",
            Self::Anywhere => "add `queue = \"jobs\"` to one",
            Self::Ambiguous => "name one of them as the job's pool",
        }
    }
}

/// The pool that a job goes to: the one that is named, or the only one with a queue.
///
/// # Errors
/// When there is none, or more than one.
pub fn for_job<'p>(
    policy: &'p Policy,
    wanted: Option<&str>,
) -> Result<(&'p Pool, &'p QueuePolicy), NoQueue> {
    if let Some(name) = wanted {
        let pool = named(policy, name)?;
        return pool.queue().map(|queue| (pool, queue)).ok_or(NoQueue::OfPool(pool.id.clone()));
    }
    let mut pools = policy.queue_pools();
    match (pools.next(), pools.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(NoQueue::Anywhere),
        (Some(_), Some(_)) => Err(NoQueue::Ambiguous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_found_by_its_name_and_all_are_found_at_once() {
        let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"\n[pool.app]\ncommand = [\"a\"]");
        let policy = policy.expect("a plain policy");
        let names = |target| {
            let pools = targeted(&policy, target)?;
            Ok::<_, UnknownPool>(pools.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(names("gpu").expect("it is there"), ["gpu"]);
        assert_eq!(names("all").expect("they are there").len(), 2);
        let slip = names("gpi").expect_err("no such pool");
        assert_eq!(slip.to_string(), "there is no pool `gpi`");
        // One letter in three is another word.
        assert_eq!(slip.hint(), "the configuration has these pools: gpu, app");
        assert_eq!(names("GPU").expect_err("no such pool").hint(), "did you mean `gpu`?");
        let strange = names("batch-of-the-night").expect_err("no such pool");
        assert!(strange.hint().ends_with("app, gpu") || strange.hint().ends_with("gpu, app"));
    }
}
