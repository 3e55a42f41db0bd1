//! Programs that are run to their end, with what they said when they fail.

use anyhow::{Context as _, Result, bail};
use std::process::{Command, Stdio};

/// Runs a program; its standard output.
///
/// # Errors
/// It does not start or does not succeed: then with what it said.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{program} does not start: is its package installed?"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command inside of a network namespace. Not by `ip netns exec`, which mounts sysfs anew and hides the control groups.
#[must_use]
pub fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program).stdin(Stdio::null());
    command
}

/// Waits for a condition.
///
/// # Errors
/// It did not come true in time.
pub fn wait_for(what: &str, patience: std::time::Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let until = std::time::Instant::now() + patience;
    while !is_so() {
        if std::time::Instant::now() >= until {
            bail!("{what} did not happen within {} s", patience.as_secs());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}
