//! The one disk that is written: opened for nobody else, past the page cache.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What O_DIRECT wants buffers aligned to, on every disk.
const ALIGNMENT: usize = 4096;

/// A buffer whose bytes are aligned for O_DIRECT.
#[derive(Debug)]
pub struct Aligned {
    bytes: Vec<u8>,
    offset: usize,
    length: usize,
}

impl Aligned {
    /// Zeros.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length.saturating_add(ALIGNMENT)];
        let offset = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, offset, length }
    }

    /// The same memory for so many bytes, whatever they are; new memory, zeros, if it is too small for them.
    #[must_use]
    pub fn resized(self, length: usize) -> Self {
        let fits = self.offset.saturating_add(length) <= self.bytes.len();
        if fits { Self { length, ..self } } else { Self::new(length) }
    }

    /// The bytes.
    #[must_use]
    pub fn get(&self) -> &[u8] {
        self.bytes.get(self.offset..).and_then(|rest| rest.get(..self.length)).unwrap_or_default()
    }

    /// The bytes, to be changed.
    pub fn get_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.offset..).and_then(|rest| rest.get_mut(..self.length)).unwrap_or_default()
    }
}

/// The disk.
#[derive(Debug)]
pub struct Target(File);

impl Target {
    /// Opens it for writing. A disk that is mounted, or held by a RAID or a volume manager, is refused by the kernel
    /// (`O_EXCL` on a block device, open(2)).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?.into()))
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.0
    }

    /// Reads from there into the whole buffer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self, at: u64, buffer: &mut Aligned) -> io::Result<()> {
        self.0.read_exact_at(buffer.get_mut(), at)
    }

    /// Writes these buffers there, one behind the other.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, at: u64, buffers: &[Aligned]) -> io::Result<()> {
        let parts: Vec<io::IoSlice<'_>> = buffers.iter().map(|buffer| io::IoSlice::new(buffer.get())).collect();
        let whole: usize = buffers.iter().map(|buffer| buffer.get().len()).sum();
        match rustix::io::pwritev(&self.0, &parts, at) {
            Ok(written) if written == whole => return Ok(()),
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            // Cut short: the same bytes once more, buffer by buffer, which says where it fails.
            Ok(_) | Err(_) => {}
        }
        let mut place = at;
        for buffer in buffers {
            self.0.write_all_at(buffer.get(), place)?;
            place = place.saturating_add(buffer.get().len() as u64);
        }
        Ok(())
    }

    /// Everything is on the disk itself, not in its cache.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
