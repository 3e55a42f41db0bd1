//! Whether our own watch lives: the pure part. A Lease that is late counts against its node only while this is proven, so
//! that our own deafness is never taken for a node's silence (rules 1, 47); and what Nodes show is said again only then.

use healing::time::{Elapsed, Millis, SECOND};

/// How long each thing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// A proof is good for this long.
    pub good_ms: Millis,
    /// Without an event for this long, a read is made to see whether there was anything to hear.
    pub ask_after_ms: Millis,
    /// A watch without a sign of life for this long is begun anew, for Leases at another endpoint.
    pub silent_ms: Millis,
    /// A read found changes that the watch did not bring, and for this long still nothing came: it is deaf.
    pub behind_ms: Millis,
}

/// Of Leases, which are renewed every few seconds.
pub const OF_LEASES: Windows =
    Windows { good_ms: 12 * SECOND, ask_after_ms: 5 * SECOND, silent_ms: 15 * SECOND, behind_ms: 5 * SECOND };
/// Of Nodes: one that is well is written every five minutes, so a small cluster is quiet for minutes.
pub const OF_NODES: Windows =
    Windows { good_ms: 45 * SECOND, ask_after_ms: 15 * SECOND, silent_ms: 45 * SECOND, behind_ms: 5 * SECOND };

/// What is known of the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    windows: Windows,
    live_since: Option<Elapsed>,
    proof_at: Option<Elapsed>,
    sign_at: Elapsed,
    asked_at: Elapsed,
    behind_since: Option<Elapsed>,
}

impl Proof {
    /// Nothing is proven yet.
    #[must_use]
    pub fn new(windows: Windows, now: Elapsed) -> Proof {
        Proof { windows, live_since: None, proof_at: None, sign_at: now, asked_at: now, behind_since: None }
    }

    /// It brought a part of a listing: a sign of life, and no proof before all of it is there.
    pub fn sign(&mut self, at: Elapsed) {
        self.sign_at = at;
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
        if self.proof_at.is_none_or(|last| at.since(last) > self.windows.good_ms) || self.live_since.is_none() {
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
        now.since(self.sign_at) >= self.windows.ask_after_ms && now.since(self.asked_at) >= self.windows.ask_after_ms
    }

    /// A read came to nothing: whether there was something to hear is not known, and the watch is not to blame.
    pub fn unread(&mut self, at: Elapsed) {
        self.asked_at = at;
        self.sign_at = at;
    }

    /// It is to be begun anew, or the endpoint to be changed.
    #[must_use]
    pub fn deaf(&self, now: Elapsed) -> bool {
        now.since(self.sign_at) >= self.windows.silent_ms
            || self.behind_since.is_some_and(|since| now.since(since) >= self.windows.behind_ms)
    }

    /// Since when it has been proven without a gap, if it is so now.
    #[must_use]
    pub fn live_since(&self, now: Elapsed) -> Option<Elapsed> {
        self.live_since.filter(|_| self.proof_at.is_some_and(|at| now.since(at) <= self.windows.good_ms))
    }

    /// Whether what it brought is known to be how things are now.
    #[must_use]
    pub fn current(&self, now: Elapsed) -> bool {
        self.behind_since.is_none() && self.live_since(now).is_some()
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
        let mut proof = Proof::new(OF_LEASES, at(0));
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
        let mut proof = Proof::new(OF_LEASES, at(0));
        proof.heard(at(1));
        assert!(!proof.ask_due(at(5)) && proof.ask_due(at(6)));
        proof.compared(at(6), 0);
        assert_eq!(proof.live_since(at(10)), Some(at(1)));
        assert!(!proof.deaf(at(20)) && proof.deaf(at(21)));
    }

    #[test]
    fn a_watch_that_did_not_bring_what_a_read_shows_is_no_proof_and_soon_deaf() {
        let mut proof = Proof::new(OF_LEASES, at(0));
        proof.heard(at(1));
        proof.compared(at(6), 3);
        assert!(!proof.deaf(at(10)) && proof.deaf(at(11)));
        assert_eq!(proof.live_since(at(14)), None);
        // It brought them after all.
        proof.heard(at(11));
        assert!(!proof.deaf(at(12)));
    }

    #[test]
    fn nodes_are_as_they_were_told_until_a_read_shows_more_and_a_part_of_a_listing_shows_nothing() {
        let mut proof = Proof::new(OF_NODES, at(0));
        proof.sign(at(30));
        assert!(!proof.current(at(30)) && !proof.deaf(at(60)));
        proof.heard(at(40));
        assert!(proof.current(at(85)) && !proof.current(at(86)));
        assert!(!proof.ask_due(at(54)) && proof.ask_due(at(55)));
        proof.compared(at(55), 1);
        assert!(!proof.current(at(55)), "what is known to be old is not said again");
        assert!(!proof.deaf(at(59)) && proof.deaf(at(60)));
        proof.compared(at(56), 0);
        assert!(proof.current(at(100)) && !proof.deaf(at(100)) && proof.deaf(at(101)));
    }
}
