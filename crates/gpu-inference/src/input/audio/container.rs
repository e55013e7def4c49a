//! Containers with coded sound, read by Symphonia: FLAC, Ogg, WebM and Matroska, MP4, AAC, CAF, and the codecs of WAV that have no other reader here.
//!
//! A packet that cannot be decoded costs that packet, and damage between packets what it covers: it becomes silence. What a header announces is not
//! relied on: streams of unknown length end where their file does.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_AC3, CODEC_ID_DCA, CODEC_ID_EAC3, CODEC_ID_FLAC, CODEC_ID_OPUS,
    CODEC_ID_SPEEX, CODEC_ID_TRUEHD, CODEC_ID_TTA, CODEC_ID_WAVPACK, CODEC_ID_WMA,
};
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::packet::Packet as CodedPacket;
use symphonia::core::units::TimeBase;

use super::file_part::FilePart;
use super::opus::Opus;
use super::source::{Packet, Stream, WANTED, check, time_of};
use super::{matroska, mp4, ogg};
use crate::input::error::InputError;
use crate::text;

/// Packets in a row that cannot be read, before what follows is given up.
const BAD_PACKETS_MAX: u32 = 1_000;
/// Less than silence needs in WebM and in fragments of MP4: what a file without a length can hold.
const BITS_PER_SECOND_MIN: u64 = 2_000;
/// What silence needs at least in any codec: packets of one byte, which last for 120 ms.
const SILENT_BITS_PER_SECOND_MIN: u64 = 64;
/// Longer gaps between packets are wrong numbers.
const GAP_MAX: Duration = Duration::from_secs(60);
/// How often reading goes on behind damage.
const RESUMES_MAX: u32 = 100;
/// FLAC has two bits a frame and more, silence aside.
const FLAC_FRAMES_PER_BYTE: u64 = 4;

/// Whether the file is one of those that only Symphonia reads. An MP3 has no magic number of its own.
pub(super) fn is_known(file: &mut File, start: u64) -> io::Result<bool> {
    Ok(is_container(&head_of(file, start)?))
}

fn is_container(head: &[u8]) -> bool {
    let starts: [&[u8]; 5] = [b"fLaC", b"OggS", b"\x1a\x45\xdf\xa3", b"caff", b"\x89PNG"];
    starts.iter().any(|start| head.starts_with(start)) || head.get(4..8) == Some(b"ftyp")
}

/// The header of a WAV of unknown length with this codec; none if there is no decoder for it.
pub(super) fn wave_header(tag: u16, description: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| {
        description.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    // Each block begins with a sample of each channel.
    let (channels, block) = (number(2), number(12));
    let is_sound = (1..=2).contains(&channels) && block >= 8 * channels;
    if !matches!(tag, 0x02 | 0x11) || !is_sound {
        return None;
    }
    let length = u32::try_from(description.len()).ok()?;
    let unknown = u32::MAX.to_le_bytes();
    let parts = [b"RIFF", &unknown[..], b"WAVEfmt ", &length.to_le_bytes(), description];
    let padding: &[u8] = if length % 2 == 0 { &[] } else { &[0] };
    Some([&parts.concat(), padding, b"data", &unknown].concat())
}

/// The name of a codec by its number in WAV.
pub(super) fn wave_codec(tag: u16) -> String {
    let name = match tag {
        0x02 | 0x11 => "ADPCM",
        0x31 => "GSM 6.10",
        0x40 | 0x45 | 0x64 | 0x65 => "G.726",
        0x70 | 0x75 => "Voxware",
        0xff | 0x1600 | 0x1602 | 0x1610 => "AAC",
        0x160..=0x163 => "WMA",
        0x2000 => "AC-3",
        0x2001 => "DTS",
        0xa109 => "Speex",
        _ => return format!("number {tag:#06x}"),
    };
    name.to_owned()
}

/// The first bytes of the sound.
fn head_of(file: &mut File, start: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(12).read_to_end(&mut head)?;
    Ok(head)
}

enum Decoding {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

/// A recording that Symphonia takes apart.
pub(super) struct Container<'a> {
    path: &'a Path,
    format: Box<dyn FormatReader>,
    decoding: Decoding,
    track_id: u32,
    is_flac: bool,
    /// MP4 lists its packets in front or at the end: what is listed and not there was cut off.
    is_listed: bool,
    /// An MP4 whose length in front says nothing of what follows.
    is_fragmented: bool,
    /// Its file ends before it.
    is_cut: bool,
    /// An Ogg, whose packets leave no gap.
    is_ogg: bool,
    /// Stream and time of an Ogg's last page.
    ogg_end: Option<(u32, u64)>,
    /// Its file ends within a part of it, and does not say how long it should be.
    lacks_end: bool,
    /// What it takes to go on behind damage, for a Matroska file.
    again: Option<Again>,
    /// The time at which the next packet should begin, in ticks of the track, if that is known.
    next_ticks: Option<u64>,
    time_base: Option<TimeBase>,
    tracks: usize,
    rate_hz: u32,
    channels: usize,
    /// Frames that the header announces.
    expected: Option<u64>,
    /// Frames by what the file has at its end.
    numbered: u64,
    /// The encoder's delay that is still to be dropped.
    delay: Duration,
    file_bytes: u64,
    found: u64,
    /// Of the largest packet.
    packet_frames: u64,
    left_out: Duration,
    bad_in_a_row: u32,
    /// What ended the stream early.
    failure: Option<SymphoniaError>,
    any_decoded: bool,
}

impl<'a> Container<'a> {
    /// The sound in a part of the file, with another header in front of it.
    pub(super) fn open(
        file: File,
        path: &'a Path,
        header: Vec<u8>,
        data: Range<u64>,
    ) -> Result<Self, InputError> {
        let own = || path.to_owned();
        let file_bytes = data.end.saturating_sub(data.start);
        let (mut file, has_header) = (file, !header.is_empty());
        let head = head_of(&mut file, data.start);
        let unreadable = |source| InputError::Unreadable { path: own(), source };
        let head = head.map_err(unreadable)?;
        let is_mp4 = head.get(4..8) == Some(b"ftyp");
        let mp4 = match is_mp4 {
            true => mp4_facts(&mut file, path, &data)?,
            false => mp4::Facts::default(),
        };
        let (is_cut, is_fragmented) = (mp4.is_cut, mp4.is_fragmented);
        // Pictures are among them, whose kind the error is to name.
        let is_picture = is_mp4 || head.starts_with(b"\x89PNG");
        let is_known = has_header || is_container(&head) && !is_picture;
        let is_ogg = head.starts_with(b"OggS");
        let end = match is_ogg {
            true => ogg::end(&mut file, &data).map_err(unreadable)?,
            false => ogg::End::default(),
        };
        let lacks_end = end.is_cut || is_fragmented && is_cut;
        let part = FilePart::new(file, header, data).map_err(unreadable)?;
        let format = part.reader(&head).map_err(|error| probe_error(path, &error, is_known))?;
        let wrong_kind = || match mp4.has_sound {
            true => InputError::Unsupported {
                path: own(),
                problem: "the codec of its sound is not known".to_owned(),
            },
            false => InputError::WrongKind { path: own(), wanted: WANTED },
        };
        let is_sound = |track: &&Track| track.track_type() == Some(TrackType::Audio);
        let tracks = format.tracks().iter().filter(is_sound).count();
        let track = format.default_track(TrackType::Audio).ok_or_else(wrong_kind)?;
        let codec = track.codec_params.as_ref().and_then(|params| params.audio());
        let codec = codec.ok_or_else(wrong_kind)?;
        // Opus has its own, and drops it itself.
        let delay = if codec.codec == CODEC_ID_OPUS { Duration::ZERO } else { mp4.delay };
        let decoding = decoding(path, codec)?;
        // Only a guess until a packet is decoded: of some codecs the header says the double, or the microphone's.
        let rate_hz = match &decoding {
            Decoding::Opus(opus) => opus.rate_hz(),
            Decoding::Symphonia(_) => codec.sample_rate.unwrap_or(0),
        };
        let channels = codec.channels.as_ref().map_or(1, Channels::count);
        Ok(Self {
            path,
            track_id: track.id,
            is_flac: codec.codec == CODEC_ID_FLAC,
            is_listed: format.format_info().short_name == "isomp4",
            is_fragmented,
            is_cut,
            is_ogg,
            ogg_end: end.time,
            lacks_end,
            again: None,
            next_ticks: None,
            time_base: track.time_base,
            expected: track.num_frames.filter(|&frames| frames > 0),
            numbered: 0,
            decoding,
            format,
            tracks,
            rate_hz,
            channels,
            delay,
            file_bytes,
            found: 0,
            packet_frames: 0,
            left_out: Duration::ZERO,
            bad_in_a_row: 0,
            failure: None,
            any_decoded: false,
        })
    }

    /// The sound of a Matroska or WebM file that ends there.
    pub(super) fn matroska(
        file: File,
        path: &'a Path,
        parts: matroska::Parts,
        end: u64,
    ) -> Result<Self, InputError> {
        let matroska::Parts { header, clusters, is_cut, lacks_end } = parts;
        let again = file.try_clone();
        let again =
            again.map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
        let data = clusters..end;
        let opened = Self::open(file, path, header.clone(), data.clone())?;
        let again = Again { file: again, header, data, ticks: 0, resumes: 0 };
        Ok(Self { is_cut, lacks_end, again: Some(again), ..opened })
    }

    /// With the number of frames that the end of the file shows.
    pub(super) fn with_frames(self, numbered: u64) -> Self {
        Self { numbered, ..self }
    }

    /// The track's next packet; none at the end, or where nothing more can be read.
    fn packet(&mut self) -> Option<CodedPacket> {
        loop {
            match self.format.next_packet() {
                Ok(Some(packet)) => {
                    let begin = u64::try_from(packet.pts.get()).unwrap_or(0);
                    if let Some(again) = &mut self.again {
                        again.ticks = again.ticks.max(begin);
                    }
                    if packet.track_id == self.track_id {
                        return Some(packet);
                    }
                }
                Ok(None) if self.go_on() => {}
                Ok(None) => return None,
                Err(SymphoniaError::DecodeError(_))
                    if self.again.is_none() && self.bad_in_a_row < BAD_PACKETS_MAX =>
                {
                    self.bad_in_a_row += 1;
                }
                // Another stream follows in the file, e.g. in Ogg: its track may have another number.
                Err(SymphoniaError::ResetRequired) => {
                    self.begin_again()?;
                }
                Err(_) if self.go_on() => {}
                Err(error) => {
                    self.failure = Some(error);
                    return None;
                }
            }
        }
    }

    /// Goes on behind what its reader cannot read; false where no sound follows.
    fn go_on(&mut self) -> bool {
        let Some(reader) = self.again.as_mut().and_then(Again::reader) else { return false };
        self.format = reader;
        true
    }

    fn begin_again(&mut self) -> Option<()> {
        let track = self.format.default_track(TrackType::Audio)?;
        let codec = track.codec_params.as_ref()?.audio()?;
        self.decoding = decoding(self.path, codec).ok()?;
        (self.track_id, self.expected, self.next_ticks) = (track.id, None, None);
        Some(())
    }

    /// Decodes a packet; false if it cannot be.
    fn decode(&mut self, coded: &CodedPacket, packet: &mut Packet) -> bool {
        match &mut self.decoding {
            Decoding::Opus(opus) => opus.decode(coded, packet),
            Decoding::Symphonia(decoder) => match decoder.decode(coded) {
                Ok(buffer) => {
                    let spec = buffer.spec();
                    packet.start(spec.rate(), spec.channels().count().max(1));
                    buffer.copy_to_vec_interleaved(&mut packet.interleaved);
                    true
                }
                Err(SymphoniaError::ResetRequired) => {
                    decoder.reset();
                    false
                }
                Err(_) => false,
            },
        }
    }

    fn drop_delay(&mut self, packet: &mut Packet) {
        if self.delay.is_zero() || packet.frames() == 0 {
            return;
        }
        let micros = self.delay.as_micros() * u128::from(packet.rate_hz);
        let frames = u64::try_from((micros + 500_000) / 1_000_000).unwrap_or(u64::MAX);
        let dropped = frames.min(packet.frames() as u64);
        let left = time_of(frames - dropped, packet.rate_hz);
        self.delay = left;
        packet.keep(dropped, u64::MAX);
    }

    /// Silence in place of frames that cannot be decoded, so that all after them keeps its time.
    fn put_silence(&mut self, frames: u64, packet: &mut Packet) {
        let samples = usize::try_from(frames).unwrap_or(0) * self.channels;
        packet.interleaved.splice(..0, std::iter::repeat_n(0.0, samples));
        self.left_out += time_of(frames, self.rate_hz);
    }

    /// Frames that the reader passed over before this packet.
    fn passed_over(&self, coded: &CodedPacket) -> u64 {
        let at = u64::try_from(coded.pts.get()).unwrap_or(0);
        if self.is_flac {
            // It counts them.
            let gap = at.saturating_sub(self.found);
            let is_possible = self.expected.is_none_or(|expected| at < expected);
            let is_gap = is_possible && time_of(gap, self.rate_hz) <= GAP_MAX;
            return if is_gap { gap } else { 0 };
        }
        let has_resumed = self.again.as_ref().is_some_and(|again| again.resumes > 0);
        let next = self.next_ticks.filter(|_| self.is_ogg || has_resumed);
        self.gap(next.map_or(0, |next| at.saturating_sub(next)))
    }

    /// Frames by which Ogg's last page ends later than the last packet that was read: pages before it were damaged.
    fn missing_at_end(&self) -> u64 {
        let end = self.ogg_end.filter(|(stream, _)| *stream == self.track_id && !self.is_flac);
        let (Some((_, end)), Some(read)) = (end, self.next_ticks) else { return 0 };
        self.gap(end.saturating_sub(read))
    }

    /// The frames of a gap, in ticks, if it is none that rounding makes.
    fn gap(&self, ticks: u64) -> u64 {
        let gap = self.frames_in(ticks);
        let is_gap = gap > self.packet_frames && time_of(gap, self.rate_hz) <= GAP_MAX;
        if is_gap { gap } else { 0 }
    }

    /// The frames of a number of ticks.
    fn frames_in(&self, ticks: u64) -> u64 {
        let Some(base) = self.time_base else { return 0 };
        let frames = u128::from(ticks) * u128::from(base.numer.get()) * u128::from(self.rate_hz);
        u64::try_from(frames / u128::from(base.denom.get())).unwrap_or(u64::MAX)
    }

    /// What a packet that cannot be decoded would have lasted.
    fn lost_frames(&self, coded: &CodedPacket) -> u64 {
        match coded.dur.get() {
            // A recording cut out of a stream begins with packets that need earlier ones.
            _ if !self.any_decoded => 0,
            frames if self.is_flac => frames,
            0 => self.packet_frames,
            ticks => self.frames_in(ticks).min(self.packet_frames),
        }
    }
}

impl Stream for Container<'_> {
    fn next(&mut self, packet: &mut Packet) -> Result<bool, InputError> {
        let Some(coded) = self.packet() else {
            let missing = if self.any_decoded { self.missing_at_end() } else { 0 };
            self.next_ticks = None;
            packet.start(self.rate_hz, self.channels);
            self.put_silence(missing, packet);
            return Ok(missing > 0);
        };
        let passed_over = if self.any_decoded { self.passed_over(&coded) } else { 0 };
        packet.start(self.rate_hz, self.channels);
        if self.decode(&coded, packet) {
            check(self.path, packet.rate_hz, packet.channels)?;
            (self.rate_hz, self.channels) = (packet.rate_hz, packet.channels);
            (self.any_decoded, self.bad_in_a_row) = (true, 0);
            self.packet_frames = self.packet_frames.max(packet.frames() as u64);
        } else {
            self.bad_in_a_row += 1;
            if self.bad_in_a_row > BAD_PACKETS_MAX {
                return Ok(false);
            }
            packet.start(self.rate_hz, self.channels);
            self.put_silence(self.lost_frames(&coded), packet);
        }
        if passed_over > 0 {
            self.put_silence(passed_over, packet);
        }
        self.next_ticks =
            u64::try_from(coded.pts.get()).ok().map(|at| at.saturating_add(coded.dur.get()));
        self.found += packet.frames() as u64;
        self.drop_delay(packet);
        Ok(true)
    }

    fn length_max(&self) -> Duration {
        let by_size = |bits_per_second: u64| {
            Duration::from_secs((self.file_bytes * 8).div_ceil(bits_per_second) + 1)
        };
        match self.expected {
            Some(frames) if self.is_flac => {
                let by_size = self.file_bytes * FLAC_FRAMES_PER_BYTE;
                time_of(frames.max(by_size).max(self.numbered), self.rate_hz)
            }
            // What a header announces is doubled for a codec whose second half is not decoded.
            Some(frames) => {
                let announced = 2 * time_of(frames, self.rate_hz) + Duration::from_secs(10);
                let unknown = by_size(BITS_PER_SECOND_MIN);
                let bound = if self.is_fragmented { announced.max(unknown) } else { announced };
                by_size(SILENT_BITS_PER_SECOND_MIN).min(bound)
            }
            None if self.is_flac => Duration::MAX,
            None => by_size(BITS_PER_SECOND_MIN),
        }
    }

    fn announced(&self) -> Option<Duration> {
        let frames = self.expected?;
        let is_possible = self.is_flac && frames <= self.file_bytes * FLAC_FRAMES_PER_BYTE;
        is_possible.then(|| time_of(frames, self.rate_hz))
    }

    fn tracks(&self) -> usize {
        self.tracks
    }

    fn left_out(&self) -> Duration {
        self.left_out
    }

    fn lacks_end(&self) -> bool {
        self.lacks_end
    }

    /// FLAC's own number may be left over from an earlier state of the recording.
    fn beyond(&self) -> Duration {
        let expected = self.expected.filter(|_| self.is_flac);
        let further = expected.map_or(0, |expected| self.found.saturating_sub(expected));
        if further > self.packet_frames { time_of(further, self.rate_hz) } else { Duration::ZERO }
    }

    /// Whether as much was decoded as there is.
    fn finish(&mut self) -> Result<(), InputError> {
        let path = self.path.to_owned();
        let is_gone = self.is_listed && self.failure.is_some();
        let is_end = matches!(&self.failure, Some(SymphoniaError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof);
        if let Some(error) = &self.failure
            && let unreadable @ InputError::Unreadable { .. } = of_symphonia(self.path, error)
        {
            return Err(unreadable);
        }
        if let Some(expected_frames) = self.expected
            && (self.is_flac || !self.is_ogg && (is_end || self.is_cut || is_gone))
            && self.found < expected_frames
            && !self.is_verified()
        {
            let found_frames = self.found;
            // One packet at the end may as well be damaged as cut off.
            if expected_frames - found_frames > self.packet_frames {
                return Err(InputError::AudioTruncated { path, expected_frames, found_frames });
            }
            self.left_out += time_of(expected_frames - found_frames, self.rate_hz);
        }
        if self.is_cut && (self.again.is_some() || self.is_listed && !self.any_decoded) {
            return Err(InputError::RecordingTruncated { path });
        }
        match &self.failure {
            _ if self.any_decoded => Ok(()),
            Some(error) => Err(of_symphonia(self.path, error)),
            None => Err(InputError::Damaged {
                path,
                problem: "none of its packets can be decoded".to_owned(),
            }),
        }
    }
}

impl Container<'_> {
    /// Whether the sum over all samples that FLAC stores is right: then all are there, whatever their announced number.
    fn is_verified(&mut self) -> bool {
        match &mut self.decoding {
            Decoding::Symphonia(decoder) => decoder.finalize().verify_ok == Some(true),
            Decoding::Opus(_) => false,
        }
    }
}

/// What is known of an MP4, one whose fragments contradict themselves being refused.
fn mp4_facts(file: &mut File, path: &Path, data: &Range<u64>) -> Result<mp4::Facts, InputError> {
    let path = path.to_owned();
    match mp4::facts(file, data) {
        Ok(facts) if facts.contradicts => {
            let problem = "the list of packets of a fragment contradicts itself".to_owned();
            Err(InputError::Damaged { path, problem })
        }
        Ok(facts) => Ok(facts),
        Err(source) => Err(InputError::Unreadable { path, source }),
    }
}

fn decoding(path: &Path, codec: &AudioCodecParameters) -> Result<Decoding, InputError> {
    let unsupported = |problem| InputError::Unsupported { path: path.to_owned(), problem };
    if codec.codec == CODEC_ID_OPUS {
        return Opus::new(codec).map(|opus| Decoding::Opus(Box::new(opus))).map_err(unsupported);
    }
    let codec = aac_core(codec);
    symphonia::default::get_codecs()
        .make_audio_decoder(&codec, &AudioDecoderOptions::default().verify(true))
        .map(Decoding::Symphonia)
        .map_err(|error| match codec_name(codec.codec) {
            Some(name) => unsupported(format!("its codec is {name}")),
            None => unsupported(text::said(&error)),
        })
}

/// Codecs that containers have and no decoder here reads.
fn codec_name(codec: AudioCodecId) -> Option<&'static str> {
    const NAMES: [(AudioCodecId, &str); 8] = [
        (CODEC_ID_AC3, "AC-3"),
        (CODEC_ID_EAC3, "E-AC-3"),
        (CODEC_ID_DCA, "DTS"),
        (CODEC_ID_TRUEHD, "TrueHD"),
        (CODEC_ID_SPEEX, "Speex"),
        (CODEC_ID_WMA, "WMA"),
        (CODEC_ID_WAVPACK, "WavPack"),
        (CODEC_ID_TTA, "True Audio"),
    ];
    NAMES.iter().find(|(known, _)| *known == codec).map(|(_, name)| *name)
}

/// HE-AAC as the plain AAC that is its core: half the band, which is what speech has.
fn aac_core(codec: &AudioCodecParameters) -> AudioCodecParameters {
    let mut core = codec.clone();
    let extra = codec.extra_data.as_deref().unwrap_or_default();
    let &[first, second, ..] = extra else { return core };
    let is_high_efficiency = matches!(first >> 3, 5 | 29);
    if codec.codec == CODEC_ID_AAC && is_high_efficiency {
        // The type of object becomes 2, low complexity; index of the rate and channels stay.
        core.extra_data = Some(Box::new([2 << 3 | (first & 7), second & 0xf8]));
        core.profile = None;
    }
    core
}

fn of_symphonia(path: &Path, error: &SymphoniaError) -> InputError {
    let io = match error {
        SymphoniaError::IoError(io) => Some(io),
        _ => None,
    };
    InputError::of_decoder(path, error, io)
}

/// `is_known` says that it begins as one of the kinds that are read.
fn probe_error(path: &Path, error: &SymphoniaError, is_known: bool) -> InputError {
    match of_symphonia(path, error) {
        InputError::Damaged { .. } => {}
        unreadable => return unreadable,
    }
    let path = path.to_owned();
    match error {
        SymphoniaError::DecodeError(problem) | SymphoniaError::Unsupported(problem)
            if problem.contains("moov") =>
        {
            let problem =
                "its index (moov) is missing: the recording was not finished, or was cut off";
            InputError::Damaged { path, problem: problem.to_owned() }
        }
        SymphoniaError::DecodeError(problem) => {
            InputError::Damaged { path, problem: (*problem).to_owned() }
        }
        SymphoniaError::IoError(error) if error.kind() == ErrorKind::Other => {
            InputError::Damaged { path, problem: text::said(error) }
        }
        SymphoniaError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            InputError::Damaged { path, problem: "it ends inside its header".to_owned() }
        }
        _ if is_known => {
            InputError::Damaged { path, problem: "its header cannot be read".to_owned() }
        }
        _ => InputError::WrongKind { path, wanted: WANTED },
    }
}

/// What it takes to go on behind damage in a Matroska file.
struct Again {
    file: File,
    /// The descriptions of file and tracks.
    header: Vec<u8>,
    /// Where clusters may follow.
    data: Range<u64>,
    /// The time of the latest packet, of whatever track.
    ticks: u64,
    resumes: u32,
}

impl Again {
    /// A reader of the clusters behind the one that was read last.
    fn reader(&mut self) -> Option<Box<dyn FormatReader>> {
        while self.resumes < RESUMES_MAX {
            self.resumes += 1;
            let found = matroska::cluster_after(&mut self.file, self.data.clone(), self.ticks);
            let at = found.ok().flatten()?;
            self.data.start = at + 1;
            let file = self.file.try_clone().ok()?;
            let part = FilePart::new(file, self.header.clone(), at..self.data.end).ok()?;
            if let Ok(reader) = part.reader(&[]) {
                return Some(reader);
            }
        }
        None
    }
}
