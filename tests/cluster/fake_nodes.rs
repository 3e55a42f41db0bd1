//! Nodes without hosts: objects as a kubelet writes them, and the renewal of their Leases for as long as they "live".

use futures_util::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Creates a Ready Node with its Lease. `number` makes its machine and boot its own.
pub(crate) async fn create(client: &kube::Client, name: &str, number: u32, labels: serde_json::Value) {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut all = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
    for (key, value) in labels.as_object().unwrap() {
        all[key] = value.clone();
    }
    let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": all}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    status(client, name, number, &format!("boot-{number}-1"), "True").await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()},
    }))
    .unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Writes the status that a kubelet writes.
pub(crate) async fn status(client: &kube::Client, name: &str, number: u32, boot: &str, ready: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({"status": {
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"},
        "allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady", "message": "",
                        "lastHeartbeatTime": at, "lastTransitionTime": at}],
        "addresses": [{"type": "InternalIP", "address": format!("10.84.{}.{}", number / 250, number % 250 + 1)}],
        "images": [{"names": ["registry.k8s.io/pause:3.10"], "sizeBytes": 700_000}],
        "nodeInfo": {"architecture": "amd64", "bootID": boot, "containerRuntimeVersion": "containerd://2", "kernelVersion": "6",
            "kubeProxyVersion": "", "kubeletVersion": "v1.36.3", "machineID": format!("m{number}"), "operatingSystem": "linux",
            "osImage": "linux", "systemUUID": format!("7ac40000-0b0c-4d00-8e00-{number:012x}")},
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

/// Keeps Leases renewed until it is dropped.
#[derive(Debug)]
pub(crate) struct Renewer {
    alive: Arc<Mutex<BTreeSet<String>>>,
    stop: CancellationToken,
}

impl Renewer {
    /// Renews all of these every `period`, spread over it.
    pub(crate) fn start(client: kube::Client, names: &[String], period: Duration) -> Renewer {
        let alive = Arc::new(Mutex::new(names.iter().cloned().collect::<BTreeSet<_>>()));
        let stop = CancellationToken::new();
        let renewer = Renewer { alive: Arc::clone(&alive), stop: stop.clone() };
        tokio::spawn(async move {
            let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
            while !stop.is_cancelled() {
                let round: Vec<String> = alive.lock().unwrap().iter().cloned().collect();
                let gap = period / u32::try_from(round.len().max(1)).unwrap();
                let began = tokio::time::Instant::now();
                stream::iter(round.into_iter().enumerate())
                    .for_each_concurrent(16, |(index, name)| {
                        let (leases, alive) = (leases.clone(), Arc::clone(&alive));
                        let at = began + gap * u32::try_from(index).unwrap();
                        async move {
                            tokio::time::sleep_until(at).await;
                            if alive.lock().unwrap().contains(&name) {
                                let patch = json!({"spec": {"renewTime": now()}});
                                // An outage that the test made: the next round tries again.
                                let _ = leases.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                            }
                        }
                    })
                    .await;
                tokio::time::sleep_until(began + period).await;
            }
        });
        renewer
    }

    /// Its kubelet dies.
    pub(crate) fn kill(&self, name: &str) {
        self.alive.lock().unwrap().remove(name);
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
