//! The adapter on the simulated EC2 over HTTP, with a clock that the test moves: nothing waits, and every second of a stop is seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use gpuctl_aws::{Aws, Ec2Cloud};
use gpuctl_control::ports::{Clock, Cloud, Listing, PortError, StartOrder};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use gpuctl_sim::wire::Front;
use gpuctl_sim::world::ec2::{
    Ec2, Ec2Settings, LaunchTemplate, MarketOptions, RunInstances, Shutdown, ShutdownBehaviour,
    SpotKind, SpotOptions,
};

pub(crate) const REGION: &str = "us-east-1";

/// A clock that stands until it is moved.
pub(crate) struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

impl Hand {
    pub(crate) fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    pub(crate) fn pass(&self, seconds: i64) {
        *self.0.lock().unwrap() += TimeDelta::seconds(seconds);
    }
}

/// An account with one pool, and the adapter on it.
pub(crate) struct Account {
    pub(crate) front: Front,
    pub(crate) clock: Arc<Hand>,
    pub(crate) cloud: Ec2Cloud,
    pub(crate) policy: Policy,
    pub(crate) ids: Vec<String>,
}

pub(crate) fn on_demand() -> MarketOptions {
    MarketOptions::OnDemand
}

pub(crate) fn spot(kind: SpotKind) -> MarketOptions {
    MarketOptions::Spot(SpotOptions { kind, valid_until: None })
}

/// What to have in the account.
pub(crate) struct Wanted<'a> {
    pub(crate) boxes: &'a [MarketOptions],
    /// The pool's settings; `IDS` stands for the boxes' ids.
    pub(crate) pool: &'a str,
}

impl Account {
    /// Boxes that are stopped, and have been for an hour.
    pub(crate) async fn open(wanted: Wanted<'_>) -> Self {
        let clock = Arc::new(Hand(Mutex::new("2026-11-22T00:00:00Z".parse().unwrap())));
        let mut ec2 = Ec2::new(settings(), 7);
        ec2.add_template(template());
        let now = clock.now();
        let ids: Vec<String> = wanted
            .boxes
            .iter()
            .map(|market| ec2.run_instances(now, &run(market.clone())).unwrap().remove(0).id)
            .collect();
        clock.pass(60);
        ec2.advance(clock.now());
        for id in &ids {
            ec2.power_off(clock.now(), id);
        }
        clock.pass(3_600);
        ec2.advance(clock.now());
        let front = Front::open(ec2, Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
        let names: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
        let text =
            format!("[cloud]\nkind = \"aws\"\n{}", wanted.pool.replace("IDS", &names.join(", ")));
        let policy = Policy::parse(&text).unwrap();
        let cloud =
            Ec2Cloud::new(&aws(&front.url()), policy.clone(), Arc::clone(&clock) as Arc<dyn Clock>);
        Self { front, clock, cloud, policy, ids }
    }

    /// A stable of these boxes, named by their ids.
    pub(crate) async fn stable(boxes: &[MarketOptions]) -> Self {
        Self::open(Wanted { boxes, pool: "[pool.gpu]\ninstances = [IDS]" }).await
    }

    pub(crate) async fn list(&self) -> Listing {
        self.cloud.boxes(&self.policy).await.unwrap()
    }

    /// The pool's boxes.
    pub(crate) async fn boxes(&self) -> Vec<SeenBox> {
        self.list().await.pools.remove(&"gpu".parse().unwrap()).unwrap()
    }

    /// The pool's only box, or its first.
    pub(crate) async fn first(&self) -> SeenBox {
        self.boxes().await.remove(0)
    }

    pub(crate) async fn state(&self) -> BoxState {
        self.first().await.state
    }

    pub(crate) async fn start(&self, box_id: &str) -> Result<(), PortError> {
        let order = StartOrder {
            pool: "gpu".parse().unwrap(),
            box_id: box_id.parse().unwrap(),
            at: self.clock.now(),
            token: format!("gpu/{box_id}/1"),
        };
        self.cloud.start(&order).await
    }

    /// Whether there is capacity from `now` on.
    pub(crate) fn capacity(&self, capacity: CapacityType, available: bool) {
        let mut ec2 = self.front.ec2();
        for zone in ["us-east-1a", "us-east-1b"] {
            let offering = Offering {
                instance_type: "g4dn.xlarge".to_owned(),
                zone: zone.to_owned(),
                capacity,
            };
            ec2.plan_capacity(self.clock.now(), offering, available);
        }
    }
}

/// The connection's settings, with the front in place of AWS.
pub(crate) fn aws(endpoint: &str) -> Aws {
    Aws::at(endpoint, REGION)
}

fn settings() -> Ec2Settings {
    Ec2Settings {
        zones: ["us-east-1a", "us-east-1b"].map(str::to_owned).to_vec(),
        pending: (TimeDelta::seconds(20), TimeDelta::seconds(20)),
        stopping: (TimeDelta::seconds(10), TimeDelta::seconds(10)),
        shutdown_max: TimeDelta::seconds(90),
        shutdown: Shutdown::After(TimeDelta::seconds(10)),
        vcpus_spot: 16,
        vcpus_on_demand: 16,
    }
}

pub(crate) fn template() -> LaunchTemplate {
    LaunchTemplate {
        id: "lt-0123456789abcdef0".to_owned(),
        name: "gpu".to_owned(),
        version: 1,
        image_id: "ami-1".to_owned(),
        instance_type: "g4dn.xlarge".to_owned(),
        market: MarketOptions::OnDemand,
        tags: BTreeMap::new(),
    }
}

pub(crate) fn run(market: MarketOptions) -> RunInstances {
    RunInstances {
        client_token: None,
        launch_template: None,
        image_id: Some("ami-1".to_owned()),
        instance_type: Some("g4dn.xlarge".to_owned()),
        zone: Some("us-east-1a".to_owned()),
        market: Some(market),
        count: 1,
        tags: BTreeMap::from([("role".to_owned(), "gpu".to_owned())]),
        shutdown: ShutdownBehaviour::Stop,
    }
}
