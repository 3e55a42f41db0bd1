//! Who is looked at when: pure, over moments that the caller names.

use crate::poll::Pace;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// The next moment of each.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The one moment that counts for each; an entry of the heap with another one is stale.
    next: Vec<Instant>,
    suspect: Vec<bool>,
    /// In the pace of suspects now.
    quick: Vec<bool>,
    quick_count: usize,
}

impl Schedule {
    /// Of so many, their first moments spread over one healthy period.
    #[must_use]
    pub fn new(count: usize, pace: Pace, begun: Instant) -> Schedule {
        let next: Vec<Instant> =
            (0..count).map(|place| begun + pace.healthy.mul_f64(place as f64 / count as f64)).collect();
        let due = next.iter().enumerate().map(|(place, at)| Reverse((*at, place))).collect();
        Schedule { pace, due, next, suspect: vec![false; count], quick: vec![false; count], quick_count: 0 }
    }

    /// When the next one is due; `None` if there is nobody.
    pub fn next_at(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, place))) = self.due.peek().copied() {
            if self.next.get(place) == Some(&at) {
                return Some(at);
            }
            self.due.pop();
        }
        None
    }

    /// The next one that is due by now, and its moment after this one. `chance` in 0..1 moves that a little, so that equal
    /// machines drift apart.
    pub fn take(&mut self, now: Instant, chance: f64) -> Option<usize> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse((_, place)) = self.due.pop()?;
        let quick = self.suspect.get(place).copied().unwrap_or(false)
            && (self.quick.get(place).copied().unwrap_or(false) || self.quick_count < self.pace.suspects_max);
        self.set_quick(place, quick);
        let period = if quick { self.pace.suspect } else { self.pace.healthy };
        self.put(place, now + period.mul_f64(0.95 + 0.1 * chance.clamp(0.0, 1.0)));
        Some(place)
    }

    /// Its host is suspect, or is not any more. A suspect is due at once, if there is room for it.
    pub fn suspect(&mut self, place: usize, suspect: bool, now: Instant) {
        let Some(flag) = self.suspect.get_mut(place) else { return };
        let before = std::mem::replace(flag, suspect);
        if suspect && !before && self.quick_count < self.pace.suspects_max {
            self.set_quick(place, true);
            self.put(place, now);
        } else if !suspect {
            // What is due already stays so; after it comes the healthy pace.
            self.set_quick(place, false);
        }
    }

    fn set_quick(&mut self, place: usize, quick: bool) {
        let Some(flag) = self.quick.get_mut(place) else { return };
        let before = std::mem::replace(flag, quick);
        self.quick_count = self.quick_count + usize::from(quick) - usize::from(before);
    }

    fn put(&mut self, place: usize, at: Instant) {
        if let Some(next) = self.next.get_mut(place) {
            *next = at;
            self.due.push(Reverse((at, place)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        /// Whatever becomes suspect and well again, nobody is looked at twice as often as his pace, or later than it.
        #[test]
        fn each_keeps_one_pace(toggles in proptest::collection::vec((0u64..200_000, 0usize..6, any::<bool>()), 0..60), suspects_max in 1usize..4) {
            let pace = Pace { suspects_max, ..Pace::default() };
            let begun = Instant::now();
            let mut schedule = Schedule::new(6, pace, begun);
            let mut toggles = toggles;
            toggles.sort();
            let mut looks: Vec<Vec<Instant>> = vec![Vec::new(); 6];
            let end = begun + Duration::from_secs(300);
            let mut toggles = toggles.into_iter().peekable();
            loop {
                let next = schedule.next_at().unwrap();
                let toggle_at = toggles.peek().map(|(ms, _, _)| begun + Duration::from_millis(*ms));
                if let Some(at) = toggle_at.filter(|at| *at <= next) {
                    let (_, place, suspect) = toggles.next().unwrap();
                    schedule.suspect(place, suspect, at);
                    continue;
                }
                if next > end {
                    break;
                }
                let place = schedule.take(next, 0.5).unwrap();
                looks[place].push(next);
                prop_assert!(schedule.quick_count <= suspects_max);
                prop_assert_eq!(schedule.quick_count, schedule.quick.iter().filter(|quick| **quick).count());
            }
            for own in &looks {
                // After the last toggle and one period, the pace is one of the two.
                let settled = begun + Duration::from_secs(231);
                let gaps: Vec<Duration> = own.iter().filter(|at| **at > settled).collect::<Vec<_>>().windows(2).map(|w| *w[1] - *w[0]).collect();
                prop_assert!(gaps.iter().all(|gap| *gap == Duration::from_secs(2) || *gap == Duration::from_secs(30)), "{:?}", gaps);
                prop_assert!(own.windows(2).all(|w| w[1] - w[0] <= Duration::from_secs(30)));
            }
        }
    }

    #[test]
    fn a_suspect_is_looked_at_now_and_leaves_no_second_entry_behind() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(1, Pace::default(), begun);
        assert_eq!(schedule.take(begun, 0.5), Some(0));
        let at = begun + Duration::from_secs(10);
        schedule.suspect(0, true, at);
        assert_eq!(schedule.take(at, 0.5), Some(0));
        schedule.suspect(0, false, at);
        let mut seen = Vec::new();
        while let Some(next) = schedule.next_at().filter(|next| *next < begun + Duration::from_secs(200)) {
            schedule.take(next, 0.5);
            seen.push((next - begun).as_secs());
        }
        assert_eq!(seen, [12, 42, 72, 102, 132, 162, 192]);
    }
}
