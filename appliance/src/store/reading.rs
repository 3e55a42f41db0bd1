//! Reading what was decided, beside a running appliance: read-only, without lock and without key.

use super::sqlite::{database, entry, is_there, read_only, wrong};
use super::{Entry, JournalError};
use healing::policy::{Policy, Site};
use healing::world::World;
use healing::world::incident::Incident;
use sqlx::{Connection, Row as _, SqliteConnection};
use std::path::Path;

/// Entries read at a time.
const PAGE: i64 = 1_000;

/// The records of a data directory.
#[derive(Debug)]
pub struct Records {
    connection: SqliteConnection,
    after: i64,
    unreadable: u64,
}

impl Records {
    /// Opens the records; gives the world as of just before the first entry that will be read.
    ///
    /// # Errors
    /// There is no database, or it cannot be read.
    pub async fn open(directory: &Path) -> Result<(Records, World), JournalError> {
        let path = database(directory);
        if !is_there(&path)? {
            return Err(JournalError::NoDatabase(path.display().to_string()));
        }
        let mut connection = SqliteConnection::connect_with(&read_only(&path)).await.map_err(|e| wrong(&e))?;
        let first: Option<i64> =
            sqlx::query("SELECT min(seq) FROM journal").fetch_one(&mut connection).await.map_err(|e| wrong(&e))?.get(0);
        let fresh = World::new(&Policy::<Site>::default());
        if first == Some(1) {
            return Ok((Records { connection, after: 0, unreadable: 0 }, fresh));
        }
        let rows = sqlx::query("SELECT seq, world FROM snapshot ORDER BY seq")
            .fetch_all(&mut connection)
            .await
            .map_err(|e| wrong(&e))?;
        let oldest = rows.iter().find_map(|row| {
            let world = serde_json::from_str(&row.try_get::<String, _>("world").ok()?).ok()?;
            Some((row.try_get::<i64, _>("seq").ok()?, world))
        });
        let (after, world) = oldest.unwrap_or((0, fresh));
        Ok((Records { connection, after, unreadable: 0 }, world))
    }

    /// The next entries with their numbers, in order; empty at the end.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn next(&mut self) -> Result<Vec<(u64, Entry)>, JournalError> {
        loop {
            let rows = sqlx::query("SELECT * FROM journal WHERE seq > ? ORDER BY seq LIMIT ?")
                .bind(self.after)
                .bind(PAGE)
                .fetch_all(&mut self.connection)
                .await
                .map_err(|e| wrong(&e))?;
            let Some(last) = rows.last() else { return Ok(Vec::new()) };
            self.after = last.get("seq");
            let read: Vec<(u64, Entry)> = rows.iter().filter_map(entry).collect();
            self.unreadable += (rows.len() - read.len()) as u64;
            if !read.is_empty() {
                return Ok(read);
            }
        }
    }

    /// Entries that this version does not understand, so far.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// The last incidents that ended, oldest first, with the moment of their end in Unix milliseconds; beside a running
/// appliance.
///
/// # Errors
/// There is no database, or it cannot be read.
pub async fn ended(directory: &Path, most: usize) -> Result<Vec<(Incident, i64)>, JournalError> {
    let path = database(directory);
    if !is_there(&path)? {
        return Err(JournalError::NoDatabase(path.display().to_string()));
    }
    let mut connection = SqliteConnection::connect_with(&read_only(&path)).await.map_err(|e| wrong(&e))?;
    let rows = sqlx::query("SELECT record, ended_ms FROM incident ORDER BY id DESC LIMIT ?")
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut connection)
        .await
        .map_err(|e| wrong(&e))?;
    // A record of a version that knew more is left out.
    let read = |row: &sqlx::sqlite::SqliteRow| {
        Some((serde_json::from_str(&row.try_get::<String, _>("record").ok()?).ok()?, row.try_get("ended_ms").ok()?))
    };
    let mut all: Vec<(Incident, i64)> = rows.iter().filter_map(read).collect();
    all.reverse();
    Ok(all)
}
