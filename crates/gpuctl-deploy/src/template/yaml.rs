//! CloudFormation's YAML as JSON: the short forms of functions become their long ones, e.g. `!Ref X` becomes `{"Ref": "X"}`.

use serde_json::{Map, Value};
use yaml_rust2::parser::{Event, EventReceiver, Parser, Tag};
use yaml_rust2::scanner::TScalarStyle;

/// The document in `text`.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut loader = Loader::default();
    Parser::new_from_str(text).load(&mut loader, false).map_err(|error| error.to_string())?;
    match loader.has_alias {
        true => Err("aliases are not read".to_owned()),
        false => Ok(loader.done.unwrap_or_default()),
    }
}

/// A list or mapping whose end has not come yet.
struct Open {
    tag: Option<Tag>,
    is_list: bool,
    items: Vec<Value>,
}

#[derive(Default)]
struct Loader {
    open: Vec<Open>,
    done: Option<Value>,
    has_alias: bool,
}

impl EventReceiver for Loader {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::SequenceStart(_, tag) => {
                self.open.push(Open { tag, is_list: true, items: Vec::new() });
            }
            Event::MappingStart(_, tag) => {
                self.open.push(Open { tag, is_list: false, items: Vec::new() });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Scalar(text, style, _, tag) => self.add(in_long_form(tag, scalar(text, style))),
            Event::Alias(_) => self.has_alias = true,
            _ => {}
        }
    }
}

impl Loader {
    fn close(&mut self) {
        let Some(open) = self.open.pop() else { return };
        let value = if open.is_list {
            Value::Array(open.items)
        } else {
            let mut pairs = Map::new();
            let mut items = open.items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.insert(text_of(&key).unwrap_or_default(), value);
            }
            Value::Object(pairs)
        };
        self.add(in_long_form(open.tag, value));
    }

    fn add(&mut self, value: Value) {
        match self.open.last_mut() {
            Some(open) => open.items.push(value),
            None => self.done = Some(value),
        }
    }
}

fn scalar(text: String, style: TScalarStyle) -> Value {
    if style != TScalarStyle::Plain {
        return Value::String(text);
    }
    match text.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "" | "~" | "null" => Value::Null,
        _ => text.parse::<i64>().map_or(Value::String(text), Value::from),
    }
}

fn in_long_form(tag: Option<Tag>, value: Value) -> Value {
    let Some(tag) = tag.filter(|tag| tag.handle == "!") else { return value };
    let (name, value) = match (tag.suffix.as_str(), value) {
        ("Ref", value) => ("Ref".to_owned(), value),
        ("Condition", value) => ("Condition".to_owned(), value),
        ("GetAtt", Value::String(text)) => {
            let parts = text.splitn(2, '.').map(Value::from).collect();
            ("Fn::GetAtt".to_owned(), Value::Array(parts))
        }
        (other, value) => (format!("Fn::{other}"), value),
    };
    Value::Object(Map::from_iter([(name, value)]))
}

/// A scalar as CloudFormation writes it.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_forms_become_long_ones() {
        let text = "a: !Not [!Equals [!Ref X, \"\"]]\nb: {c: !GetAtt Q.Arn, d: 07, e: '7', f: !Sub \"${X}-y\"}\ng:\n  - 1\n  - !If [C, on, \"off\"]\n";
        let wanted = json!({
            "a": {"Fn::Not": [{"Fn::Equals": [{"Ref": "X"}, ""]}]},
            "b": {"c": {"Fn::GetAtt": ["Q", "Arn"]}, "d": 7, "e": "7", "f": {"Fn::Sub": "${X}-y"}},
            "g": [1, {"Fn::If": ["C", "on", "off"]}],
        });
        assert_eq!(read(text).unwrap(), wanted);
        assert!(read("a: [1").is_err());
        assert!(read("a: &x 1\nb: *x\n").is_err());
    }
}
