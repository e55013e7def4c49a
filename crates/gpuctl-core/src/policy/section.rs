//! Reads one TOML table key by key and reports what it cannot take, without stopping at the first problem.
//!
//! Serde stops there, and knows no lines: that is why the policy is read from the document itself.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use chrono::TimeDelta;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Sink;
use crate::suggest::did_you_mean;
use crate::units::{MicroUsd, parse_span, show_span};

/// A table of the document, with what has been asked of it so far.
pub(super) struct Section<'d, 's, 't> {
    pub(super) path: String,
    pub(super) span: Range<usize>,
    table: &'d DeTable<'d>,
    asked: Vec<&'static str>,
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

    /// The sub-table `key`; absent reads as empty.
    pub(super) fn section<'n>(&'n mut self, key: &'static str) -> Section<'d, 'n, 't> {
        static EMPTY: std::sync::LazyLock<DeTable<'static>> =
            std::sync::LazyLock::new(DeTable::new);
        let path = self.key(key);
        let (span, table) = match self.value(key) {
            Some((span, DeValue::Table(table))) => (span, table),
            Some((span, other)) => {
                self.wrong_type(key, span.clone(), other, "a table");
                (span, &*EMPTY)
            }
            None => (self.span.clone(), &*EMPTY),
        };
        Section::new(path, span, table, self.sink)
    }

    /// The sub-tables of `key`, whose names the user chooses, each read by `read`.
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
            let path = format!("{}.{}", inner.path, name.get_ref());
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
                    format!("is {}, not a table", article(other)),
                    Some(format!("write `[{path}]`")),
                ),
            }
        }
        all
    }

    /// The tables of `[[key]]`, each read by `read`.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(Section<'d, '_, 't>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.key(key);
        let items = match self.value(key) {
            None => return Vec::new(),
            Some((_, DeValue::Array(items))) => items,
            Some((span, other)) => {
                self.wrong_type(key, span, other, &format!("a list of tables: write `[[{path}]]`"));
                return Vec::new();
            }
        };
        let mut all = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => {
                    all.extend(read(Section::new(path.clone(), item.span(), table, self.sink)));
                }
                other => self.sink.add(
                    item.span(),
                    &path,
                    format!("holds {}, not a table", article(other)),
                    None,
                ),
            }
        }
        all
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(Range<usize>, String)> {
        match self.value(key)? {
            (span, DeValue::String(text)) => Some((span, text.to_string())),
            (span, other) => {
                self.wrong_type(key, span, other, "a text in quotes");
                None
            }
        }
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Option<(Range<usize>, Vec<String>)> {
        let (span, value) = self.value(key)?;
        let texts = match value {
            DeValue::Array(items) => {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        if texts.is_none() {
            self.wrong_type(key, span.clone(), value, "a list of texts, as `[\"a\", \"b\"]`");
        }
        texts.map(|texts: Vec<String>| (span, texts))
    }

    /// Every entry of this table, whose names the user chooses: all must be texts.
    pub(super) fn texts_by_name(&mut self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (name, value) in self.table {
            match value.get_ref() {
                DeValue::String(text) => {
                    all.insert(name.get_ref().to_string(), text.to_string());
                }
                other => self.wrong_type(name.get_ref(), value.span(), other, "a text in quotes"),
            }
        }
        all
    }

    /// A text that parses as `T`; the error's own words say what is wrong.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &'static str,
    ) -> Option<T> {
        let (span, text) = self.text(key)?;
        text.parse().map_err(|error| self.problem(key, span, format!("{error}"), None)).ok()
    }

    /// One of a few words.
    pub(super) fn word(&mut self, key: &'static str, known: &[&'static str]) -> Option<String> {
        let (span, text) = self.text(key)?;
        if known.contains(&text.as_str()) {
            return Some(text);
        }
        let hint = format!("one of: {}", known.join(", "));
        self.problem(key, span, format!("`{text}` is not known"), Some(hint));
        None
    }

    /// A span of time within `range`.
    pub(super) fn span_of_time(
        &mut self,
        key: &'static str,
        range: RangeInclusive<TimeDelta>,
    ) -> Option<TimeDelta> {
        let (span, text) = self.text(key)?;
        match parse_span(&text) {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(_) => {
                let hint =
                    format!("from {} to {}", show_span(*range.start()), show_span(*range.end()));
                self.problem(key, span, format!("`{text}` is out of range"), Some(hint));
                None
            }
            Err(error) => {
                self.problem(key, span, error.to_string(), None);
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn whole<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + std::fmt::Display,
    {
        let (span, value) = self.value(key)?;
        let DeValue::Integer(integer) = value else {
            self.wrong_type(key, span, value, "a whole number");
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        if fits.is_none() {
            let hint = format!("from {} to {}", range.start(), range.end());
            self.problem(key, span, format!("{} is out of range", integer.as_str()), Some(hint));
        }
        fits
    }

    /// An amount of dollars above zero, as `60` or `0.30`.
    pub(super) fn money(&mut self, key: &'static str) -> Option<MicroUsd> {
        let (span, value) = self.value(key)?;
        let text = match value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            other => {
                self.wrong_type(key, span, other, "an amount of US dollars, as `60` or `0.30`");
                return None;
            }
        };
        let amount = MicroUsd::parse(text).filter(|amount| *amount > MicroUsd(0));
        if amount.is_none() {
            let hint = "above 0, with at most six decimals, as `60` or `0.30`".to_owned();
            let message = format!("{text} is no amount of US dollars");
            self.problem(key, span, message, Some(hint));
        }
        amount
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            (_, DeValue::Boolean(flag)) => Some(*flag),
            (span, other) => {
                self.wrong_type(key, span, other, "true or false");
                None
            }
        }
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

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for name in self.table.keys() {
            let text = name.get_ref().as_ref();
            if !self.asked.contains(&text) {
                let hint = did_you_mean(text, self.asked.iter().copied())
                    .unwrap_or_else(|| format!("known here: {}", self.asked.join(", ")));
                let path = self.key(text);
                self.sink.add(name.span(), &path, "unknown key".to_owned(), Some(hint));
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<(Range<usize>, &'d DeValue<'d>)> {
        self.asked.push(key);
        self.table.get(key).map(|value: &'d Spanned<DeValue<'d>>| (value.span(), value.get_ref()))
    }

    fn wrong_type(&mut self, key: &str, span: Range<usize>, value: &DeValue<'_>, wanted: &str) {
        self.problem(
            key,
            span,
            format!("is {}", article(value)),
            Some(format!("must be {wanted}")),
        );
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
