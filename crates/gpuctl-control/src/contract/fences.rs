//! What a ledger guarantees of a write whose controller has lost the right to reconcile: once a later one has written, it changes nothing.

use chrono::TimeDelta;
use gpuctl_core::observation::{Run, SeenQueue};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::Timestamp;

use super::{Subject, whole};
use crate::ports::{Fence, PortError, PortErrorClass, QueueMemory};
use crate::wire::record::Record;

/// A worker has no fence, and its write is neither stopped nor a fence to others.
pub async fn a_run_is_not_changed_by_an_older_fence(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let at = whole(subject.ports().clock.now());
    let pool = "fenced-run".parse().unwrap();
    let reason = Reason::new(Rule::Demand, "1 job waits");
    let begun = Run::begin(pool, "gpu-1".parse().unwrap(), at, reason);
    ledger.save_run(&begun, Some(&fence(at, 5))).await.unwrap();
    let ready = Run { ready_at: Some(at + TimeDelta::seconds(9)), ..begun.clone() };
    is_conflict(ledger.save_run(&ready, Some(&fence(at, 4))).await);
    assert_eq!(ledger.memory(&begun.pool).await.unwrap().runs, std::slice::from_ref(&begun));
    ledger.save_run(&ready, None).await.unwrap();
    assert_eq!(ledger.memory(&begun.pool).await.unwrap().runs, std::slice::from_ref(&ready));
    let stopped = Run { stopped_at: Some(at + TimeDelta::minutes(1)), ..ready };
    is_conflict(ledger.save_run(&stopped, Some(&fence(at, 4))).await);
    ledger.save_run(&stopped, Some(&fence(at, 5))).await.unwrap();
    assert_eq!(ledger.memory(&begun.pool).await.unwrap().runs, std::slice::from_ref(&stopped));
    // Another item has its own newest fence.
    let other =
        Run { pool: "fenced-run-b".parse().unwrap(), box_id: "gpu-2".parse().unwrap(), ..stopped };
    ledger.save_run(&other, Some(&fence(at, 1))).await.unwrap();
}

/// Or a controller that hung would make a queue look as it was then.
pub async fn a_remembered_queue_is_not_changed_by_an_older_fence(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let at = whole(subject.ports().clock.now());
    let pool = "fenced-queue".parse().unwrap();
    let memory = |visible| QueueMemory { seen: SeenQueue { visible, ..SeenQueue::default() }, at };
    ledger.remember_queue(&pool, &memory(2), Some(&fence(at, 8))).await.unwrap();
    is_conflict(ledger.remember_queue(&pool, &memory(1), Some(&fence(at, 7))).await);
    assert_eq!(ledger.memory(&pool).await.unwrap().queue, Some(memory(2)));
    ledger.remember_queue(&pool, &memory(3), None).await.unwrap();
    is_conflict(ledger.remember_queue(&pool, &memory(1), Some(&fence(at, 7))).await);
    assert_eq!(ledger.memory(&pool).await.unwrap().queue, Some(memory(3)));
    ledger.remember_queue(&pool, &memory(4), Some(&fence(at, 9))).await.unwrap();
    assert_eq!(ledger.memory(&pool).await.unwrap().queue, Some(memory(4)));
}

/// Whether it would be a new record or one that repeats the last.
pub async fn no_record_is_added_by_an_older_fence(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let at = whole(subject.ports().clock.now());
    let record = |minute: u32, error: &str| Record {
        at: format!("2026-11-21T12:0{minute}:00.000Z"),
        trigger: "tick".to_owned(),
        by: "test".to_owned(),
        pools: Vec::new(),
        errors: vec![error.to_owned()],
    };
    ledger.record(&record(1, "one"), &fence(at, 6)).await.unwrap();
    for late in [record(2, "one"), record(3, "other")] {
        is_conflict(ledger.record(&late, &fence(at, 5)).await);
    }
    let last = ledger.last_reconcile().await.unwrap();
    assert_eq!(last, Some(record(1, "one").at.parse().unwrap()));
    ledger.record(&record(4, "one"), &fence(at, 6)).await.unwrap();
    ledger.record(&record(5, "other"), &fence(at, 7)).await.unwrap();
    assert_eq!(ledger.last_reconcile().await.unwrap(), Some(record(5, "").at.parse().unwrap()));
}

fn is_conflict(written: Result<(), PortError>) {
    assert_eq!(written.unwrap_err().class, PortErrorClass::Conflict);
}

fn fence(now: Timestamp, number: i64) -> Fence {
    Fence { owner: "test".to_owned(), number, until: now + TimeDelta::minutes(1) }
}
