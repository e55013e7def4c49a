//! The actions that gpuctl calls: from a query to EC2, and from its result to XML.

use std::collections::BTreeMap;

use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;

use super::query::Query;
use super::xml;
use crate::world::ec2::{
    CreateFleet, Describe, Ec2, Ec2Error, Ec2StopMode, MarketOptions, RunInstances,
    ShutdownBehaviour, SpotKind, SpotOptions,
};

/// A subnet is named after its zone here: `subnet-us-east-1a`.
pub(super) const SUBNET: &str = "subnet-";

/// The actions that are simulated, also where another emulator has the launch templates.
pub(super) const SIMULATED: [&str; 9] = [
    "CancelSpotInstanceRequests",
    "CreateFleet",
    "CreateTags",
    "DescribeInstances",
    "DescribeSpotInstanceRequests",
    "RunInstances",
    "StartInstances",
    "StopInstances",
    "TerminateInstances",
];

pub(super) fn call(
    ec2: &mut Ec2,
    now: Timestamp,
    action: &str,
    query: &Query,
) -> Result<String, Ec2Error> {
    ec2.advance(now);
    let ids = || query.list("InstanceId");
    let inside = match action {
        "DescribeInstances" => {
            let page = ec2.describe_instances(now, &describe(query, "InstanceId"))?;
            xml::instances(&page.rows, page.next_token.as_deref())
        }
        "DescribeSpotInstanceRequests" => {
            let wanted = describe(query, "SpotInstanceRequestId");
            let page = ec2.describe_spot_instance_requests(now, &wanted)?;
            xml::requests(&page.rows, page.next_token.as_deref())
        }
        "StartInstances" => xml::changes(&ec2.start_instances(now, &ids())?),
        "StopInstances" => {
            let forced = query.text("Force") == Some("true");
            let mode = if forced { Ec2StopMode::Force } else { Ec2StopMode::Shutdown };
            xml::changes(&ec2.stop_instances(now, &ids(), mode)?)
        }
        "TerminateInstances" => xml::changes(&ec2.terminate_instances(now, &ids())?),
        "CancelSpotInstanceRequests" => {
            let ids = query.list("SpotInstanceRequestId");
            xml::cancelled(&ec2.cancel_spot_instance_requests(now, &ids)?)
        }
        "CreateTags" => {
            ec2.create_tags(now, &query.list("ResourceId"), &query.tags("Tag"))?;
            xml::text("return", "true")
        }
        "CreateFleet" => xml::fleet(&ec2.create_fleet(now, &fleet(query)?)?),
        "DescribeLaunchTemplateVersions" => {
            let id = query.text("LaunchTemplateId").unwrap_or_default();
            xml::template_version(ec2.template(id)?)
        }
        "RunInstances" => {
            let rows = ec2.run_instances(now, &run(query))?;
            xml::list("instancesSet", rows.iter().map(xml::instance))
        }
        _ => {
            let message = format!("The action {action} is not valid for this web service.");
            return Err(Ec2Error { code: "InvalidAction", message, http_status: 400 });
        }
    };
    Ok(xml::response(action, &inside))
}

fn describe(query: &Query, ids: &str) -> Describe {
    let filter = |item: String| {
        let name = query.text(&format!("{item}.Name")).unwrap_or_default().to_owned();
        (name, query.list(&format!("{item}.Value")))
    };
    Describe {
        ids: query.list(ids),
        filters: query.items("Filter").into_iter().map(filter).collect(),
        max_results: query.number("MaxResults"),
        next_token: query.text("NextToken").map(str::to_owned),
    }
}

/// The tags that are meant for instances.
fn instance_tags(query: &Query) -> BTreeMap<String, String> {
    let of_instances =
        |item: &String| query.text(&format!("{item}.ResourceType")) == Some("instance");
    let items = query.items("TagSpecification").into_iter().filter(of_instances);
    items.flat_map(|item| query.tags(&format!("{item}.Tag"))).collect()
}

fn fleet(query: &Query) -> Result<CreateFleet, Ec2Error> {
    if query.text("Type") != Some("instant") {
        let message = "Only fleets of type instant are simulated".to_owned();
        return Err(Ec2Error { code: "UnsupportedOperation", message, http_status: 400 });
    }
    let spec = "LaunchTemplateConfigs.1.LaunchTemplateSpecification";
    let template = query
        .text(&format!("{spec}.LaunchTemplateName"))
        .or_else(|| query.text(&format!("{spec}.LaunchTemplateId")));
    let choice = |item: String| {
        let subnet = query.text(&format!("{item}.SubnetId"));
        let zone = subnet.map(|subnet| subnet.trim_start_matches(SUBNET).to_owned());
        (query.text(&format!("{item}.InstanceType")).map(str::to_owned), zone)
    };
    let target = "TargetCapacitySpecification";
    let is_spot = query.text(&format!("{target}.DefaultTargetCapacityType")) == Some("spot");
    let count = query.number(&format!("{target}.TotalTargetCapacity")).unwrap_or(1);
    Ok(CreateFleet {
        client_token: query.text("ClientToken").map(str::to_owned),
        launch_template: template.unwrap_or_default().to_owned(),
        overrides: query
            .items("LaunchTemplateConfigs.1.Overrides")
            .into_iter()
            .map(choice)
            .collect(),
        market: if is_spot { CapacityType::Spot } else { CapacityType::OnDemand },
        target: u32::try_from(count).unwrap_or(u32::MAX),
        tags: instance_tags(query),
    })
}

fn run(query: &Query) -> RunInstances {
    let market = "InstanceMarketOptions";
    let is_spot = query.text(&format!("{market}.MarketType")) == Some("spot");
    let is_persistent =
        query.text(&format!("{market}.SpotOptions.SpotInstanceType")) == Some("persistent");
    let kind = if is_persistent { SpotKind::Persistent } else { SpotKind::OneTime };
    let terminates = query.text("InstanceInitiatedShutdownBehavior") == Some("terminate");
    RunInstances {
        client_token: query.text("ClientToken").map(str::to_owned),
        launch_template: query.text("LaunchTemplate.LaunchTemplateName").map(str::to_owned),
        image_id: query.text("ImageId").map(str::to_owned),
        instance_type: query.text("InstanceType").map(str::to_owned),
        zone: query.text("Placement.AvailabilityZone").map(str::to_owned),
        market: is_spot.then_some(MarketOptions::Spot(SpotOptions { kind, valid_until: None })),
        count: query.number("MinCount").and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        tags: instance_tags(query),
        shutdown: if terminates { ShutdownBehaviour::Terminate } else { ShutdownBehaviour::Stop },
    }
}
