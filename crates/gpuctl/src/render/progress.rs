//! The progress of a wait: a bar on a terminal, plain lines elsewhere, nothing under `--json`.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::Duration;

use gpuctl_control::Reconciled;
use indicatif::{ProgressBar, ProgressStyle};

use super::words::{escaped_line, jobs_of};
use super::{Format, action_lines, to_stderr};

/// How often the clock and the spinner of a wait move, also while nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// The progress of `submit --wait`.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    format: Format,
    jobs: usize,
    done: Cell<usize>,
    told: RefCell<String>,
}

impl Progress {
    pub(super) fn new(jobs: usize, format: Format) -> Self {
        let bar = (format == Format::Text && std::io::stderr().is_terminal()).then(|| {
            let template = "{spinner} {bar:20} {pos}/{len} jobs  {elapsed}  {wide_msg}";
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::new(jobs as u64)
                .with_style(style.expect("the template is a constant and valid"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, format, jobs, done: Cell::new(0), told: RefCell::default() }
    }

    /// The number of finished jobs. Their results come on standard output at the end.
    pub(crate) fn done(&self, done: usize) {
        if self.done.replace(done) == done {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None => self.line(&format!("{done} of {} done", jobs_of(self.jobs as u64))),
        }
    }

    /// Prints what a reconcile did.
    pub(crate) fn reconciled(&self, reconciled: &Reconciled) {
        for line in action_lines(reconciled) {
            self.line(&line);
        }
    }

    /// Says what the jobs wait for. Elsewhere than on a terminal once for each cause: its figures change all the time.
    pub(crate) fn waits_for(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(escaped_line(what));
            return;
        }
        let cause = what.split([',', ':', ';']).next().unwrap_or_default();
        if self.told.replace(cause.to_owned()) != cause {
            self.line(what);
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(escaped_line(line)),
            None if self.format == Format::Json => {}
            None => to_stderr(&escaped_line(line)),
        }
    }
}

/// The progress of a fault simulation.
pub(crate) struct Weeks(Option<ProgressBar>);

impl Weeks {
    pub(super) fn new(weeks: u64, format: Format) -> Self {
        let bar = (format == Format::Text && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} weeks  {elapsed} {msg}");
            ProgressBar::new(weeks).with_style(style.expect("the template is a constant and valid"))
        });
        Self(bar)
    }

    pub(crate) fn week_done(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    pub(crate) fn shrinking(&self) {
        if let Some(bar) = &self.0 {
            bar.set_message("a guarantee is violated: shrinking the week");
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
