//! Progressive JPEGs, as browsers and phones send them: first each block's colour, then its detail, and then further bits of both.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::ops::Range;

use image::RgbImage;

use super::made::ycbcr;

const SIDE: usize = 8;
/// Coefficients of a block, by how fine they are.
type Block = [i32; SIDE * SIDE];
/// What each coefficient is divided by.
const STEP: i32 = 4;
/// In which scan what comes: coefficients, the bits that came before, and the lowest bit now. 0 is that none came.
const SCANS: [(Range<u8>, u8, u8); 6] =
    [(0..1, 0, 1), (1..6, 0, 2), (6..64, 0, 2), (1..64, 2, 1), (0..1, 1, 0), (1..64, 1, 0)];

/// A picture, and where the code of each of its scans lies. Its sides are multiples of 8.
pub(crate) fn progressive_jpeg(picture: &RgbImage) -> (Vec<u8>, Vec<Range<usize>>) {
    let side = |side: u32| u16::try_from(side).unwrap().to_be_bytes();
    let [height, width] = [picture.height(), picture.width()].map(side);
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    bytes.extend([u8::try_from(STEP).unwrap(); 64]);
    bytes.extend([0xff, 0xc2, 0, 17, 8, height[0], height[1], width[0], width[1], 3]);
    bytes.extend([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
    // Lengths of colours in 4 bits each; for details 100 codes of 8 bits, and 156 of 9.
    bytes.extend([&[0xff, 0xc4, 0, 31, 0x00, 0, 0, 0, 12], &[0; 12][..]].concat());
    bytes.extend(0..12);
    bytes.extend([&[0xff, 0xc4, 1, 19, 0x10, 0, 0, 0, 0, 0, 0, 0, 100, 156], &[0; 7][..]].concat());
    bytes.extend(0..=255);
    let components = blocks(picture);
    let mut scans = Vec::new();
    for (range, before, now) in SCANS {
        // Colours come together, details one component after the other.
        let at_once = if range.start == 0 { 3 } else { 1 };
        for together in (0..3).step_by(at_once).map(|first| first..first + at_once) {
            let count = u8::try_from(together.len()).unwrap();
            bytes.extend([0xff, 0xda, 0, 6 + 2 * count, count]);
            bytes.extend(together.clone().flat_map(|one| [u8::try_from(one + 1).unwrap(), 0]));
            bytes.extend([range.start, range.end - 1, before << 4 | now]);
            let from = bytes.len();
            bytes.extend(scan(&components[together], &range, before > 0, now));
            scans.push(from..bytes.len());
        }
    }
    bytes.extend([0xff, 0xd9]);
    (bytes, scans)
}

/// The blocks of each component.
fn blocks(picture: &RgbImage) -> Vec<Vec<Block>> {
    let (width, samples) = (picture.width() as usize, ycbcr(picture));
    let places = (0..picture.height() as usize)
        .step_by(SIDE)
        .flat_map(|y| (0..width).step_by(SIDE).map(move |x| (x, y)));
    let places: Vec<_> = places.collect();
    let block = |component: usize, (left, top): (usize, usize)| {
        let at = |x: usize, y: usize| samples[3 * ((top + y) * width + left + x) + component];
        transformed(&|x, y| f64::from(at(x, y)) - 128.0)
    };
    (0..3).map(|component| places.iter().map(|&place| block(component, place)).collect()).collect()
}

/// The cosine transform of a block.
#[expect(clippy::cast_possible_truncation, reason = "a few thousand at most")]
fn transformed(at: &dyn Fn(usize, usize) -> f64) -> Block {
    let wave = |place: usize, of: usize| ((2 * place + 1) as f64 * of as f64 * PI / 16.0).cos();
    let scale = |of: usize| if of == 0 { FRAC_1_SQRT_2 } else { 1.0 };
    let mut order: Vec<(usize, usize)> =
        (0..SIDE).flat_map(|v| (0..SIDE).map(move |u| (u, v))).collect();
    // Along the diagonals, up and down in turn.
    order.sort_by_key(|&(u, v)| (u + v, if (u + v) % 2 == 0 { u } else { v }));
    let mut block = [0; SIDE * SIDE];
    for (value, (u, v)) in block.iter_mut().zip(order) {
        let places = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y)));
        let sum: f64 = places.map(|(x, y)| at(x, y) * wave(x, u) * wave(y, v)).sum();
        let coefficient = sum * scale(u) * scale(v) / 4.0 / f64::from(STEP);
        *value = coefficient.round() as i32;
    }
    block
}

fn scan(components: &[Vec<Block>], range: &Range<u8>, refines: bool, low: u8) -> Vec<u8> {
    let mut code = Code::default();
    let mut before = vec![0; components.len()];
    for at in 0..components[0].len() {
        for (component, before) in components.iter().zip(&mut before) {
            let block = &component[at];
            match (range.start, refines) {
                (0, false) => {
                    let colour = block[0] >> low;
                    let length = code.size(colour - *before);
                    code.bits(length.into(), 4);
                    code.number(colour - *before, length);
                    *before = colour;
                }
                (0, true) => code.bits(u32::from(block[0] >> low & 1 == 1), 1),
                (_, false) => code.detail(&block[usize::from(range.start)..range.end.into()], low),
                (_, true) => code.refined(&block[usize::from(range.start)..range.end.into()], low),
            }
        }
    }
    code.finish()
}

#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    waiting: u32,
    count: u32,
}

impl Code {
    fn bits(&mut self, value: u32, length: u32) {
        for at in (0..length).rev() {
            self.waiting = self.waiting << 1 | (value >> at & 1);
            self.count += 1;
            if self.count == 8 {
                let byte = u8::try_from(self.waiting).unwrap();
                self.bytes.extend(if byte == 0xff { vec![byte, 0] } else { vec![byte] });
                (self.waiting, self.count) = (0, 0);
            }
        }
    }

    fn symbol(&mut self, symbol: u8) {
        match symbol {
            0..100 => self.bits(symbol.into(), 8),
            _ => self.bits(u32::from(symbol) + 100, 9),
        }
    }

    /// How many bits a number takes.
    fn size(&self, number: i32) -> u8 {
        u8::try_from(32 - number.unsigned_abs().leading_zeros()).unwrap()
    }

    /// A number; one that is negative has its bits turned.
    fn number(&mut self, number: i32, length: u8) {
        let value = if number < 0 { number - 1 } else { number }.cast_unsigned();
        self.bits(value & ((1 << length) - 1), length.into());
    }

    fn detail(&mut self, coefficients: &[i32], low: u8) {
        let mut zeros = 0;
        for coefficient in coefficients.iter().map(|coefficient| coefficient / (1 << low)) {
            if coefficient == 0 {
                zeros += 1;
                continue;
            }
            (0..zeros / 16).for_each(|_| self.symbol(0xf0));
            let length = self.size(coefficient);
            self.symbol((zeros % 16) << 4 | length);
            self.number(coefficient, length);
            zeros = 0;
        }
        if zeros > 0 {
            self.symbol(0);
        }
    }

    fn refined(&mut self, coefficients: &[i32], low: u8) {
        let values: Vec<u32> =
            coefficients.iter().map(|coefficient| coefficient.unsigned_abs() >> low).collect();
        let last = values.iter().rposition(|&value| value == 1);
        let (mut zeros, mut further) = (0, Vec::new());
        for (at, &value) in values.iter().enumerate() {
            if value == 0 {
                zeros += 1;
                continue;
            }
            while zeros > 15 && last.is_some_and(|last| at <= last) {
                self.symbol(0xf0);
                further.drain(..).for_each(|bit| self.bits(bit, 1));
                zeros -= 16;
            }
            if value > 1 {
                further.push(value & 1);
                continue;
            }
            self.symbol(zeros << 4 | 1);
            self.bits(u32::from(coefficients[at] > 0), 1);
            further.drain(..).for_each(|bit| self.bits(bit, 1));
            zeros = 0;
        }
        if zeros > 0 || !further.is_empty() {
            self.symbol(0);
            further.drain(..).for_each(|bit| self.bits(bit, 1));
        }
    }

    fn finish(mut self) -> Vec<u8> {
        while self.count > 0 {
            self.bits(1, 1);
        }
        self.bytes
    }
}
