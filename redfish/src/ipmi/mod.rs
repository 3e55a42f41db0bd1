//! IPMI 2.0 over LAN (RMCP+). The protocol itself owns no socket and no clock: `frame` is bytes, `crypto` the algorithms,
//! `handshake` and `session` the conversation, `command` and its like what is asked; `client` and its like put a UDP socket
//! around it.
//!
//! Source: *Intelligent Platform Management Interface Specification, Second Generation, v2.0, revision 1.1*; section
//! numbers in comments are its.

pub mod audit;
pub mod boot_options;
pub mod client;
pub mod client_audit;
mod client_boot;
pub mod client_sel;
pub mod client_sensors;
mod client_users;
pub mod command;
pub mod console;
mod controller;
pub mod crypto;
pub mod error;
pub mod event;
mod event_tables;
pub mod frame;
pub mod handshake;
pub mod rotate;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod scripted;
pub mod sdr;
pub mod sel;
pub mod sensor_value;
pub mod session;
pub mod sol;
pub mod sol_activation;
pub mod suite_zero;
pub mod users;
