//! What to answer: a pure function of the request, the ticket, the scope and the leases.

use super::destination::{Destination, destination};
use super::lease::{LeaseBook, LeaseChange};
use super::options::code;
use super::reply::Reply;
use super::request::{BootClass, Message, MessageType};
use super::scope::{Mode, Scope, Subnet};
use crate::arch::{self, Client};
use crate::gate::{self, FirstLoader, Now, ProxyStyle, Stage, Ticket};
use crate::recorder::event::{BootEvent, file_name};
use protocol::boot_set::Role;
use protocol::manifest::Arch;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Which port a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 67.
    Dhcp,
    /// 4011, PXE's boot server.
    BootServer,
}

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// On which port.
    pub port: Port,
    /// From where.
    pub source: SocketAddrV4,
    /// Our address on the interface it came in on.
    pub local: Ipv4Addr,
}

/// The names of the loaders that are served, and where.
#[derive(Clone, Debug, Default)]
pub struct Loaders {
    /// The file names by role and machine.
    pub names: BTreeMap<(Role, Arch), String>,
    /// The port of the HTTP boot server.
    pub http_port: u16,
}

/// What comes of a request.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What to send, and where to. `None`: silence.
    pub reply: Option<(Reply, Destination)>,
    /// What must be on the disk before it is sent.
    pub change: Option<LeaseChange>,
    /// The reply says for how long the client has a dynamic address: it is sent when this `change` and all before it are on
    /// the disk.
    pub promises_lease: bool,
    /// For the flight recorder.
    pub events: Vec<BootEvent>,
}

/// The DHCP server of one interface.
#[derive(Debug)]
pub struct Answerer {
    scope: Scope,
    loaders: Loaders,
    /// One for each subnet with a range, in the order of the subnets.
    books: Vec<Option<LeaseBook>>,
}

/// An address, and for how long.
#[derive(Clone, Copy, Debug)]
struct Given {
    address: Ipv4Addr,
    time: Duration,
}

/// What a client is told to boot.
#[derive(Clone, Debug)]
struct Boot {
    class: BootClass,
    file: Option<String>,
    /// Whether option 43 says "boot this at once".
    at_once: bool,
}

impl Answerer {
    /// A server for this scope.
    #[must_use]
    pub fn new(scope: Scope, loaders: Loaders) -> Self {
        let books =
            scope.subnets.iter().map(|subnet| subnet.range.map(|(first, last)| LeaseBook::new(first, last))).collect();
        Self { scope, loaders, books }
    }

    /// The leases, to restore them at the start and to write them anew.
    pub fn books(&mut self) -> impl Iterator<Item = &mut LeaseBook> {
        self.books.iter_mut().flatten()
    }

    /// What to answer to a request.
    pub fn answer(&mut self, request: &Message<'_>, arrival: Arrival, ticket: Option<&Ticket>, now: Now) -> Outcome {
        let mut outcome = Outcome::default();
        if request.op != 1 || !self.relay_is_trusted(request) {
            return outcome;
        }
        let boot = self.boot(request, arrival, ticket, now, &mut outcome.events);
        match (arrival.port, request.kind) {
            (Port::BootServer, MessageType::Request | MessageType::Inform) => {
                boot_server(request, arrival, boot, &mut outcome);
            }
            (Port::Dhcp, MessageType::Discover) if boot.is_some() && self.gives_beside_another(request, arrival) => {
                self.discover(request, arrival, boot, now, &mut outcome);
            }
            (Port::Dhcp, MessageType::Request) if boot.is_some() && self.gives_beside_another(request, arrival) => {
                self.request(request, arrival, boot, now, &mut outcome);
            }
            (Port::Dhcp, _) if self.scope.mode == Mode::Proxy => {
                proxy(request, arrival, boot, ticket.is_some(), &mut outcome)
            }
            (Port::Dhcp, MessageType::Discover) => self.discover(request, arrival, boot, now, &mut outcome),
            (Port::Dhcp, MessageType::Request) => self.request(request, arrival, boot, now, &mut outcome),
            (Port::Dhcp, MessageType::Inform) => self.inform(request, arrival, boot, &mut outcome),
            (Port::Dhcp, MessageType::Decline) => {
                let asked = request.options.address(code::REQUESTED);
                outcome.change =
                    asked.and_then(|address| self.book_of(request)?.decline(request.mac, address, now.wall));
            }
            (Port::Dhcp, MessageType::Release) => {
                outcome.change = self.book_of(request).and_then(|book| book.release(request.mac, request.ciaddr));
            }
            (Port::Dhcp, MessageType::Offer | MessageType::Ack | MessageType::Nak) | (Port::BootServer, _) => {}
        }
        outcome
    }

    /// A relay that is not configured may not make us speak to it (RFC 3046 section 2.1.1).
    pub(super) fn relay_is_trusted(&self, request: &Message<'_>) -> bool {
        request.giaddr.is_unspecified() || self.scope.subnets.iter().any(|subnet| subnet.trusts(request.giaddr))
    }

    /// The subnet a request is about: the relay's link selection (RFC 3527), else its own address, else our link.
    fn subnet(&self, request: &Message<'_>, local: Ipv4Addr) -> Option<usize> {
        let relay = request.options.get(code::RELAY).unwrap_or_default();
        let selected = super::options::Options::encapsulated(relay).address(5);
        let at = match selected {
            Some(link) if !request.giaddr.is_unspecified() => link,
            _ if request.giaddr.is_unspecified() => local,
            _ => request.giaddr,
        };
        self.scope.subnets.iter().position(|subnet| subnet.holds(at))
    }

    /// In proxy mode a card with a reservation in a subnet of ours is given that address while its ticket is open. Some
    /// firmware takes no answer that comes in two halves, and UEFI's PXE turns to port 4011 of a DHCP server that says
    /// `PXEClient` itself: both prefer one offer that is whole (EDK2 `PxeBcSelectDhcpOffer`, first in its order).
    fn gives_beside_another(&self, request: &Message<'_>, arrival: Arrival) -> bool {
        let reserved = self.scope.reservations.get(&request.mac).map(|reservation| reservation.address);
        let subnet = self.subnet(request, arrival.local).and_then(|index| self.scope.subnets.get(index));
        self.scope.mode == Mode::Proxy && reserved.zip(subnet).is_some_and(|(address, subnet)| subnet.holds(address))
    }

    fn book_of(&mut self, request: &Message<'_>) -> Option<&mut LeaseBook> {
        let address = request.options.address(code::REQUESTED).unwrap_or(request.ciaddr);
        self.books.iter_mut().flatten().find(|book| book.holds(address))
    }

    /// What this client may boot, as far as the gate lets it.
    fn boot(
        &self,
        request: &Message<'_>,
        arrival: Arrival,
        ticket: Option<&Ticket>,
        now: Now,
        events: &mut Vec<BootEvent>,
    ) -> Option<Boot> {
        let Some(class) = request.boot_class() else {
            // Its installer, or the system on its disk: worth a line, since it did not ask to boot.
            if ticket.is_some() && request.kind == MessageType::Discover {
                events.push(BootEvent::Discover { class: None, client: "a system".into(), ipxe: false });
            }
            return None;
        };
        let client = arch::of(request.arch_codes(), request.mac)?;
        let ticket = ticket?;
        if request.kind == MessageType::Discover {
            events.push(BootEvent::Discover {
                class: Some(class),
                client: words(client).into(),
                ipxe: request.is_ipxe(),
            });
        }
        if let Err(why) = gate::may_boot(Some(ticket), request.mac, &ticket.job, Stage::Options, now) {
            events.push(BootEvent::Refused { stage: Stage::Options, why });
            return None;
        }
        let token = ticket.token.as_str();
        let http = |name: &str| format!("http://{}:{}/t/{token}/{name}", arrival.local, self.loaders.http_port);
        let features = request.ipxe_features();
        if request.is_ipxe() && features.http && features.kernel {
            return Some(Boot { class, file: Some(http("boot.ipxe")), at_once: true });
        }
        let Some(wanted) = client.loader(ticket.first_loader == FirstLoader::Shim) else {
            events.push(BootEvent::NothingFor { why: words(client).into() });
            return None;
        };
        let Some(name) = self.loaders.names.get(&wanted) else {
            events.push(BootEvent::NothingFor { why: "the boot set has no loader for this machine".into() });
            return None;
        };
        let uefi = matches!(client, Client::Uefi(_));
        let through_4011 = uefi
            && self.scope.mode == Mode::Proxy
            && arrival.port == Port::Dhcp
            && ticket.proxy_style == ProxyStyle::Port4011;
        Some(match class {
            BootClass::Http => Boot { class, file: Some(http(name)), at_once: false },
            BootClass::Pxe if through_4011 => Boot { class, file: None, at_once: false },
            BootClass::Pxe => Boot { class, file: Some(format!("t/{token}/{name}")), at_once: true },
        })
    }

    fn discover(
        &mut self,
        request: &Message<'_>,
        arrival: Arrival,
        boot: Option<Boot>,
        now: Now,
        outcome: &mut Outcome,
    ) {
        let Some(index) = self.subnet(request, arrival.local) else { return };
        let Some(address) = self.address_for(request, index, now) else { return };
        let Some(subnet) = self.scope.subnets.get(index) else { return };
        if boot.is_some() {
            outcome.events.push(BootEvent::Offered { address: Some(address), file: shown(boot.as_ref()) });
        }
        let given = Given { address, time: self.time_to_offer(request, index, address, now).unwrap_or(subnet.lease) };
        let reply = self.lease_reply(request, arrival, MessageType::Offer, given, subnet, boot);
        outcome.reply = Some((reply, destination(request, MessageType::Offer, address)));
    }

    /// What a card's lease has left, where the ACK will say no more: it may not say another thing than the offer (RFC 2131
    /// section 4.3.1, which also has the server offer the time that is assigned already).
    fn time_to_offer(&self, request: &Message<'_>, index: usize, address: Ipv4Addr, now: Now) -> Option<Duration> {
        if self.scope.reservations.contains_key(&request.mac) {
            return None;
        }
        let time = self.scope.subnets.get(index)?.lease;
        self.books.get(index)?.as_ref()?.left(request.mac, address, now.wall, time)
    }

    fn address_for(&mut self, request: &Message<'_>, index: usize, now: Now) -> Option<Ipv4Addr> {
        let subnet = self.scope.subnets.get(index)?;
        if let Some(reserved) = self.scope.reservations.get(&request.mac) {
            return subnet.holds(reserved.address).then_some(reserved.address);
        }
        let reservations = &self.scope.reservations;
        let taken =
            |address: Ipv4Addr| address == request.giaddr || reservations.values().any(|r| r.address == address);
        let asked = request.options.address(code::REQUESTED);
        self.books.get_mut(index)?.as_mut()?.offer(request.mac, asked, now.wall, taken)
    }

    fn request(
        &mut self,
        request: &Message<'_>,
        arrival: Arrival,
        boot: Option<Boot>,
        now: Now,
        outcome: &mut Outcome,
    ) {
        let server = request.options.address(code::SERVER);
        let asked = request.options.address(code::REQUESTED);
        if let Some(server) = server.filter(|server| !self.is_us(request, arrival, *server)) {
            if boot.is_some() {
                outcome.events.push(BootEvent::TookOther { server, address: asked });
            }
            return;
        }
        let Some(index) = self.subnet(request, arrival.local) else { return };
        // SELECTING and INIT-REBOOT name the address in option 50, RENEWING and REBINDING in ciaddr.
        let wanted = match asked {
            Some(address) if request.ciaddr.is_unspecified() => address,
            _ => request.ciaddr,
        };
        let reserved = self.scope.reservations.get(&request.mac).map(|r| r.address);
        let Some(subnet) = self.scope.subnets.get(index) else { return };
        let granted = match reserved {
            Some(address) => (address == wanted && subnet.holds(address)).then_some(subnet.lease),
            None => {
                let book = self.books.get_mut(index).and_then(Option::as_mut);
                let Some(book) = book.filter(|book| book.of(request.mac).is_some() || server.is_some()) else {
                    // Not ours to judge: another server may know this client (RFC 2131 section 4.3.2).
                    return;
                };
                let grant = book.lease(request.mac, wanted, now.wall, subnet.lease);
                outcome.change = grant.and_then(|grant| grant.change);
                outcome.promises_lease = grant.is_some();
                grant.map(|grant| grant.time)
            }
        };
        let Some(time) = granted else {
            outcome.events.push(BootEvent::Denied { address: wanted });
            outcome.reply = Some((
                denial(request, self.identity(request, arrival)),
                destination(request, MessageType::Nak, wanted),
            ));
            return;
        };
        if boot.is_some() {
            outcome.events.push(BootEvent::Acknowledged { address: wanted, file: shown(boot.as_ref()) });
        }
        let given = Given { address: wanted, time };
        let reply = self.lease_reply(request, arrival, MessageType::Ack, given, subnet, boot);
        outcome.reply = Some((reply, destination(request, MessageType::Ack, wanted)));
    }

    /// A client that has its address and wants options only: reserved cards, and whoever holds a lease of ours.
    fn inform(&mut self, request: &Message<'_>, arrival: Arrival, boot: Option<Boot>, outcome: &mut Outcome) {
        let reserved = self.scope.reservations.get(&request.mac).is_some_and(|r| r.address == request.ciaddr);
        let leased = self.books.iter().flatten().any(|book| book.of(request.mac) == Some(request.ciaddr));
        if request.ciaddr.is_unspecified() || !(reserved || leased) {
            return;
        }
        let Some(subnet) = self.subnet(request, arrival.local).and_then(|index| self.scope.subnets.get(index)) else {
            return;
        };
        let given = Given { address: Ipv4Addr::UNSPECIFIED, time: subnet.lease };
        let mut reply = self.lease_reply(request, arrival, MessageType::Ack, given, subnet, boot);
        reply.options.retain(|(code, _)| ![code::LEASE_TIME, code::RENEWAL, code::REBINDING].contains(code));
        reply.ciaddr = request.ciaddr;
        outcome.reply = Some((reply, destination(request, MessageType::Ack, request.ciaddr)));
    }

    /// How we call ourselves: what the relay wants us to be called (RFC 5107), else our address.
    fn identity(&self, request: &Message<'_>, arrival: Arrival) -> Ipv4Addr {
        let relay = request.options.get(code::RELAY).unwrap_or_default();
        let named = super::options::Options::encapsulated(relay).address(11);
        named.filter(|_| !request.giaddr.is_unspecified()).unwrap_or(arrival.local)
    }

    fn is_us(&self, request: &Message<'_>, arrival: Arrival, server: Ipv4Addr) -> bool {
        server == arrival.local || server == self.identity(request, arrival)
    }

    fn lease_reply(
        &self,
        request: &Message<'_>,
        arrival: Arrival,
        kind: MessageType,
        given: Given,
        subnet: &Subnet,
        boot: Option<Boot>,
    ) -> Reply {
        let mut reply = begin(request, kind, self.identity(request, arrival));
        reply.yiaddr = given.address;
        if kind == MessageType::Ack {
            reply.ciaddr = request.ciaddr;
        }
        let seconds = u32::try_from(given.time.as_secs()).unwrap_or(u32::MAX);
        reply.options.push((code::LEASE_TIME, seconds.to_be_bytes().to_vec()));
        reply.options.push((code::MASK, subnet.mask().octets().to_vec()));
        if let Some(router) = subnet.router {
            reply.options.push((code::ROUTER, router.octets().to_vec()));
        }
        if let Some(boot) = boot {
            // We are the link's DHCP server: iPXE need not wait two seconds for a proxy (sub-option 0xb0).
            say_boot(&mut reply, request, arrival.local, boot, request.is_ipxe());
        }
        if !subnet.dns.is_empty() {
            reply.options.push((code::DNS, subnet.dns.iter().flat_map(Ipv4Addr::octets).collect()));
        }
        let name = self.scope.reservations.get(&request.mac).and_then(|r| r.host_name.as_ref());
        if let Some(name) = name {
            reply.options.push((code::HOST_NAME, name.as_bytes().to_vec()));
        }
        reply.options.push((code::RENEWAL, (seconds / 2).to_be_bytes().to_vec()));
        reply.options.push((code::REBINDING, (seconds / 8 * 7).to_be_bytes().to_vec()));
        reply
    }
}

/// ProxyDHCP on port 67: only an OFFER to a DISCOVER, and an ACK to a REQUEST that names us.
fn proxy(request: &Message<'_>, arrival: Arrival, boot: Option<Boot>, known: bool, outcome: &mut Outcome) {
    let names_us = request.options.address(code::SERVER) == Some(arrival.local);
    let kind = match request.kind {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request if names_us => MessageType::Ack,
        MessageType::Request => {
            if let Some(server) = request.options.address(code::SERVER).filter(|_| known) {
                outcome.events.push(BootEvent::TookOther { server, address: request.options.address(code::REQUESTED) });
            }
            return;
        }
        _ => return,
    };
    let Some(boot) = boot else { return };
    outcome.events.push(BootEvent::Offered { address: None, file: shown(Some(&boot)) });
    let mut reply = begin(request, kind, arrival.local);
    say_boot(&mut reply, request, arrival.local, boot, false);
    outcome.reply = Some((reply, destination(request, kind, Ipv4Addr::UNSPECIFIED)));
}

/// Port 4011 (PXE 2.1 section 2.2.4): an ACK back to where the request came from.
fn boot_server(request: &Message<'_>, arrival: Arrival, boot: Option<Boot>, outcome: &mut Outcome) {
    let Some(boot) = boot else { return };
    outcome.events.push(BootEvent::BootServer { file: shown(Some(&boot)) });
    let mut reply = begin(request, MessageType::Ack, arrival.local);
    reply.ciaddr = request.ciaddr;
    say_boot(&mut reply, request, arrival.local, boot, false);
    outcome.reply = Some((reply, Destination::Back(arrival.source)));
}

fn begin(request: &Message<'_>, kind: MessageType, server: Ipv4Addr) -> Reply {
    let mut options = vec![(code::SERVER, server.octets().to_vec())];
    if let Some(id) = request.options.get(code::CLIENT_ID) {
        // RFC 6842.
        options.push((code::CLIENT_ID, id.to_vec()));
    }
    Reply {
        xid: request.xid,
        flags: request.flags,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: request.giaddr,
        mac: request.mac,
        file: None,
        kind,
        options,
        relay: request.options.get(code::RELAY).map(<[u8]>::to_vec),
    }
}

fn denial(request: &Message<'_>, server: Ipv4Addr) -> Reply {
    let mut reply = begin(request, MessageType::Nak, server);
    reply.options.push((code::MESSAGE, b"this address is not yours".to_vec()));
    if !request.giaddr.is_unspecified() {
        // RFC 2131 section 4.3.2: the relay must broadcast it, the client's address is wrong.
        reply.flags |= 0x8000;
    }
    reply
}

/// What makes a reply a boot answer (RFC 4578, PXE 2.1 section 2.2.3; UEFI 2.5 section 23.7 for HTTP).
fn say_boot(reply: &mut Reply, request: &Message<'_>, local: Ipv4Addr, boot: Boot, only_server: bool) {
    let Boot { class, file, at_once } = boot;
    let named: &[u8] = match class {
        BootClass::Pxe => b"PXEClient",
        BootClass::Http => b"HTTPClient",
    };
    reply.options.push((code::CLASS, named.to_vec()));
    if class == BootClass::Pxe {
        reply.siaddr = local;
        if at_once {
            reply.options.push((code::VENDOR, vendor(request)));
        }
    }
    if let Some(machine) = request.machine() {
        reply.options.push((code::MACHINE, machine.to_vec()));
    }
    if let Some(file) = file {
        if class == BootClass::Pxe {
            reply.options.push((code::TFTP_SERVER, local.to_string().into_bytes()));
            reply.options.push((code::TFTP_ADDRESS, local.octets().to_vec()));
        }
        reply.options.push((code::BOOT_FILE, file.clone().into_bytes()));
        reply.file = Some(file);
    }
    if request.is_ipxe() {
        // Sub-option 1: our word counts more than that of a DHCP server which names a boot file of its own. A server that
        // says nothing has priority 0 (iPXE, net/udp/dhcp.c).
        let mut ipxe = vec![1, 1, IPXE_PRIORITY];
        if only_server {
            ipxe.extend_from_slice(&[0xb0, 1, 1]);
        }
        ipxe.push(255);
        reply.options.push((code::IPXE, ipxe));
    }
}

/// See where it is used; a signed byte.
const IPXE_PRIORITY: u8 = 20;

/// Option 43: sub-option 6 with bit 3 ("boot the file of this offer at once"), and the boot item that was asked for.
fn vendor(request: &Message<'_>) -> Vec<u8> {
    let mut vendor = vec![6, 1, 8];
    let asked = request.options.get(code::VENDOR).unwrap_or_default();
    let asked = super::options::Options::encapsulated(asked);
    if let Some(item) = asked.get(71).filter(|item| item.len() == 4) {
        vendor.extend_from_slice(&[71, 4]);
        vendor.extend_from_slice(item);
    }
    vendor.push(255);
    vendor
}

fn shown(boot: Option<&Boot>) -> Option<String> {
    boot.and_then(|boot| boot.file.as_deref()).map(file_name)
}

/// A client in words.
fn words(client: Client) -> &'static str {
    match client {
        Client::Bios => "BIOS",
        Client::Uefi(Arch::X86_64) => "x64 UEFI",
        Client::Uefi(Arch::Aarch64) => "arm64 UEFI",
        Client::UefiHttp(Arch::X86_64) => "x64 UEFI, HTTP",
        Client::UefiHttp(Arch::Aarch64) => "arm64 UEFI, HTTP",
        Client::Unsupported(what) => what,
    }
}

/// The longest a lease may be: a day. A host that was given away must not come back with its old address for a week.
pub const LONGEST_LEASE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::options::Options;
    use crate::mac::Mac;
    use std::collections::HashMap;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    const LEASE: Duration = Duration::from_secs(600);

    fn answerer() -> Answerer {
        let subnet = Subnet {
            network: Ipv4Addr::new(10, 0, 0, 0),
            prefix: 24,
            router: None,
            dns: Vec::new(),
            range: Some((ADDRESS, Ipv4Addr::new(10, 0, 0, 20))),
            lease: LEASE,
            relays: Vec::new(),
        };
        let scope = Scope { mode: Mode::Server, subnets: vec![subnet], reservations: HashMap::new() };
        Answerer::new(scope, Loaders::default())
    }

    /// What a card that wants an address hears so many seconds after its first word.
    fn ask(answerer: &mut Answerer, kind: MessageType, seconds: u64) -> Outcome {
        let options = [code::REQUESTED, 4, 10, 0, 0, 10, code::SERVER, 4, 10, 0, 0, 1];
        let request = Message {
            op: 1,
            xid: 7,
            secs: 0,
            flags: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            file: &[],
            kind,
            options: Options::encapsulated(&options),
        };
        let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let elapsed = Duration::from_secs(seconds);
        let now = Now { elapsed, wall: Duration::from_secs(1_800_000_000) + elapsed };
        answerer.answer(&request, Arrival { port: Port::Dhcp, source, local: OURS }, None, now)
    }

    /// The times that a reply names, seconds: of the lease, until renewal.
    fn told(outcome: &Outcome) -> [u32; 2] {
        let (reply, _) = outcome.reply.as_ref().unwrap();
        [code::LEASE_TIME, code::RENEWAL].map(|wanted| {
            let (_, value) = reply.options.iter().find(|(code, _)| *code == wanted).unwrap();
            u32::from_be_bytes(value.as_slice().try_into().unwrap())
        })
    }

    #[test]
    fn who_asks_again_soon_is_told_what_is_written_and_nothing_more_is_written() {
        let mut answerer = answerer();
        assert_eq!(told(&ask(&mut answerer, MessageType::Discover, 0)), [600, 300]);
        let first = ask(&mut answerer, MessageType::Request, 0);
        assert!(first.promises_lease && first.change.is_some());
        assert_eq!(told(&first), [600, 300]);
        // The next stage of one boot: its offer and its ACK say the same, and the ACK waits for what may be under way
        let offer = ask(&mut answerer, MessageType::Discover, 40);
        assert_eq!(told(&offer), [560, 280]);
        assert!(!offer.promises_lease, "an offer waits for nothing");
        let again = ask(&mut answerer, MessageType::Request, 40);
        assert!(again.promises_lease);
        assert_eq!((again.change, told(&again)), (None, [560, 280]));
        // A renewal at half of the time is one
        let renewed = ask(&mut answerer, MessageType::Request, 340);
        let until = Duration::from_secs(1_800_000_940);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert_eq!(renewed.change, Some(LeaseChange::Leased { address: ADDRESS, mac, until }));
        assert_eq!(told(&renewed), [600, 300]);
    }
}
