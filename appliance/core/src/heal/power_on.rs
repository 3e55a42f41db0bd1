//! From off to on again: what a host that is held off waits for, who may start one that others switched off, and the order.

use super::begin::next_rung;
use super::{reimage, spare};
use crate::command::Intent;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::gate;
use crate::rules::Rules;
use crate::signal::{OffCause, Power, Source};
use crate::world::incident::{Phase, Rung};

/// Off, for a reason that has an end: the API away, AC to settle, a person to ask (rules 25, 31).
pub(super) fn held_off<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    let Some(incident) = &case.incident else { return };
    let api_away = case.view.sight.api_unreachable(limits, case.now);
    let deadline = incident.fence.on_deadline.unwrap_or(case.now.elapsed);
    if !incident.released {
        if api_away && case.now.elapsed < deadline {
            case.wait(Explanation::refusal(
                25,
                "held-for-api",
                "proven off; the API is away: it stays off for at most 10 min, then it is started",
            ));
            case.wake_at(deadline);
            return;
        }
        if !api_away && case.now.elapsed < deadline {
            case.go(Phase::Proving);
            return;
        }
        case.go(Phase::PoweringOn);
        return;
    }
    if let Err(why) = may_start_found_off(case) {
        case.wait(why);
        return;
    }
    case.go(Phase::PoweringOn);
}

/// Rule 31, of a host that was found off and is to be started as it is. Asked by whoever is about to, however it came there:
/// its workloads may be released, or not gone in time, or the API away. An install has a permit of its own.
pub(super) fn may_start_found_off<R: Rules>(case: &Case<'_, R>) -> Result<(), Explanation> {
    let found = case.incident.as_ref().is_some_and(|i| i.fence.found_off && i.current_rung() == Rung::PowerCycle);
    if !found || !case.enforces(31) || started_by_itself(case) {
        return Ok(());
    }
    let cause = case.host.assessment.off_cause;
    let sentence = match cause {
        OffCause::AcLoss | OffCause::Fault => "it lost its power: started once the feed has been stable for 2 min",
        _ => "somebody or something switched it off: a person must approve switching it on",
    };
    allowed_on(case, cause, sentence)
}

fn started_by_itself<R: Rules>(case: &Case<'_, R>) -> bool {
    case.host.assessment.power == Power::On
}

/// Rule 31: switched on once by itself only after AC loss or a fault, once power has been stable for two minutes.
fn allowed_on<R: Rules>(case: &Case<'_, R>, cause: OffCause, sentence: &'static str) -> Result<(), Explanation> {
    if gate::approval(case, Rung::PowerCycle, 31, "approve-on", sentence).is_ok() {
        return Ok(());
    }
    match cause {
        OffCause::AcLoss | OffCause::Fault => {
            let stable = case.view.evidence.slot(Source::Power).latest().map(|run| case.since(run.first));
            if stable.is_some_and(|span| span >= case.world.limits.ac_stable_ms) {
                return Ok(());
            }
            Err(Explanation::refusal(31, "ac-settling", sentence))
        }
        OffCause::Command | OffCause::Button | OffCause::Thermal | OffCause::Unknown => {
            Err(Explanation::refusal(31, "approve-on", sentence))
        }
    }
}

/// Orders power on. The taint is gone before (rule 25).
pub(super) fn powering_on<R: Rules>(case: &mut Case<'_, R>) {
    let tries = case.incident.as_ref().map_or(0, |i| i.tries);
    if tries >= 5 {
        let since = case.incident.as_ref().map_or(case.now.elapsed, |i| i.phase_since);
        if case.since(since) >= case.world.limits.boot_budget_ms {
            next_rung(case, Explanation::refusal(30, "no-power-on", "it could not be powered on"));
            return;
        }
    }
    if case.host.our_taint.is_some() && case.enforces(25) {
        let api_away = case.view.sight.api_unreachable(&case.world.limits, case.now);
        if !api_away {
            case.order(Intent::Withdraw { uncordon: false });
            return;
        }
    }
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    if let Err(why) = may_start_found_off(case) {
        case.wait(why);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.of_spare())
        && !(spare::may_start(case) && reimage::permit_at_hand(case))
    {
        return;
    }
    case.order(Intent::PowerOn { alarm: false });
}
