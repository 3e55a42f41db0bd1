//! The arrows of the architecture point one way, and the pure crates stay pure. Read from `cargo metadata` and from the
//! sources; each check is also shown to fail on a doctored input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Which workspace crates each may depend on (design: `appliance → {healing, sim, machine}`, `sim → {healing, machine}`).
const ALLOWED: &[(&str, &[&str])] = &[
    ("healing", &[]),
    ("machine", &[]),
    ("bmc", &[]),
    ("bmc-emulator", &["machine", "bmc"]),
    ("installer", &["protocol"]),
    ("protocol", &[]),
    ("pxe", &["protocol"]),
    ("sim", &["healing", "machine"]),
    ("rackmedic", &["healing", "machine", "sim", "bmc", "bmc-emulator", "pxe", "protocol"]),
    ("tests", &["healing", "machine", "sim", "bmc", "bmc-emulator", "pxe", "protocol", "rack", "rackmedic"]),
];

/// All that the pure crates may link: serde and what its derive macro is made of.
const PURE: &[&str] = &["serde", "serde_core", "serde_derive", "syn", "quote", "proc-macro2", "unicode-ident"];

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(tests::root())
        .output()
        .expect("cargo metadata starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// name → its direct dependencies of kinds normal and build, by package name.
fn graph(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let from = name_of[node["id"].as_str().unwrap()].to_owned();
        let to = graph.entry(from).or_default();
        for dependency in node["deps"].as_array().unwrap() {
            let linked = dependency["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"] != "dev");
            if linked {
                to.insert(name_of[dependency["pkg"].as_str().unwrap()].to_owned());
            }
        }
    }
    graph
}

fn turned_arrows(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let ours: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (name, allowed) in ALLOWED {
        for to in graph.get(*name).into_iter().flatten() {
            if ours.contains(to.as_str()) && !allowed.contains(&to.as_str()) {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    wrong
}

fn impure(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(name) = next.pop() {
        for to in graph.get(&name).into_iter().flatten() {
            if seen.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    seen.into_iter().filter(|name| !PURE.contains(&name.as_str())).collect()
}

#[test]
fn no_dependency_arrow_turns_round() {
    assert_eq!(turned_arrows(&graph(&metadata())), Vec::<String>::new());
}

#[test]
fn the_core_and_the_machine_link_nothing_but_serde() {
    let graph = graph(&metadata());
    assert_eq!(impure(&graph, "healing"), Vec::<String>::new());
    assert_eq!(impure(&graph, "machine"), Vec::<String>::new());
}

#[test]
fn the_checks_notice_a_turned_arrow_and_an_impure_core() {
    let mut graph = graph(&metadata());
    graph.get_mut("healing").unwrap().insert("sim".to_owned());
    assert_eq!(turned_arrows(&graph), ["healing -> sim"]);
    graph.get_mut("healing").unwrap().remove("sim");
    graph.get_mut("serde").unwrap().insert("tokio".to_owned());
    assert!(impure(&graph, "healing").contains(&"tokio".to_owned()));
}

/// Words that the sources of pure crates may not contain, and why.
const BANNED: &[(&str, &str)] = &[
    ("Instant::now", "reads a clock"),
    ("SystemTime", "reads a clock"),
    ("std::fs", "does I/O"),
    ("std::net", "does I/O"),
    ("std::process", "starts processes"),
    ("std::env", "reads the environment"),
    ("std::thread", "is not pure"),
    ("HashMap", "has no order"),
    ("HashSet", "has no order"),
    ("tokio", "is not pure"),
    ("tracing::", "is not pure"),
    ("rand::", "draws randomness"),
    ("println!", "does I/O"),
];

fn banned_words(text: &str) -> Vec<&'static str> {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let lines: Vec<&str> = text.lines().filter(code).collect();
    BANNED.iter().filter(|(word, _)| lines.iter().any(|line| line.contains(word))).map(|(word, _)| *word).collect()
}

#[test]
fn the_pure_crates_reach_for_nothing_outside() {
    let mut found = Vec::new();
    for file in tests::files(".rs") {
        let path = file.to_string_lossy().into_owned();
        let pure = ["appliance/core/src", "appliance/machine/src", "appliance/sim/src"];
        if pure.iter().any(|folder| path.starts_with(folder)) {
            let text = std::fs::read_to_string(tests::root().join(&file)).unwrap();
            found.extend(banned_words(&text).into_iter().map(|word| format!("{path}: {word}")));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_word_check_notices_a_clock() {
    assert_eq!(banned_words("let t = std::time::Instant::now();"), ["Instant::now"]);
    assert_eq!(banned_words("// Instant::now is banned here"), Vec::<&str>::new());
}
