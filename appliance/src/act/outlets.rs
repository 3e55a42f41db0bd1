//! Outlets of power distribution units: the second proof that a host is off, by another device than its BMC.

use super::bmcs::Way;
use bmc::Power;
use bmc::controller::{BmcError, Kind};
use bmc::redfish::Redfish;
use healing::command::{Call, Reply};
use healing::id::HostId;
use healing::signal::BmcTrouble;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// All outlets of a host are read or switched within this.
const LIMIT: Duration = Duration::from_secs(14);

/// The outlets that feed one host.
#[derive(Debug)]
struct Feed {
    way: Way,
    links: Vec<String>,
    /// One request in flight, as with a BMC.
    client: Mutex<Option<Redfish>>,
}

/// The outlets of all hosts that have some.
#[derive(Debug, Default)]
pub struct Outlets {
    feeds: RwLock<BTreeMap<HostId, Arc<Feed>>>,
}

impl Outlets {
    /// Takes the outlets of a host: their unit and their links there.
    pub fn set(&self, host: HostId, way: Way, links: Vec<String>) {
        let feed = Arc::new(Feed { way, links, client: Mutex::default() });
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).insert(host, feed);
    }

    /// Forgets the outlets of a host.
    pub fn remove(&self, host: HostId) {
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    /// Makes one call. `None`: it may not leave, and nothing was sent.
    pub async fn call(&self, host: HostId, call: Call, may_leave: &(dyn Fn() -> bool + Send + Sync)) -> Option<Reply> {
        let feed = self.feeds.read().unwrap_or_else(PoisonError::into_inner).get(&host).cloned();
        let Some(feed) = feed.filter(|feed| !feed.links.is_empty()) else {
            return Some(Reply::BmcTrouble(BmcTrouble::Silent));
        };
        match timeout(LIMIT, feed.make(call, may_leave)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(why)) => Some(Reply::BmcTrouble(match why.kind {
                Kind::Credential => BmcTrouble::Refused,
                Kind::Busy(_) | Kind::Refused | Kind::NotOffered => BmcTrouble::Busy,
                Kind::Unreachable | Kind::Unknown | Kind::Pin | Kind::Hostile => BmcTrouble::Silent,
            })),
            Err(_) => Some(Reply::BmcTrouble(BmcTrouble::Silent)),
        }
    }
}

impl Feed {
    async fn make(&self, call: Call, may_leave: &(dyn Fn() -> bool + Send + Sync)) -> Result<Option<Reply>, BmcError> {
        let mut seat = self.client.lock().await;
        // Taken out while it works: a client that a deadline dropped in the middle of a request is not used again.
        let mut client = match seat.take() {
            Some(client) => client,
            None => self.way.redfish()?,
        };
        let done = match call {
            Call::OutletsOff => self.switch(&mut client, false, may_leave).await,
            Call::OutletsOn => self.switch(&mut client, true, may_leave).await,
            _ => self.all_off(&mut client).await.map(|off| Some(Reply::Flag(off))),
        };
        if done.is_ok() {
            *seat = Some(client);
        }
        done
    }

    /// Each outlet in turn. Whether current still flows is read afterwards, never believed.
    async fn switch(
        &self,
        client: &mut Redfish,
        on: bool,
        may_leave: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Option<Reply>, BmcError> {
        for (place, link) in self.links.iter().enumerate() {
            if !may_leave() {
                // With one of two feeds switched the effect is unknown, not none.
                return Ok((place > 0).then_some(Reply::BmcTrouble(BmcTrouble::Silent)));
            }
            client.switch_outlet(link, on).await?;
        }
        Ok(Some(Reply::Ok))
    }

    async fn all_off(&self, client: &mut Redfish) -> Result<bool, BmcError> {
        for link in &self.links {
            if client.outlet(link).await?.reading.power != Power::Off {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
