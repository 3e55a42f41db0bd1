//! A cluster of 5,000 Nodes on a real API server: what the watcher costs in CPU and memory, and how late a renewed Lease
//! reaches it, beside what the renewers, the API server and etcd cost. Run as root with `RACKMEDIC_KUBERNETES` set:
//! `cargo bench -p tests --bench cluster`. Arguments by environment: `NODES` (5000), `SECONDS` (60).
//!
//! The watcher runs in a process of its own, so that its figures are its own. Lag = from the moment that a renewer wrote down
//! just before it sent the renewal, by this machine's one clock, to the moment that our watch had it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods
)]

#[path = "../cluster/fake_nodes.rs"]
#[allow(dead_code)]
mod fake_nodes;
#[path = "../cluster/world.rs"]
#[allow(dead_code)]
mod world;

use futures_util::{StreamExt, stream};
use rack::kubernetes::Programs;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use world::{Medic, World};

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// CPU seconds and resident MiB of a process, as Linux tells them.
fn cost(pid: u32) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.rsplit(')').next()?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // utime and stime in clock ticks of 10 ms; rss in pages of 4 KiB.
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let pages: f64 = fields.get(21)?.parse().ok()?;
    Some((ticks / 100.0, pages / 256.0))
}

fn pids() -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let program = String::from_utf8_lossy(line.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        let name = program.rsplit('/').next().unwrap_or_default().to_owned();
        if ["etcd", "kube-apiserver", "kube-controller-manager"].contains(&name.as_str()) {
            found.insert(name, pid);
        }
    }
    found
}

fn names(nodes: u32) -> Vec<String> {
    (0..nodes).map(|n| format!("node-{n:05}")).collect()
}

/// The watcher's own process: watches, prints its figures after the time that it is told, ends.
async fn watcher(token: &str, authority: &str, api: &str, nodes: u32, seconds: u32) {
    let text = format!(
        "id = 1\nname = 'prod'\nca_file = '{authority}'\ntoken_file = '{token}'\n[[control_plane]]\nnode = 'cp1'\napi = '{api}'\n"
    );
    let all = names(nodes);
    let hosts: Vec<(&str, u32)> = all.iter().map(String::as_str).zip(1..).collect();
    let began = Instant::now();
    let mut medic = Medic::start(&toml::from_str(&text).unwrap(), &hosts).await;
    medic
        .until(120, "every Node and Lease is seen", |m| {
            m.heard.clear();
            (1..=nodes).all(|host| m.lease_age_ms(host).is_some() && m.evidence(host).assessment.node.is_some())
        })
        .await;
    println!("listed {nodes} Nodes and Leases in {:.1} s", began.elapsed().as_secs_f64());
    let (cpu, _) = cost(std::process::id()).unwrap();
    let events = medic.counter("lease_events_total");
    let ends = Instant::now() + Duration::from_secs(u64::from(seconds));
    while Instant::now() < ends {
        tokio::time::sleep(Duration::from_millis(500)).await;
        medic.look();
        medic.heard.clear();
    }
    let (after, memory) = cost(std::process::id()).unwrap();
    let events = medic.counter("lease_events_total") - events;
    let oldest = (1..=nodes).filter_map(|host| medic.lease_age_ms(host)).max().unwrap_or_default();
    let counters = &medic.clusters.get(world::CLUSTER).unwrap().state.counters;
    let at = |share| counters.lag_at(share).map_or("over 10000".to_owned(), |ms| format!("up to {ms}"));
    println!(
        "watcher: {:.1} % of a core, {memory:.0} MiB, {:.0} Leases a second; lag p50 {} ms, p99 {} ms, p99.9 {} ms; oldest Lease {:.1} s, \
         errors {}, lists {}",
        (after - cpu) / f64::from(seconds) * 100.0,
        events as f64 / f64::from(seconds),
        at(500),
        at(990),
        at(999),
        oldest as f64 / 1_000.0,
        medic.counter("watch_errors_total"),
        medic.counter("watch_relists_total"),
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (nodes, seconds) = (number("NODES", 5_000), number("SECONDS", 60));
    if let Some(at) = arguments.iter().position(|argument| argument == "watcher") {
        runtime.block_on(watcher(&arguments[at + 1], &arguments[at + 2], &arguments[at + 3], nodes, seconds));
        return;
    }
    let Some(programs) = Programs::named().unwrap() else {
        eprintln!("not run: RACKMEDIC_KUBERNETES names no folder of programs (tests/rack/kubernetes/install)");
        return;
    };
    if !rack::kubernetes::alone("cluster").unwrap() {
        return;
    }
    runtime.block_on(async {
        let world = World::start(&programs).await;
        let token = world.apply_rights("yaml");
        let all = names(nodes);
        let began = Instant::now();
        stream::iter(all.iter().zip(1..))
            .for_each_concurrent(16, |(name, number)| {
                let client = world.admin.clone();
                async move { fake_nodes::create(&client, name, number, serde_json::json!({"pool": "blue"})).await }
            })
            .await;
        eprintln!("{nodes} Nodes and Leases created in {:.1} s", began.elapsed().as_secs_f64());
        let _renewer = fake_nodes::Renewer::start(world.admin.clone(), &all, Duration::from_secs(10));
        let before: BTreeMap<String, (u32, f64)> =
            pids().into_iter().filter_map(|(name, pid)| Some((name, (pid, cost(pid)?.0)))).collect();
        let own = cost(std::process::id()).unwrap().0;
        let began = Instant::now();
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .arg("watcher")
            .arg(&token)
            .arg(world.plane.authority())
            .arg(world.api())
            .output()
            .await
            .unwrap();
        let span = began.elapsed().as_secs_f64();
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for (name, (pid, cpu)) in before {
            let (after, memory) = cost(pid).unwrap();
            eprintln!("{name}: {:.1} % of a core, {memory:.0} MiB", (after - cpu) / span * 100.0);
        }
        let (after, memory) = cost(std::process::id()).unwrap();
        eprintln!("renewers (one process): {:.1} % of a core, {memory:.0} MiB", (after - own) / span * 100.0);
    });
}
