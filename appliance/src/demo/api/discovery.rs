//! What the API says about itself: versions, groups, resources.

use super::kinds::{KINDS, Kind};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The answer to a path of discovery.
#[must_use]
pub fn answer(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => {
            Some(json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0-rackmedic-demo", "platform": "demo"}))
        }
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => Some(groups()),
        ["api", version] => resources("", version),
        ["apis", group, version] => resources(group, version),
        ["apis", group] => groups()["groups"].as_array()?.iter().find(|seen| seen["name"] == *group).cloned(),
        _ => None,
    }
}

fn groups() -> Value {
    let names: BTreeSet<(&str, &str)> =
        KINDS.iter().filter(|kind| !kind.group.is_empty()).map(|kind| (kind.group, kind.version)).collect();
    let groups: Vec<Value> = names
        .into_iter()
        .map(|(group, version)| {
            let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
            json!({"name": group, "versions": [version], "preferredVersion": version})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let first = kinds.first()?;
    let mut all = Vec::new();
    for kind in &kinds {
        let verbs = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        all.push(
            json!({"name": kind.plural, "singularName": kind.kind.to_ascii_lowercase(), "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": verbs, "shortNames": kind.short}),
        );
        if kind.status {
            all.push(
                json!({"name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": ["get", "patch", "update"]}),
            );
        }
    }
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": all}))
}
