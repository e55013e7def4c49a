//! Sound without compression: bytes of a file to samples.
//!
//! Own code, since readers of WAV take a header's numbers at their word: containers wider than their bits, samples at either end of them, and both
//! byte orders are read here by what is there.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::source::{Packet, Stream, time_of};
use crate::input::error::InputError;

/// Frames that are read at once.
const FRAMES: usize = 4096;
/// What is read to find out where in its container a sample lies.
const PROBE_BYTES_MAX: u64 = 64 << 20;

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Signed,
    Unsigned,
    Float,
    ALaw,
    MuLaw,
}

/// How the samples of a recording are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PcmFormat {
    pub(super) coding: Coding,
    pub(super) is_big_endian: bool,
    /// Bytes of one sample.
    pub(super) container: usize,
    /// Bits of it that mean something.
    pub(super) bits: u32,
    pub(super) channels: usize,
    pub(super) rate_hz: u32,
}

impl PcmFormat {
    /// Bytes of one sample of each channel.
    pub(super) fn frame_bytes(&self) -> usize {
        self.container * self.channels
    }

    /// Whether samples of this kind are read.
    pub(super) fn is_read(&self) -> bool {
        let Self { coding, container, bits, .. } = *self;
        match coding {
            Coding::Signed | Coding::Unsigned => {
                (1..=8).contains(&container) && (1..=container * 8).contains(&(bits as usize))
            }
            Coding::Float => matches!(container, 4 | 8),
            Coding::ALaw | Coding::MuLaw => container == 1,
        }
    }
}

impl fmt::Display for PcmFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.coding {
            Coding::Signed | Coding::Unsigned => "whole numbers",
            Coding::Float => "floating-point numbers",
            Coding::ALaw => "in A-law",
            Coding::MuLaw => "in µ-law",
        };
        write!(f, "{kind} of {} bits", self.bits)
    }
}

/// The part of a file that holds samples.
pub(super) struct PcmStream<'a> {
    path: &'a Path,
    data: io::Take<File>,
    format: PcmFormat,
    frames: u64,
    is_right_justified: bool,
    bytes: Vec<u8>,
}

impl<'a> PcmStream<'a> {
    pub(super) fn open(
        mut file: File,
        path: &'a Path,
        format: PcmFormat,
        data: &Range<u64>,
    ) -> Result<Self, InputError> {
        let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
        let length = data.end.saturating_sub(data.start);
        file.seek(SeekFrom::Start(data.start)).map_err(unreadable)?;
        let has_spare_bits = matches!(format.coding, Coding::Signed)
            && (format.bits as usize) < format.container * 8;
        let is_right_justified = has_spare_bits
            && is_right_justified((&mut file).take(length), &format).map_err(unreadable)?;
        file.seek(SeekFrom::Start(data.start)).map_err(unreadable)?;
        Ok(Self {
            path,
            frames: length / format.frame_bytes() as u64,
            data: file.take(length),
            format,
            is_right_justified,
            bytes: Vec::new(),
        })
    }
}

impl Stream for PcmStream<'_> {
    fn next(&mut self, packet: &mut Packet) -> Result<bool, InputError> {
        let frame = self.format.frame_bytes();
        self.bytes.clear();
        (&mut self.data)
            .take((FRAMES * frame) as u64)
            .read_to_end(&mut self.bytes)
            .map_err(|source| InputError::Unreadable { path: self.path.to_owned(), source })?;
        packet.start(self.format.rate_hz, self.format.channels);
        let whole = self.bytes.len() / frame * frame;
        let samples = self.bytes[..whole].chunks_exact(self.format.container);
        let right = self.is_right_justified;
        packet.interleaved.extend(samples.map(|bytes| sample(bytes, &self.format, right)));
        Ok(whole > 0)
    }

    fn length_max(&self) -> std::time::Duration {
        time_of(self.frames, self.format.rate_hz)
    }

    fn announced(&self) -> Option<std::time::Duration> {
        Some(self.length_max())
    }
}

/// Whether the samples lie at the lower end of their containers. They should lie at the upper: then some are larger than their bits can be.
fn is_right_justified(mut data: impl Read, format: &PcmFormat) -> io::Result<bool> {
    let spare = 64 - format.bits;
    let (mut bytes, mut any, mut read) = (Vec::new(), false, 0);
    while read < PROBE_BYTES_MAX {
        bytes.clear();
        (&mut data).take((FRAMES * format.container) as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            break;
        }
        read += bytes.len() as u64;
        for bytes in bytes.chunks_exact(format.container) {
            let value = integer(bytes, format.is_big_endian);
            if (value << spare) >> spare != value {
                return Ok(false);
            }
            any |= value != 0;
        }
    }
    Ok(any)
}

/// The signed number of some bytes.
fn integer(bytes: &[u8], is_big_endian: bool) -> i64 {
    let mut value = 0_u64;
    let mut push = |byte: &u8| value = value << 8 | u64::from(*byte);
    if is_big_endian {
        bytes.iter().for_each(&mut push);
    } else {
        bytes.iter().rev().for_each(&mut push);
    }
    let spare = 64 - 8 * bytes.len();
    (value << spare).cast_signed() >> spare
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "to f32")]
fn sample(bytes: &[u8], format: &PcmFormat, is_right_justified: bool) -> f32 {
    let width = if is_right_justified { format.bits } else { 8 * format.container as u32 };
    let full_scale = (1_u64 << (width - 1)) as f64;
    match format.coding {
        Coding::Signed => (integer(bytes, format.is_big_endian) as f64 / full_scale) as f32,
        Coding::Unsigned => {
            let value = integer(bytes, format.is_big_endian).cast_unsigned();
            let value = value & (u64::MAX >> (64 - 8 * bytes.len()));
            ((value as f64 - full_scale) / full_scale) as f32
        }
        Coding::Float => float(bytes, format.is_big_endian),
        Coding::ALaw => f32::from(a_law(bytes[0])) / 32_768.0,
        Coding::MuLaw => f32::from(mu_law(bytes[0])) / 32_768.0,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "to f32: what is beyond becomes infinite, and is found as such"
)]
fn float(bytes: &[u8], is_big_endian: bool) -> f32 {
    let bits = integer(bytes, is_big_endian).cast_unsigned();
    match bytes.len() {
        4 => f32::from_bits(bits as u32),
        _ => f64::from_bits(bits) as f32,
    }
}

/// ITU-T G.711.
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i16::from(byte & 0x0f));
    let magnitude = match exponent {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

/// ITU-T G.711.
fn mu_law(byte: u8) -> i16 {
    const BIAS: i16 = 0x84;
    let byte = !byte;
    let magnitude = (((i16::from(byte & 0x0f) << 3) + BIAS) << ((byte >> 4) & 7)) - BIAS;
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(coding: Coding, container: usize, bits: u32) -> PcmFormat {
        PcmFormat { coding, is_big_endian: false, container, bits, channels: 1, rate_hz: 8_000 }
    }

    #[test]
    fn each_coding_has_its_full_scale_in_both_byte_orders() {
        use Coding::{ALaw, Float, MuLaw, Signed, Unsigned};
        for (coding, bytes, expected) in [
            (Signed, &[0x80][..], -1.0),
            (Unsigned, &[0xc0], 0.5),
            (Signed, &[0x00, 0x40], 0.5),
            (Unsigned, &[0x00, 0x40], -0.5),
            (Signed, &[0, 0, 0xc0], -0.5),
            (Signed, &[0, 0, 0, 0x20], 0.25),
            (Float, &0.75_f32.to_le_bytes(), 0.75),
            (Float, &(-0.125_f64).to_le_bytes(), -0.125),
            (ALaw, &[0xd5], 8.0 / 32_768.0),
            (ALaw, &[0xaa], 32_256.0 / 32_768.0),
            (MuLaw, &[0xff], 0.0),
            (MuLaw, &[0x00], -32_124.0 / 32_768.0),
        ] {
            let width = u32::try_from(bytes.len() * 8).unwrap();
            let little = format(coding, bytes.len(), width);
            let found = sample(bytes, &little, false);
            assert!((found - expected).abs() < 1e-6, "{coding:?} {bytes:?}: {found}");
            let swapped: Vec<u8> = bytes.iter().rev().copied().collect();
            let big = PcmFormat { is_big_endian: true, ..little };
            assert!((sample(&swapped, &big, false) - expected).abs() < 1e-6, "{coding:?}");
        }
    }

    #[test]
    fn samples_are_found_at_either_end_of_their_containers() {
        let narrow = format(Coding::Signed, 4, 24);
        let bytes =
            |values: &[i32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        let right = |values: &[i32]| is_right_justified(bytes(values).as_slice(), &narrow).unwrap();
        assert!(right(&[1 << 22, -5, 0]) && right(&[1 << 14, -256]));
        assert!(!right(&[1 << 30, -256, 0]) && !right(&[0, 0]));
        assert_eq!(sample(&(1_i32 << 22).to_le_bytes(), &narrow, true), 0.5);
    }
}
