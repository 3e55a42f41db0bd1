//! Disks, and the installer that runs in memory: it checks, writes the one named disk, verifies, and waits for power.

use crate::At;
use crate::boot::BootAnswer;
use crate::host::{Machine, Run};
use crate::spec::DiskName;
use serde::{Deserialize, Serialize};

/// What is on the system disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// A working image; each writing gets a new number.
    Image(u32),
    /// Broken: no boot comes through.
    Broken,
    /// Nothing that boots.
    Blank,
    /// An install began to write and did not end well.
    Partial,
    /// No disk answers.
    Dead,
}

/// A disk that nobody may write, with the truth about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDisk {
    /// Its name.
    pub name: DiskName,
    /// How often an installer began to write it: anything but 0 is lost data.
    pub writes_begun: u32,
}

impl DataDisk {
    pub(crate) fn untouched(name: DiskName) -> DataDisk {
        DataDisk { name, writes_begun: 0 }
    }
}

/// How an install goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallTrouble {
    /// The manifest's signature is wrong: nothing is written.
    BadManifest,
    /// The stream ends early.
    Truncated,
    /// The disk refuses to be written.
    WriteError,
    /// What was written is not what the manifest says.
    WrongDigest,
}

/// How far an install is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallStage {
    /// Starting; it has not spoken yet.
    Starting,
    /// It said hello, sent its inventory and writes.
    Writing,
    /// Written; it reads back.
    Verifying,
    /// It reads the disk at spread places and writes nothing.
    Proving,
    /// The disk was there and was read; it waits to be switched off.
    Proven,
    /// Written and verified; it waits for the power cycle.
    Done,
    /// It refused: foreign data on the disk.
    ForeignData,
    /// It refused: the named disk is not there, or there twice.
    NoDisk,
    /// It failed.
    Failed(InstallTrouble),
}

/// What an installer would report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallProgress {
    /// The job.
    pub job: u64,
    /// How far it is.
    pub stage: InstallStage,
    /// When it was started.
    pub began_at: At,
    /// When its stage changed last.
    pub stage_at: At,
    /// Share of the image that is written, 0 to 100.
    pub written_percent: u8,
}

/// Which disk a ticket names on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Target {
    System,
    Data(u8),
    Absent,
}

/// An installer at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Install {
    job: u64,
    target: Target,
    foreign_data_approved: bool,
    proves: bool,
    stage: InstallStage,
    began_at: At,
    stage_at: At,
    /// The next change by itself; `None` = none will come.
    pub(crate) until: Option<At>,
}

/// Of the time from hello to verified, reading back takes one part in so many.
const VERIFY_PART: u64 = 8;
/// A proof reads some megabytes at spread places of the disk.
const PROVE_MS: u64 = 4_000;

impl Machine {
    fn target(&self, serial: &str) -> Target {
        let system = (self.disk_name.serial == serial).then_some(Target::System);
        let data = self.data_disks.iter().zip(0u8..).filter(|(disk, _)| disk.name.serial == serial);
        let mut found = system.into_iter().chain(data.map(|(_, index)| Target::Data(index)));
        match (found.next(), found.next()) {
            (Some(only), None) => only,
            _ => Target::Absent,
        }
    }

    /// The installer starts, if the answer carries a ticket.
    pub(crate) fn start_installer(&mut self, answer: &BootAnswer) {
        let BootAnswer::Ticket(ticket) = answer else { return };
        let serial = ticket.disk.as_deref().unwrap_or(&self.spec.system_disk.serial);
        let target = self.target(serial);
        let span = self.chance.between(self.spec.install_ms.0);
        self.ask = None;
        self.run = Run::Installer(Install {
            job: ticket.job,
            target,
            foreign_data_approved: ticket.foreign_data_approved,
            proves: ticket.proves,
            stage: InstallStage::Starting,
            began_at: self.at,
            stage_at: self.at,
            // Without a working card it never gets its job.
            until: (!self.nic_dead).then_some(self.at + span),
        });
    }

    pub(crate) fn install_goes_on(&mut self, install: Install) {
        let (stage, span) = match install.stage {
            InstallStage::Starting => self.installer_checks(&install),
            InstallStage::Writing => match self.install_trouble {
                Some(trouble @ (InstallTrouble::Truncated | InstallTrouble::WriteError)) => {
                    self.install_trouble = None;
                    (InstallStage::Failed(trouble), None)
                }
                _ => {
                    // Reading back takes its fixed share of the writing before it: no second draw.
                    let wrote = self.at - install.stage_at;
                    (InstallStage::Verifying, Some(wrote / (VERIFY_PART - 1)))
                }
            },
            InstallStage::Verifying => match self.install_trouble.take() {
                Some(trouble) => (InstallStage::Failed(trouble), None),
                None => {
                    self.image_is_written(install.target);
                    (InstallStage::Done, None)
                }
            },
            InstallStage::Proving => (InstallStage::Proven, None),
            end => (end, None),
        };
        self.run =
            Run::Installer(Install { stage, stage_at: self.at, until: span.map(|span| self.at + span), ..install });
    }

    /// What it does between its first word and the first written byte.
    fn installer_checks(&mut self, install: &Install) -> (InstallStage, Option<u64>) {
        let on_system = install.target == Target::System;
        if install.target == Target::Absent || (on_system && self.disk == Disk::Dead) {
            return (InstallStage::NoDisk, None);
        }
        if install.proves {
            return (InstallStage::Proving, Some(PROVE_MS));
        }
        if on_system && self.foreign_data && !install.foreign_data_approved {
            return (InstallStage::ForeignData, None);
        }
        if self.install_trouble == Some(InstallTrouble::BadManifest) {
            self.install_trouble = None;
            return (InstallStage::Failed(InstallTrouble::BadManifest), None);
        }
        match install.target {
            Target::Data(index) => {
                if let Some(disk) = self.data_disks.get_mut(usize::from(index)) {
                    disk.writes_begun += 1;
                }
            }
            Target::System | Target::Absent => {
                // From the first byte on the old system is gone.
                self.disk = Disk::Partial;
                self.foreign_data = false;
                self.writes_begun += 1;
            }
        }
        let whole = self.chance.between(self.spec.install_ms.1);
        (InstallStage::Writing, Some(whole - whole / VERIFY_PART))
    }

    fn image_is_written(&mut self, target: Target) {
        if target != Target::System {
            return;
        }
        self.writes += 1;
        self.disk = Disk::Image(self.writes);
        // A new image knows nothing of what ailed the old one.
        self.loop_ms = None;
        self.components.clear();
        self.certificate_expiring = false;
    }

    /// The installer hears nobody and is heard by nobody: it stands where it is.
    pub(crate) fn installer_is_cut_off(&mut self) {
        if let Run::Installer(install) = self.run {
            self.run = Run::Installer(Install { until: None, ..install });
        }
    }

    pub(crate) fn installer_speaks(install: &Install) -> bool {
        install.stage != InstallStage::Starting
    }

    pub(crate) fn writes_disk(&self) -> bool {
        matches!(self.run, Run::Installer(install) if install.stage == InstallStage::Writing)
    }

    /// The install under way: its job and how far it is.
    #[must_use]
    pub fn installing(&self) -> Option<(u64, InstallStage)> {
        match self.run {
            Run::Installer(install) => Some((install.job, install.stage)),
            _ => None,
        }
    }

    /// The install under way, as its installer would report it now.
    #[must_use]
    pub fn install_progress(&self) -> Option<InstallProgress> {
        let Run::Installer(install) = self.run else { return None };
        let written_percent = match (install.stage, install.until) {
            (InstallStage::Writing, Some(until)) if until > install.stage_at => {
                let percent = (self.at - install.stage_at) * 100 / (until - install.stage_at);
                u8::try_from(percent).map_or(100, |p| p.min(100))
            }
            (InstallStage::Verifying | InstallStage::Done, _) => 100,
            _ => 0,
        };
        Some(InstallProgress {
            job: install.job,
            stage: install.stage,
            began_at: install.began_at,
            stage_at: install.stage_at,
            written_percent,
        })
    }

    /// The root file system is broken, as the agent would see it.
    #[must_use]
    pub fn disk_broken(&self) -> bool {
        matches!(self.disk, Disk::Broken | Disk::Dead)
    }

    /// What is on the system disk.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.disk
    }

    /// The disk in the system slot, as an inventory would name it.
    #[must_use]
    pub fn disk_name(&self) -> &DiskName {
        &self.disk_name
    }

    /// The other disks.
    #[must_use]
    pub fn data_disks(&self) -> &[DataDisk] {
        &self.data_disks
    }

    /// How often the system disk was written whole and verified.
    #[must_use]
    pub fn disk_writes(&self) -> u32 {
        self.writes
    }

    /// How often an installer began to write the system disk.
    #[must_use]
    pub fn disk_writes_begun(&self) -> u32 {
        self.writes_begun
    }
}
