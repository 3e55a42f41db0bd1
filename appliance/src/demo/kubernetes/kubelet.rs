//! A kubelet: renews its Lease every ten seconds, posts its status, runs and ends the pods of its node. It does so as long as
//! its machine lets it.

use super::super::api::kinds::{LEASE, NODE, POD};
use super::super::api::objects::{Deletion, Key, Objects, now_micro, now_s};
use super::super::rack::Host;
use super::{LEASES, Millis, edit, text};
use machine::{Component, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Between two renewals of the Lease.
const RENEW_MS: Millis = 10_000;
/// Between two posts of an unchanged status.
const STATUS_MS: Millis = 60_000;
/// From a pod's placement, or the kubelet's start, to its containers' start.
const START_MS: Millis = 1_500;

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Kubelet {
    /// The boot in which it runs; `None` = it does not.
    boot: Option<u64>,
    renewed_at: Option<Millis>,
    renew_due: Millis,
    status_due: Millis,
    ready: bool,
    pods: BTreeMap<String, Millis>,
}

struct Seen {
    renews: bool,
    ready: bool,
    boot: u64,
    shutting_down: bool,
    runtime: bool,
}

impl Kubelet {
    /// When it last renewed its Lease.
    pub(super) fn renewed_at(&self) -> Option<Millis> {
        self.renewed_at
    }

    /// It runs now.
    pub(super) fn runs(&self) -> bool {
        self.boot.is_some()
    }

    /// The API was away: everything is posted anew once it is back.
    pub(super) fn cut_off(&mut self) {
        self.status_due = 0;
    }

    pub(super) fn step(&mut self, host: &Host, reaches: bool, objects: &Objects, now: Millis) {
        let seen = host.machine(|machine| Seen {
            renews: machine.kubelet_renews(),
            ready: machine.kubelet_ok(),
            boot: machine.boot_id(),
            shutting_down: machine.shutting_down(),
            runtime: !machine.failing().contains_key(&Component::Runtime),
        });
        if seen.shutting_down && self.boot == Some(seen.boot) && self.ready {
            // The last word of a kubelet that is told that its node shuts down.
            self.ready = false;
            edit(objects, &Key::new(NODE, "", &host.place.name), |node| {
                set_ready(node, "False", "KubeletNotReady", "node is shutting down");
            });
        }
        if !seen.renews || !reaches {
            if !seen.renews {
                self.boot = None;
            }
            return;
        }
        if self.boot != Some(seen.boot) {
            self.boot = Some(seen.boot);
            // Spread over the period, as those of a real cluster are.
            self.renew_due = if now == 0 { u64::from(host.place.id) * 1_618 % RENEW_MS } else { now };
            self.status_due = 0;
            self.pods.clear();
        }
        let first = self.renewed_at.is_none();
        if now >= self.renew_due || first {
            self.renew_due = self.renew_due.max(now) + if first { self.renew_due } else { RENEW_MS };
            self.renewed_at = Some(now);
            renew(objects, &host.place.name);
        }
        if now >= self.status_due || seen.ready != self.ready {
            self.status_due = now + STATUS_MS;
            self.ready = seen.ready;
            post(objects, host, &seen);
        }
        if seen.runtime {
            self.run_pods(objects, &host.place.name, &host.place.address.to_string(), now);
        }
    }

    fn run_pods(&mut self, objects: &Objects, node: &str, address: &str, now: Millis) {
        let own: Vec<(Key, _)> =
            objects.of(POD).into_iter().filter(|(_, pod)| text(pod, "/spec/nodeName") == node).collect();
        self.pods.retain(|uid, _| own.iter().any(|(_, pod)| text(pod, "/metadata/uid") == uid));
        for (key, pod) in own {
            let since = *self.pods.entry(text(&pod, "/metadata/uid").to_owned()).or_insert(now);
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                // Its containers end at once here; then it is taken away for good.
                if now.saturating_sub(since) >= START_MS {
                    let _ = objects.delete(&key, &Deletion { grace_s: Some(0), ..Deletion::default() });
                }
                continue;
            }
            let well = text(&pod, "/status/phase") == "Running" && pod_ready(&pod);
            if well || now.saturating_sub(since) < START_MS || !super::volumes::attached(objects, &pod, node) {
                continue;
            }
            edit(objects, &key, |pod| {
                let container = text(pod, "/spec/containers/0/name").to_owned();
                pod["status"] = json!({
                    "phase": "Running", "hostIP": address, "startTime": now_s(),
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now_s()}],
                    "containerStatuses": [{"name": container, "ready": true, "started": true, "restartCount": 0,
                        "image": "", "imageID": "", "state": {"running": {"startedAt": now_s()}}}],
                });
            });
        }
    }
}

fn pod_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

fn renew(objects: &Objects, node: &str) {
    let key = Key::new(LEASE, LEASES, node);
    if objects.get(&key).is_none() {
        let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now_micro()});
        let _ = objects.create(LEASE, LEASES, json!({"metadata": {"name": node}, "spec": spec}));
        return;
    }
    edit(objects, &key, |lease| lease["spec"]["renewTime"] = json!(now_micro()));
}

fn post(objects: &Objects, host: &Host, seen: &Seen) {
    let name = &host.place.name;
    let key = Key::new(NODE, "", name);
    if objects.get(&key).is_none() {
        let mut labels = json!({
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("rack-{}", host.place.rack),
        });
        let mut spec = json!({});
        if host.place.role == Role::ControlPlane {
            labels["node-role.kubernetes.io/control-plane"] = json!("");
            spec["taints"] = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
        }
        let _ =
            objects.create(NODE, "", json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {}}));
    }
    edit(objects, &key, |node| {
        let status = &mut node["status"];
        status["addresses"] = json!([
            {"type": "InternalIP", "address": host.place.address.to_string()}, {"type": "Hostname", "address": name}
        ]);
        status["capacity"] = json!({"cpu": "32", "memory": "128Gi", "pods": "110"});
        status["allocatable"] = status["capacity"].clone();
        status["images"] = json!([{"names": ["registry.k8s.io/pause:3.10"], "sizeBytes": 742_080}]);
        status["nodeInfo"] = json!({
            "machineID": uuid(host.place.identity).replace('-', ""), "systemUUID": uuid(host.place.identity),
            "bootID": uuid(u128::from(seen.boot)), "kernelVersion": "6.12.0", "osImage": "Emulated Linux",
            "containerRuntimeVersion": "containerd://2.0.0", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "v1.36.0",
            "operatingSystem": "linux", "architecture": "amd64",
        });
        match seen.ready {
            true => set_ready(node, "True", "KubeletReady", "kubelet is posting ready status"),
            false => set_ready(node, "False", "KubeletNotReady", "container runtime network not ready"),
        }
    });
}

/// Sets the condition Ready.
pub(super) fn set_ready(node: &mut Value, status: &str, reason: &str, message: &str) {
    let before = super::ready_condition(node).cloned().unwrap_or(Value::Null);
    let since = if before["status"] == status { before["lastTransitionTime"].clone() } else { json!(now_s()) };
    node["status"]["conditions"] = json!([{
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now_s(), "lastTransitionTime": since,
    }]);
}

/// As SMBIOS and the kernel print it.
fn uuid(value: u128) -> String {
    let text = format!("{value:032x}");
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}
