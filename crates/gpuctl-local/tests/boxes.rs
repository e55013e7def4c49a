//! Boxes are processes with EC2's states, and their life is a lock: any process sees it, whoever started them.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use gpuctl_control::ports::{Clock, Cloud, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_local::{FILE_NAME, Launcher, LocalCloud, Store, StoreOptions, SystemClock};
use tempfile::TempDir;

struct World {
    folder: TempDir,
    policy: Policy,
}

impl World {
    fn new(command: &str) -> Self {
        let policy = Policy::parse(&format!("[pool.app]\ncommand = {command}")).unwrap();
        Self { folder: TempDir::new().unwrap(), policy }
    }

    /// Boxes as a new process would see them.
    fn cloud(&self) -> LocalCloud {
        let options = StoreOptions { folder: self.folder.path().to_owned(), file_mib_max: 64 };
        let launcher = Launcher {
            worker: "gpu-worker".into(),
            config: None,
            folder: self.folder.path().to_owned(),
            policy: self.policy.clone(),
        };
        LocalCloud::new(Store::open(&options).unwrap(), Some(launcher))
    }

    async fn the_box(&self, cloud: &LocalCloud) -> SeenBox {
        cloud.boxes(&self.policy).await.unwrap().pools.pop_first().unwrap().1.remove(0)
    }

    async fn wait_for(&self, cloud: &LocalCloud, state: BoxState) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.the_box(cloud).await.state != state {
            assert!(Instant::now() < deadline, "not {state:?} in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn order(token: &str) -> StartOrder {
    let at = SystemClock.now();
    StartOrder {
        pool: "app".parse().unwrap(),
        box_id: "app-1".parse().unwrap(),
        at,
        token: token.to_owned(),
    }
}

#[tokio::test]
async fn a_box_runs_until_stopped_and_another_process_can_stop_it() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Stopped);
    cloud.start(&order("a")).await.unwrap();
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Pending);
    world.wait_for(&cloud, BoxState::Running).await;
    let stranger = world.cloud();
    assert_eq!(world.the_box(&stranger).await.state, BoxState::Running);
    stranger.stop(&order("a").box_id, StopMode::Drain).await.unwrap();
    world.wait_for(&stranger, BoxState::Stopped).await;
    stranger.stop(&order("a").box_id, StopMode::Drain).await.unwrap();
}

#[tokio::test]
async fn the_same_order_twice_starts_once_and_another_is_a_conflict() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    cloud.start(&order("a")).await.unwrap();
    world.cloud().start(&order("a")).await.unwrap();
    assert_eq!(cloud.start(&order("b")).await.unwrap_err().class, PortErrorClass::Conflict);
    cloud.stop(&order("a").box_id, StopMode::Force).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
}

#[tokio::test]
async fn a_box_that_ignores_the_polite_signal_is_stopping_until_forced() {
    let world = World::new(r#"["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]"#);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    // Only once the shell has set its trap does the signal meet it; before, it would end the shell.
    tokio::time::sleep(Duration::from_millis(200)).await;
    cloud.stop(&order("a").box_id, StopMode::Drain).await.unwrap();
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Stopping);
    cloud.stop(&order("a").box_id, StopMode::Force).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
}

#[tokio::test]
async fn a_box_whose_starter_died_before_noting_its_pid_can_still_be_stopped() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    let file = rusqlite::Connection::open(world.folder.path().join(FILE_NAME)).unwrap();
    file.execute("UPDATE boxes SET pid = NULL", []).unwrap();
    world.cloud().stop(&order("a").box_id, StopMode::Drain).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
}

#[tokio::test]
async fn a_box_of_a_pool_that_left_the_policy_is_found() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    let options = StoreOptions { folder: world.folder.path().to_owned(), file_mib_max: 64 };
    let other = Policy::parse("[pool.web]\ncommand = [\"sleep\", \"1\"]").unwrap();
    let strays = Store::open(&options).unwrap().strays(&other).unwrap();
    assert_eq!(strays.len(), 1);
    assert_eq!(strays[0].0, "app-1");
    cloud.stop(&order("a").box_id, StopMode::Force).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let world = World::new(r#"["./no-such-program"]"#);
    let cloud = world.cloud();
    let error = cloud.start(&order("a")).await.unwrap_err();
    assert!(error.hint.unwrap().contains("no-such-program"));
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Stopped);
}
