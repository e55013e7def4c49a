//! How a box ends itself: by its own shutdown, and where that fails by EC2.

use std::time::Duration;

use aws_config::imds::Client;
use gpuctl_aws::OwnBox;
use gpuctl_control::ports::{Clock, Cloud, PortErrorClass};
use gpuctl_core::observation::BoxState;
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::BoxId;
use gpuctl_sim::world::ec2::SpotKind;

use super::support::{Account, aws, on_demand, spot};

/// A box of the pool `gpu` that runs, as its worker sees it. The metadata service ends with the first part.
async fn worker(account: &Account, power_off: &str) -> (impl Drop, OwnBox, BoxId) {
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
    let own = OwnBox::find_by(metadata, &aws, &policy, "gpu".parse().unwrap()).await.unwrap();
    let _ = account.front.calls();
    (imds, own.with_shutdown_max(Duration::ZERO), id.parse().unwrap())
}

/// W1
#[tokio::test]
async fn a_box_that_cannot_shut_itself_down_is_stopped_by_ec2() {
    for power_off in ["[\"/nowhere/poweroff\"]", "[\"false\"]"] {
        let account = Account::stable(&[on_demand()]).await;
        let (_imds, own, id) = worker(&account, power_off).await;
        own.stop(&id, StopMode::Drain).await.unwrap();
        assert_eq!(account.front.calls(), ["CreateTags", "StopInstances"]);
        own.see_off().await.unwrap();
        assert_eq!(account.front.calls(), [""; 0], "it is asked once");
        account.clock.pass(60);
        assert_eq!(account.state().await, BoxState::Stopped);
    }
}

#[tokio::test]
async fn a_box_that_outlives_its_shutdown_is_stopped_by_ec2() {
    let account = Account::stable(&[on_demand()]).await;
    let (_imds, own, id) = worker(&account, "[\"true\"]").await;
    own.see_off().await.unwrap();
    assert_eq!(account.front.calls(), [""; 0], "nobody has asked it to stop");
    own.stop(&id, StopMode::Drain).await.unwrap();
    assert_eq!(account.front.calls(), [""; 0], "the system has taken the order");
    own.see_off().await.unwrap();
    assert_eq!(account.front.calls(), ["CreateTags", "StopInstances"]);
}

#[tokio::test]
async fn r1_a_stop_that_ec2_did_for_the_worker_is_no_foreign_one() {
    let account = Account::stable(&[on_demand()]).await;
    // The tag has the real time of day, as on a box; so has EC2's word.
    let ahead = gpuctl_control::clock::SystemClock.now() - account.clock.now();
    account.clock.pass(ahead.num_seconds());
    let (_imds, own, id) = worker(&account, "[\"false\"]").await;
    own.stop(&id, StopMode::Drain).await.unwrap();
    account.clock.pass(60);
    let one = account.first().await;
    assert_eq!((one.state, one.foreign), (BoxState::Stopped, None));
}

#[tokio::test]
async fn a_fault_of_ec2_is_tried_again() {
    let account = Account::stable(&[on_demand()]).await;
    let (_imds, own, id) = worker(&account, "[\"false\"]").await;
    account.front.lose_next("StopInstances");
    own.stop(&id, StopMode::Drain).await.unwrap();
    assert_eq!(account.front.calls(), ["CreateTags", "StopInstances", "StopInstances"]);
}

#[tokio::test]
async fn l14_a_worker_that_may_not_stop_its_box_names_the_permission() {
    let account = Account::stable(&[on_demand()]).await;
    let (_imds, own, id) = worker(&account, "[\"false\"]").await;
    account.front.deny("StopInstances");
    let error = own.stop(&id, StopMode::Drain).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Denied, "{error:?}");
    assert!(error.to_string().contains("`false` did not shut this box down"), "{error:?}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("power_off") && hint.contains("ec2:StopInstances"), "{hint}");
}

#[tokio::test]
async fn p1_a_one_time_spot_box_is_refused_by_ec2_and_goes_on() {
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
    let own = OwnBox::find_by(metadata, &aws, &policy, "gpu".parse().unwrap()).await.unwrap();
    let error = own.stop(&id.parse().unwrap(), StopMode::Drain).await.unwrap_err();
    assert!(format!("{:?}", error.cause).contains("UnsupportedOperation"), "{error:?}");
}

/// W2
#[tokio::test]
async fn a_launched_box_ends_by_its_shutdown_alone() {
    let account = Account::stable(&[on_demand()]).await;
    let now = account.clock.now();
    let tag = [("gpuctl:box".to_owned(), "gpu-on-demand-1".to_owned())].into();
    account.front.ec2().create_tags(now, &account.ids, &tag).unwrap();
    let (_imds, own, _) = worker(&account, "[\"false\"]").await;
    assert_eq!(own.identity().box_id.as_str(), "gpu-on-demand-1");
    let error = own.stop(&own.identity().box_id, StopMode::Drain).await.unwrap_err();
    assert!(error.hint.unwrap().contains("InstanceInitiatedShutdownBehavior"));
    assert_eq!(account.front.calls(), [""; 0]);
}
