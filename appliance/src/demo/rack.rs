//! The emulated rack: machines on real time, each behind a real BMC on loopback, and the switches between them and us.

use super::layout::Place;
use bmc::Secret;
use bmc_emulator::{Certificate, Counted, Emulator, Failed, Setup, by_name};
use machine::{Answers, Fault, Machine, Role};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Makes of the machines, in turn.
const MODELS: [&str; 4] = ["dell_r750", "hpe_dl385", "supermicro_x12", "openbmc"];
/// The account of every emulated BMC.
pub const USER: &str = "admin";

/// One host.
#[derive(Debug)]
pub struct Host {
    /// What it is.
    pub place: Place,
    /// Its BMC with the machine behind it.
    pub emulator: Emulator,
}

/// All hosts.
#[derive(Debug)]
pub struct Rack {
    /// The hosts in order of their numbers.
    pub hosts: Vec<Host>,
    /// The BMCs' certificate.
    pub certificate: Certificate,
    /// The BMCs' password, made for this run.
    pub password: Secret,
    /// Racks whose switch is down.
    dark: Mutex<BTreeSet<u32>>,
}

/// Why there is no rack.
#[derive(Debug, thiserror::Error)]
pub enum NoRack {
    /// A BMC.
    #[error(transparent)]
    Bmc(#[from] Failed),
    /// No password.
    #[error("no password can be drawn for the emulated BMCs: {0}")]
    Random(getrandom::Error),
    /// A make that is not there.
    #[error("there is no emulated make `{0}`")]
    Model(&'static str),
}

impl Rack {
    /// Starts the machines and their BMCs.
    ///
    /// # Errors
    /// A socket or a certificate is not to be had.
    pub async fn start(places: Vec<Place>) -> Result<Rack, NoRack> {
        let certificate = Certificate::make()?;
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(NoRack::Random)?;
        // Twenty characters are the most that IPMI 2.0 takes.
        let text: String = random.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
        let password = Secret::new(text.into_bytes());
        let mut hosts = Vec::new();
        for place in places {
            let name = MODELS[(place.id as usize - 1) % MODELS.len()];
            let model = by_name(name).ok_or(NoRack::Model(name))?;
            let setup = Setup {
                spec: place.spec(model.manufacturer, model.system_model),
                seed: u64::from(place.id),
                off: place.role == Role::Spare,
                user: USER.to_owned(),
                password: password.clone(),
                ..Setup::of(model)
            };
            let emulator = Emulator::start(setup, &certificate).await?;
            hosts.push(Host { place, emulator });
        }
        Ok(Rack { hosts, certificate, password, dark: Mutex::default() })
    }

    /// A host by its name or number.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.place.name == name || host.place.id.to_string() == name)
    }

    /// Switches the network of a rack.
    pub fn darken(&self, rack: u32, dark: bool) {
        let mut all = self.dark.lock().unwrap_or_else(PoisonError::into_inner);
        if dark {
            all.insert(rack)
        } else {
            all.remove(&rack)
        };
    }

    /// Whether the switch of a host's rack carries nothing.
    #[must_use]
    pub fn is_dark(&self, place: &Place) -> bool {
        self.dark.lock().unwrap_or_else(PoisonError::into_inner).contains(&place.rack)
    }

    /// What the network sees of a host; `None` = its switch is down.
    #[must_use]
    pub fn answers(&self, host: &Host) -> Option<Answers> {
        (!self.is_dark(&host.place)).then(|| host.machine(Machine::answers))
    }
}

impl Host {
    /// Looks at the truth.
    pub fn machine<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        self.emulator.handle().machine(look)
    }

    /// Something happens to it.
    pub fn inject(&self, fault: Fault) {
        self.emulator.handle().inject(fault);
    }

    /// What its BMC was asked.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.emulator.handle().counted()
    }
}
