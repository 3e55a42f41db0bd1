//! Everything outside the appliance: machines, networks, clusters, storage. It changes by itself, by faults, by people
//! and by the calls of the appliance, and tells which hosts look different after each change.

mod seen;
mod truth;

pub use seen::report;

use crate::chance::Chance;
use crate::cluster::{Cluster, GRACE_MS, Node};
use crate::fault::Fault;
use crate::network::Network;
use crate::plant::{News, Plant};
use crate::site::{Place, Site, Storage};
use crate::watch::{GroundTruth, MemberTruth, WorldTime};
use healing::id::{ClusterId, HostId, JobId, StorageId};
use healing::signal::Component;
use healing::time::{Elapsed, MINUTE, SECOND};
use healing::world::host::Role;
use std::collections::{BTreeMap, BTreeSet};

/// A storage system counts a host as missing after this (`osd_heartbeat_grace`, 20 s, and its report).
const STORAGE_GRACE_MS: u64 = 25 * SECOND;

/// Something that reality will do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A machine has something due.
    Machine(HostId),
    /// A kubelet posts its status.
    Post(HostId),
    /// The node lifecycle controller looks at a node that no longer renews.
    Lost(HostId),
    /// The virtual address moves to another control-plane host.
    VipMoves(ClusterId),
    /// VolumeAttachments are gone.
    Detached(HostId),
    /// The scheduler has put pods on a node that takes them.
    Scheduled(HostId),
    /// A storage system misses a host after its heartbeat grace.
    Missed(StorageId, HostId),
    /// A storage system has rebuilt what a host's absence reduced.
    Rebuilt(StorageId, HostId),
}

/// What a host is for, in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duty {
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Its role.
    pub role: Role,
    /// Its storage system.
    pub storage: Option<StorageId>,
}

/// A storage system in truth.
#[derive(Debug, Clone)]
pub struct StorageTruth {
    /// Its cluster and hosts.
    pub system: Storage,
    /// Faults that reduce it, whoever carries it.
    pub reduced: u32,
    /// Hosts that reduce it, and since when.
    pub missing: BTreeMap<HostId, WorldTime>,
    /// Since when it is reduced by nobody's absence.
    pub reduced_at: WorldTime,
}

/// The appliance's clock against the world's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Running time minus world time, in milliseconds.
    pub delta: i64,
    /// When this process began, true time: it knows no connection older than that.
    pub begun_at: WorldTime,
}

impl Clock {
    /// Running time at a true moment.
    #[must_use]
    pub fn elapsed(&self, at: WorldTime) -> Elapsed {
        Elapsed(at.saturating_add_signed(self.delta))
    }

    /// The true moment of a running time.
    #[must_use]
    pub fn world(&self, elapsed: Elapsed) -> WorldTime {
        elapsed.0.saturating_add_signed(-self.delta)
    }
}

/// The world outside.
#[derive(Debug, Clone)]
pub struct Reality {
    /// True time.
    pub at: WorldTime,
    /// Machines.
    pub plants: BTreeMap<HostId, Plant>,
    /// What each host is for.
    pub duties: BTreeMap<HostId, Duty>,
    /// Where each stands.
    pub places: BTreeMap<HostId, Place>,
    /// Networks.
    pub network: Network,
    /// Clusters.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// Nodes by the host whose name they bear.
    pub nodes: BTreeMap<HostId, Node>,
    /// Storage systems.
    pub storage: BTreeMap<StorageId, StorageTruth>,
    /// BMC addresses that reach another machine than the recorded one.
    pub wires: BTreeMap<HostId, HostId>,
    /// Open boot tickets: their job, and whether it only proves a spare.
    pub tickets: BTreeMap<HostId, (JobId, bool)>,
    /// PDU outlets that are switched off.
    pub outlets_off: BTreeSet<HostId>,
    /// The fault that each host has.
    pub faults: BTreeMap<HostId, Fault>,
    /// When a host's system last stopped answering, for the table of times.
    pub silent_at: BTreeMap<HostId, WorldTime>,
    /// Since when each machine that is on is so.
    pub on_since: BTreeMap<HostId, WorldTime>,
    /// Since when each host that is healthy is so without a gap.
    pub well_since: BTreeMap<HostId, WorldTime>,
    /// Hosts that look different since the last time this was emptied.
    pub dirty: BTreeSet<HostId>,
    /// Clusters (and our own sight) that look different.
    pub dirty_sight: bool,
    /// What is to happen by itself, to be put on the heap.
    pub agenda: Vec<(WorldTime, Task)>,
    /// The appliance lease in the store: holder and end.
    pub lease: Option<(u8, WorldTime)>,
    /// Draws.
    pub chance: Chance,
}

impl Reality {
    /// The world of a site, all well.
    #[must_use]
    pub fn new(site: &Site) -> Reality {
        let mut reality = Reality {
            at: 0,
            plants: BTreeMap::new(),
            duties: BTreeMap::new(),
            places: site.places.clone(),
            network: Network::default(),
            clusters: BTreeMap::new(),
            nodes: BTreeMap::new(),
            storage: BTreeMap::new(),
            wires: BTreeMap::new(),
            tickets: BTreeMap::new(),
            outlets_off: BTreeSet::new(),
            faults: BTreeMap::new(),
            silent_at: BTreeMap::new(),
            on_since: BTreeMap::new(),
            well_since: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_sight: true,
            agenda: Vec::new(),
            lease: None,
            chance: Chance::new(site.seed ^ 0x4ea1),
        };
        for host in site.hosts.values() {
            let carries = host.role != Role::Spare;
            let plane = host.role == Role::ControlPlane;
            let plant =
                Plant::new(host.id, host.machine, carries, plane, site.network_first.contains(&host.id), site.seed);
            reality.duties.insert(host.id, Duty { cluster: host.cluster, role: host.role, storage: host.storage });
            let node = Node {
                exists: carries,
                ready: carries.then_some(true),
                boot: plant.boot(),
                pods: if carries { reality.chance.between(4, 30) as u32 } else { 0 },
                attachments: if carries { reality.chance.below(5) as u32 } else { 0 },
                labelled: carries,
                renewing_from: carries.then(|| reality.chance.below(10 * SECOND)),
                ..Node::default()
            };
            reality.nodes.insert(host.id, node);
            reality.plants.insert(host.id, plant);
            reality.dirty.insert(host.id);
        }
        for cluster in &site.clusters {
            let planes = site.hosts_of(cluster.id, Role::ControlPlane);
            let members: BTreeMap<u64, HostId> =
                planes.iter().enumerate().map(|(n, &h)| ((u64::from(cluster.id.0) << 8) + n as u64 + 1, h)).collect();
            let hosts = site.hosts.values().filter(|h| h.cluster == Some(cluster.id)).map(|h| h.id).collect();
            let next_member = (u64::from(cluster.id.0) << 8) + members.len() as u64 + 1;
            reality.clusters.insert(
                cluster.id,
                Cluster {
                    id: cluster.id,
                    etcd_access: cluster.etcd_access,
                    vip: planes.first().copied(),
                    planes,
                    hosts,
                    vip_stuck: false,
                    down: 0,
                    slow_ms: 0,
                    watch_stale: 0,
                    lease_storm: 0,
                    upgrades: 0,
                    members,
                    member_stopped: Vec::new(),
                    learners: 0,
                    next_member,
                    foreign_action: None,
                    api_up: true,
                    api_changed_at: 0,
                    vip_up: true,
                    vip_changed_at: 0,
                    watch_live: true,
                    watch_changed_at: 0,
                    members_before: (0, Vec::new()),
                    members_now: Vec::new(),
                },
            );
        }
        for system in &site.storage {
            reality.storage.insert(
                system.id,
                StorageTruth { system: system.clone(), reduced: 0, missing: BTreeMap::new(), reduced_at: 0 },
            );
        }
        let clusters: Vec<ClusterId> = reality.clusters.keys().copied().collect();
        for cluster in clusters {
            reality.refresh_cluster(cluster);
        }
        for host in site.hosts.keys() {
            reality.refresh(*host);
        }
        reality
    }

    /// Puts a task on the agenda, after so many milliseconds.
    pub fn after(&mut self, span: u64, task: Task) {
        self.agenda.push((self.at + span, task));
    }

    /// The cluster of a host.
    #[must_use]
    pub fn cluster_of(&self, host: HostId) -> Option<ClusterId> {
        self.duties.get(&host).and_then(|d| d.cluster)
    }

    /// What a host is for from now on: a spare that takes a place, or one that gave it up again.
    pub fn serves_as(&mut self, host: HostId, role: Role, cluster: Option<ClusterId>) {
        let Some(duty) = self.duties.get_mut(&host) else { return };
        if (duty.role, duty.cluster) == (role, cluster) {
            return;
        }
        let old = std::mem::replace(&mut duty.cluster, cluster);
        duty.role = role;
        if let Some(cluster) = old.and_then(|id| self.clusters.get_mut(&id)) {
            cluster.hosts.retain(|h| *h != host);
        }
        if let Some(cluster) = cluster.and_then(|id| self.clusters.get_mut(&id)) {
            cluster.hosts.push(host);
        }
        self.touched(host);
    }

    fn place(&self, host: HostId) -> Place {
        self.places.get(&host).copied().unwrap_or_default()
    }

    /// The machine that a host's recorded BMC address reaches.
    #[must_use]
    pub fn behind(&self, host: HostId) -> HostId {
        self.wires.get(&host).copied().unwrap_or(host)
    }

    /// Whether a BMC address can be reached at all from the appliance.
    #[must_use]
    pub fn bmc_path(&self, host: HostId) -> bool {
        self.network.to_bmc(&self.place(host))
    }

    /// Whether the appliance reaches some API endpoint of a cluster.
    #[must_use]
    pub fn api_from_us(&self, cluster: ClusterId) -> bool {
        self.network.appliance_cut == 0 && self.clusters.get(&cluster).is_some_and(|c| c.api_up)
    }

    /// A kubelet can write to its API.
    fn writes(&self, host: HostId) -> bool {
        let Some(cluster) = self.cluster_of(host).and_then(|id| self.clusters.get(&id)) else { return false };
        cluster.api_up && cluster.vip_up && cluster.lease_storm == 0 && self.network.to_api(host, &self.place(host))
    }

    /// The machine's installer works on this job and is waiting to be heard.
    #[must_use]
    pub fn machine_installs(&self, host: HostId, job: healing::id::JobId) -> bool {
        self.plants.get(&host).and_then(|p| p.machine.installing()).is_some_and(|(number, _)| number == job.0)
    }

    /// A machine, to be changed; afterwards [`Reality::touched`] must be called.
    pub fn plant_mut(&mut self, host: HostId) -> Option<&mut Plant> {
        self.plants.get_mut(&host)
    }

    /// A machine changed: everything that follows from it is made to follow.
    pub fn touched(&mut self, host: HostId) {
        if self.plants.get(&host).is_some_and(Plant::is_on) {
            self.on_since.entry(host).or_insert(self.at);
        } else {
            self.on_since.remove(&host);
        }
        if let Some(at) = self.plants.get(&host).and_then(Plant::next) {
            self.agenda.push((at.max(self.at + 1), Task::Machine(host)));
        }
        let duty = self.duties.get(&host).copied();
        if let Some(Duty { role: Role::ControlPlane, cluster: Some(cluster), .. }) = duty {
            self.refresh_cluster(cluster);
        }
        if let Some(system) = duty.and_then(|d| d.storage) {
            self.refresh_storage(system, host);
        }
        self.refresh(host);
        // Cables may be swapped: whoever looks through them sees it too.
        let lookers: Vec<HostId> = self.wires.iter().filter(|(_, at)| **at == host).map(|(h, _)| *h).collect();
        self.dirty.extend(lookers);
    }

    /// What follows for a host's Node from machine, network and API as they are.
    pub fn refresh(&mut self, host: HostId) {
        self.dirty.insert(host);
        if self.healthy(host) {
            self.well_since.entry(host).or_insert(self.at);
        } else {
            self.well_since.remove(&host);
        }
        let writes = self.writes(host);
        let Some(plant) = self.plants.get(&host) else { return };
        let works = plant.kubelet_works() && plant.joined;
        let waits_to_join = plant.kubelet_works() && !plant.joined;
        let alive = plant.kernel_answers() && plant.system_runs();
        let (fit, shutting) = (plant.node_fit(), plant.machine.shutting_down());
        if alive {
            self.silent_at.remove(&host);
        } else {
            self.silent_at.entry(host).or_insert(self.at);
        }
        let jitter = self.chance.between(200, 3_000);
        let now = self.at;
        let Some(node) = self.nodes.get_mut(&host) else { return };
        let renews = node.exists && works && writes;
        let renewed_before = node.renewing_from.is_some();
        node.renew(renews, now, jitter);
        let lost_at = node.renewed_at + GRACE_MS;
        if shutting && node.exists && writes && host.0.is_multiple_of(2) {
            node.ready = Some(false);
            node.shutting_down = true;
        }
        let differs = node.ready != Some(fit);
        let exists = node.exists;
        let boot_differs = node.boot != plant.boot();
        if works && writes && (!renewed_before || !exists || boot_differs) {
            self.after(jitter + 800, Task::Post(host));
        } else if works && writes && differs {
            self.after(10 * SECOND, Task::Post(host));
        }
        if waits_to_join && writes {
            self.after(10 * SECOND, Task::Post(host));
        }
        if !renews && renewed_before {
            self.agenda.push((lost_at.max(now + 1), Task::Lost(host)));
        }
    }

    /// What follows for a cluster from its control-plane hosts as they are.
    pub fn refresh_cluster(&mut self, id: ClusterId) {
        let Some(cluster) = self.clusters.get(&id) else { return };
        let mut members: Vec<MemberTruth> = cluster
            .members
            .iter()
            .map(|(&id, &host)| MemberTruth { id, host, healthy: self.member_runs(cluster, host), learner: false })
            .collect();
        for n in 0..cluster.learners {
            let host = cluster.planes.first().copied().unwrap_or_default();
            members.push(MemberTruth { id: 0xffff_0000 + u64::from(n), host, healthy: true, learner: true });
        }
        let quorum = Cluster::quorum(&members);
        let endpoint = |host: &HostId| {
            self.plants.get(host).is_some_and(|p| p.serves(Component::ApiServer))
                && self.network.to_api(*host, &self.place(*host))
        };
        let api_up = cluster.down == 0 && quorum && cluster.planes.iter().any(endpoint);
        let holder_ok = cluster.vip.as_ref().is_some_and(endpoint);
        let vip_up = api_up && holder_ok;
        let watch_live = api_up && cluster.watch_stale == 0 && self.network.appliance_cut == 0;
        let holder_gone =
            cluster.vip.is_none_or(|h| self.plants.get(&h).is_none_or(|p| !p.is_on()) || !cluster.vip_stuck);
        let hosts = cluster.hosts.clone();
        let now = self.at;
        let Some(cluster) = self.clusters.get_mut(&id) else { return };
        let changed = cluster.api_up != api_up || cluster.vip_up != vip_up || cluster.watch_live != watch_live;
        if cluster.api_up != api_up {
            cluster.api_up = api_up;
            cluster.api_changed_at = now;
        }
        if cluster.vip_up != vip_up {
            cluster.vip_up = vip_up;
            cluster.vip_changed_at = now;
        }
        if cluster.watch_live != watch_live {
            cluster.watch_live = watch_live;
            cluster.watch_changed_at = now;
        }
        if cluster.members_now != members {
            let before = std::mem::replace(&mut cluster.members_now, members);
            cluster.members_before = (now, before);
            self.dirty_sight = true;
        }
        if !holder_ok && holder_gone {
            self.after(5 * SECOND, Task::VipMoves(id));
        }
        if changed {
            self.dirty_sight = true;
            for host in hosts {
                self.refresh(host);
                if api_up {
                    // Controllers that were away give every node its grace anew.
                    self.after(GRACE_MS, Task::Lost(host));
                }
            }
        }
    }

    fn member_runs(&self, cluster: &Cluster, host: HostId) -> bool {
        !cluster.member_stopped.contains(&host)
            && self.plants.get(&host).is_some_and(|p| p.serves(Component::Etcd))
            && self.network.to_api(host, &self.place(host))
    }

    fn refresh_storage(&mut self, system: StorageId, host: HostId) {
        let carries = self.plants.get(&host).is_some_and(|p| p.system_runs() && p.kernel_answers());
        let Some(truth) = self.storage.get(&system) else { return };
        let missing = truth.missing.contains_key(&host);
        if !carries && !missing {
            self.after(STORAGE_GRACE_MS, Task::Missed(system, host));
        } else if carries && missing {
            self.after(2 * MINUTE, Task::Rebuilt(system, host));
        }
    }

    /// The network changed in a way that may concern everybody.
    pub fn network_changed(&mut self) {
        let clusters: Vec<ClusterId> = self.clusters.keys().copied().collect();
        for cluster in clusters {
            self.refresh_cluster(cluster);
        }
        let hosts: Vec<HostId> = self.plants.keys().copied().collect();
        for host in hosts {
            self.refresh(host);
        }
        self.dirty_sight = true;
    }

    /// Does a task. A machine's news come back.
    pub fn perform(&mut self, task: Task) -> Option<(HostId, News)> {
        match task {
            Task::Machine(host) => {
                let ticket = self.tickets.get(&host).copied();
                let now = self.at;
                let plant = self.plants.get_mut(&host)?;
                if plant.next().is_none_or(|at| at > now) {
                    return None;
                }
                let news = plant.advance(now, ticket);
                self.touched(host);
                return news.map(|n| (host, n));
            }
            Task::Post(host) => self.post(host),
            Task::Lost(host) => {
                let now = self.at;
                let up = self.cluster_of(host).and_then(|c| self.clusters.get(&c)).is_some_and(|c| {
                    c.api_up && now >= c.api_changed_at + if c.api_changed_at > 0 { GRACE_MS } else { 0 }
                });
                if let Some(node) = self.nodes.get_mut(&host)
                    && up
                    && node.exists
                    && node.renewing_from.is_none()
                    && now >= node.renewed_at + GRACE_MS
                    && node.ready.is_some()
                {
                    node.ready = None;
                    self.dirty.insert(host);
                }
            }
            Task::VipMoves(id) => self.move_vip(id),
            Task::Detached(host) => {
                if let Some(node) = self.nodes.get_mut(&host)
                    && node.detached_at.take().is_some()
                {
                    node.attachments = node.attachments.min(node.sticky_attachments);
                }
            }
            Task::Scheduled(host) => {
                let (pods, attachments) = (self.chance.between(4, 30) as u32, self.chance.below(5) as u32);
                if let Some(node) = self.nodes.get_mut(&host)
                    && node.exists
                    && node.ready == Some(true)
                    && !node.our_cordon
                    && node.foreign == 0
                    && node.taint.is_none()
                    && node.pods == 0
                {
                    node.pods = pods;
                    node.attachments = attachments;
                }
            }
            Task::Missed(system, host) => {
                let carries = self.plants.get(&host).is_some_and(|p| p.system_runs() && p.kernel_answers());
                let now = self.at;
                if let Some(truth) = self.storage.get_mut(&system)
                    && !carries
                    && !truth.missing.contains_key(&host)
                {
                    truth.missing.insert(host, now);
                    self.dirty_sight = true;
                }
            }
            Task::Rebuilt(system, host) => {
                let carries = self.plants.get(&host).is_some_and(Plant::system_runs);
                if let Some(truth) = self.storage.get_mut(&system)
                    && carries
                    && truth.missing.remove(&host).is_some()
                {
                    self.dirty_sight = true;
                }
            }
        }
        None
    }

    fn post(&mut self, host: HostId) {
        let writes = self.writes(host);
        let Some(plant) = self.plants.get(&host) else { return };
        if !writes || !plant.kubelet_works() {
            return;
        }
        if !plant.joined {
            // A fresh system joins with the credential minted for it, and only then.
            if !self.nodes.get(&host).is_some_and(|n| n.credential) {
                return;
            }
            if let Some(plant) = self.plants.get_mut(&host) {
                plant.joined = true;
            }
            self.touched(host);
            return;
        }
        let (boot, fit) = (plant.boot(), plant.node_fit());
        let role = self.duties.get(&host).map(|d| d.role);
        let now = self.at;
        let Some(node) = self.nodes.get_mut(&host) else { return };
        let fresh = !node.exists;
        if fresh {
            *node = Node {
                exists: true,
                renewing_from: Some(now),
                credential: node.credential,
                foreign: node.foreign,
                ..Node::default()
            };
        }
        node.boot = boot;
        node.ready = Some(fit);
        node.shutting_down = false;
        node.renew(true, now, 0);
        let takes_pods = node.pods == 0;
        self.dirty.insert(host);
        if takes_pods {
            self.after(30 * SECOND, Task::Scheduled(host));
        }
        if fresh
            && role == Some(Role::ControlPlane)
            && let Some(id) = self.cluster_of(host)
        {
            if let Some(cluster) = self.clusters.get_mut(&id)
                && !cluster.members.values().any(|h| *h == host)
            {
                let member = cluster.next_member;
                cluster.next_member += 1;
                cluster.members.insert(member, host);
            }
            self.refresh_cluster(id);
        }
    }

    fn move_vip(&mut self, id: ClusterId) {
        let Some(cluster) = self.clusters.get(&id) else { return };
        let serves = |host: &HostId| {
            self.plants.get(host).is_some_and(|p| p.serves(Component::ApiServer))
                && self.network.to_api(*host, &self.place(*host))
        };
        let holder_on = cluster.vip.is_some_and(|h| self.plants.get(&h).is_some_and(Plant::is_on));
        if cluster.vip.as_ref().is_some_and(serves) || (cluster.vip_stuck && holder_on) {
            return;
        }
        let next = cluster.planes.iter().copied().find(|h| serves(h));
        if let Some(next) = next
            && let Some(cluster) = self.clusters.get_mut(&id)
        {
            cluster.vip = Some(next);
            cluster.vip_stuck = false;
            self.refresh_cluster(id);
        }
    }
}
