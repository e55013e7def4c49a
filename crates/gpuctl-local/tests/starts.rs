//! Starts that fail, in the real ledger: one that comes too late is not given, one without a response may cost money.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

mod waiting;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::act::{Acted, act};
use gpuctl_control::plan;
use gpuctl_control::ports::LEASE_LASTS;
use gpuctl_control::ports::{
    Clock, Cloud, Ledger, Listing, PortError, PortErrorClass, Ports, StartOrder,
};
use gpuctl_core::cost::spent_since;
use gpuctl_core::observation::{BoxState, Run, SeenBox, Witness};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, MicroUsd, Timestamp};
use gpuctl_local::SystemClock;
use waiting::{Waiting, waiting};

/// One stopped box, whose start is answered as it is told here; each order is noted.
struct OneBox {
    fails_as: PortErrorClass,
    orders: Mutex<Vec<StartOrder>>,
}

#[async_trait]
impl Cloud for OneBox {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        let seen = SeenBox::new("gpu-1".parse().unwrap(), BoxState::Stopped, SystemClock.now());
        Ok(Listing { pools: [("gpu".parse().unwrap(), vec![seen])].into(), ..Listing::default() })
    }

    async fn start(&self, order: &StartOrder) -> Result<(), PortError> {
        self.orders.lock().unwrap().push(order.clone());
        Err(PortError::new(self.fails_as, "as the test wants it"))
    }

    async fn stop(&self, _: &BoxId, _: StopMode) -> Result<(), PortError> {
        Ok(())
    }
}

/// A clock that is one step later at each reading, as if the work between two readings took that long.
struct Steps {
    next: Mutex<Timestamp>,
    step: TimeDelta,
}

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        let mut next = self.next.lock().unwrap();
        let now = *next;
        *next += self.step;
        now
    }
}

/// What came of a start: what `act` says, the orders that the cloud got, and the run in the ledger.
struct Came {
    acted: Vec<Acted>,
    orders: Vec<StartOrder>,
    run: Run,
    cost: MicroUsd,
}

/// Lets a job wait, and carries out the start that is decided for it under a new lease, with a clock that moves by `step` at each reading.
async fn start(fails_as: PortErrorClass, step: TimeDelta) -> Came {
    let cloud = Arc::new(OneBox { fails_as, orders: Mutex::default() });
    let policy = "[pool.gpu]\nqueue = \"jobs\"\n[cost]\nusd_hour = 0.5";
    let Waiting { store, policy, ports: calm, .. } = &waiting(policy, cloud.clone()).await;
    let (observed, plan) = plan(calm, policy, Witness::Controller).await;
    let began = observed.observation.at;
    let clock = Arc::new(Steps { next: Mutex::new(began), step });
    let ports = Ports { clock, ..calm.clone() };
    let acted = act(&ports, &observed.observation, &plan, began + LEASE_LASTS).await;
    let runs = store.memory(&"gpu".parse().unwrap()).await.unwrap().runs;
    let [run] = runs.as_slice() else { panic!("{} runs", runs.len()) };
    let cost = spent_since(&runs, &policy.cost, began, began + TimeDelta::minutes(10));
    let orders = cloud.orders.lock().unwrap().clone();
    Came { acted, orders, run: run.clone(), cost }
}

fn class(came: &Came) -> PortErrorClass {
    let [acted] = came.acted.as_slice() else { panic!("{} actions", came.acted.len()) };
    acted.result.as_ref().unwrap_err().class
}

#[tokio::test]
async fn a_start_is_not_given_once_noting_it_has_outlasted_the_lease() {
    // It is begun within the lease: of the three readings of the clock only the last, after the note, is beyond it.
    let step = LEASE_LASTS / 2;
    let came = start(PortErrorClass::Unavailable, step).await;
    assert!(came.orders.is_empty(), "another controller may act by now: {:?}", came.orders);
    assert_eq!(class(&came), PortErrorClass::LeaseLost);
    assert_eq!(came.run.stopped_at, Some(came.run.started_at), "{:?}", came.run);
    assert_eq!(came.cost, MicroUsd(0));
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_stays_open_and_costs_until_the_box_is_seen() {
    let came = start(PortErrorClass::Unavailable, TimeDelta::zero()).await;
    assert_eq!((came.orders.len(), class(&came)), (1, PortErrorClass::Unavailable));
    assert_eq!((came.run.stopped_at, came.run.error), (None, None));
    assert_eq!(came.cost, MicroUsd(500_000).per_hour_for(600));
    // A plain no is an end, and free.
    let refused = start(PortErrorClass::Denied, TimeDelta::zero()).await;
    assert_eq!((refused.orders.len(), class(&refused)), (1, PortErrorClass::Denied));
    assert_eq!(refused.run.stopped_at, Some(refused.run.started_at));
    assert_eq!(refused.cost, MicroUsd(0));
}
