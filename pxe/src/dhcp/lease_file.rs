//! The leases of the dynamic ranges on the disk: a text file that only grows and is written anew when it has become long.
//! An answer that gives an address goes out when its line is on the disk itself, not before; one synchronisation serves
//! all answers that wait for one. A last line that was cut by a power failure is left out.
//!
//! Behind its last line the file is zeros, written ahead in large steps: a synchronisation then has only the lines to bring
//! to the disk, and no change of the file's length, which would wait for all that others write to the file system.

use super::lease::LeaseChange;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An open lease file.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    file: Arc<File>,
    lines: u64,
    /// Bytes of lines, written or under way.
    length: u64,
    /// Bytes of the file, with the zeros ahead.
    ahead: u64,
    /// Lines that are not written yet.
    waiting: String,
    /// See [`LeaseFile::second_passed`].
    look_is_due: bool,
}

/// Zeros that are written ahead at once: some 20,000 leases.
const AHEAD_BYTES: usize = 1 << 20;

/// Lines on their way to the disk. It waits for the disk, so it runs on a thread that may.
#[derive(Debug)]
pub struct Commit {
    path: PathBuf,
    file: Arc<File>,
    at: u64,
    /// Where zeros are to be written first, and how many.
    zeros: Option<(u64, usize)>,
    text: String,
}

impl Commit {
    /// Writes the lines. They are on the disk itself when this returns.
    ///
    /// # Errors
    /// When they cannot be written: the answers that wait for them must not go out.
    pub fn run(self) -> Result<(), LeaseFileError> {
        let file = self.file.as_ref();
        let write = || {
            if let Some((at, count)) = self.zeros {
                file.write_all_at(&vec![0; count], at)?;
                file.sync_all()?;
            }
            file.write_all_at(self.text.as_bytes(), self.at)?;
            file.sync_data()
        };
        write().map_err(|source| LeaseFileError::Io { path: self.path, source })
    }
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
        // Only what ends with a newline was written whole; what stands behind a zero was never acknowledged.
        let text = text.split('\0').next().unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or_default());
        let mut changes = Vec::new();
        for (index, line) in whole.lines().enumerate() {
            changes.push(read(line).ok_or_else(|| LeaseFileError::Damaged { path: path.to_owned(), line: index + 1 })?);
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        let length = whole.len() as u64;
        file.set_len(length).map_err(failed)?;
        let (lines, file) = (changes.len() as u64, Arc::new(file));
        let (waiting, look_is_due) = (String::new(), false);
        Ok((Self { path: path.to_owned(), file, lines, length, ahead: length, waiting, look_is_due }, changes))
    }

    /// Takes one change up. [`LeaseFile::take`] gives it, and all others since, to be written.
    pub fn append(&mut self, change: LeaseChange) {
        self.waiting.push_str(&line(change));
        self.lines += 1;
    }

    /// All that was appended since the last time, to be written. One after the other: two at once would mix their lines.
    pub fn take(&mut self) -> Option<Commit> {
        if self.waiting.is_empty() {
            return None;
        }
        let text = std::mem::take(&mut self.waiting);
        let at = self.length;
        self.length = at.saturating_add(text.len() as u64);
        let zeros = (self.length > self.ahead).then(|| {
            let count = text.len().saturating_add(AHEAD_BYTES);
            (std::mem::replace(&mut self.ahead, at.saturating_add(count as u64)), count)
        });
        Some(Commit { path: self.path.clone(), file: Arc::clone(&self.file), at, zeros, text })
    }

    /// The clock wants to know whether the file has become long. It waits for its turn between two [`Commit`]s: under load
    /// one nearly always runs when a second is over, and the file would grow without end.
    pub const fn second_passed(&mut self) {
        self.look_is_due = true;
    }

    /// Whether it is to be seen now if the file has become long; once for each second. Ask when no [`Commit`] runs, and before
    /// the next is taken.
    #[must_use]
    pub fn take_look(&mut self) -> bool {
        std::mem::take(&mut self.look_is_due)
    }

    /// Whether the file holds far more lines than there are leases.
    #[must_use]
    pub const fn is_long(&self, leases: u64) -> bool {
        self.lines > 10_000 + 4 * leases
    }

    /// Writes the file anew with these leases alone. Never while a [`Commit`] runs: that one writes to the old file. Changes
    /// that wait to be taken are in these leases already; their lines follow, and say it once more.
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
        // The new name is on the disk when the folder is.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        self.file = Arc::new(OpenOptions::new().write(true).open(&self.path).map_err(failed)?);
        self.length = text.len() as u64;
        self.ahead = self.length;
        self.lines = lines + self.waiting.lines().count() as u64;
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
            file.append(change);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"", "nothing is written before it is taken");
        file.take().unwrap().run().unwrap();
        assert!(file.take().is_none());
        let whole = std::fs::read(&path).unwrap();
        assert!(whole.len() > AHEAD_BYTES, "zeros are ahead");
        let end = whole.iter().position(|byte| *byte == 0).unwrap();
        // Cut by a power failure, and a later page was on the disk already.
        std::fs::write(&path, [&whole[..end - 5], &[0; 9], b"lease 10.0.0.9 02:00:00:00:00:09 1\n"].concat()).unwrap();
        let (mut file, read) = LeaseFile::open(&path).unwrap();
        assert_eq!(read.len(), 2, "the cut line is left out");
        file.append(leased(3));
        file.take().unwrap().run().unwrap();
        assert_eq!(LeaseFile::open(&path).unwrap().1[2], leased(3));
        file.rewrite([leased(4)].into_iter()).unwrap();
        file.append(leased(5));
        file.take().unwrap().run().unwrap();
        assert_eq!(LeaseFile::open(&path).unwrap().1, [leased(4), leased(5)]);
        std::fs::write(&path, "lease 10.0.0.1 nonsense 1\nrelease 10.0.0.1\n").unwrap();
        assert!(matches!(LeaseFile::open(&path), Err(LeaseFileError::Damaged { line: 1, .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn under_load_the_file_is_made_short_between_two_commits() {
        let folder = std::env::temp_dir().join(format!("rackmedic-lease-load-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("leases");
        let leased = |seconds: u64| LeaseChange::Leased {
            address: Ipv4Addr::new(10, 0, 0, 1),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            until: Duration::from_secs(1_800_000_000 + seconds),
        };
        let (mut file, _) = LeaseFile::open(&path).unwrap();
        assert!(!file.take_look(), "nothing is due before a second has passed");
        // Given lines under way to the disk when the second is over, and more that wait behind them
        (0..10_005).for_each(|seconds| file.append(leased(seconds)));
        let commit = file.take().unwrap();
        file.second_passed();
        file.append(leased(10_005));
        // When they are on the disk, then the look is due, once, before the next are taken
        commit.run().unwrap();
        assert!(file.take_look());
        assert!(!file.take_look());
        assert!(file.is_long(1));
        file.rewrite([leased(10_005)].into_iter()).unwrap();
        assert!(!file.is_long(1));
        assert_eq!(LeaseFile::open(&path).unwrap().1, [leased(10_005)], "what waits is on the disk already");
        // And what waited is written behind it
        file.append(leased(10_006));
        file.take().unwrap().run().unwrap();
        assert_eq!(LeaseFile::open(&path).unwrap().1, [leased(10_005), leased(10_005), leased(10_006)]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
