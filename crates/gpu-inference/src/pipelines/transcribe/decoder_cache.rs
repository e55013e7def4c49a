//! The key/value cache of a merged decoder, as onnx-community exports it: its parts go into each step and come out of it.
//!
//! Sizes (layers, heads, width) are read from the graph. The numbers stay in ONNX Runtime's memory.

use std::borrow::Cow;

use ort::memory::Allocator;
use ort::session::{Session, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};

use crate::models::{DimSpec, IoName, IoSpec};

/// Prefixes of the parts' names among the inputs and outputs.
const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";

/// The parts of the cache of a decoder.
pub(super) struct DecoderCache {
    parts: Vec<Part>,
}

struct Part {
    /// Without the prefix.
    name: String,
    heads: i64,
    width: i64,
}

/// Whether the decoder has run before on the same piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    First,
    Later,
}

/// What the cache needs of the decoder's inputs.
pub(super) const INPUTS: IoSpec = every(PAST);
/// What the cache needs of the decoder's outputs.
pub(super) const OUTPUTS: IoSpec = every(PRESENT);

const fn every(prefix: &'static str) -> IoSpec {
    const SHAPE: &[DimSpec] = &[DimSpec::Free, DimSpec::Own, DimSpec::Free, DimSpec::Own];
    IoSpec { name: IoName::Every(prefix), element: TensorElementType::Float32, shape: SHAPE }
}

impl DecoderCache {
    /// The parts that the decoder takes; says which one it does not return.
    pub(super) fn of(decoder: &Session) -> Result<Self, String> {
        let part = |input: &ort::value::Outlet| {
            let name = input.name().strip_prefix(PAST)?.to_owned();
            let ValueType::Tensor { shape, .. } = input.dtype() else { return None };
            Some(Part { name, heads: shape[1], width: shape[3] })
        };
        let parts: Vec<Part> = decoder.inputs().iter().filter_map(part).collect();
        let comes_out = |part: &Part| {
            let own = |name: &str| name.strip_prefix(PRESENT) == Some(&part.name);
            decoder.outputs().iter().any(|output| own(output.name()))
        };
        match parts.iter().find(|part| !comes_out(part)) {
            Some(part) => Err(format!("output {PRESENT}{}: is missing", part.name)),
            None => Ok(Self { parts }),
        }
    }

    /// The values before the first step.
    pub(super) fn empty(&self) -> ort::Result<Vec<DynValue>> {
        let allocator = Allocator::default();
        let empty = |part: &Part| {
            Tensor::<f32>::new(&allocator, [1, part.heads, 0, part.width]).map(Tensor::into_dyn)
        };
        self.parts.iter().map(empty).collect()
    }

    /// The values as inputs of a step.
    pub(super) fn inputs<'v>(
        &self,
        values: &'v [DynValue],
    ) -> impl Iterator<Item = (Cow<'static, str>, SessionInputValue<'v>)> {
        let named = |(part, value): (&Part, &'v DynValue)| {
            (Cow::Owned(format!("{PAST}{}", part.name)), value.into())
        };
        self.parts.iter().zip(values).map(named)
    }

    /// Replaces the values by those that a step returned.
    pub(super) fn update(
        &self,
        values: &mut [DynValue],
        outputs: &mut SessionOutputs<'_>,
        step: Step,
    ) {
        for (part, value) in self.parts.iter().zip(values) {
            // The encoder's part is complete after the first step; later steps return it empty.
            if step == Step::First || part.name.contains(".decoder.") {
                let present = outputs.remove(format!("{PRESENT}{}", part.name));
                *value = present.expect("checked when opened");
            }
        }
    }
}
