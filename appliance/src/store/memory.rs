//! A journal in memory with faults on demand: for tests and benchmarks of the loop, held to the same contract.

use super::{ENTRIES_MAX, Entry, Journal, JournalError, Loaded};
use healing::time::{Elapsed, Now};
use healing::world::World;

/// What is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Commits fail as on a full disk.
    pub full: bool,
    /// The reserve fails too.
    pub reserve_full: bool,
    /// This many more commits succeed; then one fails, once.
    pub fail_after: Option<u64>,
}

/// The journal.
#[derive(Debug, Clone)]
pub struct MemoryJournal {
    fresh: World,
    entries: Vec<Entry>,
    reserve: Vec<Entry>,
    snapshot: Option<(u64, World)>,
    epoch: u64,
    until: Elapsed,
    /// What goes wrong from now on.
    pub faults: Faults,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new(fresh: World) -> MemoryJournal {
        MemoryJournal {
            fresh,
            entries: Vec::new(),
            reserve: Vec::new(),
            snapshot: None,
            epoch: 0,
            until: Elapsed::default(),
            faults: Faults::default(),
        }
    }

    /// All entries, those in the reserve last.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(&self.reserve)
    }

    /// Until when the lease holds.
    #[must_use]
    pub fn lease_until(&self) -> Elapsed {
        self.until
    }
}

impl Journal for MemoryJournal {
    async fn load(&mut self) -> Result<Loaded, JournalError> {
        let (seq, mut world) = self.snapshot.clone().unwrap_or((0, self.fresh.clone()));
        let skip = usize::try_from(seq).unwrap_or(usize::MAX);
        for change in self.entries().skip(skip).flat_map(|e| &e.changes) {
            world.apply(change);
        }
        let last = self.entries().last().map_or(Now::default(), |e| e.now);
        let seq = (self.entries.len() + self.reserve.len()) as u64;
        Ok(Loaded { world, seq, last, restored: false, corrupt: false })
    }

    async fn commit(&mut self, epoch: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        if entries.len() > ENTRIES_MAX {
            return Err(JournalError::TooMany(entries.len()));
        }
        if self.epoch > epoch {
            return Err(JournalError::Superseded { theirs: self.epoch });
        }
        if self.faults.full {
            return Err(JournalError::Full);
        }
        if self.faults.fail_after == Some(0) {
            self.faults.fail_after = None;
            return Err(JournalError::Io("as ordered".to_owned()));
        }
        let found = self.entries.len() as u64;
        if found != expected {
            return Err(JournalError::Conflict { expected, found });
        }
        self.faults.fail_after = self.faults.fail_after.map(|left| left - 1);
        self.entries.extend_from_slice(entries);
        Ok(self.entries.len() as u64)
    }

    async fn commit_reserve(&mut self, _epoch: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        if self.faults.reserve_full {
            return Err(JournalError::Reserve("as ordered".to_owned()));
        }
        self.reserve.extend_from_slice(entries);
        Ok(expected + entries.len() as u64)
    }

    async fn recover(&mut self) -> Result<(), JournalError> {
        if self.faults.full {
            return Err(JournalError::Full);
        }
        self.entries.append(&mut self.reserve);
        Ok(())
    }

    async fn acquire_lease(&mut self, until: Elapsed) -> Result<u64, JournalError> {
        self.epoch += 1;
        self.until = until;
        Ok(self.epoch)
    }

    async fn renew_lease(&mut self, epoch: u64, until: Elapsed) -> Result<(), JournalError> {
        if self.epoch != epoch {
            return Err(JournalError::Superseded { theirs: self.epoch });
        }
        self.until = until;
        Ok(())
    }

    async fn snapshot(&mut self, seq: u64, world: &World, _kept: usize) -> Result<(), JournalError> {
        self.snapshot = Some((seq, world.clone()));
        Ok(())
    }
}
