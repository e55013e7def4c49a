//! A notice reaches its subscribers, with its key.

use aws_sdk_sqs::types::QueueAttributeName;
use gpuctl_aws::SnsTopic;
use gpuctl_control::notice::Notice;
use gpuctl_control::ports::PortErrorClass;

use crate::support::{self, fresh};

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_reaches_its_subscribers_with_its_key() {
    let aws = support::aws(&support::ministack().await.url());
    let (sns, sqs) = (aws.sns(), aws.sqs());
    let topic = sns.create_topic().name(fresh("topic")).send().await.unwrap();
    let arn = topic.topic_arn().unwrap();
    let inbox = sqs.create_queue().queue_name(fresh("inbox")).send().await.unwrap();
    let url = inbox.queue_url().unwrap();
    let name = QueueAttributeName::QueueArn;
    let call = sqs.get_queue_attributes().queue_url(url).attribute_names(name.clone());
    let endpoint = call.send().await.unwrap().attributes.unwrap()[&name].clone();
    sns.subscribe().topic_arn(arn).protocol("sqs").endpoint(endpoint).send().await.unwrap();
    let notice = Notice {
        text: "gpu: no spot box for 12 min — Zürich".to_owned(),
        key: "gpu/capacity".to_owned(),
    };
    assert!(!SnsTopic::new(&aws, arn).publish(&notice).await.unwrap().is_empty());
    let got = sqs.receive_message().queue_url(url).wait_time_seconds(10).send().await.unwrap();
    let body: serde_json::Value = serde_json::from_str(got.messages()[0].body().unwrap()).unwrap();
    assert_eq!(body["Subject"], "gpuctl: gpu: no spot box for 12 min ? Z?rich");
    assert_eq!(body["Message"], notice.text);
    assert_eq!(body["MessageAttributes"]["key"]["Value"], notice.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_not_found() {
    let aws = support::aws(&support::moto().await.url());
    let topic = SnsTopic::new(&aws, "arn:aws:sns:eu-west-1:123456789012:gpuctl-none");
    let notice = Notice { text: "b".to_owned(), key: "c".to_owned() };
    let error = topic.publish(&notice).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::NotFound, "{error:?}");
}
