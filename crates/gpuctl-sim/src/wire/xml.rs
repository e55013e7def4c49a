//! The XML of responses, with the elements of the EC2 API Reference.

use std::fmt::Write as _;

use chrono::SecondsFormat;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;
use quick_xml::escape::escape;

use crate::world::ec2::{
    FleetResult, Instance, LaunchTemplate, SpotKind, SpotRequest, StateChange,
};

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// A complete response.
pub(super) fn response(action: &str, inside: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{NAMESPACE}\">\
         <requestId>00000000-0000-0000-0000-000000000000</requestId>{inside}</{action}Response>"
    )
}

pub(super) fn error(code: &str, message: &str) -> String {
    let error = element("Error", &[text("Code", code), text("Message", message)].concat());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors>{error}</Errors>\
         <RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    )
}

pub(super) fn element(name: &str, inside: &str) -> String {
    format!("<{name}>{inside}</{name}>")
}

pub(super) fn text(name: &str, value: &str) -> String {
    element(name, &escape(value))
}

pub(super) fn list(name: &str, items: impl Iterator<Item = String>) -> String {
    let mut inside = String::new();
    for item in items {
        let _ = write!(inside, "<item>{item}</item>");
    }
    element(name, &inside)
}

fn time(name: &str, at: Timestamp) -> String {
    // EC2 writes whole seconds.
    text(name, &at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn maybe(name: &str, value: Option<&str>) -> String {
    value.map(|value| text(name, value)).unwrap_or_default()
}

pub(super) fn instances(rows: &[Instance], next_token: Option<&str>) -> String {
    let reservation = |one: &Instance| {
        let id = format!("r-{}", one.id.trim_start_matches("i-"));
        [text("reservationId", &id), list("instancesSet", std::iter::once(instance(one)))].concat()
    };
    [list("reservationSet", rows.iter().map(reservation)), maybe("nextToken", next_token)].concat()
}

pub(super) fn instance(one: &Instance) -> String {
    let state =
        [text("code", &one.state.code().to_string()), text("name", one.state.name())].concat();
    let reason = one.state_reason.as_ref().map(|reason| {
        element(
            "stateReason",
            &[text("code", reason.code), text("message", &reason.message)].concat(),
        )
    });
    let is_spot = one.market == CapacityType::Spot;
    let tag = |(key, value): (&String, &String)| [text("key", key), text("value", value)].concat();
    [
        text("instanceId", &one.id),
        text("imageId", &one.image_id),
        element("instanceState", &state),
        text("reason", &one.state_transition_reason),
        text("instanceType", &one.instance_type),
        time("launchTime", one.launch_time),
        element("placement", &text("availabilityZone", &one.zone)),
        reason.unwrap_or_default(),
        maybe("instanceLifecycle", is_spot.then_some("spot")),
        maybe("spotInstanceRequestId", one.spot_request_id.as_deref()),
        maybe("clientToken", one.client_token.as_deref()),
        list("tagSet", one.tags.iter().map(tag)),
    ]
    .concat()
}

pub(super) fn changes(rows: &[StateChange]) -> String {
    let state = |name: &str, state: crate::world::ec2::InstanceState| {
        element(
            name,
            &[text("code", &state.code().to_string()), text("name", state.name())].concat(),
        )
    };
    let change = |one: &StateChange| {
        [
            text("instanceId", &one.id),
            state("currentState", one.current),
            state("previousState", one.previous),
        ]
        .concat()
    };
    list("instancesSet", rows.iter().map(change))
}

pub(super) fn requests(rows: &[SpotRequest], next_token: Option<&str>) -> String {
    [list("spotInstanceRequestSet", rows.iter().map(request)), maybe("nextToken", next_token)]
        .concat()
}

fn request(one: &SpotRequest) -> String {
    let kind = match one.kind {
        SpotKind::OneTime => "one-time",
        SpotKind::Persistent => "persistent",
    };
    let status = [
        text("code", one.status_code),
        time("updateTime", one.status_at),
        text("message", one.status_code),
    ];
    [
        text("spotInstanceRequestId", &one.id),
        text("type", kind),
        text("state", one.state.name()),
        element("status", &status.concat()),
        maybe("instanceId", one.instance_id.as_deref()),
        text("launchedAvailabilityZone", &one.zone),
        time("createTime", one.created_at),
        one.valid_until.map(|at| time("validUntil", at)).unwrap_or_default(),
    ]
    .concat()
}

pub(super) fn cancelled(rows: &[SpotRequest]) -> String {
    let row = |one: &SpotRequest| {
        [text("spotInstanceRequestId", &one.id), text("state", one.state.name())].concat()
    };
    list("spotInstanceRequestSet", rows.iter().map(row))
}

/// The newest version of a launch template, the only one that is kept.
pub(super) fn template_version(one: &LaunchTemplate) -> String {
    let data = [text("imageId", &one.image_id), text("instanceType", &one.instance_type)].concat();
    let version = [
        text("launchTemplateId", &one.id),
        text("launchTemplateName", &one.name),
        text("versionNumber", &one.version.to_string()),
        element("launchTemplateData", &data),
    ];
    list("launchTemplateVersionSet", std::iter::once(version.concat()))
}

pub(super) fn fleet(result: &FleetResult) -> String {
    let instance = |one: &Instance| {
        let ids = list("instanceIds", std::iter::once(escape(&one.id).into_owned()));
        let lifecycle = if one.market == CapacityType::Spot { "spot" } else { "on-demand" };
        [text("lifecycle", lifecycle), ids, text("instanceType", &one.instance_type)].concat()
    };
    let error = |(refused, kind, zone): &(crate::world::ec2::Ec2Error, String, String)| {
        let overrides = [text("instanceType", kind), text("availabilityZone", zone)].concat();
        [
            element("launchTemplateAndOverrides", &element("overrides", &overrides)),
            text("errorCode", refused.code),
            text("errorMessage", &refused.message),
        ]
        .concat()
    };
    [
        text("fleetId", &result.fleet_id),
        list("fleetInstanceSet", result.instances.iter().map(instance)),
        list("errorSet", result.errors.iter().map(error)),
    ]
    .concat()
}
