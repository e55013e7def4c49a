//! Boxes are processes with EC2's states, and their life is a lock, which every process sees.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
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

    async fn wait_for_file(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.folder.path().join(name).exists() {
            assert!(Instant::now() < deadline, "no {name} in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// When the box was last noted as alive, in microseconds since 1970.
    fn alive_at(&self) -> i64 {
        let file = rusqlite::Connection::open(self.folder.path().join(FILE_NAME)).unwrap();
        file.query_row("SELECT alive_at FROM boxes", [], |row| row.get(0)).unwrap()
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
    let other = world.cloud();
    assert_eq!(world.the_box(&other).await.state, BoxState::Running);
    other.stop(&order("a").box_id, StopMode::Drain).await.unwrap();
    world.wait_for(&other, BoxState::Stopped).await;
    other.stop(&order("a").box_id, StopMode::Drain).await.unwrap();
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
    let command = r#"["sh", "-c", "trap '' TERM; touch trap-is-set; while :; do sleep 1; done"]"#;
    let world = World::new(command);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    // A signal before the shell has set its trap would end the shell.
    world.wait_for_file("trap-is-set").await;
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

/// A box that is a worker: here a script in its place.
fn worker_world(script: &str) -> (World, LocalCloud) {
    let policy = Policy::parse("[pool.app]\nqueue = \"jobs\"").unwrap();
    let world = World { folder: TempDir::new().unwrap(), policy };
    let worker = world.folder.path().join("worker");
    std::fs::write(&worker, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o700)).unwrap();
    let options = StoreOptions { folder: world.folder.path().to_owned(), file_mib_max: 64 };
    let launcher = Launcher {
        worker,
        config: None,
        folder: world.folder.path().to_owned(),
        policy: world.policy.clone(),
    };
    let cloud = LocalCloud::new(Store::open(&options).unwrap(), Some(launcher));
    (world, cloud)
}

#[tokio::test]
async fn a_drain_signals_the_worker_and_not_its_children() {
    // As the worker with espeak-ng: it lets its child finish what it does.
    let script = "trap 'touch told' TERM\nsh -c 'trap \"touch child-told; exit\" TERM; touch up; while [ ! -e end ]; do sleep 0.02; done' </dev/null &\nwait; wait";
    let (world, cloud) = worker_world(script);
    cloud.start(&order("a")).await.unwrap();
    world.wait_for_file("up").await;
    cloud.stop(&order("a").box_id, StopMode::Drain).await.unwrap();
    world.wait_for_file("told").await;
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Stopping);
    std::fs::write(world.folder.path().join("end"), "").unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
    assert!(!world.folder.path().join("child-told").exists());
}

#[tokio::test]
async fn a_child_that_left_the_session_is_ended_by_force() {
    // It keeps the lock, and is in no group that was noted.
    let world = World::new(
        r#"["sh", "-c", "exec 3<&0; setsid sh -c 'trap : TERM; touch up; while :; do sleep 0.1; done' <&3 & while [ ! -e up ]; do sleep 0.02; done"]"#,
    );
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    world.wait_for_file("up").await;
    cloud.stop(&order("a").box_id, StopMode::Drain).await.unwrap();
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Stopping);
    world.cloud().stop(&order("a").box_id, StopMode::Force).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
}

#[tokio::test]
async fn a_process_that_has_the_box_s_old_pid_is_left_alone() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    let mut stranger =
        std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
    let file = rusqlite::Connection::open(world.folder.path().join(FILE_NAME)).unwrap();
    file.execute("UPDATE boxes SET pid = ?1", [stranger.id()]).unwrap();
    file.execute("UPDATE boxes SET pid_started = pid_started - 1", []).unwrap();
    for mode in [StopMode::Drain, StopMode::Force] {
        cloud.stop(&order("a").box_id, mode).await.unwrap();
    }
    world.wait_for(&cloud, BoxState::Stopped).await;
    assert!(stranger.try_wait().unwrap().is_none(), "it was signalled");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_lock_that_nobody_here_can_be_ended_for_is_given_up_by_force() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    cloud.stop(&order("a").box_id, StopMode::Force).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
    // This process stands for one that cannot be ended, such as one outside a container.
    let lock = std::fs::File::open(world.folder.path().join("boxes/app-1.lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Stopping);
    cloud.stop(&order("a").box_id, StopMode::Force).await.unwrap();
    assert_eq!(world.the_box(&cloud).await.state, BoxState::Stopped);
    cloud.start(&order("b")).await.unwrap();
    world.wait_for(&cloud, BoxState::Running).await;
    cloud.stop(&order("b").box_id, StopMode::Force).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
}

#[tokio::test]
async fn a_box_of_a_pool_that_left_the_policy_is_found() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    cloud.start(&order("a")).await.unwrap();
    let options = StoreOptions { folder: world.folder.path().to_owned(), file_mib_max: 64 };
    let other = Policy::parse("[pool.web]\ncommand = [\"sleep\", \"1\"]").unwrap();
    let found = Store::open(&options).unwrap().boxes_without_pool(&other).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "app-1");
    cloud.stop(&order("a").box_id, StopMode::Force).await.unwrap();
    world.wait_for(&cloud, BoxState::Stopped).await;
}

#[tokio::test]
async fn listing_boxes_writes_nothing_and_a_note_moves_the_last_sign_of_life() {
    let world = World::new(r#"["sleep", "60"]"#);
    let cloud = world.cloud();
    let order = order("a");
    let started = SystemClock.now() - TimeDelta::minutes(5);
    cloud.start(&StartOrder { at: started, ..order.clone() }).await.unwrap();
    let noted = world.alive_at();
    world.the_box(&cloud).await;
    assert_eq!((noted, world.alive_at()), (started.timestamp_micros(), noted));
    cloud.note_alive(std::slice::from_ref(&order.box_id)).await.unwrap();
    let moved = world.alive_at();
    assert!(moved > noted + TimeDelta::minutes(4).num_microseconds().unwrap());
    cloud.note_alive(std::slice::from_ref(&order.box_id)).await.unwrap();
    assert_eq!(world.alive_at(), moved, "a second note within seconds is no write");
    cloud.stop(&order.box_id, StopMode::Force).await.unwrap();
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
