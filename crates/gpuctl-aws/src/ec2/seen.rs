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

/// How EC2 answered that order: when it accepted it, `REFUSED`, or `PENDING` while there is no answer.
pub(super) const ANSWERED_TAG: &str = "gpuctl:answered";
/// EC2 did not accept the start: one that follows is another user's.
pub(super) const REFUSED: &str = "refused";
/// There is no answer yet; or the controller ended before it could note it.
pub(super) const PENDING: &str = "pending";

/// How long after our order a start or stop may follow from it, where EC2's answer is not known: a controller orders within its lease of
/// 15 s, and its two calls may take 32 s with their retries.
const CARRIED_OUT_WITHIN: TimeDelta = TimeDelta::minutes(1);
/// How long after EC2 accepted a start the box may seem to have started. It cannot be stopped and started again in that time.
const STARTS_WITHIN: TimeDelta = TimeDelta::seconds(20);
/// How far the clock that follows AWS's time may be off, and EC2's whole seconds.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::seconds(5);
/// How long before an interruption EC2 gives notice (EC2 User Guide, "Spot Instance interruption notices").
const NOTICE: TimeDelta = TimeDelta::minutes(2);

/// An order's token as a tag's value and as a client token, which may have 64 characters of ASCII at most: a hash, so that equal
/// orders still have equal tokens.
pub(crate) fn order_hash(token: &str) -> String {
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

/// Whether it is up.
pub(super) fn is_running(instance: &Instance) -> bool {
    state_name(instance) == Some(&InstanceStateName::Running)
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

/// When a box was last started, and when it ended, as far as EC2 says. What it does not say is unknown, never now.
#[derive(Clone, Copy)]
struct Times {
    launched_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl Times {
    fn of(instance: &Instance, request: Option<&SpotInstanceRequest>) -> Self {
        let launched_at = time(instance.launch_time());
        Self { launched_at, ended_at: ended_at(instance, request, launched_at) }
    }

    /// What a stopped or stopping box ended after: its last start.
    fn ended_after(self) -> Timestamp {
        self.launched_at.unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// The box as EC2 shows it; `None` if it is up and EC2 does not say since when, so that nothing can be decided about it.
pub(super) fn seen_box(id: BoxId, instance: &Instance, requests: &Requests) -> Option<SeenBox> {
    let request = request(instance, requests);
    let times = Times::of(instance, request);
    let told_at = told_to_drain(instance);
    let state = if told_at.is_some() { BoxState::Stopping } else { state(instance) };
    let is_up = matches!(state, BoxState::Pending | BoxState::Running);
    let ended_at = told_at.or(times.ended_at);
    let (since, since_is_bound) = match (is_up, ended_at) {
        (true, _) => (times.launched_at?, false),
        (false, Some(ended_at)) => (ended_at.max(times.ended_after()), false),
        (false, None) => (times.ended_after(), true),
    };
    Some(SeenBox {
        since_is_bound,
        last_error: if state == BoxState::Stopped { start_failure(instance) } else { None },
        run_started_at: started_at(instance, times.launched_at),
        offering: offering(instance),
        interruption: interruption(instance, request, since),
        foreign: foreign(instance, state, if is_up { times.launched_at } else { ended_at }),
        unstartable: unstartable(instance, request),
        ..SeenBox::new(id, state, since)
    })
}

/// When a launched box was told to drain, if it was since its launch: it ends itself once its worker has finished.
fn told_to_drain(instance: &Instance) -> Option<Timestamp> {
    let is_up = matches!(
        state_name(instance),
        Some(InstanceStateName::Pending | InstanceStateName::Running)
    );
    let told_at = tagged(instance, STOPPED_TAG).filter(|_| is_up && is_launched(instance))?;
    time(instance.launch_time()).is_some_and(|launched| told_at >= launched).then_some(told_at)
}

pub(super) fn is_told_to_drain(instance: &Instance) -> bool {
    told_to_drain(instance).is_some()
}

/// Whether gpuctl launched it: such a box is never started again.
fn is_launched(instance: &Instance) -> bool {
    tag(instance, BOX_TAG).is_some()
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
    rfc3339(tag(instance, key)?)
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

/// The key of the box's latest run: the time of our order if the start followed from it, else the start itself.
fn started_at(instance: &Instance, launched_at: Option<Timestamp>) -> Option<Timestamp> {
    let ordered = tagged(instance, STARTED_TAG);
    let launched_at = launched_at.or(ordered)?;
    Some(ordered.filter(|_| is_our_start(instance, launched_at)).unwrap_or(launched_at))
}

/// Whether the start at this time is the one that gpuctl ordered: it lies between the order and EC2's answer to it. A box that was
/// started, stopped and started again in the console within minutes was started in the console.
fn is_our_start(instance: &Instance, launched_at: Timestamp) -> bool {
    let Some(ordered) = tagged(instance, STARTED_TAG) else { return false };
    if is_launched(instance) {
        return true;
    }
    let before = ordered - launched_at <= CLOCKS_DIFFER_MAX;
    let answered = tag(instance, ANSWERED_TAG).unwrap_or_default();
    let in_time = match rfc3339(answered) {
        Some(answered_at) => launched_at - answered_at <= STARTS_WITHIN,
        None => answered != REFUSED && launched_at - ordered <= CARRIED_OUT_WITHIN,
    };
    before && in_time
}

/// Whether the stop at this time follows from our order. EC2's times are whole seconds, so it may seem to precede the order.
fn is_our_stop(instance: &Instance, at: Timestamp) -> bool {
    let ordered = tagged(instance, STOPPED_TAG);
    ordered.is_some_and(|ordered| {
        let after = at - ordered;
        -CLOCKS_DIFFER_MAX <= after && after <= CARRIED_OUT_WITHIN
    })
}

/// When the box ended: from EC2's text, else from its spot request, else from our order. A time before its last start belongs to an
/// earlier stop.
fn ended_at(
    instance: &Instance,
    request: Option<&SpotInstanceRequest>,
    launched_at: Option<Timestamp>,
) -> Option<Timestamp> {
    let of_this_run = |at: &Timestamp| {
        launched_at.is_none_or(|launched_at| launched_at - *at <= CLOCKS_DIFFER_MAX)
    };
    let by_reason = transition_time(instance.state_transition_reason().unwrap_or_default());
    let by_request = || time(request?.status()?.update_time());
    let by_tag = || tagged(instance, STOPPED_TAG);
    by_reason
        .filter(of_this_run)
        .or_else(|| by_request().filter(of_this_run))
        .or_else(|| by_tag().filter(of_this_run))
}

/// The time in EC2's text, e.g. `User initiated (2026-11-21 10:00:00 GMT)`. Some servers write `UTC`, a fraction or no zone; EC2's times
/// are always in UTC. `None` if there is no time in it.
fn transition_time(reason: &str) -> Option<Timestamp> {
    let (_, rest) = reason.rsplit_once('(')?;
    let (inside, _) = rest.split_once(')')?;
    let inside = inside.trim();
    if let Some(at) = rfc3339(inside) {
        return Some(at);
    }
    let plain = inside.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c.is_whitespace());
    let read = |form| NaiveDateTime::parse_from_str(plain, form).ok();
    let at = read("%Y-%m-%d %H:%M:%S%.f").or_else(|| read("%Y-%m-%dT%H:%M:%S%.f"))?;
    Some(at.and_utc())
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
    let marked_at = time(marked.status()?.update_time())?;
    let is_running = state_name(instance) == Some(&InstanceStateName::Running);
    (is_running && !is_our_stop(instance, marked_at)).then_some(marked_at + NOTICE)
}

/// A start or stop outside gpuctl: one that follows neither from an order of gpuctl nor from a shutdown inside the box (R1).
fn foreign(instance: &Instance, state: BoxState, at: Option<Timestamp>) -> Option<Foreign> {
    let (wants, is_ours): (_, fn(&Instance, Timestamp) -> bool) = match state {
        BoxState::Pending | BoxState::Running => (HoldWants::Running, is_our_start),
        BoxState::Stopping | BoxState::Stopped => {
            if is_terminated(instance) || reason_code(instance) != "Client.UserInitiatedShutdown" {
                return None;
            }
            (HoldWants::Stopped, is_our_stop)
        }
    };
    let by_us = at.is_some_and(|at| is_ours(instance, at));
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

/// When a persistent request ends, if it does.
pub(super) fn request_ends(request: &SpotInstanceRequest) -> Option<Timestamp> {
    time(request.valid_until()).filter(|_| !is_one_time(request))
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
        seen_box("i-1".parse().unwrap(), instance, requests).unwrap()
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

    fn tag_of(key: &str, value: impl Into<String>) -> Tag {
        Tag::builder().key(key).value(value).build()
    }

    #[test]
    fn the_time_of_a_stop_is_read_in_each_of_its_forms() {
        let wanted = "2026-11-21T10:00:00Z".parse().ok();
        for (reason, wanted) in [
            ("User initiated (2026-11-21 10:00:00 GMT)", wanted),
            ("User initiated (2026-11-21 10:00:00 UTC)", wanted),
            ("User initiated (2026-11-21 10:00:00)", wanted),
            ("User initiated (2026-11-21T10:00:00Z)", wanted),
            ("Server.SpotInstanceShutdown: (cause) (2026-11-21 10:00:00.000 UTC)", wanted),
            ("User initiated", None),
            ("User initiated (yesterday)", None),
            ("User initiated (2026-11-21 10:00:00", None),
            ("()", None),
            ("", None),
        ] {
            assert_eq!(transition_time(reason), wanted, "{reason}");
        }
    }

    #[test]
    fn a_stop_at_an_unknown_time_is_no_newer_than_the_last_start() {
        let stopped = |reason: Option<&str>| {
            instance(InstanceStateName::Stopped, "Client.UserInitiatedShutdown")
                .set_state_transition_reason(reason.map(str::to_owned))
        };
        for reason in [None, Some("User initiated"), Some("User initiated (soon)")] {
            let one = look(&stopped(reason).build(), &none());
            assert_eq!((one.since, one.since_is_bound), (at(0), true), "{reason:?}");
            assert_eq!(one.foreign.unwrap().at, None, "{reason:?}");
        }
        // An earlier stop of ours says nothing about this one.
        let tag = tag_of(STOPPED_TAG, tag_time(at(-900)));
        let one = look(&stopped(None).tags(tag).build(), &none());
        assert!(one.since_is_bound && one.foreign.is_some());
        let known =
            look(&stopped(Some("User initiated (2027-01-15 08:10:00 UTC)")).build(), &none());
        assert_eq!((known.since, known.since_is_bound), (at(600), false));
    }

    #[test]
    fn a_box_that_is_up_since_an_unknown_time_cannot_be_read() {
        let up = instance(InstanceStateName::Running, "").set_launch_time(None).build();
        assert_eq!(seen_box("i-1".parse().unwrap(), &up, &none()), None);
        let off = instance(InstanceStateName::Stopped, "").set_launch_time(None);
        let off = look(&off.set_state_transition_reason(None).build(), &none());
        assert_eq!((off.since, off.since_is_bound), (Timestamp::UNIX_EPOCH, true));
    }

    #[test]
    fn r1_a_start_in_the_console_minutes_after_ours_is_foreign() {
        let started = |answered: String, launched: i64| {
            let one = instance(InstanceStateName::Running, "")
                .launch_time(Sdk::from_secs(LAUNCHED + launched))
                .tags(tag_of(ANSWERED_TAG, answered));
            let one = look(&one.build(), &none());
            (one.foreign.is_some(), one.run_started_at)
        };
        let ours = (false, Some(at(-2)));
        assert_eq!(started(tag_time(at(1)), 0), ours);
        assert_eq!(started(tag_time(at(1)), 3), ours);
        // Stopped and started again by a user, 70 s after our order.
        assert_eq!(started(tag_time(at(1)), 70), (true, Some(at(70))));
        // EC2 refused our start, and a user started it a little later.
        assert_eq!(started(REFUSED.to_owned(), 20), (true, Some(at(20))));
        // The controller ended between order and answer.
        assert_eq!(started(PENDING.to_owned(), 20), ours);
        assert_eq!(started(PENDING.to_owned(), 70), (true, Some(at(70))));
    }

    #[test]
    fn a_launched_box_that_was_told_to_drain_is_stopping_until_it_ends() {
        let launched = |told: i64| {
            instance(InstanceStateName::Running, "")
                .tags(tag_of(BOX_TAG, "gpu-spot-1"))
                .tags(tag_of(STOPPED_TAG, tag_time(at(told))))
        };
        let one = look(&launched(100).build(), &none());
        assert_eq!((one.state, one.since, one.foreign), (BoxState::Stopping, at(100), None));
        // One that is stopped and started is not told so: EC2 stops it.
        let kept =
            instance(InstanceStateName::Running, "").tags(tag_of(STOPPED_TAG, tag_time(at(100))));
        assert_eq!(look(&kept.build(), &none()).state, BoxState::Running);
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
