//! What the prober counts, for `/metrics` and for people.

use healing::time::Millis;
use serde::Serialize;

/// Bounds of the buckets of lateness in milliseconds; a last one holds everything above.
pub const LATENESS_BOUNDS_MS: [Millis; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 1_500, 2_000];

/// Counters since the start. Copied out as a whole once a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Probes that left, of all kinds.
    pub sent: u64,
    /// Probes that could not leave: they are never missed.
    pub unsent: u64,
    /// Answers that counted, refusals included.
    pub answered: u64,
    /// Of those, answers that came after their deadline: the host lives, if slowly.
    pub late: u64,
    /// Answers to what was answered before.
    pub duplicates: u64,
    /// Frames that looked like answers and were not: wrong card, address, sequence or cookie.
    pub foreign: u64,
    /// Probes that left and were not answered in time.
    pub missed: u64,
    /// Misses that did not count, as the receiver was not drained in time or frames were lost (rule 47).
    pub void_misses: u64,
    /// Frames that the kernel could not hand over.
    pub lost_frames: u64,
    /// Times that the prober did not run for more than two seconds.
    pub stalls: u64,
    /// Turns that came, or ended, more than half a second late: what was under way was void.
    pub late_turns: u64,
    /// Times that the wire had to be opened anew.
    pub reopened: u64,
    /// Boot requests heard from hosts of the roster.
    pub boot_requests: u64,
    /// How late slots of the schedule were served, by bucket of [`LATENESS_BOUNDS_MS`].
    pub lateness: [u64; LATENESS_BOUNDS_MS.len() + 1],
}

impl Tally {
    /// Notes how late a slot of the schedule was served.
    pub fn served(&mut self, late_ms: Millis) {
        let bucket = LATENESS_BOUNDS_MS.iter().position(|bound| late_ms <= *bound).unwrap_or(LATENESS_BOUNDS_MS.len());
        self.lateness[bucket] += 1;
    }

    /// The upper bound of the bucket below which this share of all slots was served; `None` if above all bounds or nothing
    /// was served. `lateness_ms(990)` is the schedule loss p99.
    #[must_use]
    pub fn lateness_ms(&self, permille: u64) -> Option<Millis> {
        let all: u64 = self.lateness.iter().sum();
        let mut below = 0;
        for (count, bound) in self.lateness.iter().zip(LATENESS_BOUNDS_MS) {
            below += count;
            if all > 0 && below * 1_000 >= all * permille {
                return Some(bound);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_a_hundred_slots_is_the_one_that_counts() {
        let mut tally = Tally::default();
        assert_eq!(tally.lateness_ms(990), None);
        for late_ms in [[0; 98].as_slice(), &[7, 5_000]].concat() {
            tally.served(late_ms);
        }
        assert_eq!(
            (tally.lateness_ms(500), tally.lateness_ms(990), tally.lateness_ms(1_000)),
            (Some(1), Some(10), None)
        );
    }
}
