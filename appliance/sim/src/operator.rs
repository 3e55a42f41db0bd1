//! The modelled person: reads pages after some minutes, approves, denies, repairs, confirms, resets, and now and then
//! errs (a wrong serial, a denial that was not needed).

use crate::chance::Chance;
use crate::reality::Reality;
use crate::watch::{GroundTruth, WorldTime};
use healing::command::Notice;
use healing::event::{Operator, Scope};
use healing::id::{HostId, IncidentId, MachineId};
use healing::signal::Power;
use healing::time::{MINUTE, Millis};
use healing::world::World;
use healing::world::host::{Lifecycle, Link};
use healing::world::incident::{Incident, Phase, Rung};
use std::collections::BTreeMap;

/// What a person was paged about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Page {
    /// The host, if about one.
    pub host: Option<HostId>,
    /// The incident, if in one.
    pub incident: Option<IncidentId>,
    /// The code of the explanation.
    pub code: String,
}

/// What a person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Looks at what the page was about and decides then.
    Decide(Page),
    /// Orders something through the appliance.
    Order(Operator),
    /// Repairs a host and its BMC with hands.
    Repair(HostId),
    /// Switches a host off at the machine.
    PullPlug(HostId),
}

impl Act {
    /// Its word in the counts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Act::Decide(_) => "look",
            Act::Repair(_) => "repair",
            Act::PullPlug(_) => "pull-plug",
            Act::Order(order) => match order {
                Operator::Pause { paused: true, .. } => "pause",
                Operator::Pause { paused: false, .. } => "unpause",
                Operator::ObserveOnly(_) => "observe-only",
                Operator::AcceptUnknownBudgets => "accept-unknown-budgets",
                Operator::Arm { .. } => "arm",
                Operator::Approve { .. } => "approve",
                Operator::Deny { .. } => "deny",
                Operator::ConfirmOff { .. } => "confirm-off",
                Operator::ResetBreaker => "reset-breaker",
                Operator::LiftPowerFreeze => "lift-power-freeze",
                Operator::ReleaseHosts { .. } => "release-hosts",
                Operator::Maintenance { .. } => "maintenance",
                Operator::ReturnHost(_) => "return-host",
                Operator::ColdStart { .. } => "cold-start",
                Operator::EndColdStart => "end-cold-start",
                Operator::RequestHeal(_) => "request-heal",
                Operator::Prove { .. } => "prove",
                Operator::Drill { .. } => "drill",
            },
        }
    }
}

/// Acts to come, with their moments.
type Plan = Vec<(WorldTime, Act)>;

/// The person on duty.
#[derive(Debug, Clone)]
pub struct Person {
    chance: Chance,
    busy: BTreeMap<Page, WorldTime>,
}

impl Person {
    /// A person, with habits of their own.
    #[must_use]
    pub fn new(seed: u64) -> Person {
        Person { chance: Chance::new(seed ^ 0x0e25), busy: BTreeMap::new() }
    }

    /// A page came. It is read after some minutes; the same page again meanwhile changes nothing.
    pub fn paged(&mut self, at: WorldTime, notice: &Notice, world: &World, reality: &Reality) -> Plan {
        let _ = (world, reality);
        let page = Page { host: notice.host, incident: notice.incident, code: notice.explanation.code.to_string() };
        if self.busy.get(&page).is_some_and(|until| *until > at) {
            return Vec::new();
        }
        let when = at + self.chance.between(2 * MINUTE, 9 * MINUTE);
        self.busy.insert(page.clone(), when + 5 * MINUTE);
        vec![(when, Act::Decide(page))]
    }

    /// The page is read: what is to be done now.
    pub fn react(&mut self, at: WorldTime, page: &Page, world: &World, reality: &Reality) -> Plan {
        let mut plan = Vec::new();
        self.react_to_site(at, world, &mut plan);
        let Some(host) = page.host else { return plan };
        let incident = world.incident_of(host);
        match incident {
            Some(incident) => self.react_to_incident(at, page, incident, world, reality, &mut plan),
            None => self.react_to_quarantine(at, host, world, reality, &mut plan),
        }
        plan
    }

    fn react_to_site(&mut self, at: WorldTime, world: &World, plan: &mut Plan) {
        if world.site.power_freeze.is_some() {
            let wrong: Vec<HostId> = world.hosts.values().filter(|h| h.link == Link::Mismatch).map(|h| h.id).collect();
            let hands = if wrong.is_empty() { 0 } else { 15 * MINUTE };
            plan.extend(wrong.into_iter().map(|host| (at + hands, Act::Repair(host))));
            plan.push((at + hands + MINUTE, Act::Order(Operator::LiftPowerFreeze)));
        }
        if world.site.breaker.is_some() {
            plan.push((at + 2 * MINUTE, Act::Order(Operator::ResetBreaker)));
        }
        for cluster in world.clusters.values().filter(|c| c.freeze.is_some()) {
            if self.chance.percent(15)
                && let Some(bad) = world.tallies.clusters.get(&cluster.id).map(|t| &t.bad)
            {
                let hosts: Vec<HostId> = bad.iter().copied().take(3).collect();
                plan.push((at + MINUTE, Act::Order(Operator::ReleaseHosts { cluster: cluster.id, hosts })));
            }
        }
        // Who has more hosts does not pause the site for each of them.
        let hosts = world.hosts.len() as u64;
        if self.chance.percent(2) && (hosts <= 100 || self.chance.below(hosts) < 100) {
            plan.push((at, Act::Order(Operator::Pause { scope: Scope::Site, paused: true })));
            let span = self.chance.between(MINUTE, 4 * MINUTE);
            plan.push((at + span, Act::Order(Operator::Pause { scope: Scope::Site, paused: false })));
        }
    }

    fn react_to_incident(
        &mut self,
        at: WorldTime,
        page: &Page,
        incident: &Incident,
        world: &World,
        reality: &Reality,
        plan: &mut Plan,
    ) {
        let host = incident.host;
        if incident.phase == Phase::Unfenced {
            self.react_to_unfenced(at, host, incident, world, reality, plan);
            return;
        }
        let code = incident.wait.as_ref().map_or(page.code.as_str(), |wait| wait.why.code.as_ref());
        let hands = match code {
            "needs-a-person"
            | "lost-network"
            | "bmc-unreachable"
            | "certificate-expiring"
            | "not-linked"
            | "self"
            | "lease-renewed"
            | "ready"
            | "power-on-failed"
            | "marks-stay"
            | "still-trying" => true,
            "would-kill-containers" | "no-agent" => self.chance.percent(50),
            _ => false,
        };
        if hands || incident.current_rung() == Rung::Human {
            let when = at + self.chance.between(5 * MINUTE, 40 * MINUTE);
            plan.push((when, Act::Repair(host)));
        } else if self.chance.percent(4) {
            // No, that one by hand.
            plan.push((at, Act::Order(Operator::Deny { incident: incident.id })));
            plan.push((at + self.chance.between(10 * MINUTE, 40 * MINUTE), Act::Repair(host)));
        } else {
            let rung = incident.current_rung();
            plan.push((at, Act::Order(Operator::Approve { incident: incident.id, rung })));
        }
    }

    /// Goes to the rack: makes sure that it is off, reads its serial, types it. Or mends its BMC.
    fn react_to_unfenced(
        &mut self,
        at: WorldTime,
        host: HostId,
        incident: &Incident,
        world: &World,
        reality: &Reality,
        plan: &mut Plan,
    ) {
        let walk = self.chance.between(3 * MINUTE, 20 * MINUTE);
        let machine = world.hosts.get(&host).map_or(MachineId(0), |h| h.machine);
        match self.chance.below(10) {
            0..=5 => {
                if reality.power(host) != Power::Off {
                    plan.push((at + walk, Act::PullPlug(host)));
                }
                if self.chance.percent(20) {
                    // Reads the label of the machine above.
                    let wrong = MachineId(machine.0 ^ 0xff);
                    let order = Operator::ConfirmOff { incident: incident.id, machine: wrong };
                    plan.push((at + walk + MINUTE, Act::Order(order)));
                }
                let order = Operator::ConfirmOff { incident: incident.id, machine };
                plan.push((at + walk + 2 * MINUTE, Act::Order(order)));
            }
            6..=8 => plan.push((at + walk, Act::Repair(host))),
            _ => {
                plan.push((at + walk, Act::Order(Operator::Deny { incident: incident.id })));
                plan.push((at + walk + 10 * MINUTE, Act::Repair(host)));
            }
        }
    }

    fn react_to_quarantine(&mut self, at: WorldTime, host: HostId, world: &World, reality: &Reality, plan: &mut Plan) {
        let Some(record) = world.hosts.get(&host) else { return };
        if !matches!(record.lifecycle, Lifecycle::Quarantined { .. }) {
            return;
        }
        let span: Millis = self.chance.between(20 * MINUTE, 60 * MINUTE);
        if !reality.healthy(host) {
            plan.push((at + span, Act::Repair(host)));
        }
        plan.push((at + span + 10 * MINUTE, Act::Order(Operator::ReturnHost(host))));
    }
}
