//! Faults: everything that the generator or a story may do to the simulated world, and what cures each.

use healing::id::{ClusterId, DomainId, HostId, StorageId};
use healing::signal::{Component, ComponentCause, HardwareFault, OffCause};
use healing::time::Millis;

/// Something that goes wrong. Those about one host are injected together with that host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    // ---- one host ----
    /// The kernel hangs: nothing answers, power stays on.
    KernelStuck,
    /// The kernel panics. With a crash kernel it writes its dump for so long and restarts by itself; without it hangs.
    KernelPanic {
        /// Time of the dump; `None` = no crash kernel.
        dump_ms: Option<Millis>,
    },
    /// Only the kernel answers echoes; userspace is dead.
    UserspaceDead,
    /// The network card stops until the next cold start.
    NicHung,
    /// The network card is broken.
    NicDead,
    /// The host is silent for a while and comes back by itself (spanning tree, LACP).
    BenignSilence {
        /// How long.
        lasts_ms: Millis,
    },
    /// Somebody types `reboot` on the host, without a cordon.
    PlainReboot,
    /// The root disk is full.
    DiskFull,
    /// The disk is dead.
    DiskDead,
    /// The operating system on the disk is broken; the kernel dies with it and no boot comes through.
    OsBroken,
    /// The boot loader is gone and the host restarts: it asks the network for something to boot.
    NoLocalBoot,
    /// It restarts over and over.
    BootLoop,
    /// A component fails.
    Component(Component, ComponentCause),
    /// A certificate runs out soon.
    CertificateExpiring,
    /// The mains or the power supply fail: off.
    PowerLost {
        /// As the BMC tells it.
        cause: OffCause,
        /// When mains come back; `None` = a person must repair it.
        returns_ms: Option<Millis>,
    },
    /// Hardware breaks, the kernel dies with it.
    Hardware(HardwareFault),

    // ---- a host's BMC ----
    /// Each request takes so much longer.
    BmcSlow {
        /// Added to each reply.
        delay_ms: Millis,
    },
    /// It refuses the credential.
    BmcRefusing,
    /// It is silent until somebody cuts its power.
    BmcStuck,
    /// All its sessions are taken for a while.
    BmcSessionsFull {
        /// How long.
        lasts_ms: Millis,
    },
    /// It restarts.
    BmcResetting {
        /// How long.
        lasts_ms: Millis,
    },
    /// It says Off whatever is so, from the next power command on.
    BmcSaysOff,
    /// It says On whatever is so.
    BmcSaysOn,
    /// It hangs on the host's power: it dies with it.
    BmcSideband,
    /// Its cable is swapped with that of another host.
    CablesSwapped {
        /// The other.
        with: HostId,
    },
    /// Somebody else powers the host off by its BMC.
    ForeignOff,
    /// It does not follow one-shot boot.
    BmcIgnoresBoot,
    /// It accepts power commands without any effect.
    BmcIgnoresPower,
    /// A firmware task runs.
    FirmwareTask {
        /// How long.
        lasts_ms: Millis,
    },

    // ---- network ----
    /// Packets to and from a host get lost.
    Loss {
        /// Share in percent.
        percent: u8,
        /// How long.
        lasts_ms: Millis,
    },
    /// A host hears but is not heard by us; the API hears it.
    OneWay {
        /// How long.
        lasts_ms: Millis,
    },
    /// A switch dies, with all hosts behind it.
    SwitchDown {
        /// The switch.
        switch: DomainId,
        /// How long.
        lasts_ms: Millis,
    },
    /// A rack is cut off from us, not from the API.
    RackPartition {
        /// The rack.
        rack: DomainId,
        /// How long.
        lasts_ms: Millis,
    },
    /// The appliance is cut off from everything.
    AppliancePartition {
        /// How long.
        lasts_ms: Millis,
    },
    /// The management network alone fails: no BMC answers.
    ManagementDown {
        /// How long.
        lasts_ms: Millis,
    },

    // ---- a cluster ----
    /// No API endpoint answers anybody.
    ApiDown {
        /// Which.
        cluster: ClusterId,
        /// How long.
        lasts_ms: Millis,
    },
    /// Each request takes so long.
    ApiSlow {
        /// Which.
        cluster: ClusterId,
        /// Added to each reply.
        delay_ms: Millis,
        /// How long.
        lasts_ms: Millis,
    },
    /// Our watch delivers nothing though the API lives.
    WatchStale {
        /// Which.
        cluster: ClusterId,
        /// How long.
        lasts_ms: Millis,
    },
    /// The virtual address is held by a control-plane host, whose kernel hangs.
    VipOnDeadHost {
        /// Which.
        cluster: ClusterId,
    },
    /// The API is so slow that Leases of all nodes come late.
    LeaseStorm {
        /// Which.
        cluster: ClusterId,
        /// How long.
        lasts_ms: Millis,
    },
    /// Pods on the host keep a finalizer: they do not go.
    PodsStay {
        /// How long.
        lasts_ms: Millis,
    },
    /// The host is Ready and starts no pod (its runtime makes no sandbox).
    PodsDoNotStart {
        /// How long.
        lasts_ms: Millis,
    },
    /// The API refuses to delete the host's pods (an admission hook, a right taken away).
    DeletionRefused {
        /// How long.
        lasts_ms: Millis,
    },
    /// VolumeAttachments of the host stay.
    AttachmentsStay {
        /// How long.
        lasts_ms: Millis,
    },
    /// An upgrade runs.
    UpgradeRunning {
        /// Which.
        cluster: ClusterId,
        /// How long.
        lasts_ms: Millis,
    },
    /// A person cordons the node.
    HumanCordon {
        /// How long.
        lasts_ms: Millis,
    },
    /// A control-plane host's etcd member stops.
    EtcdMemberLost,
    /// The etcd of a cluster loses its quorum: the kernels of a majority hang.
    QuorumLost {
        /// Which.
        cluster: ClusterId,
    },
    /// A learner joins etcd for a while.
    LearnerAdded {
        /// Which.
        cluster: ClusterId,
        /// How long.
        lasts_ms: Millis,
    },
    /// Somebody else restarts a control-plane host.
    ForeignControlPlaneAction,
    /// A storage system's redundancy is reduced, not by any host.
    StorageReduced {
        /// Which.
        system: StorageId,
        /// How long.
        lasts_ms: Millis,
    },
    /// The CMDB says that the host is not in service.
    CmdbOther {
        /// How long.
        lasts_ms: Millis,
    },

    // ---- many at once ----
    /// A PDU or rack loses power.
    DomainPower {
        /// Which.
        domain: DomainId,
        /// How long.
        lasts_ms: Millis,
    },
    /// The kernels of so many percent of a cluster's workers hang, all over the racks.
    ShareLost {
        /// Which.
        cluster: ClusterId,
        /// How many.
        percent: u8,
    },
    /// The whole site loses power, the appliance too.
    SitePower {
        /// How long.
        lasts_ms: Millis,
    },

    // ---- the appliance ----
    /// It is killed and started again.
    Killed {
        /// How long it is down.
        down_ms: Millis,
    },
    /// It is stopped (SIGSTOP) and goes on.
    Stopped {
        /// How long.
        lasts_ms: Millis,
    },
    /// Its loop gets no processor time now and then: its probers drain late.
    Starved {
        /// How long.
        lasts_ms: Millis,
    },
    /// Its wall clock is stepped.
    ClockStepped {
        /// By how much.
        by_ms: i64,
    },
    /// Its disk is full or fails.
    StoreFails {
        /// How long.
        lasts_ms: Millis,
    },
    /// The last group is not written and the process dies.
    TornWrite,
}

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// Time: it ends by itself.
    Time,
    /// A restart of the component.
    Component,
    /// Any restart of the kernel.
    Restart,
    /// A cold start: power off and on.
    PowerCycle,
    /// A new image.
    Reimage,
    /// Another machine, or hands.
    Person,
}

impl Fault {
    /// What cures it.
    #[must_use]
    pub fn cure(&self) -> Cure {
        match self {
            Fault::KernelStuck | Fault::NicHung | Fault::VipOnDeadHost { .. } => Cure::PowerCycle,
            Fault::KernelPanic { dump_ms: Some(_) } => Cure::Time,
            Fault::KernelPanic { dump_ms: None } | Fault::UserspaceDead => Cure::PowerCycle,
            Fault::QuorumLost { .. } | Fault::ShareLost { .. } => Cure::PowerCycle,
            Fault::EtcdMemberLost => Cure::Component,
            Fault::Component(_, cause) if cause.restart_helps() => Cure::Component,
            Fault::Component(_, ComponentCause::DiskFull) | Fault::DiskFull => Cure::Reimage,
            Fault::Component(..) | Fault::CertificateExpiring => Cure::Person,
            Fault::OsBroken | Fault::NoLocalBoot | Fault::BootLoop => Cure::Reimage,
            Fault::NicDead | Fault::DiskDead | Fault::Hardware(_) => Cure::Person,
            Fault::PowerLost { returns_ms: Some(_), .. } => Cure::Time,
            Fault::PowerLost { returns_ms: None, .. } => Cure::Person,
            Fault::BmcRefusing
            | Fault::BmcStuck
            | Fault::BmcSaysOff
            | Fault::BmcSaysOn
            | Fault::BmcSideband
            | Fault::BmcSlow { .. }
            | Fault::CablesSwapped { .. }
            | Fault::ForeignOff
            | Fault::BmcIgnoresBoot
            | Fault::BmcIgnoresPower => Cure::Person,
            Fault::PlainReboot
            | Fault::BenignSilence { .. }
            | Fault::BmcSessionsFull { .. }
            | Fault::BmcResetting { .. }
            | Fault::FirmwareTask { .. }
            | Fault::Loss { .. }
            | Fault::OneWay { .. }
            | Fault::SwitchDown { .. }
            | Fault::RackPartition { .. }
            | Fault::AppliancePartition { .. }
            | Fault::ManagementDown { .. }
            | Fault::ApiDown { .. }
            | Fault::ApiSlow { .. }
            | Fault::WatchStale { .. }
            | Fault::LeaseStorm { .. }
            | Fault::PodsStay { .. }
            | Fault::DeletionRefused { .. }
            | Fault::PodsDoNotStart { .. }
            | Fault::AttachmentsStay { .. }
            | Fault::UpgradeRunning { .. }
            | Fault::HumanCordon { .. }
            | Fault::LearnerAdded { .. }
            | Fault::ForeignControlPlaneAction
            | Fault::StorageReduced { .. }
            | Fault::CmdbOther { .. }
            | Fault::DomainPower { .. }
            | Fault::SitePower { .. }
            | Fault::Killed { .. }
            | Fault::Stopped { .. }
            | Fault::Starved { .. }
            | Fault::ClockStepped { .. }
            | Fault::StoreFails { .. }
            | Fault::TornWrite => Cure::Time,
        }
    }

    /// Its name in kebab case, without its numbers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Fault::KernelStuck => "kernel-stuck",
            Fault::KernelPanic { dump_ms: Some(_) } => "kernel-panic-with-dump",
            Fault::KernelPanic { dump_ms: None } => "kernel-panic",
            Fault::UserspaceDead => "userspace-dead",
            Fault::NicHung => "nic-hung",
            Fault::NicDead => "nic-dead",
            Fault::BenignSilence { .. } => "benign-silence",
            Fault::PlainReboot => "plain-reboot",
            Fault::DiskFull => "disk-full",
            Fault::DiskDead => "disk-dead",
            Fault::OsBroken => "os-broken",
            Fault::NoLocalBoot => "no-local-boot",
            Fault::BootLoop => "boot-loop",
            Fault::Component(..) => "component",
            Fault::CertificateExpiring => "certificate-expiring",
            Fault::PowerLost { .. } => "power-lost",
            Fault::Hardware(_) => "hardware",
            Fault::BmcSlow { .. } => "bmc-slow",
            Fault::BmcRefusing => "bmc-refusing",
            Fault::BmcStuck => "bmc-stuck",
            Fault::BmcSessionsFull { .. } => "bmc-sessions-full",
            Fault::BmcResetting { .. } => "bmc-resetting",
            Fault::BmcSaysOff => "bmc-says-off",
            Fault::BmcSaysOn => "bmc-says-on",
            Fault::BmcSideband => "bmc-sideband",
            Fault::CablesSwapped { .. } => "cables-swapped",
            Fault::ForeignOff => "foreign-off",
            Fault::BmcIgnoresBoot => "bmc-ignores-boot",
            Fault::BmcIgnoresPower => "bmc-ignores-power",
            Fault::FirmwareTask { .. } => "firmware-task",
            Fault::Loss { .. } => "loss",
            Fault::OneWay { .. } => "one-way",
            Fault::SwitchDown { .. } => "switch-down",
            Fault::RackPartition { .. } => "rack-partition",
            Fault::AppliancePartition { .. } => "appliance-partition",
            Fault::ManagementDown { .. } => "management-down",
            Fault::ApiDown { .. } => "api-down",
            Fault::ApiSlow { .. } => "api-slow",
            Fault::WatchStale { .. } => "watch-stale",
            Fault::VipOnDeadHost { .. } => "vip-on-dead-host",
            Fault::LeaseStorm { .. } => "lease-storm",
            Fault::PodsStay { .. } => "pods-stay",
            Fault::DeletionRefused { .. } => "deletion-refused",
            Fault::PodsDoNotStart { .. } => "pods-do-not-start",
            Fault::AttachmentsStay { .. } => "attachments-stay",
            Fault::UpgradeRunning { .. } => "upgrade-running",
            Fault::HumanCordon { .. } => "human-cordon",
            Fault::EtcdMemberLost => "etcd-member-lost",
            Fault::QuorumLost { .. } => "quorum-lost",
            Fault::LearnerAdded { .. } => "learner-added",
            Fault::ForeignControlPlaneAction => "foreign-control-plane-action",
            Fault::StorageReduced { .. } => "storage-reduced",
            Fault::CmdbOther { .. } => "cmdb-other",
            Fault::DomainPower { .. } => "domain-power",
            Fault::ShareLost { .. } => "share-lost",
            Fault::SitePower { .. } => "site-power",
            Fault::Killed { .. } => "appliance-killed",
            Fault::Stopped { .. } => "appliance-stopped",
            Fault::Starved { .. } => "appliance-starved",
            Fault::ClockStepped { .. } => "clock-stepped",
            Fault::StoreFails { .. } => "store-fails",
            Fault::TornWrite => "torn-write",
        }
    }
}
