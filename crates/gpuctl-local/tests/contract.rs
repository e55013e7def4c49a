//! The embedded queue and ledger keep what every adapter promises.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::contract::cloud::CloudSubject;
use gpuctl_control::contract::{RECEIVES_MAX, Subject};
use gpuctl_control::contract_tests;
use gpuctl_control::ports::Ports;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::QueueName;
use gpuctl_local::{Launcher, Store, StoreOptions, ports};
use tempfile::TempDir;

struct Local {
    ports: Ports,
    queue: QueueName,
    policy: Policy,
    _folder: TempDir,
}

async fn setup() -> Local {
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
    let ports = ports(&store, Some(launcher), Vec::new());
    Local { ports, queue: "jobs".parse().unwrap(), policy, _folder: folder }
}

#[async_trait]
impl Subject for Local {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn lease_min(&self) -> TimeDelta {
        TimeDelta::milliseconds(200)
    }

    async fn pass(&self, span: TimeDelta) {
        tokio::time::sleep(span.to_std().unwrap()).await;
    }
}

impl CloudSubject for Local {
    fn policy(&self) -> &Policy {
        &self.policy
    }
}

contract_tests!(cloud, setup);
contract_tests!(queue, setup);
contract_tests!(redrive, setup);
contract_tests!(ledger, setup);
contract_tests!(jobs, setup);
