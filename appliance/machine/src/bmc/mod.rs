//! The BMC: its own state, and how what it says differs from the truth when it misbehaves.

pub(crate) mod access;
pub(crate) mod fault;
pub(crate) mod message;
mod serve;

use crate::chance::Chance;
use crate::power::{Power, PowerWrite};
use crate::{At, Millis};
use access::Access;
use fault::BmcFault;
use message::{BmcEvent, BmcEventKind, BootOverride};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Entries that the event log holds.
const EVENTS_MAX: usize = 64;

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
    pub(crate) says_off_early: bool,
    pub(crate) says_on: bool,
    pub(crate) sideband: bool,
    pub(crate) ignores_boot: bool,
    pub(crate) keeps_boot: bool,
    pub(crate) no_boot_change_in_post: bool,
    pub(crate) ignores_power: bool,
    pub(crate) slow_off_ms: Millis,
    pub(crate) settles_after_off_ms: Millis,
    pub(crate) firmware_until: At,
    pub(crate) stale_ms: Millis,
    pub(crate) loses_reply: bool,
    pub(crate) repeats_ms: Option<Millis>,
    repeat: Option<(At, PowerWrite)>,
    pub(crate) conflicts: bool,
    pub(crate) shows_identity: Option<u128>,
    pub(crate) boot: BootOverride,
    pub(crate) media: Option<u64>,
    pub(crate) changed_at: At,
    pub(crate) power_before: Power,
    pub(crate) access: Access,
    events: VecDeque<BmcEvent>,
    last_event: u64,
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
            says_off_early: false,
            says_on: false,
            sideband: false,
            ignores_boot: false,
            keeps_boot: false,
            no_boot_change_in_post: false,
            ignores_power: false,
            slow_off_ms: 0,
            settles_after_off_ms: 0,
            firmware_until: 0,
            stale_ms: 0,
            loses_reply: false,
            repeats_ms: None,
            repeat: None,
            conflicts: false,
            shows_identity: None,
            boot: BootOverride::None,
            media: None,
            changed_at: 0,
            power_before: Power::On,
            access: Access::default(),
            events: VecDeque::new(),
            last_event: 0,
            chance: Chance::new(seed ^ 0xB3C0),
        }
    }

    pub(crate) fn inject(&mut self, now: At, fault: BmcFault) {
        match fault {
            BmcFault::Slow(ms) => self.slow_ms = ms,
            BmcFault::Refusing => self.refusing = true,
            BmcFault::Dead => self.dead = true,
            BmcFault::SessionsFull => self.sessions_full = true,
            BmcFault::Resetting(ms) => self.restarts(now, ms),
            BmcFault::SaysOff => self.says_off = true,
            BmcFault::SaysOffEarly => self.says_off_early = true,
            BmcFault::SaysOn => self.says_on = true,
            BmcFault::Sideband => self.sideband = true,
            BmcFault::IgnoresBoot => self.ignores_boot = true,
            BmcFault::KeepsBoot => self.keeps_boot = true,
            BmcFault::NoBootChangeInPost => self.no_boot_change_in_post = true,
            BmcFault::IgnoresPower => self.ignores_power = true,
            BmcFault::SlowOff(ms) => self.slow_off_ms = ms,
            BmcFault::SettlesAfterOff(ms) => self.settles_after_off_ms = ms,
            BmcFault::FirmwareTask(ms) => self.firmware_until = now + ms,
            BmcFault::Stale(ms) => self.stale_ms = ms,
            BmcFault::LosesReply => self.loses_reply = true,
            BmcFault::RepeatsPower(ms) => self.repeats_ms = Some(ms),
            BmcFault::Conflicts => self.conflicts = true,
            BmcFault::ShowsIdentity(identity) => self.shows_identity = Some(identity),
            BmcFault::Cured => self.is_cured(),
        }
    }

    /// Faults go; what it remembers of the host, its log and the record of manners stay.
    fn is_cured(&mut self) {
        let mut access = std::mem::take(&mut self.access);
        access.start_anew();
        *self = Bmc {
            chance: self.chance.clone(),
            boot: self.boot,
            media: self.media,
            changed_at: self.changed_at,
            power_before: self.power_before,
            access,
            events: std::mem::take(&mut self.events),
            last_event: self.last_event,
            ..Bmc::new(0)
        };
    }

    /// When it will next change by itself.
    pub(crate) fn next_change_at(&self, now: At) -> Option<At> {
        let ends = [self.resetting_until, self.firmware_until].into_iter().filter(|at| *at > now);
        ends.chain(self.repeat.map(|(at, _)| at)).min()
    }

    /// Remembers to apply a power write a second time, if it does such things.
    pub(crate) fn may_repeat(&mut self, now: At, write: PowerWrite) {
        if let Some(ms) = self.repeats_ms.take() {
            self.repeat = Some((now + ms, write));
        }
    }

    /// The write that is due a second time.
    pub(crate) fn take_repeat(&mut self, now: At) -> Option<PowerWrite> {
        let (_, write) = self.repeat.filter(|(at, _)| *at <= now)?;
        self.repeat = None;
        Some(write)
    }

    /// The override that this boot follows; a one-shot is used up by it.
    pub(crate) fn take_override(&mut self) -> BootOverride {
        let boot = if self.ignores_boot { BootOverride::None } else { self.boot };
        if !self.keeps_boot {
            self.boot = BootOverride::None;
        }
        boot
    }

    pub(crate) fn log(&mut self, at: At, kind: BmcEventKind) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.last_event += 1;
        self.events.push_back(BmcEvent { id: self.last_event, at, kind });
    }

    pub(crate) fn events(&self) -> Vec<BmcEvent> {
        self.events.iter().copied().collect()
    }

    /// One BMC request takes so long.
    pub(crate) fn latency(&mut self, range: (Millis, Millis)) -> Millis {
        self.chance.between(range) + self.slow_ms
    }

    /// It starts again: its sessions are gone, and so is what only hung in its memory.
    pub(crate) fn restarts(&mut self, now: At, lasts_ms: Millis) {
        self.resetting_until = now + lasts_ms;
        self.sessions_full = false;
        self.repeat = None;
        self.access.forget_sessions();
        self.log(now, BmcEventKind::BmcRestarted);
    }

    pub(crate) fn restarts_in(&mut self, now: At, range: (Millis, Millis)) {
        let lasts = self.chance.between(range);
        self.restarts(now, lasts);
    }

    /// The chassis lost its feed. A BMC that shares it dies with it, and whatever hung in it.
    pub(crate) fn lose_feed(&mut self, now: At, shared: bool) {
        if shared || self.sideband {
            self.dead = false;
            self.firmware_until = self.firmware_until.min(now);
            self.repeat = None;
            self.access.forget_sessions();
        }
    }

    /// The feed is back. A BMC that shares it has to start first.
    pub(crate) fn regain_feed(&mut self, now: At, shared: bool, boot_ms: (Millis, Millis)) {
        if shared || self.sideband {
            self.restarts_in(now, boot_ms);
        }
    }
}
