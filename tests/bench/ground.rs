//! What the benchmarks of the boot servers share: two namespaces with a cable between them, peers that are started and
//! stopped, medians with their spread.
#![allow(dead_code, reason = "not each benchmark uses all of it")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first address in the server's namespace; more follow it.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// The address in the clients' namespace.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 1);

/// The namespaces and a folder on a disk; gone when dropped.
#[derive(Debug)]
pub(crate) struct Ground {
    /// For files.
    pub(crate) folder: PathBuf,
    server: String,
    client: String,
}

pub(crate) fn run(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
}

impl Ground {
    /// Needs root. `addresses` are those of the server's side, from [`SERVER`] on.
    pub(crate) fn new(mtu: u32, addresses: u8) -> Self {
        let id = std::process::id();
        let (server, client) = (format!("bn-{id}s"), format!("bn-{id}c"));
        let folder = std::env::temp_dir().join(format!("rackmedic-bench-{id}"));
        std::fs::create_dir_all(&folder).unwrap();
        for name in [&server, &client] {
            run(&format!("ip netns add {name}"));
            run(&format!("ip -n {name} link set lo up"));
        }
        run(&format!("ip -n {server} link add v0 mtu {mtu} type veth peer name v1 mtu {mtu} netns {client}"));
        for number in 0..addresses {
            run(&format!("ip -n {server} addr add {}/16 dev v0", address(number)));
        }
        run(&format!("ip -n {client} addr add {CLIENT}/16 dev v1"));
        run(&format!("ip -n {server} link set v0 up"));
        run(&format!("ip -n {client} link set v1 up"));
        Self { folder, server, client }
    }

    /// A program in the server's namespace.
    pub(crate) fn at_server(&self, program: impl AsRef<Path>) -> Command {
        inside(&self.server, program.as_ref())
    }

    /// A program in the clients' namespace.
    pub(crate) fn at_client(&self, program: impl AsRef<Path>) -> Command {
        inside(&self.client, program.as_ref())
    }

    /// This program again, in the server's namespace.
    pub(crate) fn ourselves_at_server(&self, arguments: &[&str]) -> Command {
        let mut command = self.at_server(std::env::current_exe().unwrap());
        command.args(arguments);
        command
    }

    /// This program again, in the clients' namespace.
    pub(crate) fn ourselves_at_client(&self, arguments: &[&str]) -> Command {
        let mut command = self.at_client(std::env::current_exe().unwrap());
        command.args(arguments);
        command
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

/// The server's address of this number.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    let [a, b, c, d] = SERVER.octets();
    Ipv4Addr::new(a, b, c, d + number)
}

/// A server that runs until this is dropped. nsenter has become it: its pid is the server's.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Self(child.unwrap())
    }

    /// What it has used of the processors so far, with its children that have ended, milliseconds (proc(5); ticks of 10).
    pub(crate) fn processor_ms(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields = text.rsplit_once(')').unwrap().1.split_ascii_whitespace();
        fields.skip(11).take(4).map(|ticks| ticks.parse::<f64>().unwrap() * 10.0).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(15);
    while !so() {
        assert!(Instant::now() < until, "{what}: not within 15 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Figures of interleaved runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(Vec<f64>);

impl Runs {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    pub(crate) fn median(&self) -> f64 {
        self.sorted()[self.0.len() / 2]
    }

    /// `median (least..most)`.
    pub(crate) fn shown(&self) -> String {
        let values = self.sorted();
        match (values.first(), values.last()) {
            (Some(least), Some(most)) => format!("{:.1} ({least:.1}..{most:.1})", self.median()),
            _ => "-".to_owned(),
        }
    }

    /// The median of the ratios of each run, which stand side by side in time: other load hits both.
    pub(crate) fn to(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// What else the machine does.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    let cores = std::thread::available_parallelism().unwrap();
    format!("load {} on {cores} cores", text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
