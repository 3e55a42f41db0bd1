//! Results of steps: what each means for the plan.

use super::begin::next_rung;
use super::{back, power, reimage, safe, spare, unfenced};
use crate::command::{Failure, Intent, Loudness, StepResult};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::fence::Reading;
use crate::gate;
use crate::rules::Rules;
use crate::time::SECOND;
use crate::world::host::Link;
use crate::world::incident::{Phase, Rung};

/// Takes the result of the step that was awaited.
pub(crate) fn result<R: Rules>(case: &mut Case<'_, R>, intent: Intent, result: &StepResult) {
    match result {
        StepResult::AlreadySo if started_by_others(case, intent) => {
            spare::failed(case, Explanation::refusal(31, "not-off", "it is on, and not by us: somebody uses it"));
        }
        StepResult::AlreadySo if off_may_follow(case, intent) => {
            if let Some(incident) = &mut case.incident {
                incident.failed_at = Some(case.now.elapsed);
                incident.failed_step = Some(intent);
            }
            case.wait(Explanation::refusal(
                30,
                "off-may-follow",
                "it reads On, and an off of ours may still take effect: it is read again before it is left",
            ));
        }
        StepResult::Done | StepResult::AlreadySo => done(case, intent),
        StepResult::Looked(look) => power::looked(case, look),
        StepResult::Readings { readings, off_sent } => read(case, readings, *off_sent),
        StepResult::Failed { why, readings, sent } => failed(case, intent, *why, readings, *sent),
    }
}

/// A stopped fence is being undone, and its off left so short a time ago that the On that was read may be from before its effect.
fn off_may_follow<R: Rules>(case: &Case<'_, R>, intent: Intent) -> bool {
    let undone = case.incident.as_ref().filter(|i| matches!(i.phase, Phase::SafeCompletion | Phase::Withdrawing));
    let left = undone.and_then(|i| i.fence.our_off);
    matches!(intent, Intent::PowerOn { .. }) && left.is_some_and(|at| case.since(at) < case.world.limits.effect_ms)
}

/// A spare that was to be switched on is on, and no on of ours left: rule 31's change by others.
fn started_by_others<R: Rules>(case: &Case<'_, R>, intent: Intent) -> bool {
    let on = matches!(intent, Intent::PowerOn { alarm: false });
    on && case.enforces(31) && case.incident.as_ref().is_some_and(|i| i.of_spare() && i.fence.our_on.is_none())
}

fn read<R: Rules>(case: &mut Case<'_, R>, readings: &[Reading], off_sent: Option<crate::time::Elapsed>) {
    match case.incident.as_ref().map(|i| i.phase) {
        Some(Phase::Unfenced) => unfenced::reread(case, readings),
        Some(Phase::PoweringOff | Phase::Proving) => power::readings(case, readings, off_sent),
        // A late reading after the phase was left (pause, alarm) changes nothing.
        _ => {}
    }
}

fn done<R: Rules>(case: &mut Case<'_, R>, intent: Intent) {
    let now = case.now.elapsed;
    let phase = case.incident.as_ref().map(|i| i.phase);
    match intent {
        Intent::Cordon => case.go(Phase::LastLook),
        Intent::RestartComponent(_) => case.go(Phase::ComponentCure),
        Intent::SoftReboot => {
            if let Some(incident) = &mut case.incident {
                incident.booted_at = Some(now);
            }
            case.go(Phase::AwaitingReady);
        }
        Intent::Release { keep_taint } => {
            if !keep_taint {
                case.host.our_taint = None;
            }
            released(case);
        }
        Intent::PowerOn { .. } => powered_on(case),
        Intent::ArmBoot(_) | Intent::ArmProof(_) => {
            if let Some(incident) = &mut case.incident {
                incident.ticket_at = Some(now);
            }
            case.go(Phase::PoweringOn);
        }
        Intent::CloseTicket(_) => ticket_closed(case),
        Intent::RemoveIdentity { .. } => {
            if let Some(incident) = &mut case.incident {
                incident.identity_removed = true;
            }
            // They went with the Node.
            case.host.our_taint = None;
            case.host.our_cordon = None;
            power::onward(case);
        }
        Intent::MintCredential(_) => case.go(Phase::PoweringOn),
        Intent::Promote(_) => spare::promoted(case),
        Intent::Canary => case.go(Phase::Returning),
        Intent::Return => back::returned_to_service(case),
        Intent::Withdraw { uncordon } => {
            case.host.our_taint = None;
            if uncordon {
                case.host.our_cordon = None;
            }
            if let Some(incident) = &mut case.incident
                && phase == Some(Phase::PoweringOn)
            {
                incident.tries = 0;
            }
        }
        // These end in readings or a look, never in a plain done.
        Intent::LastLook { .. } | Intent::ForceOff { .. } | Intent::ProveOff | Intent::OutletsOff => {}
    }
}

fn released<R: Rules>(case: &mut Case<'_, R>) {
    let now = case.now.elapsed;
    if let Some(incident) = &mut case.incident {
        incident.released = true;
        incident.timings.released.get_or_insert(now);
    }
    case.note("released", format!("{}: its pods and volumes are released", case.host.name));
    power::onward(case);
}

fn powered_on<R: Rules>(case: &mut Case<'_, R>) {
    let now = case.now.elapsed;
    case.host.held_off = None;
    let Some(incident) = &mut case.incident else { return };
    incident.timings.power_on.get_or_insert(now);
    incident.booted_at = Some(now);
    incident.fence.outlets_off = false;
    incident.fence.our_off = None;
    incident.fence.our_on = None;
    if let Some(reservation) = &mut incident.reservation {
        reservation.read_on = true;
    }
    match incident.phase {
        Phase::SafeCompletion => safe::over(case),
        Phase::Withdrawing => {}
        _ if incident.ticket_at.is_some() && !incident.installed => {
            let early = incident.early_report.take();
            case.go(Phase::Installing);
            if let Some(report) = early {
                reimage::install_report(case, report);
            }
        }
        _ => case.go(Phase::AwaitingReady),
    }
}

fn failed<R: Rules>(case: &mut Case<'_, R>, intent: Intent, why: Failure, readings: &[Reading], sent: bool) {
    if why == Failure::WrongMachine {
        let seen = readings.iter().rev().find_map(|r| r.identity);
        if !matches!(intent, Intent::Promote(_)) {
            unfenced::wrong_machine(case, seen);
            return;
        }
    }
    if let (true, Intent::ForceOff { found_off: false }, Some(incident)) = (sent, intent, &mut case.incident) {
        incident.fence.off_left(case.now.elapsed);
    }
    if let (true, Intent::PowerOn { .. }, Some(incident)) = (sent, intent, &mut case.incident)
        && incident.of_spare()
    {
        incident.fence.our_on = Some(case.now.elapsed);
    }
    if let Some(incident) = case.incident.as_mut().filter(|_| intent.tried_again()) {
        incident.failed_at = Some(case.now.elapsed);
        incident.failed_step = Some(intent);
    }
    let refused = |code, what: &str| Explanation::note(code, format!("{what} ({why:?}): tried again"));
    let phase = case.incident.as_ref().map(|i| i.phase);
    match intent {
        Intent::Cordon => match why {
            Failure::ApiSilent if case.host.control_plane() => case.go(Phase::LastLook),
            _ => back_to_suspicion(
                case,
                Explanation::refusal(7, "cordon-failed", format!("the cordon could not be set ({why:?})")),
            ),
        },
        Intent::LastLook { .. } => {
            back_to_suspicion(case, Explanation::refusal(1, "look-failed", format!("the last look failed ({why:?})")));
        }
        Intent::RestartComponent(_) => {
            next_rung(
                case,
                Explanation::refusal(53, "restart-failed", format!("the agent could not restart it ({why:?})")),
            );
        }
        Intent::SoftReboot => {
            next_rung(
                case,
                Explanation::note("soft-reboot-failed", format!("the orderly reboot was not accepted ({why:?})")),
            );
        }
        Intent::ForceOff { .. } => off_failed(case, why, readings, sent),
        Intent::ProveOff => match case.incident.as_ref().map(|i| i.phase) {
            Some(Phase::Unfenced) => unfenced::reread(case, readings),
            _ => power::readings(case, readings, None),
        },
        Intent::OutletsOff if matches!(why, Failure::Answered | Failure::Cancelled) && !sent => {
            if let Some(incident) = case.incident.as_mut().filter(|incident| incident.tries <= 1) {
                // Its first try did not leave; of a later one the executor that was lost may have cut them.
                incident.fence.outlets_off = false;
            }
            off_failed(case, why, readings, false);
        }
        Intent::OutletsOff => unfenced::unfence(case, "its outlets could not be switched off and read"),
        Intent::Release { .. } => release_failed(case, why),
        Intent::PowerOn { .. } => {
            case.wait(Explanation::refusal(
                30,
                "power-on-failed",
                format!("it could not be switched on ({why:?}): tried again"),
            ));
            case.wake_in(10 * SECOND);
        }
        Intent::ArmBoot(_) | Intent::ArmProof(_) => {
            if case.incident.as_ref().is_some_and(|i| i.tries >= 2) {
                next_rung(
                    case,
                    Explanation::refusal(
                        34,
                        "boot-not-set",
                        format!("one-shot network boot could not be set ({why:?})"),
                    ),
                );
            } else {
                case.wait(refused("arm-failed", "one-shot network boot was not set"));
            }
        }
        Intent::RemoveIdentity { .. } => {
            case.go(Phase::Proving);
            case.wait(Explanation::refusal(
                41,
                "identity-stays",
                format!("the old identity could not be removed ({why:?}): tried again"),
            ));
        }
        Intent::MintCredential(_) if why == Failure::CameBack => reimage::node_is_back(case),
        Intent::MintCredential(_) if why == Failure::ApiRefused && refused_long(case) => reimage::cannot_join(case),
        Intent::MintCredential(_) => case.wait(refused("mint-failed", "the join credential could not be minted")),
        Intent::Promote(spare) => {
            if why == Failure::WrongMachine
                && let Some(other) = case.other_mut(spare)
            {
                other.link = Link::Mismatch;
            }
            let tries = case.incident.as_ref().map_or(0, |i| i.tries);
            if tries >= 3 || why == Failure::WrongMachine {
                case.tell(
                    Loudness::Page,
                    Explanation::refusal(43, "spare-failed", format!("the spare could not be started ({why:?})")),
                );
                case.go(Phase::GivingUp);
            } else {
                case.wait(refused("promote-failed", "the spare could not be started"));
            }
        }
        Intent::Canary => match why {
            Failure::CanaryFailed => back::canary_failed(case),
            _ => case.wait(refused("canary-unread", "the canary could not be run")),
        },
        Intent::Return => case.wait(refused("return-failed", "labels or cordon could not be restored")),
        Intent::Withdraw { .. } => {
            case.wait(Explanation::refusal(
                26,
                "marks-stay",
                format!("our marks could not be removed ({why:?}): tried again"),
            ));
        }
        Intent::CloseTicket(_) if matches!(phase, Some(Phase::Concluding | Phase::GivingUp)) => ticket_closed(case),
        Intent::CloseTicket(_) if ticket_is_over(case) => ticket_closed(case),
        // With it open the host would be written as soon as it is on: it is not switched on before.
        Intent::CloseTicket(_) => {
            case.wait(refused("ticket-stays", "its boot ticket could not be closed"));
            case.wake_in(10 * SECOND);
        }
    }
}

fn ticket_closed<R: Rules>(case: &mut Case<'_, R>) {
    let Some(incident) = &mut case.incident else { return };
    incident.ticket_open = false;
    incident.ticket_at = None;
    match incident.phase {
        Phase::Concluding | Phase::GivingUp => incident.job = None,
        // It was stopped on its way to the installer: if it may go on, that is by another job, under a new proof.
        Phase::Arming | Phase::PoweringOn => case.go(Phase::Proving),
        _ => {}
    }
}

/// The ticket that cannot be closed has run out by itself: whoever has not said hello within its time is not answered.
fn ticket_is_over<R: Rules>(case: &Case<'_, R>) -> bool {
    let opened = case.incident.as_ref().map(|i| i.ticket_at.unwrap_or(i.phase_since));
    opened.is_some_and(|at| case.since(at) >= case.world.limits.ticket_ms)
}

/// What this phase needs is refused for as long as rule 25 gives a release.
fn refused_long<R: Rules>(case: &Case<'_, R>) -> bool {
    case.incident.as_ref().is_some_and(|i| case.since(i.phase_since) >= case.world.limits.release_ms)
}

fn back_to_suspicion<R: Rules>(case: &mut Case<'_, R>, why: Explanation) {
    if let Some(incident) = case.incident.as_mut().filter(|i| !i.of_spare()) {
        incident.reservation = None;
    }
    case.go(Phase::Suspected);
    case.wait(why);
}

fn off_failed<R: Rules>(case: &mut Case<'_, R>, why: Failure, readings: &[Reading], sent: bool) {
    if !sent {
        // Nothing left: the host is as it was, unless its outlets are cut.
        let outlets_off = case.incident.as_ref().is_some_and(|i| i.fence.outlets_off);
        if !outlets_off {
            case.host.held_off = None;
        }
        if let Some(incident) = case.incident.as_mut().filter(|_| !outlets_off) {
            incident.fence.off_at = None;
            if incident.cycles <= 1 {
                incident.timings.off_ordered = None;
            }
        }
        let id = case.host.id;
        if case.site().watched_off.iter().any(|w| w.host == id) {
            case.site_mut().watched_off.retain(|w| w.host != id);
        }
    }
    let why_cancelled = why == Failure::Cancelled;
    match why {
        Failure::Cancelled if sent => {
            case.go(Phase::Proving);
            case.wake_in(SECOND);
        }
        Failure::Cancelled if gate::paused_here(case).is_err() => {
            back_to_suspicion(case, Explanation::refusal(49, "paused", "a person paused it before the off was sent"))
        }
        Failure::Answered | Failure::Cancelled => {
            let why = Explanation::refusal(
                1,
                "answered",
                "it answered right before the off: nothing was sent, it is watched anew",
            );
            let why = match gate::ordered_to_stop(case) {
                Err(ordered) if why_cancelled => ordered,
                _ => why,
            };
            back_to_suspicion(case, why);
        }
        Failure::FirmwareTask => {
            back_to_suspicion(
                case,
                Explanation::refusal(
                    33,
                    "firmware-task",
                    "the BMC reports a shutdown or a firmware task: no power now",
                ),
            );
        }
        Failure::ForeignChange => {
            case.host.held_off = None;
            back_to_suspicion(
                case,
                Explanation::refusal(31, "foreign-power", "somebody else changed its power: looked at again"),
            );
        }
        Failure::NoEffect => {
            if let Some(incident) = &mut case.incident {
                incident.fence.off_ignored = true;
            }
            unfenced::no_bmc(case, "force-off was accepted without effect");
        }
        Failure::BmcRefused => unfenced::unfence(case, "its BMC refuses our credential"),
        _ if sent && !readings.is_empty() => power::readings(case, readings, None),
        _ => unfenced::no_bmc(case, "its BMC did not answer"),
    }
}

/// The release has failed for as long as rule 25 keeps a host off: whatever hinders it will hinder it again. Only a host
/// that is to be started anyway is started without its release: of one that is reimaged or replaced the pods must be gone
/// first (rule 36).
fn refused_for_good<R: Rules>(case: &mut Case<'_, R>) -> bool {
    let (now, patience) = (case.now.elapsed, case.world.limits.release_ms);
    let Some(incident) = &mut case.incident else { return false };
    let since = *incident.fence.refused_since.get_or_insert(now);
    incident.current_rung() == Rung::PowerCycle && now >= since.plus(patience)
}

fn release_failed<R: Rules>(case: &mut Case<'_, R>, why: Failure) {
    let now = case.now.elapsed;
    // Whether the taint went is not told here: it is taken for ours until we saw it go (rule 26).
    match why {
        Failure::TaintStays => released(case),
        Failure::CameBack | Failure::ForeignChange => {
            case.host.held_off = None;
            if let Some(incident) = &mut case.incident {
                incident.booted_at = Some(now);
            }
            let why = Explanation::refusal(
                31,
                "came-back",
                "its power came back during the release, not by us: the release stopped",
            );
            case.tell(Loudness::Page, why);
            case.go(Phase::AwaitingReady);
        }
        Failure::ApiSilent => {
            let hold = case.world.limits.hold_off_ms;
            if let Some(incident) = &mut case.incident {
                let deadline = incident.fence.off_at.unwrap_or(now).plus(hold);
                incident.fence.on_deadline = Some(deadline);
            }
            case.go(Phase::HeldOff);
        }
        Failure::NotReleased => {
            let rung = case.incident.as_ref().map(|i| i.current_rung());
            let why = Explanation::refusal(25, "not-released", "its pods or volumes were not gone within 2 min");
            if matches!(rung, Some(Rung::Reimage | Rung::Replace)) {
                // Pods released is a precondition of a reimage (rule 36): tried again under a new proof.
                if case.incident.as_ref().is_some_and(|i| i.fence.failed_proofs >= 3) {
                    next_rung(case, why);
                } else {
                    if let Some(incident) = &mut case.incident {
                        incident.fence.failed_proofs += 1;
                    }
                    case.go(Phase::Proving);
                    case.wait(why);
                }
            } else {
                case.tell(Loudness::Log, why);
                case.go(Phase::PoweringOn);
            }
        }
        Failure::Cancelled => case.go(Phase::Proving),
        Failure::ApiRefused | Failure::BmcSilent if refused_for_good(case) => {
            let what = format!("its pods and volumes cannot be released ({why:?}): it is started without");
            case.tell(Loudness::Page, Explanation::refusal(25, "release-refused", what));
            case.go(Phase::PoweringOn);
        }
        _ => {
            if let Some(incident) = &mut case.incident {
                incident.fence.failed_proofs = incident.fence.failed_proofs.saturating_add(1);
            }
            case.go(Phase::Proving);
            case.wait(Explanation::refusal(
                25,
                "release-failed",
                format!("its pods and volumes could not be released ({why:?}): tried again under a new proof"),
            ));
        }
    }
}
