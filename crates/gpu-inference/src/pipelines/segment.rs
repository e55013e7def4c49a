//! `vision.segment`: which pixels belong to which object, as masks.
//!
//! U²-Net finds the main object and needs no prompt; SAM 2 takes points and boxes; SAM 3 takes a name or boxes. Each
//! mask is a PNG of the picture's size, white where the object is; its box and score are in the result.

pub(crate) mod saliency;
pub(crate) mod sam2;
pub(crate) mod sam3;

use std::io::Cursor;

use image::{GrayImage, ImageFormat};

use crate::input::Prepared;
use crate::output::{Output, OutputFile, Segmented, Segments, TaskResult};
use crate::run::RunError;
use crate::size::Size;

/// Most masks of a picture: each is a file.
const MASKS_MAX: usize = 100;
/// A mask's pixel brighter than this belongs to the object.
const HALF: u8 = 127;

/// A mask as a file, with what is said of it. It is made of the pixels at once: a hundred masks of the largest picture are 10 GB.
struct Mask {
    png: Vec<u8>,
    /// The box around its pixels, and how many there are.
    extent: (Option<[u32; 4]>, u64),
    label: Option<String>,
    score: Option<f32>,
}

impl Mask {
    fn new(picture: &GrayImage, label: Option<String>, score: Option<f32>) -> Self {
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).expect("writing to memory cannot fail");
        Self { png: png.into_inner(), extent: extent(picture), label, score }
    }
}

/// The output for one picture.
fn output(masks: Vec<Mask>, picture: Size) -> Output {
    let Size { width, height } = picture;
    let (mut objects, mut files) = (Vec::new(), Vec::new());
    let single = masks.len() == 1;
    for (index, mask) in masks.into_iter().take(MASKS_MAX).enumerate() {
        let file = if single { "mask.png".to_owned() } else { format!("mask-{index}.png") };
        let Mask { png: bytes, extent: (edges, pixels), label, score } = mask;
        files.push(OutputFile { name: file.clone(), media_type: "image/png", bytes });
        objects.push(Segmented { file, label, score, edges, pixels });
    }
    Output { files, ..TaskResult::Segments(Segments { width, height, objects }).into() }
}

/// The box around a mask's pixels, and how many there are.
fn extent(mask: &GrayImage) -> (Option<[u32; 4]>, u64) {
    let mut edges: Option<[u32; 4]> = None;
    let mut pixels = 0;
    for (x, y, pixel) in mask.enumerate_pixels() {
        if pixel.0[0] > HALF {
            pixels += 1;
            let [left, top, right, bottom] = edges.unwrap_or([x, y, x + 1, y + 1]);
            edges = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
        }
    }
    (edges, pixels)
}

/// A mask from a map of numbers, of which those above 0 belong to the object.
fn above_zero(map: &[f32], from: Size, to: Size) -> GrayImage {
    let map = crate::preprocess::pixels::enlarge(map, from, to);
    let bytes = map.into_iter().map(|value| if value > 0.0 { u8::MAX } else { 0 }).collect();
    GrayImage::from_raw(to.width, to.height, bytes).expect("enlarge gives as many numbers")
}

/// A job's boxes as left, top, right and bottom, all within the picture.
fn boxes(input: &Prepared, picture: Size) -> Result<Vec<[f32; 4]>, RunError> {
    let Size { width, height } = picture;
    let mut boxes = Vec::new();
    for row in input.params().rows("boxes").unwrap_or_default() {
        let [left, top, right, bottom] = numbers(row);
        let inside = left >= 0.0 && top >= 0.0 && right <= width as f32 && bottom <= height as f32;
        if !inside || left >= right || top >= bottom {
            let wanted = format!("[left, top, right, bottom] in {width} x {height} pixels");
            return Err(RunError::Param { name: "boxes", found: format!("{row:?}"), wanted });
        }
        boxes.push([left, top, right, bottom]);
    }
    Ok(boxes)
}

/// A job's points as x, y, and whether they lie on the object (1) or beside it (0).
fn points(input: &Prepared, picture: Size) -> Result<Vec<[f32; 3]>, RunError> {
    let Size { width, height } = picture;
    let mut points = Vec::new();
    for row in input.params().rows("points").unwrap_or_default() {
        let [x, y, on] = numbers(row);
        let inside = (0.0..=width as f32).contains(&x) && (0.0..=height as f32).contains(&y);
        if !inside || !(on.abs() < f32::EPSILON || (on - 1.0).abs() < f32::EPSILON) {
            let wanted = format!("[x, y, 1 or 0] in {width} x {height} pixels");
            return Err(RunError::Param { name: "points", found: format!("{row:?}"), wanted });
        }
        points.push([x, y, on]);
    }
    Ok(points)
}

#[expect(clippy::cast_possible_truncation, reason = "positions in a picture")]
fn numbers<const N: usize>(row: &[f64]) -> [f32; N] {
    std::array::from_fn(|index| row.get(index).copied().unwrap_or(f64::NAN) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_s_box_is_around_its_pixels_and_an_empty_one_has_none() {
        let mut mask = GrayImage::new(8, 5);
        assert_eq!(extent(&mask), (None, 0));
        mask.put_pixel(2, 1, image::Luma([255]));
        mask.put_pixel(6, 3, image::Luma([128]));
        mask.put_pixel(7, 4, image::Luma([127]));
        assert_eq!(extent(&mask), (Some([2, 1, 7, 4]), 2));
    }

    #[test]
    fn several_masks_are_several_files_and_one_is_just_the_mask() {
        let mask = || Mask::new(&GrayImage::new(2, 2), None, None);
        let names = |count| {
            let output = output((0..count).map(|_| mask()).collect(), Size::square(2));
            output.files.into_iter().map(|file| file.name).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["mask.png"]);
        assert_eq!(names(2), ["mask-0.png", "mask-1.png"]);
        assert_eq!(names(200).len(), MASKS_MAX);
    }
}
