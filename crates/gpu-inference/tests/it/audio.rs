//! Recordings as people and programs make them: headers that lie, samples that are no sound, streams put together or damaged.
//!
//! All files are made here, of a tone or of the samples' speech.

use std::path::Path;

use gpu_inference::{
    Audio, AudioBasis, Basis, Content, InputError, InputLimits, Params, Task, WarningCode, decode,
};

use crate::craft::{self, Wave, chunk};

/// What was decoded, with its warnings.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) audio: Audio,
    pub(crate) basis: AudioBasis,
    pub(crate) warnings: Vec<WarningCode>,
}

pub(crate) fn try_decode(bytes: &[u8]) -> Result<Decoded, InputError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    decoded(file.path())
}

pub(crate) fn decoded(path: &Path) -> Result<Decoded, InputError> {
    let prepared =
        decode(Task::VoiceTranscribe, path, &Params::default(), &InputLimits::default())?;
    let Content::Audio(audio) = prepared.content() else { panic!("not a recording") };
    let Some(Basis::Audio(basis)) = prepared.remarks().basis else { panic!("no basis") };
    let warnings = prepared.remarks().warnings.iter().map(|warning| warning.code).collect();
    Ok(Decoded { audio: audio.clone(), basis, warnings })
}

/// A second of 440 Hz at 8 kHz, as 16-bit numbers.
fn tone() -> Vec<i16> {
    let height =
        |at: u32| (f64::from(at) * 440.0 / 8_000.0 * std::f64::consts::TAU).sin() * 8_000.0;
    #[expect(clippy::cast_possible_truncation, reason = "8000 at most")]
    let whole = |at| height(at).round() as i16;
    (0..8_000).map(whole).collect()
}

fn bytes_of(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn tone_wave() -> Wave {
    Wave { data: bytes_of(&tone()), ..Wave::default() }
}

/// What every right reading of the tone gives.
fn reference() -> Vec<f32> {
    try_decode(&tone_wave().bytes()).unwrap().audio.samples().to_vec()
}

/// The greatest difference between two recordings of the same length.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Two seconds of a tone in two channels.
pub(crate) fn stereo_tone() -> Vec<u8> {
    let heights = (0..32_000_i16)
        .flat_map(|at| if at / 20 % 2 == 0 { [6_000, 6_000] } else { [-6_000, -6_000] });
    Wave {
        channels: 2,
        rate_hz: 16_000,
        data: bytes_of(&heights.collect::<Vec<_>>()),
        ..Wave::default()
    }
    .bytes()
}

#[test]
fn a_wav_s_lengths_are_claims_and_what_the_file_holds_counts() {
    let expected = reference();
    let length = u32::try_from(tone().len() * 2).unwrap();
    let whole = length + 36;
    for (riff, data) in [
        (Some(0x7fff_f024), Some(0x7fff_f000)),
        (None, Some(0x8000_0000)),
        (Some(0x7fff_ffff), Some(0x7fff_ffdb)),
        (Some(u32::MAX), Some(0xffff_ffdb)),
        (None, Some(u32::MAX)),
        (Some(u32::MAX), None),
        (Some(u32::MAX), Some(u32::MAX)),
        (None, Some(0)),
        (Some(0), None),
        (Some(0), Some(0)),
        (Some(36), Some(0)),
        (Some(whole - 8), None),
        (Some(whole - 36), None),
        (None, Some(length + 1)),
        (None, Some(length + 4)),
        (Some(whole + 44), Some(length + 44)),
        (None, Some(length * 3)),
    ] {
        let wave = Wave { riff_length: riff, data_length: data, ..tone_wave() };
        let found =
            try_decode(&wave.bytes()).unwrap_or_else(|error| panic!("{riff:?} {data:?}: {error}"));
        assert_eq!(difference(found.audio.samples(), &expected), 0.0, "{riff:?} {data:?}");
        assert!(found.warnings.is_empty(), "{riff:?} {data:?}: {:?}", found.warnings);
    }
}

#[test]
fn truncated_is_said_of_truncated_files_alone() {
    let bytes = tone_wave().bytes();
    for kept in [bytes.len() / 2, bytes.len() - 1_000, 100] {
        assert_eq!(try_decode(&bytes[..kept]).unwrap_err().code(), "input.truncated", "{kept}");
    }
    // More than a header announces is there too.
    let half = Wave { data_length: Some(8_000), ..tone_wave() };
    let found = try_decode(&half.bytes()).unwrap();
    assert_eq!(found.audio.samples(), reference());
    assert_eq!(found.warnings, [WarningCode::AudioLength]);
    // Tags and other chunks behind the samples are none.
    for after in [
        chunk(b"LIST", b"INFOISFT\x04\0\0\0gpu\0"),
        b"ID3\x04\0\0\0\0\x02\0".repeat(20),
        chunk(b"abcd", &[7; 300]),
    ] {
        let found = try_decode(&Wave { after, ..tone_wave() }.bytes()).unwrap();
        assert_eq!((found.audio.samples().len(), found.warnings.len()), (16_000, 0));
    }
    let empty = Wave { after: chunk(b"LIST", &[7; 300]), ..Wave::default() };
    assert_eq!(try_decode(&empty.bytes()).unwrap_err().code(), "input.no_samples");
}

#[test]
fn chunks_before_the_samples_may_be_of_any_length() {
    let expected = reference();
    for before in [
        chunk(b"JUNK", &[0; 3_000]),
        chunk(b"bext", &[1; 603]),
        b"LIST\xff\xff\xff\x0fINFO".to_vec(),
    ] {
        let found = try_decode(&Wave { before, ..tone_wave() }.bytes()).unwrap();
        assert_eq!(found.audio.samples(), expected);
    }
}

#[test]
fn every_container_of_plain_samples_gives_the_same_sound() {
    let expected = reference();
    let (samples, tone) = (bytes_of(&tone()), tone());
    let swapped: Vec<u8> = tone.iter().flat_map(|sample| sample.to_be_bytes()).collect();
    let wide = |shift: u32| -> Vec<u8> {
        tone.iter().flat_map(|&sample| (i32::from(sample) << shift).to_le_bytes()).collect()
    };
    let narrow: Vec<u8> = wide(8).chunks_exact(4).flat_map(|bytes| bytes[..3].to_vec()).collect();
    let floats = |scale: f32| -> Vec<u8> {
        tone.iter().flat_map(|&sample| (f32::from(sample) / scale).to_le_bytes()).collect()
    };
    let doubles: Vec<u8> =
        tone.iter().flat_map(|&sample| (f64::from(sample) / 32_768.0).to_le_bytes()).collect();
    let wave = |bits, frame, extension: Vec<u8>, data: Vec<u8>| {
        let tag = if extension.is_empty() { 1 } else { 0xfffe };
        Wave { tag, bits, frame, extension, data, ..Wave::default() }.bytes()
    };
    let files = [
        ("RIFX", Wave { name: b"RIFX", data: swapped.clone(), ..Wave::default() }.bytes()),
        ("RF64", craft::rf64(b"RF64", 8_000, &samples)),
        ("BW64", craft::rf64(b"BW64", 8_000, &samples)),
        ("W64", craft::wave64(8_000, &samples)),
        ("AU", craft::au(3, 8_000, 16_000, &swapped)),
        ("AU of unknown length", craft::au(3, 8_000, u32::MAX, &swapped)),
        ("AIFF", craft::aiff(None, 16, 8_000, &swapped)),
        ("AIFC little-endian", craft::aiff(Some(b"sowt"), 16, 8_000, &samples)),
        ("24 bits", wave(24, None, vec![], narrow)),
        ("24 bits at the lower end of 32", wave(24, Some(4), vec![], wide(8))),
        ("24 bits at the upper end of 32", wave(24, Some(4), vec![], wide(16))),
        ("32 bits", wave(32, None, vec![], wide(16))),
        ("extended, 20 bits of 32", wave(32, None, craft::extension(20, 4, 1), wide(16))),
        ("extended, 16 bits", wave(16, None, craft::extension(16, 0, 1), samples.clone())),
        ("float", Wave { tag: 3, bits: 32, data: floats(32_768.0), ..Wave::default() }.bytes()),
        ("double", Wave { tag: 3, bits: 64, data: doubles, ..Wave::default() }.bytes()),
    ];
    for (name, bytes) in files {
        let found = try_decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(difference(found.audio.samples(), &expected) < 1e-4, "{name}");
        assert!(found.warnings.is_empty(), "{name}: {:?}", found.warnings);
    }
}

#[test]
fn the_lengths_of_other_containers_are_claims_too() {
    let expected = reference();
    let swapped: Vec<u8> = tone().iter().flat_map(|sample| sample.to_be_bytes()).collect();
    let aiff = craft::aiff(None, 16, 8_000, &swapped);
    let sound = memchr::memmem::find(&aiff, b"SSND").unwrap() + 4;
    let frames = memchr::memmem::find(&aiff, b"COMM").unwrap() + 10;
    let au = craft::au(3, 8_000, 16_000, &swapped);
    let wave64 = craft::wave64(8_000, &bytes_of(&tone()));
    for (name, bytes, at, claimed) in [
        ("AIFF, the whole", &aiff, 4, &[0; 4][..]),
        ("AIFF, the whole", &aiff, 4, &[0xff; 4]),
        ("AIFF, the sound", &aiff, sound, &[0; 4]),
        ("AIFF, the sound", &aiff, sound, &[0xff; 4]),
        ("AIFF, the frames", &aiff, frames, &[0; 4]),
        ("AIFF, the frames", &aiff, frames, &[0xff; 4]),
        ("AU", &au, 8, &[0; 4]),
        ("AU", &au, 8, &[0xff; 4]),
        ("AU", &au, 8, &16_004_u32.to_be_bytes()),
        ("W64, the whole", &wave64, 16, &[0; 8]),
        ("W64, the sound", &wave64, 96, &[0; 8]),
        ("W64, the sound", &wave64, 96, &[0xff; 8]),
    ] {
        let mut lying = bytes.clone();
        lying[at..at + claimed.len()].copy_from_slice(claimed);
        let found =
            try_decode(&lying).unwrap_or_else(|error| panic!("{name} {claimed:?}: {error}"));
        assert_eq!(difference(found.audio.samples(), &expected), 0.0, "{name} {claimed:?}");
    }
    for bytes in [&aiff, &au, &wave64] {
        assert_eq!(try_decode(&bytes[..bytes.len() / 2]).unwrap_err().code(), "input.truncated");
    }
}

#[test]
fn samples_of_few_bits_sound_alike() {
    let expected = reference();
    let (tone, wave) = (tone(), tone_wave());
    let twelve: Vec<i16> = tone.iter().map(|sample| sample >> 4).collect();
    let twelve_above: Vec<i16> = tone.iter().map(|sample| sample >> 4 << 4).collect();
    let eight_above: Vec<i16> = tone.iter().map(|sample| sample >> 8 << 8).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "8 bits")]
    let eight: Vec<u8> = tone.iter().map(|sample| ((sample >> 8) + 128) as u8).collect();
    let a_law: Vec<u8> = tone.iter().map(|&sample| a_law(sample)).collect();
    let files = [
        ("12 bits below", Wave { bits: 12, data: bytes_of(&twelve), ..wave.clone() }),
        ("12 bits above", Wave { bits: 12, data: bytes_of(&twelve_above), ..wave.clone() }),
        ("8 bits", Wave { bits: 8, data: eight, ..wave.clone() }),
        (
            "8 bits in two bytes",
            Wave { bits: 8, frame: Some(2), data: bytes_of(&eight_above), ..wave.clone() },
        ),
        ("A-law", Wave { tag: 6, bits: 8, data: a_law.clone(), ..wave.clone() }),
        (
            "A-law without its bits",
            Wave { tag: 6, bits: 0, frame: Some(1), data: a_law.clone(), ..wave.clone() },
        ),
        (
            "A-law, extended",
            Wave {
                tag: 0xfffe,
                bits: 8,
                extension: craft::extension(8, 4, 6),
                data: a_law,
                ..wave
            },
        ),
    ];
    for (name, wave) in files {
        let found = try_decode(&wave.bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(difference(found.audio.samples(), &expected) < 0.02, "{name}");
    }
}

/// ITU-T G.711, by search: the byte whose value is nearest.
fn a_law(sample: i16) -> u8 {
    let value = |byte: u8| {
        let byte = byte ^ 0x55;
        let (exponent, mantissa) = (byte >> 4 & 7, i32::from(byte & 15) << 4);
        let height =
            if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
        if byte & 0x80 == 0 { -height } else { height }
    };
    (0..=255).min_by_key(|&byte| (value(byte) - i32::from(sample)).abs()).unwrap()
}

#[test]
fn where_a_description_contradicts_itself_two_numbers_of_three_count() {
    let expected = reference();
    let contradicting = |at: usize, bytes: &[u8]| {
        let mut wave = tone_wave().bytes();
        wave[at..at + bytes.len()].copy_from_slice(bytes);
        try_decode(&wave)
    };
    for (what, at, bytes) in [
        ("two channels", 22, &[2, 0][..]),
        ("no channels", 22, &[0, 0]),
        ("a frame of no bytes", 32, &[0, 0]),
        ("a frame of one byte", 32, &[1, 0]),
        ("a rate of 0", 24, &[0; 4]),
        ("other bytes a second", 28, &[1, 2, 3, 4]),
    ] {
        let found = contradicting(at, bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(found.audio.samples(), expected, "{what}");
    }
    assert_eq!(contradicting(34, &[0, 0]).unwrap_err().code(), "input.damaged", "no bits");
}

#[test]
fn recordings_one_behind_the_other_are_all_read() {
    let one = tone_wave().bytes();
    let found = try_decode(&[one.clone(), one.clone(), one.clone()].concat()).unwrap();
    assert_eq!(found.audio.samples().len(), 48_000);
    let broken = [one.clone(), one[..30].to_vec(), vec![0; 100]].concat();
    let found = try_decode(&broken).unwrap();
    assert_eq!(found.audio.samples().len(), 16_000);
    assert_eq!(found.warnings, [WarningCode::AudioDamaged]);
}

#[test]
fn samples_in_several_chunks_are_all_read() {
    let samples = bytes_of(&tone());
    let (front, rest) = samples.split_at(6_000);
    let (middle, back) = rest.split_at(4_000);
    let list = chunk(b"LIST", b"INFOISFT\x04\0\0\0gpu\0");
    let after = [&chunk(b"data", middle), &list, &chunk(b"data", &[]), &chunk(b"data", back)];
    let wave = |after: Vec<u8>| Wave { data: front.to_vec(), after, ..Wave::default() }.bytes();
    let bytes = wave(after.map(Vec::as_slice).concat());
    let found = try_decode(&bytes).unwrap();
    assert_eq!((found.audio.samples(), found.warnings.len()), (&reference()[..], 0));
    // The last one's end is missing, as that of a single one may be.
    assert_eq!(try_decode(&bytes[..bytes.len() - 1_000]).unwrap_err().code(), "input.truncated");
    // Behind a list there may be another recording, too.
    let found = try_decode(&wave([list, tone_wave().bytes()].concat())).unwrap();
    assert_eq!(found.audio.samples().len(), 6_000 + 16_000);
}

#[test]
fn samples_and_codecs_that_are_not_read_are_unsupported_and_not_damaged() {
    let half = Wave { tag: 3, bits: 16, data: vec![0x3c; 4_000], ..Wave::default() };
    let wide = Wave { bits: 72, data: vec![1; 9_000], ..Wave::default() };
    let a_law = Wave { tag: 6, channels: 0, ..half.clone() };
    for (bytes, code, said) in [
        (half.bytes(), "input.unsupported", "its samples are floating-point numbers of 16 bits"),
        (wide.bytes(), "input.unsupported", "its samples are whole numbers of 72 bits"),
        (
            craft::aiff(Some(b"ima4"), 16, 8_000, &[0; 400]),
            "input.unsupported",
            "its codec is ima4",
        ),
        (craft::au(23, 8_000, 400, &[0; 400]), "input.unsupported", "its codec is number 23"),
        (a_law.bytes(), "input.damaged", "0 channels"),
    ] {
        let error = try_decode(&bytes).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

fn floats(rate_hz: u32, samples: &[f32]) -> Vec<u8> {
    let data = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Wave { tag: 3, bits: 32, rate_hz, data, ..Wave::default() }.bytes()
}

#[test]
fn a_sample_that_is_no_number_is_made_silent_at_every_rate() {
    for rate_hz in [16_000, 48_000, 8_000, 44_100] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 5e8, 1e5] {
            let heights = (0..rate_hz / 10).map(|at| if at / 20 % 2 == 0 { 0.25 } else { -0.25 });
            let mut samples: Vec<f32> = heights.collect();
            let place = samples.len() / 2;
            samples[place] = bad;
            let found = try_decode(&floats(rate_hz, &samples)).unwrap();
            assert!(
                found.audio.samples().iter().all(|sample| sample.abs() < 0.6),
                "{bad} at {rate_hz} Hz"
            );
            assert_eq!(found.warnings, [WarningCode::AudioSamples], "{bad} at {rate_hz} Hz");
        }
        let none = try_decode(&floats(rate_hz, &[f32::NAN; 1_000])).map(|_| ());
        assert_eq!(none.unwrap_err().code(), "input.damaged");
    }
}

#[test]
fn floating_point_in_the_scale_of_integers_is_scaled() {
    let samples: Vec<f32> = tone().into_iter().map(f32::from).collect();
    let found = try_decode(&floats(8_000, &samples)).unwrap();
    assert!(difference(found.audio.samples(), &reference()) < 1e-4);
    assert_eq!(found.warnings, [WarningCode::AudioScale]);
    let over: Vec<f32> = tone().into_iter().map(|sample| f32::from(sample) / 4_000.0).collect();
    assert!(try_decode(&floats(8_000, &over)).unwrap().warnings.is_empty(), "ordinary overs stay");
}

#[test]
fn channels_that_cancel_each_other_out_are_not_mixed() {
    let stereo = |left: i16, right: i16| {
        let frames = tone().into_iter().flat_map(move |x| [x / 10 * left, x / 10 * right]);
        Wave { channels: 2, data: bytes_of(&frames.collect::<Vec<_>>()), ..Wave::default() }.bytes()
    };
    let found = try_decode(&stereo(10, -10)).unwrap();
    assert!(
        difference(found.audio.samples(), &reference()) < 0.001 || found.basis.channel == Some(2)
    );
    assert!((found.basis.peak - 8_000.0 / 32_768.0).abs() < 0.01, "{:?}", found.basis);
    assert_eq!(found.warnings, [WarningCode::AudioChannels]);
    let found = try_decode(&stereo(9, -10)).unwrap();
    assert_eq!((found.basis.channel, found.basis.channels), (Some(2), 2));
    for healthy in [stereo(10, 10), stereo(10, 0), stereo(10, -1)] {
        let found = try_decode(&healthy).unwrap();
        assert_eq!((found.basis.channel, found.warnings.len()), (None, 0));
    }
}
