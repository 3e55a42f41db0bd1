//! The one decision: what an event means for the world, and what is to be done about it.
//!
//! Pure: it reads the world, the event and the moment it is told. Bad input is an explained refusal, never an error.

mod case;
mod configure;
mod host;
mod operate;
mod site;

pub use case::Case;

use crate::command::Outcome;
use crate::event::Event;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::time::Now;
use crate::world::World;

/// Decides one event against the world as it is.
#[must_use]
pub fn decide<R: Rules>(rules: R, world: &World, event: &Event, now: Now) -> Outcome<R> {
    match event {
        Event::Started { restored, corrupt, observe_only, lease_until, epoch } => {
            let why = site::Start { restored: *restored, corrupt: *corrupt, observe_only: *observe_only };
            site::started(rules, world, why, *lease_until, *epoch, now)
        }
        Event::Fact { host, view } | Event::Wake { host, view } => host::seen(rules, world, *host, view, now),
        Event::StepDone { host, incident, step, result, view } => {
            host::step_done(rules, world, *host, (*incident, *step), result, view, now)
        }
        Event::Install { host, job, report, view } => {
            host::install_report(rules, world, *host, *job, *report, view, now)
        }
        Event::Sight(sight) => site::sight(rules, world, sight, now),
        Event::Operator(order) => operate::order(world, order, now),
        Event::Config(config) => configure::configure(world, config, now),
        Event::Stalled { stalled_ms } => site::stalled(rules, world, *stalled_ms, now),
        Event::Store { healthy } => site::store(rules, world, *healthy, now),
        Event::Lease { until, epoch } => site::lease(world, *until, *epoch, now),
    }
}

/// Why a host is not being healed right now, or what happens next: for page, API and pager (rule 56).
#[must_use]
pub fn explain(world: &World, host: crate::id::HostId) -> Option<Explanation> {
    let incident = world.incident_of(host)?;
    if let Some(wait) = &incident.wait {
        return Some(wait.why.clone());
    }
    Some(Explanation::note(
        "healing",
        format!("{:?} on rung {:?}, phase {:?}", incident.diagnosis, incident.current_rung(), incident.phase),
    ))
}
