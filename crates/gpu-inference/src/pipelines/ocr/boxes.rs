//! From the detector's map of probabilities to the corners of lines, and from corners to cut-out lines.
//!
//! PP-OCR's "differentiable binarisation" post-processing. Boxes are rectangles, turned or not, so growing one is
//! arithmetic and needs no polygon library.

use image::RgbImage;
use image::{GrayImage, imageops};
use imageproc::contours::{BorderType, find_contours};
use imageproc::definitions::Image;
use imageproc::geometric_transformations::{Border, Interpolation, Projection, warp_into};
use imageproc::geometry::convex_hull;
use imageproc::point::Point;
use ndarray::ArrayView2;
use rayon::prelude::*;

use super::OcrSettings;
use crate::size::Size;

/// Top left, top right, bottom right, bottom left, each as x, y.
pub(super) type Corners = [[f32; 2]; 4];

/// A thinner box on the map is noise.
const THICKNESS_MIN: f32 = 3.0;
/// The same after growing.
const GROWN_THICKNESS_MIN: f32 = 5.0;
/// A line must be longer and higher than this on the page.
const LINE_SIDE_MIN: f32 = 3.0;
/// A cut-out higher than this times its width is a line written downwards.
const UPRIGHT_ASPECT: f32 = 1.5;

/// A rectangle in any direction.
#[derive(Debug, Clone, Copy)]
struct Rectangle {
    centre: [f32; 2],
    /// Unit vector along the width; the height is at a right angle to it.
    along: [f32; 2],
    width: f32,
    height: f32,
}

/// The boxes of text on the map, in the map's own pixels.
pub(super) fn find(map: &ArrayView2<'_, f32>, settings: &OcrSettings) -> Vec<Corners> {
    let contours = find_contours::<i32>(&mask(map, settings.pixel_score_min));
    let outer = contours.iter().filter(|contour| contour.border_type == BorderType::Outer);
    let outer: Vec<_> = outer.take(settings.boxes_max).collect();
    let boxes = outer.into_par_iter().filter_map(|contour| {
        let tight = smallest_rectangle(&contour.points);
        if tight.thickness() < THICKNESS_MIN || tight.mean(map) < settings.box_score_min {
            return None;
        }
        let grown = tight.grown(settings.box_growth);
        (grown.thickness() >= GROWN_THICKNESS_MIN).then(|| from_top_left(grown.corners()))
    });
    boxes.collect()
}

/// Which way a page has to be turned for its text to stand upright, clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    None,
    Quarter,
    Half,
    ThreeQuarters,
}

impl Turn {
    /// A point of the page after the turn. Where the page's corner comes to lie is left out: the order of points does not depend on it.
    fn of(self, [x, y]: [f32; 2]) -> [f32; 2] {
        match self {
            Self::None => [x, y],
            Self::Quarter => [-y, x],
            Self::Half => [-x, -y],
            Self::ThreeQuarters => [y, -x],
        }
    }
}

/// The numbers of the boxes as they are read on the turned page: by rows from top to bottom, each from left to right.
pub(super) fn reading_order(boxes: &[Corners], turn: Turn) -> Vec<usize> {
    let turned: Vec<Corners> =
        boxes.iter().map(|corners| from_top_left(corners.map(|corner| turn.of(corner)))).collect();
    let middle = |index: usize| (turned[index][0][1] + turned[index][3][1]) / 2.0;
    let height = |index: usize| distance(turned[index][0], turned[index][3]);
    let left = |index: usize| turned[index][0][0];
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&a, &b| middle(a).total_cmp(&middle(b)));
    let mut start = 0;
    while start < order.len() {
        let first = order[start];
        let same_row =
            |&index: &usize| middle(index) - middle(first) < 0.5 * height(index).min(height(first));
        let length = order[start..].iter().take_while(|index| same_row(index)).count().max(1);
        order[start..start + length].sort_by(|&a, &b| left(a).total_cmp(&left(b)));
        start += length;
    }
    order
}

/// The least and the greatest x and y of a box.
pub(super) fn bounds(corners: &Corners) -> ([f32; 2], [f32; 2]) {
    let of = |pick: fn(f32, f32) -> f32| {
        corners.iter().copied().reduce(|a, b| [pick(a[0], b[0]), pick(a[1], b[1])])
    };
    (of(f32::min).unwrap_or_default(), of(f32::max).unwrap_or_default())
}

/// Keeps a box inside the page, on whole pixels; none if too little of it is left.
pub(super) fn clip(corners: Corners, page: Size) -> Option<Corners> {
    let inside = |value: f32, side: u32| value.round().clamp(0.0, side as f32);
    let corners = corners.map(|[x, y]| [inside(x, page.width), inside(y, page.height)]);
    let long_enough = distance(corners[0], corners[1]) > LINE_SIDE_MIN;
    let high_enough = distance(corners[0], corners[3]) > LINE_SIDE_MIN;
    (long_enough && high_enough).then_some(corners)
}

/// Whether a line is written downwards or upwards: it is laid down before it is read.
pub(super) fn is_column(corners: &Corners) -> bool {
    let [width, height] = sides(corners);
    height >= UPRIGHT_ASPECT * width
}

/// Width and height of a box in whole pixels.
fn sides([top_left, top_right, bottom_right, bottom_left]: &Corners) -> [f32; 2] {
    let width = distance(*top_left, *top_right).max(distance(*bottom_right, *bottom_left));
    let height = distance(*top_left, *bottom_left).max(distance(*top_right, *bottom_right));
    [width.floor(), height.floor()]
}

/// The line between the corners, turned so that it is wider than high. None if the corners are on one line.
pub(super) fn cut_out(page: &RgbImage, corners: &Corners) -> Option<RgbImage> {
    let [top_left, top_right, bottom_right, bottom_left] = *corners;
    let [width, height] = sides(corners);
    let size = Size { width: whole(width).max(1), height: whole(height).max(1) };
    let straight = top_left[1] == top_right[1] && bottom_left[1] == bottom_right[1];
    let straight = straight && top_left[0] == bottom_left[0] && top_right[0] == bottom_right[0];
    let line = if straight {
        let (left, top) = (whole(top_left[0]), whole(top_left[1]));
        imageops::crop_imm(page, left, top, size.width, size.height).to_image()
    } else {
        let from = corners.map(|[x, y]| (x, y));
        let to = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)];
        let projection = Projection::from_control_points(from, to)?;
        let mut line = Image::new(size.width, size.height);
        warp_into(page, projection, Interpolation::Bicubic, Border::Replicate, &mut line);
        line
    };
    Some(if is_column(corners) { imageops::rotate270(&line) } else { line })
}

/// The pixels above `threshold`, each grown to the right and down: a gap of one pixel does not part a line.
fn mask(map: &ArrayView2<'_, f32>, threshold: f32) -> GrayImage {
    let side = |length| u32::try_from(length).expect("the canvas is bounded");
    let (height, width) = map.dim();
    let mut mask = GrayImage::new(side(width), side(height));
    let mut above = vec![false; width];
    for (scores, row) in map.outer_iter().zip(mask.chunks_exact_mut(width)) {
        let mut left = false;
        for ((score, pixel), above) in scores.iter().zip(row).zip(&mut above) {
            let here = *score > threshold;
            let grown = here | std::mem::replace(&mut left, here);
            *pixel = if grown | std::mem::replace(above, grown) { u8::MAX } else { 0 };
        }
    }
    mask
}

/// The rectangle of least area around the points: one of its sides lies on an edge of their hull.
fn smallest_rectangle(points: &[Point<i32>]) -> Rectangle {
    let hull: Vec<[f32; 2]> =
        convex_hull(points).iter().map(|point| [point.x as f32, point.y as f32]).collect();
    let edges = hull.iter().zip(hull.iter().cycle().skip(1));
    let directions = edges.filter_map(|(a, b)| {
        let length = distance(*a, *b);
        (length > 0.0).then(|| [(b[0] - a[0]) / length, (b[1] - a[1]) / length])
    });
    let rectangles = directions.map(|along| Rectangle::around(&hull, along));
    rectangles
        .min_by(|a, b| (a.width * a.height).total_cmp(&(b.width * b.height)))
        .unwrap_or_else(|| Rectangle::around(&hull, [1.0, 0.0]))
}

impl Rectangle {
    fn around(points: &[[f32; 2]], along: [f32; 2]) -> Self {
        let range = |axis: [f32; 2]| {
            points.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &point| {
                let position = dot(point, axis);
                (low.min(position), high.max(position))
            })
        };
        let across = [-along[1], along[0]];
        let (u, v) = (range(along), range(across));
        let (middle_u, middle_v) = ((u.0 + u.1) / 2.0, (v.0 + v.1) / 2.0);
        let centre = [0, 1].map(|axis| middle_u * along[axis] + middle_v * across[axis]);
        Self { centre, along, width: u.1 - u.0, height: v.1 - v.0 }
    }

    fn thickness(&self) -> f32 {
        self.width.min(self.height)
    }

    /// Moves each side outwards by `growth` times area over circumference.
    fn grown(self, growth: f32) -> Self {
        let area = self.width * self.height;
        let step = growth * area / (2.0 * (self.width + self.height));
        Self { width: self.width + 2.0 * step, height: self.height + 2.0 * step, ..self }
    }

    fn corners(&self) -> Corners {
        let [ax, ay] = self.along;
        [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)].map(|(u, v)| {
            let (u, v) = (u * self.width, v * self.height);
            [self.centre[0] + u * ax - v * ay, self.centre[1] + u * ay + v * ax]
        })
    }

    /// The mean of the map's values inside.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    fn mean(&self, map: &ArrayView2<'_, f32>) -> f32 {
        const EDGE: f32 = 0.5; // a pixel counts when its middle is this near to the inside
        let (height, width) = map.dim();
        let corners = self.corners();
        let range = |axis: usize, side: usize| {
            let values = corners.map(|corner| corner[axis]);
            let low = values.into_iter().fold(f32::INFINITY, f32::min).floor();
            let high = values.into_iter().fold(f32::NEG_INFINITY, f32::max).ceil();
            let last = (side - 1) as f32;
            low.clamp(0.0, last) as usize..=high.clamp(0.0, last) as usize
        };
        let across = [-self.along[1], self.along[0]];
        let (mut sum, mut count) = (0.0, 0.0);
        for y in range(1, height) {
            for x in range(0, width) {
                let from_centre = [x as f32 - self.centre[0], y as f32 - self.centre[1]];
                let inside = dot(from_centre, self.along).abs() <= self.width / 2.0 + EDGE
                    && dot(from_centre, across).abs() <= self.height / 2.0 + EDGE;
                if inside {
                    sum += map[[y, x]];
                    count += 1.0;
                }
            }
        }
        if count > 0.0 { sum / count } else { 0.0 }
    }
}

/// Orders corners clockwise from the top left, whichever way the rectangle was found.
fn from_top_left(mut corners: Corners) -> Corners {
    corners.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let [a, b, c, d] = corners;
    let (top_left, bottom_left) = if a[1] <= b[1] { (a, b) } else { (b, a) };
    let (top_right, bottom_right) = if c[1] <= d[1] { (c, d) } else { (d, c) };
    [top_left, top_right, bottom_right, bottom_left]
}

fn dot(a: [f32; 2], b: [f32; 2]) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

pub(super) fn distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside a page")]
fn whole(value: f32) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    /// A map with a bar of the given size, turned by `degrees` around the middle.
    fn map_with_bar(width: f32, height: f32, degrees: f32) -> Array2<f32> {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Array2::from_shape_fn((200, 300), |(y, x)| {
            let (x, y) = (x as f32 - 150.0, y as f32 - 100.0);
            let inside = (x * cos + y * sin).abs() <= width / 2.0
                && (y * cos - x * sin).abs() <= height / 2.0;
            if inside { 0.9 } else { 0.0 }
        })
    }

    #[test]
    fn a_bar_is_found_at_any_angle_and_grown_by_area_over_circumference() {
        for degrees in [0.0_f32, 10.0, -25.0, 40.0] {
            let found = find(&map_with_bar(100.0, 20.0, degrees).view(), &OcrSettings::default());
            assert_eq!(found.len(), 1, "{degrees}");
            let [top_left, top_right, _, bottom_left] = found[0];
            let step = 1.6 * 2000.0 / 240.0;
            let length = distance(top_left, top_right) - 2.0 * step;
            let height = distance(top_left, bottom_left) - 2.0 * step;
            assert!((length - 101.0).abs() < 3.0, "{degrees}: {length}");
            assert!((height - 21.0).abs() < 3.0, "{degrees}: {height}");
            let slope = (top_right[1] - top_left[1]).atan2(top_right[0] - top_left[0]);
            assert!((slope.to_degrees() - degrees).abs() < 2.0, "{degrees}: {slope}");
        }
    }

    #[test]
    fn a_pixel_grows_to_the_right_and_down_and_not_beyond_the_edge() {
        let mut map = Array2::zeros((3, 4));
        (map[[0, 1]], map[[2, 3]]) = (1.0, 1.0);
        let on = mask(&map.view(), 0.5).into_raw().into_iter().map(|pixel| pixel / u8::MAX);
        assert_eq!(on.collect::<Vec<u8>>(), [0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn faint_and_tiny_spots_are_no_boxes() {
        let settings = OcrSettings::default();
        assert!(
            find(&map_with_bar(100.0, 20.0, 0.0).mapv(|score| score * 0.5).view(), &settings)
                .is_empty()
        );
        assert!(find(&map_with_bar(2.0, 1.0, 0.0).view(), &settings).is_empty());
        assert!(find(&Array2::zeros((64, 64)).view(), &settings).is_empty());
    }

    #[test]
    fn boxes_are_read_row_by_row_although_a_row_is_not_quite_level() {
        let at = |x: f32, y: f32| [[x, y], [x + 50.0, y], [x + 50.0, y + 20.0], [x, y + 20.0]];
        let boxes = [at(100.0, 52.0), at(0.0, 57.0), at(100.0, 3.0), at(0.0, 0.0)];
        assert_eq!(reading_order(&boxes, Turn::None), [3, 2, 1, 0]);
        assert_eq!(reading_order(&boxes, Turn::Half), [0, 1, 2, 3]);
        let column = |x: f32| [[x, 0.0], [x + 20.0, 0.0], [x + 20.0, 200.0], [x, 200.0]];
        let columns = [column(60.0), column(0.0), column(30.0)];
        assert_eq!(reading_order(&columns, Turn::Quarter), [1, 2, 0]);
        assert_eq!(reading_order(&columns, Turn::ThreeQuarters), [0, 2, 1]);
    }

    #[test]
    fn a_box_beyond_the_page_is_clipped_or_dropped() {
        let over = [[-5.0, 10.0], [300.0, 10.0], [300.0, 30.0], [-5.0, 30.0]];
        let clipped = [[0.0, 10.0], [200.0, 10.0], [200.0, 30.0], [0.0, 30.0]];
        assert_eq!(clip(over, (200, 100).into()), Some(clipped));
        assert_eq!(clip(over.map(|[x, y]| [x, y + 200.0]), (200, 100).into()), None);
    }

    #[test]
    fn a_turned_cut_out_shows_what_a_straight_one_does_and_a_column_is_laid_down() {
        let page = RgbImage::from_fn(40, 40, |x, _| image::Rgb([if x < 20 { 0 } else { 255 }; 3]));
        let straight =
            cut_out(&page, &[[10.0, 10.0], [30.0, 10.0], [30.0, 20.0], [10.0, 20.0]]).unwrap();
        assert_eq!(
            (straight.dimensions(), straight[(2, 5)].0[0], straight[(17, 5)].0[0]),
            ((20, 10), 0, 255)
        );
        let turned =
            cut_out(&page, &[[10.0, 12.0], [29.0, 10.0], [30.0, 20.0], [11.0, 22.0]]).unwrap();
        assert_eq!((turned[(2, 5)].0[0], turned[(16, 5)].0[0]), (0, 255));
        let column =
            cut_out(&page, &[[15.0, 5.0], [25.0, 5.0], [25.0, 35.0], [15.0, 35.0]]).unwrap();
        assert_eq!(
            (column.dimensions(), column[(15, 1)].0[0], column[(15, 8)].0[0]),
            ((30, 10), 255, 0)
        );
        let flat = [[1.0, 1.0], [9.0, 1.0], [9.0, 1.0], [1.0, 1.0]];
        assert!(cut_out(&page, &flat).is_some_and(|line| line.height() == 1));
    }
}
