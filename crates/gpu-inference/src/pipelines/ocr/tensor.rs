//! Pictures as the models' input: scaled, padded, normalised, colours in the order blue, green, red.
//!
//! The sizes are RapidOCR's, except that very long pages are padded on either side, where it pads wide ones only.

use image::RgbImage;
use ndarray::Array4;

use super::LINE_HEIGHT;
use super::boxes::{Corners, clip};
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

/// The size of the canvas for a page or its parts: pages of the same can share a call.
pub(crate) fn detection_size(page: Size) -> Size {
    Placement::of(Tiles::of(page).size).canvas
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

/// A batch of pictures of one size, as a model takes it.
pub(super) struct Canvas {
    values: Array4<f32>,
}

impl Canvas {
    /// Grey pictures: zeros, which the models take as empty.
    pub(super) fn new(count: usize, size: Size) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        Self { values: Array4::zeros((count, 3, height, width)) }
    }

    pub(super) fn values(&self) -> &Array4<f32> {
        &self.values
    }

    /// Puts a page where its placement says.
    pub(super) fn draw_page(&mut self, row: usize, page: &RgbImage, placement: &Placement) {
        self.draw(row, &resize_quickly(page, placement.scaled), placement.offset);
    }

    /// Puts a line at the left, as wide as its shape makes it.
    pub(super) fn draw_line(&mut self, row: usize, line: &RgbImage) {
        let width_max = u32::try_from(self.values.dim().3).expect("made from a u32");
        let width = scaled_line_width(line.dimensions().into(), width_max);
        let size = Size { width, height: LINE_HEIGHT };
        self.draw(row, &resize_quickly(line, size), Offset { left: 0, top: 0 });
    }

    fn draw(&mut self, row: usize, picture: &RgbImage, offset: Offset) {
        const HALF: f32 = 127.5;
        let (count, channels, height, width) = self.values.dim();
        debug_assert!(row < count && channels == 3);
        let values = self.values.as_slice_mut().expect("made in standard order");
        for (y, pixels) in picture.rows().enumerate() {
            for (channel, source) in [(0, 2), (1, 1), (2, 0)] {
                let line = (row * 3 + channel) * height + y + offset.top as usize;
                let target = &mut values[line * width + offset.left as usize..][..pixels.len()];
                for (target, pixel) in target.iter_mut().zip(pixels.clone()) {
                    *target = f32::from(pixel.0[source]) / HALF - 1.0;
                }
            }
        }
    }
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
            let Size { width, height } = detection_size(page.into());
            assert_eq!((width % 32, height % 32), (0, 0), "{page:?}");
            assert!(
                u64::from(width) * u64::from(height) <= 6_000_000,
                "{page:?}: {width} x {height}"
            );
            let short = width.min(height);
            assert!(short >= 736 - 16, "{page:?}: {width} x {height}");
        }
        assert_eq!(detection_size((1000, 800).into()), (992, 800).into());
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
        let mut canvas = Canvas::new(1, (3, 2).into());
        let picture = RgbImage::from_pixel(1, 1, image::Rgb([255, 0, 51]));
        canvas.draw(0, &picture, Offset { left: 1, top: 1 });
        let at = |channel| canvas.values()[[0, channel, 1, 1]];
        assert!((at(0) + 0.6).abs() < 1e-6);
        assert!((at(1) + 1.0).abs() < 1e-6 && (at(2) - 1.0).abs() < 1e-6);
        assert!(canvas.values()[[0, 0, 0, 0]].abs() < 1e-6);
    }
}
