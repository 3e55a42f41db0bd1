//! Two servers on one link: dnsmasq gives the address, we say what to boot. Whoever's offer comes first, and even when our
//! first one is lost, real firmware (SeaBIOS with the iPXE ROM, in QEMU) ends with its lease and our file.
//!
//! Needs root and the peers of tests/peers/install-boot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod support;

use pxe::dhcp::decide::{Answerer, Loaders};
use pxe::dhcp::scope::{Mode, Scope};
use pxe::dhcp::server::{Around, DhcpServer, Link};
use pxe::files::{Body, BootFile, FileRequest, Files, Transfer, Withheld};
use pxe::gate::{FirstLoader, Now, Phase, ProxyStyle, Ticket, Tickets, Token};
use pxe::http::server::{HttpServer, Limits};
use pxe::mac::Mac;
use pxe::recorder::Recorder;
use std::collections::HashMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{Scratch, has};
use tokio_util::sync::CancellationToken;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 79, 3, 1);
/// The lease that dnsmasq has for the card.
const THEIRS: &str = "10.79.3.50";
const MAC: Mac = Mac([0x52, 0x54, 0, 0x79, 0, 3]);
/// Names the folder of a server that this test starts as another process, in a namespace.
const FOLDER: &str = "RACKMEDIC_RACE_FOLDER";

/// One ticket, which is open when the file `armed` is there.
#[derive(Debug)]
struct Switch(PathBuf, Now, Instant);

impl Switch {
    fn ticket(&self) -> Option<Arc<Ticket>> {
        let ticket = Ticket {
            job: "job".parse().unwrap(),
            mac: MAC,
            token: Token::new([0xab; 16]),
            opened: self.1,
            phase: Phase::Armed,
            first_loader: FirstLoader::Ipxe,
            proxy_style: ProxyStyle::Offer,
        };
        self.0.join("armed").exists().then(|| Arc::new(ticket))
    }
}

impl Tickets for Switch {
    fn of_mac(&self, mac: Mac) -> Option<Arc<Ticket>> {
        self.ticket().filter(|ticket| ticket.mac == mac)
    }

    fn of_token(&self, token: &Token) -> Option<Arc<Ticket>> {
        self.ticket().filter(|ticket| ticket.token == *token)
    }

    fn now(&self) -> Now {
        let since = self.2.elapsed();
        Now { elapsed: self.1.elapsed + since, wall: self.1.wall + since }
    }
}

/// Notes who asks for what.
#[derive(Debug)]
struct Notebook(PathBuf);

impl Files for Notebook {
    fn open(&self, request: &FileRequest<'_>) -> Result<BootFile, Withheld> {
        let mut file = std::fs::File::options().create(true).append(true).open(self.0.join("asked")).unwrap();
        writeln!(file, "{} {}", request.peer.ip(), request.path).unwrap();
        let body = Body::Bytes("#!ipxe\nexit\n".into());
        Ok(BootFile { body, media_type: "text/plain", sha256: None, tag: 0 })
    }

    fn transferred(&self, _transfer: &Transfer<'_>) {}
}

/// No test of its own: the servers, in a process of their own, until it is killed.
#[test]
fn the_servers_of_the_race() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let begun = Now { elapsed: Duration::from_secs(1000), wall: Duration::from_secs(1_800_000_000) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let around = Around {
            tickets: Arc::new(Switch(folder.clone(), begun, Instant::now())),
            recorder: Arc::new(Recorder::new(1 << 16, None)),
            peers: Arc::default(),
        };
        let scope = Scope { mode: Mode::Proxy, subnets: Vec::new(), reservations: HashMap::new() };
        let answerer = Answerer::new(scope, Loaders { names: std::collections::BTreeMap::new(), http_port: 8080 });
        let link = Link::find("br0", Some(OURS)).unwrap();
        let dhcp = DhcpServer::open(link, Mode::Proxy, answerer, None, Vec::new(), around).unwrap();
        let files = Arc::new(Notebook(folder.clone()));
        let http = HttpServer::bind((OURS, 8080).into(), files, Limits::default()).await.unwrap();
        tokio::spawn(http.run(CancellationToken::new()));
        std::fs::write(folder.join("ready"), "").unwrap();
        dhcp.run(CancellationToken::new()).await.unwrap();
    });
}

/// Namespaces and processes; gone when dropped.
struct Ground {
    ours: String,
    theirs: String,
    running: Vec<Child>,
}

impl Ground {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (ours, theirs) = (format!("bn-{id}o"), format!("bn-{id}t"));
        let ip = |arguments: &str| {
            assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
        };
        for name in [&ours, &theirs] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {ours} link add br0 type bridge stp_state 0 forward_delay 0"));
        ip(&format!("-n {ours} addr add {OURS}/24 dev br0"));
        ip(&format!("-n {ours} link set br0 up"));
        ip(&format!("-n {ours} link add up0 type veth peer name up1 netns {theirs}"));
        ip(&format!("-n {ours} link set up0 master br0 up"));
        ip(&format!("-n {theirs} addr add 10.79.3.2/24 dev up1"));
        ip(&format!("-n {theirs} link set up1 up"));
        ip(&format!("-n {ours} tuntap add tap0 mode tap"));
        ip(&format!("-n {ours} link set tap0 master br0 up"));
        Self { ours, theirs, running: Vec::new() }
    }

    fn start(&mut self, ours: bool, log: &Path, program: &str, arguments: &str) {
        let namespace = if ours { &self.ours } else { &self.theirs };
        let log = std::fs::File::create(log).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg(program).args(arguments.split(' '));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push(command.spawn().unwrap());
    }

    /// This program again, as the servers.
    fn serve(&mut self, folder: &Path) {
        let log = std::fs::File::create(folder.join("ours.log")).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.ours)).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "the_servers_of_the_race", "--nocapture"]).env(FOLDER, folder);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push(command.spawn().unwrap());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn wait(what: &str, folder: &Path, file: &str, words: &str) {
    let until = Instant::now() + Duration::from_secs(120);
    while !std::fs::read_to_string(folder.join(file)).is_ok_and(|text| text.contains(words)) {
        assert!(Instant::now() < until, "{what}: not within 120 s; see {}", folder.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn race(name: &str, dnsmasq: &str, armed_before: bool) {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root || !has("qemu-system-x86_64") || !has("dnsmasq") {
        eprintln!("not run: it needs root and the peers of tests/peers/install-boot");
        return;
    }
    let scratch = Scratch::new(name);
    let folder = scratch.0.clone();
    let there = folder.display();
    let mut ground = Ground::new();
    ground.start(
        false,
        &folder.join("dnsmasq.log"),
        "dnsmasq",
        &format!(
            "--keep-in-foreground --conf-file=/dev/null --port=0 --interface=up1 --bind-interfaces --no-ping --user=root \
             --dhcp-authoritative --log-dhcp --log-facility=- --pid-file= --dhcp-leasefile={there}/leases \
             --dhcp-range=10.79.3.100,10.79.3.200,10m --dhcp-host={MAC},{THEIRS}{dnsmasq}"
        ),
    );
    if armed_before {
        std::fs::write(folder.join("armed"), "").unwrap();
    }
    ground.serve(&folder);
    wait("our servers", &folder, "ready", "");
    wait("dnsmasq", &folder, "dnsmasq.log", "DHCP, IP range");
    ground.start(
        true,
        &folder.join("console"),
        "qemu-system-x86_64",
        &format!(
            "-accel tcg -m 256 -nodefaults -display none -serial stdio -monitor none -boot n \
             -netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n0,mac={MAC}"
        ),
    );
    if !armed_before {
        // The first DISCOVER was answered by the other server alone.
        wait("a DISCOVER", &folder, "dnsmasq.log", "DHCPOFFER");
        std::fs::write(folder.join("armed"), "").unwrap();
    }
    let asked = format!("{THEIRS} t/{}/boot.ipxe", Token::new([0xab; 16]).as_str());
    wait("the other's lease and our file", &folder, "asked", &asked);
    assert!(std::fs::read_to_string(folder.join("leases")).unwrap().contains(&MAC.to_string()));
}

#[test]
fn our_offer_before_the_others() {
    race("race-first", " --dhcp-reply-delay=1", true);
}

#[test]
fn our_first_offer_is_lost_and_the_others_comes_first() {
    race("race-lost", "", false);
}
