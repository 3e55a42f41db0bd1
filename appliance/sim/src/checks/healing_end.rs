//! Rules 8 (return), 42, 43 (quarantine), 55: how heals end.

use super::breach;
use crate::watch::{Breach, Checker, Decided, Ended, GroundTruth, Interruption, WorldTime};
use healing::event::{Change, Event, Operator};
use healing::id::{HostId, IncidentId};
use healing::time::{Elapsed, Millis};
use healing::world::host::Lifecycle;
use healing::world::incident::End;
use std::collections::BTreeMap;

/// How often all incidents are looked at for silence.
const SCAN_MS: Millis = 60_000;
/// A page may be late by this: the wake-up and its commit.
const SLACK_MS: Millis = 90_000;

#[derive(Debug, Default)]
pub(crate) struct Ends {
    ready_since: BTreeMap<HostId, Elapsed>,
    heals: BTreeMap<HostId, Vec<Elapsed>>,
    last_word: BTreeMap<IncidentId, Elapsed>,
    next_scan: Elapsed,
    resumed_at: Elapsed,
}

impl Checker for Ends {
    fn interrupted(&mut self, _at: WorldTime, _by: u8, _how: Interruption, _: &dyn GroundTruth) -> Vec<Breach> {
        self.resumed_at = self.next_scan.plus(SCAN_MS);
        Vec::new()
    }

    fn decided(&mut self, decided: &Decided<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let now = decided.now.elapsed;
        if let Some(host) = decided.event.host().and_then(|id| decided.world.hosts.get(&id)) {
            if host.ready() && host.assessment.answers() {
                self.ready_since.entry(host.id).or_insert(now);
            } else {
                self.ready_since.remove(&host.id);
            }
        }
        if let Event::Operator(Operator::ReturnHost(host)) = decided.event {
            self.heals.remove(host);
        }
        if matches!(decided.event, Event::Stalled { .. } | Event::Started { .. } | Event::Store { .. }) {
            // Nobody can speak who does not run, or who has nothing to write on.
            self.last_word.values_mut().for_each(|word| *word = now);
        }
        for notice in decided.notices {
            if let Some(incident) = notice.incident {
                self.last_word.insert(incident, now);
            }
        }
        for change in decided.changes {
            let Change::Ended(incident) = change else { continue };
            self.last_word.remove(&incident.id);
            let Some(host) = decided.world.hosts.get(&incident.host) else { continue };
            let powered = incident.timings.off_ordered.is_some();
            if truth.ticket(host.id).is_some_and(|job| job.0 >> 8 == incident.id.0) {
                found.push(breach(
                    35,
                    decided.at,
                    Some(host.id),
                    "the boot ticket of an incident that is over is open",
                ));
            }
            if incident.end == Some(End::Healed) {
                let soaked = self.ready_since.get(&host.id).map_or(0, |at| now.since(*at));
                let least = if powered { 299_000 } else { 59_000 };
                if soaked < least {
                    found.push(breach(
                        42,
                        decided.at,
                        Some(host.id),
                        format!("called healed after {} s of Ready", soaked / 1_000),
                    ));
                }
                let same_boot =
                    host.assessment.node.map(|n| n.boot) == incident.boot_before && incident.boot_before.is_some();
                if powered && same_boot {
                    found.push(breach(42, decided.at, Some(host.id), "called healed with the boot that fell ill"));
                }
                let heals = self.heals.entry(host.id).or_default();
                if powered && heals.iter().any(|at| now.since(*at) < 86_400_000) {
                    found.push(breach(8, decided.at, Some(host.id), "returned by itself after a second heal in 24 h"));
                }
                heals.push(now);
            }
            let rebooted = host.assessment.node.is_some_and(|n| Some(n.boot) != incident.boot_before);
            let in_service = host.our_cordon.is_none() && host.assessment.node.is_some_and(|n| !n.cordoned);
            if incident.end == Some(End::Aborted) && !incident.denied && powered && rebooted && in_service {
                found.push(breach(42, decided.at, Some(host.id), "in service without soak and canary after our off"));
            }
            if incident.end == Some(End::Replaced) && !matches!(host.lifecycle, Lifecycle::Quarantined { .. }) {
                found.push(breach(43, decided.at, Some(host.id), "replaced but not quarantined"));
            }
        }
        if now >= self.next_scan {
            self.next_scan = now.plus(SCAN_MS);
            let skip = self.resumed_at > now;
            for incident in decided.world.incidents.values().filter(|_| !skip) {
                let word = *self.last_word.entry(incident.id).or_insert(now);
                if now.since(word) > 600_000 + SLACK_MS {
                    found.push(breach(
                        55,
                        decided.at,
                        Some(incident.host),
                        "nothing was heard of its incident for more than 10 min",
                    ));
                    self.last_word.insert(incident.id, now);
                }
            }
        }
        found
    }

    fn ended(&mut self, ended: &Ended<'_>, truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        for host in ended.world.hosts.values() {
            // Nobody is stranded: what we hold off belongs to an incident that is still open.
            if let Some(holding) = host.held_off
                && !ended.world.incidents.contains_key(&holding)
            {
                found.push(breach(49, ended.at, Some(host.id), "held off by an incident that is over"));
            }
            let taint = truth.node(host.id).and_then(|n| n.taint);
            if taint.is_some_and(|incident| !ended.world.incidents.contains_key(&incident)) && host.our_taint.is_none()
            {
                found.push(breach(26, ended.at, Some(host.id), "a taint of ours is left at the end"));
            }
        }
        found
    }
}
