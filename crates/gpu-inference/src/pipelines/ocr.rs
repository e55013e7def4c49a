//! `vision.ocr`: the printed lines of a picture, by PP-OCR's three models.
//!
//! Text is detected on a scaled page, each line is cut out of the full page and turned upright, then read. Each line
//! is padded by its own width alone and each page by its own size, so that the other pages of a batch change nothing.
//! A long page is looked at in overlapping parts. There is no layout analysis: tables and columns come as lines from top to bottom.

mod angle;
mod best;
mod boxes;
mod detector;
mod document;
mod lines;
mod recogniser;
mod sessions;
mod shapes;
mod stages;
mod tensor;
mod tiles;

use gpu_tasks::Task;
use ort::session::Session;
use ort::value::{DynValue, TensorElementType, TensorRef};
use serde::Deserialize;

use self::angle::Angle;
use self::detector::Detector;
use self::document::Document;
use self::recogniser::Recogniser;
use self::shapes::Shapes;
pub(crate) use self::tensor::detection_size;
use self::tensor::{Canvas, Canvases};
use crate::input::{Content, Prepared};
use crate::models::{
    Device, DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, Settings,
    check_settings,
};
use crate::output::Output;
use crate::run::{Cancel, Run, RunError, failed, run_session};

/// PP-OCR: text detection, angle, recognition.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "pp-ocr",
    task: ModelTask::Job(Task::VisionOcr),
    roles: &["angle", "detect", "recognise"],
    uses: &[],
    check_settings: check_settings::<OcrSettings>,
    open: Some(|opener| Ok(Box::new(OcrPipeline::open(opener)?))),
};

/// Height of a line for both line models.
const LINE_HEIGHT: u32 = 48;
/// What both line models take.
const LINES: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(3), DimSpec::Is(LINE_HEIGHT), DimSpec::Free];

/// More than this joins neighbouring lines.
const BOX_GROWTH_MAX: f32 = 5.0;

/// What a manifest's `[settings]` may change for the family `pp-ocr`. The defaults are RapidOCR's.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OcrSettings {
    /// Probability above which a pixel is text.
    pub pixel_score_min: f32,
    /// Mean probability that a box must have.
    pub box_score_min: f32,
    /// How far a box is widened: times its area over its circumference.
    pub box_growth: f32,
    /// Most boxes of a page.
    pub boxes_max: usize,
    /// Probability above which a line is turned by 180 degrees.
    pub turn_score_min: f32,
    /// Mean probability that a line must have.
    pub line_score_min: f32,
    /// How many shapes of inputs the models see.
    pub shapes: OcrShapes,
}

/// How many shapes of inputs the models see: each line and page its own, or a few with more padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OcrShapes {
    /// Few on a GPU, which plans for each; own ones on a processor, which pays for padding.
    #[default]
    Auto,
    /// As large as the content, in small steps.
    Own,
    /// A few, whatever the content.
    Few,
}

impl Default for OcrSettings {
    fn default() -> Self {
        Self {
            pixel_score_min: 0.3,
            box_score_min: 0.5,
            box_growth: 1.6,
            boxes_max: 1000,
            turn_score_min: 0.9,
            line_score_min: 0.5,
            shapes: OcrShapes::Auto,
        }
    }
}

impl Settings for OcrSettings {
    fn check(&self) -> Result<(), &'static str> {
        let scores =
            [self.pixel_score_min, self.box_score_min, self.turn_score_min, self.line_score_min];
        if !scores.iter().all(|score| (0.0..=1.0).contains(score)) {
            Err("each *_score_min is a probability")
        } else if !(0.0..=BOX_GROWTH_MAX).contains(&self.box_growth) {
            Err("box_growth is from 0 to 5")
        } else {
            Ok(())
        }
    }
}

/// The opened models, and the canvases that they see.
pub(crate) struct OcrPipeline {
    detector: Detector,
    angle: Angle,
    recogniser: Recogniser,
    settings: OcrSettings,
    shapes: Shapes,
    of_pages: Canvases,
    of_lines: Canvases,
}

impl OcrPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<OcrSettings>()?;
        let on_processor = opener.device() == Device::Cpu;
        let shapes = match settings.shapes {
            OcrShapes::Auto if on_processor => Shapes::Own,
            OcrShapes::Own => Shapes::Own,
            OcrShapes::Auto | OcrShapes::Few => Shapes::Few,
        };
        // Pages together pay on a GPU only; a processor is full with one, and its page need not wait for the others'.
        if on_processor {
            opener.limit_batch(1);
        }
        Ok(Self {
            detector: Detector::open(opener, shapes)?,
            angle: Angle::open(opener, shapes, settings.turn_score_min)?,
            recogniser: Recogniser::open(opener, shapes)?,
            settings,
            shapes,
            of_pages: Canvases::default(),
            of_lines: Canvases::default(),
        })
    }
}

impl Run for OcrPipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut documents = Vec::with_capacity(batch.len());
        let (mut pages, mut owners) = (Vec::new(), Vec::new());
        for (index, input) in batch.iter().enumerate() {
            let Content::Picture(picture) = input.content() else {
                return Err(RunError::WrongInput { index, wanted: "a picture" });
            };
            owners.extend((0..picture.pages().len()).map(|page| (index, page)));
            pages.extend(picture.pages());
            documents.push(Document::of(picture));
        }
        let read = stages::read(self, &pages, cancel)?;
        for ((document, page), read) in owners.into_iter().zip(read) {
            documents[document].add(page, read, self.settings.line_score_min);
        }
        Ok(documents.into_iter().map(Document::output).collect())
    }
}

fn float(name: IoName, shape: &'static [DimSpec]) -> IoSpec {
    IoSpec { name, element: TensorElementType::Float32, shape }
}

/// Runs a model that has one input and one output.
fn run(
    session: &mut Session,
    canvas: &Canvas,
    stage: &'static str,
    cancel: &Cancel,
) -> Result<DynValue, RunError> {
    let output = session.outputs()[0].name().to_owned();
    let input = TensorRef::from_array_view(canvas.values()).map_err(failed(stage))?;
    let mut outputs = run_session(session, stage, ort::inputs!["x" => input], cancel)?;
    outputs.remove(output).ok_or_else(|| wrong(stage, &[]))
}

fn wrong(stage: &'static str, shape: &[usize]) -> RunError {
    RunError::Shape { stage, shape: shape.to_vec() }
}
