//! A file some bytes of which are read as others: a number in its header that a decoder would otherwise believe.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// A file, read from where it stands: its beginning.
pub(super) struct Patched {
    file: File,
    /// The other bytes, and where they lie.
    at: u64,
    bytes: Vec<u8>,
    position: u64,
}

impl Patched {
    pub(super) fn new(mut file: File, (at, bytes): (u64, Vec<u8>)) -> io::Result<Self> {
        file.rewind()?;
        Ok(Self { file, at, bytes, position: 0 })
    }
}

impl Read for Patched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        for (offset, byte) in (self.at..).zip(&self.bytes) {
            let place = offset.checked_sub(self.position).and_then(|at| usize::try_from(at).ok());
            if let Some(target) = place.and_then(|place| buffer[..count].get_mut(place)) {
                *target = *byte;
            }
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Patched {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(position)?;
        Ok(self.position)
    }
}
