//! Another project's EC2: `start-gpu` after a stop outside gpuctl and with a box that EC2 does not know, and boxes that are outdated.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::deployment::REGION;
use crate::emulators::{self, Emulator};
use crate::support::{PATIENCE, Sandbox, pause};

/// One of the images that moto knows from the start.
const IMAGE: &str = "ami-12c6146b";

/// One call of EC2's query API; repeated, since moto reads all of EC2's types before its first response.
fn ec2(moto: &Emulator, query: &str) -> String {
    let headers = format!(
        "Content-Type: application/x-www-form-urlencoded\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20261122/{REGION}/ec2/aws4_request\r\n"
    );
    let body = format!("Version=2016-11-15&Action={query}");
    let until = Instant::now() + PATIENCE;
    loop {
        match emulators::request_with(moto.port, "POST", "/", &headers, &body) {
            Some(answer) if answer.starts_with("HTTP/1.1 200") => return answer,
            answer => assert!(Instant::now() < until, "{query}: {answer:?}"),
        }
        pause(Duration::from_millis(200));
    }
}

fn launch(moto: &Emulator, from: &str) -> String {
    ec2(moto, "DescribeInstances");
    let answer = ec2(moto, &format!("RunInstances&{from}&MinCount=1&MaxCount=1"));
    let (_, rest) = answer.split_once("<instanceId>").unwrap();
    rest.split_once('<').unwrap().0.to_owned()
}

fn sandbox(moto: &Emulator, id: &str) -> Sandbox {
    let pool = format!("[pool.gpu]\ninstances = [\"{id}\"]\n");
    Sandbox::new(&format!("[cloud]\nkind = \"aws\"\nregion = \"{REGION}\"\n{pool}"))
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL_EC2", moto.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_was_stopped_outside_gpuctl_starts_when_a_user_says_so() {
    let moto = emulators::moto().await;
    let id = launch(moto, &format!("ImageId={IMAGE}&InstanceType=g4dn.xlarge"));
    let sandbox = sandbox(moto, &id);
    for _ in 0..2 {
        ec2(moto, &format!("StopInstances&InstanceId.1={id}"));
        // An observation before the start must not make the stop newer than the start.
        sandbox.wait_for("gpu", "stopped");
        let said = sandbox.run(&["start-gpu", "--wait", "--timeout", "60s"]).expect(0);
        assert!(said.stdout.starts_with("gpu: running"), "{}\n{}", said.stdout, said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_ec2_does_not_know_is_told_at_once() {
    let moto = emulators::moto().await;
    ec2(moto, "DescribeInstances");
    let sandbox = sandbox(moto, "i-0123456789abcdef0");
    for arguments in [&["start-gpu"][..], &["start-gpu", "--wait"]] {
        let began = Instant::now();
        let said = sandbox.run(arguments).expect(4);
        assert!(said.stderr.contains("i-0123456789abcdef0 is not known to EC2"), "{}", said.stderr);
        assert!(said.stderr.contains("hint: "), "{}", said.stderr);
        assert!(began.elapsed() < PATIENCE, "not the ten minutes of --wait");
    }
    let json = sandbox.run(&["start-gpu", "--json"]).expect(4);
    let error: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "start.impossible", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_differs_from_its_launch_template_is_shown_and_retired_once_it_is_stopped() {
    let moto = emulators::moto().await;
    ec2(moto, "DescribeInstances");
    let version = |action: &str, kind: &str| {
        let data =
            format!("LaunchTemplateData.ImageId={IMAGE}&LaunchTemplateData.InstanceType={kind}");
        ec2(moto, &format!("{action}&LaunchTemplateName=kept&{data}"));
    };
    version("CreateLaunchTemplate", "g4dn.xlarge");
    let from = "LaunchTemplate.LaunchTemplateName=kept&LaunchTemplate.Version=%24Latest";
    let id = launch(moto, from);
    let sandbox = sandbox(moto, &id);
    let how = "was made from version 1 of its launch template, which is at 2";
    let before = sandbox.run(&["status"]).expect(0);
    assert!(!before.stdout.contains("outdated"), "{}", before.stdout);
    version("CreateLaunchTemplateVersion", "g4dn.2xlarge");
    let after = sandbox.run(&["status"]).expect(0);
    assert!(after.stdout.contains("outdated") && after.stdout.contains(how), "{}", after.stdout);
    let stays = sandbox.run(&["retire", "--outdated", "--yes"]).expect(0);
    let words = format!("{how}; it is not stopped, and stays");
    assert!(stays.stderr.contains(&words), "{}", stays.stderr);
    assert!(stays.stderr.contains("no stopped box is outdated"), "{}", stays.stderr);
    ec2(moto, &format!("StopInstances&InstanceId.1={id}"));
    sandbox.wait_for("gpu", "stopped");
    let unasked = sandbox.run(&["retire", "--outdated"]).expect(2);
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    sandbox.run(&["retire", "--outdated", "--yes"]).expect(0);
    let gone = ec2(moto, &format!("DescribeInstances&InstanceId.1={id}"));
    assert!(gone.contains("<name>terminated</name>"), "{gone}");
    let none = sandbox.run(&["retire", "--outdated", "--yes"]).expect(0);
    assert!(none.stderr.contains("no stopped box is outdated"), "{}", none.stderr);
}
