//! Looking for `gpuctl.toml` in the working folder and above it.
//!
//! The file names programs to run, so one that another user has put above the working folder, as in `/tmp`, is not used unless it is
//! named. In the working folder itself it is: who works in a folder sees what is in it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{ConfigError, FILE_NAME};

/// That a file belongs neither to this user nor to root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is above the working folder and belongs to another user (uid {uid}), and a configuration names programs to run"
)]
pub struct OtherUser {
    pub uid: u32,
}

/// The file in `here` or in the nearest folder above it that has one; `owner` says which other user a file belongs to, if any.
pub(super) fn nearest(
    here: &Path,
    owner: impl Fn(&Path) -> io::Result<Option<OtherUser>>,
) -> Result<Option<PathBuf>, ConfigError> {
    let mut files = here.ancestors().map(|folder| folder.join(FILE_NAME));
    let Some(path) = files.find(|file| file.is_file()) else { return Ok(None) };
    if path.parent() == Some(here) {
        return Ok(Some(path));
    }
    match owner(&path) {
        Ok(None) => Ok(Some(path)),
        Ok(Some(source)) => Err(ConfigError::OfOtherUser { path, source }),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

/// The other user that the file belongs to, or the link by which it was found.
pub(super) fn owned_by_other(path: &Path) -> io::Result<Option<OtherUser>> {
    let this_user = rustix::process::geteuid().as_raw();
    let owners = [std::fs::symlink_metadata(path)?.uid(), std::fs::metadata(path)?.uid()];
    let other = owners.into_iter().find(|uid| ![0, this_user].contains(uid));
    Ok(other.map(|uid| OtherUser { uid }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn a_file_of_another_user_above_the_working_folder_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let here = parent.path().join("a/b");
        std::fs::create_dir_all(&here).unwrap();
        let file = parent.path().join(FILE_NAME);
        std::fs::write(&file, "").unwrap();
        let other = |_: &Path| Ok(Some(OtherUser { uid: 1_001 }));
        let error = nearest(&here, other).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is not used", file.display()));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("another user (uid 1001)"), "{cause}");
        assert!(error.hint().contains("--config"));
        assert_eq!(nearest(&here, |_| Ok(None)).unwrap(), Some(file.clone()));
        assert_eq!(
            nearest(parent.path(), other).unwrap(),
            Some(file),
            "it is in the folder itself"
        );
    }

    #[test]
    fn a_file_of_this_user_or_of_root_is_of_no_other_user() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE_NAME);
        std::fs::write(&file, "").unwrap();
        assert_eq!(owned_by_other(&file).unwrap(), None);
        assert_eq!(owned_by_other(Path::new("/etc/passwd")).unwrap(), None);
        assert!(owned_by_other(&folder.path().join("none")).is_err());
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            chown(&file, Some(1_001), None).unwrap();
            assert_eq!(owned_by_other(&file).unwrap(), Some(OtherUser { uid: 1_001 }));
        }
    }
}
