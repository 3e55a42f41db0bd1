//! One host with its BMC as a pure, seeded state machine.
//!
//! Time is an argument everywhere; nothing here reads a clock, draws from outside its own seed, or knows the decision
//! core, a socket or a file. The fleet simulator drives thousands of these on virtual time (event by event:
//! [`Machine::next_change_at`] and [`Machine::advance`]); a BMC emulator may put one behind real sockets.
//!
//! ```
//! use machine::{BmcReply, BmcRequest, Fault, Machine, Power, Spec};
//!
//! let mut host = Machine::new(Spec::default(), 7);
//! host.inject(1_000, Fault::KernelStuck);
//! assert!(!host.answers().icmp, "a stuck kernel is silent");
//! host.bmc_request(60_000, BmcRequest::ForceOff);
//! let read = host.bmc_request(70_000, BmcRequest::ReadPower).result;
//! assert!(matches!(read, Ok(BmcReply::Power(read)) if read.power == Power::Off));
//! host.bmc_request(71_000, BmcRequest::PowerOn);
//! while let Some(at) = host.next_change_at() {
//!     host.advance(at);
//! }
//! assert!(host.truth().healthy);
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bmc;
mod boot;
mod chance;
mod fault;
mod host;
mod inject;
mod install;
mod network;
mod power;
mod spec;
mod truth;

pub use bmc::access::BmcLedger;
pub use bmc::fault::BmcFault;
pub use bmc::message::{
    BmcError, BmcEvent, BmcEventKind, BmcOutcome, BmcReply, BmcRequest, BootOverride, PowerRead, StageRead,
};
pub use boot::{BootAnswer, BootAsk, BootClass, Ticket};
pub use fault::{Component, Cure, Failing, Fault, HardwareKind};
pub use host::Machine;
pub use install::{DataDisk, Disk, InstallProgress, InstallStage, InstallTrouble};
pub use network::{Answers, Held};
pub use power::{Cut, OffCause, Power, PowerLedger};
pub use spec::{AcRestore, DiskName, Mac, Role, Spec};
pub use truth::Truth;

/// A moment in milliseconds since the beginning of the simulated world.
pub type At = u64;
/// A span in milliseconds.
pub type Millis = u64;
