//! `rackmedic bmc` against BMCs that nobody here wrote: a table of peers and verbs. Those that lie about their power are
//! refused, and what is said then is checked too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod peer;

use peer::Peer;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a verb must come to.
#[derive(Clone, Copy)]
enum Wanted {
    /// Exit 0, and this in what it prints.
    Done(&'static str),
    /// Exit 1, and this in what it prints or says.
    Refused(&'static str),
}
use Wanted::{Done, Refused};

struct Seen {
    code: i32,
    text: String,
    took: Duration,
}

fn rackmedic(peer: &Peer, verb: &[&str], password: &str) -> Seen {
    let begun = Instant::now();
    let done = Command::new(env!("CARGO_BIN_EXE_rackmedic"))
        .arg("bmc")
        .args(verb)
        .args(&peer.place)
        .args(["--output", "json"])
        .env("RACKMEDIC_BMC_PASSWORD", password)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    Seen { code: done.status.code().unwrap_or(-1), text, took: begun.elapsed() }
}

/// A peer that has just been started answers its first question within some seconds.
fn awake(peer: &Peer) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let seen = rackmedic(peer, &["power", "status"], "secret");
        if seen.code == 0 {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(format!("{}: never answered: {}", peer.name, seen.text));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Runs the verbs in order and gives a row of the table, and what was otherwise than wanted.
fn row(peer: &Peer, verbs: &[(&[&str], Wanted)]) -> (String, Vec<String>) {
    if let Err(why) = awake(peer) {
        return (format!("{}\n    never answered", peer.name), vec![why]);
    }
    let (mut cells, mut wrong) = (Vec::new(), Vec::new());
    for (verb, wanted) in verbs {
        let seen = rackmedic(peer, verb, "secret");
        let (code, part, word) = match wanted {
            Done(part) => (0, part, "done"),
            Refused(part) => (1, part, "refused as it must"),
        };
        let fits = seen.code == code && seen.text.contains(part);
        let cell = if fits { word } else { "WRONG" };
        cells.push(format!("    {:<22} {cell:<20} {:>5.1} s", verb.join(" "), seen.took.as_secs_f64()));
        if matches!(wanted, Refused(_)) {
            cells.push(format!("        said: {}", seen.text.lines().next_back().unwrap_or_default()));
        }
        if !fits {
            wrong.push(format!("{}: {verb:?} came to {}: {}", peer.name, seen.code, seen.text));
        }
        assert!(seen.took < Duration::from_secs(100), "{}: {verb:?} hung", peer.name);
        assert!(!seen.text.contains("secret"), "{}: {verb:?} shows the password", peer.name);
    }
    let seen = rackmedic(peer, &["power", "status"], "wrong-password");
    if (seen.code != 1 && peer.knows_passwords) || seen.text.contains("wrong-password") {
        wrong.push(format!("{}: a wrong password came to {}: {}", peer.name, seen.code, seen.text));
    }
    (format!("{}\n{}", peer.name, cells.join("\n")), wrong)
}

const HONEST: &[(&[&str], Wanted)] = &[
    (&["identify"], Done("machine")),
    (&["power", "on"], Done(r#""power":"on""#)),
    (&["power", "off"], Done(r#""proven_off":true"#)),
    (&["power", "status"], Done(r#""power":"off""#)),
    (&["power", "on"], Done(r#""power":"on""#)),
    (&["power", "cycle"], Done(r#""power":"on""#)),
];

/// Without an identity whose power it is, nothing is proven, however often it reads off.
const NAMELESS: &[(&[&str], Wanted)] = &[
    (&["identify"], Done("machine")),
    (&["power", "on"], Done(r#""power":"on""#)),
    (&["power", "off"], Refused("names no machine")),
    (&["power", "status"], Done(r#""power":"off""#)),
    (&["power", "on"], Done(r#""power":"on""#)),
];

const LIARS: &[(&[&str], Wanted)] = &[
    (&["power", "status"], Done(r#""power":"on""#)),
    (&["power", "off"], Refused("it does not read off: the command was accepted without effect")),
    (&["power", "cycle"], Refused("not switched on: it was not shown to be off")),
];

const SUSHY: &[(&[&str], Wanted)] = &[
    (&["boot", "pxe"], Refused("reads back as lasting")),
    (&["boot", "status"], Done(r#""device":"pxe""#)),
    (&["sensors"], Done("CPU Temp")),
    (&["sel"], Refused("names no hardware event log")),
    (&["boot", "cd"], Refused("reads back as lasting")),
];

#[test]
fn a_table_of_peers_and_verbs() {
    let Some(peers) = peer::installed() else {
        eprintln!("not run: RACKMEDIC_PEERS names no folder (tests/peers/install makes one)");
        return;
    };
    if !peer::alone() {
        eprintln!("not run: some peers listen on all addresses; this needs a network namespace with loopback alone");
        return;
    }
    let peers = &peers;
    let rows: Vec<(String, Vec<String>)> = std::thread::scope(|scope| {
        let all = [
            scope.spawn(|| row(&peer::ipmi_sim(19_701), HONEST)),
            scope.spawn(|| row(&peer::goipmi(peers, 19_702), NAMELESS)),
            scope.spawn(|| row(&peer::pyghmi(peers, 19_703), NAMELESS)),
            scope.spawn(|| row(&peer::virtualbmc(peers, 19_704), LIARS)),
            scope.spawn(|| row(&peer::sushy(peers, 19_710, false), &[HONEST, SUSHY].concat())),
            scope.spawn(|| row(&peer::sushy(peers, 19_711, true), HONEST)),
            scope.spawn(|| row(&peer::sushy_static(peers, 19_712), LIARS)),
        ];
        all.into_iter().map(|thread| thread.join().expect("a row ends")).collect()
    });
    for (text, _) in &rows {
        eprintln!("{text}");
    }
    let wrong: Vec<&String> = rows.iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
