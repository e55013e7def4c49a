//! One attempt at a job that runs a command: restore, run, keep its checkpoint and log as it goes, and what came of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobFailure};
use gpuctl_control::ports::{Fetched, FileStore, PortError, WorkingFile};
use gpuctl_control::text::with_causes;
use gpuctl_core::policy::Command;
use gpuctl_core::units::show_duration;
use gpuctl_worker::{BoxFault, Cancel, Fault, Inferred};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::folders::{CHECKPOINT, Folders, LOG, METRICS, NOTE, outputs};
use super::journal::Journal;
use super::program::Program;
use super::snapshot::{Entry, Note, SnapshotError, entries, pack, unpack};
use super::{Commands, secrets};

/// How often the log is kept, if it has grown.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// The first wait before it is run again for its exit code; it doubles, up to the other.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5 * 60);
/// What it gets of the worker's own environment.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH"];
/// With all whose names begin so.
const PASSED_ON_PREFIXES: [&str; 2] = ["CUDA_", "NVIDIA_"];

/// A job on this box.
pub(super) struct Attempt<'a> {
    pub(super) commands: &'a Commands,
    pub(super) job: &'a Job,
    pub(super) command: &'a Command,
    /// Of its params, by name.
    pub(super) values: BTreeMap<String, String>,
    pub(super) input: Fetched,
    pub(super) cancel: &'a Cancel,
}

/// Why a program was told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Its time is over.
    SoftMax,
    /// This worker ends.
    HandOver,
}

/// How a run of the program ended.
struct Ended {
    code: i32,
    told: Option<Told>,
    /// It took its whole time, and was killed.
    is_over: bool,
}

impl Attempt<'_> {
    pub(super) async fn run(self) -> Result<Inferred, Fault> {
        let began = Instant::now();
        let folders = Folders::make(&self.commands.folder, self.job).map_err(|e| disk(&e))?;
        let secrets = secrets::read(self.command).map_err(Fault::Box)?;
        let note = self.restore(&folders).await?;
        let blotted = secrets::blotted(&secrets);
        let log_max = u64::from(self.command.log_mib_max) << 20;
        let (log, metrics) = (folders.log(), folders.metrics());
        let journal = Journal::open([&log, &metrics], log_max, blotted).map_err(|e| disk(&e))?;
        let keeper = Arc::new(Keeper {
            files: Arc::clone(&self.commands.files),
            job: self.job.clone(),
            checkpoint: folders.checkpoint(),
            archive: folders.archive(),
            note: folders.note(),
            mib_max: self.command.checkpoint_mib_max,
            journal: Arc::new(journal),
        });
        let mut run = Run {
            keeping: Keeping::new(keeper, note),
            program: self.program(&folders, secrets).map_err(Fault::Box)?,
            attempt: &self,
            ran_from: Instant::now(),
        };
        let ended = run.until_it_ends().await;
        let done = match ended {
            Ok(ended) => run.outcome(&ended).await,
            Err(fault) => Err(fault),
        };
        let output = done?;
        let files = tokio::task::block_in_place(|| outputs(&folders, self.command.output_mib_max));
        let files = match files {
            Ok(files) => files,
            Err(error) => return Err(run.output_failure(&error).await),
        };
        let took = TimeDelta::from_std(began.elapsed()).unwrap_or_default();
        Ok(Inferred {
            output,
            files,
            model: self.job.task.clone(),
            device: "process".to_owned(),
            took,
            worked: took,
        })
    }

    /// Puts the checkpoint, the log and the metrics of earlier attempts in place.
    async fn restore(&self, folders: &Folders) -> Result<Note, Fault> {
        for (name, path) in [(LOG, folders.log()), (METRICS, folders.metrics())] {
            if let Some(kept) = self.kept(name).await? {
                std::fs::copy(kept.path(), &path).map_err(|e| disk(&e))?;
            }
        }
        let checkpoint = self.restore_checkpoint(folders).await?;
        let Some(kept) = self.kept(NOTE).await? else { return Ok(checkpoint) };
        // What is not a note is left aside: it only counts what the checkpoint does not.
        let later = std::fs::read(kept.path()).ok();
        let later = later.and_then(|text| serde_json::from_slice(&text).ok());
        let note = match later {
            Some(later) => checkpoint.at_least(&later),
            None => checkpoint,
        };
        tracing::info!(job = %self.job.id, ran_ms = note.ran_millis, "goes on from what is kept of it");
        Ok(note)
    }

    /// Puts the files of its checkpoint in place.
    async fn restore_checkpoint(&self, folders: &Folders) -> Result<Note, Fault> {
        let fresh = Note {
            job: self.job.id.to_string(),
            generation: self.job.generation,
            ran_millis: 0,
            attempts: 0,
            retries: 0,
        };
        let Some(kept) = self.kept(CHECKPOINT).await? else { return Ok(fresh) };
        let note = tokio::task::block_in_place(|| unpack(kept.path(), &folders.checkpoint()));
        let note = note.map_err(|error| snapshot_fault("its checkpoint", &error))?;
        if (&note.job, note.generation) == (&fresh.job, fresh.generation) {
            return Ok(note);
        }
        Err(Fault::Input(JobFailure {
            code: "command.checkpoint".to_owned(),
            message: format!(
                "its checkpoint is of generation {} of job {}, and this is generation {}",
                note.generation, note.job, fresh.generation
            ),
            hint: Some("each generation begins anew: `gpuctl retry` sends the next one".to_owned()),
        }))
    }

    async fn kept(&self, name: &str) -> Result<Option<Fetched>, Fault> {
        let (job, generation) = (&self.job.id, self.job.generation);
        let file = WorkingFile { job, generation, name, path: Path::new("") };
        self.commands.files.working(&file).await.map_err(|error| unreachable_files(&error))
    }

    /// The command line with its environment.
    fn program(
        &self,
        folders: &Folders,
        secrets: BTreeMap<String, String>,
    ) -> Result<impl Fn(u32) -> Process, BoxFault> {
        let places = [
            ("input", self.input.path().to_owned()),
            ("output_dir", folders.output()),
            ("checkpoint_dir", folders.checkpoint()),
        ];
        let mut values = self.values.clone();
        for (name, path) in &places {
            values.insert((*name).to_owned(), path.to_string_lossy().into_owned());
        }
        let words = self.command.words(|name| values.get(name).map(String::as_str));
        let program = found(&words[0]).ok_or_else(|| BoxFault {
            code: "command.program".to_owned(),
            message: format!("the program `{}` is not on this box, or may not be run", words[0]),
            hint: Some("install it, or give its absolute path in `argv`".to_owned()),
        })?;
        let (launcher, env) = (self.commands.launcher.clone(), self.command.env.clone());
        let (root, temporary) = (folders.root().to_owned(), folders.temporary());
        let id = self.job.id.to_string();
        Ok(move |attempt: u32| {
            let mut process = Process::new(&launcher);
            process.args(["exec", "--"]).arg(&program).args(&words[1..]);
            process.current_dir(&root).env_clear();
            process.envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)));
            process.env("TMPDIR", &temporary);
            for (name, path) in &places {
                process.env(format!("GPUCTL_{}", name.to_uppercase()), path);
            }
            process.env("GPUCTL_JOB", &id).env("GPUCTL_ATTEMPT", attempt.to_string());
            process.envs(&env).envs(&secrets);
            process
        })
    }
}

/// The program as a path, if it can be run.
fn found(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let can_run = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(can_run);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(can_run)
}

fn is_passed_on(name: &std::ffi::OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    PASSED_ON.contains(&name) || PASSED_ON_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The runs of a program on this box: more than one where its exit code asks for it.
struct Run<'a, P> {
    attempt: &'a Attempt<'a>,
    program: P,
    keeping: Keeping,
    ran_from: Instant,
}

impl<P: Fn(u32) -> Process> Run<'_, P> {
    /// Runs it, and runs it again while its exit code asks for that.
    async fn until_it_ends(&mut self) -> Result<Ended, Fault> {
        let command = self.attempt.command;
        let mut wait = RETRY_AFTER;
        loop {
            self.keeping.note.attempts += 1;
            let ended = self.once().await?;
            let code = u32::try_from(ended.code).unwrap_or_default();
            let is_again = command.retry_exit_codes.contains(&code)
                && ended.told.is_none()
                && !ended.is_over
                && self.keeping.note.retries < command.retries_max;
            if !is_again {
                return Ok(ended);
            }
            self.keeping.note.retries += 1;
            let text = format!(
                "ended with {code}: run again, for the {}. time",
                self.keeping.note.retries
            );
            self.keeping.keeper.journal.say(&text);
            self.keep_all().await?;
            tokio::select! {
                biased;
                () = self.attempt.cancel.cancelled() => return Err(Fault::Cancelled),
                () = self.attempt.commands.handed_over.cancelled() => return Err(Fault::HandedOver),
                () = sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_AFTER_MAX);
        }
    }

    /// Runs it once, and keeps what it makes meanwhile.
    async fn once(&mut self) -> Result<Ended, Fault> {
        let Attempt { command, cancel, commands, .. } = *self.attempt;
        let (soft, hard) = (self.until(command.soft_max), self.until(command.hard_max));
        let journal = Arc::clone(&self.keeping.keeper.journal);
        let process = (self.program)(self.keeping.note.attempts);
        let mut program = Program::start(process, journal).map_err(|e| disk(&e))?;
        let (mut told, mut killed_at) = (None, hard);
        let mut checkpoint_at = Instant::now() + std_time(command.checkpoint_every);
        let mut log_at = Instant::now() + LOG_EVERY;
        let mut is_over = Instant::now() >= hard;
        loop {
            let tick = checkpoint_at.min(log_at);
            tokio::select! {
                biased;
                code = program.ended() => {
                    let code = code.map_err(|e| disk(&e))?.ok_or(Fault::Hung)?;
                    return Ok(Ended { code, told, is_over });
                }
                () = cancel.cancelled() => {
                    program.kill();
                    // Its folder, and the GPU, are free only once nothing of it is left.
                    let left = matches!(program.ended().await, Ok(None));
                    return Err(if left { Fault::Hung } else { Fault::Cancelled });
                }
                () = commands.handed_over.cancelled(), if told != Some(Told::HandOver) => {
                    program.tell();
                    killed_at = killed_at.min(Instant::now() + std_time(command.grace));
                    told = Some(Told::HandOver);
                }
                () = sleep_until(killed_at) => {
                    is_over |= told != Some(Told::HandOver);
                    program.kill();
                    // It ends now: if the kernel does not let it, its launcher says so.
                    killed_at = Instant::now() + LOG_EVERY;
                }
                () = sleep_until(soft), if told.is_none() => {
                    program.tell();
                    told = Some(Told::SoftMax);
                }
                kept = self.keeping.done() => kept?,
                () = sleep_until(tick) => {
                    let with_checkpoint = checkpoint_at <= Instant::now();
                    if with_checkpoint {
                        checkpoint_at = Instant::now() + std_time(command.checkpoint_every);
                    }
                    log_at = Instant::now() + LOG_EVERY;
                    let ran = self.ran();
                    self.keeping.begin(if with_checkpoint { What::Changed } else { What::Log }, ran);
                }
            }
        }
    }

    /// What the run is worth, once all that it made is kept.
    async fn outcome(&mut self, ended: &Ended) -> Result<serde_json::Value, Fault> {
        if ended.told == Some(Told::HandOver) {
            self.keep_all().await?;
            return Err(Fault::HandedOver);
        }
        let command = self.attempt.command;
        let journal = Arc::clone(&self.keeping.keeper.journal);
        if ended.code == 0 && !ended.is_over {
            return Ok(json!({
                "command": self.attempt.job.task,
                "attempts": self.keeping.note.attempts,
                "ran_seconds": self.ran() / 1_000,
                "stopped_at_soft_max": ended.told.is_some(),
                "metrics": journal.last_metrics(),
            }));
        }
        let is_late = ended.is_over || ended.told.is_some();
        let (code, text, hint) = if is_late {
            let most = if ended.is_over { command.hard_max } else { command.soft_max };
            let text = format!("it ran for longer than {}", show_duration(most));
            (
                "command.timeout",
                text,
                "raise `soft_max` and `hard_max` of the command, or give it less to do",
            )
        } else {
            let text = format!("it ended with exit code {}: {}", ended.code, journal.last_line());
            ("command.failed", text, "see its log; `retry_exit_codes` has a command run again")
        };
        let hint = Some(self.with_log(hint).await);
        Err(Fault::Input(JobFailure { code: code.to_owned(), message: text, hint }))
    }

    /// A program that has ended well is not run again, whatever its output is: that is the job's error.
    async fn output_failure(&mut self, error: &SnapshotError) -> Fault {
        let mut fault = output_failure(error);
        if let Fault::Input(JobFailure { hint: Some(hint), .. }) = &mut fault {
            *hint = self.with_log(hint).await;
        }
        fault
    }

    /// A hint that says where the log is, which is kept first.
    async fn with_log(&mut self, hint: &str) -> String {
        let log = self.keeping.keep_log().await;
        log.map_or_else(|| hint.to_owned(), |uri| format!("{hint}; the log: {uri}"))
    }

    /// Keeps checkpoint and log now, after what is being kept. While a store fails the earlier ones stay.
    async fn keep_all(&mut self) -> Result<(), Fault> {
        let ran = self.ran();
        let all = async {
            self.keeping.finish().await?;
            self.keeping.begin(What::All, ran);
            self.keeping.finish().await
        };
        tokio::select! {
            biased;
            () = self.attempt.cancel.cancelled() => Err(Fault::Cancelled),
            kept = all => kept,
        }
    }

    /// How long all attempts have run, in milliseconds.
    fn ran(&self) -> i64 {
        let here = i64::try_from(self.ran_from.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.keeping.ran_before.saturating_add(here)
    }

    /// When all attempts together have run for so long.
    fn until(&self, most: TimeDelta) -> Instant {
        let left = most - TimeDelta::milliseconds(self.keeping.ran_before);
        self.ran_from + std_time(left)
    }
}

/// What keeps a job's checkpoint and log, beside its run.
struct Keeping {
    keeper: Arc<Keeper>,
    note: Note,
    ran_before: i64,
    /// What the last kept checkpoint had.
    kept: Vec<Entry>,
    log_bytes: u64,
    under_way: Option<JoinHandle<Kept>>,
}

/// What is to be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Log,
    /// The checkpoint, too, if its files have changed.
    Changed,
    /// In any case.
    All,
}

/// What was kept, or why not.
struct Kept {
    checkpoint: Option<Result<Vec<Entry>, SnapshotError>>,
    log_bytes: u64,
}

impl Keeping {
    fn new(keeper: Arc<Keeper>, note: Note) -> Self {
        // What was restored need not be kept again.
        let kept = entries(&keeper.checkpoint).unwrap_or_default();
        Self { keeper, ran_before: note.ran_millis, note, kept, log_bytes: 0, under_way: None }
    }

    /// Begins to keep it, unless something is being kept.
    fn begin(&mut self, what: What, ran_millis: i64) {
        if self.under_way.is_some() {
            return;
        }
        self.note.ran_millis = ran_millis;
        let (keeper, note) = (Arc::clone(&self.keeper), self.note.clone());
        let log_bytes = self.log_bytes;
        let before = (what == What::Changed).then(|| self.kept.clone());
        self.under_way = Some(tokio::spawn(async move {
            let checkpoint = match what {
                What::Log => None,
                What::Changed | What::All => keeper.keep_checkpoint(note.clone(), before).await,
            };
            keeper.keep_note(&note).await;
            Kept { checkpoint, log_bytes: keeper.keep_log(log_bytes).await }
        }));
    }

    /// Completes once what is under way is done; never if there is nothing.
    async fn done(&mut self) -> Result<(), Fault> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let kept = under_way.await;
        self.under_way = None;
        let Ok(kept) = kept else { return Ok(()) };
        self.log_bytes = kept.log_bytes;
        match kept.checkpoint {
            Some(Ok(entries)) => self.kept = entries,
            Some(Err(error)) => return Err(snapshot_fault("its checkpoint", &error)),
            None => {}
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Fault> {
        if self.under_way.is_some() { self.done().await } else { Ok(()) }
    }

    /// Keeps the log, and returns its URI if that works.
    async fn keep_log(&mut self) -> Option<String> {
        let _ = self.finish().await;
        self.keeper.keep(LOG, &self.keeper.journal.files()[0].0).await.ok()
    }
}

impl Drop for Keeping {
    /// What is packed from here on may be of a folder that is being deleted.
    fn drop(&mut self) {
        if let Some(under_way) = &self.under_way {
            under_way.abort();
        }
    }
}

struct Keeper {
    files: Arc<dyn FileStore>,
    job: Job,
    checkpoint: PathBuf,
    archive: PathBuf,
    note: PathBuf,
    mib_max: u32,
    journal: Arc<Journal>,
}

impl Keeper {
    /// Keeps the checkpoint unless its files are those of `before`; `None` also if disk or store fail: the next time is the retry.
    async fn keep_checkpoint(
        self: &Arc<Self>,
        note: Note,
        before: Option<Vec<Entry>>,
    ) -> Option<Result<Vec<Entry>, SnapshotError>> {
        let keeper = Arc::clone(self);
        let packing = tokio::task::spawn_blocking(move || {
            if let Some(before) = before
                && entries(&keeper.checkpoint)? == before
            {
                return Ok(None);
            }
            pack(&keeper.checkpoint, Some(&note), &keeper.archive, keeper.mib_max).map(Some)
        });
        let packed = match packing.await.ok()? {
            Ok(packed) => packed?,
            Err(SnapshotError::Disk(error)) => {
                tracing::warn!(job = %self.job.id, %error, "its checkpoint could not be packed; the earlier one stays");
                return None;
            }
            Err(error) => return Some(Err(error)),
        };
        match self.keep(CHECKPOINT, &self.archive).await {
            Ok(_) => {
                tracing::debug!(job = %self.job.id, stage = "checkpoint_kept");
                Some(Ok(packed))
            }
            Err(error) => {
                tracing::warn!(job = %self.job.id, %error, "its checkpoint could not be kept; the earlier one stays");
                None
            }
        }
    }

    /// Keeps how long the job has run, also where its program has saved nothing: its limits count that.
    async fn keep_note(&self, note: &Note) {
        let written = serde_json::to_vec(note).map_err(std::io::Error::from);
        let written = written.and_then(|text| std::fs::write(&self.note, text));
        let kept = match written {
            Ok(()) => self.keep(NOTE, &self.note).await.map(drop).map_err(|e| with_causes(&e)),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = kept {
            tracing::warn!(job = %self.job.id, error, "its time could not be kept; the next time is the retry");
        }
    }

    /// Keeps log and metrics if they have grown from this many bytes, and returns how many there are.
    async fn keep_log(&self, before: u64) -> u64 {
        let [(log, log_bytes), (metrics, metric_bytes)] = self.journal.files();
        let bytes = log_bytes + metric_bytes;
        if bytes == before {
            return before;
        }
        for (name, path) in [(LOG, log), (METRICS, metrics)] {
            if let Err(error) = self.keep(name, &path).await {
                tracing::warn!(job = %self.job.id, %error, "its log could not be kept; the next time is the retry");
                return before;
            }
        }
        bytes
    }

    async fn keep(&self, name: &str, path: &Path) -> Result<String, PortError> {
        let (job, generation) = (&self.job.id, self.job.generation);
        self.files.keep_working(&WorkingFile { job, generation, name, path }).await
    }
}

/// Whose fault it is that files cannot be packed or restored.
fn snapshot_fault(what: &str, error: &SnapshotError) -> Fault {
    let failure = |code: &str, hint: &str| {
        Fault::Input(JobFailure {
            code: code.to_owned(),
            message: format!("{what} cannot be kept: {error}"),
            hint: Some(hint.to_owned()),
        })
    };
    match error {
        SnapshotError::TooLarge { .. } | SnapshotError::TooMany => failure(
            "command.full",
            "delete what it does not need, or raise `checkpoint_mib_max` or `output_mib_max` of the command",
        ),
        SnapshotError::Damaged(_) => Fault::Input(JobFailure {
            code: "command.checkpoint".to_owned(),
            message: format!("{what} cannot be used: {error}"),
            hint: Some("`gpuctl retry` begins it anew".to_owned()),
        }),
        SnapshotError::Disk(error) => disk(error),
    }
}

/// Why there is no result of a program that has ended well.
fn output_failure(error: &SnapshotError) -> Fault {
    let SnapshotError::Disk(cause) = error else { return snapshot_fault("its output", error) };
    let hint = if cause.kind() == std::io::ErrorKind::StorageFull {
        "the box needs room for the output folder twice: a larger disk, or less output; `gpuctl retry` runs it again"
    } else {
        "see that the output folder stays, that the worker may read all in it, and that names are UTF-8; `gpuctl retry` runs it again"
    };
    Fault::Input(JobFailure {
        code: "command.output".to_owned(),
        message: format!("it ended well, but its output cannot be kept: {cause}"),
        hint: Some(hint.to_owned()),
    })
}

fn disk(error: &std::io::Error) -> Fault {
    Fault::Box(BoxFault {
        code: "command.disk".to_owned(),
        message: format!("the folder in which commands run cannot be used: {error}"),
        hint: Some("free some disk, and check the owner of the state folder".to_owned()),
    })
}

fn unreachable_files(error: &PortError) -> Fault {
    Fault::Box(BoxFault {
        code: "files.unreachable".to_owned(),
        message: format!("the job's checkpoint cannot be fetched: {}", with_causes(error)),
        hint: error.hint.clone(),
    })
}

fn std_time(span: TimeDelta) -> Duration {
    span.to_std().unwrap_or_default()
}
