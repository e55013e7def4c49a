//! Headers of the containers of plain samples: WAV in all its kinds (RIFF, RIFX, RF64, BW64, Wave64), AIFF and AU.
//!
//! A number in a header is a claim, judged against the file: programs that write to a pipe or are killed leave lengths that are zero, a
//! placeholder, or short; others are off by a few bytes. Only a plausible length that the file does not reach means that it was cut.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::pcm::{Coding, PcmFormat};

/// Lengths from here on are placeholders, unless the file has a good part of them.
const UNKNOWN_MIN: u64 = 0x7fff_0000;
/// What programs are off by that count a header in, or a byte of padding.
const SLACK_BYTES: u64 = 64;
/// Chunks that are walked over; a file of programs has some ten.
const CHUNKS_MAX: usize = 1_000;
/// Most that is read of a chunk that describes the sound.
const DESCRIPTION_BYTES_MAX: u64 = 4 << 10;
/// Chunks that programs write after the sound: known even by a wrong length.
const USUAL_CHUNKS: [&[u8; 4]; 12] = [
    b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"fact", b"JUNK", b"PEAK", b"iXML",
    b"_PMX", b"inst",
];
/// Where a chunk of samples is searched for when sizes lead nowhere.
const SEARCH_BYTES_MAX: u64 = 1 << 20;

/// What a header says, as far as the file bears it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) coded: Coded,
    /// Where the sound is in the file.
    pub(super) data: Range<u64>,
    /// Bytes of sound that were announced, where the file was cut.
    pub(super) cut: Option<u64>,
    /// Bytes of sound beyond those that were announced.
    pub(super) beyond: u64,
    /// Where more sound begins.
    pub(super) next: Option<Next>,
}

/// Sound behind other sound in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Another recording, with a header of its own.
    Recording(u64),
    /// A further chunk of samples of the recording that begins at `start`.
    Chunk { at: u64, start: u64, coded: Coded },
}

impl Next {
    /// Where it is in the file.
    pub(super) fn at(&self) -> u64 {
        match self {
            Self::Recording(at) | Self::Chunk { at, .. } => *at,
        }
    }
}

/// How the sound is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Coded {
    Pcm(PcmFormat),
    /// MPEG frames, as in an MP3 file.
    Mpeg,
    /// Another codec, with its description in WAV.
    Other {
        tag: u16,
        description: Vec<u8>,
    },
}

/// Why a header says nothing.
#[derive(Debug)]
pub(super) enum HeaderError {
    Io(io::Error),
    Damaged(String),
    /// A codec, or a kind of samples, that is not read.
    Unsupported(String),
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends inside its header".to_owned()),
            _ => Self::Io(error),
        }
    }
}

fn damaged<T>(problem: impl Into<String>) -> Result<T, HeaderError> {
    Err(HeaderError::Damaged(problem.into()))
}

fn unsupported<T>(problem: impl Into<String>) -> Result<T, HeaderError> {
    Err(HeaderError::Unsupported(problem.into()))
}

/// The layout of the recording that begins at `start`; none if it is of no kind that is known here.
pub(super) fn layout(
    file: &mut File,
    start: u64,
    file_bytes: u64,
) -> Result<Option<Layout>, HeaderError> {
    let head = head(file, start)?;
    let Some(kind) = Kind::of(&head) else { return Ok(None) };
    let mut form = Form { file, file_bytes, start, kind };
    match kind {
        Kind::Au { is_big_endian } => {
            au(form.file, &head, is_big_endian, start, file_bytes).map(Some)
        }
        Kind::Aiff => form.aiff().map(Some),
        Kind::Wave { .. } | Kind::Wave64 => form.wave().map(Some),
    }
}

/// The layout of a further chunk of samples of the recording that begins at `start`.
pub(super) fn chunk_layout(
    file: &mut File,
    file_bytes: u64,
    (start, at): (u64, u64),
    coded: &Coded,
) -> Result<Layout, HeaderError> {
    let kind = Kind::of(&head(file, start)?);
    let kind = kind.unwrap_or(Kind::Wave { is_big_endian: false });
    let mut form = Form { file, file_bytes, start, kind };
    match form.chunk(at)? {
        Some(chunk) => form.samples(coded, chunk.content, chunk.claimed),
        None => damaged("it ends inside its header"),
    }
}

/// The first bytes of a recording.
fn head(file: &mut File, start: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(40).read_to_end(&mut head)?;
    Ok(head)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Wave {
        is_big_endian: bool,
    },
    /// Sony's, of 64 bits.
    Wave64,
    Aiff,
    Au {
        is_big_endian: bool,
    },
}

impl Kind {
    fn of(head: &[u8]) -> Option<Self> {
        const W64: &[u8] = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0";
        let name = head.get(..4)?;
        if head.starts_with(W64) && head.get(24..28) == Some(b"wave") {
            return Some(Self::Wave64);
        }
        match (name, head.get(8..12)) {
            (b"RIFF" | b"RF64" | b"BW64", Some(b"WAVE")) => {
                Some(Self::Wave { is_big_endian: false })
            }
            (b"RIFX", Some(b"WAVE")) => Some(Self::Wave { is_big_endian: true }),
            (b"FORM", Some(b"AIFF" | b"AIFC")) => Some(Self::Aiff),
            (b".snd", _) => Some(Self::Au { is_big_endian: true }),
            (b"dns.", _) => Some(Self::Au { is_big_endian: false }),
            _ => None,
        }
    }

    fn is_big_endian(self) -> bool {
        match self {
            Self::Wave { is_big_endian } | Self::Au { is_big_endian } => is_big_endian,
            Self::Wave64 => false,
            Self::Aiff => true,
        }
    }
}

/// A file of chunks that is being walked over.
struct Form<'a> {
    file: &'a mut File,
    file_bytes: u64,
    start: u64,
    kind: Kind,
}

/// A chunk, with what it claims to hold.
struct Chunk {
    name: [u8; 4],
    /// Where its content begins.
    content: u64,
    claimed: u64,
}

impl Form<'_> {
    fn wave(&mut self) -> Result<Layout, HeaderError> {
        let (mut description, mut data, mut claimed_64) = (None, None, None);
        let mut at = self.start + if self.kind == Kind::Wave64 { 40 } else { 12 };
        for _ in 0..CHUNKS_MAX {
            let Some(chunk) = self.chunk(at)? else { break };
            match &chunk.name {
                b"fmt " => description = Some(self.content(&chunk)?),
                b"ds64" => claimed_64 = self.content(&chunk)?.get(8..16).map(u64_le),
                b"data" => data = Some(chunk.content..chunk.claimed),
                _ => {}
            }
            if description.is_some() && data.is_some() {
                break;
            }
            at = self.after(&chunk);
        }
        let Some(description) = description else {
            return damaged("it has no description of its sound (fmt)");
        };
        let data = match data {
            Some(data) => data,
            None => self.search_data()?,
        };
        // The 64-bit length stands in for one that does not fit into 32 bits.
        let claimed = claimed_64.filter(|_| data.end == u64::from(u32::MAX)).unwrap_or(data.end);
        let coded = coded(&description, self.kind.is_big_endian())?;
        self.samples(&coded, data.start, claimed)
    }

    /// The layout of a chunk of samples, with where more of them are: most programs write one, and others go on in a second.
    fn samples(&mut self, coded: &Coded, begin: u64, claimed: u64) -> Result<Layout, HeaderError> {
        let form_end = self.claimed_end()?;
        let mut layout = self.judged(coded, begin, claimed, form_end)?;
        if layout.next.is_none() {
            layout.next = self.further(layout.data.end, coded)?;
        }
        Ok(layout)
    }

    /// Where more sound is, behind other chunks that follow the samples.
    fn further(&mut self, end: u64, coded: &Coded) -> Result<Option<Next>, HeaderError> {
        // Not all programs round a length up.
        for begin in [end, self.rounded_up(end)] {
            let mut at = begin;
            for _ in 0..CHUNKS_MAX {
                let Some(chunk) = self.chunk(at)? else { break };
                if chunk.name == *b"data" && chunk.claimed > 0 {
                    let (start, coded) = (self.start, coded.clone());
                    return Ok(Some(Next::Chunk { at, start, coded }));
                }
                if Kind::of(&head(self.file, at)?).is_some() {
                    return Ok(Some(Next::Recording(at)));
                }
                at = self.after(&chunk);
            }
        }
        Ok(None)
    }

    fn aiff(&mut self) -> Result<Layout, HeaderError> {
        let (mut description, mut data) = (None, None);
        let mut at = self.start + 12;
        for _ in 0..CHUNKS_MAX {
            let Some(chunk) = self.chunk(at)? else { break };
            match &chunk.name {
                b"COMM" => description = Some(self.content(&chunk)?),
                b"SSND" => {
                    let offset = self.content(&chunk)?.get(..4).map_or(0, u32_be);
                    let skipped = 8 + u64::from(offset);
                    data = Some((chunk.content + skipped, chunk.claimed.saturating_sub(skipped)));
                }
                _ => {}
            }
            if description.is_some() && data.is_some() {
                break;
            }
            at = self.after(&chunk);
        }
        let (Some(description), Some((begin, claimed))) = (description, data) else {
            return damaged("it has no description of its sound (COMM), or no sound (SSND)");
        };
        let coded = Coded::Pcm(aiff_format(&description)?);
        let form = self.claimed_end()?;
        self.judged(&coded, begin, claimed, form)
    }

    /// The chunk at a place in the file; none where no chunk can be.
    fn chunk(&mut self, at: u64) -> Result<Option<Chunk>, HeaderError> {
        let header = if self.kind == Kind::Wave64 { 24 } else { 8 };
        if at.saturating_add(header) > self.file_bytes {
            return Ok(None);
        }
        let mut bytes = [0; 24];
        let bytes = &mut bytes[..usize::try_from(header).expect("24")];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(bytes)?;
        let name = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if !name.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Ok(None);
        }
        let claimed = match self.kind {
            Kind::Wave64 => u64_le(&bytes[16..24]).saturating_sub(24),
            kind if kind.is_big_endian() => u32_be(&bytes[4..8]).into(),
            _ => u32_le(&bytes[4..8]).into(),
        };
        Ok(Some(Chunk { name, content: at + header, claimed }))
    }

    fn content(&mut self, chunk: &Chunk) -> Result<Vec<u8>, HeaderError> {
        let mut content = Vec::new();
        self.file.seek(SeekFrom::Start(chunk.content))?;
        let length = chunk.claimed.min(DESCRIPTION_BYTES_MAX);
        (&mut *self.file).take(length).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Where the next chunk begins.
    fn after(&self, chunk: &Chunk) -> u64 {
        self.rounded_up(chunk.content.saturating_add(chunk.claimed))
    }

    /// Where a chunk begins behind one that ends here: lengths are rounded up.
    fn rounded_up(&self, end: u64) -> u64 {
        let unit = if self.kind == Kind::Wave64 { 8 } else { 2 };
        end.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
    }

    /// The chunk of samples, by its name alone: another chunk's length led past it.
    fn search_data(&mut self) -> Result<Range<u64>, HeaderError> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(self.start))?;
        (&mut *self.file).take(SEARCH_BYTES_MAX).read_to_end(&mut bytes)?;
        let Some(found) = memchr::memmem::find(&bytes, b"data") else {
            return damaged("it has no chunk of sound (data)");
        };
        match self.chunk(self.start + found as u64)? {
            Some(chunk) => Ok(chunk.content..chunk.claimed),
            None => damaged("it ends inside its header"),
        }
    }

    /// Where the file ends by the length of the whole.
    fn claimed_end(&mut self) -> Result<u64, HeaderError> {
        let mut bytes = [0; 24];
        self.file.seek(SeekFrom::Start(self.start))?;
        self.file.read_exact(&mut bytes)?;
        let length = match self.kind {
            Kind::Wave64 => u64_le(&bytes[16..24]).saturating_sub(8),
            kind if kind.is_big_endian() => u32_be(&bytes[4..8]).into(),
            _ => u32_le(&bytes[4..8]).into(),
        };
        Ok(self.start.saturating_add(8).saturating_add(length))
    }

    /// The layout, its lengths judged against the file's.
    fn judged(
        &mut self,
        coded: &Coded,
        begin: u64,
        claimed: u64,
        form_end: u64,
    ) -> Result<Layout, HeaderError> {
        let there = self.file_bytes.saturating_sub(begin);
        let is_whole = form_end.abs_diff(self.file_bytes) <= SLACK_BYTES;
        let file_bytes = self.file_bytes;
        let whole = |cut| Layout {
            coded: coded.clone(),
            data: begin..file_bytes,
            cut,
            beyond: 0,
            next: None,
        };
        if claimed > there {
            let is_unknown = claimed >= UNKNOWN_MIN && claimed / 4 > there;
            let is_cut = !is_unknown && !is_whole && claimed - there > SLACK_BYTES;
            return Ok(whole(is_cut.then_some(claimed)));
        }
        match self.tail(begin + claimed)? {
            Tail::Sound if claimed == 0 => Ok(whole(None)),
            Tail::Sound => Ok(Layout { beyond: there - claimed, ..whole(None) }),
            Tail::Other => Ok(Layout { data: begin..begin + claimed, ..whole(None) }),
            Tail::Recording(at) => {
                let next = Some(Next::Recording(at));
                Ok(Layout { data: begin..begin + claimed, next, ..whole(None) })
            }
        }
    }

    /// What follows the announced samples.
    fn tail(&mut self, end: u64) -> Result<Tail, HeaderError> {
        for at in [end, end + end % 2] {
            let mut bytes = Vec::new();
            self.file.seek(SeekFrom::Start(at))?;
            (&mut *self.file).take(SLACK_BYTES).read_to_end(&mut bytes)?;
            let is_tag = ["ID3", "TAG", "APETAGEX", "LYRICS"]
                .iter()
                .any(|tag| bytes.starts_with(tag.as_bytes()));
            if is_tag || (bytes.len() as u64) < SLACK_BYTES {
                return Ok(Tail::Other);
            }
            if Kind::of(&bytes).is_some() {
                return Ok(Tail::Recording(at));
            }
            let left = self.file_bytes - at;
            let is_chunk =
                |chunk: Chunk| chunk.claimed <= left || USUAL_CHUNKS.contains(&&chunk.name);
            if self.chunk(at)?.is_some_and(is_chunk) {
                return Ok(Tail::Other);
            }
        }
        Ok(Tail::Sound)
    }
}

/// What follows the announced samples: chunks and tags, another recording, or bytes that can only be more samples.
enum Tail {
    Other,
    Recording(u64),
    Sound,
}

/// The codecs of WAV that are told apart; its number for an extended description is none of them.
const EXTENSIBLE: u16 = 0xfffe;

fn coded(description: &[u8], is_big_endian: bool) -> Result<Coded, HeaderError> {
    if description.len() < 14 {
        return damaged("the description of its sound (fmt) is too short");
    }
    let number = |at: usize| {
        let bytes = description.get(at..at + 2).map_or([0; 2], |bytes| [bytes[0], bytes[1]]);
        if is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    };
    let wide = |at: usize| {
        let bytes = &description[at..at + 4];
        if is_big_endian { u32_be(bytes) } else { u32_le(bytes) }
    };
    let is_extended = number(0) == EXTENSIBLE && description.len() >= 26;
    let tag = if is_extended { number(24) } else { number(0) };
    // Only samples of one byte have no sign, however few bits of a wider one count.
    let is_wide = number(12) > number(2);
    let (coding, bytes) = match tag {
        1 | EXTENSIBLE if (1..=8).contains(&number(14)) && !is_wide => (Coding::Unsigned, 1),
        1 | EXTENSIBLE => (Coding::Signed, usize::from(number(14)).div_ceil(8)),
        3 => (Coding::Float, usize::from(number(14)).div_ceil(8)),
        6 => (Coding::ALaw, 1),
        7 => (Coding::MuLaw, 1),
        0x50 | 0x55 => return Ok(Coded::Mpeg),
        _ => return Ok(Coded::Other { tag, description: description.to_owned() }),
    };
    let claims = Claims {
        channels: number(2).into(),
        rate_hz: wide(4),
        bytes_per_second: wide(8),
        frame: number(12).into(),
        bytes,
    };
    let (channels, container, rate_hz) = claims.settled()?;
    let valid = if is_extended { u32::from(number(18)) } else { 0 };
    let bits = match (coding, u32::from(number(14))) {
        (Coding::Signed, bits) if valid > 0 && valid < bits => valid,
        (Coding::Signed, bits) => bits,
        _ => u32::try_from(8 * container).unwrap_or(u32::MAX),
    };
    pcm(PcmFormat { coding, is_big_endian, container, bits, channels, rate_hz }).map(Coded::Pcm)
}

/// What a description says of one thing in several numbers.
struct Claims {
    channels: usize,
    rate_hz: u32,
    bytes_per_second: u32,
    /// Bytes of one sample of each channel.
    frame: usize,
    /// Bytes that a sample needs for its bits.
    bytes: usize,
}

impl Claims {
    /// Channels, bytes of a sample and rate. Where the numbers disagree, what two of them say counts.
    fn settled(&self) -> Result<(usize, usize, u32), HeaderError> {
        let Self { channels, rate_hz, bytes_per_second, frame, bytes } = *self;
        let by_second = |frame: usize| {
            frame > 0 && u64::from(bytes_per_second) == u64::from(rate_hz) * frame as u64
        };
        if bytes == 0 {
            return damaged("its samples have no bits");
        }
        let packed = channels * bytes;
        let (channels, container) = if channels > 0 && frame == packed {
            (channels, bytes)
        } else if channels > 0
            && frame > packed
            && frame.is_multiple_of(channels)
            && frame / channels <= 8
        {
            (channels, frame / channels)
        } else if frame > 0 && frame.is_multiple_of(bytes) && (channels == 0 || by_second(frame)) {
            (frame / bytes, bytes)
        } else if channels > 0 && (frame == 0 || by_second(packed)) {
            (channels, bytes)
        } else {
            return damaged(format!(
                "it says {channels} channels of {bytes} bytes, and {frame} bytes for all of them"
            ));
        };
        let per_frame = u32::try_from(channels * container).unwrap_or(u32::MAX);
        let rate_hz = match rate_hz {
            0 => bytes_per_second / per_frame,
            rate_hz => rate_hz,
        };
        Ok((channels, container, rate_hz))
    }
}

fn pcm(format: PcmFormat) -> Result<PcmFormat, HeaderError> {
    if format.channels == 0 || format.bits == 0 {
        return damaged("it says that it has no channels, or samples without bits");
    }
    if format.is_read() { Ok(format) } else { unsupported(format!("its samples are {format}")) }
}

fn aiff_format(description: &[u8]) -> Result<PcmFormat, HeaderError> {
    if description.len() < 18 {
        return damaged("the description of its sound (COMM) is too short");
    }
    let number = |at: usize| u16::from_be_bytes([description[at], description[at + 1]]);
    let (channels, bits) = (usize::from(number(0)), u32::from(number(6)));
    // A number of 80 bits: an exponent, and 64 bits of which the rate's are the upper.
    let exponent = u32::from(number(8)) & 0x7fff;
    let mantissa = u32_be(&description[10..14]);
    let rate_hz = 16_414_u32
        .checked_sub(exponent)
        .map_or(0, |shift| mantissa.checked_shr(shift).unwrap_or(0));
    let codec = description.get(18..22).unwrap_or(b"NONE");
    let bytes = (bits as usize).div_ceil(8);
    let (coding, container, is_big_endian) = match codec {
        b"NONE" | b"twos" | b"in24" | b"in32" => (Coding::Signed, bytes, true),
        b"sowt" => (Coding::Signed, bytes, false),
        b"raw " => (Coding::Unsigned, bytes, true),
        b"fl32" | b"FL32" => (Coding::Float, 4, true),
        b"fl64" | b"FL64" => (Coding::Float, 8, true),
        b"alaw" | b"ALAW" => (Coding::ALaw, 1, true),
        b"ulaw" | b"ULAW" => (Coding::MuLaw, 1, true),
        other => return unsupported(format!("its codec is {}", other.escape_ascii())),
    };
    pcm(PcmFormat { coding, is_big_endian, container, bits, channels, rate_hz })
}

fn au(
    file: &mut File,
    head: &[u8],
    is_big_endian: bool,
    start: u64,
    file_bytes: u64,
) -> Result<Layout, HeaderError> {
    if head.len() < 24 {
        return damaged("it ends inside its header");
    }
    let number = |at: usize| {
        if is_big_endian { u32_be(&head[at..at + 4]) } else { u32_le(&head[at..at + 4]) }
    };
    let (coding, container) = match number(12) {
        1 => (Coding::MuLaw, 1),
        bytes @ 2..=5 => (Coding::Signed, bytes as usize - 1),
        6 => (Coding::Float, 4),
        7 => (Coding::Float, 8),
        27 => (Coding::ALaw, 1),
        other => return unsupported(format!("its codec is number {other}")),
    };
    let bits = u32::try_from(8 * container).unwrap_or(u32::MAX);
    let channels = number(20) as usize;
    let format =
        pcm(PcmFormat { coding, is_big_endian, container, bits, channels, rate_hz: number(16) })?;
    let begin = start + u64::from(number(4).max(24));
    let there = file_bytes.saturating_sub(begin);
    let claimed = u64::from(number(8));
    let is_unknown = claimed == 0 || (claimed >= UNKNOWN_MIN && claimed / 4 > there);
    let cut = (!is_unknown && claimed > there + SLACK_BYTES).then_some(claimed);
    let end = if is_unknown { file_bytes } else { file_bytes.min(begin + claimed) };
    let mut behind = Vec::new();
    file.seek(SeekFrom::Start(end))?;
    file.take(12).read_to_end(&mut behind)?;
    Ok(Layout {
        coded: Coded::Pcm(format),
        data: begin..end.max(begin),
        cut,
        beyond: 0,
        next: Kind::of(&behind).map(|_| Next::Recording(end)),
    })
}

fn u32_be(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn u32_le(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn u64_le(bytes: &[u8]) -> u64 {
    u64::from(u32_le(&bytes[..4])) | u64::from(u32_le(&bytes[4..8])) << 32
}
