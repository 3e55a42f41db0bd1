//! The power sequence: cordon, last look, off, proof, release, on. Between the look and the off at most 3 s pass;
//! between off and on everything that a crash or a pause could strand has a deadline (rules 25, 45).

use super::begin::next_rung;
use super::unfenced::{no_bmc, not_proven, unfence, wrong_machine};
use super::{drill, finish, reimage, spare};
use crate::assess::NetworkState;
use crate::command::{Intent, LastLook, Loudness};
use crate::decide::Case;
use crate::diagnose::diagnose;
use crate::explain::Explanation;
use crate::fence::{Cause, Expected, NotProven, ProvenOff, Reading, Witnesses, prove};
use crate::gate::{self, Moment};
use crate::rules::Rules;
use crate::scope_watch::raise_alarm;
use crate::signal::{BootStage, Power, Seen, Source};
use crate::time::{Elapsed, SECOND};
use crate::world::host::remember;
use crate::world::incident::{End, Phase, ProofRecord, Rung};
use crate::world::scope::WatchedOff;

/// Back by itself before any off was sent: nothing stronger happens (rule 42).
pub(super) fn came_back<R: Rules>(case: &mut Case<'_, R>) -> bool {
    let untouched = case.incident.as_ref().is_some_and(|i| i.timings.off_ordered.is_none());
    if untouched && diagnose(case).is_none() {
        finish::withdraw(case, End::Aborted);
        return true;
    }
    false
}

/// Sets the cordon; nothing stronger before proof (rule 24).
pub(super) fn cordoning<R: Rules>(case: &mut Case<'_, R>) {
    if came_back(case) || refused(case, Moment::Entering) {
        return;
    }
    let id = case.incident.as_ref().map(|i| i.id);
    let api_away = case.view.sight.api_unreachable(&case.world.limits, case.now);
    if case.host.our_cordon.is_some() || api_away || case.host.assessment.node.is_none() {
        // With the API away a control-plane host is healed uncordoned: there is nobody to tell.
        case.go(Phase::LastLook);
        return;
    }
    case.host.our_cordon = id;
    case.order(Intent::Cordon);
}

/// Asks the whole gate again; if it says no, the permit is given back and the heal waits.
pub(super) fn refused<R: Rules>(case: &mut Case<'_, R>, moment: Moment) -> bool {
    let Some(rung) = case.incident.as_ref().map(|i| i.current_rung()) else { return true };
    match gate::disruptive(case, rung, moment) {
        Ok(()) => false,
        Err(why) => {
            step_back(case, why);
            true
        }
    }
}

/// Gives the permit back and waits in suspicion.
pub(super) fn step_back<R: Rules>(case: &mut Case<'_, R>, why: Explanation) {
    if let Some(incident) = case.incident.as_mut().filter(|i| !i.of_spare()) {
        incident.reservation = None;
    }
    case.go(Phase::Suspected);
    case.wait(why);
}

/// Orders the last look.
pub(super) fn last_look<R: Rules>(case: &mut Case<'_, R>) {
    if came_back(case) || refused(case, Moment::BeforePower) {
        return;
    }
    let slow_bmc = case.incident.as_ref().is_some_and(|i| i.tries > 0);
    case.order(Intent::LastLook { slow_bmc });
}

/// Judges the look and, if it still shows the illness, orders the off in the same decision (rule 1).
pub(super) fn looked<R: Rules>(case: &mut Case<'_, R>, look: &LastLook) {
    let limits = &case.world.limits;
    if let Err(why) = gate::look_confirms(case, look) {
        step_back(case, why);
        return;
    }
    if case.enforces(29) {
        match look.identity {
            Some(machine) if machine.same_machine(case.host.machine) => {}
            Some(machine) => {
                wrong_machine(case, Some(machine));
                return;
            }
            None if case.incident.as_ref().is_some_and(|i| i.tries < 2) => {
                // Once more, with the time that a slow BMC needs.
                case.wake_in(1);
                return;
            }
            None => {
                no_bmc(case, "the BMC showed no identity in the last look");
                return;
            }
        }
    }
    if look.power == Power::Unknown {
        no_bmc(case, "the BMC did not read power in the last look");
        return;
    }
    if case.enforces(1) && case.since(look.last_answer) > limits.command_age_ms {
        if case.incident.as_ref().is_some_and(|i| i.tries >= 6) {
            step_back(
                case,
                Explanation::refusal(
                    1,
                    "look-too-slow",
                    "the last look was never fresh enough: evidence is gathered anew",
                ),
            );
        } else {
            case.wake_in(1);
        }
        return;
    }
    if refused(case, Moment::BeforePower) {
        return;
    }
    let found_off = look.power == Power::Off && !ours(case);
    order_off(case, found_off);
}

/// An Off now is the effect of an off of ours, not somebody else's (rule 31): we hold the host off, or one left so short
/// a time ago that it takes effect only now.
pub(super) fn ours<R: Rules>(case: &Case<'_, R>) -> bool {
    let Some(incident) = &case.incident else { return false };
    if case.host.held_off == Some(incident.id) && !incident.fence.found_off {
        return true;
    }
    let left = incident.fence.our_off;
    left.is_some_and(|at| case.since(at) < case.world.limits.effect_ms)
}

/// Orders force-off (or the take-over of a found Off) under the permit. Counts are reserved in the same commit.
pub(super) fn order_off<R: Rules>(case: &mut Case<'_, R>, found_off: bool) {
    let now = case.now.elapsed;
    let limits = &case.world.limits;
    let Some(incident) = &mut case.incident else { return };
    let rung = incident.current_rung();
    let Some(reservation) = &mut incident.reservation else { return };
    let first = reservation.power_steps == 0;
    if u64::from(reservation.power_steps) >= limits.power_steps_max && case.rules.enforces(crate::rules::Rule(14)) {
        next_rung(case, Explanation::refusal(14, "power-steps-used-up", "six power steps of one permit did not help"));
        return;
    }
    reservation.power_steps += 1;
    incident.cycles += 1;
    incident.fence.found_off = found_off;
    // What a person confirmed was of an off before this one.
    incident.fence.human_confirmed = None;
    incident.fence.off_at.get_or_insert(now);
    incident.fence.on_deadline = Some(now.plus(limits.effect_ms + limits.release_ms));
    incident.timings.off_ordered.get_or_insert(now);
    let id = incident.id;
    let host = case.host.id;
    // A host found off is not held by us: nobody but its own plan, or a person, switches it on (rule 31).
    case.host.held_off = if found_off { case.host.held_off.filter(|held| *held == id) } else { Some(id) };
    if first {
        // Power steps inside a permitted reimage or replacement belong to its permit.
        if rung == Rung::Reimage {
            remember(&mut case.host.history.reimages, now, 8);
        } else {
            remember(&mut case.host.history.cycles, now, 16);
        }
        if !found_off {
            case.acted(rung);
        }
    }
    if !found_off {
        let site = case.site_mut();
        site.watched_off.retain(|w| w.host != host);
        if site.watched_off.len() >= 64 {
            site.watched_off.remove(0);
        }
        site.watched_off.push(WatchedOff { host, incident: id, at: now });
    }
    case.go(Phase::PoweringOff);
    case.order_with_permit(Intent::ForceOff { found_off });
    let what = if found_off { "found off, taken over" } else { "force-off ordered" };
    case.note("off-ordered", format!("{}: {what}", case.host.name));
}

/// The off was ordered and its executor lost: the step is begun again; its precheck reads before it writes.
pub(super) fn powering_off<R: Rules>(case: &mut Case<'_, R>) {
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.reservation.is_none()) {
        let rung = case.incident.as_ref().map_or(Rung::PowerCycle, |i| i.current_rung());
        super::begin::reserve(case, rung);
    }
    // After a restart the host may be back; what was sent is seen by reading, and a living host is not cut again.
    // A spare is switched off because it was started by us, not because it is ill.
    let installing = case.incident.as_ref().is_some_and(|i| i.installed || i.of_spare());
    if case.serves_now() && case.enforces(1) {
        if case.incident.as_ref().is_some_and(|i| i.drills()) {
            // Whether the off left is not known, and what is Ready is not cut again.
            return drill::interrupted(case);
        }
        case.go(Phase::AwaitingReady);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.drills()) && case.host.assessment.power != Power::Off {
        // What of it was sent is not known. It is not sent again: a drill is ordered for now.
        return drill::interrupted(case);
    }
    if !installing {
        // Not a new decision, but the look is: a fence is never completed on old evidence.
        let answering = case.host.assessment.answers();
        if answering && case.host.assessment.power != Power::Off {
            if let Some(incident) = &mut case.incident {
                incident.fence.off_at = None;
                case.host.held_off = None;
            }
            case.go(Phase::LastLook);
            return;
        }
        let rung = case.incident.as_ref().map_or(Rung::PowerCycle, |i| i.current_rung());
        if case.host.assessment.power != Power::Off
            && let Err(why) = gate::still_ill(case, rung)
        {
            case.wait(why);
            return;
        }
    } else if let Err(why) = spare::may_cut(case) {
        if case.incident.as_ref().is_some_and(|i| i.proves()) && why.code != "firmware-task" {
            return spare::failed(case, why);
        }
        case.wait(why);
        return;
    } else if case.incident.as_ref().is_some_and(|i| i.fence.off_at.is_none()) {
        // The off after an install that could not be ordered at once: it counts when it is. Whoever used the wait for a system
        // of his own keeps it.
        if !reimage::brought_back(case) {
            order_off(case, false);
        }
        return;
    }
    let found_off = case.incident.as_ref().is_some_and(|i| i.fence.found_off);
    let ordered = case.incident.as_ref().is_some_and(|i| i.fence.off_at.is_some());
    if ordered && !found_off && case.host.assessment.power == Power::Off && !case.host.assessment.answers() {
        // It took effect: what is left is to read it, which no gate need allow.
        case.go(Phase::Proving);
        return;
    }
    if found_off && let Err(why) = gate::api_answers(case) {
        // Off by others' hands: nothing of ours is half done, and it is not taken over without the API (rule 7).
        case.wait(why);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.fence.off_at.is_none()) {
        // It was put off (pause, observe-only) before it was ordered at all: now it counts.
        order_off(case, found_off);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.fence.outlets_off) {
        // Its executor was lost with the outlets cut, or not: to cut them twice changes nothing.
        case.order_with_permit(Intent::OutletsOff);
        return;
    }
    case.order_with_permit(Intent::ForceOff { found_off });
}

/// The readings of an off step are in: a proof, an alarm, or the reason why not.
pub(super) fn readings<R: Rules>(case: &mut Case<'_, R>, readings: &[Reading], off_sent: Option<Elapsed>) {
    if let (Some(at), Some(incident)) = (off_sent, &mut case.incident) {
        // The executor's own moment is the exact one.
        incident.fence.off_at = Some(at);
        incident.fence.off_left(at);
        incident.fence.found_off = false;
    }
    match try_prove(case, readings) {
        Ok(proof) => proven(case, proof),
        Err(why) => not_proven(case, why, readings),
    }
}

fn cause<R: Rules>(case: &Case<'_, R>, readings: &[Reading]) -> Cause {
    let fence = case.incident.as_ref().map(|i| &i.fence);
    if let Some(at) = fence.and_then(|f| f.human_confirmed) {
        return Cause::Human { at };
    }
    if readings.iter().any(|r| r.source == crate::fence::ReadingSource::Outlets) {
        return Cause::Outlets;
    }
    match fence {
        Some(f) if !f.found_off => Cause::Commanded { at: f.off_at.unwrap_or(case.now.elapsed) },
        _ => Cause::FoundOff { lease: fence.and_then(|f| f.off_at).unwrap_or_default() },
    }
}

pub(super) fn try_prove<R: Rules>(case: &Case<'_, R>, readings: &[Reading]) -> Result<ProvenOff<R>, NotProven> {
    let incident = case.incident.as_ref().map(|i| i.id).unwrap_or_default();
    let expected = Expected { host: case.host.id, incident, machine: case.host.machine, linked: case.linked() };
    let witnesses = Witnesses { evidence: &case.view.evidence, domains: &case.host.domains };
    let cause = cause(case, readings);
    prove(case.rules, expected, cause, readings, witnesses, &case.view.sight, &case.world.limits, case.now)
}

pub(super) fn proven<R: Rules>(case: &mut Case<'_, R>, proof: ProvenOff<R>) {
    let now = case.now.elapsed;
    let limits = &case.world.limits;
    if let Some(incident) = &mut case.incident {
        incident.proof = Some(ProofRecord { at: proof.at(), witness: proof.witness() });
        incident.timings.proven_off.get_or_insert(now);
        incident.fence.unfenced_since = None;
        incident.fence.on_deadline = Some(now.plus(limits.release_ms + limits.effect_ms));
    }
    let sentence = format!("{}: proven off by {:?}", case.host.name, proof.witness());
    case.tell(Loudness::Log, Explanation::note("proven-off", sentence));
    after_proof(case, proof);
}

/// What a proof is for: the release, then the removal of the old identity, then nothing more.
fn after_proof<R: Rules>(case: &mut Case<'_, R>, proof: ProvenOff<R>) {
    if case.incident.as_ref().is_some_and(|i| i.proves()) {
        return spare::off(case);
    }
    let limits = &case.world.limits;
    let node = case.host.assessment.node.is_some();
    if let Some(incident) = case.incident.as_mut().filter(|i| node && i.identity_removed && !i.installed) {
        // Its own system joined again before we cut it: its pods and its Node are to go once more.
        incident.identity_removed = false;
        incident.released = false;
    }
    let Some(incident) = &case.incident else { return };
    let rung = incident.current_rung();
    let api_away = case.view.sight.api_unreachable(limits, case.now);
    let stays_off = rung == Rung::Replace;
    if !incident.released {
        if api_away {
            hold_for_api(case);
            return;
        }
        let id = incident.id;
        case.host.our_taint = Some(id);
        case.go(Phase::Releasing);
        case.order_with_proof(Intent::Release { keep_taint: stays_off }, proof);
        return;
    }
    if matches!(rung, Rung::Reimage | Rung::Replace) && !incident.identity_removed && !case.enforces(41) {
        if let Some(incident) = &mut case.incident {
            incident.identity_removed = true;
        }
        onward(case);
        return;
    }
    let Some(incident) = &case.incident else { return };
    if matches!(rung, Rung::Reimage | Rung::Replace) && !incident.identity_removed {
        let spare_needed = rung == Rung::Replace;
        if spare_needed && !reimage::spare_at_hand(case) {
            return;
        }
        match reimage::etcd_member_to_remove(case) {
            Ok(etcd_member) => {
                case.go(Phase::Rejoining);
                case.order_with_proof(Intent::RemoveIdentity { etcd_member }, proof);
            }
            Err(why) => case.wait(why),
        }
        return;
    }
    onward(case);
}

/// Off, released, identity gone if need be: what comes next on this rung.
pub(super) fn onward<R: Rules>(case: &mut Case<'_, R>) {
    let Some(incident) = &case.incident else { return };
    match incident.current_rung() {
        Rung::Reimage if incident.installed => case.go(Phase::Rejoining),
        Rung::Reimage if incident.identity_removed => case.go(Phase::Arming),
        Rung::Replace if incident.identity_removed => case.go(Phase::Promoting),
        Rung::Reimage | Rung::Replace => case.go(Phase::Proving),
        Rung::Prove => spare::off(case),
        Rung::RestartComponent(_) | Rung::SoftReboot | Rung::PowerCycle | Rung::Human => case.go(Phase::HeldOff),
    }
}

/// The API is away: off for at most ten minutes; a control-plane host without which it cannot answer goes on at once
/// (rule 25).
fn hold_for_api<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    let (now, hold) = (case.now.elapsed, limits.hold_off_ms);
    if case.host.control_plane() {
        case.note(
            "on-for-api",
            format!("{}: powered on right after proof, no endpoint can answer without it", case.host.name),
        );
        case.go(Phase::PoweringOn);
        return;
    }
    if let Some(incident) = &mut case.incident {
        incident.fence.on_deadline = Some(now.plus(hold));
    }
    case.go(Phase::HeldOff);
}

/// Earns a proof anew: after a wait, a restart or a first use.
pub(super) fn proving<R: Rules>(case: &mut Case<'_, R>) {
    let pause = case.world.limits.retry_ms;
    let failed_at = case.incident.as_ref().and_then(|i| i.wait.as_ref()).map(|wait| wait.since);
    if failed_at.is_some_and(|at| case.since(at) < pause) {
        // What just failed is not tried again in the same breath.
        case.wake_in(pause);
        return;
    }
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.fence.human_confirmed.is_some()) {
        match try_prove(case, &[]) {
            Ok(proof) => return after_proof(case, proof),
            Err(_) => return unfence(case, "the confirmation no longer holds"),
        }
    }
    case.order(Intent::ProveOff);
}

/// A release was interrupted (restart, lost executor): the proof is earned again first.
pub(super) fn releasing<R: Rules>(case: &mut Case<'_, R>) {
    case.go(Phase::Proving);
    case.wake_in(1);
}

/// While an off or a release runs: the target speaks = stop, power on, freeze, page (rule 29).
pub(super) fn watch_fence<R: Rules>(case: &mut Case<'_, R>) {
    answers_before_off(case);
    let Some(incident) = &case.incident else { return };
    if incident.phase != Phase::Releasing || !case.enforces(29) {
        return;
    }
    let Some(proof) = incident.proof else { return };
    let evidence = &case.view.evidence;
    let spoke = evidence.last_answer().is_some_and(|at| at > proof.at)
        || evidence.last_renewal().is_some_and(|at| at > proof.at);
    if !spoke || case.host.assessment.network == NetworkState::Silent && evidence.last_renewal() <= Some(proof.at) {
        return;
    }
    let cancel = incident.running.as_ref().map(|r| r.step);
    case.out.cancels.extend(cancel);
    if let Some(incident) = &mut case.incident {
        incident.alarmed = true;
    }
    let sentence = format!("{} speaks although it was proven off: the release stops", case.host.name);
    raise_alarm(case, sentence);
    case.go(Phase::SafeCompletion);
    case.wake_in(SECOND);
}

/// A host that was silent answers while its off is on the way to its BMC: what is not yet sent is not sent (rule 1).
fn answers_before_off<R: Rules>(case: &mut Case<'_, R>) {
    let Some(incident) = case.incident.as_ref().filter(|_| case.enforces(1)) else { return };
    let Some(running) = incident.running.as_ref() else { return };
    let off = matches!(running.intent, Intent::ForceOff { found_off: false });
    let turned = case.before.assessment.network == NetworkState::Silent && case.host.assessment.answers();
    if off && turned {
        let step = running.step;
        case.out.cancels.push(step);
    }
}

/// The soft reboot of a living host (rule 1).
pub(super) fn soft_rebooting<R: Rules>(case: &mut Case<'_, R>) {
    let steps = case.incident.as_ref().and_then(|i| i.reservation.as_ref()).map_or(0, |r| r.power_steps);
    if steps > 0 {
        // Ordered before we were interrupted: what became of it is seen by looking, and it counts once.
        let new_boot = case.host.assessment.node.map(|n| n.boot) != case.incident.as_ref().and_then(|i| i.boot_before);
        // A silence since then, a boot stage or a new boot: the reboot is under way or done, and is not ordered twice.
        let evidence = &case.view.evidence;
        let went = evidence.slot(Source::Icmp).runs().any(|run| run.seen == Seen::Miss && run.count >= 3);
        let booting =
            matches!(case.host.assessment.stage, BootStage::Post | BootStage::OsStarting | BootStage::ShuttingDown);
        if went || booting || (case.host.assessment.node.is_some() && new_boot) {
            case.go(Phase::AwaitingReady);
            return;
        }
        if let Err(why) = gate::outside_forbidden(case) {
            case.wait(why);
            return;
        }
        case.order_with_permit(Intent::SoftReboot);
        return;
    }
    if came_back(case) || refused(case, Moment::BeforePower) {
        return;
    }
    let now = case.now.elapsed;
    if let Some(incident) = &mut case.incident {
        incident.cycles += 1;
        incident.soft_rebooted = true;
        if let Some(reservation) = &mut incident.reservation {
            reservation.power_steps += 1;
        }
    }
    remember(&mut case.host.history.cycles, now, 16);
    case.acted(Rung::SoftReboot);
    case.order_with_permit(Intent::SoftReboot);
}

/// The second off of a permitted reimage: the installer is done or failed, and waits for the power (rule 14: it belongs
/// to the permit).
pub(super) fn order_off_again<R: Rules>(case: &mut Case<'_, R>) {
    if reimage::brought_back(case) {
        return;
    }
    if case.serves_now() {
        // Somebody brought it back by hand meanwhile: what is Ready is never taken down for an install.
        case.note("brought-back", format!("{}: Ready, though not by our install: nothing is cut", case.host.name));
        case.go(Phase::AwaitingReady);
        return;
    }
    case.go(Phase::PoweringOff);
    if let Some(incident) = &mut case.incident {
        incident.fence.off_at = None;
        incident.fence.failed_proofs = 0;
        incident.fence.human_confirmed = None;
    }
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    if let Err(why) = spare::may_cut(case) {
        // In `powering_off` it is asked again, and ended there if it is a proof.
        case.wait(why);
        return;
    }
    order_off(case, false);
}
