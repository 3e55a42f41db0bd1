//! What can go wrong with a host and its BMC. Each host fault knows what cures it.

use crate::Millis;
use crate::host::OffCause;
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
    /// A restart of the component cures it.
    #[must_use]
    pub fn restart_cures(self) -> bool {
        matches!(self, Failing::Dead | Failing::Hung)
    }

    /// A reboot cures it.
    #[must_use]
    pub fn reboot_cures(self) -> bool {
        matches!(self, Failing::Dead | Failing::Hung | Failing::Stubborn)
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

/// A fault of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The kernel hangs: nothing answers. Cured by power.
    KernelStuck,
    /// The kernel panics. With a crash kernel it dumps for so long and restarts by itself; without, it stands. Cured
    /// by power.
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
    /// The root file system is broken (`kernel_dies`: the kernel goes with it). No boot comes through. Cured by an image.
    OsBroken {
        /// The kernel dies at once.
        kernel_dies: bool,
    },
    /// The boot loader is gone and the machine restarts. Cured by an image.
    NoLocalBoot,
    /// The disk is dead. Cured by hands.
    DiskDead,
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
    /// Somebody presses the button.
    Button,
    /// A person repaired everything that hands can repair.
    Repaired,
}

/// A fault of the BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcFault {
    /// Each reply comes so much later.
    Slow(Millis),
    /// It refuses the credential.
    Refusing,
    /// No answer until its own power is cut.
    Dead,
    /// All its sessions are taken.
    SessionsFull,
    /// It restarts, for so long.
    Resetting(Millis),
    /// From the next power command on it says Off, whatever is so.
    SaysOff,
    /// It says On, whatever is so.
    SaysOn,
    /// It hangs on the host's feed and dies with it.
    Sideband,
    /// It does not follow one-shot boot.
    IgnoresBoot,
    /// It accepts power commands without effect.
    IgnoresPower,
    /// A firmware task runs, for so long.
    FirmwareTask(Millis),
    /// It answers power from a copy so old.
    Stale(Millis),
    /// The next power write takes effect, but its reply is lost.
    LosesReply,
    /// It answers 409 to an Off of a machine that is off, and to an On of one that is on.
    Conflicts,
    /// All of these are over.
    Cured,
}
