//! The appliance's eyes in the simulation. What each source would see is an [`Outlook`], which changes only when the
//! world does; between changes the samples are not made one by one but folded as runs, up to the moment when somebody
//! looks. A steady host costs nothing.

use healing::assess::{Assessment, LeaseState, NetworkState};
use healing::evidence::{Evidence, fold, reassess};
use healing::policy::Limits;
use healing::signal::{Power, Seen, Signal, Source};
use healing::time::{Elapsed, Millis, Now, SECOND};

/// How the sources look at a host right now. `None` = that source makes no samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    /// By source.
    pub seen: [Option<Seen>; Source::ALL.len()],
    /// Share of lost packets on the host's own port, in percent.
    pub loss: u8,
    /// The first renewal of the Lease's present row, in the appliance's running time.
    pub renewing_from: Elapsed,
    /// The last renewal before the row, known to whoever lists Leases anew.
    pub renewed_at: Elapsed,
    /// The receivers are drained late: no miss counts (rule 47).
    pub drained_late: bool,
}

impl Outlook {
    /// What a source sees.
    #[must_use]
    pub fn of(&self, source: Source) -> Option<Seen> {
        self.seen[source as usize]
    }

    /// Sets what a source sees.
    pub fn set(&mut self, source: Source, seen: Option<Seen>) {
        self.seen[source as usize] = seen;
    }
}

/// Sources that are sampled at an interval.
const PERIODIC: [Source; 12] = [
    Source::Lease,
    Source::Arp,
    Source::Icmp,
    Source::KubeletPort,
    Source::SecondPort,
    Source::KubeletHealth,
    Source::ApiServer,
    Source::EtcdMember,
    Source::Power,
    Source::BootProgress,
    Source::Hardware,
    Source::Agent,
];

/// Interval of a source, for a healthy and for a suspect host (design section 4).
fn period(source: Source, suspect: bool) -> Millis {
    match source {
        Source::Arp | Source::Icmp => SECOND,
        Source::KubeletPort | Source::SecondPort => {
            if suspect {
                SECOND
            } else {
                2 * SECOND
            }
        }
        Source::KubeletHealth | Source::Power | Source::BootProgress | Source::Hardware => {
            if suspect {
                2 * SECOND
            } else {
                60 * SECOND
            }
        }
        Source::ApiServer | Source::EtcdMember => 5 * SECOND,
        Source::Agent => 2 * SECOND,
        Source::Lease => 10 * SECOND,
        Source::HeldConnection | Source::BootRequest | Source::Node => SECOND,
    }
}

/// Delay between a renewal and its receipt by our watch.
const WATCH_DELAY_MS: Millis = 40;

/// One host as one appliance watches it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What was seen, as runs.
    pub evidence: Evidence,
    /// What the sources see now.
    pub outlook: Outlook,
    /// The next sample of each source.
    next: [Elapsed; Source::ALL.len()],
    /// Probes run fast.
    suspect: bool,
    /// An open incident keeps probes fast.
    pub attended: bool,
    /// What the loop was last told.
    pub reported: Assessment,
    /// Counts the planned looks; only the newest holds.
    pub generation: u64,
    /// It is counted among the hosts watched on the network.
    pub on_network: bool,
    /// The moment of the planned look.
    pub planned: Option<Elapsed>,
    salt: u64,
}

impl Watched {
    /// Begins to watch a host.
    #[must_use]
    pub fn new(salt: u64, now: Now, known: Assessment) -> Watched {
        let mut evidence = Evidence::default();
        evidence.assessment = known;
        evidence.void(now);
        let mut watched = Watched {
            evidence,
            outlook: Outlook::default(),
            next: [now.elapsed; Source::ALL.len()],
            suspect: false,
            attended: false,
            reported: known,
            generation: 0,
            on_network: false,
            planned: None,
            salt,
        };
        watched.rephase(now);
        watched
    }

    /// All probes begin anew, each at its own phase, so that a fleet is not probed in one burst.
    fn rephase(&mut self, now: Now) {
        for source in PERIODIC {
            let spread = period(source, true).max(SECOND);
            self.next[source as usize] = now.elapsed.plus(mix(self.salt, source as u64, 0) % spread);
        }
        self.next[Source::Lease as usize] = first_tick(&self.outlook, now.elapsed);
    }

    /// Throws all evidence away and begins anew (rule 47).
    pub fn void(&mut self, now: Now) {
        self.evidence.void(now);
        self.rephase(now);
        // Watches are opened anew too: the list says how each Node stands.
        if let Some(seen) = self.outlook.of(Source::Node) {
            self.push(&Signal::sample(Source::Node, seen, now.elapsed), &Limits::default(), now);
        }
        if let Some(Seen::Answer) = self.outlook.of(Source::KubeletPort) {
            self.push(&Signal::sample(Source::HeldConnection, Seen::Open, now.elapsed), &Limits::default(), now);
        }
    }

    fn push(&mut self, signal: &Signal, limits: &Limits, now: Now) {
        let _ = fold(&mut self.evidence, signal, limits, now);
    }

    /// Brings the evidence up to now under the present outlook. Returns whether the assessment is news to the loop.
    pub fn bring_up(&mut self, limits: &Limits, now: Now) -> bool {
        for source in PERIODIC {
            let Some(seen) = self.outlook.of(source) else {
                // Nobody samples: when it begins again it begins then.
                self.next[source as usize] = self.next[source as usize].max(now.elapsed);
                continue;
            };
            let next = self.next[source as usize];
            if next > now.elapsed {
                continue;
            }
            let step = period(source, self.fast());
            let count = now.elapsed.since(next) / step + 1;
            let last = next.plus((count - 1) * step);
            self.next[source as usize] = last.plus(step);
            if self.outlook.loss > 0 && lossy(source) {
                self.sample_lossy(source, seen, next, step, count, limits, now);
                continue;
            }
            let mut signal = Signal::run(source, seen, next, last, u32::try_from(count).unwrap_or(u32::MAX));
            if self.outlook.drained_late {
                signal.drained_after_ms = 1_500;
            }
            self.push(&signal, limits, now);
        }
        let _ = reassess(&mut self.evidence, limits, now);
        let suspect = self.looks_suspect();
        if suspect && !self.suspect {
            for source in PERIODIC {
                let soon = now.elapsed.plus(period(source, true));
                if source != Source::Lease {
                    self.next[source as usize] = self.next[source as usize].min(soon);
                }
            }
        }
        self.suspect = suspect;
        self.news()
    }

    /// A person or an incident attends to this host: probes run fast.
    pub fn attend(&mut self, attended: bool, now: Now) {
        if attended && !self.attended && !self.suspect {
            for source in PERIODIC {
                if source != Source::Lease {
                    let soon = now.elapsed.plus(period(source, true));
                    self.next[source as usize] = self.next[source as usize].min(soon);
                }
            }
        }
        self.attended = attended;
    }

    fn fast(&self) -> bool {
        self.suspect || self.attended
    }

    #[allow(clippy::too_many_arguments)] // The run it replaces, spelt out.
    fn sample_lossy(
        &mut self,
        source: Source,
        seen: Seen,
        first: Elapsed,
        step: Millis,
        count: u64,
        limits: &Limits,
        now: Now,
    ) {
        for index in 0..count {
            let at = first.plus(index * step);
            let lost = mix(self.salt, source as u64, at.0) % 100 < u64::from(self.outlook.loss);
            if lost && source == Source::Lease {
                continue;
            }
            let seen = if lost { Seen::Miss } else { seen };
            self.push(&Signal::sample(source, seen, at), limits, now);
        }
    }

    /// Whether the loop has not yet heard of the present assessment.
    #[must_use]
    pub fn news(&self) -> bool {
        self.evidence.assessment != self.reported
    }

    fn looks_suspect(&self) -> bool {
        let a = &self.evidence.assessment;
        let missing = |s: Source| self.evidence.slot(s).while_seen(Seen::Miss).is_some();
        let powered_down = a.power == Power::Off && a.node.is_none();
        !powered_down
            && (a.network != NetworkState::Alive
                || missing(Source::Icmp)
                || missing(Source::KubeletPort)
                || !matches!(a.lease, LeaseState::Fresh)
                || a.node.is_none_or(|n| n.ready != Some(true))
                || a.kubelet_hung)
    }

    /// The world changed: the evidence is brought up to now under the old outlook, then the new one holds. Changes of
    /// the Node and of the held connection are samples by themselves.
    pub fn face(&mut self, outlook: Outlook, limits: &Limits, now: Now) {
        if outlook == self.outlook {
            return;
        }
        let just_before = Now { elapsed: Elapsed(now.elapsed.0.saturating_sub(1)), ..now };
        self.bring_up(limits, just_before);
        let old = std::mem::replace(&mut self.outlook, outlook);
        for source in PERIODIC {
            if old.of(source).is_none() && outlook.of(source).is_some() && source != Source::Lease {
                let spread = mix(self.salt, source as u64, 1) % period(source, self.fast());
                self.next[source as usize] = self.next[source as usize].max(now.elapsed).plus(spread.min(2_000));
            }
        }
        self.face_lease(&old, limits, now);
        if outlook.of(Source::Node) != old.of(Source::Node)
            && let Some(seen) = outlook.of(Source::Node)
        {
            self.push(&Signal::sample(Source::Node, seen, now.elapsed), limits, now);
        }
        let (was, is) = (old.of(Source::KubeletPort), outlook.of(Source::KubeletPort));
        if was == Some(Seen::Answer) && is == Some(Seen::Refused) && outlook.of(Source::Icmp) == Some(Seen::Answer) {
            self.push(&Signal::sample(Source::HeldConnection, Seen::Closed, now.elapsed), limits, now);
        }
        if was != Some(Seen::Answer) && is == Some(Seen::Answer) {
            self.push(&Signal::sample(Source::HeldConnection, Seen::Open, now.elapsed), limits, now);
        }
    }

    fn face_lease(&mut self, old: &Outlook, limits: &Limits, now: Now) {
        let outlook = self.outlook;
        if outlook.of(Source::Lease).is_none() {
            return;
        }
        if old.of(Source::Lease).is_some() && old.renewing_from == outlook.renewing_from {
            return;
        }
        // A watch that was opened anew lists first: a renewal that we missed is received now.
        let row = period(Source::Lease, false);
        let listed = if now.elapsed >= outlook.renewing_from {
            Some(now.elapsed.minus(now.elapsed.since(outlook.renewing_from) % row))
        } else {
            (outlook.renewed_at > Elapsed::default()).then_some(outlook.renewed_at)
        };
        let received = self.evidence.slot(Source::Lease).latest().map(|run| run.last);
        let missed = listed.is_some_and(|at| received.is_none_or(|got| at > got));
        if old.of(Source::Lease).is_none() && missed {
            self.push(&Signal::sample(Source::Lease, Seen::Renewed, now.elapsed), limits, now);
        }
        self.next[Source::Lease as usize] = first_tick(&outlook, now.elapsed);
    }

    /// Something that is seen once: a boot request.
    pub fn glimpse(&mut self, source: Source, seen: Seen, limits: &Limits, now: Now) {
        self.bring_up(limits, now);
        self.push(&Signal::sample(source, seen, now.elapsed), limits, now);
    }

    /// When the assessment may next change if the world does not.
    #[must_use]
    pub fn next_look(&self, limits: &Limits, now: Now) -> Option<Elapsed> {
        let assessment = &self.evidence.assessment;
        let mut soonest: Option<Elapsed> = None;
        let mut at = |moment: Elapsed| {
            let moment = moment.max(now.elapsed.plus(1));
            soonest = Some(soonest.map_or(moment, |s| s.min(moment)));
        };
        for source in PERIODIC {
            let Some(seen) = self.outlook.of(source) else { continue };
            if source == Source::Lease {
                continue;
            }
            let next = self.next[source as usize];
            let latest = self.evidence.slot(source).latest();
            if self.outlook.drained_late && seen == Seen::Miss {
                continue;
            }
            if self.outlook.loss > 0 && lossy(source) {
                at(next);
                continue;
            }
            match latest {
                Some(run) if run.seen == seen => {
                    let short = limits.samples_min.saturating_sub(u64::from(run.count));
                    if short > 0 {
                        at(next.plus((short - 1) * period(source, self.fast())));
                    } else if source == Source::Agent && assessment.agent.is_none() {
                        at(next);
                    }
                }
                _ => at(next),
            }
        }
        self.lease_look(limits, now, &mut at);
        if self.outlook.of(Source::Agent).is_none() && assessment.agent.is_some() {
            let last = self.evidence.slot(Source::Agent).latest().map_or(self.evidence.void_before, |run| run.last);
            at(last.plus(15 * SECOND + 1));
        }
        soonest
    }

    fn lease_look(&self, limits: &Limits, now: Now, at: &mut impl FnMut(Elapsed)) {
        let next = self.outlook.of(Source::Lease).map(|_| self.next[Source::Lease as usize]);
        let run = self.evidence.slot(Source::Lease).while_seen(Seen::Renewed);
        let ages = [limits.lease_late_ms, limits.lease_ready_ms, limits.lease_overdue_ms, limits.lease_expired_ms];
        let later =
            run.and_then(|run| ages.into_iter().map(|age| run.last.plus(age + 1)).find(|&moment| moment > now.elapsed));
        match (next, later) {
            (Some(next), _) if self.evidence.assessment.lease != LeaseState::Fresh || self.outlook.loss > 0 => at(next),
            (Some(next), Some(later)) if later < next => at(later),
            (None, Some(later)) => at(later),
            (Some(_), _) | (None, None) => {}
        }
        if let (Some(_), Some(later)) = (next, later)
            && self.evidence.assessment.lease != LeaseState::Fresh
        {
            at(later);
        }
    }
}

/// Sources whose packets a lossy port loses.
fn lossy(source: Source) -> bool {
    matches!(
        source,
        Source::Arp | Source::Icmp | Source::KubeletPort | Source::SecondPort | Source::KubeletHealth | Source::Lease
    )
}

/// The first renewal of the row that we receive at or after a moment.
fn first_tick(outlook: &Outlook, from: Elapsed) -> Elapsed {
    let first = outlook.renewing_from.plus(WATCH_DELAY_MS);
    if first >= from {
        return first;
    }
    let row = period(Source::Lease, false);
    first.plus(from.since(first).div_ceil(row) * row)
}

/// A fixed number from three: who, what and when. Draws that are not in order need no generator.
#[must_use]
pub fn mix(a: u64, b: u64, c: u64) -> u64 {
    let mut z = a
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(b.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add(c.wrapping_mul(0x94d0_49bb_1331_11eb));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
