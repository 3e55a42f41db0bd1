//! What calls do to the simulated world, how long they take, and what is answered.

use crate::cluster::Canary;
use crate::plant::{Answer, Plant};
use crate::reality::{Reality, Task, report};
use crate::simulation::{Sent, Simulation};
use crate::watch::{GroundTruth, WorldTime};
use healing::command::{BmcCall, Call, ClusterCall, Reply};
use healing::fence::{Reading, ReadingSource};
use healing::id::HostId;
use healing::rules::Rules;
use healing::signal::{BmcTrouble, Power};
use healing::time::{Elapsed, Millis, SECOND};

/// A caller gives up after this.
const GIVE_UP_MS: Millis = 3 * SECOND;

/// How a machine stood just before a call reached it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BeforeCall {
    /// The machine really reached.
    pub(crate) actual: Option<HostId>,
    /// It was healthy.
    pub(crate) was_healthy: bool,
    /// For how long without a gap.
    pub(crate) healthy_for_ms: Millis,
    /// Its power.
    pub(crate) was_power: Power,
}

impl<R: Rules> Simulation<R> {
    /// How long a call is on its way.
    pub(crate) fn way_there(&mut self, sent: &Sent) -> Millis {
        match sent.call {
            Call::Bmc(..) => self.reality.chance.between(5, 40),
            Call::Cluster(_) => self.reality.chance.between(3, 25),
            // Three echoes, 300 ms apart: the last one is the one that counts.
            Call::Probe => 600,
            Call::OutletsOff | Call::OutletsOn | Call::ReadOutlets => self.reality.chance.between(50, 400),
            Call::RestartComponent(_) | Call::OpenTicket(_) | Call::OpenProofTicket(_) | Call::CloseTicket(_) => 5,
        }
    }

    pub(crate) fn called_before(&self, sent: &Sent) -> BeforeCall {
        let actual = match sent.call {
            Call::Bmc(host, _) => self.reality.bmc_path(host).then(|| self.reality.behind(host)),
            _ => Some(sent.host),
        };
        BeforeCall {
            actual,
            was_healthy: actual.is_some_and(|host| self.reality.healthy(host)),
            healthy_for_ms: actual
                .and_then(|host| self.reality.well_since.get(&host))
                .map_or(0, |since| self.reality.at - since),
            was_power: actual.map_or(Power::Unknown, |host| self.reality.power(host)),
        }
    }

    /// The call takes its effect. Returns when the reply arrives, and the reply.
    pub(crate) fn take_effect(&mut self, sent: &Sent) -> (WorldTime, Reply) {
        match sent.call {
            Call::Bmc(host, call) => self.reality.call_bmc(host, call),
            Call::Cluster(call) => self.reality.call_api(sent, call),
            Call::Probe => self.reality.call_probe(sent.host),
            Call::OutletsOff => self.reality.call_outlets_off(sent.host),
            Call::OutletsOn => self.reality.call_outlets_on(sent.host),
            Call::ReadOutlets => {
                let off = self.reality.outlets_off.contains(&sent.host);
                (self.reality.at + 300, Reply::Flag(off))
            }
            Call::RestartComponent(component) => {
                let now = self.reality.at;
                let path = self.reality.path_to(sent.host);
                let component = crate::plant::theirs(component);
                let Some(plant) = self.reality.plant_mut(sent.host).filter(|_| path) else {
                    return (now + GIVE_UP_MS, Reply::AgentSilent);
                };
                let heard = plant.machine.restart_component(now, component);
                self.reality.touched(sent.host);
                if heard { (now + 1_500, Reply::Ok) } else { (now + GIVE_UP_MS, Reply::AgentSilent) }
            }
            Call::OpenTicket(job) => {
                self.reality.tickets.insert(sent.host, (job, false));
                (self.reality.at + 5, Reply::Ok)
            }
            Call::OpenProofTicket(job) => {
                self.reality.tickets.insert(sent.host, (job, true));
                (self.reality.at + 5, Reply::Ok)
            }
            Call::CloseTicket(job) => {
                if self.reality.tickets.get(&sent.host).is_some_and(|(open, _)| *open == job) {
                    self.reality.tickets.remove(&sent.host);
                }
                (self.reality.at + 5, Reply::Ok)
            }
        }
    }
}

impl Reality {
    fn call_bmc(&mut self, host: HostId, call: BmcCall) -> (WorldTime, Reply) {
        let now = self.at;
        if !self.bmc_path(host) {
            return (now + GIVE_UP_MS, Reply::BmcTrouble(BmcTrouble::Silent));
        }
        let actual = self.behind(host);
        let Some(plant) = self.plant_mut(actual) else {
            return (now + GIVE_UP_MS, Reply::BmcTrouble(BmcTrouble::Silent));
        };
        let identity = plant.identity();
        let (arrives, answer) = plant.ask(call, now);
        if !matches!(call, BmcCall::Identify | BmcCall::ReadPower | BmcCall::ReadStage | BmcCall::ReadNetworkBootOnce) {
            self.touched(actual);
        }
        let reply = match answer {
            Answer::Ok => Reply::Ok,
            Answer::Conflict => Reply::Conflict,
            Answer::Power(power, off_cause) => Reply::Power(Reading {
                contradicted: false,
                // Stamped when the answer is there.
                at: Elapsed::default(),
                source: ReadingSource::Bmc,
                identity: Some(identity),
                power,
                off_cause,
            }),
            Answer::Identity(identity) => Reply::Identity(Some(identity)),
            Answer::Stage(stage) => Reply::Stage(stage),
            Answer::Flag(flag) => Reply::Flag(flag),
            Answer::Trouble(trouble) => Reply::BmcTrouble(trouble),
        };
        (arrives, reply)
    }

    fn call_probe(&mut self, host: HostId) -> (WorldTime, Reply) {
        let path = self.path_to(host);
        let loss = u64::from(self.network.loss(host));
        let lost = loss > 0 && self.chance.percent(loss) && self.chance.percent(loss) && self.chance.percent(loss);
        let answers = self.plants.get(&host).map(|p| p.machine.answers()).filter(|_| path && !lost);
        let icmp = answers.is_some_and(|a| a.icmp);
        let tcp = answers.is_some_and(|a| a.kubelet_port.is_some());
        (self.at + if icmp && tcp { 1 } else { 300 }, Reply::Probed { icmp, tcp })
    }

    fn call_outlets_off(&mut self, host: HostId) -> (WorldTime, Reply) {
        let now = self.at;
        self.outlets_off.insert(host);
        if let Some(plant) = self.plant_mut(host) {
            plant.machine.inject(now, machine::Fault::PowerLost(machine::OffCause::AcLoss));
        }
        self.touched(host);
        (now + 800, Reply::Ok)
    }

    fn call_outlets_on(&mut self, host: HostId) -> (WorldTime, Reply) {
        let now = self.at;
        if self.outlets_off.remove(&host) {
            if let Some(plant) = self.plant_mut(host) {
                plant.machine.inject(now, machine::Fault::PowerReturns);
            }
            self.touched(host);
        }
        (now + 800, Reply::Ok)
    }

    fn call_api(&mut self, sent: &Sent, call: ClusterCall) -> (WorldTime, Reply) {
        let now = self.at;
        let cluster = self.cluster_of(sent.host);
        let slow = cluster.and_then(|id| self.clusters.get(&id)).map_or(0, |c| c.slow_ms);
        if slow > 10 * SECOND || !cluster.is_some_and(|id| self.api_from_us(id)) {
            return (now + GIVE_UP_MS, Reply::ApiSilent);
        }
        let back = now + self.chance.between(5, 60) + slow;
        (back, self.serve_api(sent, call))
    }

    fn serve_api(&mut self, sent: &Sent, call: ClusterCall) -> Reply {
        let (now, host) = (self.at, sent.host);
        match call {
            ClusterCall::MintCredential | ClusterCall::DeleteCredential => {
                let minted = call == ClusterCall::MintCredential;
                if let Some(node) = self.nodes.get_mut(&host) {
                    node.credential = minted;
                }
                self.refresh(host);
                return Reply::Ok;
            }
            ClusterCall::RemoveEtcdMember(id) => {
                if let Some(cluster) = self.cluster_of(host) {
                    if let Some(cluster) = self.clusters.get_mut(&cluster) {
                        // etcd refuses what would leave too few started voters (--strict-reconfig-check, on by default).
                        let stay = || cluster.members_now.iter().filter(|m| m.id != id && !m.learner);
                        if stay().filter(|m| m.healthy).count() < stay().count() / 2 + 1 {
                            return Reply::ApiRefused;
                        }
                        cluster.members.remove(&id);
                    }
                    self.refresh_cluster(cluster);
                }
                return Reply::Ok;
            }
            ClusterCall::DeleteVolumeAttachments => {
                if let Some(node) = self.nodes.get_mut(&host).filter(|n| n.attachments > 0) {
                    node.detached_at = Some(now + 3 * SECOND);
                    self.after(3 * SECOND, Task::Detached(host));
                }
                return Reply::Ok;
            }
            _ => {}
        }
        let fit = self.plants.get(&host).is_some_and(Plant::node_fit);
        let Some(node) = self.nodes.get_mut(&host) else { return Reply::ApiRefused };
        if !node.exists {
            return match call {
                ClusterCall::ReadNode => Reply::Node { node: None, lease_renewed: false },
                ClusterCall::ReadLeftovers => Reply::Leftovers { pods: node.pods, attachments: node.attachments },
                // What is to be taken away from a Node that is gone is gone with it.
                ClusterCall::PutTaint
                | ClusterCall::Cordon
                | ClusterCall::RemoveTaint
                | ClusterCall::Uncordon
                | ClusterCall::DeletePods
                | ClusterCall::DeleteNode
                | ClusterCall::DeleteCanary => Reply::Ok,
                _ => Reply::ApiRefused,
            };
        }
        let mut reply = Reply::Ok;
        match call {
            ClusterCall::ReadNode => {
                let lease_renewed = node.lease_at(now) > sent.lease_at;
                reply = Reply::Node { node: Some(report(node)), lease_renewed };
            }
            ClusterCall::Cordon => node.our_cordon = true,
            ClusterCall::Uncordon => node.our_cordon = false,
            ClusterCall::PutTaint => node.taint = Some(sent.incident),
            ClusterCall::RemoveTaint => node.taint = None,
            ClusterCall::DeletePods if node.undeletable > 0 => reply = Reply::ApiRefused,
            ClusterCall::DeletePods => node.pods = node.pods.min(if node.sticky_pods > 0 { 1 } else { 0 }),
            ClusterCall::ReadLeftovers => {
                reply = Reply::Leftovers { pods: node.pods, attachments: node.attachments };
            }
            ClusterCall::DeleteNode => {
                let credential = node.credential;
                *node = crate::cluster::Node {
                    credential,
                    sticky_pods: node.sticky_pods,
                    undeletable: node.undeletable,
                    unstartable: node.unstartable,
                    sticky_attachments: node.sticky_attachments,
                    foreign: node.foreign,
                    ..crate::cluster::Node::default()
                };
            }
            ClusterCall::RestoreLabels => node.labelled = true,
            ClusterCall::CreateCanary => node.canary = Some(Canary { runs_at: now + 4 * SECOND }),
            ClusterCall::ReadCanary => {
                let starts = fit && node.unstartable == 0 && node.ready == Some(true);
                let runs = node.canary.is_some_and(|c| now >= c.runs_at) && starts;
                reply = Reply::Flag(runs);
            }
            ClusterCall::DeleteCanary => node.canary = None,
            ClusterCall::MintCredential
            | ClusterCall::DeleteCredential
            | ClusterCall::RemoveEtcdMember(_)
            | ClusterCall::DeleteVolumeAttachments => {}
        }
        match call {
            ClusterCall::Uncordon => self.after(20 * SECOND, Task::Scheduled(host)),
            ClusterCall::DeleteNode => self.refresh(host),
            _ => {}
        }
        self.dirty.insert(host);
        reply
    }
}
