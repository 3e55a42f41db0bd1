//! The installer: finds its card, says hello over TLS that is pinned on the kernel's command line, writes one signed
//! image onto the one disk that is named, reads it back, configures, and reports each stage.
//!
//! It never opens another disk for writing, never gives anybody a shell, and never restarts the machine: whoever holds
//! the power button does that. It never knows why a host is installed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod client;
pub mod command_line;
pub mod dhcp;
pub mod disks;
pub mod efi_entry;
pub mod failure;
pub mod fetch;
pub mod first_boot;
pub mod flow;
pub mod foreign;
pub mod gpt;
pub mod inventory;
pub mod kernel;
pub mod link;
pub mod prove;
pub mod talk;
pub mod target;
pub mod write;
