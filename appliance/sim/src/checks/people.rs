//! Rules 45 to 54, 58 and 59: what people and the state of the appliance forbid.

use super::{breach, cuts, disruptive, view};
use crate::watch::{Breach, Called, Checker, Decided, GroundTruth};
use healing::command::{Call, Intent};
use healing::event::{Event, Operator, Scope};
use healing::id::{DomainId, HostId};
use healing::signal::Component;
use healing::time::Elapsed;
use healing::world::World;
use healing::world::host::CmdbState;
use healing::world::incident::Rung;
use healing::world::scope::{Consent, DomainKind};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct People {
    started: Option<Elapsed>,
    stalled: Option<Elapsed>,
    store_failed: bool,
    lease_until: Option<Elapsed>,
    paused: BTreeMap<(u8, u32), Elapsed>,
    on: BTreeMap<DomainId, Elapsed>,
}

fn key(scope: Scope) -> (u8, u32) {
    match scope {
        Scope::Site => (0, 0),
        Scope::Cluster(id) => (1, u32::from(id.0)),
        Scope::Domain(id) => (2, id.0),
        Scope::Host(id) => (3, id.0),
    }
}

impl People {
    fn paused_since(&self, world: &World, host: HostId) -> Option<Elapsed> {
        let record = world.hosts.get(&host)?;
        let cluster = record.cluster.map(|c| (1, u32::from(c.0)));
        let domains = record.domains.iter().map(|d| (2, d.0));
        let keys = [(0, 0), (3, host.0)].into_iter().chain(cluster).chain(domains);
        keys.filter_map(|k| self.paused.get(&k).copied()).min()
    }
}

impl Checker for People {
    fn decided(&mut self, decided: &Decided<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        let mut found = Vec::new();
        let now = decided.now.elapsed;
        let world = decided.world;
        match decided.event {
            Event::Started { lease_until, .. } => {
                self.started = Some(now);
                self.lease_until = Some(*lease_until);
                // A process that opens the store finds out for itself.
                self.store_failed = false;
            }
            Event::Lease { until, .. } => self.lease_until = Some(*until),
            Event::Stalled { .. } => self.stalled = Some(now),
            Event::Store { healthy } => {
                self.store_failed = !healthy;
                if *healthy {
                    self.started = Some(now);
                }
            }
            Event::Operator(Operator::Pause { scope, paused: true }) => {
                self.paused.entry(key(*scope)).or_insert(now);
            }
            Event::Operator(Operator::Pause { scope, paused: false }) => {
                self.paused.remove(&key(*scope));
            }
            _ => {}
        }
        let observe = world.limits.start_observe_ms;
        for (ordered, incident) in disruptive(decided) {
            let Some(host) = world.hosts.get(&ordered.host) else { continue };
            let mut say = |rule, what: &str| found.push(breach(rule, decided.at, Some(host.id), what));
            if self.started.is_some_and(|at| now.since(at) < observe) {
                say(45, "taken down within 120 s of a start");
            }
            if self.stalled.is_some_and(|at| now.since(at) < observe) {
                say(47, "taken down within 120 s of a stall, on old evidence");
            }
            if self.lease_until.is_some_and(|until| until.since(now) < 10_000) {
                say(46, "taken down within 10 s of the end of the appliance lease");
            }
            if self.store_failed {
                say(48, "taken down while the store fails");
            }
            let foreign = host.assessment.node.is_some_and(|n| n.foreign_mark);
            let upgrade = view(decided.event).and_then(|v| v.sight.cluster.as_ref()).is_some_and(|c| c.upgrade_running);
            let maintained = host.marks.maintenance_until.is_some_and(|until| now < until);
            if foreign || upgrade || maintained || host.marks.cmdb == CmdbState::Other {
                say(50, "taken down though a mark, a window, an upgrade or the CMDB forbids it");
            }
            if !host.cluster.and_then(|c| world.clusters.get(&c)).is_some_and(|c| c.armed) {
                say(52, "taken down in a cluster that nobody armed");
            }
            if host.marks.is_self {
                say(59, "a host that carries the appliance is taken down");
            }
            if world.site.cold_start.is_some() {
                say(58, "taken down while a cold start is armed");
            }
            let rung = incident.current_rung();
            let asks = world.pools.get(&host.pool).is_some_and(|pool| match rung {
                Rung::SoftReboot => pool.soft_reboot == Consent::Ask,
                Rung::Reimage => pool.reimage == Consent::Ask,
                _ => false,
            });
            if asks {
                let fits = incident.approval.is_some_and(|a| {
                    a.rung == rung
                        && !a.expires.passed(decided.now)
                        && a.boot == host.assessment.node.map(|n| n.boot)
                        && a.diagnosis == incident.diagnosis
                });
                if !fits {
                    say(51, "a rung that needs approval without one that fits what is seen now");
                }
            }
        }
        // Rule 58: at most one power-on per PDU every 5 s.
        if world.site.cold_start.is_some() {
            for ordered in decided.ordered.iter().filter(|o| matches!(o.intent, Intent::PowerOn { .. })) {
                let Some(host) = world.hosts.get(&ordered.host) else { continue };
                for domain in &host.domains {
                    if world.domains.get(domain).is_none_or(|d| d.kind != DomainKind::Pdu) {
                        continue;
                    }
                    if self.on.insert(*domain, now).is_some_and(|at| now.since(at) < 4_900) {
                        found.push(breach(58, decided.at, Some(host.id), "two power-ons on one PDU within 5 s"));
                    }
                }
            }
        }
        found
    }

    fn called(&mut self, called: &Called<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        if !cuts(called) {
            return Vec::new();
        }
        let paused = self.paused_since(called.world, called.target);
        if paused.is_some_and(|at| called.sent_at.since(at) > 1_000) {
            return vec![breach(49, called.at, Some(called.target), "a disruptive call more than 1 s after a pause")];
        }
        Vec::new()
    }
}

/// Rules 53 and 54.
#[derive(Debug, Default)]
pub(crate) struct Components {
    restarts: BTreeMap<HostId, Vec<Elapsed>>,
}

impl Checker for Components {
    fn called(&mut self, called: &Called<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        let Call::RestartComponent(component) = called.call else { return Vec::new() };
        let mut found = Vec::new();
        let now = called.sent_at;
        let restarts = self.restarts.entry(called.target).or_default();
        restarts.retain(|at| now.since(*at) < 1_800_000);
        if restarts.len() >= 3 {
            found.push(breach(53, called.at, Some(called.target), "a fourth component restart within 30 min"));
        }
        restarts.push(now);
        let Some(host) = called.world.hosts.get(&called.target) else { return found };
        let kills = host.assessment.agent.is_some_and(|a| a.runtime_restart_kills);
        let consents = called.world.pools.get(&host.pool).is_some_and(|p| p.runtime_restart);
        if component == Component::Runtime && kills && !consents {
            found.push(breach(
                54,
                called.at,
                Some(called.target),
                "a runtime restart that kills containers without consent",
            ));
        }
        found
    }
}
