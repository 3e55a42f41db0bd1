//! How each fault begins and ends in the simulated world, and what hands repair.

use crate::fault::Fault;
use crate::plant::{failing, their_cause, their_hardware};
use crate::reality::Reality;
use healing::id::{ClusterId, DomainId, HostId};
use healing::signal::{ComponentCause, OffCause};
use healing::time::{Millis, SECOND};
use healing::world::host::Role;
use machine::BmcFault;

/// How long one boot of a looping system lives.
const LOOP_MS: Millis = 90 * SECOND;

/// How long a fault lasts, if it ends by itself as a fault of the world (and not inside the machine).
#[must_use]
pub(crate) fn lasts(fault: &Fault) -> Option<Millis> {
    match *fault {
        Fault::PowerLost { returns_ms, .. } => returns_ms,
        Fault::BmcSessionsFull { lasts_ms }
        | Fault::Loss { lasts_ms, .. }
        | Fault::OneWay { lasts_ms }
        | Fault::SwitchDown { lasts_ms, .. }
        | Fault::RackPartition { lasts_ms, .. }
        | Fault::AppliancePartition { lasts_ms }
        | Fault::ManagementDown { lasts_ms }
        | Fault::ApiDown { lasts_ms, .. }
        | Fault::ApiSlow { lasts_ms, .. }
        | Fault::WatchStale { lasts_ms, .. }
        | Fault::LeaseStorm { lasts_ms, .. }
        | Fault::PodsStay { lasts_ms }
        | Fault::DeletionRefused { lasts_ms }
        | Fault::PodsDoNotStart { lasts_ms }
        | Fault::AttachmentsStay { lasts_ms }
        | Fault::UpgradeRunning { lasts_ms, .. }
        | Fault::HumanCordon { lasts_ms }
        | Fault::LearnerAdded { lasts_ms, .. }
        | Fault::StorageReduced { lasts_ms, .. }
        | Fault::CmdbOther { lasts_ms }
        | Fault::DomainPower { lasts_ms, .. }
        | Fault::SitePower { lasts_ms }
        | Fault::Starved { lasts_ms }
        | Fault::StoreFails { lasts_ms } => Some(lasts_ms),
        // These end inside the machine, or only by a cure.
        Fault::KernelStuck
        | Fault::KernelPanic { .. }
        | Fault::UserspaceDead
        | Fault::NicHung
        | Fault::NicDead
        | Fault::BenignSilence { .. }
        | Fault::PlainReboot
        | Fault::DiskFull
        | Fault::DiskDead
        | Fault::OsBroken
        | Fault::NoLocalBoot
        | Fault::BootLoop
        | Fault::Component(..)
        | Fault::CertificateExpiring
        | Fault::Hardware(_)
        | Fault::BmcSlow { .. }
        | Fault::BmcRefusing
        | Fault::BmcStuck
        | Fault::BmcResetting { .. }
        | Fault::BmcSaysOff
        | Fault::BmcSaysOn
        | Fault::BmcSideband
        | Fault::CablesSwapped { .. }
        | Fault::ForeignOff
        | Fault::BmcIgnoresBoot
        | Fault::BmcIgnoresPower
        | Fault::FirmwareTask { .. }
        | Fault::VipOnDeadHost { .. }
        | Fault::EtcdMemberLost
        | Fault::QuorumLost { .. }
        | Fault::ForeignControlPlaneAction
        | Fault::ShareLost { .. }
        | Fault::Killed { .. }
        | Fault::Stopped { .. }
        | Fault::ClockStepped { .. }
        | Fault::TornWrite => None,
    }
}

/// A fault begins. Those of the appliance itself are no matter of the world outside.
pub(crate) fn begin(reality: &mut Reality, fault: &Fault, host: Option<HostId>) {
    if let Some(host) = host {
        reality.faults.insert(host, *fault);
        on_host(reality, fault, host);
    } else {
        on_many(reality, fault);
    }
}

fn machine_fault(reality: &mut Reality, host: HostId, fault: machine::Fault) {
    let now = reality.at;
    if let Some(plant) = reality.plant_mut(host) {
        plant.machine.inject(now, fault);
    }
    reality.touched(host);
}

fn bmc_fault(reality: &mut Reality, host: HostId, fault: BmcFault) {
    let now = reality.at;
    if let Some(plant) = reality.plant_mut(host) {
        plant.machine.inject_bmc(now, fault);
    }
    reality.touched(host);
}

fn on_host(reality: &mut Reality, fault: &Fault, host: HostId) {
    use machine::Fault as M;
    match *fault {
        Fault::KernelStuck => machine_fault(reality, host, M::KernelStuck),
        Fault::KernelPanic { dump_ms } => machine_fault(reality, host, M::KernelPanic { dump_ms }),
        Fault::UserspaceDead => machine_fault(reality, host, M::UserspaceDead),
        Fault::NicHung => machine_fault(reality, host, M::NicHung),
        Fault::NicDead => machine_fault(reality, host, M::NicDead),
        Fault::BenignSilence { lasts_ms } => machine_fault(reality, host, M::BenignSilence { lasts_ms }),
        Fault::PlainReboot => machine_fault(reality, host, M::PlainReboot),
        Fault::DiskFull => {
            let how = failing(ComponentCause::DiskFull);
            machine_fault(reality, host, M::Component(machine::Component::Kubelet, how));
        }
        Fault::DiskDead => machine_fault(reality, host, M::DiskDead),
        Fault::OsBroken => machine_fault(reality, host, M::OsBroken { kernel_dies: host.0.is_multiple_of(2) }),
        Fault::NoLocalBoot => machine_fault(reality, host, M::NoLocalBoot),
        Fault::BootLoop => machine_fault(reality, host, M::BootLoop { lives_ms: LOOP_MS }),
        Fault::Component(component, cause) => {
            machine_fault(reality, host, M::Component(crate::plant::theirs(component), failing(cause)));
        }
        Fault::CertificateExpiring => machine_fault(reality, host, M::CertificateExpiring),
        Fault::PowerLost { cause, .. } => machine_fault(reality, host, M::PowerLost(their_cause(cause))),
        Fault::Hardware(kind) => machine_fault(reality, host, M::Hardware(their_hardware(kind))),
        Fault::BmcSlow { delay_ms } => bmc_fault(reality, host, BmcFault::Slow(delay_ms)),
        Fault::BmcRefusing => bmc_fault(reality, host, BmcFault::Refusing),
        Fault::BmcStuck => bmc_fault(reality, host, BmcFault::Dead),
        Fault::BmcSessionsFull { .. } => bmc_fault(reality, host, BmcFault::SessionsFull),
        Fault::BmcResetting { lasts_ms } => bmc_fault(reality, host, BmcFault::Resetting(lasts_ms)),
        Fault::BmcSaysOff => {
            // A lie about power matters only to one who asks because the host fell ill.
            bmc_fault(reality, host, BmcFault::SaysOff);
            machine_fault(reality, host, M::KernelStuck);
        }
        Fault::BmcSaysOn => {
            bmc_fault(reality, host, BmcFault::SaysOn);
            machine_fault(reality, host, M::KernelStuck);
        }
        Fault::BmcSideband => {
            bmc_fault(reality, host, BmcFault::Sideband);
            machine_fault(reality, host, M::PowerLost(machine::OffCause::AcLoss));
        }
        Fault::CablesSwapped { with } => {
            reality.wires.insert(host, with);
            reality.wires.insert(with, host);
            reality.dirty.extend([host, with]);
        }
        Fault::ForeignOff => {
            let now = reality.at;
            if let Some(plant) = reality.plant_mut(host) {
                let _ = plant.machine.bmc_request(now, machine::BmcRequest::ForceOff);
            }
            reality.touched(host);
        }
        Fault::BmcIgnoresBoot => {
            bmc_fault(reality, host, BmcFault::IgnoresBoot);
            machine_fault(reality, host, M::NoLocalBoot);
        }
        Fault::BmcIgnoresPower => {
            bmc_fault(reality, host, BmcFault::IgnoresPower);
            machine_fault(reality, host, M::KernelStuck);
        }
        Fault::FirmwareTask { lasts_ms } => bmc_fault(reality, host, BmcFault::FirmwareTask(lasts_ms)),
        Fault::Loss { percent, .. } => {
            reality.network.loss.insert(host, percent);
            reality.refresh(host);
        }
        Fault::OneWay { .. } => {
            reality.network.unheard.hold(host);
            reality.refresh(host);
        }
        Fault::PodsStay { .. } => change_node(reality, host, |node| node.sticky_pods += 1),
        Fault::DeletionRefused { .. } => change_node(reality, host, |node| node.undeletable += 1),
        Fault::PodsDoNotStart { .. } => change_node(reality, host, |node| node.unstartable += 1),
        Fault::AttachmentsStay { .. } => change_node(reality, host, |node| node.sticky_attachments += 1),
        Fault::HumanCordon { .. } => change_node(reality, host, |node| node.foreign += 1),
        Fault::EtcdMemberLost => {
            machine_fault(reality, host, M::Component(machine::Component::Etcd, machine::Failing::Dead));
        }
        Fault::ForeignControlPlaneAction => {
            if let Some(cluster) = reality.cluster_of(host) {
                let now = reality.at;
                if let Some(cluster) = reality.clusters.get_mut(&cluster) {
                    cluster.foreign_action = Some((host, now));
                }
            }
            reality.dirty_sight = true;
            machine_fault(reality, host, M::PlainReboot);
        }
        // The CMDB's word reaches the loop as configuration; the rest concerns more than one host.
        Fault::CmdbOther { .. }
        | Fault::SwitchDown { .. }
        | Fault::RackPartition { .. }
        | Fault::AppliancePartition { .. }
        | Fault::ManagementDown { .. }
        | Fault::ApiDown { .. }
        | Fault::ApiSlow { .. }
        | Fault::WatchStale { .. }
        | Fault::VipOnDeadHost { .. }
        | Fault::LeaseStorm { .. }
        | Fault::UpgradeRunning { .. }
        | Fault::QuorumLost { .. }
        | Fault::LearnerAdded { .. }
        | Fault::StorageReduced { .. }
        | Fault::DomainPower { .. }
        | Fault::ShareLost { .. }
        | Fault::SitePower { .. }
        | Fault::Killed { .. }
        | Fault::Stopped { .. }
        | Fault::Starved { .. }
        | Fault::ClockStepped { .. }
        | Fault::StoreFails { .. }
        | Fault::TornWrite => {}
    }
}

fn change_node(reality: &mut Reality, host: HostId, change: impl FnOnce(&mut crate::cluster::Node)) {
    if let Some(node) = reality.nodes.get_mut(&host) {
        change(node);
    }
    reality.refresh(host);
}

fn change_cluster(reality: &mut Reality, id: ClusterId, change: impl FnOnce(&mut crate::cluster::Cluster)) {
    if let Some(cluster) = reality.clusters.get_mut(&id) {
        change(cluster);
    }
    reality.dirty_sight = true;
    reality.refresh_cluster(id);
    let hosts = reality.clusters.get(&id).map_or_else(Vec::new, |c| c.hosts.clone());
    for host in hosts {
        reality.refresh(host);
    }
}

fn on_many(reality: &mut Reality, fault: &Fault) {
    let now = reality.at;
    match *fault {
        Fault::SwitchDown { switch, .. } => {
            reality.network.dead.hold(switch);
            reality.network_changed();
        }
        Fault::RackPartition { rack, .. } => {
            reality.network.cut_from_us.hold(rack);
            reality.network_changed();
        }
        Fault::AppliancePartition { .. } => {
            reality.network.appliance_cut += 1;
            reality.network.appliance_cut_at.get_or_insert(now);
            reality.network_changed();
        }
        Fault::ManagementDown { .. } => {
            reality.network.management_down += 1;
            reality.network_changed();
        }
        Fault::ApiDown { cluster, .. } => change_cluster(reality, cluster, |c| c.down += 1),
        Fault::ApiSlow { cluster, delay_ms, .. } => change_cluster(reality, cluster, |c| c.slow_ms += delay_ms),
        Fault::WatchStale { cluster, .. } => change_cluster(reality, cluster, |c| c.watch_stale += 1),
        Fault::LeaseStorm { cluster, .. } => change_cluster(reality, cluster, |c| c.lease_storm += 1),
        Fault::UpgradeRunning { cluster, .. } => change_cluster(reality, cluster, |c| c.upgrades += 1),
        Fault::LearnerAdded { cluster, .. } => change_cluster(reality, cluster, |c| c.learners += 1),
        Fault::VipOnDeadHost { cluster } => {
            if let Some(holder) = reality.clusters.get(&cluster).and_then(|c| c.vip) {
                change_cluster(reality, cluster, |c| c.vip_stuck = true);
                reality.faults.insert(holder, Fault::KernelStuck);
                machine_fault(reality, holder, machine::Fault::KernelStuck);
            }
        }
        Fault::QuorumLost { cluster } => {
            let planes = reality.clusters.get(&cluster).map_or_else(Vec::new, |c| c.planes.clone());
            for host in planes.iter().take(planes.len() / 2 + 1) {
                reality.faults.insert(*host, Fault::KernelStuck);
                machine_fault(reality, *host, machine::Fault::KernelStuck);
            }
        }
        Fault::StorageReduced { system, .. } => {
            if let Some(storage) = reality.storage.get_mut(&system) {
                storage.reduced += 1;
                storage.reduced_at = now;
            }
            reality.dirty_sight = true;
        }
        Fault::DomainPower { domain, .. } => {
            for host in behind(reality, domain) {
                reality.faults.insert(host, *fault);
                machine_fault(reality, host, machine::Fault::PowerLost(machine::OffCause::AcLoss));
            }
        }
        Fault::SitePower { .. } => {
            for host in reality.plants.keys().copied().collect::<Vec<_>>() {
                reality.faults.insert(host, *fault);
                machine_fault(reality, host, machine::Fault::PowerLost(machine::OffCause::AcLoss));
            }
        }
        Fault::ShareLost { cluster, percent } => {
            for host in share(reality, cluster, percent) {
                reality.faults.insert(host, Fault::KernelStuck);
                machine_fault(reality, host, machine::Fault::KernelStuck);
            }
        }
        // These need a host, or are the appliance's own.
        Fault::KernelStuck
        | Fault::KernelPanic { .. }
        | Fault::UserspaceDead
        | Fault::NicHung
        | Fault::NicDead
        | Fault::BenignSilence { .. }
        | Fault::PlainReboot
        | Fault::DiskFull
        | Fault::DiskDead
        | Fault::OsBroken
        | Fault::NoLocalBoot
        | Fault::BootLoop
        | Fault::Component(..)
        | Fault::CertificateExpiring
        | Fault::PowerLost { .. }
        | Fault::Hardware(_)
        | Fault::BmcSlow { .. }
        | Fault::BmcRefusing
        | Fault::BmcStuck
        | Fault::BmcSessionsFull { .. }
        | Fault::BmcResetting { .. }
        | Fault::BmcSaysOff
        | Fault::BmcSaysOn
        | Fault::BmcSideband
        | Fault::CablesSwapped { .. }
        | Fault::ForeignOff
        | Fault::BmcIgnoresBoot
        | Fault::BmcIgnoresPower
        | Fault::FirmwareTask { .. }
        | Fault::Loss { .. }
        | Fault::OneWay { .. }
        | Fault::PodsStay { .. }
        | Fault::DeletionRefused { .. }
        | Fault::PodsDoNotStart { .. }
        | Fault::AttachmentsStay { .. }
        | Fault::HumanCordon { .. }
        | Fault::EtcdMemberLost
        | Fault::ForeignControlPlaneAction
        | Fault::CmdbOther { .. }
        | Fault::Killed { .. }
        | Fault::Stopped { .. }
        | Fault::Starved { .. }
        | Fault::ClockStepped { .. }
        | Fault::StoreFails { .. }
        | Fault::TornWrite => {}
    }
}

/// The hosts that stand in a domain.
fn behind(reality: &Reality, domain: DomainId) -> Vec<HostId> {
    let stands = |p: &crate::site::Place| [p.rack, p.pdu, p.switch, p.chassis].contains(&Some(domain));
    reality.places.iter().filter(|(_, place)| stands(place)).map(|(host, _)| *host).collect()
}

/// So many percent of a cluster's workers, spread over the racks.
fn share(reality: &Reality, cluster: ClusterId, percent: u8) -> Vec<HostId> {
    let worker = |h: &&HostId| reality.duties.get(h).is_some_and(|d| d.role == Role::Worker);
    let hosts = reality.clusters.get(&cluster).map_or_else(Vec::new, |c| c.hosts.clone());
    let workers: Vec<HostId> = hosts.iter().filter(worker).copied().collect();
    let count = workers.len() * usize::from(percent) / 100;
    let step = workers.len().checked_div(count).unwrap_or(1).max(1);
    workers.into_iter().step_by(step).take(count).collect()
}

/// A fault of the world ends.
pub(crate) fn end(reality: &mut Reality, fault: &Fault, host: Option<HostId>) {
    if let Some(host) = host
        && reality.faults.get(&host) == Some(fault)
    {
        reality.faults.remove(&host);
    }
    match (*fault, host) {
        (Fault::PowerLost { .. }, Some(host)) => machine_fault(reality, host, machine::Fault::PowerReturns),
        (Fault::BmcSessionsFull { .. }, Some(host)) => bmc_fault(reality, host, BmcFault::Cured),
        (Fault::Loss { .. }, Some(host)) => {
            reality.network.loss.remove(&host);
            reality.refresh(host);
        }
        (Fault::OneWay { .. }, Some(host)) => {
            reality.network.unheard.release(&host);
            reality.refresh(host);
        }
        (Fault::PodsStay { .. }, Some(host)) => change_node(reality, host, |n| {
            n.sticky_pods = n.sticky_pods.saturating_sub(1);
        }),
        (Fault::DeletionRefused { .. }, Some(host)) => change_node(reality, host, |n| {
            n.undeletable = n.undeletable.saturating_sub(1);
        }),
        (Fault::PodsDoNotStart { .. }, Some(host)) => change_node(reality, host, |n| {
            n.unstartable = n.unstartable.saturating_sub(1);
        }),
        (Fault::AttachmentsStay { .. }, Some(host)) => change_node(reality, host, |n| {
            n.sticky_attachments = n.sticky_attachments.saturating_sub(1);
        }),
        (Fault::HumanCordon { .. }, Some(host)) => change_node(reality, host, |n| {
            n.foreign = n.foreign.saturating_sub(1);
        }),
        (Fault::SwitchDown { switch, .. }, _) => {
            reality.network.dead.release(&switch);
            reality.network_changed();
        }
        (Fault::RackPartition { rack, .. }, _) => {
            reality.network.cut_from_us.release(&rack);
            reality.network_changed();
        }
        (Fault::AppliancePartition { .. }, _) => {
            reality.network.appliance_cut = reality.network.appliance_cut.saturating_sub(1);
            if reality.network.appliance_cut == 0 {
                reality.network.appliance_cut_at = None;
                reality.network.appliance_back_at = Some(reality.at);
            }
            reality.network_changed();
        }
        (Fault::ManagementDown { .. }, _) => {
            reality.network.management_down = reality.network.management_down.saturating_sub(1);
            reality.network_changed();
        }
        (Fault::ApiDown { cluster, .. }, _) => change_cluster(reality, cluster, |c| c.down = c.down.saturating_sub(1)),
        (Fault::ApiSlow { cluster, delay_ms, .. }, _) => {
            change_cluster(reality, cluster, |c| c.slow_ms = c.slow_ms.saturating_sub(delay_ms));
        }
        (Fault::WatchStale { cluster, .. }, _) => {
            change_cluster(reality, cluster, |c| c.watch_stale = c.watch_stale.saturating_sub(1));
        }
        (Fault::LeaseStorm { cluster, .. }, _) => {
            change_cluster(reality, cluster, |c| c.lease_storm = c.lease_storm.saturating_sub(1));
        }
        (Fault::UpgradeRunning { cluster, .. }, _) => {
            change_cluster(reality, cluster, |c| c.upgrades = c.upgrades.saturating_sub(1));
        }
        (Fault::LearnerAdded { cluster, .. }, _) => {
            change_cluster(reality, cluster, |c| c.learners = c.learners.saturating_sub(1));
        }
        (Fault::StorageReduced { system, .. }, _) => {
            if let Some(storage) = reality.storage.get_mut(&system) {
                storage.reduced = storage.reduced.saturating_sub(1);
            }
            reality.dirty_sight = true;
        }
        (Fault::DomainPower { domain, .. }, _) => {
            for host in behind(reality, domain) {
                feed_again(reality, host, fault);
            }
        }
        (Fault::SitePower { .. }, _) => {
            for host in reality.plants.keys().copied().collect::<Vec<_>>() {
                feed_again(reality, host, fault);
            }
        }
        _ => {}
    }
}

fn feed_again(reality: &mut Reality, host: HostId, fault: &Fault) {
    if reality.faults.get(&host) == Some(fault) {
        reality.faults.remove(&host);
    }
    machine_fault(reality, host, machine::Fault::PowerReturns);
}

/// Hands repair a machine and its BMC. A machine that runs well is left running.
pub(crate) fn repair(reality: &mut Reality, host: HostId) {
    if let Some(other) = reality.wires.remove(&host) {
        reality.wires.remove(&other);
        reality.faults.remove(&other);
        reality.dirty.insert(other);
    }
    reality.faults.remove(&host);
    reality.outlets_off.remove(&host);
    let sound = reality.plants.get(&host).is_some_and(|p| {
        p.node_fit()
            && p.joined
            && p.machine.failing().is_empty()
            && !p.machine.disk_broken()
            && p.machine.hardware().is_none()
            && !p.machine.certificate_expiring()
    });
    bmc_fault(reality, host, BmcFault::Cured);
    let now = reality.at;
    let spare = reality.duties.get(&host).is_some_and(|d| d.role == Role::Spare);
    if let Some(plant) = reality.plants.get_mut(&host).filter(|_| !sound && !spare) {
        plant.repaired(now);
        reality.touched(host);
    }
}

/// A person switches a machine off with certainty.
pub(crate) fn pull_plug(reality: &mut Reality, host: HostId) {
    if reality.plants.get(&host).is_some_and(crate::plant::Plant::is_on) {
        machine_fault(reality, host, machine::Fault::PowerLost(their_cause(OffCause::AcLoss)));
        // The plug goes back in at once: the supply is there, the machine stays off.
        let now = reality.at;
        if let Some(plant) = reality.plant_mut(host)
            && plant.machine.spec().ac_restore == machine::AcRestore::StayOff
        {
            plant.machine.inject(now, machine::Fault::PowerReturns);
        }
        reality.touched(host);
    }
}
