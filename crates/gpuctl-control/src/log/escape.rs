//! Values from users, files and messages, made safe to show: control characters escaped, and cut at a stated length.
//!
//! For log lines (`shown`) and for terminals (`escaped`, with a limit of the caller's). It changes nothing that is stored.

use std::fmt::{self, Display, Write};

/// Most characters of one value in a log line, after escaping; what is cut off is marked by `…`.
pub const SHOWN_CHARS_MAX: usize = 2_000;

/// A value for a log line: `tracing::warn!(path = %shown(path.display()), "…")`.
#[must_use]
pub fn shown<T: Display>(value: T) -> Escaped<T> {
    escaped(value, SHOWN_CHARS_MAX)
}

/// A value of which at most `chars_max` characters are shown, control characters as `\n`, `\x1b` or `\u{202e}`.
#[must_use]
pub fn escaped<T: Display>(value: T, chars_max: usize) -> Escaped<T> {
    Escaped { value, chars_max }
}

/// Displays a value on one line, without what a terminal would act on.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T> {
    value: T,
    chars_max: usize,
}

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = EscapingWriter { to: f, chars_left: self.chars_max, is_cut: false };
        let written = write!(writer, "{}", self.value);
        // The writer ends the value's own formatting with an error once the limit is reached.
        if writer.is_cut { f.write_str("…") } else { written }
    }
}

struct EscapingWriter<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    chars_left: usize,
    is_cut: bool,
}

impl Write for EscapingWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if !acts_on_terminal(c) {
                self.put(1, |to| to.write_char(c))?;
                continue;
            }
            let name = escape(c);
            self.put(name.len(), |to| to.write_str(&name))?;
        }
        Ok(())
    }
}

impl EscapingWriter<'_, '_> {
    fn put(
        &mut self,
        chars: usize,
        write: impl FnOnce(&mut fmt::Formatter<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let Some(left) = self.chars_left.checked_sub(chars) else {
            self.is_cut = true;
            return Err(fmt::Error);
        };
        self.chars_left = left;
        write(self.to)
    }
}

/// Control characters, line separators, and those that change the direction of the text around them (CVE-2021-42574).
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escape(c: char) -> String {
    match c {
        '\n' => r"\n".to_owned(),
        '\r' => r"\r".to_owned(),
        '\t' => r"\t".to_owned(),
        c if c.is_ascii() => format!(r"\x{:02x}", u32::from(c)),
        c => format!(r"\u{{{:x}}}", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_everything_else_stays() {
        for (value, expected) in [
            ("plain — Grüße, 日本", "plain — Grüße, 日本"),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{1b}[31mred\u{7}\u{0}\u{7f}", r"\x1b[31mred\x07\x00\x7f"),
            ("\u{9b}31m\u{202e}dna", r"\u{9b}31m\u{202e}dna"),
            (r"C:\new", r"C:\new"),
        ] {
            assert_eq!(shown(value).to_string(), expected);
        }
    }

    #[test]
    fn a_value_is_cut_at_its_limit_and_no_escape_in_half() {
        assert_eq!(escaped("abc", 3).to_string(), "abc");
        assert_eq!(escaped("abcd", 3).to_string(), "abc…");
        assert_eq!(escaped("ab\n", 3).to_string(), "ab…");
        assert_eq!(escaped("äöüß", 3).to_string(), "äöü…");
        let long = shown("x".repeat(SHOWN_CHARS_MAX * 2)).to_string();
        assert_eq!(long.chars().count(), SHOWN_CHARS_MAX + 1);
    }

    #[test]
    fn any_value_that_displays_can_be_shown() {
        let error = std::io::Error::other("disk\nfull");
        assert_eq!(format!("{}: {}", shown(7), shown(&error)), r"7: disk\nfull");
    }
}
