//! One answer of a server, as far as a network boot is concerned.

use crate::dhcp::frame::Datagram;
use crate::dhcp::options::{Options, code};
use crate::dhcp::request::{BootClass, Message, MessageType};
use crate::mac::Mac;
use serde::Serialize;
use std::net::Ipv4Addr;

/// The longest file name that is shown, bytes. Option 67 can carry more; no boot file is called so.
const FILE_BYTES: usize = 512;

/// An OFFER, or an ACK from port 4011.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The card that the frame came from: the server's, or the router's or relay's on the way.
    #[serde(serialize_with = "text")]
    pub from_mac: Mac,
    /// The address that it came from.
    pub from: Ipv4Addr,
    /// How it calls itself: option 54.
    pub server: Option<Ipv4Addr>,
    /// The relay that it came through.
    pub relay: Option<Ipv4Addr>,
    /// The address that it offers; none from a proxy.
    pub address: Option<Ipv4Addr>,
    /// The next server: where TFTP is.
    pub next_server: Option<Ipv4Addr>,
    /// Which kind of boot it says that it answers: option 60.
    pub class: Option<BootClass>,
    /// Option 43 in it says how the boot goes on (PXE 2.1: discovery control, boot servers, menu).
    pub vendor: bool,
    /// What is to be fetched: a file, or an URL.
    pub file: Option<String>,
    /// The MTU that it gives to the host: option 26.
    pub mtu: Option<u16>,
    /// iPXE's priority of it: option 175, sub-option 1.
    pub ipxe_priority: i8,
    /// iPXE is told not to wait for a proxy: option 175, sub-option 0xb0.
    pub ipxe_no_proxy: bool,
    /// From the first DISCOVER to it, milliseconds.
    pub after_ms: u64,
}

fn text<S: serde::Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(mac)
}

impl Answer {
    /// The answer in a datagram, if it is one to this card and transaction.
    #[must_use]
    pub fn read(datagram: &Datagram<'_>, mac: Mac, xid: u32, after_ms: u64) -> Option<Self> {
        let message = Message::read(datagram.payload).ok()?;
        if message.op != 2 || message.mac != mac || message.xid != xid {
            return None;
        }
        if !matches!(message.kind, MessageType::Offer | MessageType::Ack) {
            return None;
        }
        let some = |address: Ipv4Addr| Some(address).filter(|address| !address.is_unspecified());
        let class = match message.options.get(code::CLASS) {
            Some(class) if class.starts_with(b"PXEClient") => Some(BootClass::Pxe),
            Some(class) if class.starts_with(b"HTTPClient") => Some(BootClass::Http),
            _ => None,
        };
        let named = message.options.get(code::BOOT_FILE).filter(|file| !file.is_empty()).unwrap_or(message.file);
        let ipxe = Options::encapsulated(message.options.get(code::IPXE).unwrap_or_default());
        let vendor = Options::encapsulated(message.options.get(code::VENDOR).unwrap_or_default());
        Some(Self {
            from_mac: datagram.from_mac,
            from: datagram.source,
            server: message.options.address(code::SERVER),
            relay: some(message.giaddr),
            address: some(message.yiaddr),
            next_server: some(message.siaddr).or_else(|| tftp_server(&message)),
            class,
            vendor: [6, 8, 9, 71].into_iter().any(|sub| vendor.get(sub).is_some()),
            file: readable(named),
            mtu: message.options.short(code::MTU),
            ipxe_priority: ipxe.byte(1).map_or(0, |byte| i8::from_be_bytes([byte])),
            ipxe_no_proxy: ipxe.byte(0xb0).unwrap_or(0) != 0,
            after_ms,
        })
    }

    /// Who it is: its own word, else where it came from.
    #[must_use]
    pub fn who(&self) -> Ipv4Addr {
        self.server.unwrap_or(self.from)
    }
}

/// Option 66 as an address, which is how it is written where no name server is at hand.
fn tftp_server(message: &Message<'_>) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(message.options.get(code::TFTP_SERVER)?).ok()?;
    text.trim_end_matches('\0').parse().ok()
}

fn readable(name: &[u8]) -> Option<String> {
    let name = name.get(..FILE_BYTES).unwrap_or(name);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let text: String = String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::reply::Reply;

    const CARD: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn reply() -> Reply {
        Reply {
            xid: 7,
            flags: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::new(10, 0, 0, 9),
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            mac: CARD,
            file: Some("a.efi".to_owned()),
            kind: MessageType::Offer,
            options: vec![
                (code::SERVER, vec![10, 0, 0, 1]),
                (code::CLASS, b"PXEClient".to_vec()),
                (code::TFTP_SERVER, b"10.0.0.3".to_vec()),
                (code::IPXE, vec![1, 1, 0xff, 0xb0, 1, 1]),
            ],
            relay: None,
        }
    }

    fn datagram(payload: &[u8]) -> Datagram<'_> {
        Datagram {
            from_mac: Mac([2, 0, 0, 0, 0, 9]),
            source: Ipv4Addr::new(10, 0, 0, 1),
            target: Ipv4Addr::BROADCAST,
            source_port: 67,
            target_port: 68,
            payload,
        }
    }

    #[test]
    fn an_offer_is_read_with_what_a_boot_needs() {
        let (bytes, _) = reply().encode(1500);
        let answer = Answer::read(&datagram(&bytes), CARD, 7, 12).unwrap();
        assert_eq!(answer.who(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(answer.next_server, Some(Ipv4Addr::new(10, 0, 0, 3)));
        assert_eq!((answer.class, answer.vendor, answer.file.as_deref()), (Some(BootClass::Pxe), false, Some("a.efi")));
        assert_eq!((answer.ipxe_priority, answer.ipxe_no_proxy, answer.after_ms), (-1, true, 12));
    }

    #[test]
    fn another_cards_or_transactions_answer_is_not_ours() {
        let (bytes, _) = reply().encode(1500);
        assert_eq!(Answer::read(&datagram(&bytes), CARD, 8, 0), None);
        assert_eq!(Answer::read(&datagram(&bytes), Mac([2, 0, 0, 0, 0, 2]), 7, 0), None);
    }
}
