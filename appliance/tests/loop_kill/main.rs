//! Kills the real loop at every n-th write and at random moments, stops it, and fills its disk; then asks the hosts.
//!
//! The parent holds the rack: `machine` models behind a socket, which no kill touches. The child runs the real loop over
//! the real SQLite store with the real driver, eight times faster than the world. Judged is what happened to the hosts,
//! not what the loop believes: no host ends off, tainted or cordoned, none is switched off twice for one illness, no
//! healthy one at all, nothing is released while a machine runs, and nothing acknowledged is lost.
//!
//! `RACKMEDIC_KILL_RUNS=N` sets the number of killed heals (default 24); `RACKMEDIC_LONG=1` runs 200 and stops the loop
//! for ten minutes instead of ten seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod life;
mod rack;

use healing::world::tally::Tallies;
use life::{KillAt, digest};
use machine::{BmcFault, Fault};
use rack::{HOSTS, Rack, SPEED};
use rackmedic::store::Journal;
use rackmedic::store::secret::OuterKey;
use rackmedic::store::sqlite::{SqliteJournal, verify_audit};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Racks at a time: they mostly wait.
const AT_ONCE: usize = 4;
/// A heal with all its kills ends within this, or the test fails.
const DEADLINE: Duration = Duration::from_secs(90);

fn main() {
    if let Some(directory) = std::env::var_os("LOOP_KILL_LIFE") {
        let socket = PathBuf::from(std::env::var_os("LOOP_KILL_SOCKET").unwrap());
        return life::live(Path::new(&directory), &socket, kill_at(&std::env::var("LOOP_KILL_AT").unwrap()));
    }
    if std::env::args().any(|argument| argument == "--list") {
        // What test runners ask before they run anything.
        return println!("loop_kill: test");
    }
    let long = std::env::var_os("RACKMEDIC_LONG").is_some();
    let runs = std::env::var("RACKMEDIC_KILL_RUNS").ok().and_then(|n| n.parse().ok());
    let runs = runs.unwrap_or(if long { 200 } else { 24 });
    let base = std::env::temp_dir().join(format!("rackmedic-loop-kill-{}", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    let template = base.join("template");
    prepare(&template);
    killed_heals(&base, &template, runs);
    stopped(&base, &template, if long { Duration::from_secs(600) } else { Duration::from_secs(10) });
    disk_full(&base, &template, false);
    disk_full(&base, &template, true);
    std::fs::remove_dir_all(&base).unwrap();
    println!("test result: ok. 3 passed; 0 failed");
}

fn kill_at(text: &str) -> KillAt {
    let number = |n: &str| n.parse().unwrap();
    match text.split_once(' ') {
        Some(("before", n)) => KillAt::Before(number(n)),
        Some(("after", n)) => KillAt::After(number(n)),
        _ => KillAt::Never,
    }
}

/// A small generator: the moments of the kills are chance, but the same chance each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

struct Life(Child);

impl Life {
    fn begin(directory: &Path, socket: &Path, kill_at: KillAt) -> Life {
        let at = match kill_at {
            KillAt::Never => "never".to_owned(),
            KillAt::Before(n) => format!("before {n}"),
            KillAt::After(n) => format!("after {n}"),
        };
        let child = Command::new(std::env::current_exe().unwrap())
            .env("LOOP_KILL_LIFE", directory)
            .env("LOOP_KILL_SOCKET", socket)
            .env("LOOP_KILL_AT", at)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Life(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(name).arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    fn assert_lives(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the loop's process ended by itself");
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lab's observation after a stall is 5 s of the loop's time; this much of it is looked at.
const OBSERVED_MS: u64 = 4_800;

/// Waits for a condition, looking often; fails with `what` at the deadline.
fn wait_for(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < deadline, "waited {deadline:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A data directory of an appliance that has seen its rack healthy: where every story begins.
fn prepare(template: &Path) {
    std::fs::create_dir_all(template).unwrap();
    let (rack, socket) = (Rack::new(), template.join("rack.sock"));
    rack.serve(&socket);
    let mut life = Life::begin(template, &socket, KillAt::Never);
    wait_for("the first healthy sight", DEADLINE, || rack.open().1 > 12);
    life.kill();
    std::fs::remove_file(socket).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What is counted over all killed heals.
#[derive(Default)]
struct Totals {
    kills_at_writes: AtomicU64,
    kills_at_random: AtomicU64,
    committed: AtomicU64,
    offs: AtomicU64,
    ons: AtomicU64,
    checked: AtomicU64,
}

fn killed_heals(base: &Path, template: &Path, runs: u64) {
    let began = Instant::now();
    let totals = Totals::default();
    let next = AtomicU64::new(1);
    let failed: Mutex<Vec<String>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::SeqCst);
                    if run > runs {
                        return;
                    }
                    let directory = base.join(format!("run-{run}"));
                    copy(template, &directory);
                    if let Err(why) = killed_heal(run, &directory, &totals) {
                        println!("run {run} failed: {why}");
                        failed.lock().unwrap().push(format!("run {run}: {why}"));
                    } else {
                        std::fs::remove_dir_all(directory).unwrap();
                    }
                }
            });
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    println!(
        "killed heals: {runs}, kills at a planned write {}, at random {}, groups committed {}, entries compared {}, machines taken down {}, started {}, in {:?}",
        count(&totals.kills_at_writes),
        count(&totals.kills_at_random),
        count(&totals.committed),
        count(&totals.checked),
        count(&totals.offs),
        count(&totals.ons),
        began.elapsed()
    );
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(count(&totals.kills_at_writes) >= runs, "each heal is killed at a planned write at least once");
    assert!(count(&totals.offs) >= runs, "each heal takes its host down");
}

/// One illness, up to three kills: at the `run`-th write, at a random moment, at a random write.
fn killed_heal(run: u64, directory: &Path, totals: &Totals) -> Result<(), String> {
    let mut chance = Chance(run);
    let (rack, socket) = (Rack::new(), directory.join("rack.sock"));
    rack.serve(&socket);
    let ill = 1 + u32::try_from(run % u64::from(HOSTS)).unwrap();
    if run.is_multiple_of(3) {
        rack.inject_bmc(ill, BmcFault::LosesReply);
    }
    let planned = |n: u64| if n.is_multiple_of(2) { KillAt::After(n / 2) } else { KillAt::Before(n / 2 + 1) };
    // A heal has some forty groups; a moment behind its end would never come.
    let mut life = Life::begin(directory, &socket, planned(1 + (run - 1) % 60));
    let (mut lives, mut injected, mut good_since, began) = (1, false, None, Instant::now());
    let mut random_at = None;
    loop {
        thread::sleep(Duration::from_millis(5));
        let planned_kill = rack.take_kill();
        let random_kill = random_at.is_some_and(|at| Instant::now() > at);
        if planned_kill || random_kill {
            life.kill();
            lives += 1;
            random_at = (lives == 2).then(|| Instant::now() + Duration::from_millis(300 + chance.next(9_000)));
            let at = if lives == 3 { planned(1 + chance.next(80)) } else { KillAt::Never };
            life = Life::begin(directory, &socket, at);
            let counter = if planned_kill { &totals.kills_at_writes } else { &totals.kills_at_random };
            counter.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        life.assert_lives();
        if !injected && rack.open().1 > 8 {
            injected = true;
            let faults = [Fault::KernelStuck, Fault::KernelPanic { dump_ms: None }, Fault::NicHung];
            rack.inject(ill, faults[usize::try_from(run % 3).unwrap()]);
        }
        let (open, _) = rack.open();
        let good = injected && rack.counts(ill).ons > 0 && open == 0 && rack.wrong().is_empty();
        good_since = if good { good_since.or(Some(Instant::now())) } else { None };
        // Two seconds of the loop's own time without anything left to do.
        if good_since.is_some_and(|at: Instant| at.elapsed() > Duration::from_secs(2) / SPEED * 2) && lives >= 2 {
            break;
        }
        if began.elapsed() > DEADLINE {
            let open = rack.open_words();
            return Err(format!("not healed: open {open}, {:?}, {:?}, lives {lives}", rack.wrong(), last_acts(&rack)));
        }
    }
    life.kill();
    totals.committed.fetch_add(rack.committed(), Ordering::SeqCst);
    judge(&rack, ill, totals)?;
    totals.checked.fetch_add(kept(directory)?, Ordering::SeqCst);
    Ok(())
}

fn last_acts(rack: &Rack) -> Vec<String> {
    rack.acts().into_iter().rev().take(8).map(|(_, act)| act).collect()
}

/// What happened to the machines in truth.
fn judge(rack: &Rack, ill: u32, totals: &Totals) -> Result<(), String> {
    for host in 1..=HOSTS {
        let counts = rack.counts(host);
        totals.offs.fetch_add(u64::from(counts.offs), Ordering::SeqCst);
        totals.ons.fetch_add(u64::from(counts.ons), Ordering::SeqCst);
        let most = u32::from(host == ill);
        if counts.offs > most || counts.ons > most || counts.healthy_offs > 0 || counts.released_alive > 0 {
            return Err(format!("host {host}, ill was {ill}: {counts:?}, acts {:?}", rack.acts()));
        }
    }
    Ok(())
}

/// Compares everything that was ever acknowledged with what the journal holds, and looks at the world in it.
fn kept(directory: &Path) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let text = std::fs::read_to_string(directory.join("acknowledged")).unwrap();
        let acknowledged: BTreeMap<u64, &str> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(seq, hash)| (seq.parse().unwrap(), hash))
            .collect();
        let key = OuterKey::file(&directory.join("key")).unwrap();
        let data = directory.join("data");
        let fresh = healing::world::World::new(&life::policy());
        let mut journal = SqliteJournal::open(&data, &key, fresh).await.map_err(|e| e.to_string())?;
        let (entries, unreadable) = journal.read_from(0, 1_000_000).await.map_err(|e| e.to_string())?;
        if unreadable > 0 {
            return Err(format!("{unreadable} entries cannot be read"));
        }
        let held: BTreeMap<u64, String> = entries.iter().map(|(seq, entry)| (*seq, digest(entry))).collect();
        for (seq, hash) in &acknowledged {
            if held.get(seq).map(String::as_str) != Some(*hash) {
                return Err(format!("entry {seq} was acknowledged and is not there as it was"));
            }
        }
        let loaded = journal.load().await.map_err(|e| e.to_string())?;
        if loaded.corrupt || loaded.restored {
            return Err(format!("corrupt {}, restored {}", loaded.corrupt, loaded.restored));
        }
        let world = loaded.world;
        if let Some(host) =
            world.hosts.values().find(|h| h.our_taint.is_some() || h.held_off.is_some() || h.our_cordon.is_some())
        {
            return Err(format!("{} still bears a mark of ours in the journal", host.name));
        }
        if !world.incidents.is_empty() {
            return Err(format!("{} incidents are open in the journal", world.incidents.len()));
        }
        let recounted = Tallies::recount(world.hosts.values(), world.incidents.values(), world.tallies.actions.clone());
        if recounted.normalised() != world.tallies.clone().normalised() {
            return Err("the tallies of the loaded world are not those of its records".to_owned());
        }
        drop(journal);
        let audit = verify_audit(&data).await.map_err(|e| e.to_string())?;
        match audit.broken {
            Some(broken) => Err(format!("the audit chain is broken: {broken:?}")),
            None => Ok(acknowledged.len() as u64),
        }
    })
}

/// SIGSTOP while a host is silent and about to be fenced. It comes back by itself meanwhile; after SIGCONT nothing may be
/// done on what was seen before.
fn stopped(base: &Path, template: &Path, stop: Duration) {
    // The silence begins at 0; a command is due at 22 s of the loop's time. Stops land around it.
    let moments = [16_000_u64, 19_000, 21_000, 22_000, 23_000, 24_000];
    let began = Instant::now();
    let results: Vec<(u64, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = moments
            .iter()
            .map(|&moment| {
                scope.spawn(move || {
                    let directory = base.join(format!("stop-{moment}"));
                    copy(template, &directory);
                    let (rack, socket) = (Rack::new(), directory.join("rack.sock"));
                    rack.serve(&socket);
                    let mut life = Life::begin(&directory, &socket, KillAt::Never);
                    wait_for("evidence", DEADLINE, || rack.open().1 > 8);
                    let silent_at = rack.now();
                    rack.inject(2, Fault::BenignSilence { lasts_ms: moment + 3_000 });
                    wait_for("the moment", DEADLINE, || rack.now() >= silent_at + moment);
                    life.signal("-STOP");
                    // What left before the stop may still be on its way through the socket.
                    thread::sleep(Duration::from_millis(100));
                    let before = rack.acts().len();
                    thread::sleep(stop);
                    life.signal("-CONT");
                    // The observation that follows a stall; what is done after it rests on what was seen in it.
                    let resumed_at = rack.now();
                    wait_for("the observation", DEADLINE, || rack.now() >= resumed_at + OBSERVED_MS);
                    life.assert_lives();
                    let old: Vec<_> = rack.acts().split_off(before);
                    let harmful = old.iter().filter(|(_, act)| !restores(act)).count() as u64;
                    assert_eq!(harmful, 0, "stopped at {moment} ms of silence: {old:?}");
                    let counts = rack.counts(2);
                    assert_eq!((counts.healthy_offs, counts.released_alive), (0, 0));
                    // And in the end it serves, whatever was done to it before the stop.
                    serves_again(&rack);
                    let counts = rack.counts(2);
                    assert_eq!((counts.healthy_offs, counts.released_alive), (0, 0));
                    life.kill();
                    (harmful, before as u64)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let harmful: u64 = results.iter().map(|r| r.0).sum();
    let before: u64 = results.iter().map(|r| r.1).sum();
    println!(
        "stopped for {stop:?} at {} moments: {harmful} acts from old evidence ({before} acts had left before), in {:?}",
        moments.len(),
        began.elapsed()
    );
}

/// Waits until every host serves and no incident is open; at the deadline it says what is wrong and what was last done.
fn serves_again(rack: &Rack) {
    let began = Instant::now();
    while !(rack.wrong().is_empty() && rack.open().0 == 0) {
        let open = rack.open_words();
        assert!(began.elapsed() < DEADLINE, "open {open}, {:?}, {:?}", rack.wrong(), last_acts(rack));
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends or undoes something of ours: allowed after a stall, so that no host is stranded.
fn restores(act: &str) -> bool {
    ["Uncordon", "RemoveTaint", "PowerOn", "DeleteCanary", "RestoreLabels", "DeleteCredential"]
        .iter()
        .any(|word| act.contains(word))
}

/// The disk fills while a host is held off: it is switched on by what the reserve can still keep, and nothing else is
/// done until there is room again: in the same life, or in the next, which finds the reserve as this one left it.
fn disk_full(base: &Path, template: &Path, killed: bool) {
    let began = Instant::now();
    let directory = base.join(if killed { "disk-full-killed" } else { "disk-full" });
    copy(template, &directory);
    let (rack, socket) = (Rack::new(), directory.join("rack.sock"));
    rack.serve(&socket);
    let mut life = Life::begin(&directory, &socket, KillAt::Never);
    wait_for("evidence", DEADLINE, || rack.open().1 > 8);
    rack.inject(4, Fault::KernelStuck);
    wait_for("the host to be held off", DEADLINE, || rack.off(4));
    std::fs::write(directory.join("disk-full"), "").unwrap();
    wait_for("safe completion from the reserve", DEADLINE, || {
        !rack.off(4) && !rack.wrong().iter().any(|wrong| wrong.contains("tainted"))
    });
    let completed = rack.now();
    // Silent within 15 s of our own off, it would be taken for the machine that we really switched (rule 29).
    wait_for("the watch over our off", DEADLINE, || rack.now() > completed + 20_000);
    rack.inject(6, Fault::KernelStuck);
    // Another host dies meanwhile: nothing is done about it while nothing can be written down.
    wait_for("a minute without a store", DEADLINE, || rack.now() > completed + 80_000);
    assert_eq!(rack.counts(6).offs, 0);
    assert_eq!((rack.counts(4).offs, rack.counts(4).ons), (1, 1));
    if killed {
        life.kill();
    }
    std::fs::remove_file(directory.join("disk-full")).unwrap();
    if killed {
        life = Life::begin(&directory, &socket, KillAt::Never);
    }
    serves_again(&rack);
    assert_eq!((rack.counts(6).offs, rack.counts(6).ons), (1, 1));
    life.assert_lives();
    life.kill();
    let compared = kept(&directory).unwrap();
    println!(
        "disk full while a host was held off (killed then: {killed}): switched on from the reserve, healed after; {compared} entries compared, in {:?}",
        began.elapsed()
    );
}
