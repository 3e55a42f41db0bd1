//! Whether the loop turns, for who watches over it: a loop that stands must not look alive because other tasks run.

use healing::time::{Elapsed, Millis};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The last turn of the loop. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    beat: Arc<AtomicU64>,
    whole: Arc<AtomicBool>,
}

impl Pulse {
    /// The loop turns at this moment, and whether its journal is whole.
    pub(crate) fn beat(&self, now: Elapsed, whole: bool) {
        self.whole.store(whole, Ordering::Relaxed);
        self.beat.store(now.0, Ordering::Release);
    }

    /// How long ago the loop last turned.
    #[must_use]
    pub fn age_ms(&self, now: Elapsed) -> Millis {
        now.since(Elapsed(self.beat.load(Ordering::Acquire)))
    }

    /// Whether everything that is decided is journaled.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }
}
