//! A boot set: the distribution's loaders, its kernel, and an initramfs with nothing in it but the installer, the modules
//! and the keys it trusts.

use super::cpio::Cpio;
use super::efi_image;
use super::modules;
use super::packages::{self, PackageError};
use super::sbat;
use crate::image::import::write_signed;
use crate::image::shelve::{ShelveError, Shelved};
use ed25519_dalek::SigningKey;
use protocol::PROTOCOL_VERSION;
use protocol::boot_set::{BootSet, BootSetFile, FORMAT, Role};
use protocol::digest::Sha256;
use protocol::manifest::Arch;
use protocol::name::{Name, NoName};
use protocol::signature::{PublicKey, Purpose};
use std::path::{Path, PathBuf};

/// What a boot set is made from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its version.
    pub version: Name,
    /// The kernel's package, or the meta package that leads to it.
    pub kernel: String,
    /// Modules beyond [`modules::WANTED`].
    pub modules: Vec<String>,
    /// The installer's program.
    pub installer: PathBuf,
    /// The keys that the installer trusts.
    pub trusted: Vec<PublicKey>,
    /// Where packages are fetched to and unpacked.
    pub work: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// Why there is no boot set.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A package.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The store.
    #[error(transparent)]
    Shelve(#[from] ShelveError),
    /// What was made could not be used.
    #[error("the boot set would be of no use: {0}; nothing was added")]
    Content(String),
    /// The program of the installer.
    #[error("the installer's program {path}: {source}")]
    Installer {
        /// Which file.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// A name of ours is none.
    #[error(transparent)]
    Name(#[from] NoName),
    /// The folder of the work.
    #[error("{path}: {source}")]
    Work {
        /// Which file.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
}

/// Makes it and puts it into the store.
///
/// # Errors
/// Why not. Then nothing is in the store.
pub fn build(
    recipe: &Recipe,
    key: &SigningKey,
    store: &Path,
    mut step: impl FnMut(&str),
) -> Result<BootSet, BuildError> {
    if recipe.trusted.is_empty() {
        return Err(BuildError::Content("the installer would trust nobody: name a key with --trusted-key".to_owned()));
    }
    let target = store.join("boot-sets").join(recipe.version.as_str());
    let place = Shelved::begin(&target)?;
    let mut files: Vec<(BootSetFile, Vec<u8>)> = Vec::new();
    let mut add = |role, name: &str, content: Vec<u8>, source: String| -> Result<(), BuildError> {
        let file = BootSetFile {
            role,
            arch: Arch::X86_64,
            name: name.parse()?,
            bytes: content.len() as u64,
            sha256: Sha256::of(&content),
            source,
            sbat: sbat::entries(&content),
        };
        files.push((file, content));
        Ok(())
    };
    step("iPXE");
    let ipxe = packages::fetch("ipxe", &recipe.work)?;
    add(Role::IpxeBios, "undionly.kpxe", ipxe.read("usr/lib/ipxe/undionly.kpxe")?, ipxe.source())?;
    add(Role::IpxeUefi, "snponly.efi", ipxe.read("usr/lib/ipxe/snponly.efi")?, ipxe.source())?;
    step("shim");
    let shim = packages::fetch("shim-signed", &recipe.work)?;
    add(Role::Shim, "shimx64.efi", shim.read("usr/lib/shim/shimx64.efi.signed")?, shim.source())?;
    step("GRUB");
    let grub = packages::fetch("grub-efi-amd64-signed", &recipe.work)?;
    add(Role::Grub, "grubx64.efi", grub.read("usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed")?, grub.source())?;
    step("the loaders for virtual drives");
    let isolinux = packages::fetch("isolinux", &recipe.work)?;
    add(Role::Isolinux, "isolinux.bin", isolinux.read("usr/lib/ISOLINUX/isolinux.bin")?, isolinux.source())?;
    let library = packages::fetch("syslinux-common", &recipe.work)?;
    add(
        Role::IsolinuxLibrary,
        "ldlinux.c32",
        library.read("usr/lib/syslinux/modules/bios/ldlinux.c32")?,
        library.source(),
    )?;
    let source = format!("{}, {}", shim.source(), grub.source());
    add(Role::EfiImage, "efi.img", efi_image::make(recipe, &shim, &grub)?, source)?;
    step("the kernel");
    let kernel = packages::fetch(&packages::behind(&recipe.kernel, &recipe.work)?, &recipe.work)?;
    let release = kernel.name.trim_start_matches("linux-image-").to_owned();
    add(Role::Kernel, "vmlinuz", kernel.read(&format!("boot/vmlinuz-{release}"))?, kernel.source())?;
    step("its modules");
    let wanted: Vec<String> =
        modules::WANTED.iter().map(|name| (*name).to_owned()).chain(recipe.modules.iter().cloned()).collect();
    let modules = modules::collect(&kernel, &wanted)?;
    step("the initramfs");
    let archive = initramfs(recipe, &modules)?;
    let packed = zstd::bulk::compress(&archive, 19).map_err(|error| BuildError::Content(error.to_string()))?;
    let source = format!("installer {}, modules of {}", env!("CARGO_PKG_VERSION"), kernel.source());
    add(Role::Initrd, "initrd.img", packed, source)?;
    let set = BootSet {
        format: FORMAT,
        version: recipe.version.clone(),
        created: recipe.created.clone(),
        protocol: PROTOCOL_VERSION,
        files: files.iter().map(|(file, _)| file.clone()).collect(),
    };
    set.check().map_err(BuildError::Content)?;
    for (file, content) in &files {
        crate::image::import::write(place.folder(), file.name.as_str(), content)?;
    }
    write_signed(place.folder(), "boot-set.json", &set, key, Purpose::BootSet)?;
    place.finish()?;
    Ok(set)
}

fn initramfs(recipe: &Recipe, modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>, BuildError> {
    let failed = |source| BuildError::Installer { path: recipe.installer.clone(), source };
    let installer = std::fs::read(&recipe.installer).map_err(failed)?;
    if !is_static(&installer) {
        return Err(BuildError::Content(format!(
            "{} is no static program of x86-64, and there are no libraries in an initramfs: build it with images/build-installer",
            recipe.installer.display()
        )));
    }
    let mut archive = Cpio::default();
    for folder in ["dev", "proc", "sys", "run", "etc", "etc/rackmedic", "etc/rackmedic/modules.d"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 0o600, 5, 1);
    let keys: String = recipe.trusted.iter().map(|key| format!("{key}\n")).collect();
    archive.file("etc/rackmedic/trusted-keys", 0o644, keys.as_bytes());
    let list: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
    archive.file("etc/rackmedic/modules", 0o644, list.as_bytes());
    for (name, content) in modules {
        archive.file(&format!("etc/rackmedic/modules.d/{name}"), 0o644, content);
    }
    archive.file("init", 0o755, &installer);
    Ok(archive.finish())
}

/// Whether a program needs no other file: an ELF file for x86-64 without an interpreter (`PT_INTERP`).
fn is_static(program: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let part = program.get(at..at.checked_add(bytes)?)?;
        Some(part.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    };
    let interpreter = || -> Option<bool> {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for index in 0..count {
            let at = usize::try_from(table.checked_add(index.checked_mul(size)?)?).ok()?;
            if number(at, 4)? == 3 {
                return Some(true);
            }
        }
        Some(false)
    };
    program.starts_with(b"\x7fELF\x02\x01") && number(18, 2) == Some(62) && interpreter() == Some(false)
}
