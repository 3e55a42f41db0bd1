//! Rules 29, 43 and 50 at spares: started only with the right to it, used only when proven, off again after a proof, which
//! writes nothing; and a host that was replaced is never switched on again.

use super::breach;
use crate::watch::{Breach, Called, Checker, Decided, GroundTruth, WorldTime};
use healing::command::{BmcCall, Call, Intent};
use healing::event::{Change, Event, Operator};
use healing::id::{HostId, IncidentId};
use healing::signal::Power;
use healing::time::Millis;
use healing::world::host::Link;
use healing::world::incident::{End, Purpose};
use std::collections::{BTreeMap, BTreeSet};

const DAY: Millis = 86_400_000;
/// As long as a forced off may take, with its readings.
const FREEZE_GRACE_MS: Millis = 90_000;

#[derive(Debug, Default)]
pub(crate) struct Spares {
    /// Spares that a person ordered to be proven, typing what is written on them.
    ordered: BTreeSet<HostId>,
    /// Spares that had a fresh proof when they were chosen.
    chosen: BTreeSet<HostId>,
    /// Hosts whose place another took.
    replaced: BTreeSet<HostId>,
    /// Since when all power is frozen.
    frozen_since: Option<WorldTime>,
    /// Writes to the disk of a spare when its proof began.
    written: BTreeMap<IncidentId, u32>,
}

impl Checker for Spares {
    fn decided(&mut self, decided: &Decided<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let world = decided.world;
        self.frozen_since = world.site.power_freeze.as_ref().and(self.frozen_since.or(Some(decided.at)));
        match decided.event {
            Event::Operator(Operator::Prove { host, machine }) => {
                // An order that was refused gives no right.
                let taken =
                    |h: &healing::world::host::Host| h.machine.same_machine(*machine) && h.history.proof_ordered;
                if world.hosts.get(host).is_some_and(taken) {
                    self.ordered.insert(*host);
                }
            }
            Event::Operator(Operator::ReturnHost(host)) => {
                self.replaced.remove(host);
            }
            _ => {}
        }
        for ordered in decided.ordered {
            let mut say = |rule, what: &str| found.push(breach(rule, decided.at, Some(ordered.host), what));
            let incident = world.incidents.get(&ordered.incident);
            match ordered.intent {
                Intent::Promote(spare) => {
                    let before = decided.before.hosts.get(&spare).and_then(|h| h.as_ref());
                    let proof = before.or(world.hosts.get(&spare)).and_then(|h| h.spare_proof);
                    if proof.is_some_and(|p| p.passed && decided.now.elapsed.since(p.at) <= 7 * DAY) {
                        self.chosen.insert(spare);
                    } else {
                        say(43, "a spare without a fresh proof takes a role");
                    }
                }
                Intent::ArmBoot(_) => {
                    let takes = incident.is_some_and(|i| matches!(i.purpose, Purpose::TakePlace { .. }));
                    if takes && !self.chosen.contains(&ordered.host) {
                        say(43, "a spare is installed that was never proven");
                    }
                }
                Intent::ArmProof(_) => {
                    self.written.entry(ordered.incident).or_insert_with(|| truth.disk_writes(ordered.host));
                    if world.incidents.values().filter(|i| i.proves()).count() > 1 {
                        say(43, "two spares are proven at once");
                    }
                }
                _ => {}
            }
        }
        for change in decided.changes {
            let Change::Ended(incident) = change else { continue };
            match incident.end {
                Some(End::Replaced) => {
                    self.replaced.insert(incident.host);
                }
                Some(End::Proven | End::Unproven) => {
                    let writes = self.written.remove(&incident.id);
                    if writes.is_some_and(|writes| writes != truth.disk_writes(incident.host)) {
                        found.push(breach(43, decided.at, Some(incident.host), "the proof of a spare wrote its disk"));
                    }
                    let spare = matches!(incident.purpose, Purpose::Prove { .. });
                    if spare && incident.end == Some(End::Proven) && truth.power(incident.host) != Power::Off {
                        found.push(breach(43, decided.at, Some(incident.host), "a spare is left on after its proof"));
                    }
                    self.ordered.remove(&incident.host);
                }
                _ => {}
            }
        }
        found
    }

    fn called(&mut self, called: &Called<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        // A step that was begun before the alarm may still be on its way for as long as it may take.
        let frozen = called.world.site.power_freeze.is_some();
        if super::cuts(called) && frozen && self.frozen_since.is_some_and(|at| called.at > at + FREEZE_GRACE_MS) {
            return vec![breach(29, called.at, Some(called.target), "power is cut while an identity alarm froze it")];
        }
        let starts = matches!(called.call, Call::Bmc(_, BmcCall::PowerOn | BmcCall::GracefulRestart) | Call::OutletsOn);
        if !starts {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut say = |rule, what: &str| found.push(breach(rule, called.at, Some(called.target), what));
        if self.replaced.contains(&called.target) {
            say(43, "a host that was replaced is switched on");
        }
        let alarm = matches!(called.intent, Intent::PowerOn { alarm: true });
        let (host, incident) = (called.world.hosts.get(&called.target), called.world.incidents.get(&called.incident));
        if let (Some(host), Some(incident), false) = (host, incident, alarm) {
            let allowed = host.link == Link::Linked || self.ordered.contains(&called.target);
            if incident.of_spare() && !allowed {
                say(29, "a spare that is not linked is started without the order of a person");
            }
            if incident.proves() && incident.ending.is_some() {
                say(43, "a spare whose proof failed is started again");
            }
        }
        found
    }
}
