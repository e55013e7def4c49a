//! What of a FLAC file its decoder has to see: the description of the sound, and the frames.
//!
//! Pictures, cue sheets and tags between them may be broken, or have a wrong length, without any harm to the sound.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// What each frame begins with.
const PREFIX: u8 = 0xff;
/// Blocks of a file; programs write up to ten.
const BLOCKS_MAX: usize = 1_000;
/// Where frames are searched for when the blocks' lengths lead nowhere.
const SEARCH_BYTES_MAX: u64 = 32 << 20;
/// Where the last frame is searched for; frames of programs have a tenth of it at most.
const LAST_BYTES_MAX: u64 = 1 << 20;
/// The first block, with its own header.
const DESCRIPTION_BYTES: usize = 38;
/// Samples of the longest frame, and its bytes at least: header, one channel of silence, and sums.
const FRAME_SAMPLES_MAX: u64 = 65_535;
const FRAME_BYTES_MIN: u64 = 10;

/// What of a file its decoder has to see.
pub(super) struct Parts {
    /// The beginning, without what is not sound.
    pub(super) header: Vec<u8>,
    /// Where the frames are.
    pub(super) frames: Range<u64>,
    /// Samples of a channel, by the number that the last frame has.
    pub(super) samples: u64,
}

/// None where the file does not begin as a FLAC.
pub(super) fn parts(file: &mut File, data: &Range<u64>) -> io::Result<Option<Parts>> {
    let begin = data.start;
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
    let frames = frames.filter(|frames| *frames < data.end);
    let Some(frames) = frames.map(|frames| frames..data.end) else { return Ok(None) };
    let samples = samples(file, &frames)?;
    Ok(Some(Parts { header: head.to_vec(), frames, samples }))
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
    Ok(Frame::parse(&frame_head(file, at)?).is_some())
}

fn frame_head(file: &mut File, at: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    (&mut *file).take(16).read_to_end(&mut head)?;
    Ok(head)
}

/// The first frame after `from`.
fn search_frame(file: &mut File, from: u64) -> io::Result<Option<u64>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    (&mut *file).take(SEARCH_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut found =
        memchr::memchr_iter(PREFIX, &bytes).filter(|&at| Frame::parse(&bytes[at..]).is_some());
    Ok(found.next().map(|at| from + at as u64))
}

/// How many samples there are up to the end of the last frame: silence takes so few bytes that the size of a file says nothing of it.
fn samples(file: &mut File, frames: &Range<u64>) -> io::Result<u64> {
    let Some(first) = Frame::parse(&frame_head(file, frames.start)?) else { return Ok(0) };
    let mut bytes = Vec::new();
    let from = frames.start.max(frames.end.saturating_sub(LAST_BYTES_MAX));
    file.seek(SeekFrom::Start(from))?;
    // What comes after is another part of the file.
    (&mut *file).take(frames.end - from).read_to_end(&mut bytes)?;
    let last = memchr::memrchr_iter(PREFIX, &bytes)
        .filter_map(|at| Frame::parse(&bytes[at..]))
        .find(|frame| frame.is_numbered_by_sample == first.is_numbered_by_sample);
    let begin = last
        .as_ref()
        .map_or(0, |last| last.number * if last.is_numbered_by_sample { 1 } else { first.samples });
    // A number is a claim, too.
    let all = begin + last.map_or(0, |last| last.samples);
    Ok(all.min((frames.end - frames.start) / FRAME_BYTES_MIN * FRAME_SAMPLES_MAX))
}

/// The header of a frame, which has a sum of its own.
struct Frame {
    /// Of its first sample, or its own: then all but the last have the same length.
    number: u64,
    is_numbered_by_sample: bool,
    /// Of each channel.
    samples: u64,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[PREFIX, kind, sizes, _, lead, ..] = bytes else { return None };
        if kind & 0xfe != 0xf8 {
            return None;
        }
        // The number is written as UTF-8 writes characters, and a length and a rate may follow.
        let bits = lead.leading_ones();
        let (number_bytes, lead) = match bits {
            0 => (1, lead),
            2..=7 => (bits as usize, lead & (0x7f_u8 >> bits)),
            _ => return None,
        };
        let further = bytes.get(5..4 + number_bytes)?;
        let number = further
            .iter()
            .fold(u64::from(lead), |number, byte| number << 6 | u64::from(byte & 0x3f));
        let rest = &bytes[4 + number_bytes..];
        let (samples, size_bytes) = match sizes >> 4 {
            0 => return None,
            1 => (192, 0),
            code @ 2..=5 => (576 << (code - 2), 0),
            6 => (u64::from(*rest.first()?) + 1, 1),
            7 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)) + 1, 2),
            code => (256 << (code - 8), 0),
        };
        let rate_bytes = match sizes & 0x0f {
            12 => 1,
            13 | 14 => 2,
            15 => return None,
            _ => 0,
        };
        let end = 4 + number_bytes + size_bytes + rate_bytes;
        let is_sound = *bytes.get(end)? == crc_8(&bytes[..end]);
        is_sound.then_some(Self { number, is_numbered_by_sample: kind & 1 == 1, samples })
    }
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
        let frame = Frame::parse(&[&header[..], &[sum, 0]].concat()).unwrap();
        assert_eq!((frame.number, frame.samples, frame.is_numbered_by_sample), (0, 4_096, false));
        assert!(Frame::parse(&[&header[..], &[sum ^ 1, 0]].concat()).is_none());
        assert!(Frame::parse(&header).is_none());
    }

    #[test]
    fn a_frame_s_number_and_length_are_read_in_every_form() {
        for (kind, sizes, number, length, expected) in [
            (0xf8, 0xc9, &[0x7f][..], &[][..], (127, 4_096)),
            (0xf8, 0x29, b"\xc2\x80", &[], (128, 576)),
            (0xf9, 0x69, b"\xe4\xb8\x80", &[9], (0x4e00, 10)),
            (
                0xf9,
                0x7c,
                b"\xfe\xbf\xbf\xbf\xbf\xbf\xbf",
                &[0xff, 0xfe, 44],
                ((1 << 36) - 1, 65_535),
            ),
        ] {
            let header = [&[PREFIX, kind, sizes, 0x18], number, length].concat();
            let frame = Frame::parse(&[&header[..], &[crc_8(&header)]].concat()).unwrap();
            assert_eq!((frame.number, frame.samples), expected);
            assert_eq!(frame.is_numbered_by_sample, kind == 0xf9);
        }
    }
}
