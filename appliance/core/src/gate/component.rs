//! The component rung: rules 53 and 54.

use super::Answer;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::signal::Component;
use crate::world::host::within;

/// Whether the agent may be asked to restart a component now.
pub(crate) fn restart_allowed<R: Rules>(case: &Case<'_, R>, component: Component) -> Answer {
    super::outside_forbidden(case)?;
    super::people::cold_start(case)?;
    if case.enforces(59) && case.host.marks.is_self {
        return Err(Explanation::refusal(59, "self", "it carries the appliance: never acted on automatically"));
    }
    if case.enforces(50) && case.host.marks.maintenance_until.is_some_and(|until| case.now.elapsed < until) {
        return Err(Explanation::refusal(50, "maintenance", "it is in a maintenance window"));
    }
    let limits = &case.world.limits;
    let Some(agent) = case.host.assessment.agent else {
        return Err(Explanation::refusal(
            53,
            "no-agent",
            "no agent reports from it: nobody there could restart the component",
        ));
    };
    if case.enforces(53) {
        let restarts = within(&case.host.history.component_restarts, limits.component_window_ms, case.now);
        if restarts >= limits.component_restarts_max {
            return Err(Explanation::refusal(53, "restarts-used-up", "three restarts in 30 min did not help"));
        }
        if agent.systemd_backing_off {
            return Err(Explanation::refusal(
                53,
                "systemd-backing-off",
                "systemd restarts it itself just now: not against its back-off",
            ));
        }
    }
    let kills = component == Component::Runtime && agent.runtime_restart_kills;
    if case.enforces(54) && kills && !case.pool().is_some_and(|p| p.runtime_restart) {
        return Err(Explanation::refusal(
            54,
            "would-kill-containers",
            "a runtime restart would kill its containers, and the pool does not consent",
        ));
    }
    Ok(())
}
