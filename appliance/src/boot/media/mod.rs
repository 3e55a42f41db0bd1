//! The image for a host's virtual drive, one for each job: loaders, kernel and initramfs of the boot set, and the words that
//! make its installer this job's. Made by us, so that nothing has to be told to the host by DHCP.
//!
//! It holds the job's nonce, so it is behind the gate like everything else: one path with a token of its own, one reader,
//! and nothing any more from the installer's hello on.

pub mod iso;

use super::job::{Job, MediaFor};
use super::stock::ServedSet;
use bytes::Bytes;
use iso::{Volume, VolumeError, VolumeFile};
use protocol::boot_set::Role;
use protocol::manifest::Arch;
use pxe::gate::Now;
use pxe::script::MediaInstaller;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;

/// Its name on the wire. Some BMCs take only what ends in `.iso`.
pub const FILE_NAME: &str = "installer.iso";

/// The URL that a BMC is told, when the image is served at this address.
#[must_use]
pub fn url(job: &Job, served_at: SocketAddrV4) -> String {
    format!("http://{served_at}/t/{}/{FILE_NAME}", job.media_token)
}

/// An image that is being served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) file: Arc<File>,
    pub(super) length: u64,
    /// For whom.
    pub(super) of: MediaFor,
    /// How much was read, bytes, and when that was last put into the timeline.
    pub(super) read_bytes: u64,
    pub(super) noted: Option<Now>,
}

/// What a boot set lacks to make an image for such a machine, in words.
#[must_use]
pub fn lacks(set: &ServedSet, arch: Arch) -> Option<String> {
    let roles = [Role::Isolinux, Role::IsolinuxLibrary, Role::EfiImage, Role::Kernel, Role::Initrd];
    let missing = roles.into_iter().find(|role| set.name(*role, arch).is_none())?;
    Some(format!("the boot set has no {missing:?} for {arch:?}"))
}

/// Makes the image, in a file that has no name and is gone with its last reader: it holds a secret.
///
/// # Errors
/// When the boot set lacks a part, or the file cannot be written.
pub(super) fn make(
    set: &ServedSet,
    arch: Arch,
    installer: &MediaInstaller,
    made_unix_s: u64,
    scratch: &Path,
) -> Result<(File, u64), VolumeError> {
    if let Some(lacks) = lacks(set, arch) {
        return Err(VolumeError::Content(lacks));
    }
    let part = |role| -> Bytes {
        let found = set.name(role, arch).and_then(|name| set.files.get(name));
        found.map(|(content, ..)| content.clone()).unwrap_or_default()
    };
    let words = |text: Result<String, pxe::script::ScriptError>| {
        text.map(Bytes::from).map_err(|error| VolumeError::Content(error.to_string()))
    };
    let file = |path, content| VolumeFile { path, content };
    let menu = words(installer.grub())?;
    let volume = Volume {
        name: "RACKMEDIC".to_owned(),
        made_unix_s,
        files: vec![
            file("ISOLINUX/ISOLINUX.BIN", part(Role::Isolinux)),
            file("ISOLINUX/LDLINUX.C32", part(Role::IsolinuxLibrary)),
            file("ISOLINUX/ISOLINUX.CFG", words(installer.isolinux())?),
            file("BOOT/GRUB/GRUB.CFG", menu),
            // By this one the volume is found; see `image::build::efi_image`.
            file("BOOT/GRUB/RACKMED.CFG", Bytes::from_static(b"# Rackmedic\n")),
            file("EFI.IMG", part(Role::EfiImage)),
            file("KERNEL.IMG", part(Role::Kernel)),
            file("INITRD.IMG", part(Role::Initrd)),
        ],
        bios: "ISOLINUX/ISOLINUX.BIN",
        uefi: "EFI.IMG",
    };
    let mut out = BufWriter::with_capacity(1 << 20, nameless(scratch)?);
    let length = volume.write(&mut out)?;
    let file = out.into_inner().map_err(|error| VolumeError::Io(error.into_error()))?;
    Ok((file, length))
}

/// A file without a name in this folder.
fn nameless(folder: &Path) -> std::io::Result<File> {
    let owner = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, owner) {
        Ok(file) => Ok(File::from(file)),
        // Not every file system can (open(2), O_TMPFILE): then it has a name for a moment.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let path = folder.join(format!(".media-{}", std::process::id()));
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, owner)?;
            std::fs::remove_file(path)?;
            Ok(File::from(file))
        }
        Err(error) => Err(error.into()),
    }
}
