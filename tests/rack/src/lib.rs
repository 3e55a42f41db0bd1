//! The virtual rack: a network of namespaces, hosts in QEMU under software emulation, each behind a BMC of OpenIPMI that
//! owns its process. Nothing in here knows how anything is healed: it is the world that the appliance is put into.
//!
//! Everything of one rack lies in one folder, so that a second process (a BMC's hook, `rack break`) finds it.

pub mod bmc;
pub mod console;
pub mod fault;
pub mod host;
pub mod kubernetes;
pub mod layout;
pub mod network;
pub mod power_hook;
pub mod provision;
pub mod qmp;
pub mod raised;
pub mod run;
