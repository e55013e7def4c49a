//! The worker's trait [`Scratch`] over a folder: one file a blob.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gpuctl_core::units::BoxId;
use gpuctl_worker::{KEEP_UNTIL, Scratch};

/// A folder of blobs, and the file `keep-until` of the state folder, which a user writes.
#[derive(Clone, Debug)]
pub struct FolderScratch {
    folder: PathBuf,
    /// The same for all workers of the box: one that is alive is enough.
    alive: PathBuf,
    keep_until: PathBuf,
    /// The blob that was appended to last, and its open file: opened and closed for each marker, the folder would be what all jobs wait for.
    appended: Arc<Mutex<Option<(String, File)>>>,
}

impl FolderScratch {
    /// The scratch of a box's worker in this state folder; of a box with several workers, of the one on this device.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn open(state: &Path, box_id: &BoxId, device: Option<&str>) -> io::Result<Self> {
        let mut folder = state.join(FOLDER).join(box_id.as_str());
        let alive = folder.join(ALIVE);
        if let Some(device) = device {
            folder.push(format!("device-{device}"));
        }
        fs::create_dir_all(&folder)?;
        let keep_until = state.join(KEEP_UNTIL);
        Ok(Self { folder, alive, keep_until, appended: Arc::default() })
    }

    /// Notes that this worker does something at least every [`ALIVE_EVERY`]. Where the disk is full there is nothing to note it on.
    pub fn say_alive(&self) {
        let _ = fs::write(&self.alive, b"");
    }

    /// Whether the worker of this box has said so lately; without a box of this name, any worker in the state folder.
    ///
    /// # Errors
    /// It has not.
    pub fn check_alive(state: &Path, box_id: Option<&BoxId>) -> Result<(), Box<dyn Error>> {
        let all = state.join(FOLDER);
        let own = box_id.map(|id| all.join(id.as_str())).filter(|own| own.is_dir());
        let is_alive = |folder: &Path| {
            let said = folder.join(ALIVE).metadata().and_then(|file| file.modified());
            // One that lies ahead was written before the clock was set back: not a sign of illness.
            said.is_ok_and(|said| said.elapsed().is_ok_and(|age| age < ALIVE_AGE_MAX))
        };
        let any = || {
            let mut folders = all.read_dir().into_iter().flatten().flatten();
            folders.any(|folder| is_alive(&folder.path()))
        };
        if own.map_or_else(any, |own| is_alive(&own)) {
            return Ok(());
        }
        let seconds = ALIVE_AGE_MAX.as_secs();
        Err(format!("no worker in {} was alive in the last {seconds} s", state.display()).into())
    }

    fn appended(&self) -> MutexGuard<'_, Option<(String, File)>> {
        self.appended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is appended to this blob next is not to go to the file that had its name.
    fn close(&self, name: &str) {
        self.appended().take_if(|(of, _)| of == name);
    }

    fn path(&self, name: &str) -> PathBuf {
        if name == KEEP_UNTIL { self.keep_until.clone() } else { self.folder.join(name) }
    }
}

/// The folder of all boxes' scratches in the state folder.
pub(crate) const FOLDER: &str = "worker";
/// The file whose time says that the worker is alive.
const ALIVE: &str = "alive";
/// How often it says so.
pub const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// After this silence it counts as hung: a busy machine delays it by seconds, never by this much.
const ALIVE_AGE_MAX: Duration = Duration::from_secs(60);
/// The file that a worker locks.
pub(crate) const LOCK: &str = "lock";

/// What the name of a blob ends in while it is written.
const UNFINISHED: &str = ".tmp";

impl Scratch for FolderScratch {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Not synced: it has to survive this process, which may be killed, and not the machine.
        let unfinished = self.folder.join(format!("{name}{UNFINISHED}"));
        fs::write(&unfinished, bytes)?;
        fs::rename(unfinished, self.path(name))?;
        self.close(name);
        Ok(())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut appended = self.appended();
        let file = match appended.take().filter(|(of, _)| of == name) {
            Some((_, file)) => file,
            None => File::options().create(true).append(true).open(self.path(name))?,
        };
        // In one call, of which a kill cuts nothing off within a page.
        (&file).write_all(bytes)?;
        *appended = Some((name.to_owned(), file));
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.close(name);
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.extend(
                entry?.file_name().into_string().ok().filter(|name| !name.ends_with(UNFINISHED)),
            );
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir, box_id: &str) -> FolderScratch {
        FolderScratch::open(folder.path(), &box_id.parse().unwrap(), None).unwrap()
    }

    #[test]
    fn a_blob_is_there_until_it_is_removed_also_for_a_successor() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = open(&folder, "gpu-1");
        assert_eq!(scratch.get("a").unwrap(), None);
        scratch.put("b", b"2").unwrap();
        scratch.put("a", b"1").unwrap();
        scratch.put("a", b"3").unwrap();
        assert_eq!(open(&folder, "gpu-1").list().unwrap(), ["a", "b"]);
        assert_eq!(open(&folder, "gpu-1").get("a").unwrap().as_deref(), Some(&b"3"[..]));
        scratch.remove("a").unwrap();
        scratch.remove("a").unwrap();
        assert_eq!(open(&folder, "gpu-1").list().unwrap(), ["b"]);
        assert!(open(&folder, "gpu-2").list().unwrap().is_empty());
    }

    #[test]
    fn what_is_appended_goes_to_the_blob_that_has_the_name_now() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = open(&folder, "gpu-1");
        let text = || open(&folder, "gpu-1").get("a").unwrap();
        scratch.append("a", b"1").unwrap();
        scratch.append("a", b"2").unwrap();
        assert_eq!(text().as_deref(), Some(&b"12"[..]));
        scratch.put("a", b"3").unwrap();
        scratch.append("a", b"4").unwrap();
        assert_eq!(text().as_deref(), Some(&b"34"[..]));
        scratch.append("b", b"5").unwrap();
        scratch.remove("a").unwrap();
        assert_eq!(text(), None);
        scratch.append("a", b"6").unwrap();
        assert_eq!(text().as_deref(), Some(&b"6"[..]));
    }

    #[test]
    fn each_device_of_a_box_has_a_scratch_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let of_device = |device| {
            FolderScratch::open(folder.path(), &"gpu-1".parse().unwrap(), Some(device)).unwrap()
        };
        of_device("0").put("a", b"1").unwrap();
        assert_eq!(of_device("0").list().unwrap(), ["a"]);
        assert!(of_device("1").list().unwrap().is_empty());
    }

    #[test]
    fn a_silent_worker_is_not_alive_whatever_its_neighbours_say() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, unknown] = ["gpu-1", "gpu-2", "gpu-3"].map(|id| id.parse().unwrap());
        let alive = |id| FolderScratch::check_alive(folder.path(), id).is_ok();
        assert!(!alive(None));
        open(&folder, "gpu-1").say_alive();
        open(&folder, "gpu-2").say_alive();
        let silent = fs::File::open(folder.path().join("worker/gpu-1/alive")).unwrap();
        let said = silent.metadata().unwrap().modified().unwrap();
        silent.set_modified(said - ALIVE_AGE_MAX).unwrap();
        assert!(!alive(Some(&first)) && alive(Some(&second)));
        assert!(alive(Some(&unknown)) && alive(None));
    }

    #[test]
    fn what_a_user_writes_into_the_state_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("keep-until"), "2026-11-22T00:00:00Z\n").unwrap();
        let text = open(&folder, "gpu-1").get(KEEP_UNTIL).unwrap().unwrap();
        assert_eq!(text, b"2026-11-22T00:00:00Z\n");
        assert!(open(&folder, "gpu-1").list().unwrap().is_empty());
    }
}
