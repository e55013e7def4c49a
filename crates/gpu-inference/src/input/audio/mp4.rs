//! What Symphonia does not say of an MP4: how much of its sound is the encoder's delay, by its list of edits; whether it was cut; and whether it is in
//! fragments, of which one contradicts itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Duration;

/// Boxes on the way to the index.
const BOXES_MAX: usize = 1_000;
/// Fragments that are looked at: a browser makes one a second, or fewer.
const FRAGMENTS_MAX: usize = 100_000;
/// The longest description of one.
const FRAGMENT_BYTES_MAX: u64 = 1 << 20;
/// The largest index that is read: hours of sound have one of some megabytes.
const INDEX_BYTES_MAX: u64 = 16 << 20;
/// Encoders' delays are below; a later beginning was cut by someone, and is kept.
const DELAY_MAX: Duration = Duration::from_millis(400);

/// Length and name of a box.
const BOX_HEAD_BYTES: u64 = 8;

/// Lengths are off by less in files that are whole.
const SLACK_BYTES: u64 = 64;

/// What is known of an MP4 before Symphonia reads it.
#[derive(Default)]
pub(super) struct Facts {
    /// The encoder's.
    pub(super) delay: Duration,
    pub(super) is_cut: bool,
    pub(super) is_fragmented: bool,
    /// Of a fragment's list of packets.
    pub(super) contradicts: bool,
    pub(super) has_sound: bool,
}

pub(super) fn facts(file: &mut File, data: &Range<u64>) -> io::Result<Facts> {
    Ok(Facts {
        delay: delay(file, data)?,
        is_cut: is_cut(file, data)?,
        is_fragmented: is_fragmented(file, data)?,
        contradicts: contradicts(file, data)?,
        has_sound: has_sound(file, data)?,
    })
}

/// Whether the sound goes on behind the end of the recording: then Symphonia finds no packet at all.
fn is_cut(file: &mut File, data: &Range<u64>) -> io::Result<bool> {
    let mut at = data.start;
    for _ in 0..BOXES_MAX {
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        (&mut *file).take(16).read_to_end(&mut head)?;
        let Some((name, _, bytes)) = header(&head, data.end.saturating_sub(at)) else {
            break;
        };
        at = at.saturating_add(bytes);
        if at > data.end {
            return Ok(name == *b"mdat" && at - data.end > SLACK_BYTES);
        }
    }
    Ok(false)
}

/// Whether the sound is in fragments, each of which lists its own packets. What is said of its length in front is a claim then.
fn is_fragmented(file: &mut File, data: &Range<u64>) -> io::Result<bool> {
    Ok(top_box(file, data, *b"moof")?.is_some())
}

/// Whether the list of packets of a fragment contradicts itself: Symphonia takes what it says of a first packet for what it says of all.
fn contradicts(file: &mut File, data: &Range<u64>) -> io::Result<bool> {
    let mut rest = data.clone();
    for _ in 0..FRAGMENTS_MAX {
        let Some(content) = top_box(file, &rest, *b"moof")? else { break };
        let mut fragment = Vec::new();
        file.seek(SeekFrom::Start(content.start))?;
        let bytes = (content.end - content.start).min(FRAGMENT_BYTES_MAX);
        (&mut *file).take(bytes).read_to_end(&mut fragment)?;
        let tracks = boxes(&fragment).filter(|(name, _)| *name == b"traf");
        let mut runs =
            tracks.flat_map(|(_, track)| boxes(track)).filter(|(name, _)| *name == b"trun");
        if runs.any(|(_, run)| run_contradicts(run).unwrap_or(false)) {
            return Ok(true);
        }
        rest.start = content.end;
    }
    Ok(false)
}

/// Whether a run says of its first packet that it has a length or a size of its own, and lists none.
fn run_contradicts(run: &[u8]) -> Option<bool> {
    const HAS_PLACE: u64 = 1;
    const HAS_FIRST: u64 = 4;
    const LENGTHS: u64 = 0x100;
    const SIZES: u64 = 0x200;
    let flags = number(run, 0)?;
    if flags & HAS_FIRST == 0 {
        return Some(false);
    }
    let first = number(run, if flags & HAS_PLACE == 0 { 8 } else { 12 })?;
    // Symphonia's own numbers for the two.
    Some(first & 4 != 0 && flags & LENGTHS == 0 || first & SIZES != 0 && flags & SIZES == 0)
}

/// The delay of the first track with sound; zero where the file says none.
fn delay(file: &mut File, data: &Range<u64>) -> io::Result<Duration> {
    Ok(of_index(&index(file, data)?))
}

/// Whether it has a track with sound, in whatever codec.
fn has_sound(file: &mut File, data: &Range<u64>) -> io::Result<bool> {
    Ok(sounds(&index(file, data)?).next().is_some())
}

/// Where another MP4 begins behind this one, which has an index by then.
pub(super) fn next(file: &mut File, data: &Range<u64>) -> io::Result<Option<u64>> {
    let Some(index) = top_box(file, data, *b"moov")? else { return Ok(None) };
    let second = top_box(file, &(index.end..data.end), *b"ftyp")?;
    Ok(second.map(|content| content.start - BOX_HEAD_BYTES))
}

fn index(file: &mut File, data: &Range<u64>) -> io::Result<Vec<u8>> {
    let mut index = Vec::new();
    let Some(content) = top_box(file, data, *b"moov")? else { return Ok(index) };
    file.seek(SeekFrom::Start(content.start))?;
    file.take((content.end - content.start).min(INDEX_BYTES_MAX)).read_to_end(&mut index)?;
    Ok(index)
}

/// Where the content of the first box of this name is, of those that are in no other.
fn top_box(file: &mut File, data: &Range<u64>, wanted: [u8; 4]) -> io::Result<Option<Range<u64>>> {
    let mut at = data.start;
    for _ in 0..BOXES_MAX {
        if at >= data.end {
            break;
        }
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        (&mut *file).take(16).read_to_end(&mut head)?;
        let Some((name, head_bytes, bytes)) = header(&head, data.end.saturating_sub(at)) else {
            break;
        };
        let end = at.saturating_add(bytes);
        if name == wanted {
            return Ok(Some(at + head_bytes..end));
        }
        at = end;
    }
    Ok(None)
}

/// Name, length of the header, and of the whole box, of which `there` bytes are there.
fn header(head: &[u8], there: u64) -> Option<([u8; 4], u64, u64)> {
    let name = *head.get(4..)?.first_chunk()?;
    let (head_bytes, bytes) = match number(head, 0)? {
        0 => (8, there),
        1 => (16, number(head, 8)? << 32 | number(head, 12)?),
        bytes => (8, bytes),
    };
    (bytes >= head_bytes).then_some((name, head_bytes, bytes))
}

/// The tracks with sound.
fn sounds(index: &[u8]) -> impl Iterator<Item = &[u8]> {
    let tracks = boxes(index).filter(|(name, _)| *name == b"trak").map(|(_, track)| track);
    let is_sound = |track: &&[u8]| {
        let handler = find(track, &[b"mdia", b"hdlr"]);
        handler.is_some_and(|handler| handler.get(8..12) == Some(b"soun"))
    };
    tracks.filter(is_sound)
}

fn of_index(index: &[u8]) -> Duration {
    let found = sounds(index).map(of_track).next();
    found.flatten().filter(|&delay| delay <= DELAY_MAX).unwrap_or(Duration::ZERO)
}

fn of_track(track: &[u8]) -> Option<Duration> {
    let media = find(track, &[b"mdia", b"mdhd"])?;
    // A version with times of 64 bits has the rate further behind.
    let rate = number(media, if *media.first()? == 1 { 20 } else { 12 })?;
    let edits = find(track, &[b"edts", b"elst"])?;
    let is_wide = *edits.first()? == 1;
    let size = if is_wide { 20 } else { 12 };
    let begins = edits.get(8..)?.chunks_exact(size).map(|edit| match is_wide {
        true => number(edit, 8).zip(number(edit, 12)).map(|(high, low)| high << 32 | low),
        // What is below zero is an empty edit.
        false => number(edit, 4).map(|begin| if begin >> 31 == 1 { u64::MAX } else { begin }),
    });
    let begin = begins.flatten().find(|begin| begin >> 63 == 0)?;
    Some(super::source::time_of(begin, u32::try_from(rate).ok()?))
}

/// The boxes in a box.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (_, head, length) = header(bytes, bytes.len() as u64)?;
        let (head, length) = (usize::try_from(head).ok()?, usize::try_from(length).ok()?);
        let name = bytes.get(4..)?.first_chunk()?;
        let content = bytes.get(head..length)?;
        bytes = &bytes[length..];
        Some((name, content))
    })
}

/// The content of a box below others.
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    let mut found = bytes;
    for wanted in path {
        found = boxes(found).find(|(name, _)| name == wanted)?.1;
    }
    Some(found)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u32::try_from(8 + content.len()).unwrap().to_be_bytes();
        [&length[..], name, &content].concat()
    }

    fn track(handler: &[u8; 4], edits: &[u8]) -> Vec<u8> {
        let media = made(b"mdhd", &[&[0; 12], &8_000_u32.to_be_bytes(), &[0; 8]]);
        let handler = made(b"hdlr", &[&[0; 8], handler, &[0; 12]]);
        made(
            b"trak",
            &[&made(b"edts", &[&made(b"elst", &[edits])]), &made(b"mdia", &[&media, &handler])],
        )
    }

    #[test]
    fn the_delay_is_where_the_first_edit_of_the_sound_begins() {
        let edit = |begin: u32| [&[0; 4], &begin.to_be_bytes()[..], &[0, 1, 0, 0]].concat();
        let list = |begins: &[u32]| {
            let count = u32::try_from(begins.len()).unwrap().to_be_bytes();
            [&[0; 4][..], &count, &begins.iter().flat_map(|&begin| edit(begin)).collect::<Vec<_>>()]
                .concat()
        };
        let of = |tracks: &[&[u8]]| of_index(&tracks.concat());
        let sound = |begins: &[u32]| track(b"soun", &list(begins));
        assert_eq!(of(&[&sound(&[1_024])]), Duration::from_millis(128));
        assert_eq!(
            of(&[&track(b"vide", &list(&[80])), &sound(&[u32::MAX, 1_024])]),
            Duration::from_millis(128)
        );
        assert_eq!(of(&[&sound(&[80_000])]), Duration::ZERO, "ten seconds were cut off by someone");
        assert_eq!(of(&[&sound(&[])]), Duration::ZERO);
        assert_eq!(of(&[b"\0\0\0\x07trak"]), Duration::ZERO);
    }
}
