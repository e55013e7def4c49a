//! The state folder is private: it holds jobs, results and logs, and the locks that say which boxes live.
//!
//! What gpuctl makes has mode 0700. A folder that exists already belongs to the user, who may keep other things in it, so its mode is
//! never changed: gpuctl warns about it, and makes what it adds there private.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Only the owner may look into it or change it.
const MODE: u32 = 0o700;
const MODE_OF_OTHERS: u32 = 0o077;

/// Makes the folder, and those above it that are missing, with mode 0700. An existing one is left as it is.
///
/// # Errors
/// When it cannot be made, or something else has its name.
pub fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(MODE).create(folder)
}

/// The permissions of the folder (such as `0o755`), if it lets users other than its owner in.
///
/// # Errors
/// When it is not there, or may not be looked at.
pub fn mode_open_to_others(folder: &Path) -> io::Result<Option<u32>> {
    let mode = std::fs::metadata(folder)?.mode() & 0o777;
    Ok(Some(mode).filter(|mode| mode & MODE_OF_OTHERS != 0))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_made_is_private_and_what_was_there_is_left_and_told() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state/boxes");
        make(&folder).unwrap();
        for made in [&folder, &parent.path().join("state")] {
            assert_eq!(std::fs::metadata(made).unwrap().mode() & 0o777, 0o700);
            assert_eq!(mode_open_to_others(made).unwrap(), None);
        }
        std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        make(&folder).unwrap();
        assert_eq!(mode_open_to_others(&folder).unwrap(), Some(0o755));
        std::fs::write(parent.path().join("file"), "x").unwrap();
        assert!(make(&parent.path().join("file")).is_err());
    }
}
