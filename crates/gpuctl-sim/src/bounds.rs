//! Lower bounds: the least box time that serves a demand in order of arrival, so that a policy's cost can be judged.
//!
//! The bounds know all arrivals in advance. They count milliseconds of box time, boots included, of one box with a constant boot
//! time; prices, billing minimums, ticks and spot are not in them. No time given to them may be negative or beyond `TRACE_MS_MAX`.
//!
//! All but the first need no more of a demand than its service time, which no policy can save, and its *idle clock*: how long an
//! always-on box has been idle so far. That clock stands still while the box is busy, so it has one reading for each busy
//! period. A box that serves the same jobs some time later works through its backlog while the clock goes on, and has caught up as
//! soon as the clock has gone as far as the box was late; from there on it is idle when the clock goes. So each bound takes time
//! that grows with the number of jobs, not with its square.

use crate::trace::Demand;

/// What an always-on box does: no box serves a job earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlwaysOn {
    /// When the service of each job starts.
    pub starts_ms: Vec<i64>,
    /// From the start of the trace to the end of the last job.
    pub box_ms: i64,
}

/// Serves the jobs with an always-on box.
#[must_use]
pub fn always_on(demand: &Demand) -> AlwaysOn {
    let mut box_ms = 0;
    let starts = demand.jobs().iter().map(|job| {
        let start_ms = job.at_ms.max(box_ms);
        box_ms = start_ms + job.service_ms;
        start_ms
    });
    AlwaysOn { starts_ms: starts.collect(), box_ms }
}

/// The least box time if a stopped box always starts when a job arrives, and may stop whenever no job is there.
///
/// An exact dynamic programme over the moments at which the queue is empty, from the last to the first: stop, or stay on until the
/// next job.
#[must_use]
pub fn clairvoyant_same_start(demand: &Demand, boot_ms: i64) -> i64 {
    let IdleClock { service_ms, readings_ms } = IdleClock::of(demand);
    let mut ahead = vec![Ahead::default(); readings_ms.len() + 1];
    let mut caught_up = readings_ms.len();
    for (period, &reading_ms) in readings_ms.iter().enumerate().rev() {
        // The queue became empty before period `next`, when the clock showed `idle_ms`.
        let from_empty = |next: usize, idle_ms: i64| {
            let Some(next_ms) = readings_ms.get(next) else { return 0 };
            ahead[next].off_ms.min(next_ms - idle_ms + ahead[next].on_ms)
        };
        // Its first job finds the box off and waits for the boot: the box is late by that much.
        let late_ms = reading_ms + boot_ms;
        while caught_up > period + 1 && readings_ms[caught_up - 1] >= late_ms {
            caught_up -= 1;
        }
        ahead[period] = Ahead {
            on_ms: from_empty(period + 1, reading_ms),
            off_ms: boot_ms + from_empty(caught_up, late_ms),
        };
    }
    service_ms + ahead[0].off_ms
}

/// The least box time if no job may wait for a boot: before each pause a choice between idling through it and booting in its end.
#[must_use]
pub fn prewarm(demand: &Demand, boot_ms: i64) -> i64 {
    let IdleClock { service_ms, readings_ms } = IdleClock::of(demand);
    let first_ms = if readings_ms.is_empty() { 0 } else { boot_ms };
    let pauses = readings_ms.windows(2).map(|pair| (pair[1] - pair[0]).min(boot_ms));
    service_ms + first_ms + pauses.sum::<i64>()
}

/// The least box time if each job may start up to `wait_ms` later than on an always-on box.
///
/// A session serves the jobs i to j without a stop. It must be ready by the start of job i on the always-on box + `wait_ms`, and
/// then keeps the limit for all the others, which gain on the always-on box whenever that one idles. The latest session is the
/// cheapest, and idles for what the clock goes beyond `wait_ms` between i and j. So the least is the cheapest division of the busy
/// periods into sessions. (Within a busy period the clock stands still: a stop there saves nothing.)
///
/// Nothing here says that sessions may not overlap, so no box can do with less. And one can do with as much: where a session would
/// boot before the one before it ends, one box that stays on in between spends less than that boot.
///
/// The box boots before the job arrives where `wait_ms` is shorter than a boot, which takes knowledge of the future.
#[must_use]
pub fn wait_limit(demand: &Demand, boot_ms: i64, wait_ms: i64) -> i64 {
    let IdleClock { service_ms, readings_ms } = IdleClock::of(demand);
    // By number of busy periods served, the least box time. It never falls, so of the sessions that need not idle the longest is best.
    let mut least_ms = vec![0];
    let mut longest_begin = 0;
    // The least for what came before a session that idles, less the reading at its begin.
    let mut idling_ms = i64::MAX;
    for reading_ms in &readings_ms {
        while reading_ms - readings_ms[longest_begin] > wait_ms {
            idling_ms = idling_ms.min(least_ms[longest_begin] - readings_ms[longest_begin]);
            longest_begin += 1;
        }
        let idles_ms = idling_ms.saturating_add(reading_ms - wait_ms);
        least_ms.push(boot_ms + least_ms[longest_begin].min(idles_ms));
    }
    service_ms + least_ms[readings_ms.len()]
}

/// How long an always-on box has been idle at the begin of each of its busy periods, and how long it is busy in all of them.
struct IdleClock {
    service_ms: i64,
    readings_ms: Vec<i64>,
}

impl IdleClock {
    fn of(demand: &Demand) -> Self {
        let (mut service_ms, mut readings_ms) = (0, Vec::new());
        for job in demand.jobs() {
            // Where it waits for earlier jobs, the box has been idle for longer than this.
            let idle_ms = job.at_ms - service_ms;
            if readings_ms.last().is_none_or(|last_ms| *last_ms <= idle_ms) {
                readings_ms.push(idle_ms);
            }
            service_ms += job.service_ms;
        }
        Self { service_ms, readings_ms }
    }
}

/// What is still to be paid, apart from service, when a busy period begins and finds the box on or off. After the last: nothing.
#[derive(Clone, Copy, Default)]
struct Ahead {
    on_ms: i64,
    off_ms: i64,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::trace::Job;

    fn demand(gaps_and_services_ms: &[(i64, i64)]) -> Demand {
        let mut at_ms = 0;
        let jobs = gaps_and_services_ms.iter().map(|&(gap_ms, service_ms)| {
            at_ms += gap_ms;
            Job { at_ms, service_ms }
        });
        Demand::new(jobs.collect()).unwrap()
    }

    #[test]
    fn an_always_on_box_serves_in_order_and_idles_between() {
        let served = always_on(&demand(&[(5, 10), (2, 3), (0, 0), (20, 1)]));
        assert_eq!(served, AlwaysOn { starts_ms: vec![5, 15, 18, 27], box_ms: 28 });
        assert_eq!(always_on(&demand(&[])), AlwaysOn { starts_ms: vec![], box_ms: 0 });
    }

    #[test]
    fn the_bounds_of_small_demands_are_those_of_a_hand() {
        // (jobs, boot, wait, same start, prewarm, wait limit)
        let cases = [
            (vec![], 9, 9, [0, 0, 0]),
            (vec![(5, 7)], 9, 0, [16, 16, 16]),
            // A pause shorter than the boot is idled through, a longer one is not.
            (vec![(0, 1), (6, 1)], 9, 0, [11, 16, 16]),
            (vec![(0, 1), (60, 1)], 9, 0, [20, 20, 20]),
            // Waiting joins what the pause divides; a wait of 4 leaves 1 of the pause of 5 to idle.
            (vec![(0, 1), (6, 1)], 9, 5, [11, 16, 11]),
            (vec![(0, 1), (6, 1)], 9, 4, [11, 16, 12]),
        ];
        for (jobs, boot_ms, wait_ms, expected) in cases {
            let demand = demand(&jobs);
            let found = [
                clairvoyant_same_start(&demand, boot_ms),
                prewarm(&demand, boot_ms),
                wait_limit(&demand, boot_ms, wait_ms),
            ];
            assert_eq!(found, expected, "{jobs:?}, boot {boot_ms}, wait {wait_ms}");
        }
    }

    /// Which starts are allowed.
    #[derive(Clone, Copy)]
    enum Rule {
        SameStart,
        WaitLimit(i64),
    }

    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    enum BoxState {
        Off,
        Booting(i64),
        Free,
        Busy(i64),
    }

    /// A box that tries everything it may do in each millisecond; it knows nothing of sessions, busy periods or idle clocks.
    struct EveryMillisecond<'a> {
        demand: &'a Demand,
        always_on_ms: Vec<i64>,
        boot_ms: i64,
        rule: Rule,
        known: HashMap<(i64, usize, BoxState), Option<i64>>,
    }

    impl EveryMillisecond<'_> {
        fn least_ms(demand: &Demand, boot_ms: i64, rule: Rule) -> i64 {
            let always_on_ms = always_on(demand).starts_ms;
            let known = HashMap::new();
            let mut tried = EveryMillisecond { demand, always_on_ms, boot_ms, rule, known };
            tried.ahead_ms(-boot_ms, 0, BoxState::Off).unwrap()
        }

        /// The least box time from this instant on, with `next` the first job not yet begun; none if a job is too late.
        fn ahead_ms(&mut self, at_ms: i64, next: usize, state: BoxState) -> Option<i64> {
            if let Some(known) = self.known.get(&(at_ms, next, state)) {
                return *known;
            }
            let found = self.try_all(at_ms, next, state);
            self.known.insert((at_ms, next, state), found);
            found
        }

        fn try_all(&mut self, at_ms: i64, next: usize, state: BoxState) -> Option<i64> {
            let job = self.demand.jobs().get(next).copied();
            if let (Rule::WaitLimit(wait_ms), Some(_)) = (self.rule, job)
                && at_ms > self.always_on_ms[next] + wait_ms
            {
                return None;
            }
            let here = job.filter(|job| job.at_ms <= at_ms);
            let same_start = matches!(self.rule, Rule::SameStart);
            let mut choices = Vec::new();
            match state {
                BoxState::Booting(0) | BoxState::Busy(0) => {
                    choices.push(self.ahead_ms(at_ms, next, BoxState::Free));
                }
                BoxState::Booting(left_ms) => {
                    choices.push(self.later(at_ms, next, BoxState::Booting(left_ms - 1)));
                }
                BoxState::Busy(left_ms) => {
                    choices.push(self.later(at_ms, next, BoxState::Busy(left_ms - 1)));
                }
                BoxState::Off | BoxState::Free if job.is_none() => choices.push(Some(0)),
                BoxState::Off => {
                    if !same_start || here.is_some() {
                        choices.push(self.ahead_ms(at_ms, next, BoxState::Booting(self.boot_ms)));
                    }
                    if !same_start || here.is_none() {
                        choices.push(self.ahead_ms(at_ms + 1, next, BoxState::Off));
                    }
                }
                BoxState::Free => {
                    if let Some(job) = here {
                        let busy = BoxState::Busy(job.service_ms);
                        choices.push(self.ahead_ms(at_ms, next + 1, busy));
                    }
                    if !same_start || here.is_none() {
                        choices.push(self.ahead_ms(at_ms, next, BoxState::Off));
                        choices.push(self.later(at_ms, next, BoxState::Free));
                    }
                }
            }
            choices.into_iter().flatten().min()
        }

        fn later(&mut self, at_ms: i64, next: usize, state: BoxState) -> Option<i64> {
            Some(1 + self.ahead_ms(at_ms + 1, next, state)?)
        }
    }

    /// The cheapest of all divisions of the jobs into sessions, each served job by job from when the box is ready.
    fn divided_ms(
        demand: &Demand,
        boot_ms: i64,
        ready_ms: impl Fn(usize, usize) -> i64,
        may_end: impl Fn(usize, i64) -> bool,
    ) -> i64 {
        let mut least_ms = vec![Some(0)];
        for end in 1..=demand.jobs().len() {
            let sessions = (0..end).filter_map(|begin| {
                let ready_ms = ready_ms(begin, end);
                let finish_ms = demand.jobs()[begin..end]
                    .iter()
                    .fold(ready_ms, |free_ms, job| free_ms.max(job.at_ms) + job.service_ms);
                may_end(end, finish_ms).then_some(least_ms[begin]? + boot_ms + finish_ms - ready_ms)
            });
            let least = sessions.min();
            least_ms.push(least);
        }
        least_ms[demand.jobs().len()].unwrap()
    }

    proptest! {
        #[test]
        fn no_box_that_decides_in_every_millisecond_does_better_and_one_does_as_well(
            jobs in prop::collection::vec((0_i64..14, 0_i64..6), 0..6),
            boot_ms in 1_i64..10,
            wait_ms in 0_i64..15,
        ) {
            let demand = demand(&jobs);
            let least = |rule| EveryMillisecond::least_ms(&demand, boot_ms, rule);
            prop_assert_eq!(clairvoyant_same_start(&demand, boot_ms), least(Rule::SameStart));
            prop_assert_eq!(prewarm(&demand, boot_ms), least(Rule::WaitLimit(0)));
            prop_assert_eq!(wait_limit(&demand, boot_ms, wait_ms), least(Rule::WaitLimit(wait_ms)));
        }

        #[test]
        fn no_division_into_sessions_costs_less_on_traces_of_real_length(
            jobs in prop::collection::vec((0_i64..600_000, 0_i64..120_000), 0..40),
            boot_ms in 0_i64..400_000,
            wait_ms in 0_i64..1_800_000,
        ) {
            let demand = demand(&jobs);
            let jobs = demand.jobs();
            let starts_ms = always_on(&demand).starts_ms;
            let same_start = divided_ms(
                &demand,
                boot_ms,
                |begin, _| jobs[begin].at_ms + boot_ms,
                |end, finish_ms| jobs.get(end).is_none_or(|next| next.at_ms >= finish_ms),
            );
            prop_assert_eq!(clairvoyant_same_start(&demand, boot_ms), same_start);
            let latest_ms = |begin: usize, end: usize| {
                let mut served_ms = 0;
                let latest = (begin..end).map(|job| {
                    let latest_ms = starts_ms[job] + wait_ms - served_ms;
                    served_ms += jobs[job].service_ms;
                    latest_ms
                });
                latest.min().unwrap()
            };
            prop_assert_eq!(
                wait_limit(&demand, boot_ms, wait_ms),
                divided_ms(&demand, boot_ms, latest_ms, |_, _| true)
            );
        }

        #[test]
        fn the_bounds_stand_in_order(
            jobs in prop::collection::vec((0_i64..600_000, 0_i64..120_000), 1..200),
            boot_ms in 0_i64..400_000,
            wait_ms in 0_i64..1_800_000,
        ) {
            let demand = demand(&jobs);
            let limited = |wait_ms| wait_limit(&demand, boot_ms, wait_ms);
            prop_assert_eq!(limited(0), prewarm(&demand, boot_ms));
            prop_assert!(limited(wait_ms + 1_000) <= limited(wait_ms));
            prop_assert!(limited(boot_ms) <= clairvoyant_same_start(&demand, boot_ms));
            let service_ms: i64 = demand.jobs().iter().map(|job| job.service_ms).sum();
            prop_assert_eq!(limited(demand.span_ms()), boot_ms + service_ms);
            prop_assert!(prewarm(&demand, boot_ms) <= boot_ms + always_on(&demand).box_ms);
        }
    }
}
