//! What keeps a stack from working is said by `deploy` before anything is made: one line each.

use std::sync::Arc;

use gpuctl_control::clock::SystemClock;
use gpuctl_sim::wire::{Canned, Front, Rest};
use gpuctl_sim::world::ec2::Ec2;
use serde_json::{Value, json};

use crate::aws::settings;
use crate::deployment::REGION;
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
        let images = ["GpuAmi=ami-0123456789abcdef0", "AppAmi=ami-0123456789abcdef0"];
        let set = images.iter().chain(set).flat_map(|one| ["--set", one]);
        let all: Vec<&str> =
            ["deploy", "--stack", "refused", "--yes"].into_iter().chain(set).collect();
        let said = self.sandbox.run(&all).expect(1).stderr;
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
async fn a_wrong_clock_is_named() {
    let mut place = Place::new().await;
    place.sandbox = place.sandbox.with("AWS_ENDPOINT_URL_STS", emulators::refusing_in_2020());
    let said = place.refused(&[]);
    assert!(
        said.contains("error: this machine's clock is ") && said.contains(" ahead of AWS's\n"),
        "{said}"
    );
    assert!(said.contains("hint: synchronise it"), "{said}");
}
