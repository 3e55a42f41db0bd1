//! Many BMCs at once. `ipmi`: 1,000 power reads, each with a session of its own, against FreeIPMI's `ipmipower` on the same
//! targets, interleaved. `poll`: 1,000 BMCs polled at 30 s, 5 % dead and 5 % answering after 30 s: the cadence of the
//! healthy ones, CPU and memory, and how soon a fence begins during a slow poll.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::panic, clippy::disallowed_methods)]

use bmc::controller::{ALWAYS, Controller, Verb};
use bmc::ipmi::client::{Client, Patience};
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::poll::{Look, Pace, Poller};
use bmc::redfish::{Credential, Facts, Fingerprint, MemoryKeeper, Options, Redfish, Trust};
use bmc::station::{Dial, Station};
use bmc::{Power, PowerCommand, Secret};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const PASSWORD: &[u8] = b"secret-of-a-bmc";
const BMCS: usize = 1_000;
const RUNS: usize = 7;

struct Rack {
    child: Child,
    pin: Fingerprint,
    ipmi: Vec<SocketAddr>,
    redfish: Vec<SocketAddr>,
}

impl Drop for Rack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The emulators in a process of their own, so that their cost is not ours.
fn rack(dead: usize, late: usize) -> Rack {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    let program = folder.join("examples/rack");
    let arguments = [BMCS, dead, late].map(|number| number.to_string());
    let mut child =
        Command::new(&program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(
            |why| {
                panic!("{}: {why}; build it with `cargo build --release -p bmc-emulator --examples`", program.display())
            },
        );
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pin = lines.next().unwrap().parse().unwrap();
    let (mut ipmi, mut redfish) = (Vec::new(), Vec::new());
    for line in lines {
        let Some((a, b)) = line.split_once(' ') else { break };
        ipmi.push(SocketAddr::from(([127, 0, 0, 1], a.parse().unwrap())));
        redfish.push(SocketAddr::from(([127, 0, 0, 1], b.parse().unwrap())));
    }
    Rack { child, pin, ipmi, redfish }
}

fn login() -> Login {
    Login::new("admin".to_owned(), Secret::new(PASSWORD.to_vec()), Privilege::Operator).unwrap()
}

async fn read_all(targets: &[SocketAddr]) -> usize {
    let turns = Arc::new(Semaphore::new(256));
    let reads: Vec<_> = targets
        .iter()
        .map(|target| {
            let (turns, target) = (turns.clone(), *target);
            tokio::spawn(async move {
                let _turn = turns.acquire_owned().await.unwrap();
                let Ok(mut client) = Client::open(target, &login(), &[Suite::Sha256], Patience::default()).await else {
                    return false;
                };
                let on = client.chassis_status().await.is_ok_and(|status| status.on);
                client.close().await;
                on
            })
        })
        .collect();
    let mut on = 0;
    for read in reads {
        on += usize::from(read.await.unwrap());
    }
    on
}

fn ipmipower(targets: &[SocketAddr]) -> usize {
    let hosts: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let arguments = ["-D", "LAN_2_0", "-I", "17", "-u", "admin", "-p", "secret-of-a-bmc", "--stat", "-h"];
    let done = Command::new("ipmipower").args(arguments).arg(hosts.join(",")).output().unwrap();
    String::from_utf8_lossy(&done.stdout).lines().filter(|line| line.ends_with(": on")).count()
}

fn median(mut times: Vec<f64>) -> (f64, f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0], times[times.len() - 1])
}

async fn ipmi() {
    let rack = rack(0, 0);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let on = read_all(&rack.ipmi).await;
        ours.push(begun.elapsed().as_secs_f64());
        assert_eq!(on, BMCS, "each is read, and is on");
        let begun = Instant::now();
        let on = ipmipower(&rack.ipmi);
        theirs.push(begun.elapsed().as_secs_f64());
        assert_eq!(on, BMCS, "ipmipower reads each");
    }
    let (ours, low, high) = median(ours);
    println!("1,000 power reads, ours:      {ours:.3} s ({low:.3} to {high:.3})");
    let (theirs, low, high) = median(theirs);
    println!("1,000 power reads, ipmipower: {theirs:.3} s ({low:.3} to {high:.3})");
    println!("ratio {:.2}", ours / theirs);
}

/// When the way to a BMC was last begun to be opened.
type Dialed = Arc<Mutex<Option<Instant>>>;

struct OverIpmi(SocketAddr, Dialed);

impl Dial for OverIpmi {
    fn open(&self) -> Verb<'_, Box<dyn Controller>> {
        *self.1.lock().unwrap() = Some(Instant::now());
        Box::pin(async {
            let client = Client::open(self.0, &login(), &Suite::PREFERENCE, Patience::default()).await?;
            Ok(Box::new(client) as Box<dyn Controller>)
        })
    }
}

struct OverRedfish(SocketAddr, Fingerprint, Arc<MemoryKeeper>, Dialed);

impl Dial for OverRedfish {
    fn open(&self) -> Verb<'_, Box<dyn Controller>> {
        *self.3.lock().unwrap() = Some(Instant::now());
        Box::pin(async {
            let options = Options {
                trust: Trust::Pin(self.1),
                patience: bmc::redfish::Patience::default(),
                system: None,
                keep_alive: false,
                keeper: self.2.clone(),
                facts: Facts::default(),
            };
            let credential = Credential { user: "admin".to_owned(), password: Secret::new(PASSWORD.to_vec()) };
            Ok(Box::new(Redfish::new(self.0, "127.0.0.1", credential, options)?) as Box<dyn Controller>)
        })
    }
}

/// CPU seconds of this process and its resident bytes, as Linux tells them.
fn cost() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    (ticks / 100.0, pages * 4_096)
}

async fn poll(redfish: bool, seconds: u64) {
    let rack = rack(5, 5);
    let dialed: Vec<Dialed> = (0..BMCS).map(|_| Dialed::default()).collect();
    let stations: Vec<Arc<Station>> = (0..BMCS)
        .map(|place| {
            let dialed = dialed[place].clone();
            let dial: Box<dyn Dial> = if redfish {
                Box::new(OverRedfish(rack.redfish[place], rack.pin, Arc::default(), dialed))
            } else {
                Box::new(OverIpmi(rack.ipmi[place], dialed))
            };
            Arc::new(Station::new(dial))
        })
        .collect();
    let pace = Pace { healthy: Duration::from_secs(30), ..Pace::default() };
    let poller = Arc::new(Poller::new(stations.clone(), pace));
    let looks: Arc<Mutex<Vec<Vec<Instant>>>> = Arc::new(Mutex::new(vec![Vec::new(); BMCS]));
    let (noted, running) = (looks.clone(), poller.clone());
    let before = cost();
    let begun = Instant::now();
    let task = tokio::spawn(async move {
        let saw = move |look: Look| {
            if matches!(&look.result, Ok(seen) if seen.main.power == Power::On) {
                noted.lock().unwrap()[look.place].push(look.at);
            }
        };
        running.run(Arc::new(saw)).await;
    });
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    // A fence at a BMC that answers after thirty seconds, while it is polled.
    let slow = stations[7].clone();
    let polled = slow.clone();
    let poll = tokio::spawn(async move { polled.poll(|bmc| bmc.readings()).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = Instant::now();
    let began = Arc::new(Mutex::new(None));
    let seen = began.clone();
    let fence = slow.fence(true, Duration::from_secs(2), move |bmc| {
        *seen.lock().unwrap() = Some(Instant::now());
        bmc.power(PowerCommand::Off, ALWAYS)
    });
    let _ = fence.await;
    let _ = poll.await;
    let after = cost();
    task.abort();
    let looks = looks.lock().unwrap();
    let mut gaps: Vec<f64> = Vec::new();
    let mut healthy = 0;
    for (place, own) in looks.iter().enumerate().filter(|(place, _)| place % 100 >= 10) {
        healthy += 1;
        assert!(own.len() >= 2, "BMC {place} was read {} times", own.len());
        gaps.extend(own.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()));
    }
    gaps.sort_by(f64::total_cmp);
    let p99 = gaps[gaps.len() * 99 / 100];
    let wall = begun.elapsed().as_secs_f64();
    println!(
        "{}: {healthy} healthy of {BMCS}, {} intervals: p50 {:.2} s, p99 {p99:.2} s = {:.2} x the period, longest {:.2} s",
        if redfish { "Redfish" } else { "IPMI" },
        gaps.len(),
        gaps[gaps.len() / 2],
        p99 / 30.0,
        gaps[gaps.len() - 1]
    );
    println!(
        "  {:.1} % of a core over {wall:.0} s, {:.1} MiB resident ({:.1} MiB before the first poll)",
        100.0 * (after.0 - before.0) / wall,
        after.1 as f64 / 1_048_576.0,
        before.1 as f64 / 1_048_576.0
    );
    // It begins with its verb where the way is open, else with opening the way.
    let opened = dialed[7].lock().unwrap().filter(|at| *at >= asked);
    let began = [*began.lock().unwrap(), opened].into_iter().flatten().min();
    match began {
        Some(at) => println!("  a fence during a slow poll began after {:.3} s", (at - asked).as_secs_f64()),
        None => println!("  a fence during a slow poll DID NOT BEGIN"),
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wants = |name: &str| only.as_deref().is_none_or(|only| only == name);
    runtime.block_on(async {
        if wants("ipmi") {
            ipmi().await;
        }
        if wants("poll") {
            poll(false, 125).await;
            poll(true, 125).await;
        }
    });
}
