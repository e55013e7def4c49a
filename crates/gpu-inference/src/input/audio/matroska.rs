//! What Symphonia does not do with Matroska and WebM: go on behind damage, and read what was cut off before its index.
//!
//! Its reader is given a simpler file: the descriptions of file and tracks, and the clusters with the sound behind them, up to the end. Where it loses
//! its way it is given the same again with a later cluster.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::joined;

const FILE: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TRACKS: u32 = 0x1654_ae6b;
const CLUSTER: u32 = 0x1f43_b675;
/// In a cluster, before its sound.
const CHECKSUM: u32 = 0xbf;
const TIME: u32 = 0xe7;
/// The length of an element that does not say it.
const UNKNOWN: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// Elements before the first cluster.
const ELEMENTS_MAX: usize = 1_000;
/// Where the last cluster is looked for: it holds some seconds.
const END_BYTES: u64 = 8 << 20;
/// The largest description.
const DESCRIPTION_BYTES_MAX: u64 = 4 << 20;
/// An element's number and length.
const HEAD_BYTES: usize = 12;
/// Lengths are off by less in files that are whole.
const SLACK_BYTES: u64 = 64;

/// A file's parts.
#[derive(Debug)]
pub(super) struct Parts {
    /// The descriptions, of a file whose length is not known.
    pub(super) header: Vec<u8>,
    /// Where its first cluster begins.
    pub(super) clusters: u64,
    /// Its stated end lies behind that of the file.
    pub(super) is_cut: bool,
    /// It ends within a packet, or what else a cluster has.
    pub(super) lacks_end: bool,
}

/// The parts of the file, if it has its descriptions before its first cluster.
pub(super) fn parts(file: &mut File, data: &Range<u64>) -> io::Result<Option<Parts>> {
    let Some(first) = element(&read(file, data.start, HEAD_BYTES as u64)?) else { return Ok(None) };
    let Some(begin) = first.end(data.start).filter(|_| first.id == FILE) else { return Ok(None) };
    let Some(segment) = element(&read(file, begin, HEAD_BYTES as u64)?) else { return Ok(None) };
    if segment.id != SEGMENT || begin - data.start > DESCRIPTION_BYTES_MAX {
        return Ok(None);
    }
    let is_cut = segment.end(begin).is_some_and(|end| end > data.end.saturating_add(SLACK_BYTES));
    let mut header = read(file, data.start, begin - data.start)?;
    header.extend(SEGMENT.to_be_bytes());
    header.extend(UNKNOWN);
    let (mut at, mut described) = (begin + segment.head_bytes, 0);
    for _ in 0..ELEMENTS_MAX {
        let Some(found) = element(&read(file, at, HEAD_BYTES as u64)?) else { break };
        if found.id == CLUSTER {
            let lacks_end = lacks_end(file, &(at..data.end))?;
            let parts = Parts { header, clusters: at, is_cut, lacks_end };
            return Ok((described == 2).then_some(parts));
        }
        let Some(end) = found.end(at) else { break };
        if matches!(found.id, INFO | TRACKS) && end - at <= DESCRIPTION_BYTES_MAX {
            header.extend(read(file, at, end - at)?);
            described += 1;
        }
        at = end;
    }
    Ok(None)
}

/// Where the first cluster begins whose time, in the file's ticks, is later.
pub(super) fn cluster_after(
    file: &mut File,
    data: Range<u64>,
    ticks: u64,
) -> io::Result<Option<u64>> {
    joined::search(file, data, &CLUSTER.to_be_bytes(), |bytes| {
        time(bytes).is_some_and(|time| time > ticks)
    })
}

/// Whether the last cluster ends within an element.
fn lacks_end(file: &mut File, data: &Range<u64>) -> io::Result<bool> {
    let begin = data.end.saturating_sub(END_BYTES).max(data.start);
    let bytes = read(file, begin, data.end - begin)?;
    let is_cluster = |at: &usize| time(&bytes[*at..]).is_some();
    let last = memchr::memmem::rfind_iter(&bytes, &CLUSTER.to_be_bytes()).find(is_cluster);
    let Some(mut rest) = last.map(|at| &bytes[at..]) else { return Ok(false) };
    while !rest.is_empty() {
        let Some(found) = element(rest) else { return Ok(rest.len() < HEAD_BYTES) };
        // The cluster itself, or what it holds.
        let bytes = if found.id == CLUSTER { Some(found.head_bytes) } else { found.end(0) };
        match bytes.and_then(|bytes| rest.get(usize::try_from(bytes).ok()?..)) {
            Some(behind) => rest = behind,
            None => return Ok(found.length.is_some()),
        }
    }
    Ok(false)
}

/// The time of the cluster that begins here.
fn time(mut bytes: &[u8]) -> Option<u64> {
    let cluster = element(bytes).filter(|found| found.id == CLUSTER)?;
    bytes = bytes.get(usize::try_from(cluster.head_bytes).ok()?..)?;
    let mut found = element(bytes)?;
    if found.id == CHECKSUM {
        bytes = bytes.get(usize::try_from(found.end(0)?).ok()?..)?;
        found = element(bytes)?;
    }
    let length = found.length.filter(|length| found.id == TIME && (1..=8).contains(length))?;
    let begin = usize::try_from(found.head_bytes).ok()?;
    let number = bytes.get(begin..begin + usize::try_from(length).ok()?)?;
    Some(number.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// What an element begins with.
struct Element {
    id: u32,
    head_bytes: u64,
    /// Of its content, where it is known.
    length: Option<u64>,
}

impl Element {
    /// Where it ends.
    fn end(&self, at: u64) -> Option<u64> {
        at.checked_add(self.head_bytes)?.checked_add(self.length?)
    }
}

fn element(bytes: &[u8]) -> Option<Element> {
    let id_bytes = bytes.first()?.leading_zeros() as usize + 1;
    let id = bytes.get(..id_bytes).filter(|_| id_bytes <= 4)?;
    let id = id.iter().fold(0, |id, &byte| id << 8 | u32::from(byte));
    let rest = &bytes[id_bytes..];
    let first = *rest.first()?;
    let length_bytes = first.leading_zeros() as usize + 1;
    let digits = rest.get(1..length_bytes).filter(|_| length_bytes <= 8)?;
    // The bits behind the mark; where all are set the length is not known.
    let own = u64::from(first) & (0xff_u64 >> length_bytes);
    let length = digits.iter().fold(own, |length, &byte| length << 8 | u64::from(byte));
    let is_unknown = length == (1 << (7 * length_bytes)) - 1;
    let head_bytes = (id_bytes + length_bytes) as u64;
    Some(Element { id, head_bytes, length: (!is_unknown).then_some(length) })
}

/// Bytes from a place on: fewer at the end.
fn read(file: &mut File, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_s_number_and_length_are_read_in_every_width() {
        for (bytes, id, head_bytes, length) in [
            (&b"\xe7\x81\x05"[..], 0xe7, 2, Some(1)),
            (b"\x42\x86\x40\x02", 0x4286, 4, Some(2)),
            (b"\x1f\x43\xb6\x75\x01\0\0\0\0\0\x10\0", CLUSTER, 12, Some(4_096)),
            (b"\x1f\x43\xb6\x75\xff", CLUSTER, 5, None),
            (b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff", CLUSTER, 12, None),
        ] {
            let found = element(bytes).unwrap();
            assert_eq!((found.id, found.head_bytes, found.length), (id, head_bytes, length));
        }
        for none in [&b""[..], b"\0\x81", b"\xe7", b"\xe7\0", b"\x1f\x43\xb6"] {
            assert!(element(none).is_none(), "{none:?}");
        }
    }

    #[test]
    fn a_cluster_is_known_by_its_time() {
        assert_eq!(time(b"\x1f\x43\xb6\x75\xff\xe7\x82\x03\xe8"), Some(1_000));
        assert_eq!(time(b"\x1f\x43\xb6\x75\x88\xbf\x84abcd\xe7\x81\x07"), Some(7));
        assert_eq!(time(b"\x1f\x43\xb6\x75\xff\xa3\x82\x03\xe8"), None);
        assert_eq!(time(b"\x1f\x43\xb6\x75\xff\xe7\x82\x03"), None);
    }
}
