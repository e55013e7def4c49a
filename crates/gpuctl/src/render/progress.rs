//! The progress of a wait: a bar on a terminal, plain lines elsewhere, nothing under `--json`.

use std::cell::Cell;
use std::io::IsTerminal;

use gpuctl_control::Reconciled;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_core::plan::Rule;
use indicatif::{ProgressBar, ProgressStyle};

use super::words::escaped_line;
use super::{Format, action_lines, jobs, to_stderr};

/// The progress of `submit --wait`.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    format: Format,
    blocked_by: Cell<Option<Rule>>,
}

impl Progress {
    pub(super) fn new(jobs: usize, format: Format) -> Self {
        let bar = (format == Format::Text && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} jobs  {elapsed}");
            ProgressBar::new(jobs as u64)
                .with_style(style.expect("the template is a constant and valid"))
        });
        Self { bar, format, blocked_by: Cell::default() }
    }

    /// A job has finished.
    pub(crate) fn job_done(&self, job: &JobDocument) {
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => self.line(&jobs::job_line(job)),
        }
    }

    /// Prints what a reconcile did.
    pub(crate) fn reconciled(&self, reconciled: &Reconciled) {
        for line in action_lines(reconciled) {
            self.line(&line);
        }
        let blocked = reconciled.plan.pools.iter().flat_map(|pool| &pool.blocked).next();
        let rule = blocked.map(|reason| reason.rule);
        // Printed once per rule: its sentence counts down and changes with every reconcile.
        if self.blocked_by.replace(rule) != rule
            && let Some(reason) = blocked
        {
            self.line(&format!("blocked by {}: {}", reason.rule.as_str(), reason.text));
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
