//! How hosts stand on the network, as the prober last saw it, for those who look at them otherwise.

use super::prober::Standing;
use healing::id::HostId;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// See the module. Cheap to clone; written only when a host changes.
#[derive(Debug, Clone, Default)]
pub struct Standings {
    hosts: Arc<RwLock<HashMap<HostId, Standing>>>,
}

impl Standings {
    /// How a host stands; nothing is known of one that was never probed.
    #[must_use]
    pub fn of(&self, host: HostId) -> Standing {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(&host).copied().unwrap_or_default()
    }

    /// The hosts that are looked at faster.
    #[must_use]
    pub fn suspects(&self) -> Vec<HostId> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().filter(|(_, standing)| standing.suspect).map(|(host, _)| *host).collect()
    }

    pub(super) fn put(&self, changed: impl Iterator<Item = (HostId, Standing)>) {
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        hosts.extend(changed);
    }

    pub(super) fn keep(&self, hosts: &std::collections::HashSet<HostId>) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).retain(|host, _| hosts.contains(host));
    }
}
