//! Safe completion: whatever stops us, a host that we switched off is not left off, and our taint is not left on
//! (rules 25, 45, 48, 49).

use crate::command::Intent;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::gate;
use crate::rules::Rules;
use crate::world::incident::{Phase, Rung};
use crate::world::scope::ObserveOnly;

/// Goes into safe completion if something forbids going on while we hold the host off: at once on a pause or a store
/// failure, else when the off's own deadline passes. Returns whether this phase is to do nothing else now.
pub(super) fn completes<R: Rules>(case: &mut Case<'_, R>) -> bool {
    let Some(incident) = &case.incident else { return true };
    let held = case.host.held_off == Some(incident.id);
    // A spare that is off serves nobody the less: it stays off until its plan may go on.
    let plan_keeps_off = incident.current_rung() == Rung::Replace || incident.of_spare();
    if !held || plan_keeps_off || incident.phase == Phase::SafeCompletion || incident.phase == Phase::GivingUp {
        return false;
    }
    let Err(why) = gate::outside_forbidden(case) else { return false };
    if incident.fence.found_off && case.host.our_taint.is_none() && case.enforces(31) {
        // Somebody else switched it off: it is not ours to switch on unasked, and no mark of ours is left on it.
        return false;
    }
    if case.site().observe_only == Some(ObserveOnly::Standby) {
        // The other appliance completes it.
        return false;
    }
    let rule = why.rule.map_or(0, |r| r.0);
    let at_once = matches!(rule, 48 | 49);
    let deadline = incident.fence.on_deadline.unwrap_or(case.now.elapsed);
    if (at_once && case.enforces(rule)) || case.now.elapsed >= deadline {
        case.note(
            "safe-completion",
            format!("{}: switched on again, since it may not stay off ({})", case.host.name, why.sentence),
        );
        case.go(Phase::SafeCompletion);
        return false;
    }
    case.wait(why);
    case.wake_at(deadline);
    true
}

/// A pause reached a running step: the cancel went with it; nothing else is sent from here. Nor is what takes a host away, once
/// a person disarmed its cluster or ordered observe-only, or all power froze.
pub(super) fn interrupt<R: Rules>(case: &mut Case<'_, R>) {
    let Some(incident) = &case.incident else { return };
    let Some(running) = &incident.running else { return };
    let undoes = matches!(running.intent, Intent::PowerOn { .. } | Intent::Withdraw { .. } | Intent::CloseTicket(_));
    if gate::paused_here(case).is_err() && !undoes {
        let step = running.step;
        case.out.cancels.push(step);
    }
    let takes_away = matches!(
        running.intent,
        Intent::ForceOff { found_off: false }
            | Intent::OutletsOff
            | Intent::SoftReboot
            | Intent::ArmBoot(_)
            | Intent::ArmProof(_)
    );
    if takes_away && gate::ordered_to_stop(case).is_err() {
        let step = running.step;
        case.out.cancels.push(step);
    }
}

/// Our taint off, then the power on.
pub(super) fn completing<R: Rules>(case: &mut Case<'_, R>) {
    if case.site().observe_only == Some(ObserveOnly::Standby) {
        case.wait(Explanation::refusal(46, "standby", "the appliance lease is not ours: the other one completes it"));
        return;
    }
    let api_away = case.view.sight.api_unreachable(&case.world.limits, case.now);
    let budget = case.host.history.boot_budget_ms(&case.world.limits);
    if case.incident.as_ref().is_some_and(|i| case.since(i.phase_since) >= budget)
        && let Some(incident) = &mut case.incident
    {
        // A permit does not outlast the boot budget (rule 11); switching on needs none.
        incident.reservation = None;
    }
    let tries = case.incident.as_ref().map_or(0, |i| i.tries);
    if case.host.our_taint.is_some() && !api_away && tries < 3 {
        case.order(Intent::Withdraw { uncordon: false });
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.fence.found_off) && case.enforces(31) {
        case.go(Phase::HeldOff);
        return;
    }
    if case.host.held_off.is_some() {
        let alarm = case.incident.as_ref().is_some_and(|i| i.alarmed);
        case.order(Intent::PowerOn { alarm });
        return;
    }
    over(case);
}

/// The host is on again: after an alarm a person looks first, else its boot is watched.
pub(super) fn over<R: Rules>(case: &mut Case<'_, R>) {
    if case.incident.as_ref().is_some_and(|i| i.alarmed) {
        if let Some(incident) = &mut case.incident {
            incident.reservation = None;
            incident.fence = incident.fence.anew();
            incident.released = false;
            incident.alarmed = false;
            incident.booted_at = None;
        }
        case.go(Phase::Suspected);
        case.wait(Explanation::refusal(
            29,
            "after-alarm",
            "an identity alarm stopped its fence: a person must lift the power freeze",
        ));
        return;
    }
    case.go(Phase::AwaitingReady);
}
