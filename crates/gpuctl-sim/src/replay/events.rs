//! The events of a replay, in the order in which they happen, and the jobs' part in them: arrival, hand-out, end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_core::observation::BoxState;

use super::{Replay, instant};

/// How long boxes may go on after the last job, for policies that never stop them.
pub(super) const AFTERWARDS_MS: i64 = 3_600_000;

/// How often a worker without a job checks whether its box should stop.
pub(super) const WORKER_CHECK_EVERY_MS: i64 = WorkerPace::LOCAL.reconcile_every.num_milliseconds();

/// Events at one instant happen in this order. Those of a box carry its index and the number of its run: an event of an earlier
/// run is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    JobDone(usize, u32),
    Ready(usize, u32),
    DrainEnds(usize, u32),
    Interrupted(usize, u32),
    /// Spot capacity in the zone of this index may have changed.
    ZoneChanges(usize),
    /// The job of this index arrives.
    Arrival(usize),
    /// The worker on the box checks whether the box should stop.
    WorkerCheck(usize, u32),
    Tick,
}

/// Why a box stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    Ordered,
    Interrupted,
}

/// Events to come, ordered by time, then kind, then insertion.
#[derive(Default)]
pub(super) struct EventQueue {
    heap: BinaryHeap<Reverse<(i64, Event, u64)>>,
    inserted: u64,
}

impl EventQueue {
    pub(super) fn push(&mut self, at_ms: i64, event: Event) {
        self.inserted += 1;
        self.heap.push(Reverse((at_ms, event, self.inserted)));
    }

    pub(super) fn pop(&mut self) -> Option<(i64, Event)> {
        self.heap.pop().map(|Reverse((at_ms, event, _))| (at_ms, event))
    }
}

impl Replay<'_> {
    pub(super) fn schedule_first_events(&mut self) {
        self.events.push(0, Event::Tick);
        if let Some(first) = self.demand.jobs().first() {
            self.events.push(first.at_ms, Event::Arrival(0));
        }
        for zone in 0..self.zones.len() {
            self.schedule_zone_change(zone);
        }
    }

    /// Whether nothing can happen any more that counts.
    pub(super) fn is_over(&self, at_ms: i64) -> bool {
        let Some(done_ms) = self.done_ms else { return false };
        at_ms > done_ms + AFTERWARDS_MS
            || self.boxes().iter().all(|one| one.state == BoxState::Stopped)
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.tick();
                let tick_ms = self.setup.policy.cloud.tick.num_milliseconds().max(1);
                self.events.push(self.now_ms + tick_ms, Event::Tick);
            }
            Event::Arrival(job) => self.arrive(job),
            Event::Ready(index, run) if self.work[index].run == run => self.ready(index),
            Event::JobDone(index, run) if self.work[index].run == run => self.job_done(index),
            Event::DrainEnds(index, run) if self.work[index].run == run => {
                self.stopped(index, StopCause::Ordered);
            }
            Event::Interrupted(index, run) if self.work[index].run == run => {
                self.outcome.interruptions += 1;
                self.stopped(index, StopCause::Interrupted);
            }
            Event::WorkerCheck(index, run) if self.work[index].run == run => {
                self.worker_check(index);
            }
            Event::ZoneChanges(zone) => self.zone_changes(zone),
            // Of a run that is over.
            Event::Ready(..)
            | Event::JobDone(..)
            | Event::DrainEnds(..)
            | Event::Interrupted(..)
            | Event::WorkerCheck(..) => {}
        }
    }

    fn arrive(&mut self, job: usize) {
        self.waiting.push_back(job);
        if let Some(next) = self.demand.jobs().get(job + 1) {
            self.events.push(next.at_ms, Event::Arrival(job + 1));
        }
        self.hand_out();
        self.mark_changed();
    }

    /// Gives waiting jobs to boxes without one.
    pub(super) fn hand_out(&mut self) {
        for index in 0..self.work.len() {
            let one = &self.boxes()[index];
            let free = one.state == BoxState::Running
                && one.interruption.is_none()
                && self.work[index].job.is_none();
            if !free {
                continue;
            }
            let Some(job) = self.waiting.pop_front() else { return };
            let wanted = self.demand.jobs()[job];
            self.outcome.waits_ms[job] = Some(self.now_ms - wanted.at_ms);
            self.work[index].job = Some(job);
            let run = self.work[index].run;
            self.events.push(self.now_ms + wanted.service_ms, Event::JobDone(index, run));
            self.set_worker(index, 1, None);
        }
    }

    fn job_done(&mut self, index: usize) {
        self.work[index].job = None;
        self.open_jobs -= 1;
        let done = self.boxes()[index].worker.as_ref().map_or(0, |worker| worker.jobs_done);
        self.set_worker(index, 0, Some(instant(self.now_ms)));
        if let Some(worker) = &mut self.boxes_mut()[index].worker {
            worker.jobs_done = done.saturating_add(1);
        }
        if self.open_jobs == 0 {
            self.done_ms = Some(self.now_ms);
        }
        if self.boxes()[index].state == BoxState::Stopping {
            self.stopped(index, StopCause::Ordered);
        }
        self.hand_out();
        self.check_if_idle(index);
        self.mark_changed();
    }

    /// Schedules the worker's next check if its box has no job.
    pub(super) fn check_if_idle(&mut self, index: usize) {
        if self.boxes()[index].state == BoxState::Running && self.work[index].job.is_none() {
            self.schedule_worker_check(index, self.now_ms + WORKER_CHECK_EVERY_MS);
        }
    }
}
