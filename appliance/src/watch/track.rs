//! One kind of probe of one host: which probes are open, what the last one came to, and the run that is not told yet.

use healing::signal::{Seen, Signal, Source};
use healing::time::Elapsed;

/// How many rounds back an answer may reach. Older ones are nobody's.
const REMEMBERED: u16 = 8;

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// It answers the probe of this round.
    Answers,
    /// That probe was answered before, or never left.
    Duplicate,
}

/// See the module. The round in which a probe left is its number; it wraps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Track {
    /// The round of the last probe.
    round: u16,
    /// Bit `n`: the probe of `n` rounds before the last is unanswered.
    open: u8,
    /// What the last sample was.
    verdict: Option<Seen>,
    /// When something last came from the host.
    answered_at: Elapsed,
    /// The run that waits to be told; none while `count` is zero.
    first: Elapsed,
    last: Elapsed,
    count: u32,
}

impl Track {
    /// A probe leaves in this round.
    pub(super) fn sends(&mut self, round: u16) {
        let passed = round.wrapping_sub(self.round);
        self.open = if passed < REMEMBERED { (self.open << passed) | 1 } else { 1 };
        self.round = round;
    }

    /// The probe of the last round did not leave after all.
    pub(super) fn unsent(&mut self) {
        self.open &= !1;
    }

    /// All probes under way are void; nothing waits to be told.
    pub(super) fn void(&mut self) {
        self.open = 0;
        self.count = 0;
    }

    fn bit(&self, round: u16) -> Option<u8> {
        let back = self.round.wrapping_sub(round);
        (back < REMEMBERED).then(|| 1 << back)
    }

    /// An answer to the probe of this round came.
    pub(super) fn answers(&mut self, round: u16) -> Match {
        match self.bit(round).filter(|bit| self.open & bit != 0) {
            Some(bit) => {
                self.open &= !bit;
                Match::Answers
            }
            None => Match::Duplicate,
        }
    }

    /// An answer came that names no probe (ARP): it answers all that are open.
    pub(super) fn answers_any(&mut self) -> Match {
        let open = std::mem::take(&mut self.open);
        if open == 0 { Match::Duplicate } else { Match::Answers }
    }

    /// Whether the probe of this round, which left at `sent_at`, is unanswered, and nothing came since then.
    pub(super) fn missed(&self, round: u16, sent_at: Elapsed) -> bool {
        let open = self.bit(round).is_some_and(|bit| self.open & bit != 0);
        open && self.answered_at < sent_at
    }

    /// What the last sample was.
    pub(super) fn verdict(&self) -> Option<Seen> {
        self.verdict
    }

    /// Takes a sample. A run that it ends is told first, and so is the sample itself if it is news or `at_once`.
    pub(super) fn sample(
        &mut self,
        source: Source,
        seen: Seen,
        at: Elapsed,
        at_once: bool,
        tell: &mut impl FnMut(Signal),
    ) {
        let news = self.verdict != Some(seen);
        if news {
            self.flush(source, tell);
            self.verdict = Some(seen);
        }
        if seen != Seen::Miss {
            self.answered_at = at;
        }
        if self.count == 0 {
            self.first = at;
        }
        self.last = at;
        self.count += 1;
        if news || at_once {
            self.flush(source, tell);
        }
    }

    /// Tells the run that waits.
    pub(super) fn flush(&mut self, source: Source, tell: &mut impl FnMut(Signal)) {
        if let Some(seen) = self.verdict
            && self.count > 0
        {
            tell(Signal::run(source, seen, self.first, self.last, self.count));
        }
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_closes_its_own_probe_once_and_may_be_late() {
        let mut track = Track::default();
        track.sends(10);
        track.sends(11);
        assert_eq!(track.answers(10), Match::Answers);
        assert_eq!(track.answers(10), Match::Duplicate);
        assert_eq!(track.answers(11), Match::Answers);
        assert_eq!(track.answers(12), Match::Duplicate, "a probe that never left");
    }

    #[test]
    fn rounds_wrap_and_old_ones_are_forgotten() {
        let mut track = Track::default();
        track.sends(u16::MAX);
        track.sends(0);
        track.sends(1);
        assert_eq!(track.answers(u16::MAX), Match::Answers);
        track.sends(20);
        assert_eq!(track.answers(1), Match::Duplicate);
        assert_eq!(track.answers(20), Match::Answers);
        track.sends(20_u16.wrapping_add(40_000));
        assert_eq!(track.answers(20), Match::Duplicate);
    }

    #[test]
    fn a_probe_that_did_not_leave_is_never_missed() {
        let mut track = Track::default();
        track.sends(3);
        assert!(track.missed(3, Elapsed(5)));
        track.unsent();
        assert!(!track.missed(3, Elapsed(5)));
        track.sends(4);
        track.void();
        assert!(!track.missed(4, Elapsed(6)));
    }

    #[test]
    fn a_miss_is_not_told_after_a_newer_answer() {
        let mut track = Track::default();
        track.sends(1);
        track.sends(2);
        assert_eq!(track.answers(2), Match::Answers);
        track.sample(Source::Icmp, Seen::Answer, Elapsed(2_010), false, &mut |_| {});
        assert!(!track.missed(1, Elapsed(1_000)));
    }

    #[test]
    fn equal_samples_wait_as_one_run_and_a_change_is_told_at_once_and_in_order() {
        let mut told = Vec::new();
        let mut track = Track::default();
        for second in 1..=4 {
            track.sample(Source::Icmp, Seen::Answer, Elapsed(second * 1_000), false, &mut |s| told.push(s));
        }
        assert_eq!(told, [Signal::sample(Source::Icmp, Seen::Answer, Elapsed(1_000))]);
        track.sample(Source::Icmp, Seen::Miss, Elapsed(5_800), false, &mut |s| told.push(s));
        assert_eq!(
            told[1..],
            [
                Signal::run(Source::Icmp, Seen::Answer, Elapsed(2_000), Elapsed(4_000), 3),
                Signal::sample(Source::Icmp, Seen::Miss, Elapsed(5_800)),
            ]
        );
    }
}
