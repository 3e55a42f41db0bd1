//! What a BMC taught us about itself while it was used. Kept per host and shown; wrong facts cost a request, never safety.

use std::collections::BTreeSet;

/// Which ETag a change must carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EtagUse {
    /// None.
    #[default]
    None,
    /// The one just read, as it was.
    Fresh,
    /// The one just read, made strong: some give a weak one and take only strong ones.
    Strong,
    /// `*`.
    Any,
}

impl EtagUse {
    /// The order in which they are tried.
    pub const CHAIN: [EtagUse; 4] = [EtagUse::Fresh, EtagUse::Strong, EtagUse::Any, EtagUse::None];

    /// As it is shown and kept.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            EtagUse::None => "none",
            EtagUse::Fresh => "fresh",
            EtagUse::Strong => "strong",
            EtagUse::Any => "any",
        }
    }
}

/// What was learned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Which ETag it wants.
    pub etag: EtagUse,
    /// It has no sessions.
    pub basic_only: bool,
    /// Reset types that it offers and then refuses.
    pub reset_refused: BTreeSet<String>,
    /// It takes a boot override only in its shortest form.
    pub boot_minimal: bool,
    /// It takes a boot override only at the settings object.
    pub boot_at_settings: bool,
    /// It takes media only in the shortest form.
    pub media_minimal: bool,
    /// A person saw its chassis powered while the system was off: the chassis is no witness.
    pub chassis_unrelated: bool,
}
