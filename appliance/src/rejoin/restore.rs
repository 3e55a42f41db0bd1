//! Labels, annotations, the cordon and taints, given back to the new Node.

use super::cluster::ask;
use super::record::Marks;
use super::{Progress, Rejoin, StepError, stop};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Labels that a kubelet tells of itself: what the new one says is true.
const OWN_LABELS: [&str; 8] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
];

impl Rejoin<'_> {
    /// Gives the new Node what people had given the old one: labels and annotations, then the cordon and the taints.
    ///
    /// # Errors
    /// The cluster, the record; or the Node is not the one that was verified.
    pub async fn restore(&mut self) -> Result<Progress, StepError> {
        let content = self.record.content();
        if content.restored {
            return Ok(Progress::AlreadySo);
        }
        let Some(new) = content.new.clone() else {
            return Err(stop("the new Node is not verified yet: nothing is given to a Node that may be another's"));
        };
        let marks = content.marks.clone().unwrap_or_default();
        let name = content.node.as_str().to_owned();
        let mut node = self.node().await?.filter(|node| node.uid().as_deref() == Some(new.uid.as_str()));
        let mut changed = false;
        if let Some(found) = &node
            && let Some(patch) = marks_patch(found, &marks)
        {
            let patch = self.patch("restore the labels", &name, found, patch).await?;
            (node, changed) = (Some(patch), true);
        }
        if let Some(found) = &node
            && let Some(patch) = taints_patch(found, &marks)
        {
            self.patch("restore the taints", &name, found, patch).await?;
            changed = true;
        }
        if node.is_none() {
            return Err(stop(format!("the Node {name} that was verified (UID {}) is gone: verify again", new.uid)));
        }
        self.record.change(|content| content.restored = true)?;
        Ok(if changed { Progress::Done } else { Progress::AlreadySo })
    }

    /// A merge patch of exactly the Node that was read: a change by another meanwhile is a conflict, never overwritten.
    async fn patch(&self, what: &str, name: &str, read: &Node, mut patch: Value) -> Result<Node, StepError> {
        patch["metadata"]["resourceVersion"] = json!(read.resource_version());
        patch["metadata"]["uid"] = json!(read.uid());
        let parameters = PatchParams { field_manager: Some("rackmedic".to_owned()), ..PatchParams::default() };
        Ok(ask(what, self.nodes().patch(name, &parameters, &Patch::Merge(&patch))).await?)
    }
}

fn marks_patch(node: &Node, marks: &Marks) -> Option<Value> {
    let missing = |have: &BTreeMap<String, String>, want: &BTreeMap<String, String>, own: &[&str]| {
        let differs = |(key, value): &(&String, &String)| {
            have.get(*key) != Some(*value) && !(own.contains(&key.as_str()) && have.contains_key(*key))
        };
        want.iter().filter(differs).map(|(k, v)| (k.clone(), v.clone())).collect::<BTreeMap<_, _>>()
    };
    let labels = missing(node.labels(), &marks.labels, &OWN_LABELS);
    let annotations = missing(node.annotations(), &marks.annotations, &[]);
    (!labels.is_empty() || !annotations.is_empty())
        .then(|| json!({ "metadata": { "labels": labels, "annotations": annotations } }))
}

fn taints_patch(node: &Node, marks: &Marks) -> Option<Value> {
    let spec = node.spec.clone().unwrap_or_default();
    let mut taints: Vec<Taint> = spec.taints.unwrap_or_default();
    let before = taints.len();
    for taint in &marks.taints {
        if !taints.iter().any(|have| have.key == taint.key && have.effect == taint.effect) {
            taints.push(taint.clone());
        }
    }
    let cordon = marks.cordoned && spec.unschedulable != Some(true);
    if taints.len() == before && !cordon {
        return None;
    }
    let mut patch = json!({ "spec": { "taints": taints } });
    if cordon {
        patch["spec"]["unschedulable"] = json!(true);
    }
    Some(patch)
}
