//! What a cloud guarantees of its boxes: each is listed, an order starts one box once, and a box that is told to stop stops.

use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;

use super::{Subject, TRIES_MAX};
use crate::ports::{PortErrorClass, StartOrder};

/// A cloud under test, whose pool has boxes that stay up once they are started.
pub trait CloudSubject: Subject {
    /// The policy; its first pool is the one under test.
    fn policy(&self) -> &Policy;
}

/// Boxes that never ran too, since only what is listed can be started.
pub async fn every_box_is_listed_once(subject: &dyn CloudSubject) {
    let seen = boxes(subject).await;
    let mut ids: Vec<_> = seen.iter().map(|one| one.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), seen.is_empty()), (seen.len(), false), "{seen:?}");
    for one in &seen {
        assert_eq!((one.state, one.interruption), (BoxState::Stopped, None), "{one:?}");
    }
}

/// R3, R4: an order that is repeated starts no second run, and another order is a conflict.
pub async fn an_order_given_twice_starts_one_box_once(subject: &dyn CloudSubject) {
    let first = order(subject, "first").await;
    let cloud = &subject.ports().cloud;
    cloud.start(&first).await.unwrap();
    state_becomes(subject, &first, is_up).await;
    let began = the_box(subject, &first).await.run_started_at;
    assert_eq!(began, Some(first.at), "the run is known by its order");
    cloud.start(&first).await.unwrap();
    let other = StartOrder { token: "other".to_owned(), ..first.clone() };
    assert_eq!(cloud.start(&other).await.unwrap_err().class, PortErrorClass::Conflict);
    assert_eq!(the_box(subject, &first).await.run_started_at, began);
    let up = boxes(subject).await.iter().filter(|one| one.is_up()).count();
    assert_eq!(up, 1);
    stop(subject, &first).await;
}

/// S4: and then it starts again.
pub async fn a_box_that_is_told_to_stop_stops_and_may_start_again(subject: &dyn CloudSubject) {
    let first = order(subject, "first").await;
    let cloud = &subject.ports().cloud;
    cloud.start(&first).await.unwrap();
    stop(subject, &first).await;
    let second = StartOrder { at: subject.ports().clock.now(), token: "second".into(), ..first };
    cloud.start(&second).await.unwrap();
    state_becomes(subject, &second, is_up).await;
    stop(subject, &second).await;
}

/// Two controllers that stop it at once both succeed.
pub async fn a_box_that_is_stopped_already_may_be_told_to_stop(subject: &dyn CloudSubject) {
    let order = order(subject, "none").await;
    for mode in [StopMode::Drain, StopMode::Force] {
        subject.ports().cloud.stop(&order.box_id, mode).await.unwrap();
    }
    assert_eq!(the_box(subject, &order).await.state, BoxState::Stopped);
}

async fn boxes(subject: &dyn CloudSubject) -> Vec<SeenBox> {
    let mut all = subject.ports().cloud.boxes(subject.policy()).await.unwrap();
    assert!(all.errors.is_empty(), "{:?}", all.errors);
    all.pools.remove(&subject.policy().pools[0].id).unwrap()
}

async fn the_box(subject: &dyn CloudSubject, order: &StartOrder) -> SeenBox {
    boxes(subject).await.into_iter().find(|one| one.id == order.box_id).unwrap()
}

async fn order(subject: &dyn CloudSubject, token: &str) -> StartOrder {
    let box_id = boxes(subject).await.remove(0).id;
    // Adapters keep microseconds.
    let at = super::whole(subject.ports().clock.now());
    StartOrder { pool: subject.policy().pools[0].id.clone(), box_id, at, token: token.to_owned() }
}

/// Tells it to stop until it is stopped: one that has only just been started may reject it.
async fn stop(subject: &dyn CloudSubject, order: &StartOrder) {
    for _ in 0..TRIES_MAX {
        match subject.ports().cloud.stop(&order.box_id, StopMode::Drain).await {
            Ok(()) if the_box(subject, order).await.state == BoxState::Stopped => return,
            Ok(()) => {}
            Err(error) => assert_eq!(error.class, PortErrorClass::Conflict, "{error}"),
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    unreachable!("it never stopped");
}

async fn state_becomes(
    subject: &dyn CloudSubject,
    order: &StartOrder,
    wanted: fn(&BoxState) -> bool,
) {
    for _ in 0..TRIES_MAX {
        if wanted(&the_box(subject, order).await.state) {
            return;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    unreachable!("it never started");
}

fn is_up(state: &BoxState) -> bool {
    matches!(state, BoxState::Pending | BoxState::Running)
}
