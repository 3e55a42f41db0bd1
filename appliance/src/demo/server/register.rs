//! The rack as the decisions know it: policy, cluster, pools, domains, hosts.

use super::super::handover::{HandedHost, HandedRole, Handover};
use healing::event::Config;
use healing::id::{ClusterId, DomainId, HostId, MachineId, PoolId};
use healing::policy::{Lab, Limits, OutOfBound, Policy};
use healing::time::SECOND;
use healing::world::host::{Host, Lifecycle, Link, Marks, Role};
use healing::world::scope::{Cluster, Consent, Domain, DomainKind, Pool};

/// The one cluster.
pub(crate) const CLUSTER: ClusterId = ClusterId(1);

/// The lab's waits, as far as they are shorter than a site's: never the evidence, never the proof.
#[must_use]
pub(crate) fn limits() -> Limits {
    Limits {
        start_observe_ms: 5 * SECOND,
        soak_ms: 5 * SECOND,
        component_soak_ms: 5 * SECOND,
        boot_budget_ms: 60 * SECOND,
        cycle_spacing_ms: 5 * SECOND,
        domain_wait_ms: 60 * SECOND,
        pair_wait_ms: 30 * SECOND,
        freeze_clear_ms: 10 * SECOND,
        freeze_stable_ms: 60 * SECOND,
        after_freeze_ms: 10 * SECOND,
        ..Limits::default()
    }
}

/// The policy.
///
/// # Errors
/// A number is beyond what even a lab may have.
pub(crate) fn policy() -> Result<Policy<Lab>, Vec<OutOfBound>> {
    Policy::check(limits())
}

/// Everything in the order in which it must be known.
pub(crate) fn configuration(handover: &Handover) -> Vec<Config> {
    let mut all = vec![Config::Cluster(Box::new(Cluster {
        id: CLUSTER,
        name: "demo".to_owned(),
        armed: false,
        paused: false,
        etcd_access: false,
        freeze: None,
        freeze_ended: None,
        careful: None,
        released_hosts: Vec::new(),
        released_at: None,
    }))];
    for (id, name) in [(1, "workers"), (2, "control-plane"), (3, "spares")] {
        all.push(Config::Pool(Box::new(Pool {
            id: PoolId(id),
            name: name.to_owned(),
            soft_reboot: Consent::Ask,
            reimage: Consent::Never,
            replace: Consent::Never,
            runtime_restart: false,
            crash_dump_wait_ms: 0,
        })));
    }
    let mut racks: Vec<u32> = handover.hosts.iter().map(|host| host.rack).collect();
    racks.sort_unstable();
    racks.dedup();
    for rack in racks {
        all.push(Config::Domain(Box::new(Domain {
            id: DomainId(rack),
            name: format!("rack-{rack}"),
            kind: DomainKind::Rack,
            paused: false,
            correlated: None,
        })));
    }
    all.extend(handover.hosts.iter().map(|host| Config::Host(Box::new(record(host)))));
    all
}

fn record(host: &HandedHost) -> Host {
    let (role, pool) = match host.role {
        HandedRole::Worker => (Role::Worker, 1),
        HandedRole::ControlPlane => (Role::ControlPlane, 2),
        HandedRole::Spare => (Role::Spare, 3),
    };
    Host {
        id: HostId(host.id),
        name: host.name.clone(),
        cluster: Some(CLUSTER),
        pool: PoolId(pool),
        role,
        domains: vec![DomainId(host.rack)],
        versions: Vec::new(),
        storage: None,
        machine: MachineId(host.identity()),
        link: Link::Unbound,
        outlets: false,
        disk: None,
        lifecycle: Lifecycle::InService,
        marks: Marks::default(),
        spare_proof: None,
        assessment: Default::default(),
        history: Default::default(),
        incident: None,
        our_cordon: None,
        our_taint: None,
        held_off: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_are_within_what_a_lab_may_have() {
        assert!(policy().is_ok());
    }
}
