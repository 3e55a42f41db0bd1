//! The machine itself and how time passes for it. What it does by itself, it does at known moments.

use crate::bmc::{Bmc, message::BmcEventKind};
use crate::boot::BootAsk;
use crate::chance::Chance;
use crate::fault::{Component, Failing, HardwareKind};
use crate::install::{DataDisk, Disk, Install, InstallTrouble};
use crate::power::{AfterShutdown, OffCause, PowerLedger, Shutdown};
use crate::spec::{DiskName, Spec};
use crate::{At, Millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Run {
    /// No power.
    Off,
    /// Power-on self test.
    Post { until: At },
    /// The firmware asks the network; `until` it falls back to the disk, `None` = it has nothing else.
    Asking { until: Option<At> },
    /// Loader and kernel, up to the first answered ping.
    Loading { until: At },
    /// The installer in memory.
    Installer(Install),
    /// Powered, and doing nothing.
    Stuck,
    /// A kernel; userspace and kubelet from `userspace_at` on.
    Kernel { userspace_at: At },
}

/// A host with its BMC.
///
/// A moment earlier than one already reached counts as the one reached: time never runs back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub(crate) spec: Spec,
    pub(crate) chance: Chance,
    pub(crate) at: At,
    pub(crate) run: Run,
    pub(crate) feed: bool,
    pub(crate) supply: bool,
    pub(crate) on_when_feed_went: bool,
    pub(crate) off_at: Option<At>,
    pub(crate) off_cause: OffCause,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) ledger: PowerLedger,
    pub(crate) boot: u64,
    pub(crate) boots: u64,
    pub(crate) kernel_at: At,
    pub(crate) disk: Disk,
    pub(crate) disk_name: DiskName,
    pub(crate) data_disks: Vec<DataDisk>,
    pub(crate) writes: u32,
    pub(crate) writes_begun: u32,
    pub(crate) foreign_data: bool,
    pub(crate) install_trouble: Option<InstallTrouble>,
    pub(crate) userspace_dead: bool,
    pub(crate) dump_until: Option<At>,
    pub(crate) nic_hung: bool,
    pub(crate) nic_dead: bool,
    pub(crate) silent_until: At,
    pub(crate) silent_since: Option<At>,
    pub(crate) loop_ms: Option<Millis>,
    pub(crate) dies_at: Option<At>,
    pub(crate) components: BTreeMap<Component, Failing>,
    pub(crate) certificate_expiring: bool,
    pub(crate) hardware: Option<HardwareKind>,
    pub(crate) ask: Option<BootAsk>,
    pub(crate) closed_at: Option<At>,
    pub(crate) bmc: Bmc,
}

impl Machine {
    /// A healthy machine that is on and has been up for a while.
    #[must_use]
    pub fn new(spec: Spec, seed: u64) -> Machine {
        let mut chance = Chance::new(seed);
        let boot = chance.next() | 1;
        Machine {
            chance,
            at: 0,
            run: Run::Kernel { userspace_at: 0 },
            feed: true,
            supply: true,
            on_when_feed_went: false,
            off_at: None,
            off_cause: OffCause::Unknown,
            shutdown: None,
            ledger: PowerLedger::default(),
            boot,
            boots: 1,
            kernel_at: 0,
            disk: Disk::Image(0),
            disk_name: spec.system_disk.clone(),
            data_disks: spec.data_disks.iter().cloned().map(DataDisk::untouched).collect(),
            writes: 0,
            writes_begun: 0,
            foreign_data: false,
            install_trouble: None,
            userspace_dead: false,
            dump_until: None,
            nic_hung: false,
            nic_dead: false,
            silent_until: 0,
            silent_since: None,
            loop_ms: None,
            dies_at: None,
            components: BTreeMap::new(),
            certificate_expiring: false,
            hardware: None,
            ask: None,
            closed_at: None,
            bmc: Bmc::new(seed),
            spec,
        }
    }

    /// Makes it a machine that is off, for a cold spare.
    #[must_use]
    pub fn switched_off(mut self) -> Machine {
        self.run = Run::Off;
        self.off_cause = OffCause::Command;
        self.note_silence();
        self
    }

    /// Its description.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The moment it has reached.
    #[must_use]
    pub fn now(&self) -> At {
        self.at
    }

    /// When it will next change by itself. `None`: never, unless something is done to it.
    #[must_use]
    pub fn next_change_at(&self) -> Option<At> {
        let stage = match self.run {
            Run::Post { until } | Run::Loading { until } => Some(until),
            Run::Asking { until } => until,
            Run::Installer(install) => install.until,
            Run::Kernel { userspace_at } => (userspace_at > self.at).then_some(userspace_at),
            Run::Off | Run::Stuck => None,
        };
        let silence = (self.silent_until > self.at).then_some(self.silent_until);
        let shutdown = self.shutdown.map(|s| s.until);
        [stage, self.off_at, shutdown, self.dump_until, self.dies_at, silence, self.bmc.next_change_at(self.at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets time pass, through every change on the way.
    pub fn advance(&mut self, to: At) {
        while let Some(at) = self.next_change_at().filter(|at| *at <= to) {
            self.at = self.at.max(at);
            self.change();
            self.note_silence();
        }
        self.at = self.at.max(to);
    }

    /// The one change that is due now. Those that take the machine down come before those that bring it up.
    fn change(&mut self) {
        let now = self.at;
        if let Some(write) = self.bmc.take_repeat(now) {
            self.apply_power(write);
            return;
        }
        if self.off_at.is_some_and(|at| at <= now) {
            self.cut(OffCause::Command, false);
            return;
        }
        if let Some(shutdown) = self.shutdown.filter(|s| s.until <= now) {
            self.shutdown = None;
            match shutdown.then {
                AfterShutdown::Restart => self.restart(),
                AfterShutdown::Off(cause) => self.cut(cause, true),
            }
            return;
        }
        if self.dump_until.is_some_and(|at| at <= now) || self.dies_at.is_some_and(|at| at <= now) {
            self.restart();
            return;
        }
        match self.run {
            Run::Post { until } if until <= now => self.after_post(),
            Run::Asking { until: Some(until) } if until <= now => self.boot_disk(),
            Run::Loading { until } if until <= now => self.kernel_starts(),
            Run::Installer(install) if install.until.is_some_and(|at| at <= now) => self.install_goes_on(install),
            _ => {}
        }
    }

    /// Everything volatile is gone: a reset of the machine.
    pub(crate) fn reset_volatile(&mut self) {
        self.off_at = None;
        self.shutdown = None;
        self.dump_until = None;
        self.dies_at = None;
        self.userspace_dead = false;
        self.nic_hung = false;
        self.silent_until = 0;
        self.ask = None;
        self.components.retain(|_, failing| !failing.reboot_cures());
    }

    pub(crate) fn restart(&mut self) {
        self.reset_volatile();
        let span = self.chance.between(self.spec.post_ms);
        self.bmc.log(self.at, BmcEventKind::PostBegan);
        self.run = Run::Post { until: self.at + span };
    }

    /// Whatever ran stops, with its plans; the power stays on.
    pub(crate) fn stand_still(&mut self) {
        self.run = Run::Stuck;
        self.shutdown = None;
        self.dies_at = None;
        self.dump_until = None;
    }

    /// Remembers since when nothing answers.
    pub(crate) fn note_silence(&mut self) {
        let answers = self.answers();
        if answers.icmp || answers.kubelet_port.is_some() {
            self.silent_since = None;
        } else if self.silent_since.is_none() {
            self.silent_since = Some(self.at);
        }
    }

    /// The boot ID of the running or last kernel.
    #[must_use]
    pub fn boot_id(&self) -> u64 {
        self.boot
    }

    /// How many kernels were started.
    #[must_use]
    pub fn boots(&self) -> u64 {
        self.boots
    }

    /// Broken hardware.
    #[must_use]
    pub fn hardware(&self) -> Option<HardwareKind> {
        self.hardware
    }
}
