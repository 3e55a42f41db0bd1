//! Reimage and replacement: the host is off, released, its old identity gone; then the disk is rewritten or a spare takes
//! the role.

use super::begin::next_rung;
use super::{power, spare};
use crate::assess::NetworkState;
use crate::command::{Intent, Loudness};
use crate::decide::Case;
use crate::event::InstallReport;
use crate::explain::Explanation;
use crate::gate::{self, Spare};
use crate::id::JobId;
use crate::rules::{Rule, Rules};
use crate::signal::{Power, Source};
use crate::time::Elapsed;
use crate::world::incident::{End, Phase};
use crate::world::scope::ObserveOnly;

/// Opens the ticket and sets one-shot network boot (rules 14, 34, 36, 38).
pub(super) fn arming<R: Rules>(case: &mut Case<'_, R>) {
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    let (of_spare, proves) = case.incident.as_ref().map_or((false, false), |i| (i.of_spare(), i.proves()));
    if of_spare && !spare::may_start(case) {
        return;
    }
    if proves {
        return spare::arming(case);
    }
    if !permit_at_hand(case) {
        return;
    }
    let limits = &case.world.limits;
    let disk = case.host.disk.is_some();
    let fit = case.incident.as_ref().is_some_and(|i| {
        let proven = i.proof.is_some() && i.released && i.identity_removed;
        proven && (disk || !case.rules.enforces(Rule(36)))
    });
    if case.enforces(36) && !fit {
        next_rung(
            case,
            Explanation::refusal(36, "not-fit-to-reimage", "not proven off and released, or no disk is named"),
        );
        return;
    }
    if !gate::versions_allow(case) {
        // Another host failed on the same version meanwhile (rule 15).
        next_rung(
            case,
            Explanation::refusal(
                15,
                "version-stopped",
                "two hosts failed after the same image, firmware or kubelet version",
            ),
        );
        return;
    }
    let installs = case.incident.as_ref().and_then(|i| i.reservation.as_ref()).map_or(0, |r| r.installs);
    if u64::from(installs) >= limits.installs_max && case.enforces(38) {
        next_rung(case, Explanation::refusal(38, "installs-used-up", "two installs failed"));
        return;
    }
    if let Some(job) = next_job(case) {
        case.order_with_permit(Intent::ArmBoot(job));
    }
}

/// The job of this try; the same one if its ticket is only being opened again.
pub(super) fn next_job<R: Rules>(case: &mut Case<'_, R>) -> Option<JobId> {
    let incident = case.incident.as_mut()?;
    let reservation = incident.reservation.as_mut()?;
    if incident.tries == 0 {
        reservation.installs += 1;
    }
    let job = JobId((incident.id.0 << 8) | u64::from(reservation.installs));
    incident.job = Some(job);
    incident.ticket_open = true;
    incident.progress_at = None;
    Some(job)
}

/// The permit of this rung, taken again if it ran out while nobody could say that the host is off.
pub(super) fn permit_at_hand<R: Rules>(case: &mut Case<'_, R>) -> bool {
    let Some(incident) = &case.incident else { return false };
    if incident.reservation.is_some() {
        return true;
    }
    let rung = incident.current_rung();
    if let Err(why) = gate::permit_again(case) {
        case.wait(why);
        return false;
    }
    super::begin::reserve(case, rung);
    // The same rung goes on: its power steps and installs are counted on, and it counts once (rule 14). The start of a spare is
    // its first power step.
    if let Some(incident) = &mut case.incident {
        let steps = incident.cycles + u32::from(incident.of_spare());
        let Some(reservation) = &mut incident.reservation else { return true };
        reservation.power_steps = steps;
        reservation.installs = incident.job.map_or(0, |job| u32::from(job.0.to_be_bytes()[7]));
    }
    true
}

/// The installer works; its deadlines run (rule 35).
pub(super) fn installing<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    let now = case.now.elapsed;
    if brought_back(case) {
        return;
    }
    let Some(incident) = &case.incident else { return };
    let opened = incident.ticket_at.unwrap_or(incident.phase_since);
    let (deadline, code, what) = match incident.progress_at {
        None => (opened.plus(limits.ticket_ms), "no-hello", "the installer never said hello"),
        Some(at) => {
            let silent = at.plus(limits.progress_ms);
            let cap = opened.plus(limits.job_ms);
            (silent.min(cap), "install-stalled", "the installer fell silent")
        }
    };
    if now >= deadline {
        install_failed(case, Explanation::refusal(35, code, what));
    } else {
        case.wake_at(deadline);
    }
}

/// Whether the host, which was to boot the installer, runs its own system instead: somebody repaired it, or its BMC
/// ignored the boot order. An installer has no kubelet and no agent; what shows one of them is not cut for an install
/// that does not run.
pub(super) fn brought_back<R: Rules>(case: &mut Case<'_, R>) -> bool {
    let Some(incident) = &case.incident else { return false };
    // What was seen before this boot tells of the system that was.
    let after = |at: Elapsed| incident.booted_at.is_some_and(|booted| at > booted);
    let pushed = case.view.evidence.slot(Source::Agent).latest().is_some_and(|run| after(run.last));
    let agent = pushed && case.host.assessment.agent.is_some();
    let alive = case.host.assessment.network == NetworkState::Alive && after(case.host.assessment.network_since);
    if incident.installed || !(agent || alive) {
        return false;
    }
    if incident.of_spare() {
        spare::failed(
            case,
            Explanation::refusal(31, "own-system", "a system of its own runs on it, not our installer"),
        );
        return true;
    }
    let now = case.now.elapsed;
    case.note("brought-back", format!("{}: runs its own system, not our installer: nothing is cut", case.host.name));
    if let Some(incident) = &mut case.incident {
        incident.booted_at = Some(now);
    }
    case.go(Phase::AwaitingReady);
    true
}

/// A Node bears its name although the old one was removed: its own system joined by other hands, or the removal did not
/// last.
pub(super) fn node_is_back<R: Rules>(case: &mut Case<'_, R>) {
    let now = case.now.elapsed;
    let off = case.host.assessment.power == Power::Off && !case.host.assessment.answers();
    let Some(incident) = &mut case.incident else { return };
    if off {
        incident.identity_removed = false;
        case.go(Phase::Proving);
        case.wait(Explanation::refusal(41, "node-is-back", "a Node bears its name again: it is removed once more"));
        return;
    }
    incident.booted_at = Some(now);
    case.host.held_off = None;
    case.tell(
        Loudness::Page,
        Explanation::refusal(31, "came-back", "it runs and has a Node again, not by us: no credential is minted"),
    );
    case.go(Phase::AwaitingReady);
}

/// A ticket is open for as long as its install is on its way, and no longer: a host that is switched on for any other reason (a
/// pause, a person's system that runs again, the end of it all) must not meet an installer. Returns whether it is closed
/// first.
pub(super) fn closes_ticket<R: Rules>(case: &mut Case<'_, R>, phase: Phase) -> bool {
    // Who is stopped on the way there meets no installer either, whoever presses the button meanwhile.
    let stopped = gate::paused_here(case).is_err() || case.incident.as_ref().is_some_and(|i| i.denied);
    let needed = phase == Phase::Installing || (matches!(phase, Phase::Arming | Phase::PoweringOn) && !stopped);
    // These close it themselves, as their last act.
    let closing = matches!(phase, Phase::Concluding | Phase::GivingUp);
    let standby = case.site().observe_only == Some(ObserveOnly::Standby);
    let Some(incident) = case.incident.as_ref().filter(|i| i.ticket_open) else { return false };
    let Some(job) = incident.job.filter(|_| !needed && !closing && !standby) else { return false };
    case.order(Intent::CloseTicket(job));
    true
}

/// What the installer says.
pub(crate) fn install_report<R: Rules>(case: &mut Case<'_, R>, report: InstallReport) {
    let now = case.now.elapsed;
    let Some(incident) = &mut case.incident else { return };
    if incident.phase == Phase::PoweringOn && incident.ticket_at.is_some() && !incident.installed {
        // The appliance was killed after its On had left, or its BMC is slow: what the installer says last it says once.
        if report != InstallReport::Progress {
            incident.early_report = Some(report);
        }
        return;
    }
    if incident.phase != Phase::Installing {
        return;
    }
    incident.progress_at = Some(now);
    match report {
        InstallReport::Progress => {}
        InstallReport::Proven { machine } => spare::shown(case, machine),
        InstallReport::Installed => {
            // Written once, recorded with this event: the same ticket installs nothing again (rule 38).
            incident.installed = true;
            incident.ticket_at = None;
            incident.ticket_open = false;
            case.note("installed", format!("{}: image written and verified", case.host.name));
            power::order_off_again(case);
        }
        InstallReport::ForeignData => next_rung(
            case,
            Explanation::refusal(37, "foreign-data", "the named disk carries foreign data: nothing was written"),
        ),
        InstallReport::NoSuchDisk => next_rung(
            case,
            Explanation::refusal(36, "no-such-disk", "the named disk is not there exactly once: nothing was written"),
        ),
        InstallReport::Failed => {
            install_failed(case, Explanation::refusal(38, "install-failed", "the installer failed"));
        }
    }
}

fn install_failed<R: Rules>(case: &mut Case<'_, R>, why: Explanation) {
    if case.incident.as_ref().is_some_and(|i| i.proves()) {
        return spare::failed(case, why);
    }
    for version in case.host.versions.clone() {
        case.blame_version(version);
    }
    let again = may_install_again(case);
    if let Some(incident) = &mut case.incident {
        incident.ticket_at = None;
    }
    case.tell(Loudness::Log, why.clone());
    if again && gate::versions_allow(case) {
        power::order_off_again(case);
    } else {
        next_rung(case, why);
    }
}

/// The image is on, but the credential that lies on its disk has run out and may not live longer: it is installed once more, or
/// that was its last install.
pub(super) fn cannot_join<R: Rules>(case: &mut Case<'_, R>) {
    let why = Explanation::refusal(40, "cannot-join", "the join credential on its disk can no longer be used");
    let again = may_install_again(case);
    if let Some(incident) = &mut case.incident {
        incident.installed = false;
    }
    case.tell(Loudness::Page, why.clone());
    if again {
        case.go(Phase::Proving);
    } else {
        next_rung(case, why);
    }
}

fn may_install_again<R: Rules>(case: &Case<'_, R>) -> bool {
    let limits = &case.world.limits;
    case.incident.as_ref().and_then(|i| i.reservation.as_ref()).is_some_and(|r| {
        (u64::from(r.installs) < limits.installs_max || !case.rules.enforces(Rule(38)))
            && u64::from(r.power_steps) < limits.power_steps_max
    })
}

/// The image is on; the credential is minted late, for one node, and the host starts (rule 40).
pub(super) fn rejoining<R: Rules>(case: &mut Case<'_, R>) {
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    let Some(incident) = &case.incident else { return };
    if !incident.identity_removed {
        // Interrupted before the old identity was gone: the proof is earned again for it.
        case.go(Phase::Proving);
        return;
    }
    if !incident.installed {
        power::onward(case);
        return;
    }
    let job = incident.job.unwrap_or_default();
    case.order(Intent::MintCredential(job));
}

/// For a control-plane host: the member to remove, if quorum holds after it (rules 18, 20).
pub(super) fn etcd_member_to_remove<R: Rules>(case: &Case<'_, R>) -> Result<Option<u64>, Explanation> {
    if !case.host.control_plane() || !case.enforces(20) {
        return Ok(None);
    }
    let report = case.view.sight.cluster.as_ref().and_then(|c| c.etcd.as_ref());
    let fresh = report.filter(|r| case.since(r.read_at) <= case.world.limits.etcd_age_ms);
    let Some(report) = fresh else {
        return Err(Explanation::refusal(
            20,
            "etcd-unread",
            "the etcd members were not read within 10 s: nothing is removed",
        ));
    };
    let Some(own) = report.members.iter().find(|m| m.host == Some(case.host.id)) else { return Ok(None) };
    let stay = report.members.iter().filter(|m| m.id != own.id && !m.learner);
    let healthy = stay.clone().filter(|m| m.healthy).count();
    if healthy < stay.count() / 2 + 1 {
        return Err(Explanation::refusal(20, "quorum-after-removal", "without this member the quorum would not hold"));
    }
    Ok(Some(own.id))
}

/// A spare for the swap is chosen and promised; without one the host stays off, for a person.
pub(super) fn spare_at_hand<R: Rules>(case: &mut Case<'_, R>) -> bool {
    if case.incident.as_ref().is_some_and(|i| i.spare.is_some()) {
        return true;
    }
    match gate::choose_spare(case) {
        Spare::Take(spare) => {
            let id = case.incident.as_ref().map(|i| i.id);
            if let Some(other) = case.other_mut(spare) {
                other.history.promised = id;
            }
            if let Some(incident) = &mut case.incident {
                incident.spare = Some(spare);
            }
            true
        }
        Spare::Wait(why) => {
            // The proof is used up by waiting; it is earned again when the wait is over, and so is the permit: others need not
            // wait for a host that is off and released.
            if let Some(incident) = &mut case.incident {
                incident.reservation = None;
            }
            case.go(Phase::Proving);
            case.wait(why);
            false
        }
        Spare::None => {
            case.note("no-spare", format!("{}: no proven spare is free", case.host.name));
            case.go(Phase::GivingUp);
            false
        }
    }
}

/// The spare takes the role, is installed in an incident of its own, and must become Ready.
pub(super) fn promoting<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    let Some(incident) = &case.incident else { return };
    let Some(spare) = incident.spare else {
        // The one that was promised could not be used any more.
        if spare_at_hand(case) {
            case.wake_in(1);
        }
        return;
    };
    let Some(booted) = incident.booted_at else {
        if let Err(why) = gate::outside_forbidden(case) {
            case.wait(why);
            return;
        }
        if !gate::still_fits(case, spare) {
            case.note(
                "spare-unfit",
                format!("{}: the spare that was promised may not be used any more", case.host.name),
            );
            let id = case.incident.as_ref().map(|i| i.id);
            if let Some(other) = case.other_mut(spare).filter(|other| other.history.promised == id) {
                other.history.promised = None;
            }
            if let Some(incident) = &mut case.incident {
                incident.spare = None;
            }
            case.wake_in(1);
            return;
        }
        if permit_at_hand(case) {
            case.order_with_permit(Intent::Promote(spare));
        }
        return;
    };
    let given_up = case.world.host(spare).is_none_or(|h| h.lifecycle != crate::world::host::Lifecycle::InService);
    if spare::under_way(case, spare) {
        // Its own incident has the deadlines of an install and of a boot, the soak and the canary pod.
        case.wake_in(limits.retry_ms);
    } else if case.world.host(spare).is_some_and(crate::world::host::Host::ready) {
        let now = case.now.elapsed;
        if let Some(incident) = &mut case.incident {
            incident.timings.ready.get_or_insert(now);
        }
        case.host.lifecycle = crate::world::host::Lifecycle::Quarantined { since: now };
        case.host.held_off = None;
        super::end(case, End::Replaced);
    } else if given_up || case.since(booted) >= limits.boot_budget_ms {
        case.tell(
            Loudness::Page,
            Explanation::refusal(
                43,
                "spare-late",
                "the spare did not become Ready in this place: both are in quarantine",
            ),
        );
        case.go(Phase::GivingUp);
    } else {
        case.wake_in(limits.retry_ms);
    }
}
