//! Raw counts of a run, from which the statistics table is made.

use crate::fault::Cure;
use crate::watch::WorldTime;
use healing::id::{HostId, IncidentId};
use healing::rules::Rule;
use healing::time::Millis;
use healing::world::incident::{Diagnosis, End, Phase, Rung, Timings};
use std::collections::BTreeMap;

/// An incident that ended, or was still open at the end of the run (`end` is `None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentStats {
    /// Its number.
    pub id: IncidentId,
    /// Whose.
    pub host: HostId,
    /// Its last diagnosis.
    pub diagnosis: Diagnosis,
    /// The phase that it is in, if it is still open.
    pub phase: Phase,
    /// It holds a permit at the end of the run.
    pub permit: bool,
    /// How it ended.
    pub end: Option<End>,
    /// When it opened, true time.
    pub opened_at: WorldTime,
    /// When it ended, or the end of the run.
    pub ended_at: WorldTime,
    /// When the host really went silent, if it did.
    pub silent_at: Option<WorldTime>,
    /// Silence to permission.
    pub permit_ms: Option<Millis>,
    /// Silence to proof of off.
    pub proven_ms: Option<Millis>,
    /// Silence to release.
    pub released_ms: Option<Millis>,
    /// Stages in the appliance's own time.
    pub timings: Timings,
    /// The rungs of its ladder that were entered.
    pub rungs: Vec<Rung>,
    /// The name of the fault that the host had, if one was injected on it.
    pub fault: Option<&'static str>,
    /// What cures that fault.
    pub cure: Option<Cure>,
    /// What it waits for at the end of the run, if it does: rule and code.
    pub waiting_for: Option<(Option<Rule>, String)>,
    /// Rules that blocked it, with the milliseconds of each.
    pub blocked_ms: Vec<(Rule, Millis)>,
    /// A rung of its ladder was left untried because a count was used up.
    pub budget_spent: bool,
    /// Its ladder; what a pool's consent or a host's role forbids is not on it.
    pub ladder: Vec<Rung>,
}

/// Rules whose wait is a budget or a brake, not a failure to heal: where one of these held an incident up, it was not
/// free to be healed in time.
const HELD_UP: &[u8] = &[
    4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 25, 27, 28, 29, 31, 33, 45, 46, 47, 48, 49, 50, 51, 52,
    58, 59,
];

impl IncidentStats {
    /// A budget or a brake held it up for more than the five seconds in which queues move.
    #[must_use]
    pub fn held_up(&self) -> bool {
        self.blocked_ms.iter().any(|(rule, ms)| *ms > 5_000 && HELD_UP.contains(&rule.0))
    }

    /// Its fault is one that a rung of ours cures, it did not pass by itself, and no brake held it up.
    #[must_use]
    pub fn curable(&self) -> bool {
        let brakes = |(rule, _): &(Option<Rule>, String)| rule.is_none_or(|r| HELD_UP.contains(&r.0));
        let waits_on_brake = self.waiting_for.as_ref().is_some_and(brakes);
        let cure = self.cure.is_some_and(Cure::by_us);
        // Ready again, and kept from service by the budget of heals (rule 8).
        let too_often = self.end == Some(End::Quarantined) && self.timings.ready.is_some();
        let on_ladder = self.ladder.iter().any(|rung| match self.cure {
            Some(Cure::Component) => matches!(rung, Rung::RestartComponent(_)),
            Some(Cure::Reimage) => matches!(rung, Rung::Reimage),
            _ => matches!(rung, Rung::PowerCycle),
        });
        cure && on_ladder
            && !self.budget_spent
            && !too_often
            && !self.held_up()
            && !waits_on_brake
            && self.end != Some(End::Aborted)
    }

    /// It ended with a host in service.
    #[must_use]
    pub fn healed(&self) -> bool {
        matches!(self.end, Some(End::Healed | End::Replaced))
    }
}

/// All counts of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The seed.
    pub seed: u64,
    /// Hosts.
    pub hosts: u32,
    /// World time that passed.
    pub world_ms: Millis,
    /// Incidents, by opening.
    pub incidents: Vec<IncidentStats>,
    /// Faults injected, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Diagnoses that an incident bore at any time, each counted once per incident.
    pub diagnoses: BTreeMap<Diagnosis, u64>,
    /// Rungs entered.
    pub rungs: BTreeMap<Rung, u64>,
    /// Power or reboot commands that reached a host which was healthy just before, from the truth. *Healthy* = kernel, kubelet
    /// and the path to the API work, for at least the second that the last probe before a command takes.
    pub healthy_power_cycled: u64,
    /// When and which.
    pub healthy_cycled_at: Vec<(WorldTime, HostId)>,
    /// Hosts power-cycled, in any state.
    pub power_offs: u64,
    /// Decisions.
    pub decisions: u64,
    /// Calls outside.
    pub calls: u64,
    /// Pages.
    pub pages: u64,
    /// What the modelled operator did, by word.
    pub operator: BTreeMap<&'static str, u64>,
    /// Explanations by rule and code: how often a notice carried them.
    pub explained: BTreeMap<(Option<Rule>, String), u64>,
    /// Hosts unhealthy at the end, with the fault they have.
    pub unhealthy_at_end: Vec<(HostId, Option<&'static str>)>,
    /// Appliance restarts.
    pub restarts: u64,
}

impl Stats {
    /// Host-hours simulated.
    #[must_use]
    pub fn host_hours(&self) -> u64 {
        self.world_ms * u64::from(self.hosts) / healing::time::HOUR
    }
}
