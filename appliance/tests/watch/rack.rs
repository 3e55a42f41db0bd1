//! Hosts as network namespaces on a bridge, and the prober in one of them.

use healing::id::HostId;
use healing::sight::OwnSight;
use healing::signal::{Seen, Signal, Source};
use healing::time::Elapsed;
use pxe::mac::Mac;
use rackmedic::decide_loop::{RunningTime, Signals, SystemClock};
use rackmedic::watch::held::HeldConnections;
use rackmedic::watch::kubelet::KubeletWatch;
use rackmedic::watch::network::{NetworkWatch, Setup};
use rackmedic::watch::packet_wire::PacketWire;
use rackmedic::watch::prober::Marks;
use rackmedic::watch::target::{KUBELET_PORT, Reach, ReferencePoint, Roster, Target};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const SECOND_PORT: u16 = 22;

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn address(host: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a53_0000 + host)
}

fn card(host: u32) -> Mac {
    Mac([2, 0x83, 0, 0, 0, u8::try_from(host).unwrap()])
}

/// Runs in a namespace, in a thread of its own.
fn inside<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let act = || {
            enter(name);
            act()
        };
        scope.spawn(act).join().unwrap()
    })
}

fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Hosts 1 to n; host 254 is the gateway, in the namespace of the bridge.
pub(crate) struct Rack {
    name: String,
    hosts: u32,
    listeners: HashMap<(u32, u16), Arc<TcpListener>>,
}

impl Rack {
    pub(crate) fn of(hosts: u32) -> Rack {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("wt-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut rack = Rack { name, hosts, listeners: HashMap::new() };
        let bridge = rack.space("switch");
        ip(&format!("netns add {bridge}"));
        ip(&format!("-n {bridge} link add br0 type bridge"));
        ip(&format!("-n {bridge} addr add 10.83.0.254/16 dev br0"));
        ip(&format!("-n {bridge} link set br0 address {} up", card(254)));
        rack.plug("own", "10.83.255.1", Mac([2, 0x83, 0, 0, 1, 1]), "own");
        for host in 1..=hosts {
            rack.plug(&host.to_string(), &address(host).to_string(), card(host), &format!("h{host}"));
            rack.listen(host, KUBELET_PORT);
            rack.listen(host, SECOND_PORT);
        }
        rack
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn space(&self, who: &str) -> String {
        format!("{}-{who}", self.name)
    }

    fn plug(&self, who: &str, address: &str, card: Mac, port: &str) {
        let (space, bridge) = (self.space(who), self.space("switch"));
        ip(&format!("netns add {space}"));
        ip(&format!("-n {bridge} link add {port} type veth peer name eth0 address {card} netns {space}"));
        ip(&format!("-n {bridge} link set {port} master br0 up"));
        ip(&format!("-n {space} addr add {address}/16 dev eth0"));
        ip(&format!("-n {space} link set eth0 up"));
    }

    /// `ip` in a host's namespace.
    pub(crate) fn ip(&self, host: u32, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.space(&host.to_string())));
    }

    /// `ip` in our own.
    pub(crate) fn own(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.space("own")));
    }

    /// A server that takes each connection and keeps it open until it is stopped.
    pub(crate) fn listen(&mut self, host: u32, port: u16) {
        let listener = inside(&self.space(&host.to_string()), || TcpListener::bind(("0.0.0.0", port)).unwrap());
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        // Ends with the shutdown of the listener, and closes what it took in.
        std::thread::spawn(move || {
            let mut taken = Vec::new();
            while let Ok((stream, _)) = accepting.accept() {
                taken.push(stream);
            }
        });
        self.listeners.insert((host, port), listener);
    }

    /// A kubelet that answers each request with this status, over TLS with a certificate that nobody signed.
    pub(crate) fn serve_tls(&mut self, host: u32, status: &'static str) {
        let listener = inside(&self.space(&host.to_string()), || TcpListener::bind(("0.0.0.0", KUBELET_PORT)).unwrap());
        let listener = Arc::new(listener);
        let made = rcgen::generate_simple_self_signed(vec!["kubelet".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config =
            Arc::new(config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap());
        let accepting = Arc::clone(&listener);
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let config = Arc::clone(&config);
                std::thread::spawn(move || {
                    let mut tls = rustls::ServerConnection::new(config).unwrap();
                    let mut tls = rustls::Stream::new(&mut tls, &mut stream);
                    let mut asked = [0; 1_024];
                    // A held connection never says anything and ends here.
                    if tls.read(&mut asked).is_ok_and(|read| asked[..read].starts_with(b"GET /healthz HTTP/1.1\r\n")) {
                        let _ = write!(tls, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                        tls.conn.send_close_notify();
                        let _ = tls.flush();
                    }
                });
            }
        });
        self.listeners.insert((host, KUBELET_PORT), listener);
    }

    pub(crate) fn stop_listening(&mut self, host: u32, port: u16) {
        let listener = self.listeners.remove(&(host, port)).unwrap();
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        for listener in self.listeners.values() {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
        for who in (1..=self.hosts).map(|host| host.to_string()).chain(["own".to_owned(), "switch".to_owned()]) {
            let _ = Command::new("ip").args(["netns", "del", &self.space(&who)]).output();
        }
    }
}

/// The prober and the held connections of a rack.
pub(crate) struct Watch {
    signals: Signals,
    network: NetworkWatch,
    runtime: tokio::runtime::Runtime,
    _roster: watch::Sender<Arc<Roster>>,
    attended: watch::Sender<Arc<Vec<HostId>>>,
}

impl Watch {
    pub(crate) fn start(rack: &Rack) -> Watch {
        Watch::enter(rack.name(), rack.hosts)
    }

    pub(crate) fn enter(name: &str, hosts: u32) -> Watch {
        let target = |host| Target {
            host: HostId(host),
            address: address(host),
            reach: Reach::Attached(card(host)),
            kubelet_port: KUBELET_PORT,
            second_port: SECOND_PORT,
        };
        let reference = ReferencePoint { address: address(hosts), domain: None, attached: true };
        let gateway = Some(Ipv4Addr::new(10, 83, 0, 254));
        let roster = Roster::new((1..=hosts).map(target).collect(), Vec::new(), gateway, vec![reference]).unwrap();
        let (roster_out, roster) = watch::channel(Arc::new(roster));
        let (attended_out, attended) = watch::channel(Arc::new(Vec::new()));
        let (signals, marks) = (Signals::new(), Marks::random());
        let time = RunningTime::resume(Arc::new(SystemClock::new()), Elapsed(0));
        let space = format!("{name}-own");
        let open_space = space.clone();
        let sighted = signals.clone();
        let setup = Setup {
            open: Box::new(move || {
                enter(&open_space);
                Ok(Box::new(PacketWire::open("eth0", marks, 4_096)?))
            }),
            marks,
            roster: roster.clone(),
            attended,
            signals: signals.clone(),
            tell_sight: Box::new(move |sight| sighted.own_sight(sight)),
            time: time.clone(),
        };
        let network = inside(&space, || NetworkWatch::start(setup)).unwrap();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().on_thread_start(move || enter(&space)).build().unwrap();
        let held = HeldConnections {
            roster: roster.clone(),
            standings: network.standings(),
            signals: signals.clone(),
            time: time.clone(),
            most: 100,
            open: Arc::default(),
        };
        runtime.spawn(held.run());
        let kubelets = KubeletWatch { roster, standings: network.standings(), signals: signals.clone(), time };
        runtime.spawn(async move { kubelets.run().await.unwrap() });
        Watch { signals, network, runtime, _roster: roster_out, attended: attended_out }
    }

    pub(crate) fn attend(&self, hosts: &[u32]) {
        self.attended.send_replace(Arc::new(hosts.iter().map(|host| HostId(*host)).collect()));
    }

    pub(crate) fn take(&self) -> Vec<(HostId, Signal)> {
        let mut taken = Vec::new();
        self.signals.drain(|host, signals| taken.extend(signals.into_iter().map(|signal| (host, signal))));
        taken
    }

    pub(crate) fn stalled(&self) -> Option<u64> {
        self.signals.take_stalled()
    }

    /// Collects signals until they are enough, at most so many seconds.
    pub(crate) fn until(&self, seconds: u64, enough: impl Fn(&[(HostId, Signal)]) -> bool) -> Vec<(HostId, Signal)> {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut seen = Vec::new();
        loop {
            seen.extend(self.take());
            if enough(&seen) {
                return seen;
            }
            assert!(Instant::now() < end, "not within {seconds} s: {seen:#?} {:?}", self.network.tally());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn opened(&self, seen: &[(HostId, Signal)], host: u32) -> bool {
        let of = |(h, s): &&(HostId, Signal)| *h == HostId(host) && s.source == Source::HeldConnection;
        seen.iter().rfind(of).is_some_and(|(_, s)| s.seen == Seen::Open)
    }

    pub(crate) fn sight(&self, seconds: u64, enough: impl Fn(&OwnSight) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut last = None;
        while !last.as_ref().is_some_and(&enough) {
            assert!(Instant::now() < end, "not within {seconds} s: {last:?}");
            last = self.signals.take_sight().or(last);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn probe(&self, host: u32) -> Option<(bool, bool)> {
        self.runtime.block_on(self.network.probe(HostId(host)))
    }
}
