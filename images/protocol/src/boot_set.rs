//! The loaders, kernel and initramfs of a network boot: taken together, signed together. The file `boot-set.json`.

use crate::digest::Sha256;
use crate::manifest::Arch;
use crate::name::Name;
use crate::signature::{self, PublicKey, Purpose, Signature, Untrusted, Verified};
use serde::{Deserialize, Serialize};

/// The `format` this code writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// What a file of a boot set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// iPXE on the ROM's own driver, for BIOS (`undionly.kpxe`).
    IpxeBios,
    /// iPXE on the firmware's own driver, for UEFI (`snponly.efi`).
    IpxeUefi,
    /// The distribution's signed first stage of Secure Boot.
    Shim,
    /// The distribution's signed GRUB with network support, which shim loads.
    Grub,
    /// The distribution's isolinux, which a BIOS starts from a CD.
    Isolinux,
    /// The library that isolinux of this version cannot start without (`ldlinux.c32`).
    IsolinuxLibrary,
    /// A FAT file system with shim and the GRUB for CDs, which UEFI starts from a CD.
    EfiImage,
    /// The installer's kernel.
    Kernel,
    /// The installer's initramfs.
    Initrd,
}

/// One generation of a component, as SBAT names it (shim's `SBAT.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SbatEntry {
    /// The component, such as `grub`.
    pub component: String,
    /// Its generation.
    pub generation: u32,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSetFile {
    /// What it is for.
    pub role: Role,
    /// For which machines.
    pub arch: Arch,
    /// Its name, in the folder of the set and on the wire.
    pub name: Name,
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Sha256,
    /// The package it comes from, with its version: `ipxe 1.0.0+git-20190125.36a4c85-5.1`; or what made it.
    pub source: String,
    /// Its SBAT section, when it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sbat: Vec<SbatEntry>,
}

/// A boot set. Read only through [`BootSet::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSet {
    /// [`FORMAT`].
    pub format: u32,
    /// Its version.
    pub version: Name,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The version of the conversation that its installer speaks: [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The files.
    pub files: Vec<BootSetFile>,
}

/// The largest file of a boot set, bytes: 256 MiB.
pub const FILE_LIMIT_BYTES: u64 = 256 << 20;

impl BootSet {
    /// Reads a boot set whose signature fits and which can be used.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn verify(bytes: &[u8], signature: &Signature, trusted: &[PublicKey]) -> Result<Verified<Self>, Untrusted> {
        let set = signature::verify::<Self>(bytes, signature, Purpose::BootSet, trusted)?;
        set.check().map_err(Untrusted::Content)?;
        Ok(set)
    }

    /// What makes a boot set useless, though its signature may fit.
    ///
    /// # Errors
    /// The first such thing.
    pub fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!(
                "it has format {}, this program reads format {FORMAT}: use the matching release",
                self.format
            ));
        }
        if self.protocol != crate::PROTOCOL_VERSION {
            return Err(format!(
                "its installer speaks version {}, this program version {}: build the boot set with this release",
                self.protocol,
                crate::PROTOCOL_VERSION
            ));
        }
        for (index, file) in self.files.iter().enumerate() {
            if file.bytes == 0 || file.bytes > FILE_LIMIT_BYTES {
                return Err(format!("{} has {} bytes: it is empty or above 256 MiB", file.name, file.bytes));
            }
            let others = self.files.iter().take(index);
            if others.clone().any(|other| other.name == file.name) {
                return Err(format!("two files are called {}", file.name));
            }
            if others.clone().any(|other| (other.role, other.arch) == (file.role, file.arch)) {
                return Err(format!("{} has the role and machine of another file", file.name));
            }
        }
        Ok(())
    }

    /// The file for a role and a machine.
    #[must_use]
    pub fn file(&self, role: Role, arch: Arch) -> Option<&BootSetFile> {
        self.files.iter().find(|file| file.role == role && file.arch == arch)
    }
}
