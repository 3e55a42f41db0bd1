//! A node: a disk (a folder), a network card, and a boot that runs a real container runtime and kubelet from that disk.

use super::control_plane::{ADDRESS, BRIDGE};
use super::{ControlPlane, Programs, Service, run, wait_for};
use anyhow::Context as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The folders of the disk that a boot sees in the place of this machine's own.
const DISK_FOLDERS: [&str; 4] = ["etc", "var", "run", "opt"];
const BOOT: Duration = Duration::from_secs(30);

/// A host whose disk is a folder. Switched off when it is dropped.
#[derive(Debug)]
pub struct Node {
    name: String,
    address: Ipv4Addr,
    programs: Programs,
    folder: PathBuf,
    boots: u32,
    on: Option<Boot>,
}

/// One boot: everything in it dies with `first`, as at a power cut.
#[derive(Debug)]
struct Boot {
    first_pid: String,
    boot_id: String,
    services: Vec<Service>,
    first: Service,
}

impl Node {
    /// A host with an empty disk, switched off. Its address is 10.200.1.`number`.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn new(rack: &ControlPlane, name: &str, number: u8) -> anyhow::Result<Node> {
        let folder = rack.folder().join("nodes").join(name);
        std::fs::create_dir_all(&folder)?;
        let address = Ipv4Addr::new(10, 200, 1, number);
        Ok(Node { name: name.to_owned(), address, programs: rack.programs().clone(), folder, boots: 0, on: None })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The root of its disk: files of the first boot are written below, and what a boot left is read there.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// The number of the present boot, as its kernel says.
    #[must_use]
    pub fn boot_id(&self) -> Option<&str> {
        self.on.as_ref().map(|boot| boot.boot_id.as_str())
    }

    /// Rewrites the disk: what was there is gone, and a fresh image is there, with a machine id of its own.
    ///
    /// # Errors
    /// It is switched on, or its folder cannot be written.
    pub fn reimage(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.on.is_none(), "{} is on: its disk is in use", self.name);
        let disk = self.disk();
        if disk.exists() {
            std::fs::remove_dir_all(&disk).context("the old disk")?;
        }
        for folder in ["etc/cni/net.d", "etc/containerd", "etc/kubernetes", "var/lib", "var/log", "run", "opt"] {
            std::fs::create_dir_all(disk.join(folder))?;
        }
        std::os::unix::fs::symlink("/run", disk.join("var/run"))?;
        for (file, content) in [
            ("etc/hostname", format!("{}\n", self.name)),
            ("etc/hosts", format!("127.0.0.1 localhost\n{} {}\n", self.address, self.name)),
            ("etc/resolv.conf", format!("nameserver {ADDRESS}\n")),
            ("etc/nsswitch.conf", "hosts: files\npasswd: files\ngroup: files\n".to_owned()),
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n".to_owned()),
            ("etc/group", "root:x:0:\n".to_owned()),
            ("etc/machine-id", random_id()?.replace('-', "") + "\n"),
            ("etc/cni/net.d/10-rack.conflist", CONTAINER_NETWORK.to_owned()),
            ("etc/containerd/config.toml", runtime_config(&self.programs)),
        ] {
            std::fs::write(disk.join(file), content)?;
        }
        Ok(())
    }

    /// Boots from the disk: a new boot id, the container runtime, a kubelet that is started again until it is configured
    /// (as its service is by systemd).
    ///
    /// # Errors
    /// A part does not start.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.on.is_none(), "{} is on already", self.name);
        self.boots += 1;
        let boot_id = random_id()?.trim().to_owned();
        let boot_id_file = self.folder.join("boot_id");
        std::fs::write(&boot_id_file, format!("{boot_id}\n"))?;
        let logs = self.folder.join("logs");
        let ready = self.folder.join("ready");
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-ec"])
            .arg(boot_script(&self.disk(), &boot_id_file, &ready));
        let mut first = Service::start("first", command, &logs)?;
        first.wait_until(BOOT, "its mounts are made", || ready.exists())?;
        let unshare = first.pid();
        let children = PathBuf::from(format!("/proc/{unshare}/task/{unshare}/children"));
        let first_pid = wait_for(BOOT, "the first process", || {
            std::fs::read_to_string(&children).ok()?.split_whitespace().next().map(str::to_owned)
        })?;
        let mut boot = Boot { first_pid, boot_id, services: Vec::new(), first };
        self.connect(&boot.first_pid)?;
        let containerd =
            self.within(&boot, &["containerd", "--config", "/etc/containerd/config.toml", "--log-level", "warn"]);
        let mut containerd = Service::start("containerd", containerd, &logs)?;
        let socket = self.disk().join("run/containerd/containerd.sock");
        containerd.wait_until(BOOT, "its socket is there", || socket.exists())?;
        boot.services.push(containerd);
        let kubelet = self.within(&boot, &["sh", "-c", KUBELET_SERVICE]);
        boot.services.push(Service::start("kubelet", kubelet, &logs)?);
        self.on = Some(boot);
        Ok(())
    }

    /// Cuts its power: every process of the boot is killed at once.
    pub fn power_off(&mut self) {
        if let Some(mut boot) = self.on.take() {
            // The first process takes all others with it; the kernel waits for them.
            let _ = run(Command::new("kill").args(["-KILL", &boot.first_pid]));
            boot.services.clear();
            drop(boot.first);
        }
    }

    /// Runs a program of the host to its end, as its init would.
    ///
    /// # Errors
    /// It is off, or the program fails; what it wrote is told.
    pub fn run(&self, command: &[&str]) -> anyhow::Result<String> {
        let boot = self.on.as_ref().with_context(|| format!("{} is off", self.name))?;
        run(&mut self.within(boot, command))
    }

    /// The end of a log of its services.
    #[must_use]
    pub fn log_tail(&self, service: &str) -> String {
        let log = self.folder.join("logs").join(format!("{service}.log"));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn within(&self, boot: &Boot, command: &[&str]) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .args(["--target", &boot.first_pid, "--net", "--mount", "--pid", "--"])
            .args(command)
            .env_clear()
            .env("PATH", self.programs.search_path())
            .env("HOME", "/root");
        nsenter
    }

    /// Puts a cable between the host and the switch.
    fn connect(&self, pid: &str) -> anyhow::Result<()> {
        let port = format!("rk-{}-{}", self.address.octets()[3], self.boots);
        let mac = format!("52:54:00:c8:01:{:02x}", self.address.octets()[3]);
        run(Command::new("ip")
            .args(["link", "add", &port, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", pid]))?;
        run(Command::new("ip").args(["link", "set", &port, "master", BRIDGE, "up"]))?;
        let gateway = ADDRESS.to_string();
        let address = format!("{}/16", self.address);
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", &address, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", &gateway],
        ] {
            run(Command::new("nsenter").args(["--target", pid, "--net", "ip"]).args(arguments))?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// Two nodes on one kernel share its boot id; each of ours has one of its own, in the place where it is read.
fn boot_script(disk: &Path, boot_id: &Path, ready: &Path) -> String {
    let disk = disk.display();
    // What ran before the power went away is not there after it came back.
    let mut script = format!("rm -rf {disk}/run/*\n");
    for folder in DISK_FOLDERS {
        script += &format!("mount --bind {disk}/{folder} /{folder}\n");
    }
    script += &format!("mount --bind {} /proc/sys/kernel/random/boot_id\n", boot_id.display());
    script += &format!("touch {}\nexec sleep infinity\n", ready.display());
    script
}

/// kubeadm's drop-in for the kubelet's service, and systemd's `Restart=always`.
const KUBELET_SERVICE: &str = "while :; do
  if [ -e /var/lib/kubelet/config.yaml ]; then
    KUBELET_KUBEADM_ARGS=
    if [ -e /var/lib/kubelet/kubeadm-flags.env ]; then . /var/lib/kubelet/kubeadm-flags.env; fi
    kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
      --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS || true
  fi
  sleep 0.2
done";

const CONTAINER_NETWORK: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "rack",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.201.0.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] }
    }
  ]
}
"#;

fn runtime_config(programs: &Programs) -> String {
    let folder = programs.folder().display();
    // restrict_oom_score_adj: a container need not have the right to be killed less willingly than its parent.
    format!(
        "version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'localhost/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{folder}/cni']
conf_dir = '/etc/cni/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{folder}/runc'
SystemdCgroup = false
"
    )
}

fn random_id() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}
