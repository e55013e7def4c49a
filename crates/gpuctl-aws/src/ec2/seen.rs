//! What an instance and its spot request say about a box. Pure: each trap of EC2's responses has a test here, without EC2.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    Instance, InstanceLifecycleType, InstanceStateName, SpotInstanceRequest, SpotInstanceState,
    SpotInstanceType,
};
use chrono::{DateTime, NaiveDateTime, TimeDelta};
use gpuctl_control::text::hexadecimal;
use gpuctl_core::observation::{BoxState, Foreign, HoldWants, SeenBox};
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::units::{BoxId, Timestamp};
use sha2::{Digest, Sha256};

pub(super) use crate::tags::{BOX_TAG, STOPPED_TAG, tag_time};

/// The pool that a box was launched for.
pub(super) const POOL_TAG: &str = "gpuctl:pool";
/// When gpuctl last asked the box to start: the key of its run, also when the ledger is lost (R6).
pub(super) const STARTED_TAG: &str = "gpuctl:started";
/// The hash of that order's token: the same order given again does nothing.
pub(super) const ORDER_TAG: &str = "gpuctl:order";

/// How far a start or stop may lie from our order and still follow from it: calls are retried for seconds, and clocks differ.
const OURS_WITHIN: TimeDelta = TimeDelta::minutes(5);
/// How long before an interruption EC2 gives notice (EC2 User Guide, "Spot Instance interruption notices").
const NOTICE: TimeDelta = TimeDelta::minutes(2);

/// An order's token as a tag's value and as a client token, which may have 64 characters of ASCII at most: a hash, so that equal
/// orders still have equal tokens.
pub(super) fn order_hash(token: &str) -> String {
    hexadecimal(&Sha256::digest(token.as_bytes()))
}

/// The value of one of an instance's tags.
pub(super) fn tag<'a>(instance: &'a Instance, key: &str) -> Option<&'a str> {
    instance.tags().iter().find(|tag| tag.key() == Some(key))?.value()
}

/// Whether the instance is spot.
pub(super) fn is_spot(instance: &Instance) -> bool {
    instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot)
}

/// Whether it is terminated or being terminated; EC2 lists it for about an hour more.
pub(super) fn is_terminated(instance: &Instance) -> bool {
    matches!(
        state_name(instance),
        Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown)
    )
}

/// Whether it is off and can be started again.
pub(super) fn is_stopped(instance: &Instance) -> bool {
    state_name(instance) == Some(&InstanceStateName::Stopped)
}

pub(super) fn is_stopping(instance: &Instance) -> bool {
    state_name(instance) == Some(&InstanceStateName::Stopping)
}

fn state_name(instance: &Instance) -> Option<&InstanceStateName> {
    instance.state()?.name()
}

/// Spot requests by id.
pub(super) type Requests = BTreeMap<String, SpotInstanceRequest>;

/// The instance's spot request, if it has one and EC2 listed it.
pub(super) fn request<'r>(
    instance: &Instance,
    requests: &'r Requests,
) -> Option<&'r SpotInstanceRequest> {
    requests.get(instance.spot_instance_request_id()?)
}

/// The box as EC2 shows it at `now`.
pub(super) fn seen_box(
    id: BoxId,
    instance: &Instance,
    requests: &Requests,
    now: Timestamp,
) -> SeenBox {
    let request = request(instance, requests);
    let state = state(instance);
    let launched_at = time(instance.launch_time()).unwrap_or(now);
    let known_end = ended_at(instance, request);
    let ended_at = known_end.unwrap_or(now);
    let since = if matches!(state, BoxState::Pending | BoxState::Running) {
        launched_at
    } else {
        ended_at.max(launched_at)
    };
    SeenBox {
        last_error: if state == BoxState::Stopped { start_failure(instance) } else { None },
        run_started_at: Some(started_at(instance, launched_at)),
        offering: offering(instance),
        interruption: interruption(instance, request, ended_at),
        foreign: foreign(instance, state, launched_at, known_end),
        unstartable: unstartable(instance, request),
        ..SeenBox::new(id, state, since)
    }
}

fn state(instance: &Instance) -> BoxState {
    match state_name(instance) {
        Some(InstanceStateName::Pending) => BoxState::Pending,
        Some(InstanceStateName::Running) => BoxState::Running,
        Some(InstanceStateName::Stopped | InstanceStateName::Terminated) => BoxState::Stopped,
        // Also states that this version does not know: such a box is neither started nor counted as capacity.
        _ => BoxState::Stopping,
    }
}

/// The type, zone and capacity type that the box is billed as.
pub(super) fn offering(instance: &Instance) -> Option<Offering> {
    let zone = instance.placement()?.availability_zone()?.to_owned();
    let instance_type = instance.instance_type()?.as_str().to_owned();
    let capacity = if is_spot(instance) { CapacityType::Spot } else { CapacityType::OnDemand };
    Some(Offering { instance_type, zone, capacity })
}

fn time(time: Option<&aws_sdk_ec2::primitives::DateTime>) -> Option<Timestamp> {
    let time = time?;
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}

fn tagged(instance: &Instance, key: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc3339(tag(instance, key)?).ok().map(|at| at.to_utc())
}

/// The key of the box's latest run: the time of our order if the start followed from it, else the start itself.
fn started_at(instance: &Instance, launched_at: Timestamp) -> Timestamp {
    let ours = tagged(instance, STARTED_TAG);
    ours.filter(|ordered| is_ours(*ordered, launched_at)).unwrap_or(launched_at)
}

/// Whether what happened at `at` follows from our order. EC2's times are whole seconds, so it may seem to precede the order.
fn is_ours(ordered: Timestamp, at: Timestamp) -> bool {
    let after = at - ordered;
    -OURS_WITHIN <= after && after <= OURS_WITHIN
}

/// When the box stopped: from EC2's text `User initiated (2026-11-21 10:00:00 GMT)`, else from its spot request, else from our
/// order.
fn ended_at(instance: &Instance, request: Option<&SpotInstanceRequest>) -> Option<Timestamp> {
    let reason = instance.state_transition_reason().unwrap_or_default();
    let inside = reason.split_once('(').and_then(|(_, rest)| rest.split_once(" GMT"));
    let by_reason = inside
        .and_then(|(text, _)| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok())
        .map(|at| at.and_utc());
    let by_request = || time(request?.status()?.update_time());
    let by_tag = || tagged(instance, STOPPED_TAG);
    by_reason.or_else(by_request).or_else(by_tag)
}

fn reason_code(instance: &Instance) -> &str {
    instance.state_reason().and_then(|reason| reason.code()).unwrap_or_default()
}

/// Why a start failed that EC2 had accepted (S1).
fn start_failure(instance: &Instance) -> Option<String> {
    let code = reason_code(instance);
    let hint = match code {
        ""
        | "Client.UserInitiatedShutdown"
        | "Client.InstanceInitiatedShutdown"
        | "Client.UserInitiatedHibernate"
        | "Server.SpotInstanceShutdown"
        | "Server.SpotInstanceTermination" => return None,
        "Client.InternalError" => {
            "; usually the caller lacks kms:CreateGrant on the disk's KMS key"
        }
        "Client.VolumeLimitExceeded" => "; ask for a higher limit on EBS volumes",
        _ => "",
    };
    let message = instance.state_reason().and_then(|reason| reason.message()).unwrap_or(code);
    Some(format!("EC2 ended the start: {message}{hint}"))
}

fn status_code(request: &SpotInstanceRequest) -> &str {
    request.status().and_then(|status| status.code()).unwrap_or_default()
}

/// When EC2 will interrupt the box, or interrupted it.
fn interruption(
    instance: &Instance,
    request: Option<&SpotInstanceRequest>,
    ended_at: Timestamp,
) -> Option<Timestamp> {
    if reason_code(instance).starts_with("Server.SpotInstance") {
        return Some(ended_at);
    }
    let marked = request.filter(|request| status_code(request).starts_with("marked-for-"))?;
    // A stop of our own marks the request as well, until the request is disabled (P2).
    let ours = tagged(instance, STOPPED_TAG);
    let marked_at = time(marked.status()?.update_time())?;
    let is_running = state_name(instance) == Some(&InstanceStateName::Running);
    let by_us = ours.is_some_and(|ordered| is_ours(ordered, marked_at));
    (is_running && !by_us).then_some(marked_at + NOTICE)
}

/// A start or stop outside gpuctl: one that follows neither from an order of gpuctl nor from a shutdown inside the box (R1).
fn foreign(
    instance: &Instance,
    state: BoxState,
    launched_at: Timestamp,
    ended_at: Option<Timestamp>,
) -> Option<Foreign> {
    let (wants, at, ours) = match state {
        BoxState::Pending | BoxState::Running => {
            (HoldWants::Running, Some(launched_at), tagged(instance, STARTED_TAG))
        }
        BoxState::Stopping | BoxState::Stopped => {
            if is_terminated(instance) || reason_code(instance) != "Client.UserInitiatedShutdown" {
                return None;
            }
            (HoldWants::Stopped, ended_at, tagged(instance, STOPPED_TAG))
        }
    };
    let by_us = ours.zip(at).is_some_and(|(ordered, at)| is_ours(ordered, at));
    (!by_us).then(|| Foreign { wants, at, by: "an unknown user".to_owned() })
}

/// Why a stopped box cannot be started; a start itself would fail with an error that says less.
fn unstartable(instance: &Instance, request: Option<&SpotInstanceRequest>) -> Option<String> {
    if is_terminated(instance) {
        return Some("was terminated: remove it from the configuration".to_owned());
    }
    if state(instance) != BoxState::Stopped || !is_spot(instance) {
        return None;
    }
    let Some(request) = request else {
        return Some(
            "has a spot request that EC2 does not show: end the box with `gpuctl retire`"
                .to_owned(),
        );
    };
    let why = match (request.state(), status_code(request)) {
        (Some(SpotInstanceState::Disabled), "instance-stopped-by-user") => return None,
        // P4, P18: only EC2 can start a box that EC2 has stopped.
        (Some(SpotInstanceState::Disabled), _) => {
            "was stopped by EC2, which starts it again when there is capacity"
        }
        (Some(SpotInstanceState::Open), _) => "waits for spot capacity: EC2 is about to start it",
        // P2: EC2 accepts a start only once the request is disabled.
        (Some(SpotInstanceState::Active), _) => {
            "has only just stopped: its spot request is still active"
        }
        // P7
        _ => {
            "has a spot request that was cancelled: it can never start again; `gpuctl retire` it and make a new one"
        }
    };
    Some(why.to_owned())
}

/// Whether the box can be stopped at all (P1).
pub(super) fn is_one_time(request: &SpotInstanceRequest) -> bool {
    request.r#type() == Some(&SpotInstanceType::OneTime)
}

/// Whether the request is still open although its box was terminated: EC2 would launch another one for it (P5, P15).
pub(super) fn is_orphaned(instance: &Instance, request: &SpotInstanceRequest) -> bool {
    is_terminated(instance)
        && !is_one_time(request)
        && matches!(
            request.state(),
            Some(SpotInstanceState::Open | SpotInstanceState::Active | SpotInstanceState::Disabled)
        )
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::primitives::DateTime as Sdk;
    use aws_sdk_ec2::types::{
        InstanceState, InstanceType, Placement, SpotInstanceStatus, StateReason, Tag,
    };

    use super::*;

    const LAUNCHED: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(LAUNCHED + seconds, 0).unwrap()
    }

    /// An instance that gpuctl started, with what EC2 adds in `state` and its reason.
    fn instance(
        state: InstanceStateName,
        code: &str,
    ) -> aws_sdk_ec2::types::builders::InstanceBuilder {
        let tag = |key: &str, at| Tag::builder().key(key).value(tag_time(at)).build();
        let stopped = at(600).format("User initiated (%Y-%m-%d %H:%M:%S GMT)").to_string();
        let ended = !matches!(state, InstanceStateName::Running | InstanceStateName::Pending);
        Instance::builder()
            .instance_id("i-1")
            .instance_type(InstanceType::from("g4dn.xlarge"))
            .placement(Placement::builder().availability_zone("us-east-1a").build())
            .launch_time(Sdk::from_secs(LAUNCHED))
            .state(InstanceState::builder().name(state).build())
            .set_state_transition_reason(ended.then_some(stopped))
            .state_reason(
                StateReason::builder().code(code).message(format!("{code}: message")).build(),
            )
            .tags(tag(STARTED_TAG, at(-2)))
    }

    fn spot(builder: aws_sdk_ec2::types::builders::InstanceBuilder) -> Instance {
        builder
            .instance_lifecycle(InstanceLifecycleType::Spot)
            .spot_instance_request_id("sir-1")
            .build()
    }

    fn requests(state: SpotInstanceState, code: &str, updated: i64) -> Requests {
        let status = SpotInstanceStatus::builder()
            .code(code)
            .update_time(Sdk::from_secs(LAUNCHED + updated))
            .build();
        let request = SpotInstanceRequest::builder()
            .state(state)
            .r#type(SpotInstanceType::Persistent)
            .status(status)
            .build();
        [("sir-1".to_owned(), request)].into()
    }

    fn look(instance: &Instance, requests: &Requests) -> SeenBox {
        seen_box("i-1".parse().unwrap(), instance, requests, at(9_000))
    }

    fn none() -> Requests {
        Requests::new()
    }

    #[test]
    fn r6_a_run_is_known_by_its_tag_and_a_box_that_we_started_is_not_foreign() {
        let one = look(&instance(InstanceStateName::Running, "").build(), &none());
        assert_eq!(
            (one.state, one.since, one.run_started_at),
            (BoxState::Running, at(0), Some(at(-2)))
        );
        assert_eq!((one.foreign, one.unstartable), (None, None));
        assert_eq!(one.offering.unwrap().to_string(), "on-demand g4dn.xlarge in us-east-1a");
    }

    #[test]
    fn r1_a_start_without_an_order_is_foreign() {
        let untagged = instance(InstanceStateName::Running, "").set_tags(None).build();
        let foreign = look(&untagged, &none()).foreign.unwrap();
        assert_eq!((foreign.wants, foreign.at), (HoldWants::Running, Some(at(0))));
    }

    #[test]
    fn r1_a_stop_without_an_order_is_foreign_and_a_shutdown_inside_is_not() {
        let by_user = instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown").build();
        let one = look(&by_user, &none());
        assert_eq!((one.state, one.since), (BoxState::Stopped, at(600)));
        let foreign = one.foreign.unwrap();
        assert_eq!((foreign.wants, foreign.at), (HoldWants::Stopped, Some(at(600))));
        let ours = instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown")
            .tags(Tag::builder().key(STOPPED_TAG).value(tag_time(at(598))).build())
            .build();
        assert_eq!(look(&ours, &none()).foreign, None);
        let inside =
            instance(InstanceStateName::Stopped, "Client.InstanceInitiatedShutdown").build();
        assert_eq!(look(&inside, &none()).foreign, None);
    }

    #[test]
    fn s1_a_start_that_fell_back_says_why() {
        let fell =
            look(&instance(InstanceStateName::Stopped, "Client.InternalError").build(), &none());
        let error = fell.last_error.unwrap();
        assert!(
            error.contains("Client.InternalError: message") && error.contains("kms:CreateGrant"),
            "{error}"
        );
        assert_eq!(
            look(&instance(InstanceStateName::Stopped, "").build(), &none()).last_error,
            None
        );
    }

    #[test]
    fn p2_a_spot_box_starts_only_once_its_request_is_disabled_by_us() {
        let stopped = spot(instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown"));
        let why = |state, code| look(&stopped, &requests(state, code, 610)).unstartable;
        assert_eq!(why(SpotInstanceState::Disabled, "instance-stopped-by-user"), None);
        assert!(
            why(SpotInstanceState::Active, "marked-for-stop")
                .unwrap()
                .contains("only just stopped")
        );
        assert!(look(&stopped, &none()).unstartable.unwrap().contains("does not show"));
    }

    #[test]
    fn p4_p18_what_ec2_stopped_only_ec2_starts() {
        let interrupted = spot(instance(InstanceStateName::Stopped, "Server.SpotInstanceShutdown"));
        let one = look(
            &interrupted,
            &requests(SpotInstanceState::Disabled, "instance-stopped-no-capacity", 600),
        );
        assert!(one.unstartable.unwrap().contains("stopped by EC2"));
        assert_eq!((one.interruption, one.foreign), (Some(at(600)), None));
        let open =
            look(&interrupted, &requests(SpotInstanceState::Open, "capacity-not-available", 700));
        assert!(open.unstartable.unwrap().contains("about to start it"));
    }

    #[test]
    fn p7_a_box_whose_request_was_cancelled_can_never_start_again() {
        let stopped = spot(instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown"));
        for state in
            [SpotInstanceState::Cancelled, SpotInstanceState::Closed, SpotInstanceState::Failed]
        {
            let one = look(&stopped, &requests(state, "request-canceled-and-instance-running", 9));
            assert!(one.unstartable.unwrap().contains("never start again"));
        }
    }

    #[test]
    fn p11_a_notice_shows_two_minutes_ahead_and_our_own_stop_is_none() {
        let running = spot(instance(InstanceStateName::Running, ""));
        let marked = requests(SpotInstanceState::Active, "marked-for-stop", 300);
        assert_eq!(look(&running, &marked).interruption, Some(at(420)));
        let ours = spot(
            instance(InstanceStateName::Running, "")
                .tags(Tag::builder().key(STOPPED_TAG).value(tag_time(at(299))).build()),
        );
        assert_eq!(look(&ours, &marked).interruption, None);
        let calm = requests(SpotInstanceState::Active, "fulfilled", 10);
        assert_eq!(look(&running, &calm).interruption, None);
    }

    #[test]
    fn p15_the_open_request_of_a_terminated_box_is_orphaned() {
        let request = |state| requests(state, "x", 1).remove("sir-1").unwrap();
        let terminated =
            spot(instance(InstanceStateName::Terminated, "Client.UserInitiatedShutdown"));
        assert!(is_orphaned(&terminated, &request(SpotInstanceState::Open)));
        assert!(!is_orphaned(&terminated, &request(SpotInstanceState::Cancelled)));
        // P6: cancelling the request of a stopped box would end the box.
        let stopped = spot(instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown"));
        assert!(!is_orphaned(&stopped, &request(SpotInstanceState::Disabled)));
        assert!(look(&terminated, &none()).unstartable.unwrap().contains("was terminated"));
    }
}
