//! Several workers on one box, one for each of its devices: one report each, one power-off together.

use std::collections::BTreeSet;

use gpuctl_control::ports::WorkerReport;
use gpuctl_worker::{Neighbours, WorkerExit};

use crate::world::{Serving, State, World, seconds};

/// What the locks of a box are for `gpu-worker`.
pub(crate) struct OfDevice {
    pub(crate) world: World,
    pub(crate) device: String,
}

impl Neighbours for OfDevice {
    fn is_last(&self) -> bool {
        let mut state = self.world.state();
        state.serving.remove(&self.device);
        let is_last = state.serving.is_empty();
        drop(state);
        is_last && self.may_stop_box()
    }

    fn may_stop_box(&self) -> bool {
        *self.world.state().ending.get_or_insert(self.device.clone()) == self.device
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_is_idle_when_all_its_workers_are_and_is_stopped_once() {
    let world = World::new("").with_idle_stop("10s");
    let workers = ["0", "1"].map(|device| world.serve_device(device));
    world.submit("slow:300");
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    world.wait(seconds(310), |state| state.results.len() == 1).await;
    assert_eq!(world.see(|state| state.stops), 0, "one of them had a job");
    let devices = world.see(|state| {
        let devices = state.reports.iter().map(|report| report.device.clone().unwrap());
        devices.collect::<BTreeSet<_>>()
    });
    assert_eq!(devices.into_iter().collect::<Vec<_>>(), ["0", "1"]);
    world.wait(seconds(30), |state| state.stops > 0).await;
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(world.see(|state| state.stops), 1);
    let (over, serving): (Vec<_>, Vec<_>) = workers.into_iter().partition(Serving::is_over);
    assert_eq!((over.len(), serving.len()), (1, 1));
    for one in over {
        assert_eq!(one.exit().await, WorkerExit::Idle);
    }
    // As the system does when it shuts down.
    for one in serving {
        one.signals.stop();
        assert_eq!(one.exit().await, WorkerExit::ToldToStop);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_gives_up_leaves_the_box_to_the_others_until_they_end() {
    let world = World::new("[model.fake]\njob_max = \"3m\"\n");
    let broken = world.serve_device("0");
    world.submit("hang");
    world.wait(seconds(5), |state| state.running.len() == 1).await;
    let healthy = world.serve_device("1");
    let says_so = |state: &State| {
        let of_broken = |report: &&WorkerReport| report.device.as_deref() == Some("0");
        let last = state.reports.iter().rev().find(of_broken);
        last.is_some_and(|report| report.last_error.is_some())
    };
    world.wait(seconds(300), says_so).await;
    for done in 2..5 {
        world.submit("slow:100");
        world.wait(seconds(200), |state| state.results.len() == done).await;
        assert!(!broken.is_over(), "the box would be powered off");
    }
    assert_eq!(world.outcomes(), ["job.timeout", "ok", "ok", "ok"]);
    healthy.signals.stop();
    assert_eq!(healthy.exit().await, WorkerExit::ToldToStop);
    // As the locks of a process that has ended.
    world.state().serving.remove("1");
    assert_eq!(broken.exit().await, WorkerExit::Hung);
}
