//! What every journal keeps: one suite, run against SQLite and the journal in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod store_world;

use healing::event::Event;
use healing::id::HostId;
use healing::time::Elapsed;
use healing::world::World;
use rackmedic::store::bmc_registry::{held, holder};
use rackmedic::store::memory::MemoryJournal;
use rackmedic::store::secret::OuterKey;
use rackmedic::store::sqlite::{SqliteJournal, verify_audit};
use rackmedic::store::{ENTRIES_MAX, Entry, Journal, JournalError, reading};
use store_world::{Dir, entries, fresh, sql};

async fn contract<J: Journal>(mut journal: J) {
    // An empty journal is the fresh world.
    let loaded = journal.load().await.unwrap();
    assert_eq!((loaded.seq, loaded.restored, loaded.corrupt), (0, false, false));
    assert_eq!(loaded.world, fresh());

    let epoch = journal.acquire_lease(Elapsed(60_000)).await.unwrap();
    let first = entries(0, 3);
    assert_eq!(journal.commit(epoch, 0, &first).await.unwrap(), 3);

    // A writer that believes something else changes nothing.
    assert!(matches!(journal.commit(epoch, 0, &first).await, Err(JournalError::Conflict { expected: 0, found: 3 })));
    assert!(matches!(journal.commit(epoch, 9, &first).await, Err(JournalError::Conflict { expected: 9, found: 3 })));
    let large = entries(3, ENTRIES_MAX + 1);
    assert!(matches!(journal.commit(epoch, 3, &large).await, Err(JournalError::TooMany(_))));
    let mut world = fresh();
    first.iter().flat_map(|e| &e.changes).for_each(|c| world.apply(c));
    let loaded = journal.load().await.unwrap();
    assert_eq!((&loaded.world, loaded.seq, loaded.last), (&world, 3, first[2].now));

    // What the reserve took is there at the next load, and in the journal after recovery.
    let held = entries(3, 2);
    assert_eq!(journal.commit_reserve(epoch, 3, &held).await.unwrap(), 5);
    held.iter().flat_map(|e| &e.changes).for_each(|c| world.apply(c));
    assert_eq!(journal.load().await.unwrap().world, world);
    journal.recover().await.unwrap();
    let loaded = journal.load().await.unwrap();
    assert_eq!((&loaded.world, loaded.seq), (&world, 5));

    // A snapshot is a shorter way to the same world.
    journal.snapshot(5, &world, 3).await.unwrap();
    let more = entries(5, 4);
    assert_eq!(journal.commit(epoch, 5, &more).await.unwrap(), 9);
    more.iter().flat_map(|e| &e.changes).for_each(|c| world.apply(c));
    let loaded = journal.load().await.unwrap();
    assert_eq!((&loaded.world, loaded.seq), (&world, 9));

    // Whoever takes the lease shuts the other out, also from renewing.
    let other = journal.acquire_lease(Elapsed(90_000)).await.unwrap();
    assert!(other > epoch);
    let late = journal.commit(epoch, 9, &entries(9, 1)).await;
    assert!(matches!(late, Err(JournalError::Superseded { theirs }) if theirs == other));
    assert!(matches!(journal.renew_lease(epoch, Elapsed(99_000)).await, Err(JournalError::Superseded { .. })));
    journal.renew_lease(other, Elapsed(99_000)).await.unwrap();
    assert_eq!(journal.commit(other, 9, &entries(9, 1)).await.unwrap(), 10);
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let dir = Dir::new("contract");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    contract(SqliteJournal::open(&dir.path().join("data"), &key, fresh()).await.unwrap()).await;
}

#[tokio::test]
async fn the_journal_in_memory_keeps_the_contract() {
    contract(MemoryJournal::new(fresh())).await;
}

#[tokio::test]
async fn everything_survives_closing_and_opening() {
    let dir = Dir::new("reopen");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    let all = entries(0, 20);
    {
        let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
        let epoch = journal.acquire_lease(Elapsed(60_000)).await.unwrap();
        journal.commit(epoch, 0, &all).await.unwrap();
        let second = SqliteJournal::open(&data, &key, fresh()).await;
        assert!(matches!(second, Err(JournalError::InUse(_))), "a second process is refused");
    }
    let mut world: World = fresh();
    all.iter().flat_map(|e| &e.changes).for_each(|c| world.apply(c));
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    let loaded = journal.load().await.unwrap();
    assert_eq!((loaded.world, loaded.seq, loaded.restored), (world, 20, false));
    let (read, unreadable) = journal.read_from(0, 100).await.unwrap();
    assert_eq!(read.into_iter().map(|(_, e)| e).collect::<Vec<_>>(), all);
    assert_eq!(unreadable, 0);
}

#[tokio::test]
async fn a_database_copied_elsewhere_starts_as_restored_under_a_new_name() {
    let dir = Dir::new("restored");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    {
        let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
        let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
        journal.commit(epoch, 0, &entries(0, 2)).await.unwrap();
    }
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in ["rackmedic.db", "rackmedic.db-wal"] {
        if data.join(file).exists() {
            std::fs::copy(data.join(file), copy.join(file)).unwrap();
        }
    }
    let mut journal = SqliteJournal::open(&copy, &key, fresh()).await.unwrap();
    assert!(journal.load().await.unwrap().restored);
    // A start that was not written down told nobody.
    drop(journal);
    let mut journal = SqliteJournal::open(&copy, &key, fresh()).await.unwrap();
    assert!(journal.load().await.unwrap().restored);
    // From the first that was, the world knows by itself: what a person lifts afterwards stays lifted.
    let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
    let event = Event::Started { restored: true, corrupt: false, observe_only: false, lease_until: Elapsed(1), epoch };
    let started: Vec<Entry> = entries(2, 1).into_iter().map(|entry| Entry { event: event.clone(), ..entry }).collect();
    journal.commit(epoch, 2, &started).await.unwrap();
    assert!(!journal.load().await.unwrap().restored);
    drop(journal);
    let mut journal = SqliteJournal::open(&copy, &key, fresh()).await.unwrap();
    assert!(!journal.load().await.unwrap().restored);
}

#[tokio::test]
async fn a_kill_while_a_directory_gets_its_name_makes_no_backup_of_a_fresh_one_and_no_fresh_one_of_a_backup() {
    let dir = Dir::new("named");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    drop(SqliteJournal::open(&data, &key, fresh()).await.unwrap());
    assert!(!data.join("instance.new").exists(), "the name is put in its place whole");
    // Fresh: the file was written, the row was not.
    sql(&data, "DELETE FROM meta WHERE key = 'instance'").await;
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    assert!(!journal.load().await.unwrap().restored);
    drop(journal);
    // A backup: it was marked, and the file was written or was not, the row was not.
    for beside in [None, Some("0123456789abcdef0123456789abcdef")] {
        match beside {
            None => std::fs::remove_file(data.join("instance")).unwrap(),
            Some(name) => std::fs::write(data.join("instance"), name).unwrap(),
        }
        sql(&data, "INSERT OR REPLACE INTO meta (key, value) VALUES ('restored', 'yes')").await;
        let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
        assert!(journal.load().await.unwrap().restored, "{beside:?}");
    }
}

#[tokio::test]
async fn what_the_reserve_took_under_an_earlier_epoch_is_taken_over_under_the_present_one() {
    let dir = Dir::new("epochs");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    let epoch = journal.acquire_lease(Elapsed(60_000)).await.unwrap();
    let all = entries(0, 5);
    journal.commit(epoch, 0, &all[..3]).await.unwrap();
    journal.commit_reserve(epoch, 3, &all[3..]).await.unwrap();
    let later = journal.acquire_lease(Elapsed(90_000)).await.unwrap();
    assert!(later > epoch);
    journal.recover().await.unwrap();
    let (read, unreadable) = journal.read_from(0, 100).await.unwrap();
    assert_eq!((read.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(), unreadable), (all, 0));
    assert_eq!(journal.commit(later, 5, &entries(5, 1)).await.unwrap(), 6);
    let loaded = journal.load().await.unwrap();
    assert_eq!((loaded.seq, loaded.corrupt), (6, false));
}

#[tokio::test]
async fn a_directory_that_cannot_be_looked_into_is_not_one_without_a_database() {
    let dir = Dir::new("not-seen");
    let address = "192.0.2.7:443".parse().unwrap();
    // A machine without an appliance holds no BMC.
    assert_eq!(holder(&dir.path().join("nowhere"), address).await.unwrap(), None::<HostId>);
    // What stands for a directory of mode 0700, which root would look into: a path that leads nowhere in circles.
    let circle = dir.path().join("circle");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    let told = |error: JournalError| {
        assert!(matches!(error, JournalError::Io(_)) && error.to_string().contains("circle"), "{error}");
    };
    told(holder(&circle, address).await.unwrap_err());
    told(held(&circle).await.unwrap_err());
    told(verify_audit(&circle).await.unwrap_err());
    told(reading::ended(&circle, 1).await.unwrap_err());
    told(reading::Records::open(&circle).await.map(drop).unwrap_err());
}

#[tokio::test]
async fn a_change_that_this_version_does_not_know_makes_the_budget_unknown() {
    let dir = Dir::new("unknown");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    {
        let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
        let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
        journal.commit(epoch, 0, &entries(0, 5)).await.unwrap();
    }
    sql(&data, r#"UPDATE journal SET changes = '[{"FromTheFuture":1}]' WHERE seq = 3"#).await;
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    let loaded = journal.load().await.unwrap();
    assert!(loaded.corrupt);
    assert_eq!(loaded.seq, 5);
}

#[tokio::test]
async fn a_later_schema_and_a_damaged_file_are_refused_with_the_next_step() {
    let dir = Dir::new("refused");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    drop(SqliteJournal::open(&data, &key, fresh()).await.unwrap());
    sql(&data, "PRAGMA user_version = 99").await;
    let error = SqliteJournal::open(&data, &key, fresh()).await.expect_err("refused");
    assert!(error.to_string().contains("later version"), "{error}");

    let broken = dir.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("rackmedic.db"), [b'x'; 8192]).unwrap();
    let error = SqliteJournal::open(&broken, &key, fresh()).await.expect_err("refused");
    assert!(matches!(error, JournalError::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn a_torn_frame_ends_the_reserve_and_spoils_nothing_before_it() {
    let dir = Dir::new("torn");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
    journal.commit_reserve(epoch, 0, &entries(0, 2)).await.unwrap();
    journal.commit_reserve(epoch, 2, &entries(2, 2)).await.unwrap();
    drop(journal);
    let path = data.join("reserve");
    let mut bytes = std::fs::read(&path).unwrap();
    let second = 36 + u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    bytes[second + 50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    assert_eq!(journal.load().await.unwrap().seq, 2);
}

#[tokio::test]
async fn a_reserve_that_goes_on_from_another_journal_is_laid_aside_and_no_budget_is_believed() {
    let dir = Dir::new("aside");
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let data = dir.path().join("data");
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    let epoch = journal.acquire_lease(Elapsed(1)).await.unwrap();
    journal.commit(epoch, 0, &entries(0, 3)).await.unwrap();
    // What it goes on from went with the disk: the database beside it is an older one.
    journal.commit_reserve(epoch, 9, &entries(9, 2)).await.unwrap();
    drop(journal);
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    journal.recover().await.unwrap();
    let loaded = journal.load().await.unwrap();
    assert_eq!((loaded.seq, loaded.corrupt), (3, true));
    let epoch = journal.acquire_lease(Elapsed(2)).await.unwrap();
    assert_eq!(journal.commit(epoch, 3, &entries(3, 1)).await.unwrap(), 4);
    assert!(data.join("reserve.aside").exists(), "a person may look at it");
}
