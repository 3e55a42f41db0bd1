//! Whether our own watch lives: the pure part. A Lease that is late counts against its node only while this is proven, so
//! that our own deafness is never taken for a node's silence (rules 1, 47).

use healing::time::{Elapsed, Millis, SECOND};

/// A proof is good for this long.
pub const PROOF_MS: Millis = 12 * SECOND;
/// Without an event for this long, a read is made to see whether there was anything to hear.
pub const ASK_AFTER_MS: Millis = 5 * SECOND;
/// A watch without a sign of life for this long changes its endpoint.
pub const SILENT_MS: Millis = 15 * SECOND;
/// A read found changes that the watch did not bring, and for this long still nothing came: it is deaf.
pub const BEHIND_MS: Millis = 5 * SECOND;

/// What is known of the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    live_since: Option<Elapsed>,
    proof_at: Option<Elapsed>,
    sign_at: Elapsed,
    asked_at: Elapsed,
    behind_since: Option<Elapsed>,
}

impl Proof {
    /// Nothing is proven yet.
    #[must_use]
    pub fn new(now: Elapsed) -> Proof {
        Proof { live_since: None, proof_at: None, sign_at: now, asked_at: now, behind_since: None }
    }

    /// The watch brought something.
    pub fn heard(&mut self, at: Elapsed) {
        self.behind_since = None;
        self.proven(at);
    }

    /// A read is on its way, or came to nothing.
    pub fn asked(&mut self, at: Elapsed) {
        self.asked_at = at;
    }

    /// A read found nothing that the watch had not brought, or `missed` changes.
    pub fn compared(&mut self, at: Elapsed, missed: usize) {
        self.asked_at = at;
        if missed == 0 {
            self.behind_since = None;
            self.proven(at);
        } else {
            self.behind_since.get_or_insert(at);
        }
    }

    fn proven(&mut self, at: Elapsed) {
        if self.proof_at.is_none_or(|last| at.since(last) > PROOF_MS) || self.live_since.is_none() {
            self.live_since = Some(at);
        }
        self.proof_at = Some(at);
        self.sign_at = at;
    }

    /// The endpoint was changed: the new one gets its time. What was proven stays proven for as long as it is good.
    pub fn switched(&mut self, at: Elapsed) {
        self.sign_at = at;
        self.asked_at = at;
        self.behind_since = None;
    }

    /// It is time to ask.
    #[must_use]
    pub fn ask_due(&self, now: Elapsed) -> bool {
        now.since(self.sign_at) >= ASK_AFTER_MS && now.since(self.asked_at) >= ASK_AFTER_MS
    }

    /// The endpoint is to be changed.
    #[must_use]
    pub fn deaf(&self, now: Elapsed) -> bool {
        now.since(self.sign_at) >= SILENT_MS || self.behind_since.is_some_and(|since| now.since(since) >= BEHIND_MS)
    }

    /// Since when it has been proven without a gap, if it is so now.
    #[must_use]
    pub fn live_since(&self, now: Elapsed) -> Option<Elapsed> {
        self.live_since.filter(|_| self.proof_at.is_some_and(|at| now.since(at) <= PROOF_MS))
    }

    /// The last proof.
    #[must_use]
    pub fn at(&self) -> Option<Elapsed> {
        self.proof_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Elapsed {
        Elapsed(second * SECOND)
    }

    #[test]
    fn a_watch_that_hears_stays_proven_and_a_gap_begins_it_anew() {
        let mut proof = Proof::new(at(0));
        assert_eq!(proof.live_since(at(0)), None);
        for second in [1, 10, 20] {
            proof.heard(at(second));
        }
        assert_eq!(proof.live_since(at(25)), Some(at(1)));
        assert_eq!(proof.live_since(at(33)), None);
        proof.heard(at(40));
        assert_eq!(proof.live_since(at(40)), Some(at(40)));
    }

    #[test]
    fn silence_is_asked_about_and_a_read_without_news_proves_the_watch() {
        let mut proof = Proof::new(at(0));
        proof.heard(at(1));
        assert!(!proof.ask_due(at(5)) && proof.ask_due(at(6)));
        proof.compared(at(6), 0);
        assert_eq!(proof.live_since(at(10)), Some(at(1)));
        assert!(!proof.deaf(at(20)) && proof.deaf(at(21)));
    }

    #[test]
    fn a_watch_that_did_not_bring_what_a_read_shows_is_no_proof_and_soon_deaf() {
        let mut proof = Proof::new(at(0));
        proof.heard(at(1));
        proof.compared(at(6), 3);
        assert!(!proof.deaf(at(10)) && proof.deaf(at(11)));
        assert_eq!(proof.live_since(at(14)), None);
        // It brought them after all.
        proof.heard(at(11));
        assert!(!proof.deaf(at(12)));
    }
}
