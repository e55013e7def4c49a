//! The world's boxes, queue and ledger keep what every adapter promises.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::contract::cloud::CloudSubject;
use gpuctl_control::contract::{RECEIVES_MAX, Subject};
use gpuctl_control::contract_tests;
use gpuctl_control::ports::Ports;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::QueueName;
use gpuctl_sim::world::faultless_ports;

struct World {
    ports: Ports,
    queue: QueueName,
    policy: Policy,
}

async fn setup() -> World {
    let policy = format!("[pool.gpu]\nqueue = \"jobs\"\nreceives_max = {RECEIVES_MAX}");
    let policy = Policy::parse(&policy).unwrap();
    let ports = faultless_ports(Some(policy.clone())).unwrap();
    World { ports, queue: "jobs".parse().unwrap(), policy }
}

#[async_trait]
impl Subject for World {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn lease_min(&self) -> TimeDelta {
        TimeDelta::milliseconds(500)
    }

    async fn pass(&self, span: TimeDelta) {
        tokio::time::sleep(span.to_std().unwrap()).await;
    }
}

impl CloudSubject for World {
    fn policy(&self) -> &Policy {
        &self.policy
    }
}

contract_tests!(cloud, setup);
contract_tests!(queue, setup);
contract_tests!(redrive, setup);
contract_tests!(ledger, setup);
contract_tests!(jobs, setup);
