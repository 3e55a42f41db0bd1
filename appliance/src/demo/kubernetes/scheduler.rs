//! The scheduler: pods that wait go to the Ready, schedulable, untainted node with the fewest pods.

use super::super::api::kinds::{NODE, POD};
use super::super::api::objects::{Objects, now_s};
use super::{edit, ready, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn step(objects: &Objects) {
    let pods = objects.of(POD);
    let waits = |pod: &Value| text(pod, "/spec/nodeName").is_empty() && pod["metadata"]["deletionTimestamp"].is_null();
    if !pods.iter().any(|(_, pod)| waits(pod)) {
        return;
    }
    let mut load: BTreeMap<String, usize> =
        objects.of(NODE).into_iter().filter(|(_, node)| open(node)).map(|(key, _)| (key.name, 0)).collect();
    for (_, pod) in &pods {
        if let Some(count) = load.get_mut(text(pod, "/spec/nodeName")) {
            *count += 1;
        }
    }
    for (key, _) in pods.iter().filter(|(_, pod)| waits(pod)) {
        let Some(node) = load.iter().min_by_key(|(_, count)| **count).map(|(name, _)| name.clone()) else { return };
        edit(objects, key, |pod| {
            pod["spec"]["nodeName"] = json!(node);
            pod["status"]["conditions"] =
                json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": now_s()}]);
        });
        *load.entry(node).or_default() += 1;
    }
}

/// Whether pods may go there.
fn open(node: &Value) -> bool {
    let closing = |taint: &Value| taint["effect"] == "NoSchedule" || taint["effect"] == "NoExecute";
    let tainted = node["spec"]["taints"].as_array().is_some_and(|taints| taints.iter().any(closing));
    ready(node) && node["spec"]["unschedulable"] != true && !tainted
}
