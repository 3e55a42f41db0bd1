//! Commands: what a decision orders. An [`Intent`] is what the journal keeps; a [`Command`] is the intent together with
//! the proof that it needs, and only such a pair reaches an executor.

use crate::assess::NetworkState;
use crate::budget::Permit;
use crate::explain::Explanation;
use crate::fence::{ProvenOff, Reading};
use crate::id::{BootId, ClusterId, HostId, IncidentId, JobId, MachineId, StepId};
use crate::rules::{Enforced, Rules};
use crate::signal::{BmcTrouble, BootStage, Component, NodeReport, Power};
use crate::time::{Elapsed, Millis, Now};
use serde::{Deserialize, Serialize};

/// What a step does. Serialised into the journal before anything happens (rule 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Restart a component through the agent.
    RestartComponent(Component),
    /// Cordon the Node (nothing stronger before proof, rule 24).
    Cordon,
    /// The last look: 3 ICMP, 1 TCP, Lease GET, BMC power and identity.
    LastLook {
        /// The BMC is known to be slow: 15 s instead of 3 s.
        slow_bmc: bool,
    },
    /// Orderly reboot through BMC or agent.
    SoftReboot,
    /// Force off, then read Off twice.
    ForceOff {
        /// When it is an unasked Off that we take over: no command, two reads at least 10 s apart (rule 31).
        found_off: bool,
    },
    /// Read power twice again, without a command: a proof is earned anew.
    ProveOff,
    /// Switch the host's PDU outlets off and read them: the second proof.
    OutletsOff,
    /// Out-of-service taint, forced pod deletion, volume detach, and the taint off again.
    Release {
        /// The host stays off, so the taint stays until Node deletion or the end of the incident (rule 25).
        keep_taint: bool,
    },
    /// Power on.
    PowerOn {
        /// Ordered by an identity alarm: exempt from the identity check (rule 29).
        alarm: bool,
    },
    /// Open the boot ticket of the job, set one-shot network boot and read it back.
    ArmBoot(JobId),
    /// Close the ticket of the job, whatever became of it.
    CloseTicket(JobId),
    /// Remove the old Node, Lease, VolumeAttachments, etcd member (by ID) and distribution secrets (rule 41).
    RemoveIdentity {
        /// The etcd member to remove first, if it is a control-plane host.
        etcd_member: Option<u64>,
    },
    /// Mint the join credential, for one node (rule 40).
    MintCredential(JobId),
    /// Look at the spare live, that it is the machine in the record and off: then it takes the role, and is installed in
    /// an incident of its own.
    Promote(HostId),
    /// Open the ticket of the job that proves a spare, set one-shot network boot and read it back (rule 43).
    ArmProof(JobId),
    /// Run the canary pod (the node's own pause image).
    Canary,
    /// Restore labels and taints, delete the join credential, remove our cordon.
    Return,
    /// Remove our taint; with `uncordon` our cordon too. Used by safe completion and when a host came back by itself.
    Withdraw {
        /// Remove our cordon too.
        uncordon: bool,
    },
}

impl Intent {
    /// A failure of it leads nowhere else: it waits, and is tried again.
    #[must_use]
    pub fn tried_again(&self) -> bool {
        matches!(
            self,
            Intent::ArmBoot(_)
                | Intent::ArmProof(_)
                | Intent::CloseTicket(_)
                | Intent::Promote(_)
                | Intent::PowerOn { .. }
                | Intent::MintCredential(_)
                | Intent::Canary
                | Intent::Return
                | Intent::Withdraw { .. }
        )
    }

    /// Needs a [`Permit`].
    #[must_use]
    pub fn needs_permit(&self) -> bool {
        match self {
            Intent::SoftReboot
            | Intent::ForceOff { .. }
            | Intent::OutletsOff
            | Intent::ArmBoot(_)
            | Intent::ArmProof(_)
            | Intent::Promote(_) => true,
            Intent::RestartComponent(_)
            | Intent::Cordon
            | Intent::LastLook { .. }
            | Intent::ProveOff
            | Intent::Release { .. }
            | Intent::PowerOn { .. }
            | Intent::CloseTicket(_)
            | Intent::RemoveIdentity { .. }
            | Intent::MintCredential(_)
            | Intent::Canary
            | Intent::Return
            | Intent::Withdraw { .. } => false,
        }
    }

    /// Needs a [`ProvenOff`].
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        match self {
            Intent::Release { .. } | Intent::RemoveIdentity { .. } => true,
            Intent::RestartComponent(_)
            | Intent::Cordon
            | Intent::LastLook { .. }
            | Intent::SoftReboot
            | Intent::ForceOff { .. }
            | Intent::ProveOff
            | Intent::OutletsOff
            | Intent::PowerOn { .. }
            | Intent::ArmBoot(_)
            | Intent::ArmProof(_)
            | Intent::CloseTicket(_)
            | Intent::MintCredential(_)
            | Intent::Promote(_)
            | Intent::Canary
            | Intent::Return
            | Intent::Withdraw { .. } => false,
        }
    }
}

/// What an executor must know of the host, copied from the record when the command was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The host.
    pub host: HostId,
    /// Its Node's name.
    pub name: String,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// The identity that the BMC must show live.
    pub machine: MachineId,
    /// It is *linked*.
    pub linked: bool,
    /// Its present Off was found, not ordered: proofs take the longer gap (rule 31).
    pub found_off: bool,
    /// Its network state when the step was ordered: whoever answers more than that right before the command lives.
    pub network: NetworkState,
    /// Its outlets are off by us: they are the witness of its Off, and are switched on before its power.
    pub outlets_off: bool,
    /// When an on of ours may have left that no executor reads back any more (rule 44).
    #[serde(default)]
    pub on_left: Option<Elapsed>,
    /// The boot that the Node ran when it fell ill.
    pub boot_before: Option<BootId>,
    /// The disk that may be written.
    pub disk: Option<String>,
    /// For `Promote`: the spare's identity.
    pub spare_machine: Option<MachineId>,
    /// How long a forced effect may take (rule 30).
    pub effect_ms: Millis,
    /// Gap between two Off reads after our command, and of a found Off.
    pub off_gap_ms: Millis,
    /// Gap between two Off reads of a found Off.
    pub found_off_gap_ms: Millis,
    /// Most time for a release (rule 25).
    pub release_ms: Millis,
    /// Time for the last look.
    pub last_look_ms: Millis,
    /// Between two writes to the BMC (rule 32).
    pub action_spacing_ms: Millis,
}

/// The right by which a step is done.
#[derive(Debug)]
pub enum Warrant<R: Rules> {
    /// None is needed.
    Free,
    /// A permit of the budget.
    Permit(Permit<R>),
    /// A proof that the host is off.
    Proof(ProvenOff<R>),
}

/// A step with its warrant. Not `Clone`, not `Deserialize`: after a restart it is earned again.
#[derive(Debug)]
pub struct Command<R: Rules = Enforced> {
    /// The step's number.
    pub step: StepId,
    /// The incident.
    pub incident: IncidentId,
    /// The host.
    pub target: Target,
    intent: Intent,
    warrant: Warrant<R>,
}

impl<R: Rules> Command<R> {
    /// Joins an intent with its warrant; `None` if the warrant is not of the kind that the intent needs.
    #[must_use]
    pub fn new(
        step: StepId,
        incident: IncidentId,
        target: Target,
        intent: Intent,
        warrant: Warrant<R>,
    ) -> Option<Self> {
        let fits = match &warrant {
            Warrant::Free => !intent.needs_permit() && !intent.needs_proof(),
            Warrant::Permit(permit) => intent.needs_permit() && permit.host() == target.host,
            Warrant::Proof(proof) => intent.needs_proof() && proof.host() == target.host,
        };
        fits.then_some(Command { step, incident, target, intent, warrant })
    }

    /// What is to be done.
    #[must_use]
    pub fn intent(&self) -> Intent {
        self.intent
    }

    /// By which right.
    #[must_use]
    pub fn warrant(&self) -> &Warrant<R> {
        &self.warrant
    }
}

/// What the last look saw (rule 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLook {
    /// Any of three echoes was answered.
    pub icmp: bool,
    /// The TCP port answered (SYN/ACK or RST).
    pub tcp: bool,
    /// Whether a GET showed a Lease change since the step began; `None` if the API did not answer.
    pub lease_renewed: Option<bool>,
    /// The Node as the GET showed it.
    pub node: Option<NodeReport>,
    /// Power read live.
    pub power: Power,
    /// Identity read live.
    pub identity: Option<MachineId>,
    /// Boot stage read live; a firmware task or shutdown forbids power (rule 33).
    pub stage: BootStage,
    /// When the last answer came.
    pub last_answer: Elapsed,
    /// When the look began.
    pub began: Elapsed,
}

/// Why a step failed. Ambiguous = the effect may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Failure {
    /// The BMC did not answer.
    BmcSilent,
    /// The BMC refused the credential (rule 32).
    BmcRefused,
    /// The BMC was busy to the end.
    BmcBusy,
    /// The live identity is not the record's (rule 29).
    WrongMachine,
    /// The power changed, but not by us (rule 31).
    ForeignChange,
    /// A firmware task or a shutdown is under way (rule 33).
    FirmwareTask,
    /// Accepted without effect for 60 s (rule 30).
    NoEffect,
    /// One-shot boot did not read back as set (rule 34).
    BootNotSet,
    /// The API did not answer in time.
    ApiSilent,
    /// The API refused (RBAC, admission).
    ApiRefused,
    /// Pods or volumes stayed to the end.
    NotReleased,
    /// Pods and volumes are gone; our taint could not be taken away.
    TaintStays,
    /// The agent did not answer.
    AgentSilent,
    /// The canary did not run.
    CanaryFailed,
    /// Power came back during a release (rule 29).
    CameBack,
    /// The target, silent until now, answered right before the command: nothing was sent (rule 1).
    Answered,
    /// Cancelled by pause, before anything non-idempotent was sent.
    Cancelled,
    /// The step has no warrant or an input that cannot be.
    Invalid,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepResult {
    /// Done and read back.
    Done,
    /// It was so already; nothing was sent.
    AlreadySo,
    /// The last look.
    Looked(LastLook),
    /// Power readings, for the fence to judge; `off_sent` is when the first off command left, if one did.
    Readings {
        /// The readings in order, at most 32 are kept.
        readings: Vec<Reading>,
        /// When our first off left.
        off_sent: Option<Elapsed>,
    },
    /// It failed; what was read until then comes along.
    Failed {
        /// Why.
        why: Failure,
        /// What was read.
        readings: Vec<Reading>,
        /// Whether anything non-idempotent or disruptive may have left.
        sent: bool,
    },
}

/// A call on a BMC. Only `ForceOff` and `PowerOn` are idempotent and may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcCall {
    /// Live identity (UUID).
    Identify,
    /// Live power, identity and off cause in one session.
    ReadPower,
    /// Force off.
    ForceOff,
    /// Power on.
    PowerOn,
    /// Graceful restart.
    GracefulRestart,
    /// Boot progress and firmware tasks.
    ReadStage,
    /// Set one-shot network boot.
    SetNetworkBootOnce,
    /// Read the boot override back: true = network, once.
    ReadNetworkBootOnce,
}

/// A call on a cluster's API, about the step's Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterCall {
    /// GET the Node and its Lease.
    ReadNode,
    /// Set unschedulable, with our mark.
    Cordon,
    /// Remove our cordon, if it is ours.
    Uncordon,
    /// Put the out-of-service taint with the incident in its value.
    PutTaint,
    /// Remove our out-of-service taint.
    RemoveTaint,
    /// Delete the node's pods without grace.
    DeletePods,
    /// Delete its VolumeAttachments.
    DeleteVolumeAttachments,
    /// Count what is left: pods and attachments.
    ReadLeftovers,
    /// Delete the Node, its Lease and distribution secrets.
    DeleteNode,
    /// Remove an etcd member by ID.
    RemoveEtcdMember(u64),
    /// Mint the join credential.
    MintCredential,
    /// Delete the join credential.
    DeleteCredential,
    /// Restore recorded labels and taints.
    RestoreLabels,
    /// Create the canary pod.
    CreateCanary,
    /// Read whether it runs.
    ReadCanary,
    /// Delete it.
    DeleteCanary,
}

/// What the step machine asks an executor to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// On the BMC of a host.
    Bmc(HostId, BmcCall),
    /// On the API of the target's cluster.
    Cluster(ClusterCall),
    /// Three echoes and one SYN to the target.
    Probe,
    /// Switch the target's outlets off.
    OutletsOff,
    /// Switch the target's outlets on.
    OutletsOn,
    /// Read the target's outlets: true = all off.
    ReadOutlets,
    /// Ask the target's agent to restart a component.
    RestartComponent(Component),
    /// Open the boot ticket.
    OpenTicket(JobId),
    /// Open the boot ticket of a job that proves a spare and writes nothing.
    OpenProofTicket(JobId),
    /// Close it.
    CloseTicket(JobId),
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It was accepted or is done.
    Ok,
    /// A power reading.
    Power(Reading),
    /// A live identity.
    Identity(Option<MachineId>),
    /// A boot stage.
    Stage(BootStage),
    /// A yes-or-no reading.
    Flag(bool),
    /// The probe: echo answered, port answered.
    Probed {
        /// An echo came back.
        icmp: bool,
        /// The port answered or refused.
        tcp: bool,
    },
    /// The Node (`None` = gone) and whether its Lease changed since the step began.
    Node {
        /// The Node.
        node: Option<NodeReport>,
        /// The Lease changed since the step began.
        lease_renewed: bool,
    },
    /// Pods and attachments left.
    Leftovers {
        /// Pods still there.
        pods: u32,
        /// VolumeAttachments still there.
        attachments: u32,
    },
    /// The BMC gave nothing. With a write the effect is unknown (lost reply).
    BmcTrouble(BmcTrouble),
    /// The BMC says that it is so already (409 and kin).
    Conflict,
    /// The API did not answer in time.
    ApiSilent,
    /// The API refused.
    ApiRefused,
    /// The agent did not answer.
    AgentSilent,
}

/// What the step machine observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// The step begins. Also after a restart: an open intent is re-observed first.
    Begin,
    /// The reply to the last call.
    Reply(Reply),
    /// The moment asked for has come.
    Timer,
    /// A person paused: unsent steps stop within a second (rule 49).
    Cancel,
}

/// What the step machine wants next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextCall {
    /// Make this call and come back with the reply.
    Call(Call),
    /// Come back at this moment.
    WaitUntil(Elapsed),
    /// Finished.
    Done(StepResult),
}

/// Everything one decision produced.
#[derive(Debug)]
pub struct Outcome<R: Rules = Enforced> {
    /// To be journaled and applied, in order.
    pub changes: Vec<crate::event::Change>,
    /// To be executed after the commit.
    pub commands: Vec<Command<R>>,
    /// Steps to be cancelled: a pause (rule 49) or an identity alarm (rule 29). The step machine ends them safely.
    pub cancels: Vec<StepId>,
    /// When to come back; a later entry for the same target replaces an earlier one.
    pub wakeups: Vec<Wakeup>,
    /// What to tell people: for the host's page, the audit and the pager.
    pub notices: Vec<Notice>,
}

impl<R: Rules> Default for Outcome<R> {
    fn default() -> Self {
        Outcome {
            changes: Vec::new(),
            commands: Vec::new(),
            cancels: Vec::new(),
            wakeups: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// Who is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WakeTarget {
    /// A host: the event carries its evidence.
    Host(HostId),
    /// The site as a whole.
    Site,
}

/// A timer. One per target; the newest holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wakeup {
    /// Who.
    pub target: WakeTarget,
    /// When, running time.
    pub at: Elapsed,
}

/// How loud a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Loudness {
    /// Kept with the incident.
    Log,
    /// A human is paged.
    Page,
}

/// Something a person should be able to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// About which host, if about one.
    pub host: Option<HostId>,
    /// In which incident.
    pub incident: Option<IncidentId>,
    /// How loud.
    pub loudness: Loudness,
    /// What.
    pub explanation: Explanation,
    /// When.
    pub at: Now,
}
