//! The appliance is killed at random moments of a heal, with the rack in another process: whatever the moment, the next life
//! ends the same way, and no power action is doubled, counted at the BMC.
#![cfg(feature = "lab")]
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Kills in an ordinary run, one in each fifth of the heal.
const KILLS: u64 = 5;
/// Kills in a long run, each with a rack of its own, so that the fleet's rates (rule 13) and a host's history are those of one heal.
const KILLS_LONG: u64 = 20;
/// Racks at a time: they mostly wait.
const AT_ONCE: u64 = 5;
/// A heal takes about this long; the kills are spread over it.
const HEAL_MS: u64 = 44_000;
/// Until a heal with a kill in it has ended.
const LIMIT: Duration = Duration::from_secs(240);

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackmedic"));
    command.arg("demo").env("NO_COLOR", "1");
    command
}

/// The rack: it ends with its standard input, so that a test that dies leaves none behind.
struct Rack {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Rack {
    fn start(name: &str) -> Rack {
        // Sockets have short names: a path within the build folder may be too long for one.
        let folder = std::env::temp_dir().join(format!("rackmedic-kill-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let mut child = binary()
            .arg("--rack-only")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut rack = Rack { child, input, output, folder };
        rack.line();
        rack
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"))
    }

    fn ask(&mut self, words: &str) -> Value {
        writeln!(self.input, "{words}").unwrap();
        self.line()
    }

    fn truth(&mut self, host: &str) -> Value {
        let all = self.ask("truth");
        all.as_array().unwrap().iter().find(|one| one["host"] == host).unwrap().clone()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One life of the server; killed when it is dropped, too.
struct Life {
    child: Child,
    talk: PathBuf,
}

impl Life {
    fn start(folder: &Path, name: &str) -> Life {
        let talk = folder.join(format!("talk-{name}"));
        let child = binary()
            .arg("--on")
            .arg(folder.join("rack.json"))
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&talk).unwrap())
            .spawn()
            .unwrap();
        Life { child, talk }
    }

    fn talk(&self) -> String {
        std::fs::read_to_string(&self.talk).unwrap()
    }

    /// SIGKILL: not one instruction of it runs after.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One heal with one kill in it. Gives what the lives said.
fn heal_with_a_kill(number: u64, kill_after: Duration) {
    let mut rack = Rack::start(&number.to_string());
    let mut first = Life::start(&rack.folder, "1");
    wait_until("the first life sees a well rack", Duration::from_secs(120), || {
        first.talk().contains("the rack is watched")
    });
    rack.ask("break node-3 hang");
    // The moment itself is what is tested here, so this one sleep is the point.
    std::thread::sleep(kill_after);
    first.kill();
    let before = first.talk();
    let second = Life::start(&rack.folder, "2");
    let healed = "node-3 ended: Healed";
    let lives = || format!("killed after {kill_after:?}\n--- first\n{before}\n--- second\n{}", second.talk());
    let end = Instant::now() + LIMIT;
    while !before.contains(healed) && !second.talk().contains(healed) {
        assert!(Instant::now() < end, "not healed: {}", lives());
        std::thread::sleep(Duration::from_millis(200));
    }
    let truth = rack.truth("node-3");
    assert_eq!((&truth["healthy"], &truth["power"]), (&Value::from(true), &Value::from("on")), "{}", lives());
    for (what, count) in [("offs", 1), ("ons", 1), ("others", 0), ("cuts", 1), ("power_ons", 1), ("boots", 2)] {
        assert_eq!(truth[what], count, "{what}: {truth}\n{}", lives());
    }
    let all = rack.ask("truth");
    for one in all.as_array().unwrap() {
        assert_eq!(one["working_cuts"], 0, "{one}\n{}", lives());
        assert!(one["host"] == "node-3" || one["offs"] == 0, "{one}\n{}", lives());
    }
}

#[test]
fn kills_at_random_moments_of_a_heal_end_the_same_and_double_no_power_action() {
    let draw = RandomState::new();
    let kills = if std::env::var_os("RACKMEDIC_LONG").is_some() { KILLS_LONG } else { KILLS };
    let begun = Instant::now();
    for batch in 0..kills / AT_ONCE {
        std::thread::scope(|scope| {
            for place in 0..AT_ONCE {
                let number = batch * AT_ONCE + place;
                // One in each equal share of the heal, anywhere within it.
                let share = HEAL_MS / kills;
                let kill_after = Duration::from_millis(number * share + draw.hash_one(number) % share);
                scope.spawn(move || heal_with_a_kill(number, kill_after));
            }
        });
        eprintln!("{} kills after {} s", (batch + 1) * AT_ONCE, begun.elapsed().as_secs());
    }
}
