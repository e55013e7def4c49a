//! A file of any kind, of which only the ends are read: what it is shows there, and a model of texts takes their beginning.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// As much as is kept of the beginning: 100 bytes for each token of the longest text that a model takes, and the rest of a character.
const BEGINNING_BYTES_MAX: u64 = (1 << 20) + 4;
/// As much as is kept of the end.
const END_BYTES_MAX: u64 = 64 << 10;
/// Both.
pub(super) const HELD_BYTES_MAX: u64 = BEGINNING_BYTES_MAX + END_BYTES_MAX;

/// The two ends of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEnds {
    beginning: Vec<u8>,
    /// None where the beginning is the whole file.
    end: Option<Vec<u8>>,
}

impl FileEnds {
    pub(super) fn read(mut file: File) -> io::Result<Self> {
        let mut beginning = Vec::new();
        file.by_ref().take(BEGINNING_BYTES_MAX).read_to_end(&mut beginning)?;
        let file_bytes = file.metadata()?.len();
        if file_bytes <= beginning.len() as u64 {
            return Ok(Self { beginning, end: None });
        }
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(file_bytes.saturating_sub(END_BYTES_MAX)))?;
        file.take(END_BYTES_MAX).read_to_end(&mut end)?;
        Ok(Self { beginning, end: Some(end) })
    }

    /// The first bytes, at most a MiB; of a shorter file all.
    pub(crate) fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// The last bytes, at least 64 KiB; of a shorter file all.
    pub(crate) fn end(&self) -> &[u8] {
        self.end.as_deref().unwrap_or(&self.beginning)
    }

    /// Whether there is more than [`FileEnds::beginning`].
    pub(crate) fn goes_on(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        (self.beginning.len() + self.end.as_ref().map_or(0, Vec::len)) as u64
    }
}

impl From<Vec<u8>> for FileEnds {
    /// The whole of a small file.
    fn from(beginning: Vec<u8>) -> Self {
        Self { beginning, end: None }
    }
}
