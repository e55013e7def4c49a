//! Boxes that are stopped and started, on demand.

use gpuctl_control::ports::{Clock, Cloud, PortErrorClass};
use gpuctl_core::observation::{BoxState, HoldWants};
use gpuctl_core::offering::{CapacityType, RefusalClass};
use gpuctl_core::plan::StopMode;

use super::support::{Account, Wanted, on_demand, run};

#[tokio::test]
async fn a_box_starts_and_stops_and_is_known_as_ours_all_along() {
    let account = Account::stable(&[on_demand()]).await;
    let id = account.ids[0].clone();
    let one = account.first().await;
    assert_eq!((one.state, one.foreign), (BoxState::Stopped, None));
    let ordered_at = gpuctl_control::ports::Clock::now(&*account.clock);
    account.start(&id).await.unwrap();
    assert_eq!(account.state().await, BoxState::Pending);
    account.clock.pass(30);
    let one = account.first().await;
    assert_eq!(
        (one.state, one.run_started_at, one.foreign),
        (BoxState::Running, Some(ordered_at), None)
    );
    account.clock.pass(600);
    account.cloud.stop(&one.id, StopMode::Drain).await.unwrap();
    assert_eq!(account.state().await, BoxState::Stopping);
    account.clock.pass(60);
    let one = account.first().await;
    assert_eq!((one.state, one.foreign, one.last_error), (BoxState::Stopped, None, None));
    // Stopping a stopped box is a success.
    account.cloud.stop(&one.id, StopMode::Drain).await.unwrap();
}

#[tokio::test]
async fn r1_a_start_or_stop_in_the_console_is_foreign() {
    let account = Account::stable(&[on_demand()]).await;
    let (id, now) = (account.ids.clone(), || gpuctl_control::ports::Clock::now(&*account.clock));
    account.front.ec2().start_instances(now(), &id).unwrap();
    account.clock.pass(60);
    assert_eq!(account.first().await.foreign.map(|word| word.wants), Some(HoldWants::Running));
    account.clock.pass(600);
    account
        .front
        .ec2()
        .stop_instances(now(), &id, gpuctl_sim::world::ec2::Ec2StopMode::Shutdown)
        .unwrap();
    account.clock.pass(60);
    let one = account.first().await;
    assert_eq!(one.foreign.map(|word| word.wants), Some(HoldWants::Stopped));
}

#[tokio::test]
async fn s4_a_box_that_is_still_stopping_is_a_conflict_and_not_a_failure() {
    let account = Account::stable(&[on_demand()]).await;
    let id = account.ids[0].clone();
    account.start(&id).await.unwrap();
    account.clock.pass(60);
    let one = account.first().await;
    account.cloud.stop(&one.id, StopMode::Drain).await.unwrap();
    let error = account.start(&id).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Conflict, "{error:?}");
}

#[tokio::test]
async fn s1_a_start_that_falls_back_says_why() {
    let account = Account::stable(&[on_demand()]).await;
    account.front.ec2().faults.fall_back = 1_000;
    account.start(&account.ids[0]).await.unwrap();
    account.clock.pass(120);
    let one = account.first().await;
    assert_eq!(one.state, BoxState::Stopped);
    assert!(one.last_error.unwrap().contains("kms:CreateGrant"));
}

#[tokio::test]
async fn p16_a_start_without_capacity_is_not_retried_and_keeps_its_message() {
    let account = Account::stable(&[on_demand()]).await;
    account.capacity(CapacityType::OnDemand, false);
    account.list().await;
    let _ = account.front.calls();
    let error = account.start(&account.ids[0]).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Refused(RefusalClass::Capacity), "{error:?}");
    assert!(error.cause.unwrap().to_string().contains("InsufficientInstanceCapacity"));
    let calls = ["DescribeInstances", "CreateTags", "StartInstances", "CreateTags"];
    assert_eq!(account.front.calls(), calls, "it is asked once, and its answer is noted");
}

/// EC2 refused our start, and accepted a user's a moment later: that is the user's.
#[tokio::test]
async fn r1_a_start_in_the_console_after_a_refused_one_of_ours_is_foreign() {
    let account = Account::stable(&[on_demand()]).await;
    account.capacity(CapacityType::OnDemand, false);
    account.start(&account.ids[0]).await.unwrap_err();
    account.capacity(CapacityType::OnDemand, true);
    account.clock.pass(20);
    let now = account.clock.now();
    account.front.ec2().start_instances(now, &account.ids).unwrap();
    account.clock.pass(30);
    let one = account.first().await;
    assert_eq!((one.state, one.run_started_at), (BoxState::Running, Some(now)));
    assert!(one.foreign.is_some());
}

#[tokio::test]
async fn p9_a_quota_is_told_from_lack_of_capacity_and_named() {
    let account = Account::stable(&[on_demand()]).await;
    account.front.ec2().settings.vcpus_on_demand = 0;
    let error = account.start(&account.ids[0]).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Refused(RefusalClass::Quota), "{error:?}");
    assert!(error.hint.unwrap().contains("Running On-Demand G and VT"));
}

#[tokio::test]
async fn s5_an_unknown_box_hides_no_other() {
    let pool = "[pool.gpu]\ninstances = [IDS]\n[pool.app]\ninstances = [\"i-00000000000000000\"]";
    let account = Account::open(Wanted { boxes: &[on_demand()], pool }).await;
    let listing = account.list().await;
    assert_eq!(listing.pools.len(), 2);
    let missing = &listing.pools[&"app".parse().unwrap()][0];
    assert!(missing.unstartable.as_ref().unwrap().contains("not known to EC2"));
    assert_eq!(listing.errors[0].class, PortErrorClass::NotFound);
    assert!(account.start(&account.ids[0]).await.is_ok());
}

#[tokio::test]
async fn a_truncated_response_is_an_error_and_never_a_missing_box() {
    let account = Account::stable(&[on_demand(), on_demand()]).await;
    account.front.truncate_next("DescribeInstances", 1);
    let error = account.cloud.boxes(&account.policy).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Unavailable, "{error:?}");
    assert_eq!(account.boxes().await.len(), 2);
}

#[tokio::test]
async fn r4_the_next_listing_shows_a_start_whose_response_was_lost() {
    let account = Account::stable(&[on_demand()]).await;
    account.front.lose_next("StartInstances");
    assert!(account.start(&account.ids[0]).await.is_err());
    let one = account.first().await;
    assert_eq!((one.state, one.foreign), (BoxState::Pending, None));
}

#[tokio::test]
async fn l14_a_denied_call_names_the_permission() {
    let account = Account::stable(&[on_demand()]).await;
    account.front.deny("StartInstances");
    let error = account.start(&account.ids[0]).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Denied, "{error:?}");
    assert!(error.hint.unwrap().contains("ec2:StartInstances"));
    let findings = account.cloud.check().await;
    let bad: Vec<String> = findings
        .iter()
        .filter(|finding| finding.problem.is_some())
        .map(|finding| finding.detail.clone())
        .collect();
    assert_eq!(bad, ["the dry run of ec2:StartInstances failed"]);
    assert_eq!(account.state().await, BoxState::Stopped, "a check starts nothing");
}

#[tokio::test]
async fn l7_two_thousand_boxes_come_in_three_calls() {
    let pool = "[pool.gpu]\nselect = { role = \"gpu\" }\nboxes_max = 1000";
    let account = Account::open(Wanted { boxes: &[], pool }).await;
    {
        let mut ec2 = account.front.ec2();
        ec2.settings.vcpus_on_demand = 100_000;
        let many = gpuctl_sim::world::ec2::RunInstances { count: 2_001, ..run(on_demand()) };
        ec2.run_instances(gpuctl_control::ports::Clock::now(&*account.clock), &many).unwrap();
    }
    let _ = account.front.calls();
    assert_eq!(account.boxes().await.len(), 2_001);
    assert_eq!(account.front.calls(), ["DescribeInstances"; 3]);
}

#[tokio::test]
async fn a_throttling_storm_is_an_error_of_its_own_class() {
    let account = Account::stable(&[on_demand()]).await;
    account.front.ec2().faults.throttled = 1_000;
    let error = account.cloud.boxes(&account.policy).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Throttled, "{error:?}");
}
