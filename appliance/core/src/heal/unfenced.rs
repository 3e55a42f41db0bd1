//! Off that is not proven: why, what else may prove it, and the wait of a host that is *unfenced* (rules 27, 29, 30).

use super::power::{came_back, ours, proven, refused, step_back, try_prove};
use super::{drill, finish, spare};
use crate::command::{Intent, Loudness};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::fence::{NotProven, Reading};
use crate::gate::{self, Moment};
use crate::id::MachineId;
use crate::observe::bmc_silent_since;
use crate::rules::Rules;
use crate::scope_watch::raise_alarm;
use crate::signal::Power;
use crate::time::{MINUTE, SECOND};
use crate::world::host::{Link, remember};
use crate::world::incident::{End, Phase, Rung};

pub(super) fn not_proven<R: Rules>(case: &mut Case<'_, R>, why: NotProven, readings: &[Reading]) {
    if let Some(incident) = &mut case.incident {
        incident.fence.failed_proofs += 1;
    }
    let commanded = case.incident.as_ref().is_some_and(|i| !i.fence.found_off && i.fence.off_at.is_some());
    let left = case.incident.as_ref().and_then(|i| i.fence.our_off);
    let drills = case.incident.as_ref().is_some_and(|i| i.drills());
    match why {
        // It lived until its off: what it said last may be heard just after the first Off was read. Once more, from now on.
        NotProven::Answered | NotProven::Renewed
            if drills && case.incident.as_ref().is_some_and(|i| i.fence.failed_proofs < 3) =>
        {
            case.go(Phase::Proving);
            case.wake_in(SECOND);
        }
        NotProven::TooEarly | NotProven::Stale => {
            case.go(Phase::Proving);
            case.wake_in(SECOND);
        }
        NotProven::WrongMachine => wrong_machine(case, readings.iter().rev().find_map(|r| r.identity)),
        // Its BMC says Off and yet it speaks: the BMC that we switched off is another machine's (rule 29).
        NotProven::Answered | NotProven::Renewed if commanded && case.enforces(29) => {
            let sentence =
                format!("{} still speaks after its BMC said Off: the BMC may be another machine's", case.host.name);
            if let Some(incident) = &mut case.incident {
                incident.alarmed = true;
            }
            raise_alarm(case, sentence);
            case.go(Phase::SafeCompletion);
        }
        // Read before the off left, On says nothing about its effect: the power is read again (rule 30).
        NotProven::NotOff if readings.last().is_some_and(|r| Some(r.at) <= left) => {
            case.go(Phase::Proving);
            case.wake_in(SECOND);
        }
        NotProven::NotOff if readings.last().is_some_and(|r| r.power == Power::On) => {
            // Somebody switched it on, or it was never off: nothing is released, and the power is looked at again.
            if let Some(incident) = &mut case.incident {
                incident.fence.off_at = None;
                incident.fence.found_off = false;
                incident.fence.human_confirmed = None;
            }
            case.host.held_off = None;
            if case.incident.as_ref().is_some_and(|i| i.of_spare()) {
                return spare::found_on(case);
            }
            if drills {
                return drill::failed(case, &Explanation::refusal(30, "reads-on", "its BMC reads On after the off"));
            }
            let stuck = case.incident.as_ref().is_some_and(|i| i.fence.failed_proofs >= 3);
            if stuck { unfence(case, "it reads On again and again") } else { case.go(Phase::LastLook) }
        }
        NotProven::TooFewReadings
        | NotProven::NotOff
        | NotProven::NotLinked
        | NotProven::Answered
        | NotProven::Renewed
        | NotProven::SecondProtocol
        | NotProven::Blind => unfence(case, "off could not be proven"),
    }
}

/// The BMC is another machine's: the link is broken, all power freezes, a human is paged (rules 13, 29).
pub(super) fn wrong_machine<R: Rules>(case: &mut Case<'_, R>, seen: Option<MachineId>) {
    case.host.link = Link::Mismatch;
    let shown = seen.map_or_else(|| "another identity".to_owned(), |m| format!("{:032x}", m.0));
    if case.incident.as_ref().is_some_and(|i| i.of_spare() && i.booted_at.is_none()) {
        // No power was touched in this incident: the spare is not what its record says, and everybody else is untouched.
        let sentence = format!("its BMC shows {shown}, which is not the machine in the record");
        return spare::failed(case, Explanation::refusal(29, "identity-mismatch", sentence));
    }
    let touched = case.incident.as_ref().is_some_and(|i| i.fence.off_at.is_some());
    let sent = if touched { "after our off" } else { "nothing was sent to it" };
    raise_alarm(case, format!("the BMC recorded for {} shows {shown}: {sent}", case.host.name));
    if !touched {
        case.host.held_off = None;
    }
    let ours = case
        .incident
        .as_ref()
        .is_some_and(|i| touched && case.host.held_off == Some(i.id) && !i.fence.found_off && !i.of_spare());
    if ours && case.enforces(29) {
        // Whatever our off hit is switched on again, as after any alarm.
        if let Some(incident) = &mut case.incident {
            incident.alarmed = true;
        }
        case.go(Phase::SafeCompletion);
        return;
    }
    step_back(
        case,
        Explanation::refusal(
            29,
            "wrong-machine",
            "its BMC is another machine's: correct the record, then link it again",
        ),
    );
}

/// The BMC gives nothing: a second proof if there is one, else unfenced (rule 27).
pub(super) fn no_bmc<R: Rules>(case: &mut Case<'_, R>, what: &'static str) {
    if case.incident.as_ref().is_some_and(|i| i.proves() || i.drills()) {
        // It is the BMC that was to be shown; outlets would only hide that it was not.
        return unfence(case, what);
    }
    let untouched = case.incident.as_ref().is_some_and(|i| i.fence.off_at.is_none());
    if untouched && case.host.outlets && refused(case, Moment::BeforePower) {
        return;
    }
    if case.host.outlets && case.incident.as_ref().is_none_or(|i| i.fence.failed_proofs <= 2) {
        let now = case.now.elapsed;
        // The first power step of a permit is what counts; the outlets after a force-off belong to the same one.
        let reservation = case.incident.as_ref().and_then(|i| i.reservation.as_ref());
        let first = reservation.is_some_and(|r| r.power_steps == 0);
        if let Some(incident) = &mut case.incident {
            if let Some(reservation) = &mut incident.reservation {
                reservation.power_steps += 1;
            }
            incident.fence.outlets_off = true;
            incident.timings.off_ordered.get_or_insert(now);
            incident.fence.off_at.get_or_insert(now);
            incident.fence.on_deadline = Some(now.plus(case.world.limits.effect_ms + case.world.limits.release_ms));
            incident.fence.failed_proofs += 1;
            case.host.held_off = Some(incident.id);
        }
        if first {
            let rung = case.incident.as_ref().map_or(Rung::PowerCycle, |i| i.current_rung());
            if rung == Rung::Reimage {
                remember(&mut case.host.history.reimages, now, 8);
            } else {
                remember(&mut case.host.history.cycles, now, 16);
            }
            case.acted(rung);
        }
        case.go(Phase::PoweringOff);
        case.order_with_permit(Intent::OutletsOff);
        return;
    }
    unfence(case, what);
}

/// No proof is to be had by the BMC or the outlets: the host is *unfenced*, and a person is told.
pub(super) fn unfence<R: Rules>(case: &mut Case<'_, R>, what: &'static str) {
    if !case.enforces(27)
        && let Ok(proof) = try_prove(case, &[])
    {
        proven(case, proof);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.proves()) {
        return spare::failed(case, Explanation::refusal(27, "not-proven-off", what));
    }
    if case.incident.as_ref().is_some_and(|i| i.drills()) {
        return drill::failed(case, &Explanation::refusal(27, "not-proven-off", what));
    }
    let now = case.now.elapsed;
    if let Some(incident) = &mut case.incident {
        incident.fence.unfenced_since.get_or_insert(now);
    }
    let fresh = case.incident.as_ref().is_some_and(|i| i.phase != Phase::Unfenced);
    if fresh {
        case.go(Phase::Unfenced);
    }
    let why = Explanation::refusal(
        27,
        "unfenced",
        format!("{what}: nothing is released; confirm with the serial that it is off, or cure its BMC"),
    );
    if fresh {
        case.tell(Loudness::Page, why.clone());
    }
    case.wait(why);
}

/// Not provable: re-read every 10 s for ten minutes, then each minute; a person may confirm (rule 27).
pub(super) fn unfenced<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    if case.incident.as_ref().is_some_and(|i| i.fence.human_confirmed.is_some()) {
        match try_prove(case, &[]) {
            Ok(proof) => {
                let id = case.incident.as_ref().map(|i| i.id);
                case.host.held_off = id;
                proven(case, proof);
                return;
            }
            Err(why) => {
                if let Some(incident) = &mut case.incident {
                    incident.fence.human_confirmed = None;
                }
                let sentence =
                    format!("the confirmation does not hold ({why:?}): the host shows life, or we are blind");
                case.tell(Loudness::Page, Explanation::refusal(27, "confirmation-contradicted", sentence));
            }
        }
    }
    let touched = case.incident.as_ref().is_some_and(|i| i.fence.off_at.is_some());
    if (!touched && came_back(case)) || denied(case) {
        return;
    }
    if case.serves_now() && touched {
        // It is back, whatever its BMC says.
        case.go(Phase::AwaitingReady);
        return;
    }
    let since = case.incident.as_ref().and_then(|i| i.fence.unfenced_since).unwrap_or(case.now.elapsed);
    if case.since(since) >= limits.boot_budget_ms
        && let Some(incident) = &mut case.incident
    {
        // A permit does not outlast the boot budget; it is asked for again when the BMC speaks.
        incident.reservation = None;
    }
    let gap = if case.since(since) < limits.reread_fast_ms { limits.reread_ms } else { MINUTE };
    let last = case.incident.as_ref().map_or(since, |i| i.phase_since.max(since));
    if case.since(last) < gap && case.incident.as_ref().is_some_and(|i| i.tries > 0) {
        case.wake_at(last.plus(gap));
        return;
    }
    let bmc_speaks = bmc_silent_since(case.view).is_none();
    let allowed = gate::outside_forbidden(case).is_ok();
    if allowed && (bmc_speaks || case.incident.as_ref().is_some_and(|i| i.tries == 0 || case.since(last) >= gap)) {
        let keep = case.incident.as_ref().and_then(|i| i.wait.clone());
        if let Some(incident) = &mut case.incident {
            incident.phase_since = case.now.elapsed;
        }
        case.order(Intent::ProveOff);
        if let Some(incident) = &mut case.incident {
            incident.wait = keep;
        }
    } else {
        case.wake_in(gap);
    }
}

fn denied<R: Rules>(case: &mut Case<'_, R>) -> bool {
    if case.incident.as_ref().is_some_and(|i| i.denied) {
        if case.incident.as_ref().is_some_and(|i| i.of_spare()) {
            spare::failed(case, Explanation::note("denied", "a person said no"));
            return true;
        }
        case.host.history.declined = true;
        finish::withdraw(case, End::Aborted);
        return true;
    }
    false
}

/// A reading taken while unfenced.
pub(super) fn reread<R: Rules>(case: &mut Case<'_, R>, readings: &[Reading]) {
    let off = readings.iter().any(|r| r.power == Power::Off);
    let on = readings.last().is_some_and(|r| r.power == Power::On);
    if on && let Some(incident) = &mut case.incident {
        // It reads On: whoever confirmed that it is off was mistaken, or it was switched on since.
        incident.fence.human_confirmed = None;
    }
    if on && case.incident.as_ref().is_some_and(|i| i.fence.off_ignored) && case.enforces(27) {
        // It took our off and did nothing: one more is no proof either. What is read On is not held off by us.
        case.host.held_off = None;
        unfence(case, "force-off was accepted without effect");
        return;
    }
    if on {
        if let Some(incident) = &mut case.incident {
            incident.fence.off_at = None;
            incident.fence.found_off = false;
            incident.fence.failed_proofs = 0;
        }
        case.host.held_off = None;
        if let Some(incident) = &mut case.incident {
            incident.reservation = None;
        }
        case.go(Phase::Suspected);
        case.wake_in(1);
        return;
    }
    if off {
        let held = case.host.held_off.is_some() || ours(case);
        if let Some(incident) = &mut case.incident
            && !held
        {
            incident.fence.found_off = true;
            incident.fence.off_at = readings.first().map(|r| r.at);
        }
        match try_prove(case, readings) {
            Ok(proof) => return proven(case, proof),
            Err(NotProven::WrongMachine) => return wrong_machine(case, readings.iter().find_map(|r| r.identity)),
            Err(_) => {}
        }
    }
    unfence(case, "its BMC still gives no proof");
}
