//! Texts: from a file's bytes in whatever encoding they are to a string.
//!
//! UTF-8 with and without a mark of the byte order, UTF-16 and UTF-32 with one (UTF-16 also without), and the 8-bit and multi-byte
//! encodings of old programs, which have to be guessed. What was guessed or replaced is said with the text.

use std::ops::Deref;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding as Legacy, UTF_16BE, UTF_16LE};
use gpu_tasks::WarningCode;

use crate::output::Remarks;

/// What stands where bytes made no character.
const REPLACED: char = char::REPLACEMENT_CHARACTER;
/// What fills up fields and blocks, and ends a text of DOS.
const FILLING: &[char] = &['\0', '\x1a'];
/// Of a text in UTF-16 without a mark at least one unit in this number has a byte of 0: spaces, digits and line breaks do in any language.
const ZEROES_EVERY_MAX: usize = 20;
/// A text in UTF-8 has more characters beyond ASCII than bytes that make none: else it is in another encoding.
const GOOD_PER_BAD_MIN: usize = 2;

/// A text, and how it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) text: String,
    pub(crate) encoding: Encoding,
    /// How many times bytes made no character, and were replaced.
    pub(crate) replaced: usize,
}

/// How a text's bytes stand for characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Utf16,
    Utf32,
    /// Guessed from the bytes.
    Guessed(&'static Legacy),
}

impl Encoding {
    /// What a text in this encoding is called.
    pub(crate) fn text_name(self) -> &'static str {
        match self {
            Self::Utf8 => "a text",
            Self::Utf16 => "a text in UTF-16",
            Self::Utf32 => "a text in UTF-32",
            Self::Guessed(_) => "a text in an 8-bit encoding such as Latin-1",
        }
    }
}

impl Decoded {
    /// Says what was guessed, and what could not be read.
    pub(crate) fn remark(&self, remarks: &mut Remarks) {
        if let Encoding::Guessed(encoding) = self.encoding {
            let message = format!(
                "the text is in no encoding of Unicode, and was read as {}: save it in UTF-8",
                encoding.name()
            );
            remarks.warn(WarningCode::TextEncoding, message);
        }
        if self.replaced > 0 {
            let message = format!(
                "{} places of the text hold bytes that are not characters, and were replaced by \u{fffd}",
                self.replaced
            );
            remarks.warn(WarningCode::TextDamaged, message);
        }
    }
}

/// A text to work on, without spaces around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<Decoded> for Text {
    fn from(decoded: Decoded) -> Self {
        Self::from(decoded.text.as_str())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(trimmed(text).to_owned())
    }
}

/// Without the white space around it, and without further marks of the byte order: files joined together have several.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// The text that the bytes are; `None` if they are none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Decoded> {
    let decoded = marked(bytes).or_else(|| utf_8(bytes)).or_else(|| {
        let encoding = unmarked_utf_16(bytes);
        encoding.map(|encoding| by(encoding, bytes, Encoding::Utf16)).or_else(|| guessed(bytes))
    })?;
    let text = decoded.text.trim_end_matches(FILLING);
    let is_text = !text.chars().any(is_binary);
    is_text.then(|| Decoded { text: text.to_owned(), ..decoded })
}

/// The beginning of a text, of a file that goes on: a character may be cut in two.
pub(crate) fn beginning(head: &[u8]) -> Option<Decoded> {
    let cut = match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => head.len(),
    };
    decode(&head[..cut]).filter(|found| !found.text.trim().is_empty())
}

/// By the mark of the byte order. That of UTF-32 begins like one of UTF-16.
fn marked(bytes: &[u8]) -> Option<Decoded> {
    if let Some(rest) = bytes.strip_prefix(b"\xff\xfe\0\0") {
        return Some(utf_32(rest, u32::from_le_bytes));
    }
    if let Some(rest) = bytes.strip_prefix(b"\0\0\xfe\xff") {
        return Some(utf_32(rest, u32::from_be_bytes));
    }
    let (encoding, length) = Legacy::for_bom(bytes)?;
    let name =
        if encoding == UTF_16LE || encoding == UTF_16BE { Encoding::Utf16 } else { Encoding::Utf8 };
    Some(by(encoding, &bytes[length..], name))
}

fn utf_32(bytes: &[u8], unit: fn([u8; 4]) -> u32) -> Decoded {
    let chars = bytes.chunks(4).map(|bytes| {
        let unit = bytes.try_into().ok().map(unit);
        unit.and_then(char::from_u32).unwrap_or(REPLACED)
    });
    counted(chars.collect(), Encoding::Utf32)
}

fn by(encoding: &'static Legacy, bytes: &[u8], name: Encoding) -> Decoded {
    counted(encoding.decode_without_bom_handling(bytes).0.into_owned(), name)
}

fn counted(text: String, encoding: Encoding) -> Decoded {
    let replaced = text.chars().filter(|&c| c == REPLACED).count();
    Decoded { text, encoding, replaced }
}

/// UTF-8, also with some bad bytes in it: a copy may be damaged, or the end of the file in the middle of a character.
fn utf_8(bytes: &[u8]) -> Option<Decoded> {
    let text = String::from_utf8_lossy(bytes);
    let bad = bytes.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    let good = text.chars().filter(|&c| !c.is_ascii() && c != REPLACED).count();
    let is_utf_8 = bad == 0 || good >= GOOD_PER_BAD_MIN * bad;
    is_utf_8
        .then(|| Decoded { text: text.into_owned(), encoding: Encoding::Utf8, replaced: bad })
        // Of bytes of 0 it would be a text in UTF-16.
        .filter(|found| !found.text.trim_end_matches(FILLING).contains('\0'))
}

/// UTF-16 without a mark, by its bytes of 0, which are all in the high or all in the low half of a unit.
fn unmarked_utf_16(bytes: &[u8]) -> Option<&'static Legacy> {
    let zeroes =
        |half: usize| bytes.iter().skip(half).step_by(2).filter(|byte| **byte == 0).count();
    let enough = bytes.len() / 2 / ZEROES_EVERY_MAX + 1;
    match (zeroes(0), zeroes(1)) {
        _ if !bytes.len().is_multiple_of(2) => None,
        (0, low) if low >= enough => Some(UTF_16LE),
        (high, 0) if high >= enough => Some(UTF_16BE),
        _ => None,
    }
}

/// By an encoding of old programs, whichever fits the bytes best.
fn guessed(bytes: &[u8]) -> Option<Decoded> {
    let filling = bytes.iter().rev().take_while(|&&byte| FILLING.contains(&byte.into())).count();
    let bytes = &bytes[..bytes.len() - filling];
    if bytes.iter().any(|&byte| is_binary(byte.into())) {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    let encoding = detector.guess(None, Utf8Detection::Deny);
    Some(by(encoding, bytes, Encoding::Guessed(encoding)))
}

/// Control characters that no text has: all but those of lines, pages, terminals and backspaces.
fn is_binary(c: char) -> bool {
    matches!(c, '\0'..='\x06' | '\x0e'..='\x1a' | '\x1c'..='\x1f')
}
