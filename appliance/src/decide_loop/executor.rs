//! The seam to those who do: an executor takes a command whose proofs were made under all rules, and gives a result.

use healing::command::{Command, StepResult};
use healing::rules::Enforced;
use healing::time::{Elapsed, Millis};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Carries out steps. Never decides, never retries a non-idempotent act, and accepts only [`Enforced`]: a command whose
/// permit or proof was made under broken rules does not type-check.
///
/// ```compile_fail
/// use healing::command::Command;
/// use healing::rules::{Rule, Rules};
/// #[derive(Debug, Clone, Copy)]
/// struct Broken;
/// impl Rules for Broken {
///     fn enforces(&self, _: Rule) -> bool { false }
/// }
/// fn hand_over<X: rackmedic::decide_loop::Executor>(executor: &X, command: Command<Broken>, right: rackmedic::decide_loop::Right) {
///     drop(executor.run(command, right));
/// }
/// ```
pub trait Executor: Send + Sync + 'static {
    /// Does a step to its end, or to its safe end when `right` is withdrawn.
    fn run(&self, command: Command<Enforced>, right: Right) -> impl Future<Output = StepResult> + Send;
}

/// Whether a step that was ordered may still act: it was not cancelled, nothing stalled since, and the appliance still
/// owns the site. Evidence that led to a command is worthless after a stall, so the command is too (rule 47).
#[derive(Debug, Clone)]
pub struct Right {
    cancelled: CancellationToken,
    ward: Arc<Ward>,
    generation: u64,
}

impl Right {
    /// Withdrawn by pause or alarm.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Whether an act that rests on evidence may leave at `now`.
    #[must_use]
    pub fn may_act(&self, now: Elapsed) -> bool {
        // The loop raises the generation before it shows a new beat: a fresh beat means that a stall would be known.
        let beat = self.ward.beat.load(Ordering::SeqCst);
        let generation = self.ward.generation.load(Ordering::SeqCst);
        !self.cancelled.is_cancelled()
            && generation == self.generation
            && now.since(Elapsed(beat)) <= self.ward.stall_ms.load(Ordering::SeqCst)
            && self.may_write(now)
    }

    /// Whether power may be written at all at `now`: the appliance lease holds for longer than its margin (rule 46).
    #[must_use]
    pub fn may_write(&self, now: Elapsed) -> bool {
        let until = Elapsed(self.ward.lease_until.load(Ordering::SeqCst));
        until.since(now) > self.ward.lease_margin_ms.load(Ordering::SeqCst)
    }
}

/// What the loop tells the executors about itself.
#[derive(Debug, Default)]
pub(super) struct Ward {
    beat: AtomicU64,
    generation: AtomicU64,
    stall_ms: AtomicU64,
    lease_until: AtomicU64,
    lease_margin_ms: AtomicU64,
}

impl Ward {
    /// Something stalled: every command ordered before is worth nothing. Must precede the next [`Ward::beat`].
    pub(super) fn stalled(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The loop runs.
    pub(super) fn beat(&self, now: Elapsed, stall_ms: Millis, lease_until: Elapsed, lease_margin_ms: Millis) {
        self.stall_ms.store(stall_ms, Ordering::SeqCst);
        self.lease_until.store(lease_until.0, Ordering::SeqCst);
        self.lease_margin_ms.store(lease_margin_ms, Ordering::SeqCst);
        self.beat.store(now.0, Ordering::SeqCst);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The right of a command decided under `generation`.
    pub(super) fn right(self: &Arc<Self>, generation: u64, cancelled: CancellationToken) -> Right {
        Right { cancelled, ward: Arc::clone(self), generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_from_before_a_stall_may_not_act_even_when_the_loop_beats_again() {
        let ward = Arc::new(Ward::default());
        ward.beat(Elapsed(1_000), 2_000, Elapsed(100_000), 10_000);
        let right = ward.right(ward.generation(), CancellationToken::new());
        assert!(right.may_act(Elapsed(2_000)));
        assert!(!right.may_act(Elapsed(3_001)), "the loop did not beat for more than 2 s");
        ward.stalled();
        ward.beat(Elapsed(60_000), 2_000, Elapsed(100_000), 10_000);
        assert!(!right.may_act(Elapsed(60_000)));
        assert!(ward.right(ward.generation(), CancellationToken::new()).may_act(Elapsed(60_000)));
    }

    #[test]
    fn nothing_is_written_within_ten_seconds_of_the_end_of_the_lease() {
        let ward = Arc::new(Ward::default());
        ward.beat(Elapsed(80_000), 2_000, Elapsed(100_000), 10_000);
        let right = ward.right(0, CancellationToken::new());
        assert!(right.may_write(Elapsed(89_999)));
        assert!(!right.may_write(Elapsed(90_000)));
    }
}
