//! The fleet-wide counts against a count from scratch, and the two-way references between hosts and incidents.

use super::breach;
use crate::watch::{Breach, Checker, Decided, GroundTruth};
use healing::world::tally::Tallies as Counts;

#[derive(Debug, Default)]
pub(crate) struct Tallies;

impl Checker for Tallies {
    fn decided(&mut self, decided: &Decided<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        if decided.changes.is_empty() {
            return Vec::new();
        }
        let world = decided.world;
        let fresh = Counts::recount(world.hosts.values(), world.incidents.values(), world.tallies.actions.clone());
        let mut breaches = Vec::new();
        if fresh.normalised() != world.tallies.clone().normalised() {
            breaches.push(breach(0, decided.at, None, "the tallies differ from a count from scratch"));
        }
        for incident in world.incidents.values() {
            let names = world.hosts.get(&incident.host).and_then(|h| h.incident);
            if names != Some(incident.id) {
                breaches.push(breach(
                    0,
                    decided.at,
                    Some(incident.host),
                    "an open incident that its host does not name",
                ));
            }
        }
        breaches
    }
}
