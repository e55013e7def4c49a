//! Refuses the name of a model that no box can have, and warns of one that is not installed here.

use gpu_tasks::Task;
use gpuctl_control::models::KnownModels;

use crate::context::Context;
use crate::failure::Failure;
use crate::render::Printer;

/// The models whose manifests come with gpu-worker: `NAME=TASK`, separated by spaces.
const WITH_MANIFEST: &str = env!("GPUCTL_MANIFESTS");

/// The models that a job may name.
pub(crate) fn known(context: &Context) -> KnownModels {
    KnownModels::of(&context.config, WITH_MANIFEST)
}

/// Fails for a name that neither a manifest nor the configuration has, and for a model of another task.
pub(super) fn check(
    context: &Context,
    printer: &Printer,
    task: Task,
    model: &str,
) -> Result<(), Failure> {
    let found = known(context).check(task, model)?;
    // Without a folder of its own the worker may look elsewhere, and on AWS it is elsewhere.
    let is_local = context.config.policy.cloud.aws.is_none();
    if let Some(folder) = context.config.models().filter(|_| is_local && !found.is_here) {
        let folder = folder.display();
        printer.warning(&format!(
            "the model `{model}` is not installed in {folder}: `gpuctl models pull {model}` downloads it"
        ));
    }
    Ok(())
}
