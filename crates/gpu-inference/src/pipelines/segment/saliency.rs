//! The main object of a picture, by U²-Net: one soft mask, e.g. to cut an object from its background.

use gpu_tasks::Task;
use image::{GrayImage, RgbImage};
use ndarray::Ix4;
use ort::value::TensorElementType;

use super::{Mask, output};
use crate::input::Prepared;
use crate::models::{
    DimSpec, FamilySpec, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Stack, no_settings,
};
use crate::output::Output;
use crate::pipelines::scaling::{Scaled, Scaling};
use crate::preparation::{Preparation, Stage};
use crate::preprocess::pixels::{
    Filter, FloatWidth, IMAGENET, Normalisation, Planes, resize, resize_grey,
};
use crate::run::{Cancel, Run, RunError, reject_unsupported_params};
use crate::size::Size;

/// U²-Net: the main object of a picture.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "u2net",
    task: ModelTask::Job(Task::VisionSegment),
    roles: &["segment"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(Box::new(SaliencyPipeline::open(opener)?))),
};

const STAGE: &str = "saliency";
/// The side of the square that U²-Net is trained on.
const SIDE: u32 = 320;
const SQUARE: Size = Size::square(SIDE);

pub(crate) struct SaliencyPipeline {
    graph: Graph,
    input: String,
    output: String,
    stage: Stage<Scaling>,
    stack: Stack,
}

impl SaliencyPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let pictures = [IoSpec {
            name: IoName::Only,
            element: TensorElementType::Float32,
            shape: &[DimSpec::Any, DimSpec::Is(3), DimSpec::Is(SIDE), DimSpec::Is(SIDE)],
        }];
        // The first of its seven maps is the mask; the others serve the training only.
        let maps = [IoSpec {
            name: IoName::Every(""),
            element: TensorElementType::Float32,
            shape: &[DimSpec::Any, DimSpec::Is(1), DimSpec::Any, DimSpec::Any],
        }];
        let graph = opener.graph("segment", &pictures, &maps)?;
        let (input, output) = (graph.only_input(), graph.output_among(&[]));
        opener.limit_batch(1);
        let stage = Stage::new(scaling(graph.float_width(&input)));
        Ok(Self { graph, input, output, stage, stack: Stack::default() })
    }

    fn mask(&mut self, picture: &Scaled) -> Result<GrayImage, RunError> {
        let feeds = vec![(self.input.as_str(), self.stack.of([&picture.planes]))];
        let [map] = self.graph.run(STAGE, feeds, [self.output.as_str()])?;
        let wrong = || RunError::Shape { stage: STAGE, shape: map.shape().to_vec() };
        let map = map.view().into_dimensionality::<Ix4>().map_err(|_| wrong())?;
        if map.dim() != (1, 1, SIDE as usize, SIDE as usize) {
            return Err(wrong());
        }
        let map: Vec<f32> = map.iter().copied().collect();
        let (least, most) = map.iter().fold((f32::MAX, f32::MIN), |(least, most), &value| {
            (least.min(value), most.max(value))
        });
        let span = if most > least { most - least } else { 1.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 255"
        )]
        let byte = |value: &f32| ((value - least) / span * 255.0) as u8;
        let bytes = map.iter().map(byte).collect();
        let mask = GrayImage::from_raw(SIDE, SIDE, bytes).expect("a byte for each number");
        Ok(resize_grey(&mask, picture.picture, Filter::Lanczos))
    }
}

impl Run for SaliencyPipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (picture, input) in self.stage.forms(batch)?.into_iter().zip(batch) {
            cancel.check()?;
            reject_unsupported_params(input.params(), &[])?;
            let mask = Mask::new(&self.mask(&picture)?, None, None);
            outputs.push(output(vec![mask], picture.picture));
        }
        Ok(outputs)
    }

    fn preparation(&self) -> Option<Preparation> {
        Some(self.stage.preparation())
    }
}

fn scaling(width: FloatWidth) -> Scaling {
    Scaling::by(Planes::bytes(SQUARE, width), move |picture| {
        let scaled = resize(picture, SQUARE, Filter::Lanczos);
        Planes::of(&scaled, &normalisation(&scaled), width)
    })
}

/// U²-Net is used with the brightest channel of the scaled picture as 1, so that a dark picture is lit up.
fn normalisation(scaled: &RgbImage) -> Normalisation {
    let brightest = scaled.as_raw().iter().copied().max().unwrap_or(u8::MAX).max(1);
    let (mean, deviation) = IMAGENET;
    Normalisation { scale: 1.0 / f32::from(brightest), mean, deviation }
}
