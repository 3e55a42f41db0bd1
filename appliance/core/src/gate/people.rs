//! What people and the state of the appliance forbid: rules 8, 17, 45-52, 58, 59.

use super::Answer;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::time::HOUR;
use crate::world::host::{CmdbState, Role};
use crate::world::incident::{Diagnosis, Rung};
use crate::world::scope::{Consent, ObserveOnly};

/// Whether anything outside may be touched at all: observe-only, standby, pause, arming.
pub(crate) fn outside_forbidden<R: Rules>(case: &Case<'_, R>) -> Answer {
    let site = case.site();
    if let Some(why) = site.observe_only {
        let (rule, code, what) = match why {
            ObserveOnly::Starting { .. } => (45, "starting", "the appliance has just started and looks first"),
            ObserveOnly::Void { .. } => (47, "void", "all evidence was void after a stall: it is gathered anew"),
            ObserveOnly::Store => (48, "store-failed", "the store cannot be written"),
            ObserveOnly::Restored => (45, "restored", "this is a restored backup: a person must arm it"),
            ObserveOnly::Corrupt => (17, "corrupt", "the budget state is unknown: that is no budget at all"),
            ObserveOnly::Standby => (46, "standby", "the appliance lease is not ours"),
            ObserveOnly::Ordered => (52, "observe-only", "a person ordered observe-only"),
        };
        if case.enforces(rule) {
            return Err(Explanation::refusal(rule, code, format!("observing only: {what}")));
        }
    }
    let lease_left = site.lease.until.since(case.now.elapsed);
    if case.enforces(46) && lease_left <= case.world.limits.lease_margin_ms {
        return Err(Explanation::refusal(46, "lease-ending", "the appliance lease ends within 10 s: nothing is begun"));
    }
    paused(case)?;
    // A spare may belong to no cluster yet: then a person must have armed some.
    let armed = match case.host.cluster {
        Some(_) => case.cluster().is_some_and(|c| c.armed),
        None => case.host.role == Role::Spare && case.world.clusters.values().any(|c| c.armed),
    };
    if case.enforces(52) && !armed {
        return Err(Explanation::refusal(
            52,
            "not-armed",
            "the cluster is not armed: a person must arm it after looking",
        ));
    }
    Ok(())
}

/// What stops an off that is decided and has not left: a person who ordered only to observe or disarmed the cluster, or an
/// alarm that froze all power.
pub(crate) fn ordered_to_stop<R: Rules>(case: &Case<'_, R>) -> Answer {
    let site = case.site();
    if let Some(frozen) = site.power_freeze.as_ref().filter(|_| case.enforces(29)) {
        return Err(frozen.clone());
    }
    let observed = site.observe_only == Some(ObserveOnly::Ordered);
    let disarmed = case.cluster().is_some_and(|cluster| !cluster.armed);
    if observed || disarmed { outside_forbidden(case) } else { Ok(()) }
}

/// Rule 49: pause at any scope.
pub(crate) fn paused<R: Rules>(case: &Case<'_, R>) -> Answer {
    let domain = case.host.domains.iter().any(|d| case.domain(*d).is_some_and(|d| d.paused));
    let paused = case.site().paused || case.cluster().is_some_and(|c| c.paused) || domain || case.host.marks.paused;
    if case.enforces(49) && paused {
        return Err(Explanation::refusal(49, "paused", "a person paused it: unsent steps wait until it is unpaused"));
    }
    Ok(())
}

/// Rules 50 and 59: marks on the host, and hosts that carry the appliance.
pub(super) fn marks<R: Rules>(case: &Case<'_, R>) -> Answer {
    marks_beside_a_cordon(case)?;
    if let Some(since) = case.host.marks.foreign_since.filter(|_| case.enforces(50)) {
        let hours = case.since(since) / HOUR;
        return Err(Explanation::refusal(
            50,
            "foreign-mark",
            format!("somebody else cordoned, drained or marked it {hours} h ago: remove the mark, or it stays theirs"),
        ));
    }
    Ok(())
}

/// The same without the cordon of a person, which a drill needs.
pub(super) fn marks_beside_a_cordon<R: Rules>(case: &Case<'_, R>) -> Answer {
    let marks = &case.host.marks;
    if case.enforces(59) && marks.is_self {
        return Err(Explanation::refusal(
            59,
            "self",
            "it carries the appliance or its network path: never acted on automatically",
        ));
    }
    if !case.enforces(50) {
        return Ok(());
    }
    if marks.maintenance_until.is_some_and(|until| case.now.elapsed < until) {
        return Err(Explanation::refusal(50, "maintenance", "it is in a maintenance window"));
    }
    if case.view.sight.cluster.as_ref().is_some_and(|c| c.upgrade_running) {
        return Err(Explanation::refusal(50, "upgrade", "an upgrade of the cluster is running"));
    }
    match marks.cmdb {
        CmdbState::Other => Err(Explanation::refusal(50, "cmdb", "the CMDB says that it is not in service")),
        CmdbState::InService { at } if case.since(at) > case.world.limits.cmdb_age_ms => {
            Err(Explanation::refusal(50, "cmdb-old", "the CMDB's last word is older than 24 h"))
        }
        CmdbState::InService { .. } | CmdbState::NotKept => Ok(()),
    }
}

/// Rule 58: while a cold start is armed, and until 10 min after the API is ready, every other rung is disarmed.
pub(super) fn cold_start<R: Rules>(case: &Case<'_, R>) -> Answer {
    if !case.enforces(58) || case.site().cold_start.is_none() {
        return Ok(());
    }
    Err(Explanation::refusal(58, "cold-start", "a cold start is armed: other rungs wait until it is over"))
}

/// Rule 8: a flapping host is powered by approval only.
pub(super) fn flapping<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    let limits = &case.world.limits;
    let points = case.host.history.flap_points(limits, case.now);
    if case.enforces(8) && points >= limits.flap_points {
        return approval(case, rung, 8, "flapping", "it turned bad again and again: power by approval only");
    }
    Ok(())
}

/// Consent of the pool and approvals (rules 1, 28, 51).
pub(super) fn consent<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    let Some(pool) = case.pool() else {
        return Err(Explanation::refusal(17, "no-pool", "its pool is not configured: nothing is allowed"));
    };
    let (consent, code, what) = match rung {
        Rung::SoftReboot => {
            (pool.soft_reboot, "approve-soft-reboot", "a soft reboot of a living host needs approval here")
        }
        Rung::Reimage => (pool.reimage, "approve-reimage", "a reimage needs approval here"),
        // Its fence goes by the same rules as a power cycle; the swap itself asks when the spare is chosen.
        Rung::PowerCycle | Rung::Replace | Rung::RestartComponent(_) | Rung::Prove | Rung::Human => return Ok(()),
    };
    match consent {
        Consent::Automatic => Ok(()),
        Consent::Ask => approval(case, rung, 51, code, what),
        Consent::Never => Err(Explanation::refusal(51, "never", "the pool forbids this rung")),
    }
}

/// An approval that fits what was seen when it was given (rule 51).
pub(crate) fn approval<R: Rules>(
    case: &Case<'_, R>,
    rung: Rung,
    rule: u8,
    code: &'static str,
    what: &'static str,
) -> Answer {
    match approved_any(case) {
        Some(approved) if approved == rung => Ok(()),
        _ => Err(Explanation::refusal(rule, code, what)),
    }
}

/// The rung for which a valid approval is at hand.
pub(crate) fn approved_any<R: Rules>(case: &Case<'_, R>) -> Option<Rung> {
    let incident = case.incident.as_ref()?;
    let approval = incident.approval?;
    if !case.enforces(51) {
        return Some(approval.rung);
    }
    let seen = case.host.assessment;
    let same_boot = approval.boot == seen.node.map(|n| n.boot);
    // A BMC that fell silent after the approval takes nothing away from what the person saw.
    let same_power = approval.power == seen.power || seen.power == crate::signal::Power::Unknown || held(case);
    let same = same_illness(approval.diagnosis, incident.diagnosis) && same_boot && same_power;
    (same && !approval.expires.passed(case.now)).then_some(approval.rung)
}

fn held<R: Rules>(case: &Case<'_, R>) -> bool {
    // Under our own hold the power is what we made it.
    case.host.held_off.is_some()
}

fn same_illness(a: Diagnosis, b: Diagnosis) -> bool {
    a == b
}
