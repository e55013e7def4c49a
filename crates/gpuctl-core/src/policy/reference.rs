//! Writes `CONFIGURATION.md`, the reference of all settings, and fails when the page is not current.
//!
//! Types and ranges are what the sections ask for; defaults and meanings are in `settings.rs`. Each default is checked: a
//! policy that writes it out is the same as one that leaves it out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::problems::Sink;
use super::section::Takes;
use super::settings::{DefaultValue, SECTIONS, SettingDoc};
use super::{FileDates, Files, Policy, sections};
use crate::cost::PriceTable;
use crate::units::show_duration;

/// Longer lines of the page are broken.
const COLUMNS: usize = 120;

const HEAD: &str = include_str!("reference/head.md");

const EXAMPLES: [(&str, &str); 3] = [
    ("One machine", include_str!("../../examples/one-machine.toml")),
    ("Two EC2 instances", include_str!("../../examples/aws-two-instances.toml")),
    ("EC2 and a queue", include_str!("../../examples/aws-queue.toml")),
];

#[test]
fn the_configuration_page_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFIGURATION.md");
    let page = page(&asked());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(page, checked_in, "UPDATE_GOLDEN=1 cargo test writes {} anew", file.display());
}

#[test]
fn every_setting_is_described() {
    let known: BTreeSet<String> = asked().into_iter().map(|(path, _)| path).collect();
    let described: BTreeSet<String> = SECTIONS
        .iter()
        .flat_map(|section| {
            section.settings.iter().map(|one| format!("{}.{}", section.path, one.key))
        })
        .collect();
    let undescribed: Vec<_> = known.difference(&described).collect();
    let unknown: Vec<_> = described.difference(&known).collect();
    assert!(undescribed.is_empty() && unknown.is_empty(), "{undescribed:?} {unknown:?}");
}

#[test]
fn every_default_is_what_applies_without_the_setting() {
    for section in SECTIONS {
        for setting in section.settings {
            let values: &[(Backend, &str)] = match setting.default {
                DefaultValue::Value(value) => &[(Backend::Local, value)],
                DefaultValue::ValueOf { local, aws } => {
                    &[(Backend::Local, local), (Backend::Aws, aws)]
                }
                DefaultValue::Words(_) => &[],
            };
            for (backend, value) in values {
                let line = format!("{} = {value}", setting.key);
                let path = section.path;
                assert_eq!(
                    parsed(*backend, path, &line),
                    parsed(*backend, path, ""),
                    "{path}.{line}"
                );
            }
        }
    }
}

#[test]
fn the_examples_are_valid_policies() {
    for (name, text) in EXAMPLES {
        if let Err(problems) = Policy::parse(text) {
            panic!("{name}: {:?}", problems.0);
        }
    }
}

#[derive(Clone, Copy)]
enum Backend {
    Local,
    Aws,
}

/// A policy with one pool, and with `line` in the section of that path.
fn parsed(backend: Backend, path: &str, line: &str) -> Policy {
    let mut cloud = String::new();
    let mut pool = "queue = \"jobs\"\n".to_owned();
    if let Backend::Aws = backend {
        cloud.push_str("kind = \"aws\"\ntable = \"gpuctl\"\n");
        pool.push_str("instances = [\"i-0123456789abcdef0\"]\n");
    }
    let mut rest = String::new();
    match path {
        "cloud" => cloud.push_str(line),
        "pool.NAME" => pool.push_str(line),
        "pool.NAME.submit" => {
            rest = format!(
                "[[{path}]]\nzone = \"UTC\"\nbegin = \"02:00\"\nname = \"n\"\ntask = \"vision.ocr\"\ninput = \"/a\"\n{line}"
            );
        }
        "pool.NAME.schedule" | "pool.NAME.quiet" => {
            rest = format!("[[{path}]]\nzone = \"UTC\"\n{line}");
        }
        "command.NAME" => rest = format!("[{path}]\nargv = [\"a\"]\n{line}"),
        _ => rest = format!("[{path}]\n{line}"),
    }
    let text = format!("[cloud]\n{cloud}\n[pool.NAME]\n{pool}\n{rest}\n");
    Policy::parse(&text).unwrap_or_else(|problems| panic!("{text}\n{:?}", problems.0))
}

/// All keys that the sections ask for, each with the values that it takes.
fn asked() -> Vec<(String, Takes)> {
    let text = "[pool.NAME]\nqueue = \"jobs\"\nselect = {}\n[[pool.NAME.schedule]]\n[[pool.NAME.quiet]]\n[[pool.NAME.submit]]\n[model.NAME]\n[command.NAME]\n[command.NAME.params.NAME]";
    let mut sink = Sink::new(text);
    let dates = |_: &str| Ok(FileDates::default());
    let files = Files { dates: &dates, prices: &|_| PriceTable::default() };
    // The text is not a valid policy; only the keys matter.
    let _ = sections::read_into(text, files, &mut sink);
    let is_setting = |(path, takes): &(String, Takes)| {
        // The root's tables are the sections themselves.
        !path.starts_with('.')
            && !path.ends_with(".calendar")
            && !path.ends_with(".params")
            && !matches!(takes, Takes::Tables)
    };
    sink.asked.into_iter().filter(is_setting).collect()
}

fn page(asked: &[(String, Takes)]) -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        let _ = write!(page, "\n## `{}`\n\n{}\n", section.heading, wrapped(section.about, ""));
        for setting in section.settings {
            let path = format!("{}.{}", section.path, setting.key);
            let (_, takes) = asked.iter().find(|(asked, _)| *asked == path).unwrap();
            let _ = write!(page, "\n{}", item(setting, takes));
        }
        page.push('\n');
    }
    page.push_str("\n## Examples\n");
    for (name, text) in EXAMPLES {
        let _ = write!(page, "\n### {name}\n\n```toml\n{text}```\n");
    }
    page
}

fn item(setting: &SettingDoc, takes: &Takes) -> String {
    let takes = setting.takes.map_or_else(|| kind(takes), str::to_owned);
    let default = match setting.default {
        DefaultValue::Value(value) => format!("default `{value}`"),
        DefaultValue::ValueOf { local, aws } => format!("default `{local}`, on AWS `{aws}`"),
        DefaultValue::Words(words) => format!("default: {words}"),
    };
    wrapped(&format!("- `{}` ({takes}; {default}): {}", setting.key, setting.meaning), "  ")
}

fn kind(takes: &Takes) -> String {
    match takes {
        Takes::Text => "text".to_owned(),
        Takes::Texts => "list of texts".to_owned(),
        Takes::TextOrTexts => "text, or list of texts".to_owned(),
        Takes::TextsOrWord(word) => format!("list of texts or `\"{word}\"`"),
        Takes::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(" or ")
        }
        Takes::Duration(range) => {
            format!(
                "duration, {} to {}",
                show_duration(*range.start()),
                show_duration(*range.end())
            )
        }
        Takes::Whole(range) => format!("whole number, {} to {}", range.start(), range.end()),
        Takes::Money => "US dollars, above 0".to_owned(),
        Takes::Flag => "`true` or `false`".to_owned(),
        Takes::Scalar => "text, number, `true` or `false`".to_owned(),
        Takes::Scalars => "list of numbers".to_owned(),
        Takes::Table => "table".to_owned(),
        Takes::Tables => "list of tables".to_owned(),
    }
}

/// The text in lines of at most `COLUMNS`; all but the first begin with `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            let _ = write!(lines, "\n{indent}");
            column = indent.len();
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}
