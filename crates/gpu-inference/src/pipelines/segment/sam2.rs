//! The object at points or in boxes, by SAM 2: the picture is encoded once, and each box decoded for itself.

use gpu_tasks::Task;
use ndarray::{Array1, Array2, Array3, Array4, ArrayD, Axis, Ix2, Ix4};
use ort::value::TensorElementType;

use super::{Mask, above_zero, boxes, output, points};
use crate::input::Prepared;
use crate::models::{
    DimSpec, FamilySpec, Feed, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Stack,
    no_settings,
};
use crate::output::Output;
use crate::pipelines::scaling::Scaling;
use crate::preparation::{Preparation, Stage};
use crate::preprocess::pixels::{Filter, Normalisation, Planes};
use crate::run::{Cancel, Run, RunError, reject_unsupported_params};
use crate::size::Size;

/// SAM 2: masks from points and boxes.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "sam2",
    task: ModelTask::Job(Task::VisionSegment),
    roles: &["decoder", "encoder"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(Box::new(Sam2Pipeline::open(opener)?))),
};

const ENCODE: &str = "picture encoder";
const DECODE: &str = "mask decoder";
/// The side of the square that the encoder takes.
const SIDE: u32 = 1_024;
/// The side of an earlier mask, which is never given here.
const MASK_SIDE: usize = 256;
/// What the decoder calls the corners of a box.
const TOP_LEFT: f32 = 2.0;
const BOTTOM_RIGHT: f32 = 3.0;
/// The encoder's outputs, which the decoder takes.
const FEATURES: [&str; 3] = ["image_embed", "high_res_feats_0", "high_res_feats_1"];

pub(crate) struct Sam2Pipeline {
    encoder: Graph,
    decoder: Graph,
    input: String,
    stage: Stage<Scaling>,
    stack: Stack,
}

/// Points of one object in the encoder's square, with what each means.
struct Prompt {
    points: Vec<[f32; 2]>,
    meanings: Vec<f32>,
}

impl Sam2Pipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let spec = |name, shape| IoSpec { name, element: TensorElementType::Float32, shape };
        let feature = |name| spec(IoName::Is(name), &[DimSpec::Any; 4]);
        let pictures = [spec(
            IoName::Only,
            &[DimSpec::Any, DimSpec::Is(3), DimSpec::Is(SIDE), DimSpec::Is(SIDE)],
        )];
        let encoder = opener.graph("encoder", &pictures, &FEATURES.map(feature))?;
        let inputs = [
            feature(FEATURES[0]),
            feature(FEATURES[1]),
            feature(FEATURES[2]),
            spec(IoName::Is("point_coords"), &[DimSpec::Any, DimSpec::Free, DimSpec::Is(2)]),
            spec(IoName::Is("point_labels"), &[DimSpec::Any, DimSpec::Free]),
            spec(IoName::Is("mask_input"), &[DimSpec::Any; 4]),
            spec(IoName::Is("has_mask_input"), &[DimSpec::Any]),
        ];
        let outputs = [
            spec(IoName::Is("masks"), &[DimSpec::Any; 4]),
            spec(IoName::Is("iou_predictions"), &[DimSpec::Any; 2]),
        ];
        let decoder = opener.graph("decoder", &inputs, &outputs)?;
        let input = encoder.only_input();
        opener.limit_batch(1);
        let width = encoder.float_width(&input);
        let scaling = Scaling::to_square(SIDE, Filter::Bilinear, Normalisation::IMAGENET, width);
        let (stage, stack) = (Stage::new(scaling), Stack::default());
        Ok(Self { encoder, decoder, input, stage, stack })
    }

    fn encode(&mut self, picture: &Planes) -> Result<[ArrayD<f32>; 3], RunError> {
        let feeds = vec![(self.input.as_str(), self.stack.of([picture]))];
        self.encoder.run(ENCODE, feeds, FEATURES)
    }

    /// The mask of the highest score.
    fn decode(
        &mut self,
        features: &[ArrayD<f32>; 3],
        prompt: &Prompt,
        picture: Size,
    ) -> Result<Mask, RunError> {
        let count = prompt.points.len();
        let points =
            Array3::from_shape_fn((1, count, 2), |(_, point, axis)| prompt.points[point][axis]);
        let meanings = Array2::from_shape_fn((1, count), |(_, point)| prompt.meanings[point]);
        let earlier = Array4::<f32>::zeros((1, 1, MASK_SIDE, MASK_SIDE));
        let has_earlier = Array1::<f32>::zeros(1);
        let mut feeds = vec![
            ("point_coords", Feed::Floats(points.view().into_dyn())),
            ("point_labels", Feed::Floats(meanings.view().into_dyn())),
            ("mask_input", Feed::Floats(earlier.view().into_dyn())),
            ("has_mask_input", Feed::Floats(has_earlier.view().into_dyn())),
        ];
        for (name, feature) in FEATURES.into_iter().zip(features) {
            feeds.push((name, Feed::Floats(feature.view())));
        }
        let [masks, scores] = self.decoder.run(DECODE, feeds, ["masks", "iou_predictions"])?;
        let wrong = || RunError::Shape { stage: DECODE, shape: masks.shape().to_vec() };
        let scores = scores.into_dimensionality::<Ix2>().map_err(|_| wrong())?;
        let maps = masks.view().into_dimensionality::<Ix4>().map_err(|_| wrong())?;
        let row = scores.row(0);
        let best = row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let (best, score) = best.filter(|(best, _)| *best < maps.dim().1).ok_or_else(wrong)?;
        let map = maps.index_axis(Axis(0), 0);
        let map = map.index_axis(Axis(0), best);
        let from = (u32::try_from(map.dim().1), u32::try_from(map.dim().0));
        let (Ok(width), Ok(height)) = from else { return Err(wrong()) };
        if width == 0 || height == 0 {
            return Err(wrong());
        }
        let map: Vec<f32> = map.iter().copied().collect();
        let picture = above_zero(&map, Size { width, height }, picture);
        Ok(Mask::new(&picture, None, Some(score.clamp(0.0, 1.0))))
    }
}

impl Run for Sam2Pipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (picture, input) in self.stage.forms(batch)?.into_iter().zip(batch) {
            cancel.check()?;
            reject_unsupported_params(input.params(), &["points", "boxes"])?;
            let size = picture.picture;
            let prompts = prompts(input, size)?;
            let features = self.encode(&picture.planes)?;
            let mut masks = Vec::with_capacity(prompts.len());
            for prompt in &prompts {
                cancel.check()?;
                masks.push(self.decode(&features, prompt, size)?);
            }
            outputs.push(output(masks, size));
        }
        Ok(outputs)
    }

    fn preparation(&self) -> Option<Preparation> {
        Some(self.stage.preparation())
    }
}

/// One prompt per box; points refine the only box, or are a prompt of their own.
fn prompts(input: &Prepared, size: Size) -> Result<Vec<Prompt>, RunError> {
    let (boxes, points) = (boxes(input, size)?, points(input, size)?);
    let on_square = |x: f32, y: f32| {
        [x * SIDE as f32 / size.width as f32, y * SIDE as f32 / size.height as f32]
    };
    let of_box = |[left, top, right, bottom]: [f32; 4]| Prompt {
        points: vec![on_square(left, top), on_square(right, bottom)],
        meanings: vec![TOP_LEFT, BOTTOM_RIGHT],
    };
    let mut prompts: Vec<Prompt> = boxes.into_iter().map(of_box).collect();
    match (points.is_empty(), prompts.len()) {
        (true, 0) => {
            let problem = "SAM 2 needs points or boxes: --param points=[[x,y,1]]".to_owned();
            return Err(RunError::Unfit { problem });
        }
        (true, _) => return Ok(prompts),
        (false, 0) => prompts.push(Prompt { points: Vec::new(), meanings: Vec::new() }),
        (false, 1) => {}
        (false, _) => {
            let problem = "points go with one box, or with none".to_owned();
            return Err(RunError::Unfit { problem });
        }
    }
    for [x, y, on] in points {
        prompts[0].points.push(on_square(x, y));
        prompts[0].meanings.push(on);
    }
    Ok(prompts)
}
