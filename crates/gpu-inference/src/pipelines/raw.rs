//! `onnx.run`: any model of the store on named tensors, without pre- or post-processing.
//!
//! Inputs are checked against the graph before a run. Jobs are never joined into one call: what the first dimension of
//! a user's graph means is not known.

use gpu_tasks::Task;
use ort::session::{Session, SessionInputValue};

use crate::input::tensors::{Tensor, Tensors, UNNAMED, input_mismatch};
use crate::input::{Content, Prepared};
use crate::models::{FamilySpec, ModelError, ModelTask, Opener, no_settings};
use crate::output::{Output, OutputFile, TaskResult, TensorSummary};
use crate::run::{Cancel, Run, RunError, failed};

/// Any graph, for `onnx.run`.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "onnx",
    task: ModelTask::Job(Task::OnnxRun),
    roles: &["graph"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(Box::new(RawPipeline::open(opener, GRAPH)?))),
};

const STAGE: &str = "model";
/// The role of the only graph of the family.
const GRAPH: &str = "graph";
/// Outputs up to this length are in the result itself too; longer ones are only in their files.
const INLINE_MAX: usize = 64;
/// Longest name of a file, without its ending.
const FILE_NAME_MAX: usize = 100;

pub(crate) struct RawPipeline {
    session: Session,
}

impl RawPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>, role: &str) -> Result<Self, ModelError> {
        let session = opener.raw_session(role)?;
        opener.limit_batch(1);
        Ok(Self { session })
    }

    fn run_one(&mut self, tensors: &Tensors) -> Result<Output, RunError> {
        let named = self.named(tensors);
        let tensors = named.as_ref().unwrap_or(tensors);
        if let Some(problem) = input_mismatch(self.session.inputs(), tensors) {
            return Err(RunError::Unfit { problem });
        }
        let mut inputs: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            inputs.push((name.clone(), tensor.to_input().map_err(failed(STAGE))?));
        }
        let outputs = self.session.run(inputs).map_err(failed(STAGE))?;
        let (mut summaries, mut files) = (Vec::new(), Vec::new());
        for (name, value) in &outputs {
            let tensor = Tensor::of_output(&value).map_err(failed(STAGE))?;
            let tensor = tensor.ok_or_else(|| RunError::Unfit {
                problem: format!(
                    "the output {name:?} is {}, which NumPy files cannot hold",
                    value.dtype()
                ),
            })?;
            let file = file_name(name, &files);
            let elements = tensor.elements();
            let few = elements.len() <= INLINE_MAX;
            summaries.push(TensorSummary {
                name: name.to_owned(),
                element_type: elements.type_name(),
                shape: tensor.shape().to_vec(),
                values: if few { elements.to_f64() } else { None },
                file: file.clone(),
            });
            let bytes = tensor.to_npy();
            files.push(OutputFile { name: file, media_type: "application/x-npy", bytes });
        }
        Ok(Output { result: TaskResult::Tensors(summaries), files })
    }

    /// A file of one tensor has no name for it: it is the model's only input.
    fn named(&self, tensors: &Tensors) -> Option<Tensors> {
        match (self.session.inputs(), tensors.get(UNNAMED)) {
            ([only], Some(tensor)) => Some([(only.name().to_owned(), tensor.clone())].into()),
            _ => None,
        }
    }
}

impl Run for RawPipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            cancel.check()?;
            let Content::Tensors(tensors) = input.content() else {
                return Err(RunError::WrongInput { index, wanted: "tensors" });
            };
            outputs.push(self.run_one(tensors)?);
        }
        Ok(outputs)
    }
}

/// A file's name for a tensor's, which may hold any character and end like another's.
fn file_name(name: &str, taken: &[OutputFile]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let stem: String = name.chars().take(FILE_NAME_MAX).map(plain).collect();
    let stem = stem.trim_start_matches('.');
    let names = (0..).map(|number| match number {
        0 => format!("{stem}.npy"),
        _ => format!("{stem}-{number}.npy"),
    });
    let free = |name: &String| taken.iter().all(|file| file.name != *name);
    names.into_iter().find(free).expect("there are more numbers than files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain_and_differ() {
        let mut taken = Vec::new();
        for (name, expected) in
            [("a/b:0", "a_b_0.npy"), ("a_b_0", "a_b_0-1.npy"), ("../x", "_x.npy"), ("é", "_.npy")]
        {
            let name = file_name(name, &taken);
            assert_eq!(name, expected);
            taken.push(OutputFile { name, media_type: "", bytes: Vec::new() });
        }
    }
}
