//! Signals: one raw observation from one source. Volatile, never journaled, never queued.

use crate::id::BootId;
use crate::time::{Elapsed, Millis};
use serde::{Deserialize, Serialize};

/// Which independent way of looking a source belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Plane {
    /// ARP, ICMP and TCP on the host's network.
    Network,
    /// The Kubernetes API, Lease and Node; for control-plane hosts their own /readyz and etcd member.
    Cluster,
    /// The BMC: power, POST, health.
    OutOfBand,
    /// The node agent.
    Agent,
}

/// Where a signal comes from. Each has one slot in the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Source {
    /// ARP on the attached segment. Alone it proves neither life nor death.
    Arp,
    /// ICMP echo: the kernel is alive, userspace may be dead.
    Icmp,
    /// TCP SYN to 10250.
    KubeletPort,
    /// TCP SYN to a second userspace port.
    SecondPort,
    /// TLS and /healthz on 10250; 401 is alive.
    KubeletHealth,
    /// One idle TCP connection to 10250 that we hold.
    HeldConnection,
    /// A DHCP DISCOVER of boot class from a host that holds no ticket: it found nothing to boot.
    BootRequest,
    /// A change of the node's Lease as received by our watch.
    Lease,
    /// The Node object.
    Node,
    /// /readyz of the API server on this control-plane host, read directly.
    ApiServer,
    /// The etcd member on this control-plane host, read directly.
    EtcdMember,
    /// Chassis power by the BMC.
    Power,
    /// POST and boot progress, firmware tasks.
    BootProgress,
    /// Hardware health by sensors and SEL.
    Hardware,
    /// The node agent's report.
    Agent,
}

impl Source {
    /// All sources in slot order.
    pub const ALL: [Source; 15] = [
        Source::Arp,
        Source::Icmp,
        Source::KubeletPort,
        Source::SecondPort,
        Source::KubeletHealth,
        Source::HeldConnection,
        Source::BootRequest,
        Source::Lease,
        Source::Node,
        Source::ApiServer,
        Source::EtcdMember,
        Source::Power,
        Source::BootProgress,
        Source::Hardware,
        Source::Agent,
    ];

    /// The plane of this source.
    #[must_use]
    pub fn plane(self) -> Plane {
        match self {
            Source::Arp
            | Source::Icmp
            | Source::KubeletPort
            | Source::SecondPort
            | Source::KubeletHealth
            | Source::HeldConnection
            | Source::BootRequest => Plane::Network,
            Source::Lease | Source::Node | Source::ApiServer | Source::EtcdMember => Plane::Cluster,
            Source::Power | Source::BootProgress | Source::Hardware => Plane::OutOfBand,
            Source::Agent => Plane::Agent,
        }
    }
}

/// Chassis power. Nothing is ever derived from `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Power {
    /// Running.
    On,
    /// Off.
    Off,
    /// Between the two (PoweringOn, PoweringOff, Paused).
    Transitioning,
    /// Not read, unreadable, or a word that we do not know.
    #[default]
    Unknown,
}

/// Why a host was found off, as its BMC tells it (chassis restart cause, SEL). Decides rule 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OffCause {
    /// Mains or feed lost.
    AcLoss,
    /// A power fault.
    Fault,
    /// Somebody's command.
    Command,
    /// The button.
    Button,
    /// Over-temperature.
    Thermal,
    /// Not told.
    #[default]
    Unknown,
}

/// Why a BMC gave no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcTrouble {
    /// No answer.
    Silent,
    /// It refused our credential; that credential stops (rule 32).
    Refused,
    /// Busy, sessions exhausted, or restarting.
    Busy,
}

/// Boot stage as the BMC reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BootStage {
    /// Nothing reported.
    #[default]
    None,
    /// Power-on self test.
    Post,
    /// The operating system is starting.
    OsStarting,
    /// The operating system runs.
    OsRunning,
    /// An orderly shutdown is under way.
    ShuttingDown,
    /// A firmware task is running: no power off (rule 33).
    FirmwareTask,
}

/// A hardware fault that a reboot does not cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HardwareFault {
    /// Power supply.
    PowerSupply,
    /// Processor.
    Processor,
    /// Memory.
    Memory,
    /// Disk.
    Disk,
    /// Fans or temperature.
    Thermal,
    /// Something else that the BMC calls critical.
    Other,
}

/// A Kubernetes component on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Component {
    /// kubelet.
    Kubelet,
    /// The container runtime.
    Runtime,
    /// kube-proxy.
    KubeProxy,
    /// The CNI agent.
    Cni,
    /// kube-apiserver (static pod).
    ApiServer,
    /// etcd (static pod).
    Etcd,
    /// kube-scheduler (static pod).
    Scheduler,
    /// kube-controller-manager (static pod).
    ControllerManager,
}

/// Why a component failed, as far as the agent can tell. Decides which rung is useful (rule 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ComponentCause {
    /// The process is gone.
    Dead,
    /// The process does not answer.
    Hung,
    /// Its certificate has expired: no restart and no reboot cures it.
    CertificateExpired,
    /// The disk is full.
    DiskFull,
    /// Its configuration is wrong.
    BadConfig,
    /// Not known.
    Unknown,
}

impl ComponentCause {
    /// Whether restarting the component can cure it.
    #[must_use]
    pub fn restart_helps(self) -> bool {
        match self {
            ComponentCause::Dead | ComponentCause::Hung | ComponentCause::Unknown => true,
            ComponentCause::CertificateExpired | ComponentCause::DiskFull | ComponentCause::BadConfig => false,
        }
    }
}

/// What the node agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentReport {
    /// The worst failing component, if any.
    pub failing: Option<(Component, ComponentCause)>,
    /// A certificate that expires within its warning time.
    pub certificate_expiring: bool,
    /// The root file system is broken or read-only.
    pub disk_broken: bool,
    /// The host announced an orderly shutdown or reboot.
    pub shutting_down: bool,
    /// Restarting the runtime would kill containers (no live restore): rule 54.
    pub runtime_restart_kills: bool,
    /// systemd is restarting the component itself just now: rule 53 says wait.
    pub systemd_backing_off: bool,
}

/// What the Node object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// Condition Ready: True, False or Unknown (`None`).
    pub ready: Option<bool>,
    /// The boot that the node runs.
    pub boot: BootId,
    /// Cordoned, by anybody.
    pub cordoned: bool,
    /// A Ready condition whose reason says that the node is shutting down.
    pub shutting_down: bool,
    /// Somebody else's mark forbids disruption: a human cordon, drain, maintenance annotation, kured lock (rule 50).
    pub foreign_mark: bool,
    /// Such a mark beside a cordon: a tool or a window has it in hand, and no drill is wanted there.
    #[serde(default)]
    pub claimed: bool,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// It answered: ARP by the host's own MAC, echo reply, SYN/ACK, healthz, /readyz ok, member healthy.
    Answer,
    /// A probe left, the receiver was drained within 500 ms of its deadline, and nothing came (rule 47).
    Miss,
    /// A reset: the host lives, the process does not.
    Refused,
    /// The held connection is open.
    Open,
    /// The held connection was closed by FIN or RST while ICMP answered: a mark (rule 33).
    Closed,
    /// The host asked the network for something to boot.
    AskedToBoot,
    /// The Lease was renewed.
    Renewed,
    /// The Node object.
    Node(NodeReport),
    /// There is no Node object of that name.
    NoNode,
    /// Chassis power, and why it is off if it is.
    Power(Power, OffCause),
    /// The BMC gave no reading.
    Trouble(BmcTrouble),
    /// Boot progress.
    Stage(BootStage),
    /// Hardware health; `None` is healthy.
    Health(Option<HardwareFault>),
    /// The agent's report.
    Report(AgentReport),
}

/// One observation, or a run of equal ones: `count` samples with the same content between `first` and `last`.
/// A single sample is a run of one. Folding a run gives the same evidence as folding its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Where it comes from.
    pub source: Source,
    /// What was seen.
    pub seen: Seen,
    /// When the first sample was taken.
    pub first: Elapsed,
    /// When the last sample was taken.
    pub last: Elapsed,
    /// How many samples, at least one.
    pub count: u32,
    /// For a miss: how long after the probe's deadline the receiver was last drained. More than 500 ms and the miss
    /// does not count: it may be our own sleep (rule 47).
    pub drained_after_ms: Millis,
}

impl Signal {
    /// A single sample.
    #[must_use]
    pub fn sample(source: Source, seen: Seen, at: Elapsed) -> Signal {
        Signal { source, seen, first: at, last: at, count: 1, drained_after_ms: 0 }
    }

    /// A run of equal samples.
    #[must_use]
    pub fn run(source: Source, seen: Seen, first: Elapsed, last: Elapsed, count: u32) -> Signal {
        Signal { source, seen, first, last, count: count.max(1), drained_after_ms: 0 }
    }
}
