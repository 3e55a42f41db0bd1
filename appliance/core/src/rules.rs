//! The sixty safety rules by number, and the type parameter that proofs carry.

use serde::{Deserialize, Serialize};

/// The number of a safety rule, 1 to 60. What each says stands in `docs/SAFETY.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rule(pub u8);

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rule {}", self.0)
    }
}

/// Which rules hold. Production code knows one implementation, [`Enforced`]; the simulator has another that breaks
/// exactly one rule, to show that its checks would notice. Proofs ([`crate::budget::Permit`],
/// [`crate::fence::ProvenOff`]) carry the type, and executors accept only `Enforced`.
pub trait Rules: Copy + std::fmt::Debug + 'static {
    /// Whether this rule is enforced.
    fn enforces(&self, rule: Rule) -> bool;
}

/// All rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Enforced;

impl Rules for Enforced {
    #[inline]
    fn enforces(&self, _rule: Rule) -> bool {
        true
    }
}
