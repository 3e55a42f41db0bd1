//! The boot servers in the same process as everything else: what a person configures, and the store that they serve from.

use crate::appliance::CLUSTER;
use rack::layout::{APPLIANCE, CONTROL_PLANE, GATEWAY};
use rack::raised::Raised;
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The files by which a host joins: those of the preset, and the pods' network, which is this site's own matter.
const DRIVER: &str = r#"preset = "kubeadm"
[[file]]
path = "/etc/rackmedic/join/kubeadm.yaml"
mode = "0600"
quoting = "yaml"
template = "join/kubeadm.yaml"
[[file]]
path = "/etc/rackmedic/join/join.sh"
mode = "0700"
quoting = "yaml"
template = "join/kubeadm.sh"
[[file]]
path = "/etc/systemd/system/rackmedic-join.service"
mode = "0644"
quoting = "yaml"
template = "join/kubeadm.service"
[[file]]
path = "/etc/systemd/system/multi-user.target.d/rackmedic-join.conf"
mode = "0644"
quoting = "yaml"
template = "join/wanted.conf"
[[file]]
path = "/etc/cni/net.d/10-rack.conflist"
mode = "0644"
quoting = "yaml"
template = "pods.json"
"#;
const PODS: &str = r#"{"cniVersion":"1.0.0","name":"rack","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.79.0.0/24"}]]}}]}"#;

/// What the stories with boot servers need beside the others: a boot set in the store of the hosts' image.
pub(crate) struct Stock {
    image: PathBuf,
    boot_set: String,
}

impl Stock {
    pub(crate) fn named() -> Option<Stock> {
        let image = PathBuf::from(std::env::var_os("RACKMEDIC_RACK_IMAGE")?);
        let boot_set = std::fs::read_to_string(image.join("boot-set")).ok()?.trim().to_owned();
        Some(Stock { image, boot_set })
    }
}

/// Adds the boot servers to what is configured already: the pool's hosts may be installed, and join by themselves.
pub(crate) fn configure(raised: &Raised, folder: &Path, stock: &Stock) {
    let place = |name: &str| folder.join(name).display().to_string();
    let from = |name: &str| stock.image.join(name).display().to_string();
    rack::run::run("cp", &["-a", "--reflink=auto", &from("store"), &place("store")]).unwrap();
    let (store, boot_set) = (place("store"), &stock.boot_set);
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/join");
    rack::run::run("cp", &["-r", &templates.display().to_string(), &place("join")]).unwrap();
    std::fs::write(folder.join("driver.toml"), DRIVER).unwrap();
    std::fs::write(folder.join("pods.json"), PODS).unwrap();
    let token = std::fs::read_to_string(folder.join("token")).unwrap();
    // The appliance joins hosts with no other rights than those that `rackmedic rbac` prints.
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "rack",
        "clusters": [{ "name": "rack", "cluster": { "server": format!("https://{CONTROL_PLANE}:6443"), "certificate-authority": place("ca.crt") } }],
        "contexts": [{ "name": "rack", "context": { "cluster": "rack", "user": "rackmedic" } }],
        "users": [{ "name": "rackmedic", "user": { "token": token } }],
    });
    std::fs::write(folder.join("join.kubeconfig"), kubeconfig.to_string()).unwrap();
    let mut boot = format!(
        "data_dir = '{}'\nstore = '{store}'\nboot_set = '{boot_set}'\ntrusted_keys = ['{}']\nkernel_arguments = 'console=ttyS0 quiet'\n\
         [join]\ncluster = '{CLUSTER}'\nkubeconfig = 'join.kubeconfig'\ndriver = 'driver.toml'\n\
         options = {{ ignore_preflight_errors = ['all'] }}\n\
         [[link]]\ninterface = 'eth0'\naddress = '{APPLIANCE}'\nmode = 'server'\n\
         [[link.subnet]]\nnetwork = '10.77.0.0/24'\nrouter = '{GATEWAY}'\n",
        place("boot"),
        std::fs::read_to_string(stock.image.join("key.pub")).unwrap().trim(),
    );
    for host in &raised.hosts {
        write!(boot, "[[host]]\nname = '{}'\nmac = '{}'\naddress = '{}'\n", host.name(), host.mac(), host.address())
            .unwrap();
    }
    std::fs::write(folder.join("boot.toml"), boot).unwrap();
    let add = |name: &str, change: &dyn Fn(String) -> String| {
        let path = folder.join(name);
        std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
    };
    add("rackmedic.toml", &|text| text + "[boot]\nconfig = 'boot.toml'\n");
    add("rack.yaml", &|text| {
        let pool = "  - name: workers\n";
        // Where spares stand by, what does not start is not installed anew first.
        let reimage = if raised.hosts.len() > usize::from(raised.nodes) { "never" } else { "automatic" };
        text.replace(
            pool,
            &format!("{pool}    reimage: {reimage}\n    replace: automatic\n    image: {{name: rack, version: '1'}}\n"),
        )
    });
}
