//! Which files may be a job's input: checked when a job is submitted, so that the user knows at once, and again by the worker, which decides.

use std::path::{Path, PathBuf};

/// The largest input in bytes that a worker fetches, and that `submit` uploads: 4 hours of 48 kHz stereo sound in 16 bits are 2.8 GB.
pub const INPUT_BYTES_MAX: u64 = 4 << 30;

/// The longest key of an object in bytes: S3's limit.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Why a file may not be an input.
#[derive(Debug, thiserror::Error)]
pub enum InputRejected {
    /// It does not exist, or may not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        /// What the system reported.
        #[source]
        source: std::io::Error,
    },
    /// It is a folder.
    #[error("{} is a folder", path.display())]
    Folder { path: PathBuf },
    /// It is outside the folders that inputs may be in.
    #[error("{} is outside the folders that inputs may be in", path.display())]
    Outside {
        /// The file, with links resolved.
        path: PathBuf,
    },
    /// It is larger than a worker fetches.
    #[error("{uri} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge { uri: String, bytes: u64, bytes_max: u64 },
    /// It does not exist in S3.
    #[error("{uri} does not exist")]
    Missing { uri: String },
    /// It is in a storage class that must be restored before it can be read.
    #[error("{uri} is archived")]
    Archived { uri: String },
    /// No object has such a long key.
    #[error("the key of {uri:.60}… has {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")]
    KeyTooLong { uri: String, bytes: usize },
    /// It is the policy, which says what runs and at what cost.
    #[error("{uri} is gpuctl's configuration")]
    Policy { uri: String },
    /// It is in a bucket that inputs may not be in.
    #[error("{uri} is in a bucket that inputs may not be in")]
    Bucket { uri: String },
    /// It is where this worker cannot read it.
    #[error("{uri} is in S3, and this worker has no AWS account")]
    Elsewhere { uri: String },
}

impl InputRejected {
    /// A short, stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::Missing { .. } => "input.missing",
            Self::Archived { .. } => "input.archived",
            Self::KeyTooLong { .. } => "input.key_too_long",
            Self::Folder { .. } => "input.folder",
            Self::Outside { .. } | Self::Bucket { .. } | Self::Policy { .. } => "input.outside",
            Self::TooLarge { .. } => "input.too_large",
            Self::Elsewhere { .. } => "input.elsewhere",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "check the path; the worker reads it on its own machine",
            Self::Missing { .. } => "check bucket and key; it may have been deleted since",
            Self::Archived { .. } => {
                "restore it (`aws s3api restore-object`), and then `gpuctl retry` the job"
            }
            Self::KeyTooLong { .. } => "check the URI: S3 has no such key",
            Self::Bucket { .. } => {
                "copy it to the bucket of `results`, or add its bucket to `input_buckets` under [worker]"
            }
            Self::Policy { .. } => {
                "no object of the name `gpuctl.toml` can be an input: give it another name"
            }
            Self::Folder { .. } => "submit the files in it, e.g. `gpuctl submit TASK FOLDER/*`",
            Self::TooLarge { .. } => "cut it into parts",
            Self::Elsewhere { .. } => "copy the file to this machine, or use a queue in AWS",
            Self::Outside { .. } => "move it, or add its folder to `input_roots` under [worker]",
        }
    }
}

/// The file with links resolved, if it may be an input. Without roots it may be anywhere.
///
/// # Errors
/// When it may not.
pub fn admit(path: &Path, roots: &[PathBuf]) -> Result<PathBuf, InputRejected> {
    let real = path
        .canonicalize()
        .map_err(|source| InputRejected::Unreadable { path: path.to_owned(), source })?;
    if real.is_dir() {
        return Err(InputRejected::Folder { path: real });
    }
    // Roots are resolved too, so that a link can neither lead out of one nor hide that a file is in one.
    let inside = |root: &PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if roots.is_empty() || roots.iter().any(inside) {
        Ok(real)
    } else {
        Err(InputRejected::Outside { path: real })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_neither_lead_out_of_a_root_nor_hide_that_a_file_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("a.wav"), "x").unwrap();
        std::fs::write(outside.join("b.wav"), "x").unwrap();
        std::os::unix::fs::symlink(outside.join("b.wav"), inside.join("link.wav")).unwrap();
        let roots = [inside.clone()];
        assert!(admit(&inside.join("a.wav"), &roots).is_ok());
        for bad in ["link.wav", "../out/b.wav"] {
            assert_eq!(
                admit(&inside.join(bad), &roots).unwrap_err().code(),
                "input.outside",
                "{bad}"
            );
        }
        assert_eq!(admit(&inside, &roots).unwrap_err().code(), "input.folder");
        assert_eq!(admit(&inside.join("none.wav"), &roots).unwrap_err().code(), "input.missing");
        assert!(admit(&outside.join("b.wav"), &[]).is_ok());
    }
}
