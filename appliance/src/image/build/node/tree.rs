//! What is laid into the root file system besides packages.

use super::{BuildError, Identity, Recipe, io};
use crate::image::build::packages;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The programs that were given.
#[derive(Debug)]
pub(super) struct Programs {
    /// Name and file.
    files: Vec<(String, PathBuf)>,
    /// Plugins of the container network.
    plugins: Option<PathBuf>,
    /// They bring a container runtime, so Debian's is left out.
    pub(super) bring_runtime: bool,
    /// They bring k3s, which has its own runtime.
    pub(super) bring_k3s: bool,
    /// What the kubelet (or k3s) says of its version.
    pub(super) kubelet_version: Option<String>,
}

/// The programs that are looked for in the given folder.
const KNOWN: [&str; 9] =
    ["containerd", "containerd-shim-runc-v2", "crictl", "ctr", "k3s", "kubeadm", "kubectl", "kubelet", "runc"];

impl Programs {
    pub(super) fn find(recipe: &Recipe) -> Result<Self, BuildError> {
        let mut found =
            Self { files: Vec::new(), plugins: None, bring_runtime: false, bring_k3s: false, kubelet_version: None };
        let Some(folder) = &recipe.programs else { return Ok(found) };
        let folder = fs::canonicalize(folder).map_err(io(folder))?;
        for name in KNOWN {
            let path = folder.join(name);
            if path.is_file() {
                found.files.push((name.to_owned(), path));
            }
        }
        let has = |name: &str| found.files.iter().any(|(file, _)| file == name);
        found.bring_runtime = has("containerd");
        found.bring_k3s = has("k3s");
        if !has("kubelet") && !found.bring_k3s {
            let why = format!("{} holds neither kubelet nor k3s: what is this node to run?", folder.display());
            return Err(BuildError::Content(why));
        }
        if has("kubelet") && !has("kubeadm") {
            let why = format!("{} holds a kubelet but no kubeadm, by which a host joins", folder.display());
            return Err(BuildError::Content(why));
        }
        let plugins = folder.join("cni");
        found.plugins = plugins.is_dir().then_some(plugins);
        let asked = if has("kubelet") { "kubelet" } else { "k3s" };
        let path = folder.join(asked).display().to_string();
        let told = packages::run(&path, &["--version"], &folder)?;
        found.kubelet_version = told.split_whitespace().find(|word| word.starts_with('v')).map(str::to_owned);
        Ok(found)
    }
}

/// Our own files, as they lie in `images/node`.
macro_rules! ours {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../images/node/", $name))
    };
}

/// Fills the tree; the release of its kernel.
pub(super) fn fill(
    recipe: &Recipe,
    programs: &Programs,
    root: &Path,
    identity: &Identity,
) -> Result<String, BuildError> {
    let tree = Tree { root };
    let kernel = kernel(root)?;
    for (name, file) in &programs.files {
        tree.copy(file, &format!("usr/bin/{name}"), 0o755)?;
    }
    if let Some(plugins) = &programs.plugins {
        for name in sorted(plugins)? {
            tree.copy(&plugins.join(&name), &format!("opt/cni/bin/{name}"), 0o755)?;
        }
    }
    for file in &recipe.container_images {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        tree.copy(file, &format!("usr/share/rackmedic/container-images/{name}"), 0o644)?;
    }
    units(recipe, programs, &tree)?;
    let uuid = identity.uuid("root");
    let arguments = format!("console=tty0 console=ttyS0,115200n8 {}", recipe.kernel_arguments);
    let menu = ours!("grub.cfg").replace("@root@", &uuid).replace("@arguments@", arguments.trim_end());
    tree.write("boot/grub/grub.cfg", 0o644, &menu)?;
    tree.write("etc/fstab", 0o644, &format!("UUID={uuid} / ext4 rw,noatime,errors=remount-ro 0 1\n"))?;
    // Empty: made anew by the first boot of each host (machine-id(5)).
    tree.write("etc/machine-id", 0o444, "")?;
    tree.write("etc/hostname", 0o644, "node\n")?;
    tree.link("etc/resolv.conf", "/run/systemd/resolve/resolv.conf")?;
    tree.write("etc/rackmedic/image", 0o644, &format!("{} {}\n", recipe.name, recipe.version))?;
    if let Some(overlay) = &recipe.overlay {
        let (from, to) = (format!("{}/.", overlay.display()), format!("{}/", root.display()));
        packages::run("cp", &["-a", "--no-preserve=ownership", &from, &to], root)?;
    }
    Ok(kernel)
}

fn units(recipe: &Recipe, programs: &Programs, tree: &Tree<'_>) -> Result<(), BuildError> {
    tree.write("usr/lib/rackmedic/first-boot", 0o755, ours!("first-boot"))?;
    tree.write("etc/sysctl.d/90-rackmedic.conf", 0o644, ours!("sysctl.conf"))?;
    tree.write("etc/modules-load.d/rackmedic.conf", 0o644, "overlay\nbr_netfilter\n")?;
    tree.write("etc/systemd/network/80-rackmedic-default.network", 0o644, ours!("default.network"))?;
    tree.unit("rackmedic-first-boot.service", ours!("rackmedic-first-boot.service"), "local-fs.target")?;
    if programs.bring_k3s {
        tree.unit("k3s-agent.service", ours!("k3s-agent.service"), "multi-user.target")?;
    } else {
        let mut runtime = ours!("containerd.toml").to_owned();
        if let Some(pause) = &recipe.pause_image {
            runtime = runtime.replacen(
                "version = 2\n",
                &format!("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = {pause:?}\n"),
                1,
            );
        }
        tree.write("etc/containerd/config.toml", 0o644, &runtime)?;
        tree.unit("container-images.service", ours!("container-images.service"), "multi-user.target")?;
        if programs.bring_runtime {
            tree.unit("containerd.service", ours!("containerd.service"), "multi-user.target")?;
        }
        if programs.files.iter().any(|(name, _)| name == "kubelet") {
            tree.unit("kubelet.service", ours!("kubelet.service"), "multi-user.target")?;
        }
    }
    for (unit, target) in [("systemd-networkd", "multi-user.target"), ("systemd-resolved", "multi-user.target")] {
        let wants = format!("etc/systemd/system/{target}.wants/{unit}.service");
        tree.link(&wants, &format!("/lib/systemd/system/{unit}.service"))?;
    }
    let online = "etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service";
    tree.link(online, "/lib/systemd/system/systemd-networkd-wait-online.service")?;
    // Nothing on a node asks questions at its console or changes packages behind the image's back.
    for unit in ["systemd-firstboot.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer"] {
        tree.link(&format!("etc/systemd/system/{unit}"), "/dev/null")?;
    }
    Ok(())
}

/// The release of the one kernel in the tree.
fn kernel(root: &Path) -> Result<String, BuildError> {
    let names = sorted(&root.join("boot"))?;
    let mut kernels = names.iter().filter_map(|name| name.strip_prefix("vmlinuz-"));
    match (kernels.next(), kernels.next()) {
        (Some(one), None) => Ok(one.to_owned()),
        (None, _) => Err(BuildError::Content("the packages brought no kernel: name one with --kernel".to_owned())),
        (Some(_), Some(_)) => Err(BuildError::Content("the packages brought two kernels: name one only".to_owned())),
    }
}

/// The names in a folder, in order.
fn sorted(folder: &Path) -> Result<Vec<String>, BuildError> {
    let entries = fs::read_dir(folder).map_err(io(folder))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    /// The place of a file; the folders above it are made. What links are there are of packages, all inside of the tree
    /// but for absolute ones, which are replaced and never followed.
    fn place(&self, path: &str) -> Result<PathBuf, BuildError> {
        let place = self.root.join(path);
        let folder = place.parent().unwrap_or(self.root);
        fs::create_dir_all(folder).map_err(io(folder))?;
        let _ = fs::remove_file(&place);
        Ok(place)
    }

    fn write(&self, path: &str, mode: u32, content: &str) -> Result<(), BuildError> {
        let place = self.place(path)?;
        fs::write(&place, content).map_err(io(&place))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).map_err(io(&place))
    }

    fn copy(&self, from: &Path, path: &str, mode: u32) -> Result<(), BuildError> {
        let place = self.place(path)?;
        fs::copy(from, &place).map_err(io(from))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).map_err(io(&place))
    }

    fn link(&self, path: &str, target: &str) -> Result<(), BuildError> {
        let place = self.place(path)?;
        symlink(target, &place).map_err(io(&place))
    }

    fn unit(&self, name: &str, content: &str, target: &str) -> Result<(), BuildError> {
        self.write(&format!("etc/systemd/system/{name}"), 0o644, content)?;
        self.link(&format!("etc/systemd/system/{target}.wants/{name}"), &format!("/etc/systemd/system/{name}"))
    }
}

/// No file of the tree is newer than the epoch.
pub(super) fn date(root: &Path, epoch_s: u64) -> Result<(), BuildError> {
    let newer = format!("@{epoch_s}");
    let place = root.display().to_string();
    let find = ["-depth", "-newermt", &newer, "-exec", "touch", "--no-dereference", "--date", &newer, "{}", "+"];
    packages::run("find", &[&[place.as_str()], &find[..]].concat(), root)?;
    Ok(())
}
