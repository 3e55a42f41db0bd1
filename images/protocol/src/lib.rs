//! What installer, agent and appliance say to each other, and what an image promises. No I/O, no clock.
//!
//! The crate never knows where bytes come from or go to. An image is described by a signed [`manifest`] and a
//! [`chunk_table`]; the loaders of a boot by a signed [`boot_set`]; the installer and the appliance speak [`install`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod boot_set;
pub mod chunk_table;
pub mod digest;
pub mod disk;
pub mod install;
pub mod manifest;
pub mod name;
pub mod signature;

/// The version of the conversation in [`install`]. Another one is refused by both sides, with both numbers.
pub const PROTOCOL_VERSION: u32 = 1;
