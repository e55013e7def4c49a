//! What the embedded ledger guarantees beyond the contract: one right to reconcile over several connections, a quiet night on one row, and
//! notices that are claimed once.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use chrono::TimeDelta;
use gpuctl_control::ports::{Ledger, Ports};
use gpuctl_control::{Trigger, reconcile};
use gpuctl_core::policy::Policy;
use gpuctl_local::{FILE_NAME, Store, StoreOptions, ports};
use tempfile::TempDir;

fn open(folder: &TempDir) -> Store {
    Store::open(&StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 }).unwrap()
}

#[tokio::test]
async fn the_loop_has_one_holder_until_its_lease_runs_out() {
    let folder = TempDir::new().unwrap();
    let (one, other) = (open(&folder), open(&folder));
    let fence = one.lease("one", TimeDelta::minutes(1)).await.unwrap().unwrap();
    assert!(other.lease("other", TimeDelta::minutes(1)).await.unwrap().is_none());
    one.release(&fence).await.unwrap();
    let next = other.lease("other", TimeDelta::zero()).await.unwrap().unwrap();
    assert!(next.number > fence.number);
    // The first holder comes back late: its release must not take the lease from the third.
    let third = one.lease("third", TimeDelta::minutes(1)).await.unwrap().unwrap();
    one.release(&fence).await.unwrap();
    assert!(other.lease("other", TimeDelta::minutes(1)).await.unwrap().is_none());
    one.release(&third).await.unwrap();
}

#[tokio::test]
async fn a_quiet_night_is_one_record() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap();
    store.configure(&policy).unwrap();
    let ports: Ports = ports(&store, None, Vec::new());
    for _ in 0..20 {
        assert!(reconcile(&ports, &policy, Trigger::Tick, "test").await.unwrap().is_some());
    }
    let file = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
    let (rows, repeats): (i64, i64) = file
        .query_row("SELECT count(*), sum(repeats) FROM records", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((rows, repeats), (1, 19));
}

#[tokio::test]
async fn a_notice_is_claimed_once_until_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let day = TimeDelta::days(1);
    assert!(store.claim_notice("quota/gpu", day).await.unwrap());
    assert!(!store.claim_notice("quota/gpu", day).await.unwrap());
    assert!(store.claim_notice("dead/gpu/1", day).await.unwrap());
    assert!(store.claim_notice("quota/gpu", TimeDelta::zero()).await.unwrap());
}
