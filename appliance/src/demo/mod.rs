//! A whole emulated rack on loopback that breaks and heals, with the real server on it.
//!
//! The machines are models; everything between them and the server is real: Redfish over TLS and IPMI 2.0 on sockets, a
//! Kubernetes API over TLS, whole Ethernet frames (in memory). The server is the one of a site, under the lab's policy.

pub mod apart;
pub mod api;
pub mod cable;
pub mod console;
pub mod folder;
pub mod handover;
pub mod kubernetes;
pub mod layout;
pub mod rack;
pub mod scenario;
pub mod segment;
pub mod server;
pub mod story;
pub mod table;
pub mod world;

pub use story::{Asked, Outcome, Stopped, run};
