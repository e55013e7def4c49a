//! `doctor` on AWS: EC2, STS and spot prices by moto; quotas and the Price List, which it has not got, by servers of this test's own.

use gpuctl_sim::wire::Canned;
use serde_json::{Value, json};

use crate::emulators;
use crate::prices::price_list;
use crate::support::Sandbox;

const CONFIG: &str = "[cloud]\nkind = \"aws\"\nregion = \"us-east-1\"\n[pool.gpu]\nlaunch_template = \"t\"\n\
    instance_types = [\"g4dn.xlarge\"]\nboxes_max = 2\n";

/// The first check of this name: its status, detail and fix.
fn check(sandbox: &Sandbox, code: i32, name: &str) -> (String, String, String) {
    let document = sandbox.run(&["doctor", "--json"]).expect(code).json();
    let found = document["checks"].as_array().unwrap().iter().find(|one| one["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name}: {document}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("detail"), text("fix"))
}

fn quota(canned: &Canned, on_demand: f64, spot: f64) {
    canned.answer("GetServiceQuota", move |input: &Value| {
        let value = if input["QuotaCode"] == "L-DB2E81BA" { on_demand } else { spot };
        Ok(json!({ "Quota": { "QuotaCode": input["QuotaCode"], "Value": value } }))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_warns_about_quotas_a_missing_controller_and_old_prices() {
    let (moto, quotas, list) =
        (emulators::moto().await, Canned::open().await.unwrap(), price_list().await);
    let sandbox = Sandbox::new(CONFIG)
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL", moto.url())
        .with("AWS_ENDPOINT_URL_SERVICE_QUOTAS", quotas.url())
        .with("AWS_ENDPOINT_URL_PRICING", list.url());
    quota(&quotas, 8.0, 4.0);
    let (status, detail, fix) = check(&sandbox, 1, "quota");
    assert_eq!(
        (status.as_str(), detail.as_str()),
        (
            "fail",
            "pool gpu may need 8 vCPUs of \"All G and VT Spot Instance Requests\" (L-3819A6DF), which is 4"
        )
    );
    assert!(fix.contains("request 8 vCPUs") && fix.contains("L-3819A6DF"), "{fix}");
    quota(&quotas, 8.0, 64.0);
    assert_eq!(check(&sandbox, 0, "quota").0, "pass");
    assert_eq!(check(&sandbox, 0, "clock").0, "pass");

    let (status, _, fix) = check(&sandbox, 0, "last reconcile");
    assert_eq!(status, "warn");
    assert!(fix.contains("gpuctl run") && fix.contains("Lambda"), "{fix}");
    sandbox.run(&["release", "gpu"]).expect(0);
    assert_eq!(check(&sandbox, 0, "last reconcile").0, "pass");

    let (status, detail, fix) = check(&sandbox, 0, "prices");
    assert_eq!(status, "warn", "{detail}");
    assert!(detail.contains("shipped prices of 2025-10"), "{detail}");
    assert!(fix.contains("cost prices --refresh"), "{fix}");
    sandbox.run(&["cost", "prices", "--refresh"]).expect(0);
    let (status, detail, _) = check(&sandbox, 0, "prices");
    assert_eq!(status, "pass", "{detail}");

    let said = sandbox.run(&["doctor", "--show-calls"]).expect(0).stderr;
    for call in [
        "sts get-caller-identity",
        "service-quotas get-service-quota",
        "ec2 describe-instance-types",
    ] {
        assert!(said.contains(&format!("aws {call}")), "{said}");
    }
}
