//! What others do to the cluster's machines (rules 19, 50): kured's lock, Machines that are deleted, rollouts. From lists of a
//! few objects, read every 10 s; a kind that the API does not know has nobody who uses it.
//!
//! Each kind is read by itself: one that we may not read does not hide the others, and people are told that it is unread.

use super::client::{ANSWER, Trouble, trouble};
use super::counters::Counters;
use super::state::ForeignKind;
use super::watch::Watch;
use futures_util::future::join_all;
use healing::time::{Elapsed, MINUTE, Millis};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two readings.
const EVERY: Duration = Duration::from_secs(10);
/// People are told of a kind that nobody answers about after this long. A refusal does not pass by itself: told at once.
const UNREAD_MS: Millis = 3 * MINUTE;

/// What is read of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// DaemonSets by which kured keeps its lock.
    Lock,
    /// Machines, all with a reference to their Node.
    Machines,
    /// What rolls machines out.
    Rollouts,
}

/// A kind of objects by which others act.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its name for people, kind and group.
    pub(super) name: &'static str,
    what: What,
    group: &'static str,
    /// The versions that are tried, newest first.
    versions: &'static [&'static str],
    kind: &'static str,
}

const fn of(
    name: &'static str,
    what: What,
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
) -> Kind {
    Kind { name, what, group, versions, kind }
}

/// Versions of the Cluster API.
const CAPI: &[&str] = &["v1beta2", "v1beta1"];

/// All kinds.
pub(super) const KINDS: &[Kind] = &[
    of("DaemonSet.apps", What::Lock, "apps", &["v1"], "DaemonSet"),
    of("Machine.cluster.x-k8s.io", What::Machines, "cluster.x-k8s.io", CAPI, "Machine"),
    of("Machine.machine.openshift.io", What::Machines, "machine.openshift.io", &["v1beta1"], "Machine"),
    of("MachineDeployment.cluster.x-k8s.io", What::Rollouts, "cluster.x-k8s.io", CAPI, "MachineDeployment"),
    of(
        "KubeadmControlPlane.controlplane.cluster.x-k8s.io",
        What::Rollouts,
        "controlplane.cluster.x-k8s.io",
        CAPI,
        "KubeadmControlPlane",
    ),
    of(
        "MachineConfigPool.machineconfiguration.openshift.io",
        What::Rollouts,
        "machineconfiguration.openshift.io",
        &["v1"],
        "MachineConfigPool",
    ),
];

/// The nodes that kured's lock names: one, or several where more than one may reboot at a time (`--concurrency`).
fn kured_lock(set: &DaemonSet) -> Vec<String> {
    let annotations = set.metadata.annotations.iter().flatten();
    let locks = annotations.filter(|(name, _)| name.ends_with("/kured-node-lock"));
    let locks = locks.filter_map(|(_, lock)| serde_json::from_str::<Value>(lock).ok());
    let node = |lock: &Value| lock.get("nodeID").and_then(Value::as_str).map(str::to_owned);
    locks
        .flat_map(|lock| {
            let shared = lock.get("locks").and_then(Value::as_array);
            shared.into_iter().flatten().chain([&lock]).filter_map(node).collect::<Vec<_>>()
        })
        .collect()
}

/// The node of a Machine that somebody deletes or holds.
fn machine_in_hand(machine: &Value) -> Option<(String, &'static str)> {
    let node = machine.pointer("/status/nodeRef/name")?.as_str()?.to_owned();
    let annotated = |name: &str| machine.pointer("/metadata/annotations").and_then(|a| a.get(name)).is_some();
    if machine.pointer("/metadata/deletionTimestamp").is_some() {
        return Some((node, "its Machine is being deleted"));
    }
    if annotated("cluster.x-k8s.io/delete-machine") || annotated("machine.openshift.io/delete-machine") {
        return Some((node, "its Machine is marked for deletion"));
    }
    annotated("cluster.x-k8s.io/paused").then_some((node, "its Machine is paused"))
}

/// Whether a set of machines is being rolled out.
fn rolling(set: &Value) -> bool {
    let conditions = set.pointer("/status/conditions").and_then(Value::as_array);
    let said = conditions
        .into_iter()
        .flatten()
        .find(|condition| matches!(condition.get("type").and_then(Value::as_str), Some("RollingOut" | "Updating")));
    if let Some(said) = said {
        return said.get("status").and_then(Value::as_str) == Some("True");
    }
    let count = |path: &str| set.pointer(path).and_then(Value::as_i64);
    match (count("/status/updatedReplicas").or_else(|| count("/status/upToDateReplicas")), count("/spec/replicas")) {
        (Some(updated), Some(wanted)) => updated < wanted,
        _ => false,
    }
}

/// Whether people are to be told that a kind is not read: once, and again when the trouble is another one. `unread_ms`: for how
/// long it has not been.
fn to_be_told(told: &mut Option<Trouble>, trouble: Trouble, unread_ms: Millis) -> bool {
    let stays = matches!(trouble, Trouble::Refused | Trouble::Unauthenticated);
    if *told == Some(trouble) || !(stays || unread_ms >= UNREAD_MS) {
        return false;
    }
    *told = Some(trouble);
    true
}

impl Watch {
    /// Reads what others do, for ever.
    pub(super) async fn foreign(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let begun = self.time.now().elapsed;
        let mut told: [Option<Trouble>; KINDS.len()] = [None; KINDS.len()];
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let asked = KINDS.iter().map(|kind| tokio::time::timeout(ANSWER, self.read_kind(kind)));
            let all = tokio::select! {
                () = self.stop.cancelled() => return,
                all = join_all(asked) => all,
            };
            for (index, (read, told)) in all.into_iter().zip(&mut told).enumerate() {
                self.take_kind(index, read.unwrap_or(Err(Trouble::Silent)), told, begun);
            }
        }
    }

    fn take_kind(&self, index: usize, read: Result<ForeignKind, Trouble>, told: &mut Option<Trouble>, begun: Elapsed) {
        let (kind, [reads, failures]) = (&KINDS[index], &self.state.counters.foreign[index]);
        match read {
            Ok(reading) => {
                Counters::add(reads);
                self.state.tables().foreign.take(kind.name, reading);
                if told.take().is_some() {
                    tracing::info!(cluster = self.state.name, kind = kind.name, "what others do is read again");
                }
            }
            // What could not be read stands as it was: a mark is not lifted by our deafness.
            Err(trouble) => {
                Counters::add(failures);
                let last = self.state.tables().foreign.read_at(kind.name);
                let unread_ms = self.time.now().elapsed.since(last.unwrap_or(begun));
                if to_be_told(told, trouble, unread_ms) {
                    tracing::warn!(
                        cluster = self.state.name,
                        kind = kind.name,
                        ?trouble,
                        unread_s = unread_ms / 1_000,
                        ever_read = last.is_some(),
                        "what others do to machines by objects of this kind cannot be read: their marks and rollouts of now \
                         are not seen; see `rackmedic rbac` for the rights that are needed"
                    );
                }
            }
        }
    }

    async fn read_kind(&self, kind: &Kind) -> Result<ForeignKind, Trouble> {
        let (mut nodes, mut rollout) = (BTreeMap::new(), false);
        match kind.what {
            What::Lock => {
                let sets: Api<DaemonSet> = Api::all(self.link.client());
                for params in [
                    ListParams::default().fields("metadata.name=kured").limit(50),
                    ListParams::default().labels("app.kubernetes.io/name=kured").limit(50),
                ] {
                    let found = sets.list(&params).await.map_err(|error| trouble(&error))?;
                    let locked = found.iter().flat_map(kured_lock);
                    nodes.extend(locked.map(|node| (node, "kured holds its lock for it")));
                }
            }
            What::Machines => nodes.extend(self.first_known(kind).await?.iter().filter_map(machine_in_hand)),
            What::Rollouts => rollout = self.first_known(kind).await?.iter().any(rolling),
        }
        Ok(ForeignKind { nodes, rollout, read_at: self.time.now().elapsed })
    }

    async fn first_known(&self, kind: &Kind) -> Result<Vec<Value>, Trouble> {
        for version in kind.versions {
            match self.list((kind.group, version, kind.kind), "").await {
                Err(Trouble::NotFound) => {}
                other => return other,
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kured_names_the_node_that_it_reboots() {
        let lock = r#"{"nodeID":"n3","metadata":{"unschedulable":false},"created":"2026-01-01T00:00:00Z","TTL":0}"#;
        let set =
            |annotations: Value| serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap();
        assert_eq!(kured_lock(&set(json!({"weave.works/kured-node-lock": lock}))), ["n3"]);
        assert!(kured_lock(&set(json!({"weave.works/kured-node-lock": ""}))).is_empty());
        assert!(kured_lock(&set(json!({}))).is_empty());
        let shared = r#"{"maxOwners":2,"locks":[{"nodeID":"n3","TTL":0},{"nodeID":"n5","TTL":0}]}"#;
        assert_eq!(kured_lock(&set(json!({"kured.dev/kured-node-lock": shared}))), ["n3", "n5"]);
        let free = r#"{"maxOwners":2,"locks":[]}"#;
        assert!(kured_lock(&set(json!({"kured.dev/kured-node-lock": free}))).is_empty());
    }

    #[test]
    fn a_kind_that_may_not_be_read_is_told_of_at_once_and_one_that_is_silent_after_minutes() {
        let mut told = None;
        assert!(!to_be_told(&mut told, Trouble::Silent, UNREAD_MS - 1));
        assert!(to_be_told(&mut told, Trouble::Silent, UNREAD_MS));
        assert!(!to_be_told(&mut told, Trouble::Silent, 2 * UNREAD_MS), "once");
        assert!(to_be_told(&mut told, Trouble::Refused, 0), "it is another trouble now");
        assert!(!to_be_told(&mut told, Trouble::Refused, 0));
    }

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn a_machine_that_goes_has_its_node_in_hand() {
        let machine = |metadata: Value| json!({"metadata": metadata, "status": {"nodeRef": {"name": "n1"}}});
        assert!(machine_in_hand(&machine(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))).is_some());
        assert!(machine_in_hand(&machine(json!({"annotations": {"cluster.x-k8s.io/delete-machine": ""}}))).is_some());
        assert!(machine_in_hand(&machine(json!({"annotations": {"x": "y"}}))).is_none());
    }

    #[test]
    fn a_rollout_is_told_by_its_condition_or_by_its_counts() {
        assert!(rolling(&json!({"status": {"conditions": [{"type": "RollingOut", "status": "True"}]}})));
        assert!(!rolling(&json!({"spec": {"replicas": 3}, "status": {"updatedReplicas": 1,
            "conditions": [{"type": "RollingOut", "status": "False"}]}})));
        assert!(rolling(&json!({"spec": {"replicas": 3}, "status": {"updatedReplicas": 2}})));
        assert!(!rolling(&json!({"spec": {"replicas": 3}, "status": {"updatedReplicas": 3}})));
    }
}
