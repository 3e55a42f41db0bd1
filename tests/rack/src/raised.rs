//! The whole rack, raised: a real control plane in a namespace, and hosts in QEMU that are Nodes of it by their own kubelets,
//! each behind a BMC of OpenIPMI. It ends when it is dropped.

use crate::kubernetes::{ControlPlane, Place, Programs};
use crate::layout::{CONTROL_PLANE, HostPlace, Rack};
use crate::provision::{self, DiskFile};
use crate::{bmc, network};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Which partition of the image is the root.
const ROOT_PARTITION: u32 = 3;
/// Until all hosts are Ready for the first time, under software emulation on a busy machine.
const JOIN: Duration = Duration::from_secs(420);

/// What a rack is raised from.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The programs of Kubernetes.
    pub programs: Programs,
    /// The folder that `tests/rack/image` prints.
    pub image: PathBuf,
    /// The rack's own program, which a BMC calls to switch its host.
    pub hook: PathBuf,
    /// The control plane misses a Node no sooner than Kubernetes does by default.
    pub usual_patience: bool,
}

/// A raised rack.
#[derive(Debug)]
pub struct Raised {
    /// Its network and folder.
    pub rack: Rack,
    /// Its control plane.
    pub control: ControlPlane,
    /// How many of its hosts are Nodes; those after them are spares.
    pub nodes: u8,
    /// Its hosts.
    pub hosts: Vec<HostPlace>,
    /// The program that its BMCs call.
    pub hook: PathBuf,
}

impl Raised {
    /// Raises it, and waits until all `nodes` are Ready. Hosts after them are spares: switched off, with an
    /// empty disk.
    ///
    /// # Errors
    /// A part does not start, or a host does not become a Node in time.
    pub fn raise(rack: Rack, ground: &Ground, nodes: u8, spares: u8) -> Result<Raised> {
        std::fs::create_dir_all(&rack.folder)?;
        network::make(&rack, nodes + spares)?;
        let place = Place {
            namespace: Some(PathBuf::from("/run/netns").join(rack.control())),
            address: CONTROL_PLANE,
            folder: rack.folder.join("control"),
            usual_patience: ground.usual_patience,
        };
        let control = ControlPlane::start_at(&ground.programs, place)?;
        let hosts: Vec<HostPlace> = (1..=nodes + spares).map(|number| rack.host(number)).collect();
        let raised = Raised { rack, control, nodes, hosts, hook: ground.hook.clone() };
        let image = ground.image.join("disk.raw");
        for host in &raised.hosts {
            if host.number > nodes {
                provision::empty_disk(host)?;
                bmc::start(&raised.rack, host, &raised.hook)?;
                continue;
            }
            let mut files = provision::identity(host);
            let join = raised.control.guest_files()?;
            files.extend(
                join.into_iter().map(|file| DiskFile { mode: 0o600, ..DiskFile::new(file.path, &file.content) }),
            );
            provision::disk(&image, host, ROOT_PARTITION, &files)?;
            bmc::start(&raised.rack, host, &raised.hook)?;
            host.power_on(false)?;
        }
        let begun = Instant::now();
        while raised.ready_nodes() < usize::from(nodes) {
            raised.approve_serving();
            if begun.elapsed() > JOIN {
                bail!("not within {} s: every host is a Ready Node\n{}", JOIN.as_secs(), raised.state());
            }
            // A client of the cluster takes processor time from hosts that boot.
            std::thread::sleep(Duration::from_secs(3));
        }
        Ok(raised)
    }

    /// A host by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn host(&self, name: &str) -> Result<&HostPlace> {
        self.hosts.iter().find(|host| host.name() == name).with_context(|| format!("the rack has no {name}"))
    }

    /// An object, or a list of them, as the API has it now.
    ///
    /// # Errors
    /// The API does not give it.
    pub fn get(&self, words: &str) -> Result<Value> {
        let words: Vec<&str> = ["get", "-o", "json"].into_iter().chain(words.split(' ')).collect();
        Ok(serde_json::from_str(&self.control.kubectl(&words)?)?)
    }

    /// Whether a Node is Ready.
    #[must_use]
    pub fn is_ready(&self, node: &str) -> bool {
        self.get(&format!("node {node}")).is_ok_and(|node| ready(&node))
    }

    fn ready_nodes(&self) -> usize {
        let Ok(nodes) = self.get("nodes") else { return 0 };
        nodes["items"].as_array().map_or(0, |all| all.iter().filter(|node| ready(node)).count())
    }

    /// The boot that a Node says it runs.
    ///
    /// # Errors
    /// The API does not give the Node.
    pub fn boot_id(&self, node: &str) -> Result<String> {
        Ok(self.get(&format!("node {node}"))?["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_owned())
    }

    /// Pods that run, with their nodes.
    ///
    /// # Errors
    /// The API does not give them.
    pub fn running(&self, selector: &str) -> Result<Vec<(String, String)>> {
        let pods = self.get(&format!("pods -l {selector}"))?;
        let runs = |pod: &&Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(all
            .iter()
            .filter(runs)
            .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"])))
            .collect())
    }

    /// Signs the serving certificates that kubelets ask for, as an administrator of such a cluster does.
    pub fn approve_serving(&self) {
        let Ok(requests) = self.get("csr") else { return };
        for request in requests["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let serving = request["spec"]["signerName"] == "kubernetes.io/kubelet-serving";
            if serving && request["status"].as_object().is_none_or(serde_json::Map::is_empty) {
                let name = request["metadata"]["name"].as_str().unwrap_or_default();
                let _ = self.control.kubectl(&["certificate", "approve", name]);
            }
        }
    }

    /// Creates what a manifest says.
    ///
    /// # Errors
    /// The API refuses it.
    pub fn create(&self, name: &str, manifest: &str) -> Result<()> {
        let file = self.rack.folder.join(name);
        std::fs::write(&file, manifest)?;
        self.control.kubectl(&["apply", "-f", &file.display().to_string()]).map(drop)
    }

    /// Nodes, pods and the ends of the consoles, for whoever has to find out why something did not happen.
    #[must_use]
    pub fn state(&self) -> String {
        let mut text = String::new();
        for words in [&["get", "nodes", "-o", "wide"][..], &["get", "pods", "-A", "-o", "wide"]] {
            text += &self.control.kubectl(words).unwrap_or_else(|error| error.to_string());
        }
        for host in &self.hosts {
            let (on, off) = host.switched();
            text += &format!(
                "--- {}: on {} (switched on {on}, off {off})\n{}",
                host.name(),
                host.is_on(),
                end(&host.console())
            );
        }
        text
    }
}

fn ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

fn end(path: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n") + "\n"
}

impl Drop for Raised {
    fn drop(&mut self) {
        for host in &self.hosts {
            bmc::stop(host);
            let _ = host.power_off();
        }
        network::remove(&self.rack);
        if std::env::var_os("RACKMEDIC_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.rack.folder);
        }
    }
}
