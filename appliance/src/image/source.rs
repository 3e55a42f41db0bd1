//! What an image comes from: raw, `.zst` or `.gz`; everything else is refused with the command that converts it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system, or the decompressor, says.
        source: io::Error,
    },
    /// It is of another kind.
    #[error("{path} is {kind}, and a disk is written from raw bytes: convert it first: {command}")]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
        /// What to run.
        command: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Zstd,
    Gzip,
}

/// An image that is being read.
pub struct Source {
    reader: Box<dyn Read + Send>,
    /// Bytes of the file, as it lies there.
    pub file_bytes: u64,
    /// Bytes of the file that were read so far.
    pub read_bytes: Arc<AtomicU64>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("file_bytes", &self.file_bytes).finish_non_exhaustive()
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

struct Counting {
    file: File,
    count: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// How much of a file tells its kind: an ISO 9660 volume says so behind 32 KiB.
const LOOK_BYTES: u64 = 36 * 1024;

impl Source {
    /// Opens a file and looks at what it is.
    ///
    /// # Errors
    /// When it cannot be read, or is of a kind that is not taken.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no ordinary file")));
        }
        let mut look = Vec::new();
        file.by_ref().take(LOOK_BYTES).read_to_end(&mut look).map_err(failed)?;
        let compression = kind(&look).map_err(|(kind, command)| SourceError::Kind {
            path: path.to_owned(),
            kind,
            command: command.replace("FILE", &path.display().to_string()),
        })?;
        // A fixed VHD has its mark only at its end.
        if about.len() > 512 {
            let mut tail = [0; 512];
            file.seek(SeekFrom::End(-512)).and_then(|_| file.read_exact(&mut tail)).map_err(failed)?;
            if tail.starts_with(b"conectix") {
                let command = format!("qemu-img convert -f vpc -O raw {} disk.raw", path.display());
                return Err(SourceError::Kind { path: path.to_owned(), kind: "a VHD disk", command });
            }
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let read_bytes = Arc::new(AtomicU64::new(0));
        let file = BufReader::with_capacity(1 << 20, Counting { file, count: Arc::clone(&read_bytes) });
        let reader: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(failed)?;
                // zstd --ultra --long makes windows up to 2 GiB; 128 MiB is what plain `zstd -d` takes as well.
                decoder.window_log_max(27).map_err(failed)?;
                Box::new(decoder)
            }
        };
        Ok(Self { reader, file_bytes: about.len(), read_bytes })
    }
}

type Refused = (&'static str, &'static str);

fn kind(look: &[u8]) -> Result<Compression, Refused> {
    let at = |offset: usize, magic: &[u8]| look.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let refused: [(bool, &'static str, &'static str); 13] = [
        (at(0, b"QFI\xfb"), "a qcow2 disk", "qemu-img convert -f qcow2 -O raw FILE disk.raw"),
        (at(0, b"KDMV"), "a VMDK disk", "qemu-img convert -f vmdk -O raw FILE disk.raw"),
        (at(0, b"# Disk Desc"), "the description of a VMDK disk", "qemu-img convert -f vmdk -O raw FILE disk.raw"),
        (at(0, b"conectix"), "a VHD disk", "qemu-img convert -f vpc -O raw FILE disk.raw"),
        (at(0, b"vhdxfile"), "a VHDX disk", "qemu-img convert -f vhdx -O raw FILE disk.raw"),
        (at(64, b"\x7f\x10\xda\xbe"), "a VDI disk", "qemu-img convert -f vdi -O raw FILE disk.raw"),
        (at(0, b"\xfd7zXZ\0"), "compressed with xz", "xz -dc FILE | zstd -T0 -o disk.raw.zst"),
        (at(0, b"BZh"), "compressed with bzip2", "bzip2 -dc FILE | zstd -T0 -o disk.raw.zst"),
        (at(0, b"\x04\"M\x18"), "compressed with lz4", "lz4 -dc FILE | zstd -T0 -o disk.raw.zst"),
        (at(0, b"PK\x03\x04"), "a ZIP archive", "unzip -p FILE | zstd -T0 -o disk.raw.zst"),
        (at(257, b"ustar"), "a tar archive", "tar -xf FILE (and import the disk inside)"),
        (
            at(32769, b"CD001"),
            "an ISO 9660 image, that is an installer or a live system and not a disk",
            "use the cloud or disk image of the same release",
        ),
        (look.is_empty(), "empty", "ls -l FILE (and fetch or build it again)"),
    ];
    for (is, kind, command) in refused {
        if is {
            return Err((kind, command));
        }
    }
    Ok(match () {
        () if at(0, b"\x28\xb5\x2f\xfd") => Compression::Zstd,
        () if at(0, b"\x1f\x8b") => Compression::Gzip,
        () => Compression::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_are_refused_with_the_command_that_converts_them() {
        for (magic, says) in [
            (&b"QFI\xfb"[..], "qemu-img convert -f qcow2"),
            (b"KDMV", "vmdk"),
            (b"\xfd7zXZ\0", "xz -dc"),
            (b"BZh9", "bzip2"),
            (b"PK\x03\x04", "unzip"),
        ] {
            let mut look = vec![0; 4096];
            look[..magic.len()].copy_from_slice(magic);
            assert!(kind(&look).unwrap_err().1.contains(says));
        }
        let mut iso = vec![0; 36 * 1024];
        iso[32769..32774].copy_from_slice(b"CD001");
        iso[510..512].copy_from_slice(b"\x55\xaa");
        assert!(kind(&iso).unwrap_err().0.contains("ISO"), "though it has a boot sector as well");
        assert_eq!(kind(&[0; 4096]), Ok(Compression::None));
        assert_eq!(kind(b"\x1f\x8b\x08"), Ok(Compression::Gzip));
    }
}
