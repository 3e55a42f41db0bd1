//! Rules 1 to 9 and 33: what must be known before a machine is taken down.

use super::{breach, cuts, disruptive, view};
use crate::fault::Fault;
use crate::watch::{Breach, Called, Checker, Decided, GroundTruth, Injected, WorldTime};
use healing::assess::NetworkState;
use healing::command::Intent;
use healing::event::{Event, Operator};
use healing::evidence::Evidence as Runs;
use healing::id::{ClusterId, HostId};
use healing::sight::OwnSight;
use healing::signal::{Power, Seen, Source};
use healing::time::{Elapsed, Millis};
use healing::world::World;
use healing::world::incident::Rung;
use healing::world::scope::DomainKind;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Evidence {
    seen_ready: BTreeSet<HostId>,
    rebooting: BTreeMap<HostId, WorldTime>,
    firmware: BTreeMap<HostId, WorldTime>,
    turns: BTreeMap<HostId, (u64, Elapsed)>,
    was_bad: BTreeSet<HostId>,
}

fn run_of(runs: &Runs, source: Source, seen: Seen) -> Option<(u32, Elapsed, Elapsed)> {
    runs.slot(source).latest().filter(|r| r.seen == seen).map(|r| (r.count, r.first, r.last))
}

/// Misses of ICMP and both ports: the fewest samples.
fn silent_samples(runs: &Runs) -> u32 {
    let of = |source| run_of(runs, source, Seen::Miss).map_or(0, |r| r.0);
    of(Source::Icmp).min(of(Source::KubeletPort)).min(of(Source::SecondPort))
}

fn last_renewal(runs: &Runs) -> Option<Elapsed> {
    runs.slot(Source::Lease).runs().find(|r| r.seen == Seen::Renewed).map(|r| r.last)
}

fn api_away(sight: &OwnSight, now: Elapsed) -> bool {
    sight.cluster.as_ref().and_then(|c| c.api.unreachable_since).is_some_and(|at| now.since(at) >= 15_000)
}

impl Checker for Evidence {
    fn decided(&mut self, decided: &Decided<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let now = decided.now.elapsed;
        if let Some(host) = decided.event.host().and_then(|id| decided.world.hosts.get(&id)) {
            // Back from its reboot: what befalls it now is something else.
            if self.rebooting.get(&host.id).is_some_and(|at| decided.at > at + 60_000) && truth.healthy(host.id) {
                self.rebooting.remove(&host.id);
            }
            if host.ready() {
                self.seen_ready.insert(host.id);
            }
            let bad = host.bad();
            if bad && self.was_bad.insert(host.id) {
                let (points, at) = self.turns.get(&host.id).copied().unwrap_or((0, now));
                let left = points.saturating_sub(now.since(at) / 600_000);
                self.turns.insert(host.id, (left + 1, now));
            } else if !bad {
                self.was_bad.remove(&host.id);
            }
        }
        if let Event::Operator(Operator::ReturnHost(host)) = decided.event {
            self.turns.remove(host);
            // Returned while it is bad, it did not turn bad.
            if decided.world.hosts.get(host).is_some_and(healing::world::host::Host::bad) {
                self.was_bad.insert(*host);
            }
        }
        for ordered in decided.ordered.iter().filter(|o| o.intent == Intent::ForceOff { found_off: true }) {
            let worker = decided.world.hosts.get(&ordered.host).is_some_and(|h| !h.control_plane());
            if worker && view(decided.event).is_some_and(|v| api_away(&v.sight, now)) {
                found.push(breach(
                    7,
                    decided.at,
                    Some(ordered.host),
                    "a worker is taken over while the API is unreachable",
                ));
            }
        }
        for (ordered, incident) in disruptive(decided) {
            let Some(host) = decided.world.hosts.get(&ordered.host) else { continue };
            let Some(view) = view(decided.event) else { continue };
            let at = decided.at;
            let mut say = |rule, what: String| found.push(breach(rule, at, Some(ordered.host), what));
            let runs = &view.evidence;
            let network = host.assessment.network;
            let living = matches!(network, NetworkState::Alive | NetworkState::ProcessDead);
            // Rule 1.
            let enough = match network {
                NetworkState::Silent => silent_samples(runs) >= 3,
                NetworkState::KernelOnly => run_of(runs, Source::KubeletPort, Seen::Miss)
                    .is_some_and(|(count, first, _)| count >= 10 && now.since(first) >= 60_000),
                NetworkState::Alive | NetworkState::ProcessDead => {
                    now.since(incident.opened_at) >= 600_000
                        && (ordered.intent == Intent::SoftReboot
                            || incident.approval.is_some()
                            || incident.rungs.iter().take(incident.rung).any(|r| r.disruptive()))
                }
                NetworkState::Unknown => false,
            };
            if !enough {
                say(1, format!("{} is taken down as {network:?} without the samples or the time for it", host.name));
            }
            // Rule 2: the cluster plane by itself.
            let away = api_away(&view.sight, now);
            let late = last_renewal(runs).unwrap_or(runs.void_before);
            let proof = view.sight.cluster.as_ref().map(|c| c.api.watch_proof_at);
            let watched = proof.is_some_and(|at| now.since(at) <= 12_000);
            let own_api = host.control_plane() && run_of(runs, Source::ApiServer, Seen::Miss).is_some_and(|r| r.0 >= 3);
            let refused_api =
                host.control_plane() && run_of(runs, Source::ApiServer, Seen::Refused).is_some_and(|r| r.0 >= 3);
            let ill = (watched && now.since(late) >= 15_000)
                || (away && (own_api || refused_api))
                || (living && !host.ready())
                || host.assessment.agent.is_some_and(|a| a.disk_broken)
                || host.assessment.power == Power::Off;
            if !ill {
                say(2, format!("{} is taken down on the network plane alone", host.name));
            }
            // Rule 3.
            let young = last_renewal(runs).is_some_and(|at| now.since(at) <= 22_000);
            if young && ordered.intent != Intent::SoftReboot && !(away && host.control_plane()) {
                say(3, format!("{} renewed its Lease within 22 s", host.name));
            }
            // Rule 4.
            let sight = &view.sight;
            let reference =
                sight.references.iter().any(|r| r.answers && r.domain.is_none_or(|d| !host.domains.contains(&d)));
            let dumb = sight.bmcs_dumb >= 3 && sight.bmcs_dumb * 2 >= sight.bmcs_recent;
            let everybody = sight.hosts_watched >= 3 && sight.hosts_silent >= sight.hosts_watched;
            if !sight.link || !sight.gateway || !reference || dumb || everybody {
                say(4, format!("{} is taken down while own sight is bad", host.name));
            }
            // Rule 7.
            if away && !host.control_plane() {
                say(7, format!("the worker {} is taken down while the API is unreachable", host.name));
            }
            // Rule 8.
            let (points, since) = self.turns.get(&host.id).copied().unwrap_or((0, now));
            if points.saturating_sub(now.since(since) / 600_000) >= 3 && incident.approval.is_none() {
                say(8, format!("{} flaps and is taken down without approval", host.name));
            }
            // Rule 9.
            if !self.seen_ready.contains(&host.id) && !host.history.seen_healthy {
                say(9, format!("{} was never seen healthy", host.name));
            }
            if incident.current_rung() == Rung::PowerCycle
                && host.history.boots.iter().filter(|b| now.since(**b) < 1_800_000).count() >= 3
                && incident.rung == 0
            {
                say(9, format!("{} boots over and over, and is power-cycled once more", host.name));
            }
        }
        found
    }

    fn called(&mut self, called: &Called<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        if !cuts(called) {
            return found;
        }
        let Some(actual) = called.actual else { return found };
        // A task that began since the stage was read, moments before, could not be known.
        let known = self.firmware.get(&actual).is_none_or(|began| called.at > began + 5_000);
        if truth.firmware_task(actual) && known {
            found.push(breach(33, called.at, Some(actual), "power during a firmware task"));
        }
        if actual == called.target
            && self.rebooting.get(&actual).is_some_and(|at| called.at < at + 900_000)
            && matches!(truth.fault(actual), Some(Fault::PlainReboot))
        {
            found.push(breach(33, called.at, Some(actual), "power during an orderly reboot within its boot budget"));
        }
        found
    }

    fn faulted(&mut self, injected: &Injected<'_>, _: &dyn GroundTruth) -> Vec<Breach> {
        let Some(host) = injected.host else { return Vec::new() };
        match injected.fault {
            Fault::FirmwareTask { .. } => {
                self.firmware.insert(host, injected.at);
            }
            // A host that is ill already cannot follow the order to reboot.
            Fault::PlainReboot if injected.was_healthy => {
                self.rebooting.insert(host, injected.at);
                return Vec::new();
            }
            _ => {}
        }
        self.rebooting.remove(&host);
        Vec::new()
    }
}

/// Rules 5 and 6.
#[derive(Debug, Default)]
pub(crate) struct Correlated {
    frozen: BTreeSet<ClusterId>,
    thawed: BTreeMap<ClusterId, Elapsed>,
    released: BTreeSet<HostId>,
}

/// Bad hosts of a cluster by a fresh look at the records, and whether all stand in one physical domain.
fn bad_hosts(world: &World, cluster: ClusterId) -> (Vec<HostId>, usize, bool) {
    let nodes: Vec<_> = world.hosts.values().filter(|h| h.cluster == Some(cluster) && h.serves()).collect();
    let bad: Vec<_> = nodes.iter().filter(|h| h.bad()).collect();
    let shared = bad.first().is_some_and(|first| {
        let labelled =
            |d: &&healing::id::DomainId| world.domains.get(d).is_some_and(|d| d.kind != DomainKind::Unlabelled);
        first.domains.iter().filter(labelled).any(|d| bad.iter().all(|h| h.domains.contains(d)))
    });
    (bad.iter().map(|h| h.id).collect(), nodes.len(), shared)
}

impl Checker for Correlated {
    fn decided(&mut self, decided: &Decided<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let now = decided.now.elapsed;
        let world = decided.world;
        if let Event::Operator(Operator::ReleaseHosts { hosts, .. }) = decided.event {
            self.released.extend(hosts);
        }
        for cluster in world.clusters.values() {
            if cluster.freeze.is_some() {
                self.frozen.insert(cluster.id);
            } else if self.frozen.remove(&cluster.id) {
                self.thawed.insert(cluster.id, now);
            }
        }
        for (ordered, incident) in disruptive(decided) {
            let Some(host) = world.hosts.get(&ordered.host) else { continue };
            let Some(cluster) = host.cluster else { continue };
            if self.released.contains(&host.id) {
                continue;
            }
            let (bad, nodes, one_domain) = bad_hosts(world, cluster);
            let careful = world.clusters.get(&cluster).is_some_and(|c| c.careful.is_some());
            if bad.len() >= 3 && bad.len() * 10 >= nodes * 3 && !one_domain && !careful {
                found.push(breach(
                    5,
                    decided.at,
                    Some(host.id),
                    format!("{} of {nodes} nodes are bad, and it is taken down", bad.len()),
                ));
            }
            if host.assessment.network == NetworkState::Silent {
                found.extend(domains(world, decided, host.id, now, incident.approval.is_some()));
            }
            if self.thawed.get(&cluster).is_some_and(|at| now.since(*at) < 120_000) {
                found.push(breach(6, decided.at, Some(host.id), "taken down within 120 s of a freeze"));
            }
        }
        found
    }
}

/// A whole domain silent within 10 s and on: 15 min; a pair within 60 s: 120 s.
fn domains(world: &World, decided: &Decided<'_>, host: HostId, now: Elapsed, approved: bool) -> Vec<Breach> {
    let mut found = Vec::new();
    let Some(target) = world.hosts.get(&host) else { return found };
    for domain in &target.domains {
        let Some(kind) = world.domains.get(domain).map(|d| d.kind) else { continue };
        let members: Vec<_> = world.hosts.values().filter(|h| h.serves() && h.domains.contains(domain)).collect();
        let silent: Vec<_> = members.iter().filter(|h| h.assessment.network == NetworkState::Silent).collect();
        let onsets: Vec<Elapsed> = silent.iter().map(|h| h.assessment.network_since).collect();
        let (Some(first), Some(last)) = (onsets.iter().min().copied(), onsets.iter().max().copied()) else { continue };
        let on = silent.iter().all(|h| h.assessment.power == Power::On);
        let whole = members.len() >= 2 && silent.len() == members.len() && last.since(first) <= 10_000 && on;
        let waited: Millis = now.since(last);
        if whole && kind != DomainKind::Unlabelled && waited < 900_000 - 20_000 && !approved {
            found.push(breach(5, decided.at, Some(host), "its whole domain went silent at once less than 15 min ago"));
        }
        let own = target.assessment.network_since;
        let close = onsets.iter().filter(|o| o.since(own).max(own.since(**o)) <= 60_000).count();
        if close >= 2 && close * 10 >= members.len() && now.since(own) < 100_000 && now.since(last) < 100_000 {
            found.push(breach(
                5,
                decided.at,
                Some(host),
                format!(
                    "{close} of {} hosts of domain {} fell silent within 60 s, less than 120 s ago",
                    members.len(),
                    domain.0
                ),
            ));
        }
    }
    found
}
