//! Processes that run until they are dropped, and commands that run to their end.

use anyhow::{Context as _, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a condition is asked for.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How much of a log is shown when something went wrong.
const TAIL_BYTES: usize = 3_000;

/// A process that writes into a log of its own and is killed when this is dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> anyhow::Result<Service> {
        std::fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Service { name: name.to_owned(), child, log })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the condition holds, while it runs.
    ///
    /// # Errors
    /// It ended, or the time is over; the end of its log is told.
    pub fn wait_until(&mut self, within: Duration, what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        while !holds() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before {what}:\n{}", self.name, tail(&self.log));
            }
            if Instant::now() > until {
                bail!("{}: not within {} s: {what}\n{}", self.name, within.as_secs(), tail(&self.log));
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(())
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default()).into_owned()
}

/// Runs a command to its end and gives what it wrote.
///
/// # Errors
/// It does not start, or fails; what it wrote is told.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} does not start"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Waits until something is there.
///
/// # Errors
/// The time is over; what was wanted is told.
pub fn wait_for<T>(within: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = ask() {
            return Ok(found);
        }
        if Instant::now() > until {
            bail!("not within {} s: {what}", within.as_secs());
        }
        std::thread::sleep(ASK_EVERY);
    }
}
