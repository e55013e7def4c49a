//! A session whose numbers are floats of either width: the pipelines compute in 32 bits, a GPU's export may take 16.
//!
//! It feeds and reads tensors by name, and turns outputs into arrays of `f32`. It checks no shapes: inputs were checked when
//! the graph was opened, and outputs are checked by the pipeline.

use half::f16;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, TensorRef};

use crate::preprocess::pixels::{FloatWidth, Numbers, Planes};
use crate::run::{RunError, failed};
use crate::size::Size;

/// An opened graph.
pub(crate) struct Graph {
    session: Session,
}

/// What one input is given, in C order.
pub(crate) enum Feed<'a> {
    /// Numbers, in the width that the graph wants.
    Floats(ArrayViewD<'a, f32>),
    /// Numbers that have the 16 bits which the graph wants.
    Halves(ArrayViewD<'a, f16>),
    /// Token ids, masks and the like.
    Whole(ArrayViewD<'a, i64>),
}

/// Pictures side by side, as one call takes them. Its memory is used again for the next call.
#[derive(Default)]
pub(crate) struct Stack {
    single: Vec<f32>,
    half: Vec<f16>,
}

impl Stack {
    /// The feed for planes that all have the size of the first.
    pub(crate) fn of<'p>(&mut self, planes: impl IntoIterator<Item = &'p Planes>) -> Feed<'_> {
        self.single.clear();
        self.half.clear();
        let (mut count, mut size) = (0, Size::default());
        for planes in planes {
            (count, size) = (count + 1, planes.size);
            match &planes.numbers {
                Numbers::Single(numbers) => self.single.extend_from_slice(numbers),
                Numbers::Half(numbers) => self.half.extend_from_slice(numbers),
            }
        }
        let shape = [count, 3, size.height as usize, size.width as usize];
        let fits = "planes of one graph have one size and one width";
        if self.half.is_empty() {
            Feed::Floats(ArrayViewD::from_shape(IxDyn(&shape), &self.single).expect(fits))
        } else {
            Feed::Halves(ArrayViewD::from_shape(IxDyn(&shape), &self.half).expect(fits))
        }
    }
}

impl Graph {
    pub(crate) fn new(session: Session) -> Self {
        Self { session }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether the graph has an input of this name.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.session.inputs().iter().any(|input| input.name() == name)
    }

    /// The name of its only input.
    pub(crate) fn only_input(&self) -> String {
        self.session.inputs()[0].name().to_owned()
    }

    /// The first of `names` that is an output, else the name of the first output.
    pub(crate) fn output_among(&self, names: &[&str]) -> String {
        let exists = |name: &&&str| self.session.outputs().iter().any(|o| o.name() == **name);
        let first = || self.session.outputs()[0].name();
        names.iter().find(exists).copied().unwrap_or_else(first).to_owned()
    }

    /// Runs the graph and gives the outputs of `wanted`, in that order.
    pub(crate) fn run<const N: usize>(
        &mut self,
        stage: &'static str,
        feeds: Vec<(&str, Feed<'_>)>,
        wanted: [&str; N],
    ) -> Result<[ArrayD<f32>; N], RunError> {
        let mut inputs: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(feeds.len());
        for (name, feed) in feeds {
            let value = match feed {
                Feed::Whole(numbers) => {
                    TensorRef::from_array_view(numbers).map_err(failed(stage))?.into()
                }
                Feed::Halves(numbers) => {
                    TensorRef::from_array_view(numbers).map_err(failed(stage))?.into()
                }
                Feed::Floats(numbers) => match self.wanted(name) {
                    Some(TensorElementType::Float16) => {
                        let half = numbers.mapv(f16::from_f32);
                        Tensor::from_array(half).map_err(failed(stage))?.into()
                    }
                    Some(TensorElementType::Bool) => {
                        let set = numbers.mapv(|number| number > 0.5);
                        Tensor::from_array(set).map_err(failed(stage))?.into()
                    }
                    _ => TensorRef::from_array_view(numbers).map_err(failed(stage))?.into(),
                },
            };
            inputs.push((name.to_owned(), value));
        }
        let outputs = self.session.run(inputs).map_err(failed(stage))?;
        let mut wanted_outputs: [ArrayD<f32>; N] =
            std::array::from_fn(|_| ArrayD::zeros(IxDyn(&[0])));
        for (target, name) in wanted_outputs.iter_mut().zip(wanted) {
            let output = outputs.get(name).ok_or(RunError::Shape { stage, shape: Vec::new() })?;
            *target = to_floats(output).map_err(failed(stage))?;
        }
        Ok(wanted_outputs)
    }

    /// The width of an input's numbers.
    pub(crate) fn float_width(&self, name: &str) -> FloatWidth {
        match self.wanted(name) {
            Some(TensorElementType::Float16) => FloatWidth::Half,
            _ => FloatWidth::Single,
        }
    }

    fn wanted(&self, name: &str) -> Option<TensorElementType> {
        let input = self.session.inputs().iter().find(|input| input.name() == name);
        input.and_then(|input| input.dtype().tensor_type())
    }
}

fn to_floats(value: &DynValue) -> ort::Result<ArrayD<f32>> {
    match value.dtype().tensor_type() {
        Some(TensorElementType::Float16) => Ok(value.try_extract_array::<f16>()?.mapv(f16::to_f32)),
        Some(TensorElementType::Bool) => {
            Ok(value.try_extract_array::<bool>()?.mapv(|set| f32::from(u8::from(set))))
        }
        _ => Ok(value.try_extract_array::<f32>()?.into_owned()),
    }
}
