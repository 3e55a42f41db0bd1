//! The host: power, boot, kernel, components, disk. What it does by itself, it does at known moments.

use crate::bmc::{Bmc, BootOverride, StageRead};
use crate::chance::Chance;
use crate::fault::{BmcFault, Component, Failing, Fault, HardwareKind};
use crate::spec::Spec;
use crate::{At, Millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// The held connection to the kubelet's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// Open, or silently broken: nobody can tell.
    Open,
    /// Closed in good order.
    Closed,
}

/// What the network sees of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// ARP is answered.
    pub arp: bool,
    /// Echoes are answered.
    pub icmp: bool,
    /// 10250: `Some(true)` SYN/ACK, `Some(false)` RST, `None` silence.
    pub kubelet_port: Option<bool>,
    /// A second userspace port, the same way.
    pub second_port: Option<bool>,
    /// /healthz of the kubelet answers.
    pub kubelet_health: bool,
    /// The held connection.
    pub held: Held,
}

impl Answers {
    const SILENT: Answers = Answers {
        arp: false,
        icmp: false,
        kubelet_port: None,
        second_port: None,
        kubelet_health: false,
        held: Held::Open,
    };
}

/// What is on the system disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// A working image; each writing gets a new number.
    Image(u32),
    /// Broken: no boot comes through.
    Broken,
    /// Nothing that boots.
    Blank,
    /// No disk answers.
    Dead,
}

/// A request to boot from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootAsk {
    /// When it asked.
    pub at: At,
    /// One-shot network boot was set; `false` = it found nothing else.
    pub ordered: bool,
}

/// How far an install is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallStage {
    /// Starting.
    Starting,
    /// It said hello and writes.
    Writing,
    /// Written and verified; it waits for the power cycle.
    Done,
    /// It refused: foreign data on the disk.
    ForeignData,
    /// It refused: the named disk is not there.
    NoDisk,
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Run {
    Off,
    Post { until: At },
    Asking { since: At },
    Loading { until: At },
    Installer { job: u64, stage: InstallStage, until: At },
    Stuck,
    Kernel { userspace_at: At },
}

/// The truth, for checkers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Power.
    pub power: Power,
    /// The kernel runs its tasks.
    pub kernel_ok: bool,
    /// The kubelet works.
    pub kubelet_ok: bool,
    /// Nothing ails it (of what stops it from serving).
    pub healthy: bool,
    /// The boot it runs, if a kernel runs.
    pub boot: Option<u64>,
}

/// A host with its BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    spec: Spec,
    chance: Chance,
    at: At,
    run: Run,
    feed: bool,
    supply: bool,
    off_at: Option<At>,
    off_cause: OffCause,
    shutdown_until: Option<At>,
    restart_after_shutdown: bool,
    boot: u64,
    boots: u64,
    disk: Disk,
    writes: u32,
    foreign_data: bool,
    userspace_dead: bool,
    dump_until: Option<At>,
    nic_hung: bool,
    nic_dead: bool,
    silent_until: At,
    loop_ms: Option<Millis>,
    dies_at: Option<At>,
    components: BTreeMap<Component, Failing>,
    certificate_expiring: bool,
    hardware: Option<HardwareKind>,
    ask: Option<BootAsk>,
    closed_at: Option<At>,
    pub(crate) bmc: Bmc,
}

impl Machine {
    /// A healthy machine that is on and has been up for a while.
    #[must_use]
    pub fn new(spec: Spec, seed: u64) -> Machine {
        let mut chance = Chance::new(seed);
        let boot = chance.next() | 1;
        Machine {
            spec,
            chance,
            at: 0,
            run: Run::Kernel { userspace_at: 0 },
            feed: true,
            supply: true,
            off_at: None,
            off_cause: OffCause::Unknown,
            shutdown_until: None,
            restart_after_shutdown: false,
            boot,
            boots: 1,
            disk: Disk::Image(0),
            writes: 0,
            foreign_data: false,
            userspace_dead: false,
            dump_until: None,
            nic_hung: false,
            nic_dead: false,
            silent_until: 0,
            loop_ms: None,
            dies_at: None,
            components: BTreeMap::new(),
            certificate_expiring: false,
            hardware: None,
            ask: None,
            closed_at: None,
            bmc: Bmc::new(seed),
        }
    }

    /// Makes it a machine that is off, for a cold spare.
    #[must_use]
    pub fn switched_off(mut self) -> Machine {
        self.run = Run::Off;
        self.off_cause = OffCause::Command;
        self
    }

    /// Its description.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// When it will next change by itself.
    #[must_use]
    pub fn next_change_at(&self) -> Option<At> {
        let stage = match self.run {
            Run::Post { until } | Run::Loading { until } => Some(until),
            Run::Installer { stage: InstallStage::Starting | InstallStage::Writing, until, .. } => Some(until),
            Run::Kernel { userspace_at } => (userspace_at > self.at).then_some(userspace_at),
            Run::Installer { .. } | Run::Off | Run::Asking { .. } | Run::Stuck => None,
        };
        let silence = (self.silent_until > self.at).then_some(self.silent_until);
        let bmc = [self.bmc.resetting_until, self.bmc.firmware_until].into_iter().filter(|t| *t > self.at).min();
        [stage, self.off_at, self.shutdown_until, self.dump_until, self.dies_at, silence, bmc]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets time pass, through every change on the way.
    pub fn advance(&mut self, to: At) {
        while let Some(at) = self.next_change_at().filter(|at| *at <= to) {
            self.at = self.at.max(at);
            self.change();
        }
        self.at = self.at.max(to);
    }

    fn change(&mut self) {
        let now = self.at;
        if self.off_at.is_some_and(|at| at <= now) {
            self.cut(OffCause::Command);
            return;
        }
        if self.shutdown_until.is_some_and(|at| at <= now) {
            self.shutdown_until = None;
            if self.restart_after_shutdown {
                self.restart()
            } else {
                self.cut(OffCause::Command)
            }
            return;
        }
        if self.dump_until.is_some_and(|at| at <= now) || self.dies_at.is_some_and(|at| at <= now) {
            self.dump_until = None;
            self.dies_at = None;
            self.restart();
            return;
        }
        match self.run {
            Run::Post { until } if until <= now => self.after_post(),
            Run::Loading { until } if until <= now => self.kernel_starts(),
            Run::Installer { job, stage, until } if until <= now => self.install(job, stage),
            _ => {}
        }
    }

    /// Everything volatile is gone: a reset of the machine.
    fn reset_volatile(&mut self) {
        self.off_at = None;
        self.shutdown_until = None;
        self.dump_until = None;
        self.dies_at = None;
        self.userspace_dead = false;
        self.nic_hung = false;
        self.silent_until = 0;
        self.ask = None;
        self.components.retain(|_, failing| !failing.reboot_cures());
    }

    fn note_power(&mut self) {
        self.bmc.power_before = self.power();
        self.bmc.changed_at = self.at;
    }

    fn cut(&mut self, cause: OffCause) {
        self.note_power();
        self.reset_volatile();
        self.run = Run::Off;
        self.off_cause = cause;
    }

    fn restart(&mut self) {
        self.reset_volatile();
        let span = self.chance.between(self.spec.post_ms);
        self.run = Run::Post { until: self.at + span };
    }

    fn after_post(&mut self) {
        let now = self.at;
        let ordered = self.bmc.boot == BootOverride::NetworkOnce && !self.bmc.ignores_boot;
        self.bmc.boot = BootOverride::None;
        if ordered {
            self.ask = Some(BootAsk { at: now, ordered: true });
            self.run = Run::Asking { since: now };
            return;
        }
        self.boot_disk();
    }

    fn boot_disk(&mut self) {
        let now = self.at;
        let broken =
            matches!(self.hardware, Some(HardwareKind::Memory | HardwareKind::Processor | HardwareKind::Other));
        match self.disk {
            _ if broken => self.run = Run::Stuck,
            Disk::Image(_) => {
                let span = self.chance.between(self.spec.kernel_ms);
                self.run = Run::Loading { until: now + span };
            }
            Disk::Broken => self.run = Run::Stuck,
            Disk::Blank | Disk::Dead => {
                self.ask = Some(BootAsk { at: now, ordered: false });
                self.run = Run::Asking { since: now };
            }
        }
    }

    fn kernel_starts(&mut self) {
        self.boot = self.chance.next() | 1;
        self.boots += 1;
        self.closed_at = None;
        let span = self.chance.between(self.spec.kubelet_ms);
        self.run = Run::Kernel { userspace_at: self.at + span };
        self.dies_at = self.loop_ms.map(|ms| self.at + ms);
    }

    fn install(&mut self, job: u64, stage: InstallStage) {
        let next = match stage {
            InstallStage::Starting if self.disk == Disk::Dead => InstallStage::NoDisk,
            InstallStage::Starting if self.foreign_data => InstallStage::ForeignData,
            InstallStage::Starting => InstallStage::Writing,
            InstallStage::Writing => {
                self.writes += 1;
                self.disk = Disk::Image(self.writes);
                // A new image knows nothing of what ailed the old one.
                self.loop_ms = None;
                self.components.clear();
                self.certificate_expiring = false;
                InstallStage::Done
            }
            done => done,
        };
        let until =
            if next == InstallStage::Writing { self.at + self.chance.between(self.spec.install_ms.1) } else { At::MAX };
        self.run = Run::Installer { job, stage: next, until };
    }

    /// The request to boot from the network that waits for an answer, if one does.
    #[must_use]
    pub fn boot_ask(&self) -> Option<BootAsk> {
        match self.run {
            Run::Asking { .. } => self.ask,
            _ => None,
        }
    }

    /// Answers it: the ticket of a job, or silence. After silence an ordered network boot falls back to the disk; a
    /// machine with nothing on its disk goes on asking.
    pub fn serve_boot(&mut self, at: At, job: Option<u64>) {
        self.advance(at);
        let Run::Asking { .. } = self.run else { return };
        match job {
            Some(job) => {
                let span = self.chance.between(self.spec.install_ms.0);
                self.run = Run::Installer { job, stage: InstallStage::Starting, until: self.at + span };
            }
            None if self.ask.is_some_and(|a| a.ordered) => {
                self.ask = None;
                self.boot_disk();
            }
            None => {}
        }
    }

    /// The install under way.
    #[must_use]
    pub fn installing(&self) -> Option<(u64, InstallStage)> {
        match self.run {
            Run::Installer { job, stage, .. } => Some((job, stage)),
            _ => None,
        }
    }

    pub(crate) fn force_off(&mut self, at: At) {
        if self.run != Run::Off && self.off_at.is_none() {
            let span = self.chance.between(self.spec.off_ms);
            self.off_at = Some(at + span);
        }
    }

    pub(crate) fn power_on(&mut self, at: At) {
        if self.run == Run::Off && self.fed() && self.supply {
            self.at = at;
            self.note_power();
            self.restart();
        } else if self.off_at.is_some() {
            // An On that overtakes an Off in effect wins; real BMCs do either.
            self.off_at = None;
        }
    }

    pub(crate) fn graceful_restart(&mut self, at: At) {
        if self.os_listens() {
            let span = self.chance.between(self.spec.shutdown_ms);
            self.shutdown_until = Some(at + span);
            self.restart_after_shutdown = true;
            self.closed_at = Some(at);
        }
    }

    fn os_listens(&self) -> bool {
        matches!(self.run, Run::Kernel { userspace_at } if userspace_at <= self.at)
            && !self.userspace_dead
            && self.dump_until.is_none()
    }

    /// Injects a fault of the host.
    pub fn inject(&mut self, at: At, fault: Fault) {
        self.advance(at);
        let up = matches!(self.run, Run::Kernel { .. });
        match fault {
            Fault::KernelStuck if up => self.run = Run::Stuck,
            Fault::KernelPanic { dump_ms } if up => {
                self.run = Run::Stuck;
                self.dump_until = dump_ms.map(|ms| at + ms);
            }
            Fault::UserspaceDead => self.userspace_dead = up,
            Fault::NicHung => self.nic_hung = true,
            Fault::NicDead => self.nic_dead = true,
            Fault::BenignSilence { lasts_ms } => self.silent_until = at + lasts_ms,
            Fault::PlainReboot => self.graceful_restart(at),
            Fault::OsBroken { kernel_dies } => {
                if matches!(self.disk, Disk::Image(_)) {
                    self.disk = Disk::Broken;
                }
                if kernel_dies && up {
                    self.run = Run::Stuck;
                }
            }
            Fault::NoLocalBoot => {
                self.disk = Disk::Blank;
                if self.run != Run::Off {
                    self.restart();
                }
            }
            Fault::DiskDead => {
                self.disk = Disk::Dead;
                self.hardware = Some(HardwareKind::Disk);
                if up {
                    self.run = Run::Stuck;
                }
            }
            Fault::BootLoop { lives_ms } => {
                self.loop_ms = Some(lives_ms);
                self.dies_at = up.then_some(at + lives_ms);
            }
            Fault::Component(component, failing) => {
                self.components.insert(component, failing);
            }
            Fault::CertificateExpiring => self.certificate_expiring = true,
            Fault::PowerLost(cause) => {
                self.feed = cause != OffCause::AcLoss;
                self.supply = !matches!(cause, OffCause::Fault | OffCause::Thermal);
                self.cut(cause);
                if cause == OffCause::Fault {
                    self.hardware = Some(HardwareKind::PowerSupply);
                }
            }
            Fault::PowerReturns => {
                self.feed = true;
                self.supply = true;
                if self.hardware == Some(HardwareKind::PowerSupply) {
                    self.hardware = None;
                }
                if self.run == Run::Off && self.off_cause == OffCause::AcLoss && self.spec.restores_power {
                    self.power_on(at);
                }
            }
            Fault::Hardware(kind) => {
                self.hardware = Some(kind);
                if up {
                    self.run = Run::Stuck;
                }
            }
            Fault::ForeignData => self.foreign_data = true,
            Fault::Button => {
                if self.run == Run::Off {
                    self.power_on(at)
                } else {
                    self.cut(OffCause::Button)
                }
            }
            Fault::Repaired => self.repair(at),
            Fault::KernelStuck | Fault::KernelPanic { .. } => {}
        }
    }

    fn repair(&mut self, at: At) {
        self.hardware = None;
        self.nic_dead = false;
        self.feed = true;
        self.supply = true;
        self.foreign_data = false;
        self.loop_ms = None;
        self.components.clear();
        self.certificate_expiring = false;
        if !matches!(self.disk, Disk::Image(_)) {
            self.writes += 1;
            self.disk = Disk::Image(self.writes);
        }
        self.bmc.inject(at, BmcFault::Cured);
        if self.run == Run::Off { self.power_on(at) } else { self.restart() }
    }

    /// Injects a fault of the BMC.
    pub fn inject_bmc(&mut self, at: At, fault: BmcFault) {
        self.advance(at);
        self.bmc.inject(at, fault);
    }

    /// The agent restarts a component. Returns whether the agent could.
    pub fn restart_component(&mut self, at: At, component: Component) -> bool {
        self.advance(at);
        if !self.agent_alive() {
            return false;
        }
        if self.components.get(&component).is_some_and(|f| f.restart_cures()) {
            self.components.remove(&component);
        }
        true
    }

    /// What the network sees.
    #[must_use]
    pub fn answers(&self) -> Answers {
        if self.nic_dead || self.nic_hung || self.at < self.silent_until {
            return Answers::SILENT;
        }
        let held = if self.closed_at.is_some() { Held::Closed } else { Held::Open };
        match self.run {
            Run::Kernel { userspace_at } if self.at >= userspace_at && !self.userspace_dead => {
                let kubelet = self.components.get(&Component::Kubelet);
                let down = self.shutdown_until.is_some();
                Answers {
                    arp: true,
                    icmp: true,
                    kubelet_port: match kubelet {
                        _ if down => Some(false),
                        Some(Failing::Hung) | None => Some(true),
                        Some(_) => Some(false),
                    },
                    second_port: Some(!down),
                    kubelet_health: kubelet.is_none() && !down,
                    held,
                }
            }
            // The kernel answers alone while userspace starts, or when it is dead.
            Run::Kernel { .. } if self.userspace_dead => Answers { arp: true, icmp: true, held, ..Answers::SILENT },
            Run::Kernel { .. } => Answers {
                arp: true,
                icmp: true,
                kubelet_port: Some(false),
                second_port: Some(false),
                held,
                ..Answers::SILENT
            },
            Run::Installer { stage: InstallStage::Starting, .. } => Answers::SILENT,
            // The installer runs in memory and opens no port.
            Run::Installer { .. } => Answers {
                arp: true,
                icmp: true,
                kubelet_port: Some(false),
                second_port: Some(false),
                held,
                ..Answers::SILENT
            },
            Run::Off | Run::Post { .. } | Run::Asking { .. } | Run::Loading { .. } | Run::Stuck => Answers::SILENT,
        }
    }

    /// The agent runs and can push its report (as far as the host goes).
    #[must_use]
    pub fn agent_alive(&self) -> bool {
        self.os_listens() && self.shutdown_until.is_none()
    }

    /// The kubelet works: it renews its Lease if it reaches the API.
    #[must_use]
    pub fn kubelet_ok(&self) -> bool {
        let cni_or_runtime = [Component::Runtime, Component::Cni].iter().any(|c| self.components.contains_key(c));
        self.kubelet_renews() && !cni_or_runtime
    }

    /// The kubelet renews its Lease; Ready may still be False (runtime or CNI down).
    #[must_use]
    pub fn kubelet_renews(&self) -> bool {
        let network = !self.nic_dead && !self.nic_hung && self.at >= self.silent_until;
        self.os_listens()
            && network
            && self.shutdown_until.is_none()
            && !self.components.contains_key(&Component::Kubelet)
            && self.disk != Disk::Dead
    }

    /// A component works.
    #[must_use]
    pub fn component_ok(&self, component: Component) -> bool {
        self.os_listens() && self.shutdown_until.is_none() && !self.components.contains_key(&component)
    }

    /// Components that fail, with how.
    #[must_use]
    pub fn failing(&self) -> &BTreeMap<Component, Failing> {
        &self.components
    }

    /// A certificate runs out soon.
    #[must_use]
    pub fn certificate_expiring(&self) -> bool {
        self.certificate_expiring
    }

    /// An orderly shutdown is under way.
    #[must_use]
    pub fn shutting_down(&self) -> bool {
        self.shutdown_until.is_some()
    }

    /// The root file system is broken, as the agent would see it.
    #[must_use]
    pub fn disk_broken(&self) -> bool {
        matches!(self.disk, Disk::Broken | Disk::Dead)
    }

    /// What is on the disk.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.disk
    }

    /// How often the disk was written whole.
    #[must_use]
    pub fn disk_writes(&self) -> u32 {
        self.writes
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

    /// Power in truth.
    #[must_use]
    pub fn power(&self) -> Power {
        match self.run {
            Run::Off => Power::Off,
            _ if self.off_at.is_some() => Power::GoingOff,
            _ => Power::On,
        }
    }

    /// Why it is off.
    #[must_use]
    pub fn off_cause(&self) -> OffCause {
        self.off_cause
    }

    /// It has a feed.
    #[must_use]
    pub fn fed(&self) -> bool {
        self.feed
    }

    pub(crate) fn stage_read(&self) -> StageRead {
        match self.run {
            _ if self.shutdown_until.is_some() => StageRead::ShuttingDown,
            Run::Off => StageRead::None,
            Run::Post { .. } => StageRead::Post,
            Run::Loading { .. } | Run::Asking { .. } | Run::Installer { .. } => StageRead::Starting,
            Run::Kernel { .. } | Run::Stuck => StageRead::Running,
        }
    }

    /// The truth, for checkers.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let kernel = matches!(self.run, Run::Kernel { .. });
        Truth {
            power: self.power(),
            kernel_ok: kernel,
            kubelet_ok: self.kubelet_ok(),
            healthy: self.kubelet_ok() && !self.disk_broken() && self.power() == Power::On,
            boot: kernel.then_some(self.boot),
        }
    }
}
