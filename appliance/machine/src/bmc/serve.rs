//! How the BMC serves a request.

use crate::bmc::message::{BmcError, BmcOutcome, BmcReply, BmcRequest, BootOverride, PowerRead, StageRead};
use crate::host::Machine;
use crate::power::{AfterShutdown, OffCause, Power, PowerWrite};
use crate::{At, Millis};

/// A caller gives a silent BMC up after this.
const GIVE_UP_MS: Millis = 3_000;

impl Machine {
    /// Sends a request to the BMC, in a session that it knows. The effect, if any, happens now; the reply arrives later.
    pub fn bmc_request(&mut self, at: At, request: BmcRequest) -> BmcOutcome {
        self.advance(at);
        let now = self.at;
        let arrives_at = now + self.bmc.latency(self.spec.bmc_ms);
        if let Err(error) = self.bmc_answers(now) {
            let silent = error == BmcError::Silent;
            if self.bmc.refusing && error == BmcError::Refused && now >= self.bmc.access.locked_until {
                let (after, lasts) = (self.spec.bmc_lockout_after, self.spec.bmc_lockout_ms);
                self.bmc.access.note_wrong_password(now, after, lasts);
            }
            return BmcOutcome { arrives_at: if silent { now + GIVE_UP_MS } else { arrives_at }, result: Err(error) };
        }
        self.bmc.access.note_request(now, request, arrives_at);
        let result = self.bmc_serve(request);
        self.note_silence();
        if request.writes_power() && std::mem::take(&mut self.bmc.loses_reply) {
            return BmcOutcome { arrives_at: now + GIVE_UP_MS, result: Err(BmcError::ReplyLost) };
        }
        BmcOutcome { arrives_at, result }
    }

    pub(crate) fn bmc_is_silent(&self, at: At) -> bool {
        let unfed = (self.bmc.sideband || self.spec.bmc_shares_feed) && !self.feed;
        self.bmc.dead || unfed || at < self.bmc.resetting_until
    }

    /// Whether the BMC would answer a read now, without asking it.
    ///
    /// # Errors
    /// Why it would not.
    pub fn bmc_answers(&self, at: At) -> Result<(), BmcError> {
        if self.bmc_is_silent(at) {
            return Err(BmcError::Silent);
        }
        if self.bmc.refusing || at < self.bmc.access.locked_until {
            return Err(BmcError::Refused);
        }
        if self.bmc.sessions_full {
            return Err(BmcError::Busy);
        }
        Ok(())
    }

    /// The identity that the BMC shows.
    #[must_use]
    pub fn bmc_identity(&self) -> u128 {
        self.bmc.shows_identity.unwrap_or(self.spec.identity)
    }

    /// What the BMC says about the power, without a request.
    #[must_use]
    pub fn bmc_power(&self, at: At) -> PowerRead {
        let mut power = self.power();
        if self.bmc.stale_ms > 0 && at < self.bmc.changed_at + self.bmc.stale_ms {
            power = self.bmc.power_before;
        }
        if self.bmc.says_off_early && power == Power::GoingOff {
            power = Power::Off;
        }
        if self.bmc.says_on {
            power = Power::On;
        }
        if self.bmc.says_off_now {
            power = Power::Off;
        }
        let cause = if power == Power::Off { self.off_cause } else { OffCause::Unknown };
        PowerRead { power, identity: self.bmc_identity(), cause }
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

    fn bmc_serve(&mut self, request: BmcRequest) -> Result<BmcReply, BmcError> {
        let now = self.at;
        Ok(match request {
            BmcRequest::Identify => BmcReply::Identity(self.bmc_identity()),
            BmcRequest::ReadPower => BmcReply::Power(self.bmc_power(now)),
            BmcRequest::ReadStage => BmcReply::Stage(self.bmc_stage(now)),
            BmcRequest::ReadTask => BmcReply::Task(self.firmware_task(now)),
            BmcRequest::ReadHealth => BmcReply::Health(self.hardware),
            BmcRequest::ReadEvents => BmcReply::Events(self.bmc.events()),
            BmcRequest::ReadWatts => BmcReply::Watts(self.watts()),
            BmcRequest::ReadBootOnce => BmcReply::Boot(self.bmc.boot),
            BmcRequest::SetBootOnce(boot) => self.set_boot(boot)?,
            BmcRequest::InsertMedia(_) if self.bmc.media.is_some() => BmcReply::Conflict,
            BmcRequest::InsertMedia(job) => {
                self.bmc.media = Some(job);
                BmcReply::Accepted
            }
            BmcRequest::EjectMedia => {
                self.bmc.media = None;
                BmcReply::Accepted
            }
            BmcRequest::ReadMedia => BmcReply::Media(self.bmc.media),
            BmcRequest::Reset => {
                let range = self.spec.bmc_boot_ms;
                self.bmc.restarts_in(now, range);
                BmcReply::Accepted
            }
            BmcRequest::ForceOff
            | BmcRequest::PowerOn
            | BmcRequest::ForceRestart
            | BmcRequest::GracefulRestart
            | BmcRequest::GracefulShutdown => self.serve_power(request),
        })
    }

    fn set_boot(&mut self, boot: BootOverride) -> Result<BmcReply, BmcError> {
        if self.bmc.no_boot_change_in_post && self.stage_read() == StageRead::Post {
            return Err(BmcError::Busy);
        }
        if !self.bmc.ignores_boot {
            self.bmc.boot = boot;
        }
        Ok(BmcReply::Accepted)
    }

    fn serve_power(&mut self, request: BmcRequest) -> BmcReply {
        let now = self.at;
        match request {
            BmcRequest::ForceOff if self.bmc.says_off => self.bmc.says_off_now = true,
            BmcRequest::PowerOn => self.bmc.says_off_now = false,
            _ => {}
        }
        let power = self.power();
        let settling = power == Power::Off && now < self.bmc.changed_at + self.bmc.settles_after_off_ms;
        let refused = match request {
            BmcRequest::ForceOff => self.bmc.conflicts && power == Power::Off,
            BmcRequest::PowerOn => settling || (self.bmc.conflicts && power == Power::On),
            _ => false,
        };
        if refused {
            return BmcReply::Conflict;
        }
        if self.bmc.ignores_power || (self.bmc.says_off && request == BmcRequest::ForceOff) {
            return BmcReply::Accepted;
        }
        let write = match request {
            BmcRequest::ForceOff => Some(PowerWrite::Off),
            BmcRequest::PowerOn => Some(PowerWrite::On),
            BmcRequest::ForceRestart => Some(PowerWrite::Restart),
            _ => None,
        };
        match (write, request) {
            (Some(write), _) => {
                self.apply_power(write);
                self.bmc.may_repeat(now, write);
            }
            (None, BmcRequest::GracefulShutdown) => self.shut_down(AfterShutdown::Off(OffCause::Command)),
            (None, _) => self.shut_down(AfterShutdown::Restart),
        }
        BmcReply::Accepted
    }
}
