//! Network boot, served: the jobs and their tickets, the files behind the gate, the installer's conversation.
//!
//! The boot servers run alone (`rackmedic boot serve`), told what to do by job files; the healing server puts its own
//! world in the place of those files.

pub mod alive;
pub mod clock;
pub mod config;
mod dhcp_thread;
#[cfg(test)]
mod gate_routes;
pub mod identity;
pub mod installer_api;
pub mod job;
pub mod jobs;
pub mod ladder;
pub mod logbook;
pub mod media;
pub mod serve;
pub mod shelf;
pub mod stock;
pub mod stored_content;
mod sweep;
