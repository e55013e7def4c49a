//! Edits of an ONNX file's bytes before ONNX Runtime reads them.
//!
//! Some exporters wrote the sizes of their example into the graph (CenterFace: 10 pictures of 32 x 32), which the
//! runtime then insists on, and listed the weights among the inputs, which then are no constants to it. Neither edit
//! changes a byte's position: a number becomes a name of its length, and a listed weight a field that no reader knows.

use std::collections::HashSet;
use std::ops::Range;

/// Field numbers of `onnx.proto`.
mod field {
    pub(super) const MODEL_GRAPH: u64 = 7;
    pub(super) const GRAPH_INITIALIZER: u64 = 5;
    pub(super) const GRAPH_INPUT: u64 = 11;
    pub(super) const GRAPH_OUTPUT: u64 = 12;
    pub(super) const GRAPH_VALUE: u64 = 13;
    pub(super) const INITIALIZER_NAME: u64 = 8;
    pub(super) const VALUE_NAME: u64 = 1;
    pub(super) const VALUE_TYPE: u64 = 2;
    pub(super) const TYPE_TENSOR: u64 = 1;
    pub(super) const TENSOR_SHAPE: u64 = 2;
}

/// A dimension's number (field 1, a varint) and its name (field 2, with a length).
const DIMENSION_NUMBER: u8 = 0x08;
const DIMENSION_NAME: u8 = 0x12;
/// What a freed dimension is called, as often as its number had bytes to spare.
const FREE: u8 = b'n';

/// The key of an entry of a graph's inputs, and the key of a field with a length that `onnx.proto` keeps free.
const INPUT_KEY: u8 = 0x5a;
const UNUSED_KEY: u8 = 0x4a;

/// Takes the weights off the list of inputs, so that they are constants. Says how many there were.
pub(crate) fn fix_weights(file: &mut [u8]) -> usize {
    let mut positions = Vec::new();
    for graph in of_field(file, 0..file.len(), &[field::MODEL_GRAPH]) {
        let names = [field::GRAPH_INITIALIZER, field::INITIALIZER_NAME];
        let weights: HashSet<&[u8]> =
            of_field(file, graph.clone(), &names).map(|name| &file[name]).collect();
        let mut fields = Fields { file, at: graph.start, end: graph.end };
        let mut key_at = fields.at;
        while let Some((number, value)) = fields.next_at(&mut key_at) {
            let mut names = of_field(file, value, &[field::VALUE_NAME]);
            if number == field::GRAPH_INPUT && names.any(|name| weights.contains(&file[name])) {
                positions.push(key_at);
            }
        }
    }
    let keys = positions.iter().filter(|&&at| file[at] == INPUT_KEY).count();
    for at in positions {
        if file[at] == INPUT_KEY {
            file[at] = UNUSED_KEY;
        }
    }
    keys
}

/// Makes these dimensions of the input of this name, and of all outputs, free. Returns how many were changed.
pub(crate) fn free_dimensions(file: &mut [u8], input: &str, dimensions: &[usize]) -> usize {
    let mut positions = Vec::new();
    for graph in of_field(file, 0..file.len(), &[field::MODEL_GRAPH]) {
        let values = [field::GRAPH_INPUT, field::GRAPH_OUTPUT, field::GRAPH_VALUE];
        for value in &values {
            for value_range in of_field(file, graph.clone(), &[*value]) {
                let mut names = of_field(file, value_range.clone(), &[field::VALUE_NAME]);
                let named = names.any(|name| &file[name] == input.as_bytes());
                if *value == field::GRAPH_INPUT && !named {
                    continue;
                }
                let path = [field::VALUE_TYPE, field::TYPE_TENSOR, field::TENSOR_SHAPE];
                for shape in of_field(file, value_range, &path) {
                    let sides = Fields { file, at: shape.start, end: shape.end };
                    let sides = sides.map(|(_, side)| side).enumerate();
                    positions.extend(sides.filter(|(index, _)| dimensions.contains(index)));
                }
            }
        }
    }
    let mut freed = 0;
    for (_, side) in positions {
        let side = &mut file[side];
        if side.len() >= 2 && side[0] == DIMENSION_NUMBER {
            side[0] = DIMENSION_NAME;
            side[1] = u8::try_from(side.len() - 2).expect("a varint has at most ten bytes");
            side[2..].fill(FREE);
            freed += 1;
        }
    }
    freed
}

/// The ranges of the fields that a path of field numbers leads to.
fn of_field<'a>(
    file: &'a [u8],
    within: Range<usize>,
    path: &'a [u64],
) -> Box<dyn Iterator<Item = Range<usize>> + 'a> {
    let Some((&first, rest)) = path.split_first() else { return Box::new(std::iter::once(within)) };
    let fields = Fields { file, at: within.start, end: within.end };
    let of_first = fields.filter(move |(number, _)| *number == first);
    Box::new(of_first.flat_map(move |(_, range)| of_field(file, range, rest)))
}

/// The fields of a message that carry a length. It ends where the bytes are not protobuf.
struct Fields<'a> {
    file: &'a [u8],
    at: usize,
    end: usize,
}

impl Iterator for Fields<'_> {
    type Item = (u64, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_at(&mut 0)
    }
}

impl Fields<'_> {
    /// The next field, and where its key is.
    fn next_at(&mut self, key_at: &mut usize) -> Option<(u64, Range<usize>)> {
        loop {
            if self.at >= self.end {
                return None;
            }
            *key_at = self.at;
            let key = self.varint()?;
            let length = match key & 7 {
                0 => {
                    self.varint()?;
                    continue;
                }
                1 => 8,
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    let range = self.at..self.at.checked_add(length)?;
                    if range.end > self.end {
                        return None;
                    }
                    self.at = range.end;
                    return Some((key >> 3, range));
                }
                5 => 4,
                _ => return None,
            };
            self.at = self.at.checked_add(length)?;
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.file[..self.end].get(self.at)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn value(kind: u8, name: &str, dimensions: &[&[u8]]) -> Vec<u8> {
        let shape: Vec<u8> = dimensions.iter().flat_map(|side| message(1, side)).collect();
        let tensor = [&[0x08, 1][..], &message(2, &shape)].concat();
        let name = message(1, name.as_bytes());
        message(kind, &[name, message(2, &message(1, &tensor))].concat())
    }

    #[test]
    fn only_the_named_input_and_the_answers_are_freed_and_no_byte_moves() {
        let graph = |first: &[u8], long: &[u8]| {
            let graph = [
                value(11, "x", &[first, &[0x08, 3], long]),
                value(11, "weight", &[&[0x08, 10], &[0x08, 3]]),
                value(12, "y", &[first, &[0x08, 1]]),
            ];
            [&[0x08, 8][..], &message(7, &graph.concat())].concat()
        };
        let mut file = graph(&[0x08, 10], &[0x08, 0x80, 0x02]);
        assert_eq!(free_dimensions(&mut file, "x", &[0, 2]), 3);
        assert_eq!(file, graph(&[0x12, 0], &[0x12, 1, b'n']));
    }

    #[test]
    fn weights_are_taken_off_the_inputs_and_no_byte_moves() {
        let weight = message(5, &message(8, b"weight"));
        let values = [value(11, "x", &[]), value(11, "weight", &[]), weight].concat();
        let mut file = message(7, &values);
        let before = file.clone();
        assert_eq!(fix_weights(&mut file), 1);
        let changed: Vec<usize> = (0..file.len()).filter(|&at| file[at] != before[at]).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!((before[changed[0]], file[changed[0]]), (INPUT_KEY, UNUSED_KEY));
        assert_eq!(fix_weights(&mut file), 0);
    }

    #[test]
    fn what_is_no_model_is_left_alone() {
        for mut bytes in [vec![], vec![0xff; 40], vec![0x3a, 0x7f, 1, 2], b"words".to_vec()] {
            let before = bytes.clone();
            assert_eq!(free_dimensions(&mut bytes, "x", &[0]) + fix_weights(&mut bytes), 0);
            assert_eq!(bytes, before);
        }
    }
}
