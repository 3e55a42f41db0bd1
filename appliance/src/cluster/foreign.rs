//! What others do to the cluster's machines (rules 19, 50): kured's lock, Machines that are deleted, rollouts. From lists of a
//! few objects, read every 10 s; a kind that the API does not know has nobody who uses it.

use super::client::Trouble;
use super::state::Foreign;
use super::watch::Watch;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use std::time::Duration;

/// Between two readings.
const EVERY: Duration = Duration::from_secs(10);

/// Kinds of Machines, all with a reference to their Node. The versions that are tried, newest first.
const MACHINES: [(&str, &[&str]); 2] =
    [("cluster.x-k8s.io", &["v1beta2", "v1beta1"]), ("machine.openshift.io", &["v1beta1"])];
/// Kinds that roll machines out.
const ROLLOUTS: [(&str, &[&str], &str); 3] = [
    ("cluster.x-k8s.io", &["v1beta2", "v1beta1"], "MachineDeployment"),
    ("controlplane.cluster.x-k8s.io", &["v1beta2", "v1beta1"], "KubeadmControlPlane"),
    ("machineconfiguration.openshift.io", &["v1"], "MachineConfigPool"),
];

/// The node that kured's lock names.
fn kured_lock(set: &DaemonSet) -> Option<String> {
    let annotations = set.metadata.annotations.as_ref()?;
    let lock = annotations.iter().find(|(name, _)| name.ends_with("/kured-node-lock"))?.1;
    let lock: Value = serde_json::from_str(lock).ok()?;
    lock.get("nodeID")?.as_str().map(str::to_owned)
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

impl Watch {
    /// Reads what others do, for ever.
    pub(super) async fn foreign(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let read = tokio::select! {
                () = self.stop.cancelled() => return,
                read = tokio::time::timeout(super::client::ANSWER, self.read_foreign()) => read,
            };
            // What could not be read stands as it was: a mark is not lifted by our deafness.
            if let Ok(Ok(foreign)) = read {
                self.state.tables().foreign = foreign;
            }
        }
    }

    async fn read_foreign(&self) -> Result<Foreign, Trouble> {
        let mut foreign = Foreign::default();
        let sets: Api<DaemonSet> = Api::all(self.link.client());
        for params in [
            ListParams::default().fields("metadata.name=kured").limit(50),
            ListParams::default().labels("app.kubernetes.io/name=kured").limit(50),
        ] {
            let found = sets.list(&params).await.map_err(|error| super::client::trouble(&error))?;
            foreign.nodes.extend(found.iter().filter_map(kured_lock).map(|node| (node, "kured holds its lock for it")));
        }
        for (group, versions) in MACHINES {
            let machines = self.first_known(group, versions, "Machine").await?;
            foreign.nodes.extend(machines.iter().filter_map(machine_in_hand));
        }
        for (group, versions, kind) in ROLLOUTS {
            let sets = self.first_known(group, versions, kind).await?;
            foreign.rollout |= sets.iter().any(rolling);
        }
        Ok(foreign)
    }

    async fn first_known(&self, group: &str, versions: &[&str], kind: &str) -> Result<Vec<Value>, Trouble> {
        for version in versions {
            match self.list((group, version, kind), "").await {
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
        assert_eq!(kured_lock(&set(json!({"weave.works/kured-node-lock": lock}))), Some("n3".to_owned()));
        assert_eq!(kured_lock(&set(json!({"weave.works/kured-node-lock": ""}))), None);
        assert_eq!(kured_lock(&set(json!({}))), None);
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
