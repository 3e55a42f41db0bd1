//! The database file: how it is opened, its schema, and the values that stand once in it.

use super::OrWrong as _;
use crate::store::JournalError;
use crate::store::lock::{DataDir, hex, random};
use crate::store::schema::MIGRATIONS;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

/// For looking beside a running appliance.
pub(in crate::store) fn read_only(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

pub(super) async fn meta(connection: &mut SqliteConnection, key: &str) -> Result<Option<String>, JournalError> {
    let row =
        sqlx::query("SELECT value FROM meta WHERE key = ?").bind(key).fetch_optional(connection).await.or_wrong()?;
    Ok(row.map(|r| r.get(0)))
}

pub(super) async fn set_meta(connection: &mut SqliteConnection, key: &str, value: &str) -> Result<(), JournalError> {
    sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .bind(key)
        .bind(value)
        .execute(connection)
        .await
        .or_wrong()?;
    Ok(())
}

pub(super) async fn meta_number(connection: &mut SqliteConnection, key: &str) -> Result<u64, JournalError> {
    Ok(meta(connection, key).await?.and_then(|v| v.parse().ok()).unwrap_or(0))
}

pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), JournalError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut *connection).await.or_wrong()?.get(0);
    if found > known {
        return Err(JournalError::Newer { found, known });
    }
    for (at, step) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        let mut transaction = connection.begin().await.or_wrong()?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await.or_wrong()?;
        let version = format!("PRAGMA user_version = {}", at + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(&mut *transaction).await.or_wrong()?;
        transaction.commit().await.or_wrong()?;
    }
    Ok(())
}

pub(in crate::store) fn database(directory: &Path) -> PathBuf {
    directory.join("rackmedic.db")
}

/// Whether the database is there. That it cannot be seen is not *no*: a directory that this user may not enter may hold
/// one.
///
/// # Errors
/// It cannot be seen.
pub(in crate::store) fn is_there(path: &Path) -> Result<bool, JournalError> {
    path.try_exists().map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let next = if denied { "; run this as root or as the appliance's user" } else { "" };
        JournalError::Io(format!("{}: {error}{next}", path.display()))
    })
}

pub(super) async fn connect(path: &Path) -> Result<SqliteConnection, JournalError> {
    let mut connection = options(path).connect().await.or_wrong()?;
    let check: String = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await.or_wrong()?.get(0);
    if check != "ok" {
        return Err(JournalError::Corrupt(check));
    }
    Ok(connection)
}

/// Compares the instance id in the database with the one beside it. Different, or only the one in the database: it is a
/// copy from elsewhere or from before, and gets a new id (rule 45).
///
/// A kill may come between any two steps. A copy is marked before anything else, so it stays one. The file comes before
/// the row, so a fresh directory has a file alone and is fresh again; with a row alone it would pass for a copy.
pub(super) async fn identify(directory: &DataDir, connection: &mut SqliteConnection) -> Result<bool, JournalError> {
    let inside = meta(connection, "instance").await?;
    let beside = directory.instance();
    if inside.is_some() && inside == beside {
        return Ok(meta(connection, "restored").await?.as_deref() == Some("yes"));
    }
    let restored = inside.is_some();
    let id = hex(&random::<16>()?);
    if restored {
        set_meta(connection, "restored", "yes").await?;
    }
    directory.set_instance(&id)?;
    set_meta(connection, "instance", &id).await?;
    Ok(restored)
}
