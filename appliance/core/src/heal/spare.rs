//! Spares: how one takes the place of a host that could not be healed, and the proof of those that wait (rule 43). A spare
//! is not ill, so no evidence leads here and none leads back to the ladder of an ill host; what is done to it is done by the
//! same steps, under the same proofs of off, as a reimage.

use super::{power, reimage};
use crate::command::{Intent, Loudness};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::gate;
use crate::id::{HostId, MachineId, PoolId};
use crate::rules::Rules;
use crate::time::Elapsed;
use crate::world::host::{Lifecycle, Link, Role, SpareProof, remember};
use crate::world::incident::{Diagnosis, End, Fence, Incident, Phase, Purpose, Reservation, Rung};

/// Whether its power may be cut, or a step of it sent: a freeze of an identity alarm, and marks that people set meanwhile, hold for
/// a machine that we started as for any other.
pub(super) fn may_cut<R: Rules>(case: &Case<'_, R>) -> Result<(), Explanation> {
    frozen(case)?;
    if !case.incident.as_ref().is_some_and(|i| i.of_spare()) {
        return Ok(());
    }
    // Asked here, or a task of minutes would use up the steps of its permit in seconds.
    gate::firmware_rests(case)?;
    gate::marks_allow(case)
}

/// Waits whose end is another try: what stopped the step was not the spare.
const PASSING: [&str; 12] = [
    "paused",
    "starting",
    "void",
    "store-failed",
    "restored",
    "corrupt",
    "standby",
    "observe-only",
    "lease-ending",
    "not-armed",
    "answered",
    "firmware-task",
];

/// Reasons to leave a machine on: somebody else uses it.
const THEIRS: [&str; 2] = ["own-system", "not-off"];

/// When a spare is to be proven next; `None` = it never was, so now.
fn proof_due<R: Rules>(case: &Case<'_, R>) -> Option<Elapsed> {
    case.host.spare_proof.map(|proof| proof.at.plus(case.world.limits.spare_prove_again_ms))
}

/// Opens the proof of a spare that is due, or that a person ordered. One at a time in the whole site: a proof that goes
/// wrong is looked at before the next machine is started.
pub(super) fn open_if_due<R: Rules>(case: &mut Case<'_, R>) {
    let waits = case.host.role == Role::Spare
        && case.host.lifecycle == Lifecycle::InService
        && case.host.history.promised.is_none();
    let ordered = case.host.history.proof_ordered;
    if !waits || !(ordered || case.host.link == Link::Linked) {
        case.host.history.proof_ordered = false;
        return;
    }
    if let Some(at) = proof_due(case).filter(|at| !ordered && case.now.elapsed < *at) {
        case.wake_at(at);
        return;
    }
    if let Err(why) = gate::spare_may(case).and_then(|()| alone(case)) {
        if ordered {
            // An order is for now: it does not start a machine hours later.
            case.host.history.proof_ordered = false;
            let sentence = format!("{}: its proof was not begun: {}", case.host.name, why.sentence);
            let told = Explanation { rule: why.rule, code: "proof-refused".into(), sentence: sentence.into() };
            case.host.history.order_refused = Some(told.clone());
            case.tell(Loudness::Page, told);
        }
        case.wake_in(case.world.limits.page_ms);
        return;
    }
    case.host.history.proof_ordered = false;
    case.open_incident(Diagnosis::ProofDue);
    let now = case.now.elapsed;
    if let Some(incident) = &mut case.incident {
        incident.purpose = Purpose::Prove { ordered };
        begin(incident, vec![Rung::Prove, Rung::Human], nothing_reserved(case.host.pool, now), now);
    }
    let how = if ordered { "ordered by a person" } else { "due" };
    case.note("proof-begun", format!("{}: its proof is {how}: power, boot, disk and card", case.host.name));
}

/// What a proof reserves: it counts in no cluster and no domain, since nothing that serves is taken away.
pub(super) fn nothing_reserved(pool: PoolId, at: Elapsed) -> Reservation {
    Reservation {
        rung: Rung::Prove,
        at,
        cluster: None,
        pool,
        domains: Vec::new(),
        control_plane: false,
        storage: None,
        read_on: false,
        power_steps: 1,
        installs: 0,
    }
}

/// Whether no other spare is being proven.
fn alone<R: Rules>(case: &Case<'_, R>) -> Result<(), Explanation> {
    if case.world.incidents.values().any(Incident::proves) {
        return Err(Explanation::refusal(43, "another-proof", "another spare is being proven: one at a time"));
    }
    Ok(())
}

/// Where both begin: off, to be shown by reading it twice as of a host found off.
fn begin(incident: &mut Incident, rungs: Vec<Rung>, reservation: Reservation, now: Elapsed) {
    incident.rungs = rungs;
    incident.phase = Phase::Proving;
    incident.fence = Fence { found_off: true, off_at: Some(now), ..Fence::default() };
    incident.released = true;
    incident.identity_removed = true;
    incident.timings.permitted = Some(now);
    // The start of a spare is its first power step: it takes nothing from service, so it counts in no rate.
    incident.reservation =
        Some(Reservation { power_steps: reservation.power_steps.max(1), installs: 0, read_on: false, ..reservation });
}

/// The spare was looked at: it takes role, pool and cluster, and is installed in an incident of its own. The permit of the
/// replaced host goes over to it and counts once.
pub(super) fn promoted<R: Rules>(case: &mut Case<'_, R>) {
    let now = case.now.elapsed;
    let (of, pool, cluster) = (case.host.id, case.host.pool, case.host.cluster);
    let Some(spare) = case.incident.as_ref().and_then(|i| i.spare) else { return };
    if case.world.host(spare).is_none_or(|other| other.role != Role::Spare) {
        // Its record was changed between the look and now: whatever it is for now, it is no spare.
        if let Some(incident) = &mut case.incident {
            incident.spare = None;
        }
        case.go(Phase::Promoting);
        case.wake_in(case.world.limits.retry_ms);
        return;
    }
    let Some(reservation) = case.incident.as_mut().and_then(|i| i.reservation.take()) else { return };
    if let Some(incident) = &mut case.incident {
        incident.booted_at = Some(now);
    }
    let Some(new) = case.other_mut(spare) else { return };
    let was = (new.pool, new.cluster);
    new.role = Role::Worker;
    new.pool = pool;
    new.cluster = cluster;
    new.history.promised = None;
    new.history.was_spare = true;
    new.history.seen_healthy = false;
    // Its install counts from here, before its effect (rule 14).
    remember(&mut new.history.reimages, now, 8);
    new.spare_proof = None;
    let name = new.name.clone();
    case.open_incident_on(spare, Diagnosis::PlaceVacant, |incident| {
        incident.purpose = Purpose::TakePlace { of, pool: was.0, cluster: was.1 };
        begin(incident, vec![Rung::Reimage, Rung::Human], reservation, now);
        // What bore its name once, when it served somewhere, goes first: its name is given anew (rule 41).
        incident.identity_removed = false;
    });
    case.note("promoted", format!("{}: {name} takes its place and is installed", case.host.name));
    case.wake_in(case.world.limits.retry_ms);
}

/// Whether the spare is on its way into the place of this host.
pub(super) fn under_way<R: Rules>(case: &Case<'_, R>, spare: HostId) -> bool {
    let open = case.world.incident_of(spare);
    open.is_some_and(|i| matches!(i.purpose, Purpose::TakePlace { of, .. } if of == case.host.id))
}

/// Asked before a spare is started: what forbids it, or that a person said no.
pub(super) fn may_start<R: Rules>(case: &mut Case<'_, R>) -> bool {
    if case.incident.as_ref().is_some_and(|i| i.denied) {
        failed(case, Explanation::note("denied", "a person said no"));
        return false;
    }
    if let Err(why) = gate::spare_may(case) {
        let waited = case.incident.as_ref().map_or(0, |i| case.since(i.phase_since));
        if waited >= case.world.limits.boot_budget_ms
            && let Some(incident) = case.incident.as_mut().filter(|i| !i.proves())
        {
            // A permit does not outlast the boot budget (rule 11); it is taken again when the wait is over.
            incident.reservation = None;
        }
        case.wait(why);
        return false;
    }
    true
}

/// A step of a spare ended where the ladder of an ill host would begin anew.
pub(super) fn interrupted<R: Rules>(case: &mut Case<'_, R>) {
    if let Err(why) = gate::outside_forbidden(case) {
        case.wait(why);
        return;
    }
    let Some(incident) = &case.incident else { return };
    let why = incident.wait.as_ref().map(|wait| wait.why.clone());
    let why = why.unwrap_or_else(|| Explanation::note("interrupted", "what was begun could not be ended"));
    let passing = PASSING.contains(&why.code.as_ref());
    let pause = case.world.limits.retry_ms;
    if passing && case.since(incident.phase_since) < pause {
        // What stopped it lasts longer than a breath.
        case.wake_in(pause);
        return;
    }
    let started = incident.booted_at.is_some();
    match may_cut(case) {
        Ok(()) if passing && started => power::order_off_again(case),
        Err(busy) if passing && started && busy.code == "firmware-task" => case.wait(busy),
        Ok(()) | Err(_) => failed(case, why),
    }
}

/// It reads On where it was to be off. Started by us it is switched off once more; else somebody uses it.
pub(super) fn found_on<R: Rules>(case: &mut Case<'_, R>) {
    let ours = case.incident.as_ref().is_some_and(|i| i.booted_at.is_some());
    match may_cut(case) {
        Ok(()) if ours => power::order_off_again(case),
        Err(why) if ours => failed(case, why),
        _ => failed(case, Explanation::refusal(31, "not-off", "it is on, and not by us: somebody uses it")),
    }
}

/// An identity alarm froze all power (rule 29): no BMC is told anything until a person has looked.
fn frozen<R: Rules>(case: &Case<'_, R>) -> Result<(), Explanation> {
    if case.enforces(29) && case.site().power_freeze.is_some() {
        return Err(Explanation::refusal(29, "power-frozen", "all power is frozen by an identity alarm"));
    }
    Ok(())
}

/// The spare did not show what it was to show, or could not be installed. It is not tried again by itself.
pub(super) fn failed<R: Rules>(case: &mut Case<'_, R>, why: Explanation) {
    let Some(incident) = &mut case.incident else { return };
    if !incident.proves() {
        let sentence = format!("{}: it could not take the place it was to take: {}", case.host.name, why.sentence);
        let told = Explanation { rule: why.rule, code: "spare-failed".into(), sentence: sentence.into() };
        case.tell(Loudness::Page, told);
        case.go(Phase::GivingUp);
        return;
    }
    let again = incident.ending.is_some();
    let started = incident.booted_at.is_some();
    incident.ending = Some(End::Unproven);
    incident.ticket_at = None;
    let end = if again { "it may still be on" } else { "it is not used before it is proven" };
    let sentence = format!(
        "{}: its proof failed ({}): {end}. Look at the machine, then `rackmedic host prove`",
        case.host.name, why.sentence
    );
    let told = Explanation { rule: why.rule, code: "proof-failed".into(), sentence: sentence.into() };
    case.tell(Loudness::Page, told);
    case.host.spare_proof = Some(SpareProof::now(case.now, false));
    // What we switched on is switched off once more; a system of its own that runs there is somebody's, as is a machine that people
    // have marked meanwhile. While all power is frozen it is left as it is for the person who has to look anyway.
    if started && !again && !THEIRS.contains(&why.code.as_ref()) && may_cut(case).is_ok() {
        power::order_off_again(case);
    } else {
        case.go(Phase::Concluding);
    }
}

/// The installer that proves has said what it found: the machine is switched off, and proven off.
pub(super) fn shown<R: Rules>(case: &mut Case<'_, R>, machine: Option<MachineId>) {
    let Some(incident) = &mut case.incident else { return };
    if !incident.proves() {
        return;
    }
    incident.ticket_at = None;
    let seen = machine.filter(|machine| !machine.is_placeholder());
    if let Some(other) = seen.filter(|machine| !machine.same_machine(case.host.machine)) {
        // The card of one machine and the BMC of another stand in one record (rule 29).
        case.host.link = Link::Mismatch;
        let sentence = format!("its card is in machine {:032x}, which is not the one in the record", other.0);
        failed(case, Explanation::refusal(29, "other-machine", sentence));
        return;
    }
    incident.installed = true;
    let twin = case
        .world
        .hosts
        .values()
        .any(|h| h.id != case.host.id && h.link == Link::Linked && h.machine.same_machine(case.host.machine));
    if seen.is_some() && case.host.link == Link::Unbound && !twin {
        // The record, the live BMC before each step, and the installer booted on its card say the same (terms, *linked*).
        case.host.link = Link::Linked;
        case.note("linked", format!("{}: BMC, record and installer are of one machine", case.host.name));
    } else if seen.is_none() && case.host.link == Link::Unbound {
        let sentence = format!(
            "{}: its firmware tells no UUID: it is not linked by this proof, and no spare before it is",
            case.host.name
        );
        case.tell(Loudness::Page, Explanation { rule: None, code: "not-linked".into(), sentence: sentence.into() });
    }
    match may_cut(case) {
        Ok(()) => power::order_off_again(case),
        Err(why) => failed(case, why),
    }
}

/// Proven off, before or after: the proof goes on, or is over.
pub(super) fn off<R: Rules>(case: &mut Case<'_, R>) {
    let Some(incident) = &mut case.incident else { return };
    if incident.ending.is_none() && !incident.installed {
        case.go(Phase::Arming);
        return;
    }
    if incident.ending.is_none() {
        incident.ending = Some(End::Proven);
        case.host.spare_proof = Some(SpareProof::now(case.now, true));
    }
    case.go(Phase::Concluding);
}

/// Opens the ticket of the job that proves it.
pub(super) fn arming<R: Rules>(case: &mut Case<'_, R>) {
    if let Some(job) = reimage::next_job(case) {
        case.order_with_permit(Intent::ArmProof(job));
    }
}

/// The ticket goes; what was shown is kept, and when it is to be shown again.
pub(super) fn concluding<R: Rules>(case: &mut Case<'_, R>) {
    if let Some(job) = case.incident.as_ref().and_then(|i| i.job) {
        case.order(Intent::CloseTicket(job));
        return;
    }
    let end = case.incident.as_ref().and_then(|i| i.ending).unwrap_or(End::Unproven);
    case.host.held_off = None;
    super::end(case, end);
    if let Some(at) = proof_due(case) {
        case.wake_at(at);
    }
}

/// One that failed to take a place is a spare again, in quarantine: a person returns it, and it is proven before use.
pub(super) fn back_to_spare<R: Rules>(case: &mut Case<'_, R>) {
    let Some(Purpose::TakePlace { pool, cluster, .. }) = case.incident.as_ref().map(|i| i.purpose) else { return };
    if case.host.assessment.node.is_some() {
        // It joined before it failed: whatever runs there is a matter for a person, who sees it with its Node.
        return;
    }
    case.host.role = Role::Spare;
    case.host.pool = pool;
    case.host.cluster = cluster;
    case.host.spare_proof = Some(SpareProof::now(case.now, false));
}
