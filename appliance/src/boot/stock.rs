//! What is served: the boot set and the images of the store, verified before the first byte goes out.

use bytes::Bytes;
use protocol::boot_set::{BootSet, Role};
use protocol::chunk_table::ChunkTable;
use protocol::digest::Sha256;
use protocol::manifest::{Arch, ImageManifest};
use protocol::name::Name;
use protocol::signature::{PublicKey, Signature, Untrusted};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why something of the store is not served.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// It is not trusted.
    #[error("{path} is not trusted, nothing of it is served: {why}")]
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: Untrusted,
    },
    /// A file is not the one that was signed.
    #[error("{path} is not the file that was signed, nothing of it is served: {what}. Build or import it again")]
    Changed {
        /// Which file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
}

/// The files of a boot set, in memory.
#[derive(Debug)]
pub struct ServedSet {
    /// By name: content, digest and what it is for.
    pub files: BTreeMap<Name, (Bytes, Sha256, Role, Arch)>,
}

/// An image that may be installed.
#[derive(Clone, Debug)]
pub struct ServedImage {
    /// The exact text of its manifest.
    pub manifest_text: String,
    /// Its signature.
    pub signature: Signature,
    /// What it promises.
    pub manifest: Arc<ImageManifest>,
    /// The chunk table's file.
    pub table: Bytes,
    /// The stored file.
    pub content: Arc<File>,
}

impl ServedSet {
    /// Reads and verifies a boot set of the store.
    ///
    /// # Errors
    /// When it is not there, not trusted, or changed by a single byte.
    pub fn open(store: &Path, version: &Name, trusted: &[PublicKey]) -> Result<Self, StockError> {
        let folder = store.join("boot-sets").join(version.as_str());
        let path = folder.join("boot-set.json");
        let (text, signature) = signed(&path)?;
        let set = BootSet::verify(&text, &signature, trusted).map_err(|why| StockError::Untrusted { path, why })?;
        let mut files = BTreeMap::new();
        for file in &set.files {
            let path = folder.join(file.name.as_str());
            let content = read(&path, file.bytes)?;
            let digest = Sha256::of(&content);
            if content.len() as u64 != file.bytes || digest != file.sha256 {
                let what = format!(
                    "it has {} bytes and SHA-256 {digest}, the boot set says {} and {}",
                    content.len(),
                    file.bytes,
                    file.sha256
                );
                return Err(StockError::Changed { path, what });
            }
            files.insert(file.name.clone(), (Bytes::from(content), digest, file.role, file.arch));
        }
        Ok(Self { files })
    }

    /// The names by role, for the DHCP server.
    #[must_use]
    pub fn names(&self) -> BTreeMap<(Role, Arch), String> {
        self.files.iter().map(|(name, (_, _, role, arch))| ((*role, *arch), name.to_string())).collect()
    }

    /// The name of the file for a role and a machine.
    #[must_use]
    pub fn name(&self, role: Role, arch: Arch) -> Option<&Name> {
        self.files.iter().find(|(_, file)| (file.2, file.3) == (role, arch)).map(|(name, _)| name)
    }
}

impl ServedImage {
    /// Reads and verifies an image of the store: its signature, its table, the length of its content. The content itself
    /// is verified chunk by chunk by the installer, against digests that hang on the signature.
    ///
    /// # Errors
    /// When it is not there, not trusted, or changed.
    pub fn open(store: &Path, name: &Name, version: &Name, trusted: &[PublicKey]) -> Result<Self, StockError> {
        let folder = store.join("images").join(name.as_str()).join(version.as_str());
        let path = folder.join("manifest.json");
        let (text, signature) = signed(&path)?;
        let manifest = ImageManifest::verify(&text, &signature, trusted);
        let manifest = (*manifest.map_err(|why| StockError::Untrusted { path: path.clone(), why })?).clone();
        if (&manifest.name, &manifest.version) != (name, version) {
            let what = format!("it is the manifest of {} {}", manifest.name, manifest.version);
            return Err(StockError::Changed { path, what });
        }
        let table_path = folder.join("chunks");
        let table = read(&table_path, manifest.chunks.table.bytes)?;
        ChunkTable::read(&table, &manifest)
            .map_err(|e| StockError::Changed { path: table_path, what: e.to_string() })?;
        let content_path = folder.join("content");
        let failed = |source| StockError::Io { path: content_path.clone(), source };
        let content = File::open(&content_path).map_err(failed)?;
        let length = content.metadata().map_err(failed)?.len();
        if length != manifest.stored.bytes {
            let what = format!("it has {length} bytes, the manifest says {}", manifest.stored.bytes);
            return Err(StockError::Changed { path: content_path, what });
        }
        let manifest_text =
            String::from_utf8(text).map_err(|_| StockError::Changed { path, what: "it is no UTF-8".to_owned() })?;
        Ok(Self {
            manifest_text,
            signature,
            manifest: Arc::new(manifest),
            table: table.into(),
            content: Arc::new(content),
        })
    }
}

fn signed(path: &Path) -> Result<(Vec<u8>, Signature), StockError> {
    let text = read(path, 1 << 20)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".sig");
    let beside = PathBuf::from(beside);
    let signature = read(&beside, 4096)?;
    let signature =
        serde_json::from_slice(&signature).map_err(|e| StockError::Changed { path: beside, what: e.to_string() })?;
    Ok((text, signature))
}

/// A whole file, at most one byte more than `limit`.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, StockError> {
    use io::Read as _;
    let failed = |source| StockError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}
