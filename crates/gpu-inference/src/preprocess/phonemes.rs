//! From text to phonemes: espeak-ng, run as a process of its own.
//!
//! espeak-ng is under the GPL, so it is neither linked nor shipped: users of these voices install it. It gets one clause at
//! a time, since its output leaves out the punctuation from which a voice takes its melody.

use std::io::Write;
use std::process::{Command, Stdio};

use unicode_normalization::UnicodeNormalization;

/// The program, looked up in the search path.
const PROGRAM: &str = "espeak-ng";
/// What ends a clause, where a space or the end of the text follows.
const CLAUSE_ENDS: &[char] = &['.', ',', ';', ':', '!', '?'];
/// What ends a sentence, also without a space after it.
const FULL_WIDTH_ENDS: &[(char, char)] =
    &[('。', '.'), ('、', ','), ('！', '!'), ('？', '?'), ('，', ','), ('；', ';'), ('：', ':')];
/// Longest clause: espeak-ng cuts what is longer on its own terms.
const CLAUSE_CHARS_MAX: usize = 400;

/// Why there are no phonemes.
#[derive(Debug, thiserror::Error)]
pub enum PhonemeError {
    #[error("{PROGRAM} is not installed")]
    Missing {
        #[source]
        source: std::io::Error,
    },
    /// It exited with an error.
    #[error("{PROGRAM} failed for the language {language}: {said}")]
    Failed { language: String, said: String },
    /// Its input or output was closed early.
    #[error("{PROGRAM} crashed or was killed")]
    Crashed(#[source] std::io::Error),
}

impl PhonemeError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "phonemes.missing",
            Self::Failed { .. } | Self::Crashed(_) => "phonemes.failed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "install it, e.g. with `apt-get install espeak-ng`",
            Self::Failed { .. } => "`espeak-ng --voices` lists the languages it knows",
            Self::Crashed(_) => "try again; if it fails again, run espeak-ng by hand on the text",
        }
    }
}

/// Checks that the program is installed.
pub(crate) fn check() -> Result<(), PhonemeError> {
    let run = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output();
    run.map(drop).map_err(|source| PhonemeError::Missing { source })
}

/// The phonemes of a sentence in the international alphabet, decomposed (NFD), with the punctuation back in its places.
pub(crate) fn of_sentence(sentence: &str, language: &str) -> Result<String, PhonemeError> {
    let mut phonemes = String::new();
    for (clause, end) in clauses(sentence) {
        let spoken = of_clause(&clause, language)?;
        if spoken.is_empty() {
            continue;
        }
        if !phonemes.is_empty() {
            phonemes.push(' ');
        }
        phonemes.push_str(&spoken);
        phonemes.extend(end);
    }
    Ok(phonemes.nfd().collect())
}

fn of_clause(clause: &str, language: &str) -> Result<String, PhonemeError> {
    let mut child = Command::new(PROGRAM)
        .args(["-q", "--ipa", "-b", "1", "-v", language, "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| PhonemeError::Missing { source })?;
    // A clause is far smaller than a pipe's buffer, so writing it all first cannot wait for the reader.
    let mut stdin = child.stdin.take().expect("it was asked for");
    let written = stdin.write_all(clause.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
    drop(stdin);
    let output = child.wait_with_output().map_err(PhonemeError::Crashed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(PhonemeError::Failed { language: language.to_owned(), said });
    }
    written.map_err(PhonemeError::Crashed)?;
    Ok(without_switches(&String::from_utf8_lossy(&output.stdout)))
}

/// espeak-ng marks words of another language, e.g. `(fr)…(en)`, which are not phonemes.
fn without_switches(said: &str) -> String {
    let mut text = String::with_capacity(said.len());
    let mut rest = said;
    while let Some((before, after)) = rest.split_once('(') {
        text.push_str(before);
        match after.split_once(')') {
            Some((mark, after)) if is_language(mark) => rest = after,
            _ => {
                text.push('(');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_language(mark: &str) -> bool {
    mark.starts_with(|c: char| c.is_ascii_lowercase())
        && mark.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The clauses of a sentence, each with the punctuation that ends it.
fn clauses(sentence: &str) -> Vec<(String, Option<char>)> {
    let mut found = Vec::new();
    let mut clause = String::new();
    let mut chars = sentence.chars().peekable();
    while let Some(c) = chars.next() {
        let full_width = FULL_WIDTH_ENDS.iter().find(|(wide, _)| *wide == c).map(|(_, end)| *end);
        let last = chars.peek().is_none_or(|next| next.is_whitespace());
        let ends = full_width.or_else(|| (CLAUSE_ENDS.contains(&c) && last).then_some(c));
        // Its own dot belongs to the clause: `Dr.` is read as it is meant.
        clause.push(ends.unwrap_or(c));
        let full = clause.chars().count() >= CLAUSE_CHARS_MAX && c.is_whitespace();
        if ends.is_some() || full {
            found.push((std::mem::take(&mut clause), ends));
        }
    }
    found.push((clause, None));
    found.retain(|(clause, _)| clause.chars().any(char::is_alphanumeric));
    found
}

/// The sentences of a text: cut at a full stop, question or exclamation mark before a space, and at the end of a line.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut sentence = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let before_space = chars.peek().is_none_or(|next| next.is_whitespace());
        sentence.push(c);
        let ends = matches!(c, '。' | '！' | '？' | '\n')
            || (matches!(c, '.' | '!' | '?') && before_space);
        if ends {
            found.push(std::mem::take(&mut sentence));
        }
    }
    found.push(sentence);
    let speakable = found.iter().map(|sentence| sentence.trim());
    let speakable = speakable.filter(|sentence| sentence.chars().any(char::is_alphanumeric));
    speakable.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_sentences_and_these_into_clauses() {
        let text = "It costs 1,284.50 EUR, or less. Really?! Yes...\n\n– 終わり。です";
        let found = sentences(text);
        assert_eq!(
            found,
            ["It costs 1,284.50 EUR, or less.", "Really?!", "Yes...", "– 終わり。", "です"]
        );
        let expected =
            [("It costs 1,284.50 EUR,".to_owned(), Some(',')), (" or less.".to_owned(), Some('.'))];
        assert_eq!(clauses(&found[0]), expected);
        assert_eq!(clauses("終わり、です。").len(), 2);
    }

    #[test]
    fn phonemes_have_their_punctuation_back() {
        let found = of_sentence("Hello, world! 23", "en-us").unwrap();
        assert_eq!(found, "həlˈoʊ, wˈɜːld! twˈɛnti θɹˈiː");
        let error = of_sentence("Hello", "xx-none").unwrap_err();
        assert!(matches!(error, PhonemeError::Failed { .. }), "{error}");
        assert_eq!(error.code(), "phonemes.failed");
    }

    #[test]
    fn marks_of_another_language_are_not_phonemes() {
        assert_eq!(without_switches("a (fr)b(en-us) c\nd (e"), "a b c d (e");
    }
}
