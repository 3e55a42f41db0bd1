//! Scenes: small sites with one trouble, each made so that exactly one rule stands between the appliance and a mistake.
//! Under all rules a scene ends without a breach; with its rule broken the checks must notice.

use crate::checks;
use crate::fault::Fault;
use crate::operator::{Act, Person};
use crate::simulation::Simulation;
use crate::site::Site;
use healing::event::{Event, Operator, Scope};
use healing::id::{ClusterId, HostId};
use healing::rules::Rules;
use healing::signal::{Component, ComponentCause, HardwareFault, OffCause};
use healing::time::{Elapsed, HOUR, MINUTE, SECOND};
use healing::world::host::SpareProof;
use healing::world::incident::Rung;
use healing::world::scope::Consent;

/// A scene.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// The rule that it is about.
    pub rule: u8,
    /// How long it plays.
    pub hours: u64,
    pub(crate) set: fn(&mut Site),
    pub(crate) play: fn(&mut dyn Stage),
    pub(crate) planes: u32,
    pub(crate) workers: u32,
    pub(crate) spares: u32,
    pub(crate) person: bool,
    pub(crate) standby: bool,
}

/// What a scene may do to its simulation, whatever rules it runs under.
pub trait Stage {
    /// A fault at a moment.
    fn fault(&mut self, at: u64, fault: Fault, host: Option<u32>);
    /// An order at a moment.
    fn order(&mut self, at: u64, order: Operator);
    /// Hands at a moment.
    fn act(&mut self, at: u64, act: Act);
    /// Any event at a moment.
    fn event(&mut self, at: u64, event: Event);
}

impl<R: Rules> Stage for Simulation<R> {
    fn fault(&mut self, at: u64, fault: Fault, host: Option<u32>) {
        self.at_fault(at, fault, host.map(HostId));
    }
    fn order(&mut self, at: u64, order: Operator) {
        self.at_order(at, order);
    }
    fn act(&mut self, at: u64, act: Act) {
        self.at_act(at, act);
    }
    fn event(&mut self, at: u64, event: Event) {
        self.at_event(at, event);
    }
}

pub(crate) const BEGIN: u64 = 10 * MINUTE;
pub(crate) const ONE: ClusterId = ClusterId(1);

impl Scene {
    /// Builds it, checked, not yet run.
    #[must_use]
    pub fn build<R: Rules>(&self, rules: R) -> Simulation<R> {
        let mut site = Site::plain(self.planes, self.workers, self.spares, 7);
        (self.set)(&mut site);
        let mut simulation = Simulation::new(rules, &site);
        if self.person {
            simulation = simulation.with_person(Person::new(7));
        }
        if self.standby {
            simulation = simulation.with_standby();
        }
        for checker in checks::all() {
            simulation = simulation.watched_by(checker);
        }
        (self.play)(&mut simulation);
        simulation
    }
}

pub(crate) const PLAIN: Scene = Scene {
    name: "",
    rule: 0,
    hours: 2,
    set: |_| {},
    play: |_| {},
    planes: 3,
    workers: 9,
    spares: 0,
    person: false,
    standby: false,
};

/// The first cluster of a site, whatever its number.
fn cluster(site: &Site) -> ClusterId {
    site.clusters.first().map_or(ONE, |c| c.id)
}

fn each(site: &mut Site, change: impl Fn(&mut healing::world::host::Host)) {
    for host in site.hosts.values_mut() {
        change(host);
    }
}

/// All scenes.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "a host that answers pings only",
        rule: 1,
        play: |s| s.fault(BEGIN, Fault::UserspaceDead, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a silent host while our watch is stale",
        rule: 2,
        play: |s| {
            s.fault(BEGIN, Fault::WatchStale { cluster: ONE, lasts_ms: HOUR }, None);
            s.fault(BEGIN + 5 * MINUTE, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a host just fallen silent",
        rule: 3,
        play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a host fallen silent while every BMC is out of sight",
        rule: 4,
        play: |s| {
            s.fault(BEGIN, Fault::AppliancePartition { lasts_ms: 10 * MINUTE }, None);
        },
        ..PLAIN
    },
    Scene {
        name: "four of nine workers gone at once",
        rule: 5,
        play: |s| s.fault(BEGIN, Fault::ShareLost { cluster: ONE, percent: 50 }, None),
        ..PLAIN
    },
    Scene {
        name: "a storm and its end",
        rule: 6,
        play: |s| s.fault(BEGIN, Fault::ShareLost { cluster: ONE, percent: 50 }, None),
        ..PLAIN
    },
    Scene {
        name: "a worker switched off while the API is down",
        rule: 7,
        play: |s| {
            s.fault(BEGIN, Fault::ApiDown { cluster: ONE, lasts_ms: 20 * MINUTE }, None);
            s.fault(BEGIN + MINUTE, Fault::PowerLost { cause: OffCause::Button, returns_ms: Some(HOUR) }, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a host that comes and goes",
        rule: 8,
        play: |s| {
            for n in 0..4 {
                s.fault(BEGIN + n * 40 * SECOND, Fault::BenignSilence { lasts_ms: 15 * SECOND }, Some(6));
            }
            s.fault(BEGIN + 170 * SECOND, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a spare that never came up in its new role",
        rule: 9,
        hours: 4,
        spares: 2,
        play: |s| {
            s.fault(BEGIN, Fault::Hardware(HardwareFault::Memory), Some(6));
            for spare in [13, 14] {
                s.fault(5 * MINUTE, Fault::OsBroken, Some(spare));
            }
        },
        ..PLAIN
    },
    Scene {
        name: "many dead hosts of different racks",
        rule: 11,
        workers: 29,
        play: |s| {
            for (n, host) in [6, 10, 14, 18].into_iter().enumerate() {
                s.fault(BEGIN + n as u64 * 3 * SECOND, Fault::KernelStuck, Some(host));
            }
        },
        ..PLAIN
    },
    Scene {
        name: "userspace dies on every second host",
        rule: 12,
        workers: 3,
        planes: 1,
        play: |s| {
            s.fault(BEGIN, Fault::UserspaceDead, Some(2));
            for host in [3, 4] {
                s.fault(BEGIN + 20 * SECOND, Fault::Component(Component::Cni, ComponentCause::BadConfig), Some(host));
            }
        },
        ..PLAIN
    },
    Scene {
        name: "one host after the other",
        rule: 13,
        workers: 39,
        play: |s| {
            for n in 0..8 {
                s.fault(BEGIN + n * 100 * SECOND, Fault::KernelStuck, Some(5 + 4 * n as u32));
            }
        },
        ..PLAIN
    },
    Scene {
        name: "the same host again and again",
        rule: 14,
        hours: 4,
        play: |s| {
            for n in 0..12 {
                s.fault(BEGIN + n * 12 * MINUTE, Fault::KernelStuck, Some(6));
            }
        },
        ..PLAIN
    },
    Scene {
        name: "one version fails twice",
        rule: 15,
        hours: 6,
        set: |site| each(site, |h| h.versions = vec![healing::id::VersionId(1)]),
        play: |s| {
            for (n, host) in [5u32, 9].into_iter().enumerate() {
                let at = BEGIN + n as u64 * 60 * MINUTE;
                s.fault(at, Fault::NoLocalBoot, Some(host));
                // The card dies while the installer works: the host never joins again.
                s.fault(at + 9 * MINUTE, Fault::NicDead, Some(host));
            }
            s.fault(BEGIN + 4 * HOUR, Fault::NoLocalBoot, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "two dead machines and two spares",
        rule: 16,
        hours: 6,
        spares: 2,
        play: |s| {
            s.fault(BEGIN, Fault::Hardware(HardwareFault::Memory), Some(6));
            s.fault(BEGIN + 2 * HOUR, Fault::Hardware(HardwareFault::Memory), Some(10));
        },
        ..PLAIN
    },
    Scene {
        name: "a start on a journal that cannot be read whole",
        rule: 17,
        play: |s| {
            s.event(
                BEGIN,
                Event::Started {
                    restored: false,
                    corrupt: true,
                    observe_only: false,
                    lease_until: Elapsed(u64::MAX / 4),
                    epoch: 1,
                },
            );
            s.fault(BEGIN + 5 * MINUTE, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a control-plane host whose kubelet is beyond help, with one voter lost already",
        rule: 18,
        hours: 3,
        set: |site| site.pools.iter_mut().for_each(|p| p.soft_reboot = Consent::Automatic),
        play: |s| {
            s.fault(BEGIN, Fault::BmcStuck, Some(1));
            s.fault(BEGIN, Fault::KernelStuck, Some(1));
            s.fault(BEGIN + MINUTE, Fault::Component(Component::Kubelet, ComponentCause::Unknown), Some(2));
        },
        ..PLAIN
    },
    Scene {
        name: "two control-plane hosts at once",
        rule: 19,
        planes: 5,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(1));
            s.fault(BEGIN, Fault::KernelStuck, Some(5));
        },
        ..PLAIN
    },
    Scene {
        name: "a control-plane host whose disk is lost",
        rule: 20,
        hours: 3,
        set: |site| site.pools.iter_mut().for_each(|p| p.reimage = Consent::Automatic),
        play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(1)),
        ..PLAIN
    },
    Scene {
        name: "the only control-plane host loses its disk",
        rule: 21,
        hours: 3,
        planes: 2,
        set: |site| site.pools.iter_mut().for_each(|p| p.reimage = Consent::Automatic),
        play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(1)),
        ..PLAIN
    },
    Scene {
        name: "a control plane without etcd access",
        rule: 22,
        hours: 3,
        set: |site| {
            site.pools.iter_mut().for_each(|p| p.reimage = Consent::Automatic);
            site.clusters.iter_mut().for_each(|c| c.etcd_access = false);
        },
        play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(1)),
        ..PLAIN
    },
    Scene { name: "off takes its time", rule: 23, play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)), ..PLAIN },
    Scene { name: "the first cordon", rule: 24, play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)), ..PLAIN },
    Scene {
        name: "volumes that take a while to go",
        rule: 25,
        play: |s| {
            s.fault(BEGIN, Fault::AttachmentsStay { lasts_ms: 90 * SECOND }, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "the taint after the heal",
        rule: 26,
        play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a host dies with its BMC",
        rule: 27,
        play: |s| {
            s.fault(BEGIN, Fault::BmcStuck, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a BMC that accepts an off and does nothing",
        rule: 27,
        play: |s| {
            s.fault(BEGIN, Fault::BmcIgnoresPower, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a storage host while its system is short of copies",
        rule: 28,
        hours: 2,
        set: |site| storage(site, &[6, 10]),
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.fault(BEGIN + SECOND, Fault::KernelStuck, Some(10));
        },
        workers: 29,
        ..PLAIN
    },
    Scene {
        name: "two BMC cables are swapped",
        rule: 29,
        play: |s| {
            s.fault(BEGIN, Fault::CablesSwapped { with: HostId(10) }, Some(6));
            s.fault(BEGIN + 12 * MINUTE, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a BMC that accepts and does nothing",
        rule: 30,
        play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "somebody pressed the button",
        rule: 31,
        play: |s| s.fault(BEGIN, Fault::PowerLost { cause: OffCause::Button, returns_ms: Some(MINUTE) }, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a plain reboot",
        rule: 33,
        play: |s| {
            s.fault(BEGIN, Fault::FirmwareTask { lasts_ms: 20 * MINUTE }, Some(10));
            s.fault(BEGIN + SECOND, Fault::KernelStuck, Some(10));
            s.fault(BEGIN, Fault::PlainReboot, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a BMC that ignores one-shot boot",
        rule: 34,
        hours: 3,
        play: |s| {
            s.fault(BEGIN, Fault::BmcIgnoresBoot, Some(6));
            s.fault(BEGIN, Fault::NoLocalBoot, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a broken disk image and no disk named",
        rule: 36,
        hours: 3,
        set: |site| each(site, |h| h.disk = None),
        play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a host whose installer is never heard of",
        rule: 38,
        hours: 8,
        // Without a version to blame, rule 15 has nothing to stop.
        set: |site| each(site, |h| h.versions.clear()),
        play: |s| {
            s.fault(BEGIN, Fault::NicDead, Some(6));
            s.fault(BEGIN + SECOND, Fault::NoLocalBoot, Some(6));
        },
        ..PLAIN
    },
    Scene { name: "a reimage", rule: 40, hours: 3, play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(6)), ..PLAIN },
    Scene {
        name: "a reimage under the old name",
        rule: 41,
        hours: 3,
        play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "back after a power cycle",
        rule: 42,
        play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a spare that nobody proved lately",
        rule: 43,
        hours: 3,
        spares: 2,
        set: |site| {
            each(site, |h| {
                if h.role == healing::world::host::Role::Spare {
                    h.spare_proof = Some(SpareProof { at: Elapsed(0), passed: true, at_wall_ms: 0 });
                }
            });
        },
        play: |s| s.fault(BEGIN, Fault::Hardware(HardwareFault::Memory), Some(6)),
        ..PLAIN
    },
    Scene {
        name: "killed while a host is silent",
        rule: 45,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.fault(BEGIN + 12 * SECOND, Fault::Killed { down_ms: 5 * SECOND }, None);
        },
        ..PLAIN
    },
    Scene {
        name: "the lease is about to end",
        rule: 46,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            for n in 0..80 {
                let at = BEGIN + 10 * SECOND + n * 500;
                s.event(at, Event::Lease { until: Elapsed(at + 5 * SECOND), epoch: 1 });
            }
        },
        ..PLAIN
    },
    Scene {
        name: "stopped for a while with a silent host",
        rule: 47,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.fault(BEGIN + 15 * SECOND, Fault::Stopped { lasts_ms: 10 * SECOND }, None);
        },
        ..PLAIN
    },
    Scene {
        name: "the disk of the appliance is full",
        rule: 48,
        play: |s| {
            s.fault(BEGIN, Fault::StoreFails { lasts_ms: 10 * MINUTE }, None);
            s.fault(BEGIN + 5 * SECOND, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a pause between cordon and off",
        rule: 49,
        play: |s| {
            s.order(BEGIN, Operator::Pause { scope: Scope::Host(HostId(6)), paused: true });
            s.fault(BEGIN + SECOND, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a person cordoned it",
        rule: 50,
        play: |s| {
            s.fault(BEGIN, Fault::HumanCordon { lasts_ms: 3 * HOUR }, Some(6));
            s.fault(BEGIN + 5 * MINUTE, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "an approval for what is no longer so",
        rule: 51,
        hours: 3,
        set: |site| site.pools.iter_mut().for_each(|p| p.reimage = Consent::Ask),
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.order(BEGIN + MINUTE, Operator::Approve { incident: healing::id::IncidentId(1), rung: Rung::Reimage });
            s.fault(BEGIN + 40 * SECOND, Fault::OsBroken, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a cluster that nobody armed",
        rule: 52,
        set: |_| {},
        play: |s| {
            s.order(MINUTE, Operator::Arm { cluster: ONE, armed: false });
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a component that dies again and again",
        rule: 53,
        play: |s| {
            for n in 0..6 {
                s.fault(BEGIN + n * 3 * MINUTE, Fault::Component(Component::Kubelet, ComponentCause::Dead), Some(6));
            }
        },
        ..PLAIN
    },
    Scene {
        name: "a runtime whose restart kills containers",
        rule: 54,
        play: |s| s.fault(BEGIN, Fault::Component(Component::Runtime, ComponentCause::Dead), Some(5)),
        ..PLAIN
    },
    Scene {
        name: "a host that waits for a person for hours",
        rule: 55,
        hours: 3,
        play: |s| {
            s.fault(BEGIN, Fault::BmcStuck, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a cold start",
        rule: 58,
        hours: 3,
        play: |s| {
            s.order(BEGIN, Operator::ColdStart { hosts: (1..13).map(HostId).collect() });
            s.fault(BEGIN + MINUTE, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "the host that carries us",
        rule: 59,
        set: |site| {
            if let Some(host) = site.hosts.get_mut(&HostId(6)) {
                host.marks.is_self = true;
            }
        },
        play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)),
        ..PLAIN
    },
];

fn storage(site: &mut Site, members: &[u32]) {
    let system = healing::id::StorageId(1);
    let of = cluster(site);
    let hosts: Vec<HostId> = members.iter().copied().map(HostId).collect();
    for id in &hosts {
        if let Some(host) = site.hosts.get_mut(id) {
            host.storage = Some(system);
        }
    }
    site.storage.push(crate::site::Storage { id: system, cluster: of, hosts });
}

/// The scenes of a rule.
pub fn for_rule(rule: u8) -> impl Iterator<Item = &'static Scene> {
    SCENES.iter().filter(move |scene| scene.rule == rule)
}
