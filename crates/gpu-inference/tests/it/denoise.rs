//! Noise removal, measured: how much nearer to the clean recording the result is than the noisy one.

use gpu_inference::{Audio, Content, Device, Pipeline, Task, TaskResult};

use crate::support::{pipeline, prepare, recording, run_one, sample, wav};

const MODEL: &str = "dtln";
/// Loudness of the speech over the noise in the mix.
const MIX_DB: f32 = 5.0;

#[test]
fn white_noise_goes_and_the_speech_stays_in_its_place() {
    let clean = audio(&prepare(Task::VoiceDenoise, &sample("beckett.wav")));
    let noisy = mix(clean.samples(), MIX_DB);
    let found = denoise(&noisy);
    assert_eq!(found.len(), clean.samples().len());
    let (before, after) = (si_sdr(&noisy, clean.samples()), si_sdr(&found, clean.samples()));
    assert!((before - MIX_DB).abs() < 0.1, "{before}");
    // 11.7 dB with the same models in Python.
    assert!(after > before + 5.0, "{before} dB became {after} dB");
    assert_eq!(denoise(&noisy), found);
}

#[test]
fn silence_stays_silent_and_a_click_of_a_recording_is_no_trouble() {
    assert!(denoise(&vec![0.0; 16_000]).iter().all(|sample| sample.abs() < 1e-3));
    assert_eq!(denoise(&[0.5; 3]).len(), 3);
}

fn denoise(samples: &[f32]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noisy.wav");
    #[expect(clippy::cast_possible_truncation, reason = "16-bit samples")]
    let pcm: Vec<i16> = samples.iter().map(|sample| (sample * 32_767.0) as i16).collect();
    std::fs::write(&path, wav(16_000, &pcm)).unwrap();
    let mut pipeline: Pipeline = pipeline(MODEL);
    assert_eq!((pipeline.device(), pipeline.batch_max()), (Device::Cpu, 1));
    let output = run_one(&mut pipeline, prepare(Task::VoiceDenoise, &path));
    assert!(matches!(&output.result, TaskResult::Sound(sound) if sound.rate_hz == 16_000));
    assert_eq!(
        (output.files[0].name.as_str(), output.files[0].media_type),
        ("speech.wav", "audio/wav")
    );
    recording(&output, 16_000)
}

fn audio(prepared: &gpu_inference::Prepared) -> Audio {
    let Content::Audio(audio) = prepared.content() else { panic!("not a recording") };
    audio.clone()
}

/// The speech with noise that is the same each time: twelve uniform numbers add up to a normal one.
fn mix(clean: &[f32], speech_over_noise_db: f32) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let noise: Vec<f32> = clean.iter().map(|_| (0..12).map(|_| uniform()).sum()).collect();
    let power = |samples: &[f32]| samples.iter().map(|x| x * x).sum::<f32>();
    let scale = (power(clean) / power(&noise) / 10_f32.powf(speech_over_noise_db / 10.0)).sqrt();
    clean.iter().zip(noise).map(|(clean, noise)| clean + scale * noise).collect()
}

/// Scale-invariant signal-to-distortion ratio in dB.
fn si_sdr(found: &[f32], clean: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let scale = dot(found, clean) / dot(clean, clean);
    let signal = scale * scale * dot(clean, clean);
    let rest = dot(found, found) - signal;
    #[expect(clippy::cast_possible_truncation, reason = "some dB")]
    let db = (10.0 * (signal / rest).log10()) as f32;
    db
}
