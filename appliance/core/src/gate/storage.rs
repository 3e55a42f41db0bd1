//! Storage hosts: rule 28.

use super::{Answer, approval};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::id::StorageId;
use crate::rules::Rules;
use crate::sight::StorageReport;
use crate::time::Elapsed;
use crate::world::host::{Lifecycle, Role};
use crate::world::incident::Rung;

/// Never while redundancy was reduced before, or by another host, and the target still answers; one power cycle of a
/// silent host per storage system; stronger rungs by approval.
pub(super) fn redundancy<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    let Some(system) = case.host.storage.filter(|_| case.enforces(28)) else { return Ok(()) };
    let opened = case.incident.as_ref().map_or(case.now.elapsed, |i| i.opened_at);
    let storage = case.view.sight.cluster.as_ref().map_or(&[][..], |c| &c.storage);
    let report = storage.iter().find(|s| s.system == system);
    if case.host.assessment.answers() {
        let Some(report) = report else {
            return Err(Explanation::refusal(
                28,
                "storage-unknown",
                "its storage system does not report redundancy, and it still answers",
            ));
        };
        if copies_missing(case, report, opened) {
            return Err(Explanation::refusal(
                28,
                "storage-reduced",
                "its storage has reduced redundancy, and it still answers",
            ));
        }
    }
    busy(case)?;
    match rung {
        Rung::Reimage | Rung::Replace => {
            approval(case, rung, 28, "approve-storage", "a storage host is reimaged or replaced by approval only")
        }
        Rung::PowerCycle | Rung::SoftReboot | Rung::RestartComponent(_) | Rung::Prove | Rung::Human => Ok(()),
    }
}

/// Whether another host of the same storage system is being healed.
pub(super) fn busy<R: Rules>(case: &Case<'_, R>) -> Answer {
    let Some(system) = case.host.storage.filter(|_| case.enforces(28)) else { return Ok(()) };
    let own = case.incident.as_ref().is_some_and(|i| i.reservation.is_some());
    let open = case.world.tallies.storage_permits.get(&system).copied().unwrap_or(0);
    if open > u32::from(own) {
        return Err(Explanation::refusal(
            28,
            "storage-busy",
            "another host of the same storage system is being healed",
        ));
    }
    Ok(())
}

/// Whether copies may be missing that are not this host's: redundancy was reduced before it fell ill, or by another.
fn copies_missing<R: Rules>(case: &Case<'_, R>, report: &StorageReport, opened: Elapsed) -> bool {
    let Some(since) = report.reduced_since else { return false };
    if since < opened {
        return true;
    }
    match report.reduced_by {
        Some(host) => host != case.host.id,
        // Ceph never says by whom. It is this host's own doing only if nobody else can have done it.
        None => began_unseen(case, since) || another_is_ill(case, report.system, opened),
    }
}

/// It was first seen while we looked around after a start: since when it really is so nobody remembers.
fn began_unseen<R: Rules>(case: &Case<'_, R>, since: Elapsed) -> bool {
    let started = case.site().started_at;
    since >= started && since <= started.plus(case.world.limits.start_observe_ms)
}

/// Another host with copies of this system is not well, or an incident is open on it, whenever that began.
fn another_is_ill<R: Rules>(case: &Case<'_, R>, system: StorageId, opened: Elapsed) -> bool {
    let others = case.world.hosts.values().filter(|h| h.storage == Some(system) && h.id != case.host.id);
    // A spare holds no copies yet, a retired host none any more. One in quarantine took its copies with it.
    let mut holders = others.filter(|h| h.role != Role::Spare && h.lifecycle != Lifecycle::Retired);
    holders.any(|h| {
        if let Lifecycle::Quarantined { since } = h.lifecycle {
            // What one lacks that left service earlier was made good, or the system would have been reduced before.
            return since >= opened;
        }
        let acted_on = case.world.incident_of(h.id).is_some_and(|incident| incident.reservation.is_some());
        h.bad() || !h.ready() || acted_on
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assess::NetworkState;
    use crate::event::{Change, View};
    use crate::evidence::Evidence;
    use crate::gate::control_plane::tests::host;
    use crate::id::{HostId, IncidentId};
    use crate::policy::{Policy, Site};
    use crate::rules::Enforced;
    use crate::sight::{ClusterSight, OwnSight};
    use crate::time::{MINUTE, Now};
    use crate::world::World;
    use crate::world::host::Host;
    use crate::world::incident::Diagnosis;

    const SYSTEM: StorageId = StorageId(3);
    /// The minute in which the target fell ill.
    const ILL: u64 = 20;
    const NOW: Now = Now { elapsed: Elapsed(60 * MINUTE), wall_ms: 0 };

    fn holder(id: u32) -> Host {
        Host { storage: Some(SYSTEM), ..host(id, Role::Worker) }
    }

    fn silent(id: u32) -> Host {
        let mut gone = holder(id);
        gone.assessment.network = NetworkState::Silent;
        gone
    }

    /// What is said to a power cycle of host 1 beside another, with redundancy reduced since a minute by whomever.
    fn asked(target: Host, other: Host, since: u64, by: Option<u32>, started: u64) -> Answer {
        let mut world = World::new(&Policy::<Site>::default());
        world.site.started_at = Elapsed(started * MINUTE);
        for known in [target, other] {
            world.apply(&Change::Host(Box::new(known)));
        }
        let report =
            StorageReport { system: SYSTEM, reduced_since: Some(Elapsed(since * MINUTE)), reduced_by: by.map(HostId) };
        let cluster = Some(ClusterSight { storage: vec![report], ..ClusterSight::default() });
        let view = View { evidence: Evidence::default(), sight: OwnSight { cluster, ..OwnSight::default() } };
        let mut case = Case::open(Enforced, &world, HostId(1), &view, NOW).unwrap();
        case.open_incident(Diagnosis::HostHung);
        if let Some(incident) = &mut case.incident {
            incident.opened_at = Elapsed(ILL * MINUTE);
        }
        redundancy(&case, Rung::PowerCycle)
    }

    fn reduced(answer: &Answer) -> bool {
        matches!(answer, Err(why) if why.code == "storage-reduced")
    }

    #[test]
    fn copies_lost_by_nobody_knows_whom_are_its_own_only_if_everybody_else_is_well() {
        let beside = |other: Host| asked(holder(1), other, ILL + 5, None, 5);
        assert_eq!(beside(holder(2)), Ok(()), "who else should it have been");
        assert!(reduced(&beside(silent(2))));
        let mut not_ready = holder(2);
        not_ready.assessment.node = None;
        assert!(reduced(&beside(not_ready)));
        assert_eq!(beside(Host { incident: Some(IncidentId(9)), ..holder(2) }), Ok(()), "only its BMC is silent");
        let left =
            |minute: u64| Host { lifecycle: Lifecycle::Quarantined { since: Elapsed(minute * MINUTE) }, ..holder(2) };
        assert!(reduced(&beside(left(ILL + 1))));
        assert_eq!(beside(left(1)), Ok(()), "what it took with it was made good since");
        for none_of_its_copies in [
            Host { storage: Some(StorageId(4)), ..silent(2) },
            Host { storage: None, ..silent(2) },
            Host { role: Role::Spare, ..silent(2) },
            Host { lifecycle: Lifecycle::Retired, ..silent(2) },
        ] {
            assert_eq!(beside(none_of_its_copies), Ok(()));
        }
    }

    #[test]
    fn what_was_reduced_when_we_started_was_reduced_before_the_illness() {
        let after_start = |since: u64, by: Option<u32>| asked(holder(1), holder(2), since, by, 50);
        assert!(reduced(&after_start(51, None)), "a refusal from before the start stands");
        assert_eq!(after_start(55, None), Ok(()), "it began before our eyes");
        assert_eq!(after_start(51, Some(1)), Ok(()), "everybody else has his copies");
        assert!(reduced(&after_start(55, Some(2))));
        assert!(reduced(&asked(holder(1), holder(2), ILL - 1, Some(1), 5)));
    }

    #[test]
    fn a_silent_storage_host_is_power_cycled_whatever_is_reduced() {
        assert_eq!(asked(silent(1), silent(2), ILL - 5, None, 50), Ok(()));
        assert_eq!(asked(silent(1), silent(2), 51, Some(2), 50), Ok(()));
    }
}
