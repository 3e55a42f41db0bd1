//! A power distribution unit: outlets that feed emulated hosts. The second way to a host's power, beside its BMC, with lies
//! of its own.

use crate::certificate::Certificate;
use crate::emulator::Failed;
use crate::state::Handle;
use bmc::Secret;
use bmc::redfish::Fingerprint;
use machine::{Fault, OffCause};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How a unit misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PduMisbehaviour {
    /// An off is accepted and shown, and the relay sticks: watts flow.
    SaysOff,
    /// A command is accepted without effect.
    IgnoresCommands,
    /// A command switches the outlet beside the one that was named: the cabling plan is off by one.
    WrongOutlet,
}

/// How a unit is made.
#[derive(Debug, Clone)]
pub struct PduSetup {
    /// What hangs on each outlet, if anything. A host on two outlets has two feeds and dies with the second.
    pub outlets: Vec<Option<Handle>>,
    /// Its administrator.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// TCP port of Redfish on loopback; 0 = any.
    pub port: u16,
}

impl PduSetup {
    /// A unit that feeds these hosts by one outlet each, with the account `admin`, password `secret-of-a-pdu`.
    #[must_use]
    pub fn feeding(hosts: &[&Handle]) -> PduSetup {
        PduSetup {
            outlets: hosts.iter().map(|host| Some((*host).clone())).collect(),
            user: "admin".to_owned(),
            password: Secret::new(b"secret-of-a-pdu".to_vec()),
            port: 0,
        }
    }
}

/// An outlet.
#[derive(Debug)]
pub(crate) struct Outlet {
    host: Option<Handle>,
    /// What it says.
    pub(crate) says_on: bool,
    /// What its relay does.
    closed: bool,
}

/// Everything of a unit.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) wrong: BTreeSet<PduMisbehaviour>,
    pub(crate) sessions: Vec<(u32, String)>,
    pub(crate) last_session: u32,
    pub(crate) user: String,
    pub(crate) password: Secret,
    switched: u64,
}

impl Unit {
    fn new(setup: PduSetup) -> Unit {
        let outlets = setup.outlets.into_iter().map(|host| {
            let fed = host.as_ref().is_none_or(|host| host.machine(machine::Machine::fed));
            Outlet { host, says_on: fed, closed: fed }
        });
        Unit {
            outlets: outlets.collect(),
            wrong: BTreeSet::new(),
            sessions: Vec::new(),
            last_session: 0,
            user: setup.user,
            password: setup.password,
            switched: 0,
        }
    }

    pub(crate) fn right(&self, user: &str, password: &[u8]) -> bool {
        self.user == user && self.password == Secret::new(password.to_vec())
    }

    /// Outlets that feed this host now.
    fn feeds(&self, host: &Handle) -> u32 {
        let feeds = |outlet: &&Outlet| outlet.closed && outlet.host.as_ref().is_some_and(|other| other.is(host));
        u32::try_from(self.outlets.iter().filter(feeds).count()).unwrap_or(u32::MAX)
    }

    /// What flows through an outlet: a host with two feeds draws half from each.
    pub(crate) fn watts(&self, place: usize) -> u32 {
        let outlet = self.outlets.get(place).filter(|outlet| outlet.closed);
        let host = outlet.and_then(|outlet| outlet.host.as_ref());
        host.map_or(0, |host| host.machine(machine::Machine::watts) / self.feeds(host).max(1))
    }

    /// Takes a command for an outlet, and does what it does with it.
    pub(crate) fn switch(&mut self, place: usize, on: bool) {
        self.switched += 1;
        if self.wrong.contains(&PduMisbehaviour::IgnoresCommands) {
            return;
        }
        let beside = self.wrong.contains(&PduMisbehaviour::WrongOutlet);
        let place = if beside { (place + 1) % self.outlets.len().max(1) } else { place };
        let sticks = !on && self.wrong.contains(&PduMisbehaviour::SaysOff);
        let Some(outlet) = self.outlets.get_mut(place) else { return };
        outlet.says_on = on;
        if sticks || std::mem::replace(&mut outlet.closed, on) == on {
            return;
        }
        let Some(host) = outlet.host.clone() else { return };
        let fed = host.machine(machine::Machine::fed);
        match self.feeds(&host) {
            0 if fed => host.inject(Fault::PowerLost(OffCause::AcLoss)),
            feeds if feeds > 0 && !fed => host.inject(Fault::PowerReturns),
            _ => {}
        }
    }
}

/// Controls a unit and knows the truth about it.
#[derive(Debug, Clone)]
pub struct PduHandle {
    unit: Arc<Mutex<Unit>>,
}

impl PduHandle {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Unit> {
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches a misbehaviour.
    pub fn set(&self, wrong: PduMisbehaviour, on: bool) {
        let mut unit = self.lock();
        if on {
            unit.wrong.insert(wrong)
        } else {
            unit.wrong.remove(&wrong)
        };
    }

    /// Whether the relay of an outlet, counted from 1, is closed in truth.
    #[must_use]
    pub fn is_closed(&self, outlet: usize) -> bool {
        let unit = self.lock();
        outlet.checked_sub(1).and_then(|place| unit.outlets.get(place)).is_some_and(|outlet| outlet.closed)
    }

    /// Commands for outlets that arrived.
    #[must_use]
    pub fn switched(&self) -> u64 {
        self.lock().switched
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.lock().sessions.len()
    }
}

/// A unit that runs until it is dropped. Its hosts run on.
#[derive(Debug)]
pub struct Pdu {
    address: SocketAddr,
    fingerprint: Fingerprint,
    handle: PduHandle,
    task: JoinHandle<()>,
}

impl Drop for Pdu {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pdu {
    /// Starts one, in the runtime of the caller.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(setup: PduSetup, certificate: &Certificate) -> Result<Pdu, Failed> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), setup.port);
        let failed = |source| Failed::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let handle = PduHandle { unit: Arc::new(Mutex::new(Unit::new(setup))) };
        let task = tokio::spawn(crate::pdu_service::serve(listener, handle.clone(), certificate.acceptor()));
        Ok(Pdu { address: bound, fingerprint: certificate.fingerprint(), handle, task })
    }

    /// Where its Redfish is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What controls it and knows the truth.
    #[must_use]
    pub fn handle(&self) -> &PduHandle {
        &self.handle
    }
}
