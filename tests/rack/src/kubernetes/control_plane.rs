//! etcd, API server, controller manager and scheduler, with the certificates and objects that `kubeadm init` makes.

use super::{Programs, Service, run, wait_for};
use anyhow::Context as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The control plane's address on the rack's network, 10.200.0.0/16.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// The bridge that is the rack's switch.
pub(crate) const BRIDGE: &str = "rk-switch";
const API_PORT: u16 = 6443;
const START: Duration = Duration::from_secs(90);

/// Where a control plane runs: nowhere else does anything listen.
#[derive(Debug, Clone)]
pub struct Place {
    /// The network namespace, such as `/run/netns/rack-control`; `None` = the one that this process is in.
    pub namespace: Option<PathBuf>,
    /// The address that nodes reach it at.
    pub address: Ipv4Addr,
    /// An empty folder for all its files.
    pub folder: PathBuf,
    /// A Node is missed as soon as Kubernetes misses one by default, and not as soon as a test likes it.
    pub usual_patience: bool,
}

impl Place {
    /// A program in this place.
    fn command(&self, programs: &Programs, program: &str) -> Command {
        match &self.namespace {
            None => programs.command(program),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", namespace.display()))
                    .arg(programs.path(program))
                    .env("PATH", programs.search_path());
                command
            }
        }
    }
}

impl Place {
    /// Whether a port of the place's loopback answers.
    fn is_open(&self, port: u16) -> bool {
        let ask = ["bash".to_owned(), "-c".to_owned(), format!("exec 3<>/dev/tcp/127.0.0.1/{port}")];
        let mut command = match &self.namespace {
            None => Command::new("env"),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display()));
                command
            }
        };
        run(command.args(ask)).is_ok()
    }
}

/// A file that a kubelet on a real disk needs to join.
#[derive(Debug, Clone)]
pub struct GuestFile {
    /// Its absolute path on the host.
    pub path: &'static str,
    /// Its content.
    pub content: String,
}

/// A running control plane. It ends when this is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    programs: Programs,
    place: Place,
    // Ended in this order: the servers before their store.
    _servers: Vec<Service>,
    api: Option<Service>,
    _etcd: Service,
}

impl ControlPlane {
    /// Starts it in the network that [`super::alone()`] made, with a switch of its own that [`super::Node`]s are put at, and
    /// waits until it is ready.
    ///
    /// # Errors
    /// A part does not start or is not ready in time; the end of its log is told.
    pub fn start(programs: &Programs) -> anyhow::Result<ControlPlane> {
        let folder = std::env::temp_dir().join(format!("rk-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        network()?;
        ControlPlane::start_at(programs, Place { namespace: None, address: ADDRESS, folder, usual_patience: false })
    }

    /// Starts it in a place whose network is there already, and waits until it is ready.
    ///
    /// # Errors
    /// A part does not start or is not ready in time; the end of its log is told.
    pub fn start_at(programs: &Programs, place: Place) -> anyhow::Result<ControlPlane> {
        let folder = &place.folder;
        std::fs::create_dir_all(folder)?;
        let config = folder.join("kubeadm.yaml");
        std::fs::write(&config, kubeadm_config(&place, &programs.kubernetes_version()?))?;
        let kubeadm = |phase: &[&str]| {
            run(place.command(programs, "kubeadm").args(["init", "phase"]).args(phase).arg("--config").arg(&config))
        };
        kubeadm(&["certs", "all"])?;
        let conf = folder.join("conf");
        kubeadm(&["kubeconfig", "all", "--kubeconfig-dir", &conf.to_string_lossy()])?;

        let logs = folder.join("logs");
        let admin = conf.join("super-admin.conf");
        let kubectl = |arguments: &[&str]| {
            run(place.command(programs, "kubectl").arg("--kubeconfig").arg(&admin).args(arguments)).is_ok()
        };
        let etcd = Service::start("etcd", etcd(programs, &place), &logs)?;
        let mut api = Service::start("kube-apiserver", api_server(programs, &place), &logs)?;
        api.wait_until(START, "/readyz answers", || kubectl(&["get", "--raw", "/readyz"]))?;
        let mut manager = Service::start("kube-controller-manager", controller_manager(programs, &place), &logs)?;
        let mut scheduler = Service::start("kube-scheduler", scheduler(programs, &place), &logs)?;
        kubeadm(&["upload-config", "all", "--kubeconfig", &admin.to_string_lossy()])?;
        kubeadm(&["bootstrap-token", "--skip-token-print", "--kubeconfig", &admin.to_string_lossy()])?;
        manager.wait_until(START, "it makes service accounts and signs the cluster's description", || {
            kubectl(&["get", "serviceaccount", "default"])
                && kubectl(&["get", "configmap", "cluster-info", "-n", "kube-public"])
        })?;
        scheduler.wait_until(START, "its port is open", || place.is_open(10_259))?;
        Ok(ControlPlane {
            programs: programs.clone(),
            place,
            _servers: vec![scheduler, manager],
            api: Some(api),
            _etcd: etcd,
        })
    }

    /// Kills the API server; everything else runs on.
    pub fn stop_api_server(&mut self) {
        self.api = None;
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or is not ready in time.
    pub fn start_api_server(&mut self) -> anyhow::Result<()> {
        let logs = self.place.folder.join("logs");
        let mut api = Service::start("kube-apiserver", api_server(&self.programs, &self.place), &logs)?;
        api.wait_until(START, "/readyz answers", || self.kubectl(&["get", "--raw", "/readyz"]).is_ok())?;
        self.api = Some(api);
        Ok(())
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// The programs that it runs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The kubeconfig of somebody who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.folder.join("conf/super-admin.conf")
    }

    /// The certificate of the cluster's authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.place.folder.join("pki/ca.crt")
    }

    /// `host:port` of the API server.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}:{API_PORT}", self.place.address)
    }

    /// Runs `kubectl` as somebody who may do everything.
    ///
    /// # Errors
    /// It fails; what it wrote is told.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut kubectl = self.place.command(&self.programs, "kubectl");
        run(kubectl.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments))
    }

    /// Runs `kubeadm` as somebody who may do everything.
    ///
    /// # Errors
    /// It fails; what it wrote is told.
    pub fn kubeadm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut kubeadm = self.place.command(&self.programs, "kubeadm");
        run(kubeadm.args(arguments).arg("--kubeconfig").arg(self.kubeconfig()))
    }

    /// What a kubelet of the kind that kubeadm runs finds on its disk before it joins, with a token of its own: the
    /// authority, the bootstrap credential, its configuration. It is to be started with `--bootstrap-kubeconfig`,
    /// `--kubeconfig=/etc/kubernetes/kubelet.conf`, `--config` and `--hostname-override`.
    ///
    /// # Errors
    /// The cluster does not give them.
    pub fn guest_files(&self) -> anyhow::Result<Vec<GuestFile>> {
        let authority = std::fs::read_to_string(self.authority())?;
        let token = self.kubeadm(&["token", "create", "--ttl", "1h"])?;
        let config = self.kubectl(&[
            "get",
            "configmap",
            "kubelet-config",
            "-n",
            "kube-system",
            "-o",
            "jsonpath={.data.kubelet}",
        ])?;
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bootstrap",
            "clusters": [{ "name": "rack", "cluster": {
                "server": format!("https://{}", self.endpoint()),
                "certificate-authority": "/etc/kubernetes/pki/ca.crt",
            }}],
            "contexts": [{ "name": "bootstrap", "context": { "cluster": "rack", "user": "bootstrap" } }],
            "users": [{ "name": "bootstrap", "user": { "token": token.trim() } }],
        });
        Ok(vec![
            GuestFile { path: "/etc/kubernetes/pki/ca.crt", content: authority },
            GuestFile { path: "/etc/kubernetes/bootstrap-kubelet.conf", content: kubeconfig.to_string() },
            GuestFile { path: "/var/lib/kubelet/config.yaml", content: config },
        ])
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::env::var_os("RACKMEDIC_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.place.folder);
        }
    }
}

fn network() -> anyhow::Result<()> {
    let address = format!("{ADDRESS}/16");
    for arguments in [
        &["link", "add", BRIDGE, "type", "bridge"][..],
        &["addr", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
    ] {
        run(Command::new("ip").args(arguments)).context("the rack's network")?;
    }
    // A route for whatever lies outside: nothing does, but servers that look for one refuse to start without it.
    let _ = wait_for(Duration::from_secs(5), "a default route", || {
        run(Command::new("ip").args(["route", "replace", "default", "dev", BRIDGE])).ok()
    })?;
    Ok(())
}

/// Kubelets renew their Lease every two seconds and are missed after ten, so that a test need not wait for a minute. In
/// namespaces they leave the machine's cgroups alone; all of them ask for their serving certificate as production does.
fn kubeadm_config(place: &Place, version: &str) -> String {
    let (folder, address) = (place.folder.display(), place.address);
    // Nodes in namespaces share this machine's cgroups; hosts elsewhere have their own, by systemd as usual.
    let cgroups = match place.namespace {
        None => "cgroupDriver: cgroupfs\ncgroupsPerQOS: false\nenforceNodeAllocatable: [none]",
        Some(_) => "cgroupDriver: systemd",
    };
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{ advertiseAddress: {address}, bindPort: {API_PORT} }}
nodeRegistration: {{ name: control-plane, criSocket: 'unix:///run/containerd/containerd.sock' }}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {version}
certificatesDir: {folder}/pki
controlPlaneEndpoint: '{address}:{API_PORT}'
encryptionAlgorithm: ECDSA-P256
networking: {{ serviceSubnet: 10.96.0.0/16, dnsDomain: cluster.local }}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{ x509: {{ clientCAFile: /etc/kubernetes/pki/ca.crt }} }}
{cgroups}
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
serverTLSBootstrap: true
rotateCertificates: true
resolvConf: /etc/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
nodeLeaseDurationSeconds: 8
nodeStatusUpdateFrequency: 2s
evictionHard: {{ memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1% }}
"
    )
}

fn etcd(programs: &Programs, place: &Place) -> Command {
    let mut command = place.command(programs, "etcd");
    command.arg("--data-dir").arg(place.folder.join("etcd")).args([
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ]);
    command
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// The flags of kubeadm's own manifest, but for etcd's TLS.
fn api_server(programs: &Programs, place: &Place) -> Command {
    let pki = place.folder.join("pki");
    let mut command = place.command(programs, "kube-apiserver");
    command
        .args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ])
        .arg(format!("--advertise-address={}", place.address))
        .arg(format!("--secure-port={API_PORT}"));
    for (name, file) in [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
        ("kubelet-client-key", "apiserver-kubelet-client.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
    ] {
        command.arg(flag(name, &pki.join(file)));
    }
    command
}

fn controller_manager(programs: &Programs, place: &Place) -> Command {
    let (pki, conf) = (place.folder.join("pki"), place.folder.join("conf/controller-manager.conf"));
    let mut command = place.command(programs, "kube-controller-manager");
    command.args([
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
    ]);
    if !place.usual_patience {
        command.args(["--node-monitor-period=1s", "--node-monitor-grace-period=10s"]);
    }
    for name in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(flag(name, &conf));
    }
    for (name, file) in [
        ("cluster-signing-cert-file", "ca.crt"),
        ("cluster-signing-key-file", "ca.key"),
        ("root-ca-file", "ca.crt"),
        ("client-ca-file", "ca.crt"),
        ("service-account-private-key-file", "sa.key"),
    ] {
        command.arg(flag(name, &pki.join(file)));
    }
    command
}

fn scheduler(programs: &Programs, place: &Place) -> Command {
    let conf = place.folder.join("conf/scheduler.conf");
    let mut command = place.command(programs, "kube-scheduler");
    command.args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
    for name in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(flag(name, &conf));
    }
    command
}
