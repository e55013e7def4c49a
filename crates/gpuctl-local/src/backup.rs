//! A backup of the state folder in one archive: the queue file as of one moment, while others use it, and the files of results.
//!
//! Results are copied after the queue file, and a result's file is there before the result: so the archive has each file that its queue
//! file names, unless it was deleted meanwhile. What is restored is complete beside the folder's own before it takes its place.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use gpuctl_control::clock::SystemClock;
use gpuctl_control::job::InputUri;
use gpuctl_control::ports::{Clock, PortError, PortErrorClass};
use gpuctl_control::state_folder;
use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::files::FOLDER_NAME as RESULTS;
use crate::schema::SCHEMA_VERSION;
use crate::store::{FILE_NAME, PRIVATE_MODE, Store, store_error};

/// What the archive says of itself.
const MANIFEST: &str = "backup.json";
const FORMAT: i64 = 1;
const MANIFEST_BYTES_MAX: u64 = 1 << 16;
/// What SQLite keeps beside the queue file.
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];

/// What is in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub jobs: u64,
    /// Files of results.
    pub files: u64,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub contents: Contents,
    /// Where the state lies that was there before.
    pub replaced: Option<PathBuf>,
}

type Archive = ZipWriter<File>;

impl Store {
    /// Writes an archive of the state, which is in use meanwhile. A file that is there stays.
    ///
    /// # Errors
    /// When it cannot be written, or is there already.
    pub fn back_up(&self, to: &Path) -> Result<Contents, PortError> {
        let failed = |error: io::Error| unwritable(to, &error);
        let folder =
            to.parent().filter(|one| !one.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let new = NamedTempFile::with_prefix_in(".gpuctl-", folder).map_err(failed)?;
        let snapshot = NamedTempFile::with_prefix_in(".backup-", self.folder()).map_err(failed)?;
        let jobs = self.snapshot(snapshot.path())?;
        let mut archive = ZipWriter::new(new.as_file().try_clone().map_err(failed)?);
        let files = self.fill(&mut archive, snapshot.path()).map_err(failed)?;
        archive.finish().map_err(|error| failed(error.into()))?.sync_all().map_err(failed)?;
        new.persist_noclobber(to).map_err(|error| failed(error.error))?;
        Ok(Contents { jobs, files })
    }

    /// Copies the queue file as of one moment; returns how many jobs it has.
    fn snapshot(&self, to: &Path) -> Result<u64, PortError> {
        self.read(|from| {
            let mut copy = Connection::open(to)?;
            Backup::new(from, &mut copy)?.step(-1)?;
            copy.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0))
        })
    }

    /// Adds everything; returns how many files of results there are.
    fn fill(&self, archive: &mut Archive, snapshot: &Path) -> io::Result<u64> {
        let folder = std::path::absolute(self.folder())?;
        let manifest = json!({
            "format": FORMAT,
            "schema": SCHEMA_VERSION,
            "made_at": SystemClock.now().to_rfc3339(),
            "results": results_uri(&folder),
        });
        archive.start_file(MANIFEST, options())?;
        io::copy(&mut manifest.to_string().as_bytes(), archive)?;
        archive.start_file(FILE_NAME, options())?;
        io::copy(&mut File::open(snapshot)?, archive)?;
        add_folder(archive, &folder, Path::new(RESULTS))
    }
}

fn options() -> SimpleFileOptions {
    SimpleFileOptions::default().large_file(true).unix_permissions(PRIVATE_MODE)
}

/// Adds the files below `root` in the folder `name`; one that was deleted since it was listed is left out.
fn add_folder(archive: &mut Archive, root: &Path, name: &Path) -> io::Result<u64> {
    let entries = match std::fs::read_dir(root.join(name)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut added = 0;
    for entry in entries {
        let entry = entry?;
        let name = name.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            added += add_folder(archive, root, &name)?;
        } else if let Ok(mut file) = File::open(root.join(&name)) {
            archive.start_file_from_path(&name, options())?;
            io::copy(&mut file, archive)?;
            added += 1;
        }
    }
    Ok(added)
}

/// Puts the state of an archive into a folder that nothing uses. What is there stays, unless `replace` allows to move it aside.
///
/// # Errors
/// When something uses the folder or is in it, or the archive is damaged, none of gpuctl's or of a newer gpuctl; nothing is changed then.
pub fn restore(folder: &Path, from: &Path, replace: bool) -> Result<Restored, PortError> {
    let failed = |error: io::Error| unwritable(folder, &error);
    state_folder::make(folder).map_err(failed)?;
    let folder = &folder.canonicalize().map_err(failed)?;
    let _alone = alone(folder)?;
    let is_empty = [FILE_NAME, RESULTS].iter().all(|name| !folder.join(name).exists());
    if !is_empty && !replace {
        let what = format!("{} has a queue file or results already", folder.display());
        return Err(PortError::new(PortErrorClass::Conflict, what)
            .hint("--replace moves them aside; GPUCTL_STATE names another folder"));
    }
    let new = TempDir::with_prefix_in(".restore-", folder).map_err(failed)?;
    let contents = unpack(from, new.path(), folder)?;
    let replaced = if is_empty { None } else { Some(move_aside(folder).map_err(failed)?) };
    for name in [RESULTS, FILE_NAME].iter().filter(|name| new.path().join(name).exists()) {
        std::fs::rename(new.path().join(name), folder.join(name)).map_err(failed)?;
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(Restored { contents, replaced })
}

/// Keeps others from using the folder, once no one does: not the daemon, no box, and no other program.
fn alone(folder: &Path) -> Result<Vec<File>, PortError> {
    let busy = |who: String| {
        let what = format!("{} is in use: {who}", folder.display());
        Err(PortError::new(PortErrorClass::Conflict, what)
            .hint("end `gpuctl run`, and stop all boxes with `gpuctl stop-all --wait`"))
    };
    let mut locks = Vec::new();
    for (name, who) in [("run.lock", "`gpuctl run` runs"), ("open.lock", "a gpuctl is starting")] {
        let lock = File::create(folder.join(name)).map_err(|error| unwritable(folder, &error))?;
        match lock.try_lock() {
            Ok(()) => locks.push(lock),
            Err(_) => return busy(who.to_owned()),
        }
    }
    for entry in std::fs::read_dir(folder.join("boxes")).into_iter().flatten().flatten() {
        let lock = File::open(entry.path()).map(|lock| lock.try_lock_shared());
        if matches!(lock, Ok(Err(TryLockError::WouldBlock))) {
            return busy(format!(
                "box {} runs",
                entry.path().file_stem().unwrap_or_default().display()
            ));
        }
    }
    if is_open(&folder.join(FILE_NAME)) {
        return busy("another program has its queue file open".to_owned());
    }
    Ok(locks)
}

/// Whether another program has the queue file open: SQLite leaves its mode only if no one has. A file that it cannot read counts as closed.
fn is_open(file: &Path) -> bool {
    let leave = || {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0))
    };
    match leave() {
        Ok(mode) => mode == "wal",
        Err(error) => matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked)),
    }
}

/// Moves the queue file and the results into a folder of their own.
fn move_aside(folder: &Path) -> io::Result<PathBuf> {
    let aside = folder.join(format!("replaced-{}", SystemClock.now().format("%Y%m%dT%H%M%SZ")));
    state_folder::make(&aside)?;
    let queue = BESIDE.iter().map(|end| format!("{FILE_NAME}{end}"));
    for name in queue.chain([RESULTS.to_owned()]).filter(|name| folder.join(name).exists()) {
        std::fs::rename(folder.join(&name), aside.join(&name))?;
    }
    Ok(aside)
}

/// Unpacks an archive to `new`, whose content will be that of `folder`.
fn unpack(from: &Path, new: &Path, folder: &Path) -> Result<Contents, PortError> {
    let not_ours = |error: &dyn std::fmt::Display| {
        PortError::new(
            PortErrorClass::Corrupt,
            format!("{} is not a backup of gpuctl, or is damaged", from.display()),
        )
        .because(error.to_string())
    };
    let file = File::open(from).map_err(|error| {
        PortError::new(PortErrorClass::NotFound, format!("{} cannot be read", from.display()))
            .because(error)
    })?;
    let mut archive = ZipArchive::new(file).map_err(|error| not_ours(&error))?;
    let manifest = manifest(&mut archive).map_err(|error| not_ours(&error))?;
    let is_newer = |key: &str, known: i64| manifest[key].as_i64().is_none_or(|found| found > known);
    if is_newer("format", FORMAT) || is_newer("schema", SCHEMA_VERSION) {
        let what = format!("{} was made by a newer gpuctl", from.display());
        return Err(PortError::new(PortErrorClass::TooNew, what).hint("update gpuctl"));
    }
    let mut files = 0;
    for index in 0..archive.len() {
        let mut one = archive.by_index(index).map_err(|error| not_ours(&error))?;
        let name =
            one.enclosed_name().ok_or_else(|| not_ours(&"it has a file outside of itself"))?;
        let is_result = name.starts_with(RESULTS);
        if !is_result && name != Path::new(FILE_NAME) {
            continue;
        }
        write(&mut one, &new.join(&name)).map_err(|error| not_ours(&error))?;
        files += u64::from(is_result);
    }
    let jobs = settle(&new.join(FILE_NAME), manifest["results"].as_str(), folder)?;
    Ok(Contents { jobs, files })
}

fn manifest(archive: &mut ZipArchive<File>) -> io::Result<Value> {
    let mut text = String::new();
    archive.by_name(MANIFEST)?.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// Writes a file; the archive's checksum is compared on the way.
fn write(from: &mut impl Read, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    state_folder::make(to.parent().unwrap_or(to))?;
    let new = std::fs::OpenOptions::new().write(true).create_new(true).mode(PRIVATE_MODE).open(to);
    let mut new = new?;
    io::copy(from, &mut new)?;
    new.sync_all()
}

/// Checks the queue file, and lets results name their files where they will be; returns how many jobs it has.
fn settle(file: &Path, before: Option<&str>, folder: &Path) -> Result<u64, PortError> {
    let settle = || {
        let copy = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let check: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            return Ok(Err(check));
        }
        let now = results_uri(folder);
        if let Some(before) = before.filter(|before| *before != now) {
            copy.execute("UPDATE results SET result = replace(result, ?1, ?2)", (before, now))?;
        }
        copy.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)).map(Ok)
    };
    let settled = settle().map_err(|error| store_error(file, error))?;
    settled.map_err(|problem| {
        PortError::new(PortErrorClass::Corrupt, "the queue file of the backup is damaged")
            .because(problem)
    })
}

/// What the URIs of results' files begin with.
fn results_uri(folder: &Path) -> String {
    format!("{}/", InputUri::of_path(&folder.join(RESULTS)).as_str())
}

fn unwritable(path: &Path, error: &io::Error) -> PortError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let class = if full { PortErrorClass::Full } else { PortErrorClass::Other };
    let what = match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} is there already", path.display()),
        _ => format!("{} cannot be written", path.display()),
    };
    PortError::new(class, what).because(error.to_string())
}
