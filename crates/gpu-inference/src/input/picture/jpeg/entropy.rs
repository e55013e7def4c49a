//! Which of a JPEG's blocks its coded data holds: Huffman's code is read, and no pixel is computed.

use std::borrow::Cow;
use std::ops::Range;

use super::frame::Frame;
use super::repair::{Interval, Intervals, Repaired};
use super::{PREFIX, STUFFED};
use crate::input::picture::Problem;

/// Coefficients of a block.
const COEFFICIENTS: u8 = 64;
/// Tables of a kind.
const TABLES: usize = 4;
/// Longest code in bits, and those that are looked up at once.
const CODE_BITS_MAX: u8 = 16;
const LOOKUP_BITS: u8 = 8;
/// A coefficient of which no bit came yet.
const NOTHING: u8 = u8::MAX;

/// What was read of a picture's scans.
#[derive(Default)]
pub(super) struct Scans {
    frame: Option<Frame>,
    /// Huffman's tables: for the first coefficient of blocks, and for the others.
    first: [Option<Table>; TABLES],
    others: [Option<Table>; TABLES],
    /// Units between two restart marks; 0 where there are none.
    restarts: usize,
    seen: Vec<Seen>,
    count: usize,
    /// Units of damaged scans that are lost, and of how many.
    lost: usize,
    of: usize,
    /// Scans of a progressive picture that are damaged, or build on one that is.
    damaged: usize,
    /// Whether the data of the last scan ends too early.
    is_short: bool,
}

/// What came of a component.
struct Seen {
    /// Lowest bit of each coefficient that came.
    bits: [u8; COEFFICIENTS as usize],
    /// The coefficients of each block that are not 0, in a progressive picture: they decide how later scans are read.
    set: Vec<u64>,
    /// Coefficients that a damaged scan had: what is set of them is not known.
    doubtful: u64,
}

/// Why a block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The data ends.
    End,
    /// No code begins so.
    Code,
}

impl Scans {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn begin(&mut self, frame: Frame) -> Result<(), Problem> {
        if self.frame.is_some() {
            return Err(Problem::damaged("it has two headers"));
        }
        let seen = |component: &super::frame::Component| {
            let blocks = frame.units.pixels() * u64::from(component.across * component.down);
            let kept = if frame.progressive { usize::try_from(blocks).unwrap_or(0) } else { 0 };
            Seen { bits: [NOTHING; COEFFICIENTS as usize], set: vec![0; kept], doubtful: 0 }
        };
        self.seen = frame.components.iter().map(seen).collect();
        self.frame = Some(frame);
        Ok(())
    }

    pub(super) fn add_tables(&mut self, mut content: &[u8]) -> Result<(), Problem> {
        while let [place, rest @ ..] = content {
            let (table, length) =
                Table::parse(rest).ok_or(Problem::damaged("a table of its code is damaged"))?;
            let tables = if place >> 4 == 0 { &mut self.first } else { &mut self.others };
            let slot = tables.get_mut(usize::from(place & 0xf));
            *slot.ok_or(Problem::damaged("a table of its code has no place"))? = Some(table);
            content = &rest[length..];
        }
        Ok(())
    }

    pub(super) fn set_restarts(&mut self, content: &[u8]) -> Result<(), Problem> {
        let interval = content.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        self.restarts = interval.ok_or(Problem::damaged("its restart interval is missing"))?.into();
        Ok(())
    }

    /// Reads a scan, by its header and its coded data. Returns the data, with what is damaged in it replaced; none where the whole scan has to be
    /// left out.
    pub(super) fn read<'a>(
        &mut self,
        header: &[u8],
        coded: &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>, Problem> {
        let frame = self.frame.as_ref().ok_or(Problem::damaged("it begins without a header"))?;
        let scan = Scan::parse(header, frame).ok_or(Problem::damaged("a scan's header"))?;
        self.count += 1;
        self.is_short = false;
        let units = scan.units(frame);
        let of_interval = if self.restarts == 0 { units.max(1) } else { self.restarts };
        let known = Known { frame, first: &self.first, others: &self.others };
        let intervals = || Intervals::of(coded, self.restarts > 0);
        let is_doubtful = scan.is_doubtful(&self.seen);
        let mut read = Reading { scan: &scan, known, seen: &mut self.seen, units, of_interval };
        let mut data = Some(Cow::Borrowed(coded));
        if is_doubtful {
            (data, self.damaged) = (None, self.damaged + 1);
        } else if let Err(problem) = read.whole(intervals()) {
            let repaired = if scan.refines() { None } else { Some(read.repaired(intervals())) };
            match repaired {
                Some(Err(problem)) if scan.is_needed() => return Err(problem),
                Some(Ok((_, lost))) if !scan.progressive => {
                    (self.lost, self.of) = (self.lost + lost, self.of + units);
                }
                _ => {
                    self.is_short = matches!(problem, Problem::Truncated);
                    self.damaged += 1;
                }
            }
            data = repaired.and_then(Result::ok).map(|(repaired, _)| Cow::Owned(repaired));
            scan.doubt(&mut self.seen);
        }
        for &(component, ..) in &scan.components {
            let (from, to) = (usize::from(scan.from), usize::from(scan.to));
            self.seen[component].bits[from..=to].fill(scan.low_bit);
        }
        Ok(data)
    }

    /// What of the picture was damaged; none where all is sound.
    pub(super) fn lost(&self) -> Option<String> {
        let Self { lost, of, damaged, count, .. } = self;
        if *damaged > 0 {
            let lacking = "the picture is blurred or blank in places";
            return Some(format!("{damaged} of its {count} scans are damaged: {lacking}"));
        }
        (*lost > 0).then(|| format!("{lost} of {of} blocks of the picture were left out"))
    }

    /// Whether each component came, and without an end mark each bit of it, too.
    pub(super) fn check_complete(&self, ended: bool) -> Result<(), Problem> {
        let lacks = |seen: &Seen| {
            seen.bits[0] == NOTHING || (!ended && seen.bits.iter().any(|&low_bit| low_bit != 0))
        };
        if self.seen.is_empty() || self.is_short || self.seen.iter().any(lacks) {
            return Err(Problem::Truncated);
        }
        Ok(())
    }
}

/// A scan that is being read.
struct Reading<'a> {
    scan: &'a Scan,
    known: Known<'a>,
    seen: &'a mut [Seen],
    units: usize,
    of_interval: usize,
}

/// How far an interval could be read: units, bits, and why no further.
struct Read {
    units: usize,
    bits: u64,
    stop: Option<Stop>,
}

impl Reading<'_> {
    /// Reads all, where all is sound.
    fn whole(&mut self, mut intervals: Intervals<'_>) -> Result<(), Problem> {
        for from in (0..self.units).step_by(self.of_interval) {
            let Some(interval) = intervals.next() else { return Err(Problem::Truncated) };
            let Read { units, stop, .. } = self.interval(&interval, self.range_at(from));
            match stop {
                None => {}
                Some(Stop::End) => return Err(Problem::Truncated),
                Some(Stop::Code) => {
                    let (unit, all) = (from + units, self.units);
                    let problem = format!("it has a damaged code in part {unit} of {all}");
                    return Err(Problem::Damaged(problem));
                }
            }
        }
        Ok(())
    }

    /// The data with units that are damaged or lost replaced by such that show no change, and how many they are.
    fn repaired(&mut self, mut intervals: Intervals<'_>) -> Result<(Vec<u8>, usize), Problem> {
        let mut repaired = Repaired::default();
        let (mut done, mut number, mut lost) = (0, 0, 0);
        while done < self.units {
            let interval = match intervals.next() {
                Some(interval) => interval,
                // Of a progressive picture further scans may follow.
                None if self.scan.progressive => Interval::default(),
                None => return Err(Problem::Truncated),
            };
            let range = self.range_at(done);
            let Read { units, bits, stop } = self.interval(&interval, range.clone());
            if stop == Some(Stop::End) && interval.is_last() && !self.scan.progressive {
                return Err(Problem::Truncated);
            }
            repaired.begin_interval();
            repaired.copy(interval.bytes, bits);
            self.unchanged(range.len() - units, &mut repaired)?;
            // What could be read to its end and has bytes left was read wrongly from some place on.
            lost += if stop.is_some() { (range.len() - units).max(1) } else { 0 };
            done = range.end;
            for _ in 0..intervals.lost_behind(&interval, number) {
                let range = self.range_at(done);
                if !range.is_empty() {
                    repaired.begin_interval();
                    self.unchanged(range.len(), &mut repaired)?;
                    (done, number, lost) = (range.end, number + 1, lost + range.len());
                }
            }
            number += 1;
        }
        if lost == self.units {
            return Err(Problem::damaged("none of its pixels can be decoded"));
        }
        Ok((repaired.finish(), lost))
    }

    /// The units of an interval.
    fn range_at(&self, unit: usize) -> Range<usize> {
        unit..self.units.min(unit.saturating_add(self.of_interval))
    }

    fn interval(&mut self, interval: &Interval<'_>, units: Range<usize>) -> Read {
        let mut reader = Blocks { bits: Bits::of(interval.bytes), zeros_run: 0 };
        let mut read = Read { units: 0, bits: 0, stop: None };
        for unit in units {
            match self.scan.unit(unit, &self.known, self.seen, &mut reader) {
                Ok(()) => read = Read { units: read.units + 1, bits: reader.bits.at(), stop: None },
                Err(stop) => return Read { stop: Some(stop), ..read },
            }
        }
        if !interval.is_last() && !self.scan.progressive && reader.bits.has_bytes() {
            read.stop = Some(Stop::Code);
        }
        read
    }

    fn unchanged(&self, units: usize, repaired: &mut Repaired) -> Result<(), Problem> {
        let is_alone = self.scan.components.len() == 1;
        for _ in 0..units {
            for &(component, first, others) in &self.scan.components {
                let first = table(self.known.first, first);
                let others = table(self.known.others, others);
                let tables = match (self.scan.progressive, self.scan.from) {
                    (false, _) => &[first, others][..],
                    (true, 0) => &[first],
                    (true, _) => &[others],
                };
                let component = &self.known.frame.components[component];
                let blocks = if is_alone { 1 } else { component.across * component.down };
                for _ in 0..blocks {
                    let written = repaired.unchanged(tables);
                    written.map_err(|_| Problem::damaged("it has a damaged code"))?;
                }
            }
        }
        Ok(())
    }
}

/// The header of a scan.
struct Scan {
    /// Component, and its tables.
    components: Vec<(usize, usize, usize)>,
    progressive: bool,
    from: u8,
    to: u8,
    high_bit: u8,
    low_bit: u8,
}

/// What scans are read by.
struct Known<'a> {
    frame: &'a Frame,
    first: &'a [Option<Table>; TABLES],
    others: &'a [Option<Table>; TABLES],
}

impl Scan {
    fn parse(header: &[u8], frame: &Frame) -> Option<Self> {
        let (count, rest) = header.split_first()?;
        let (described, rest) = rest.split_at_checked(2 * usize::from(*count))?;
        let component = |one: &[u8]| {
            let place = frame.components.iter().position(|component| component.id == one[0])?;
            Some((place, usize::from(one[1] >> 4), usize::from(one[1] & 0xf)))
        };
        let components: Vec<_> = described.chunks_exact(2).map(component).collect::<Option<_>>()?;
        let [from, to, bits, ..] = *rest else { return None };
        let progressive = frame.progressive;
        let (from, to) = if progressive { (from, to) } else { (0, COEFFICIENTS - 1) };
        let valid = from <= to && to < COEFFICIENTS && !components.is_empty();
        let (high_bit, low_bit) = if progressive { (bits >> 4, bits & 0xf) } else { (0, 0) };
        valid.then_some(Self { components, progressive, from, to, high_bit, low_bit })
    }

    /// Whether it adds bits to coefficients that came before.
    fn refines(&self) -> bool {
        self.high_bit > 0
    }

    /// Whether nothing of its components can be shown without it.
    fn is_needed(&self) -> bool {
        self.from == 0 && !self.refines()
    }

    /// Whether it goes on with coefficients of which something is lost.
    fn is_doubtful(&self, seen: &[Seen]) -> bool {
        let is_doubtful = |component: usize| seen[component].doubtful & self.mask() != 0;
        self.progressive && self.components.iter().any(|&(component, ..)| is_doubtful(component))
    }

    /// Remembers that some of its coefficients are lost. Those that blocks begin with are read without regard to what came before.
    fn doubt(&self, seen: &mut [Seen]) {
        for &(component, ..) in &self.components {
            seen[component].doubtful |= self.mask() & !1;
        }
    }

    /// Its coefficients, a bit each.
    fn mask(&self) -> u64 {
        u64::MAX << self.from & u64::MAX >> (COEFFICIENTS - 1 - self.to)
    }

    /// Units of several components, or blocks of one.
    fn units(&self, frame: &Frame) -> usize {
        let size = match self.components[..] {
            [(component, ..)] => frame.components[component].blocks,
            _ => frame.units,
        };
        usize::try_from(size.pixels()).unwrap_or(usize::MAX)
    }

    fn unit(
        &self,
        unit: usize,
        known: &Known<'_>,
        seen: &mut [Seen],
        reader: &mut Blocks<'_>,
    ) -> Result<(), Stop> {
        let own = |side: u32| side as usize;
        let frame = known.frame;
        for &(component, first, others) in &self.components {
            let set = &mut seen[component].set;
            let tables = (table(known.first, first), table(known.others, others));
            let component = &frame.components[component];
            let (across, down) = (own(component.across), own(component.down));
            let stride = own(frame.units.width) * across;
            if self.components.len() == 1 {
                let width = own(component.blocks.width);
                let block = unit / width * stride + unit % width;
                self.block(set.get_mut(block), tables, reader)?;
                continue;
            }
            let (row, column) = (unit / own(frame.units.width), unit % own(frame.units.width));
            for y in row * down..(row + 1) * down {
                for x in column * across..(column + 1) * across {
                    self.block(set.get_mut(y * stride + x), tables, reader)?;
                }
            }
        }
        Ok(())
    }

    fn block(
        &self,
        set: Option<&mut u64>,
        (first, others): (Option<&Table>, Option<&Table>),
        reader: &mut Blocks<'_>,
    ) -> Result<(), Stop> {
        let mut unused = 0;
        let set = set.unwrap_or(&mut unused);
        match (self.progressive, self.from, self.high_bit) {
            (false, ..) => {
                reader.first(first)?;
                reader.others(others, 1, COEFFICIENTS - 1, set)
            }
            (true, 0, 0) => reader.first(first),
            (true, 0, _) => reader.bits.skip(1),
            (true, from, 0) => reader.others(others, from, self.to, set),
            (true, from, _) => reader.refined(others, from, self.to, set),
        }
    }
}

fn table(tables: &[Option<Table>; TABLES], place: usize) -> Option<&Table> {
    tables.get(place).and_then(Option::as_ref)
}

/// Blocks, one after the other.
struct Blocks<'a> {
    bits: Bits<'a>,
    /// Blocks to come in which no further coefficient is set.
    zeros_run: u32,
}

impl Blocks<'_> {
    /// The first coefficient.
    fn first(&mut self, table: Option<&Table>) -> Result<(), Stop> {
        match self.bits.symbol(table)? {
            length @ 0..=CODE_BITS_MAX => self.bits.skip(length),
            _ => Err(Stop::Code),
        }
    }

    /// The coefficients from `from` to `to`.
    fn others(
        &mut self,
        table: Option<&Table>,
        from: u8,
        to: u8,
        set: &mut u64,
    ) -> Result<(), Stop> {
        if self.zeros_run > 0 {
            self.zeros_run -= 1;
            return Ok(());
        }
        let mut at = from;
        while at <= to {
            let symbol = self.bits.symbol(table)?;
            let (zeros, length) = (symbol >> 4, symbol & 0xf);
            if length == 0 && zeros < 15 {
                self.zeros_run = self.run(zeros)? - 1;
                break;
            }
            at += zeros;
            if length > 0 {
                self.bits.skip(length)?;
                *set |= 1_u64.checked_shl(at.into()).unwrap_or(0);
            }
            at += 1;
        }
        Ok(())
    }

    /// One more bit of the coefficients from `from` to `to`: those that are set have one each, wherever they lie.
    fn refined(
        &mut self,
        table: Option<&Table>,
        from: u8,
        to: u8,
        set: &mut u64,
    ) -> Result<(), Stop> {
        let mut at = from;
        while self.zeros_run == 0 && at <= to {
            let symbol = self.bits.symbol(table)?;
            let (mut zeros, length) = (symbol >> 4, symbol & 0xf);
            if length == 0 && zeros < 15 {
                self.zeros_run = self.run(zeros)?;
                break;
            }
            if length > 0 {
                self.bits.skip(1)?;
            }
            while at <= to {
                if *set >> at & 1 == 1 {
                    self.bits.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if length > 0 && at <= to {
                *set |= 1 << at;
            }
            at += 1;
        }
        if self.zeros_run > 0 {
            let left = (at..=to).filter(|&at| *set >> at & 1 == 1).count();
            for _ in 0..left {
                self.bits.skip(1)?;
            }
            self.zeros_run -= 1;
        }
        Ok(())
    }

    /// Blocks without a further coefficient, this one included.
    fn run(&mut self, length: u8) -> Result<u32, Stop> {
        Ok((1 << length) + self.bits.take(length)?)
    }
}

/// Bits of coded data, from the highest of each byte on.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    waiting: u32,
    count: u8,
    /// Bits that ever waited.
    filled: u64,
}

impl<'a> Bits<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, waiting: 0, count: 0, filled: 0 }
    }

    /// How many were taken.
    fn at(&self) -> u64 {
        self.filled - u64::from(self.count)
    }

    /// Whether whole bytes are left that do not just fill up.
    fn has_bytes(&self) -> bool {
        let waiting = u32::from(self.count / 8);
        let ones = (1_u32 << (8 * waiting)) - 1;
        self.waiting & ones != ones || self.bytes.iter().any(|&byte| byte != PREFIX)
    }

    /// Gets bytes until 16 bits wait, or no byte is left.
    fn fill(&mut self) {
        while self.count <= CODE_BITS_MAX
            && let [byte, rest @ ..] = self.bytes
        {
            self.waiting = self.waiting << 8 | u32::from(*byte);
            self.count += 8;
            self.filled += 8;
            // A byte that could be a marker's prefix has a 0 behind it.
            let stuffed = *byte == PREFIX && rest.first() == Some(&STUFFED);
            self.bytes = if stuffed { &rest[1..] } else { rest };
        }
    }

    pub(super) fn take(&mut self, length: u8) -> Result<u32, Stop> {
        self.fill();
        self.count = self.count.checked_sub(length).ok_or(Stop::End)?;
        let taken = self.waiting >> self.count & ((1 << length) - 1);
        self.waiting &= (1 << self.count) - 1;
        Ok(taken)
    }

    fn skip(&mut self, length: u8) -> Result<(), Stop> {
        self.take(length).map(drop)
    }

    fn symbol(&mut self, table: Option<&Table>) -> Result<u8, Stop> {
        let table = table.ok_or(Stop::Code)?;
        self.fill();
        // What is missing at the end is read as ones, which begin no whole code.
        let missing = CODE_BITS_MAX.saturating_sub(self.count);
        let ahead = self.count.saturating_sub(CODE_BITS_MAX);
        let next = (self.waiting >> ahead << missing) | ((1 << missing) - 1);
        match table.find(next) {
            Some((length, symbol)) => self.skip(length).map(|()| symbol),
            None if missing > 0 => Err(Stop::End),
            None => Err(Stop::Code),
        }
    }
}

/// A table of Huffman's code.
pub(super) struct Table {
    /// Length and symbol of the codes that begin with these bits; a length of 0 where they are longer.
    short: Vec<(u8, u8)>,
    /// By length: the code behind the last of it, in 16 bits, and where its symbols begin less its first code.
    ends: [u32; CODE_BITS_MAX as usize + 1],
    starts: [i64; CODE_BITS_MAX as usize + 1],
    symbols: Vec<u8>,
}

impl Table {
    /// A table, and how many bytes it takes.
    fn parse(content: &[u8]) -> Option<(Self, usize)> {
        let (counts, rest) = content.split_at_checked(CODE_BITS_MAX.into())?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let symbols = rest.get(..total)?.to_vec();
        let mut table = Self {
            short: vec![(0, 0); 1 << LOOKUP_BITS],
            ends: [0; CODE_BITS_MAX as usize + 1],
            starts: [0; CODE_BITS_MAX as usize + 1],
            symbols,
        };
        let (mut code, mut before) = (0_u32, 0_i64);
        for (length, &count) in (1..=CODE_BITS_MAX).zip(counts) {
            table.starts[usize::from(length)] = before - i64::from(code);
            code += u32::from(count);
            before += i64::from(count);
            let end = code << (CODE_BITS_MAX - length);
            if end > 1 << CODE_BITS_MAX {
                return None;
            }
            table.ends[usize::from(length)] = end;
            code <<= 1;
        }
        for prefix in 0..1_u32 << LOOKUP_BITS {
            let found = table.search(prefix << (CODE_BITS_MAX - LOOKUP_BITS));
            let found = found.filter(|(length, _)| *length <= LOOKUP_BITS);
            table.short[prefix as usize] = found.unwrap_or((0, 0));
        }
        Some((table, usize::from(CODE_BITS_MAX) + total))
    }

    /// Length and code of a symbol.
    pub(super) fn code(&self, symbol: u8) -> Option<(u8, u32)> {
        let index = i64::try_from(self.symbols.iter().position(|&own| own == symbol)?).ok()?;
        (1..=CODE_BITS_MAX).find_map(|length| {
            let code = u32::try_from(index - self.starts[usize::from(length)]).ok()?;
            let is_long_enough = code < 1 << length;
            let found = || self.find(code << (CODE_BITS_MAX - length));
            (is_long_enough && found() == Some((length, symbol))).then_some((length, code))
        })
    }

    /// Length and symbol of the code that these 16 bits begin with.
    fn find(&self, bits: u32) -> Option<(u8, u8)> {
        match self.short[(bits >> (CODE_BITS_MAX - LOOKUP_BITS)) as usize] {
            (0, _) => self.search(bits),
            found => Some(found),
        }
    }

    fn search(&self, bits: u32) -> Option<(u8, u8)> {
        let length = (1..=CODE_BITS_MAX).find(|&length| bits < self.ends[usize::from(length)])?;
        let code = i64::from(bits >> (CODE_BITS_MAX - length));
        let index = usize::try_from(self.starts[usize::from(length)] + code).ok()?;
        Some((length, *self.symbols.get(index)?))
    }
}
