//! From a file to a signed image in the store, in one pass.

use super::disk_layout::{self, DiskLayout, Table};
use super::shelve::{ShelveError, Shelved};
use super::source::{Source, SourceError};
use ed25519_dalek::SigningKey;
use protocol::chunk_table::{Chunk, ChunkTable};
use protocol::digest::Sha256;
use protocol::manifest::{
    Arch, Chunks, Content, Encoding, FORMAT, Filesystem, Firmware, IMAGE_LIMIT_BYTES, ImageManifest, RootPlace, Stored,
};
use protocol::name::Name;
use protocol::signature::{self, Purpose};
use sha2::Digest as _;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Bytes of a chunk: what a differential write reads, compares and sends as one.
pub const CHUNK_BYTES: u32 = 1 << 20;
/// zstd's own default: fast enough for a gigabit at a core, and two thirds of what is possible is won.
const ZSTD_LEVEL: i32 = 3;

/// What is said of an image.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Name,
    /// For which machines.
    pub arch: Arch,
    /// Which firmware can boot it.
    pub firmware: Vec<Firmware>,
    /// Where the files of the first boot go.
    pub root: Option<(u32, Filesystem)>,
    /// The loader for the EFI boot entry.
    pub efi_loader: Option<String>,
    /// The kernel inside.
    pub kernel: Option<String>,
    /// The kubelet inside.
    pub kubelet: Option<String>,
    /// How it is stored.
    pub encoding: Encoding,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The largest disk that is believed, bytes: a small file may unpack to any size. At most [`IMAGE_LIMIT_BYTES`].
    pub largest_bytes: u64,
}

/// Why an image is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store.
    #[error(transparent)]
    Shelve(#[from] ShelveError),
    /// It is no disk that could boot, or what was said of it does not hold.
    #[error("{path}: {what}; nothing was added")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes of the file that were read.
    pub read_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the disk so far.
    pub raw_bytes: u64,
}

/// Imports a file.
///
/// # Errors
/// Why not. Then nothing is in the store.
pub fn import(
    path: &Path,
    about: &About,
    key: &SigningKey,
    store: &Path,
    mut progress: impl FnMut(Progress),
) -> Result<ImageManifest, ImportError> {
    let mut source = Source::open(path)?;
    let largest = about.largest_bytes.min(IMAGE_LIMIT_BYTES);
    let too_large = |what: &str| ImportError::Content {
        path: path.to_owned(),
        what: format!(
            "it {what} {} GiB, the largest disk that is taken here: it is no disk of these hosts, or say --largest-gib",
            largest.div_ceil(1 << 30)
        ),
    };
    if source.file_bytes > largest {
        return Err(too_large("has more than"));
    }
    let target = store.join("images").join(about.name.as_str()).join(about.version.as_str());
    let place = Shelved::begin(&target)?;
    let unreadable = |source| SourceError::Io { path: path.to_owned(), source };
    let wrong = |what: String| ImportError::Content { path: path.to_owned(), what };
    let content_path = place.folder().join("content");
    let unwritable = |source| ShelveError::Io { path: content_path.clone(), source };
    let mut content = Writer::create(&content_path).map_err(unwritable)?;
    let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(unreadable)?;
    let (mut raw_digest, mut raw_bytes, mut chunks) = (sha2::Sha256::new(), 0_u64, Vec::new());
    let mut chunk = vec![0; CHUNK_BYTES as usize];
    loop {
        let length = fill(&mut source, &mut chunk).map_err(unreadable)?;
        let raw = chunk.get(..length).unwrap_or_default();
        if raw.is_empty() {
            break;
        }
        if raw_bytes == 0 {
            check_layout(raw, about).map_err(wrong)?;
        }
        raw_bytes = raw_bytes.saturating_add(length as u64);
        if raw_bytes > largest {
            return Err(too_large("unpacks to more than"));
        }
        raw_digest.update(raw);
        let (stored_offset, sha256) = (content.bytes, Sha256::of(raw));
        let stored_bytes = match about.encoding {
            Encoding::Raw => content.put(raw).map_err(unwritable)?,
            Encoding::Zstd if raw.iter().all(|byte| *byte == 0) => 0,
            Encoding::Zstd => content.put(&zstd.compress(raw).map_err(unreadable)?).map_err(unwritable)?,
        };
        chunks.push(Chunk { stored_offset, stored_bytes, sha256 });
        let read_bytes = source.read_bytes.load(Ordering::Relaxed);
        progress(Progress { read_bytes, file_bytes: source.file_bytes, raw_bytes });
        if length < chunk.len() {
            break;
        }
    }
    let stored = content.finish(about.encoding).map_err(unwritable)?;
    let table = ChunkTable::new(chunks).to_bytes();
    let manifest = ImageManifest {
        format: FORMAT,
        name: about.name.clone(),
        version: about.version.clone(),
        arch: about.arch,
        firmware: about.firmware.clone(),
        raw: Content { bytes: raw_bytes, sha256: Sha256(raw_digest.finalize().into()) },
        stored,
        chunks: Chunks {
            chunk_bytes: CHUNK_BYTES,
            table: Content { bytes: table.len() as u64, sha256: Sha256::of(&table) },
        },
        root: about.root.map(|(partition, filesystem)| RootPlace { partition, filesystem }),
        efi_loader: about.efi_loader.clone(),
        kernel: about.kernel.clone(),
        kubelet: about.kubelet.clone(),
        created: about.created.clone(),
    };
    manifest.check().map_err(wrong)?;
    write(place.folder(), "chunks", &table)?;
    write_signed(place.folder(), "manifest.json", &manifest, key, Purpose::ImageManifest)?;
    place.finish()?;
    Ok(manifest)
}

/// What does not fit between a disk's beginning and what was said of it.
fn check_layout(raw: &[u8], about: &About) -> Result<(), String> {
    let look = raw.get(..disk_layout::LOOK_BYTES.min(raw.len())).unwrap_or_default();
    let layout = DiskLayout::read(look)
        .ok_or("it has no partition table, so nothing boots from it: is it a file system alone?")?;
    if let Some((partition, _)) = about.root
        && !layout.partitions.contains(&partition)
    {
        let there = layout.partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(format!("it has no partition {partition} for the files of the first boot; there are: {there}"));
    }
    if about.firmware.contains(&Firmware::Uefi) && !layout.efi_system {
        return Err("it has no EFI system partition, so UEFI cannot boot it: say --firmware bios".to_owned());
    }
    // The installer's boot entry names the partition by its GUID, and it is set when the disk is written already.
    if about.efi_loader.is_some() && (layout.table != Table::Gpt || !layout.efi_system) {
        return Err(
            "it has no GPT with an EFI system partition, so no boot entry can name the loader on it: leave out \
             --efi-loader, or bring a disk with a GPT"
                .to_owned(),
        );
    }
    Ok(())
}

/// As much as there is, up to the whole buffer.
fn fill(source: &mut Source, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
        match source.read(space) {
            Ok(0) => break,
            Ok(length) => filled = filled.saturating_add(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

struct Writer {
    file: BufWriter<File>,
    digest: sha2::Sha256,
    bytes: u64,
}

impl Writer {
    fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { file, digest: sha2::Sha256::new(), bytes: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<u32> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        u32::try_from(bytes.len()).map_err(io::Error::other)
    }

    fn finish(mut self, encoding: Encoding) -> io::Result<Stored> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(Stored { encoding, bytes: self.bytes, sha256: Sha256(self.digest.finalize().into()) })
    }
}

/// Writes a file of a place that is being filled.
///
/// # Errors
/// When the file system says no.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), ShelveError> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).map_err(|source| ShelveError::Io { path, source })
}

/// Writes a document and its signature.
///
/// # Errors
/// When the file system says no.
pub fn write_signed(
    folder: &Path,
    name: &str,
    document: &impl serde::Serialize,
    key: &SigningKey,
    purpose: Purpose,
) -> Result<(), ShelveError> {
    let failed =
        |error| ShelveError::Io { path: folder.join(name), source: io::Error::other::<serde_json::Error>(error) };
    let mut text = serde_json::to_vec_pretty(document).map_err(failed)?;
    text.push(b'\n');
    let mut signature = serde_json::to_vec(&signature::sign(key, purpose, &text)).map_err(failed)?;
    signature.push(b'\n');
    write(folder, name, &text)?;
    write(folder, &format!("{name}.sig"), &signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_is_taken_for_an_efi_system_partition_of_a_gpt_alone() {
        let about = |efi_loader: Option<&str>| About {
            name: "disk".parse().unwrap(),
            version: "1".parse().unwrap(),
            arch: Arch::X86_64,
            firmware: vec![Firmware::Bios, Firmware::Uefi],
            root: None,
            efi_loader: efi_loader.map(str::to_owned),
            kernel: None,
            kubelet: None,
            encoding: Encoding::Raw,
            created: "2026-01-01T00:00:00Z".to_owned(),
            largest_bytes: 1 << 30,
        };
        let loader = about(Some("\\EFI\\BOOT\\BOOTX64.EFI"));
        // A boot sector with an EFI system partition (type 0xEF), which UEFI boots by its place for removable media
        let mut disk = vec![0; disk_layout::LOOK_BYTES];
        disk[446..462].copy_from_slice(&[0, 0, 0, 0, 0xef, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(check_layout(&disk, &about(None)), Ok(()));
        let why = check_layout(&disk, &loader).unwrap_err();
        assert!(why.contains("--efi-loader") && why.contains("GPT"), "{why}");
        // And a GPT with one, by its type (C12A7328-F81F-11D2-BA4B-00A0C93EC93B)
        disk[450] = 0xee;
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 80..512 + 84].copy_from_slice(&128_u32.to_le_bytes());
        disk[512 + 84..512 + 88].copy_from_slice(&128_u32.to_le_bytes());
        let kind = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        disk[1024..1040].copy_from_slice(&kind);
        assert_eq!(check_layout(&disk, &loader), Ok(()));
        // Without one the loader is nowhere, whatever firmware it is for
        disk[1024] = 1;
        let bios = About { firmware: vec![Firmware::Bios], ..loader };
        assert!(check_layout(&disk, &bios).unwrap_err().contains("--efi-loader"));
    }
}
