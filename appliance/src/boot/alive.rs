//! The mark on the disk that an installer works: an empty file, `.alive`, beside the file of its job.
//!
//! Its reports are in the memory of one instance alone; others, and other processes, see by this that they come.

use protocol::name::Name;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// When the boot servers last showed that the installer of this job comes further. `None`: not yet.
#[must_use]
pub fn last(folder: &Path, name: &Name) -> Option<SystemTime> {
    std::fs::metadata(file(folder, name)).and_then(|about| about.modified()).ok()
}

/// Whether that was within this time. One that seems to lie ahead, by a clock that was set back, is of now.
#[must_use]
pub fn within(folder: &Path, name: &Name, time: Duration) -> bool {
    last(folder, name).is_some_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() < time)
}

/// Marks this moment. It needs no room on the disk, and of no use after a crash it is not synced.
///
/// # Errors
/// When the file system says no.
pub fn show(folder: &Path, name: &Name) -> io::Result<()> {
    let path = file(folder, name);
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    file.set_modified(SystemTime::now())
}

fn file(folder: &Path, name: &Name) -> PathBuf {
    folder.join(format!("{name}.alive"))
}
