//! Programs of others, run against an emulator.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, unreachable_pub)]

use bmc_emulator::{Certificate, Emulator, Setup, by_name};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;

/// The password of every emulator here.
pub const PASSWORD: &str = "secret-of-a-bmc";

/// An emulator of this make.
pub async fn emulator(model: &str) -> Emulator {
    Emulator::start(Setup::of(by_name(model).unwrap()), &Certificate::make().unwrap()).await.unwrap()
}

/// Whether a program is not there; says so.
pub fn missing(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(program).is_file());
    if !found {
        eprintln!("not run: {program} is not installed (tests/peers/install)");
    }
    !found
}

/// Runs a program to its end.
pub async fn run(program: &str, arguments: &[&str]) -> Output {
    let child = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(Duration::from_secs(90), child).await.expect("it ends").expect("it starts")
}

/// All that it printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a verb of ipmitool, which must succeed.
pub async fn ipmitool(emulator: &Emulator, suite: &str, verb: &[&str]) -> String {
    let port = emulator.ipmi().port().to_string();
    let base = ["-I", "lanplus", "-C", suite, "-H", "127.0.0.1", "-p", &port, "-U", "admin", "-P", PASSWORD];
    let done = run("ipmitool", &[&base, verb].concat()).await;
    assert!(done.status.success(), "{verb:?}: {}", text(&done));
    text(&done)
}
