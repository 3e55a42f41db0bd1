//! A place in the store that nobody sees until it is whole.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why something is not shelved.
#[derive(Debug, thiserror::Error)]
pub enum ShelveError {
    /// The file system says no.
    #[error("the store, {path}: {source}; nothing was added")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// It is there.
    #[error(
        "{0} is there already: a version is never overwritten, for hosts may be writing it. Choose another version"
    )]
    Exists(PathBuf),
    /// Somebody else is at it.
    #[error("another import is at work in {0}: wait for its end")]
    Busy(PathBuf),
}

/// A folder that is being filled. Dropped before [`Shelved::finish`], it is removed.
#[derive(Debug)]
pub struct Shelved {
    folder: PathBuf,
    target: PathBuf,
    finished: bool,
    /// Held as long as this lives: one import at a time in one folder.
    _lock: File,
}

impl Shelved {
    /// A place for `target`, which must not be there.
    ///
    /// # Errors
    /// When it is, or cannot be made.
    pub fn begin(target: &Path) -> Result<Self, ShelveError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ShelveError::Io { path, source }
        };
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(failed(target)(io::Error::new(io::ErrorKind::InvalidInput, "it is no place in a store")));
        };
        std::fs::create_dir_all(parent).map_err(failed(parent))?;
        let lock_path = parent.join(".lock");
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| ShelveError::Busy(parent.to_owned()))?;
        if target.exists() {
            return Err(ShelveError::Exists(target.to_owned()));
        }
        // What a kill has left, of this version or another: with the lock in hand it is nobody's.
        for entry in std::fs::read_dir(parent).map_err(failed(parent))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".new-") {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let folder = parent.join(format!(".new-{}", name.to_string_lossy()));
        std::fs::create_dir(&folder).map_err(failed(&folder))?;
        Ok(Self { folder, target: target.to_owned(), finished: false, _lock: lock })
    }

    /// Where the files go.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts it in its place: everything is on the disk before it has its name, and the name is when this returns.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn finish(mut self) -> Result<PathBuf, ShelveError> {
        let failed = |source| ShelveError::Io { path: self.folder.clone(), source };
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            File::open(entry.map_err(failed)?.path()).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        std::fs::rename(&self.folder, &self.target).map_err(failed)?;
        self.finished = true;
        if let Some(parent) = self.target.parent() {
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(self.target.clone())
    }
}

impl Drop for Shelved {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
