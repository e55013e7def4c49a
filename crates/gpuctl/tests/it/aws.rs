//! The whole way on AWS, with the real programs: SQS, DynamoDB and S3 by an emulator, EC2 and IMDS by the simulated world.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_sim::wire::Front;
use gpuctl_sim::world::ec2::{
    Ec2, Ec2Settings, InstanceState, MarketOptions, RunInstances, Shutdown, ShutdownBehaviour,
    SpotKind, SpotOptions,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::deployment::{ACCOUNT, Account, REGION};
use crate::emulators;
use crate::support::{Sandbox, cache, sample, wait_until};

pub(crate) fn settings() -> Ec2Settings {
    Ec2Settings {
        zones: vec!["us-east-1a".to_owned()],
        pending: (TimeDelta::milliseconds(500), TimeDelta::milliseconds(500)),
        stopping: (TimeDelta::milliseconds(100), TimeDelta::milliseconds(100)),
        shutdown_max: TimeDelta::seconds(90),
        shutdown: Shutdown::FromInside,
        vcpus_spot: 8,
        vcpus_on_demand: 8,
    }
}

/// An account with one GPU box, stopped for an hour.
pub(crate) async fn ec2() -> (Front, String) {
    let (mut ec2, id) = launched(MarketOptions::OnDemand);
    let now = SystemClock.now();
    ec2.power_off(now - TimeDelta::hours(1), &id);
    ec2.advance(now);
    (Front::open(ec2, Arc::new(SystemClock)).await.unwrap(), id)
}

/// An account with one GPU box, launched two hours ago.
fn launched(market: MarketOptions) -> (Ec2, String) {
    let mut ec2 = Ec2::new(settings(), 7);
    let now = SystemClock.now();
    let wanted = gpu_boxes(1, market);
    let id = ec2.run_instances(now - TimeDelta::hours(2), &wanted).unwrap().remove(0).id;
    ec2.advance(now - TimeDelta::hours(1));
    (ec2, id)
}

/// An order for GPU boxes.
pub(crate) fn gpu_boxes(count: u32, market: MarketOptions) -> RunInstances {
    RunInstances {
        client_token: None,
        launch_template: None,
        image_id: Some("ami-1".to_owned()),
        instance_type: Some("g4dn.xlarge".to_owned()),
        zone: Some("us-east-1a".to_owned()),
        market: Some(market),
        count,
        tags: BTreeMap::new(),
        shutdown: ShutdownBehaviour::Stop,
    }
}

/// A queue with dead letters, one whose messages are events for the function, and a bucket.
fn furnish(account: Account) {
    account.sqs(
        "CreateQueue",
        &json!({ "QueueName": "jobs-dead", "Attributes": { "MessageRetentionPeriod": "1209600" } }),
    );
    let policy = json!({
        "deadLetterTargetArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:jobs-dead"),
        "maxReceiveCount": 7,
    });
    let attributes = json!({ "RedrivePolicy": policy.to_string(), "VisibilityTimeout": "120" });
    account.sqs("CreateQueue", &json!({ "QueueName": "jobs", "Attributes": attributes }));
    account.sqs("CreateQueue", &json!({ "QueueName": "bell" }));
    account.call("s3", "PUT /results", &Value::Null);
}

fn sandbox(front: &Front, endpoint: &str, id: &str) -> Sandbox {
    let sandbox = Sandbox::new("");
    let off = sandbox.path("off");
    let config = format!(
        "[cloud]\nkind = \"aws\"\nregion = \"{REGION}\"\ntable = \"gpuctl\"\nresults = \"s3://results/gpuctl\"\n\
         [pool.gpu]\nqueue = \"jobs\"\ninstances = [\"{id}\"]\nidle_stop = \"5s\"\n\
         [worker]\npower_off = [\"touch\", \"{}\"]\n[cost]\ninstance_type = \"g4dn.xlarge\"\n",
        off.display()
    );
    sandbox.write("gpuctl.toml", config);
    sandbox
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL", endpoint)
        .with("AWS_ENDPOINT_URL_EC2", front.url())
}

/// The worker of the box whose metadata service is at `imds`.
fn serve(sandbox: &Sandbox, imds: &str) -> Child {
    let worker = Path::new(env!("CARGO_BIN_EXE_gpuctl")).with_file_name("gpu-worker");
    sandbox
        .program(&worker, &["serve", "--pool", "gpu"])
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds)
        .env("GPUCTL_CACHE", cache())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) fn state(front: &Front, id: &str) -> InstanceState {
    front.ec2().instance(id).unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_may_lie_in_s3_where_the_function_reads_it() {
    let ministack = emulators::ministack().await;
    let account = Account { port: ministack.port };
    account.call("s3", "PUT /policies", &Value::Null);
    let policy = "[cloud]\nkind = \"aws\"\ntable = \"policies\"\n[pool.app]\ninstances = [\"i-0123456789abcdef0\"]\n\
        [[pool.app.schedule]]\nzone = \"Asia/Tokyo\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"19:00\"\n";
    let put = |key: &str, text: &str| {
        let path = format!("/policies/{key}");
        let headers = "Content-Type: text/plain\r\n";
        let answer = emulators::request_with(ministack.port, "PUT", &path, headers, text).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    };
    put("gpuctl.toml", policy);
    put("wrong.toml", &policy.replace("instances", "instanses"));
    put("local.toml", "[pool.gpu]\ncommand = [\"true\"]\n");
    let sandbox = Sandbox::new("")
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_REGION", REGION)
        .with("AWS_ENDPOINT_URL", ministack.url());
    let at = "2026-11-23T10:00:00+09:00";
    let ask = |key: &str| {
        let uri = format!("s3://policies/{key}");
        sandbox.run(&["--config", &uri, "schedule", "at", "app", at])
    };
    ask("gpuctl.toml").expect(0);
    let wrong = ask("wrong.toml").expect(2).stderr;
    assert!(wrong.contains("s3://policies/wrong.toml") && wrong.contains("instances"), "{wrong}");
    let local = ask("local.toml").expect(2).stderr;
    assert!(local.contains("local.toml is not for AWS"), "{local}");
    let missing = ask("none.toml").expect(2).stderr;
    assert!(missing.contains("cannot read s3://policies/none.toml"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_starts_a_box_for_a_job_and_the_box_does_it_and_stops_itself() {
    let ministack = emulators::ministack().await;
    let (front, id) = ec2().await;
    let account = Account { port: ministack.port };
    furnish(account);
    let sandbox = sandbox(&front, &ministack.url(), &id);

    let checks = sandbox.run(&["doctor", "--fix", "--json"]).expect(0).json();
    let named = |name: &str| {
        checks["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == name && one["status"] == "pass")
    };
    assert!(
        ["account", "ledger", "queue", "boxes", "permission"].into_iter().all(named),
        "{checks}"
    );

    let submit = |task: &str, input: &str| {
        let input = sample(input).display().to_string();
        let sent = sandbox.run(&["submit", task, &input, "--json"]).expect(0).json();
        sent["job_ids"][0].as_str().unwrap().to_owned()
    };
    let jobs = [submit("vision.ocr", "page.png"), submit("vision.segment", "astronaut.png")];
    account.deploy(&sandbox, &front.url());
    account.schedule();
    wait_until("a tick of the schedule starts the box", || {
        state(&front, &id) != InstanceState::Stopped
    });
    wait_until("the box is on", || state(&front, &id) == InstanceState::Running);

    let imds = front.imds(&id).await.unwrap();
    let mut worker = serve(&sandbox, &imds.url());
    wait_until("the jobs have their answers", || {
        jobs.iter().all(|job| sandbox.run(&["job", job, "--json"]).json()["state"] == "succeeded")
    });
    wait_until("the worker shuts its box down", || sandbox.path("off").exists());
    front.ec2().power_off(SystemClock.now(), &id);
    // As the system does to its services, when it shuts down.
    rustix::process::kill_process(rustix::process::Pid::from_child(&worker), Signal::TERM).unwrap();
    worker.wait().unwrap();
    wait_until("the box is off", || state(&front, &id) == InstanceState::Stopped);

    let status = sandbox.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["pools"][0]["state"], "stopped", "{status}");
    let runs = sandbox.run(&["explain", "gpu", "--json"]).expect(0).stdout;
    assert!(runs.contains("demand") && runs.contains("idle"), "{runs}");
    let report = sandbox.run(&["cost", "report", "--json"]).expect(0).json();
    // EC2 shows also the hour that the box was up before gpuctl saw it.
    assert_eq!(report["starts"], 2, "{report}");

    let copied = sandbox.run(&["jobs", "export", "out", "--json"]).expect(0).json();
    assert_eq!((&copied["files"], &copied["missing"]), (&json!(1), &json!([])), "{copied}");
    let lines = std::fs::read_to_string(sandbox.path("out/jobs.jsonl")).unwrap();
    assert!(jobs.iter().all(|job| lines.contains(job)), "{lines}");
    let attempts = std::fs::read_dir(sandbox.path("out/files").join(&jobs[1])).unwrap();
    let mask = attempts.last().unwrap().unwrap().path().join("mask.png");
    assert!(std::fs::read(mask).unwrap().starts_with(b"\x89PNG"));

    // A message with a command sets a hold, since the function's environment names its queue, and is deleted once it was read.
    account.ring(&json!({ "action": "stop", "target": "gpu", "for": "30m", "by": "bell" }));
    wait_until("the function hears the bell", || {
        let plan = sandbox.run(&["plan", "--json"]).expect(0).stdout;
        plan.contains("bell")
    });
}

/// W1
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_shutdown_fails_has_ec2_stop_its_box() {
    let ministack = emulators::ministack().await;
    let (front, id) = ec2().await;
    let sandbox = sandbox(&front, &ministack.url(), &id);
    let config = std::fs::read_to_string(sandbox.path("gpuctl.toml")).unwrap();
    let config = config.replace("\"gpuctl\"", "\"stops\"").replace("\"jobs\"", "\"idle\"");
    let at = config.find("power_off").unwrap();
    let line = config[at..].lines().next().unwrap().to_owned();
    sandbox.write("gpuctl.toml", config.replace(&line, "power_off = [\"false\"]"));
    let account = Account { port: ministack.port };
    account.sqs("CreateQueue", &json!({ "QueueName": "idle" }));
    sandbox.run(&["doctor", "--fix"]);
    sandbox.run(&["start", "gpu", "--for", "8s"]).expect(0);
    wait_until("the box is on", || state(&front, &id) == InstanceState::Running);
    let imds = front.imds(&id).await.unwrap();
    let mut worker = serve(&sandbox, &imds.url());
    let _ = front.calls();
    wait_until("EC2 stops the box", || {
        state(&front, &id) == InstanceState::Stopping
            || state(&front, &id) == InstanceState::Stopped
    });
    let orders: Vec<String> =
        front.calls().into_iter().filter(|call| !call.starts_with("Describe")).collect();
    let is_stopped = orders.iter().any(|call| call == "StopInstances");
    assert!(is_stopped, "by the worker, since no controller runs: {orders:?}");
    worker.wait().unwrap();
}

/// No plan stops it: it ends by itself, and then powers its box off.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_at_its_own_end_powers_its_box_off() {
    let ministack = emulators::ministack().await;
    let (mut ec2, id) = launched(MarketOptions::OnDemand);
    ec2.advance(SystemClock.now());
    let front = Front::open(ec2, Arc::new(SystemClock)).await.unwrap();
    let sandbox = sandbox(&front, &ministack.url(), &id);
    let config = std::fs::read_to_string(sandbox.path("gpuctl.toml")).unwrap();
    let config = config.replace("\"gpuctl\"", "\"ends\"").replace("\"jobs\"", "\"ends\"");
    let config = config.replace("idle_stop = \"5s\"", "idle_stop = \"1d\"\nlifetime_max = \"1h\"");
    sandbox.write("gpuctl.toml", config);
    let account = Account { port: ministack.port };
    account.sqs("CreateQueue", &json!({ "QueueName": "ends" }));
    sandbox.run(&["doctor", "--fix"]);
    let imds = front.imds(&id).await.unwrap();
    let mut worker = serve(&sandbox, &imds.url());
    wait_until("the worker powers its box off", || sandbox.path("off").exists());
    assert!(worker.try_wait().unwrap().is_none(), "it waits for the shutdown");
    rustix::process::kill_process(rustix::process::Pid::from_child(&worker), Signal::TERM).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(11));
}

/// A pool of an EC2 box, with the ledger on this machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_a_stop_observe_ec2_once_and_status_shows_what_they_did() {
    let (front, id) = ec2().await;
    let config = format!(
        "[cloud]\nkind = \"aws\"\nregion = \"{REGION}\"\n[pool.app]\ninstances = [\"{id}\"]\n"
    );
    let sandbox = Sandbox::new(&config)
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL_EC2", front.url());
    let calls = |arguments: &[&str]| {
        let _ = front.calls();
        let said = sandbox.run(arguments).expect(0);
        (front.calls(), said.stdout)
    };
    let (made, status) = calls(&["start", "app"]);
    // The second call is the start's own check, that the box is not up by another order; the last notes EC2's answer.
    let expected =
        ["DescribeInstances", "DescribeInstances", "CreateTags", "StartInstances", "CreateTags"];
    assert_eq!(made, expected, "nothing is read after the start");
    assert!(status.starts_with("app: pending for "), "{status}");
    assert!(status.contains("started") && status.contains("by hold: "), "{status}");
    wait_until("the box is on", || state(&front, &id) == InstanceState::Running);
    let (made, status) = calls(&["stop-app"]);
    let expected = ["DescribeInstances", "CreateTags", "StopInstances"];
    assert_eq!(made, expected, "nothing is read after the stop");
    assert!(status.starts_with("app: stopping for "), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_was_stopped_for_long_is_terminated() {
    let (front, id) = ec2().await;
    let config = format!(
        "[cloud]\nkind = \"aws\"\nregion = \"{REGION}\"\n[pool.app]\ninstances = [\"{id}\"]\n\
         retire_stopped_after = \"1h\"\n"
    );
    let sandbox = Sandbox::new(&config)
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL_EC2", front.url());
    sandbox.run(&["stop", "app"]).expect(0);
    let orders: Vec<String> =
        front.calls().into_iter().filter(|call| !call.starts_with("Describe")).collect();
    assert!(orders.iter().any(|call| call == "TerminateInstances"), "{orders:?}");
    assert!(!front.ec2().instance(&id).unwrap().is_there());
}

/// P18: afterwards only EC2 could start it.
#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_ec2_is_interrupting_is_left_to_its_own_drain() {
    let options = SpotOptions { kind: SpotKind::Persistent, valid_until: None };
    let (mut ec2, id) = launched(MarketOptions::Spot(options));
    let now = SystemClock.now();
    let zone = "us-east-1a".to_owned();
    let offering =
        Offering { instance_type: "g4dn.xlarge".to_owned(), zone, capacity: CapacityType::Spot };
    ec2.plan_capacity(now, offering, false);
    ec2.advance(now);
    let front = Front::open(ec2, Arc::new(SystemClock)).await.unwrap();
    let config = format!(
        "[cloud]\nkind = \"aws\"\nregion = \"{REGION}\"\n[pool.gpu]\ninstances = [\"{id}\"]\n"
    );
    let sandbox = Sandbox::new(&config)
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL_EC2", front.url());
    let said = sandbox.run(&["drain", &id]).expect(0);
    assert!(said.stderr.contains("is being interrupted by EC2"), "{}", said.stderr);
    let calls = front.calls();
    assert!(!calls.contains(&"StopInstances".to_owned()), "{calls:?}");
}
