//! The real `bootstrap` behind Lambda's runtime API, with DynamoDB by an emulator and EC2 by the simulated one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

#[path = "../../crates/gpuctl-aws/tests/emulators/mod.rs"]
mod emulators;
mod runtime;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use gpuctl_sim::wire::Front;
use gpuctl_sim::world::ec2::{
    Ec2, Ec2Settings, InstanceState, MarketOptions, RunInstances, Shutdown, ShutdownBehaviour,
};
use serde_json::{Value, json};

use runtime::Function;

/// An account with an app box, stopped, and the function on it.
struct Account {
    front: Front,
    app: String,
    function: Function,
    policy: std::path::PathBuf,
    endpoint: String,
    _folder: tempfile::TempDir,
}

/// An account whose function reads its policy from a file.
async fn account(table: &str) -> Account {
    let mut ec2 = Ec2::new(settings(), 7);
    let now = SystemClock.now();
    let app = ec2.run_instances(now - TimeDelta::hours(2), &a_box()).unwrap().remove(0).id;
    ec2.advance(now - TimeDelta::hours(1));
    ec2.power_off(now - TimeDelta::hours(1), &app);
    ec2.advance(now);
    let front = Front::open(ec2, Arc::new(SystemClock)).await.unwrap();
    let ministack = emulators::ministack().await;
    make_table(&ministack.url(), table).await;
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("gpuctl.toml");
    let text = format!(
        "[cloud]\nkind = \"aws\"\nregion = \"eu-west-1\"\ntable = \"{table}\"\n[pool.app]\ninstances = [\"{app}\"]\n"
    );
    std::fs::write(&policy, text).unwrap();
    let endpoint = ministack.url();
    let function = function(&endpoint, &front, &policy.display().to_string()).await;
    Account { front, app, function, policy, endpoint, _folder: folder }
}

/// The queue whose messages are commands.
const ORDERS: &str = "arn:aws:sqs:eu-west-1:123456789012:orders";

/// A fresh instance of the function, with its policy at this location.
async fn function(endpoint: &str, front: &Front, policy: &str) -> Function {
    let environment = [
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_ENDPOINT_URL_EC2", front.url()),
        ("GPUCTL_POLICY", policy.to_owned()),
        ("GPUCTL_COMMANDS_FROM", ORDERS.to_owned()),
    ];
    Function::start(&environment).await
}

async fn make_table(endpoint: &str, name: &str) {
    let aws = gpuctl_aws::Aws::at(endpoint, "eu-west-1");
    let ledger = gpuctl_aws::DynamoLedger::new(&aws, name, Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
}

fn settings() -> Ec2Settings {
    Ec2Settings {
        zones: vec!["eu-west-1a".to_owned()],
        pending: (TimeDelta::milliseconds(10), TimeDelta::milliseconds(10)),
        stopping: (TimeDelta::milliseconds(10), TimeDelta::milliseconds(10)),
        shutdown_max: TimeDelta::seconds(90),
        shutdown: Shutdown::After(TimeDelta::milliseconds(10)),
        vcpus_spot: 8,
        vcpus_on_demand: 8,
    }
}

fn a_box() -> RunInstances {
    RunInstances {
        client_token: None,
        launch_template: None,
        image_id: Some("ami-1".to_owned()),
        instance_type: Some("t3.large".to_owned()),
        zone: Some("eu-west-1a".to_owned()),
        market: Some(MarketOptions::OnDemand),
        count: 1,
        tags: BTreeMap::new(),
        shutdown: ShutdownBehaviour::Stop,
    }
}

impl Account {
    fn is_on(&self) -> bool {
        let ec2 = self.front.ec2();
        let state = ec2.instance(&self.app).unwrap().state;
        matches!(state, InstanceState::Pending | InstanceState::Running)
    }
}

fn acted(response: &Value) -> usize {
    response["acted"].as_array().unwrap_or_else(|| panic!("{response}")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_starts_and_stops_a_box_and_any_other_event_reconciles() {
    let mut account = account("plain").await;
    let response = account.function.call(&json!({})).await;
    assert_eq!((response["statusCode"].as_i64(), acted(&response)), (Some(200), 0), "{response}");
    assert!(!account.is_on());

    let start = json!({"action": "start", "target": "app", "by": "ada"});
    let response = account.function.call(&start).await;
    assert_eq!(response["acted"][0]["action"], "start", "{response}");
    assert!(response["acted"][0]["reason"].as_str().unwrap().contains("ada"), "{response}");
    assert_eq!(response["acted"][0]["error"], Value::Null, "{response}");
    assert!(account.is_on(), "{response}");

    // A repeated command, and whatever else AWS may send: the hold stays, and nothing more is done.
    let state = json!({"instance-id": "i-1", "state": "running"});
    for event in [
        json!({"action": "start", "target": "app"}),
        json!({"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification", "detail": state}),
        json!({"source": "aws.s3", "detail-type": "Object Created"}),
        json!([1, "x", null]),
    ] {
        let response = account.function.call(&event).await;
        assert_eq!(
            (response["statusCode"].as_i64(), acted(&response)),
            (Some(200), 0),
            "{response}"
        );
    }
    let batch = json!({"Records": [{"messageId": "a", "body": "no json"}]});
    let response = account.function.call(&batch).await;
    assert_eq!(response["batchItemFailures"], json!([]), "{response}");

    let response = account.function.call(&json!({"action": "stop", "target": "app"})).await;
    assert_eq!(response["acted"][0]["action"], "stop", "{response}");
    assert!(!account.is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_an_invalid_command_or_policy_is_reported_and_the_last_good_policy_stays() {
    let mut account = account("wrong").await;
    let response = account.function.call(&json!({"action": "start", "target": "batch"})).await;
    let error = response["errors"][0].as_str().unwrap();
    assert!(
        error.contains("there is no pool `batch`") && error.contains("has these pools: app"),
        "{error}"
    );
    let response = account.function.call(&json!({"action": "boot"})).await;
    assert!(response["errors"][0].as_str().unwrap().contains("\"boot\""), "{response}");

    let good = std::fs::read_to_string(&account.policy).unwrap();
    std::fs::write(&account.policy, good.replace("instances", "instanses")).unwrap();
    let response = account.function.call(&json!({"action": "start", "target": "app"})).await;
    let error = response["errors"][0].as_str().unwrap();
    assert!(error.contains("did you mean `instances`"), "{error}");
    assert!(error.contains("last good policy"), "{error}");
    assert_eq!(response["acted"][0]["action"], "start", "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_fresh_instance_takes_the_newest_usable_version_of_the_parameter() {
    let account = account("versions").await;
    let ssm = gpuctl_aws::Aws::at(&account.endpoint, "eu-west-1").ssm();
    let put = async |text: &str| {
        let call = ssm.put_parameter().name("/versions/policy").overwrite(true);
        call.set_type(Some("String".into())).value(text).send().await.unwrap();
    };
    let good = std::fs::read_to_string(&account.policy).unwrap();
    let bad = good.replace("instances", "instanses");
    let start = json!({"action": "start", "target": "app"});

    // No usable version: the event fails, and Lambda's retry or the next tick tries again.
    put(&bad).await;
    let fresh = async || function(&account.endpoint, &account.front, "ssm:/versions/policy").await;
    let response = fresh().await.call(&start).await;
    let error = response["errorMessage"].as_str().unwrap_or_else(|| panic!("{response}"));
    assert!(
        error.contains("did you mean `instances`") && error.contains("no earlier version"),
        "{error}"
    );
    assert!(!account.is_on());

    let newer = format!("{good}\n# newer");
    for text in [&good, &newer, &bad, &bad.replace("app", "gpu")] {
        put(text).await;
    }
    let mut function = fresh().await;
    for _ in 0..2 {
        let response = function.call(&start).await;
        let error = response["errors"][0].as_str().unwrap_or_else(|| panic!("{response}"));
        assert!(error.contains("its version 3 is in force"), "{error}");
        assert!(account.is_on(), "{response}");
    }
    put(&newer).await;
    let response = function.call(&json!({})).await;
    assert_eq!(response["errors"], json!([]), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_fresh_instance_takes_the_newest_usable_version_of_the_object() {
    let account = account("objects").await;
    let client = gpuctl_aws::Aws::at(&account.endpoint, "eu-west-1").s3();
    let port = emulators::ministack().await.port;
    for (path, body) in [
        (
            "/policies",
            "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>",
        ),
        (
            "/policies?versioning",
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
        ),
    ] {
        let xml = "Content-Type: application/xml\r\n";
        let answer = emulators::request_with(port, "PUT", path, xml, body).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }
    let put = async |text: &str| {
        let body = text.to_owned().into_bytes().into();
        client.put_object().bucket("policies").key("gpuctl.toml").body(body).send().await.unwrap();
    };
    let good = std::fs::read_to_string(&account.policy).unwrap();
    put(&good).await;
    put(&good.replace("instances", "instanses")).await;
    let source = "s3://policies/gpuctl.toml";
    let mut function = function(&account.endpoint, &account.front, source).await;
    let response = function.call(&json!({"action": "start", "target": "app"})).await;
    let error = response["errors"][0].as_str().unwrap_or_else(|| panic!("{response}"));
    assert!(error.contains("did you mean `instances`"), "{error}");
    assert!(error.contains("its version of 20") && error.contains("is in force"), "{error}");
    assert!(account.is_on(), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_nothing_is_begun_that_could_not_be_recorded_in_time() {
    let mut account = account("late").await;
    let start = json!({"action": "start", "target": "app"});
    let response = account.function.call_within(&start, 2_000).await;
    let error = response["acted"][0]["error"].as_str().unwrap_or_else(|| panic!("{response}"));
    assert!(error.contains("took too long"), "{error}");
    assert!(!account.is_on());
    let response = account.function.call(&json!({})).await;
    assert_eq!(response["acted"][0]["action"], "start", "the hold was set: {response}");
}

/// CloudWatch bills each metric of each pool: more than all else of an idle function.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_printed_only_if_the_policy_says_so() {
    let mut account = account("metrics").await;
    let tick = json!({});
    account.function.call(&tick).await;
    account.function.call(&json!({"source": "aws.s3", "detail-type": "Second"})).await;
    let written = account.function.lines_to("Second").await;
    assert!(!written.iter().any(|line| line.contains("_aws")), "{written:?}");
    let environment = [
        ("AWS_ENDPOINT_URL", account.endpoint.clone()),
        ("AWS_ENDPOINT_URL_EC2", account.front.url()),
        ("GPUCTL_POLICY", account.policy.display().to_string()),
        ("GPUCTL_METRICS", "on".to_owned()),
    ];
    let mut by_variable = Function::start(&environment).await;
    by_variable.call(&tick).await;
    let policy = std::fs::read_to_string(&account.policy).unwrap();
    std::fs::write(&account.policy, policy.replace("[pool", "metrics = true\n[pool")).unwrap();
    account.function.call(&tick).await;
    for function in [&mut by_variable, &mut account.function] {
        let written = function.lines_to("_aws").await;
        let line: Value = serde_json::from_str(written.last().unwrap()).unwrap();
        assert_eq!((&line["Pool"], &line["BoxesUp"]), (&json!("app"), &json!(0)), "{line}");
    }
}

/// The hold in force on the only pool: what it wants, and who set it.
fn hold(response: &Value) -> (&str, &str) {
    let hold = &response["pools"][0]["hold"];
    let text = |key: &str| hold[key].as_str().unwrap_or_else(|| panic!("{response}"));
    (text("wants"), text("by"))
}

#[tokio::test(flavor = "multi_thread")]
async fn l15_a_request_that_is_delivered_again_undoes_nothing() {
    let mut account = account("again").await;
    // As a rule of EventBridge sends it: a constant.
    let start = json!({"action": "start", "target": "app"});
    let response = account.function.call_as("a", &start).await;
    assert_eq!(hold(&response).0, "running", "{response}");
    let stop = json!({"action": "stop", "target": "app", "by": "ada"});
    let response = account.function.call_as("b", &stop).await;
    assert_eq!(hold(&response), ("stopped", "ada"), "{response}");
    for _ in 0..2 {
        let response = account.function.call_as("a", &start).await;
        let error = response["errors"][0].as_str().unwrap_or_else(|| panic!("{response}"));
        assert!(error.contains("has a hold that is newer"), "{error}");
        assert_eq!(hold(&response), ("stopped", "ada"), "{response}");
        assert!(!account.is_on());
    }
    let until = |response: &Value| response["pools"][0]["hold"]["until"].clone();
    let before = until(&account.function.call(&json!({})).await);
    let repeated = account.function.call_as("b", &stop).await;
    assert_eq!(until(&repeated), before, "its end does not move");
    let response = account.function.call_as("c", &start).await;
    assert_eq!(hold(&response).0, "running", "the next request counts: {response}");
    assert!(account.is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_message_only_wakes_the_function_unless_its_queue_is_opted_in() {
    let mut account = account("messages").await;
    let sent = |queue: &str, id: &str, sent_ago: TimeDelta, command: Value| {
        let sent_at = (SystemClock.now() - sent_ago).timestamp_millis().to_string();
        let record = json!({
            "messageId": id,
            "eventSource": "aws:sqs",
            "eventSourceARN": queue,
            "attributes": {"SentTimestamp": sent_at},
            "body": command.to_string(),
        });
        json!({ "Records": [record] })
    };
    let (start, stop) = (json!({"action": "start"}), json!({"action": "stop", "by": "ada"}));
    let (minute, hour) = (TimeDelta::minutes(1), TimeDelta::hours(1));
    let bell = "arn:aws:sqs:eu-west-1:123456789012:bell";
    let response = account.function.call(&sent(bell, "a", minute, start.clone())).await;
    assert_eq!(response["pools"][0]["hold"], Value::Null, "{response}");
    assert!(!account.is_on(), "{response}");

    let response = account.function.call(&sent(ORDERS, "b", minute, start.clone())).await;
    assert_eq!(hold(&response), ("running", "an event"), "{response}");
    assert!(account.is_on(), "{response}");
    let response = account.function.call(&sent(ORDERS, "c", hour, stop)).await;
    assert!(response["errors"][0].as_str().unwrap().contains("newer"), "{response}");
    assert_eq!(response["batchItemFailures"], json!([]), "it would be as late again: {response}");
    assert!(account.is_on(), "an older message does not undo a newer one: {response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_a_command_that_could_not_be_stored_comes_again() {
    let account = account("unstored").await;
    let environment = [
        ("AWS_ENDPOINT_URL", account.endpoint.clone()),
        ("AWS_ENDPOINT_URL_EC2", account.front.url()),
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1".to_owned()),
        ("GPUCTL_POLICY", account.policy.display().to_string()),
        ("GPUCTL_COMMANDS_FROM", ORDERS.to_owned()),
    ];
    let mut function = Function::start(&environment).await;
    let stop = json!({"action": "stop", "target": "app"});
    let response = function.call(&stop).await;
    let error = response["errorMessage"].as_str().unwrap_or_else(|| panic!("{response}"));
    assert!(error.contains("in the ledger"), "the invocation fails, so Lambda repeats it: {error}");
    let record = json!({"messageId": "a", "eventSourceARN": ORDERS, "body": stop.to_string()});
    let response = function.call(&json!({ "Records": [record] })).await;
    assert_eq!(response["batchItemFailures"], json!([{"itemIdentifier": "a"}]), "{response}");
    // A tick has nothing to lose: the next one follows in a minute.
    let response = function.call(&json!({})).await;
    assert_eq!(response["statusCode"], 503, "{response}");
}
