//! Pages pass through six stages, each with a thread of its own, so that processor and GPU work at the same time: the detector looks at one
//! page while the lines of the page before are cut out, and those of an earlier one are read.
//!
//! ```text
//! draw ─► look ─► cut ─► turn ─► fill ─► read
//!  page    GPU    lines   GPU    lines    GPU
//! ```
//!
//! A stage's own work is spread over all processors. What waits between two stages is bounded.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{ScopedJoinHandle, scope};

use image::{RgbImage, imageops};
use rayon::prelude::*;

use super::angle::Angle;
use super::boxes::{self, Corners, Turn};
use super::detector::{Detector, Map};
use super::lines;
use super::recogniser::{Call, Recogniser, Text, Waiting};
use super::shapes::{LINE_WIDTH_MAX, Shapes};
use super::tensor::{Canvas, Canvases, Placement};
use super::tiles::Tiles;
use super::{OcrPipeline, OcrSettings};
use crate::run::{Cancel, RunError};

/// What waits between two stages, at most: a page, or a canvas with lines.
const WAITING_MAX: usize = 1;

/// A page, and the parts that the detector sees of it.
struct Sheet<'a> {
    picture: &'a RgbImage,
    tiles: Tiles,
    placement: Placement,
}

/// A part of a page: nothing, where it is blank.
struct Part<T> {
    page: usize,
    part: usize,
    content: Option<T>,
}

/// A line that was found and not yet read.
struct Found {
    corners: Corners,
    picture: RgbImage,
}

/// A page's lines, in the order in which they are read once they are upright.
struct Lines {
    page: usize,
    lines: Vec<Found>,
}

/// A line whose text is still to come.
struct Unread {
    page: usize,
    corners: Corners,
    height: u32,
    /// Of each part that it is read in: whether a space follows.
    spaced: Vec<bool>,
}

/// Parts of lines on a canvas, with their numbers.
struct Filled {
    numbers: Vec<usize>,
    canvas: Canvas,
}

/// What was read on a page.
pub(super) struct Read {
    /// The parts that it was looked at in, and how large they were then; 1 is their own size.
    pub(super) tiles: usize,
    pub(super) scale: f32,
    pub(super) lines: Vec<ReadLine>,
}

/// A line of a page; its height is that of its picture.
pub(super) struct ReadLine {
    pub(super) corners: Corners,
    pub(super) height: u32,
    pub(super) text: Text,
}

/// Reads pages. What is read on one does not depend on the others.
pub(super) fn read(
    pipeline: &mut OcrPipeline,
    pages: &[&RgbImage],
    cancel: &Cancel,
) -> Result<Vec<Read>, RunError> {
    let OcrPipeline { detector, angle, recogniser, settings, shapes, of_pages, of_lines } =
        pipeline;
    let (settings, shapes, of_pages, of_lines) = (&*settings, *shapes, &*of_pages, &*of_lines);
    let sheets: Vec<Sheet<'_>> = pages.iter().map(|page| Sheet::of(page, shapes)).collect();
    let sheets = &sheets[..];
    let (to_look, drawn) = sync_channel(WAITING_MAX);
    let (to_cut, seen) = sync_channel(WAITING_MAX);
    let (to_turn, lines) = sync_channel(WAITING_MAX);
    let (to_fill, upright) = sync_channel(WAITING_MAX);
    let (to_read, filled) = sync_channel(WAITING_MAX);
    let (unread, texts) = scope(|scope| {
        let draw = scope.spawn(move || draw_pages(sheets, of_pages, &to_look, cancel));
        let look = scope.spawn(move || look_at(detector, drawn, of_pages, &to_cut, cancel));
        let cut = scope.spawn(move || cut_out(sheets, settings, seen, &to_turn, cancel));
        let turn = scope.spawn(move || turn_upright(angle, lines, &to_fill, cancel));
        let fill = scope.spawn(move || fill(shapes, upright, of_lines, &to_read, cancel));
        let texts = read_lines(recogniser, filled, of_lines, cancel);
        // A stage that fails ends the others early: the first failure is the cause.
        joined(draw)?;
        joined(look)?;
        joined(cut)?;
        joined(turn)?;
        Ok::<_, RunError>((joined(fill)?, texts?))
    })?;
    Ok(assembled(sheets, unread, texts))
}

fn joined<T>(stage: ScopedJoinHandle<'_, T>) -> T {
    stage.join().unwrap_or_else(|panic| resume_unwind(panic))
}

impl<'a> Sheet<'a> {
    fn of(picture: &'a RgbImage, shapes: Shapes) -> Self {
        let tiles = Tiles::of(picture.dimensions().into());
        let placement = shapes.placement(tiles.size);
        Self { picture, tiles, placement }
    }
}

/// Draws each part of each page on a canvas.
fn draw_pages(
    sheets: &[Sheet<'_>],
    canvases: &Canvases,
    to_look: &SyncSender<Part<Canvas>>,
    cancel: &Cancel,
) -> Result<(), RunError> {
    for (page, sheet) in sheets.iter().enumerate() {
        for part in 0..sheet.tiles.count() {
            cancel.check()?;
            let content = sheet.tiles.picture(sheet.picture, part).map(|picture| {
                let mut canvas = canvases.take();
                canvas.draw_page(&picture, &sheet.placement);
                canvas
            });
            // No stage takes it where a later one has failed.
            if to_look.send(Part { page, part, content }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Has the detector look at each part.
fn look_at(
    detector: &mut Detector,
    drawn: Receiver<Part<Canvas>>,
    canvases: &Canvases,
    to_cut: &SyncSender<Part<Map>>,
    cancel: &Cancel,
) -> Result<(), RunError> {
    for Part { page, part, content } in drawn {
        let map = match content {
            Some(canvas) => {
                let map = detector.look(&canvas, cancel)?;
                canvases.give_back(canvas);
                Some(map)
            }
            None => None,
        };
        if to_cut.send(Part { page, part, content: map }).is_err() {
            break;
        }
    }
    Ok(())
}

/// Finds the boxes of each part, joins them to a page's, and cuts the lines out.
fn cut_out(
    sheets: &[Sheet<'_>],
    settings: &OcrSettings,
    seen: Receiver<Part<Map>>,
    to_turn: &SyncSender<Lines>,
    cancel: &Cancel,
) -> Result<(), RunError> {
    let mut of_parts = Vec::new();
    for Part { page, part, content } in seen {
        cancel.check()?;
        let Sheet { picture, tiles, placement } = &sheets[page];
        of_parts.push(match content {
            Some(map) => {
                let found = boxes::find(&map.values()?, settings);
                found.into_iter().filter_map(|corners| placement.to_page(corners)).collect()
            }
            None => Vec::new(),
        });
        if part + 1 < tiles.count() {
            continue;
        }
        let boxes = tiles.joined(std::mem::take(&mut of_parts)).into_par_iter();
        let lines = boxes.filter_map(|corners| {
            Some(Found { corners, picture: boxes::cut_out(picture, &corners)? })
        });
        if to_turn.send(Lines { page, lines: lines.collect() }).is_err() {
            break;
        }
    }
    Ok(())
}

/// Turns the lines of each page upright, and puts them in the order in which they are read.
fn turn_upright(
    angle: &mut Angle,
    cut: Receiver<Lines>,
    to_fill: &SyncSender<Lines>,
    cancel: &Cancel,
) -> Result<(), RunError> {
    for Lines { page, lines } in cut {
        let pictures: Vec<&RgbImage> = lines.iter().map(|line| &line.picture).collect();
        let turned = angle.turned(&pictures, cancel)?;
        let lines = in_reading_order(lines, &turned);
        if to_fill.send(Lines { page, lines }).is_err() {
            break;
        }
    }
    Ok(())
}

/// The lines of a page upright, and in the order in which they are read. Where most lines were turned, the page lies on its side or stands on its
/// head, and begins elsewhere than at its top left.
fn in_reading_order(lines: Vec<Found>, turned: &[bool]) -> Vec<Found> {
    let corners: Vec<Corners> = lines.iter().map(|line| line.corners).collect();
    let most = |count: usize| 2 * count > lines.len();
    let columns = most(corners.iter().filter(|corners| boxes::is_column(corners)).count());
    let on_heads = most(turned.iter().filter(|turned| **turned).count());
    let turn = match (columns, on_heads) {
        (false, false) => Turn::None,
        (false, true) => Turn::Half,
        (true, false) => Turn::ThreeQuarters,
        (true, true) => Turn::Quarter,
    };
    let mut lines: Vec<Option<Found>> = lines.into_iter().map(Some).collect();
    for (line, _) in lines.iter_mut().flatten().zip(turned).filter(|(_, turned)| **turned) {
        imageops::rotate180_in_place(&mut line.picture);
    }
    let order = boxes::reading_order(&corners, turn);
    order.into_iter().filter_map(|index| lines[index].take()).collect()
}

/// Draws lines of one width on a canvas as soon as they are enough for a call, whichever pages they are from, and at the end those that are left.
fn fill(
    shapes: Shapes,
    upright: Receiver<Lines>,
    canvases: &Canvases,
    to_read: &SyncSender<Filled>,
    cancel: &Cancel,
) -> Result<Vec<Unread>, RunError> {
    let hand_on = |Call { width, lines }: Call| {
        let pictures: Vec<&RgbImage> = lines.iter().map(|(_, picture)| picture).collect();
        let mut canvas = canvases.take();
        canvas.draw_lines(shapes.line_rows(width, lines.len()), width, &pictures);
        to_read.send(Filled { numbers: lines.iter().map(|(number, _)| *number).collect(), canvas })
    };
    let (mut unread, mut waiting, mut numbers) = (Vec::new(), Waiting::new(shapes), 0..);
    for Lines { page, lines } in upright {
        for Found { corners, picture } in lines {
            cancel.check()?;
            let height = picture.height();
            let parts = lines::parts(picture, LINE_WIDTH_MAX);
            let spaced = parts.iter().map(|part| part.spaced).collect();
            unread.push(Unread { page, corners, height, spaced });
            for (part, number) in parts.into_iter().zip(&mut numbers) {
                if waiting.add(number, part.picture).is_some_and(|call| hand_on(call).is_err()) {
                    return Ok(unread);
                }
            }
        }
    }
    // No stage takes them where reading has failed.
    let _ = waiting.rest().try_for_each(hand_on);
    Ok(unread)
}

/// Reads the lines on each canvas.
fn read_lines(
    recogniser: &mut Recogniser,
    filled: Receiver<Filled>,
    canvases: &Canvases,
    cancel: &Cancel,
) -> Result<Vec<(usize, Text)>, RunError> {
    let mut texts = Vec::new();
    for Filled { numbers, canvas } in filled {
        let read = recogniser.read(&canvas, numbers.len(), cancel)?;
        texts.extend(numbers.into_iter().zip(read));
        canvases.give_back(canvas);
    }
    Ok(texts)
}

/// Gives each page its lines, in their order.
fn assembled(
    sheets: &[Sheet<'_>],
    unread: Vec<Unread>,
    mut texts: Vec<(usize, Text)>,
) -> Vec<Read> {
    let empty = |sheet: &Sheet<'_>| Read {
        tiles: sheet.tiles.count(),
        scale: sheet.placement.scale(),
        lines: Vec::new(),
    };
    let mut pages: Vec<Read> = sheets.iter().map(empty).collect();
    texts.sort_unstable_by_key(|(number, _)| *number);
    let mut texts = texts.into_iter().map(|(_, text)| text);
    for Unread { page, corners, height, spaced } in unread {
        let of_line: Vec<Text> = texts.by_ref().take(spaced.len()).collect();
        let text = lines::joined(spaced.into_iter().zip(of_line));
        pages[page].lines.push(ReadLine { corners, height, text });
    }
    pages
}
