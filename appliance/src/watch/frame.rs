//! The bytes of probes and of their answers. Pure; no panic on anything that comes from outside.
//!
//! ARP: RFC 826, asked of one card as RFC 1122 2.3.2.1 (2) has it for checking an entry, since a broadcast for each host
//! and second would wake every host of the segment ten thousand times a second. ICMP echo: RFC 792. TCP: RFC 9293.

use super::wire::Frames;
use pxe::dhcp::request::{Message, MessageType};
use pxe::mac::Mac;
use std::net::Ipv4Addr;

/// All cards.
pub const BROADCAST: Mac = Mac([0xff; 6]);

const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const ETHERNET_BYTES: usize = 14;
const ARP_BYTES: usize = 28;
const TCP_BYTES: usize = 20;
const ECHO_BYTES: usize = 16;
/// The shortest frame of Ethernet without its check sequence (IEEE 802.3).
const SHORTEST: usize = 60;
const FLAG_SYN: u8 = 0x02;
const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;
const TTL: u8 = 64;

/// From whom and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Our card.
    pub from: Mac,
    /// Our address.
    pub from_address: Ipv4Addr,
    /// The next card.
    pub to: Mac,
    /// The address at the end.
    pub to_address: Ipv4Addr,
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An ARP reply.
    Arp {
        /// The card that says so.
        card: Mac,
        /// The address that it claims.
        address: Ipv4Addr,
    },
    /// An echo reply.
    Echo {
        /// The card it came from.
        card: Mac,
        /// The address it came from.
        address: Ipv4Addr,
        /// Identifier.
        id: u16,
        /// Sequence number.
        sequence: u16,
        /// What we sent along.
        cookie: u64,
    },
    /// An answer to a SYN.
    Tcp {
        /// The card it came from.
        card: Mac,
        /// The address it came from.
        address: Ipv4Addr,
        /// The probed port.
        port: u16,
        /// Our port.
        to_port: u16,
        /// Their sequence number.
        sequence: u32,
        /// What they acknowledge.
        acknowledged: u32,
        /// SYN/ACK if true, RST if false.
        listening: bool,
    },
    /// A DHCP DISCOVER of a boot program.
    BootRequest {
        /// The card that asks.
        card: Mac,
    },
}

fn head(way: &Way, kind: [u8; 2]) -> [u8; ETHERNET_BYTES] {
    let mut head = [0; ETHERNET_BYTES];
    head[..6].copy_from_slice(&way.to.0);
    head[6..12].copy_from_slice(&way.from.0);
    head[12..].copy_from_slice(&kind);
    head
}

/// The Internet checksum (RFC 1071) over pieces of even length.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

fn ip_head(way: &Way, protocol: u8, payload: usize) -> [u8; 20] {
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&u16::try_from(20 + payload).unwrap_or(u16::MAX).to_be_bytes());
    ip[6] = 0x40; // Do not fragment.
    ip[8] = TTL;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&way.from_address.octets());
    ip[16..20].copy_from_slice(&way.to_address.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip
}

/// Asks who has the address.
pub fn arp_request(frames: &mut Frames, way: &Way) {
    let mut frame = [0; SHORTEST];
    frame[..ETHERNET_BYTES].copy_from_slice(&head(way, ARP));
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&way.from.0);
    frame[28..32].copy_from_slice(&way.from_address.octets());
    frame[38..42].copy_from_slice(&way.to_address.octets());
    frames.push(&frame);
}

/// Asks for an echo.
pub fn echo_request(frames: &mut Frames, way: &Way, id: u16, sequence: u16, cookie: u64) {
    let mut icmp = [0; ECHO_BYTES];
    icmp[0] = 8;
    icmp[4..6].copy_from_slice(&id.to_be_bytes());
    icmp[6..8].copy_from_slice(&sequence.to_be_bytes());
    icmp[8..16].copy_from_slice(&cookie.to_be_bytes());
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    internet(frames, way, 1, &icmp);
}

/// Asks whether a port listens.
pub fn syn(frames: &mut Frames, way: &Way, from_port: u16, port: u16, sequence: u32) {
    tcp(frames, way, [from_port, port], sequence, FLAG_SYN);
}

/// Ends what a SYN/ACK began.
pub fn reset(frames: &mut Frames, way: &Way, from_port: u16, port: u16, sequence: u32) {
    tcp(frames, way, [from_port, port], sequence, FLAG_RST);
}

fn tcp(frames: &mut Frames, way: &Way, [from, to]: [u16; 2], sequence: u32, flags: u8) {
    let mut tcp = [0; TCP_BYTES];
    tcp[..2].copy_from_slice(&from.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = flags;
    tcp[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    let sum = checksum(&[&way.from_address.octets(), &way.to_address.octets(), &[0, 6, 0, 20], &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    internet(frames, way, 6, &tcp);
}

fn internet(frames: &mut Frames, way: &Way, protocol: u8, payload: &[u8]) {
    let mut frame = [0; SHORTEST];
    let body = ETHERNET_BYTES + 20;
    let Some(room) = frame.get_mut(body..body + payload.len()) else { return };
    room.copy_from_slice(payload);
    frame[..ETHERNET_BYTES].copy_from_slice(&head(way, IPV4));
    frame[ETHERNET_BYTES..body].copy_from_slice(&ip_head(way, protocol, payload.len()));
    frames.push(&frame);
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn card(bytes: &[u8], at: usize) -> Option<Mac> {
    Some(Mac(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a frame. `us` is our address: what is for others is not heard, save boot requests.
#[must_use]
pub fn read(frame: &[u8], us: Ipv4Addr) -> Option<Heard> {
    let from = card(frame, 6)?;
    let body = frame.get(ETHERNET_BYTES..)?;
    match [*frame.get(12)?, *frame.get(13)?] {
        ARP => read_arp(from, body, us),
        IPV4 => read_internet(from, body, us),
        _ => None,
    }
}

fn read_arp(from: Mac, arp: &[u8], us: Ipv4Addr) -> Option<Heard> {
    if arp.get(..8)? != [0, 1, 8, 0, 6, 4, 0, 2] || arp.len() < ARP_BYTES {
        return None;
    }
    let (sender, address) = (card(arp, 8)?, Ipv4Addr::from(long(arp, 14)?));
    // Who speaks for another card is no witness of it.
    (sender == from && long(arp, 24)? == u32::from(us)).then_some(Heard::Arp { card: sender, address })
}

fn read_internet(from: Mac, packet: &[u8], us: Ipv4Addr) -> Option<Heard> {
    let first = *packet.first()?;
    let head = usize::from(first & 0x0f) * 4;
    // A fragment is no answer to anything of ours.
    if first >> 4 != 4 || head < 20 || short(packet, 6)? & 0x3fff != 0 {
        return None;
    }
    let address = Ipv4Addr::from(long(packet, 12)?);
    let for_us = long(packet, 16)? == u32::from(us);
    let length = usize::from(short(packet, 2)?).min(packet.len());
    let body = packet.get(head..length)?;
    match *packet.get(9)? {
        1 if for_us => read_echo(from, address, body),
        6 if for_us => read_tcp(from, address, body),
        17 => read_boot_request(from, body),
        _ => None,
    }
}

fn read_echo(card: Mac, address: Ipv4Addr, icmp: &[u8]) -> Option<Heard> {
    if icmp.get(..2)? != [0, 0] {
        return None;
    }
    let cookie = u64::from_be_bytes(*icmp.get(8..)?.first_chunk()?);
    Some(Heard::Echo { card, address, id: short(icmp, 4)?, sequence: short(icmp, 6)?, cookie })
}

fn read_tcp(card: Mac, address: Ipv4Addr, tcp: &[u8]) -> Option<Heard> {
    let flags = *tcp.get(13)?;
    // What answers a SYN acknowledges it: SYN/ACK, or RST with ACK (RFC 9293, 3.10.7.1). A bare RST is anybody's.
    let listening = match flags & (FLAG_SYN | FLAG_RST | FLAG_ACK) {
        f if f == FLAG_SYN | FLAG_ACK => true,
        f if f == FLAG_RST | FLAG_ACK => false,
        _ => return None,
    };
    Some(Heard::Tcp {
        card,
        address,
        port: short(tcp, 0)?,
        to_port: short(tcp, 2)?,
        sequence: long(tcp, 4)?,
        acknowledged: long(tcp, 8)?,
        listening,
    })
}

fn read_boot_request(from: Mac, udp: &[u8]) -> Option<Heard> {
    if (short(udp, 0)?, short(udp, 2)?) != (68, 67) {
        return None;
    }
    let message = Message::read(udp.get(8..)?).ok()?;
    // Relayed ones come from the relay's card and port: the DHCP server hears those.
    let asks = message.op == 1 && message.kind == MessageType::Discover && message.boot_class().is_some();
    (asks && message.mac == from).then_some(Heard::BootRequest { card: from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: Ipv4Addr = Ipv4Addr::new(10, 83, 0, 1);
    const THEM: Ipv4Addr = Ipv4Addr::new(10, 83, 0, 2);
    const OUR_CARD: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIR_CARD: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const BACK: Way = Way { from: THEIR_CARD, from_address: THEM, to: OUR_CARD, to_address: US };

    fn one(build: impl FnOnce(&mut Frames)) -> Vec<u8> {
        let mut frames = Frames::default();
        build(&mut frames);
        frames.get(0).unwrap().to_vec()
    }

    #[test]
    fn an_echo_request_has_the_bytes_of_the_standards() {
        let frame = one(|f| echo_request(f, &BACK, 0x1234, 7, 0x0102_0304_0506_0708));
        let expected = [
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 1, 0x26, 0x27, 10, 83, 0, 2,
            10, 83, 0, 1, 8, 0, 0xd5, 0xb0, 0x12, 0x34, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        let (sums, ip): (Vec<usize>, _) = (vec![24, 25, 36, 37], &frame[14..34]);
        for (at, byte) in expected.iter().enumerate().filter(|(at, _)| !sums.contains(at)) {
            assert_eq!(frame[at], *byte, "byte {at}");
        }
        // A right checksum sums to nothing with its message.
        assert_eq!((checksum(&[ip]), checksum(&[&frame[34..50]])), (0, 0));
    }

    #[test]
    fn a_reply_is_read_and_a_request_or_one_for_others_is_not() {
        let mut reply = one(|f| echo_request(f, &BACK, 9, 7, 5));
        assert_eq!(read(&reply, US), None);
        reply[34] = 0;
        let heard = Heard::Echo { card: THEIR_CARD, address: THEM, id: 9, sequence: 7, cookie: 5 };
        assert_eq!(read(&reply, US), Some(heard));
        assert_eq!(read(&reply, THEM), None);
        reply[20] = 0x20; // More fragments follow.
        assert_eq!(read(&reply, US), None);
    }

    #[test]
    fn an_arp_reply_counts_only_from_the_card_that_it_names() {
        let mut reply = one(|f| arp_request(f, &BACK));
        assert_eq!(read(&reply, US), None);
        reply[21] = 2;
        assert_eq!(read(&reply, US), Some(Heard::Arp { card: THEIR_CARD, address: THEM }));
        reply[11] = 9;
        assert_eq!(read(&reply, US), None);
    }

    #[test]
    fn a_syn_ack_listens_a_reset_refuses_and_a_bare_reset_is_nobody() {
        let mut answer = one(|f| syn(f, &BACK, 10_250, 61_000, 77));
        for (flags, expected) in [(0x12, Some(true)), (0x14, Some(false)), (0x04, None), (0x02, None), (0x10, None)] {
            answer[47] = flags;
            let listening = match read(&answer, US) {
                Some(Heard::Tcp { listening, .. }) => Some(listening),
                _ => None,
            };
            assert_eq!(listening, expected, "flags {flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 0..4_usize) {
            let mut frame = bytes;
            let heads: [&[u8]; 4] = [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &[8, 0, 0x45], &[8, 0, 0x4f], &[]];
            for (at, byte) in heads[kind].iter().enumerate() {
                if let Some(place) = frame.get_mut(12 + at) {
                    *place = *byte;
                }
            }
            let _ = read(&frame, US);
        }
    }
}
