//! Real models on real inputs, and every way in which a file can be wrong.
//!
//! One binary, since a process has one ONNX Runtime. Models and samples come from `scripts/fetch-models.py`.

#[cfg(test)]
mod aac;
#[cfg(test)]
mod audio;
#[cfg(test)]
mod convert;
#[cfg(test)]
mod craft;
#[cfg(test)]
mod denoise;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod models;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod ocr;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod preparation;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod synthesize;
#[cfg(test)]
mod text;
#[cfg(test)]
mod transcribe;
#[cfg(test)]
mod vision;

#[cfg(test)]
mod warnings;
