//! The appliance in the simulation: one process with its world, its eyes and its executors. It does what the
//! production loop does, on virtual time.

use crate::prober::Watched;
use crate::reality::{Clock, Reality};
use crate::watch::WorldTime;
use healing::assess::{Assessment, BmcState, NetworkState};
use healing::command::{Intent, WakeTarget};
use healing::event::View;
use healing::id::{ClusterId, HostId, IncidentId, StepId};
use healing::perform::StepRun;
use healing::rules::Rules;
use healing::sight::OwnSight;
use healing::time::{Elapsed, MINUTE, Now};
use healing::world::World;
use healing::world::host::Role;
use std::collections::BTreeMap;

/// The wall clock at the beginning of every run: 1 January 2026, 00:00 UTC.
pub const WALL_BEGINNING_MS: i64 = 1_767_225_600_000;

/// A step that is being done.
#[derive(Debug)]
pub struct Driven<R: Rules> {
    /// The step machine.
    pub run: StepRun<R>,
    /// The step.
    pub step: StepId,
    /// Its incident.
    pub incident: IncidentId,
    /// Its host.
    pub host: HostId,
    /// What it does.
    pub intent: Intent,
    /// Counts what is awaited; an answer to anything older is void.
    pub awaits: u64,
    /// When the Lease of its Node was last renewed, as the step began, true time.
    pub lease_at: WorldTime,
}

/// A process of the appliance.
#[derive(Debug)]
pub struct Appliance<R: Rules> {
    /// 0, or 1 for the second one.
    pub id: u8,
    /// The process runs.
    pub up: bool,
    /// Counts its starts; what belongs to an older one is void.
    pub life: u64,
    /// It waits for the lease of the other.
    pub standby: bool,
    /// Stopped by SIGSTOP until.
    pub stopped_until: Option<WorldTime>,
    /// Its receivers are drained late.
    pub starved: u32,
    /// The epoch under which it commits.
    pub epoch: u64,
    /// What it decides on: exactly what was committed.
    pub world: World,
    /// Its eyes, by host.
    pub watched: BTreeMap<HostId, Watched>,
    /// Its running time against the world's.
    pub clock: Clock,
    /// Its wall clock's error.
    pub wall_off_ms: i64,
    /// The last committed running time, from which a restart goes on.
    pub committed: Elapsed,
    /// One timer per target.
    pub timers: BTreeMap<WakeTarget, (u64, WorldTime)>,
    /// Steps being done.
    pub runs: BTreeMap<StepId, Driven<R>>,
    /// Watched hosts that are silent.
    pub silent: u32,
    /// Hosts that are watched on the network.
    pub on_network: u32,
    /// BMCs that answer.
    pub bmcs_ok: u32,
    /// BMCs that went dumb, and when they last answered.
    pub bmcs_dumb: BTreeMap<HostId, Elapsed>,
    /// The verdicts on own sight that the loop was last told.
    pub sight_told: BTreeMap<Option<ClusterId>, bool>,
}

impl<R: Rules> Appliance<R> {
    /// A process that has not started.
    #[must_use]
    pub fn new(id: u8, world: World, begins: Elapsed) -> Appliance<R> {
        Appliance {
            id,
            up: false,
            life: 0,
            standby: false,
            stopped_until: None,
            starved: 0,
            epoch: 0,
            world,
            watched: BTreeMap::new(),
            clock: Clock { delta: begins.0.cast_signed(), begun_at: 0 },
            wall_off_ms: 0,
            committed: begins,
            timers: BTreeMap::new(),
            runs: BTreeMap::new(),
            silent: 0,
            on_network: 0,
            bmcs_ok: 0,
            bmcs_dumb: BTreeMap::new(),
            sight_told: BTreeMap::new(),
        }
    }

    /// Whether it takes part: up, not stopped, not standing by.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.up && self.stopped_until.is_none() && !self.standby
    }

    /// The moment on its clocks.
    #[must_use]
    pub fn now(&self, at: WorldTime) -> Now {
        Now {
            elapsed: self.clock.elapsed(at),
            wall_ms: WALL_BEGINNING_MS.saturating_add_unsigned(at) + self.wall_off_ms,
        }
    }

    /// Opens all eyes anew.
    pub fn watch_all(&mut self, reality: &Reality, seed: u64) {
        let now = self.now(reality.at);
        self.watched.clear();
        self.timers.clear();
        self.runs.clear();
        self.bmcs_dumb.clear();
        self.sight_told.clear();
        (self.silent, self.on_network, self.bmcs_ok) = (0, 0, 0);
        let known: Vec<(HostId, Assessment, bool)> =
            self.world.hosts.values().map(|h| (h.id, h.assessment, h.role != Role::Spare)).collect();
        for (host, assessment, network) in known {
            let salt = crate::prober::mix(seed, u64::from(host.0), u64::from(self.id));
            let mut watched = Watched::new(salt, now, assessment);
            let outlook = self.outlook(reality, host);
            watched.face(outlook, &self.world.limits, now);
            watched.on_network = network;
            self.watched.insert(host, watched);
            self.on_network += u32::from(network);
            self.count(host, &Assessment::default(), &assessment, now.elapsed);
        }
    }

    /// How the sources see a host from this process.
    #[must_use]
    pub fn outlook(&self, reality: &Reality, host: HostId) -> crate::prober::Outlook {
        let mut outlook = reality.outlook(host, &self.clock);
        outlook.drained_late = self.starved > 0;
        outlook
    }

    /// Keeps the fleet's counts when a host's assessment changed.
    pub fn count(&mut self, host: HostId, before: &Assessment, after: &Assessment, at: Elapsed) {
        let silent = |a: &Assessment| u32::from(a.network == NetworkState::Silent);
        self.silent = (self.silent + silent(after)).saturating_sub(silent(before));
        let ok = |a: &Assessment| u32::from(a.bmc == BmcState::Answers);
        self.bmcs_ok = (self.bmcs_ok + ok(after)).saturating_sub(ok(before));
        match (ok(before) > 0, ok(after) > 0) {
            (true, false) => {
                self.bmcs_dumb.insert(host, at);
            }
            (_, true) => {
                self.bmcs_dumb.remove(&host);
            }
            (false, false) => {}
        }
    }

    /// Own sight, for a cluster or for the site.
    #[must_use]
    pub fn sight(&self, reality: &Reality, cluster: Option<ClusterId>) -> OwnSight {
        let mut sight = reality.sight(cluster, &self.clock);
        let recent = sight.at.minus(10 * MINUTE);
        let dumb = self.bmcs_dumb.values().filter(|at| **at >= recent).count();
        sight.bmcs_dumb = u32::try_from(dumb).unwrap_or(u32::MAX);
        sight.bmcs_recent = self.bmcs_ok + sight.bmcs_dumb;
        sight.hosts_watched = self.on_network;
        sight.hosts_silent = self.silent;
        sight
    }

    /// A host's evidence, and own sight, as an event carries them.
    #[must_use]
    pub fn view(&self, reality: &Reality, host: HostId) -> Option<Box<View>> {
        let evidence = self.watched.get(&host)?.evidence.clone();
        let cluster = self.world.hosts.get(&host).and_then(|h| h.cluster);
        Some(Box::new(View { evidence, sight: self.sight(reality, cluster) }))
    }
}
