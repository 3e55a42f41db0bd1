//! From the end of POST to a kernel: which device is tried, and what the network answers.

use crate::At;
use crate::bmc::message::{BootOverride, StageRead};
use crate::fault::HardwareKind;
use crate::host::{Machine, Run};
use crate::install::Disk;
use crate::spec::Mac;
use serde::{Deserialize, Serialize};

/// Which kind of network boot the firmware asks for (DHCP option 60: `PXEClient` or `HTTPClient`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootClass {
    /// PXE: TFTP after DHCP.
    Pxe,
    /// UEFI HTTP boot.
    Http,
}

/// A request to boot from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootAsk {
    /// When it asked.
    pub at: At,
    /// It asks before its disk: one-shot network boot was set, or that is its order. `false` = it found nothing else.
    pub before_disk: bool,
    /// The card that asks.
    pub mac: Mac,
    /// What it asks for.
    pub class: BootClass,
}

/// The right to install, as the network answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The job.
    pub job: u64,
    /// Serial of the disk to write; `None` = that of the system disk in the machine's description.
    pub disk: Option<String>,
    /// A person approved that foreign data on that disk is lost.
    pub foreign_data_approved: bool,
    /// Nothing is written: the disk is found and read, and the card shown to work.
    pub proves: bool,
}

/// How the network answers a request to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootAnswer {
    /// With the installer, for this job.
    Ticket(Ticket),
    /// Not at all.
    Silence,
}

impl From<Option<u64>> for BootAnswer {
    /// The ticket of a job that names the system disk, or silence.
    fn from(job: Option<u64>) -> BootAnswer {
        job.map_or(BootAnswer::Silence, |job| {
            BootAnswer::Ticket(Ticket { job, disk: None, foreign_data_approved: false, proves: false })
        })
    }
}

impl Machine {
    pub(crate) fn after_post(&mut self) {
        if self.cannot_boot() {
            self.stand_still();
            return;
        }
        let boot = self.bmc.take_override();
        match boot {
            BootOverride::NetworkOnce => self.ask_network(BootClass::Pxe, true),
            BootOverride::HttpOnce => self.ask_network(BootClass::Http, true),
            BootOverride::VirtualMediaOnce => match self.bmc.media {
                Some(job) => self.start_installer(&BootAnswer::from(Some(job))),
                None => self.boot_disk(),
            },
            BootOverride::None if self.spec.network_first => self.ask_network(BootClass::Pxe, true),
            BootOverride::None | BootOverride::DiskOnce => self.boot_disk(),
        }
    }

    /// The self test stops at broken hardware; a missing disk alone it does not mind.
    fn cannot_boot(&self) -> bool {
        self.hardware.is_some_and(|kind| kind != HardwareKind::Disk)
    }

    fn ask_network(&mut self, class: BootClass, before_disk: bool) {
        let mac = self.spec.macs.first().copied();
        let until = before_disk.then_some(self.at + self.spec.network_boot_wait_ms);
        // Without a working card nobody hears it ask.
        self.ask = mac.filter(|_| !self.nic_dead).map(|mac| BootAsk { at: self.at, before_disk, mac, class });
        self.run = Run::Asking { until };
    }

    pub(crate) fn boot_disk(&mut self) {
        self.ask = None;
        match self.disk {
            Disk::Image(_) => {
                let span = self.chance.between(self.spec.kernel_ms);
                self.run = Run::Loading { until: self.at + span };
            }
            Disk::Broken => self.stand_still(),
            Disk::Blank | Disk::Partial | Disk::Dead => self.ask_network(BootClass::Pxe, false),
        }
    }

    pub(crate) fn kernel_starts(&mut self) {
        self.boot = self.chance.next() | 1;
        self.boots += 1;
        self.kernel_at = self.at;
        let span = self.chance.between(self.spec.kubelet_ms);
        self.run = Run::Kernel { userspace_at: self.at + span };
        self.dies_at = self.loop_ms.map(|ms| self.at + ms);
    }

    /// The request to boot from the network that waits for an answer, if one does.
    #[must_use]
    pub fn boot_ask(&self) -> Option<BootAsk> {
        match self.run {
            Run::Asking { .. } => self.ask,
            _ => None,
        }
    }

    /// Answers it. After silence one that asks before its disk falls back to it; a machine with nothing on its disk
    /// goes on asking. Without a waiting request nothing happens.
    pub fn serve_boot(&mut self, at: At, answer: impl Into<BootAnswer>) {
        self.advance(at);
        let Some(ask) = self.boot_ask() else { return };
        let answer = answer.into();
        match answer {
            BootAnswer::Ticket(_) => self.start_installer(&answer),
            BootAnswer::Silence if ask.before_disk => self.boot_disk(),
            BootAnswer::Silence => {}
        }
        self.note_silence();
    }

    pub(crate) fn stage_read(&self) -> StageRead {
        match self.run {
            _ if self.shutdown.is_some() => StageRead::ShuttingDown,
            Run::Off => StageRead::None,
            Run::Post { .. } => StageRead::Post,
            Run::Loading { .. } | Run::Asking { .. } | Run::Installer(_) => StageRead::Starting,
            Run::Kernel { .. } | Run::Stuck => StageRead::Running,
        }
    }
}
