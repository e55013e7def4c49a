//! Traces from text: CSV, plain or compressed by gzip, read line by line from bytes that the caller has.
//!
//! Seconds become whole milliseconds without passing through a float. The first line that cannot be read ends the reading: a trace
//! with holes would lead to wrong figures in silence.

use std::io::{BufRead, BufReader, ErrorKind, Read};

use chrono::DateTime;
use flate2::read::MultiGzDecoder;
use gpuctl_core::units::{MicroUsd, NAME_CHARS_MAX, Timestamp};

use super::{ROWS_MAX, TRACE_MS_MAX};

/// The most bytes of one trace, after decompression.
pub const BYTES_MAX: u64 = 256 << 20;

/// The most bytes of one line: a hundred digits, a zone's name, and room.
pub const LINE_BYTES_MAX: usize = 1_024;

/// The highest price of an hour: a thousand times that of the dearest box, so that no sum over a trace can overflow.
const HOUR_MAX: MicroUsd = MicroUsd(100_000 * 1_000_000);

/// What an error shows of a text that cannot be read.
const SHOWN_CHARS_MAX: usize = 40;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a trace is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TraceError {
    /// The line of the (decompressed) file, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The first line does not name the columns.
    #[error("the header is `{found}`, not `{expected}`")]
    Header {
        /// The header of such a trace.
        expected: String,
        /// The first line.
        found: String,
    },
    /// Not as many cells as the header has.
    #[error("columns: {found} instead of {expected}")]
    Columns {
        /// Those of the header.
        expected: usize,
        /// Those of the line.
        found: usize,
    },
    /// Not a decimal number.
    #[error("`{text}` in column `{column}` is not a valid number of seconds")]
    Number {
        /// The column.
        column: &'static str,
        /// What stands there.
        text: String,
    },
    /// Neither 0 nor 1.
    #[error("`{text}` in column `{column}` is neither 0 nor 1")]
    Flag {
        /// The column.
        column: &'static str,
        /// What stands there.
        text: String,
    },
    /// Not a price, or one that no box has.
    #[error("`{text}` in column `{column}` is not a valid price")]
    Price {
        /// The column.
        column: &'static str,
        /// What stands there.
        text: String,
    },
    /// Not an instant.
    #[error("`{text}` in column `{column}` is not a valid time")]
    Instant {
        /// The column.
        column: &'static str,
        /// What stands there.
        text: String,
    },
    /// Not the name of a zone.
    #[error("`{0}` is not a valid zone name")]
    Zone(String),
    /// Below zero.
    #[error("column `{0}` is negative")]
    Negative(&'static str),
    /// Beyond `TRACE_MS_MAX`.
    #[error("column `{0}` is beyond ten years")]
    TooLong(&'static str),
    /// Earlier than the line before.
    #[error("earlier than the line before")]
    Unsorted,
    /// No rows at all.
    #[error("the trace is empty")]
    Empty,
    /// Beyond `ROWS_MAX`.
    #[error("more than {ROWS_MAX} rows")]
    TooManyRows,
    /// Beyond `LINE_BYTES_MAX`.
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    LongLine,
    /// Beyond `BYTES_MAX`.
    #[error("more than {} MiB after decompression", BYTES_MAX >> 20)]
    TooManyBytes,
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    Text,
    /// The compressed file ends too early.
    #[error("the gzip file is truncated: it ends in this line")]
    Truncated,
    /// The compressed file is damaged.
    #[error("the gzip file is damaged: {0}")]
    Gzip(String),
}

impl TraceError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.problem {
            Problem::Header { .. } | Problem::Columns { .. } => {
                "name exactly these columns in the first line, and fill each of them in each line"
            }
            Problem::Number { .. } => "write seconds as plain decimals, e.g. `12` or `12.345`",
            Problem::Flag { .. } => {
                "1 says that a box could be launched from then on, 0 that none could"
            }
            Problem::Price { .. } => {
                "write dollars an hour with at most six decimals, e.g. `0.2734`, up to 100000"
            }
            Problem::Instant { .. } => "write it with its offset, e.g. `2026-01-31T12:00:00Z`",
            Problem::Zone(_) => "write it as the cloud does, e.g. `us-east-1a`",
            Problem::Negative("t_s") | Problem::TooLong("t_s") => {
                "`t_s` counts seconds from the start of the trace: subtract the first instant"
            }
            Problem::Negative(_) | Problem::TooLong(_) => "check the line, or leave it out",
            Problem::Unsorted => "sort the lines by their first column",
            Problem::Empty => "give one line for each job or change after the header",
            Problem::TooManyRows | Problem::TooManyBytes => "cut the trace into shorter ones",
            Problem::Text | Problem::LongLine => "give CSV, plain or compressed by gzip",
            Problem::Truncated | Problem::Gzip(_) => "fetch or write the file again",
        }
    }
}

/// Hands the cells of each row to `row`, in order.
pub(super) fn rows<const COLUMNS: usize>(
    bytes: &[u8],
    header: [&str; COLUMNS],
    row: impl FnMut([&str; COLUMNS]) -> Result<(), Problem>,
) -> Result<(), TraceError> {
    let mut lines = Lines::of(bytes);
    lines.hand_out(header, row).map_err(|problem| TraceError { line: lines.line, problem })
}

/// The lines of a file. Not the `csv` crate: its line numbers are off after blank lines, and its rows may have any length.
struct Lines<'a> {
    source: Box<dyn BufRead + 'a>,
    buffer: Vec<u8>,
    /// The line that was asked for last.
    line: u64,
    bytes_left: u64,
    rows_left: usize,
}

impl<'a> Lines<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let source: Box<dyn BufRead + 'a> = if bytes.starts_with(&GZIP_MAGIC) {
            Box::new(BufReader::new(MultiGzDecoder::new(bytes)))
        } else {
            Box::new(bytes)
        };
        Self { source, buffer: Vec::new(), line: 0, bytes_left: BYTES_MAX, rows_left: ROWS_MAX }
    }

    fn hand_out<const COLUMNS: usize>(
        &mut self,
        header: [&str; COLUMNS],
        mut row: impl FnMut([&str; COLUMNS]) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let first = self.next()?.ok_or(Problem::Empty)?.trim_start_matches('\u{feff}');
        if cells(first) != Ok(header) {
            return Err(Problem::Header { expected: header.join(","), found: shown(first) });
        }
        let mut found = Err(Problem::Empty);
        while let Some(line) = self.next()? {
            if line.is_empty() {
                continue;
            }
            row(cells(line)?)?;
            found = Ok(());
            self.rows_left = self.rows_left.checked_sub(1).ok_or(Problem::TooManyRows)?;
        }
        found
    }

    /// The next line, without the spaces around it.
    fn next(&mut self) -> Result<Option<&str>, Problem> {
        self.line += 1;
        self.buffer.clear();
        let longest = LINE_BYTES_MAX as u64 + 1;
        let read = self.source.by_ref().take(longest).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Problem::Truncated,
            _ => Problem::Gzip(error.to_string()),
        })?;
        let bytes = read as u64;
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Problem::TooManyBytes)?;
        if bytes == longest {
            return Err(Problem::LongLine);
        }
        let text = str::from_utf8(&self.buffer).map_err(|_| Problem::Text)?;
        Ok((read > 0).then_some(text.trim()))
    }
}

/// A line's cells; some programs put all texts in quotes.
fn cells<const COLUMNS: usize>(line: &str) -> Result<[&str; COLUMNS], Problem> {
    let (mut cells, mut found) = ([""; COLUMNS], 0);
    for cell in line.split(',').map(str::trim) {
        if let Some(place) = cells.get_mut(found) {
            let unquoted = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
            *place = unquoted.unwrap_or(cell);
        }
        found += 1;
    }
    if found == COLUMNS { Ok(cells) } else { Err(Problem::Columns { expected: COLUMNS, found }) }
}

/// Milliseconds from decimal seconds; digits below a millisecond are dropped, and what is too long for an `i64` is its limit.
pub(super) fn seconds(column: &'static str, text: &str) -> Result<i64, Problem> {
    let (sign, size) = text.strip_prefix('-').map_or((1, text), |size| (-1, size));
    let (whole, fraction) = size.split_once('.').unwrap_or((size, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(Problem::Number { column, text: shown(text) });
    }
    let thousandths = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let digits = whole.bytes().chain(thousandths).map(|b| i64::from(b - b'0'));
    Ok(sign * digits.fold(0_i64, |ms, digit| ms.saturating_mul(10).saturating_add(digit)))
}

/// The name of a zone.
pub(super) fn zone(text: &str) -> Result<&str, Problem> {
    let fits = (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(text) } else { Err(Problem::Zone(shown(text))) }
}

/// 0 or 1.
pub(super) fn flag(column: &'static str, text: &str) -> Result<bool, Problem> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(Problem::Flag { column, text: shown(text) }),
    }
}

/// The price of an hour.
pub(super) fn usd(column: &'static str, text: &str) -> Result<MicroUsd, Problem> {
    let hour = MicroUsd::parse(text).filter(|hour| *hour <= HOUR_MAX);
    hour.ok_or_else(|| Problem::Price { column, text: shown(text) })
}

/// An instant with its offset from UTC.
pub(super) fn timestamp(column: &'static str, text: &str) -> Result<Timestamp, Problem> {
    let instant = DateTime::parse_from_rfc3339(text).map(|instant| instant.to_utc());
    instant.map_err(|_| Problem::Instant { column, text: shown(text) })
}

/// Whether a row may begin at `at_ms`, after one that began at `last_ms`; if so, it is the last one from here on.
pub(super) fn check_instant(at_ms: i64, last_ms: &mut i64) -> Result<(), Problem> {
    check_range("t_s", at_ms)?;
    if at_ms < *last_ms {
        return Err(Problem::Unsorted);
    }
    *last_ms = at_ms;
    Ok(())
}

/// Whether a time lies within a trace.
pub(super) fn check_range(column: &'static str, ms: i64) -> Result<(), Problem> {
    match ms {
        ..0 => Err(Problem::Negative(column)),
        0..=TRACE_MS_MAX => Ok(()),
        _ => Err(Problem::TooLong(column)),
    }
}

fn shown(text: &str) -> String {
    // What a file holds must not steer the terminal.
    let safe = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let cut = if text.chars().nth(SHOWN_CHARS_MAX).is_some() { "…" } else { "" };
    text.chars().take(SHOWN_CHARS_MAX).map(safe).chain(cut.chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::{Availability, Demand, Job, PriceHistory};
    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn rejected(bytes: &[u8]) -> String {
        Demand::read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn seconds_become_milliseconds_and_writers_may_differ() {
        let expected = [(0, 0), (50, 3_000), (1_208_997_190, 1_999), (1_208_997_190, 23_000)];
        let expected = expected.map(|(at_ms, service_ms)| Job { at_ms, service_ms });
        let text = "t_s,service_s\n0,0\n0.05,3\n1208997.190,1.9999\n1208997.19,23.\n";
        let quoted = text.replace("t_s,service_s", "\"t_s\", \"service_s\" ");
        for text in
            [text, text.trim(), &text.replace('\n', "\r\n\r\n"), &format!("\u{feff}{quoted}")]
        {
            assert_eq!(Demand::read(text.as_bytes()).unwrap().jobs(), expected, "{text:?}");
            assert_eq!(Demand::read(&gzip(text.as_bytes())).unwrap().jobs(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_demand_that_cannot_be_read_is_rejected_with_its_line() {
        let cases = [
            ("", "line 1: the trace is empty"),
            ("\n", "line 1: the header is ``, not `t_s,service_s`"),
            ("t_s,service_s\n\n", "line 3: the trace is empty"),
            ("t_s\n1\n", "line 1: the header is `t_s`, not `t_s,service_s`"),
            ("1,2\n", "line 1: the header is `1,2`, not `t_s,service_s`"),
            (
                "t_s,service_s,zone\n",
                "line 1: the header is `t_s,service_s,zone`, not `t_s,service_s`",
            ),
            ("service_s,t_s\n", "line 1: the header is `service_s,t_s`, not `t_s,service_s`"),
            ("t_s,service_s\n1\n", "line 2: columns: 1 instead of 2"),
            ("t_s,service_s\r\n\r\n1,2\r\n1,2,3\r\n", "line 4: columns: 3 instead of 2"),
            (
                "t_s,service_s\n1,1e3\n",
                "line 2: `1e3` in column `service_s` is not a valid number of seconds",
            ),
            (
                "t_s,service_s\nnan,1\n",
                "line 2: `nan` in column `t_s` is not a valid number of seconds",
            ),
            (
                "t_s,service_s\n1,\n",
                "line 2: `` in column `service_s` is not a valid number of seconds",
            ),
            (
                "t_s,service_s\n--1,1\n",
                "line 2: `--1` in column `t_s` is not a valid number of seconds",
            ),
            (
                "t_s,service_s\n1.2.3,1\n",
                "line 2: `1.2.3` in column `t_s` is not a valid number of seconds",
            ),
            ("t_s,service_s\n-0.001,1\n", "line 2: column `t_s` is negative"),
            ("t_s,service_s\n1,-1\n", "line 2: column `service_s` is negative"),
            ("t_s,service_s\n1,1\n2,1\n1.999,1", "line 4: earlier than the line before"),
            ("t_s,service_s\n1783900800,1\n", "line 2: column `t_s` is beyond ten years"),
            (
                "t_s,service_s\n1,99999999999999999999999\n",
                "line 2: column `service_s` is beyond ten years",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(rejected(text.as_bytes()), message, "{text:?}");
            assert_eq!(rejected(&gzip(text.as_bytes())), message, "{text:?}");
        }
        let since_1970 = Demand::read(b"t_s,service_s\n1783900800,1\n").unwrap_err();
        assert!(since_1970.hint().contains("subtract the first instant"));
        assert_eq!(rejected(b"t_s,service_s\n\xff,1\n"), "line 2: not UTF-8 text");
    }

    #[test]
    fn an_availability_that_cannot_be_read_is_rejected_with_its_line() {
        let long = format!("t_s,zone,available\n0,{},1\n", "z".repeat(NAME_CHARS_MAX + 1));
        let shown = format!("line 2: `{}…` is not a valid zone name", "z".repeat(SHOWN_CHARS_MAX));
        let cases = [
            (
                "t_s,available,zone\n",
                "line 1: the header is `t_s,available,zone`, not `t_s,zone,available`",
            ),
            (
                "t_s,zone,available\n0,a,true\n",
                "line 2: `true` in column `available` is neither 0 nor 1",
            ),
            ("t_s,zone,available\n0,,1\n", "line 2: `` is not a valid zone name"),
            (
                "t_s,zone,available\n0,\u{1b}[2J,1\n",
                "line 2: `\u{fffd}[2J` is not a valid zone name",
            ),
            ("t_s,zone,available\n5,a,1\n4,b,1\n", "line 3: earlier than the line before"),
            (&long, &shown),
        ];
        for (text, message) in cases {
            assert_eq!(Availability::read(text.as_bytes()).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_truncated_or_damaged_gzip_is_rejected_where_it_ends() {
        let mut text = "t_s,service_s\n".to_owned();
        for second in 0..20_000 {
            writeln!(text, "{second},{}", second * 7_919 % 1_000).unwrap();
        }
        let whole = gzip(text.as_bytes());
        assert!(Demand::read(&whole).is_ok());
        for length in [2, 20, whole.len() / 2, whole.len() - 1] {
            let error = Demand::read(&whole[..length]).unwrap_err();
            assert_eq!(error.problem, Problem::Truncated, "{length} of {} bytes", whole.len());
            assert!((1..=20_002).contains(&error.line), "{error}");
        }
        let half = Demand::read(&whole[..whole.len() / 2]).unwrap_err();
        assert!((5_000..15_000).contains(&half.line), "{half}");
        let mut damaged = whole.clone();
        damaged[whole.len() - 8] ^= 1;
        assert!(matches!(Demand::read(&damaged).unwrap_err().problem, Problem::Gzip(_)));
    }

    #[test]
    fn a_line_that_does_not_end_is_rejected() {
        let line = format!("t_s,service_s\n0,{}", "9".repeat(LINE_BYTES_MAX));
        assert_eq!(rejected(line.as_bytes()), "line 2: longer than 1024 bytes");
    }

    #[test]
    fn more_bytes_or_rows_than_fit_are_rejected_where_they_begin() {
        // Gzip files that follow each other are one.
        let file = [gzip(b"t_s,service_s\n"), gzip(b"0,0\n").repeat(5)].concat();
        let read = |bytes_left, rows_left| {
            let mut lines = Lines { bytes_left, rows_left, ..Lines::of(&file) };
            let end = lines.hand_out(["t_s", "service_s"], |_| Ok(()));
            (end, lines.line)
        };
        assert_eq!(read(14 + 5 * 4, 5), (Ok(()), 7));
        assert_eq!(read(14 + 5 * 4 - 1, 5), (Err(Problem::TooManyBytes), 6));
        assert_eq!(read(14 + 5 * 4, 4), (Err(Problem::TooManyRows), 6));
        let limits = Lines::of(&file);
        assert_eq!((limits.bytes_left, limits.rows_left), (BYTES_MAX, ROWS_MAX));
    }

    #[test]
    fn files_of_each_kind_are_read_plain_and_compressed() {
        let demand = include_bytes!("../../tests/traces/demand.csv");
        let availability = include_bytes!("../../tests/traces/availability.csv");
        let prices = include_bytes!("../../tests/traces/price-history.csv");
        for pack in [<[u8]>::to_vec as fn(&[u8]) -> Vec<u8>, gzip] {
            let demand = Demand::read(&pack(demand)).unwrap();
            assert_eq!(demand.jobs().len(), 50);
            assert_eq!(demand.jobs()[0], Job { at_ms: 33_434_000, service_ms: 39_000 });
            let availability = Availability::read(&pack(availability)).unwrap();
            let zones: Vec<_> = availability.zones().collect();
            assert_eq!(zones, ["us-east-1a", "us-east-1b"]);
            assert_eq!(availability.next_change("us-east-1a", 0), Some(90_000_000));
            assert!(availability.at("us-east-1a", 89_999_999));
            assert!(!availability.at("us-east-1a", 90_000_000));
            let prices = PriceHistory::read(&pack(prices), "g4dn.xlarge").unwrap();
            assert!(prices.knows("us-east-1a") && !prices.knows("us-east-1c"));
            assert_eq!(prices.at("us-east-1b", 43_199_999), Some(MicroUsd(198_700)));
            assert_eq!(prices.at("us-east-1b", 43_200_000), Some(MicroUsd(225_100)));
        }
    }
}
