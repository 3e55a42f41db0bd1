//! Site, clusters, pools and domains: what holds for more than one host. A scope event sets one field here that hosts
//! read; it never walks over them.

use crate::explain::Explanation;
use crate::id::{ClusterId, DomainId, HostId, IncidentId, PoolId, VersionId};
use crate::time::{Elapsed, Expiry};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why nothing outside may be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObserveOnly {
    /// Just started: until this moment (rule 45).
    Starting {
        /// End of the observation.
        until: Elapsed,
    },
    /// Evidence is void after a stall or clock step: until this moment (rule 47).
    Void {
        /// End of the observation.
        until: Elapsed,
    },
    /// The store failed (rule 48).
    Store,
    /// A restored backup: until a person arms it (rule 45).
    Restored,
    /// Budget state is unknown or corrupt (rule 17).
    Corrupt,
    /// Another appliance holds the lease, or none does (rule 46).
    Standby,
    /// Set by a person or the command line.
    Ordered,
}

impl ObserveOnly {
    /// It ends by a person's word alone.
    #[must_use]
    pub fn until_a_person_says(self) -> bool {
        matches!(self, ObserveOnly::Ordered | ObserveOnly::Restored | ObserveOnly::Corrupt)
    }
}

/// The lease by which this appliance owns the site (rule 46).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ApplianceLease {
    /// Monotonic epoch; every commit carries it.
    pub epoch: u64,
    /// When it ends if not renewed.
    pub until: Elapsed,
}

/// A fence that is being watched for an identity alarm (rule 29).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedOff {
    /// The host that we switched off.
    pub host: HostId,
    /// Its incident.
    pub incident: IncidentId,
    /// When the first off went out.
    pub at: Elapsed,
}

/// An armed cold start (rule 58).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdStart {
    /// The hosts a person named, in the order in which they are to start.
    pub hosts: Vec<HostId>,
    /// Until when it is armed.
    pub expires: Expiry,
    /// When the API became ready, if it did.
    pub api_ready_at: Option<Elapsed>,
    /// The last power-on per PDU or other domain.
    pub last_on: Vec<(DomainId, Elapsed)>,
}

/// What holds for the whole site.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Site {
    /// When this run of the appliance started.
    pub started_at: Elapsed,
    /// Why nothing may be touched; `None` = active.
    pub observe_only: Option<ObserveOnly>,
    /// What of it holds again when the lease is ours again.
    #[serde(default)]
    pub behind_standby: Option<ObserveOnly>,
    /// A person paused everything.
    pub paused: bool,
    /// The breaker is open: why. A human resets it (rule 13).
    pub breaker: Option<Explanation>,
    /// All power is frozen by an identity alarm. A human resets it (rule 29).
    pub power_freeze: Option<Explanation>,
    /// Failed heals in a row (rule 13).
    pub failed_in_a_row: u32,
    /// Own sight was last found bad at; `None` = good.
    pub blind_since: Option<Elapsed>,
    /// Own sight was bad until: evidence from before does not count.
    pub sight_good_since: Elapsed,
    /// The lease.
    pub lease: ApplianceLease,
    /// Fences of the last seconds.
    pub watched_off: Vec<WatchedOff>,
    /// The cold start.
    pub cold_start: Option<ColdStart>,
    /// When others were last seen at work on the control plane of a cluster (rule 19): its watchers forget it at a restart.
    #[serde(default)]
    pub foreign_planes: BTreeMap<ClusterId, Elapsed>,
    /// The next incident's number.
    pub next_incident: u64,
    /// The last moment any event was decided, to notice that the loop did not run (rule 47).
    pub last_event: Elapsed,
}

/// A freeze of a cluster by a storm (rules 5b, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Since when.
    pub since: Elapsed,
    /// Since when the share is below the threshold.
    pub below_since: Option<Elapsed>,
    /// When the set of bad hosts last changed.
    pub set_changed_at: Elapsed,
}

/// The careful way back after a correlated loss: one canary, perhaps a second, then the rest one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correlated {
    /// When the loss was seen.
    pub since: Elapsed,
    /// No power before.
    pub not_before: Elapsed,
    /// The host being tried.
    pub canary: Option<HostId>,
    /// Canaries that failed.
    pub failures: u8,
    /// A canary came back: the rest goes one by one.
    pub serial: bool,
    /// It is a whole-domain outage (5a), not a pair (5c).
    pub outage: bool,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its number.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Armed by a person; a new cluster only observes (rule 52).
    pub armed: bool,
    /// Paused by a person.
    pub paused: bool,
    /// We hold etcd client access (rule 22).
    pub etcd_access: bool,
    /// Frozen by a storm.
    pub freeze: Option<Freeze>,
    /// When the last freeze ended: no disruptive action for 120 s, and evidence gathered wholly after (rule 6).
    pub freeze_ended: Option<Elapsed>,
    /// After a stable freeze: canary, then serial.
    pub careful: Option<Correlated>,
    /// Hosts an operator named during a freeze (rule 6); at most 64.
    pub released_hosts: Vec<HostId>,
    /// When a person named them: a loss that began later was not meant.
    #[serde(default)]
    pub released_at: Option<Elapsed>,
}

/// What a pool lets us do without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consent {
    /// By itself.
    Automatic,
    /// After a person's approval.
    Ask,
    /// Never.
    Never,
}

/// A pool: role, policy and image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its number.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// Soft reboot of a living host whose node stays NotReady (rule 1: by approval unless policy automates).
    pub soft_reboot: Consent,
    /// Reimage.
    pub reimage: Consent,
    /// Replacement by a spare.
    pub replace: Consent,
    /// A runtime restart may kill containers (rule 54).
    pub runtime_restart: bool,
    /// Wait for a crash dump before power (rule 33), 0 to 10 min.
    pub crash_dump_wait_ms: u64,
}

/// What kind of physical domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainKind {
    /// A rack.
    Rack,
    /// A power distribution unit.
    Pdu,
    /// A switch.
    Switch,
    /// A chassis.
    Chassis,
    /// Hosts of a cluster without physical labels: shown amber, exempt from rule 5a.
    Unlabelled,
}

/// A physical failure domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its number.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: DomainKind,
    /// Paused by a person.
    pub paused: bool,
    /// A correlated loss under care.
    pub correlated: Option<Correlated>,
}

/// A version that hosts failed on (rule 15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub id: VersionId,
    /// Failures after an action with this version.
    pub failures: u32,
}
