//! A job's params, checked against the list of its task.
//!
//! Every wrong name, type and range is found here, before a file is fetched or a model opened. Defaults are the
//! models' business: a param that a job leaves out is absent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::spec::{Need, ParamKind, ParamSpec};
use crate::task::Task;

/// A job's checked params. A worker that has fetched the files among them says where each lies with [`Params::set_file`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    values: BTreeMap<&'static str, ParamValue>,
    files: BTreeMap<&'static str, PathBuf>,
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
    /// Checks a job's params against the list of its task.
    ///
    /// # Errors
    /// A name is unknown, a value of the wrong type or out of its range, or a required param missing.
    pub fn read(task: Task, given: &Map<String, Value>) -> Result<Self, ParamError> {
        let mut values = BTreeMap::new();
        for (name, value) in given {
            let spec = task.params().iter().find(|spec| spec.name == name);
            let spec = spec.ok_or_else(|| ParamError::Unknown { task, name: name.clone() })?;
            // JSON's null is a param that was left out.
            if !value.is_null() {
                let invalid =
                    || ParamError::Invalid { spec, found: crate::shown(&value.to_string()) };
                values.insert(spec.name, spec.kind.read(value).ok_or_else(invalid)?);
            }
        }
        let missing =
            |spec: &&ParamSpec| spec.need == Need::Required && !values.contains_key(spec.name);
        match task.params().iter().find(missing) {
            Some(spec) => Err(ParamError::Missing { task, spec }),
            None => Ok(Self { values, files: BTreeMap::new() }),
        }
    }

    /// The names of the params that the job has.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    /// Name and URI of each param that is a file.
    pub fn uris(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().filter_map(|(name, value)| match value {
            ParamValue::File(uri) => Some((*name, uri.as_str())),
            _ => None,
        })
    }

    /// Says where the file of a param lies on this machine.
    pub fn set_file(&mut self, name: &'static str, path: PathBuf) {
        self.files.insert(name, path);
    }

    /// Where the file of a param lies on this machine, if [`Params::set_file`] has said so.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Path> {
        self.files.get(name).map(PathBuf::as_path)
    }

    /// The value of a param of the kind [`ParamKind::Number`]; `None` if the job leaves it out or it is of another kind.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.values.get(name)? {
            ParamValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The value of a param that is a whole number, as [`Params::number`].
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.values.get(name)? {
            ParamValue::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The value of a param that is true or false, as [`Params::number`].
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.values.get(name)? {
            ParamValue::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The value of a param that is a text or a choice, as [`Params::number`].
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            ParamValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a param that is a list of texts, as [`Params::number`].
    #[must_use]
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        match self.values.get(name)? {
            ParamValue::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// The value of a param that is a list of rows of numbers, as [`Params::number`].
    #[must_use]
    pub fn rows(&self, name: &str) -> Option<&[Vec<f64>]> {
        match self.values.get(name)? {
            ParamValue::Rows(rows) => Some(rows),
            _ => None,
        }
    }
}

impl ParamKind {
    /// The value, if it is of this type and within this range.
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

fn integer(value: &Value, min: i64, max: i64) -> Option<ParamValue> {
    let number = value.as_i64().filter(|number| (min..=max).contains(number));
    number.map(ParamValue::Integer)
}

/// A number counts as its digits: the command line reads `voice=7` as a number although a text is meant.
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

/// Why a job's params are rejected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParamError {
    /// The task has no param of that name.
    #[error("{task} has no param `{}`{}", crate::shown(name), did_you_mean(*task, name))]
    Unknown {
        /// The job's task.
        task: Task,
        /// The name that was given, in full.
        name: String,
    },
    /// The value is of the wrong type or out of its range.
    #[error("the param `{}` is {found}, not {}", spec.name, spec.kind)]
    Invalid {
        /// What the task expects.
        spec: &'static ParamSpec,
        /// The value as JSON, cut to a length that fits a line.
        found: String,
    },
    /// The task needs the param.
    #[error("{task} needs the param `{}`: {}", spec.name, spec.kind)]
    Missing {
        /// The job's task.
        task: Task,
        /// What the task expects.
        spec: &'static ParamSpec,
    },
}

impl ParamError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "input.param_unknown",
            Self::Invalid { .. } => "input.param",
            Self::Missing { .. } => "input.param_missing",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { task, .. } => match names(*task).as_slice() {
                [] => format!("{task} has no params"),
                names => format!("{task} has {}", names.join(", ")),
            },
            Self::Invalid { spec, .. } | Self::Missing { spec, .. } => match spec.kind {
                ParamKind::File => format!("name a file: `--param {}=@PATH`", spec.name),
                _ => format!("{} means: {}", spec.name, spec.meaning),
            },
        }
    }
}

fn names(task: Task) -> Vec<&'static str> {
    task.params().iter().map(|spec| spec.name).collect()
}

fn did_you_mean(task: Task, name: &str) -> String {
    let near = crate::nearest(name, names(task));
    near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(task: Task, json: &str) -> Result<Params, String> {
        let given: Map<String, Value> = serde_json::from_str(json).unwrap();
        Params::read(task, &given).map_err(|error| format!("{} {error}", error.code()))
    }

    #[test]
    fn an_unknown_param_gets_the_nearest_and_a_list() {
        let given: Map<String, Value> =
            serde_json::from_str(r#"{"refrence": "file:///a.wav"}"#).unwrap();
        let error = Params::read(Task::VoiceConvert, &given).unwrap_err();
        assert_eq!(
            error.to_string(),
            "voice.convert has no param `refrence`: did you mean `reference`?"
        );
        assert_eq!(error.hint(), "voice.convert has reference, tau");
        let given: Map<String, Value> = serde_json::from_str(r#"{"speed": 1}"#).unwrap();
        let error = Params::read(Task::VisionOcr, &given).unwrap_err();
        assert_eq!(error.to_string(), "vision.ocr has no param `speed`");
        assert_eq!(error.hint(), "vision.ocr has no params");
    }

    #[test]
    fn a_value_out_of_range_is_shown_with_the_range() {
        let error = read(Task::VoiceSynthesize, r#"{"speed": 9}"#).unwrap_err();
        assert_eq!(error, "input.param the param `speed` is 9, not a number from 0.25 to 4");
        assert!(
            read(Task::VoiceSynthesize, r#"{"speed": null}"#).unwrap().given().next().is_none()
        );
    }

    #[test]
    fn a_required_file_must_be_given_as_a_uri() {
        let error = read(Task::VoiceConvert, "{}").unwrap_err();
        assert!(error.starts_with("input.param_missing voice.convert needs"), "{error}");
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
