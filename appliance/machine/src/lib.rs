//! One host with its BMC as a pure, seeded state machine.
//!
//! Time is an argument everywhere; nothing here reads a clock, draws from outside its own seed, or knows the decision
//! core, a socket or a file. The fleet simulator drives thousands of these on virtual time (event by event:
//! [`Machine::next_change_at`] and [`Machine::advance`]); a BMC emulator may put one behind real sockets.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bmc;
mod chance;
mod fault;
mod host;
mod spec;

pub use bmc::{BmcError, BmcOutcome, BmcReply, BmcRequest, BootOverride, PowerRead, StageRead};
pub use fault::{BmcFault, Component, Failing, Fault, HardwareKind};
pub use host::{Answers, BootAsk, Disk, Held, InstallStage, Machine, OffCause, Power, Truth};
pub use spec::Spec;

/// A moment in milliseconds since the beginning of the simulated world.
pub type At = u64;
/// A span in milliseconds.
pub type Millis = u64;
