//! Params as people write them, `NAME=VALUE`, to params as a job has them.
//!
//! It knows no task: which names and values a task has is said by `gpu-tasks`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::job::InputUri;

/// One `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    /// The value: `@PATH` is a file, JSON is what it says, anything else a text.
    pub value: String,
}

/// Reads `NAME=VALUE`.
///
/// # Errors
/// Without a name or an equals sign.
pub fn parse_param(text: &str) -> Result<Param, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(Param { name: name.trim().to_owned(), value: value.to_owned() })
        }
        _ => Err(format!(
            "`{text}` is not a valid param: write NAME=VALUE, or NAME=@PATH for a file"
        )),
    }
}

/// The params of a job; relative paths begin at `here`. A name that is given twice has its last value.
#[must_use]
pub fn params_of(given: &[Param], here: &Path) -> Map<String, Value> {
    let pairs = given.iter().map(|param| (param.name.clone(), value_of(&param.value, here)));
    pairs.collect()
}

fn value_of(text: &str, here: &Path) -> Value {
    if let Some(path) = text.strip_prefix('@') {
        return InputUri::of_path(&here.join(path)).as_str().into();
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_file_json_or_a_text() {
        let cases = [
            ("a=1.5", Value::from(1.5)),
            ("a=true", Value::from(true)),
            ("a=[[1, 2]]", serde_json::json!([[1, 2]])),
            ("a=two words", Value::from("two words")),
            ("a=x=y", Value::from("x=y")),
            ("a=\"7\"", Value::from("7")),
            ("a=@b.wav", Value::from("file:///here/b.wav")),
            ("a=@/b.wav", Value::from("file:///b.wav")),
        ];
        for (text, expected) in cases {
            let params = params_of(&[parse_param(text).unwrap()], Path::new("/here"));
            assert_eq!(params["a"], expected, "{text}");
        }
        for bad in ["speed", "=1", " =1"] {
            assert!(parse_param(bad).is_err(), "{bad}");
        }
    }
}
