//! Voice conversion through small graphs with the signatures of the three exports: a voice there is how loud it is.

use std::path::Path;

use gpu_inference::{
    Cancel, InputLimits, ModelError, Params, Pipeline, Prepared, RunError, Task, decode,
};

use crate::support::{contract, graph, recording, wav};

const RATE_HZ: u32 = 22_050;
const EXPORTS: [&str; 3] = ["tone", "spectrogram", "samples"];

#[test]
fn each_export_gets_its_own_inputs_and_gives_the_sound_of_the_other_voice() {
    for export in EXPORTS {
        let mut pipeline = converter(export, export).unwrap();
        let still = if export == "tone" { ", \"tau\": 0" } else { "" };
        let same = convert(&mut pipeline, 0.5, 0.5, still).unwrap();
        let quieter = convert(&mut pipeline, 0.5, 0.25, still).unwrap();
        assert_eq!(same.len(), RATE_HZ as usize + 100, "{export}");
        let inner = 2_000..20_000;
        assert!(same[inner.clone()].iter().any(|sample| *sample > 0.01), "{export}");
        for (same, quieter) in same[inner.clone()].iter().zip(&quieter[inner]) {
            assert!(
                (same / 2.0 - quieter).abs() < 1e-2 * same.abs() + 1e-3,
                "{export}: {same} {quieter}"
            );
        }
    }
}

#[test]
fn tau_reaches_the_graph_that_takes_it_and_is_refused_by_the_others() {
    let mut tone = converter("tone", "tone").unwrap();
    let mut at = |tau: &str| convert(&mut tone, 0.5, 0.5, tau).unwrap()[9_000];
    assert!((at(", \"tau\": 0.8") - at(", \"tau\": 0") - 0.08).abs() < 1e-3);
    assert!((at("") - at(", \"tau\": 0.3")).abs() < 1e-3);
    let mut other = converter("samples", "samples").unwrap();
    let error = convert(&mut other, 0.5, 0.5, ", \"tau\": 0.3").unwrap_err();
    assert_eq!(error.code(), "input.param");
}

#[test]
fn a_recording_of_a_blink_has_no_voice_and_graphs_of_two_exports_do_not_fit() {
    let mut pipeline = converter("tone", "tone").unwrap();
    let blink = input(&tone(0.5)[..100], &tone(0.5), "");
    let error = pipeline.run(&[blink], &Cancel::new()).unwrap_err();
    assert_eq!(error.code(), "input.too_short");
    let error = converter("tone", "samples").err().unwrap();
    assert!(
        matches!(&error, ModelError::Interface { problem, .. } if problem.contains("input")),
        "{error}"
    );
}

fn converter(convert: &str, extract: &str) -> Result<Pipeline, ModelError> {
    let convert = graph(&format!("voice/openvoice-{convert}-convert.onnx"));
    let extract = graph(&format!("voice/openvoice-{extract}-extract.onnx"));
    let files: [(&str, &Path); 2] = [("convert", &convert), ("extract", &extract)];
    contract("openvoice", Task::VoiceConvert, &files)
}

fn convert(
    pipeline: &mut Pipeline,
    speech: f64,
    reference: f64,
    more: &str,
) -> Result<Vec<f32>, RunError> {
    let input = input(&tone(speech), &tone(reference), more);
    pipeline.run(&[input], &Cancel::new()).map(|outputs| recording(&outputs[0], RATE_HZ))
}

fn input(speech: &[i16], reference: &[i16], more: &str) -> Prepared {
    let folder = tempfile::tempdir().unwrap();
    let (speech_path, reference_path) = (folder.path().join("a.wav"), folder.path().join("b.wav"));
    std::fs::write(&speech_path, wav(RATE_HZ, speech)).unwrap();
    std::fs::write(&reference_path, wav(RATE_HZ, reference)).unwrap();
    let given = format!("{{\"reference\": \"file:///b.wav\"{more}}}");
    let mut params =
        Params::read(Task::VoiceConvert, &serde_json::from_str(&given).unwrap()).unwrap();
    params.set_file("reference", reference_path);
    decode(Task::VoiceConvert, &speech_path, &params, &InputLimits::default()).unwrap()
}

/// A second of a tone, and a little more, so that it ends within a hop.
#[expect(clippy::cast_possible_truncation, reason = "16-bit samples")]
fn tone(height: f64) -> Vec<i16> {
    let samples = 0..RATE_HZ + 100;
    samples.map(|i| ((f64::from(i) * 0.06).sin() * height * 32_767.0) as i16).collect()
}
