//! A machine's BMC on loopback: real Redfish over TLS and real IPMI 2.0 in front of a modelled host, with every
//! misbehaviour that BMCs are known for on demand.
//!
//! The host is a [`machine::Machine`] on real time. What is wrong with its power is the machine's own [`machine::BmcFault`];
//! what is wrong on the wire is a [`Misbehaviour`]. Independent clients (ipmitool, FreeIPMI, fence-agents, sushy) check
//! that it is a BMC at all.

mod certificate;
mod control;
mod emulator;
mod ipmi;
mod misbehaviour;
mod model;
mod pdu;
mod pdu_service;
mod redfish;
mod serial;
mod state;
mod task;

pub use certificate::Certificate;
pub use control::serve_control;
pub use emulator::{Emulator, Failed, Setup};
pub use misbehaviour::Misbehaviour;
pub use model::{Model, by_name};
pub use pdu::{Pdu, PduHandle, PduMisbehaviour, PduSetup};
pub use state::{Counted, Handle};
