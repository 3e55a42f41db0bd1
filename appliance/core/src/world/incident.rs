//! An incident: a host's illness from first suspicion to its one terminal state, with its plan and where it stands.

use crate::command::Intent;
use crate::explain::Explanation;
use crate::id::{BootId, ClusterId, DomainId, HostId, IncidentId, JobId, PoolId, StepId};
use crate::rules::Rule;
use crate::signal::{Component, ComponentCause, HardwareFault, Power};
use crate::time::{Elapsed, Expiry, Millis};
use serde::{Deserialize, Serialize};

/// What the evidence says is wrong (design section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Diagnosis {
    /// A Kubernetes component is dead or hung on a living host.
    ComponentFailed(Component, ComponentCause),
    /// A certificate runs out soon.
    CertificateExpiring,
    /// An orderly reboot is under way.
    Rebooting,
    /// The kernel answers pings, nothing else does.
    HostHung,
    /// Nothing answers, the power is on.
    KernelDead,
    /// The BMC says Off and we did not ask for it.
    PoweredOff,
    /// It starts but does not come back.
    BootFailed(BootFailure),
    /// The host lives (its Lease is renewed, or its agent or BMC say so) but its network path to us does not.
    NodeLostNetwork,
    /// Hardware that no reboot cures.
    HardwareFault(HardwareFault),
    /// The disk or the operating system on it is broken.
    DiskOrOsBroken,
    /// It turns bad again and again.
    Flapping,
    /// The API is unreachable from here.
    ApiUnreachable,
    /// The virtual address of the control plane is silent while endpoints live.
    VipLost,
    /// A whole physical domain went silent at once.
    DomainOutage(DomainId),
    /// Too much of a cluster is bad at once.
    SiteStorm,
    /// We do not trust our own eyes.
    Blind,
    /// The BMC does not answer.
    BmcUnreachable,
    /// The evidence says ill but not what.
    Unknown,
    /// Nothing is wrong: a spare takes the place of a host that could not be healed.
    PlaceVacant,
    /// Nothing is wrong: a spare is due to be proven (rule 43).
    ProofDue,
    /// Nothing is wrong: a person ordered a drill.
    DrillOrdered,
}

/// At which stage a boot failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BootFailure {
    /// It asked the network for something to boot: nothing on its disk.
    NoLocalBoot,
    /// It boots over and over.
    Loop,
    /// It did not come back in its boot budget.
    Late,
}

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rung {
    /// Restart the component through the agent.
    RestartComponent(Component),
    /// An orderly reboot.
    SoftReboot,
    /// Off, proven, released, on.
    PowerCycle,
    /// The disk is rewritten.
    Reimage,
    /// A spare takes the role.
    Replace,
    /// A spare is proven: power, boot, disk and card, nothing written (rule 43).
    Prove,
    /// A human.
    Human,
}

impl Rung {
    /// Disruptive = reboot or stronger.
    #[must_use]
    pub fn disruptive(self) -> bool {
        match self {
            Rung::SoftReboot | Rung::PowerCycle | Rung::Reimage | Rung::Replace => true,
            Rung::RestartComponent(_) | Rung::Prove | Rung::Human => false,
        }
    }

    /// Destructive = writes a disk.
    #[must_use]
    pub fn destructive(self) -> bool {
        match self {
            Rung::Reimage => true,
            Rung::RestartComponent(_)
            | Rung::SoftReboot
            | Rung::PowerCycle
            | Rung::Replace
            | Rung::Prove
            | Rung::Human => false,
        }
    }
}

/// Where a plan stands within its rung. Each phase is left by a result, by evidence or by its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Evidence gathers; nothing was done yet.
    Suspected,
    /// The component is being restarted.
    Restarting,
    /// The restarted component gets its time to come back.
    ComponentCure,
    /// The cordon is being set.
    Cordoning,
    /// The last look.
    LastLook,
    /// The orderly reboot runs.
    SoftRebooting,
    /// Force-off was ordered.
    PoweringOff,
    /// Off is being proven (again), without a new command.
    Proving,
    /// Off is not provable: nothing is released.
    Unfenced,
    /// Pods and volumes are being released.
    Releasing,
    /// Kept off for a reason: API away, AC to settle, hardware, a person.
    HeldOff,
    /// The boot ticket is opened and one-shot network boot set.
    Arming,
    /// Power-on was ordered.
    PoweringOn,
    /// The installer works.
    Installing,
    /// The old identity is being removed and the join credential minted.
    Rejoining,
    /// Waiting for Ready with a new boot.
    AwaitingReady,
    /// Ready, soaking.
    Soaking,
    /// The canary pod runs.
    Canary,
    /// Labels restored, cordon removed.
    Returning,
    /// A spare is being made the new host.
    Promoting,
    /// It came back by itself, or a person stopped the heal: our marks are being taken away.
    Withdrawing,
    /// Safe completion: our taint removed, the host that we hold off switched on.
    SafeCompletion,
    /// The end is being written down (cordon stays, a human is told).
    GivingUp,
    /// The proof of a spare is over: its ticket is closed, what it showed is kept.
    Concluding,
}

/// The one terminal state of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum End {
    /// Cured by us.
    Healed,
    /// A spare took the role; the host is in quarantine.
    Replaced,
    /// Out of service with its evidence; a person decides.
    Quarantined,
    /// It returned by itself, or a person stopped the heal.
    Aborted,
    /// A spare showed power, boot, disk and card, or a drill what it was to show; nobody was ill.
    Proven,
    /// They were not shown: a spare is not used, a BMC not relied on.
    Unproven,
}

/// What an incident is for. All but the first are of machines that are not ill: no evidence is asked for, and none of it
/// leads back to the ladder of an ill host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Purpose {
    /// An illness is healed.
    #[default]
    Heal,
    /// A spare is installed and takes the place of another host.
    TakePlace {
        /// Whose place.
        of: HostId,
        /// The pool that it was a spare of, for its return if it fails.
        pool: PoolId,
        /// The cluster that it was a spare of.
        cluster: Option<ClusterId>,
    },
    /// A spare is proven.
    Prove {
        /// A person ordered it by typing the serial: the one way to start a spare that is not linked yet.
        ordered: bool,
    },
    /// A host that a person has cordoned is power-cycled by his order, to show that it can be.
    Drill,
}

/// What is waited for, and since when, so that "why is this host not healing" is always answerable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The rule that blocks, the code and the sentence.
    pub why: Explanation,
    /// Since when this same reason holds.
    pub since: Elapsed,
    /// When a human was last paged about it.
    pub paged_at: Option<Elapsed>,
}

/// A step that an executor works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its number.
    pub step: StepId,
    /// What it does.
    pub intent: Intent,
    /// When the command was committed.
    pub issued_at: Elapsed,
    /// When the result is overdue.
    pub deadline: Elapsed,
}

/// The open reservation of a rung: what a permit is earned from again after a restart. Counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The rung it permits.
    pub rung: Rung,
    /// When it was made.
    pub at: Elapsed,
    /// Cluster it counts in.
    pub cluster: Option<ClusterId>,
    /// Pool it counts in.
    pub pool: PoolId,
    /// Domains it counts in.
    pub domains: Vec<DomainId>,
    /// It counts as the control-plane action of its cluster.
    pub control_plane: bool,
    /// The storage system it counts in (rule 28).
    pub storage: Option<crate::id::StorageId>,
    /// The host read On again: a silent host of another domain may be fenced (rule 11).
    pub read_on: bool,
    /// Power steps already taken under it.
    pub power_steps: u32,
    /// Installs already begun under it.
    pub installs: u32,
}

/// A person's approval (rule 51), bound to what the person saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// For this rung.
    pub rung: Rung,
    /// Of this diagnosis.
    pub diagnosis: Diagnosis,
    /// With this boot.
    pub boot: Option<BootId>,
    /// With this power state.
    pub power: Power,
    /// Until then.
    pub expires: Expiry,
}

/// The record of a proof of off, for display and audit. The proof itself is never stored: it is earned again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRecord {
    /// When it was proven.
    pub at: Elapsed,
    /// Which witness: BMC, outlets or a human.
    pub witness: crate::fence::Witness,
}

/// When each stage was reached (rule 57), in running time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// The last sign of life before the incident.
    pub last_sign_of_life: Option<Elapsed>,
    /// First suspicion.
    pub suspected: Option<Elapsed>,
    /// Two planes agreed.
    pub confirmed: Option<Elapsed>,
    /// The permit.
    pub permitted: Option<Elapsed>,
    /// Off was ordered.
    pub off_ordered: Option<Elapsed>,
    /// Off was proven.
    pub proven_off: Option<Elapsed>,
    /// Workloads were released.
    pub released: Option<Elapsed>,
    /// Power-on was ordered.
    pub power_on: Option<Elapsed>,
    /// Ready again.
    pub ready: Option<Elapsed>,
}

/// What the present fence knows, kept until the host is on again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fence {
    /// We found it off; nobody here ordered it.
    pub found_off: bool,
    /// When our first off command was sent, as the executor tells.
    pub off_at: Option<Elapsed>,
    /// When an off of ours last left, or may have left: an Off that shows within its time to take effect is ours, even
    /// if the power was read On in between. Kept until we switch it on.
    #[serde(default)]
    pub our_off: Option<Elapsed>,
    /// When an on of ours left, or may have left, whose executor was lost: it is not followed by another before its time
    /// to take effect is over (rules 30, 44).
    #[serde(default)]
    pub our_on: Option<Elapsed>,
    /// The BMC took an off and the host stayed on: another off is no proof either, a person is asked (rules 27, 30).
    #[serde(default)]
    pub off_ignored: bool,
    /// We switched its outlets off and have not switched them on again.
    #[serde(default)]
    pub outlets_off: bool,
    /// A human confirmed that it is off, by typing its serial.
    pub human_confirmed: Option<Elapsed>,
    /// When the host must be on again (rule 25), for safe completion.
    pub on_deadline: Option<Elapsed>,
    /// Proof was tried this often without success.
    pub failed_proofs: u32,
    /// Since when its pods and volumes cannot be released: the API refuses, or the witness of its off falls silent.
    #[serde(default)]
    pub refused_since: Option<Elapsed>,
    /// When proof was first impossible (rule 27's re-reading clock).
    pub unfenced_since: Option<Elapsed>,
}

impl Incident {
    /// The executor of the running step is lost: what it was to send may have been sent.
    pub fn executor_lost(&mut self, now: Elapsed) {
        match self.running.take().map(|running| running.intent) {
            Some(Intent::ForceOff { found_off: false }) => self.fence.off_left(now),
            Some(Intent::PowerOn { .. }) => self.fence.our_on = Some(now),
            _ => {}
        }
    }
}

impl Fence {
    /// What was sent cannot be recalled: remembers that an off of ours left, or may have.
    pub fn off_left(&mut self, at: Elapsed) {
        self.our_off = self.our_off.max(Some(at));
        self.our_on = None;
    }

    /// A new fence of the same incident: what was sent to the machine stays known.
    #[must_use]
    pub fn anew(&self) -> Fence {
        Fence { outlets_off: self.outlets_off, our_off: self.our_off, our_on: self.our_on, ..Fence::default() }
    }
}

/// An incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// What it is for.
    #[serde(default)]
    pub purpose: Purpose,
    /// Whose illness.
    pub host: HostId,
    /// When it opened, running time.
    pub opened_at: Elapsed,
    /// When it opened, wall clock, Unix milliseconds.
    pub opened_wall_ms: i64,
    /// What is wrong, as of now.
    pub diagnosis: Diagnosis,
    /// The ladder for this diagnosis.
    pub rungs: Vec<Rung>,
    /// The rung it stands on.
    pub rung: usize,
    /// Where in the rung.
    pub phase: Phase,
    /// Since when in this phase.
    pub phase_since: Elapsed,
    /// The step an executor works on.
    pub running: Option<Running>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// Steps issued so far in this incident; the next step's number comes from it.
    pub steps_issued: u32,
    /// Tries of the present step.
    pub tries: u32,
    /// When the last try failed, of a step that is simply tried again.
    #[serde(default)]
    pub failed_at: Option<Elapsed>,
    /// Which step that was.
    #[serde(default)]
    pub failed_step: Option<Intent>,
    /// Power cycles of this incident.
    pub cycles: u32,
    /// A soft reboot was ordered in it.
    #[serde(default)]
    pub soft_rebooted: bool,
    /// The open reservation.
    pub reservation: Option<Reservation>,
    /// The present fence.
    pub fence: Fence,
    /// The last proof.
    pub proof: Option<ProofRecord>,
    /// Workloads were released in this incident (rule 36).
    pub released: bool,
    /// The old Node, Lease, attachments and etcd member are gone (rule 41).
    pub identity_removed: bool,
    /// The boot that the host ran when it fell ill: only another one counts as back (rule 42).
    pub boot_before: Option<BootId>,
    /// When it was first powered on in this rung: its boot budget runs from here.
    pub booted_at: Option<Elapsed>,
    /// Ready without a gap since.
    pub ready_since: Option<Elapsed>,
    /// The reimage job.
    pub job: Option<JobId>,
    /// The image is written and verified; what is left is to rejoin.
    pub installed: bool,
    /// When the installer last reported.
    pub progress_at: Option<Elapsed>,
    /// The last word of an installer that ended before the result of its power-on was known.
    #[serde(default)]
    pub early_report: Option<crate::event::InstallReport>,
    /// When the ticket of the job was opened.
    pub ticket_at: Option<Elapsed>,
    /// The ticket of `job` was opened, or may have been, and is not closed.
    #[serde(default)]
    pub ticket_open: bool,
    /// The spare that takes its place.
    pub spare: Option<HostId>,
    /// An identity alarm stopped its fence: power-on is exempt from the identity check (rule 29).
    pub alarmed: bool,
    /// A person approved.
    pub approval: Option<Approval>,
    /// A person said no: the ladder ends.
    pub denied: bool,
    /// How it is to end once its marks are away.
    pub ending: Option<End>,
    /// Its end.
    pub end: Option<End>,
    /// When a human last heard of it (rule 55: never silent for more than 10 min).
    pub last_word: Elapsed,
    /// Stages.
    pub timings: Timings,
    /// Rules that blocked it, with the milliseconds of each, for the table at the end.
    pub blocked_ms: Vec<(Rule, Millis)>,
}

impl Incident {
    /// It is of a spare, which is not ill.
    #[must_use]
    pub fn of_spare(&self) -> bool {
        matches!(self.purpose, Purpose::TakePlace { .. } | Purpose::Prove { .. })
    }

    /// It is a drill.
    #[must_use]
    pub fn drills(&self) -> bool {
        self.purpose == Purpose::Drill
    }

    /// It proves a spare.
    #[must_use]
    pub fn proves(&self) -> bool {
        matches!(self.purpose, Purpose::Prove { .. })
    }

    /// The present rung.
    #[must_use]
    pub fn current_rung(&self) -> Rung {
        self.rungs.get(self.rung).copied().unwrap_or(Rung::Human)
    }
}
