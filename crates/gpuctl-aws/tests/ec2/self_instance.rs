//! How a box shuts itself down, and that EC2 is asked to stop it where that fails.

use std::time::Duration;

use aws_config::imds::Client;
use gpuctl_aws::SelfInstance;
use gpuctl_control::ports::{Clock, Cloud, PortErrorClass};
use gpuctl_core::observation::BoxState;
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::BoxId;
use gpuctl_sim::wire::Imds;
use gpuctl_sim::world::ec2::SpotKind;

use super::support::{Account, aws, on_demand, spot};

/// A running box of the pool `gpu`, as its worker sees it. The metadata service stops when the first part is dropped.
async fn worker(account: &Account, power_off: &str) -> (Imds, SelfInstance, BoxId) {
    let id = account.ids[0].clone();
    account.start(&id).await.unwrap();
    account.clock.pass(30);
    assert_eq!(account.state().await, BoxState::Running);
    let imds = account.front.imds(&id).await.unwrap();
    let metadata = Client::builder().endpoint(imds.url()).unwrap().build();
    let text = format!(
        "[cloud]\nkind = \"aws\"\n[pool.gpu]\ninstances = [\"{id}\"]\n[worker]\npower_off = {power_off}"
    );
    let policy = Policy::parse(&text).unwrap();
    let aws = aws(&account.front.url());
    let instance =
        SelfInstance::find_by(metadata, &aws, &policy, "gpu".parse().unwrap()).await.unwrap();
    let _ = account.front.calls();
    (imds, instance.with_shutdown_max(Duration::ZERO), id.parse().unwrap())
}

/// W1
#[tokio::test]
async fn a_box_that_cannot_shut_itself_down_is_stopped_by_ec2() {
    for power_off in ["[\"/nowhere/poweroff\"]", "[\"false\"]"] {
        let account = Account::stable(&[on_demand()]).await;
        let (_imds, instance, id) = worker(&account, power_off).await;
        instance.stop(&id, StopMode::Drain).await.unwrap();
        assert_eq!(account.front.calls(), ["CreateTags", "StopInstances"]);
        instance.wait_for_shutdown().await.unwrap();
        assert_eq!(account.front.calls(), [""; 0], "it is asked once");
        account.clock.pass(60);
        assert_eq!(account.state().await, BoxState::Stopped);
    }
}

#[tokio::test]
async fn a_box_that_outlives_its_shutdown_is_stopped_by_ec2() {
    let account = Account::stable(&[on_demand()]).await;
    let (_imds, instance, id) = worker(&account, "[\"true\"]").await;
    instance.wait_for_shutdown().await.unwrap();
    assert_eq!(account.front.calls(), [""; 0], "no stop was ordered");
    instance.stop(&id, StopMode::Drain).await.unwrap();
    assert_eq!(account.front.calls(), [""; 0], "the system has accepted the shutdown");
    instance.wait_for_shutdown().await.unwrap();
    assert_eq!(account.front.calls(), ["CreateTags", "StopInstances"]);
}

#[tokio::test]
async fn r1_a_stop_by_ec2_that_the_worker_asked_for_is_not_foreign() {
    let account = Account::stable(&[on_demand()]).await;
    // The tag has the real time, as on a box; so must EC2's state reason.
    let ahead = gpuctl_control::clock::SystemClock.now() - account.clock.now();
    account.clock.pass(ahead.num_seconds());
    let (_imds, instance, id) = worker(&account, "[\"false\"]").await;
    instance.stop(&id, StopMode::Drain).await.unwrap();
    account.clock.pass(60);
    let one = account.first().await;
    assert_eq!((one.state, one.foreign), (BoxState::Stopped, None));
}

#[tokio::test]
async fn a_fault_of_ec2_is_retried() {
    let account = Account::stable(&[on_demand()]).await;
    let (_imds, instance, id) = worker(&account, "[\"false\"]").await;
    account.front.lose_next("StopInstances");
    instance.stop(&id, StopMode::Drain).await.unwrap();
    assert_eq!(account.front.calls(), ["CreateTags", "StopInstances", "StopInstances"]);
}

#[tokio::test]
async fn l14_a_worker_that_may_not_stop_its_box_names_the_permission() {
    let account = Account::stable(&[on_demand()]).await;
    let (_imds, instance, id) = worker(&account, "[\"false\"]").await;
    account.front.deny("StopInstances");
    let error = instance.stop(&id, StopMode::Drain).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Denied, "{error:?}");
    assert!(error.to_string().contains("`false` did not shut this box down"), "{error:?}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("power_off") && hint.contains("ec2:StopInstances"), "{hint}");
}

#[tokio::test]
async fn p1_ec2_rejects_the_stop_of_a_one_time_spot_box() {
    let account = Account::stable(&[on_demand()]).await;
    let now = account.clock.now();
    let request = super::support::run(spot(SpotKind::OneTime));
    let id = account.front.ec2().run_instances(now, &request).unwrap().remove(0).id;
    account.clock.pass(30);
    let imds = account.front.imds(&id).await.unwrap();
    let metadata = Client::builder().endpoint(imds.url()).unwrap().build();
    let text = format!(
        "[cloud]\nkind = \"aws\"\n[pool.gpu]\ninstances = [\"{id}\"]\n[worker]\npower_off = [\"false\"]"
    );
    let policy = Policy::parse(&text).unwrap();
    let aws = aws(&account.front.url());
    let instance =
        SelfInstance::find_by(metadata, &aws, &policy, "gpu".parse().unwrap()).await.unwrap();
    let error = instance.stop(&id.parse().unwrap(), StopMode::Drain).await.unwrap_err();
    assert!(format!("{:?}", error.cause).contains("UnsupportedOperation"), "{error:?}");
}

/// W2
#[tokio::test]
async fn a_launched_box_is_ended_only_by_its_shutdown() {
    let account = Account::stable(&[on_demand()]).await;
    let now = account.clock.now();
    let tag = [("gpuctl:box".to_owned(), "gpu-on-demand-1".to_owned())].into();
    account.front.ec2().create_tags(now, &account.ids, &tag).unwrap();
    let (_imds, instance, _) = worker(&account, "[\"false\"]").await;
    assert_eq!(instance.identity().box_id.as_str(), "gpu-on-demand-1");
    let error = instance.stop(&instance.identity().box_id, StopMode::Drain).await.unwrap_err();
    assert!(error.hint.unwrap().contains("InstanceInitiatedShutdownBehavior"));
    assert_eq!(account.front.calls(), [""; 0]);
}

/// The hook of the service manager has the rights that the worker does not need.
#[tokio::test]
async fn a_box_whose_hook_powers_it_off_by_the_exit_code_runs_no_command() {
    let account = Account::stable(&[on_demand()]).await;
    let (_imds, instance, id) = worker(&account, "\"exit-code\"").await;
    instance.stop(&id, StopMode::Drain).await.unwrap();
    instance.wait_for_shutdown().await.unwrap();
    assert_eq!(account.front.calls(), [""; 0], "the process ends, and the hook does the rest");
}

#[tokio::test]
async fn a_launched_box_sees_that_it_is_told_to_drain_and_one_that_is_kept_does_not() {
    for (slot, wanted) in [(true, BoxState::Stopping), (false, BoxState::Running)] {
        let account = Account::stable(&[on_demand()]).await;
        if slot {
            let tag = [("gpuctl:box".to_owned(), "gpu-on-demand-1".to_owned())].into();
            account.front.ec2().create_tags(account.clock.now(), &account.ids, &tag).unwrap();
        }
        let (_imds, instance, _) = worker(&account, "[\"false\"]").await;
        let own = async || {
            let listing = instance.boxes(&account.policy).await.unwrap();
            listing.pools.into_values().flatten().next().unwrap()
        };
        assert_eq!(own().await.state, BoxState::Running);
        account.clock.pass(10);
        let now = account.clock.now();
        let told = [("gpuctl:stopped".to_owned(), now.to_rfc3339())].into();
        account.front.ec2().create_tags(now, &account.ids, &told).unwrap();
        assert_eq!(own().await.state, wanted);
    }
}

#[tokio::test]
async fn p13_a_rebalance_recommendation_is_seen_and_stops_nothing() {
    let account = Account::stable(&[spot(SpotKind::Persistent)]).await;
    let (_imds, instance, id) = worker(&account, "[\"false\"]").await;
    let own = async || {
        let listing = instance.boxes(&account.policy).await.unwrap();
        listing.pools.into_values().flatten().next().unwrap()
    };
    assert_eq!(own().await.rebalance, None);
    let now = account.clock.now();
    account.front.ec2().recommend_rebalance(now, id.as_str());
    let one = own().await;
    assert_eq!((one.rebalance, one.interruption, one.state), (Some(now), None, BoxState::Running));
}
