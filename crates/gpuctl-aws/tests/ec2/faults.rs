//! EC2 behind a proxy that makes faults: throttling, resets, truncated responses, an expired token. None of them may make a box look
//! missing, and none may start two.

use std::time::{Duration, Instant};

use gpuctl_control::ports::{Cloud, PortError, PortErrorClass};
use gpuctl_core::observation::BoxState;
use gpuctl_core::offering::RefusalClass;
use gpuctl_core::plan::StopMode;
use serde_json::{Value, json};

use super::emulators::{Emulator, faults, moto};
use super::moto::{BY_TAG, Moto, OnMoto};

/// How long a proxy may take until it knows the service.
const PROXY_TIME_MAX: Duration = Duration::from_secs(120);

/// The boxes of these tests.
const BOXES: usize = 3;

/// A pool of three boxes that run, behind a proxy that works so far.
struct Behind {
    proxy: Emulator,
    pool: OnMoto,
    ids: Vec<String>,
}

async fn behind() -> Behind {
    let moto_of_test = Moto::open().await;
    let ids = moto_of_test.run(3).await;
    let proxy = faults(moto().await).await;
    let pool = moto_of_test.pool_at(&proxy.url(), BY_TAG);
    // The proxy reads EC2's model, the largest there is, with its first call: longer than a call may take.
    let until = Instant::now() + PROXY_TIME_MAX;
    while pool.cloud.boxes(&pool.policy).await.is_err() {
        assert!(Instant::now() < until, "the proxy does not answer");
    }
    Behind { proxy, pool, ids }
}

impl Behind {
    fn break_by(&self, operation: &str, fault: &Value) {
        let mut rule = fault.clone();
        rule["service"] = json!("ec2");
        rule["operation"] = json!(operation);
        self.proxy.break_by(&json!([rule]));
    }

    async fn list(&self) -> Result<usize, PortError> {
        let listing = self.pool.cloud.boxes(&self.pool.policy).await?;
        Ok(listing.pools.values().map(Vec::len).sum())
    }
}

fn always(code: &str, status: u16) -> Value {
    json!({ "error": { "code": code, "status": status } })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_of_a_listing_has_its_class_and_a_hint() {
    let behind = behind().await;
    use PortErrorClass::{Denied, Throttled, Unavailable};
    for (code, status, class, hint) in [
        ("UnauthorizedOperation", 403, Denied, "ec2:DescribeInstances"),
        ("RequestExpired", 400, Denied, "aws sso login"),
        ("ExpiredToken", 400, Denied, "aws sso login"),
        ("AuthFailure", 401, Denied, "profile"),
        ("RequestLimitExceeded", 503, Throttled, "throttling"),
        ("Unavailable", 503, Unavailable, "internal error"),
        ("InternalError", 500, Unavailable, "internal error"),
    ] {
        behind.break_by("DescribeInstances", &always(code, status));
        let error = behind.list().await.unwrap_err();
        assert_eq!(error.class, class, "{code}: {error:?}");
        assert!(error.hint.as_ref().unwrap().contains(hint), "{code}: {error:?}");
    }
    behind.proxy.break_by(&json!([]));
    assert_eq!(behind.list().await.unwrap(), BOXES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_survives_a_fault_that_passes() {
    let behind = behind().await;
    for fault in [
        json!({ "times": 2, "error": { "code": "RequestLimitExceeded", "status": 503 } }),
        json!({ "times": 2, "reset": true }),
        json!({ "times": 1, "response": { "abort_frac": 0.5 } }),
    ] {
        let before = behind.proxy.fired();
        behind.break_by("DescribeInstances", &fault);
        assert_eq!(behind.list().await.unwrap(), BOXES, "{fault}");
        let times = usize::try_from(fault["times"].as_u64().unwrap()).unwrap();
        assert_eq!(behind.proxy.fired() - before, times, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_response_is_an_error_and_never_fewer_boxes() {
    let behind = behind().await;
    for fraction in [0.2, 0.5, 0.8, 0.95] {
        // With the length of what is left, so that HTTP cannot notice.
        behind.break_by("DescribeInstances", &json!({ "response": { "truncate_frac": fraction } }));
        match behind.list().await {
            Err(error) => assert_eq!(error.class, PortErrorClass::Unavailable, "{error:?}"),
            Ok(boxes) => panic!("{boxes} boxes of {fraction} of an answer"),
        }
    }
    behind.break_by("DescribeInstances", &json!({ "reset": true }));
    let error = behind.list().await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Unavailable, "{error:?}");
    assert!(error.hint.unwrap().contains("cannot be reached"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_a_refused_start_is_not_retried() {
    let behind = behind().await;
    let id = behind.pool.boxes().await.remove(0).id;
    behind.pool.cloud.stop(&id, StopMode::Drain).await.unwrap();
    for (code, status, class) in [
        ("InsufficientInstanceCapacity", 500, PortErrorClass::Refused(RefusalClass::Capacity)),
        ("VcpuLimitExceeded", 400, PortErrorClass::Refused(RefusalClass::Quota)),
        ("RequestLimitExceeded", 503, PortErrorClass::Throttled),
    ] {
        let before = behind.proxy.fired();
        behind.break_by("StartInstances", &always(code, status));
        let error = behind.pool.start(id.as_str()).await.unwrap_err();
        assert_eq!(error.class, class, "{error:?}");
        assert_eq!(behind.proxy.fired() - before, 1, "{code}");
    }
    behind.proxy.break_by(&json!([]));
    let one = behind.pool.boxes().await.into_iter().find(|one| one.id == id).unwrap();
    assert_eq!((one.state, one.foreign), (BoxState::Stopped, None));
}

/// `Unavailable` means that the box may be starting: a run would stay open for a box that EC2 has refused.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_start_that_ec2_may_have_carried_out_is_unavailable() {
    let behind = behind().await;
    let id = behind.pool.boxes().await.remove(0).id;
    behind.pool.cloud.stop(&id, StopMode::Drain).await.unwrap();
    for (code, status, class) in [
        ("InvalidParameterCombination", 400, PortErrorClass::Other),
        ("SomethingNew", 403, PortErrorClass::Other),
        ("SomethingNew", 500, PortErrorClass::Unavailable),
        ("RequestTimeout", 400, PortErrorClass::Unavailable),
        ("InternalError", 500, PortErrorClass::Unavailable),
    ] {
        behind.break_by("StartInstances", &always(code, status));
        let error = behind.pool.start(id.as_str()).await.unwrap_err();
        assert_eq!(error.class, class, "{code} {status}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_listing_shows_a_start_or_stop_whose_response_was_lost() {
    let behind = behind().await;
    let id = behind.ids[0].as_str();
    let lost = json!({ "times": 1, "response": { "abort_frac": 0.0 } });
    let state = async || {
        let boxes = behind.pool.boxes().await;
        boxes.into_iter().find(|one| one.id.as_str() == id).unwrap().state
    };
    assert_eq!(state().await, BoxState::Running);
    behind.break_by("StopInstances", &lost);
    // A stop is retried, since a second one does no harm.
    behind.pool.cloud.stop(&id.parse().unwrap(), StopMode::Drain).await.unwrap();
    assert_eq!(state().await, BoxState::Stopped);
    behind.break_by("StartInstances", &lost);
    let error = behind.pool.start(id).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Unavailable, "{error:?}");
    assert_eq!(state().await, BoxState::Running);
}
