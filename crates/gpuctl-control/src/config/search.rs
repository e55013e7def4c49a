//! Looking for `gpuctl.toml` in the working folder and above it.
//!
//! The file names programs to run. So one that another user could have written, e.g. in `/tmp` or in a folder that all may write to, is
//! not used unless it is named, as git does not use another user's repository. What belongs to root is trusted: root could do anything.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{ConfigError, FILE_NAME};

/// How another user could have written a file that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtherUser {
    /// It is theirs.
    #[error("it belongs to another user (uid {0}), and a configuration names programs to run")]
    File(u32),
    /// They can replace it.
    #[error(
        "its folder belongs to another user (uid {0}), and a configuration names programs to run"
    )]
    Folder(u32),
    /// All users can change it.
    #[error("every user may write to it, and a configuration names programs to run")]
    FileOfAll,
    /// All users can replace it.
    #[error("every user may write to its folder, and a configuration names programs to run")]
    FolderOfAll,
}

/// The file in `here` or in the nearest folder above it that has one; `other` says how another user could have written it, if one could.
pub(super) fn nearest(
    here: &Path,
    other: impl Fn(&Path) -> io::Result<Option<OtherUser>>,
) -> Result<Option<PathBuf>, ConfigError> {
    let mut files = here.ancestors().map(|folder| folder.join(FILE_NAME));
    let Some(path) = files.find(|file| file.is_file()) else { return Ok(None) };
    match other(&path) {
        Ok(None) => Ok(Some(path)),
        Ok(Some(source)) => Err(ConfigError::OfOtherUser { path, source }),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

/// The users whose files are used: this one, root, and the one who became root by `sudo`.
struct Trusted {
    users: [u32; 3],
}

impl Trusted {
    fn of_process() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let by_sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
        Self::new(user, by_sudo)
    }

    fn new(user: u32, by_sudo: Option<u32>) -> Self {
        // Only root may believe the variable: others can set it as they like.
        Self { users: [0, user, by_sudo.filter(|_| user == 0).unwrap_or(user)] }
    }

    fn other(&self, found: &Metadata) -> Option<u32> {
        Some(found.uid()).filter(|uid| !self.users.contains(uid))
    }

    /// How another user could have written the file, if one could.
    fn could_be_written(&self, path: &Path) -> io::Result<Option<OtherUser>> {
        let (link, file) = (std::fs::symlink_metadata(path)?, std::fs::metadata(path)?);
        let folder = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
        let owner = self.other(&link).or_else(|| self.other(&file)).map(OtherUser::File);
        let of_folder = || self.other(&folder).map(OtherUser::Folder);
        let file_of_all = || (file.mode() & WRITTEN_BY_ALL != 0).then_some(OtherUser::FileOfAll);
        // With the sticky bit, as in `/tmp`, files in it can be replaced by their owners only.
        let replaceable = folder.mode() & (WRITTEN_BY_ALL | STICKY) == WRITTEN_BY_ALL;
        let folder_of_all = || replaceable.then_some(OtherUser::FolderOfAll);
        Ok(owner.or_else(of_folder).or_else(file_of_all).or_else(folder_of_all))
    }
}

/// The permission of all other users to write.
const WRITTEN_BY_ALL: u32 = 0o002;
/// The sticky bit of a folder.
const STICKY: u32 = 0o1000;

/// How another user could have written the file, if one could.
pub(super) fn by_other_user(path: &Path) -> io::Result<Option<OtherUser>> {
    Trusted::of_process().could_be_written(path)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn a_file_of_another_user_is_not_used_where_it_was_found() {
        let parent = tempfile::tempdir().unwrap();
        let here = parent.path().join("a/b");
        std::fs::create_dir_all(&here).unwrap();
        let file = parent.path().join(FILE_NAME);
        std::fs::write(&file, "").unwrap();
        let other = |_: &Path| Ok(Some(OtherUser::File(1_001)));
        for folder in [here.as_path(), parent.path()] {
            let error = nearest(folder, other).unwrap_err();
            assert_eq!(error.to_string(), format!("{} is not used", file.display()));
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("another user (uid 1001)"), "{cause}");
            assert!(error.hint().contains("--config"));
        }
        assert_eq!(nearest(&here, |_| Ok(None)).unwrap(), Some(file));
    }

    #[test]
    fn a_file_is_trusted_that_only_its_own_user_or_root_can_write() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("project");
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join(FILE_NAME);
        std::fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let trusted = Trusted::of_process();
        let found = || trusted.could_be_written(&file).unwrap();
        mode(&folder, 0o755);
        mode(&file, 0o664);
        assert_eq!(found(), None);
        assert_eq!(by_other_user(Path::new("/etc/passwd")).unwrap(), None);
        mode(&file, 0o666);
        assert_eq!(found(), Some(OtherUser::FileOfAll));
        mode(&file, 0o644);
        mode(&folder, 0o777);
        assert_eq!(found(), Some(OtherUser::FolderOfAll));
        mode(&folder, 0o1777);
        assert_eq!(found(), None, "files in it are replaced by their owners only");
        assert!(trusted.could_be_written(&folder.join("none")).is_err());
    }

    #[test]
    fn owners_of_file_and_folder_count_and_sudo_only_for_root() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join(FILE_NAME);
        std::fs::write(&file, "").unwrap();
        let owner = std::fs::metadata(&file).unwrap().uid();
        if owner != 0 {
            let stranger = Trusted::new(owner + 1, Some(owner));
            assert_eq!(stranger.could_be_written(&file).unwrap(), Some(OtherUser::File(owner)));
            return;
        }
        // Only root can give a file away.
        chown(&file, Some(1_001), None).unwrap();
        assert_eq!(by_other_user(&file).unwrap(), Some(OtherUser::File(1_001)));
        let by_sudo = Trusted::new(0, Some(1_001));
        assert_eq!(by_sudo.could_be_written(&file).unwrap(), None);
        let pretending = Trusted::new(1_002, Some(1_001));
        assert_eq!(pretending.could_be_written(&file).unwrap(), Some(OtherUser::File(1_001)));
        chown(&file, Some(0), None).unwrap();
        chown(parent.path(), Some(1_001), None).unwrap();
        assert_eq!(by_other_user(&file).unwrap(), Some(OtherUser::Folder(1_001)));
    }
}
