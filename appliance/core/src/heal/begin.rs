//! From suspicion to the first act, and the component rung.

use super::finish;
use crate::command::{Intent, Loudness};
use crate::decide::Case;
use crate::diagnose::diagnose;
use crate::explain::Explanation;
use crate::gate::{self, Moment};
use crate::plan::ladder;
use crate::rules::Rules;
use crate::signal::Source;
use crate::time::{MINUTE, SECOND};
use crate::world::host::remember;
use crate::world::incident::{Diagnosis, End, Phase, Reservation, Rung};

/// Evidence gathers. The diagnosis may still change, and the ladder with it.
pub(super) fn suspected<R: Rules>(case: &mut Case<'_, R>) {
    let diagnosis = diagnose(case);
    let Some(diagnosis) = diagnosis else { return well_again(case) };
    if case.incident.as_ref().is_some_and(|i| i.denied) {
        case.host.history.declined = true;
        finish::withdraw(case, End::Aborted);
        return;
    }
    replan(case, diagnosis);
    confirm(case);
    look_again(case);
    if super::start_cold::takes_over(case) {
        return;
    }
    let Some(rung) = case.incident.as_ref().map(|i| i.current_rung()) else { return };
    match rung {
        Rung::RestartComponent(component) => match gate::restart_allowed(case, component) {
            Ok(()) => case.go(Phase::Restarting),
            Err(why) if matches!(why.code.as_ref(), "no-agent" | "restarts-used-up") => next_rung(case, why),
            Err(why) => case.wait(why),
        },
        Rung::SoftReboot | Rung::PowerCycle | Rung::Reimage | Rung::Replace => enter(case, rung),
        Rung::Prove | Rung::Human => human(case, diagnosis),
    }
}

/// Nothing is wrong with it any more. By itself, before anything was done to it: that is all. But a host that runs another boot
/// since its power was cut comes back by the long way, soak and canary, and stays cordoned until then: also one that was
/// given up for a boot too late, or on which no pod would run (rule 42).
fn well_again<R: Rules>(case: &mut Case<'_, R>) {
    let boot = case.host.assessment.node.map(|node| node.boot);
    // What its Node said before the off says nothing about the boot that runs now; nor does its boot if it was proven off.
    let heard = case.view.evidence.slot(Source::Node).latest().map(|run| run.last);
    let ready = case.host.ready();
    let cut = case.incident.as_ref().is_some_and(|i| {
        let still = |off| ready && boot.is_some() && boot == i.boot_before && heard.is_some_and(|at| at > off);
        i.timings.off_ordered.is_some_and(|off| i.timings.proven_off.is_some() || !still(off))
    });
    if !cut || !case.enforces(42) {
        finish::withdraw(case, End::Aborted);
        return;
    }
    if let Some(incident) = &mut case.incident {
        incident.reservation = None;
    }
    case.go(Phase::AwaitingReady);
}

/// The ladder of a diagnosis without rungs that cannot be begun here: no disk is named, none is written (rule 36).
fn usable<R: Rules>(case: &Case<'_, R>, diagnosis: Diagnosis) -> Vec<Rung> {
    let pool_nodes = case.world.tallies.pools.get(&case.host.pool).map_or(0, |t| t.nodes);
    let mut rungs = ladder(diagnosis, &case.host, case.pool(), pool_nodes);
    let disk = case.host.disk.is_some() || !case.enforces(36);
    rungs.retain(|rung| *rung != Rung::Reimage || disk);
    rungs
}

/// The ladder of the diagnosis, keeping the rungs already tried. Once the host was acted on, only a rung that did not cure
/// plans anew.
fn replan<R: Rules>(case: &mut Case<'_, R>, diagnosis: Diagnosis) {
    let wanted = usable(case, diagnosis);
    let Some(incident) = &mut case.incident else { return };
    let changed = incident.diagnosis != diagnosis;
    incident.diagnosis = diagnosis;
    let untouched = incident.rung == 0 || incident.timings.permitted.is_none();
    if incident.rungs.is_empty() || (changed && incident.rung == 0) {
        incident.rungs = wanted;
        incident.rung = 0;
    } else if changed && untouched {
        // A kernel that dies is often a dead kubelet first, whose own rungs were left since nobody there could climb them.
        let mut rungs: Vec<Rung> = incident.rungs.iter().take(incident.rung).copied().collect();
        let onward = onward(&rungs, wanted);
        // A diagnosis that offers nothing more is no reason to give up what was planned.
        if onward.iter().any(|rung| *rung != Rung::Human) {
            rungs.extend(onward);
            incident.rungs = rungs;
        }
    }
}

/// What of a ladder is still to be climbed: a weaker rung than the last is never gone back to; the same one only if the ladder
/// names it once more.
fn onward(tried: &[Rung], ladder: Vec<Rung>) -> Vec<Rung> {
    let mut used = tried.to_vec();
    let fresh = ladder.into_iter().filter(|rung| {
        if let Some(at) = used.iter().position(|u| u == rung) {
            used.remove(at);
            return false;
        }
        tried.last().is_none_or(|last| rung >= last)
    });
    fresh.collect()
}

/// Notes when two planes agree.
fn confirm<R: Rules>(case: &mut Case<'_, R>) {
    let confirmed = gate::confirmed(case);
    let now = case.now.elapsed;
    if let Some(incident) = &mut case.incident
        && confirmed
        && incident.timings.confirmed.is_none()
    {
        incident.timings.confirmed = Some(now);
        let sentence = format!("{}: two planes agree on {:?}", case.host.name, incident.diagnosis);
        case.note("confirmed", sentence);
    }
}

/// Looks each second for the first minute: the time to confirm is the time that counts.
fn look_again<R: Rules>(case: &mut Case<'_, R>) {
    let Some(since) = case.incident.as_ref().map(|i| i.phase_since) else { return };
    if case.since(since) < MINUTE {
        case.wake_in(SECOND);
    }
}

/// Asks the gate and takes the permit.
fn enter<R: Rules>(case: &mut Case<'_, R>, rung: Rung) {
    if let Err(why) = gate::disruptive(case, rung, Moment::Entering) {
        let used_up =
            matches!(why.code.as_ref(), "cycles-used-up" | "reimages-used-up" | "no-etcd-access" | "version-stopped");
        if used_up {
            next_rung(case, why);
        } else {
            case.wait(why);
        }
        return;
    }
    gate::become_canary(case);
    reserve(case, rung);
    case.go(if rung == Rung::SoftReboot { Phase::SoftRebooting } else { Phase::Cordoning });
}

/// Reserves: what a permit is earned from. It counts from this commit on, before any effect (rules 14, 44).
pub(super) fn reserve<R: Rules>(case: &mut Case<'_, R>, rung: Rung) {
    if case.incident.as_ref().is_some_and(|i| i.proves()) {
        let nothing = super::spare::nothing_reserved(case.host.pool, case.now.elapsed);
        if let Some(incident) = &mut case.incident {
            incident.reservation = Some(nothing);
        }
        return;
    }
    let reservation = Reservation {
        rung,
        at: case.now.elapsed,
        cluster: case.host.cluster,
        pool: case.host.pool,
        domains: case.host.domains.clone(),
        control_plane: case.host.control_plane(),
        storage: case.host.storage,
        read_on: false,
        power_steps: 0,
        installs: 0,
    };
    let now = case.now.elapsed;
    if let Some(incident) = &mut case.incident {
        incident.reservation = Some(reservation);
        incident.timings.permitted.get_or_insert(now);
    }
    case.note("permitted", format!("{}: {rung:?} is permitted", case.host.name));
}

/// Leaves a rung that is used up or did not cure, for the next useful one.
pub(super) fn next_rung<R: Rules>(case: &mut Case<'_, R>, why: Explanation) {
    let before = case.incident.as_ref().map_or(Diagnosis::Unknown, |i| i.diagnosis);
    let diagnosis = match diagnose(case) {
        // What no longer shows itself was still there when the rung was taken.
        None | Some(Diagnosis::Unknown | Diagnosis::Rebooting) => before,
        Some(seen) => seen,
    };
    next_rung_for(case, diagnosis, why);
}

/// The same with the diagnosis that the failed rung itself showed.
pub(super) fn next_rung_for<R: Rules>(case: &mut Case<'_, R>, diagnosis: Diagnosis, why: Explanation) {
    if case.incident.as_ref().is_some_and(|i| i.of_spare()) {
        return super::spare::failed(case, why);
    }
    if case.incident.as_ref().is_some_and(|i| i.drills()) {
        return super::drill::failed(case, &why);
    }
    let better = usable(case, diagnosis);
    let now = case.now.elapsed;
    let Some(incident) = &mut case.incident else { return };
    incident.diagnosis = diagnosis;
    let last = incident.current_rung();
    let mut tried: Vec<Rung> = incident.rungs.iter().take(incident.rung + 1).copied().collect();
    let onward = onward(&tried, better);
    incident.rung = tried.len();
    tried.extend(onward);
    if tried.len() == incident.rung {
        tried.push(Rung::Human);
    }
    incident.rungs = tried;
    incident.reservation = None;
    incident.phase = Phase::Suspected;
    incident.phase_since = now;
    incident.running = None;
    incident.wait = None;
    incident.tries = 0;
    incident.booted_at = None;
    incident.installed = false;
    incident.ticket_at = None;
    incident.progress_at = None;
    incident.ready_since = None;
    incident.released = false;
    incident.fence = incident.fence.anew();
    let next = incident.current_rung();
    case.tell(
        Loudness::Log,
        Explanation {
            rule: why.rule,
            code: "next-rung".into(),
            sentence: format!("{last:?} is left ({}); next: {next:?}", why.sentence).into(),
        },
    );
    case.wake_in(1);
}

/// The top of the ladder. A living host waits for a person; one that was acted on without success is quarantined.
fn human<R: Rules>(case: &mut Case<'_, R>, diagnosis: Diagnosis) {
    let acted = case.incident.as_ref().is_some_and(|i| i.timings.off_ordered.is_some() || i.rung > 0);
    let living = case.host.assessment.answers() || case.host.ready();
    if acted && !living {
        case.go(Phase::GivingUp);
        return;
    }
    let why = match diagnosis {
        Diagnosis::CertificateExpiring => {
            Explanation::note("certificate-expiring", "a certificate runs out soon: renew it")
        }
        Diagnosis::BmcUnreachable => Explanation::refusal(
            27,
            "bmc-unreachable",
            "its BMC does not answer: it could not be proven off if it fell ill",
        ),
        Diagnosis::NodeLostNetwork => Explanation::refusal(
            3,
            "lost-network",
            "it lives but is silent to us: look at its network, not at its power",
        ),
        _ => Explanation::note("needs-a-person", format!("no rung of ours cures {diagnosis:?}: a person is needed")),
    };
    if acted && case.incident.as_ref().is_some_and(|i| case.since(i.phase_since) >= case.world.limits.boot_budget_ms) {
        case.go(Phase::GivingUp);
        return;
    }
    case.wait(why);
}

/// Restarts the component.
pub(super) fn restarting<R: Rules>(case: &mut Case<'_, R>) {
    let Some(Rung::RestartComponent(component)) = case.incident.as_ref().map(|i| i.current_rung()) else {
        case.go(Phase::Suspected);
        return;
    };
    let ordered = case.incident.as_ref().is_some_and(|i| i.steps_issued > 0);
    if ordered && diagnose(case).is_none() {
        // The restart was ordered before we were interrupted, and it helped.
        case.go(Phase::ComponentCure);
        return;
    }
    if let Err(why) = gate::restart_allowed(case, component) {
        if why.code == "restarts-used-up" || why.code == "no-agent" {
            case.go(Phase::Suspected);
        }
        case.wait(why);
        return;
    }
    let now = case.now.elapsed;
    remember(&mut case.host.history.component_restarts, now, 16);
    case.order(Intent::RestartComponent(component));
}

/// The component gets its time; then Ready for 60 s, or another try, or the next rung (rules 42, 53).
pub(super) fn component_cure<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    let (cure, soak) = (limits.component_cure_ms, limits.component_soak_ms);
    let cured = diagnose(case).is_none_or(|d| d == Diagnosis::CertificateExpiring) && case.host.ready();
    let now = case.now.elapsed;
    let Some(incident) = &mut case.incident else { return };
    let marked = case.host.our_cordon.is_some() || case.host.our_taint.is_some();
    if cured && (marked || incident.timings.off_ordered.is_some()) {
        // It was taken for worse before: it comes back by the long way, and our marks go with it.
        incident.reservation = None;
        incident.ready_since = Some(now);
        incident.timings.ready.get_or_insert(now);
        case.go(Phase::Soaking);
        return;
    }
    if cured {
        let since = *incident.ready_since.get_or_insert(now);
        incident.timings.ready.get_or_insert(now);
        if now.since(since) >= soak || !case.rules.enforces(crate::rules::Rule(42)) {
            remember(&mut case.host.history.heals, now, 16);
            super::end(case, End::Healed);
        } else {
            case.wake_at(since.plus(soak));
        }
        return;
    }
    incident.ready_since = None;
    let since = incident.phase_since;
    if now.since(since) >= cure {
        case.go(Phase::Suspected);
        case.wake_in(1);
    } else {
        case.wake_at(since.plus(cure));
    }
}

/// A person returned the host: our cordon is taken away by a small incident that does nothing else.
pub(super) fn open_return<R: Rules>(case: &mut Case<'_, R>) {
    case.host.history.returned = false;
    if case.host.our_cordon.is_none() && case.host.our_taint.is_none() {
        return;
    }
    case.open_incident(Diagnosis::Unknown);
    finish::withdraw(case, End::Aborted);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Component;

    #[test]
    fn a_rung_that_was_left_stays_left_and_the_rest_is_the_ladder_of_what_is_seen_now() {
        use Rung::{Human, PowerCycle, Reimage, RestartComponent, SoftReboot};
        let left = [RestartComponent(Component::Kubelet)];
        let kernel_dead = vec![PowerCycle, PowerCycle, Human];
        assert_eq!(onward(&left, kernel_dead.clone()), kernel_dead);
        assert_eq!(onward(&[PowerCycle], kernel_dead), [PowerCycle, Human]);
        assert_eq!(onward(&[PowerCycle], vec![left[0], SoftReboot, PowerCycle, Human]), [Human]);
        assert_eq!(onward(&[], vec![Reimage, Human]), [Reimage, Human]);
    }
}
