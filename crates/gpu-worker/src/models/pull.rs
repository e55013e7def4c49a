//! `models pull`: fetches a model's files from where its manifest says, or from a mirror, checks them and puts them in place.
//!
//! A file gets its name only once its size and hash are right, and a model's manifest only once all its files are
//! there. A manifest without hashes (of a model that is pulled for the first time) gets them, and a branch is replaced by its
//! commit: from then on the model is pinned. How a file is read is `origin`'s business.

mod origin;
mod pip;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use gpu_inference::{Manifest, ManifestError, catalogue};
use gpuctl_control::log::shown;
use gpuctl_control::text::hexadecimal;
use gpuctl_control::wire::models::{PulledDocument, PulledFileDocument};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

pub use self::origin::{FetchError, Mirror};
use self::origin::{Source, Wheels};

/// How deep models may use other models; the limit ends circles.
const DEPTH_MAX: usize = 8;
const MANIFEST_NAME: &str = "model.toml";
/// Bytes read at once.
const BLOCK_BYTES: usize = 1 << 20;
/// The largest file of a model: a graph has at most 2 GiB (protobuf's limit), weights beside it may be larger.
const FILE_BYTES_MAX: u64 = 64 << 30;

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Models of the built-in catalogue, or of the folder.
    pub names: Vec<String>,
    /// The path of a manifest of another model.
    pub manifest: Option<PathBuf>,
    /// Where files are fetched from in place of their origins.
    pub mirror: Option<Mirror>,
}

/// Why a model cannot be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Neither the catalogue nor the folder has a manifest of this name.
    #[error("there is no manifest of a model {name:?}; known are {known}")]
    Unknown {
        name: String,
        /// The catalogue's names.
        known: String,
    },
    /// The manifest cannot be read.
    #[error("cannot read the manifest {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The manifest is not TOML.
    #[error("the manifest is malformed")]
    Malformed(#[source] toml::de::Error),
    /// The manifest is TOML, but not a valid manifest.
    #[error("the manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// A file's entry lacks what it needs to be fetched.
    #[error("the manifest of {name}, file {role}: {problem}")]
    Entry {
        /// The model.
        name: String,
        role: String,
        problem: String,
    },
    #[error("{path} of {name} cannot be fetched")]
    Fetch {
        /// The model.
        name: String,
        path: String,
        #[source]
        source: FetchError,
    },
    /// The file that was fetched is not the one that the manifest describes.
    #[error("{path} of {name}, from {from}, has {found}, expected {expected}")]
    Mismatch {
        /// The model.
        name: String,
        path: String,
        /// Where it was fetched from.
        from: String,
        /// Its size or hash.
        found: String,
        /// The manifest's size or hash.
        expected: String,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl PullError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Unknown { .. } => "name one of these, or a manifest with --manifest PATH",
            Self::Read { .. } => "check the path",
            Self::Malformed(_) | Self::Entry { .. } => {
                "compare with the manifests in crates/gpu-inference/models"
            }
            Self::Manifest(error) => error.hint(),
            Self::Fetch { source, .. } => source.hint(),
            Self::Mismatch { .. } => {
                "the origin has changed, or the manifest is wrong: compare both before you trust either"
            }
            Self::Write { .. } => "free some disk, or name another folder with GPUCTL_MODELS",
        }
    }
}

/// Pulls models into the folder, each with those that it uses.
///
/// # Errors
/// At the first file that cannot be fetched. What was pulled before stays.
pub fn pull(models: &Path, request: &PullRequest) -> Result<PulledDocument, PullError> {
    let mut puller = Puller {
        models,
        mirror: request.mirror.as_ref(),
        wheels: Wheels::default(),
        files: Vec::new(),
    };
    if let Some(path) = &request.manifest {
        let read = |source| PullError::Read { path: path.clone(), source };
        let text = fs::read_to_string(path).map_err(read)?;
        puller.model(&text, 0)?;
    }
    for name in &request.names {
        let text = puller.manifest_of(name)?;
        puller.model(&text, 0)?;
    }
    Ok(PulledDocument { files: puller.files })
}

struct Puller<'a> {
    models: &'a Path,
    mirror: Option<&'a Mirror>,
    wheels: Wheels,
    files: Vec<PulledFileDocument>,
}

impl Puller<'_> {
    /// The manifest in the folder, since the user may have written it; else the catalogue's.
    fn manifest_of(&self, name: &str) -> Result<String, PullError> {
        let path = self.models.join(name).join(MANIFEST_NAME);
        let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
        if plain && path.is_file() {
            return fs::read_to_string(&path).map_err(|source| PullError::Read { path, source });
        }
        let known = catalogue();
        known.get(name).map(|text| (*text).to_owned()).ok_or_else(|| PullError::Unknown {
            name: name.to_owned(),
            known: known.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Pulls the model of this manifest, then those that it uses.
    fn model(&mut self, text: &str, depth: usize) -> Result<(), PullError> {
        let mut table: Table = toml::from_str(text).map_err(PullError::Malformed)?;
        let name = table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Before anything is written: the name becomes that of a folder.
        check_name(&name)?;
        let folder = self.models.join(&name);
        let mut pinned = false;
        if let Some(files) = table.get_mut("file").and_then(Value::as_array_mut) {
            for file in files {
                let Some(file) = file.as_table_mut() else { continue };
                pinned |= self.file(&name, &folder, file)?;
            }
        }
        // With its comments as they are, unless something was filled in.
        let text = if pinned { table.to_string() } else { text.to_owned() };
        let path = folder.join(MANIFEST_NAME);
        let manifest = Manifest::parse(&text, &path)?;
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            let written = write(&path, &mut text.as_bytes());
            written.map_err(|source| PullError::Write { path, source })?;
        }
        let used: Vec<String> = manifest.uses().values().cloned().collect();
        for name in used.iter().filter(|_| depth < DEPTH_MAX) {
            let text = self.manifest_of(name)?;
            self.model(&text, depth + 1)?;
        }
        Ok(())
    }

    /// Pulls one file, and fills in what `entry` lacks. Returns whether the entry was changed.
    fn file(&mut self, model: &str, folder: &Path, entry: &mut Table) -> Result<bool, PullError> {
        let text =
            |entry: &Table, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let role = text(entry, "role").unwrap_or_default();
        let wrong = |problem: &str| PullError::Entry {
            name: model.to_owned(),
            role: role.clone(),
            problem: problem.to_owned(),
        };
        let path = text(entry, "path").ok_or_else(|| wrong("has no path"))?;
        let inside = Path::new(&path)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside || path.is_empty() {
            return Err(wrong("its path leads out of the folder"));
        }
        let target = folder.join(&path);
        let size = entry.get("size_bytes").and_then(Value::as_integer);
        let wanted = Wanted {
            size: size.and_then(|size| u64::try_from(size).ok()),
            hash: text(entry, "sha256"),
        };
        let origin = entry.get_mut("origin").and_then(Value::as_table_mut);
        // A file without an origin was put there by its owner.
        let own = origin.is_none() && self.mirror.is_none() && target.is_file();
        if let Some((size, hash)) = wanted.found_at(&target, own) {
            self.note(model, &path, (size, &hash), None);
            return wanted.complete(entry, (size, hash), false).map_err(wrong);
        }
        let failed =
            |source| PullError::Fetch { name: model.to_owned(), path: path.clone(), source };
        let (source, resolved) = match (self.mirror, origin) {
            (Some(mirror), _) => (mirror.source(model, &path), false),
            (None, Some(origin)) => Source::of_origin(origin).map_err(failed)?,
            (None, None) => {
                let problem = format!("has no origin: put it there as {}", target.display());
                return Err(wrong(&problem));
            }
        };
        let from = source.to_string();
        let mut content = source.open(&mut self.wheels).map_err(failed)?;
        let write_failed = |source| PullError::Write { path: target.clone(), source };
        let part = part_of(&target).map_err(write_failed)?;
        let found = copy(&mut content, &part).map_err(write_failed)?;
        let checked = match wanted.mismatch(&found) {
            Some((found, expected)) => {
                let (name, path, from) = (model.to_owned(), path.clone(), from.clone());
                Err(PullError::Mismatch { name, path, from, found, expected })
            }
            None => fs::rename(&part, &target).map_err(write_failed),
        };
        if checked.is_err() {
            let _ = fs::remove_file(&part);
        }
        checked?;
        self.note(model, &path, (found.0, &found.1), Some(from));
        wanted.complete(entry, found, resolved).map_err(wrong)
    }

    fn note(&mut self, model: &str, path: &str, (bytes, hash): (u64, &str), from: Option<String>) {
        let (model, path, sha256) = (model.to_owned(), path.to_owned(), hash.to_owned());
        tracing::info!(model, path, from = %shown(from.as_deref().unwrap_or("the folder")), "pulled");
        self.files.push(PulledFileDocument { model, path, bytes, sha256, from });
    }
}

/// What a manifest says about a file's content; `None` where it does not.
struct Wanted {
    size: Option<u64>,
    hash: Option<String>,
}

impl Wanted {
    /// Size and hash of the file at `target` if it is the wanted one. One whose hash the manifest does not know counts only if it
    /// is the user's `own`.
    fn found_at(&self, target: &Path, own: bool) -> Option<(u64, String)> {
        let pinned = self.size.is_some() && self.hash.is_some();
        let size = fs::metadata(target).ok()?.len();
        if (!own && !pinned) || self.size.is_some_and(|wanted| wanted != size) {
            return None;
        }
        let found = fs::File::open(target).and_then(|mut file| digest_of(&mut file)).ok()?;
        self.mismatch(&found).is_none().then_some(found)
    }

    /// What was found and what was expected, where they differ.
    fn mismatch(&self, (size, hash): &(u64, String)) -> Option<(String, String)> {
        match (self.size, &self.hash) {
            (Some(wanted), _) if wanted != *size => {
                Some((format!("{size} bytes"), wanted.to_string()))
            }
            (_, Some(wanted)) if wanted != hash => {
                Some((format!("SHA-256 {hash}"), wanted.clone()))
            }
            _ => None,
        }
    }

    /// Fills in what the manifest did not say. Returns whether the entry was changed, here or (`resolved`) before.
    fn complete(
        &self,
        entry: &mut Table,
        (size, hash): (u64, String),
        resolved: bool,
    ) -> Result<bool, &'static str> {
        let completed = resolved || self.size.is_none() || self.hash.is_none();
        if completed {
            let size = i64::try_from(size).map_err(|_| "is too large")?;
            entry.insert("size_bytes".to_owned(), Value::Integer(size));
            entry.insert("sha256".to_owned(), Value::String(hash));
        }
        Ok(completed)
    }
}

fn check_name(name: &str) -> Result<(), PullError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        let problem =
            "the manifest's name has characters other than a-z, 0-9, '-', '.', '_'".to_owned();
        return Err(PullError::Entry { name: name.to_owned(), role: "name".to_owned(), problem });
    }
    Ok(())
}

/// The path that a file is written to before it gets its name.
fn part_of(target: &Path) -> io::Result<PathBuf> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    Ok(folder.join(format!(".{name}.{}.part", std::process::id())))
}

fn write(target: &Path, content: &mut dyn Read) -> io::Result<()> {
    let part = part_of(target)?;
    copy(content, &part)?;
    fs::rename(&part, target)
}

/// Copies to a new file and syncs it to the disk; returns size and SHA-256.
fn copy(content: &mut dyn Read, target: &Path) -> io::Result<(u64, String)> {
    let mut file = fs::File::create(target)?;
    let mut tee = Tee { content, file: &mut file };
    let copied = digest_of(&mut tee);
    let copied = copied.and_then(|copied| file.sync_all().map(|()| copied));
    if copied.is_err() {
        let _ = fs::remove_file(target);
    }
    copied
}

/// Writes to `file` what is read from `content`.
struct Tee<'a> {
    content: &'a mut dyn Read,
    file: &'a mut fs::File,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.file.write_all(&buffer[..read])?;
        Ok(read)
    }
}

fn digest_of(content: &mut dyn Read) -> io::Result<(u64, String)> {
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut bytes = 0_u64;
    loop {
        let read = content.read(&mut block)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        if bytes > FILE_BYTES_MAX {
            return Err(io::Error::other("the file is larger than 64 GiB"));
        }
        digest.update(&block[..read]);
    }
    Ok((bytes, hexadecimal(&digest.finalize())))
}
