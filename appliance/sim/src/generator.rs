//! Faults by chance: a mean of one per ten host-hours, of every kind, each with its weight.

use crate::chance::Chance;
use crate::fault::Fault;
use crate::reality::Reality;
use crate::watch::{GroundTruth, WorldTime};
use healing::id::{ClusterId, DomainId, HostId, StorageId};
use healing::signal::{Component, ComponentCause, HardwareFault, OffCause};
use healing::time::{HOUR, MINUTE, Millis, SECOND};
use healing::world::host::Role;

/// Draws faults.
#[derive(Debug, Clone)]
pub struct Generator {
    chance: Chance,
    hosts: u64,
    mean_ms: Millis,
    from: WorldTime,
    until: WorldTime,
}

/// A kind of fault, to be filled with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kernel,
    Panic,
    Userspace,
    NicHung,
    NicDead,
    Benign,
    Reboot,
    DiskFull,
    DiskDead,
    OsBroken,
    NoLocalBoot,
    BootLoop,
    Component,
    Certificate,
    PowerLost,
    Hardware,
    Bmc,
    BmcWithHost,
    Cables,
    ForeignOff,
    Loss,
    Switch,
    Rack,
    AppliancePartition,
    Management,
    Api,
    VipDead,
    LeaseStorm,
    Sticky,
    People,
    ControlPlane,
    Quorum,
    Storage,
    DomainPower,
    ShareLost,
    SitePower,
    Appliance,
    Flapping,
}

/// Weights out of about a thousand.
const WEIGHTS: &[(Kind, u64)] = &[
    (Kind::Kernel, 150),
    (Kind::Panic, 70),
    (Kind::Userspace, 60),
    (Kind::NicHung, 40),
    (Kind::NicDead, 10),
    (Kind::Benign, 60),
    (Kind::Reboot, 50),
    (Kind::DiskFull, 25),
    (Kind::DiskDead, 12),
    (Kind::OsBroken, 35),
    (Kind::NoLocalBoot, 30),
    (Kind::BootLoop, 25),
    (Kind::Component, 130),
    (Kind::Certificate, 10),
    (Kind::PowerLost, 45),
    (Kind::Hardware, 30),
    (Kind::Bmc, 40),
    (Kind::BmcWithHost, 40),
    (Kind::Cables, 8),
    (Kind::ForeignOff, 15),
    (Kind::Loss, 20),
    (Kind::Switch, 6),
    (Kind::Rack, 6),
    (Kind::AppliancePartition, 8),
    (Kind::Management, 8),
    (Kind::Api, 25),
    (Kind::VipDead, 12),
    (Kind::LeaseStorm, 8),
    (Kind::Sticky, 10),
    (Kind::People, 25),
    (Kind::ControlPlane, 25),
    (Kind::Quorum, 4),
    (Kind::Storage, 8),
    (Kind::DomainPower, 5),
    (Kind::ShareLost, 4),
    (Kind::SitePower, 2),
    (Kind::Appliance, 30),
    (Kind::Flapping, 8),
];

/// A site of this many hosts has site-wide trouble as often as its weights say.
const USUAL_HOSTS: u64 = 100;

impl Kind {
    /// Trouble of the whole site or of a cluster: there is no more of it because a site has more hosts.
    fn wide(self) -> bool {
        matches!(
            self,
            Kind::AppliancePartition
                | Kind::Management
                | Kind::Api
                | Kind::VipDead
                | Kind::LeaseStorm
                | Kind::People
                | Kind::ControlPlane
                | Kind::Quorum
                | Kind::Storage
                | Kind::ShareLost
                | Kind::SitePower
                | Kind::Appliance
        )
    }
}

impl Generator {
    /// For so many hosts and a run of so long. Nothing new happens in the first ten minutes and after `until`; what
    /// comes between is dense enough that the mean over the whole run is one per ten host-hours.
    #[must_use]
    pub fn new(seed: u64, hosts: u32, until: WorldTime, run_ms: Millis) -> Generator {
        let from = 10 * MINUTE;
        let active_ms = until.saturating_sub(from).max(1);
        let mean_ms = 10 * HOUR * active_ms / run_ms.max(1) / u64::from(hosts.max(1));
        Generator { chance: Chance::new(seed ^ 0xfa17), hosts: u64::from(hosts), mean_ms: mean_ms.max(1), from, until }
    }

    /// When the first one comes.
    #[must_use]
    pub fn first_at(&self) -> WorldTime {
        self.from + self.chance.clone().wait(self.mean_ms)
    }

    /// When the next one comes.
    pub fn next_after(&mut self, at: WorldTime) -> WorldTime {
        let next = at + 1 + self.chance.wait(self.mean_ms);
        if next > self.until { WorldTime::MAX } else { next }
    }

    /// Draws one that fits the world as it is.
    pub fn draw(&mut self, reality: &Reality) -> Option<(Fault, Option<HostId>)> {
        if reality.at > self.until {
            return None;
        }
        let mut kind = self.kind();
        while kind.wide() && self.hosts > USUAL_HOSTS && self.chance.below(self.hosts) >= USUAL_HOSTS {
            kind = self.kind();
        }
        self.fill(kind, reality)
    }

    fn kind(&mut self) -> Kind {
        let total: u64 = WEIGHTS.iter().map(|(_, w)| w).sum();
        let mut at = self.chance.below(total);
        for (kind, weight) in WEIGHTS {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Kernel
    }

    fn minutes(&mut self, low: u64, high: u64) -> Millis {
        self.chance.between(low * MINUTE, high * MINUTE)
    }

    fn host(&mut self, reality: &Reality, role: Option<Role>) -> Option<HostId> {
        let fits = |host: &HostId| {
            reality.duties.get(host).is_some_and(|d| match role {
                Some(role) => d.role == role,
                None => d.role != Role::Spare,
            })
        };
        let hosts: Vec<HostId> = reality.hosts().into_iter().filter(fits).collect();
        // Mostly a healthy one; sometimes a second fault hits one that is ill already.
        for _ in 0..8 {
            let host = *self.chance.pick(&hosts)?;
            if reality.healthy(host) || self.chance.percent(5) {
                return Some(host);
            }
        }
        None
    }

    fn cluster(&mut self, reality: &Reality) -> Option<ClusterId> {
        let clusters: Vec<ClusterId> = reality.clusters.keys().copied().collect();
        self.chance.pick(&clusters).copied()
    }

    fn domain(&mut self, reality: &Reality, of: fn(&crate::site::Place) -> Option<DomainId>) -> Option<DomainId> {
        let places: Vec<DomainId> = reality.places.values().filter_map(of).collect();
        self.chance.pick(&places).copied()
    }

    fn fill(&mut self, kind: Kind, reality: &Reality) -> Option<(Fault, Option<HostId>)> {
        let on = |fault: Fault, host: Option<HostId>| host.map(|h| (fault, Some(h)));
        let any = self.host(reality, None);
        match kind {
            Kind::Kernel => on(Fault::KernelStuck, any),
            Kind::Panic => {
                let dump_ms = self.chance.percent(50).then(|| self.chance.between(30, 180) * SECOND);
                on(Fault::KernelPanic { dump_ms }, any)
            }
            Kind::Userspace => on(Fault::UserspaceDead, any),
            Kind::NicHung => on(Fault::NicHung, any),
            Kind::NicDead => on(Fault::NicDead, any),
            Kind::Benign => on(Fault::BenignSilence { lasts_ms: self.chance.between(3, 38) * SECOND }, any),
            Kind::Reboot => on(Fault::PlainReboot, any),
            Kind::DiskFull => on(Fault::DiskFull, self.host(reality, Some(Role::Worker))),
            Kind::DiskDead => on(Fault::DiskDead, any),
            Kind::OsBroken => on(Fault::OsBroken, any),
            Kind::NoLocalBoot => on(Fault::NoLocalBoot, any),
            Kind::BootLoop => on(Fault::BootLoop, any),
            Kind::Component => {
                let fault = self.component();
                on(fault, any)
            }
            Kind::Certificate => on(Fault::CertificateExpiring, any),
            Kind::PowerLost => {
                let fault = self.power_lost();
                on(fault, any)
            }
            Kind::Hardware => {
                let kinds =
                    [HardwareFault::Memory, HardwareFault::Processor, HardwareFault::Other, HardwareFault::Memory];
                let kind = self.chance.pick(&kinds).copied().unwrap_or(HardwareFault::Other);
                on(Fault::Hardware(kind), any)
            }
            Kind::Bmc => {
                let fault = self.bmc();
                on(fault, any)
            }
            Kind::BmcWithHost => {
                let faults = [
                    Fault::BmcSaysOff,
                    Fault::BmcSaysOn,
                    Fault::BmcSideband,
                    Fault::BmcIgnoresBoot,
                    Fault::BmcIgnoresPower,
                ];
                let fault = self.chance.pick(&faults).copied().unwrap_or(Fault::BmcSideband);
                on(fault, any)
            }
            Kind::Cables => {
                let with = self.host(reality, Some(Role::Worker))?;
                let host = self.host(reality, Some(Role::Worker)).filter(|h| *h != with)?;
                (!reality.wires.contains_key(&host) && !reality.wires.contains_key(&with))
                    .then_some((Fault::CablesSwapped { with }, Some(host)))
            }
            Kind::ForeignOff => on(Fault::ForeignOff, any),
            Kind::Loss => {
                let lasts_ms = self.minutes(1, 5);
                let percent = self.chance.between(10, 80) as u8;
                let one_way = self.chance.percent(30);
                on(if one_way { Fault::OneWay { lasts_ms } } else { Fault::Loss { percent, lasts_ms } }, any)
            }
            Kind::ControlPlane => {
                let host = self.host(reality, Some(Role::ControlPlane));
                let faults =
                    [Fault::EtcdMemberLost, Fault::ForeignControlPlaneAction, Fault::KernelStuck, Fault::UserspaceDead];
                let fault = self.chance.pick(&faults).copied().unwrap_or(Fault::EtcdMemberLost);
                on(fault, host)
            }
            Kind::Sticky => {
                let lasts_ms = self.minutes(10, 40);
                let pods = self.chance.percent(50);
                on(if pods { Fault::PodsStay { lasts_ms } } else { Fault::AttachmentsStay { lasts_ms } }, any)
            }
            Kind::People => {
                let lasts_ms = self.minutes(10, 90);
                if self.chance.percent(20) {
                    let cluster = self.cluster(reality)?;
                    return Some((Fault::UpgradeRunning { cluster, lasts_ms: lasts_ms / 2 }, None));
                }
                let cordon = self.chance.percent(60);
                on(if cordon { Fault::HumanCordon { lasts_ms } } else { Fault::CmdbOther { lasts_ms } }, any)
            }
            Kind::Flapping => on(Fault::BenignSilence { lasts_ms: 45 * SECOND }, any),
            Kind::Switch
            | Kind::Rack
            | Kind::AppliancePartition
            | Kind::Management
            | Kind::Api
            | Kind::VipDead
            | Kind::LeaseStorm
            | Kind::Quorum
            | Kind::Storage
            | Kind::DomainPower
            | Kind::ShareLost
            | Kind::SitePower
            | Kind::Appliance => self.wide(kind, reality).map(|fault| (fault, None)),
        }
    }

    fn component(&mut self) -> Fault {
        use Component::{ApiServer, Cni, ControllerManager, Etcd, KubeProxy, Kubelet, Runtime, Scheduler};
        let components = [
            Kubelet,
            Kubelet,
            Kubelet,
            Runtime,
            Runtime,
            Cni,
            KubeProxy,
            ApiServer,
            Etcd,
            Scheduler,
            ControllerManager,
        ];
        let component = self.chance.pick(&components).copied().unwrap_or(Kubelet);
        use ComponentCause::{BadConfig, CertificateExpired, Dead, Hung, Unknown};
        let causes = [Dead, Dead, Dead, Hung, Hung, Unknown, CertificateExpired, BadConfig];
        let cause = self.chance.pick(&causes).copied().unwrap_or(Dead);
        Fault::Component(component, cause)
    }

    fn power_lost(&mut self) -> Fault {
        let causes = [OffCause::AcLoss, OffCause::AcLoss, OffCause::Fault, OffCause::Button, OffCause::Thermal];
        let cause = self.chance.pick(&causes).copied().unwrap_or(OffCause::AcLoss);
        let returns = self.chance.percent(70);
        Fault::PowerLost { cause, returns_ms: returns.then(|| self.minutes(2, 20)) }
    }

    fn bmc(&mut self) -> Fault {
        let lasts_ms = self.minutes(2, 30);
        match self.chance.below(6) {
            0 => Fault::BmcSlow { delay_ms: self.chance.between(2, 9) * SECOND },
            1 => Fault::BmcRefusing,
            2 => Fault::BmcStuck,
            3 => Fault::BmcSessionsFull { lasts_ms },
            4 => Fault::BmcResetting { lasts_ms: self.minutes(1, 4) },
            _ => Fault::FirmwareTask { lasts_ms },
        }
    }

    fn wide(&mut self, kind: Kind, reality: &Reality) -> Option<Fault> {
        let lasts_ms = self.minutes(2, 15);
        let cluster = self.cluster(reality)?;
        Some(match kind {
            Kind::Switch => Fault::SwitchDown { switch: self.domain(reality, |p| p.switch)?, lasts_ms },
            Kind::Rack => Fault::RackPartition { rack: self.domain(reality, |p| p.rack)?, lasts_ms },
            Kind::AppliancePartition => Fault::AppliancePartition { lasts_ms },
            Kind::Management => Fault::ManagementDown { lasts_ms },
            Kind::Api => match self.chance.below(3) {
                0 => Fault::ApiDown { cluster, lasts_ms },
                1 => Fault::ApiSlow { cluster, delay_ms: self.chance.between(1, 12) * SECOND, lasts_ms },
                _ => Fault::WatchStale { cluster, lasts_ms },
            },
            Kind::VipDead => Fault::VipOnDeadHost { cluster },
            Kind::LeaseStorm => Fault::LeaseStorm { cluster, lasts_ms: self.minutes(1, 3) },
            Kind::Quorum => Fault::QuorumLost { cluster },
            Kind::Storage => {
                let systems: Vec<StorageId> = reality.storage.keys().copied().collect();
                Fault::StorageReduced { system: *self.chance.pick(&systems)?, lasts_ms }
            }
            Kind::DomainPower => {
                let domain = if self.chance.percent(70) {
                    self.domain(reality, |p| p.pdu)
                } else {
                    self.domain(reality, |p| p.rack)
                };
                Fault::DomainPower { domain: domain?, lasts_ms }
            }
            Kind::ShareLost => Fault::ShareLost { cluster, percent: if self.chance.percent(50) { 40 } else { 60 } },
            Kind::SitePower => Fault::SitePower { lasts_ms },
            _ => match self.chance.below(7) {
                0 => Fault::Killed { down_ms: self.chance.between(2, 300) * SECOND },
                1 => Fault::Stopped { lasts_ms: self.chance.between(3, 600) * SECOND },
                2 => Fault::Starved { lasts_ms: self.chance.between(10, 120) * SECOND },
                3 => Fault::ClockStepped { by_ms: self.chance.between(6, 7_200).cast_signed() * 1_000 },
                4 => Fault::ClockStepped { by_ms: -self.chance.between(6, 7_200).cast_signed() * 1_000 },
                5 => Fault::StoreFails { lasts_ms },
                _ => Fault::TornWrite,
            },
        })
    }
}
