//! MPEG audio (MP3, and layers I and II): its frames are found here, and decoded one by one by Symphonia.
//!
//! A stream of frames may be several files put together, change its rate or channels, be damaged in the middle, or announce a wrong length. So all
//! frames are counted before any is decoded; parts that begin with an encoder's own header are trimmed by it, each for itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::Packet as CodedPacket;
use symphonia::core::units::{Duration as Ticks, Timestamp};

use super::source::{Packet, Stream, time_of};
use crate::input::error::InputError;

/// No frame is longer.
const FRAME_BYTES_MAX: usize = 2_881;
/// What is read at once.
const WINDOW_BYTES: usize = 64 << 10;
/// Bytes in front of the first frame that are neither tags nor frames.
const JUNK_BYTES_MAX: u64 = 64 << 10;
/// Frames in a row that are no coincidence.
const FRAMES_IN_A_ROW: u64 = 3;
/// Frames at the beginning of a part that may need earlier ones.
const FRAMES_WITHOUT_PAST: u64 = 10;
/// What a decoder of layer III adds to the encoder's delay.
const DECODER_DELAY: u64 = 529;
/// By how many frames an encoder's own count may be off.
const FRAMES_OFF_MAX: u64 = 2;
/// What an ID3 tag says its length in.
const TAG_HEAD_BYTES: u64 = 10;
/// Parts of a file; one of radio recordings has some hundred.
const PARTS_MAX: usize = 10_000;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// 1, 2 or 3.
    layer: u8,
    rate_hz: u32,
    channels: usize,
    /// Of the whole frame.
    bytes: usize,
    samples: u64,
    bits_per_second: u32,
    /// Between the header and the sound, of layer III.
    side_bytes: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[sync, kind, rates, mode, ..] = bytes else { return None };
        if sync != 0xff || kind & 0xe0 != 0xe0 {
            return None;
        }
        let (version, layer) = (kind >> 3 & 3, 4 - (kind >> 1 & 3));
        if version == 1 || layer == 4 {
            return None;
        }
        let is_first_version = version == 3;
        let kilobits = kilobits(is_first_version, layer, rates >> 4)?;
        let halvings = match version {
            3 => 0,
            2 => 1,
            _ => 2,
        };
        let rate_hz = [44_100, 48_000, 32_000].get(usize::from(rates >> 2 & 3))? >> halvings;
        let padding = u32::from(rates >> 1 & 1);
        let bits_per_second = kilobits * 1_000;
        let (samples, bytes) = match (layer, is_first_version) {
            (1, _) => (384, (12 * bits_per_second / rate_hz + padding) * 4),
            (2, _) | (3, true) => (1_152, 144 * bits_per_second / rate_hz + padding),
            _ => (576, 72 * bits_per_second / rate_hz + padding),
        };
        let channels = if mode >> 6 == 3 { 1 } else { 2 };
        let side_bytes = match (is_first_version, channels) {
            (true, 1) | (false, 2) => 17,
            (true, _) => 32,
            (false, _) => 9,
        };
        let bytes = bytes as usize;
        Some(Self { layer, rate_hz, channels, bytes, samples, bits_per_second, side_bytes })
    }

    /// Whether both can be of one stream without a break.
    fn continues(&self, before: &Self) -> bool {
        (self.layer, self.rate_hz, self.channels) == (before.layer, before.rate_hz, before.channels)
    }
}

/// By version, layer and the index in the header; none for the free format and for the index that means nothing.
fn kilobits(is_first_version: bool, layer: u8, index: u8) -> Option<u32> {
    const FIRST: [[u32; 14]; 3] = [
        [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ];
    const SECOND: [[u32; 14]; 2] = [
        [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let layer = usize::from(layer) - 1;
    let row = if is_first_version { &FIRST[layer] } else { &SECOND[layer.min(1)] };
    row.get(usize::from(index).checked_sub(1)?).copied()
}

/// What an encoder writes into a first frame that holds no sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Info {
    frames: Option<u64>,
    bytes: Option<u64>,
    /// Samples to drop in front and at the end.
    trim: Option<(u64, u64)>,
}

impl Info {
    fn of(frame: &[u8], header: &Header) -> Option<Self> {
        if header.layer != 3 {
            return None;
        }
        let xing = frame.get(4 + header.side_bytes..)?;
        if xing.starts_with(b"Xing") || xing.starts_with(b"Info") {
            return Some(Self::xing(xing));
        }
        let vbri = frame.get(36..).filter(|bytes| bytes.starts_with(b"VBRI"))?;
        let number = |at: usize| Some(u64::from(u32_be(vbri.get(at..at + 4)?)));
        Some(Self { bytes: number(10), frames: number(14), trim: None })
    }

    fn xing(xing: &[u8]) -> Self {
        let flags = xing.get(4..8).map_or(0, u32_be);
        let mut at = 8;
        let mut number = |flag: u32, bytes: usize| {
            let found =
                (flags & flag != 0).then(|| xing.get(at..at + 4).map(|x| u64::from(u32_be(x))));
            at += if flags & flag == 0 { 0 } else { bytes };
            found.flatten()
        };
        let (frames, bytes) = (number(1, 4), number(2, 4));
        let (_, _) = (number(4, 100), number(8, 4));
        let trim = xing.get(at..at + 24).filter(|lame| lame[0] != 0).map(|lame| {
            let (high, middle, low) =
                (u64::from(lame[21]), u64::from(lame[22]), u64::from(lame[23]));
            let (delay, padding) = (high << 4 | middle >> 4, (middle & 0x0f) << 8 | low);
            (delay + DECODER_DELAY, padding.saturating_sub(DECODER_DELAY))
        });
        Self { frames, bytes, trim }
    }
}

/// Frames that belong together: of one file, one rate, one number of channels.
#[derive(Debug, Clone, Copy)]
struct Part {
    header: Header,
    info: Option<Info>,
    frames: u64,
    bytes: u64,
    /// Between frames, where frames should be.
    bytes_skipped: u64,
}

impl Part {
    /// Frames that the encoder announced, if its numbers can be right.
    fn announced(&self) -> Option<u64> {
        let info = self.info?;
        let frames = info.frames?;
        let bytes = info.bytes.filter(|&bytes| bytes > 0);
        let is_possible =
            |bytes: u64| (4 * frames..=FRAME_BYTES_MAX as u64 * (frames + 1)).contains(&bytes);
        let all_there = |bytes: u64| {
            self.bytes_skipped == 0 && bytes <= self.bytes + 2 * FRAME_BYTES_MAX as u64
        };
        match bytes {
            Some(bytes) if !is_possible(bytes) || all_there(bytes) => None,
            _ => Some(frames),
        }
    }

    /// Frames that were announced and are not there.
    fn missing(&self) -> u64 {
        let missing = self.announced().map_or(0, |frames| frames.saturating_sub(self.frames));
        if missing > FRAMES_OFF_MAX { missing } else { 0 }
    }

    /// Frames that damaged bytes were.
    fn lost(&self) -> u64 {
        let guess = self.bytes_skipped.div_ceil(self.header.bytes.max(1) as u64);
        if self.bytes_skipped > 0 { self.missing().max(guess) } else { 0 }
    }

    /// Samples that come out of its frames, after those in front that are dropped.
    fn samples(&self) -> (u64, u64) {
        let all = self.frames * self.header.samples;
        let (front, end) = self.info.and_then(|info| info.trim).unwrap_or((0, 0));
        // A cut part has lost its end; one that holds more than was announced is not trimmed by that either.
        let is_as_announced = self.info.and_then(|info| info.frames) == Some(self.frames);
        let end = if is_as_announced { end } else { 0 };
        (front.min(all), all.saturating_sub(front + end))
    }
}

/// Finds frame after frame.
struct Frames {
    data: io::Take<File>,
    window: Vec<u8>,
    at: usize,
    before: Option<Header>,
    bytes_skipped: u64,
    /// Bytes of a last frame that is not all there.
    cut_bytes: usize,
}

impl Frames {
    fn new(mut file: File, data: &Range<u64>) -> io::Result<Self> {
        file.seek(SeekFrom::Start(data.start))?;
        let data = file.take(data.end.saturating_sub(data.start));
        let window = Vec::with_capacity(WINDOW_BYTES);
        Ok(Self { data, window, at: 0, before: None, bytes_skipped: 0, cut_bytes: 0 })
    }

    /// The bytes from here on, as many as a frame and the next one's header need.
    fn ahead(&mut self) -> io::Result<&[u8]> {
        if self.window.len() - self.at < 2 * FRAME_BYTES_MAX {
            self.window.drain(..self.at);
            self.at = 0;
            let room = (WINDOW_BYTES - self.window.len()) as u64;
            (&mut self.data).take(room).read_to_end(&mut self.window)?;
        }
        Ok(&self.window[self.at..])
    }

    /// The next frame's header; its bytes begin at `ahead`. `bytes_skipped` then holds what lay before it.
    fn find(&mut self) -> io::Result<Option<Header>> {
        self.bytes_skipped = 0;
        loop {
            let before = self.before;
            let goes_on = before.filter(|_| self.bytes_skipped == 0);
            let there = (self.window.len() - self.at) as u64 + self.data.limit();
            let bytes = self.ahead()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            // A tag of more bytes than there are is none, or its length is wrong.
            if let Some(length) = tag_bytes(bytes).filter(|&length| length <= there) {
                self.skip(length)?;
                continue;
            }
            if let Some(header) = Header::parse(bytes) {
                if header.bytes > bytes.len() {
                    // Without a past it is not known to be a frame.
                    let is_frame = before.is_some_and(|before| header.continues(&before));
                    self.cut_bytes = if is_frame { bytes.len() } else { 0 };
                    if is_frame {
                        return Ok(None);
                    }
                } else if is_followed(bytes, &header, goes_on) {
                    self.before = Some(header);
                    return Ok(Some(header));
                }
            }
            self.at += 1;
            self.bytes_skipped += 1;
        }
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let here = (self.window.len() - self.at) as u64;
        match usize::try_from(bytes.min(here)) {
            Ok(within) if bytes <= here => self.at += within,
            _ => {
                self.at = self.window.len();
                let beyond = (bytes - here).min(self.data.limit());
                let limit = self.data.limit() - beyond;
                self.data.get_mut().seek_relative(beyond.cast_signed())?;
                self.data.set_limit(limit);
            }
        }
        Ok(())
    }
}

/// Whether a header is a frame's: it goes on with the stream, or another frame follows, or the end.
fn is_followed(bytes: &[u8], header: &Header, before: Option<Header>) -> bool {
    if before.is_some_and(|before| header.continues(&before)) {
        return true;
    }
    let rest = &bytes[header.bytes..];
    let next = || {
        Header::parse(rest)
            .is_some_and(|next| next.layer == header.layer && next.rate_hz == header.rate_hz)
    };
    rest.is_empty() || next() || tag_bytes(rest).is_some()
}

/// Where the recording at `start` begins behind ID3 tags, which programs put in front of files of any kind.
pub(super) fn after_tags(file: &mut File, start: u64, file_bytes: u64) -> io::Result<u64> {
    let mut at = start;
    loop {
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        (&mut *file).take(TAG_HEAD_BYTES).read_to_end(&mut head)?;
        match tag_bytes(&head).and_then(|bytes| at.checked_add(bytes)) {
            Some(behind) if behind <= file_bytes => at = behind,
            _ => return Ok(at),
        }
    }
}

/// The length of a tag that begins here.
pub(super) fn tag_bytes(bytes: &[u8]) -> Option<u64> {
    if bytes.starts_with(b"ID3")
        && bytes.len() >= 10
        && bytes[6..10].iter().all(|byte| byte & 0x80 == 0)
    {
        let size = bytes[6..10].iter().fold(0, |size, byte| size << 7 | u64::from(*byte));
        let footer = if bytes[5] & 0x10 == 0 { 0 } else { 10 };
        return Some(10 + size + footer);
    }
    if bytes.starts_with(b"TAG") && (125..=128).contains(&bytes.len()) {
        return Some(128);
    }
    if bytes.starts_with(b"APETAGEX") && bytes.len() >= 32 {
        let size = u64::from(u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]));
        let is_header = bytes[23] & 0x20 != 0;
        return Some(if is_header { 32 + size } else { 32 });
    }
    bytes.starts_with(b"LYRICSBEGIN").then_some(11)
}

/// A stream of MPEG frames.
pub(super) struct MpegStream<'a> {
    path: &'a Path,
    frames: Frames,
    parts: std::collections::VecDeque<Part>,
    /// Of the part that is being decoded: frames that are left, samples to drop, samples to give.
    left: (u64, u64, u64),
    decoded_in_part: u64,
    decoder: Option<Box<dyn AudioDecoder>>,
    length: Duration,
    left_out: Duration,
    any_decoded: bool,
}

impl<'a> MpegStream<'a> {
    /// None where the bytes are no frames.
    pub(super) fn open(
        file: File,
        path: &'a Path,
        data: Range<u64>,
    ) -> Result<Option<Self>, InputError> {
        let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
        let again = file.try_clone().map_err(unreadable)?;
        let mut frames = Frames::new(file, &data).map_err(unreadable)?;
        let parts = count(&mut frames).map_err(unreadable)?;
        let Some(last) = parts.last() else { return Ok(None) };
        let missing = last.missing();
        if missing > 0 && last.bytes_skipped == 0 {
            let (expected, found) = (last.frames + missing, last.frames);
            let samples = last.header.samples;
            return Err(InputError::AudioTruncated {
                path: path.to_owned(),
                expected_frames: expected * samples,
                found_frames: found * samples,
            });
        }
        let of = |samples: &dyn Fn(&Part) -> u64| {
            parts.iter().map(|part| time_of(samples(part), part.header.rate_hz)).sum()
        };
        let length = of(&|part| (part.frames + part.lost()) * part.header.samples);
        let lost = of(&|part| part.lost().max(part.missing()) * part.header.samples);
        Ok(Some(Self {
            path,
            frames: Frames::new(again, &data).map_err(unreadable)?,
            parts: parts.into(),
            left: (0, 0, 0),
            decoded_in_part: 0,
            decoder: None,
            length,
            left_out: lost,
            any_decoded: false,
        }))
    }

    /// Of its last part.
    pub(super) fn rate_hz(&self) -> u32 {
        self.parts.back().map_or(0, |part| part.header.rate_hz)
    }

    /// Goes on to the next part; false at the end.
    fn begin_part(&mut self) -> Result<bool, InputError> {
        let Some(part) = self.parts.front() else { return Ok(false) };
        let codec = match part.header.layer {
            1 => CODEC_ID_MP1,
            2 => CODEC_ID_MP2,
            _ => CODEC_ID_MP3,
        };
        let mut params = AudioCodecParameters::new();
        params.for_codec(codec).with_sample_rate(part.header.rate_hz);
        let made = symphonia::default::get_codecs()
            .make_audio_decoder(&params, &AudioDecoderOptions::default());
        self.decoder = Some(made.map_err(|error| InputError::Unsupported {
            path: self.path.to_owned(),
            problem: crate::text::said(&error),
        })?);
        let (front, samples) = part.samples();
        self.left = (part.frames, front, samples);
        self.decoded_in_part = 0;
        Ok(true)
    }

    /// The next frame that holds sound.
    fn frame(&mut self) -> io::Result<Option<(Header, Vec<u8>)>> {
        while let Some(header) = self.frames.find()? {
            let bytes = self.frames.ahead()?[..header.bytes].to_vec();
            self.frames.at += header.bytes;
            if Info::of(&bytes, &header).is_none() {
                return Ok(Some((header, bytes)));
            }
        }
        Ok(None)
    }
}

impl Stream for MpegStream<'_> {
    fn next(&mut self, packet: &mut Packet) -> Result<bool, InputError> {
        while self.left.0 == 0 {
            if self.decoder.take().is_some() {
                self.parts.pop_front();
            }
            if !self.begin_part()? {
                return Ok(false);
            }
        }
        let unreadable = |source| InputError::Unreadable { path: self.path.to_owned(), source };
        let Some((header, bytes)) = self.frame().map_err(unreadable)? else { return Ok(false) };
        self.left.0 -= 1;
        packet.start(header.rate_hz, header.channels);
        let coded = CodedPacket::new(0, Timestamp::ZERO, Ticks::from(header.samples), bytes);
        let decoder = self.decoder.as_mut().expect("a part has begun");
        match decoder.decode(&coded) {
            Ok(buffer) => {
                buffer.copy_to_vec_interleaved(&mut packet.interleaved);
                self.any_decoded = true;
            }
            // What cannot be decoded is silent, so that all after it keeps its time.
            Err(_) => {
                let samples = usize::try_from(header.samples).expect("1152");
                packet.interleaved.resize(samples * header.channels, 0.0);
                if self.decoded_in_part >= FRAMES_WITHOUT_PAST {
                    self.left_out += time_of(header.samples, header.rate_hz);
                }
            }
        }
        self.decoded_in_part += 1;
        self.trim(packet);
        Ok(true)
    }

    fn length_max(&self) -> Duration {
        self.length
    }

    fn announced(&self) -> Option<Duration> {
        Some(self.length)
    }

    fn left_out(&self) -> Duration {
        self.left_out
    }

    fn finish(&mut self) -> Result<(), InputError> {
        if self.any_decoded {
            return Ok(());
        }
        let problem = "none of its frames can be decoded".to_owned();
        Err(InputError::Damaged { path: self.path.to_owned(), problem })
    }
}

impl MpegStream<'_> {
    fn trim(&mut self, packet: &mut Packet) {
        let (_, front, samples) = &mut self.left;
        let frames = packet.frames() as u64;
        let dropped = frames.min(*front);
        let kept = (frames - dropped).min(*samples);
        *front -= dropped;
        *samples -= kept;
        packet.keep(dropped, kept);
    }
}

/// All parts, by each frame's header. None where what is there is not a stream of frames.
fn count(frames: &mut Frames) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut in_a_row, mut is_stream) = (0, false);
    while let Some(header) = frames.find()? {
        let skipped = frames.bytes_skipped;
        let bytes = &frames.ahead()?[..header.bytes];
        let info = Info::of(bytes, &header);
        let is_new = |part: &Part| {
            (info.is_some() && (part.frames > 0 || part.info.is_some()))
                || !header.continues(&part.header)
        };
        if parts.last().is_none_or(is_new) {
            if parts.is_empty() && skipped > JUNK_BYTES_MAX || parts.len() == PARTS_MAX {
                break;
            }
            parts.push(Part { header, info, frames: 0, bytes: 0, bytes_skipped: 0 });
        } else if let Some(part) = parts.last_mut() {
            part.bytes_skipped += skipped;
        }
        in_a_row = if skipped == 0 || in_a_row == 0 { in_a_row + 1 } else { 1 };
        is_stream |= in_a_row >= FRAMES_IN_A_ROW;
        if let Some(part) = parts.last_mut() {
            part.frames += u64::from(info.is_none());
            part.bytes += header.bytes as u64;
        }
        frames.at += header.bytes;
    }
    // A file of one frame or two is one if nothing else is in it.
    let is_short = parts.iter().all(|part| part.bytes_skipped == 0) && frames.bytes_skipped == 0;
    parts.retain(|part| part.frames > 0);
    Ok(if is_stream || is_short { parts } else { Vec::new() })
}

fn u32_be(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
