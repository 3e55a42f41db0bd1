//! A storm through the real loop and the real SQLite store: 10,000 hosts change three times, which is 30,000 facts, each
//! decided, written and shown. Printed with it: what a host costs in memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use healing::assess::{Assessment, NetworkState, Probe};
use healing::command::{Command, Failure, StepResult};
use healing::evidence::Evidence;
use healing::id::{BootId, HostId};
use healing::policy::{Policy, Site as SitePolicy};
use healing::rules::Enforced;
use healing::sight::{OwnSight, Reference};
use healing::signal::{NodeReport, OffCause, Power, Seen, Signal, Source};
use healing::time::SECOND;
use healing::world::World;
use healing::world::host::Host;
use rackmedic::decide_loop::clock::SystemClock;
use rackmedic::decide_loop::{Executor, Handle, Order, Right, Setup, start};
use rackmedic::store::secret::OuterKey;
use rackmedic::store::sqlite::SqliteJournal;
use sim::site::Site;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HOSTS: u32 = 10_000;

/// Nothing is armed, so nothing is ordered.
#[derive(Debug)]
struct Nobody;

impl Executor for Nobody {
    fn run(&self, _: Command<Enforced>, _: Right) -> impl Future<Output = StepResult> + Send {
        std::future::ready(StepResult::Failed { why: Failure::Invalid, readings: Vec::new(), sent: false })
    }
}

/// Resident memory of this process in bytes, as Linux tells it.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// One wave: every host changes in one source; over when all views show it.
async fn wave(name: &str, handle: &Handle, offer: impl Fn(HostId), shown: impl Fn(&Assessment) -> bool) -> Duration {
    let mut committed = handle.inbox.views.committed();
    let before = *committed.borrow_and_update();
    let began = Instant::now();
    (1..=HOSTS).for_each(|id| offer(HostId(id)));
    let offered = began.elapsed();
    loop {
        let left = handle.inbox.views.hosts().iter().filter(|view| !shown(&view.host.assessment)).count();
        if left == 0 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{name}: {left} hosts are not shown after 120 s");
        committed.changed().await.unwrap();
    }
    let took = began.elapsed();
    let entries = *committed.borrow() - before;
    println!("  {name}: {took:.2?} for {HOSTS} facts ({entries} entries; offered in {offered:.2?})");
    took
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        // Built, but not run, by `cargo test --benches`.
        return Ok(());
    }
    let directory = std::env::temp_dir().join(format!("rackmedic-storm-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let key = OuterKey::file(&directory.join("key"))?;
    let journal =
        SqliteJournal::open(&directory.join("data"), &key, World::new(&Policy::<SitePolicy>::default())).await?;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let setup = Setup { journal, executor: Arc::new(Nobody), clock: Arc::new(SystemClock::new()), observe_only: false };
    let handle = start(setup, &tracker, stop.clone()).await?;
    let empty = resident();
    let began = Instant::now();
    let mut pending = tokio::task::JoinSet::new();
    for config in Site::uniform(HOSTS, 7).configuration() {
        let inbox = handle.inbox.clone();
        pending.spawn(async move { inbox.submit(Order::Config(config)).await });
        // The order matters: clusters and domains come before their hosts.
        if pending.len() >= 256 {
            while let Some(done) = pending.join_next().await {
                done??;
            }
        }
    }
    while let Some(done) = pending.join_next().await {
        done??;
    }
    println!("configured {HOSTS} hosts in {:.2?}", began.elapsed());
    let signals = handle.inbox.signals.clone();
    let now = || handle.time.now().elapsed;
    let see = || {
        signals.own_sight(OwnSight {
            at: now(),
            link: true,
            gateway: true,
            references: vec![Reference { domain: None, answers: true }],
            ..OwnSight::default()
        });
    };
    let run = |source, seen| {
        let end = now();
        Signal::run(source, seen, healing::time::Elapsed(end.0.saturating_sub(4 * SECOND)), end, 5)
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    see();
    let network = [Source::Icmp, Source::KubeletPort, Source::SecondPort];
    println!("first sight:");
    let answers = |id| network.into_iter().for_each(|source| signals.offer(id, run(source, Seen::Answer)));
    wave("network answers", &handle, answers, |seen| seen.network == NetworkState::Alive).await;
    println!("the storm:");
    see();
    let mut total = Duration::ZERO;
    let silent = |id| network.into_iter().for_each(|source| signals.offer(id, run(source, Seen::Miss)));
    total += wave("network silent", &handle, silent, |seen| seen.network == NetworkState::Silent).await;
    see();
    let node = NodeReport { ready: Some(false), boot: BootId(1), ..NodeReport::default() };
    let not_ready = |id| signals.offer(id, run(Source::Node, Seen::Node(node)));
    total += wave("node not ready", &handle, not_ready, |seen| seen.node.is_some_and(|n| n.ready == Some(false))).await;
    see();
    let off = |id| signals.offer(id, run(Source::Power, Seen::Power(Power::Off, OffCause::AcLoss)));
    total +=
        wave("power off", &handle, off, |seen| seen.power == Power::Off && seen.api_server == Probe::Unknown).await;
    let facts = f64::from(3 * HOSTS);
    println!("  {} facts in {total:.2?}: {:.0} a second", 3 * HOSTS, facts / total.as_secs_f64());
    let used = resident().saturating_sub(empty);
    println!(
        "memory: {} bytes a host resident with loop, views and store (evidence {} bytes, host record {} bytes)",
        used / u64::from(HOSTS),
        std::mem::size_of::<Evidence>(),
        std::mem::size_of::<Host>()
    );
    stop.cancel();
    handle.ended.await??;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
