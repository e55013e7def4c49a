//! Chooses which worker is signalled, when, and how.
//!
//! A shuffled deck has each stage with each signal: the next card waits for a worker that reaches its stage. A job that crashes its worker
//! does so at its stage each time, whatever the deck says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kills::journal::{Journal, Stage, Step};
use crate::kills::load::Crashers;
use crate::random::Random;

/// How often a job may have been in the hands of a worker that was signalled before others are left alone with it. One that is in
/// dying workers' hands again and again cannot be told from poison.
const DEATHS_MAX: u32 = 2;
/// From this number of kills on, each stage must have been met with each signal.
const KILLS_OF_ALL_STAGES: u32 = 100;
/// A delay up to this long is caught up with faster kills.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// How a worker is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    Kill,
    Term,
    /// A second signal ends a drain at once.
    TermTwice,
}

pub(super) struct Killer<'a> {
    random: &'a mut Random,
    crashers: Crashers,
    deck: Vec<(Stage, How)>,
    every: Duration,
    due: Instant,
    began: Instant,
    struck: BTreeMap<(Stage, How), u32>,
    crashes: u32,
}

impl<'a> Killer<'a> {
    pub(super) fn new(random: &'a mut Random, kills_a_minute: u64, crashers: Crashers) -> Self {
        let now = Instant::now();
        let every = Duration::from_mins(1) / u32::try_from(kills_a_minute.max(1)).unwrap();
        let (deck, struck) = Default::default();
        Self { random, crashers, deck, every, due: now + every, began: now, struck, crashes: 0 }
    }

    /// What to do to the worker that lives this life, now that it has reached a step.
    pub(super) fn choose(&mut self, step: &Step, life: usize, journal: &Journal) -> Option<How> {
        let signals = &journal.lives[life].signals;
        if signals.contains(&How::Kill) {
            return None;
        }
        if self.crashers.stage_of(&step.job) == Some(step.stage) {
            self.crashes += 1;
            return Some(How::Kill);
        }
        let now = Instant::now();
        let (stage, how) = self.next_card();
        if now < self.due || stage != step.stage || (how != How::Kill && !signals.is_empty()) {
            return None;
        }
        if journal.deaths_of_held(life, &self.crashers.ids()) > DEATHS_MAX {
            return None;
        }
        self.deck.pop();
        self.wait_for_next(now);
        *self.struck.entry((stage, how)).or_default() += 1;
        Some(how)
    }

    fn next_card(&mut self) -> (Stage, How) {
        if self.deck.is_empty() {
            let hows = [How::Kill, How::Kill, How::Term, How::TermTwice];
            let of_stage = |stage| hows.into_iter().map(move |how| (stage, how));
            self.deck = Stage::ALL.into_iter().flat_map(of_stage).collect();
            self.random.shuffle(&mut self.deck);
        }
        self.deck[self.deck.len() - 1]
    }

    fn wait_for_next(&mut self, now: Instant) {
        let mean = u64::try_from(self.every.as_micros()).unwrap();
        let wait = Duration::from_micros(mean / 2 + self.random.below(mean));
        let since = self.due.max(now.checked_sub(CATCH_UP_MAX).unwrap_or(now));
        self.due = since + wait;
    }

    fn kills(&self) -> u32 {
        self.struck.values().sum()
    }

    /// How many were signalled, where and how.
    pub(super) fn summary(&self) -> String {
        let seconds = self.began.elapsed().as_secs().max(1);
        let kills = self.kills();
        let a_minute = (u64::from(kills) + u64::from(self.crashes)) * 60 / seconds;
        let by_stage = Stage::ALL.map(|stage| {
            let of = |how| self.struck.get(&(stage, how)).copied().unwrap_or_default();
            let counts = [How::Kill, How::Term, How::TermTwice].map(of);
            format!("{} {counts:?}", stage.name())
        });
        format!(
            "{kills} kills by stage [KILL, TERM, TERM twice]: {}; {} crashes by poison; {a_minute} a minute",
            by_stage.join(", "),
            self.crashes
        )
    }

    /// That the kills met what they should.
    pub(super) fn check(&self) {
        assert!(self.kills() > 0, "no worker was killed");
        if self.kills() < KILLS_OF_ALL_STAGES {
            return;
        }
        for stage in Stage::ALL {
            for how in [How::Kill, How::Term, How::TermTwice] {
                assert!(self.struck.contains_key(&(stage, how)), "no {how:?} at {stage:?}");
            }
        }
    }
}
