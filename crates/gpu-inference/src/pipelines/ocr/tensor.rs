//! Pictures as the models' input: scaled, padded, normalised, colours in the order blue, green, red.
//!
//! The sizes are RapidOCR's, except that very long pages are padded on either side, where it pads wide ones only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use image::RgbImage;
use ndarray::ArrayView4;
use rayon::prelude::*;

use super::LINE_HEIGHT;
use super::boxes::{Corners, clip};
use super::shapes::Shapes;
use super::tiles::Tiles;
use crate::preprocess::pixels::resize_quickly;
use crate::size::{Offset, Size};

/// The detector's canvas is made of such squares.
const CANVAS_STEP: u32 = 32;
/// Longest side of a page on the canvas before small ones are enlarged.
const SIDE_MAX: u32 = 2_000;
/// Shortest side of the canvas.
const SIDE_MIN: u32 = 736;
/// A page longer than this times its other side is padded, as is one thinner than [`THIN_SIDE`].
const ASPECT_MAX: u32 = 8;
const THIN_SIDE: u32 = 30;

/// Where a page lies on the detector's canvas.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placement {
    pub(super) canvas: Size,
    /// The page's corner on the canvas.
    offset: Offset,
    /// The page's size on the canvas.
    scaled: Size,
    page: Size,
}

/// The size of the canvas for a page or its parts, where there are few sizes: pages of one share a session, and its plan.
pub(crate) fn detection_size(page: Size) -> Size {
    Shapes::Few.placement(Tiles::of(page).size).canvas
}

impl Placement {
    /// As [`Placement::of`], on a canvas that is grey on the right and below up to multiples of `step`: pages of nearly one
    /// size get one canvas, and lie on it as they would on their own.
    pub(super) fn in_steps(page: Size, step: u32) -> Self {
        let mut placement = Self::of(page);
        let Size { width, height } = placement.canvas;
        placement.canvas =
            Size { width: width.next_multiple_of(step), height: height.next_multiple_of(step) };
        placement
    }

    pub(super) fn of(page: Size) -> Self {
        let padded = Size {
            width: padded_side(page.width, page.height),
            height: padded_side(page.height, page.width),
        };
        let (long, short) = (padded.long_side(), padded.width.min(padded.height));
        let shrink = (f64::from(SIDE_MAX) / f64::from(long)).min(1.0);
        let scale = shrink * (f64::from(SIDE_MIN) / (f64::from(short) * shrink)).max(1.0);
        let canvas = Size {
            width: round_side(padded.width, scale),
            height: round_side(padded.height, scale),
        };
        let fit = |side: u32, padded: u32, canvas: u32| {
            let share = f64::from(side) / f64::from(padded);
            whole(share * f64::from(canvas)).clamp(1, canvas)
        };
        let scaled = Size {
            width: fit(page.width, padded.width, canvas.width),
            height: fit(page.height, padded.height, canvas.height),
        };
        let offset = Offset {
            left: (canvas.width - scaled.width) / 2,
            top: (canvas.height - scaled.height) / 2,
        };
        Self { canvas, offset, scaled, page }
    }

    /// How large the page is on the canvas; 1 is its own size.
    pub(super) fn scale(&self) -> f32 {
        self.scaled.width as f32 / self.page.width as f32
    }

    /// Maps a box on the canvas to the page; `None` if it is too small or outside.
    pub(super) fn to_page(&self, corners: Corners) -> Option<Corners> {
        let axis = |value: f32, offset: u32, scaled: u32, page: u32| {
            (value - offset as f32) * page as f32 / scaled as f32
        };
        let (offset, scaled, page) = (self.offset, self.scaled, self.page);
        let map = |[x, y]: [f32; 2]| {
            [
                axis(x, offset.left, scaled.width, page.width),
                axis(y, offset.top, scaled.height, page.height),
            ]
        };
        clip(corners.map(map), page)
    }
}

/// How many pictures of which size: what a model plans for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) count: usize,
    pub(super) size: Size,
}

/// A batch of pictures of one size, as a model takes it. It is drawn on again for the next: 25 MB for a page are slow to get from the system.
#[derive(Default)]
pub(super) struct Canvas {
    values: Vec<f32>,
    shape: Shape,
}

impl Canvas {
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn values(&self) -> ArrayView4<'_, f32> {
        let Shape { count, size: Size { width, height } } = self.shape;
        let sides = (count, 3, height as usize, width as usize);
        ArrayView4::from_shape(sides, &self.values).expect("as many as the shape has")
    }

    /// Becomes one page where its placement says.
    pub(super) fn draw_page(&mut self, page: &RgbImage, placement: &Placement) {
        self.reshape(Shape { count: 1, size: placement.canvas });
        let page = resize_quickly(page, placement.scaled);
        draw(&mut self.values, placement.canvas, Some(&page), placement.offset);
    }

    /// Becomes lines at the left, each as wide as its shape makes it, and below them empty ones up to `count`.
    pub(super) fn draw_lines(&mut self, count: usize, width: u32, lines: &[&RgbImage]) {
        debug_assert!(lines.len() <= count);
        let size = Size { width, height: LINE_HEIGHT };
        self.reshape(Shape { count, size });
        let pictures = self.values.par_chunks_exact_mut(channel_length(size) * 3).enumerate();
        pictures.for_each(|(row, values)| {
            let line = lines.get(row).map(|line| {
                let width = scaled_line_width(line.dimensions().into(), width);
                resize_quickly(line, Size { width, height: LINE_HEIGHT })
            });
            draw(values, size, line.as_ref(), Offset { left: 0, top: 0 });
        });
    }

    /// What was drawn is left in parts: every value is to be written after this.
    fn reshape(&mut self, shape: Shape) {
        self.values.resize(shape.count * 3 * channel_length(shape.size), 0.0);
        self.shape = shape;
    }
}

/// Canvases that are not in use. They are few: a stage that draws waits where the next has enough.
#[derive(Default)]
pub(super) struct Canvases(Mutex<Vec<Canvas>>);

impl Canvases {
    pub(super) fn take(&self) -> Canvas {
        self.spare().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, canvas: Canvas) {
        self.spare().push(canvas);
    }

    /// A stage that panicked has left it as it was.
    fn spare(&self) -> MutexGuard<'_, Vec<Canvas>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn channel_length(size: Size) -> usize {
    size.width as usize * size.height as usize
}

/// Writes the planes (blue, green, red) of a picture at `offset`. Around it they are zeros, which the models take as empty.
fn draw(planes: &mut [f32], size: Size, picture: Option<&RgbImage>, offset: Offset) {
    const HALF: f32 = 127.5;
    let levels: [f32; 256] = std::array::from_fn(|byte| byte as f32 / HALF - 1.0);
    let (height, left) = (size.height as usize, offset.left as usize);
    let row_of = |y: usize| {
        let (picture, y) = (picture?, y.checked_sub(offset.top as usize)?);
        let length = picture.width() as usize * 3;
        picture.as_raw().get(y * length..(y + 1) * length)
    };
    planes.par_chunks_exact_mut(size.width as usize).enumerate().for_each(|(line, target)| {
        let (channel, y) = (2 - line / height, line % height);
        let row = row_of(y).unwrap_or_default();
        let (before, rest) = target.split_at_mut(left);
        let (inside, after) = rest.split_at_mut(row.len() / 3);
        before.fill(0.0);
        for (target, pixel) in inside.iter_mut().zip(row.chunks_exact(3)) {
            *target = levels[usize::from(pixel[channel])];
        }
        after.fill(0.0);
    });
}

/// The width of a line that is scaled to [`LINE_HEIGHT`].
pub(super) fn scaled_line_width(line: Size, width_max: u32) -> u32 {
    let scaled = u64::from(line.width * LINE_HEIGHT).div_ceil(u64::from(line.height));
    u32::try_from(scaled).unwrap_or(width_max).clamp(1, width_max)
}

/// A side with the padding that keeps `other` from being too long beside it.
fn padded_side(side: u32, other: u32) -> u32 {
    let thin = side <= THIN_SIDE || u64::from(other) > u64::from(side) * u64::from(ASPECT_MAX);
    if thin { (2 * (other / ASPECT_MAX).max(THIN_SIDE)).max(side) } else { side }
}

fn round_side(side: u32, scale: f64) -> u32 {
    let steps = (f64::from(side) * scale).floor() / f64::from(CANVAS_STEP);
    whole(steps).max(1) * CANVAS_STEP
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a picture's side")]
fn whole(value: f64) -> u32 {
    value.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canvas_is_bounded_and_a_multiple_of_32_for_every_page() {
        for page in [(1, 1), (1, 30_000), (30_000, 1), (384, 191), (30_000, 3_000), (9_000, 11_000)]
        {
            let Size { width, height } = Placement::of(Tiles::of(page.into()).size).canvas;
            assert_eq!((width % 32, height % 32), (0, 0), "{page:?}");
            assert!(
                u64::from(width) * u64::from(height) <= 6_000_000,
                "{page:?}: {width} x {height}"
            );
            let short = width.min(height);
            assert!(short >= 736 - 16, "{page:?}: {width} x {height}");
        }
        assert_eq!(Placement::of((1000, 800).into()).canvas, (992, 800).into());
        assert_eq!(detection_size((1000, 800).into()), (1024, 1024).into());
    }

    #[test]
    fn a_canvas_in_steps_has_the_page_where_its_own_has_it() {
        for page in [(1000, 800), (3000, 200), (384, 191)] {
            let (own, shared) = (Placement::of(page.into()), Placement::in_steps(page.into(), 256));
            assert_eq!((own.offset, own.scaled), (shared.offset, shared.scaled));
            assert_eq!((shared.canvas.width % 256, shared.canvas.height % 256), (0, 0));
            assert!(
                own.canvas.width <= shared.canvas.width
                    && own.canvas.height <= shared.canvas.height
            );
        }
    }

    #[test]
    fn boxes_come_back_to_where_they_were_on_the_page() {
        for page in [(1000, 800), (3000, 200), (384, 191)] {
            let placement = Placement::of(page.into());
            let (offset, scaled) = (placement.offset, placement.scaled);
            let at = |x: f32, y: f32| {
                [
                    offset.left as f32 + x * scaled.width as f32,
                    offset.top as f32 + y * scaled.height as f32,
                ]
            };
            let corners = [at(0.25, 0.25), at(0.75, 0.25), at(0.75, 0.5), at(0.25, 0.5)];
            let [[left, top], _, [right, bottom], _] = placement.to_page(corners).unwrap();
            let expected = [
                page.0 as f32 * 0.25,
                page.1 as f32 * 0.25,
                page.0 as f32 * 0.75,
                page.1 as f32 * 0.5,
            ];
            for (found, expected) in [left, top, right, bottom].into_iter().zip(expected) {
                assert!((found - expected).abs() <= 1.0, "{page:?}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn pixels_become_blue_green_red_planes_from_minus_one_to_one() {
        let mut planes = [7.0; 3 * 2 * 3];
        let picture = RgbImage::from_pixel(1, 1, image::Rgb([255, 0, 51]));
        draw(&mut planes, (3, 2).into(), Some(&picture), Offset { left: 1, top: 1 });
        let expected: [(usize, f32); 3] = [(4, -0.6), (10, -1.0), (16, 1.0)];
        for (index, value) in planes.into_iter().enumerate() {
            let drawn = expected.iter().find(|(at, _)| *at == index);
            let expected = drawn.map_or(0.0, |(_, value)| *value);
            assert!((value - expected).abs() < 1e-6, "{index}: {value}");
        }
    }

    #[test]
    fn nothing_of_what_was_drawn_before_is_left() {
        let white = RgbImage::from_pixel(900, 800, image::Rgb([255; 3]));
        let line = RgbImage::from_pixel(50, 24, image::Rgb([9; 3]));
        let lines = |canvas: &mut Canvas| canvas.draw_lines(3, 320, &[&line]);
        let page = |canvas: &mut Canvas| {
            canvas.draw_page(&line, &Placement::in_steps((50, 24).into(), 256));
        };
        for draw in [&lines as &dyn Fn(&mut Canvas), &page] {
            let (mut used, mut fresh) = (Canvas::default(), Canvas::default());
            used.draw_page(&white, &Placement::of((900, 800).into()));
            draw(&mut used);
            draw(&mut fresh);
            assert_eq!(used.shape(), fresh.shape());
            assert_eq!(used.values(), fresh.values());
        }
    }
}
