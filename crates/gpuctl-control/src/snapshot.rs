//! What a controller would see and decide now, for those who only read.

use gpuctl_core::observation::{Observation, SeenPool, Witness};
use gpuctl_core::plan::{Plan, PoolPlan};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::PoolId;

use crate::ports::Ports;

/// An observation, and what was decided from it.
pub struct Snapshot {
    pub observation: Observation,
    pub plan: Plan,
    /// The parts that could not be read.
    pub errors: Vec<String>,
}

impl Snapshot {
    /// Observes and decides now; acts on nothing.
    pub async fn take(ports: &Ports, policy: &Policy) -> Self {
        let (observed, plan) = crate::plan(ports, policy, Witness::Controller).await;
        let errors = observed.errors.iter().map(ToString::to_string).collect();
        Self { observation: observed.observation, plan, errors }
    }

    /// What was seen of a pool, and what was decided about it.
    #[must_use]
    pub fn pool(&self, id: &PoolId) -> Option<(&SeenPool, &PoolPlan)> {
        let plan = self.plan.pools.iter().find(|plan| plan.pool == *id)?;
        Some((self.observation.pools.get(id)?, plan))
    }
}
