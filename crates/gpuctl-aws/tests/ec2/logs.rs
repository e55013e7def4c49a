//! The function's log and a box's console, by an emulator.

use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use aws_sdk_ec2::types::InstanceType;
use chrono::TimeDelta;
use gpuctl_aws::{Aws, Ec2Cloud, FunctionLog, WantedLines};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{Clock, PortErrorClass};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use std::sync::Arc;

use super::emulators;
use super::support;

/// Lines of one call of CloudWatch's.
const BATCH_MAX: usize = 10_000;

/// A log group with these streams of lines.
async fn group(aws: &Aws, function: &str, streams: &[Vec<(Timestamp, String)>]) {
    let logs = aws_sdk_cloudwatchlogs::Client::new(aws.sdk());
    let group = format!("/aws/lambda/{function}");
    logs.create_log_group().log_group_name(&group).send().await.unwrap();
    for (number, lines) in streams.iter().enumerate() {
        let stream = format!("stream-{number}");
        let call = logs.create_log_stream().log_group_name(&group).log_stream_name(&stream);
        call.send().await.unwrap();
        for some in lines.chunks(BATCH_MAX) {
            let event = |(at, text): &(Timestamp, String)| {
                InputLogEvent::builder().timestamp(at.timestamp_millis()).message(text).build()
            };
            let events: Result<Vec<InputLogEvent>, _> = some.iter().map(event).collect();
            let call = logs.put_log_events().log_group_name(&group).log_stream_name(&stream);
            call.set_log_events(Some(events.unwrap())).send().await.unwrap();
        }
    }
}

fn info(message: &str) -> String {
    serde_json::json!({ "level": "INFO", "message": message, "target": "t" }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_lines_of_all_streams_come_in_order_and_without_noise() {
    let aws = support::aws(&emulators::moto().await.url());
    let now = SystemClock.now();
    let ago = |seconds: i64| now - TimeDelta::seconds(seconds);
    let metrics = "{\"Pool\":\"gpu\",\"_aws\":{}}".to_owned();
    let one = vec![
        (ago(7_200), info("too old")),
        (ago(40), "START RequestId: 1".to_owned()),
        (ago(30), info("first")),
        (ago(10), info("third")),
    ];
    let two = vec![(ago(20), info("second")), (ago(5), metrics)];
    group(&aws, "ordered", &[one, two]).await;
    let log = FunctionLog::new(&aws, "arn:aws:lambda:us-east-1:123456789012:function:ordered:live");
    let mut wanted = WantedLines { since: ago(3_600), lines_max: 10, with_noise: false };
    let texts = async |wanted: WantedLines| {
        let tail = log.read(wanted).await.unwrap();
        let texts = tail.lines.into_iter().map(|(_, line)| line.text).collect::<Vec<_>>();
        (texts, tail.is_cut)
    };
    let (all, is_cut) = texts(wanted).await;
    assert_eq!((all.join(" ").as_str(), is_cut), ("first second third", false));
    wanted.lines_max = 2;
    let (newest, is_cut) = texts(wanted).await;
    assert_eq!((newest.join(" ").as_str(), is_cut), ("second third", true));
    wanted = WantedLines { lines_max: 10, with_noise: true, ..wanted };
    assert_eq!(texts(wanted).await.0.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_a_log_of_several_pages_ends_with_its_newest_line() {
    let aws = support::aws(&emulators::moto().await.url());
    let now = SystemClock.now();
    let line = |n: i64| (now - TimeDelta::milliseconds(10_500 - n), info(&format!("line {n}")));
    group(&aws, "long", &[(0..10_500).map(line).collect()]).await;
    let since = now - TimeDelta::minutes(5);
    let wanted = WantedLines { since, lines_max: 2, with_noise: false };
    let tail = FunctionLog::new(&aws, "long").read(wanted).await.unwrap();
    let texts: Vec<&str> = tail.lines.iter().map(|(_, line)| line.text.as_str()).collect();
    assert_eq!((texts, tail.is_cut), (vec!["line 10498", "line 10499"], true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_never_ran_has_no_log_and_the_error_says_so() {
    let aws = support::aws(&emulators::moto().await.url());
    let wanted = WantedLines { since: SystemClock.now(), lines_max: 2, with_noise: false };
    let error = FunctionLog::new(&aws, "never").read(wanted).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::NotFound, "{error:?}");
    assert!(error.to_string().contains("/aws/lambda/never"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boxs_console_is_read_by_the_boxs_name() {
    let aws = support::aws(&emulators::moto().await.url());
    let ec2 = aws_sdk_ec2::Client::new(aws.sdk());
    let call = ec2.run_instances().image_id("ami-12345678").instance_type(InstanceType::T3Large);
    let made = call.min_count(1).max_count(1).send().await.unwrap();
    let id = made.instances()[0].instance_id().unwrap();
    let text = format!("[cloud]\nkind = \"aws\"\n[pool.app]\ninstances = [\"{id}\"]");
    let cloud = Ec2Cloud::new(&aws, Policy::parse(&text).unwrap(), Arc::new(SystemClock));
    let lines = cloud.console(&id.parse().unwrap()).await.unwrap();
    assert!(lines.iter().any(|line| line.text.contains("Linux version")), "{lines:?}");
    let error = cloud.console(&"app-1".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::NotFound, "{error:?}");
}
