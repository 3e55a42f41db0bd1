//! The real server on the rack: the decision loop with its journal, the step driver, the cluster watchers, the BMC clients.

mod bmcs;
mod register;
mod sight;

use super::cable::Cable;
use super::handover::{HandedRole, Handover};
use crate::act::{Asked, Driver, Ports};
use crate::cluster::node::NodeFacts;
use crate::cluster::{
    ClusterAsked, ClusterConfig, ClusterError, Clusters, Joining, NameTable, Rejoin, Replying, Surroundings,
};
use crate::decide_loop::{Handle, Inbox, Order, RunningTime, Setup, SystemClock, start as start_loop};
use crate::store::JournalError;
use crate::store::secret::OuterKey;
use crate::store::sqlite::SqliteJournal;
use crate::watch::network::NetworkWatch;
use crate::watch::target::BadRoster;
use crate::watch::wire::WireError;
use bmc::redfish::Fingerprint;
use bmc::{Endpoint, Secret};
use bmcs::Bmcs;
use healing::command::{Call, ClusterCall, Reply};
use healing::event::{Config, Operator};
use healing::id::{HostId, MachineId};
use healing::signal::BmcTrouble;
use healing::world::World;
use healing::world::host::{Link, Role};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use register::limits;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum NoServer {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The clusters.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The policy.
    #[error("the lab policy is refused: {0}")]
    Policy(String),
    /// The rack's description.
    #[error("the description of the rack is unusable: {0}")]
    Handover(String),
    /// The data directory's key.
    #[error("the key of the data directory cannot be made: {0}")]
    Key(String),
    /// The wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The hosts cannot be probed.
    #[error(transparent)]
    Roster(#[from] BadRoster),
    /// It stopped while it was being configured.
    #[error("the server stopped while it was being configured: {0}")]
    Configure(#[from] crate::decide_loop::NotCommitted),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The doors into its loop.
    pub inbox: Inbox,
    /// Its running time.
    pub time: RunningTime,
    hosts: usize,
    bmcs: Arc<Bmcs>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// What is still missing before it would heal anybody, in words; empty = nothing.
    #[must_use]
    pub fn missing(&self) -> String {
        let views = self.inbox.views.hosts();
        if views.len() < self.hosts {
            return "hosts are being registered".to_owned();
        }
        if let Some(only) = &self.inbox.views.site().observe_only {
            return format!("the server only observes ({only:?})");
        }
        let unfit: Vec<&str> = views
            .iter()
            .filter(|view| view.host.role != Role::Spare)
            .filter(|view| view.host.link != Link::Linked || !view.host.ready() || view.incident.is_some())
            .map(|view| view.host.name.as_str())
            .collect();
        if unfit.is_empty() { String::new() } else { format!("not linked or not Ready: {}", unfit.join(", ")) }
    }

    /// Stops it gracefully.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tracker.wait()).await;
        self.bmcs.hang_up().await;
    }
}

/// The outside as the step driver needs it.
struct Wires {
    bmcs: Arc<Bmcs>,
    clusters: Arc<OnceLock<Clusters>>,
    time: Arc<OnceLock<RunningTime>>,
    network: Arc<OnceLock<NetworkWatch>>,
}

impl Ports for Wires {
    async fn call(&self, asked: &Asked<'_>) -> Option<Reply> {
        let may_leave = || asked.may_leave();
        match asked.call {
            Call::Bmc(host, call) => match self.time.get() {
                Some(time) => self.bmcs.call(host, call, time, &may_leave).await,
                None => None,
            },
            Call::Cluster(call) => {
                let asked = ClusterAsked {
                    call,
                    target: asked.target,
                    incident: asked.incident,
                    intent: asked.intent,
                    began: asked.began,
                    may_leave: &may_leave,
                };
                match self.clusters.get() {
                    Some(clusters) => clusters.call(&asked).await,
                    None => Some(Reply::ApiSilent),
                }
            }
            Call::Probe => {
                let (icmp, tcp) = self.network.get()?.probe(asked.target.host).await?;
                Some(Reply::Probed { icmp, tcp })
            }
            // The rack has no outlets that we switch, no node agent, and no installer.
            Call::OutletsOff | Call::OutletsOn | Call::ReadOutlets => Some(Reply::BmcTrouble(BmcTrouble::Silent)),
            Call::RestartComponent(_) => Some(Reply::AgentSilent),
            Call::OpenTicket(_) => Some(Reply::ApiRefused),
            Call::CloseTicket(_) => Some(Reply::Ok),
        }
    }
}

/// Nobody joins anew in the demo: there is no installer in it.
#[derive(Debug)]
struct NobodyJoins;

impl Rejoin for NobodyJoins {
    fn answer<'a>(&'a self, _: kube::Client, _: Joining<'a>, _: ClusterCall) -> Replying<'a> {
        Box::pin(async { None })
    }

    fn recorded(&self, _: HostId) -> Option<NodeFacts> {
        None
    }
}

/// Starts the server on a rack, with its records in a folder, and arms the cluster.
///
/// # Errors
/// The journal, the cluster client or the configuration is not to be had.
pub async fn start(handover: &Handover, cable: Cable, folder: &Path) -> Result<Server, NoServer> {
    let policy = register::policy()
        .map_err(|beyond| NoServer::Policy(beyond.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    let key = OuterKey::file(&folder.join("key")).map_err(|why| NoServer::Key(why.to_string()))?;
    let journal = SqliteJournal::open(&folder.join("data"), &key, World::new(&policy)).await?;
    let bmcs = Arc::new(stations(handover)?);
    let (time, clusters) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
    let network = Arc::new(OnceLock::new());
    let wires = Wires { bmcs: bmcs.clone(), clusters: clusters.clone(), time: time.clone(), network: network.clone() };
    let driver = Arc::new(Driver::new(wires));
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let clock = Arc::new(SystemClock::new());
    let setup = Setup { journal, executor: driver.clone(), clock, observe_only: false };
    let Handle { inbox, time: running, .. } = start_loop(setup, &tracker, stop.clone()).await?;
    // Set once, here: no step runs before.
    let _ = time.set(running.clone());
    driver.use_time(running.clone());
    let table = Arc::new(NameTable::default());
    let nodes = handover.hosts.iter().filter(|host| host.role != HandedRole::Spare);
    table.set(register::CLUSTER, nodes.map(|host| (host.name.clone(), HostId(host.id))).collect::<BTreeMap<_, _>>());
    if inbox.views.hosts().is_empty() {
        for config in register::configuration(handover) {
            inbox.submit(Order::Config(config)).await?;
        }
        let arm = Operator::Arm { cluster: register::CLUSTER, armed: true };
        inbox.submit(Order::Operator(arm)).await?;
    }
    let around = Surroundings {
        registry: table.clone(),
        signals: inbox.signals.clone(),
        time: running.clone(),
        rejoin: Arc::new(NobodyJoins),
        stop: stop.clone(),
    };
    let _ = clusters.set(Clusters::start(&[cluster(handover)?], &around, &tracker).await?);
    let attended = sight::attended(inbox.clone(), &tracker, stop.clone());
    let watch = sight::network(handover, cable, attended.clone(), &inbox, &running)?;
    tracker.spawn(sight::bmcs(bmcs.clone(), watch.standings(), attended, inbox.clone(), running.clone(), stop.clone()));
    let _ = network.set(watch);
    tracker.spawn(link(handover.clone(), inbox.clone(), bmcs.clone(), table, stop.clone()));
    Ok(Server { inbox, time: running, hosts: handover.hosts.len(), bmcs, tracker, stop })
}

fn stations(handover: &Handover) -> Result<Bmcs, NoServer> {
    let unusable = |what: String| NoServer::Handover(what);
    let password = std::fs::read(&handover.password_file)
        .map_err(|why| unusable(format!("{}: {why}", handover.password_file.display())))?;
    let pin = fingerprint(&handover.pin).ok_or_else(|| unusable("the pin is no SHA-256".to_owned()))?;
    let mut bmcs = Bmcs::default();
    for host in &handover.hosts {
        let endpoint: Endpoint = host.bmc.parse().map_err(|why| unusable(format!("{}: {why}", host.name)))?;
        bmcs.add(HostId(host.id), endpoint, Secret::new(password.clone()), pin);
    }
    Ok(bmcs)
}

fn fingerprint(hex: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(place * 2..place * 2 + 2)?, 16).ok()?;
    }
    Some(Fingerprint(bytes))
}

fn cluster(handover: &Handover) -> Result<ClusterConfig, NoServer> {
    let planes: Vec<_> =
        handover.control_planes.iter().map(|plane| serde_json::json!({"node": plane.node, "api": plane.api})).collect();
    let config = serde_json::json!({
        "id": register::CLUSTER.0, "name": "demo", "kubeconfig": handover.kubeconfig, "vip": handover.vip,
        "control_plane": planes,
    });
    serde_json::from_value(config).map_err(|why| NoServer::Handover(why.to_string()))
}

/// Shows for each host that its BMC and its Node are of one machine (safety rules, *linked*).
async fn link(handover: Handover, inbox: Inbox, bmcs: Arc<Bmcs>, table: Arc<NameTable>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        for host in &handover.hosts {
            let id = HostId(host.id);
            let unbound = inbox.views.host(id).is_some_and(|view| view.host.link == Link::Unbound);
            let (Some(node), Some(station)) = (table.machine(id), bmcs.station(id)) else { continue };
            if !unbound || stop.is_cancelled() {
                continue;
            }
            let Ok(live) = station.poll(|bmc| bmc.identify()).await else { continue };
            let Some(live) = live.machine.map(|guid| MachineId(u128::from_be_bytes(guid))) else { continue };
            let record = MachineId(host.identity());
            let link = if live.same_machine(node) && live.same_machine(record) { Link::Linked } else { Link::Mismatch };
            let _ = inbox.submit(Order::Config(Config::Link { host: id, link })).await;
        }
    }
}
