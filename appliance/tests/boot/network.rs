//! A boot network in namespaces of its own, with whoever else is on it, and the boot servers.

use crate::host::{Firmware, Host};
use crate::store::{RACKMEDIC, Store, run};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Who else speaks DHCP there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// We give the addresses.
    Nobody,
    /// dnsmasq gives the addresses, we say what to boot.
    PlainDhcp,
    /// The same, and its answers name us as the next server (`siaddr`), without a file.
    DhcpThatNamesUs,
    /// dnsmasq gives the addresses and options 60, 66 and 67 besides.
    DhcpWithBootOptions,
    /// We give the addresses, through ISC's relay in another network.
    Relay,
}

/// Where installers speak, unless a configuration says otherwise.
pub(crate) const INSTALLER_PORT: u16 = 8443;

/// The card of the host.
pub(crate) const MAC: &str = "52:54:00:77:00:01";

/// The namespaces; gone when dropped, with all that runs in them.
#[derive(Debug)]
pub(crate) struct Network {
    beside: Beside,
    /// Ours.
    pub(crate) ours: String,
    /// Of the other server, or of the relay.
    pub(crate) theirs: String,
    /// Where the host's card is.
    pub(crate) host_namespace: String,
    /// The host's tap there.
    pub(crate) tap: &'static str,
    pub(crate) folder: PathBuf,
    others: Vec<Child>,
}

pub(crate) fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

impl Network {
    pub(crate) fn make(beside: Beside) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("rmb{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (ours, theirs) = (format!("{id}a"), format!("{id}b"));
        let folder = std::env::temp_dir().join(&id);
        std::fs::create_dir_all(&folder).unwrap();
        for name in [&ours, &theirs] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {ours} link add br0 type bridge stp_state 0 forward_delay 0"));
        ip(&format!("-n {ours} addr add 10.77.0.1/24 dev br0"));
        ip(&format!("-n {ours} link set br0 up"));
        ip(&format!("-n {ours} link add up0 type veth peer name up1 netns {theirs}"));
        ip(&format!("-n {ours} link set up0 master br0 up"));
        ip(&format!("-n {theirs} addr add 10.77.0.2/24 dev up1"));
        ip(&format!("-n {theirs} link set up1 up"));
        let host_namespace = if beside == Beside::Relay { theirs.clone() } else { ours.clone() };
        let mut network = Self { beside, ours, theirs, host_namespace, tap: "tap0", folder, others: Vec::new() };
        let there = network.host_namespace.clone();
        ip(&format!("-n {there} tuntap add tap0 mode tap"));
        if beside == Beside::Relay {
            ip(&format!("-n {there} link add br1 type bridge stp_state 0 forward_delay 0"));
            ip(&format!("-n {there} addr add 10.78.0.1/24 dev br1"));
            ip(&format!("-n {there} link set br1 up"));
            ip(&format!("-n {there} link set tap0 master br1 up"));
            ip(&format!("-n {} route add 10.78.0.0/24 via 10.77.0.2", network.ours));
            network.inside(&there, "sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
        } else {
            ip(&format!("-n {there} link set tap0 master br0 up"));
        }
        network.start_others();
        network
    }

    pub(crate) fn inside(&self, namespace: &str, program: &str, arguments: &[&str]) -> String {
        run("nsenter", &[&[&format!("--net=/run/netns/{namespace}"), program], arguments].concat())
    }

    fn start_others(&mut self) {
        let mut start = |program: &str, arguments: &[&str]| {
            let log = std::fs::File::create(self.folder.join("other.log")).unwrap();
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", self.theirs)).arg(program).args(arguments);
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            self.others.push(command.spawn().unwrap());
        };
        match self.beside {
            Beside::Nobody => {}
            Beside::Relay => start("dhcrelay", &["-4", "-d", "-a", "-i", "br1", "-i", "up1", "10.77.0.1"]),
            Beside::PlainDhcp | Beside::DhcpThatNamesUs | Beside::DhcpWithBootOptions => {
                let leases = format!("--dhcp-leasefile={}", self.folder.join("leases").display());
                let mut arguments = vec![
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--interface=up1",
                    "--bind-interfaces",
                    "--user=root",
                    "--dhcp-authoritative",
                    "--dhcp-range=10.77.0.100,10.77.0.200,10m",
                    &leases,
                    "--pid-file=",
                ];
                if self.beside == Beside::DhcpThatNamesUs {
                    arguments.push("--dhcp-boot=,,10.77.0.1");
                }
                if self.beside != Beside::DhcpWithBootOptions {
                    // Whether it pings first changes nothing for the test but its length.
                    arguments.push("--no-ping");
                } else {
                    // As it is by itself it makes sure that nobody has an address before it offers it.
                    arguments.extend([
                        "--dhcp-option-force=60,PXEClient",
                        "--dhcp-option-force=66,10.77.0.2",
                        "--dhcp-option-force=67,nothing-here.0",
                    ]);
                }
                start("dnsmasq", &arguments);
            }
        }
    }

    /// Captures what leaves our card from now on, but for what the kernel says by itself (ARP, neighbours of IPv6).
    pub(crate) fn capture_what_we_say(&self) -> Capture {
        // sysfs shows the network in which it was mounted; ip asks the right one.
        let link: Value = serde_json::from_str(&run("ip", &["-n", &self.ours, "-j", "link", "show", "br0"])).unwrap();
        let mac = link[0]["address"].as_str().unwrap().to_owned();
        let filter = format!("ether src {} and (udp or tcp or icmp or (icmp6 and ip6[40] == 134))", mac.trim());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.ours))
            .args(["tcpdump", "-n", "-l", "-U", "-i", "br0", &filter]);
        let log = self.folder.join("said");
        let words = self.folder.join("tcpdump.log");
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&log).unwrap());
        let tcpdump = command.stderr(std::fs::File::create(&words).unwrap()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_to_string(&words).unwrap_or_default().contains("listening on") {
            assert!(Instant::now() < until, "tcpdump: {}", std::fs::read_to_string(&words).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        Capture { tcpdump, log }
    }

    /// A job as it lies on the appliance's disk, with its secrets.
    pub(crate) fn job(&self, name: &str) -> Value {
        let text = std::fs::read(self.folder.join("data/jobs").join(format!("{name}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Whether something at this address answers: a port that is refused is an answer too.
    pub(crate) fn answers(&self, address: &str) -> bool {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.ours)).args(["socat", "-u", "-T5"]);
        command.args([&format!("TCP:{address}:1,connect-timeout=5"), "/dev/null"]);
        let said = command.output().unwrap();
        // Refused by the host itself; a host that is not there is "No route" or a timeout.
        String::from_utf8_lossy(&said.stderr).contains("Connection refused")
    }

    /// Starts the boot servers, which must not serve; what they say.
    pub(crate) fn serve_in_vain(&self, store: &Store) -> String {
        let appliance = self.configured(store, Firmware::Bios);
        let output = appliance.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("ready:"), "it served: {said}");
        said
    }

    /// Starts the boot servers and waits until they are ready.
    pub(crate) fn serve(&self, store: &Store, firmware: Firmware) -> Appliance {
        let mut appliance = self.configured(store, firmware);
        appliance.server = Some(appliance.start());
        appliance
    }

    fn configured(&self, store: &Store, firmware: Firmware) -> Appliance {
        let config = self.folder.join("boot.toml");
        let (mode, subnet, address) = match self.beside {
            Beside::Nobody => ("server", "[[link.subnet]]\nnetwork = \"10.77.0.0/24\"\n", "address = \"10.77.0.50\"\n"),
            // A whole offer is wanted there: the card has a reservation outside of the other server's range.
            Beside::DhcpWithBootOptions => {
                ("proxy", "[[link.subnet]]\nnetwork = \"10.77.0.0/24\"\n", "address = \"10.77.0.50\"\n")
            }
            Beside::PlainDhcp | Beside::DhcpThatNamesUs => ("proxy", "", ""),
            Beside::Relay => (
                "server",
                "[[link.subnet]]\nnetwork = \"10.78.0.0/24\"\nrouter = \"10.78.0.1\"\nrelays = [\"10.78.0.1\"]\n",
                "address = \"10.78.0.50\"\n",
            ),
        };
        let text = format!(
            "data_dir = \"{}\"\nstore = \"{}\"\nboot_set = \"1\"\ntrusted_keys = [\"{}\"]\nkernel_arguments = \"console=ttyS0 quiet\"\n\
             [[link]]\ninterface = \"br0\"\naddress = \"10.77.0.1\"\nmode = \"{mode}\"\n{subnet}[[host]]\nname = \"node\"\nmac = \"{MAC}\"\nfirst_loader = \"{}\"\n{address}",
            self.folder.join("data").display(),
            store.place().display(),
            store.key,
            firmware.first_loader()
        );
        std::fs::write(&config, text).unwrap();
        let log = self.folder.join("serve.log");
        let image = store.image_name;
        Appliance { config, log, namespace: self.ours.clone(), image, server: None }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for other in &mut self.others {
            let _ = other.kill();
            let _ = other.wait();
        }
        for name in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A capture that runs.
#[derive(Debug)]
pub(crate) struct Capture {
    tcpdump: Child,
    log: PathBuf,
}

impl Capture {
    /// Ends it; one line for each packet.
    pub(crate) fn stop(mut self) -> Vec<String> {
        // SIGTERM, so that it writes what it has.
        run("kill", &[&self.tcpdump.id().to_string()]);
        self.tcpdump.wait().unwrap();
        let said = std::fs::read_to_string(&self.log).unwrap();
        // It ends its output with an empty line, whatever it saw.
        said.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }
}

/// The boot servers.
#[derive(Debug)]
pub(crate) struct Appliance {
    config: PathBuf,
    log: PathBuf,
    namespace: String,
    image: &'static str,
    server: Option<Child>,
}

impl Appliance {
    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args([RACKMEDIC, "boot", "serve", "--config"]);
        command.arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn start(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command();
        command.stderr(log);
        let before = std::fs::read_to_string(&self.log).unwrap_or_default().matches("ready:").count();
        let mut server = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            if said.matches("ready:").count() > before {
                return server;
            }
            assert!(server.try_wait().unwrap().is_none() && Instant::now() < until, "the boot servers: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn boot(&self, verb: &str, arguments: &[&str]) -> String {
        run(RACKMEDIC, &[&["boot", verb, "--config", &self.config.display().to_string()], arguments].concat())
    }

    pub(crate) fn arm(&self, job: &str, serial: &str, more: &[&str]) {
        let given = [job, "--mac", MAC, "--image", self.image, "--image-version", "1", "--disk-serial", serial];
        self.boot("arm", &[&given, more].concat());
    }

    /// Opens a job whose host's BMC has this address; the URL for its virtual drive.
    pub(crate) fn arm_for_media(&self, job: &str, serial: &str, reader: &str) -> String {
        let given = [job, "--mac", MAC, "--image", self.image, "--image-version", "1", "--disk-serial", serial];
        let said = self.boot("arm", &[&given[..], &["--media-reader", reader, "--output", "json"]].concat());
        let said: Value = serde_json::from_str(&said).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while Flight(self.show(job)).count("armed") == 0 {
            assert!(Instant::now() < until, "the boot servers do not know of the job");
            std::thread::sleep(Duration::from_millis(20));
        }
        said["media_url"].as_str().unwrap().to_owned()
    }

    /// Opens a job that must not open; what is said.
    pub(crate) fn arm_in_vain(&self, job: &str, serial: &str) -> String {
        let mut command = Command::new(RACKMEDIC);
        command.args(["boot", "arm", "--config"]).arg(&self.config);
        command.args([job, "--mac", MAC, "--image", self.image, "--image-version", "1", "--disk-serial", serial]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(self.boot("jobs", &["--output", "json"]).trim(), "[]");
        said
    }

    /// Waits until a job's timeline has this event.
    pub(crate) fn wait_for_event(&self, host: &Host, job: &str, event: &str, patience: Duration) {
        let until = Instant::now() + patience;
        while Flight(self.show(job)).count(event) == 0 {
            assert!(Instant::now() < until, "no {event}:\n{}\n{}", self.boot("show", &[job]), host.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts `boot run` for a job on the disk DISK1; what it says goes to this file. It needs no network but the BMC's.
    pub(crate) fn run(&self, job: &str, bmc: std::net::SocketAddr, more: &[&str], said: &std::path::Path) -> Child {
        let mut command = Command::new(RACKMEDIC);
        command.args(["boot", "run", "--config"]).arg(&self.config);
        command.args([job, "--mac", MAC, "--image", "small", "--image-version", "1", "--disk-serial", "DISK1"]);
        command.args([
            "--url",
            &format!("redfish://admin@{bmc}"),
            "--tls-accept-new",
            "--output",
            "json",
            "--data-dir",
        ]);
        command.arg(self.config.with_file_name("data")).args(more).env("RACKMEDIC_BMC_PASSWORD", "secret-of-a-bmc");
        let words = std::fs::File::create(said).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(words).spawn().unwrap()
    }

    /// The same beside the boot servers, for a BMC on their network.
    pub(crate) fn run_inside(&self, job: &str, url: &str, more: &[&str], said: &std::path::Path) -> Child {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args([RACKMEDIC, "boot", "run", "--config"]);
        command.arg(&self.config).args([job, "--mac", MAC, "--image", "small", "--image-version", "1"]);
        command.args(["--disk-serial", "DISK1", "--url", url, "--output", "json", "--data-dir"]);
        command.arg(self.config.with_file_name("data")).args(more).env("RACKMEDIC_BMC_PASSWORD", "secret-of-a-bmc");
        if url.starts_with("redfish://") {
            command.arg("--tls-accept-new");
        }
        let words = std::fs::File::create(said).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(words).spawn().unwrap()
    }

    pub(crate) fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// What is remembered of the methods.
    pub(crate) fn methods(&self) -> Value {
        let path = self.config.with_file_name("data").join("methods.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    pub(crate) fn disarm(&self, job: &str) {
        self.boot("disarm", &[job]);
    }

    /// As a power failure would.
    pub(crate) fn kill_and_start_again(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        self.server = Some(self.start());
    }

    pub(crate) fn show(&self, job: &str) -> Value {
        serde_json::from_str(&self.boot("show", &[job, "--output", "json"])).unwrap()
    }

    /// Whether a job is installed within this time, and its timeline.
    pub(crate) fn installed_within(&self, job: &str, patience: Duration) -> (bool, Flight) {
        let until = Instant::now() + patience;
        loop {
            let shown = self.show(job);
            let installed = shown["state"] == "installed";
            if installed || Instant::now() > until {
                return (installed, Flight(shown));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A job's timeline for a person.
    pub(crate) fn timeline(&self, job: &str) -> String {
        self.boot("show", &[job])
    }

    /// Waits until a job is in this state; fails with its timeline when that does not happen.
    pub(crate) fn wait_for(&self, host: &Host, job: &str, state: &str, patience: Duration) -> Flight {
        let until = Instant::now() + patience;
        loop {
            let shown = self.show(job);
            let now = shown["state"].as_str().unwrap_or_default().to_owned();
            if now == state {
                return Flight(shown);
            }
            let over = matches!(now.as_str(), "failed" | "closed" | "installed");
            assert!(
                !over && Instant::now() < until,
                "{job} is {now}, not {state}:\n{}\n{}",
                self.boot("show", &[job]),
                host.said()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A job's timeline.
#[derive(Debug)]
pub(crate) struct Flight(Value);

impl Flight {
    fn moments(&self) -> impl Iterator<Item = (f64, &Value)> {
        let seconds = |moment: &Value| {
            let elapsed = &moment["at"]["elapsed"];
            elapsed["secs"].as_f64().unwrap() + elapsed["nanos"].as_f64().unwrap() / 1e9
        };
        self.0["moments"].as_array().unwrap().iter().map(move |moment| (seconds(moment), moment))
    }

    /// When this event was first seen.
    pub(crate) fn seconds_of(&self, event: &str) -> Option<f64> {
        self.moments().find(|(_, moment)| moment["event"] == event).map(|(at, _)| at)
    }

    /// When this event was seen for the time after so many others.
    pub(crate) fn seconds_of_number(&self, event: &str, before: usize) -> Option<f64> {
        self.moments().filter(|(_, moment)| moment["event"] == event).nth(before).map(|(at, _)| at)
    }

    /// Seconds from the first DISCOVER to each stage of the install, by the flight recorder.
    pub(crate) fn stages(&self) -> Vec<(String, f64)> {
        let begun = self.seconds_of("discover").unwrap_or_default();
        let name = |moment: &Value| match moment["event"].as_str()? {
            "stage" => Some(moment["stage"].as_str()?.to_owned()),
            event @ ("discover" | "hello") => Some(event.to_owned()),
            _ => None,
        };
        let mut stages: Vec<(String, f64)> = Vec::new();
        for (at, moment) in self.moments() {
            if let Some(name) = name(moment).filter(|name| !stages.iter().any(|(known, _)| known == name)) {
                stages.push((name, at - begun));
            }
        }
        stages
    }

    /// How often this event was seen.
    pub(crate) fn count(&self, event: &str) -> usize {
        self.moments().filter(|(_, moment)| moment["event"] == event).count()
    }

    /// A field of the failure.
    pub(crate) fn failure(&self, field: &str) -> String {
        self.0["failure"][field].as_str().unwrap_or_default().to_owned()
    }

    /// What the write did.
    pub(crate) fn written(&self) -> Value {
        let (_, moment) = self.moments().find(|(_, moment)| moment["event"] == "written").unwrap();
        moment["count"].clone()
    }

    /// When the last event was seen.
    pub(crate) fn last_seconds(&self) -> f64 {
        self.moments().last().unwrap().0
    }
}
