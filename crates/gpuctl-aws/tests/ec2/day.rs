//! A day in seconds: the loop with these adapters on EC2 (simulated), SQS and DynamoDB (an emulator), and a clock that the test moves.
//! A schedule, jobs, a hold and an interruption. The workers here make only the port calls of a worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_sqs::types::QueueAttributeName;
use chrono::TimeDelta;
use gpuctl_aws::{Aws, DynamoLedger, Ec2Cloud, SqsQueue};
use gpuctl_control::Trigger;
use gpuctl_control::ports::{
    Clock, NewMessage, NoFiles, Ports, ReceiveRequest, Received, WorkerReport,
};
use gpuctl_control::reconcile::reconcile;
use gpuctl_core::observation::{Hold, HoldWants, Run};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::plan::Rule;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{PoolId, QueueName, Timestamp};
use gpuctl_sim::world::ec2::{InstanceState, SpotKind};

use super::emulators::ministack;
use super::support::{Account, Hand, REGION, Wanted, aws, on_demand, spot};

const TICK: i64 = 120;
/// How long a worker works on what it has received.
const WORK: TimeDelta = TimeDelta::minutes(4);

struct Day {
    account: Account,
    ports: Ports,
    policy: Policy,
    queue: QueueName,
    workers: BTreeMap<String, Worker>,
}

/// What runs on one box.
struct Worker {
    ready_at: Timestamp,
    since: Timestamp,
    holds: Vec<Received>,
    jobs_done: u32,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_ticks_with_schedule_queue_hold_and_interruption() {
    let mut day = Day::open().await;
    day.until("05:00").await;
    assert_eq!(day.on(), [false; 3], "nobody wants anything");

    day.submit(3).await;
    day.until("05:06").await;
    assert_eq!(day.on(), [false; 3], "the limit is far: more jobs may come");
    day.until("05:16").await;
    assert_eq!(day.on(), [true, false, false], "spot first");
    day.until("05:30").await;
    assert_eq!((day.left().await, day.on()), (0, [false; 3]), "done and idle");

    day.until("09:02").await;
    assert_eq!(day.on(), [false, false, true], "office hours");
    day.until("12:00").await;
    day.hold(TimeDelta::hours(1)).await;
    day.until("12:58").await;
    assert_eq!(day.on(), [true, false, true], "somebody's word");
    day.until("13:10").await;
    assert_eq!(day.on(), [false, false, true], "which has ended");

    day.submit(3).await;
    day.until("13:24").await;
    assert!(day.workers.values().any(|worker| !worker.holds.is_empty()), "they are worked at");
    day.account.capacity(CapacityType::Spot, false);
    day.until("13:34").await;
    assert_eq!(day.on(), [false, true, true], "spot is gone: on demand at once");
    day.until("13:50").await;
    assert_eq!((day.left().await, day.on()), (0, [false, false, true]), "no job was lost");
    day.account.capacity(CapacityType::Spot, true);
    day.until("14:20").await;
    assert_eq!(day.on(), [false, false, true], "what EC2 itself has started again is stopped (P4)");

    day.until("19:10").await;
    assert_eq!(day.on(), [false; 3], "the office is closed");
    day.until("23:58").await;
    day.told_all().await;
}

impl Day {
    async fn open() -> Self {
        let boxes = [spot(SpotKind::Persistent), on_demand(), on_demand()];
        let account =
            Account::open(Wanted { boxes: &boxes, pool: "[pool.gpu]\ninstances = [IDS]" }).await;
        let emulator = aws(&ministack().await.url());
        let queue = make_queue(&emulator).await;
        let [first, second, app] = [0, 1, 2].map(|at| account.ids[at].as_str());
        let policy = Policy::parse(&format!(
            "[cloud]\nkind = \"aws\"\ntable = \"day\"\n\
             [pool.gpu]\nqueue = \"day\"\ninstances = [\"{first}\", \"{second}\"]\nmax_wait = \"10m\"\nidle_stop = \"4m\"\n\
             [pool.app]\ninstances = [\"{app}\"]\n\
             [[pool.app.schedule]]\nzone = \"UTC\"\nbegin = \"09:00\"\nend = \"19:00\"\n"
        ))
        .unwrap();
        let clock = Arc::clone(&account.clock) as Arc<dyn Clock>;
        let ledger = DynamoLedger::new(&emulator, "day", Arc::clone(&clock), None);
        ledger.create_table().await.unwrap();
        let cloud = Ec2Cloud::new(&aws(&account.front.url()), policy.clone(), Arc::clone(&clock));
        let ports = Ports {
            cloud: Arc::new(cloud),
            queue: Arc::new(SqsQueue::new(&emulator)),
            ledger: Arc::new(ledger),
            clock,
            files: Arc::new(NoFiles),
        };
        Self { account, ports, policy, queue, workers: BTreeMap::new() }
    }

    fn clock(&self) -> &Hand {
        &self.account.clock
    }

    fn gpu() -> PoolId {
        "gpu".parse().unwrap()
    }

    /// Which boxes are on, read from the simulated EC2 itself.
    fn on(&self) -> [bool; 3] {
        let ec2 = self.account.front.ec2();
        [0, 1, 2].map(|at| {
            let state = ec2.instance(&self.account.ids[at]).unwrap().state;
            matches!(state, InstanceState::Pending | InstanceState::Running)
        })
    }

    /// Ticks until this time of the day.
    async fn until(&mut self, time: &str) {
        let until: Timestamp = format!("2026-11-22T{time}:00Z").parse().unwrap();
        while self.clock().now() < until {
            self.clock().pass(TICK);
            self.work().await;
            let pass = reconcile(&self.ports, &self.policy, Trigger::Tick, "day").await.unwrap();
            let pass = pass.expect("nobody else has the lease");
            assert!(pass.errors.is_empty(), "{:?}", pass.errors);
            let [first, second, _] = self.on();
            assert!(!(first && second), "boxes_max is 1");
        }
    }

    /// What the workers do in a tick.
    async fn work(&mut self) {
        let now = self.clock().now();
        for id in &self.account.ids[..2] {
            let (running, notice) = {
                let ec2 = self.account.front.ec2();
                (ec2.instance(id).unwrap().state == InstanceState::Running, ec2.spot_action(id))
            };
            if !running || notice.is_some() {
                // It releases what it has; what it cannot release becomes visible when its lease ends.
                for message in self.workers.remove(id).into_iter().flat_map(|gone| gone.holds) {
                    let back = TimeDelta::zero();
                    self.ports.queue.change_one(&message.receipt, back).await.unwrap();
                }
                continue;
            }
            let fresh = Worker { ready_at: now, since: now, holds: Vec::new(), jobs_done: 0 };
            let worker = self.workers.entry(id.clone()).or_insert(fresh);
            worker.step(&self.ports, &self.queue).await;
            worker.report(&self.ports, id).await;
        }
    }

    async fn submit(&self, jobs: usize) {
        let message = |at| NewMessage {
            body: format!("job {at}"),
            attributes: Vec::new(),
            delay: TimeDelta::zero(),
        };
        let batch: Vec<NewMessage> = (0..jobs).map(message).collect();
        self.ports.queue.send(&self.queue, &batch).await.unwrap();
    }

    async fn hold(&self, lasts: TimeDelta) {
        let since = self.clock().now();
        let hold = Hold {
            pool: Self::gpu(),
            wants: HoldWants::Running,
            since,
            until: since + lasts,
            by: "ada".to_owned(),
            why: None,
            over_budget: None,
            until_empty: false,
        };
        self.ports.ledger.set_hold(&hold).await.unwrap();
    }

    async fn left(&self) -> u64 {
        let counts = self.ports.queue.counts(&self.queue).await.unwrap();
        counts.visible + counts.in_flight + counts.dead
    }

    /// Each run has its reason and its end, and there are no more runs than the day had causes.
    async fn told_all(&self) {
        // The boxes were made, and were up for a minute, before the day began.
        let since = "2026-11-22T00:30:00Z".parse().unwrap();
        let runs = self.ports.ledger.runs_since(since).await.unwrap();
        let rules: Vec<Rule> = runs.iter().map(|run| run.start.rule).collect();
        for rule in [Rule::Demand, Rule::Schedule, Rule::Hold] {
            assert!(rules.contains(&rule), "{rule:?} is not among {rules:?}");
        }
        let has_end = |run: &Run| {
            run.stopped_at.is_some() && (run.stop.is_some() || run.interrupted_at.is_some())
        };
        for run in &runs {
            assert!(has_end(run), "{run:#?}");
        }
        assert!(
            runs.len() <= 6,
            "two boxes for jobs, one taken, one brought back, a hold, the office: {runs:#?}"
        );
        let up = |app: bool| {
            let of = runs.iter().filter(|run| (run.pool != Self::gpu()) == app);
            of.map(|run| (run.stopped_at.unwrap() - run.started_at).num_minutes()).sum::<i64>()
        };
        assert!((600..=610).contains(&up(true)), "the office was open for {} min", up(true));
        assert!(up(false) < 150, "an hour was asked for, the rest took {} min", up(false) - 60);
    }
}

impl Worker {
    /// Receives what there is, or finishes what it has received.
    async fn step(&mut self, ports: &Ports, queue: &QueueName) {
        let now = ports.clock.now();
        if self.holds.is_empty() {
            let request = ReceiveRequest {
                max: 10,
                visibility: TimeDelta::hours(1),
                wait: TimeDelta::zero(),
            };
            self.holds = ports.queue.receive(queue, request).await.unwrap();
            if !self.holds.is_empty() {
                self.since = now;
            }
        } else if now - self.since >= WORK {
            for message in self.holds.drain(..) {
                ports.queue.ack_one(&message.receipt).await.unwrap();
                self.jobs_done += 1;
            }
            self.since = now;
        }
    }

    async fn report(&self, ports: &Ports, id: &str) {
        let runs = ports.ledger.memory(&Day::gpu()).await.unwrap().runs;
        let started = runs.iter().filter(|run| run.box_id.as_str() == id).map(|run| run.started_at);
        let began = started.max().unwrap_or(self.ready_at);
        let report = WorkerReport {
            ready_at: Some(self.ready_at),
            leases: u32::try_from(self.holds.len()).unwrap(),
            idle_since: self.holds.is_empty().then_some(self.since),
            jobs_done: self.jobs_done,
            ..WorkerReport::begin(id.parse().unwrap(), began, ports.clock.now(), 1)
        };
        ports.ledger.report(&report).await.unwrap();
    }
}

async fn make_queue(aws: &Aws) -> QueueName {
    let sqs = aws.sqs();
    sqs.create_queue().queue_name("day-dead").send().await.unwrap();
    let policy = serde_json::json!({
        "deadLetterTargetArn": format!("arn:aws:sqs:{REGION}:000000000000:day-dead"),
        "maxReceiveCount": 7,
    });
    let call = sqs.create_queue().queue_name("day");
    let call = call.attributes(QueueAttributeName::RedrivePolicy, policy.to_string());
    call.send().await.unwrap();
    "day".parse().unwrap()
}
