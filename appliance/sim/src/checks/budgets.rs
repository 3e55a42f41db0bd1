//! Rules 11 to 17.

use super::{breach, disruptive};
use crate::watch::{Breach, Checker, Decided, GroundTruth};
use healing::command::Intent;
use healing::event::{Event, Operator};
use healing::id::{DomainId, HostId};
use healing::time::{Elapsed, Millis};
use healing::world::World;
use healing::world::host::{Lifecycle, Role};
use healing::world::incident::Rung;
use healing::world::scope::{DomainKind, ObserveOnly};
use std::collections::BTreeMap;

const DAY: Millis = 86_400_000;

#[derive(Debug, Default)]
pub(crate) struct Budgets {
    actions: Vec<Elapsed>,
    cycles: BTreeMap<HostId, Vec<Elapsed>>,
    reimages: BTreeMap<HostId, Vec<Elapsed>>,
    breaker: bool,
    spares_at_first: Option<u64>,
    power_steps: BTreeMap<(healing::id::IncidentId, Elapsed), u32>,
    corrupt: bool,
    fenced: BTreeMap<HostId, Option<(healing::id::IncidentId, Elapsed)>>,
}

fn spares(world: &World) -> u64 {
    world.hosts.values().filter(|h| h.role == Role::Spare && h.lifecycle == Lifecycle::InService).count() as u64
}

impl Checker for Budgets {
    fn decided(&mut self, decided: &Decided<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let now = decided.now.elapsed;
        let world = decided.world;
        if self.spares_at_first.is_none() && !world.hosts.is_empty() && decided.event.host().is_some() {
            self.spares_at_first = Some(spares(world));
        }
        self.breaker = world.site.breaker.is_some();
        if matches!(decided.event, Event::Started { corrupt: true, .. }) {
            self.corrupt = true;
        }
        if matches!(decided.event, Event::Operator(Operator::ObserveOnly(_) | Operator::AcceptUnknownBudgets)) {
            self.corrupt = world.site.observe_only == Some(ObserveOnly::Corrupt);
        }
        let breaker_before = decided.before.site.as_ref().map_or(self.breaker, |s| s.breaker.is_some());
        for (ordered, incident) in disruptive(decided) {
            let Some(host) = world.hosts.get(&ordered.host) else { continue };
            // Outlets after a force-off without effect belong to the same fence: one action, one cycle.
            let fence = incident.reservation.as_ref().map(|r| (incident.id, r.at));
            if fence.is_some() && self.fenced.insert(host.id, fence) == Some(fence) {
                continue;
            }
            let mut say = |rule, what: String| found.push(breach(rule, decided.at, Some(host.id), what));
            // Rule 12.
            if host.ready() || host.assessment.answers() {
                let peers = world.hosts.values().filter(|h| h.cluster == host.cluster && h.serves());
                let open = |h: &&healing::world::host::Host| {
                    h.our_cordon.is_none() && h.assessment.node.is_some_and(|n| !n.cordoned)
                };
                let schedulable: Vec<_> = peers.filter(open).collect();
                let ready = schedulable.iter().filter(|h| h.ready() && h.id != host.id).count();
                if ready * 2 < schedulable.len() {
                    say(
                        12,
                        format!("{} answers and only {ready} of {} would stay Ready", host.name, schedulable.len()),
                    );
                }
            }
            // Rule 13.
            let all = world.hosts.len() as u64;
            let per_10min = 3.max(all / 1_000);
            let per_hour = 10.max(all * 5 / 1_000).min(60);
            let count = |span: Millis| self.actions.iter().filter(|at| now.since(**at) < span).count() as u64;
            if count(600_000) >= per_10min || count(3_600_000) >= per_hour {
                say(13, "the fleet's rate is exceeded".to_owned());
            }
            if breaker_before {
                say(13, "taken down with the breaker open".to_owned());
            }
            // Rule 14.
            let cycles = self.cycles.entry(host.id).or_default();
            let reimaging = incident.current_rung() == Rung::Reimage;
            if !reimaging {
                if cycles.last().is_some_and(|at| now.since(*at) < 900_000) {
                    say(14, format!("{} is power-cycled twice within 15 min", host.name));
                }
                if cycles.iter().filter(|at| now.since(**at) < DAY).count() >= 3 {
                    say(14, format!("{} is power-cycled a fourth time in 24 h", host.name));
                }
                cycles.push(now);
            } else {
                let done = self.reimages.entry(host.id).or_default();
                if done.iter().any(|at| now.since(*at) < DAY)
                    || done.iter().filter(|at| now.since(**at) < 7 * DAY).count() >= 2
                {
                    say(14, format!("{} is reimaged too often", host.name));
                }
                done.push(now);
            }
            self.actions.push(now);
            // Rule 17.
            if self.corrupt {
                say(17, "taken down on a corrupt budget".to_owned());
            }
        }
        for ordered in decided.ordered {
            let Some(host) = world.hosts.get(&ordered.host) else { continue };
            match ordered.intent {
                Intent::ArmBoot(_) => {
                    let failed = host.versions.iter().filter_map(|v| world.versions.get(v)).any(|v| v.failures >= 2);
                    if failed {
                        found.push(breach(15, decided.at, Some(host.id), "reimaged with a version that failed twice"));
                    }
                }
                Intent::Promote(_) => {
                    let left = spares(world);
                    let reserve = 1.min(self.spares_at_first.unwrap_or(0).saturating_sub(1));
                    if left <= reserve {
                        found.push(breach(16, decided.at, Some(host.id), "the reserve of spares is used for a worker"));
                    }
                }
                Intent::ForceOff { found_off: false } => {
                    if let Some(at) =
                        world.incidents.get(&ordered.incident).and_then(|i| i.reservation.as_ref()).map(|r| r.at)
                    {
                        let steps = self.power_steps.entry((ordered.incident, at)).or_default();
                        *steps += 1;
                        if *steps > 6 {
                            found.push(breach(
                                14,
                                decided.at,
                                Some(host.id),
                                "more than six power steps under one permit",
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        if super::reserves(decided) {
            found.extend(concurrency(decided));
        }
        found
    }
}

/// Rule 11, from the open reservations.
fn concurrency(decided: &Decided<'_>) -> Vec<Breach> {
    let mut found = Vec::new();
    let world = decided.world;
    let open = world.incidents.values().filter_map(|i| i.reservation.as_ref().map(|r| (i, r)));
    let mut by_domain: BTreeMap<DomainId, u32> = BTreeMap::new();
    let mut off = BTreeMap::new();
    for (incident, reservation) in open {
        for domain in &reservation.domains {
            if world.domains.get(domain).is_some_and(|d| d.kind != DomainKind::Unlabelled) {
                *by_domain.entry(*domain).or_default() += 1;
            }
        }
        if let Some(cluster) = reservation.cluster
            && !reservation.read_on
        {
            *off.entry(cluster).or_insert(0usize) += 1;
        }
        let _ = incident;
    }
    if let Some((domain, count)) = by_domain.iter().find(|(_, count)| **count > 1) {
        found.push(breach(11, decided.at, None, format!("{count} hosts of domain {} are healed at once", domain.0)));
    }
    for (cluster, count) in off {
        let workers =
            world.hosts.values().filter(|h| h.cluster == Some(cluster) && h.serves() && !h.control_plane()).count();
        // A host may leave service while its own heal is open; one more than the share is the tolerance for that.
        let most = (workers / 10).max(1);
        if count > most + 1 || (count > most && workers % 10 != 9) {
            found.push(breach(
                11,
                decided.at,
                None,
                format!("{count} hosts of cluster {} are down by us, {most} are allowed", cluster.0),
            ));
        }
    }
    found
}
