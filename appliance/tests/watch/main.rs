//! The prober on real links, against kernels of its neighbours: network namespaces on one bridge.
//!
//! Needs root. Without it each test says that it was not run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

mod rack;

use healing::id::HostId;
use healing::signal::{Seen, Signal, Source};
use rack::{Rack, Watch};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NETWORK: [Source; 4] = [Source::Arp, Source::Icmp, Source::KubeletPort, Source::SecondPort];

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: it needs root, for network namespaces and packet sockets");
    }
    root
}

fn saw(signals: &[(HostId, Signal)], host: u32, source: Source, seen: Seen) -> bool {
    let count = |(_, s): &(HostId, Signal)| s.count;
    let of = |(h, s): &&(HostId, Signal)| *h == HostId(host) && s.source == source && s.seen == seen;
    signals.iter().filter(of).map(count).sum::<u32>() >= 3
}

/// Whether a probe of the wire was missed. The hosts' kubelets are stuck on purpose where the story does not say otherwise.
fn missed_any(signals: &[(HostId, Signal)]) -> bool {
    signals.iter().any(|(_, s)| NETWORK.contains(&s.source) && s.seen == Seen::Miss)
}

#[test]
fn a_link_that_goes_down_is_missed_on_every_source_and_only_there() {
    if !root() {
        return;
    }
    let rack = Rack::of(3);
    let watch = Watch::start(&rack);
    let alive =
        watch.until(10, |seen| (1..=3).all(|host| NETWORK.iter().all(|source| saw(seen, host, *source, Seen::Answer))));
    assert!(!missed_any(&alive), "{alive:?}");
    rack.ip(2, "link set eth0 down");
    let cut = Instant::now();
    let seen = watch.until(10, |seen| NETWORK.iter().all(|source| saw(seen, 2, *source, Seen::Miss)));
    assert!(cut.elapsed() < Duration::from_secs(7), "{:?}", cut.elapsed());
    let others: Vec<_> = seen.iter().copied().filter(|(host, _)| *host != HostId(2)).collect();
    assert!(!missed_any(&others), "{seen:?}");
    assert_eq!(watch.probe(2), Some((false, false)));
    assert_eq!(watch.probe(3), Some((true, true)));
    rack.ip(2, "link set eth0 up");
    watch.until(10, |seen| NETWORK.iter().all(|source| saw(seen, 2, *source, Seen::Answer)));
}

#[test]
fn a_listener_that_is_closed_refuses_and_the_held_connection_is_marked() {
    if !root() {
        return;
    }
    let mut rack = Rack::of(2);
    let watch = Watch::start(&rack);
    watch.until(10, |seen| saw(seen, 1, Source::KubeletPort, Seen::Answer) && watch.opened(seen, 1));
    rack.stop_listening(1, 10_250);
    let seen = watch.until(10, |seen| {
        saw(seen, 1, Source::KubeletPort, Seen::Refused)
            && seen.iter().any(|(h, s)| *h == HostId(1) && s.source == Source::HeldConnection && s.seen == Seen::Closed)
    });
    assert!(!missed_any(&seen), "{seen:?}");
    assert_eq!(watch.probe(1), Some((true, true)), "a reset is a sign of life");
    rack.listen(1, 10_250);
    watch.until(40, |seen| saw(seen, 1, Source::KubeletPort, Seen::Answer) && watch.opened(seen, 1));
}

#[test]
fn a_kubelet_that_says_401_is_alive_and_one_that_is_stuck_behind_its_port_is_not() {
    if !root() {
        return;
    }
    let mut rack = Rack::of(3);
    rack.stop_listening(1, 10_250);
    rack.serve_tls(1, "401 Unauthorized");
    rack.stop_listening(2, 10_250);
    rack.serve_tls(2, "500 Internal Server Error");
    // Host 3 takes connections and says nothing.
    let watch = Watch::start(&rack);
    watch.attend(&[1, 2, 3]);
    watch.until(30, |seen| {
        saw(seen, 1, Source::KubeletHealth, Seen::Answer)
            && saw(seen, 2, Source::KubeletHealth, Seen::Miss)
            && saw(seen, 3, Source::KubeletHealth, Seen::Miss)
            && saw(seen, 3, Source::KubeletPort, Seen::Answer)
    });
}

#[test]
fn another_card_at_the_host_s_address_is_not_the_host() {
    if !root() {
        return;
    }
    let rack = Rack::of(2);
    let watch = Watch::start(&rack);
    watch.until(10, |seen| saw(seen, 1, Source::Icmp, Seen::Answer));
    // The address lives on, on another card that hears everything.
    rack.ip(1, "link set eth0 down");
    rack.ip(1, "link set eth0 address 02:83:00:00:00:99");
    rack.ip(1, "link set eth0 up");
    rack.ip(1, "link set eth0 promisc on");
    let seen = watch.until(10, |seen| NETWORK.iter().all(|source| saw(seen, 1, *source, Seen::Miss)));
    for source in NETWORK {
        let of = seen.iter().filter(|(host, s)| *host == HostId(1) && s.source == source);
        let mut after = of.skip_while(|(_, s)| s.seen != Seen::Miss);
        assert!(after.all(|(_, s)| s.seen == Seen::Miss), "{source:?}: {seen:?}");
    }
}

#[test]
fn our_own_link_the_gateway_and_the_references_are_seen() {
    if !root() {
        return;
    }
    let rack = Rack::of(2);
    let watch = Watch::start(&rack);
    watch.sight(10, |sight| sight.link && sight.gateway && sight.references[0].answers);
    rack.ip(2, "link set eth0 down");
    watch.sight(10, |sight| sight.link && sight.gateway && !sight.references[0].answers);
    rack.own("link set eth0 down");
    watch.sight(10, |sight| !sight.link && !sight.gateway);
    rack.own("link set eth0 up");
    watch.sight(10, |sight| sight.link && sight.gateway);
}

#[test]
fn a_prober_that_was_stopped_misses_nobody_and_says_that_it_stood_still() {
    if !root() {
        return;
    }
    let rack = Rack::of(3);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_prober_of_its_own", "--ignored", "--nocapture"])
        .env("RACKMEDIC_WATCH_RACK", rack.name())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (line, lines) = std::sync::mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
    let wait = |what: &str| {
        let mut before = Vec::new();
        loop {
            let text =
                lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("no '{what}': {before:?}"));
            if text.contains(what) {
                return (before, text);
            }
            before.push(text);
        }
    };
    wait("all answer");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // How long it stands still is what is tried, not what is waited for.
    std::thread::sleep(Duration::from_secs(4));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let mut before = Vec::new();
    // A busy machine may have let it stand still before, for less.
    let stood_ms = loop {
        let (lines, stalled) = wait("stalled");
        before.extend(lines);
        let ms: u64 = stalled.rsplit(' ').next().unwrap().parse().unwrap();
        if ms >= 3_000 {
            break ms;
        }
    };
    let (after, _) = wait("all answer");
    let _ = child.kill();
    let _ = child.wait();
    let _ = reader.join();
    assert!(before.iter().chain(&after).all(|text| !text.contains("miss")), "{before:?} {after:?}");
    assert!(stood_ms < 20_000, "{stood_ms} ms");
}

#[test]
#[ignore = "is started by the test above, as a process that can be stopped"]
fn a_prober_of_its_own() {
    let Some(name) = std::env::var_os("RACKMEDIC_WATCH_RACK") else { return };
    let watch = Watch::enter(&name.to_string_lossy(), 3);
    let all = |seen: &[(HostId, Signal)]| {
        (1..=3).all(|host| NETWORK.iter().all(|source| saw(seen, host, *source, Seen::Answer)))
    };
    let end = Instant::now() + Duration::from_secs(60);
    let mut seen = Vec::new();
    while Instant::now() < end {
        if let Some(ms) = watch.stalled() {
            println!("stalled {ms}");
            seen.clear();
        }
        seen.extend(watch.take());
        if missed_any(&seen) {
            println!("miss {seen:?}");
        }
        if all(&seen) {
            println!("all answer");
            seen.clear();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_the_right_it_says_what_to_grant() {
    if !root() {
        return;
    }
    let rack = Rack::of(1);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_wire_without_rights", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    drop(rack);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("AmbientCapabilities=CAP_NET_RAW") && text.contains("setcap cap_net_raw+ep"), "{output:?}");
}

#[test]
#[ignore = "is started by the test above, as another user"]
fn a_wire_without_rights() {
    let marks = rackmedic::watch::prober::Marks::random();
    // An interface with an address and a card, of which every machine with a network has one.
    for interface in pnet_datalink::interfaces().iter().filter(|i| !i.is_loopback() && !i.ips.is_empty()) {
        match rackmedic::watch::packet_wire::PacketWire::open(&interface.name, marks, 1_000) {
            Ok(_) => println!("it was let in"),
            Err(why) => println!("{why}"),
        }
    }
}
