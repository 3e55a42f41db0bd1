//! The boot flight recorder: one timeline for each job, a plain verdict when it stops, and the packets themselves.

pub mod event;
pub mod pcap;
pub mod verdict;

use crate::gate::Now;
use crate::mac::Mac;
use event::BootEvent;
use protocol::name::Name;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use verdict::Verdict;

/// Events kept of one job. A boot has about thirty; a loop has many more, and its last ones matter.
const EVENTS_PER_JOB: usize = 1000;
/// Jobs kept.
const JOBS: usize = 256;
/// Warnings about the link that are remembered.
const WARNINGS: usize = 256;

/// One moment of a job.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Moment {
    /// When.
    pub at: Now,
    /// What.
    #[serde(flatten)]
    pub event: BootEvent,
}

/// One job's timeline.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The card.
    pub mac: Mac,
    /// What happened, oldest first.
    pub moments: VecDeque<Moment>,
    /// How many events were let go.
    pub forgotten: u64,
}

impl Flight {
    /// Where it stands.
    #[must_use]
    pub fn verdict(&self, now: Now) -> Verdict {
        let silent = self.moments.back().map_or(Duration::ZERO, |last| now.elapsed.saturating_sub(last.at.elapsed));
        verdict::verdict(self.moments.iter().map(|moment| &moment.event), silent)
    }
}

/// What is wrong with a link. Each has a name, for hooks and alarms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkWarning {
    /// A DHCP server that nobody configured answers on a link where we are the server.
    RogueServer {
        /// Its address.
        server: Ipv4Addr,
        /// The card it spoke from.
        mac: Mac,
    },
    /// The link's DHCP server says `PXEClient` without saying what to boot: UEFI hosts will ask *it* on port 4011, where
    /// nobody listens (FOGProject/fog-docs#188).
    StrayClass {
        /// Its address.
        server: Ipv4Addr,
        /// The card it spoke from.
        mac: Mac,
    },
    /// The link's DHCP server names a boot file of its own: hosts may boot that.
    ForeignBootFile {
        /// Its address.
        server: Ipv4Addr,
        /// The card it spoke from.
        mac: Mac,
        /// The file.
        file: String,
    },
}

impl LinkWarning {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RogueServer { .. } => "rogue-dhcp-server",
            Self::StrayClass { .. } => "stray-option-60",
            Self::ForeignBootFile { .. } => "foreign-boot-file",
        }
    }
}

#[derive(Debug)]
struct State {
    flights: BTreeMap<Name, Flight>,
    /// Jobs by age.
    order: VecDeque<Name>,
    warnings: BTreeSet<LinkWarning>,
    packets: pcap::PacketRing,
}

/// Where every moment goes besides, such as a file for each job. It must not wait.
pub type Sink = Box<dyn Fn(&Name, Mac, &Moment) + Send + Sync>;

/// Remembers. Shared by all servers; its lock is held only for a push.
pub struct Recorder {
    state: Mutex<State>,
    sink: Option<Sink>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.fmt(f)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(8 << 20, None)
    }
}

impl Recorder {
    /// A recorder that keeps so many bytes of packets.
    #[must_use]
    pub fn new(packet_bytes: usize, sink: Option<Sink>) -> Self {
        let state = Mutex::new(State {
            flights: BTreeMap::new(),
            order: VecDeque::new(),
            warnings: BTreeSet::new(),
            packets: pcap::PacketRing::new(packet_bytes),
        });
        Self { state, sink }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to a job.
    pub fn note(&self, job: &Name, mac: Mac, at: Now, event: BootEvent) {
        tracing::info!(%job, %mac, "{event}");
        let moment = Moment { at, event };
        if let Some(sink) = &self.sink {
            sink(job, mac, &moment);
        }
        self.restore(job, mac, moment);
    }

    /// Takes in a moment that was kept elsewhere, at the start.
    pub fn restore(&self, job: &Name, mac: Mac, moment: Moment) {
        let mut state = self.state();
        if !state.flights.contains_key(job) {
            if state.order.len() >= JOBS
                && let Some(oldest) = state.order.pop_front()
            {
                state.flights.remove(&oldest);
            }
            state.order.push_back(job.clone());
            state.flights.insert(job.clone(), Flight { mac, moments: VecDeque::new(), forgotten: 0 });
        }
        let Some(flight) = state.flights.get_mut(job) else { return };
        if flight.moments.len() >= EVENTS_PER_JOB {
            // The first is how it began; what is let go is the oldest after it.
            flight.moments.remove(1);
            flight.forgotten += 1;
        }
        flight.moments.push_back(moment);
    }

    /// Something is wrong with the link. Said once in the log.
    pub fn warn(&self, warning: LinkWarning) {
        let mut state = self.state();
        if state.warnings.len() < WARNINGS && !state.warnings.contains(&warning) {
            tracing::warn!(name = warning.name(), ?warning, "the link's DHCP is not as it should be");
            state.warnings.insert(warning);
        }
    }

    /// Keeps a frame.
    pub fn packet(&self, at: Duration, mac: Option<Mac>, frame: &[u8]) {
        self.state().packets.keep(at, mac, frame);
    }

    /// One job's timeline.
    #[must_use]
    pub fn flight(&self, job: &Name) -> Option<Flight> {
        self.state().flights.get(job).cloned()
    }

    /// The frames of one host, as a pcap file.
    #[must_use]
    pub fn pcap(&self, mac: Mac) -> Vec<u8> {
        self.state().packets.file(mac)
    }
}
