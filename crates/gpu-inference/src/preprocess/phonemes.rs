//! From text to phonemes: espeak-ng, run as a process of its own.
//!
//! espeak-ng is under the GPL, so it is neither linked nor shipped: users of these voices install it. It gets one clause at
//! a time, since its output leaves out the punctuation from which a voice takes its melody.

use std::process::{Command, Stdio};
use std::time::Duration;

use gpu_tasks::Blame;
use unicode_normalization::UnicodeNormalization;

use super::child::{self, ChildError};
use super::scripts::{self, is_dense};
use crate::cancel::{Cancel, Cancelled};
use crate::text::cut;

/// The program, looked up in the search path.
const PROGRAM: &str = "espeak-ng";
/// What ends a clause, where a space or the end of the text follows.
const CLAUSE_ENDS: &[char] = &['.', ',', ';', ':', '!', '?'];
/// What ends a sentence, also without a space after it.
const FULL_WIDTH_ENDS: &[(char, char)] =
    &[('。', '.'), ('、', ','), ('！', '!'), ('？', '?'), ('，', ','), ('；', ';'), ('：', ':')];
/// Longest clause: espeak-ng cuts what is longer on its own terms.
const CLAUSE_CHARS_MAX: usize = 400;
/// Most letters of scripts without spaces in a clause. To espeak-ng they are one word, of which it says 200 phonemes: 75 kana, 59 Hangul.
const DENSE_CHARS_MAX: usize = 50;
/// Longest word in other scripts. Of some 160 letters and more it says the beginning only.
const WORD_CHARS_MAX: usize = 100;
/// Where a clause is best cut in two: after these, of Japanese and Chinese.
const PARTICLES: &[char] =
    &['は', 'が', 'を', 'に', 'で', 'と', 'も', 'へ', '的', '了', '吗', '呢', '吧', '着'];
/// What is said together with the letter before it.
const BOUND: &[char] = &[
    'ぁ', 'ぃ', 'ぅ', 'ぇ', 'ぉ', 'っ', 'ゃ', 'ゅ', 'ょ', 'ゎ', 'ァ', 'ィ', 'ゥ', 'ェ', 'ォ', 'ッ',
    'ャ', 'ュ', 'ョ', 'ヮ', 'ー', 'ん', 'ン',
];
/// Longest time that a clause may take. It usually takes some milliseconds.
const CLAUSE_TIME_MAX: Duration = Duration::from_secs(30);

/// Why there are no phonemes.
#[derive(Debug, thiserror::Error)]
pub enum PhonemeError {
    #[error("{PROGRAM} is not installed, or cannot be started")]
    Missing {
        #[source]
        source: std::io::Error,
    },
    /// It exited with an error.
    #[error("{PROGRAM} failed for the language {language}: {said}")]
    Failed { language: String, said: String },
    /// It was killed, or its input or output broke: that says nothing about the text.
    #[error("{PROGRAM} did not end by itself: {how}")]
    Broken { how: String },
    /// It took too long.
    #[error("{PROGRAM} took longer than {} s for a clause", CLAUSE_TIME_MAX.as_secs())]
    TimedOut,
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<ChildError> for PhonemeError {
    fn from(error: ChildError) -> Self {
        match error {
            ChildError::Start(source) => Self::Missing { source },
            ChildError::Pipe(source) => Self::Broken { how: cut(source.to_string()) },
            ChildError::Killed { .. } => Self::Broken { how: error.to_string() },
            ChildError::TimedOut { .. } => Self::TimedOut,
            ChildError::Cancelled(Cancelled) => Self::Cancelled,
        }
    }
}

impl PhonemeError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "phonemes.missing",
            Self::Failed { .. } => "phonemes.failed",
            Self::Broken { .. } | Self::Cancelled => "phonemes.broken",
            Self::TimedOut => "phonemes.timeout",
        }
    }

    /// Whose fault it is: only a program that ended by itself has said something about the text.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Failed { .. } => Blame::Input,
            Self::Missing { .. } | Self::Broken { .. } | Self::TimedOut | Self::Cancelled => {
                Blame::Box
            }
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "install it, e.g. with `apt-get install espeak-ng`",
            Self::Failed { .. } => "`espeak-ng --voices` lists the languages it knows",
            Self::Broken { .. } | Self::TimedOut | Self::Cancelled => {
                "try again; if it fails again, run espeak-ng by hand on the text"
            }
        }
    }
}

/// Checks that the program is installed.
pub(crate) fn check() -> Result<(), PhonemeError> {
    let run = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output();
    run.map(drop).map_err(|source| PhonemeError::Missing { source })
}

/// What is to be said of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// In the international alphabet, decomposed (NFD), with the punctuation back in its places.
    pub(crate) phonemes: String,
    /// Letters of the clauses that have phonemes.
    pub(crate) letters: usize,
}

/// The phonemes of a sentence.
pub(crate) fn of_sentence(
    sentence: &str,
    language: &str,
    cancel: &Cancel,
) -> Result<Spoken, PhonemeError> {
    let (mut phonemes, mut letters) = (String::new(), 0);
    for (clause, end) in clauses(sentence) {
        let spoken = of_clause(&clause, language, cancel)?;
        if spoken.is_empty() {
            continue;
        }
        if !phonemes.is_empty() {
            phonemes.push(' ');
        }
        phonemes.push_str(&spoken);
        phonemes.extend(end);
        letters += scripts::letters(&clause);
    }
    Ok(Spoken { phonemes: phonemes.nfd().collect(), letters })
}

/// Whether a letter is a sound of its own: a voice does without marks on others, such as that of a lowered vowel.
pub(crate) fn is_sound(c: char) -> bool {
    !unicode_normalization::char::is_combining_mark(c)
}

/// Parts of at most `chars_max` characters, cut after a word; a word that is longer itself is cut, too.
pub(crate) fn parts(phonemes: &str, chars_max: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut filled = 0;
    for word in phonemes.split_inclusive(' ') {
        let chars: Vec<char> = word.chars().collect();
        for piece in chars.chunks(chars_max) {
            if filled + piece.len() > chars_max {
                parts.push(String::new());
                filled = 0;
            }
            filled += piece.len();
            parts.last_mut().expect("there is one from the start").extend(piece);
        }
    }
    parts
}

fn of_clause(clause: &str, language: &str, cancel: &Cancel) -> Result<String, PhonemeError> {
    let mut command = Command::new(PROGRAM);
    command.args(["-q", "--ipa", "-b", "1", "-v", language, "--stdin"]);
    let said = child::run(&mut command, &format!("{clause}\n"), CLAUSE_TIME_MAX, cancel)?;
    if !said.success {
        let said = cut(String::from_utf8_lossy(&said.stderr).trim().to_owned());
        return Err(PhonemeError::Failed { language: language.to_owned(), said });
    }
    Ok(without_switches(&String::from_utf8_lossy(&said.stdout)))
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
    let (mut dense, mut in_word) = (0, 0);
    let mut chars = sentence.chars().peekable();
    while let Some(c) = chars.next() {
        let full_width = FULL_WIDTH_ENDS.iter().find(|(wide, _)| *wide == c).map(|(_, end)| *end);
        let last = chars.peek().is_none_or(|next| next.is_whitespace());
        let ends = full_width.or_else(|| (CLAUSE_ENDS.contains(&c) && last).then_some(c));
        // Its own dot belongs to the clause: `Dr.` is read as it is meant.
        clause.push(ends.unwrap_or(c));
        dense += usize::from(is_dense(c));
        in_word = if c.is_whitespace() { 0 } else { in_word + 1 };
        let full = clause.chars().count() >= CLAUSE_CHARS_MAX && c.is_whitespace();
        if ends.is_some() || full {
            found.push((std::mem::take(&mut clause), ends));
            (dense, in_word) = (0, 0);
        } else if dense >= DENSE_CHARS_MAX || in_word >= WORD_CHARS_MAX {
            let rest = clause.split_off(best_cut(&clause, chars.peek().copied()));
            dense = rest.chars().filter(|&c| is_dense(c)).count();
            in_word = rest.chars().rev().take_while(|c| !c.is_whitespace()).count();
            found.push((std::mem::replace(&mut clause, rest), None));
        }
    }
    found.push((clause, None));
    found.retain(|(clause, _)| clause.chars().any(char::is_alphanumeric));
    found
}

/// Where in the second half of a clause that is too long it is best cut: after a space or a sign, after a particle, where another script
/// begins, or else as late as possible.
fn best_cut(clause: &str, next: Option<char>) -> usize {
    let places: Vec<(usize, char)> = clause.char_indices().collect();
    let ends = places[1..].iter().map(|&(at, c)| (at, Some(c))).chain([(clause.len(), next)]);
    let cuts = places.iter().zip(ends).skip(places.len() / 2);
    let best = cuts.max_by_key(|&(&(_, before), (at, after))| (cut_rank(before, after), at));
    best.map_or(clause.len(), |(_, (at, _))| at)
}

fn cut_rank(before: char, after: Option<char>) -> u8 {
    use unicode_script::UnicodeScript;
    let binds = |c: char| BOUND.contains(&c) || c.script() == unicode_script::Script::Inherited;
    match after {
        Some(after) if binds(after) => 0,
        _ if !before.is_alphanumeric() && before != 'ー' && !binds(before) => 4,
        _ if PARTICLES.contains(&before) => 3,
        Some(after) if after.script() != before.script() => 2,
        _ => 1,
    }
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
        let found = of_sentence("Hello, world! 23", "en-us", &Cancel::new()).unwrap();
        assert_eq!(found.phonemes, "həlˈoʊ, wˈɜːld! twˈɛnti θɹˈiː");
        assert_eq!(found.letters, 12);
        let error = of_sentence("Hello", "xx-none", &Cancel::new()).unwrap_err();
        assert!(matches!(error, PhonemeError::Failed { .. }), "{error}");
        assert_eq!((error.code(), error.blame()), ("phonemes.failed", Blame::Input));
    }

    #[test]
    fn what_espeak_ng_would_cut_off_is_cut_before_and_nothing_of_it_is_lost() {
        let once = |text: &str, language: &str| {
            let spoken = of_sentence(text, language, &Cancel::new()).unwrap().phonemes;
            spoken.chars().filter(|c| c.is_alphabetic()).count()
        };
        // Numbers of letters that are no multiples of a clause's.
        for (language, text, times) in [
            ("ja", "にほんごのながいぶんしょうをよみあげるためのてすとです", 7),
            ("cmn", "今天天气很好我们一起去公园散步吧然后回家吃饭看书", 15),
            ("ko", "오늘은날씨가아주좋아서우리는공원에갔습니다", 8),
            ("ko", "오늘은 날씨가 아주 좋아서 우리는 공원에 갔습니다 ", 10),
            ("en-us", "supercalifragilistic", 20),
            ("th", "วันนี้อากาศดีมากเราไปเดินเล่นในสวนกัน", 9),
        ] {
            let (one, all) = (once(text, language), once(&text.repeat(times), language));
            // Where words run into each other, or are cut in two, a few sounds are others.
            assert!(all * 100 >= one * times * 94, "{language}: {all} of {}", one * times);
        }
    }

    #[test]
    fn a_clause_without_spaces_is_cut_where_a_reader_would() {
        let parts =
            |text: &str| clauses(text).into_iter().map(|(clause, _)| clause).collect::<Vec<_>>();
        let long = format!("{}は{}", "あ".repeat(40), "い".repeat(40));
        assert_eq!(parts(&long), [format!("{}は", "あ".repeat(40)), "い".repeat(40)]);
        let mixed = format!("{}{}", "漢".repeat(45), "カ".repeat(45));
        assert_eq!(parts(&mixed), ["漢".repeat(45), "カ".repeat(45)]);
        let bound = format!("{}ょう", "あ".repeat(50));
        assert_eq!(parts(&bound)[0].chars().count(), 49);
        let address = format!("https://example.invalid/{}/{}", "a".repeat(50), "b".repeat(80));
        assert_eq!(parts(&address).concat(), address);
        assert!(parts(&address)[0].ends_with('/'));
    }

    #[test]
    fn parts_end_after_a_word_and_nothing_is_left_out() {
        let long = "abcde ".repeat(200);
        let found = parts(&long, 510);
        assert!(found.iter().all(|part| part.chars().count() <= 510 && part.ends_with(' ')));
        assert_eq!(found.concat(), long);
        assert_eq!(parts(&"ə".repeat(1_200), 510).concat(), "ə".repeat(1_200));
    }

    #[test]
    fn what_did_not_end_by_itself_is_no_fault_of_the_text() {
        let errors = [
            ChildError::Start(std::io::ErrorKind::NotFound.into()),
            ChildError::Pipe(std::io::ErrorKind::BrokenPipe.into()),
            ChildError::Killed { signal: 15 },
            ChildError::TimedOut { limit: CLAUSE_TIME_MAX },
        ];
        let errors = errors.map(PhonemeError::from);
        assert_eq!(errors.each_ref().map(PhonemeError::blame), [Blame::Box; 4]);
        let codes = ["phonemes.missing", "phonemes.broken", "phonemes.broken", "phonemes.timeout"];
        assert_eq!(errors.each_ref().map(PhonemeError::code), codes);
    }

    #[test]
    fn marks_of_another_language_are_not_phonemes() {
        assert_eq!(without_switches("a (fr)b(en-us) c\nd (e"), "a b c d (e");
    }
}
