//! A link of three namespaces: the probe's, a switch, and up to two servers.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const RACKMEDIC: &str = env!("CARGO_BIN_EXE_rackmedic");
const RANGE: &str = "--dhcp-range=10.82.0.100,10.82.0.200,10m";

/// The link; gone when dropped, with all that runs on it.
#[derive(Debug)]
pub(crate) struct Link {
    id: String,
    folder: PathBuf,
    servers: Vec<Child>,
}

/// What the probe reports.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) json: Value,
    pub(crate) exit: i32,
}

impl Report {
    pub(crate) fn client(&self, name: &str) -> &Value {
        let mut clients = self.json["clients"].as_array().unwrap().iter();
        clients.find(|client| client["client"] == name).unwrap()
    }

    /// The names of the faults, each once.
    pub(crate) fn faults(&self) -> Vec<&str> {
        let findings = self.json["findings"].as_array().unwrap().iter();
        let faults = findings.filter(|finding| finding["weight"] == "fault");
        let mut names: Vec<&str> = faults.filter_map(|finding| finding["name"].as_str()).collect();
        names.dedup();
        names
    }

    pub(crate) fn sentence(&self, name: &str) -> &str {
        let mut findings = self.json["findings"].as_array().unwrap().iter();
        findings.find(|finding| finding["name"] == name).unwrap()["sentence"].as_str().unwrap()
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn ip(arguments: &str) {
    let output = run("ip", &arguments.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Link {
    pub(crate) fn make() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() || std::env::var_os("RACKMEDIC_PEERS").is_none() {
            eprintln!("not run: it needs root and RACKMEDIC_PEERS (see tests/run)");
            return None;
        }
        let id = format!("pr-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&id);
        std::fs::create_dir_all(folder.join("tftp")).unwrap();
        let link = Self { id, folder, servers: Vec::new() };
        for name in ["a", "m", "b", "c", "d"] {
            ip(&format!("netns add {}{name}", link.id));
            ip(&format!("-n {}{name} link set lo up", link.id));
        }
        let id = &link.id;
        ip(&format!("-n {id}m link add br0 type bridge stp_state 0 forward_delay 0"));
        ip(&format!("-n {id}m link set br0 up"));
        for (name, address) in [("a", 9), ("b", 2), ("c", 3)] {
            ip(&format!("-n {id}m link add to{name} type veth peer name eth0 netns {id}{name}"));
            ip(&format!("-n {id}m link set to{name} master br0 up"));
            ip(&format!("-n {id}{name} addr add 10.82.0.{address}/24 dev eth0"));
            ip(&format!("-n {id}{name} link set eth0 up"));
        }
        Some(link)
    }

    fn inside(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}{name}", self.id)).arg(program).stdin(Stdio::null());
        command
    }

    fn place(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Gives the probe's own interface this MTU.
    pub(crate) fn mtu(&self, bytes: u32) {
        ip(&format!("-n {}a link set eth0 mtu {bytes}", self.id));
    }

    /// Puts a file where TFTP serves it.
    pub(crate) fn file(&self, name: &str, bytes: usize) {
        std::fs::write(self.folder.join("tftp").join(name), vec![7; bytes]).unwrap();
    }

    fn start(&mut self, name: &str, program: &str, arguments: &[&str], listens: &str) {
        let log = std::fs::File::create(self.folder.join(format!("{name}.log"))).unwrap();
        let mut command = self.inside(name, program);
        // Debian's Kea wants its run folder; a test must not depend on one of the machine.
        command.env("KEA_PIDFILE_DIR", &self.folder).env("KEA_LOCKFILE_DIR", &self.folder);
        command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
        self.servers.push(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let sockets = self.inside(name, "ss").args(["-lunpw0"]).output().unwrap();
            let raw = self.inside(name, "ss").args(["-0lnp"]).output().unwrap();
            let both = [sockets.stdout, raw.stdout].concat();
            if String::from_utf8_lossy(&both).lines().any(|line| line.contains(listens)) {
                return;
            }
            let said = std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
            assert!(Instant::now() < until, "{program} does not listen: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// dnsmasq in the first server's place, with its TFTP.
    pub(crate) fn dnsmasq(&mut self, more: &[&str]) {
        self.dnsmasq_with(RANGE, &[&["--no-ping"], more].concat());
    }

    /// The same, as it is by itself: it pings before it offers.
    pub(crate) fn dnsmasq_that_pings(&mut self) {
        self.dnsmasq_with(RANGE, &[]);
    }

    /// dnsmasq beside another server: it says what to boot, and gives no address.
    pub(crate) fn dnsmasq_as_proxy(&mut self, more: &[&str]) {
        self.dnsmasq_with("--dhcp-range=10.82.0.0,proxy", more);
    }

    fn dnsmasq_with(&mut self, range: &str, more: &[&str]) {
        let leases = format!("--dhcp-leasefile={}", self.place("leases"));
        let root = format!("--tftp-root={}", self.place("tftp"));
        let usual = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=eth0",
            "--bind-interfaces",
            "--user=root",
            "--dhcp-authoritative",
            range,
            "--enable-tftp",
            &root,
            &leases,
            "--pid-file=",
        ];
        self.start("b", "dnsmasq", &[&usual[..], more].concat(), ":67");
    }

    /// What dnsmasq has leased.
    pub(crate) fn leases(&self) -> String {
        std::fs::read_to_string(self.folder.join("leases")).unwrap_or_default()
    }

    /// Kea in the second server's place.
    pub(crate) fn kea(&mut self) {
        self.kea_in("c", "eth0", "10.82.0.0/24", "10.82.0.201 - 10.82.0.240");
    }

    fn kea_in(&mut self, name: &str, interface: &str, subnet: &str, pool: &str) {
        let config = format!(
            r#"{{"Dhcp4":{{"interfaces-config":{{"interfaces":["{interface}"]}},"lease-database":{{"type":"memfile","persist":false}},
            "subnet4":[{{"subnet":"{subnet}","pools":[{{"pool":"{pool}"}}]}}]}}}}"#
        );
        let path = self.place("kea.json");
        std::fs::write(&path, config).unwrap();
        self.start(name, "kea-dhcp4", &["-c", &path], "kea-dhcp4");
    }

    /// ISC's relay in the first server's place, and Kea in another network behind it.
    pub(crate) fn relay_to_kea(&mut self) {
        let id = self.id.clone();
        ip(&format!("-n {id}b link add up0 type veth peer name eth0 netns {id}d"));
        ip(&format!("-n {id}b addr add 10.82.1.2/24 dev up0"));
        ip(&format!("-n {id}b link set up0 up"));
        ip(&format!("-n {id}d addr add 10.82.1.3/24 dev eth0"));
        ip(&format!("-n {id}d link set eth0 up"));
        ip(&format!("-n {id}d route add 10.82.0.0/24 via 10.82.1.2"));
        self.kea_in("d", "eth0", "10.82.0.0/24", "10.82.0.100 - 10.82.0.200");
        self.start("b", "dhcrelay", &["-4", "-d", "-i", "eth0", "-i", "up0", "10.82.1.3"], "dhcrelay");
        // A server listens before it answers, and the first answer through a relay waits for address resolution on both
        // sides: it is the way as it is afterwards that is under test.
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let report = self.probe(&["--offers-only"]);
            if report.faults().is_empty() {
                return;
            }
            assert!(Instant::now() < until, "no quick answer through the relay: {report:?}");
        }
    }

    fn asked(&self, more: &[&str]) -> Output {
        self.inside("a", RACKMEDIC).args(["boot", "probe", "--interface", "eth0"]).args(more).output().unwrap()
    }

    pub(crate) fn probe(&self, more: &[&str]) -> Report {
        let output = self.asked(&[&["--output", "json"], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        Report { json, exit: output.status.code().unwrap() }
    }

    pub(crate) fn probe_table(&self) -> String {
        String::from_utf8(self.asked(&[]).stdout).unwrap()
    }

    pub(crate) fn probe_without_rights(&self) -> (i32, String) {
        let mut command = self.inside("a", "setpriv");
        command.args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw", RACKMEDIC]);
        let output = command.args(["boot", "probe", "--interface", "eth0"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for name in ["a", "m", "b", "c", "d"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}{name}", self.id)]).status();
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
