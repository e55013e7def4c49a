//! Quotas and keys: EC2 and KMS by moto, and what it lacks (these quotas, AWS managed keys) with responses in the shape of AWS's API
//! reference.

use aws_sdk_ec2::types::{BlockDeviceMapping, EbsBlockDevice, InstanceType};
use gpuctl_aws::{Finding, check_limits};
use gpuctl_sim::wire::Canned;
use serde_json::{Value, json};

use super::emulators::moto;
use super::moto::{BY_TAG, Moto};
use super::support::aws;

fn told<'a>(findings: &'a [Finding], name: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.name == name).collect()
}

fn quota(values: &'static [(&'static str, f64)]) -> impl Fn(&Value) -> Result<Value, String> {
    move |input| {
        let code = input["QuotaCode"].as_str().unwrap();
        let value = values.iter().find(|(known, _)| *known == code);
        let (_, value) = value.ok_or("NoSuchResourceException")?;
        Ok(
            json!({ "Quota": { "ServiceCode": "ec2", "QuotaCode": code, "Value": value, "Unit": "None" } }),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_too_small_says_how_much_to_request() {
    let moto = Moto::open().await;
    moto.run(3).await;
    let canned = Canned::open().await.unwrap();
    let other = aws(&canned.url());
    let pool = moto.pool(&BY_TAG.replace("1000", "2"));
    let quota_of = async || {
        let findings = check_limits(&other, &pool.cloud, &pool.policy).await;
        let [only] = told(&findings, "quota")[..] else { panic!("{findings:?}") };
        let hint = only.problem.as_ref().and_then(|error| error.hint.clone()).unwrap_or_default();
        (only.is_warning, only.detail.clone(), hint)
    };
    // Two of the three boxes may be up, of 4 vCPUs each by moto's table of EC2's types.
    canned.answer("GetServiceQuota", quota(&[("L-DB2E81BA", 4.0)]));
    let (is_warning, detail, hint) = quota_of().await;
    assert!(!is_warning && detail.contains("pool gpu may need 8 vCPUs"), "{detail}");
    assert!(hint.contains("request 8 vCPUs of \"Running On-Demand G and VT instances\""), "{hint}");
    canned.answer("GetServiceQuota", quota(&[("L-DB2E81BA", 8.0)]));
    assert!(quota_of().await.1.contains("is 8 vCPUs"));
    // Never changed for this account: AWS's default is in force.
    canned.answer("GetServiceQuota", quota(&[]));
    canned.answer("GetAWSDefaultServiceQuota", quota(&[("L-DB2E81BA", 0.0)]));
    assert!(quota_of().await.1.ends_with("which is 0"));
    canned.answer("GetServiceQuota", |_| Err("AccessDeniedException".to_owned()));
    let (is_warning, _, hint) = quota_of().await;
    assert!(is_warning && hint.contains("servicequotas:GetServiceQuota"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_only_a_disk_with_a_customer_managed_key_needs_a_grant() {
    let boxes = Moto::open().await;
    let id = boxes.run(1).await.remove(0);
    let pool = boxes.pool(&format!("instances = [\"{id}\"]"));
    let canned = Canned::open().await.unwrap();
    let other = aws(&canned.url());
    let key = async || {
        let findings = check_limits(&other, &pool.cloud, &pool.policy).await;
        let [only] = told(&findings, "key")[..] else { panic!("{findings:?}") };
        let hint = only.problem.as_ref().and_then(|error| error.hint.clone()).unwrap_or_default();
        (only.problem.is_some(), only.is_warning, hint)
    };
    assert_eq!(key().await, (false, false, String::new()), "no disk is encrypted");
    attach_encrypted(&boxes, &id, "arn:aws:kms:us-east-1:123456789012:key/1234").await;
    let manager = |who: &'static str| {
        move |input: &Value| {
            let id = input["KeyId"].clone();
            Ok(json!({ "KeyMetadata": { "KeyId": id, "KeyManager": who, "Enabled": true } }))
        }
    };
    canned.answer("DescribeKey", manager("CUSTOMER"));
    let (_, is_warning, hint) = key().await;
    assert!(is_warning && hint.contains("kms:CreateGrant") && hint.contains("key/1234"), "{hint}");
    canned.answer("DescribeKey", manager("AWS"));
    assert_eq!(key().await, (false, false, String::new()));
    canned.answer("DescribeKey", |_| Err("AccessDeniedException".to_owned()));
    let (_, is_warning, hint) = key().await;
    assert!(is_warning && hint.contains("kms:DescribeKey"), "{hint}");
}

async fn attach_encrypted(boxes: &Moto, id: &str, key: &str) {
    let call = boxes.client.create_volume().availability_zone("us-east-1a").size(8);
    let volume = call.encrypted(true).kms_key_id(key).send().await.unwrap().volume_id.unwrap();
    let call = boxes.client.attach_volume().volume_id(volume).instance_id(id);
    call.device("/dev/sdf").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_in_kms_is_customer_managed() {
    let boxes = Moto::open().await;
    let aws = aws(&moto().await.url());
    let key = aws.kms().create_key().send().await.unwrap().key_metadata.unwrap().arn.unwrap();
    let disk = BlockDeviceMapping::builder()
        .device_name("/dev/sda1")
        .ebs(EbsBlockDevice::builder().volume_size(8).encrypted(true).kms_key_id(&key).build());
    let call = boxes.client.run_instances().image_id("ami-12c6146b").min_count(1).max_count(1);
    let call = call.instance_type(InstanceType::G4dnXlarge).block_device_mappings(disk.build());
    let id = call.send().await.unwrap().instances.unwrap().remove(0).instance_id.unwrap();
    let pool = boxes.pool(&format!("instances = [\"{id}\"]"));
    let findings = check_limits(&aws, &pool.cloud, &pool.policy).await;
    assert!(told(&findings, "key")[0].detail.contains(&key), "{findings:?}");
}
