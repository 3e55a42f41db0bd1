//! What the machine is, from sysfs.

use crate::disks;
use protocol::install::{Inventory, Nic};
use protocol::manifest::{Arch, Firmware};
use std::fs;
use std::path::Path;

/// A short text file of sysfs; `None` when it is not there or says nothing.
#[must_use]
pub fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.chars().filter(|c| !c.is_control()).take(200).collect())
}

/// The cards, by the kernel's name.
#[must_use]
pub fn nics(sys: &Path) -> Vec<Nic> {
    let Ok(entries) = fs::read_dir(sys.join("class/net")) else { return Vec::new() };
    let mut nics: Vec<Nic> = entries
        .flatten()
        .filter_map(|entry| {
            let kernel_name = entry.file_name().into_string().ok()?;
            let mac = text(&entry.path().join("address"))?.to_ascii_lowercase();
            // ARPHRD_ETHER; the loopback has another type.
            let ethernet = text(&entry.path().join("type")).as_deref() == Some("1");
            let link = text(&entry.path().join("carrier")).as_deref() == Some("1");
            ethernet.then_some(Nic { kernel_name, mac, link })
        })
        .collect();
    nics.sort_by(|a, b| a.kernel_name.cmp(&b.kernel_name));
    nics
}

/// Everything.
#[must_use]
pub fn inventory(sys: &Path, dev: &Path) -> Inventory {
    let dmi = |name: &str| text(&sys.join("class/dmi/id").join(name));
    let efi = sys.join("firmware/efi");
    let product = match (dmi("sys_vendor"), dmi("product_name")) {
        (Some(vendor), Some(product)) => Some(format!("{vendor} {product}")),
        (one, other) => one.or(other),
    };
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Inventory {
        arch: if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 },
        firmware: if efi.is_dir() { Firmware::Uefi } else { Firmware::Bios },
        // Four bytes of attributes, then 1 or 0 (UEFI 2.10 section 3.3).
        secure_boot: fs::read(efi.join("efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
            .ok()
            .and_then(|bytes| bytes.get(4).map(|on| *on == 1)),
        system_uuid: dmi("product_uuid"),
        system_serial: dmi("product_serial"),
        product,
        memory_bytes: memory.unwrap_or(0).saturating_mul(1024),
        processors: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        nics: nics(sys),
        disks: disks::all(sys, dev),
    }
}
