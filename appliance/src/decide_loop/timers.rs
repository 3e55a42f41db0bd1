//! Timers: one per target, the newest holds.

use healing::command::{WakeTarget, Wakeup};
use healing::time::Elapsed;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be woken, and when. Bounded by the number of targets.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_target: BTreeMap<WakeTarget, Elapsed>,
    by_time: BTreeSet<(Elapsed, WakeTarget)>,
}

impl Timers {
    /// Sets the timer of a target; an earlier one of the same target is forgotten.
    pub(super) fn set(&mut self, wakeup: Wakeup) {
        if let Some(old) = self.by_target.insert(wakeup.target, wakeup.at) {
            self.by_time.remove(&(old, wakeup.target));
        }
        self.by_time.insert((wakeup.at, wakeup.target));
    }

    /// When the next one is due.
    #[must_use]
    pub(super) fn next(&self) -> Option<Elapsed> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Elapsed) -> Option<WakeTarget> {
        let &(at, target) = self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.by_time.remove(&(at, target));
        self.by_target.remove(&target);
        Some(target)
    }

    /// Whether a target has a timer.
    #[must_use]
    pub(super) fn has(&self, target: WakeTarget) -> bool {
        self.by_target.contains_key(&target)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.by_target.clear();
        self.by_time.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use healing::id::HostId;

    #[test]
    fn the_newest_timer_of_a_target_holds_and_each_fires_once_in_order_of_time() {
        let mut timers = Timers::default();
        let host = |n| WakeTarget::Host(HostId(n));
        timers.set(Wakeup { target: host(1), at: Elapsed(50) });
        timers.set(Wakeup { target: WakeTarget::Site, at: Elapsed(20) });
        timers.set(Wakeup { target: host(1), at: Elapsed(10) });
        timers.set(Wakeup { target: host(2), at: Elapsed(30) });
        timers.set(Wakeup { target: host(1), at: Elapsed(40) });
        assert_eq!(timers.next(), Some(Elapsed(20)));
        let mut fired = Vec::new();
        while let Some(target) = timers.take_due(Elapsed(45)) {
            fired.push(target);
        }
        assert_eq!(fired, [WakeTarget::Site, host(2), host(1)]);
        assert_eq!(timers.next(), None);
    }
}
