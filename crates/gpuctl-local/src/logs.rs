//! Logs of this machine's boxes: each one's log of its latest run, and of the run before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gpuctl_control::log::LogLine;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::units::{BoxId, Timestamp};

/// How much of a file is read, from its end: some ten thousand lines.
const BYTES_MAX: u64 = 4 << 20;

/// The logs of all boxes of a state folder, or of one box, read on from where the last call ended.
pub struct BoxLogs {
    folder: PathBuf,
    only: Option<BoxId>,
    /// Each box's file, and how far it is read.
    read: BTreeMap<BoxId, LogPosition>,
}

/// A line of a box.
#[derive(Clone, Debug)]
pub struct BoxLine {
    pub box_id: BoxId,
    pub line: LogLine,
    /// When it was written, at the latest: a line without a time is as old as the one before it.
    pub order: Timestamp,
}

/// A position in a file; each run begins a new file under the same name.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct LogPosition {
    inode: u64,
    offset: u64,
}

impl BoxLogs {
    /// The logs in the state's folder, read from their beginnings.
    #[must_use]
    pub fn new(state: &Path, only: Option<BoxId>) -> Self {
        Self { folder: state.join("boxes"), only, read: BTreeMap::new() }
    }

    /// The boxes that have a log.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn boxes(&self) -> Result<Vec<BoxId>, PortError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| unread(&self.folder, error))?,
        };
        let name = |entry: std::fs::DirEntry| {
            entry.file_name().to_str()?.strip_suffix(".log")?.parse::<BoxId>().ok()
        };
        let mut all: Vec<BoxId> = entries.flatten().filter_map(name).collect();
        all.retain(|id| self.only.as_ref().is_none_or(|only| only == id));
        all.sort_unstable();
        Ok(all)
    }

    /// What was written since the last call, in order; at first all there is.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read_on(&mut self) -> Result<Vec<BoxLine>, PortError> {
        let mut lines = Vec::new();
        for id in self.boxes()? {
            let path = self.folder.join(format!("{id}.log"));
            let before = self.read.get(&id).copied();
            if before.is_none() {
                let old = path.with_extension("log.old");
                if old.is_file() {
                    read(&id, &old, LogPosition::default(), &mut lines)
                        .map_err(|e| unread(&old, e))?;
                }
            }
            let position = read(&id, &path, before.unwrap_or_default(), &mut lines);
            self.read.insert(id, position.map_err(|error| unread(&path, error))?);
        }
        lines.sort_by_key(|line| line.order);
        Ok(lines)
    }
}

/// Reads whole lines from a position on; returns the position after them.
fn read(
    id: &BoxId,
    path: &Path,
    from: LogPosition,
    lines: &mut Vec<BoxLine>,
) -> std::io::Result<LogPosition> {
    let mut file = File::open(path)?;
    let facts = file.metadata()?;
    let is_same = from.inode == facts.ino() && from.offset <= facts.len();
    let first = facts.len().saturating_sub(BYTES_MAX);
    let start = if is_same { from.offset } else { 0 }.max(first);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    // What has no end yet is still being written.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let mut order: Timestamp = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH).into();
    // The first line may be half of one.
    for line in text.lines().skip(usize::from(start > 0 && start == first)) {
        let line = LogLine::of_text(line);
        order = line.at.unwrap_or(order);
        lines.push(BoxLine { box_id: id.clone(), line, order });
    }
    Ok(LogPosition { inode: facts.ino(), offset: start + whole as u64 })
}

fn unread(path: &Path, error: std::io::Error) -> PortError {
    PortError::new(PortErrorClass::Other, format!("cannot read {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[BoxLine]) -> Vec<String> {
        lines.iter().map(|one| format!("{} {}", one.box_id, one.line.text)).collect()
    }

    #[test]
    fn logs_of_several_boxes_are_read_in_order_and_then_read_on() {
        let state = tempfile::tempdir().unwrap();
        let boxes = state.path().join("boxes");
        std::fs::create_dir(&boxes).unwrap();
        let write = |name: &str, text: &str| std::fs::write(boxes.join(name), text).unwrap();
        write("a.log.old", "2026-11-22T09:00:00Z INFO one\n");
        write("a.log", "2026-11-22T09:00:02Z INFO three\nits second line\nhalf");
        write("b.log", "2026-11-22T09:00:01Z INFO two\n");
        let mut logs = BoxLogs::new(state.path(), None);
        let first = ["a one", "b two", "a three", "a its second line"];
        assert_eq!(texts(&logs.read_on().unwrap()), first);
        assert_eq!(texts(&logs.read_on().unwrap()), [""; 0]);
        write("a.log", "2026-11-22T09:00:02Z INFO three\nits second line\nhalf a line\n");
        assert_eq!(texts(&logs.read_on().unwrap()), ["a half a line"]);
        // A new run, longer than what was read of the one before.
        write("new", &"2026-11-22T09:00:03Z INFO again\n".repeat(5));
        std::fs::rename(boxes.join("new"), boxes.join("a.log")).unwrap();
        assert_eq!(texts(&logs.read_on().unwrap()), ["a again"; 5]);
        assert_eq!(BoxLogs::new(state.path(), "b".parse().ok()).boxes().unwrap().len(), 1);
    }
}
