//! What an instance and its spot request say of a box. Pure: each trap of EC2's answers has a test here and needs no EC2.

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

pub(super) use crate::tags::{BOX_TAG, STOPPED_TAG, stamp};

/// The pool that a box was launched for.
pub(super) const POOL_TAG: &str = "gpuctl:pool";
/// When gpuctl last asked the box to start: the key of its run, also when the ledger is lost (R6).
pub(super) const STARTED_TAG: &str = "gpuctl:started";
/// The order by which it did: whoever repeats it does nothing.
pub(super) const ORDER_TAG: &str = "gpuctl:order";

/// How much later than our order a start or stop may come and still be ours: calls are retried for seconds, and clocks differ.
const OURS_WITHIN: TimeDelta = TimeDelta::minutes(5);
/// The notice that EC2 gives before it takes a spot box (`aws.md` 9.3).
const NOTICE: TimeDelta = TimeDelta::minutes(2);

/// An order's token as EC2 takes it in tags and as a client token, at most 64 characters of ASCII: hashed, so that equal orders
/// still have equal ones.
pub(super) fn order(token: &str) -> String {
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

/// Whether there is nothing left of it but its row.
pub(super) fn is_gone(instance: &Instance) -> bool {
    matches!(
        state_name(instance),
        Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown)
    )
}

/// Whether it is off, with its disk.
pub(super) fn is_stopped(instance: &Instance) -> bool {
    state_name(instance) == Some(&InstanceStateName::Stopped)
}

/// Whether it is on its way there.
pub(super) fn is_stopping(instance: &Instance) -> bool {
    state_name(instance) == Some(&InstanceStateName::Stopping)
}

fn state_name(instance: &Instance) -> Option<&InstanceStateName> {
    instance.state()?.name()
}

/// Spot requests by their ids.
pub(super) type Requests = BTreeMap<String, SpotInstanceRequest>;

/// The instance's spot request, if it has one and it was found.
pub(super) fn request<'r>(
    instance: &Instance,
    requests: &'r Requests,
) -> Option<&'r SpotInstanceRequest> {
    requests.get(instance.spot_instance_request_id()?)
}

/// The box, as EC2 shows it at `now`.
pub(super) fn seen(id: BoxId, instance: &Instance, requests: &Requests, now: Timestamp) -> SeenBox {
    let request = request(instance, requests);
    let state = state(instance);
    let launched_at = time(instance.launch_time()).unwrap_or(now);
    let ended_at = ended_at(instance, request).unwrap_or(now);
    let since = if matches!(state, BoxState::Pending | BoxState::Running) {
        launched_at
    } else {
        ended_at.max(launched_at)
    };
    SeenBox {
        last_error: if state == BoxState::Stopped { fault(instance) } else { None },
        run_started_at: Some(started_at(instance, launched_at)),
        offering: offering(instance),
        interruption: interruption(instance, request, ended_at),
        foreign: foreign(instance, state, launched_at, ended_at),
        unstartable: unstartable(instance, request),
        ..SeenBox::new(id, state, since)
    }
}

fn state(instance: &Instance) -> BoxState {
    match state_name(instance) {
        Some(InstanceStateName::Pending) => BoxState::Pending,
        Some(InstanceStateName::Running) => BoxState::Running,
        Some(InstanceStateName::Stopped | InstanceStateName::Terminated) => BoxState::Stopped,
        // Also a state of tomorrow: neither to be started nor counted on.
        _ => BoxState::Stopping,
    }
}

/// What is bought with the box.
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

/// The key of the box's latest run: our order if it was ours, else the start itself.
fn started_at(instance: &Instance, launched_at: Timestamp) -> Timestamp {
    let ours = tagged(instance, STARTED_TAG);
    ours.filter(|ordered| is_ours(*ordered, launched_at)).unwrap_or(launched_at)
}

/// Whether what happened at `at` follows from our order. EC2's times are whole seconds, so it may seem to come first.
fn is_ours(ordered: Timestamp, at: Timestamp) -> bool {
    let after = at - ordered;
    -OURS_WITHIN <= after && after <= OURS_WITHIN
}

/// When the box stopped: EC2 says so in words, `User initiated (2026-11-21 10:00:00 GMT)`, else with its spot request.
fn ended_at(instance: &Instance, request: Option<&SpotInstanceRequest>) -> Option<Timestamp> {
    let words = instance.state_transition_reason().unwrap_or_default();
    let inside = words.split_once('(').and_then(|(_, rest)| rest.split_once(" GMT"));
    let by_words = inside
        .and_then(|(text, _)| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok())
        .map(|at| at.and_utc());
    let by_request = || time(request?.status()?.update_time());
    let by_tag = || tagged(instance, STOPPED_TAG);
    by_words.or_else(by_request).or_else(by_tag)
}

fn reason_code(instance: &Instance) -> &str {
    instance.state_reason().and_then(|reason| reason.code()).unwrap_or_default()
}

/// Why a start that EC2 had accepted came to nothing (S1).
fn fault(instance: &Instance) -> Option<String> {
    let code = reason_code(instance);
    let hint = match code {
        ""
        | "Client.UserInitiatedShutdown"
        | "Client.InstanceInitiatedShutdown"
        | "Client.UserInitiatedHibernate"
        | "Server.SpotInstanceShutdown"
        | "Server.SpotInstanceTermination" => return None,
        "Client.InternalError" => {
            "; most often the role may not use the disk's KMS key: allow it kms:CreateGrant"
        }
        "Client.VolumeLimitExceeded" => "; ask for a higher limit on EBS volumes",
        _ => "",
    };
    let said = instance.state_reason().and_then(|reason| reason.message()).unwrap_or(code);
    Some(format!("EC2 ended the start: {said}{hint}"))
}

fn status_code(request: &SpotInstanceRequest) -> &str {
    request.status().and_then(|status| status.code()).unwrap_or_default()
}

/// When EC2 takes the box, or took it.
fn interruption(
    instance: &Instance,
    request: Option<&SpotInstanceRequest>,
    ended_at: Timestamp,
) -> Option<Timestamp> {
    if reason_code(instance).starts_with("Server.SpotInstance") {
        return Some(ended_at);
    }
    let marked = request.filter(|request| status_code(request).starts_with("marked-for-"))?;
    // A stop of our own marks the request too, until it is switched off (P2).
    let ours = tagged(instance, STOPPED_TAG);
    let marked_at = time(marked.status()?.update_time())?;
    let is_running = state_name(instance) == Some(&InstanceStateName::Running);
    let by_us = ours.is_some_and(|ordered| is_ours(ordered, marked_at));
    (is_running && !by_us).then_some(marked_at + NOTICE)
}

/// A start or stop that follows from no order of gpuctl, and from no shutdown inside the box (R1).
fn foreign(
    instance: &Instance,
    state: BoxState,
    launched_at: Timestamp,
    ended_at: Timestamp,
) -> Option<Foreign> {
    let (wants, at, ours) = match state {
        BoxState::Pending | BoxState::Running => {
            (HoldWants::Running, launched_at, tagged(instance, STARTED_TAG))
        }
        BoxState::Stopping | BoxState::Stopped => {
            if is_gone(instance) || reason_code(instance) != "Client.UserInitiatedShutdown" {
                return None;
            }
            (HoldWants::Stopped, ended_at, tagged(instance, STOPPED_TAG))
        }
    };
    let by_us = ours.is_some_and(|ordered| is_ours(ordered, at));
    (!by_us).then(|| Foreign { wants, at, by: "somebody".to_owned() })
}

/// Why a stopped box cannot be started: EC2 gives most of these errors only when asked.
fn unstartable(instance: &Instance, request: Option<&SpotInstanceRequest>) -> Option<String> {
    if is_gone(instance) {
        return Some("was terminated: take it out of the configuration".to_owned());
    }
    if state(instance) != BoxState::Stopped || !is_spot(instance) {
        return None;
    }
    let Some(request) = request else {
        return Some("has a spot request that EC2 does not show: retire it".to_owned());
    };
    let why = match (request.state(), status_code(request)) {
        (Some(SpotInstanceState::Disabled), "instance-stopped-by-user") => return None,
        // P4, P18: only EC2 starts what EC2 has stopped.
        (Some(SpotInstanceState::Disabled), _) => {
            "was stopped by EC2, which starts it again when there is capacity"
        }
        (Some(SpotInstanceState::Open), _) => "waits for spot capacity: EC2 is about to start it",
        // P2: EC2 accepts a start only once the request is switched off.
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

/// Whether the request goes on although its box is gone: EC2 would launch another one for it (P5, P15).
pub(super) fn is_left_behind(instance: &Instance, request: &SpotInstanceRequest) -> bool {
    is_gone(instance)
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
        let tag = |key: &str, at| Tag::builder().key(key).value(stamp(at)).build();
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
                StateReason::builder().code(code).message(format!("{code}: words")).build(),
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
        seen("i-1".parse().unwrap(), instance, requests, at(9_000))
    }

    fn none() -> Requests {
        Requests::new()
    }

    #[test]
    fn r6_a_run_is_known_by_its_tag_and_a_box_that_we_started_is_no_foreign_one() {
        let one = look(&instance(InstanceStateName::Running, "").build(), &none());
        assert_eq!(
            (one.state, one.since, one.run_started_at),
            (BoxState::Running, at(0), Some(at(-2)))
        );
        assert_eq!((one.foreign, one.unstartable), (None, None));
        assert_eq!(one.offering.unwrap().to_string(), "on-demand g4dn.xlarge in us-east-1a");
    }

    #[test]
    fn r1_a_start_without_our_order_is_somebodys_and_so_is_a_stop_but_not_a_shutdown_inside() {
        let strange = instance(InstanceStateName::Running, "").set_tags(None).build();
        let one = look(&strange, &none());
        assert_eq!(
            one.foreign.map(|foreign| (foreign.wants, foreign.at)),
            Some((HoldWants::Running, at(0)))
        );
        let by_user = instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown").build();
        let one = look(&by_user, &none());
        assert_eq!((one.state, one.since), (BoxState::Stopped, at(600)));
        assert_eq!(
            one.foreign.map(|foreign| (foreign.wants, foreign.at)),
            Some((HoldWants::Stopped, at(600)))
        );
        let ours = instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown")
            .tags(Tag::builder().key(STOPPED_TAG).value(stamp(at(598))).build())
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
            error.contains("Client.InternalError: words") && error.contains("kms:CreateGrant"),
            "{error}"
        );
        assert_eq!(
            look(&instance(InstanceStateName::Stopped, "").build(), &none()).last_error,
            None
        );
    }

    #[test]
    fn p2_a_spot_box_starts_only_once_its_request_is_switched_off_by_us() {
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
        let taken = spot(instance(InstanceStateName::Stopped, "Server.SpotInstanceShutdown"));
        let one = look(
            &taken,
            &requests(SpotInstanceState::Disabled, "instance-stopped-no-capacity", 600),
        );
        assert!(one.unstartable.unwrap().contains("stopped by EC2"));
        assert_eq!((one.interruption, one.foreign), (Some(at(600)), None));
        let open = look(&taken, &requests(SpotInstanceState::Open, "capacity-not-available", 700));
        assert!(open.unstartable.unwrap().contains("about to start it"));
    }

    #[test]
    fn p7_a_cancelled_request_means_that_the_box_is_lost() {
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
                .tags(Tag::builder().key(STOPPED_TAG).value(stamp(at(299))).build()),
        );
        assert_eq!(look(&ours, &marked).interruption, None);
        let calm = requests(SpotInstanceState::Active, "fulfilled", 10);
        assert_eq!(look(&running, &calm).interruption, None);
    }

    #[test]
    fn p15_a_request_whose_box_is_gone_is_left_behind_and_a_stopped_boxs_is_not() {
        let request = |state| requests(state, "x", 1).remove("sir-1").unwrap();
        let gone = spot(instance(InstanceStateName::Terminated, "Client.UserInitiatedShutdown"));
        assert!(is_left_behind(&gone, &request(SpotInstanceState::Open)));
        assert!(!is_left_behind(&gone, &request(SpotInstanceState::Cancelled)));
        // P6: cancelling the request of a stopped box would end the box.
        let stopped = spot(instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown"));
        assert!(!is_left_behind(&stopped, &request(SpotInstanceState::Disabled)));
        assert!(look(&gone, &none()).unstartable.unwrap().contains("was terminated"));
    }
}
