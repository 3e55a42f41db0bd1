//! What the simulation shows to those who check it: each decision, each call outside, each injected fault, each
//! restart, and the end. A [`Checker`] compares what the core did with the [`GroundTruth`], which the core never sees.

use crate::fault::Fault;
use healing::command::{Call, Intent, Notice, Reply, StepResult, Wakeup};
use healing::event::{Change, Event};
use healing::id::{BootId, ClusterId, HostId, IncidentId, JobId, MachineId, StepId, StorageId};
use healing::rules::Rule;
use healing::signal::Power;
use healing::time::{Elapsed, Millis, Now};
use healing::world::World;
use healing::world::host::Host;
use healing::world::incident::Incident;
use healing::world::scope::{Cluster, Site};
use std::collections::BTreeMap;

/// True time of the simulated world in milliseconds since its beginning. It goes on while the appliance is down or
/// stopped, unlike [`Elapsed`].
pub type WorldTime = u64;

/// A command of a decision, without its warrant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordered {
    /// The step.
    pub step: StepId,
    /// The incident.
    pub incident: IncidentId,
    /// The host.
    pub host: HostId,
    /// What.
    pub intent: Intent,
    /// Whether it came with a permit, a proof or nothing.
    pub warrant: WarrantKind,
}

/// The kind of warrant that a command carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarrantKind {
    /// None was needed.
    Free,
    /// A permit.
    Permit,
    /// A proof that the host is off, made then.
    Proof {
        /// When it was proven.
        at: Elapsed,
    },
}

/// The records that a decision changed, as they were before it. `None` = the record did not exist.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// Hosts.
    pub hosts: BTreeMap<HostId, Option<Host>>,
    /// Incidents.
    pub incidents: BTreeMap<IncidentId, Option<Incident>>,
    /// Clusters.
    pub clusters: BTreeMap<ClusterId, Option<Cluster>>,
    /// The site, if it changed.
    pub site: Option<Site>,
}

/// One decision, after its changes were applied and committed.
#[derive(Debug)]
pub struct Decided<'a> {
    /// True time.
    pub at: WorldTime,
    /// The appliance's time.
    pub now: Now,
    /// Which appliance decided (0, or 1 for the standby).
    pub appliance: u8,
    /// The changed records as they were before.
    pub before: &'a Before,
    /// The world after.
    pub world: &'a World,
    /// What was decided on.
    pub event: &'a Event,
    /// What changed.
    pub changes: &'a [Change],
    /// What was ordered.
    pub ordered: &'a [Ordered],
    /// Which steps were cancelled.
    pub cancels: &'a [StepId],
    /// What people were told.
    pub notices: &'a [Notice],
    /// Timers.
    pub wakeups: &'a [Wakeup],
}

/// One call to the outside, with its reply. Shown at the moment when the call takes its effect.
#[derive(Debug)]
pub struct Called<'a> {
    /// True time of the effect.
    pub at: WorldTime,
    /// The appliance's time of the effect.
    pub now: Now,
    /// Which appliance called.
    pub appliance: u8,
    /// The step.
    pub step: StepId,
    /// The incident.
    pub incident: IncidentId,
    /// What the step does.
    pub intent: Intent,
    /// The host that is meant.
    pub target: HostId,
    /// The machine that was really reached: another one if cables are swapped, `None` if nothing was.
    pub actual: Option<HostId>,
    /// The call.
    pub call: Call,
    /// What is going to be answered; `None` = the effect happened and the reply is lost.
    pub reply: Option<&'a Reply>,
    /// The appliance's time when the call left.
    pub sent_at: Elapsed,
    /// Whether `actual` was healthy just before the call.
    pub was_healthy: bool,
    /// The power of `actual` just before the call.
    pub was_power: Power,
    /// The world of the appliance that called.
    pub world: &'a World,
}

/// The result of a step, as the executor hands it to the loop.
#[derive(Debug)]
pub struct Finished<'a> {
    /// True time.
    pub at: WorldTime,
    /// The appliance's time.
    pub now: Now,
    /// The step.
    pub step: StepId,
    /// The incident.
    pub incident: IncidentId,
    /// The host.
    pub host: HostId,
    /// What the step did.
    pub intent: Intent,
    /// Its result.
    pub result: &'a StepResult,
}

/// How an appliance stopped or came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// Killed.
    Killed,
    /// Started again.
    Started,
    /// SIGSTOP or starved: it did not run for so long.
    Stopped(Millis),
    /// Its wall clock was stepped by so many milliseconds.
    ClockStepped(i64),
    /// The other appliance took over.
    TookOver,
}

/// A Node in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeTruth {
    /// Condition Ready: True, False or Unknown.
    pub ready: Option<bool>,
    /// The boot that it runs.
    pub boot: BootId,
    /// Cordoned by us, with our mark.
    pub our_cordon: bool,
    /// Cordoned, drained or annotated by somebody else.
    pub foreign_mark: bool,
    /// Our out-of-service taint and the incident that it names.
    pub taint: Option<IncidentId>,
    /// Pods bound to it.
    pub pods: u32,
    /// VolumeAttachments of it.
    pub attachments: u32,
    /// When its Lease was last renewed, true time.
    pub lease_at: WorldTime,
}

/// A member of etcd in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberTruth {
    /// Its ID.
    pub id: u64,
    /// Its host.
    pub host: HostId,
    /// It runs and reaches its peers.
    pub healthy: bool,
    /// A learner.
    pub learner: bool,
}

/// What is really so. The core never sees it.
pub trait GroundTruth {
    /// True time.
    fn at(&self) -> WorldTime;
    /// All hosts of the site, spares included.
    fn hosts(&self) -> Vec<HostId>;
    /// *Healthy*: kernel, kubelet and the path to the API work. A spare or a host off is never healthy.
    fn healthy(&self, host: HostId) -> bool;
    /// The power of the machine.
    fn power(&self, host: HostId) -> Power;
    /// When the machine was last switched on, if it is on.
    fn on_since(&self, host: HostId) -> Option<WorldTime>;
    /// The identity burnt into the machine.
    fn identity(&self, host: HostId) -> MachineId;
    /// The machine that the BMC address in our record of `host` reaches.
    fn behind_bmc(&self, host: HostId) -> HostId;
    /// A firmware task runs on the machine.
    fn firmware_task(&self, host: HostId) -> bool;
    /// How often the machine's disk was written whole, by any job.
    fn disk_writes(&self, host: HostId) -> u32;
    /// The Node that bears the host's name; `None` = there is none.
    fn node(&self, host: HostId) -> Option<NodeTruth>;
    /// Whether something else is known to cure or hold this host: the fault that it has now.
    fn fault(&self, host: HostId) -> Option<Fault>;
    /// The members of a cluster's etcd.
    fn etcd(&self, cluster: ClusterId) -> Vec<MemberTruth>;
    /// Some API endpoint of the cluster works.
    fn api_up(&self, cluster: ClusterId) -> bool;
    /// The appliance's watch on the cluster delivers.
    fn watch_live(&self, cluster: ClusterId) -> bool;
    /// Hosts whose loss reduces the redundancy of a storage system now.
    fn storage_reduced_by(&self, system: StorageId) -> Vec<HostId>;
    /// An upgrade runs on the cluster.
    fn upgrade_running(&self, cluster: ClusterId) -> bool;
    /// The last disruptive action of others on a control-plane host of the cluster.
    fn foreign_action(&self, cluster: ClusterId) -> Option<(HostId, WorldTime)>;
    /// The appliance's own network works: link, gateway and references.
    fn own_sight_good(&self) -> bool;
    /// The appliance can reach the host's network, whatever the host does.
    fn path_to(&self, host: HostId) -> bool;
    /// The open boot ticket of a host.
    fn ticket(&self, host: HostId) -> Option<JobId>;
    /// A join credential exists for the host.
    fn credential(&self, host: HostId) -> bool;
    /// The appliance that holds the lease, and until when, in true time.
    fn lease_holder(&self) -> Option<(u8, WorldTime)>;
}

/// The end of a run.
#[derive(Debug)]
pub struct Ended<'a> {
    /// True time.
    pub at: WorldTime,
    /// The appliance's time.
    pub now: Now,
    /// The world of the appliance that owns the site.
    pub world: &'a World,
    /// The counts of the run.
    pub stats: &'a crate::stats::Stats,
}

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which rule.
    pub rule: Rule,
    /// When, true time.
    pub at: WorldTime,
    /// On which host, if on one.
    pub host: Option<HostId>,
    /// What was seen, in a sentence.
    pub what: String,
}

/// A fault that was injected.
#[derive(Debug, Clone, Copy)]
pub struct Injected<'a> {
    /// When, true time.
    pub at: WorldTime,
    /// What.
    pub fault: &'a Fault,
    /// On which host, if on one.
    pub host: Option<HostId>,
    /// The host was healthy until then; a fault of the site has none.
    pub was_healthy: bool,
}

/// Watches a run. Every method may answer with breaches; the default sees nothing wrong.
pub trait Checker {
    /// After every decision.
    fn decided(&mut self, _decided: &Decided<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        Vec::new()
    }
    /// After every call outside.
    fn called(&mut self, _called: &Called<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        Vec::new()
    }
    /// When an executor hands in a result.
    fn finished_step(&mut self, _finished: &Finished<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        Vec::new()
    }
    /// When a fault was injected.
    fn faulted(&mut self, _injected: &Injected<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        Vec::new()
    }
    /// When an appliance was stopped, killed, or came back.
    fn interrupted(
        &mut self,
        _at: WorldTime,
        _appliance: u8,
        _how: Interruption,
        _truth: &dyn GroundTruth,
    ) -> Vec<Breach> {
        Vec::new()
    }
    /// At the end.
    fn ended(&mut self, _ended: &Ended<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        Vec::new()
    }
}
