//! How each fault begins, and what hands repair.

use crate::At;
use crate::bmc::fault::BmcFault;
use crate::bmc::message::BmcEventKind;
use crate::fault::{Component, Failing, Fault, HardwareKind};
use crate::host::{Machine, Run};
use crate::install::Disk;
use crate::power::{AfterShutdown, OffCause};
use crate::spec::{AcRestore, DiskName};

impl Machine {
    /// Injects a fault of the host. A fault that this machine cannot have now (a kernel panic while it is off) does
    /// nothing.
    pub fn inject(&mut self, at: At, fault: Fault) {
        self.advance(at);
        self.begin(fault);
        self.note_silence();
    }

    fn begin(&mut self, fault: Fault) {
        let now = self.at;
        let up = matches!(self.run, Run::Kernel { .. });
        let runs_code = up || matches!(self.run, Run::Installer(_));
        match fault {
            Fault::KernelStuck => {
                if runs_code {
                    self.stand_still();
                }
            }
            Fault::KernelPanic { dump_ms } => {
                if up {
                    self.stand_still();
                    self.dump_until = dump_ms.map(|ms| now + ms);
                }
            }
            Fault::UserspaceDead => {
                self.userspace_dead |= up;
                if up {
                    // Nobody is left to finish a shutdown.
                    self.shutdown = None;
                }
            }
            Fault::NicHung => {
                self.nic_hung = self.run != Run::Off;
                self.installer_is_cut_off();
            }
            Fault::NicDead => {
                self.nic_dead = true;
                self.ask = None;
                self.installer_is_cut_off();
            }
            Fault::BenignSilence { lasts_ms } => self.silent_until = now + lasts_ms,
            Fault::PlainReboot => self.shut_down(AfterShutdown::Restart),
            Fault::PlainPoweroff => self.shut_down(AfterShutdown::Off(OffCause::Unknown)),
            Fault::OsBroken { kernel_dies } => {
                if matches!(self.disk, Disk::Image(_)) {
                    self.disk = Disk::Broken;
                }
                if kernel_dies && up {
                    self.stand_still();
                }
            }
            Fault::NoLocalBoot => {
                self.disk = Disk::Blank;
                self.restart_if_on();
            }
            Fault::DiskDead => self.disk_dies(),
            Fault::DiskSwapped => {
                let serial = format!("{}-other", self.spec.system_disk.serial);
                self.disk_name = DiskName { serial, wwn: self.spec.system_disk.wwn ^ 1 };
                self.disk = Disk::Blank;
                self.restart_if_on();
            }
            Fault::BootLoop { lives_ms } => {
                self.loop_ms = Some(lives_ms);
                self.dies_at = up.then_some(now + lives_ms);
            }
            Fault::Component(component, failing) => {
                self.components.insert(component, failing);
                // A process that ends closes its connections; one that hangs keeps them.
                if component == Component::Kubelet && failing != Failing::Hung && up {
                    self.closed_at = Some(now);
                }
            }
            Fault::CertificateExpiring => self.certificate_expiring = true,
            Fault::PowerLost(cause) => self.power_fails(cause),
            Fault::PowerReturns => self.power_returns(),
            Fault::Hardware(kind) => {
                self.hardware = Some(kind);
                self.bmc.log(now, BmcEventKind::HardwareFailed(kind));
                if kind == HardwareKind::Disk {
                    self.disk_dies();
                } else if self.run != Run::Off {
                    self.stand_still();
                }
            }
            Fault::ForeignData => self.foreign_data = true,
            Fault::Install(trouble) => self.install_trouble = Some(trouble),
            Fault::Button => {
                if self.run == Run::Off {
                    self.power_on();
                } else {
                    self.cut(OffCause::Button, false);
                }
            }
            Fault::PowerByOthers { on: true } => {
                self.power_on();
            }
            Fault::PowerByOthers { on: false } => self.force_off(),
            Fault::Repaired => self.repair(),
        }
    }

    fn restart_if_on(&mut self) {
        if self.run != Run::Off {
            self.restart();
        }
    }

    fn disk_dies(&mut self) {
        self.disk = Disk::Dead;
        self.hardware = Some(HardwareKind::Disk);
        self.bmc.log(self.at, BmcEventKind::HardwareFailed(HardwareKind::Disk));
        if matches!(self.run, Run::Kernel { .. } | Run::Installer(_)) {
            self.stand_still();
        }
    }

    fn power_fails(&mut self, cause: OffCause) {
        if cause == OffCause::AcLoss {
            if self.feed {
                self.on_when_feed_went = self.run != Run::Off;
            }
            self.feed = false;
            let shared = self.spec.bmc_shares_feed;
            self.bmc.lose_feed(self.at, shared);
        }
        if matches!(cause, OffCause::Fault | OffCause::Thermal) {
            self.supply = false;
        }
        self.cut(cause, false);
        if cause == OffCause::Fault {
            self.hardware = Some(HardwareKind::PowerSupply);
            self.bmc.log(self.at, BmcEventKind::HardwareFailed(HardwareKind::PowerSupply));
        }
    }

    fn power_returns(&mut self) {
        let fed_again = !std::mem::replace(&mut self.feed, true);
        self.supply = true;
        if self.hardware == Some(HardwareKind::PowerSupply) {
            self.hardware = None;
        }
        if !fed_again {
            return;
        }
        self.bmc.regain_feed(self.at, self.spec.bmc_shares_feed, self.spec.bmc_boot_ms);
        let on = match self.spec.ac_restore {
            AcRestore::StayOff => false,
            AcRestore::LastState => self.on_when_feed_went,
            AcRestore::On => true,
        };
        if on {
            self.power_on();
        }
    }

    fn repair(&mut self) {
        self.hardware = None;
        self.nic_dead = false;
        self.feed = true;
        self.supply = true;
        self.foreign_data = false;
        self.install_trouble = None;
        self.loop_ms = None;
        self.components.clear();
        self.certificate_expiring = false;
        self.disk_name = self.spec.system_disk.clone();
        if !matches!(self.disk, Disk::Image(_)) {
            self.writes += 1;
            self.disk = Disk::Image(self.writes);
        }
        self.bmc.inject(self.at, BmcFault::Cured);
        if self.run == Run::Off {
            self.power_on();
        } else {
            self.restart();
        }
    }

    /// Injects a fault of the BMC.
    pub fn inject_bmc(&mut self, at: At, fault: BmcFault) {
        self.advance(at);
        self.bmc.inject(self.at, fault);
    }
}
