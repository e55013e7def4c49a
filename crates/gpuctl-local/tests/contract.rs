//! The embedded queue and ledger keep what every adapter guarantees.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use chrono::TimeDelta;
use gpuctl_control::contract::{RECEIVES_MAX, WaitingSubject};
use gpuctl_control::contract_tests;
use gpuctl_core::policy::Policy;
use gpuctl_local::{Launcher, Store, StoreOptions, ports};
use tempfile::TempDir;

async fn setup() -> WaitingSubject<TempDir> {
    let folder = TempDir::new().unwrap();
    let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 };
    let store = Store::open(&options).unwrap();
    let policy = format!(
        "[pool.app]\ncommand = [\"sleep\", \"60\"]\nboxes_max = 2\n[pool.gpu]\nqueue = \"jobs\"\nreceives_max = {RECEIVES_MAX}"
    );
    let policy = Policy::parse(&policy).unwrap();
    store.configure(&policy).unwrap();
    let launcher = Launcher {
        worker: "gpu-worker".into(),
        config: None,
        folder: folder.path().to_owned(),
        policy: policy.clone(),
    };
    WaitingSubject {
        ports: ports(&store, Some(launcher), Vec::new()),
        queue: "jobs".parse().unwrap(),
        policy,
        lease_min: TimeDelta::milliseconds(200),
        kept: folder,
    }
}

contract_tests!(cloud, setup);
contract_tests!(queue, setup);
contract_tests!(redrive, setup);
contract_tests!(lists, setup);
contract_tests!(ledger, setup);
contract_tests!(fences, setup);
contract_tests!(jobs, setup);
contract_tests!(generations, setup);
contract_tests!(cancel, setup);
contract_tests!(problems, setup);
contract_tests!(deletion, setup);
