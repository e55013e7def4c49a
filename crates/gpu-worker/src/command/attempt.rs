//! One attempt at a job that runs a command: restore, run, keep its checkpoint and log as it goes, and what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::job::{Job, JobFailure};
use gpuctl_control::ports::{Clock, Fetched};
use gpuctl_core::policy::Command;
use gpuctl_core::units::show_duration;
use gpuctl_worker::{BoxFault, Cancel, Fault, Inferred};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::fault::{disk, output_failure};
use super::folders::{Folders, outputs};
use super::journal::Journal;
use super::keeping::{Keeper, Keeping, What};
use super::program::Program;
use super::snapshot::SnapshotError;
use super::{Commands, secrets};

/// How often the log is kept, if it has grown.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// The first wait before it is run again for its exit code; it doubles, up to the other.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5 * 60);
/// What ends with an error in so short a time, and has saved nothing, may not be able to read its checkpoint.
const FAILS_AT_ONCE_MAX: Duration = Duration::from_secs(10 * 60);
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
    /// When it was killed, if it was.
    killed_at: Option<SystemTime>,
}

impl Ended {
    /// By itself.
    fn failed(&self) -> bool {
        self.code != 0 && self.told.is_none() && !self.is_over
    }
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
            folders: &folders,
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
    folders: &'a Folders,
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
            let began = Instant::now();
            let ended = self.once().await?;
            let code = u32::try_from(ended.code).unwrap_or_default();
            let is_again = command.retry_exit_codes.contains(&code)
                && ended.told.is_none()
                && !ended.is_over
                && self.keeping.note.retries < command.retries_max;
            if !is_again {
                let is_at_once = ended.failed() && began.elapsed() < FAILS_AT_ONCE_MAX;
                if is_at_once && self.go_back().await? {
                    continue;
                }
                return Ok(ended);
            }
            self.keeping.note.retries += 1;
            let text = format!(
                "ended with {code}: run again, for the {}. time",
                self.keeping.note.retries
            );
            self.keeping.keeper.journal.say(&text);
            self.keep_all(None).await?;
            tokio::select! {
                biased;
                () = self.attempt.cancel.cancelled() => return Err(Fault::Cancelled),
                () = self.attempt.commands.handed_over.cancelled() => return Err(Fault::HandedOver),
                () = sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_AFTER_MAX);
        }
    }

    /// Puts the checkpoint before the one that it began with in place, if it failed without saving anything: that one may be torn.
    async fn go_back(&mut self) -> Result<bool, Fault> {
        let Some(slot) = self.keeping.before() else { return Ok(false) };
        if !matches!(self.attempt.put_in_place(self.folders, slot).await?, Some(Ok(_))) {
            return Ok(false);
        }
        self.keeping.went_back(slot);
        let text = "failed at once with its checkpoint: goes on from the one before";
        self.keeping.keeper.journal.say(text);
        Ok(true)
    }

    /// Runs it once, and keeps what it makes meanwhile.
    async fn once(&mut self) -> Result<Ended, Fault> {
        let Attempt { command, cancel, commands, .. } = *self.attempt;
        let (soft, hard) = (self.until(command.soft_max), self.until(command.hard_max));
        let journal = Arc::clone(&self.keeping.keeper.journal);
        let process = (self.program)(self.keeping.note.attempts);
        let mut program = Program::start(process, journal).map_err(|e| disk(&e))?;
        let (mut told, mut kill_at, mut killed_at) = (None, hard, None);
        let mut checkpoint_at = Instant::now() + std_time(command.checkpoint_every);
        let mut log_at = Instant::now() + LOG_EVERY;
        let mut is_over = Instant::now() >= hard;
        loop {
            let tick = checkpoint_at.min(log_at);
            tokio::select! {
                biased;
                code = program.ended() => {
                    let code = code.map_err(|e| disk(&e))?.ok_or(Fault::Hung)?;
                    return Ok(Ended { code, told, is_over, killed_at });
                }
                () = cancel.cancelled() => return Err(all_killed(&mut program, Fault::Cancelled).await),
                () = commands.handed_over.cancelled(), if told != Some(Told::HandOver) => {
                    program.tell();
                    kill_at = kill_at.min(Instant::now() + std_time(command.grace));
                    told = Some(Told::HandOver);
                }
                () = sleep_until(kill_at) => {
                    is_over |= told != Some(Told::HandOver);
                    killed_at.get_or_insert_with(|| SystemClock.now().into());
                    program.kill();
                    // It ends now: if the kernel does not let it, its launcher says so.
                    kill_at = Instant::now() + LOG_EVERY;
                }
                () = sleep_until(soft), if told.is_none() => {
                    program.tell();
                    told = Some(Told::SoftMax);
                }
                kept = self.keeping.done() => if let Err(fault) = kept {
                    return Err(all_killed(&mut program, fault).await);
                },
                // What it saves at the last is stored once it has ended.
                () = sleep_until(tick), if told != Some(Told::HandOver) => {
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
            self.keep_all(ended.killed_at).await?;
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
    async fn keep_all(&mut self, killed_at: Option<SystemTime>) -> Result<(), Fault> {
        let ran = self.ran();
        let all = async {
            self.keeping.finish().await?;
            self.keeping.begin(What::All { killed_at }, ran);
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

fn std_time(span: TimeDelta) -> Duration {
    span.to_std().unwrap_or_default()
}

/// Ends a program for this reason. Its folder, and the GPU, are free only once nothing of it is left.
async fn all_killed(program: &mut Program, reason: Fault) -> Fault {
    program.kill();
    let left = matches!(program.ended().await, Ok(None));
    if left { Fault::Hung } else { reason }
}
