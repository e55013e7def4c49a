//! Which names of models `submit` accepts: those that a manifest or the configuration has.
//!
//! A model that is only missing on a box is that box's state and may be pulled: at most a warning. A name that none of them has is a typo.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gpuctl_core::suggest::did_you_mean;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::render::Printer;

/// The models whose manifests come with gpu-worker, separated by spaces.
const WITH_MANIFEST: &str = env!("GPUCTL_MODEL_NAMES");

/// Fails for a name that neither a manifest nor the configuration has.
pub(super) fn check(context: &Context, printer: &Printer, model: &str) -> Result<(), Failure> {
    let folder = context.config.models();
    let installed = installed(&folder.clone().or_else(default_folder).unwrap_or_default());
    let configured = context.config.policy.models.keys().map(String::as_str);
    let known: BTreeSet<&str> = WITH_MANIFEST
        .split(' ')
        .chain(configured)
        .chain(installed.iter().map(String::as_str))
        .collect();
    if !known.contains(model) {
        return Err(unknown(model, &known));
    }
    // Without a folder of its own the worker may look elsewhere, and on AWS it is elsewhere.
    let is_here = context.config.policy.cloud.aws.is_none();
    if let Some(folder) = folder.filter(|_| is_here && !installed.contains(model)) {
        let folder = folder.display();
        printer.warning(&format!(
            "the model `{model}` is not installed in {folder}: `gpuctl models pull {model}` downloads it"
        ));
    }
    Ok(())
}

fn unknown(model: &str, known: &BTreeSet<&str>) -> Failure {
    let hint = did_you_mean(model, known.iter().copied()).unwrap_or_else(|| {
        let names: Vec<&str> = known.iter().copied().collect();
        format!(
            "known are {}; name one that only the boxes have in the configuration, as `[model.NAME]`",
            names.join(", ")
        )
    });
    Failure::new(Code::ModelUnknown, format!("there is no model `{model}`")).hint(hint)
}

/// The models in the folder, by their manifests.
fn installed(folder: &Path) -> BTreeSet<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let with_manifest = entries.filter(|entry| entry.path().join("model.toml").is_file());
    with_manifest.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Where gpu-worker keeps models unless the configuration names a folder.
fn default_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("GPUCTL_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("gpuctl")))
        .or_else(|| Some(folder("HOME")?.join(".cache/gpuctl")));
    Some(cache?.join("models"))
}
