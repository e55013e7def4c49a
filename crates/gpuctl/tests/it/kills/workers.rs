//! The workers' processes: started, their logs followed, signalled, and started again when they have ended.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::kills::journal::{Journal, Life};
use crate::kills::killer::{How, Killer};
use crate::kills::place::Place;

/// The workers that share the queue.
const WORKERS: usize = 3;
/// How often it is looked whether all is done while no worker says anything.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a process is told beside the stages.
const LOG: &str = "info,ort=warn,gpuctl_worker=debug";

/// What a worker logs when it begins to drain.
const DRAINS: &str = "draining: ";

/// What the threads that read the logs tell.
enum Event {
    Line {
        life: usize,
        text: String,
    },
    /// The log has ended, and so has its process.
    Closed {
        life: usize,
    },
}

/// A process, killed when this is dropped.
struct Worker {
    child: Child,
    life: usize,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The workers of one place, and what is seen of them.
pub(super) struct Workers<'a, 'r> {
    place: &'a dyn Place,
    killer: &'a mut Killer<'r>,
    journal: &'a mut Journal,
    told: Sender<Event>,
    events: Receiver<Event>,
    running: Vec<Worker>,
    /// Set when this is dropped, so that the thread that feeds the workers ends as well.
    over: &'a AtomicBool,
}

impl Drop for Workers<'_, '_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl<'a, 'r> Workers<'a, 'r> {
    pub(super) fn start(
        place: &'a dyn Place,
        killer: &'a mut Killer<'r>,
        journal: &'a mut Journal,
        over: &'a AtomicBool,
    ) -> Self {
        let (told, events) = channel();
        let running = Vec::new();
        let mut workers = Self { place, killer, journal, told, events, running, over };
        for number in 0..WORKERS {
            let worker = workers.spawn(number);
            workers.running.push(worker);
        }
        workers
    }

    fn spawn(&mut self, number: usize) -> Worker {
        let (mut command, box_name) = self.place.worker(number);
        let mut child = command
            .env("GPUCTL_LOG", LOG)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let life = self.journal.begin(box_name);
        let (log, told) = (child.stderr.take().unwrap(), self.told.clone());
        std::thread::spawn(move || read(log, life, &told));
        Worker { child, life }
    }

    /// Goes on until it is done, and ends the workers in order then.
    pub(super) fn follow(&mut self, until: Instant, is_done: impl Fn() -> bool) {
        while !is_done() {
            assert!(Instant::now() < until, "not in time; {}", self.killer.summary());
            self.wait_for_event(true);
        }
        for index in 0..self.running.len() {
            let life = &self.journal.lives[self.running[index].life];
            // One that drains already would end at once.
            if life.signals.is_empty() {
                self.signal(index, How::Term);
            }
        }
        while self.journal.lives.iter().any(|life| life.ended.is_none()) {
            assert!(Instant::now() < until, "a worker does not end");
            self.wait_for_event(false);
        }
    }

    fn wait_for_event(&mut self, goes_on: bool) {
        match self.events.recv_timeout(LOOK_EVERY) {
            Ok(Event::Line { life, text }) => self.hear(life, text, goes_on),
            Ok(Event::Closed { life }) => self.end(life, goes_on),
            Err(_) => {}
        }
    }

    fn hear(&mut self, life: usize, text: String, goes_on: bool) {
        let drains = text.contains(DRAINS);
        let step = self.journal.note(life, text);
        let Some(index) = self.running.iter().position(|worker| worker.life == life) else {
            return;
        };
        if drains && self.journal.lives[life].signals.contains(&How::TermTwice) {
            // Not at once after the first: the kernel makes one of two signals that wait.
            send(&self.running[index].child, Signal::TERM);
        }
        let Some(step) = step.filter(|_| goes_on) else { return };
        if let Some(how) = self.killer.choose(&step, life, self.journal) {
            self.signal(index, how);
        }
    }

    fn signal(&mut self, index: usize, how: How) {
        let Worker { child, life } = &self.running[index];
        self.journal.lives[*life].signals.push(how);
        send(child, if how == How::Kill { Signal::KILL } else { Signal::TERM });
    }

    fn end(&mut self, life: usize, goes_on: bool) {
        let index = self.running.iter().position(|worker| worker.life == life).unwrap();
        let status = self.running[index].child.wait().unwrap();
        self.journal.end(life, status);
        let ended = &self.journal.lives[life];
        assert!(
            is_expected(ended, status),
            "{} ended with {status} after {:?}:\n{}",
            ended.box_name,
            ended.signals,
            self.journal.tail(life)
        );
        if goes_on {
            self.running[index] = self.spawn(index);
        }
    }
}

/// It may have ended by an earlier signal. It was not waited for, so its id is its own still.
fn send(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

/// Whether a process may end like that after its signals.
fn is_expected(life: &Life, status: ExitStatus) -> bool {
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::KILL) => life.signals.contains(&How::Kill),
        // Before it has begun to listen for signals.
        Some(Signal::TERM) => !life.signals.is_empty() && life.steps.is_empty(),
        Some(_) => false,
        None => status.success() && !life.signals.is_empty(),
    }
}

fn read(log: ChildStderr, life: usize, told: &Sender<Event>) {
    for line in BufReader::new(log).split(b'\n') {
        let Ok(line) = line else { break };
        let text = String::from_utf8_lossy(&line).into_owned();
        // No one follows any longer once the test has ended.
        let _ = told.send(Event::Line { life, text });
    }
    let _ = told.send(Event::Closed { life });
}
