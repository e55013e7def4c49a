//! Refused starts, remembered in the ledger: one reconcile goes from offering to offering, and the next one heeds it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod waiting;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gpuctl_control::ports::{Clock, Cloud, Ledger, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_control::{Trigger, reconcile};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::offering::{CapacityType, Offering, RefusalClass};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::BoxId;
use gpuctl_local::SystemClock;
use waiting::{Waiting, waiting};

/// Boxes that are sold out on spot: each order is noted, and only on-demand is served.
#[derive(Default)]
struct SoldOut {
    orders: Mutex<Vec<String>>,
}

const BOXES: [(&str, &str, CapacityType); 3] = [
    ("gpu-1", "us-east-1a", CapacityType::OnDemand),
    ("gpu-2", "us-east-1a", CapacityType::Spot),
    ("gpu-3", "us-east-1b", CapacityType::Spot),
];

#[async_trait]
impl Cloud for SoldOut {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        let a_box = |(id, zone, capacity): (&str, &str, CapacityType)| {
            let offering =
                Offering { instance_type: "g4dn.xlarge".into(), zone: zone.into(), capacity };
            let id = id.parse().unwrap();
            let seen = SeenBox::new(id, BoxState::Stopped, SystemClock.now());
            SeenBox { offering: Some(offering), ..seen }
        };
        let pool = "gpu".parse().unwrap();
        Ok(Listing { pools: [(pool, BOXES.map(a_box).to_vec())].into(), ..Listing::default() })
    }

    async fn start(&self, order: &StartOrder) -> Result<(), PortError> {
        self.orders.lock().unwrap().push(order.box_id.to_string());
        if order.box_id.as_str() == "gpu-1" {
            return Ok(());
        }
        let class = PortErrorClass::Refused(RefusalClass::Capacity);
        Err(PortError::new(class, "no capacity").because("sold out; choose us-east-1c"))
    }

    async fn stop(&self, _: &BoxId, _: StopMode) -> Result<(), PortError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_was_refused_is_not_asked_again_and_on_demand_comes_at_once() {
    let cloud = Arc::new(SoldOut::default());
    let policy = "[pool.gpu]\nqueue = \"jobs\"";
    let Waiting { store, policy, ports, .. } = &waiting(policy, cloud.clone()).await;
    reconcile(ports, policy, Trigger::Tick, "test").await.unwrap().unwrap();
    assert_eq!(*cloud.orders.lock().unwrap(), ["gpu-2", "gpu-3", "gpu-1"]);
    let runs = store.memory(&"gpu".parse().unwrap()).await.unwrap().runs;
    let refused = runs.iter().find(|run| run.box_id.as_str() == "gpu-2").unwrap();
    assert_eq!(refused.refusal.as_ref().unwrap().text, "sold out; choose us-east-1c");
    assert_eq!(refused.offering.as_ref().unwrap().zone, "us-east-1a");
    assert!(runs.iter().any(|run| run.box_id.as_str() == "gpu-1" && run.refusal.is_none()));
}
