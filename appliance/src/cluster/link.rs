//! The endpoints of one cluster and the one that is in use. Kubeconfig, token and certificates are read again when the API
//! no longer takes them, so that what was renewed on disk is used.

use super::client::{Access, ClientError};
use super::config::ClusterConfig;
use super::counters::Counters;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Credentials are read again at most this often.
const RENEW: Duration = Duration::from_secs(15);

/// One endpoint.
#[derive(Clone)]
pub struct Endpoint {
    /// Its address.
    pub address: String,
    /// The Node of the control-plane host that it is; `None` for the virtual address.
    pub node: Option<String>,
    /// The client for it.
    pub client: kube::Client,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).field("node", &self.node).finish_non_exhaustive()
    }
}

/// All endpoints of a cluster.
#[derive(Debug)]
pub struct Link {
    config: ClusterConfig,
    endpoints: RwLock<Vec<Endpoint>>,
    current: watch::Sender<(usize, u64)>,
    renewed: RwLock<Instant>,
    counters: Arc<Counters>,
}

impl Link {
    /// Makes the clients. No connection is opened yet.
    ///
    /// # Errors
    /// A file or an address is unusable.
    pub async fn open(config: &ClusterConfig, counters: Arc<Counters>) -> Result<Link, ClientError> {
        let endpoints = endpoints(config).await?;
        Ok(Link {
            config: config.clone(),
            endpoints: RwLock::new(endpoints),
            current: watch::Sender::new((0, 0)),
            renewed: RwLock::new(Instant::now()),
            counters,
        })
    }

    /// The client of the endpoint in use.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let (index, _) = *self.current.borrow();
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        // `endpoints` refuses an empty list, and `switch` stays within it.
        endpoints[index % endpoints.len()].client.clone()
    }

    /// The address in use, for people.
    #[must_use]
    pub fn address(&self) -> String {
        let (index, _) = *self.current.borrow();
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        endpoints[index % endpoints.len()].address.clone()
    }

    /// All endpoints.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hears of each change of the endpoint.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<(usize, u64)> {
        self.current.subscribe()
    }

    /// Goes on to the next endpoint for which `fit` says yes; to the next one if it says so for none.
    pub fn switch(&self, fit: impl Fn(usize) -> bool) {
        let count = self.endpoints.read().unwrap_or_else(PoisonError::into_inner).len();
        Counters::add(&self.counters.switches);
        self.current.send_modify(|(index, generation)| {
            let others = (1..=count).map(|step| (*index + step) % count);
            *index = others.clone().find(|other| fit(*other)).unwrap_or((*index + 1) % count);
            *generation += 1;
        });
    }

    /// Reads the credentials again: the API did not take them. At most once in a while; true if it was done.
    pub async fn renew(&self) -> bool {
        {
            let mut renewed = self.renewed.write().unwrap_or_else(PoisonError::into_inner);
            if renewed.elapsed() < RENEW {
                return false;
            }
            *renewed = Instant::now();
        }
        match endpoints(&self.config).await {
            Ok(fresh) => {
                *self.endpoints.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                self.current.send_modify(|(_, generation)| *generation += 1);
                true
            }
            Err(error) => {
                tracing::warn!(
                    cluster = self.config.name,
                    %error,
                    "the API takes our credential no longer and it cannot be read anew: this cluster is not healed until it can"
                );
                false
            }
        }
    }
}

async fn endpoints(config: &ClusterConfig) -> Result<Vec<Endpoint>, ClientError> {
    let access = Access::read(config).await?;
    let mut all = Vec::new();
    if let Some(vip) = &config.vip {
        all.push(Endpoint { address: vip.clone(), node: None, client: access.client(vip)? });
    }
    for plane in &config.control_planes {
        let client = access.client(&plane.api)?;
        all.push(Endpoint { address: plane.api.clone(), node: Some(plane.node.clone()), client });
    }
    if all.is_empty() {
        return Err(ClientError::Address(access.own_address().unwrap_or_else(|| config.name.clone())));
    }
    Ok(all)
}
