//! The problems of a policy's text: all of them, in the order of the file.

use std::fmt;
use std::ops::Range;

use crate::text::{bounded, excerpt};

/// One problem, e.g. ``line 3: pool.gpu.max_wiat: unknown key (did you mean `max_wait`?)``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// E.g. `pool.gpu.max_wait`; empty if the text is not TOML.
    pub key: String,
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// All problems of one text; never empty when returned as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => one.fmt(f),
            many => write!(f, "{} problems", many.len()),
        }
    }
}

impl std::error::Error for Problems {}

/// The most problems of one text: further ones are not read, and each takes time.
const PROBLEMS_MAX: usize = 1_000;

/// Characters of a message and of a hint, which quote what users wrote.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// Collects problems while a text is read.
pub(super) struct Sink<'t> {
    text: &'t str,
    /// Each with its place in the text; lines are counted at the end, all in one go.
    found: Vec<(usize, Problem)>,
    /// The keys that were asked for, for the configuration reference.
    #[cfg(test)]
    pub(super) asked: Vec<(String, super::section::Takes)>,
}

impl<'t> Sink<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            found: Vec::new(),
            #[cfg(test)]
            asked: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn note_asked(
        &mut self,
        path: &str,
        asked: Vec<(&'static str, super::section::Takes)>,
    ) {
        self.asked.extend(asked.into_iter().map(|(key, takes)| (format!("{path}.{key}"), takes)));
    }

    pub(super) fn add(
        &mut self,
        span: Range<usize>,
        key: &str,
        message: String,
        hint: Option<String>,
    ) {
        if !self.is_full() {
            let message = bounded(message, MESSAGE_CHARS_MAX);
            let hint = hint.map(|hint| bounded(hint, MESSAGE_CHARS_MAX));
            self.found.push((span.start, Problem { line: 0, key: excerpt(key), message, hint }));
        }
    }

    /// Whether no further problem is noted: then there is no need to look for any.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= PROBLEMS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn into_problems(mut self) -> Problems {
        let is_full = self.is_full();
        self.found.sort_by_key(|(start, _)| *start);
        let (mut line, mut counted) = (1, 0);
        let mut problems = Vec::new();
        for (start, problem) in self.found {
            let start = start.min(self.text.len());
            let between = &self.text.as_bytes()[counted..start];
            line += between.iter().filter(|byte| **byte == b'\n').count();
            counted = start;
            problems.push(Problem { line, ..problem });
        }
        if is_full {
            let message = format!("there may be more: only the first {PROBLEMS_MAX} are listed");
            problems.push(Problem { line, key: String::new(), message, hint: None });
        }
        Problems(problems)
    }
}
