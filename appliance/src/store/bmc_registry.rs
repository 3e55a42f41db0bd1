//! Which BMCs this appliance holds (rule 60).

use super::JournalError;
use super::sqlite::{OrWrong, SqliteJournal, database, is_there, read_only};
use healing::id::HostId;
use sqlx::{ConnectOptions, Row as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

impl SqliteJournal {
    /// Takes a BMC of a host under this appliance; a second time changes whose it is.
    ///
    /// # Errors
    /// The store.
    pub async fn register_bmc(&mut self, address: SocketAddr, host: HostId) -> Result<(), JournalError> {
        sqlx::query(
            "INSERT INTO bmc (address, port, host) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET host = excluded.host",
        )
        .bind(address.ip().to_canonical().to_string())
        .bind(i64::from(address.port()))
        .bind(i64::from(host.0))
        .execute(self.connection().await?)
        .await
        .or_wrong()?;
        Ok(())
    }
}

/// A BMC that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its address, as kept.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Whose it is.
    pub host: HostId,
}

/// All BMCs that are held, by address; beside a running appliance.
///
/// # Errors
/// There is no database, or it cannot be read.
pub async fn held(directory: &Path) -> Result<Vec<Held>, JournalError> {
    let path = database(directory);
    if !is_there(&path)? {
        return Err(JournalError::NoDatabase(path.display().to_string()));
    }
    let mut connection = read_only(&path).connect().await.or_wrong()?;
    let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.or_wrong()?.get(0);
    if version < 2 {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("SELECT address, port, host FROM bmc ORDER BY address, port")
        .fetch_all(&mut connection)
        .await
        .or_wrong()?;
    let read = |row: &sqlx::sqlite::SqliteRow| Held {
        address: row.get(0),
        port: u16::try_from(row.get::<i64, _>(1)).unwrap_or(0),
        host: HostId(u32::try_from(row.get::<i64, _>(2)).unwrap_or(u32::MAX)),
    };
    Ok(rows.iter().map(read).collect())
}

/// The host whose BMC is there, if the data directory holds one. Reads beside a running appliance; without a database
/// nothing is held.
///
/// # Errors
/// The database is there and cannot be read, or whether it is there cannot be seen: then it is not known, which is not
/// *no*.
pub async fn holder(directory: &Path, address: SocketAddr) -> Result<Option<HostId>, JournalError> {
    let path = database(directory);
    if !is_there(&path)? {
        return Ok(None);
    }
    let mut connection = read_only(&path).connect().await.or_wrong()?;
    let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.or_wrong()?.get(0);
    // Made by an appliance that knew no BMCs yet.
    if version < 2 {
        return Ok(None);
    }
    let ip: IpAddr = address.ip().to_canonical();
    // A BMC speaks two protocols at two ports of one address; on loopback each port is another one.
    let query = if ip.is_loopback() {
        sqlx::query("SELECT host FROM bmc WHERE address = ? AND port = ?")
            .bind(ip.to_string())
            .bind(i64::from(address.port()))
    } else {
        sqlx::query("SELECT host FROM bmc WHERE address = ? LIMIT 1").bind(ip.to_string())
    };
    let row = query.fetch_optional(&mut connection).await.or_wrong()?;
    Ok(row.map(|row| HostId(u32::try_from(row.get::<i64, _>(0)).unwrap_or(u32::MAX))))
}
