//! The sockets of the probe: DISCOVERs as raw frames, all answers for a while, then port 4011 and the first byte of files.

use super::answer::Answer;
use super::choice::{self, Choice, Way};
use super::client::Client;
use super::fetch::{self, Fetched};
use crate::dhcp::frame;
use crate::dhcp::packet_socket::PacketSocket;
use crate::interface_mtu::interface_mtu;
use crate::mac::Mac;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::time::{sleep_until, timeout};

/// Answers that are kept for one client. More servers than this on one link are not told apart any more.
const ANSWERS: usize = 16;
/// Between two clients: a server that counts requests of one card must not drop the later ones.
const BETWEEN: Duration = Duration::from_millis(100);
/// One wait on port 4011; it is asked twice.
const BOOT_SERVER_WAIT: Duration = Duration::from_millis(1500);

/// The interface that is probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    #[serde(skip)]
    pub index: u32,
    /// Its first address: files are fetched from it.
    pub address: Option<Ipv4Addr>,
    /// Its MTU, bytes.
    pub mtu: u16,
}

/// Why nothing could be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is none of this name.
    #[error("there is no network interface {0}: see `ip link`")]
    NoInterface(String),
    /// It is down.
    #[error("the interface {0} is down, nothing can be asked through it: `ip link set {0} up`")]
    Down(String),
    /// No right to do it.
    #[error(
        "raw frames on {0} need CAP_NET_RAW, which this process does not have, so nothing was sent: run it as root, or give it the capability (`setcap cap_net_raw+ep` on the program)"
    )]
    NotAllowed(String),
    /// The kernel refuses something else.
    #[error("{interface}: {source}; the probe is not complete")]
    Socket {
        /// Where.
        interface: String,
        /// What it says.
        source: io::Error,
    },
}

impl Interface {
    /// The interface of this name.
    ///
    /// # Errors
    /// When there is none, or it is down.
    pub fn find(name: &str) -> Result<Self, ProbeError> {
        let found = pnet_datalink::interfaces().into_iter().find(|interface| interface.name == name);
        let found = found.ok_or_else(|| ProbeError::NoInterface(name.to_owned()))?;
        if !found.is_up() {
            return Err(ProbeError::Down(name.to_owned()));
        }
        let address = found.ips.iter().find_map(|network| match network.ip() {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        });
        let mtu = interface_mtu(found.index);
        let mtu = mtu.map_err(|source| ProbeError::Socket { interface: name.to_owned(), source })?;
        // Loopback has more than DHCP's option can say.
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        Ok(Self { name: name.to_owned(), index: found.index, address, mtu })
    }
}

/// What is asked, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The card that is played.
    pub mac: Mac,
    /// The transaction of the first client; those of the others follow it.
    pub xid: u32,
    /// Which clients.
    pub clients: Vec<Client>,
    /// How long offers are collected after the last DISCOVER.
    pub patience: Duration,
    /// Whether files are asked for. Without it only DISCOVERs are sent.
    pub follow: bool,
}

/// What came of port 4011.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum BootServer {
    /// It answers.
    Answered {
        /// What.
        answer: Answer,
    },
    /// The machine is there, the port is closed.
    Closed,
    /// Nothing came.
    Silent,
    /// It was not asked: this interface has no address, or the kernel refuses.
    NotAsked {
        /// Why.
        why: String,
    },
}

/// What one client saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Which client.
    pub client: Client,
    /// All answers, in the order in which they came.
    pub answers: Vec<Answer>,
    /// What it makes of them.
    pub choice: Choice,
    /// Port 4011 of the server that it turns to, when it does.
    pub boot_server: Option<BootServer>,
    /// What it is told to fetch in the end.
    pub fetches: Option<Way>,
    /// Whether that is there.
    pub fetched: Option<Fetched>,
}

/// Plays all clients of the plan.
///
/// # Errors
/// When frames cannot be sent or heard.
pub async fn run(interface: &Interface, plan: &Plan) -> Result<Vec<Seen>, ProbeError> {
    let mut seen = offers(interface, plan).await?;
    if !plan.follow {
        return Ok(seen);
    }
    let mut boot_servers = BTreeMap::<(Client, Ipv4Addr), BootServer>::new();
    let mut files = BTreeMap::<Way, Fetched>::new();
    for (number, one) in (0_u32..).zip(&mut seen) {
        let mut way = one.choice.way.clone();
        if let Some(Way::BootServer { server }) = way {
            let key = (one.client, server);
            let asked = match boot_servers.get(&key) {
                Some(known) => known.clone(),
                None => {
                    let xid = plan.xid.wrapping_add(0x100).wrapping_add(number);
                    let asked = boot_server(interface, plan.mac, xid, one.client, server).await;
                    boot_servers.insert(key, asked.clone());
                    asked
                }
            };
            way = match &asked {
                BootServer::Answered { answer } => {
                    choice::way(answer).filter(|way| !matches!(way, Way::BootServer { .. }))
                }
                // EDK2 gives the whole offer up then, even if a file stands in it.
                BootServer::Closed | BootServer::Silent | BootServer::NotAsked { .. } => None,
            };
            one.boot_server = Some(asked);
        }
        if let Some(way) = &way {
            let known = files.get(way).cloned();
            let fetched = match (known, interface.address) {
                (Some(known), _) => known,
                (None, Some(from)) => fetch::fetch(way, from, interface.mtu).await,
                (None, None) => Fetched::NotTried { why: "this interface has no IPv4 address".to_owned() },
            };
            files.insert(way.clone(), fetched.clone());
            one.fetched = Some(fetched);
        }
        one.fetches = way;
    }
    Ok(seen)
}

async fn offers(interface: &Interface, plan: &Plan) -> Result<Vec<Seen>, ProbeError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => ProbeError::NotAllowed(interface.name.clone()),
        _ => ProbeError::Socket { interface: interface.name.clone(), source },
    };
    let socket = PacketSocket::open(interface.index).map_err(failed)?;
    socket.hear_all(interface.index).map_err(failed)?;
    let mut heard: Vec<Heard> = plan.clients.iter().map(|client| Heard::new(*client)).collect();
    // Each client asks twice, as firmware does: one packet may be lost, and relays may wait for a client that has been
    // asking for a while.
    for round in 0..2_u16 {
        let pause = plan.patience / 2;
        for (number, one) in (0_u32..).zip(0..heard.len()) {
            let Some(asking) = heard.get_mut(one) else { continue };
            if round > 0 && !asking.answers.is_empty() {
                continue;
            }
            let secs = u16::try_from(asking.begun.map_or(0, |begun| begun.elapsed().as_secs())).unwrap_or(u16::MAX);
            let question = asking.client.discover(plan.mac, plan.xid.wrapping_add(number), secs);
            let frame = frame::write_question(plan.mac, &question)
                .ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidInput)))?;
            asking.begun.get_or_insert_with(Instant::now);
            socket.send(&frame).map_err(failed)?;
            listen(&socket, plan, &mut heard, BETWEEN).await.map_err(failed)?;
        }
        listen(&socket, plan, &mut heard, pause).await.map_err(failed)?;
    }
    let seen = |heard: Heard| {
        let choice = choice::choose(heard.client, &heard.answers);
        let fetches = choice.way.clone();
        let (client, answers) = (heard.client, heard.answers);
        Seen { client, answers, choice, boot_server: None, fetches, fetched: None }
    };
    Ok(heard.into_iter().map(seen).collect())
}

struct Heard {
    client: Client,
    begun: Option<Instant>,
    answers: Vec<Answer>,
}

impl Heard {
    const fn new(client: Client) -> Self {
        Self { client, begun: None, answers: Vec::new() }
    }
}

/// Hears answers for so long.
async fn listen(socket: &PacketSocket, plan: &Plan, heard: &mut [Heard], time: Duration) -> io::Result<()> {
    let until = tokio::time::Instant::now() + time;
    let mut buffer = [0_u8; 2048];
    loop {
        let length = tokio::select! {
            got = socket.receive(&mut buffer) => got?,
            () = sleep_until(until) => return Ok(()),
        };
        let frame = buffer.get(..length).unwrap_or_default();
        let Some(datagram) = frame::read(frame).filter(|datagram| datagram.target_port == 68) else { continue };
        for (number, one) in (0_u32..).zip(heard.iter_mut()) {
            let Some(begun) = one.begun else { continue };
            let after_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let Some(answer) = Answer::read(&datagram, plan.mac, plan.xid.wrapping_add(number), after_ms) else {
                continue;
            };
            // A server that answers both DISCOVERs is one server.
            let again = one.answers.iter().any(|known| {
                (known.who(), known.address.is_some(), known.class)
                    == (answer.who(), answer.address.is_some(), answer.class)
            });
            if !again && one.answers.len() < ANSWERS {
                one.answers.push(answer);
            }
        }
    }
}

/// Asks port 4011 as a client with the address of this interface.
async fn boot_server(interface: &Interface, mac: Mac, xid: u32, client: Client, server: Ipv4Addr) -> BootServer {
    let Some(own) = interface.address else {
        return BootServer::NotAsked { why: format!("{} has no IPv4 address", interface.name) };
    };
    match ask_boot_server(own, mac, xid, client, server).await {
        Ok(Some(answer)) => BootServer::Answered { answer },
        Ok(None) => BootServer::Silent,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => BootServer::Closed,
        Err(error) => BootServer::NotAsked { why: error.to_string() },
    }
}

async fn ask_boot_server(
    own: Ipv4Addr,
    mac: Mac,
    xid: u32,
    client: Client,
    server: Ipv4Addr,
) -> io::Result<Option<Answer>> {
    // Clients ask from port 68. Where this machine is a DHCP client itself that port may be taken; servers answer to the
    // port that asked.
    let socket = match UdpSocket::bind((own, 68)).await {
        Ok(socket) => socket,
        Err(_) => UdpSocket::bind((own, 0)).await?,
    };
    socket.connect((server, 4011)).await?;
    let begun = Instant::now();
    let mut buffer = [0_u8; 2048];
    for _ in 0..2 {
        socket.send(&client.boot_request(mac, xid, own)).await?;
        let until = begun + BOOT_SERVER_WAIT * 2;
        while let Ok(got) =
            timeout(until.saturating_duration_since(Instant::now()).min(BOOT_SERVER_WAIT), socket.recv(&mut buffer))
                .await
        {
            let length = got?;
            let datagram = frame::Datagram {
                from_mac: Mac([0; 6]),
                source: match socket.peer_addr()? {
                    SocketAddr::V4(address) => *address.ip(),
                    SocketAddr::V6(_) => server,
                },
                target: own,
                source_port: 4011,
                target_port: 68,
                payload: buffer.get(..length).unwrap_or_default(),
            };
            let after_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Some(answer) = Answer::read(&datagram, mac, xid, after_ms) {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}
