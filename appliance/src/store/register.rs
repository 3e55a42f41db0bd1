//! The register's rows: what people declared of a site, beside the journal, in one transaction with the secrets and the
//! BMCs that belong to it. What a row means is not known here.
//!
//! It writes through a connection of its own while the loop commits through another: SQLite lets one write at a time, and
//! these transactions are short and seldom. Whoever opens it holds the lock of the data directory.

use super::JournalError;
use super::secret::{Sealer, Secret};
use super::sqlite::{OrWrong, SqliteJournal};
use healing::id::HostId;
use sqlx::{Connection, Row as _, SqliteConnection};
use std::net::SocketAddr;
use std::sync::Arc;

/// What is written together: all of it or nothing.
#[derive(Default)]
#[allow(missing_debug_implementations, reason = "it carries secrets")]
pub struct Batch {
    /// Rows by key; `None` removes one.
    pub rows: Vec<(String, Option<String>)>,
    /// Secrets by row and column; `None` removes one.
    pub secrets: Vec<(String, String, Option<Secret>)>,
    /// The BMCs of hosts: they replace those that the host had (rule 60).
    pub bmcs: Vec<(HostId, Vec<SocketAddr>)>,
}

/// The rows of the register.
#[derive(Debug)]
pub struct RegisterRows {
    connection: SqliteConnection,
    sealer: Arc<Sealer>,
}

impl SqliteJournal {
    /// The register of this journal's data directory, on a connection of its own.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub async fn register(&self) -> Result<RegisterRows, JournalError> {
        Ok(RegisterRows { connection: self.beside().await?, sealer: self.sealer() })
    }
}

impl RegisterRows {
    /// All rows whose key begins so, by key.
    ///
    /// # Errors
    /// The store.
    pub async fn rows(&mut self, begins: &str) -> Result<Vec<(String, String)>, JournalError> {
        let rows = sqlx::query("SELECT key, value FROM config WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key")
            .bind(begins)
            .fetch_all(&mut self.connection)
            .await
            .or_wrong()?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Opens a secret.
    ///
    /// # Errors
    /// It was changed or moved, or the disk fails.
    pub async fn secret(&mut self, row: &str, column: &str) -> Result<Option<Secret>, JournalError> {
        let found = sqlx::query("SELECT sealed FROM secret WHERE row = ? AND column = ?")
            .bind(row)
            .bind(column)
            .fetch_optional(&mut self.connection)
            .await
            .or_wrong()?;
        let Some(found) = found else { return Ok(None) };
        let sealed: Vec<u8> = found.get(0);
        self.sealer.open_secret(row, column, &sealed).map(Some)
    }

    /// Writes all of a batch in one durable transaction.
    ///
    /// # Errors
    /// The store: then nothing was written.
    pub async fn write(&mut self, batch: &Batch) -> Result<(), JournalError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await.or_wrong()?;
        for (key, value) in &batch.rows {
            let query = match value {
                Some(value) => sqlx::query(
                    "INSERT INTO config (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                )
                .bind(key)
                .bind(value),
                None => sqlx::query("DELETE FROM config WHERE key = ?").bind(key),
            };
            query.execute(&mut *transaction).await.or_wrong()?;
        }
        for (row, column, secret) in &batch.secrets {
            let query = match secret {
                Some(secret) => sqlx::query(
                    "INSERT INTO secret (row, column, sealed) VALUES (?, ?, ?) \
                     ON CONFLICT (row, column) DO UPDATE SET sealed = excluded.sealed",
                )
                .bind(row)
                .bind(column)
                .bind(self.sealer.seal(row, column, secret)?),
                None => sqlx::query("DELETE FROM secret WHERE row = ? AND column = ?").bind(row).bind(column),
            };
            query.execute(&mut *transaction).await.or_wrong()?;
        }
        for (host, addresses) in &batch.bmcs {
            for address in addresses {
                sqlx::query(
                    "INSERT INTO bmc (address, port, host) VALUES (?, ?, ?) \
                     ON CONFLICT DO UPDATE SET host = excluded.host",
                )
                .bind(address.ip().to_canonical().to_string())
                .bind(i64::from(address.port()))
                .bind(i64::from(host.0))
                .execute(&mut *transaction)
                .await
                .or_wrong()?;
            }
            let held = sqlx::query("SELECT address, port FROM bmc WHERE host = ?")
                .bind(i64::from(host.0))
                .fetch_all(&mut *transaction)
                .await
                .or_wrong()?;
            for row in held {
                let (address, port): (String, i64) = (row.get(0), row.get(1));
                let kept = addresses
                    .iter()
                    .any(|a| a.ip().to_canonical().to_string() == address && i64::from(a.port()) == port);
                if !kept {
                    sqlx::query("DELETE FROM bmc WHERE address = ? AND port = ?")
                        .bind(address)
                        .bind(port)
                        .execute(&mut *transaction)
                        .await
                        .or_wrong()?;
                }
            }
        }
        transaction.commit().await.or_wrong()
    }
}
