//! A file that is damaged, locked, full or from the future: a clear error with its class and a hint, and nothing lost.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;

use chrono::TimeDelta;
use gpuctl_control::ports::{NewMessage, PortErrorClass};
use gpuctl_core::units::QueueName;
use gpuctl_local::{FILE_NAME, Store, StoreOptions};
use tempfile::TempDir;

fn options(folder: &TempDir) -> StoreOptions {
    StoreOptions { folder: folder.path().to_owned(), file_mib_max: 1 }
}

fn class_of_opening(folder: &TempDir) -> PortErrorClass {
    let error = Store::open(&options(folder)).map(drop).unwrap_err();
    assert!(error.hint.is_some(), "{error}");
    error.class
}

#[test]
fn a_file_that_is_no_queue_file_is_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let garbage = b"this is not a database, but it is long enough to look like one: ".repeat(200);
    fs::write(folder.path().join(FILE_NAME), &garbage).unwrap();
    assert_eq!(class_of_opening(&folder), PortErrorClass::Corrupt);
    assert_eq!(fs::read(folder.path().join(FILE_NAME)).unwrap(), garbage);
}

#[test]
fn a_truncated_file_is_reported() {
    let folder = TempDir::new().unwrap();
    drop(Store::open(&options(&folder)).unwrap());
    let file = folder.path().join(FILE_NAME);
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.len() > 8_192, "{}", bytes.len());
    fs::write(&file, &bytes[..5_000]).unwrap();
    let opened = Store::open(&options(&folder));
    let failed = opened.and_then(|store| store.send_now(&name(), &[message(10)]));
    assert_eq!(failed.unwrap_err().class, PortErrorClass::Corrupt);
}

#[test]
fn a_newer_version_s_file_is_refused() {
    let folder = TempDir::new().unwrap();
    drop(Store::open(&options(&folder)).unwrap());
    let connection = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(class_of_opening(&folder), PortErrorClass::TooNew);
}

#[test]
fn a_file_locked_by_another_process_is_waited_for_and_then_reported() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&options(&folder)).unwrap();
    let other = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.send_now(&name(), &[message(10)]).unwrap_err();
    assert_eq!(error.class, PortErrorClass::Unavailable);
    other.execute_batch("ROLLBACK").unwrap();
    store.send_now(&name(), &[message(10)]).unwrap();
}

#[test]
fn a_full_file_refuses_a_message_whole_and_takes_it_once_there_is_room() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&options(&folder)).unwrap();
    let error = (0..1_000).find_map(|_| store.send_now(&name(), &[message(50_000)]).err()).unwrap();
    assert_eq!(error.class, PortErrorClass::Full);
    let roomier = Store::open(&StoreOptions { file_mib_max: 2, ..options(&folder) }).unwrap();
    roomier.send_now(&name(), &[message(50_000)]).unwrap();
}

fn name() -> QueueName {
    "jobs".parse().unwrap()
}

fn message(bytes: usize) -> NewMessage {
    NewMessage { body: "x".repeat(bytes), attributes: vec![], delay: TimeDelta::zero() }
}

#[test]
fn what_the_store_makes_is_private_to_its_user() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("a/state");
    let store = Store::open(&StoreOptions { folder: folder.clone(), file_mib_max: 1 }).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(store.folder(), folder);
    for made in [folder.parent().unwrap(), &folder, &folder.join("boxes")] {
        assert_eq!(mode(made), 0o700, "{}", made.display());
    }
    store.send_now(&name(), &[message(10)]).unwrap();
    for file in [FILE_NAME, "gpuctl.db-wal", "gpuctl.db-shm"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    // Of an older gpuctl, in a folder that lets others in.
    fs::set_permissions(folder.join(FILE_NAME), fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&StoreOptions { folder: folder.clone(), file_mib_max: 1 }).unwrap());
    assert_eq!(mode(&folder.join(FILE_NAME)), 0o600);
}
