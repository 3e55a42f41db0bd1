//! Where each chunk of an image lies in the stored file, and its digest as it comes to lie on the disk.
//!
//! A binary file, little-endian: 8 bytes `RMCHUNK1`, then for each chunk 44 bytes: offset in the stored file (u64),
//! length there (u32; 0 = the chunk is all zeros and is not fetched), SHA-256 of the raw bytes. The number of chunks, their
//! size and the table's own digest stand in the signed manifest.

use crate::digest::Sha256;
use crate::manifest::{Encoding, ImageManifest};

const MAGIC: &[u8; 8] = b"RMCHUNK1";
const ENTRY_BYTES: u64 = 44;

/// The length of a table of so many chunks, bytes.
#[must_use]
pub const fn table_bytes(chunks: u64) -> u64 {
    MAGIC.len() as u64 + chunks.saturating_mul(ENTRY_BYTES)
}

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins in the stored file, bytes.
    pub stored_offset: u64,
    /// How long it is there, bytes. 0: all zeros.
    pub stored_bytes: u32,
    /// The digest of its raw bytes.
    pub sha256: Sha256,
}

/// All chunks of an image, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkTable(Vec<Chunk>);

/// Why a table is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It is not the one that was signed.
    #[error("the chunk table is not the one that the manifest names: its length or its digest differs")]
    Digest,
    /// It is the signed one, but makes no sense.
    #[error("the chunk table is wrong at chunk {chunk}: {what}")]
    Chunk {
        /// Which chunk, from 0.
        chunk: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl ChunkTable {
    /// A table of these chunks.
    #[must_use]
    pub fn new(chunks: Vec<Chunk>) -> Self {
        Self(chunks)
    }

    /// The chunks.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.0
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for chunk in &self.0 {
            bytes.extend_from_slice(&chunk.stored_offset.to_le_bytes());
            bytes.extend_from_slice(&chunk.stored_bytes.to_le_bytes());
            bytes.extend_from_slice(&chunk.sha256.0);
        }
        bytes
    }

    /// Reads the table that a verified manifest names: each chunk lies inside the stored file, none overlaps another.
    ///
    /// # Errors
    /// What does not fit.
    pub fn read(bytes: &[u8], manifest: &ImageManifest) -> Result<Self, TableError> {
        let named = &manifest.chunks.table;
        if bytes.len() as u64 != named.bytes || Sha256::of(bytes) != named.sha256 {
            return Err(TableError::Digest);
        }
        let entries = bytes.strip_prefix(MAGIC).ok_or(TableError::Chunk { chunk: 0, what: "the table has no head" })?;
        let mut chunks = Vec::with_capacity(entries.len() / 44);
        let mut next_free = 0_u64;
        let chunk_bytes = u64::from(manifest.chunks.chunk_bytes);
        for (entry, number) in entries.chunks(44).zip(0_u64..) {
            let wrong = |what| TableError::Chunk { chunk: number, what };
            let chunk = read_entry(entry).ok_or_else(|| wrong("it is cut short"))?;
            let raw_bytes = chunk_bytes.min(manifest.raw.bytes.saturating_sub(number.saturating_mul(chunk_bytes)));
            let length = u64::from(chunk.stored_bytes);
            let end = chunk.stored_offset.checked_add(length).ok_or_else(|| wrong("it ends beyond all numbers"))?;
            if length == 0 {
                chunks.push(chunk);
                continue;
            }
            if end > manifest.stored.bytes {
                return Err(wrong("it ends behind the end of the stored file"));
            }
            match manifest.stored.encoding {
                Encoding::Raw if chunk.stored_offset != number * chunk_bytes || length != raw_bytes => {
                    return Err(wrong("it lies elsewhere than on the disk, though the image is stored raw"));
                }
                Encoding::Zstd if chunk.stored_offset < next_free => return Err(wrong("it overlaps the one before")),
                // zstd's own bound of an incompressible frame (ZSTD_compressBound) is below this.
                Encoding::Zstd if length > raw_bytes + raw_bytes / 128 + 1024 => {
                    return Err(wrong("it is larger than its content can make it"));
                }
                Encoding::Raw | Encoding::Zstd => {}
            }
            next_free = end;
            chunks.push(chunk);
        }
        Ok(Self(chunks))
    }
}

fn read_entry(entry: &[u8]) -> Option<Chunk> {
    let (offset, rest) = entry.split_first_chunk::<8>()?;
    let (length, digest) = rest.split_first_chunk::<4>()?;
    Some(Chunk {
        stored_offset: u64::from_le_bytes(*offset),
        stored_bytes: u32::from_le_bytes(*length),
        sha256: Sha256(digest.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Arch, Chunks, Content, FORMAT, Firmware, Stored};
    use proptest::prelude::*;

    const CHUNK: u64 = 1 << 16;

    fn manifest(raw_bytes: u64, stored: (Encoding, u64), table: &[u8]) -> ImageManifest {
        let content = |bytes: u64| Content { bytes, sha256: Sha256::of(table) };
        ImageManifest {
            format: FORMAT,
            name: "n".parse().unwrap(),
            version: "1".parse().unwrap(),
            arch: Arch::X86_64,
            firmware: vec![Firmware::Bios],
            raw: content(raw_bytes),
            stored: Stored { encoding: stored.0, bytes: stored.1, sha256: Sha256::of(table) },
            chunks: Chunks { chunk_bytes: 1 << 16, table: content(table.len() as u64) },
            root: None,
            efi_loader: None,
            kernel: None,
            kubelet: None,
            created: "2026-11-24T00:00:00Z".to_owned(),
        }
    }

    fn read(chunks: &[(u64, u32)], stored: (Encoding, u64)) -> Result<ChunkTable, TableError> {
        let chunks = chunks.iter().map(|(stored_offset, stored_bytes)| Chunk {
            stored_offset: *stored_offset,
            stored_bytes: *stored_bytes,
            sha256: Sha256::of(b""),
        });
        let table = ChunkTable::new(chunks.collect());
        let bytes = table.to_bytes();
        assert_eq!(bytes.len() as u64, table_bytes(table.chunks().len() as u64));
        let manifest = manifest(table.chunks().len() as u64 * CHUNK, stored, &bytes);
        ChunkTable::read(&bytes, &manifest).inspect(|again| assert_eq!(*again, table))
    }

    fn wrong(result: Result<ChunkTable, TableError>) -> (u64, &'static str) {
        match result {
            Err(TableError::Chunk { chunk, what }) => (chunk, what),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_table_is_read_as_it_was_written() {
        assert!(read(&[(0, 100), (100, 0), (100, 50)], (Encoding::Zstd, 150)).is_ok());
        assert!(read(&[(0, 1 << 16), (1 << 16, 1 << 16)], (Encoding::Raw, 2 << 16)).is_ok());
    }

    #[test]
    fn chunks_outside_or_over_each_other_are_named() {
        assert_eq!(
            wrong(read(&[(0, 100), (51, 100)], (Encoding::Zstd, 150))),
            (1, "it ends behind the end of the stored file")
        );
        assert_eq!(wrong(read(&[(0, 100), (50, 100)], (Encoding::Zstd, 150))), (1, "it overlaps the one before"));
        assert_eq!(wrong(read(&[(u64::MAX, 100)], (Encoding::Zstd, 150))), (0, "it ends beyond all numbers"));
        assert_eq!(wrong(read(&[(0, 1 << 20)], (Encoding::Zstd, 1 << 20))).0, 0);
        assert_eq!(wrong(read(&[(512, 1 << 16)], (Encoding::Raw, 2 << 16))).0, 0);
    }

    #[test]
    fn another_table_than_the_signed_one_is_refused() {
        let mut bytes = ChunkTable::new(Vec::new()).to_bytes();
        let manifest = manifest(0, (Encoding::Raw, 0), &bytes);
        bytes[0] ^= 1;
        assert_eq!(ChunkTable::read(&bytes, &manifest), Err(TableError::Digest));
    }

    proptest! {
        #[test]
        fn no_signed_rubbish_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), stored: u64) {
            for encoding in [Encoding::Raw, Encoding::Zstd] {
                for bytes in [bytes.clone(), [MAGIC.as_slice(), &bytes].concat()] {
                    let manifest = manifest(u64::MAX / 2, (encoding, stored), &bytes);
                    let _ = ChunkTable::read(&bytes, &manifest);
                }
            }
        }
    }
}
