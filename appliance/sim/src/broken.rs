//! Rules with exactly one broken: how the suite shows that its checks would notice. Lives only here, so that no
//! executor of a site can hold a proof made under it.

use healing::rules::{Rule, Rules};

/// All rules hold but this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken(pub Rule);

impl Rules for Broken {
    #[inline]
    fn enforces(&self, rule: Rule) -> bool {
        rule != self.0
    }
}
