//! `onnx.run`: any model of the store on named tensors, without pre- or post-processing.
//!
//! Inputs are checked against the graph before a run. Jobs are never joined into one call: what the first dimension of
//! a user's graph means is not known.

use gpu_tasks::Task;
use ort::session::{Session, SessionInputValue, SessionOutputs};

use crate::input::tensors::{Tensor, Tensors, UNNAMED, input_mismatch};
use crate::input::{Content, Prepared};
use crate::models::{FamilySpec, ModelError, ModelTask, Opener, no_settings};
use crate::output::{Output, OutputFile, TaskResult, TensorSummary};
use crate::run::{Cancel, Run, RunError, failed, run_session};
use crate::text;

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
/// Most numbers of all outputs together: 256 MiB of float32, as much as an input may have.
const OUTPUT_ELEMENTS_MAX: u64 = 64 << 20;
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

    fn run_one(&mut self, tensors: &Tensors, cancel: &Cancel) -> Result<Output, RunError> {
        let named = self.named(tensors);
        let tensors = named.as_ref().unwrap_or(tensors);
        if let Some(problem) = input_mismatch(self.session.inputs(), tensors) {
            return Err(RunError::Unfit { problem: text::cut(problem) });
        }
        let mut inputs: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            inputs.push((name.clone(), tensor.to_input().map_err(failed(STAGE))?));
        }
        let outputs = run_session(&mut self.session, STAGE, inputs, cancel)?;
        check_size(&outputs)?;
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
        Ok(Output { files, ..TaskResult::Tensors(summaries).into() })
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
            outputs.push(self.run_one(tensors, cancel)?);
        }
        Ok(outputs)
    }
}

/// Refuses outputs that would take too much memory once they are copied: a graph can make any size of a small input.
fn check_size(outputs: &SessionOutputs<'_>) -> Result<(), RunError> {
    let elements = outputs.iter().map(|(_, value)| {
        value.dtype().tensor_shape().map_or(0, |shape| shape.num_elements() as u64)
    });
    if elements.sum::<u64>() <= OUTPUT_ELEMENTS_MAX {
        return Ok(());
    }
    let problem = format!("its outputs have more than {OUTPUT_ELEMENTS_MAX} numbers together");
    Err(RunError::Unfit { problem })
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
    use std::time::{Duration, Instant};

    use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
    use ort::value::{Outlet, Shape, SymbolicDimensions, TensorElementType, ValueType};

    use super::*;
    use crate::input::tensors::Elements;
    use crate::models::{Device, Runtime, RuntimeOptions};

    fn outlet(name: &str, ty: TensorElementType, sides: &[i64]) -> Outlet {
        let dimension_symbols = SymbolicDimensions::empty(sides.len());
        let shape = Shape::new(sides.iter().copied());
        Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols })
    }

    /// A graph of one input and one output, through nodes that `operators` names with their inputs.
    fn pipeline(input: Outlet, output: Outlet, nodes: &[(&str, &[String], String)]) -> RawPipeline {
        let mut graph = Graph::new().unwrap();
        graph.set_inputs([input]).unwrap();
        graph.set_outputs([output]).unwrap();
        for (operator, inputs, output) in nodes {
            let node = Node::new(*operator, ONNX_DOMAIN, output, inputs, [output], []).unwrap();
            graph.add_node(node).unwrap();
        }
        let mut model = Model::new([Opset::new(ONNX_DOMAIN, 17).unwrap()]).unwrap();
        model.set_graph(graph).unwrap();
        let library = Runtime::locate(None).expect("run scripts/fetch-models.py");
        let runtime = Runtime::load(&library, RuntimeOptions::default()).unwrap();
        RawPipeline { session: runtime.own_session(model, Device::Cpu).unwrap() }
    }

    fn tensor(shape: &[usize], elements: Elements) -> Tensors {
        [(UNNAMED.to_owned(), Tensor::new(shape.to_vec(), elements).unwrap())].into()
    }

    #[test]
    fn a_small_input_cannot_make_outputs_of_any_size() {
        let input = outlet("shape", TensorElementType::Int64, &[1]);
        let output = outlet("zeros", TensorElementType::Float32, &[-1]);
        let nodes = [("ConstantOfShape", &["shape".to_owned()][..], "zeros".to_owned())];
        let mut pipeline = pipeline(input, output, &nodes);
        let mut run = |count: i64| {
            pipeline.run_one(&tensor(&[1], Elements::I64(vec![count])), &Cancel::new())
        };
        assert_eq!(run(1_000).unwrap().files[0].bytes.len(), 4_000 + 128);
        let error = run(i64::try_from(OUTPUT_ELEMENTS_MAX).unwrap() + 1).unwrap_err();
        assert!(error.to_string().contains("outputs have more than"), "{error}");
        // More than any machine has: the same on each box, so it is the input's fault.
        let error = run(1 << 50).unwrap_err();
        assert_eq!(
            (error.code(), error.blame()),
            ("input.memory", gpu_tasks::Blame::Input),
            "{error:?}"
        );
    }

    #[test]
    fn a_cancelled_job_ends_within_its_graph() {
        const SIDE: usize = 768;
        const PRODUCTS: usize = 600;
        let square = i64::try_from(SIDE).unwrap();
        let name = |index: usize| format!("x{index}");
        let inputs: Vec<[String; 2]> = (0..PRODUCTS).map(|index| [name(index), name(0)]).collect();
        let nodes: Vec<(&str, &[String], String)> = inputs
            .iter()
            .enumerate()
            .map(|(index, inputs)| ("MatMul", inputs.as_slice(), name(index + 1)))
            .collect();
        let side = [square, square];
        let input = outlet("x0", TensorElementType::Float32, &side);
        let output = outlet(&name(PRODUCTS), TensorElementType::Float32, &side);
        let mut pipeline = pipeline(input, output, &nodes);
        let cancel = Cancel::new();
        let within = cancel.clone();
        let run = std::thread::spawn(move || {
            let input = tensor(&[SIDE, SIDE], Elements::F32(vec![1e-3; SIDE * SIDE]));
            pipeline.run_one(&input, &within)
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            std::thread::yield_now();
        }
        cancel.cancel();
        assert!(matches!(run.join().unwrap(), Err(RunError::Cancelled)));
    }

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
