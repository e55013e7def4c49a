//! The locks by which the workers of one box know of each other, as files in the state folder. The kernel frees what an ended process held.
//!
//! A box has one worker, or one for each of its devices. Each locks its scratch. Those of several devices also share the box's lock while
//! they serve; the one that ends last gets it alone, and with it the right to power the box off.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use gpuctl_core::units::BoxId;
use gpuctl_worker::Neighbours;

use crate::scratch::{FOLDER, LOCK};

/// The file that is locked by the worker which stops the box.
const STOP: &str = "stop";

/// The right to serve on a box, or on one of its devices.
#[derive(Debug)]
pub struct BoxLocks {
    /// Of the device, where the box has several workers.
    _device: Option<File>,
    box_lock: File,
    stop: File,
}

impl BoxLocks {
    /// Takes the locks; `None` if another process serves there.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn take(state: &Path, box_id: &BoxId, device: Option<&str>) -> io::Result<Option<Self>> {
        let folder = state.join(FOLDER).join(box_id.as_str());
        fs::create_dir_all(&folder)?;
        let open = |name: &str| File::create(folder.join(name));
        let (box_lock, stop) = (open(LOCK)?, open(STOP)?);
        let Some(device) = device else {
            let is_ours = taken(box_lock.try_lock())?;
            return Ok(is_ours.then_some(Self { _device: None, box_lock, stop }));
        };
        let device_lock = open(&format!("{LOCK}-{device}"))?;
        let is_ours = taken(device_lock.try_lock())? && taken(box_lock.try_lock_shared())?;
        Ok(is_ours.then_some(Self { _device: Some(device_lock), box_lock, stop }))
    }
}

impl Neighbours for BoxLocks {
    fn is_last(&self) -> bool {
        // If others serve, the shared lock is lost by this.
        is_taken(self.box_lock.try_lock()) && is_taken(self.stop.try_lock())
    }

    fn may_stop_box(&self) -> bool {
        is_taken(self.stop.try_lock())
    }
}

/// Whether a lock was taken; `false` if another process has it.
fn taken(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The same where a lock that fails must not keep the box on.
fn is_taken(tried: Result<(), TryLockError>) -> bool {
    taken(tried).unwrap_or_else(|error| {
        tracing::error!(%error, "a lock file of this box cannot be locked");
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(state: &tempfile::TempDir, box_id: &str, device: Option<&str>) -> Option<BoxLocks> {
        BoxLocks::take(state.path(), &box_id.parse().unwrap(), device).unwrap()
    }

    #[test]
    fn a_box_has_one_worker_at_a_time_or_one_for_each_device() {
        let state = tempfile::tempdir().unwrap();
        let first = take(&state, "gpu-1", None);
        assert!(first.is_some());
        assert!(take(&state, "gpu-1", None).is_none());
        assert!(take(&state, "gpu-1", Some("0")).is_none());
        assert!(take(&state, "gpu-2", None).is_some());
        drop(first);
        let devices = [take(&state, "gpu-1", Some("0")), take(&state, "gpu-1", Some("1"))];
        assert!(devices.iter().all(Option::is_some));
        assert!(take(&state, "gpu-1", Some("1")).is_none());
        assert!(take(&state, "gpu-1", None).is_none());
        drop(devices);
        assert!(take(&state, "gpu-1", None).is_some());
    }

    #[test]
    fn the_last_worker_of_a_box_is_told_so_and_only_one_is() {
        let state = tempfile::tempdir().unwrap();
        let [a, b, c] = ["0", "1", "2"].map(|device| take(&state, "gpu-1", Some(device)).unwrap());
        assert!(!a.is_last() && !b.is_last());
        assert!(!a.is_last(), "another one still serves");
        assert!(c.is_last() && c.is_last());
        assert!(!a.is_last() && !b.is_last(), "it is being done");
        // It could not power the box off.
        drop(c);
        assert!(b.is_last() && !a.is_last());
    }

    #[test]
    fn of_idle_workers_one_stops_the_box_for_all() {
        let state = tempfile::tempdir().unwrap();
        let [a, b] = ["0", "1"].map(|device| take(&state, "gpu-1", Some(device)).unwrap());
        assert!(a.may_stop_box() && a.may_stop_box());
        assert!(!b.may_stop_box() && !b.is_last());
        drop(a);
        assert!(b.is_last());
    }

    #[test]
    fn a_worker_that_is_alone_is_the_last() {
        let state = tempfile::tempdir().unwrap();
        for device in [None, Some("0")] {
            let alone = take(&state, "gpu-1", device).unwrap();
            assert!(alone.may_stop_box() && alone.is_last());
        }
    }
}
