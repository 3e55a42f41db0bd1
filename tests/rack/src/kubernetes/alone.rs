//! A test in namespaces of its own.

use anyhow::{Context as _, bail, ensure};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const INSIDE: &str = "RACKMEDIC_RACK_INSIDE";

/// What a kubelet writes into the kernel and leaves behind.
const KERNEL_SETTINGS: [&str; 5] = [
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
];

/// Runs the calling test again with a network, mounts and process numbers of its own, and waits. Answers true inside, where
/// the test goes on, and false outside, where it is over. Whatever the test starts inside ends with it.
///
/// # Errors
/// This is not root, `test` is not the name of the calling test, or the test failed inside.
pub fn alone(test: &str) -> anyhow::Result<bool> {
    if let Some(begun) = std::env::var_os(INSIDE) {
        std::fs::write(PathBuf::from(begun), b"")?;
        super::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        return Ok(true);
    }
    ensure!(rustix::process::geteuid().is_root(), "{test}: only root can make namespaces; run it as root");
    let begun = std::env::temp_dir().join(format!("rackmedic-rack-{}-{}", std::process::id(), test.replace(':', "-")));
    let _ = std::fs::remove_file(&begun);
    let before: Vec<_> = KERNEL_SETTINGS.iter().map(|path| (path, std::fs::read(path))).collect();
    let status = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=SIGKILL",
            "--mount-proc",
            "--propagation",
            "private",
        ])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, &begun)
        // What the runner inside says of results would be counted twice; the test itself speaks on the other channel.
        .stdout(Stdio::null())
        .status()
        .context("unshare does not start")?;
    for (path, value) in before {
        if let Ok(value) = value {
            let _ = std::fs::write(path, value);
        }
    }
    // A name that fits no test would run none of them, and that succeeds.
    let ran = std::fs::remove_file(&begun).is_ok();
    ensure!(ran, "{test}: no test of this name ran inside; give the name of the calling test, with its modules");
    if !status.success() {
        bail!("{test} failed inside its namespaces: {status}");
    }
    Ok(false)
}
