//! What keeps a stack from working is said by `deploy` before anything is made: one line each.

use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use gpuctl_sim::wire::{Canned, Front, Rest};
use gpuctl_sim::world::ec2::Ec2;
use serde_json::{Value, json};

use crate::aws::settings;
use crate::deployment::{Account, REGION};
use crate::emulators;
use crate::support::Sandbox;

/// An account whose EC2 and quotas the test decides; the rest is an emulator.
struct Place {
    sandbox: Sandbox,
    front: Front,
    quotas: Canned,
}

impl Place {
    async fn new() -> Self {
        let ministack = emulators::ministack().await;
        let front = Front::open(Ec2::new(settings(), 7), Arc::new(SystemClock)).await.unwrap();
        front.rest_by(Rest::new(ministack.url(), &[]));
        let types = "<item><instanceType>g4dn.xlarge</instanceType><vCpuInfo><defaultVCpus>4</defaultVCpus></vCpuInfo></item>";
        front.answer(
            "DescribeInstanceTypes",
            &format!("<instanceTypeSet>{types}</instanceTypeSet>"),
        );
        let offer =
            "<item><instanceType>g4dn.xlarge</instanceType><location>us-east-1</location></item>";
        offers(&front, offer);
        let quotas = Canned::open().await.unwrap();
        let sandbox = Sandbox::new("[pool.local]\ncommand = [\"true\"]\n")
            .with("AWS_ACCESS_KEY_ID", "test")
            .with("AWS_SECRET_ACCESS_KEY", "test")
            .with("AWS_REGION", REGION)
            .with("AWS_ENDPOINT_URL", ministack.url())
            .with("AWS_ENDPOINT_URL_EC2", front.url())
            .with("AWS_ENDPOINT_URL_SERVICE_QUOTAS", quotas.url());
        let place = Self { sandbox, front, quotas };
        place.quota(&[("L-3819A6DF", 8.0), ("L-DB2E81BA", 8.0)]);
        place
    }

    /// The quotas by code, in vCPUs.
    fn quota(&self, values: &'static [(&'static str, f64)]) {
        self.quotas.answer("GetServiceQuota", move |asked: &Value| {
            let code = asked["QuotaCode"].as_str().unwrap_or_default();
            let (_, value) = values.iter().find(|(one, _)| *one == code).ok_or("NoSuchResource")?;
            Ok(json!({ "Quota": { "ServiceCode": "ec2", "QuotaCode": code, "Value": value } }))
        });
    }

    /// The one line that `gpuctl deploy` says, with these parameters.
    fn refused(&self, set: &[&str]) -> String {
        self.refused_as("refused", 1, set)
    }

    fn refused_as(&self, stack: &str, exit: i32, set: &[&str]) -> String {
        let images = ["GpuAmi=ami-0123456789abcdef0", "AppAmi=ami-0123456789abcdef0"];
        let set = images.iter().chain(set).flat_map(|one| ["--set", one]);
        let all: Vec<&str> = ["deploy", "--stack", stack, "--yes"].into_iter().chain(set).collect();
        let said = self.sandbox.run(&all).expect(exit).stderr;
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        said
    }
}

fn offers(front: &Front, items: &str) {
    let inside = format!("<instanceTypeOfferingSet>{items}</instanceTypeOfferingSet>");
    front.answer("DescribeInstanceTypeOfferings", &inside);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_without_the_instance_type_is_named() {
    let place = Place::new().await;
    offers(&place.front, "");
    let said = place.refused(&[]);
    assert!(said.contains("error: GpuKeptSpot: no zone of us-east-1 has g4dn.xlarge\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_zero_is_named_with_its_code_and_market() {
    let place = Place::new().await;
    place.quota(&[("L-3819A6DF", 0.0), ("L-DB2E81BA", 8.0)]);
    let said = place.refused(&[]);
    let spot = "error: GpuKeptSpot: the spot quota L-3819A6DF (All G and VT Spot Instance Requests) is 0 vCPUs, g4dn.xlarge needs 4";
    assert!(said.contains(spot), "{said}");
    place.quota(&[("L-3819A6DF", 8.0), ("L-DB2E81BA", 0.0)]);
    let said = place.refused(&["GpuMarket=on-demand"]);
    let plain = "error: GpuPlain: the on-demand quota L-DB2E81BA (Running On-Demand G and VT instances) is 0 vCPUs";
    assert!(said.contains(plain), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_are_listed() {
    let place = Place::new().await;
    let account = Account { port: emulators::ministack().await.port };
    account.sqs("CreateQueue", &json!({ "QueueName": "taken-jobs" }));
    let said = place.refused_as("taken", 1, &[]);
    let line =
        "error: Queue taken-jobs is there already: delete it, or deploy with another --stack";
    assert!(said.contains(line), "{said}");
    let table = json!({
        "TableName": "taken",
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    let target = |action: &str| format!("X-Amz-Target: {action}\r\n");
    account.call_with("dynamodb", "POST /", &target("DynamoDB_20120810.CreateTable"), &table);
    let group = json!({ "logGroupName": "/aws/lambda/taken" });
    account.call_with("logs", "POST /", &target("Logs_20140328.CreateLogGroup"), &group);
    let said = place.refused_as("taken", 1, &[]);
    assert!(said.contains("error: 3 things would keep the stack from working"), "{said}");
    for line in ["Table taken is there already", "LogGroup /aws/lambda/taken is there already"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_in_one_zone_are_not_enough() {
    let place = Place::new().await;
    let subnets = "<item><subnetId>subnet-1</subnetId><availabilityZone>us-east-1a</availabilityZone></item>\
        <item><subnetId>subnet-2</subnetId><availabilityZone>us-east-1a</availabilityZone></item>";
    place.front.answer("DescribeSubnets", &format!("<subnetSet>{subnets}</subnetSet>"));
    let said = place.refused(&[]);
    let line = "error: of us-east-1's zones only us-east-1a has a default subnet: name two zones with --set ZoneA=";
    assert!(said.contains(line), "{said}");
    let existing = ["ExistingVpc=vpc-1", "ExistingSubnetA=subnet-1", "ExistingSubnetB=subnet-2"];
    let said = place.refused(&existing);
    assert!(said.contains("error: the subnets are all in one zone"), "{said}");
}

/// AWS accepts signatures up to five minutes old or early.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_named_both_ways_and_only_where_it_is_the_cause() {
    let mut place = Place::new().await;
    for (ahead, words) in [
        (305, "error: this machine's clock is 5m"),
        (-305, "error: this machine's clock is 5m"),
        (240, "error: cannot find out whose credentials these are\n"),
        (-240, "error: cannot find out whose credentials these are\n"),
    ] {
        let theirs = move || SystemClock.now() - TimeDelta::seconds(ahead);
        let url =
            emulators::refusing(move || theirs().format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        place.sandbox = place.sandbox.with("AWS_ENDPOINT_URL_STS", url);
        let exit = if ahead.abs() > 300 { 1 } else { 4 };
        let said = place.refused_as("refused", exit, &[]);
        assert!(said.contains(words), "{ahead}: {said}");
        let way = if ahead > 0 { " ahead of AWS's" } else { " behind AWS's" };
        assert_eq!(said.contains(way), ahead.abs() > 300, "{said}");
        assert_eq!(said.contains("hint: synchronise it"), ahead.abs() > 300, "{said}");
    }
}
