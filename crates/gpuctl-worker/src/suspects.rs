//! Which jobs may have crashed their worker: told by a marker on disk from before a job begins until it ends.
//!
//! A marker that is found at the start is that of a job which ran when the last worker on this box died. Such a suspect runs alone from
//! then on, and is buried before it crashes the box once too often. How often a message was received says nothing about it.
//!
//! Markers are lines of one blob, to which each beginning and end adds one: thousands of jobs a second would wait for each other in a folder
//! where each makes and removes a file of its own.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::job::Job;
use gpuctl_control::log::shown;
use gpuctl_control::wire::job::{job_from_json, job_to_json};
use gpuctl_core::units::Timestamp;

use crate::Scratch;

/// The code of a job's problem: its worker crashed while it ran.
pub(crate) const CRASHED: &str = "job.crashed";
/// The most jobs whose crashes are remembered: the newest.
const SUSPECTS_MAX: usize = 1_000;
/// The blob of markers: `+` and a job that begins, `-` and the key of one that ends.
const MARKERS: &str = "markers";
/// The most bytes that are added to it before what is over is left out; more where what runs alone has more.
const MARKERS_BYTES_MAX: usize = 1 << 20;
const CRASHES: &str = "crashes-";
/// The blob that is there while a worker serves: one that finds it comes after a crash, also where no job ran then.
const SERVING: &str = "serving";
const LAST_CRASH: &str = "last-crash";
/// Crashes that come sooner one after the other are not chance: another job may crash the worker next.
const CRASHES_APART_MIN: TimeDelta = TimeDelta::minutes(10);
/// Of so few receives two crashes leave one: there a single crash counts as several.
const FEW_RECEIVES_MAX: u32 = 3;

/// The suspects of this box.
pub(crate) struct Suspects {
    scratch: Arc<dyn Scratch>,
    receives_max: u32,
    crashes_max: u32,
    markers: Mutex<Markers>,
    /// How often jobs have crashed a worker of this box, by key.
    crashes: Mutex<BTreeMap<String, u32>>,
}

/// The markers that are on the disk.
#[derive(Default)]
struct Markers {
    /// Those of jobs that run, by key.
    running: BTreeMap<String, String>,
    /// The bytes that were added since the blob had nothing but what ran, and may be before that is so again.
    added: usize,
    added_max: usize,
}

impl Markers {
    /// Of the blob that a worker left behind.
    fn of(blob: &str) -> Self {
        let mut running = BTreeMap::new();
        // What follows the last line break was not written to its end: that job had not begun, or had just ended.
        for line in blob.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            if let Some(job) = line.strip_prefix('+') {
                running.extend(job_from_json(job).ok().map(|read| (key(&read), job.to_owned())));
            } else if let Some(key) = line.strip_prefix('-') {
                running.remove(key);
            }
        }
        Self { running, ..Self::default() }
    }

    /// Adds a line, or writes all that runs anew where much was added.
    fn note(&mut self, scratch: &dyn Scratch, line: &str) -> io::Result<()> {
        self.added += line.len();
        let noted = if self.added <= self.added_max.max(MARKERS_BYTES_MAX) {
            scratch.append(MARKERS, line.as_bytes())
        } else {
            let all: String = self.running.values().map(|job| format!("+{job}\n")).collect();
            (self.added, self.added_max) = (0, all.len());
            scratch.put(MARKERS, all.as_bytes())
        };
        if noted.is_err() {
            // A part of the line may be there: the next one must not go behind it.
            self.added_max = 0;
            self.added = MARKERS_BYTES_MAX;
        }
        noted
    }
}

impl Suspects {
    pub(crate) fn new(scratch: Arc<dyn Scratch>, receives_max: u32) -> Self {
        let names = log(scratch.list(), "markers could not be listed").unwrap_or_default();
        let of = |name: &String| {
            let key = name.strip_prefix(CRASHES)?;
            let text = scratch.get(name).ok()??;
            Some((key.to_owned(), String::from_utf8_lossy(&text).parse().ok()?))
        };
        let crashes = names.iter().filter_map(of).collect();
        // The queue moves a message to the dead letters after `receives_max` receives, without a reason: it is buried before that.
        let crashes_max = receives_max.saturating_sub(1).max(1);
        let (markers, crashes) = (Mutex::default(), Mutex::new(crashes));
        Self { scratch, receives_max, crashes_max, markers, crashes }
    }

    /// Counts the crash whose markers are still there; returns its jobs, and how often each has crashed its worker.
    pub(crate) fn after_crash(&self) -> Vec<(Job, u32)> {
        let blob = log(self.scratch.get(MARKERS), "markers could not be read").flatten();
        let left = Markers::of(&String::from_utf8_lossy(&blob.unwrap_or_default())).running;
        let mut suspects = Vec::new();
        for job in left.values().filter_map(|job| job_from_json(job).ok()) {
            let before = self.crashes(&job);
            // One of several that ran together is a suspect, but no more than that.
            let crashes = if left.len() == 1 { before + 1 } else { before.max(1) };
            let name = format!("{CRASHES}{}", key(&job));
            log(
                self.scratch.put(&name, crashes.to_string().as_bytes()),
                "a crash could not be noted",
            );
            self.with_crashes(|noted| noted.insert(key(&job), crashes));
            suspects.push((job, crashes));
        }
        self.clear_markers();
        // Keys sort by the jobs' ids, which sort by time.
        let old: Vec<String> = self.with_crashes(|noted| {
            noted.keys().take(noted.len().saturating_sub(SUSPECTS_MAX)).cloned().collect()
        });
        old.iter().for_each(|key| self.forget_key(key));
        suspects
    }

    /// Notes that a worker serves, until [`Suspects::clear`]. Whether what crashed the last one, be it between two jobs, may strike again
    /// before its messages have ended. Suspects tell of a crash also where the disk had no room for the note.
    pub(crate) fn serve_after_crashes(&self, has_suspects: bool, now: Timestamp) -> bool {
        let has_crashed = has_suspects || self.scratch.get(SERVING).ok().flatten().is_some();
        log(self.scratch.put(SERVING, b""), "that a worker serves could not be noted");
        has_crashed && (self.crashes_again(now) || self.receives_max <= FEW_RECEIVES_MAX)
    }

    /// Notes a crash; whether it is the second within `CRASHES_APART_MIN`.
    fn crashes_again(&self, now: Timestamp) -> bool {
        let before = self.scratch.get(LAST_CRASH).ok().flatten().unwrap_or_default();
        let before: Option<Timestamp> = String::from_utf8_lossy(&before).parse().ok();
        let noted = self.scratch.put(LAST_CRASH, now.to_rfc3339().as_bytes());
        log(noted, "a crash could not be noted");
        before.is_some_and(|before| now - before < CRASHES_APART_MIN)
    }

    /// Notes that a job begins. Nothing removes the note but [`Suspects::end`] and [`Suspects::clear`]: a crash does neither.
    pub(crate) fn begin(&self, job: &Job) {
        let text = job_to_json(job);
        let noted = self.with_markers(|markers| {
            let line = format!("+{text}\n");
            markers.running.insert(key(job), text);
            markers.note(&*self.scratch, &line)
        });
        log(noted, "a marker could not be written");
    }

    /// Notes that a job is over.
    pub(crate) fn end(&self, job: &Job) {
        let key = key(job);
        let noted = self.with_markers(|markers| {
            markers.running.remove(&key);
            if markers.running.is_empty() {
                *markers = Markers::default();
                return self.scratch.remove(MARKERS);
            }
            markers.note(&*self.scratch, &format!("-{key}\n"))
        });
        log(noted, "a marker could not be removed");
    }

    /// Notes that no job runs any longer, at the end of a worker that ends in order.
    pub(crate) fn clear(&self) {
        self.clear_markers();
        log(self.scratch.remove(SERVING), "that a worker has ended could not be noted");
    }

    fn clear_markers(&self) {
        let removed = self.with_markers(|markers| {
            *markers = Markers::default();
            self.scratch.remove(MARKERS)
        });
        log(removed, "markers could not be removed");
    }

    /// How often the job has crashed a worker of this box.
    pub(crate) fn crashes(&self, job: &Job) -> u32 {
        self.with_crashes(|noted| noted.get(&key(job)).copied().unwrap_or_default())
    }

    /// Whether a job that has crashed this often is not to run again.
    pub(crate) fn is_too_often(&self, crashes: u32) -> bool {
        crashes >= self.crashes_max
    }

    /// Forgets the job's crashes: it has ended, or was buried, and a user who brings it back wants it to be tried.
    pub(crate) fn forget(&self, job: &Job) {
        self.forget_key(&key(job));
    }

    fn forget_key(&self, key: &str) {
        if self.with_crashes(|noted| noted.remove(key)).is_some() {
            let removed = self.scratch.remove(&format!("{CRASHES}{key}"));
            log(removed, "a suspect could not be forgotten");
        }
    }

    fn with_markers<T>(&self, change: impl FnOnce(&mut Markers) -> T) -> T {
        change(&mut self.markers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_crashes<T>(&self, change: impl FnOnce(&mut BTreeMap<String, u32>) -> T) -> T {
        change(&mut self.crashes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key(job: &Job) -> String {
    format!("{}-{}", job.id, job.generation)
}

/// Without the disk a worker goes on, and knows less about its suspects.
fn log<T>(done: io::Result<T>, what: &str) -> Option<T> {
    done.map_err(|error| tracing::warn!(error = %shown(error), "{what}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryScratch;

    fn job(number: usize) -> Job {
        let id = format!("01a200ab-52ac-72da-a503-{number:012}");
        job_from_json(&format!(
            r#"{{"version":1,"job_id":"{id}","queue":"jobs","task":"vision.ocr","input":"file:///a.png","submitted_at":"2026-11-22T00:00:00+00:00"}}"#
        ))
        .unwrap()
    }

    fn suspects(scratch: &MemoryScratch) -> Suspects {
        Suspects::new(Arc::new(scratch.clone()), 5)
    }

    fn blob(scratch: &MemoryScratch) -> Vec<u8> {
        scratch.get(MARKERS).unwrap().unwrap_or_default()
    }

    #[test]
    fn those_that_ran_at_the_crash_are_suspects_and_no_others() {
        let scratch = MemoryScratch::default();
        let before = suspects(&scratch);
        (0..5).for_each(|number| before.begin(&job(number)));
        [0, 3].iter().for_each(|&number| before.end(&job(number)));
        let after = suspects(&scratch);
        assert_eq!(after.after_crash(), [1, 2, 4].map(|number| (job(number), 1)));
        assert_eq!([0, 1].map(|number| after.crashes(&job(number))), [0, 1]);
        assert!(suspects(&scratch).after_crash().is_empty(), "counted twice");
        // The next worker knows it, until the job is done.
        assert_eq!(suspects(&scratch).crashes(&job(1)), 1);
        after.forget(&job(1));
        assert_eq!([&after, &suspects(&scratch)].map(|any| any.crashes(&job(1))), [0, 0]);
    }

    #[test]
    fn a_marker_that_was_cut_off_by_the_crash_is_none() {
        let scratch = MemoryScratch::default();
        suspects(&scratch).begin(&job(1));
        let whole = blob(&scratch);
        suspects(&scratch).begin(&job(2));
        for cut in whole.len() + 1..blob(&scratch).len() {
            let cut = String::from_utf8(blob(&scratch)[..cut].to_vec()).unwrap();
            let running = Markers::of(&cut).running;
            assert_eq!(running.into_keys().collect::<Vec<_>>(), [key(&job(1))]);
        }
    }

    #[test]
    fn the_blob_of_markers_stays_small_and_keeps_what_runs() {
        let scratch = MemoryScratch::default();
        let worker = suspects(&scratch);
        worker.begin(&job(0));
        for number in 1..20_000 {
            worker.begin(&job(number));
            worker.end(&job(number));
            assert!(blob(&scratch).len() <= MARKERS_BYTES_MAX + 1_000);
        }
        assert_eq!(suspects(&scratch).after_crash(), [(job(0), 1)]);
    }

    /// A disk on which there is room for nothing, or for a part of a line.
    struct FullDisk(MemoryScratch, std::sync::atomic::AtomicBool);

    impl Scratch for FullDisk {
        fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
            if self.1.load(std::sync::atomic::Ordering::Relaxed) {
                self.0.append(name, &bytes[..bytes.len() / 2])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.append(name, bytes)
        }

        fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.put(name, bytes)
        }

        fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            self.0.get(name)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }
    }

    #[test]
    fn after_a_full_disk_the_markers_are_whole_again() {
        let scratch = MemoryScratch::default();
        let disk = Arc::new(FullDisk(scratch.clone(), true.into()));
        let worker = Suspects::new(Arc::clone(&disk) as Arc<dyn Scratch>, 5);
        worker.begin(&job(1));
        disk.1.store(false, std::sync::atomic::Ordering::Relaxed);
        worker.begin(&job(2));
        let after = suspects(&scratch).after_crash();
        assert_eq!(after, [1, 2].map(|number| (job(number), 1)));
    }
}
