//! Budgets: rules 11 to 17, and the choice of a spare (16, 43).

use super::{Answer, Moment, approval};
use crate::assess::NetworkState;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::id::HostId;
use crate::rules::Rules;
use crate::signal::Power;
use crate::time::{DAY, HOUR, MINUTE};
use crate::world::host::{CmdbState, Host, Lifecycle, Link, Role, within};
use crate::world::incident::{End, Incident, Rung};
use crate::world::scope::Consent;

/// Rule 11: at once at most a tenth of the workers of a cluster, one per domain and chassis.
pub(super) fn concurrency<R: Rules>(case: &Case<'_, R>, moment: Moment) -> Answer {
    if !case.enforces(11) {
        return Ok(());
    }
    let Some(tally) = case.cluster_id().and_then(|c| case.world.tallies.clusters.get(&c)) else { return Ok(()) };
    let limits = &case.world.limits;
    let own = u32::from(case.incident.as_ref().is_some_and(|i| i.reservation.is_some()));
    for domain in &case.host.domains {
        let Some(permits) = case.world.tallies.domains.get(domain).map(|d| &d.permits) else { continue };
        let unlabelled = case.domain(*domain).is_some_and(|d| d.kind == crate::world::scope::DomainKind::Unlabelled);
        if !unlabelled && permits.iter().any(|host| *host != case.host.id) {
            return Err(Explanation::refusal(
                11,
                "domain-busy",
                "another host of its rack, PDU, switch or chassis is being healed",
            ));
        }
    }
    if moment == Moment::BeforePower {
        return Ok(());
    }
    let most = (u64::from(tally.workers) * limits.concurrent_percent / 100).max(1);
    let open = u64::from(tally.permits.saturating_sub(own));
    // A silent host of another domain may be fenced once the first reads On.
    let silent = case.host.assessment.network == NetworkState::Silent;
    let off = u64::from(tally.permits_off.saturating_sub(own));
    if open < most || (silent && off < most) {
        return Ok(());
    }
    Err(Explanation::refusal(
        11,
        "cluster-busy",
        format!("{open} of at most {most} hosts of the cluster are being healed: it waits its turn"),
    ))
}

/// Rule 12: a host that is Ready or answers is not taken down if too few would stay.
pub(super) fn ready_share<R: Rules>(case: &Case<'_, R>) -> Answer {
    let Some(tally) = case.cluster_id().and_then(|c| case.world.tallies.clusters.get(&c)) else { return Ok(()) };
    let counted = case.host.ready() || case.host.assessment.answers();
    if !case.enforces(12) || !counted {
        return Ok(());
    }
    // The counts hold this host as it was before this event.
    let ready = u64::from(tally.ready.saturating_sub(u32::from(case.before.ready())));
    if ready * 100 < u64::from(tally.schedulable) * case.world.limits.ready_min_percent {
        return Err(Explanation::refusal(
            12,
            "too-few-ready",
            "it still answers, and too few nodes would stay Ready without it",
        ));
    }
    Ok(())
}

/// Rule 13: the breaker.
pub(super) fn breaker<R: Rules>(case: &Case<'_, R>) -> Answer {
    match &case.site().breaker {
        Some(why) if case.enforces(13) => Err(Explanation::refusal(
            13,
            "breaker",
            format!("the breaker is open until a person resets it: {}", why.sentence),
        )),
        _ => Ok(()),
    }
}

/// Rule 13: the rate of the whole fleet. Reaching it queues.
pub(super) fn fleet_rate<R: Rules>(case: &Case<'_, R>) -> Answer {
    if !case.enforces(13) {
        return Ok(());
    }
    let limits = &case.world.limits;
    let actions = &case.world.tallies.actions;
    let hosts = u64::from(case.world.tallies.hosts);
    let per_10min = limits.rate_10min.max(hosts * limits.rate_10min_permille / 1_000);
    let per_hour = limits.rate_hour.max(hosts * limits.rate_hour_permille / 1_000).min(limits.rate_hour_cap);
    if within(actions, 10 * MINUTE, case.now) >= per_10min || within(actions, HOUR, case.now) >= per_hour {
        return Err(Explanation::refusal(
            13,
            "fleet-rate",
            "the fleet's rate of disruptive actions is used up: it waits its turn",
        ));
    }
    Ok(())
}

/// Rule 14: how often one host is power-cycled or reimaged.
pub(super) fn host_rate<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    if !case.enforces(14) {
        return Ok(());
    }
    let limits = &case.world.limits;
    let history = &case.host.history;
    if rung == Rung::Reimage {
        let day = within(&history.reimages, DAY, case.now);
        let week = within(&history.reimages, 7 * DAY, case.now);
        if day >= limits.reimages_day_max || week >= limits.reimages_week_max {
            return Err(Explanation::refusal(14, "reimages-used-up", "it was reimaged as often as allowed"));
        }
        // Power steps inside a permitted reimage belong to its permit.
        return Ok(());
    }
    if history.cycles.last().is_some_and(|&at| case.since(at) < limits.cycle_spacing_ms) {
        return Err(Explanation::refusal(14, "cycle-spacing", "it was power-cycled within the last 15 min"));
    }
    if within(&history.cycles, DAY, case.now) >= limits.cycles_day_max {
        return Err(Explanation::refusal(14, "cycles-used-up", "it was power-cycled three times in 24 h"));
    }
    Ok(())
}

/// Rule 15: two failures after the same version stop destructive actions with it.
pub(super) fn versions<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    if !case.enforces(15) || !rung.destructive() {
        return Ok(());
    }
    let worst = case.host.versions.iter().filter_map(|v| case.world.versions.get(v)).map(|v| v.failures).max();
    if worst.is_some_and(|failures| u64::from(failures) >= case.world.limits.version_failures_max) {
        return Err(Explanation::refusal(
            15,
            "version-stopped",
            "two hosts failed after the same image, firmware or kubelet version",
        ));
    }
    Ok(())
}

/// A spare, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spare {
    /// This one.
    Take(HostId),
    /// None now, for this reason; it may change.
    Wait(Explanation),
    /// There is none at all.
    None,
}

/// Chooses a proven spare for a worker, keeping the reserve (rules 16, 43), with the pool's consent.
pub(crate) fn choose_spare<R: Rules>(case: &Case<'_, R>) -> Spare {
    let limits = &case.world.limits;
    let all = || case.world.tallies.spares.iter().filter_map(|id| case.world.host(*id));
    let unpromised = || all().filter(|spare| spare.history.promised.is_none() && fits(case, spare));
    let spares = case.world.tallies.spares.len() as u64;
    let Some(choice) = unpromised().find(|spare| spare.incident.is_none()).map(|spare| spare.id) else {
        let proofs = |spare: &Host| case.world.incident_of(spare.id).is_some_and(Incident::proves);
        if unpromised().any(proofs) {
            return Spare::Wait(Explanation::note("spare-in-proof", "the spare for it is just being proven again"));
        }
        return Spare::None;
    };
    let pool = spares + u64::from(case.world.tallies.promoted);
    let reserve = limits.spare_reserve.min(pool.saturating_sub(1));
    if case.enforces(16) && spares <= reserve {
        return Spare::Wait(Explanation::refusal(16, "spare-reserve", "the last spares are kept back"));
    }
    match case.pool().map(|p| p.replace) {
        Some(Consent::Automatic) => Spare::Take(choice),
        Some(Consent::Ask) => {
            match approval(case, Rung::Replace, 51, "approve-replace", "the swap with a spare needs approval here") {
                Ok(()) => Spare::Take(choice),
                Err(why) => Spare::Wait(why),
            }
        }
        Some(Consent::Never) | None => Spare::None,
    }
}

/// Whether the spare that was promised may still be used: what was so when it was chosen may have changed in a long wait.
pub(crate) fn still_fits<R: Rules>(case: &Case<'_, R>, spare: HostId) -> bool {
    let ours = case.incident.as_ref().map(|i| i.id);
    case.world
        .host(spare)
        .is_some_and(|spare| spare.incident.is_none() && spare.history.promised == ours && fits(case, spare))
}

/// Proven freshly, linked, of this cluster or of none, and installable (rules 29, 43).
fn fits<R: Rules>(case: &Case<'_, R>, spare: &Host) -> bool {
    let fresh = spare.spare_proof.is_some_and(|p| p.fresh(case.world.limits.spare_proof_ms, case.now));
    spare.role == Role::Spare
        && spare.lifecycle == Lifecycle::InService
        && (fresh || !case.enforces(43))
        && (spare.cluster.is_none() || spare.cluster == case.host.cluster)
        && (spare.link == Link::Linked || !case.enforces(29))
        && installable(case, spare)
}

/// Whether a spare may be written at all: its disk is named, nobody holds it back or uses it, and neither its own rate of
/// installs nor its versions forbid one (rules 14, 15, 36, 49, 50, 59).
fn installable<R: Rules>(case: &Case<'_, R>, spare: &Host) -> bool {
    let limits = &case.world.limits;
    let marks = &spare.marks;
    let domain = spare.domains.iter().any(|id| case.domain(*id).is_some_and(|domain| domain.paused));
    let left_alone = marks.paused
        || (domain && case.enforces(49))
        || marks.is_self
        || marks.cmdb == CmdbState::Other
        || marks.maintenance_until.is_some_and(|until| case.now.elapsed < until);
    let rested = within(&spare.history.reimages, DAY, case.now) < limits.reimages_day_max
        && within(&spare.history.reimages, 7 * DAY, case.now) < limits.reimages_week_max;
    let stopped = spare.versions.iter().filter_map(|v| case.world.versions.get(v));
    let sound = stopped.into_iter().all(|v| u64::from(v.failures) < limits.version_failures_max);
    spare.disk.is_some()
        && !left_alone
        && spare.assessment.power != Power::On
        && (rested || !case.enforces(14))
        && (sound || !case.enforces(15))
}

/// Counts how a heal ended: three failures in a row open the breaker (rule 13), two on one version stop it (rule 15).
pub(crate) fn heal_ended<R: Rules>(case: &mut Case<'_, R>, end: End, tried: bool) {
    match end {
        End::Healed | End::Replaced => {
            if case.site().failed_in_a_row > 0 {
                case.site_mut().failed_in_a_row = 0;
            }
        }
        End::Quarantined if tried => {
            let most = case.world.limits.breaker_failures;
            let site = case.site_mut();
            site.failed_in_a_row = site.failed_in_a_row.saturating_add(1);
            if u64::from(site.failed_in_a_row) >= most && site.breaker.is_none() {
                let why = Explanation::refusal(13, "breaker-opened", "three heals in a row failed");
                site.breaker = Some(why.clone());
                case.tell(crate::command::Loudness::Page, why);
            }
        }
        End::Quarantined | End::Aborted | End::Proven | End::Unproven => {}
    }
}
