//! A root shell inside of a host, on its second serial port. Only the image of the rack has one.

use crate::layout::HostPlace;
use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Runs a line there and gives what it printed.
///
/// # Errors
/// No shell answers in time, as in a host that hangs.
pub fn shell(host: &HostPlace, line: &str, patience: Duration) -> Result<String> {
    let mut stream = UnixStream::connect(host.shell()).with_context(|| format!("{} has no power", host.name()))?;
    stream.set_read_timeout(Some(Duration::from_millis(250)))?;
    let until = Instant::now() + patience;
    // The marks are put together by the shell, so that its echo of the line does not hold them.
    write!(stream, "\necho be''gun; {line}; echo en''ded\n")?;
    let mut said = Vec::new();
    let mut portion = [0; 4096];
    loop {
        match stream.read(&mut portion) {
            Ok(0) => bail!("{} lost its power", host.name()),
            Ok(length) => said.extend_from_slice(portion.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        let text = String::from_utf8_lossy(&said).replace('\r', "");
        if let Some((_, rest)) = text.split_once("begun\n")
            && let Some((answer, _)) = rest.split_once("ended")
        {
            return Ok(answer.trim().to_owned());
        }
        if Instant::now() >= until {
            bail!("the shell of {} did not answer within {} s", host.name(), patience.as_secs());
        }
    }
}

/// Sends a line and does not wait: for what ends the shell itself.
///
/// # Errors
/// The host has no power.
pub fn send(host: &HostPlace, line: &str) -> Result<()> {
    let mut stream = UnixStream::connect(host.shell()).with_context(|| format!("{} has no power", host.name()))?;
    Ok(writeln!(stream, "\n{line}")?)
}
