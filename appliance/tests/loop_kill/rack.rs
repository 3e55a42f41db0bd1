//! The rack: machines, Nodes and counters of the truth. It lives in the parent process, so that no kill of the loop
//! resets a host, and it is reached only through a socket, as real hosts are.

use healing::command::{BmcCall, Call, ClusterCall};
use machine::{Answers, BmcError, BmcFault, BmcReply, BmcRequest, Fault, Machine, Power, PowerRead, Spec, StageRead};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// How much faster than the world the rack and the loop run.
pub(crate) const SPEED: u32 = 8;
/// Hosts of the rack.
pub(crate) const HOSTS: u32 = 8;
/// A kubelet renews its Lease this often, in milliseconds.
const RENEW_MS: u64 = 2_000;
/// A Node controller calls a Node unknown after this.
const UNKNOWN_MS: u64 = 40_000;

/// What the loop's process asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// All that probers and watchers would see; the words about `open` incidents tell the parent where the loop stands.
    Observe { open: Vec<String> },
    /// A call of a step.
    Call { host: u32, call: Call },
    /// A group is durable.
    Committed,
    /// "This is the moment": the parent kills the process, no answer comes.
    KillMe,
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Seen(Vec<Seen>),
    Bmc(Result<BmcReply, BmcError>),
    Node { ready: Option<bool>, boot: u64, cordoned: bool, lease_age_ms: u64 },
    Leftovers { pods: u32, attachments: u32 },
    Flag(bool),
    Probed { icmp: bool, tcp: bool },
    Done,
}

/// One host as seen from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) host: u32,
    pub(crate) answers: Answers,
    pub(crate) renewals: u64,
    pub(crate) ready: Option<bool>,
    pub(crate) boot: u64,
    pub(crate) cordoned: bool,
    pub(crate) power: PowerRead,
    pub(crate) stage: StageRead,
}

/// What happened to one host in truth.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Force-offs that took a running machine down.
    pub(crate) offs: u32,
    /// Power-ons that started a machine.
    pub(crate) ons: u32,
    /// Force-offs of a healthy machine.
    pub(crate) healthy_offs: u32,
    /// Workloads released while the machine still ran.
    pub(crate) released_alive: u32,
}

#[derive(Debug)]
struct Slot {
    machine: Machine,
    counts: Counts,
    renewed_at: u64,
    renewals: u64,
    ready: Option<bool>,
    cordoned: bool,
    tainted: bool,
    canary: bool,
    pods: u32,
    attachments: u32,
}

/// The rack. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rack {
    slots: Arc<Mutex<BTreeMap<u32, Slot>>>,
    began: Instant,
    /// Acts by the loop, with their moment; reads are not counted.
    acts: Arc<Mutex<Vec<(Instant, String)>>>,
    committed: Arc<AtomicU64>,
    open: Arc<Mutex<Vec<String>>>,
    kill: Arc<AtomicU64>,
    observed: Arc<AtomicU64>,
}

fn spec(host: u32) -> Spec {
    Spec {
        identity: 0x1000 + u128::from(host),
        post_ms: (2_000, 4_000),
        kernel_ms: (1_000, 2_000),
        kubelet_ms: (1_000, 2_000),
        off_ms: (1_000, 2_000),
        bmc_ms: (100, 300),
        ..Spec::default()
    }
}

impl Rack {
    pub(crate) fn new() -> Rack {
        let slot = |host: u32| Slot {
            machine: Machine::new(spec(host), u64::from(host)),
            counts: Counts::default(),
            renewed_at: 0,
            renewals: 1,
            ready: Some(true),
            cordoned: false,
            tainted: false,
            canary: false,
            pods: 3,
            attachments: 1,
        };
        Rack {
            slots: Arc::new(Mutex::new((1..=HOSTS).map(|host| (host, slot(host))).collect())),
            began: Instant::now(),
            acts: Arc::default(),
            committed: Arc::default(),
            open: Arc::default(),
            kill: Arc::default(),
            observed: Arc::default(),
        }
    }

    /// Time of the rack in milliseconds.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap() * u64::from(SPEED) / 1_000
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<u32, Slot>> {
        let now = self.now();
        let mut slots = self.slots.lock().unwrap();
        for slot in slots.values_mut() {
            slot.pass(now);
        }
        slots
    }

    pub(crate) fn inject(&self, host: u32, fault: Fault) {
        let now = self.now();
        self.slots().get_mut(&host).unwrap().machine.inject(now, fault);
    }

    pub(crate) fn inject_bmc(&self, host: u32, fault: BmcFault) {
        let now = self.now();
        self.slots().get_mut(&host).unwrap().machine.inject_bmc(now, fault);
    }

    pub(crate) fn counts(&self, host: u32) -> Counts {
        self.slots()[&host].counts.clone()
    }

    pub(crate) fn off(&self, host: u32) -> bool {
        self.slots()[&host].machine.power() == Power::Off
    }

    /// What is still wrong anywhere, in words; empty = every host serves and nothing of ours is left on it.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (host, slot) in self.slots().iter() {
            let truth = slot.machine.truth();
            let mut say = |bad: bool, what: &str| {
                if bad {
                    wrong.push(format!("host {host} {what}"));
                }
            };
            say(truth.power != Power::On, "is not on");
            say(!truth.healthy, "is ill");
            say(slot.cordoned, "is cordoned");
            say(slot.tainted, "is tainted");
            say(slot.canary, "holds a canary pod");
        }
        wrong
    }

    pub(crate) fn acts(&self) -> Vec<(Instant, String)> {
        self.acts.lock().unwrap().clone()
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// Open incidents as the loop last said, and how often it has observed.
    pub(crate) fn open(&self) -> (u64, u64) {
        (self.open.lock().unwrap().len() as u64, self.observed.load(Ordering::SeqCst))
    }

    /// The open incidents in the loop's words.
    pub(crate) fn open_words(&self) -> String {
        self.open.lock().unwrap().join("; ")
    }

    /// Whether the loop reached its planned moment since the last call.
    pub(crate) fn take_kill(&self) -> bool {
        self.kill.swap(0, Ordering::SeqCst) > 0
    }

    /// Serves the socket until the process ends.
    pub(crate) fn serve(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let rack = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rack = rack.clone();
                thread::spawn(move || rack.talk(stream));
            }
        });
    }

    fn talk(&self, stream: UnixStream) {
        let mut write = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines() {
            // A killed process leaves half a line or none: what did not arrive did not happen.
            let Some(ask) = line.ok().and_then(|line| serde_json::from_str::<Ask>(&line).ok()) else { return };
            let Some(told) = self.answer(ask) else { return };
            let text = serde_json::to_string(&told).unwrap() + "\n";
            if write.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, ask: Ask) -> Option<Told> {
        match ask {
            Ask::Observe { open } => {
                *self.open.lock().unwrap() = open;
                self.observed.fetch_add(1, Ordering::SeqCst);
                let now = self.now();
                let slots = self.slots();
                Some(Told::Seen(slots.iter().map(|(host, slot)| slot.seen(*host, now)).collect()))
            }
            Ask::Committed => {
                self.committed.fetch_add(1, Ordering::SeqCst);
                Some(Told::Done)
            }
            Ask::KillMe => {
                self.kill.fetch_add(1, Ordering::SeqCst);
                // The parent kills the asker; it must not go on in the meantime.
                thread::sleep(Duration::from_secs(60));
                None
            }
            Ask::Call { host, call } => Some(self.call(host, call)),
        }
    }

    fn call(&self, host: u32, call: Call) -> Told {
        let reads = matches!(
            call,
            Call::Probe
                | Call::Bmc(_, BmcCall::Identify | BmcCall::ReadPower | BmcCall::ReadStage)
                | Call::Cluster(ClusterCall::ReadNode | ClusterCall::ReadLeftovers | ClusterCall::ReadCanary)
        );
        if !reads {
            self.acts.lock().unwrap().push((Instant::now(), format!("{call:?} on host {host}")));
        }
        if let Call::Bmc(host, bmc) = call {
            let (reply, wait_ms) = self.bmc(host.0, bmc);
            thread::sleep(Duration::from_micros(wait_ms * 1_000 / u64::from(SPEED)));
            return reply;
        }
        let now = self.now();
        let mut slots = self.slots();
        let slot = slots.get_mut(&host).unwrap();
        match call {
            Call::Cluster(cluster) => slot.cluster(cluster, now),
            Call::Probe => {
                let answers = slot.machine.answers();
                Told::Probed { icmp: answers.icmp, tcp: answers.kubelet_port.is_some() }
            }
            _ => panic!("the ladder of this test makes no call {call:?}"),
        }
    }

    fn bmc(&self, host: u32, call: BmcCall) -> (Told, u64) {
        let now = self.now();
        let mut slots = self.slots();
        let slot = slots.get_mut(&host).unwrap();
        let request = match call {
            BmcCall::Identify => BmcRequest::Identify,
            BmcCall::ReadPower => BmcRequest::ReadPower,
            BmcCall::ForceOff => BmcRequest::ForceOff,
            BmcCall::PowerOn => BmcRequest::PowerOn,
            BmcCall::GracefulRestart => BmcRequest::GracefulRestart,
            BmcCall::ReadStage => BmcRequest::ReadStage,
            BmcCall::SetNetworkBootOnce | BmcCall::ReadNetworkBootOnce => {
                panic!("the ladder of this test makes no call {call:?}")
            }
        };
        let before = slot.machine.truth();
        let outcome = slot.machine.bmc_request(now, request);
        let reached = matches!(outcome.result, Ok(_) | Err(BmcError::ReplyLost));
        slot.counts.offs += u32::from(reached && call == BmcCall::ForceOff && before.power == Power::On);
        slot.counts.healthy_offs += u32::from(reached && call == BmcCall::ForceOff && before.healthy);
        slot.counts.ons += u32::from(reached && call == BmcCall::PowerOn && before.power == Power::Off);
        (Told::Bmc(outcome.result), outcome.arrives_at.saturating_sub(now))
    }
}

impl Slot {
    fn pass(&mut self, now: u64) {
        self.machine.advance(now);
        if self.machine.kubelet_renews() {
            let due = now.saturating_sub(self.renewed_at) / RENEW_MS;
            self.renewals += due;
            self.renewed_at += due * RENEW_MS;
            self.ready = Some(self.machine.kubelet_ok());
        } else if now.saturating_sub(self.renewed_at) > UNKNOWN_MS {
            self.ready = None;
        }
        let serves = self.ready == Some(true) && !self.cordoned && !self.tainted;
        if serves && self.pods == 0 {
            self.pods = 3;
            self.attachments = 1;
        }
    }

    fn seen(&self, host: u32, now: u64) -> Seen {
        Seen {
            host,
            answers: self.machine.answers(),
            renewals: self.renewals,
            ready: self.ready,
            boot: self.machine.boot_id(),
            cordoned: self.cordoned,
            power: self.machine.bmc_power(now),
            stage: self.machine.bmc_stage(now),
        }
    }

    fn cluster(&mut self, call: ClusterCall, now: u64) -> Told {
        let alive = self.machine.power() != Power::Off;
        match call {
            ClusterCall::ReadNode => {
                return Told::Node {
                    ready: self.ready,
                    boot: self.machine.boot_id(),
                    cordoned: self.cordoned,
                    lease_age_ms: now.saturating_sub(self.renewed_at),
                };
            }
            ClusterCall::ReadLeftovers => {
                return Told::Leftovers { pods: self.pods, attachments: self.attachments };
            }
            ClusterCall::ReadCanary => return Told::Flag(self.canary && self.machine.kubelet_ok()),
            ClusterCall::Cordon => self.cordoned = true,
            ClusterCall::Uncordon => self.cordoned = false,
            ClusterCall::PutTaint => {
                self.counts.released_alive += u32::from(alive);
                self.tainted = true;
            }
            ClusterCall::RemoveTaint => self.tainted = false,
            ClusterCall::DeletePods => {
                self.counts.released_alive += u32::from(alive);
                self.pods = 0;
            }
            ClusterCall::DeleteVolumeAttachments => {
                self.counts.released_alive += u32::from(alive);
                self.attachments = 0;
            }
            ClusterCall::CreateCanary => self.canary = true,
            ClusterCall::DeleteCanary => self.canary = false,
            ClusterCall::RestoreLabels | ClusterCall::DeleteCredential => {}
            ClusterCall::DeleteNode | ClusterCall::RemoveEtcdMember(_) | ClusterCall::MintCredential => {
                panic!("the ladder of this test makes no call {call:?}")
            }
        }
        Told::Done
    }
}
