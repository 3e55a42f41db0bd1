//! Volumes that are attached to one node at a time: the attach-detach controller and the attacher of a storage driver.
//!
//! A volume is not attached elsewhere while its attachment to another node is there, which is what keeps two nodes from
//! writing to it.

use super::super::api::kinds::{NODE, POD, VOLUME_ATTACHMENT};
use super::super::api::objects::{Deletion, Key, Objects};
use super::kubelet::Kubelet;
use super::{Millis, OUT_OF_SERVICE, edit, tainted, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// From the attachment's making, or the order to detach, to its effect.
const EFFECT_MS: Millis = 1_000;
/// What keeps an attachment until it is detached in truth.
const FINALIZER: &str = "external-attacher/demo-csi";

/// The volume of a pod, if it has one.
fn volume(pod: &Value) -> Option<&str> {
    pod["spec"]["volumes"].as_array()?.iter().find_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

/// Whether a pod's volume is attached to its node, or it has none.
pub(super) fn attached(objects: &Objects, pod: &Value, node: &str) -> bool {
    let Some(volume) = volume(pod) else { return true };
    objects.get(&Key::new(VOLUME_ATTACHMENT, "", &name(volume, node))).is_some_and(|attachment| {
        attachment["status"]["attached"] == true && attachment["metadata"]["deletionTimestamp"].is_null()
    })
}

fn name(volume: &str, node: &str) -> String {
    format!("csi-{volume}-{node}")
}

pub(super) fn step(
    objects: &Objects,
    kubelets: &BTreeMap<String, Kubelet>,
    since: &mut BTreeMap<String, Millis>,
    now: Millis,
) {
    let pods = objects.of(POD);
    let wanted: BTreeSet<(String, String)> = pods
        .iter()
        .filter_map(|(_, pod)| Some((volume(pod)?.to_owned(), text(pod, "/spec/nodeName").to_owned())))
        .filter(|(_, node)| !node.is_empty())
        .collect();
    let attachments = objects.of(VOLUME_ATTACHMENT);
    since.retain(|name, _| attachments.iter().any(|(key, _)| key.name == *name));
    for (key, attachment) in &attachments {
        let volume = text(attachment, "/spec/source/persistentVolumeName").to_owned();
        let node = text(attachment, "/spec/nodeName").to_owned();
        let began = *since.entry(key.name.clone()).or_insert(now);
        if !attachment["metadata"]["deletionTimestamp"].is_null() {
            // The storage itself revokes the node's access; it needs nobody there.
            edit(objects, key, |attachment| attachment["metadata"]["finalizers"] = json!([]));
        } else if !wanted.contains(&(volume, node.clone())) {
            // Detached once the node has let go of it, or is known not to write any more.
            let lets_go = kubelets.get(&node).is_some_and(Kubelet::runs);
            let out_of_service =
                objects.get(&Key::new(NODE, "", &node)).is_some_and(|node| tainted(&node, OUT_OF_SERVICE));
            if lets_go || out_of_service {
                let _ = objects.delete(key, &Deletion::default());
            }
        } else if attachment["status"]["attached"] != true && now.saturating_sub(began) >= EFFECT_MS {
            edit(objects, key, |attachment| attachment["status"] = json!({"attached": true}));
        }
    }
    for (volume, node) in wanted {
        let elsewhere = attachments.iter().any(|(_, a)| text(a, "/spec/source/persistentVolumeName") == volume);
        if !elsewhere {
            let attachment = json!({
                "metadata": {"name": name(&volume, &node), "finalizers": [FINALIZER]},
                "spec": {"attacher": "demo-csi", "nodeName": node, "source": {"persistentVolumeName": volume}},
                "status": {"attached": false},
            });
            let _ = objects.create(VOLUME_ATTACHMENT, "", attachment);
        }
    }
}
