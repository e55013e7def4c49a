//! What only `gpuctl doctor` reads: how many vCPUs a type has, and with which keys the boxes' disks are encrypted.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{InstanceType, VCpuInfo, VolumeAttachment};
use gpuctl_control::ports::PortError;

use super::listing::{FILTER_VALUES_MAX, filter};
use super::{Ec2Cloud, failed};
use crate::calls::show;

/// Types in one call.
const TYPES_MAX: usize = 100;

/// The vCPUs of these types; types that the region does not have are left out.
pub(crate) async fn vcpus(
    client: &Client,
    types: &BTreeSet<String>,
) -> Result<BTreeMap<String, u32>, PortError> {
    let mut all = BTreeMap::new();
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    for some in types.chunks(TYPES_MAX) {
        // By a filter, since one unknown name among `InstanceTypes` fails the whole call.
        let filter = filter("instance-type", some.iter().map(ToString::to_string).collect());
        let shown = some.join(",");
        show(format_args!(
            "ec2 describe-instance-types --filters Name=instance-type,Values={shown}"
        ));
        let call = client.describe_instance_types().filters(filter);
        let mut rows = call.into_paginator().items().send();
        while let Some(row) = rows.next().await {
            let row = row.map_err(|error| {
                let what = "the vCPUs of the boxes' types cannot be read".to_owned();
                failed("ec2:DescribeInstanceTypes", what, error)
            })?;
            let vcpus = row.v_cpu_info().and_then(VCpuInfo::default_v_cpus);
            let kind = row.instance_type().map(InstanceType::as_str);
            if let (Some(kind), Some(vcpus)) = (kind, vcpus.and_then(|n| u32::try_from(n).ok())) {
                all.insert(kind.to_owned(), vcpus);
            }
        }
    }
    Ok(all)
}

impl Ec2Cloud {
    /// As `vcpus`.
    pub(crate) async fn vcpus(
        &self,
        types: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, u32>, PortError> {
        vcpus(&self.client, types).await
    }

    /// The ids of the boxes that are stopped and started. Launched boxes are left out: each has new disks.
    pub(crate) async fn kept_instances(&self) -> Result<BTreeSet<String>, PortError> {
        self.with_listing(|last| {
            let kept = last.boxes.values().filter(|known| !known.is_launched);
            kept.map(|known| known.instance_id.clone()).collect()
        })
        .await
    }

    /// The keys with which disks of these instances are encrypted, each with the ids of its instances.
    pub(crate) async fn disk_keys(
        &self,
        instances: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, PortError> {
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let instances: Vec<String> = instances.iter().cloned().collect();
        for some in instances.chunks(FILTER_VALUES_MAX) {
            show(format_args!(
                "ec2 describe-volumes --filters Name=attachment.instance-id,Values={} Name=encrypted,Values=true",
                some.join(",")
            ));
            let call = self
                .client
                .describe_volumes()
                .filters(filter("attachment.instance-id", some.to_vec()))
                .filters(filter("encrypted", vec!["true".to_owned()]));
            let mut rows = call.into_paginator().items().send();
            while let Some(row) = rows.next().await {
                let row = row.map_err(|error| {
                    let what = "the boxes' disks cannot be read".to_owned();
                    failed("ec2:DescribeVolumes", what, error)
                })?;
                let Some(key) = row.kms_key_id() else { continue };
                let of = row.attachments().iter().filter_map(VolumeAttachment::instance_id);
                keys.entry(key.to_owned()).or_default().extend(of.map(str::to_owned));
            }
        }
        Ok(keys)
    }
}
