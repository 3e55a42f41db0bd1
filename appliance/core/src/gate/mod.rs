//! The gate: every rule that can say no before something is done, in the order in which a person would want to hear of
//! them. Each check belongs to one rule and can be broken alone by the simulator's switches.

mod budget;
mod component;
mod control_plane;
mod evidence;
mod people;
mod scope;
mod storage;

use crate::decide::Case;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::signal::BootStage;
use crate::world::incident::Rung;

pub(crate) use budget::{Spare, choose_spare, heal_ended, still_fits};
pub(crate) use component::restart_allowed;
pub(crate) use evidence::{confirmed, look_confirms};
pub(crate) use people::{approval, ordered_to_stop, outside_forbidden};
pub(crate) use scope::{become_canary, care_ended};

/// The answer of a check: go on, or why not.
pub(crate) type Answer = Result<(), Explanation>;

/// When in a rung the gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the permit.
    Entering,
    /// Under the permit, right before the power command: everything again, the incident's own permit not counted.
    BeforePower,
}

/// Whether a disruptive rung may go on now.
pub(crate) fn disruptive<R: Rules>(case: &Case<'_, R>, rung: Rung, moment: Moment) -> Answer {
    people::outside_forbidden(case)?;
    people::marks(case)?;
    people::cold_start(case)?;
    evidence::sight(case)?;
    evidence::linked(case)?;
    evidence::known_healthy(case)?;
    evidence::rebooting(case)?;
    scope::api(case)?;
    scope::storm(case)?;
    scope::domains(case)?;
    evidence::planes(case, rung)?;
    evidence::recent_life(case, rung)?;
    people::flapping(case, rung)?;
    storage::redundancy(case, rung)?;
    control_plane::quorum(case, rung)?;
    control_plane::exclusive(case, moment)?;
    budget::concurrency(case, moment)?;
    budget::ready_share(case)?;
    budget::breaker(case)?;
    budget::fleet_rate(case)?;
    budget::host_rate(case, rung)?;
    budget::versions(case, rung)?;
    people::consent(case, rung)
}

/// Whether rule 15 leaves a further install of this host's versions.
pub(crate) fn versions_allow<R: Rules>(case: &Case<'_, R>) -> bool {
    budget::versions(case, Rung::Reimage).is_ok()
}

/// Whether a spare may be started now, to be proven or to take a place. It is not ill, so no evidence is asked for; what
/// people, own sight, identity and its firmware say is.
pub(crate) fn spare_may<R: Rules>(case: &Case<'_, R>) -> Answer {
    people::outside_forbidden(case)?;
    people::marks(case)?;
    people::cold_start(case)?;
    evidence::sight(case)?;
    evidence::linked(case)?;
    firmware_rests(case)
}

/// Whether no firmware task runs (rule 33).
pub(crate) fn firmware_rests<R: Rules>(case: &Case<'_, R>) -> Answer {
    if case.enforces(33) && case.host.assessment.stage == BootStage::FirmwareTask {
        return Err(Explanation::refusal(33, "firmware-task", "a firmware task runs: no power until it ends"));
    }
    Ok(())
}

/// What people have marked on it (rules 50, 59).
pub(crate) fn marks_allow<R: Rules>(case: &Case<'_, R>) -> Answer {
    people::marks(case)
}

/// Whether a drill may begin: a host that is well, that somebody else has cordoned, and everything that a disruptive rung is
/// asked but for evidence of an illness.
pub(crate) fn drill_may<R: Rules>(case: &Case<'_, R>) -> Answer {
    people::outside_forbidden(case)?;
    people::marks_beside_a_cordon(case)?;
    let cordoned = case.host.assessment.node.is_some_and(|node| node.cordoned) && case.host.our_cordon.is_none();
    if !cordoned {
        return Err(Explanation::refusal(50, "not-cordoned", "cordon and drain it first: a drill cuts its power"));
    }
    if case.host.assessment.node.is_some_and(|node| node.claimed) {
        return Err(Explanation::refusal(50, "in-other-hands", "a tool or a maintenance window has it in hand"));
    }
    if !case.host.ready() || !case.host.assessment.answers() {
        return Err(Explanation::note("not-ready", "it is not Ready: a drill is for a host that is well"));
    }
    people::cold_start(case)?;
    evidence::sight(case)?;
    evidence::linked(case)?;
    evidence::known_healthy(case)?;
    evidence::rebooting(case)?;
    scope::api(case)?;
    scope::storm(case)?;
    scope::domains(case)?;
    people::flapping(case, Rung::PowerCycle)?;
    storage::redundancy(case, Rung::PowerCycle)?;
    control_plane::quorum(case, Rung::PowerCycle)?;
    control_plane::exclusive(case, Moment::Entering)?;
    budget::concurrency(case, Moment::Entering)?;
    budget::ready_share(case)?;
    budget::breaker(case)?;
    budget::fleet_rate(case)?;
    budget::host_rate(case, Rung::PowerCycle)
}

/// Whether a permit that ran out during a long wait may be taken again, for a host that is proven off and released: only
/// the others under way matter (rule 11).
pub(crate) fn permit_again<R: Rules>(case: &Case<'_, R>) -> Answer {
    budget::concurrency(case, Moment::Entering)?;
    storage::busy(case)
}

/// Whether the API answers, as worker rungs need it (rule 7).
pub(crate) fn api_answers<R: Rules>(case: &Case<'_, R>) -> Answer {
    scope::api(case)
}

/// Whether a pause covers this host (rule 49).
pub(crate) fn paused_here<R: Rules>(case: &Case<'_, R>) -> Answer {
    people::paused(case)
}

/// What a cold start still asks of a host: not paused, not marked, linked (rules 29, 49, 50, 59). Own sight is left out:
/// with the whole site dark there is nobody to be seen, and a person named the hosts.
pub(crate) fn cold_start_may<R: Rules>(case: &Case<'_, R>) -> Answer {
    people::outside_forbidden(case)?;
    people::marks(case)?;
    evidence::linked(case)
}

/// Whether the evidence still shows what led to an off that was ordered and interrupted: asked again from what was
/// gathered since, before the order is repeated (rules 1 to 4, 29, 33).
pub(crate) fn still_ill<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    people::marks(case)?;
    evidence::sight(case)?;
    evidence::linked(case)?;
    evidence::rebooting(case)?;
    scope::api(case)?;
    evidence::planes(case, rung)?;
    evidence::recent_life(case, rung)
}
