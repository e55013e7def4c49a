//! `text.classify`: labels for a text (DistilBERT and its kin) or for a file of any kind (Magika).
//!
//! Both return the label that applies and the best labels with scores. Where the labels come from, and how text becomes
//! tokens or bytes become numbers, is in the two files below.

use crate::output::Label;
pub(crate) mod file_type;
pub(crate) mod text;

/// Labels that a job gets when it does not say how many.
const TOP: usize = 5;

/// The best labels of a row of scores.
fn ranking(scores: &[f32], names: &[String], top: usize) -> Vec<Label> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let label = |(index, score): (usize, f32)| Label { name: names[index].clone(), score };
    ranked.into_iter().take(top).map(label).collect()
}

/// How many labels a job asks for.
fn top(params: &gpu_tasks::Params) -> usize {
    params.integer("top").and_then(|top| usize::try_from(top).ok()).unwrap_or(TOP)
}
