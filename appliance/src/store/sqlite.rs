//! The journal in SQLite: WAL, `synchronous=FULL`, one writer, everything of a group in one transaction.

mod chain;
mod connection;

pub use chain::{verify_audit, verify_audit_by};
use connection::{connect, identify, meta, meta_number, migrate, options, set_meta};
pub(super) use connection::{database, is_there, read_only};

use super::audit;
use super::lock::{DataDir, hex};
use super::reserve::{Frame, Reserve};
use super::secret::{OuterKey, Sealer, Secret};
use super::{ENTRIES_MAX, Entry, Journal, JournalError, Loaded};
use healing::command::Loudness;
use healing::event::{Change, Event};
use healing::time::{Elapsed, Now};
use healing::world::World;
use sqlx::{ConnectOptions, Connection, Row as _, SqliteConnection};
use std::path::Path;
use std::sync::Arc;

/// Closed incidents kept at most.
const INCIDENTS_KEPT: i64 = 100_000;
/// Outbox rows kept at most: what is older is dead and shown as such.
const OUTBOX_KEPT: i64 = 100_000;
/// Rows of the audit that stay when a snapshot is taken; older ones go behind a signed checkpoint.
const AUDIT_KEPT: u32 = 1_000_000;

/// The journal of a data directory.
pub struct SqliteJournal {
    directory: DataDir,
    connection: Option<SqliteConnection>,
    reserve: Reserve,
    fresh: World,
    restored: bool,
    sealer: Arc<Sealer>,
    audit_seed: [u8; 32],
}

impl std::fmt::Debug for SqliteJournal {
    // The seed of the audit's signatures is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteJournal").field("directory", &self.directory).finish_non_exhaustive()
    }
}

pub(super) fn wrong(error: &sqlx::Error) -> JournalError {
    let text = error.to_string();
    if let sqlx::Error::Database(inner) = error {
        // SQLite result codes: the low byte is the primary one.
        let primary = inner.code().and_then(|c| c.parse::<i64>().ok()).map(|c| c & 0xff);
        return match primary {
            Some(13) => JournalError::Full,
            Some(11 | 26) => JournalError::Corrupt(text),
            // A file that was emptied, or is somebody else's database.
            Some(1) if text.contains("no such table") => JournalError::Corrupt(text),
            _ => JournalError::Io(text),
        };
    }
    match error {
        sqlx::Error::Io(inner) => super::lock::io(inner),
        _ => JournalError::Io(text),
    }
}

pub(super) trait OrWrong<T> {
    fn or_wrong(self) -> Result<T, JournalError>;
}

impl<T> OrWrong<T> for Result<T, sqlx::Error> {
    fn or_wrong(self) -> Result<T, JournalError> {
        self.map_err(|e| wrong(&e))
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|e| JournalError::Io(format!("an entry cannot be written as JSON: {e}")))
}

impl SqliteJournal {
    /// Opens the journal of a data directory, making it if it is not there. `fresh` is the world of a first start.
    ///
    /// # Errors
    /// The directory is in use, the database is damaged or newer, the key is another one, or the disk fails.
    pub async fn open(directory: &Path, key: &OuterKey, fresh: World) -> Result<SqliteJournal, JournalError> {
        let directory = DataDir::lock(directory)?;
        let reserve = Reserve::open(directory.path())?;
        let mut connection = connect(&database(directory.path())).await?;
        migrate(&mut connection).await?;
        let sealer = match meta(&mut connection, "data_key").await? {
            Some(wrapped) => Sealer::open(key, &unhex(&wrapped))?,
            None => {
                let (sealer, wrapped) = Sealer::make(key)?;
                set_meta(&mut connection, "data_key", &hex(&wrapped)).await?;
                sealer
            }
        };
        let audit_seed = key.audit_seed();
        set_meta(&mut connection, "audit_key", &hex(&audit::public_key(&audit_seed))).await?;
        let restored = identify(&directory, &mut connection).await?;
        let sealer = Arc::new(sealer);
        let connection = Some(connection);
        let mut journal = SqliteJournal { directory, connection, reserve, fresh, restored, sealer, audit_seed };
        journal.sign_audit().await;
        Ok(journal)
    }

    pub(super) async fn connection(&mut self) -> Result<&mut SqliteConnection, JournalError> {
        if self.connection.is_none() {
            self.connection = Some(connect(&database(self.directory.path())).await?);
        }
        self.connection.as_mut().ok_or_else(|| JournalError::Io("no connection".to_owned()))
    }

    /// A further connection to the same database.
    pub(super) async fn beside(&self) -> Result<SqliteConnection, JournalError> {
        options(&database(self.directory.path())).connect().await.or_wrong()
    }

    /// What seals the secrets of this data directory.
    #[must_use]
    pub fn sealer(&self) -> Arc<Sealer> {
        Arc::clone(&self.sealer)
    }

    /// Keeps a secret, sealed for its row and column.
    ///
    /// # Errors
    /// It is too long or the disk fails.
    pub async fn put_secret(&mut self, row: &str, column: &str, secret: &Secret) -> Result<(), JournalError> {
        let sealed = self.sealer.seal(row, column, secret)?;
        sqlx::query(
            "INSERT INTO secret (row, column, sealed) VALUES (?, ?, ?) \
             ON CONFLICT (row, column) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(row)
        .bind(column)
        .bind(sealed)
        .execute(self.connection().await?)
        .await
        .or_wrong()?;
        Ok(())
    }

    /// Opens a secret.
    ///
    /// # Errors
    /// It was changed or moved, or the disk fails.
    pub async fn secret(&mut self, row: &str, column: &str) -> Result<Option<Secret>, JournalError> {
        let found = sqlx::query("SELECT sealed FROM secret WHERE row = ? AND column = ?")
            .bind(row)
            .bind(column)
            .fetch_optional(self.connection().await?)
            .await
            .or_wrong()?;
        let Some(found) = found else { return Ok(None) };
        let sealed: Vec<u8> = found.get(0);
        self.sealer.open_secret(row, column, &sealed).map(Some)
    }

    /// Entries after a number, at most so many, for replay. What cannot be understood is left out and counted.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn read_from(&mut self, after: u64, most: u32) -> Result<(Vec<(u64, Entry)>, u64), JournalError> {
        let rows = sqlx::query("SELECT * FROM journal WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(number(after))
            .bind(most)
            .fetch_all(self.connection().await?)
            .await
            .or_wrong()?;
        let mut entries = Vec::new();
        let mut unreadable = 0;
        for row in &rows {
            match entry(row) {
                Some(read) => entries.push(read),
                None => unreadable += 1,
            }
        }
        Ok((entries, unreadable))
    }

    async fn write(&mut self, epoch: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        if entries.len() > ENTRIES_MAX {
            return Err(JournalError::TooMany(entries.len()));
        }
        let seed = self.audit_seed;
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.or_wrong()?;
        let theirs = meta_number(&mut transaction, "epoch").await?;
        if theirs > epoch {
            return Err(JournalError::Superseded { theirs });
        }
        let found = meta_number(&mut transaction, "seq").await?;
        if found != expected {
            return Err(JournalError::Conflict { expected, found });
        }
        let mut policy = meta_number(&mut transaction, "policy_version").await?;
        let mut seq = expected;
        let mut restoring_known = false;
        for entry in entries {
            seq += 1;
            for change in &entry.changes {
                if let Change::Limits { version, .. } = change {
                    policy = u64::from(*version);
                    set_meta(&mut transaction, "policy_version", &policy.to_string()).await?;
                }
            }
            insert(&mut transaction, seq, epoch, policy, entry).await?;
            if let Event::Started { restored, corrupt, .. } = &entry.event {
                // The first row of a life is signed with it: an audit that is emptied later is missed.
                chain::sign(&mut transaction, &seed).await?;
                if *corrupt {
                    set_meta(&mut transaction, "reserve_lost", "no").await?;
                }
                if *restored {
                    // The world keeps from here on that it only observes, until a person lets it act. Told at every
                    // start, it would take that person's word back.
                    set_meta(&mut transaction, "restored", "no").await?;
                    restoring_known = true;
                }
            }
        }
        set_meta(&mut transaction, "seq", &seq.to_string()).await?;
        transaction.commit().await.or_wrong()?;
        if restoring_known {
            self.restored = false;
        }
        Ok(seq)
    }
}

async fn insert(
    transaction: &mut SqliteConnection,
    seq: u64,
    epoch: u64,
    policy: u64,
    entry: &Entry,
) -> Result<(), JournalError> {
    sqlx::query(
        "INSERT INTO journal (seq, epoch, elapsed_ms, wall_ms, core_version, policy_version, event, changes, commands, notices) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(number(seq))
    .bind(number(epoch))
    .bind(number(entry.now.elapsed.0))
    .bind(entry.now.wall_ms)
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(number(policy))
    .bind(json(&entry.event)?)
    .bind(json(&entry.changes)?)
    .bind(json(&entry.commands)?)
    .bind(json(&entry.notices)?)
    .execute(&mut *transaction)
    .await
    .or_wrong()?;
    for change in &entry.changes {
        if let Change::Ended(incident) = change {
            sqlx::query("INSERT OR REPLACE INTO incident (id, host, ended_ms, record) VALUES (?, ?, ?, ?)")
                .bind(number(incident.id.0))
                .bind(i64::from(incident.host.0))
                .bind(entry.now.wall_ms)
                .bind(json(incident)?)
                .execute(&mut *transaction)
                .await
                .or_wrong()?;
        }
    }
    for notice in entry.notices.iter().filter(|n| n.loudness == Loudness::Page) {
        sqlx::query("INSERT INTO outbox (seq, host, body) VALUES (?, ?, ?)")
            .bind(number(seq))
            .bind(notice.host.map(|h| i64::from(h.0)))
            .bind(json(notice)?)
            .execute(&mut *transaction)
            .await
            .or_wrong()?;
    }
    if let Some(body) = audit::body(entry)? {
        chain::append(transaction, entry.now.wall_ms, &body).await?;
    }
    Ok(())
}

pub(super) fn entry(row: &sqlx::sqlite::SqliteRow) -> Option<(u64, Entry)> {
    let text = |column: &str| row.try_get::<String, _>(column).ok();
    let entry = Entry {
        now: Now {
            elapsed: Elapsed(count(row.try_get::<i64, _>("elapsed_ms").ok()?)),
            wall_ms: row.try_get::<i64, _>("wall_ms").ok()?,
        },
        event: serde_json::from_str(&text("event")?).ok()?,
        changes: serde_json::from_str(&text("changes")?).ok()?,
        commands: serde_json::from_str(&text("commands")?).ok()?,
        notices: serde_json::from_str(&text("notices")?).ok()?,
    };
    Some((count(row.try_get::<i64, _>("seq").ok()?), entry))
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.filter_map(|p| std::str::from_utf8(p).ok()).filter_map(|p| u8::from_str_radix(p, 16).ok()).collect()
}

impl Journal for SqliteJournal {
    async fn load(&mut self) -> Result<Loaded, JournalError> {
        let (fresh, restored) = (self.fresh.clone(), self.restored);
        let frames = self.reserve.frames()?;
        let connection = self.connection().await?;
        let corrupt = meta(connection, "reserve_lost").await?.as_deref() == Some("yes");
        let mut loaded = Loaded { world: fresh, seq: 0, last: Now::default(), restored, corrupt };
        let snapshots = sqlx::query("SELECT seq, elapsed_ms, wall_ms, world FROM snapshot ORDER BY seq DESC")
            .fetch_all(&mut *connection)
            .await
            .or_wrong()?;
        let had_snapshots = !snapshots.is_empty();
        let readable = snapshots.iter().find_map(|row| {
            let world: World = serde_json::from_str(&row.try_get::<String, _>("world").ok()?).ok()?;
            let elapsed = Elapsed(count(row.try_get::<i64, _>("elapsed_ms").ok()?));
            Some((count(row.try_get::<i64, _>("seq").ok()?), elapsed, row.try_get::<i64, _>("wall_ms").ok()?, world))
        });
        match readable {
            Some((seq, elapsed, wall_ms, world)) => {
                loaded.world = world;
                loaded.seq = seq;
                loaded.last = Now { elapsed, wall_ms };
            }
            None => loaded.corrupt |= had_snapshots,
        }
        loop {
            let rows = sqlx::query(
                "SELECT seq, elapsed_ms, wall_ms, changes FROM journal WHERE seq > ? ORDER BY seq LIMIT 1000",
            )
            .bind(number(loaded.seq))
            .fetch_all(&mut *connection)
            .await
            .or_wrong()?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let seq = count(row.get::<i64, _>("seq"));
                // A gap, or a change that this version does not know: what follows is applied, but no budget is believed.
                loaded.corrupt |= seq != loaded.seq + 1;
                match serde_json::from_str::<Vec<Change>>(&row.get::<String, _>("changes")) {
                    Ok(changes) => changes.iter().for_each(|change| loaded.world.apply(change)),
                    Err(_) => loaded.corrupt = true,
                }
                loaded.seq = seq;
                loaded.last = Now {
                    elapsed: Elapsed(count(row.get::<i64, _>("elapsed_ms"))),
                    wall_ms: row.get::<i64, _>("wall_ms"),
                };
            }
        }
        let counted = meta_number(connection, "seq").await?;
        loaded.corrupt |= counted != loaded.seq;
        loaded.seq = loaded.seq.max(counted);
        for frame in &frames {
            if frame.expected < loaded.seq {
                continue;
            }
            for entry in &frame.entries {
                entry.changes.iter().for_each(|change| loaded.world.apply(change));
                loaded.seq += 1;
                loaded.last = entry.now;
            }
        }
        Ok(loaded)
    }

    async fn commit(&mut self, epoch: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        let written = self.write(epoch, expected, entries).await;
        if matches!(written, Err(JournalError::Full | JournalError::Io(_) | JournalError::Corrupt(_))) {
            // Never retried on the same handle: after a failed fsync its pages may look clean and not be on disk.
            self.connection = None;
        }
        written
    }

    async fn commit_reserve(&mut self, epoch: u64, expected: u64, entries: &[Entry]) -> Result<u64, JournalError> {
        if entries.len() > ENTRIES_MAX {
            return Err(JournalError::TooMany(entries.len()));
        }
        self.reserve.append(&Frame { epoch, expected, entries: entries.to_vec() })?;
        Ok(expected + entries.len() as u64)
    }

    async fn recover(&mut self) -> Result<(), JournalError> {
        self.connection = None;
        let frames = self.reserve.frames()?;
        for frame in &frames {
            let standing = meta_number(self.connection().await?, "seq").await?;
            if frame.expected < standing {
                // Taken over already, before the reserve could be emptied.
                continue;
            }
            if frame.expected > standing {
                // The database was put back to an older state, or replaced: what the reserve goes on from is not there.
                // Known before it is gone, and until a start has told it.
                set_meta(self.connection().await?, "reserve_lost", "yes").await?;
                let aside = self.reserve.set_aside()?;
                tracing::error!(
                    standing,
                    expected = frame.expected,
                    aside = %aside.display(),
                    "the reserve goes on from a journal that is not here: it was laid aside; nothing is done until a person has \
                     looked (`rackmedic site act --budgets-unknown`)"
                );
                break;
            }
            // Under the epoch that holds now: the directory's lock shows that no other appliance has written meanwhile.
            let epoch = meta_number(self.connection().await?, "epoch").await?.max(frame.epoch);
            self.write(epoch, frame.expected, &frame.entries).await?;
        }
        // Also without frames the disk must show that it can be written.
        let connection = self.connection().await?;
        set_meta(connection, "recovered", "yes").await?;
        if !frames.is_empty() {
            self.reserve.clear()?;
        }
        Ok(())
    }

    async fn acquire_lease(&mut self, until: Elapsed) -> Result<u64, JournalError> {
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.or_wrong()?;
        let epoch = meta_number(&mut transaction, "epoch").await? + 1;
        set_meta(&mut transaction, "epoch", &epoch.to_string()).await?;
        set_meta(&mut transaction, "lease_until", &until.0.to_string()).await?;
        transaction.commit().await.or_wrong()?;
        Ok(epoch)
    }

    async fn renew_lease(&mut self, epoch: u64, until: Elapsed) -> Result<(), JournalError> {
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.or_wrong()?;
        let theirs = meta_number(&mut transaction, "epoch").await?;
        if theirs != epoch {
            return Err(JournalError::Superseded { theirs });
        }
        set_meta(&mut transaction, "lease_until", &until.0.to_string()).await?;
        transaction.commit().await.or_wrong()
    }

    async fn snapshot(&mut self, seq: u64, world: &World, kept: usize) -> Result<(), JournalError> {
        let text = json(world)?;
        let kept = i64::try_from(kept.max(1)).unwrap_or(1);
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.or_wrong()?;
        let at = sqlx::query("SELECT elapsed_ms, wall_ms FROM journal WHERE seq = ?")
            .bind(number(seq))
            .fetch_optional(&mut *transaction)
            .await
            .or_wrong()?;
        let (elapsed, wall): (i64, i64) = at.map_or((0, 0), |row| (row.get(0), row.get(1)));
        sqlx::query("INSERT OR REPLACE INTO snapshot (seq, elapsed_ms, wall_ms, world) VALUES (?, ?, ?, ?)")
            .bind(number(seq))
            .bind(elapsed)
            .bind(wall)
            .bind(text)
            .execute(&mut *transaction)
            .await
            .or_wrong()?;
        sqlx::query("DELETE FROM snapshot WHERE seq NOT IN (SELECT seq FROM snapshot ORDER BY seq DESC LIMIT ?)")
            .bind(kept)
            .execute(&mut *transaction)
            .await
            .or_wrong()?;
        // Entries behind the oldest kept snapshot are needed by nobody to start; replay and audit have their own keep.
        sqlx::query(
            "DELETE FROM journal WHERE seq <= (SELECT min(seq) FROM snapshot) AND (SELECT count(*) FROM snapshot) >= ?",
        )
        .bind(kept)
        .execute(&mut *transaction)
        .await
        .or_wrong()?;
        sqlx::query("DELETE FROM incident WHERE id NOT IN (SELECT id FROM incident ORDER BY id DESC LIMIT ?)")
            .bind(INCIDENTS_KEPT)
            .execute(&mut *transaction)
            .await
            .or_wrong()?;
        sqlx::query("DELETE FROM outbox WHERE id <= (SELECT max(id) FROM outbox) - ?")
            .bind(OUTBOX_KEPT)
            .execute(&mut *transaction)
            .await
            .or_wrong()?;
        transaction.commit().await.or_wrong()?;
        self.trim_audit(AUDIT_KEPT).await
    }
}
