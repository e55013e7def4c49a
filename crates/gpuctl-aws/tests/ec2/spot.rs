//! Spot boxes that are stopped and started: EC2 is a second controller of them.

use gpuctl_control::ports::{Clock, Cloud, PortErrorClass};
use gpuctl_core::observation::BoxState;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::plan::StopMode;
use gpuctl_sim::world::ec2::{MarketOptions, SpotKind, SpotOptions};

use super::support::{Account, on_demand, run, spot};

async fn running(kind: SpotKind) -> Account {
    let account = Account::stable(&[spot(kind)]).await;
    account.start(&account.ids[0]).await.unwrap();
    account.clock.pass(60);
    assert_eq!(account.state().await, BoxState::Running);
    account
}

#[tokio::test]
async fn p2_a_stopped_spot_box_starts_only_once_its_request_is_disabled() {
    let account = running(SpotKind::Persistent).await;
    let id = account.first().await.id;
    account.cloud.stop(&id, StopMode::Drain).await.unwrap();
    let mut waited = false;
    for _ in 0..60 {
        account.clock.pass(5);
        let one = account.first().await;
        if one.state == BoxState::Stopped && one.unstartable.is_some() {
            waited = true;
            // P3
            let error = account.start(id.as_str()).await.unwrap_err();
            assert_eq!(error.class, PortErrorClass::Conflict, "{error:?}");
        }
        if one.state == BoxState::Stopped && one.unstartable.is_none() {
            account.start(id.as_str()).await.unwrap();
            assert!(waited, "the world has a while between the two");
            return;
        }
    }
    panic!("it never became startable");
}

#[tokio::test]
async fn p1_a_one_time_box_is_not_stopped_and_doctor_says_so() {
    let account = Account::open(super::support::Wanted {
        boxes: &[],
        pool: "[pool.gpu]\nselect = { role = \"gpu\" }",
    })
    .await;
    let one_time = run(spot(SpotKind::OneTime));
    account.front.ec2().run_instances(account.clock.now(), &one_time).unwrap();
    account.clock.pass(60);
    let id = account.first().await.id;
    let error = account.cloud.stop(&id, StopMode::Drain).await.unwrap_err();
    assert!(error.to_string().contains("one-time"), "{error}");
    let findings = account.cloud.check().await;
    assert!(findings.iter().any(|finding| finding.detail.contains("one-time")), "{findings:?}");
}

#[tokio::test]
async fn p7_doctor_warns_of_a_request_that_will_end_with_its_date() {
    let persistent = |until: Option<&str>| {
        let valid_until = until.map(|text| text.parse().unwrap());
        MarketOptions::Spot(SpotOptions { kind: SpotKind::Persistent, valid_until })
    };
    let markets = [
        persistent(Some("2026-11-29T00:00:00Z")),
        persistent(Some("2099-01-01T00:00:00Z")),
        persistent(None),
    ];
    let account = Account::stable(&markets).await;
    let findings = account.cloud.check().await;
    let ends: Vec<_> = findings.iter().filter(|one| one.detail.contains("spot request")).collect();
    let [only] = ends[..] else { panic!("{findings:?}") };
    assert!(only.is_warning && only.detail.contains(&account.ids[0]), "{only:?}");
    assert!(only.detail.contains("ends on 2026-11-29 00:00 UTC, in 6 days"), "{only:?}");
    let hint = only.problem.as_ref().unwrap().hint.as_ref().unwrap();
    assert!(hint.contains("ValidUntil") && hint.contains("gpuctl retire"), "{hint}");
    // Where it has ended the listing says so, too.
    account.clock.pass(30 * 86_400);
    let findings = account.cloud.check().await;
    assert!(findings.iter().any(|one| one.detail.contains("ended on 2026-11-29")), "{findings:?}");
}

#[tokio::test]
async fn p4_only_ec2_starts_a_box_that_it_has_interrupted() {
    let account = running(SpotKind::Persistent).await;
    account.capacity(CapacityType::Spot, false);
    account.clock.pass(1);
    let one = account.first().await;
    assert!(one.interruption.is_some() && one.state == BoxState::Running, "{one:?}");
    account.clock.pass(300);
    let one = account.first().await;
    assert_eq!(one.state, BoxState::Stopped);
    assert!(one.unstartable.as_ref().unwrap().contains("EC2"), "{one:?}");
    assert!(one.interruption.is_some() && one.foreign.is_none(), "{one:?}");
    account.clock.pass(3_600);
    account.capacity(CapacityType::Spot, true);
    account.clock.pass(600);
    assert_eq!(account.state().await, BoxState::Running);
}

#[tokio::test]
async fn p5_retire_cancels_the_request_first_and_no_box_is_launched_again() {
    let account = running(SpotKind::Persistent).await;
    let id = account.first().await.id;
    let _ = account.front.calls();
    account.cloud.retire(&id).await.unwrap();
    assert_eq!(account.front.calls(), ["CancelSpotInstanceRequests", "TerminateInstances"]);
    account.clock.pass(1_800);
    let ec2 = account.front.ec2();
    assert!(ec2.instances().all(|one| !one.is_there()), "nothing runs");
}

#[tokio::test]
async fn p15_only_the_request_of_a_terminated_box_is_cancelled() {
    let account = Account::stable(&[spot(SpotKind::Persistent), spot(SpotKind::Persistent)]).await;
    account.list().await;
    assert_eq!(account.cloud.cancel_orphans().await.unwrap(), Vec::<String>::new());
    let first = [account.ids[0].clone()];
    account.front.ec2().terminate_instances(account.clock.now(), &first).unwrap();
    account.clock.pass(1);
    account.list().await;
    assert_eq!(account.cloud.cancel_orphans().await.unwrap().len(), 1);
    account.clock.pass(60);
    // P6: the stopped box beside it is still there.
    let boxes = account.boxes().await;
    assert_eq!((boxes[1].state, &boxes[1].unstartable), (BoxState::Stopped, &None));
    assert!(account.cloud.cancel_orphans().await.unwrap().is_empty());
}

#[tokio::test]
async fn one_call_lists_all_pools_and_a_second_the_spot_requests() {
    let account = Account::stable(&[spot(SpotKind::Persistent), on_demand()]).await;
    let _ = account.front.calls();
    account.list().await;
    assert_eq!(account.front.calls(), ["DescribeInstances", "DescribeSpotInstanceRequests"]);
}
