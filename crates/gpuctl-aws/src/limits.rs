//! What `gpuctl doctor` checks because EC2 would refuse starts for it: quotas smaller than the pools need, and disks' KMS keys.
//!
//! Quotas are in vCPUs, one for each group of instance families and each capacity type. Other instances of the account count
//! against them as well, and are not considered here.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_kms::types::{KeyManagerType, KeyMetadata};
use aws_sdk_servicequotas::types::ServiceQuota;
use gpuctl_control::ports::{Cloud, Listing, PortError, PortErrorClass};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::policy::{Boxes, Policy, Pool};
use gpuctl_core::units::PoolId;

use crate::Aws;
use crate::calls::show;
use crate::ec2::{Ec2Cloud, Finding};
use crate::error::{code, port_error};

/// Checks the quotas, and the keys of the boxes' disks.
pub async fn check_limits(aws: &Aws, ec2: &Ec2Cloud, policy: &Policy) -> Vec<Finding> {
    // Errors of the listing are reported by `Ec2Cloud::check`.
    let listing = ec2.boxes(policy).await.unwrap_or_default();
    let mut findings = quotas(aws, ec2, policy, &listing).await;
    findings.extend(keys(aws, ec2).await);
    findings
}

/// Families that share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    GAndVt,
    P,
    Standard,
}

/// A quota of Service Quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Quota {
    code: &'static str,
    name: &'static str,
}

const fn quota(code: &'static str, name: &'static str) -> Quota {
    Quota { code, name }
}

impl Group {
    /// The group of a type, by the letters before its generation, e.g. `g` of `g4dn.xlarge`.
    fn of(instance_type: &str) -> Option<Self> {
        let family = instance_type.split(|c: char| !c.is_ascii_lowercase()).next()?;
        match family {
            "g" | "gr" | "vt" => Some(Self::GAndVt),
            "p" => Some(Self::P),
            "a" | "c" | "d" | "h" | "i" | "im" | "is" | "m" | "r" | "t" | "z" => {
                Some(Self::Standard)
            }
            _ => None,
        }
    }

    /// The quota of a type of this group. On spot, P5 has a quota of its own, and that of later P generations is not known here.
    fn quota(self, capacity: CapacityType, instance_type: &str) -> Option<Quota> {
        match (self, capacity) {
            (Self::GAndVt, CapacityType::OnDemand) => {
                Some(quota("L-DB2E81BA", "Running On-Demand G and VT instances"))
            }
            (Self::GAndVt, CapacityType::Spot) => {
                Some(quota("L-3819A6DF", "All G and VT Spot Instance Requests"))
            }
            (Self::Standard, CapacityType::OnDemand) => Some(quota(
                "L-1216C47A",
                "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
            )),
            (Self::Standard, CapacityType::Spot) => Some(quota(
                "L-34B43A08",
                "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
            )),
            (Self::P, CapacityType::OnDemand) => {
                Some(quota("L-417A185B", "Running On-Demand P instances"))
            }
            (Self::P, CapacityType::Spot) => match instance_type.as_bytes().get(1)? {
                b'2'..=b'4' => {
                    Some(quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"))
                }
                b'5' => Some(quota("L-C4BD4855", "All P5 Spot Instance Requests")),
                _ => None,
            },
        }
    }
}

/// Code, name and value in vCPUs of the quota for boxes of a type; `None` if it is not known which that is.
#[cfg(feature = "deploy")]
pub(crate) async fn quota_of(
    aws: &Aws,
    instance_type: &str,
    capacity: CapacityType,
) -> Result<Option<(&'static str, &'static str, u32)>, PortError> {
    let group = Group::of(instance_type);
    let Some(quota) = group.and_then(|group| group.quota(capacity, instance_type)) else {
        return Ok(None);
    };
    Ok(Some((quota.code, quota.name, value(aws, quota).await?)))
}

/// What pools may need of each quota, in vCPUs.
#[derive(Default)]
struct Needs {
    by_quota: BTreeMap<Quota, BTreeMap<PoolId, u32>>,
    /// Types whose quota or vCPUs are not known.
    unknown: BTreeSet<String>,
}

async fn quotas(aws: &Aws, ec2: &Ec2Cloud, policy: &Policy, listing: &Listing) -> Vec<Finding> {
    let of_pools: Vec<(&Pool, Vec<Candidate>)> =
        policy.pools.iter().map(|pool| (pool, candidates(pool, listing))).collect();
    let types: BTreeSet<String> =
        of_pools.iter().flat_map(|(_, all)| all).map(|one| one.instance_type.clone()).collect();
    if types.is_empty() {
        return Vec::new();
    }
    let vcpus = match ec2.vcpus(&types).await {
        Ok(vcpus) => vcpus,
        Err(error) => return vec![Finding::doubtful("quota", error)],
    };
    let mut needs = Needs::default();
    for (pool, candidates) in &of_pools {
        needs.add(pool, candidates, &vcpus);
    }
    let mut findings: Vec<Finding> = needs.unknown.iter().map(|kind| unknown(kind)).collect();
    for (quota, of_pools) in &needs.by_quota {
        findings.push(match value(aws, *quota).await {
            Ok(value) => judge(*quota, value, of_pools),
            Err(error) => Finding::doubtful("quota", error),
        });
    }
    findings
}

/// A box that a pool may run.
struct Candidate {
    instance_type: String,
    capacity: CapacityType,
}

/// The boxes that exist; for a launched pool each type in each capacity type.
fn candidates(pool: &Pool, listing: &Listing) -> Vec<Candidate> {
    if let Some(Boxes::Launch(template)) = &pool.boxes {
        let of_type = |kind: &String| {
            let candidate = |capacity: &CapacityType| Candidate {
                instance_type: kind.clone(),
                capacity: *capacity,
            };
            pool.capacity.iter().map(candidate).collect::<Vec<_>>()
        };
        return template.instance_types.iter().flat_map(of_type).collect();
    }
    let seen = listing.pools.get(&pool.id).into_iter().flatten();
    let bought = seen.filter_map(|one| one.offering.as_ref());
    bought
        .map(|one| Candidate { instance_type: one.instance_type.clone(), capacity: one.capacity })
        .collect()
}

impl Needs {
    /// Adds the most vCPUs that the pool can use at once: those of its `boxes_max` largest boxes.
    fn add(&mut self, pool: &Pool, candidates: &[Candidate], vcpus: &BTreeMap<String, u32>) {
        let mut sizes: BTreeMap<Quota, Vec<u32>> = BTreeMap::new();
        for one in candidates {
            let kind = &one.instance_type;
            let quota = Group::of(kind).and_then(|group| group.quota(one.capacity, kind));
            match (quota, vcpus.get(kind)) {
                (Some(quota), Some(size)) => sizes.entry(quota).or_default().push(*size),
                _ => {
                    self.unknown.insert(kind.clone());
                }
            }
        }
        let boxes_max = pool.boxes_max.get();
        let is_launched = matches!(pool.boxes, Some(Boxes::Launch(_)));
        for (quota, mut sizes) in sizes {
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            let most = if is_launched {
                sizes.first().copied().unwrap_or_default().saturating_mul(boxes_max)
            } else {
                sizes.iter().take(usize::try_from(boxes_max).unwrap_or(usize::MAX)).sum()
            };
            self.by_quota.entry(quota).or_default().insert(pool.id.clone(), most);
        }
    }
}

/// The quota's value in this account and region; where it was never changed, AWS's default.
async fn value(aws: &Aws, quota: Quota) -> Result<u32, PortError> {
    let client = aws.quotas();
    let Quota { code: quota_code, name } = quota;
    let what = || format!("the quota \"{name}\" cannot be read");
    show(format_args!(
        "service-quotas get-service-quota --service-code ec2 --quota-code {quota_code}"
    ));
    let applied =
        client.get_service_quota().service_code("ec2").quota_code(quota_code).send().await;
    let quota = match applied {
        Ok(answer) => answer.quota,
        Err(error) if code(&error) == Some("NoSuchResourceException") => {
            show(format_args!(
                "service-quotas get-aws-default-service-quota --service-code ec2 --quota-code {quota_code}"
            ));
            let call =
                client.get_aws_default_service_quota().service_code("ec2").quota_code(quota_code);
            let answer = call.send().await.map_err(|error| {
                port_error("servicequotas:GetAWSDefaultServiceQuota", what(), error)
            })?;
            answer.quota
        }
        Err(error) => return Err(port_error("servicequotas:GetServiceQuota", what(), error)),
    };
    let value = quota.as_ref().and_then(ServiceQuota::value);
    value.and_then(whole).ok_or_else(|| PortError::new(PortErrorClass::Corrupt, what()))
}

/// Rounds down: AWS writes whole vCPUs as `16.0`.
fn whole(value: f64) -> Option<u32> {
    format!("{:.0}", value.floor()).parse().ok()
}

fn judge(quota: Quota, value: u32, of_pools: &BTreeMap<PoolId, u32>) -> Finding {
    let Quota { code, name } = quota;
    let together = of_pools.values().fold(0_u32, |sum, one| sum.saturating_add(*one));
    let ask =
        |vcpus: u32| format!("request {vcpus} vCPUs of \"{name}\" (Service Quotas, EC2, {code})");
    let short = |text: String, vcpus| PortError::new(PortErrorClass::Other, text).hint(ask(vcpus));
    if let Some((pool, need)) = of_pools.iter().find(|(_, need)| **need > value) {
        let text =
            format!("pool {pool} may need {need} vCPUs of \"{name}\" ({code}), which is {value}");
        return Finding::bad("quota", short(text, together));
    }
    if together > value {
        let pools: Vec<&str> = of_pools.keys().map(PoolId::as_str).collect();
        let text = format!(
            "pools {} may need {together} vCPUs of \"{name}\" ({code}) at once, which is {value}",
            pools.join(", ")
        );
        return Finding::doubtful("quota", short(text, together));
    }
    let text = format!("\"{name}\" ({code}) is {value} vCPUs, the pools may need {together}");
    Finding::good("quota", text)
}

fn unknown(instance_type: &str) -> Finding {
    let text = format!("gpuctl does not know the quota that {instance_type} counts against");
    Finding::doubtful(
        "quota",
        PortError::new(PortErrorClass::Other, text).hint(
            "check that the region has the type, and its family's quota in Service Quotas (EC2)",
        ),
    )
}

/// S1: a start by someone who may not use the disk's key returns 200, and the box falls back to stopped. No call tells in advance
/// who may: a dry run of `kms:CreateGrant` would fail where a policy allows it only on behalf of EC2.
async fn keys(aws: &Aws, ec2: &Ec2Cloud) -> Vec<Finding> {
    let instances = match ec2.kept_instances().await {
        Ok(instances) => instances,
        Err(error) => return vec![Finding::doubtful("key", error)],
    };
    if instances.is_empty() {
        return Vec::new();
    }
    let keys = match ec2.disk_keys(&instances).await {
        Ok(keys) => keys,
        Err(error) => return vec![Finding::doubtful("key", error)],
    };
    let mut findings = Vec::new();
    for (key, of) in &keys {
        findings.extend(match is_customer_managed(aws, key).await {
            Ok(true) => Some(Finding::doubtful("key", needs_a_grant(key, of))),
            Ok(false) => None,
            Err(error) => Some(Finding::doubtful("key", error)),
        });
    }
    if findings.is_empty() {
        let text =
            "no disk of a box has a customer managed key, so starts need no permission on keys";
        findings.push(Finding::good("key", text));
    }
    findings
}

async fn is_customer_managed(aws: &Aws, key: &str) -> Result<bool, PortError> {
    show(format_args!("kms describe-key --key-id {key}"));
    let answer = aws.kms().describe_key().key_id(key).send().await.map_err(|error| {
        port_error("kms:DescribeKey", format!("the disks' key {key} cannot be read"), error)
    })?;
    let manager = answer.key_metadata().and_then(KeyMetadata::key_manager);
    Ok(manager != Some(&KeyManagerType::Aws))
}

fn needs_a_grant(key: &str, instances: &BTreeSet<String>) -> PortError {
    let boxes: Vec<&str> = instances.iter().map(String::as_str).collect();
    let text = format!(
        "disks of {} are encrypted with your key {key}: a start without permission on it seems to work, and the box falls back to stopped",
        boxes.join(", ")
    );
    PortError::new(PortErrorClass::Other, text).hint(format!(
        "allow `kms:CreateGrant` on {key} for everyone who starts these boxes: this user or role, and that of the function"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::parse(&format!("[cloud]\nkind = \"aws\"\n{text}")).unwrap()
    }

    fn of(pools: &[(&str, u32)]) -> BTreeMap<PoolId, u32> {
        pools.iter().map(|(name, need)| (name.parse().unwrap(), *need)).collect()
    }

    #[test]
    fn each_type_counts_against_its_family_s_quota() {
        use CapacityType::{OnDemand, Spot};
        for (kind, capacity, expected) in [
            ("g4dn.xlarge", OnDemand, Some("L-DB2E81BA")),
            ("gr6.4xlarge", Spot, Some("L-3819A6DF")),
            ("vt1.3xlarge", Spot, Some("L-3819A6DF")),
            ("t3.large", OnDemand, Some("L-1216C47A")),
            ("im4gn.large", Spot, Some("L-34B43A08")),
            ("p4d.24xlarge", Spot, Some("L-7212CCBC")),
            ("p5.48xlarge", Spot, Some("L-C4BD4855")),
            ("p6-b200.48xlarge", Spot, None),
            ("p6-b200.48xlarge", OnDemand, Some("L-417A185B")),
            ("inf2.xlarge", OnDemand, None),
            ("u-6tb1.metal", OnDemand, None),
        ] {
            let quota = Group::of(kind).and_then(|group| group.quota(capacity, kind));
            assert_eq!(quota.map(|quota| quota.code), expected, "{kind} {capacity}");
        }
    }

    #[test]
    fn a_launched_pool_needs_its_largest_type_for_every_box_in_both_markets() {
        let policy = policy(
            "[pool.gpu]\nlaunch_template = \"t\"\ninstance_types = [\"g4dn.xlarge\", \"g5.2xlarge\"]\nboxes_max = 3",
        );
        let pool = &policy.pools[0];
        let vcpus = BTreeMap::from([("g4dn.xlarge".to_owned(), 4), ("g5.2xlarge".to_owned(), 8)]);
        let mut needs = Needs::default();
        needs.add(pool, &candidates(pool, &Listing::default()), &vcpus);
        let found: Vec<_> = needs.by_quota.iter().map(|(quota, of)| (quota.code, of)).collect();
        let gpu = of(&[("gpu", 24)]);
        assert_eq!(found, [("L-3819A6DF", &gpu), ("L-DB2E81BA", &gpu)]);
        assert!(needs.unknown.is_empty());
    }

    #[test]
    fn a_quota_that_one_pool_exceeds_fails_and_one_that_all_exceed_together_warns() {
        let quota = quota("L-DB2E81BA", "Running On-Demand G and VT instances");
        let too_small = judge(quota, 0, &of(&[("app", 4), ("gpu", 8)]));
        let too_small_detail = too_small.detail.clone();
        let error = too_small.problem.unwrap();
        assert!(!too_small.is_warning && error.hint.unwrap().contains("request 12 vCPUs"));
        let tight = judge(quota, 8, &of(&[("app", 4), ("gpu", 8)]));
        assert!(tight.is_warning && tight.detail.contains("app, gpu"), "{tight:?}");
        let enough = judge(quota, 12, &of(&[("app", 4), ("gpu", 8)]));
        assert!(enough.problem.is_none());
        for one in [too_small_detail, tight.detail, enough.detail] {
            assert!(one.contains("L-DB2E81BA"), "{one}");
        }
    }

    #[test]
    fn a_value_with_decimals_is_read_as_whole_vcpus() {
        assert_eq!(
            [whole(16.0), whole(0.0), whole(7.9), whole(-1.0)],
            [Some(16), Some(0), Some(7), None]
        );
    }
}
