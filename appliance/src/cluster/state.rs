//! What is known of one cluster at this moment, shared by its watchers and read by whoever acts.

use super::counters::Counters;
use super::node;
use super::proof::{OF_LEASES, OF_NODES, Proof};
use healing::id::ClusterId;
use healing::sight::{EtcdReport, StorageReport};
use healing::signal::NodeReport;
use healing::time::{Elapsed, MINUTE, Millis};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A change of a kubelet's version counts as an upgrade under way for this long.
const UPGRADE_MS: Millis = 15 * MINUTE;

/// A Lease as we received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSeen {
    /// What the node wrote. Compared for equality only: its clock is its own.
    pub renewed: Option<Timestamp>,
    /// When we received the last change.
    pub changed_at: Elapsed,
}

/// A Node as we received it.
#[derive(Debug, Clone)]
pub struct NodeSeen {
    /// What it says.
    pub seen: node::Seen,
    /// When its kubelet's version changed under our eyes.
    pub upgraded_at: Option<Elapsed>,
}

/// How one endpoint answers `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointSight {
    /// Since when it fails; `None` while it answers.
    pub failing_since: Option<Elapsed>,
    /// It was asked at least once.
    pub asked: bool,
    /// It said that it is ready.
    pub ready: bool,
}

/// Others' doings, of every kind as it was last read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Foreign {
    /// Nodes that somebody else has in hand, by name.
    pub nodes: BTreeMap<String, &'static str>,
    /// A rollout is under way.
    pub rollout: bool,
    kinds: BTreeMap<&'static str, ForeignKind>,
}

/// Others' doings by objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForeignKind {
    /// Nodes that somebody else has in hand, by name.
    pub nodes: BTreeMap<String, &'static str>,
    /// A rollout is under way.
    pub rollout: bool,
    /// When that was read.
    pub read_at: Elapsed,
}

impl Foreign {
    /// Takes a reading of one kind. What was last read of the others stands beside it.
    pub fn take(&mut self, kind: &'static str, reading: ForeignKind) {
        self.kinds.insert(kind, reading);
        self.nodes = self.kinds.values().flat_map(|kind| kind.nodes.clone()).collect();
        self.rollout = self.kinds.values().any(|kind| kind.rollout);
    }

    /// When a kind was last read.
    #[must_use]
    pub fn read_at(&self, kind: &str) -> Option<Elapsed> {
        self.kinds.get(kind).map(|reading| reading.read_at)
    }
}

/// The tables.
#[derive(Debug)]
pub struct Tables {
    /// Leases by Node name.
    pub leases: HashMap<String, LeaseSeen>,
    /// Nodes by name.
    pub nodes: HashMap<String, NodeSeen>,
    /// All Nodes were listed since the watch began.
    pub nodes_complete: bool,
    /// The watch of Nodes.
    pub nodes_proof: Proof,
    /// The watch of Leases.
    pub proof: Proof,
    /// The endpoints, in the order of the link.
    pub endpoints: Vec<EndpointSight>,
    /// The last reading of etcd's members.
    pub etcd: Option<EtcdReport>,
    /// Storage systems, with the moment of the last good reading.
    pub storage: Vec<(StorageReport, Elapsed)>,
    /// Others' doings as last read.
    pub foreign: Foreign,
    /// Others' actions on control-plane hosts, by Node name, and when they were last seen.
    pub foreign_actions: BTreeMap<String, Elapsed>,
}

/// What is known of one cluster.
#[derive(Debug)]
pub struct ClusterState {
    /// Which.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// What was counted.
    pub counters: Arc<Counters>,
    tables: Mutex<Tables>,
}

impl ClusterState {
    /// Nothing is known.
    #[must_use]
    pub fn new(id: ClusterId, name: &str, endpoints: usize, counters: Arc<Counters>, now: Elapsed) -> ClusterState {
        ClusterState {
            id,
            name: name.to_owned(),
            counters,
            tables: Mutex::new(Tables {
                leases: HashMap::new(),
                nodes: HashMap::new(),
                nodes_complete: false,
                nodes_proof: Proof::new(OF_NODES, now),
                proof: Proof::new(OF_LEASES, now),
                endpoints: vec![EndpointSight::default(); endpoints],
                etcd: None,
                storage: Vec::new(),
                foreign: Foreign::default(),
                foreign_actions: BTreeMap::new(),
            }),
        }
    }

    /// The tables. Held for a moment only: never across an await.
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        // A watcher that panicked between two entries leaves each entry whole.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Takes a Lease; true if the node renewed it since we last looked. The first sight of a Lease counts as a renewal: a
    /// node is given the benefit of what we cannot know.
    pub fn lease(&mut self, name: &str, renewed: Option<Timestamp>, at: Elapsed) -> bool {
        if let Some(known) = self.leases.get_mut(name) {
            if known.renewed == renewed {
                return false;
            }
            *known = LeaseSeen { renewed, changed_at: at };
            return true;
        }
        self.leases.insert(name.to_owned(), LeaseSeen { renewed, changed_at: at });
        true
    }

    /// Takes a Node.
    pub fn node(&mut self, name: &str, seen: node::Seen, at: Elapsed) {
        let upgraded_at = self.nodes.get(name).and_then(|known| {
            // A new Node of the same name is a reimage, no upgrade.
            let same = known.seen.facts.uid == seen.facts.uid && !known.seen.kubelet.is_empty();
            if same && known.seen.kubelet != seen.kubelet { Some(at) } else { known.upgraded_at.filter(|_| same) }
        });
        self.nodes.insert(name.to_owned(), NodeSeen { seen, upgraded_at });
    }

    /// What a Node shows, with what others do to its machine; `None` if there is no such Node.
    #[must_use]
    pub fn report(&self, name: &str) -> Option<NodeReport> {
        let mut report = self.nodes.get(name)?.seen.report;
        let claimed = self.foreign.nodes.contains_key(name);
        report.foreign_mark |= claimed;
        report.claimed |= claimed;
        Some(report)
    }

    /// The versions of all Nodes by name, as the watch brought them.
    #[must_use]
    pub fn node_versions(&self) -> HashMap<String, String> {
        self.nodes.iter().map(|(name, node)| (name.clone(), node.seen.version.clone())).collect()
    }

    /// Whether kubelets are being upgraded by somebody: versions are mixed, and one changed lately.
    #[must_use]
    pub fn upgrading(&self, now: Elapsed) -> bool {
        let lately = |node: &NodeSeen| node.upgraded_at.is_some_and(|at| now.since(at) < UPGRADE_MS);
        let mut versions = self.nodes.values().map(|node| node.seen.kubelet.as_str()).filter(|v| !v.is_empty());
        let mixed = versions.next().is_some_and(|first| versions.any(|other| other != first));
        mixed && self.nodes.values().any(lately)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use healing::time::SECOND;

    fn tables() -> Tables {
        let state = ClusterState::new(ClusterId(1), "c", 1, Arc::default(), Elapsed(0));
        state.tables.into_inner().unwrap()
    }

    fn seen(uid: &str, kubelet: &str) -> node::Seen {
        let mut seen = node::read(&k8s_openapi::api::core::v1::Node::default());
        uid.clone_into(&mut seen.facts.uid);
        kubelet.clone_into(&mut seen.kubelet);
        seen
    }

    #[test]
    fn a_lease_counts_only_when_what_the_node_wrote_changed() {
        let mut tables = tables();
        let (a, b) = (Timestamp::from_second(10).ok(), Timestamp::from_second(5).ok());
        assert!(tables.lease("n1", a, Elapsed(1)));
        assert!(!tables.lease("n1", a, Elapsed(2)), "listed anew without a change");
        // A node whose clock went back renewed all the same.
        assert!(tables.lease("n1", b, Elapsed(3)));
        assert_eq!(tables.leases["n1"].changed_at, Elapsed(3));
    }

    #[test]
    fn what_was_read_of_one_kind_stands_while_another_is_read_anew() {
        let mut tables = tables();
        tables.node("n1", seen("u1", ""), Elapsed(0));
        let hand = |node: &str| ForeignKind {
            nodes: BTreeMap::from([(node.to_owned(), "in hand")]),
            read_at: Elapsed(7),
            ..ForeignKind::default()
        };
        tables.foreign.take("Machine", hand("n1"));
        tables.foreign.take("MachineDeployment", ForeignKind { rollout: true, ..ForeignKind::default() });
        assert!(tables.foreign.rollout && tables.report("n1").is_some_and(|n1| n1.claimed && n1.foreign_mark));
        tables.foreign.take("Machine", ForeignKind::default());
        assert!(tables.foreign.rollout && tables.report("n1").is_some_and(|n1| !n1.claimed));
        tables.foreign.take("Machine", hand("n2"));
        assert_eq!((tables.foreign.read_at("Machine"), tables.foreign.read_at("kured")), (Some(Elapsed(7)), None));
        assert_eq!(tables.report("n2"), None);
    }

    #[test]
    fn an_upgrade_is_mixed_versions_in_motion_and_a_reimage_is_none() {
        let mut tables = tables();
        tables.node("n1", seen("u1", "v1.35.0"), Elapsed(0));
        tables.node("n2", seen("u2", "v1.36.0"), Elapsed(0));
        assert!(!tables.upgrading(Elapsed(0)), "mixed, but at rest");
        tables.node("n1", seen("u9", "v1.36.1"), Elapsed(0));
        assert!(!tables.upgrading(Elapsed(0)), "a new Node of that name");
        tables.node("n2", seen("u2", "v1.36.2"), Elapsed(SECOND));
        assert!(tables.upgrading(Elapsed(2 * SECOND)));
        assert!(!tables.upgrading(Elapsed(UPGRADE_MS + SECOND)));
    }
}
