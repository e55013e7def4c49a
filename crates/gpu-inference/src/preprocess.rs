//! From texts, sound and pixels to the numbers that graphs take. No model is opened here, and none is known.

pub(crate) mod child;
pub(crate) mod phonemes;
pub(crate) mod pixels;
pub(crate) mod scripts;
pub(crate) mod spectrum;
pub(crate) mod spoken;
pub(crate) mod tokens;
