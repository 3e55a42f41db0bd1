//! Acts on the Node object: read, cordon, taint, delete, restore.

use super::{ClusterActs, ClusterAsked, Stop, found};
use crate::cluster::node::{self, CORDON_MARK, MANAGER, OUT_OF_SERVICE, TAINT_PREFIX};
use crate::cluster::watch::LEASE_NAMESPACE;
use healing::command::Reply;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

impl ClusterActs {
    async fn get(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Option<Node>, Stop> {
        let api: Api<Node> = Api::all(client);
        found(api.get(asked.node()?).await)
    }

    /// Changes a Node as it was read: a merge patch that names the version, so that the API refuses it if anybody changed the
    /// Node meanwhile.
    async fn change(
        &self,
        client: kube::Client,
        asked: &ClusterAsked<'_>,
        node: &Node,
        mut patch: Value,
    ) -> Result<(), Stop> {
        patch["metadata"]["resourceVersion"] = json!(node.metadata.resource_version);
        patch["metadata"]["uid"] = json!(node.metadata.uid);
        asked.leaves()?;
        let api: Api<Node> = Api::all(client);
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match found(api.patch(asked.node()?, &params, &Patch::Merge(patch)).await)? {
            Some(_) => Ok(()),
            // Deleted between reading and writing: the next reading says so.
            None => Err(Stop::Silent),
        }
    }

    pub(super) async fn read_node(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let name = asked.node()?;
        let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
        let (node, lease) = tokio::join!(self.get(client, asked), leases.get(name));
        let (node, lease) = (node?, found(lease)?);
        let renewed = lease.and_then(|lease| lease.spec?.renew_time).map(|time| time.0);
        let known = self.state.tables().leases.get(name).copied();
        let lease_renewed = match (renewed, known) {
            (None, _) => false,
            // A Lease that our watch never brought may have been renewed at any time: the node has the benefit of it.
            (Some(_), None) => true,
            (Some(renewed), Some(known)) => known.changed_at >= asked.began || known.renewed != Some(renewed),
        };
        let report = node.map(|node| {
            let mut report = node::read(&node).report;
            let claimed = self.state.tables().foreign.nodes.contains_key(name);
            report.foreign_mark |= claimed;
            report.claimed |= claimed;
            report
        });
        Ok(Reply::Node { node: report, lease_renewed })
    }

    pub(super) async fn cordon(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let Some(node) = self.get(client.clone(), asked).await? else { return Ok(Reply::Ok) };
        // Somebody else's cordon stays theirs: we add nothing that would let us lift it.
        if node::unschedulable(&node) && !node::our_cordon(&node) {
            return Ok(Reply::Ok);
        }
        let mark = asked.incident.0.to_string();
        if node::our_cordon(&node) && annotation(&node, CORDON_MARK) == Some(mark.as_str()) {
            return Ok(Reply::Ok);
        }
        let patch = json!({"metadata": {"annotations": {CORDON_MARK: mark}}, "spec": {"unschedulable": true}});
        self.change(client, asked, &node, patch).await?;
        Ok(Reply::Ok)
    }

    pub(super) async fn uncordon(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let Some(node) = self.get(client.clone(), asked).await? else { return Ok(Reply::Ok) };
        if annotation(&node, CORDON_MARK).is_none() {
            return Ok(Reply::Ok);
        }
        let mut patch = json!({"metadata": {"annotations": {CORDON_MARK: null}}});
        if node::our_cordon(&node) {
            patch["spec"] = json!({"unschedulable": null});
        }
        self.change(client, asked, &node, patch).await?;
        Ok(Reply::Ok)
    }

    pub(super) async fn put_taint(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let Some(node) = self.get(client.clone(), asked).await? else { return Ok(Reply::Ok) };
        let value = format!("{TAINT_PREFIX}{}", asked.incident.0);
        let there = node::taints(&node).iter().find(|taint| taint.key == OUT_OF_SERVICE && taint.effect == "NoExecute");
        // Ours already, or a person's, which does the same and is not ours to touch.
        if there.is_some_and(|taint| taint.value.as_deref() == Some(&value) || !node::our_taint(taint)) {
            return Ok(Reply::Ok);
        }
        let mut taints: Vec<Taint> =
            node::taints(&node).iter().filter(|taint| !node::our_taint(taint)).cloned().collect();
        taints.push(Taint {
            key: OUT_OF_SERVICE.to_owned(),
            value: Some(value),
            effect: "NoExecute".to_owned(),
            time_added: None,
        });
        self.change(client, asked, &node, json!({"spec": {"taints": taints}})).await?;
        Ok(Reply::Ok)
    }

    pub(super) async fn remove_taint(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let Some(node) = self.get(client.clone(), asked).await? else { return Ok(Reply::Ok) };
        if !node::taints(&node).iter().any(node::our_taint) {
            return Ok(Reply::Ok);
        }
        let taints: Vec<&Taint> = node::taints(&node).iter().filter(|taint| !node::our_taint(taint)).collect();
        self.change(client, asked, &node, json!({"spec": {"taints": taints}})).await?;
        Ok(Reply::Ok)
    }

    /// The Node as it was read, and its Lease.
    pub(super) async fn delete_node(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let name = asked.node()?;
        if let Some(node) = self.get(client.clone(), asked).await? {
            let report = node::read(&node).report;
            // A Node that runs another boot than the one that fell ill, and is Ready, has come back (rules 36, 41).
            if report.ready == Some(true) && asked.target.boot_before.is_some_and(|boot| boot != report.boot) {
                return Ok(Reply::ApiRefused);
            }
            asked.leaves()?;
            let api: Api<Node> = Api::all(client.clone());
            let seen = Preconditions {
                resource_version: node.metadata.resource_version.clone(),
                uid: node.metadata.uid.clone(),
            };
            found(api.delete(name, &DeleteParams { preconditions: Some(seen), ..DeleteParams::default() }).await)?;
        }
        asked.leaves()?;
        let leases: Api<Lease> = Api::namespaced(client, LEASE_NAMESPACE);
        found(leases.delete(name, &DeleteParams::default()).await)?;
        Ok(Reply::Ok)
    }

    /// Puts recorded labels and taints back. Labels that the Node has by itself stay as they are.
    pub(super) async fn restore(&self, client: kube::Client, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let Some(recorded) = self.rejoin.recorded(asked.target.host) else { return Ok(Reply::Ok) };
        let Some(node) = self.get(client.clone(), asked).await? else { return Ok(Reply::ApiRefused) };
        // Still the object that was recorded: nothing was lost with another, and what it lacks somebody took away.
        if !recorded.uid.is_empty() && node.metadata.uid.as_ref() == Some(&recorded.uid) {
            return Ok(Reply::Ok);
        }
        let has = node.metadata.labels.as_ref();
        let labels: serde_json::Map<String, Value> = recorded
            .labels
            .iter()
            .filter(|(label, _)| !has.is_some_and(|has| has.contains_key(*label)))
            .map(|(label, value)| (label.clone(), json!(value)))
            .collect();
        let same = |a: &Taint, b: &Taint| a.key == b.key && a.effect == b.effect;
        let missing: Vec<&Taint> = recorded
            .taints
            .iter()
            .filter(|taint| !node::taints(&node).iter().any(|there| same(there, taint)))
            .collect();
        if labels.is_empty() && missing.is_empty() {
            return Ok(Reply::Ok);
        }
        let mut patch = json!({"metadata": {"labels": labels}});
        if !missing.is_empty() {
            let all: Vec<&Taint> = node::taints(&node).iter().chain(missing).collect();
            patch["spec"] = json!({"taints": all});
        }
        self.change(client, asked, &node, patch).await?;
        Ok(Reply::Ok)
    }
}

fn annotation<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}
