//! A host as the decisions know it.

use crate::assess::Assessment;
use crate::explain::Explanation;
use crate::id::{BootId, ClusterId, DomainId, HostId, IncidentId, MachineId, PoolId, StorageId, VersionId};
use crate::policy::Limits;
use crate::time::{DAY, Elapsed, Millis, Now};
use serde::{Deserialize, Serialize};

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A worker node.
    Worker,
    /// A control-plane node.
    ControlPlane,
    /// A spare: carries no Node.
    Spare,
}

/// Where a host stands in its life with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifecycle {
    /// In service, or a spare waiting for service.
    InService,
    /// Taken out with its evidence; a person decides (rule 43).
    Quarantined {
        /// Since when.
        since: Elapsed,
    },
    /// Gone for good.
    Retired,
}

/// Whether the BMC that we address is proven to be this machine's (terms of the safety rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Not shown: observe-only.
    Unbound,
    /// The record, the live BMC and the Node agreed (or agent, drill, installer).
    Linked,
    /// They contradicted each other: alarm.
    Mismatch,
}

/// State in the CMDB (rule 50).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CmdbState {
    /// No CMDB is connected for this host.
    NotKept,
    /// In service, as of a moment.
    InService {
        /// When it was last read.
        at: Elapsed,
    },
    /// Anything else.
    Other,
}

/// Marks by people that forbid disruption (rules 49, 50, 59).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Paused through us.
    pub paused: bool,
    /// In a maintenance window of ours, until its end.
    pub maintenance_until: Option<Elapsed>,
    /// Cordoned, drained or annotated by somebody else, since.
    pub foreign_since: Option<Elapsed>,
    /// The CMDB's word.
    pub cmdb: CmdbState,
    /// Carries the appliance, its database or its network path.
    pub is_self: bool,
}

impl Default for Marks {
    fn default() -> Self {
        Marks { paused: false, maintenance_until: None, foreign_since: None, cmdb: CmdbState::NotKept, is_self: false }
    }
}

/// What a spare last proved (rule 43), or the last drill of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpareProof {
    /// When power, boot, disk and NIC were last proven together, or the drill ended.
    pub at: Elapsed,
    /// Whether all of it held.
    pub passed: bool,
    /// The wall clock then, Unix milliseconds; 0 = not known. Running time stands still while the appliance is down.
    #[serde(default)]
    pub at_wall_ms: i64,
}

impl SpareProof {
    /// What is shown now.
    #[must_use]
    pub fn now(now: Now, passed: bool) -> SpareProof {
        SpareProof { at: now.elapsed, passed, at_wall_ms: now.wall_ms }
    }

    /// It passed, and is no older than this by either clock.
    #[must_use]
    pub fn fresh(&self, most_ms: Millis, now: Now) -> bool {
        let by_wall = self.at_wall_ms == 0 || now.wall_ms.saturating_sub(self.at_wall_ms) <= most_ms.cast_signed();
        self.passed && now.elapsed.since(self.at) <= most_ms && by_wall
    }
}

/// What a host's firmware tries first, as far as its boots have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BootOrder {
    /// No boot of it was watched yet.
    #[default]
    Unknown,
    /// Its last boot that was watched came from the disk without a question to the network.
    DiskFirst,
    /// It asked the network, got no answer, and came up from its disk.
    NetworkFirst,
}

/// What happened to a host, as far as rules look back. Every list is bounded and survives restarts (rule 14).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Power cycles, newest last, at most 16.
    pub cycles: Vec<Elapsed>,
    /// Reimages, newest last, at most 8.
    pub reimages: Vec<Elapsed>,
    /// Heals, newest last, at most 16.
    pub heals: Vec<Elapsed>,
    /// Component restarts, newest last, at most 16.
    pub component_restarts: Vec<Elapsed>,
    /// Kernel boots seen, newest last, at most 8.
    pub boots: Vec<Elapsed>,
    /// Silences that ended by themselves within a minute: when and how long, at most 8 (rule 3).
    pub benign_silences: Vec<(Elapsed, Millis)>,
    /// Flap points and when they were last reckoned (rule 8).
    pub flap: (u32, Elapsed),
    /// It was Ready here at least once (rule 9).
    pub seen_healthy: bool,
    /// Learned p99 of the time from boot to Ready.
    pub boot_p99_ms: Option<Millis>,
    /// The last boot of the node seen while Ready.
    pub last_boot: Option<BootId>,
    /// It was a spare once: the reserve is reckoned on the size that the spare pool had (rule 16).
    pub was_spare: bool,
    /// The incident that this spare is promised to.
    pub promised: Option<IncidentId>,
    /// A person returned it to service, and our cordon is still to be removed.
    pub returned: bool,
    /// A person said no to healing the present illness: no new incident until it was Ready again.
    pub declined: bool,
    /// A person ordered the proof of this spare by typing its serial, and it has not begun yet.
    #[serde(default)]
    pub proof_ordered: bool,
    /// A person ordered a drill of this host by typing its serial, and it has not begun yet.
    #[serde(default)]
    pub drill_ordered: bool,
    /// Why the last proof or drill that a person ordered was not begun.
    #[serde(default)]
    pub order_refused: Option<Explanation>,
    /// Until when an orderly reboot holds power back (rule 33).
    pub rebooting_until: Option<Elapsed>,
    /// What its firmware tries first.
    #[serde(default)]
    pub boot_order: BootOrder,
    /// When it fell silent before our eyes, since it was last Ready.
    #[serde(default)]
    pub fell_silent: Option<Elapsed>,
    /// In that silence it was seen off, or in its self test: its firmware has run.
    #[serde(default)]
    pub firmware_ran: bool,
    /// It has asked the network for something to boot since it was last Ready.
    #[serde(default)]
    pub asked_in_boot: bool,
    /// Its first question of those to which nothing has come yet.
    #[serde(default)]
    pub asked_since: Option<Elapsed>,
}

/// Appends a moment to a bounded list, dropping the oldest.
pub(crate) fn remember<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() >= most {
        list.remove(0);
    }
    list.push(item);
}

/// How many moments of a list lie within `span` before now.
#[must_use]
pub fn within(list: &[Elapsed], span: Millis, now: Now) -> u64 {
    list.iter().filter(|&&at| now.elapsed.since(at) < span).count() as u64
}

impl History {
    /// How old a Lease must be before power: 22 s for a quiet host, else 1.5 × its longest benign silence of 30 days,
    /// at most 60 s (rule 3).
    #[must_use]
    pub fn patience_ms(&self, limits: &Limits, now: Now) -> Millis {
        let recent = self.benign_silences.iter().filter(|(at, _)| now.elapsed.since(*at) < 30 * DAY);
        match recent.map(|&(_, span)| span).max() {
            Some(span) if span > limits.benign_silence_ms => {
                (span * limits.benign_factor_percent / 100).clamp(limits.lease_overdue_ms, limits.benign_cap_ms)
            }
            _ => limits.lease_overdue_ms,
        }
    }

    /// Flap points left now (rule 8: one is forgiven per 10 min).
    #[must_use]
    pub fn flap_points(&self, limits: &Limits, now: Now) -> u64 {
        let (points, at) = self.flap;
        u64::from(points).saturating_sub(now.elapsed.since(at) / limits.flap_decay_ms.max(1))
    }

    /// Time a boot of this host may take: 15 min, or its learned p99 × 1.5 if that is longer (rule 9).
    #[must_use]
    pub fn boot_budget_ms(&self, limits: &Limits) -> Millis {
        let learned = self.boot_p99_ms.map_or(0, |p99| p99 * limits.boot_factor_percent / 100);
        learned.max(limits.boot_budget_ms)
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its number.
    pub id: HostId,
    /// Its name, and its Node's.
    pub name: String,
    /// Its cluster; a spare has the one it may serve, or none.
    pub cluster: Option<ClusterId>,
    /// Its pool.
    pub pool: PoolId,
    /// What it is for.
    pub role: Role,
    /// Physical failure domains: rack, PDU, switch, chassis; at most 8.
    pub domains: Vec<DomainId>,
    /// Versions of image, kernel, kubelet and firmware; at most 8 (rule 15).
    pub versions: Vec<VersionId>,
    /// The storage system it serves (rule 28).
    pub storage: Option<StorageId>,
    /// The identity in our record.
    pub machine: MachineId,
    /// Whether the BMC is proven to be its own.
    pub link: Link,
    /// It has a second proof: PDU outlets that we can switch and read.
    pub outlets: bool,
    /// The disk that may be written, by serial or WWN; `None` = never reimaged (rule 36).
    pub disk: Option<String>,
    /// Where it stands.
    pub lifecycle: Lifecycle,
    /// Marks by people.
    pub marks: Marks,
    /// A spare's last proof.
    pub spare_proof: Option<SpareProof>,
    /// The last drill: when it ended, and whether it passed.
    #[serde(default)]
    pub drill: Option<SpareProof>,
    /// What the sources mean.
    pub assessment: Assessment,
    /// What happened to it.
    pub history: History,
    /// The incident open on it.
    pub incident: Option<IncidentId>,
    /// We cordoned it, for this incident.
    pub our_cordon: Option<IncidentId>,
    /// We put the out-of-service taint on it, for this incident, and have not seen it gone.
    pub our_taint: Option<IncidentId>,
    /// We switched it off (or found it off and took it over) and have not yet switched it on.
    pub held_off: Option<IncidentId>,
}

impl Host {
    /// Whether it is a control-plane host.
    #[must_use]
    pub fn control_plane(&self) -> bool {
        self.role == Role::ControlPlane
    }

    /// Whether its Node counts for its cluster: in service, carrying a Node.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.role != Role::Spare && self.lifecycle == Lifecycle::InService
    }

    /// *Ready* in the sense of the safety rules.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.serves() && self.assessment.ready(self.control_plane())
    }

    /// *Bad* in the sense of rule 5.
    #[must_use]
    pub fn bad(&self) -> bool {
        self.serves() && self.assessment.bad(self.control_plane())
    }
}
