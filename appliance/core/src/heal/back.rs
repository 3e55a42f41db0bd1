//! The way back: Ready with a new boot, soak, canary pod, labels and uncordon (rule 42).

use super::begin::next_rung;
use crate::assess::NetworkState;
use crate::command::{Intent, Loudness};
use crate::decide::Case;
use crate::diagnose::{asks_after_disk, asks_still, diagnose};
use crate::explain::Explanation;
use crate::gate;
use crate::rules::Rules;
use crate::signal::Power;
use crate::time::DAY;
use crate::world::host::{Lifecycle, remember, within};
use crate::world::incident::{BootFailure, Diagnosis, End, Phase, Rung};

/// Ready, and with another boot than the one that fell ill.
fn returned<R: Rules>(case: &Case<'_, R>) -> bool {
    let Some(incident) = &case.incident else { return false };
    let new_boot = match (case.host.assessment.node.map(|n| n.boot), incident.boot_before) {
        (Some(now), Some(before)) => now != before || !case.rules.enforces(crate::rules::Rule(42)),
        (Some(_), None) => true,
        (None, _) => false,
    };
    case.host.ready() && case.host.assessment.answers() && new_boot
}

/// A taint that could not be removed before power-on, because the API was away, goes as soon as the API answers
/// (rule 26). Returns whether that was ordered.
pub(super) fn untaints<R: Rules>(case: &mut Case<'_, R>, phase: Phase) -> bool {
    let on_the_way_back = matches!(phase, Phase::AwaitingReady | Phase::Soaking | Phase::Canary | Phase::Returning);
    let tainted = case.host.our_taint.is_some() && case.enforces(26);
    if !on_the_way_back || !tainted || case.view.sight.api_unreachable(&case.world.limits, case.now) {
        return false;
    }
    if gate::outside_forbidden(case).is_err() || case.incident.as_ref().is_some_and(|i| i.tries > 20) {
        return false;
    }
    case.order(Intent::Withdraw { uncordon: false });
    true
}

/// The boot is watched until Ready or until its budget is over (rule 9).
pub(super) fn awaiting_ready<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    let now = case.now.elapsed;
    let Some(incident) = &mut case.incident else { return };
    let booted = *incident.booted_at.get_or_insert(now);
    let rung = incident.current_rung();
    let acted =
        incident.timings.off_ordered.is_some() || rung == Rung::SoftReboot || incident.of_spare() || incident.drills();
    let untouched = !acted && diagnose(case).is_none();
    let serves = case.serves_now();
    if returned(case) || (untouched && serves) {
        if let Some(incident) = &mut case.incident {
            incident.timings.ready.get_or_insert(now);
            incident.ready_since = Some(now);
            // A permit lasts until Ready (rule 11).
            incident.reservation = None;
        }
        // Ready is on, whoever switched it on.
        case.host.held_off = None;
        case.note("ready", format!("{}: Ready again", case.host.name));
        case.go(Phase::Soaking);
        return;
    }
    let held = case.incident.as_ref().is_some_and(|i| case.host.held_off == Some(i.id));
    if held && case.host.assessment.power == Power::Off && !case.host.assessment.answers() {
        // Nobody has switched it on: the fence was interrupted, and is taken up where it was.
        case.go(Phase::Proving);
        return;
    }
    if untouched {
        // Nothing was done to it and nothing is wrong with it: only the API is missing to say Ready.
        case.wait(Explanation::note("not-yet-ready", "it answers; the API does not say Ready yet"));
        return;
    }
    let budget = match rung {
        Rung::SoftReboot => limits.soft_reboot_ms,
        _ => case.host.history.boot_budget_ms(limits),
    };
    let asked = case.host.history.asked_since.is_some_and(|at| at > booted) && !case.host.assessment.answers();
    // Only of a host that asks after its disk does the question say at once that the disk has nothing; and what we have just
    // written gets its time.
    let after_disk = asks_after_disk(case) && !case.incident.as_ref().is_some_and(|incident| incident.installed);
    if asked && (after_disk || case.since(booted) >= budget && asks_still(case)) && rung != Rung::SoftReboot {
        let why = Explanation::refusal(
            9,
            "no-local-boot",
            "it asked the network for something to boot: its disk has nothing",
        );
        failed_boot(case, Diagnosis::BootFailed(BootFailure::NoLocalBoot), why);
    } else if let Some(until) = case.host.history.rebooting_until.filter(|until| case.enforces(33) && *until > now) {
        // Somebody reboots it in good order meanwhile: that has a budget of its own (rule 33).
        case.wake_at(until);
    } else if case.host.assessment.network == NetworkState::Alive && unheard(case) {
        // Its kubelet answers, and nobody could hear it say Ready: the boot is not late for want of the API.
        case.wait(Explanation::refusal(
            7,
            "ready-unheard",
            "its kubelet answers; whether it is Ready only the API says",
        ));
        case.wake_in(limits.retry_ms);
    } else if case.since(booted) >= budget {
        let why = Explanation::refusal(9, "boot-late", "it did not come back in its boot budget");
        failed_boot(case, Diagnosis::BootFailed(BootFailure::Late), why);
    } else {
        case.wake_at(booted.plus(budget));
    }
}

/// Whether the API did not answer, or our watch on it was not live, for long enough that a kubelet could have reported.
fn unheard<R: Rules>(case: &Case<'_, R>) -> bool {
    let limits = &case.world.limits;
    let live = case.view.sight.watch_live_since(limits, case.now);
    let heard = live.is_some_and(|since| case.since(since) >= limits.lease_expired_ms);
    case.enforces(7) && (case.view.sight.api_unreachable(limits, case.now) || !heard)
}

fn failed_boot<R: Rules>(case: &mut Case<'_, R>, diagnosis: Diagnosis, why: Explanation) {
    let reimaged = case.incident.as_ref().is_some_and(|i| i.installed);
    if reimaged {
        for version in case.host.versions.clone() {
            case.blame_version(version);
        }
    }
    super::begin::next_rung_for(case, diagnosis, why);
}

/// Ready without a gap for the soak.
pub(super) fn soaking<R: Rules>(case: &mut Case<'_, R>) {
    let soak = case.world.limits.soak_ms;
    let now = case.now.elapsed;
    if !case.host.ready() || !case.host.assessment.answers() {
        if let Some(incident) = &mut case.incident {
            incident.ready_since = None;
        }
        case.go(Phase::AwaitingReady);
        return;
    }
    let Some(incident) = &mut case.incident else { return };
    // After a restart the gap is not known: the soak begins again.
    let since = *incident.ready_since.get_or_insert(now);
    if case.since(since) >= soak || !case.enforces(42) {
        case.go(Phase::Canary);
    } else {
        case.wake_at(since.plus(soak));
    }
}

/// Ready and answering since the soak began, as far as we saw: a stall or a restart voids what was seen.
fn soaked<R: Rules>(case: &Case<'_, R>) -> bool {
    let seen = case.incident.as_ref().is_some_and(|i| i.ready_since.is_some());
    case.serves_now() && (seen || !case.enforces(47))
}

/// While the canary runs or the host is being returned, a gap in Ready voids the soak.
pub(super) fn watch_soak<R: Rules>(case: &mut Case<'_, R>) {
    let whole = case.serves_now();
    if let Some(incident) = &mut case.incident
        && matches!(incident.phase, Phase::Canary | Phase::Returning)
        && !whole
    {
        incident.ready_since = None;
    }
}

/// The canary pod: the node's own pause image runs on it.
pub(super) fn canary<R: Rules>(case: &mut Case<'_, R>) {
    if !soaked(case) {
        case.go(Phase::AwaitingReady);
        return;
    }
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    if !case.enforces(42) {
        case.go(Phase::Returning);
        return;
    }
    case.order(Intent::Canary);
}

/// Labels, credential, uncordon. A host healed too often stays cordoned until a person returns it (rule 8).
pub(super) fn returning<R: Rules>(case: &mut Case<'_, R>) {
    if !soaked(case) {
        case.go(Phase::AwaitingReady);
        return;
    }
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.drills()) {
        return super::drill::passed(case);
    }
    let limits = &case.world.limits;
    let day = within(&case.host.history.heals, DAY, case.now) + 1;
    let week = within(&case.host.history.heals, 7 * DAY, case.now) + 1;
    if case.enforces(8) && (day >= limits.heals_day_max || week >= limits.heals_week_max) {
        let now = case.now.elapsed;
        remember(&mut case.host.history.heals, now, 16);
        case.host.lifecycle = Lifecycle::Quarantined { since: now };
        case.tell(
            Loudness::Page,
            Explanation::refusal(
                8,
                "healed-too-often",
                "it was healed too often: it stays cordoned until a person returns it",
            ),
        );
        gate::care_ended(case, End::Healed);
        case.end_incident(End::Quarantined);
        return;
    }
    case.order(Intent::Return);
}

/// Back in service.
pub(super) fn returned_to_service<R: Rules>(case: &mut Case<'_, R>) {
    let now = case.now.elapsed;
    remember(&mut case.host.history.heals, now, 16);
    case.host.our_cordon = None;
    super::end(case, End::Healed);
}

/// The canary did not run: one rung up, still cordoned; on the last one it stays so, for a person.
pub(super) fn canary_failed<R: Rules>(case: &mut Case<'_, R>) {
    let why = Explanation::refusal(42, "canary-failed", "the canary pod did not run on it");
    if case.incident.as_ref().is_some_and(|i| i.current_rung() == Rung::Human) {
        case.tell(Loudness::Page, why);
        case.go(Phase::GivingUp);
        return;
    }
    next_rung(case, why);
}
