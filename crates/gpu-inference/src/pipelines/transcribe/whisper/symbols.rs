//! Tokens that are no speech: Whisper writes them for music, speakers' names and remarks, e.g. `♪♪♪` and `[DAVID]`.
//!
//! The rule is OpenAI's `non_speech_tokens`, of which the exports list the outcome as `suppress_tokens`; faster-whisper has it too.

use std::collections::{BTreeSet, HashMap};

use super::byte_letters;

/// Left out where each is one token, with a space before it or without.
const SYMBOLS: [&str; 46] = [
    "\"", "#", "(", ")", "*", "+", "/", ":", ";", "<", "=", ">", "@", "[", "\\", "]", "^", "_",
    "`", "{", "|", "}", "~", "「", "」", "『", "』", "<<", ">>", "<<<", ">>>", "--", "---", "-(",
    "-[", "('", "(\"", "((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪",
];
/// Left out also where they are several tokens, by the first of them: no letter begins so.
const NOTES: [&str; 8] = ["♪♪♪", "♩", "♪", "♫", "♬", "♭", "♮", "♯"];
/// Left out at the beginning of a word only.
const AT_BEGINNING: [&str; 2] = [" -", " '"];

/// The tokens of a byte-level vocabulary that no transcript has.
pub(super) fn not_speech(vocabulary: &HashMap<String, u32>) -> BTreeSet<u32> {
    let letters: HashMap<u8, char> = byte_letters().iter().map(|(&c, &byte)| (byte, c)).collect();
    let written = |text: &str| text.bytes().map(|byte| letters[&byte]).collect::<String>();
    let token = |text: &str| vocabulary.get(&written(text)).copied();
    let first = |text: &str| {
        let written = written(text);
        let begins: Vec<usize> = written.char_indices().map(|(at, _)| at).skip(1).collect();
        let ends = std::iter::once(written.len()).chain(begins.into_iter().rev());
        ends.filter_map(|end| vocabulary.get(&written[..end]).copied()).next()
    };
    let spaced = |text: &&str| [(*text).to_owned(), format!(" {text}")];
    let single = SYMBOLS.iter().flat_map(spaced).filter_map(|text| token(&text));
    let notes = NOTES.iter().flat_map(spaced).filter_map(|text| first(&text));
    let begin = AT_BEGINNING.iter().filter_map(|text| token(text));
    single.chain(notes).chain(begin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_no_speech_and_punctuation_within_and_after_words_is() {
        let kept = ["-", "'", ",", ".", "?", "!", "Ġa", "$", "%", "&"];
        // A note is the bytes e2 99 aa, here of two tokens; a bracket of Japanese is one.
        let left_out = ["Ġ-", "Ġ'", "[", "Ġ(", ">>", "âĻ", "ĠâĻª", "ãĢĮ"];
        let ids = |tokens: &[&str], from: u32| {
            tokens.iter().map(|&token| token.to_owned()).zip(from..).collect::<Vec<_>>()
        };
        let vocabulary = [ids(&kept, 0), ids(&left_out, 100)].concat().into_iter().collect();
        assert_eq!(
            not_speech(&vocabulary).into_iter().collect::<Vec<_>>(),
            (100..108).collect::<Vec<_>>()
        );
    }
}
