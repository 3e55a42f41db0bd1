//! The simulation: one heap of happenings on virtual time, around the production decisions. Single-threaded; the same
//! site, seed and script give the same run to the byte.

use crate::appliance::{Appliance, Driven};
use crate::fault::Fault;
use crate::generator::Generator;
use crate::operator::{Act, Person};
use crate::plant::News;
use crate::prober::Watched;
use crate::reality::{Reality, Task};
use crate::site::{BEGINNING, Site};
use crate::stats::Stats;
use crate::tally::Ledger;
use crate::transcript::{self, Transcript};
use crate::watch::{
    Before, Breach, Checker, Decided, Ended, Finished, GroundTruth, Interruption, Ordered, WarrantKind, WorldTime,
};
use healing::command::{
    Call, Command, Loudness, NextCall, Observation, Outcome, Reply, StepResult, WakeTarget, Warrant,
};
use healing::decide::decide;
use healing::event::{Change, Event, Operator};
use healing::id::{ClusterId, HostId, StepId};
use healing::perform::{StepRun, perform};
use healing::policy::{self, Policy};
use healing::rules::{Rule, Rules};
use healing::time::{Elapsed, Millis, Now, SECOND};
use healing::world::World;
use healing::world::incident::Phase;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

mod deciding;
mod life;
mod seeing;
mod steps;
mod trouble;

/// The appliance lease is renewed this often, for so long.
const LEASE_RENEW_MS: Millis = 30 * SECOND;
const LEASE_LENGTH_MS: Millis = 90 * SECOND;
/// A standby waits this long after the end of the other's lease (rule 46).
const TAKEOVER_MS: Millis = 30 * SECOND;
/// Groups that fit into the journal's reserve while the store cannot be written (rule 48).
const RESERVE_GROUPS: u32 = 2_000;

/// A call that left the appliance. It takes effect whatever becomes of the process.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Which appliance, and which life of it.
    pub appliance: usize,
    /// Its life when it called.
    pub life: u64,
    /// The step.
    pub step: StepId,
    /// Its incident.
    pub incident: healing::id::IncidentId,
    /// The host that is meant.
    pub host: HostId,
    /// What the step does.
    pub intent: healing::command::Intent,
    /// The call.
    pub call: Call,
    /// When it left.
    pub at: WorldTime,
    /// What is awaited.
    pub awaits: u64,
    /// When the Lease was last renewed as the step began.
    pub lease_at: WorldTime,
}

/// Something that happens at a moment.
#[derive(Debug, Clone)]
enum Happening {
    Real(Task),
    Look(usize, HostId, u64),
    Wake(usize, WakeTarget, u64),
    CheckSight(usize),
    Effect(Box<Sent>),
    Reply(Box<Sent>, Reply),
    StepTimer(usize, StepId, u64),
    Order(usize, Box<Event>),
    RenewLease(usize, u64),
    StandBy(usize),
    Start(usize),
    Resume(usize),
    NextFault,
    Inject(Box<(Fault, Option<HostId>)>),
    Ends(u64),
    Act(Box<Act>),
    /// An installer repeats a report that was not acknowledged.
    Retell(HostId, News),
    StoreProbe(usize),
}

#[derive(Debug)]
struct Entry {
    at: WorldTime,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Where in its work the appliance can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Decided, not committed.
    BeforeCommit,
    /// Committed, nothing of it sent.
    Committed,
    /// A call left and has not arrived.
    Sent,
    /// A call took its effect and its reply is on the way.
    Effected,
    /// A step is over and its result is not yet decided on.
    ResultReady,
}

/// A point that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Its number, from zero.
    pub number: u64,
    /// What kind.
    pub point: Point,
    /// When.
    pub at: WorldTime,
    /// In which doing, in words.
    pub during: String,
}

/// Kill at this point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Number of the point.
    pub point: u64,
    /// How long the appliance stays down.
    pub down_ms: Millis,
}

/// What the journal is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Store {
    epoch: u64,
    broken: u32,
    reserve: u32,
    torn: bool,
    /// The loop was told that its store fails.
    told: bool,
}

/// A simulated site with its appliance.
#[derive(Debug)]
pub struct Simulation<R: Rules> {
    rules: R,
    /// Everything outside the appliance.
    pub reality: Reality,
    appliances: Vec<Appliance<R>>,
    heap: BinaryHeap<Reverse<Entry>>,
    order: u64,
    checkers: Checkers,
    breaches: Vec<Breach>,
    transcript: Option<Transcript>,
    ledger: Ledger,
    store: Store,
    crash: Option<Crash>,
    points: u64,
    passed: Option<Vec<Passed>>,
    generator: Option<Generator>,
    person: Option<Person>,
    ends: BTreeMap<u64, (Fault, Option<HostId>)>,
    next_end: u64,
    names: BTreeMap<HostId, String>,
    seed: u64,
}

#[derive(Default)]
struct Checkers(Vec<Box<dyn Checker>>);

impl std::fmt::Debug for Checkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} checkers", self.0.len())
    }
}

impl<R: Rules> Simulation<R> {
    /// A site under default policy, all well, the appliance starting at time zero. Nothing goes wrong by itself.
    #[must_use]
    pub fn new(rules: R, site: &Site) -> Simulation<R> {
        Simulation::with_policy(rules, site, &Policy::<policy::Site>::default())
    }

    /// The same under another policy.
    #[must_use]
    pub fn with_policy<K: policy::Kind>(rules: R, site: &Site, policy: &Policy<K>) -> Simulation<R> {
        let mut simulation = Simulation {
            rules,
            reality: Reality::new(site),
            appliances: vec![Appliance::new(0, World::new(policy), BEGINNING)],
            heap: BinaryHeap::new(),
            order: 0,
            checkers: Checkers::default(),
            breaches: Vec::new(),
            transcript: None,
            ledger: Ledger::new(site),
            store: Store { epoch: 0, broken: 0, reserve: RESERVE_GROUPS, torn: false, told: false },
            crash: None,
            points: 0,
            passed: None,
            generator: None,
            person: None,
            ends: BTreeMap::new(),
            next_end: 0,
            names: site.hosts.values().map(|h| (h.id, h.name.clone())).collect(),
            seed: site.seed,
        };
        simulation.push(0, Happening::Start(0));
        for config in site.configuration() {
            simulation.configure(Event::Config(config));
        }
        // A new cluster only observes; a person armed these long ago.
        for cluster in site.clusters.iter().filter(|c| c.armed) {
            simulation.configure(Event::Operator(Operator::Arm { cluster: cluster.id, armed: true }));
        }
        simulation
    }

    /// Configuration that was in the store before the run began.
    fn configure(&mut self, event: Event) {
        let Some(appliance) = self.appliances.first_mut() else { return };
        let now = appliance.now(0);
        let outcome = decide(self.rules, &appliance.world, &event, now);
        for change in &outcome.changes {
            appliance.world.apply(change);
        }
    }

    /// Adds one who watches.
    #[must_use]
    pub fn watched_by(mut self, checker: Box<dyn Checker>) -> Self {
        self.checkers.0.push(checker);
        self
    }

    /// Lets faults happen by chance.
    #[must_use]
    pub fn with_generator(mut self, generator: Generator) -> Self {
        let first = generator.first_at();
        self.generator = Some(generator);
        self.push(first, Happening::NextFault);
        self
    }

    /// Lets a person react to pages.
    #[must_use]
    pub fn with_person(mut self, person: Person) -> Self {
        self.person = Some(person);
        self
    }

    /// Keeps a transcript.
    #[must_use]
    pub fn with_transcript(mut self) -> Self {
        self.transcript = Some(Transcript::default());
        self
    }

    /// Kills the appliance at a point.
    #[must_use]
    pub fn with_crash(mut self, crash: Crash) -> Self {
        self.crash = Some(crash);
        self
    }

    /// Records the points that are passed.
    #[must_use]
    pub fn with_points(mut self) -> Self {
        self.passed = Some(Vec::new());
        self
    }

    /// Adds a second appliance that stands by.
    #[must_use]
    pub fn with_standby(mut self) -> Self {
        if let Some(first) = self.appliances.first() {
            let mut second = Appliance::new(1, first.world.clone(), BEGINNING);
            second.standby = true;
            second.up = true;
            self.appliances.push(second);
            self.push(10 * SECOND, Happening::StandBy(1));
        }
        self
    }

    /// Has a fault happen at a moment.
    pub fn at_fault(&mut self, at: WorldTime, fault: Fault, host: Option<HostId>) {
        self.push(at, Happening::Inject(Box::new((fault, host))));
    }

    /// Has a person act through the appliance at a moment.
    pub fn at_order(&mut self, at: WorldTime, order: Operator) {
        self.push(at, Happening::Act(Box::new(Act::Order(order))));
    }

    /// Has a person act at a moment, at the machines or through the appliance.
    pub fn at_act(&mut self, at: WorldTime, act: Act) {
        self.push(at, Happening::Act(Box::new(act)));
    }

    /// Has any event reach the loop at a moment.
    pub fn at_event(&mut self, at: WorldTime, event: Event) {
        self.push(at, Happening::Order(0, Box::new(event)));
    }

    /// The world of the appliance that owns the site.
    #[must_use]
    pub fn world(&self) -> &World {
        let owner = self.owner();
        &self.appliances[owner].world
    }

    /// The appliances.
    #[must_use]
    pub fn appliances(&self) -> &[Appliance<R>] {
        &self.appliances
    }

    /// What broke.
    #[must_use]
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// The transcript, if one is kept.
    #[must_use]
    pub fn transcript(&self) -> Option<&Transcript> {
        self.transcript.as_ref()
    }

    /// The points passed, if they are recorded.
    #[must_use]
    pub fn passed(&self) -> &[Passed] {
        self.passed.as_deref().unwrap_or(&[])
    }

    /// The counts so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.ledger.stats
    }

    fn owner(&self) -> usize {
        let holder = self.reality.lease.map_or(0, |(id, _)| usize::from(id));
        holder.min(self.appliances.len() - 1)
    }

    fn push(&mut self, at: WorldTime, what: Happening) {
        self.order += 1;
        let at = at.max(self.reality.at);
        self.heap.push(Reverse(Entry { at, order: self.order, what }));
    }

    /// Runs until a moment of true time.
    pub fn run_until(&mut self, end: WorldTime) {
        while let Some(Reverse(entry)) = self.heap.peek() {
            if entry.at > end {
                break;
            }
            let Some(Reverse(entry)) = self.heap.pop() else { break };
            self.reality.at = entry.at;
            self.happen(entry.what);
            self.settle();
        }
        self.reality.at = end;
    }

    /// Closes the books: what is open is counted, checkers look a last time.
    pub fn finish(&mut self) -> &Stats {
        let at = self.reality.at;
        let owner = self.owner();
        let appliance = &self.appliances[owner];
        self.ledger.close(at, &appliance.world, &self.reality, &appliance.clock);
        let ended = Ended { at, now: appliance.now(at), world: &appliance.world, stats: &self.ledger.stats };
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.ended(&ended, &self.reality));
        }
        &self.ledger.stats
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Real(task) => {
                if let Some((host, news)) = self.reality.perform(task) {
                    self.machine_news(host, news);
                }
            }
            Happening::Look(app, host, generation) => {
                let due = self.appliances[app].watched.get(&host).is_some_and(|w| w.generation == generation);
                if due && self.appliances[app].acts() {
                    self.look(app, host);
                }
            }
            Happening::Wake(app, target, generation) => self.wake(app, target, generation),
            Happening::CheckSight(app) => self.check_sight(app),
            Happening::Effect(sent) => self.effect(*sent),
            Happening::Reply(sent, reply) => self.reply(&sent, reply),
            Happening::StepTimer(app, step, awaits) => self.observe(app, step, awaits, Observation::Timer),
            Happening::Order(app, event) => {
                if self.appliances[app].acts() {
                    self.handle(app, &event);
                } else {
                    self.push(self.reality.at + 60 * SECOND, Happening::Order(app, event));
                }
            }
            Happening::RenewLease(app, life) => self.renew_lease(app, life),
            Happening::StandBy(app) => self.stand_by(app),
            Happening::Start(app) => self.start(app, false),
            Happening::Resume(app) => self.resume(app),
            Happening::NextFault => self.next_fault(),
            Happening::Inject(what) => self.inject(what.0, what.1),
            Happening::Ends(number) => self.end_fault(number),
            Happening::Act(act) => self.act(*act),
            Happening::StoreProbe(app) => self.probe_store(app),
            Happening::Retell(host, news) => self.retell(host, news),
        }
    }

    /// What reality did is put on the heap and looked at, until nothing is left to tell.
    fn settle(&mut self) {
        for _ in 0..64 {
            for (at, task) in std::mem::take(&mut self.reality.agenda) {
                self.push(at, Happening::Real(task));
            }
            let dirty = std::mem::take(&mut self.reality.dirty);
            let sight = std::mem::take(&mut self.reality.dirty_sight);
            if dirty.is_empty() && !sight {
                return;
            }
            for app in 0..self.appliances.len() {
                if !self.appliances[app].acts() {
                    continue;
                }
                for &host in &dirty {
                    self.face(app, host);
                }
                if sight {
                    self.push(self.reality.at, Happening::CheckSight(app));
                    for later in [3 * SECOND, 15 * SECOND + 1, 16 * SECOND + 1] {
                        self.push(self.reality.at + later, Happening::CheckSight(app));
                    }
                }
            }
        }
    }
}

fn describe<R: Rules>(command: &Command<R>) -> Ordered {
    Ordered {
        step: command.step,
        incident: command.incident,
        host: command.target.host,
        intent: command.intent(),
        warrant: match command.warrant() {
            Warrant::Free => WarrantKind::Free,
            Warrant::Permit(_) => WarrantKind::Permit,
            Warrant::Proof(proof) => WarrantKind::Proof { at: proof.at() },
        },
    }
}

/// Whether a call changes the power of a machine.
#[must_use]
pub fn writes_power(call: &Call) -> bool {
    use healing::command::BmcCall;
    matches!(
        call,
        Call::Bmc(_, BmcCall::ForceOff | BmcCall::PowerOn | BmcCall::GracefulRestart)
            | Call::OutletsOff
            | Call::OutletsOn
    )
}
