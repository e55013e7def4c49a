//! Tensors out of files: `.npz` and `.npy` here, JSON in `json`. What a header claims is judged before memory is given for it, and
//! the header's own length before it is read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use half::f16;
use ndarray::{Array, IxDyn, ShapeBuilder};
use npyz::{DType, Deserialize, NpyFile, NpyHeader, Order, TypeChar};
use zip::ZipArchive;

use super::{Elements, RANK_MAX, TENSORS_MAX, Tensor, Tensors};
use crate::input::error::{InputError, InputLimits};
use crate::text;

/// What is accepted, in the words of the error.
const WANTED: &str = "tensors as .npz, .npy or JSON";
/// The name of the tensor in a file that has none: the model's only input.
pub(crate) const UNNAMED: &str = "";
/// Longest header of an `.npy` file. NumPy itself refuses more than 10,000 bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Most brackets in it, and how deep: its parser calls itself for each level, twice in some. A header has two, a structured array more.
const HEADER_BRACKETS_MAX: usize = 64;
const HEADER_DEPTH_MAX: usize = 8;
/// Most bytes of an archive that its list of entries may take: 512 entries with names of 1,900 characters.
const ARCHIVE_LIST_BYTES_MAX: u64 = 1 << 20;

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
        let header = npy_header(&mut file).map_err(|error| reader.damaged(text::said(&error)))?;
        let tensor = reader.npy(header, &mut file)?;
        Ok([(UNNAMED.to_owned(), tensor)].into())
    } else if first == Some(&b'{') {
        super::json::read(&mut reader, bytes)
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
        b"PK" => archive(file).map_or(0, |archive| {
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
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes_left: u64,
    limits: &'a InputLimits,
}

impl Reader<'_> {
    fn npz(&mut self, bytes: &[u8]) -> Result<Tensors, InputError> {
        let mut archive =
            archive(Cursor::new(bytes)).map_err(|error| self.damaged(text::said(&error)))?;
        self.check_count(archive.len())?;
        let mut tensors = Tensors::new();
        for index in 0..archive.len() {
            let entry = archive.by_index(index);
            let entry = entry.map_err(|error| self.damaged(text::said(&error)))?;
            let file = entry.name().map_err(|error| self.damaged(text::said(&error)))?;
            let name = npyz::npz::array_name_from_file_name(&file).map(str::to_owned);
            let name = name.ok_or_else(|| self.damaged(format!("{file} is not a .npy file")))?;
            // More than the list says is not believed, whatever the compressed bytes become.
            let size = entry.size();
            let mut entry = entry.take(size);
            let header =
                npy_header(&mut entry).map_err(|error| self.damaged(format!("{name}: {error}")))?;
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
        let numbers: Vec<T> = file.into_vec().map_err(|error| self.damaged(text::said(&error)))?;
        let numbers = match order {
            Order::C => numbers,
            Order::Fortran => {
                let columns = IxDyn(&shape).f();
                let array = Array::from_shape_vec(columns, numbers);
                let array = array.map_err(|error| self.damaged(text::said(&error)))?;
                array.iter().cloned().collect()
            }
        };
        let found = numbers.len();
        Tensor::new(shape, wrap(numbers)).ok_or_else(|| {
            self.damaged(format!("its shape does not fit its data, which holds {found}"))
        })
    }

    /// Takes a tensor's bytes off what is left, before they are read.
    pub(super) fn claim(
        &mut self,
        sides: &[u64],
        element_bytes: u64,
    ) -> Result<Vec<usize>, InputError> {
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

    pub(super) fn check_count(&self, found: usize) -> Result<(), InputError> {
        match found {
            0 => Err(self.damaged("it holds no tensors".to_owned())),
            1..=TENSORS_MAX => Ok(()),
            _ => Err(self.unsupported(&format!("{found} tensors, {TENSORS_MAX} are allowed"))),
        }
    }

    pub(super) fn damaged(&self, problem: String) -> InputError {
        InputError::Damaged { path: self.path.to_owned(), problem: text::cut(problem) }
    }

    fn unsupported(&self, problem: &str) -> InputError {
        let problem = text::cut(problem.to_owned());
        InputError::Unsupported { path: self.path.to_owned(), problem }
    }
}

/// Opens an archive, if its list of entries is short.
fn archive<R: Read + Seek>(file: R) -> Result<ZipArchive<ListReader<R>>, zip::result::ZipError> {
    let bytes_left = Rc::new(Cell::new(ARCHIVE_LIST_BYTES_MAX));
    let archive = ZipArchive::new(ListReader { file, bytes_left: Rc::clone(&bytes_left) })?;
    bytes_left.set(u64::MAX);
    Ok(archive)
}

/// A reader that fails once more was read than the list of an archive's entries may take.
struct ListReader<R> {
    file: R,
    bytes_left: Rc<Cell<u64>>,
}

impl<R: Read> Read for ListReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let left = self.bytes_left.get().checked_sub(read as u64);
        self.bytes_left.set(left.ok_or_else(|| invalid("its list of entries is too long"))?);
        Ok(read)
    }
}

impl<R: Seek> Seek for ListReader<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// Reads the header of an `.npy` file; what follows are its numbers.
fn npy_header(data: &mut dyn Read) -> io::Result<NpyHeader> {
    // The magic and the version; then the header's length, in two bytes in version 1 and in four since.
    let mut start = vec![0; 8];
    data.read_exact(&mut start)?;
    let digits = if start[6] == 1 { 2 } else { 4 };
    let mut length = [0; 4];
    data.read_exact(&mut length[..digits])?;
    start.extend_from_slice(&length[..digits]);
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(invalid(&format!(
            "its header has {length} bytes, {HEADER_BYTES_MAX} are allowed"
        )));
    }
    let begin = start.len();
    start.resize(begin + length, 0);
    data.read_exact(&mut start[begin..])?;
    check_brackets(&start[begin..])?;
    NpyHeader::from_reader(start.as_slice())
}

/// Refuses a header that would keep its parser busy, or use up its thread's stack.
fn check_brackets(header: &[u8]) -> io::Result<()> {
    let (mut brackets, mut depth) = (0, 0_usize);
    for byte in header {
        match byte {
            b'(' | b'[' | b'{' => (brackets, depth) = (brackets + 1, depth + 1),
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if brackets > HEADER_BRACKETS_MAX || depth > HEADER_DEPTH_MAX {
            return Err(invalid("its header has too many brackets"));
        }
    }
    Ok(())
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
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
            (json("int8", "[2]", "[1]"), "input.damaged", "x: its shape does not fit its data"),
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
