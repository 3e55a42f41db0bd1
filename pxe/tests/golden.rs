//! What real firmware sends, and what it is answered, byte for byte, in every mode.
//!
//! The packets in `packets/` are captured from firmware in QEMU; each says from which, or that it is constructed. The
//! snapshots show every byte of every answer: what is not a named field or an option is checked to be zero.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use protocol::boot_set::Role;
use protocol::manifest::Arch;
use pxe::dhcp::decide::{Answerer, Arrival, Loaders, Port};
use pxe::dhcp::destination::Destination;
use pxe::dhcp::options::code;
use pxe::dhcp::request::Message;
use pxe::dhcp::scope::{Mode, Reservation, Scope, Subnet};
use pxe::gate::{FirstLoader, Now, Phase, ProxyStyle, Ticket, Token};
use pxe::mac::Mac;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

/// Our address: the one that the captured REQUESTs name as their server.
const OURS: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 1);
/// What the captured REQUESTs ask for, but for U-Boot's, whose card had no reservation where it was captured.
const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 50);

fn packet(name: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/packets").join(name);
    let text = std::fs::read_to_string(path).ok()?;
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    Some((0..digits.len()).step_by(2).map(byte).collect())
}

/// As ISC's dhcrelay passes it on: its address, one hop more, option 82 before the end.
fn relayed(packet: &[u8], relay: Ipv4Addr, agent: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes[3] += 1;
    bytes[24..28].copy_from_slice(&relay.octets());
    let mut at = 240;
    while bytes[at] != 255 {
        at += if bytes[at] == 0 { 1 } else { 2 + usize::from(bytes[at + 1]) };
    }
    bytes.truncate(at);
    bytes.extend_from_slice(&[code::RELAY, agent.len() as u8]);
    bytes.extend_from_slice(agent);
    bytes.push(255);
    bytes
}

fn now() -> Now {
    Now { elapsed: Duration::from_secs(1000), wall: Duration::from_secs(1_800_000_000) }
}

fn ticket(mac: Mac, proxy_style: ProxyStyle) -> Ticket {
    Ticket {
        job: "job".parse().unwrap(),
        mac,
        token: Token::new([0xab; 16]),
        opened: now(),
        phase: Phase::Armed,
        first_loader: FirstLoader::Ipxe,
        proxy_style,
    }
}

fn subnet(network: [u8; 4], relays: Vec<Ipv4Addr>) -> Subnet {
    Subnet {
        network: network.into(),
        prefix: 24,
        router: Some(Ipv4Addr::new(network[0], network[1], network[2], 254)),
        dns: vec![Ipv4Addr::new(10, 79, 9, 9)],
        range: None,
        lease: Duration::from_secs(600),
        relays,
    }
}

fn answerer(mode: Mode, mac: Mac, address: Ipv4Addr) -> Answerer {
    let subnets = match mode {
        Mode::Proxy => Vec::new(),
        Mode::Server => vec![subnet([10, 79, 1, 0], Vec::new()), subnet([10, 79, 2, 0], Vec::new())],
    };
    let reservation = Reservation { address, host_name: Some("node-1".to_owned()) };
    let names = [
        ((Role::IpxeBios, Arch::X86_64), "undionly.kpxe"),
        ((Role::IpxeUefi, Arch::X86_64), "snponly-x64.efi"),
        ((Role::IpxeUefi, Arch::Aarch64), "snponly-arm64.efi"),
    ];
    let names: BTreeMap<_, _> = names.into_iter().map(|(key, name)| (key, name.to_owned())).collect();
    let scope = Scope { mode, subnets, reservations: HashMap::from([(mac, reservation)]) };
    Answerer::new(scope, Loaders { names, http_port: 8080 })
}

/// The answer to a packet, with every byte of it, as text.
fn ask(answerer: &mut Answerer, packet: &[u8], port: Port, ticket: Option<&Ticket>) -> String {
    let request = Message::read(packet).expect("a DHCP message");
    let source = match port {
        Port::Dhcp if request.giaddr.is_unspecified() => SocketAddrV4::new(request.ciaddr, 68),
        Port::Dhcp => SocketAddrV4::new(request.giaddr, 67),
        Port::BootServer => SocketAddrV4::new(request.ciaddr, 4011),
    };
    let outcome = answerer.answer(&request, Arrival { port, source, local: OURS }, ticket, now());
    match outcome.reply {
        None => "silence\n".to_owned(),
        Some((reply, destination)) => {
            let (bytes, left_out) = reply.encode(request.max_size());
            assert!(left_out.is_empty(), "options were left out");
            assert!(bytes.len() <= usize::from(request.max_size().max(576)) - 28);
            if !request.giaddr.is_unspecified() {
                assert_eq!(destination, Destination::Relay(request.giaddr), "a relayed answer goes to the relay");
            }
            shown(&bytes, destination)
        }
    }
}

fn value(bytes: &[u8]) -> String {
    if bytes.len() > 3 && bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return format!("{:?}", String::from_utf8_lossy(bytes));
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn shown(bytes: &[u8], destination: Destination) -> String {
    let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let text = |from: usize, to: usize| {
        let field = &bytes[from..to];
        let length = field.iter().position(|byte| *byte == 0).expect("the field ends with a NUL");
        assert!(field[length..].iter().all(|byte| *byte == 0), "rubbish behind a field");
        String::from_utf8(field[..length].to_vec()).unwrap()
    };
    let mut out = String::new();
    writeln!(out, "to {destination:?}, {} bytes", bytes.len()).unwrap();
    writeln!(
        out,
        "  op/htype/hlen/hops {}, xid {}, secs {}, flags {}",
        value(&bytes[..4]),
        value(&bytes[4..8]),
        value(&bytes[8..10]),
        value(&bytes[10..12])
    )
    .unwrap();
    writeln!(out, "  ciaddr {} yiaddr {} siaddr {} giaddr {}", address(12), address(16), address(20), address(24))
        .unwrap();
    writeln!(out, "  chaddr {}", value(&bytes[28..44])).unwrap();
    writeln!(out, "  sname {:?} file {:?}", text(44, 108), text(108, 236)).unwrap();
    assert_eq!(bytes[236..240], [0x63, 0x82, 0x53, 0x63]);
    let mut at = 240;
    while bytes[at] != 255 {
        let end = at + 2 + usize::from(bytes[at + 1]);
        writeln!(out, "  option {:3}: {}", bytes[at], value(&bytes[at + 2..end])).unwrap();
        at = end;
    }
    assert!(bytes[at + 1..].iter().all(|byte| *byte == 0), "rubbish behind the end");
    writeln!(out, "  end, {} bytes of padding", bytes.len() - at - 1).unwrap();
    out
}

/// Everything a firmware is answered, in every mode.
fn story(firmware: &str) -> String {
    let mut out = String::new();
    let discover = packet(&format!("{firmware}.discover")).unwrap();
    let request = packet(&format!("{firmware}.request"));
    let boot_server = packet(&format!("{firmware}.boot-server-request"));
    let mac = Message::read(&discover).unwrap().mac;
    let asked = request.as_ref().and_then(|packet| Message::read(packet).unwrap().options.address(code::REQUESTED));
    let given = asked.unwrap_or(GIVEN);
    let mut put = |title: &str, text: String| writeln!(out, "## {title}\n{text}").unwrap();
    for (mode, style, named) in [
        (Mode::Server, ProxyStyle::Offer, "the only server"),
        (Mode::Proxy, ProxyStyle::Offer, "proxy, file in the offer"),
        (Mode::Proxy, ProxyStyle::Port4011, "proxy, file on port 4011"),
    ] {
        let ticket = ticket(mac, style);
        let mut answerer = answerer(mode, mac, given);
        put(&format!("{named}: DISCOVER"), ask(&mut answerer, &discover, Port::Dhcp, Some(&ticket)));
        if let Some(request) = &request {
            let text = ask(&mut answerer, request, Port::Dhcp, Some(&ticket));
            put(&format!("{named}: REQUEST that names us"), text);
        }
        if let Some(boot_server) = &boot_server {
            let text = ask(&mut answerer, boot_server, Port::BootServer, Some(&ticket));
            put(&format!("{named}: REQUEST on port 4011"), text);
        }
    }
    // Circuit 0x0007, remote "rack-2".
    let agent = [1, 2, 0, 7, 2, 6, b'r', b'a', b'c', b'k', b'-', b'2'];
    let far = relayed(&discover, Ipv4Addr::new(10, 79, 2, 254), &agent);
    let ticket = ticket(mac, ProxyStyle::Offer);
    let mut answerer = answerer(Mode::Server, mac, Ipv4Addr::new(10, 79, 2, 50));
    put("relayed, option 82: DISCOVER", ask(&mut answerer, &far, Port::Dhcp, Some(&ticket)));
    put(
        "without a ticket, the only server: DISCOVER",
        ask(&mut self::answerer(Mode::Server, mac, given), &discover, Port::Dhcp, None),
    );
    assert_eq!(ask(&mut self::answerer(Mode::Proxy, mac, given), &discover, Port::Dhcp, None), "silence\n");
    out
}

macro_rules! golden {
    ($($test:ident: $firmware:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            insta::assert_snapshot!($firmware, story($firmware));
        })+

        /// A captured packet that no test looks at would be forgotten.
        #[test]
        fn every_packet_is_looked_at() {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/packets");
            for entry in std::fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let firmware = name.split('.').next().unwrap();
                assert!([$($firmware),+].contains(&firmware), "{name}");
            }
        }
    };
}

golden! {
    seabios_with_ipxe: "seabios-ipxe",
    ovmf_by_pxe: "ovmf-pxe",
    ovmf_by_http: "ovmf-http",
    ovmf_with_ipxe: "ovmf-ipxe",
    aavmf_by_pxe: "aavmf-pxe",
    aavmf_by_http: "aavmf-http",
    u_boot_on_arm64: "uboot-arm64",
    raspberry_pi: "raspberry-pi",
}

/// Golden test 3: two subnets behind two relays; each host gets the address of its own, through its own relay, and the
/// relay's option 82 comes back as it was, as the last option.
#[test]
fn two_relays_with_option_82_get_their_own_back() {
    let discover = packet("ovmf-pxe.discover").unwrap();
    let mac = Message::read(&discover).unwrap().mac;
    let ticket = ticket(mac, ProxyStyle::Offer);
    for (third, agent) in [(1_u8, &b"\x01\x04\x00\x00\x00\x07\x02\x03abc"[..]), (2, b"\x01\x01\xff"), (2, b"")] {
        let (relay, given) = (Ipv4Addr::new(10, 79, third, 254), Ipv4Addr::new(10, 79, third, 77));
        let mut answerer = answerer(Mode::Server, mac, given);
        let packet = relayed(&discover, relay, agent);
        let request = Message::read(&packet).unwrap();
        let arrival = Arrival { port: Port::Dhcp, source: SocketAddrV4::new(relay, 67), local: OURS };
        let (reply, destination) = answerer.answer(&request, arrival, Some(&ticket), now()).reply.unwrap();
        assert_eq!(destination, Destination::Relay(relay));
        assert_eq!((reply.giaddr, reply.yiaddr), (relay, given));
        let (bytes, _) = reply.encode(request.max_size());
        let end = bytes.iter().rposition(|byte| *byte == 255).unwrap();
        let last = [&[code::RELAY, agent.len() as u8], agent].concat();
        assert_eq!(bytes[end - last.len()..end], last, "82 unchanged and last");
    }
    // A relay of no subnet of ours is not answered, however well its option 82 looks.
    let stranger = relayed(&discover, Ipv4Addr::new(192, 0, 2, 1), b"\x01\x01\x07");
    let mut answerer = answerer(Mode::Server, mac, GIVEN);
    assert_eq!(ask(&mut answerer, &stranger, Port::Dhcp, Some(&ticket)), "silence\n");
}
