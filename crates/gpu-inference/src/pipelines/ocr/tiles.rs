//! Long pictures in parts: as a whole they would be shrunk until their letters cannot be read.
//!
//! The parts overlap, so that each line is whole in one of them, or in a chain of them where lines run along the picture.

use std::borrow::Cow;

use image::{RgbImage, imageops};

use super::boxes::{Corners, bounds, distance};
use crate::size::{Offset, Size};

/// A picture longer than this times its other side has parts …
const ASPECT_MAX: u32 = 5;
/// … unless it is short enough to be looked at as it is.
const LENGTH_MAX: u32 = 3_000;
/// A part's length, if its other side is not longer.
const TILE_LENGTH_MIN: u32 = 2_000;
/// The shortest overlap: higher than a line of text in a narrow picture.
const OVERLAP_MIN: u32 = 64;
/// Nearer than this to the edge of a part, a box may go on behind it.
const EDGE: f32 = 3.0;
/// Two boxes of neighbouring parts are of one line if they share this much of the smaller one.
const SHARED_MIN: f32 = 0.5;
/// A part whose channels each span no more than this has nothing that could be read.
const CONTRAST_MIN: u8 = 12;

/// The side along which a picture has its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Along {
    Width,
    Height,
}

/// The parts of a page.
#[derive(Debug)]
pub(super) struct Tiles {
    along: Along,
    starts: Vec<u32>,
    /// Of each part.
    pub(super) size: Size,
    page: Size,
}

impl Tiles {
    pub(super) fn of(page: Size) -> Self {
        let (long, short) = (page.long_side(), page.width.min(page.height));
        let along = if page.width > page.height { Along::Width } else { Along::Height };
        if long <= LENGTH_MAX || long <= ASPECT_MAX * short {
            return Self { along, starts: vec![0], size: page, page };
        }
        let length = TILE_LENGTH_MIN.max(short);
        let overlap = (short / 2).min(length / 4).max(OVERLAP_MIN);
        let count = (long - overlap).div_ceil(length - overlap).max(2);
        // Evenly spread, so that all parts have one size.
        let start = |index: u32| {
            let start = u64::from(long - length) * u64::from(index) / u64::from(count - 1);
            u32::try_from(start).expect("within the page")
        };
        let size = match along {
            Along::Width => Size { width: length, height: short },
            Along::Height => Size { width: short, height: length },
        };
        Self { along, starts: (0..count).map(start).collect(), size, page }
    }

    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }

    fn offset(&self, index: usize) -> Offset {
        let start = self.starts[index];
        match self.along {
            Along::Width => Offset { left: start, top: 0 },
            Along::Height => Offset { left: 0, top: start },
        }
    }

    /// A part's pixels; none if nothing in it can be read.
    pub(super) fn picture<'a>(
        &self,
        page: &'a RgbImage,
        index: usize,
    ) -> Option<Cow<'a, RgbImage>> {
        if self.count() == 1 {
            return Some(Cow::Borrowed(page));
        }
        let (Offset { left, top }, Size { width, height }) = (self.offset(index), self.size);
        let part = imageops::crop_imm(page, left, top, width, height).to_image();
        (!is_blank(&part)).then_some(Cow::Owned(part))
    }

    /// The boxes of all parts on the page, each line's once.
    pub(super) fn joined(&self, of_parts: Vec<Vec<Corners>>) -> Vec<Corners> {
        let (mut joined, mut open): (Vec<Corners>, Vec<Piece>) = (Vec::new(), Vec::new());
        for (index, boxes) in of_parts.into_iter().enumerate() {
            let mut pieces: Vec<Piece> =
                boxes.into_iter().map(|corners| self.piece(index, corners)).collect();
            for piece in open.drain(..) {
                if !piece.join_with(&mut pieces, self.along) {
                    joined.push(piece.corners);
                }
            }
            open = pieces;
        }
        joined.extend(open.into_iter().map(|piece| piece.corners));
        joined
    }

    /// A box of a part, on the page.
    fn piece(&self, index: usize, corners: Corners) -> Piece {
        let Offset { left, top } = self.offset(index);
        let [low, high] = range(&corners, self.along);
        let (length, page) = match self.along {
            Along::Width => (self.size.width, self.page.width),
            Along::Height => (self.size.height, self.page.height),
        };
        let inner_start = index > 0;
        let inner_end = self.starts[index] + length < page;
        Piece {
            corners: corners.map(|[x, y]| [x + left as f32, y + top as f32]),
            cut_at_start: inner_start && low < EDGE,
            cut_at_end: inner_end && high > length as f32 - EDGE,
        }
    }
}

/// A box that may go on in the part before or behind.
#[derive(Debug, Clone, Copy)]
struct Piece {
    corners: Corners,
    cut_at_start: bool,
    cut_at_end: bool,
}

impl Piece {
    /// Becomes one with the pieces of the next part that are of the same line; false if none is.
    fn join_with(&self, next: &mut Vec<Piece>, along: Along) -> bool {
        let Some(first) = next.iter().position(|other| self.is_line_of(other, along)) else {
            return false;
        };
        let joined = self.joined(&next[first], along);
        next[first] = joined;
        let mut index = 0;
        next.retain(|other| {
            index += 1;
            index == first + 1 || shared(&joined.corners, &other.corners) <= SHARED_MIN
        });
        true
    }

    fn is_line_of(&self, other: &Self, along: Along) -> bool {
        if shared(&self.corners, &other.corners) > SHARED_MIN {
            return true;
        }
        let across = if along == Along::Width { Along::Height } else { Along::Width };
        let beside = |direction: Along| {
            overlap(range(&self.corners, direction), range(&other.corners, direction))
        };
        // The edge of a part may lie between two words: the boxes end there, and have seen some of the same line.
        let (low, high) = (range(&self.corners, along), range(&other.corners, along));
        let height = |piece: &Self| extent(range(&piece.corners, across));
        let in_both = low[1].min(high[1]) - low[0].max(high[0]);
        let goes_on =
            self.cut_at_end && other.cut_at_start || in_both > height(self).min(height(other));
        goes_on && beside(along) > 0.0 && beside(across) > SHARED_MIN
    }

    fn joined(&self, other: &Self, along: Along) -> Self {
        let is_part = shared(&self.corners, &other.corners) > SHARED_MIN;
        match (self.cut_at_end, other.cut_at_start) {
            cuts if !is_part || cuts == (true, true) => self.followed_by(other, along),
            (true, _) => *other,
            (false, true) => Self { cut_at_end: false, ..*self },
            (false, false) if area(&self.corners) > area(&other.corners) => *self,
            (false, false) => *other,
        }
    }

    /// From the beginning of this piece to the end of the other one.
    fn followed_by(&self, other: &Self, along: Along) -> Self {
        let ([a, b, _, d], [_, f, g, h]) = (self.corners, other.corners);
        let corners = if along == Along::Width { [a, f, g, d] } else { [a, b, g, h] };
        Self { corners, cut_at_start: self.cut_at_start, cut_at_end: other.cut_at_end }
    }
}

fn range(corners: &Corners, along: Along) -> [f32; 2] {
    let ([left, top], [right, bottom]) = bounds(corners);
    if along == Along::Width { [left, right] } else { [top, bottom] }
}

fn extent(range: [f32; 2]) -> f32 {
    range[1] - range[0]
}

/// How much of the shorter range lies in the other.
fn overlap(a: [f32; 2], b: [f32; 2]) -> f32 {
    let shared = a[1].min(b[1]) - a[0].max(b[0]);
    shared.max(0.0) / (a[1] - a[0]).min(b[1] - b[0]).max(1.0)
}

/// How much of the smaller box lies in the other.
fn shared(a: &Corners, b: &Corners) -> f32 {
    let of = |along| {
        let (a, b) = (range(a, along), range(b, along));
        (a[1].min(b[1]) - a[0].max(b[0])).max(0.0)
    };
    let area = |corners: &Corners| {
        let ([left, top], [right, bottom]) = bounds(corners);
        (right - left) * (bottom - top)
    };
    of(Along::Width) * of(Along::Height) / area(a).min(area(b)).max(1.0)
}

fn area(corners: &Corners) -> f32 {
    distance(corners[0], corners[1]) * distance(corners[0], corners[3])
}

fn is_blank(picture: &RgbImage) -> bool {
    let (mut low, mut high) = ([u8::MAX; 3], [0; 3]);
    for row in picture.rows() {
        for pixel in row {
            for (channel, &value) in pixel.0.iter().enumerate() {
                low[channel] = low[channel].min(value);
                high[channel] = high[channel].max(value);
            }
        }
        if low.iter().zip(high).any(|(low, high)| high.saturating_sub(*low) > CONTRAST_MIN) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(left: f32, top: f32, width: f32, height: f32) -> Corners {
        let (right, bottom) = (left + width, top + height);
        [[left, top], [right, top], [right, bottom], [left, bottom]]
    }

    #[test]
    fn parts_cover_a_long_page_and_overlap_and_others_have_none() {
        for page in [(800, 736), (1_080, 5_000), (2_900, 60), (9_000, 11_000), (1, 1)] {
            assert_eq!(Tiles::of(page.into()).count(), 1, "{page:?}");
        }
        for page in [(450, 10_000), (900, 20_000), (20_000, 420), (30_000, 1), (5_000, 30_000)] {
            let tiles = Tiles::of(page.into());
            let (length, long) = (tiles.size.long_side(), page.0.max(page.1));
            let short = page.0.min(page.1);
            assert_eq!((tiles.starts[0], *tiles.starts.last().unwrap()), (0, long - length));
            let overlap_min = OVERLAP_MIN.max((short / 2).min(length / 4));
            for pair in tiles.starts.windows(2) {
                assert!(pair[1] + overlap_min <= pair[0] + length, "{page:?}: {pair:?}");
            }
            assert!(tiles.count() <= 20, "{page:?}: {}", tiles.count());
        }
    }

    #[test]
    fn a_line_in_the_overlap_is_there_once_and_whole() {
        let tiles = Tiles::of((450, 4_000).into());
        let second = tiles.starts[1] as f32;
        let end = tiles.size.height as f32;
        // Whole in both, cut by the first's end, cut by the second's start, and one that only the first has.
        let (both, cut_first, cut_second) = (second + 60.0, end - 20.0, second - 20.0);
        let first = vec![
            at(20.0, both, 300.0, 40.0),
            at(20.0, cut_first, 300.0, 20.0),
            at(20.0, cut_second, 300.0, 40.0),
            at(20.0, 100.0, 300.0, 40.0),
        ];
        let then = vec![
            at(21.0, 60.0, 299.0, 41.0),
            at(20.0, cut_first - second, 300.0, 40.0),
            at(20.0, 0.0, 300.0, 20.0),
        ];
        let mut parts = vec![Vec::new(); tiles.count()];
        (parts[0], parts[1]) = (first, then);
        let mut tops: Vec<(f32, f32)> = tiles
            .joined(parts)
            .iter()
            .map(|corners| (corners[0][1], corners[3][1] - corners[0][1]))
            .collect();
        tops.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(tops.len(), 4, "{tops:?}");
        assert_eq!(tops[0], (100.0, 40.0));
        assert_eq!(tops[1], (cut_second, 40.0));
        assert!((tops[2].0 - both).abs() < 2.0);
        assert_eq!(tops[3], (cut_first, 40.0));
    }

    #[test]
    fn a_line_along_a_wide_page_is_one() {
        let tiles = Tiles::of((6_000, 100).into());
        let length = tiles.size.width as f32;
        let parts = (0..tiles.count()).map(|_| vec![at(0.0, 30.0, length, 40.0)]).collect();
        assert_eq!(tiles.joined(parts), [at(0.0, 30.0, 6_000.0, 40.0)]);
        // Two words side by side, of which the second part saw one box.
        let start = tiles.starts[1] as f32;
        let mut parts = vec![Vec::new(); tiles.count()];
        parts[0] = vec![at(start + 5.0, 30.0, 20.0, 40.0), at(start + 30.0, 30.0, 20.0, 40.0)];
        parts[1] = vec![at(5.0, 30.0, 45.0, 40.0)];
        assert_eq!(tiles.joined(parts), [at(start + 5.0, 30.0, 45.0, 40.0)]);
        // A line that goes on behind the overlap, where the edges lie between two words, and another one above it.
        let (first, second) = (length - 12.0, 15.0);
        let mut parts = vec![Vec::new(); tiles.count()];
        parts[0] = vec![at(100.0, 50.0, first - 100.0, 40.0), at(100.0, 5.0, first - 100.0, 38.0)];
        parts[1] = vec![at(second, 50.0, 1_500.0, 40.0)];
        let joined = tiles.joined(parts);
        assert!(joined.contains(&at(100.0, 50.0, start + second + 1_400.0, 40.0)), "{joined:?}");
        assert_eq!(joined.len(), 2);
    }
}
