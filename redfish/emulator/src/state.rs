//! The BMC's state, apart from every socket: the host, what is wrong, sessions, and a count of what was asked.

use crate::misbehaviour::Misbehaviour;
use crate::model::Model;
use crate::serial::Serial;
use crate::task::Task;
use bmc::Secret;
use machine::{BmcError, BmcEvent, BmcFault, BmcOutcome, BmcReply, BmcRequest, Fault, Machine, Power, StageRead};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was asked, counted. Ground truth for those who check a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Requests and commands of any kind.
    pub requests: u64,
    /// Hard offs that arrived.
    pub offs: u64,
    /// Ons that arrived.
    pub ons: u64,
    /// Restarts, cycles and resets that arrived.
    pub restarts: u64,
    /// Orderly shutdowns that arrived.
    pub shutdowns: u64,
    /// Diagnostic interrupts that arrived.
    pub interrupts: u64,
    /// Requests that carried a credential.
    pub credentials: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Most requests that were under way at the same time.
    pub overlap_most: u32,
}

impl Counted {
    /// Commands that change the power, or may.
    #[must_use]
    pub fn powered(&self) -> u64 {
        self.offs + self.ons + self.restarts + self.shutdowns
    }
}

/// An account.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) password: Secret,
    pub(crate) privilege: u8,
    pub(crate) enabled: bool,
    /// It may send messages over IPMI.
    pub(crate) messaging: bool,
}

impl Account {
    /// One that may do everything.
    pub(crate) fn administrator(name: String, password: Secret) -> Account {
        Account { name, password, privilege: 4, enabled: true, messaging: true }
    }

    /// A place in the list that nobody uses.
    pub(crate) fn unused() -> Account {
        let password = Secret::new(Vec::new());
        Account { name: String::new(), password, privilege: 0x0f, enabled: false, messaging: false }
    }
}

/// A session over Redfish.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: u32,
    pub(crate) token: String,
    pub(crate) user: String,
}

/// The one-shot override as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) target: String,
    pub(crate) enabled: String,
    pub(crate) mode: String,
    pub(crate) uri: Option<String>,
    /// IPMI parameter 5, as last set; 0 = not valid.
    pub(crate) ipmi: [u8; 5],
    pub(crate) ipmi_set_at_ms: u64,
    pub(crate) ipmi_expires: bool,
}

impl Default for Boot {
    fn default() -> Boot {
        Boot {
            target: "None".to_owned(),
            enabled: "Disabled".to_owned(),
            mode: "UEFI".to_owned(),
            uri: None,
            ipmi: [0; 5],
            ipmi_set_at_ms: 0,
            ipmi_expires: true,
        }
    }
}

/// Of the first byte of the boot flags: for all boots, not only for the next (IPMI 2.0, table 28-14).
pub(crate) const PERSISTENT: u8 = 0x40;

/// Everything.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    pub(crate) wrong: BTreeSet<Misbehaviour>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) tasks: BTreeMap<u32, Task>,
    /// Power commands that had come when the identity began to change with the next one.
    pub(crate) powered_before: u64,
    pub(crate) boot: Boot,
    in_post: bool,
    pub(crate) media: Option<String>,
    pub(crate) counted: Counted,
    pub(crate) under_way: u32,
    pub(crate) serial: Serial,
    /// Reservations over IPMI; the newest counts.
    pub(crate) log_reservation: u16,
    pub(crate) sensor_reservation: u16,
    /// Events up to this number were cleared.
    log_cleared_to: u64,
    pub(crate) log_cleared_at_ms: Option<u64>,
    pub(crate) version: u64,
}

impl State {
    pub(crate) fn has(&self, wrong: Misbehaviour) -> bool {
        self.wrong.contains(&wrong)
    }

    /// The identity as it is shown, of the one that the BMC has.
    pub(crate) fn shown(&self, identity: u128) -> u128 {
        let changed = self.has(Misbehaviour::IdentityChanges) && self.counted.powered() > self.powered_before;
        if changed { identity ^ (1 << 64) } else { identity }
    }

    /// The BMC's identity as it is shown.
    pub(crate) fn identity(&self) -> u128 {
        self.shown(self.machine.bmc_identity())
    }

    /// Asks the machine's BMC. Counts what came, done or not.
    pub(crate) fn ask(&mut self, at: u64, request: BmcRequest) -> BmcOutcome {
        match request {
            BmcRequest::ForceOff => self.counted.offs += 1,
            BmcRequest::PowerOn => self.counted.ons += 1,
            BmcRequest::ForceRestart | BmcRequest::GracefulRestart => self.counted.restarts += 1,
            BmcRequest::GracefulShutdown => self.counted.shutdowns += 1,
            _ => {}
        }
        if request.writes() {
            self.version += 1;
        }
        self.settle(at);
        let outcome = self.machine.bmc_request(at, request);
        self.settle(at);
        outcome
    }

    /// Lets time pass: a boot uses a one-shot override up.
    pub(crate) fn settle(&mut self, at: u64) {
        // Change by change: the serial port prints each.
        while let Some(change_at) = self.machine.next_change_at().filter(|change_at| *change_at <= at) {
            self.machine.advance(change_at);
            self.follow();
        }
        self.machine.advance(at);
        self.follow();
        if self.boot.ipmi_expires && at > self.boot.ipmi_set_at_ms + 60_000 {
            self.boot.ipmi = [0; 5];
        }
    }

    /// Takes note of where the machine is on its way. Firmware that is through with its self test has used an override up,
    /// long before a kernel runs.
    fn follow(&mut self) {
        self.serial.follow(&self.machine);
        let stage = self.machine.bmc_stage(self.machine.now());
        let booting = self.in_post && matches!(stage, StageRead::Starting | StageRead::Running);
        self.in_post = stage == StageRead::Post;
        if booting {
            if self.boot.enabled == "Once" {
                self.boot = Boot { mode: self.boot.mode.clone(), ..Boot::default() };
            }
            if self.boot.ipmi[0] & PERSISTENT == 0 {
                self.boot.ipmi = [0; 5];
            }
        }
    }

    /// What the system says of its power, and what is true of the chassis.
    pub(crate) fn power(&mut self, at: u64) -> (Power, Power) {
        self.settle(at);
        (self.machine.bmc_power(at).power, self.machine.power())
    }

    /// The event log, oldest first; none of what was cleared.
    pub(crate) fn events(&mut self, at: u64) -> Vec<BmcEvent> {
        match self.ask(at, BmcRequest::ReadEvents).result {
            Ok(BmcReply::Events(events)) => events.into_iter().filter(|event| event.id > self.log_cleared_to).collect(),
            _ => Vec::new(),
        }
    }

    /// Clears the event log.
    pub(crate) fn clear_events(&mut self, at: u64) {
        if let Some(last) = self.events(at).last() {
            self.log_cleared_to = last.id;
        }
        self.log_cleared_at_ms = Some(at);
    }

    pub(crate) fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.enabled && account.name == name)
    }

    /// The account, if it may open a session over IPMI.
    pub(crate) fn ipmi_account(&self, name: &str) -> Option<&Account> {
        self.account(name).filter(|account| account.messaging && (1..=4).contains(&account.privilege))
    }

    /// Whether a name and password are right; a wrong one counts towards the lock.
    pub(crate) fn right(&self, name: &str, password: &[u8]) -> bool {
        let given = Secret::new(password.to_vec());
        self.account(name).is_some_and(|account| account.password == given)
    }
}

/// The state with its clock, shared by the servers and whoever controls it.
#[derive(Clone)]
pub struct Handle {
    state: Arc<Mutex<State>>,
    began: Instant,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(machine: Machine, model: Model, accounts: Vec<Account>) -> Handle {
        let serial = Serial::new(&machine);
        let state = State {
            machine,
            model,
            wrong: BTreeSet::new(),
            accounts,
            sessions: Vec::new(),
            tasks: BTreeMap::new(),
            powered_before: 0,
            boot: Boot::default(),
            in_post: false,
            media: None,
            counted: Counted::default(),
            under_way: 0,
            serial,
            log_reservation: 0,
            sensor_reservation: 0,
            log_cleared_to: 0,
            log_cleared_at_ms: None,
            version: 1,
        };
        Handle { state: Arc::new(Mutex::new(state)), began: Instant::now() }
    }

    /// One with an ordinary machine that is on.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn of_test() -> Handle {
        let account = Account::administrator("admin".to_owned(), Secret::new(b"secret".to_vec()));
        let machine = Machine::new(machine::Spec::default(), 1);
        Handle::new(machine, crate::model::by_name("dell_r750").unwrap(), vec![account])
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are of one emulator.
    pub(crate) fn is(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Milliseconds of its life.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long until then.
    pub(crate) fn until(&self, at: u64) -> Duration {
        Duration::from_millis(at.saturating_sub(self.now()))
    }

    /// Switches a misbehaviour.
    pub fn set(&self, wrong: Misbehaviour, on: bool) {
        let mut state = self.lock();
        if wrong == Misbehaviour::IdentityChanges {
            state.powered_before = state.counted.powered();
        }
        if on {
            state.wrong.insert(wrong)
        } else {
            state.wrong.remove(&wrong)
        };
    }

    /// Ends all misbehaviours of the wire and of the BMC.
    pub fn behave(&self) {
        let at = self.now();
        let mut state = self.lock();
        state.wrong.clear();
        state.machine.inject_bmc(at, BmcFault::Cured);
    }

    /// Something happens to the host.
    pub fn inject(&self, fault: Fault) {
        let at = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        state.settle(at);
        state.serial.strike(&state.machine, fault);
        state.machine.inject(at, fault);
        state.settle(at);
    }

    /// The BMC itself goes wrong.
    pub fn inject_bmc(&self, fault: BmcFault) {
        let at = self.now();
        self.lock().machine.inject_bmc(at, fault);
    }

    /// Looks at the truth.
    pub fn machine<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        let at = self.now();
        let mut state = self.lock();
        state.settle(at);
        look(&state.machine)
    }

    /// What was asked so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.lock().counted
    }

    /// Redfish sessions that are open now.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        let at = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        state.sessions.retain(|session| state.machine.bmc_use_session(at, session.id));
        state.sessions.len()
    }

    /// The override as it is set now, in Redfish's words: target and duration.
    #[must_use]
    pub fn boot(&self) -> (String, String) {
        let state = self.lock();
        (state.boot.target.clone(), state.boot.enabled.clone())
    }

    /// The image in the virtual drive.
    #[must_use]
    pub fn media(&self) -> Option<String> {
        self.lock().media.clone()
    }

    /// A request begins; [`Handle::ends`] ends it.
    pub(crate) fn begins(&self) {
        let mut state = self.lock();
        state.under_way += 1;
        state.counted.requests += 1;
        state.counted.overlap_most = state.counted.overlap_most.max(state.under_way);
    }

    pub(crate) fn ends(&self) {
        let mut state = self.lock();
        state.under_way = state.under_way.saturating_sub(1);
    }
}

/// Whether a reply says that it was accepted.
pub(crate) fn accepted(outcome: &BmcOutcome) -> Result<bool, BmcError> {
    match &outcome.result {
        Ok(BmcReply::Conflict) => Ok(false),
        Ok(_) => Ok(true),
        Err(why) => Err(*why),
    }
}
