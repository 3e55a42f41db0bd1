//! The real server in the appliance's own network, with exactly the rights that `rackmedic rbac` prints, and what it says.

use rack::layout::{APPLIANCE, BMC_PASSWORD, BMC_USER, CONTROL_PLANE, GATEWAY, HostPlace};
use rack::raised::Raised;
use rack::run::inside;
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const RACKMEDIC: &str = env!("CARGO_BIN_EXE_rackmedic");
pub(crate) const CLUSTER: &str = "rack";

/// The lab's waits, with room for several stories on one rack and for guests that boot under emulation on a busy machine.
/// Neither the evidence nor the proof is shortened: the policy would be refused.
const POLICY: &str = "start_observe_ms = 5_000
soak_ms = 5_000
component_soak_ms = 5_000
boot_budget_ms = 240_000
cycle_spacing_ms = 5_000
domain_wait_ms = 900_000
pair_wait_ms = 30_000
freeze_clear_ms = 10_000
freeze_stable_ms = 60_000
after_freeze_ms = 10_000
heals_day_max = 6
heals_week_max = 12
cycles_day_max = 9
rate_10min = 9
rate_hour = 30
";

/// Which waits the server has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Those of a lab, as written above.
    Lab,
    /// Those that a site has which configures nothing.
    Default,
}

/// Writes everything that a person would write before the first start, and gives the appliance its account in the cluster.
pub(crate) fn configure(raised: &Raised, waits: Waits) -> PathBuf {
    let folder = raised.rack.folder.join("appliance");
    std::fs::create_dir_all(&folder).unwrap();
    let rights = Command::new(RACKMEDIC).args(["rbac"]).output().unwrap();
    assert!(rights.status.success());
    raised.create("rights.yaml", &String::from_utf8(rights.stdout).unwrap()).unwrap();
    let token = wait_some("the cluster gives the appliance its token", Duration::from_secs(30), || {
        let secret = raised.get("secret rackmedic-token -n rackmedic").ok()?;
        let text = secret["data"]["token"].as_str()?.to_owned();
        Some(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap())
    });
    std::fs::write(folder.join("token"), token).unwrap();
    std::fs::copy(raised.control.authority(), folder.join("ca.crt")).unwrap();
    let policy = match waits {
        Waits::Lab => {
            std::fs::write(folder.join("policy.toml"), POLICY).unwrap();
            "policy = 'policy.toml'\n"
        }
        Waits::Default => "",
    };
    std::fs::write(folder.join("bmc-password"), BMC_PASSWORD).unwrap();
    let api = format!("https://{CONTROL_PLANE}:6443");
    let config = format!(
        "data_dir = 'data'\nlog = 'json'\n{policy}[api]\nlisten = '127.0.0.1:0'\n\
         [[watch]]\ninterface = 'eth0'\ngateway = '{GATEWAY}'\nreference = [{{ address = '{CONTROL_PLANE}' }}]\n\
         [[cluster]]\nid = 1\nname = '{CLUSTER}'\nca_file = 'ca.crt'\ntoken_file = 'token'\nvip = '{api}'\n\
         [[cluster.control_plane]]\nnode = 'control-plane'\napi = '{api}'\n"
    );
    std::fs::write(folder.join("rackmedic.toml"), config).unwrap();
    std::fs::write(folder.join("rack.yaml"), declaration(raised, &|host| host.bmc_address().to_string())).unwrap();
    assert_ne!(APPLIANCE, GATEWAY);
    folder
}

/// The rack as somebody would declare it. The first two hosts share a switch.
pub(crate) fn declaration(raised: &Raised, bmc: &dyn Fn(&HostPlace) -> String) -> String {
    let mut text = "pools:\n  - name: workers\nhosts:\n".to_owned();
    for host in &raised.hosts {
        let spare = host.number > raised.nodes;
        let switch = match host.number {
            _ if spare => "s3",
            1 | 2 => "s1",
            _ => "s2",
        };
        // A host that carries a Node tells by it which machine it is; of a spare it must be known before.
        let role = if spare { format!("    role: spare\n    uuid: {}\n", host.uuid()) } else { String::new() };
        text += &format!(
            "  - name: {}\n    cluster: {CLUSTER}\n    pool: workers\n{role}    serial: RM{}\n    address: {}\n    macs: ['{}']\n    \
             domains: {{ switch: {switch} }}\n    disk: {{ serial: {} }}\n    bmc:\n      url: ipmi://{BMC_USER}@{}\n      \
             password_file: bmc-password\n",
            host.name(),
            host.number,
            host.address(),
            host.mac(),
            host.disk_serial(),
            bmc(host),
        );
    }
    text
}

/// One life of the server; killed when it is dropped, too.
pub(crate) struct Appliance {
    child: Child,
    folder: PathBuf,
    log: PathBuf,
}

impl Appliance {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(raised: &Raised, folder: &Path) -> Appliance {
        let log = (0..).map(|n| folder.join(format!("log-{n}"))).find(|path| !path.exists()).unwrap();
        let child = inside(&raised.rack.appliance(), RACKMEDIC)
            .args(if folder.join("policy.toml").exists() {
                &["lab", "serve", "--config"][..]
            } else {
                &["serve", "--config"]
            })
            .arg(folder.join("rackmedic.toml"))
            .env_remove("RUST_LOG")
            .env_remove("RACKMEDIC_DATA_DIR")
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut life = Appliance { child, folder: folder.to_owned(), log };
        let end = Instant::now() + Duration::from_secs(60);
        while life.ask("/healthz").is_none() {
            assert!(life.child.try_wait().unwrap().is_none(), "it ended:\n{}", life.log());
            assert!(Instant::now() < end, "it does not serve:\n{}", life.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        life
    }

    /// SIGKILL: not one instruction of it runs after.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Runs a verb of the command line that must be done.
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let (done, said) = self.verb(words);
        assert!(done, "{words:?}: {said}");
        said
    }

    /// Runs a verb of the command line: whether it was done, and what it said.
    pub(crate) fn verb(&self, words: &[&str]) -> (bool, String) {
        let output = Command::new(RACKMEDIC)
            .args(words)
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .current_dir(&self.folder)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), format!("{out}{err}"))
    }

    fn ask(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.folder.join("data/control.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    }

    /// What its API says.
    pub(crate) fn get(&self, path: &str) -> Value {
        let body = self.ask(path).unwrap_or_else(|| panic!("{path} is not answered:\n{}", self.log()));
        serde_json::from_str(&body).unwrap_or_else(|why| panic!("{path}: {why}: {body}"))
    }

    /// A host as the API shows it in its list.
    pub(crate) fn host(&self, name: &str) -> Value {
        self.get(&format!("/api/v1/hosts/{name}"))["summary"].clone()
    }

    /// The number of the newest incident; 0 when there was none.
    pub(crate) fn newest(&self) -> u64 {
        let page = self.get("/api/v1/incidents");
        page["items"].as_array().and_then(|all| all.first()).and_then(|one| one["id"].as_u64()).unwrap_or(0)
    }

    /// The newest incident of a host, whole, of those that began after that one. On a busy machine a host is suspected of this and
    /// that for a moment: what was withdrawn stands back behind what was not.
    pub(crate) fn incident(&self, host: &str, after: u64) -> Option<Value> {
        let page = self.get("/api/v1/incidents");
        let all = page["items"].as_array()?.iter();
        let later = all.filter(|row| row["host"] == host && row["id"].as_u64().is_some_and(|id| id > after));
        let rows: Vec<&Value> = later.collect();
        let row = rows.iter().find(|row| row["end"] != "aborted").or(rows.first())?;
        Some(self.get(&format!("/api/v1/incidents/{}", row["id"])))
    }

    /// Waits until every host is linked, Ready and without an incident, and the server may act.
    pub(crate) fn wait_until_well(&self, raised: &Raised) {
        let mut asked: Option<Instant> = None;
        self.wait("every host is linked and Ready", raised, Duration::from_secs(420), || {
            // A client of the cluster costs more than all the rest here.
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(3)) {
                raised.approve_serving();
                asked = Some(Instant::now());
            }
            (self.get("/api/v1/status")["missing"] == "").then_some(())
        });
    }

    /// Waits for something; says all that is known when it does not come.
    pub(crate) fn wait<T>(&self, what: &str, raised: &Raised, limit: Duration, holds: impl FnMut() -> Option<T>) -> T {
        wait_or(limit, holds).unwrap_or_else(|| {
            let incidents = self.get("/api/v1/incidents");
            let newest = incidents["items"].as_array().and_then(|all| all.first()).map(|one| one["id"].clone());
            let newest = newest.map(|id| self.get(&format!("/api/v1/incidents/{id}"))).unwrap_or_default();
            panic!(
                "not within {} s: {what}\nstatus: {}\nhosts: {}\nincidents: {incidents:#}\nnewest: {newest:#}\n{}\n{}",
                limit.as_secs(),
                self.get("/api/v1/status"),
                self.get("/api/v1/hosts"),
                raised.state(),
                self.log()
            )
        })
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_or<T>(limit: Duration, mut holds: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = holds() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn wait_some<T>(what: &str, limit: Duration, holds: impl FnMut() -> Option<T>) -> T {
    wait_or(limit, holds).unwrap_or_else(|| panic!("not within {} s: {what}", limit.as_secs()))
}
