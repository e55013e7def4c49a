//! Faces, by CenterFace: a map of face middles a quarter as wide as the picture, with sizes, offsets and landmarks.

use std::collections::BTreeMap;

use gpu_tasks::Task;
use ndarray::{Array4, ArrayD, Axis, Ix4};
use ort::value::TensorElementType;
use serde::Deserialize;

use super::{distinct, score_min};
use crate::input::Prepared;
use crate::models::{
    DimSpec, FamilySpec, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Settings, Signature,
    Stack, check_settings,
};
use crate::output::{Detection, Detections, Output, TaskResult};
use crate::pipelines::scaling::Scaling;
use crate::preparation::{Preparation, Stage};
use crate::preprocess::pixels::{Filter, FloatWidth, Normalisation, Planes, resize};
use crate::run::{Cancel, Run, RunError};
use crate::size::Size;

/// CenterFace: faces.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "centerface",
    task: ModelTask::Job(Task::VisionDetect),
    roles: &["detect"],
    uses: &[],
    check_settings: check_settings::<CenterFaceSettings>,
    open: Some(|opener| Ok(Box::new(CenterFacePipeline::open(opener)?))),
};

const STAGE: &str = "face detection";
const INPUT: &str = "input.1";
/// Face middles, the logarithms of sizes, offsets of middles, landmarks.
const OUTPUTS: [&str; 4] = ["537", "538", "539", "540"];
/// The picture's sides are multiples of this.
const STEP: u32 = 32;
/// Pixels a cell of the maps.
const CELL: u32 = 4;
const CELL_SIDE: f32 = 4.0;
const LANDMARKS: usize = 5;
/// Most pixels of a call: four pictures of the largest size.
const PIXELS_MAX: u64 = 4 * 1_280 * 1_280;
/// Most faces of a picture.
const FACES_MAX: usize = 1_000;
/// The longest side that a manifest may allow.
const SIDE_LIMIT: u32 = 4_096;

/// What a manifest's `[settings]` may change for the family `centerface`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CenterFaceSettings {
    /// The least score of a face.
    pub score_min: f32,
    /// Faces that overlap more are one.
    pub overlap_max: f32,
    /// A longer picture is scaled down; faces below 10 pixels are lost then.
    pub side_max: u32,
}

impl Default for CenterFaceSettings {
    fn default() -> Self {
        Self { score_min: 0.5, overlap_max: 0.3, side_max: 1_280 }
    }
}

impl Settings for CenterFaceSettings {
    fn check(&self) -> Result<(), &'static str> {
        let share = |value: &f32| (0.0..=1.0).contains(value);
        if !share(&self.score_min) || !share(&self.overlap_max) {
            Err("score_min and overlap_max are from 0 to 1")
        } else if !(STEP..=SIDE_LIMIT).contains(&self.side_max) {
            Err("side_max is from 32 to 4096")
        } else {
            Ok(())
        }
    }
}

pub(crate) struct CenterFacePipeline {
    graph: Graph,
    stage: Stage<Scaling>,
    stack: Stack,
    settings: CenterFaceSettings,
}

impl CenterFacePipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<CenterFaceSettings>()?;
        const PICTURES: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(3), DimSpec::Free, DimSpec::Free];
        const MAPS: [&[DimSpec]; 4] = [
            &[DimSpec::Free, DimSpec::Is(1), DimSpec::Free, DimSpec::Free],
            &[DimSpec::Free, DimSpec::Is(2), DimSpec::Free, DimSpec::Free],
            &[DimSpec::Free, DimSpec::Is(2), DimSpec::Free, DimSpec::Free],
            &[DimSpec::Free, DimSpec::Is(10), DimSpec::Free, DimSpec::Free],
        ];
        let spec = |name, shape| IoSpec {
            name: IoName::Is(name),
            element: TensorElementType::Float32,
            shape,
        };
        let inputs = [spec(INPUT, PICTURES)];
        let outputs: [IoSpec; 4] = std::array::from_fn(|map| spec(OUTPUTS[map], MAPS[map]));
        // The file declares ten pictures of 32 x 32, but the graph takes any batch, height and width.
        let signature = Signature { inputs: &inputs, outputs: &outputs };
        let graph = opener.graph_with_free_dims("detect", signature, INPUT, &[0, 2, 3])?;
        let stage = Stage::new(scaling(settings.side_max, graph.float_width(INPUT)));
        Ok(Self { graph, stage, stack: Stack::default(), settings })
    }
}

impl Run for CenterFacePipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let pictures = self.stage.forms(batch)?;
        let mut by_size: BTreeMap<Size, Vec<usize>> = BTreeMap::new();
        for (index, picture) in pictures.iter().enumerate() {
            by_size.entry(picture.planes.size).or_default().push(index);
        }
        let mut outputs: Vec<Option<Output>> = vec![None; batch.len()];
        for (size, members) in by_size {
            let together = usize::try_from(PIXELS_MAX / size.pixels()).unwrap_or(1).max(1);
            for members in members.chunks(together) {
                cancel.check()?;
                let planes = members.iter().map(|&index| &pictures[index].planes);
                let feeds = vec![(INPUT, self.stack.of(planes))];
                let maps = Maps::new(self.graph.run(STAGE, feeds, OUTPUTS)?, members.len(), size)?;
                for (row, &index) in members.iter().enumerate() {
                    let least = score_min(&batch[index], self.settings.score_min);
                    let picture = pictures[index].picture;
                    let faces = maps.faces(row, least, picture);
                    let objects = distinct(faces, self.settings.overlap_max, FACES_MAX);
                    let Size { width, height } = picture;
                    let detections = Detections { width, height, objects };
                    outputs[index] = Some(TaskResult::Detections(detections).into());
                }
            }
        }
        Ok(outputs.into_iter().flatten().collect())
    }

    fn preparation(&self) -> Option<Preparation> {
        Some(self.stage.preparation())
    }
}

/// Pictures as large as the graph takes them.
fn scaling(side_max: u32, width: FloatWidth) -> Scaling {
    let largest = Size::square(side_max.next_multiple_of(STEP));
    Scaling::by(Planes::bytes(largest, width), move |picture| {
        let size = canvas(picture.dimensions().into(), side_max);
        Planes::of(&resize(picture, size, Filter::Bilinear), &Normalisation::BYTES, width)
    })
}

/// The size that a picture is scaled to: its own, in steps, unless it is too long.
fn canvas(picture: Size, side_max: u32) -> Size {
    let long = picture.long_side();
    let side = |side: u32| {
        let scaled = u64::from(side) * u64::from(side_max.min(long));
        let scaled = scaled.div_ceil(u64::from(long));
        u32::try_from(scaled).unwrap_or(side_max).max(1).next_multiple_of(STEP)
    };
    Size { width: side(picture.width), height: side(picture.height) }
}

/// The four maps of a call.
struct Maps {
    maps: [Array4<f32>; 4],
    size: Size,
}

impl Maps {
    fn new(maps: [ArrayD<f32>; 4], count: usize, size: Size) -> Result<Self, RunError> {
        let cells = ((size.height / CELL) as usize, (size.width / CELL) as usize);
        let mut checked = Vec::with_capacity(maps.len());
        for (map, channels) in maps.into_iter().zip([1, 2, 2, 2 * LANDMARKS]) {
            let shape = map.shape().to_vec();
            if shape != [count, channels, cells.0, cells.1] {
                return Err(RunError::Shape { stage: STAGE, shape });
            }
            checked.push(map.into_dimensionality::<Ix4>().expect("four sides were seen"));
        }
        let maps = <[Array4<f32>; 4]>::try_from(checked).expect("four went in");
        Ok(Self { maps, size })
    }

    /// The faces of a picture; several may be the same one.
    fn faces(&self, row: usize, score_min: f32, picture: Size) -> Vec<Detection> {
        let [middles, sizes, offsets, landmarks] =
            self.maps.each_ref().map(|map| map.index_axis(Axis(0), row));
        let scale = [
            picture.width as f32 / self.size.width as f32,
            picture.height as f32 / self.size.height as f32,
        ];
        let limit = [picture.width as f32, picture.height as f32];
        let mut faces = Vec::new();
        for ((_, y, x), &score) in middles.indexed_iter().filter(|(_, score)| **score > score_min) {
            // Height before width, and y before x, throughout.
            let side = |axis: usize| sizes[[axis, y, x]].exp() * CELL_SIDE;
            let (height, width) = (side(0), side(1));
            let middle =
                |axis: usize, cell: usize| (cell as f32 + offsets[[axis, y, x]] + 0.5) * CELL_SIDE;
            let (left, top) =
                ((middle(1, x) - width / 2.0).max(0.0), (middle(0, y) - height / 2.0).max(0.0));
            let on_picture =
                |value: f32, axis: usize| (value * scale[axis]).clamp(0.0, limit[axis]);
            let edges = [
                on_picture(left, 0),
                on_picture(top, 1),
                on_picture(left + width, 0),
                on_picture(top + height, 1),
            ];
            let point = |point: usize| {
                let across = landmarks[[2 * point + 1, y, x]] * width + left;
                let down = landmarks[[2 * point, y, x]] * height + top;
                [across * scale[0], down * scale[1]]
            };
            let points = (0..LANDMARKS).map(point).collect();
            faces.push(Detection { label: "face".to_owned(), score, edges, points });
        }
        faces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_size_in_steps_and_a_long_one_is_scaled() {
        assert_eq!(canvas((512, 512).into(), 1_280), (512, 512).into());
        assert_eq!(canvas((500, 33).into(), 1_280), (512, 64).into());
        assert_eq!(canvas((1, 1).into(), 1_280), (32, 32).into());
        assert_eq!(canvas((5_120, 2_560).into(), 1_280), (1_280, 640).into());
        assert_eq!(canvas((30_000, 1).into(), 1_280), (1_280, 32).into());
    }

    #[test]
    fn a_cell_s_numbers_become_a_box_on_the_picture() {
        let mut maps = [1, 2, 2, 10].map(|channels| Array4::<f32>::zeros((1, channels, 8, 8)));
        maps[0][[0, 0, 4, 2]] = 0.9;
        // Height 8, width 16; half a cell further down.
        maps[1][[0, 0, 4, 2]] = 2_f32.ln();
        maps[1][[0, 1, 4, 2]] = 4_f32.ln();
        maps[2][[0, 0, 4, 2]] = 0.5;
        maps[3][[0, 0, 4, 2]] = 0.25;
        maps[3][[0, 1, 4, 2]] = 0.5;
        let maps = Maps { maps, size: Size::square(32) };
        let faces = maps.faces(0, 0.5, (64, 32).into());
        assert_eq!(faces.len(), 1);
        // Middle at x (2 + 0.5) * 4 = 10, y (4 + 0.5 + 0.5) * 4 = 20; twice as wide on the picture.
        for (found, expected) in faces[0].edges.into_iter().zip([4.0, 16.0, 36.0, 24.0]) {
            assert!((found - expected).abs() < 1e-4, "{:?}", faces[0].edges);
        }
        let [x, y] = faces[0].points[0];
        assert!((x - 20.0).abs() < 1e-4 && (y - 18.0).abs() < 1e-4, "{x} {y}");
    }
}
