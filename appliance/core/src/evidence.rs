//! Evidence: the bounded recent signals of a host, kept as runs of equal samples in one fixed slot per source.
//!
//! `fold` is O(1), allocates nothing and knows no host but this one. It returns a [`Assessment`] when what the
//! sources mean has changed under policy; that is a *fact*, and only facts reach the journal.

use crate::assess::{Assessment, BmcState, LeaseState, NetworkState, Probe};
use crate::policy::Limits;
use crate::signal::{AgentReport, Power, Seen, Signal, Source};
use crate::time::{Elapsed, Millis, Now, SECOND};
use serde::{Deserialize, Serialize};

/// Runs kept per source: enough to see what it said before it went silent, and one bounce.
pub const RUNS_PER_SOURCE: usize = 3;

/// Reports of the agent older than this say nothing (it pushes every 2 s).
const AGENT_AGE_MS: Millis = 15 * SECOND;

/// Samples with the same content, seen one after the other. A BMC without a reading is one content, whatever the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What was seen; of a BMC that gives no reading the newest cause.
    pub seen: Seen,
    /// First sample.
    pub first: Elapsed,
    /// Last sample.
    pub last: Elapsed,
    /// Samples, saturating.
    pub count: u32,
}

/// The runs of one source, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slot {
    runs: [Option<Run>; RUNS_PER_SOURCE],
}

impl Slot {
    /// The newest run.
    #[must_use]
    pub fn latest(&self) -> Option<&Run> {
        self.runs[0].as_ref()
    }

    /// All runs, newest first.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().flatten()
    }

    /// The newest run if it shows `seen`.
    #[must_use]
    pub fn while_seen(&self, seen: Seen) -> Option<&Run> {
        self.latest().filter(|run| run.seen == seen)
    }

    /// When `seen` was last sampled in the kept runs.
    #[must_use]
    pub fn last_seen(&self, seen: Seen) -> Option<Elapsed> {
        self.runs().find(|run| run.seen == seen).map(|run| run.last)
    }

    fn push(&mut self, signal: &Signal) {
        if let Some(run) = self.runs[0].as_mut().filter(|run| lengthens(run.seen, signal.seen)) {
            if signal.last >= run.last {
                run.seen = signal.seen;
            }
            run.last = run.last.max(signal.last);
            run.count = run.count.saturating_add(signal.count);
            return;
        }
        self.runs.rotate_right(1);
        self.runs[0] =
            Some(Run { seen: signal.seen, first: signal.first, last: signal.last, count: signal.count.max(1) });
    }
}

/// Whether a sample belongs to the run of another. A BMC whose causes alternate is as dumb as one that names the same
/// cause each time: runs of one sample each would hide that, and push its last reading out of the slot.
fn lengthens(run: Seen, sample: Seen) -> bool {
    run == sample || matches!((run, sample), (Seen::Trouble(_), Seen::Trouble(_)))
}

/// All evidence of one host. Fixed size: fifteen slots of three runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    slots: [Slot; Source::ALL.len()],
    /// Nothing before this counts (rule 47, rule 6).
    pub void_before: Elapsed,
    /// What the sources meant after the last fold.
    pub assessment: Assessment,
}

impl Evidence {
    /// The slot of a source.
    #[must_use]
    pub fn slot(&self, source: Source) -> &Slot {
        &self.slots[source as usize]
    }

    /// Throws all evidence away: the loop or a prober did not run (rule 47), or a freeze ended (rule 6). The
    /// assessment stays as the last thing known, but no run backs it until new samples come.
    pub fn void(&mut self, now: Now) {
        self.slots = Default::default();
        self.void_before = now.elapsed;
    }

    /// Age of the Lease by our last receipt of a change; `None` if none was ever received since `void_before`.
    #[must_use]
    pub fn lease_age(&self, now: Now) -> Option<Millis> {
        self.slot(Source::Lease).while_seen(Seen::Renewed).map(|run| now.elapsed.since(run.last))
    }

    /// Samples and first moment of the present silence: the fewest misses and the latest start over ICMP and both
    /// TCP ports, or `None` unless all three miss now. A source never probed does not count as a miss.
    #[must_use]
    pub fn silence(&self) -> Option<(u32, Elapsed)> {
        let runs = [Source::Icmp, Source::KubeletPort, Source::SecondPort]
            .map(|source| self.slot(source).while_seen(Seen::Miss));
        let [Some(a), Some(b), Some(c)] = runs else {
            return None;
        };
        Some((a.count.min(b.count).min(c.count), a.first.max(b.first).max(c.first)))
    }

    /// When anything of the network plane above ARP last answered, in the kept runs.
    #[must_use]
    pub fn last_answer(&self) -> Option<Elapsed> {
        let network = [Source::Icmp, Source::KubeletPort, Source::SecondPort, Source::KubeletHealth];
        let answered = network.iter().flat_map(|&s| self.slot(s).runs());
        answered.filter(|run| matches!(run.seen, Seen::Answer | Seen::Refused)).map(|run| run.last).max()
    }

    /// When the Lease was last renewed, or the node's boot changed, by our receipt.
    #[must_use]
    pub fn last_renewal(&self) -> Option<Elapsed> {
        self.slot(Source::Lease).last_seen(Seen::Renewed)
    }
}

/// Folds one signal into the evidence of its host. Returns the new assessment if it differs from the last.
///
/// A miss whose receiver was not drained in time, and any sample older than `void_before`, is dropped.
pub fn fold(evidence: &mut Evidence, signal: &Signal, limits: &Limits, now: Now) -> Option<Assessment> {
    let late_drain = signal.seen == Seen::Miss && signal.drained_after_ms > limits.drained_ms;
    if signal.first >= evidence.void_before && !late_drain {
        evidence.slots[signal.source as usize].push(signal);
    }
    reassess(evidence, limits, now)
}

/// Looks again without a new sample: time alone makes a Lease late and a report old.
pub fn reassess(evidence: &mut Evidence, limits: &Limits, now: Now) -> Option<Assessment> {
    let assessment = assess(evidence, limits, now);
    if assessment == evidence.assessment {
        return None;
    }
    evidence.assessment = assessment;
    Some(assessment)
}

/// When the assessment will next change by time alone, if no signal comes: the moment the Lease reaches its next
/// state. The prober's own second tick makes this moot in production; the simulator uses it to skip empty seconds.
#[must_use]
pub fn next_by_time(evidence: &Evidence, limits: &Limits, now: Now) -> Option<Elapsed> {
    let renewed = evidence.slot(Source::Lease).while_seen(Seen::Renewed)?.last;
    let lease = [limits.lease_late_ms, limits.lease_ready_ms, limits.lease_overdue_ms, limits.lease_expired_ms]
        .into_iter()
        .map(|age| renewed.plus(age + 1))
        .find(|&at| at > now.elapsed);
    let agent = match evidence.slot(Source::Agent).latest() {
        Some(run) => Some(run.last),
        None => evidence.assessment.agent.map(|_| evidence.void_before),
    };
    let agent = agent.map(|last| last.plus(AGENT_AGE_MS + 1));
    lease.into_iter().chain(agent.filter(|&at| at > now.elapsed)).min()
}

fn assess(evidence: &Evidence, limits: &Limits, now: Now) -> Assessment {
    let before = &evidence.assessment;
    let (network, network_since) = network(evidence, limits);
    let closed = evidence.slot(Source::HeldConnection).while_seen(Seen::Closed);
    let (power, off_cause, bmc) = out_of_band(evidence, before, limits);
    Assessment {
        network,
        network_since: if network == before.network { before.network_since } else { network_since },
        lease: lease(evidence, before, limits, now),
        node: match evidence.slot(Source::Node).latest().map(|run| run.seen) {
            Some(Seen::Node(report)) => Some(report),
            Some(Seen::NoNode) => None,
            _ => before.node,
        },
        api_server: probe(evidence, Source::ApiServer, before.api_server, limits),
        etcd_member: probe(evidence, Source::EtcdMember, before.etcd_member, limits),
        power,
        off_cause,
        bmc,
        stage: match evidence.slot(Source::BootProgress).latest().map(|run| run.seen) {
            Some(Seen::Stage(stage)) => stage,
            _ => before.stage,
        },
        hardware: match evidence.slot(Source::Hardware).latest().map(|run| run.seen) {
            Some(Seen::Health(fault)) => fault,
            _ => before.hardware,
        },
        agent: agent(evidence, before, now),
        kubelet_hung: evidence
            .slot(Source::KubeletHealth)
            .while_seen(Seen::Miss)
            .is_some_and(|run| u64::from(run.count) >= limits.samples_min),
        closed_mark: closed.map(|run| run.last),
        asked_to_boot: evidence.slot(Source::BootRequest).last_seen(Seen::AskedToBoot),
    }
}

/// The network state and since when. Between two clear states the last one stands.
fn network(evidence: &Evidence, limits: &Limits) -> (NetworkState, Elapsed) {
    let before = (evidence.assessment.network, evidence.assessment.network_since);
    let latest = |source: Source| evidence.slot(source).latest();
    let enough = |run: &&Run| u64::from(run.count) >= limits.samples_min;
    let missing = |source| evidence.slot(source).while_seen(Seen::Miss).filter(enough);
    let (kubelet, second) = (latest(Source::KubeletPort), latest(Source::SecondPort));
    let saw = |run: Option<&Run>, seen: Seen| run.filter(|r| r.seen == seen).map(|r| r.first);

    // A reset from the kubelet's port outweighs an answer from the second one: the kernel speaks, the kubelet is gone.
    if let Some(first) = saw(kubelet, Seen::Refused) {
        return (NetworkState::ProcessDead, first);
    }
    if let Some(first) = saw(kubelet, Seen::Answer).or_else(|| saw(second, Seen::Answer)) {
        // One port answering while the other misses is alive; the missing one is a component's matter.
        return (NetworkState::Alive, first);
    }
    if let Some(first) = saw(second, Seen::Refused) {
        return (NetworkState::ProcessDead, first);
    }
    let (Some(kubelet_miss), Some(second_miss)) = (missing(Source::KubeletPort), missing(Source::SecondPort)) else {
        return before;
    };
    let ports_since = kubelet_miss.first.max(second_miss.first);
    match latest(Source::Icmp) {
        Some(icmp) if icmp.seen == Seen::Answer => (NetworkState::KernelOnly, ports_since),
        Some(icmp) if icmp.seen == Seen::Miss && enough(&icmp) => (NetworkState::Silent, ports_since.max(icmp.first)),
        _ => before,
    }
}

fn lease(evidence: &Evidence, before: &Assessment, limits: &Limits, now: Now) -> LeaseState {
    let Some(age) = evidence.lease_age(now) else {
        // Voided evidence keeps the last word; a node that never renewed here has none.
        return before.lease;
    };
    if age > limits.lease_expired_ms {
        LeaseState::Expired
    } else if age > limits.lease_overdue_ms {
        LeaseState::Overdue
    } else if age > limits.lease_ready_ms {
        LeaseState::Stale
    } else if age > limits.lease_late_ms {
        LeaseState::Late
    } else {
        LeaseState::Fresh
    }
}

fn probe(evidence: &Evidence, source: Source, before: Probe, limits: &Limits) -> Probe {
    match evidence.slot(source).latest() {
        None => before,
        Some(run) => match run.seen {
            Seen::Answer => Probe::Ok,
            Seen::Miss | Seen::Refused if u64::from(run.count) >= limits.samples_min => Probe::Failing,
            _ => before,
        },
    }
}

fn out_of_band(
    evidence: &Evidence,
    before: &Assessment,
    limits: &Limits,
) -> (Power, crate::signal::OffCause, BmcState) {
    match evidence.slot(Source::Power).latest() {
        None => (before.power, before.off_cause, before.bmc),
        Some(run) => match run.seen {
            Seen::Power(power, cause) => (power, cause, BmcState::Answers),
            // Nothing is derived from a BMC that does not speak: its last word is no longer a reading.
            Seen::Trouble(why) if u64::from(run.count) >= limits.samples_min => {
                (Power::Unknown, crate::signal::OffCause::Unknown, BmcState::Trouble(why))
            }
            _ => (before.power, before.off_cause, before.bmc),
        },
    }
}

fn agent(evidence: &Evidence, before: &Assessment, now: Now) -> Option<AgentReport> {
    let Some(run) = evidence.slot(Source::Agent).latest() else {
        // Voided evidence keeps the last word, for as long as a report is good.
        return before.agent.filter(|_| now.elapsed.since(evidence.void_before) <= AGENT_AGE_MS);
    };
    match run.seen {
        Seen::Report(report) if now.elapsed.since(run.last) <= AGENT_AGE_MS => Some(report),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{BmcTrouble, OffCause};
    use crate::time::MINUTE;

    fn now(at: Elapsed) -> Now {
        Now { elapsed: at, wall_ms: 0 }
    }

    fn take(evidence: &mut Evidence, signal: Signal) {
        fold(evidence, &signal, &Limits::default(), now(signal.last));
    }

    fn power(seen: Seen, at: u64) -> Signal {
        Signal::sample(Source::Power, seen, Elapsed(at))
    }

    #[test]
    fn a_bmc_whose_trouble_alternates_is_dumb_since_the_first_of_it() {
        let mut evidence = Evidence::default();
        let on = Seen::Power(Power::On, OffCause::Unknown);
        take(&mut evidence, power(on, MINUTE));
        for turn in 2..12 {
            let why = if turn % 2 == 0 { BmcTrouble::Silent } else { BmcTrouble::Busy };
            take(&mut evidence, power(Seen::Trouble(why), turn * MINUTE));
        }
        assert_eq!(evidence.assessment.power, Power::Unknown, "nothing is derived from its last word");
        assert_eq!(evidence.assessment.bmc, BmcState::Trouble(BmcTrouble::Busy));
        let slot = evidence.slot(Source::Power);
        let run = slot.latest().unwrap();
        assert_eq!((run.first, run.last, run.count), (Elapsed(2 * MINUTE), Elapsed(11 * MINUTE), 10));
        assert_eq!(slot.last_seen(on), Some(Elapsed(MINUTE)), "when it last answered is still known");
    }

    #[test]
    fn the_newest_cause_stands_also_when_an_older_sample_comes_after_it() {
        let mut evidence = Evidence::default();
        for (why, at) in [(BmcTrouble::Silent, 1), (BmcTrouble::Refused, 9), (BmcTrouble::Busy, 5)] {
            take(&mut evidence, power(Seen::Trouble(why), at * MINUTE));
        }
        assert_eq!(evidence.assessment.bmc, BmcState::Trouble(BmcTrouble::Refused));
    }

    #[test]
    fn a_reading_ends_the_trouble_and_the_next_trouble_begins_anew() {
        let mut evidence = Evidence::default();
        let on = Seen::Power(Power::On, OffCause::Unknown);
        for (seen, at) in [
            (Seen::Trouble(BmcTrouble::Silent), 1),
            (Seen::Trouble(BmcTrouble::Busy), 2),
            (on, 3),
            (Seen::Trouble(BmcTrouble::Busy), 4),
            (Seen::Trouble(BmcTrouble::Silent), 5),
        ] {
            take(&mut evidence, power(seen, at * MINUTE));
        }
        assert_eq!(evidence.assessment.bmc, BmcState::Answers, "two samples are too few");
        assert_eq!(evidence.slot(Source::Power).latest().map(|run| run.first), Some(Elapsed(4 * MINUTE)));
    }
}
