//! What a host's controller can tell and do: power, boot, health, over Redfish and IPMI 2.0.
//!
//! The crate returns *readings* (when, by which source, of which machine, what) and never conclusions: whether a host is
//! proven off is the core's judgement, over these readings and over what others saw. It knows nobody else in the
//! workspace, keeps no state on disk and reads no configuration.
//!
//! Every byte from a controller is hostile: lengths, checksums, signatures and sequence numbers are verified before use,
//! and no input makes it panic.

pub mod boot;
pub mod controller;
pub mod discipline;
pub mod discover;
pub mod endpoint;
pub mod health;
pub mod ipmi;
pub mod known_bad;
pub mod poll;
pub mod power;
pub mod quirk;
pub mod reading;
pub mod redfish;
pub mod rotation;
pub mod schedule;
pub mod secret;
pub mod station;

pub use controller::{BmcError, Controller};
pub use endpoint::Endpoint;
pub use power::PowerCommand;
pub use reading::{OffCause, Power, Reading, Readings, Source};
pub use rotation::Rotation;
pub use secret::Secret;
