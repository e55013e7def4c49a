//! Which letters a language is written with, and which of a text are others.
//!
//! espeak-ng says of a letter that its language lacks what it is, e.g. "Japanese letter", or its name: that is not the text.

use unicode_script::{Script, UnicodeScript};

/// The words of a text that a language has no letters for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Foreign {
    /// The text without them.
    pub(crate) text: String,
    pub(crate) words: usize,
    pub(crate) letters: usize,
    /// The script of the first.
    pub(crate) script: Option<&'static str>,
}

/// Letters and digits: what of a text is said.
pub(crate) fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphanumeric()).count()
}

/// Splits off the words with letters that a language is not written with. A single letter stays: it is a sign, e.g. `π`, and has a name.
pub(crate) fn foreign(text: &str, language: &str) -> Foreign {
    let own = scripts(language);
    let is_foreign = |c: char| {
        let script = c.script();
        let any = matches!(script, Script::Common | Script::Inherited | Script::Latin);
        c.is_alphabetic() && !any && !own.contains(&script)
    };
    let mut found = Foreign::default();
    // Scripts without spaces have words of others right beside theirs.
    for word in text.chunk_by_kind(is_foreign) {
        let count = word.chars().filter(|&c| is_foreign(c)).count();
        if count < 2 {
            found.text.push_str(word);
            continue;
        }
        found.text.push(' ');
        found.words += 1;
        found.letters += count;
        let script = word.chars().find(|&c| is_foreign(c)).map(|c| c.script().full_name());
        found.script = found.script.or(script);
    }
    found
}

/// Cutting of a text wherever letters of one kind begin or end.
trait ChunkByKind {
    fn chunk_by_kind(&self, is_kind: impl Fn(char) -> bool) -> Vec<&str>;
}

impl ChunkByKind for str {
    fn chunk_by_kind(&self, is_kind: impl Fn(char) -> bool) -> Vec<&str> {
        let mut chunks = Vec::new();
        let (mut start, mut kind) = (0, None);
        for (at, c) in self.char_indices() {
            // Marks on a letter belong to it.
            let of = if c.script() == Script::Inherited { kind } else { Some(is_kind(c)) };
            if kind.is_some() && of != kind {
                chunks.push(&self[start..at]);
                start = at;
            }
            kind = of;
        }
        chunks.push(&self[start..]);
        chunks
    }
}

/// The scripts of a language of espeak-ng, beside Latin, which all can read.
fn scripts(language: &str) -> &'static [Script] {
    let base = language.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    match base.as_str() {
        "ru" | "uk" | "be" | "bg" | "mk" | "sr" | "bs" | "kk" | "ky" | "tt" | "ba" | "cv"
        | "mn" | "tg" | "uz" => &[Script::Cyrillic],
        "el" | "grc" => &[Script::Greek],
        "ar" | "fa" | "ur" | "sd" | "ug" | "ps" | "ckb" => &[Script::Arabic],
        "he" | "yi" => &[Script::Hebrew],
        "hi" | "mr" | "ne" | "kok" | "sa" => &[Script::Devanagari],
        "bn" | "as" | "bpy" => &[Script::Bengali],
        "pa" => &[Script::Gurmukhi],
        "gu" => &[Script::Gujarati],
        "or" => &[Script::Oriya],
        "ta" => &[Script::Tamil],
        "te" => &[Script::Telugu],
        "kn" => &[Script::Kannada],
        "ml" => &[Script::Malayalam],
        "si" => &[Script::Sinhala],
        "th" => &[Script::Thai],
        "lo" => &[Script::Lao],
        "km" => &[Script::Khmer],
        "my" | "shn" => &[Script::Myanmar],
        "ka" => &[Script::Georgian],
        "hy" | "hyw" => &[Script::Armenian],
        "am" | "ti" => &[Script::Ethiopic],
        "chr" => &[Script::Cherokee],
        "ko" => &[Script::Hangul, Script::Han],
        "ja" | "jp" => &[Script::Hiragana, Script::Katakana, Script::Han],
        "cmn" | "zh" | "yue" | "hak" | "wuu" => &[Script::Han, Script::Bopomofo],
        _ => &[],
    }
}

/// Whether words of this letter's script stand without spaces, or have several phonemes a letter, so that a clause is soon full.
pub(crate) fn is_dense(c: char) -> bool {
    matches!(
        c.script(),
        Script::Han
            | Script::Hiragana
            | Script::Katakana
            | Script::Hangul
            | Script::Bopomofo
            | Script::Thai
            | Script::Lao
            | Script::Khmer
            | Script::Myanmar
            | Script::Tibetan
    ) || c == 'ー'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_letters_that_a_language_lacks_are_told_from_signs_and_names() {
        let of = |text: &str, language: &str| {
            let found = foreign(text, language);
            (found.words, found.letters, found.script)
        };
        assert_eq!(of("これは日本語の文章です。", "en-us"), (1, 11, Some("Hiragana")));
        assert_eq!(of("Tolstoy (Толстой) wrote it", "en-us"), (1, 7, Some("Cyrillic")));
        assert_eq!(of("The angle π and 5 µm", "de"), (0, 0, None));
        assert_eq!(of("Это Linux 6.1", "ru"), (0, 0, None));
        assert_eq!(of("東京はTokyoです", "ja"), (0, 0, None));
        assert_eq!(of("Ceci n'est pas 한국어", "fr-fr"), (1, 3, Some("Hangul")));
        assert_eq!(foreign("Tolstoy (Толстой) wrote", "en").text, "Tolstoy ( ) wrote");
        assert_eq!(foreign("नमस्ते दुनिया", "hi").words, 0);
    }
}
