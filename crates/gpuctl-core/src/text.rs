//! Texts of users in messages: short, on one line, and with nothing that a terminal acts on.

/// Characters of a user's text in a message.
pub const EXCERPT_CHARS_MAX: usize = 80;

/// The beginning of a text as messages show it: control characters and those that reorder text are escaped, e.g. `\u{1b}`, and
/// after `EXCERPT_CHARS_MAX` characters stands `…`.
#[must_use]
pub fn excerpt(text: &str) -> String {
    within(text, EXCERPT_CHARS_MAX)
}

/// A text of at most `chars_max` characters, escaped likewise.
#[must_use]
pub fn within(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().take(chars_max) {
        if is_unsafe(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(chars_max).is_some() {
        shown.push('…');
    }
    shown
}

/// A text as it is, if it is as short and has nothing to escape.
#[must_use]
pub fn bounded(text: String, chars_max: usize) -> String {
    let fits = text.len() <= chars_max && !text.chars().any(is_unsafe);
    if fits { text } else { within(&text, chars_max) }
}

/// Whether a terminal would act on the character or reorder text by it.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    let is_format = matches!(c,
        '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_user_is_short_and_does_nothing() {
        assert_eq!(excerpt("mon-fri"), "mon-fri");
        assert_eq!(excerpt("\u{1b}[2J\u{7}\n\u{202e}a"), r"\u{1b}[2J\u{7}\n\u{202e}a");
        let long = excerpt(&"é".repeat(5_000_000));
        assert_eq!(long.chars().count(), EXCERPT_CHARS_MAX + 1);
        assert!(long.ends_with("é…"));
    }
}
