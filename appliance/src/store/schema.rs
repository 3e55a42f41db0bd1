//! The schema: forward only, each step in its own transaction. A later schema than the last one here is refused.

/// The steps, in order; the number of the last is the schema's.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("../../migrations/0001_journal.sql"), include_str!("../../migrations/0002_bmc.sql")];
