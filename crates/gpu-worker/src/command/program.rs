//! A program that runs for hours, started by a launcher (`gpu-worker exec`) that stays beside it: whatever it has started ends with it, and with this
//! worker.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::journal::{Journal, Source};

/// How long what a program said is still read once it has ended: something that is not a descendant may have its pipes.
const SAID_TIME_MAX: Duration = Duration::from_secs(5);

/// A running program. Dropping it kills it with all that it has started.
pub(super) struct Program {
    /// To the launcher: see there what it takes.
    orders: Option<ChildStdin>,
    ended: oneshot::Receiver<io::Result<Option<i32>>>,
}

impl Program {
    /// Starts its launcher; each line that it prints goes into the journal.
    pub(super) fn start(mut launcher: Command, journal: Arc<Journal>) -> io::Result<Self> {
        launcher.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut launcher = launcher.process_group(0).spawn()?;
        let orders = launcher.stdin.take();
        let (tell_ended, ended) = oneshot::channel();
        std::thread::Builder::new().name("command".to_owned()).spawn(move || {
            let _ = tell_ended.send(wait(launcher, &journal));
        })?;
        Ok(Self { orders, ended })
    }

    /// Its exit code, once nothing of it is left; 128 and the signal's number where one killed it. `None` where its launcher was killed, also by
    /// itself since the kernel keeps what it killed: something may be left then.
    pub(super) async fn ended(&mut self) -> io::Result<Option<i32>> {
        (&mut self.ended).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Sends SIGTERM to the program alone.
    pub(super) fn tell(&mut self) {
        if let Some(orders) = &mut self.orders {
            // A launcher that does not take it has ended.
            let _ = orders.write_all(b"t");
        }
    }

    /// Kills it with all that it has started.
    pub(super) fn kill(&mut self) {
        self.orders = None;
    }
}

fn wait(mut launcher: Child, journal: &Arc<Journal>) -> io::Result<Option<i32>> {
    let (stdout, stderr) = (launcher.stdout.take(), launcher.stderr.take());
    let read = [
        stdout.map(|pipe| journal.read_from(pipe, Source::Stdout)),
        stderr.map(|pipe| journal.read_from(pipe, Source::Stderr)),
    ];
    let status = launcher.wait()?;
    let until = Instant::now() + SAID_TIME_MAX;
    for done in read.into_iter().flatten() {
        let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
    Ok(status.code())
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
