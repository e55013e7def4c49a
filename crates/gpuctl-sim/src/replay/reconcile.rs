//! Who evaluates the policy in a replay: the controller at each tick, a worker without a job for its own box.

use gpuctl_core::decide;
use gpuctl_core::observation::{Run, Seen, SeenQueue, Witness};
use gpuctl_core::plan::{Action, Plan};
use gpuctl_core::refusals::REFUSALS_MAX;

use super::events::{Event, WORKER_CHECK_EVERY_MS};
use super::{Evaluation, Replay, instant};

impl Replay<'_> {
    /// The controller reconciles. After a refusal it does so again at once, for the next offering, as in production.
    pub(super) fn tick(&mut self) {
        let due = self.next_change_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        if self.setup.evaluation == Evaluation::OnChange && !self.changed && !due {
            return;
        }
        self.changed = self.sample_queue();
        for _ in 0..REFUSALS_MAX {
            let plan = self.plan(Witness::Controller);
            self.next_change_ms = next_change_ms(&plan);
            let refusals = self.outcome.refusals;
            for action in &plan.pools[0].actions {
                self.act(action);
            }
            if self.outcome.refusals == refusals {
                return;
            }
        }
    }

    /// The worker on a box without a job stops the box if the plan says so, or schedules its next check.
    pub(super) fn worker_check(&mut self, index: usize) {
        let work = &self.work[index];
        if work.check_ms != self.now_ms || work.job.is_some() {
            return;
        }
        let changed = self.sample_queue();
        let soon_ms = self.now_ms + WORKER_CHECK_EVERY_MS;
        let always = self.setup.evaluation == Evaluation::Always;
        if self.is_first_empty_sample() && changed && !always {
            // Q3: one empty sample stops nothing, so there is nothing to evaluate yet.
            self.schedule_worker_check(index, soon_ms);
            return;
        }
        let id = self.boxes()[index].id.clone();
        let plan = self.plan(Witness::Worker(id.clone()));
        let stop =
            |action: &&Action| matches!(action, Action::Stop { box_id, .. } if *box_id == id);
        if let Some(stop) = plan.pools[0].actions.iter().find(stop) {
            self.act(stop);
        } else if changed || always {
            self.schedule_worker_check(index, soon_ms);
        } else if let Some(at_ms) = next_change_ms(&plan) {
            // The worker checks at its own steps.
            let steps = (at_ms - self.now_ms + WORKER_CHECK_EVERY_MS - 1)
                .div_euclid(WORKER_CHECK_EVERY_MS)
                .max(1);
            self.schedule_worker_check(index, self.now_ms + steps * WORKER_CHECK_EVERY_MS);
        }
    }

    fn is_first_empty_sample(&mut self) -> bool {
        let queue = self.seen_pool().queue.as_ref().and_then(|queue| queue.value.as_ref());
        queue.and_then(|queue| queue.empty_since).is_none()
    }

    /// Schedules the box's next check; one that was scheduled before is void.
    pub(super) fn schedule_worker_check(&mut self, index: usize, at_ms: i64) {
        self.work[index].check_ms = at_ms;
        self.events.push(at_ms, Event::WorkerCheck(index, self.work[index].run));
    }

    /// Samples the queue as `observe` does: it counts as empty from the first of consecutive empty samples on. Returns whether
    /// that changed.
    fn sample_queue(&mut self) -> bool {
        let at = instant(self.now_ms);
        let busy = self.work.iter().filter(|work| work.job.is_some()).count();
        let oldest = self.waiting.front().map(|job| instant(self.demand.jobs()[*job].at_ms));
        let waiting = self.waiting.len();
        let queue =
            self.seen_pool().queue.get_or_insert_with(|| Seen::now(SeenQueue::default(), at));
        let last = queue.value.take().unwrap_or_default();
        let mut seen = SeenQueue {
            visible: u64::try_from(waiting).unwrap_or(u64::MAX),
            in_flight: u64::try_from(busy).unwrap_or(u64::MAX),
            oldest_sent_at: oldest,
            ..SeenQueue::default()
        };
        seen.empty_since = seen.empty_since(Some((&last, queue.at)));
        let changed = seen.empty_since != last.empty_since || seen.is_empty() != last.is_empty();
        *queue = Seen::now(seen, at);
        changed
    }

    fn plan(&mut self, witness: Witness) -> Plan {
        let at = instant(self.now_ms);
        self.seen.at = at;
        self.seen.witness = witness;
        let pool = self.seen_pool();
        pool.boxes.at = at;
        for worker in pool.boxes.value.iter_mut().flatten().filter_map(|one| one.worker.as_mut()) {
            worker.heard_at = at;
        }
        decide(self.setup.policy, &self.seen)
    }

    fn act(&mut self, action: &Action) {
        let Some(index) = self.boxes().iter().position(|one| one.id == *action.box_id()) else {
            return;
        };
        match action {
            Action::Start { reason, .. } => {
                let at = instant(self.now_ms);
                let run = Run {
                    offering: self.boxes()[index].offering.clone(),
                    ..Run::begin(self.pool.clone(), action.box_id().clone(), at, reason.clone())
                };
                self.start(index, run);
            }
            Action::Stop { reason, .. } => {
                let reason = reason.clone();
                if let Some(run) = self.run_of(index) {
                    run.stop = Some(reason);
                }
                self.stop(index);
            }
        }
        self.mark_changed();
    }
}

fn next_change_ms(plan: &Plan) -> Option<i64> {
    let next = plan.pools[0].next_change.as_ref()?;
    let since = next.at - instant(0);
    // Rounded up: at the millisecond before, nothing has changed yet.
    Some(since.num_milliseconds() + i64::from(since.subsec_nanos() % 1_000_000 > 0))
}
