//! What became of a change of password.

use crate::controller::BmcError;

/// The outcome. The caller keeps both passwords, sealed, until it knows.
#[derive(Debug)]
pub enum Rotation {
    /// The new one is accepted; the old one is not needed any more.
    Done,
    /// The old one is still the one.
    Unchanged {
        /// Why.
        reason: BmcError,
    },
    /// Neither is known to be accepted: both must be kept, and a person told.
    Unknown {
        /// Why.
        reason: BmcError,
    },
}
