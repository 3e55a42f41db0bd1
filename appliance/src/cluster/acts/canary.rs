//! The canary: one pod on the returned node that must really run there before others may (rule 42). It needs no scheduler, no
//! network of images and no right: the node's own pause image, pinned to the node, restricted as far as Kubernetes knows.

use super::{ClusterActs, ClusterAsked, Stop, found};
use crate::cluster::node::MANAGER;
use healing::command::Reply;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The label that names the incident.
const INCIDENT: &str = "rackmedic.io/incident";
/// A canary that nobody deletes ends by itself after this, in seconds.
const LIFE_S: u32 = 600;
/// Other Nodes asked for their pause image, if this one lists none: a kubelet lists its 50 biggest images only.
const OTHERS_MAX: u32 = 50;

/// The pause image that a node lists, by the first tag that it has.
fn pause_image(node: &Node) -> Option<String> {
    let images = node.status.as_ref()?.images.as_ref()?;
    let names = images.iter().filter_map(|image| image.names.as_ref()).flatten();
    let mut found: Vec<&String> = names.filter(|name| is_pause(name)).collect();
    // A tag is what the container runtime is told to keep (its sandbox image); a digest is next best.
    found.sort_by_key(|name| (name.contains('@'), name.as_str().to_owned()));
    found.first().map(|name| (*name).clone())
}

/// Whether an image's own name, without registry, tag and digest, is that of a pause container.
fn is_pause(name: &str) -> bool {
    let without_digest = name.split('@').next().unwrap_or(name);
    let last = without_digest.rsplit('/').next().unwrap_or(without_digest);
    let own = last.split(':').next().unwrap_or(last);
    own == "pause" || own.ends_with("-pause")
}

impl ClusterActs {
    /// One per node and incident; begun again it is made anew.
    fn canary_name(asked: &ClusterAsked<'_>) -> String {
        let digest = Sha256::digest(asked.target.name.as_bytes());
        format!(
            "rackmedic-canary-{:02x}{:02x}{:02x}{:02x}-{}",
            digest[0], digest[1], digest[2], digest[3], asked.incident.0
        )
    }

    async fn image(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<String, Stop> {
        if let Some(image) = &self.canary_image {
            return Ok(image.clone());
        }
        let api: Api<Node> = Api::all(client);
        if let Some(image) = found(api.get(asked.node()?).await)?.as_ref().and_then(pause_image) {
            return Ok(image);
        }
        let others = api.list(&ListParams::default().limit(OTHERS_MAX)).await?;
        others.iter().find_map(pause_image).ok_or_else(|| {
            tracing::warn!(
                node = asked.target.name,
                "no Node lists a pause image, so no canary can be made: name one with `canary_image`"
            );
            Stop::Refused
        })
    }

    pub(super) async fn create_canary(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let name = Self::canary_name(asked);
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let image = self.image(client, asked).await?;
        if found(api.get(&name).await)?.is_some() {
            // Of an attempt before: it may have failed for good, or say Running of a boot that is over. Neither tells anything.
            self.remove_canary(&api, &name, asked).await?;
        }
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": &name,
                "labels": {"app.kubernetes.io/name": "rackmedic-canary", INCIDENT: asked.incident.0.to_string()},
            },
            "spec": {
                "nodeName": asked.node()?,
                // A start that the runtime spoils (a sandbox swept away right after a boot) is tried again by the kubelet.
                "restartPolicy": "OnFailure",
                "activeDeadlineSeconds": LIFE_S,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                // The node is still cordoned, and may carry its role's taints.
                "tolerations": [{"operator": "Exists"}],
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65_535, "runAsGroup": 65_535,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "canary",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "32Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        }))
        .map_err(|_| Stop::Refused)?;
        asked.leaves()?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&params, &pod).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Reply::Ok),
            other => {
                other?;
                Ok(Reply::Ok)
            }
        }
    }

    pub(super) async fn read_canary(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let api: Api<Pod> = Api::namespaced(client, &self.namespace);
        let pod = found(api.get(&Self::canary_name(asked)).await)?;
        Ok(Reply::Flag(pod.is_some_and(|pod| runs_on(&pod, &asked.target.name))))
    }

    pub(super) async fn delete_canary(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let api: Api<Pod> = Api::namespaced(client, &self.namespace);
        self.remove_canary(&api, &Self::canary_name(asked), asked).await?;
        Ok(Reply::Ok)
    }

    async fn remove_canary(&self, api: &Api<Pod>, name: &str, asked: &ClusterAsked<'_>) -> Result<(), Stop> {
        asked.leaves()?;
        let once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        found(api.delete(name, &once).await)?;
        Ok(())
    }
}

/// Whether the kubelet of this node says that the pod runs: a container started, not merely a phase.
fn runs_on(pod: &Pod, node: &str) -> bool {
    let here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let status = pod.status.as_ref();
    let running = status.and_then(|s| s.phase.as_deref()) == Some("Running");
    let mut containers = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let started = containers.any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()));
    here && running && started && pod.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_image_is_known_by_its_own_name() {
        for name in
            ["registry.k8s.io/pause:3.10", "rancher/mirrored-pause:3.6", "localhost:5000/pause", "pause@sha256:ab"]
        {
            assert!(is_pause(name), "{name}");
        }
        for name in ["registry.k8s.io/pause/agent:1", "example/pauser:1", "quay.io/x/unpause2:1"] {
            assert!(!is_pause(name), "{name}");
        }
    }

    #[test]
    fn a_tag_is_preferred_to_a_digest() {
        let node: Node = serde_json::from_value(json!({"status": {"images": [
            {"names": ["registry.k8s.io/kube-proxy:v1"]},
            {"names": ["registry.k8s.io/pause@sha256:ab", "registry.k8s.io/pause:3.10"]},
        ]}}))
        .unwrap();
        assert_eq!(pause_image(&node).as_deref(), Some("registry.k8s.io/pause:3.10"));
    }

    #[test]
    fn a_canary_runs_only_when_its_nodes_kubelet_started_it() {
        let pod = |node: &str, status: serde_json::Value| {
            serde_json::from_value(json!({"spec": {"nodeName": node, "containers": []}, "status": status})).unwrap()
        };
        let started = json!({"phase": "Running", "containerStatuses": [{
            "name": "canary", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
        assert!(runs_on(&pod("n1", started.clone()), "n1"));
        assert!(!runs_on(&pod("n2", started), "n1"));
        assert!(!runs_on(&pod("n1", json!({"phase": "Pending"})), "n1"));
        assert!(!runs_on(&pod("n1", json!({"phase": "Running"})), "n1"));
    }
}
