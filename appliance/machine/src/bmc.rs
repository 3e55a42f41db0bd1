//! The BMC: requests, replies, and how they differ from the truth when it misbehaves.

use crate::chance::Chance;
use crate::fault::BmcFault;
use crate::host::{Machine, OffCause, Power};
use crate::{At, Millis};
use serde::{Deserialize, Serialize};

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcRequest {
    /// Live identity.
    Identify,
    /// Power, identity and off cause in one session.
    ReadPower,
    /// Force off.
    ForceOff,
    /// Power on.
    PowerOn,
    /// Orderly restart through the operating system.
    GracefulRestart,
    /// Boot progress and firmware tasks.
    ReadStage,
    /// Boot from the network, once.
    SetNetworkBootOnce,
    /// Read that back.
    ReadNetworkBootOnce,
    /// Hardware health.
    ReadHealth,
    /// Restart the BMC itself.
    Reset,
}

/// The one-shot boot override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BootOverride {
    /// None.
    #[default]
    None,
    /// Network, once.
    NetworkOnce,
}

/// A power reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerRead {
    /// What it says.
    pub power: Power,
    /// The identity it shows.
    pub identity: u128,
    /// Why it is off, if it is.
    pub cause: OffCause,
}

/// Boot progress as the BMC tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageRead {
    /// Nothing.
    None,
    /// Self test.
    Post,
    /// The operating system starts.
    Starting,
    /// It runs.
    Running,
    /// An orderly shutdown.
    ShuttingDown,
    /// A firmware task.
    FirmwareTask,
}

/// A reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcReply {
    /// Accepted.
    Accepted,
    /// It is so already (409).
    Conflict,
    /// Identity.
    Identity(u128),
    /// Power.
    Power(PowerRead),
    /// Stage.
    Stage(StageRead),
    /// The override.
    Boot(BootOverride),
    /// Hardware health: `None` is good.
    Health(Option<crate::fault::HardwareKind>),
}

/// No reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcError {
    /// No answer at all.
    Silent,
    /// Wrong credential.
    Refused,
    /// Busy or no session free.
    Busy,
    /// The request took effect; its reply was lost.
    ReplyLost,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcOutcome {
    /// When the reply (or the caller's certainty that none comes) arrives.
    pub arrives_at: At,
    /// The reply.
    pub result: Result<BmcReply, BmcError>,
}

/// A caller gives a silent BMC up after this.
const GIVE_UP_MS: Millis = 3_000;

/// State of the BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bmc {
    pub(crate) slow_ms: Millis,
    pub(crate) refusing: bool,
    pub(crate) dead: bool,
    pub(crate) sessions_full: bool,
    pub(crate) resetting_until: At,
    pub(crate) says_off: bool,
    pub(crate) says_off_now: bool,
    pub(crate) says_on: bool,
    pub(crate) sideband: bool,
    pub(crate) ignores_boot: bool,
    pub(crate) ignores_power: bool,
    pub(crate) firmware_until: At,
    pub(crate) stale_ms: Millis,
    pub(crate) loses_reply: bool,
    pub(crate) conflicts: bool,
    pub(crate) boot: BootOverride,
    pub(crate) changed_at: At,
    pub(crate) power_before: Power,
    chance: Chance,
}

impl Bmc {
    pub(crate) fn new(seed: u64) -> Bmc {
        Bmc {
            slow_ms: 0,
            refusing: false,
            dead: false,
            sessions_full: false,
            resetting_until: 0,
            says_off: false,
            says_off_now: false,
            says_on: false,
            sideband: false,
            ignores_boot: false,
            ignores_power: false,
            firmware_until: 0,
            stale_ms: 0,
            loses_reply: false,
            conflicts: false,
            boot: BootOverride::None,
            changed_at: 0,
            power_before: Power::On,
            chance: Chance::new(seed ^ 0xB3C0),
        }
    }

    pub(crate) fn inject(&mut self, at: At, fault: BmcFault) {
        match fault {
            BmcFault::Slow(ms) => self.slow_ms = ms,
            BmcFault::Refusing => self.refusing = true,
            BmcFault::Dead => self.dead = true,
            BmcFault::SessionsFull => self.sessions_full = true,
            BmcFault::Resetting(ms) => self.resetting_until = at + ms,
            BmcFault::SaysOff => self.says_off = true,
            BmcFault::SaysOn => self.says_on = true,
            BmcFault::Sideband => self.sideband = true,
            BmcFault::IgnoresBoot => self.ignores_boot = true,
            BmcFault::IgnoresPower => self.ignores_power = true,
            BmcFault::FirmwareTask(ms) => self.firmware_until = at + ms,
            BmcFault::Stale(ms) => self.stale_ms = ms,
            BmcFault::LosesReply => self.loses_reply = true,
            BmcFault::Conflicts => self.conflicts = true,
            BmcFault::Cured => {
                let (chance, boot) = (self.chance.clone(), self.boot);
                *self =
                    Bmc { chance, boot, changed_at: self.changed_at, power_before: self.power_before, ..Bmc::new(0) };
            }
        }
    }
}

impl Machine {
    /// Sends a request to the BMC. The effect, if any, happens now; the reply arrives later.
    pub fn bmc_request(&mut self, at: At, request: BmcRequest) -> BmcOutcome {
        self.advance(at);
        let draw = self.bmc.chance.between(self.spec().bmc_ms);
        let arrives_at = at + draw + self.bmc.slow_ms;
        let fed = self.fed() || !self.bmc.sideband;
        if self.bmc.dead || !fed || at < self.bmc.resetting_until {
            return BmcOutcome { arrives_at: at + GIVE_UP_MS, result: Err(BmcError::Silent) };
        }
        if self.bmc.refusing {
            return BmcOutcome { arrives_at, result: Err(BmcError::Refused) };
        }
        if self.bmc.sessions_full {
            return BmcOutcome { arrives_at, result: Err(BmcError::Busy) };
        }
        let reply = self.bmc_serve(at, request);
        let writes = matches!(request, BmcRequest::ForceOff | BmcRequest::PowerOn | BmcRequest::GracefulRestart);
        if writes && std::mem::take(&mut self.bmc.loses_reply) {
            return BmcOutcome { arrives_at: at + GIVE_UP_MS, result: Err(BmcError::ReplyLost) };
        }
        BmcOutcome { arrives_at, result: Ok(reply) }
    }

    /// Whether the BMC would answer a read now, without asking it.
    ///
    /// # Errors
    /// Why it would not.
    pub fn bmc_answers(&self, at: At) -> Result<(), BmcError> {
        if self.bmc.dead || (self.bmc.sideband && !self.fed()) || at < self.bmc.resetting_until {
            return Err(BmcError::Silent);
        }
        if self.bmc.refusing {
            return Err(BmcError::Refused);
        }
        if self.bmc.sessions_full {
            return Err(BmcError::Busy);
        }
        Ok(())
    }

    /// What the BMC says about the power, without a request.
    #[must_use]
    pub fn bmc_power(&self, at: At) -> PowerRead {
        let mut power = self.power();
        if self.bmc.stale_ms > 0 && at < self.bmc.changed_at + self.bmc.stale_ms {
            power = self.bmc.power_before;
        }
        if self.bmc.says_on {
            power = Power::On;
        }
        if self.bmc.says_off_now {
            power = Power::Off;
        }
        let cause = if power == Power::Off { self.off_cause() } else { OffCause::Unknown };
        PowerRead { power, identity: self.spec().identity, cause }
    }

    /// A firmware task runs.
    #[must_use]
    pub fn firmware_task(&self, at: At) -> bool {
        at < self.bmc.firmware_until
    }

    /// What the BMC says about the boot.
    #[must_use]
    pub fn bmc_stage(&self, at: At) -> StageRead {
        if self.firmware_task(at) { StageRead::FirmwareTask } else { self.stage_read() }
    }

    fn bmc_serve(&mut self, at: At, request: BmcRequest) -> BmcReply {
        match request {
            BmcRequest::Identify => BmcReply::Identity(self.spec().identity),
            BmcRequest::ReadPower => BmcReply::Power(self.bmc_power(at)),
            BmcRequest::ReadStage => BmcReply::Stage(self.bmc_stage(at)),
            BmcRequest::ReadHealth => BmcReply::Health(self.hardware()),
            BmcRequest::ReadNetworkBootOnce => BmcReply::Boot(self.bmc.boot),
            BmcRequest::SetNetworkBootOnce => {
                if !self.bmc.ignores_boot {
                    self.bmc.boot = BootOverride::NetworkOnce;
                }
                BmcReply::Accepted
            }
            BmcRequest::Reset => {
                self.bmc.resetting_until = at + 60_000;
                BmcReply::Accepted
            }
            BmcRequest::ForceOff => {
                if self.bmc.says_off {
                    self.bmc.says_off_now = true;
                }
                if self.bmc.conflicts && self.power() == Power::Off {
                    return BmcReply::Conflict;
                }
                if !self.bmc.ignores_power && !self.bmc.says_off {
                    self.force_off(at);
                }
                BmcReply::Accepted
            }
            BmcRequest::PowerOn => {
                self.bmc.says_off_now = false;
                if self.bmc.conflicts && self.power() == Power::On {
                    return BmcReply::Conflict;
                }
                if !self.bmc.ignores_power {
                    self.power_on(at);
                }
                BmcReply::Accepted
            }
            BmcRequest::GracefulRestart => {
                if !self.bmc.ignores_power {
                    self.graceful_restart(at);
                }
                BmcReply::Accepted
            }
        }
    }
}
