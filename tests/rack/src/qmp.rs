//! The control socket of QEMU (QEMU machine protocol): one command a connection.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sends one command and gives what came back.
///
/// # Errors
/// QEMU is gone, does not answer within 5 s, or refuses.
pub fn command(socket: &Path, name: &str, arguments: Value) -> Result<Value> {
    let stream = UnixStream::connect(socket).with_context(|| format!("no QEMU behind {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut write = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    let mut answer = || -> Result<Value> {
        loop {
            let Some(line) = lines.next() else { bail!("QEMU closed its control socket") };
            let value: Value = serde_json::from_str(&line?)?;
            if let Some(error) = value.get("error") {
                bail!("QEMU refuses {name}: {error}");
            }
            // Events and the greeting come in between.
            if let Some(answer) = value.get("return") {
                return Ok(answer.clone());
            }
        }
    };
    writeln!(write, "{}", json!({ "execute": "qmp_capabilities" }))?;
    answer()?;
    writeln!(write, "{}", json!({ "execute": name, "arguments": arguments }))?;
    answer()
}
