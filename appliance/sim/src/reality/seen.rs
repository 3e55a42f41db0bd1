//! How reality looks to the appliance: its sources for a host, and its own sight.

use super::{Clock, Duty, Reality};
use crate::cluster::{Cluster, Node};
use crate::plant::Plant;
use crate::prober::Outlook;
use crate::site::Place;
use crate::watch::{MemberTruth, WorldTime};
use healing::id::{ClusterId, HostId};
use healing::sight::{
    ApiSight, ClusterSight, EtcdMember, EtcdReport, ForeignAction, OwnSight, Reference, StorageReport,
};
use healing::signal::{Component, NodeReport, Seen, Source};
use healing::time::{MINUTE, SECOND};
use healing::world::host::Role;

impl Reality {
    /// How all sources see a host now.
    #[must_use]
    pub fn outlook(&self, host: HostId, clock: &Clock) -> Outlook {
        let mut look = Outlook::default();
        let Some((plant, duty)) = self.plants.get(&host).zip(self.duties.get(&host)) else { return look };
        let place = self.place(host);
        if duty.role != Role::Spare {
            self.look_at_network(&mut look, host, plant, &place);
            self.look_at_cluster(&mut look, host, plant, duty, clock);
        }
        let behind = self.plants.get(&self.behind(host));
        if self.network.to_bmc(&place)
            && let Some(behind) = behind
        {
            match behind.poll(self.at) {
                Ok((power, cause)) => {
                    look.set(Source::Power, Some(Seen::Power(power, cause)));
                    look.set(Source::BootProgress, Some(Seen::Stage(behind.stage(self.at))));
                    look.set(Source::Hardware, Some(Seen::Health(behind.hardware())));
                }
                Err(trouble) => look.set(Source::Power, Some(Seen::Trouble(trouble))),
            }
        } else {
            look.set(Source::Power, Some(Seen::Trouble(healing::signal::BmcTrouble::Silent)));
        }
        look
    }

    fn look_at_network(&self, look: &mut Outlook, host: HostId, plant: &Plant, place: &Place) {
        let path = self.network.from_us(host, place);
        let answers = plant.machine.answers();
        let yes = |ok: bool| Some(if ok && path { Seen::Answer } else { Seen::Miss });
        let port = |port: Option<bool>| match port.filter(|_| path) {
            Some(true) => Some(Seen::Answer),
            Some(false) => Some(Seen::Refused),
            None => Some(Seen::Miss),
        };
        look.loss = self.network.loss(host);
        look.set(Source::Arp, yes(answers.arp));
        look.set(Source::Icmp, yes(answers.icmp));
        look.set(Source::KubeletPort, port(answers.kubelet_port));
        look.set(Source::SecondPort, port(answers.second_port));
        if path && answers.kubelet_port == Some(true) {
            look.set(Source::KubeletHealth, yes(answers.kubelet_health));
        }
        if path {
            look.set(Source::Agent, plant.agent().map(Seen::Report));
        }
    }

    fn look_at_cluster(&self, look: &mut Outlook, host: HostId, plant: &Plant, duty: &Duty, clock: &Clock) {
        let Some(cluster) = duty.cluster.and_then(|id| self.clusters.get(&id)) else { return };
        if duty.role == Role::ControlPlane {
            let path = self.network.from_us(host, &self.place(host)) && plant.kernel_answers();
            let quorum = Cluster::quorum(&cluster.members_now);
            let ok = plant.serves(Component::ApiServer) && cluster.down == 0;
            let answer = |path: bool, ok: bool| {
                Some(if !path {
                    Seen::Miss
                } else if ok {
                    Seen::Answer
                } else {
                    Seen::Refused
                })
            };
            look.set(Source::ApiServer, answer(path, ok && quorum));
            if cluster.etcd_access {
                look.set(Source::EtcdMember, answer(path, self.member_runs(cluster, host)));
            }
        }
        if !cluster.watch_live {
            return;
        }
        let Some(node) = self.nodes.get(&host) else { return };
        if !node.exists {
            look.set(Source::Node, Some(Seen::NoNode));
            return;
        }
        look.set(Source::Node, Some(Seen::Node(report(node))));
        look.renewed_at = clock.elapsed(node.renewed_at);
        if let Some(first) = node.renewing_from {
            look.set(Source::Lease, Some(Seen::Renewed));
            look.renewing_from = clock.elapsed(first);
        }
    }

    /// Own sight, with the hosts' counts left to the appliance.
    #[must_use]
    pub fn sight(&self, cluster: Option<ClusterId>, clock: &Clock) -> OwnSight {
        // Three misses at a second each make a silence.
        let cut = self.network.appliance_cut_at.filter(|_| self.network.appliance_cut > 0);
        let seen_cut = cut.is_some_and(|at| self.at >= at + 3 * SECOND);
        let answers = !seen_cut;
        OwnSight {
            at: clock.elapsed(self.at),
            link: true,
            gateway: answers,
            references: vec![Reference { domain: None, answers }, Reference { domain: None, answers }],
            cluster: cluster.and_then(|id| self.clusters.get(&id)).map(|c| self.cluster_sight(c, clock)),
            ..OwnSight::default()
        }
    }

    fn cluster_sight(&self, cluster: &Cluster, clock: &Clock) -> ClusterSight {
        let cut = self.network.appliance_cut > 0;
        let cut_at = self.network.appliance_cut_at.unwrap_or(0);
        let reach = cluster.api_up && !cut;
        let lost_at = if cut { cut_at } else { cluster.api_changed_at };
        let since = |at: WorldTime| clock.elapsed(at.max(clock.begun_at) + SECOND).min(clock.elapsed(self.at));
        let vip_ok = cluster.vip_up && !cut;
        let vip_lost_at = if cut { cut_at } else { cluster.vip_changed_at };
        let live_from = cluster.watch_changed_at.max(clock.begun_at);
        let api = ApiSight {
            unreachable_since: (!reach).then(|| since(lost_at)),
            vip_silent_since: (!vip_ok).then(|| since(vip_lost_at)),
            watch_live_since: cluster.watch_live.then(|| clock.elapsed(live_from)),
            watch_proof_at: if cluster.watch_live {
                clock.elapsed(self.at)
            } else {
                clock.elapsed(cluster.watch_changed_at)
            },
        };
        ClusterSight {
            cluster: cluster.id,
            api,
            etcd: self.etcd_report(cluster, cut, clock),
            storage: self.storage_reports(cluster.id, clock),
            foreign_actions: cluster
                .foreign_action
                .filter(|(_, at)| self.at < at + 30 * MINUTE)
                .map(|(host, at)| ForeignAction { host, at: clock.elapsed(at) })
                .into_iter()
                .collect(),
            upgrade_running: cluster.upgrades > 0,
        }
    }

    fn etcd_report(&self, cluster: &Cluster, cut: bool, clock: &Clock) -> Option<EtcdReport> {
        if !cluster.etcd_access {
            return None;
        }
        // Read each 5 s from whichever member answers.
        let readable = !cut && cluster.members_now.iter().any(|m| m.healthy);
        let tick = self.at - self.at % (5 * SECOND);
        let (changed_at, before) = &cluster.members_before;
        let (read_at, members) = if readable && tick >= *changed_at {
            (tick, &cluster.members_now)
        } else {
            ((*changed_at).min(tick), before)
        };
        let known = |m: &MemberTruth| EtcdMember {
            id: m.id,
            host: (!m.learner).then_some(m.host),
            healthy: m.healthy,
            learner: m.learner,
        };
        Some(EtcdReport { read_at: clock.elapsed(read_at), members: members.iter().map(known).take(9).collect() })
    }

    fn storage_reports(&self, cluster: ClusterId, clock: &Clock) -> Vec<StorageReport> {
        let of = self.storage.values().filter(|s| s.system.cluster == cluster);
        of.map(|s| {
            let first = s.missing.iter().min_by_key(|(_, at)| **at);
            let (since, by) = match (s.reduced > 0, first) {
                (true, _) => (Some(s.reduced_at), None),
                (false, Some((&host, &at))) => (Some(at), Some(host)),
                (false, None) => (None, None),
            };
            StorageReport { system: s.system.id, reduced_since: since.map(|at| clock.elapsed(at)), reduced_by: by }
        })
        .take(16)
        .collect()
    }
}

/// A Node as a GET or a watch shows it.
#[must_use]
pub fn report(node: &Node) -> NodeReport {
    NodeReport {
        ready: node.ready,
        boot: node.boot,
        cordoned: node.our_cordon || node.foreign > 0,
        shutting_down: node.shutting_down,
        foreign_mark: node.foreign > 0,
        claimed: false,
    }
}
