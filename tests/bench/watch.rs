//! 10,000 hosts watched each second by ARP and ICMP, and each other second by SYN on two ports, beside `fping` on the same
//! targets, interleaved; then how soon hosts that fall silent are seen so.
//!
//! One process plays all hosts, each with a card and an address of its own, behind a veth pair; its CPU is reported apart.
//! Needs root and `tests/peers/install-watch`. `RACKMEDIC_RUNS`, `RACKMEDIC_SECONDS` and `RACKMEDIC_HOSTS` change the size.
//!
//! `fping` lets the kernel resolve each neighbour, so the limits of its table (`gc_thresh`, 1,024 by default) are raised
//! while this runs and put back; the prober sends whole frames and needs none of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::panic, clippy::disallowed_methods)]

use healing::id::HostId;
use healing::signal::{Seen, Source};
use healing::time::Elapsed;
use pnet_datalink::{Channel, Config};
use pxe::mac::Mac;
use rackmedic::decide_loop::{RunningTime, Signals, SystemClock};
use rackmedic::watch::answer::{Port, answer};
use rackmedic::watch::network::{NetworkWatch, Setup};
use rackmedic::watch::packet_wire::PacketWire;
use rackmedic::watch::prober::Marks;
use rackmedic::watch::target::{KUBELET_PORT, Reach, Roster, Target};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

const OWN: &str = "wt-bench-own";
const RACK: &str = "wt-bench-rack";
const SILENT: usize = 200;

fn address(host: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a53_0000 + host)
}

fn card(host: u32) -> Mac {
    let [_, b, c, d] = host.to_be_bytes();
    Mac([2, 0x83, 0, b, c, d])
}

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Seconds of CPU that a process has used.
fn cpu_s(pid: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Plays the hosts. A line on its input says below which number they are silent from now on; it prints when it heard.
fn respond() {
    let interface = pnet_datalink::interfaces().into_iter().find(|i| i.name == "eth0").unwrap();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(3_u16.to_be())))).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).unwrap();
    let config = Config { socket_fd: Some(socket.as_raw_fd()), promiscuous: true, ..Config::default() };
    let Ok(Channel::Ethernet(mut tx, mut rx)) = pnet_datalink::channel(&interface, config) else {
        panic!("no channel")
    };
    // The channel closes it.
    std::mem::forget(socket);
    let silent = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&silent);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            told.store(line.parse().unwrap(), Ordering::SeqCst);
            println!("{}", unix_ms());
        }
        std::process::exit(0);
    });
    println!("ready");
    loop {
        let Ok(frame) = rx.next() else { continue };
        let mut frame = frame.to_vec();
        let Some(to) = frame.get(38..42).filter(|_| frame[12..14] == [8, 6]).or(frame.get(30..34)) else { continue };
        let host = u32::from(Ipv4Addr::new(to[0], to[1], to[2], to[3])).wrapping_sub(0x0a53_0000);
        if !(1..=60_000).contains(&host) || host <= silent.load(Ordering::Relaxed) {
            continue;
        }
        frame[..6].copy_from_slice(&card(host).0);
        if let Some(reply) = answer(&frame, |_| Port::Listens) {
            let _ = tx.send_to(&reply, None);
        }
    }
}

/// Watches for so many seconds and prints what it cost and what it saw.
fn probe(hosts: u32, seconds: u64) {
    let target = |host| Target {
        host: HostId(host),
        address: address(host),
        reach: Reach::Attached(card(host)),
        kubelet_port: KUBELET_PORT,
        second_port: 22,
    };
    let roster = Roster::new((1..=hosts).map(target).collect(), Vec::new(), None, Vec::new()).unwrap();
    let (_roster, roster) = watch::channel(Arc::new(roster));
    let (_attended, attended) = watch::channel(Arc::new(Vec::new()));
    let (signals, marks) = (Signals::new(), Marks::random());
    let sighted = signals.clone();
    let network = NetworkWatch::start(Setup {
        open: Box::new(move || Ok(Box::new(PacketWire::open("eth0", marks, 32_768)?))),
        marks,
        roster,
        attended,
        signals: signals.clone(),
        tell_sight: Box::new(move |sight| sighted.own_sight(sight)),
        time: RunningTime::resume(Arc::new(SystemClock::new()), Elapsed(0)),
    })
    .unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut misses = vec![[0_u32; 3]; usize::try_from(hosts).unwrap() + 1];
    let mut silent: Vec<(u32, u64)> = Vec::new();
    let mut told = 0_u64;
    while Instant::now() < end {
        signals.drain(|host, of_host| {
            told += of_host.len() as u64;
            let counts = &mut misses[host.0 as usize];
            let was = counts.iter().all(|n| *n >= 3);
            for signal in of_host {
                let kinds = [Source::Icmp, Source::KubeletPort, Source::SecondPort];
                if let Some(kind) = kinds.iter().position(|source| *source == signal.source) {
                    counts[kind] = if signal.seen == Seen::Miss { counts[kind] + signal.count } else { 0 };
                }
            }
            if !was && counts.iter().all(|n| *n >= 3) {
                silent.push((host.0, unix_ms()));
            }
        });
        std::thread::sleep(Duration::from_millis(50));
    }
    let tally = network.tally();
    println!(
        "{}",
        json!({"cpu_s": cpu_s("self"), "resident_kib": resident_kib(), "signals": told, "silent": silent,
            "late_p99_ms": tally.lateness_ms(990), "tally": tally})
    );
}

struct Network {
    thresholds: Vec<(String, String)>,
}

impl Network {
    fn make() -> Network {
        let path = |n| format!("/proc/sys/net/ipv4/neigh/default/gc_thresh{n}");
        let thresholds = (1..=3).map(path).map(|p| (std::fs::read_to_string(&p).unwrap(), p)).map(|(v, p)| (p, v));
        let network = Network { thresholds: thresholds.collect() };
        for (path, _) in network.thresholds.iter().rev() {
            std::fs::write(path, "65536").unwrap();
        }
        for space in [OWN, RACK] {
            run("ip", &format!("netns add {space}"));
        }
        run("ip", &format!("-n {OWN} link add eth0 type veth peer name eth0 netns {RACK}"));
        run("ip", &format!("-n {OWN} addr add 10.83.255.1/16 dev eth0"));
        run("ip", &format!("-n {OWN} link set eth0 up"));
        run("ip", &format!("-n {RACK} link set eth0 up"));
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in [OWN, RACK] {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
        for (path, value) in &self.thresholds {
            let _ = std::fs::write(path, value.trim());
        }
    }
}

fn inside(space: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{space}")).arg(program);
    command
}

struct Responder(Child, BufReader<std::process::ChildStdout>);

impl Responder {
    fn start(own: &str) -> Responder {
        let mut child = inside(RACK, own).arg("respond").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut responder = Responder(child, out);
        assert_eq!(responder.line(), "ready");
        responder
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn silence(&mut self, below: usize) -> u64 {
        writeln!(self.0.stdin.as_mut().unwrap(), "{below}").unwrap();
        self.line().parse().unwrap()
    }

    fn cpu_s(&self) -> f64 {
        cpu_s(&self.0.id().to_string())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watched(own: &str, hosts: usize, seconds: usize, meanwhile: impl FnOnce()) -> Value {
    let child = inside(OWN, own)
        .args(["probe", &hosts.to_string(), &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    meanwhile();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Microseconds of CPU per probe, and the share that was answered, of fping.
fn fping(list: &str, seconds: usize) -> (f64, f64) {
    // It has 65,536 sequence numbers and frees them after ten seconds: 10,000 targets are given up after six rounds.
    let times = seconds.div_ceil(6);
    let script = format!(
        "TIMEFORMAT='%U %S'; time for i in $(seq {times}); do fping -q -c 6 -p 1000 -i 0.05 -f {list}; done >{list}.out 2>&1"
    );
    let output = inside(OWN, "bash").args(["-c", &script]).output().unwrap();
    let times = String::from_utf8_lossy(&output.stderr);
    let cpu: f64 = times.split_whitespace().map(|t| t.parse::<f64>().unwrap()).sum();
    let out = std::fs::read_to_string(format!("{list}.out")).unwrap();
    // `10.83.0.1 : xmt/rcv/%loss = 10/10/0%, …`
    let (mut sent, mut got) = (0_u64, 0_u64);
    for line in out.lines() {
        let Some(counts) = line.split("%loss = ").nth(1) else { continue };
        let mut counts = counts.split('/').map(|n| n.parse::<u64>().unwrap_or(0));
        sent += counts.next().unwrap_or(0);
        got += counts.next().unwrap_or(0);
    }
    assert!(sent > 0, "fping sent nothing: {out}");
    (cpu * 1e6 / sent as f64, got as f64 / sent as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("respond") => return respond(),
        Some("probe") => return probe(arguments[2].parse().unwrap(), arguments[3].parse().unwrap()),
        _ => {}
    }
    assert!(rustix::process::geteuid().is_root(), "it needs root, for namespaces and packet sockets");
    let (runs, seconds) = (number("RACKMEDIC_RUNS", 7), number("RACKMEDIC_SECONDS", 30));
    let hosts = number("RACKMEDIC_HOSTS", 10_000);
    let own = std::env::current_exe().unwrap().display().to_string();
    let _network = Network::make();
    let list = std::env::temp_dir().join("wt-bench-targets").display().to_string();
    let addresses: Vec<String> = (1..=hosts).map(|n| address(u32::try_from(n).unwrap()).to_string()).collect();
    std::fs::write(&list, addresses.join("\n")).unwrap();
    let mut responder = Responder::start(&own);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    println!("{hosts} hosts, {runs} runs of {seconds} s, interleaved; CPU user and system, kernel included");
    for _ in 0..runs {
        let before = responder.cpu_s();
        let seen = watched(&own, hosts, seconds, || {});
        let others = (responder.cpu_s() - before) / seconds as f64;
        let (tally, cpu) = (&seen["tally"], seen["cpu_s"].as_f64().unwrap());
        let sent = tally["sent"].as_f64().unwrap();
        ours.push(cpu * 1e6 / sent);
        println!(
            "rackmedic  {:.2} us/probe  {:.3} CPU s/s  {:.0} probes/s  answered {:.2} %  missed {}  void {}  lost {}  stalls {}  schedule p99 <= {} ms  {} MiB  {} signals  (responder {others:.2} CPU s/s)",
            cpu * 1e6 / sent,
            cpu / seconds as f64,
            sent / seconds as f64,
            tally["answered"].as_f64().unwrap() / sent * 100.0,
            tally["missed"],
            tally["void_misses"],
            tally["lost_frames"],
            tally["stalls"],
            seen["late_p99_ms"],
            seen["resident_kib"].as_u64().unwrap() / 1024,
            seen["signals"],
        );
        let (us, answered) = fping(&list, seconds);
        theirs.push(us);
        println!("fping      {us:.2} us/probe  answered {:.2} %", answered * 100.0);
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!("median: {ours:.2} us beside {theirs:.2} us of fping, {:.2} x", ours / theirs);
    let mut at = 0;
    let silent = SILENT.min(hosts);
    let seen = watched(&own, hosts, 30, || {
        std::thread::sleep(Duration::from_secs(12));
        at = responder.silence(silent);
    });
    let found = seen["silent"].as_array().unwrap();
    let told = found.iter().filter(|f| f[0].as_u64().unwrap() <= silent as u64 && f[1].as_u64().unwrap() >= at);
    let mut after: Vec<u64> = told.map(|f| f[1].as_u64().unwrap() - at).collect();
    after.sort_unstable();
    println!(
        "{silent} hosts fall silent: seen so (three misses of ICMP and of both ports) after p50 {} ms, p99 {} ms, {} of {silent}; others called silent: {}",
        percentile(&after, 50),
        percentile(&after, 99),
        after.len(),
        found.len() - after.len(),
    );
    assert_eq!(after.len(), silent, "not all were seen");
    assert_eq!(found.len(), after.len(), "living hosts were called silent");
    if std::env::var_os("RACKMEDIC_REPORT_ONLY").is_none() {
        assert!(ours <= 0.5 * theirs, "more than half of fping's CPU per probe");
    }
}
