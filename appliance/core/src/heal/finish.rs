//! Ends: our marks are taken away first, so that no cordon or taint outlives its reason (rules 26, 42, 43).

use crate::command::{Intent, Loudness};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::gate;
use crate::rules::Rules;
use crate::world::host::Lifecycle;
use crate::world::incident::{End, Phase};

/// Ends the incident once our marks are away; at once if there are none.
pub(super) fn withdraw<R: Rules>(case: &mut Case<'_, R>, end: End) {
    if let Some(incident) = &mut case.incident {
        incident.ending = Some(end);
        incident.reservation = None;
    }
    let open = case.incident.as_ref().is_some_and(|i| i.ticket_open);
    if case.host.our_cordon.is_none() && case.host.our_taint.is_none() && case.host.held_off.is_none() && !open {
        super::end(case, end);
    } else {
        case.go(Phase::Withdrawing);
    }
}

/// Takes the marks away: a host that we hold off is started first.
pub(super) fn withdrawing<R: Rules>(case: &mut Case<'_, R>) {
    if cut_after_all(case) {
        case.go(Phase::AwaitingReady);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.fence.found_off && !i.fence.outlets_off) && case.enforces(31) {
        // Others switched it off: it stays as they left it, unless its outlets are cut, which is our doing.
        case.host.held_off = None;
    }
    let forbidden = gate::outside_forbidden(case).err();
    let keeps_taint_only = case.host.our_taint.is_some() && case.host.held_off.is_none();
    if let Some(why) = forbidden
        && !keeps_taint_only
    {
        case.wait(why);
        return;
    }
    if case.view.sight.api_unreachable(&case.world.limits, case.now) {
        if case.host.held_off.is_some() {
            case.order(Intent::PowerOn { alarm: false });
        } else {
            case.wait(Explanation::refusal(26, "api-unreachable", "our marks are removed as soon as the API answers"));
        }
        return;
    }
    if case.host.our_taint.is_some() || (case.host.held_off.is_none() && case.host.our_cordon.is_some()) {
        let ending = case.incident.as_ref().and_then(|i| i.ending);
        let uncordon = ending != Some(End::Quarantined) && case.host.held_off.is_none();
        case.order(Intent::Withdraw { uncordon });
        return;
    }
    if case.host.held_off.is_some() {
        case.order(Intent::PowerOn { alarm: false });
        return;
    }
    let end = case.incident.as_ref().and_then(|i| i.ending).unwrap_or(End::Aborted);
    super::end(case, end);
}

/// It seemed well, as its Node still said what was true before our off, and meanwhile it came up by another boot: it goes the
/// way back of every host that we have cut, with soak and canary (rule 42).
fn cut_after_all<R: Rules>(case: &mut Case<'_, R>) -> bool {
    let boot = case.host.assessment.node.map(|node| node.boot);
    let Some(incident) = &mut case.incident else { return false };
    let aborted = incident.ending == Some(End::Aborted) && !incident.denied && incident.timings.off_ordered.is_some();
    let another = incident.boot_before.is_some() && boot.is_some() && boot != incident.boot_before;
    let back = aborted
        && another
        && case.host.ready()
        && case.host.our_cordon.is_some()
        && case.host.lifecycle == Lifecycle::InService;
    if back && case.enforces(42) {
        if let Some(incident) = &mut case.incident {
            incident.ending = None;
        }
        return true;
    }
    false
}

/// Quarantine: the taint and the ticket go, the cordon stays, a human is told.
pub(super) fn giving_up<R: Rules>(case: &mut Case<'_, R>) {
    let api_away = case.view.sight.api_unreachable(&case.world.limits, case.now);
    if case.host.our_taint.is_some() {
        if api_away {
            case.wait(Explanation::refusal(26, "api-unreachable", "our taint is removed as soon as the API answers"));
        } else {
            case.order(Intent::Withdraw { uncordon: false });
        }
        return;
    }
    if let Some(job) = case.incident.as_ref().and_then(|i| i.job) {
        case.order(Intent::CloseTicket(job));
        return;
    }
    let now = case.now.elapsed;
    case.host.lifecycle = Lifecycle::Quarantined { since: now };
    case.host.held_off = None;
    super::spare::back_to_spare(case);
    case.tell(
        Loudness::Page,
        Explanation::note(
            "quarantined",
            format!("{}: the ladder is used up; it is in quarantine with its evidence", case.host.name),
        ),
    );
    super::end(case, End::Quarantined);
}
