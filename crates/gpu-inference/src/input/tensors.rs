//! Named tensors of any element type: the inputs and outputs of `onnx.run`.
//!
//! They come as `.npz` or `.npy` (NumPy's files) or as JSON, and are checked against a graph's inputs before a run,
//! since ONNX Runtime lets differing lengths of one symbolic dimension through. No model is known here.

mod json;
mod read;

use std::collections::BTreeMap;
use std::io;

use half::f16;
use npyz::WriterBuilder;
use ort::session::SessionInputValue;
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

pub(crate) use self::read::{UNNAMED, bytes_max, decode};

/// Most tensors of one input: more than any exporter's graph takes (a decoder of 48 layers has 194).
pub(crate) const TENSORS_MAX: usize = 512;
/// Most dimensions of a tensor, as in NumPy 1.
pub(crate) const RANK_MAX: usize = 32;

/// The symbol that PaddlePaddle's exporter gives every free dimension: it does not mean that two are equal.
const UNKNOWN_SYMBOL: &str = "?";

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Numbers and their shape, in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: Elements,
}

/// Declares the element types once: variant, Rust type, NumPy's name.
macro_rules! elements {
    ($($variant:ident($element:ty, $name:literal)),+ $(,)?) => {
        /// A tensor's numbers.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Elements {
            $(#[doc = concat!("NumPy's `", $name, "`.")] $variant(Vec<$element>)),+
        }

        impl Elements {
            /// NumPy's name of the element type.
            #[must_use]
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name),+ }
            }

            /// The number of elements.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(numbers) => numbers.len()),+ }
            }

            /// No elements of the type that NumPy calls so.
            fn none_of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant(Vec::new())),)+
                    _ => None,
                }
            }

            /// The memory of one.
            fn element_bytes(&self) -> u64 {
                match self { $(Self::$variant(_) => size_of::<$element>() as u64),+ }
            }

            /// The memory that they hold.
            pub(crate) fn bytes(&self) -> u64 {
                match self { $(Self::$variant(numbers) => size_of_val(numbers.as_slice()) as u64),+ }
            }

            fn element_type(&self) -> TensorElementType {
                match self { $(Self::$variant(_) => element_type::<$element>()),+ }
            }
        }

        impl Tensor {
            /// A view that ONNX Runtime can read.
            pub(crate) fn to_input(&self) -> ort::Result<SessionInputValue<'_>> {
                match &self.elements {
                    $(Elements::$variant(numbers) => {
                        let input = (self.shape.clone(), numbers.as_slice());
                        Ok(TensorRef::from_array_view(input)?.into())
                    })+
                }
            }

            /// A copy of an output of ONNX Runtime; `None` for element types that NumPy does not have.
            pub(crate) fn of_output(value: &DynValue) -> ort::Result<Option<Self>> {
                let Some(found) = value.dtype().tensor_type() else { return Ok(None) };
                $(if found == element_type::<$element>() {
                    let (shape, numbers) = value.try_extract_tensor::<$element>()?;
                    let shape = shape.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
                    let elements = Elements::$variant(numbers.to_vec());
                    return Ok(Some(Self { shape, elements }));
                })+
                Ok(None)
            }

            /// The tensor as an `.npy` file.
            ///
            /// # Panics
            /// Never: writing to memory cannot fail.
            #[must_use]
            pub fn to_npy(&self) -> Vec<u8> {
                let mut bytes = Vec::new();
                let shape: Vec<u64> = self.shape.iter().map(|&side| side as u64).collect();
                let written = match &self.elements {
                    $(Elements::$variant(numbers) => write_npy(&mut bytes, &shape, numbers)),+
                };
                written.expect("writing to memory cannot fail");
                bytes
            }
        }
    };
}

elements! {
    F32(f32, "float32"),
    F64(f64, "float64"),
    F16(f16, "float16"),
    I8(i8, "int8"),
    I16(i16, "int16"),
    I32(i32, "int32"),
    I64(i64, "int64"),
    U8(u8, "uint8"),
    U16(u16, "uint16"),
    U32(u32, "uint32"),
    U64(u64, "uint64"),
    Bool(bool, "bool"),
}

impl Elements {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers as JSON has them; `None` if one is NaN or infinite.
    #[must_use]
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        #[expect(clippy::cast_precision_loss, reason = "for people to read; the file is exact")]
        let numbers: Vec<f64> = match self {
            Self::F32(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::F64(numbers) => numbers.clone(),
            Self::F16(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::I8(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::I16(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::I32(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::I64(numbers) => numbers.iter().map(|&number| number as f64).collect(),
            Self::U8(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::U16(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::U32(numbers) => numbers.iter().map(|&number| number.into()).collect(),
            Self::U64(numbers) => numbers.iter().map(|&number| number as f64).collect(),
            Self::Bool(numbers) => numbers.iter().map(|&number| number.into()).collect(),
        };
        numbers.iter().all(|number| number.is_finite()).then_some(numbers)
    }
}

impl Tensor {
    /// A tensor; `None` if the shape has another number of elements.
    #[must_use]
    pub fn new(shape: Vec<usize>, elements: Elements) -> Option<Self> {
        let count = shape.iter().try_fold(1_usize, |count, &side| count.checked_mul(side))?;
        (count == elements.len()).then_some(Self { shape, elements })
    }

    /// Its sides.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its numbers.
    #[must_use]
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    pub(crate) fn into_elements(self) -> Elements {
        self.elements
    }
}

/// Why `tensors` cannot be the inputs of a graph: a name, an element type, a rank, or a length.
pub(crate) fn input_mismatch(inputs: &[Outlet], tensors: &Tensors) -> Option<String> {
    let known = || inputs.iter().map(|input| format!("{} {}", input.name(), input.dtype()));
    let listed = || known().collect::<Vec<_>>().join(", ");
    if let Some(name) = tensors.keys().find(|name| inputs.iter().all(|i| i.name() != *name)) {
        return Some(format!("the model has no input {name:?}: it takes {}", listed()));
    }
    // Inputs that share a symbol share a length: ONNX Runtime does not check it.
    let mut symbols: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for input in inputs {
        let name = input.name();
        let Some(tensor) = tensors.get(name) else {
            return Some(format!("the input {name:?} is missing: the model takes {}", listed()));
        };
        let ValueType::Tensor { ty, shape, dimension_symbols } = input.dtype() else {
            return Some(format!(
                "the model's input {name:?} is {}, which is not a tensor",
                input.dtype()
            ));
        };
        let found = format!("{} {:?}", tensor.elements.type_name(), tensor.shape);
        let wrong = || Some(format!("the input {name:?} is {found}, not {}", input.dtype()));
        if *ty != tensor.elements.element_type() || shape.len() != tensor.shape.len() {
            return wrong();
        }
        for ((&side, &found), symbol) in
            shape.iter().zip(&tensor.shape).zip(dimension_symbols.iter())
        {
            if side >= 0 && usize::try_from(side) != Ok(found) {
                return wrong();
            }
            if side >= 0 || symbol.is_empty() || symbol == UNKNOWN_SYMBOL {
                continue;
            }
            let (length, first) = *symbols.entry(symbol.as_str()).or_insert((found, name));
            if length != found {
                return Some(format!(
                    "the dimension {symbol:?} is {length} in {first:?} and {found} in {name:?}"
                ));
            }
        }
    }
    None
}

fn element_type<T: ort::value::IntoTensorElementType>() -> TensorElementType {
    T::into_tensor_element_type()
}

fn write_npy<T>(out: &mut Vec<u8>, shape: &[u64], numbers: &[T]) -> io::Result<()>
where
    T: npyz::AutoSerialize + Copy,
{
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(shape).writer(out).begin_nd()?;
    writer.extend(numbers.iter().copied())?;
    writer.finish()
}
