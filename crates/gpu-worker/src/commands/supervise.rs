//! `gpu-worker serve --gpus`: a worker for each GPU, each a process of its own, which is started again when it crashes.
//!
//! A worker that ends for a reason ends for the whole box, and none is started again after it: the workers agree among themselves which one
//! is last and powers the box off.

use std::error::Error;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use gpuctl_control::config::Config;
use gpuctl_control::log::shown;
use gpuctl_worker::WorkerExit;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::gpus::{Gpu, VISIBLE};
use crate::WRONG_CONFIGURATION;
use crate::backend::Backend;

/// How often in a row a worker may crash, each time within `STEADY_AFTER` of its start; then its GPU is left alone.
const CRASHES_MAX: u32 = 5;
/// A worker that was up for this long did not fail at its start.
const STEADY_AFTER: Duration = Duration::from_secs(10 * 60);
/// The wait before the first restart; it doubles with each crash.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// From this signal on workers are killed. The first two they get as they are: they drain, and end at once.
const KILLED_FROM: u32 = 3;

/// Runs a worker on each GPU until all have ended, and returns the exit code for the box. `command` is that of a worker, but for its GPU.
pub(crate) fn supervise(
    config: &Config,
    gpus: &[Gpu],
    command: impl Fn() -> io::Result<Command>,
) -> Result<u8, Box<dyn Error>> {
    // On this thread alone: the kernel tells a child of the end of the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let state = watch::Sender::new(State::default());
        let mut keepers = JoinSet::new();
        for gpu in gpus {
            let mut command = command()?;
            command.arg("--device-index").arg(gpu.number.to_string());
            // Ctrl-C reaches this process alone, which passes it on: twice would end a worker at once.
            command.process_group(0);
            if let Some(name) = &gpu.visible {
                command.env(VISIBLE, name);
            }
            let keeper = Keeper { gpu: gpu.number, command, state: state.clone() };
            keepers.spawn(keeper.keep());
        }
        let mut signals = JoinSet::new();
        signals.spawn(pass_on(signal(SignalKind::terminate())?, state.clone()));
        signals.spawn(pass_on(signal(SignalKind::interrupt())?, state.clone()));
        let ends = keepers.join_all().await;
        let code = exit_code(&ends, *state.borrow());
        if ends.iter().all(Option::is_none) && code != WorkerExit::ToldToStop.code() {
            Backend::power_off_unconnected(config).await;
        }
        Ok(code)
    })
}

/// What all of a box's workers are told.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How many signals came.
    signals: u32,
    /// Whether a worker has ended for a reason.
    is_ending: bool,
}

async fn pass_on(mut signals: tokio::signal::unix::Signal, state: watch::Sender<State>) {
    while signals.recv().await.is_some() {
        state.send_modify(|state| state.signals += 1);
    }
}

/// The exit code for the box, by how each worker ended: none crashed for good, at last.
fn exit_code(ends: &[Option<u8>], state: State) -> u8 {
    let [told, interrupted] =
        [WorkerExit::ToldToStop, WorkerExit::Interrupted].map(WorkerExit::code);
    let of_all = [WRONG_CONFIGURATION, told, interrupted];
    let first = of_all.into_iter().find(|code| ends.contains(&Some(*code)));
    let any = || ends.iter().copied().flatten().max();
    first.or_else(any).unwrap_or(match state.signals {
        0 => WorkerExit::CannotStart.code(),
        _ => told,
    })
}

/// Keeps the worker of one GPU running.
struct Keeper {
    gpu: u32,
    command: Command,
    state: watch::Sender<State>,
}

impl Keeper {
    /// Returns the worker's exit code once it has ended for a reason; none if it crashed, and is not started again.
    async fn keep(mut self) -> Option<u8> {
        let mut crashes = 0;
        loop {
            let started = Instant::now();
            let ended = self.run_worker().await;
            if let Some(code) = ended.as_ref().ok().and_then(reason) {
                self.end_box(code);
                return Some(code);
            }
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            crashes = if started.elapsed() < STEADY_AFTER { crashes + 1 } else { 1 };
            let (gpu, how) = (self.gpu, shown(how));
            if crashes >= CRASHES_MAX {
                tracing::error!(
                    gpu,
                    "the worker crashed: {how}; {crashes} times in a row, so its GPU is left alone"
                );
                return None;
            }
            let wait = RESTART_AFTER * 2_u32.pow(crashes - 1);
            tracing::error!(
                gpu,
                "the worker crashed: {how}; restarting it in {} s",
                wait.as_secs()
            );
            let mut state = self.state.subscribe();
            tokio::select! {
                biased;
                _ = state.wait_for(|state| state.is_ending || state.signals > 0) => return None,
                () = sleep(wait) => {}
            }
        }
    }

    async fn run_worker(&mut self) -> io::Result<ExitStatus> {
        let mut worker = self.command.spawn()?;
        tracing::info!(gpu = self.gpu, pid = worker.id(), "started a worker");
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
            }
        }
    }

    /// The others are not restarted, and where they cannot run either, ended.
    fn end_box(&self, code: u8) {
        self.state.send_modify(|state| {
            state.is_ending = true;
            state.signals += u32::from(code == WRONG_CONFIGURATION && state.signals == 0);
        });
    }
}

/// The exit code of a worker that did not crash.
fn reason(status: &ExitStatus) -> Option<u8> {
    let code = status.code().and_then(|code| u8::try_from(code).ok())?;
    let is_reason = code == WRONG_CONFIGURATION || WorkerExit::of_code(code).is_some();
    is_reason.then_some(code)
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
        let told = State { signals: 1, is_ending: false };
        let cases: [(&[Option<u8>], State, u8); 7] = [
            (&[Some(10), Some(10)], State::default(), 10),
            (&[Some(15), None], State::default(), 15),
            (&[None, None], State::default(), 15),
            (&[None, None], told, 0),
            (&[Some(10), Some(0)], told, 0),
            (&[Some(12), Some(14)], State::default(), 12),
            (&[Some(2), Some(0)], told, 2),
        ];
        for (ends, state, code) in cases {
            assert_eq!(exit_code(ends, state), code, "{ends:?} {state:?}");
        }
    }
}
