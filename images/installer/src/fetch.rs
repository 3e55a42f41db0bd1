//! The image's bytes over plain HTTP, by ranges. Nothing here is trusted: every chunk is compared with its signed digest.

use crate::client::read_head;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// How long a server is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// On one connection without a byte.
    pub silence: Duration,
    /// Over all connections without a single chunk. The appliance may be restarting.
    pub without_a_chunk: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { silence: Duration::from_secs(20), without_a_chunk: Duration::from_secs(300) }
    }
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    address: SocketAddrV4,
    path: String,
    /// How long its server is waited for.
    pub(crate) patience: Patience,
}

impl Source {
    /// From `http://ADDRESS:PORT/PATH`; anything else is not followed.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
        let safe = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte));
        safe.then(|| {
            Some(Self { address: address.parse().ok()?, path: format!("/{path}"), patience: Patience::default() })
        })
        .flatten()
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The bytes from one to another (not included), as a stream that gives exactly so many or an error.
    ///
    /// # Errors
    /// When there is no such answer.
    pub fn range(&self, from: u64, to: u64) -> io::Result<Body> {
        let silence = self.patience.silence;
        let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(self.address), silence)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        let last = to.saturating_sub(1);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nRange: bytes={from}-{last}\r\nConnection: close\r\n\r\n",
            self.path, self.address
        );
        stream.write_all(request.as_bytes())?;
        let (status, length, early) = read_head(&mut stream)?;
        let wanted = to.saturating_sub(from);
        if status != 206 || length != Some(wanted) {
            let what = format!("asked for {wanted} bytes, got status {status} with {length:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Body { early, taken: 0, stream, left: wanted })
    }

    /// A whole small file of a known length.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn whole(&self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.range(0, bytes)?.read_to_end(&mut content)?;
        if content.len() as u64 == bytes { Ok(content) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Body {
    early: Vec<u8>,
    taken: usize,
    stream: TcpStream,
    left: u64,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let early = self.early.get(self.taken..).unwrap_or_default();
        let count = if early.is_empty() {
            self.stream.read(buffer)?
        } else {
            let count = early.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), early.get(..count)) {
                to.copy_from_slice(from);
            }
            self.taken += count;
            count
        };
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}
