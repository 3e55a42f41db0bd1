//! The binary of a site holds nothing of the simulator: no crate, no word of it. So nothing that can make a proof under
//! broken rules is there to be linked, called or found.
#![cfg(feature = "lab")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What only the simulator and the machine models bring: their source paths in panic messages, and a line of the checks.
const WORDS: [&str; 3] = ["appliance/sim/src/", "appliance/machine/src/", "is taken down while own sight is bad"];

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    cargo
}

fn found(binary: &Path) -> Vec<&'static str> {
    let bytes = std::fs::read(binary).unwrap();
    let holds = |word: &&&str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    WORDS.iter().filter(holds).copied().collect()
}

fn linked(features: &[&str]) -> Vec<String> {
    let output = cargo()
        .args([
            "tree",
            "--locked",
            "--offline",
            "-p",
            "rackmedic",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(features)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let ours = text.lines().filter_map(|line| line.split(' ').next()).filter(|name| ["sim", "machine"].contains(name));
    let mut ours: Vec<String> = ours.map(str::to_owned).collect();
    ours.sort();
    ours.dedup();
    ours
}

#[test]
fn the_site_binary_links_neither_the_simulator_nor_the_machine_models() {
    assert_eq!(linked(&["--no-default-features"]), Vec::<String>::new());
    // The same question, asked of the lab binary, finds both: the check can fail.
    assert_eq!(linked(&[]), ["machine", "sim"]);
}

#[test]
fn the_site_binary_holds_no_word_of_the_simulator() {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("site");
    let built = cargo()
        .args(["build", "--locked", "--quiet", "-p", "rackmedic", "--no-default-features", "--target-dir"])
        .arg(&target)
        .status()
        .unwrap();
    assert!(built.success());
    assert_eq!(found(&target.join("debug/rackmedic")), Vec::<&str>::new());
    // The lab binary holds them all: the check can fail.
    assert_eq!(found(Path::new(env!("CARGO_BIN_EXE_rackmedic"))), WORDS);

    let help = Command::new(target.join("debug/rackmedic")).arg("--help").output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("simulate"));
    let refused = Command::new(target.join("debug/rackmedic")).arg("simulate").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
