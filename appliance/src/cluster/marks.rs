//! Marks by which others say that a node is in their hands (rule 50). One table, so that a new tool is one line.

use super::node::{OUT_OF_SERVICE, our_taint, taints};
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;

/// A person's own mark: whatever its value but `false`, we keep our hands off.
pub(super) const MAINTENANCE: &str = "rackmedic.io/maintenance";

/// Which values of an annotation mean what its name says.
enum Means {
    /// Any.
    Present,
    /// Any but `false`.
    NotFalse,
    /// Just these.
    Values(&'static [&'static str]),
}

/// Annotations of a Node, and who sets them.
const ANNOTATIONS: &[(&str, Means)] = &[
    (MAINTENANCE, Means::NotFalse),
    // kured, while it reboots a node (with --annotate-nodes).
    ("weave.works/kured-reboot-in-progress", Means::Present),
    ("kured.dev/kured-reboot-in-progress", Means::Present),
    // Cluster API: the Machine behind the node is to go, or its controllers are told to wait.
    ("cluster.x-k8s.io/delete-machine", Means::Present),
    ("cluster.x-k8s.io/paused", Means::Present),
    // OpenShift's machine-config operator.
    ("machineconfiguration.openshift.io/state", Means::Values(&["Working", "Rebooting"])),
    // Flatcar's update operator.
    ("flatcar-linux-update.v1.flatcar-linux.net/reboot-in-progress", Means::NotFalse),
];

/// Taints of a Node, and who sets them.
const TAINTS: &[&str] = &[
    // Cluster autoscaler, Karpenter.
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disruption",
    "karpenter.sh/disrupted",
    // Medik8s: node maintenance and remediation by others.
    "medik8s.io/drain",
    "medik8s.io/remediation",
];

/// Whether somebody else's mark is on it. Cordons are told apart elsewhere.
pub(super) fn of_others(node: &Node, annotations: &BTreeMap<String, String>) -> bool {
    // Somebody deletes the Node object.
    if node.metadata.deletion_timestamp.is_some() {
        return true;
    }
    let annotated = ANNOTATIONS.iter().any(|(name, means)| {
        annotations.get(*name).is_some_and(|value| match means {
            Means::Present => true,
            Means::NotFalse => value != "false",
            Means::Values(values) => values.contains(&value.as_str()),
        })
    });
    let tainted = taints(node)
        .iter()
        .any(|taint| TAINTS.contains(&taint.key.as_str()) || (taint.key == OUT_OF_SERVICE && !our_taint(taint)));
    annotated || tainted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node::{CORDON_MARK, read};
    use serde_json::json;

    fn marked(metadata: serde_json::Value, taint_list: serde_json::Value) -> bool {
        let node = serde_json::from_value(json!({"metadata": metadata, "spec": {"taints": taint_list}})).unwrap();
        read(&node).report.foreign_mark
    }

    #[test]
    fn each_mark_of_others_is_heard_and_ours_is_not() {
        for (name, means) in ANNOTATIONS {
            let value = match means {
                Means::Values(values) => values[0],
                Means::Present | Means::NotFalse => "true",
            };
            assert!(marked(json!({"annotations": {*name: value}}), json!([])), "{name}");
        }
        for key in TAINTS.iter().chain([&OUT_OF_SERVICE]) {
            let taint = json!([{"key": key, "value": "nodeshutdown", "effect": "NoExecute"}]);
            assert!(marked(json!({}), taint), "{key}");
        }
        assert!(marked(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!([])));
        let ours = json!([{"key": OUT_OF_SERVICE, "value": "rackmedic-7", "effect": "NoExecute"}]);
        assert!(!marked(json!({"annotations": {CORDON_MARK: "7"}}), ours));
        assert!(!marked(json!({"annotations": {MAINTENANCE: "false"}}), json!([])));
        assert!(!marked(json!({"annotations": {"machineconfiguration.openshift.io/state": "Done"}}), json!([])));
    }
}
