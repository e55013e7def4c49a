//! The worker's trait [`Scratch`] over a folder: one file a blob.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gpuctl_worker::Scratch;

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct FolderScratch(PathBuf);

impl FolderScratch {
    /// Makes the folder if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self(folder.to_owned()))
    }
}

/// What the name of a blob ends in while it is written.
const UNFINISHED: &str = ".tmp";

impl Scratch for FolderScratch {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Not synced: it has to survive this process, which may be killed, and not the machine.
        let unfinished = self.0.join(format!("{name}{UNFINISHED}"));
        fs::write(&unfinished, bytes)?;
        fs::rename(unfinished, self.0.join(name))
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
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

    #[test]
    fn a_blob_is_there_until_it_is_removed_also_for_a_successor() {
        let folder = tempfile::tempdir().unwrap();
        let open = || FolderScratch::open(&folder.path().join("scratch")).unwrap();
        let scratch = open();
        assert_eq!(scratch.get("a").unwrap(), None);
        scratch.put("b", b"2").unwrap();
        scratch.put("a", b"1").unwrap();
        scratch.put("a", b"3").unwrap();
        assert_eq!(open().list().unwrap(), ["a", "b"]);
        assert_eq!(open().get("a").unwrap().as_deref(), Some(&b"3"[..]));
        scratch.remove("a").unwrap();
        scratch.remove("a").unwrap();
        assert_eq!(open().list().unwrap(), ["b"]);
    }
}
