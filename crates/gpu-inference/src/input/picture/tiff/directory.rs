//! The directories of a TIFF: one for each page, thumbnail and mask, in 32 or 64 bits. Only sizes and places are read.

use std::collections::BTreeSet;
use std::io::{BufRead, Seek, SeekFrom};

use image::RgbImage;

use crate::input::picture::Problem;
use crate::size::Size;

/// Most directories that are looked at: more pages are refused anyway.
const DIRECTORIES_MAX: usize = 1_000;
/// Most entries of a directory. TIFF has some hundred tags.
const ENTRIES_MAX: u64 = 4_096;
/// Most pieces of a page whose places are looked at.
const PIECES_MAX: u64 = 100_000;
/// Most numbers of a palette: of 8 bits.
const PALETTE_NUMBERS_MAX: u64 = 3 << 8;
/// Tags.
const KIND: u16 = 254;
const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const COLOURS: u16 = 262;
const BIT_ORDER: u16 = 266;
const STRIPS_AT: u16 = 273;
const SAMPLES: u16 = 277;
const STRIPS_BYTES: u16 = 279;
const PREDICTOR: u16 = 317;
const PALETTE: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILES_AT: u16 = 324;
const TILES_BYTES: u16 = 325;
const FORMAT: u16 = 339;
const SAMPLING: u16 = 530;
/// Pixels of a row, or of a column, that share a colour.
const SAMPLING_MAX: u64 = 4;
/// Tags from here on are programs' own, which no decoder asks for.
const OWN: u16 = 32_768;
/// In [`KIND`]: a smaller copy of another page, and a mask of one.
const IS_REDUCED: u64 = 1;
const IS_MASK: u64 = 4;

/// In [`COLOURS`]: numbers are brightnesses, or those of a palette.
const WHITE_IS_ZERO: u64 = 0;
const BLACK_IS_ZERO: u64 = 1;
const NUMBER: u64 = 3;
/// In [`FORMAT`]; whole numbers without a sign are the rest.
const IS_SIGNED: u64 = 2;
const IS_FLOAT: u64 = 3;
/// In [`BIT_ORDER`].
const REVERSED: u64 = 2;

/// Whether a file begins as a TIFF does.
pub(in crate::input::picture) fn begins(head: &[u8]) -> bool {
    [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|mark| head.starts_with(*mark))
}

/// How numbers are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    little_endian: bool,
    /// Offsets have 64 bits.
    big: bool,
}

/// A page, thumbnail or mask.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    /// Where it lies in the file.
    pub(super) at: u64,
    pub(super) size: Size,
    kind: u64,
    /// Bits of a sample, and samples of a pixel.
    bits: u64,
    samples: u64,
    /// Where its pieces of pixels end.
    ends_at: u64,
    /// Those of one number.
    fields: Vec<Field>,
    /// Red, green and blue of each number, in 16 bits.
    palette: Vec<u64>,
    /// How many pixels of a row and of a column share a colour: 1, 2 or 4.
    sampling: Vec<u64>,
    /// A tag is said to have more bytes than the file.
    exceeds: bool,
}

/// A tag with its number, and where that lies.
#[derive(Debug, Clone)]
struct Field {
    tag: u16,
    value: u64,
    at: u64,
    width: usize,
}

/// Pixels that are packed in a way that the decoder does not know.
#[derive(Debug)]
pub(super) struct Packing {
    samples: Samples,
    /// The bits of each byte are in the other order.
    reversed: bool,
    /// White is 0.
    inverted: bool,
    size: Size,
}

#[derive(Debug)]
enum Samples {
    /// Of 1, 2 or 4 bits, with the colour of each number.
    Few { bits: u8, colours: Vec<[u8; 3]> },
    /// Of 12 bits.
    Twelve,
    /// Whole numbers of 32 bits.
    Wide { little_endian: bool, signed: bool },
}

impl Packing {
    /// The pixels of lines, each of `line_bytes`.
    pub(super) fn unpacked(&self, bytes: &[u8], line_bytes: u32) -> RgbImage {
        let mut picture = RgbImage::new(self.size.width, self.size.height);
        let lines = || bytes.chunks_exact((line_bytes as usize).max(1));
        let numbers = |line| (0..self.size.width as usize).map(move |x| self.number(line, x));
        // Numbers of 32 bits may be in any scale, which the largest one shows.
        let scale = match self.samples {
            Samples::Few { .. } => 0,
            Samples::Twelve => 4,
            Samples::Wide { .. } => match lines().flat_map(numbers).max() {
                Some(..=0xff) | None => 0,
                Some(..=0xffff) => 8,
                Some(_) => 24,
            },
        };
        for (line, pixels) in lines().zip(picture.rows_mut()) {
            for (number, pixel) in numbers(line).zip(pixels) {
                pixel.0 = match &self.samples {
                    Samples::Few { colours, .. } => colours[number as usize & (colours.len() - 1)],
                    _ => {
                        let shade = u8::try_from(number >> scale).unwrap_or(u8::MAX);
                        [if self.inverted { u8::MAX - shade } else { shade }; 3]
                    }
                };
            }
        }
        picture
    }

    /// The number of a line's pixel.
    fn number(&self, line: &[u8], x: usize) -> u32 {
        let byte = |at: usize| {
            let byte = line.get(at).copied().unwrap_or(0);
            u32::from(if self.reversed { byte.reverse_bits() } else { byte })
        };
        match self.samples {
            Samples::Few { bits, .. } => {
                let of_byte = 8 / usize::from(bits);
                byte(x / of_byte) >> (usize::from(bits) * (of_byte - 1 - x % of_byte))
            }
            Samples::Twelve => {
                let both = byte(3 * x / 2) << 8 | byte(3 * x / 2 + 1);
                if x.is_multiple_of(2) { both >> 4 } else { both & 0xfff }
            }
            Samples::Wide { little_endian, signed } => {
                let bytes = [0, 1, 2, 3].map(|at| line.get(4 * x + at).copied().unwrap_or(0));
                let number = if little_endian {
                    u32::from_le_bytes(bytes)
                } else {
                    u32::from_be_bytes(bytes)
                };
                if signed { number.cast_signed().max(0).cast_unsigned() } else { number }
            }
        }
    }
}

impl Directory {
    pub(super) fn is_page(&self) -> bool {
        self.kind & (IS_REDUCED | IS_MASK) == 0
    }

    /// Whether some of its pixels lie behind the end of the file.
    pub(super) fn is_cut(&self, file_bytes: u64) -> bool {
        self.ends_at > file_bytes
    }

    /// Whether colours are shared by no more pixels than TIFF allows: the decoder takes memory for as many as are said.
    pub(super) fn has_known_sampling(&self) -> bool {
        self.sampling.iter().all(|pixels| *pixels <= SAMPLING_MAX)
    }

    /// Whether a tag is said to have more bytes than the file, for which a decoder may reserve memory before it reads them.
    pub(super) fn exceeds_file(&self) -> bool {
        self.exceeds
    }

    /// How its pixels are packed in a way that the decoder does not know: in 1 or 2 bits with a palette, in 2 or 12 bits, in bits that are
    /// in the other order, or as whole numbers of 32 bits.
    pub(super) fn packing(&self, header: Header) -> Option<Packing> {
        let is = |tag: u16| self.field(tag).map_or(0, |field| field.value);
        let (colours, format, reversed) = (is(COLOURS), is(FORMAT), is(BIT_ORDER) == REVERSED);
        let is_grey = matches!(colours, WHITE_IS_ZERO | BLACK_IS_ZERO);
        let known = match self.bits {
            1 => colours != NUMBER,
            2 => !is_grey && colours != NUMBER,
            4 => !reversed || !is_grey && colours != NUMBER,
            12 => !is_grey,
            32 => !is_grey || format == IS_FLOAT,
            _ => true,
        };
        let fax = matches!(is(COMPRESSION), 2..=4);
        let predicted = is(PREDICTOR) > 1;
        if known || fax || predicted || self.samples != 1 || self.field(TILE_WIDTH).is_some() {
            return None;
        }
        let samples = match self.bits {
            12 => Samples::Twelve,
            32 => {
                Samples::Wide { little_endian: header.little_endian, signed: format == IS_SIGNED }
            }
            bits => Samples::Few { bits: u8::try_from(bits).ok()?, colours: self.colours(colours) },
        };
        let inverted = colours == WHITE_IS_ZERO;
        Some(Packing { samples, reversed, inverted, size: self.size })
    }

    /// What each number of a few bits means.
    fn colours(&self, meaning: u64) -> Vec<[u8; 3]> {
        let count = 1_usize << self.bits;
        let shade = |index: usize| {
            let index = if meaning == WHITE_IS_ZERO { count - 1 - index } else { index };
            [u8::try_from(index * 255 / (count - 1)).unwrap_or(u8::MAX); 3]
        };
        let colour = |index: usize| {
            let channel = |channel| self.palette.get(channel * count + index).unwrap_or(&0) >> 8;
            [0, 1, 2].map(|of| u8::try_from(channel(of)).unwrap_or(u8::MAX))
        };
        (0..count)
            .map(|index| if meaning == NUMBER { colour(index) } else { shade(index) })
            .collect()
    }

    /// The file, as if each byte of this page were a pixel, and how long a line is then.
    pub(super) fn as_bytes(&self, file: &[u8], header: Header) -> (Vec<u8>, u32) {
        let mut copy = file.to_vec();
        let bits = u64::from(self.size.width) * self.bits;
        let width = u32::try_from(bits.div_ceil(8)).unwrap_or(u32::MAX);
        let plain = [(WIDTH, width), (BITS, 8), (COLOURS, 1), (BIT_ORDER, 1), (FORMAT, 1)];
        for (tag, value) in plain {
            let Some(field) = self.field(tag) else { continue };
            let bytes = value.to_be_bytes();
            let mut bytes = bytes[4 - field.width.min(4)..].to_vec();
            if header.little_endian {
                bytes.reverse();
            }
            let at = usize::try_from(field.at).unwrap_or(usize::MAX);
            let target = copy.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
            if let Some(target) = target {
                target.copy_from_slice(&bytes);
            }
        }
        (copy, width)
    }

    fn field(&self, tag: u16) -> Option<&Field> {
        self.fields.iter().find(|field| field.tag == tag)
    }

    /// The memory of its decoded pixels.
    pub(super) fn decoded_bytes(&self) -> u64 {
        let bits = self.bits.clamp(8, 64) * self.samples.clamp(1, 8);
        self.size.pixels().saturating_mul((bits / 8).max(3))
    }
}

impl Header {
    /// Where the pointer to the first directory lies, and its bytes for another one.
    pub(super) fn pointing_to(self, directory: u64) -> (u64, Vec<u8>) {
        let bytes = match (self.big, self.little_endian) {
            (true, true) => directory.to_le_bytes().to_vec(),
            (true, false) => directory.to_be_bytes().to_vec(),
            (false, true) => directory.to_le_bytes()[..4].to_vec(),
            (false, false) => directory.to_be_bytes()[4..].to_vec(),
        };
        (if self.big { 8 } else { 4 }, bytes)
    }
}

/// All directories, at least one. The list ends where it comes back to an earlier one, or cannot be read.
pub(super) fn read(
    file: &mut (impl BufRead + Seek),
    file_bytes: u64,
) -> Result<(Header, Vec<Directory>), Problem> {
    file.rewind()?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    let header = Header { little_endian: magic[0] == b'I', big: magic.contains(&b'+') };
    let mut numbers = Numbers { file, header, file_bytes };
    if header.big {
        numbers.number(4)?;
    }
    let mut next = numbers.offset()?;
    let (mut directories, mut seen) = (Vec::new(), BTreeSet::new());
    while next != 0 && seen.insert(next) && directories.len() < DIRECTORIES_MAX {
        match numbers.directory(next) {
            Ok((directory, behind)) => {
                directories.push(directory);
                next = behind;
            }
            Err(problem) if directories.is_empty() => return Err(problem),
            Err(_) => break,
        }
    }
    if directories.is_empty() {
        return Err(Problem::damaged("it has no page"));
    }
    Ok((header, directories))
}

/// Reads numbers of a file.
struct Numbers<'a, F> {
    file: &'a mut F,
    header: Header,
    file_bytes: u64,
}

/// One entry of a directory.
struct Entry {
    tag: u16,
    /// Bytes of a number; 0 for what is none.
    width: usize,
    count: u64,
    /// As the header says, whatever the file has.
    bytes: u64,
    /// Where its numbers lie.
    at: u64,
}

impl<F: BufRead + Seek> Numbers<'_, F> {
    fn number(&mut self, width: usize) -> Result<u64, Problem> {
        let mut bytes = [0; 8];
        if self.header.little_endian {
            self.file.read_exact(&mut bytes[..width])?;
            Ok(u64::from_le_bytes(bytes))
        } else {
            self.file.read_exact(&mut bytes[8 - width..])?;
            Ok(u64::from_be_bytes(bytes))
        }
    }

    fn offset(&mut self) -> Result<u64, Problem> {
        self.number(if self.header.big { 8 } else { 4 })
    }

    /// A directory, and where the next one lies; 0 if there is none.
    fn directory(&mut self, at: u64) -> Result<(Directory, u64), Problem> {
        if at >= self.file_bytes {
            return Err(Problem::Truncated);
        }
        self.file.seek(SeekFrom::Start(at))?;
        let count = self.number(if self.header.big { 8 } else { 2 })?;
        if count > ENTRIES_MAX {
            return Err(Problem::Damaged(format!("{count} entries describe a page")));
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(self.entry()?);
        }
        let next = self.offset().unwrap_or(0);
        let mut directory = Directory { at, bits: 1, samples: 1, ..Directory::default() };
        let mut pieces = [Vec::new(), Vec::new()];
        for entry in entries {
            directory.exceeds |= entry.tag < OWN && entry.bytes > self.file_bytes;
            let first = |numbers: &mut Self| Ok(numbers.numbers(&entry, 1)?.first().copied());
            let first: Result<Option<u64>, Problem> = first(self);
            let first = first?;
            if let (Some(value), 1) = (first, entry.count) {
                let Entry { tag, width, at, .. } = entry;
                directory.fields.push(Field { tag, value, at, width });
            }
            let side = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            match (entry.tag, first) {
                (KIND, Some(kind)) => directory.kind = kind,
                (WIDTH, Some(width)) => directory.size.width = side(width),
                (HEIGHT, Some(height)) => directory.size.height = side(height),
                (BITS, Some(bits)) => directory.bits = bits,
                (SAMPLES, Some(samples)) => directory.samples = samples,
                (SAMPLING, _) => directory.sampling = self.numbers(&entry, 2)?,
                (PALETTE, _) => directory.palette = self.numbers(&entry, PALETTE_NUMBERS_MAX)?,
                (STRIPS_AT | TILES_AT, _) => pieces[0] = self.numbers(&entry, PIECES_MAX)?,
                (STRIPS_BYTES | TILES_BYTES, _) => pieces[1] = self.numbers(&entry, PIECES_MAX)?,
                _ => {}
            }
        }
        let ends = pieces[0].iter().zip(&pieces[1]).map(|(at, bytes)| at.saturating_add(*bytes));
        directory.ends_at = ends.max().unwrap_or(0);
        Ok((directory, next))
    }

    fn entry(&mut self) -> Result<Entry, Problem> {
        let tag = u16::try_from(self.number(2)?).unwrap_or(u16::MAX);
        // Texts, signed numbers and fractions are no places, sizes or kinds.
        let (width, bytes) = match self.number(2)? {
            1 => (1, 1),
            2 | 6 | 7 => (0, 1),
            3 => (2, 2),
            8 => (0, 2),
            4 | 13 => (4, 4),
            9 | 11 => (0, 4),
            16 | 18 => (8, 8),
            5 | 10 | 12 | 17 => (0, 8),
            _ => (0, 0),
        };
        let count = self.offset()?;
        let own = self.file.stream_position()?;
        let inside = if self.header.big { 8 } else { 4 };
        let place = self.offset()?;
        let bytes = count.saturating_mul(bytes);
        let fits = bytes <= inside;
        Ok(Entry { tag, width, count, bytes, at: if fits { own } else { place } })
    }

    /// The numbers of an entry, as far as the file has them.
    fn numbers(&mut self, entry: &Entry, count_max: u64) -> Result<Vec<u64>, Problem> {
        if entry.width == 0 || entry.at >= self.file_bytes {
            return Ok(Vec::new());
        }
        self.file.seek(SeekFrom::Start(entry.at))?;
        let fit = (self.file_bytes - entry.at) / entry.width as u64;
        let mut numbers = Vec::new();
        for _ in 0..entry.count.min(fit).min(count_max) {
            numbers.push(self.number(entry.width)?);
        }
        Ok(numbers)
    }
}
