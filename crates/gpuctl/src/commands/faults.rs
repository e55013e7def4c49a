//! `simulate --faults`: generated weeks with injected faults, spread over the machine's cores. A week is a function of its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gpuctl_core::policy::Problems;
use gpuctl_core::suggest::did_you_mean;
use gpuctl_sim::checks::Violation;
use gpuctl_sim::faults::Fault;
use gpuctl_sim::shrink::shrink;
use gpuctl_sim::world::scenario::Only;
use gpuctl_sim::world::week::{Week, run as run_week};

use crate::arguments::FaultArguments;
use crate::documents::simulate::{FaultSimulationDocument, ViolationDocument};
use crate::failure::{Code, Exit, Failure};
use crate::render::{Output, Printer, Weeks};

/// A week and how long it took here.
type Timed = (Week, Duration);

pub(crate) fn run(wanted: &FaultArguments, printer: &Printer) -> Result<Output, Failure> {
    let only = only(wanted)?;
    let seeds = wanted.seed.map_or(0..wanted.seeds, |seed| seed..seed.saturating_add(1));
    let progress = printer.weeks(seeds.end - seeds.start);
    let weeks = all(seeds, &only, &progress).map_err(|problems| unusable(&problems))?;
    let mut document = summary(&weeks);
    let broken = weeks.iter().find_map(|(week, _)| Some((week, week.violation.as_ref()?)));
    if let Some((week, violation)) = broken {
        progress.shrinking();
        document.failure = Some(shrunk(week, violation, &only)?);
    }
    progress.finish();
    let failed = document.failure.is_some();
    let output = Output::FaultSimulation(Box::new(document));
    Ok(if failed { output.exit(Exit::Failed) } else { output })
}

/// The violation, in the smallest week that shows it.
fn shrunk(week: &Week, violation: &Violation, only: &Only) -> Result<ViolationDocument, Failure> {
    // A week has a tokio runtime of its own, which cannot start on a thread that runs another.
    let search = || shrink(week.seed, only, violation.guarantee);
    let found = std::thread::scope(|scope| scope.spawn(search).join());
    let found = found.map_err(|_| {
        Failure::new(Code::Internal, "a simulated week panicked while it was being shrunk")
    })?;
    let (smallest, small) = found.map_err(|problems| unusable(&problems))?;
    let shown = small.violation.as_ref().unwrap_or(violation);
    let command =
        |only: &Only| format!("gpuctl simulate --faults --seed {}{}", week.seed, only.flags());
    Ok(ViolationDocument {
        seed: week.seed,
        guarantee: violation.guarantee.name(),
        sentence: violation.guarantee.sentence(),
        at: shown.at.to_rfc3339(),
        what: shown.what.clone(),
        events: shown.events.clone(),
        replay: command(only),
        smallest: command(&smallest),
    })
}

fn only(wanted: &FaultArguments) -> Result<Only, Failure> {
    let mut faults = BTreeSet::new();
    for name in wanted.only.iter().filter(|name| *name != "none") {
        let fault = name.parse::<Fault>().map_err(|error| {
            let known = || Fault::ALL.iter().map(|fault| fault.name());
            let hint = did_you_mean(name, known()).unwrap_or_else(|| {
                format!("one of: none, {}", known().collect::<Vec<_>>().join(", "))
            });
            Failure::new(Code::FaultUnknown, error.to_string()).hint(hint)
        })?;
        faults.insert(fault);
    }
    let faults = (!wanted.only.is_empty()).then_some(faults);
    #[cfg(feature = "without")]
    let without = wanted.without.iter().copied().collect();
    #[cfg(not(feature = "without"))]
    let without = BTreeSet::new();
    Ok(Only { faults, hours: wanted.hours, boxes: wanted.boxes, jobs: wanted.jobs, without })
}

/// Every week up to the first that violates a guarantee, in the order of their seeds.
fn all(seeds: Range<u64>, only: &Only, progress: &Weeks) -> Result<Vec<Timed>, Problems> {
    let run = Run {
        next: AtomicU64::new(seeds.start),
        end: AtomicU64::new(seeds.end),
        done: Mutex::new(Ok(Vec::new())),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while run.run_next(only) {
                    progress.week_done();
                }
            });
        }
    });
    let mut weeks = run.done.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    weeks.sort_by_key(|(week, _)| week.seed);
    let end = run.end.load(Ordering::Relaxed);
    weeks.retain(|(week, _)| week.seed < end);
    Ok(weeks)
}

/// Weeks that several threads run.
struct Run {
    next: AtomicU64,
    end: AtomicU64,
    done: Mutex<Result<Vec<Timed>, Problems>>,
}

impl Run {
    /// Runs the next week; false if there is none.
    fn run_next(&self, only: &Only) -> bool {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        if seed >= self.end.load(Ordering::Relaxed) {
            return false;
        }
        let began = Instant::now();
        let week = run_week(seed, only);
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match (week, done.as_mut()) {
            (Ok(week), Ok(weeks)) => {
                if week.violation.is_some() {
                    // The seeds before it are still run: which failure is the first does not depend on timing.
                    self.end.fetch_min(seed + 1, Ordering::Relaxed);
                }
                weeks.push((week, began.elapsed()));
            }
            (Err(problems), _) => *done = Err(problems),
            (Ok(_), Err(_)) => return false,
        }
        true
    }
}

fn summary(weeks: &[Timed]) -> FaultSimulationDocument {
    let mut faults: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (week, _) in weeks {
        for (fault, times) in &week.faults {
            *faults.entry(fault).or_default() += times;
        }
    }
    let sum = |of: fn(&Week) -> u64| weeks.iter().map(|(week, _)| of(week)).sum();
    let slowest = weeks.iter().max_by_key(|(_, took)| *took);
    FaultSimulationDocument {
        weeks: weeks.len(),
        faults,
        jobs: sum(|week| week.jobs),
        jobs_committed: sum(|week| week.committed),
        starts: sum(|week| week.ec2.starts),
        interruptions: sum(|week| week.ec2.interruptions),
        refusals: sum(|week| week.ec2.refusals),
        usd: weeks.iter().map(|(week, _)| week.usd).sum::<gpuctl_core::units::MicroUsd>().as_usd(),
        reconciles: sum(|week| week.reconciles),
        checks: sum(|week| week.checks),
        slowest_seed: slowest.map_or(0, |(week, _)| week.seed),
        slowest_seconds: slowest.map_or(0.0, |(_, took)| took.as_secs_f64()),
        failure: None,
    }
}

fn unusable(problems: &Problems) -> Failure {
    Failure::new(Code::PolicyInvalid, "a generated policy is invalid").because(problems)
}
