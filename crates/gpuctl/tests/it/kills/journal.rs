//! What the workers' logs say: which stages each job reached in which life of a worker, and how that life ended.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitStatus;

use crate::kills::killer::How;

/// The stages of a job, as the worker logs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Received,
    Fetched,
    Decoded,
    Inferring,
    FileKept,
    Committed,
    Acked,
}

impl Stage {
    pub(super) const ALL: [Self; 7] = [
        Self::Received,
        Self::Fetched,
        Self::Decoded,
        Self::Inferring,
        Self::FileKept,
        Self::Committed,
        Self::Acked,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Fetched => "fetched",
            Self::Decoded => "decoded",
            Self::Inferring => "inferring",
            Self::FileKept => "file_kept",
            Self::Committed => "committed",
            Self::Acked => "acked",
        }
    }
}

/// A stage that a job reached.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// As in the log, which sorts by time.
    pub(super) at: String,
    pub(super) job: String,
    pub(super) stage: Stage,
}

impl Step {
    /// The step that a line of a log tells: `TIME DEBUG gpuctl_worker::job: job=ID stage="received"`.
    fn of_line(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" stage=\"")?;
        let name = after.split('"').next()?;
        let stage = Stage::ALL.into_iter().find(|stage| stage.name() == name)?;
        let job = before.rsplit_once("job=")?.1.split(' ').next()?.to_owned();
        Some(Self { at: before.split(' ').next()?.to_owned(), job, stage })
    }
}

/// One process of a worker, from its start to its end.
pub(super) struct Life {
    pub(super) box_name: String,
    pub(super) steps: Vec<Step>,
    /// What else it logged.
    lines: Vec<String>,
    /// The signals that it was sent.
    pub(super) signals: Vec<How>,
    pub(super) ended: Option<ExitStatus>,
    /// Jobs that it received and has not acked.
    held: BTreeSet<String>,
}

impl Life {
    /// Whether it was ended before it could let go of what it held.
    pub(super) fn is_killed(&self) -> bool {
        self.signals.contains(&How::Kill) || self.signals.contains(&How::TermTwice)
    }

    /// Jobs that it received and never acked.
    pub(super) fn held(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// Whether it logged that it let go of the job.
    pub(super) fn has_let_go(&self, job: &str) -> bool {
        let of_job = self.lines.iter().filter(|line| line.contains(job));
        of_job.into_iter().any(|line| {
            ["cancelled: ", "released for another", "not acked", "to the dead letters"]
                .iter()
                .any(|text| line.contains(text))
        })
    }

    /// How often a lease was lost in it.
    pub(super) fn leases_lost(&self) -> usize {
        self.lines.iter().filter(|line| line.contains("a lease was lost")).count()
    }
}

/// All lives, in the order of their starts.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) lives: Vec<Life>,
    /// In how many lives that ended by a signal each job was held.
    deaths: BTreeMap<String, u32>,
}

impl Journal {
    /// A new life; returns its number.
    pub(super) fn begin(&mut self, box_name: String) -> usize {
        let (steps, lines, signals, held) = Default::default();
        self.lives.push(Life { box_name, steps, lines, signals, ended: None, held });
        self.lives.len() - 1
    }

    /// Notes a line of a life's log; returns the step that it tells.
    pub(super) fn note(&mut self, life: usize, line: String) -> Option<Step> {
        let life = &mut self.lives[life];
        let Some(step) = Step::of_line(&line) else {
            life.lines.push(line);
            return None;
        };
        match step.stage {
            Stage::Acked => life.held.remove(&step.job),
            _ => life.held.insert(step.job.clone()),
        };
        life.steps.push(step.clone());
        Some(step)
    }

    pub(super) fn end(&mut self, life: usize, status: ExitStatus) {
        let life = &mut self.lives[life];
        life.ended = Some(status);
        for job in &life.held {
            *self.deaths.entry(job.clone()).or_default() += 1;
        }
    }

    /// In how many lives that ended by a signal a job of this life was held, at most.
    pub(super) fn deaths_of_held(&self, life: usize, but_not: &BTreeSet<String>) -> u32 {
        let held = self.lives[life].held.difference(but_not);
        held.filter_map(|job| self.deaths.get(job)).copied().max().unwrap_or_default()
    }

    /// Every step of each job in the order of time, with the number of its life.
    pub(super) fn by_job(&self) -> BTreeMap<&str, Vec<(usize, &Step)>> {
        let mut all: BTreeMap<&str, Vec<(usize, &Step)>> = BTreeMap::new();
        for (number, life) in self.lives.iter().enumerate() {
            for step in &life.steps {
                all.entry(&step.job).or_default().push((number, step));
            }
        }
        all.values_mut().for_each(|steps| steps.sort_by(|a, b| a.1.at.cmp(&b.1.at)));
        all
    }

    /// What was seen of a job, for a failure's message.
    pub(super) fn story(&self, job: &str) -> String {
        let mut lines = Vec::new();
        for (number, life) in self.lives.iter().enumerate() {
            for step in life.steps.iter().filter(|step| step.job == job) {
                lines.push(format!("{} life {number} {}", step.at, step.stage.name()));
            }
            let of_job = life.lines.iter().filter(|line| line.contains(job));
            lines.extend(of_job.map(|line| line.replacen(' ', &format!(" life {number} "), 1)));
            if lines.last().is_some_and(|last| last.contains(&format!(" life {number} "))) {
                let Life { box_name, signals, ended, .. } = life;
                lines.push(format!("~ life {number} of {box_name}: {signals:?}, {ended:?}"));
            }
        }
        format!("{job}:\n{}", lines.join("\n"))
    }

    /// The end of a life's log, for a failure's message.
    pub(super) fn tail(&self, life: usize) -> String {
        let lines = &self.lives[life].lines;
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
