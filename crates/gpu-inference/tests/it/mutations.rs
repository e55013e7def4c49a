//! Recordings with bytes changed, cut and moved: each is decoded or refused, in short time and bounded memory, and none brings the decoder down.
//!
//! `MUTATIONS=100000 cargo test -p gpu-inference --test it -- mutations` tries more of each file, `MUTATIONS_SEED` begins elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gpu_inference::{Content, Decoder, InputLimits, Params, Task};

use crate::craft::{self, Wave};
use crate::streams;
use crate::support::wav;

/// Of each file.
const MUTATIONS: u64 = 60;

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    fn mutated(&mut self, bytes: &[u8]) -> Vec<u8> {
        const NUMBERS: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b' ', 4];
        let mut mutated = bytes.to_vec();
        for _ in 0..=self.below(4) {
            // Most of what decides lies in front.
            let length = mutated.len().max(1);
            let front = if self.next() & 1 == 0 { length.min(200) } else { length };
            let at = self.below(front);
            match self.below(6) {
                0 => mutated.truncate(at),
                1 => mutated[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                2 => mutated[at..].iter_mut().take(4).for_each(|byte| *byte = 0),
                3 if length > 1 => {
                    drop(mutated.splice(at..at, bytes[..bytes.len().min(64)].iter().copied()));
                }
                4 if length > 1 => mutated[at] = NUMBERS[self.below(8)],
                _ => mutated.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
            }
        }
        mutated
    }
}

#[test]
fn a_changed_recording_is_decoded_or_refused_and_never_brings_the_decoder_down() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let (count, first) = (number("MUTATIONS", MUTATIONS), number("MUTATIONS_SEED", 1));
    let limits = InputLimits { audio_seconds_max: 600, ..InputLimits::default() };
    let decoder = Decoder { limits, ..Decoder::default() };
    let file = tempfile::NamedTempFile::new().unwrap();
    for (name, bytes) in files() {
        for seed in first..first + count {
            let mutated = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).mutated(&bytes);
            std::fs::write(file.path(), &mutated).unwrap();
            let decode = || decoder.decode(Task::VoiceTranscribe, file.path(), &Params::default());
            let told = decoder.bytes_max(Task::VoiceTranscribe, file.path(), &Params::default());
            match catch_unwind(AssertUnwindSafe(decode)) {
                Ok(Ok(prepared)) => {
                    let Content::Audio(audio) = prepared.content() else { panic!() };
                    assert!(
                        audio.samples().iter().all(|sample| sample.is_finite()),
                        "{name}, seed {seed}"
                    );
                    assert!(
                        prepared.bytes() <= told,
                        "{name}, seed {seed}: {} of {told}",
                        prepared.bytes()
                    );
                }
                Ok(Err(error)) => {
                    assert_ne!(error.code(), "input.crash", "{name}, seed {seed}: {error}");
                }
                Err(_) => panic!("{name}, seed {seed}: the decoder panicked"),
            }
        }
    }
}

/// A small file of each kind.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    let tone: Vec<i16> =
        (0..4_000).map(|at| if at / 10 % 2 == 0 { 5_000 } else { -5_000 }).collect();
    let plain: Vec<u8> = tone.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let whole = wav(8_000, &tone);
    let samples: Vec<f32> = tone.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    let (packets, head) = streams::opus(8_000, &samples);
    let header = streams::head_bytes(312, 8_000);
    let extended = Wave {
        tag: 0xfffe,
        extension: craft::extension(16, 4, 1),
        data: plain.clone(),
        ..Wave::default()
    };
    vec![
        ("wav", whole.clone()),
        ("extended wav", extended.bytes()),
        ("rf64", craft::rf64(b"RF64", 8_000, &plain)),
        ("w64", craft::wave64(8_000, &plain)),
        ("au", craft::au(3, 8_000, 8_000, &plain)),
        ("aiff", craft::aiff(Some(b"sowt"), 16, 8_000, &plain)),
        ("adpcm", streams::adpcm(&tone)),
        ("mp3", streams::mp3(&["-b", "32"], &whole)),
        ("flac", streams::flac(&whole)),
        ("ogg", streams::ogg(&packets, head)),
        ("webm", craft::webm(8_000.0, &packets, &header)),
    ]
}
