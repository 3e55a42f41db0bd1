//! What readers see: one immutable view per host, replaced when it changes. Pages and API never lock the loop.

use healing::explain::Explanation;
use healing::id::{ClusterId, DomainId, HostId};
use healing::time::Millis;
use healing::world::World;
use healing::world::host::Host;
use healing::world::incident::Incident;
use healing::world::scope::{Cluster, Domain, Site};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// A host as readers see it.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Its record.
    pub host: Host,
    /// Its open incident.
    pub incident: Option<Incident>,
    /// Why it is not being healed right now, or what happens next (rule 56).
    pub explanation: Option<Explanation>,
    /// The journal's number of the last change.
    pub seq: u64,
}

/// Clusters, domains and what of the policy readers are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    /// By number.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// By number.
    pub domains: BTreeMap<DomainId, Domain>,
    /// A spare is proven again this long after its last proof.
    pub spare_prove_again_ms: Millis,
}

/// All views. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Views {
    hosts: Arc<RwLock<BTreeMap<HostId, Arc<HostView>>>>,
    site: Arc<RwLock<Arc<Site>>>,
    scopes: Arc<RwLock<Arc<Scopes>>>,
    committed: Arc<watch::Sender<u64>>,
}

impl Default for Views {
    fn default() -> Self {
        Views {
            hosts: Arc::default(),
            site: Arc::default(),
            scopes: Arc::default(),
            committed: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Views {
    /// A host as of the last commit.
    #[must_use]
    pub fn host(&self, id: HostId) -> Option<Arc<HostView>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All hosts as of the last commit, in order of number.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<HostView>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What holds for the site.
    #[must_use]
    pub fn site(&self) -> Arc<Site> {
        self.site.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Clusters and domains.
    #[must_use]
    pub fn scopes(&self) -> Arc<Scopes> {
        self.scopes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the number of the last commit, and wakes when it grows: for streams of changes.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    pub(super) fn publish(&self, world: &World, changed: &[HostId], explain: Explain, seq: u64) {
        let fresh: Vec<(HostId, Option<Arc<HostView>>)> =
            changed.iter().map(|&id| (id, view(world, id, explain, seq).map(Arc::new))).collect();
        {
            let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
            for (id, view) in fresh {
                match view {
                    Some(view) => hosts.insert(id, view),
                    None => hosts.remove(&id),
                };
            }
        }
        {
            let mut site = self.site.write().unwrap_or_else(PoisonError::into_inner);
            if **site != world.site {
                *site = Arc::new(world.site.clone());
            }
        }
        {
            let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
            let again = world.limits.spare_prove_again_ms;
            let same = scopes.clusters == world.clusters && scopes.domains == world.domains;
            if !same || scopes.spare_prove_again_ms != again {
                let (clusters, domains) = (world.clusters.clone(), world.domains.clone());
                *scopes = Arc::new(Scopes { clusters, domains, spare_prove_again_ms: again });
            }
        }
        self.committed.send_replace(seq);
    }
}

/// Says why a host is not being healed, or what happens next.
pub(super) type Explain = fn(&World, HostId) -> Option<Explanation>;

fn view(world: &World, id: HostId, explain: Explain, seq: u64) -> Option<HostView> {
    let host = world.hosts.get(&id)?.clone();
    let incident = host.incident.and_then(|id| world.incidents.get(&id)).cloned();
    let explanation = explain(world, id);
    Some(HostView { host, incident, explanation, seq })
}
