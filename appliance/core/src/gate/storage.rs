//! Storage hosts: rule 28.

use super::{Answer, approval};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::rules::Rules;
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
        let before = report.reduced_since.is_some_and(|since| since < opened);
        let by_other = report.reduced_since.is_some() && report.reduced_by.is_some_and(|host| host != case.host.id);
        if before || by_other {
            return Err(Explanation::refusal(
                28,
                "storage-reduced",
                "its storage has reduced redundancy, and it still answers",
            ));
        }
    }
    let own = case.incident.as_ref().is_some_and(|i| i.reservation.is_some());
    let open = case.world.tallies.storage_permits.get(&system).copied().unwrap_or(0);
    if open > u32::from(own) {
        return Err(Explanation::refusal(
            28,
            "storage-busy",
            "another host of the same storage system is being healed",
        ));
    }
    match rung {
        Rung::Reimage | Rung::Replace => {
            approval(case, rung, 28, "approve-storage", "a storage host is reimaged or replaced by approval only")
        }
        Rung::PowerCycle | Rung::SoftReboot | Rung::RestartComponent(_) | Rung::Prove | Rung::Human => Ok(()),
    }
}
