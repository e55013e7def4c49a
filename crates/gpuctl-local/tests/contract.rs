//! The embedded queue and ledger keep what every adapter guarantees.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use chrono::TimeDelta;
use gpuctl_control::contract::{RECEIVES_MAX, WaitingSubject};
use gpuctl_control::contract_tests;
use gpuctl_core::policy::Policy;
use gpuctl_local::{Launcher, Store, StoreOptions, ports};
use tempfile::TempDir;

async fn setup() -> WaitingSubject<TempDir> {
    setup_with(&["jobs"]).await
}

/// With a pool for each of these queues.
async fn setup_with(queues: &[&str]) -> WaitingSubject<TempDir> {
    let folder = TempDir::new().unwrap();
    let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 };
    let store = Store::open(&options).unwrap();
    let mut policy = "[pool.app]\ncommand = [\"sleep\", \"60\"]\nboxes_max = 2\n".to_owned();
    for (n, queue) in queues.iter().enumerate() {
        let pool = format!("[pool.gpu-{n}]\nqueue = \"{queue}\"\nreceives_max = {RECEIVES_MAX}\n");
        policy.push_str(&pool);
    }
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
contract_tests!(priority, setup);
contract_tests!(urgent, setup);
contract_tests!(scheduled, setup);
contract_tests!(keys, setup);

/// Queues that know no priorities, as SQS's, behind one: the contract holds for them as for one queue.
mod lanes {
    use std::sync::Arc;

    use gpuctl_control::contract::WaitingSubject;
    use gpuctl_control::contract_tests;
    use gpuctl_control::lanes::Lanes;
    use gpuctl_control::ports::Ports;
    use gpuctl_core::policy::Policy;
    use tempfile::TempDir;

    const LANES: &str = "[cloud]\nkind = \"aws\"\ntable = \"t\"\n[pool.gpu]\nqueue = \"jobs\"\nqueue_high = \"high\"\n\
        queue_low = \"low\"\nselect = { a = \"b\" }";

    async fn setup() -> WaitingSubject<TempDir> {
        let subject = super::setup_with(&["jobs", "high", "low"]).await;
        let queue = Arc::clone(&subject.ports.queue);
        let lanes = Arc::new(Lanes::new(queue, &Policy::parse(LANES).unwrap()));
        let ports = Ports { queue: lanes, ..subject.ports };
        WaitingSubject { ports, ..subject }
    }

    contract_tests!(queue, setup);
    contract_tests!(redrive, setup);
    contract_tests!(lists, setup);
    contract_tests!(priority, setup);
}
