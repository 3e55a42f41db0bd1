//! A DHCP message as it comes in: RFC 2131, with what RFC 4578 (PXE) and iPXE say in it.

use super::options::{Options, code};
use crate::mac::Mac;
use std::net::Ipv4Addr;

/// Where the options begin: BOOTP's fixed fields and the magic cookie.
pub(crate) const HEAD_BYTES: usize = 240;
pub(crate) const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// The type of a DHCP message (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers.
    Offer = 2,
    /// A client takes an offer, or renews.
    Request = 3,
    /// The address is in use by somebody else.
    Decline = 4,
    /// Yes.
    Ack = 5,
    /// No.
    Nak = 6,
    /// The client gives its address back.
    Release = 7,
    /// The client has an address and wants options only.
    Inform = 8,
}

impl MessageType {
    fn read(byte: u8) -> Option<Self> {
        use MessageType::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a network-boot client says it is (option 60).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootClass {
    /// `PXEClient…`.
    Pxe,
    /// `HTTPClient…`.
    Http,
}

/// What iPXE says it can do (option 175).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpxeFeatures {
    /// It can fetch by HTTP.
    pub http: bool,
    /// It can start a Linux kernel (`bzImage`) or, on UEFI, an EFI program.
    pub kernel: bool,
}

/// A message, read. Borrows the packet.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// 1 = to a server, 2 = from one.
    pub op: u8,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Bit 15: answer by broadcast.
    pub flags: u16,
    /// The client's address, when it has one that it can answer ARP for.
    pub ciaddr: Ipv4Addr,
    /// The address that a server gives.
    pub yiaddr: Ipv4Addr,
    /// The next server.
    pub siaddr: Ipv4Addr,
    /// The relay.
    pub giaddr: Ipv4Addr,
    /// The card.
    pub mac: Mac,
    /// The boot file field, up to its first NUL.
    pub file: &'a [u8],
    /// What it is.
    pub kind: MessageType,
    /// All options.
    pub options: Options<'a>,
}

/// Why a packet is no message for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForUs {
    /// Too short, no cookie, no message type.
    #[error("no DHCP message")]
    NoDhcp,
    /// Not Ethernet.
    #[error("hardware type {0} is not Ethernet")]
    HardwareType(u8),
    /// Its hardware address names no card.
    #[error("its hardware address names no card")]
    GroupAddress,
}

impl<'a> Message<'a> {
    /// Reads a UDP payload.
    ///
    /// # Errors
    /// Why it is not for us.
    pub fn read(packet: &'a [u8]) -> Result<Self, NotForUs> {
        let head = packet.first_chunk::<HEAD_BYTES>().ok_or(NotForUs::NoDhcp)?;
        let field = packet.get(HEAD_BYTES..).unwrap_or_default();
        let [op, htype, hlen, _hops, ..] = *head;
        if head[236..] != COOKIE || !(1..=2).contains(&op) {
            return Err(NotForUs::NoDhcp);
        }
        if htype != 1 || hlen != 6 {
            return Err(NotForUs::HardwareType(htype));
        }
        let short = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
        let mac = Mac([head[28], head[29], head[30], head[31], head[32], head[33]]);
        if !mac.is_unicast() {
            return Err(NotForUs::GroupAddress);
        }
        let (sname, file) = (&packet[44..108], &packet[108..236]);
        let options = Options::read(field, file, sname);
        let kind = options.byte(code::MESSAGE_TYPE).and_then(MessageType::read).ok_or(NotForUs::NoDhcp)?;
        let overloaded = options.byte(code::OVERLOAD).unwrap_or(0) & 1 != 0;
        let file = if overloaded { &[] } else { file.split(|byte| *byte == 0).next().unwrap_or_default() };
        Ok(Self {
            op,
            xid: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            secs: short(8),
            flags: short(10),
            ciaddr: address(12),
            yiaddr: address(16),
            siaddr: address(20),
            giaddr: address(24),
            mac,
            file,
            kind,
            options,
        })
    }

    /// Whether it asks for an answer by broadcast.
    #[must_use]
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// What kind of network boot it wants. A client is one only if option 60 begins so and option 93 is there (RFC 4578
    /// section 2.1): the first without the second is a server's leftover or a stack that only says so.
    #[must_use]
    pub fn boot_class(&self) -> Option<BootClass> {
        let class = self.options.get(code::CLASS)?;
        self.options.short(code::ARCH)?;
        match class {
            _ if class.starts_with(b"PXEClient") => Some(BootClass::Pxe),
            _ if class.starts_with(b"HTTPClient") => Some(BootClass::Http),
            _ => None,
        }
    }

    /// The architecture codes of option 93, in order. Several are allowed (RFC 4578 section 2.1).
    pub fn arch_codes(&self) -> impl Iterator<Item = u16> + '_ {
        let bytes = self.options.get(code::ARCH).unwrap_or_default();
        bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// Whether iPXE is speaking: its user class, raw or in the form of RFC 3004, or its encapsulated options.
    #[must_use]
    pub fn is_ipxe(&self) -> bool {
        let class = self.options.get(code::USER_CLASS).unwrap_or_default();
        let listed =
            class.split_first().is_some_and(|(length, rest)| usize::from(*length) == 4 && rest.starts_with(b"iPXE"));
        class == b"iPXE" || listed || self.options.get(code::IPXE).is_some()
    }

    /// What this iPXE can do. Without option 175 nothing is known, and nothing assumed.
    #[must_use]
    pub fn ipxe_features(&self) -> IpxeFeatures {
        // Sub-options 0x13 HTTP, 0x18 bzImage, 0x24 EFI (iPXE, src/include/ipxe/features.h).
        let Some(field) = self.options.get(code::IPXE) else { return IpxeFeatures::default() };
        let features = Options::encapsulated(field);
        let has = |code| features.byte(code).is_some_and(|version| version > 0);
        IpxeFeatures { http: has(0x13), kernel: has(0x18) || has(0x24) }
    }

    /// The machine identifier of option 97, when it has its one proper form (RFC 4578 section 2.3: type 0 and 16 bytes).
    #[must_use]
    pub fn machine(&self) -> Option<&[u8; 17]> {
        let bytes: &[u8; 17] = self.options.get(code::MACHINE)?.try_into().ok()?;
        (bytes[0] == 0).then_some(bytes)
    }

    /// The largest message it takes, bytes with IP and UDP heads. RFC 2132 section 9.10: never below 576.
    #[must_use]
    pub fn max_size(&self) -> u16 {
        self.options.short(code::MAX_SIZE).unwrap_or(576).clamp(576, 1500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn packet(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0_u8; HEAD_BYTES];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
        packet[236..240].copy_from_slice(&COOKIE);
        packet.extend_from_slice(options);
        packet
    }

    #[test]
    fn ipxe_is_known_by_its_raw_class_by_the_listed_one_and_by_its_options() {
        let raw = packet(b"\x35\x01\x01\x4d\x04iPXE");
        assert!(Message::read(&raw).unwrap().is_ipxe());
        let listed = packet(b"\x35\x01\x01\x4d\x05\x04iPXE");
        assert!(Message::read(&listed).unwrap().is_ipxe());
        let options = packet(b"\x35\x01\x01\xaf\x06\x13\x01\x01\x18\x01\x01");
        let message = Message::read(&options).unwrap();
        assert!(message.is_ipxe());
        assert_eq!(message.ipxe_features(), IpxeFeatures { http: true, kernel: true });
        let other_case = packet(b"\x35\x01\x01\x4d\x04ipxe");
        assert!(!Message::read(&other_case).unwrap().is_ipxe());
    }

    #[test]
    fn a_class_without_an_architecture_is_no_boot_client() {
        let without = packet(b"\x35\x01\x01\x3c\x09PXEClient");
        assert_eq!(Message::read(&without).unwrap().boot_class(), None);
        let with = packet(b"\x35\x01\x01\x3c\x0aHTTPClient\x5d\x02\x00\x10");
        assert_eq!(Message::read(&with).unwrap().boot_class(), Some(BootClass::Http));
    }

    #[test]
    fn a_machine_identifier_of_an_odd_form_is_not_used() {
        let mut odd = b"\x35\x01\x01\x61\x10".to_vec();
        odd.extend_from_slice(&[0; 16]);
        assert_eq!(Message::read(&packet(&odd)).unwrap().machine(), None);
        let mut good = b"\x35\x01\x01\x61\x11".to_vec();
        good.extend_from_slice(&[0; 17]);
        assert!(Message::read(&packet(&good)).unwrap().machine().is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = Message::read(&bytes);
            if let Ok(message) = Message::read(&packet(&bytes)) {
                let _ = (message.boot_class(), message.is_ipxe(), message.ipxe_features(), message.machine());
                let _ = message.arch_codes().count();
            }
        }
    }
}
