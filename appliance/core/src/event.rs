//! Events and changes: the two sides of a journal entry.

use crate::assess::Assessment;
use crate::command::StepResult;
use crate::evidence::Evidence;
use crate::id::{ClusterId, DomainId, HostId, IncidentId, JobId, MachineId, StepId};
use crate::policy::Limits;
use crate::sight::OwnSight;
use crate::time::{Elapsed, Now};
use crate::world::host::{CmdbState, Host, Link, SpareProof};
use crate::world::incident::{Incident, Rung};
use crate::world::scope::{Cluster, Domain, Pool, Site, Version};
use serde::{Deserialize, Serialize};

/// What a host event carries, so that a decision reads only world and event and can be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The host's evidence.
    pub evidence: Evidence,
    /// Own sight, with that of the host's cluster.
    pub sight: OwnSight,
}

/// A journaled event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The appliance started (again); open intents are re-observed first.
    Started {
        /// The store says that this is a restored backup.
        restored: bool,
        /// The journal could not be read whole: the budget state is unknown, which is no budget (rule 17).
        corrupt: bool,
        /// `--observe-only`.
        observe_only: bool,
        /// The lease under which it runs.
        lease_until: Elapsed,
        /// Its epoch.
        epoch: u64,
    },
    /// A host's assessment changed.
    Fact {
        /// The host.
        host: HostId,
        /// Evidence and sight.
        view: Box<View>,
    },
    /// A host's timer.
    Wake {
        /// The host.
        host: HostId,
        /// Evidence and sight.
        view: Box<View>,
    },
    /// An executor finished a step.
    StepDone {
        /// The host.
        host: HostId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// Its result.
        result: Box<StepResult>,
        /// Evidence and sight.
        view: Box<View>,
    },
    /// The installer reported.
    Install {
        /// The host.
        host: HostId,
        /// The job.
        job: JobId,
        /// What.
        report: InstallReport,
        /// Evidence and sight.
        view: Box<View>,
    },
    /// Own sight changed its verdict, or the site's timer came.
    Sight(Box<OwnSight>),
    /// A person or an API call.
    Operator(Operator),
    /// Configuration.
    Config(Config),
    /// The loop, a prober or the clocks misbehaved (rule 47); all evidence was voided.
    Stalled {
        /// Longest time that something did not run.
        stalled_ms: u64,
    },
    /// The store failed or came back (rule 48).
    Store {
        /// It works.
        healthy: bool,
    },
    /// The appliance lease was renewed or lost (rule 46).
    Lease {
        /// When it ends; in the past = lost.
        until: Elapsed,
        /// Its epoch.
        epoch: u64,
    },
}

/// What the installer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallReport {
    /// Alive, working; the first is the hello, with the SMBIOS identity that it read.
    Progress,
    /// Written and verified; it waits for the power cycle.
    Installed,
    /// A foreign data signature on the named disk: nothing was written (rule 37).
    ForeignData,
    /// The named disk is not there exactly once (rule 36).
    NoSuchDisk,
    /// It failed otherwise.
    Failed,
    /// The named disk is there once and was read, the card has its cable, nothing was written.
    Proven {
        /// The SMBIOS identity that the installer read.
        machine: Option<MachineId>,
    },
}

/// A scope that a person can pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Everything.
    Site,
    /// A cluster.
    Cluster(ClusterId),
    /// A domain.
    Domain(DomainId),
    /// A host.
    Host(HostId),
}

/// What a person (or the API for one) orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Pause or unpause a scope. Overtakes everything else in the queue.
    Pause {
        /// What.
        scope: Scope,
        /// Pause or go on.
        paused: bool,
    },
    /// Leave or enter observe-only by order; also ends `Restored`.
    ObserveOnly(bool),
    /// Acts although the budgets are unknown, since the journal could not be read whole (rule 17): a person has looked.
    AcceptUnknownBudgets,
    /// Arm or disarm a cluster.
    Arm {
        /// Which.
        cluster: ClusterId,
        /// Armed.
        armed: bool,
    },
    /// Approve the rung that waits.
    Approve {
        /// The incident.
        incident: IncidentId,
        /// The rung approved.
        rung: Rung,
    },
    /// Say no.
    Deny {
        /// The incident.
        incident: IncidentId,
    },
    /// Confirm by serial that an unfenced host is off (rule 27).
    ConfirmOff {
        /// The incident.
        incident: IncidentId,
        /// The identity typed.
        machine: MachineId,
    },
    /// Reset the breaker.
    ResetBreaker,
    /// Lift the power freeze of an identity alarm.
    LiftPowerFreeze,
    /// Name hosts during a freeze or outage, which may be healed in spite of it (rules 5, 6).
    ReleaseHosts {
        /// Of which cluster.
        cluster: ClusterId,
        /// Which.
        hosts: Vec<HostId>,
    },
    /// Maintenance of a host until a moment.
    Maintenance {
        /// Which.
        host: HostId,
        /// Until; `None` ends it.
        until: Option<Elapsed>,
    },
    /// Return a quarantined or flapping host to service.
    ReturnHost(HostId),
    /// Arm a cold start (rule 58).
    ColdStart {
        /// The hosts.
        hosts: Vec<HostId>,
    },
    /// End it.
    EndColdStart,
    /// Begin the ladder of a host anew after a person said no to it, or look at it at once. One that is well stays as it is.
    RequestHeal(HostId),
    /// Prove a spare now; of one that is not linked yet the one way to its first boot.
    Prove {
        /// The spare.
        host: HostId,
        /// The identity typed.
        machine: MachineId,
    },
    /// Power-cycle a host that is well and cordoned, to show that it can be.
    Drill {
        /// The host.
        host: HostId,
        /// The identity typed.
        machine: MachineId,
    },
}

/// Configuration, as events, so that a replay sees what the decisions saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Config {
    /// New numbers.
    Policy {
        /// The numbers, checked.
        limits: Box<Limits>,
        /// Their version.
        version: u32,
    },
    /// A cluster; its arming, freeze and care are kept if it exists.
    Cluster(Box<Cluster>),
    /// A pool.
    Pool(Box<Pool>),
    /// A domain; its care is kept if it exists.
    Domain(Box<Domain>),
    /// A host; its assessment, history and incident are kept if it exists.
    Host(Box<Host>),
    /// A host leaves the site. Refused while it has an open incident.
    RemoveHost(HostId),
    /// The link of host and BMC was shown or contradicted.
    Link {
        /// The host.
        host: HostId,
        /// The verdict.
        link: Link,
    },
    /// The CMDB's word on a host.
    Cmdb {
        /// The host.
        host: HostId,
        /// The word.
        state: CmdbState,
    },
    /// A spare was proven.
    SpareProof {
        /// The spare.
        host: HostId,
        /// The proof.
        proof: SpareProof,
    },
}

/// A change of the world. `apply` does nothing else than put records and keep the counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// New numbers.
    Limits {
        /// The numbers.
        limits: Box<Limits>,
        /// Their version.
        version: u32,
    },
    /// The site's record.
    Site(Box<Site>),
    /// A cluster's record.
    Cluster(Box<Cluster>),
    /// A pool's record.
    Pool(Box<Pool>),
    /// A domain's record.
    Domain(Box<Domain>),
    /// A version's record.
    Version(Box<Version>),
    /// A host's record.
    Host(Box<Host>),
    /// Only a host's assessment: the most frequent change, kept small.
    Assessed {
        /// The host.
        host: HostId,
        /// What it is now.
        assessment: Assessment,
    },
    /// A host is gone.
    RemoveHost(HostId),
    /// An open incident's record.
    Incident(Box<Incident>),
    /// An incident ended: its last record. It leaves the world.
    Ended(Box<Incident>),
    /// A disruptive action was reserved: fleet rates count it before its effect (rules 13, 14).
    Acted {
        /// On which host.
        host: HostId,
        /// Which rung.
        rung: Rung,
        /// When.
        at: Elapsed,
    },
}

impl Event {
    /// The host that this event is about, if about one.
    #[must_use]
    pub fn host(&self) -> Option<HostId> {
        match self {
            Event::Fact { host, .. }
            | Event::Wake { host, .. }
            | Event::StepDone { host, .. }
            | Event::Install { host, .. } => Some(*host),
            Event::Started { .. }
            | Event::Sight(_)
            | Event::Operator(_)
            | Event::Config(_)
            | Event::Stalled { .. }
            | Event::Store { .. }
            | Event::Lease { .. } => None,
        }
    }

    /// Whether it overtakes others in the queue: an operator's pause, and results of commands.
    #[must_use]
    pub fn overtakes(&self) -> bool {
        matches!(self, Event::Operator(Operator::Pause { .. }) | Event::StepDone { .. })
    }
}

/// An event with its moment, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// When it was decided.
    pub now: Now,
    /// What.
    pub event: Event,
}
