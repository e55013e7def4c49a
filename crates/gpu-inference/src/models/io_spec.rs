//! What a family needs of a graph's inputs and outputs, compared with what a graph has.
//!
//! ONNX Runtime notices a renamed input or another shape only when the first run fails deep inside an operator.

use std::fmt;

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

/// An input or output, or a group of them, that a family's code relies on.
pub(crate) struct IoSpec {
    pub(crate) name: IoName,
    pub(crate) element: TensorElementType,
    pub(crate) shape: &'static [DimSpec],
}

/// Inputs and outputs of a graph.
#[derive(Clone, Copy)]
pub(crate) struct Signature<'a> {
    pub(crate) inputs: &'a [IoSpec],
    pub(crate) outputs: &'a [IoSpec],
}

/// Which inputs or outputs a [`IoSpec`] describes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum IoName {
    /// The only one: exporters differ in its name.
    Only,
    /// The one of this name.
    Is(&'static str),
    /// The one of this name, if there is one: exporters leave it out where the model ignores it.
    Maybe(&'static str),
    /// All whose names begin so, at least one.
    Every(&'static str),
}

/// What the code relies on in one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DimSpec {
    /// Must be free: the code sends any number, or accepts any.
    Free,
    /// Free or this number, which the code sends or expects.
    Is(u32),
    /// Must be fixed by the model: the code reads it from the graph.
    Own,
    /// Not checked here: the code passes it on, or checks it itself.
    Any,
}

/// Which floats a family's code can feed and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Floats {
    /// Those that its ports name.
    AsNamed,
    /// 16 bits in place of 32, too.
    HalfToo,
}

impl Signature<'_> {
    pub(super) fn fits(self, session: &Session, floats: Floats) -> Result<(), String> {
        check_io("input", session.inputs(), self.inputs, floats)?;
        check_io("output", session.outputs(), self.outputs, floats)
    }
}

fn check_io(kind: &str, found: &[Outlet], needed: &[IoSpec], floats: Floats) -> Result<(), String> {
    let names = || found.iter().map(Outlet::name).collect::<Vec<_>>().join(", ");
    for spec in needed {
        let mut described =
            found.iter().filter(|outlet| spec.name.covers(outlet.name())).peekable();
        let only_of_many = matches!(spec.name, IoName::Only) && found.len() != 1;
        if described.peek().is_none() && matches!(spec.name, IoName::Maybe(_)) {
            continue;
        }
        if described.peek().is_none() || only_of_many {
            return Err(format!("{kind} {}: not what is there: {}", spec.name, names()));
        }
        if let Some(outlet) = described.find(|outlet| !spec.allows(outlet.dtype(), floats)) {
            let needed = format!("{} {:?}", spec.element, spec.shape);
            let (name, found) = (outlet.name(), outlet.dtype());
            return Err(format!("{kind} {name}: is {found}, the code needs {needed}"));
        }
    }
    // Further outputs are ignored; an input that gets no value fails deep inside an operator.
    let unknown = |outlet: &&Outlet| !needed.iter().any(|spec| spec.name.covers(outlet.name()));
    match found.iter().find(unknown).filter(|_| kind == "input") {
        Some(outlet) => Err(format!("input {}: the code has nothing to send to it", outlet.name())),
        None => Ok(()),
    }
}

impl IoSpec {
    fn allows(&self, found: &ValueType, floats: Floats) -> bool {
        use TensorElementType::{Float16, Float32};
        let ValueType::Tensor { ty, shape, .. } = found else { return false };
        let half = floats == Floats::HalfToo && (*ty, self.element) == (Float16, Float32);
        (*ty == self.element || half)
            && shape.len() == self.shape.len()
            && shape.iter().zip(self.shape).all(|(&found, needed)| needed.allows(found))
    }
}

impl IoName {
    fn covers(self, name: &str) -> bool {
        match self {
            Self::Only => true,
            Self::Is(own) | Self::Maybe(own) => own == name,
            Self::Every(prefix) => name.starts_with(prefix),
        }
    }
}

impl fmt::Display for IoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("(exactly one)"),
            Self::Is(name) | Self::Maybe(name) => f.write_str(name),
            Self::Every(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl DimSpec {
    /// `found` is a dimension of the model; -1 means that it takes any number.
    fn allows(self, found: i64) -> bool {
        match self {
            Self::Free => found == -1,
            Self::Is(number) => found == -1 || found == i64::from(number),
            Self::Own => found > 0,
            Self::Any => true,
        }
    }
}
