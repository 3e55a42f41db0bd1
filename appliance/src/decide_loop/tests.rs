//! Stories of the loop itself, on tokio's paused clock: time passes only while everybody waits.

use super::*;
use crate::store::{Entry, Journal, JournalError, Loaded};
use healing::command::{Command, Failure, Intent, StepResult};
use healing::event::{Change, Config, Event, Operator, Scope};
use healing::id::{ClusterId, DomainId, HostId, MachineId, PoolId};
use healing::policy::{Policy, Site};
use healing::rules::Enforced;
use healing::sight::{ApiSight, ClusterSight, OwnSight, Reference};
use healing::signal::{NodeReport, OffCause, Power, Seen, Signal, Source};
use healing::time::{Elapsed, Millis, Now, SECOND};
use healing::world::World;
use healing::world::host::{CmdbState, Host, Lifecycle, Link, Marks, Role};
use healing::world::scope::{Cluster, Consent, Domain, DomainKind, ObserveOnly, Pool};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What outlives the loop: the journal's bytes and switches for its failures.
#[derive(Debug, Default)]
struct Disk {
    entries: Mutex<Vec<Entry>>,
    reserve: Mutex<Vec<Entry>>,
    full: AtomicBool,
    reserve_gone: AtomicBool,
    superseded: AtomicBool,
    snapshots: Mutex<Vec<(u64, World)>>,
}

#[derive(Debug, Clone)]
struct DiskJournal(Arc<Disk>);

impl DiskJournal {
    fn world(&self) -> Loaded {
        let entries = self.0.entries.lock().unwrap();
        let reserve = self.0.reserve.lock().unwrap();
        let (mut seq, mut world) =
            self.0.snapshots.lock().unwrap().last().cloned().unwrap_or((0, World::new(&Policy::<Site>::default())));
        let all = entries.iter().chain(reserve.iter());
        let mut last = Now::default();
        for (index, entry) in all.enumerate() {
            last = entry.now;
            if index as u64 >= seq {
                entry.changes.iter().for_each(|change| world.apply(change));
            }
        }
        seq = (entries.len() + reserve.len()) as u64;
        Loaded { world, seq, last, restored: false, corrupt: false }
    }
}

impl Journal for DiskJournal {
    async fn load(&mut self) -> Result<Loaded, JournalError> {
        Ok(self.world())
    }

    async fn commit(&mut self, _: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        if self.0.superseded.load(Ordering::SeqCst) {
            return Err(JournalError::Superseded { theirs: 9 });
        }
        if self.0.full.load(Ordering::SeqCst) {
            return Err(JournalError::Full);
        }
        let mut all = self.0.entries.lock().unwrap();
        assert_eq!(all.len() as u64, expected);
        all.extend_from_slice(entries);
        Ok(all.len() as u64)
    }

    async fn commit_reserve(&mut self, _: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        if self.0.reserve_gone.load(Ordering::SeqCst) {
            return Err(JournalError::Reserve("none".to_owned()));
        }
        self.0.reserve.lock().unwrap().extend_from_slice(entries);
        Ok(expected + entries.len() as u64)
    }

    async fn recover(&mut self) -> Result<(), JournalError> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(JournalError::Full);
        }
        let mut reserve = self.0.reserve.lock().unwrap();
        self.0.entries.lock().unwrap().append(&mut reserve);
        Ok(())
    }

    async fn acquire_lease(&mut self, _: Elapsed) -> Result<u64, JournalError> {
        Ok(1)
    }

    async fn renew_lease(&mut self, _: u64, _: Elapsed) -> Result<(), JournalError> {
        Ok(())
    }

    async fn snapshot(&mut self, seq: u64, world: &World, kept: usize) -> Result<(), JournalError> {
        let mut all = self.0.snapshots.lock().unwrap();
        all.push((seq, world.clone()));
        let surplus = all.len().saturating_sub(kept);
        all.drain(..surplus);
        Ok(())
    }
}

/// An executor that hands each command to the test and does what the test answers.
struct Hands {
    commands: mpsc::UnboundedSender<(Command<Enforced>, Right, tokio::sync::oneshot::Sender<StepResult>)>,
}

impl Executor for Hands {
    async fn run(&self, command: Command<Enforced>, right: Right) -> StepResult {
        let cancelled = right.cancelled().clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.commands.send((command, right, answer)).unwrap();
        tokio::select! {
            Ok(result) = answered => result,
            () = cancelled.cancelled() => {
                StepResult::Failed { why: Failure::Cancelled, readings: Vec::new(), sent: false }
            }
        }
    }
}

/// A clock on tokio's time, whose wall can be stepped.
#[derive(Debug, Default)]
struct SteppedClock {
    system: SystemClock,
    step_ms: AtomicI64,
}

impl Clock for SteppedClock {
    fn monotonic_ms(&self) -> Millis {
        self.system.monotonic_ms()
    }

    fn wall_ms(&self) -> i64 {
        i64::try_from(self.system.monotonic_ms()).unwrap() + 1_800_000_000_000 + self.step_ms.load(Ordering::SeqCst)
    }
}

struct Story {
    disk: Arc<Disk>,
    clock: Arc<SteppedClock>,
    handle: Handle,
    commands: mpsc::UnboundedReceiver<(Command<Enforced>, Right, tokio::sync::oneshot::Sender<StepResult>)>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

const HOSTS: u32 = 6;

fn host(id: u32) -> Host {
    Host {
        id: HostId(id),
        name: format!("node-{id}"),
        cluster: Some(ClusterId(1)),
        pool: PoolId(1),
        role: Role::Worker,
        domains: vec![DomainId(id)],
        versions: Vec::new(),
        storage: None,
        machine: MachineId(0x1000 + u128::from(id)),
        link: Link::Linked,
        outlets: false,
        disk: None,
        lifecycle: Lifecycle::InService,
        marks: Marks { cmdb: CmdbState::NotKept, ..Marks::default() },
        spare_proof: None,
        drill: None,
        assessment: Default::default(),
        history: Default::default(),
        incident: None,
        our_cordon: None,
        our_taint: None,
        held_off: None,
    }
}

fn configuration() -> Vec<Config> {
    let mut all = vec![
        Config::Cluster(Box::new(Cluster {
            id: ClusterId(1),
            name: "east".to_owned(),
            armed: false,
            paused: false,
            etcd_access: false,
            freeze: None,
            freeze_ended: None,
            careful: None,
            released_hosts: Vec::new(),
            released_at: None,
        })),
        Config::Pool(Box::new(Pool {
            id: PoolId(1),
            name: "workers".to_owned(),
            soft_reboot: Consent::Ask,
            reimage: Consent::Never,
            replace: Consent::Never,
            runtime_restart: false,
            crash_dump_wait_ms: 0,
        })),
    ];
    for id in 1..=HOSTS {
        all.push(Config::Domain(Box::new(Domain {
            id: DomainId(id),
            name: format!("rack-{id}"),
            kind: DomainKind::Rack,
            paused: false,
            correlated: None,
        })));
        all.push(Config::Host(Box::new(host(id))));
    }
    all
}

impl Story {
    async fn begin(disk: Arc<Disk>) -> Story {
        let (commands_in, commands) = mpsc::unbounded_channel();
        let clock = Arc::new(SteppedClock::default());
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let setup = Setup {
            journal: DiskJournal(Arc::clone(&disk)),
            executor: Arc::new(Hands { commands: commands_in }),
            clock: clock.clone(),
            observe_only: false,
        };
        let handle = start(setup, &tracker, stop.clone()).await.unwrap();
        Story { disk, clock, handle, commands, stop, tracker }
    }

    async fn configured(disk: Arc<Disk>) -> Story {
        let story = Story::begin(disk).await;
        for config in configuration() {
            story.handle.inbox.submit(Order::Config(config)).await.unwrap();
        }
        let arm = Operator::Arm { cluster: ClusterId(1), armed: true };
        story.handle.inbox.submit(Order::Operator(arm)).await.unwrap();
        story
    }

    fn now(&self) -> Elapsed {
        self.handle.time.now().elapsed
    }

    /// One second of probing: everybody answers but the hosts named.
    async fn second(&self, silent: &[u32]) {
        let signals = &self.handle.inbox.signals;
        let now = self.now();
        signals.own_sight(OwnSight {
            at: now,
            link: true,
            gateway: true,
            references: vec![Reference { domain: None, answers: true }],
            ..OwnSight::default()
        });
        signals.cluster_sight(ClusterSight {
            cluster: ClusterId(1),
            api: ApiSight { watch_live_since: Some(Elapsed(1)), watch_proof_at: now, ..ApiSight::default() },
            ..ClusterSight::default()
        });
        for id in 1..=HOSTS {
            let dead = silent.contains(&id);
            let seen = if dead { Seen::Miss } else { Seen::Answer };
            for source in [Source::Icmp, Source::KubeletPort, Source::SecondPort] {
                signals.offer(HostId(id), Signal::sample(source, seen, now));
            }
            if !dead {
                signals.offer(HostId(id), Signal::sample(Source::Lease, Seen::Renewed, now));
            }
            let ready = NodeReport { ready: Some(!dead), boot: healing::id::BootId(7), ..NodeReport::default() };
            signals.offer(HostId(id), Signal::sample(Source::Node, Seen::Node(ready), now));
            let power = Seen::Power(Power::On, OffCause::Unknown);
            signals.offer(HostId(id), Signal::sample(Source::Power, power, now));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    async fn seconds(&self, count: u64, silent: &[u32]) {
        for _ in 0..count {
            self.second(silent).await;
        }
    }

    fn journaled(&self, of: impl Fn(&Event) -> bool) -> usize {
        self.disk.entries.lock().unwrap().iter().filter(|entry| of(&entry.event)).count()
    }

    async fn end(self) {
        self.stop.cancel();
        self.handle.ended.await.unwrap().unwrap();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_steady_fleet_is_watched_for_an_hour_and_journals_next_to_nothing() {
    let story = Story::configured(Arc::default()).await;
    story.seconds(130, &[]).await;
    let before = story.disk.entries.lock().unwrap().len();
    story.seconds(3_600, &[]).await;
    let of_hosts = story.journaled(|event| event.host().is_some());
    let grown = story.disk.entries.lock().unwrap().len() - before;
    assert!(of_hosts <= 2 * HOSTS as usize, "{of_hosts} events about hosts");
    // The appliance lease is renewed every 2 min; nothing else happens.
    assert!(grown <= 3_600 / 120 + 2, "{grown} entries in a quiet hour");
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_leads_to_a_command_only_after_its_intent_is_durable() {
    let mut story = Story::configured(Arc::default()).await;
    story.seconds(130, &[]).await;
    let mut first = None;
    for _ in 0..60 {
        story.second(&[3]).await;
        if let Ok(given) = story.commands.try_recv() {
            first = Some(given);
            break;
        }
    }
    let (command, right, _answer) = first.expect("a silent host is acted on");
    assert_eq!(command.target.host, HostId(3));
    assert_eq!(command.intent(), Intent::Cordon, "nothing stronger comes first");
    let durable = |step| {
        let entries = story.disk.entries.lock().unwrap();
        entries.iter().flat_map(|entry| &entry.commands).any(|ordered| ordered.step == step)
    };
    assert!(durable(command.step));
    assert!(right.may_act(story.handle.time.now().elapsed));
    let view = story.handle.inbox.views.host(HostId(3)).unwrap();
    assert!(view.incident.as_ref().is_some_and(|incident| incident.running.is_some()));
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_withdraws_the_right_of_a_running_step_within_a_second() {
    let mut story = Story::configured(Arc::default()).await;
    story.seconds(130, &[]).await;
    let mut given = None;
    for _ in 0..60 {
        story.second(&[3]).await;
        if let Ok(next) = story.commands.try_recv() {
            given = Some(next);
            break;
        }
    }
    let (_, right, _answer) = given.expect("a command");
    let began = story.now();
    let pause = Operator::Pause { scope: Scope::Site, paused: true };
    story.handle.inbox.submit(Order::Operator(pause)).await.unwrap();
    right.cancelled().cancelled().await;
    assert!(story.now().since(began) <= SECOND);
    assert!(!right.may_act(story.now()));
    story.seconds(120, &[3]).await;
    assert!(story.commands.try_recv().is_err(), "nothing is ordered while paused");
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stepped_wall_clock_voids_the_evidence_and_the_commands_that_rest_on_it() {
    let mut story = Story::configured(Arc::default()).await;
    story.seconds(130, &[]).await;
    let mut given = None;
    for _ in 0..60 {
        story.second(&[3]).await;
        if let Ok(next) = story.commands.try_recv() {
            given = Some(next);
            break;
        }
    }
    let (_, right, _answer) = given.expect("a command");
    story.clock.step_ms.store(3_600_000, Ordering::SeqCst);
    story.second(&[3]).await;
    assert!(!right.may_act(story.now()));
    assert_eq!(story.journaled(|event| matches!(event, Event::Stalled { .. })), 1);
    assert!(matches!(story.handle.inbox.views.site().observe_only, Some(ObserveOnly::Void { .. })));
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_did_not_run_voids_the_evidence_too() {
    let story = Story::configured(Arc::default()).await;
    story.seconds(130, &[]).await;
    assert_eq!(story.handle.inbox.views.site().observe_only, None);
    story.handle.inbox.signals.stalled(4_000);
    story.second(&[]).await;
    assert!(matches!(story.handle.inbox.views.site().observe_only, Some(ObserveOnly::Void { .. })));
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_world_is_what_the_journal_says_and_running_time_goes_on() {
    let disk: Arc<Disk> = Arc::default();
    let story = Story::configured(Arc::clone(&disk)).await;
    story.seconds(130, &[]).await;
    story.seconds(20, &[3]).await;
    let last = disk.entries.lock().unwrap().last().unwrap().now.elapsed;
    story.end().await;
    let world = DiskJournal(Arc::clone(&disk)).world().world;
    assert_eq!(world.hosts.len(), HOSTS as usize);

    let again = Story::begin(Arc::clone(&disk)).await;
    assert!(again.now() > last, "down time counts zero, running time never goes back");
    let seen = again.handle.inbox.views.host(HostId(3)).unwrap();
    assert_eq!(seen.host, world.hosts[&HostId(3)]);
    again.second(&[3]).await;
    assert!(matches!(again.handle.inbox.views.site().observe_only, Some(ObserveOnly::Starting { .. })));
    assert_eq!(again.journaled(|event| matches!(event, Event::Started { .. })), 2);
    again.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_means_observe_only_by_the_reserve_and_the_way_back_when_there_is_room() {
    let mut story = Story::configured(Arc::default()).await;
    story.seconds(130, &[]).await;
    story.disk.full.store(true, Ordering::SeqCst);
    story.seconds(60, &[3]).await;
    assert_eq!(story.handle.inbox.views.site().observe_only, Some(ObserveOnly::Store));
    assert!(story.commands.try_recv().is_err(), "nothing is ordered whose intent cannot be written");
    assert!(story.disk.reserve.lock().unwrap().iter().any(|e| matches!(e.event, Event::Store { healthy: false })));
    let config = configuration().remove(0);
    let refused = story.handle.inbox.submit(Order::Config(config)).await;
    assert_eq!(refused, Err(NotCommitted::Store));

    story.disk.full.store(false, Ordering::SeqCst);
    story.seconds(10, &[3]).await;
    assert!(matches!(story.handle.inbox.views.site().observe_only, Some(ObserveOnly::Starting { .. })));
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_reserve_nothing_at_all_is_done_until_the_store_works() {
    let mut story = Story::configured(Arc::default()).await;
    story.seconds(130, &[]).await;
    story.disk.reserve_gone.store(true, Ordering::SeqCst);
    story.disk.full.store(true, Ordering::SeqCst);
    story.seconds(60, &[3]).await;
    assert_eq!(story.handle.inbox.views.site().observe_only, Some(ObserveOnly::Store));
    assert!(story.commands.try_recv().is_err());
    story.disk.full.store(false, Ordering::SeqCst);
    story.seconds(150, &[3]).await;
    assert!(story.commands.recv().await.is_some(), "it heals again once the store works");
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_whose_epoch_is_over_ends_at_once() {
    let story = Story::configured(Arc::default()).await;
    story.disk.superseded.store(true, Ordering::SeqCst);
    let config = configuration().remove(0);
    assert!(story.handle.inbox.submit(Order::Config(config)).await.is_err());
    assert!(matches!(story.handle.ended.await.unwrap(), Err(Ended::Superseded { ours: 1, theirs: 9 })));
}

#[tokio::test(start_paused = true)]
async fn the_world_is_written_whole_every_ten_thousand_events_and_three_are_kept() {
    let story = Story::configured(Arc::default()).await;
    for round in 0..45_000_u64 {
        let until = Some(Elapsed(10_000_000 + round));
        story.handle.inbox.submit(Order::Operator(Operator::Maintenance { host: HostId(1), until })).await.unwrap();
    }
    let snapshots = story.disk.snapshots.lock().unwrap().clone();
    assert_eq!(snapshots.len(), SNAPSHOTS_KEPT);
    assert!(snapshots.windows(2).all(|pair| pair[1].0 - pair[0].0 >= SNAPSHOT_EVENTS));
    let mut replayed = snapshots.last().unwrap().1.clone();
    let from = usize::try_from(snapshots.last().unwrap().0).unwrap();
    for entry in &story.disk.entries.lock().unwrap()[from..] {
        entry.changes.iter().for_each(|change: &Change| replayed.apply(change));
    }
    assert_eq!(replayed.hosts[&HostId(1)], story.handle.inbox.views.host(HostId(1)).unwrap().host);
    story.end().await;
}
