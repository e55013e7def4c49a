//! `config`: which configuration is used, what it sets and what it leaves at its default, whether a file is valid, and what a file may say.

use std::path::Path;

use gpuctl_control::config::{Config, ConfigError};
use gpuctl_core::policy::settings::{DefaultValue, SECTIONS, SectionDoc, SettingDoc};
use gpuctl_core::policy::{DEFAULT_TEXT, EffectiveSetting, effective};
use serde_json::{Map, Value, json};

use crate::arguments::ConfigCommand;
use crate::documents::config::{
    ConfigPathDocument, ConfigShowDocument, ConfigValidDocument, SectionDocument, SettingDocument,
};
use crate::failure::{Code, Failure};
use crate::render::Output;

/// Variables that replace a setting, each with its section and key.
const VARIABLES: [(&str, &str, &str); 4] = [
    ("GPUCTL_STATE", "[cloud]", "state"),
    ("GPUCTL_MODELS", "[worker]", "models"),
    ("GPUCTL_ONNXRUNTIME", "[worker]", "onnxruntime"),
    ("DEVICE", "[worker]", "device"),
];

/// `gpuctl config …`.
pub(super) fn run(
    config: Result<Config, ConfigError>,
    command: ConfigCommand,
) -> Result<Output, Failure> {
    match command {
        ConfigCommand::Path => Ok(Output::ConfigPath(path(&config?))),
        ConfigCommand::Show { origin } => Ok(Output::ConfigShow(show(&config?, origin)?)),
        ConfigCommand::Schema => Ok(Output::ConfigSchema(schema())),
        ConfigCommand::Validate { path } => {
            let config = path.map_or(config, |path| Config::load(Some(&path)))?;
            let pools = config.policy.pools.iter().map(|pool| pool.id.to_string()).collect();
            Ok(Output::ConfigValid(ConfigValidDocument { config: config.source(), pools }))
        }
    }
}

fn path(config: &Config) -> ConfigPathDocument {
    let shown = |path: &Path| path.display().to_string();
    ConfigPathDocument {
        config: config.source(),
        state: shown(&config.state),
        not_used: config.not_used().map(|file| shown(&file)),
    }
}

fn show(config: &Config, origin: bool) -> Result<ConfigShowDocument, Failure> {
    let text = match &config.file {
        Some(file) => std::fs::read_to_string(file).map_err(|error| {
            let message = format!("cannot read {}", file.display());
            Failure::new(Code::FileUnreadable, message).because(&error)
        })?,
        None if config.stored_at.is_some() => {
            return Err(Failure::new(
                Code::ConfigUnreadable,
                "a stored configuration is not shown",
            )
            .hint("copy it to this machine, and name the file with --config"));
        }
        None => DEFAULT_TEXT.to_owned(),
    };
    let section = |section: gpuctl_core::policy::EffectiveSection| SectionDocument {
        settings: section
            .settings
            .into_iter()
            .map(|setting| setting_document(&section.heading, setting))
            .collect(),
        heading: section.heading,
    };
    let sections = effective(&text).into_iter().map(section).collect();
    Ok(ConfigShowDocument { config: config.source(), sections, show_origin: origin })
}

/// A setting, or the variable of the environment that replaces it.
fn setting_document(heading: &str, setting: EffectiveSetting) -> SettingDocument {
    let replaces = VARIABLES.iter().find(|(_, of, key)| *of == heading && *key == setting.key);
    let variable = replaces.and_then(|(name, ..)| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        Some((*name, Value::from(value).to_string()))
    });
    if let Some((name, value)) = variable {
        let (key, origin) = (setting.key, name.to_owned());
        return SettingDocument { key, value: Some(value), words: None, origin, line: None };
    }
    SettingDocument {
        key: setting.key,
        value: setting.value,
        words: setting.words,
        origin: if setting.line.is_some() { "file" } else { "default" }.to_owned(),
        line: setting.line,
    }
}

/// A JSON Schema of `gpuctl.toml`, for editors. Ranges are checked by `gpuctl config validate` alone.
fn schema() -> Value {
    let mut root = object("gpuctl.toml");
    for section in SECTIONS {
        let parts: Vec<&str> = section.path.split('.').collect();
        let mut at = &mut root;
        for (index, part) in parts.iter().enumerate() {
            let is_list = index + 1 == parts.len() && section.heading.starts_with("[[");
            at = below(at, part, is_list);
        }
        at["description"] = section.about.into();
        add_settings(at, section);
    }
    root
}

fn object(about: &str) -> Value {
    json!({ "type": "object", "description": about, "properties": {}, "additionalProperties": false })
}

/// The schema of a table inside of another: `NAME` is any name.
fn below<'s>(at: &'s mut Value, part: &str, is_list: bool) -> &'s mut Value {
    let slot =
        if part == "NAME" { &mut at["additionalProperties"] } else { &mut at["properties"][part] };
    if !slot.is_object() {
        let table = object("");
        *slot = if is_list { json!({ "type": "array", "items": table }) } else { table };
    }
    if is_list { &mut slot["items"] } else { slot }
}

fn add_settings(at: &mut Value, section: &SectionDoc) {
    let properties = at["properties"].as_object_mut();
    if let Some(properties) = properties {
        properties
            .extend(section.settings.iter().map(|one| (one.key.to_owned(), setting_schema(one))));
    }
}

/// What the reference says of a setting; its type where its default shows it.
fn setting_schema(setting: &SettingDoc) -> Value {
    let mut schema = Map::from_iter([("description".to_owned(), setting.meaning.into())]);
    let literal = match setting.default {
        DefaultValue::Value(value) => Some(value),
        DefaultValue::ValueOf { local, .. } => Some(local),
        DefaultValue::Words(_) => None,
    };
    // Numbers, texts, flags and lists of them are written alike in TOML and JSON.
    if let Some(value) = literal.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        schema.insert("default".to_owned(), value);
    }
    Value::Object(schema)
}
