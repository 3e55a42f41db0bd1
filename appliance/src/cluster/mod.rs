//! Clusters: what is seen of them and done to them, over the Kubernetes API and etcd's own.
//!
//! It must never know why anything is done: it puts signals where the loop folds them, and makes the calls that the step
//! machine asks for. Our own deafness is never a node's silence: a watch must be proven live before a late Lease counts, an
//! API that does not take our credential is not an API that is down, and what could not be read leaves no word.

pub mod acts;
pub mod client;
pub mod config;
pub mod counters;
pub mod etcd;
mod foreign;
pub mod link;
mod marks;
pub mod node;
mod node_watch;
pub mod proof;
pub mod rbac;
mod readyz;
pub mod registry;
pub mod rejoin_port;
mod sight;
pub mod state;
mod storage;
pub mod trouble;
pub mod watch;

pub use acts::{ClusterActs, ClusterAsked};
pub use config::{ClusterConfig, ClusterConfigError};
pub use registry::{NameTable, Registry};
pub use rejoin_port::{Joining, Rejoin, Replying};

use crate::decide_loop::{RunningTime, Signals};
use client::ClientError;
use counters::Counters;
use etcd::Etcd;
use healing::command::Reply;
use healing::id::ClusterId;
use link::Link;
use state::ClusterState;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trouble::Trouble;
use watch::Watch;

/// Why clusters cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ClusterConfigError),
    /// No client can be made.
    #[error("cluster `{cluster}`: {source}")]
    Client {
        /// Which cluster.
        cluster: String,
        /// Why.
        source: ClientError,
    },
    /// Two clusters have one number.
    #[error("cluster `{0}`: its `id` is that of another cluster: give each its own")]
    Twice(String),
}

/// What the watchers of all clusters share with the rest of the appliance.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Which Node is which host.
    pub registry: Arc<dyn Registry>,
    /// Where signals go.
    pub signals: Signals,
    /// The loop's running time.
    pub time: RunningTime,
    /// How nodes join again.
    pub rejoin: Arc<dyn Rejoin>,
    /// Ends everything.
    pub stop: CancellationToken,
}

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub state: Arc<ClusterState>,
    /// Its endpoints.
    pub link: Arc<Link>,
    /// Acts on it.
    pub acts: ClusterActs,
    /// What holds on to its nodes in trouble.
    pub trouble: Trouble,
    /// Whether etcd's members can be read and removed (the register's `etcd_access`).
    pub etcd_access: bool,
}

/// All clusters of the site.
#[derive(Debug, Default)]
pub struct Clusters {
    all: BTreeMap<ClusterId, Cluster>,
}

impl Clusters {
    /// Makes the clients and spawns the watchers on `tasks`. Nobody is waited for: a cluster that is away is watched until it
    /// comes.
    ///
    /// # Errors
    /// A configuration contradicts itself, or a file that it names is unusable.
    pub async fn start(
        configs: &[ClusterConfig],
        around: &Surroundings,
        tasks: &TaskTracker,
    ) -> Result<Clusters, ClusterError> {
        let mut all = BTreeMap::new();
        for config in configs {
            config.check()?;
            if all.contains_key(&config.id()) {
                return Err(ClusterError::Twice(config.name.clone()));
            }
            all.insert(config.id(), start(config, around, tasks).await?);
        }
        Ok(Clusters { all })
    }

    /// One cluster.
    #[must_use]
    pub fn get(&self, id: ClusterId) -> Option<&Cluster> {
        self.all.get(&id)
    }

    /// All clusters.
    pub fn iter(&self) -> impl Iterator<Item = (&ClusterId, &Cluster)> {
        self.all.iter()
    }

    /// Makes one call on the cluster of its target. `None`: it may not leave, and nothing was sent.
    pub async fn call(&self, asked: &ClusterAsked<'_>) -> Option<Reply> {
        match asked.target.cluster.and_then(|id| self.all.get(&id)) {
            Some(cluster) => cluster.acts.call(asked).await,
            None => Some(Reply::ApiRefused),
        }
    }

    /// All counters, in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        for cluster in self.all.values() {
            cluster.state.counters.write(&cluster.name, &mut text);
        }
        text
    }
}

async fn start(config: &ClusterConfig, around: &Surroundings, tasks: &TaskTracker) -> Result<Cluster, ClusterError> {
    let failed = |source| ClusterError::Client { cluster: config.name.clone(), source };
    let counters = Arc::<Counters>::default();
    let link = Arc::new(Link::open(config, Arc::clone(&counters)).await.map_err(failed)?);
    let etcd = Etcd::open(config).map_err(failed)?;
    let endpoints = link.endpoints().len();
    let now = around.time.now().elapsed;
    let state = Arc::new(ClusterState::new(config.id(), &config.name, endpoints, counters, now));
    let watch = Watch {
        link: Arc::clone(&link),
        state: Arc::clone(&state),
        registry: Arc::clone(&around.registry),
        signals: around.signals.clone(),
        time: around.time.clone(),
        stop: around.stop.clone(),
    };
    let trouble = Trouble::default();
    tasks.spawn(watch.clone().leases());
    tasks.spawn(watch.clone().nodes());
    tasks.spawn(watch.clone().sight(config.vip.is_some()));
    tasks.spawn(watch.clone().foreign());
    tasks.spawn(watch.clone().trouble(trouble.clone()));
    for index in 0..endpoints {
        tasks.spawn(watch.clone().readyz(index, etcd.is_none()));
    }
    if !config.storage.is_empty() {
        tasks.spawn(watch.clone().storage(config.storage.clone()));
    }
    match &etcd {
        Some(etcd) => {
            tasks.spawn(watch.etcd(etcd.clone()));
        }
        None => {
            for plane in &config.control_planes {
                if let Some(address) = &plane.etcd {
                    tasks.spawn(watch.clone().etcd_port(plane.node.clone(), address.clone()));
                }
            }
        }
    }
    let etcd_access = etcd.is_some();
    let acts = ClusterActs::new(config, Arc::clone(&link), Arc::clone(&state), etcd, Arc::clone(&around.rejoin));
    Ok(Cluster { name: config.name.clone(), state, link, acts, trouble, etcd_access })
}
