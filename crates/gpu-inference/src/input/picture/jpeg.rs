//! JPEG: what of a file makes its pixels, and whether all of them are there.
//!
//! The decoder fills up with grey what a cut file lacks, ends at bytes between two segments, and draws rubbish where colours are sampled
//! more finely than brightness, each without a word. So the segments are judged here, and the decoder gets those that it needs; what is
//! damaged up to the next restart mark is replaced before. Of a progressive picture a scan that builds on a damaged one is left out.

mod entropy;
mod frame;
mod repair;

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use memchr::memchr;

use self::entropy::Scans;
use self::frame::{Frame, is_frame};
use super::{EXIF_NAME, Problem, upright};
use crate::size::Size;

/// Markers, each after a byte of 0xff.
const PREFIX: u8 = 0xff;
const STUFFED: u8 = 0x00;
const RESTART_FIRST: u8 = 0xd0;
const RESTART_LAST: u8 = 0xd7;
const START: u8 = 0xd8;
const END: u8 = 0xd9;
const HUFFMAN_TABLES: u8 = 0xc4;
const SCAN: u8 = 0xda;
const QUANTISATION: u8 = 0xdb;
const RESTART_INTERVAL: u8 = 0xdd;
const EXIF: u8 = 0xe1;
const ADOBE: u8 = 0xee;
const COMMENT: u8 = 0xfe;
/// Length of Adobe's segment, the last byte of which says how colours are stored.
const ADOBE_BYTES: usize = 12;
/// Most scans: the decoder's own limit.
const SCANS_MAX: usize = 100;

/// The size that the header announces.
pub(super) fn size(bytes: &[u8]) -> Result<Size, Problem> {
    let mut segments = Segments { bytes, at: 0 };
    while let Some((marker, content)) = segments.next()? {
        if is_frame(marker) {
            return Ok(Frame::parse(marker, content)?.size);
        }
    }
    Err(Problem::damaged("it ends before its header"))
}

/// The picture, upright, and what of it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Result<(RgbImage, Option<String>), Problem> {
    let Judged { clean, orientation, lost } = judge(bytes)?;
    let decoder = JpegDecoder::new(Cursor::new(clean.as_slice()))?;
    let picture = upright(DynamicImage::from_decoder(decoder)?, orientation);
    Ok((picture, lost))
}

/// A file that can be decoded as a whole.
struct Judged {
    /// Its segments without those that say nothing about pixels.
    clean: Vec<u8>,
    orientation: Orientation,
    /// What of it is damaged.
    lost: Option<String>,
}

fn judge(bytes: &[u8]) -> Result<Judged, Problem> {
    let mut segments = Segments { bytes, at: 0 };
    let mut clean = vec![PREFIX, START];
    let mut orientation = Orientation::NoTransforms;
    let mut scans = Scans::default();
    let ended = loop {
        let (marker, content) = match segments.next() {
            Ok(Some(segment)) => segment,
            Ok(None) => break true,
            // The end mark may be missing: the scans tell whether pixels are.
            Err(Problem::Truncated) if scans.count() > 0 => break false,
            Err(problem) => return Err(problem),
        };
        match marker {
            SCAN => {
                let coded = segments.coded();
                if let Some(sound) = scans.read(content, coded)? {
                    keep(&mut clean, marker, content);
                    clean.extend_from_slice(&sound);
                }
                if scans.count() > SCANS_MAX {
                    return Err(Problem::unsupported("more than 100 scans"));
                }
            }
            HUFFMAN_TABLES => scans.add_tables(content)?,
            RESTART_INTERVAL => scans.set_restarts(content)?,
            EXIF if content.starts_with(EXIF_NAME) => {
                let found = Orientation::from_exif_chunk(&content[EXIF_NAME.len()..]);
                orientation = found.unwrap_or(orientation);
                continue;
            }
            QUANTISATION => {}
            ADOBE if content.starts_with(b"Adobe") && content.len() >= ADOBE_BYTES => {}
            _ if is_frame(marker) => scans.begin(Frame::parse(marker, content)?)?,
            _ => continue,
        }
        if marker != SCAN {
            keep(&mut clean, marker, content);
        }
    };
    scans.check_complete(ended)?;
    clean.extend([PREFIX, END]);
    Ok(Judged { clean, orientation, lost: scans.lost() })
}

fn keep(clean: &mut Vec<u8>, marker: u8, content: &[u8]) {
    let length = u16::try_from(content.len() + 2).expect("its own length was of two bytes");
    clean.extend([PREFIX, marker]);
    clean.extend(length.to_be_bytes());
    clean.extend_from_slice(content);
}

/// The segments of a file, one after the other. Bytes between two of them are passed over.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// The next marker that has a content, with it; none at the end mark.
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Problem> {
        loop {
            let marker = self.marker().ok_or(Problem::Truncated)?;
            if marker == END {
                return Ok(None);
            }
            if !has_content(marker) {
                continue;
            }
            let rest = &self.bytes[self.at..];
            let length = rest.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            let length = usize::from(length.ok_or(Problem::Truncated)?).max(2);
            let content = rest.get(2..length).ok_or(Problem::Truncated)?;
            self.at += length;
            return Ok(Some((marker, content)));
        }
    }

    /// The byte behind the next `0xff` that is none itself.
    fn marker(&mut self) -> Option<u8> {
        self.at += memchr(PREFIX, &self.bytes[self.at..])?;
        self.at += self.bytes[self.at..].iter().position(|&byte| byte != PREFIX)?;
        let marker = self.bytes[self.at];
        self.at += 1;
        Some(marker)
    }

    /// The coded pixels behind the header of a scan, with the restart marks among them.
    fn coded(&mut self) -> &'a [u8] {
        let from = self.at;
        loop {
            let Some(found) = memchr(PREFIX, &self.bytes[self.at..]) else {
                self.at = self.bytes.len();
                return &self.bytes[from..];
            };
            self.at += found;
            match self.bytes.get(self.at + 1) {
                Some(&(STUFFED | RESTART_FIRST..=RESTART_LAST)) => self.at += 2,
                Some(&PREFIX) => self.at += 1,
                Some(_) => return &self.bytes[from..self.at],
                None => self.at += 1,
            }
        }
    }
}

/// Whether a length and a content follow a marker. Of others it is not known, so they are taken for bytes between two segments.
fn has_content(marker: u8) -> bool {
    const APPLICATION_FIRST: u8 = 0xe0;
    const APPLICATION_LAST: u8 = 0xef;
    is_frame(marker)
        || matches!(marker, HUFFMAN_TABLES | SCAN..=RESTART_INTERVAL | COMMENT)
        || (APPLICATION_FIRST..=APPLICATION_LAST).contains(&marker)
}
