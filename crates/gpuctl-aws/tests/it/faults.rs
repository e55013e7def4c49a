//! Every failure has a name, a class and a hint: throttling, resets, lost responses, expired tokens, no credentials, the wrong region.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use chrono::TimeDelta;
use gpuctl_aws::{Aws, DynamoLedger, S3Files, SqsQueue};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{
    Clock, JobQueue, Ledger, NewMessage, PortError, PortErrorClass, ReceiveRequest,
};
use gpuctl_core::units::{QueueName, Timestamp};
use serde_json::{Value, json};

use crate::recorder::Recorder;
use crate::support::{self, Emulator, a_queue, fresh};

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// How long a proxy may take until it knows the services.
const PROXY_TIME_MAX: Duration = Duration::from_secs(120);

/// A working queue and ledger behind a proxy that makes no faults yet.
struct Behind {
    proxy: Emulator,
    queue: SqsQueue,
    name: QueueName,
    ledger: DynamoLedger,
}

async fn behind() -> Behind {
    let emulator = support::ministack().await;
    let direct = support::aws(&emulator.url());
    let (name, table) = (a_queue(&direct).await, fresh("ledger"));
    DynamoLedger::new(&direct, &table, Arc::new(SystemClock), None).create_table().await.unwrap();
    let proxy = support::faults(emulator).await;
    let aws = support::aws(&proxy.url());
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    let queue = SqsQueue::new(&aws);
    // The proxy reads each service's model with its first call: on a busy machine that takes longer than a call may.
    let until = Instant::now() + PROXY_TIME_MAX;
    while queue.counts(&name).await.is_err() || ledger.check_table().await.is_err() {
        assert!(Instant::now() < until, "the proxy does not answer");
    }
    Behind { proxy, queue, name, ledger }
}

fn always(service: &str, code: &str, status: u16) -> Value {
    json!([{ "service": service, "error": { "code": code, "status": status } }])
}

fn a_message() -> NewMessage {
    NewMessage { body: "a".to_owned(), attributes: Vec::new(), delay: TimeDelta::zero() }
}

#[track_caller]
fn is(error: &PortError, class: PortErrorClass, hint: &str) {
    assert_eq!(error.class, class, "{error:?}");
    let found = error.hint.as_deref().unwrap_or_default();
    assert!(found.contains(hint), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_its_class_and_a_hint() {
    let Behind { proxy, queue, name, ledger } = behind().await;
    use PortErrorClass::{Denied, Throttled, Unavailable};
    let cases = [
        ("AccessDeniedException", 400, Denied, ["sqs:GetQueueAttributes", "dynamodb:UpdateItem"]),
        ("ExpiredTokenException", 400, Denied, ["aws sso login", "aws sso login"]),
        ("UnrecognizedClientException", 400, Denied, ["profile", "profile"]),
        ("ThrottlingException", 400, Throttled, ["throttling", "throttling"]),
        ("InternalServerError", 500, Unavailable, ["internal error", "internal error"]),
    ];
    for (code, status, class, hints) in cases {
        proxy.break_by(&always("sqs", code, status));
        is(&queue.counts(&name).await.unwrap_err(), class, hints[0]);
        proxy.break_by(&always("dynamodb", code, status));
        is(&ledger.lease("one", MINUTE).await.unwrap_err(), class, hints[1]);
    }
    proxy.break_by(&json!([]));
    // None of this has changed anything.
    assert_eq!(queue.counts(&name).await.unwrap().visible, 0);
    assert!(ledger.lease("one", MINUTE).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_passes_is_not_seen() {
    let Behind { proxy, queue, name, ledger } = behind().await;
    for fault in [
        json!({ "error": { "code": "ServiceUnavailable", "status": 503 } }),
        json!({ "reset": true }),
    ] {
        let mut rules = Vec::new();
        for service in ["sqs", "dynamodb"] {
            let mut rule = fault.clone();
            rule["service"] = json!(service);
            rule["times"] = json!(2);
            rules.push(rule);
        }
        let before = proxy.fired();
        proxy.break_by(&Value::Array(rules));
        queue.send(&name, &[a_message()]).await.unwrap();
        assert!(ledger.runs_since(chrono::DateTime::UNIX_EPOCH).await.unwrap().is_empty());
        assert_eq!(proxy.fired() - before, 4);
    }
    proxy.break_by(&json!([]));
    assert_eq!(queue.counts(&name).await.unwrap().visible, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_network_fault_is_unavailable() {
    let Behind { proxy, queue, name, ledger } = behind().await;
    proxy.break_by(&json!([{ "service": "*", "reset": true }]));
    let hint = "cannot be reached";
    is(&queue.counts(&name).await.unwrap_err(), PortErrorClass::Unavailable, hint);
    is(&ledger.lease("a", MINUTE).await.unwrap_err(), PortErrorClass::Unavailable, hint);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_costs_neither_the_reconcile_lease_nor_a_result() {
    let Behind { proxy, ledger, .. } = behind().await;
    let lose = json!([
        { "service": "dynamodb", "operation": "UpdateItem", "times": 1, "response": { "abort_frac": 0.0 } }
    ]);
    proxy.break_by(&lose);
    let fence = ledger.lease("one", MINUTE).await.unwrap();
    assert_eq!(proxy.fired(), 1);
    let fence = fence.expect("the lease that it took itself is its own");
    assert!(ledger.lease("other", MINUTE).await.unwrap().is_none());
    ledger.release(&fence).await.unwrap();
    assert!(ledger.lease("other", MINUTE).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_to_an_ack_leaves_the_message_acked() {
    let Behind { proxy, queue, name, .. } = behind().await;
    queue.send(&name, &[a_message()]).await.unwrap();
    let request = ReceiveRequest { max: 1, visibility: MINUTE, wait: TimeDelta::zero() };
    let held = queue.receive(&name, request).await.unwrap().remove(0);
    proxy.break_by(&json!([
        { "service": "sqs", "operation": "DeleteMessageBatch", "times": 1, "response": { "abort_frac": 0.0 } }
    ]));
    // The second try finds no message: AWS returns success, the emulator a lost lease. It is deleted in both.
    if let Err(error) = queue.ack_one(&held.receipt).await {
        assert_eq!(error.class, PortErrorClass::LeaseLost, "{error:?}");
    }
    assert_eq!(proxy.fired(), 1);
    let seen = queue.counts(&name).await.unwrap();
    assert_eq!((seen.visible, seen.in_flight), (0, 0));
}

/// A delete that fails after the message was sent to the dead letters must not send it there again, also after its next delivery.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_burial_broke_off_is_buried_once() {
    let Behind { proxy, queue, name, .. } = behind().await;
    for is_delivered_again in [false, true] {
        queue.send(&name, &[a_message()]).await.unwrap();
        let request = ReceiveRequest { max: 1, visibility: MINUTE, wait: TimeDelta::zero() };
        let mut held = queue.receive(&name, request).await.unwrap().remove(0);
        proxy.break_by(&json!([
            { "service": "sqs", "operation": "DeleteMessageBatch", "times": 3, "error": { "code": "ServiceUnavailable", "status": 503 } }
        ]));
        let error = queue.bury(&name, &held, "why").await.unwrap_err();
        assert_eq!(error.class, PortErrorClass::Unavailable, "{error:?}");
        if is_delivered_again {
            queue.change_one(&held.receipt, TimeDelta::zero()).await.unwrap();
            held = queue.receive(&name, request).await.unwrap().remove(0);
            assert_eq!(held.receive_count, 2);
        }
        queue.bury(&name, &held, "why").await.unwrap();
        let seen = queue.counts(&name).await.unwrap();
        let dead = 1 + u64::from(is_delivered_again);
        assert_eq!((seen.visible, seen.in_flight, seen.dead), (0, 0, dead));
    }
}

/// Attributes count towards a message's length, and the reason is one; no emulator counts them.
#[tokio::test(flavor = "multi_thread")]
async fn q14_a_message_as_long_as_sqs_takes_is_buried_without_its_reason() {
    let Behind { proxy, queue, name, .. } = behind().await;
    let attributes = vec![("job_id".to_owned(), "a".to_owned())];
    queue.send(&name, &[NewMessage { attributes, ..a_message() }]).await.unwrap();
    let request = ReceiveRequest { max: 1, visibility: MINUTE, wait: MINUTE };
    let held = queue.receive(&name, request).await.unwrap().remove(0);
    proxy.break_by(&json!([
        { "service": "sqs", "operation": "SendMessage", "times": 1, "error": { "code": "InvalidParameterValue", "status": 400 } }
    ]));
    queue.bury(&name, &held, "why").await.unwrap();
    let dead: QueueName = format!("{name}-dead").parse().unwrap();
    let buried = queue.receive(&dead, request).await.unwrap().remove(0);
    assert_eq!((buried.body, buried.attributes), (held.body, held.attributes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_for_all_its_messages_says_so_for_each() {
    let Behind { proxy, queue, name, .. } = behind().await;
    queue.send(&name, &[a_message(), a_message()]).await.unwrap();
    let request = ReceiveRequest { max: 10, visibility: MINUTE, wait: MINUTE };
    let mut held = Vec::new();
    while held.len() < 2 {
        held.extend(queue.receive(&name, request).await.unwrap());
    }
    let receipts: Vec<_> = held.into_iter().map(|one| one.receipt).collect();
    proxy.break_by(&always("sqs", "AccessDeniedException", 400));
    let results = queue.change_visibility(&receipts, MINUTE).await;
    for result in &results {
        is(result.as_ref().unwrap_err(), PortErrorClass::Denied, "sqs:ChangeMessageVisibility");
    }
    proxy.break_by(&json!([]));
    // The leases are held as before.
    assert!(queue.ack(&receipts).await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_or_table_is_named_with_its_region() {
    let aws = support::aws(&support::ministack().await.url());
    let queue = SqsQueue::new(&aws);
    let error = queue.counts(&"no-such-queue".parse().unwrap()).await.unwrap_err();
    is(&error, PortErrorClass::NotFound, support::REGION);
    assert!(error.what.contains("no-such-queue"), "{error}");
    let ledger = DynamoLedger::new(&aws, "no-such-table", Arc::new(SystemClock), None);
    let error = ledger.memory(&"gpu".parse().unwrap()).await.unwrap_err();
    is(&error, PortErrorClass::NotFound, "gpuctl doctor --fix");
    assert!(error.what.contains("no-such-table"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_region_is_not_found() {
    let emulator = support::moto().await;
    let here = support::aws(&emulator.url());
    let name = fresh("jobs");
    here.sqs().create_queue().queue_name(&name).send().await.unwrap();
    let elsewhere = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .endpoint_url(emulator.url())
        .credentials_provider(here.sdk().credentials_provider().unwrap());
    let queue = SqsQueue::new(&Aws::load(elsewhere).await.unwrap());
    let error = queue.counts(&name.parse().unwrap()).await.unwrap_err();
    is(&error, PortErrorClass::NotFound, "us-west-2");
}

/// As on a machine without credentials in profiles, environment or instance metadata.
#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("none anywhere")))
    }
}

/// Hands out other credentials each time, all of which have ended for the SDK: it asks again before each call.
#[derive(Debug, Default)]
struct Sessions(AtomicUsize);

impl ProvideCredentials for Sessions {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let key = format!("session-{}", self.0.fetch_add(1, Ordering::Relaxed));
        let end = Some(std::time::SystemTime::UNIX_EPOCH);
        future::ProvideCredentials::ready(Ok(Credentials::new(key, "s", None, end, "test")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_session_has_ended_goes_on_with_the_next_one() {
    let emulator = support::ministack().await;
    let table = fresh("ledger");
    let direct = support::aws(&emulator.url());
    DynamoLedger::new(&direct, &table, Arc::new(SystemClock), None).create_table().await.unwrap();
    let refused = AtomicUsize::new(0);
    let recorder = Recorder::with(emulator.port, move |_, _| {
        let body = json!({ "__type": "com.amazon.coral.service#ExpiredTokenException" });
        (refused.fetch_add(1, Ordering::Relaxed) == 0).then(|| body.to_string())
    });
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(support::REGION))
        .endpoint_url(recorder.url())
        .credentials_provider(Sessions::default());
    let aws = Aws::load(loader).await.unwrap();
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    let error = ledger.lease("one", MINUTE).await.unwrap_err();
    is(&error, PortErrorClass::Denied, "expired");
    assert!(ledger.lease("one", MINUTE).await.unwrap().is_some());
    let signed_by = |head: &String, key: &str| head.contains(&format!("Credential={key}/"));
    let heads = recorder.heads();
    assert!(signed_by(&heads[0], "session-0") && signed_by(&heads[1], "session-1"), "{heads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_network_was_down_goes_on_when_it_is_back() {
    let emulator = support::ministack().await;
    let direct = support::aws(&emulator.url());
    let (name, table) = (a_queue(&direct).await, fresh("ledger"));
    DynamoLedger::new(&direct, &table, Arc::new(SystemClock), None).create_table().await.unwrap();
    let port = support::free_port();
    let aws = support::aws(&format!("http://127.0.0.1:{port}"));
    let queue = SqsQueue::new(&aws);
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    let unreachable = "cannot be reached";
    is(&queue.counts(&name).await.unwrap_err(), PortErrorClass::Unavailable, unreachable);
    is(&ledger.lease("a", MINUTE).await.unwrap_err(), PortErrorClass::Unavailable, unreachable);
    let _network = Recorder::at(port, emulator.port);
    queue.send(&name, &[a_message()]).await.unwrap();
    assert!(ledger.lease("a", MINUTE).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_every_service_says_how_to_get_some() {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(support::REGION))
        .endpoint_url(support::ministack().await.url())
        .credentials_provider(NoCredentials);
    let aws = Aws::load(loader).await.unwrap();
    let hint = "aws configure";
    let queue = SqsQueue::new(&aws);
    is(&queue.counts(&"a".parse().unwrap()).await.unwrap_err(), PortErrorClass::Denied, hint);
    let ledger = DynamoLedger::new(&aws, "a", Arc::new(SystemClock), None);
    is(&ledger.lease("a", MINUTE).await.unwrap_err(), PortErrorClass::Denied, hint);
    let files = S3Files::new(&aws, "a", "");
    is(&files.fetch("s3://a/b", 1, None).await.unwrap_err(), PortErrorClass::Denied, hint);
    is(&aws.identity().await.unwrap_err(), PortErrorClass::Denied, hint);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_known_and_the_clocks_agree() {
    let aws = support::aws(&support::moto().await.url());
    let (who, ahead) = aws.identity_and_clock().await;
    assert_eq!(who.unwrap().account, "123456789012");
    assert!(ahead.unwrap().abs() < MINUTE, "{ahead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t14_an_error_also_tells_how_far_the_clock_is_off() {
    let aws = support::aws(&support::refusing_in_2020());
    let (who, ahead) = aws.identity_and_clock().await;
    is(&who.unwrap_err(), PortErrorClass::Denied, "clock");
    assert!(ahead.unwrap() > TimeDelta::days(365), "{ahead:?}");
    // From then on the time is AWS's, whatever this machine's clock says.
    let off = aws.clock().now() - "2020-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
    assert!(off.abs() < MINUTE, "{off}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t14_each_service_s_responses_set_the_one_clock() {
    let server = support::refusing_in_2020();
    let year = |aws: &Aws| aws.clock().now().format("%Y").to_string();
    let aws = support::aws(&server);
    assert_ne!(year(&aws), "2020");
    let _ = SqsQueue::new(&aws).counts(&"jobs".parse().unwrap()).await;
    assert_eq!(year(&aws), "2020");
    let aws = support::aws(&server);
    let _ = DynamoLedger::new(&aws, "t", aws.clock(), None).last_reconcile().await;
    assert_eq!(year(&aws), "2020");
    let aws = support::aws(&server);
    let _ = S3Files::new(&aws, "bucket", "").fetch("s3://bucket/key", 1, None).await;
    assert_eq!(year(&aws), "2020");
}
