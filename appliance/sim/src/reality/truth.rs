//! What is true, for the checks: never for the appliance.

use super::Reality;
use crate::fault::Fault;
use crate::plant::Plant;
use crate::watch::{GroundTruth, MemberTruth, NodeTruth, WorldTime};
use healing::id::{ClusterId, HostId, JobId, MachineId, StorageId};
use healing::signal::Power;
use healing::world::host::Role;

impl GroundTruth for Reality {
    fn at(&self) -> WorldTime {
        self.at
    }

    fn hosts(&self) -> Vec<HostId> {
        self.plants.keys().copied().collect()
    }

    fn healthy(&self, host: HostId) -> bool {
        let carries = self.duties.get(&host).is_some_and(|d| d.role != Role::Spare);
        let works = self.plants.get(&host).is_some_and(|p| p.kubelet_works() && p.joined);
        // A port that loses every second packet is no path.
        carries && works && self.network.to_api(host, &self.place(host)) && self.network.loss(host) < 40
    }

    fn power(&self, host: HostId) -> Power {
        self.plants.get(&host).map_or(Power::Unknown, Plant::power)
    }

    fn on_since(&self, host: HostId) -> Option<WorldTime> {
        self.on_since.get(&host).copied()
    }

    fn identity(&self, host: HostId) -> MachineId {
        self.plants.get(&host).map_or(MachineId::default(), Plant::identity)
    }

    fn behind_bmc(&self, host: HostId) -> HostId {
        self.behind(host)
    }

    fn firmware_task(&self, host: HostId) -> bool {
        self.plants.get(&host).is_some_and(|p| p.machine.firmware_task(self.at))
    }

    fn disk_writes(&self, host: HostId) -> u32 {
        self.plants.get(&host).map_or(0, |p| p.machine.disk_writes())
    }

    fn node(&self, host: HostId) -> Option<NodeTruth> {
        self.nodes.get(&host).and_then(|n| n.truth(self.at))
    }

    fn fault(&self, host: HostId) -> Option<Fault> {
        self.faults.get(&host).copied()
    }

    fn etcd(&self, cluster: ClusterId) -> Vec<MemberTruth> {
        self.clusters.get(&cluster).map_or_else(Vec::new, |c| c.members_now.clone())
    }

    fn api_up(&self, cluster: ClusterId) -> bool {
        self.clusters.get(&cluster).is_some_and(|c| c.api_up)
    }

    fn watch_live(&self, cluster: ClusterId) -> bool {
        self.clusters.get(&cluster).is_some_and(|c| c.watch_live)
    }

    fn storage_reduced_by(&self, system: StorageId) -> Vec<HostId> {
        self.storage.get(&system).map_or_else(Vec::new, |s| s.missing.keys().copied().collect())
    }

    fn upgrade_running(&self, cluster: ClusterId) -> bool {
        self.clusters.get(&cluster).is_some_and(|c| c.upgrades > 0)
    }

    fn foreign_action(&self, cluster: ClusterId) -> Option<(HostId, WorldTime)> {
        self.clusters.get(&cluster).and_then(|c| c.foreign_action)
    }

    fn own_sight_good(&self) -> bool {
        self.network.own_sight_good()
    }

    fn path_to(&self, host: HostId) -> bool {
        self.network.from_us(host, &self.place(host))
    }

    fn ticket(&self, host: HostId) -> Option<JobId> {
        self.tickets.get(&host).map(|(job, _)| *job)
    }

    fn credential(&self, host: HostId) -> bool {
        self.nodes.get(&host).is_some_and(|n| n.credential)
    }

    fn lease_holder(&self) -> Option<(u8, WorldTime)> {
        self.lease
    }
}
