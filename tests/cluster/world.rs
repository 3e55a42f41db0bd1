//! A real control plane, fake nodes, and the cluster client in front of them with exactly the rights that `rackmedic rbac`
//! prints.

use crate::fake_nodes::Renewer;
use healing::command::{ClusterCall, Intent, Reply, Target};
use healing::evidence::{Evidence, fold};
use healing::id::{ClusterId, HostId, IncidentId, MachineId};
use healing::policy::Limits;
use healing::sight::ClusterSight;
use healing::signal::Signal;
use healing::time::Elapsed;
use rack::kubernetes::{ControlPlane, Programs};
use rackmedic::cluster::node::NodeFacts;
use rackmedic::cluster::{ClusterAsked, ClusterConfig, Clusters, Joining, NameTable, Rejoin, Replying, Surroundings};
use rackmedic::decide_loop::{RunningTime, Signals, SystemClock};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The cluster's number.
pub(crate) const CLUSTER: ClusterId = ClusterId(1);

/// No distribution: credentials are another test's matter. What the register holds is put back.
#[derive(Debug)]
pub(crate) struct NoJoins(pub(crate) Arc<NameTable>);

impl Rejoin for NoJoins {
    fn answer<'a>(&'a self, _: kube::Client, _: Joining<'a>, _: ClusterCall) -> Replying<'a> {
        Box::pin(async { None })
    }
    fn recorded(&self, host: HostId) -> Option<NodeFacts> {
        self.0.facts(host)
    }
}

/// The control plane.
pub(crate) struct World {
    pub(crate) plane: ControlPlane,
    pub(crate) admin: kube::Client,
}

impl World {
    pub(crate) async fn start(programs: &Programs) -> World {
        let plane = ControlPlane::start(programs).unwrap();
        let config = format!(
            "id = 1\nname = 'admin'\nkubeconfig = '{}'\n[[control_plane]]\nnode = 'cp1'\napi = 'https://{}'\n",
            plane.kubeconfig().display(),
            plane.endpoint()
        );
        let config: ClusterConfig = toml::from_str(&config).unwrap();
        let access = rackmedic::cluster::client::Access::read(&config).await.unwrap();
        let admin = access.client(&format!("https://{}", plane.endpoint())).unwrap();
        World { plane, admin }
    }

    pub(crate) fn api(&self) -> String {
        format!("https://{}", self.plane.endpoint())
    }

    /// Applies what `rackmedic rbac` prints and gives a file with a token of its ServiceAccount.
    pub(crate) fn apply_rights(&self, output: &str) -> PathBuf {
        let printed =
            std::process::Command::new(rackmedic_program()).args(["rbac", "--output", output]).output().unwrap();
        assert!(printed.status.success());
        let file = self.plane.folder().join(format!("rights.{output}"));
        std::fs::write(&file, printed.stdout).unwrap();
        self.plane.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
        self.token(&["--duration=1h"])
    }

    /// A file with a new token of our ServiceAccount.
    pub(crate) fn token(&self, more: &[&str]) -> PathBuf {
        let file = self.plane.folder().join("token");
        let arguments = [&["create", "token", "rackmedic", "-n", "rackmedic"], more].concat();
        let token = self.plane.kubectl(&arguments).unwrap();
        std::fs::write(&file, token.trim()).unwrap();
        file
    }

    /// A configuration with our own rights. `more` is TOML behind the top-level keys.
    pub(crate) fn config(&self, token: &std::path::Path, top: &str, more: &str) -> ClusterConfig {
        let text = format!(
            "id = {}\nname = 'prod'\nca_file = '{}'\ntoken_file = '{}'\n{top}\n{more}",
            CLUSTER.0,
            self.plane.authority().display(),
            token.display()
        );
        toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    pub(crate) fn one_endpoint(&self, token: &std::path::Path) -> ClusterConfig {
        self.config(token, "", &format!("[[control_plane]]\nnode = 'cp1'\napi = '{}'\n", self.api()))
    }
}

/// The program that the suite built.
fn rackmedic_program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().map(|folder| folder.join("rackmedic")).find(|path| path.is_file());
    found.expect("the binary `rackmedic` is built beside the tests: cargo build -p rackmedic")
}

/// The cluster client, and what it said.
pub(crate) struct Medic {
    pub(crate) clusters: Clusters,
    pub(crate) register: Arc<NameTable>,
    pub(crate) signals: Signals,
    pub(crate) time: RunningTime,
    pub(crate) stop: CancellationToken,
    evidence: HashMap<HostId, Evidence>,
    sight: Option<ClusterSight>,
    /// Every signal since the last look, by host.
    pub(crate) heard: Vec<(HostId, Signal)>,
}

impl Medic {
    pub(crate) async fn start(config: &ClusterConfig, hosts: &[(&str, u32)]) -> Medic {
        let register = Arc::new(NameTable::default());
        let names: BTreeMap<String, HostId> =
            hosts.iter().map(|(name, id)| ((*name).to_owned(), HostId(*id))).collect();
        register.set(CLUSTER, names);
        let time = RunningTime::resume(Arc::new(SystemClock::new()), Elapsed(0));
        let (signals, stop) = (Signals::new(), CancellationToken::new());
        let around = Surroundings {
            registry: Arc::clone(&register) as Arc<_>,
            signals: signals.clone(),
            time: time.clone(),
            rejoin: Arc::new(NoJoins(Arc::clone(&register))),
            stop: stop.clone(),
        };
        let clusters = Clusters::start(std::slice::from_ref(config), &around, &TaskTracker::new()).await.unwrap();
        Medic { clusters, register, signals, time, stop, evidence: HashMap::new(), sight: None, heard: Vec::new() }
    }

    /// Takes what was said since.
    pub(crate) fn look(&mut self) {
        let (limits, now) = (Limits::default(), self.time.now());
        let (evidence, heard) = (&mut self.evidence, &mut self.heard);
        self.signals.drain(|host, all| {
            for signal in all {
                heard.push((host, signal));
                fold(evidence.entry(host).or_default(), &signal, &limits, now);
            }
        });
        if let Some(sight) = self.signals.take_clusters().remove(&CLUSTER) {
            self.sight = Some(sight);
        }
    }

    /// Waits until something holds of what was said.
    pub(crate) async fn until(
        &mut self,
        within_s: u64,
        what: &str,
        mut holds: impl FnMut(&mut Medic) -> bool,
    ) -> Duration {
        let began = Instant::now();
        loop {
            self.look();
            if holds(self) {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < Duration::from_secs(within_s),
                "not within {within_s} s: {what}\nsight: {:?}\nevidence: {:?}\n{}",
                self.sight,
                self.evidence.iter().map(|(host, e)| (host, e.assessment.node, e.assessment.lease)).collect::<Vec<_>>(),
                self.clusters.metrics()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn evidence(&self, host: u32) -> Evidence {
        self.evidence.get(&HostId(host)).cloned().unwrap_or_default()
    }

    pub(crate) fn sight(&self) -> ClusterSight {
        self.sight.clone().unwrap_or_default()
    }

    /// How long ago the watch brought a renewal of this host.
    pub(crate) fn lease_age_ms(&self, host: u32) -> Option<u64> {
        self.evidence(host).lease_age(self.time.now())
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let text = self.clusters.metrics();
        let line = text.lines().find(|line| line.starts_with(&format!("rackmedic_cluster_{name}"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Makes one call, as a step that begins now.
    pub(crate) async fn call(&self, target: &Target, call: ClusterCall) -> Reply {
        self.call_since(target, call, self.time.now().elapsed).await
    }

    /// Makes one call as the step machine does: what did not get through, for a conflict with somebody's change, is asked again.
    pub(crate) async fn done(&self, target: &Target, call: ClusterCall) -> Reply {
        let began = Instant::now();
        loop {
            let reply = self.call(target, call).await;
            if reply != Reply::ApiSilent || began.elapsed() > Duration::from_secs(30) {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn call_since(&self, target: &Target, call: ClusterCall, began: Elapsed) -> Reply {
        let asked =
            ClusterAsked { call, target, incident: IncidentId(7), intent: Intent::Cordon, began, may_leave: &|| true };
        self.clusters.call(&asked).await.unwrap()
    }
}

impl Drop for Medic {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A step's target.
pub(crate) fn target(name: &str, id: u32) -> Target {
    Target {
        host: HostId(id),
        name: name.to_owned(),
        cluster: Some(CLUSTER),
        machine: MachineId(1),
        linked: true,
        found_off: false,
        network: healing::assess::NetworkState::Silent,
        outlets_off: false,
        on_left: None,
        boot_before: None,
        disk: None,
        spare_machine: None,
        effect_ms: 60_000,
        off_gap_ms: 2_000,
        found_off_gap_ms: 10_000,
        release_ms: 120_000,
        last_look_ms: 3_000,
        action_spacing_ms: 1_000,
    }
}

/// Three workers that live, each with its Lease renewed every two seconds.
pub(crate) async fn workers(world: &World) -> Renewer {
    let names: Vec<String> = (1..=3).map(|n| format!("n{n}")).collect();
    for (name, number) in names.iter().zip(1..) {
        crate::fake_nodes::create(&world.admin, name, number, serde_json::json!({"pool": "blue"})).await;
    }
    Renewer::start(world.admin.clone(), &names, Duration::from_secs(2))
}

/// The hosts of [`workers`].
pub(crate) const WORKERS: [(&str, u32); 3] = [("n1", 1), ("n2", 2), ("n3", 3)];
