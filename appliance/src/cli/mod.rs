//! The command line: what can be done today, and nothing that cannot.

mod audit;
mod bmc;
mod boot;
mod boot_probe;
mod boot_run;
mod declare;
#[cfg(feature = "lab")]
mod demo;
mod host;
mod image;
mod image_node;
mod operate;
pub mod output;
pub mod policy_file;
mod rbac;
mod replay;
pub mod seeds;
mod serve;
#[cfg(feature = "lab")]
mod simulate;
mod socket;
mod span;

use crate::boot::config::ConfigError;
use crate::server::NoServer;
use crate::server::config::ServeConfigError;
use crate::server::registrar::NotApplied;
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
    /// The appliance: watch the hosts that are declared, and heal them.
    Serve(serve::Serve),
    /// The same for emulated hosts.
    #[cfg(feature = "lab")]
    #[command(subcommand)]
    Lab(serve::Lab),
    /// Declare pools and hosts from a file, all of it or nothing.
    Apply(declare::Apply),
    /// Print what is declared, as `apply` takes it, without passwords.
    Export(declare::Export),
    /// Hosts of the running appliance: list, show, import, maintenance.
    #[command(subcommand)]
    Host(host::Host),
    /// Incidents of the running appliance: list, show, approve, deny, confirm that a host is off.
    #[command(subcommand)]
    Incident(operate::Incident),
    /// What holds for the whole site: status, observing, breaker, power freeze.
    #[command(subcommand)]
    Site(operate::Site),
    /// Stop what is not sent yet, of everything or of a cluster, a domain or a host.
    Pause(operate::Pause),
    /// Go on after a pause.
    Resume(operate::Pause),
    /// Let a cluster be acted on; a new one is only observed.
    Arm(operate::Arm),
    /// Only observe a cluster.
    Disarm(operate::Arm),
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
            Verb::Serve(serve) => serve.run(),
            #[cfg(feature = "lab")]
            Verb::Lab(lab) => lab.run(),
            Verb::Apply(apply) => apply.run(),
            Verb::Export(export) => export.run(),
            Verb::Host(host) => host.run(),
            Verb::Incident(incident) => incident.run(),
            Verb::Site(site) => site.run(),
            Verb::Pause(pause) => pause.run(true),
            Verb::Resume(pause) => pause.run(false),
            Verb::Arm(arm) => arm.run(true),
            Verb::Disarm(arm) => arm.run(false),
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
    let usage = error.is::<policy_file::PolicyFileError>()
        || error.is::<Usage>()
        || error.is::<ConfigError>()
        || error.is::<ServeConfigError>()
        || nothing_there;
    match () {
        () if usage => Exit::Usage,
        () if error.is::<Forbidden>()
            || matches!(
                error.downcast_ref(),
                Some(NoServer::Policy { .. } | NoServer::Register(NotApplied::Cluster(_)))
            ) =>
        {
            Exit::Refused
        }
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
