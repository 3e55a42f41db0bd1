//! The BMCs as the appliance has them: one station for each host, over the real protocols.

use super::bmc_reading::bridge_both;
use crate::decide_loop::RunningTime;
use bmc::boot::{BootDevice, BootLasts, BootMode, BootStage};
use bmc::controller::{BmcError, Controller, Guard, Kind, Verb};
use bmc::endpoint::Protocol;
use bmc::ipmi::client::{Client, Patience as IpmiPatience};
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::redfish::{Credential, Facts, Options, Patience, Redfish, SessionKeeper, Trust};
use bmc::station::{Dial, Station};
use bmc::{Endpoint, PowerCommand, Secret};
use healing::command::{BmcCall, Reply};
use healing::id::{HostId, MachineId};
use healing::signal::{self, BmcTrouble};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A call on a BMC is done within this, or it is unanswered.
const LIMIT: Duration = Duration::from_secs(14);

/// How one BMC is reached.
#[derive(Clone)]
pub struct Way {
    /// Its address, protocol and account. The address is a number: a name that cannot be resolved must never keep a fence
    /// from its machine.
    pub endpoint: Endpoint,
    /// Its password.
    pub password: Secret,
    /// Whom to believe over TLS; IPMI has no such thing.
    pub trust: Option<Trust>,
    /// Where its Redfish session is kept.
    pub keeper: Arc<dyn SessionKeeper>,
    /// Which system, where there are several.
    pub system: Option<String>,
    /// What a person says of it.
    pub facts: Facts,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Way {
    fn address(&self) -> Result<SocketAddr, BmcError> {
        let ip: IpAddr = self.endpoint.host.parse().map_err(|_| {
            BmcError::new(Kind::Unreachable, "the BMC is named, not numbered: write its address into its URL")
        })?;
        Ok(SocketAddr::new(ip, self.endpoint.port))
    }

    /// Opens a Redfish client, for a BMC or a power distribution unit.
    ///
    /// # Errors
    /// It names no address, or nobody is believed there.
    pub fn redfish(&self) -> Result<Redfish, BmcError> {
        let trust = self.trust.clone();
        let trust = trust.ok_or_else(|| BmcError::new(Kind::Pin, "no certificate is believed: give its pin"))?;
        let options = Options {
            trust,
            patience: Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(10) },
            system: self.system.clone(),
            keep_alive: false,
            keeper: self.keeper.clone(),
            facts: self.facts.clone(),
        };
        let credential = Credential { user: self.endpoint.user.clone(), password: self.password.clone() };
        Ok(Redfish::new(self.address()?, &self.endpoint.host, credential, options)?)
    }
}

impl Dial for Way {
    fn open(&self) -> Verb<'_, Box<dyn Controller>> {
        Box::pin(async {
            Ok(match self.endpoint.protocol {
                Protocol::Ipmi => {
                    let login = Login::new(self.endpoint.user.clone(), self.password.clone(), Privilege::Operator)
                        .map_err(|why| BmcError::new(Kind::Refused, why.to_string()))?;
                    let patience = IpmiPatience { retry: Duration::from_millis(700), tries: 4 };
                    let client = Client::open(self.address()?, &login, &Suite::PREFERENCE, patience).await?;
                    Box::new(client) as Box<dyn Controller>
                }
                Protocol::Redfish => Box::new(self.redfish()?) as Box<dyn Controller>,
            })
        })
    }
}

/// All stations. Hosts come and go while it is used.
#[derive(Debug, Default)]
pub struct Bmcs {
    stations: RwLock<BTreeMap<HostId, Arc<Station>>>,
}

impl Bmcs {
    /// Takes the BMC of a host, instead of the one that it had.
    pub fn set(&self, host: HostId, way: Way) {
        let station = Arc::new(Station::new(Box::new(way)));
        self.stations.write().unwrap_or_else(PoisonError::into_inner).insert(host, station);
    }

    /// Forgets the BMC of a host.
    pub fn remove(&self, host: HostId) {
        self.stations.write().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    /// All of them, in order of host.
    #[must_use]
    pub fn all(&self) -> Vec<(HostId, Arc<Station>)> {
        let stations = self.stations.read().unwrap_or_else(PoisonError::into_inner);
        stations.iter().map(|(host, station)| (*host, Arc::clone(station))).collect()
    }

    /// The BMC of a host.
    #[must_use]
    pub fn station(&self, host: HostId) -> Option<Arc<Station>> {
        self.stations.read().unwrap_or_else(PoisonError::into_inner).get(&host).cloned()
    }

    /// Gives every session back.
    pub async fn hang_up(&self) {
        let all = self.all();
        let each = all.iter().map(|(_, station)| tokio::time::timeout(Duration::from_secs(1), station.hang_up()));
        // One that does not answer keeps its session until it times out there; the next life finds it sealed.
        let _ = futures_util::future::join_all(each).await;
    }

    /// Makes one call. `None`: it may not leave, and nothing was sent.
    pub async fn call(
        &self,
        host: HostId,
        call: BmcCall,
        time: &RunningTime,
        may_leave: &(dyn Fn() -> bool + Send + Sync),
    ) -> Option<Reply> {
        let Some(station) = self.station(host) else { return Some(Reply::BmcTrouble(BmcTrouble::Silent)) };
        let withheld = AtomicBool::new(false);
        let leaves: Guard<'_> = &|| {
            let may = may_leave();
            withheld.store(!may, Ordering::SeqCst);
            may
        };
        let reply = match call {
            BmcCall::Identify => {
                let seen = station.fence(false, LIMIT, |bmc| bmc.identify()).await;
                seen.map(|seen| Reply::Identity(seen.machine.map(|guid| MachineId(u128::from_be_bytes(guid)))))
            }
            BmcCall::ReadPower => {
                let seen = station.fence(false, LIMIT, |bmc| bmc.readings()).await;
                seen.map(|seen| Reply::Power(bridge_both(&seen, beginning(time))))
            }
            BmcCall::ReadStage => match station.fence(false, LIMIT, |bmc| bmc.boot_stage()).await {
                Err(why) if why.kind == Kind::NotOffered => Ok(Reply::Stage(signal::BootStage::None)),
                other => other.map(|seen| Reply::Stage(stage(seen))),
            },
            BmcCall::ForceOff => power(&station, PowerCommand::Off, leaves).await,
            BmcCall::PowerOn => power(&station, PowerCommand::On, leaves).await,
            BmcCall::SetNetworkBootOnce => {
                let set =
                    station.fence(true, LIMIT, |bmc| bmc.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, leaves)).await;
                set.map(|_| Reply::Ok)
            }
            BmcCall::ReadNetworkBootOnce => {
                let seen = station.fence(false, LIMIT, |bmc| bmc.boot_override()).await;
                seen.map(|seen| Reply::Flag(seen.device == Some(BootDevice::Pxe) && seen.lasts == BootLasts::Once))
            }
            // Neither protocol shows by a restart that the machine was off, so the crate has none.
            BmcCall::GracefulRestart => Ok(Reply::BmcTrouble(BmcTrouble::Busy)),
        };
        if withheld.load(Ordering::SeqCst) {
            return None;
        }
        Some(reply.unwrap_or_else(|why| refused(call, &why)))
    }
}

async fn power(station: &Station, command: PowerCommand, leaves: Guard<'_>) -> Result<Reply, BmcError> {
    let done = station.fence(true, LIMIT, |bmc| bmc.power(command, leaves)).await;
    done.map(|()| Reply::Ok)
}

fn refused(call: BmcCall, why: &BmcError) -> Reply {
    let writes = matches!(call, BmcCall::ForceOff | BmcCall::PowerOn);
    match why.kind {
        Kind::Credential => Reply::BmcTrouble(BmcTrouble::Refused),
        Kind::Refused if writes => Reply::Conflict,
        Kind::Busy(_) | Kind::Refused | Kind::NotOffered => Reply::BmcTrouble(BmcTrouble::Busy),
        Kind::Unreachable | Kind::Unknown | Kind::Pin | Kind::Hostile => Reply::BmcTrouble(BmcTrouble::Silent),
    }
}

/// The moment at which the running time was zero, on the clock of the readings.
pub(super) fn beginning(time: &RunningTime) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(time.now().elapsed.0)).unwrap_or(now)
}

fn stage(stage: BootStage) -> signal::BootStage {
    match stage {
        BootStage::Post | BootStage::Setup => signal::BootStage::Post,
        BootStage::OsLoading => signal::BootStage::OsStarting,
        BootStage::OsRunning => signal::BootStage::OsRunning,
        BootStage::Unknown => signal::BootStage::None,
    }
}
