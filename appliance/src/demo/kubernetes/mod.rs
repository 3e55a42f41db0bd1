//! The emulated cluster behind the emulated API: kubelets, the node controller, the scheduler, workloads and their volumes,
//! as functions of objects, machines and the time passed in.
//!
//! It must never know the appliance: what the appliance does to it comes through the API, as from anybody.

mod kubelet;
mod node_controller;
mod scheduler;
mod volumes;
mod workloads;

use super::api::kinds::{CONFIG_MAP, DEPLOYMENT, NAMESPACE, SERVICE_ACCOUNT, STATEFUL_SET};
use super::api::objects::{Key, Objects};
use super::api::refusal::Refusal;
use super::api::server::Reach;
use super::rack::{Host, Rack};
use kubelet::Kubelet;
use machine::{Component, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A span or moment of the model in milliseconds.
pub type Millis = u64;

/// Where the workloads live.
pub const SHOP: &str = "shop";
/// Where kubelets keep their Leases.
pub const LEASES: &str = "kube-node-lease";

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    rack: Arc<Rack>,
    objects: Arc<Objects>,
    kubelets: BTreeMap<String, Kubelet>,
    attached_at: BTreeMap<String, Millis>,
    collected_at: Millis,
}

impl Cluster {
    /// A cluster whose nodes are up and whose workloads are still to be placed.
    #[must_use]
    pub fn new(rack: Arc<Rack>, objects: Arc<Objects>) -> Cluster {
        let mut cluster =
            Cluster { rack, objects, kubelets: BTreeMap::new(), attached_at: BTreeMap::new(), collected_at: 0 };
        cluster.furnish();
        cluster
    }

    fn furnish(&mut self) {
        let create = |kind, namespace: &str, object: Value| {
            // The objects are new: nobody has made them before.
            let _ = self.objects.create(kind, namespace, object);
        };
        for name in ["default", "kube-system", LEASES, SHOP, "rackmedic"] {
            create(NAMESPACE, "", json!({"metadata": {"name": name}, "status": {"phase": "Active"}}));
            create(SERVICE_ACCOUNT, name, json!({"metadata": {"name": "default"}}));
        }
        create(CONFIG_MAP, "kube-system", json!({"metadata": {"name": "kubeadm-config"}, "data": {}}));
        let workers = self.rack.hosts.iter().filter(|host| host.place.role == Role::Worker).count();
        let template = |app: &str| {
            json!({
                "metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"name": app, "image": format!("registry.example/{app}:1")}], "terminationGracePeriodSeconds": 30},
            })
        };
        let selector = |app: &str| json!({"matchLabels": {"app": app}});
        create(
            DEPLOYMENT,
            SHOP,
            json!({"metadata": {"name": "web"},
            "spec": {"replicas": workers * 2, "selector": selector("web"), "template": template("web")}}),
        );
        create(
            STATEFUL_SET,
            SHOP,
            json!({"metadata": {"name": "db"},
            "spec": {"replicas": workers.clamp(1, 5), "serviceName": "db", "selector": selector("db"), "template": template("db"),
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}),
        );
    }

    /// One turn of everything. A cluster whose API serves nobody stands still.
    pub fn step(&mut self, now: Millis) {
        if !api_serves(&self.rack) {
            for kubelet in self.kubelets.values_mut() {
                kubelet.cut_off();
            }
            return;
        }
        let rack = Arc::clone(&self.rack);
        for host in rack.hosts.iter().filter(|host| host.place.role != Role::Spare) {
            let kubelet = self.kubelets.entry(host.place.name.clone()).or_default();
            let reaches = !rack.is_dark(&host.place);
            kubelet.step(host, reaches, &self.objects, now);
        }
        node_controller::step(&self.objects, &self.kubelets, now);
        if now.saturating_sub(self.collected_at) >= node_controller::COLLECT_MS {
            self.collected_at = now;
            node_controller::collect(&self.objects);
        }
        workloads::step(&self.objects);
        scheduler::step(&self.objects);
        volumes::step(&self.objects, &self.kubelets, &mut self.attached_at, now);
    }
}

/// What a client meets at the API server of a control-plane host.
#[must_use]
pub fn reach(rack: &Rack, host: &Host) -> Reach {
    if rack.is_dark(&host.place) {
        return Reach::Silent;
    }
    let (answers, runs) = host.machine(|machine| (machine.answers(), machine.component_ok(Component::ApiServer)));
    match () {
        () if runs && answers.second_port == Some(true) => {
            if quorum(rack) {
                Reach::Serves
            } else {
                Reach::NoStore
            }
        }
        // Userspace is dead: the kernel takes connections and nobody serves them.
        () if answers.icmp && answers.second_port.is_some() => Reach::Refuses,
        () => Reach::Silent,
    }
}

/// Whether the members of etcd agree on a leader.
fn quorum(rack: &Rack) -> bool {
    let members = rack.hosts.iter().filter(|host| host.place.role == Role::ControlPlane);
    let (mut all, mut healthy) = (0, 0);
    for host in members {
        all += 1;
        let well = host.machine(|machine| machine.component_ok(Component::Etcd) && machine.answers().icmp);
        healthy += u32::from(well && !rack.is_dark(&host.place));
    }
    healthy > all / 2
}

/// Whether any server of the API serves.
#[must_use]
pub fn api_serves(rack: &Rack) -> bool {
    rack.hosts
        .iter()
        .filter(|host| host.place.role == Role::ControlPlane)
        .any(|host| reach(rack, host) == Reach::Serves)
}

/// Changes an object as a controller does: from what is there now. Of one that is gone nothing is left to change.
fn edit(objects: &Objects, key: &Key, change: impl FnOnce(&mut Value)) {
    let done = objects.change(key, |before| {
        let mut after = before.clone();
        change(&mut after);
        Ok::<_, Refusal>(after)
    });
    if let Err(why) = done {
        tracing::trace!(object = key.name, why = why.message, "the emulated cluster found nothing to change");
    }
}

/// A text within an object.
fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a Node's condition Ready is True.
fn ready(node: &Value) -> bool {
    ready_condition(node).is_some_and(|condition| condition["status"] == "True")
}

fn ready_condition(node: &Value) -> Option<&Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

/// Whether a Node carries a taint.
fn tainted(node: &Value, key: &str) -> bool {
    node["spec"]["taints"].as_array().is_some_and(|taints| taints.iter().any(|taint| taint["key"] == key))
}

/// The taint that says that a node is surely off (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
