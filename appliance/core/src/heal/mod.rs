//! The heal of one host: from suspicion up the ladder to the one end. Each phase waits for a result, for evidence or for
//! its deadline; nothing waits without a reason.

mod back;
mod begin;
mod drill;
mod finish;
mod power;
mod power_on;
mod reimage;
mod result;
mod safe;
mod spare;
mod start_cold;
mod unfenced;

pub(crate) use reimage::install_report;
pub(crate) use result::result;

use crate::command::Loudness;
use crate::decide::Case;
use crate::diagnose::diagnose;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::world::host::Lifecycle;
use crate::world::incident::{End, Incident, Phase};

/// Takes the incident of a host as far as it goes now.
pub(crate) fn advance<R: Rules>(case: &mut Case<'_, R>) {
    open_if_ill(case);
    // A phase may lead straight into the next; the bound only guards against a circle.
    for _ in 0..8 {
        let Some((phase, running)) = case.incident.as_ref().map(|i| (i.phase, i.running.is_some())) else { break };
        if running {
            watch_running(case);
        } else {
            step(case, phase);
        }
        let stays = case.incident.as_ref().is_none_or(|i| i.phase == phase);
        if stays {
            break;
        }
    }
    speak(case);
}

fn open_if_ill<R: Rules>(case: &mut Case<'_, R>) {
    if case.incident.is_some() {
        // While it is only suspected, the phase itself looks again and plans anew.
        return;
    }
    if case.host.lifecycle != Lifecycle::InService || !case.host.serves() {
        // An order is for now.
        case.host.history.drill_ordered = false;
        spare::open_if_due(case);
        return;
    }
    if drill::open_if_ordered(case) {
        return;
    }
    if case.host.history.returned {
        begin::open_return(case);
        return;
    }
    let begun = case.host.history.seen_healthy || !case.enforces(9);
    let cold = start_cold::named(case);
    if (!begun && !cold) || case.host.history.declined {
        return;
    }
    if let Some(diagnosis) = diagnose(case) {
        case.open_incident(diagnosis);
        case.note("suspected", format!("{}: {diagnosis:?} is suspected", case.host.name));
    }
}

fn step<R: Rules>(case: &mut Case<'_, R>, phase: Phase) {
    if reimage::closes_ticket(case, phase) || declined(case, phase) {
        return;
    }
    if safe::completes(case) {
        return;
    }
    if back::untaints(case, phase) {
        return;
    }
    let (of_spare, proves) = case.incident.as_ref().map_or((false, false), |i| (i.of_spare(), i.proves()));
    let drills = case.incident.as_ref().is_some_and(Incident::drills);
    match phase {
        Phase::Suspected | Phase::Cordoning | Phase::LastLook | Phase::Unfenced if drills => drill::interrupted(case),
        Phase::Suspected | Phase::Cordoning | Phase::LastLook if of_spare => spare::interrupted(case),
        Phase::Unfenced if proves => spare::interrupted(case),
        Phase::Suspected => begin::suspected(case),
        Phase::Restarting => begin::restarting(case),
        Phase::ComponentCure => begin::component_cure(case),
        Phase::Cordoning => power::cordoning(case),
        Phase::LastLook => power::last_look(case),
        Phase::SoftRebooting => power::soft_rebooting(case),
        Phase::PoweringOff => power::powering_off(case),
        Phase::Proving => power::proving(case),
        Phase::Unfenced => unfenced::unfenced(case),
        Phase::Releasing => power::releasing(case),
        Phase::HeldOff => power_on::held_off(case),
        Phase::PoweringOn => power_on::powering_on(case),
        Phase::Arming => reimage::arming(case),
        Phase::Installing => reimage::installing(case),
        Phase::Rejoining => reimage::rejoining(case),
        Phase::Promoting => reimage::promoting(case),
        Phase::AwaitingReady => back::awaiting_ready(case),
        Phase::Soaking => back::soaking(case),
        Phase::Canary => back::canary(case),
        Phase::Returning => back::returning(case),
        Phase::Withdrawing => finish::withdrawing(case),
        Phase::SafeCompletion => safe::completing(case),
        Phase::GivingUp => finish::giving_up(case),
        Phase::Concluding => spare::concluding(case),
    }
}

/// A person said no to the ladder while nothing runs: it ends, and a host that we hold off is started. Where the host is on its
/// way up already, that is seen through first.
fn declined<R: Rules>(case: &mut Case<'_, R>, phase: Phase) -> bool {
    let stands = match phase {
        Phase::Cordoning
        | Phase::LastLook
        | Phase::PoweringOff
        | Phase::Proving
        | Phase::HeldOff
        | Phase::Arming
        | Phase::Rejoining => true,
        // A spare that starts already is on its way.
        Phase::Promoting => case.incident.as_ref().is_some_and(|i| i.booted_at.is_none()),
        Phase::PoweringOn => power_on::may_start_found_off(case).is_err(),
        _ => false,
    };
    let heals = case.incident.as_ref().is_some_and(|i| i.denied && !i.of_spare() && !i.drills());
    if !(stands && heals) {
        return false;
    }
    case.note("denied", format!("{}: a person said no: its ladder ends here", case.host.name));
    case.host.history.declined = true;
    finish::withdraw(case, End::Aborted);
    true
}

/// A step is under way. One whose executor has not answered in time is asked for again; its precheck re-observes.
fn watch_running<R: Rules>(case: &mut Case<'_, R>) {
    safe::interrupt(case);
    power::watch_fence(case);
    back::watch_soak(case);
    let now = case.now.elapsed;
    if let Some(incident) = &mut case.incident
        && let Some((step, deadline)) = incident.running.as_ref().map(|r| (r.step, r.deadline))
    {
        if now >= deadline {
            // Only one executor may work on a step: the late one is told to stop.
            case.out.cancels.push(step);
            incident.executor_lost(now);
            case.wake_in(1);
        } else {
            case.wake_at(deadline);
        }
    }
}

/// No incident is silent for more than ten minutes (rule 55).
fn speak<R: Rules>(case: &mut Case<'_, R>) {
    let page_ms = case.world.limits.page_ms;
    let Some(incident) = &case.incident else { return };
    let due = incident.last_word.plus(page_ms);
    if case.now.elapsed < due || !case.enforces(55) {
        case.wake_at(due);
        return;
    }
    let (loudness, explanation) = match &incident.wait {
        Some(wait) => (Loudness::Page, wait.why.clone()),
        // The same step again and again is a wait too, whatever runs at this moment.
        None if incident.tries >= 3 || incident.fence.failed_proofs >= 3 => (
            Loudness::Page,
            Explanation::note(
                "still-trying",
                format!("{}: {:?} was tried {} times without success", case.host.name, incident.phase, incident.tries),
            ),
        ),
        None => (
            Loudness::Log,
            Explanation::note(
                "still-healing",
                format!("{}: {:?}, {:?}", case.host.name, incident.diagnosis, incident.phase),
            ),
        ),
    };
    if loudness == Loudness::Page
        && let Some(wait) = case.incident.as_mut().and_then(|i| i.wait.as_mut())
    {
        wait.paged_at = Some(case.now.elapsed);
    }
    case.tell(loudness, explanation);
    if let Some(incident) = &mut case.incident {
        incident.last_word = case.now.elapsed;
    }
    case.wake_in(page_ms);
}

/// Ends with all that belongs to an end: counts, canaries, versions.
pub(crate) fn end<R: Rules>(case: &mut Case<'_, R>, end: End) {
    let tried =
        case.incident.as_ref().is_some_and(|i| i.timings.off_ordered.is_some() || i.installed || i.ticket_at.is_some());
    // A spare that failed belongs to the heal that wanted it, which counts its own end.
    let counts = end != End::Quarantined || case.incident.as_ref().is_some_and(|i| !i.of_spare());
    crate::gate::heal_ended(case, end, tried && counts);
    crate::gate::care_ended(case, end);
    unpromise(case);
    case.end_incident(end);
}

/// A spare that was promised and not taken is free again. Whether it was touched is shown by its next proof.
fn unpromise<R: Rules>(case: &mut Case<'_, R>) {
    let Some((id, Some(spare))) = case.incident.as_ref().map(|i| (i.id, i.spare)) else { return };
    let promised = case.world.host(spare).is_some_and(|other| other.history.promised == Some(id));
    if promised && let Some(other) = case.other_mut(spare) {
        other.history.promised = None;
        other.spare_proof = None;
    }
}
