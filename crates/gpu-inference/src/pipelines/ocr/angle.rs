//! Which way up a line is.

use image::RgbImage;
use rayon::prelude::*;

use super::sessions::{Kept, Sessions};
use super::shapes::Shapes;
use super::tensor::Canvas;
use super::{LINES, float, lines, run, wrong};
use crate::models::{DimSpec, IoName, ModelError, Opener};
use crate::run::{Cancel, RunError, failed};

const ROLE: &str = "angle";
const STAGE: &str = "text angle";
/// Width of a line for the model.
pub(super) const WIDTH: u32 = 192;

pub(super) struct Angle {
    sessions: Sessions,
    shapes: Shapes,
    turn_score_min: f32,
    canvas: Canvas,
}

impl Angle {
    pub(super) fn open(
        opener: &mut Opener<'_>,
        shapes: Shapes,
        turn_score_min: f32,
    ) -> Result<Self, ModelError> {
        const TURNED: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(2)];
        let (input, output) = (float(IoName::Is("x"), LINES), float(IoName::Only, TURNED));
        let first = opener.session(ROLE, &[input], &[output])?;
        let sessions =
            Sessions::new(opener, (ROLE, STAGE), first, (shapes, Kept::Shapes(Shapes::VIEWS_MAX)))?;
        Ok(Self { sessions, shapes, turn_score_min, canvas: Canvas::default() })
    }

    /// Which of the lines stand on their heads.
    pub(super) fn turned(
        &mut self,
        lines: &[&RgbImage],
        cancel: &Cancel,
    ) -> Result<Vec<bool>, RunError> {
        let numbered = lines.par_iter().enumerate();
        let views: Vec<(usize, RgbImage)> = numbered
            .flat_map_iter(|(line, picture)| lines::views(picture).map(move |view| (line, view)))
            .collect();
        let mut scores = vec![(0.0, 0.0); lines.len()];
        let mut left = &views[..];
        while !left.is_empty() {
            let rows = self.shapes.view_rows(left.len());
            let (now, rest) = left.split_at(rows.min(left.len()));
            for ((line, _), score) in now.iter().zip(self.scores(rows, now, cancel)?) {
                scores[*line].0 += score;
                scores[*line].1 += 1.0;
            }
            left = rest;
        }
        Ok(scores.into_iter().map(|(sum, count)| sum / count > self.turn_score_min).collect())
    }

    /// How likely each of the views is of a line on its head.
    fn scores(
        &mut self,
        rows: usize,
        views: &[(usize, RgbImage)],
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError> {
        let views: Vec<&RgbImage> = views.iter().map(|(_, view)| view).collect();
        self.canvas.draw_lines(rows, WIDTH, &views);
        let scores = run(self.sessions.of(self.canvas.shape())?, &self.canvas, STAGE, cancel)?;
        let scores = scores.try_extract_array::<f32>().map_err(failed(STAGE))?;
        if scores.shape() != [rows, 2] {
            return Err(wrong(STAGE, scores.shape()));
        }
        Ok(scores.outer_iter().take(views.len()).map(|score| score[1]).collect())
    }
}
