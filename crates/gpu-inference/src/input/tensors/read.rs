//! Tensors out of files: `.npz`, `.npy` and JSON. A header's claim is judged before memory is given for it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use half::f16;
use ndarray::{Array, IxDyn, ShapeBuilder};
use npyz::{DType, Deserialize, NpyFile, NpyHeader, Order, TypeChar};
use serde_json::Value;

use super::{Elements, RANK_MAX, TENSORS_MAX, Tensor, Tensors};
use crate::input::error::{InputError, InputLimits};

/// What is accepted, in the words of the error.
const WANTED: &str = "tensors as .npz, .npy or JSON";
/// The name of the tensor in a file that has none: the model's only input.
pub(crate) const UNNAMED: &str = "";

/// Reads the tensors of a file's bytes. `path` is only named in errors.
pub(crate) fn decode(
    bytes: &[u8],
    path: &Path,
    limits: &InputLimits,
) -> Result<Tensors, InputError> {
    let mut reader = Reader { path, bytes_left: limits.file_bytes_max, limits };
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if bytes.starts_with(b"PK") {
        reader.npz(bytes)
    } else if bytes.starts_with(b"\x93NUMPY") {
        let mut file = bytes;
        let header =
            NpyHeader::from_reader(&mut file).map_err(|error| reader.damaged(error.to_string()))?;
        let tensor = reader.npy(header, &mut file)?;
        Ok([(UNNAMED.to_owned(), tensor)].into())
    } else if first == Some(&b'{') {
        reader.json(bytes)
    } else {
        Err(InputError::WrongKind { path: path.to_owned(), wanted: WANTED })
    }
}

/// The most memory that reading a file takes: its bytes, and the numbers that it can hold, once as they are and once in C order.
pub(crate) fn bytes_max(mut file: File, limits: &InputLimits) -> io::Result<u64> {
    let file_bytes = file.metadata()?.len();
    let mut magic = [0; 2];
    file.read_exact(&mut magic)?;
    file.rewind()?;
    let numbers = match &magic {
        // What a damaged archive holds is not read.
        b"PK" => zip::ZipArchive::new(file).map_or(0, |archive| {
            let sizes = archive.decompressed_size().unwrap_or(u128::MAX);
            u64::try_from(sizes).unwrap_or(u64::MAX)
        }),
        b"\x93N" => file_bytes,
        // The shortest number, a digit and a comma, becomes up to eight bytes.
        _ => file_bytes.saturating_mul(4),
    };
    Ok(file_bytes + 2 * numbers.min(limits.file_bytes_max))
}

/// Reads tensors until their bytes are used up.
struct Reader<'a> {
    path: &'a Path,
    bytes_left: u64,
    limits: &'a InputLimits,
}

impl Reader<'_> {
    fn npz(&mut self, bytes: &[u8]) -> Result<Tensors, InputError> {
        let archive = zip::ZipArchive::new(std::io::Cursor::new(bytes));
        let mut archive = archive.map_err(|error| self.damaged(error.to_string()))?;
        self.check_count(archive.len())?;
        let mut tensors = Tensors::new();
        for index in 0..archive.len() {
            let entry = archive.by_index(index);
            let mut entry = entry.map_err(|error| self.damaged(error.to_string()))?;
            let file = entry.name().map_err(|error| self.damaged(error.to_string()))?.into_owned();
            let name = npyz::npz::array_name_from_file_name(&file).map(str::to_owned);
            let name = name.ok_or_else(|| self.damaged(format!("{file} is not a .npy file")))?;
            let header = NpyHeader::from_reader(&mut entry)
                .map_err(|error| self.damaged(format!("{name}: {error}")))?;
            let tensor = self.npy(header, &mut entry)?;
            tensors.insert(name, tensor);
        }
        Ok(tensors)
    }

    fn npy(&mut self, header: NpyHeader, data: &mut dyn Read) -> Result<Tensor, InputError> {
        use npyz::TypeChar::{Bool, Float, Int, Uint};
        let DType::Plain(plain) = header.dtype() else {
            return Err(self.unsupported("a structured array"));
        };
        let (kind, bytes): (TypeChar, u64) = (plain.type_char(), plain.size_field());
        let shape = self.claim(header.shape(), bytes.max(1))?;
        let file = NpyFile::with_header(header, data);
        match (kind, bytes) {
            (Float, 2) => self.numbers::<f16>(file, shape, Elements::F16),
            (Float, 4) => self.numbers::<f32>(file, shape, Elements::F32),
            (Float, 8) => self.numbers::<f64>(file, shape, Elements::F64),
            (Int, 1) => self.numbers::<i8>(file, shape, Elements::I8),
            (Int, 2) => self.numbers::<i16>(file, shape, Elements::I16),
            (Int, 4) => self.numbers::<i32>(file, shape, Elements::I32),
            (Int, 8) => self.numbers::<i64>(file, shape, Elements::I64),
            (Uint, 1) => self.numbers::<u8>(file, shape, Elements::U8),
            (Uint, 2) => self.numbers::<u16>(file, shape, Elements::U16),
            (Uint, 4) => self.numbers::<u32>(file, shape, Elements::U32),
            (Uint, 8) => self.numbers::<u64>(file, shape, Elements::U64),
            (Bool, 1) => self.numbers::<bool>(file, shape, Elements::Bool),
            _ => Err(self.unsupported(&format!("the element type {plain}"))),
        }
    }

    fn numbers<T: Deserialize + Clone>(
        &self,
        file: NpyFile<&mut dyn Read>,
        shape: Vec<usize>,
        wrap: fn(Vec<T>) -> Elements,
    ) -> Result<Tensor, InputError> {
        let order = file.order();
        let numbers: Vec<T> = file.into_vec().map_err(|error| self.damaged(error.to_string()))?;
        let numbers = match order {
            Order::C => numbers,
            Order::Fortran => {
                let columns = IxDyn(&shape).f();
                let array = Array::from_shape_vec(columns, numbers);
                let array = array.map_err(|error| self.damaged(error.to_string()))?;
                array.iter().cloned().collect()
            }
        };
        let found = numbers.len();
        Tensor::new(shape, wrap(numbers))
            .ok_or_else(|| self.damaged(format!("{found} numbers do not fill its shape")))
    }

    fn json(&mut self, bytes: &[u8]) -> Result<Tensors, InputError> {
        let named: serde_json::Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| self.damaged(error.to_string()))?;
        self.check_count(named.len())?;
        let mut tensors = Tensors::new();
        for (name, value) in named {
            let tensor = self.json_tensor(&value).map_err(|error| match error {
                InputError::Damaged { problem, .. } => self.damaged(format!("{name}: {problem}")),
                other => other,
            })?;
            tensors.insert(name, tensor);
        }
        Ok(tensors)
    }

    fn json_tensor(&mut self, value: &Value) -> Result<Tensor, InputError> {
        let lacks = |field: &str| {
            self.damaged(format!("lacks {field}: a tensor is {{dtype, shape, data}}"))
        };
        let name = value["dtype"].as_str().ok_or_else(|| lacks("dtype"))?.to_owned();
        let sides = value["shape"].as_array().ok_or_else(|| lacks("shape"))?;
        let sides: Option<Vec<u64>> = sides.iter().map(Value::as_u64).collect();
        let sides =
            sides.ok_or_else(|| self.damaged("its shape is not a list of numbers".to_owned()))?;
        let data = value["data"].as_array().ok_or_else(|| lacks("data"))?;
        let elements = json_elements(&name, data).map_err(|problem| self.damaged(problem))?;
        let shape = self.claim(&sides, element_bytes(&name))?;
        let found = elements.len();
        Tensor::new(shape, elements)
            .ok_or_else(|| self.damaged(format!("{found} numbers do not fill its shape")))
    }

    /// Takes a tensor's bytes off what is left, before they are read.
    fn claim(&mut self, sides: &[u64], element_bytes: u64) -> Result<Vec<usize>, InputError> {
        if sides.len() > RANK_MAX {
            return Err(self.unsupported(&format!("a tensor of {} dimensions", sides.len())));
        }
        let bytes = sides.iter().try_fold(element_bytes, |bytes, &side| bytes.checked_mul(side));
        let left = bytes.and_then(|bytes| self.bytes_left.checked_sub(bytes));
        self.bytes_left = left.ok_or_else(|| InputError::FileTooLarge {
            path: self.path.to_owned(),
            bytes_max: self.limits.file_bytes_max,
        })?;
        let side = |&side: &u64| usize::try_from(side);
        let shape: Result<_, _> = sides.iter().map(side).collect();
        shape.map_err(|_| self.unsupported("a side beyond this machine"))
    }

    fn check_count(&self, found: usize) -> Result<(), InputError> {
        match found {
            0 => Err(self.damaged("it holds no tensors".to_owned())),
            1..=TENSORS_MAX => Ok(()),
            _ => Err(self.unsupported(&format!("{found} tensors, {TENSORS_MAX} are allowed"))),
        }
    }

    fn damaged(&self, problem: String) -> InputError {
        InputError::Damaged { path: self.path.to_owned(), problem }
    }

    fn unsupported(&self, problem: &str) -> InputError {
        InputError::Unsupported { path: self.path.to_owned(), problem: problem.to_owned() }
    }
}

/// Bytes of an element, by NumPy's name of its type.
fn element_bytes(name: &str) -> u64 {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    digits.parse::<u64>().map_or(1, |bits| bits / 8)
}

fn json_elements(name: &str, data: &[Value]) -> Result<Elements, String> {
    fn all<T>(data: &[Value], read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, String> {
        let number = |(index, value): (usize, &Value)| {
            read(value).ok_or_else(|| format!("data[{index}] is {value}, which does not fit"))
        };
        data.iter().enumerate().map(number).collect()
    }
    fn whole<T: TryFrom<i64>>(value: &Value) -> Option<T> {
        value.as_i64().and_then(|number| T::try_from(number).ok())
    }
    #[expect(clippy::cast_possible_truncation, reason = "as NumPy does it: to the nearest")]
    let single = |value: &Value| value.as_f64().map(|number| number as f32);
    Ok(match name {
        "float32" => Elements::F32(all(data, single)?),
        "float64" => Elements::F64(all(data, Value::as_f64)?),
        "float16" => Elements::F16(all(data, |value| value.as_f64().map(f16::from_f64))?),
        "int8" => Elements::I8(all(data, whole)?),
        "int16" => Elements::I16(all(data, whole)?),
        "int32" => Elements::I32(all(data, whole)?),
        "int64" => Elements::I64(all(data, whole)?),
        "uint8" => Elements::U8(all(data, whole)?),
        "uint16" => Elements::U16(all(data, whole)?),
        "uint32" => Elements::U32(all(data, whole)?),
        "uint64" => Elements::U64(all(data, Value::as_u64)?),
        "bool" => Elements::Bool(all(data, Value::as_bool)?),
        other => {
            return Err(format!(
                "the dtype {other:?} is unknown: it is float32, int64, uint8, bool or the like"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Tensors, InputError> {
        decode(bytes, Path::new("tensors"), &InputLimits::default())
    }

    #[test]
    fn json_and_npy_come_back_as_they_were_written() {
        let json = br#" {"ids": {"dtype": "int64", "shape": [1, 3], "data": [1, -2, 3]},
            "on": {"dtype": "bool", "shape": [1], "data": [true]},
            "x": {"dtype": "float16", "shape": [], "data": [0.5]}}"#;
        let tensors = read(json).unwrap();
        assert_eq!(tensors["ids"].elements(), &Elements::I64(vec![1, -2, 3]));
        assert_eq!(tensors["x"].shape(), &[] as &[usize]);
        for tensor in tensors.values() {
            assert_eq!(&read(&tensor.to_npy()).unwrap()[UNNAMED], tensor);
        }
    }

    #[test]
    fn an_array_in_columns_is_put_into_rows() {
        let mut header = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }".to_owned();
        header += &" ".repeat(63 - (10 + header.len()) % 64);
        header.push('\n');
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        let numbers = [0_i32, 3, 1, 4, 2, 5].map(i32::to_le_bytes).concat();
        let bytes = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &numbers].concat();
        let tensors = read(&bytes).unwrap();
        assert_eq!(tensors[UNNAMED].elements(), &Elements::I32(vec![0, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn what_is_wrong_with_a_tensor_is_named() {
        let json = |dtype: &str, shape: &str, data: &str| {
            let text =
                format!(r#"{{"x": {{"dtype": "{dtype}", "shape": {shape}, "data": {data}}}}}"#);
            read(text.as_bytes()).unwrap_err()
        };
        let cases = [
            (json("int8", "[1]", "[300]"), "input.damaged", "data[0] is 300"),
            (json("int8", "[2]", "[1]"), "input.damaged", "x: 1 numbers do not fill"),
            (
                json("complex64", "[1]", "[1]"),
                "input.damaged",
                "the dtype \"complex64\" is unknown",
            ),
            (json("float32", "[99999999999]", "[1]"), "input.too_large", "268435456"),
            (read(b"{}").unwrap_err(), "input.damaged", "holds no tensor"),
            (read(b"PK nothing").unwrap_err(), "input.damaged", ""),
            (read(b"words").unwrap_err(), "input.wrong_kind", ".npz"),
        ];
        for (error, code, said) in cases {
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
