//! `init`: writes the commented default configuration.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use gpuctl_core::policy::DEFAULT_TEXT;

use crate::documents::reply::InitDocument;
use crate::failure::{Code, Failure};
use crate::render::Output;

/// `gpuctl init [PATH]`: an existing file is not overwritten.
pub(super) fn init(path: &Path) -> Result<Output, Failure> {
    let shown = path.display().to_string();
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(DEFAULT_TEXT.as_bytes())).map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            Failure::new(
                Code::FileUnwritable,
                format!("{shown} exists already: nothing was changed"),
            )
            .hint("edit it, name another path, or move it away")
        } else {
            Failure::new(Code::FileUnwritable, format!("cannot write {shown}")).because(&error)
        }
    })?;
    Ok(Output::Init(InitDocument { path: shown }))
}
