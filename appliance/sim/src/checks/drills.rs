//! Rules 4, 14, 33 and 45 to 52 at drills: the one off of a host that is not ill. It needs a person who typed what is written
//! on the machine a moment ago, a cordon that is not ours, and a host that is Ready; it happens once, and the host is on at
//! its end.

use super::{breach, view};
use crate::watch::{Breach, Called, Checker, Decided, GroundTruth};
use healing::command::{BmcCall, Call, Intent};
use healing::event::{Change, Event, Operator, Scope};
use healing::id::{HostId, IncidentId};
use healing::signal::Power;
use healing::time::{Elapsed, MINUTE};
use healing::world::host::Link;
use healing::world::incident::End;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Drills {
    /// Hosts that a person ordered to be drilled, and when.
    ordered: BTreeMap<HostId, Elapsed>,
    /// When the appliance started.
    started: Option<Elapsed>,
    /// The site is paused.
    paused: bool,
    /// Drills whose off was ordered.
    cut: BTreeSet<IncidentId>,
}

impl Checker for Drills {
    fn decided(&mut self, decided: &Decided<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let (now, world) = (decided.now.elapsed, decided.world);
        match decided.event {
            Event::Started { .. } => self.started = Some(now),
            Event::Operator(Operator::Pause { scope: Scope::Site, paused }) => self.paused = *paused,
            Event::Operator(Operator::Drill { host, machine })
                if world.hosts.get(host).is_some_and(|h| h.machine.same_machine(*machine)) =>
            {
                self.ordered.insert(*host, now);
            }
            _ => {}
        }
        for ordered in decided.ordered.iter().filter(|o| o.intent == Intent::ForceOff { found_off: false }) {
            let Some(incident) = world.incidents.get(&ordered.incident).filter(|i| i.drills()) else { continue };
            let Some(host) = world.hosts.get(&ordered.host) else { continue };
            let mut say = |rule, what: &str| found.push(breach(rule, decided.at, Some(host.id), what));
            if !self.cut.insert(incident.id) {
                // The same step once more after its executor was lost; it reads before it writes.
                continue;
            }
            if self.ordered.remove(&host.id).is_none_or(|at| now.since(at) > MINUTE) {
                say(51, "a drill that nobody ordered a moment ago");
            }
            if !host.assessment.node.is_some_and(|n| n.cordoned) || host.our_cordon.is_some() {
                say(50, "a drill of a host that no person has cordoned");
            }
            if !host.ready() || host.control_plane() {
                say(1, "a drill of a host that is not Ready, or of the control plane");
            }
            if host.link != Link::Linked || world.site.power_freeze.is_some() {
                say(29, "a drill of a host that is not linked, or while all power is frozen");
            }
            if self.started.is_some_and(|at| now.since(at) < world.limits.start_observe_ms) {
                say(45, "a drill within 120 s of a start");
            }
            if self.paused || host.marks.paused {
                say(49, "a drill through a pause");
            }
            if !host.cluster.and_then(|c| world.clusters.get(&c)).is_some_and(|c| c.armed) {
                say(52, "a drill in a cluster that nobody armed");
            }
            if view(decided.event).is_some_and(|v| !v.sight.link || !v.sight.gateway) {
                say(4, "a drill while own sight is bad");
            }
        }
        for change in decided.changes {
            let Change::Ended(incident) = change else { continue };
            if incident.drills() && incident.end == Some(End::Proven) && truth.power(incident.host) != Power::On {
                found.push(breach(42, decided.at, Some(incident.host), "a drill passed and its host is not on"));
            }
        }
        found
    }

    fn called(&mut self, called: &Called<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        let off = matches!(called.call, Call::Bmc(_, BmcCall::ForceOff));
        let drill = called.world.incidents.get(&called.incident).is_some_and(|i| i.drills());
        if off && drill && !self.cut.contains(&called.incident) {
            return vec![breach(44, called.at, Some(called.target), "the off of a drill left before it was ordered")];
        }
        Vec::new()
    }
}
