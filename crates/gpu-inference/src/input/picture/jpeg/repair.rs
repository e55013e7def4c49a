//! Coded data whose damaged parts are replaced by blocks without a change: the decoder would give up at the first of them.

use super::entropy::{Bits, Stop, Table};
use super::{PREFIX, RESTART_FIRST, RESTART_LAST, STUFFED};

/// Numbers of restart marks, which begin again after the last.
const NUMBERS: u8 = RESTART_LAST - RESTART_FIRST + 1;
/// A mark up to this many numbers ahead shows that those between are lost; one farther ahead is damage that looks like a mark.
const AHEAD_MAX: u8 = 3;

/// Coded data between two restart marks, and the number of the mark behind it.
#[derive(Default)]
pub(super) struct Interval<'a> {
    pub(super) bytes: &'a [u8],
    mark: Option<u8>,
}

impl Interval<'_> {
    pub(super) fn is_last(&self) -> bool {
        self.mark.is_none()
    }
}

/// The intervals of coded data; all of it is one where there should be no marks.
pub(super) struct Intervals<'a> {
    rest: Option<&'a [u8]>,
    marked: bool,
}

impl<'a> Intervals<'a> {
    pub(super) fn of(coded: &'a [u8], marked: bool) -> Self {
        Self { rest: Some(coded), marked }
    }

    /// How many intervals are lost behind the one of this number, before the next one that is there.
    pub(super) fn lost_behind(&mut self, interval: &Interval<'_>, number: usize) -> usize {
        let mut mark = interval.mark;
        while let Some(found) = mark {
            let expected = u8::try_from(number % usize::from(NUMBERS)).unwrap_or(0);
            let ahead = (found + NUMBERS - expected) % NUMBERS;
            if ahead <= AHEAD_MAX {
                return ahead.into();
            }
            // Bytes that are no mark cut an interval in two: its end has nothing to begin with.
            mark = self.next().and_then(|interval| interval.mark);
        }
        0
    }
}

impl<'a> Iterator for Intervals<'a> {
    type Item = Interval<'a>;

    fn next(&mut self) -> Option<Interval<'a>> {
        let bytes = self.rest?;
        let is_mark =
            |pair: &[u8]| pair[0] == PREFIX && (RESTART_FIRST..=RESTART_LAST).contains(&pair[1]);
        match bytes.windows(2).position(is_mark).filter(|_| self.marked) {
            Some(at) => {
                self.rest = Some(&bytes[at + 2..]);
                Some(Interval { bytes: &bytes[..at], mark: Some(bytes[at + 1] - RESTART_FIRST) })
            }
            None => self.rest.take().map(|bytes| Interval { bytes, mark: None }),
        }
    }
}

/// A scan's coded data that is written anew.
#[derive(Default)]
pub(super) struct Repaired {
    pub(super) bytes: Vec<u8>,
    waiting: u32,
    count: u8,
    intervals: usize,
}

impl Repaired {
    /// Begins the next interval, behind its mark.
    pub(super) fn begin_interval(&mut self) {
        if self.intervals > 0 {
            // The last byte is filled up with ones.
            let spare = (8 - self.count % 8) % 8;
            self.push((1 << spare) - 1, spare);
            let number = u8::try_from((self.intervals - 1) % usize::from(NUMBERS)).unwrap_or(0);
            self.bytes.extend([PREFIX, RESTART_FIRST + number]);
        }
        self.intervals += 1;
    }

    /// Copies the first bits of an interval.
    pub(super) fn copy(&mut self, interval: &[u8], bits: u64) {
        let mut from = Bits::of(interval);
        let mut left = bits;
        while left > 0 {
            let length = u8::try_from(left.min(8)).unwrap_or(8);
            let Ok(taken) = from.take(length) else { return };
            self.push(taken, length);
            left -= u64::from(length);
        }
    }

    /// A block that is the colour of the one before it, or has no detail: a 0 in each of the tables.
    pub(super) fn unchanged(&mut self, tables: &[Option<&Table>]) -> Result<(), Stop> {
        for table in tables {
            let (length, code) = table.and_then(|table| table.code(0)).ok_or(Stop::Code)?;
            self.push(code, length);
        }
        Ok(())
    }

    /// The whole of the data.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let spare = (8 - self.count % 8) % 8;
        self.push((1 << spare) - 1, spare);
        self.bytes
    }

    fn push(&mut self, bits: u32, length: u8) {
        self.waiting = self.waiting << length | bits;
        self.count += length;
        while self.count >= 8 {
            self.count -= 8;
            let byte = u8::try_from(self.waiting >> self.count & 0xff).unwrap_or(0);
            self.bytes.push(byte);
            if byte == PREFIX {
                self.bytes.push(STUFFED);
            }
        }
        self.waiting &= (1 << self.count) - 1;
    }
}
