//! What an image promises. The file `manifest.json`; signed, see [`crate::signature`].

use crate::digest::Sha256;
use crate::name::Name;
use crate::signature::{self, PublicKey, Purpose, Signature, Untrusted, Verified};
use serde::{Deserialize, Serialize};

/// The `format` this code writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// For which machines an image or a loader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

/// The firmware that can boot a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// The boot sector.
    Bios,
    /// An EFI system partition.
    Uefi,
}

/// How the bytes of an image lie in the store and travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As they come to lie on the disk.
    Raw,
    /// One zstd frame (RFC 8878) per chunk, one after the other: every chunk can be fetched alone, and the whole is an
    /// ordinary `.zst` file.
    Zstd,
}

/// Some bytes: how many, and their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Sha256,
}

/// The content of the store's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// How it is encoded.
    pub encoding: Encoding,
    /// How many bytes the file has.
    pub bytes: u64,
    /// The SHA-256 of the file.
    pub sha256: Sha256,
}

/// The chunk table, see [`crate::chunk_table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunks {
    /// Bytes of a chunk; the last one may be shorter. A power of two from 64 KiB to 16 MiB.
    pub chunk_bytes: u32,
    /// The table's own length and digest.
    pub table: Content,
}

/// Where the files of the first boot (host name, network, join) are written after the image stands on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPlace {
    /// The number of the partition in its table, from 1.
    pub partition: u32,
    /// Its file system.
    pub filesystem: Filesystem,
}

/// A file system that the installer can write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// ext4.
    Ext4,
    /// FAT with long names.
    Vfat,
}

/// What an image promises. Read only through [`ImageManifest::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name, such as `debian-12-kubeadm`.
    pub name: Name,
    /// Its version, such as `2026.11.24`.
    pub version: Name,
    /// For which machines.
    pub arch: Arch,
    /// Which firmware can boot it.
    pub firmware: Vec<Firmware>,
    /// The bytes as they come to lie on the disk.
    pub raw: Content,
    /// The bytes as they are stored and travel.
    pub stored: Stored,
    /// The chunk table.
    pub chunks: Chunks,
    /// Where the files of the first boot are written. Without it none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootPlace>,
    /// The loader on the EFI system partition that the boot entry names, such as `\EFI\BOOT\BOOTX64.EFI`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi_loader: Option<String>,
    /// The release of the kernel inside, as `uname -r` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The version of the kubelet inside, such as `v1.36.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<String>,
    /// When it was made, RFC 3339. The same inputs give the same instant.
    pub created: String,
}

/// The largest image, bytes: 1 TiB.
pub const IMAGE_LIMIT_BYTES: u64 = 1 << 40;

impl ImageManifest {
    /// Reads a manifest whose signature fits and whose promises can be kept.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn verify(bytes: &[u8], signature: &Signature, trusted: &[PublicKey]) -> Result<Verified<Self>, Untrusted> {
        let manifest = signature::verify::<Self>(bytes, signature, Purpose::ImageManifest, trusted)?;
        manifest.check().map_err(Untrusted::Content)?;
        Ok(manifest)
    }

    /// What makes a manifest useless, though its signature may fit.
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
        if self.raw.bytes == 0 || self.raw.bytes > IMAGE_LIMIT_BYTES || !self.raw.bytes.is_multiple_of(512) {
            return Err(format!(
                "a disk image of {} bytes cannot be: it is whole sectors of 512, at most 1 TiB",
                self.raw.bytes
            ));
        }
        let chunk_bytes = self.chunks.chunk_bytes;
        if !chunk_bytes.is_power_of_two() || !(1 << 16..=1 << 24).contains(&chunk_bytes) {
            return Err(format!("chunks of {chunk_bytes} bytes are not a power of two from 64 KiB to 16 MiB"));
        }
        let count = self.raw.bytes.div_ceil(u64::from(chunk_bytes));
        if self.chunks.table.bytes != crate::chunk_table::table_bytes(count) {
            return Err(format!("the chunk table of {} bytes does not fit {count} chunks", self.chunks.table.bytes));
        }
        if self.stored.encoding == Encoding::Raw
            && (self.stored.bytes, self.stored.sha256) != (self.raw.bytes, self.raw.sha256)
        {
            return Err("it is stored raw, yet differs from its raw content".to_owned());
        }
        if self.root.as_ref().is_some_and(|root| root.partition == 0 || root.partition > 128) {
            return Err("the partition of the first boot's files is not 1 to 128".to_owned());
        }
        let loader_is_odd = |loader: &String| {
            loader.len() > 120 || !loader.starts_with('\\') || loader.bytes().any(|b| !(b' '..=b'~').contains(&b))
        };
        if self.efi_loader.as_ref().is_some_and(loader_is_odd) {
            return Err(
                "the path of its EFI loader is not a path of at most 120 printable characters that begins with \\"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
