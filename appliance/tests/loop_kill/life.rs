//! One life of the loop: the child process. The real loop, the real SQLite store and the real driver; only the wires end
//! in the parent's rack.

use crate::rack::{Ask, HOSTS, SPEED, Seen, Told};
use healing::command::Reply;
use healing::event::{Config, Operator};
use healing::fence::{Reading, ReadingSource};
use healing::id::{BootId, ClusterId, DomainId, HostId, MachineId, PoolId};
use healing::policy::{Lab, Limits, Policy};
use healing::sight::{ApiSight, ClusterSight, OwnSight, Reference};
use healing::signal::{self, BmcTrouble, BootStage, NodeReport, OffCause, Power, Signal, Source};
use healing::time::{Elapsed, SECOND};
use healing::world::World;
use healing::world::host::{Host, Lifecycle, Link, Marks, Role};
use healing::world::scope::{Cluster, Consent, Domain, DomainKind, Pool};
use machine::{BmcError, BmcReply};
use rackmedic::act::{Asked, Driver, Ports};
use rackmedic::decide_loop::clock::FastClock;
use rackmedic::decide_loop::{HostView, Inbox, Order, RunningTime, Setup, start};
use rackmedic::store::secret::OuterKey;
use rackmedic::store::sqlite::SqliteJournal;
use rackmedic::store::{Entry, Journal, JournalError, Loaded};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where a life is to end by its own hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillAt {
    Never,
    /// Just before the n-th commit.
    Before(u64),
    /// Just after it, before anything of it is let out.
    After(u64),
}

/// Asks the rack once, on a connection of its own: a call that is cut short leaves nothing behind.
async fn ask(socket: &Path, ask: &Ask) -> Option<Told> {
    ask_if(socket, ask, || true).await.flatten()
}

/// The same, if it may still leave once the connection stands; `None` = nothing was sent.
async fn ask_if(socket: &Path, ask: &Ask, may_leave: impl Fn() -> bool) -> Option<Option<Told>> {
    let Ok(mut stream) = UnixStream::connect(socket).await else { return Some(None) };
    let text = serde_json::to_string(ask).unwrap() + "\n";
    if !may_leave() {
        return None;
    }
    // A reply that does not come is a call whose effect is unknown.
    if stream.write_all(text.as_bytes()).await.is_err() {
        return Some(None);
    }
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line).await;
    Some(read.ok().and_then(|_| serde_json::from_str(&line).ok()))
}

struct Wires {
    socket: PathBuf,
    time: Arc<OnceLock<RunningTime>>,
}

impl Wires {
    fn now(&self) -> Elapsed {
        self.time.get().map_or(Elapsed::default(), |time| time.now().elapsed)
    }

    fn bmc(&self, result: Result<BmcReply, BmcError>) -> Reply {
        match result {
            Ok(BmcReply::Accepted) => Reply::Ok,
            Ok(BmcReply::Conflict) => Reply::Conflict,
            Ok(BmcReply::Identity(identity)) => Reply::Identity(Some(MachineId(identity))),
            Ok(BmcReply::Power(read)) => Reply::Power(Reading {
                contradicted: false,
                at: self.now(),
                source: ReadingSource::Bmc,
                identity: Some(MachineId(read.identity)),
                power: power(read.power),
                off_cause: cause(read.cause),
            }),
            Ok(BmcReply::Stage(stage)) => Reply::Stage(stage_of(stage)),
            // Nothing else was asked for.
            Ok(_) => Reply::BmcTrouble(BmcTrouble::Busy),
            Err(BmcError::Refused) => Reply::BmcTrouble(BmcTrouble::Refused),
            Err(BmcError::Busy) => Reply::BmcTrouble(BmcTrouble::Busy),
            Err(BmcError::Silent | BmcError::ReplyLost) => Reply::BmcTrouble(BmcTrouble::Silent),
        }
    }
}

impl Ports for Wires {
    async fn call(&self, asked: &Asked<'_>) -> Option<Reply> {
        let call = Ask::Call { host: asked.target.host.0, call: asked.call };
        let told = ask_if(&self.socket, &call, || asked.may_leave()).await?;
        Some(match told {
            Some(Told::Bmc(result)) => self.bmc(result),
            Some(Told::Node { ready, boot, cordoned, lease_age_ms }) => Reply::Node {
                node: Some(NodeReport { ready, boot: BootId(boot), cordoned, ..NodeReport::default() }),
                lease_renewed: lease_age_ms < self.now().since(asked.began),
            },
            Some(Told::Leftovers { pods, attachments }) => Reply::Leftovers { pods, attachments },
            Some(Told::Flag(flag)) => Reply::Flag(flag),
            Some(Told::Probed { icmp, tcp }) => Reply::Probed { icmp, tcp },
            Some(Told::Done) => Reply::Ok,
            Some(Told::Seen(_)) | None => Reply::ApiSilent,
        })
    }
}

fn power(power: machine::Power) -> Power {
    match power {
        machine::Power::On => Power::On,
        machine::Power::Off => Power::Off,
        machine::Power::GoingOff => Power::Transitioning,
    }
}

fn cause(cause: machine::OffCause) -> OffCause {
    match cause {
        machine::OffCause::AcLoss => OffCause::AcLoss,
        machine::OffCause::Fault => OffCause::Fault,
        machine::OffCause::Command => OffCause::Command,
        machine::OffCause::Button => OffCause::Button,
        machine::OffCause::Thermal => OffCause::Thermal,
        machine::OffCause::Unknown => OffCause::Unknown,
    }
}

fn stage_of(stage: machine::StageRead) -> BootStage {
    match stage {
        machine::StageRead::None => BootStage::None,
        machine::StageRead::Post => BootStage::Post,
        machine::StageRead::Starting => BootStage::OsStarting,
        machine::StageRead::Running => BootStage::OsRunning,
        machine::StageRead::ShuttingDown => BootStage::ShuttingDown,
        machine::StageRead::FirmwareTask => BootStage::FirmwareTask,
    }
}

/// The journal with a witness: each group that was acknowledged is also written to a file that only grows, so that the
/// parent can tell what must not be lost; and the life ends at its planned commit.
struct Witnessed {
    inner: SqliteJournal,
    file: File,
    full: PathBuf,
    socket: PathBuf,
    kill_at: KillAt,
    commits: u64,
}

impl Witnessed {
    /// The parent kills this process while it waits here: not one instruction of the loop runs after this moment.
    fn kill_me(&self) {
        let mut stream = StdStream::connect(&self.socket).unwrap();
        let text = serde_json::to_string(&Ask::KillMe).unwrap() + "\n";
        stream.write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        let _ = std::io::BufReader::new(stream).read_line(&mut line);
        panic!("the parent did not kill this process");
    }

    fn disk_full(&self) -> bool {
        self.full.exists()
    }
}

/// What the witness keeps of an entry.
pub(crate) fn digest(entry: &Entry) -> String {
    let text = serde_json::to_string(entry).unwrap();
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Journal for Witnessed {
    async fn load(&mut self) -> Result<Loaded, JournalError> {
        self.inner.load().await
    }

    async fn commit(&mut self, epoch: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        if self.disk_full() {
            return Err(JournalError::Full);
        }
        self.commits += 1;
        if self.kill_at == KillAt::Before(self.commits) {
            self.kill_me();
        }
        let seq = self.inner.commit(epoch, expected, entries).await?;
        for (index, entry) in entries.iter().enumerate() {
            let line = format!("{} {}\n", expected + index as u64 + 1, digest(entry));
            self.file.write_all(line.as_bytes()).unwrap();
        }
        if self.kill_at == KillAt::After(self.commits) {
            self.kill_me();
        }
        ask(&self.socket, &Ask::Committed).await;
        Ok(seq)
    }

    async fn commit_reserve(&mut self, epoch: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        let seq = self.inner.commit_reserve(epoch, expected, entries).await?;
        for (index, entry) in entries.iter().enumerate() {
            let line = format!("{} {}\n", expected + index as u64 + 1, digest(entry));
            self.file.write_all(line.as_bytes()).unwrap();
        }
        Ok(seq)
    }

    async fn recover(&mut self) -> Result<(), JournalError> {
        if self.disk_full() { Err(JournalError::Full) } else { self.inner.recover().await }
    }

    async fn acquire_lease(&mut self, until: Elapsed) -> Result<u64, JournalError> {
        self.inner.acquire_lease(until).await
    }

    async fn renew_lease(&mut self, epoch: u64, until: Elapsed) -> Result<(), JournalError> {
        self.inner.renew_lease(epoch, until).await
    }

    async fn snapshot(&mut self, seq: u64, world: &World, kept: usize) -> Result<(), JournalError> {
        self.inner.snapshot(seq, world, kept).await
    }
}

/// The lab's waits: never the evidence, never the proof.
pub(crate) fn policy() -> Policy<Lab> {
    Policy::check(Limits {
        start_observe_ms: 5 * SECOND,
        soak_ms: 5 * SECOND,
        component_soak_ms: 5 * SECOND,
        boot_budget_ms: 60 * SECOND,
        cycle_spacing_ms: 5 * SECOND,
        ..Limits::default()
    })
    .unwrap()
}

fn configuration() -> Vec<Config> {
    let mut all = vec![
        Config::Cluster(Box::new(Cluster {
            id: ClusterId(1),
            name: "lab".to_owned(),
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
        all.push(Config::Host(Box::new(Host {
            id: HostId(id),
            name: format!("worker-{id}"),
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
            marks: Marks::default(),
            spare_proof: None,
            drill: None,
            assessment: Default::default(),
            history: Default::default(),
            incident: None,
            our_cordon: None,
            our_taint: None,
            held_off: None,
        })));
    }
    all
}

/// Sees the rack once: one sample of each source.
fn see(inbox: &Inbox, now: Elapsed, seen: &[Seen], renewals: &mut BTreeMap<u32, u64>) {
    let signals = &inbox.signals;
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
    let port = |answer: Option<bool>| match answer {
        Some(true) => signal::Seen::Answer,
        Some(false) => signal::Seen::Refused,
        None => signal::Seen::Miss,
    };
    for host in seen {
        let offer = |source, seen| signals.offer(HostId(host.host), Signal::sample(source, seen, now));
        offer(Source::Icmp, if host.answers.icmp { signal::Seen::Answer } else { signal::Seen::Miss });
        offer(Source::KubeletPort, port(host.answers.kubelet_port));
        offer(Source::SecondPort, port(host.answers.second_port));
        // A change as received by us; the first list of a watch counts as one.
        if renewals.insert(host.host, host.renewals) != Some(host.renewals) {
            offer(Source::Lease, signal::Seen::Renewed);
        }
        let node =
            NodeReport { ready: host.ready, boot: BootId(host.boot), cordoned: host.cordoned, ..NodeReport::default() };
        offer(Source::Node, signal::Seen::Node(node));
        offer(Source::Power, signal::Seen::Power(power(host.power.power), cause(host.power.cause)));
        offer(Source::BootProgress, signal::Seen::Stage(stage_of(host.stage)));
    }
}

/// Lives until it is killed.
pub(crate) fn live(directory: &Path, socket: &Path, kill_at: KillAt) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let key = OuterKey::file(&directory.join("key")).unwrap();
        let inner = SqliteJournal::open(&directory.join("data"), &key, World::new(&policy())).await.unwrap();
        let file = OpenOptions::new().create(true).append(true).open(directory.join("acknowledged")).unwrap();
        let full = directory.join("disk-full");
        let journal = Witnessed { inner, file, full, socket: socket.to_owned(), kill_at, commits: 0 };
        let time = Arc::new(OnceLock::new());
        let driver = Arc::new(Driver::new(Wires { socket: socket.to_owned(), time: Arc::clone(&time) }));
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let setup = Setup {
            journal,
            executor: Arc::clone(&driver),
            clock: Arc::new(FastClock::new(SPEED)),
            observe_only: false,
        };
        let handle = start(setup, &tracker, stop).await.unwrap();
        time.set(handle.time.clone()).unwrap();
        driver.use_time(handle.time.clone());
        if handle.inbox.views.hosts().len() < HOSTS as usize {
            for config in configuration() {
                handle.inbox.submit(Order::Config(config)).await.unwrap();
            }
            let arm = Operator::Arm { cluster: ClusterId(1), armed: true };
            handle.inbox.submit(Order::Operator(arm)).await.unwrap();
        }
        let mut renewals = BTreeMap::new();
        loop {
            let views = handle.inbox.views.hosts();
            let words = |view: &Arc<HostView>| {
                let incident = view.incident.as_ref()?;
                let why = view.explanation.as_ref().map(|why| why.sentence.as_ref()).unwrap_or_default();
                Some(format!("{} {:?} {:?}: {why}", view.host.name, incident.diagnosis, incident.phase))
            };
            let observe = Ask::Observe { open: views.iter().filter_map(words).collect() };
            let Some(Told::Seen(seen)) = ask(socket, &observe).await else { return };
            see(&handle.inbox, handle.time.now().elapsed, &seen, &mut renewals);
            tokio::time::sleep(handle.time.span(SECOND)).await;
        }
    });
}
