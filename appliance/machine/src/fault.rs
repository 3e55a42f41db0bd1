//! What can go wrong with a host, and what cures it.

use crate::Millis;
use crate::install::InstallTrouble;
use crate::power::OffCause;
use serde::{Deserialize, Serialize};

/// A Kubernetes component on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Component {
    /// kubelet.
    Kubelet,
    /// Container runtime.
    Runtime,
    /// kube-proxy.
    KubeProxy,
    /// CNI agent.
    Cni,
    /// kube-apiserver.
    ApiServer,
    /// etcd.
    Etcd,
    /// kube-scheduler.
    Scheduler,
    /// kube-controller-manager.
    ControllerManager,
}

/// The weakest thing that brings a machine back, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cure {
    /// Nothing ails it.
    Nothing,
    /// It comes back by itself.
    Time,
    /// A restart of the component.
    ComponentRestart,
    /// It is off and only has to be switched on.
    PowerOn,
    /// A reboot through the operating system.
    Reboot,
    /// Off and on.
    PowerCycle,
    /// A new image.
    Reimage,
    /// Hands at the machine.
    Hands,
}

/// How a component fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failing {
    /// The process is gone; a restart cures it.
    Dead,
    /// The process hangs; a restart cures it.
    Hung,
    /// Its certificate has expired; only a new join cures it.
    CertificateExpired,
    /// The disk is full; only a new image cures it.
    DiskFull,
    /// Its configuration is wrong; only a new image cures it.
    BadConfig,
    /// It dies again after each restart of itself, but not after a reboot.
    Stubborn,
}

impl Failing {
    /// The weakest cure.
    #[must_use]
    pub fn cure(self) -> Cure {
        match self {
            Failing::Dead | Failing::Hung => Cure::ComponentRestart,
            Failing::Stubborn => Cure::Reboot,
            Failing::CertificateExpired | Failing::DiskFull | Failing::BadConfig => Cure::Reimage,
        }
    }

    /// A restart of the component cures it.
    #[must_use]
    pub fn restart_cures(self) -> bool {
        self.cure() <= Cure::ComponentRestart
    }

    /// A reboot cures it.
    #[must_use]
    pub fn reboot_cures(self) -> bool {
        self.cure() <= Cure::Reboot
    }
}

/// Broken hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HardwareKind {
    /// Power supply.
    PowerSupply,
    /// Processor.
    Processor,
    /// Memory.
    Memory,
    /// Disk.
    Disk,
    /// Temperature.
    Thermal,
    /// Other.
    Other,
}

/// A fault of the host, or something that people do to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The kernel hangs: nothing answers. Cured by power.
    KernelStuck,
    /// The kernel panics. With `dump_ms` it dumps for so long (or waits so long: `kernel.panic`) and restarts by
    /// itself; without, it stands. Cured by power.
    KernelPanic {
        /// Time of the dump.
        dump_ms: Option<Millis>,
    },
    /// Pings are answered, userspace is dead. Cured by power.
    UserspaceDead,
    /// The network card hangs until the next reset of the machine.
    NicHung,
    /// The network card is broken. Cured by hands.
    NicDead,
    /// Silent on the network for a while, then as before.
    BenignSilence {
        /// How long.
        lasts_ms: Millis,
    },
    /// Somebody types `reboot`.
    PlainReboot,
    /// Somebody types `poweroff`.
    PlainPoweroff,
    /// The root file system is broken (`kernel_dies`: the kernel goes with it). No boot comes through. Cured by an image.
    OsBroken {
        /// The kernel dies at once.
        kernel_dies: bool,
    },
    /// The boot loader is gone and the machine restarts. Cured by an image.
    NoLocalBoot,
    /// The disk is dead. Cured by hands.
    DiskDead,
    /// Hands put an empty disk of another serial in place of the system disk, and the machine restarts. Cured by hands.
    DiskSwapped,
    /// It restarts itself so long after each boot. Cured by an image.
    BootLoop {
        /// Life of one boot.
        lives_ms: Millis,
    },
    /// A component fails.
    Component(Component, Failing),
    /// A certificate runs out soon; nothing fails yet.
    CertificateExpiring,
    /// The feed or the supply fails: off at once.
    PowerLost(OffCause),
    /// The feed returns.
    PowerReturns,
    /// Hardware breaks and the kernel dies with it. Cured by hands.
    Hardware(HardwareKind),
    /// A foreign data signature appears on the system disk: the installer refuses.
    ForeignData,
    /// The next install goes wrong in this way; the one after it does not.
    Install(InstallTrouble),
    /// Somebody presses the button.
    Button,
    /// Somebody else switches it through its BMC.
    PowerByOthers {
        /// On, else off.
        on: bool,
    },
    /// A person repaired everything that hands can repair.
    Repaired,
}

impl Fault {
    /// The weakest thing that brings a healthy machine back after this fault alone.
    #[must_use]
    pub fn cure(self) -> Cure {
        match self {
            Fault::KernelPanic { dump_ms: Some(_) } | Fault::BenignSilence { .. } | Fault::PlainReboot => Cure::Time,
            Fault::Component(_, failing) => failing.cure(),
            Fault::PlainPoweroff | Fault::Button | Fault::PowerByOthers { on: false } => Cure::PowerOn,
            Fault::NicHung => Cure::Reboot,
            Fault::KernelStuck | Fault::KernelPanic { dump_ms: None } | Fault::UserspaceDead => Cure::PowerCycle,
            Fault::OsBroken { .. } | Fault::NoLocalBoot | Fault::BootLoop { .. } | Fault::CertificateExpiring => {
                Cure::Reimage
            }
            Fault::NicDead
            | Fault::DiskDead
            | Fault::DiskSwapped
            | Fault::PowerLost(_)
            | Fault::Hardware(_)
            | Fault::ForeignData => Cure::Hands,
            Fault::PowerReturns | Fault::Install(_) | Fault::PowerByOthers { on: true } | Fault::Repaired => {
                Cure::Nothing
            }
        }
    }
}
