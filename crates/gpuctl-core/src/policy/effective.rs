//! Every setting as it applies: what the file says, with its line, and the default of what it leaves out.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::settings::{DefaultValue, SECTIONS, SectionDoc};

/// A section, and its settings in the order of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSection {
    /// As in the file, e.g. `[pool.gpu]`.
    pub heading: String,
    pub settings: Vec<EffectiveSetting>,
}

/// A setting as it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSetting {
    pub key: String,
    /// As it is written in a file; `None` for a default that is only words.
    pub value: Option<String>,
    /// What applies where there is no value, e.g. `none`.
    pub words: Option<&'static str>,
    /// Its line in the file, from 1; `None` for a default.
    pub line: Option<usize>,
}

/// The settings of a valid policy. Sections with names, e.g. of pools, are those of the file; the others are always there.
#[must_use]
pub fn effective(text: &str) -> Vec<EffectiveSection> {
    let (document, _) = DeTable::parse_recoverable(text);
    let root = document.get_ref();
    let is_on_aws = root.get("cloud").and_then(|cloud| cloud.get_ref().get("kind"));
    let is_on_aws = is_on_aws.and_then(|kind| kind.get_ref().as_str()) == Some("aws");
    let file = File { text, is_on_aws };
    SECTIONS.iter().flat_map(|section| file.sections(section, root)).collect()
}

struct File<'t> {
    text: &'t str,
    is_on_aws: bool,
}

impl File<'_> {
    /// The sections of the file that one of the reference describes.
    fn sections(&self, doc: &SectionDoc, root: &DeTable<'_>) -> Vec<EffectiveSection> {
        let parts: Vec<&str> = doc.path.split('.').collect();
        let found = tables(&parts, root, String::new());
        if found.is_empty() && !doc.path.contains("NAME") {
            return vec![self.section(doc, doc.path, &BTreeMap::new())];
        }
        found
            .into_iter()
            .map(|(path, table)| self.section(doc, &path, &self.values(table)))
            .collect()
    }

    fn section(
        &self,
        doc: &SectionDoc,
        path: &str,
        values: &BTreeMap<String, (String, usize)>,
    ) -> EffectiveSection {
        let setting = |key: &'static str, default: DefaultValue| {
            let (value, words) = match default {
                DefaultValue::Value(value) => (Some(value), None),
                DefaultValue::ValueOf { aws, .. } if self.is_on_aws => (Some(aws), None),
                DefaultValue::ValueOf { local, .. } => (Some(local), None),
                DefaultValue::Words(words) => (None, Some(words)),
            };
            let key = key.to_owned();
            match values.get(&key) {
                Some((value, line)) => EffectiveSetting {
                    key,
                    value: Some(value.clone()),
                    words: None,
                    line: Some(*line),
                },
                None => {
                    EffectiveSetting { key, value: value.map(str::to_owned), words, line: None }
                }
            }
        };
        let heading = doc.heading.replace(doc.path, path);
        let settings = doc.settings.iter().map(|one| setting(one.key, one.default)).collect();
        EffectiveSection { heading, settings }
    }

    /// The values of a table as they are written, and their lines.
    fn values(&self, table: &DeTable<'_>) -> BTreeMap<String, (String, usize)> {
        let of = |range: Range<usize>| self.text.get(range).unwrap_or_default().to_owned();
        let line = |at: usize| 1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let entry = |(key, value): (
            &toml::Spanned<toml::de::DeString<'_>>,
            &toml::Spanned<DeValue<'_>>,
        )| {
            (key.get_ref().to_string(), (of(value.span()), line(key.span().start)))
        };
        table.iter().map(entry).collect()
    }
}

/// The tables at a path, in which `NAME` stands for every name, each with its own path; of a list of tables every one.
fn tables<'d>(
    parts: &[&str],
    table: &'d DeTable<'d>,
    path: String,
) -> Vec<(String, &'d DeTable<'d>)> {
    let Some((first, rest)) = parts.split_first() else { return vec![(path, table)] };
    let fits = table.iter().filter(|(key, _)| *first == "NAME" || key.get_ref().as_ref() == *first);
    let below = |key: &str, value: &'d DeValue<'d>| {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            DeValue::Table(table) => tables(rest, table, path),
            DeValue::Array(all) => {
                let inner = all.iter().filter_map(|one| one.get_ref().as_table());
                inner.flat_map(|table| tables(rest, table, path.clone())).collect()
            }
            _ => Vec::new(),
        }
    };
    fits.flat_map(|(key, value)| below(key.get_ref(), value.get_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for section in effective(text) {
            for one in section.settings {
                let value = one.value.or(one.words.map(str::to_owned)).unwrap_or_default();
                lines.push(format!("{} {} = {value} {:?}", section.heading, one.key, one.line));
            }
        }
        lines
    }

    #[test]
    fn what_the_file_says_has_its_line_and_what_it_leaves_out_its_default() {
        let text = "[pool.gpu]\nqueue = \"jobs\"\n\nmax_wait = \"10m\"\n[[pool.gpu.schedule]]\nzone = \"UTC\"\nbegin = \"09:00\"\n[[pool.gpu.schedule]]\nzone = \"Asia/Tokyo\"\n[pool.app]\ncommand = [\"a\", \"b\"]\n";
        let lines = shown(text);
        for line in [
            "[pool.gpu] max_wait = \"10m\" Some(4)",
            "[pool.gpu] idle_stop = \"auto\" None",
            "[pool.app] command = [\"a\", \"b\"] Some(11)",
            "[[pool.gpu.schedule]] zone = \"UTC\" Some(6)",
            "[[pool.gpu.schedule]] zone = \"Asia/Tokyo\" Some(9)",
            "[cloud] kind = \"local\" None",
        ] {
            assert!(lines.iter().any(|one| one == line), "{line} in {lines:#?}");
        }
        assert!(!lines.iter().any(|one| one.starts_with("[model.")), "{lines:#?}");
    }

    #[test]
    fn defaults_are_those_of_the_backend() {
        let boot = |text: &str| {
            let lines = shown(text);
            lines.into_iter().find(|line| line.contains("boot_default")).unwrap()
        };
        let pool = "[pool.gpu]\nqueue = \"q\"\n";
        let on_aws = boot(&format!("[cloud]\nkind = \"aws\"\n{pool}"));
        assert_ne!(boot(pool), on_aws);
    }
}
