//! The world: all that decisions rest on beside the event itself. Owned by the loop, changed only by
//! [`World::apply`]. Everything is ordered (B-trees), so two runs of the same events are the same to the byte.

pub mod host;
pub mod incident;
pub mod scope;
pub mod tally;

use crate::event::Change;
use crate::id::{ClusterId, DomainId, HostId, IncidentId, PoolId, VersionId};
use crate::policy::{Kind, Limits, Policy};
use host::Host;
use incident::Incident;
use scope::{Cluster, Domain, Pool, Site, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tally::{Contribution, Tallies};

/// Everything the decisions rest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// The numbers.
    pub limits: Limits,
    /// Version of the policy that these numbers came from.
    pub policy_version: u32,
    /// What holds for the whole site.
    pub site: Site,
    /// Clusters by number.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// Pools by number.
    pub pools: BTreeMap<PoolId, Pool>,
    /// Physical failure domains by number.
    pub domains: BTreeMap<DomainId, Domain>,
    /// Versions of image, kernel, kubelet and firmware that failed lately (rule 15).
    pub versions: BTreeMap<VersionId, Version>,
    /// Hosts by number.
    pub hosts: BTreeMap<HostId, Host>,
    /// Open incidents. Ended ones leave the world with their last change.
    pub incidents: BTreeMap<IncidentId, Incident>,
    /// Fleet-wide counts, kept by `apply`.
    pub tallies: Tallies,
}

impl World {
    /// An empty world under a checked policy: observe-only until started.
    #[must_use]
    pub fn new<K: Kind>(policy: &Policy<K>) -> World {
        World {
            limits: policy.limits().clone(),
            policy_version: 1,
            site: Site::default(),
            clusters: BTreeMap::new(),
            pools: BTreeMap::new(),
            domains: BTreeMap::new(),
            versions: BTreeMap::new(),
            hosts: BTreeMap::new(),
            incidents: BTreeMap::new(),
            tallies: Tallies::default(),
        }
    }

    /// A host.
    #[must_use]
    pub fn host(&self, id: HostId) -> Option<&Host> {
        touch::one();
        self.hosts.get(&id)
    }

    /// A cluster.
    #[must_use]
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        touch::one();
        self.clusters.get(&id)
    }

    /// A domain.
    #[must_use]
    pub fn domain(&self, id: DomainId) -> Option<&Domain> {
        touch::one();
        self.domains.get(&id)
    }

    /// A pool.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        touch::one();
        self.pools.get(&id)
    }

    /// An open incident.
    #[must_use]
    pub fn incident(&self, id: IncidentId) -> Option<&Incident> {
        touch::one();
        self.incidents.get(&id)
    }

    /// The incident open on a host.
    #[must_use]
    pub fn incident_of(&self, host: HostId) -> Option<&Incident> {
        self.host(host)?.incident.and_then(|id| self.incident(id))
    }

    /// The only way the world changes.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Limits { limits, version } => {
                self.limits = (**limits).clone();
                self.policy_version = *version;
            }
            Change::Site(site) => self.site = (**site).clone(),
            Change::Cluster(cluster) => {
                self.clusters.insert(cluster.id, (**cluster).clone());
            }
            Change::Pool(pool) => {
                self.pools.insert(pool.id, (**pool).clone());
            }
            Change::Domain(domain) => {
                self.domains.insert(domain.id, (**domain).clone());
            }
            Change::Version(version) => {
                self.versions.insert(version.id, (**version).clone());
            }
            Change::Host(host) => self.put_host((**host).clone()),
            Change::Assessed { host, assessment } => {
                if let Some(mut changed) = self.hosts.get(host).cloned() {
                    changed.assessment = *assessment;
                    self.put_host(changed);
                }
            }
            Change::RemoveHost(id) => {
                if let Some(old) = self.hosts.remove(id) {
                    let contribution = Contribution::of(&old, None);
                    self.tallies.remove(&contribution);
                }
            }
            Change::Incident(incident) => self.put_incident((**incident).clone()),
            Change::Ended(incident) => {
                if let Some(old) = self.incidents.remove(&incident.id) {
                    self.tallies.remove_incident(&old);
                }
            }
            Change::Acted { at, .. } => self.tallies.acted(*at),
        }
    }

    fn put_host(&mut self, host: Host) {
        if let Some(old) = self.hosts.get(&host.id) {
            let old = Contribution::of(old, None);
            self.tallies.remove(&old);
        }
        self.tallies.add(&Contribution::of(&host, None));
        self.hosts.insert(host.id, host);
    }

    fn put_incident(&mut self, incident: Incident) {
        if let Some(old) = self.incidents.get(&incident.id) {
            let old = old.clone();
            self.tallies.remove_incident(&old);
        }
        self.tallies.add_incident(&incident);
        self.incidents.insert(incident.id, incident);
    }
}

/// Counts how many records a decision reads, for the benchmark that shows the same number at 100 and 10,000 hosts.
pub mod touch {
    use std::sync::atomic::{AtomicU64, Ordering};

    static RECORDS: AtomicU64 = AtomicU64::new(0);

    /// One record was read.
    #[inline]
    pub(crate) fn one() {
        if cfg!(feature = "lab") {
            RECORDS.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records read since the process began (feature `lab` only).
    #[must_use]
    pub fn records() -> u64 {
        RECORDS.load(Ordering::Relaxed)
    }
}
