//! An emulated rack in a process of its own, and a server on it in another: what a site would have on both sides.

use serde_json::Value;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackmedic"));
    command.env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("RACKMEDIC_DATA_DIR").stdin(Stdio::null());
    command
}

/// A folder with a short name: sockets have short names.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("rackmedic-serve-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The rack: it ends with its standard input, so that a test that dies leaves none behind.
pub(crate) struct Rack {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) folder: Folder,
    pub(crate) described: Value,
}

impl Rack {
    pub(crate) fn start(name: &str) -> Rack {
        let folder = Folder::new(name);
        let mut child = binary()
            .args(["demo", "--rack-only"])
            .arg(&folder.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut rack = Rack { child, input, output, folder, described: Value::Null };
        rack.line();
        rack.described = serde_json::from_slice(&std::fs::read(rack.folder.0.join("rack.json")).unwrap()).unwrap();
        rack.folder.write("rackmedic.toml", &rack.configuration());
        rack.folder.write("rack.yaml", &rack.declaration());
        rack
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"))
    }

    pub(crate) fn ask(&mut self, words: &str) -> Value {
        writeln!(self.input, "{words}").unwrap();
        self.line()
    }

    /// What really is so of every host, and what each BMC was told.
    pub(crate) fn truth(&mut self) -> Vec<Value> {
        self.ask("truth").as_array().unwrap().clone()
    }

    /// (offs, ons) that the BMC of a host received.
    pub(crate) fn powered(&mut self, host: &str) -> (u64, u64) {
        let all = self.truth();
        let one = all.iter().find(|one| one["host"] == host).unwrap();
        (one["offs"].as_u64().unwrap(), one["ons"].as_u64().unwrap())
    }

    fn text(&self, key: &str) -> &str {
        self.described[key].as_str().unwrap()
    }

    fn configuration(&self) -> String {
        let (wire, kubeconfig, vip) = (self.text("wire"), self.text("kubeconfig"), self.text("vip"));
        let mut text = format!(
            "data_dir = 'data'\nlog = 'json'\n[api]\nlisten = '127.0.0.1:0'\n[[watch]]\nwire = '{wire}'\nnetwork = '10.64.0.0/16'\n\
             gateway = '10.64.0.1'\nreference = [{{ address = '10.64.0.2' }}, {{ address = '10.64.0.3' }}]\n\
             [[cluster]]\nid = 1\nname = 'demo'\nkubeconfig = '{kubeconfig}'\nvip = '{vip}'\n"
        );
        for plane in self.described["control_planes"].as_array().unwrap() {
            text += &format!("[[cluster.control_plane]]\nnode = {}\napi = {}\n", plane["node"], plane["api"]);
        }
        text
    }

    fn declaration(&self) -> String {
        let mut text = "pools:\n  - name: workers\n  - name: control-plane\n  - name: spares\nhosts:\n".to_owned();
        for host in self.described["hosts"].as_array().unwrap() {
            let said = |key: &str| host[key].as_str().unwrap().to_owned();
            let pool = match host["role"].as_str().unwrap() {
                "worker" => "workers",
                "spare" => "spares",
                other => other,
            };
            // A spare has no Node that could tell whose BMC it is: its record says it.
            let uuid = if pool == "spares" { format!("    uuid: '{}'\n", said("machine")) } else { String::new() };
            text += &format!(
                "  - name: {}\n    cluster: demo\n    pool: {pool}\n    role: {}\n    serial: RM{}\n    address: {}\n    \
                 macs: ['{}']\n    domains: {{ rack: r{} }}\n{uuid}    bmc:\n      url: {}\n      password_file: bmc-password\n",
                said("name"),
                said("role"),
                host["id"],
                said("address"),
                said("mac"),
                host["rack"],
                said("bmc"),
            );
            if said("bmc").starts_with("redfish") {
                text += &format!("      pin: sha256:{}\n", self.text("pin"));
            }
        }
        text
    }

    /// As a person does it, with `kubectl cordon`.
    pub(crate) fn cordon(&self, node: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let file = kube::config::Kubeconfig::read_from(self.text("kubeconfig")).unwrap();
            let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
            let nodes: kube::Api<k8s_openapi::api::core::v1::Node> =
                kube::Api::all(kube::Client::try_from(config).unwrap());
            let cordon = kube::api::Patch::Merge(serde_json::json!({"spec": {"unschedulable": true}}));
            nodes.patch(node, &Default::default(), &cordon).await.unwrap();
        });
    }

    /// Starts a server on it.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Life {
        Life::start(&self.folder.0, arguments, &[])
    }

    /// Asks the running server by the command line.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Output {
        let words: Vec<&str> = arguments.to_vec();
        binary()
            .args(words)
            .arg("--data-dir")
            .arg(self.folder.0.join("data"))
            .current_dir(&self.folder.0)
            .output()
            .unwrap()
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        let (out, err) = (text_of(&output.stdout), text_of(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {out}{err}");
        out
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let all = [arguments, &["--output", "json"]].concat();
        serde_json::from_str(&self.done(&all)).unwrap()
    }

    /// A server that has everything declared, armed, and sees every host well.
    pub(crate) fn well(&self, arguments: &[&str]) -> Life {
        let life = self.serve(arguments);
        self.done(&["apply", "-f", "rack.yaml"]);
        self.done(&["arm", "demo"]);
        self.wait_until_well(&life);
        life
    }

    pub(crate) fn wait_until_well(&self, life: &Life) {
        wait_until("every host is linked and Ready", Duration::from_secs(120), || {
            life.get("/api/v1/status").1["missing"] == ""
        });
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One life of the server; killed when it is dropped, too.
pub(crate) struct Life {
    child: Child,
    log: PathBuf,
    pub(crate) address: String,
}

impl Life {
    pub(crate) fn start(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Life {
        let log = (0..).map(|n| folder.join(format!("log-{n}"))).find(|path| !path.exists()).unwrap();
        let child = binary()
            .args(["lab", "serve", "--config"])
            .arg(folder.join("rackmedic.toml"))
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut life = Life { child, log, address: String::new() };
        wait_until("it serves", Duration::from_secs(60), || {
            assert!(life.child.try_wait().unwrap().is_none(), "it ended: {}", life.log());
            let serves = life.lines().into_iter().find(|line| line["message"] == "the appliance serves");
            life.address = serves.map(|line| line["address"].as_str().unwrap().to_owned()).unwrap_or_default();
            !life.address.is_empty()
        });
        life
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn terminate(mut self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        let end = Instant::now() + Duration::from_secs(15);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// SIGKILL: not one instruction of it runs after.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) =
            self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address));
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(crate) fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        assert!(!chunked, "not expected: {head}");
        (status, body.to_owned())
    }

    /// The last incident of a host.
    pub(crate) fn incident(&self, host: &str) -> Option<Value> {
        let (_, page) = self.get("/api/v1/incidents");
        page["items"].as_array().unwrap().iter().find(|incident| incident["host"] == host).cloned()
    }

    pub(crate) fn wait_for_end(&self, host: &str, limit: Duration) -> Value {
        let mut last = None;
        wait_until_or(limit, || {
            last = self.incident(host);
            last.as_ref().is_some_and(|incident| incident["end"] != "open")
        })
        .unwrap_or_else(|| panic!("{host} has no end: {last:?}\n{}", self.log()));
        last.unwrap()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until_or(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<()> {
    let end = Instant::now() + limit;
    while !holds() {
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Some(())
}

pub(crate) fn wait_until(what: &str, limit: Duration, holds: impl FnMut() -> bool) {
    wait_until_or(limit, holds).unwrap_or_else(|| panic!("not within {limit:?}: {what}"));
}
