//! The recogniser's most likely class of each column.
//!
//! A page's scores are a gigabyte (18,710 for each 8 pixels of each line). Copying them from a GPU to the processor and
//! searching them there took eight times as long as computing them: so on a GPU a second graph of one operator searches them
//! there. On a processor this code searches them; that operator hangs there (ONNX Runtime 1.31.1, with 2 and with 16 cores).

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::Attribute;
use ort::session::Session;
use ort::value::{
    Outlet, Shape, SymbolicDimensions, Tensor, TensorElementType, TensorRef, ValueType,
};
use rayon::prelude::*;

use super::lines::BLANK;
use super::recogniser::{ROLE, STAGE};
use super::tensor::Canvas;
use super::wrong;
use crate::models::{Device, ModelError, Opener};
use crate::run::{Cancel, RunError, failed, run_session};

const SCORES: &str = "scores";
const BEST: &str = "best";
const CLASSES: &str = "classes";

/// What finds it.
pub(super) enum BestOf {
    /// This program, in memory.
    Processor,
    /// A graph behind every recogniser, and where the scores stay for it.
    Gpu(Session, MemoryInfo<'static>),
}

/// The most likely class of each column and its probability, line by line.
pub(super) struct Columns {
    length: usize,
    found: Vec<(usize, f32)>,
}

impl BestOf {
    pub(super) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        match opener.device() {
            Device::Cpu => Ok(Self::Processor),
            Device::Cuda => {
                let session = opener.own_session(ROLE, top_class)?;
                let (device, kind) = (AllocationDevice::CUDA, AllocatorType::Device);
                let memory = MemoryInfo::new(device, 0, kind, MemoryType::Default);
                let memory =
                    memory.map_err(|error| opener.interface_mismatch(ROLE, error.to_string()))?;
                Ok(Self::Gpu(session, memory))
            }
        }
    }

    /// Reads the canvas' lines; `classes` is how many the recogniser tells apart.
    pub(super) fn run(
        &mut self,
        recogniser: &mut Session,
        canvas: &Canvas,
        classes: usize,
        cancel: &Cancel,
    ) -> Result<Columns, RunError> {
        let lines = TensorRef::from_array_view(canvas.values()).map_err(failed(STAGE))?;
        match self {
            Self::Processor => {
                let outputs = run_session(recogniser, STAGE, ort::inputs!["x" => lines], cancel)?;
                let scores = outputs[0].try_extract_tensor::<f32>().map_err(failed(STAGE))?;
                let length = length_of(scores.0, canvas, classes)?;
                let columns = scores.1.par_chunks_exact(classes);
                Ok(Columns { length, found: columns.map(best).collect() })
            }
            Self::Gpu(session, memory) => {
                let name = recogniser.outputs()[0].name().to_owned();
                let mut binding = recogniser.create_binding().map_err(failed(STAGE))?;
                binding.bind_input("x", &lines).map_err(failed(STAGE))?;
                binding.bind_output_to_device(&name, memory).map_err(failed(STAGE))?;
                let options = cancel.run_options().map_err(failed(STAGE))?;
                cancel.check()?;
                let scores = recogniser.run_binding_with_options(&binding, options);
                let scores = scores.map_err(failed(STAGE))?;
                let length = length_of(scores[0].shape(), canvas, classes)?;
                let inputs = ort::inputs![SCORES => &scores[0]];
                let outputs = run_session(session, STAGE, inputs, cancel)?;
                let classes = outputs[CLASSES].try_extract_tensor::<i64>();
                let best = outputs[BEST].try_extract_tensor::<f32>().map_err(failed(STAGE))?;
                let classes = classes.map_err(failed(STAGE))?.1.iter();
                let classes = classes.map(|&class| usize::try_from(class).unwrap_or(BLANK));
                Ok(Columns { length, found: classes.zip(best.1.iter().copied()).collect() })
            }
        }
    }
}

/// The columns of a line, if the scores have the shape that they should.
fn length_of(shape: &Shape, canvas: &Canvas, classes: usize) -> Result<usize, RunError> {
    let sizes: Vec<usize> = shape.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
    match sizes[..] {
        [lines, length, width] if lines == canvas.values().dim().0 && width == classes => {
            Ok(length)
        }
        _ => Err(wrong(STAGE, &sizes)),
    }
}

/// The largest number and where it is. Two passes, since each is many numbers at a time.
fn best(column: &[f32]) -> (usize, f32) {
    let best = column.iter().copied().fold(f32::MIN, f32::max);
    (column.iter().position(|&score| score == best).unwrap_or(BLANK), best)
}

impl Columns {
    /// Those of one line, from left to right.
    pub(super) fn of(&self, line: usize) -> impl Iterator<Item = (usize, f32)> {
        self.found[line * self.length..(line + 1) * self.length].iter().copied()
    }
}

/// One operator: the largest number along the last axis, and where it is.
fn top_class() -> ort::Result<Model> {
    let tensor = |name: &str, ty, sides: [i64; 3]| {
        let (shape, dimension_symbols) = (Shape::new(sides), SymbolicDimensions::empty(3));
        Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols })
    };
    let mut graph = Graph::new()?;
    graph.set_inputs([tensor(SCORES, TensorElementType::Float32, [-1; 3])])?;
    let best = tensor(BEST, TensorElementType::Float32, [-1, -1, 1]);
    graph.set_outputs([best, tensor(CLASSES, TensorElementType::Int64, [-1, -1, 1])])?;
    // The graph takes only memory that ONNX Runtime owns: a clone's is.
    let one = Tensor::from_array(([1], vec![1_i64]))?;
    graph.add_initializer("one", one.clone(), false)?;
    let axis = Attribute::new("axis", -1_i64)?;
    let (takes, gives) = ([SCORES, "one"], [BEST, CLASSES]);
    graph.add_node(Node::new("TopK", ONNX_DOMAIN, "top_class", takes, gives, [axis])?)?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 17)?])?;
    model.set_graph(graph)?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_numbers_is_the_best() {
        assert_eq!(best(&[0.1, 0.7, 0.2, 0.7]), (1, 0.7));
        assert_eq!(best(&[f32::NAN; 2]).0, BLANK);
    }
}
