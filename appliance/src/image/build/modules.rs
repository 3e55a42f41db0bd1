//! Which modules of the kernel the installer needs, in the order in which they are loaded.

use super::packages::{Package, PackageError, run};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Cards, disks and file systems of servers: those that a module of this kernel exists for are taken.
pub const WANTED: &[&str] = &[
    // Cards.
    "virtio_net",
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "tg3",
    "bnx2x",
    "bnxt_en",
    "be2net",
    "mlx4_en",
    "mlx5_core",
    "r8169",
    "atlantic",
    "qede",
    "sfc",
    "cxgb4",
    "ena",
    "vmxnet3",
    // Disks.
    "virtio_blk",
    "virtio_scsi",
    "virtio_pci",
    "virtio_rng",
    "ahci",
    "ata_piix",
    "nvme",
    "sd_mod",
    "megaraid_sas",
    "mpt3sas",
    "mpi3mr",
    "hpsa",
    "smartpqi",
    "aacraid",
    "arcmsr",
    "isci",
    "mvsas",
    "vmd",
    "vmw_pvscsi",
    // File systems, with what ext4 asks the cryptography for by name.
    "crc32c_generic",
    "ext4",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    // The variables of UEFI.
    "efivarfs",
];

/// The modules with what they need, each behind what it needs: file name and content.
///
/// # Errors
/// When the package is no kernel's, or `depmod` fails.
pub fn collect(kernel: &Package, wanted: &[String]) -> Result<Vec<(String, Vec<u8>)>, PackageError> {
    let lacks = |what: &str| PackageError::Lacks { package: kernel.name.clone(), what: what.to_owned() };
    let folder = kernel.folder.join("lib/modules");
    let release = std::fs::read_dir(&folder).ok().and_then(|mut all| all.next()?.ok());
    let release = release.ok_or_else(|| lacks("lib/modules"))?.file_name().to_string_lossy().into_owned();
    run("depmod", &["-b", &kernel.folder.to_string_lossy(), &release], Path::new("/"))?;
    let text = kernel.read(&format!("lib/modules/{release}/modules.dep"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let needs: HashMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let by_name: HashMap<String, &str> = needs.keys().map(|path| (module_name(path), *path)).collect();
    let (mut order, mut seen) = (Vec::new(), HashSet::new());
    for name in wanted {
        // What is built into the kernel, or not made for it, has no file.
        if let Some(path) = by_name.get(&name.replace('-', "_")) {
            visit(path, &needs, &mut seen, &mut order);
        }
    }
    let mut modules = Vec::new();
    for path in order {
        let full = format!("lib/modules/{release}/{path}");
        let content = match path.rsplit_once(".ko") {
            Some((_, "")) => kernel.read(&full)?,
            Some((_, ".xz")) => {
                // The installer has no decompressor for it, and needs none: the whole archive is compressed.
                let plain = kernel.folder.join(full.trim_end_matches(".xz"));
                if !plain.exists() {
                    run("xz", &["-dk", &kernel.folder.join(&full).to_string_lossy()], Path::new("/"))?;
                }
                std::fs::read(&plain).map_err(|source| PackageError::Io { path: plain, source })?
            }
            _ => return Err(lacks("modules that are plain or compressed with xz")),
        };
        modules.push((format!("{}.ko", module_name(path)), content));
    }
    Ok(modules)
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn visit<'a>(
    path: &'a str,
    needs: &HashMap<&'a str, Vec<&'a str>>,
    seen: &mut HashSet<&'a str>,
    order: &mut Vec<&'a str>,
) {
    if !seen.insert(path) {
        return;
    }
    // modules.dep names all that is needed, the farthest last.
    for need in needs.get(path).into_iter().flatten().rev() {
        visit(need, needs, seen, order);
    }
    order.push(path);
}
