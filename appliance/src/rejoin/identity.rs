//! The old identity: saved, then removed. The name is free only when everything that bore it is gone.

use super::cluster::{ask, ask_for};
use super::record::{Identity, Marks};
use super::{EtcdMembers, Progress, Rejoin, StepError, approve, credential, stop};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Where kubelets renew their Leases.
const LEASES: &str = "kube-node-lease";
/// Objects of one page.
const PAGE: u32 = 500;
/// Most pages of one list.
const PAGES_MAX: u32 = 200;
/// Says that a cordon is ours. A person's own marks (`rackmedic.io/maintenance`) are a person's.
const OUR_CORDON: &str = "rackmedic.io/cordon";
/// Marks with these beginnings are written by whoever runs the node or the cluster, and again by the new one.
const NOT_KEPT: [&str; 17] = [
    OUR_CORDON,
    "rackmedic.io/incident",
    "kubeadm.alpha.kubernetes.io/",
    "node.alpha.kubernetes.io/",
    "volumes.kubernetes.io/",
    "csi.volume.kubernetes.io/",
    "alpha.kubernetes.io/provided-node-ip",
    "flannel.alpha.coreos.com/",
    "projectcalico.org/",
    "io.cilium.",
    "network.cilium.io/",
    "k3s.io/",
    "rke2.io/",
    "etcd.k3s.cattle.io/",
    "etcd.rke2.cattle.io/",
    "talos.dev/",
    "cluster.x-k8s.io/",
];
/// Taints that say how a Node fares, not what it is for.
const FARING: [&str; 3] = ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "rackmedic."];

impl Rejoin<'_> {
    pub(super) fn nodes(&self) -> Api<Node> {
        Api::all(self.cluster.client().clone())
    }

    pub(super) async fn node(&self) -> Result<Option<Node>, StepError> {
        let name = self.record.content().node.as_str().to_owned();
        Ok(ask_for("read the Node", self.nodes().get(&name)).await?)
    }

    /// Saves what people gave the old Node, and which Node it was.
    ///
    /// # Errors
    /// The cluster or the record.
    pub async fn save(&mut self) -> Result<Progress, StepError> {
        if self.record.content().saved {
            return Ok(Progress::AlreadySo);
        }
        let node = self.node().await?;
        let old = node.as_ref().map(identity);
        let marks = node.as_ref().map(marks);
        self.record.change(|content| {
            // Marks of an earlier job that never gave them back are what people meant; the Node of now may be bare.
            content.marks = content.marks.take().or(marks);
            content.old = old;
            content.saved = true;
        })?;
        Ok(Progress::Done)
    }

    /// The same; where there is no Node any more, what was `known` of it is saved.
    ///
    /// # Errors
    /// The cluster or the record.
    pub async fn save_or(&mut self, known: Option<&Marks>) -> Result<Progress, StepError> {
        let progress = self.save().await?;
        if let Some(known) = known.filter(|_| self.record.content().marks.is_none()) {
            self.record.change(|content| content.marks = Some(known.clone()))?;
        }
        Ok(progress)
    }

    /// Removes the etcd member, if there is access to its etcd. Ask before [`Rejoin::remove_identity`].
    ///
    /// # Errors
    /// etcd refuses or does not answer.
    pub async fn remove_etcd_member(&self, member: u64, etcd: &dyn EtcdMembers) -> Result<Progress, StepError> {
        match etcd.remove(member).await {
            Ok(true) => Ok(Progress::Done),
            Ok(false) => Ok(Progress::AlreadySo),
            Err(why) => Err(stop(format!("etcd member {member:x} was not removed: {why}; look at etcd's members"))),
        }
    }

    /// Removes whatever bears the old Node's name, and answers `Done` only when all of it is gone. Ask only of a host that is
    /// proven off.
    ///
    /// # Errors
    /// The cluster, the record; or there is another Node of this name than the saved one.
    pub async fn remove_identity(&mut self) -> Result<Progress, StepError> {
        let content = self.record.content();
        if content.removed {
            return Ok(Progress::AlreadySo);
        }
        if !content.saved {
            return Err(stop("the old Node's labels are not saved yet, and would be lost with it: save first"));
        }
        let (name, old) = (content.node.clone(), content.old.clone());
        if let Some(id) = content.stale_token_id.clone() {
            credential::delete(self.cluster, &id).await?;
            self.record.change(|content| content.stale_token_id = None)?;
        }
        let node = self.node().await?;
        if let Some(node) = &node {
            let uid = node.uid().unwrap_or_default();
            if old.as_ref().is_none_or(|old| old.uid != uid) {
                return Err(stop(format!(
                    "there is a Node {name} (UID {uid}) that is not the saved one: somebody made it meanwhile; nothing was \
                     removed, look which machine it is"
                )));
            }
            if super::verify::is_ready(node) {
                return Ok(Progress::NotYet(format!("Node {name} is still Ready in the cluster's eyes")));
            }
        }
        let mut left = Vec::new();
        self.remove_attachments(&mut left).await?;
        self.remove_requests(&mut left).await?;
        if let Some(node) = node {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: node.uid(), resource_version: None }),
                ..DeleteParams::background()
            };
            ask_for("delete the Node", self.nodes().delete(name.as_str(), &parameters)).await?;
            left.push("Node".to_owned());
        }
        let leases: Api<Lease> = Api::namespaced(self.cluster.client().clone(), LEASES);
        remove(&leases, name.as_str(), "Lease", &mut left).await?;
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client().clone(), credential::NAMESPACE);
        for suffix in &self.driver.name_secrets {
            remove(&secrets, &format!("{name}{suffix}"), "node password", &mut left).await?;
        }
        if !left.is_empty() {
            return Ok(Progress::NotYet(format!("asked to go, to be looked for again: {}", left.join(", "))));
        }
        self.record.change(|content| content.removed = true)?;
        Ok(Progress::Done)
    }

    async fn remove_attachments(&self, left: &mut Vec<String>) -> Result<(), StepError> {
        let attachments: Api<VolumeAttachment> = Api::all(self.cluster.client().clone());
        for attachment in list(&attachments, ListParams::default()).await? {
            if attachment.spec.node_name == self.record.content().node.as_str() {
                remove(&attachments, &attachment.name_any(), "VolumeAttachment", left).await?;
            }
        }
        Ok(())
    }

    /// Requests that the old host made, or that nobody answered: the new host is to be judged by its own.
    async fn remove_requests(&self, left: &mut Vec<String>) -> Result<(), StepError> {
        let requests: Api<CertificateSigningRequest> = Api::all(self.cluster.client().clone());
        let user = self.record.content().node.user();
        for request in list(&requests, ListParams::default()).await? {
            let by_it = request.spec.username.as_deref() == Some(user.as_str());
            let for_it = || approve::is_open(&request) && approve::subject(&request).as_deref() == Some(user.as_str());
            if by_it || for_it() {
                remove(&requests, &request.name_any(), "certificate request", left).await?;
            }
        }
        Ok(())
    }
}

/// Deletes an object, if it is there; what was there is `left` until somebody finds that it is not.
async fn remove<K>(api: &Api<K>, name: &str, kind: &str, left: &mut Vec<String>) -> Result<(), StepError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if ask_for(&format!("delete the {kind} {name}"), api.delete(name, &DeleteParams::background())).await?.is_some() {
        left.push(format!("{kind} {name}"));
    }
    Ok(())
}

/// Lists all objects, page by page.
pub(super) async fn list<K>(api: &Api<K>, parameters: ListParams) -> Result<Vec<K>, StepError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut found = Vec::new();
    let mut parameters = parameters.limit(PAGE);
    for _ in 0..PAGES_MAX {
        let page = ask("list objects", api.list(&parameters)).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(found),
        }
    }
    Err(stop(format!("there are more than {} objects of one kind; nothing was removed", PAGE * PAGES_MAX)))
}

/// Which Node this is.
#[must_use]
pub fn identity(node: &Node) -> Identity {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    Identity {
        uid: node.uid().unwrap_or_default(),
        boot_id: info.map(|info| info.boot_id.clone()).unwrap_or_default(),
        machine_id: info.map(|info| info.machine_id.clone()).unwrap_or_default(),
        pod_ranges: node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default(),
    }
}

/// What people gave it.
#[must_use]
pub fn marks(node: &Node) -> Marks {
    let kept = |map: &std::collections::BTreeMap<String, String>| {
        map.iter()
            .filter(|(key, _)| !NOT_KEPT.iter().any(|start| key.starts_with(start)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let spec = node.spec.as_ref();
    let ours = node.annotations().contains_key(OUR_CORDON);
    Marks {
        labels: kept(node.labels()),
        annotations: kept(node.annotations()),
        taints: spec
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default()
            .into_iter()
            .filter(|taint| !FARING.iter().any(|start| taint.key.starts_with(start)))
            .collect(),
        cordoned: !ours && spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(annotations: serde_json::Value, taints: serde_json::Value) -> Node {
        let spec = json!({ "unschedulable": true, "taints": taints });
        serde_json::from_value(json!({ "metadata": { "annotations": annotations }, "spec": spec })).unwrap()
    }

    #[test]
    fn a_person_s_marks_are_kept_and_ours_are_not() {
        let taints = json!([
            { "key": "dedicated", "value": "ml", "effect": "NoSchedule" },
            { "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" },
            { "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute" },
        ]);
        let person =
            json!({ "rackmedic.io/maintenance": "disk", "team": "a", "csi.volume.kubernetes.io/nodeid": "{}" });
        let kept = marks(&node(person, taints.clone()));
        assert_eq!(kept.annotations.keys().collect::<Vec<_>>(), ["rackmedic.io/maintenance", "team"]);
        assert_eq!(kept.taints.iter().map(|taint| taint.key.as_str()).collect::<Vec<_>>(), ["dedicated"]);
        assert!(kept.cordoned);
        let kept = marks(&node(json!({ "rackmedic.io/cordon": "7" }), taints));
        assert!(!kept.cordoned && kept.annotations.is_empty());
    }
}
