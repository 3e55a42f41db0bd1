//! The sockets of DHCP on one interface: ports 67 and 4011, and the tap that hears other servers and router
//! solicitations, keeps packets for the flight recorder, and sends to clients that cannot answer ARP yet.

use super::decide::{Answerer, Arrival, Port};
use super::destination::Destination;
use super::lease_file::{LeaseFile, LeaseFileError};
use super::options::code;
use super::packet_socket::PacketSocket;
use super::reply::Reply;
use super::request::{Message, MessageType};
use super::scope::Mode;
use super::{foreign, frame};
use crate::gate::{self, Now, Stage, Ticket, Tickets};
use crate::mac::Mac;
use crate::peers::Peers;
use crate::recorder::event::BootEvent;
use crate::recorder::{Recorder, pcap};
use crate::router;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
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
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        });
        let local = addresses.find(|address| wanted.is_none_or(|wanted| wanted == *address));
        let local = local.ok_or_else(|| ServeError::NoAddress {
            name: name.to_owned(),
            wanted: wanted.map(|address| format!(" {address}")).unwrap_or_default(),
        })?;
        let mac = interface.mac.map_or(Mac([0; 6]), |mac| Mac(mac.octets()));
        Ok(Self { name: name.to_owned(), index: interface.index, mac, local })
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

/// The DHCP server of one interface.
#[derive(Debug)]
pub struct DhcpServer<T> {
    link: Link,
    mode: Mode,
    answerer: Answerer,
    leases: Option<LeaseFile>,
    around: Around<T>,
    /// Broadcasts.
    any: UdpSocket,
    /// Unicast to our address; all answers leave here, so that they come from the address that we say is ours.
    own: UdpSocket,
    boot_any: UdpSocket,
    boot_own: UdpSocket,
    tap: PacketSocket,
}

/// Where a packet came in.
enum Input {
    Datagram(Port, SocketAddr, usize),
    Frame(usize),
    Tick,
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
            around,
            tap,
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
        loop {
            let [from_any, from_own, from_boot_any, from_boot_own, from_tap] = &mut buffers;
            let (input, buffer) = tokio::select! {
                () = stop.cancelled() => break,
                got = self.any.recv_from(from_any) => (datagram(Port::Dhcp, got), &buffers[0]),
                got = self.own.recv_from(from_own) => (datagram(Port::Dhcp, got), &buffers[1]),
                got = self.boot_any.recv_from(from_boot_any) => (datagram(Port::BootServer, got), &buffers[2]),
                got = self.boot_own.recv_from(from_boot_own) => (datagram(Port::BootServer, got), &buffers[3]),
                got = self.tap.receive(from_tap) => (frame_of(got).await, &buffers[4]),
                _ = second.tick() => (Input::Tick, &buffers[0]),
            };
            match input {
                Input::Datagram(port, SocketAddr::V4(source), length) => {
                    self.datagram(port, source, buffer.get(..length).unwrap_or_default())?;
                }
                Input::Frame(length) => self.frame(buffer.get(..length).unwrap_or_default()),
                Input::Tick => self.tick()?,
                Input::Datagram(..) => {}
            }
        }
        self.leases.as_mut().map_or(Ok(()), LeaseFile::sync).map_err(ServeError::from)
    }

    fn tick(&mut self) -> Result<(), ServeError> {
        let Some(file) = &mut self.leases else { return Ok(()) };
        file.sync()?;
        let all: Vec<_> = self.answerer.books().flat_map(|book| book.all().collect::<Vec<_>>()).collect();
        if file.is_long(all.len() as u64) {
            file.rewrite(all.into_iter())?;
        }
        Ok(())
    }

    fn datagram(&mut self, port: Port, source: SocketAddrV4, packet: &[u8]) -> Result<(), ServeError> {
        let Ok(request) = Message::read(packet) else { return Ok(()) };
        let now = self.around.tickets.now();
        let ticket = self.around.tickets.of_mac(request.mac);
        if ticket.is_none()
            && request.op == 1
            && request.kind == MessageType::Discover
            && request.boot_class().is_some()
        {
            self.around.recorder.unarmed(request.mac, now);
        }
        let arrival = Arrival { port, source, local: self.link.local };
        let outcome = self.answerer.answer(&request, arrival, ticket.as_deref(), now);
        if let (Some(change), Some(file)) = (outcome.change, &mut self.leases) {
            file.append(change)?;
        }
        self.learn(&request, port, outcome.reply.as_ref().map(|(reply, _)| reply));
        self.note(ticket.as_deref(), now, outcome.events);
        let Some((reply, destination)) = outcome.reply else { return Ok(()) };
        let (bytes, left_out) = reply.encode(request.max_size());
        if !left_out.is_empty() {
            tracing::warn!(mac = %request.mac, ?left_out, "options did not fit the largest message that the client takes");
        }
        if let Err(error) = self.send(port, destination, &bytes) {
            tracing::warn!(mac = %request.mac, ?destination, %error, "an answer could not be sent");
        }
        Ok(())
    }

    /// Which address this card has from now on: what we confirm, what it takes from another server, what it says on 4011.
    fn learn(&self, request: &Message<'_>, port: Port, reply: Option<&Reply>) {
        let confirmed = reply.filter(|reply| reply.kind == MessageType::Ack).map(|reply| reply.yiaddr);
        let taken = (request.kind == MessageType::Request).then(|| request.options.address(code::REQUESTED)).flatten();
        let own = (port == Port::BootServer).then_some(request.ciaddr);
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

    fn send(&self, port: Port, destination: Destination, bytes: &[u8]) -> io::Result<()> {
        let socket = match port {
            Port::Dhcp => &self.own,
            Port::BootServer => &self.boot_own,
        };
        // DHCP clients ask again: an answer that does not fit the socket's queue is lost like one on the wire.
        let to = |address: Ipv4Addr, port: u16| socket.try_send_to(bytes, (address, port).into()).map(drop);
        match destination {
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
    fn frame(&self, frame: &[u8]) {
        let now = self.around.tickets.now();
        if let Some((mac, address)) = router::solicitation(frame) {
            self.solicited(mac, address, now);
            return;
        }
        let about = pcap::about(frame, self.link.mac);
        let ticket = about.and_then(|mac| self.around.tickets.of_mac(mac));
        if ticket.is_some() {
            self.around.recorder.packet(now.wall, about, frame);
        }
        let Some(datagram) = frame::read(frame).filter(frame::Datagram::is_dhcp) else { return };
        if datagram.from_mac == self.link.mac || datagram.source == self.link.local {
            return;
        }
        let Ok(message) = Message::read(datagram.payload) else { return };
        for warning in foreign::judge(&message, (datagram.from_mac, datagram.source), self.mode) {
            if let Some(ticket) = &ticket {
                let what = match warning.name() {
                    "rogue-dhcp-server" => "it offers an address of its own",
                    "stray-option-60" => "it says PXEClient without a file, UEFI will ask it on port 4011",
                    _ => "it names a boot file of its own",
                };
                self.around.recorder.note(
                    &ticket.job,
                    ticket.mac,
                    now,
                    BootEvent::Foreign { server: datagram.source, what: what.into() },
                );
            }
            self.around.recorder.warn(warning, now);
        }
    }

    fn solicited(&self, mac: Mac, address: std::net::Ipv6Addr, now: Now) {
        let Some(ticket) = self.around.tickets.of_mac(mac) else { return };
        if gate::may_boot(Some(&ticket), mac, &ticket.job, Stage::Options, now).is_err() {
            return;
        }
        let ours = (self.link.mac, router::link_local(self.link.mac));
        match self.tap.send(&router::no_router(ours, (mac, address))) {
            Ok(()) => self.around.recorder.note(&ticket.job, mac, now, BootEvent::RouterAsked),
            Err(error) => tracing::warn!(%mac, %error, "a router advertisement could not be sent"),
        }
    }
}

fn datagram(port: Port, got: io::Result<(usize, SocketAddr)>) -> Input {
    match got {
        Ok((length, source)) => Input::Datagram(port, source, length),
        // Linux reports an earlier answer's "port unreachable" here; it is no error of this socket.
        Err(_) => Input::Tick,
    }
}

async fn frame_of(got: io::Result<usize>) -> Input {
    match got {
        Ok(length) => Input::Frame(length),
        Err(error) => {
            // The interface went down: wait for it instead of spinning.
            tracing::warn!(%error, "the packet socket");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Input::Tick
        }
    }
}
