//! `gpu-worker serve --gpus`: a worker for each GPU, each a process of its own, which is started again when it crashes.
//!
//! A worker that ends for a reason ends for the whole box, and none is started again after it: the workers agree among themselves which one
//! is last and powers the box off.

use std::error::Error;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use gpu_inference::VISIBLE;
use gpuctl_control::log::shown;
use gpuctl_worker::WorkerExit;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::gpus::Gpu;
use crate::WRONG_CONFIGURATION;

/// Once the workers of all GPUs have crashed this often in a row, each time within `STEADY_AFTER` of their start, the box is given up.
const CRASHES_MAX: u32 = 5;
/// A worker that was up for this long did not fail at its start.
const STEADY_AFTER: Duration = Duration::from_secs(10 * 60);
/// The wait before the first restart; it doubles with each crash.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(5 * 60);
/// From this signal on workers are killed. The first two they get as they are: they drain, and end at once.
const KILLED_FROM: u32 = 3;
/// Where no worker ended for a reason: the service manager restarts a crashed process, and knows when to give up.
const CRASHED: u8 = 1;

/// Runs a worker on each GPU until all have ended, and returns the exit code for the box. `command` is that of a worker, but for its GPU.
pub(crate) fn supervise(
    gpus: &[Gpu],
    command: impl Fn() -> io::Result<Command>,
) -> Result<u8, Box<dyn Error>> {
    // On this thread alone: the kernel tells a child of the end of the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let state = watch::Sender::new(State { steady: gpus.len(), ..State::default() });
        let mut keepers = JoinSet::new();
        for gpu in gpus {
            let mut command = command()?;
            command.arg("--device-index").arg(gpu.number.to_string());
            // Ctrl-C reaches this process alone, which passes it on: twice would end a worker at once.
            command.process_group(0);
            if let Some(name) = &gpu.visible {
                command.env(VISIBLE, name);
            }
            let keeper = Keeper { gpu: gpu.number, command, crashes: 0, state: state.clone() };
            keepers.spawn(keeper.keep());
        }
        let mut signals = JoinSet::new();
        signals.spawn(pass_on(signal(SignalKind::terminate())?, state.clone()));
        signals.spawn(pass_on(signal(SignalKind::interrupt())?, state.clone()));
        let ends = keepers.join_all().await;
        Ok(exit_code(&ends, state.borrow().is_told))
    })
}

/// What all of a box's workers are told.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How often the workers are to be signalled.
    signals: u32,
    /// Whether a signal came from outside.
    is_told: bool,
    /// Whether a worker has ended for a reason.
    is_ending: bool,
    /// How many GPUs have a worker that did not crash `CRASHES_MAX` times in a row.
    steady: usize,
}

impl State {
    /// Whether no worker is started again.
    fn is_over(&self) -> bool {
        self.is_ending || self.signals > 0 || self.steady == 0
    }
}

async fn pass_on(mut signals: tokio::signal::unix::Signal, state: watch::Sender<State>) {
    while signals.recv().await.is_some() {
        state.send_modify(|state| {
            state.signals += 1;
            state.is_told = true;
        });
    }
}

/// The exit code for the box, by how each worker ended; those that crashed and were not started again have none. A box stays where it was
/// told to stop, or is interrupted; else it goes off if any worker ended so.
fn exit_code(ends: &[Option<u8>], is_told: bool) -> u8 {
    let interrupted = WorkerExit::Interrupted.code();
    if is_told {
        return WorkerExit::ToldToStop.code();
    }
    if ends.contains(&Some(interrupted)) {
        return interrupted;
    }
    ends.iter().copied().flatten().max().unwrap_or(CRASHED)
}

/// Keeps the worker of one GPU running.
struct Keeper {
    gpu: u32,
    command: Command,
    /// How often the worker has crashed in a row.
    crashes: u32,
    state: watch::Sender<State>,
}

impl Keeper {
    /// Returns the worker's exit code once it has ended for a reason; none if it crashed, and is not started again.
    async fn keep(mut self) -> Option<u8> {
        loop {
            let ended = self.run_worker().await;
            if let Some(code) = ended.as_ref().ok().and_then(|status| self.reason(*status)) {
                self.end_box(code);
                return Some(code);
            }
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            self.count_crash();
            let wait = restart_after(self.crashes);
            let (gpu, how, seconds) = (self.gpu, shown(how), wait.as_secs());
            tracing::error!(gpu, "the worker ended by itself: {how}; restarting it in {seconds} s");
            let mut state = self.state.subscribe();
            tokio::select! {
                biased;
                _ = state.wait_for(State::is_over) => return None,
                () = sleep(wait) => {}
            }
        }
    }

    async fn run_worker(&mut self) -> io::Result<ExitStatus> {
        let mut worker = self.command.spawn()?;
        tracing::info!(gpu = self.gpu, pid = worker.id(), "started a worker");
        let steady_at = Instant::now() + STEADY_AFTER;
        let mut state = self.state.subscribe();
        let mut passed_on = 0;
        loop {
            tokio::select! {
                biased;
                ended = worker.wait() => return ended,
                _ = state.wait_for(|state| state.signals > passed_on) => {
                    passed_on += 1;
                    send(&worker, if passed_on < KILLED_FROM { Signal::TERM } else { Signal::KILL });
                }
                () = tokio::time::sleep_until(steady_at), if self.crashes > 0 => self.count_steady(),
            }
        }
    }

    fn count_crash(&mut self) {
        self.crashes += 1;
        if self.crashes == CRASHES_MAX {
            self.state.send_modify(|state| state.steady -= 1);
        }
    }

    fn count_steady(&mut self) {
        if self.crashes >= CRASHES_MAX {
            self.state.send_modify(|state| state.steady += 1);
        }
        self.crashes = 0;
    }

    /// The exit code of a worker that ended for a reason. One that a user stopped directly, and not through this process, is started again.
    fn reason(&self, status: ExitStatus) -> Option<u8> {
        let code = status.code().and_then(|code| u8::try_from(code).ok())?;
        match WorkerExit::of_code(code) {
            Some(WorkerExit::ToldToStop) if self.state.borrow().signals == 0 => None,
            Some(_) => Some(code),
            None => (code == WRONG_CONFIGURATION).then_some(code),
        }
    }

    /// The others are not started again and, where the configuration is wrong for them, too, ended.
    fn end_box(&self, code: u8) {
        self.state.send_modify(|state| {
            state.is_ending = true;
            state.signals += u32::from(code == WRONG_CONFIGURATION && state.signals == 0);
        });
    }
}

fn restart_after(crashes: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(crashes.saturating_sub(1));
    RESTART_AFTER.saturating_mul(doubled).min(RESTART_AFTER_MAX)
}

fn send(worker: &Child, signal: Signal) {
    let pid = worker.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    if let Some(pid) = pid {
        // One that has ended meanwhile needs no signal.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_ends_for_the_reason_of_its_workers() {
        let cases: [(&[Option<u8>], bool, u8); 8] = [
            (&[Some(10), Some(10)], false, 10),
            (&[Some(15), None], false, 15),
            // No user told the box to stop: a worker that was ended by hand does not keep it on.
            (&[Some(10), Some(0)], false, 10),
            (&[Some(15), Some(2)], false, 15),
            (&[Some(0), Some(2)], false, 2),
            (&[Some(12), Some(14)], false, 12),
            (&[None, None], false, 1),
            (&[Some(10), None], true, 0),
        ];
        for (ends, is_told, code) in cases {
            assert_eq!(exit_code(ends, is_told), code, "{ends:?} {is_told}");
        }
    }

    #[test]
    fn restarts_come_later_each_time_up_to_the_longest_wait() {
        let waits = [1, 2, 5, 9, 10, 99].map(|crashes| restart_after(crashes).as_secs());
        assert_eq!(waits, [1, 2, 16, 256, 300, 300]);
    }
}
