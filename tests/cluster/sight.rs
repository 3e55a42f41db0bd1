//! What is seen of a cluster as a whole: storage, others' doings, machines, by resources as their owners write them.

use crate::world::{CLUSTER, Medic, World};
use crate::{alone, fake_nodes};
use healing::id::{HostId, MachineId, StorageId};
use serde_json::json;
use std::time::Duration;

/// Custom resources as far as we read them: the real API serves them, their operators are not here.
const RESOURCES: [(&str, &str, &str, &str); 4] = [
    ("ceph.rook.io", "v1", "cephclusters", "CephCluster"),
    ("longhorn.io", "v1beta2", "volumes", "Volume"),
    ("longhorn.io", "v1beta2", "replicas", "Replica"),
    ("cluster.x-k8s.io", "v1beta1", "machines", "Machine"),
];

fn apply(world: &World, name: &str, object: &serde_json::Value) {
    let file = world.plane.folder().join(format!("{name}.json"));
    std::fs::write(&file, object.to_string()).unwrap();
    world.plane.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
}

fn define(world: &World) {
    for (group, version, plural, kind) in RESOURCES {
        apply(
            world,
            plural,
            &json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.{group}"), "annotations": {
                    "api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/78458"}},
                "spec": {"group": group, "scope": "Namespaced",
                    "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
                    "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
            }),
        );
        world
            .plane
            .kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &format!("crd/{plural}.{group}")])
            .unwrap();
    }
}

#[test]
fn storage_machines_and_others_work_on_the_control_plane_are_seen() {
    let Some(programs) = alone("sight::storage_machines_and_others_work_on_the_control_plane_are_seen") else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::start(&programs).await;
        let token = world.apply_rights("yaml");
        let plane = json!({"node-role.kubernetes.io/control-plane": ""});
        for (name, number) in [("cp1", 1), ("cp2", 2)] {
            fake_nodes::create(&world.admin, name, number, plane.clone()).await;
        }
        fake_nodes::create(&world.admin, "n3", 3, json!({})).await;
        let names: Vec<String> = ["cp1", "cp2", "n3"].iter().map(ToString::to_string).collect();
        let _renewer = fake_nodes::Renewer::start(world.admin.clone(), &names, Duration::from_secs(2));
        let more = format!(
            "[[control_plane]]\nnode = 'cp1'\napi = '{}'\netcd = 'https://127.0.0.1:2379'\n\
             [[storage]]\nid = 1\nkind = 'rook'\nnamespace = 'default'\n\
             [[storage]]\nid = 2\nkind = 'longhorn'\nnamespace = 'default'\n",
            world.api()
        );
        let mut medic = Medic::start(&world.config(&token, "", &more), &[("cp1", 1), ("cp2", 2), ("n3", 3)]).await;
        medic.until(20, "nodes are seen", |m| m.evidence(3).assessment.node.is_some()).await;

        // Without their kinds nothing is said, and nothing else suffers.
        medic.until(20, "the API is seen", |m| m.sight().api.watch_live_since.is_some()).await;
        assert_eq!((medic.sight().storage.len(), medic.sight().etcd), (0, None));
        // Machines by their Node, while Ready.
        let uuid = 0x7ac4_0000_0b0c_4d00_8e00_0000_0000_0003;
        assert_eq!(medic.register.machine(HostId(3)), Some(MachineId(uuid)));
        // Without certificates for etcd, its member is seen through the API server beside it.
        let etcd = healing::signal::Source::EtcdMember;
        medic
            .until(20, "cp1's etcd member is seen", |m| {
                m.evidence(1).slot(etcd).while_seen(healing::signal::Seen::Answer).is_some()
            })
            .await;

        define(&world);
        let ceph = |health: &str, details: serde_json::Value| {
            json!({"apiVersion": "ceph.rook.io/v1", "kind": "CephCluster", "metadata": {"name": "c", "namespace": "default"},
                   "status": {"ceph": {"health": health, "details": details}}})
        };
        let volume = |robustness: &str| {
            json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Volume", "metadata": {"name": "v", "namespace": "default"},
                   "status": {"robustness": robustness}})
        };
        apply(&world, "ceph", &ceph("HEALTH_OK", json!({})));
        apply(&world, "volume", &volume("healthy"));
        let full = |m: &mut Medic| {
            let storage = m.sight().storage;
            storage.len() == 2 && storage.iter().all(|report| report.reduced_since.is_none())
        };
        medic.until(40, "both are full", full).await;
        apply(&world, "ceph", &ceph("HEALTH_WARN", json!({"PG_DEGRADED": {"severity": "HEALTH_WARN"}})));
        apply(&world, "volume", &volume("degraded"));
        let replica = json!({"apiVersion": "longhorn.io/v1beta2", "kind": "Replica",
            "metadata": {"name": "r", "namespace": "default"},
            "spec": {"volumeName": "v", "nodeID": "n3", "failedAt": "2026-01-01T00:00:00Z"}});
        apply(&world, "replica", &replica);
        medic.until(40, "both are reduced, Longhorn by n3", |m| {
            let storage = m.sight().storage;
            let of = |id| storage.iter().find(|report| report.system == StorageId(id));
            of(1).is_some_and(|report| report.reduced_since.is_some())
                && of(2).is_some_and(|report| report.reduced_since.is_some() && report.reduced_by == Some(HostId(3)))
        })
        .await;

        // Others at work: a Machine that goes, a cordon on the control plane, kured's lock.
        assert!(medic.sight().foreign_actions.is_empty());
        let machine = json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Machine",
            "metadata": {"name": "m1", "namespace": "default", "finalizers": ["example.org/keep"]},
            "status": {"nodeRef": {"name": "cp1"}}});
        apply(&world, "machine", &machine);
        world.plane.kubectl(&["delete", "machine", "m1", "--wait=false"]).unwrap();
        medic.until(40, "the deletion of cp1's Machine is seen", |m| {
            m.sight().foreign_actions.iter().any(|action| action.host == HostId(1))
                && m.evidence(1).assessment.node.is_some_and(|node| node.foreign_mark)
        })
        .await;
        world.plane.kubectl(&["cordon", "cp2"]).unwrap();
        medic.until(20, "a person's cordon of cp2 is seen", |m| {
            m.sight().foreign_actions.iter().any(|action| action.host == HostId(2))
        })
        .await;
        // A right that is missing hides one kind and no other, and what was read of that one stands.
        let role = world.plane.kubectl(&["get", "clusterrole", "rackmedic", "-o", "json"]).unwrap();
        let role: serde_json::Value = serde_json::from_str(&role).unwrap();
        let mut rules = role["rules"].as_array().unwrap().clone();
        rules.retain(|rule| rule["apiGroups"] != json!(["cluster.x-k8s.io"]));
        let less = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "rackmedic"}, "rules": rules});
        apply(&world, "role", &less);
        let failed = r#"foreign_reads_total{cluster="prod",kind="Machine.cluster.x-k8s.io",result="failed"}"#;
        medic.until(40, "Machines are read no more", |m| m.counter(failed) > 0).await;
        let kured = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "kured", "namespace": "kube-system",
                "annotations": {"weave.works/kured-node-lock": "{\"nodeID\":\"n3\"}"}},
            "spec": {"selector": {"matchLabels": {"name": "kured"}}, "template": {"metadata": {"labels": {"name": "kured"}},
                "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
        apply(&world, "kured", &kured);
        medic.until(40, "kured's lock is n3's mark", |m| m.evidence(3).assessment.node.is_some_and(|n| n.foreign_mark)).await;
        assert!(medic.evidence(1).assessment.node.is_some_and(|n| n.foreign_mark), "cp1's Machine is still going");
        let cluster = medic.clusters.get(CLUSTER).unwrap();
        assert!(!cluster.etcd_access);
    });
}
