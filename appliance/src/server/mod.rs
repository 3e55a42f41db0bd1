//! The running appliance: the decision loop with its journal, the step driver on the real outside, the watchers of networks,
//! clusters and BMCs, the register, the recorder, and the doors for people. `serve`, `lab serve` and the demo start this
//! same thing; they differ in their policy, and in what their wires lead to.

pub mod api;
pub mod book;
pub mod chronicle;
pub mod config;
mod install_plans;
pub mod joins;
mod linking;
#[cfg(feature = "lab")]
pub mod loopback;
pub mod notify;
pub mod registrar;
pub mod resources;
pub mod segments;
pub mod stages;

use crate::act::Driver;
use crate::act::installs::Installs;
use crate::act::ports::Outside;
use crate::boot::config::BootConfig;
use crate::boot::installer_api::FirstBootSource;
use crate::boot::jobs::JobError;
use crate::boot::serve::{BootServeError, jobs_folder};
use crate::cluster::node::NodeFacts;
use crate::cluster::{ClusterConfig, ClusterError, Clusters, Joining, NameTable, Rejoin, Replying, Surroundings};
use crate::decide_loop::{
    Ended, Handle, Inbox, NotCommitted, Order, Pulse, RunningTime, SystemClock, start as start_loop,
};
use crate::store::JournalError;
use crate::store::register::{Batch, RegisterRows};
use crate::store::secret::OuterKey;
use crate::store::sqlite::SqliteJournal;
use crate::watch::bmcs::BmcWatch;
use crate::watch::standing::Standings;
use bmc::poll::Pace;
use book::Ground;
use chronicle::Chronicle;
use healing::command::ClusterCall;
use healing::event::Config;
use healing::id::{ClusterId, HostId};
use healing::policy::{Kind, Limits, Policy};
use healing::time::Elapsed;
use healing::world::World;
use healing::world::host::{Link, Role};
use healing::world::scope::{Cluster as ClusterRecord, ObserveOnly};
use install_plans::RegisteredPlans;
use registrar::{NotApplied, Registrar};
use resources::{Applied, Declaration};
use segments::{Near, NoSegments, Segment, Segments};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often it is looked up who needs attention.
const ATTEND: Duration = Duration::from_millis(500);
/// Records are read on at most so often.
const READ_ON: Duration = Duration::from_millis(100);
/// Everything obeys the token within this when the server stops.
const STOP: Duration = Duration::from_secs(6);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum NoServer {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The clusters.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The segments.
    #[error(transparent)]
    Segments(#[from] NoSegments),
    /// The register.
    #[error("the register cannot be used: {0}")]
    Register(#[from] NotApplied),
    /// The jobs.
    #[error(transparent)]
    Jobs(#[from] JobError),
    /// It stopped while it was being configured.
    #[error("the server stopped while it was being configured: {0}")]
    Configure(#[from] NotCommitted),
    /// The data directory belongs to another kind of policy.
    #[error(
        "this data directory was used under the {theirs} policy and is not taken over by a server under the {ours} policy: \
         what was learned under short waits is worth nothing at a site, and a lab must not hold a site's hosts; name another --data-dir"
    )]
    Policy {
        /// Under which it was used.
        theirs: String,
        /// Ours.
        ours: &'static str,
    },
    /// The description of an emulated rack.
    #[cfg(feature = "lab")]
    #[error("the description of the rack is unusable: {0}")]
    Rack(String),
}

/// What a server is started with.
#[allow(missing_debug_implementations, reason = "it carries a closure")]
pub struct Setup<K: Kind> {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What opens its secrets.
    pub key: OuterKey,
    /// The numbers.
    pub policy: Policy<K>,
    /// The policy's name: `site` or `lab`.
    pub kind: &'static str,
    /// Look, never act.
    pub observe_only: bool,
    /// The clusters.
    pub clusters: Vec<ClusterConfig>,
    /// The segments.
    pub segments: Vec<Segment>,
    /// The boot servers.
    pub boot: Option<BootConfig>,
    /// How nodes join again.
    pub rejoin: JoinsBy,
    /// How often BMCs are looked at.
    pub pace: Pace,
    /// Only BMCs on loopback are taken.
    pub loopback_only: bool,
}

/// Makes what lets nodes join again out of what the server knows of hosts: their register, and what their Nodes showed. This
/// is the one place where a driver is plugged in.
pub type JoinsBy = Box<dyn FnOnce(Arc<Registrar>, Arc<NameTable>) -> Joins + Send>;

/// A driver from its two sides.
#[allow(missing_debug_implementations, reason = "what makes the files holds a client with credentials")]
pub struct Joins {
    /// For the steps of a heal.
    pub rejoin: Arc<dyn Rejoin>,
    /// What the installer writes so that its host joins.
    pub first_boot: Option<Arc<dyn FirstBootSource>>,
}

/// How a node joins again where no driver is configured: not at all.
#[derive(Debug)]
pub struct NobodyJoins;

impl NobodyJoins {
    /// For [`Setup::rejoin`].
    #[must_use]
    pub fn plugged() -> JoinsBy {
        Box::new(|_, _| Joins { rejoin: Arc::new(NobodyJoins), first_boot: None })
    }
}

impl Rejoin for NobodyJoins {
    fn answer<'a>(&'a self, _: kube::Client, _: Joining<'a>, _: ClusterCall) -> Replying<'a> {
        Box::pin(async { None })
    }

    fn recorded(&self, _: HostId) -> Option<NodeFacts> {
        None
    }
}

/// What the doors of the server see of it.
#[derive(Debug)]
pub struct Appliance {
    /// The doors into the loop.
    pub inbox: Inbox,
    /// Its running time.
    pub time: RunningTime,
    /// Whether it turns.
    pub pulse: Pulse,
    /// The register.
    pub registrar: Arc<Registrar>,
    /// The outside.
    pub outside: Arc<Outside>,
    /// What happened.
    pub chronicle: Mutex<Chronicle>,
    /// The policy's name.
    pub kind: &'static str,
    segments: Segments,
}

impl Appliance {
    /// Takes a declaration, all of it or nothing.
    ///
    /// # Errors
    /// What is wrong with it, or why it could not be taken.
    pub async fn apply(&self, declared: &Declaration) -> Result<Applied, NotApplied> {
        self.registrar.apply(declared, &self.inbox, Some(&self.segments)).await
    }

    /// Removes a host.
    ///
    /// # Errors
    /// It is not there, or it stays.
    pub async fn remove_host(&self, name: &str) -> Result<(), NotApplied> {
        self.registrar.remove(name, &self.inbox, Some(&self.segments)).await
    }

    /// What is still missing before it would heal anybody, in words; empty = nothing.
    #[must_use]
    pub fn missing(&self) -> String {
        let views = self.inbox.views.hosts();
        if views.len() < self.registrar.book().hosts.len() {
            return "hosts are being registered".to_owned();
        }
        if let Some(only) = &self.inbox.views.site().observe_only {
            return format!("the server only observes: {}", observes(only, self.time.now().elapsed));
        }
        let unfit: Vec<&str> = views
            .iter()
            .filter(|view| view.host.role != Role::Spare)
            .filter(|view| view.host.link != Link::Linked || !view.host.ready() || view.incident.is_some())
            .map(|view| view.host.name.as_str())
            .collect();
        if unfit.is_empty() { String::new() } else { format!("not linked or not Ready: {}", unfit.join(", ")) }
    }
}

/// Why nothing is touched, in words.
#[must_use]
pub fn observes(why: &ObserveOnly, now: Elapsed) -> String {
    let more = |until: &Elapsed| until.since(now).div_ceil(1_000);
    match why {
        ObserveOnly::Starting { until } => format!("it looks before it acts, {} s more", more(until)),
        ObserveOnly::Void { until } => {
            format!("something did not run, so that all evidence is gathered anew, {} s more", more(until))
        }
        ObserveOnly::Store => "the store cannot be written".to_owned(),
        ObserveOnly::Restored => {
            "this is a restored backup, until a person lets it act (`rackmedic site act`)".to_owned()
        }
        ObserveOnly::Corrupt => "the journal could not be read whole, so no budget is known".to_owned(),
        ObserveOnly::Standby => "another appliance owns the site".to_owned(),
        ObserveOnly::Ordered => "a person or the command line ordered so (`rackmedic site act` ends it)".to_owned(),
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// What its doors see.
    pub appliance: Arc<Appliance>,
    /// Ends when the loop does by itself: another appliance took over.
    pub ended: JoinHandle<Result<(), Ended>>,
    /// Ends when the boot servers do by themselves.
    pub boot_ended: JoinHandle<Result<(), BootServeError>>,
    /// Names a task that ended by a fault of ours: without it the appliance sees less than it seems to.
    pub faults: mpsc::Receiver<&'static str>,
    /// Its tasks; what serves people runs among them.
    pub tracker: TaskTracker,
    /// Stops it.
    pub stop: CancellationToken,
}

impl Server {
    /// Stops it gracefully: steps end safely, sessions are given back.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(STOP, self.tracker.wait()).await;
        self.appliance.outside.bmcs.hang_up().await;
    }
}

/// The policy under which a data directory is used, as its register keeps it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptPolicy {
    kind: String,
    version: u32,
    limits: Limits,
}

const POLICY: &str = "policy";

/// What the register is to keep of this policy, if it is not what it keeps. A changed policy is a new version.
async fn fresh_policy<K: Kind>(
    rows: &mut RegisterRows,
    policy: &Policy<K>,
    kind: &'static str,
) -> Result<Option<KeptPolicy>, NoServer> {
    let kept = rows.rows(POLICY).await?.into_iter().find(|(key, _)| key == POLICY);
    let parse = |(_, text): (String, String)| serde_json::from_str::<KeptPolicy>(&text);
    let kept = kept.map(parse).transpose();
    let kept = kept.map_err(|why| JournalError::Corrupt(format!("the register's row {POLICY}: {why}")))?;
    let version = match kept {
        Some(kept) if kept.kind != kind => return Err(NoServer::Policy { theirs: kept.kind, ours: kind }),
        Some(kept) if kept.limits == *policy.limits() => return Ok(None),
        Some(kept) => kept.version + 1,
        None => 1,
    };
    Ok(Some(KeptPolicy { kind: kind.to_owned(), version, limits: policy.limits().clone() }))
}

/// Starts a server.
///
/// # Errors
/// What it needs is not to be had.
pub async fn start<K: Kind>(setup: Setup<K>) -> Result<Server, NoServer> {
    let Setup { data_dir, key, policy, kind, observe_only, clusters, segments, boot, rejoin, pace, loopback_only } =
        setup;
    let journal = SqliteJournal::open(&data_dir, &key, World::new(&policy)).await?;
    let (rows, mut policy_rows) = (journal.register().await?, journal.register().await?);
    let fresh_policy = fresh_policy(&mut policy_rows, &policy, kind).await?;
    let ground = Ground {
        clusters: clusters.iter().map(|cluster| (cluster.name.clone(), cluster.id())).collect(),
        networks: segments.iter().map(|segment| segment.network).collect(),
        gateway: segments.iter().any(|segment| segment.gateway.is_some()),
        loopback_only,
    };
    let (outside, names) = (Arc::new(Outside::default()), Arc::new(NameTable::default()));
    let parts = registrar::Parts {
        rows,
        sealer: journal.sealer(),
        sessions: data_dir.join("sessions"),
        ground,
        outside: Arc::clone(&outside),
        names: Arc::clone(&names),
    };
    let registrar = Arc::new(Registrar::open(parts).await?);
    let driver = Arc::new(Driver::new(Arc::clone(&outside)));
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let clock = Arc::new(SystemClock::new());
    let loop_setup = crate::decide_loop::Setup { journal, executor: Arc::clone(&driver), clock, observe_only };
    let Handle { inbox, time, pulse, ended } = start_loop(loop_setup, &tracker, stop.clone()).await?;
    // Set once, here: no step runs before.
    let _ = outside.time.set(time.clone());
    driver.use_time(time.clone());
    if let Some(fresh) = fresh_policy {
        // First to the decisions: a kill before it is kept tells it once more, never not at all.
        let limits = Box::new(fresh.limits.clone());
        inbox.submit(Order::Config(Config::Policy { limits, version: fresh.version })).await?;
        let text = serde_json::to_string(&fresh).map_err(|why| JournalError::Io(why.to_string()))?;
        policy_rows.write(&Batch { rows: vec![(POLICY.to_owned(), Some(text))], ..Batch::default() }).await?;
    }
    drop(policy_rows);
    for cluster in &clusters {
        inbox.submit(Order::Config(Config::Cluster(Box::new(record(cluster))))).await?;
    }
    registrar.tell_all(&inbox).await?;
    let joins = rejoin(Arc::clone(&registrar), Arc::clone(&names));
    let around = Surroundings {
        registry: names.clone(),
        signals: inbox.signals.clone(),
        time: time.clone(),
        rejoin: joins.rejoin,
        stop: stop.clone(),
    };
    let _ = outside.clusters.set(Clusters::start(&clusters, &around, &tracker).await?);
    let (tell, faults) = mpsc::channel(1);
    let keep = Keep { tracker: tracker.clone(), faults: tell };
    let attended = attended(inbox.clone(), Arc::clone(&outside), &keep, stop.clone());
    let near = Near { inbox: inbox.clone(), time: time.clone(), attended: attended.clone(), stop: stop.clone() };
    let (segments, networks) = Segments::start(segments, &registrar.book(), &near, &tracker)?;
    let standings = networks.iter().map(|network| network.standings()).collect();
    let _ = outside.networks.set(networks);
    keep.run("the BMC watch", poll_bmcs(Arc::clone(&outside), registrar.bmcs_changed(), standings, near.clone(), pace));
    let link = linking::link(Arc::clone(&registrar), Arc::clone(&outside.bmcs), names, inbox.clone(), stop.clone());
    keep.run("linking", link);
    let boot_ended = boot_servers((boot, joins.first_boot), &outside, &registrar, &near, &keep)?;
    let appliance = Arc::new(Appliance {
        inbox,
        time,
        pulse,
        registrar,
        outside,
        chronicle: Mutex::new(Chronicle::of(&data_dir)),
        kind,
        segments,
    });
    keep.run("the recorder", read_on(Arc::clone(&appliance), stop.clone()));
    Ok(Server { appliance, ended, boot_ended, faults, tracker, stop })
}

/// Runs what must not end before the server does.
#[derive(Debug, Clone)]
struct Keep {
    tracker: TaskTracker,
    faults: mpsc::Sender<&'static str>,
}

impl Keep {
    fn run(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let faults = self.faults.clone();
        let work = tokio::spawn(work);
        self.tracker.spawn(async move {
            if work.await.is_err() {
                // One fault is enough to stop for; a second one has nothing to add.
                let _ = faults.try_send(name);
            }
        });
    }
}

/// A cluster of the configuration as the decisions take it; what people and freezes set on it is kept by them.
fn record(cluster: &ClusterConfig) -> ClusterRecord {
    ClusterRecord {
        id: ClusterId(cluster.id),
        name: cluster.name.clone(),
        armed: false,
        paused: false,
        etcd_access: cluster.etcd.is_some(),
        freeze: None,
        freeze_ended: None,
        careful: None,
        released_hosts: Vec::new(),
        released_at: None,
    }
}

/// The boot servers, if any are configured; else something that never ends.
fn boot_servers(
    (boot, first_boot): (Option<BootConfig>, Option<Arc<dyn FirstBootSource>>),
    outside: &Arc<Outside>,
    registrar: &Arc<Registrar>,
    near: &Near,
    keep: &Keep,
) -> Result<JoinHandle<Result<(), BootServeError>>, NoServer> {
    let stop = near.stop.clone();
    let Some(config) = boot else {
        return Ok(keep.tracker.spawn(async move {
            stop.cancelled().await;
            Ok(())
        }));
    };
    let folder = jobs_folder(&config.data_dir);
    let plans = RegisteredPlans { registrar: Arc::clone(registrar), inbox: near.inbox.clone() };
    let installs = Installs::open(&folder, Arc::new(plans))?;
    let _ = outside.installs.set(installs);
    let (following, inbox, ending) = (Arc::clone(outside), near.inbox.clone(), near.stop.clone());
    keep.run("following installs", async move {
        if let Some(installs) = following.installs.get() {
            installs.follow(inbox, ending).await;
        }
    });
    Ok(keep.tracker.spawn(crate::boot::serve::serve(config, first_boot, stop, |links| {
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        tracing::info!(links = names.join(", "), "the boot servers listen; a card without a job meets silence");
    })))
}

/// Hosts with an incident, for whoever looks at them faster.
fn attended(
    inbox: Inbox,
    outside: Arc<Outside>,
    keep: &Keep,
    stop: CancellationToken,
) -> watch::Receiver<Arc<Vec<HostId>>> {
    let (tell, attended) = watch::channel(Arc::new(Vec::new()));
    keep.run("attention", async move {
        let mut tick = tokio::time::interval(ATTEND);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let hosts = inbox.views.hosts();
            let ill: Vec<_> = hosts.iter().filter(|view| view.incident.is_some()).collect();
            // What holds on to their Nodes is for people to see (`host show`).
            for (id, cluster) in outside.clusters.get().into_iter().flat_map(Clusters::iter) {
                let here = ill.iter().filter(|view| view.host.cluster == Some(*id));
                cluster.trouble.set(here.map(|view| view.host.name.clone()));
            }
            let ill = Arc::new(ill.iter().map(|view| view.host.id).collect::<Vec<_>>());
            tell.send_if_modified(|now| std::mem::replace(now, Arc::clone(&ill)) != ill);
        }
    });
    attended
}

/// Looks at the BMCs until it is stopped; begins anew when one came or went.
async fn poll_bmcs(
    outside: Arc<Outside>,
    mut changed: watch::Receiver<u64>,
    standings: Vec<Standings>,
    near: Near,
    pace: Pace,
) {
    loop {
        changed.borrow_and_update();
        let stations = outside.bmcs.all();
        // Nobody to look at is no reason to look without end.
        let none = stations.is_empty();
        let watch = BmcWatch {
            stations,
            pace,
            standings: standings.clone(),
            attended: near.attended.clone(),
            signals: near.inbox.signals.clone(),
            time: near.time.clone(),
        };
        tokio::select! {
            () = near.stop.cancelled() => return,
            gone = changed.changed() => {
                if gone.is_err() {
                    return;
                }
            }
            () = watch.run(), if !none => {}
        }
    }
}

/// Keeps what happened at hand for readers.
async fn read_on(appliance: Arc<Appliance>, stop: CancellationToken) {
    let mut committed = appliance.inbox.views.committed();
    loop {
        if let Err(why) = appliance.chronicle.lock().await.read_on().await {
            tracing::warn!(%why, "the records cannot be read: incidents are not shown as they are");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            more = committed.changed() => {
                if more.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(READ_ON).await;
    }
}
