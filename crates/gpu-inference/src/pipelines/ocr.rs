//! `vision.ocr`: the printed lines of a picture, by PP-OCR's three models.
//!
//! Text is detected on a scaled page, each line is cut out of the full page and turned upright, then read. Each line
//! is padded by its own width alone and each page by its own size, so that the other pages of a batch change nothing.
//! A long page is looked at in overlapping parts. There is no layout analysis: tables and columns come as lines from top to bottom.

mod best;
mod boxes;
mod lines;
mod tensor;
mod tiles;

use std::borrow::Cow;
use std::collections::BTreeMap;

use gpu_tasks::{Task, WarningCode};
use image::{RgbImage, imageops};
use ndarray::Axis;
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};
use serde::Deserialize;

use self::best::BestOf;
use self::boxes::{Corners, Turn};
use self::lines::Alphabet;
use self::tensor::{Canvas, Placement};
use self::tiles::Tiles;
use crate::input::picture::Picture;
use crate::input::{Content, Prepared};
use crate::models::{
    Device, DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, Settings,
    check_settings,
};
use crate::output::{Basis, Line, Output, Page, PageSize, PictureBasis, Reading, TaskResult};
use crate::run::{Cancel, Run, RunError, failed, run_session};
use crate::size::Size;

/// PP-OCR: text detection, angle, recognition.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "pp-ocr",
    task: ModelTask::Job(Task::VisionOcr),
    roles: &["angle", "detect", "recognise"],
    uses: &[],
    check_settings: check_settings::<OcrSettings>,
    open: Some(|opener| Ok(Box::new(OcrPipeline::open(opener)?))),
};

pub(crate) use self::tensor::detection_size;

const DETECT: &str = "text detection";
const ANGLE: &str = "text angle";
const RECOGNISE: &str = "text recognition";
/// Height of a line for both line models.
const LINE_HEIGHT: u32 = 48;
/// Width of a line for the angle model.
const ANGLE_WIDTH: u32 = 192;
/// Lines a call of the line models (PP-OCR's own number).
const LINES_MAX: usize = 6;
/// Lines are padded to multiples of this, so that many share a shape.
const LINE_WIDTH_STEP: u32 = 160;
/// PP-OCR's own narrowest input of the recogniser.
const LINE_WIDTH_MIN: u32 = 320;
/// A longer line is squeezed: 66 times as wide as high.
const LINE_WIDTH_MAX: u32 = 3_200;
/// Most pixels of a line's width times lines in a call of the recogniser on a processor, whose output has 18,710 numbers for each 8 of them.
const LINES_WIDTH_MAX: u32 = 6 * 1_280;
/// Most pixels a call of the detector: four pages of the usual size.
const PAGES_PIXELS_MAX: u64 = 4 << 20;

/// On a GPU, lines are padded to one of these widths, each of which has a session and a number of lines of its own: cuDNN
/// plans anew whenever a session sees another shape than before, which cost more than the padding does.
const FEW_WIDTHS: [(u32, usize); 5] =
    [(320, 24), (640, 16), (1_280, 8), (2_080, 6), (LINE_WIDTH_MAX, 4)];
/// … and this many parts of lines are looked at together for which way up they are.
const FEW_VIEWS: usize = 32;
/// And the detector's canvas is made of such squares.
const FEW_CANVAS_STEP: u32 = 256;

/// Most pages that are looked at before their lines are read: the lines' pictures are kept until then.
const PAGES_TOGETHER_MAX: usize = 8;
/// Lines that are lower, in pixels of the page, are often misread: their letters are some five pixels high.
const LINE_READABLE_MIN: u32 = 10;

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

pub(crate) struct OcrPipeline {
    detector: Session,
    angle: Session,
    recognisers: Recognisers,
    best: BestOf,
    alphabet: Alphabet,
    settings: OcrSettings,
}

/// The recogniser's sessions.
enum Recognisers {
    /// One for lines of any width.
    Any(Box<Session>),
    /// One for each of [`FEW_WIDTHS`].
    Few(Vec<Session>),
}

/// A line that was found and not yet read.
struct Found {
    page: usize,
    corners: Corners,
    picture: RgbImage,
    /// It stood on its head.
    turned: bool,
}

/// What was found on a page.
struct Boxes {
    boxes: Vec<Corners>,
    /// The parts that it was looked at in, and how large they were then; 1 is their own size.
    tiles: usize,
    scale: f32,
}

/// A part of a page on the detector's canvas.
struct View<'a> {
    page: usize,
    part: usize,
    picture: Cow<'a, RgbImage>,
    placement: Placement,
}

impl OcrPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<OcrSettings>()?;
        const PAGES: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(3), DimSpec::Free, DimSpec::Free];
        const MAPS: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(1), DimSpec::Free, DimSpec::Free];
        const LINES: &[DimSpec] =
            &[DimSpec::Free, DimSpec::Is(3), DimSpec::Is(LINE_HEIGHT), DimSpec::Free];
        let spec = |name, shape| [IoSpec { name, element: TensorElementType::Float32, shape }];
        let input = |shape| spec(IoName::Is("x"), shape);
        let output = |shape| spec(IoName::Only, shape);
        let detector = opener.session("detect", &input(PAGES), &output(MAPS))?;
        let turned: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(2)];
        let angle = opener.session("angle", &input(LINES), &output(turned))?;
        let read: &[DimSpec] = &[DimSpec::Free, DimSpec::Free, DimSpec::Own];
        let recogniser = opener.session("recognise", &input(LINES), &output(read))?;
        let alphabet = Alphabet::of(&recogniser)
            .map_err(|problem| opener.interface_mismatch("recognise", problem))?;
        let device = opener.device();
        let few = match settings.shapes {
            OcrShapes::Auto => device != Device::Cpu,
            OcrShapes::Own => false,
            OcrShapes::Few => true,
        };
        let recognisers = if few {
            let mut sessions = vec![recogniser];
            for _ in 1..FEW_WIDTHS.len() {
                sessions.push(opener.session("recognise", &input(LINES), &output(read))?);
            }
            Recognisers::Few(sessions)
        } else {
            Recognisers::Any(Box::new(recogniser))
        };
        // Pages together pay on a GPU only; a processor is full with one, and its page need not wait for the others'.
        if device == Device::Cpu {
            opener.limit_batch(1);
        }
        let best = BestOf::open(opener)?;
        Ok(Self { detector, angle, recognisers, best, alphabet, settings })
    }

    /// The boxes of each page. Pages and parts of the same size on the detector's canvas share a call.
    fn detect(&mut self, pages: &[&RgbImage], cancel: &Cancel) -> Result<Vec<Boxes>, RunError> {
        let tiles: Vec<Tiles> =
            pages.iter().map(|page| Tiles::of(page.dimensions().into())).collect();
        let place = |tiles: &Tiles| match self.recognisers {
            Recognisers::Any(_) => Placement::of(tiles.size),
            Recognisers::Few(_) => Placement::in_steps(tiles.size, FEW_CANVAS_STEP),
        };
        let placements: Vec<Placement> = tiles.iter().map(place).collect();
        let mut by_size: BTreeMap<Size, Vec<(usize, usize)>> = BTreeMap::new();
        for (page, (tiles, placement)) in tiles.iter().zip(&placements).enumerate() {
            let parts = (0..tiles.count()).map(|part| (page, part));
            by_size.entry(placement.canvas).or_default().extend(parts);
        }
        let mut found: Vec<Vec<Vec<Corners>>> =
            tiles.iter().map(|tiles| vec![Vec::new(); tiles.count()]).collect();
        for (size, parts) in by_size {
            let together = usize::try_from(PAGES_PIXELS_MAX / size.pixels()).unwrap_or(1).max(1);
            let mut views = parts.into_iter().filter_map(|(page, part)| {
                let picture = tiles[page].picture(pages[page], part)?;
                Some(View { page, part, picture, placement: placements[page].clone() })
            });
            loop {
                let views: Vec<View<'_>> = views.by_ref().take(together).collect();
                if views.is_empty() {
                    break;
                }
                for (view, boxes) in views.iter().zip(self.look(&views, size, cancel)?) {
                    found[view.page][view.part] = boxes;
                }
            }
        }
        let pages = tiles.iter().zip(placements).zip(found);
        let boxes = pages.map(|((tiles, placement), found)| Boxes {
            boxes: tiles.joined(found),
            tiles: tiles.count(),
            scale: placement.scale(),
        });
        Ok(boxes.collect())
    }

    /// The boxes of parts that have canvases of one size, each in its own pixels.
    fn look(
        &mut self,
        views: &[View<'_>],
        size: Size,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Corners>>, RunError> {
        cancel.check()?;
        let mut canvas = Canvas::new(views.len(), size);
        for (row, view) in views.iter().enumerate() {
            canvas.draw_page(row, &view.picture, &view.placement);
        }
        let maps = run(&mut self.detector, &canvas, DETECT, cancel)?;
        let maps = maps.into_dimensionality::<ndarray::Ix4>().map_err(|_| wrong(DETECT, &[]))?;
        if maps.dim() != (views.len(), 1, size.height as usize, size.width as usize) {
            return Err(wrong(DETECT, maps.shape()));
        }
        let boxes = views.iter().enumerate().map(|(row, view)| {
            let map = maps.index_axis(Axis(0), row);
            let found = boxes::find(&map.index_axis(Axis(0), 0), &self.settings);
            found.into_iter().filter_map(|corners| view.placement.to_page(corners)).collect()
        });
        Ok(boxes.collect())
    }

    /// Turns the lines upright that stand on their heads.
    fn turn(&mut self, found: &mut [Found], cancel: &Cancel) -> Result<(), RunError> {
        let numbered = found.iter().enumerate();
        let views: Vec<(usize, RgbImage)> = numbered
            .flat_map(|(index, line)| lines::views(&line.picture).map(move |view| (index, view)))
            .collect();
        let mut scores = vec![(0.0, 0.0); found.len()];
        let together = match self.recognisers {
            Recognisers::Any(_) => LINES_MAX,
            Recognisers::Few(_) => FEW_VIEWS,
        };
        for views in views.chunks(together) {
            cancel.check()?;
            let rows = match self.recognisers {
                Recognisers::Any(_) => views.len(),
                Recognisers::Few(_) => together,
            };
            let mut canvas = Canvas::new(rows, Size { width: ANGLE_WIDTH, height: LINE_HEIGHT });
            for (row, (_, view)) in views.iter().enumerate() {
                canvas.draw_line(row, view);
            }
            let scored = run(&mut self.angle, &canvas, ANGLE, cancel)?;
            if scored.shape() != [rows, 2] {
                return Err(wrong(ANGLE, scored.shape()));
            }
            for ((index, _), score) in views.iter().zip(scored.outer_iter()) {
                scores[*index].0 += score[1];
                scores[*index].1 += 1.0;
            }
        }
        for (line, (sum, count)) in found.iter_mut().zip(scores) {
            line.turned = sum / count > self.settings.turn_score_min;
            if line.turned {
                imageops::rotate180_in_place(&mut line.picture);
            }
        }
        Ok(())
    }

    /// The text and score of each line, whichever page it is from.
    fn read(&mut self, found: &[Found], cancel: &Cancel) -> Result<Vec<(String, f32)>, RunError> {
        let mut by_width: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, line) in found.iter().enumerate() {
            let width = self.recognisers.width(line.picture.dimensions().into());
            by_width.entry(width).or_default().push(index);
        }
        let mut texts = vec![(String::new(), 0.0); found.len()];
        for (width, members) in by_width {
            for members in members.chunks(self.recognisers.together(width)) {
                cancel.check()?;
                let (session, rows) = self.recognisers.session(width, members.len());
                let mut canvas = Canvas::new(rows, Size { width, height: LINE_HEIGHT });
                for (row, &index) in members.iter().enumerate() {
                    canvas.draw_line(row, &found[index].picture);
                }
                let columns = self.best.run(session, &canvas, self.alphabet.len())?;
                for (row, &index) in members.iter().enumerate() {
                    texts[index] = self.alphabet.read(columns.of(row));
                }
            }
        }
        Ok(texts)
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
        let parts = pages.chunks(PAGES_TOGETHER_MAX).zip(owners.chunks(PAGES_TOGETHER_MAX));
        for (pages, owners) in parts {
            self.read_pages(pages, owners, &mut documents, cancel)?;
        }
        Ok(documents.into_iter().map(Document::output).collect())
    }
}

impl OcrPipeline {
    /// Reads pages; of each it is said which document it is of, and which of its pages.
    fn read_pages(
        &mut self,
        pages: &[&RgbImage],
        owners: &[(usize, usize)],
        documents: &mut [Document],
        cancel: &Cancel,
    ) -> Result<(), RunError> {
        let boxes = self.detect(pages, cancel)?;
        let mut found = Vec::new();
        for (page, Boxes { boxes, tiles, scale }) in boxes.into_iter().enumerate() {
            cancel.check()?;
            documents[owners[page].0].looked_at(tiles, scale);
            found.extend(boxes.into_iter().filter_map(|corners| {
                let picture = boxes::cut_out(pages[page], &corners)?;
                Some(Found { page, corners, picture, turned: false })
            }));
        }
        self.turn(&mut found, cancel)?;
        let found = in_reading_order(found);
        let texts = self.read(&found, cancel)?;
        for (line, (text, score)) in found.into_iter().zip(texts) {
            let (document, page) = owners[line.page];
            let Document { page: lines, reading, .. } = &mut documents[document];
            if score < self.settings.line_score_min || text.trim().is_empty() {
                reading.lines_unread += 1;
                continue;
            }
            reading.lines_small += usize::from(line.picture.height() < LINE_READABLE_MIN);
            lines.lines.push(Line { text, score, corners: line.corners, page });
        }
        Ok(())
    }
}

/// An input's output that is being made.
struct Document {
    page: Page,
    pages_total: usize,
    reading: Reading,
}

impl Document {
    fn of(picture: &Picture) -> Self {
        let size = |page: &RgbImage| PageSize { width: page.width(), height: page.height() };
        Self {
            page: Page { pages: picture.pages().iter().map(size).collect(), lines: Vec::new() },
            pages_total: picture.pages_total(),
            reading: Reading { tiles: 0, scale: f32::INFINITY, lines_small: 0, lines_unread: 0 },
        }
    }

    fn looked_at(&mut self, tiles: usize, scale: f32) {
        self.reading.tiles += tiles;
        self.reading.scale = self.reading.scale.min(scale);
    }

    fn output(self) -> Output {
        let Self { page, pages_total, reading } = self;
        let PageSize { width, height } = page.pages[0];
        let (pages, small) = (page.pages.len(), reading.lines_small);
        let basis = PictureBasis { pages, pages_total, width, height, reading: Some(reading) };
        let mut output = Output::from(TaskResult::Page(page));
        output.remarks.basis = Some(Basis::Picture(basis));
        if small > 0 {
            let message = format!("{small} of the lines are lower than {LINE_READABLE_MIN} pixels");
            output.remarks.warn(WarningCode::PictureLinesSmall, message);
        }
        output
    }
}

/// The lines of each page in the order in which they are read. Where most lines of a page were turned, it lies on its side or stands on its
/// head, and begins elsewhere than at its top left.
fn in_reading_order(mut found: Vec<Found>) -> Vec<Found> {
    let mut ordered = Vec::with_capacity(found.len());
    while let Some(page) = found.first().map(|line| line.page) {
        let mut lines: Vec<Option<Found>> =
            found.extract_if(.., |line| line.page == page).map(Some).collect();
        let corners: Vec<Corners> = lines.iter().flatten().map(|line| line.corners).collect();
        let most = |is: fn(&Found) -> bool| {
            2 * lines.iter().flatten().filter(|line| is(line)).count() > lines.len()
        };
        let turn = match (most(|line| boxes::is_column(&line.corners)), most(|line| line.turned)) {
            (false, false) => Turn::None,
            (false, true) => Turn::Half,
            (true, false) => Turn::ThreeQuarters,
            (true, true) => Turn::Quarter,
        };
        let order = boxes::reading_order(&corners, turn);
        ordered.extend(order.into_iter().filter_map(|index| lines[index].take()));
    }
    ordered
}

impl Recognisers {
    /// The width that a line is padded to.
    fn width(&self, line: Size) -> u32 {
        let own = line_width(line);
        match self {
            Self::Any(_) => own,
            Self::Few(_) => {
                let fits = FEW_WIDTHS.iter().find(|(width, _)| *width >= own);
                fits.map_or(LINE_WIDTH_MAX, |(width, _)| *width)
            }
        }
    }

    /// Most lines of a width in one call.
    fn together(&self, width: u32) -> usize {
        match self {
            Self::Any(_) => LINES_MAX.min((LINES_WIDTH_MAX / width) as usize),
            Self::Few(_) => FEW_WIDTHS[few_index(width)].1,
        }
    }

    /// The session for a width, and the number of rows of its call for `lines` lines.
    fn session(&mut self, width: u32, lines: usize) -> (&mut Session, usize) {
        match self {
            Self::Any(session) => (session, lines),
            Self::Few(sessions) => {
                let index = few_index(width);
                (&mut sessions[index], FEW_WIDTHS[index].1)
            }
        }
    }
}

fn few_index(width: u32) -> usize {
    let index = FEW_WIDTHS.iter().position(|(own, _)| *own == width);
    index.expect("the width is one of them")
}

/// The recogniser's width for a line: its own at [`LINE_HEIGHT`], rounded up.
fn line_width(size: Size) -> u32 {
    let width = tensor::scaled_line_width(size, LINE_WIDTH_MAX);
    width.next_multiple_of(LINE_WIDTH_STEP).max(LINE_WIDTH_MIN)
}

/// Runs a model that has one input and one output.
fn run(
    session: &mut Session,
    canvas: &Canvas,
    stage: &'static str,
    cancel: &Cancel,
) -> Result<ndarray::ArrayD<f32>, RunError> {
    let input = TensorRef::from_array_view(canvas.values()).map_err(failed(stage))?;
    let outputs = run_session(session, stage, ort::inputs!["x" => input], cancel)?;
    let output = outputs[0].try_extract_array::<f32>().map_err(failed(stage))?;
    Ok(output.into_owned())
}

fn wrong(stage: &'static str, shape: &[usize]) -> RunError {
    RunError::Shape { stage, shape: shape.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_s_width_depends_on_itself_only_and_is_bounded() {
        assert_eq!(line_width((100, 48).into()), 320);
        assert_eq!(line_width((321, 48).into()), 480);
        assert_eq!(line_width((1000, 96).into()), 640);
        assert_eq!(line_width((30_000, 10).into()), 3_200);
    }

    #[test]
    fn every_width_of_a_line_has_one_of_the_few() {
        let few = Recognisers::Few(Vec::new());
        for (line, width) in
            [((100, 48), 320), ((321, 48), 640), ((641, 48), 1_280), ((30_000, 10), 3_200)]
        {
            assert_eq!(few.width(line.into()), width);
            assert!(few.together(width) >= 2);
        }
    }
}
