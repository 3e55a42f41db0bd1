//! Cold start (rule 58): after a loss of power of the site, a person names the hosts; they are switched on in order,
//! storage and control plane first, at most one per PDU every 5 s, and every other rung waits.

use crate::decide::Case;
use crate::explain::Explanation;
use crate::gate;
use crate::id::DomainId;
use crate::rules::Rules;
use crate::signal::Power;
use crate::world::host::Host;
use crate::world::incident::Phase;
use crate::world::scope::DomainKind;

/// Whether a cold start is armed that names this host.
#[must_use]
pub(super) fn named<R: Rules>(case: &Case<'_, R>) -> bool {
    case.site().cold_start.as_ref().is_some_and(|c| c.hosts.contains(&case.host.id))
}

/// First the hosts on which everything else rests.
fn first_class(host: &Host) -> bool {
    host.control_plane() || host.storage.is_some()
}

/// Handles a named host while a cold start is armed. Returns whether it did.
pub(super) fn takes_over<R: Rules>(case: &mut Case<'_, R>) -> bool {
    settle(case);
    if !named(case) || case.site().cold_start.as_ref().is_some_and(|c| c.expires.passed(case.now)) {
        return false;
    }
    if case.host.assessment.power != Power::Off {
        return false;
    }
    if let Err(why) = gate::cold_start_may(case) {
        case.wait(why);
        return true;
    }
    if let Err(why) = turn(case) {
        case.wait(why);
        return true;
    }
    let now = case.now.elapsed;
    let pdus = pdus(case);
    if let Some(cold) = case.site_mut().cold_start.as_mut() {
        cold.last_on.retain(|(domain, _)| !pdus.contains(domain));
        cold.last_on.extend(pdus.into_iter().map(|domain| (domain, now)));
    }
    case.note("cold-start", format!("{}: switched on in its turn of the cold start", case.host.name));
    case.go(Phase::PoweringOn);
    true
}

fn pdus<R: Rules>(case: &Case<'_, R>) -> Vec<DomainId> {
    let of = |kind| {
        let hosts = case.host.domains.iter().copied();
        hosts.filter(|d| case.domain(*d).is_some_and(|d| d.kind == kind)).collect::<Vec<_>>()
    };
    let pdus = of(DomainKind::Pdu);
    // Without a PDU in the record the rack stands for it; without labels the whole site does.
    if !pdus.is_empty() {
        return pdus;
    }
    let racks = of(DomainKind::Rack);
    if racks.is_empty() { vec![DomainId(u32::MAX)] } else { racks }
}

/// Whether it is this host's turn.
fn turn<R: Rules>(case: &Case<'_, R>) -> Result<(), Explanation> {
    if !case.enforces(58) {
        return Ok(());
    }
    let Some(cold) = &case.site().cold_start else { return Ok(()) };
    let gap = case.world.limits.cold_start_gap_ms;
    let pdus = pdus(case);
    if cold.last_on.iter().any(|(domain, at)| pdus.contains(domain) && case.since(*at) < gap) {
        return Err(Explanation::refusal(58, "cold-start-pdu", "another host of its PDU was switched on within 5 s"));
    }
    if first_class(&case.host) {
        return Ok(());
    }
    // Workers wait until those that carry storage and quorum are on.
    let waits = cold
        .hosts
        .iter()
        .filter_map(|id| case.world.host(*id))
        .any(|h| first_class(h) && h.assessment.power == Power::Off);
    if waits {
        return Err(Explanation::refusal(
            58,
            "cold-start-order",
            "storage and control-plane hosts are switched on first",
        ));
    }
    Ok(())
}

/// The cold start ends ten minutes after the API is ready again.
fn settle<R: Rules>(case: &mut Case<'_, R>) {
    let Some(cold) = &case.site().cold_start else { return };
    let limits = &case.world.limits;
    let now = case.now.elapsed;
    let api = case.view.sight.cluster.as_ref().is_some_and(|c| c.api.unreachable_since.is_none());
    let live = case.view.sight.watch_live_since(limits, case.now).is_some();
    match cold.api_ready_at {
        Some(at) if now.since(at) >= limits.cold_start_settle_ms => case.site_mut().cold_start = None,
        Some(_) if !api => {
            if let Some(cold) = case.site_mut().cold_start.as_mut() {
                cold.api_ready_at = None;
            }
        }
        None if api && live => {
            if let Some(cold) = case.site_mut().cold_start.as_mut() {
                cold.api_ready_at = Some(now);
            }
        }
        _ => {}
    }
}
