//! How many shapes of input the models see.
//!
//! cuDNN plans anew whenever a session sees another shape than before: 0.7 s for a page that then takes 10 ms. So on a GPU there are a few
//! shapes, each with a session of its own. A processor plans nothing, and pays for padding.

use super::tensor::{Placement, scaled_line_width};
use crate::size::Size;

/// Lines a call of the line models (PP-OCR's own number).
const LINES_MAX: usize = 6;
/// Lines are padded to multiples of this, so that many share a shape.
const LINE_WIDTH_STEP: u32 = 160;
/// PP-OCR's own narrowest input of the recogniser.
const LINE_WIDTH_MIN: u32 = 320;
/// A longer line is read in parts: 66 times as wide as high.
pub(super) const LINE_WIDTH_MAX: u32 = 3_200;
/// Most pixels of a line's width times lines in a call of the recogniser on a processor, whose output has 18,710 numbers for each 8 of them.
const LINES_WIDTH_MAX: u32 = 6 * 1_280;

/// Where shapes are few: the widths of lines, with the lines of a call.
const FEW_WIDTHS: [(u32, usize); 7] =
    [(320, 24), (640, 16), (960, 10), (1_280, 8), (1_600, 8), (2_080, 6), (LINE_WIDTH_MAX, 4)];
/// … the numbers of parts of lines that are looked at together for which way up they are,
const FEW_VIEWS: [usize; 2] = [32, 128];
/// … and the squares that the detector's canvas is made of.
const FEW_CANVAS_STEP: u32 = 256;

/// Whether each line and page has a shape of its own, or one of a few with more padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shapes {
    Own,
    Few,
}

impl Shapes {
    /// Most shapes of lines where they are few.
    pub(super) const WIDTHS_MAX: usize = FEW_WIDTHS.len();
    /// Most shapes of parts of lines where they are few.
    pub(super) const VIEWS_MAX: usize = FEW_VIEWS.len();

    /// Where a page or a part of one lies on the detector's canvas.
    pub(super) fn placement(self, page: Size) -> Placement {
        match self {
            Self::Own => Placement::of(page),
            Self::Few => Placement::in_steps(page, FEW_CANVAS_STEP),
        }
    }

    /// The width that a line is padded to for the recogniser. It depends on nothing but the line.
    pub(super) fn line_width(self, line: Size) -> u32 {
        let width = scaled_line_width(line, LINE_WIDTH_MAX);
        let own = width.next_multiple_of(LINE_WIDTH_STEP).max(LINE_WIDTH_MIN);
        match self {
            Self::Own => own,
            Self::Few => few_width(own).0,
        }
    }

    /// Most lines of a width in one call of the recogniser.
    pub(super) fn lines_together(self, width: u32) -> usize {
        match self {
            Self::Own => LINES_MAX.min((LINES_WIDTH_MAX / width) as usize),
            Self::Few => few_width(width).1,
        }
    }

    /// The rows of a call of the recogniser for a number of lines.
    pub(super) fn line_rows(self, width: u32, lines: usize) -> usize {
        match self {
            Self::Own => lines,
            Self::Few => few_width(width).1,
        }
    }

    /// The rows of the next call of the angle model, where a number of parts of lines is left.
    pub(super) fn view_rows(self, left: usize) -> usize {
        match self {
            Self::Own => left.min(LINES_MAX),
            Self::Few => {
                let [.., most] = FEW_VIEWS;
                FEW_VIEWS.into_iter().find(|rows| *rows >= left).unwrap_or(most)
            }
        }
    }
}

/// The least of the few widths that is enough, with its lines.
fn few_width(own: u32) -> (u32, usize) {
    let [.., widest] = FEW_WIDTHS;
    FEW_WIDTHS.into_iter().find(|(width, _)| *width >= own).unwrap_or(widest)
}

#[cfg(test)]
mod tests {
    use super::super::LINE_HEIGHT;
    use super::*;

    #[test]
    fn a_line_s_width_depends_on_itself_only_and_is_bounded() {
        let width = |line: (u32, u32)| Shapes::Own.line_width(line.into());
        assert_eq!(
            [(100, 48), (321, 48), (1000, 96), (30_000, 10)].map(width),
            [320, 480, 640, 3_200]
        );
    }

    #[test]
    fn every_width_of_a_line_has_one_of_the_few() {
        for width in 1..4_000 {
            let line = Size { width, height: LINE_HEIGHT };
            let (own, few) = (Shapes::Own.line_width(line), Shapes::Few.line_width(line));
            assert!(few >= own && few < 2 * own, "{width}: {own}, {few}");
            assert!(Shapes::Few.lines_together(few) >= 2);
            assert_eq!(Shapes::Few.line_rows(few, 1), Shapes::Few.lines_together(few));
            assert_eq!(Shapes::Own.line_rows(own, 1), 1);
        }
    }

    #[test]
    fn parts_of_lines_come_in_few_numbers() {
        let rows = |left| Shapes::Few.view_rows(left);
        assert_eq!([1, 32, 33, 128, 500].map(rows), [32, 32, 128, 128, 128]);
        assert_eq!([1, 500].map(|left| Shapes::Own.view_rows(left)), [1, 6]);
    }
}
