//! The appliance as a library: the server and the command line share it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod act;
pub mod cli;
pub mod decide_loop;
pub mod store;
