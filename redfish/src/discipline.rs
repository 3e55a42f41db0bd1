//! When a BMC may be asked: pure rules over times and results, without a clock or a socket (safety, rule 32).

use crate::controller::Kind;
use std::time::{Duration, Instant};

/// Between two writes.
pub const WRITE_SPACING: Duration = Duration::from_secs(1);
/// Failures in a row that open the breaker.
const BREAKER_AFTER: u32 = 5;
/// The longest pause of the breaker.
const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A refused credential is tried again once after this.
const CREDENTIAL_RETRY: Duration = Duration::from_secs(15 * 60);
/// And so often within a day.
const CREDENTIAL_TRIES_MAX: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// A fence waits no longer than this for a BMC that asks to be asked later.
const FENCE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A look of the background.
    Poll,
    /// A change that can wait.
    Write,
    /// A fence: goes before all others.
    Fence,
}

/// Why not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Not before this moment; it does not answer, wants to be asked later, or was written to a moment ago.
    Until(Instant),
    /// Its credential was refused: not before this moment, or, with `None`, not before the credential changes.
    Credential(Option<Instant>),
}

/// What one BMC's manners hang on.
#[derive(Debug, Clone, Default)]
pub struct Discipline {
    failures: u32,
    not_before: Option<Instant>,
    asked_for: Option<Instant>,
    written_at: Option<Instant>,
    refused_at: Vec<Instant>,
}

impl Discipline {
    /// Whether it may be asked now.
    ///
    /// # Errors
    /// Why not, and until when.
    pub fn may(&self, purpose: Purpose, now: Instant) -> Result<(), Hold> {
        if let Some(last) = self.refused_at.last() {
            let recent = self.refused_at.iter().filter(|at| now.saturating_duration_since(**at) < DAY).count();
            let retry = *last + CREDENTIAL_RETRY;
            if recent >= CREDENTIAL_TRIES_MAX {
                return Err(Hold::Credential(None));
            }
            // A fence is no exception: a locked account takes the power button from everybody.
            if now < retry {
                return Err(Hold::Credential(Some(retry)));
            }
        }
        let spacing = self.written_at.map(|at| at + WRITE_SPACING);
        let until = match purpose {
            Purpose::Poll => [self.not_before, self.asked_for, None],
            Purpose::Write => [self.not_before, self.asked_for, spacing],
            Purpose::Fence => [None, self.asked_for.map(|at| at.min(now + FENCE_WAIT_MAX)), spacing],
        };
        match until.into_iter().flatten().max() {
            Some(until) if now < until => Err(Hold::Until(until)),
            _ => Ok(()),
        }
    }

    /// A write goes out.
    pub fn writes(&mut self, now: Instant) {
        self.written_at = Some(now);
    }

    /// What came of a request. `chance` in 0..1 spreads the pauses of many BMCs that failed together.
    pub fn ended(&mut self, result: Result<(), Kind>, now: Instant, chance: f64) {
        match result {
            // It answered, yes or no.
            Ok(()) | Err(Kind::Refused | Kind::NotOffered) => {
                self.failures = 0;
                self.not_before = None;
                self.asked_for = None;
                self.refused_at.clear();
            }
            Err(Kind::Credential) => self.refused_at.push(now),
            Err(Kind::Busy(after)) => {
                self.asked_for = Some(now + after.unwrap_or(Duration::from_secs(1)));
            }
            Err(Kind::Unreachable | Kind::Unknown | Kind::Hostile | Kind::Pin) => {
                self.failures = self.failures.saturating_add(1);
                let doubled = 1u64.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u64::MAX);
                let pause = Duration::from_secs(doubled).min(BREAKER_PAUSE_MAX);
                self.not_before = Some(now + pause.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0)));
            }
        }
    }

    /// The breaker is open: it is asked rarely, and only to see whether it is back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.failures >= BREAKER_AFTER
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Another credential was given.
    pub fn credential_changed(&mut self) {
        self.refused_at.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_wrong_password_is_tried_three_times_a_day() {
        let start = Instant::now();
        let mut discipline = Discipline::default();
        for (round, purpose) in [Purpose::Poll, Purpose::Write, Purpose::Fence].into_iter().enumerate() {
            let now = after(start, 1_000 * round as u64);
            assert_eq!(discipline.may(purpose, now), Ok(()));
            discipline.ended(Err(Kind::Credential), now, 0.5);
            assert!(matches!(
                discipline.may(Purpose::Fence, after(start, 1_000 * round as u64 + 899)),
                Err(Hold::Credential(_))
            ));
        }
        assert_eq!(discipline.may(Purpose::Fence, after(start, 80_000)), Err(Hold::Credential(None)));
        assert_eq!(discipline.may(Purpose::Poll, after(start, 90_000)), Ok(()), "a day later");
        discipline.credential_changed();
        assert_eq!(discipline.may(Purpose::Poll, after(start, 3_001)), Ok(()));
    }

    #[test]
    fn writes_keep_their_distance_whoever_writes() {
        let start = Instant::now();
        let mut discipline = Discipline::default();
        discipline.writes(start);
        let soon = start + Duration::from_millis(999);
        assert_eq!(discipline.may(Purpose::Write, soon), Err(Hold::Until(start + WRITE_SPACING)));
        assert_eq!(discipline.may(Purpose::Fence, soon), Err(Hold::Until(start + WRITE_SPACING)));
        assert_eq!(discipline.may(Purpose::Poll, soon), Ok(()));
        assert_eq!(discipline.may(Purpose::Fence, start + WRITE_SPACING), Ok(()));
    }

    #[test]
    fn a_dead_one_is_asked_ever_more_rarely_and_a_fence_does_not_wait_for_it() {
        let start = Instant::now();
        let mut discipline = Discipline::default();
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(discipline.may(Purpose::Poll, now), Ok(()));
            discipline.ended(Err(Kind::Unreachable), now, 0.5);
            assert_eq!(discipline.may(Purpose::Fence, now), Ok(()));
            let Err(Hold::Until(until)) = discipline.may(Purpose::Poll, now) else { unreachable!() };
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(discipline.is_open());
        discipline.ended(Ok(()), now, 0.5);
        assert!(!discipline.is_open());
    }

    #[test]
    fn who_asks_for_time_gets_it_a_fence_gives_ten_seconds() {
        let start = Instant::now();
        let mut discipline = Discipline::default();
        discipline.ended(Err(Kind::Busy(Some(Duration::from_secs(120)))), start, 0.5);
        assert_eq!(discipline.may(Purpose::Poll, start), Err(Hold::Until(after(start, 120))));
        assert_eq!(discipline.may(Purpose::Fence, start), Err(Hold::Until(after(start, 10))));
    }

    proptest! {
        #[test]
        fn no_row_of_results_makes_more_logins_than_three_a_day(results in proptest::collection::vec((0u64..4_000, any::<bool>()), 1..60)) {
            let start = Instant::now();
            let (mut discipline, mut now, mut logins) = (Discipline::default(), start, Vec::new());
            for (seconds, fence) in results {
                now += Duration::from_secs(seconds);
                let purpose = if fence { Purpose::Fence } else { Purpose::Poll };
                if discipline.may(purpose, now).is_ok() {
                    logins.push(now);
                    discipline.ended(Err(Kind::Credential), now, 0.5);
                }
            }
            for login in &logins {
                let within = logins.iter().filter(|other| **other >= *login && **other - *login < DAY).count();
                prop_assert!(within <= CREDENTIAL_TRIES_MAX);
            }
        }
    }
}
