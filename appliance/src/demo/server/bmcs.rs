//! The BMCs of the rack as the server has them: one station each, over the real protocols.

use crate::act::bmc_reading::bridge;
use crate::decide_loop::RunningTime;
use bmc::boot::{BootDevice, BootLasts, BootMode, BootStage};
use bmc::controller::{BmcError, Controller, Kind, Verb};
use bmc::endpoint::Protocol;
use bmc::ipmi::client::{Client, Patience as IpmiPatience};
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::redfish::{Credential, Facts, Fingerprint, MemoryKeeper, Options, Patience, Redfish, Trust};
use bmc::station::{Dial, Station};
use bmc::{Endpoint, PowerCommand, Secret};
use healing::command::{BmcCall, Reply};
use healing::id::{HostId, MachineId};
use healing::signal::{self, BmcTrouble};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A call on a BMC is done within this, or it is unanswered.
const LIMIT: Duration = Duration::from_secs(14);

/// How one BMC is reached.
struct Way {
    endpoint: Endpoint,
    password: Secret,
    pin: Fingerprint,
    keeper: Arc<MemoryKeeper>,
}

impl Dial for Way {
    fn open(&self) -> Verb<'_, Box<dyn Controller>> {
        Box::pin(async {
            let ip: IpAddr = self
                .endpoint
                .host
                .parse()
                .map_err(|_| BmcError::new(Kind::Unreachable, "the BMC's address is no address"))?;
            let address = SocketAddr::new(ip, self.endpoint.port);
            Ok(match self.endpoint.protocol {
                Protocol::Ipmi => {
                    let login = Login::new(self.endpoint.user.clone(), self.password.clone(), Privilege::Operator)
                        .map_err(|why| BmcError::new(Kind::Refused, why.to_string()))?;
                    let patience = IpmiPatience { retry: Duration::from_millis(700), tries: 4 };
                    Box::new(Client::open(address, &login, &Suite::PREFERENCE, patience).await?) as Box<dyn Controller>
                }
                Protocol::Redfish => {
                    let options = Options {
                        trust: Trust::Pin(self.pin),
                        patience: Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(10) },
                        system: None,
                        keep_alive: false,
                        keeper: self.keeper.clone(),
                        facts: Facts::default(),
                    };
                    let credential = Credential { user: self.endpoint.user.clone(), password: self.password.clone() };
                    Box::new(Redfish::new(address, &self.endpoint.host, credential, options)?) as Box<dyn Controller>
                }
            })
        })
    }
}

/// All stations.
#[derive(Debug, Default)]
pub(crate) struct Bmcs {
    stations: BTreeMap<HostId, Arc<Station>>,
}

impl Bmcs {
    pub(crate) fn add(&mut self, host: HostId, endpoint: Endpoint, password: Secret, pin: Fingerprint) {
        let way = Way { endpoint, password, pin, keeper: Arc::default() };
        self.stations.insert(host, Arc::new(Station::new(Box::new(way))));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (HostId, Arc<Station>)> {
        self.stations.iter().map(|(host, station)| (*host, station.clone()))
    }

    pub(crate) fn station(&self, host: HostId) -> Option<Arc<Station>> {
        self.stations.get(&host).cloned()
    }

    /// Gives every session back.
    pub(crate) async fn hang_up(&self) {
        for station in self.stations.values() {
            let _ = tokio::time::timeout(Duration::from_secs(1), station.hang_up()).await;
        }
    }

    /// Makes one call. `None`: it may not leave, and nothing was sent.
    pub(crate) async fn call(
        &self,
        host: HostId,
        call: BmcCall,
        time: &RunningTime,
        may_leave: &(dyn Fn() -> bool + Send + Sync),
    ) -> Option<Reply> {
        let Some(station) = self.stations.get(&host) else { return Some(Reply::BmcTrouble(BmcTrouble::Silent)) };
        let withheld = AtomicBool::new(false);
        let leaves = || {
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
                seen.map(|seen| Reply::Power(bridge(&seen.main, beginning(time))))
            }
            BmcCall::ReadStage => match station.fence(false, LIMIT, |bmc| bmc.boot_stage()).await {
                Err(why) if why.kind == Kind::NotOffered => Ok(Reply::Stage(signal::BootStage::None)),
                other => other.map(|seen| Reply::Stage(stage(seen))),
            },
            BmcCall::ForceOff => self.power(station, PowerCommand::Off, &leaves).await,
            BmcCall::PowerOn => self.power(station, PowerCommand::On, &leaves).await,
            BmcCall::SetNetworkBootOnce => {
                let set = station
                    .fence(true, LIMIT, |bmc| {
                        if leaves() { bmc.set_boot_once(&BootDevice::Pxe, BootMode::Uefi) } else { withhold() }
                    })
                    .await;
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

    async fn power(
        &self,
        station: &Station,
        command: PowerCommand,
        leaves: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Reply, BmcError> {
        let done = station.fence(true, LIMIT, |bmc| if leaves() { bmc.power(command) } else { withhold() }).await;
        done.map(|()| Reply::Ok)
    }
}

fn withhold<'a, T: Send + 'a>() -> Verb<'a, T> {
    Box::pin(async { Err(BmcError::new(Kind::Unreachable, "not sent: it may not leave any more")) })
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
fn beginning(time: &RunningTime) -> Instant {
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
