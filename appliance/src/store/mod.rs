//! The store: what survives. SQLite behind a narrow seam, a reserve for when SQLite cannot write, an audit chain, and
//! sealed secrets.
//!
//! It must never know why anything was decided: it keeps entries as they are given, in one durable transaction a group.

pub mod audit;
pub mod bmc_registry;
pub mod lock;
pub mod memory;
pub mod reading;
pub mod register;
pub mod reserve;
mod schema;
pub mod secret;
pub mod session_keeper;
pub mod sqlite;

use healing::command::{Intent, Notice};
use healing::event::{Change, Event};
use healing::id::{HostId, IncidentId, StepId};
use healing::time::{Elapsed, Now};
use healing::world::World;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::path::PathBuf;

/// Most entries of one commit.
pub const ENTRIES_MAX: usize = 256;

/// A command as the journal keeps it: without its warrant, which is earned again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The step.
    pub step: StepId,
    /// The incident.
    pub incident: IncidentId,
    /// The host.
    pub host: HostId,
    /// What.
    pub intent: Intent,
}

/// One decided event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was decided.
    pub now: Now,
    /// What was decided on, evidence included.
    pub event: Event,
    /// What changed.
    pub changes: Vec<Change>,
    /// What was ordered.
    pub commands: Vec<Ordered>,
    /// What people were told.
    pub notices: Vec<Notice>,
}

/// What a start finds.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Snapshot and all changes after it.
    pub world: World,
    /// The last entry's number; 0 = none yet.
    pub seq: u64,
    /// When the last entry was decided.
    pub last: Now,
    /// The database is a restored backup: observe-only under a new instance id (rule 45).
    pub restored: bool,
    /// Part of the journal could not be understood: the budget state is unknown (rule 17).
    pub corrupt: bool,
}

/// Why the store did not do what was asked. Each names its consequence and the next step.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another appliance took the lease.
    #[error(
        "another appliance took the site under lease epoch {theirs}: this one must touch nothing; stop it, or let it stand by"
    )]
    Superseded {
        /// The epoch of the other.
        theirs: u64,
    },
    /// Somebody else wrote in between.
    #[error("the journal stands at entry {found}, not at {expected}: nothing was written; reload the world")]
    Conflict {
        /// What the caller believed.
        expected: u64,
        /// What is so.
        found: u64,
    },
    /// No space.
    #[error(
        "the disk of the data directory is full: nothing was written, the appliance only observes; free some space"
    )]
    Full,
    /// There is no database where one was named.
    #[error("{0}: there is no database here; name the data directory of an appliance")]
    NoDatabase(String),
    /// The disk failed.
    #[error("the data directory cannot be read or written ({0}): the appliance only observes; look at the disk")]
    Io(String),
    /// What is there is not what was written.
    #[error("the database is damaged ({0}): the appliance only observes; restore a backup")]
    Corrupt(String),
    /// Written by a later version.
    #[error(
        "the database was written by a later version (schema {found}, this one knows {known}): nothing was touched; start that version"
    )]
    Newer {
        /// What was found.
        found: i64,
        /// What this version knows.
        known: i64,
    },
    /// Another process uses the data directory.
    #[error("another process uses {}: two appliances on one data directory would both act; stop the other one", .0.display())]
    InUse(PathBuf),
    /// The key does not fit.
    #[error("the key does not open this database ({0}): nothing was changed; give the key file it was made with")]
    Key(String),
    /// The reserve is full or was never laid.
    #[error("the reserve cannot take the entry ({0}): nothing was written; people are told, nothing is done")]
    Reserve(String),
    /// A group larger than allowed.
    #[error("{0} entries in one group, {ENTRIES_MAX} are allowed: nothing was written")]
    TooMany(usize),
}

/// The journal. One writer; a contract test suite holds for every implementation.
pub trait Journal: Send + 'static {
    /// Reads the last snapshot and applies all changes after it, those in the reserve included.
    fn load(&mut self) -> impl Future<Output = Result<Loaded, JournalError>> + Send;
    /// Writes a group in one durable transaction; gives the number of its last entry. All or nothing.
    fn commit(
        &mut self,
        epoch: u64,
        expected: u64,
        entries: &[Entry],
    ) -> impl Future<Output = Result<u64, JournalError>> + Send;
    /// The same into the preallocated reserve, when the database cannot be written.
    fn commit_reserve(
        &mut self,
        epoch: u64,
        expected: u64,
        entries: &[Entry],
    ) -> impl Future<Output = Result<u64, JournalError>> + Send;
    /// Tries the database again and takes over what the reserve holds.
    fn recover(&mut self) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// Takes the appliance lease until a moment; gives the new epoch.
    fn acquire_lease(&mut self, until: Elapsed) -> impl Future<Output = Result<u64, JournalError>> + Send;
    /// Renews it, if the epoch is still ours.
    fn renew_lease(&mut self, epoch: u64, until: Elapsed) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// Writes the world whole as of an entry, keeps so many, and prunes entries that no kept snapshot needs.
    fn snapshot(
        &mut self,
        seq: u64,
        world: &World,
        kept: usize,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
}
