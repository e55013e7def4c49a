//! Reads one TOML table key by key, and reports every value that is not valid.
//!
//! Serde stops at the first problem and knows no lines: that is why the policy is read from the document itself.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use chrono::TimeDelta;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Sink;
use crate::suggest::did_you_mean;
use crate::text::excerpt;
use crate::units::{MicroUsd, parse_duration, show_duration};

/// The values that a key takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Takes {
    Text,
    Texts,
    TextOrTexts,
    TextsOrWord(&'static str),
    Word(&'static [&'static str]),
    Duration(RangeInclusive<TimeDelta>),
    Whole(RangeInclusive<i128>),
    Money,
    Flag,
    Scalar,
    Scalars,
    Table,
    Tables,
}

/// As after "must be".
impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text in quotes"),
            Self::Texts => f.write_str("a list of texts, e.g. `[\"a\", \"b\"]`"),
            Self::TextOrTexts => f.write_str("a text in quotes, or a list of texts"),
            Self::TextsOrWord(word) => {
                write!(f, "a list of texts, e.g. `[\"a\", \"b\"]`, or \"{word}\"")
            }
            Self::Word(known) => write!(f, "a text in quotes, one of: {}", known.join(", ")),
            Self::Duration(_) => f.write_str("a duration in quotes, e.g. `\"10m\"`"),
            Self::Whole(_) => f.write_str("a whole number"),
            Self::Money => f.write_str("an amount of US dollars, e.g. `60` or `0.30`"),
            Self::Flag => f.write_str("true or false"),
            Self::Scalar => f.write_str("a text in quotes, a number, true or false"),
            Self::Scalars => f.write_str("a list of numbers, e.g. `[75, 137]`"),
            Self::Table => f.write_str("a table"),
            Self::Tables => f.write_str("a list of tables"),
        }
    }
}

/// A table of the document, and the keys that were asked for so far.
pub(super) struct Section<'d, 's, 't> {
    pub(super) path: String,
    pub(super) span: Range<usize>,
    table: &'d DeTable<'d>,
    asked: Vec<(&'static str, Takes)>,
    pub(super) sink: &'s mut Sink<'t>,
}

impl<'d, 's, 't> Section<'d, 's, 't> {
    pub(super) fn new(
        path: String,
        span: Range<usize>,
        table: &'d DeTable<'d>,
        sink: &'s mut Sink<'t>,
    ) -> Self {
        Self { path, span, table, asked: Vec::new(), sink }
    }

    /// The sub-table `key`; an empty one if it is absent.
    pub(super) fn section<'n>(&'n mut self, key: &'static str) -> Section<'d, 'n, 't> {
        static EMPTY: std::sync::LazyLock<DeTable<'static>> =
            std::sync::LazyLock::new(DeTable::new);
        let path = self.key(key);
        let (span, table) = match self.value(key, &Takes::Table) {
            Some((span, DeValue::Table(table))) => (span, table),
            Some((span, other)) => {
                self.wrong_type(key, span.clone(), other, &Takes::Table);
                (span, &*EMPTY)
            }
            None => (self.span.clone(), &*EMPTY),
        };
        Section::new(path, span, table, self.sink)
    }

    /// The sub-table `key`, if it is there.
    pub(super) fn optional_section<'n>(
        &'n mut self,
        key: &'static str,
    ) -> Option<Section<'d, 'n, 't>> {
        let is_there = self.has(key);
        let section = self.section(key);
        is_there.then_some(section)
    }

    /// The sub-tables of `key`, whose names are chosen by the user, each read by `read`.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, Section<'d, '_, 't>) -> Option<T>,
    ) -> Vec<T> {
        let inner = self.section(key);
        let mut entries: Vec<_> = inner.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut all = Vec::new();
        for (name, value) in entries {
            if inner.sink.is_full() {
                break;
            }
            let path = format!("{}.{}", inner.path, excerpt(name.get_ref()));
            match value.get_ref() {
                DeValue::Table(table) => {
                    all.extend(read(
                        name.get_ref(),
                        Section::new(path, name.span(), table, inner.sink),
                    ));
                }
                other => inner.sink.add(
                    value.span(),
                    &path,
                    format!("is {}, not a table", type_of(other)),
                    Some(format!("write `[{path}]`")),
                ),
            }
        }
        all
    }

    /// The tables of `[[key]]`, `most` of them, each read by `read`.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        mut read: impl FnMut(Section<'d, '_, 't>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.key(key);
        let items = match self.value(key, &Takes::Tables) {
            None => return Vec::new(),
            Some((_, DeValue::Array(items))) => items,
            Some((span, other)) => {
                let message = format!("is {}", type_of(other));
                let hint = format!("must be a list of tables: write `[[{path}]]`");
                self.problem(key, span, message, Some(hint));
                return Vec::new();
            }
        };
        if let Some(further) = items.get(most) {
            self.problem(key, further.span(), format!("has more than {most} entries"), None);
        }
        let mut all = Vec::new();
        for item in items.iter().take(most) {
            match item.get_ref() {
                DeValue::Table(table) => {
                    all.extend(read(Section::new(path.clone(), item.span(), table, self.sink)));
                }
                other => self.sink.add(
                    item.span(),
                    &path,
                    format!("has {} in place of a table", type_of(other)),
                    None,
                ),
            }
        }
        all
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(Range<usize>, String)> {
        self.text_of(key, &Takes::Text)
    }

    fn text_of(&mut self, key: &'static str, takes: &Takes) -> Option<(Range<usize>, String)> {
        match self.value(key, takes)? {
            (span, DeValue::String(text)) => Some((span, text.to_string())),
            (span, other) => {
                self.wrong_type(key, span, other, takes);
                None
            }
        }
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Option<(Range<usize>, Vec<String>)> {
        let (span, value) = self.value(key, &Takes::Texts)?;
        let texts = texts_of(value);
        if texts.is_none() {
            self.wrong_type(key, span.clone(), value, &Takes::Texts);
        }
        texts.map(|texts| (span, texts))
    }

    /// A list of texts, or a text in place of a list of one.
    pub(super) fn text_or_texts(
        &mut self,
        key: &'static str,
    ) -> Option<(Range<usize>, Vec<String>)> {
        let (span, value) = self.value(key, &Takes::TextOrTexts)?;
        let texts = value.as_str().map(|text| vec![text.to_owned()]).or_else(|| texts_of(value));
        if texts.is_none() {
            self.wrong_type(key, span.clone(), value, &Takes::TextOrTexts);
        }
        texts.map(|texts| (span, texts))
    }

    /// A list of texts, or this word: then the list is `None`.
    pub(super) fn texts_or_word(
        &mut self,
        key: &'static str,
        word: &'static str,
    ) -> Option<Option<Vec<String>>> {
        let takes = Takes::TextsOrWord(word);
        let (span, value) = self.value(key, &takes)?;
        if value.as_str() == Some(word) {
            return Some(None);
        }
        let texts = texts_of(value);
        if texts.is_none() {
            self.wrong_type(key, span, value, &takes);
        }
        texts.map(Some)
    }

    /// All entries of this table, whose names are chosen by the user; the values must be texts.
    pub(super) fn texts_by_name(&mut self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (name, value) in self.table {
            match value.get_ref() {
                DeValue::String(text) => {
                    all.insert(name.get_ref().to_string(), text.to_string());
                }
                other => self.wrong_type(name.get_ref(), value.span(), other, &Takes::Text),
            }
        }
        all
    }

    /// A text that parses as `T`.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &'static str,
    ) -> Option<T> {
        let (span, text) = self.text(key)?;
        text.parse().map_err(|error| self.problem(key, span, format!("{error}"), None)).ok()
    }

    /// One of the words `known`.
    pub(super) fn word(
        &mut self,
        key: &'static str,
        known: &'static [&'static str],
    ) -> Option<String> {
        let (span, text) = self.text_of(key, &Takes::Word(known))?;
        if known.contains(&text.as_str()) {
            return Some(text);
        }
        let hint = format!("one of: {}", known.join(", "));
        self.problem(key, span, format!("`{}` is not a valid value", excerpt(&text)), Some(hint));
        None
    }

    /// A duration within `range`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<TimeDelta>,
    ) -> Option<TimeDelta> {
        let (span, text) = self.text_of(key, &Takes::Duration(range.clone()))?;
        match parse_duration(&text) {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(_) => {
                let hint = format!(
                    "from {} to {}",
                    show_duration(*range.start()),
                    show_duration(*range.end())
                );
                self.problem(
                    key,
                    span,
                    format!("`{}` is out of range", excerpt(&text)),
                    Some(hint),
                );
                None
            }
            Err(error) => {
                self.problem(key, span, error.to_string(), None);
                None
            }
        }
    }

    /// A duration within `range`, or `default` if there is none that is valid.
    pub(super) fn duration_or(
        &mut self,
        key: &'static str,
        range: RangeInclusive<TimeDelta>,
        default: TimeDelta,
    ) -> TimeDelta {
        self.duration(key, range).unwrap_or(default)
    }

    /// A whole number from 1 to `most`, or `default` if there is none that is valid.
    pub(super) fn count(&mut self, key: &'static str, most: u32, default: u32) -> NonZeroU32 {
        let count = self.whole(key, 1..=most).unwrap_or(default);
        NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
    }

    /// A whole number within `range`.
    pub(super) fn whole<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + Into<i128> + Copy + PartialOrd + fmt::Display,
    {
        let takes = Takes::Whole((*range.start()).into()..=(*range.end()).into());
        let (span, value) = self.value(key, &takes)?;
        let DeValue::Integer(integer) = value else {
            self.wrong_type(key, span, value, &takes);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        if fits.is_none() {
            let hint = format!("from {} to {}", range.start(), range.end());
            self.problem(
                key,
                span,
                format!("{} is out of range", excerpt(integer.as_str())),
                Some(hint),
            );
        }
        fits
    }

    /// An amount of US dollars above zero, e.g. `60` or `0.30`.
    pub(super) fn money(&mut self, key: &'static str) -> Option<MicroUsd> {
        let (span, value) = self.value(key, &Takes::Money)?;
        let text = match value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            other => {
                self.wrong_type(key, span, other, &Takes::Money);
                return None;
            }
        };
        let amount = MicroUsd::parse(text).filter(|amount| *amount > MicroUsd(0));
        if amount.is_none() {
            let hint = "above 0, with at most six decimals, e.g. `60` or `0.30`".to_owned();
            let message = format!("{} is not a valid amount of US dollars", excerpt(text));
            self.problem(key, span, message, Some(hint));
        }
        amount
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.value(key, &Takes::Flag)? {
            (_, DeValue::Boolean(flag)) => Some(*flag),
            (span, other) => {
                self.wrong_type(key, span, other, &Takes::Flag);
                None
            }
        }
    }

    /// A text, a number, or true or false, as a text.
    pub(super) fn scalar(&mut self, key: &'static str) -> Option<(Range<usize>, String)> {
        let (span, value) = self.value(key, &Takes::Scalar)?;
        let text = scalar_of(value);
        if text.is_none() {
            self.wrong_type(key, span.clone(), value, &Takes::Scalar);
        }
        text.map(|text| (span, text))
    }

    /// A list of what `scalar` takes.
    pub(super) fn scalars(&mut self, key: &'static str) -> Option<(Range<usize>, Vec<String>)> {
        let (span, value) = self.value(key, &Takes::Scalars)?;
        let texts = match value {
            DeValue::Array(items) => items.iter().map(|item| scalar_of(item.get_ref())).collect(),
            _ => None,
        };
        if texts.is_none() {
            self.wrong_type(key, span.clone(), value, &Takes::Scalars);
        }
        texts.map(|texts| (span, texts))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn problem(
        &mut self,
        key: &str,
        span: Range<usize>,
        message: String,
        hint: Option<String>,
    ) {
        let path = self.key(key);
        self.sink.add(span, &path, message, hint);
    }

    /// Reports every key that was not asked for. Called when all known keys have been read.
    pub(super) fn report_unknown_keys(&mut self) -> Keys {
        let known: Vec<&str> = self.asked.iter().map(|(key, _)| *key).collect();
        let mut keys = Keys::AllKnown;
        for name in self.table.keys() {
            let text = name.get_ref().as_ref();
            if self.sink.is_full() {
                break;
            }
            if !known.contains(&text) {
                let hint = did_you_mean(text, known.iter().copied())
                    .unwrap_or_else(|| format!("known here: {}", known.join(", ")));
                let path = self.key(text);
                self.sink.add(name.span(), &path, "unknown key".to_owned(), Some(hint));
                keys = Keys::SomeUnknown;
            }
        }
        #[cfg(test)]
        self.sink.note_asked(&self.path, std::mem::take(&mut self.asked));
        keys
    }

    fn value(
        &mut self,
        key: &'static str,
        takes: &Takes,
    ) -> Option<(Range<usize>, &'d DeValue<'d>)> {
        self.asked.push((key, takes.clone()));
        self.table.get(key).map(|value: &'d Spanned<DeValue<'d>>| (value.span(), value.get_ref()))
    }

    fn wrong_type(&mut self, key: &str, span: Range<usize>, value: &DeValue<'_>, takes: &Takes) {
        // Of a list that may be one, the item that is none is what matters.
        let lists = [Takes::Texts, Takes::TextOrTexts];
        let item = match value {
            DeValue::Array(items) if lists.contains(takes) => {
                items.iter().find(|item| item.get_ref().as_str().is_none())
            }
            _ => None,
        };
        let (span, value, message) = match item {
            Some(item) => {
                let value = item.get_ref();
                (item.span(), value, format!("has {} in its list", type_of(value)))
            }
            None => (span, value, format!("is {}", type_of(value))),
        };
        let hint = match value {
            DeValue::Datetime(given) => format!("write it in quotes: `\"{}\"`", in_quotes(given)),
            _ => format!("must be {takes}"),
        };
        self.problem(key, span, message, Some(hint));
    }

    /// The path of `key`, or that of the section itself if it is empty.
    fn key(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

/// Whether a table has keys that gpuctl does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    AllKnown,
    SomeUnknown,
}

fn texts_of(value: &DeValue<'_>) -> Option<Vec<String>> {
    let DeValue::Array(items) = value else { return None };
    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
}

fn scalar_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A date or a time of TOML as our keys take it: times have no seconds.
fn in_quotes(given: &toml::value::Datetime) -> String {
    match (given.date, given.time) {
        (None, Some(time)) => format!("{:02}:{:02}", time.hour, time.minute),
        (Some(date), _) => date.to_string(),
        (None, None) => given.to_string(),
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(given) if given.date.is_none() => "a time without quotes",
        DeValue::Datetime(_) => "a date without quotes",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
