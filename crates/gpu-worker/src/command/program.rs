//! A program that runs for hours: in a process group of its own, which ends with it, and with this worker.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::oneshot;

use super::journal::{Journal, Source};

/// How long what a program said is still read once it has ended: something that left its group may keep its pipes.
const SAID_TIME_MAX: Duration = Duration::from_secs(5);
/// Added to a signal's number, as shells do.
const SIGNALLED: i32 = 128;

/// A running program. Dropping it kills its group.
pub(super) struct Program {
    /// `None` once it has been waited for: its id may be another's then.
    group: Arc<Mutex<Option<Pid>>>,
    ended: oneshot::Receiver<io::Result<i32>>,
}

impl Program {
    /// Starts it; each line that it prints goes into the journal.
    pub(super) async fn start(command: Command, journal: Arc<Journal>) -> io::Result<Self> {
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        // The thread lives as long as the program: the kernel tells a child of the end of the thread that started it.
        std::thread::Builder::new().name("command".to_owned()).spawn(move || {
            match spawn(command) {
                Ok(child) => {
                    let group = Arc::new(Mutex::new(Some(Pid::from_child(&child))));
                    let _ = tell_started.send(Ok(Arc::clone(&group)));
                    let _ = tell_ended.send(wait(child, &group, &journal));
                }
                Err(error) => drop(tell_started.send(Err(error))),
            }
        })?;
        let group = started.await.map_err(io::Error::other)??;
        Ok(Self { group, ended })
    }

    /// Its exit code, once it has ended; 128 and the signal's number where one killed it.
    pub(super) async fn ended(&mut self) -> io::Result<i32> {
        (&mut self.ended).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    pub(super) fn signal(&self, signal: Signal) {
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *group {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn spawn(mut command: Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).spawn()
}

fn wait(mut child: Child, group: &Mutex<Option<Pid>>, journal: &Arc<Journal>) -> io::Result<i32> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = [
        stdout.map(|pipe| journal.read_from(pipe, Source::Stdout)),
        stderr.map(|pipe| journal.read_from(pipe, Source::Stderr)),
    ];
    let pid = Pid::from_child(&child);
    // Until it is waited for, below, its id is its own, and so is its group's.
    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let _ = kill_process_group(pid, Signal::KILL);
    group.lock().unwrap_or_else(PoisonError::into_inner).take();
    let status = child.wait()?;
    let until = Instant::now() + SAID_TIME_MAX;
    for done in read.into_iter().flatten() {
        let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
    let signalled = || status.signal().map(|signal| SIGNALLED + signal);
    status.code().or_else(signalled).ok_or_else(|| io::Error::other("it ended in no known way"))
}

impl Journal {
    /// Reads on a thread of its own until the pipe ends, and then says so.
    fn read_from(
        self: &Arc<Self>,
        pipe: impl io::Read + Send + 'static,
        source: Source,
    ) -> Receiver<()> {
        let (done, receiver) = channel();
        let journal = Arc::clone(self);
        std::thread::spawn(move || {
            journal.read(pipe, source);
            let _ = done.send(());
        });
        receiver
    }
}
