//! Tensors out of JSON: `{"NAME": {"dtype": …, "shape": […], "data": […]}}`, with a tensor's fields in any order.
//!
//! The text is read twice, so that no number is ever kept in a wider form than its own: first types and shapes, which say how
//! many numbers may come, then the numbers.

use std::fmt;
use std::marker::PhantomData;

use half::f16;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::read::Reader;
use super::{Elements, RANK_MAX, TENSORS_MAX, Tensor, Tensors};
use crate::input::error::InputError;
use crate::text;

/// Longest name of a tensor, in bytes; exporters make them of the names of nested modules.
const NAME_BYTES_MAX: usize = 1_000;

/// Reads the tensors of a JSON object.
pub(super) fn read(reader: &mut Reader<'_>, bytes: &[u8]) -> Result<Tensors, InputError> {
    let heads = parse(reader, bytes, |_| HeadOf)?;
    reader.check_count(heads.len())?;
    let mut shapes = Vec::with_capacity(heads.len());
    for (_, head) in &heads {
        shapes.push(reader.claim(&head.shape, head.none.element_bytes())?);
    }
    let counts: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let numbers = parse(reader, bytes, |index: usize| {
        let (none, count) = (heads[index].1.none.clone(), counts[index]);
        NumbersOf { none, count }
    })?;
    let mut tensors = Tensors::new();
    for ((name, elements), shape) in numbers.into_iter().zip(shapes) {
        let found = elements.len();
        let tensor = Tensor::new(shape, elements).ok_or_else(|| {
            reader.damaged(format!("{name}: its shape does not fit its data, which holds {found}"))
        })?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn parse<'de, S: DeserializeSeed<'de>>(
    reader: &Reader<'_>,
    bytes: &'de [u8],
    seed: impl Fn(usize) -> S,
) -> Result<Vec<(String, S::Value)>, InputError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let tensors = json.deserialize_map(EachTensor { seed, read: PhantomData });
    let tensors = tensors.and_then(|tensors| json.end().map(|()| tensors));
    tensors.map_err(|error| reader.damaged(text::said(&error)))
}

/// Name and content of each tensor; the content by a seed for its place.
struct EachTensor<F, S> {
    seed: F,
    read: PhantomData<S>,
}

impl<'de, F: Fn(usize) -> S, S: DeserializeSeed<'de>> Visitor<'de> for EachTensor<F, S> {
    type Value = Vec<(String, S::Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if found.len() == TENSORS_MAX {
                return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors")));
            }
            if name.len() > NAME_BYTES_MAX {
                let problem = format!("a name of more than {NAME_BYTES_MAX} bytes");
                return Err(A::Error::custom(problem));
            }
            let of_tensor = |error| A::Error::custom(format!("{name}: {error}"));
            let value = map.next_value_seed((self.seed)(found.len())).map_err(of_tensor)?;
            found.push((name, value));
        }
        Ok(found)
    }
}

/// A tensor's field. Others are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Field {
    #[serde(rename = "dtype")]
    Type,
    Shape,
    Data,
    #[serde(other)]
    Other,
}

/// What a tensor says before its numbers.
struct Head {
    /// No numbers, of the tensor's type.
    none: Elements,
    shape: Vec<u64>,
}

struct HeadOf;

impl<'de> DeserializeSeed<'de> for HeadOf {
    type Value = Head;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeadOf {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor, {dtype, shape, data}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let (mut none, mut shape, mut data) = (None, None, None);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Type => none = Some(no_elements(&map.next_value::<String>()?)?),
                Field::Shape => shape = Some(map.next_value::<Sides>()?.0),
                Field::Data => data = Some(map.next_value::<IgnoredAny>()?),
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let lacks =
            |field| A::Error::custom(format!("lacks {field}: a tensor is {{dtype, shape, data}}"));
        let none = none.ok_or_else(|| lacks("dtype"))?;
        let shape = shape.ok_or_else(|| lacks("shape"))?;
        data.map(|_| Head { none, shape }).ok_or_else(|| lacks("data"))
    }
}

fn no_elements<E: Error>(name: &str) -> Result<Elements, E> {
    Elements::none_of(name).ok_or_else(|| {
        let name = text::cut(name.to_owned());
        E::custom(format!(
            "the dtype {name:?} is unknown: it is float32, int64, uint8, bool or the like"
        ))
    })
}

/// A tensor's shape, not longer than any may be.
struct Sides(Vec<u64>);

impl<'de> Deserialize<'de> for Sides {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfSides;

        impl<'de> Visitor<'de> for OfSides {
            type Value = Sides;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape, a list of whole numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sides, A::Error> {
                let mut sides = Vec::new();
                while let Some(side) = list.next_element()? {
                    if sides.len() == RANK_MAX {
                        let problem = format!("a shape of more than {RANK_MAX} dimensions");
                        return Err(A::Error::custom(problem));
                    }
                    sides.push(side);
                }
                Ok(Sides(sides))
            }
        }

        deserializer.deserialize_seq(OfSides)
    }
}

/// The numbers of one tensor.
struct NumbersOf {
    /// No numbers, of the tensor's type.
    none: Elements,
    count: usize,
}

impl<'de> DeserializeSeed<'de> for NumbersOf {
    type Value = Elements;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Elements, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NumbersOf {
    type Value = Elements;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Elements, A::Error> {
        let mut elements = self.none.clone();
        while let Some(field) = map.next_key()? {
            if let Field::Data = field {
                elements = map.next_value_seed(Data(&self))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(elements)
    }
}

/// The list of a tensor's numbers.
struct Data<'a>(&'a NumbersOf);

impl<'de> DeserializeSeed<'de> for Data<'_> {
    type Value = Elements;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Elements, D::Error> {
        let count = self.0.count;
        #[expect(clippy::cast_possible_truncation, reason = "as NumPy does it: to the nearest")]
        let single = |scalar: Scalar| scalar.float().map(|number| number as f32);
        let half = |scalar: Scalar| scalar.float().map(f16::from_f64);
        Ok(match self.0.none {
            Elements::F32(_) => Elements::F32(all(json, count, single)?),
            Elements::F64(_) => Elements::F64(all(json, count, Scalar::float)?),
            Elements::F16(_) => Elements::F16(all(json, count, half)?),
            Elements::I8(_) => Elements::I8(all(json, count, Scalar::whole)?),
            Elements::I16(_) => Elements::I16(all(json, count, Scalar::whole)?),
            Elements::I32(_) => Elements::I32(all(json, count, Scalar::whole)?),
            Elements::I64(_) => Elements::I64(all(json, count, Scalar::whole)?),
            Elements::U8(_) => Elements::U8(all(json, count, Scalar::whole)?),
            Elements::U16(_) => Elements::U16(all(json, count, Scalar::whole)?),
            Elements::U32(_) => Elements::U32(all(json, count, Scalar::whole)?),
            Elements::U64(_) => Elements::U64(all(json, count, Scalar::whole)?),
            Elements::Bool(_) => Elements::Bool(all(json, count, Scalar::flag)?),
        })
    }
}

fn all<'de, D: Deserializer<'de>, T>(
    json: D,
    count_max: usize,
    read: impl Fn(Scalar) -> Option<T>,
) -> Result<Vec<T>, D::Error> {
    json.deserialize_seq(All { count_max, read })
}

struct All<F> {
    count_max: usize,
    read: F,
}

impl<'de, T, F: Fn(Scalar) -> Option<T>> Visitor<'de> for All<F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data, a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(scalar) = list.next_element::<Scalar>()? {
            let index = numbers.len();
            if index == self.count_max {
                return Err(A::Error::custom(format!("more than {index} numbers for its shape")));
            }
            let misfit =
                || A::Error::custom(format!("data[{index}] is {scalar}, which does not fit"));
            numbers.push((self.read)(scalar).ok_or_else(misfit)?);
        }
        Ok(numbers)
    }
}

/// One number, or true or false.
#[derive(Clone, Copy)]
enum Scalar {
    Whole(i128),
    Float(f64),
    Flag(bool),
}

impl Scalar {
    fn float(self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "as JSON's own numbers")]
            Self::Whole(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            Self::Flag(_) => None,
        }
    }

    fn whole<T: TryFrom<i128>>(self) -> Option<T> {
        match self {
            Self::Whole(number) => T::try_from(number).ok(),
            Self::Float(_) | Self::Flag(_) => None,
        }
    }

    fn flag(self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(flag),
            Self::Whole(_) | Self::Float(_) => None,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfScalar;

        impl Visitor<'_> for OfScalar {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar::Flag(flag))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(number))
            }
        }

        deserializer.deserialize_any(OfScalar)
    }
}
