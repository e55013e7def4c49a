//! `vision.detect`: boxes around what is in a picture, by CenterFace (faces) or a detector of the YOLO kind.
//!
//! Pictures are scaled to what the model takes, and its boxes back to the picture. Boxes on the same object become one.

pub(crate) mod centerface;
pub(crate) mod yolo;

use crate::input::Prepared;
use crate::output::Detection;

/// Keeps the box of the highest score among those of one label that overlap more than `overlap_max`, and at most `count_max`
/// boxes.
pub(crate) fn distinct(
    mut found: Vec<Detection>,
    overlap_max: f32,
    count_max: usize,
) -> Vec<Detection> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for one in found {
        if kept.len() == count_max {
            break;
        }
        let same = |other: &Detection| {
            other.label == one.label && overlap(&other.edges, &one.edges) >= overlap_max
        };
        if !kept.iter().any(same) {
            kept.push(one);
        }
    }
    kept
}

/// The shared area of two boxes over the area that they cover together.
pub(crate) fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |edges: &[f32; 4]| (edges[2] - edges[0]).max(0.0) * (edges[3] - edges[1]).max(0.0);
    let shared = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let all = area(a) + area(b) - shared;
    if all > 0.0 { shared / all } else { 0.0 }
}

/// The lowest score that a job asks for, else the model's own.
#[expect(clippy::cast_possible_truncation, reason = "a share")]
pub(crate) fn score_min(input: &Prepared, own: f32) -> f32 {
    input.params().number("score_min").map_or(own, |score| score as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(label: &str, score: f32, edges: [f32; 4]) -> Detection {
        Detection { label: label.to_owned(), score, edges, points: Vec::new() }
    }

    #[test]
    fn the_surest_of_overlapping_boxes_stays_and_another_label_s_does_too() {
        let boxes = vec![
            found("cat", 0.6, [0.0, 0.0, 10.0, 10.0]),
            found("cat", 0.9, [1.0, 0.0, 11.0, 10.0]),
            found("dog", 0.5, [1.0, 0.0, 11.0, 10.0]),
            found("cat", 0.4, [20.0, 0.0, 30.0, 10.0]),
        ];
        let scores = |count| {
            let kept = distinct(boxes.clone(), 0.5, count);
            kept.iter().map(|one| one.score).collect::<Vec<_>>()
        };
        assert_eq!(scores(9), [0.9, 0.5, 0.4]);
        assert_eq!(scores(2), [0.9, 0.5]);
        assert!((overlap(&boxes[0].edges, &boxes[1].edges) - 9.0 / 11.0).abs() < 1e-6);
        assert!(overlap(&[0.0; 4], &[0.0; 4]).abs() < 1e-6);
    }
}
