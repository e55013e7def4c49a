//! The life of a box in a replay: start, boot, drain, stop.

use gpuctl_core::observation::{BoxState, RUNS_REMEMBERED_MAX, Run, SeenBox, SeenWorker};
use gpuctl_core::offering::{CapacityType, Offering, Refusal, RefusalClass};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};

use super::events::{Event, StopCause};
use super::{Replay, Setup, instant};

/// What a replay knows of a box beyond what an observation shows.
#[derive(Default)]
pub(super) struct BoxWork {
    /// The number of its run; an event of an earlier one is void.
    pub(super) run: u32,
    pub(super) started_ms: i64,
    /// The index of its job.
    pub(super) job: Option<usize>,
    /// When its worker checks next whether the box should stop.
    pub(super) check_ms: i64,
}

impl Replay<'_> {
    /// Starts the box, or records the refusal.
    pub(super) fn start(&mut self, index: usize, mut run: Run) {
        if !self.has_capacity(index) {
            self.outcome.refusals += 1;
            let text = "InsufficientInstanceCapacity".to_owned();
            run.refusal = Some(Refusal { class: RefusalClass::Capacity, text });
            run.stopped_at = Some(run.started_at);
            self.add_run(run);
            return;
        }
        self.outcome.starts += 1;
        let now = instant(self.now_ms);
        let work = &mut self.work[index];
        work.run += 1;
        work.started_ms = self.now_ms;
        let number = work.run;
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since, one.run_started_at) = (BoxState::Pending, now, Some(now));
        (one.worker, one.interruption) = (None, None);
        self.add_run(run);
        self.events.push(self.now_ms + self.setup.boot_ms, Event::Ready(index, number));
    }

    pub(super) fn ready(&mut self, index: usize) {
        if self.boxes()[index].state != BoxState::Pending {
            return;
        }
        let now = instant(self.now_ms);
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since) = (BoxState::Running, now);
        self.set_worker(index, 0, Some(now));
        if let Some(run) = self.run_of(index) {
            run.ready_at = Some(now);
        }
        self.hand_out();
        self.check_if_idle(index);
        self.mark_changed();
    }

    /// Stops a box without a job at once; another drains: its job may finish until the deadline.
    pub(super) fn stop(&mut self, index: usize) {
        if self.work[index].job.is_none() {
            self.stopped(index, StopCause::Ordered);
            return;
        }
        let now = instant(self.now_ms);
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since) = (BoxState::Stopping, now);
        let drain_ms = self.setup.policy.worker.drain.num_milliseconds();
        self.events.push(self.now_ms + drain_ms, Event::DrainEnds(index, self.work[index].run));
    }

    /// The box is off; an unfinished job returns to the head of the queue.
    pub(super) fn stopped(&mut self, index: usize, cause: StopCause) {
        self.bill(index);
        let now = instant(self.now_ms);
        if let Some(job) = self.work[index].job.take() {
            self.outcome.waits_ms[job] = None;
            self.waiting.push_front(job);
        }
        self.work[index].run += 1;
        let jobs = self.boxes()[index].worker.as_ref().map(|worker| worker.jobs_done);
        if let Some(run) = self.run_of(index) {
            run.stopped_at = Some(now);
            run.jobs = jobs;
            run.interrupted_at = (cause == StopCause::Interrupted).then_some(now);
        }
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since) = (BoxState::Stopped, now);
        (one.worker, one.interruption) = (None, None);
        self.hand_out();
        self.mark_changed();
    }

    fn add_run(&mut self, run: Run) {
        let runs = &mut self.seen_pool().runs;
        runs.insert(0, run);
        runs.truncate(RUNS_REMEMBERED_MAX as usize);
    }

    /// The run that a box is in.
    pub(super) fn run_of(&mut self, index: usize) -> Option<&mut Run> {
        let (id, began) = (self.boxes()[index].id.clone(), self.boxes()[index].run_started_at?);
        let mine =
            |run: &&mut Run| run.box_id == id && run.started_at == began && run.refusal.is_none();
        self.seen_pool().runs.iter_mut().find(mine)
    }

    pub(super) fn set_worker(&mut self, index: usize, leases: u32, idle_since: Option<Timestamp>) {
        let heard_at = instant(self.now_ms);
        let one = &mut self.boxes_mut()[index];
        let jobs_done = one.worker.as_ref().map_or(0, |worker| worker.jobs_done);
        one.worker = Some(SeenWorker {
            heard_at,
            leases,
            idle_since,
            jobs_done,
            fault: None,
            keep_until: None,
        });
    }
}

/// The boxes of a replay, all stopped at its start: for each offering as many as may be up at once.
pub(super) fn stopped_boxes(pool: &PoolId, setup: &Setup<'_>, zones: &[String]) -> Vec<SeenBox> {
    let of = |capacity, zone: &str| Offering {
        instance_type: "g4dn.xlarge".to_owned(),
        zone: zone.to_owned(),
        capacity,
    };
    let on_demand =
        std::iter::once(of(CapacityType::OnDemand, zones.first().map_or("any", String::as_str)));
    let offerings: Vec<Offering> =
        on_demand.chain(zones.iter().map(|zone| of(CapacityType::Spot, zone))).collect();
    let each = usize::try_from(setup.policy.pools[0].boxes_max.get()).unwrap_or(usize::MAX);
    let all = offerings.iter().flat_map(|offering| std::iter::repeat_n(offering, each));
    (1..)
        .zip(all)
        .map(|(number, offering)| SeenBox {
            offering: Some(offering.clone()),
            ..SeenBox::new(BoxId::of_pool(pool, number), BoxState::Stopped, instant(0))
        })
        .collect()
}
