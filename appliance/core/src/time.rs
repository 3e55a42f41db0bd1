//! Time as an argument. The core reads no clock: every function that needs one takes a [`Now`].

use serde::{Deserialize, Serialize};

/// A span of time in milliseconds.
pub type Millis = u64;

/// One second in [`Millis`].
pub const SECOND: Millis = 1_000;
/// One minute in [`Millis`].
pub const MINUTE: Millis = 60 * SECOND;
/// One hour in [`Millis`].
pub const HOUR: Millis = 60 * MINUTE;
/// One day in [`Millis`].
pub const DAY: Millis = 24 * HOUR;

/// Running time of the appliance in milliseconds, monotonic, carried over restarts by the journal.
/// Down time counts zero, so a wait or a budget never passes while nobody was watching (rule 47).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Elapsed(pub u64);

impl Elapsed {
    /// Milliseconds since `earlier`; zero if `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Elapsed) -> Millis {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment plus a span.
    #[must_use]
    pub fn plus(self, span: Millis) -> Elapsed {
        Elapsed(self.0.saturating_add(span))
    }

    /// This moment less a span, not before zero.
    #[must_use]
    pub fn minus(self, span: Millis) -> Elapsed {
        Elapsed(self.0.saturating_sub(span))
    }
}

/// The moment of a decision, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Now {
    /// Monotonic running time: all waits and budgets.
    pub elapsed: Elapsed,
    /// Wall clock, Unix milliseconds: display, certificates and the expiry of rights.
    pub wall_ms: i64,
}

impl Now {
    /// When a right given now for `span` expires.
    #[must_use]
    pub fn expiry(self, span: Millis) -> Expiry {
        Expiry { elapsed: self.elapsed.plus(span), wall_ms: self.wall_ms.saturating_add_unsigned(span) }
    }
}

/// The end of a right (ticket, approval, join credential): it is over as soon as *either* clock has passed it,
/// so neither a stopped appliance nor a stepped wall clock lengthens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// On the running clock.
    pub elapsed: Elapsed,
    /// On the wall clock, Unix milliseconds.
    pub wall_ms: i64,
}

impl Expiry {
    /// Whether the right is over.
    #[must_use]
    pub fn passed(&self, now: Now) -> bool {
        now.elapsed >= self.elapsed || now.wall_ms >= self.wall_ms
    }
}
