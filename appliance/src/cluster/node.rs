//! What a Node object says, in the words of the decisions: ready, boot, cordon, and the marks of others.

use super::marks;
use healing::id::{BootId, MachineId};
use healing::signal::NodeReport;
use k8s_openapi::api::core::v1::{Node, Taint};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The annotation of our cordon; its value names the incident.
pub const CORDON_MARK: &str = "rackmedic.io/cordon";
/// The taint that releases pods and volumes of a node that is surely off (KEP-2268).
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Our out-of-service taint's value begins so, then comes the incident. Kubernetes looks at the key alone.
pub const TAINT_PREFIX: &str = "rackmedic-";
/// The field manager of all that we write.
pub const MANAGER: &str = "rackmedic";

/// What is kept of a Node.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// For the decisions.
    pub report: NodeReport,
    /// For the register.
    pub facts: NodeFacts,
    /// Which writing of it this is; compared for equality only.
    pub version: String,
    /// The kubelet's version.
    pub kubelet: String,
    /// It carries a control-plane role.
    pub control_plane: bool,
    /// It is cordoned, and not by us.
    pub foreign_cordon: bool,
}

/// What the register keeps of a Node: the machine it runs on, and what must be put back after a reimage.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeFacts {
    /// `nodeInfo.systemUUID`, only if it identifies something and the Node was Ready.
    pub machine: Option<MachineId>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its lasting taints: those of conditions, of cordons and of ours are left out.
    pub taints: Vec<Taint>,
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Told from a new Node of the same name by this.
    pub uid: String,
}

/// Reads a Node.
#[must_use]
pub fn read(node: &Node) -> Seen {
    let empty = BTreeMap::new();
    let annotations = node.metadata.annotations.as_ref().unwrap_or(&empty);
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let status = node.status.as_ref();
    let info = status.and_then(|s| s.node_info.as_ref());
    let condition = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
    let ready = condition.and_then(|c| match c.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    });
    // The kubelet says NodeShutdown as a message under KubeletNotReady; others put it into the reason.
    let shutting_down = condition.is_some_and(|c| {
        let said = |text: &Option<String>| {
            text.as_ref()
                .map(|t| t.to_ascii_lowercase())
                .is_some_and(|t| t.contains("shutting down") || t == "nodeshutdown")
        };
        c.status != "True" && (said(&c.message) || said(&c.reason))
    });
    let cordoned = unschedulable(node);
    let foreign_cordon = cordoned && !our_cordon(node);
    let machine = info
        .filter(|_| ready == Some(true))
        .and_then(|i| machine(&i.system_uuid))
        .filter(|machine| !machine.is_placeholder());
    let role = |name: &str| labels.contains_key(name);
    Seen {
        report: NodeReport {
            ready,
            boot: info.map(|i| boot(&i.boot_id)).unwrap_or_default(),
            cordoned,
            shutting_down,
            foreign_mark: foreign_cordon || marks::of_others(node, annotations),
            claimed: marks::of_others(node, annotations),
        },
        facts: NodeFacts {
            machine,
            labels: labels.clone(),
            taints: taints(node).iter().filter(|taint| lasting(taint)).cloned().collect(),
            addresses: status
                .and_then(|s| s.addresses.as_ref())
                .into_iter()
                .flatten()
                .filter(|address| address.type_ == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .take(8)
                .collect(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
        },
        version: node.metadata.resource_version.clone().unwrap_or_default(),
        kubelet: info.map(|i| i.kubelet_version.clone()).unwrap_or_default(),
        control_plane: role("node-role.kubernetes.io/control-plane") || role("node-role.kubernetes.io/master"),
        foreign_cordon,
    }
}

/// Whether it is cordoned, by anybody.
#[must_use]
pub fn unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

/// Its taints.
#[must_use]
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether it is cordoned, and by us: our mark is on it, and nobody else set the field since. A person who lifts our cordon
/// and sets one of their own leaves our mark behind, but the API server notes who wrote the field last.
#[must_use]
pub fn our_cordon(node: &Node) -> bool {
    let marked = node.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CORDON_MARK));
    if !marked || !unschedulable(node) {
        return false;
    }
    let writers = node.metadata.managed_fields.iter().flatten().filter(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:unschedulable").is_some())
    });
    let mut writers = writers.peekable();
    writers.peek().is_none() || writers.any(|entry| entry.manager.as_deref() == Some(MANAGER))
}

/// Whether a taint is our out-of-service taint.
#[must_use]
pub fn our_taint(taint: &Taint) -> bool {
    taint.key == OUT_OF_SERVICE && taint.value.as_ref().is_some_and(|value| value.starts_with(TAINT_PREFIX))
}

/// Taints that belong to a node's role rather than to its state.
fn lasting(taint: &Taint) -> bool {
    const OF_STATE: [&str; 10] = [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/out-of-service",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/network-unavailable",
        "node.cloudprovider.kubernetes.io/uninitialized",
        "node.cloudprovider.kubernetes.io/shutdown",
    ];
    !OF_STATE.contains(&taint.key.as_str())
}

/// A boot's number: the first 64 bits of the digest of its ID, the same in every version of ours.
#[must_use]
pub fn boot(boot_id: &str) -> BootId {
    let digest = Sha256::digest(boot_id.trim().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    BootId(u64::from_be_bytes(first))
}

/// A machine's identity from its printed UUID; `None` if it is none.
#[must_use]
pub fn machine(uuid: &str) -> Option<MachineId> {
    let digits: String = uuid.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(MachineId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    fn ready(extra: serde_json::Value) -> Node {
        let mut whole = json!({
            "metadata": {"name": "n1", "uid": "u1", "annotations": {}},
            "spec": {},
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
                "nodeInfo": {
                    "architecture": "amd64", "bootID": "0d8f6b8e-1111-2222-3333-444455556666",
                    "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
                    "kubeletVersion": "v1.36.2", "machineID": "", "operatingSystem": "linux", "osImage": "",
                    "systemUUID": "4C4C4544-0042-3510-8052-B4C04F4D4732"
                }
            }
        });
        merge(&mut whole, extra);
        node(whole)
    }

    fn merge(into: &mut serde_json::Value, extra: serde_json::Value) {
        match (into, extra) {
            (serde_json::Value::Object(into), serde_json::Value::Object(extra)) => {
                for (key, value) in extra {
                    merge(into.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, extra) => *into = extra,
        }
    }

    #[test]
    fn a_ready_node_shows_its_machine_and_a_boot_that_differs_from_the_next() {
        let seen = read(&ready(json!({})));
        assert_eq!(seen.report.ready, Some(true));
        assert_eq!(seen.facts.machine, Some(MachineId(0x4C4C_4544_0042_3510_8052_B4C0_4F4D_4732)));
        assert!(!seen.report.foreign_mark && !seen.report.cordoned && !seen.report.claimed);
        let next = read(&ready(json!({"status": {"nodeInfo": {"bootID": "other"}}})));
        assert_ne!(seen.report.boot, next.report.boot);
    }

    #[test]
    fn a_node_that_is_not_ready_or_shows_a_placeholder_is_no_proof_of_its_machine() {
        let unknown = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let seen = read(&ready(unknown));
        assert_eq!((seen.report.ready, seen.facts.machine), (None, None));
        let zero = json!({"status": {"nodeInfo": {"systemUUID": "00000000-0000-0000-0000-000000000000"}}});
        assert_eq!(read(&ready(zero)).facts.machine, None);
        let short = json!({"status": {"nodeInfo": {"systemUUID": "ec2"}}});
        assert_eq!(read(&ready(short)).facts.machine, None);
    }

    #[test]
    fn a_kubelet_that_says_goodbye_is_heard() {
        let condition = json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady",
                               "message": "node is shutting down"});
        assert!(read(&ready(json!({"status": {"conditions": [condition]}}))).report.shutting_down);
    }

    #[test]
    fn our_cordon_is_told_from_a_persons() {
        let field = json!({"f:spec": {"f:unschedulable": {}}});
        let by = |manager: &str| json!([{"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": field}]);
        let ours = json!({"metadata": {"annotations": {CORDON_MARK: "7"}, "managedFields": by(MANAGER)},
                          "spec": {"unschedulable": true}});
        let seen = read(&ready(ours.clone()));
        assert!(seen.report.cordoned && !seen.report.foreign_mark);

        let person = json!({"spec": {"unschedulable": true}, "metadata": {"managedFields": by("kubectl-cordon")}});
        let seen = read(&ready(person)).report;
        assert!(seen.foreign_mark && !seen.claimed, "a cordon is no claim");

        // Lifted by a person and set again by them: our mark alone does not make it ours.
        let mut again = ours;
        again["metadata"]["managedFields"] = by("kubectl-cordon");
        let seen = read(&ready(again));
        assert!(seen.foreign_cordon && seen.report.foreign_mark);
    }

    #[test]
    fn only_the_lasting_taints_are_put_back_after_a_reimage() {
        let taints = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
                            {"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
        let seen = read(&ready(json!({"spec": {"taints": taints}})));
        assert_eq!(seen.facts.taints.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(), ["dedicated"]);
    }
}
