//! The node lifecycle controller and the collector of orphaned pods, with Kubernetes' own waits.

use super::super::api::kinds::{NODE, POD};
use super::super::api::objects::{Deletion, Objects, now_s};
use super::kubelet::{Kubelet, set_ready};
use super::{Millis, OUT_OF_SERVICE, edit, ready, tainted, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A node whose Lease is older is called unknown (`--node-monitor-grace-period`).
const GRACE_MS: Millis = 50_000;
/// Pods tolerate an unreachable node for this long (`tolerationSeconds` that admission gives every pod).
const TOLERATION_MS: Millis = 300_000;
/// Between two turns of the collector (kube-controller-manager's podgc).
pub(super) const COLLECT_MS: Millis = 20_000;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn step(objects: &Objects, kubelets: &BTreeMap<String, Kubelet>, now: Millis) {
    for (key, node) in objects.of(NODE) {
        let Some(renewed) = kubelets.get(&key.name).and_then(Kubelet::renewed_at) else { continue };
        let late = now.saturating_sub(renewed);
        let is_ready = ready(&node);
        if late > GRACE_MS && super::ready_condition(&node).is_some_and(|condition| condition["status"] != "Unknown") {
            edit(objects, &key, |node| {
                set_ready(node, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.");
                taint(node, UNREACHABLE, true);
                taint(node, NOT_READY, false);
            });
            pods_not_ready(objects, &key.name);
        } else if late <= GRACE_MS && is_ready && (tainted(&node, UNREACHABLE) || tainted(&node, NOT_READY)) {
            edit(objects, &key, |node| {
                taint(node, UNREACHABLE, false);
                taint(node, NOT_READY, false);
            });
        } else if late <= GRACE_MS && !is_ready && !tainted(&node, NOT_READY) {
            edit(objects, &key, |node| {
                taint(node, UNREACHABLE, false);
                taint(node, NOT_READY, true);
            });
        }
        if late > GRACE_MS + TOLERATION_MS {
            for (key, pod) in objects.of(POD) {
                let here = text(&pod, "/spec/nodeName") == text(&node, "/metadata/name");
                if here && pod["metadata"]["deletionTimestamp"].is_null() {
                    let _ = objects.delete(&key, &Deletion::default());
                }
            }
        }
    }
}

/// Takes away what no kubelet will: pods of Nodes that are gone, and terminating ones of nodes that are out of service.
pub(super) fn collect(objects: &Objects) {
    let nodes: BTreeMap<String, bool> = objects
        .of(NODE)
        .into_iter()
        .map(|(key, node)| (key.name, tainted(&node, OUT_OF_SERVICE) && !ready(&node)))
        .collect();
    for (key, pod) in objects.of(POD) {
        let node = text(&pod, "/spec/nodeName");
        let orphan = match nodes.get(node) {
            None => !node.is_empty(),
            Some(out_of_service) => *out_of_service && !pod["metadata"]["deletionTimestamp"].is_null(),
        };
        if orphan {
            let _ = objects.delete(&key, &Deletion { grace_s: Some(0), ..Deletion::default() });
        }
    }
}

fn taint(node: &mut Value, key: &str, on: bool) {
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.retain(|taint| taint["key"] != key);
    if on {
        taints.push(json!({"key": key, "effect": "NoSchedule"}));
        taints.push(json!({"key": key, "effect": "NoExecute", "timeAdded": now_s()}));
    }
    node["spec"]["taints"] = json!(taints);
}

fn pods_not_ready(objects: &Objects, node: &str) {
    let own: BTreeSet<_> = objects
        .of(POD)
        .into_iter()
        .filter(|(_, pod)| text(pod, "/spec/nodeName") == node)
        .map(|(key, _)| key)
        .collect();
    for key in own {
        edit(objects, &key, |pod| {
            pod["status"]["conditions"] =
                json!([{"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": now_s()}]);
        });
    }
}
