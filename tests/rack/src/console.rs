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
    let mut stream = connect(host)?;
    // The marks are put together by the shell, so that its echo of the line does not hold them.
    write!(stream, "\necho be''gun; {line}; echo en''ded\n")?;
    read_until(&mut stream, host, patience, |text| {
        let (answer, _) = text.split_once("begun\n")?.1.split_once("ended")?;
        Some(answer.trim().to_owned())
    })
}

/// Has the shell begin a line and does not wait for its end: for what ends the shell itself.
///
/// # Errors
/// The host has no power, or no shell begins it within 20 s.
pub fn send(host: &HostPlace, line: &str) -> Result<()> {
    let mut stream = connect(host)?;
    write!(stream, "\necho be''gun; {line}\n")?;
    // QEMU forgets what the guest has not yet taken when its socket is closed.
    read_until(&mut stream, host, Duration::from_secs(20), |text| text.contains("begun\n").then_some(()))
}

fn connect(host: &HostPlace) -> Result<UnixStream> {
    let stream = UnixStream::connect(host.shell()).with_context(|| format!("{} has no power", host.name()))?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(stream)
}

fn read_until<T>(
    stream: &mut UnixStream,
    host: &HostPlace,
    patience: Duration,
    found: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    let until = Instant::now() + patience;
    let mut said = Vec::new();
    let mut portion = [0; 4096];
    loop {
        match stream.read(&mut portion) {
            Ok(0) => bail!("{} lost its power", host.name()),
            Ok(length) => said.extend_from_slice(portion.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(found) = found(&String::from_utf8_lossy(&said).replace('\r', "")) {
            return Ok(found);
        }
        if Instant::now() >= until {
            bail!("the shell of {} did not answer within {} s", host.name(), patience.as_secs());
        }
    }
}
