//! The emulated Kubernetes API before real clients: the kube crate's client and watcher, and kubectl where it is installed.
#![cfg(feature = "lab")]
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use machine::Fault;
use rackmedic::demo::folder::Folder;
use rackmedic::demo::world::World;
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Up {
    world: World,
    folder: Folder,
    client: Client,
    stop: CancellationToken,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn up() -> Up {
    let folder = Folder::temporary().unwrap();
    let stop = CancellationToken::new();
    let world = World::start(6, 0, folder.path(), stop.clone()).await.unwrap();
    let file = Kubeconfig::read_from(&world.handover.kubeconfig).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    // What the server answers is what is tested: by itself the client asks again after a 429, 503 or 504.
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let up = Up { world, folder, client, stop };
    let pods: Api<Pod> = Api::all(up.client.clone());
    until("all pods run", || async {
        let pods = pods.list(&ListParams::default()).await.unwrap();
        let runs = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        pods.items.len() == 9 && pods.iter().all(runs)
    })
    .await;
    up
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "not within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kube_client_reads_writes_and_is_refused_as_by_a_real_server() {
    let up = up().await;
    let nodes: Api<Node> = Api::all(up.client.clone());
    assert_eq!(nodes.list(&ListParams::default().limit(4)).await.unwrap().items.len(), 4);
    let workers = ListParams::default().labels("!node-role.kubernetes.io/control-plane");
    assert_eq!(nodes.list(&workers).await.unwrap().items.len(), 3);
    let before = nodes.get("node-1").await.unwrap();
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    let after = nodes.patch("node-1", &PatchParams::default(), &cordon).await.unwrap();
    assert!(after.spec.unwrap().unschedulable.unwrap() && after.status == before.status);
    let stale =
        json!({"metadata": {"resourceVersion": before.metadata.resource_version}, "spec": {"unschedulable": false}});
    let refused = nodes.patch("node-1", &PatchParams::default(), &Patch::Merge(stale)).await.unwrap_err();
    assert_eq!(code(&refused), 409);
    assert_eq!(code(&nodes.get("node-99").await.unwrap_err()), 404);
    let secrets: Api<Secret> = Api::namespaced(up.client.clone(), "kube-system");
    let token: Secret = serde_json::from_value(json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": {"x": "y"},
    }))
    .unwrap();
    secrets.create(&PostParams::default(), &token).await.unwrap();
    assert_eq!(code(&secrets.create(&PostParams::default(), &token).await.unwrap_err()), 409);
    secrets.delete("bootstrap-token-abcdef", &DeleteParams::default()).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(up.client.clone(), "shop");
    pods.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=web")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_brings_each_renewal_once_and_goes_on_after_it_ended() {
    let up = up().await;
    let leases: Api<Lease> = Api::namespaced(up.client.clone(), "kube-node-lease");
    // The server ends each watch after 3 s; the watcher goes on from its last version.
    let mut stream = watcher(leases, watcher::Config::default().timeout(3)).boxed();
    let (mut listed, mut renewed, mut lists) = (0, std::collections::BTreeMap::<String, u32>::new(), 0);
    let end = tokio::time::Instant::now() + Duration::from_secs(25);
    while let Ok(Some(event)) = tokio::time::timeout_at(end, stream.next()).await {
        match event.unwrap() {
            Event::Init => lists += 1,
            Event::InitApply(_) => listed += 1,
            Event::Apply(lease) => *renewed.entry(lease.metadata.name.unwrap()).or_insert(0) += 1,
            Event::InitDone | Event::Delete(_) => {}
        }
    }
    assert_eq!((listed, lists), (6, 1), "listed once, then watched on");
    assert_eq!(renewed.len(), 6);
    // Each 10 s, later on a machine that is busy with something else; a second telling of the same one would be a fourth.
    assert!(renewed.values().all(|count| (1..=3).contains(count)), "each 10 s: {renewed:?}");
    assert!(renewed.values().sum::<u32>() > 6, "it went on after the first watches had ended: {renewed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_pod_stays_on_a_silent_node_until_it_is_deleted_by_force() {
    let up = up().await;
    let pods: Api<Pod> = Api::namespaced(up.client.clone(), "shop");
    let home = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = home(&pods.get("db-0").await.unwrap()).unwrap();
    let uid = pods.get("db-0").await.unwrap().metadata.uid;
    up.world.rack.host(&node).unwrap().inject(Fault::KernelStuck);
    pods.delete("db-0", &DeleteParams::default()).await.unwrap();
    // That nothing happens can only be watched for a while: in a living host the kubelet would have ended it by then.
    let end = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < end {
        let held = pods.get("db-0").await.unwrap();
        let waits = held.metadata.deletion_timestamp.is_some() && held.metadata.uid == uid;
        assert!(waits, "no kubelet is there to end it");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    pods.delete("db-0", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    until("another db-0", || async { pods.get("db-0").await.is_ok_and(|pod| pod.metadata.uid != uid) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_control_plane_host_less_is_no_loss_and_two_less_is_the_end_of_the_quorum() {
    let up = up().await;
    let nodes: Api<Node> = Api::all(up.client.clone());
    up.world.rack.host("cp-1").unwrap().inject(Fault::KernelStuck);
    nodes.list(&ListParams::default()).await.unwrap();
    up.world.rack.host("cp-2").unwrap().inject(Fault::KernelStuck);
    let asked = tokio::time::timeout(Duration::from_secs(10), nodes.list(&ListParams::default())).await;
    assert_eq!(code(&asked.expect("it answers").unwrap_err()), 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_lists_cordons_and_deletes() {
    let up = up().await;
    let found = std::process::Command::new("kubectl").arg("version").arg("--client").output();
    if found.is_err() {
        eprintln!("kubectl is not installed: its part is left to a machine that has it");
        return;
    }
    let config = up.world.handover.kubeconfig.clone();
    let cache = up.folder.path().join("kubectl-cache");
    let kubectl = async |words: &[&str]| {
        let mut command = tokio::process::Command::new("kubectl");
        command.arg("--kubeconfig").arg(&config).arg("--cache-dir").arg(&cache).args(words);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let nodes = kubectl(&["get", "nodes", "-o", "name"]).await;
    assert_eq!(nodes.lines().count(), 6, "{nodes}");
    kubectl(&["cordon", "node-2"]).await;
    let cordoned = kubectl(&["get", "node", "node-2", "-o", "jsonpath={.spec.unschedulable}"]).await;
    assert_eq!(cordoned, "true");
    kubectl(&["uncordon", "node-2"]).await;
    kubectl(&["-n", "shop", "delete", "pod", "db-1", "--force", "--grace-period=0", "--wait=false"]).await;
    kubectl(&["wait", "-n", "shop", "--for=condition=Ready", "pod/db-0", "--timeout=30s"]).await;
    let described = kubectl(&["describe", "node", "node-1"]).await;
    assert!(described.contains("KubeletReady"), "{described}");
}
