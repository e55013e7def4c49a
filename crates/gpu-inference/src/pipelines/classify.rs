//! `text.classify`: labels for a text (DistilBERT and its kin) or for a file of any kind (Magika).
//!
//! Both answer alike: the label that holds, and the model's ranking. Where the labels come from, how text becomes
//! tokens and bytes become numbers is in the two files below.

pub(crate) mod file_type;
pub(crate) mod text;

/// Labels that a job gets when it does not say how many.
const TOP: usize = 5;

/// What a text or file was found to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// The label that holds.
    pub label: String,
    /// For a file: what it is to browsers and mail, as `image/png`.
    pub media_type: Option<String>,
    /// The model's best labels, from the likeliest on.
    pub labels: Vec<Label>,
    /// Whether the text was longer than the model takes: the answer is about its beginning.
    pub truncated: bool,
}

/// A label and how sure the model is of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// From 0 to 1.
    pub score: f32,
}

/// The best labels of a row of scores.
fn ranking(scores: &[f32], names: &[String], top: usize) -> Vec<Label> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let label = |(index, score): (usize, f32)| Label { name: names[index].clone(), score };
    ranked.into_iter().take(top).map(label).collect()
}

/// How many labels a job wants.
fn top(params: &gpu_tasks::Params) -> usize {
    params.integer("top").and_then(|top| usize::try_from(top).ok()).unwrap_or(TOP)
}
