//! What of a text is to be said: without the marks and codes that a reader does not see, and that espeak-ng would take as its own language.
//!
//! espeak-ng reads `[[…]]` as names of phonemes, and spells out tags, terminal codes and letters of other widths. Markup goes, its words stay;
//! whatever else is left out is counted.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeEmoji, UnicodeGeneralCategory};

/// A text to be said, and what is not said of the one that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cleaned {
    pub(crate) text: String,
    pub(crate) left_out: LeftOut,
}

/// How many of each were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LeftOut {
    /// SSML's, HTML's.
    pub(crate) tags: usize,
    /// Of terminals, e.g. for colours.
    pub(crate) codes: usize,
    pub(crate) emoji: usize,
}

impl LeftOut {
    /// In words; nothing where nothing was left out.
    pub(crate) fn said(self) -> Option<String> {
        let count = |count: usize, one: &str, more: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {more}")),
        };
        let parts = [
            count(self.tags, "tag", "tags"),
            count(self.codes, "terminal code", "terminal codes"),
            count(self.emoji, "emoji", "emoji"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The text to be said.
pub(crate) fn cleaned(text: &str) -> Cleaned {
    let mut left_out = LeftOut::default();
    let text = counted(&CODE, text, &mut left_out.codes, |_| String::new());
    let text = counted(&TAG, &text, &mut left_out.tags, |found| {
        // What begins a new line on a page, or a pause in speech.
        if BREAK.is_match(&found[0]) { "\n".to_owned() } else { String::new() }
    });
    let text = ENTITY.replace_all(&text, |found: &Captures<'_>| entity(&found[1]));
    let text = plain_letters(&text);
    let text = without_marks(&text);
    let text = without_emoji(&text, &mut left_out.emoji);
    Cleaned { text, left_out }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a test runs each pattern")
}

/// What terminals take as orders: colours, titles, and all other sequences of the escape character.
static CODE: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?x) (?: \x1b\[ | \x{9b} ) [0-?]* [\x20-/]* [@-~]
        | \x1b\] [^\x07\x1b]* (?: \x07 | \x1b\\ )
        | \x1b [\x20-/]* [0-~]",
    )
});

/// Tags of SSML and HTML by their names, any other tag with attributes, comments and declarations. `a < b` and `List<Name>` are none.
static TAG: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?xis) <!-- .*? --> | <\?xml\b [^>]* \?> | <!doctype\b [^>]* >
        | </? (?: speak|break|p|s|w|say-as|prosody|emphasis|voice|sub|phoneme|audio|mark|lang|token|lexicon|lookup|meta|metadata|desc|par|seq|media
            | (?: amazon|mstts|google|bookmark ):[\w-]+
            | html|head|body|title|div|span|a|b|i|u|em|strong|small|sub|sup|br|hr|ul|ol|li|dl|dt|dd|table|thead|tbody|tr|td|th|h[1-6]|pre|code|blockquote|img|font|center )
          (?: \s+ [\w:-]+ \s*=\s* (?: "[^"]*" | '[^']*' ) )* \s* /? >
        | </? [a-z][\w:.-]* (?: \s+ [\w:-]+ \s*=\s* (?: "[^"]*" | '[^']*' ) )+ \s* /? >"#,
    )
});

static BREAK: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^</?(?:speak|break|p|s|div|br|hr|ul|ol|li|dt|dd|table|tr|td|th|h[1-6]|title|blockquote|pre)\b",
    )
});

static ENTITY: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)&(amp|lt|gt|quot|apos|nbsp|#[0-9]{1,7}|#x[0-9a-f]{1,6});"));

fn entity(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let number = match lower.strip_prefix("#x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => lower.strip_prefix('#').and_then(|digits| digits.parse().ok()),
    };
    let named = match lower.as_str() {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => ' ',
    };
    number.map_or(Some(named), char::from_u32).unwrap_or(' ').to_string()
}

/// Marks of Markdown and wikis: `[[…]]`, emphasis, lines drawn with signs, and what begins a heading, a quotation or an item.
static DRAWN: LazyLock<Regex> = LazyLock::new(|| regex(r"(?m)^[ \t]*(?:[*=~#_+-][ \t]*){3,}$"));
static BEGUN: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?m)^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[*+•-][ \t]+)+"));
static EMPHASIS: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(^|[^\w*])\*{1,3}(\S(?:[^*\n]*[^*\s])?)\*{1,3}"));
static STRUCK: LazyLock<Regex> = LazyLock::new(|| regex(r"~~+"));
static BRACKETS: LazyLock<Regex> = LazyLock::new(|| regex(r"\[[\[\s]*\[|\][\]\s]*\]"));

fn without_marks(text: &str) -> String {
    let text = DRAWN.replace_all(text, "");
    let text = BEGUN.replace_all(&text, "");
    let text = EMPHASIS.replace_all(&text, "$1$2");
    let text = STRUCK.replace_all(&text, "");
    BRACKETS.replace_all(&text, " ").into_owned()
}

fn counted<'t>(
    pattern: &Regex,
    text: &'t str,
    count: &mut usize,
    instead: impl Fn(&Captures<'_>) -> String,
) -> Cow<'t, str> {
    pattern.replace_all(text, |found: &Captures<'_>| {
        *count += 1;
        instead(found)
    })
}

/// Letters as espeak-ng knows them: composed, of the usual width and style, and without invisible ones between them.
fn plain_letters(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.nfc() {
        if is_styled(c) {
            plain.extend(c.to_string().nfkc());
        } else if c.is_control() && c != '\n' {
            plain.push(' ');
        } else if !is_invisible(c, plain.chars().next_back()) {
            plain.push(c);
        }
    }
    plain
}

/// Letters of other widths, in circles, and of mathematics.
fn is_styled(c: char) -> bool {
    matches!(c, '\u{2460}'..='\u{24ff}' | '\u{3300}'..='\u{33ff}' | '\u{ff00}'..='\u{ffef}' | '\u{1d400}'..='\u{1d7ff}')
}

/// Marks of direction, of the byte order and of places to break a word. Joiners belong to the scripts that need them, as after `ه`.
fn is_invisible(c: char, before: Option<char>) -> bool {
    const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
    let joins = || before.is_some_and(|before| before.is_alphabetic() && before > '\u{590}');
    match c {
        c if JOINERS.contains(&c) => !joins(),
        // Soft hyphens, and which of its pictures a character has.
        '\u{ad}' | '\u{fe00}'..='\u{fe0f}' => true,
        c => c.general_category() == GeneralCategory::Format,
    }
}

/// Without pictures: espeak-ng has a name for some, in some languages, and runs it into the words beside it.
fn without_emoji(text: &str, count: &mut usize) -> String {
    let mut words = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        // Digits, `#` and `*` have emoji, too, but are none by themselves.
        let is_picture = !c.is_ascii() && !c.is_alphanumeric() && c.is_emoji_char() && is_drawn(c);
        let is_part = within && c.is_emoji_component() && !c.is_ascii();
        if is_picture || is_part {
            *count += usize::from(is_picture && !within);
            within = true;
            continue;
        }
        if within {
            words.push(' ');
        }
        within = false;
        words.push(c);
    }
    words
}

/// Not `©`, `™`, arrows and other signs that a text has among its words, and that espeak-ng says.
fn is_drawn(c: char) -> bool {
    matches!(c, '\u{231a}'..='\u{23ff}' | '\u{2600}'..='\u{27bf}' | '\u{2b05}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_text_stay_and_its_marks_go() {
        for (text, said) in [
            (
                "See the page [[Main Page]] for the details.",
                "See the page  Main Page  for the details.",
            ),
            ("[[ [[a|b]] ]] c", " a|b  c"),
            ("**Bold** and *leaning* but 2*3*4", "Bold and leaning but 2*3*4"),
            (
                "# Title\n\n- one\n* two\n> said\n***\n~~old~~ new",
                "Title\n\none\ntwo\nsaid\n\nold new",
            ),
            ("if a < b and c > d, a List<Name>", "if a < b and c > d, a List<Name>"),
            ("AT&amp;T &#39;s&#x20;5 &lt; 6", "AT&T 's 5 < 6"),
            ("He\u{200b}llo co\u{ad}op \u{202e}x\u{feff}", "Hello coop x"),
            ("cafe\u{301} ＡＢＣ①\u{1d400}", "café ABC1A"),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("© 2020 → now™ 1\u{20e3}", "© 2020 → now™ 1\u{20e3}"),
            ("a\tb\u{7}c", "a b c"),
        ] {
            assert_eq!(cleaned(text), Cleaned { text: said.to_owned(), ..Cleaned::default() });
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let said = |text: &str| {
            let found = cleaned(text);
            (found.text.split_whitespace().collect::<Vec<_>>().join(" "), found.left_out.said())
        };
        let of = |text: &str, left_out: &str| (text.to_owned(), Some(left_out.to_owned()));
        assert_eq!(
            said("<speak>Hello <break time=\"1s\"/> <prosody rate='slow'>wor</prosody>ld</speak>"),
            of("Hello world", "5 tags")
        );
        assert_eq!(
            said("\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}text"),
            of("red text", "3 terminal codes")
        );
        assert_eq!(said("I 👍🏽 it 👨‍👩‍👧, ❤️ you"), of("I it , you", "3 emoji"));
        assert_eq!(said("<b>x</b> 🎉"), of("x", "2 tags, 1 emoji"));
    }
}
