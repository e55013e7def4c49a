//! `voice.denoise`: speech without the noise, by DTLN's two small recurrent models.
//!
//! The first masks the spectrum of each block, the second cleans the block itself; blocks overlap by three quarters and
//! add up. Both carry their state from block to block, so a recording is one stream and is never batched.

use std::sync::Arc;

use gpu_tasks::Task;
use ort::session::Session;
use ort::value::{Tensor, TensorElementType};
use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use crate::input::audio::SAMPLE_RATE_HZ;
use crate::input::{Content, Prepared};
use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, no_settings,
};
use crate::output::Output;
use crate::pipelines::wav;
use crate::run::{Cancel, Run, RunError, failed};

/// DTLN: a mask on the spectrum, then the samples.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "dtln",
    task: ModelTask::Job(Task::VoiceDenoise),
    roles: &["clean", "mask"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(Box::new(DenoisePipeline::open(opener)?))),
};

const MASK: &str = "noise mask";
const CLEAN: &str = "noise removal";
/// Samples of a block: 32 ms.
const BLOCK: usize = 512;
/// From one block to the next: 8 ms.
const SHIFT: usize = 128;
const BINS: usize = BLOCK / 2 + 1;
/// A sample is whole only when every block that covers it has been added up.
const DELAY: usize = BLOCK - SHIFT;
/// How often, in blocks, a lost lease is noticed: every second of sound.
const CHECK_EVERY: usize = 125;
/// The two recurrent layers' states: layers, width, and hidden beside cell.
const STATE: [usize; 4] = [1, 2, 128, 2];

pub(crate) struct DenoisePipeline {
    mask: Session,
    clean_block: Session,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
}

/// The models' recurrent states within one recording.
struct Memory {
    mask: Tensor<f32>,
    clean_block: Tensor<f32>,
}

impl DenoisePipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        const SPECTRUM: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(1), DimSpec::Is(257)];
        const SAMPLES: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(1), DimSpec::Is(512)];
        const MEMORY: &[DimSpec] =
            &[DimSpec::Is(1), DimSpec::Is(2), DimSpec::Is(128), DimSpec::Is(2)];
        let spec = |name, shape| IoSpec {
            name: IoName::Is(name),
            element: TensorElementType::Float32,
            shape,
        };
        let inputs = [spec("input_2", SPECTRUM), spec("input_3", MEMORY)];
        let outputs = [spec("activation_2", SPECTRUM), spec("tf_op_layer_stack_2", MEMORY)];
        let mask = opener.session("mask", &inputs, &outputs)?;
        let inputs = [spec("input_4", SAMPLES), spec("input_5", MEMORY)];
        let outputs = [spec("conv1d_3", SAMPLES), spec("tf_op_layer_stack_5", MEMORY)];
        let clean_block = opener.session("clean", &inputs, &outputs)?;
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(BLOCK), planner.plan_fft_inverse(BLOCK));
        opener.limit_batch(1);
        Ok(Self { mask, clean_block, forward, inverse })
    }

    /// As many samples as were given, in the same positions: the delay is cut off.
    fn denoise(&mut self, samples: &[f32], cancel: &Cancel) -> Result<Vec<f32>, RunError> {
        let mut memory = Memory::new()?;
        let blocks = (samples.len() + DELAY).div_ceil(SHIFT);
        let mut window = vec![0.0; BLOCK];
        let mut sum = vec![0.0_f32; BLOCK];
        let mut clean = Vec::with_capacity(blocks * SHIFT);
        for index in 0..blocks {
            if index % CHECK_EVERY == 0 {
                cancel.check()?;
            }
            window.rotate_left(SHIFT);
            let new = samples.iter().skip(index * SHIFT).chain(std::iter::repeat(&0.0));
            window[DELAY..].iter_mut().zip(new).for_each(|(slot, sample)| *slot = *sample);
            let block = self.block(&window, &mut memory)?;
            sum.rotate_left(SHIFT);
            sum[DELAY..].fill(0.0);
            sum.iter_mut().zip(block).for_each(|(sum, sample)| *sum += sample);
            clean.extend_from_slice(&sum[..SHIFT]);
        }
        clean.drain(..DELAY);
        clean.truncate(samples.len());
        Ok(clean)
    }

    fn block(&mut self, window: &[f32], memory: &mut Memory) -> Result<Vec<f32>, RunError> {
        const FITS: &str = "the buffers have the transform's sizes";
        let mut block = window.to_vec();
        let mut spectrum = self.forward.make_output_vec();
        self.forward.process(&mut block, &mut spectrum).expect(FITS);
        let magnitudes: Vec<f32> = spectrum.iter().map(|bin| bin.norm()).collect();
        let magnitudes = tensor([1, 1, BINS], magnitudes, MASK)?;
        let inputs = ort::inputs!["input_2" => magnitudes, "input_3" => &memory.mask];
        let outputs = self.mask.run(inputs).map_err(failed(MASK))?;
        let mask = outputs["activation_2"].try_extract_tensor::<f32>().map_err(failed(MASK))?.1;
        masked(&mut spectrum, mask)?;
        let state = outputs["tf_op_layer_stack_2"].try_extract_tensor::<f32>();
        memory.mask = tensor(STATE, state.map_err(failed(MASK))?.1.to_vec(), MASK)?;
        self.inverse.process(&mut spectrum, &mut block).expect(FITS);
        #[expect(clippy::cast_precision_loss, reason = "512")]
        block.iter_mut().for_each(|sample| *sample /= BLOCK as f32);
        let block = tensor([1, 1, BLOCK], block, CLEAN)?;
        let inputs = ort::inputs!["input_4" => block, "input_5" => &memory.clean_block];
        let outputs = self.clean_block.run(inputs).map_err(failed(CLEAN))?;
        let state = outputs["tf_op_layer_stack_5"].try_extract_tensor::<f32>();
        memory.clean_block = tensor(STATE, state.map_err(failed(CLEAN))?.1.to_vec(), CLEAN)?;
        let cleaned = outputs["conv1d_3"].try_extract_tensor::<f32>().map_err(failed(CLEAN))?;
        Ok(cleaned.1.to_vec())
    }
}

impl Memory {
    fn new() -> Result<Self, RunError> {
        let silence = |stage| tensor(STATE, vec![0.0; STATE.iter().product()], stage);
        Ok(Self { mask: silence(MASK)?, clean_block: silence(CLEAN)? })
    }
}

/// Magnitudes times the mask; the phases stay. The ends of a real signal's spectrum have no phase.
fn masked(spectrum: &mut [Complex32], mask: &[f32]) -> Result<(), RunError> {
    if mask.len() != spectrum.len() {
        return Err(RunError::Shape { stage: MASK, shape: vec![mask.len()] });
    }
    spectrum.iter_mut().zip(mask).for_each(|(bin, share)| *bin *= *share);
    // The inverse transform fails on any other value there, even on a rounding error.
    spectrum[0].im = 0.0;
    spectrum[BINS - 1].im = 0.0;
    Ok(())
}

fn tensor<const N: usize>(
    shape: [usize; N],
    values: Vec<f32>,
    stage: &'static str,
) -> Result<Tensor<f32>, RunError> {
    Tensor::from_array((shape, values)).map_err(failed(stage))
}

impl Run for DenoisePipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            let Content::Audio(audio) = input.content() else {
                return Err(RunError::WrongInput { index, wanted: "a recording" });
            };
            let clean = self.denoise(audio.samples(), cancel)?;
            outputs.push(wav::output(&clean, SAMPLE_RATE_HZ));
        }
        Ok(outputs)
    }
}
