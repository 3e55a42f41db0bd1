//! What goes wrong, by name: on whom, what is expected to be found, and whether the demo can cure it.

use super::layout::Place;
use super::rack::{Host, Rack};
use healing::world::incident::{BootFailure, Diagnosis, Incident, Phase};
use machine::{BmcFault, Component, Failing, Fault, OffCause, Role};
use std::time::Duration;

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// A worker's kernel hangs: nothing answers, the power is on.
    Hang,
    /// A worker's kernel panics and stands.
    Panic,
    /// A worker's userspace dies; its kernel still answers pings.
    Userspace,
    /// A worker's kubelet dies; the host lives.
    Kubelet,
    /// A worker loses its mains for ten seconds.
    Power,
    /// A worker's boot loader is gone and it restarts.
    Disk,
    /// The switch of a rack is down for a minute.
    Domain,
    /// Half of the cluster's kernels hang within seconds.
    Storm,
    /// A worker hangs, and its BMC accepts an off and does nothing.
    Liar,
    /// A control-plane host's kernel hangs.
    ControlPlane,
    /// Somebody types `reboot` on a worker.
    Reboot,
    /// A worker hangs behind a BMC that answers nothing.
    DeafBmc,
}

/// What a story comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Named.
    Diagnosed,
    /// Healed.
    Healed,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 12] = [
        Scenario::Hang,
        Scenario::Panic,
        Scenario::Userspace,
        Scenario::Kubelet,
        Scenario::Power,
        Scenario::Disk,
        Scenario::Domain,
        Scenario::Storm,
        Scenario::Liar,
        Scenario::ControlPlane,
        Scenario::Reboot,
        Scenario::DeafBmc,
    ];

    /// Its name, as the command line writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Hang => "hang",
            Scenario::Panic => "panic",
            Scenario::Userspace => "userspace",
            Scenario::Kubelet => "kubelet",
            Scenario::Power => "power",
            Scenario::Disk => "disk",
            Scenario::Domain => "domain",
            Scenario::Storm => "storm",
            Scenario::Liar => "liar",
            Scenario::ControlPlane => "control-plane",
            Scenario::Reboot => "reboot",
            Scenario::DeafBmc => "deaf-bmc",
        }
    }

    /// Why the demo cannot cure it, if it cannot.
    #[must_use]
    pub fn incurable(self) -> Option<&'static str> {
        match self {
            Scenario::Kubelet => Some("a dead kubelet is restarted by the node agent, which the demo does not have"),
            Scenario::Disk => Some("a lost disk is written anew by the installer, which the demo does not have"),
            Scenario::Domain => Some("a switch that is down is no host's illness: nobody is to be healed"),
            Scenario::Storm => {
                Some("a storm is frozen first; it is healed one by one after a person or the wait of rule 6")
            }
            Scenario::Liar | Scenario::DeafBmc => {
                Some("a host that cannot be proven off stays as it is until a person confirms it")
            }
            Scenario::Reboot => Some("a reboot heals itself: nothing is to be done"),
            Scenario::Hang | Scenario::Panic | Scenario::Userspace | Scenario::Power | Scenario::ControlPlane => None,
        }
    }

    /// Who falls ill.
    #[must_use]
    pub fn victims(self, rack: &Rack) -> Vec<String> {
        let of = |role: Role| rack.hosts.iter().map(|host| &host.place).filter(move |place| place.role == role);
        let names = |places: Vec<&Place>| places.into_iter().map(|place| place.name.clone()).collect();
        let worker = of(Role::Worker).next_back();
        match self {
            Scenario::ControlPlane => names(of(Role::ControlPlane).next_back().into_iter().collect()),
            Scenario::Domain => {
                let rack_of = worker.map_or(1, |place| place.rack);
                let there = rack.hosts.iter().map(|host| &host.place);
                names(there.filter(|place| place.rack == rack_of && place.role != Role::Spare).collect())
            }
            Scenario::Storm => {
                let nodes = rack.hosts.iter().filter(|host| host.place.role != Role::Spare).count();
                names(of(Role::Worker).take((nodes / 2).max(3)).collect())
            }
            _ => names(worker.into_iter().collect()),
        }
    }

    /// Makes it happen. Returns at once; what ends later ends by itself.
    pub fn strike(self, rack: &std::sync::Arc<Rack>) {
        let hosts: Vec<String> = self.victims(rack);
        for name in &hosts {
            let Some(host) = rack.host(name) else { continue };
            self.strike_host(host);
        }
        let first = hosts.first().and_then(|name| rack.host(name)).map(|host| host.place.rack);
        match (self, first) {
            (Scenario::Domain, Some(number)) => {
                rack.darken(number, true);
                later(rack, 60, move |rack| rack.darken(number, false));
            }
            (Scenario::Power, Some(_)) => later(rack, 10, move |rack| {
                for host in hosts.iter().filter_map(|name| rack.host(name)) {
                    host.inject(Fault::PowerReturns);
                }
            }),
            _ => {}
        }
    }

    fn strike_host(self, host: &Host) {
        let bmc = host.emulator.handle();
        match self {
            Scenario::Hang | Scenario::Storm | Scenario::ControlPlane => host.inject(Fault::KernelStuck),
            Scenario::Panic => host.inject(Fault::KernelPanic { dump_ms: None }),
            Scenario::Userspace => host.inject(Fault::UserspaceDead),
            Scenario::Kubelet => host.inject(Fault::Component(Component::Kubelet, Failing::Dead)),
            Scenario::Power => host.inject(Fault::PowerLost(OffCause::AcLoss)),
            Scenario::Disk => host.inject(Fault::NoLocalBoot),
            Scenario::Liar => {
                bmc.inject_bmc(BmcFault::IgnoresPower);
                host.inject(Fault::KernelStuck);
            }
            Scenario::DeafBmc => {
                bmc.inject_bmc(BmcFault::Dead);
                host.inject(Fault::KernelStuck);
            }
            Scenario::Reboot => host.inject(Fault::PlainReboot),
            Scenario::Domain => {}
        }
    }

    /// Whether an incident is what this story is about, and named rightly.
    #[must_use]
    pub fn named(self, incident: &Incident) -> bool {
        let wait = incident.wait.as_ref().map(|wait| wait.why.code.as_ref()).unwrap_or_default();
        match (self, incident.diagnosis) {
            (Scenario::Hang | Scenario::Panic | Scenario::ControlPlane, Diagnosis::KernelDead) => {
                incident.timings.confirmed.is_some()
            }
            (Scenario::Userspace, Diagnosis::HostHung)
            | (Scenario::Kubelet, Diagnosis::ComponentFailed(healing::signal::Component::Kubelet, _))
            | (Scenario::Power, Diagnosis::PoweredOff)
            | (Scenario::Disk, Diagnosis::BootFailed(BootFailure::NoLocalBoot))
            | (Scenario::Domain, Diagnosis::DomainOutage(_))
            | (Scenario::Storm, Diagnosis::SiteStorm)
            | (Scenario::Reboot, Diagnosis::Rebooting) => true,
            (Scenario::Liar, _) => incident.phase == Phase::Unfenced && wait == "unfenced",
            (Scenario::DeafBmc, Diagnosis::KernelDead) => incident.timings.confirmed.is_some() && !wait.is_empty(),
            _ => false,
        }
    }
}

fn later(rack: &std::sync::Arc<Rack>, seconds: u64, act: impl FnOnce(&Rack) + Send + 'static) {
    let rack = rack.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        act(&rack);
    });
}

/// Faults by hand: what a person may type after `break HOST`.
pub const FAULTS: &[(&str, &str)] = &[
    ("hang", "the kernel hangs"),
    ("panic", "the kernel panics"),
    ("userspace", "userspace dies, the kernel answers pings"),
    ("kubelet", "the kubelet dies"),
    ("kubelet-hang", "the kubelet hangs behind its port"),
    ("runtime", "the container runtime dies"),
    ("poweroff", "somebody types poweroff"),
    ("reboot", "somebody types reboot"),
    ("button", "somebody presses the power button"),
    ("mains", "the mains fail"),
    ("network", "the network card hangs"),
    ("disk", "the boot loader is gone"),
    ("memory", "a memory module fails"),
    ("bmc-dead", "the BMC answers nothing"),
    ("bmc-deaf", "the BMC accepts power commands and does nothing"),
    ("bmc-lies", "the BMC says Off whatever is so"),
    ("bmc-swap", "the BMC shows another machine's identity"),
    ("repair", "a person repairs everything"),
];

/// Does a fault by hand. False: there is none of that name.
#[must_use]
pub fn by_hand(host: &Host, fault: &str) -> bool {
    let bmc = host.emulator.handle();
    let component = |component, failing| host.inject(Fault::Component(component, failing));
    match fault {
        "hang" => host.inject(Fault::KernelStuck),
        "panic" => host.inject(Fault::KernelPanic { dump_ms: None }),
        "userspace" => host.inject(Fault::UserspaceDead),
        "kubelet" => component(Component::Kubelet, Failing::Dead),
        "kubelet-hang" => component(Component::Kubelet, Failing::Hung),
        "runtime" => component(Component::Runtime, Failing::Dead),
        "poweroff" => host.inject(Fault::PlainPoweroff),
        "reboot" => host.inject(Fault::PlainReboot),
        "button" => host.inject(Fault::Button),
        "mains" => host.inject(Fault::PowerLost(OffCause::AcLoss)),
        "network" => host.inject(Fault::NicHung),
        "disk" => host.inject(Fault::NoLocalBoot),
        "memory" => host.inject(Fault::Hardware(machine::HardwareKind::Memory)),
        "bmc-dead" => bmc.inject_bmc(BmcFault::Dead),
        "bmc-deaf" => bmc.inject_bmc(BmcFault::IgnoresPower),
        "bmc-lies" => bmc.inject_bmc(BmcFault::SaysOff),
        "bmc-swap" => bmc.inject_bmc(BmcFault::ShowsIdentity(host.place.identity ^ 0xffff)),
        "repair" => host.inject(Fault::Repaired),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::layout::places;
    use super::*;

    #[tokio::test]
    async fn every_story_has_victims_and_every_fault_by_hand_is_one() {
        let rack = Rack::start(places(6, 1)).await.unwrap();
        for scenario in Scenario::ALL {
            assert!(!scenario.victims(&rack).is_empty(), "{scenario:?}");
        }
        assert_eq!(Scenario::Storm.victims(&rack).len(), 3);
        assert_eq!(Scenario::Domain.victims(&rack), ["cp-3", "node-3"]);
        for (fault, _) in FAULTS {
            assert!(by_hand(&rack.hosts[0], fault), "{fault}");
        }
        assert!(!by_hand(&rack.hosts[0], "flood"));
    }
}
