//! The evidence of all hosts, owned by the loop: signals are folded here, outside the journal, and only a changed
//! assessment becomes a fact.

use healing::assess::NetworkState;
use healing::event::View;
use healing::evidence::{self, Evidence};
use healing::id::{ClusterId, HostId};
use healing::policy::Limits;
use healing::sight::{ClusterSight, OwnSight};
use healing::signal::{Seen, Signal, Source};
use healing::time::{Elapsed, MINUTE, Millis, Now};
use healing::world::World;
use healing::world::host::{Host, Lifecycle};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A BMC that answered within this counts for own sight when it goes dumb (terms, *own sight*).
const BMC_RECENT_MS: Millis = 10 * MINUTE;

#[derive(Debug)]
struct Entry {
    evidence: Evidence,
    cluster: Option<ClusterId>,
    /// When time alone changes the assessment.
    due: Option<Elapsed>,
    /// It waits in `facts`.
    queued: bool,
    /// It is watched and counts for own sight.
    watched: bool,
}

/// Evidence by host, own sight, and the hosts whose assessment changed since their last event.
#[derive(Debug, Default)]
pub(super) struct EvidenceTable {
    hosts: HashMap<HostId, Entry>,
    /// Hosts with a new assessment, each at most once: the event carries the evidence of the moment it is decided.
    facts: VecDeque<HostId>,
    sight: OwnSight,
    clusters: BTreeMap<ClusterId, ClusterSight>,
}

impl EvidenceTable {
    /// An entry for each host of the world. Nothing seen before now counts; what was last known is kept as such.
    #[must_use]
    pub(super) fn of(world: &World, now: Now) -> EvidenceTable {
        let mut table = EvidenceTable::default();
        for host in world.hosts.values() {
            table.know(host, now);
        }
        table
    }

    /// A host is new, or its record changed.
    pub(super) fn know(&mut self, host: &Host, now: Now) {
        let watched = host.serves();
        if host.lifecycle == Lifecycle::Retired {
            self.forget(host.id);
            return;
        }
        if let Some(entry) = self.hosts.get_mut(&host.id) {
            entry.cluster = host.cluster;
            entry.watched = watched;
            return;
        }
        let mut evidence = Evidence::default();
        evidence.void(now);
        evidence.assessment = host.assessment;
        self.hosts.insert(host.id, Entry { evidence, cluster: host.cluster, due: None, queued: false, watched });
    }

    /// A host left.
    pub(super) fn forget(&mut self, host: HostId) {
        self.hosts.remove(&host);
    }

    /// Folds what was seen of one host.
    pub(super) fn fold(&mut self, host: HostId, signals: &[Signal], limits: &Limits, now: Now) {
        let Some(entry) = self.hosts.get_mut(&host) else {
            // A prober that has not yet heard of a removal.
            return;
        };
        let before = entry.evidence.assessment;
        for signal in signals {
            evidence::fold(&mut entry.evidence, signal, limits, now);
        }
        entry.due = evidence::next_by_time(&entry.evidence, limits, now);
        if entry.evidence.assessment != before && !entry.queued {
            entry.queued = true;
            self.facts.push_back(host);
        }
    }

    /// Looks again at the hosts whose assessment changes by time alone.
    pub(super) fn pass_time(&mut self, limits: &Limits, now: Now) {
        for (&host, entry) in &mut self.hosts {
            if entry.due.is_none_or(|due| due > now.elapsed) {
                continue;
            }
            let changed = evidence::reassess(&mut entry.evidence, limits, now).is_some();
            entry.due = evidence::next_by_time(&entry.evidence, limits, now);
            if changed && !entry.queued {
                entry.queued = true;
                self.facts.push_back(host);
            }
        }
    }

    /// The next host with a new assessment.
    pub(super) fn next_fact(&mut self) -> Option<HostId> {
        while let Some(host) = self.facts.pop_front() {
            if let Some(entry) = self.hosts.get_mut(&host)
                && std::mem::take(&mut entry.queued)
            {
                return Some(host);
            }
        }
        None
    }

    /// Whether a host with a new assessment waits.
    #[must_use]
    pub(super) fn has_facts(&self) -> bool {
        !self.facts.is_empty()
    }

    /// All evidence is void (rule 47). Facts that waited are void too.
    pub(super) fn void(&mut self, now: Now) {
        for entry in self.hosts.values_mut() {
            entry.evidence.void(now);
            entry.due = None;
            entry.queued = false;
        }
        self.facts.clear();
        self.sight.bmcs_recent = 0;
        self.sight.bmcs_dumb = 0;
    }

    /// What our own link, gateway and references say.
    pub(super) fn see_sight(&mut self, sight: OwnSight) {
        let counted = (self.sight.bmcs_recent, self.sight.bmcs_dumb, self.sight.hosts_watched, self.sight.hosts_silent);
        self.sight = OwnSight { cluster: None, ..sight };
        (self.sight.bmcs_recent, self.sight.bmcs_dumb, self.sight.hosts_watched, self.sight.hosts_silent) = counted;
    }

    /// What is seen of a cluster as a whole.
    pub(super) fn see_cluster(&mut self, sight: ClusterSight) {
        self.clusters.insert(sight.cluster, sight);
    }

    /// Counts the watched, the silent and the BMCs, so that a mass silence shows as what it may be: our own.
    pub(super) fn count_for_sight(&mut self, limits: &Limits, now: Now) {
        let (mut watched, mut silent, mut recent, mut dumb) = (0, 0, 0, 0);
        for entry in self.hosts.values() {
            let network = entry.evidence.assessment.network;
            // A host that no probe was ever sent to says nothing about our eyes.
            if entry.watched && network != NetworkState::Unknown {
                watched += 1;
                silent += u32::from(network == NetworkState::Silent);
            }
            let power = entry.evidence.slot(Source::Power);
            let answered = power.runs().filter(|run| matches!(run.seen, Seen::Power(..))).map(|run| run.last).max();
            if answered.is_some_and(|at| now.elapsed.since(at) <= BMC_RECENT_MS) {
                recent += 1;
                let gone = power.latest().is_some_and(|run| {
                    matches!(run.seen, Seen::Trouble(_)) && u64::from(run.count) >= limits.samples_min
                });
                dumb += u32::from(gone);
            }
        }
        self.sight.hosts_watched = watched;
        self.sight.hosts_silent = silent;
        self.sight.bmcs_recent = recent;
        self.sight.bmcs_dumb = dumb;
    }

    /// Own sight of the site as a whole.
    #[must_use]
    pub(super) fn sight(&self) -> &OwnSight {
        &self.sight
    }

    /// What an event about a host carries.
    #[must_use]
    pub(super) fn view(&self, host: HostId) -> View {
        let entry = self.hosts.get(&host);
        let cluster = entry.and_then(|entry| entry.cluster).and_then(|id| self.clusters.get(&id)).cloned();
        View {
            evidence: entry.map(|entry| entry.evidence.clone()).unwrap_or_default(),
            sight: OwnSight { cluster, ..self.sight.clone() },
        }
    }
}
