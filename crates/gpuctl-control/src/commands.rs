//! Checks what a job asks for: a task with its params, or a command of the policy with those that the policy gives it.

use std::collections::BTreeMap;

use gpu_tasks::{CommandError, Params, TaskError};
use gpuctl_core::policy::{COMMAND_TASK, Command, CommandParamKind, Policy};
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::text::excerpt;
use serde_json::{Map, Value};

/// Whether jobs of this task run a command.
#[must_use]
pub fn is_command(task: &str) -> bool {
    task.starts_with(COMMAND_TASK)
}

/// The tasks that there are, and those of the policy's commands.
#[must_use]
pub fn task_names(policy: &Policy) -> Vec<String> {
    let commands = policy.commands.keys().map(|name| format!("{COMMAND_TASK}{name}"));
    gpu_tasks::Task::ALL.iter().map(|task| task.name().to_owned()).chain(commands).collect()
}

/// Checks the task and the params of a job. Commands have no files among their params.
///
/// # Errors
/// There is no such task or command, or a param is unknown, invalid or missing.
pub fn check(
    policy: &Policy,
    task: &str,
    params: &Map<String, Value>,
) -> Result<Params, TaskError> {
    if !is_command(task) {
        return gpu_tasks::check(task, params);
    }
    values(task, command(policy, task)?, params)?;
    Ok(Params::default())
}

/// The command that jobs of this task run.
///
/// # Errors
/// When the policy has none of the name.
pub fn command<'p>(policy: &'p Policy, task: &str) -> Result<&'p Command, CommandError> {
    policy.command(task).ok_or_else(|| {
        let name = task.strip_prefix(COMMAND_TASK).unwrap_or(task);
        let known = policy.commands.keys().map(String::as_str);
        let hint = did_you_mean(name, known.clone()).unwrap_or_else(|| {
            let known: Vec<&str> = known.collect();
            match known.as_slice() {
                [] => "write `[command.NAME]` with its `argv` into gpuctl.toml".to_owned(),
                known => format!("known are {}", known.join(", ")),
            }
        });
        CommandError::Unknown { name: excerpt(name), hint }
    })
}

/// The texts of all params of a command, by name: those of the job, and the defaults of others.
///
/// # Errors
/// A param is unknown, invalid or missing.
pub fn values(
    task: &str,
    command: &Command,
    given: &Map<String, Value>,
) -> Result<BTreeMap<String, String>, CommandError> {
    let known = || command.params.keys().map(String::as_str);
    if let Some(name) = given.keys().find(|name| !command.params.contains_key(*name)) {
        let hint = did_you_mean(name, known()).unwrap_or_else(|| {
            let known: Vec<&str> = known().collect();
            if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            }
        });
        let (task, name) = (excerpt(task), excerpt(name));
        return Err(CommandError::ParamUnknown { task, name, hint });
    }
    let mut values = BTreeMap::new();
    for (name, param) in &command.params {
        let value = match given.get(name).filter(|value| !value.is_null()) {
            Some(value) => text_of(&param.kind, value)
                .filter(|text| param.kind.accepts(text))
                .ok_or_else(|| CommandError::ParamInvalid {
                    name: name.clone(),
                    found: excerpt(&value.to_string()),
                    kind: param.kind.to_string(),
                })?,
            None => param.default.clone().ok_or_else(|| CommandError::ParamMissing {
                task: excerpt(task),
                name: name.clone(),
                kind: param.kind.to_string(),
            })?,
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

/// A value as a program gets it, if it is of the type: no text counts as a number, though a number does as a text.
fn text_of(kind: &CommandParamKind, value: &Value) -> Option<String> {
    match (kind, value) {
        (CommandParamKind::Flag, Value::Bool(flag)) => Some(flag.to_string()),
        (
            CommandParamKind::Integer { .. } | CommandParamKind::Number { .. },
            Value::Number(number),
        ) => Some(number.to_string()),
        (CommandParamKind::Text { .. } | CommandParamKind::Choice(_), Value::String(text)) => {
            Some(text.clone())
        }
        (CommandParamKind::Text { .. } | CommandParamKind::Choice(_), Value::Number(number)) => {
            Some(number.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POLICY: &str = "[pool.gpu]\nqueue = \"jobs\"\n[command.train]\nargv = [\"t\", \"{epochs}\", \"{size}\", \"{rate}\"]\n\
        [command.train.params]\nepochs = { type = \"integer\", min = 1, max = 9 }\n\
        size = { type = \"choice\", choices = [\"n\", \"s\"], default = \"n\" }\nrate = { type = \"number\", default = 1e-3 }\n";

    fn checked(task: &str, params: &Value) -> Result<(), String> {
        let policy = Policy::parse(POLICY).unwrap();
        let error = check(&policy, task, params.as_object().unwrap()).err();
        error.map_or(Ok(()), |error| Err(format!("{} {error} ({})", error.code(), error.hint())))
    }

    #[test]
    fn a_job_gives_a_command_its_params_and_the_policy_the_others() {
        let policy = Policy::parse(POLICY).unwrap();
        let given = json!({"epochs": 3, "rate": 0.5});
        let task = "command.train";
        let values = values(task, command(&policy, task).unwrap(), given.as_object().unwrap());
        let texts: Vec<_> = values.unwrap().into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(texts, ["epochs=3", "rate=0.5", "size=n"]);
        assert_eq!(checked("text.embed", &json!({})), Ok(()));
    }

    #[test]
    fn a_command_or_param_that_is_not_the_policy_s_is_refused_with_what_there_is() {
        for (task, params, wanted) in [
            (
                "command.trian",
                json!({}),
                "task.unknown there is no command `trian` (did you mean `train`?)",
            ),
            ("command.", json!({}), "task.unknown there is no command ``"),
            (
                "command.train",
                json!({}),
                "input.param_missing command.train needs the param `epochs`",
            ),
            (
                "command.train",
                json!({"epoch": 3}),
                "input.param_unknown command.train has no param `epoch` (did you mean `epochs`?)",
            ),
            ("command.train", json!({"epochs": "3"}), "input.param `epochs` is \"3\""),
            ("command.train", json!({"epochs": 10}), "(give a whole number from 1 to 9)"),
            ("command.train", json!({"epochs": 3, "size": "x"}), "(give one of n, s)"),
            ("command.train", json!({"epochs": 3, "rate": [1]}), "input.param `rate` is [1]"),
            ("vision.orc", json!({}), "task.unknown"),
        ] {
            let error = checked(task, &params).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
