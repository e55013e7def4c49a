//! The contract of every `Cloud`, on the adapter over HTTP: boxes that are stopped and started, and boxes that are launched.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_aws::{DynamoLedger, Ec2Cloud, SqsQueue};
use gpuctl_control::contract::Subject;
use gpuctl_control::contract::cloud::CloudSubject;
use gpuctl_control::ports::{Clock, NoFiles, Ports};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::QueueName;

use super::support::{Account, Wanted, aws, on_demand};

/// Starts and stops of the simulated EC2 take 10 and 20 s: a listing falls between.
const LEASE_MIN: TimeDelta = TimeDelta::seconds(40);

struct OnWire {
    account: Account,
    ports: Ports,
    queue: QueueName,
}

impl OnWire {
    async fn open(wanted: Wanted<'_>) -> Self {
        let account = Account::open(wanted).await;
        let clock = Arc::clone(&account.clock) as Arc<dyn Clock>;
        let aws = aws(&account.front.url());
        let ports = Ports {
            cloud: Arc::new(Ec2Cloud::new(&aws, account.policy.clone(), Arc::clone(&clock))),
            // The front has neither, and the contract of clouds calls neither.
            queue: Arc::new(SqsQueue::new(&aws)),
            ledger: Arc::new(DynamoLedger::new(&aws, "none", Arc::clone(&clock), None)),
            clock,
            files: Arc::new(NoFiles),
        };
        Self { account, ports, queue: "none".parse().unwrap() }
    }
}

#[async_trait]
impl Subject for OnWire {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn lease_min(&self) -> TimeDelta {
        LEASE_MIN
    }

    async fn let_time_pass(&self, span: TimeDelta) {
        self.account.clock.pass(span.num_seconds());
    }
}

impl CloudSubject for OnWire {
    fn policy(&self) -> &Policy {
        &self.account.policy
    }
}

mod stable {
    use super::{OnWire, Wanted, on_demand};
    use gpuctl_control::contract_tests;

    async fn setup() -> OnWire {
        let pool = "[pool.gpu]\ninstances = [IDS]\nboxes_max = 2";
        OnWire::open(Wanted { boxes: &[on_demand(), on_demand()], pool }).await
    }

    contract_tests!(cloud, setup);
}

mod launched {
    use super::{OnWire, Wanted};
    use gpuctl_control::contract_tests;

    async fn setup() -> OnWire {
        let pool = "[pool.gpu]\nlaunch_template = \"gpu\"\ninstance_types = [\"g4dn.xlarge\"]\n\
            subnets = [\"subnet-us-east-1a\"]\nboxes_max = 2";
        OnWire::open(Wanted { boxes: &[], pool }).await
    }

    contract_tests!(cloud, setup);
}
