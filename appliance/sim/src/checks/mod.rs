//! The checks: every rule that the core or its step machines own, looked at from outside. They recompute from ground
//! truth, from the calls that left and from the events; they never ask the code that they check.

mod budgets;
mod drills;
mod evidence;
mod fencing;
mod healing_end;
mod people;
mod planes;
mod spares;
mod tallies;

use crate::watch::{Breach, Called, Checker, Decided, Ordered, WorldTime};
use healing::command::{BmcCall, Call, Intent};
use healing::event::{Change, Event, View};
use healing::id::HostId;
use healing::rules::Rule;
use healing::world::incident::Incident;

/// All checks, fresh.
#[must_use]
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::<tallies::Tallies>::default(),
        Box::<evidence::Evidence>::default(),
        Box::<evidence::Correlated>::default(),
        Box::<budgets::Budgets>::default(),
        Box::<planes::Planes>::default(),
        Box::<fencing::Fencing>::default(),
        Box::<fencing::Steps>::default(),
        Box::<spares::Spares>::default(),
        Box::<drills::Drills>::default(),
        Box::<healing_end::Ends>::default(),
        Box::<people::People>::default(),
        Box::<people::Components>::default(),
    ]
}

pub(crate) fn breach(rule: u8, at: WorldTime, host: Option<HostId>, what: impl Into<String>) -> Breach {
    Breach { rule: Rule(rule), at, host, what: what.into() }
}

/// The first disruptive order of a rung: a force-off of ours or an orderly reboot. The second off of an install belongs
/// to the permit of the first. Drills are looked at by a check of their own.
pub(crate) fn disruptive<'a>(decided: &'a Decided<'_>) -> impl Iterator<Item = (&'a Ordered, &'a Incident)> {
    decided.ordered.iter().filter_map(|ordered| {
        let incident = decided.world.incidents.get(&ordered.incident)?;
        if incident.drills() {
            return None;
        }
        let first = incident.reservation.as_ref().is_none_or(|r| r.power_steps <= 1);
        let counts = match ordered.intent {
            Intent::ForceOff { found_off: false } | Intent::SoftReboot | Intent::OutletsOff => first,
            _ => false,
        };
        counts.then_some((ordered, incident))
    })
}

/// Whether an incident that holds a permit changed: only then can too many of them be open.
pub(crate) fn reserves(decided: &Decided<'_>) -> bool {
    decided.changes.iter().any(|change| matches!(change, Change::Incident(i) if i.reservation.is_some()))
}

/// The host's view that an event carried.
pub(crate) fn view(event: &Event) -> Option<&View> {
    match event {
        Event::Fact { view, .. }
        | Event::Wake { view, .. }
        | Event::StepDone { view, .. }
        | Event::Install { view, .. } => Some(view),
        _ => None,
    }
}

/// A call that takes a machine down.
pub(crate) fn cuts(call: &Called<'_>) -> bool {
    matches!(call.call, Call::Bmc(_, BmcCall::ForceOff | BmcCall::GracefulRestart) | Call::OutletsOff)
}

/// A call that writes to the power of a machine.
pub(crate) fn writes_power(call: &Called<'_>) -> bool {
    cuts(call) || matches!(call.call, Call::Bmc(_, BmcCall::PowerOn | BmcCall::SetNetworkBootOnce))
}
