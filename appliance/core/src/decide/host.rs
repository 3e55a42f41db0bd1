//! Events about one host: what was seen is put into its record, its scopes are looked at, and its incident goes on.

use super::Case;
use crate::command::{Outcome, StepResult};
use crate::event::{InstallReport, View};
use crate::heal;
use crate::id::{HostId, IncidentId, JobId, StepId};
use crate::observe;
use crate::rules::Rules;
use crate::scope_watch;
use crate::time::Now;
use crate::world::World;

/// A fact or a wake-up.
pub(super) fn seen<R: Rules>(rules: R, world: &World, host: HostId, view: &View, now: Now) -> Outcome<R> {
    let Some(mut case) = Case::open(rules, world, host, view, now) else { return Outcome::default() };
    observe::observe(&mut case);
    scope_watch::watch(&mut case);
    heal::advance(&mut case);
    case.close()
}

/// The result of a step. One that is not awaited (cancelled, or from before a restart) changes nothing.
pub(super) fn step_done<R: Rules>(
    rules: R,
    world: &World,
    host: HostId,
    of: (IncidentId, StepId),
    result: &StepResult,
    view: &View,
    now: Now,
) -> Outcome<R> {
    let Some(mut case) = Case::open(rules, world, host, view, now) else { return Outcome::default() };
    observe::observe(&mut case);
    scope_watch::watch(&mut case);
    let awaited = case
        .incident
        .as_ref()
        .filter(|i| i.id == of.0)
        .and_then(|i| i.running.as_ref())
        .filter(|running| running.step == of.1)
        .map(|running| running.intent);
    if let Some(intent) = awaited {
        if let Some(incident) = &mut case.incident {
            incident.running = None;
        }
        heal::result(&mut case, intent, result);
    }
    heal::advance(&mut case);
    case.close()
}

/// The installer's word about a job.
pub(super) fn install_report<R: Rules>(
    rules: R,
    world: &World,
    host: HostId,
    job: JobId,
    report: InstallReport,
    view: &View,
    now: Now,
) -> Outcome<R> {
    let Some(mut case) = Case::open(rules, world, host, view, now) else { return Outcome::default() };
    observe::observe(&mut case);
    scope_watch::watch(&mut case);
    if case.incident.as_ref().is_some_and(|i| i.job == Some(job)) {
        heal::install_report(&mut case, report);
    }
    heal::advance(&mut case);
    case.close()
}
