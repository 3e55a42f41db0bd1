//! What is in the store, and whether it is still what was signed.

use super::shelve::ShelveError;
use crate::boot::stock::{ServedImage, ServedSet, StockError};
use ed25519_dalek::SigningKey;
use protocol::chunk_table::ChunkTable;
use protocol::digest::Sha256;
use protocol::manifest::{Encoding, ImageManifest};
use protocol::name::Name;
use protocol::signature::{self, PublicKey, Purpose};
use sha2::Digest as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Something that lies in the store.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Listed {
    /// `image` or `boot-set`.
    pub kind: &'static str,
    /// Its name; empty for a boot set.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Bytes on the disk it is written to; for a boot set of all its files.
    pub bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// The key it is signed with, by its id.
    pub signed_by: String,
    /// The kubelet inside.
    pub kubelet: Option<String>,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
}

/// Everything in the store, by name and version. Without trusted keys signatures are only read, not judged.
///
/// # Errors
/// When the store cannot be read.
pub fn list(store: &Path, trusted: &[PublicKey]) -> Result<Vec<Listed>, ShelveError> {
    let mut all = Vec::new();
    for name in folders(&store.join("images"))? {
        for version in folders(&store.join("images").join(name.as_str()))? {
            let folder = store.join("images").join(name.as_str()).join(version.as_str());
            all.push(listed_image(&folder, store, &name, &version, trusted));
        }
    }
    for version in folders(&store.join("boot-sets"))? {
        let folder = store.join("boot-sets").join(version.as_str());
        let set: Option<protocol::boot_set::BootSet> = read_json(&folder.join("boot-set.json"));
        let bytes = set.as_ref().map_or(0, |set| set.files.iter().map(|file| file.bytes).sum());
        let problem = (!trusted.is_empty()).then(|| ServedSet::open(store, &version, trusted).err()).flatten();
        all.push(Listed {
            kind: "boot-set",
            name: String::new(),
            version: version.to_string(),
            bytes,
            stored_bytes: bytes,
            signed_by: signed_by(&folder.join("boot-set.json.sig")),
            kubelet: None,
            problem: problem.map(|error| error.to_string()),
        });
    }
    Ok(all)
}

fn listed_image(folder: &Path, store: &Path, name: &Name, version: &Name, trusted: &[PublicKey]) -> Listed {
    let manifest: Option<ImageManifest> = read_json(&folder.join("manifest.json"));
    let problem = if trusted.is_empty() {
        manifest.is_none().then(|| "its manifest cannot be read".to_owned())
    } else {
        ServedImage::open(store, name, version, trusted).err().map(|error| error.to_string())
    };
    Listed {
        kind: "image",
        name: name.to_string(),
        version: version.to_string(),
        bytes: manifest.as_ref().map_or(0, |manifest| manifest.raw.bytes),
        stored_bytes: manifest.as_ref().map_or(0, |manifest| manifest.stored.bytes),
        signed_by: signed_by(&folder.join("manifest.json.sig")),
        kubelet: manifest.and_then(|manifest| manifest.kubelet),
        problem,
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn signed_by(path: &Path) -> String {
    read_json::<signature::Signature>(path).map_or_else(|| "nobody".to_owned(), |signature| signature.key)
}

/// Folders whose names are names, sorted. What begins with a dot is not finished.
fn folders(folder: &Path) -> Result<Vec<Name>, ShelveError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ShelveError::Io { path: folder.to_owned(), source }),
    };
    let names = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<Name> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    Ok(names)
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not trusted, or not there.
    #[error(transparent)]
    Stock(#[from] StockError),
    /// A chunk is damaged.
    #[error(
        "{path}: chunk {chunk} (bytes {from} to {to} of the disk) is damaged: {what}. Import the image again under another version"
    )]
    Chunk {
        /// The stored file.
        path: PathBuf,
        /// Which chunk, from 0.
        chunk: u64,
        /// Its first byte on the disk.
        from: u64,
        /// The byte behind its last.
        to: u64,
        /// What is wrong.
        what: String,
    },
    /// The file that is written.
    #[error("{path}: {source}")]
    Out {
        /// Which.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The chunks are whole, yet the image is not the one that the manifest names.
    #[error("{path}: every chunk is whole, but together they are not the image that was signed")]
    Whole {
        /// The stored file.
        path: PathBuf,
    },
}

/// Verifies an image to the last byte: signature, table, every chunk, the whole. Gives the manifest.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    store: &Path,
    name: &Name,
    version: &Name,
    trusted: &[PublicKey],
    progress: impl FnMut(u64, u64),
) -> Result<ImageManifest, VerifyError> {
    read(store, name, version, trusted, progress, |_, _| Ok(()))
}

/// Writes an image into a file as it comes to lie on a disk, for whoever wants to look at it or to copy it by hand. It is
/// verified on the way; a file that is not whole does not stay.
///
/// # Errors
/// What is wrong with the image, or that the file is there already or cannot be written.
pub fn export(
    store: &Path,
    name: &Name,
    version: &Name,
    trusted: &[PublicKey],
    out: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<ImageManifest, VerifyError> {
    let unwritable = |source| VerifyError::Out { path: out.to_owned(), source };
    let file = File::options().write(true).create_new(true).open(out).map_err(unwritable)?;
    let written = read(store, name, version, trusted, progress, |at, raw| {
        // Zeros stay holes.
        let holds = raw.iter().any(|byte| *byte != 0);
        if holds { file.write_all_at(raw, at).map_err(unwritable) } else { Ok(()) }
    });
    let whole = written.and_then(|manifest| {
        file.set_len(manifest.raw.bytes).and_then(|()| file.sync_all()).map_err(unwritable)?;
        Ok(manifest)
    });
    if whole.is_err() {
        let _ = std::fs::remove_file(out);
    }
    whole
}

/// Reads and judges every chunk, and hands it on with its place on the disk.
fn read(
    store: &Path,
    name: &Name,
    version: &Name,
    trusted: &[PublicKey],
    mut progress: impl FnMut(u64, u64),
    mut take: impl FnMut(u64, &[u8]) -> Result<(), VerifyError>,
) -> Result<ImageManifest, VerifyError> {
    let image = ServedImage::open(store, name, version, trusted)?;
    let manifest = (*image.manifest).clone();
    let path = store.join("images").join(name.as_str()).join(version.as_str()).join("content");
    let table = ChunkTable::read(&image.table, &manifest)
        .map_err(|error| StockError::Changed { path: path.clone(), what: error.to_string() })?;
    let mut whole = sha2::Sha256::new();
    let size = u64::from(manifest.chunks.chunk_bytes);
    for (chunk, number) in table.chunks().iter().zip(0_u64..) {
        let from = number.saturating_mul(size);
        let to = from.saturating_add(size).min(manifest.raw.bytes);
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        let damaged = |what: String| VerifyError::Chunk { path: path.clone(), chunk: number, from, to, what };
        let raw = match chunk.stored_bytes {
            0 => vec![0; length],
            stored => {
                let stored =
                    stored_bytes(&image.content, chunk.stored_offset, stored).map_err(|e| damaged(e.to_string()))?;
                match manifest.stored.encoding {
                    Encoding::Raw => stored,
                    Encoding::Zstd => {
                        zstd::bulk::decompress(&stored, length).map_err(|e| damaged(format!("zstd says: {e}")))?
                    }
                }
            }
        };
        if raw.len() != length || Sha256::of(&raw) != chunk.sha256 {
            return Err(damaged("its digest differs".to_owned()));
        }
        whole.update(&raw);
        take(from, &raw)?;
        progress(to, manifest.raw.bytes);
    }
    if Sha256(whole.finalize().into()) != manifest.raw.sha256 {
        return Err(VerifyError::Whole { path });
    }
    Ok(manifest)
}

fn stored_bytes(content: &File, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    content.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Signs an image anew with another key. Its old signature must be by a trusted key: what nobody vouched for is not
/// vouched for by mistake.
///
/// # Errors
/// When it is not trusted as it is, or cannot be written.
pub fn sign_anew(
    store: &Path,
    name: &Name,
    version: &Name,
    trusted: &[PublicKey],
    key: &SigningKey,
) -> anyhow::Result<()> {
    let image = ServedImage::open(store, name, version, trusted)?;
    let signature = signature::sign(key, Purpose::ImageManifest, image.manifest_text.as_bytes());
    let path = store.join("images").join(name.as_str()).join(version.as_str()).join("manifest.json.sig");
    let beside = path.with_extension("sig.new");
    let mut text = serde_json::to_vec(&signature)?;
    text.push(b'\n');
    let write = || {
        std::fs::write(&beside, &text)?;
        File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, &path)
    };
    write().map_err(|source| ShelveError::Io { path: path.clone(), source })?;
    Ok(())
}
