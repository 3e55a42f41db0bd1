//! Power: what is on, what is on its way off, why it went off, and a record of each cut for those who check.

use crate::bmc::message::{BmcEventKind, StageRead};
use crate::host::{Machine, Run};
use crate::{At, Millis};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Power in truth or as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    /// On.
    On,
    /// Off.
    Off,
    /// Force-off was accepted and has not yet taken effect.
    GoingOff,
}

/// Why it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OffCause {
    /// Feed lost.
    AcLoss,
    /// Supply failed.
    Fault,
    /// A command.
    Command,
    /// The button.
    Button,
    /// Temperature.
    Thermal,
    /// Not known.
    #[default]
    Unknown,
}

/// One loss of power (or hard reset) of a machine that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// When it took effect.
    pub at: At,
    /// Why.
    pub by: OffCause,
    /// The operating system had shut down by itself first.
    pub orderly: bool,
    /// A hard reset: the power came back at once.
    pub reset: bool,
    /// The kubelet worked just before.
    pub kubelet_ok: bool,
    /// Nothing ailed it just before.
    pub healthy: bool,
    /// What it was doing.
    pub stage: StageRead,
    /// A firmware task ran: such a cut may destroy the machine.
    pub firmware_task: bool,
    /// The installer was writing the disk.
    pub writing: bool,
}

/// Cuts kept by [`PowerLedger::recent`].
const RECENT_MAX: usize = 16;

/// Ground truth about power, for checkers. Counts cover the whole life, `recent` the last 16 cuts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PowerLedger {
    /// Times that it went from off to on.
    pub power_ons: u32,
    /// Times that power was cut from a system that had not shut down, hard resets included.
    pub hard_cuts: u32,
    /// Those among them that hit a machine whose kubelet worked.
    pub hard_cuts_of_working: u32,
    /// Those among them that hit a running firmware task.
    pub hard_cuts_in_firmware_task: u32,
    /// The last cuts, oldest first.
    pub recent: VecDeque<Cut>,
}

impl PowerLedger {
    fn note(&mut self, cut: Cut) {
        if !cut.orderly {
            self.hard_cuts += 1;
            self.hard_cuts_of_working += u32::from(cut.kubelet_ok);
            self.hard_cuts_in_firmware_task += u32::from(cut.firmware_task);
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(cut);
    }
}

/// An orderly shutdown under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shutdown {
    pub(crate) until: At,
    pub(crate) then: AfterShutdown,
}

/// How an orderly shutdown ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AfterShutdown {
    Restart,
    Off(OffCause),
}

/// A write to power that a BMC may apply a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PowerWrite {
    Off,
    On,
    Restart,
}

/// Watts drawn: standby of a machine that is off, and what a running one draws.
const WATTS_OFF: u32 = 9;
const WATTS_ON: u32 = 240;

impl Machine {
    /// Power in truth.
    #[must_use]
    pub fn power(&self) -> Power {
        match self.run {
            Run::Off => Power::Off,
            _ if self.off_at.is_some() => Power::GoingOff,
            _ => Power::On,
        }
    }

    /// Why it is off; of a machine that is on, why it was off last.
    #[must_use]
    pub fn off_cause(&self) -> OffCause {
        self.off_cause
    }

    /// It has a feed.
    #[must_use]
    pub fn fed(&self) -> bool {
        self.feed
    }

    /// Each power-on and each cut so far, for checkers.
    #[must_use]
    pub fn power_ledger(&self) -> &PowerLedger {
        &self.ledger
    }

    /// Watts that it draws in truth: a witness beside the power reading.
    #[must_use]
    pub fn watts(&self) -> u32 {
        match self.run {
            _ if !self.feed || !self.supply => 0,
            Run::Off => WATTS_OFF,
            _ => WATTS_ON,
        }
    }

    fn note_cut(&mut self, by: OffCause, orderly: bool, reset: bool) {
        let truth = self.truth();
        let cut = Cut {
            at: self.at,
            by,
            orderly,
            reset,
            kubelet_ok: truth.kubelet_ok,
            healthy: truth.healthy,
            stage: self.stage_read(),
            firmware_task: self.firmware_task(self.at),
            writing: self.writes_disk(),
        };
        self.ledger.note(cut);
    }

    fn note_power_change(&mut self) {
        self.bmc.power_before = self.power();
        self.bmc.changed_at = self.at;
    }

    /// Power goes. A machine that is off already keeps the reason for which it went off.
    pub(crate) fn cut(&mut self, cause: OffCause, orderly: bool) {
        if self.run == Run::Off {
            return;
        }
        self.note_cut(cause, orderly, false);
        self.note_power_change();
        self.reset_volatile();
        self.run = Run::Off;
        self.off_cause = cause;
        self.bmc.log(self.at, BmcEventKind::PoweredOff(cause));
    }

    /// A hard reset by command: power stays, everything volatile goes.
    pub(crate) fn force_restart(&mut self) {
        if self.run == Run::Off {
            return;
        }
        self.note_cut(OffCause::Command, false, true);
        self.bmc.log(self.at, BmcEventKind::Reset);
        self.restart();
    }

    pub(crate) fn force_off(&mut self) {
        if self.run != Run::Off && self.off_at.is_none() {
            let span = self.chance.between(self.spec.off_ms);
            self.off_at = Some(self.at + span + self.bmc.slow_off_ms);
        }
    }

    /// Returns whether it took effect.
    pub(crate) fn power_on(&mut self) -> bool {
        if self.run == Run::Off && self.feed && self.supply {
            self.note_power_change();
            self.ledger.power_ons += 1;
            self.bmc.log(self.at, BmcEventKind::PoweredOn);
            self.restart();
            return true;
        }
        // An On that overtakes an Off in effect wins; real BMCs do either.
        self.off_at.take().is_some()
    }

    /// The operating system is asked to go down in good order; one that does not listen does nothing.
    pub(crate) fn shut_down(&mut self, then: AfterShutdown) {
        if self.os_listens() && self.shutdown.is_none() {
            let span: Millis = self.chance.between(self.spec.shutdown_ms);
            self.shutdown = Some(Shutdown { until: self.at + span, then });
            self.closed_at = Some(self.at);
            self.bmc.log(self.at, BmcEventKind::ShuttingDown);
        }
    }

    pub(crate) fn apply_power(&mut self, write: PowerWrite) {
        match write {
            PowerWrite::Off => self.force_off(),
            PowerWrite::On => {
                self.power_on();
            }
            PowerWrite::Restart => self.force_restart(),
        }
    }
}
