//! What a line says.

use std::collections::BTreeMap;

use image::RgbImage;

use super::best::BestOf;
use super::lines::Alphabet;
use super::sessions::{Kept, Sessions};
use super::shapes::Shapes;
use super::tensor::Canvas;
use super::{LINES, float};
use crate::models::{DimSpec, IoName, ModelError, Opener};
use crate::run::{Cancel, RunError};

pub(super) const ROLE: &str = "recognise";
pub(super) const STAGE: &str = "text recognition";

pub(super) struct Recogniser {
    sessions: Sessions,
    best: BestOf,
    alphabet: Alphabet,
}

/// A line's text and score.
pub(super) type Text = (String, f32);

impl Recogniser {
    pub(super) fn open(opener: &mut Opener<'_>, shapes: Shapes) -> Result<Self, ModelError> {
        const READ: &[DimSpec] = &[DimSpec::Free, DimSpec::Free, DimSpec::Own];
        let (input, output) = (float(IoName::Is("x"), LINES), float(IoName::Only, READ));
        let first = opener.session(ROLE, &[input], &[output])?;
        let alphabet =
            Alphabet::of(&first).map_err(|problem| opener.interface_mismatch(ROLE, problem))?;
        let sessions = Sessions::new(
            opener,
            (ROLE, STAGE),
            first,
            (shapes, Kept::Shapes(Shapes::WIDTHS_MAX)),
        )?;
        Ok(Self { sessions, best: BestOf::open(opener)?, alphabet })
    }

    /// The texts of the first `count` lines on the canvas.
    pub(super) fn read(
        &mut self,
        canvas: &Canvas,
        count: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Text>, RunError> {
        let session = self.sessions.of(canvas.shape())?;
        let columns = self.best.run(session, canvas, self.alphabet.len(), cancel)?;
        Ok((0..count).map(|line| self.alphabet.read(columns.of(line))).collect())
    }
}

/// Lines of one width that are read in one call, each with its number.
pub(super) struct Call {
    pub(super) width: u32,
    pub(super) lines: Vec<(usize, RgbImage)>,
}

/// Lines that wait for others of their width, whichever page these are from.
pub(super) struct Waiting {
    shapes: Shapes,
    by_width: BTreeMap<u32, Vec<(usize, RgbImage)>>,
}

impl Waiting {
    pub(super) fn new(shapes: Shapes) -> Self {
        Self { shapes, by_width: BTreeMap::new() }
    }

    /// Adds a line; a call, if it is full now.
    pub(super) fn add(&mut self, number: usize, line: RgbImage) -> Option<Call> {
        let width = self.shapes.line_width(line.dimensions().into());
        let waiting = self.by_width.entry(width).or_default();
        waiting.push((number, line));
        let full = waiting.len() >= self.shapes.lines_together(width);
        full.then(|| Call { width, lines: std::mem::take(waiting) })
    }

    /// Calls for the lines that are left.
    pub(super) fn rest(self) -> impl Iterator<Item = Call> {
        let left = self.by_width.into_iter().filter(|(_, lines)| !lines.is_empty());
        left.map(|(width, lines)| Call { width, lines })
    }
}
