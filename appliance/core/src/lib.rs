//! The decision core of Rackmedic: pure functions from (world, event, now) to changes and commands.
//!
//! Two inputs come in. *Signals* are volatile and go through [`evidence::fold`], which keeps a short ring of runs per
//! source and returns a fact when a host's assessment changed. *Events* are journaled and go through
//! [`decide::decide`]. Doing is pure too: [`perform`] turns a step and what was observed into the next call.
//!
//! This crate must never know a socket, a clock, a file, a random number, a database or a web page. A test reads
//! `cargo metadata` and the sources and fails when it does.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod assess;
pub mod budget;
pub mod command;
pub mod decide;
mod diagnose;
pub mod event;
pub mod evidence;
pub mod explain;
pub mod fence;
mod gate;
mod heal;
pub mod id;
mod observe;
pub mod perform;
pub mod plan;
pub mod policy;
pub mod rules;
mod scope_watch;
pub mod sight;
pub mod signal;
pub mod time;
pub mod world;
