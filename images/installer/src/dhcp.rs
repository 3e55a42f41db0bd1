//! An address by DHCP (RFC 2131), for an installer that came from a virtual drive: no loader has asked for one before it.
//!
//! DISCOVER, OFFER, REQUEST, ACK, and no more: an install is over long before half of a lease is. Answers are asked for as
//! broadcasts, since the card takes no unicast before it has an address.

use crate::command_line::Address;
use crate::link;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Spanning tree keeps a port silent for up to 50 s, and a relay or a busy server takes its time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions, at first and at last (RFC 2131 section 4.1 begins with four seconds).
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LAST_WAIT: Duration = Duration::from_secs(16);
/// How long a lease is wished for, seconds: longer than any job lives.
const LEASE_S: u32 = 3 * 60 * 60;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
/// Before the options.
const HEAD_BYTES: usize = 240;

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    kind: u8,
    address: Ipv4Addr,
    server: Ipv4Addr,
    netmask: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
}

/// Asks until a server has given an address.
///
/// # Errors
/// Why there is none.
pub fn ask(card: &str, mac: &str) -> io::Result<Address> {
    let mac = read_mac(mac).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the card's address is odd"))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68))?;
    socket.set_broadcast(true)?;
    link::only_through(&socket, card)?;
    let until = Instant::now() + PATIENCE;
    let mut wait = FIRST_WAIT;
    while Instant::now() < until {
        let mut xid = [0; 4];
        getrandom::fill(&mut xid).map_err(|error| io::Error::other(error.to_string()))?;
        if let Some(offer) = exchange(&socket, &message(DISCOVER, xid, mac, None), xid, mac, wait, &[OFFER])? {
            let asked = message(REQUEST, xid, mac, Some(offer));
            match exchange(&socket, &asked, xid, mac, wait, &[ACK, NAK])? {
                Some(answer) if answer.kind == ACK => return Ok(taken(answer)),
                // Refused, or lost: from the beginning.
                Some(_) | None => {}
            }
        }
        wait = (wait * 2).min(LAST_WAIT);
    }
    let seconds = PATIENCE.as_secs();
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no DHCP server gave an address within {seconds} s")))
}

/// Sends a question and waits for an answer of one of these kinds.
fn exchange(
    socket: &UdpSocket,
    question: &[u8],
    xid: [u8; 4],
    mac: [u8; 6],
    wait: Duration,
    kinds: &[u8],
) -> io::Result<Option<Answer>> {
    socket.send_to(question, (Ipv4Addr::BROADCAST, 67))?;
    let until = Instant::now() + wait;
    let mut datagram = [0; 1500];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut datagram) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let answer = read(datagram.get(..length).unwrap_or_default(), xid, mac);
        if let Some(answer) = answer.filter(|answer| kinds.contains(&answer.kind)) {
            return Ok(Some(answer));
        }
    }
}

/// The address with its network. A server that names no mask means that of the address' class (RFC 950).
fn taken(answer: Answer) -> Address {
    let class = match answer.address.octets()[0] {
        0..128 => Ipv4Addr::new(255, 0, 0, 0),
        128..192 => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    };
    Address { address: answer.address, netmask: answer.netmask.unwrap_or(class), gateway: answer.gateway }
}

fn message(kind: u8, xid: [u8; 4], mac: [u8; 6], offer: Option<Answer>) -> Vec<u8> {
    // BOOTREQUEST, Ethernet, six bytes, no hop; flags: answer by broadcast.
    let mut message = vec![1, 1, 6, 0];
    message.extend(xid);
    message.extend([0, 0, 0x80, 0]);
    message.resize(28, 0);
    message.extend(mac);
    message.resize(HEAD_BYTES - COOKIE.len(), 0);
    message.extend(COOKIE);
    message.extend([53, 1, kind]);
    if let Some(offer) = offer {
        message.extend([50, 4]);
        message.extend(offer.address.octets());
        message.extend([54, 4]);
        message.extend(offer.server.octets());
    }
    message.extend([51, 4]);
    message.extend(LEASE_S.to_be_bytes());
    // Mask and router.
    message.extend([55, 2, 1, 3, 255]);
    // Some relays drop what is shorter than BOOTP's 300 bytes (RFC 1542 section 2.1).
    message.resize(message.len().max(300), 0);
    message
}

fn read(datagram: &[u8], xid: [u8; 4], mac: [u8; 6]) -> Option<Answer> {
    let ours = datagram.first() == Some(&2)
        && datagram.get(4..8) == Some(&xid[..])
        && datagram.get(28..34) == Some(&mac[..])
        && datagram.get(HEAD_BYTES - 4..HEAD_BYTES) == Some(&COOKIE[..]);
    if !ours {
        return None;
    }
    let address = |bytes: &[u8]| Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?));
    let (mut kind, mut server, mut netmask, mut gateway) = (None, None, None, None);
    let mut options = datagram.get(HEAD_BYTES..)?;
    while let [code, rest @ ..] = options {
        match code {
            0 => options = rest,
            255 => break,
            code => {
                let length = usize::from(*rest.first()?);
                let value = rest.get(1..length.checked_add(1)?)?;
                match code {
                    1 => netmask = address(value),
                    3 => gateway = address(value),
                    53 => kind = value.first().copied(),
                    54 => server = address(value),
                    _ => {}
                }
                options = rest.get(length.checked_add(1)?..)?;
            }
        }
    }
    let answer = Answer { kind: kind?, address: address(datagram.get(16..20)?)?, server: server?, netmask, gateway };
    (answer.kind == NAK || !answer.address.is_unspecified()).then_some(answer)
}

fn read_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 1];
    const XID: [u8; 4] = [1, 2, 3, 4];

    fn answer(kind: u8, options: &[u8]) -> Vec<u8> {
        let mut datagram = message(kind, XID, MAC, None);
        datagram[0] = 2;
        datagram[16..20].copy_from_slice(&[10, 77, 0, 123]);
        datagram.truncate(HEAD_BYTES);
        datagram.extend([53, 1, kind, 54, 4, 10, 77, 0, 2]);
        datagram.extend(options);
        datagram.push(255);
        datagram
    }

    #[test]
    fn an_offer_is_read_and_what_is_another_s_is_not() {
        let offer = answer(OFFER, &[1, 4, 255, 255, 254, 0, 0, 3, 8, 10, 77, 0, 254, 10, 77, 0, 253]);
        let read_offer = read(&offer, XID, MAC).unwrap();
        let wanted = Address {
            address: Ipv4Addr::new(10, 77, 0, 123),
            netmask: Ipv4Addr::new(255, 255, 254, 0),
            gateway: Some(Ipv4Addr::new(10, 77, 0, 254)),
        };
        assert_eq!(taken(read_offer), wanted);
        assert_eq!(read_offer.server, Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(read(&offer, [1, 2, 3, 5], MAC), None, "another question's");
        assert_eq!(read(&offer, XID, [0x52, 0x54, 0, 0x77, 0, 2]), None, "another card's");
        assert_eq!(read(&message(OFFER, XID, MAC, None), XID, MAC), None, "a question");
        assert_eq!(taken(read(&answer(ACK, &[]), XID, MAC).unwrap()).netmask, Ipv4Addr::new(255, 0, 0, 0));
    }

    #[test]
    fn a_question_has_what_servers_and_relays_want() {
        let offered = read(&answer(OFFER, &[]), XID, MAC);
        let asked = message(REQUEST, XID, MAC, offered);
        assert!(asked.len() >= 300 && asked[10] == 0x80 && asked[28..34] == MAC);
        let has = |words: &[u8]| asked.windows(words.len()).any(|part| part == words);
        assert!(has(&[50, 4, 10, 77, 0, 123]) && has(&[54, 4, 10, 77, 0, 2]) && has(&[53, 1, 3]));
        assert_eq!(read_mac("52:54:00:77:00:01"), Some(MAC));
        assert_eq!(read_mac("52:54:00:77:00"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(options in proptest::collection::vec(any::<u8>(), 0..80), cut in 0_usize..400) {
            let mut datagram = answer(OFFER, &options);
            let _ = read(&datagram, XID, MAC);
            datagram.truncate(cut);
            let _ = read(&datagram, XID, MAC);
        }
    }
}
