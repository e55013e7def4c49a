//! Finding pools by the name that a user wrote, for the CLI and the function alike.

use gpuctl_core::policy::{Policy, Pool};
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
