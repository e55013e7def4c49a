//! What lies in the code bucket: the function's zip, the boot files and the worker's archives, each under the hash of its content. So an
//! unchanged file does not change the stack, and what an earlier version of the stack needs is still there when a change is undone.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use gpuctl_control::text::hexadecimal;
use sha2::{Digest, Sha256};

use crate::Site;
use crate::ports::Account;
use crate::template::Values;
use crate::trouble::{Kind, Trouble};

/// Digits of a hash in a key.
const HASH_DIGITS: usize = 16;
/// Files of a folder: an archive for each kind of box, and their sums.
const FILES_MAX: usize = 64;
const READ_BYTES: usize = 1 << 20;

/// The folder of a stack's bucket from which boxes take their models.
pub(crate) const MODELS: &str = "models/";
/// What each model's folder has.
const MANIFEST: &str = "model.toml";

/// The boot files of this version of gpuctl.
const BOOT: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/boot_files.rs"));

/// Where a file's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// A worker's archives have gigabytes.
    Path(PathBuf),
}

impl Content {
    pub(crate) fn of(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

/// A file: its name below its folder, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    name: String,
    content: Content,
}

/// What a deployment uploads, with its keys. What is missing stays as the stack has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    uploads: Vec<(String, Content)>,
    values: Values,
}

impl Files {
    /// The function's zip.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn add_function(&mut self, zip: &Path) -> Result<(), Trouble> {
        let content = Content::Path(zip.to_owned());
        let mut hash = Sha256::new();
        hash_of(&content, &mut hash).map_err(|error| unreadable(zip, &error))?;
        let key = format!("function/{}.zip", digits(&hash.finalize()));
        self.values.insert("FunctionKey".to_owned(), key.clone());
        self.uploads.push((key, content));
        Ok(())
    }

    /// The boot files of this version of gpuctl; none if it was built without them.
    pub fn add_own_boot(&mut self) {
        let file = |(name, bytes): &(&str, &[u8])| File {
            name: (*name).to_owned(),
            content: Content::Bytes(bytes.to_vec()),
        };
        let files: Vec<File> = BOOT.iter().map(file).collect();
        if !files.is_empty() {
            self.add("boot", "BootKey", files).expect("bytes can be read");
        }
    }

    /// The boot files of a folder.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn add_boot(&mut self, folder: &Path) -> Result<(), Trouble> {
        self.add("boot", "BootKey", in_folder(folder)?).map_err(|error| unreadable(folder, &error))
    }

    /// The worker's archives, in a folder as `scripts/package.sh` makes it.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn add_worker(&mut self, folder: &Path) -> Result<(), Trouble> {
        let files = in_folder(folder)?;
        self.add("worker", "WorkerKey", files).map_err(|error| unreadable(folder, &error))
    }

    fn add(&mut self, kind: &str, parameter: &str, files: Vec<File>) -> io::Result<()> {
        let mut hash = Sha256::new();
        for file in &files {
            // The length, so that no two lists of files read alike.
            hash.update((file.name.len() as u64).to_be_bytes());
            hash.update(&file.name);
            hash_of(&file.content, &mut hash)?;
        }
        let folder = format!("{kind}/{}", digits(&hash.finalize()));
        let keyed = |file: File| (format!("{folder}/{}", file.name), file.content);
        self.uploads.extend(files.into_iter().map(keyed));
        self.values.insert(parameter.to_owned(), folder);
        Ok(())
    }

    /// The stack's parameters that name these files.
    pub(crate) fn values(&self) -> Values {
        self.values.clone()
    }

    /// Stores them in the bucket.
    pub(crate) async fn upload(&self, account: &dyn Account, bucket: &str) -> Result<(), Trouble> {
        for (key, content) in &self.uploads {
            account.upload(bucket, key, content).await?;
        }
        Ok(())
    }
}

/// The models of a folder, as each box fetches them at its boot: one folder for each.
pub(crate) struct Models(Vec<File>);

impl Models {
    /// # Errors
    /// When the folder cannot be read, or is none of models.
    pub(crate) fn of(folder: &Path) -> Result<Self, Trouble> {
        let entries = folder.read_dir().map_err(|error| unreadable(folder, &error))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| unreadable(folder, &error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.join(MANIFEST).is_file() {
                let within = |file: File| File { name: format!("{name}/{}", file.name), ..file };
                files.extend(in_folder(&path)?.into_iter().map(within));
            }
        }
        match files.is_empty() {
            true => Err(Trouble::new(Kind::Invalid, format!("{} has no models", folder.display()))
                .hint("`gpuctl models pull NAME` fetches one; name the folder that it names")),
            false => Ok(Self(files)),
        }
    }

    /// Stores them in a stack's bucket, in place of what is there.
    pub(crate) async fn upload(&self, site: &Site<'_>, bucket: &str) -> Result<(), Trouble> {
        for File { name, content } in &self.0 {
            site.account.replace(bucket, &format!("{MODELS}{name}"), content).await?;
            site.show.note(&format!("uploaded {MODELS}{name}"));
        }
        Ok(())
    }
}

fn in_folder(folder: &Path) -> Result<Vec<File>, Trouble> {
    let entries = folder.read_dir().map_err(|error| unreadable(folder, &error))?;
    let mut files: Vec<File> = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        if let Some(name) = name.filter(|_| path.is_file()) {
            files.push(File { name, content: Content::Path(path) });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.is_empty() || files.len() > FILES_MAX {
        let (shown, count) = (folder.display(), files.len());
        let what = format!("{shown} has {count} files: 1 to {FILES_MAX} are expected");
        return Err(Trouble::new(Kind::Invalid, what));
    }
    Ok(files)
}

fn hash_of(content: &Content, hash: &mut Sha256) -> io::Result<()> {
    let path = match content {
        Content::Bytes(bytes) => {
            hash.update(bytes);
            return Ok(());
        }
        Content::Path(path) => path,
    };
    let mut file = std::fs::File::open(path)?;
    let mut block = vec![0; READ_BYTES];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(()),
            read => hash.update(&block[..read]),
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Trouble {
    Trouble::new(Kind::Invalid, format!("{} cannot be read", path.display()))
        .because(error.to_string())
}

fn digits(hash: &[u8]) -> String {
    let mut text = hexadecimal(hash);
    text.truncate(HASH_DIGITS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_with_content_and_names_alone() {
        let key = |pairs: &[(&str, &str)]| {
            let file = |(name, content): &(&str, &str)| File {
                name: (*name).to_owned(),
                content: Content::Bytes(content.as_bytes().to_vec()),
            };
            let mut files = Files::default();
            files.add("boot", "BootKey", pairs.iter().map(file).collect()).unwrap();
            files.values()["BootKey"].clone()
        };
        let one = key(&[("a.sh", "x")]);
        assert_eq!(one, key(&[("a.sh", "x")]));
        for other in [("a.sh", "y"), ("b.sh", "x"), ("a.s", "hx")] {
            assert_ne!(one, key(&[other]));
        }
        assert_eq!(one.len(), "boot/".len() + HASH_DIGITS);
        assert!(Files::default().add_worker(Path::new("/nowhere")).is_err());
        assert!(Models::of(Path::new(env!("CARGO_MANIFEST_DIR"))).is_err());
    }
}
