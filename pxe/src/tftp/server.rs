//! The sockets of TFTP: one that hears requests, and one of its own for each transfer (RFC 1350 section 4).

use super::packet::{self, FromClient, Mode, REQUEST_LIMIT_BYTES, ReadRequest};
use super::segments;
use super::transfer::{Send, Transfer};
use crate::files::{self, Body, BootFile, FileRequest, Files, Protocol, TransferEvent, Withheld};
use crate::http::request::plain_name;
use bytes::Bytes;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request that is sent again within this time is the one we have: our first answer may still be under way.
const REPEATED: Duration = Duration::from_secs(3);
/// Files beyond this are not given by TFTP: they belong to HTTP, and clients that count blocks of 512 bytes in 16 bits
/// fail at 32 MiB.
const FILE_LIMIT_BYTES: usize = 256 << 20;

/// How much is served at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Transfers in all.
    pub transfers: usize,
    /// Transfers to one address.
    pub per_source: usize,
    /// The largest block: what fits into one packet of the link, 32 bytes below its MTU.
    pub block_bytes: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self { transfers: 1000, per_source: 4, block_bytes: 1468 }
    }
}

/// The TFTP server on one address.
#[derive(Debug)]
pub struct TftpServer<F> {
    socket: UdpSocket,
    local: SocketAddr,
    files: Arc<F>,
    limits: Limits,
}

/// Transfers under way, by client.
type Running = Mutex<HashMap<SocketAddr, Under>>;

#[derive(Debug)]
struct Under {
    /// The request as it came.
    request: Vec<u8>,
    began: Instant,
    stop: CancellationToken,
}

impl<F: Files> TftpServer<F> {
    /// Opens the socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn bind(address: SocketAddr, files: Arc<F>, limits: Limits) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local, files, limits })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.local
    }

    /// Serves until it is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let running: Arc<Running> = Arc::default();
        let mut bytes = [0; REQUEST_LIMIT_BYTES + 1];
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => break,
                received = self.socket.recv_from(&mut bytes) => received,
            };
            // An error here is an old ICMP message about somebody else; the socket lives on.
            let Ok((length, peer)) = received else { continue };
            let Some(request) = bytes.get(..length) else { continue };
            let Some(own_stop) = admit(&running, peer, request, self.limits, &stop) else { continue };
            let task = serve(self.local, peer, request.to_vec(), Arc::clone(&self.files), self.limits);
            let running = Arc::clone(&running);
            tasks.spawn(async move {
                tokio::select! {
                    () = own_stop.cancelled() => {}
                    _ = task => {}
                }
                // Another transfer of the same client may have taken the place.
                if !own_stop.is_cancelled() {
                    running.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// Whether a request begins a transfer, and what stops that.
fn admit(
    running: &Running,
    peer: SocketAddr,
    request: &[u8],
    limits: Limits,
    stop: &CancellationToken,
) -> Option<CancellationToken> {
    // Only what may be a request takes a place.
    packet::read_request(request)?;
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(under) = running.get(&peer) {
        if under.request == request && under.began.elapsed() < REPEATED {
            return None;
        }
        // The client begins anew from the same port: the old transfer has nobody to talk to.
        under.stop.cancel();
        running.remove(&peer);
    }
    let of_source = |ip: IpAddr| running.keys().filter(|other| other.ip() == ip).count();
    if running.len() >= limits.transfers || of_source(peer.ip()) >= limits.per_source {
        return None;
    }
    let own = stop.child_token();
    running.insert(peer, Under { request: request.to_vec(), began: Instant::now(), stop: own.clone() });
    Some(own)
}

/// One transfer from its request to its end.
async fn serve<F: Files>(
    local: SocketAddr,
    peer: SocketAddr,
    request: Vec<u8>,
    files: Arc<F>,
    limits: Limits,
) -> Option<()> {
    let ReadRequest { name, mode, options } = packet::read_request(&request)?;
    // Firmware that thinks in DOS sends backslashes, some put a slash before.
    let path = plain_name(&name.replace('\\', "/"))?;
    let file = match files.open(&FileRequest { protocol: Protocol::Tftp, peer, local, path: &path }) {
        Ok(file) => file,
        Err(Withheld::Silence) => return None,
        Err(Withheld::NotThere) => {
            // Shorter than any request that hears it: nobody's traffic grows by a forged address.
            let error = packet::error(packet::error_code::NOT_FOUND, "not found");
            let _ = own_socket(local, peer).await?.send(&error).await;
            return Some(());
        }
    };
    let note = |what: TransferEvent| {
        files.transferred(&files::Transfer { protocol: Protocol::Tftp, tag: file.tag, peer, path: &path, what });
    };
    let socket = own_socket(local, peer).await?;
    let Some(content) = content(&file, mode) else {
        let why = "this file is only given by HTTP";
        let _ = socket.send(&packet::error(packet::error_code::NOT_DEFINED, why)).await;
        note(TransferEvent::Failed { bytes: 0, why: why.to_owned() });
        return Some(());
    };
    let began = Instant::now();
    let mut transfer = Transfer::new(content.len() as u64, options, limits.block_bytes, Duration::ZERO);
    let agreed = transfer.agreed();
    note(TransferEvent::Began { from_byte: 0, bytes: content.len() as u64, agreed });
    let mut sender = Sender::new(&transfer);
    let end = converse(&socket, &mut transfer, &content, &mut sender, began).await;
    note(end);
    Some(())
}

/// A port of its own for one transfer, on the address that was asked: a reply from another one is dropped by the client.
/// Connected, so that nobody else's packets get here; the kernel answers those with ICMP.
async fn own_socket(local: SocketAddr, peer: SocketAddr) -> Option<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(local.ip(), 0)).await.ok()?;
    socket.connect(peer).await.ok()?;
    Some(socket)
}

/// The bytes that are sent; `None` for what TFTP does not give.
fn content(file: &BootFile, mode: Mode) -> Option<Bytes> {
    match (&file.body, mode) {
        (Body::Bytes(bytes), _) if bytes.len() > FILE_LIMIT_BYTES => None,
        (Body::Bytes(bytes), Mode::Octet) => Some(bytes.clone()),
        (Body::Bytes(bytes), Mode::Netascii) => Some(packet::netascii(bytes).into()),
        (Body::File { .. }, _) => None,
    }
}

/// The exchange of packets. How it ended.
async fn converse(
    socket: &UdpSocket,
    transfer: &mut Transfer,
    content: &Bytes,
    sender: &mut Sender,
    began: Instant,
) -> TransferEvent {
    let mut bytes = [0; 256];
    let mut step = transfer.first(Duration::ZERO);
    // One timer for the whole transfer: it is set anew only when it rings, not with every packet.
    let timer = tokio::time::sleep_until(due(transfer, began));
    tokio::pin!(timer);
    loop {
        if let Some(end) = step.ended {
            return end;
        }
        if let Err(error) = sender.send(socket, transfer, content, step.send).await {
            return broken(transfer, &error, began);
        }
        if timer.deadline() > due(transfer, began) {
            timer.as_mut().reset(due(transfer, began));
        }
        step = loop {
            let received = tokio::select! {
                biased;
                received = socket.recv(&mut bytes) => received,
                () = &mut timer => {
                    let now = began.elapsed();
                    timer.as_mut().reset(due(transfer, began));
                    if now < transfer.deadline() {
                        continue;
                    }
                    // What was seen as "nothing there" before the last packet went out may have been filled since.
                    match rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
                        Ok((length, _)) => Ok(length),
                        Err(_) => {
                            let step = transfer.late(now);
                            timer.as_mut().reset(due(transfer, began));
                            break step;
                        }
                    }
                }
            };
            let length = match received {
                Ok(length) => length,
                Err(error) => return broken(transfer, &error, began),
            };
            let Some(packet) = packet::from_client(bytes.get(..length).unwrap_or_default()) else { continue };
            let step = transfer.packet(&packet, began.elapsed());
            if matches!(packet, FromClient::Error { .. }) || step.send != Send::Nothing || step.ended.is_some() {
                // The client speaks again only when it has what is sent now: the next call of recv need not ask the kernel
                // whether there is more. Were there more all the same, the timer looks for it.
                let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = socket.try_io(Interest::READABLE, nothing);
                break step;
            }
        };
    }
}

fn due(transfer: &Transfer, began: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(began + transfer.deadline())
}

/// The client's port is closed, or there is no way to it.
fn broken(transfer: &Transfer, error: &io::Error, began: Instant) -> TransferEvent {
    if error.kind() == io::ErrorKind::ConnectionRefused && transfer.all_sent() {
        // It has everything and is gone; only its last acknowledgement was lost.
        return transfer.ended(began.elapsed());
    }
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "the peer has closed its port".to_owned(),
        _ => error.to_string(),
    };
    TransferEvent::Failed { bytes: transfer.acknowledged_bytes(), why }
}

/// How blocks go out.
#[derive(Debug)]
struct Sender {
    /// Whether the kernel cuts a whole window into its datagrams.
    cuts: Cuts,
    /// For a single block: copying it behind its head costs less than a call with two parts.
    one: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cuts {
    No,
    /// From the first window on, and not before: the option holds for the whole socket, and with small blocks the kernel
    /// would cut the acknowledgement of options, too.
    FromTheFirstWindow,
    Yes,
}

impl Sender {
    fn new(transfer: &Transfer) -> Self {
        // One block at a time needs no cutting, and a block that fills a packet of its own cannot be cut.
        let length = usize::from(transfer.block_bytes()) + 4;
        let wanted = transfer.window() > 1 && length * 2 <= segments::MOST_BYTES;
        let cuts = if wanted { Cuts::FromTheFirstWindow } else { Cuts::No };
        Self { cuts, one: Vec::with_capacity(length) }
    }

    async fn send(&mut self, socket: &UdpSocket, transfer: &Transfer, content: &Bytes, what: Send) -> io::Result<()> {
        let (mut first, last) = match what {
            Send::Nothing => return Ok(()),
            Send::Options => return socket.send(transfer.options()).await.map(|_| ()),
            Send::Blocks { first, last } => (first, last),
        };
        if self.cuts == Cuts::FromTheFirstWindow {
            let length = transfer.block_bytes().checked_add(4);
            let cut = length.is_some_and(|length| segments::cut_into(socket, length).is_ok());
            self.cuts = if cut { Cuts::Yes } else { Cuts::No };
        }
        while first <= last {
            let length = usize::from(transfer.block_bytes()) + 4;
            let fit = if self.cuts == Cuts::Yes { (segments::MOST_BYTES / length).min(segments::MOST) } else { 1 };
            let until = first.saturating_add(fit as u64 - 1).min(last);
            let sent = if first == until {
                self.send_one(socket, transfer, content, first).await
            } else {
                send_blocks(socket, transfer, content, first..=until).await
            };
            match sent {
                Ok(()) => first = until.saturating_add(1),
                // A card that computes no checksums cannot cut (EIO), a way with a smaller packet neither (EINVAL).
                Err(error)
                    if self.cuts == Cuts::Yes && matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) =>
                {
                    segments::cut_into(socket, 0)?;
                    self.cuts = Cuts::No;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn send_one(&mut self, socket: &UdpSocket, transfer: &Transfer, content: &Bytes, at: u64) -> io::Result<()> {
        self.one.clear();
        self.one.extend_from_slice(&packet::data_head(at));
        self.one.extend_from_slice(block(transfer, content, at));
        match rustix::net::send(socket, &self.one, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => Ok(()),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => socket.send(&self.one).await.map(drop),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a block carries.
fn block<'a>(transfer: &Transfer, content: &'a Bytes, block: u64) -> &'a [u8] {
    let (from, length) = transfer.content(block);
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    content.get(from..).and_then(|rest| rest.get(..length)).unwrap_or_default()
}

/// These blocks in one call, which the kernel cuts into one datagram for each.
async fn send_blocks(
    socket: &UdpSocket,
    transfer: &Transfer,
    content: &Bytes,
    blocks: RangeInclusive<u64>,
) -> io::Result<()> {
    let heads: Vec<[u8; 4]> = blocks.clone().map(packet::data_head).collect();
    // Heads and contents leave from where they lie.
    let mut parts = Vec::with_capacity(heads.len() * 2);
    for (block, head) in blocks.zip(&heads) {
        parts.push(IoSlice::new(head));
        parts.push(IoSlice::new(self::block(transfer, content, block)));
    }
    let send = || {
        rustix::net::sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(io::Error::from)
    };
    socket.async_io(Interest::WRITABLE, send).await
}
