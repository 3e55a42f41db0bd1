//! The root file system out of packages, by mmdebstrap, as an archive.

use super::tree::Programs;
use super::{BuildError, Recipe, io};
use crate::image::build::packages::PackageError;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release whose packages are taken: the names below are of this one.
const SUITE: &str = "bookworm";

/// What every node has. `grub-pc-bin` brings the loader of BIOS hosts, which is put together inside.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "conntrack",
    "dbus",
    "e2fsprogs",
    "ethtool",
    "fdisk",
    "grub-pc-bin",
    "iproute2",
    "iptables",
    "kmod",
    "libnss-myhostname",
    "procps",
    "socat",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
];

/// Makes the archive; `progress` is told packages unpacked and set up, of twice as many as there are.
pub(super) fn bootstrap(
    recipe: &Recipe,
    programs: &Programs,
    work: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<PathBuf, BuildError> {
    let tar = work.join("root.tar");
    let mut packages: Vec<&str> = PACKAGES.to_vec();
    packages.push(&recipe.kernel);
    packages.extend(recipe.packages.iter().map(String::as_str));
    if !programs.bring_runtime && !programs.bring_k3s {
        packages.extend(["containerd", "runc"]);
    }
    packages.sort_unstable();
    packages.dedup();
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--variant=minbase", "--verbose", "--format=tar"]);
    command.arg(format!("--include={}", packages.join(",")));
    for left_out in ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"] {
        command.arg(format!("--dpkgopt=path-exclude={left_out}"));
    }
    command.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
    // The core of GRUB for BIOS: everything it needs to read the menu from the root file system. The empty device in the
    // prefix is the one that it was started from.
    let grub = format!(
        "chroot \"$1\" grub-mkimage -O i386-pc -o /usr/lib/grub/rackmedic-core.img -p '(,gpt{})/boot/grub' \
         biosdisk part_gpt ext2 normal linux search search_fs_uuid echo test",
        super::ROOT_PARTITION
    );
    command.arg(format!("--customize-hook={grub}"));
    // Left by the tools at a time of their own, and of no use: they would make each build another.
    let clean = "rm -rf \"$1\"/var/log/* \"$1\"/var/cache/ldconfig/aux-cache \"$1\"/var/cache/debconf/*-old \
                 \"$1\"/var/lib/dpkg/*-old \"$1\"/etc/ssh/ssh_host_* \"$1\"/var/lib/systemd/catalog/database \"$1\"/var/lib/apt/lists/*";
    command.arg(format!("--customize-hook={clean}"));
    command.arg(SUITE).arg(&tar);
    command.env("SOURCE_DATE_EPOCH", recipe.epoch_s.to_string()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.current_dir(work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed = |source| PackageError::Program { program: "mmdebstrap".to_owned(), source };
    let mut child = command.spawn().map_err(failed)?;
    let mut counted = Counted::default();
    if let Some(said) = child.stderr.take() {
        for line in BufReader::new(said).split(b'\n') {
            let line = line.map_err(io(&tar))?;
            counted.read(&String::from_utf8_lossy(&line));
            progress(counted.done, counted.of);
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(tar) } else { Err(counted.failure().into()) }
}

/// What mmdebstrap said so far.
#[derive(Debug, Default)]
struct Counted {
    done: u64,
    of: u64,
    last: Vec<String>,
}

impl Counted {
    fn read(&mut self, line: &str) {
        if line.starts_with("Unpacking ") || line.starts_with("Setting up ") {
            self.done += 1;
        }
        // Each of apt's runs says how many it adds: "0 upgraded, 61 newly installed, 0 to remove and 0 not upgraded."
        if let Some((_, rest)) = line.split_once(" upgraded, ")
            && let Some(count) = rest.split(' ').next().and_then(|count| count.parse::<u64>().ok())
        {
            self.of += 2 * count;
        }
        if self.last.len() >= 8 {
            self.last.remove(0);
        }
        self.last.push(line.to_owned());
    }

    fn failure(&self) -> PackageError {
        let telling: Vec<&str> = self
            .last
            .iter()
            .map(String::as_str)
            .filter(|line| line.starts_with("E:") || line.contains("rror"))
            .collect();
        let said = if telling.is_empty() { self.last.join("; ") } else { telling.join("; ") };
        PackageError::Failed { program: "mmdebstrap".to_owned(), said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_and_the_reason_of_a_failure_is_found() {
        let mut counted = Counted::default();
        for line in [
            "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
            "Unpacking kmod (30) ...",
            "Setting up kmod (30) ...",
            "E: Unable to locate package kubelett",
            "I: cleaning up",
        ] {
            counted.read(line);
        }
        assert_eq!((counted.done, counted.of), (2, 4));
        assert!(counted.failure().to_string().contains("Unable to locate package kubelett"));
    }
}
