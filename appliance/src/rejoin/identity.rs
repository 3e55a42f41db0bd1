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
            // What a Node had that is gone is what people meant: the Node of now may be bare. An earlier job that never removed
            // its Node tells what was so then; it serves where there is no Node to be read.
            if !content.owed {
                content.marks = marks.or(content.marks.take());
            }
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
        let content = self.record.content();
        // Nothing was read now: what is known is later than what an earlier job had read, unless that is owed.
        let stands_in = progress == Progress::Done && content.old.is_none() && !content.owed;
        if let Some(known) = known.filter(|_| stands_in || content.marks.is_none()) {
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
    /// proven off. A Node that bears the name again, before this join is verified, is removed once more.
    ///
    /// # Errors
    /// The cluster, the record; or there is another Node of this name than the saved one.
    pub async fn remove_identity(&mut self) -> Result<Progress, StepError> {
        let content = self.record.content();
        let removed = content.removed;
        if removed && (content.new.is_some() || content.restored) {
            // The Node that stands there is the one that this join made.
            return Ok(Progress::AlreadySo);
        }
        if !content.saved {
            return Err(stop("the old Node's labels are not saved yet, and would be lost with it: save first"));
        }
        let (name, old, gone) = (content.node.clone(), content.old.clone(), content.gone || removed);
        let handed_out = content.token.as_ref().is_some_and(|token| token.handed_out);
        if let Some(id) = content.stale_token_id.clone() {
            credential::delete(self.cluster, &id).await?;
            self.record.change(|content| content.stale_token_id = None)?;
        }
        let node = self.node().await?;
        if removed && node.is_none() {
            return Ok(Progress::AlreadySo);
        }
        if let Some(node) = &node {
            let uid = node.uid().unwrap_or_default();
            let saved = old.as_ref().is_some_and(|old| old.uid == uid);
            // After its Node went the host may have joined again by its own system, or half by our credential. Another machine
            // has not.
            let machine = identity(node).machine_id;
            let itself = old.as_ref().is_some_and(|old| !old.machine_id.is_empty() && old.machine_id == machine);
            let again = gone && (itself || handed_out);
            if !saved && !again {
                return Err(stop(format!(
                    "there is a Node {name} (UID {uid}) that is not the saved one: somebody made it meanwhile; nothing was \
                     removed, look which machine it is"
                )));
            }
            if super::verify::is_ready(node) {
                return Ok(Progress::NotYet(format!("Node {name} is still Ready in the cluster's eyes")));
            }
            if !saved || removed {
                // The old Node went, and the host, which is off, had joined again by other hands.
                tracing::warn!(node = %name, %uid, "a Node bears its name again: it is removed as well");
                self.taken_for_old(node)?;
            }
        }
        let mut left = Vec::new();
        self.remove_attachments(&mut left).await?;
        self.remove_requests(&mut left).await?;
        if let Some(node) = node {
            if !self.record.content().owed {
                // Before it goes: a kill, or an answer that does not come, must not lose that its marks are to be given back.
                // To the very same object nobody gives anything.
                self.record.change(|content| content.owed = content.old.is_some())?;
            }
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: node.uid(), resource_version: None }),
                ..DeleteParams::background()
            };
            ask_for("delete the Node", self.nodes().delete(name.as_str(), &parameters)).await?;
            left.push("Node".to_owned());
        }
        let content = self.record.content();
        if content.old.is_some() && !content.gone {
            self.record.change(|content| (content.gone, content.owed) = (true, true))?;
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

    /// From here on this Node is the old one. What is owed stays so: this one is likely bare.
    fn taken_for_old(&mut self, node: &Node) -> Result<(), StepError> {
        let (found, seen) = (identity(node), marks(node));
        self.record.change(|content| {
            content.owed = content.owed_marks().is_some();
            if !content.owed {
                content.marks = Some(seen);
            }
            (content.old, content.gone, content.removed) = (Some(found), false, false);
        })
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
    use super::super::cluster::Cluster;
    use super::super::credential::Secrets;
    use super::super::driver::{Driver, Preset};
    use super::super::mock;
    use super::super::record::Record;
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    const NODE: &str = "/api/v1/nodes/n1";

    /// The record of one host, and the cluster in which it is to join.
    struct Scene {
        server: mock::Server,
        cluster: Cluster,
        driver: Driver,
        secrets: Secrets,
        folder: PathBuf,
    }

    impl Scene {
        fn new(name: &str) -> Scene {
            let folder = std::env::temp_dir().join(format!("rackmedic-identity-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            let server = mock::Server::default();
            let (cluster, driver) = (server.cluster(), Preset::Kubeadm.driver().unwrap());
            Scene { server, cluster, driver, secrets: Secrets::default(), folder }
        }

        fn record(&self, job: &str) -> Record {
            Record::open(&self.folder, &"n1".parse().unwrap(), &job.parse().unwrap()).unwrap()
        }

        /// This Node stands there from now on.
        fn stands(&self, uid: &str, ready: bool, pool: Option<&str>) {
            let mut node = mock::node("n1", uid, &format!("boot of {uid}"), ready);
            if let Some(pool) = pool {
                node["metadata"]["labels"]["pool"] = json!(pool);
            }
            self.server.put(NODE, node);
        }

        async fn save(&self, job: &str) -> Record {
            let mut record = self.record(job);
            self.rejoin(&mut record).save().await.unwrap();
            record
        }

        async fn remove(&self, job: &str) -> Result<Progress, StepError> {
            self.rejoin(&mut self.record(job)).remove_identity().await
        }

        fn rejoin<'a>(&'a self, record: &'a mut Record) -> Rejoin<'a> {
            Rejoin { cluster: &self.cluster, driver: &self.driver, record, secrets: &self.secrets }
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn pool(record: &Record) -> Option<&str> {
        record.content().marks.as_ref()?.labels.get("pool").map(String::as_str)
    }

    #[tokio::test]
    async fn a_node_that_bears_the_name_again_is_removed_until_the_join_is_verified() {
        let scene = Scene::new("again");
        // Given a Node that is removed, with what people had given it known
        scene.stands("first", false, Some("fast"));
        scene.save("incident-1").await;
        assert!(matches!(scene.remove("incident-1").await, Ok(Progress::NotYet(_))));
        assert_eq!(scene.remove("incident-1").await.unwrap(), Progress::Done);
        assert_eq!(scene.remove("incident-1").await.unwrap(), Progress::AlreadySo);
        // When its own system has joined again, then it stays while it is Ready
        scene.stands("again", true, None);
        assert!(matches!(scene.remove("incident-1").await, Ok(Progress::NotYet(_))));
        assert!(scene.server.get(NODE).is_some());
        // And goes when it is not, with the marks of the first kept
        scene.stands("again", false, None);
        assert!(matches!(scene.remove("incident-1").await, Ok(Progress::NotYet(_))));
        assert!(scene.server.get(NODE).is_none() && !scene.record("incident-1").content().removed);
        // Another machine that somebody joined under the name is not touched
        let mut other = mock::node("n1", "stranger", "its boot", false);
        other["status"]["nodeInfo"]["machineID"] = json!("machine-2");
        scene.server.put(NODE, other);
        assert!(matches!(scene.remove("incident-1").await, Err(StepError::Stop(_))));
        assert!(scene.server.get(NODE).is_some());
        // Also when it comes once more before all is gone
        scene.stands("third", false, None);
        assert!(matches!(scene.remove("incident-1").await, Ok(Progress::NotYet(_))));
        assert_eq!(scene.remove("incident-1").await.unwrap(), Progress::Done);
        let mut record = scene.record("incident-1");
        assert_eq!(pool(&record), Some("fast"));
        assert_eq!(record.content().old.as_ref().unwrap().uid, "third");
        // When the join is verified, then its Node is not an old one
        scene.stands("joined", false, None);
        record.change(|content| content.new = Some(Identity::default())).unwrap();
        assert_eq!(scene.remove("incident-1").await.unwrap(), Progress::AlreadySo);
        assert!(scene.server.get(NODE).is_some());
    }

    #[tokio::test]
    async fn a_node_that_somebody_made_before_the_saved_one_went_is_left() {
        let scene = Scene::new("other");
        scene.stands("saved", false, None);
        scene.save("incident-1").await;
        scene.stands("other", false, None);
        assert!(matches!(scene.remove("incident-1").await, Err(StepError::Stop(_))));
        assert!(scene.server.get(NODE).is_some());
    }

    #[tokio::test]
    async fn marks_of_a_job_that_removed_nothing_yield_to_those_of_the_node_that_stands_there() {
        let scene = Scene::new("abandoned");
        scene.stands("first", false, Some("slow"));
        assert_eq!(pool(&scene.save("a").await), Some("slow"));
        scene.stands("first", false, Some("fast"));
        let mut record = scene.save("b").await;
        assert_eq!(pool(&record), Some("fast"));
        // Once it is asked to go, what it had is owed: also when the job ends there, and the next one finds a bare Node
        let removed = scene.rejoin(&mut record).remove_identity().await;
        assert!(matches!(removed, Ok(Progress::NotYet(_))) && !record.content().removed);
        scene.stands("bare", false, None);
        assert_eq!(pool(&scene.save("c").await), Some("fast"));
    }

    #[tokio::test]
    async fn what_the_register_saw_is_later_than_what_an_abandoned_job_had_read() {
        let scene = Scene::new("known");
        let known = |pool: &str| Marks { labels: [("pool".to_owned(), pool.to_owned())].into(), ..Marks::default() };
        scene.stands("first", false, Some("slow"));
        scene.save("a").await;
        scene.server.take(NODE);
        let mut record = scene.record("b");
        scene.rejoin(&mut record).save_or(Some(&known("seen"))).await.unwrap();
        assert_eq!(pool(&record), Some("seen"));
        scene.rejoin(&mut record).save_or(Some(&known("bare"))).await.unwrap();
        assert_eq!(pool(&record), Some("seen"));
    }

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
