//! Small named blobs that outlive the process but not the box's disk: what a worker notes for its successor on the same box.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Blobs by name. Names are plain: letters, digits, `-` and `.`.
pub trait Scratch: Send + Sync {
    /// Writes a blob in place of any other of this name: wholly or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Writes at the end of a blob, which is made where there is none. Of what a process writes while it is killed a part may be there.
    ///
    /// # Errors
    /// When it cannot be written.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// A blob, or `None` if there is none of this name.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Deletes a blob. None of this name is a success.
    ///
    /// # Errors
    /// When it cannot be deleted.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all blobs, sorted.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn list(&self) -> io::Result<Vec<String>>;
}

/// A scratch in memory, for tests and simulations. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryScratch(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl MemoryScratch {
    fn with<T>(&self, read: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Scratch for MemoryScratch {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(|blobs| blobs.insert(name.to_owned(), bytes.to_vec()));
        Ok(())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(|blobs| blobs.entry(name.to_owned()).or_default().extend_from_slice(bytes));
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(|blobs| blobs.get(name).cloned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|blobs| blobs.remove(name));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|blobs| blobs.keys().cloned().collect()))
    }
}
