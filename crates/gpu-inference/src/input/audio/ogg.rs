//! What Symphonia does not say of an Ogg file: that it ends within a page, all of which is lost then, and which time its last page has.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// The longest page: its header, and 255 segments of 255 bytes.
const PAGE_BYTES_MAX: u64 = 27 + 255 + 255 * 255;

/// What the end of a file shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The last page goes on behind the end.
    pub(super) is_cut: bool,
    /// Stream and time of the last whole page, in samples.
    pub(super) time: Option<(u32, u64)>,
}

pub(super) fn end(file: &mut File, data: &Range<u64>) -> io::Result<End> {
    let begin = data.end.saturating_sub(2 * PAGE_BYTES_MAX).max(data.start);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.take(data.end - begin).read_to_end(&mut bytes)?;
    Ok(end_of(&bytes))
}

fn end_of(bytes: &[u8]) -> End {
    // The version is 0, and three flags are known.
    let is_page = |at: &usize| matches!(bytes[*at + 4..], [] | [0] | [0, 0..=7, ..]);
    let mut pages = memchr::memmem::rfind_iter(bytes, b"OggS").filter(is_page);
    let Some(last) = pages.next() else { return End::default() };
    let is_cut = !is_whole(&bytes[last..]);
    let whole = if is_cut { pages.next() } else { Some(last) };
    End { is_cut, time: whole.and_then(|at| time(&bytes[at..])) }
}

fn is_whole(page: &[u8]) -> bool {
    let Some(&segments) = page.get(26) else { return false };
    let header = 27 + usize::from(segments);
    let Some(lengths) = page.get(27..header) else { return false };
    page.len() >= header + lengths.iter().map(|&length| usize::from(length)).sum::<usize>()
}

fn time(page: &[u8]) -> Option<(u32, u64)> {
    let time = u64::from_le_bytes(*page.get(6..)?.first_chunk()?);
    let stream = u32::from_le_bytes(*page.get(14..)?.first_chunk()?);
    // No packet ends on a page without one.
    (time != u64::MAX).then_some((stream, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_long_as_its_segments() {
        let page = |time: u64, segments: &[u8]| {
            let count = u8::try_from(segments.len()).unwrap();
            let content = segments.iter().map(|&length| usize::from(length)).sum();
            let numbers = [&time.to_le_bytes()[..], &[3, 0, 0, 0], &[0; 8]].concat();
            [&b"OggS\0\x04"[..], &numbers, &[count], segments, &vec![7; content]].concat()
        };
        let last = page(960, &[255, 255, 3]);
        let two = [page(480, &[5]), last.clone()].concat();
        let of = |is_cut, time| End { is_cut, time: Some((3, time)) };
        assert_eq!(end_of(&two), of(false, 960));
        // What else follows, such as tags, cuts no page.
        assert_eq!(end_of(&[&two[..], b"TAG OggS\x01"].concat()), of(false, 960));
        for missing in 1..last.len() - 3 {
            assert_eq!(end_of(&two[..two.len() - missing]), of(true, 480), "{missing}");
        }
        assert_eq!(end_of(&page(u64::MAX, &[5])), End::default());
        assert_eq!(end_of(b"no page"), End::default());
    }
}
