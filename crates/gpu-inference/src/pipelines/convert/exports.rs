//! The three exports of OpenVoice V2's converter that are in use, told apart by the names of their inputs.
//!
//! Two take a spectrogram, which is made here as the model was trained on it; the third makes its own.

use std::borrow::Cow;

use gpu_tasks::Params;
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorElementType};

use crate::models::{DimSpec, IoName, IoSpec, ModelError, Opener, Signature};
use crate::preprocess::spectrum::{Spectrum, mirrored};
use crate::run::{Cancel, RunError, failed, run_session};

const EXTRACT: &str = "voice extraction";
const CONVERT: &str = "voice conversion";
const FRAME: usize = 1_024;
const HOP: usize = 256;
const BINS: usize = FRAME / 2 + 1;
/// Mirrored on each side, so that a frame's middle is at its sample.
const MARGIN: usize = (FRAME - HOP) / 2;
/// Added to the power under the root.
const FLOOR: f32 = 1e-6;
/// Width of a voice's vector.
const VOICE: usize = 256;
/// How much the sound may vary: OpenVoice's own default.
const TAU: f32 = 0.3;

/// Which export it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Export {
    /// `audio`, `audio_length`, `src_tone`, `dest_tone`, `tau`: MeloTTS-ONNX's.
    Tone,
    /// `spec`, `spec_lengths`, `sid_src`, `sid_tgt`; tau is part of the graph.
    Spectrogram,
    /// `src_audio`, `src_se`, `tgt_se`: voxudio's, with the spectrogram inside.
    Samples,
}

pub(super) struct Converter {
    extract: Session,
    convert: Session,
    export: Export,
    spectrum: Spectrum,
}

const FLOAT: TensorElementType = TensorElementType::Float32;
const FRAMES_FIRST: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Free, DimSpec::Is(513)];
const BINS_FIRST: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(513), DimSpec::Free];
const VECTOR: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(256)];
const COLUMN: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(256), DimSpec::Is(1)];
const ONE: &[DimSpec] = &[DimSpec::Is(1)];
const SOUND: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(1), DimSpec::Free];
const CHANNELS: &[DimSpec] = &[DimSpec::Free, DimSpec::Free];
const CHANNEL_VECTORS: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(256)];

const fn spec(name: &'static str, shape: &'static [DimSpec]) -> IoSpec {
    IoSpec { name: IoName::Is(name), element: FLOAT, shape }
}

const fn length(name: &'static str) -> IoSpec {
    IoSpec { name: IoName::Is(name), element: TensorElementType::Int64, shape: ONE }
}

const fn only(shape: &'static [DimSpec]) -> IoSpec {
    IoSpec { name: IoName::Only, element: FLOAT, shape }
}

/// In the order of [`EXPORTS`].
const CONVERTERS: &[Signature<'_>] = &[
    Signature {
        inputs: &[
            spec("audio", BINS_FIRST),
            length("audio_length"),
            spec("src_tone", COLUMN),
            spec("dest_tone", COLUMN),
            spec("tau", ONE),
        ],
        outputs: &[only(SOUND)],
    },
    Signature {
        inputs: &[
            spec("spec", BINS_FIRST),
            length("spec_lengths"),
            spec("sid_src", COLUMN),
            spec("sid_tgt", COLUMN),
        ],
        outputs: &[only(SOUND)],
    },
    Signature {
        inputs: &[
            spec("src_audio", CHANNELS),
            spec("src_se", CHANNEL_VECTORS),
            spec("tgt_se", CHANNEL_VECTORS),
        ],
        outputs: &[spec("audio", CHANNELS)],
    },
];

/// The graph that takes a voice's vector, for each of [`EXPORTS`].
const EXTRACTORS: &[Signature<'_>] = &[
    Signature { inputs: &[spec("input", FRAMES_FIRST)], outputs: &[only(VECTOR)] },
    Signature { inputs: &[spec("spec", FRAMES_FIRST)], outputs: &[only(VECTOR)] },
    Signature { inputs: &[spec("audio", CHANNELS)], outputs: &[spec("se", CHANNEL_VECTORS)] },
];

const EXPORTS: [Export; 3] = [Export::Tone, Export::Spectrogram, Export::Samples];

impl Converter {
    pub(super) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let (convert, index) = opener.session_like("convert", CONVERTERS)?;
        let (extract, _) = opener.session_like("extract", &EXTRACTORS[index..=index])?;
        let spectrum = Spectrum::new(FRAME, FRAME, HOP);
        Ok(Self { extract, convert, export: EXPORTS[index], spectrum })
    }

    /// How much the sound may vary; only one export takes it as an input.
    pub(super) fn tau(&self, params: &Params) -> Result<f32, RunError> {
        #[expect(clippy::cast_possible_truncation, reason = "graphs take f32")]
        match (self.export, params.number("tau")) {
            (Export::Tone, tau) => Ok(tau.map_or(TAU, |tau| tau as f32)),
            (_, None) => Ok(TAU),
            (_, Some(_)) => {
                let reason = "it is fixed in the model's graph".to_owned();
                Err(RunError::UnsupportedParam { name: "tau", reason })
            }
        }
    }

    /// The vector of the voice in a recording.
    pub(super) fn voice(&mut self, samples: &[f32], cancel: &Cancel) -> Result<Vec<f32>, RunError> {
        let wrong = failed(EXTRACT);
        let name = EXTRACTORS[self.export as usize].inputs[0].name.to_string();
        let input = if self.export == Export::Samples {
            Tensor::from_array(([samples.len(), 1], samples.to_vec()))
        } else {
            let spectrogram = spectrogram(&self.spectrum, samples);
            Tensor::from_array(([1, spectrogram.len() / BINS, BINS], spectrogram))
        };
        let input = input.map_err(&wrong)?;
        let outputs = run_session(&mut self.extract, EXTRACT, ort::inputs![name => input], cancel)?;
        let (shape, vector) = outputs[0].try_extract_tensor::<f32>().map_err(&wrong)?;
        if vector.len() != VOICE {
            let shape = shape.iter().filter_map(|&size| usize::try_from(size).ok()).collect();
            return Err(RunError::Shape { stage: EXTRACT, shape });
        }
        Ok(vector.to_vec())
    }

    /// The samples in the second voice instead of the first; about as many as came in.
    pub(super) fn convert(
        &mut self,
        samples: &[f32],
        voices: [&[f32]; 2],
        tau: f32,
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError> {
        type Named<'a> = (Cow<'static, str>, SessionInputValue<'a>);
        let wrong = failed(CONVERT);
        let vector = |shape: &[usize], voice: &[f32]| {
            Tensor::from_array((shape, voice.to_vec())).map_err(&wrong)
        };
        let [from, to] = voices;
        let mut inputs: Vec<Named<'_>> = Vec::with_capacity(5);
        let mut add = |name: &'static str, value: SessionInputValue<'static>| {
            inputs.push((name.into(), value));
        };
        if self.export == Export::Samples {
            add("src_audio", vector(&[samples.len(), 1], samples)?.into());
            add("src_se", vector(&[1, VOICE], from)?.into());
            add("tgt_se", vector(&[1, VOICE], to)?.into());
        } else {
            let spectrogram = turned(&spectrogram(&self.spectrum, samples));
            let frames = spectrogram.len() / BINS;
            let names = match self.export {
                Export::Tone => ["audio", "audio_length", "src_tone", "dest_tone"],
                _ => ["spec", "spec_lengths", "sid_src", "sid_tgt"],
            };
            let length = Tensor::from_array(([1], vec![i64::try_from(frames).unwrap_or(i64::MAX)]))
                .map_err(&wrong)?;
            add(names[0], vector(&[1, BINS, frames], &spectrogram)?.into());
            add(names[1], length.into());
            add(names[2], vector(&[1, VOICE, 1], from)?.into());
            add(names[3], vector(&[1, VOICE, 1], to)?.into());
        }
        if self.export == Export::Tone {
            add("tau", vector(&[1], &[tau])?.into());
        }
        let outputs = run_session(&mut self.convert, CONVERT, inputs, cancel)?;
        Ok(outputs[0].try_extract_tensor::<f32>().map_err(&wrong)?.1.to_vec())
    }
}

/// Magnitudes, frame by frame: neither mel nor logarithm.
fn spectrogram(spectrum: &Spectrum, samples: &[f32]) -> Vec<f32> {
    let mut padded = mirrored(samples, MARGIN);
    // Less than one frame is still one frame.
    padded.resize(padded.len().max(FRAME), 0.0);
    let mut magnitudes = Vec::with_capacity(spectrum.count(padded.len()) * BINS);
    spectrum.each(&padded, |bins| {
        magnitudes.extend(bins.iter().map(|bin| (bin.norm_sqr() + FLOOR).sqrt()));
    });
    magnitudes
}

/// From frame by frame to bin by bin.
fn turned(frames: &[f32]) -> Vec<f32> {
    let count = frames.len() / BINS;
    (0..BINS).flat_map(|bin| (0..count).map(move |frame| frames[frame * BINS + bin])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::spectrum::test_sound;

    /// numpy 2.4.6: `y = pad(x, 384, mode="reflect")`, `sqrt(abs(rfft(y[256*k:256*k+1024] * hanning(1025)[:-1]))**2 + 1e-6)`.
    #[test]
    fn the_spectrogram_is_the_one_that_the_model_was_trained_on() {
        let found = spectrogram(&Spectrum::new(FRAME, FRAME, HOP), &test_sound(4_096));
        assert_eq!(found.len(), 16 * BINS);
        let expected = [
            (0, 0, 18.271_911),
            (0, 8, 64.406_15),
            (3, 50, 64.211_92),
            (8, 277, 25.546_544),
            (15, 512, 0.097_541),
            (15, 20, 3.602_74),
        ];
        for (frame, bin, value) in expected {
            let found: f32 = found[frame * BINS + bin];
            assert!((found - value).abs() < 1e-4, "{frame} {bin}: {found} for {value}");
        }
        assert_eq!(turned(&found)[33 * 16 + 15], found[15 * BINS + 33]);
        assert_eq!(spectrogram(&Spectrum::new(FRAME, FRAME, HOP), &[0.1]).len(), BINS);
    }
}
