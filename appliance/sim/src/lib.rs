//! The simulator: a seeded world of machines, networks, clusters and people around the production decision core, on
//! virtual time. Single-threaded; no clock, no hash order, no randomness but its own seeded generator.
//!
//! This crate must never be part of the appliance that stands at a site: it is behind the feature `lab`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod appliance;
pub mod breaking;
pub mod broken;
pub mod chance;
pub mod checks;
pub mod cluster;
pub mod crash_points;
pub mod drill_stories;
pub mod fault;
pub mod generator;
pub mod incidents;
pub mod network;
pub mod operator;
pub mod plant;
pub mod prober;
pub mod reality;
pub mod report;
pub mod rule_table;
pub mod run;
pub mod scenes;
pub mod second_thoughts;
pub mod simulation;
pub mod site;
pub mod spare_stories;
pub mod stats;
pub mod tally;
pub mod transcript;
pub mod watch;

mod executor;
mod inject;
