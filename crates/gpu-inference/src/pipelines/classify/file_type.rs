//! Magika: which of some 200 kinds a file is, by its first and last bytes.
//!
//! Sizes and labels are read from the configuration beside the model, so another training needs no code. Magika's own
//! rules hold for short files and low scores: `txt` or `unknown`, never a guess.

use std::collections::{BTreeMap, HashMap};

use gpu_tasks::Task;
use ndarray::Array2;
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};
use serde::Deserialize;

use super::{ranking, top};
use crate::input::{Content, FileEnds, Prepared};
use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, no_settings,
};
use crate::output::{Classification, Output, TaskResult};
use crate::run::{Cancel, Run, RunError, failed};

/// Magika: the types of files.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "magika",
    task: ModelTask::Job(Task::TextClassify),
    roles: &["classifier", "config", "kinds"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(Box::new(FileTypePipeline::open(opener)?))),
};

const STAGE: &str = "file type";
/// Files a call, whatever the batch.
const FILES_MAX: usize = 64;
/// Most numbers that a configuration may ask for: a file's two blocks of 4 KiB.
const FEATURES_MAX: usize = 8_192;
/// Longest block at either end of a file: no more is kept of its end.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// What Magika says of a file without a byte.
const EMPTY: &str = "empty";
/// What Magika says of a text that is too short or too odd to name.
const PLAIN_TEXT: &str = "txt";
/// And of other bytes.
const UNKNOWN: &str = "unknown";

/// `config.min.json` of a Magika model; what is not read here is for other programs.
#[derive(Debug, Deserialize)]
struct Config {
    beg_size: usize,
    mid_size: usize,
    end_size: usize,
    block_size: usize,
    padding_token: i32,
    min_file_size_for_dl: usize,
    use_inputs_at_offsets: bool,
    medium_confidence_threshold: f32,
    target_labels_space: Vec<String>,
    #[serde(default)]
    thresholds: HashMap<String, f32>,
    #[serde(default)]
    overwrite_map: HashMap<String, String>,
}

impl Config {
    fn check(&self) -> Result<(), String> {
        if self.mid_size != 0 || self.use_inputs_at_offsets {
            return Err(
                "it asks for more than a file's two ends, which this code does not support"
                    .to_owned(),
            );
        }
        let too_large =
            self.beg_size + self.end_size > FEATURES_MAX || self.block_size > BLOCK_BYTES_MAX;
        if too_large || self.min_file_size_for_dl > self.beg_size {
            return Err("its sizes make no sense".to_owned());
        }
        Ok(())
    }
}

/// What `content_types_kb.min.json` says of one kind.
#[derive(Debug, Deserialize)]
struct Kind {
    mime_type: Option<String>,
    #[serde(default)]
    is_text: bool,
}

pub(crate) struct FileTypePipeline {
    session: Session,
    config: Config,
    kinds: BTreeMap<String, Kind>,
}

impl FileTypePipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let config: Config = serde_json::from_slice(&opener.bytes("config")?)
            .map_err(|error| opener.interface_mismatch("config", error.to_string()))?;
        config.check().map_err(|problem| opener.interface_mismatch("config", problem))?;
        let kinds = serde_json::from_slice(&opener.bytes("kinds")?)
            .map_err(|error| opener.interface_mismatch("kinds", error.to_string()))?;
        let inputs = [IoSpec {
            name: IoName::Is("bytes"),
            element: TensorElementType::Int32,
            shape: &[DimSpec::Free, DimSpec::Own],
        }];
        let outputs = [IoSpec {
            name: IoName::Is("target_label"),
            element: TensorElementType::Float32,
            shape: &[DimSpec::Free, DimSpec::Own],
        }];
        let session = opener.session("classifier", &inputs, &outputs)?;
        let side =
            |shape: Option<&ort::value::Shape>| shape.and_then(|shape| shape.last().copied());
        let features = side(session.inputs()[0].dtype().tensor_shape());
        let labels = side(session.outputs()[0].dtype().tensor_shape());
        let found = (config.beg_size + config.end_size, config.target_labels_space.len());
        if (i64::try_from(found.0).ok(), i64::try_from(found.1).ok()) != (features, labels) {
            let problem = format!("{} bytes and {} labels are not the graph's", found.0, found.1);
            return Err(opener.interface_mismatch("config", problem));
        }
        Ok(Self { session, config, kinds })
    }

    fn scores(&mut self, files: &[&FileEnds]) -> Result<Vec<Vec<f32>>, RunError> {
        let length = self.config.beg_size + self.config.end_size;
        let mut features = Array2::from_elem((files.len(), length), self.config.padding_token);
        for (mut row, file) in features.rows_mut().into_iter().zip(files) {
            fill(row.as_slice_mut().expect("in standard order"), file, &self.config);
        }
        let input = TensorRef::from_array_view(&features).map_err(failed(STAGE))?;
        let outputs = self.session.run(ort::inputs!["bytes" => input]).map_err(failed(STAGE))?;
        let scores = outputs["target_label"].try_extract_array::<f32>().map_err(failed(STAGE))?;
        if scores.shape() != [files.len(), self.config.target_labels_space.len()] {
            return Err(RunError::Shape { stage: STAGE, shape: scores.shape().to_vec() });
        }
        Ok(scores.outer_iter().map(|row| row.iter().copied().collect()).collect())
    }

    fn judge(&self, scores: &[f32], top: usize) -> Classification {
        let labels = ranking(scores, &self.config.target_labels_space, top.max(1));
        let best = &labels[0];
        let named = self.config.overwrite_map.get(&best.name).unwrap_or(&best.name);
        let threshold = self.config.thresholds.get(&best.name);
        let sure = best.score >= *threshold.unwrap_or(&self.config.medium_confidence_threshold);
        let is_text = self.kinds.get(named).is_some_and(|kind| kind.is_text);
        let label = match (sure, is_text) {
            (true, _) => named.clone(),
            (false, true) => PLAIN_TEXT.to_owned(),
            (false, false) => UNKNOWN.to_owned(),
        };
        self.classification(&label, labels)
    }

    /// A file with too little in it for the model.
    fn short(&self, block: &[u8]) -> Classification {
        let label = match std::str::from_utf8(block) {
            Ok("") => EMPTY,
            Ok(_) => PLAIN_TEXT,
            Err(_) => UNKNOWN,
        };
        self.classification(label, Vec::new())
    }

    fn block<'f>(&self, file: &'f FileEnds) -> &'f [u8] {
        first(file.beginning(), self.config.block_size)
    }

    fn classification(&self, label: &str, labels: Vec<super::Label>) -> Classification {
        let media_type = self.kinds.get(label).and_then(|kind| kind.mime_type.clone());
        Classification { label: label.to_owned(), media_type, labels, truncated: false }
    }
}

impl Run for FileTypePipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut files = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            match input.content() {
                Content::Bytes(ends) => files.push(ends),
                _ => return Err(RunError::WrongInput { index, wanted: "a file" }),
            }
        }
        let mut outputs: Vec<Option<Classification>> = vec![None; batch.len()];
        let least = self.config.min_file_size_for_dl;
        let (long, short): (Vec<usize>, Vec<usize>) = (0..files.len())
            .partition(|&index| strip_start(self.block(files[index])).len() >= least);
        for index in short {
            outputs[index] = Some(self.short(self.block(files[index])));
        }
        for indices in long.chunks(FILES_MAX) {
            cancel.check()?;
            let some: Vec<&FileEnds> = indices.iter().map(|&index| files[index]).collect();
            for (&index, scores) in indices.iter().zip(self.scores(&some)?) {
                outputs[index] = Some(self.judge(&scores, top(batch[index].params())));
            }
        }
        let found = outputs.into_iter().flatten();
        Ok(found.map(|found| TaskResult::Classification(found).into()).collect())
    }
}

/// A file's two ends without the white space around it; what is missing stays padding.
fn fill(row: &mut [i32], file: &FileEnds, config: &Config) {
    let beginning = strip_start(first(file.beginning(), config.block_size));
    for (target, &byte) in row[..config.beg_size].iter_mut().zip(beginning) {
        *target = byte.into();
    }
    let end = file.end();
    let end = strip_end(&end[end.len().saturating_sub(config.block_size)..]);
    for (target, &byte) in row.iter_mut().rev().take(config.end_size).zip(end.iter().rev()) {
        *target = byte.into();
    }
}

fn first(bytes: &[u8], length: usize) -> &[u8] {
    &bytes[..bytes.len().min(length)]
}

/// White space as Magika strips it: Python's, which has one more than Rust's.
fn is_space(byte: u8) -> bool {
    const VERTICAL_TAB: u8 = 0x0b;
    byte.is_ascii_whitespace() || byte == VERTICAL_TAB
}

fn strip_start(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|&byte| !is_space(byte));
    first.map_or(&[], |first| &bytes[first..])
}

fn strip_end(bytes: &[u8]) -> &[u8] {
    let last = bytes.iter().rposition(|&byte| !is_space(byte));
    last.map_or(&[], |last| &bytes[..=last])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let json = r#"{"beg_size": 4, "mid_size": 0, "end_size": 3, "block_size": 6, "padding_token": 256,
            "min_file_size_for_dl": 2, "use_inputs_at_offsets": false, "medium_confidence_threshold": 0.5,
            "target_labels_space": ["a", "b"]}"#;
        serde_json::from_str(json).unwrap()
    }

    fn features(file: &[u8]) -> Vec<i32> {
        let mut row = vec![256; 7];
        fill(&mut row, &file.to_vec().into(), &config());
        row
    }

    #[test]
    fn both_ends_are_taken_without_white_space_and_padded_outwards() {
        assert_eq!(features(b" \x0babcdefghij \n"), [97, 98, 99, 100, 104, 105, 106]);
        assert_eq!(features(b"ab"), [97, 98, 256, 256, 256, 97, 98]);
        assert_eq!(features(b"  "), [256; 7]);
    }

    #[test]
    fn a_configuration_that_wants_what_the_code_has_not_is_refused() {
        config().check().unwrap();
        assert!(Config { mid_size: 4, ..config() }.check().is_err());
        assert!(Config { min_file_size_for_dl: 9, ..config() }.check().is_err());
    }
}
