//! A [`machine::Machine`] as it stands in the simulated world: the same state machine that the BMC emulator puts behind
//! sockets, told in the words of the core, with what the world adds to it (whether its disk holds a joined system).

use crate::watch::WorldTime;
use healing::command::BmcCall;
use healing::event::InstallReport;
use healing::id::{BootId, HostId, JobId, MachineId};
use healing::signal::{AgentReport, BmcTrouble, BootStage, Component, ComponentCause, HardwareFault, OffCause, Power};
use healing::time::{Millis, SECOND};
use machine::{
    AcRestore, BmcError, BmcReply, BmcRequest, BootAnswer, BootOverride, DiskName, Failing, HardwareKind, InstallStage,
    Machine, Role, Spec, StageRead,
};

/// How often a machine that found nothing to boot asks again, and for how many times.
const ASK_AGAIN_MS: Millis = 10 * SECOND;
const ASKS_MAX: u32 = 5;

/// What a BMC answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Accepted.
    Ok,
    /// It is so already.
    Conflict,
    /// Power and why it is off.
    Power(Power, OffCause),
    /// The identity.
    Identity(MachineId),
    /// The stage.
    Stage(BootStage),
    /// Yes or no.
    Flag(bool),
    /// Nothing.
    Trouble(BmcTrouble),
}

/// What a machine did by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It asked the network for something to boot and held no ticket.
    AskedToBoot,
    /// Its installer spoke.
    Install(JobId, InstallReport),
}

/// A machine in the world.
#[derive(Debug, Clone)]
pub struct Plant {
    /// Which.
    pub host: HostId,
    /// The state machine.
    pub machine: Machine,
    /// The system on the disk is a member of its cluster.
    pub joined: bool,
    writes: u32,
    told: Option<(u64, InstallStage)>,
    asks: u32,
    ask_at: Option<WorldTime>,
}

impl Plant {
    /// A machine that runs (or a spare that is off).
    #[must_use]
    pub fn new(
        host: HostId,
        identity: MachineId,
        on: bool,
        control_plane: bool,
        network_first: bool,
        seed: u64,
    ) -> Plant {
        let own = crate::prober::mix(seed, u64::from(host.0), 0x91a7);
        let spec = Spec {
            identity: identity.0,
            system_disk: DiskName { serial: format!("disk-{}", host.0), wwn: u64::from(host.0) },
            role: if control_plane { Role::ControlPlane } else { Role::Worker },
            network_first,
            ac_restore: if own.is_multiple_of(2) { AcRestore::LastState } else { AcRestore::StayOff },
            ..Spec::default()
        };
        let running = Machine::new(spec, own);
        Plant {
            host,
            machine: if on { running } else { running.switched_off() },
            joined: on,
            writes: 0,
            told: None,
            asks: 0,
            ask_at: None,
        }
    }

    /// The identity burnt in.
    #[must_use]
    pub fn identity(&self) -> MachineId {
        MachineId(self.machine.spec().identity)
    }

    /// Its true power.
    #[must_use]
    pub fn power(&self) -> Power {
        power(self.machine.power())
    }

    /// Whether current flows: also while it is on its way off.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.machine.power() != machine::Power::Off
    }

    /// The boot that the kernel runs.
    #[must_use]
    pub fn boot(&self) -> BootId {
        BootId(self.machine.boot_id())
    }

    /// The kernel answers echoes, if the network lets them through.
    #[must_use]
    pub fn kernel_answers(&self) -> bool {
        self.machine.answers().icmp
    }

    /// A component does its work, and its machine's port too.
    #[must_use]
    pub fn serves(&self, component: Component) -> bool {
        self.joined && self.machine.component_ok(theirs(component)) && self.kernel_answers()
    }

    /// Its own system runs, with userspace.
    #[must_use]
    pub fn system_runs(&self) -> bool {
        self.machine.agent_alive()
    }

    /// The kubelet renews (if the network lets it).
    #[must_use]
    pub fn kubelet_works(&self) -> bool {
        self.machine.kubelet_renews()
    }

    /// The node is fit for pods.
    #[must_use]
    pub fn node_fit(&self) -> bool {
        self.machine.kubelet_ok()
    }

    /// What its agent would report.
    #[must_use]
    pub fn agent(&self) -> Option<AgentReport> {
        let machine = &self.machine;
        let speaks = self.joined && machine.answers().icmp && (machine.agent_alive() || machine.shutting_down());
        speaks.then(|| AgentReport {
            failing: machine.failing().iter().next().map(|(c, how)| (ours(*c), cause(*how))),
            certificate_expiring: machine.certificate_expiring(),
            disk_broken: machine.disk_broken(),
            shutting_down: machine.shutting_down(),
            runtime_restart_kills: self.host.0.is_multiple_of(5),
            systemd_backing_off: false,
        })
    }

    /// What a BMC that can be reached says when it is polled.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn poll(&self, now: WorldTime) -> Result<(Power, OffCause), BmcTrouble> {
        self.machine.bmc_answers(now).map_err(trouble)?;
        let read = self.machine.bmc_power(now);
        Ok((power(read.power), off_cause(read.cause)))
    }

    /// The boot stage as its BMC tells it.
    #[must_use]
    pub fn stage(&self, now: WorldTime) -> BootStage {
        stage(self.machine.bmc_stage(now))
    }

    /// Broken hardware as its BMC tells it.
    #[must_use]
    pub fn hardware(&self) -> Option<HardwareFault> {
        self.machine.hardware().map(hardware)
    }

    /// A request reaches its BMC now. Also when the answer will be back, and whether the reply was lost though the
    /// request took effect.
    pub fn ask(&mut self, call: BmcCall, now: WorldTime) -> (WorldTime, Answer) {
        let request = match call {
            BmcCall::Identify => BmcRequest::Identify,
            BmcCall::ReadPower => BmcRequest::ReadPower,
            BmcCall::ForceOff => BmcRequest::ForceOff,
            BmcCall::PowerOn => BmcRequest::PowerOn,
            BmcCall::GracefulRestart => BmcRequest::GracefulRestart,
            BmcCall::ReadStage => BmcRequest::ReadStage,
            BmcCall::SetNetworkBootOnce => BmcRequest::SetBootOnce(BootOverride::NetworkOnce),
            BmcCall::ReadNetworkBootOnce => BmcRequest::ReadBootOnce,
        };
        let outcome = self.machine.bmc_request(now, request);
        let answer = match outcome.result {
            Ok(BmcReply::Accepted) => Answer::Ok,
            Ok(BmcReply::Conflict) => Answer::Conflict,
            Ok(BmcReply::Identity(id)) => Answer::Identity(MachineId(id)),
            Ok(BmcReply::Power(read)) => Answer::Power(power(read.power), off_cause(read.cause)),
            Ok(BmcReply::Stage(read)) => Answer::Stage(stage(read)),
            Ok(BmcReply::Boot(boot)) => Answer::Flag(boot == BootOverride::NetworkOnce),
            Ok(
                BmcReply::Health(_) | BmcReply::Task(_) | BmcReply::Events(_) | BmcReply::Watts(_) | BmcReply::Media(_),
            ) => Answer::Ok,
            Err(error) => Answer::Trouble(trouble(error)),
        };
        (outcome.arrives_at.max(now + 1), answer)
    }

    /// When something happens by itself.
    #[must_use]
    pub fn next(&self) -> Option<WorldTime> {
        match (self.machine.next_change_at(), self.ask_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Lets happen what is due. `ticket` is the job for which it may boot from the network now, and whether that proves it
    /// only.
    pub fn advance(&mut self, now: WorldTime, ticket: Option<(JobId, bool)>) -> Option<News> {
        self.machine.advance(now);
        if self.machine.disk_writes() != self.writes {
            self.writes = self.machine.disk_writes();
            self.joined = false;
        }
        if self.machine.boot_ask().is_none() {
            self.asks = 0;
            self.ask_at = None;
            return self.installer();
        };
        if let Some((job, proves)) = ticket {
            let ticket = machine::Ticket { job: job.0, disk: None, foreign_data_approved: false, proves };
            self.machine.serve_boot(now, BootAnswer::Ticket(ticket));
            self.ask_at = None;
            return self.installer();
        }
        if self.ask_at.is_some_and(|at| at > now) {
            return None;
        }
        self.asks += 1;
        self.ask_at = (self.asks < ASKS_MAX).then_some(now + ASK_AGAIN_MS);
        Some(News::AskedToBoot)
    }

    /// Hands repaired it, and joined its system again if the disk was written.
    pub fn repaired(&mut self, now: WorldTime) {
        self.machine.inject(now, machine::Fault::Repaired);
        self.writes = self.machine.disk_writes();
        self.joined = true;
    }

    fn installer(&mut self) -> Option<News> {
        let installing = self.machine.installing();
        if installing == self.told {
            return None;
        }
        self.told = installing;
        let (job, stage) = installing?;
        let report = match stage {
            InstallStage::Starting => return None,
            InstallStage::Writing | InstallStage::Verifying | InstallStage::Proving => InstallReport::Progress,
            InstallStage::Proven => InstallReport::Proven { machine: Some(self.identity()) },
            InstallStage::Done => InstallReport::Installed,
            InstallStage::ForeignData => InstallReport::ForeignData,
            InstallStage::NoDisk => InstallReport::NoSuchDisk,
            InstallStage::Failed(_) => InstallReport::Failed,
        };
        Some(News::Install(JobId(job), report))
    }
}

fn power(power: machine::Power) -> Power {
    match power {
        machine::Power::On => Power::On,
        machine::Power::Off => Power::Off,
        machine::Power::GoingOff => Power::Transitioning,
    }
}

fn off_cause(cause: machine::OffCause) -> OffCause {
    match cause {
        machine::OffCause::AcLoss => OffCause::AcLoss,
        machine::OffCause::Fault => OffCause::Fault,
        machine::OffCause::Command => OffCause::Command,
        machine::OffCause::Button => OffCause::Button,
        machine::OffCause::Thermal => OffCause::Thermal,
        machine::OffCause::Unknown => OffCause::Unknown,
    }
}

/// The machine's word for a cause.
#[must_use]
pub fn their_cause(cause: OffCause) -> machine::OffCause {
    match cause {
        OffCause::AcLoss => machine::OffCause::AcLoss,
        OffCause::Fault => machine::OffCause::Fault,
        OffCause::Command => machine::OffCause::Command,
        OffCause::Button => machine::OffCause::Button,
        OffCause::Thermal => machine::OffCause::Thermal,
        OffCause::Unknown => machine::OffCause::Unknown,
    }
}

fn trouble(error: BmcError) -> BmcTrouble {
    match error {
        BmcError::Silent | BmcError::ReplyLost => BmcTrouble::Silent,
        BmcError::Refused => BmcTrouble::Refused,
        BmcError::Busy => BmcTrouble::Busy,
    }
}

fn stage(stage: StageRead) -> BootStage {
    match stage {
        StageRead::None => BootStage::None,
        StageRead::Post => BootStage::Post,
        StageRead::Starting => BootStage::OsStarting,
        StageRead::Running => BootStage::OsRunning,
        StageRead::ShuttingDown => BootStage::ShuttingDown,
        StageRead::FirmwareTask => BootStage::FirmwareTask,
    }
}

fn hardware(kind: HardwareKind) -> HardwareFault {
    match kind {
        HardwareKind::PowerSupply => HardwareFault::PowerSupply,
        HardwareKind::Processor => HardwareFault::Processor,
        HardwareKind::Memory => HardwareFault::Memory,
        HardwareKind::Disk => HardwareFault::Disk,
        HardwareKind::Thermal => HardwareFault::Thermal,
        HardwareKind::Other => HardwareFault::Other,
    }
}

/// The machine's word for broken hardware.
#[must_use]
pub fn their_hardware(fault: HardwareFault) -> HardwareKind {
    match fault {
        HardwareFault::PowerSupply => HardwareKind::PowerSupply,
        HardwareFault::Processor => HardwareKind::Processor,
        HardwareFault::Memory => HardwareKind::Memory,
        HardwareFault::Disk => HardwareKind::Disk,
        HardwareFault::Thermal => HardwareKind::Thermal,
        HardwareFault::Other => HardwareKind::Other,
    }
}

/// The machine's word for a component.
#[must_use]
pub fn theirs(component: Component) -> machine::Component {
    match component {
        Component::Kubelet => machine::Component::Kubelet,
        Component::Runtime => machine::Component::Runtime,
        Component::KubeProxy => machine::Component::KubeProxy,
        Component::Cni => machine::Component::Cni,
        Component::ApiServer => machine::Component::ApiServer,
        Component::Etcd => machine::Component::Etcd,
        Component::Scheduler => machine::Component::Scheduler,
        Component::ControllerManager => machine::Component::ControllerManager,
    }
}

fn ours(component: machine::Component) -> Component {
    match component {
        machine::Component::Kubelet => Component::Kubelet,
        machine::Component::Runtime => Component::Runtime,
        machine::Component::KubeProxy => Component::KubeProxy,
        machine::Component::Cni => Component::Cni,
        machine::Component::ApiServer => Component::ApiServer,
        machine::Component::Etcd => Component::Etcd,
        machine::Component::Scheduler => Component::Scheduler,
        machine::Component::ControllerManager => Component::ControllerManager,
    }
}

fn cause(failing: Failing) -> ComponentCause {
    match failing {
        Failing::Dead => ComponentCause::Dead,
        Failing::Hung => ComponentCause::Hung,
        Failing::CertificateExpired => ComponentCause::CertificateExpired,
        Failing::DiskFull => ComponentCause::DiskFull,
        Failing::BadConfig => ComponentCause::BadConfig,
        Failing::Stubborn => ComponentCause::Unknown,
    }
}

/// The machine's word for how a component fails. `Unknown` is one that no restart of itself cures.
#[must_use]
pub fn failing(cause: ComponentCause) -> Failing {
    match cause {
        ComponentCause::Dead => Failing::Dead,
        ComponentCause::Hung => Failing::Hung,
        ComponentCause::CertificateExpired => Failing::CertificateExpired,
        ComponentCause::DiskFull => Failing::DiskFull,
        ComponentCause::BadConfig => Failing::BadConfig,
        ComponentCause::Unknown => Failing::Stubborn,
    }
}
