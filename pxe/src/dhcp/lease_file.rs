//! The leases of the dynamic ranges on the disk: a text file that only grows, written before the answer goes out, and
//! written anew at each start. A last line that was cut by a power failure is left out.

use super::lease::LeaseChange;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An open lease file.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    file: File,
    lines: u64,
    unsynced: bool,
}

/// The file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFileError {
    /// The file system says no.
    #[error("the lease file {path}: {source}; no dynamic address is given")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A line in the middle makes no sense.
    #[error("the lease file {path} is damaged at line {line}: move it away to begin with no leases")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl LeaseFile {
    /// Reads what is there and opens the file for more.
    ///
    /// # Errors
    /// When it cannot be read, written or understood.
    pub fn open(path: &Path) -> Result<(Self, Vec<LeaseChange>), LeaseFileError> {
        let failed = |source| LeaseFileError::Io { path: path.to_owned(), source };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(failed(e)),
        };
        // Only what ends with a newline was written whole.
        let whole = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or_default());
        let mut changes = Vec::new();
        for (index, line) in whole.lines().enumerate() {
            changes.push(read(line).ok_or_else(|| LeaseFileError::Damaged { path: path.to_owned(), line: index + 1 })?);
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        file.set_len(whole.len() as u64).map_err(failed)?;
        Ok((Self { path: path.to_owned(), file, lines: changes.len() as u64, unsynced: false }, changes))
    }

    /// Writes one change. It is with the kernel when this returns; [`LeaseFile::sync`] brings it to the disk.
    ///
    /// # Errors
    /// When it cannot be written: the answer must not go out.
    pub fn append(&mut self, change: LeaseChange) -> Result<(), LeaseFileError> {
        self.file
            .write_all(line(change).as_bytes())
            .map_err(|source| LeaseFileError::Io { path: self.path.clone(), source })?;
        self.lines += 1;
        self.unsynced = true;
        Ok(())
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> Result<(), LeaseFileError> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data().map_err(|source| LeaseFileError::Io { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Whether the file holds far more lines than there are leases.
    #[must_use]
    pub const fn is_long(&self, leases: u64) -> bool {
        self.lines > 10_000 + 4 * leases
    }

    /// Writes the file anew with these leases alone.
    ///
    /// # Errors
    /// When it cannot be written; the old file then stays.
    pub fn rewrite(&mut self, leases: impl Iterator<Item = LeaseChange>) -> Result<(), LeaseFileError> {
        let failed = |source| LeaseFileError::Io { path: self.path.clone(), source };
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside).map_err(failed)?;
        let mut text = String::new();
        let mut lines = 0;
        for lease in leases {
            text.push_str(&line(lease));
            lines += 1;
        }
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&beside, &self.path).map_err(failed)?;
        self.file = OpenOptions::new().append(true).open(&self.path).map_err(failed)?;
        self.lines = lines;
        Ok(())
    }
}

fn line(change: LeaseChange) -> String {
    match change {
        LeaseChange::Leased { address, mac, until } => format!("lease {address} {mac} {}\n", until.as_secs()),
        LeaseChange::Released { address } => format!("release {address}\n"),
        LeaseChange::Declined { address, until } => format!("declined {address} {}\n", until.as_secs()),
    }
}

fn read(line: &str) -> Option<LeaseChange> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let address: Ipv4Addr = words.next()?.parse().ok()?;
    let change = match kind {
        "lease" => LeaseChange::Leased {
            address,
            mac: words.next()?.parse().ok()?,
            until: Duration::from_secs(words.next()?.parse().ok()?),
        },
        "release" => LeaseChange::Released { address },
        "declined" => LeaseChange::Declined { address, until: Duration::from_secs(words.next()?.parse().ok()?) },
        _ => return None,
    };
    words.next().is_none().then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::Mac;

    #[test]
    fn leases_survive_a_cut_line_and_a_damaged_one_is_named() {
        let folder = std::env::temp_dir().join(format!("rackmedic-leases-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("leases");
        let _ = std::fs::remove_file(&path);
        let leased = |last: u8| LeaseChange::Leased {
            address: Ipv4Addr::new(10, 0, 0, last),
            mac: Mac([2, 0, 0, 0, 0, last]),
            until: Duration::from_secs(1_800_000_000),
        };
        let (mut file, before) = LeaseFile::open(&path).unwrap();
        assert_eq!(before, []);
        for change in [leased(1), LeaseChange::Released { address: Ipv4Addr::new(10, 0, 0, 1) }, leased(2)] {
            file.append(change).unwrap();
        }
        file.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let (mut file, read) = LeaseFile::open(&path).unwrap();
        assert_eq!(read.len(), 2, "the cut line is left out");
        file.append(leased(3)).unwrap();
        assert_eq!(LeaseFile::open(&path).unwrap().1[2], leased(3));
        file.rewrite([leased(4)].into_iter()).unwrap();
        file.append(leased(5)).unwrap();
        assert_eq!(LeaseFile::open(&path).unwrap().1, [leased(4), leased(5)]);
        std::fs::write(&path, "lease 10.0.0.1 nonsense 1\nrelease 10.0.0.1\n").unwrap();
        assert!(matches!(LeaseFile::open(&path), Err(LeaseFileError::Damaged { line: 1, .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
