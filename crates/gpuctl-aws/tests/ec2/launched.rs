//! Boxes that are launched from a template when needed, and terminated when idle.

use gpuctl_control::ports::{Clock, Cloud, PortErrorClass};
use gpuctl_core::observation::BoxState;
use gpuctl_core::offering::{CapacityType, RefusalClass};
use gpuctl_core::plan::StopMode;

use super::support::{Account, Wanted, on_demand, run};

const POOL: &str = "[pool.gpu]\nlaunch_template = \"gpu\"\ninstance_types = [\"g4dn.xlarge\"]\n\
    subnets = [\"subnet-us-east-1a\", \"subnet-us-east-1b\"]\nboxes_max = 2";

async fn empty() -> Account {
    Account::open(Wanted { boxes: &[], pool: POOL }).await
}

#[tokio::test]
async fn a_launch_fills_a_slot_and_retire_frees_it() {
    let account = empty().await;
    let places = account.boxes().await;
    let names: Vec<&str> = places.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(names, ["gpu-spot-1", "gpu-spot-2", "gpu-on-demand-1", "gpu-on-demand-2"]);
    assert!(places.iter().all(|one| one.state == BoxState::Stopped));
    account.start("gpu-spot-1").await.unwrap();
    account.clock.pass(60);
    let one = account.first().await;
    assert_eq!((one.state, one.foreign.is_none()), (BoxState::Running, true));
    assert_eq!(one.offering.unwrap().to_string(), "spot g4dn.xlarge in us-east-1a");
    let _ = account.front.calls();
    account.cloud.stop(&one.id, StopMode::Drain).await.unwrap();
    assert_eq!(account.front.calls().last().map(String::as_str), Some("TerminateInstances"));
    account.clock.pass(120);
    let one = account.first().await;
    assert_eq!((one.state, one.unstartable, one.last_error), (BoxState::Stopped, None, None));
}

/// Its worker finishes what it holds first; whether it does or not, the box ends.
#[tokio::test]
async fn a_launched_box_with_a_worker_drains_before_it_is_terminated() {
    let pool = format!("table = \"t\"\n{POOL}\nqueue = \"jobs\"");
    let account = Account::open(Wanted { boxes: &[], pool: &pool }).await;
    account.start("gpu-spot-1").await.unwrap();
    account.clock.pass(60);
    let one = account.first().await;
    let _ = account.front.calls();
    account.cloud.stop(&one.id, StopMode::Drain).await.unwrap();
    assert_eq!(account.front.calls(), ["CreateTags"]);
    let told_at = account.clock.now();
    account.clock.pass(10);
    let one = account.first().await;
    assert_eq!((one.state, one.since, one.foreign), (BoxState::Stopping, told_at, None));
    let _ = account.front.calls();
    // A second order gives it no more time.
    account.cloud.stop(&one.id, StopMode::Drain).await.unwrap();
    assert_eq!(account.front.calls(), [""; 0]);
    account.cloud.stop(&one.id, StopMode::Force).await.unwrap();
    assert_eq!(account.front.calls().last().map(String::as_str), Some("TerminateInstances"));
    account.clock.pass(120);
    assert_eq!(account.state().await, BoxState::Stopped);
}

#[tokio::test]
async fn r4_the_same_order_twice_launches_one_box() {
    let account = empty().await;
    account.start("gpu-on-demand-1").await.unwrap();
    account.start("gpu-on-demand-1").await.unwrap();
    account.clock.pass(60);
    assert_eq!(account.front.ec2().instances().count(), 1);
    let up = account.boxes().await.into_iter().filter(|one| one.state == BoxState::Running).count();
    assert_eq!(up, 1);
}

#[tokio::test]
async fn r4_a_launch_whose_response_is_lost_is_not_repeated() {
    let account = empty().await;
    account.front.lose_next("CreateFleet");
    assert!(account.start("gpu-spot-1").await.is_err());
    account.start("gpu-spot-1").await.unwrap();
    assert_eq!(account.front.ec2().instances().count(), 1);
}

#[tokio::test]
async fn p8_a_fleet_that_launches_nothing_is_a_refusal() {
    let account = empty().await;
    account.capacity(CapacityType::Spot, false);
    account.list().await;
    let error = account.start("gpu-spot-1").await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Refused(RefusalClass::Capacity), "{error:?}");
    account.start("gpu-on-demand-1").await.unwrap();
    account.front.ec2().settings.vcpus_spot = 0;
    account.capacity(CapacityType::Spot, true);
    account.list().await;
    let error = account.start("gpu-spot-2").await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Refused(RefusalClass::Quota), "{error:?}");
}

#[tokio::test]
async fn a_spot_box_that_ec2_terminated_frees_its_slot_and_says_when() {
    let account = empty().await;
    account.start("gpu-spot-1").await.unwrap();
    account.clock.pass(60);
    account.capacity(CapacityType::Spot, false);
    account.clock.pass(300);
    let one = account.first().await;
    assert_eq!((one.state, one.unstartable), (BoxState::Stopped, None));
    assert!(one.interruption.is_some());
}

#[tokio::test]
async fn a_second_box_in_one_slot_is_listed_and_can_be_retired() {
    let account = empty().await;
    account.start("gpu-on-demand-1").await.unwrap();
    let twin = {
        let mut ec2 = account.front.ec2();
        let tags = ec2.instances().next().unwrap().tags.clone();
        let asked = gpuctl_sim::world::ec2::RunInstances {
            tags,
            ..super::support::run(super::support::on_demand())
        };
        let now = account.clock.now();
        ec2.run_instances(now, &asked).unwrap().remove(0).id
    };
    account.clock.pass(60);
    let boxes = account.boxes().await;
    let up: Vec<_> = boxes.iter().filter(|one| one.state == BoxState::Running).collect();
    assert_eq!(up.len(), 2, "{boxes:?}");
    let extra = up.iter().find(|one| one.id.as_str().starts_with("i-")).unwrap();
    account.cloud.stop(&extra.id, StopMode::Drain).await.unwrap();
    account.clock.pass(120);
    let left: Vec<String> = account
        .front
        .ec2()
        .instances()
        .filter(|one| one.is_there())
        .map(|one| one.id.clone())
        .collect();
    assert_eq!(left.len(), 1, "one of {twin} and its twin stays");
}

/// Another stack's kept box has the pool's tag too: it must not be ended as a surplus box.
#[tokio::test]
async fn a_box_that_was_not_launched_for_the_pool_is_not_in_it() {
    let account = empty().await;
    let mut kept = run(on_demand());
    kept.tags.insert("gpuctl:pool".to_owned(), "gpu".to_owned());
    let now = account.clock.now();
    account.front.ec2().run_instances(now, &kept).unwrap();
    assert!(account.boxes().await.iter().all(|one| !one.is_up()));
}
