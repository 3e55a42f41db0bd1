//! BMCs that nobody here wrote, started for a test on loopback. `tests/peers/install` gets them; `RACKMEDIC_PEERS` names
//! their folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A peer: its processes end with it.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What `rackmedic bmc` is told to reach it.
    pub(crate) place: Vec<String>,
    /// It asks for one; static mockups let everybody in.
    pub(crate) knows_passwords: bool,
    children: Vec<Child>,
    folder: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn installed() -> Option<PathBuf> {
    std::env::var_os("RACKMEDIC_PEERS").map(PathBuf::from)
}

/// Whether there is no network but loopback: some peers listen on all addresses and are started nowhere else.
pub(crate) fn alone() -> bool {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    devices.lines().filter_map(|l| l.split_once(':')).all(|(name, _)| name.trim() == "lo")
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rackmedic-peer-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn start(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str], folder: &Path, env: &[(&str, &str)]) -> Child {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the peer starts")
}

fn place(url: String, more: &[String]) -> Vec<String> {
    [vec!["--url".to_owned(), url], more.to_vec()].concat()
}

/// A certificate made by the system's `openssl`, not by the library that is tested against it.
fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "tls.crt"])
        .args(["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
}

/// Its fingerprint, as a person reads it off.
fn pin(folder: &Path) -> Vec<String> {
    let shown = Command::new("openssl")
        .args(["x509", "-in", "tls.crt", "-noout", "-fingerprint", "-sha256"])
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let (_, digits) = text.trim().split_once('=').unwrap();
    vec!["--tls-pin".to_owned(), format!("sha256:{digits}")]
}

/// Waits until something takes TCP connections there.
fn listens(port: u16) {
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(40), "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// OpenIPMI's simulator; its chassis is a file behind a hook of ours.
pub(crate) fn ipmi_sim(port: u16) -> Peer {
    let folder = folder("ipmi-sim");
    let lan = format!(
        "name \"heal1\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n    \
         allowed_auths_user none md2 md5 straight\n    allowed_auths_operator none md2 md5 straight\n    \
         allowed_auths_admin none md2 md5 straight\n    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
         chassis_control \"./chassis.sh 0x20\"\n  user 2 true \"admin\" \"secret\" admin 10 none md2 md5 straight\n"
    );
    let emulator = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                    sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
    let hook = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase \"$2 $3\" in\n\"get power\") echo \"power:$(cat power)\" ;;\n\
                \"set power\") echo \"$4\" >power ;;\nesac\n";
    std::fs::write(folder.join("lan.conf"), lan).unwrap();
    std::fs::write(folder.join("bmc.emu"), emulator).unwrap();
    std::fs::write(folder.join("chassis.sh"), hook).unwrap();
    std::fs::write(folder.join("power"), "1\n").unwrap();
    std::fs::create_dir(folder.join("state")).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(folder.join("chassis.sh")).status().unwrap().success());
    let child = start("ipmi_sim", &["-c", "lan.conf", "-f", "bmc.emu", "-s", "./state", "-n"], &folder, &[]);
    let place = place(format!("ipmi://admin@127.0.0.1:{port}"), &[]);
    Peer { name: "ipmi_sim (OpenIPMI 2.0.33), suite 3", place, knows_passwords: true, children: vec![child], folder }
}

/// go-ipmi's server.
pub(crate) fn goipmi(peers: &Path, port: u16) -> Peer {
    let folder = folder("goipmi");
    let child = start(
        peers.join("goipmi-server-v0.9.0"),
        &[],
        &folder,
        &[
            ("GOIPMI_SERVER_PORT", &port.to_string()),
            ("GOIPMI_SERVER_USER", "admin"),
            ("GOIPMI_SERVER_PASS", "secret"),
            ("GOIPMI_SERVER_CIPHER_SUITES", "3,17"),
            ("GOIPMI_SERVER_CONSOLE", "pty"),
        ],
    );
    let place = place(format!("ipmi://admin@127.0.0.1:{port}"), &[]);
    Peer { name: "goipmi-server 0.9.0, suite 17", place, knows_passwords: true, children: vec![child], folder }
}

/// A BMC of pyghmi's library.
pub(crate) fn pyghmi(peers: &Path, port: u16) -> Peer {
    let folder = folder("pyghmi");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bmc_peers/pyghmi_bmc.py");
    let python = peers.join("python-1/bin/python");
    let child = start(python, &[&script.to_string_lossy(), &port.to_string()], &folder, &[]);
    let place = place(format!("ipmi://admin@127.0.0.1:{port}"), &[]);
    Peer { name: "pyghmi 1.6.19, suite 3", place, knows_passwords: true, children: vec![child], folder }
}

/// `virtualbmc` on libvirt's test driver: it opens a new connection for each command, so an off is accepted and the
/// machine stays on. A liar.
pub(crate) fn virtualbmc(peers: &Path, port: u16) -> Peer {
    let folder = folder("virtualbmc");
    let server_port = port + 1;
    let configuration = folder.join("vbmc.conf");
    let text = format!(
        "[default]\nconfig_dir = {0}/domains\npid_file = {0}/pid\nserver_port = {server_port}\n[log]\nlogfile = {0}/log\n",
        folder.display()
    );
    std::fs::write(&configuration, text).unwrap();
    std::fs::create_dir(folder.join("domains")).unwrap();
    let env = [("VIRTUALBMC_CONFIG", configuration.to_str().unwrap())];
    let bin = peers.join("python-1/bin");
    let child = start(bin.join("vbmcd"), &["--foreground"], &folder, &env);
    let place = place(format!("ipmi://admin@127.0.0.1:{port}"), &[]);
    let peer = Peer {
        name: "virtualbmc 3.3.0 on test:///default (a liar)",
        place,
        knows_passwords: true,
        children: vec![child],
        folder,
    };
    listens(server_port);
    let port = port.to_string();
    let add = ["add", "test", "--port", &port, "--address", "127.0.0.1", "--username", "admin", "--password", "secret"];
    for arguments in [[&add[..], &["--libvirt-uri", "test:///default"]].concat(), vec!["start", "test"]] {
        let done = start(bin.join("vbmc"), &arguments, &peer.folder, &env).wait().unwrap();
        assert!(done.success(), "vbmc {arguments:?}");
    }
    peer
}

/// `sushy-emulator`; with `libvirt` its machine is the one of libvirt's test driver, else its own fake one, whose power
/// takes one to eleven seconds.
pub(crate) fn sushy(peers: &Path, port: u16, libvirt: bool) -> Peer {
    let folder = folder(if libvirt { "sushy-libvirt" } else { "sushy-fake" });
    certificate(&folder);
    let python = peers.join("python-1/bin/python");
    let hash = "import bcrypt; print('admin:' + bcrypt.hashpw(b'secret', bcrypt.gensalt(4, prefix=b'2b')).decode())";
    let made = Command::new(python).args(["-c", hash]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::write(folder.join("htpasswd"), made.stdout).unwrap();
    let driver = if libvirt {
        "SUSHY_EMULATOR_LIBVIRT_URI = 'test:///default'\n".to_owned()
    } else {
        "SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{\
         'uuid': '22222222-2222-2222-2222-222222222222', 'name': 'node-2', 'power_state': 'On', 'external_notifier': False, \
         'nics': [{'mac': '52:54:00:00:00:02', 'ip': '192.0.2.12'}]}]\n"
            .to_owned()
    };
    let configuration = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
         SUSHY_EMULATOR_AUTH_FILE = 'htpasswd'\nSUSHY_EMULATOR_SSL_CERT = 'tls.crt'\n\
         SUSHY_EMULATOR_SSL_KEY = 'tls.key'\n{driver}"
    );
    std::fs::write(folder.join("conf.py"), configuration).unwrap();
    let child = start(peers.join("python-1/bin/sushy-emulator"), &["--config", "conf.py"], &folder, &[]);
    let place = place(format!("redfish://admin@127.0.0.1:{port}"), &pin(&folder));
    let name = if libvirt { "sushy-emulator 2.2.0, libvirt" } else { "sushy-emulator 2.2.0, fake driver" };
    let peer = Peer { name, place, knows_passwords: true, children: vec![child], folder };
    listens(port);
    peer
}

/// `sushy-static` over a small tree: every action is answered with 204 and nothing happens. A liar, as all static
/// mockups are.
pub(crate) fn sushy_static(peers: &Path, port: u16) -> Peer {
    let folder = folder("sushy-static");
    certificate(&folder);
    let tree = [
        ("", r#"{"Systems":{"@odata.id":"/redfish/v1/Systems"}}"#),
        ("Systems", r#"{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}"#),
        (
            "Systems/1",
            r##"{"Id":"1","UUID":"11111111-2222-3333-4444-555555555555","PowerState":"On","Manufacturer":"Static",
                "Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"None"},
                "Actions":{"#ComputerSystem.Reset":{"target":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"}}}"##,
        ),
    ];
    for (place, text) in tree {
        let at = folder.join("tree").join(place);
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join("index.json"), text).unwrap();
    }
    let arguments = [
        "--interface",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--mockup-files",
        "tree",
        "--ssl-certificate",
        "tls.crt",
        "--ssl-key",
        "tls.key",
    ];
    let child = start(peers.join("python-1/bin/sushy-static"), &arguments, &folder, &[]);
    let place = place(format!("redfish://admin@127.0.0.1:{port}"), &pin(&folder));
    let peer =
        Peer { name: "sushy-static 2.2.0 (a liar)", place, knows_passwords: false, children: vec![child], folder };
    listens(port);
    peer
}
