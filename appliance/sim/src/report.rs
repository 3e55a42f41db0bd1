//! The statistics of many runs: what `simulate` prints, and the thresholds that keep it from being vacuous.

use crate::fault::Cure;
use crate::run::Run;
use crate::stats::IncidentStats;
use healing::time::{HOUR, Millis};
use healing::world::incident::{Diagnosis, End, Rung};
use serde::Serialize;
use std::collections::BTreeMap;

/// A share of a sorted list of spans: median, 95th and 99th percentile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Median in milliseconds.
    pub p50_ms: Millis,
    /// 95th percentile in milliseconds.
    pub p95_ms: Millis,
    /// 99th percentile in milliseconds.
    pub p99_ms: Millis,
}

impl Spread {
    fn of(mut spans: Vec<Millis>) -> Spread {
        spans.sort_unstable();
        let at = |percent: usize| spans.get(spans.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
        Spread { count: spans.len() as u64, p50_ms: at(50), p95_ms: at(95), p99_ms: at(99) }
    }
}

/// A breach with its seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeedBreach {
    /// The seed.
    pub seed: u64,
    /// The rule; 0 = the counts themselves.
    pub rule: u8,
    /// When, in milliseconds of world time.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

/// Most breaches that are kept by their words.
const BREACHES_KEPT: usize = 100;

/// The report of many runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Seeds run.
    pub seeds: u64,
    /// Host-hours simulated.
    pub host_hours: u64,
    /// Faults injected.
    pub faults: u64,
    /// Incidents opened.
    pub incidents: u64,
    /// Of those, ended as healed or replaced.
    pub healed: u64,
    /// Rule breaks.
    pub rule_breaks: u64,
    /// Healthy hosts whose power was cut.
    pub healthy_power_cycled: u64,
    /// World seconds per second of one core.
    pub real_time_factor: f64,
    /// Incidents by diagnosis, each counted under every diagnosis it bore.
    pub by_diagnosis: BTreeMap<String, u64>,
    /// Incidents by end.
    pub by_end: BTreeMap<String, u64>,
    /// Rungs taken.
    pub by_rung: BTreeMap<String, u64>,
    /// Time from opening to the end of healed incidents that took power.
    pub time_to_heal: Spread,
    /// From silence to the permit, of hosts that went wholly silent.
    pub silence_to_permission: Spread,
    /// From silence to the release of workloads, of hosts that went wholly silent.
    pub silence_to_release: Spread,
    /// The same to the permit where a rule itself asks for 60 s: only the kernel answers, or the API went with the host.
    pub slow_to_permission: Spread,
    /// The same to the release.
    pub slow_to_release: Spread,
    /// Incidents open at the end, by the rule that blocks them.
    pub blocked_by_rule: BTreeMap<String, u64>,
    /// Hosts with a fault that we can cure, of an incident that no budget, freeze, person or mark held up.
    pub curable: u64,
    /// Of those, healed.
    pub curable_healed: u64,
    /// Hosts with an incident.
    pub hosts_ill: u64,
    /// Of those, how many ended the run in an incident that waits.
    pub hosts_blocked: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Pages sent.
    pub pages: u64,
    /// Breaches, the first hundred.
    pub breaches: Vec<SeedBreach>,
    #[serde(skip)]
    world_ms: u64,
    #[serde(skip)]
    heals: Vec<Millis>,
    #[serde(skip)]
    permits: Vec<Millis>,
    #[serde(skip)]
    releases: Vec<Millis>,
    #[serde(skip)]
    slow_permits: Vec<Millis>,
    #[serde(skip)]
    slow_releases: Vec<Millis>,
}

fn word<T: std::fmt::Debug>(value: &T) -> String {
    let text = format!("{value:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

impl Report {
    /// Takes a run in.
    pub fn add(&mut self, run: &Run) {
        let stats = &run.stats;
        self.seeds += 1;
        self.world_ms += stats.world_ms;
        self.host_hours += stats.host_hours();
        self.faults += stats.faults.values().sum::<u64>();
        self.healthy_power_cycled += stats.healthy_power_cycled;
        self.rule_breaks += run.breaches.len() as u64;
        self.decisions += stats.decisions;
        self.pages += stats.pages;
        let room = BREACHES_KEPT.saturating_sub(self.breaches.len());
        self.breaches.extend(run.breaches.iter().take(room).map(|b| SeedBreach {
            seed: stats.seed,
            rule: b.rule.0,
            at_ms: b.at,
            what: b.what.clone(),
        }));
        for (diagnosis, count) in &stats.diagnoses {
            *self.by_diagnosis.entry(word(diagnosis)).or_default() += count;
        }
        for (rung, count) in &stats.rungs {
            *self.by_rung.entry(word(rung)).or_default() += count;
        }
        let mut ill = BTreeMap::new();
        for incident in &stats.incidents {
            self.incident(incident);
            let waits = incident.end.is_none() && incident.waiting_for.is_some();
            *ill.entry(incident.host).or_insert(false) |= waits;
        }
        self.hosts_ill += ill.len() as u64;
        self.hosts_blocked += ill.values().filter(|waits| **waits).count() as u64;
    }

    fn incident(&mut self, incident: &IncidentStats) {
        self.incidents += 1;
        let healed = matches!(incident.end, Some(End::Healed | End::Replaced));
        self.healed += u64::from(healed);
        let end = incident.end.map_or_else(|| "Open".to_owned(), |end| format!("{end:?}"));
        *self.by_end.entry(end).or_default() += 1;
        if incident.end.is_none() {
            let rule = incident.waiting_for.as_ref().and_then(|w| w.0);
            let name = rule.map_or_else(|| "none".to_owned(), |r| r.to_string());
            if incident.waiting_for.is_some() {
                *self.blocked_by_rule.entry(name).or_default() += 1;
            }
        }
        let powered = incident.timings.off_ordered.is_some();
        if healed && powered {
            self.heals.push(incident.ended_at.saturating_sub(incident.opened_at));
        }
        // The promise of seconds is about hosts that went silent and that no brake held up.
        if !incident.held_up() && powered && incident.silent_at.is_some() {
            let slow = matches!(incident.diagnosis, Diagnosis::HostHung | Diagnosis::VipLost)
                || incident.fault == Some("userspace-dead");
            let (permits, releases) = match slow {
                true => (&mut self.slow_permits, &mut self.slow_releases),
                false => (&mut self.permits, &mut self.releases),
            };
            permits.extend(incident.permit_ms.filter(|ms| *ms < HOUR));
            releases.extend(incident.released_ms.filter(|ms| *ms < HOUR));
        }
        if incident.curable() {
            self.curable += 1;
            self.curable_healed += u64::from(healed);
        }
    }

    /// Finishes the figures; `core_seconds` is the processor time that the runs took.
    pub fn finish(&mut self, core_seconds: f64) {
        self.time_to_heal = Spread::of(std::mem::take(&mut self.heals));
        self.silence_to_permission = Spread::of(std::mem::take(&mut self.permits));
        self.silence_to_release = Spread::of(std::mem::take(&mut self.releases));
        self.slow_to_permission = Spread::of(std::mem::take(&mut self.slow_permits));
        self.slow_to_release = Spread::of(std::mem::take(&mut self.slow_releases));
        #[allow(clippy::cast_precision_loss)] // A ratio for display.
        let world_seconds = self.world_ms as f64 / 1_000.0;
        self.real_time_factor = if core_seconds > 0.0 { (world_seconds / core_seconds).round() } else { 0.0 };
    }

    /// Takes another report in (from another core), before either is finished.
    pub fn merge(&mut self, other: Report) {
        self.seeds += other.seeds;
        self.host_hours += other.host_hours;
        self.faults += other.faults;
        self.incidents += other.incidents;
        self.healed += other.healed;
        self.rule_breaks += other.rule_breaks;
        self.healthy_power_cycled += other.healthy_power_cycled;
        self.curable += other.curable;
        self.curable_healed += other.curable_healed;
        self.hosts_ill += other.hosts_ill;
        self.hosts_blocked += other.hosts_blocked;
        self.decisions += other.decisions;
        self.pages += other.pages;
        self.world_ms += other.world_ms;
        for (ours, theirs) in [
            (&mut self.by_diagnosis, other.by_diagnosis),
            (&mut self.by_end, other.by_end),
            (&mut self.by_rung, other.by_rung),
            (&mut self.blocked_by_rule, other.blocked_by_rule),
        ] {
            for (key, count) in theirs {
                *ours.entry(key).or_default() += count;
            }
        }
        self.breaches.extend(other.breaches);
        self.breaches.sort_by_key(|b| (b.seed, b.at_ms));
        self.breaches.truncate(BREACHES_KEPT);
        self.heals.extend(other.heals);
        self.permits.extend(other.permits);
        self.releases.extend(other.releases);
        self.slow_permits.extend(other.slow_permits);
        self.slow_releases.extend(other.slow_releases);
    }

    /// What would make a long ring vacuous: too few faults, diagnoses or rungs never reached, hosts left behind.
    #[must_use]
    pub fn vacuous(&self) -> Vec<String> {
        let mut found = Vec::new();
        // A twentieth below the mean is left to chance.
        if self.faults * 21 < self.host_hours * 2 {
            found.push(format!("{} faults in {} host-hours: fewer than one per 10", self.faults, self.host_hours));
        }
        if self.curable_healed * 100 < self.curable * 99 {
            found.push(format!(
                "{} of {} curable incidents were healed: fewer than 99 %",
                self.curable_healed, self.curable
            ));
        }
        if self.hosts_blocked * 100 > self.hosts_ill * 5 {
            found.push(format!("{} of {} ill hosts ended blocked: more than 5 %", self.hosts_blocked, self.hosts_ill));
        }
        for diagnosis in DIAGNOSES {
            let count = self.by_diagnosis.get(*diagnosis).copied().unwrap_or(0);
            if count < 100 {
                found.push(format!("diagnosis {diagnosis} was made {count} times, fewer than 100"));
            }
        }
        for rung in [Rung::SoftReboot, Rung::PowerCycle, Rung::Reimage, Rung::Replace, Rung::Prove, Rung::Human] {
            let count = self.by_rung.get(&word(&rung)).copied().unwrap_or(0);
            if count < 100 {
                found.push(format!("rung {rung:?} was taken {count} times, fewer than 100"));
            }
        }
        found
    }
}

/// Every diagnosis of the core.
const DIAGNOSES: &[&str] = &[
    "ComponentFailed",
    "CertificateExpiring",
    "Rebooting",
    "HostHung",
    "KernelDead",
    "PoweredOff",
    "BootFailed",
    "NodeLostNetwork",
    "HardwareFault",
    "DiskOrOsBroken",
    "Flapping",
    "ApiUnreachable",
    "VipLost",
    "DomainOutage",
    "SiteStorm",
    "Blind",
    "BmcUnreachable",
    "Unknown",
];

/// Whether a cure is one of ours.
impl Cure {
    /// A rung of the appliance cures it.
    #[must_use]
    pub fn by_us(self) -> bool {
        matches!(self, Cure::Component | Cure::Restart | Cure::PowerCycle | Cure::Reimage)
    }
}
