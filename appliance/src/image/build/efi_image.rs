//! The file system that UEFI boots from on a CD: shim, and the GRUB that is made for CDs, both as the distribution signed them.

use super::boot_set::{BuildError, Recipe};
use super::packages::{self, Package};
use std::path::Path;

/// What GRUB reads when it does not find the menu of the volume by itself: firmware that shows it only the file system it
/// started from. The file is on every volume of ours, and only there.
const MENU: &str =
    "search --file --set=root /boot/grub/rackmed.cfg\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n";
/// Room beyond the files themselves: both FATs, folders, the last cluster of each file.
const ROOM_BYTES: usize = 256 << 10;

/// The file system's bytes.
///
/// # Errors
/// When a package lacks its part, or a program of Debian fails.
pub(super) fn make(recipe: &Recipe, shim: &Package, grub: &Package) -> Result<Vec<u8>, BuildError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Work { path, source }
    };
    let files = [
        ("EFI/BOOT/BOOTX64.EFI", shim.read("usr/lib/shim/shimx64.efi.signed")?),
        ("EFI/BOOT/grubx64.efi", grub.read("usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed")?),
        ("EFI/BOOT/grub.cfg", MENU.as_bytes().to_vec()),
    ];
    let work = recipe.work.join("efi-image");
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(io(&work))?;
    }
    let folder = work.join("EFI/BOOT");
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    for (name, content) in &files {
        let path = work.join(name);
        std::fs::write(&path, content).map_err(io(&path))?;
        // One moment for all, or two builds differ.
        let made = std::time::UNIX_EPOCH + std::time::Duration::from_secs(EPOCH_S);
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(made)).map_err(io(&path))?;
    }
    let place = recipe.work.join("efi.img");
    if place.exists() {
        std::fs::remove_file(&place).map_err(io(&place))?;
    }
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum::<usize>().saturating_add(ROOM_BYTES);
    let (to, blocks) = (place.display().to_string(), bytes.div_ceil(1024).to_string());
    packages::run(
        "mkfs.vfat",
        &["-F", "16", "-s", "1", "--invariant", "-i", "7ac40001", "-n", "RACKMEDIC", "-C", &to, &blocks],
        &recipe.work,
    )?;
    let (epoch, from) = (EPOCH_S.to_string(), work.join("EFI").display().to_string());
    let environment = [("SOURCE_DATE_EPOCH", epoch.as_str()), ("TZ", "UTC"), ("MTOOLS_SKIP_CHECK", "1")];
    packages::run_with(&environment, "mcopy", &["-s", "-m", "-Q", "-i", &to, &from, "::"], &recipe.work)?;
    std::fs::read(&place).map_err(io(&place))
}

/// When its files were made, seconds since 1970: 2026-01-01.
const EPOCH_S: u64 = 1_767_225_600;
