//! The only place of the appliance that reads a clock.
//!
//! `healing` takes time as an argument; what it is handed comes from here: running time that continues where the
//! journal stopped (down time counts zero), and the wall clock for display and the expiry of rights.

use healing::time::{Elapsed, MINUTE, Millis, Now};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How long an anchor for comparing the two clocks is kept. Short enough that the slewing of a time daemon (500 ppm at
/// most) never adds up to a step.
const ANCHOR_MS: Millis = MINUTE;

/// The machine's clocks.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Milliseconds of a clock that never goes back, from an arbitrary start.
    fn monotonic_ms(&self) -> Millis;
    /// Unix time in milliseconds; may be stepped by anybody.
    fn wall_ms(&self) -> i64;
    /// How long a task must sleep for a span of this clock to pass. Only a lab clock runs faster than the world.
    fn sleep_for(&self, span: Millis) -> Duration {
        Duration::from_millis(span)
    }
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts counting now.
    #[must_use]
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> Millis {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Clocks that run faster than the world by a whole factor, for emulated hosts only: a story of minutes is told in
/// seconds by the production loop.
#[cfg(feature = "lab")]
#[derive(Debug)]
pub struct FastClock {
    start: std::time::Instant,
    wall_start_ms: i64,
    factor: u32,
}

#[cfg(feature = "lab")]
impl FastClock {
    /// A clock that shows `factor` seconds for each second of the world.
    #[must_use]
    pub fn new(factor: u32) -> FastClock {
        let wall_start_ms = SystemClock::new().wall_ms();
        FastClock { start: std::time::Instant::now(), wall_start_ms, factor: factor.max(1) }
    }
}

#[cfg(feature = "lab")]
impl Clock for FastClock {
    fn monotonic_ms(&self) -> Millis {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.factor))
            / 1_000
    }

    fn wall_ms(&self) -> i64 {
        self.wall_start_ms.saturating_add_unsigned(self.monotonic_ms())
    }

    fn sleep_for(&self, span: Millis) -> Duration {
        Duration::from_micros(span.saturating_mul(1_000) / u64::from(self.factor))
    }
}

/// Running time: a clock that continues from the journal's last moment.
#[derive(Debug, Clone)]
pub struct RunningTime {
    clock: Arc<dyn Clock>,
    base: Elapsed,
    started_ms: Millis,
}

impl RunningTime {
    /// Continues after `last`, the last moment that the journal knows.
    #[must_use]
    pub fn resume(clock: Arc<dyn Clock>, last: Elapsed) -> RunningTime {
        let started_ms = clock.monotonic_ms();
        RunningTime { clock, base: last.plus(1), started_ms }
    }

    /// This moment.
    #[must_use]
    pub fn now(&self) -> Now {
        let ran = self.clock.monotonic_ms().saturating_sub(self.started_ms);
        Now { elapsed: self.base.plus(ran), wall_ms: self.clock.wall_ms() }
    }

    /// How long to sleep until a moment; zero if it has come.
    #[must_use]
    pub fn until(&self, at: Elapsed) -> Duration {
        self.clock.sleep_for(at.since(self.now().elapsed))
    }

    /// How long to sleep for a span of this clock.
    #[must_use]
    pub fn span(&self, span: Millis) -> Duration {
        self.clock.sleep_for(span)
    }
}

/// Notices when something did not run, or when the two clocks walked apart (rule 47).
#[derive(Debug)]
pub struct StallWatch {
    last: Now,
    anchor: Now,
}

impl StallWatch {
    /// Begins to watch.
    #[must_use]
    pub fn new(now: Now) -> StallWatch {
        StallWatch { last: now, anchor: now }
    }

    /// One turn of what is watched. Returns how long it did not run, or how far the clocks stepped apart, if that is
    /// more than allowed.
    pub fn turn(&mut self, now: Now, stall_ms: Millis, apart_ms: Millis) -> Option<Millis> {
        let gap = now.elapsed.since(self.last.elapsed);
        let ran = i64::try_from(now.elapsed.since(self.anchor.elapsed)).unwrap_or(i64::MAX);
        let apart = now.wall_ms.saturating_sub(self.anchor.wall_ms).abs_diff(ran);
        self.last = now;
        let stalled = gap > stall_ms || apart > apart_ms;
        if stalled || now.elapsed.since(self.anchor.elapsed) > ANCHOR_MS {
            self.anchor = now;
        }
        stalled.then_some(gap.max(apart))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(elapsed: u64, wall_ms: i64) -> Now {
        Now { elapsed: Elapsed(elapsed), wall_ms }
    }

    #[test]
    fn running_time_continues_from_the_journal_and_skips_the_time_that_was_down() {
        let time = RunningTime::resume(Arc::new(SystemClock::new()), Elapsed(5_000_000));
        let now = time.now().elapsed;
        assert!(now > Elapsed(5_000_000) && now < Elapsed(5_060_000), "{now:?}");
    }

    #[test]
    fn a_loop_that_did_not_run_for_more_than_two_seconds_is_stalled() {
        let mut watch = StallWatch::new(at(0, 1_000));
        assert_eq!(watch.turn(at(2_000, 3_000), 2_000, 5_000), None);
        assert_eq!(watch.turn(at(4_001, 5_001), 2_000, 5_000), Some(2_001));
        assert_eq!(watch.turn(at(4_500, 5_500), 2_000, 5_000), None);
    }

    #[test]
    fn a_wall_clock_that_steps_is_a_stall_but_one_that_is_slewed_is_not() {
        let mut watch = StallWatch::new(at(0, 0));
        assert_eq!(watch.turn(at(1_000, 7_000), 2_000, 5_000), Some(6_000));
        assert_eq!(watch.turn(at(2_000, 8_000), 2_000, 5_000), None);
        assert_eq!(watch.turn(at(3_000, 2_000), 2_000, 5_000), Some(7_000));
        // 500 ppm for ten hours: 18 s apart, never a step.
        let mut slewed = StallWatch::new(at(0, 0));
        for second in 1..36_000_u64 {
            let wall = i64::try_from(second * 1_000 + second / 2).unwrap();
            assert_eq!(slewed.turn(at(second * 1_000, wall), 2_000, 5_000), None);
        }
    }
}
