//! A job's params: what a task can be asked to do differently, checked against the task's own list.
//!
//! Every wrong name, type and range ends here, before a file is fetched or a model opened. What the values mean is the
//! pipelines' business; defaults are theirs too, so a param that was not given is simply absent.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::input::InputError;
use crate::task::Task;

/// Params of a job, checked. Files among them are fetched by the worker, which says where they lie with [`Params::place`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    values: BTreeMap<&'static str, ParamValue>,
    files: BTreeMap<&'static str, PathBuf>,
}

/// One param that a task knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ParamSpec {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: ParamKind,
    /// Whether the task can do without.
    pub need: Need,
}

/// Whether a param must be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The task has a default.
    Optional,
    /// There is no sensible default.
    Required,
}

/// What a param may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ParamKind {
    /// A number in this range.
    Number {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// A whole number in this range.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// True, false, or a whole number in this range.
    FlagOrInteger {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A text.
    Text {
        /// Its longest.
        chars_max: usize,
    },
    /// One of these.
    Choice(&'static [&'static str]),
    /// A list of texts; a single text is a list of one.
    Texts {
        /// The longest list.
        count_max: usize,
        /// The longest text in it.
        chars_max: usize,
    },
    /// A list of rows of so many numbers each, as points or boxes; a single row is a list of one.
    Rows {
        /// Numbers in a row.
        width: usize,
        /// The longest list.
        count_max: usize,
    },
    /// The URI of a file of the kind that the task's own input is.
    File,
}

#[derive(Debug, Clone, PartialEq)]
enum ParamValue {
    Number(f64),
    Integer(i64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Rows(Vec<Vec<f64>>),
    File(String),
}

impl Params {
    /// Checks a job's params against what its task knows.
    ///
    /// # Errors
    /// A name is unknown, a value of the wrong type or out of its range, or a required one absent.
    pub fn read(task: Task, given: &Map<String, Value>) -> Result<Self, InputError> {
        let specs = task.params();
        let mut values = BTreeMap::new();
        for (name, value) in given {
            let spec = specs.iter().find(|spec| spec.name == name);
            let spec = spec.ok_or_else(|| unknown(task, specs, name))?;
            // A param without a value is one that was not given.
            if !value.is_null() {
                let wrong = || InputError::Param {
                    name: spec.name,
                    found: shortened(value),
                    wanted: spec.kind.to_string(),
                };
                values.insert(spec.name, spec.kind.read(value).ok_or_else(wrong)?);
            }
        }
        let absent =
            |spec: &&ParamSpec| spec.need == Need::Required && !values.contains_key(spec.name);
        match specs.iter().find(absent) {
            Some(spec) => {
                Err(InputError::ParamMissing { name: spec.name, wanted: spec.kind.to_string() })
            }
            None => Ok(Self { values, files: BTreeMap::new() }),
        }
    }

    /// The names of those that were given.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    /// The files among them: each one's name and URI.
    pub fn uris(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().filter_map(|(name, value)| match value {
            ParamValue::File(uri) => Some((*name, uri.as_str())),
            _ => None,
        })
    }

    /// Says where a file among them lies on this machine.
    pub fn place(&mut self, name: &'static str, path: PathBuf) {
        self.files.insert(name, path);
    }

    /// Where a file lies, once placed.
    pub(crate) fn file(&self, name: &str) -> Option<&Path> {
        self.files.get(name).map(PathBuf::as_path)
    }

    /// A number; a whole one is a number too.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.values.get(name)? {
            ParamValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A whole number.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.values.get(name)? {
            ParamValue::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// True or false.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.values.get(name)? {
            ParamValue::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A text or a choice.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            ParamValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list of texts.
    #[must_use]
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        match self.values.get(name)? {
            ParamValue::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// A list of rows of numbers.
    #[must_use]
    pub fn rows(&self, name: &str) -> Option<&[Vec<f64>]> {
        match self.values.get(name)? {
            ParamValue::Rows(rows) => Some(rows),
            _ => None,
        }
    }
}

impl ParamKind {
    fn read(self, value: &Value) -> Option<ParamValue> {
        match self {
            Self::Number { min, max } => {
                let number = value.as_f64().filter(|number| (min..=max).contains(number));
                number.map(ParamValue::Number)
            }
            Self::Integer { min, max } => integer(value, min, max),
            Self::FlagOrInteger { min, max } => {
                value.as_bool().map(ParamValue::Flag).or_else(|| integer(value, min, max))
            }
            Self::Text { chars_max } => text(value, chars_max).map(ParamValue::Text),
            Self::Choice(known) => {
                let chosen = value.as_str().filter(|text| known.contains(text));
                chosen.map(|text| ParamValue::Text(text.to_owned()))
            }
            Self::Texts { count_max, chars_max } => {
                let one = std::slice::from_ref(value);
                let list = value.as_array().map_or(one, Vec::as_slice);
                let fits = (1..=count_max).contains(&list.len());
                let texts: Option<_> = list.iter().map(|value| text(value, chars_max)).collect();
                texts.filter(|_| fits).map(ParamValue::Texts)
            }
            Self::Rows { width, count_max } => rows(value, width, count_max).map(ParamValue::Rows),
            Self::File => {
                let uri = value.as_str().filter(|text| text.contains(':'));
                uri.map(|uri| ParamValue::File(uri.to_owned()))
            }
        }
    }
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::FlagOrInteger { min, max } => {
                write!(f, "true, false, or a whole number from {min} to {max}")
            }
            Self::Text { chars_max } => write!(f, "a text of 1 to {chars_max} characters"),
            Self::Choice(known) => write!(f, "one of {}", known.join(", ")),
            Self::Texts { count_max, chars_max } => {
                write!(f, "1 to {count_max} texts of 1 to {chars_max} characters")
            }
            Self::Rows { width, count_max } => {
                write!(f, "1 to {count_max} rows of {width} numbers, as [[…], …]")
            }
            Self::File => f.write_str("the URI of a file, as file:///…"),
        }
    }
}

fn integer(value: &Value, min: i64, max: i64) -> Option<ParamValue> {
    let number = value.as_i64().filter(|number| (min..=max).contains(number));
    number.map(ParamValue::Integer)
}

/// A number counts as its digits: what a command line reads as one may be meant as a text.
fn text(value: &Value, chars_max: usize) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (1..=chars_max).contains(&text.chars().count()).then_some(text)
}

fn rows(value: &Value, width: usize, count_max: usize) -> Option<Vec<Vec<f64>>> {
    let list = value.as_array()?;
    let one = std::slice::from_ref(value);
    let list = if list.first()?.is_array() { list.as_slice() } else { one };
    let row = |row: &Value| {
        let numbers: Option<Vec<f64>> = row.as_array()?.iter().map(Value::as_f64).collect();
        numbers.filter(|numbers| numbers.len() == width)
    };
    let rows: Option<Vec<_>> = list.iter().map(row).collect();
    rows.filter(|rows| rows.len() <= count_max)
}

fn unknown(task: Task, specs: &[ParamSpec], name: &str) -> InputError {
    /// Two slips of the keyboard.
    const DISTANCE_MAX: usize = 2;
    let names = || specs.iter().map(|spec| spec.name);
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let near = names().min_by_key(|known| distance(known));
    let near = near.filter(|near| distance(near) <= DISTANCE_MAX);
    let mut known = match names().collect::<Vec<_>>().as_slice() {
        [] => "it has none".to_owned(),
        names => format!("known are {}", names.join(", ")),
    };
    if let Some(near) = near {
        known = format!("did you mean {near}? {known}");
    }
    InputError::ParamUnknown { task, name: name.chars().take(SHOWN_CHARS).collect(), known }
}

/// How much of a wrong value an error shows.
const SHOWN_CHARS: usize = 60;

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(task: Task, json: &str) -> Result<Params, String> {
        let given: Map<String, Value> = serde_json::from_str(json).unwrap();
        Params::read(task, &given).map_err(|error| format!("{} {error}", error.code()))
    }

    #[test]
    fn an_unknown_param_names_the_known_ones_and_the_nearest() {
        let error = read(Task::VoiceConvert, r#"{"refrence": "file:///a.wav"}"#).unwrap_err();
        assert!(error.starts_with("input.param_unknown voice.convert has no param \"refrence\""));
        assert!(error.contains("did you mean reference?"), "{error}");
        let error = read(Task::VisionOcr, r#"{"speed": 1}"#).unwrap_err();
        assert!(error.ends_with("it has none"), "{error}");
    }

    #[test]
    fn a_required_file_is_asked_for_and_its_uri_is_handed_on() {
        let error = read(Task::VoiceConvert, "{}").unwrap_err();
        assert!(error.starts_with("input.param_missing"), "{error}");
        let params = read(Task::VoiceConvert, r#"{"reference": "file:///a.wav"}"#).unwrap();
        assert_eq!(params.uris().collect::<Vec<_>>(), [("reference", "file:///a.wav")]);
        let error = read(Task::VoiceConvert, r#"{"reference": "a.wav"}"#).unwrap_err();
        assert!(error.contains("the URI of a file"), "{error}");
    }

    #[test]
    fn each_kind_takes_its_own_values_and_no_others() {
        let kinds = [
            (ParamKind::Number { min: 0.5, max: 2.0 }, "1", "3"),
            (ParamKind::Integer { min: 1, max: 9 }, "9", "1.5"),
            (ParamKind::FlagOrInteger { min: 2, max: 9 }, "2", "1"),
            (ParamKind::FlagOrInteger { min: 2, max: 9 }, "true", "\"true\""),
            (ParamKind::Text { chars_max: 3 }, "\"äöü\"", "\"four\""),
            (ParamKind::Text { chars_max: 3 }, "42", "\"\""),
            (ParamKind::Choice(&["a", "b"]), "\"b\"", "\"c\""),
            (ParamKind::Texts { count_max: 2, chars_max: 3 }, "[\"a\", \"b\"]", "[]"),
            (ParamKind::Texts { count_max: 2, chars_max: 3 }, "\"a\"", "[\"long\"]"),
            (ParamKind::Rows { width: 2, count_max: 2 }, "[[1, 2], [3, 4]]", "[[1, 2], [3]]"),
            (ParamKind::Rows { width: 2, count_max: 2 }, "[1, 2]", "[[1,2],[1,2],[1,2]]"),
            (ParamKind::File, "\"s3://b/k\"", "7"),
        ];
        for (kind, good, bad) in kinds {
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert!(kind.read(&value(good)).is_some(), "{kind}: {good}");
            assert!(kind.read(&value(bad)).is_none(), "{kind}: {bad}");
        }
        let rows = ParamKind::Rows { width: 2, count_max: 1 };
        let row = Value::from(vec![1, 2]);
        assert_eq!(rows.read(&row), Some(ParamValue::Rows(vec![vec![1.0, 2.0]])));
    }
}
