//! Disks that really fail: a file system that is really full, and writes that the kernel answers with EIO. What was
//! acknowledged must be there afterwards, and the reserve must take what is left to be said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod store_world;

use healing::time::Elapsed;
use rackmedic::store::secret::OuterKey;
use rackmedic::store::sqlite::SqliteJournal;
use rackmedic::store::{Journal, JournalError};
use std::path::{Path, PathBuf};
use std::process::Command;
use store_world::{Dir, entries, fresh};

/// A small file system of its own; it goes with the test.
struct Small(PathBuf);

impl Small {
    /// `None` where it cannot be mounted: not root, or a container that may not.
    fn mount(at: &Path, kib: u32) -> Option<Small> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Small(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_file_system_that_is_really_full_loses_nothing_and_leaves_the_reserve() {
    let dir = Dir::new("store-full");
    let Some(small) = Small::mount(&dir.path().join("small"), 6 * 1024) else {
        println!("skipped: a small file system cannot be mounted here (needs root)");
        return;
    };
    let key = OuterKey::file(&dir.path().join("key")).unwrap();
    let mut journal = SqliteJournal::open(&small.0.join("data"), &key, fresh()).await.unwrap();
    let epoch = journal.acquire_lease(Elapsed(60_000)).await.unwrap();
    let mut world = fresh();
    let mut seq = 0;
    let why = loop {
        let group = entries(seq, 64);
        match journal.commit(epoch, seq, &group).await {
            Ok(next) => {
                group.iter().flat_map(|e| &e.changes).for_each(|c| world.apply(c));
                seq = next;
            }
            Err(why) => break why,
        }
        assert!(seq < 1_000_000, "a file system of 6 MiB cannot hold this");
    };
    assert!(matches!(why, JournalError::Full), "a full disk is called: {why}");
    // What must still be said goes into the space that was taken beforehand.
    let last = entries(seq, 3);
    assert_eq!(journal.commit_reserve(epoch, seq, &last).await.unwrap(), seq + 3);
    last.iter().flat_map(|e| &e.changes).for_each(|c| world.apply(c));
    // The crumbs that a group of 64 left over, taken by somebody's log file.
    let mut crumbs = std::fs::File::create(small.0.join("log")).unwrap();
    while std::io::Write::write_all(&mut crumbs, &[0; 512]).is_ok() {}
    // The log of writes may have room for three entries where it had none for 64: either answer is right.
    let early = journal.recover().await.is_ok();
    // A start on the full disk knows both parts.
    drop(journal);
    let mut journal = SqliteJournal::open(&small.0.join("data"), &key, fresh()).await.unwrap();
    let loaded = journal.load().await.unwrap();
    assert_eq!((loaded.seq, &loaded.world, loaded.corrupt), (seq + 3, &world, false));
    // Room again: the reserve is written down, and the journal goes on.
    let grown = Command::new("mount").args(["-o", "remount,size=32m"]).arg(&small.0).status().unwrap();
    assert!(grown.success());
    journal.recover().await.unwrap();
    let epoch = journal.acquire_lease(Elapsed(90_000)).await.unwrap();
    assert_eq!(journal.commit(epoch, seq + 3, &entries(seq + 3, 2)).await.unwrap(), seq + 5);
    println!(
        "a file system of 6 MiB was full after {seq} entries; 3 more by the reserve (written down at once: {early}); all {} are there",
        seq + 3
    );
}

/// The other side of the test below: writes groups until the disk fails, and says what was acknowledged.
#[tokio::test]
async fn life_on_a_failing_disk() {
    let Some(directory) = std::env::var_os("RACKMEDIC_FAILING_DISK").map(PathBuf::from) else { return };
    let key = OuterKey::file(&directory.join("key")).unwrap();
    let mut journal = SqliteJournal::open(&directory.join("data"), &key, fresh()).await.unwrap();
    let epoch = journal.acquire_lease(Elapsed(60_000)).await.unwrap();
    let mut seq = 0;
    for _ in 0..200 {
        match journal.commit(epoch, seq, &entries(seq, 5)).await {
            Ok(next) => seq = next,
            Err(why) => {
                println!("failed: {why}");
                break;
            }
        }
        println!("acknowledged {seq}");
    }
}

#[tokio::test]
async fn writes_that_fail_with_an_input_output_error_lose_nothing_acknowledged() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let mut failed = 0;
    for (call, nth) in [("pwrite64", 40), ("pwrite64", 111), ("fsync", 1), ("fsync", 12), ("fsync", 57)] {
        let dir = Dir::new(&format!("store-eio-{call}-{nth}"));
        let key = OuterKey::file(&dir.path().join("key")).unwrap();
        drop(SqliteJournal::open(&dir.path().join("data"), &key, fresh()).await.unwrap());
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("trace={call}"))
            .arg("-e")
            .arg(format!("inject={call}:error=EIO:when={nth}+"))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "life_on_a_failing_disk", "--nocapture"])
            .env("RACKMEDIC_FAILING_DISK", dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.contains("panicked"), "{call} {nth}: {said}");
        let acknowledged = said.lines().filter_map(|l| l.strip_prefix("acknowledged ")?.parse::<u64>().ok()).max();
        let acknowledged = acknowledged.unwrap_or(0);
        failed += u32::from(said.contains("failed: "));
        let mut journal = SqliteJournal::open(&dir.path().join("data"), &key, fresh()).await.unwrap();
        let loaded = journal.load().await.unwrap();
        assert!(!loaded.corrupt, "{call} {nth}");
        assert!(loaded.seq >= acknowledged, "{call} {nth}: {} of {acknowledged} acknowledged are there", loaded.seq);
        let mut world = fresh();
        entries(0, usize::try_from(loaded.seq).unwrap()).iter().flat_map(|e| &e.changes).for_each(|c| world.apply(c));
        assert_eq!(loaded.world, world, "{call} {nth}");
        println!("{call} failing from the {nth}th: {acknowledged} acknowledged, {} there", loaded.seq);
    }
    assert!(failed >= 4, "only {failed} of the injected errors were met: the test tests nothing");
}
