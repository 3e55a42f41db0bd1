//! DHCP: our server with its leases on the disk before each ACK, beside Kea (memfile, persisted) and dnsmasq, under
//! perfdhcp, in the same run and over the same cable.
//!
//! `cargo bench -p tests --bench dhcp [-- quick]` as root; the peers come from tests/peers/install-boot. perfdhcp plays
//! the clients behind one relay. The rate is raised until more than 2.5 % of the exchanges fail (Kea's own rule), twice;
//! what counts is the highest rate that was completed below that. The delays are those of each exchange at 1,000/s.
//!
//! What differs: ours waits until the disk itself has the lease (fdatasync, one for all answers that wait); Kea hands its
//! lease file to the kernel and answers; dnsmasq writes its whole file anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]

mod ground;

use ground::{CLIENT, Ground, Running, Runs, SERVER};
use pxe::dhcp::decide::{Answerer, Loaders};
use pxe::dhcp::lease_file::LeaseFile;
use pxe::dhcp::scope::{Mode, Scope, Subnet};
use pxe::dhcp::server::{Around, DhcpServer, Link};
use pxe::gate::{Now, Ticket, Tickets, Token};
use pxe::mac::Mac;
use pxe::recorder::Recorder;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

const SERVERS: [&str; 4] = ["ours", "Kea", "Kea, 2 threads", "dnsmasq"];
/// Offered exchanges per second.
const RATES: [u32; 12] = [150, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 10_000, 12_000, 16_000];
const SECONDS: u32 = 3;
/// Kea's rule of what still counts.
const DROPS_PERCENT: f64 = 2.5;
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 79, 16, 0);
const LAST: Ipv4Addr = Ipv4Addr::new(10, 79, 255, 254);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(Path::new(&arguments[1])),
        first => compare(first == Some("quick")),
    }
}

/// Nobody may boot: these are the plain answers of server mode.
#[derive(Debug)]
struct Nobody(Instant);

impl Tickets for Nobody {
    fn of_mac(&self, _mac: Mac) -> Option<Arc<Ticket>> {
        None
    }

    fn of_token(&self, _token: &Token) -> Option<Arc<Ticket>> {
        None
    }

    fn now(&self) -> Now {
        Now { elapsed: self.0.elapsed(), wall: SystemTime::UNIX_EPOCH.elapsed().unwrap() }
    }
}

fn serve(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let subnet = Subnet {
            network: Ipv4Addr::new(10, 79, 0, 0),
            prefix: 16,
            router: Some(SERVER),
            dns: Vec::new(),
            range: Some((FIRST, LAST)),
            lease: Duration::from_secs(3600),
            relays: Vec::new(),
        };
        let scope = Scope { mode: Mode::Server, subnets: vec![subnet], reservations: HashMap::new() };
        let (leases, restored) = LeaseFile::open(&folder.join("leases")).unwrap();
        let around = Around {
            tickets: Arc::new(Nobody(Instant::now())),
            recorder: Arc::new(Recorder::new(1 << 20, None)),
            peers: Arc::default(),
        };
        let link = Link::find("v0", Some(SERVER)).unwrap();
        let answerer = Answerer::new(scope, Loaders::default());
        let server = DhcpServer::open(link, Mode::Server, answerer, Some(leases), restored, around).unwrap();
        server.run(CancellationToken::new()).await.unwrap();
    });
}

/// A server with no leases.
fn start(ground: &Ground, server: &str) -> Running {
    let folder = ground.folder.join("server");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let there = folder.display();
    let mut command = match server {
        "ours" => ground.ourselves_at_server(&["serve", folder.to_str().unwrap()]),
        "dnsmasq" => {
            let mut command = ground.at_server("dnsmasq");
            command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file=", "--user=root"]);
            command.args(["--no-ping", "--dhcp-authoritative", "--dhcp-lease-max=100000", "--interface=v0"]);
            command.arg("--bind-interfaces").arg(format!("--dhcp-leasefile={there}/leases"));
            command.arg(format!("--dhcp-range={FIRST},{LAST},255.255.0.0,1h"));
            command
        }
        kea => {
            let threads = kea != "Kea";
            let text = format!(
                r#"{{"Dhcp4": {{"interfaces-config": {{"interfaces": ["v0/{SERVER}"], "dhcp-socket-type": "udp"}},
                "multi-threading": {{"enable-multi-threading": {threads}, "thread-pool-size": 2, "packet-queue-size": 64}},
                "lease-database": {{"type": "memfile", "persist": true, "name": "{there}/leases.csv", "lfc-interval": 0}},
                "valid-lifetime": 3600, "authoritative": true,
                "loggers": [{{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{{"output": "stdout"}}]}}],
                "subnet4": [{{"id": 1, "subnet": "10.79.0.0/16", "pools": [{{"pool": "{FIRST} - {LAST}"}}],
                "option-data": [{{"name": "routers", "data": "{SERVER}"}}]}}]}}}}"#
            );
            let config = folder.join("kea.json");
            std::fs::write(&config, text).unwrap();
            let mut command = ground.at_server("kea-dhcp4");
            command.arg("-c").arg(config).env("KEA_PIDFILE_DIR", &folder).env("KEA_LOCKFILE_DIR", &folder);
            command
        }
    };
    let running = Running::start(&mut command, &ground.folder.join("server.log"));
    let until = Instant::now() + Duration::from_secs(20);
    while perfdhcp(ground, 20, 1, 50, &[]).is_none_or(|report| report.completed < 15.0) {
        let log = || std::fs::read_to_string(ground.folder.join("server.log")).unwrap();
        assert!(Instant::now() < until, "{server} does not answer: {}", log());
    }
    running
}

/// What perfdhcp says of one run.
#[derive(Debug)]
struct Report {
    /// Exchanges completed each second.
    completed: f64,
    /// Of the DISCOVERs and of the REQUESTs, the worse.
    drops_percent: f64,
    text: String,
}

fn perfdhcp(ground: &Ground, rate: u32, seconds: u32, clients: u32, more: &[&str]) -> Option<Report> {
    let mut command: Command = ground.at_client("perfdhcp");
    command.args(["-4", "-l", &CLIENT.to_string(), "-r", &rate.to_string(), "-R", &clients.to_string()]);
    // One more second for the last answers.
    command.args(["-p", &seconds.to_string(), "-W", "1000000"]).args(more).arg(SERVER.to_string());
    let output = command.output().unwrap();
    // 3: some exchanges were not completed.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |text: &str, label: &str| -> Option<f64> {
        text.split_once(label)?.1.split_ascii_whitespace().next()?.parse().ok()
    };
    let drops = text.split("drops ratio:").skip(1).filter_map(|part| {
        // What is no number: nothing was sent at all.
        Some(part.split_ascii_whitespace().next()?.parse().ok().filter(|n: &f64| n.is_finite()).unwrap_or(100.0))
    });
    let drops_percent = drops.fold(0.0, f64::max);
    // perfdhcp's own rate counts the time in which it only waits.
    let acknowledged = after(text.split_once("REQUEST-ACK")?.1, "received packets:")?;
    Some(Report { completed: acknowledged / f64::from(seconds), drops_percent, text })
}

/// The highest rate that was completed.
fn highest(ground: &Ground) -> f64 {
    let mut best: f64 = 0.0;
    for rate in RATES {
        // Each client asks once or twice: leases are made, not only renewed. A rate counts as too high when it fails twice in
        // three tries: other programs' use of the disk must not decide.
        let tries = (0..3).map(|_| perfdhcp(ground, rate, SECONDS, 50_000, &[]).expect("perfdhcp"));
        let Some(report) = tries
            .scan(0, |failed, report| {
                *failed += i32::from(report.drops_percent > DROPS_PERCENT);
                (*failed < 2).then_some(report)
            })
            .find(|report| report.drops_percent <= DROPS_PERCENT)
        else {
            break;
        };
        best = best.max(report.completed);
        // perfdhcp itself no longer keeps up.
        if report.completed < f64::from(rate) * 0.8 {
            break;
        }
    }
    best
}

/// Delays, milliseconds, of each completed half of an exchange, from perfdhcp's list of instants.
fn delays(text: &str) -> Vec<f64> {
    let of_line = |line: &str| {
        let (sent, received) = line.strip_prefix("sent / received: ")?.split_once(" / ")?;
        Some((received.trim().parse::<f64>().ok()? - sent.parse::<f64>().ok()?) * 1e3)
    };
    let mut delays: Vec<f64> = text.lines().filter_map(of_line).collect();
    delays.sort_by(f64::total_cmp);
    delays
}

fn compare(quick: bool) {
    let ground = Ground::new(1500, 1);
    let runs = if quick { 1 } else { 3 };
    let mut rates = vec![Runs::default(); SERVERS.len()];
    let mut tails = vec![Runs::default(); SERVERS.len()];
    println!("median of {runs} interleaved runs (least..most); {}", ground::load());
    for _ in 0..runs {
        for (place, server) in SERVERS.iter().enumerate() {
            let _running = start(&ground, server);
            rates[place].push(highest(&ground));
            if rates[place].median() >= 1000.0 {
                let report = perfdhcp(&ground, 1000, 8, 50_000, &["-x", "t"]).unwrap();
                let delays = delays(&report.text);
                assert!(delays.len() > 5000, "{} delays in what perfdhcp says", delays.len());
                tails[place].push(delays[delays.len() * 99 / 100]);
            }
        }
    }
    println!(
        "| server | 4-way exchanges/s, at most {DROPS_PERCENT} % lost | p99 at 1,000/s, ms | ours to it |\n|---|---|---|---|"
    );
    for (place, server) in SERVERS.iter().enumerate() {
        let ratio = rates[0].to(&rates[place]).median();
        println!(
            "| {server} | {} | {} | {ratio:.2} |",
            rates[place].shown(),
            if tails[place].len() > 0 { tails[place].shown() } else { "-".into() }
        );
    }
    println!("{}", ground::load());
}
