//! `completions` and `man`: files generated from the command line's definition.

use std::path::Path;

use crate::arguments::{Shell, command};
use crate::documents::reply::{ManPagesDocument, ScriptDocument};
use crate::failure::{Code, Failure};
use crate::render::Output;

/// `gpuctl completions SHELL`.
pub(super) fn completions(shell: Shell) -> Result<Output, Failure> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "gpuctl", &mut script);
    let script = String::from_utf8(script).map_err(|error| {
        Failure::new(Code::Internal, "cannot generate the script").because(&error)
    })?;
    Ok(Output::Script(ScriptDocument { script }))
}

/// `gpuctl man [FOLDER]`: one page per command, e.g. `gpuctl-cost-report.1`.
pub(super) fn man(folder: &Path) -> Result<Output, Failure> {
    let shown = folder.display().to_string();
    let written =
        std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command(), folder));
    written.map_err(|error| {
        Failure::new(Code::FileUnwritable, format!("cannot write man pages to {shown}"))
            .because(&error)
    })?;
    Ok(Output::ManPages(ManPagesDocument { folder: shown }))
}
