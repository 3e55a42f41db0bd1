//! A simulated site: which hosts there are, what they are for, and where they stand.

use crate::chance::Chance;
use healing::assess::Assessment;
use healing::event::Config;
use healing::id::{ClusterId, DomainId, HostId, MachineId, PoolId, StorageId, VersionId};
use healing::time::{DAY, Elapsed, MINUTE};
use healing::world::host::{BootOrder, CmdbState, History, Host, Lifecycle, Link, Marks, Role, SpareProof};
use healing::world::scope::{Cluster, Consent, Domain, DomainKind, Pool};
use std::collections::BTreeMap;

/// Running time of the appliance when a simulated run begins: it has been there for 40 days, so that nothing that looks
/// back runs into zero.
pub const BEGINNING: Elapsed = Elapsed(40 * DAY);

/// Hosts in a rack of [`Site::uniform`].
const RACK: u32 = 14;

/// Where a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its rack.
    pub rack: Option<DomainId>,
    /// Its PDU.
    pub pdu: Option<DomainId>,
    /// Its switch.
    pub switch: Option<DomainId>,
    /// Its chassis.
    pub chassis: Option<DomainId>,
}

/// A storage system and its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its number.
    pub id: StorageId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The hosts that carry it.
    pub hosts: Vec<HostId>,
}

/// A site to simulate: the configuration that the appliance gets, and the truth beside it.
#[derive(Debug, Clone)]
pub struct Site {
    /// The seed from which everything random in the run follows.
    pub seed: u64,
    /// Clusters.
    pub clusters: Vec<Cluster>,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Physical failure domains.
    pub domains: Vec<Domain>,
    /// Hosts, by number.
    pub hosts: BTreeMap<HostId, Host>,
    /// Where each stands in truth, also those whose labels are missing.
    pub places: BTreeMap<HostId, Place>,
    /// Storage systems.
    pub storage: Vec<Storage>,
    /// Hosts whose crash kernel writes a dump.
    pub crash_kernel: Vec<HostId>,
    /// Hosts whose firmware asks the network before the disk.
    pub network_first: Vec<HostId>,
}

impl Site {
    /// A site without anything, to be filled by a story.
    #[must_use]
    pub fn empty(seed: u64) -> Site {
        Site {
            seed,
            clusters: Vec::new(),
            pools: Vec::new(),
            domains: Vec::new(),
            hosts: BTreeMap::new(),
            places: BTreeMap::new(),
            storage: Vec::new(),
            crash_kernel: Vec::new(),
            network_first: Vec::new(),
        }
    }

    /// A plain rack for a story: one armed cluster with so many control-plane hosts (numbers 1 and up), then workers,
    /// then spares with a fresh proof; four hosts to a rack, each rack with its own PDU and switch.
    #[must_use]
    pub fn plain(control_planes: u32, workers: u32, spares: u32, seed: u64) -> Site {
        let mut site = Site::empty(seed);
        let cluster = site.add_cluster(true, true);
        let planes = site.add_pool("control-plane", Consent::Ask, Consent::Ask);
        let pool = site.add_pool("workers", Consent::Automatic, Consent::Automatic);
        for number in 0..control_planes + workers + spares {
            let (role, of) = if number < control_planes {
                (Role::ControlPlane, planes)
            } else if number < control_planes + workers {
                (Role::Worker, pool)
            } else {
                (Role::Spare, pool)
            };
            let rack = number / 4;
            let place = site.rack_place(rack, rack, rack, None);
            site.add_host(role, cluster, of, place);
        }
        site
    }

    /// A site of so many hosts, spread over racks, PDUs, switches and chassis, in one to three clusters (more if one would have
    /// over 400 hosts) with one to
    /// five control-plane hosts, with storage hosts, spares, unlabelled, unbound and *self* hosts, as the seed wills.
    #[must_use]
    pub fn uniform(hosts: u32, seed: u64) -> Site {
        let mut chance = Chance::new(seed ^ 0x517e);
        let mut site = Site::empty(seed);
        let few = if hosts < 20 { 1 } else { 1 + chance.below(3) as u32 };
        let clusters = few.max(hosts / 400);
        let spares = if hosts < 10 { 0 } else { (hosts / 16).max(1) };
        let share = (hosts - spares.min(hosts)) / clusters;
        let mut placed = 0;
        for number in 0..clusters {
            let size = if number + 1 == clusters { hosts - spares - share * (clusters - 1) } else { share };
            site.grow_cluster(size, &mut placed, &mut chance);
        }
        let (Some(cluster), Some(pool)) = (site.clusters.first().map(|c| c.id), site.pools.get(1).map(|p| p.id)) else {
            return site;
        };
        for number in 0..spares {
            let place = site.next_place(&mut placed, false);
            let id = site.add_host(Role::Spare, cluster, pool, place);
            if let Some(spare) = site.hosts.get_mut(&id) {
                // One spare in four was not proven for too long, and one falls due in the first hour.
                let age = match number % 4 {
                    3 => 9 * DAY,
                    2 => 3 * DAY - 60 * MINUTE,
                    _ => DAY,
                };
                spare.spare_proof = Some(SpareProof { at: BEGINNING.minus(age), passed: true, at_wall_ms: 0 });
                spare.marks = Marks::default();
            }
        }
        site
    }

    fn grow_cluster(&mut self, size: u32, placed: &mut u32, chance: &mut Chance) {
        let planes = match size {
            0..=3 => 1.min(size),
            4..=9 => [1, 2, 3][chance.below(3) as usize],
            _ => [1, 2, 3, 3, 3, 5][chance.below(6) as usize],
        };
        let etcd_access = chance.percent(85);
        let cluster = self.add_cluster(true, etcd_access);
        let consent = |chance: &mut Chance| {
            if chance.percent(75) { Consent::Automatic } else { Consent::Ask }
        };
        let plane_pool = self.add_pool("control-plane", Consent::Ask, Consent::Ask);
        let (reimage, replace) = (consent(chance), consent(chance));
        let worker_pool = self.add_pool("workers", reimage, replace);
        if let Some(pool) = self.pools.iter_mut().find(|p| p.id == worker_pool) {
            pool.soft_reboot = consent(chance);
            pool.runtime_restart = chance.percent(60);
        }
        let storage_hosts = if size >= 12 { 3 + chance.below(3) as u32 } else { 0 };
        let storage = (storage_hosts > 0).then(|| StorageId(self.storage.len() as u16 + 1));
        if let Some(id) = storage {
            self.storage.push(Storage { id, cluster, hosts: Vec::new() });
        }
        for number in 0..size {
            let control_plane = number < planes;
            let unlabelled = !control_plane && chance.percent(4);
            let place = self.next_place(placed, unlabelled);
            let (role, pool) =
                if control_plane { (Role::ControlPlane, plane_pool) } else { (Role::Worker, worker_pool) };
            let id = self.add_host(role, cluster, pool, place);
            let stores = !control_plane && number < planes + storage_hosts;
            if stores && let Some(system) = self.storage.last_mut() {
                system.hosts.push(id);
            }
            if chance.percent(50) {
                self.crash_kernel.push(id);
            }
            let physical = self.places.get(&id).copied().unwrap_or_default();
            let unlabelled_domain = unlabelled.then(|| self.unlabelled(cluster));
            let Some(host) = self.hosts.get_mut(&id) else { continue };
            host.storage = if stores { storage } else { None };
            // Some ask the network first, and of some no boot was watched yet.
            if id.0 % 5 == 2 {
                self.network_first.push(id);
            }
            if id.0 % 5 >= 2 {
                host.history.boot_order = BootOrder::Unknown;
            }
            host.outlets = physical.pdu.is_some() && chance.percent(40);
            if let Some(domain) = unlabelled_domain {
                host.domains = vec![domain];
            }
            if !control_plane && chance.percent(2) {
                host.link = Link::Unbound;
            }
            if !control_plane && chance.percent(1) {
                host.marks.is_self = true;
            }
            if chance.percent(50) {
                host.marks.cmdb = CmdbState::InService { at: BEGINNING };
            }
        }
    }

    /// The next place in the row of racks. Places of unlabelled hosts exist too; only their labels are missing.
    fn next_place(&mut self, placed: &mut u32, _unlabelled: bool) -> Place {
        let number = *placed;
        *placed += 1;
        // Control-plane hosts of one cluster come one after the other; the stride puts them into different racks.
        let racks = (number / RACK).max(3);
        let rack = if number < 3 * RACK { number % 3 } else { racks };
        let slot = if number < 3 * RACK { number / 3 } else { number % RACK };
        // Every third rack is full of chassis of four.
        let chassis = (rack % 3 == 2).then_some(rack * 8 + slot / 4);
        self.rack_place(rack, rack * 2 + slot % 2, rack, chassis)
    }

    /// A place with its domains, which are made if they are new.
    pub fn rack_place(&mut self, rack: u32, pdu: u32, switch: u32, chassis: Option<u32>) -> Place {
        Place {
            rack: Some(self.domain(DomainKind::Rack, rack)),
            pdu: Some(self.domain(DomainKind::Pdu, pdu)),
            switch: Some(self.domain(DomainKind::Switch, switch)),
            chassis: chassis.map(|number| self.domain(DomainKind::Chassis, number)),
        }
    }

    fn domain(&mut self, kind: DomainKind, number: u32) -> DomainId {
        let (base, word) = match kind {
            DomainKind::Rack => (1_000, "rack"),
            DomainKind::Pdu => (20_000, "pdu"),
            DomainKind::Switch => (40_000, "switch"),
            DomainKind::Chassis => (60_000, "chassis"),
            DomainKind::Unlabelled => (90_000, "unlabelled"),
        };
        let id = DomainId(base + number);
        if self.domains.iter().rev().all(|d| d.id != id) {
            self.domains.push(Domain { id, name: format!("{word}-{number}"), kind, paused: false, correlated: None });
        }
        id
    }

    fn unlabelled(&mut self, cluster: ClusterId) -> DomainId {
        self.domain(DomainKind::Unlabelled, u32::from(cluster.0))
    }

    /// Adds a cluster.
    pub fn add_cluster(&mut self, armed: bool, etcd_access: bool) -> ClusterId {
        let id = ClusterId(self.clusters.len() as u16 + 1);
        self.clusters.push(Cluster {
            id,
            name: format!("cluster-{}", id.0),
            armed,
            paused: false,
            etcd_access,
            freeze: None,
            freeze_ended: None,
            careful: None,
            released_hosts: Vec::new(),
            released_at: None,
        });
        id
    }

    /// Adds a pool.
    pub fn add_pool(&mut self, name: &str, reimage: Consent, replace: Consent) -> PoolId {
        let id = PoolId(self.pools.len() as u16 + 1);
        self.pools.push(Pool {
            id,
            name: format!("{name}-{}", id.0),
            soft_reboot: Consent::Ask,
            reimage,
            replace,
            runtime_restart: true,
            crash_dump_wait_ms: 0,
        });
        id
    }

    /// Adds a host, linked, in service, and as its own label says.
    pub fn add_host(&mut self, role: Role, cluster: ClusterId, pool: PoolId, place: Place) -> HostId {
        let id = HostId(self.hosts.len() as u32 + 1);
        let word = match role {
            Role::Worker => "worker",
            Role::ControlPlane => "control",
            Role::Spare => "spare",
        };
        let domains = [place.rack, place.pdu, place.switch, place.chassis].into_iter().flatten().collect();
        let host = Host {
            id,
            name: format!("{word}-{}", id.0),
            cluster: Some(cluster),
            pool,
            role,
            domains,
            versions: vec![VersionId(1), VersionId(100 + id.0 % 2)],
            storage: None,
            machine: identity(self.seed, id),
            link: Link::Linked,
            outlets: false,
            disk: Some(format!("disk-{}", id.0)),
            lifecycle: Lifecycle::InService,
            marks: Marks::default(),
            spare_proof: (role == Role::Spare).then_some(SpareProof {
                at: BEGINNING.minus(DAY),
                passed: true,
                at_wall_ms: 0,
            }),
            drill: None,
            assessment: Assessment::default(),
            history: History { boot_order: BootOrder::DiskFirst, ..History::default() },
            incident: None,
            our_cordon: None,
            our_taint: None,
            held_off: None,
        };
        self.places.insert(id, place);
        self.hosts.insert(id, host);
        id
    }

    /// The configuration as the appliance gets it, in order.
    #[must_use]
    pub fn configuration(&self) -> Vec<Config> {
        let clusters = self.clusters.iter().cloned().map(|c| Config::Cluster(Box::new(c)));
        let pools = self.pools.iter().cloned().map(|p| Config::Pool(Box::new(p)));
        let domains = self.domains.iter().cloned().map(|d| Config::Domain(Box::new(d)));
        let hosts = self.hosts.values().cloned().map(|h| Config::Host(Box::new(h)));
        clusters.chain(pools).chain(domains).chain(hosts).collect()
    }

    /// The hosts with a role in a cluster.
    #[must_use]
    pub fn hosts_of(&self, cluster: ClusterId, role: Role) -> Vec<HostId> {
        self.hosts.values().filter(|h| h.cluster == Some(cluster) && h.role == role).map(|h| h.id).collect()
    }
}

/// The identity burnt into the machine of a host.
#[must_use]
pub fn identity(seed: u64, host: HostId) -> MachineId {
    let mut chance = Chance::new(seed.wrapping_mul(31).wrapping_add(u64::from(host.0)));
    MachineId((u128::from(chance.bits()) << 64) | u128::from(chance.bits()) | 1)
}
