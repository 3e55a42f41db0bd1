//! Which Node is which host: the register as a cluster's watchers need it, and a simple one in memory.

use super::node::NodeFacts;
use healing::id::{ClusterId, HostId, MachineId};
use k8s_openapi::api::core::v1::Taint;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

/// The register of hosts.
pub trait Registry: Send + Sync + std::fmt::Debug + 'static {
    /// Host of the Node of this name.
    fn host_of(&self, cluster: ClusterId, node: &str) -> Option<HostId>;
    /// All hosts of a cluster, by their Node's name.
    fn hosts(&self, cluster: ClusterId) -> Arc<BTreeMap<String, HostId>>;
    /// What the Node of this host showed. Called at each change, and never with a state that the watch may have missed.
    fn node_seen(&self, host: HostId, facts: &NodeFacts);
}

/// A register in memory.
#[derive(Debug, Default)]
pub struct NameTable {
    clusters: RwLock<HashMap<ClusterId, Arc<BTreeMap<String, HostId>>>>,
    facts: RwLock<HashMap<HostId, NodeFacts>>,
}

impl NameTable {
    /// Replaces the hosts of a cluster. What another Node showed as a host's is not that host's any more.
    pub fn set(&self, cluster: ClusterId, hosts: BTreeMap<String, HostId>) {
        let mut clusters = self.clusters.write().unwrap_or_else(PoisonError::into_inner);
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        for (node, host) in clusters.get(&cluster).into_iter().flat_map(|known| known.iter()) {
            if hosts.get(node) != Some(host) {
                facts.remove(host);
            }
        }
        clusters.insert(cluster, Arc::new(hosts));
    }

    /// Forgets which machine the Node of a host showed: it is to be shown again.
    pub fn forget(&self, host: HostId) {
        if let Some(facts) = self.facts.write().unwrap_or_else(PoisonError::into_inner).get_mut(&host) {
            facts.machine = None;
        }
    }

    /// What the Node of a host showed last.
    #[must_use]
    pub fn facts(&self, host: HostId) -> Option<NodeFacts> {
        self.facts.read().unwrap_or_else(PoisonError::into_inner).get(&host).cloned()
    }

    /// The machine that a host's Node showed while it was Ready. A value that two hosts show names neither
    /// (terms of the safety rules, *linked*).
    #[must_use]
    pub fn machine(&self, host: HostId) -> Option<MachineId> {
        let facts = self.facts.read().unwrap_or_else(PoisonError::into_inner);
        let machine = facts.get(&host)?.machine?;
        let shown_twice = facts
            .iter()
            .any(|(other, facts)| *other != host && facts.machine.is_some_and(|theirs| theirs.same_machine(machine)));
        (!shown_twice).then_some(machine)
    }
}

impl Registry for NameTable {
    fn host_of(&self, cluster: ClusterId, node: &str) -> Option<HostId> {
        self.clusters.read().unwrap_or_else(PoisonError::into_inner).get(&cluster)?.get(node).copied()
    }

    fn hosts(&self, cluster: ClusterId) -> Arc<BTreeMap<String, HostId>> {
        let clusters = self.clusters.read().unwrap_or_else(PoisonError::into_inner);
        clusters.get(&cluster).cloned().unwrap_or_default()
    }

    fn node_seen(&self, host: HostId, facts: &NodeFacts) {
        let mut all = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = facts.clone();
        if let Some(known) = all.get(&host) {
            // A Node that is not Ready proves nothing about its machine, and takes nothing back.
            fresh.machine = fresh.machine.or(known.machine);
            if fresh.uid != known.uid && !restored(known, &fresh) {
                // A new Node of that name is bare until somebody restores it: what the old one had must not be forgotten.
                fresh.labels.clone_from(&known.labels);
                fresh.taints.clone_from(&known.taints);
                fresh.uid.clone_from(&known.uid);
            }
        }
        all.insert(host, fresh);
    }
}

/// Whether a Node has all that another had.
fn restored(had: &NodeFacts, has: &NodeFacts) -> bool {
    let labels = had.labels.keys().all(|label| has.labels.contains_key(label));
    let tainted = |taint: &Taint| has.taints.iter().any(|t| t.key == taint.key && t.effect == taint.effect);
    labels && had.taints.iter().all(tainted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn showing(machine: u128) -> NodeFacts {
        NodeFacts { machine: Some(MachineId(machine)), ..NodeFacts::default() }
    }

    #[test]
    fn what_the_old_node_had_is_kept_until_the_new_one_has_it() {
        let table = NameTable::default();
        let node = |uid: &str, labels: &[&str]| NodeFacts {
            uid: uid.to_owned(),
            labels: labels.iter().map(|label| ((*label).to_owned(), String::new())).collect(),
            ..NodeFacts::default()
        };
        table.node_seen(HostId(1), &node("old", &["a", "b"]));
        table.node_seen(HostId(1), &node("new", &["a"]));
        assert_eq!(table.facts(HostId(1)).unwrap().labels.len(), 2);
        table.node_seen(HostId(1), &node("new", &["a", "b"]));
        // From here on a person may take a label away.
        table.node_seen(HostId(1), &node("new", &["a"]));
        assert_eq!(table.facts(HostId(1)).unwrap().labels.len(), 1);
    }

    #[test]
    fn a_machine_that_two_hosts_show_names_neither() {
        let table = NameTable::default();
        table.node_seen(HostId(1), &showing(7));
        assert_eq!(table.machine(HostId(1)), Some(MachineId(7)));
        table.node_seen(HostId(1), &NodeFacts::default());
        assert_eq!(table.machine(HostId(1)), Some(MachineId(7)));
        table.node_seen(HostId(2), &showing(7));
        assert_eq!((table.machine(HostId(1)), table.machine(HostId(2))), (None, None));
    }

    #[test]
    fn what_another_node_showed_is_not_the_hosts_any_more() {
        let table = NameTable::default();
        let names = |all: &[(&str, u32)]| all.iter().map(|(name, id)| ((*name).to_owned(), HostId(*id))).collect();
        table.set(ClusterId(1), names(&[("a", 1), ("b", 2)]));
        table.node_seen(HostId(1), &showing(7));
        table.node_seen(HostId(2), &showing(8));
        // The names of two hosts were crossed, and are put right; a third is as it was.
        table.set(ClusterId(1), names(&[("b", 1), ("a", 2)]));
        assert_eq!((table.machine(HostId(1)), table.machine(HostId(2))), (None, None));
        table.node_seen(HostId(1), &showing(8));
        table.set(ClusterId(1), names(&[("b", 1), ("a", 2), ("c", 3)]));
        assert_eq!(table.machine(HostId(1)), Some(MachineId(8)));
    }
}
