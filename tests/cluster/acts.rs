//! Every act, with exactly the rights that `rackmedic rbac` prints, on the real API.

use crate::world::{Medic, WORKERS, World, target, workers};
use crate::{alone, fake_nodes};
use healing::command::{ClusterCall, Reply};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::{Duration, Instant};

const WORKLOAD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: registry.k8s.io/pause:3.10}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: registry.k8s.io/pause:3.10}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      tolerations: [{operator: Exists}]
      containers: [{name: c, image: registry.k8s.io/pause:3.10}]
---
apiVersion: v1
kind: Pod
metadata: {name: kept, finalizers: [example.org/keep]}
spec: {nodeName: n1, containers: [{name: c, image: registry.k8s.io/pause:3.10}]}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: va-n1}
spec: {attacher: csi.example.org, nodeName: n1, source: {persistentVolumeName: pv1}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: va-n2}
spec: {attacher: csi.example.org, nodeName: n2, source: {persistentVolumeName: pv2}}
"#;

async fn node(world: &World, name: &str) -> Option<Node> {
    Api::<Node>::all(world.admin.clone()).get_opt(name).await.unwrap()
}

fn schedulable(node: &Node) -> bool {
    !node.spec.as_ref().unwrap().unschedulable.unwrap_or(false)
}

/// Where the pod of an app runs, if it is bound.
async fn bound(world: &World, app: &str) -> Option<String> {
    let pods: Api<Pod> = Api::default_namespaced(world.admin.clone());
    let list = pods.list(&kube::api::ListParams::default().labels(&format!("app={app}"))).await.unwrap();
    let alive = list.items.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none())?;
    alive.spec?.node_name
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, within_s: u64, mut ask: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(within_s), "not within {within_s} s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_dead_nodes_workload_is_released_to_other_nodes_and_the_node_comes_back() {
    let Some(programs) = alone("acts::a_dead_nodes_workload_is_released_to_other_nodes_and_the_node_comes_back") else {
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::start(&programs).await;
        let token = world.apply_rights("yaml");
        // Given three nodes, with all of the workload on the first.
        let renewer = workers(&world).await;
        world.plane.kubectl(&["cordon", "n2", "n3"]).unwrap();
        let file = world.plane.folder().join("workload.yaml");
        std::fs::write(&file, WORKLOAD).unwrap();
        world.plane.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
        for app in ["web", "db"] {
            let world = &world;
            until("bound to n1", 60, || async move { bound(world, app).await.filter(|node| node == "n1") }).await;
        }
        let mut medic = Medic::start(&world.one_endpoint(&token), &WORKERS).await;
        medic.until(20, "n1 is Ready", |m| m.evidence(1).assessment.node.is_some_and(|n| n.ready == Some(true))).await;
        medic
            .until(20, "a person's cordon is seen", |m| m.evidence(2).assessment.node.is_some_and(|n| n.foreign_mark))
            .await;
        let n1 = target("n1", 1);
        let began = medic.time.now().elapsed;
        medic.until(20, "n1 renews", |m| m.evidence(1).last_renewal().is_some_and(|at| at >= began)).await;
        let read = medic.call_since(&n1, ClusterCall::ReadNode, began).await;
        assert!(matches!(read, Reply::Node { node: Some(_), lease_renewed: true }), "{read:?}");

        // When its kubelet dies, a look sees a Node and no renewal.
        renewer.kill("n1");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let read = medic.call(&n1, ClusterCall::ReadNode).await;
        assert!(matches!(read, Reply::Node { node: Some(_), lease_renewed: false }), "{read:?}");

        // Cordon: ours, twice as good as once.
        for _ in 0..2 {
            assert_eq!(medic.done(&n1, ClusterCall::Cordon).await, Reply::Ok);
        }
        let seen = node(&world, "n1").await.unwrap();
        assert!(!schedulable(&seen) && rackmedic::cluster::node::our_cordon(&seen));
        medic
            .until(10, "our cordon is no foreign mark", |m| {
                m.evidence(1).assessment.node.is_some_and(|n| n.cordoned && !n.foreign_mark)
            })
            .await;

        // Release: taint, pods, volumes.
        world.plane.kubectl(&["uncordon", "n2", "n3"]).unwrap();
        medic.clusters.get(crate::world::CLUSTER).unwrap().trouble.set(["n1".to_owned()]);
        let held = |m: &mut Medic| m.clusters.get(crate::world::CLUSTER).unwrap().trouble.held("n1");
        medic
            .until(10, "what holds on to n1 is seen", |m| {
                held(m).is_some_and(|held| held.pods.len() == 3 && held.attachments.len() == 1)
            })
            .await;
        assert_eq!(medic.call(&n1, ClusterCall::ReadLeftovers).await, Reply::Leftovers { pods: 3, attachments: 1 });
        let release = Instant::now();
        for _ in 0..2 {
            assert_eq!(medic.done(&n1, ClusterCall::PutTaint).await, Reply::Ok);
        }
        let taints = node(&world, "n1").await.unwrap().spec.unwrap().taints.unwrap();
        let ours: Vec<_> = taints.iter().filter(|t| rackmedic::cluster::node::our_taint(t)).collect();
        assert_eq!((ours.len(), ours[0].value.as_deref()), (1, Some("rackmedic-7")));
        for _ in 0..2 {
            assert_eq!(medic.done(&n1, ClusterCall::DeletePods).await, Reply::Ok);
            assert_eq!(medic.done(&n1, ClusterCall::DeleteVolumeAttachments).await, Reply::Ok);
        }
        for app in ["web", "db"] {
            let world = &world;
            let to =
                until("bound elsewhere", 30, || async move { bound(world, app).await.filter(|node| node != "n1") })
                    .await;
            eprintln!("{app}: bound to {to} after {:.2} s", release.elapsed().as_secs_f64());
        }
        // A finalizer is respected: that pod stays until its owner lets go. Other nodes' volumes are not touched.
        assert_eq!(medic.call(&n1, ClusterCall::ReadLeftovers).await, Reply::Leftovers { pods: 1, attachments: 0 });
        let attachments: Api<VolumeAttachment> = Api::all(world.admin.clone());
        assert!(attachments.get_opt("va-n2").await.unwrap().is_some());
        world
            .plane
            .kubectl(&["patch", "pod", "kept", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#])
            .unwrap();
        until("nothing left", 10, || async {
            let left = medic.call(&n1, ClusterCall::ReadLeftovers).await;
            (left == Reply::Leftovers { pods: 0, attachments: 0 }).then_some(())
        })
        .await;
        medic
            .until(10, "nothing holds on to n1", |m| {
                held(m).is_some_and(|held| held.pods.is_empty() && held.attachments.is_empty())
            })
            .await;
        // The node's own DaemonSet pod was left alone.
        let pods: Api<Pod> = Api::default_namespaced(world.admin.clone());
        let own =
            pods.list(&kube::api::ListParams::default().labels("app=agent").fields("spec.nodeName=n1")).await.unwrap();
        assert_eq!(own.items.len(), 1);

        // The taint goes, and goes again; it comes back Ready with another boot, and a canary is made for it.
        for _ in 0..2 {
            assert_eq!(medic.done(&n1, ClusterCall::RemoveTaint).await, Reply::Ok);
        }
        let taints = node(&world, "n1").await.unwrap().spec.unwrap().taints.unwrap_or_default();
        assert!(!taints.iter().any(|t| t.key == "node.kubernetes.io/out-of-service"));
        let before = medic.evidence(1).assessment.node.unwrap().boot;
        fake_nodes::status(&world.admin, "n1", 1, "boot-1-2", "True").await;
        medic
            .until(10, "another boot is seen", |m| m.evidence(1).assessment.node.is_some_and(|n| n.boot != before))
            .await;
        canary(&world, &medic).await;

        // Uncordon: ours goes, and only once.
        for _ in 0..2 {
            assert_eq!(medic.done(&n1, ClusterCall::Uncordon).await, Reply::Ok);
        }
        let seen = node(&world, "n1").await.unwrap();
        assert!(schedulable(&seen));
        assert!(!seen.metadata.annotations.unwrap_or_default().contains_key("rackmedic.io/cordon"));
        eprintln!("{}", medic.clusters.metrics());
    });
}

/// A canary is created under the namespace's restricted Pod security, read, and deleted. There is no kubelet here that would
/// run it: the test writes the status that one writes.
async fn canary(world: &World, medic: &Medic) {
    let n1 = target("n1", 1);
    for _ in 0..2 {
        assert_eq!(medic.done(&n1, ClusterCall::CreateCanary).await, Reply::Ok);
    }
    assert_eq!(medic.call(&n1, ClusterCall::ReadCanary).await, Reply::Flag(false));
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "rackmedic");
    let made = pods.list(&kube::api::ListParams::default()).await.unwrap().items;
    assert_eq!(made.len(), 1);
    let spec = made[0].spec.as_ref().unwrap();
    assert_eq!(spec.node_name.as_deref(), Some("n1"));
    assert_eq!(spec.containers[0].image.as_deref(), Some("registry.k8s.io/pause:3.10"));
    let running = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "canary", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
    let name = made[0].metadata.name.as_deref().unwrap();
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
    assert_eq!(medic.call(&n1, ClusterCall::ReadCanary).await, Reply::Flag(true));
    // What one of an attempt before has to say, Running or Failed, says nothing of the next attempt.
    assert_eq!(medic.done(&n1, ClusterCall::CreateCanary).await, Reply::Ok);
    assert_eq!(medic.call(&n1, ClusterCall::ReadCanary).await, Reply::Flag(false));
    for _ in 0..2 {
        assert_eq!(medic.done(&n1, ClusterCall::DeleteCanary).await, Reply::Ok);
    }
    assert_eq!(medic.call(&n1, ClusterCall::ReadCanary).await, Reply::Flag(false));
}

#[test]
fn what_people_do_is_never_overwritten_and_a_node_is_renewed_under_its_name() {
    let Some(programs) = alone("acts::what_people_do_is_never_overwritten_and_a_node_is_renewed_under_its_name") else {
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::start(&programs).await;
        let token = world.apply_rights("json");
        let renewer = workers(&world).await;
        let mut medic = Medic::start(&world.one_endpoint(&token), &WORKERS).await;
        medic.until(20, "n1 is Ready", |m| m.evidence(1).assessment.node.is_some_and(|n| n.ready == Some(true))).await;
        let (n1, n2) = (target("n1", 1), target("n2", 2));

        // A person's cordon stays theirs: ours adds nothing, and lifting ours lifts nothing.
        world.plane.kubectl(&["cordon", "n2"]).unwrap();
        assert_eq!(medic.done(&n2, ClusterCall::Cordon).await, Reply::Ok);
        assert_eq!(medic.done(&n2, ClusterCall::Uncordon).await, Reply::Ok);
        assert!(!schedulable(&node(&world, "n2").await.unwrap()));

        // Ours, lifted by a person and set again by them, is theirs.
        assert_eq!(medic.done(&n1, ClusterCall::Cordon).await, Reply::Ok);
        world.plane.kubectl(&["uncordon", "n1"]).unwrap();
        world.plane.kubectl(&["cordon", "n1"]).unwrap();
        medic
            .until(10, "a person's cordon over our mark is a foreign mark", |m| {
                m.evidence(1).assessment.node.is_some_and(|n| n.cordoned && n.foreign_mark)
            })
            .await;
        assert_eq!(medic.done(&n1, ClusterCall::Uncordon).await, Reply::Ok);
        assert!(!schedulable(&node(&world, "n1").await.unwrap()));
        world.plane.kubectl(&["uncordon", "n1", "n2"]).unwrap();

        // A person's out-of-service taint is neither replaced nor removed, and is a mark.
        world
            .plane
            .kubectl(&["taint", "node", "n1", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"])
            .unwrap();
        assert_eq!(medic.done(&n1, ClusterCall::PutTaint).await, Reply::Ok);
        assert_eq!(medic.done(&n1, ClusterCall::RemoveTaint).await, Reply::Ok);
        let taints = node(&world, "n1").await.unwrap().spec.unwrap().taints.unwrap();
        assert!(taints.iter().any(|t| t.value.as_deref() == Some("nodeshutdown")));
        world.plane.kubectl(&["taint", "node", "n1", "node.kubernetes.io/out-of-service-"]).unwrap();

        // Many writers at once: each of ours either gets through on what it read or not at all, and nobody's work is lost.
        let nodes: Api<Node> = Api::all(world.admin.clone());
        let person = async {
            for count in 0..60 {
                let patch = json!({"metadata": {"labels": {format!("person-{count}"): "x"}}});
                nodes.patch("n1", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            }
        };
        let ours = async {
            let mut silent = 0;
            for round in 0..20 {
                let call = if round % 2 == 0 { ClusterCall::PutTaint } else { ClusterCall::RemoveTaint };
                while medic.call(&n1, call).await == Reply::ApiSilent {
                    silent += 1;
                }
            }
            silent
        };
        let ((), conflicts) = tokio::join!(person, ours);
        let labels = node(&world, "n1").await.unwrap().metadata.labels.unwrap();
        assert_eq!(labels.keys().filter(|label| label.starts_with("person-")).count(), 60);
        eprintln!("20 writes of ours beside 60 of a person: {conflicts} met a change and were read anew");

        // The old identity goes with its Lease; a new Node of that name has its labels again.
        renewer.kill("n1");
        for _ in 0..2 {
            assert_eq!(medic.done(&n1, ClusterCall::DeleteNode).await, Reply::Ok);
        }
        assert!(node(&world, "n1").await.is_none());
        let leases: Api<Lease> = Api::namespaced(world.admin.clone(), "kube-node-lease");
        assert!(leases.get_opt("n1").await.unwrap().is_none());
        medic.until(10, "there is no Node", |m| m.evidence(1).assessment.node.is_none()).await;
        let read = medic.call(&n1, ClusterCall::ReadNode).await;
        assert_eq!(read, Reply::Node { node: None, lease_renewed: false });
        assert_eq!(medic.done(&n1, ClusterCall::PutTaint).await, Reply::Ok);
        assert_eq!(medic.done(&n1, ClusterCall::RestoreLabels).await, Reply::ApiRefused);
        assert_eq!(medic.call(&n1, ClusterCall::RemoveEtcdMember(1)).await, Reply::ApiRefused);
        let bare = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}});
        nodes.create(&Default::default(), &serde_json::from_value(bare).unwrap()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(medic.done(&n1, ClusterCall::RestoreLabels).await, Reply::Ok);
        }
        let labels = node(&world, "n1").await.unwrap().metadata.labels.unwrap();
        assert_eq!(labels.get("pool").map(String::as_str), Some("blue"));
        // It is a new Node, Ready, of another boot: it came back, and is not deleted.
        fake_nodes::status(&world.admin, "n1", 1, "boot-1-9", "True").await;
        let old =
            healing::command::Target { boot_before: Some(rackmedic::cluster::node::boot("boot-1-1")), ..n1.clone() };
        assert_eq!(medic.done(&old, ClusterCall::DeleteNode).await, Reply::ApiRefused);
        assert!(node(&world, "n1").await.is_some());

        rights(&world, &token);
    });
}

/// What is not ours is refused: asked of the API with our own token.
fn rights(world: &World, token: &std::path::Path) {
    let token = std::fs::read_to_string(token).unwrap();
    let (server, authority) = (format!("--server={}", world.api()), world.plane.authority());
    let ask = |arguments: &[&str]| {
        let output = world
            .plane
            .programs()
            .command("kubectl")
            .args([&server, &format!("--token={token}"), &format!("--certificate-authority={}", authority.display())])
            .args(["--kubeconfig=/dev/null"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for refused in [
        &["get", "secrets", "-A"][..],
        &["get", "secrets", "-n", "kube-system"],
        &["get", "secrets", "-n", "rackmedic"],
        &["get", "secret", "rackmedic-token", "-n", "rackmedic"],
        &["get", "configmaps", "-n", "kube-system"],
        &["create", "namespace", "mine"],
        &["create", "configmap", "x", "-n", "default"],
        &["run", "x", "--image=x", "-n", "default"],
        &["delete", "deployment", "web"],
        &["create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=x"],
        &["create", "token", "rackmedic", "-n", "rackmedic"],
        &["get", "--raw", "/metrics"],
    ] {
        let (done, said) = ask(refused);
        assert!(!done && said.contains("orbidden"), "{refused:?}: {said}");
    }
    let csr = "certificatesigningrequests.certificates.k8s.io";
    for granted in [
        &["get", "nodes"][..],
        &[
            "create",
            "secret",
            "generic",
            "bootstrap-token-abcdef",
            "-n",
            "kube-system",
            "--type=bootstrap.kubernetes.io/token",
        ],
        &["delete", "secret", "bootstrap-token-abcdef", "-n", "kube-system", "--wait=false"],
        &["get", csr],
    ] {
        let (done, said) = ask(granted);
        assert!(done, "{granted:?}: {said}");
    }
    // Whether a certificate may be approved is asked of the API itself, for the signer that is ours and one that is not.
    let may = |attributes: serde_json::Value| {
        let file = world.plane.folder().join("review.json");
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                            "spec": {"resourceAttributes": attributes}});
        std::fs::write(&file, review.to_string()).unwrap();
        let output = world
            .plane
            .programs()
            .command("kubectl")
            .args([&server, &format!("--token={token}"), &format!("--certificate-authority={}", authority.display())])
            .args(["--kubeconfig=/dev/null", "create", "--validate=false", "-o", "jsonpath={.status.allowed}", "-f"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout == b"true"
    };
    let signer =
        |name: &str| json!({"group": "certificates.k8s.io", "resource": "signers", "verb": "approve", "name": name});
    assert!(may(signer("kubernetes.io/kubelet-serving")));
    assert!(!may(signer("kubernetes.io/kube-apiserver-client")), "certificates of clients are not ours to give");
    let approval = json!({"group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                          "subresource": "approval", "verb": "update"});
    assert!(may(approval));
}
