//! The audit chain: any change, removal or reordering is found, and where it is signed also one that fits its hashes;
//! trimming leaves a signed checkpoint; no secret is anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod store_world;

use healing::event::Event;
use healing::time::Elapsed;
use rackmedic::store::audit::{self, Says};
use rackmedic::store::secret::{OuterKey, Secret};
use rackmedic::store::sqlite::{SqliteJournal, verify_audit, verify_audit_by};
use rackmedic::store::{Entry, Journal};
use std::path::Path;
use store_world::{Dir, entries, fresh, sql};

async fn open(dir: &Dir) -> SqliteJournal {
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    SqliteJournal::open(&dir.path().join("data"), &key, fresh()).await.unwrap()
}

/// So many rows, and a start after them: all of them are signed.
async fn signed(dir: &Dir, rows: usize) -> std::path::PathBuf {
    let data = filled(dir, rows).await;
    drop(open(dir).await);
    assert_eq!(verify_audit(&data).await.unwrap().signed_to, Some(i64::try_from(rows).unwrap()));
    data
}

fn literal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

/// One value of the database.
async fn blob(data: &Path, query: &'static str) -> Vec<u8> {
    use sqlx::{ConnectOptions, Row};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data.join("rackmedic.db"));
    let mut connection = options.connect().await.unwrap();
    let row = sqlx::query(query).fetch_one(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    row.get(0)
}

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
    assert_eq!((found.rows, found.checkpoints, found.signed_to, found.broken), (15, 2, Some(50), None));
    sql(&data, "UPDATE audit_checkpoint SET hash = randomblob(32)").await;
    assert!(verify_audit(&data).await.unwrap().broken.is_some());
}

#[tokio::test]
async fn an_audit_that_was_emptied_or_cut_is_broken_though_all_counts_in_the_database_were_cut_too() {
    // What is done, at which row it shows, and a word of the sentence.
    let tampering: &[(&str, i64, &str)] = &[
        ("DELETE FROM audit", 1, "20 are missing"),
        ("DELETE FROM audit; DELETE FROM meta WHERE key = 'audit_last'", 1, "20 are missing"),
        ("DELETE FROM audit; DELETE FROM audit_checkpoint; DELETE FROM meta WHERE key = 'audit_last'", 1, "journal"),
        ("DELETE FROM audit WHERE id > 15; UPDATE meta SET value = '15' WHERE key = 'audit_last'", 16, "was signed"),
        (
            "DELETE FROM audit WHERE id > 15; DELETE FROM audit_checkpoint; \
             UPDATE meta SET value = '15' WHERE key = 'audit_last'",
            0,
            "no signature",
        ),
        ("DELETE FROM meta WHERE key = 'audit_key'", 0, "public key"),
        ("DELETE FROM meta WHERE key = 'audit_last'", 20, "count"),
        ("UPDATE meta SET value = '19' WHERE key = 'audit_last'", 20, "past the appliance"),
        ("UPDATE audit_checkpoint SET signature = randomblob(64)", 20, "signature"),
    ];
    for (at, (statement, row, word)) in tampering.iter().enumerate() {
        let dir = Dir::new(&format!("audit-cut-{at}"));
        let data = signed(&dir, 20).await;
        sql(&data, statement).await;
        let broken = verify_audit(&data).await.unwrap().broken.unwrap_or_else(|| panic!("not found: {statement}"));
        assert!(broken.id == *row && broken.what.contains(word), "{statement}: {broken:?}");
    }
}

#[tokio::test]
async fn a_row_that_was_rewritten_with_its_hash_differs_from_what_was_signed() {
    let dir = Dir::new("audit-rewritten");
    let data = signed(&dir, 20).await;
    let previous = blob(&data, "SELECT previous FROM audit WHERE id = 20").await;
    let hash = audit::hash(20, 1, "{}", &previous);
    let statement = format!("UPDATE audit SET wall_ms = 1, body = '{{}}', hash = {} WHERE id = 20", literal(&hash));
    sql(&data, statement.leak()).await;
    let broken = verify_audit(&data).await.unwrap().broken.unwrap();
    assert!(broken.id == 20 && broken.what.contains("signed checkpoint"), "{broken:?}");
    // The appliance signs nothing over it, and trims nothing of it away.
    let mut journal = open(&dir).await;
    let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
    journal.commit(epoch, 20, &entries(20, 10)).await.unwrap();
    journal.trim_audit(5).await.unwrap();
    drop(journal);
    drop(open(&dir).await);
    let found = verify_audit(&data).await.unwrap();
    assert_eq!((found.signed_to, found.broken.map(|broken| broken.id)), (Some(20), Some(20)));
}

#[tokio::test]
async fn rows_that_were_cut_stay_missed_when_the_appliance_goes_on() {
    for (name, statement, row) in [
        ("tail", "DELETE FROM audit WHERE id > 15; UPDATE meta SET value = '15' WHERE key = 'audit_last'", 20),
        // The rows go on behind the signed one, but that it was reached does not say that it was trimmed.
        ("all", "DELETE FROM audit; DELETE FROM meta WHERE key = 'audit_last'", 21),
    ] {
        let dir = Dir::new(&format!("audit-goes-on-{name}"));
        let data = signed(&dir, 20).await;
        sql(&data, statement).await;
        let mut journal = open(&dir).await;
        let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
        journal.commit(epoch, 20, &entries(20, 10)).await.unwrap();
        drop(journal);
        drop(open(&dir).await);
        let found = verify_audit(&data).await.unwrap();
        assert_eq!(found.broken.map(|broken| broken.id), Some(row), "{name}");
    }
}

#[tokio::test]
async fn the_first_row_of_a_first_life_is_signed_with_it() {
    let dir = Dir::new("audit-first");
    let data = dir.path().join("data");
    let mut journal = open(&dir).await;
    let found = verify_audit(&data).await.unwrap();
    assert_eq!((found.rows, found.signed_to, found.broken), (0, Some(0), None), "before the first row");
    let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
    let event = Event::Started { restored: false, corrupt: false, observe_only: false, lease_until: Elapsed(1), epoch };
    let started: Vec<Entry> = entries(0, 1).into_iter().map(|entry| Entry { event: event.clone(), ..entry }).collect();
    journal.commit(epoch, 0, &started).await.unwrap();
    assert_eq!(verify_audit(&data).await.unwrap().signed_to, Some(1));
}

#[tokio::test]
async fn signing_goes_on_with_each_start_and_keeps_only_what_is_of_use() {
    let dir = Dir::new("audit-signed");
    let data = signed(&dir, 50).await;
    for life in 0..4_u64 {
        let mut journal = open(&dir).await;
        journal.trim_audit(20).await.unwrap();
        let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
        let seq = 50 + 10 * life;
        journal.commit(epoch, seq, &entries(seq, 10)).await.unwrap();
    }
    drop(open(&dir).await);
    let found = verify_audit(&data).await.unwrap();
    assert_eq!((found.rows, found.checkpoints, found.signed_to, found.broken), (30, 2, Some(90), None));
}

#[tokio::test]
async fn an_audit_signed_anew_by_another_key_is_found_by_the_key_that_was_kept_elsewhere() {
    let dir = Dir::new("audit-other-key");
    let data = signed(&dir, 20).await;
    let found = verify_audit(&data).await.unwrap();
    let kept = audit::parse_key(&found.public_key.unwrap()).unwrap();
    assert_eq!(verify_audit_by(&data, Some(&kept)).await.unwrap().broken, None);
    // Somebody who can write the database, and has a key of his own.
    let hash = blob(&data, "SELECT hash FROM audit WHERE id = 15").await;
    let theirs = audit::sign(&[9; 32], Says::Reached, 15, &hash);
    let key: String = audit::public_key(&[9; 32]).iter().map(|byte| format!("{byte:02x}")).collect();
    let statement = format!(
        "DELETE FROM audit WHERE id > 15; DELETE FROM audit_checkpoint; \
         UPDATE meta SET value = '15' WHERE key = 'audit_last'; \
         UPDATE meta SET value = '{key}' WHERE key = 'audit_key'; \
         INSERT INTO audit_checkpoint (upto, hash, signature) VALUES (15, {}, {})",
        literal(&hash),
        literal(&theirs.signature)
    );
    sql(&data, statement.leak()).await;
    assert_eq!(verify_audit(&data).await.unwrap().broken, None, "by the key in the database alone it cannot be told");
    let broken = verify_audit_by(&data, Some(&kept)).await.unwrap().broken.unwrap();
    assert!(broken.what.contains("not the one given"), "{broken:?}");
    // A start puts the appliance's own key back.
    drop(open(&dir).await);
    assert!(verify_audit(&data).await.unwrap().broken.unwrap().what.contains("signature"));
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
