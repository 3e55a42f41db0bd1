//! What a node that is surely off holds back: its pods and its VolumeAttachments (rules 23, 25).

use super::{ClusterActs, ClusterAsked, Stop, found};
use futures_util::{TryStreamExt, stream};
use healing::command::Reply;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, ListParams, Preconditions, Resource};
use kube::core::ObjectList;
use kube::{Api, api::PropagationPolicy};

/// Objects per page, and pages at most: a node holds some hundred pods, a cluster some ten thousand attachments.
const PAGE: u32 = 500;
const PAGES_MAX: usize = 100;
/// Deletions under way at a time.
const AT_ONCE: usize = 8;

/// Whether a pod is to be released: it would run elsewhere, or keeps others from it. What belongs to the node itself (the
/// kubelet's own static pods, DaemonSets) comes back with the node and runs nowhere else; what has ended holds nothing.
#[must_use]
pub fn releases(pod: &Pod) -> bool {
    let mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    let daemon = pod.metadata.owner_references.iter().flatten().any(|owner| {
        owner.kind == "DaemonSet" && owner.controller == Some(true) && owner.api_version.starts_with("apps/")
    });
    let ended = pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| p == "Succeeded" || p == "Failed");
    !mirror && !daemon && !ended
}

impl ClusterActs {
    async fn pods(&self, client: kube::Client, node: &str) -> Result<Vec<Pod>, Stop> {
        let api: Api<Pod> = Api::all(client);
        let selector = format!("spec.nodeName={node}");
        let mut pods = pages(|token| {
            let mut params = ListParams::default().fields(&selector).limit(PAGE);
            params.continue_token = token;
            let api = api.clone();
            async move { api.list(&params).await }
        })
        .await?;
        pods.retain(releases);
        Ok(pods)
    }

    async fn attachments(&self, client: kube::Client, node: &str) -> Result<Vec<VolumeAttachment>, Stop> {
        let api: Api<VolumeAttachment> = Api::all(client);
        let mut all = pages(|token| {
            let mut params = ListParams::default().limit(PAGE);
            params.continue_token = token;
            let api = api.clone();
            async move { api.list(&params).await }
        })
        .await?;
        all.retain(|attachment| attachment.spec.node_name == node);
        Ok(all)
    }

    pub(super) async fn delete_pods(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let pods = self.pods(client.clone(), asked.node()?).await?;
        // Without grace the API removes the object at once, unless a finalizer keeps it: that one is respected.
        let once = DeleteParams {
            grace_period_seconds: Some(0),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        stream::iter(pods.iter().filter(|pod| !waits_for_finalizer(pod)).map(Ok))
            .try_for_each_concurrent(AT_ONCE, |pod| {
                let (client, once) = (client.clone(), once.clone());
                async move {
                    let (Some(name), Some(namespace)) = (&pod.metadata.name, &pod.metadata.namespace) else {
                        return Ok(());
                    };
                    let api: Api<Pod> = Api::namespaced(client, namespace);
                    delete(&api, name, pod, once, asked).await
                }
            })
            .await?;
        Ok(Reply::Ok)
    }

    pub(super) async fn delete_attachments(
        &self,
        client: kube::Client,
        asked: &ClusterAsked<'_>,
    ) -> Result<Reply, Stop> {
        let attachments = self.attachments(client.clone(), asked.node()?).await?;
        let api: Api<VolumeAttachment> = Api::all(client);
        stream::iter(attachments.iter().filter(|a| a.metadata.deletion_timestamp.is_none()).map(Ok))
            .try_for_each_concurrent(AT_ONCE, |attachment| {
                let api = api.clone();
                async move {
                    let Some(name) = &attachment.metadata.name else { return Ok(()) };
                    delete(&api, name, attachment, DeleteParams::default(), asked).await
                }
            })
            .await?;
        Ok(Reply::Ok)
    }

    pub(super) async fn read_leftovers(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let node = asked.node()?;
        let (pods, attachments) = tokio::join!(self.pods(client.clone(), node), self.attachments(client, node));
        let count = |left: usize| u32::try_from(left).unwrap_or(u32::MAX);
        Ok(Reply::Leftovers { pods: count(pods?.len()), attachments: count(attachments?.len()) })
    }
}

/// Deleted without grace already: only a finalizer keeps it.
fn waits_for_finalizer(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && pod.metadata.deletion_grace_period_seconds == Some(0)
        && pod.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Deletes exactly this object: one of the same name that came since is another.
async fn delete<K>(
    api: &Api<K>,
    name: &str,
    object: &K,
    params: DeleteParams,
    asked: &ClusterAsked<'_>,
) -> Result<(), Stop>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    asked.leaves()?;
    let this = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
    found(api.delete(name, &DeleteParams { preconditions: Some(this), ..params }).await)?;
    Ok(())
}

async fn pages<K, F>(mut page: impl FnMut(Option<String>) -> F) -> Result<Vec<K>, Stop>
where
    K: Clone,
    F: Future<Output = kube::Result<ObjectList<K>>>,
{
    let mut all = Vec::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let next = page(token).await?;
        all.extend(next.items);
        token = next.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(all);
        }
    }
    Err(Stop::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_belongs_to_the_node_itself_or_has_ended_is_not_released() {
        let owner =
            |kind: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "u", "controller": true}]);
        assert!(releases(&pod(json!({"metadata": {"ownerReferences": owner("StatefulSet")}}))));
        assert!(releases(&pod(json!({"metadata": {}}))), "a bare pod");
        assert!(!releases(&pod(json!({"metadata": {"ownerReferences": owner("DaemonSet")}}))));
        assert!(!releases(&pod(json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}))));
        assert!(!releases(&pod(json!({"metadata": {}, "status": {"phase": "Succeeded"}}))));
    }
}
