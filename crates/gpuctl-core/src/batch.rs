//! Which waiting inputs run together: the oldest first, with others of its shape, up to a budget.
//!
//! There is no timer: a batch is formed when the model is free, from the inputs that have arrived by then, so that it is as full
//! as possible. Running a batch, and halving one that fails, is the worker's job.

/// What matters of an input when batches are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Only inputs with the same bucket run together.
    pub shape_bucket: u64,
    /// Samples, pixels or tokens after padding.
    pub cost: u64,
}

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most inputs in a batch; 1 for models whose result depends on the other inputs.
    pub inputs_max: usize,
    /// The most that the costs may add up to; an input above it runs alone.
    pub cost_max: u64,
}

/// The indices in `waiting` (oldest first) of the inputs to run next: the oldest, and younger ones that fit in one batch with it.
#[must_use]
pub fn form(waiting: &[Candidate], limits: BatchLimits) -> Vec<usize> {
    let Some(oldest) = waiting.first() else { return Vec::new() };
    let mut cost = 0_u64;
    let mut batch = Vec::new();
    for (index, candidate) in waiting.iter().enumerate() {
        let with = cost.saturating_add(candidate.cost);
        let fits = batch.is_empty()
            || (candidate.shape_bucket == oldest.shape_bucket && with <= limits.cost_max);
        if fits {
            cost = with;
            batch.push(index);
        }
        if batch.len() >= limits.inputs_max.max(1) {
            break;
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(shape_bucket: u64, cost: u64) -> Candidate {
        Candidate { shape_bucket, cost }
    }

    #[test]
    fn the_oldest_leads_and_only_its_shape_follows() {
        let waiting = [candidate(1, 5), candidate(2, 5), candidate(1, 5), candidate(1, 5)];
        assert_eq!(form(&waiting, BatchLimits { inputs_max: 8, cost_max: 10 }), [0, 2]);
        assert_eq!(form(&waiting, BatchLimits { inputs_max: 1, cost_max: 100 }), [0]);
    }

    #[test]
    fn an_input_above_the_budget_runs_alone() {
        let waiting = [candidate(1, 50), candidate(1, 1)];
        assert_eq!(form(&waiting, BatchLimits { inputs_max: 8, cost_max: 10 }), [0]);
    }

    proptest! {
        #[test]
        fn a_batch_always_holds_the_oldest_and_keeps_its_limits(
            waiting in prop::collection::vec((0_u64..3, 0_u64..20), 1..40),
            inputs_max in 0_usize..9,
            cost_max in 0_u64..50,
        ) {
            let waiting: Vec<_> = waiting.into_iter().map(|(bucket, cost)| candidate(bucket, cost)).collect();
            let batch = form(&waiting, BatchLimits { inputs_max, cost_max });
            prop_assert_eq!(batch[0], 0);
            prop_assert!(batch.len() <= inputs_max.max(1));
            prop_assert!(batch.iter().all(|index| waiting[*index].shape_bucket == waiting[0].shape_bucket));
            let cost: u64 = batch.iter().map(|index| waiting[*index].cost).sum();
            prop_assert!(batch.len() == 1 || cost <= cost_max);
        }
    }
}
