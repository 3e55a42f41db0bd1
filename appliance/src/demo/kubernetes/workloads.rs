//! Deployments and StatefulSets: a Deployment replaces a pod as soon as it is being deleted, a StatefulSet only once the pod
//! of that name is gone for good.

use super::super::api::kinds::{DEPLOYMENT, KindId, POD, STATEFUL_SET};
use super::super::api::objects::{Deletion, Key, Objects};
use super::{edit, text};
use serde_json::{Value, json};
use std::sync::Arc;

/// Pods of one set at most.
const REPLICAS_MAX: u64 = 2_000;

pub(super) fn step(objects: &Objects) {
    for kind in [DEPLOYMENT, STATEFUL_SET] {
        for (key, set) in objects.of(kind) {
            let owned: Vec<(Key, Arc<Value>)> = objects
                .of(POD)
                .into_iter()
                .filter(|(_, pod)| text(pod, "/metadata/ownerReferences/0/uid") == text(&set, "/metadata/uid"))
                .collect();
            let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1).min(REPLICAS_MAX);
            if kind == DEPLOYMENT {
                deployment(objects, &key, &set, &owned, wanted);
            } else {
                stateful_set(objects, &key, &set, &owned, wanted);
            }
            let running =
                owned.iter().filter(|(_, pod)| text(pod, "/status/phase") == "Running" && is_ready(pod)).count();
            edit(objects, &key, |set| {
                set["status"] =
                    json!({"replicas": owned.len(), "readyReplicas": running, "availableReplicas": running});
            });
        }
    }
}

fn is_ready(pod: &Value) -> bool {
    text(pod, "/status/conditions/0/type") == "Ready" && text(pod, "/status/conditions/0/status") == "True"
}

fn pod(kind: KindId, set: &Value, name: Value, volume: Option<String>) -> Value {
    let mut pod = set["spec"]["template"].clone();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": kind.get().api_version(), "kind": kind.get().kind, "controller": true,
        "name": set["metadata"]["name"], "uid": set["metadata"]["uid"],
    }]);
    for (field, value) in name.as_object().into_iter().flatten() {
        pod["metadata"][field] = value.clone();
    }
    if let Some(volume) = volume {
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": volume}}]);
    }
    pod
}

fn deployment(objects: &Objects, key: &Key, set: &Value, owned: &[(Key, Arc<Value>)], wanted: u64) {
    let lives = |pod: &Value| {
        pod["metadata"]["deletionTimestamp"].is_null() && !["Failed", "Succeeded"].contains(&text(pod, "/status/phase"))
    };
    let living: Vec<&Key> = owned.iter().filter(|(_, pod)| lives(pod)).map(|(key, _)| key).collect();
    for _ in living.len() as u64..wanted {
        let name = json!({"generateName": format!("{}-", key.name)});
        let _ = objects.create(POD, &key.namespace, pod(DEPLOYMENT, set, name, None));
    }
    for surplus in living.iter().skip(usize::try_from(wanted).unwrap_or(usize::MAX)) {
        let _ = objects.delete(surplus, &Deletion::default());
    }
}

fn stateful_set(objects: &Objects, key: &Key, set: &Value, owned: &[(Key, Arc<Value>)], wanted: u64) {
    for number in 0..wanted {
        let name = format!("{}-{number}", key.name);
        if !owned.iter().any(|(key, _)| key.name == name) {
            let volume = format!("data-{name}");
            let _ = objects.create(POD, &key.namespace, pod(STATEFUL_SET, set, json!({"name": name}), Some(volume)));
        }
    }
    let last =
        owned.iter().filter(|(key, _)| number_of(&key.name).is_some_and(|number| number >= wanted)).map(|(k, _)| k);
    for surplus in last {
        let _ = objects.delete(surplus, &Deletion::default());
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.rsplit('-').next()?.parse().ok()
}
