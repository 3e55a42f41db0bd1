//! What the DHCP server and the ProxyDHCP server answer to any packet: with and without a ticket, in both modes, on both
//! ports. Without a ticket the proxy is silent and the server says nothing of booting; an answer is a message that can be
//! read, goes to the one who asked, and ends with the relay's option as it came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::boot_set::Role;
use protocol::manifest::Arch;
use pxe::dhcp::decide::{Answerer, Arrival, Loaders, Port};
use pxe::dhcp::options::code;
use pxe::dhcp::request::{Message, MessageType};
use pxe::dhcp::scope::{Mode, Reservation, Scope, Subnet};
use pxe::gate::{FirstLoader, Now, Phase, ProxyStyle, Ticket, Token};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn now(age_s: u64) -> Now {
    Now { elapsed: Duration::from_secs(1000 + age_s), wall: Duration::from_secs(1_800_000_000 + age_s) }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([how, age], packet)) = bytes.split_first_chunk::<2>() else { return };
    let Ok(request) = Message::read(packet) else { return };
    let mode = if how & 1 == 0 { Mode::Server } else { Mode::Proxy };
    let port = if how & 2 == 0 { Port::Dhcp } else { Port::BootServer };
    let armed = how & 4 != 0;
    let reserved = how & 8 != 0;
    // Beyond 1,800 s a ticket has expired.
    let age_s = u64::from(*age) * 16;
    let subnet = Subnet {
        network: Ipv4Addr::new(10, 0, 0, 0),
        prefix: 24,
        router: Some(OURS),
        dns: vec![OURS],
        range: (how & 16 != 0).then_some((Ipv4Addr::new(10, 0, 0, 100), Ipv4Addr::new(10, 0, 0, 120))),
        lease: Duration::from_secs(600),
        relays: Vec::new(),
    };
    let reservation = Reservation { address: Ipv4Addr::new(10, 0, 0, 50), host_name: Some("node".to_owned()) };
    let reservations = if reserved { HashMap::from([(request.mac, reservation)]) } else { HashMap::new() };
    let names = [
        ((Role::IpxeBios, Arch::X86_64), "a.kpxe".to_owned()),
        ((Role::IpxeUefi, Arch::X86_64), "b.efi".to_owned()),
        ((Role::IpxeUefi, Arch::Aarch64), "c.efi".to_owned()),
    ];
    let loaders = Loaders { names: names.into_iter().collect(), http_port: 8080 };
    let mut answerer = Answerer::new(Scope { mode, subnets: vec![subnet], reservations }, loaders);
    let ticket = Ticket {
        job: "job".parse().expect("a name"),
        mac: request.mac,
        token: Token::new([0xab; 16]),
        opened: now(0),
        phase: Phase::Armed,
        first_loader: if how & 32 == 0 { FirstLoader::Ipxe } else { FirstLoader::Shim },
        proxy_style: if how & 64 == 0 { ProxyStyle::Offer } else { ProxyStyle::Port4011 },
    };
    let source = SocketAddrV4::new(request.ciaddr, 68);
    let arrival = Arrival { port, source, local: OURS };
    let outcome = answerer.answer(&request, arrival, armed.then_some(&ticket), now(age_s));
    let Some((reply, _)) = outcome.reply else { return };
    let (bytes, _) = reply.encode(request.max_size());
    assert!(bytes.len() >= 300 && bytes.len() <= usize::from(request.max_size().max(576)).max(328) - 28);
    let answer = Message::read(&bytes).expect("our own answer is a message");
    assert_eq!((answer.xid, answer.mac, answer.giaddr), (request.xid, request.mac, request.giaddr));
    assert!(matches!(answer.kind, MessageType::Offer | MessageType::Ack | MessageType::Nak));
    let relay = request.options.get(code::RELAY).filter(|relay| relay.len() <= 255);
    assert_eq!(answer.options.get(code::RELAY), relay);
    if !armed || age_s >= 1800 {
        assert!(mode == Mode::Server && port == Port::Dhcp, "an unarmed host is answered");
        for boot in [code::CLASS, code::VENDOR, code::TFTP_SERVER, code::BOOT_FILE, code::TFTP_ADDRESS, code::IPXE] {
            assert_eq!(answer.options.get(boot), None, "boot option {boot} without a ticket");
        }
        assert!(answer.file.is_empty() && answer.siaddr.is_unspecified());
    }
});
