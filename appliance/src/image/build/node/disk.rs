//! The disk: a GPT with GRUB's partition for BIOS, the EFI system partition and the root file system.

use super::{BuildError, Identity, Recipe, grub, io};
use crate::image::build::packages;
use std::fs::File;
use std::io::copy;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// Partitions begin at whole MiB, whatever the disk's own blocks are.
const BIOS_AT: u64 = MIB;
const EFI_AT: u64 = 2 * MIB;
/// FAT32 needs 65,525 clusters at least (FAT 1.03 section 3.5).
const EFI_MIB: u64 = 48;
const ROOT_AT: u64 = EFI_AT + EFI_MIB * MIB;

/// The EFI system partition: the distribution's signed shim and GRUB, at their own place and at the one for removable media.
pub(super) fn efi_system(recipe: &Recipe, work: &Path, identity: &Identity) -> Result<PathBuf, BuildError> {
    let shim = packages::fetch("shim-signed", &recipe.work)?.read("usr/lib/shim/shimx64.efi.signed")?;
    let grub = packages::fetch("grub-efi-amd64-signed", &recipe.work)?
        .read("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")?;
    // Debian's signed GRUB looks for its menu there; ours is on the root file system, one for BIOS and UEFI.
    let uuid = identity.uuid("root");
    let menu = format!(
        "search --no-floppy --fs-uuid --set=root {uuid}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    );
    let place = work.join("efi.fat");
    let files = work.join("efi");
    for (name, content) in [
        ("EFI/BOOT/BOOTX64.EFI", shim.as_slice()),
        ("EFI/BOOT/grubx64.efi", &grub),
        ("EFI/debian/grub.cfg", menu.as_bytes()),
        ("EFI/debian/grubx64.efi", &grub),
        ("EFI/debian/shimx64.efi", &shim),
    ] {
        let path = files.join(name);
        let folder = path.parent().unwrap_or(&files);
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        std::fs::write(&path, content).map_err(io(&path))?;
    }
    super::tree::date(&files, recipe.epoch_s)?;
    let to = place.display().to_string();
    let volume = identity.volume();
    let blocks = (EFI_MIB * 1024).to_string();
    packages::run("mkfs.vfat", &["-F", "32", "--invariant", "-i", &volume, "-n", "EFI", "-C", &to, &blocks], work)?;
    let (epoch, from) = (recipe.epoch_s.to_string(), files.join("EFI").display().to_string());
    let environment = [("SOURCE_DATE_EPOCH", epoch.as_str()), ("TZ", "UTC"), ("MTOOLS_SKIP_CHECK", "1")];
    packages::run_with(&environment, "mcopy", &["-s", "-m", "-Q", "-i", &to, &from, "::"], work)?;
    Ok(place)
}

/// Puts the disk together.
pub(super) fn assemble(
    work: &Path,
    root: &Path,
    efi: &Path,
    filesystem: &Path,
    identity: &Identity,
) -> Result<PathBuf, BuildError> {
    let place = work.join("disk.raw");
    let root_bytes = filesystem.metadata().map_err(io(filesystem))?.len();
    // One more MiB for the backup of the table.
    let bytes = ROOT_AT.saturating_add(root_bytes).saturating_add(MIB);
    let disk = File::options().read(true).write(true).create_new(true).open(&place).map_err(io(&place))?;
    disk.set_len(bytes).map_err(io(&place))?;
    let table = format!(
        "label: gpt\nlabel-id: {}\n\
         start={}, size={}, type=21686148-6449-6E6F-744E-656564454649, uuid={}, name=BIOS\n\
         start={}, size={}, type=U, uuid={}, name=EFI\n\
         start={}, size={}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid={}, name=root\n",
        identity.uuid("disk"),
        BIOS_AT / SECTOR,
        MIB / SECTOR,
        identity.uuid("bios partition"),
        EFI_AT / SECTOR,
        EFI_MIB * MIB / SECTOR,
        identity.uuid("efi partition"),
        ROOT_AT / SECTOR,
        root_bytes / SECTOR,
        identity.uuid("root partition"),
    );
    partition(&place, &table)?;
    let read = |path: &str| {
        let path = root.join(path);
        std::fs::read(&path).map_err(io(&path))
    };
    let core_at = BIOS_AT / SECTOR;
    let code = grub::boot_code(&read("usr/lib/grub/i386-pc/boot.img")?, core_at).map_err(BuildError::Content)?;
    let core = grub::core(&read("usr/lib/grub/rackmedic-core.img")?, core_at).map_err(BuildError::Content)?;
    if core.len() as u64 > MIB {
        return Err(BuildError::Content("GRUB's core does not fit into its partition of 1 MiB".to_owned()));
    }
    disk.write_all_at(&code, 0).map_err(io(&place))?;
    disk.write_all_at(&core, BIOS_AT).map_err(io(&place))?;
    for (from, at) in [(efi, EFI_AT), (filesystem, ROOT_AT)] {
        let mut source = File::open(from).map_err(io(from))?;
        let mut target = At { disk: &disk, at };
        copy(&mut source, &mut target).map_err(io(&place))?;
        std::fs::remove_file(from).map_err(io(from))?;
    }
    Ok(place)
}

fn partition(place: &Path, table: &str) -> Result<(), BuildError> {
    let failed = |source| packages::PackageError::Program { program: "sfdisk".to_owned(), source };
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(place)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        std::io::Write::write_all(&mut input, table.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(packages::PackageError::Failed { program: "sfdisk".to_owned(), said }.into())
}

/// A place on the disk that is written to from there on; zeros stay holes.
struct At<'a> {
    disk: &'a File,
    at: u64,
}

impl std::io::Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.iter().any(|byte| *byte != 0) {
            self.disk.write_all_at(bytes, self.at)?;
        }
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
