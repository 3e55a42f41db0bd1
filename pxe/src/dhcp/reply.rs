//! A DHCP message as it goes out: RFC 2131 section 4.1, padded to BOOTP's 300 bytes, never above what the client takes.

use super::options::{self, code};
use super::request::{COOKIE, MessageType};
use crate::mac::Mac;
use std::net::Ipv4Addr;

/// BOOTP's smallest packet (RFC 951): old ROMs and relays drop shorter ones.
const SMALLEST_BYTES: usize = 300;
/// IP and UDP heads, which option 57 counts.
const IP_UDP_BYTES: usize = 28;

/// A reply before it is bytes. Options go out in the order in which they stand here; option 82 is always last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Transaction of the request.
    pub xid: u32,
    /// Flags of the request.
    pub flags: u16,
    /// The client's own address, echoed in an ACK to one who has it.
    pub ciaddr: Ipv4Addr,
    /// The address that is given.
    pub yiaddr: Ipv4Addr,
    /// The next server: TFTP.
    pub siaddr: Ipv4Addr,
    /// Relay of the request.
    pub giaddr: Ipv4Addr,
    /// The client's card.
    pub mac: Mac,
    /// The boot file, for the header and option 67.
    pub file: Option<String>,
    /// What it is.
    pub kind: MessageType,
    /// The other options, most needed first.
    pub options: Vec<(u8, Vec<u8>)>,
    /// The relay's option 82, echoed unchanged (RFC 3046 section 2.2).
    pub relay: Option<Vec<u8>>,
}

/// A relay's option is one option (RFC 3046 section 2.0). One that is put together of several (RFC 3396) is no relay's, and
/// echoing it would make the message larger than any client takes.
const LONGEST_RELAY_BYTES: usize = 255;

impl Reply {
    /// The bytes for a client that takes messages of at most `max_size` bytes (option 57, with IP and UDP heads).
    /// Options that do not fit are left out from the end; the second value says which.
    #[must_use]
    pub fn encode(&self, max_size: u16) -> (Vec<u8>, Vec<u8>) {
        let limit = usize::from(max_size.max(576)) - IP_UDP_BYTES;
        let mut bytes = vec![0_u8; 236];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.flags.to_be_bytes());
        for (at, address) in [(12, self.ciaddr), (16, self.yiaddr), (20, self.siaddr), (24, self.giaddr)] {
            bytes[at..at + 4].copy_from_slice(&address.octets());
        }
        bytes[28..34].copy_from_slice(&self.mac.0);
        let file = self.file.as_deref().unwrap_or_default().as_bytes();
        // The field ends with a NUL; a longer name goes into option 67 alone. U-Boot's proxy path reads only the field.
        if file.len() < 128 {
            bytes[108..108 + file.len()].copy_from_slice(file);
            // sname carries the same as option 66: some ROMs read only the one, some only the other.
            if !self.siaddr.is_unspecified() {
                let sname = self.siaddr.to_string();
                bytes[44..44 + sname.len()].copy_from_slice(sname.as_bytes());
            }
        }
        bytes.extend_from_slice(&COOKIE);
        options::write(&mut bytes, code::MESSAGE_TYPE, &[self.kind as u8]);
        let (mut tail, mut left_out) = (Vec::new(), Vec::new());
        match &self.relay {
            Some(relay) if relay.len() <= LONGEST_RELAY_BYTES => options::write(&mut tail, code::RELAY, relay),
            Some(_) => left_out.push(code::RELAY),
            None => {}
        }
        tail.push(255);
        for (code, value) in &self.options {
            let before = bytes.len();
            options::write(&mut bytes, *code, value);
            if bytes.len() + tail.len() > limit {
                bytes.truncate(before);
                left_out.push(*code);
            }
        }
        bytes.extend_from_slice(&tail);
        bytes.resize(bytes.len().max(SMALLEST_BYTES), 0);
        (bytes, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Message;
    use super::*;

    fn reply() -> Reply {
        Reply {
            xid: 0x1234_5678,
            flags: 0x8000,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::new(10, 0, 0, 9),
            siaddr: Ipv4Addr::new(10, 0, 0, 1),
            giaddr: Ipv4Addr::UNSPECIFIED,
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            file: Some("t/x/snponly.efi".to_owned()),
            kind: MessageType::Offer,
            options: vec![(code::SERVER, vec![10, 0, 0, 1])],
            relay: Some(vec![1, 2, 7, 7]),
        }
    }

    #[test]
    fn a_relays_option_that_no_message_holds_is_left_out() {
        let (bytes, left_out) = Reply { relay: Some(vec![1; 255]), ..reply() }.encode(576);
        assert!(left_out.is_empty() && bytes.len() <= 548, "{} bytes", bytes.len());
        let (bytes, left_out) = Reply { relay: Some(vec![1; 600]), ..reply() }.encode(576);
        assert_eq!(left_out, [code::RELAY]);
        assert!(bytes.len() <= 548 && Message::read(&bytes).unwrap().options.get(code::RELAY).is_none());
    }

    #[test]
    fn a_reply_is_padded_terminated_and_ends_with_the_relays_option() {
        let (bytes, left_out) = reply().encode(576);
        assert_eq!((bytes.len(), left_out.len()), (300, 0));
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.file, b"t/x/snponly.efi");
        assert_eq!(message.options.get(code::RELAY), Some(&[1, 2, 7, 7][..]));
        let options = &bytes[240..];
        let end = options.iter().rposition(|byte| *byte == 255).unwrap();
        assert_eq!(options[end - 6..end], [82, 4, 1, 2, 7, 7], "82 is last, before the end");
        assert!(options[end + 1..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let mut reply = reply();
        reply.options.push((code::VENDOR, vec![0; 400]));
        reply.options.push((code::ROUTER, vec![10, 0, 0, 1]));
        let (bytes, left_out) = reply.encode(300);
        assert!(bytes.len() <= 576 - 28);
        assert_eq!(left_out, [code::VENDOR]);
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.options.address(code::ROUTER), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert!(reply.encode(1500).1.is_empty());
    }

    #[test]
    fn a_name_too_long_for_the_field_is_not_cut() {
        let reply = Reply { file: Some("x".repeat(128)), ..reply() };
        let (bytes, _) = reply.encode(1500);
        assert!(Message::read(&bytes).unwrap().file.is_empty());
    }
}
