//! A small world and a folder of its own for each test of the store.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.
#![allow(clippy::unwrap_used)]

use healing::command::{Loudness, Notice};
use healing::event::{Change, Event, Operator, Scope};
use healing::explain::Explanation;
use healing::id::PoolId;
use healing::policy::{Policy, Site};
use healing::time::{Elapsed, Now};
use healing::world::World;
use healing::world::scope::{Consent, Pool};
use rackmedic::store::Entry;
use std::path::{Path, PathBuf};

/// A world without hosts.
pub fn fresh() -> World {
    World::new(&Policy::<Site>::default())
}

/// Entries that each change the world and say something.
pub fn entries(from: u64, count: usize) -> Vec<Entry> {
    (from..from + count as u64)
        .map(|n| {
            let now = Now { elapsed: Elapsed(1_000 * n), wall_ms: 1_700_000_000_000 + i64::try_from(n).unwrap() };
            let pool = Pool {
                id: PoolId(u16::try_from(n % 100).unwrap()),
                name: format!("pool {n}"),
                soft_reboot: Consent::Ask,
                reimage: Consent::Ask,
                replace: Consent::Never,
                runtime_restart: false,
                crash_dump_wait_ms: n,
            };
            Entry {
                now,
                event: Event::Operator(Operator::Pause { scope: Scope::Site, paused: n % 2 == 0 }),
                changes: vec![Change::Pool(Box::new(pool))],
                commands: Vec::new(),
                notices: vec![Notice {
                    host: None,
                    incident: None,
                    loudness: Loudness::Page,
                    explanation: Explanation::note("test", format!("entry {n}")),
                    at: now,
                }],
            }
        })
        .collect()
}

/// A folder that goes with the test.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("rackmedic-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a statement on the database behind the journal's back.
pub async fn sql(data: &Path, statement: &'static str) {
    use sqlx::ConnectOptions;
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(data.join("rackmedic.db")).connect().await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}
