//! The data directory: one process at a time, and whose it is.

use super::JournalError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A locked data directory. The lock goes with the value.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

pub(super) fn io(error: &std::io::Error) -> JournalError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        JournalError::Full
    } else {
        JournalError::Io(error.to_string())
    }
}

impl DataDir {
    /// Locks a data directory, making it if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or another process holds it.
    pub fn lock(path: &Path) -> Result<DataDir, JournalError> {
        std::fs::create_dir_all(path).map_err(|e| JournalError::Io(format!("{}: {e}", path.display())))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(|e| JournalError::Io(format!("{}: {e}", path.display())))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path: path.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(path.to_path_buf())),
            Err(TryLockError::Error(error)) => Err(io(&error)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The instance id kept beside the database, if there is one.
    pub(super) fn instance(&self) -> Option<String> {
        let mut text = String::new();
        File::open(self.path.join("instance")).ok()?.take(256).read_to_string(&mut text).ok()?;
        let id = text.trim().to_owned();
        (!id.is_empty()).then_some(id)
    }

    /// Keeps a new instance id, durably; the old one stays until the new one is whole.
    pub(super) fn set_instance(&self, id: &str) -> Result<(), JournalError> {
        let beside = self.path.join("instance.new");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(id.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, self.path.join("instance"))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|e| io(&e))
    }
}

/// Random bytes of the operating system.
///
/// # Errors
/// The system has no randomness to give.
pub fn random<const N: usize>() -> Result<[u8; N], JournalError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| JournalError::Io(format!("no randomness: {e}")))?;
    Ok(bytes)
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
