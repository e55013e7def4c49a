//! The moving mean of a job's time, for each box of a pool.

use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::job::JobResult;
use gpuctl_control::ports::SERVICE_WEIGHT;
use gpuctl_core::units::{BoxId, PoolId};

use super::DynamoLedger;
use super::items::{self, Item, Key, Reader, Writer};

/// How long a box's mean is kept after it last changed.
const MEANS_KEPT: TimeDelta = TimeDelta::days(90);

/// A mean is stored again once it differs from the stored one by this part of it: a steady load writes none, and an estimate needs no more.
const STORED_AGAIN_AT: i64 = 16;

/// The moving mean of a box, in microseconds.
#[derive(Clone, Copy)]
pub(super) struct Mean {
    now: i64,
    /// As the table has it.
    stored: Option<i64>,
}

impl Mean {
    fn moved(self, took: i64) -> Self {
        Self { now: self.now + (took - self.now) / i64::from(SERVICE_WEIGHT), ..self }
    }

    fn is_due(self) -> bool {
        self.stored.is_none_or(|stored| (self.now - stored).abs() >= stored / STORED_AGAIN_AT)
            && self.stored != Some(self.now)
    }
}

impl DynamoLedger {
    /// Moves the means of this worker's pool towards these jobs' times. They are estimates, so a failed write is only logged.
    pub(super) async fn note_service(&self, results: &[&JobResult]) {
        let Some(pool) = &self.pool else { return };
        let mut moved = BTreeSet::new();
        for result in results.iter().filter(|result| result.outcome.is_ok()) {
            let took = result.inference.num_microseconds().unwrap_or(i64::MAX);
            let known = self.known_mean(pool, &result.box_id).await;
            let mean = known.map_or(Mean { now: took, stored: None }, |mean| mean.moved(took));
            self.means().insert(result.box_id.clone(), mean);
            moved.insert(&result.box_id);
        }
        for box_id in moved {
            self.store_mean(pool, box_id).await;
        }
    }

    async fn store_mean(&self, pool: &PoolId, box_id: &BoxId) {
        let mean = self.means().get(box_id).copied();
        let Some(mean) = mean.filter(|mean| mean.is_due()) else { return };
        let item = Writer::new(&Key::mean(pool, box_id))
            .number("mean", mean.now)
            .value("expires", items::expires(self.now() + MEANS_KEPT));
        match self.table.put(item.done(), "store a job's mean time").await {
            Ok(()) => {
                let stored = Mean { stored: Some(mean.now), ..mean };
                self.means().insert(box_id.clone(), stored);
            }
            Err(error) => tracing::debug!(%error, "a job's mean time was not stored"),
        }
    }

    /// Read from the table once; from then on only this process changes it.
    async fn known_mean(&self, pool: &PoolId, box_id: &BoxId) -> Option<Mean> {
        let here = self.means().get(box_id).copied();
        match here {
            Some(mean) => Some(mean),
            None => {
                let item = self.table.get(&Key::mean(pool, box_id)).await.ok()??;
                let mean = Reader(&item).number_if("mean")?;
                Some(Mean { now: mean, stored: Some(mean) })
            }
        }
    }

    fn means(&self) -> MutexGuard<'_, HashMap<BoxId, Mean>> {
        self.means.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mean of the means of these boxes, where `items` have them.
pub(super) fn mean_of<'a>(
    items: impl Iterator<Item = &'a Item>,
    pool: &PoolId,
    boxes: &BTreeSet<&BoxId>,
) -> Option<TimeDelta> {
    let keys: BTreeSet<String> = boxes.iter().map(|id| Key::mean(pool, id).sk).collect();
    let of_boxes =
        items.filter(|item| Reader(item).text_if("sk").is_some_and(|sk| keys.contains(sk)));
    let means: Vec<i64> = of_boxes.filter_map(|item| Reader(item).number_if("mean")).collect();
    let count = i64::try_from(means.len()).unwrap_or(i64::MAX);
    (count > 0).then(|| TimeDelta::microseconds(means.iter().sum::<i64>() / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_stored_again_once_it_has_moved_by_a_sixteenth() {
        let stored = |now| Mean { now, stored: Some(160) }.is_due();
        assert!(Mean { now: 160, stored: None }.is_due());
        assert!(!stored(160) && !stored(169) && !stored(151));
        assert!(stored(170) && stored(150));
        // A steady load writes once.
        let mut mean = Mean { now: 160, stored: Some(160) };
        for _ in 0..100 {
            mean = mean.moved(165);
            assert!(!mean.is_due());
        }
        assert!(!Mean { now: 0, stored: Some(0) }.is_due());
    }
}
