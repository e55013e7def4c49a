//! Launches a box from a template, by a fleet of the type `instant`: EC2 chooses among types and zones, and the response says
//! at once whether there is a box.

use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::types::builders::FleetLaunchTemplateSpecificationRequestBuilder;
use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, FleetLaunchTemplateConfigRequest,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
    FleetOnDemandAllocationStrategy, FleetType, InstanceType, OnDemandOptionsRequest, ResourceType,
    SpotAllocationStrategy, SpotOptionsRequest, Tag, TagSpecification,
    TargetCapacitySpecificationRequest,
};
use gpuctl_control::ports::{PortError, StartOrder};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::policy::LaunchTemplate;

use super::{Ec2Cloud, failed, listing, refusal, seen};
use crate::calls::show;

impl Ec2Cloud {
    pub(super) async fn launch(
        &self,
        template: &LaunchTemplate,
        order: &StartOrder,
    ) -> Result<(), PortError> {
        let of_slot =
            [(seen::POOL_TAG, order.pool.as_str()), (seen::BOX_TAG, order.box_id.as_str())];
        let filters = of_slot.map(|(key, value)| listing::by_tag(key, vec![value.to_owned()]));
        if self.is_done(order, filters.to_vec()).await? {
            return Ok(());
        }
        show(format_args!(
            "ec2 create-fleet --type instant --launch-template-configs {} --target-capacity-specification TotalTargetCapacity=1,DefaultTargetCapacityType={}",
            cli_words(template),
            capacity_of(order)
        ));
        let what = || format!("box {} was not launched", order.box_id);
        let fleet = self
            .fleet(template, order)
            .send()
            .await
            .map_err(|error| failed("ec2:CreateFleet", what(), error))?;
        let launched = fleet.instances().iter().any(|some| !some.instance_ids().is_empty());
        if launched {
            return Ok(());
        }
        // An instant fleet that launched nothing returns 200, with the reasons in the body.
        let worst = fleet
            .errors()
            .iter()
            .find(|error| error.error_code().is_some_and(|code| refusal::class(code).is_some()));
        let worst = worst.or_else(|| fleet.errors().first());
        let code = worst.and_then(|error| error.error_code()).unwrap_or("UnfulfillableCapacity");
        let message =
            worst.and_then(|error| error.error_message()).unwrap_or("no instance was launched");
        Err(refusal::refusal(what(), code, message))
    }

    pub(super) fn fleet(
        &self,
        template: &LaunchTemplate,
        order: &StartOrder,
    ) -> CreateFleetFluentBuilder {
        let capacity = capacity_of(order);
        let kind = match capacity {
            CapacityType::Spot => DefaultTargetCapacityType::Spot,
            CapacityType::OnDemand => DefaultTargetCapacityType::OnDemand,
        };
        let target = TargetCapacitySpecificationRequest::builder()
            .total_target_capacity(1)
            .default_target_capacity_type(kind)
            .build();
        self.once
            .create_fleet()
            .r#type(FleetType::Instant)
            .client_token(seen::order_hash(&order.token))
            .target_capacity_specification(target)
            .launch_template_configs(choices(template))
            .tag_specifications(tags(order))
            // The cheapest among the pools that are least likely to be interrupted: what the EC2 User Guide recommends
            // ("Use allocation strategies to determine how EC2 Fleet or Spot Fleet fulfills Spot and On-Demand capacity").
            .spot_options(
                SpotOptionsRequest::builder()
                    .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
                    .build(),
            )
            // The policy lists types in order of preference. For spot, EC2's own order applies.
            .on_demand_options(
                OnDemandOptionsRequest::builder()
                    .allocation_strategy(FleetOnDemandAllocationStrategy::Prioritized)
                    .build(),
            )
    }
}

/// The choices as arguments of the AWS CLI.
fn cli_words(template: &LaunchTemplate) -> String {
    let subnets =
        if template.subnets.is_empty() { vec![String::new()] } else { template.subnets.clone() };
    let choice = |kind: &String, subnet: &String| match subnet.as_str() {
        "" => format!("{{InstanceType={kind}}}"),
        subnet => format!("{{InstanceType={kind},SubnetId={subnet}}}"),
    };
    let choices = template
        .instance_types
        .iter()
        .flat_map(|kind| subnets.iter().map(move |one| choice(kind, one)));
    let name =
        if template.name.starts_with("lt-") { "LaunchTemplateId" } else { "LaunchTemplateName" };
    format!(
        "'LaunchTemplateSpecification={{{name}={},Version={}}},Overrides=[{}]'",
        template.name,
        template.version.as_deref().unwrap_or("$Default"),
        choices.collect::<Vec<_>>().join(",")
    )
}

/// The capacity type of the order's slot, which is part of the slot's name.
fn capacity_of(order: &StartOrder) -> CapacityType {
    let rest = order.box_id.as_str().strip_prefix(order.pool.as_str()).unwrap_or_default();
    if rest.starts_with("-spot-") { CapacityType::Spot } else { CapacityType::OnDemand }
}

/// Each type in each subnet; earlier types have priority.
fn choices(template: &LaunchTemplate) -> FleetLaunchTemplateConfigRequest {
    let subnets: Vec<Option<String>> = if template.subnets.is_empty() {
        vec![None]
    } else {
        template.subnets.iter().cloned().map(Some).collect()
    };
    let mut config =
        FleetLaunchTemplateConfigRequest::builder().launch_template_specification(spec(template));
    for (rank, kind) in (0_u32..).zip(&template.instance_types) {
        for subnet in &subnets {
            let choice = FleetLaunchTemplateOverridesRequest::builder()
                .instance_type(InstanceType::from(kind.as_str()))
                .set_subnet_id(subnet.clone())
                .priority(f64::from(rank))
                .build();
            config = config.overrides(choice);
        }
    }
    config.build()
}

fn spec(template: &LaunchTemplate) -> FleetLaunchTemplateSpecificationRequest {
    let version = template.version.as_deref().unwrap_or("$Default");
    let spec: FleetLaunchTemplateSpecificationRequestBuilder =
        FleetLaunchTemplateSpecificationRequest::builder().version(version);
    if template.name.starts_with("lt-") {
        spec.launch_template_id(&template.name).build()
    } else {
        spec.launch_template_name(&template.name).build()
    }
}

/// The tags by which listings know the box as ours from its first second.
fn tags(order: &StartOrder) -> TagSpecification {
    let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build();
    TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(tag(seen::POOL_TAG, order.pool.to_string()))
        .tags(tag(seen::BOX_TAG, order.box_id.to_string()))
        .tags(tag(seen::STARTED_TAG, seen::tag_time(order.at)))
        .tags(tag(seen::ORDER_TAG, seen::order_hash(&order.token)))
        .tags(tag("Name", format!("gpuctl {}", order.box_id)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_equal_orders_have_equal_tokens_and_they_fit() {
        let (a, b) = (seen::order_hash("gpu/gpu-spot-1/17"), seen::order_hash("gpu/gpu-spot-1/18"));
        assert_eq!(a, seen::order_hash("gpu/gpu-spot-1/17"));
        assert!(a != b && a.len() == 64 && a.is_ascii());
    }

    #[test]
    fn a_slots_name_says_how_it_is_bought_whatever_the_pool_is_called() {
        let order = |pool: &str, id: &str| StartOrder {
            pool: pool.parse().unwrap(),
            box_id: id.parse().unwrap(),
            at: gpuctl_core::units::Timestamp::UNIX_EPOCH,
            token: String::new(),
        };
        assert_eq!(capacity_of(&order("gpu", "gpu-spot-1")), CapacityType::Spot);
        assert_eq!(capacity_of(&order("a-spot-b", "a-spot-b-on-demand-1")), CapacityType::OnDemand);
    }

    #[test]
    fn every_type_is_asked_for_in_every_subnet() {
        let template = LaunchTemplate {
            name: "lt-1".into(),
            version: None,
            instance_types: vec!["g4dn.xlarge".into(), "g5.xlarge".into()],
            subnets: vec!["subnet-a".into(), "subnet-b".into()],
        };
        assert_eq!(choices(&template).overrides().len(), 4);
        assert_eq!(spec(&template).launch_template_id(), Some("lt-1"));
    }
}
