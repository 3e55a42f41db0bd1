//! The command line: what can be done today, and nothing that cannot.

mod audit;
mod bmc;
mod boot;
mod boot_probe;
mod boot_run;
#[cfg(feature = "lab")]
mod demo;
mod image;
mod image_node;
pub mod output;
pub mod policy_file;
mod rbac;
mod replay;
pub mod seeds;
#[cfg(feature = "lab")]
mod simulate;

use crate::boot::config::ConfigError;
use crate::store::JournalError;
use clap::{Parser, Subcommand};
use output::Exit;

/// Heals bare-metal Kubernetes nodes from outside the cluster.
#[derive(Debug, Parser)]
#[command(name = "rackmedic", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A whole emulated rack on loopback that breaks and heals, with the real server on it; no root.
    #[cfg(feature = "lab")]
    Demo(demo::Demo),
    /// Run whole simulated fleets against the decisions of this binary and check every safety rule.
    #[cfg(feature = "lab")]
    Simulate(simulate::Simulate),
    /// Show what another policy would have decided first in each recorded incident.
    Replay(replay::Replay),
    /// The audit of a data directory.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// One BMC by hand, on the bench: no journal, no rules, no link to a host.
    #[command(subcommand)]
    Bmc(bmc::Bmc),
    /// The boot servers by themselves: DHCP, TFTP, HTTP and the installer's side, silent until a job is armed.
    #[command(subcommand)]
    Boot(boot::Boot),
    /// The store of disk images and boot sets: make keys, import, list, verify, sign.
    #[command(subcommand)]
    Image(image::Image),
    /// Print the rights that the appliance needs in a Kubernetes cluster, and no more.
    Rbac(rbac::Rbac),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, with its causes. The exit code is then that of [`exit_of`].
    pub fn run(self) -> anyhow::Result<Exit> {
        match self.verb {
            #[cfg(feature = "lab")]
            Verb::Demo(demo) => demo.run(),
            #[cfg(feature = "lab")]
            Verb::Simulate(simulate) => simulate.run(),
            Verb::Replay(replay) => replay.run(),
            Verb::Audit(audit) => audit.run(),
            Verb::Bmc(bmc) => bmc.run(),
            Verb::Boot(boot) => boot.run(),
            Verb::Image(image) => image.run(),
            Verb::Rbac(rbac) => rbac.run(),
        }
    }
}

/// A wrong command line or a wrong file that it names is a matter of usage; everything else is a failure.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> Exit {
    let nothing_there = matches!(error.downcast_ref(), Some(JournalError::NoDatabase(_)));
    let usage =
        error.is::<policy_file::PolicyFileError>() || error.is::<Usage>() || error.is::<ConfigError>() || nothing_there;
    match () {
        () if usage => Exit::Usage,
        () if error.is::<Forbidden>() => Exit::Refused,
        () => Exit::Failed,
    }
}

/// A command line that is understood but cannot be carried out as it stands.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// What a rule of safety forbids.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(String);
