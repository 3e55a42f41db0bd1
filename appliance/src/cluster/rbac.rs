//! The rights that the appliance needs in a cluster, and no more: what `rackmedic rbac` prints. The tests run with exactly
//! these.
//!
//! Secrets: bootstrap tokens and node passwords in `kube-system` are created and deleted by name, never read. Nothing is a
//! wildcard.

use super::config::DEFAULT_NAMESPACE;
use super::watch::LEASE_NAMESPACE;
use serde_json::{Value, json};

/// The name of the ServiceAccount, the roles and their bindings.
pub const NAME: &str = "rackmedic";

/// The objects, in the order in which they are applied.
#[must_use]
pub fn manifest(namespace: &str) -> Vec<Value> {
    let subject = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]);
    let bound = |kind: &str, role: &str, place: Option<&str>| {
        let mut binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": format!("{kind}Binding"),
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": subject,
        });
        if let Some(place) = place {
            binding["metadata"]["namespace"] = json!(place);
        }
        binding
    };
    let role = |place: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": NAME, "namespace": place},
            "rules": rules,
        })
    };
    vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}}),
        // Kubernetes fills this Secret with a token that lasts until it is deleted. Kubernetes' own controller does it, not we.
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": "rackmedic-token", "namespace": namespace,
                "annotations": {"kubernetes.io/service-account.name": NAME},
            },
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NAME},
            "rules": cluster_rules(),
        }),
        bound("ClusterRole", NAME, None),
        // Leases of nodes: watched, and deleted with their Node.
        role(
            LEASE_NAMESPACE,
            json!([
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch", "delete"]},
            ]),
        ),
        bound("Role", NAME, Some(LEASE_NAMESPACE)),
        // Bootstrap tokens and node passwords: made and deleted by name, never read.
        role("kube-system", json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]}])),
        bound("Role", NAME, Some("kube-system")),
        // Canary pods.
        role(namespace, json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "delete"]}])),
        bound("Role", NAME, Some(namespace)),
    ]
}

fn cluster_rules() -> Value {
    json!([
        // Watch nodes; cordon, taint, restore labels; delete the Node of a host before it is reimaged.
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch", "delete"]},
        // Release the pods of a node that is proven off.
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "delete"]},
        // And its volumes.
        {"apiGroups": ["storage.k8s.io"], "resources": ["volumeattachments"], "verbs": ["list", "watch", "delete"]},
        // See kured's lock.
        {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["list"]},
        // A node that is rejoined: its old requests go, and its serving certificate is approved, for that signer alone.
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["list", "delete"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["update"]},
        {
            "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"],
            "resourceNames": ["kubernetes.io/kubelet-serving"],
        },
        // See machines that others delete, and rollouts.
        {"apiGroups": ["cluster.x-k8s.io"], "resources": ["machines", "machinedeployments"], "verbs": ["list"]},
        {"apiGroups": ["controlplane.cluster.x-k8s.io"], "resources": ["kubeadmcontrolplanes"], "verbs": ["list"]},
        {"apiGroups": ["machine.openshift.io"], "resources": ["machines"], "verbs": ["list"]},
        {"apiGroups": ["machineconfiguration.openshift.io"], "resources": ["machineconfigpools"], "verbs": ["list"]},
        // See the redundancy of storage.
        {"apiGroups": ["ceph.rook.io"], "resources": ["cephclusters"], "verbs": ["list"]},
        {"apiGroups": ["longhorn.io"], "resources": ["volumes", "replicas"], "verbs": ["list"]},
        // See whether an API server and its etcd are ready.
        {"nonResourceURLs": ["/readyz"], "verbs": ["get"]},
    ])
}

/// The manifest as YAML documents. JSON is YAML: each document is one, over several lines, which any reader takes.
#[must_use]
pub fn yaml(namespace: &str) -> String {
    let mut text = String::new();
    for object in manifest(namespace) {
        text.push_str("---\n");
        write_yaml(&object, 0, &mut text);
    }
    text
}

/// The manifest as one JSON list.
#[must_use]
pub fn list(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": manifest(namespace)})
}

/// Block style for maps and lists of maps, so that a person can review it; scalars are written as JSON, which is YAML.
fn write_yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&indent);
                write_entry(key, value, depth, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&indent);
                out.push_str("- ");
                if let Value::Object(map) = item {
                    for (index, (key, value)) in map.iter().enumerate() {
                        if index > 0 {
                            out.push_str(&indent);
                            out.push_str("  ");
                        }
                        write_entry(key, value, depth + 1, out);
                    }
                } else {
                    out.push_str(&item.to_string());
                    out.push('\n');
                }
            }
        }
        scalar => {
            out.push_str(&scalar.to_string());
            out.push('\n');
        }
    }
}

fn write_entry(key: &str, value: &Value, depth: usize, out: &mut String) {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "-./_".contains(c));
    if plain {
        out.push_str(key)
    } else {
        out.push_str(&json!(key).to_string())
    }
    out.push(':');
    let flat = match value {
        Value::Array(items) => items.iter().all(|item| !item.is_object()),
        Value::Object(map) => map.is_empty(),
        _ => true,
    };
    if flat {
        out.push(' ');
        out.push_str(&value.to_string());
        out.push('\n');
    } else {
        out.push('\n');
        write_yaml(value, depth + 1, out);
    }
}

/// The namespace, unless another is named.
pub const NAMESPACE: &str = DEFAULT_NAMESPACE;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<Value> {
        manifest("rackmedic").iter().filter_map(|object| object["rules"].as_array().cloned()).flatten().collect()
    }

    #[test]
    fn nothing_is_a_wildcard_and_no_secret_is_read() {
        assert!(!list("rackmedic").to_string().contains('*'));
        for rule in rules() {
            let about_secrets = rule["resources"].as_array().is_some_and(|all| all.contains(&json!("secrets")));
            if about_secrets {
                assert_eq!(rule["verbs"], json!(["create", "delete"]));
            }
        }
    }

    #[test]
    fn yaml_is_written_in_blocks_that_a_person_reviews() {
        let text = yaml("medic");
        assert_eq!(text.matches("---\n").count(), manifest("medic").len());
        assert!(text.contains("  namespace: \"medic\"\n"), "{text}");
        assert!(text.contains("  - apiGroups: [\"\"]\n    resources: [\"nodes\"]\n"), "{text}");
    }
}
