//! Rules 23 to 32 and 34 to 41, at the calls that left and at the results that were believed.

use super::{breach, cuts, disruptive, view, writes_power};
use crate::fault::Fault;
use crate::watch::{Breach, Called, Checker, Decided, Finished, GroundTruth, Injected, WorldTime};
use healing::command::{BmcCall, Call, ClusterCall, Intent, Reply, StepResult};
use healing::event::{Event, Operator};
use healing::id::{HostId, IncidentId, JobId, StepId, StorageId};
use healing::signal::{OffCause, Power};
use healing::world::incident::Rung;
use std::collections::{BTreeMap, BTreeSet};

/// Fencing and release.
#[derive(Debug, Default)]
pub(crate) struct Fencing {
    off_read: BTreeSet<IncidentId>,
    confirmed: BTreeSet<IncidentId>,
    liars: BTreeSet<HostId>,
    released_at: BTreeMap<IncidentId, WorldTime>,
    ended: BTreeMap<IncidentId, (HostId, WorldTime)>,
}

impl Checker for Fencing {
    fn faulted(&mut self, injected: &Injected<'_>, _: &dyn GroundTruth) -> Vec<Breach> {
        let Injected { fault, host, .. } = *injected;
        if let (Fault::BmcSaysOff, Some(host)) = (fault, host) {
            self.liars.insert(host);
        }
        if let (Fault::CablesSwapped { with }, Some(host)) = (fault, host) {
            self.liars.insert(host);
            self.liars.insert(*with);
        }
        Vec::new()
    }

    fn finished_step(&mut self, finished: &Finished<'_>, _: &dyn GroundTruth) -> Vec<Breach> {
        let readings = match finished.result {
            StepResult::Readings { readings, .. } | StepResult::Failed { readings, .. } => readings,
            _ => return Vec::new(),
        };
        if readings.iter().filter(|r| r.power == Power::Off).count() >= 1 {
            self.off_read.insert(finished.incident);
        }
        Vec::new()
    }

    fn decided(&mut self, decided: &Decided<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        if let Event::Operator(Operator::ConfirmOff { incident, .. }) = decided.event {
            self.confirmed.insert(*incident);
        }
        for ordered in decided.ordered {
            if ordered.intent.needs_proof() {
                let known = self.off_read.contains(&ordered.incident) || self.confirmed.contains(&ordered.incident);
                if !known {
                    found.push(breach(
                        27,
                        decided.at,
                        Some(ordered.host),
                        "released though its Off was never read nor confirmed",
                    ));
                }
                self.released_at.entry(ordered.incident).or_insert(decided.at);
            }
            // Rule 31: found off by a command, a button, heat or for no known reason: a person is asked.
            if let (Intent::PowerOn { alarm: false }, Some(incident)) =
                (ordered.intent, decided.world.incidents.get(&ordered.incident))
            {
                let cause = decided.world.hosts.get(&ordered.host).map(|h| h.assessment.off_cause);
                let asked =
                    matches!(cause, Some(OffCause::Command | OffCause::Button | OffCause::Thermal | OffCause::Unknown));
                let power_off =
                    decided.world.hosts.get(&ordered.host).is_some_and(|h| h.assessment.power == Power::Off);
                let cold = decided.world.site.cold_start.is_some();
                let plain = matches!(incident.current_rung(), Rung::PowerCycle);
                if incident.fence.found_off && asked && power_off && plain && incident.approval.is_none() && !cold {
                    found.push(breach(
                        31,
                        decided.at,
                        Some(ordered.host),
                        "switched on unasked after somebody else's off",
                    ));
                }
            }
        }
        for change in decided.changes {
            if let healing::event::Change::Ended(incident) = change {
                self.ended.insert(incident.id, (incident.host, decided.at));
            }
        }
        // Rule 26.
        let mut over = Vec::new();
        for (incident, (host, at)) in &self.ended {
            if decided.at < at + 60_000 {
                continue;
            }
            let left = truth.node(*host).and_then(|n| n.taint) == Some(*incident);
            if left {
                found.push(breach(26, decided.at, Some(*host), "the taint outlives its incident by more than 60 s"));
            }
            over.push(*incident);
        }
        for incident in over {
            self.ended.remove(&incident);
        }
        found
    }

    fn called(&mut self, called: &Called<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let target = called.target;
        let mut say = |rule, what: &str| found.push(breach(rule, called.at, Some(target), what));
        if let Call::Cluster(call) = called.call {
            let harms = matches!(
                call,
                ClusterCall::PutTaint
                    | ClusterCall::DeletePods
                    | ClusterCall::DeleteVolumeAttachments
                    | ClusterCall::DeleteNode
            );
            // Fault model: a linked BMC that says Off twice while every witness is silent is believed.
            let believed = self.liars.contains(&target) || self.confirmed.contains(&called.incident);
            let gone = truth.node(target).is_none();
            // Power is read right before each effect; a hand on the machine may be faster than that.
            let just_on = truth.on_since(target).is_some_and(|at| at > 0 && called.at < at + 2_000);
            if harms && truth.power(target) != Power::Off && !believed && !gone && !just_on {
                say(23, "workloads are released while the host is not off");
            }
            if harms && believed && truth.healthy(target) {
                say(23, "workloads of a healthy host are released");
            }
            if call == ClusterCall::PutTaint && !matches!(called.intent, Intent::Release { .. }) {
                say(24, "a taint before proof");
            }
        }
        // Rule 35: no host meets an installer but one that is to be installed.
        if let Call::Bmc(_, BmcCall::PowerOn) = called.call
            && truth.ticket(target).is_some()
            && called.world.incidents.get(&called.incident).is_some_and(|i| {
                use healing::world::incident::Phase;
                matches!(i.phase, Phase::SafeCompletion | Phase::Withdrawing)
            })
        {
            say(35, "switched on for its own system with its boot ticket open");
        }
        // Rule 25: off until released, untainted before on.
        if let Call::Bmc(_, BmcCall::PowerOn) = called.call
            && !matches!(called.intent, Intent::PowerOn { alarm: true })
            && let Some(node) = truth.node(target)
        {
            let fresh = self.released_at.get(&called.incident).is_some_and(|at| called.at < at + 110_000);
            let plain = called
                .world
                .incidents
                .get(&called.incident)
                .is_some_and(|i| i.phase == healing::world::incident::Phase::PoweringOn);
            let cluster = called.world.hosts.get(&target).and_then(|h| h.cluster);
            let api = cluster.is_some_and(|c| truth.api_up(c));
            if plain && fresh && api && (node.pods > 0 || node.attachments > 0) {
                say(25, "switched on before its pods and volumes were gone");
            }
            if plain && api && node.taint == Some(called.incident) {
                say(25, "switched on with our taint still on it");
            }
        }
        found
    }
}

/// What holds within one step, and for storage hosts, boot and identity.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    read: BTreeSet<StepId>,
    boot_read: BTreeSet<StepId>,
    /// Steps that read, when, that no Node bears the name.
    node_gone: BTreeMap<StepId, WorldTime>,
    jobs: BTreeMap<IncidentId, BTreeSet<JobId>>,
    wrong: u32,
}

impl Checker for Steps {
    fn called(&mut self, called: &Called<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let mut say = |rule, what: &str| found.push(breach(rule, called.at, Some(called.target), what));
        if let Call::Bmc(_, BmcCall::ReadPower) = called.call
            && matches!(called.reply, Some(Reply::Power(_)))
        {
            self.read.insert(called.step);
        }
        if called.call == Call::Cluster(ClusterCall::ReadNode) && truth.node(called.target).is_none() {
            self.node_gone.insert(called.step, called.at);
        }
        if let Call::Bmc(_, BmcCall::ReadNetworkBootOnce) = called.call
            && called.reply == Some(&Reply::Flag(true))
        {
            self.boot_read.insert(called.step);
        }
        if let Call::Bmc(meant, BmcCall::ForceOff | BmcCall::PowerOn | BmcCall::GracefulRestart) = called.call {
            if !self.read.contains(&called.step) {
                say(30, "a power write without a read before it");
            }
            let alarm = matches!(called.intent, Intent::PowerOn { alarm: true });
            if called.actual.is_some_and(|actual| actual != meant) && !alarm {
                self.wrong += 1;
                say(29, "a power write reached another machine");
            }
        }
        if called.call == Call::Cluster(ClusterCall::MintCredential) {
            let incident = called.world.incidents.get(&called.incident);
            let late = incident.is_some_and(|i| i.installed);
            if !late {
                say(40, "a join credential is minted before the image is verified");
            }
            // Read as gone by this very step, moments before: what joined since then could not be known.
            let gone = self.node_gone.get(&called.step).is_some_and(|at| called.at <= at + 10_000);
            if matches!(called.intent, Intent::MintCredential(_)) && truth.node(called.target).is_some() && !gone {
                say(41, "the name is reused while the old Node exists");
            }
        }
        if writes_power(called)
            && let Some((holder, until)) = truth.lease_holder()
            && (holder != called.appliance || until < called.at + 5_000)
        {
            say(46, "a power write without the appliance lease, or at its very end");
        }
        let _ = cuts(called);
        found
    }

    fn finished_step(&mut self, finished: &Finished<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let done = matches!(finished.result, StepResult::Done);
        if done
            && matches!(finished.intent, Intent::PowerOn { .. })
            && truth.power(truth.behind_bmc(finished.host)) == Power::Off
        {
            found.push(breach(
                30,
                finished.at,
                Some(finished.host),
                "power-on is called done while the machine is off",
            ));
        }
        if done
            && matches!(finished.intent, Intent::ArmBoot(_) | Intent::ArmProof(_))
            && !self.boot_read.contains(&finished.step)
        {
            found.push(breach(
                34,
                finished.at,
                Some(finished.host),
                "network boot is called set without being read back",
            ));
        }
        found
    }

    fn decided(&mut self, decided: &Decided<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let world = decided.world;
        for ordered in decided.ordered {
            let Some(host) = world.hosts.get(&ordered.host) else { continue };
            let Some(incident) = world.incidents.get(&ordered.incident) else { continue };
            let mut say = |rule, what: &str| found.push(breach(rule, decided.at, Some(host.id), what));
            if let Intent::ArmBoot(job) = ordered.intent {
                if host.disk.is_none() || !incident.released || incident.proof.is_none() {
                    say(36, "reimaged without a named disk, or before it was proven off and released");
                }
                let node = truth.node(host.id);
                if node.is_some_and(|n| n.ready == Some(true)) {
                    say(36, "reimaged while a Ready Node bears its name");
                }
                let jobs = self.jobs.entry(ordered.incident).or_default();
                jobs.insert(job);
                if jobs.len() > 2 {
                    say(38, "a third install in one incident");
                }
                if host.storage.is_some() && incident.approval.is_none() {
                    say(28, "a storage host is reimaged without approval");
                }
            }
        }
        for (ordered, incident) in disruptive(decided) {
            let Some(host) = world.hosts.get(&ordered.host) else { continue };
            let Some(system) = host.storage else { continue };
            let reports = view(decided.event).and_then(|v| v.sight.cluster.as_ref()).map_or(&[][..], |c| &c.storage);
            let reduced = reports.iter().find(|r| r.system == system);
            let before = reduced.and_then(|r| r.reduced_since).is_some_and(|at| at < incident.opened_at);
            if host.assessment.answers() && before {
                found.push(breach(
                    28,
                    decided.at,
                    Some(host.id),
                    "a storage host that answers is taken down while redundancy is reduced",
                ));
            }
        }
        if super::reserves(decided) {
            found.extend(storage_pairs(decided));
        }
        found
    }
}

/// One host per storage system at a time.
fn storage_pairs(decided: &Decided<'_>) -> Vec<Breach> {
    let mut open: BTreeMap<StorageId, u32> = BTreeMap::new();
    for incident in decided.world.incidents.values() {
        let acting = incident.reservation.is_some();
        if let Some(system) = decided.world.hosts.get(&incident.host).and_then(|h| h.storage).filter(|_| acting) {
            *open.entry(system).or_default() += 1;
        }
    }
    let two = open.iter().find(|(_, count)| **count > 1);
    two.map(|(system, _)| breach(28, decided.at, None, format!("two hosts of storage system {} at once", system.0)))
        .into_iter()
        .collect()
}
