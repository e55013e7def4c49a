//! Where the pixels of a BMP are. Its header says so, and some programs write a wrong number, which the decoder believes.

use std::io::{Read, Seek, SeekFrom};

/// Where the number lies, and its length.
const POINTER_AT: u64 = 10;
/// What comes before the description, and the oldest kind of that.
const FILE_HEADER: u64 = 14;
const OLD_DESCRIPTION: u64 = 12;
const DESCRIPTION: u64 = 40;
/// Kinds of compression: none, and masks of channels behind the description.
const PLAIN: u32 = 0;
const MASKS: u32 = 3;
const MASKS_WITH_ALPHA: u32 = 6;
/// A line's length is a multiple of this.
const LINE_BITS: u64 = 32;
/// By how many bytes a file may be longer than its pixels: programs fill it up.
const SLACK_BYTES: u64 = 3;

/// What a header says of the place of the pixels.
struct Header {
    claimed: u64,
    /// Behind the description and masks, and behind the palette.
    described: u64,
    expected: u64,
    /// Of the pixels, where that is known.
    bytes: Option<u64>,
}

/// The pointer to the pixels as it has to be read, and where it lies; none where it can be right.
pub(super) fn pointer(file: &mut (impl Read + Seek), file_bytes: u64) -> Option<(u64, Vec<u8>)> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(FILE_HEADER + DESCRIPTION).read_to_end(&mut head).ok()?;
    let header = Header::parse(&head)?;
    let expected = u32::try_from(header.expected).ok()?;
    header.is_wrong(file_bytes).then(|| (POINTER_AT, expected.to_le_bytes().to_vec()))
}

impl Header {
    fn parse(head: &[u8]) -> Option<Self> {
        let wide = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u16::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let length = u64::from(wide(14)?);
        let is_old = length == OLD_DESCRIPTION;
        let (width, height, bits, colour_bytes) = if is_old {
            (u32::from(short(18)?), u32::from(short(20)?), short(24)?, 3)
        } else {
            let side = |at| Some(wide(at)?.cast_signed().unsigned_abs());
            (side(18)?, side(22)?, short(28)?, 4)
        };
        let (compression, colours) = if is_old { (PLAIN, 0) } else { (wide(30)?, wide(46)?) };
        let masks = match compression {
            MASKS if length == DESCRIPTION => 12,
            MASKS_WITH_ALPHA if length == DESCRIPTION => 16,
            _ => 0,
        };
        let colours = match bits {
            1..=8 if colours == 0 => 1 << bits,
            1..=8 => u64::from(colours.min(1 << bits)),
            _ => 0,
        };
        let line = (u64::from(width) * u64::from(bits)).next_multiple_of(LINE_BITS) / 8;
        let is_plain = matches!(compression, PLAIN | MASKS | MASKS_WITH_ALPHA);
        let described = FILE_HEADER + length + masks;
        Some(Self {
            claimed: wide(10)?.into(),
            described,
            expected: described + colours * colour_bytes,
            bytes: is_plain.then(|| line.saturating_mul(u64::from(height))),
        })
    }

    /// Whether the pixels must be elsewhere than is claimed.
    fn is_wrong(&self, file_bytes: u64) -> bool {
        let Some(bytes) = self.bytes else {
            return self.claimed < self.described || self.claimed >= file_bytes;
        };
        let left = |at: u64| file_bytes.checked_sub(at)?.checked_sub(bytes);
        match (left(self.claimed), left(self.expected)) {
            _ if self.claimed < self.described => true,
            // A palette may be shorter than it says, unless the file then is too long by just that.
            (Some(_), Some(behind)) => self.claimed < self.expected && behind <= SLACK_BYTES,
            (None, Some(_)) => true,
            _ => false,
        }
    }
}
