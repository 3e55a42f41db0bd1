//! A host's disk: a copy of the image with the files that the installer would have written, put into its root file system
//! without mounting it.

use crate::layout::{APPLIANCE, GATEWAY, HostPlace};
use crate::run::run;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::path::Path;

/// A file of a host's root file system.
#[derive(Clone, Debug)]
pub struct DiskFile {
    /// Its absolute path.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub content: String,
}

impl DiskFile {
    /// A file that all may read.
    #[must_use]
    pub fn new(path: &str, content: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o644, content: content.to_owned() }
    }
}

/// The files that every host of the rack has: who it is, its address, its pods' network, and a root shell for faults that
/// are done from inside.
#[must_use]
pub fn identity(host: &HostPlace) -> Vec<DiskFile> {
    let (name, address) = (host.name(), host.address());
    let network = format!(
        "[Match]\nMACAddress={}\n[Network]\nAddress={address}/24\nGateway={GATEWAY}\nLinkLocalAddressing=no\n",
        host.mac()
    );
    let pods = format!(
        r#"{{"cniVersion":"1.0.0","name":"rack","plugins":[{{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.78.{}.0/24"}}]]}}}}]}}"#,
        host.number
    );
    vec![
        DiskFile::new("/etc/hostname", &format!("{name}\n")),
        DiskFile::new("/etc/systemd/network/10-rackmedic.network", &network),
        DiskFile::new("/etc/cni/net.d/10-rack.conflist", &pods),
        DiskFile::new(
            "/etc/default/kubelet",
            &format!("KUBELET_EXTRA_ARGS=\"--hostname-override={name} --node-ip={address}\"\n"),
        ),
        DiskFile::new("/etc/rack/appliance", &format!("{APPLIANCE}\n")),
    ]
}

/// How large every disk of the rack is, as truncate reads it.
const DISK_SIZE: &str = "3G";

/// A disk on which nothing was ever written, as a spare has it.
///
/// # Errors
/// It cannot be made.
pub fn empty_disk(host: &HostPlace) -> Result<()> {
    std::fs::create_dir_all(&host.folder)?;
    run("truncate", &["-s", DISK_SIZE, &host.disk().display().to_string()]).map(drop)
}

/// Makes the host's disk from the image (raw, with a GPT) and puts the files into its partition `root`.
///
/// # Errors
/// The image has no such partition, or a tool of e2fsprogs fails.
pub fn disk(image: &Path, host: &HostPlace, root: u32, files: &[DiskFile]) -> Result<()> {
    std::fs::create_dir_all(&host.folder)?;
    let disk = host.disk();
    let (from, to) = (image.display().to_string(), disk.display().to_string());
    run("cp", &["--sparse=always", "--reflink=auto", &from, &to])?;
    let table: serde_json::Value = serde_json::from_str(&run("sfdisk", &["--json", &to])?)?;
    let partition = &table["partitiontable"]["partitions"][usize::try_from(root)?.saturating_sub(1)];
    let start = partition["start"].as_u64().with_context(|| format!("{from} has no partition {root}"))?;
    // The disk has the size of a real one, so the root grows at the first boot as it does there.
    run("truncate", &["-s", DISK_SIZE, &to])?;
    let folder = host.folder.join("files");
    std::fs::create_dir_all(&folder)?;
    let mut script = String::new();
    for (number, file) in files.iter().enumerate() {
        let here = folder.join(number.to_string());
        std::fs::write(&here, &file.content)?;
        let mut parent = String::new();
        let parts: Vec<&str> = file.path.trim_start_matches('/').split('/').collect();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            parent = format!("{parent}/{part}");
            // A folder that is there already is an error of this line alone.
            writeln!(script, "mkdir {parent}")?;
        }
        writeln!(script, "rm {}", file.path)?;
        writeln!(script, "write {} {}", here.display(), file.path)?;
        writeln!(script, "set_inode_field {} mode 0{:o}", file.path, 0o100_000 | file.mode)?;
        writeln!(script, "set_inode_field {} uid 0\nset_inode_field {} gid 0", file.path, file.path)?;
    }
    let orders = host.folder.join("orders");
    std::fs::write(&orders, script)?;
    let place = format!("{to}?offset={}", start * 512);
    run("debugfs", &["-w", "-f", &orders.display().to_string(), &place])?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::remove_file(&orders)?;
    Ok(())
}
