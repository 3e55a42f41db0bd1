//! The appliance as a library: the server and the command line share it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod act;
pub mod boot;
pub mod cli;
pub mod cluster;
pub mod decide_loop;
#[cfg(feature = "lab")]
pub mod demo;
pub mod image;
pub mod rejoin;
pub mod server;
pub mod store;
pub mod watch;
