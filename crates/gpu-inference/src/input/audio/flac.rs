//! What of a FLAC file its decoder has to see: the description of the sound, and the frames.
//!
//! Pictures, cue sheets and tags between them may be broken, or have a wrong length, without any harm to the sound.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// Blocks of a file; programs write up to ten.
const BLOCKS_MAX: usize = 1_000;
/// Where frames are searched for when the blocks' lengths lead nowhere.
const SEARCH_BYTES_MAX: u64 = 32 << 20;
/// The first block, with its own header.
const DESCRIPTION_BYTES: usize = 38;

/// The beginning of a file without what is not sound, and where its frames are. None where the file does not begin so.
pub(super) fn parts(file: &mut File, file_bytes: u64) -> io::Result<Option<(Vec<u8>, Range<u64>)>> {
    let begin = after_tags(file)?;
    let mut head = [0; 4 + DESCRIPTION_BYTES];
    file.seek(SeekFrom::Start(begin))?;
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    // The first block describes the sound, and has one length.
    if !head.starts_with(b"fLaC") || head[4] & 0x7f != 0 || head[5..8] != [0, 0, 34] {
        return Ok(None);
    }
    let is_only = head[4] & 0x80 != 0;
    let first = begin + head.len() as u64;
    let frames = if is_only { first } else { after_blocks(file, first)? };
    let frames = if is_frame(file, frames)? { Some(frames) } else { search_frame(file, first)? };
    head[4] |= 0x80;
    Ok(frames.map(|frames| (head.to_vec(), frames..file_bytes)))
}

/// Where the file begins behind ID3 tags, which do not belong there.
fn after_tags(file: &mut File) -> io::Result<u64> {
    let mut at = 0;
    loop {
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        (&mut *file).take(10).read_to_end(&mut head)?;
        match super::mpeg::tag_bytes(&head) {
            Some(bytes) => at += bytes,
            None => return Ok(at),
        }
    }
}

fn after_blocks(file: &mut File, mut at: u64) -> io::Result<u64> {
    for _ in 0..BLOCKS_MAX {
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        (&mut *file).take(4).read_to_end(&mut head)?;
        let &[kind, high, middle, low] = head.as_slice() else { break };
        at += 4 + u64::from(u32::from_be_bytes([0, high, middle, low]));
        if kind & 0x80 != 0 {
            break;
        }
    }
    Ok(at)
}

fn is_frame(file: &mut File, at: u64) -> io::Result<bool> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    (&mut *file).take(16).read_to_end(&mut head)?;
    Ok(is_frame_header(&head))
}

/// The first frame after `from`.
fn search_frame(file: &mut File, from: u64) -> io::Result<Option<u64>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    (&mut *file).take(SEARCH_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut found = memchr::memchr_iter(0xff, &bytes).filter(|&at| is_frame_header(&bytes[at..]));
    Ok(found.next().map(|at| from + at as u64))
}

/// Whether a frame begins here: its header has a sum of its own.
fn is_frame_header(bytes: &[u8]) -> bool {
    if bytes.len() < 6 || bytes[0] != 0xff || bytes[1] & 0xfe != 0xf8 {
        return false;
    }
    // The number of the frame or sample is written as UTF-8 writes characters, and sizes may follow.
    let number = match bytes[4].leading_ones() {
        0 => 1,
        length @ 2..=7 => length as usize,
        _ => return false,
    };
    let size = match bytes[2] >> 4 {
        0 => return false,
        6 => 1,
        7 => 2,
        _ => 0,
    };
    let rate = match bytes[2] & 0x0f {
        12 => 1,
        13 | 14 => 2,
        15 => return false,
        _ => 0,
    };
    let end = 4 + number + size + rate;
    bytes.get(end).is_some_and(|&sum| sum == crc_8(&bytes[..end]))
}

fn crc_8(bytes: &[u8]) -> u8 {
    let shifted = |sum: u8, _| if sum & 0x80 == 0 { sum << 1 } else { sum << 1 ^ 0x07 };
    bytes.iter().fold(0, |sum, byte| (0..8).fold(sum ^ byte, shifted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_by_the_sum_of_its_header() {
        // 4096 samples at 44.1 kHz, two channels, 16 bits, the first frame.
        let header = [0xff, 0xf8, 0xc9, 0x18, 0x00];
        let sum = crc_8(&header);
        assert_eq!(sum, 0xc2);
        assert!(is_frame_header(&[&header[..], &[sum, 0]].concat()));
        assert!(!is_frame_header(&[&header[..], &[sum ^ 1, 0]].concat()));
        assert!(!is_frame_header(&header));
    }
}
