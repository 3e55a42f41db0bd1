//! Redundancy of storage systems, from their own resources (rule 28): Ceph under Rook, and Longhorn. What they say is read,
//! never what their pods look like. A reading that fails leaves no word: nobody is told that all is well.

use super::client::{self, Trouble};
use super::config::{StorageConfig, StorageKind};
use super::watch::Watch;
use healing::sight::StorageReport;
use healing::time::{Elapsed, MINUTE, Millis};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two readings.
const EVERY: Duration = Duration::from_secs(10);
/// A reading older than this says nothing.
pub(super) const GOOD_MS: Millis = MINUTE;
/// Objects per page, and pages at most.
const PAGE: u32 = 500;
const PAGES_MAX: usize = 40;

/// What a storage system says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redundancy {
    /// Full.
    Full,
    /// Reduced, by the loss of this node, if it tells.
    Reduced(Option<String>),
    /// It says nothing of it.
    Unsaid,
}

/// Ceph's health checks that mean fewer copies, or copies out of reach.
const CEPH_REDUCED: [&str; 14] = [
    "PG_DEGRADED",
    "PG_AVAILABILITY",
    "PG_DAMAGED",
    "PG_BACKFILL_FULL",
    "PG_RECOVERY_FULL",
    "OSD_DOWN",
    "OSD_HOST_DOWN",
    "OSD_ROOT_DOWN",
    "OSD_FULL",
    "OBJECT_UNFOUND",
    "MON_DOWN",
    "MDS_ALL_DOWN",
    "FS_DEGRADED",
    "POOL_NO_REDUNDANCY",
];

/// Reads a `CephCluster`.
pub(super) fn ceph(cluster: &Value) -> Redundancy {
    let Some(ceph) = cluster.pointer("/status/ceph").and_then(Value::as_object) else { return Redundancy::Unsaid };
    let health = ceph.get("health").and_then(Value::as_str).unwrap_or_default();
    let checks = ceph.get("details").and_then(Value::as_object);
    let reduced = checks.is_some_and(|checks| checks.keys().any(|check| CEPH_REDUCED.contains(&check.as_str())));
    match health {
        "HEALTH_OK" => Redundancy::Full,
        "HEALTH_WARN" if !reduced => Redundancy::Full,
        "HEALTH_WARN" | "HEALTH_ERR" => Redundancy::Reduced(None),
        _ => Redundancy::Unsaid,
    }
}

/// Reads Longhorn's volumes and replicas.
pub(super) fn longhorn(volumes: &[Value], replicas: &[Value]) -> Redundancy {
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let ill: BTreeSet<String> = volumes
        .iter()
        // A detached volume's robustness is `unknown`: nobody uses it.
        .filter(|volume| matches!(text(volume, "/status/robustness").as_str(), "degraded" | "faulted"))
        .map(|volume| text(volume, "/metadata/name"))
        .collect();
    if ill.is_empty() {
        return Redundancy::Full;
    }
    let lost: BTreeSet<String> = replicas
        .iter()
        .filter(|replica| {
            ill.contains(&text(replica, "/spec/volumeName")) && !text(replica, "/spec/failedAt").is_empty()
        })
        .map(|replica| text(replica, "/spec/nodeID"))
        .filter(|node| !node.is_empty())
        .collect();
    // Only if all lost copies were on one node is it that node's loss.
    Redundancy::Reduced(lost.iter().next().filter(|_| lost.len() == 1).cloned())
}

impl Watch {
    /// Reads the storage systems for ever.
    pub(super) async fn storage(self, systems: Vec<StorageConfig>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            for system in &systems {
                let read = tokio::select! {
                    () = self.stop.cancelled() => return,
                    read = tokio::time::timeout(client::ANSWER, self.redundancy(system)) => read,
                };
                match read {
                    Ok(Ok(redundancy)) => self.take(system, &redundancy),
                    Ok(Err(trouble)) => {
                        tracing::debug!(cluster = self.state.name, system = system.id, ?trouble, "storage unread");
                    }
                    Err(_) => {}
                }
            }
        }
    }

    async fn redundancy(&self, system: &StorageConfig) -> Result<Redundancy, Trouble> {
        match system.kind {
            StorageKind::Rook => {
                let clusters = self.list(("ceph.rook.io", "v1", "CephCluster"), &system.namespace).await?;
                let mut said = Redundancy::Unsaid;
                for cluster in clusters.iter().map(ceph) {
                    said = match (said, cluster) {
                        (Redundancy::Reduced(by), _) | (_, Redundancy::Reduced(by)) => Redundancy::Reduced(by),
                        (Redundancy::Full, Redundancy::Full) | (Redundancy::Unsaid, Redundancy::Full) => {
                            Redundancy::Full
                        }
                        (said, Redundancy::Unsaid) => said,
                    };
                }
                Ok(said)
            }
            StorageKind::Longhorn => {
                let volumes = self.list(("longhorn.io", "v1beta2", "Volume"), &system.namespace).await?;
                let replicas = match longhorn(&volumes, &[]) {
                    Redundancy::Full | Redundancy::Unsaid => Vec::new(),
                    Redundancy::Reduced(_) => {
                        self.list(("longhorn.io", "v1beta2", "Replica"), &system.namespace).await?
                    }
                };
                Ok(longhorn(&volumes, &replicas))
            }
        }
    }

    /// All objects of a kind that may not be known to the API; then there are none, and that is [`Trouble::NotFound`].
    pub(super) async fn list(&self, kind: (&str, &str, &str), namespace: &str) -> Result<Vec<Value>, Trouble> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.0, kind.1, kind.2));
        let api: Api<DynamicObject> = match namespace {
            "" => Api::all_with(self.link.client(), &resource),
            namespace => Api::namespaced_with(self.link.client(), namespace, &resource),
        };
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        for _ in 0..PAGES_MAX {
            let page = api.list(&params).await.map_err(|error| client::trouble(&error))?;
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            all.extend(page.items.into_iter().filter_map(|object| serde_json::to_value(object).ok()));
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
        Err(Trouble::Refused)
    }

    fn take(&self, system: &StorageConfig, redundancy: &Redundancy) {
        let at = self.time.now().elapsed;
        let by = match redundancy {
            Redundancy::Reduced(Some(node)) => self.registry.host_of(self.state.id, node),
            _ => None,
        };
        store(&mut self.state.tables().storage, system, redundancy, by, at);
    }
}

fn store(
    all: &mut Vec<(StorageReport, Elapsed)>,
    system: &StorageConfig,
    redundancy: &Redundancy,
    by: Option<healing::id::HostId>,
    at: Elapsed,
) {
    let known = all.iter().find(|(report, _)| report.system == system.id()).map(|(report, _)| report.reduced_since);
    all.retain(|(report, _)| report.system != system.id());
    let reduced_since = match redundancy {
        Redundancy::Unsaid => return,
        Redundancy::Full => None,
        // The first word of it, and nobody says by whom: since when it is so nobody saw (rule 28).
        Redundancy::Reduced(_) if known.is_none() && by.is_none() => Some(Elapsed(0)),
        Redundancy::Reduced(_) => known.flatten().or(Some(at)),
    };
    all.push((StorageReport { system: system.id(), reduced_since, reduced_by: by }, at));
}

#[cfg(test)]
mod tests {
    use super::*;
    use healing::id::HostId;
    use serde_json::json;

    #[test]
    fn ceph_is_reduced_by_lost_copies_and_not_by_a_slow_disk() {
        let cluster = |health: &str, checks: Value| json!({"status": {"ceph": {"health": health, "details": checks}}});
        assert_eq!(ceph(&cluster("HEALTH_OK", json!({}))), Redundancy::Full);
        assert_eq!(ceph(&cluster("HEALTH_WARN", json!({"BLUESTORE_SLOW_OP_ALERT": {}}))), Redundancy::Full);
        assert_eq!(ceph(&cluster("HEALTH_WARN", json!({"PG_DEGRADED": {}}))), Redundancy::Reduced(None));
        assert_eq!(ceph(&cluster("HEALTH_ERR", json!({}))), Redundancy::Reduced(None));
        assert_eq!(ceph(&json!({"status": {"phase": "Progressing"}})), Redundancy::Unsaid);
    }

    #[test]
    fn longhorn_names_the_node_whose_copies_are_lost_if_it_is_one() {
        let volume =
            |name: &str, robustness: &str| json!({"metadata": {"name": name}, "status": {"robustness": robustness}});
        let replica = |volume: &str, node: &str, failed: &str| json!({"spec": {"volumeName": volume, "nodeID": node, "failedAt": failed}});
        let volumes = [volume("v1", "degraded"), volume("v2", "healthy"), volume("v3", "unknown")];
        assert_eq!(longhorn(&volumes[1..], &[]), Redundancy::Full);
        let lost = [replica("v1", "n1", "2026-01-01"), replica("v1", "n2", ""), replica("v2", "n3", "2026-01-01")];
        assert_eq!(longhorn(&volumes, &lost), Redundancy::Reduced(Some("n1".to_owned())));
        let two = [replica("v1", "n1", "x"), replica("v1", "n2", "x")];
        assert_eq!(longhorn(&volumes, &two), Redundancy::Reduced(None));
    }

    #[test]
    fn since_when_it_is_reduced_stays_until_it_is_full_again() {
        let system = StorageConfig { id: 3, kind: StorageKind::Rook, namespace: "rook-ceph".to_owned() };
        let mut all = Vec::new();
        store(&mut all, &system, &Redundancy::Reduced(None), None, Elapsed(3));
        assert_eq!(all[0].0.reduced_since, Some(Elapsed(0)), "it was so before we looked");
        store(&mut all, &system, &Redundancy::Full, None, Elapsed(4));
        store(&mut all, &system, &Redundancy::Reduced(None), None, Elapsed(5));
        store(&mut all, &system, &Redundancy::Reduced(None), Some(HostId(1)), Elapsed(9));
        assert_eq!(
            (all[0].0.reduced_since, all[0].0.reduced_by, all[0].1),
            (Some(Elapsed(5)), Some(HostId(1)), Elapsed(9))
        );
        store(&mut all, &system, &Redundancy::Full, None, Elapsed(12));
        assert_eq!(all[0].0.reduced_since, None);
        store(&mut all, &system, &Redundancy::Unsaid, None, Elapsed(15));
        assert!(all.is_empty(), "what is unsaid is not full");
    }
}
