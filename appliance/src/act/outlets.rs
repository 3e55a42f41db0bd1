//! Outlets of power distribution units: the second proof that a host is off, by another device than its BMC.

use super::bmcs::Way;
use bmc::Power;
use bmc::controller::{BmcError, Kind};
use bmc::redfish::{HttpError, Outlet, Redfish, RedfishError};
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
            _ => self.read(&mut client).await.map(Some),
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
            match client.switch_outlet(link, on, may_leave).await {
                Ok(()) => {}
                // With one of two feeds switched the effect is unknown, not none.
                Err(RedfishError::Http(HttpError::Withheld { .. })) => {
                    return Ok((place > 0).then_some(Reply::BmcTrouble(BmcTrouble::Silent)));
                }
                Err(why) => return Err(why.into()),
            }
        }
        Ok(Some(Reply::Ok))
    }

    /// Whether all are off. One that is not is an answer; one that cannot be read leaves none, as if the unit were
    /// silent: to the step machine a *no* means that the power came back.
    async fn read(&self, client: &mut Redfish) -> Result<Reply, BmcError> {
        let mut all_told = true;
        for link in &self.links {
            match is_off(&client.outlet(link).await?) {
                Some(true) => {}
                Some(false) => return Ok(Reply::Flag(false)),
                None => all_told = false,
            }
        }
        Ok(if all_told { Reply::Flag(true) } else { Reply::BmcTrouble(BmcTrouble::Silent) })
    }
}

/// Whether an outlet is off; `None` if it tells neither by its state nor by its current.
fn is_off(outlet: &Outlet) -> Option<bool> {
    match outlet.reading.power {
        Power::Off => Some(true),
        Power::On | Power::Transitioning => Some(false),
        // Watts that flow are no guess: a relay that sticks is not off, whatever its state says.
        Power::Unknown => outlet.flows().then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmc::{OffCause, Reading, Source};
    use std::time::Instant;

    #[test]
    fn a_state_that_nobody_can_read_is_no_word_about_power() {
        let told = |power, watts| {
            let (at, source, off_cause) = (Instant::now(), Source::Outlet, OffCause::Unknown);
            let reading = Reading { at, source, identity: None, power, off_cause };
            is_off(&Outlet { reading, name: String::new(), watts })
        };
        assert_eq!(told(Power::Off, Some(0.0)), Some(true));
        assert_eq!(told(Power::On, None), Some(false));
        assert_eq!(told(Power::Transitioning, None), Some(false));
        assert_eq!(told(Power::Unknown, Some(240.0)), Some(false), "watts flow: that is not off");
        assert_eq!(told(Power::Unknown, Some(0.0)), None);
        assert_eq!(told(Power::Unknown, None), None);
    }
}
