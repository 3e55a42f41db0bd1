//! The audit in the database: its rows, what of them is signed, and whether all of it is still there.

use super::connection::{database, is_there, meta, meta_number, read_only, set_meta};
use super::{OrWrong as _, SqliteJournal};
use crate::store::JournalError;
use crate::store::audit::{self, ChainVerifier, Checkpoint, GENESIS, Row, Says, Verified};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use std::path::Path;

impl SqliteJournal {
    /// Signs how far the audit goes, and trims all but the newest rows, at least one, behind a signed checkpoint. An
    /// audit that does not go on from what was signed is left as it is: what is wrong with it must stay to be found.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn trim_audit(&mut self, kept: u32) -> Result<(), JournalError> {
        self.sign_and_trim(Some(kept.max(1))).await
    }

    /// Signs how far the audit goes. A disk that does not take that keeps nobody from starting: it is signed with the
    /// next start or snapshot.
    pub(super) async fn sign_audit(&mut self) {
        if let Err(error) = self.sign_and_trim(None).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "how far the audit goes could not be signed now");
            // As after a failed commit: its pages may look clean and not be on disk.
            self.connection = None;
        }
    }

    async fn sign_and_trim(&mut self, kept: Option<u32>) -> Result<(), JournalError> {
        let seed = self.audit_seed;
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.or_wrong()?;
        let goes_on = sign(&mut transaction, &seed).await?;
        if let Some(kept) = kept.filter(|_| goes_on) {
            trim(&mut transaction, &seed, kept).await?;
        }
        transaction.commit().await.or_wrong()
    }
}

/// Appends a row.
pub(super) async fn append(transaction: &mut SqliteConnection, wall_ms: i64, body: &str) -> Result<(), JournalError> {
    let last = sqlx::query("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
        .fetch_optional(&mut *transaction)
        .await
        .or_wrong()?;
    let (id, previous): (i64, Vec<u8>) = match last {
        Some(row) => (row.get::<i64, _>(0).saturating_add(1), row.get(1)),
        None => {
            // Before the first row: or rows are gone that were signed, and a verification finds that they are missing.
            let signed = sqlx::query("SELECT upto, hash FROM audit_checkpoint ORDER BY upto DESC LIMIT 1")
                .fetch_optional(&mut *transaction)
                .await
                .or_wrong()?;
            signed.map_or((1, GENESIS.to_vec()), |row| (row.get::<i64, _>(0).saturating_add(1), row.get(1)))
        }
    };
    let hash = audit::hash(id, wall_ms, body, &previous);
    sqlx::query("INSERT INTO audit (id, wall_ms, body, previous, hash) VALUES (?, ?, ?, ?, ?)")
        .bind(id)
        .bind(wall_ms)
        .bind(body)
        .bind(previous)
        .bind(hash.to_vec())
        .execute(&mut *transaction)
        .await
        .or_wrong()?;
    set_meta(transaction, "audit_last", &id.to_string()).await
}

async fn checkpoints(connection: &mut SqliteConnection) -> Result<Vec<Checkpoint>, JournalError> {
    let rows = sqlx::query("SELECT upto, hash, signature FROM audit_checkpoint ORDER BY upto")
        .fetch_all(connection)
        .await
        .or_wrong()?;
    Ok(rows.iter().map(|row| Checkpoint { upto: row.get(0), hash: row.get(1), signature: row.get(2) }).collect())
}

async fn keep(transaction: &mut SqliteConnection, checkpoint: Checkpoint) -> Result<(), JournalError> {
    let Checkpoint { upto, hash, signature } = checkpoint;
    sqlx::query("INSERT OR REPLACE INTO audit_checkpoint (upto, hash, signature) VALUES (?, ?, ?)")
        .bind(upto)
        .bind(hash)
        .bind(signature)
        .execute(transaction)
        .await
        .or_wrong()?;
    Ok(())
}

/// Signs how far the audit goes, instead of what was signed of it before. `false`: it does not go on from there. Then
/// nothing is signed and nothing is removed, for the old signature is what shows it.
pub(super) async fn sign(transaction: &mut SqliteConnection, seed: &[u8; 32]) -> Result<bool, JournalError> {
    let goes_on = sign_if_it_goes_on(transaction, seed).await?;
    if !goes_on {
        tracing::error!(
            "the audit does not go on from what was signed of it: nothing more is signed; run `rackmedic audit verify` \
             and keep a copy of the database as it is"
        );
    }
    Ok(goes_on)
}

async fn sign_if_it_goes_on(transaction: &mut SqliteConnection, seed: &[u8; 32]) -> Result<bool, JournalError> {
    let key = audit::public_key(seed);
    let kept = checkpoints(transaction).await?;
    let mut signed = None;
    for checkpoint in &kept {
        match checkpoint.says(&key) {
            // They come in the order of their rows.
            Some(Says::Reached) => signed = Some(checkpoint),
            Some(Says::Trimmed) => {}
            None => return Ok(false),
        }
    }
    let last = sqlx::query("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
        .fetch_optional(&mut *transaction)
        .await
        .or_wrong()?;
    let last: Option<(i64, Vec<u8>)> = last.map(|row| (row.get(0), row.get(1)));
    let Some((id, hash)) = last else {
        // What was never begun is signed as such, so that a database without any signature is known for what it is.
        let fresh = meta_number(transaction, "seq").await? == 0;
        if fresh && kept.is_empty() {
            keep(transaction, audit::sign(seed, Says::Reached, 0, &GENESIS)).await?;
        }
        return Ok(fresh && signed.is_none_or(|signed| signed.upto == 0));
    };
    if let Some(signed) = signed.filter(|signed| signed.upto > 0) {
        let there = sqlx::query("SELECT hash FROM audit WHERE id = ?")
            .bind(signed.upto)
            .fetch_optional(&mut *transaction)
            .await
            .or_wrong()?;
        if there.is_none_or(|row| row.get::<Vec<u8>, _>(0) != signed.hash) {
            return Ok(false);
        }
        if signed.upto == id {
            return Ok(true);
        }
    }
    let first: i64 = sqlx::query("SELECT min(id) FROM audit").fetch_one(&mut *transaction).await.or_wrong()?.get(0);
    for old in &kept {
        // What was trimmed begins behind one that must stay. Of the others only the newest is of use.
        if old.upto != first.saturating_sub(1) || old.says(&key) == Some(Says::Reached) {
            sqlx::query("DELETE FROM audit_checkpoint WHERE upto = ?")
                .bind(old.upto)
                .execute(&mut *transaction)
                .await
                .or_wrong()?;
        }
    }
    keep(transaction, audit::sign(seed, Says::Reached, id, &hash)).await?;
    Ok(true)
}

async fn trim(transaction: &mut SqliteConnection, seed: &[u8; 32], kept: u32) -> Result<(), JournalError> {
    let last: Option<i64> =
        sqlx::query("SELECT max(id) FROM audit").fetch_one(&mut *transaction).await.or_wrong()?.get(0);
    let Some(upto) = last.map(|id| id.saturating_sub(i64::from(kept))).filter(|id| *id > 0) else { return Ok(()) };
    let row = sqlx::query("SELECT hash FROM audit WHERE id = ?")
        .bind(upto)
        .fetch_optional(&mut *transaction)
        .await
        .or_wrong()?;
    let Some(row) = row else { return Ok(()) };
    let hash: Vec<u8> = row.get(0);
    keep(transaction, audit::sign(seed, Says::Trimmed, upto, &hash)).await?;
    sqlx::query("DELETE FROM audit WHERE id <= ?").bind(upto).execute(transaction).await.or_wrong()?;
    Ok(())
}

/// Verifies the audit of a data directory without touching it: read-only, beside a running appliance. The public key in
/// the database is believed: see [`verify_audit_by`].
///
/// # Errors
/// The database cannot be read.
pub async fn verify_audit(directory: &Path) -> Result<Verified, JournalError> {
    verify_audit_by(directory, None).await
}

/// The same, by a public key that was kept elsewhere.
///
/// What it shows, and what it does not:
/// - Rows up to the newest signed checkpoint cannot be changed, removed or added without the signing key. That key is
///   not in the database; it is derived from the outer key (a key file or a credential of systemd). Who has root has
///   both, and can sign another story: no verification on the same machine shows that.
/// - Rows after that checkpoint are chained by hashes that have no key: who can write the database can write them anew.
///   They are signed with the next start, or after some thousand entries.
/// - Without a key from elsewhere, who can write the database can sign all of it with a key of his own. A start of the
///   appliance puts its own key back, and then it shows.
/// - An older state of the whole database, put back, is whole; so is one whose signatures were removed before a start
///   of the appliance, which takes it for one of an older release. Only who noted elsewhere how far the audit was
///   signed sees that it went back.
///
/// # Errors
/// The database cannot be read.
pub async fn verify_audit_by(directory: &Path, known: Option<&[u8; 32]>) -> Result<Verified, JournalError> {
    let path = database(directory);
    if !is_there(&path)? {
        return Err(JournalError::NoDatabase(path.display().to_string()));
    }
    let mut connection = read_only(&path).connect().await.or_wrong()?;
    // One state of all of it: the appliance may write, sign and trim meanwhile.
    let mut view = connection.begin().await.or_wrong()?;
    let key = meta(&mut view, "audit_key").await?.and_then(|text| audit::parse_key(&text));
    let signed = checkpoints(&mut view).await?;
    let first: Option<i64> = sqlx::query("SELECT min(id) FROM audit").fetch_one(&mut *view).await.or_wrong()?.get(0);
    let counted: Option<i64> = meta(&mut view, "audit_last").await?.and_then(|text| text.parse().ok());
    let entries = meta_number(&mut view, "seq").await?;
    let mut verifier = ChainVerifier::new(key, known, signed, first);
    let mut after = first.unwrap_or(1).saturating_sub(1);
    loop {
        let rows =
            sqlx::query("SELECT id, wall_ms, body, previous, hash FROM audit WHERE id > ? ORDER BY id LIMIT 5000")
                .bind(after)
                .fetch_all(&mut *view)
                .await
                .or_wrong()?;
        let Some(end) = rows.last() else { break };
        after = end.get(0);
        for row in &rows {
            verifier.row(&Row {
                id: row.get(0),
                wall_ms: row.get(1),
                body: row.get(2),
                previous: row.get(3),
                hash: row.get(4),
            });
        }
    }
    Ok(verifier.finish(counted, entries))
}
