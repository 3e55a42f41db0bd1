//! The fleet-wide counts against a count from scratch, and the two-way references between hosts and incidents.

use super::breach;
use crate::watch::{Breach, Checker, Decided, GroundTruth};
use healing::world::tally::Tallies as Counts;

/// Up to this many hosts the count is made after every event.
const EVERY_EVENT_HOSTS: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Tallies {
    unchecked: usize,
}

impl Checker for Tallies {
    fn decided(&mut self, decided: &Decided<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        if decided.changes.is_empty() {
            return Vec::new();
        }
        let world = decided.world;
        // A count costs as much as there are hosts. In a large fleet it is made before anything is ordered, and between
        // orders after so many events that its cost per event stays that of a small one.
        self.unchecked += EVERY_EVENT_HOSTS;
        if decided.ordered.is_empty() && self.unchecked < world.hosts.len() {
            return Vec::new();
        }
        self.unchecked = 0;
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
