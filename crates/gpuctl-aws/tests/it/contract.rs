//! The contract of every adapter, on SQS by ministack, and on DynamoDB by ministack and by moto.

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::contract::Subject;
use gpuctl_control::ports::Ports;
use gpuctl_core::units::QueueName;

use crate::support;

struct OnAws {
    ports: Ports,
    queue: QueueName,
}

#[async_trait]
impl Subject for OnAws {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn lease_min(&self) -> TimeDelta {
        support::SECOND
    }

    async fn let_time_pass(&self, span: TimeDelta) {
        tokio::time::sleep(span.to_std().unwrap()).await;
    }
}

mod on_ministack {
    use std::sync::Arc;

    use gpuctl_control::contract_tests;
    use gpuctl_control::lanes::Lanes;
    use gpuctl_control::ports::Ports;
    use gpuctl_core::policy::Policy;

    use super::{OnAws, support};

    async fn setup() -> OnAws {
        let aws = support::aws(&support::ministack().await.url());
        OnAws { ports: support::ports(&aws, &aws).await, queue: support::a_queue(&aws).await }
    }

    /// A queue for each priority.
    async fn with_lanes() -> OnAws {
        let aws = support::aws(&support::ministack().await.url());
        let ports = support::ports(&aws, &aws).await;
        let [queue, high, low] = [
            support::a_queue(&aws).await,
            support::a_queue(&aws).await,
            support::a_queue(&aws).await,
        ];
        let policy = format!(
            "[cloud]\nkind = \"aws\"\ntable = \"t\"\n[pool.gpu]\nqueue = \"{queue}\"\nqueue_high = \"{high}\"\n\
             queue_low = \"{low}\"\nselect = {{ a = \"b\" }}"
        );
        let lanes = Lanes::new(ports.queue.clone(), &Policy::parse(&policy).unwrap());
        OnAws { ports: Ports { queue: Arc::new(lanes), ..ports }, queue }
    }

    contract_tests!(priority, with_lanes);
    contract_tests!(queue, setup);
    contract_tests!(ledger, setup);
    contract_tests!(jobs, setup);
    contract_tests!(cancel, setup);
    contract_tests!(urgent, setup);
    contract_tests!(scheduled, setup);
    contract_tests!(keys, setup);
    contract_tests!(problems, setup);
}

mod on_moto {
    use super::{OnAws, support};
    use gpuctl_control::contract_tests;

    async fn setup() -> OnAws {
        let for_queue = support::aws(&support::ministack().await.url());
        let for_ledger = support::aws(&support::moto().await.url());
        let ports = support::ports(&for_queue, &for_ledger).await;
        OnAws { ports, queue: support::a_queue(&for_queue).await }
    }

    contract_tests!(ledger, setup);
    contract_tests!(fences, setup);
    contract_tests!(jobs, setup);
    contract_tests!(cancel, setup);
    contract_tests!(urgent, setup);
    contract_tests!(scheduled, setup);
    contract_tests!(keys, setup);
    contract_tests!(problems, setup);
}
