//! Where another recording begins in a file: parts of a browser or phone that were put together.
//!
//! MPEG frames, ADTS and Ogg go on by themselves, and WAV and AIFF say where they end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::mp4;

/// What is searched at once.
const WINDOW_BYTES: usize = 1 << 20;
/// What a mark is told by, with what stands behind it.
const MARK_BYTES: usize = 64;

/// Bytes that a recording begins with.
struct Mark {
    begin: &'static [u8; 4],
    /// Whether that is one, with what follows.
    is_begin: fn(&[u8]) -> bool,
}

const MARKS: [Mark; 3] = [
    // The first block describes the sound, and has one length.
    Mark { begin: b"fLaC", is_begin: |at| matches!(at, [_, _, _, _, 0 | 0x80, 0, 0, 34, ..]) },
    Mark { begin: b"\x1a\x45\xdf\xa3", is_begin: names_matroska },
    Mark { begin: b"caff", is_begin: |at| at[4..].starts_with(b"\0\x01\0\0desc") },
];

fn names_matroska(at: &[u8]) -> bool {
    [&b"matroska"[..], b"webm"].iter().any(|name| memchr::memmem::find(at, name).is_some())
}

/// Where the next recording of the same kind begins behind the one at the start of `data`.
pub(super) fn next(file: &mut File, data: &Range<u64>) -> io::Result<Option<u64>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(data.start))?;
    (&mut *file).take(MARK_BYTES as u64).read_to_end(&mut head)?;
    if head.get(4..8) == Some(b"ftyp") {
        return mp4::next(file, data);
    }
    let is_mark = |mark: &&Mark| head.starts_with(mark.begin) && (mark.is_begin)(&head);
    match MARKS.iter().find(is_mark) {
        Some(mark) => search(file, data.start + 4..data.end, mark.begin, mark.is_begin),
        None => Ok(None),
    }
}

/// The first place in a part of the file with these bytes that `is_begin` takes, which is given what stands there.
pub(super) fn search(
    file: &mut File,
    data: Range<u64>,
    begin: &[u8; 4],
    is_begin: impl Fn(&[u8]) -> bool,
) -> io::Result<Option<u64>> {
    let mut at = data.start;
    let mut window = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    loop {
        let before = window.len() as u64;
        let left = data.end.saturating_sub(at + before).min(WINDOW_BYTES as u64);
        let read = (&mut *file).take(left).read_to_end(&mut window)?;
        let found = memchr::memmem::find_iter(&window, begin).find(|&found| {
            let end = window.len().min(found + MARK_BYTES);
            is_begin(&window[found..end])
        });
        if let Some(found) = found {
            return Ok(Some(at + found as u64));
        }
        if read == 0 {
            return Ok(None);
        }
        let passed = window.len().saturating_sub(MARK_BYTES);
        window.drain(..passed);
        at += passed as u64;
    }
}
