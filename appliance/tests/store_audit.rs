//! The audit chain: any change, removal or reordering is found; trimming leaves a signed checkpoint; no secret is anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod store_world;

use healing::time::Elapsed;
use rackmedic::store::Journal;
use rackmedic::store::secret::{OuterKey, Secret};
use rackmedic::store::sqlite::{SqliteJournal, verify_audit};
use store_world::{Dir, entries, fresh, sql};

async fn filled(dir: &Dir, rows: usize) -> std::path::PathBuf {
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
    let mut seq = 0;
    while seq < rows as u64 {
        let part = entries(seq, (rows as u64 - seq).min(200) as usize);
        seq = journal.commit(epoch, seq, &part).await.unwrap();
    }
    data
}

#[tokio::test]
async fn a_whole_chain_verifies() {
    let dir = Dir::new("audit-whole");
    let found = verify_audit(&filled(&dir, 500).await).await.unwrap();
    assert_eq!((found.rows, found.broken), (500, None));
}

#[tokio::test]
async fn every_kind_of_tampering_is_found_at_its_row() {
    let tampering: &[(&str, i64)] = &[
        ("UPDATE audit SET body = replace(body, 'entry 7', 'entry 8') WHERE id = 8", 8),
        ("UPDATE audit SET wall_ms = wall_ms + 1 WHERE id = 5", 5),
        ("DELETE FROM audit WHERE id = 6", 6),
        ("DELETE FROM audit WHERE id > 15", 16),
        ("DELETE FROM audit WHERE id < 4", 4),
        ("UPDATE audit SET hash = randomblob(32) WHERE id = 9", 9),
        (
            "UPDATE audit SET id = 99 WHERE id = 3; UPDATE audit SET id = 3 WHERE id = 4; UPDATE audit SET id = 4 WHERE id = 99",
            3,
        ),
    ];
    for (at, (statement, row)) in tampering.iter().enumerate() {
        let dir = Dir::new(&format!("audit-tamper-{at}"));
        let data = filled(&dir, 20).await;
        sql(&data, statement).await;
        let broken = verify_audit(&data).await.unwrap().broken.unwrap_or_else(|| panic!("not found: {statement}"));
        assert_eq!(broken.id, *row, "{statement}: {}", broken.what);
    }
}

#[tokio::test]
async fn rows_are_trimmed_only_behind_a_signed_checkpoint() {
    let dir = Dir::new("audit-trim");
    let data = filled(&dir, 50).await;
    {
        let key = OuterKey::file(&dir.path().join("key")).unwrap();
        let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
        journal.trim_audit(10).await.unwrap();
        let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
        journal.commit(epoch, 50, &entries(50, 5)).await.unwrap();
    }
    let found = verify_audit(&data).await.unwrap();
    assert_eq!((found.rows, found.checkpoints, found.broken), (15, 1, None));
    sql(&data, "UPDATE audit_checkpoint SET hash = randomblob(32)").await;
    assert!(verify_audit(&data).await.unwrap().broken.is_some());
}

#[tokio::test]
async fn a_planted_canary_is_nowhere_in_the_data_directory() {
    const CANARY: &[u8] = b"canary-Xyzzy-4711-plugh";
    let dir = Dir::new("canary");
    let data = filled(&dir, 20).await;
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    journal.put_secret("bmc/1", "password", &Secret::new(CANARY.to_vec())).await.unwrap();
    assert_eq!(journal.secret("bmc/1", "password").await.unwrap().unwrap().expose(), CANARY);
    // While it is open the WAL holds the newest pages; both states are searched.
    let search = |when: &str| {
        for entry in std::fs::read_dir(&data).unwrap().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap();
            let found = bytes.windows(CANARY.len()).any(|w| w == CANARY);
            assert!(!found, "{when}: the canary stands in {}", entry.path().display());
        }
    };
    search("open");
    drop(journal);
    search("closed");
    // A row moved in the database does not open.
    sql(&data, "UPDATE secret SET row = 'bmc/2'").await;
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    assert!(journal.secret("bmc/2", "password").await.is_err());
    drop(journal);
    // Another key opens nothing.
    let other = OuterKey::file(&dir.path().join("other")).unwrap();
    assert!(SqliteJournal::open(&data, &other, fresh()).await.is_err());
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new("key-mode");
    let path = dir.path().join("key");
    drop(OuterKey::file(&path).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = OuterKey::file(&path).expect_err("refused").to_string();
    assert!(error.contains("0600"), "{error}");
}
