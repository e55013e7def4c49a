//! A folder as one file, so that a checkpoint is replaced wholly or not at all: a ZIP archive without compression, with a note of whose it is.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gpuctl_control::ports::PortError;
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The note in the archive of a checkpoint. No file of a folder has its name.
const NOTE: &str = ".gpuctl-checkpoint.json";
/// The most bytes of it.
const NOTE_BYTES_MAX: u64 = 64 << 10;
/// Where the folder's files are in the archive.
const INSIDE: &str = "files";
/// The most files of a folder.
const FILES_MAX: usize = 100_000;
/// How deep folders may lie in each other.
const DEPTH_MAX: usize = 32;
/// Files and folders that are being written: they have another name once they are whole.
const UNFINISHED: &str = ".tmp";
/// How often an archive is begun anew since a file of it was changed, or went away.
const TRIES_MAX: u32 = 3;

/// Whose checkpoint it is, and how far the job has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) job: String,
    pub(super) generation: u32,
    /// How long its attempts have run.
    pub(super) ran_millis: i64,
    /// How many of them there were.
    pub(super) attempts: u32,
    /// How often it was run again for its exit code.
    pub(super) retries: u32,
    /// Which of the two checkpoints that are kept is the newer one; `None` where none is.
    #[serde(default)]
    pub(super) newest: Option<usize>,
}

impl Note {
    /// With what a later note counts of the same generation of the same job.
    pub(super) fn at_least(self, later: &Self) -> Self {
        if (&self.job, self.generation) != (&later.job, later.generation) {
            return self;
        }
        Self {
            ran_millis: self.ran_millis.max(later.ran_millis),
            attempts: self.attempts.max(later.attempts),
            retries: self.retries.max(later.retries),
            ..self
        }
    }
}

/// Why there is no archive, or no folder from one.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("its files take {mib} MiB, at most {mib_max} are allowed")]
    TooLarge { mib: u64, mib_max: u32 },
    #[error("it has more than {FILES_MAX} files, or folders deeper than {DEPTH_MAX}")]
    TooMany,
    #[error("it is not a checkpoint: {0}")]
    Damaged(String),
    #[error(
        "its files change while they are read: write them under another name that ends in {UNFINISHED}, and rename"
    )]
    Changing,
    #[error("its program was killed while it wrote them")]
    Unfinished,
    #[error("the disk fails: {0}")]
    Disk(#[from] io::Error),
    #[error("{0}")]
    Store(PortError),
}

/// A file of a folder. Links are left out: they could lead anywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Below the folder.
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    changed: Option<SystemTime>,
    /// A file that was put in place of another of the same size at the same time is another one.
    inode: u64,
}

impl Entry {
    pub(super) fn is_changed_since(&self, time: SystemTime) -> bool {
        self.changed.is_none_or(|changed| changed >= time)
    }
}

/// All files of a folder, in order.
pub(super) fn entries(folder: &Path) -> Result<Vec<Entry>, SnapshotError> {
    let mut found = Vec::new();
    walk(folder, Path::new(""), 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(
    root: &Path,
    inside: &Path,
    depth: usize,
    found: &mut Vec<Entry>,
) -> Result<(), SnapshotError> {
    let listed = match fs::read_dir(root.join(inside)) {
        // Of a folder that is gone nothing is known: an empty checkpoint must not replace one that is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
        listed => listed?,
    };
    for entry in listed {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        // It may be gone by now.
        let Ok(facts) = entry.metadata() else { continue };
        if path.as_os_str().as_encoded_bytes().ends_with(UNFINISHED.as_bytes()) {
            continue;
        }
        if facts.is_dir() && depth < DEPTH_MAX {
            walk(root, &path, depth + 1, found)?;
        } else if facts.is_dir() || found.len() >= FILES_MAX {
            return Err(SnapshotError::TooMany);
        } else if facts.is_file() {
            let (bytes, changed) = (facts.len(), facts.modified().ok());
            found.push(Entry { path, bytes, changed, inode: facts.ino() });
        }
    }
    Ok(())
}

/// The size of all, if that is allowed.
pub(super) fn check_size(entries: &[Entry], mib_max: u32) -> Result<(), SnapshotError> {
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let mib = bytes.div_ceil(1 << 20);
    if mib > u64::from(mib_max) { Err(SnapshotError::TooLarge { mib, mib_max }) } else { Ok(()) }
}

/// Writes the folder's files into `archive`, after the note, if there is one. Returns which files it has. Files that change meanwhile are no
/// archive: a half of one with a half of another would be.
pub(super) fn pack(
    folder: &Path,
    note: Option<&Note>,
    archive: &Path,
    mib_max: u32,
) -> Result<Vec<Entry>, SnapshotError> {
    for _ in 0..TRIES_MAX {
        let before = entries(folder)?;
        check_size(&before, mib_max)?;
        match write(folder, &before, note, File::create(archive)?) {
            // It was replaced meanwhile, as checkpoints are.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => {
                written?;
                if entries(folder)? == before {
                    return Ok(before);
                }
            }
        }
    }
    Err(SnapshotError::Changing)
}

fn write(
    folder: &Path,
    entries: &[Entry],
    note: Option<&Note>,
    archive: impl Write + Seek,
) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(true)
        .unix_permissions(0o600);
    let mut zip = ZipWriter::new(archive);
    if let Some(note) = note {
        zip.start_file(NOTE, options)?;
        zip.write_all(&serde_json::to_vec(note)?)?;
    }
    for Entry { path, .. } in entries {
        let name = if note.is_some() { Path::new(INSIDE).join(path) } else { path.clone() };
        let Some(name) = name.to_str() else {
            return Err(io::Error::other(format!("{} is not UTF-8", path.display())));
        };
        let mut file = File::open(folder.join(path))?;
        zip.start_file(name, options)?;
        io::copy(&mut file, &mut zip)?;
    }
    zip.finish()?.flush()
}

/// Writes a checkpoint's files into the folder, and returns its note.
pub(super) fn unpack(archive: &Path, folder: &Path) -> Result<Note, SnapshotError> {
    let damaged = |error: zip::result::ZipError| SnapshotError::Damaged(error.to_string());
    let mut zip = ZipArchive::new(File::open(archive)?).map_err(damaged)?;
    let note = {
        let note = zip.by_name(NOTE).map_err(damaged)?;
        let mut text = String::new();
        note.take(NOTE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
        serde_json::from_str(&text).map_err(|error| SnapshotError::Damaged(error.to_string()))?
    };
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).map_err(damaged)?;
        let name = file.enclosed_name();
        let Some(path) = name.as_ref().and_then(|name| name.strip_prefix(INSIDE).ok()) else {
            continue;
        };
        let path = folder.join(path);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        io::copy(&mut file, &mut File::create(path)?).map_err(unreadable)?;
    }
    Ok(note)
}

/// What is wrong in an archive comes as an error of reading it.
fn unreadable(error: io::Error) -> SnapshotError {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => {
            SnapshotError::Damaged(error.to_string())
        }
        _ => SnapshotError::Disk(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note {
            job: "j".to_owned(),
            generation: 1,
            ran_millis: 5,
            attempts: 2,
            retries: 0,
            newest: None,
        }
    }

    #[test]
    fn a_folder_comes_back_as_it_was_but_for_links_and_what_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to, archive) =
            (folder.path().join("a"), folder.path().join("b"), folder.path().join("z"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::write(from.join("deep/er/x.npz"), [0, 255, 10]).unwrap();
        fs::write(from.join(".hidden"), "h").unwrap();
        fs::write(from.join("half.tmp"), "h").unwrap();
        fs::create_dir(from.join("step-9.tmp")).unwrap();
        fs::write(from.join("step-9.tmp/half"), "h").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        let packed = pack(&from, Some(&note()), &archive, 1).unwrap();
        assert_eq!(packed.len(), 2);
        fs::create_dir(&to).unwrap();
        assert_eq!(unpack(&archive, &to).unwrap(), note());
        assert_eq!(fs::read(to.join("deep/er/x.npz")).unwrap(), [0, 255, 10]);
        let names: Vec<PathBuf> = entries(&to).unwrap().into_iter().map(|one| one.path).collect();
        assert_eq!(names, [PathBuf::from(".hidden"), PathBuf::from("deep/er/x.npz")]);
    }

    #[test]
    fn files_that_change_while_they_are_read_are_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let (from, archive) = (folder.path().join("a"), folder.path().join("z"));
        fs::create_dir(&from).unwrap();
        let mut log = File::create(from.join("log")).unwrap();
        let (stop, stopped) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                log.write_all(b"x").unwrap();
            }
        });
        // Large enough for another line in the log meanwhile.
        fs::write(from.join("weights"), vec![0; 32 << 20]).unwrap();
        let packed = pack(&from, None, &archive, 1_000);
        stop.send(()).unwrap();
        writer.join().unwrap();
        assert!(matches!(packed, Err(SnapshotError::Changing)), "{packed:?}");
        pack(&from, None, &archive, 1_000).unwrap();
    }

    #[test]
    fn a_folder_beyond_its_limit_and_a_file_that_is_no_checkpoint_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let (from, archive) = (folder.path().join("a"), folder.path().join("z"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("x"), vec![0; (1 << 20) + 1]).unwrap();
        let error = pack(&from, None, &archive, 1).unwrap_err();
        assert_eq!(error.to_string(), "its files take 2 MiB, at most 1 are allowed");
        pack(&from, None, &archive, 2).unwrap();
        assert!(
            matches!(unpack(&archive, &from), Err(SnapshotError::Damaged(_))),
            "without a note"
        );
        pack(&from, Some(&note()), &archive, 2).unwrap();
        let mut bytes = fs::read(&archive).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&archive, bytes).unwrap();
        let unpacked = unpack(&archive, &from);
        assert!(matches!(unpacked, Err(SnapshotError::Damaged(_))), "{unpacked:?}");
        fs::write(&archive, "not an archive").unwrap();
        assert!(matches!(unpack(&archive, &from), Err(SnapshotError::Damaged(_))));
    }
}
