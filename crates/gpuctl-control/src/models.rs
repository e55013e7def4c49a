//! Which names of models a job may have: those that a manifest or the configuration has.
//!
//! A model that is only missing on a box is that box's state and may be pulled. A name that none of them has is a typo, and a model of
//! another task a mistake that would start a box for nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gpu_tasks::Task;
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::text::excerpt;

use crate::config::Config;

/// The models that are known by name.
#[derive(Clone, Debug, Default)]
pub struct KnownModels(BTreeMap<String, KnownModel>);

/// What is known of a model without opening it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownModel {
    /// `None` if only the configuration names it.
    pub task: Option<Task>,
    /// Whether its manifest is in the folder of models on this machine.
    pub is_here: bool,
}

/// Why a job may not ask for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Neither a manifest nor the configuration has the name.
    #[error("there is no model `{name}`")]
    Unknown { name: String, hint: String },
    /// The model does something else.
    #[error("the model `{name}` does {does}, not {task}")]
    OtherTask { name: String, does: Task, task: Task, hint: String },
}

impl ModelError {
    /// A short, stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "model.unknown",
            Self::OtherTask { .. } => "model.task",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Unknown { hint, .. } | Self::OtherTask { hint, .. } => hint,
        }
    }
}

impl KnownModels {
    /// Those of the configuration, of its folder of models, and `with_manifest`: `NAME=TASK`, separated by spaces.
    #[must_use]
    pub fn of(config: &Config, with_manifest: &str) -> Self {
        let configured =
            config.policy.models.keys().map(|name| (name.clone(), KnownModel::default()));
        let mut known: BTreeMap<String, KnownModel> = configured.collect();
        for (name, task) in with_manifest.split(' ').filter_map(|pair| pair.split_once('=')) {
            known.insert(name.to_owned(), KnownModel { task: task.parse().ok(), is_here: false });
        }
        let folder = config.models().or_else(default_folder).unwrap_or_default();
        for (name, task) in in_folder(&folder) {
            let known = known.entry(name).or_default();
            *known = KnownModel { task: task.or(known.task), is_here: true };
        }
        Self(known)
    }

    /// Those of `with_manifest` alone.
    #[must_use]
    pub fn of_names(with_manifest: &str) -> Self {
        let pairs = with_manifest.split(' ').filter_map(|pair| pair.split_once('='));
        let model = |task: &str| KnownModel { task: task.parse().ok(), is_here: false };
        Self(pairs.map(|(name, task)| (name.to_owned(), model(task))).collect())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, KnownModel)> {
        self.0.iter().map(|(name, known)| (name.as_str(), *known))
    }

    /// Checks that a job of this task may ask for the model.
    ///
    /// # Errors
    /// When no manifest and no configuration has the name, or the model does another task.
    pub fn check(&self, task: Task, name: &str) -> Result<KnownModel, ModelError> {
        let Some(known) = self.0.get(name) else { return Err(self.unknown(name)) };
        match known.task {
            // Any graph can be run on tensors.
            Some(does) if does != task && task != Task::OnnxRun => {
                Err(self.other_task(name, does, task))
            }
            _ => Ok(*known),
        }
    }

    fn unknown(&self, name: &str) -> ModelError {
        let hint = did_you_mean(name, self.0.keys().map(String::as_str)).unwrap_or_else(|| {
            let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
            format!(
                "known are {}; name one that only the boxes have in the configuration, as `[model.NAME]`",
                names.join(", ")
            )
        });
        ModelError::Unknown { name: excerpt(name), hint }
    }

    fn other_task(&self, name: &str, does: Task, task: Task) -> ModelError {
        let of_task = self.0.iter().filter(|(_, known)| known.task == Some(task));
        let names: Vec<&str> = of_task.map(|(name, _)| name.as_str()).collect();
        let hint = match names.as_slice() {
            [] => format!("leave the model out: then a box takes its own for {task}"),
            names => format!("{task} is done by {}", names.join(", ")),
        };
        ModelError::OtherTask { name: name.to_owned(), does, task, hint }
    }
}

/// The models in the folder, by their manifests, with their tasks.
fn in_folder(folder: &Path) -> Vec<(String, Option<Task>)> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let model = |entry: std::fs::DirEntry| {
        let manifest = std::fs::read_to_string(entry.path().join("model.toml")).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), task_of(&manifest)))
    };
    entries.filter_map(model).collect()
}

/// The task of a manifest; gpu-worker reads and checks the rest of it.
fn task_of(manifest: &str) -> Option<Task> {
    let line = manifest.lines().find_map(|line| line.trim().strip_prefix("task"))?;
    line.trim_start().strip_prefix('=')?.split('"').nth(1)?.parse().ok()
}

/// Where gpu-worker keeps models unless the configuration names a folder.
fn default_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("GPUCTL_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("gpuctl")))
        .or_else(|| Some(folder("HOME")?.join(".cache/gpuctl")));
    Some(cache?.join("models"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_its_task_in_a_line() {
        for text in
            ["# of a model\nname = \"a\"\ntask = \"text.embed\"\n", "task=\"text.embed\" # it"]
        {
            assert_eq!(task_of(text), Some(Task::TextEmbed), "{text}");
        }
        assert_eq!(task_of("name = \"a\"\n[task]\n"), None);
    }
}
