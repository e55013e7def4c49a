//! `vision.segment`: which pixels belong to what, as masks.
//!
//! U²-Net finds what stands out and needs no prompt; SAM 2 takes points and boxes; SAM 3 takes a word or boxes. Each
//! mask is a PNG as large as the picture, white where the thing is; its box and score stand in the answer.

pub(crate) mod saliency;
pub(crate) mod sam2;
pub(crate) mod sam3;

use std::io::Cursor;

use image::{GrayImage, ImageFormat};

use super::{Output, OutputFile, RunError, TaskResult};
use crate::input::Prepared;

/// Most masks of a picture: each is a file.
const MASKS_MAX: usize = 100;
/// A mask's pixel brighter than this belongs to the thing.
const HALF: u8 = 127;

/// The things in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Segments {
    /// The upright picture's width.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// The things, from the surest on.
    pub objects: Vec<Segmented>,
}

/// A thing and its mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmented {
    /// The file with its mask.
    pub file: String,
    /// What was asked for, if by a word.
    pub label: Option<String>,
    /// How sure the model is, from 0 to 1; none where it does not say.
    pub score: Option<f32>,
    /// Left, top, right and bottom of its pixels; none where it has no pixel.
    pub edges: Option<[u32; 4]>,
    /// How many pixels belong to it.
    pub pixels: u64,
}

/// A mask before it is a file.
struct Mask {
    picture: GrayImage,
    label: Option<String>,
    score: Option<f32>,
}

/// The answer to one picture.
fn output(masks: Vec<Mask>, (width, height): (u32, u32)) -> Output {
    let (mut objects, mut files) = (Vec::new(), Vec::new());
    let single = masks.len() == 1;
    for (index, mask) in masks.into_iter().take(MASKS_MAX).enumerate() {
        let file = if single { "mask.png".to_owned() } else { format!("mask-{index}.png") };
        let (edges, pixels) = extent(&mask.picture);
        let mut bytes = Cursor::new(Vec::new());
        mask.picture.write_to(&mut bytes, ImageFormat::Png).expect("writing to memory cannot fail");
        files.push(OutputFile {
            name: file.clone(),
            media_type: "image/png",
            bytes: bytes.into_inner(),
        });
        let Mask { label, score, .. } = mask;
        objects.push(Segmented { file, label, score, edges, pixels });
    }
    Output { result: TaskResult::Segments(Segments { width, height, objects }), files }
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

/// A mask out of a map of numbers, of which those above 0 belong to the thing.
fn above_zero(map: &[f32], from: (u32, u32), to: (u32, u32)) -> GrayImage {
    let map = crate::pixels::enlarge(map, from, to);
    let bytes = map.into_iter().map(|value| if value > 0.0 { u8::MAX } else { 0 }).collect();
    GrayImage::from_raw(to.0, to.1, bytes).expect("enlarge gives as many numbers")
}

/// A job's boxes as left, top, right and bottom, all within the picture.
fn boxes(input: &Prepared, (width, height): (u32, u32)) -> Result<Vec<[f32; 4]>, RunError> {
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

/// A job's points as x, y, and whether they lie on the thing (1) or beside it (0).
fn points(input: &Prepared, (width, height): (u32, u32)) -> Result<Vec<[f32; 3]>, RunError> {
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
        let mask = || Mask { picture: GrayImage::new(2, 2), label: None, score: None };
        let names = |count| {
            let output = output((0..count).map(|_| mask()).collect(), (2, 2));
            output.files.into_iter().map(|file| file.name).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["mask.png"]);
        assert_eq!(names(2), ["mask-0.png", "mask-1.png"]);
        assert_eq!(names(200).len(), MASKS_MAX);
    }
}
