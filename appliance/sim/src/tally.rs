//! The ledger of a run: raw counts, kept as it goes.

use crate::fault::Fault;
use crate::reality::{Clock, Reality};
use crate::simulation::Sent;
use crate::site::Site;
use crate::stats::{IncidentStats, Stats};
use crate::watch::{GroundTruth, WorldTime};
use healing::command::{BmcCall, Call, Loudness, Notice};
use healing::event::Change;
use healing::id::{HostId, IncidentId};
use healing::time::Elapsed;
use healing::world::World;
use healing::world::host::Role;
use healing::world::incident::{Diagnosis, Incident, Rung};
use std::collections::BTreeMap;

/// A host that got well less than this before a command reached it cannot be known to be well by anybody: the last
/// probe before the command has this deadline.
pub const KNOWABLE_MS: healing::time::Millis = 1_000;

/// Rules that count: what is allowed per host, pool, version and site, and what a control-plane host is ever allowed.
const BUDGETS: &[u8] = &[8, 11, 12, 14, 15, 22];

/// What the ledger keeps of an open incident.
#[derive(Debug, Clone)]
struct Open {
    opened_at: WorldTime,
    silent_at: Option<WorldTime>,
    fault: Option<Fault>,
    diagnoses: Vec<Diagnosis>,
    rungs: Vec<Rung>,
    rung_index: Option<usize>,
    spent: bool,
}

/// The ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The counts.
    pub stats: Stats,
    open: BTreeMap<IncidentId, Open>,
}

impl Ledger {
    /// An empty ledger for a site.
    #[must_use]
    pub fn new(site: &Site) -> Ledger {
        let hosts = u32::try_from(site.hosts.len()).unwrap_or(u32::MAX);
        Ledger { stats: Stats { seed: site.seed, hosts, ..Stats::default() }, open: BTreeMap::new() }
    }

    /// A decision was committed.
    pub fn decided(&mut self, at: WorldTime, changes: &[Change], notices: &[Notice], reality: &Reality, clock: &Clock) {
        for notice in notices {
            self.stats.pages += u64::from(notice.loudness == Loudness::Page);
            let key = (notice.explanation.rule, notice.explanation.code.to_string());
            *self.stats.explained.entry(key).or_insert(0) += 1;
        }
        // A rung that was left without being tried, because a count of its own is used up.
        let left_unused = notices.iter().filter(|n| n.explanation.code == "next-rung");
        for notice in left_unused {
            let counted = notice.explanation.rule.is_some_and(|rule| BUDGETS.contains(&rule.0));
            if let Some(open) = notice.incident.and_then(|id| self.open.get_mut(&id)) {
                open.spent |= counted;
            }
        }
        for change in changes {
            match change {
                Change::Incident(incident) => self.note(at, incident, reality),
                Change::Ended(incident) => {
                    self.note(at, incident, reality);
                    if let Some(open) = self.open.remove(&incident.id) {
                        self.stats.incidents.push(entry(incident, &open, at, clock));
                    }
                }
                Change::Limits { .. }
                | Change::Site(_)
                | Change::Cluster(_)
                | Change::Pool(_)
                | Change::Domain(_)
                | Change::Version(_)
                | Change::Host(_)
                | Change::Assessed { .. }
                | Change::RemoveHost(_)
                | Change::Acted { .. } => {}
            }
        }
    }

    fn note(&mut self, at: WorldTime, incident: &Incident, reality: &Reality) {
        let open = self.open.entry(incident.id).or_insert_with(|| Open {
            opened_at: at,
            silent_at: reality.silent_at.get(&incident.host).copied(),
            fault: reality.faults.get(&incident.host).copied(),
            diagnoses: Vec::new(),
            rungs: Vec::new(),
            rung_index: None,
            spent: false,
        });
        if open.silent_at.is_none() {
            open.silent_at = reality.silent_at.get(&incident.host).copied();
        }
        if !open.diagnoses.contains(&incident.diagnosis) {
            open.diagnoses.push(incident.diagnosis);
            *self.stats.diagnoses.entry(incident.diagnosis).or_insert(0) += 1;
        }
        // A rung is taken when something is done on it, not when it is merely next.
        let entered =
            incident.reservation.is_some() || incident.running.is_some() || incident.current_rung() == Rung::Human;
        if entered && open.rung_index != Some(incident.rung) {
            open.rung_index = Some(incident.rung);
            open.rungs.push(incident.current_rung());
            *self.stats.rungs.entry(incident.current_rung()).or_insert(0) += 1;
        }
    }

    /// A call took effect.
    pub fn called(&mut self, at: WorldTime, sent: &Sent, actual: Option<HostId>, was_healthy: bool) {
        self.stats.calls += 1;
        let off = matches!(sent.call, Call::Bmc(_, BmcCall::ForceOff) | Call::OutletsOff);
        // An orderly reboot of a living host is what a soft reboot is; whether it was due is for the checkers.
        self.stats.power_offs += u64::from(off);
        if off && was_healthy {
            self.stats.healthy_power_cycled += 1;
            self.stats.healthy_cycled_at.extend(actual.map(|host| (at, host)));
        }
    }

    /// Closes the books: open incidents are counted as open.
    pub fn close(&mut self, at: WorldTime, world: &World, reality: &Reality, clock: &Clock) {
        self.stats.world_ms = at;
        for incident in world.incidents.values() {
            if let Some(open) = self.open.remove(&incident.id) {
                self.stats.incidents.push(entry(incident, &open, at, clock));
            }
        }
        self.stats.incidents.sort_by_key(|i| i.id);
        let ill = |host: &HostId| {
            let carries = reality.duties.get(host).is_some_and(|d| d.role != Role::Spare);
            carries && !reality.healthy(*host)
        };
        self.stats.unhealthy_at_end =
            reality.hosts().into_iter().filter(ill).map(|h| (h, reality.fault(h).map(|f| f.name()))).collect();
    }
}

fn entry(incident: &Incident, open: &Open, at: WorldTime, clock: &Clock) -> IncidentStats {
    let since = |moment: Option<Elapsed>| {
        let silent = open.silent_at?;
        clock.world(moment?).checked_sub(silent)
    };
    IncidentStats {
        id: incident.id,
        host: incident.host,
        diagnosis: incident.diagnosis,
        phase: incident.phase,
        permit: incident.reservation.is_some(),
        end: incident.end,
        opened_at: open.opened_at,
        ended_at: at,
        silent_at: open.silent_at,
        permit_ms: since(incident.timings.permitted),
        proven_ms: since(incident.timings.proven_off),
        released_ms: since(incident.timings.released),
        timings: incident.timings,
        rungs: open.rungs.clone(),
        fault: open.fault.map(|f| f.name()),
        cure: open.fault.map(|f| f.cure()),
        waiting_for: incident.wait.as_ref().map(|w| (w.why.rule, w.why.code.to_string())),
        blocked_ms: incident.blocked_ms.clone(),
        budget_spent: open.spent,
        ladder: incident.rungs.clone(),
    }
}
