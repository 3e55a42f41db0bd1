//! Fleet-wide counts, kept by `apply`, so that a host's event touches the same few records at any fleet size.
//! The simulator recounts them from scratch after every event and compares.

use super::host::{Host, Lifecycle, Role};
use super::incident::{Incident, Reservation, Rung};
use crate::assess::NetworkState;
use crate::id::{ClusterId, DomainId, HostId, PoolId, StorageId};
use crate::signal::Power;
use crate::time::{Elapsed, HOUR};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Counts of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterTally {
    /// Hosts in service that carry a Node.
    pub nodes: u32,
    /// Of those, workers.
    pub workers: u32,
    /// Nodes not cordoned by anybody.
    pub schedulable: u32,
    /// Schedulable nodes that are Ready.
    pub ready: u32,
    /// Control-plane hosts.
    pub control_planes: u32,
    /// The same by number.
    pub control_plane_hosts: BTreeSet<HostId>,
    /// Control-plane hosts that are Ready.
    pub control_planes_ready: u32,
    /// Hosts that are bad (rule 5).
    pub bad: BTreeSet<HostId>,
    /// Open disruptive permits.
    pub permits: u32,
    /// Of those, of hosts that have not read On again.
    pub permits_off: u32,
    /// Open control-plane permits.
    pub control_plane_permits: u32,
}

/// Counts of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolTally {
    /// Hosts in service that carry a Node.
    pub nodes: u32,
}

/// Counts of one physical domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DomainTally {
    /// Watched hosts in service.
    pub watched: u32,
    /// Bad hosts by cluster.
    pub bad: BTreeMap<ClusterId, u32>,
    /// Silent hosts by onset.
    pub silent: BTreeSet<(Elapsed, HostId)>,
    /// Of those, how many read On.
    pub silent_on: u32,
    /// Hosts under an open disruptive permit.
    pub permits: BTreeSet<HostId>,
}

/// All counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tallies {
    /// All hosts, spares included.
    pub hosts: u32,
    /// By cluster.
    pub clusters: BTreeMap<ClusterId, ClusterTally>,
    /// By pool.
    pub pools: BTreeMap<PoolId, PoolTally>,
    /// By domain.
    pub domains: BTreeMap<DomainId, DomainTally>,
    /// Open disruptive permits by storage system.
    pub storage_permits: BTreeMap<StorageId, u32>,
    /// Spares in service and promised to nobody, ready to be promoted or not.
    pub spares: BTreeSet<HostId>,
    /// Hosts that were spares and took a role, or are promised one.
    pub promoted: u32,
    /// Open incidents.
    pub incidents: u32,
    /// Disruptive actions of the last hour, oldest first.
    pub actions: Vec<Elapsed>,
}

/// What one host adds to the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    host: HostId,
    cluster: Option<ClusterId>,
    pool: PoolId,
    domains: Vec<DomainId>,
    serves: bool,
    spare: bool,
    promoted: bool,
    control_plane: bool,
    schedulable: bool,
    ready: bool,
    bad: bool,
    silent_since: Option<Elapsed>,
    silent_on: bool,
}

impl Contribution {
    /// What this host adds. `power` overrides the assessed power, for tests.
    #[must_use]
    pub fn of(host: &Host, power: Option<Power>) -> Contribution {
        let silent = host.assessment.network == NetworkState::Silent && host.serves();
        Contribution {
            host: host.id,
            cluster: host.cluster,
            pool: host.pool,
            domains: host.domains.clone(),
            serves: host.serves(),
            spare: host.role == Role::Spare
                && host.lifecycle == Lifecycle::InService
                && host.history.promised.is_none(),
            // A promised one is as good as gone: two swaps at once must not both count it as kept back.
            promoted: match host.role {
                // One that failed to take a place is not back in the pool before a person returns it.
                Role::Spare => {
                    let failed = host.history.was_spare && host.lifecycle != Lifecycle::InService;
                    host.history.promised.is_some() || failed
                }
                _ => host.history.was_spare,
            },
            control_plane: host.control_plane(),
            schedulable: host.serves() && !host.assessment.node.is_none_or(|n| n.cordoned) && host.our_cordon.is_none(),
            ready: host.ready(),
            bad: host.bad(),
            silent_since: silent.then_some(host.assessment.network_since),
            silent_on: silent && power.unwrap_or(host.assessment.power) == Power::On,
        }
    }
}

fn add(count: &mut u32, yes: bool, sign: i32) {
    if yes {
        *count = count.saturating_add_signed(sign);
    }
}

impl Tallies {
    /// Adds a host's contribution.
    pub fn add(&mut self, c: &Contribution) {
        self.count(c, 1);
    }

    /// Takes it away.
    pub fn remove(&mut self, c: &Contribution) {
        self.count(c, -1);
    }

    fn count(&mut self, c: &Contribution, sign: i32) {
        add(&mut self.hosts, true, sign);
        add(&mut self.promoted, c.promoted, sign);
        if c.spare {
            if sign > 0 {
                self.spares.insert(c.host)
            } else {
                self.spares.remove(&c.host)
            };
        }
        if !c.serves {
            return;
        }
        add(&mut self.pools.entry(c.pool).or_default().nodes, true, sign);
        if let Some(cluster) = c.cluster {
            let tally = self.clusters.entry(cluster).or_default();
            add(&mut tally.nodes, true, sign);
            add(&mut tally.workers, !c.control_plane, sign);
            add(&mut tally.schedulable, c.schedulable, sign);
            add(&mut tally.ready, c.schedulable && c.ready, sign);
            add(&mut tally.control_planes, c.control_plane, sign);
            add(&mut tally.control_planes_ready, c.control_plane && c.ready, sign);
            if c.control_plane {
                if sign > 0 {
                    tally.control_plane_hosts.insert(c.host)
                } else {
                    tally.control_plane_hosts.remove(&c.host)
                };
            }
            if c.bad {
                if sign > 0 {
                    tally.bad.insert(c.host)
                } else {
                    tally.bad.remove(&c.host)
                };
            }
        }
        for domain in &c.domains {
            let tally = self.domains.entry(*domain).or_default();
            add(&mut tally.watched, true, sign);
            add(&mut tally.silent_on, c.silent_on, sign);
            if let (true, Some(cluster)) = (c.bad, c.cluster) {
                let bad = tally.bad.entry(cluster).or_default();
                add(bad, true, sign);
                if *bad == 0 {
                    tally.bad.remove(&cluster);
                }
            }
            if let Some(since) = c.silent_since {
                if sign > 0 {
                    tally.silent.insert((since, c.host))
                } else {
                    tally.silent.remove(&(since, c.host))
                };
            }
        }
    }

    /// Counts an incident and its reservation.
    pub fn add_incident(&mut self, incident: &Incident) {
        self.incidents = self.incidents.saturating_add(1);
        if let Some(reservation) = disruptive(incident) {
            self.reserve(incident.host, reservation, 1);
        }
    }

    /// Takes an incident and its reservation out of the counts.
    pub fn remove_incident(&mut self, incident: &Incident) {
        self.incidents = self.incidents.saturating_sub(1);
        if let Some(reservation) = disruptive(incident) {
            self.reserve(incident.host, reservation, -1);
        }
    }

    fn reserve(&mut self, host: HostId, reservation: &Reservation, sign: i32) {
        if let Some(cluster) = reservation.cluster {
            let tally = self.clusters.entry(cluster).or_default();
            add(&mut tally.permits, true, sign);
            add(&mut tally.permits_off, !reservation.read_on, sign);
            add(&mut tally.control_plane_permits, reservation.control_plane, sign);
        }
        if let Some(system) = reservation.storage {
            let permits = self.storage_permits.entry(system).or_default();
            add(permits, true, sign);
            if *permits == 0 {
                self.storage_permits.remove(&system);
            }
        }
        for domain in &reservation.domains {
            let permits = &mut self.domains.entry(*domain).or_default().permits;
            if sign > 0 {
                permits.insert(host)
            } else {
                permits.remove(&host)
            };
        }
    }

    /// A disruptive action was reserved; moments older than an hour are forgotten, at most 128 are kept.
    pub fn acted(&mut self, at: Elapsed) {
        self.actions.retain(|past| at.since(*past) < HOUR);
        if self.actions.len() >= 128 {
            self.actions.remove(0);
        }
        self.actions.push(at);
    }

    /// The counts made from scratch, except the times of actions, which are taken over.
    #[must_use]
    pub fn recount<'a>(
        hosts: impl Iterator<Item = &'a Host>,
        incidents: impl Iterator<Item = &'a Incident>,
        actions: Vec<Elapsed>,
    ) -> Tallies {
        let mut tallies = Tallies { actions, ..Tallies::default() };
        for host in hosts {
            tallies.add(&Contribution::of(host, None));
        }
        for incident in incidents {
            tallies.add_incident(incident);
        }
        tallies
    }

    /// The same counts without empty records, so that a recount can be compared.
    #[must_use]
    pub fn normalised(mut self) -> Tallies {
        self.clusters.retain(|_, t| *t != ClusterTally::default());
        self.pools.retain(|_, t| *t != PoolTally::default());
        self.domains.retain(|_, t| *t != DomainTally::default());
        self
    }
}

fn disruptive(incident: &Incident) -> Option<&Reservation> {
    incident.reservation.as_ref().filter(|r| r.rung.disruptive() || r.rung == Rung::Human)
}
