//! Rules 18 to 22: control plane and etcd.

use super::{breach, disruptive};
use crate::fault::Fault;
use crate::watch::{Breach, Called, Checker, Decided, GroundTruth, Injected, WorldTime};
use healing::command::{Call, ClusterCall, Intent};
use healing::id::{ClusterId, HostId};
use healing::signal::Power;
use healing::world::World;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Planes {
    /// When a removal was ordered on a report of that moment that showed a quorum without the member.
    removals: BTreeMap<HostId, WorldTime>,
    /// Hosts whose BMC says Off, whatever is so.
    liars: BTreeSet<HostId>,
}

fn control_planes(world: &World, cluster: ClusterId) -> usize {
    world.hosts.values().filter(|h| h.cluster == Some(cluster) && h.control_plane() && h.serves()).count()
}

impl Checker for Planes {
    fn faulted(&mut self, injected: &Injected<'_>, _: &dyn GroundTruth) -> Vec<Breach> {
        if let (Fault::BmcSaysOff, Some(host)) = (injected.fault, injected.host) {
            self.liars.insert(host);
        }
        Vec::new()
    }

    fn decided(&mut self, decided: &Decided<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let world = decided.world;
        for (ordered, incident) in disruptive(decided) {
            let Some(host) = world.hosts.get(&ordered.host).filter(|h| h.control_plane()) else { continue };
            let Some(cluster) = host.cluster else { continue };
            let access = world.clusters.get(&cluster).is_some_and(|c| c.etcd_access);
            let planes = control_planes(world, cluster);
            let approved = incident.approval.is_some();
            let mut say = |rule, what: String| found.push(breach(rule, decided.at, Some(host.id), what));
            if access {
                let members = truth.etcd(cluster);
                let voters: Vec<_> = members.iter().filter(|m| !m.learner).collect();
                let healthy = voters.iter().filter(|m| m.healthy).count();
                let own = voters.iter().any(|m| m.host == host.id && m.healthy);
                if own && healthy.saturating_sub(1) < voters.len() / 2 + 1 && !approved {
                    say(18, format!("{} carries a healthy voter and the quorum does not hold without it", host.name));
                }
            }
            if !access && !approved && planes >= 3 {
                let others = world
                    .hosts
                    .values()
                    .filter(|h| h.cluster == Some(cluster) && h.control_plane() && h.serves() && h.id != host.id);
                if others.clone().any(|h| !h.ready()) {
                    say(22, format!("{} is taken down without etcd access while another is not Ready", host.name));
                }
            }
            if truth
                .foreign_action(cluster)
                .is_some_and(|(_, at)| decided.at < at + 1_800_000 && decided.at > at + 30_000)
            {
                say(19, format!("{} is taken down while somebody else works on the control plane", host.name));
            }
        }
        if !super::reserves(decided) {
            return found;
        }
        let mut open: BTreeMap<ClusterId, u32> = BTreeMap::new();
        for incident in world.incidents.values() {
            if let Some(reservation) = incident.reservation.as_ref().filter(|r| r.control_plane)
                && let Some(cluster) = reservation.cluster
            {
                *open.entry(cluster).or_default() += 1;
            }
        }
        for incident in world.incidents.values() {
            let reimage =
                incident.reservation.as_ref().is_some_and(|r| r.rung == healing::world::incident::Rung::Reimage);
            let Some(cluster) = world.hosts.get(&incident.host).filter(|h| h.control_plane()).and_then(|h| h.cluster)
            else {
                continue;
            };
            if reimage && incident.approval.is_none() && control_planes(world, cluster) <= 2 {
                found.push(breach(
                    21,
                    decided.at,
                    Some(incident.host),
                    "the reimage of a small control plane is permitted without approval",
                ));
            }
        }
        if let Some((cluster, _)) = open.iter().find(|(_, count)| **count > 1) {
            found.push(breach(
                19,
                decided.at,
                None,
                format!("two control-plane hosts of cluster {} at once", cluster.0),
            ));
        }
        for ordered in decided.ordered {
            let Intent::RemoveIdentity { etcd_member: Some(id) } = ordered.intent else { continue };
            let report =
                super::view(decided.event).and_then(|v| v.sight.cluster.as_ref()).and_then(|c| c.etcd.as_ref());
            let shows = report.is_some_and(|r| {
                let stay = || r.members.iter().filter(|m| m.id != id && !m.learner);
                decided.now.elapsed.since(r.read_at) <= 10_000
                    && stay().filter(|m| m.healthy).count() > stay().count() / 2
            });
            if shows {
                self.removals.insert(ordered.host, decided.at);
            }
        }
        for ordered in decided.ordered.iter().filter(|o| matches!(o.intent, Intent::ArmBoot(_))) {
            let Some(host) = world.hosts.get(&ordered.host).filter(|h| h.control_plane()) else { continue };
            let Some(cluster) = host.cluster else { continue };
            let approved = world.incidents.get(&ordered.incident).is_some_and(|i| i.approval.is_some());
            if !world.clusters.get(&cluster).is_some_and(|c| c.etcd_access) {
                found.push(breach(
                    22,
                    decided.at,
                    Some(host.id),
                    "a control-plane host is reimaged without etcd access",
                ));
            } else if truth.etcd(cluster).iter().any(|m| m.host == host.id) {
                found.push(breach(20, decided.at, Some(host.id), "reimaged while its etcd member is listed"));
            }
            if control_planes(world, cluster) <= 2 && !approved {
                found.push(breach(21, decided.at, Some(host.id), "a small control plane is reimaged without approval"));
            }
        }
        found
    }

    fn called(&mut self, called: &Called<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let Call::Cluster(ClusterCall::RemoveEtcdMember(id)) = called.call else { return Vec::new() };
        let mut found = Vec::new();
        let Some(cluster) = called.world.hosts.get(&called.target).and_then(|h| h.cluster) else { return found };
        // A linked BMC that says Off twice while every witness is silent is believed (fault model of *proven off*).
        let lied_to = self.liars.contains(&called.target);
        if truth.power(called.target) != Power::Off && !lied_to {
            found.push(breach(
                20,
                called.at,
                Some(called.target),
                "an etcd member is removed while its host is not off",
            ));
        }
        // What befell a member after it was read, at most 10 s before the order, could not be known; etcd itself refuses.
        let known = self.removals.get(&called.target).is_none_or(|at| called.at > at + 3_000);
        let stay: Vec<_> = truth.etcd(cluster).into_iter().filter(|m| m.id != id && !m.learner).collect();
        if stay.iter().filter(|m| m.healthy).count() < stay.len() / 2 + 1 && known {
            found.push(breach(
                20,
                called.at,
                Some(called.target),
                "the quorum does not hold after the removal of a member",
            ));
        }
        found
    }
}
