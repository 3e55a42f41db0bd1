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

    fn face(&mut self, app: usize, host: HostId) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let outlook = appliance.outlook(&self.reality, host);
        let now = appliance.now(at);
        let Some(watched) = appliance.watched.get_mut(&host) else { return };
        if watched.outlook == outlook {
            return;
        }
        watched.face(outlook, &appliance.world.limits, now);
        self.look(app, host);
    }

    /// Looks at a host now: brings its evidence up, tells the loop if there is news, and plans the next look.
    fn look(&mut self, app: usize, host: HostId) {
        let at = self.reality.at;
        if self.bring_up(app, host) {
            self.tell(app, host, false);
        }
        self.plan_look(app, host, at);
    }

    fn plan_look(&mut self, app: usize, host: HostId, at: WorldTime) {
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        let clock = appliance.clock;
        let Some(watched) = appliance.watched.get_mut(&host) else { return };
        let next = watched.next_look(&appliance.world.limits, now);
        if next == watched.planned && next.is_some_and(|n| n > now.elapsed) {
            return;
        }
        watched.planned = next;
        watched.generation += 1;
        let generation = watched.generation;
        if let Some(next) = next {
            self.push(clock.world(next), Happening::Look(app, host, generation));
        }
    }

    /// Brings a host's evidence up to now; whether the loop has to hear of it.
    fn bring_up(&mut self, app: usize, host: HostId) -> bool {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        let Some(watched) = appliance.watched.get_mut(&host) else { return false };
        watched.bring_up(&appliance.world.limits, now)
    }

    /// Tells the loop what is seen of a host: a fact, or the host's timer.
    fn tell(&mut self, app: usize, host: HostId, timer: bool) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        let mut said = None;
        let mut counts = false;
        if let Some(watched) = appliance.watched.get_mut(&host) {
            let (before, after) = (watched.reported, watched.evidence.assessment);
            watched.reported = after;
            if before != after {
                if self.transcript.is_some() {
                    said = Some(transcript::difference(&before, &after));
                }
                counts = before.network != after.network || before.bmc != after.bmc;
                appliance.count(host, &before, &after, now.elapsed);
            }
        }
        if let Some(words) = said.filter(|w| !w.is_empty()) {
            self.say(host, "sees", &words);
        }
        if counts {
            self.check_sight(app);
            if !self.appliances[app].bmcs_dumb.is_empty() {
                self.push(at + 10 * 60 * SECOND + 1, Happening::CheckSight(app));
            }
        }
        let Some(view) = self.appliances[app].view(&self.reality, host) else { return };
        let event = if timer { Event::Wake { host, view } } else { Event::Fact { host, view } };
        self.handle(app, &event);
    }

    fn wake(&mut self, app: usize, target: WakeTarget, generation: u64) {
        if self.appliances[app].timers.get(&target).is_none_or(|(g, _)| *g != generation) {
            return;
        }
        if !self.appliances[app].acts() {
            return;
        }
        self.appliances[app].timers.remove(&target);
        match target {
            WakeTarget::Host(host) => {
                self.bring_up(app, host);
                self.tell(app, host, true);
                self.plan_look(app, host, self.reality.at);
            }
            WakeTarget::Site => {
                let sight = self.appliances[app].sight(&self.reality, None);
                self.handle(app, &Event::Sight(Box::new(sight)));
            }
        }
    }

    /// Tells the loop when the verdict on own sight, or on a cluster's API, has changed.
    fn check_sight(&mut self, app: usize) {
        if !self.appliances[app].acts() {
            return;
        }
        let clusters: Vec<Option<ClusterId>> =
            std::iter::once(None).chain(self.reality.clusters.keys().copied().map(Some)).collect();
        for cluster in clusters {
            let appliance = &mut self.appliances[app];
            let now = appliance.now(self.reality.at);
            let sight = appliance.sight(&self.reality, cluster);
            let limits = &appliance.world.limits;
            let verdict = match cluster {
                None => sight.check(limits, &[], now).is_ok(),
                Some(_) => !sight.api_unreachable(limits, now),
            };
            if appliance.sight_told.insert(cluster, verdict).unwrap_or(true) != verdict {
                if self.transcript.is_some() {
                    let words = match (cluster, verdict) {
                        (None, true) => "own sight is good again".to_owned(),
                        (None, false) => format!("own sight is in doubt: {:?}", sight.check(limits, &[], now).err()),
                        (Some(id), true) => format!("the API of cluster-{} answers again", id.0),
                        (Some(id), false) => format!("the API of cluster-{} is unreachable", id.0),
                    };
                    self.say_site("sees", &words);
                }
                self.handle(app, &Event::Sight(Box::new(sight)));
            }
        }
    }

    /// An installer repeats its last word until it is acknowledged, which happens after the commit.
    fn retell(&mut self, host: HostId, news: News) {
        let News::Install(job, _) = news else { return };
        let awaited =
            self.world().incident_of(host).is_some_and(|i| i.job == Some(job) && i.phase == Phase::Installing);
        let speaks = self.reality.machine_installs(host, job);
        if awaited && speaks {
            self.machine_news(host, news);
        }
    }

    fn machine_news(&mut self, host: HostId, news: News) {
        if let News::Install(_, report) = news
            && report != healing::event::InstallReport::Progress
        {
            self.push(self.reality.at + 15 * SECOND, Happening::Retell(host, news));
        }
        for app in 0..self.appliances.len() {
            if !self.appliances[app].acts() || !self.reality.path_to(host) {
                continue;
            }
            match news {
                News::AskedToBoot => {
                    let appliance = &mut self.appliances[app];
                    let now = appliance.now(self.reality.at);
                    if let Some(watched) = appliance.watched.get_mut(&host) {
                        let seen = healing::signal::Seen::AskedToBoot;
                        let source = healing::signal::Source::BootRequest;
                        watched.glimpse(source, seen, &appliance.world.limits, now);
                    }
                    self.look(app, host);
                }
                News::Install(job, report) => {
                    if report == healing::event::InstallReport::Installed {
                        // The gate's own durable record: a ticket installs once.
                        self.reality.tickets.remove(&host);
                    }
                    self.bring_up(app, host);
                    if self.transcript.is_some() {
                        self.say(host, "installer", &format!("{report:?}"));
                    }
                    if let Some(view) = self.appliances[app].view(&self.reality, host) {
                        self.handle(app, &Event::Install { host, job, report, view });
                    }
                }
            }
        }
    }

    /// Decides an event, commits what it changes, and only then lets commands, timers and words out.
    fn handle(&mut self, app: usize, event: &Event) {
        let at = self.reality.at;
        if self.appliances[app].epoch < self.store.epoch {
            self.step_down(app);
            return;
        }
        let now = self.appliances[app].now(at);
        let outcome = decide(self.rules, &self.appliances[app].world, event, now);
        self.ledger.stats.decisions += 1;
        if std::mem::take(&mut self.store.torn) && !matches!(event, Event::Started { .. }) {
            // The group was half written when the process died: nothing of it is there after the restart.
            self.kill(app, 20 * SECOND);
            return;
        }
        if self.passes(app, Point::BeforeCommit, event) {
            return;
        }
        if self.store.broken > 0 && !self.commit_without_store(app, event) {
            return;
        }
        let before = self.before(app, &outcome);
        let appliance = &mut self.appliances[app];
        for change in &outcome.changes {
            appliance.world.apply(change);
        }
        appliance.committed = now.elapsed;
        self.let_out(app, event, outcome, now, before);
    }

    /// While the store cannot be written only the reserve takes groups; whether this one found room.
    fn commit_without_store(&mut self, app: usize, event: &Event) -> bool {
        let told = matches!(event, Event::Store { healthy: false } | Event::Started { .. });
        if !told && !std::mem::replace(&mut self.store.told, true) {
            // The commit failed: what was decided is dropped, and the loop says so to itself.
            self.handle(app, &Event::Store { healthy: false });
            self.push(self.reality.at + 5 * SECOND, Happening::StoreProbe(app));
            return false;
        }
        self.store.reserve = self.store.reserve.saturating_sub(1);
        self.store.reserve > 0
    }

    fn probe_store(&mut self, app: usize) {
        if !self.appliances[app].acts() {
            return;
        }
        if self.store.broken > 0 {
            self.push(self.reality.at + 5 * SECOND, Happening::StoreProbe(app));
            return;
        }
        self.store.reserve = RESERVE_GROUPS;
        self.store.told = false;
        self.handle(app, &Event::Store { healthy: true });
    }

    fn before(&self, app: usize, outcome: &Outcome<R>) -> Before {
        let mut before = Before::default();
        if self.checkers.0.is_empty() {
            return before;
        }
        let world = &self.appliances[app].world;
        for change in &outcome.changes {
            match change {
                Change::Host(host) => {
                    before.hosts.entry(host.id).or_insert_with(|| world.hosts.get(&host.id).cloned());
                }
                Change::Assessed { host, .. } | Change::RemoveHost(host) => {
                    before.hosts.entry(*host).or_insert_with(|| world.hosts.get(host).cloned());
                }
                Change::Incident(incident) | Change::Ended(incident) => {
                    let known = || world.incidents.get(&incident.id).cloned();
                    before.incidents.entry(incident.id).or_insert_with(known);
                }
                Change::Cluster(cluster) => {
                    before.clusters.entry(cluster.id).or_insert_with(|| world.clusters.get(&cluster.id).cloned());
                }
                Change::Site(_) => before.site = Some(world.site.clone()),
                Change::Limits { .. }
                | Change::Pool(_)
                | Change::Domain(_)
                | Change::Version(_)
                | Change::Acted { .. } => {}
            }
        }
        before
    }

    fn let_out(&mut self, app: usize, event: &Event, outcome: Outcome<R>, now: Now, before: Before) {
        let at = self.reality.at;
        let ordered: Vec<Ordered> = outcome.commands.iter().map(describe).collect();
        self.ledger.decided(at, &outcome.changes, &outcome.notices, &self.reality, &self.appliances[app].clock);
        self.show(app, event, &outcome, &ordered, now, &before);
        if self.passes(app, Point::Committed, event) {
            return;
        }
        for change in &outcome.changes {
            self.attend(app, change, now);
        }
        for step in &outcome.cancels {
            let awaits = self.appliances[app].runs.get(step).map(|d| d.awaits);
            if let Some(awaits) = awaits {
                self.observe(app, *step, awaits, Observation::Cancel);
            }
        }
        let life = self.appliances[app].life;
        for wakeup in &outcome.wakeups {
            self.set_timer(app, wakeup.target, wakeup.at);
        }
        for command in outcome.commands {
            if self.appliances[app].life != life || !self.appliances[app].up {
                return;
            }
            self.begin(app, command);
        }
        if let Some(mut person) = self.person.take() {
            for notice in outcome.notices.iter().filter(|n| n.loudness == Loudness::Page) {
                for (when, act) in person.paged(at, notice, &self.appliances[app].world, &self.reality) {
                    self.push(when, Happening::Act(Box::new(act)));
                }
            }
            self.person = Some(person);
        }
    }

    fn show(
        &mut self,
        app: usize,
        event: &Event,
        outcome: &Outcome<R>,
        ordered: &[Ordered],
        now: Now,
        before: &Before,
    ) {
        if self.transcript.is_some() {
            for notice in &outcome.notices {
                let why = &notice.explanation;
                let rule = why.rule.map_or_else(String::new, |r| format!(" [{r}]"));
                let words = format!("{}: {}{rule}", why.code, why.sentence);
                let verb = if notice.loudness == Loudness::Page { "pages" } else { "says" };
                match notice.host {
                    Some(host) => self.say(host, verb, &words),
                    None => self.say_site(verb, &words),
                }
            }
            for order in ordered {
                self.say(order.host, "orders", &transcript::intent(&order.intent));
            }
            for change in &outcome.changes {
                if let Change::Ended(incident) = change {
                    let words = format!("incident {} {:?}", incident.id.0, incident.end);
                    self.say(incident.host, "ends", &words);
                }
            }
        }
        let appliance = &self.appliances[app];
        let decided = Decided {
            at: self.reality.at,
            now,
            appliance: appliance.id,
            before,
            world: &appliance.world,
            event,
            changes: &outcome.changes,
            ordered,
            cancels: &outcome.cancels,
            notices: &outcome.notices,
            wakeups: &outcome.wakeups,
        };
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.decided(&decided, &self.reality));
        }
    }

    /// A host with an incident is watched closely; a new host gets eyes.
    fn attend(&mut self, app: usize, change: &Change, now: Now) {
        let Change::Host(host) = change else { return };
        let seed = self.seed;
        let appliance = &mut self.appliances[app];
        match appliance.watched.get_mut(&host.id) {
            Some(watched) => {
                let network = host.role != healing::world::host::Role::Spare;
                if network && !watched.on_network {
                    watched.on_network = true;
                    appliance.on_network += 1;
                }
                watched.attend(host.incident.is_some(), now);
                let at = self.reality.at;
                self.plan_look(app, host.id, at);
            }
            None => {
                let salt = crate::prober::mix(seed, u64::from(host.id.0), u64::from(appliance.id));
                appliance.watched.insert(host.id, Watched::new(salt, now, host.assessment));
                self.reality.dirty.insert(host.id);
            }
        }
    }

    fn set_timer(&mut self, app: usize, target: WakeTarget, when: Elapsed) {
        self.order += 1;
        let generation = self.order;
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let when = appliance.clock.world(when).max(at + 1);
        appliance.timers.insert(target, (generation, when));
        self.push(when, Happening::Wake(app, target, generation));
    }

    fn begin(&mut self, app: usize, command: Command<R>) {
        let at = self.reality.at;
        let now = self.appliances[app].now(at);
        let (step, incident, host) = (command.step, command.incident, command.target.host);
        let intent = command.intent();
        let run = StepRun::new(self.rules, command, now);
        let lease_at = self.reality.nodes.get(&host).map_or(0, |n| n.lease_at(at));
        let driven = Driven { run, step, incident, host, intent, awaits: 0, lease_at };
        self.appliances[app].runs.insert(step, driven);
        self.observe(app, step, 0, Observation::Begin);
    }

    /// Gives a step what it waits for, and does what it asks next.
    fn observe(&mut self, app: usize, step: StepId, awaits: u64, observation: Observation) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if !appliance.up {
            return;
        }
        if let Some(until) = appliance.stopped_until {
            // Nothing runs now; what came meanwhile is there when it goes on.
            if observation == Observation::Timer {
                self.push(until + 2, Happening::StepTimer(app, step, awaits));
            }
            return;
        }
        let now = appliance.now(at);
        let Some(driven) = appliance.runs.get_mut(&step).filter(|d| d.awaits == awaits) else { return };
        let mut next = perform(&mut driven.run, &observation, now);
        if let NextCall::Call(call) = &next
            && writes_power(call)
            && self.rules.enforces(Rule(46))
            && !self.owns_site(app)
        {
            // The lease is read again before each power write: without it nothing is sent.
            if let Some(driven) = self.appliances[app].runs.get_mut(&step) {
                next = perform(&mut driven.run, &Observation::Cancel, now);
                if matches!(&next, NextCall::Call(call) if writes_power(call)) {
                    // A power-on is never cancelled; it waits for the lease like everything else.
                    next = NextCall::WaitUntil(now.elapsed.plus(SECOND));
                }
            }
        }
        let Some(driven) = self.appliances[app].runs.get_mut(&step) else { return };
        driven.awaits += 1;
        let awaits = driven.awaits;
        match next {
            NextCall::Call(call) => {
                let sent = Sent {
                    appliance: app,
                    life: self.appliances[app].life,
                    step,
                    incident: self.appliances[app].runs[&step].incident,
                    host: self.appliances[app].runs[&step].host,
                    intent: self.appliances[app].runs[&step].intent,
                    call,
                    at,
                    awaits,
                    lease_at: self.appliances[app].runs[&step].lease_at,
                };
                let arrives = at + self.way_there(&sent);
                let during = sent.clone();
                self.push(arrives, Happening::Effect(Box::new(sent)));
                self.passes_call(app, Point::Sent, &during);
            }
            NextCall::WaitUntil(when) => {
                let when = self.appliances[app].clock.world(when).max(at + 1);
                self.push(when, Happening::StepTimer(app, step, awaits));
            }
            NextCall::Done(result) => self.step_done(app, step, result),
        }
    }

    fn owns_site(&self, app: usize) -> bool {
        let id = self.appliances[app].id;
        self.reality.lease.is_some_and(|(holder, until)| holder == id && until > self.reality.at + 10 * SECOND)
    }

    fn step_done(&mut self, app: usize, step: StepId, result: StepResult) {
        let at = self.reality.at;
        let Some(driven) = self.appliances[app].runs.remove(&step) else { return };
        if self.transcript.is_some() {
            let words = format!("{}: {}", transcript::intent(&driven.intent), transcript::result(&result));
            self.say(driven.host, "did", &words);
        }
        let finished = Finished {
            at,
            now: self.appliances[app].now(at),
            step,
            incident: driven.incident,
            host: driven.host,
            intent: driven.intent,
            result: &result,
        };
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.finished_step(&finished, &self.reality));
        }
        let during = format!("{} of {}", transcript::intent(&driven.intent), self.name(driven.host));
        if self.point(app, Point::ResultReady, || during) {
            return;
        }
        self.bring_up(app, driven.host);
        let Some(view) = self.appliances[app].view(&self.reality, driven.host) else { return };
        self.note_reported(app, driven.host);
        let event =
            Event::StepDone { host: driven.host, incident: driven.incident, step, result: Box::new(result), view };
        self.handle(app, &event);
        self.plan_look(app, driven.host, at);
    }

    /// The loop hears the assessment with any event about the host.
    fn note_reported(&mut self, app: usize, host: HostId) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        if let Some(watched) = appliance.watched.get_mut(&host) {
            let (before, after) = (watched.reported, watched.evidence.assessment);
            watched.reported = after;
            appliance.count(host, &before, &after, now.elapsed);
        }
    }

    fn effect(&mut self, sent: Sent) {
        let at = self.reality.at;
        let life = (self.appliances[sent.appliance].life, self.appliances[sent.appliance].up);
        let now = self.appliances[sent.appliance].now(at);
        let truth_before = self.called_before(&sent);
        let (arrives, reply) = self.take_effect(&sent);
        let well = truth_before.was_healthy && truth_before.healthy_for_ms >= crate::tally::KNOWABLE_MS;
        self.ledger.called(at, &sent, truth_before.actual, well);
        if self.transcript.is_some() {
            let words = format!("{}: {}", transcript::call(&sent.call), transcript::reply(Some(&reply)));
            let target = match sent.call {
                Call::Bmc(host, _) => host,
                _ => sent.host,
            };
            self.say(target, "calls", &words);
        }
        let called = crate::watch::Called {
            at,
            now,
            appliance: self.appliances[sent.appliance].id,
            step: sent.step,
            incident: sent.incident,
            intent: sent.intent,
            target: sent.host,
            actual: truth_before.actual,
            call: sent.call,
            reply: Some(&reply),
            sent_at: self.appliances[sent.appliance].clock.elapsed(sent.at),
            was_healthy: truth_before.was_healthy,
            was_power: truth_before.was_power,
            world: &self.appliances[sent.appliance].world,
        };
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.called(&called, &self.reality));
        }
        if life != (sent.life, true) {
            return;
        }
        let app = sent.appliance;
        let during = sent.clone();
        self.push(arrives, Happening::Reply(Box::new(sent), reply));
        self.passes_call(app, Point::Effected, &during);
    }

    fn reply(&mut self, sent: &Sent, mut reply: Reply) {
        let app = sent.appliance;
        let appliance = &self.appliances[app];
        if appliance.life != sent.life || !appliance.up {
            return;
        }
        if let Some(until) = appliance.stopped_until {
            self.push(until + 1, Happening::Reply(Box::new(sent.clone()), reply));
            return;
        }
        if let Reply::Power(reading) = &mut reply {
            reading.at = appliance.clock.elapsed(self.reality.at);
        }
        self.observe(app, sent.step, sent.awaits, Observation::Reply(reply));
    }

    // ---- life of the appliance ----

    fn start(&mut self, app: usize, takes_over: bool) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if appliance.up && !takes_over {
            return;
        }
        let id = appliance.id;
        let taken = self.reality.lease.is_some_and(|(holder, until)| holder != id && at < until + TAKEOVER_MS);
        if taken && !takes_over {
            // The other one owns the site: it stands by.
            appliance.up = true;
            appliance.standby = true;
            appliance.life += 1;
            self.push(at + 10 * SECOND, Happening::StandBy(app));
            return;
        }
        self.open_store(app);
        self.store.told = false;
        let appliance = &mut self.appliances[app];
        appliance.up = true;
        appliance.standby = false;
        appliance.stopped_until = None;
        appliance.life += 1;
        // Running time goes on where the journal ends; down time counts zero.
        let resumed = if at == 0 { appliance.committed } else { appliance.committed.plus(1) };
        appliance.clock.delta = resumed.0.cast_signed() - at.cast_signed();
        appliance.clock.begun_at = at;
        self.store.epoch += 1;
        appliance.epoch = self.store.epoch;
        let (id, epoch, life) = (appliance.id, appliance.epoch, appliance.life);
        let until = at + LEASE_LENGTH_MS;
        self.reality.lease = Some((id, until));
        let lease_until = appliance.clock.elapsed(until);
        appliance.watch_all(&self.reality, self.seed);
        if at > 0 {
            self.ledger.stats.restarts += 1;
            self.say_site("starts", if takes_over { "the second appliance takes over" } else { "the appliance" });
        }
        let how = if takes_over { Interruption::TookOver } else { Interruption::Started };
        self.interrupted(app, how);
        self.handle(app, &Event::Started { restored: false, observe_only: false, corrupt: false, lease_until, epoch });
        self.push(at + LEASE_RENEW_MS, Happening::RenewLease(app, life));
        let hosts: Vec<HostId> = self.appliances[app].watched.keys().copied().collect();
        for host in hosts {
            self.look(app, host);
        }
        self.reality.dirty_sight = true;
        if self.store.broken > 0 {
            self.push(at + 5 * SECOND, Happening::StoreProbe(app));
        }
    }

    /// The process dies.
    pub(crate) fn kill(&mut self, app: usize, down_ms: Millis) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if !appliance.up {
            return;
        }
        appliance.up = false;
        appliance.life += 1;
        appliance.stopped_until = None;
        appliance.runs.clear();
        appliance.timers.clear();
        self.say_site("dies", &format!("the appliance, for {} s", down_ms / SECOND));
        self.interrupted(app, Interruption::Killed);
        self.push(at + down_ms, Happening::Start(app));
    }

    /// The process is stopped and goes on later.
    pub(crate) fn stop(&mut self, app: usize, lasts_ms: Millis) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if !appliance.acts() {
            return;
        }
        appliance.stopped_until = Some(at + lasts_ms);
        self.say_site("stops", &format!("the appliance is stopped for {} s", lasts_ms / SECOND));
        self.interrupted(app, Interruption::Stopped(lasts_ms));
        self.push(at + lasts_ms, Happening::Resume(app));
    }

    fn resume(&mut self, app: usize) {
        let at = self.reality.at;
        let Some(since) = self.appliances[app].stopped_until.filter(|until| *until <= at) else { return };
        self.appliances[app].stopped_until = None;
        self.interrupted(app, Interruption::Stopped(0));
        self.void_evidence(app, since);
    }

    /// The loop noticed that it did not run, or that its clocks are apart: all evidence is void (rule 47).
    pub(crate) fn void_evidence(&mut self, app: usize, _since: WorldTime) {
        let at = self.reality.at;
        if !self.appliances[app].acts() {
            return;
        }
        if self.appliances[app].epoch < self.store.epoch {
            self.step_down(app);
            return;
        }
        let void = self.rules.enforces(Rule(47));
        let hosts: Vec<HostId> = self.appliances[app].watched.keys().copied().collect();
        let timers = &self.appliances[app].timers;
        let overdue: Vec<WakeTarget> = timers.iter().filter(|(_, (_, due))| *due <= at).map(|(t, _)| *t).collect();
        for host in &hosts {
            let appliance = &mut self.appliances[app];
            let now = appliance.now(at);
            let outlook = appliance.outlook(&self.reality, *host);
            let Some(watched) = appliance.watched.get_mut(host) else { continue };
            if void {
                watched.outlook = outlook;
                watched.void(now);
            } else {
                watched.face(outlook, &appliance.world.limits, now);
            }
        }
        self.say_site("resumes", "the loop did not run, or the clocks are apart");
        self.handle(app, &Event::Stalled { stalled_ms: 2_500 });
        // Timers that came due meanwhile come now, after the loop knows that it stood still.
        for target in overdue {
            if self.appliances[app].timers.get(&target).is_some_and(|(_, due)| *due <= at) {
                let soon = self.appliances[app].clock.elapsed(at + 1);
                self.set_timer(app, target, soon);
            }
        }
        for host in hosts {
            self.look(app, host);
        }
        self.reality.dirty_sight = true;
    }

    /// Another epoch owns the store: this process may decide nothing more.
    fn step_down(&mut self, app: usize) {
        let appliance = &mut self.appliances[app];
        if appliance.standby {
            return;
        }
        appliance.standby = true;
        appliance.timers.clear();
        // Its executors are told to stop; what they would still send is stopped by the lease.
        let runs: Vec<(StepId, u64)> = appliance.runs.iter().map(|(step, d)| (*step, d.awaits)).collect();
        self.say_site("yields", "another appliance owns the site: standby");
        if self.rules.enforces(Rule(46)) {
            self.appliances[app].runs.clear();
        } else {
            for (step, awaits) in runs {
                self.push(self.reality.at + 1, Happening::StepTimer(app, step, awaits));
            }
        }
        self.push(self.reality.at + 10 * SECOND, Happening::StandBy(app));
    }

    fn renew_lease(&mut self, app: usize, life: u64) {
        let at = self.reality.at;
        let appliance = &self.appliances[app];
        if appliance.life != life || !appliance.up {
            return;
        }
        if let Some(until) = appliance.stopped_until {
            self.push(until + 3, Happening::RenewLease(app, life));
            return;
        }
        if appliance.epoch < self.store.epoch {
            self.step_down(app);
            return;
        }
        let until = at + LEASE_LENGTH_MS;
        self.reality.lease = Some((appliance.id, until));
        let (until, epoch) = (appliance.clock.elapsed(until), appliance.epoch);
        self.handle(app, &Event::Lease { until, epoch });
        self.push(at + LEASE_RENEW_MS, Happening::RenewLease(app, life));
    }

    fn stand_by(&mut self, app: usize) {
        let at = self.reality.at;
        if !self.appliances[app].standby {
            return;
        }
        let free = self.reality.lease.is_none_or(|(_, until)| at >= until + TAKEOVER_MS);
        if !free {
            self.push(at + 10 * SECOND, Happening::StandBy(app));
            return;
        }
        self.start(app, true);
    }

    /// What was committed last, by whichever appliance, is the world of the one that opens the store.
    fn open_store(&mut self, app: usize) {
        let last = self.appliances.iter().position(|a| a.epoch == self.store.epoch).filter(|last| *last != app);
        if let Some(last) = last {
            self.appliances[app].world = self.appliances[last].world.clone();
            self.appliances[app].committed = self.appliances[last].committed;
        }
    }

    fn interrupted(&mut self, app: usize, how: Interruption) {
        let (at, id) = (self.reality.at, self.appliances[app].id);
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.interrupted(at, id, how, &self.reality));
        }
    }

    /// The loop's own way of counting points; whether the appliance was killed here.
    fn passes(&mut self, app: usize, point: Point, event: &Event) -> bool {
        if self.crash.is_none() && self.passed.is_none() {
            return false;
        }
        let during = match event {
            Event::StepDone { host, result, .. } => {
                format!("result of {}: {}", self.name(*host), transcript::result(result))
            }
            Event::Fact { host, .. } => format!("fact of {}", self.name(*host)),
            Event::Wake { host, .. } => format!("timer of {}", self.name(*host)),
            Event::Install { host, report, .. } => format!("installer of {}: {report:?}", self.name(*host)),
            Event::Started { .. } => "start".to_owned(),
            Event::Sight(_) => "own sight".to_owned(),
            Event::Operator(order) => format!("order: {order:?}"),
            Event::Config(_) => "configuration".to_owned(),
            Event::Stalled { .. } => "stall".to_owned(),
            Event::Store { .. } => "store".to_owned(),
            Event::Lease { .. } => "lease".to_owned(),
        };
        self.point(app, point, || during)
    }

    fn passes_call(&mut self, app: usize, point: Point, sent: &Sent) -> bool {
        let during = format!("{} of {}", transcript::call(&sent.call), self.name(sent.host));
        self.point(app, point, || during)
    }

    fn point(&mut self, app: usize, point: Point, during: impl FnOnce() -> String) -> bool {
        let number = self.points;
        self.points += 1;
        if let Some(passed) = &mut self.passed {
            passed.push(Passed { number, point, at: self.reality.at, during: during() });
        }
        if self.crash.is_some_and(|c| c.point == number) {
            let down = self.crash.map_or(0, |c| c.down_ms);
            self.kill(app, down);
            return true;
        }
        false
    }

    fn name(&self, host: HostId) -> String {
        self.names.get(&host).cloned().unwrap_or_else(|| format!("host-{}", host.0))
    }

    fn say(&mut self, host: HostId, verb: &str, what: &str) {
        let at = self.reality.at;
        if let Some(transcript) = &mut self.transcript {
            let name = self.names.get(&host).map_or("?", String::as_str);
            transcript.say(at, name, verb, what);
        }
    }

    pub(crate) fn say_site(&mut self, verb: &str, what: &str) {
        let at = self.reality.at;
        if let Some(transcript) = &mut self.transcript {
            transcript.say(at, "site", verb, what);
        }
    }

    // ---- faults and people ----

    fn next_fault(&mut self) {
        let Some(mut generator) = self.generator.take() else { return };
        let at = self.reality.at;
        if let Some((fault, host)) = generator.draw(&self.reality) {
            self.inject(fault, host);
        }
        let next = generator.next_after(at);
        self.generator = Some(generator);
        self.push(next, Happening::NextFault);
    }

    fn inject(&mut self, fault: Fault, host: Option<HostId>) {
        let at = self.reality.at;
        if self.transcript.is_some() {
            let cure = fault.cure();
            match host {
                Some(host) => self.say(host, "fault", &format!("{} (cured by {cure:?})", fault.name())),
                None => self.say_site("fault", fault.name()),
            }
        }
        *self.ledger.stats.faults.entry(fault.name()).or_insert(0) += 1;
        match fault {
            Fault::Killed { down_ms } => self.kill(self.owner(), down_ms),
            Fault::Stopped { lasts_ms } => self.stop(self.owner(), lasts_ms),
            Fault::ClockStepped { by_ms } => {
                let owner = self.owner();
                self.appliances[owner].wall_off_ms += by_ms;
                self.interrupted(owner, Interruption::ClockStepped(by_ms));
                if by_ms.unsigned_abs() > self.appliances[owner].world.limits.clock_apart_ms {
                    self.void_evidence(owner, at);
                }
            }
            Fault::Starved { .. } => {
                let owner = self.owner();
                self.appliances[owner].starved += 1;
                self.interrupted(owner, Interruption::Stopped(2_500));
                self.void_evidence(owner, at);
                self.reality.dirty.extend(self.names.keys().copied());
            }
            Fault::StoreFails { .. } => self.store.broken += 1,
            Fault::TornWrite => self.store.torn = true,
            Fault::SitePower { lasts_ms } => {
                self.kill(self.owner(), lasts_ms + 60 * SECOND);
                crate::inject::begin(&mut self.reality, &fault, host);
            }
            _ => crate::inject::begin(&mut self.reality, &fault, host),
        }
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.faulted(at, &fault, host, &self.reality));
        }
        if let Some(span) = crate::inject::lasts(&fault) {
            self.next_end += 1;
            let number = self.next_end;
            self.ends.insert(number, (fault, host));
            self.push(at + span, Happening::Ends(number));
        }
        self.tell_cmdb(&fault, host, true);
    }

    fn end_fault(&mut self, number: u64) {
        let Some((fault, host)) = self.ends.remove(&number) else { return };
        match fault {
            Fault::StoreFails { .. } => self.store.broken = self.store.broken.saturating_sub(1),
            Fault::Starved { .. } => {
                for appliance in &mut self.appliances {
                    appliance.starved = appliance.starved.saturating_sub(1);
                }
                self.reality.dirty.extend(self.names.keys().copied());
            }
            _ => crate::inject::end(&mut self.reality, &fault, host),
        }
        if self.transcript.is_some() {
            match host {
                Some(host) => self.say(host, "over", fault.name()),
                None => self.say_site("over", fault.name()),
            }
        }
        self.tell_cmdb(&fault, host, false);
    }

    /// What the CMDB says reaches the loop as configuration.
    fn tell_cmdb(&mut self, fault: &Fault, host: Option<HostId>, begins: bool) {
        let (Fault::CmdbOther { .. }, Some(host)) = (fault, host) else { return };
        let owner = self.owner();
        let at = self.appliances[owner].now(self.reality.at).elapsed;
        let state = if begins {
            healing::world::host::CmdbState::Other
        } else {
            healing::world::host::CmdbState::InService { at }
        };
        let event = Event::Config(healing::event::Config::Cmdb { host, state });
        self.push(self.reality.at, Happening::Order(owner, Box::new(event)));
    }

    fn act(&mut self, act: Act) {
        let at = self.reality.at;
        let owner = self.owner();
        let act = match act {
            Act::Decide(page) => {
                let Some(mut person) = self.person.take() else { return };
                let acts = person.react(at, &page, &self.appliances[owner].world, &self.reality);
                self.person = Some(person);
                for (when, act) in acts {
                    self.push(when, Happening::Act(Box::new(act)));
                }
                return;
            }
            act => act,
        };
        *self.ledger.stats.operator.entry(act.name()).or_insert(0) += 1;
        match act {
            Act::Order(order) => {
                if self.transcript.is_some() {
                    self.say_site("person", &format!("{order:?}"));
                }
                if self.appliances[owner].acts() {
                    self.handle(owner, &Event::Operator(order));
                } else {
                    // The page does not load; tried again in a minute.
                    self.push(at + 60 * SECOND, Happening::Act(Box::new(Act::Order(order))));
                }
            }
            Act::Repair(host) => {
                self.say(host, "person", "repairs the machine and its BMC");
                crate::inject::repair(&mut self.reality, host);
                let wrong = self.appliances[owner]
                    .world
                    .hosts
                    .get(&host)
                    .is_some_and(|h| h.link == healing::world::host::Link::Mismatch);
                if wrong && self.appliances[owner].acts() {
                    let link = healing::world::host::Link::Linked;
                    self.handle(owner, &Event::Config(healing::event::Config::Link { host, link }));
                }
            }
            Act::PullPlug(host) => {
                self.say(host, "person", "switches it off at the machine");
                crate::inject::pull_plug(&mut self.reality, host);
            }
            Act::Decide(_) => {}
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
