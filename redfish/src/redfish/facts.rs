//! What a BMC taught us about itself while it was used. Shown, and learned anew after a restart; wrong facts cost a request, never safety.

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

impl Facts {
    /// In words for a person; empty if nothing was learned.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let etag = match self.etag {
            EtagUse::None => None,
            EtagUse::Fresh => Some("changes need the ETag just read"),
            EtagUse::Strong => Some("changes need the ETag just read, made strong"),
            EtagUse::Any => Some("changes need If-Match: *"),
        };
        let flags = [
            (self.basic_only, "it has no sessions that work"),
            (self.boot_minimal, "a boot override goes in its shortest form only"),
            (self.boot_at_settings, "a boot override goes to the settings object"),
            (self.media_minimal, "virtual media go in the shortest form only"),
            (self.chassis_unrelated, "its chassis is no witness of its system's power"),
        ];
        let flags = flags.into_iter().filter_map(|(on, text)| on.then_some(text));
        let refused = (!self.reset_refused.is_empty())
            .then(|| format!("it refuses {}", self.reset_refused.iter().cloned().collect::<Vec<_>>().join(", ")));
        etag.into_iter().chain(flags).map(str::to_owned).chain(refused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_told_in_words() {
        let facts = Facts {
            etag: EtagUse::Strong,
            basic_only: true,
            reset_refused: ["Nmi".to_owned()].into(),
            boot_minimal: false,
            boot_at_settings: true,
            media_minimal: true,
            chassis_unrelated: true,
        };
        assert_eq!(facts.words().len(), 6);
        assert!(Facts::default().words().is_empty());
    }
}
