//! The clocks: the machine's own, and one that follows a server's. Outside a simulation the time is read here only.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::TimeDelta;
use gpuctl_core::units::Timestamp;
use gpuctl_core::without::Fix;
use tokio::time::Instant;

use crate::ports::Clock;

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// What a machine knows of the time by itself.
pub trait RawClock: Send + Sync {
    /// The time of day, which may be wrong, and may be set meanwhile.
    fn wall(&self) -> Timestamp;

    /// How long ago some fixed instant was: it never jumps.
    fn monotonic(&self) -> Duration;
}

/// This machine. Its monotonic time is tokio's, which a test can pause.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    since: Instant,
}

impl Machine {
    #[must_use]
    pub fn new() -> Self {
        Self { since: Instant::now() }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl RawClock for Machine {
    fn wall(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        self.since.elapsed()
    }
}

/// How far the clock may be off a server's time before it is set.
const OFF_MAX: TimeDelta = TimeDelta::seconds(2);

/// A server's time has whole seconds, rounded down: it was up to this much later.
const ROUNDED_DOWN: TimeDelta = TimeDelta::seconds(1);

/// How far apart two clocks that follow one server may be: each is off by as much as sets none, if its responses are quick.
pub const CLOCKS_APART_MAX: TimeDelta =
    TimeDelta::seconds(2 * (OFF_MAX.num_seconds() + ROUNDED_DOWN.num_seconds()));

/// A clock that follows a server's time, so that processes on machines whose clocks differ compare times of one clock.
///
/// It reads the machine's time of day once, when it is made. From then on it runs by the monotonic time, and only a server's response
/// that says something else by more than `OFF_MAX` sets it. So an offset of the machine's clock has an effect up to the first response
/// at most, and setting that clock has none.
#[derive(Debug)]
pub struct CorrectedClock<R = Machine> {
    raw: R,
    anchor: Mutex<Anchor>,
}

/// What time it was when the monotonic time was this.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    at: Timestamp,
    monotonic: Duration,
}

impl CorrectedClock {
    /// A clock on this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Machine::new())
    }
}

impl Default for CorrectedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: RawClock> CorrectedClock<R> {
    /// A clock over this one, as of its time of day.
    pub fn over(raw: R) -> Self {
        let anchor = Anchor { at: raw.wall(), monotonic: raw.monotonic() };
        Self { raw, anchor: Mutex::new(anchor) }
    }

    /// Takes note of the time in a server's response that has just arrived. `took` is how long ago its request was sent, by a monotonic
    /// clock: a response that was long on its way says little, and must not set the clock back.
    pub fn heard(&self, server_time: Timestamp, took: Duration) {
        let monotonic = self.raw.monotonic();
        let mut anchor = self.anchor();
        let now = anchor.at(monotonic);
        // The server wrote its time after the request was sent, so it is at most this late now.
        let latest = server_time + ROUNDED_DOWN + span(took);
        if now < server_time - OFF_MAX || now > latest + OFF_MAX {
            let at = server_time + (latest - server_time) / 2;
            tracing::info!(
                off_ms = (now - at).num_milliseconds(),
                "the clock follows the server's time"
            );
            *anchor = Anchor { at, monotonic };
        }
    }

    fn anchor(&self) -> MutexGuard<'_, Anchor> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Anchor {
    fn at(&self, monotonic: Duration) -> Timestamp {
        self.at + span(monotonic.saturating_sub(self.monotonic))
    }
}

impl<R: RawClock> Clock for CorrectedClock<R> {
    fn now(&self) -> Timestamp {
        if Fix::UncorrectedClock.is_left_out() {
            return self.raw.wall();
        }
        let monotonic = self.raw.monotonic();
        self.anchor().at(monotonic)
    }
}

/// Longer spans do not occur: a century still fits.
fn span(duration: Duration) -> TimeDelta {
    const MOST: TimeDelta = TimeDelta::days(36_500);
    TimeDelta::from_std(duration).unwrap_or(MOST).min(MOST)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// A machine whose clock is set at will, beside the true time.
    #[derive(Default)]
    struct Wrong {
        true_ms: i64,
        off_ms: i64,
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Wrong>>);

    impl Shared {
        fn change(&self, change: impl FnOnce(&mut Wrong)) {
            change(&mut self.0.lock().unwrap());
        }

        fn true_time(&self) -> Timestamp {
            at(self.0.lock().unwrap().true_ms)
        }
    }

    impl RawClock for Shared {
        fn wall(&self) -> Timestamp {
            let wrong = self.0.lock().unwrap();
            at(wrong.true_ms + wrong.off_ms)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.lock().unwrap().true_ms.unsigned_abs())
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    fn whole_seconds(time: Timestamp) -> Timestamp {
        Timestamp::from_timestamp(time.timestamp(), 0).unwrap()
    }

    /// What happens to a machine.
    #[derive(Clone, Debug)]
    enum Event {
        /// This many milliseconds pass.
        Pass(i64),
        /// Its clock is set this far off.
        Set(i64),
        /// A response whose request and answer are on their way for this many milliseconds each.
        Response(i64, i64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_i64..600_000).prop_map(Event::Pass),
            (-100_000_000_i64..100_000_000).prop_map(Event::Set),
            (0_i64..2_000, 0_i64..20_000).prop_map(|(there, back)| Event::Response(there, back)),
        ]
    }

    proptest! {
        /// After a response the clock is right within what that response can tell, stays so, and only a response changes it.
        #[test]
        fn nothing_but_a_response_sets_the_clock(
            off in -100_000_000_i64..100_000_000, events in prop::collection::vec(event(), 1..40),
        ) {
            let machine = Shared::default();
            machine.change(|wrong| wrong.off_ms = off);
            let clock = CorrectedClock::over(machine.clone());
            let error = || clock.now() - machine.true_time();
            prop_assert_eq!(error().num_milliseconds(), off);
            for event in events {
                let before = error();
                match event {
                    Event::Pass(millis) => machine.change(|wrong| wrong.true_ms += millis),
                    Event::Set(millis) => machine.change(|wrong| wrong.off_ms = millis),
                    Event::Response(there, back) => {
                        machine.change(|wrong| wrong.true_ms += there);
                        let server_time = whole_seconds(machine.true_time());
                        machine.change(|wrong| wrong.true_ms += back);
                        clock.heard(server_time, Duration::from_millis((there + back).unsigned_abs()));
                        let most = OFF_MAX + ROUNDED_DOWN + TimeDelta::milliseconds(there + back);
                        prop_assert!(error().abs() <= most, "{} off after {event:?}", error());
                        let was_right = before.abs() <= OFF_MAX;
                        prop_assert!(!was_right || error() == before, "{event:?} set a clock that was right");
                        continue;
                    }
                }
                prop_assert_eq!(error(), before);
            }
        }
    }

    #[test]
    fn a_late_response_does_not_set_the_clock_back() {
        let machine = Shared::default();
        let clock = CorrectedClock::over(machine.clone());
        machine.change(|wrong| wrong.true_ms = 20_000);
        clock.heard(at(0), Duration::from_secs(20));
        assert_eq!(clock.now(), at(20_000));
        clock.heard(at(0), Duration::ZERO);
        assert_eq!(clock.now(), at(500), "said to have been quick, it counts");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_runs_by_tokios_time() {
        let clock = CorrectedClock::new();
        clock.heard(at(0), Duration::ZERO);
        let before = clock.now();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now() - before, TimeDelta::hours(1));
    }
}
