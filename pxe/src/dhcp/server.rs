//! The sockets of DHCP on one interface: ports 67 and 4011, and the tap that hears other servers and router
//! solicitations, keeps packets for the flight recorder, and sends to clients that cannot answer ARP yet.

use super::decide::{Answerer, Arrival, Port};
use super::destination::Destination;
use super::lease_file::{Commit, LeaseFile, LeaseFileError};
use super::options::code;
use super::packet_socket::PacketSocket;
use super::reply::Reply;
use super::request::{Message, MessageType};
use super::scope::Mode;
use super::{foreign, frame};
use crate::gate::{self, Now, Stage, Ticket, Tickets};
use crate::mac::Mac;
use crate::peers::Peers;
use crate::recorder::event::{BootEvent, NAMES_A_BOOT_FILE};
use crate::recorder::{Recorder, pcap};
use crate::router;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Our address on it.
    pub local: Ipv4Addr,
    /// How many bits of it are its network.
    pub prefix: u8,
}

/// Why an interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is none of this name.
    #[error("there is no network interface {0}: see `ip link`")]
    NoInterface(String),
    /// It has no such address.
    #[error("the interface {name} has no IPv4 address{wanted}: give it one first, the hosts need it to reach us")]
    NoAddress {
        /// Which interface.
        name: String,
        /// ` X` when a certain one was asked for.
        wanted: String,
    },
    /// A socket was refused.
    #[error("{what} on {interface}: {source}{hint}")]
    Socket {
        /// Which socket.
        what: &'static str,
        /// Which interface.
        interface: String,
        /// What the kernel says.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The lease file.
    #[error(transparent)]
    Leases(#[from] LeaseFileError),
    /// The thread that writes it.
    #[error("the lease file was not written to its end: {0}; no dynamic address is given")]
    Writer(tokio::task::JoinError),
}

impl Link {
    /// The interface of this name, with this address or its first one.
    ///
    /// # Errors
    /// When there is no such interface or address.
    pub fn find(name: &str, wanted: Option<Ipv4Addr>) -> Result<Self, ServeError> {
        let interfaces = pnet_datalink::interfaces();
        let found = interfaces.into_iter().find(|interface| interface.name == name);
        let interface = found.ok_or_else(|| ServeError::NoInterface(name.to_owned()))?;
        let mut addresses = interface.ips.iter().filter_map(|network| match network.ip() {
            std::net::IpAddr::V4(address) => Some((address, network.prefix())),
            std::net::IpAddr::V6(_) => None,
        });
        let found = addresses.find(|(address, _)| wanted.is_none_or(|wanted| wanted == *address));
        let (local, prefix) = found.ok_or_else(|| ServeError::NoAddress {
            name: name.to_owned(),
            wanted: wanted.map(|address| format!(" {address}")).unwrap_or_default(),
        })?;
        let mac = interface.mac.map_or(Mac([0; 6]), |mac| Mac(mac.octets()));
        Ok(Self { name: name.to_owned(), index: interface.index, mac, local, prefix })
    }

    /// Whether the address lies in its network.
    fn holds(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix.into())).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.local) & mask
    }

    fn udp(&self, address: Ipv4Addr, port: u16) -> Result<UdpSocket, ServeError> {
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
            // Two sockets share a port here, one for our address and one for broadcasts; another server may run beside
            // us on another interface.
            socket.set_reuse_address(true)?;
            socket.set_broadcast(true)?;
            socket.bind_device(Some(self.name.as_bytes()))?;
            // A burst of hosts after a power failure must not be lost in the queue. The kernel clamps it.
            socket.set_recv_buffer_size(4 << 20)?;
            socket.bind(&SocketAddr::from((address, port)).into())?;
            UdpSocket::from_std(socket.into())
        };
        open().map_err(|source: io::Error| ServeError::Socket {
            what: if port == 67 { "port 67 (DHCP)" } else { "port 4011 (PXE boot server)" },
            interface: self.name.clone(),
            hint: hint(&source),
            source,
        })
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": it needs CAP_NET_RAW and CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrInUse => ": another DHCP server runs on this machine, stop it or use another interface",
        _ => "",
    }
}

/// What all servers share.
#[derive(Debug)]
pub struct Around<T> {
    /// The open tickets.
    pub tickets: Arc<T>,
    /// The flight recorder.
    pub recorder: Arc<Recorder>,
    /// Who speaks from which address.
    pub peers: Arc<Peers>,
}

impl<T> Clone for Around<T> {
    fn clone(&self) -> Self {
        Self {
            tickets: Arc::clone(&self.tickets),
            recorder: Arc::clone(&self.recorder),
            peers: Arc::clone(&self.peers),
        }
    }
}

/// How many requests are taken from the sockets before the disk and the other sockets have their turn.
const AT_ONCE: usize = 256;

/// A message that is ready to go.
#[derive(Debug)]
struct Ready {
    port: Port,
    destination: Destination,
    bytes: Vec<u8>,
}

/// The DHCP server of one interface.
#[derive(Debug)]
pub struct DhcpServer<T> {
    link: Link,
    mode: Mode,
    answerer: Answerer,
    leases: Option<LeaseFile>,
    /// Answers that promise leases which are not on the disk yet, or may not be.
    waiting: Vec<Ready>,
    around: Around<T>,
    /// Broadcasts.
    any: UdpSocket,
    /// Unicast to our address; all answers leave here, so that they come from the address that we say is ours.
    own: UdpSocket,
    boot_any: UdpSocket,
    boot_own: UdpSocket,
    tap: PacketSocket,
    /// Boot offers that were made a moment ago, by card: see [`DhcpServer::insist`].
    offered: HashMap<Mac, Offered>,
}

/// An offer that may have to be made again.
#[derive(Debug)]
struct Offered {
    xid: u32,
    destination: Destination,
    bytes: Vec<u8>,
    /// How often it may still be repeated.
    left: u8,
}

/// Offers that are remembered: as many hosts as start at once.
const OFFERED: usize = 256;
/// Repetitions of one offer: one for each server that speaks of booting, and no flood when two insist.
const REPETITIONS: u8 = 3;

/// Where a packet came in.
enum Input {
    Datagram(Port, SocketAddr, usize),
    Frame(usize),
    Tick,
    Nothing,
}

impl<T: Tickets> DhcpServer<T> {
    /// Opens the sockets.
    ///
    /// # Errors
    /// When one is refused, or the lease file is damaged.
    pub fn open(
        link: Link,
        mode: Mode,
        mut answerer: Answerer,
        leases: Option<LeaseFile>,
        restored: Vec<super::lease::LeaseChange>,
        around: Around<T>,
    ) -> Result<Self, ServeError> {
        for change in restored {
            answerer.books().for_each(|book| book.restore(change));
        }
        let tap = PacketSocket::open(link.index).map_err(|source| ServeError::Socket {
            what: "a packet socket",
            interface: link.name.clone(),
            hint: hint(&source),
            source,
        })?;
        Ok(Self {
            any: link.udp(Ipv4Addr::UNSPECIFIED, 67)?,
            own: link.udp(link.local, 67)?,
            boot_any: link.udp(Ipv4Addr::UNSPECIFIED, 4011)?,
            boot_own: link.udp(link.local, 4011)?,
            link,
            mode,
            answerer,
            leases,
            waiting: Vec::new(),
            around,
            tap,
            offered: HashMap::new(),
        })
    }

    /// Serves until it is cancelled.
    ///
    /// # Errors
    /// When the lease file can no longer be written.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ServeError> {
        let mut buffers = [[0_u8; 2048]; 5];
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The lines that are being written now, and the answers that go out when they are on the disk.
        let mut writing: Option<JoinHandle<Result<(), LeaseFileError>>> = None;
        let mut behind: Vec<Ready> = Vec::new();
        loop {
            let [from_any, from_own, from_boot_any, from_boot_own, from_tap] = &mut buffers;
            let (input, buffer) = tokio::select! {
                () = stop.cancelled() => break,
                done = written(&mut writing) => {
                    writing = None;
                    done?;
                    self.send_all(&mut behind);
                    (Input::Nothing, &buffers[0])
                }
                got = self.any.recv_from(from_any) => (datagram(Port::Dhcp, got), &buffers[0]),
                got = self.own.recv_from(from_own) => (datagram(Port::Dhcp, got), &buffers[1]),
                got = self.boot_any.recv_from(from_boot_any) => (datagram(Port::BootServer, got), &buffers[2]),
                got = self.boot_own.recv_from(from_boot_own) => (datagram(Port::BootServer, got), &buffers[3]),
                got = self.tap.receive(from_tap) => (frame_of(got).await, &buffers[4]),
                _ = second.tick() => (Input::Tick, &buffers[0]),
            };
            match input {
                Input::Datagram(port, SocketAddr::V4(source), length) => {
                    self.datagram(port, source, buffer.get(..length).unwrap_or_default());
                    self.take_what_is_there(&mut buffers[0]);
                }
                Input::Frame(length) => {
                    if let Some((mac, xid)) = self.frame(buffer.get(..length).unwrap_or_default()) {
                        self.insist(mac, xid);
                    }
                }
                Input::Tick => {
                    if let Some(file) = &mut self.leases {
                        file.second_passed();
                    }
                }
                Input::Nothing | Input::Datagram(..) => {}
            }
            if writing.is_none() {
                // Before the next lines leave: under load some are under way at nearly every tick.
                self.shorten()?;
                let commit = self.leases.as_mut().and_then(LeaseFile::take);
                let mut ready = std::mem::take(&mut self.waiting);
                match commit {
                    Some(commit) => {
                        behind = ready;
                        writing = Some(tokio::task::spawn_blocking(|| commit.run()));
                    }
                    // All that they promise is on the disk.
                    None => self.send_all(&mut ready),
                }
            }
        }
        if writing.is_some() {
            written(&mut writing).await?;
            self.send_all(&mut behind);
        }
        let last = self.leases.as_mut().and_then(LeaseFile::take);
        last.map_or(Ok(()), Commit::run)?;
        let mut waiting = std::mem::take(&mut self.waiting);
        self.send_all(&mut waiting);
        Ok(())
    }

    /// Answers requests that are already there: their leases then share one synchronisation of the disk.
    fn take_what_is_there(&mut self, buffer: &mut [u8; 2048]) {
        for _ in 0..AT_ONCE {
            let got = self.any.try_recv_from(buffer).or_else(|_| self.own.try_recv_from(buffer));
            let Ok((length, SocketAddr::V4(source))) = got else { return };
            self.datagram(Port::Dhcp, source, buffer.get(..length).unwrap_or_default());
        }
    }

    /// Writes the lease file anew when a look is due and it has become long. Never while lines are under way to it.
    fn shorten(&mut self) -> Result<(), ServeError> {
        let Some(file) = &mut self.leases else { return Ok(()) };
        if !file.take_look() {
            return Ok(());
        }
        let all: Vec<_> = self.answerer.books().flat_map(|book| book.all().collect::<Vec<_>>()).collect();
        if file.is_long(all.len() as u64) {
            file.rewrite(all.into_iter())?;
        }
        Ok(())
    }

    fn datagram(&mut self, port: Port, source: SocketAddrV4, packet: &[u8]) {
        let Ok(request) = Message::read(packet) else { return };
        let now = self.around.tickets.now();
        let ticket = self.around.tickets.of_mac(request.mac);
        let arrival = Arrival { port, source, local: self.link.local };
        let outcome = self.answerer.answer(&request, arrival, ticket.as_deref(), now);
        if let (Some(change), Some(file)) = (outcome.change, &mut self.leases) {
            file.append(change);
        }
        // Also where nothing is appended: the line that says so already may still be on its way to the disk.
        let waits = outcome.promises_lease && self.leases.is_some();
        self.learn(&request, source, port, outcome.reply.as_ref().map(|(reply, _)| reply));
        if let Some((reply, destination)) = outcome.reply {
            self.reply(&request, ticket.is_some(), port, &reply, destination, waits);
        }
        // Written down when the answer is under way: beside another server the first offer counts, and a file system that
        // is busy holds a line up for milliseconds.
        self.note(ticket.as_deref(), now, outcome.events);
    }

    /// Sends an answer, or lets it wait for its lease.
    fn reply(
        &mut self,
        request: &Message<'_>,
        armed: bool,
        port: Port,
        reply: &Reply,
        destination: Destination,
        waits: bool,
    ) {
        let (bytes, left_out) = reply.encode(request.max_size());
        if !left_out.is_empty() {
            tracing::warn!(mac = %request.mac, ?left_out, "options did not fit the largest message that the client takes");
        }
        if armed && reply.kind == MessageType::Offer && request.boot_class().is_some() {
            if self.offered.len() >= OFFERED {
                self.offered.clear();
            }
            let offered = Offered { xid: request.xid, destination, bytes: bytes.clone(), left: REPETITIONS };
            self.offered.insert(request.mac, offered);
        }
        let ready = Ready { port, destination, bytes };
        if waits {
            self.waiting.push(ready);
        } else {
            self.send(&ready);
        }
    }

    /// Which address this card has from now on: what we confirm, what it takes from another server, what it says on 4011.
    /// But whoever reaches this port can say that another's address is his: what a packet says of an address counts only
    /// from our own link or through a relay that the configuration names, and on 4011 from that address itself.
    fn learn(&self, request: &Message<'_>, source: SocketAddrV4, port: Port, reply: Option<&Reply>) {
        let relayed = !request.giaddr.is_unspecified();
        let believed = |address: &Ipv4Addr| {
            if relayed { self.answerer.relay_is_trusted(request) } else { self.link.holds(*address) }
        };
        let confirmed = reply.filter(|reply| reply.kind == MessageType::Ack).map(|reply| reply.yiaddr);
        let asked = (request.kind == MessageType::Request).then(|| request.options.address(code::REQUESTED)).flatten();
        let taken = asked.filter(believed);
        let own = (port == Port::BootServer).then_some(request.ciaddr);
        let own = own.filter(|address| believed(address) || address == source.ip());
        for address in [taken, own, confirmed].into_iter().flatten() {
            self.around.peers.learn(address, request.mac);
        }
    }

    fn note(&self, ticket: Option<&Ticket>, now: Now, events: Vec<BootEvent>) {
        let Some(ticket) = ticket else { return };
        for event in events {
            self.around.recorder.note(&ticket.job, ticket.mac, now, event);
        }
    }

    fn send_all(&self, ready: &mut Vec<Ready>) {
        for ready in ready.drain(..) {
            self.send(&ready);
        }
    }

    fn send(&self, ready: &Ready) {
        if let Err(error) = self.try_send(ready) {
            tracing::warn!(destination = ?ready.destination, %error, "an answer could not be sent");
        }
    }

    fn try_send(&self, Ready { port, destination, bytes }: &Ready) -> io::Result<()> {
        let socket = match port {
            Port::Dhcp => &self.own,
            Port::BootServer => &self.boot_own,
        };
        // DHCP clients ask again: an answer that does not fit the socket's queue is lost like one on the wire.
        let to = |address: Ipv4Addr, port: u16| socket.try_send_to(bytes, (address, port).into()).map(drop);
        match *destination {
            Destination::Relay(address) => to(address, 67),
            Destination::Client(address) => to(address, 68),
            Destination::Broadcast => to(Ipv4Addr::BROADCAST, 68),
            Destination::Back(source) => to(*source.ip(), source.port()),
            Destination::Frame(address, mac) => {
                let frame = frame::write((self.link.mac, self.link.local), (mac, address), bytes);
                frame.map_or(Ok(()), |frame| self.tap.send(&frame))
            }
        }
    }

    /// A frame of the tap: another server, or a question for routers. Requests to us come through the UDP sockets.
    fn frame(&self, frame: &[u8]) -> Option<(Mac, u32)> {
        let now = self.around.tickets.now();
        if let Some(asked) = router::solicitation(frame) {
            self.solicited(asked, now);
            return None;
        }
        let about = pcap::about(frame, self.link.mac);
        let ticket = about.and_then(|mac| self.around.tickets.of_mac(mac));
        if ticket.is_some() {
            self.around.recorder.packet(now.wall, about, frame);
        }
        let datagram = frame::read(frame).filter(frame::Datagram::is_dhcp)?;
        if datagram.from_mac == self.link.mac || datagram.source == self.link.local {
            return None;
        }
        let message = Message::read(datagram.payload).ok()?;
        let mut speaks_of_booting = false;
        for warning in foreign::judge(&message, (datagram.from_mac, datagram.source), self.mode) {
            speaks_of_booting |= warning.name() != "rogue-dhcp-server";
            if let Some(ticket) = &ticket {
                let what = match warning.name() {
                    "rogue-dhcp-server" => "it offers an address of its own",
                    "stray-option-60" => "it says PXEClient without a file, UEFI will ask it on port 4011",
                    _ => NAMES_A_BOOT_FILE,
                };
                self.around.recorder.note(
                    &ticket.job,
                    ticket.mac,
                    now,
                    BootEvent::Foreign { server: datagram.source, what: what.into() },
                );
            }
            self.around.recorder.warn(warning);
        }
        let offer = ticket.is_some() && speaks_of_booting && message.kind == MessageType::Offer;
        offer.then_some((message.mac, message.xid))
    }

    /// Makes an offer again after another server has named a boot file in its own. Of several whole offers OVMF's PXE
    /// (2022.11) takes the one that came last within the seconds for which it collects them; iPXE has gone on by then and
    /// ignores it.
    fn insist(&mut self, mac: Mac, xid: u32) {
        let now = self.around.tickets.now();
        let ticket = self.around.tickets.of_mac(mac);
        let may = ticket.is_some_and(|t| gate::may_boot(Some(&t), mac, &t.job, Stage::Options, now).is_ok());
        let Some(offered) = self.offered.get_mut(&mac).filter(|offered| may && offered.xid == xid && offered.left > 0)
        else {
            return;
        };
        offered.left -= 1;
        let (destination, bytes) = (offered.destination, offered.bytes.clone());
        self.send(&Ready { port: Port::Dhcp, destination, bytes });
    }

    fn solicited(&self, asked: router::Asked, now: Now) {
        let ticket = self.around.tickets.of_mac(asked.mac);
        let Some((job, answer)) = router::answer(self.link.mac, asked, ticket.as_deref(), now) else { return };
        match self.tap.send(&answer) {
            Ok(()) => self.around.recorder.note(&job, asked.mac, now, BootEvent::RouterAsked),
            Err(error) => tracing::warn!(mac = %asked.mac, %error, "a router advertisement could not be sent"),
        }
    }
}

fn datagram(port: Port, got: io::Result<(usize, SocketAddr)>) -> Input {
    match got {
        Ok((length, source)) => Input::Datagram(port, source, length),
        // Linux reports an earlier answer's "port unreachable" here; it is no error of this socket.
        Err(_) => Input::Nothing,
    }
}

/// The end of what is being written; waits for ever when nothing is.
async fn written(writing: &mut Option<JoinHandle<Result<(), LeaseFileError>>>) -> Result<(), ServeError> {
    match writing {
        Some(handle) => match handle.await {
            Ok(done) => done.map_err(ServeError::from),
            Err(error) => Err(ServeError::Writer(error)),
        },
        None => std::future::pending().await,
    }
}

async fn frame_of(got: io::Result<usize>) -> Input {
    match got {
        Ok(length) => Input::Frame(length),
        Err(error) => {
            // The interface went down: wait for it instead of spinning.
            tracing::warn!(%error, "the packet socket");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Input::Nothing
        }
    }
}
