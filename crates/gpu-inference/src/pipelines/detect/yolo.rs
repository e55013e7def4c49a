//! Objects of many kinds, by a detector with the output layout of a YOLO as Ultralytics exports it.
//!
//! The picture is fitted into a square on grey. Three layouts of outputs are told apart by their shape: boxes in
//! columns with a score a label (v8, v9, v11), boxes in rows with a score of their own (v5), and finished boxes (v10).

use gpu_tasks::Task;
use ndarray::{ArrayView2, Axis, Ix3};
use ort::value::TensorElementType;
use serde::Deserialize;

use super::{distinct, score_min};
use crate::input::Prepared;
use crate::models::{
    DimSpec, FamilySpec, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Settings, Stack,
    check_settings,
};
use crate::output::{Detection, Detections, Output, TaskResult};
use crate::pipelines::scaling::Scaling;
use crate::preparation::{Preparation, Stage};
use crate::preprocess::pixels::{Filter, FloatWidth, Ground, Normalisation, Planes, resize};
use crate::run::{Cancel, Run, RunError};
use crate::size::{Offset, Size};

/// Detectors of the YOLO kind.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "yolo",
    task: ModelTask::Job(Task::VisionDetect),
    roles: &["detect"],
    uses: &[],
    check_settings: check_settings::<YoloSettings>,
    open: Some(|opener| Ok(Box::new(YoloPipeline::open(opener)?))),
};

const STAGE: &str = "object detection";
/// The ground, a channel: 114 of 255.
const GREY: f32 = 114.0 / 255.0;
/// Metadata key under which the exporter keeps the labels.
const LABELS_KEY: &str = "names";
/// Numbers of a finished box: four edges, score, label.
const FINISHED: usize = 6;
/// The exporter's own largest side is 1,280.
const SIDE_LIMIT: u32 = 4_096;
/// Pictures a call on a GPU: 4 of the usual size hold 20 MB.
const PICTURES_MAX: usize = 8;

/// What a manifest's `[settings]` may change for the family `yolo`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct YoloSettings {
    /// The square's side, where the graph leaves it open.
    pub side: u32,
    /// The lowest score of an object.
    pub score_min: f32,
    /// Boxes of one label that overlap more are one object.
    pub overlap_max: f32,
    /// The most objects of a picture.
    pub objects_max: usize,
}

impl Default for YoloSettings {
    fn default() -> Self {
        Self { side: 640, score_min: 0.25, overlap_max: 0.7, objects_max: 300 }
    }
}

impl Settings for YoloSettings {
    fn check(&self) -> Result<(), &'static str> {
        let share = |value: &f32| (0.0..=1.0).contains(value);
        if !share(&self.score_min) || !share(&self.overlap_max) {
            Err("score_min and overlap_max are from 0 to 1")
        } else if !(32..=SIDE_LIMIT).contains(&self.side) || !self.side.is_multiple_of(32) {
            Err("side is a multiple of 32 up to 4096")
        } else if self.objects_max == 0 {
            Err("objects_max is at least 1")
        } else {
            Ok(())
        }
    }
}

pub(crate) struct YoloPipeline {
    graph: Graph,
    input: String,
    output: String,
    labels: Vec<String>,
    side: u32,
    stage: Stage<Scaling>,
    stack: Stack,
    settings: YoloSettings,
    batch_max: usize,
}

impl YoloPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<YoloSettings>()?;
        let spec =
            |shape| [IoSpec { name: IoName::Only, element: TensorElementType::Float32, shape }];
        let pictures = spec(&[DimSpec::Any, DimSpec::Is(3), DimSpec::Any, DimSpec::Any]);
        let boxes = spec(&[DimSpec::Any, DimSpec::Any, DimSpec::Any]);
        let graph = opener.graph("detect", &pictures, &boxes)?;
        let shape = graph.session().inputs()[0].dtype().tensor_shape();
        let sides: Vec<i64> = shape.map(|shape| shape.to_vec()).unwrap_or_default();
        let own = |axis: usize| sides.get(axis).copied().and_then(|side| u32::try_from(side).ok());
        if own(2) != own(3) {
            return Err(opener.interface_mismatch("detect", "the input is not a square".to_owned()));
        }
        opener.limit_batch(own(0).map_or(PICTURES_MAX, |count| count as usize));
        if own(0).is_some_and(|count| count != 1) {
            let problem = "the input fixes a batch of more than one".to_owned();
            return Err(opener.interface_mismatch("detect", problem));
        }
        let metadata = graph.session().metadata().ok();
        let names = metadata.and_then(|metadata| metadata.custom(LABELS_KEY)).unwrap_or_default();
        let (input, side) = (graph.only_input(), own(2).unwrap_or(settings.side));
        Ok(Self {
            stage: Stage::new(fitting(side, graph.float_width(&input))),
            stack: Stack::default(),
            input,
            output: graph.output_among(&["output0"]),
            labels: labels(&names),
            side,
            graph,
            settings,
            batch_max: opener.batch_max(),
        })
    }

    fn label(&self, class: usize) -> String {
        self.labels.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// The objects in one picture's output; several may be the same one.
    fn read(&self, output: &ArrayView2<'_, f32>, fit: &Fit, least: f32) -> Vec<Detection> {
        let (rows, columns) = output.dim();
        let object = |class: usize, score: f32, edges: [f32; 4]| Detection {
            label: self.label(class),
            score,
            edges: fit.to_picture(edges),
            points: Vec::new(),
        };
        if columns == FINISHED {
            let kept = output.outer_iter().filter(|row| row[4] >= least);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a label's number"
            )]
            let finished = |row: ndarray::ArrayView1<'_, f32>| {
                object(row[5] as usize, row[4], [row[0], row[1], row[2], row[3]])
            };
            return kept.map(finished).collect();
        }
        // Columns are boxes where there are more of them than of numbers a box.
        let (boxes, own_score) =
            if rows < columns { (output.t(), false) } else { (output.view(), true) };
        let first = if own_score { 5 } else { 4 };
        let mut found = Vec::new();
        for numbers in boxes.outer_iter().filter(|numbers| numbers.len() > first) {
            let scores = numbers.iter().skip(first).copied().enumerate();
            let best = scores.max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((class, score)) = best else { continue };
            let score = if own_score { score * numbers[4] } else { score };
            if score >= least {
                let [x, y, width, height] = [numbers[0], numbers[1], numbers[2], numbers[3]];
                let (half, down) = (width / 2.0, height / 2.0);
                found.push(object(class, score, [x - half, y - down, x + half, y + down]));
            }
        }
        found
    }
}

impl Run for YoloPipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let pictures = self.stage.forms(batch)?;
        let mut outputs = Vec::with_capacity(batch.len());
        let mut inputs = batch.iter();
        for pictures in pictures.chunks(self.batch_max) {
            cancel.check()?;
            let planes = self.stack.of(pictures.iter().map(|picture| &picture.planes));
            let feeds = vec![(self.input.as_str(), planes)];
            let [found] = self.graph.run(STAGE, feeds, [self.output.as_str()])?;
            let wrong = || RunError::Shape { stage: STAGE, shape: found.shape().to_vec() };
            let found = found.view().into_dimensionality::<Ix3>().map_err(|_| wrong())?;
            if found.dim().0 != pictures.len() {
                return Err(wrong());
            }
            for (row, picture) in pictures.iter().enumerate() {
                let fit = Fit::new(picture.picture, self.side);
                let input = inputs.next().ok_or_else(wrong)?;
                let least = score_min(input, self.settings.score_min);
                let objects = self.read(&found.index_axis(Axis(0), row), &fit, least);
                let (overlap, most) = (self.settings.overlap_max, self.settings.objects_max);
                let objects = distinct(objects, overlap, most);
                let Size { width, height } = fit.picture;
                let detections = Detections { width, height, objects };
                outputs.push(TaskResult::Detections(detections).into());
            }
        }
        Ok(outputs)
    }

    fn preparation(&self) -> Option<Preparation> {
        Some(self.stage.preparation())
    }
}

/// Pictures fitted into the square on grey.
fn fitting(side: u32, width: FloatWidth) -> Scaling {
    let ground = Ground { size: Size::square(side), number: GREY };
    Scaling::by(Planes::bytes(ground.size, width), move |picture| {
        let fit = Fit::new(picture.dimensions().into(), side);
        let scaled = resize(picture, fit.scaled, Filter::Bilinear);
        Planes::on(ground, fit.corner, &scaled, &Normalisation::UNIT, width)
    })
}

/// Where a picture lies in the square.
#[derive(Debug, Clone, PartialEq)]
struct Fit {
    picture: Size,
    scaled: Size,
    corner: Offset,
}

impl Fit {
    fn new(picture: Size, side: u32) -> Self {
        let scale = f64::from(side) / f64::from(picture.long_side());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most a side"
        )]
        let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).clamp(1, side);
        let scaled = Size { width: scaled(picture.width), height: scaled(picture.height) };
        let corner = Offset { left: (side - scaled.width) / 2, top: (side - scaled.height) / 2 };
        Self { picture, scaled, corner }
    }

    /// A box in the square, on the picture.
    fn to_picture(&self, [left, top, right, bottom]: [f32; 4]) -> [f32; 4] {
        let on_picture = |value: f32, corner: u32, scaled: u32, length: u32| {
            ((value - corner as f32) * length as f32 / scaled as f32).clamp(0.0, length as f32)
        };
        let across = |x| on_picture(x, self.corner.left, self.scaled.width, self.picture.width);
        let down = |y| on_picture(y, self.corner.top, self.scaled.height, self.picture.height);
        [across(left), down(top), across(right), down(bottom)]
    }
}

/// The labels out of the exporter's text, a Python dictionary: `{0: 'person', 1: 'traffic light'}`.
fn labels(names: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut rest = names;
    while let Some(start) = rest.find(['\'', '"']) {
        let quote = &rest[start..=start];
        let Some(length) = rest[start + 1..].find(quote) else { break };
        labels.push(rest[start + 1..][..length].to_owned());
        rest = &rest[start + length + 2..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_fitted_into_the_square_and_boxes_come_back() {
        let fit = Fit::new((1_280, 640).into(), 640);
        assert_eq!(fit.scaled, (640, 320).into());
        assert_eq!(fit.corner, Offset { left: 0, top: 160 });
        assert_eq!(fit.to_picture([0.0, 160.0, 320.0, 480.0]), [0.0, 0.0, 640.0, 640.0]);
        assert_eq!(fit.to_picture([-9.0, 0.0, 999.0, 999.0]), [0.0, 0.0, 1_280.0, 640.0]);
        assert_eq!(Fit::new((1, 30_000).into(), 640).scaled, (1, 640).into());
    }

    #[test]
    fn labels_are_read_out_of_the_exporter_s_dictionary() {
        let names = r#"{0: 'person', 1: 'traffic light', 2: "driver's seat"}"#;
        assert_eq!(labels(names), ["person", "traffic light", "driver's seat"]);
        assert!(labels("").is_empty() && labels("{0: 'x").is_empty());
    }
}
