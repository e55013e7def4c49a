//! How many round trips to AWS a reconcile waits for, one after the other, and how many calls it makes.
//!
//! The calls go to moto, in no time at all; the clock of the time limits stands still, but for the delay that each response has. So the
//! time that a reconcile takes is a number of delays.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use chrono::TimeDelta;
use gpuctl_aws::{Aws, DynamoLedger, Ec2Cloud, SqsQueue};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{Clock, NewMessage, NoFiles, Ports, WorkerReport};
use gpuctl_control::reconcile;
use gpuctl_control::reconciled::{Reconciled, Trigger};
use gpuctl_core::plan::{Action, StopMode};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{PoolId, QueueName};
use tokio::time::Instant;

use super::emulators;
use super::moto::Moto;
use super::support::{Hand, REGION, aws};

/// The delay of each response.
const DELAY: Duration = Duration::from_millis(10);

/// The round trips of a reconcile that starts and stops nothing: lease; boxes and memory; spot requests or reports; what is remembered;
/// record and release.
const TRIPS: usize = 5;

/// Those of a start: its run; whether this very order was carried out already; tags, the start, a tag.
const TRIPS_OF_START: usize = 5;

/// Sends each call to moto, and delays the response.
#[derive(Clone, Debug)]
struct Delayed {
    port: u16,
    calls: Arc<AtomicUsize>,
}

impl HttpClient for Delayed {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Delayed {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let response = respond(self.port, &request);
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(DELAY).await;
            Ok(response)
        })
    }
}

/// moto's response.
fn respond(port: u16, request: &HttpRequest) -> HttpResponse {
    let path = request.uri().splitn(4, '/').nth(3).unwrap_or_default();
    let mut head = format!("{} /{path} HTTP/1.1\r\nConnection: close\r\n", request.method());
    for (name, value) in request.headers() {
        head += &format!("{name}: {value}\r\n");
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    server.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    server.write_all(request.body().bytes().unwrap()).unwrap();
    let mut all = String::new();
    server.read_to_string(&mut all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))
}

/// A controller of some pools, one of which has a box; its connections are warm.
struct Controller {
    ports: Ports,
    policy: Policy,
    pools: Vec<(PoolId, QueueName)>,
    clock: Arc<Hand>,
    calls: Arc<AtomicUsize>,
    moto: Moto,
}

impl Controller {
    async fn open(pools: usize) -> Self {
        let moto = Moto::open().await;
        let emulator = emulators::moto().await;
        let plain = aws(&emulator.url());
        let calls = Arc::new(AtomicUsize::new(0));
        let aws = delayed_aws(Delayed { port: emulator.port, calls: Arc::clone(&calls) }).await;
        let mut text = format!("[cloud]\nkind = \"aws\"\ntable = \"{}\"\n", moto.mark);
        let mut names = Vec::new();
        for number in 0..pools {
            let queue = format!("{}-{number}", moto.mark);
            plain.sqs().create_queue().queue_name(&queue).send().await.unwrap();
            text += &format!(
                "[pool.p{number}]\nselect = {{ role = \"{}-{number}\" }}\nqueue = \"{queue}\"\nmax_wait = \"0s\"\n",
                moto.mark
            );
            names.push((format!("p{number}").parse().unwrap(), queue.parse().unwrap()));
        }
        let policy = Policy::parse(&text).unwrap();
        let clock = Arc::new(Hand::at(SystemClock.now()));
        let shared = || Arc::clone(&clock) as Arc<dyn Clock>;
        DynamoLedger::new(&plain, &moto.mark, shared(), None).create_table().await.unwrap();
        let ports = Ports {
            cloud: Arc::new(Ec2Cloud::new(&aws, policy.clone(), shared())),
            queue: Arc::new(SqsQueue::new(&aws)),
            ledger: Arc::new(DynamoLedger::new(&aws, &moto.mark, shared(), None)),
            files: Arc::new(NoFiles),
            clock: shared(),
        };
        Self { ports, policy, pools: names, clock, calls, moto }
    }

    /// Reconciles a minute later; returns the round trips and the calls.
    async fn reconcile(&self) -> (Reconciled, usize, usize) {
        self.clock.pass(60);
        self.calls.store(0, Ordering::Relaxed);
        let began = Instant::now();
        let reconciled =
            reconcile(&self.ports, &self.policy, Trigger::Tick, "test").await.unwrap().unwrap();
        let trips = began.elapsed().as_millis() / DELAY.as_millis();
        assert!(reconciled.errors.is_empty(), "{:?}", reconciled.errors);
        (reconciled, trips.try_into().unwrap(), self.calls.load(Ordering::Relaxed))
    }

    async fn send_job(&self) {
        let body = "{}".to_owned();
        let message = NewMessage { body, attributes: Vec::new(), delay: TimeDelta::zero() };
        self.ports.queue.send(&self.pools[0].1, &[message]).await.unwrap();
    }
}

async fn delayed_aws(delayed: Delayed) -> Aws {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(delayed)
        .endpoint_url("http://moto")
        .region(Region::new(REGION))
        .credentials_provider(Credentials::from_keys("test", "test", None));
    Aws::load(loader).await.unwrap()
}

#[tokio::test]
async fn a_reconcile_waits_for_five_round_trips_and_a_start_for_five_more() {
    let here = Controller::open(1).await;
    let id = here.moto.run_as(&format!("{}-0", here.moto.mark), 1).await.remove(0);
    here.ports.cloud.boxes(&here.policy).await.unwrap();
    here.ports.cloud.stop(&id.parse().unwrap(), StopMode::Force).await.unwrap();
    tokio::time::pause();
    here.reconcile().await;
    let (_, trips, _) = here.reconcile().await;
    assert!(trips <= TRIPS, "{trips} with the box stopped");
    here.send_job().await;
    // Counts that were seen once are not believed yet (Q4).
    here.reconcile().await;
    let (started, trips, _) = here.reconcile().await;
    let actions: Vec<&Action> = started.acted.iter().map(|acted| &acted.action).collect();
    assert!(matches!(actions.as_slice(), [Action::Start { .. }]), "{actions:?}");
    assert!(trips <= TRIPS + TRIPS_OF_START, "{trips} with a start");
    here.ports.ledger.report(&report(&id, &started)).await.unwrap();
    // What is new about the box is noted first.
    here.reconcile().await;
    here.reconcile().await;
    let (seen, trips, _) = here.reconcile().await;
    let boxes = seen.observation.pools[&here.pools[0].0].boxes.value.as_ref().unwrap();
    assert!(boxes[0].worker.is_some(), "{boxes:?}");
    assert!(trips <= TRIPS, "{trips} with the box up");
}

/// More pools are more calls side by side, none after another.
#[tokio::test]
async fn twenty_pools_take_as_many_round_trips_as_one() {
    let here = Controller::open(20).await;
    tokio::time::pause();
    here.reconcile().await;
    let (_, trips, calls) = here.reconcile().await;
    assert!(trips <= TRIPS, "{trips}");
    // For each pool: its memory in three queries, the queue's counts, its most urgent job, and what is remembered of them. For all: lease,
    // boxes, the newest record, record, release.
    assert!(calls <= 20 * 6 + 5, "{calls}");
}

fn report(id: &str, started: &Reconciled) -> WorkerReport {
    let at = started.observation.at;
    WorkerReport {
        ready_at: Some(at + TimeDelta::seconds(20)),
        leases: 1,
        ..WorkerReport::begin(id.parse().unwrap(), at, at + TimeDelta::seconds(30), 1)
    }
}
