//! The sockets of HTTP boot: connections with limits and deadlines, bodies by `sendfile(2)`.

use super::answer::Answer;
use super::request::{HEAD_LIMIT_BYTES, Head, Method};
use crate::files::{Body, BootFile, FileRequest, Files, Protocol, Transfer, TransferEvent};
use rustix::net::SendFlags;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How much one call hands to the kernel: enough that the calls cost nothing, and little enough that other connections
/// of this thread wait no longer than the page cache needs for it.
const PORTION_BYTES: u64 = 1024 * 1024;
/// How far ahead of a range the kernel is told that it will be read.
const READ_AHEAD_BYTES: u64 = 16 * 1024 * 1024;

/// How much is served at once, and how long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address.
    pub per_source: usize,
    /// From accept, or from the end of the last answer, to the end of a request's head.
    pub head: Duration,
    /// Without a byte taken by the peer.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // A host holds one connection while it boots and at most eight while it installs.
        Self { connections: 2048, per_source: 16, head: Duration::from_secs(15), stalled: Duration::from_secs(60) }
    }
}

/// The HTTP boot server on one address.
#[derive(Debug)]
pub struct HttpServer<F> {
    listener: TcpListener,
    files: Arc<F>,
    limits: Limits,
}

impl<F: Files> HttpServer<F> {
    /// Opens the socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn bind(address: SocketAddr, files: Arc<F>, limits: Limits) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, files, limits })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let sources = Arc::new(Sources::default());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a peer that was gone before its turn: neither is worth a spin.
                    tracing::warn!(%error, "the boot HTTP server could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(place) = Place::take(&sources, peer.ip(), self.limits) else {
                // Dropped without a word: the peer's own retry is the queue.
                tracing::debug!(%peer, "too many connections");
                continue;
            };
            let (files, limits, stop) = (Arc::clone(&self.files), self.limits, stop.clone());
            tasks.spawn(async move {
                let _place = place;
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = connection(stream, peer, files.as_ref(), limits) => {}
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// How many connections each address has.
#[derive(Debug, Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place among them, given back on drop.
#[derive(Debug)]
struct Place {
    sources: Arc<Sources>,
    address: IpAddr,
}

impl Place {
    fn take(sources: &Arc<Sources>, address: IpAddr, limits: Limits) -> Option<Self> {
        let mut counts = sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= limits.connections {
            return None;
        }
        let count = counts.entry(address).or_default();
        if *count >= limits.per_source {
            return None;
        }
        *count += 1;
        Some(Self { sources: Arc::clone(sources), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// One connection to its end.
async fn connection<F: Files>(stream: TcpStream, peer: SocketAddr, files: &F, limits: Limits) {
    let Ok(local) = stream.local_addr() else { return };
    // Heads and bodies are sent in the pieces we mean them to have.
    let _ = stream.set_nodelay(true);
    let mut buffer: Vec<u8> = Vec::with_capacity(1024);
    loop {
        let read = tokio::time::timeout(limits.head, read_head(&stream, &mut buffer));
        let head = match read.await {
            Ok(Ok(Some(head))) => head,
            // Gone, or silent for too long: nothing was asked, so nothing is answered.
            Err(_) | Ok(Ok(None) | Err(ReadError::Io)) => return,
            Ok(Err(ReadError::Head(error))) => {
                let answer = Answer::refused(error);
                let _ = send_bytes(&stream, answer.head.as_bytes(), SendFlags::NOSIGNAL, limits, &mut 0).await;
                linger(&stream).await;
                return;
            }
        };
        // A second request may already have come behind the first.
        buffer.drain(..head.bytes.min(buffer.len()));
        let keep_alive = match answer(&stream, &head, peer, local, files, limits).await {
            Ok(keep_alive) => keep_alive,
            Err(_) => return,
        };
        if !keep_alive {
            linger(&stream).await;
            return;
        }
    }
}

/// Answers one request. Whether the connection lives on.
async fn answer<F: Files>(
    stream: &TcpStream,
    head: &Head,
    peer: SocketAddr,
    local: SocketAddr,
    files: &F,
    limits: Limits,
) -> io::Result<bool> {
    let mut ignored = 0;
    if head.method == Method::Other {
        let answer = Answer::other_method();
        send_bytes(stream, answer.head.as_bytes(), SendFlags::NOSIGNAL, limits, &mut ignored).await?;
        return Ok(false);
    }
    let path = head.path.as_deref();
    let file = path.and_then(|path| files.open(&FileRequest { protocol: Protocol::Http, peer, local, path }).ok());
    let (Some(path), Some(file)) = (path, file) else {
        let answer = Answer::nothing();
        send_bytes(stream, answer.head.as_bytes(), SendFlags::NOSIGNAL, limits, &mut ignored).await?;
        return Ok(answer.keep_alive);
    };
    let answer = Answer::with(head, &file);
    let note = |what: TransferEvent| {
        files.transferred(&Transfer { protocol: Protocol::Http, tag: file.tag, peer, path, what });
    };
    if answer.length == 0 {
        send_bytes(stream, answer.head.as_bytes(), SendFlags::NOSIGNAL, limits, &mut ignored).await?;
        if head.method == Method::Head {
            note(TransferEvent::OnlySize);
        }
        return Ok(answer.keep_alive);
    }
    let agreed = if answer.status == 206 {
        let last = answer.from.saturating_add(answer.length).saturating_sub(1);
        format!("range {}-{last}", answer.from)
    } else {
        String::new()
    };
    note(TransferEvent::Began { from_byte: answer.from, bytes: answer.length, agreed });
    let began = Instant::now();
    let mut sent = 0;
    let outcome = send_file(stream, &answer, &file, limits, &mut sent).await;
    match &outcome {
        Ok(()) => note(TransferEvent::Ended { bytes: sent, took: began.elapsed(), sent_again: 0 }),
        Err(error) => note(TransferEvent::Failed { bytes: sent, why: error.to_string() }),
    }
    outcome.map(|()| answer.keep_alive)
}

enum ReadError {
    Io,
    Head(super::request::HeadError),
}

/// The next head; `None` when the peer has ended the connection between two requests.
async fn read_head(stream: &TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Head>, ReadError> {
    loop {
        if !buffer.is_empty()
            && let Some(head) = Head::parse(buffer).map_err(ReadError::Head)?
        {
            return Ok(Some(head));
        }
        stream.readable().await.map_err(|_| ReadError::Io)?;
        let mut portion = [0; 2048];
        let room = HEAD_LIMIT_BYTES.saturating_sub(buffer.len()).min(portion.len());
        let Some(space) = portion.get_mut(..room) else { return Err(ReadError::Io) };
        match stream.try_read(space) {
            Ok(0) => return Ok(None),
            Ok(length) => buffer.extend_from_slice(portion.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(ReadError::Io),
        }
    }
}

async fn send_file(
    stream: &TcpStream,
    answer: &Answer,
    file: &BootFile,
    limits: Limits,
    sent: &mut u64,
) -> io::Result<()> {
    // The head waits for the first bytes of the body, so that a small file is one segment.
    let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
    send_bytes(stream, answer.head.as_bytes(), flags, limits, &mut 0).await?;
    match &file.body {
        Body::Bytes(bytes) => {
            let from = usize::try_from(answer.from).unwrap_or(usize::MAX);
            let length = usize::try_from(answer.length).unwrap_or(usize::MAX);
            let part = bytes.get(from..).and_then(|rest| rest.get(..length)).unwrap_or_default();
            send_bytes(stream, part, SendFlags::NOSIGNAL, limits, sent).await
        }
        Body::File { file, offset, .. } => {
            let from = offset.saturating_add(answer.from);
            send_from_file(stream, file, from, answer.length, limits, sent).await
        }
    }
}

/// Sends the bytes; `sent` grows by what the kernel has taken.
async fn send_bytes(
    stream: &TcpStream,
    bytes: &[u8],
    flags: SendFlags,
    limits: Limits,
    sent: &mut u64,
) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let write = stream.async_io(Interest::WRITABLE, || Ok(rustix::net::send(stream, rest, flags)?));
        let length = tokio::time::timeout(limits.stalled, write).await.map_err(|_| stalled())??;
        rest = rest.get(length..).unwrap_or_default();
        *sent = sent.saturating_add(length as u64);
    }
    Ok(())
}

/// Sends a part of a file from the page cache to the socket, without a copy through this process.
async fn send_from_file(
    stream: &TcpStream,
    file: &File,
    from: u64,
    length: u64,
    limits: Limits,
    sent: &mut u64,
) -> io::Result<()> {
    let end = from.saturating_add(length);
    let mut offset = from;
    let mut told_until = from;
    while offset < end {
        if offset >= told_until {
            // A cold image then comes from the disk while earlier bytes are on the wire, not in the middle of a call.
            told_until = offset.saturating_add(READ_AHEAD_BYTES).min(end);
            let ahead = std::num::NonZeroU64::new(told_until.saturating_sub(offset));
            let _ = rustix::fs::fadvise(file, offset, ahead, rustix::fs::Advice::WillNeed);
        }
        let portion = usize::try_from(end.saturating_sub(offset).min(PORTION_BYTES)).unwrap_or(usize::MAX);
        let write = stream.async_io(Interest::WRITABLE, || {
            let mut at = offset;
            Ok(rustix::fs::sendfile(stream, file, Some(&mut at), portion)?)
        });
        let length = tokio::time::timeout(limits.stalled, write).await.map_err(|_| stalled())??;
        if length == 0 {
            let why = "the file became shorter while it was served: do not change images in the store";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        offset = offset.saturating_add(length as u64);
        *sent = sent.saturating_add(length as u64);
    }
    Ok(())
}

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer took no byte for too long")
}

/// Ends our side and waits for the peer's end, so that bytes of it that we never read do not turn into a reset which
/// takes the answer away from it (RFC 9112 section 9.6).
async fn linger(stream: &TcpStream) {
    let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
    let drain = async {
        let mut portion = [0; 4096];
        let mut left = 16_u8;
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut portion) {
                Ok(0) => break,
                Ok(_) => left -= 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}
